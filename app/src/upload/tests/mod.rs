//! Uploads against OpenSSH's own server and against one that misbehaves on purpose.
#![allow(clippy::unwrap_used)]

mod clearing;
mod faults;
mod lives;
mod named;
mod power;
mod refusals;
mod resume;
mod rig;
mod road;
mod sshd;

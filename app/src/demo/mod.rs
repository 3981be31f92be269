//! `mos demo`: the whole recorder shown on throw-away cameras and a throw-away server (cargo feature `demo`).

pub mod sftp_server;

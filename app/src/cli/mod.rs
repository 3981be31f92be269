//! The commands. Each is a client of the HTTP API like any other; only this room prints.

pub mod client;

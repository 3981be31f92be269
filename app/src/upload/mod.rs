//! Uploads: files of the archive go, byte for byte, to a server that is surely the right one.
//!
//! [`queue::Uploads`] takes jobs and tells where they stand; it is what the HTTP API calls. A destination is served by an
//! [`UploadBackend`]; SFTP is the first, others (S3, HTTP) get the same seam. Jobs survive restarts and power cuts.
//!
//! The way of a job: `request` understands the call, `outbox` pins the file, `store` writes the job down, `book` shows it,
//! `schedule` says whose turn it is, `courier` carries it out, `sftp` and `ssh` are the road; `clearing` removes what a job that
//! was called off left at its server.
//!
//! It runs on a thread of its own and shares nothing with the recorder but the file system. It never deletes or changes a file
//! of the archive and never sends a credential of the daemon's own to a URI that came with a call.
//!
//! Invariants:
//! 1. No connection without a pinned host key, and no credential leaves before the server has proved that it holds that key.
//! 2. No credential appears in a log line, an error, a `Debug` text or the API.
//! 3. Under its final name a file at the server is whole: it arrives under a temporary name and is renamed after its size was
//!    checked. An existing target is replaced only if `overwrite` was asked for.
//! 4. `done` is said only after the rename was acknowledged; whatever failed is `failed`.
//! 5. Only files under `segments/`, `clips/` and `snapshots/` are sent, never an open segment, and never through a link.
//! 6. Memory is bounded: jobs that wait, jobs that have ended, and bytes in flight have limits.
//! 7. A sync of the recorder waits behind at most one read of 255 KiB: the file is read in such steps, one at a time, without
//!    read-ahead and at the lowest priority, and no lock of the archive is held meanwhile.
//! 8. What was accepted is carried out or still there: a job ends as done or cancelled, or stands as failed or without
//!    credential until somebody decides. Faults of the road are tried again; a refused login, a forbidden path and another
//!    host key are not.

mod book;
pub(crate) mod check;
mod clearing;
pub mod contents;
mod courier;
pub mod credential;
pub mod destination;
pub mod failure;
mod gentle;
pub mod host_key;
pub mod job;
mod meter;
pub mod named;
pub mod outbox;
pub mod queue;
mod request;
mod schedule;
pub mod sftp;
mod ssh;
mod store;
mod subject;
pub mod template;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use contents::{Contents, Known};
use credential::Credential;
use destination::{Destination, Endpoint};
use failure::Failure;
use host_key::HostKeyPin;
use job::JobId;

/// A future that a backend returns.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How to get in: which server, what it must prove, what we prove.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// Server and account.
    pub endpoint: Endpoint,
    /// The server's key.
    pub pin: HostKeyPin,
    /// Our proof.
    pub credential: Credential,
}

/// One file on its way.
pub struct Parcel {
    /// The job, part of the temporary name.
    pub job: JobId,
    /// What is sent.
    pub contents: Arc<Contents>,
    /// Where to.
    pub to: Destination,
    /// Replace an existing target.
    pub overwrite: bool,
    /// What earlier tries of this job know, and what the next one will.
    pub known: Known,
    /// Most bytes per second.
    pub max_rate: Option<u64>,
    /// Read everything back before the rename, if the server cannot tell a hash.
    pub read_back: bool,
}

/// How far a parcel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Bytes acknowledged and bytes in all.
    Sent {
        /// Acknowledged.
        bytes: u64,
        /// In all.
        total: u64,
    },
    /// All sent; being checked and renamed.
    Verifying,
}

/// A parcel that lies under its final name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The path at the server.
    pub remote_path: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 of what was sent.
    pub sha256: [u8; 32],
    /// The server confirmed that the bytes are on its disk.
    pub synced: bool,
}

/// A kind of destination. Called on the upload thread only; futures may not block it for long.
pub trait UploadBackend: Send + Sync {
    /// Connects, checks the host key, logs in.
    fn connect<'a>(&'a self, access: &'a Access) -> Boxed<'a, Result<Box<dyn UploadSession>, Failure>>;
}

/// A connection that is logged in; it may take several parcels, one after another.
pub trait UploadSession: Send {
    /// Sends one parcel. Dropping the future breaks off; a temporary file may then stay behind at the server.
    fn send<'a>(
        &'a mut self,
        parcel: &'a Parcel,
        progress: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> Boxed<'a, Result<Delivered, Failure>>;
    /// Removes what a job that was called off left at the server; an error if it is not known to be gone.
    fn discard<'a>(&'a mut self, to: &'a Destination, job: &'a JobId) -> Boxed<'a, Result<(), Failure>>;
    /// Whether the other side is gone.
    fn is_closed(&self) -> bool;
    /// Says goodbye.
    fn close(self: Box<Self>) -> Boxed<'static, ()>;
}

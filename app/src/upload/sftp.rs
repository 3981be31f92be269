//! Files over SFTP version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions where the server offers them.
//!
//! A file is written as `.{name}.part-{job}` beside its final name, 64 writes of 32 KiB in flight (OpenSSH's channel window
//! is 2 MiB; fewer leave a long road half empty). After the last acknowledgement it is synced (`fsync@openssh.com`), closed,
//! its size is asked for, and it is renamed. SFTP's own rename fails if the target exists, which is what keeps an existing file
//! safe even from a race; with `overwrite` it is `posix-rename@openssh.com`, which replaces it in one step, or, where the
//! server lacks that, remove and rename, between which the name is absent for a moment.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::{Config, RawSftpSession};
use russh_sftp::protocol::{FileAttributes, OpenFlags, Packet, StatusCode};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::contents::Contents;
use super::destination::{Destination, Endpoint};
use super::failure::{Failure, FailureKind};
use super::job::JobId;
use super::ssh::Connection;
use super::{Access, Boxed, Delivered, Parcel, Progress, UploadBackend, UploadSession};

/// Bytes of a write.
const CHUNK: usize = 32 * 1024;
/// Writes in flight.
const IN_FLIGHT: usize = 64;
/// How long a single request may take. A slow road with 2 MiB in flight ahead of it needs its time.
const ANSWER_SECS: u64 = 60;
/// How long clearing up after a failure may take.
const CLEAR_UP: Duration = Duration::from_secs(5);

const POSIX_RENAME: &str = "posix-rename@openssh.com";
const FSYNC: &str = "fsync@openssh.com";
const STATVFS: &str = "statvfs@openssh.com";

/// The SFTP backend.
#[derive(Debug, Default)]
pub struct Sftp;

impl UploadBackend for Sftp {
    fn connect<'a>(&'a self, access: &'a Access) -> Boxed<'a, Result<Box<dyn UploadSession>, Failure>> {
        Box::pin(async move {
            let session = Session::open(access).await?;
            Ok(Box::new(session) as Box<dyn UploadSession>)
        })
    }
}

/// One SFTP channel on one connection.
struct Session {
    connection: Connection,
    sftp: Arc<RawSftpSession>,
    at: Endpoint,
    offers: Offers,
}

/// The extensions that the server named.
#[derive(Clone, Copy, Debug, Default)]
struct Offers {
    posix_rename: bool,
    fsync: bool,
    statvfs: bool,
}

impl Session {
    async fn open(access: &Access) -> Result<Self, Failure> {
        let at = access.endpoint.clone();
        let connection = Connection::open(access).await?;
        let channel = connection.subsystem("sftp", &at).await?;
        let config = Config { request_timeout_secs: ANSWER_SECS, ..Config::default() };
        let sftp = RawSftpSession::new_with_config(channel.into_stream(), config);
        let version = sftp.init().await.map_err(|e| fault(&at, connection.is_closed(), "starting SFTP", &e))?;
        let has = |name| version.extensions.contains_key(name);
        let offers = Offers { posix_rename: has(POSIX_RENAME), fsync: has(FSYNC), statvfs: has(STATVFS) };
        Ok(Self { connection, sftp: Arc::new(sftp), at, offers })
    }

    fn fault(&self, what: impl fmt::Display, e: &SftpError) -> Failure {
        fault(&self.at, self.connection.is_closed(), what, e)
    }

    async fn deliver(
        &self,
        parcel: &Parcel,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Delivered, Failure> {
        let total = parcel.contents.len();
        progress(Progress::Sent { bytes: 0, total });
        self.make_parents(&parcel.to).await?;
        let remote = parcel.to.remote_path();
        if !parcel.overwrite && self.exists(&remote).await? {
            return Err(already_there(&self.at, &remote));
        }
        let temporary = parcel.to.sibling(&temporary_name(parcel.to.file_name(), &parcel.job.0));
        let sent = self.send_as(&temporary, parcel, total, progress).await;
        let ended = match sent {
            Ok((sha256, synced)) => match self.put_in_place(&temporary, &remote, parcel.overwrite).await {
                Ok(()) => Ok(Delivered { remote_path: remote, bytes: total, sha256, synced }),
                Err(e) => Err(e),
            },
            Err(e) => Err(e),
        };
        if ended.is_err() && !self.connection.is_closed() {
            // Best effort: the failure that is reported is the first one.
            let _ = timeout(CLEAR_UP, self.sftp.remove(temporary)).await;
        }
        ended
    }

    /// Creates the directories of the file that are missing.
    async fn make_parents(&self, to: &Destination) -> Result<(), Failure> {
        let dirs = to.parents();
        let Some(innermost) = dirs.last() else { return Ok(()) };
        if self.exists(innermost).await? {
            return Ok(());
        }
        for dir in dirs {
            if let Err(e) = self.sftp.mkdir(dir.as_str(), FileAttributes::default()).await {
                // An existing directory and a forbidden one get the same answer from some servers.
                if !self.exists(&dir).await? {
                    return Err(self.fault(format_args!("creating the directory {}", shown(&dir)), &e));
                }
            }
        }
        Ok(())
    }

    async fn exists(&self, path: &str) -> Result<bool, Failure> {
        match self.sftp.lstat(path).await {
            Ok(_) => Ok(true),
            Err(SftpError::Status(s)) if s.status_code == StatusCode::NoSuchFile => Ok(false),
            Err(e) => Err(self.fault(format_args!("looking for {}", shown(path)), &e)),
        }
    }

    /// Writes, syncs and closes the temporary file and checks its size.
    async fn send_as(
        &self,
        temporary: &str,
        parcel: &Parcel,
        total: u64,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<([u8; 32], bool), Failure> {
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
        let opened = self.sftp.open(temporary, flags, FileAttributes::default()).await;
        let handle = opened.map_err(|e| self.fault(format_args!("creating {}", shown(temporary)), &e))?.handle;
        let written = self.write_all(&handle, &parcel.contents, total, progress).await;
        let sha256 = match written {
            Ok(sha256) => sha256,
            Err(e) => {
                if !self.connection.is_closed() {
                    let _ = timeout(CLEAR_UP, self.sftp.close(handle)).await;
                }
                return Err(e);
            }
        };
        progress(Progress::Verifying);
        let synced = self.offers.fsync
            && match self.sftp.fsync(handle.as_str()).await {
                Ok(_) => true,
                Err(SftpError::Status(s)) if s.status_code == StatusCode::OpUnsupported => false,
                Err(e) => return Err(self.fault("syncing the file", &e)),
            };
        self.sftp.close(handle).await.map_err(|e| self.fault("closing the file", &e))?;
        let there = self.sftp.stat(temporary).await.map_err(|e| self.fault("asking for the size", &e))?;
        match there.attrs.size {
            Some(size) if size == total => Ok((sha256, synced)),
            size => {
                let size = size.map_or_else(|| "an unknown number of".to_owned(), |s| s.to_string());
                let message = format!("{} holds {size} bytes after {total} were sent and acknowledged", self.at);
                Err(Failure::new(FailureKind::SizeMismatch, message))
            }
        }
    }

    /// Keeps the pipe full until everything is acknowledged. Returns the SHA-256 of what was sent.
    async fn write_all(
        &self,
        handle: &str,
        contents: &Contents,
        total: u64,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<[u8; 32], Failure> {
        let mut writes: JoinSet<Result<u64, SftpError>> = JoinSet::new();
        let mut hash = Sha256::new();
        let (mut sent, mut acknowledged) = (0, 0);
        while acknowledged < total {
            while sent < total && writes.len() < IN_FLIGHT {
                let mut data = vec![0; CHUNK.min(usize::try_from(total - sent).unwrap_or(CHUNK))];
                contents.read_at(sent, &mut data).map_err(|e| Failure::unreadable(&e))?;
                hash.update(&data);
                let (sftp, handle, offset, len) = (self.sftp.clone(), handle.to_owned(), sent, data.len() as u64);
                writes.spawn(async move { sftp.write(handle, offset, data).await.map(|_| len) });
                sent += len;
            }
            match writes.join_next().await {
                Some(Ok(Ok(len))) => acknowledged += len,
                Some(Ok(Err(e))) => return Err(self.write_fault(&e, total).await),
                Some(Err(_)) | None => {
                    return Err(Failure::new(FailureKind::Internal, "a fault of the program ended the transfer"));
                }
            }
            progress(Progress::Sent { bytes: acknowledged, total });
        }
        contents.check().map_err(|e| Failure::unreadable(&e))?;
        Ok(hash.finalize().into())
    }

    /// SFTP has no status for a full disk; ask for the room that is left.
    async fn write_fault(&self, e: &SftpError, total: u64) -> Failure {
        let plain = self.fault("writing", e);
        if !matches!(e, SftpError::Status(s) if s.status_code == StatusCode::Failure) || !self.offers.statvfs {
            return plain;
        }
        match self.sftp.statvfs(".").await {
            Ok(room) if room.blocks_avail.saturating_mul(room.fragment_size) < total => {
                Failure::new(FailureKind::ServerFull, format!("{} has no room for {total} bytes", self.at))
            }
            _ => plain,
        }
    }

    async fn put_in_place(&self, temporary: &str, remote: &str, overwrite: bool) -> Result<(), Failure> {
        let failed = |e: &SftpError| self.fault(format_args!("renaming to {}", shown(remote)), e);
        if overwrite && self.offers.posix_rename {
            return match self.sftp.extended(POSIX_RENAME, two_strings(temporary, remote)).await {
                Ok(Packet::Status(s)) if s.status_code == StatusCode::Ok => Ok(()),
                Ok(Packet::Status(s)) => Err(failed(&SftpError::Status(s))),
                Ok(_) => Err(failed(&SftpError::UnexpectedPacket)),
                Err(e) => Err(failed(&e)),
            };
        }
        if overwrite && self.exists(remote).await? {
            self.sftp.remove(remote).await.map_err(|e| failed(&e))?;
        }
        match self.sftp.rename(temporary, remote).await {
            Ok(_) => Ok(()),
            Err(e @ SftpError::Status(_)) if !overwrite => {
                if self.exists(remote).await? {
                    Err(already_there(&self.at, remote))
                } else {
                    Err(failed(&e))
                }
            }
            Err(e) => Err(failed(&e)),
        }
    }
}

impl UploadSession for Session {
    fn send<'a>(
        &'a mut self,
        parcel: &'a Parcel,
        progress: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> Boxed<'a, Result<Delivered, Failure>> {
        Box::pin(self.deliver(parcel, progress))
    }

    fn discard<'a>(&'a mut self, to: &'a Destination, job: &'a JobId) -> Boxed<'a, ()> {
        Box::pin(async move {
            let _ = self.sftp.remove(to.sibling(&temporary_name(to.file_name(), &job.0))).await;
        })
    }

    fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    fn close(self: Box<Self>) -> Boxed<'static, ()> {
        Box::pin(async move {
            let _ = self.sftp.close_session();
            self.connection.close().await;
        })
    }
}

/// `.{name}.part-{job}`, shortened in the middle so that it stays within the 255 bytes that file systems allow.
fn temporary_name(name: &str, job: &str) -> String {
    let room = 255 - ".".len() - ".part-".len() - job.len();
    let cut = (0..=room.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    format!(".{}.part-{job}", &name[..cut])
}

/// Two SSH strings (RFC 4251 section 5).
fn two_strings(a: &str, b: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + a.len() + b.len());
    for s in [a, b] {
        out.extend_from_slice(&u32::try_from(s.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(s.as_bytes());
    }
    out
}

fn already_there(at: &Endpoint, remote: &str) -> Failure {
    let message =
        format!("{} exists at {at} already and was left as it is; ask for `overwrite` to replace it", shown(remote));
    Failure::new(FailureKind::DestinationExists, message)
}

fn fault(at: &Endpoint, closed: bool, what: impl fmt::Display, e: &SftpError) -> Failure {
    let (kind, why) = match e {
        SftpError::Status(s) => match s.status_code {
            StatusCode::PermissionDenied => (FailureKind::PermissionDenied, "permission denied".to_owned()),
            StatusCode::NoConnection | StatusCode::ConnectionLost => {
                (FailureKind::ConnectionLost, "the connection is gone".to_owned())
            }
            code => (FailureKind::ServerError, format!("{code}: {}", shown(&s.error_message))),
        },
        SftpError::Timeout => (FailureKind::TimedOut, format!("no answer within {ANSWER_SECS} s")),
        SftpError::IO(_) => (FailureKind::ConnectionLost, "the connection broke off".to_owned()),
        _ if closed => (FailureKind::ConnectionLost, "the connection broke off".to_owned()),
        // The session's own words for a stream that ended before the answer came.
        SftpError::UnexpectedBehavior(text) if ["sender dropped", "session closed"].contains(&text.as_str()) => {
            (FailureKind::ConnectionLost, "the connection broke off".to_owned())
        }
        other => (FailureKind::ServerError, shown(&other.to_string())),
    };
    Failure::new(kind, format!("{what} at {at} failed: {why}"))
}

/// A text from the other side, made fit for a line of ours.
fn shown(text: &str) -> String {
    text.chars().take(300).flat_map(char::escape_debug).collect()
}

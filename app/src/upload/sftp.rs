//! Files over SFTP version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions where the server offers them.
//!
//! A file is written as `.{name}.part-{job}` beside its final name (`transfer.rs`). A partial file of an earlier try is looked
//! at first and continued (`survey.rs`). After the last acknowledgement it is synced (`fsync@openssh.com`), its size is asked
//! for, its hash too if the server can tell one (`check-file`), and it is renamed. SFTP's own rename fails if the target exists,
//! which is what keeps an existing file safe even from a race; with `overwrite` it is `posix-rename@openssh.com`, which replaces
//! it in one step, or, where the server lacks that, remove and rename, between which the name is absent for a moment.
//!
//! The answer to a rename may be lost with the connection. A later try that finds no partial file but a target with the very
//! bytes of the job (all of them compared) says `done`.

mod finish;
mod rate;
mod survey;
mod transfer;
mod wire;

/// See [`crate::fuzzing`].
pub(crate) use self::wire::hear;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use russh_sftp::protocol::{
    Close, Extended, FileAttributes, Lstat, MkDir, Open, OpenFlags, Packet, Remove, StatusCode,
};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use self::survey::{Blind, CHECK_FILE, Partial};
use self::transfer::{Broken, LARGEST, Lane, Plan, SMALLEST};
use self::wire::{Wire, WireError, shown, unexpected};
use super::contents::Part;
use super::destination::{Destination, Endpoint};
use super::failure::{Failure, FailureKind};
use super::job::JobId;
use super::ssh::Connection;
use super::{Access, Boxed, Delivered, Parcel, Progress, UploadBackend, UploadSession};

/// How long clearing up after a failure may take.
const CLEAR_UP: Duration = Duration::from_secs(5);

const POSIX_RENAME: &str = "posix-rename@openssh.com";
const FSYNC: &str = "fsync@openssh.com";
const STATVFS: &str = "statvfs@openssh.com";
const LIMITS: &str = "limits@openssh.com";

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

/// SFTP on one connection: a channel for everything, and more while a long road needs them.
struct Session {
    connection: Arc<Connection>,
    wire: Arc<Wire>,
    at: Endpoint,
    /// The extensions that the server named.
    extensions: HashSet<String>,
    measures: OnceCell<Measures>,
    /// Directories that are known to be there.
    folders: Mutex<HashSet<String>>,
    /// The handle of the file that is being written, for whoever clears up.
    open: Mutex<Option<String>>,
}

/// What is asked for once on each connection.
#[derive(Clone, Copy, Debug)]
struct Measures {
    /// Largest write that the server takes.
    largest: usize,
    round_trip: Duration,
}

/// What a look at a name showed.
type Attributes = Option<FileAttributes>;

impl Session {
    async fn open(access: &Access) -> Result<Self, Failure> {
        let at = access.endpoint.clone();
        let connection = Arc::new(Connection::open(access).await?);
        let starting = |e: WireError| e.failure(&at, "starting SFTP");
        let (wire, version) = Wire::open(connection.channel(&at).await?).await.map_err(starting)?;
        let extensions: HashSet<String> = version.extensions.into_keys().collect();
        let (wire, measures) = (Arc::new(wire), OnceCell::new());
        Ok(Self { connection, wire, at, extensions, measures, folders: Mutex::default(), open: Mutex::default() })
    }

    /// Largest write and round trip; asked for beside other requests, so that it costs no time of its own.
    async fn measures(&self) -> Result<Measures, Failure> {
        let ask = async {
            let begun = Instant::now();
            let answer = if self.offers(LIMITS) {
                self.wire.ask(|id| Packet::from(Extended { id, request: LIMITS.to_owned(), data: Vec::new() })).await
            } else {
                self.wire.ask(|id| Packet::from(Lstat { id, path: ".".to_owned() })).await
            };
            let answer = answer.map_err(|e| self.fault(&e, "asking for limits"))?;
            Ok(Measures { largest: largest_write(&answer), round_trip: begun.elapsed() })
        };
        self.measures.get_or_try_init(|| ask).await.copied()
    }

    fn offers(&self, extension: &str) -> bool {
        self.extensions.contains(extension)
    }

    async fn deliver(
        &self,
        parcel: &Parcel,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Delivered, Failure> {
        let remote = parcel.to.remote_path();
        let temporary = partial_path(&parcel.to, &parcel.job);
        let mut ended = self.deliver_as(parcel, &temporary, &remote, progress).await;
        if matches!(&ended, Err(e) if e.kind == FailureKind::HashMismatch) && parcel.known.part().resumed {
            // What an earlier try left was not what it seemed; once more from nothing.
            let left = self.clear_up(&temporary).await.is_err();
            parcel.known.update(|part| *part = Part { left, ..Part::default() });
            ended = self.deliver_as(parcel, &temporary, &remote, progress).await;
        }
        if let Err(failure) = &ended
            && (!failure.kind.is_road_fault() || failure.kind == FailureKind::ServerFull)
            && failure.kind != FailureKind::DestinationExists
        {
            let left = self.clear_up(&temporary).await.is_err();
            parcel.known.update(|part| (part.acknowledged, part.left) = (0, left));
        }
        ended
    }

    async fn deliver_as(
        &self,
        parcel: &Parcel,
        temporary: &str,
        remote: &str,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Delivered, Failure> {
        let total = parcel.contents.len();
        let delivered = |sha256, synced| Delivered { remote_path: remote.to_owned(), bytes: total, sha256, synced };
        // All at once: on a long road each round trip counts.
        let (parent, there, partial, measures) =
            tokio::join!(self.lacks_parent(&parcel.to), self.look(remote), self.look(temporary), self.measures());
        if parent? {
            self.make_parents(&parcel.to).await?;
        }
        let (there, partial, measures) = (there?, partial?, measures?);
        parcel.known.update(|part| part.left = partial.is_some());
        if let Some(there) = there {
            if parcel.known.part().maybe_placed && partial.is_none() && there.size == Some(total) {
                progress(Progress::Verifying);
                if let Some(sha256) = self.holds_the_same(remote, &parcel.contents).await? {
                    return Ok(delivered(sha256, false));
                }
            }
            if !parcel.overwrite {
                return Err(already_there(&self.at, remote));
            }
        }
        let (handle, todo) = self.open_partial(parcel, temporary, partial).await?;
        self.note_open(Some(handle.clone()));
        let sha256 = self.send(parcel, temporary, (&handle, todo), measures, progress).await?;
        progress(Progress::Verifying);
        let synced = self.verify(parcel, temporary, &handle, sha256).await?;
        self.note_open(None);
        parcel.known.update(|part| part.maybe_placed = true);
        let close = self.command("closing the file", |id| Packet::from(Close { id, handle }));
        let place = self.put_in_place(temporary, remote, parcel.overwrite);
        if synced {
            // On its disk already, so closing has nothing to tell; the server takes both in order.
            let (closed, placed) = tokio::join!(close, place);
            placed?;
            if let Err(e) = closed {
                log::debug!("{e}");
            }
        } else {
            close.await?;
            place.await?;
        }
        Ok(delivered(sha256, synced))
    }

    /// Whether the directory of the file has to be made.
    async fn lacks_parent(&self, to: &Destination) -> Result<bool, Failure> {
        match to.parents().last() {
            Some(parent) if !lock(&self.folders).contains(parent) => {
                let lacks = self.look(parent).await?.is_none();
                if !lacks {
                    lock(&self.folders).insert(parent.clone());
                }
                Ok(lacks)
            }
            _ => Ok(false),
        }
    }

    /// Creates the directories of the file that are missing.
    async fn make_parents(&self, to: &Destination) -> Result<(), Failure> {
        let folders = to.parents();
        for folder in &folders {
            let (path, attrs) = (folder.clone(), FileAttributes::default());
            if let Err(e) = self.wire.command(|id| Packet::from(MkDir { id, path, attrs })).await {
                // An existing directory and a forbidden one get the same answer from some servers.
                if self.look(folder).await?.is_none() {
                    return Err(self.fault(&e, format_args!("creating the directory {}", shown(folder))));
                }
            }
        }
        lock(&self.folders).extend(folders.last().cloned());
        Ok(())
    }

    async fn look(&self, path: &str) -> Result<Attributes, Failure> {
        match self.wire.ask(|id| Packet::from(Lstat { id, path: path.to_owned() })).await {
            Ok(Packet::Attrs(attrs)) => Ok(Some(attrs.attrs)),
            Ok(Packet::Status(s)) if s.status_code == StatusCode::NoSuchFile => Ok(None),
            Ok(other) => Err(self.fault(&unexpected(other), format_args!("looking for {}", shown(path)))),
            Err(e) => Err(self.fault(&e, format_args!("looking for {}", shown(path)))),
        }
    }

    /// Opens the temporary file, and says what is missing in it.
    async fn open_partial(
        &self,
        parcel: &Parcel,
        temporary: &str,
        partial: Attributes,
    ) -> Result<(String, Vec<std::ops::Range<u64>>), Failure> {
        let total = parcel.contents.len();
        let size = partial.as_ref().and_then(|a| a.size).unwrap_or(0);
        if size > 0 && size <= total {
            let both = OpenFlags::READ | OpenFlags::WRITE;
            // A server that lets nobody read gets everything anew.
            if let Ok(handle) = open(&self.wire, temporary, both).await {
                self.note_open(Some(handle.clone()));
                let partial = Partial {
                    wire: &self.wire,
                    path: temporary,
                    handle: &handle,
                    contents: &parcel.contents,
                    size,
                    acknowledged: parcel.known.part().acknowledged,
                    hashes: self.offers(CHECK_FILE),
                };
                let missing = partial.missing().await.map_err(|e| self.blind(e))?;
                let believed = missing.first().map_or(total, |range| range.start);
                if believed > 0 {
                    parcel.known.update(|part| (part.acknowledged, part.resumed) = (believed, true));
                    return Ok((handle, missing));
                }
                // Nothing of it is any good. It is cut, lest what lies behind be believed by a later try.
                self.note_open(None);
                self.command("closing the file", |id| Packet::from(Close { id, handle })).await?;
            }
        }
        parcel.known.update(|part| (part.acknowledged, part.left) = (0, true));
        let anew = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
        let mut opened = open(&self.wire, temporary, anew).await;
        if matches!(&opened, Err(e) if e.code() == Some(StatusCode::NoSuchFile)) {
            // The directory was there before, and has gone since.
            self.make_parents(&parcel.to).await?;
            opened = open(&self.wire, temporary, anew).await;
        }
        let handle = opened.map_err(|e| self.fault(&e, format_args!("creating {}", shown(temporary))))?;
        Ok((handle, survey::rest(0, total)))
    }

    async fn send(
        &self,
        parcel: &Parcel,
        temporary: &str,
        (handle, todo): (&str, Vec<std::ops::Range<u64>>),
        measures: Measures,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<[u8; 32], Failure> {
        let total = parcel.contents.len();
        let plan = Plan {
            contents: &parcel.contents,
            todo,
            largest: measures.largest,
            round_trip: measures.round_trip,
            max_rate: parcel.max_rate,
            known: &parcel.known,
        };
        let first = Lane { wire: self.wire.clone(), handle: handle.to_owned() };
        let another = || {
            let (connection, at, path) = (self.connection.clone(), self.at.clone(), temporary.to_owned());
            async move {
                let channel = connection.channel(&at).await.ok()?;
                let (wire, _) = Wire::open(channel).await.ok()?;
                let handle = open(&wire, &path, OpenFlags::WRITE).await.ok()?;
                Some(Lane { wire: Arc::new(wire), handle })
            }
        };
        let report = |bytes| progress(Progress::Sent { bytes, total });
        match transfer::run(plan, first, another, &report).await {
            Ok(sha256) => Ok(sha256),
            Err(Broken::Source(failure)) => Err(failure),
            Err(Broken::Wire(e)) => Err(self.write_fault(&e, temporary, total).await),
        }
    }

    /// SFTP has no status for a full disk; ask for the room that is left where the file lies.
    async fn write_fault(&self, e: &WireError, temporary: &str, total: u64) -> Failure {
        let plain = self.fault(e, "writing");
        if e.code() != Some(StatusCode::Failure) || !self.offers(STATVFS) {
            return plain;
        }
        let data = one_string(temporary);
        let ask = |id| Packet::from(Extended { id, request: STATVFS.to_owned(), data });
        match self.wire.ask(ask).await {
            Ok(Packet::ExtendedReply(room)) if free(&room.data).is_some_and(|free| free < total) => {
                Failure::new(FailureKind::ServerFull, format!("{} has no room for {total} bytes", self.at))
            }
            _ => plain,
        }
    }

    /// Closes what is open and removes the temporary file; an error if it is not known to be gone.
    async fn clear_up(&self, temporary: &str) -> Result<(), Failure> {
        let what = format!("removing {}", shown(temporary));
        if self.connection.is_closed() || self.wire.is_over() {
            return Err(self.fault(&WireError::Gone, what));
        }
        let open = lock(&self.open).take();
        let clear = async {
            if let Some(handle) = open {
                let _ = self.wire.command(|id| Packet::from(Close { id, handle })).await;
            }
            self.wire.command(|id| Packet::from(Remove { id, filename: temporary.to_owned() })).await
        };
        match timeout(CLEAR_UP, clear).await {
            Ok(Err(e)) if e.code() != Some(StatusCode::NoSuchFile) => Err(self.fault(&e, what)),
            Ok(_) => Ok(()),
            Err(_) => {
                let words = format!("{what} at {} failed: no answer within {} s", self.at, CLEAR_UP.as_secs());
                Err(Failure::new(FailureKind::TimedOut, words))
            }
        }
    }

    async fn command(&self, what: impl std::fmt::Display, make: impl FnOnce(u32) -> Packet) -> Result<(), Failure> {
        self.wire.command(make).await.map_err(|e| self.fault(&e, what))
    }

    fn note_open(&self, handle: Option<String>) {
        *lock(&self.open) = handle;
    }

    fn fault(&self, e: &WireError, what: impl std::fmt::Display) -> Failure {
        match e {
            WireError::Garbled(_) if self.connection.is_closed() => WireError::Gone.failure(&self.at, what),
            _ => e.failure(&self.at, what),
        }
    }

    fn blind(&self, e: Blind) -> Failure {
        match e {
            Blind::Source(failure) => failure,
            Blind::Wire(e) => self.fault(&e, "reading back what lies there"),
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

    fn discard<'a>(&'a mut self, to: &'a Destination, job: &'a JobId) -> Boxed<'a, Result<(), Failure>> {
        Box::pin(async move { self.clear_up(&partial_path(to, job)).await })
    }

    fn is_closed(&self) -> bool {
        self.connection.is_closed() || self.wire.is_over()
    }

    fn close(self: Box<Self>) -> Boxed<'static, ()> {
        Box::pin(async move { self.connection.close().await })
    }
}

async fn open(wire: &Wire, path: &str, pflags: OpenFlags) -> Result<String, WireError> {
    let (filename, attrs) = (path.to_owned(), FileAttributes::default());
    match wire.ask(|id| Packet::from(Open { id, filename, pflags, attrs })).await? {
        Packet::Handle(opened) => Ok(opened.handle),
        other => Err(unexpected(other)),
    }
}

/// `limits@openssh.com` answers four 64-bit numbers; the third is the longest write (PROTOCOL of OpenSSH, section 4.8).
fn largest_write(answer: &Packet) -> usize {
    let Packet::ExtendedReply(limits) = answer else { return SMALLEST };
    match limits.data.get(16..24).and_then(|b| b.first_chunk()).map(|b| u64::from_be_bytes(*b)) {
        Some(0) | None => SMALLEST,
        Some(most) => usize::try_from(most).unwrap_or(LARGEST).clamp(1024, LARGEST),
    }
}

/// `statvfs@openssh.com` answers eleven 64-bit numbers: the second is the fragment's size, the fifth how many are free for us
/// (PROTOCOL of OpenSSH, section 4.4).
fn free(data: &[u8]) -> Option<u64> {
    let number = |n: usize| data.get(n * 8..n * 8 + 8)?.first_chunk().map(|b| u64::from_be_bytes(*b));
    Some(number(1)?.saturating_mul(number(4)?))
}

/// Where a file lies before it is whole.
pub(super) fn partial_path(to: &Destination, job: &JobId) -> String {
    to.sibling(&temporary_name(to.file_name(), &job.0))
}

/// `.{name}.part-{job}`, shortened in the middle so that it stays within the 255 bytes that file systems allow.
fn temporary_name(name: &str, job: &str) -> String {
    let room = 255 - ".".len() - ".part-".len() - job.len();
    let cut = (0..=room.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    format!(".{}.part-{job}", &name[..cut])
}

/// An SSH string (RFC 4251 section 5).
fn one_string(s: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + s.len());
    out.extend_from_slice(&u32::try_from(s.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(s.as_bytes());
    out
}

fn already_there(at: &Endpoint, remote: &str) -> Failure {
    let message =
        format!("{} exists at {at} already and was left as it is; ask for `overwrite` to replace it", shown(remote));
    Failure::new(FailureKind::DestinationExists, message)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The end of a transfer: what arrived is checked, and only then gets its name.
//!
//! Checked are the size, always; the hash, where the server tells one; every byte, where reading back was asked for. A name that
//! is taken stays with whom it belongs to unless `overwrite` was asked for.

use russh_sftp::protocol::{Close, Extended, Fstat, OpenFlags, Packet, Remove, Rename, StatusCode};

use super::survey::{self, CHECK_FILE, Partial};
use super::transfer::SMALLEST;
use super::wire::{WireError, shown, unexpected};
use super::{FSYNC, POSIX_RENAME, Session, already_there, one_string, open};
use crate::upload::Parcel;
use crate::upload::contents::Contents;
use crate::upload::failure::{Failure, FailureKind};

impl Session {
    /// Syncs, and compares size and hash as far as the server tells them. Whether it is synced.
    pub(super) async fn verify(
        &self,
        parcel: &Parcel,
        temporary: &str,
        handle: &str,
        sha256: [u8; 32],
    ) -> Result<bool, Failure> {
        let total = parcel.contents.len();
        let sync = async {
            if !self.offers(FSYNC) {
                return Ok(false);
            }
            let data = one_string(handle);
            let ask = |id| Packet::from(Extended { id, request: FSYNC.to_owned(), data });
            match self.wire.command(ask).await {
                Ok(()) => Ok(true),
                Err(e) if e.code() == Some(StatusCode::OpUnsupported) => Ok(false),
                Err(e) => Err(self.fault(&e, "syncing the file")),
            }
        };
        // Both at once: the server answers in order.
        let size = self.wire.ask(|id| Packet::from(Fstat { id, handle: handle.to_owned() }));
        let (synced, size) = tokio::join!(sync, size);
        let synced = synced?;
        let size = match size {
            Ok(Packet::Attrs(attrs)) => attrs.attrs.size,
            Ok(other) => return Err(self.fault(&unexpected(other), "asking for the size")),
            Err(e) => return Err(self.fault(&e, "asking for the size")),
        };
        if size != Some(total) {
            let size = size.map_or_else(|| "an unknown number of".to_owned(), |s| s.to_string());
            let message = format!("{} holds {size} bytes after {total} were sent and acknowledged", self.at);
            return Err(Failure::new(FailureKind::SizeMismatch, message));
        }
        let mismatch = |how: &str| {
            let message = format!("{} holds other bytes than were sent and acknowledged ({how})", self.at);
            Err(Failure::new(FailureKind::HashMismatch, message))
        };
        let hash = if self.offers(CHECK_FILE) {
            let hash = survey::hash_at_server(&self.wire, temporary, total).await;
            hash.map_err(|e| self.fault(&e, "asking for the hash"))?
        } else {
            None
        };
        match hash {
            Some(hash) if hash != sha256 => return mismatch("by its own hash"),
            None if parcel.read_back && !self.reads_the_same(temporary, &parcel.contents).await? => {
                return mismatch("they were read back");
            }
            _ => {}
        }
        Ok(synced)
    }

    /// The SHA-256 of the contents if the file at `path`, which has their length, holds the same bytes.
    pub(super) async fn holds_the_same(&self, path: &str, contents: &Contents) -> Result<Option<[u8; 32]>, Failure> {
        let here = survey::hash_here(contents, contents.len()).await?;
        let there = if self.offers(CHECK_FILE) {
            let hash = survey::hash_at_server(&self.wire, path, contents.len()).await;
            hash.map_err(|e| self.fault(&e, "asking for the hash"))?
        } else {
            None
        };
        let same = match there {
            Some(there) => there == here,
            None => self.reads_the_same(path, contents).await?,
        };
        Ok(same.then_some(here))
    }

    /// Reads all of a file back and compares it.
    async fn reads_the_same(&self, path: &str, contents: &Contents) -> Result<bool, Failure> {
        let opened = open(&self.wire, path, OpenFlags::READ).await;
        let handle = opened.map_err(|e| self.fault(&e, format_args!("opening {} to read it back", shown(path))))?;
        let total = contents.len();
        let file =
            Partial { wire: &self.wire, path, handle: &handle, contents, size: total, acknowledged: 0, hashes: false };
        let step = SMALLEST as u64;
        let all = (0..total).step_by(SMALLEST).map(|at| at..(at + step).min(total)).collect();
        let differing = file.differing(all).await.map_err(|e| self.blind(e))?;
        self.command("closing the file", |id| Packet::from(Close { id, handle })).await?;
        Ok(differing.is_empty())
    }

    pub(super) async fn put_in_place(&self, temporary: &str, remote: &str, overwrite: bool) -> Result<(), Failure> {
        let what = || format!("renaming to {}", shown(remote));
        if overwrite && self.offers(POSIX_RENAME) {
            let data = [one_string(temporary), one_string(remote)].concat();
            return self
                .command(what(), |id| Packet::from(Extended { id, request: POSIX_RENAME.to_owned(), data }))
                .await;
        }
        if overwrite && self.look(remote).await?.is_some() {
            self.command(what(), |id| Packet::from(Remove { id, filename: remote.to_owned() })).await?;
        }
        let (oldpath, newpath) = (temporary.to_owned(), remote.to_owned());
        match self.wire.command(|id| Packet::from(Rename { id, oldpath, newpath })).await {
            Ok(()) => Ok(()),
            Err(e @ WireError::Status(_)) if !overwrite && self.look(remote).await?.is_some() => {
                log::debug!("the rename was refused: {e:?}");
                Err(already_there(&self.at, remote))
            }
            Err(e) => Err(self.fault(&e, what())),
        }
    }
}

//! Writing `gaps.jsonl`: the one of the present run rides on ticks, those of past runs are appended to durably.

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use mos_hal::clock::Mono;
use mos_hal::media::LensId;

use super::{FILE_NAME, GapFile, GapRecord, parse, text};
use crate::archive::disk::{Disk, DiskFile, OpenMode};
use crate::archive::error::{ArchiveError, at};
use crate::archive::ids::Seq;
use crate::archive::lock;
use crate::archive::run::{folders_above, read_whole, write_whole};
use crate::archive::sync::{Dirty, FileKey, TickReport};

/// From this length on a file is written anew when that makes it half as long at least.
const COMPACT_BYTES: u64 = 64 * 1024;
/// Blocks reserved for each file, so that a full disk can still be accounted for.
const RESERVE_BYTES: u64 = 16 * 1024;
const TMP_NAME: &str = "gaps.tmp";

/// The `gaps.jsonl` of a lens in the present run. Lines that cannot be written (a full disk) wait in memory.
pub(crate) struct GapLog {
    dir: PathBuf,
    lens: LensId,
    state: Mutex<State>,
}

struct State {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    key: FileKey,
    /// Bytes written; the next line goes there.
    len: u64,
    /// Bytes known to be durable.
    synced: u64,
    /// The names of the file and of the folders above are durable.
    named: bool,
    /// `path` is a temporary file that replaces the log once it is synced.
    staged: bool,
    waiting: Vec<GapRecord>,
    /// The last moment that what was written tells of.
    until: Option<Mono>,
    /// The length at which the file is compacted next.
    compact_at: u64,
}

impl GapLog {
    /// Creates the file in a fresh run directory.
    pub(crate) fn create(disk: &dyn Disk, dirty: &Dirty, dir: &Path, lens: &LensId) -> Result<Self, ArchiveError> {
        let path = dir.join(FILE_NAME);
        let file = disk.open(&path, OpenMode::CreateNew).map_err(at("create", &path))?;
        // Best effort.
        let _ = file.reserve(RESERVE_BYTES);
        let key = dirty.new_key();
        dirty.file(key, &path, &file, 0);
        let waiting = Vec::new();
        let state = State {
            path,
            file,
            key,
            len: 0,
            synced: 0,
            named: false,
            staged: false,
            waiting,
            until: None,
            compact_at: COMPACT_BYTES,
        };
        Ok(Self { dir: dir.to_owned(), lens: lens.clone(), state: Mutex::new(state) })
    }

    /// Adds a record; durable with the next group commit. It never fails: what cannot be written waits.
    pub(crate) fn append(&self, dirty: &Dirty, record: GapRecord) {
        let mut state = self.lock();
        state.waiting.push(record);
        // Tried again after every commit.
        let _ = self.write_waiting(&mut state, dirty);
    }

    /// Adds records and makes them durable before returning.
    pub(crate) fn append_durable(
        &self,
        disk: &dyn Disk,
        dirty: &Dirty,
        records: &[GapRecord],
    ) -> Result<(), ArchiveError> {
        let mut state = self.lock();
        self.compact_if_due(&mut state, disk, dirty);
        state.waiting.extend_from_slice(records);
        if let Err(error) = self.write_waiting(&mut state, dirty) {
            let keep = state.waiting.len().saturating_sub(records.len());
            state.waiting.truncate(keep);
            return Err(at("write", &state.path)(error));
        }
        self.sync_now(&mut state, disk, dirty)
    }

    /// Whether it was due.
    fn compact_if_due(&self, state: &mut State, disk: &dyn Disk, dirty: &Dirty) -> bool {
        let due = state.len >= state.compact_at;
        if due {
            // Best effort: a longer file says the same.
            if let Err(error) = self.compact(state, disk, dirty) {
                log::debug!("{} is not compacted: {error}", state.path.display());
            }
            state.compact_at = (state.len * 2).max(COMPACT_BYTES);
        }
        due
    }

    /// G5, G7: writes the file anew with less in it.
    fn compact(&self, state: &mut State, disk: &dyn Disk, dirty: &Dirty) -> Result<(), ArchiveError> {
        if state.staged {
            return Ok(());
        }
        let path = self.dir.join(FILE_NAME);
        let all = read_whole(disk, &path).map_err(at("read", &path))?;
        let Some(text) = compacted(disk, &self.dir, &self.lens, &parse(&all), all.len() as u64)? else {
            return Ok(());
        };
        let tmp = self.dir.join(TMP_NAME);
        match disk.remove_file(&tmp) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(at("remove", &tmp)(error)),
            _ => {}
        }
        let file = disk.open(&tmp, OpenMode::CreateNew).map_err(at("create", &tmp))?;
        let len = text.len() as u64;
        // Best effort.
        let _ = file.reserve(len + RESERVE_BYTES);
        file.write_at(0, &[IoSlice::new(text.as_bytes())]).map_err(at("write", &tmp))?;
        file.sync().map_err(at("sync", &tmp))?;
        disk.rename(&tmp, &path).map_err(at("rename", &tmp))?;
        dirty.retire(state.key);
        (state.path, state.file, state.key, state.len, state.synced) = (path, file, dirty.new_key(), len, len);
        // Whatever is added from now on is durable only once the name is.
        if let Err(error) = disk.sync_dir(&self.dir) {
            state.named = false;
            dirty.dir(&self.dir);
            return Err(at("sync", &self.dir)(error));
        }
        Ok(())
    }

    /// G4: makes what is written durable before footage that follows it is written. Nothing to do most of the time.
    pub(crate) fn settle(&self, disk: &dyn Disk, dirty: &Dirty) -> Result<(), ArchiveError> {
        let mut state = self.lock();
        if state.synced == state.len { Ok(()) } else { self.sync_now(&mut state, disk, dirty) }
    }

    fn sync_now(&self, state: &mut State, disk: &dyn Disk, dirty: &Dirty) -> Result<(), ArchiveError> {
        if let Err(error) = state.file.sync() {
            let path = state.path.clone();
            self.replace(state, disk, dirty);
            return Err(at("sync", &path)(error));
        }
        dirty.forget(state.key);
        state.synced = state.len;
        if state.staged {
            self.put_in_place(state, disk, dirty).map_err(at("rename", &self.dir))?;
            disk.sync_dir(&self.dir).map_err(at("sync", &self.dir))?;
        }
        if !state.named {
            for dir in folders_above(&self.dir) {
                disk.sync_dir(dir).map_err(at("sync", dir))?;
            }
            state.named = true;
        }
        Ok(())
    }

    /// Takes in a group commit, tries again what is waiting, and compacts the file if it is due and may be; whether it was.
    pub(crate) fn after_sync(&self, disk: &dyn Disk, dirty: &Dirty, report: &TickReport, may_compact: bool) -> bool {
        let mut state = self.lock();
        match report.outcome(state.key) {
            Some(Ok(len)) => {
                state.synced = state.synced.max(len);
                state.named = true;
                if state.staged && self.put_in_place(&mut state, disk, dirty).is_err() {
                    self.replace(&mut state, disk, dirty);
                }
            }
            Some(Err(_)) => self.replace(&mut state, disk, dirty),
            None => {}
        }
        // Tried again after the next commit.
        let _ = self.write_waiting(&mut state, dirty);
        // Only what is durable anyway: nothing that was promised hangs on the new file.
        may_compact && state.synced == state.len && self.compact_if_due(&mut state, disk, dirty)
    }

    fn put_in_place(&self, state: &mut State, disk: &dyn Disk, dirty: &Dirty) -> std::io::Result<()> {
        let path = self.dir.join(FILE_NAME);
        disk.rename(&state.path, &path)?;
        dirty.dir(&self.dir);
        (state.path, state.staged) = (path, false);
        Ok(())
    }

    /// After a failed sync: a new file with everything the old one shows, which takes its place once it is synced.
    fn replace(&self, state: &mut State, disk: &dyn Disk, dirty: &Dirty) {
        dirty.retire(state.key);
        let copy = || {
            let mut all = vec![0; state.len as usize];
            let n = state.file.read_at(0, &mut all)?;
            let tmp = self.dir.join(TMP_NAME);
            match disk.remove_file(&tmp) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = disk.open(&tmp, OpenMode::CreateNew)?;
            file.write_at(0, &[IoSlice::new(&all[..n])])?;
            Ok((tmp, file))
        };
        match copy() {
            Ok((tmp, file)) => {
                let key = dirty.new_key();
                dirty.file(key, &tmp, &file, state.len);
                (state.path, state.file, state.key, state.synced, state.staged) = (tmp, file, key, 0, true);
            }
            // Left as it is: the next record tries again.
            Err(error) => log::error!("cannot replace {}: {error}", state.path.display()),
        }
    }

    /// What cannot be written stays.
    fn write_waiting(&self, state: &mut State, dirty: &Dirty) -> std::io::Result<()> {
        if state.waiting.is_empty() {
            return Ok(());
        }
        let text = text(&self.lens, &state.waiting, state.synced);
        state.file.write_at(state.len, &[IoSlice::new(text.as_bytes())])?;
        state.len += text.len() as u64;
        state.until = state.waiting.iter().filter_map(GapRecord::until).chain(state.until).max();
        state.waiting.clear();
        dirty.file(state.key, &state.path, &state.file, state.len);
        Ok(())
    }

    /// The last moment that it tells of, if all of it is durable.
    pub(crate) fn durable_until(&self) -> Option<Mono> {
        let state = self.lock();
        let is_durable = state.synced == state.len && state.named && !state.staged && state.waiting.is_empty();
        state.until.filter(|_| is_durable)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The text of a compacted log, if that is at most half as long. What it says is gone is gone for good.
fn compacted(
    disk: &dyn Disk,
    dir: &Path,
    lens: &LensId,
    file: &GapFile,
    len: u64,
) -> Result<Option<String>, ArchiveError> {
    let removed =
        |seq: Seq| disk.size(&dir.join(format!("{}.mp4", seq.0))).is_err_and(|e| e.kind() == ErrorKind::NotFound);
    let text = file.anew(lens, Some(&removed));
    if text.len() as u64 > len / 2 {
        return Ok(None);
    }
    disk.sync_dir(dir).map_err(at("sync", dir))?;
    Ok(Some(text))
}

/// Adds records to the log of a past run, made if it is missing; durable on return.
pub(crate) fn append_to_past(
    disk: &dyn Disk,
    dir: &Path,
    lens: &LensId,
    records: &[GapRecord],
) -> Result<(), ArchiveError> {
    let path = dir.join(FILE_NAME);
    let (file, new) = match disk.open(&path, OpenMode::ReadWrite) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            (disk.open(&path, OpenMode::CreateNew).map_err(at("create", &path))?, true)
        }
        other => (other.map_err(at("open", &path))?, false),
    };
    let mut there = vec![0; file.len().map_err(at("read", &path))? as usize];
    let n = file.read_at(0, &mut there).map_err(at("read", &path))?;
    let known = parse(&there[..n]);
    if let Some(offset) = known.damage {
        return Err(ArchiveError::Damaged { path, detail: format!("a bad line at byte {offset}") });
    }
    if known.torn {
        // A new line must not vouch for the torn ones before it: the whole file is written anew without them.
        let all = known.anew(lens, None) + &text(lens, records, 0);
        return write_whole(disk, &dir.join(TMP_NAME), &path, all.as_bytes());
    }
    if n as u64 >= COMPACT_BYTES
        && let Some(mut fewer) = compacted(disk, dir, lens, &known, n as u64)?
    {
        fewer.push_str(&text(lens, records, 0));
        return write_whole(disk, &dir.join(TMP_NAME), &path, fewer.as_bytes());
    }
    // What is there must be durable before a line may say so.
    file.sync().map_err(at("sync", &path))?;
    let text = text(lens, records, n as u64);
    file.write_at(n as u64, &[IoSlice::new(text.as_bytes())]).map_err(at("write", &path))?;
    file.sync().map_err(at("sync", &path))?;
    if new {
        disk.sync_dir(dir).map_err(at("sync", dir))?;
    }
    Ok(())
}

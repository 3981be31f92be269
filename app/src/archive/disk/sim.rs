//! A disk in memory that forgets and tears what was not synced; see `sim_store` for the model of a power cut.
//!
//! It enforces what the real file system enforces (parents must exist, creation is exclusive, read handles do not write),
//! and can be cut at any operation, slowed down, filled up and made to fail.

use std::io::{self, IoSlice};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mos_hal::clock::SimClock;

use super::real::{check, copy_through};
use super::sim_store::{Dice, FileNode, Node, NodeId, ROOT, Store, empty_dir};
use super::{DirEntry, Disk, DiskFile, FileSize, OpenMode, Space};

/// Operations that change something; cuts, latencies and faults are given in terms of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimOp {
    /// A name appears, disappears or moves.
    Name,
    /// Contents or length change.
    Write,
    /// A file is synced.
    Sync,
    /// A folder is synced.
    SyncDir,
}

struct Fault {
    op: SimOp,
    path_part: String,
    errno: i32,
    times: u32,
}

struct State {
    store: Store,
    clock: Arc<SimClock>,
    dice: Dice,
    capacity: u64,
    /// Handles of an earlier life are dead.
    life: u64,
    ops: u64,
    cut_at: Option<u64>,
    is_cut: bool,
    faults: Vec<Fault>,
    refused: Option<(std::ops::Range<u64>, i32)>,
    latencies: Vec<(SimOp, Duration)>,
    stalls: Vec<(u64, Duration)>,
}

/// The simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// An empty disk of `capacity` bytes. Latencies let time pass on `clock`.
    #[must_use]
    pub fn new(clock: Arc<SimClock>, capacity: u64) -> Self {
        let state = State {
            store: Store::new(),
            clock,
            dice: Dice(1),
            capacity,
            life: 0,
            ops: 0,
            cut_at: None,
            is_cut: false,
            faults: Vec::new(),
            refused: None,
            latencies: Vec::new(),
            stalls: Vec::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Changing operations so far.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.lock().ops
    }

    /// The power goes in the middle of changing operation number `op` (the first one ever is 0): it is left half done
    /// and everything afterwards fails, until [`SimDisk::crash`].
    pub fn cut_at(&self, op: u64) {
        self.lock().cut_at = Some(op);
    }

    /// Whether the power is gone.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.lock().is_cut
    }

    /// The power is gone and comes back: what was not synced is lost, kept or torn, as `seed` decides. All handles are dead.
    pub fn crash(&self, seed: u64) {
        let mut state = self.lock();
        let mut dice = Dice(seed);
        state.store.crash(&mut dice);
        state.dice = dice;
        state.revive();
    }

    /// The process was killed: nothing is lost (the page cache stays), but all its handles are dead.
    pub fn kill(&self) {
        self.lock().revive();
    }

    /// The next `times` operations of this kind on paths that contain `path_part` fail with `errno`.
    pub fn fail(&self, op: SimOp, path_part: &str, errno: i32, times: u32) {
        self.lock().faults.push(Fault { op, path_part: path_part.to_owned(), errno, times });
    }

    /// Changing operations with these numbers fail with `errno`, whatever they are.
    pub fn refuse(&self, ops: std::ops::Range<u64>, errno: i32) {
        self.lock().refused = Some((ops, errno));
    }

    /// Each operation of this kind takes `latency` on the simulated clock.
    pub fn set_latency(&self, op: SimOp, latency: Duration) {
        let mut state = self.lock();
        state.latencies.retain(|(o, _)| *o != op);
        state.latencies.push((op, latency));
    }

    /// Changing operation number `op` takes `duration` longer.
    pub fn stall_at(&self, op: u64, duration: Duration) {
        self.lock().stalls.push((op, duration));
    }

    /// Another capacity in bytes, also below what is used.
    pub fn set_capacity(&self, capacity: u64) {
        self.lock().capacity = capacity;
    }

    /// All files with their contents as now seen, for judges outside.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.lock();
        let mut files = Vec::new();
        let mut todo = vec![(PathBuf::new(), ROOT)];
        while let Some((path, id)) = todo.pop() {
            match &state.store.nodes[id] {
                Node::File(file) => files.push((path, file.live.clone())),
                Node::Dir { live, .. } => todo.extend(live.iter().map(|(name, id)| (path.join(name), *id))),
            }
        }
        files.sort();
        files
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a changing operation.
enum Fate {
    Done,
    /// The power goes while it runs: done in the live view, durable only by chance.
    HalfDone,
    Failed(io::Error),
}

impl State {
    fn revive(&mut self) {
        self.life += 1;
        self.cut_at = None;
        self.is_cut = false;
        self.faults.clear();
        self.refused = None;
        self.stalls.clear();
    }

    fn alive(&self) -> io::Result<()> {
        if self.is_cut { Err(power_is_gone()) } else { Ok(()) }
    }

    /// Accounts for a changing operation that is otherwise valid.
    fn step(&mut self, op: SimOp, path: &Path) -> Fate {
        let number = self.ops;
        self.ops += 1;
        let latency = self.latencies.iter().find(|(o, _)| *o == op).map_or(Duration::ZERO, |(_, d)| *d);
        let stall: Duration = self.stalls.iter().filter(|(n, _)| *n == number).map(|(_, d)| *d).sum();
        if !(latency + stall).is_zero() {
            self.clock.advance(latency + stall);
        }
        if self.cut_at == Some(number) {
            self.is_cut = true;
            return Fate::HalfDone;
        }
        if let Some((_, errno)) = self.refused.as_ref().filter(|(ops, _)| ops.contains(&number)) {
            return Fate::Failed(io::Error::from_raw_os_error(*errno));
        }
        let text = path.to_string_lossy();
        let fault = self.faults.iter_mut().find(|f| f.op == op && f.times > 0 && text.contains(&f.path_part));
        if let Some(fault) = fault {
            fault.times -= 1;
            return Fate::Failed(io::Error::from_raw_os_error(fault.errno));
        }
        Fate::Done
    }

    fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut node = ROOT;
        for part in path.components() {
            let Component::Normal(name) = part else { return Err(io::ErrorKind::InvalidInput.into()) };
            let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
            node = *self.store.names(node)?.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    /// The folder above and the last name.
    fn above<'a>(&self, path: &'a Path) -> io::Result<(NodeId, &'a str)> {
        let name = check(path)?.file_name().and_then(|n| n.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.store.names(dir)?;
        Ok((dir, name))
    }

    fn room_for(&self, more: u64) -> io::Result<()> {
        // Looking through everything is slow; far from full it is not needed.
        if self.capacity == u64::MAX || self.store.used() + more <= self.capacity {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::ENOSPC))
    }
}

fn power_is_gone() -> io::Error {
    io::Error::other("the power is gone")
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        state.alive()?;
        let (dir, name) = state.above(path)?;
        let found = state.store.names(dir)?.get(name).copied();
        let node = match (mode, found) {
            (OpenMode::CreateNew, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::CreateNew, None) => {
                let fate = state.step(SimOp::Name, path);
                if let Fate::Failed(error) = fate {
                    return Err(error);
                }
                let node = state.store.add(dir, name, Node::File(FileNode::default()));
                state.alive()?;
                node
            }
            (_, None) => return Err(io::ErrorKind::NotFound.into()),
            (_, Some(node)) => node,
        };
        state.store.file(node)?;
        let file = SimFile {
            disk: self.clone(),
            path: path.to_owned(),
            node,
            life: state.life,
            writable: mode != OpenMode::Read,
        };
        Ok(Arc::new(file))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.alive()?;
        let (dir, name) = state.above(path)?;
        if let Some(node) = state.store.names(dir)?.get(name) {
            return state.store.names(*node).map(|_| ());
        }
        if let Fate::Failed(error) = state.step(SimOp::Name, path) {
            return Err(error);
        }
        state.store.add(dir, name, empty_dir());
        state.alive()
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.lock();
        state.alive()?;
        let names = state.store.names(state.find(path)?)?;
        let entry = |(name, node): (&String, &NodeId)| DirEntry {
            name: name.clone(),
            is_dir: matches!(state.store.nodes[*node], Node::Dir { .. }),
        };
        Ok(names.iter().map(entry).collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.alive()?;
        let dir = state.find(path)?;
        state.store.names(dir)?;
        match state.step(SimOp::SyncDir, path) {
            Fate::Failed(error) => Err(error),
            Fate::HalfDone => Err(power_is_gone()),
            Fate::Done => {
                state.store.sync_dir(dir);
                Ok(())
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.alive()?;
        let (from_dir, from_name) = state.above(from)?;
        let (to_dir, to_name) = state.above(to)?;
        let node = *state.store.names(from_dir)?.get(from_name).ok_or(io::ErrorKind::NotFound)?;
        if let Some(target) = state.store.names(to_dir)?.get(to_name).copied() {
            match (&state.store.nodes[node], &state.store.nodes[target]) {
                (Node::File(_), Node::Dir { .. }) => return Err(io::ErrorKind::IsADirectory.into()),
                (Node::Dir { .. }, Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                (Node::Dir { .. }, Node::Dir { live, .. }) if !live.is_empty() => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                _ => {}
            }
        }
        if let Fate::Failed(error) = state.step(SimOp::Name, from) {
            return Err(error);
        }
        state.store.rename((from_dir, from_name), (to_dir, to_name), node);
        state.alive()
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.alive()?;
        let (dir, name) = state.above(path)?;
        let node = *state.store.names(dir)?.get(name).ok_or(io::ErrorKind::NotFound)?;
        state.store.file(node)?;
        if let Fate::Failed(error) = state.step(SimOp::Name, path) {
            return Err(error);
        }
        state.store.unlink(dir, name);
        state.alive()
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.alive()?;
        let (dir, name) = state.above(path)?;
        let node = *state.store.names(dir)?.get(name).ok_or(io::ErrorKind::NotFound)?;
        if !state.store.names(node)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        if let Fate::Failed(error) = state.step(SimOp::Name, path) {
            return Err(error);
        }
        state.store.unlink(dir, name);
        state.alive()
    }

    fn size(&self, path: &Path) -> io::Result<FileSize> {
        let mut state = self.lock();
        state.alive()?;
        check(path)?;
        let node = state.find(path)?;
        let file = state.store.file(node)?;
        Ok(FileSize { len: file.live.len() as u64, allocated: file.allocated() })
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.lock();
        state.alive()?;
        Ok(Space { total: state.capacity, free: state.capacity.saturating_sub(state.store.used()) })
    }
}

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    node: NodeId,
    life: u64,
    writable: bool,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        state.alive()?;
        if state.life == self.life { Ok(state) } else { Err(io::Error::other("a handle of an earlier life")) }
    }

    fn writable(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state()?;
        if self.writable { Ok(state) } else { Err(io::Error::from_raw_os_error(libc::EBADF)) }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state()?;
        let live = &state.store.file(self.node)?.live;
        let rest = live.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or(&[]);
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut state = self.writable()?;
        let bytes: Vec<u8> = parts.iter().flat_map(|p| p.iter().copied()).collect();
        let file = state.store.file(self.node)?;
        let more = (offset + bytes.len() as u64).saturating_sub(file.allocated());
        if more > 0 {
            state.room_for(more)?;
        }
        match state.step(SimOp::Write, &self.path) {
            Fate::Failed(error) => {
                // As on a real disk, a part may have got through.
                let part = state.dice.below(bytes.len() as u64 + 1) as usize;
                state.store.file(self.node)?.write(offset, &bytes[..part]);
                return Err(error);
            }
            Fate::Done | Fate::HalfDone => state.store.file(self.node)?.write(offset, &bytes),
        }
        state.alive()
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        match state.step(SimOp::Sync, &self.path) {
            Fate::Done => {
                state.store.file(self.node)?.sync();
                // As on the real disk (B3).
                if state.store.has_name(self.node) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
            }
            Fate::HalfDone => Err(power_is_gone()),
            Fate::Failed(error) => {
                let mut dice = Dice(state.dice.roll());
                state.store.file(self.node)?.fail_sync(&mut dice);
                Err(error)
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.writable()?;
        if let Fate::Failed(error) = state.step(SimOp::Write, &self.path) {
            return Err(error);
        }
        state.store.file(self.node)?.set_len(len);
        state.alive()
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.state()?;
        Ok(state.store.file(self.node)?.live.len() as u64)
    }

    fn size(&self) -> io::Result<FileSize> {
        let mut state = self.state()?;
        let file = state.store.file(self.node)?;
        Ok(FileSize { len: file.live.len() as u64, allocated: file.allocated() })
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let mut state = self.writable()?;
        let more = len.saturating_sub(state.store.file(self.node)?.allocated());
        state.room_for(more)?;
        let file = state.store.file(self.node)?;
        file.reserved = file.reserved.max(len);
        Ok(())
    }

    fn evict(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.store.file(self.node)?.evict();
        Ok(())
    }

    fn copy_to(&self, offset: u64, len: u64, to: &dyn DiskFile, to_offset: u64) -> io::Result<()> {
        copy_through(self, offset, len, to, to_offset)
    }
}

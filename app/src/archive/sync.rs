//! Group commit: everything written since the last tick becomes durable together.
//!
//! Promises:
//! - S1: a file counts as durable only if its own sync and the syncs of all directories above it that changed succeeded.
//! - S2: the syncs of one tick run in parallel, so that the file system's journal commits once (see DESIGN, "Group commit").
//! - S3: a failed sync of a file is reported once and never repeated here: the kernel marks the pages clean.
//!
//! One thread calls [`super::Archive::commit`] once a tick; any thread may mark things dirty.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use mos_hal::clock::Clock;

use super::disk::{Disk, DiskFile};

/// A file in the eyes of the group commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey(u64);

/// How often a file was written; what a sync covers.
pub(crate) type Generation = u64;

/// What one group commit did.
#[derive(Debug, Default)]
pub struct TickReport {
    /// From the first sync begun to the last one ended. Above 300 ms the promise of one second is in danger.
    pub duration: Duration,
    /// Files and directories synced.
    pub synced: usize,
    files: BTreeMap<FileKey, Outcome>,
    failed_dirs: Vec<(PathBuf, Arc<io::Error>)>,
}

#[derive(Debug, Clone)]
struct Outcome {
    path: PathBuf,
    generation: Generation,
    error: Option<Arc<io::Error>>,
}

impl TickReport {
    /// Failed syncs with their paths, for the log.
    pub fn failures(&self) -> impl Iterator<Item = (&Path, &io::Error)> {
        let files = self.files.values().filter_map(|o| Some((o.path.as_path(), o.error.as_deref()?)));
        files.chain(self.failed_dirs.iter().map(|(p, e)| (p.as_path(), e.as_ref())))
    }

    /// Up to which generation the file is durable now; `None` if the tick did not touch it.
    pub(crate) fn outcome(&self, key: FileKey) -> Option<Result<Generation, Arc<io::Error>>> {
        let outcome = self.files.get(&key)?;
        if let Some(error) = &outcome.error {
            return Some(Err(error.clone()));
        }
        let above = self.failed_dirs.iter().find(|(dir, _)| outcome.path.starts_with(dir));
        Some(above.map_or(Ok(outcome.generation), |(_, error)| Err(error.clone())))
    }
}

/// What was written and not synced yet.
#[derive(Default)]
pub(crate) struct Dirty(Mutex<DirtyState>);

#[derive(Default)]
struct DirtyState {
    next_key: u64,
    files: BTreeMap<FileKey, DirtyFile>,
    dirs: BTreeSet<PathBuf>,
    /// Replaced or removed since the last commit began: what becomes of them is no news.
    retired: BTreeSet<FileKey>,
}

#[derive(Clone)]
struct DirtyFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    generation: Generation,
}

impl Dirty {
    pub(crate) fn new_key(&self) -> FileKey {
        let mut state = self.lock();
        state.next_key += 1;
        FileKey(state.next_key)
    }

    /// The next tick syncs `file`; `generation` tells the latest write.
    pub(crate) fn file(&self, key: FileKey, path: &Path, file: &Arc<dyn DiskFile>, generation: Generation) {
        let entry = DirtyFile { path: path.to_owned(), file: file.clone(), generation };
        self.lock().files.insert(key, entry);
    }

    /// The next tick syncs the names in `dir`.
    pub(crate) fn dir(&self, dir: &Path) {
        self.lock().dirs.insert(dir.to_owned());
    }

    /// The file was synced by itself. A commit that is under way tells its error all the same: the kernel tells each only once,
    /// and whoever syncs next hears nothing of it.
    pub(crate) fn forget(&self, key: FileKey) {
        self.lock().files.remove(&key);
    }

    /// Another file took the place of this one, or it was removed.
    pub(crate) fn retire(&self, key: FileKey) {
        let mut state = self.lock();
        state.files.remove(&key);
        state.retired.insert(key);
    }

    pub(crate) fn is_clean(&self) -> bool {
        let state = self.lock();
        state.files.is_empty() && state.dirs.is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, DirtyState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Syncs all that is dirty. A directory whose sync failed stays dirty; a file does not (S3).
    pub(crate) fn commit(&self, disk: &Arc<dyn Disk>, pool: &SyncPool, clock: &dyn Clock) -> TickReport {
        let (files, dirs) = {
            let mut state = self.lock();
            state.retired.clear();
            (std::mem::take(&mut state.files), std::mem::take(&mut state.dirs))
        };
        let mut report = TickReport { synced: files.len() + dirs.len(), ..TickReport::default() };
        if report.synced == 0 {
            return report;
        }
        let begin = clock.mono();
        let mut jobs: Vec<Job> = Vec::with_capacity(report.synced);
        let dirs: Vec<PathBuf> = dirs.into_iter().collect();
        for file in files.values() {
            let file = file.file.clone();
            jobs.push(Box::new(move || file.sync()));
        }
        for dir in &dirs {
            let (disk, dir) = (disk.clone(), dir.clone());
            jobs.push(Box::new(move || disk.sync_dir(&dir)));
        }
        let mut errors = pool.run(jobs).into_iter();
        let retired = std::mem::take(&mut self.lock().retired);
        for (key, file) in files {
            let error = errors.next().flatten().filter(|_| !retired.contains(&key)).map(Arc::new);
            let outcome = Outcome { path: file.path, generation: file.generation, error };
            report.files.insert(key, outcome);
        }
        for dir in dirs {
            if let Some(error) = errors.next().flatten() {
                self.dir(&dir);
                report.failed_dirs.push((dir, Arc::new(error)));
            }
        }
        report.duration = Duration::from_nanos(u64::try_from(clock.mono().since(begin)).unwrap_or(0));
        report
    }
}

type Job = Box<dyn FnOnce() -> io::Result<()> + Send>;
type Slot = (usize, Job, mpsc::Sender<(usize, Option<io::Error>)>);

/// A fixed set of threads that do nothing but sync. With no threads, jobs run in the caller, in order.
pub(crate) struct SyncPool {
    jobs: Option<mpsc::Sender<Slot>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Sync threads need next to no stack.
const STACK_BYTES: usize = 64 * 1024;

impl SyncPool {
    /// Starts `threads` threads; fewer if the system refuses.
    pub(crate) fn new(threads: usize) -> Self {
        let (jobs, queue) = mpsc::channel::<Slot>();
        let queue = Arc::new(Mutex::new(queue));
        let mut pool = Self { jobs: None, threads: Vec::new() };
        for n in 0..threads {
            let queue = queue.clone();
            let body = move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((index, job, done)) = next else { return };
                    let error = job().err();
                    // The caller waits for every answer; it cannot be gone.
                    let _ = done.send((index, error));
                }
            };
            let thread = std::thread::Builder::new().name(format!("sync-{n}")).stack_size(STACK_BYTES).spawn(body);
            pool.threads.extend(thread.ok());
        }
        if !pool.threads.is_empty() {
            pool.jobs = Some(jobs);
        }
        pool
    }

    /// Runs all jobs and returns their errors in the same order.
    fn run(&self, jobs: Vec<Job>) -> Vec<Option<io::Error>> {
        let Some(queue) = self.jobs.as_ref().filter(|_| jobs.len() > 1) else {
            return jobs.into_iter().map(|job| job().err()).collect();
        };
        let mut errors: Vec<Option<io::Error>> = jobs.iter().map(|_| None).collect();
        let mut missing = vec![true; jobs.len()];
        let (done, answers) = mpsc::channel();
        for (index, job) in jobs.into_iter().enumerate() {
            // The threads live as long as the pool.
            let _ = queue.send((index, job, done.clone()));
        }
        drop(done);
        for (index, error) in answers {
            errors[index] = error;
            missing[index] = false;
        }
        for (index, missing) in missing.into_iter().enumerate() {
            if missing {
                // A thread died in the job: nothing is known, so nothing counts as durable.
                errors[index] = Some(io::Error::other("the sync thread ended unexpectedly"));
            }
        }
        errors
    }
}

impl Drop for SyncPool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Weak;

    use mos_hal::clock::{BootId, SimClock, UtcMicros};

    use super::*;
    use crate::archive::disk::{FileSize, SimDisk};

    /// A file that somebody else syncs, or replaces, while the commit's own sync of it fails.
    struct Contended {
        key: FileKey,
        replaced: bool,
        dirty: Weak<Dirty>,
    }

    impl DiskFile for Contended {
        fn sync(&self) -> io::Result<()> {
            let dirty = self.dirty.upgrade().unwrap();
            if self.replaced {
                dirty.retire(self.key);
            } else {
                dirty.forget(self.key);
            }
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }
        fn write_at(&self, _: u64, _: &[io::IoSlice<'_>]) -> io::Result<()> {
            Ok(())
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn size(&self) -> io::Result<FileSize> {
            Ok(FileSize { len: 0, allocated: 0 })
        }
        fn reserve(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn evict(&self) -> io::Result<()> {
            Ok(())
        }
        fn copy_to(&self, _: u64, _: u64, _: &dyn DiskFile, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn s3_an_error_is_told_though_somebody_else_synced_the_file_meanwhile() {
        let clock = Arc::new(SimClock::new(BootId([1; 16]), UtcMicros(0)));
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(clock.clone(), 1));
        for replaced in [false, true] {
            let dirty = Arc::new(Dirty::default());
            let key = dirty.new_key();
            let file: Arc<dyn DiskFile> = Arc::new(Contended { key, replaced, dirty: Arc::downgrade(&dirty) });
            dirty.file(key, Path::new("gaps.jsonl"), &file, 7);
            let report = dirty.commit(&disk, &SyncPool::new(0), &*clock);
            assert_eq!(report.outcome(key).unwrap().is_err(), !replaced);
            assert_eq!(report.failures().count(), usize::from(!replaced));
        }
    }
}

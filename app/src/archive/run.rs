//! The run: one life of the recorder on one boot, and its folder per lens.
//!
//! Promises:
//! - R1: a run number is never used twice, even if the `run` file or run folders are lost.
//! - R2: the number is durable before the first segment of the run is begun, and with it the boot and the first mapping:
//!   what a run leaves can be placed in time however early it ended.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use mos_hal::clock::BootId;
use mos_hal::media::LensId;

use super::clock_file::{self, ClockFile, Mapping, RunClock};
use super::disk::{Disk, OpenMode};
use super::error::{ArchiveError, at};
use super::gaps::GapLog;
use super::ids::{RunId, SegmentId, Seq, number};
use super::way;

const FILE: &str = "run";
const FILE_TMP: &str = "run.tmp";

/// A lens in the present run.
pub(crate) struct LensRun {
    pub(crate) lens: LensId,
    pub(crate) run: RunId,
    pub(crate) dir: PathBuf,
    pub(crate) gaps: GapLog,
    pub(crate) clock: ClockFile,
    next_seq: AtomicU32,
}

impl LensRun {
    pub(crate) fn new(lens: LensId, run: RunId, gaps: GapLog) -> Self {
        let dir = SegmentId::run_dir(&lens, run);
        let clock = ClockFile::new(&dir);
        Self { lens, run, dir, gaps, clock, next_seq: AtomicU32::new(0) }
    }

    /// Numbers that were given.
    pub(crate) fn numbers(&self) -> u32 {
        self.next_seq.load(Ordering::Relaxed)
    }

    pub(crate) fn next_id(&self) -> SegmentId {
        let seq = Seq(self.next_seq.fetch_add(1, Ordering::Relaxed));
        SegmentId { lens: self.lens.clone(), run: self.run, seq }
    }
}

/// Takes the next run number: 1 + the highest of the `run` file and all run folders; durable on return. The file also says
/// what the run's mapping is at its start; before it is overwritten, the run before gets its `clock` files from it, if it
/// ended too early to have them.
pub(crate) fn begin_run(disk: &dyn Disk, boot: BootId, mapping: Mapping) -> Result<RunId, ArchiveError> {
    let before = read_whole(disk, Path::new(FILE)).ok().and_then(|text| RunClock::from_text(&text));
    let mut last = before.map_or(0, |b| b.run.0);
    let segments = Path::new("segments");
    for lens in disk.read_dir(segments).map_err(at("list", segments))?.into_iter().filter(|e| e.is_dir) {
        let dir = segments.join(&lens.name);
        for run in disk.read_dir(&dir).map_err(at("list", &dir))? {
            let Some(number) = number(&run.name) else { continue };
            last = last.max(number);
            if let Some(before) = before.filter(|b| b.run.0 == number && run.is_dir) {
                complete(disk, &dir.join(run.name), &before)?;
            }
        }
    }
    let run = RunId(last.saturating_add(1));
    let text = RunClock { run, boot, mapping, revision: 1 }.to_text();
    write_whole(disk, Path::new(FILE_TMP), Path::new(FILE), text.as_bytes())?;
    Ok(run)
}

/// Gives a run folder its `clock` file if it has none.
fn complete(disk: &dyn Disk, dir: &Path, clock: &RunClock) -> Result<(), ArchiveError> {
    let path = dir.join(clock_file::FILE_NAME);
    match disk.open(&path, OpenMode::Read) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write_whole(disk, &path.with_extension("tmp"), &path, clock.to_text().as_bytes())
        }
        _ => Ok(()),
    }
}

/// Folders whose names must be durable for what lies in a run folder to be found.
pub(crate) fn folders_above(run_dir: &Path) -> [&Path; 3] {
    let lens_dir = run_dir.parent().unwrap_or(Path::new(""));
    [Path::new("segments"), lens_dir, run_dir]
}

/// Reads a small file.
pub(crate) fn read_whole(disk: &dyn Disk, path: &Path) -> std::io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(filled as u64, &mut bytes[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Replaces a small file atomically and durably: temporary file, sync, rename, sync of the folder.
pub(crate) fn write_whole(disk: &dyn Disk, tmp: &Path, path: &Path, bytes: &[u8]) -> Result<(), ArchiveError> {
    for path in [tmp, path] {
        way::file(disk, path).map_err(at("make way for", path))?;
    }
    if let Err(error) = disk.remove_file(tmp)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(at("remove", tmp)(error));
    }
    let file = disk.open(tmp, OpenMode::CreateNew).map_err(at("create", tmp))?;
    file.write_at(0, &[IoSlice::new(bytes)]).map_err(at("write", tmp))?;
    file.sync().map_err(at("sync", tmp))?;
    disk.rename(tmp, path).map_err(at("rename", tmp))?;
    let dir = path.parent().unwrap_or(Path::new(""));
    disk.sync_dir(dir).map_err(at("sync", dir))
}

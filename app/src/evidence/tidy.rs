//! Files of chains of which no segment is left.
//!
//! Promise (O2): such a file is removed only when the folder of its segments can be listed, holds none of them, the archive deletes at
//! all, and what the file tied together is noted (`joints`). The note goes with the folder, which may stay for its accounts of gaps: as
//! long as the run is known of, the ledger asks for its links.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;

use mos_hal::media::LensId;

use super::chain::{self, FOLDER, part_of};
use super::joints::{self, Gone};
use super::keeper::Keeper;
use super::key::DeviceKey;
use super::present::Present;
use crate::archive::disk::Disk;
use crate::archive::error::{ArchiveError, at};
use crate::archive::ids::{RunId, SegmentId, number};

/// Removes files of chains of which no segment is left. (O2)
pub(super) fn tidy(keeper: &Keeper, present: &Present) {
    let archive = &keeper.archive;
    let disk = archive.disk().as_ref();
    let Ok(lenses) = disk.read_dir(Path::new(FOLDER)) else { return };
    let (Ok(()), Some(key)) = (archive.may_delete(), keeper.key()) else { return };
    for lens in lenses.iter().filter(|e| e.is_dir).filter_map(|e| LensId::new(&e.name).ok()) {
        let folder = Path::new(FOLDER).join(lens.as_str());
        let Ok(files) = disk.read_dir(&folder) else { continue };
        let mut runs: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for name in files.iter().map(|e| e.name.as_str()) {
            let part = chain::parse_name(name).map(|(run, _)| run);
            if let Some(run) = part.or_else(|| chain::run_of_older(name)).or_else(|| joints::run_of(name)) {
                runs.entry(run).or_default().push(name);
            }
        }
        for (run, names) in runs.into_iter().filter(|(run, _)| *run <= archive.run().0) {
            let in_work = |part| run == archive.run().0 && present.part(&lens).is_none_or(|now| part >= now);
            let left = match disk.read_dir(&SegmentId::run_dir(&lens, RunId(run))) {
                Ok(names) => names,
                Err(e) if e.kind() == ErrorKind::NotFound && run < archive.run().0 => {
                    // Best effort: a chain of nothing is small and harmless.
                    for name in names {
                        let _ = disk.remove_file(&folder.join(name));
                    }
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
                Err(_) => continue,
            };
            let left: BTreeSet<u32> =
                left.iter().filter_map(|e| number(e.name.split('.').next()?)).map(part_of).collect();
            let parts = names.iter().filter_map(|name| chain::parse_name(name)).map(|(_, part)| part);
            let gone: BTreeSet<u32> = parts.filter(|part| !left.contains(part) && !in_work(*part)).collect();
            if let Err(e) = forget(disk, (&lens, RunId(run)), &gone, key) {
                log::warn!("{lens}: parts of the chain of run {run} stay, though their segments are gone: {e}");
            }
        }
        // Refused while anything is in it.
        let _ = disk.remove_dir(&folder);
    }
}

/// Removes parts of a chain, the first ones first, once it is noted what they tied together.
fn forget(
    disk: &dyn Disk,
    (lens, run): (&LensId, RunId),
    parts: &BTreeSet<u32>,
    key: &DeviceKey,
) -> Result<(), ArchiveError> {
    // One that another key signed is not replaced, so its parts stay.
    let Some(mut gone) = Gone::own(disk, lens, run, key) else { return Ok(()) };
    let mut noted = false;
    for part in parts {
        let path = chain::path(lens, run, *part);
        noted |= gone.add(*part, &chain::load(disk, lens, run, *part).map_err(at("read", &path))?);
    }
    if noted {
        gone.write(disk, lens, run, key)?;
    }
    for part in parts {
        // Best effort: it is tried again.
        let _ = disk.remove_file(&chain::path(lens, run, *part));
    }
    Ok(())
}

//! The queue of uploads as `mos check` sees it, while no daemon runs.
//!
//! Promises that nothing is changed without repair: SQLite is shown a copy. Repair does what a start does (D3 of the store): a
//! queue that cannot be read is put aside. Deletes nothing of the archive.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::store::{FILE, FOLDER, Store, StoreError, with};

/// What was found, and done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) damaged: Vec<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) repairs: Vec<String>,
}

const LOST: &str = "uploads that waited in it are not known any more";

/// Looks at the queue of the archive at `root`, if there is one.
pub(crate) fn check(root: &Path, repair: bool) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let file = root.join(FOLDER).join(FILE);
    let before = put_aside(root)?;
    found.notes.extend(before.iter().map(|name| format!("{FOLDER}/{name} is a queue that could not be read: {LOST}")));
    if fs::symlink_metadata(&file).is_err() {
        return Ok(found);
    }
    if repair {
        drop(Store::open(root)?);
        let new = put_aside(root)?;
        let new = new.difference(&before);
        found.repairs.extend(new.map(|name| format!("{FOLDER}/{FILE} was put aside as {FOLDER}/{name}: {LOST}")));
    } else if let Some(why) = damage(&file)? {
        found.damaged.push(format!("{FOLDER}/{FILE} {why}: the next start puts it aside, and {LOST}"));
    }
    Ok(found)
}

/// The names under which starts have put queues aside.
fn put_aside(root: &Path) -> io::Result<BTreeSet<String>> {
    let entries = match fs::read_dir(root.join(FOLDER)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: io::Result<Vec<String>> = names.collect();
    let is_database = |name: &String| name.starts_with("queue.db.damaged-") && !name.ends_with("-wal");
    Ok(names?.into_iter().filter(is_database).collect())
}

/// Why a start would put it aside.
fn damage(file: &Path) -> Result<Option<&'static str>, StoreError> {
    let wal = with(file, "-wal");
    for name in [file, &wal] {
        if fs::symlink_metadata(name).is_ok_and(|found| !found.is_file()) {
            return Ok(Some("or its log is no plain file"));
        }
    }
    let copy = Copy::make(file, &wal)?;
    Ok(Store::is_damaged(&copy.0.join(FILE))?.then_some("cannot be read"))
}

/// A folder of its own with the database and its log, removed when dropped.
struct Copy(PathBuf);

impl Copy {
    fn make(file: &Path, wal: &Path) -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("mos-check-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let copy = Self(folder);
        fs::copy(file, copy.0.join(FILE))?;
        if wal.exists() {
            fs::copy(wal, with(&copy.0.join(FILE), "-wal"))?;
        }
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            log::warn!("{} cannot be removed: {e}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;

    fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(root.join(FOLDER)).unwrap().map(Result::unwrap);
        entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
    }

    #[test]
    fn a_queue_is_judged_by_a_copy_and_put_aside_by_repair_only() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(check(root, true).unwrap(), Found::default());
        assert!(!root.join(FOLDER).exists());
        drop(Store::open(root).unwrap());
        let sound = files(root);
        for repair in [false, true] {
            assert_eq!(check(root, repair).unwrap(), Found::default());
        }
        assert_eq!(files(root), sound);
        // A page in its middle.
        let mut bytes = sound[FILE].clone();
        assert!(bytes.len() > 8192);
        bytes[4096..8192].fill(0xff);
        fs::write(root.join(FOLDER).join(FILE), &bytes).unwrap();
        let damaged = files(root);
        let found = check(root, false).unwrap();
        assert!(
            found.damaged.len() == 1 && found.damaged[0].starts_with("uploads/queue.db cannot be read"),
            "{found:?}"
        );
        assert_eq!(files(root), damaged);
        let found = check(root, true).unwrap();
        assert!(found.repairs.len() == 1 && found.repairs[0].contains("uploads/queue.db.damaged-1"), "{found:?}");
        assert_eq!(files(root)["queue.db.damaged-1"], bytes);
        let found = check(root, false).unwrap();
        assert!(found.damaged.is_empty() && found.notes.len() == 1, "{found:?}");
    }

    #[test]
    fn a_queue_that_is_a_link_is_told_and_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(FOLDER);
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink("/nowhere", folder.join(FILE)).unwrap();
        let found = check(root.path(), false).unwrap();
        assert!(found.damaged.len() == 1 && found.damaged[0].contains("no plain file"), "{found:?}");
    }
}

//! Paths that come from outside: confined to the archive's folders.
//!
//! Promise X1: what is accepted is a plain file below `segments`, `clips` or `snapshots`, without `..`, without absolute
//! parts and without symbolic links on the way.

use std::path::{Component, Path, PathBuf};

use super::error::ArchiveError;

/// Checks a path given relative to the archive's root, or absolute below `root`; returns it relative to the root.
/// It says nothing about existence: the disk refuses symbolic links when the file is opened.
pub fn confine(root: &Path, given: &str) -> Result<PathBuf, ArchiveError> {
    let outside = || ArchiveError::Outside(given.to_owned());
    let path = Path::new(given);
    let path = if path.is_absolute() { path.strip_prefix(root).map_err(|_| outside())? } else { path };
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    let folder = path.components().next().and_then(|c| c.as_os_str().to_str());
    let allowed = matches!(folder, Some("segments" | "clips" | "snapshots"));
    if !plain || !allowed || path.components().count() < 2 || given.contains('\0') {
        return Err(outside());
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn x1_only_the_archives_folders() {
        let root = Path::new("/data/mos");
        for good in ["clips/a.mp4", "/data/mos/segments/road/1/0.mp4", "snapshots/x.jpg"] {
            assert!(confine(root, good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "clips",
            "/etc/passwd",
            "clips/../run",
            "../clips/a",
            "./clips/a",
            "index/index.db",
            "quarantine/x",
            "/data/mos2/clips/a",
            "clips/\0",
            "/data/mos/../mos/clips/a",
        ] {
            assert!(confine(root, bad).is_err(), "{bad}");
        }
    }
}

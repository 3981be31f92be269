//! Any files, directories and links under a root: the probe answers, and says nothing that holds control characters.
#![no_main]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mos_hal::device_tree::{identity, lenses, read};

mod edits;

fuzz_target!(|data: &[u8]| {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let board = edits::BOARD.iter().map(|(path, value)| ((*path).to_owned(), value.to_vec()));
    for (path, value) in board.chain(edits::edits(data)) {
        put(dir.path(), &path, &value);
    }
    if let Ok(who) = identity(dir.path()) {
        edits::shown(who.compatible.into_iter().chain(who.model));
    }
    match read(dir.path()) {
        Ok(root) => {
            let (found, faults) = lenses(&root);
            edits::shown(faults.iter().map(ToString::to_string));
            edits::shown(found.iter().map(|lens| format!("{lens:?}")));
        }
        Err(e) => edits::shown([e.to_string()]),
    }
});

/// Writes a file; some values make a directory of any name or a link instead. What the file system refuses is left out.
fn put(root: &Path, path: &str, value: &[u8]) {
    let file = root.join(path);
    let _ = file.parent().map(fs::create_dir_all);
    let _ = match value {
        [0xf0, name @ ..] => fs::create_dir(file.with_file_name(OsStr::from_bytes(name))),
        [0xf1, up, ..] => {
            let _ = fs::remove_file(&file);
            symlink(root.ancestors().nth(usize::from(*up % 3)).unwrap_or(root), &file)
        }
        [0xf2, many, ..] => fs::write(&file, vec![b'a'; usize::from(*many) * 64]),
        [0xf3, deep, ..] => fs::create_dir_all(root.join("d/".repeat(usize::from(*deep)))),
        value => fs::write(&file, value),
    };
}

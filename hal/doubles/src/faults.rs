//! Trouble on demand: what cameras are to do wrong, from a file that a test rewrites while the program runs.
//!
//! `MOS_DOUBLES_FAULTS` names the file; each line is `CAMERA FAULT`, where CAMERA is the camera's number, id or node, or `*`,
//! and FAULT one of [`Fault`]'s names. Without the file all is well. Read once per frame, so a fault begins and ends at once.

use std::path::PathBuf;
use std::sync::LazyLock;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `stall`: it delivers nothing and says nothing.
    Stall,
    /// `error`: its element fails.
    Error,
    /// `gone`: its element fails, and it cannot be opened.
    Gone,
}

/// The fault that is asked for this camera now.
#[must_use]
pub fn of(camera: &str) -> Option<Fault> {
    static PATH: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("MOS_DOUBLES_FAULTS").map(PathBuf::from));
    let text = std::fs::read_to_string(PATH.as_ref()?).ok()?;
    let of_line = |line: &str| {
        let (who, fault) = line.trim().rsplit_once(' ')?;
        let mine = who == "*" || who == camera;
        let fault = match fault {
            "stall" => Fault::Stall,
            "error" => Fault::Error,
            "gone" => Fault::Gone,
            _ => return None,
        };
        mine.then_some(fault)
    };
    text.lines().find_map(of_line)
}

//! Answers of the kernel that a test makes up for a daemon: its wall clock, and errors of the disk that its archive lies on.
//!
//! A few lines of C (`kernel.c`) are loaded into the daemon before the C library and read from a shared page what to answer. Only
//! what is set here differs; nothing else on the machine does.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use crate::cli::tool;
use crate::daemon::Setup;

/// Calls that can be made to fail; the value is the word of the shared page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Writing to a file.
    Write = 2,
    /// Making a file or folder durable.
    Sync = 3,
    /// Renaming.
    Rename = 4,
    /// Creating a file, or opening one for writing.
    Create = 5,
    /// Making a folder.
    MakeDir = 6,
    /// Removing a file or folder.
    Remove = 7,
}

impl Call {
    /// Whatever a file system refuses that is read-only.
    pub const CHANGES: [Self; 6] = [Self::Write, Self::Sync, Self::Rename, Self::Create, Self::MakeDir, Self::Remove];
}

const WORDS: u64 = 8;

/// What a daemon's kernel answers. At first the truth, but that nothing keeps the clock right.
#[derive(Debug)]
pub struct Kernel {
    folder: tempfile::TempDir,
    book: File,
}

impl Kernel {
    /// Compiles what is loaded into the daemon; needs a C compiler.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = crate::repository().join("tests/src/kernel.c");
        let mut cc = Command::new("cc");
        tool(
            cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
                .arg(folder.path().join("kernel.so"))
                .arg(source)
                .arg("-ldl"),
        );
        let book = File::create(folder.path().join("book")).unwrap();
        book.set_len(WORDS * 8).unwrap();
        Self { folder, book }
    }

    /// A daemon under this kernel.
    #[must_use]
    pub fn under(&self, setup: Setup) -> Setup {
        let path = |name: &str| -> PathBuf { self.folder.path().join(name) };
        let root = setup.archive().to_owned();
        setup
            .environment("LD_PRELOAD", path("kernel.so").to_str().unwrap())
            .environment("MOS_TEST_KERNEL", path("book").to_str().unwrap())
            .environment("MOS_TEST_ROOT", root.to_str().unwrap())
    }

    /// The wall clock goes `ahead_us` µs ahead of the true one; `kept`: something keeps it right, as far as the kernel knows.
    pub fn set_clock(&self, ahead_us: i64, kept: bool) {
        self.set(0, ahead_us * 1000);
        self.set(1, i64::from(kept));
    }

    /// Lets a call fail with an error number, or answer truly again (0).
    pub fn fail(&self, call: Call, errno: i32) {
        self.set(call as u64, i64::from(errno));
    }

    fn set(&self, word: u64, value: i64) {
        self.book.write_all_at(&value.to_ne_bytes(), word * 8).unwrap();
    }
}

impl Default for Kernel {
    fn default() -> Self {
        Self::new()
    }
}

//! Decodes files with ffmpeg and reads the numbers in their pictures.
//!
//! Many files per process, and each content only once: a file that two restarts have in common is decoded once.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::streams::{BLOCKS, read_number};

/// Files per ffmpeg process.
const BATCH: usize = 24;

/// What a decoder makes of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Numbers of the pictures in output order; `None` for a picture that is none of ours.
    pub(crate) numbers: Vec<Option<u16>>,
    /// What the decoder complained about.
    pub(crate) complaints: String,
}

/// Decoded files by their contents.
pub(crate) struct Judge {
    dir: PathBuf,
    seen: Mutex<HashMap<u64, Seen>>,
}

impl Judge {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), seen: Mutex::default() }
    }

    pub(crate) fn key(bytes: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        hasher.finish()
    }

    /// Decodes what is new among `files`.
    pub(crate) fn decode<'a>(&self, files: impl Iterator<Item = &'a [u8]>) {
        let mut todo = Vec::new();
        let mut known: HashSet<u64> = self.seen.lock().unwrap().keys().copied().collect();
        for bytes in files {
            let key = Self::key(bytes);
            if known.insert(key) {
                let path = self.dir.join(format!("{key:016x}.mp4"));
                std::fs::write(&path, bytes).unwrap();
                todo.push((key, path));
            }
        }
        let halves: Vec<&[(u64, PathBuf)]> = todo.chunks(todo.len().div_ceil(2).max(1)).collect();
        std::thread::scope(|scope| {
            for half in halves {
                scope.spawn(move || half.chunks(BATCH).for_each(|batch| self.decode_batch(batch)));
            }
        });
    }

    /// How many different files were decoded.
    pub(crate) fn decoded(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// What was seen in a file that was decoded.
    pub(crate) fn seen(&self, bytes: &[u8]) -> Seen {
        self.seen.lock().unwrap()[&Self::key(bytes)].clone()
    }

    fn decode_batch(&self, batch: &[(u64, PathBuf)]) {
        // A complaint in a batch has no name to it, so such a batch is decoded again one by one.
        let complaints = run(batch);
        if !complaints.is_empty() && batch.len() > 1 {
            batch.chunks(1).for_each(|one| self.decode_batch(one));
            return;
        }
        for (key, path) in batch {
            let raw = std::fs::read(raw_path(path)).unwrap_or_default();
            let numbers = raw.chunks_exact(BLOCKS).map(read_number).collect();
            let seen = Seen { numbers, complaints: complaints.clone() };
            self.seen.lock().unwrap().insert(*key, seen);
            let _ = std::fs::remove_file(raw_path(path));
            let _ = std::fs::remove_file(path);
        }
    }
}

fn raw_path(path: &Path) -> PathBuf {
    path.with_extension("raw")
}

fn run(batch: &[(u64, PathBuf)]) -> String {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-y"]);
    for (_, path) in batch {
        command.args(["-threads", "1"]).arg("-i").arg(path);
    }
    for (n, (_, path)) in batch.iter().enumerate() {
        command
            .args(["-map", &format!("{n}:v:0"), "-vf", "scale=8:4:flags=area,format=gray", "-fps_mode", "passthrough"])
            .args(["-enc_time_base", "1:90000", "-f", "rawvideo"])
            .arg(raw_path(path));
    }
    let out = command.output().expect("ffmpeg is installed");
    let mut complaints = String::from_utf8_lossy(&out.stderr).into_owned();
    if !out.status.success() && complaints.is_empty() {
        complaints = format!("ffmpeg ended with {}", out.status);
    }
    complaints
}

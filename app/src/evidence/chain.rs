//! The chain of a lens and run: one line per segment in `evidence/{lens}/{run}.jsonl`, each sealed and signed.
//!
//! Promises: (N1) a line is durable before the next is written; (N2) what cannot be read ends the chain there, and nothing behind
//! it counts; a torn last line is cut off before the next is written.

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};

use mos_hal::media::LensId;
use serde::{Deserialize, Serialize};

use super::digest::{Hash, Name, segment};
use super::key::{DeviceKey, is_signed};
use crate::archive::disk::{Disk, OpenMode};
use crate::archive::ids::RunId;
use crate::archive::line;
use crate::archive::run::read_whole;

/// Where chains lie, relative to the archive's root.
pub const FOLDER: &str = "evidence";

/// When a link was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Made {
    /// When the segment was closed.
    Closed,
    /// By a later start: the run had ended before.
    Later,
}

/// One segment in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The segment.
    pub segment: Name,
    /// Digests of its blocks.
    pub blocks: Vec<Hash>,
    /// The head of all links before; of the first one [`root`].
    pub before: Hash,
    /// The head with this link.
    pub head: Hash,
    /// When it was made.
    pub made: Made,
    /// The public key.
    pub key: String,
    /// Its signature over the head.
    pub signature: String,
}

impl Link {
    /// The next link after `before`.
    pub(crate) fn new(segment: Name, blocks: Vec<Hash>, before: Hash, made: Made, key: &DeviceKey) -> Self {
        let head = head(&segment, &blocks, before, made);
        let (public, signature) = (key.public(), key.sign(&head.0));
        Self { segment, blocks, before, head, made, key: public, signature }
    }

    /// Whether head and signature are those of what it says.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.head == head(&self.segment, &self.blocks, self.before, self.made)
            && is_signed(&self.key, &self.head.0, &self.signature)
    }
}

fn head(name: &Name, blocks: &[Hash], before: Hash, made: Made) -> Hash {
    let made: &[u8] = match made {
        Made::Closed => b"closed",
        Made::Later => b"later",
    };
    Hash::of(&[b"mos-chain-1", &before.0, &segment(name, blocks).0, made])
}

/// Where the chain of a lens and run begins.
#[must_use]
pub fn root(lens: &str, run: u32) -> Hash {
    Hash::of(&[format!("mos-run-1\n{lens}\n{run}\n").as_bytes()])
}

/// A chain as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The links that can be read and follow each other.
    pub links: Vec<Link>,
    /// Bytes that they take in the file.
    pub bytes: u64,
    /// What ends it before the file ends: the number of the line, from 1, and why.
    pub broken: Option<(usize, &'static str)>,
    /// Whether that is the last line, torn by a power cut perhaps.
    pub torn: bool,
}

/// Where the next link goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The hash of all links.
    pub(crate) head: Hash,
    /// Bytes that they take.
    bytes: u64,
}

impl Chain {
    /// Reads the text of a chain. (N2)
    #[must_use]
    pub fn read(lens: &str, run: u32, text: &[u8]) -> Self {
        let mut chain = Self::default();
        let mut before = root(lens, run);
        let mut rows = text.split_inclusive(|byte| *byte == b'\n').enumerate().peekable();
        while let Some((number, row)) = rows.next() {
            let why = match line::unseal::<Link>(row) {
                None => "it cannot be read",
                Some(_) if row.last() != Some(&b'\n') => "it is torn",
                Some(link) if link.before != before => "it does not follow the link before it",
                Some(link) if (link.segment.lens.as_str(), link.segment.run) != (lens, run) => "it is of another run",
                Some(link) if !link.holds() => "its signature does not hold",
                Some(link) => {
                    before = link.head;
                    chain.bytes += row.len() as u64;
                    chain.links.push(link);
                    continue;
                }
            };
            chain.broken = Some((number + 1, why));
            chain.torn = rows.peek().is_none();
            break;
        }
        chain
    }

    /// Where the next link goes; nowhere if something is wrong before the last line, which stays to be looked at. (N2)
    pub(crate) fn tail(&self, lens: &str, run: u32) -> Option<Tail> {
        let head = self.links.last().map_or_else(|| root(lens, run), |link| link.head);
        (self.broken.is_none() || self.torn).then_some(Tail { head, bytes: self.bytes })
    }

    /// The link of a segment.
    #[must_use]
    pub fn of(&self, seq: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.segment.seq == seq)
    }
}

/// The file of a chain.
#[must_use]
pub fn path(lens: &LensId, run: RunId) -> PathBuf {
    Path::new(FOLDER).join(lens.as_str()).join(format!("{}.jsonl", run.0))
}

/// Reads a chain; an empty one if there is none.
pub(crate) fn load(disk: &dyn Disk, lens: &LensId, run: RunId) -> std::io::Result<Chain> {
    match read_whole(disk, &path(lens, run)) {
        Ok(text) => Ok(Chain::read(lens.as_str(), run.0, &text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Chain::default()),
        Err(e) => Err(e),
    }
}

/// Adds a link at the tail; durable on return. (N1)
pub(crate) fn append(disk: &dyn Disk, tail: &mut Tail, link: &Link) -> std::io::Result<()> {
    let lens = LensId::new(&link.segment.lens).map_err(std::io::Error::other)?;
    let path = path(&lens, RunId(link.segment.run));
    let file = match disk.open(&path, OpenMode::ReadWrite) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new(""));
            disk.create_dir(Path::new(FOLDER))?;
            disk.create_dir(folder)?;
            let file = disk.open(&path, OpenMode::CreateNew)?;
            for dir in [Path::new(""), Path::new(FOLDER), folder] {
                disk.sync_dir(dir)?;
            }
            file
        }
        Err(e) => return Err(e),
    };
    let text = line::seal(link) + "\n";
    file.set_len(tail.bytes)?;
    file.write_at(tail.bytes, &[IoSlice::new(text.as_bytes())])?;
    file.sync()?;
    *tail = Tail { head: link.head, bytes: tail.bytes + text.len() as u64 };
    Ok(())
}

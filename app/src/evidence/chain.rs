//! The chain of a lens and run: one line per segment, each sealed and signed, in files of [`PART`] numbers each,
//! `evidence/{lens}/{run}-{part}.jsonl`.
//!
//! Promises: (N1) a line is durable before the next is written; (N2) what cannot be read ends the file there, and nothing behind it
//! counts; a torn last line, and only that, is cut off before the next is written; (N3) no file has more than [`PART`] links, a
//! single one is found by reading one file and parsing one line, and a file goes with the last of its segments.
//!
//! The first link of a file follows a link of the file before, so that whoever has all files has one chain; see `joints`.

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};

use mos_hal::media::LensId;
use serde::{Deserialize, Serialize};

use super::digest::{Hash, Name, segment};
use super::key::{DeviceKey, is_signed};
use crate::archive::disk::{Disk, DiskFile, OpenMode};
use crate::archive::ids::{RunId, SegmentId, number};
use crate::archive::line;
use crate::archive::run::read_whole;

/// Where chains lie, relative to the archive's root.
pub const FOLDER: &str = "evidence";
/// Numbers of segments in one file.
pub const PART: u32 = 64;
/// Longest line that is read: ten minutes in which each of 60 pictures a second is a keyframe are 2 MB.
const LONGEST: u64 = 8 << 20;

/// When a link was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Made {
    /// When the segment was closed.
    Closed,
    /// By the start after a power cut or crash, which left it without a link.
    Later,
    /// Long after: no evidence was kept then, or its link was lost. Attests nothing of the time before.
    Old,
}

/// One segment in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The segment.
    pub segment: Name,
    /// How it is shown.
    pub shape: Hash,
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
    pub(crate) fn new(segment: Name, shape: Hash, blocks: Vec<Hash>, at: (Hash, Made), key: &DeviceKey) -> Self {
        let (before, made) = at;
        let head = head(&segment, shape, &blocks, at);
        let (public, signature) = (key.public(), key.sign(&head.0));
        Self { segment, shape, blocks, before, head, made, key: public, signature }
    }

    /// Whether head and signature are those of what it says.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.head == head(&self.segment, self.shape, &self.blocks, (self.before, self.made))
            && is_signed(&self.key, &self.head.0, &self.signature)
    }
}

fn head(name: &Name, shape: Hash, blocks: &[Hash], (before, made): (Hash, Made)) -> Hash {
    let made: &[u8] = match made {
        Made::Closed => b"closed",
        Made::Later => b"later",
        Made::Old => b"old",
    };
    Hash::of(&[b"mos-chain-2", &before.0, &segment(name, shape, blocks).0, made])
}

/// Where the chain of a lens and run begins.
#[must_use]
pub fn root(lens: &str, run: u32) -> Hash {
    Hash::of(&[format!("mos-run-1\n{lens}\n{run}\n").as_bytes()])
}

/// The file in which a segment's link is.
#[must_use]
pub fn part_of(seq: u32) -> u32 {
    seq / PART
}

/// A file of a chain as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The links that can be read and follow each other.
    pub links: Vec<Link>,
    /// Bytes that they take in the file.
    pub bytes: u64,
    /// What ends it before the file ends: the number of the line, from 1, and why.
    pub broken: Option<(usize, &'static str)>,
    /// Whether that is a last line that a power cut tore: its end, or blocks of it, never reached the disk.
    pub torn: bool,
    /// Whether that is a link of the older form, which said nothing of how a segment is shown.
    pub older: bool,
}

/// What a link of the older form had. They lay in one file for a run, `{run}.jsonl`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its form is looked at")]
struct OlderLink {
    segment: Name,
    blocks: Vec<Hash>,
    before: Hash,
    head: Hash,
    made: Made,
    key: String,
    signature: String,
}

/// Where the next link goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The file.
    pub(crate) part: u32,
    /// The hash of all links.
    pub(crate) head: Hash,
    /// Links in this file.
    pub(crate) links: u32,
    /// Bytes that they take.
    bytes: u64,
}

impl Tail {
    /// Of a file that is not there yet and follows `head`.
    pub(crate) fn begin(part: u32, head: Hash) -> Self {
        Self { part, head, links: 0, bytes: 0 }
    }
}

impl Chain {
    /// Reads the text of a file. (N2)
    #[must_use]
    pub fn read(lens: &str, run: u32, text: &[u8]) -> Self {
        let mut chain = Self::default();
        let mut before = None;
        let mut rows = text.split_inclusive(|byte| *byte == b'\n').enumerate().peekable();
        while let Some((number, row)) = rows.next() {
            // What never reached the disk is missing at the end, or reads as zeros.
            let tears = row.last() != Some(&b'\n') || row.contains(&0);
            let why = match line::unseal::<Link>(row) {
                _ if tears => "it is torn",
                None if line::unseal::<OlderLink>(row).is_some() => {
                    chain.older = true;
                    "it is of an older form, by which this version does not judge"
                }
                None => "it cannot be read",
                Some(link) if (link.segment.lens.as_str(), link.segment.run) != (lens, run) => "it is of another run",
                Some(link) if !follows(&link, before, lens, run) => "it does not follow the link before it",
                Some(link) if !link.holds() => "its signature does not hold",
                Some(link) => {
                    before = Some((link.head, part_of(link.segment.seq)));
                    chain.bytes += row.len() as u64;
                    chain.links.push(link);
                    continue;
                }
            };
            chain.broken = Some((number + 1, why));
            chain.torn = tears && rows.peek().is_none();
            break;
        }
        chain
    }

    /// Where the next link of this file goes; nowhere if something is wrong before its end, which stays to be looked at. (N2)
    pub(crate) fn tail(&self, part: u32, empty: Hash) -> Option<Tail> {
        let head = self.links.last().map_or(empty, |link| link.head);
        let links = u32::try_from(self.links.len()).ok()?;
        (self.broken.is_none() || self.torn).then_some(Tail { part, head, links, bytes: self.bytes })
    }

    /// The link of a segment.
    #[must_use]
    pub fn of(&self, seq: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.segment.seq == seq)
    }
}

/// Whether a link may stand behind `before`, a head and its file. A file's first one follows what is in another file, but for
/// that of the first file.
fn follows(link: &Link, before: Option<(Hash, u32)>, lens: &str, run: u32) -> bool {
    let part = part_of(link.segment.seq);
    match before {
        Some((head, of)) => link.before == head && part == of,
        None => part > 0 || link.before == root(lens, run),
    }
}

/// Name of the file of a part of a chain.
#[must_use]
pub fn part_name(run: u32, part: u32) -> String {
    format!("{run}-{part}.jsonl")
}

/// The file of a part of a chain.
#[must_use]
pub fn path(lens: &LensId, run: RunId, part: u32) -> PathBuf {
    Path::new(FOLDER).join(lens.as_str()).join(part_name(run.0, part))
}

/// Name of a run's chain of the older form.
#[must_use]
pub fn older_name(run: u32) -> String {
    format!("{run}.jsonl")
}

/// Chains of the older form, relative to the archive's root. What they link is linked anew, as late.
pub fn older(disk: &dyn Disk) -> std::io::Result<Vec<PathBuf>> {
    let lenses = match disk.read_dir(Path::new(FOLDER)) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        lenses => lenses?,
    };
    let mut found = Vec::new();
    for lens in lenses.iter().filter(|e| e.is_dir) {
        let folder = Path::new(FOLDER).join(&lens.name);
        let names = disk.read_dir(&folder)?;
        found.extend(names.iter().filter(|e| run_of_older(&e.name).is_some()).map(|e| folder.join(&e.name)));
    }
    Ok(found)
}

/// The run of such a file's name.
pub(crate) fn run_of_older(name: &str) -> Option<u32> {
    number(name.strip_suffix(".jsonl")?)
}

/// Run and part of a file's name.
pub(crate) fn parse_name(name: &str) -> Option<(u32, u32)> {
    let (run, part) = name.strip_suffix(".jsonl")?.split_once('-')?;
    Some((number(run)?, number(part)?))
}

/// Reads a part of a chain; an empty one if there is none.
pub(crate) fn load(disk: &dyn Disk, lens: &LensId, run: RunId, part: u32) -> std::io::Result<Chain> {
    match read_whole(disk, &path(lens, run, part)) {
        Ok(text) => Ok(Chain::read(lens.as_str(), run.0, &text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Chain::default()),
        Err(e) => Err(e),
    }
}

/// The link of a segment. Only its own line is parsed, and kept in memory. (N3)
pub(crate) fn find(disk: &dyn Disk, id: &SegmentId) -> std::io::Result<Option<Link>> {
    let file = match disk.open(&path(&id.lens, id.run, part_of(id.seq.0)), OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    // As `append` writes it.
    let begins = format!("{{\"segment\":{{\"lens\":\"{}\",\"run\":{},\"seq\":{},", id.lens, id.run.0, id.seq.0);
    let Some((from, to)) = row(file.as_ref(), begins.as_bytes())? else { return Ok(None) };
    if to - from > LONGEST {
        return Err(std::io::Error::other("the link is longer than any"));
    }
    let mut text = vec![0; usize::try_from(to - from).map_err(std::io::Error::other)?];
    let n = file.read_at(from, &mut text)?;
    Ok(line::unseal::<Link>(&text[..n]).filter(Link::holds))
}

/// Where the line is that begins so.
fn row(file: &dyn DiskFile, begins: &[u8]) -> std::io::Result<Option<(u64, u64)>> {
    let mut piece = vec![0; 64 << 10];
    let (mut at, mut start, mut found) = (0, 0, false);
    // How many bytes of this line are as they should be; none any more once one was not.
    let mut same = Some(0);
    loop {
        let n = file.read_at(at, &mut piece)?;
        if n == 0 {
            return Ok(None);
        }
        for (i, byte) in (at..).zip(&piece[..n]) {
            if *byte == b'\n' {
                if found {
                    return Ok(Some((start, i + 1)));
                }
                (start, same) = (i + 1, Some(0));
            } else if let Some(count) = same {
                same = (begins.get(count) == Some(byte)).then_some(count + 1);
                if same == Some(begins.len()) {
                    (found, same) = (true, None);
                }
            }
        }
        at += n as u64;
    }
}

/// Adds a link at the tail; durable on return. (N1)
pub(crate) fn append(disk: &dyn Disk, tail: &mut Tail, link: &Link) -> std::io::Result<()> {
    let lens = LensId::new(&link.segment.lens).map_err(std::io::Error::other)?;
    let path = path(&lens, RunId(link.segment.run), tail.part);
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
    if file.len()? < tail.bytes {
        let why = format!("{} is shorter than what was written to it", path.display());
        return Err(std::io::Error::new(ErrorKind::InvalidData, why));
    }
    let text = line::seal(link) + "\n";
    file.set_len(tail.bytes)?;
    file.write_at(tail.bytes, &[IoSlice::new(text.as_bytes())])?;
    file.sync()?;
    let bytes = tail.bytes + text.len() as u64;
    *tail = Tail { part: tail.part, head: link.head, links: tail.links + 1, bytes };
    Ok(())
}

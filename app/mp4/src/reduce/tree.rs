//! A box that is wholly in memory, with the boxes in it down to those that hold other things.
//!
//! What must be right for samples to be found (`moov`, `trak`, `stbl`, `moof`, …) is refused when it is broken. What is only
//! user data and does not consist of whole boxes is left alone as it is.

use std::ops::Range;

use super::cuts::Ranges;
use super::outline::TopBox;
use super::{ReduceError, read_box};
use crate::boxes::{BoxHeader, FourCc, child};
use crate::read::ReadAt;

/// Most boxes in one tree.
const MAX_NODES: usize = 100_000;

/// Deepest nesting: `moov trak mdia minf stbl stsd avc1 sinf schi` has nine.
const MAX_DEPTH: usize = 16;

/// Fields of a visual sample entry before its boxes.
const VISUAL_FIELDS: usize = 78;

/// Fields of an audio sample entry of version 0 before its boxes.
const AUDIO_FIELDS: usize = 28;

/// A box in a tree; places count from the tree's first byte.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: FourCc,
    pub(super) start: usize,
    pub(super) body: usize,
    pub(super) end: usize,
    parent: usize,
    /// Its size says "to the end of the file".
    open_ended: bool,
}

/// A top-level box and all boxes in it, each behind its parent; the first node is the box itself.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) bytes: Vec<u8>,
    /// Where it lies in the file.
    pub(super) at: u64,
    pub(super) nodes: Vec<Node>,
}

/// How the inside of a box is made.
enum Inside {
    /// Boxes from this byte of the body on, of which free ones may be left out.
    Boxes { from: usize, strict: bool },
    /// Boxes from this byte on that are counted or numbered: none may be left out, but those in them.
    Counted { from: usize },
    /// Anything.
    Opaque,
}

impl Tree {
    /// Reads `top` and enters the free boxes in it.
    pub(super) fn read(file: &dyn ReadAt, top: &TopBox, free: &mut Ranges) -> Result<Self, ReduceError> {
        let bytes = read_box(file, top)?;
        let mut tree = Self { at: top.start, nodes: Vec::new(), bytes };
        let body = usize::from(top.header_len);
        let end = tree.bytes.len();
        tree.nodes.push(Node { kind: top.kind, start: 0, body, end, parent: 0, open_ended: top.open_ended });
        tree.descend(0, *b"\0\0\0\0", 0, free)?;
        Ok(tree)
    }

    /// Place in the file of a byte of the tree.
    pub(super) fn place(&self, at: usize) -> u64 {
        self.at + at as u64
    }

    /// The range of the file that it covers.
    pub(super) fn range(&self) -> Range<u64> {
        self.at..self.place(self.bytes.len())
    }

    /// Contents of a node.
    pub(super) fn body(&self, node: &Node) -> &[u8] {
        self.bytes.get(node.body..node.end).unwrap_or(&[])
    }

    /// An error about a node.
    pub(super) fn malformed(&self, node: &Node, what: &'static str) -> ReduceError {
        ReduceError::Malformed { offset: self.place(node.start), what }
    }

    /// The number of the node around node `number`.
    pub(super) fn parent(&self, number: usize) -> Option<usize> {
        self.nodes.get(number).map(|n| n.parent)
    }

    /// Boxes of `kind` directly in node number `parent`, with their numbers.
    pub(super) fn children(&self, parent: usize, kind: FourCc) -> impl Iterator<Item = (usize, &Node)> {
        let end = self.nodes.get(parent).map_or(0, |n| n.end);
        let below = self.nodes.iter().enumerate().skip(parent + 1).take_while(move |(_, n)| n.start < end);
        below.filter(move |(_, n)| n.parent == parent && n.kind == kind)
    }

    /// The only box of `kind` in node `parent`, if there is one; two are an error.
    pub(super) fn only(&self, parent: usize, kind: FourCc) -> Result<Option<(usize, &Node)>, ReduceError> {
        let mut found = self.children(parent, kind);
        let first = found.next();
        match found.next() {
            Some((_, second)) => Err(self.malformed(second, "the same box twice in one parent")),
            None => Ok(first),
        }
    }

    /// Writes the sizes that boxes have when `size_of` tells the new size of a range of the file.
    pub(super) fn enter_sizes(&self, new: &mut [u8], size_of: impl Fn(Range<u64>) -> u64) {
        for node in self.nodes.iter().filter(|n| !n.open_ended) {
            let size = size_of(self.place(node.start)..self.place(node.end));
            if size != (node.end - node.start) as u64 {
                put_size(new, node.start, node.body - node.start, size);
            }
        }
    }

    fn descend(&mut self, number: usize, handler: FourCc, depth: usize, free: &mut Ranges) -> Result<(), ReduceError> {
        let Some(node) = self.nodes.get(number).cloned() else { return Ok(()) };
        let parent = self.nodes.get(node.parent).map_or(*b"\0\0\0\0", |p| p.kind);
        let inside = inside(&node, parent, handler, self.body(&node));
        let (from, strict, counted) = match inside {
            Inside::Opaque => return Ok(()),
            Inside::Boxes { from, strict } => (from, strict, false),
            Inside::Counted { from } => (from, false, true),
        };
        if depth == MAX_DEPTH {
            return Err(self.malformed(&node, "boxes are nested too deeply"));
        }
        let handler = if node.kind == *b"mdia" { handler_of(self.body(&node)) } else { handler };
        let Some(children) = self.split(number, node.body + from..node.end) else {
            return if strict { Err(self.malformed(&node, "it does not consist of whole boxes")) } else { Ok(()) };
        };
        for child in children {
            if self.nodes.len() == MAX_NODES {
                return Err(ReduceError::TooLarge { offset: self.place(child.start), what: "more than 100,000 boxes" });
            }
            if !counted && matches!(&child.kind, b"free" | b"skip") {
                free.push(self.place(child.start), self.place(child.end));
                continue;
            }
            self.nodes.push(child);
            self.descend(self.nodes.len() - 1, handler, depth + 1, free)?;
        }
        Ok(())
    }

    /// The boxes in a range, `None` if it holds anything else but QuickTime's closing zeros of `udta`.
    fn split(&self, parent: usize, range: Range<usize>) -> Option<Vec<Node>> {
        let mut found = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let rest = self.bytes.get(at..range.end)?;
            if rest == [0; 4] && self.nodes.get(parent)?.kind == *b"udta" {
                break;
            }
            let header = BoxHeader::parse(rest)?;
            let size = usize::try_from(header.size?).ok().filter(|size| *size <= rest.len())?;
            let body = at + header.header_len as usize;
            found.push(Node { kind: header.kind, start: at, body, end: at + size, parent, open_ended: false });
            at += size;
        }
        (at <= range.end).then_some(found)
    }
}

/// Writes the size of a box whose header begins at `at`.
pub(super) fn put_size(bytes: &mut [u8], at: usize, header_len: usize, size: u64) {
    if header_len == 16 {
        put(bytes, at + 8, &size.to_be_bytes());
    } else {
        put(bytes, at, &(size as u32).to_be_bytes());
    }
}

/// Overwrites bytes that are there.
pub(super) fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    if let Some(slot) = bytes.get_mut(at..at + new.len()) {
        slot.copy_from_slice(new);
    }
}

fn inside(node: &Node, parent: FourCc, handler: FourCc, body: &[u8]) -> Inside {
    match &node.kind {
        b"moov" | b"trak" | b"mdia" | b"minf" | b"stbl" | b"edts" | b"dinf" | b"mvex" | b"moof" | b"traf" | b"mfra" => {
            Inside::Boxes { from: 0, strict: true }
        }
        b"udta" | b"ilst" | b"meco" | b"sinf" | b"schi" | b"wave" | b"gmhd" | b"tapt" => {
            Inside::Boxes { from: 0, strict: false }
        }
        // ISO's has version and flags, QuickTime's begins with its hdlr at once.
        b"meta" => Inside::Boxes { from: if body.get(4..8) == Some(b"hdlr") { 0 } else { 4 }, strict: false },
        b"stsd" => Inside::Counted { from: 8 },
        _ if parent == *b"stsd" => match &handler {
            b"vide" => Inside::Boxes { from: VISUAL_FIELDS, strict: false },
            b"soun" if body.get(8..10) == Some(&[0, 0]) => Inside::Boxes { from: AUDIO_FIELDS, strict: false },
            _ => Inside::Opaque,
        },
        _ => Inside::Opaque,
    }
}

/// The handler type of a media box.
fn handler_of(mdia: &[u8]) -> FourCc {
    child(mdia, *b"hdlr").and_then(|b| b.get(8..12)?.try_into().ok()).unwrap_or_default()
}

//! What the simulated disk holds: a live view, as the page cache shows it, over a stable one, as the device has it.
//!
//! Model (what a careful reader of POSIX may expect of ext4, XFS or f2fs, and no more):
//! - contents, lengths and names written since their last sync are lost, kept or reordered independently at a crash;
//! - lost or kept contents are decided per write, or torn per aligned 8-byte word;
//! - a rename happens wholly or not at all, and is stable once both folders are synced;
//! - a failed sync leaves the pages clean: what it covered may or may not be on the device, later syncs do not write it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// A file or folder.
pub(super) type NodeId = usize;

/// A small deterministic generator (SplitMix64, public domain algorithm by Sebastiano Vigna).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    fn coin(&mut self) -> bool {
        self.roll() & 1 == 1
    }
}

#[derive(Default)]
pub(super) struct FileNode {
    pub(super) live: Vec<u8>,
    stable: Vec<u8>,
    pending: Vec<Change>,
    /// After a failed sync: the live view shows what the device may not have.
    diverged: bool,
    pub(super) reserved: u64,
}

enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Len(u64),
}

const PAGE: u64 = 4096;

impl FileNode {
    pub(super) fn allocated(&self) -> u64 {
        (self.live.len() as u64).max(self.reserved).div_ceil(PAGE) * PAGE
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        put(&mut self.live, offset, bytes);
        self.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.live.resize(len as usize, 0);
        self.reserved = 0;
        self.pending.push(Change::Len(len));
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.stable);
        }
    }

    /// A sync that fails: the device took some of it, and the pages count as clean.
    pub(super) fn fail_sync(&mut self, dice: &mut Dice) {
        self.settle(dice);
        self.diverged = true;
    }

    /// Drops clean pages: what the device has shows again.
    pub(super) fn evict(&mut self) {
        if self.diverged {
            self.live = self.stable.clone();
            for change in &self.pending {
                change.apply(&mut self.live);
            }
            self.diverged = !self.pending.is_empty();
        }
    }

    fn crash(&mut self, dice: &mut Dice) {
        self.settle(dice);
        self.live = self.stable.clone();
        self.reserved = 0;
        self.diverged = false;
    }

    /// Brings a random part of what is pending to the stable view.
    fn settle(&mut self, dice: &mut Dice) {
        if self.pending.is_empty() {
            return;
        }
        let mut lengths = vec![self.stable.len()];
        let mut grown = self.stable.len();
        for change in &self.pending {
            grown = match change {
                Change::Write { offset, bytes } => grown.max(*offset as usize + bytes.len()),
                Change::Len(len) => *len as usize,
            };
            lengths.push(grown);
        }
        // The newest length is the likeliest single outcome, so that kept contents show as well.
        let pick = if dice.below(3) == 0 { lengths.len() - 1 } else { dice.below(lengths.len() as u64) as usize };
        for change in self.pending.drain(..) {
            let Change::Write { offset, bytes } = change else { continue };
            match dice.below(3) {
                0 => {}
                1 => put(&mut self.stable, offset, &bytes),
                _ => tear(&mut self.stable, offset, &bytes, dice),
            }
        }
        self.stable.resize(lengths[pick], 0);
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => put(to, *offset, bytes),
            Self::Len(len) => to.resize(*len as usize, 0),
        }
    }
}

fn put(to: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (begin, end) = (offset as usize, offset as usize + bytes.len());
    if to.len() < end {
        to.resize(end, 0);
    }
    to[begin..end].copy_from_slice(bytes);
}

/// Keeps or loses each aligned 8-byte word by itself, in runs, as sectors and cache lines would.
fn tear(to: &mut Vec<u8>, offset: u64, bytes: &[u8], dice: &mut Dice) {
    let end = offset + bytes.len() as u64;
    let mut at = offset;
    while at < end {
        let words = 1 + if dice.coin() { 0 } else { dice.below(64) };
        let next = ((at / 8 + words) * 8).min(end);
        if dice.coin() {
            put(to, at, &bytes[(at - offset) as usize..(next - offset) as usize]);
        }
        at = next;
    }
}

pub(super) type Names = BTreeMap<String, NodeId>;

/// A change of names, waiting for the syncs of the folders it concerns.
struct NameOp {
    steps: Vec<(NodeId, String, Option<NodeId>)>,
    waits: BTreeSet<NodeId>,
}

pub(super) enum Node {
    File(FileNode),
    Dir { live: Names, stable: Names },
}

/// All nodes; node 0 is the root.
pub(super) struct Store {
    pub(super) nodes: Vec<Node>,
    log: Vec<NameOp>,
}

pub(super) const ROOT: NodeId = 0;

impl Store {
    pub(super) fn new() -> Self {
        Self { nodes: vec![empty_dir()], log: Vec::new() }
    }

    pub(super) fn add(&mut self, dir: NodeId, name: &str, node: Node) -> NodeId {
        self.nodes.push(node);
        let id = self.nodes.len() - 1;
        self.change(vec![(dir, name.to_owned(), Some(id))]);
        id
    }

    pub(super) fn unlink(&mut self, dir: NodeId, name: &str) {
        self.change(vec![(dir, name.to_owned(), None)]);
    }

    pub(super) fn rename(&mut self, from: (NodeId, &str), to: (NodeId, &str), node: NodeId) {
        self.change(vec![(from.0, from.1.to_owned(), None), (to.0, to.1.to_owned(), Some(node))]);
    }

    fn change(&mut self, steps: Vec<(NodeId, String, Option<NodeId>)>) {
        for (dir, name, node) in &steps {
            if let Node::Dir { live, .. } = &mut self.nodes[*dir] {
                set(live, name, *node);
            }
        }
        let waits = steps.iter().map(|s| s.0).collect();
        self.log.push(NameOp { steps, waits });
    }

    pub(super) fn names(&self, dir: NodeId) -> io::Result<&Names> {
        match &self.nodes[dir] {
            Node::Dir { live, .. } => Ok(live),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file(&mut self, id: NodeId) -> io::Result<&mut FileNode> {
        match &mut self.nodes[id] {
            Node::File(file) => Ok(file),
            Node::Dir { .. } => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Whether any folder names it.
    pub(super) fn has_name(&self, id: NodeId) -> bool {
        let names = |node: &Node| matches!(node, Node::Dir { live, .. } if live.values().any(|named| *named == id));
        self.nodes.iter().any(names)
    }

    pub(super) fn sync_dir(&mut self, dir: NodeId) {
        for op in &mut self.log {
            op.waits.remove(&dir);
        }
        let stable = self.log.iter().take_while(|op| op.waits.is_empty()).count();
        let ops: Vec<NameOp> = self.log.drain(..stable).collect();
        for op in ops {
            self.make_stable(&op);
        }
    }

    fn make_stable(&mut self, op: &NameOp) {
        for (dir, name, node) in &op.steps {
            if let Node::Dir { stable, .. } = &mut self.nodes[*dir] {
                set(stable, name, *node);
            }
        }
    }

    /// The power goes: of what was not synced any part may be left.
    pub(super) fn crash(&mut self, dice: &mut Dice) {
        let log = std::mem::take(&mut self.log);
        for op in log {
            if op.waits.is_empty() || dice.coin() {
                self.make_stable(&op);
            }
        }
        for node in &mut self.nodes {
            match node {
                Node::File(file) => file.crash(dice),
                Node::Dir { live, stable } => *live = stable.clone(),
            }
        }
    }

    /// Bytes of allocated blocks of everything that has a name.
    pub(super) fn used(&self) -> u64 {
        let mut seen = BTreeSet::new();
        let mut todo = vec![ROOT];
        let mut used = 0;
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            match &self.nodes[id] {
                Node::File(file) => used += file.allocated(),
                Node::Dir { live, .. } => todo.extend(live.values()),
            }
        }
        used
    }
}

pub(super) fn empty_dir() -> Node {
    Node::Dir { live: Names::new(), stable: Names::new() }
}

fn set(names: &mut Names, name: &str, node: Option<NodeId>) {
    match node {
        Some(node) => names.insert(name.to_owned(), node),
        None => names.remove(name),
    };
}

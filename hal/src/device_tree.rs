//! The live device tree: one directory per node, one file per property, raw bytes.
//!
//! Promises, whatever lies under the root that it is given:
//! - **D1** it comes to an end and holds a bounded amount of memory: links are not followed; depth, nodes, entries, the size of
//!   a property and the bytes that are kept of all of them together have limits;
//! - **D2** it never panics; what cannot be understood is a [`TreeError`] that names path and property;
//! - **D3** texts that it hands out are printable ASCII, so that a hostile tree cannot write to somebody's terminal.
//!
//! Reads only, and only the properties that somebody asks for. `/proc/device-tree` is the stable place (Linux
//! Documentation/ABI/testing/sysfs-firmware-ofw); the root is given by the caller.

mod lenses;
mod node;
mod overrides;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use lenses::{Attachment, BoardLens, Chip, Orientation, lenses};
pub use node::Node;
pub use overrides::{LensOverride, LensTree};

/// Where Linux shows the tree.
pub const LIVE: &str = "/proc/device-tree";

/// Nodes below nodes. The deepest trees of the kernel's sources have about ten levels.
const DEPTH: usize = 32;
/// Nodes in all. Large boards have some thousands.
const NODES: usize = 16_384;
/// Entries of all directories together, wanted or not.
const ENTRIES: usize = 524_288;
/// Bytes of one property.
const PROPERTY: u64 = 4096;
/// Bytes of all that is kept: values, names, paths and what holds them. The kernel's largest boards need less than one.
const BYTES: usize = 8 << 20;
/// What a node takes beside its path, and a property beside its name and value: a little more than was measured.
const NODE: usize = 128;
/// See [`NODE`].
const VALUE: usize = 192;

/// Properties that are read anywhere; below [`lenses::NODE`] every property is.
const WANTED: [&str; 7] = ["compatible", "model", "status", "phandle", "reg", "#address-cells", "#size-cells"];

/// Why a tree or a part of it cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// There is none, as on most PCs.
    #[error("no device tree at {0}")]
    Absent(PathBuf),
    /// The system refuses to show it.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// File or directory.
        path: String,
        /// The system's words.
        why: String,
    },
    /// More than any board has; a loop, a mistake or an attack.
    #[error("the device tree is not plausible at {path}: more than {limit} {what}")]
    TooLarge {
        /// Where the limit was passed.
        path: String,
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A property that does not hold what it must.
    #[error("device tree node {node}: property {property} {why}")]
    Property {
        /// Path of the node.
        node: String,
        /// Its name.
        property: String,
        /// What is wrong and what would be accepted.
        why: String,
    },
}

/// Who the machine says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The `model` text, if there is a readable one.
    pub model: Option<String>,
    /// The root's `compatible`, most specific first.
    pub compatible: Vec<String>,
}

/// Reads who the machine is: two small files, so that it costs nothing at start.
pub fn identity(root: &Path) -> Result<Identity, TreeError> {
    if !root.is_dir() {
        return Err(TreeError::Absent(root.to_owned()));
    }
    let mut properties = BTreeMap::new();
    for name in ["compatible", "model"] {
        let path = root.join(name);
        // Only a plain file: opening a pipe would wait for ever.
        if fs::symlink_metadata(&path).is_ok_and(|m| m.is_file()) {
            properties.insert(name.to_owned(), property(&path, name)?);
        }
    }
    let node = Node { path: "/".into(), properties, children: Vec::new() };
    let compatible = node.strings("compatible")?.unwrap_or_default();
    // A model that cannot be shown is no reason to run without the board's hardware.
    let model = node.string("model").ok().flatten();
    Ok(Identity { model, compatible })
}

/// Reads the tree, as far as MOS has a use for it.
pub fn read(root: &Path) -> Result<Node, TreeError> {
    if !root.is_dir() {
        return Err(TreeError::Absent(root.to_owned()));
    }
    let mut left = Left { nodes: NODES, entries: ENTRIES, bytes: BYTES };
    directory(root, "/", 0, false, &mut left)
}

/// What may still be read.
struct Left {
    nodes: usize,
    entries: usize,
    bytes: usize,
}

impl Left {
    /// Counts what is about to be kept.
    fn keep(&mut self, bytes: usize, path: &str) -> Result<(), TreeError> {
        let too_large = || TreeError::TooLarge { path: shown(path), what: "bytes in all", limit: BYTES as u64 };
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(too_large)?;
        Ok(())
    }
}

fn directory(dir: &Path, path: &str, depth: usize, all: bool, left: &mut Left) -> Result<Node, TreeError> {
    let too_large = |what, limit: usize| TreeError::TooLarge { path: shown(path), what, limit: limit as u64 };
    if depth > DEPTH {
        return Err(too_large("levels", DEPTH));
    }
    left.nodes = left.nodes.checked_sub(1).ok_or_else(|| too_large("nodes", NODES))?;
    left.keep(NODE + path.len(), path)?;
    let mut node = Node { path: shown(path), properties: BTreeMap::new(), children: Vec::new() };
    let entries = fs::read_dir(dir).map_err(|e| unreadable(path, &e))?;
    for entry in entries {
        let entry = entry.map_err(|e| unreadable(path, &e))?;
        left.entries = left.entries.checked_sub(1).ok_or_else(|| too_large("entries", ENTRIES))?;
        // Names that are no text belong to nothing that MOS reads.
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Of the entry itself: a link is neither file nor directory here.
        let kind = entry.file_type().map_err(|e| unreadable(path, &e))?;
        let inner = if path == "/" { format!("/{name}") } else { format!("{path}/{name}") };
        if kind.is_dir() {
            let all = all || (depth == 0 && name == lenses::NODE);
            node.children.push(directory(&entry.path(), &inner, depth + 1, all, left)?);
        } else if kind.is_file() && (all || WANTED.contains(&name.as_str())) {
            let bytes = property(&entry.path(), &inner)?;
            left.keep(VALUE + name.len() + bytes.len(), &inner)?;
            node.properties.insert(name, bytes);
        }
    }
    // The order of a directory is the file system's; the tree's is by unit address.
    node.children.sort_by(|a, b| a.order().cmp(&b.order()));
    Ok(node)
}

fn property(file: &Path, path: &str) -> Result<Vec<u8>, TreeError> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|f| f.take(PROPERTY + 1).read_to_end(&mut bytes));
    read.map_err(|e| unreadable(path, &e))?;
    if bytes.len() as u64 > PROPERTY {
        return Err(TreeError::TooLarge { path: shown(path), what: "bytes in a property", limit: PROPERTY });
    }
    Ok(bytes)
}

fn unreadable(path: &str, error: &io::Error) -> TreeError {
    TreeError::Unreadable { path: shown(path), why: error.to_string() }
}

/// A name from the tree as it may be shown (D3).
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

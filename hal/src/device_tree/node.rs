//! One node and what its properties mean (Devicetree Specification 0.4, section 2.2.4).
//!
//! Anybody may use it. Never trusts a length: every value is checked before it is taken apart.

use std::collections::BTreeMap;

use super::{TreeError, shown};

/// A node with the properties that were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// From the root, `/soc@0/bus@30800000`; the root is `/`.
    pub path: String,
    /// Raw values by name.
    pub properties: BTreeMap<String, Vec<u8>>,
    /// In order of their unit addresses.
    pub children: Vec<Node>,
}

impl Node {
    /// The last part of the path without its unit address.
    #[must_use]
    pub fn name(&self) -> &str {
        let last = self.path.rsplit('/').next().unwrap_or_default();
        last.split('@').next().unwrap_or_default()
    }

    /// Unit address, then path: how nodes are ordered.
    pub(super) fn order(&self) -> (u64, &str) {
        let unit = self.path.rsplit('/').next().and_then(|last| last.split_once('@'));
        let unit = unit.and_then(|(_, unit)| u64::from_str_radix(unit, 16).ok());
        (unit.unwrap_or(0), &self.path)
    }

    /// A child by its name without unit address.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|c| c.name() == name)
    }

    /// This node and all below it.
    pub fn walk(&self) -> impl Iterator<Item = &Node> {
        let mut waiting = vec![self];
        std::iter::from_fn(move || {
            let node = waiting.pop()?;
            waiting.extend(node.children.iter().rev());
            Some(node)
        })
    }

    /// The node that carries this `phandle`, with its parent.
    #[must_use]
    pub fn by_phandle(&self, phandle: u32) -> Option<(&Node, Option<&Node>)> {
        let has = |n: &Node| matches!(n.cell("phandle"), Ok(Some(p)) if p == phandle);
        if has(self) {
            return Some((self, None));
        }
        self.walk().find_map(|parent| Some((parent.children.iter().find(|c| has(c))?, Some(parent))))
    }

    /// Whether the node is in use: no `status`, `okay` or `ok`.
    #[must_use]
    pub fn enabled(&self) -> bool {
        match self.string("status") {
            Ok(status) => status.is_none_or(|s| s == "okay" || s == "ok"),
            Err(_) => false,
        }
    }

    /// A list of NUL-terminated strings.
    pub fn strings(&self, property: &str) -> Result<Option<Vec<String>>, TreeError> {
        let Some(bytes) = self.properties.get(property) else { return Ok(None) };
        let Some((0, texts)) = bytes.split_last() else {
            return Err(self.bad(property, "is no text: it must end with a NUL byte"));
        };
        let text = |bytes: &[u8]| {
            let printable = !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ');
            std::str::from_utf8(bytes).ok().filter(|_| printable).map(str::to_owned)
        };
        let texts: Option<Vec<String>> = texts.split(|b| *b == 0).map(text).collect();
        texts.map(Some).ok_or_else(|| self.bad(property, "is no text: it holds something else than printable ASCII"))
    }

    /// Exactly one NUL-terminated string.
    pub fn string(&self, property: &str) -> Result<Option<String>, TreeError> {
        let Some(mut texts) = self.strings(property)? else { return Ok(None) };
        match (texts.pop(), texts.is_empty()) {
            (Some(text), true) => Ok(Some(text)),
            _ => Err(self.bad(property, "must be one text, not a list")),
        }
    }

    /// Big-endian 32-bit cells.
    pub fn cells(&self, property: &str) -> Result<Option<Vec<u32>>, TreeError> {
        let Some(bytes) = self.properties.get(property) else { return Ok(None) };
        let (cells, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(self.bad(property, &format!("is cut off: {} bytes are no whole cells of 4", bytes.len())));
        }
        Ok(Some(cells.iter().map(|c| u32::from_be_bytes(*c)).collect()))
    }

    /// Exactly one cell.
    pub fn cell(&self, property: &str) -> Result<Option<u32>, TreeError> {
        match self.cells(property)?.as_deref() {
            None => Ok(None),
            Some([cell]) => Ok(Some(*cell)),
            Some(other) => Err(self.bad(property, &format!("must be one cell, not {}", other.len()))),
        }
    }

    /// An error about a property of this node.
    #[must_use]
    pub fn bad(&self, property: &str, why: &str) -> TreeError {
        TreeError::Property { node: self.path.clone(), property: shown(property), why: why.to_owned() }
    }
}

//! What the archive's chains must at least hold, kept beside the key and signed by it: for each lens the present file of its
//! chain, how many links are in it, and the last one's head.
//!
//! Promise (G1): whoever shortens or replaces a chain, and cannot write where the key lies, is noticed by the next start, and no
//! segment of that run is said to be intact by a link that is made then. Losing this file costs only that: links that are made
//! later are told as old.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::chain::{Chain, Tail};
use super::digest::Hash;
use super::key::{DeviceKey, is_signed, write_private};

/// A lens and run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) lens: String,
    pub(super) run: u32,
    /// The file.
    pub(super) part: u32,
    /// Links in it.
    pub(super) links: u32,
    /// The head of the last one.
    pub(super) head: Hash,
}

impl Row {
    pub(super) fn new(lens: &str, run: u32, tail: &Tail) -> Self {
        Self { lens: lens.to_owned(), run, part: tail.part, links: tail.links, head: tail.head }
    }

    /// Whether a file of the chain holds all that it must; more may be there.
    pub(super) fn agrees(&self, chain: &Chain) -> bool {
        let Some(last) = self.links.checked_sub(1) else { return chain.broken.is_none() || chain.torn };
        chain.links.get(last as usize).is_some_and(|link| link.head == self.head)
    }
}

#[derive(Serialize, Deserialize)]
struct Signed {
    rows: Vec<Row>,
    signature: String,
}

/// The rows, and their file.
pub(super) struct Ledger {
    path: PathBuf,
    rows: Vec<Row>,
    changed: bool,
}

fn text(rows: &[Row]) -> Vec<u8> {
    // Numbers and texts only: this cannot fail.
    [b"mos-ledger-1\n", serde_json::to_vec(rows).unwrap_or_default().as_slice()].concat()
}

impl Ledger {
    /// Its file: the key's name and `.links`.
    pub(super) fn path(key_file: &Path) -> PathBuf {
        let mut name = key_file.as_os_str().to_owned();
        name.push(".links");
        name.into()
    }

    /// Reads what lies beside the key; what is wrong with it, if anything, and then no rows.
    pub(super) fn load(key_file: &Path, key: &DeviceKey) -> (Self, Option<String>) {
        let path = Self::path(key_file);
        let (rows, trouble) = match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<Signed>(&bytes) {
                Ok(signed) if is_signed(&key.public(), &text(&signed.rows), &signed.signature) => (signed.rows, None),
                _ => (Vec::new(), Some("it is not what this key signed".to_owned())),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => (Vec::new(), None),
            Err(e) => (Vec::new(), Some(e.to_string())),
        };
        let trouble = trouble.map(|why| format!("{}: {why}; what is linked late is told as old", path.display()));
        (Self { path, rows, changed: false }, trouble)
    }

    /// What a chain must hold.
    pub(super) fn row(&self, lens: &str, run: u32) -> Option<&Row> {
        self.rows.iter().find(|row| row.lens == lens && row.run == run)
    }

    /// Sets what the chain of a lens and run holds.
    pub(super) fn set(&mut self, row: Row) {
        match self.rows.iter_mut().find(|known| known.lens == row.lens && known.run == row.run) {
            Some(known) if *known == row => return,
            Some(known) => *known = row,
            None => self.rows.push(row),
        }
        self.changed = true;
    }

    /// Forgets what was looked through.
    pub(super) fn forget(&mut self, gone: impl Fn(&Row) -> bool) {
        let before = self.rows.len();
        self.rows.retain(|row| !gone(row));
        self.changed |= self.rows.len() < before;
    }

    /// Makes changes durable, if there are any.
    pub(super) fn write(&mut self, key: &DeviceKey) -> std::io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let signature = key.sign(&text(&self.rows));
        let signed = Signed { rows: self.rows.clone(), signature };
        write_private(&self.path, &serde_json::to_vec(&signed)?)?;
        self.changed = false;
        Ok(())
    }
}

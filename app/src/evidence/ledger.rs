//! What the archive's chains must at least hold, kept beside the key and signed by it: for each lens and run the last file of its
//! chain, how many links are in it, and the last one's head. Runs that a start has looked through are kept in a file of their own,
//! which is written at starts only.
//!
//! Promise (G1): whoever shortens or replaces a chain, and cannot write where the key lies, is noticed by the next start, and no
//! segment of that run is said to be intact by a link that is made then. The last file vouches for those before it: each follows
//! the one before (`joints`), so that one row guards the whole run. Losing these files costs only that: links that are made later
//! are told as old.

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

/// One file of rows.
struct File {
    path: PathBuf,
    /// What is signed before them, so that neither file passes for the other.
    kind: &'static str,
    rows: Vec<Row>,
    changed: bool,
    /// The disk does not give it.
    unread: bool,
}

/// What chains must hold: those that are written to, and those of runs that were looked through.
pub(super) struct Ledger {
    now: File,
    past: File,
}

impl File {
    fn load(key_file: &Path, (suffix, kind): (&str, &'static str), key: &DeviceKey) -> (Self, Option<String>) {
        let path = beside(key_file, suffix);
        let read = std::fs::read(&path);
        let unread = read.as_ref().is_err_and(|e| e.kind() != std::io::ErrorKind::NotFound);
        let (rows, trouble) = match read {
            Ok(bytes) => match serde_json::from_slice::<Signed>(&bytes) {
                Ok(signed) if is_signed(&key.public(), &text(kind, &signed.rows), &signed.signature) => {
                    (signed.rows, None)
                }
                _ => (Vec::new(), Some("it is not what this key signed".to_owned())),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => (Vec::new(), None),
            Err(e) => (Vec::new(), Some(e.to_string())),
        };
        let trouble = trouble.map(|why| format!("{}: {why}; what is linked late is told as old", path.display()));
        (Self { path, kind, rows, changed: false, unread }, trouble)
    }

    fn find(&self, lens: &str, run: u32) -> Option<&Row> {
        self.rows.iter().find(|row| row.lens == lens && row.run == run)
    }

    fn set(&mut self, row: Row) {
        match self.rows.iter_mut().find(|known| known.lens == row.lens && known.run == row.run) {
            Some(known) if *known == row => return,
            Some(known) => *known = row,
            None => self.rows.push(row),
        }
        self.changed = true;
    }

    fn retain(&mut self, keep: impl Fn(&Row) -> bool) {
        let before = self.rows.len();
        self.rows.retain(keep);
        self.changed |= self.rows.len() < before;
    }

    fn write(&mut self, key: &DeviceKey) -> std::io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let signature = key.sign(&text(self.kind, &self.rows));
        let signed = Signed { rows: self.rows.clone(), signature };
        write_private(&self.path, &serde_json::to_vec(&signed)?)?;
        self.changed = false;
        Ok(())
    }
}

fn beside(key_file: &Path, suffix: &str) -> PathBuf {
    let mut name = key_file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn text(kind: &str, rows: &[Row]) -> Vec<u8> {
    // Numbers and texts only: this cannot fail.
    [kind.as_bytes(), serde_json::to_vec(rows).unwrap_or_default().as_slice()].concat()
}

impl Ledger {
    /// The file that is written to: the key's name and `.links`.
    pub(super) fn path(key_file: &Path) -> PathBuf {
        beside(key_file, ".links")
    }

    /// Reads what lies beside the key; what is wrong with it, if anything, and then no rows.
    pub(super) fn load(key_file: &Path, key: &DeviceKey) -> (Self, Option<String>) {
        let (now, trouble) = File::load(key_file, (".links", "mos-ledger-1\n"), key);
        let (past, of_past) = File::load(key_file, (".past-links", "mos-ledger-past-1\n"), key);
        (Self { now, past }, trouble.or(of_past))
    }

    /// Whether the disk does not give all of it: it may be given later, if nothing is written before.
    pub(super) fn is_unread(&self) -> bool {
        self.now.unread || self.past.unread
    }

    /// What the chain of a run must hold that no later start has looked through.
    pub(super) fn row(&self, lens: &str, run: u32) -> Option<&Row> {
        self.now.find(lens, run)
    }

    /// What the chain of a run must hold that was looked through.
    pub(super) fn past_row(&self, lens: &str, run: u32) -> Option<&Row> {
        self.past.find(lens, run)
    }

    /// Sets what the chain of a lens and run holds.
    pub(super) fn set(&mut self, row: Row) {
        self.now.set(row);
    }

    /// A run was looked through, and this is what its chain holds; nothing, if it has none that is whole. Of one that is harmed
    /// less is never taken for all that there was: else who harms it once more is told no more.
    pub(super) fn looked_through(&mut self, lens: &str, run: u32, row: Option<Row>, harmed: bool) {
        let known = self.now.find(lens, run).or_else(|| self.past.find(lens, run)).cloned();
        let is_less = |row: &Row| known.as_ref().is_some_and(|known| (row.part, row.links) < (known.part, known.links));
        if let Some(row) = row.filter(|row| !(harmed && is_less(row))).or(known) {
            self.past.set(row);
        }
        self.now.retain(|row| row.lens != lens || row.run != run);
    }

    /// Forgets runs that are gone.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&Row) -> bool) {
        self.now.retain(|row| !is_gone(row));
        self.past.retain(|row| !is_gone(row));
    }

    /// Makes changes durable, if there are any.
    pub(super) fn write(&mut self, key: &DeviceKey) -> std::io::Result<()> {
        // What leaves the one is in the other by then.
        self.past.write(key)?;
        self.now.write(key)
    }
}

//! Whether the parts of a chain follow one another, back to where it begins.
//!
//! Promises:
//! - T1: a part whose links were dropped, altered or moved is told by every part behind it: its first link follows the last one that
//!   was there when it was made. Only links of later starts may stand behind that one.
//! - T2: a part that went with its segments is no harm: what it tied together is noted, and signed, before its file goes
//!   (`evidence/{lens}/{run}-gone.json`). Parts that hang together are one entry, so the note does not grow with a long run.
//!
//! Nothing that is read is trusted: a note that another key signed, or none, counts as none, and no number makes it look for parts
//! without end.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use mos_hal::media::LensId;
use serde::{Deserialize, Serialize};

use super::chain::{Chain, FOLDER, Made, load, parse_name, part_of, root};
use super::digest::Hash;
use super::key::{DeviceKey, is_signed};
use crate::archive::disk::Disk;
use crate::archive::error::ArchiveError;
use crate::archive::ids::RunId;
use crate::archive::run::{read_whole, write_whole};

/// So many parts that were never made are looked for: weeks of a full disk, which takes numbers and no segments.
const MOST_ABSENT: u32 = 1 << 18;

/// Where parts of a chain do not hang together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    /// A part is not there; which.
    #[error("{0}")]
    Missing(String),
    /// Something else stands where links were; where.
    #[error("{0}")]
    Altered(String),
    /// A part cannot be read, which says nothing of it; which, and why.
    #[error("{0}")]
    Unread(String),
}

/// Parts that went with their segments, from the first to the last of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Went {
    from: u32,
    to: u32,
    /// What the first link of them followed.
    follows: Hash,
    /// What the next part may follow: the last link that was made when its segment was closed, and those behind it.
    ends: Vec<Hash>,
    /// Nothing of them was linked when its segment was closed: they stand beside the chain, and what was recorded later may follow
    /// what was before them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    beside: bool,
}

impl Went {
    /// With those that follow it.
    fn joined(self, behind: Self) -> Self {
        let mut ends = behind.ends;
        if behind.beside && !self.beside {
            ends.splice(0..0, self.ends.first().copied());
        }
        Self { to: behind.to, ends, beside: self.beside && behind.beside, ..self }
    }
}

/// What went of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gone(Vec<Went>);

#[derive(Serialize, Deserialize)]
struct Signed {
    gone: Vec<Went>,
    key: String,
    signature: String,
}

fn text(lens: &str, run: u32, gone: &[Went]) -> Vec<u8> {
    // Numbers and texts only: this cannot fail.
    [format!("mos-gone-1\n{lens}\n{run}\n").as_bytes(), &serde_json::to_vec(gone).unwrap_or_default()].concat()
}

/// Name of the note, beside the parts.
#[must_use]
pub fn gone_name(run: u32) -> String {
    format!("{run}-gone.json")
}

/// The run of such a name.
pub(super) fn run_of(name: &str) -> Option<u32> {
    crate::archive::ids::number(name.strip_suffix("-gone.json")?)
}

pub(super) fn gone_path(lens: &LensId, run: RunId) -> PathBuf {
    Path::new(FOLDER).join(lens.as_str()).join(gone_name(run.0))
}

impl Gone {
    /// Reads a note; nothing unless `key` signed it.
    #[must_use]
    pub fn read(lens: &str, run: u32, bytes: &[u8], key: &str) -> Self {
        let signed = serde_json::from_slice::<Signed>(bytes).ok();
        let signed = signed.filter(|s| s.key == key && is_signed(key, &text(lens, run, &s.gone), &s.signature));
        Self(signed.map(|signed| signed.gone).unwrap_or_default())
    }

    /// The note of a run, if `key` signed it.
    pub(super) fn load(disk: &dyn Disk, lens: &LensId, run: RunId, key: &str) -> std::io::Result<Self> {
        match read_whole(disk, &gone_path(lens, run)) {
            Ok(bytes) => Ok(Self::read(lens.as_str(), run.0, &bytes, key)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e),
        }
    }

    /// The same; none if there is a note that this key did not sign, or that cannot be read: it must stay.
    pub(super) fn own(disk: &dyn Disk, lens: &LensId, run: RunId, key: &DeviceKey) -> Option<Self> {
        let gone = Self::load(disk, lens, run, &key.public()).ok()?;
        (!gone.0.is_empty() || disk.size(&gone_path(lens, run)).is_err()).then_some(gone)
    }

    /// Whether a part went with its segments whose last link had this head.
    pub(super) fn vouches(&self, part: u32, head: Hash) -> bool {
        self.of(part).is_some_and(|went| went.to > part || went.ends.contains(&head))
    }

    /// Durable on return.
    pub(super) fn write(
        &self,
        disk: &dyn Disk,
        lens: &LensId,
        run: RunId,
        key: &DeviceKey,
    ) -> Result<(), ArchiveError> {
        let signature = key.sign(&text(lens.as_str(), run.0, &self.0));
        let signed = Signed { gone: self.0.clone(), key: key.public(), signature };
        let path = gone_path(lens, run);
        // Numbers and texts only: this cannot fail.
        write_whole(disk, &path.with_extension("tmp"), &path, &serde_json::to_vec(&signed).unwrap_or_default())
    }

    fn of(&self, part: u32) -> Option<&Went> {
        self.0.iter().find(|went| went.from <= part && part <= went.to)
    }

    /// Notes a part that is about to go; whether it was none before. A part in which something is wrong is not noted: that it
    /// is missing is to be told.
    pub(super) fn add(&mut self, part: u32, chain: &Chain) -> bool {
        let Some(first) = chain.links.first() else { return false };
        let is_whole = chain.broken.is_none() || chain.torn;
        if self.of(part).is_some() || !is_whole || part_of(first.segment.seq) != part {
            return false;
        }
        let closed = chain.links.iter().rposition(|link| link.made == Made::Closed);
        let ends = chain.links[closed.unwrap_or(0)..].iter().map(|link| link.head).collect();
        let mut fresh = Went { from: part, to: part, follows: first.before, ends, beside: closed.is_none() };
        // Neighbours only: what lies between others may still be there, and follow the former.
        let before = |went: &Went| went.to.checked_add(1) == Some(fresh.from) && went.ends.contains(&fresh.follows);
        if let Some(at) = self.0.iter().position(before) {
            fresh = self.0.remove(at).joined(fresh);
        }
        let behind = |fresh: &Went, went: &Went| {
            fresh.to.checked_add(1) == Some(went.from) && fresh.ends.contains(&went.follows)
        };
        while let Some(at) = self.0.iter().position(|went| behind(&fresh, went)) {
            fresh = fresh.joined(self.0.remove(at));
        }
        self.0.push(fresh);
        self.0.sort_unstable_by_key(|went| went.from);
        true
    }
}

/// What was found of the part and the link that its first one follows.
pub(super) type Traced = HashMap<(u32, Hash), Result<(), Break>>;

/// Follows a chain from a part, whose first link follows `before`, back to where it begins, or to where it was followed already. (T1)
pub(super) fn trace<C: Borrow<Chain>>(
    whose: (&str, u32),
    from: (u32, Hash),
    gone: &Gone,
    traced: &mut Traced,
    mut read: impl FnMut(u32) -> std::io::Result<C>,
) -> Result<(), Break> {
    let (mut at, mut passed) = (from, Vec::new());
    let found = loop {
        if let Some(known) = traced.get(&at) {
            break known.clone();
        }
        passed.push(at);
        match step_back(whose, at.0, at.1, gone, &mut read) {
            Ok(Some(next)) => at = next,
            Ok(None) => break Ok(()),
            Err(why) => break Err(why),
        }
    };
    // What could not be read may be read the next time.
    if !matches!(found, Err(Break::Unread(_))) {
        traced.extend(passed.into_iter().map(|at| (at, found.clone())));
    }
    found
}

/// The part that holds the link `before`, which the first one of `part` follows, and what its own first link follows; none where
/// the chain begins.
pub(super) fn step_back<C: Borrow<Chain>>(
    (lens, run): (&str, u32),
    part: u32,
    before: Hash,
    gone: &Gone,
    mut read: impl FnMut(u32) -> std::io::Result<C>,
) -> Result<Option<(u32, Hash)>, Break> {
    let (mut at, mut absent, mut looked) = (part, None, 0);
    while let Some(next) = at.checked_sub(1).filter(|_| looked < MOST_ABSENT) {
        at = next;
        let chain = read(at).map_err(|e| Break::Unread(format!("{run}-{at}.jsonl: {e}")))?;
        let chain: &Chain = chain.borrow();
        if let Some((line, why)) = chain.broken.filter(|_| !chain.torn) {
            return Err(Break::Altered(format!("line {line} of {run}-{at}.jsonl: {why}")));
        }
        let Some(first) = chain.links.first() else {
            match gone.of(at) {
                Some(went) if went.ends.contains(&before) => return Ok(Some((went.from, went.follows))),
                Some(went) => at = went.from,
                // There may never have been one: no segment of these numbers was linked.
                None => (absent, looked) = (absent.or(Some(at)), looked + 1),
            }
            continue;
        };
        if part_of(first.segment.seq) != at {
            return Err(Break::Altered(format!("{run}-{at}.jsonl holds links of another part")));
        }
        match chain.links.iter().rposition(|link| link.head == before) {
            Some(n) if chain.links[n + 1..].iter().all(|link| link.made != Made::Closed) => {
                return Ok(Some((at, first.before)));
            }
            // Made by a later start, beside the chain.
            None if chain.links.iter().all(|link| link.made == Made::Old) => {}
            _ => {
                if let Some(absent) = absent {
                    return Err(missing(run, part, absent));
                }
                let why = format!("{run}-{part}.jsonl does not follow the last link of {run}-{at}.jsonl");
                return Err(Break::Altered(why));
            }
        }
    }
    match absent {
        _ if before == root(lens, run) => Ok(None),
        Some(absent) => Err(missing(run, part, absent)),
        None => Err(Break::Altered(format!("what {run}-{part}.jsonl follows is nowhere in the chain"))),
    }
}

fn missing(run: u32, part: u32, absent: u32) -> Break {
    Break::Missing(format!(
        "{run}-{absent}.jsonl, before {run}-{part}.jsonl, is missing, and nothing that this device signed says that it went with \
         its segments"
    ))
}

/// What the first link of a part follows that has none yet: the last one before it.
pub(super) fn beginning(disk: &dyn Disk, lens: &LensId, run: RunId, part: u32, gone: &Gone) -> std::io::Result<Hash> {
    let names = match disk.read_dir(&Path::new(FOLDER).join(lens.as_str())) {
        Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
        names => names?,
    };
    let there = names.iter().filter_map(|e| parse_name(&e.name)).filter(|(of, _)| *of == run.0).map(|(_, part)| part);
    let known: BTreeSet<u32> = there.chain(gone.0.iter().map(|went| went.to)).collect();
    for before in known.range(..part).rev().copied() {
        let last = load(disk, lens, run, before)?.links.last().map(|link| link.head);
        if let Some(last) = last.or_else(|| gone.of(before).and_then(|went| went.ends.last().copied())) {
            return Ok(last);
        }
    }
    Ok(root(lens.as_str(), run.0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::chain::{Link, PART};
    use super::super::digest::Name;
    use super::*;

    fn key() -> DeviceKey {
        DeviceKey::load(&tempfile::tempdir().unwrap().path().join("device.key")).unwrap()
    }

    fn link(seq: u32, before: Hash, made: Made, key: &DeviceKey) -> Link {
        let name = Name { lens: "road".into(), run: 3, seq, boot: "01".into(), mono_start: 0, utc: None };
        Link::new(name, Hash::of(&[b"shape"]), Vec::new(), (before, made), key)
    }

    fn chain(links: Vec<Link>) -> Chain {
        Chain { links, ..Chain::default() }
    }

    /// Four parts of three links, one after another.
    fn parts(key: &DeviceKey) -> Vec<Chain> {
        let mut head = root("road", 3);
        let mut part = |n: u32| {
            let links = (0..3).map(|i| {
                let link = link(n * PART + i, head, Made::Closed, key);
                head = link.head;
                link
            });
            chain(links.collect())
        };
        (0..4).map(&mut part).collect()
    }

    /// From the last part back.
    fn traced(parts: &[Chain], gone: &Gone) -> Result<(), Break> {
        let last = parts.len() - 1;
        let read = |part: u32| Ok(parts[part as usize].clone());
        trace(("road", 3), (last as u32, parts[last].links[0].before), gone, &mut Traced::default(), read)
    }

    #[test]
    fn t1_a_part_that_is_dropped_altered_or_moved_is_told_by_those_behind_it() {
        let key = key();
        let whole = parts(&key);
        let none = Gone::default();
        assert_eq!(traced(&whole, &none), Ok(()));
        for n in 0..3 {
            let harmed = |harm: &dyn Fn(&mut Chain)| {
                let mut parts = whole.clone();
                harm(&mut parts[n]);
                traced(&parts, &none)
            };
            let dropped = harmed(&|part| part.links.clear());
            assert!(
                matches!(&dropped, Err(Break::Missing(why)) if why.contains(&format!("3-{n}.jsonl"))),
                "{dropped:?}"
            );
            let altered =
                |broken: Result<(), Break>| assert!(matches!(broken, Err(Break::Altered(_))), "{n}: {broken:?}");
            altered(harmed(&|part| drop(part.links.pop())));
            altered(harmed(&|part| part.broken = Some((2, "it cannot be read"))));
            altered(harmed(&|part| *part = whole[(n + 1) % 3].clone()));
            // Linked anew by a later start, after its segments were altered: sound in itself, but not what was there.
            let before = n.checked_sub(1).map_or(root("road", 3), |n| whole[n].links[2].head);
            let anew = chain(vec![link(n as u32 * PART, before, Made::Old, &key)]);
            altered(harmed(&|part| *part = anew.clone()));
            // What a later start links behind the last one is no harm; what was closed there would be.
            let more = |made| link(n as u32 * PART + 9, whole[n].links[2].head, made, &key);
            assert_eq!(harmed(&|part| part.links.push(more(Made::Old))), Ok(()));
            altered(harmed(&|part| part.links.push(more(Made::Closed))));
        }
    }

    #[test]
    fn t1_a_part_that_was_linked_late_beside_the_chain_is_no_harm() {
        let key = key();
        let mut parts = parts(&key);
        // None of its segments could be read while it was recorded, so that the next part follows the one before.
        let head = parts[0].links[2].head;
        parts[1].links.clear();
        let first = link(2 * PART, head, Made::Closed, &key);
        parts[2] = chain(vec![first.clone()]);
        parts[3] = chain(vec![link(3 * PART, first.head, Made::Closed, &key)]);
        assert_eq!(traced(&parts, &Gone::default()), Ok(()));
        parts[1] = chain(vec![link(PART, head, Made::Old, &key)]);
        assert_eq!(traced(&parts, &Gone::default()), Ok(()));
    }

    #[test]
    fn what_cannot_be_read_says_nothing_of_a_chain() {
        let read = |_| Err::<Chain, _>(std::io::Error::other("busy"));
        let traced = trace(("road", 3), (1, Hash::of(&[b"head"])), &Gone::default(), &mut Traced::default(), read);
        assert!(matches!(&traced, Err(Break::Unread(why)) if why.contains("3-0.jsonl")), "{traced:?}");
        // Nor is anything linked behind what is before it.
        let folder = tempfile::tempdir().unwrap();
        let disk = crate::archive::disk::RealDisk::open(folder.path()).unwrap();
        std::fs::create_dir_all(folder.path().join("evidence/road")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("evidence/road/3-1.jsonl")).unwrap();
        let road = LensId::new("road").unwrap();
        let begins = |part| beginning(&disk, &road, RunId(3), part, &Gone::default());
        assert_eq!(begins(1).unwrap(), root("road", 3));
        assert!(begins(2).is_err() && begins(3).is_err());
    }

    #[test]
    fn no_number_makes_it_look_for_parts_without_end() {
        let mut looked = 0;
        let read = |_| {
            looked += 1;
            Ok(Chain::default())
        };
        let from = (u32::MAX / PART, Hash::of(&[b"head"]));
        let traced = trace(("road", 3), from, &Gone::default(), &mut Traced::default(), read);
        assert!(matches!(traced, Err(Break::Missing(_))), "{traced:?}");
        assert_eq!(looked, MOST_ABSENT);
    }

    #[test]
    fn t2_what_went_with_its_segments_is_vouched_for_in_one_entry() {
        let key = key();
        let whole = parts(&key);
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let (mut gone, mut parts) = (Gone::default(), whole.clone());
            for n in order {
                assert!(gone.add(n, &whole[n as usize]));
                parts[n as usize].links.clear();
                assert_eq!(traced(&parts, &gone), Ok(()), "{order:?}, {n}");
                assert!(!gone.add(n, &whole[n as usize]), "known");
            }
            assert_eq!((gone.0.len(), gone.0[0].from, gone.0[0].to), (1, 0, 2));
            let signed =
                Signed { gone: gone.0.clone(), key: key.public(), signature: key.sign(&text("road", 3, &gone.0)) };
            let bytes = serde_json::to_vec(&signed).unwrap();
            assert_eq!(Gone::read("road", 3, &bytes, &key.public()), gone);
            for (lens, run, key) in
                [("cabin", 3, key.public()), ("road", 4, key.public()), ("road", 3, "ed25519:A".into())]
            {
                assert_eq!(Gone::read(lens, run, &bytes, &key), Gone::default());
            }
        }
        // What was linked late beside the chain goes as well, before or after those around it.
        let late = {
            let head = whole[0].links[2].head;
            let [first, next] = [(2, head), (3, link(2 * PART, head, Made::Closed, &key).head)]
                .map(|(part, before)| chain(vec![link(part * PART, before, Made::Closed, &key)]));
            [whole[0].clone(), chain(vec![link(PART, head, Made::Old, &key)]), first, next]
        };
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let (mut gone, mut parts) = (Gone::default(), late.clone());
            for n in order {
                assert!(gone.add(n, &late[n as usize]));
                parts[n as usize].links.clear();
                for (last, _) in parts.iter().enumerate().filter(|(_, part)| !part.links.is_empty()) {
                    assert_eq!(traced(&parts[..=last], &gone), Ok(()), "{order:?}, {n}, from {last}");
                }
            }
            assert_eq!(gone.0.len(), 1, "{order:?}");
        }
        // What is harmed, or another part's, is not vouched for.
        let harmed = Chain { broken: Some((2, "it cannot be read")), ..whole[1].clone() };
        assert!(!Gone::default().add(1, &harmed) && !Gone::default().add(2, &whole[1]));
    }
}

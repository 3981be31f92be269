//! Judging a clip or a segment without the machine that recorded it.
//!
//! Promises: (J1) `intact` is said only when every byte of media is that of a unit in a signed chain; (J2) what differs is told
//! with its place; (J3) nothing that is read is trusted: any file and any manifest give a verdict, never a panic; (J4) a segment is
//! `intact` in its archive only if its chain hangs together back to where its run began, and every link on the way is signed: a head
//! says nothing of the signatures before it, so each of them is checked. That costs a signature for each segment of the run before,
//! once for all segments that are judged together (`judged.rs`).

use std::fmt;

use mos_mp4::{ReadAt, SegmentFile, State, VIDEO_TIMESCALE, Verify};

use super::chain::{Made, older_name, part_of};
use super::digest::{self, Name, Unit, block, blocks, hash_at};
use super::joints::Break;
use super::judged::Judged;
use super::manifest::{FORMAT, Proof, Signed};

/// Most places that are listed.
const MOST_PLACES: usize = 20;
/// The video track of every segment.
const VIDEO_TRACK: u32 = 1;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it was recorded, signed by this key; of the segments some may have been linked by a later start.
    Intact {
        /// The public key.
        key: String,
        /// Segments that a later start linked, after a power cut or crash.
        later: Vec<String>,
    },
    /// As it was when it was linked, signed by this key, but that was long after it was recorded: nothing attests the time before.
    Late {
        /// The public key.
        key: String,
        /// Those segments.
        segments: Vec<String>,
    },
    /// Something else is where footage was; where.
    Tampered(Vec<String>),
    /// What is there is as recorded, but some is missing; what.
    Incomplete(Vec<String>),
    /// Nothing attests it; why.
    Unlinked(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intact { key, later } => {
                write!(f, "intact, signed by {key}")?;
                if later.is_empty() { Ok(()) } else { write!(f, "; linked by a later start: {}", later.join(", ")) }
            }
            Self::Late { key, segments } => {
                let which = segments.join(", ");
                write!(
                    f,
                    "late: unchanged since {which} got a link, signed by {key}, but nothing attests the time before"
                )
            }
            Self::Tampered(places) => write!(f, "tampered: {}", places.join("; ")),
            Self::Incomplete(places) => write!(f, "incomplete: {}", places.join("; ")),
            Self::Unlinked(why) => write!(f, "unlinked: {why}"),
        }
    }
}

fn tampered(place: impl Into<String>) -> Verdict {
    Verdict::Tampered(vec![place.into()])
}

/// Whether the key is the one that is expected, if one is.
fn expected(found: &str, key: Option<&str>) -> Result<(), Verdict> {
    match key {
        Some(key) if key != found => Err(tampered(format!("signed by {found}, not by {key}"))),
        _ => Ok(()),
    }
}

/// Gives the contents of a file by its name; empty if there is none.
pub type ByName<'a> = dyn Fn(&str) -> std::io::Result<Vec<u8>> + 'a;

/// Judges a segment by its part of the chain of its run; by the whole chain if what lies beside that part is at hand (J4). The
/// segments of an archive share what was `judged` of its chains.
#[must_use]
pub fn segment(
    file: &dyn ReadAt,
    chain: &[u8],
    beside: Option<&ByName<'_>>,
    key: Option<&str>,
    judged: &mut Judged,
) -> Verdict {
    let content = match SegmentFile::read(file, Verify::Structure) {
        Ok(content) => content,
        Err(e) => return tampered(format!("the file cannot be read as a segment: {e}")),
    };
    let name = Name::of(&content.identity);
    let whose = (name.lens.as_str(), name.run);
    let chain = judged.part(whose, chain);
    let Some(link) = chain.of(name.seq) else {
        let older = older_name(name.run);
        let has_older = || beside.is_some_and(|read| read(&older).is_ok_and(|text| !text.is_empty()));
        return match chain.broken {
            Some((line, why)) if chain.older => Verdict::Unlinked(format!("line {line} of the chain: {why}")),
            Some((line, why)) if !chain.torn => tampered(format!("line {line} of the chain: {why}")),
            None if chain.links.is_empty() && has_older() => Verdict::Unlinked(format!(
                "its run has only {older}, a chain of an older form, by which this version does not judge; the next start of \
                 the recorder links {name} anew, as late"
            )),
            _ => Verdict::Unlinked(format!(
                "{name} is not in the chain: still recorded, or its run ended by a power cut"
            )),
        };
    };
    if let Err(verdict) = expected(&link.key, key) {
        return verdict;
    }
    if link.segment != name {
        let theirs = &link.segment;
        let what = format!("{name}, boot {}, started at {} ns, UTC {:?}", name.boot, name.mono_start, name.utc);
        return tampered(format!("the file says that it is {what}, the chain that it is {theirs:?}"));
    }
    let joined = match (beside, chain.links.first()) {
        (Some(read), Some(first)) => judged.hangs_together(whose, &link.key, (part_of(name.seq), first.before), read),
        _ => Ok(()),
    };
    let found = match blocks(file, &content.movie) {
        Ok(found) => found,
        Err(e) => return Verdict::Incomplete(vec![format!("the file cannot be read to its end: {e}")]),
    };
    // Read by its fragments, for its end is lost: the last block there may end early and cannot be judged.
    let torn = content.state != State::Closed;
    let (mut wrong, mut missing) = (Vec::new(), Vec::new());
    match joined {
        Ok(()) => {}
        Err(Break::Altered(why)) => wrong.push(format!("the chain before it: {why}")),
        Err(Break::Missing(why)) => missing.push(format!("the chain before it: {why}")),
        Err(Break::Unread(why)) => missing.push(format!("the chain before it cannot be read: {why}")),
    }
    for (number, digest) in link.blocks.iter().enumerate() {
        match found.get(number) {
            None => missing.push(format!("block {number} of {}", link.blocks.len())),
            Some(units) if block(units) == *digest => {}
            Some(units) => {
                let end = units.last().map_or(0, Unit::end);
                let ends_early = end > file.len().unwrap_or(0) || (torn && number + 1 == found.len());
                let list = if ends_early { &mut missing } else { &mut wrong };
                list.push(format!("block {number}, {}", span(units)));
            }
        }
    }
    if found.len() > link.blocks.len() {
        wrong.push(format!("{} blocks more than were recorded", found.len() - link.blocks.len()));
    }
    match digest::shape(file, &content) {
        Ok(Some(shape)) if shape != link.shape => wrong.push(format!(
            "bytes {} to {}, the boxes that say how it is shown (edit lists, time scales, codecs, sizes)",
            content.end, content.used
        )),
        Ok(_) => {}
        Err(e) => missing.push(format!("the boxes that say how it is shown cannot be read: {e}")),
    }
    if torn {
        missing.push("the boxes at its end, which say how it is shown".to_owned());
    } else if content.file_len > content.used {
        wrong.push(format!("bytes {} to {}, which were added", content.used, content.file_len));
    }
    verdict(wrong, missing, link.key.clone(), std::iter::once((name.to_string(), link.made)))
}

fn verdict(
    mut wrong: Vec<String>,
    mut missing: Vec<String>,
    key: String,
    links: impl Iterator<Item = (String, Made)>,
) -> Verdict {
    wrong.truncate(MOST_PLACES);
    missing.truncate(MOST_PLACES);
    match (wrong.is_empty(), missing.is_empty()) {
        (true, true) => {}
        (true, false) => return Verdict::Incomplete(missing),
        (false, _) => return Verdict::Tampered(wrong),
    }
    let (mut later, mut old) = (Vec::new(), Vec::new());
    for (segment, made) in links {
        match made {
            Made::Closed => {}
            Made::Later => later.push(segment),
            Made::Old => old.push(segment),
        }
    }
    if old.is_empty() { Verdict::Intact { key, later } } else { Verdict::Late { key, segments: old } }
}

/// Where units are, for people.
fn span(units: &[Unit]) -> String {
    let (first, last) = (units.first(), units.last());
    let bytes = (first.map_or(0, |u| u.at), last.map_or(0, Unit::end));
    format!("{}, bytes {} to {}", first.map_or_else(String::new, time), bytes.0, bytes.1)
}

fn time(unit: &Unit) -> String {
    let kind = if unit.track == VIDEO_TRACK { "picture" } else { "sound" };
    if unit.track == VIDEO_TRACK {
        format!("{kind} at {:.3} s", VIDEO_TIMESCALE.nanos(unit.pts.clamp(-(1 << 50), 1 << 50)) as f64 / 1e9)
    } else {
        format!("{kind} at tick {}", unit.pts)
    }
}

/// Judges a clip by its manifest.
#[must_use]
pub fn clip(file: &dyn ReadAt, signed: &Signed, key: Option<&str>) -> Verdict {
    let manifest = &signed.manifest;
    if !signed.is_known() {
        return Verdict::Unlinked(format!("the manifest is of the form {:?}, not {FORMAT}", manifest.format));
    }
    if let Err(verdict) = expected(&signed.key, key) {
        return verdict;
    }
    if !signed.holds() {
        return tampered("the manifest: its signature does not hold");
    }
    for Proof { link, .. } in manifest.segments.iter().filter(|proof| proof.link.key != signed.key) {
        if link.holds() {
            let (segment, key) = (&link.segment, &link.key);
            return Verdict::Unlinked(format!("{segment} was linked by another key than the manifest's, {key}"));
        }
    }
    for proof in &manifest.segments {
        if let Some(why) = flaw(proof, &signed.key) {
            return tampered(format!("the manifest: {}: {why}", proof.link.segment));
        }
    }
    judge(file, signed).unwrap_or_else(|e| Verdict::Incomplete(vec![format!("the clip cannot be read: {e}")]))
}

/// What is wrong with a segment's proof.
fn flaw(proof: &Proof, key: &str) -> Option<&'static str> {
    if proof.link.key != key || !proof.link.holds() {
        return Some("its link is not signed by the key of the manifest");
    }
    let fits = |(number, units): &(u32, Vec<Unit>)| proof.link.blocks.get(*number as usize) == Some(&block(units));
    (!proof.blocks.iter().all(fits)).then_some("its units are not those of its link")
}

fn judge(file: &dyn ReadAt, signed: &Signed) -> std::io::Result<Verdict> {
    let manifest = &signed.manifest;
    let len = file.len()?;
    let (mut wrong, mut missing, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
    if len < u64::from(manifest.head_bytes) {
        missing.push(format!("the file ends at byte {len}, before its media"));
    } else if hash_at(file, 0, manifest.head_bytes, &mut buffer)? != manifest.head_hash {
        wrong.push(format!("bytes 0 to {}, which say how the clip is shown", manifest.head_bytes));
    }
    let mut at = u64::from(manifest.head_bytes);
    for copied in &manifest.copies {
        let (from, to) = (copied.from, copied.from.saturating_add(copied.bytes));
        let proof = manifest.segments.iter().find(|proof| proof.link.segment.to_string() == copied.segment);
        let units = proof.into_iter().flat_map(|proof| &proof.blocks).flat_map(|(_, units)| units);
        let mut own: Vec<&Unit> = units.filter(|u| u.at >= from && u.end() <= to).collect();
        own.sort_by_key(|unit| unit.at);
        let mut covered = from;
        for unit in own {
            if unit.at != covered {
                break;
            }
            covered = unit.end();
            let here = at.saturating_add(unit.at - from);
            let end = here.saturating_add(u64::from(unit.size));
            let place = || format!("{} of {}, bytes {here} to {end} of the clip", time(unit), copied.segment);
            if end > len {
                missing.push(place());
            } else if hash_at(file, here, unit.size, &mut buffer)? != unit.hash {
                wrong.push(place());
            }
        }
        // (J1)
        if covered != to {
            wrong.push(format!(
                "bytes {} to {} of the clip, which no unit attests",
                at.saturating_add(covered - from),
                at.saturating_add(to - from)
            ));
        }
        at = at.saturating_add(copied.bytes);
    }
    if len > at {
        wrong.push(format!("bytes {at} to {len} of the clip, which were added"));
    }
    let links = manifest.segments.iter().map(|proof| (proof.link.segment.to_string(), proof.link.made));
    Ok(verdict(wrong, missing, signed.key.clone(), links))
}

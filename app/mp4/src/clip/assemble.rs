//! From the choice to the new file: its tables, its head, and the ranges to copy.

use crate::boxes::BoxWriter;
use crate::clip::sound::{self, Sound};
use crate::clip::{Choice, ClipError, ClipPlan, CopyRange, Reel, Span};
use crate::entry::SampleEntry;
use crate::layout::write_ftyp;
use crate::movie::{Edit, Form, Movie, Track, TrackKind, composition_shift, write_moov};
use crate::rotation::Rotation;
use crate::table::{Sample, SampleTable};
use crate::time::{Ticks, VIDEO_TIMESCALE};

/// A sample on its way: reel, sample with its own offset, decode time in ticks of its track after the asked start.
type Item = (usize, Sample, Ticks);

pub(super) fn assemble(reels: &[Reel<'_>], choice: &Choice, asked: Span) -> Result<ClipPlan, ClipError> {
    let mut pictures: Vec<Item> = choice
        .parts
        .iter()
        .flat_map(|(r, range)| reels[*r].samples[range.clone()].iter().map(|s| (*r, *s, s.dts + reels[*r].shift)))
        .collect();
    let Some(first_dts) = pictures.first().map(|p| p.2) else { return Err(ClipError::Nothing(asked)) };
    unmark_late_syncs(&mut pictures, choice.to - choice.from);
    let sound = sound::choose(reels, choice, asked)?;
    let sounds = sound.as_ref().map_or(&[][..], |s| &s.units[..]);
    let (copies, placed_pictures, placed_sounds) = place(reels, &pictures, sounds);

    let mut movie = Movie::default();
    let mut video = new_track(1, TrackKind::Video, VIDEO_TIMESCALE);
    fill(&mut video, reels, asked, &pictures, &placed_pictures)?;
    let media_time = choice.from - first_dts + Ticks::from(composition_shift(&video));
    let edit = Edit { duration: unsigned(choice.to - choice.from), media_time: Some(unsigned(media_time)) };
    let mut edits = vec![vec![edit]];
    movie.tracks.push(video);
    if let Some(Sound { timescale, edits: list, .. }) = &sound {
        let mut audio = new_track(2, TrackKind::Audio, *timescale);
        fill(&mut audio, reels, asked, sounds, &placed_sounds)?;
        movie.tracks.push(audio);
        edits.push(list.clone());
    }

    let len: u64 = copies.iter().map(|c| c.len).sum();
    let span = |from: Ticks, to: Ticks| Span { from: nanos(asked, from), to: nanos(asked, to) };
    let shown_at = |p: &Item| p.1.pts() + reels[p.0].shift;
    let lasts = |p: &Item| shown_at(p) + Ticks::from(p.1.duration);
    let begin = pictures.iter().map(shown_at).min().unwrap_or(choice.from);
    let end = pictures.iter().map(lasts).max().unwrap_or(choice.to).max(choice.to);
    Ok(ClipPlan {
        copies,
        payload_bytes: len,
        asked,
        shown: span(choice.from, choice.to),
        payload: span(begin.min(choice.from), end),
        frames: choice.frames,
        gaps: choice.gaps.iter().map(|(a, b)| span(*a, *b)).collect(),
        movie,
        edits,
    })
}

fn nanos(asked: Span, ticks: Ticks) -> i64 {
    asked.from.saturating_add(VIDEO_TIMESCALE.nanos(ticks))
}

fn unsigned(t: Ticks) -> u64 {
    u64::try_from(t).unwrap_or(0)
}

fn new_track(id: u32, kind: TrackKind, timescale: crate::time::Timescale) -> Track {
    Track { id, kind, timescale, rotation: Rotation::None, entries: Vec::new(), table: SampleTable::new() }
}

/// Takes the sync mark from all sync samples but the first that GStreamer's `qtdemux` (1.22) would take for the end.
///
/// After a sync sample it compares the next one's presentation time, counted from the first sample and not from the edit's
/// begin, with the duration of the movie, and ends there, though more is to be shown. A player that seeks to the clip's
/// last moments starts at the sync sample before; nothing else reads the mark.
fn unmark_late_syncs(pictures: &mut [Item], duration: Ticks) {
    let offset = |p: &Item| p.2 + Ticks::from(p.1.cts);
    let Some(base) = pictures.first().map(|p| p.2) else { return };
    let delay = pictures.iter().map(|p| -Ticks::from(p.1.cts)).max().unwrap_or(0).max(0);
    let next: Vec<Ticks> = pictures.iter().skip(1).map(offset).collect();
    for (i, p) in pictures.iter_mut().enumerate().skip(1) {
        let follows = next.get(i).copied().unwrap_or(Ticks::MAX);
        if follows.saturating_sub(base) >= duration - delay {
            p.1.sync = false;
        }
    }
}

/// Puts the samples behind one another in the order in which they lie in their sources, and tells where each comes to lie
/// (counted from the payload's begin).
fn place(reels: &[Reel<'_>], pictures: &[Item], sounds: &[Item]) -> (Vec<CopyRange>, Vec<u64>, Vec<u64>) {
    let mut all: Vec<(usize, u64, u32, usize)> = Vec::with_capacity(pictures.len() + sounds.len());
    all.extend(pictures.iter().chain(sounds).enumerate().map(|(i, (r, s, _))| (*r, s.offset, s.size, i)));
    all.sort_unstable_by_key(|(r, offset, _, i)| (*r, *offset, *i));
    let mut placed = vec![0; all.len()];
    let mut copies: Vec<CopyRange> = Vec::new();
    let mut at = 0;
    for (r, offset, size, i) in all {
        placed[i] = at;
        at += u64::from(size);
        let source = reels[r].source;
        match copies.last_mut() {
            Some(c) if c.source == source && c.offset + c.len == offset => c.len += u64::from(size),
            _ => copies.push(CopyRange { source, offset, len: u64::from(size) }),
        }
    }
    copies.retain(|c| c.len > 0);
    let sounds_placed = placed.split_off(pictures.len());
    (copies, placed, sounds_placed)
}

/// Enters the samples and their sample entries: equal ones once, others one behind the other.
fn fill(track: &mut Track, reels: &[Reel<'_>], asked: Span, items: &[Item], placed: &[u64]) -> Result<(), ClipError> {
    let mut numbers: Vec<((usize, u32), u32)> = Vec::new();
    let mut splits = Vec::new();
    let mut first = None;
    let mut rotation = None;
    for ((r, s, at), offset) in items.iter().zip(placed) {
        let reel = &reels[*r];
        let known = numbers.iter().find(|(k, _)| *k == (*r, s.description)).map(|(_, n)| *n);
        let description = if let Some(n) = known {
            n
        } else {
            let entry = entry_of(reel, track.kind, s.description).ok_or_else(|| no_entry(reel))?;
            let turned = rotation_of(reel, track.kind);
            let other = track.entries.last().is_some_and(|e| !e.can_share_track(entry));
            // A track has one rotation.
            if other || rotation.replace(turned).is_some_and(|before| before != turned) {
                splits.push(nanos(asked, reel.begin(0)));
            }
            track.rotation = turned;
            let n = track.entries.iter().position(|e| e == entry).unwrap_or_else(|| {
                track.entries.push(entry.clone());
                track.entries.len() - 1
            }) as u32
                + 1;
            numbers.push(((*r, s.description), n));
            n
        };
        let first = *first.get_or_insert(*at);
        // A hole that the duration of one sample cannot bridge.
        if at - first - track.table.last_dts() > Ticks::from(u32::MAX) {
            splits.push(nanos(asked, reel.begin(0)));
        }
        let sample = Sample { offset: *offset, dts: at - first, description, ..*s };
        track.table.push(sample).map_err(|error| ClipError::Damaged { source_index: reel.source, error })?;
    }
    if splits.is_empty() { Ok(()) } else { Err(ClipError::SplitNeeded { at: splits }) }
}

fn entry_of<'a>(reel: &Reel<'a>, kind: TrackKind, description: u32) -> Option<&'a SampleEntry> {
    let track = reel.movie.tracks.iter().find(|t| t.kind == kind)?;
    track.entries.get((description as usize).checked_sub(1)?)
}

/// How the pictures of a source are to be shown.
fn rotation_of(reel: &Reel<'_>, kind: TrackKind) -> Rotation {
    reel.movie.tracks.iter().find(|t| t.kind == kind).map_or(Rotation::None, |t| t.rotation)
}

fn no_entry(reel: &Reel<'_>) -> ClipError {
    let error = crate::table::TableError::OutOfRange { index: 0, what: "the sample entry's number" };
    ClipError::Damaged { source_index: reel.source, error }
}

/// `ftyp`, `moov` and the header of an `mdat` with `len` bytes; `extra` goes right behind `mvhd`.
pub(super) fn head(movie: &Movie, edits: &[Vec<Edit>], len: u64, extra: &[u8]) -> Vec<u8> {
    // Offsets depend on the moov's size, and that on whether they need 64 bits: a second or third try settles it.
    let mut shift = 0;
    loop {
        let mut w = BoxWriter::with_capacity(2048 + movie.sample_count() * 12);
        write_ftyp(&mut w);
        write_moov(&mut w, movie, edits, Form { fragmented: false, shift }, extra);
        if let Ok(size) = u32::try_from(len + 8) {
            w.u32(size);
            w.raw(b"mdat");
        } else {
            w.u32(1);
            w.raw(b"mdat");
            w.u64(len + 16);
        }
        let head = w.into_bytes();
        if head.len() as u64 == shift {
            return head;
        }
        shift = head.len() as u64;
    }
}

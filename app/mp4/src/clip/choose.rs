//! Which samples a clip needs, and which of them it shows.

use crate::clip::{Choice, ClipError, ClipSource, Edges, MAX_OVERLAP_NANOS, MAX_SPAN_NANOS, Reel, Span};
use crate::movie::TrackKind;
use crate::table::Sample;
use crate::time::{MOVIE_TIMESCALE, Ticks, VIDEO_TIMESCALE};

/// Capture times are rounded to ticks; so far they may be off when compared with an asked time.
const LENIENT: Ticks = 1;

/// Puts the sources' pictures on one timeline whose 0 is the asked start.
pub(super) fn reels<'a>(sources: &[ClipSource<'a>], asked: Span) -> Result<Vec<Reel<'a>>, ClipError> {
    let mut reels: Vec<Reel<'a>> = Vec::with_capacity(sources.len());
    for (number, source) in sources.iter().enumerate() {
        let Some(track) = source.movie.tracks.iter().find(|t| t.kind == TrackKind::Video) else { continue };
        let hidden_until = MOVIE_TIMESCALE.rescale(source.movie.shown_from, track.timescale);
        let samples: Vec<Sample> = track.table.iter().collect();
        let mut shown: Vec<u32> =
            (0..samples.len() as u32).filter(|i| samples[*i as usize].pts() >= hidden_until).collect();
        shown.sort_by_key(|i| samples[*i as usize].pts());
        let start = source.start.saturating_sub(asked.from);
        let far = start.unsigned_abs() > 4 * MAX_SPAN_NANOS.unsigned_abs();
        if shown.is_empty() || track.timescale != VIDEO_TIMESCALE || far {
            continue;
        }
        let mut reel = Reel {
            source: number,
            movie: source.movie,
            start,
            shift: VIDEO_TIMESCALE.ticks(start),
            joint: joint(&samples, hidden_until),
            end: 0,
            samples,
            shown,
        };
        if let Some(before) = reels.last() {
            move_behind(&mut reel, before)?;
        }
        reel.end = track.table.presentation_end() + reel.shift;
        reels.push(reel);
    }
    Ok(reels)
}

/// The sample behind a repeated group of pictures: the first shown one, if decoding may start there.
fn joint(samples: &[Sample], hidden_until: Ticks) -> usize {
    let first_shown = samples.iter().position(|s| s.pts() >= hidden_until).unwrap_or(0);
    if samples.get(first_shown).is_some_and(|s| s.sync) { first_shown } else { 0 }
}

/// Moves a source that begins before its predecessor's last sample was decoded.
fn move_behind(reel: &mut Reel<'_>, before: &Reel<'_>) -> Result<(), ClipError> {
    let last = before.samples.last().map_or(before.end, |s| s.dts + before.shift);
    let first = reel.samples.get(reel.joint).map_or(0, |s| s.dts + reel.shift);
    let by = last + 1 - first;
    if by > 0 {
        let nanos = VIDEO_TIMESCALE.nanos(by);
        if nanos > MAX_OVERLAP_NANOS {
            return Err(ClipError::Overlap { source_index: reel.source, by: nanos });
        }
        reel.start += nanos;
        reel.shift += by;
    }
    Ok(())
}

/// A shown picture: number of its reel, place in that reel's presentation order.
type Place = (usize, usize);

/// When the picture at `place` stops being shown: at the next one's beginning if nothing is missing between.
fn end_of(reels: &[Reel<'_>], (r, place): Place) -> Ticks {
    let reel = &reels[r];
    if place + 1 < reel.shown.len() {
        return reel.begin(place + 1);
    }
    match reels.get(r + 1) {
        Some(next) if !gap_between(reel, next) => next.begin(0).max(reel.begin(place)),
        _ => reel.end,
    }
}

/// Whether at least one picture is missing between two sources: the hole is wider than half of what the last one lasts.
/// A little hole or overlap is usual, as that duration was a guess when it was written.
fn gap_between(before: &Reel<'_>, next: &Reel<'_>) -> bool {
    let last = before.shown.len() - 1;
    let usual = (before.end - before.begin(last)).max(1);
    next.begin(0) - before.end > usual / 2
}

/// First picture that begins at `at` or later.
fn first_from(reels: &[Reel<'_>], at: Ticks) -> Option<Place> {
    reels.iter().enumerate().find_map(|(r, reel)| {
        let place = reel.shown.partition_point(|i| reel.pts(*i as usize) < at);
        (place < reel.shown.len()).then_some((r, place))
    })
}

/// Last picture that begins before `at`.
fn last_before(reels: &[Reel<'_>], at: Ticks) -> Option<Place> {
    reels.iter().enumerate().rev().find_map(|(r, reel)| {
        let place = reel.shown.partition_point(|i| reel.pts(*i as usize) < at);
        place.checked_sub(1).map(|p| (r, p))
    })
}

pub(super) fn choose(reels: &[Reel<'_>], asked: Span, edges: Edges) -> Result<Choice, ClipError> {
    let nothing = || ClipError::Nothing(asked);
    let until = VIDEO_TIMESCALE.ticks(asked.to - asked.from);
    let covering = last_before(reels, LENIENT + 1).filter(|p| end_of(reels, *p) > LENIENT);
    let first = covering.or_else(|| first_from(reels, 0)).ok_or_else(nothing)?;
    // At least one tick, so that a range shorter than the leniency still shows the frame that covers it.
    let last = last_before(reels, (until - LENIENT).max(1)).unwrap_or(first).max(first);
    let begins = reels[first.0].begin(first.1);
    if covering.is_none() && begins >= until {
        return Err(nothing());
    }

    let mut parts = Vec::new();
    for r in first.0..=last.0 {
        let reel = &reels[r];
        let from = if r == first.0 { group_start(reel, first.1) } else { joint_behind(&reels[r - 1], reel) };
        let to = if r == last.0 { group_end(reel, last.1, from) } else { reel.samples.len() };
        parts.push((r, from..to.max(from)));
    }
    let (mut from, mut to) = (begins, end_of(reels, last));
    let mut counted = (first, last);
    if edges == Edges::Gop {
        (from, to, counted) = whole_groups(reels, &parts).unwrap_or((from, to, counted));
    }
    Ok(Choice { frames: count(reels, counted), parts, from, to, gaps: gaps(reels, (first, last), until) })
}

/// Where decoding must start for the picture at `place` and all that are shown after it.
fn group_start(reel: &Reel<'_>, place: usize) -> usize {
    let first = reel.shown[place] as usize;
    let at = reel.samples[first].pts();
    // Everything shown from here on must be decoded from there on.
    let earliest = reel.shown[place..].iter().map(|i| *i as usize).min().unwrap_or(first);
    (0..=earliest).rev().find(|i| reel.samples[*i].sync && reel.samples[*i].pts() <= at).unwrap_or(0)
}

/// End of the group of pictures that holds the last sample, in decoding order, of what is shown up to `place`.
fn group_end(reel: &Reel<'_>, place: usize, from: usize) -> usize {
    let needed = reel.shown[..=place].iter().map(|i| *i as usize).max().unwrap_or(from).max(from);
    (needed + 1..reel.samples.len()).find(|i| reel.samples[*i].sync).unwrap_or(reel.samples.len())
}

/// First sample of `next` when it follows `before`: without its repeated group if `before` holds the same pictures.
fn joint_behind(before: &Reel<'_>, next: &Reel<'_>) -> usize {
    let repeated = next.samples[..next.joint].iter().map(|s| s.pts() + next.shift).max();
    let held = before.shown.len().checked_sub(1).map(|last| before.begin(last));
    let known = repeated.zip(held).is_none_or(|(r, h)| r <= h + LENIENT);
    let decoded = before.samples.last().map_or(before.end, |s| s.dts + before.shift);
    let in_order = next.samples.first().is_some_and(|s| s.dts + next.shift > decoded);
    if known || !in_order || !gap_between(before, next) { next.joint } else { 0 }
}

/// All copied pictures from the first sync sample on, for [`Edges::Gop`].
fn whole_groups(
    reels: &[Reel<'_>],
    parts: &[(usize, std::ops::Range<usize>)],
) -> Option<(Ticks, Ticks, (Place, Place))> {
    let ((r0, head), (r1, tail)) = (parts.first()?, parts.last()?);
    let from = reels[*r0].pts(head.start);
    let first = reels[*r0].shown.partition_point(|i| reels[*r0].pts(*i as usize) < from);
    let last = reels[*r1].shown.iter().rposition(|i| (*i as usize) < tail.end)?;
    let (first, last) = ((*r0, first), (*r1, last));
    (first <= last).then(|| (reels[first.0].begin(first.1), end_of(reels, last), (first, last)))
}

fn count(reels: &[Reel<'_>], (first, last): (Place, Place)) -> u32 {
    let all: usize = (first.0..=last.0)
        .map(|r| {
            let from = if r == first.0 { first.1 } else { 0 };
            let to = if r == last.0 { last.1 + 1 } else { reels[r].shown.len() };
            to.saturating_sub(from)
        })
        .sum();
    all as u32
}

/// Where nothing is within the asked range.
fn gaps(reels: &[Reel<'_>], (first, last): (Place, Place), until: Ticks) -> Vec<(Ticks, Ticks)> {
    let mut gaps = Vec::new();
    let begins = reels[first.0].begin(first.1);
    if begins > LENIENT {
        gaps.push((0, begins));
    }
    for pair in reels[first.0..=last.0].windows(2) {
        if gap_between(&pair[0], &pair[1]) {
            gaps.push((pair[0].end, pair[1].begin(0)));
        }
    }
    let ends = end_of(reels, last);
    if ends + LENIENT < until {
        gaps.push((ends, until));
    }
    gaps
}

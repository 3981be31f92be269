//! The clip's sound: which access units, and where they lie on its own timeline.

use crate::clip::{Choice, ClipError, Reel, Span};
use crate::entry::SampleEntry;
use crate::movie::{Edit, Track};
use crate::table::Sample;
use crate::time::{AUDIO_PRIMING_UNITS, MOVIE_TIMESCALE, Ticks, Timescale, VIDEO_TIMESCALE};

/// One access unit to copy: number of its reel, its sample, its decode time in ticks after the asked start.
pub(super) type Unit = (usize, Sample, Ticks);

/// The chosen sound.
pub(super) struct Sound {
    pub timescale: Timescale,
    /// In decoding order; the times never run backwards.
    pub units: Vec<Unit>,
    pub edits: Vec<Edit>,
}

/// The sound that is heard while the choice is shown; `None` if no source has any.
pub(super) fn choose(reels: &[Reel<'_>], choice: &Choice, asked: Span) -> Result<Option<Sound>, ClipError> {
    let used = || choice.parts.iter().filter_map(|(r, _)| Some((*r, reels[*r].movie.audio()?)));
    let Some((_, model)) = used().find(|(_, t)| !t.table.is_empty()) else { return Ok(None) };
    let timescale = model.timescale;
    let (from, to) = (VIDEO_TIMESCALE.rescale(choice.from, timescale), VIDEO_TIMESCALE.rescale(choice.to, timescale));
    let mut units: Vec<Unit> = Vec::new();
    for (r, track) in used() {
        if !joins(model, track) {
            let at = VIDEO_TIMESCALE.nanos(reels[r].begin(0));
            return Err(ClipError::SplitNeeded { at: vec![asked.from.saturating_add(at)] });
        }
        let shift = timescale.ticks(reels[r].start);
        for s in &track.table {
            let at = s.dts.saturating_add(shift);
            if at >= to {
                break;
            }
            let last = units.last().map_or(at, |u| u.2);
            units.push((r, s, at.max(last)));
        }
    }
    // Of those that ended before the start, the decoder gets the last ones to settle on.
    let heard = units.iter().position(|(_, s, at)| at.saturating_add(Ticks::from(s.duration)) > from);
    let Some(heard) = heard else { return Ok(None) };
    units.drain(..heard.saturating_sub(AUDIO_PRIMING_UNITS));
    let Some((first, last)) = units.first().zip(units.last()) else { return Ok(None) };
    let (first, end) = (first.2, (last.2 + Ticks::from(last.1.duration)).min(to));
    Ok(Some(Sound { timescale, edits: edits(timescale, first, from, end), units }))
}

/// Whether the sound of `track` can follow that of `model`.
fn joins(model: &Track, track: &Track) -> bool {
    let all = |t: &Track, e: &SampleEntry| t.entries.iter().all(|x| x.can_share_track(e));
    track.timescale == model.timescale && model.entries.iter().all(|e| all(track, e))
}

/// Sound from `from` to `end` where the copied units begin at `first`.
fn edits(timescale: Timescale, first: Ticks, from: Ticks, end: Ticks) -> Vec<Edit> {
    let movie = |t: Ticks| u64::try_from(timescale.rescale(t, MOVIE_TIMESCALE)).unwrap_or(0);
    let heard_from = first.max(from);
    let mut edits = Vec::new();
    if first > from {
        edits.push(Edit { duration: movie(first - from), media_time: None });
    }
    let media_time = u64::try_from(heard_from - first).unwrap_or(0);
    edits.push(Edit { duration: movie((end - heard_from).max(0)), media_time: Some(media_time) });
    edits
}

//! `moov` to [`Movie`]: of a header (no samples) and of a closed segment (all samples).

use std::ops::Range;

use crate::boxes::{Children, Fields, child};
use crate::close::{SEAL_AT, SUMMARY_UUID};
use crate::entry::SampleEntry;
use crate::movie::{Movie, Track, TrackKind};
use crate::read::{ReadError, stbl};
use crate::rotation::Rotation;
use crate::summary::TrackSummary;
use crate::table::SampleTable;
use crate::time::{MOVIE_TIMESCALE, Ticks, Timescale};

/// Most tracks that are read.
const MAX_TRACKS: usize = 16;

/// Most sample entries per track that are read.
const MAX_ENTRIES: usize = 256;

/// Tracks of a header's `moov`; `bytes` is the whole box.
pub(super) fn parse_header(bytes: &[u8], offset: u64) -> Result<Movie, ReadError> {
    let damaged = |what| ReadError::Damaged { offset, what };
    let body = bytes.get(8..).unwrap_or(&[]);
    child(body, *b"mvex").ok_or(damaged("the header's moov has no mvex"))?;
    let traks = Children::new(body).filter(|(k, _)| k == b"trak");
    let mut movie = Movie::default();
    for (_, trak) in traks.take(MAX_TRACKS) {
        let (track, _) = parse_trak(trak).ok_or(damaged("a track that this version does not write"))?;
        if movie.track_mut(track.id).is_some() {
            return Err(damaged("two tracks with one id"));
        }
        if track.kind == TrackKind::Video {
            let from = first_media_time(trak).unwrap_or(0);
            movie.shown_from = track.timescale.rescale(from, MOVIE_TIMESCALE);
        }
        movie.tracks.push(track);
    }
    if movie.tracks.is_empty() {
        return Err(damaged("no track"));
    }
    Ok(movie)
}

/// Tracks and samples of a closed segment; `None` if anything is missing, does not fit its checksum, or names bytes
/// outside `payload`.
pub(super) fn parse_full(bytes: &[u8], payload: Range<u64>) -> Option<Movie> {
    let sum = u32::from_be_bytes(bytes.get(SEAL_AT..SEAL_AT + 4)?.try_into().ok()?);
    (crc32fast::hash(bytes.get(SEAL_AT + 4..)?) == sum).then_some(())?;
    let body = bytes.get(8..)?;
    let (shown_from, summaries) = parse_summary(body)?;
    let mut movie = Movie { shown_from, tracks: Vec::new() };
    for (_, trak) in Children::new(body).filter(|(k, _)| k == b"trak").take(MAX_TRACKS) {
        let (mut track, stbl) = parse_trak(trak)?;
        let summary = summaries.iter().find(|s| s.id == track.id)?;
        track.table = stbl::parse(stbl, summary, track.entries.len(), payload.clone())?;
        movie.track_mut(track.id).is_none().then_some(())?;
        movie.tracks.push(track);
    }
    (!movie.tracks.is_empty()).then_some(movie)
}

/// The summary box among the children of a `moov`: where presentation begins, and its tracks.
pub(crate) fn parse_summary(body: &[u8]) -> Option<(Ticks, Vec<TrackSummary>)> {
    let summary = Children::new(body).find(|(k, b)| k == b"uuid" && b.starts_with(&SUMMARY_UUID))?.1;
    let mut f = Fields::new(summary.get(16..)?);
    f.u32()?;
    let count = f.u32()?;
    let shown_from = f.i64()?;
    f.i64()?;
    let tracks = (0..count).map_while(|_| TrackSummary::parse(&mut f)).collect::<Vec<_>>();
    (tracks.len() == count as usize).then_some((shown_from, tracks))
}

/// One track without its samples, and its `stbl`.
fn parse_trak(trak: &[u8]) -> Option<(Track, &[u8])> {
    let mut f = Fields::new(child(trak, *b"tkhd")?);
    let (version, _) = f.version_and_flags()?;
    f.sized(version)?;
    f.sized(version)?;
    let id = f.u32().filter(|id| *id > 0)?;
    f.u32()?;
    f.sized(version)?;
    f.take(16)?;
    let mut matrix = [0; 9];
    for value in &mut matrix {
        *value = f.u32()?;
    }
    let rotation = Rotation::of_matrix(matrix);
    let mdia = child(trak, *b"mdia")?;
    let mut f = Fields::new(child(mdia, *b"mdhd")?);
    let (version, _) = f.version_and_flags()?;
    f.sized(version)?;
    f.sized(version)?;
    let timescale = Timescale::new(f.u32()?)?;
    let kind = match child(mdia, *b"hdlr")?.get(8..12)? {
        b"vide" => TrackKind::Video,
        b"soun" => TrackKind::Audio,
        _ => return None,
    };
    let stbl = child(child(mdia, *b"minf")?, *b"stbl")?;
    let stsd = child(stbl, *b"stsd")?.get(8..)?;
    let entries: Option<Vec<_>> =
        Children::new(stsd).take(MAX_ENTRIES).map(|(k, b)| SampleEntry::parse(k, b, timescale.per_second())).collect();
    let entries = entries.filter(|e| !e.is_empty())?;
    let fits = entries.iter().all(|e| matches!(e, SampleEntry::Video { .. }) == (kind == TrackKind::Video));
    fits.then_some((Track { id, kind, timescale, rotation, entries, table: SampleTable::new() }, stbl))
}

/// Media time of the first edit that shows something.
fn first_media_time(trak: &[u8]) -> Option<Ticks> {
    let mut f = Fields::new(child(child(trak, *b"edts")?, *b"elst")?);
    let (version, _) = f.version_and_flags()?;
    let count = f.u32()?;
    for _ in 0..count {
        f.sized(version)?;
        let from = if version == 0 { Ticks::from(f.i32()?) } else { f.i64()? };
        f.u32()?;
        if from >= 0 {
            return Some(from);
        }
    }
    None
}

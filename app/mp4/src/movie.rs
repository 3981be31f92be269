//! The movie: its tracks with all their samples, and the `moov` that describes them.
//!
//! One writer serves the header of an open segment (no samples, `mvex`), the full `moov` of a close, and the clip; they
//! differ in what stands in the tables and in the edits.

use crate::boxes::BoxWriter;
use crate::entry::SampleEntry;
use crate::rotation::Rotation;
use crate::table::{Sample, SampleTable, TableError};
use crate::time::{MOVIE_TIMESCALE, Ticks, Timescale};

mod tables;

pub(crate) use tables::composition_shift;

/// What a track carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrackKind {
    /// Moving pictures.
    Video,
    /// Sound.
    Audio,
}

/// A track with its samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// Track id, from 1.
    pub id: u32,
    /// What it carries.
    pub kind: TrackKind,
    /// Ticks per second of its times.
    pub timescale: Timescale,
    /// How its pictures are to be shown.
    pub rotation: Rotation,
    /// Its sample entries; samples name them from 1.
    pub entries: Vec<SampleEntry>,
    /// Its samples.
    pub table: SampleTable,
}

impl Track {
    /// An empty track with one sample entry.
    #[must_use]
    pub fn new(id: u32, timescale: Timescale, entry: SampleEntry) -> Self {
        let kind = match entry {
            SampleEntry::Video { .. } => TrackKind::Video,
            SampleEntry::Aac { .. } | SampleEntry::G711 { .. } => TrackKind::Audio,
        };
        Self { id, kind, timescale, rotation: Rotation::None, entries: vec![entry], table: SampleTable::new() }
    }
}

/// Tracks on one timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Movie {
    /// Where presentation begins on the tracks' timeline, in ticks of [`MOVIE_TIMESCALE`]: 0, or the end of a leading
    /// group of pictures that is only there to be decoded.
    pub shown_from: Ticks,
    /// The tracks.
    pub tracks: Vec<Track>,
}

impl Movie {
    /// The first video track.
    #[must_use]
    pub fn video(&self) -> Option<&Track> {
        self.tracks.iter().find(|t| t.kind == TrackKind::Video)
    }

    /// The first audio track.
    #[must_use]
    pub fn audio(&self) -> Option<&Track> {
        self.tracks.iter().find(|t| t.kind == TrackKind::Audio)
    }

    /// The track with this id.
    pub fn track_mut(&mut self, id: u32) -> Option<&mut Track> {
        self.tracks.iter_mut().find(|t| t.id == id)
    }

    /// Samples of all tracks.
    #[must_use]
    pub fn sample_count(&self) -> usize {
        self.tracks.iter().map(|t| t.table.len()).sum()
    }

    /// Ticks of [`MOVIE_TIMESCALE`] from the first to the end of the last shown sample of any track.
    #[must_use]
    pub fn duration(&self) -> Ticks {
        let ends = self.tracks.iter().filter(|t| !t.table.is_empty()).map(|t| {
            let end = t.timescale.rescale(t.table.presentation_end(), MOVIE_TIMESCALE);
            end.saturating_sub(self.shown_from)
        });
        ends.max().unwrap_or(0).max(0)
    }
}

/// One entry of an edit list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Ticks of [`MOVIE_TIMESCALE`]; 0 means "all" in a fragmented file.
    pub duration: u64,
    /// Where it begins, in ticks of the track counted from its first sample's decode time; `None` shows nothing.
    pub media_time: Option<u64>,
}

/// How a `moov` is to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    /// Without samples, with `mvex`.
    pub fragmented: bool,
    /// Added to every sample's offset.
    pub shift: u64,
}

/// Edits that place each track of a segment on the movie's timeline.
pub(crate) fn segment_edits(movie: &Movie, track: &Track, fragmented: bool) -> Vec<Edit> {
    let origin = MOVIE_TIMESCALE.rescale(movie.shown_from, track.timescale);
    let unsigned = |t: Ticks| u64::try_from(t).unwrap_or(0);
    if fragmented {
        // Fragments carry absolute decode times, so only the origin needs an edit.
        let edit = Edit { duration: 0, media_time: Some(unsigned(origin)) };
        return if origin > 0 { vec![edit] } else { Vec::new() };
    }
    if track.table.is_empty() {
        return Vec::new();
    }
    let first = track.table.first_dts();
    let mut edits = Vec::new();
    if first > origin {
        let late = track.timescale.rescale(first - origin, MOVIE_TIMESCALE);
        edits.push(Edit { duration: unsigned(late), media_time: None });
    }
    let from = first.max(origin);
    let shown = track.timescale.rescale(track.table.presentation_end() - from, MOVIE_TIMESCALE);
    edits.push(Edit {
        duration: unsigned(shown),
        media_time: Some(unsigned(from - first + Ticks::from(composition_shift(track)))),
    });
    edits
}

/// Writes the `moov`. `edits` has one list per track; `extra` goes right behind `mvhd`.
pub(crate) fn write_moov(w: &mut BoxWriter, movie: &Movie, edits: &[Vec<Edit>], form: Form, extra: &[u8]) {
    let track_duration = |i: usize| -> u64 {
        let list = edits.get(i).map_or(&[][..], Vec::as_slice);
        if form.fragmented { 0 } else { list.iter().fold(0, |sum, e| sum.saturating_add(e.duration)) }
    };
    let duration = (0..movie.tracks.len()).map(track_duration).max().unwrap_or(0);
    let next_id = movie.tracks.iter().map(|t| t.id).max().unwrap_or(0).saturating_add(1);
    w.nested(*b"moov", |w| {
        write_mvhd(w, duration, next_id);
        w.raw(extra);
        for (i, track) in movie.tracks.iter().enumerate() {
            let list = edits.get(i).map_or(&[][..], Vec::as_slice);
            write_trak(w, track, list, track_duration(i), form);
        }
        if form.fragmented {
            w.nested(*b"mvex", |w| {
                for track in &movie.tracks {
                    w.full(*b"trex", 0, 0, |w| {
                        w.u32(track.id);
                        w.u32(1);
                        w.zeros(12);
                    });
                }
            });
        }
    });
}

/// Bytes of `mvhd` in version 1.
pub(crate) const MVHD_LEN: u64 = 120;

fn write_mvhd(w: &mut BoxWriter, duration: u64, next_track: u32) {
    w.full(*b"mvhd", 1, 0, |w| {
        w.u64(0);
        w.u64(0);
        w.u32(MOVIE_TIMESCALE.per_second());
        w.u64(duration);
        w.u32(0x1_0000);
        w.u16(0x100);
        w.zeros(10);
        for v in Rotation::None.matrix((0, 0)) {
            w.u32(v);
        }
        w.zeros(24);
        w.u32(next_track);
    });
}

fn write_trak(w: &mut BoxWriter, track: &Track, edits: &[Edit], duration: u64, form: Form) {
    w.nested(*b"trak", |w| {
        write_tkhd(w, track, duration);
        if !edits.is_empty() {
            w.nested(*b"edts", |w| {
                w.full(*b"elst", 1, 0, |w| {
                    w.u32(edits.len() as u32);
                    for e in edits {
                        w.u64(e.duration);
                        w.i64(e.media_time.map_or(-1, |t| i64::try_from(t).unwrap_or(i64::MAX)));
                        w.u32(0x1_0000);
                    }
                });
            });
        }
        w.nested(*b"mdia", |w| {
            let media = if form.fragmented { 0 } else { track.table.end().saturating_sub(track.table.first_dts()) };
            w.full(*b"mdhd", 1, 0, |w| {
                w.u64(0);
                w.u64(0);
                w.u32(track.timescale.per_second());
                w.u64(u64::try_from(media).unwrap_or(0));
                w.u16(UNDETERMINED);
                w.u16(0);
            });
            let (handler, name) = match track.kind {
                TrackKind::Video => (b"vide", &b"video\0"[..]),
                TrackKind::Audio => (b"soun", &b"audio\0"[..]),
            };
            w.full(*b"hdlr", 0, 0, |w| {
                w.u32(0);
                w.raw(handler);
                w.zeros(12);
                w.raw(name);
            });
            w.nested(*b"minf", |w| {
                match track.kind {
                    TrackKind::Video => w.full(*b"vmhd", 0, 1, |w| w.zeros(8)),
                    TrackKind::Audio => w.full(*b"smhd", 0, 0, |w| w.zeros(4)),
                }
                w.nested(*b"dinf", |w| {
                    w.full(*b"dref", 0, 0, |w| {
                        w.u32(1);
                        w.full(*b"url ", 0, 1, |_| ());
                    });
                });
                tables::write_stbl(w, track, form);
            });
        });
    });
}

/// The language code `und`, packed (ISO/IEC 14496-12, 8.4.2.3).
const UNDETERMINED: u16 = 0x55c4;

fn write_tkhd(w: &mut BoxWriter, track: &Track, duration: u64) {
    // Enabled, in the movie.
    w.full(*b"tkhd", 1, 0x3, |w| {
        w.u64(0);
        w.u64(0);
        w.u32(track.id);
        w.u32(0);
        w.u64(duration);
        w.zeros(8);
        w.u16(0);
        w.u16(0);
        w.u16(if track.kind == TrackKind::Audio { 0x100 } else { 0 });
        w.u16(0);
        let (width, height) = track.entries.first().map_or((0, 0), SampleEntry::display_size);
        for v in track.rotation.matrix((width, height)) {
            w.u32(v);
        }
        w.u32(width.min(0xffff) << 16);
        w.u32(height.min(0xffff) << 16);
    });
}

/// Appends a sample to the track with this id; `false` if there is none.
pub(crate) fn push(movie: &mut Movie, id: u32, sample: Sample) -> Result<bool, TableError> {
    match movie.track_mut(id) {
        Some(track) => track.table.push(sample).map(|()| true),
        None => Ok(false),
    }
}

//! `stbl`: the sample tables of one track (ISO/IEC 14496-12, 8.5 to 8.7).

use crate::boxes::BoxWriter;
use crate::movie::{Form, Track};

pub(super) fn write_stbl(w: &mut BoxWriter, track: &Track, form: Form) {
    w.nested(*b"stbl", |w| {
        w.full(*b"stsd", 0, 0, |w| {
            w.u32(track.entries.len() as u32);
            track.entries.iter().for_each(|e| e.write(w));
        });
        if form.fragmented {
            for kind in [*b"stts", *b"stsc", *b"stco"] {
                w.full(kind, 0, 0, |w| w.u32(0));
            }
            w.full(*b"stsz", 0, 0, |w| w.zeros(8));
            return;
        }
        write_stts(w, track);
        write_ctts(w, track);
        if (track.table.sync_count() as usize) < track.table.len() {
            write_stss(w, track);
        }
        write_stsc(w, track);
        w.full(*b"stsz", 0, 0, |w| {
            w.u32(0);
            w.u32(track.table.len() as u32);
            track.table.iter().for_each(|s| w.u32(s.size));
        });
        write_chunk_offsets(w, track, form.shift);
    });
}

/// Writes a full box of equal neighbours: a count, then (run length, value) pairs.
fn write_runs(w: &mut BoxWriter, kind: [u8; 4], version: u8, values: impl Iterator<Item = u32>) {
    w.full(kind, version, 0, |w| {
        let count_at = w.len();
        w.u32(0);
        let mut runs = 0;
        let mut run: Option<(u32, u32)> = None;
        for v in values {
            match &mut run {
                Some((n, value)) if *value == v => *n += 1,
                _ => {
                    if let Some((n, value)) = run.replace((1, v)) {
                        w.u32(n);
                        w.u32(value);
                        runs += 1;
                    }
                }
            }
        }
        if let Some((n, value)) = run {
            w.u32(n);
            w.u32(value);
            runs += 1;
        }
        w.patch_u32(count_at, runs);
    });
}

fn write_stts(w: &mut BoxWriter, track: &Track) {
    write_runs(w, *b"stts", 0, track.table.iter().map(|s| s.duration));
}

/// Composition offsets, moved by [`composition_shift`] so that none is negative.
fn write_ctts(w: &mut BoxWriter, track: &Track) {
    let shift = i64::from(composition_shift(track));
    let offsets = || track.table.iter().map(|s| (i64::from(s.cts) + shift) as u32);
    if offsets().any(|o| o != 0) {
        write_runs(w, *b"ctts", 0, offsets());
    }
}

/// By how much presentation is moved behind decoding in a full `moov`, in ticks: no sample is then shown before it is
/// decoded, and the edit list takes the delay back.
///
/// In fragments decode times are the sorted presentation times and offsets are signed, which every player follows as long
/// as nothing is trimmed. With an edit list GStreamer's `qtdemux` (1.22) compares decode times with the edit's end and
/// loses reordered pictures near it, and is off by the least offset at the edit's start.
pub(crate) fn composition_shift(track: &Track) -> u32 {
    track.table.iter().map(|s| s.cts).min().map_or(0, |least| least.min(0).unsigned_abs())
}

fn write_stss(w: &mut BoxWriter, track: &Track) {
    w.full(*b"stss", 0, 0, |w| {
        w.u32(track.table.sync_count());
        for (i, s) in track.table.iter().enumerate() {
            if s.sync {
                w.u32(i as u32 + 1);
            }
        }
    });
}

fn write_stsc(w: &mut BoxWriter, track: &Track) {
    w.full(*b"stsc", 0, 0, |w| {
        let count_at = w.len();
        w.u32(0);
        let (mut count, mut last) = (0, None);
        for (i, chunk) in track.table.chunks().iter().enumerate() {
            let this = (track.table.chunk_len(i), chunk.description);
            if last != Some(this) {
                w.u32(i as u32 + 1);
                w.u32(this.0);
                w.u32(this.1);
                count += 1;
                last = Some(this);
            }
        }
        w.patch_u32(count_at, count);
    });
}

fn write_chunk_offsets(w: &mut BoxWriter, track: &Track, shift: u64) {
    let chunks = track.table.chunks();
    let offsets = || chunks.iter().map(|c| c.offset.saturating_add(shift));
    if needs_64_bits(track, shift) {
        w.full(*b"co64", 0, 0, |w| {
            w.u32(chunks.len() as u32);
            offsets().for_each(|o| w.u64(o));
        });
    } else {
        w.full(*b"stco", 0, 0, |w| {
            w.u32(chunks.len() as u32);
            offsets().for_each(|o| w.u32(o as u32));
        });
    }
}

/// Whether any chunk of the track lies beyond 4 GiB.
pub(super) fn needs_64_bits(track: &Track, shift: u64) -> bool {
    track.table.chunks().iter().any(|c| u32::try_from(c.offset.saturating_add(shift)).is_err())
}

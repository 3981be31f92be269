//! The scan over fragments: as far as they are whole, in sequence, and fit their checksums.

use crate::boxes::{BoxHeader, Children, Fields, child};
use crate::close::guarded;
use crate::fragment::{CHECKSUM_UUID, Checksum, FLAG_NON_SYNC};
use crate::movie::Movie;
use crate::read::{ReadAt, ReadError, Verify, fill};
use crate::table::Sample;
use crate::time::Ticks;

/// Largest `moof` that is read; one has about 16 bytes a sample.
const MAX_MOOF: u64 = 1 << 20;

/// Bytes that the first read at each fragment takes; most `moof`s fit.
const FIRST_READ: usize = 4096;

/// Bytes that are checked at a time.
const CHECK_READ: usize = 128 << 10;

/// What the scan found.
pub(super) struct Scan {
    pub movie: Movie,
    /// End of the last intact fragment.
    pub end: u64,
    /// The `moov` of a close begins there, behind its guard.
    pub moov_follows: bool,
    pub next_sequence: u32,
}

/// Samples of one track in one fragment.
struct Run {
    track: u32,
    samples: Vec<Sample>,
}

/// Reads fragments from `at` to the first that is not intact, or to `limit`.
pub(super) fn scan(
    file: &dyn ReadAt,
    mut movie: Movie,
    mut at: u64,
    limit: u64,
    verify: Verify,
) -> Result<Scan, ReadError> {
    let mut sequence = 1;
    let mut buf = vec![0; FIRST_READ];
    let mut check = if verify == Verify::Payload { vec![0; CHECK_READ] } else { Vec::new() };
    let moov_follows = loop {
        let got = fill(file, at, &mut buf[..FIRST_READ])?;
        let header = BoxHeader::parse(&buf[..got]);
        let Some(moof_len) = header.filter(|h| h.kind == *b"moof").and_then(|h| h.size) else {
            break guarded(&buf[..got]);
        };
        let room = limit.saturating_sub(at);
        if moof_len > MAX_MOOF || moof_len + 8 > room {
            break false;
        }
        let head_len = moof_len as usize + 8;
        if head_len > got {
            if buf.len() < head_len {
                buf.resize(head_len, 0);
            }
            if fill(file, at, &mut buf[..head_len])? < head_len {
                break false;
            }
        }
        let (moof, mdat) = buf[..head_len].split_at(moof_len as usize);
        let Some(payload) = payload_len(mdat, room - moof_len) else { break false };
        let payload_at = at + moof_len + 8;
        let Some((runs, sum)) = parse_moof(moof, sequence, payload_at, payload) else { break false };
        if verify == Verify::Payload && checksum(file, payload_at, payload, &mut check)? != Some(sum) {
            break false;
        }
        if !fits(&movie, &runs) {
            break false;
        }
        for run in &runs {
            let Some(track) = movie.track_mut(run.track) else { continue };
            for s in &run.samples {
                track
                    .table
                    .push(*s)
                    .map_err(|_| ReadError::Damaged { offset: at, what: "a sample that no table can hold" })?;
            }
        }
        at = payload_at + payload;
        sequence += 1;
    };
    Ok(Scan { movie, end: at, moov_follows, next_sequence: sequence })
}

/// Bytes of payload of the `mdat` whose header is given; `None` if it is none or does not fit into `room`.
fn payload_len(mdat: &[u8], room: u64) -> Option<u64> {
    let h = BoxHeader::parse(mdat)?;
    let size = h.size.filter(|s| h.kind == *b"mdat" && h.header_len == 8 && *s <= room)?;
    Some(size - 8)
}

/// Every run belongs to a track, names entries that exist, and begins no earlier than the track's last sample (M3).
fn fits(movie: &Movie, runs: &[Run]) -> bool {
    runs.iter().enumerate().all(|(i, run)| {
        let track = movie.tracks.iter().find(|t| t.id == run.track);
        let twice = runs[..i].iter().any(|r| r.track == run.track);
        track.is_some_and(|t| {
            let in_order = t.table.is_empty() || run.samples.first().is_none_or(|s| s.dts >= t.table.last_dts());
            let described = run.samples.iter().all(|s| (1..=t.entries.len()).contains(&(s.description as usize)));
            in_order && described && !twice
        })
    })
}

/// Checksum over the payload, `None` if it is cut short.
fn checksum(file: &dyn ReadAt, at: u64, len: u64, buf: &mut [u8]) -> Result<Option<u32>, ReadError> {
    let mut sum = Checksum::new();
    let mut done = 0;
    while done < len {
        let n = (len - done).min(buf.len() as u64) as usize;
        if fill(file, at + done, &mut buf[..n])? < n {
            return Ok(None);
        }
        sum.update(&buf[..n]);
        done += n as u64;
    }
    Ok(Some(sum.finish()))
}

/// The runs of a whole `moof` and the checksum that its payload must have.
fn parse_moof(moof: &[u8], sequence: u32, payload_at: u64, payload: u64) -> Option<(Vec<Run>, u32)> {
    let (checked, sum) = moof.split_at_checked(moof.len().checked_sub(4)?)?;
    (crc32fast::hash(checked).to_be_bytes() == *sum).then_some(())?;
    let body = moof.get(8..)?;
    let sums = Children::new(body).find(|(k, b)| k == b"uuid" && b.starts_with(&CHECKSUM_UUID))?.1;
    let payload_sum = Fields::new(sums.get(16..)?).u32()?;

    let mut f = Fields::new(child(body, *b"mfhd")?);
    f.u32()?;
    (f.u32()? == sequence).then_some(())?;
    let moof_at = payload_at - 8 - moof.len() as u64;
    let mut next = payload_at;
    let mut runs = Vec::new();
    for (_, traf) in Children::new(body).filter(|(k, _)| k == b"traf") {
        let run = parse_traf(traf, moof_at, next)?;
        next = run.samples.last()?.end();
        runs.push(run);
    }
    (next == payload_at.checked_add(payload)? && !runs.is_empty()).then_some((runs, payload_sum))
}

/// One `traf`; its data must begin at `at`.
fn parse_traf(traf: &[u8], moof_at: u64, at: u64) -> Option<Run> {
    let mut f = Fields::new(child(traf, *b"tfhd")?);
    let (_, flags) = f.version_and_flags()?;
    let track = f.u32()?;
    let description = match flags {
        0x02_0000 => 1,
        0x02_0002 => f.u32()?,
        _ => return None,
    };
    let mut f = Fields::new(child(traf, *b"tfdt")?);
    let (version, _) = f.version_and_flags()?;
    let mut dts = Ticks::try_from(f.sized(version)?).ok()?;

    let mut f = Fields::new(child(traf, *b"trun")?);
    let (version, flags) = f.version_and_flags()?;
    (version == 1 && flags & !0x800 == 0x701).then_some(())?;
    let with_cts = flags & 0x800 != 0;
    let count = f.u32()? as usize;
    let data_offset = f.u32()?;
    let row = if with_cts { 16 } else { 12 };
    (f.rest().len() == count.checked_mul(row)? && moof_at.saturating_add(u64::from(data_offset)) == at).then_some(())?;
    let mut samples = Vec::with_capacity(count);
    let mut offset = at;
    for _ in 0..count {
        let (duration, size, flags) = (f.u32()?, f.u32()?, f.u32()?);
        let cts = if with_cts { f.i32()? } else { 0 };
        let sync = flags & FLAG_NON_SYNC == 0;
        samples.push(Sample { offset, size, dts, duration, cts, sync, description });
        offset = offset.checked_add(u64::from(size))?;
        dts = dts.checked_add(Ticks::from(duration))?;
    }
    Some(Run { track, samples })
}

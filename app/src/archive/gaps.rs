//! Gaps: accounted absences of a lens, kept beside its segments in `gaps.jsonl`.
//!
//! Promises:
//! - G1: a gap whose append was followed by a successful group commit is there after a power cut.
//! - G2: a torn tail is recognised and skipped; damage below what was durable is reported, never skipped in silence.
//! - G3: nothing is ever rewritten in place; lines are only added. After a failed sync the file is replaced as a whole.
//! - G4: a gap is durable before footage that follows it is even written, so that no power cut leaves a hole without cause.
//! - G5: accounts of what retention removed grow together in the file once the files are gone for good, so that the file of
//!   a long run does not grow with all that was ever recorded.
//! - G7: nor does it grow without end where pictures are missing without end: gaps are summed up as `sum` says, so that a
//!   lens's file has at most 2 MiB, and 2 MiB more for each day of its run.
//! - G8: the account of a newer version, whose cause or fields this one does not know, is an account all the same, and is
//!   kept as that version wrote it, also when the file is written anew.
//! - G6: the end of a recorder explains only what it cost. A lens that was silent before it is `camera_stalled` for as long
//!   as other lenses show that the recorder lived with its disk in order; where the disk was in trouble then, up to where that began.
//!   (Where the power goes in the tick behind one that took seconds, what had waited may be durable of some lenses and not of others,
//!   and nothing tells those from silent ones. A kill leaves all of them alike: W1 of `record::writer`.)

mod log;
mod sum;

use std::collections::BTreeMap;

use mos_hal::clock::Mono;
use mos_hal::media::LensId;
use serde::{Deserialize, Serialize};

use super::ids::Seq;
use super::line;

pub(crate) use self::log::{GapLog, append_to_past};
pub(crate) use self::sum::summed;

/// Name of the file beside the segments.
pub(crate) const FILE_NAME: &str = "gaps.jsonl";

/// Why a lens has no footage. The names are stable: they appear in files and in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// From the recorder's start to the first keyframe.
    Starting,
    /// The device, file or host is not there.
    CameraAbsent,
    /// The camera said no, or speaks nothing that MOS records.
    CameraRefused,
    /// The camera is connected and sends nothing.
    CameraStalled,
    /// The camera broke off.
    CameraBrokeOff,
    /// The source came to its regular end.
    SourceEnded,
    /// A user stopped the lens.
    CaptureStopped,
    /// The lens gives way to others, to heat or to the limits of the encoder.
    Degraded,
    /// A user had the lens started anew, or configured it.
    CaptureReset,
    /// Known to be missing between camera and recorder.
    PacketLoss,
    /// The host's encoder did not keep up, and pictures were left out before it.
    EncoderSlow,
    /// The camera or its driver left pictures out, as their numbers show.
    CameraSkipped,
    /// Time stamps that could not be repaired. Kept for what was recorded before all of them were.
    BadTimestamps,
    /// The disk did not keep up and the buffer was full.
    DiskSlow,
    /// No room.
    DiskFull,
    /// A write or sync failed.
    DiskError,
    /// The recorder was stopped in order.
    Stopped,
    /// The recorder died while the machine went on.
    RecorderKilled,
    /// The machine lost power or crashed.
    PowerLoss,
    /// A user removed the segment.
    Removed,
    /// Removed to make room.
    Retention,
    /// Not accounted for: a bug if it ever shows, or the account of a newer version.
    #[serde(other)]
    Unknown,
}

impl GapCause {
    /// The name in files and in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::CameraAbsent => "camera_absent",
            Self::CameraRefused => "camera_refused",
            Self::CameraStalled => "camera_stalled",
            Self::CameraBrokeOff => "camera_broke_off",
            Self::SourceEnded => "source_ended",
            Self::CaptureStopped => "capture_stopped",
            Self::Degraded => "degraded",
            Self::CaptureReset => "capture_reset",
            Self::PacketLoss => "packet_loss",
            Self::EncoderSlow => "encoder_slow",
            Self::CameraSkipped => "camera_skipped",
            Self::BadTimestamps => "bad_timestamps",
            Self::DiskSlow => "disk_slow",
            Self::DiskFull => "disk_full",
            Self::DiskError => "disk_error",
            Self::Stopped => "stopped",
            Self::RecorderKilled => "recorder_killed",
            Self::PowerLoss => "power_loss",
            Self::Removed => "removed",
            Self::Retention => "retention",
            Self::Unknown => "unknown",
        }
    }
}

/// An absence of one lens within one run: from `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gap {
    /// First moment without footage, in the run's monotonic time.
    pub start: Mono,
    /// First moment with footage again.
    pub end: Mono,
    /// Why.
    pub cause: GapCause,
}

/// What a line of `gaps.jsonl` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GapRecord {
    /// A gap; `seq` names the segment that was there (removed, retention).
    Gap { gap: Gap, seq: Option<Seq> },
    /// The recorder stopped this lens in order at this moment.
    Stop { at: Mono },
    /// Recovery closed this segment.
    Recovered { seq: Seq },
}

#[derive(Serialize, Deserialize)]
struct Line {
    lens: String,
    start: i64,
    end: i64,
    cause: GapCause,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seq: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    stop: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    recovered: bool,
    /// Bytes of this file that were durable when the line was written; damage below is no torn tail.
    synced: u64,
}

/// Contents of a `gaps.jsonl`.
#[derive(Debug, Default)]
pub(crate) struct GapFile {
    pub(crate) records: Vec<GapRecord>,
    /// Of records that say more than this version knows, a cause or a member, by their place in `records`: all that they say.
    newer: BTreeMap<usize, serde_json::Map<String, serde_json::Value>>,
    /// There are bad lines; harmless ones unless `damage` says so.
    pub(crate) torn: bool,
    /// A bad line below what a later line knows to be durable, with its byte offset.
    pub(crate) damage: Option<u64>,
}

/// Parses `gaps.jsonl`. From a bad line on, what was never known to be durable is a torn tail and skipped: a line of it that
/// is whole by chance would leave a hole where the one before it is not.
pub(crate) fn parse(bytes: &[u8]) -> GapFile {
    let mut file = GapFile::default();
    let mut first_bad: Option<u64> = None;
    let mut durable = 0;
    let mut offset = 0;
    let mut before_bad = 0;
    for raw in bytes.split_inclusive(|b| *b == b'\n') {
        let begin = offset;
        offset += raw.len() as u64;
        if raw.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match line::unseal::<Line>(raw) {
            Some(line) => {
                durable = durable.max(line.synced);
                if line::seal(&line).as_bytes() != raw.trim_ascii_end()
                    && let Some(fields) = line::unseal(raw)
                {
                    file.newer.insert(file.records.len(), fields);
                }
                file.records.push(line.record());
            }
            None if first_bad.is_none() => (first_bad, before_bad) = (Some(begin), file.records.len()),
            None => {}
        }
    }
    file.torn = first_bad.is_some();
    file.damage = first_bad.filter(|bad| *bad < durable);
    if file.torn && file.damage.is_none() {
        file.records.truncate(before_bad);
        file.newer.retain(|at, _| *at < before_bad);
    }
    file
}

impl GapFile {
    /// The text of a file that takes this one's place, nothing of which is durable yet. With `gone`, in fewer lines: see [`compact`].
    pub(crate) fn anew(&self, lens: &LensId, gone: Option<&dyn Fn(Seq) -> bool>) -> String {
        let (mut anew, mut at) = (String::new(), 0);
        // As in `compact`.
        for part in self.records.split_inclusive(|record| matches!(record, GapRecord::Stop { .. })) {
            let end = at + part.len();
            let own: Vec<GapRecord> =
                (at..end).zip(part).filter(|(n, _)| !self.newer.contains_key(n)).map(|(_, record)| *record).collect();
            let mut stop = String::new();
            for (n, fields) in self.newer.range(at..end) {
                let mut fields = fields.clone();
                fields.insert("synced".to_owned(), 0.into());
                // A stop is the last of its part.
                let text =
                    if matches!(self.records.get(*n), Some(GapRecord::Stop { .. })) { &mut stop } else { &mut anew };
                *text += &line::seal(&fields);
                text.push('\n');
            }
            anew += &text(lens, &gone.map_or_else(|| own.clone(), |gone| compact(&own, gone)), 0);
            anew += &stop;
            at = end;
        }
        anew
    }
}

impl Line {
    fn record(&self) -> GapRecord {
        if self.stop {
            return GapRecord::Stop { at: Mono(self.start) };
        }
        if let (true, Some(seq)) = (self.recovered, self.seq) {
            return GapRecord::Recovered { seq: Seq(seq) };
        }
        let gap = Gap { start: Mono(self.start), end: Mono(self.end), cause: self.cause };
        GapRecord::Gap { gap, seq: self.seq.map(Seq) }
    }

    fn new(lens: &LensId, record: GapRecord, synced: u64) -> Self {
        let empty = |at, cause| Gap { start: at, end: at, cause };
        let (gap, seq) = match record {
            GapRecord::Gap { gap, seq } => (gap, seq),
            GapRecord::Stop { at } => (empty(at, GapCause::Stopped), None),
            GapRecord::Recovered { seq } => (empty(Mono(0), GapCause::Unknown), Some(seq)),
        };
        Self {
            lens: lens.to_string(),
            start: gap.start.0,
            end: gap.end.0,
            cause: gap.cause,
            seq: seq.map(|s| s.0),
            stop: matches!(record, GapRecord::Stop { .. }),
            recovered: matches!(record, GapRecord::Recovered { .. }),
            synced,
        }
    }
}

/// Shorter than this between two segments is no hole: the last frame's duration is a guess where the source tells none.
pub(crate) const TOLERANCE_NS: i64 = 500_000_000;

/// The same accounts with what retention removed grown together, as far as `gone` says that a segment's file is gone for
/// good, and with the other gaps summed up (G7). What a user removed keeps its number: Remove answers by it.
pub(crate) fn compact(records: &[GapRecord], gone: impl Fn(Seq) -> bool) -> Vec<GapRecord> {
    let mut compact: Vec<GapRecord> = Vec::new();
    // A stop parts what was before it from what comes after a return.
    for part in records.split_inclusive(|record| matches!(record, GapRecord::Stop { .. })) {
        let mut gaps: Vec<Gap> = Vec::new();
        let mut others: Vec<GapRecord> = Vec::new();
        for record in part {
            match *record {
                GapRecord::Recovered { seq } if gone(seq) => {}
                GapRecord::Gap { gap, seq: None } => gaps.push(gap),
                GapRecord::Gap { gap, seq: Some(seq) } if gap.cause == GapCause::Retention && gone(seq) => {
                    gaps.push(gap);
                }
                other => others.push(other),
            }
        }
        compact.extend(summed(gaps).into_iter().map(|gap| GapRecord::Gap { gap, seq: None }));
        compact.append(&mut others);
    }
    compact
}

/// Lines for `records`, each with its newline; `synced` is how much of the file is durable already.
pub(crate) fn text(lens: &LensId, records: &[GapRecord], synced: u64) -> String {
    let mut text = String::new();
    for record in records {
        text.push_str(&line::seal(&Line::new(lens, *record, synced)));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn gap(n: i64) -> GapRecord {
        GapRecord::Gap { gap: Gap { start: Mono(n), end: Mono(n + 1), cause: GapCause::PacketLoss }, seq: None }
    }

    fn file(lines: &[(i64, u64)]) -> Vec<u8> {
        let road = LensId::new("road").unwrap();
        lines.iter().map(|(n, synced)| text(&road, &[gap(*n)], *synced)).collect::<String>().into_bytes()
    }

    #[test]
    fn records_come_back() {
        let road = LensId::new("road").unwrap();
        let removed = Gap { start: Mono(-5), end: Mono(7), cause: GapCause::Removed };
        let records = [
            gap(3),
            GapRecord::Gap { gap: removed, seq: Some(Seq(9)) },
            GapRecord::Stop { at: Mono(8) },
            GapRecord::Recovered { seq: Seq(1) },
        ];
        let parsed = parse(text(&road, &records, 0).as_bytes());
        assert_eq!(parsed.records, records);
        assert_eq!(parsed.damage, None);
    }

    #[test]
    fn g2_every_tear_of_what_was_not_durable_is_skipped() {
        let whole = file(&[(1, 0), (2, 0)]);
        let durable = whole.len() as u64;
        let mut bytes = whole.clone();
        bytes.extend(file(&[(3, durable), (4, durable)]));
        for word in (durable as usize / 8 * 8..bytes.len()).step_by(8) {
            let mut torn = bytes.clone();
            let begin = word.max(durable as usize);
            let end = (word + 8).min(bytes.len());
            torn[begin..end].fill(0);
            let parsed = parse(&torn);
            assert_eq!(parsed.damage, None, "word at {word}");
            assert!([gap(1), gap(2), gap(3)].starts_with(&parsed.records) && parsed.records.len() >= 2);
        }
    }

    #[test]
    fn g2_damage_of_what_was_durable_is_reported() {
        let mut bytes = file(&[(1, 0), (2, 0)]);
        let durable = bytes.len() as u64;
        bytes.extend(file(&[(3, durable)]));
        bytes[5] ^= 1;
        let parsed = parse(&bytes);
        assert_eq!(parsed.damage, Some(0));
        assert_eq!(parsed.records, [gap(2), gap(3)]);
    }

    #[test]
    fn g8_an_account_of_a_newer_version_is_no_damage() {
        let newer = line::seal(&serde_json::json!({
            "lens": "road", "start": 3, "end": 4, "cause": "eaten_by_a_marten", "teeth": 12, "synced": 0,
        }));
        let whole = format!("{newer}\n{}", text(&LensId::new("road").unwrap(), &[gap(5)], newer.len() as u64 + 1));
        let parsed = parse(whole.as_bytes());
        let unknown = Gap { start: Mono(3), end: Mono(4), cause: GapCause::Unknown };
        assert_eq!(parsed.records, [GapRecord::Gap { gap: unknown, seq: None }, gap(5)]);
        assert!(!parsed.torn);
    }

    #[test]
    fn g8_what_only_a_newer_version_knows_survives_that_the_file_is_written_anew() {
        let road = LensId::new("road").unwrap();
        let newer = |start: i64, synced: u64| {
            let line = serde_json::json!({
                "lens": "road", "start": start, "end": start + 1, "cause": "eaten_by_a_marten", "teeth": 12, "synced": synced,
            });
            line::seal(&line) + "\n"
        };
        let unknown = Gap { start: Mono(7), end: Mono(8), cause: GapCause::Unknown };
        let own = text(&road, &[gap(1), GapRecord::Gap { gap: unknown, seq: None }], 0);
        let more = line::seal(&serde_json::json!({
            "lens": "road", "start": 12, "end": 13, "cause": "packet_loss", "of_packets": 3, "synced": 0,
        }));
        let stop = text(&road, &[GapRecord::Stop { at: Mono(20) }], 0);
        let whole = [own.as_str(), &newer(10, 900), &more, "\n", &stop, &newer(30, 900), "torn"].concat();
        let parsed = parse(whole.as_bytes());
        assert_eq!(parsed.newer.len(), 3, "an unknown cause of ours is none of these");
        for gone in [None, Some(&(|_| true) as &dyn Fn(Seq) -> bool)] {
            let anew = parsed.anew(&road, gone);
            for line in [&newer(10, 0), &newer(30, 0), &more] {
                assert!(anew.contains(line.trim_end()), "{anew}");
            }
            let again = parse(anew.as_bytes());
            assert!(again.records.len() == 6 && !again.torn && again.newer.len() == 3, "{anew}");
            let stop = again.records.iter().position(|r| matches!(r, GapRecord::Stop { .. })).unwrap();
            assert!(again.newer.contains_key(&(stop + 1)), "what came after the stop stays there: {anew}");
        }
        // So does what came before one of that version: an absence behind it would be of a lens that had come back.
        let stopped = Gap { start: Mono(7), end: Mono(20), cause: GapCause::CaptureStopped };
        let newer_stop = line::seal(&serde_json::json!({
            "lens": "road", "start": 20, "end": 20, "cause": "stopped", "stop": true, "by": "marten", "synced": 0,
        }));
        let whole = text(&road, &[GapRecord::Gap { gap: stopped, seq: None }], 0) + &newer_stop + "\n";
        let again = parse(parse(whole.as_bytes()).anew(&road, None).as_bytes());
        assert_eq!(again.records, [GapRecord::Gap { gap: stopped, seq: None }, GapRecord::Stop { at: Mono(20) }]);
        assert!(again.newer.contains_key(&1));
    }

    #[test]
    fn g5_accounts_of_what_is_gone_grow_together_and_others_stay() {
        let of = |start, end, cause, seq: Option<u32>| GapRecord::Gap {
            gap: Gap { start: Mono(start), end: Mono(end), cause },
            seq: seq.map(Seq),
        };
        let second = 1_000_000_000;
        let records = [
            of(-second, 0, GapCause::Starting, None),
            of(0, second, GapCause::Retention, Some(0)),
            GapRecord::Recovered { seq: Seq(1) },
            of(9 * second, 10 * second, GapCause::Removed, Some(7)),
            of(second + 1, 2 * second, GapCause::Retention, Some(1)),
            of(2 * second, 3 * second, GapCause::Retention, Some(2)),
            of(5 * second, 6 * second, GapCause::Retention, Some(3)),
            of(6 * second, 7 * second, GapCause::Retention, Some(4)),
        ];
        let expected = [
            records[0],
            of(0, 3 * second, GapCause::Retention, None),
            of(5 * second, 6 * second, GapCause::Retention, None),
            records[3],
            records[7],
        ];
        let compact = compact(&records, |seq| seq != Seq(4));
        assert_eq!(compact, expected);
        assert_eq!(super::compact(&compact, |_| false), expected, "what has grown together stays so");
    }

    #[test]
    fn names_are_those_of_the_files() {
        for cause in [GapCause::CameraBrokeOff, GapCause::RecorderKilled, GapCause::Unknown, GapCause::DiskFull] {
            assert_eq!(serde_json::to_string(&cause).unwrap(), format!("\"{}\"", cause.name()));
        }
    }
}

//! Where a segment ends. Pure: one verdict per video unit, in decoding order.
//!
//! Promises:
//! - B1: a segment begins where decoding may begin: IDR, BLA, or CRA that no RASL follows.
//! - B2: a source without such points (only CRA with RASL, or recovery points) gets its preceding group of pictures repeated
//!   at the border, so that both sides decode fully; the repetition is never shown.
//! - B3: no segment grows beyond [`cap`], whatever the source does; a source that gives no entry point is asked for one.
//! - B4: a change of format ends the segment at the unit where it comes into force.

use std::time::Duration;

use mos_hal::clock::Mono;
use mos_hal::media::FrameKind;

/// A keyframe this much before the wanted length ends the segment too: sources count frames, not nanoseconds.
const EARLY: i64 = 20_000_000;
/// How long over its length a segment is before the source is asked for a keyframe, and then how often; of short segments, a
/// quarter of what is left to the longest, so that it is asked in time.
const ASK_EVERY: i64 = 2_000_000_000;

/// Longest a segment may become: twice its wanted length, but at most a minute more.
#[must_use]
pub fn cap(wanted: Duration) -> Duration {
    (2 * wanted).min(wanted + Duration::from_mins(1))
}

/// A video unit in the eyes of the splitter.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// What it is.
    pub kind: FrameKind,
    /// Its capture time.
    pub pts: Mono,
    /// Whether RASL pictures follow; `None` as long as the next unit is not there.
    pub rasl_follows: Option<bool>,
    /// Whether the group of pictures before it is at hand and can be repeated.
    pub repeatable: bool,
    /// Whether its format differs from the segment's.
    pub new_format: bool,
}

/// What to do at a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It belongs to the present segment.
    Continue,
    /// The next unit decides; keep this one back.
    Hold,
    /// A new segment begins with it.
    Cut,
    /// A new segment begins with the repeated group before it.
    CutRepeating,
    /// The longest length is reached without an entry point; a new segment begins with it all the same.
    CutAnywhere,
}

/// The splitter of one segment.
#[derive(Debug)]
pub struct Splitter {
    wanted: i64,
    cap: i64,
    start: Mono,
    clean_seen: bool,
    asked: Option<Mono>,
}

impl Splitter {
    /// For a segment that is shown from `start` and should last `wanted`.
    #[must_use]
    pub fn new(start: Mono, wanted: Duration) -> Self {
        let wanted_ns = wanted.as_nanos() as i64;
        Self { wanted: wanted_ns, cap: cap(wanted).as_nanos() as i64, start, clean_seen: false, asked: None }
    }

    /// The verdict on the next video unit.
    pub fn judge(&mut self, p: &Point) -> Verdict {
        let age = p.pts.since(self.start);
        let due = age >= self.wanted - EARLY;
        let entry = match p.kind {
            FrameKind::Idr | FrameKind::Bla => Some(true),
            FrameKind::Cra => match p.rasl_follows {
                None if due => return Verdict::Hold,
                None => None,
                Some(rasl) => Some(!rasl),
            },
            FrameKind::RecoveryPoint => Some(false),
            FrameKind::Delta | FrameKind::Rasl | FrameKind::Audio => None,
        };
        if p.new_format {
            return if entry.is_some() || p.kind == FrameKind::Cra { Verdict::Cut } else { Verdict::Continue };
        }
        match entry {
            Some(true) if due => Verdict::Cut,
            Some(true) => {
                self.clean_seen = true;
                Verdict::Continue
            }
            // A source that does have clean points gets half a length more to show one.
            Some(false) if due && p.repeatable && (!self.clean_seen || age >= self.wanted + self.wanted / 2) => {
                Verdict::CutRepeating
            }
            _ if age >= self.cap => Verdict::CutAnywhere,
            _ => Verdict::Continue,
        }
    }

    /// Whether the source has shown clean entry points within this segment.
    #[must_use]
    pub fn clean_seen(&self) -> bool {
        self.clean_seen
    }

    /// Whether to ask the source for a keyframe now.
    pub fn ask(&mut self, pts: Mono) -> bool {
        let every = ASK_EVERY.min((self.cap - self.wanted) / 4);
        let over = pts.since(self.start) >= self.wanted + every;
        let again = self.asked.is_none_or(|a| pts.since(a) >= every);
        if over && again {
            self.asked = Some(pts);
        }
        over && again
    }
}

#[cfg(test)]
mod tests {
    use FrameKind::{Bla, Cra, Delta, Idr, RecoveryPoint};

    use super::*;

    const S: i64 = 1_000_000_000;

    fn point(kind: FrameKind, s: f64) -> Point {
        let pts = Mono((s * S as f64) as i64);
        Point { kind, pts, rasl_follows: Some(false), repeatable: false, new_format: false }
    }

    fn splitter() -> Splitter {
        Splitter::new(Mono(0), Duration::from_secs(10))
    }

    #[test]
    fn b1_clean_points_cut_when_the_length_is_reached() {
        for kind in [Idr, Bla, Cra] {
            let mut s = splitter();
            assert_eq!(s.judge(&point(kind, 9.0)), Verdict::Continue);
            assert_eq!(s.judge(&point(Delta, 10.5)), Verdict::Continue);
            assert_eq!(s.judge(&point(kind, 9.99)), Verdict::Cut);
        }
    }

    #[test]
    fn b1_a_cra_waits_for_its_successor() {
        let mut s = splitter();
        let unknown = Point { rasl_follows: None, ..point(Cra, 10.0) };
        assert_eq!(s.judge(&unknown), Verdict::Hold);
        let leading = Point { rasl_follows: Some(true), ..unknown };
        assert_eq!(s.judge(&leading), Verdict::Continue);
        assert_eq!(s.judge(&Point { repeatable: true, ..leading }), Verdict::CutRepeating);
        assert_eq!(s.judge(&Point { rasl_follows: Some(false), ..unknown }), Verdict::Cut);
    }

    #[test]
    fn b2_open_points_wait_for_a_clean_one_if_the_source_has_them() {
        let mut s = splitter();
        let open = |t| Point { repeatable: true, ..point(RecoveryPoint, t) };
        assert_eq!(s.judge(&point(Idr, 5.0)), Verdict::Continue);
        assert_eq!(s.judge(&open(10.0)), Verdict::Continue);
        assert_eq!(s.judge(&open(15.0)), Verdict::CutRepeating);
        assert_eq!(splitter().judge(&open(10.0)), Verdict::CutRepeating);
    }

    #[test]
    fn b3_without_entry_points_it_asks_and_then_cuts_anywhere() {
        let mut s = splitter();
        assert!(!s.ask(Mono(11 * S)));
        assert!(s.ask(Mono(12 * S)));
        assert!(!s.ask(Mono(13 * S)));
        assert!(s.ask(Mono(14 * S)));
        assert_eq!(s.judge(&point(Delta, 19.9)), Verdict::Continue);
        assert_eq!(s.judge(&point(Delta, 20.0)), Verdict::CutAnywhere);
        assert_eq!(cap(Duration::from_mins(10)), Duration::from_mins(11));
    }

    #[test]
    fn b3_a_short_segment_asks_before_it_cuts_anywhere() {
        let mut s = Splitter::new(Mono(0), Duration::from_secs(2));
        assert!(!s.ask(Mono(2 * S)));
        assert!(s.ask(Mono(5 * S / 2)) && s.ask(Mono(3 * S)));
        assert_eq!(s.judge(&point(Idr, 3.1)), Verdict::Cut);
    }

    #[test]
    fn b4_a_new_format_cuts_at_once() {
        let new = |kind| Point { new_format: true, ..point(kind, 0.5) };
        assert_eq!(splitter().judge(&new(Idr)), Verdict::Cut);
        assert_eq!(splitter().judge(&new(RecoveryPoint)), Verdict::Cut);
        assert_eq!(splitter().judge(&new(Delta)), Verdict::Continue);
    }
}

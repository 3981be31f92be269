//! Streams made by an enemy: whatever units, times, formats and faults come in whatever order, the recorder stops for none of
//! them, its books add up at every tick, and every moment is footage or gap.

use proptest::prelude::*;

use super::*;
use crate::archive::Stored;
use crate::record::intake::LeftOut;
use mos_mp4::State;
use mos_mp4::read::{SegmentFile, Verify};

#[derive(Clone, Debug)]
enum Act {
    Video {
        kind: FrameKind,
        time: Time,
        format: u8,
        size: usize,
        lost: bool,
    },
    Sound {
        time: Time,
    },
    /// An orderly second of 25 frames.
    Second,
    Down,
    LeftOut {
        from: i64,
        to: i64,
    },
    /// Nothing comes for so many ms.
    Silence(i64),
    /// The disk fails at one of the next operations.
    Fault(u8),
    Full,
    Room,
}

/// What a unit says of its time, relative to now in ms.
#[derive(Clone, Copy, Debug)]
enum Time {
    None,
    Near(i64),
    /// Nanoseconds of nowhere.
    Absolute(i64),
}

fn time() -> impl Strategy<Value = Time> {
    prop_oneof![
        4 => (-300i64..300).prop_map(Time::Near),
        2 => (-20_000i64..20_000).prop_map(Time::Near),
        1 => Just(Time::None),
        1 => prop_oneof![Just(i64::MAX), Just(i64::MIN), Just(0), any::<i64>()].prop_map(Time::Absolute),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let kind = prop::sample::select(vec![
        FrameKind::Idr,
        FrameKind::Bla,
        FrameKind::Cra,
        FrameKind::Rasl,
        FrameKind::RecoveryPoint,
        FrameKind::Delta,
        FrameKind::Delta,
        FrameKind::Delta,
    ]);
    prop_oneof![
        20 => (kind, time(), 0u8..4, prop_oneof![19 => 0usize..400, 1 => Just(1usize << 20)], prop::bool::weighted(0.05))
            .prop_map(|(kind, time, format, size, lost)| Act::Video { kind, time, format: format / 3, size, lost }),
        3 => time().prop_map(|time| Act::Sound { time }),
        6 => Just(Act::Second),
        1 => Just(Act::Down),
        1 => (-5_000i64..5_000, -5_000i64..5_000).prop_map(|(from, to)| Act::LeftOut { from, to }),
        2 => (0i64..15_000).prop_map(Act::Silence),
        1 => (0u8..4).prop_map(Act::Fault),
        1 => Just(Act::Full),
        2 => Just(Act::Room),
    ]
}

impl Rig {
    fn now(&self) -> i64 {
        self.clock.mono().0 / MS
    }

    fn act(&self, act: &Act, formats: &[Arc<TrackFormat>; 2], sound: &Arc<TrackFormat>) {
        let now = self.now();
        let pts = |time: Time| match time {
            Time::None => None,
            Time::Near(ms) => Some((now + ms) * MS),
            Time::Absolute(ns) => Some(ns),
        };
        match act {
            Act::Video { kind, time, format, size, lost } => {
                let unit = unit_at(&formats[usize::from(*format)], pts(*time), now * MS, *kind);
                self.push(AccessUnit { discontinuity: *lost, data: Bytes::from(vec![0; *size]), ..unit });
                self.until(now + STEP);
            }
            Act::Sound { time } => self.push(unit_at(sound, pts(*time), now * MS, FrameKind::Audio)),
            Act::Second => {
                for n in 0..25 {
                    self.push(unit_at(&formats[0], Some((now + n * STEP) * MS), (now + n * STEP) * MS, gop(n, 25)));
                    self.until(now + (n + 1) * STEP);
                }
            }
            Act::Down => self.recorder.intake(&self.lens).unwrap().down(GapCause::CameraBrokeOff, Mono(now * MS)),
            Act::LeftOut { from, to } => {
                let (from, to) = (Mono((now + from) * MS), Mono((now + to) * MS));
                self.recorder.intake(&self.lens).unwrap().left_out(LeftOut {
                    from,
                    to,
                    pictures: 3,
                    cause: GapCause::CameraSkipped,
                });
            }
            Act::Silence(ms) => self.until(now + ms),
            Act::Fault(n) => {
                let op = [SimOp::Sync, SimOp::Write, SimOp::Name, SimOp::SyncDir][usize::from(*n)];
                self.disk.fail(op, "road", libc::EIO, 1);
            }
            Act::Full => {
                let space = self.disk.space().unwrap();
                self.disk.set_capacity(space.total - space.free);
            }
            Act::Room => self.disk.set_capacity(u64::MAX),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_stream_stops_the_recorder_or_upsets_its_books(acts in proptest::collection::vec(act(), 1..120)) {
        let rig = rig(3);
        let formats = [video_format(2), video_format(1)];
        let config = Bytes::from_static(&[0x14, 0x08]);
        let sound = Arc::new(TrackFormat::Audio(AudioFormat::Aac { sample_rate: 16_000, channels: 1, config }));
        for act in &acts {
            rig.act(act, &formats, &sound);
        }
        rig.disk.set_capacity(u64::MAX);
        // It goes on by itself: the longest wait after a failure is eight seconds, and each fault may be one.
        let faults = acts.iter().filter(|act| matches!(act, Act::Fault(_))).count();
        for _ in 0..13 + 9 * faults {
            rig.act(&Act::Second, &formats, &sound);
        }
        let end = rig.now();
        rig.stop();
        let rows = rig.rows();
        let last = rows.iter().map(|r| r.end.0 / MS).max().unwrap_or(0);
        prop_assert!(last >= end - 100, "footage ends at {last}, not at {end}");
        for row in rows.iter().filter(|r| r.state == SegmentState::Closed) {
            let file = rig.disk.open(&row.id.media_path(), OpenMode::Read).unwrap();
            let read = SegmentFile::read(&Stored(file.as_ref()), Verify::Structure).unwrap();
            prop_assert_eq!(read.state, State::Closed);
        }
        // Every moment is footage or gap; how long a last frame lasts is a guess, and the archive takes no shorter hole for one.
        let mut spans: Vec<(i64, i64)> = rows.iter().map(|r| (r.start.0 / MS, r.end.0 / MS)).collect();
        spans.extend(rig.gaps().iter().map(|g| (g.0, g.1)));
        spans.sort_unstable();
        let mut at = 0;
        for (from, to) in &spans {
            prop_assert!(*from <= at + 500, "{at}..{from} is neither footage nor gap: {spans:?} {:?} {rows:?}", rig.gaps());
            at = at.max(*to);
        }
    }
}

//! What happens in a recording, drawn from a seed: two or three lives with drop-outs, disk faults, clock steps and changes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mos::archive::gaps::GapCause;
use mos::record::RecorderOptions;
use mos_hal::media::{LensId, VideoCodec};

use super::cameras::Mood;
use super::streams;
use super::world::{Deed, Dice, End, Lenses, MS, S, Window1, World};

const STREAM_SECONDS: usize = 60;

/// Two cameras: H.264 with B-frames and sound, H.265 with B-frames. A group of pictures lasts a second.
pub(crate) fn lenses(dir: &Path) -> Lenses {
    let h264 = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "32", "-g", "25"];
    let x265 = "log-level=error:keyint=25:min-keyint=25:open-gop=0:bframes=2:info=0";
    let h265 = ["-c:v", "libx265", "-preset", "ultrafast", "-crf", "34", "-x265-params", x265];
    let road = streams::video(dir, "road", VideoCodec::H264, STREAM_SECONDS, &h264);
    let cabin = streams::video(dir, "cabin", VideoCodec::H265, STREAM_SECONDS, &h265);
    let tone = streams::audio(dir, STREAM_SECONDS);
    let lens = |name| LensId::new(name).unwrap();
    vec![(lens("cabin"), Arc::new(cabin), None), (lens("road"), Arc::new(road), Some(Arc::new(tone)))]
}

/// What happens, apart from where it is cut.
pub(crate) struct Story {
    seed: u64,
    first: i64,
    deeds: Vec<(i64, Deed)>,
    windows: Vec<Window1>,
    options: RecorderOptions,
}

impl Story {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed ^ 0x5eed);
        let first = dice.within(9 * S, 22 * S);
        let segment_length = Duration::from_secs(dice.within(2, 6) as u64);
        let mut story = Self {
            seed,
            first,
            deeds: Vec::new(),
            windows: Vec::new(),
            options: RecorderOptions { segment_length, intake_bytes: 24 << 10 },
        };
        story.changes(&mut dice);
        match seed % 6 {
            0 => {}
            1 => story.drop_out(&mut dice),
            2 => story.disk_error(&mut dice),
            3 => story.disk_full(&mut dice),
            4 => story.slow_disk(&mut dice),
            _ => story.clock_step(&mut dice),
        }
        if dice.one_in(3) {
            story.drop_out(&mut dice);
        }
        story.deeds.sort_by_key(|d| d.0);
        story
    }

    /// Tells the story to its end; with a seed for a cut, power goes (or the process is killed) on the way.
    pub(crate) fn tell(&self, lenses: &Lenses, cut: Option<u64>) -> World {
        let Some(cut) = cut else {
            let mut world = World::new(self.seed, lenses, self.options.clone());
            world.windows.clone_from(&self.windows);
            world.live(self.first, &self.deeds, End::Stop);
            forget_what_never_came(&mut world);
            world.look();
            return world;
        };
        let whole = self.tell(lenses, None);
        let mut dice = Dice(cut.wrapping_mul(0x1_0001) ^ 0xc07);
        let op = dice.within(0, whole.lives[0].ops as i64) as u64;
        let end = if dice.one_in(8) { End::Kill { op } } else { End::Cut { op, seed: dice.roll() } };
        let mut world = World::new(self.seed, lenses, self.options.clone());
        world.windows.clone_from(&self.windows);
        world.live(self.first, &self.deeds, end);
        forget_what_never_came(&mut world);
        if dice.one_in(3) {
            // Recovery itself is cut, too.
            let op = dice.within(0, 60) as u64;
            world.live(4 * S, &[], End::Cut { op, seed: dice.roll() });
        }
        let mut deeds = vec![(2 * S, Deed::Keep), (2500 * MS, Deed::Remove), (3 * S, Deed::SaveIndex)];
        if dice.one_in(4) {
            deeds.push((3500 * MS, Deed::MakeRoom(dice.within(10, 60) as u64 * 1024)));
        }
        world.live(dice.within(4 * S, 6 * S), &deeds, End::Stop);
        world.look();
        world
    }

    fn changes(&mut self, dice: &mut Dice) {
        for _ in 0..dice.within(3, 9) {
            let at = dice.within(3 * S, self.first);
            let deed = match dice.within(0, 4) {
                0 => Deed::Keep,
                1 => Deed::Remove,
                2 => Deed::MakeRoom(dice.within(30, 120) as u64 * 1024),
                _ => Deed::SaveIndex,
            };
            self.deeds.push((at, deed));
        }
    }

    fn drop_out(&mut self, dice: &mut Dice) {
        let lens = dice.within(0, 2) as usize;
        let at = dice.within(2 * S, self.first - 3 * S);
        let back = at + dice.within(300 * MS, 4 * S);
        if self.first > 18 * S && dice.one_in(3) {
            // Silent until it is opened anew, which is tried after ten seconds.
            let at = dice.within(2 * S, 5 * S);
            self.deeds.push((at, Deed::Mood(lens, Mood::Silent)));
            self.window(Some(lens), at - 200 * MS, at + 14 * S, vec![GapCause::CameraStalled], true);
            return;
        }
        let (mood, then) = match dice.within(0, 3) {
            0 => (Mood::Up, GapCause::CameraBrokeOff),
            1 => (Mood::Absent, GapCause::CameraAbsent),
            _ => (Mood::Refusing, GapCause::CameraRefused),
        };
        self.deeds.push((at, Deed::BreakOff(lens, mood)));
        self.deeds.push((back, Deed::Mood(lens, Mood::Up)));
        // Attempts at about 1, 3, 7 and 15 s, each up to a fifth later; then up to a group of pictures. Before it, frames
        // that are decoded late are missing.
        let to = back + 12 * S;
        self.window(Some(lens), at - 200 * MS, to, vec![GapCause::CameraBrokeOff, then], true);
    }

    fn disk_error(&mut self, dice: &mut Dice) {
        for _ in 0..dice.within(1, 3) {
            let lens = dice.within(0, 2) as usize;
            let at = dice.within(3 * S, self.first - S);
            let deed = if dice.one_in(2) { Deed::SyncError(lens) } else { Deed::WriteError(lens) };
            self.deeds.push((at, deed));
            self.window(Some(lens), at - 1200 * MS, at + 4 * S, vec![GapCause::DiskError], false);
        }
    }

    fn disk_full(&mut self, dice: &mut Dice) {
        let at = dice.within(3 * S, self.first - 2 * S);
        let room = at + dice.within(S, 4 * S);
        self.deeds.push((at, Deed::DiskFull));
        self.deeds.push((room, Deed::RoomAgain));
        self.window(None, at - 1200 * MS, room + 10 * S, vec![GapCause::DiskFull], true);
    }

    fn slow_disk(&mut self, dice: &mut Dice) {
        let at = dice.within(3 * S, self.first - S);
        let time = dice.within(400 * MS, 9 * S);
        self.deeds.push((at, Deed::Stall(Duration::from_nanos(time as u64))));
        self.window(None, at - 2 * S, at + time + 4 * S, vec![GapCause::DiskSlow], false);
    }

    fn clock_step(&mut self, dice: &mut Dice) {
        let hours = if dice.one_in(2) { 1 } else { -1 } * dice.within(2, 50);
        self.deeds.push((dice.within(S, self.first), Deed::StepClock(hours * 3_600_000_000)));
    }

    fn window(&mut self, lens: Option<usize>, from: i64, to: i64, causes: Vec<GapCause>, must: bool) {
        self.windows.push(Window1 { lens, from, to, causes, must, ends: None });
    }
}

/// Of a world after its first life: what was only planned for later never happened.
fn forget_what_never_came(world: &mut World) {
    let ended = world.lives[0].ended;
    world.windows.retain(|w| w.from < ended);
    for w in &mut world.windows {
        w.must &= w.to + 2 * S < ended;
    }
}

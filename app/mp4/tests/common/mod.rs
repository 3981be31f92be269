//! Segments made for tests, from synthetic or real units, by the crate's own writer.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use mos_mp4::identity::FORMAT_VERSION;
use mos_mp4::time::{Timing, order};
use mos_mp4::{
    Checksum, Close, Fragment, FragmentSample, FragmentTrack, Header, Identity, Movie, Quality, Rotation, SampleEntry,
    Step, Ticks, Timescale, Track, UtcMapping, VIDEO_TIMESCALE, VideoCodec,
};

pub mod clips;
pub mod ffmpeg;
pub mod grow;
pub mod players;

/// A coded unit with its presentation time in ticks of its track, in decoding order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub pts: Ticks,
    pub sync: bool,
    pub data: Vec<u8>,
}

/// A segment under construction, held in memory.
#[derive(Clone, Debug)]
pub struct Built {
    pub file: Vec<u8>,
    pub movie: Movie,
    pub header_len: usize,
    /// End of each fragment.
    pub ends: Vec<usize>,
}

pub fn identity(lens: &str, seq: u32) -> Identity {
    Identity {
        version: FORMAT_VERSION,
        lens: lens.into(),
        run: 3,
        seq,
        boot: [7; 16],
        mono_start: 5_000_000_000,
        utc: Some(UtcMapping { micros: 1_795_000_000_000_000, quality: Quality::Ntp }),
    }
}

pub fn video_entry(config: &[u8]) -> SampleEntry {
    SampleEntry::Video {
        codec: VideoCodec::H264,
        width: 64,
        height: 48,
        pixel_aspect: (1, 1),
        config: config.to_vec(),
        colour: None,
    }
}

pub fn audio_entry(config: &[u8]) -> SampleEntry {
    SampleEntry::Aac { sample_rate: 48_000, channels: 1, config: config.to_vec() }
}

pub fn audio_track(entry: SampleEntry) -> Track {
    Track::new(2, Timescale::new(48_000).unwrap(), entry)
}

/// Groups of video units closed under reordering: everything later is presented later. Given in ticks.
pub fn closed_groups(units: &[Unit]) -> Vec<&[Unit]> {
    let mut groups = Vec::new();
    let mut start = 0;
    for i in 1..=units.len() {
        let most = units[start..i].iter().map(|u| u.pts).max();
        let least = units[i..].iter().map(|u| u.pts).min();
        if least.is_none_or(|l| Some(l) > most) {
            groups.push(&units[start..i]);
            start = i;
        }
    }
    groups
}

impl Built {
    /// Writes video (track 1) and audio (track 2, if there is an entry) in fragments of about `per` ticks of video.
    pub fn new(
        id: &Identity,
        video: (SampleEntry, &[Unit]),
        audio: Option<(SampleEntry, &[Unit])>,
        per: Ticks,
    ) -> Self {
        Self::turned(id, video, audio, per, Rotation::None)
    }

    /// The same with a rotation of its pictures.
    pub fn turned(
        id: &Identity,
        video: (SampleEntry, &[Unit]),
        audio: Option<(SampleEntry, &[Unit])>,
        per: Ticks,
        rotation: Rotation,
    ) -> Self {
        let track = Track { rotation, ..Track::new(1, VIDEO_TIMESCALE, video.0) };
        let mut movie = Movie { shown_from: 0, tracks: vec![track] };
        let mut sound = audio.as_ref().map_or(&[][..], |a| a.1);
        let rate = 48_000;
        if let Some((entry, _)) = audio {
            movie.tracks.push(audio_track(entry));
        }
        let header = Header::new(id, &movie).unwrap();
        let mut built = Self { header_len: header.bytes.len(), file: header.bytes, movie, ends: Vec::new() };
        let groups = closed_groups(video.1);
        let mut pending: Vec<Unit> = Vec::new();
        for (i, group) in groups.iter().enumerate() {
            pending.extend_from_slice(group);
            let next = groups.get(i + 1).map(|g| g.iter().map(|u| u.pts).min().unwrap());
            let first = pending.iter().map(|u| u.pts).min().unwrap();
            let step = pending.iter().map(|u| u.pts).max().unwrap() - first;
            if next.is_none_or(|n| n - first >= per) {
                let spacing = if pending.len() > 1 { step / (pending.len() as i64 - 1) } else { 3000 };
                let next = next.unwrap_or(first + step + spacing.max(1));
                let until = VIDEO_TIMESCALE.rescale(next, Timescale::new(rate).unwrap());
                let take = sound.iter().take_while(|u| u.pts < until).count();
                let (now, later) = sound.split_at(take);
                sound = later;
                built.fragment(&std::mem::take(&mut pending), next, now);
            }
        }
        built
    }

    fn fragment(&mut self, video: &[Unit], next: Ticks, audio: &[Unit]) {
        let pts: Vec<_> = video.iter().map(|u| u.pts).collect();
        let timing = order(&pts, next);
        let sample = |(u, t): (&Unit, &Timing)| FragmentSample {
            size: u.data.len() as u32,
            duration: t.duration,
            cts: t.cts,
            sync: u.sync,
        };
        let pictures: Vec<_> = video.iter().zip(&timing).map(sample).collect();
        let sounds: Vec<_> = audio
            .iter()
            .map(|u| FragmentSample { size: u.data.len() as u32, duration: 1024, cts: 0, sync: true })
            .collect();
        let mut tracks =
            vec![FragmentTrack { id: 1, description: 1, dts: timing.first().map_or(0, |t| t.dts), samples: &pictures }];
        if let Some(first) = audio.first() {
            tracks.push(FragmentTrack { id: 2, description: 1, dts: first.pts, samples: &sounds });
        }
        let mut sum = Checksum::new();
        video.iter().chain(audio).for_each(|u| sum.update(&u.data));
        let f = Fragment::new(self.ends.len() as u32 + 1, &tracks, sum.finish()).unwrap();
        f.enter(&mut self.movie, self.file.len() as u64, &tracks).unwrap();
        self.file.extend_from_slice(&f.head);
        video.iter().chain(audio).for_each(|u| self.file.extend_from_slice(&u.data));
        self.ends.push(self.file.len());
    }

    pub fn close(&self) -> Close {
        Close::new(&self.movie, self.file.len() as u64)
    }

    /// The file after step 1 of the close.
    pub fn prepared(&self) -> Vec<u8> {
        let close = self.close();
        let mut file = self.file.clone();
        put(&mut file, close.size_write().0, &close.size_word);
        file.extend_from_slice(&close.guard);
        file.extend_from_slice(&close.moov);
        file
    }

    /// The file after both steps.
    pub fn closed(&self) -> Vec<u8> {
        let (at, word) = self.close().flip();
        let mut file = self.prepared();
        put(&mut file, at, &word);
        file
    }
}

/// Overwrites or extends.
pub fn put(file: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let at = at as usize;
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Applies one step of a recovery.
pub fn apply(file: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Truncate(len) => file.resize(*len as usize, 0),
        Step::Write { offset, bytes } => put(file, *offset, bytes),
        Step::Sync => {}
    }
}

/// Units with recognisable contents: `gop` pictures from sync to sync, `b` reordered ones between two others.
pub fn synthetic(count: usize, gop: usize, b: usize, step: Ticks) -> Vec<Unit> {
    let mut units = Vec::new();
    let unit = |shown: usize| Unit {
        pts: shown as Ticks * step,
        sync: shown.is_multiple_of(gop),
        data: format!("<picture {shown}>").repeat(1 + shown % 5).into_bytes(),
    };
    let mut at = 0;
    while at < count {
        let last = (at + gop).min(count);
        units.push(unit(at));
        let mut next = at + 1;
        while next < last {
            let anchor = (next + b).min(last - 1);
            units.push(unit(anchor));
            units.extend((next..anchor).map(unit));
            next = anchor + 1;
        }
        at = last;
    }
    units
}

/// Audio units of 1024 samples at 48 kHz from sample `from` on.
pub fn synthetic_audio(count: usize, from: Ticks) -> Vec<Unit> {
    (0..count)
        .map(|i| Unit { pts: from + i as Ticks * 1024, sync: true, data: format!("<sound {i}>").into_bytes() })
        .collect()
}

/// Bytes of a sample in `file`.
pub fn bytes_of(file: &[u8], offset: u64, size: u32) -> &[u8] {
    &file[offset as usize..offset as usize + size as usize]
}

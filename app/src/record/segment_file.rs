//! One segment being filled: units become samples, samples become a fragment per tick, all of them the `moov` of the close.
//!
//! Used by [`super::line`] on the writer's thread only. It decides nothing: where a segment begins and ends is told to it.

use std::io::IoSlice;
use std::sync::Arc;

use mos_hal::clock::{ClockQuality, Mono};
use mos_hal::media::{AccessUnit, AudioFormat, Law, LensId, TrackFormat, VideoCodec, VideoFormat};
use mos_mp4::fragment::{Checksum, Fragment, FragmentSample};
use mos_mp4::layout::FREE_OFFSET;
use mos_mp4::movie::Movie;
use mos_mp4::{
    Close, FragmentTrack, Header, Identity, Quality, SampleEntry, Ticks, Timescale, Track, UtcMapping, VIDEO_TIMESCALE,
};

use crate::archive::{
    Archive, ArchiveError, NewSegment, OpenSegment, Progress, SegmentHeader, SegmentIdentity, TickReport,
};

use super::timing::DecodeTimes;

const VIDEO_TRACK: u32 = 1;
const AUDIO_TRACK: u32 = 2;

/// A unit with the time it is recorded with.
#[derive(Clone, Debug)]
pub(crate) struct Timed {
    pub(crate) unit: AccessUnit,
    pub(crate) pts: Mono,
}

/// What a segment begins with.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) lens: &'a LensId,
    /// Capture time of decode time 0.
    pub(crate) start: Mono,
    /// Where presentation begins; later than `start` if a group of pictures is repeated.
    pub(crate) shown_from: Mono,
    pub(crate) video: &'a VideoFormat,
    pub(crate) audio: Option<&'a AudioFormat>,
    /// Reorder depth in frames.
    pub(crate) depth: usize,
    /// Distance of two frames in nanoseconds.
    pub(crate) step: i64,
    pub(crate) expected_bytes: u64,
}

/// Units of a segment by how safe they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Units {
    /// Not written yet.
    pub(crate) pending: u64,
    /// Written, not synced.
    pub(crate) written: u64,
}

pub(crate) struct SegmentFile {
    open: OpenSegment,
    movie: Movie,
    fragments: u32,
    start: Mono,
    video: Lane,
    audio: Option<Lane>,
    max_pts: Mono,
    step: i64,
    written: Reach,
    durable: Reach,
    /// Where the last frame's time ends once the segment is closed.
    shown_to: Option<Mono>,
    units: Units,
    closing: bool,
}

/// How far what is safe to some degree goes.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    /// Where its last frame in output order ends.
    pub(crate) end: Mono,
    /// Spans before that whose frames are decoded later and are not in it.
    pub(crate) open: Vec<(Mono, Mono)>,
}

struct Lane {
    id: u32,
    timescale: Timescale,
    times: DecodeTimes,
    queued: Vec<Queued>,
    samples: Vec<FragmentSample>,
    last_duration: Ticks,
}

struct Queued {
    unit: AccessUnit,
    dts: Ticks,
    pts: Ticks,
    sync: bool,
    /// A repetition of what the segment before holds.
    copy: bool,
}

impl SegmentFile {
    pub(crate) fn begin(archive: &Archive, plan: &Plan<'_>) -> Result<Self, ArchiveError> {
        let mut movie =
            Movie { shown_from: VIDEO_TIMESCALE.ticks(plan.shown_from.since(plan.start)), ..Movie::default() };
        let rotation = mos_mp4::Rotation::of_degrees(plan.video.rotation.degrees()).unwrap_or_default();
        let video = Track::new(VIDEO_TRACK, VIDEO_TIMESCALE, video_entry(plan.video));
        movie.tracks.push(Track { rotation, ..video });
        let audio_scale = plan.audio.and_then(|a| Timescale::new(a.sample_rate()));
        if let Some((format, scale)) = plan.audio.zip(audio_scale) {
            movie.tracks.push(Track::new(AUDIO_TRACK, scale, audio_entry(format)));
        }
        let new = NewSegment {
            lens: plan.lens.clone(),
            start: plan.start,
            shown_from: plan.shown_from,
            codec: plan.video.codec,
            width: plan.video.width,
            height: plan.video.height,
            expected_bytes: plan.expected_bytes,
        };
        let open = archive.begin_segment(&new, |identity| header(identity, &movie))?;
        let video_times = DecodeTimes::new(plan.depth, VIDEO_TIMESCALE.ticks(plan.step), 0);
        Ok(Self {
            open,
            movie,
            fragments: 0,
            start: plan.start,
            video: Lane::new(VIDEO_TRACK, VIDEO_TIMESCALE, video_times),
            audio: audio_scale.map(|scale| Lane::new(AUDIO_TRACK, scale, DecodeTimes::new(0, 1, 0))),
            max_pts: plan.start,
            step: plan.step,
            written: Reach { end: plan.shown_from, open: Vec::new() },
            durable: Reach { end: plan.shown_from, open: Vec::new() },
            shown_to: None,
            units: Units::default(),
            closing: false,
        })
    }

    pub(crate) fn id(&self) -> &crate::archive::ids::SegmentId {
        self.open.id()
    }

    pub(crate) fn len(&self) -> u64 {
        self.open.len()
    }

    /// Whether no fragment was written yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.fragments == 0
    }

    pub(crate) fn has_audio(&self) -> bool {
        self.audio.is_some()
    }

    pub(crate) fn units(&self) -> Units {
        self.units
    }

    /// How far it is written.
    pub(crate) fn written(&self) -> &Reach {
        &self.written
    }

    /// How far it survives a power cut.
    pub(crate) fn durable(&self) -> &Reach {
        &self.durable
    }

    /// Where the footage ends, written or not.
    pub(crate) fn end(&self) -> Mono {
        Mono(self.max_pts.0 + self.step)
    }

    /// Capture time of the last frame in output order.
    pub(crate) fn max_pts(&self) -> Mono {
        self.max_pts
    }

    /// Spans whose frames belong before frames that are here, and have not come.
    pub(crate) fn open_places(&self) -> Vec<(Mono, Mono)> {
        let at = |ticks| Mono(self.start.0 + VIDEO_TIMESCALE.nanos(ticks));
        self.video.times.open_places().map(|(from, to)| (at(from), at(to))).collect()
    }

    /// The time that is missing if the segment is not closed: behind its last durable frame.
    pub(crate) fn at_stake(&self) -> (Mono, Mono) {
        (self.durable.end, self.shown_to.unwrap_or(self.written.end))
    }

    pub(crate) fn push_video(&mut self, timed: Timed, sync: bool, copy: bool) {
        self.max_pts = self.max_pts.max(timed.pts);
        self.units.pending += u64::from(!copy);
        self.video.push(timed, self.start, sync, copy);
    }

    /// Takes an audio unit if it belongs here: `false` if it is from before the segment or there is no audio track.
    pub(crate) fn push_audio(&mut self, timed: Timed) -> bool {
        if timed.pts < self.start || self.closing {
            return false;
        }
        let Some(lane) = &mut self.audio else { return false };
        self.units.pending += 1;
        lane.push(timed, self.start, true, false);
        true
    }

    /// Writes what is queued as one fragment. `next` is the capture time of the video frame that follows, if known.
    pub(crate) fn flush(&mut self, next: Option<Mono>) -> Result<(), ArchiveError> {
        let after_max = next.map(|n| VIDEO_TIMESCALE.ticks(n.since(self.max_pts)).max(1));
        self.video.cut(after_max);
        if let Some(audio) = &mut self.audio {
            let last = audio.queued.last().and_then(|q| Some(samples(audio_of(&q.unit.format)?, q.unit.data.len())));
            audio.cut(last);
        }
        let lanes = [Some(&self.video), self.audio.as_ref()];
        let queued = || lanes.iter().flatten().flat_map(|l| &l.queued);
        if queued().next().is_none() {
            return Ok(());
        }
        let mut checksum = Checksum::new();
        queued().for_each(|q| checksum.update(&q.unit.data));
        let tracks: Vec<FragmentTrack<'_>> = lanes.iter().flatten().filter_map(|l| l.track()).collect();
        let fragment = Fragment::new(self.fragments + 1, &tracks, checksum.finish()).map_err(|e| self.refused(&e))?;
        let mut parts =
            Vec::with_capacity(1 + self.video.queued.len() + self.audio.as_ref().map_or(0, |a| a.queued.len()));
        parts.push(IoSlice::new(&fragment.head));
        parts.extend(queued().map(|q| IoSlice::new(&q.unit.data)));
        let frames = self.video.queued.iter().filter(|q| !q.copy).count() as u32;
        let at = self.open.len();
        let end = Mono(self.max_pts.0 + next.map_or(self.step, |n| n.since(self.max_pts).max(0)));
        self.open.append(&parts, end, frames)?;
        fragment.enter(&mut self.movie, at, &tracks).map_err(|e| self.refused(&e))?;
        self.fragments += 1;
        self.written = Reach { end, open: self.open_places() };
        self.units.written += self.units.pending;
        self.units.pending = 0;
        self.video.written();
        if let Some(audio) = &mut self.audio {
            audio.written();
        }
        Ok(())
    }

    /// Tells where the last frame's time ends: at the next segment's first frame, or a frame's distance later.
    pub(crate) fn end_at(&mut self, next: Option<Mono>) {
        let last = next.map_or(self.step, |n| n.since(self.max_pts).max(0));
        let end = Mono(self.max_pts.0 + last);
        self.shown_to = Some(end);
        self.open.end_at(end);
        let last = u32::try_from(VIDEO_TIMESCALE.ticks(last)).unwrap_or(u32::MAX).max(1);
        if let Some(track) = self.movie.track_mut(VIDEO_TRACK) {
            track.table.set_last_duration(last);
        }
    }

    /// Step 1 of the close.
    pub(crate) fn begin_close(&mut self) -> Result<(), ArchiveError> {
        let close = Close::new(&self.movie, self.open.len());
        self.open.begin_close(close)?;
        self.closing = true;
        Ok(())
    }

    /// Gives up what is queued and not written.
    pub(crate) fn forget_pending(&mut self) {
        self.units.pending = 0;
        self.video.queued.clear();
        if let Some(audio) = &mut self.audio {
            audio.queued.clear();
        }
    }

    /// Whether step 1 of the close was written.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Step 2 of the close.
    pub(crate) fn commit_close(&mut self) -> Result<(), ArchiveError> {
        self.open.commit_close()
    }

    /// Takes in a group commit; the number of units that became durable by it.
    pub(crate) fn after_sync(&mut self, report: &TickReport) -> (Progress, u64) {
        let progress = self.open.after_sync(report);
        let stored = match progress {
            Progress::Durable | Progress::ReadyToCommit | Progress::Closed => {
                self.durable.clone_from(&self.written);
                std::mem::take(&mut self.units.written)
            }
            Progress::Untouched | Progress::Failed(_) => 0,
        };
        (progress, stored)
    }

    /// A fragment that cannot be written: a bug or a unit of absurd size; the segment ends there.
    fn refused(&self, why: &dyn std::fmt::Display) -> ArchiveError {
        ArchiveError::Damaged { path: self.open.id().media_path(), detail: why.to_string() }
    }
}

impl Lane {
    fn new(id: u32, timescale: Timescale, times: DecodeTimes) -> Self {
        Self { id, timescale, times, queued: Vec::new(), samples: Vec::new(), last_duration: 0 }
    }

    fn push(&mut self, timed: Timed, start: Mono, sync: bool, copy: bool) {
        let times = self.times.next(self.timescale.ticks(timed.pts.since(start)));
        self.queued.push(Queued { unit: timed.unit, dts: times.dts, pts: times.pts, sync, copy });
    }

    /// Prepares the samples of the fragment. The last one lasts `last` ticks if that is known; else a little less than a
    /// frame, so that the next fragment may begin where its first frame belongs.
    fn cut(&mut self, last: Option<Ticks>) {
        let guess = self.times.step() - self.times.step() / 8;
        let last = last.unwrap_or(guess).max(1);
        self.samples.clear();
        for (n, q) in self.queued.iter().enumerate() {
            let duration = self.queued.get(n + 1).map_or(last, |next| next.dts - q.dts);
            self.samples.push(FragmentSample {
                size: u32::try_from(q.unit.data.len()).unwrap_or(u32::MAX),
                duration: u32::try_from(duration).unwrap_or(u32::MAX),
                cts: i32::try_from(q.pts - q.dts).unwrap_or(0),
                sync: q.sync,
            });
        }
        self.last_duration = last;
    }

    fn track(&self) -> Option<FragmentTrack<'_>> {
        let first = self.queued.first()?;
        Some(FragmentTrack { id: self.id, description: 1, dts: first.dts, samples: &self.samples })
    }

    fn written(&mut self) {
        if let Some(last) = self.queued.last() {
            self.times.not_before(last.dts + self.last_duration);
        }
        self.queued.clear();
    }
}

fn header(identity: &SegmentIdentity, movie: &Movie) -> SegmentHeader {
    let quality = match identity.mapping.quality {
        ClockQuality::Unset => Quality::Unset,
        ClockQuality::Rtc => Quality::Rtc,
        ClockQuality::Ntp => Quality::Ntp,
        ClockQuality::Gnss => Quality::Gnss,
    };
    let utc = UtcMapping { micros: identity.mapping.utc_of(identity.start).0, quality };
    let identity = Identity {
        version: mos_mp4::identity::FORMAT_VERSION,
        lens: identity.id.lens.to_string(),
        run: identity.id.run.0,
        seq: identity.id.seq.0,
        boot: identity.boot.0,
        mono_start: identity.start.0,
        utc: Some(utc),
    };
    // A lens id fits by its type; were it otherwise, an empty header makes the segment fail at once.
    let bytes = Header::new(&identity, movie).map(|h| h.bytes).unwrap_or_default();
    SegmentHeader { bytes, free_offset: FREE_OFFSET }
}

fn video_entry(format: &VideoFormat) -> SampleEntry {
    SampleEntry::Video {
        codec: match format.codec {
            VideoCodec::H264 => mos_mp4::VideoCodec::H264,
            VideoCodec::H265 => mos_mp4::VideoCodec::H265,
        },
        width: u16::try_from(format.width).unwrap_or(u16::MAX),
        height: u16::try_from(format.height).unwrap_or(u16::MAX),
        pixel_aspect: format.pixel_aspect,
        config: format.config.to_vec(),
        colour: None,
    }
}

/// Samples of each channel in a unit of so many bytes.
fn samples(format: &AudioFormat, bytes: usize) -> Ticks {
    match format {
        AudioFormat::Aac { .. } => 1024,
        AudioFormat::G711 { channels, .. } => i64::try_from(bytes).unwrap_or(i64::MAX) / i64::from((*channels).max(1)),
    }
}

fn audio_entry(format: &AudioFormat) -> SampleEntry {
    match format {
        AudioFormat::Aac { sample_rate, channels, config } => {
            SampleEntry::Aac { sample_rate: *sample_rate, channels: *channels, config: config.to_vec() }
        }
        AudioFormat::G711 { law, sample_rate, channels } => {
            let law = match law {
                Law::A => mos_mp4::Law::A,
                Law::Mu => mos_mp4::Law::Mu,
            };
            SampleEntry::G711 { law, sample_rate: *sample_rate, channels: *channels }
        }
    }
}

/// The video format in a track format.
pub(crate) fn video_of(format: &Arc<TrackFormat>) -> Option<&VideoFormat> {
    match &**format {
        TrackFormat::Video(v) => Some(v),
        TrackFormat::Audio(_) => None,
    }
}

/// The audio format in a track format.
pub(crate) fn audio_of(format: &Arc<TrackFormat>) -> Option<&AudioFormat> {
    match &**format {
        TrackFormat::Audio(a) => Some(a),
        TrackFormat::Video(_) => None,
    }
}

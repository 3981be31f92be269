//! `file:`, an MP4 file played in real time as if it were a camera, not transcoded.
//!
//! Promises that every picture of the file comes once per round, in decoding order, at its own pace, and that presentation
//! times go on rising when it starts again.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSink;

use super::live::{self, Live};
use super::outlet::Outlet;
use super::samples::{self, Samples};
use crate::clock::Mono;
use crate::gst as common;
use crate::media::{AccessUnit, TrackFormat};
use crate::source::SourceError;

/// How long one look for the next sample takes at most; bounds how late a stop is noticed.
const LOOK: gst::ClockTime = gst::ClockTime::from_mseconds(100);
/// Lateness after which the schedule starts anew instead of catching up, in ns: the machine was suspended.
const SUSPENDED: i64 = 5_000_000_000;

/// Starts playing.
pub(super) fn open(path: &Path, looped: bool, audio: bool, outlet: &Arc<Outlet>) -> Result<Live, SourceError> {
    if let Err(e) = std::fs::File::open(path) {
        let (what, detail) = (outlet.what.clone(), e.to_string());
        return Err(match e.kind() {
            std::io::ErrorKind::NotFound => SourceError::Absent { what, detail },
            _ => SourceError::Refused { what, detail },
        });
    }
    let (pipeline, tracks) = build(path, audio, outlet).map_err(|why| outlet.unsupported(why))?;
    let player = Player {
        pipeline: pipeline.downgrade(),
        found: tracks,
        tracks: Vec::new(),
        outlet: Arc::clone(outlet),
        looped,
        start: None,
        round: 0,
        end: 0,
    };
    let live = Live::start(&pipeline, outlet, live::Kind::Played, ())?;
    let spawned = std::thread::Builder::new().name("mos-file".into()).spawn(move || player.run());
    spawned.map_err(|e| outlet.broken(format!("no thread: {e}")))?;
    Ok(live)
}

/// The demultiplexer; its branches follow when it has read the file's header.
fn build(path: &Path, audio: bool, outlet: &Arc<Outlet>) -> Result<(gst::Pipeline, mpsc::Receiver<Track>), String> {
    common::init()?;
    let pipeline = common::build("filesrc name=file ! qtdemux name=demux")?;
    let src: gst::Element = common::named(&pipeline, "file")?;
    src.set_property("location", path.to_str().ok_or("the path is not UTF-8")?);
    let demux: gst::Element = common::named(&pipeline, "demux")?;
    let (found, tracks) = mpsc::channel();
    // Dropped when the demultiplexer has no more streams, so that the player knows the set is complete.
    let found = Arc::new(Mutex::new(Some(found)));
    let complete = Arc::clone(&found);
    let parent = pipeline.downgrade();
    let on_pad = Arc::clone(outlet);
    demux.connect_pad_added(move |_, pad| {
        let (Some(pipeline), Some(caps)) = (parent.upgrade(), pad.current_caps()) else { return };
        let Some(branch) = branch(&caps, audio) else { return };
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        match connect(&pipeline, pad, &branch.text) {
            Ok(sink) => {
                let track = Track { video: branch.video, sink, samples: Samples::default(), next: None, over: false };
                if let Some(found) = found.as_mut() {
                    // A player that is gone needs no tracks.
                    let _ = found.send(track);
                }
            }
            Err(why) => on_pad.end(on_pad.unsupported(why)),
        }
    });
    demux.connect_no_more_pads(move |_| {
        complete.lock().unwrap_or_else(PoisonError::into_inner).take();
    });
    Ok((pipeline, tracks))
}

struct Branch {
    video: bool,
    text: String,
}

/// What follows a stream of the file, if it is to be played.
fn branch(caps: &gst::Caps, audio: bool) -> Option<Branch> {
    let name = caps.structure(0)?.name().as_str();
    let (video, parser) = match name {
        "video/x-h264" => (true, format!("h264parse config-interval=0 ! {}", samples::H264)),
        "video/x-h265" => (true, format!("h265parse config-interval=0 ! {}", samples::H265)),
        "audio/mpeg" if audio => (false, format!("aacparse ! {}", samples::AAC)),
        samples::A_LAW | samples::MU_LAW if audio => (false, name.to_owned()),
        _ => return None,
    };
    // The queue lets one track run ahead of the other as far as the file is interleaved.
    let queue = "queue max-size-buffers=0 max-size-bytes=16777216 max-size-time=4000000000";
    let sink = "appsink name=out sync=false async=false qos=false enable-last-sample=false max-buffers=8";
    Some(Branch { video, text: format!("{queue} ! {parser} ! {sink}") })
}

/// Puts a branch of elements that ends in a sink named `out` behind a pad.
pub(super) fn connect(pipeline: &gst::Pipeline, pad: &gst::Pad, branch: &str) -> Result<AppSink, String> {
    let bin = gst::parse::bin_from_description(branch, true).map_err(|e| e.message().to_owned())?;
    let sink = bin.by_name("out").and_then(|s| s.downcast::<AppSink>().ok()).ok_or("no sink")?;
    pipeline.add(&bin).map_err(|e| e.to_string())?;
    bin.sync_state_with_parent().map_err(|e| e.to_string())?;
    let input = bin.static_pad("sink").ok_or("no input")?;
    pad.link(&input).map_err(|e| e.to_string())?;
    Ok(sink)
}

/// One stream of the file.
struct Track {
    video: bool,
    sink: AppSink,
    samples: Samples,
    next: Option<AccessUnit>,
    /// At its end for this round.
    over: bool,
}

/// The thread that paces.
struct Player {
    pipeline: gst::glib::WeakRef<gst::Pipeline>,
    found: mpsc::Receiver<Track>,
    tracks: Vec<Track>,
    outlet: Arc<Outlet>,
    looped: bool,
    /// When the first picture was due, minus its time in the file.
    start: Option<i64>,
    /// Where this round starts, in ns since the first.
    round: i64,
    /// Latest end of a unit in this round.
    end: i64,
}

impl Player {
    fn run(mut self) {
        if let Some(why) = self.play() {
            self.outlet.end(why);
        }
    }

    /// Plays until the end of all rounds; `None` if the source was over by itself.
    fn play(&mut self) -> Option<SourceError> {
        loop {
            match self.found.recv_timeout(Duration::from_nanos(LOOK.nseconds())) {
                Ok(track) => self.tracks.push(track),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) if self.outlet.is_over() => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
        if !self.tracks.iter().any(|t| t.video) {
            return Some(self.outlet.unsupported("it holds no H.264 or H.265 video"));
        }
        loop {
            match self.next() {
                Ok(Some(unit)) => {
                    let due = unit.pts.unwrap_or(self.outlet.clock.mono());
                    if !self.outlet.wait_until(due) {
                        return None;
                    }
                    self.deliver(unit);
                }
                Ok(None) if self.outlet.is_over() => return None,
                Ok(None) if self.end == 0 => return Some(self.outlet.unsupported("its video has no pictures")),
                Ok(None) if !self.looped => return Some(SourceError::Ended { what: self.outlet.what.clone() }),
                Ok(None) => {
                    if let Err(why) = self.rewind() {
                        return Some(self.outlet.broken(why));
                    }
                }
                Err(why) => return Some(self.outlet.unsupported(why)),
            }
        }
    }

    fn deliver(&mut self, mut unit: AccessUnit) {
        let now = self.outlet.clock.mono();
        unit.arrival = now;
        let late = unit.pts.map_or(0, |pts| now.since(pts));
        if late > SUSPENDED {
            self.start = self.start.map(|s| s + late);
            for next in self.tracks.iter_mut().filter_map(|t| t.next.as_mut()) {
                next.pts = next.pts.map(|p| Mono(p.0 + late));
            }
            unit.pts = unit.pts.map(|p| Mono(p.0 + late));
        }
        self.outlet.unit(unit);
    }

    /// The unit of all tracks that is due first; `None` at the end of the round or of the source.
    fn next(&mut self) -> Result<Option<AccessUnit>, String> {
        loop {
            for i in 0..self.tracks.len() {
                self.look(i)?;
            }
            if self.outlet.is_over() {
                return Ok(None);
            }
            let waiting = self.tracks.iter().any(|t| t.next.is_none() && !t.over);
            let first =
                self.tracks.iter_mut().filter(|t| t.next.is_some()).min_by_key(|t| t.next.as_ref().map(|u| u.pts));
            match first {
                // A track that is only late to come may be due first, unless it has been waited for.
                Some(track) => return Ok(track.next.take()),
                None if waiting => {}
                None => return Ok(None),
            }
        }
    }

    /// Fetches the next unit of a track, if it has none waiting.
    fn look(&mut self, i: usize) -> Result<(), String> {
        let track = &mut self.tracks[i];
        if track.next.is_some() || track.over {
            return Ok(());
        }
        let Some(sample) = track.sink.try_pull_sample(LOOK) else {
            track.over = track.sink.is_eos();
            return Ok(());
        };
        let (round, now) = (self.round, self.outlet.clock.mono());
        let (start, end) = (&mut self.start, &mut self.end);
        let mut in_file = 0;
        let unit = track.samples.unit(&sample, now, |running| {
            in_file = running;
            let start = *start.get_or_insert(now.0.saturating_sub(running));
            Mono(start.saturating_add(round).saturating_add(running))
        })?;
        let nominal = match &*unit.format {
            TrackFormat::Video(v) => v.frame_duration,
            TrackFormat::Audio(_) => None,
        };
        let duration = unit.duration.or(nominal).unwrap_or(40_000_000);
        *end = (*end).max(in_file.saturating_add(i64::try_from(duration).unwrap_or(0)));
        track.next = Some(unit);
        Ok(())
    }

    /// Back to the beginning; the next round follows this one without a hole.
    fn rewind(&mut self) -> Result<(), String> {
        let Some(pipeline) = self.pipeline.upgrade() else { return Ok(()) };
        self.round += self.end;
        self.end = 0;
        for track in &mut self.tracks {
            track.over = false;
        }
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
        pipeline.seek_simple(flags, gst::ClockTime::ZERO).map_err(|_| "it cannot be started again".to_owned())
    }
}

//! `mos frames LENS`: live frames from the frame bus, as any other process reads them.
//!
//! The daemon is asked where the lens is published; frames come from there without passing the API. Latency is the time
//! from capture to the moment that the frame is here.

mod png;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use mos_frame::{Received, ReceivedFrame, SubscribeError, Subscriber, Wish, sys};
use serde::Serialize;

use super::client::Client;
use super::{Failure, Outcome, Report, print};
use crate::http::{FramesView, SubscriberView};

#[derive(Debug, Args)]
pub(super) struct FramesArgs {
    /// The lens
    lens: String,
    /// How long to read, in seconds
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Write the first frame as a PNG picture
    #[arg(long, value_name = "FRAME.png")]
    dump: Option<PathBuf>,
    #[command(flatten)]
    report: Report,
}

/// What is told.
#[derive(Debug, Serialize)]
struct Told {
    lens: String,
    /// Format, e.g. `NV12`, width and height; absent if no frame came.
    format: Option<String>,
    width: Option<u32>,
    height: Option<u32>,
    /// Whether frames were the camera's own buffers.
    trusted: bool,
    /// Frames that came and were intact after they were looked at.
    delivered: u64,
    /// Frames that newer ones took the place of.
    replaced: u64,
    /// Frames that the camera took back.
    revoked: u64,
    /// Absent if no frame came.
    latency_us: Option<Latency>,
}

/// Microseconds from capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Latency {
    p50: u64,
    p99: u64,
}

pub(super) async fn execute(client: &Client, args: &FramesArgs) -> Outcome {
    let published: FramesView = client.get("/v1/frames").await?;
    let lens = published.lenses.iter().find(|lens| lens.lens == args.lens).ok_or_else(|| {
        let known: Vec<&str> = published.lenses.iter().map(|lens| lens.lens.as_str()).collect();
        let known = if known.is_empty() { "no lens is".to_owned() } else { format!("there are {}", known.join(", ")) };
        Failure::Failed(format!("no frames of '{}' are published; {known}", args.lens))
    })?;
    let mut reader = Reader::connect(Path::new(&lens.socket))?;
    reader.read(Duration::from_secs(args.seconds), args.dump.as_deref())?;
    // What the publisher counted of this process.
    let published: FramesView = client.get("/v1/frames").await?;
    let all = published.lenses.iter().filter(|lens| lens.lens == args.lens).flat_map(|lens| &lens.subscribers);
    let pid = std::process::id().cast_signed();
    let told = reader.told(&args.lens, all.into_iter().find(|subscriber| subscriber.pid == pid));
    if told.delivered == 0 && !args.report.json {
        return Err(Failure::Failed(format!("no frame of '{}' came in {} s", args.lens, args.seconds)));
    }
    if args.report.json { print::json(&told) } else { print::line(&told.text(args.seconds)) }
}

/// A subscription and what came of it.
struct Reader {
    subscriber: Subscriber,
    socket: PathBuf,
    latencies: Vec<u64>,
    lost: u64,
    picture: Option<mos_frame::Picture>,
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

impl Reader {
    fn connect(socket: &Path) -> Result<Self, Failure> {
        let subscriber = Subscriber::connect(socket, Wish::default()).map_err(failed)?;
        Ok(Self { subscriber, socket: socket.to_owned(), latencies: Vec::new(), lost: 0, picture: None })
    }

    fn read(&mut self, time: Duration, dump: Option<&Path>) -> Outcome {
        let end = Instant::now() + time;
        // Copied at once and drawn at the end: drawing takes longer than a frame may be held.
        let mut copied = None;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match self.subscriber.next(Some(left)) {
                Ok(Some(Received::Frame(frame))) => {
                    let latency = sys::monotonic().saturating_sub(frame.captured()) / 1000;
                    if dump.is_some() && copied.is_none() {
                        copied = self.copy(&frame)?.map(|planes| (frame.picture().clone(), planes));
                    }
                    if self.subscriber.is_intact(&frame) {
                        self.latencies.push(latency);
                        self.picture.get_or_insert_with(|| frame.picture().clone());
                    } else {
                        self.lost += 1;
                    }
                    self.subscriber.release(frame).map_err(failed)?;
                }
                Ok(_) => {}
                // The camera was opened anew: its buffers are others now.
                Err(SubscribeError::Goodbye(mos_frame::wire::Farewell::Reconfigured)) => {
                    self.subscriber = Subscriber::connect(&self.socket, Wish::default()).map_err(failed)?;
                }
                Err(e) => return Err(failed(e)),
            }
        }
        let Some(path) = dump else { return Ok(()) };
        let (picture, planes) =
            copied.ok_or_else(|| Failure::Failed(format!("no frame came for {}", path.display())))?;
        let drawn = png::of(&picture, &planes).map_err(Failure::Failed)?;
        std::fs::write(path, drawn).map_err(|e| Failure::Failed(format!("{}: {e}", path.display())))
    }

    /// The planes of a frame; none if the camera took it back meanwhile.
    fn copy(&mut self, frame: &ReceivedFrame) -> Result<Option<Vec<Vec<u8>>>, Failure> {
        let mut planes = Vec::new();
        for plane in 0..frame.picture().planes.len() {
            let mut bytes = Vec::new();
            if !self.subscriber.copy_plane(frame, plane, &mut bytes).map_err(failed)? {
                return Ok(None);
            }
            planes.push(bytes);
        }
        Ok(Some(planes))
    }

    fn told(mut self, lens: &str, seen: Option<&SubscriberView>) -> Told {
        self.latencies.sort_unstable();
        let rank = |percent: usize| {
            let at = (self.latencies.len() * percent).div_ceil(100).max(1) - 1;
            self.latencies.get(at).copied()
        };
        let latency_us = rank(50).zip(rank(99)).map(|(p50, p99)| Latency { p50, p99 });
        let picture = self.picture.as_ref();
        Told {
            lens: lens.to_owned(),
            format: picture.map(|picture| picture.fourcc.to_string()),
            width: picture.map(|picture| picture.width),
            height: picture.map(|picture| picture.height),
            trusted: self.subscriber.is_trusted(),
            delivered: self.latencies.len() as u64,
            replaced: seen.map_or(0, |seen| seen.replaced),
            revoked: seen.map_or(0, |seen| seen.revoked).max(self.lost),
            latency_us,
        }
    }
}

impl Told {
    fn text(&self, seconds: u64) -> String {
        let Self { lens, delivered, replaced, revoked, .. } = self;
        let what = match (&self.format, self.width, self.height) {
            (Some(format), Some(width), Some(height)) => format!(" {format} {width}x{height}"),
            _ => String::new(),
        };
        let class = if self.trusted { "the camera's own buffers" } else { "copies" };
        let latency = self
            .latency_us
            .map_or(String::new(), |Latency { p50, p99 }| format!(", {p50} µs after capture (p50), {p99} µs (p99)"));
        format!(
            "{lens}:{what}, {delivered} frames in {seconds} s{latency}; {replaced} replaced, {revoked} revoked; {class}"
        )
    }
}

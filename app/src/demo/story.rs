//! The demo's story, step by step. Each step asks the API as any client would and then looks at the files itself.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::DemoError;
use super::judge::{self, hold};
use super::kill::{UNSAVED, Watch, aftermath, back};
use super::listing::{a_frame, answers, found, last_of_run, micros, now_micros, of_lens, segments};
use super::recorder::Recorder;
use super::stage::{SEGMENT_SECONDS, Stage};
use crate::cli::client::{Client, ClientError};
use crate::error::Kind;
use crate::http::{ClipView, HealthView, SegmentPage, SegmentView, SnapshotView};
use crate::upload::failure::FailureKind;
use crate::upload::job::{Job, JobState};
use crate::upload::queue::hex;

/// The lenses of the demo.
pub const LENSES: [&str; 2] = ["road", "cabin"];
/// For the recorder to answer, and for anything that takes no recording time.
const SOON: Duration = Duration::from_secs(15);

/// The API tells whole microseconds, files tell ticks of 1/90000 s.
const ROUNDING_MICROS: i64 = 25;

/// What to show.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `road` comes from this file, `rtsp://` URL or `/dev/videoN`, not from the synthetic scene.
    pub input: Option<String>,
    /// How much every lens records before the recorder is killed, in seconds.
    pub seconds: u64,
    /// Keep everything in this folder, which must be new or empty.
    pub keep: Option<PathBuf>,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Report {
    /// One row per lens, in the order of [`LENSES`].
    pub lenses: Vec<LensFigures>,
    /// One row per file that was made.
    pub files: Vec<FileFigures>,
    /// From the kill to the first durable frame of every lens again.
    pub back_after: Duration,
}

/// A lens over the whole demo.
#[derive(Clone, Debug)]
pub struct LensFigures {
    /// Its id.
    pub lens: String,
    /// Segments at the end.
    pub segments: usize,
    /// Recorded footage.
    pub footage: Duration,
    /// Frames.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
    /// Capture time from the last frame that is left to the newest one that the source had delivered.
    pub lost: Duration,
    /// How late the source delivers: from a frame's capture until it is durable, at its best.
    pub lateness: Duration,
    /// From the last frame before the kill to the first one after it.
    pub gap: Duration,
    /// The gap's causes as listed.
    pub causes: Vec<String>,
}

/// A file that was made.
#[derive(Clone, Debug)]
pub struct FileFigures {
    /// What it is.
    pub what: String,
    /// Its name.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// Time from asking to having it.
    pub took: Duration,
    /// What was checked.
    pub checked: String,
}

/// Plays the demo; `say` is told each step when it held.
pub async fn tell(options: &Options, say: &dyn Fn(&str)) -> Result<Report, DemoError> {
    let stage = Stage::build(options.input.as_deref(), options.keep.as_deref())?;
    say(&format!("road: {}; cabin: 720p camera over RTSP; SFTP server at {}", stage.road, stage.sftp.address()));
    let mut files = Vec::new();

    let mut recorder = Recorder::start(&stage)?;
    recorder.until("the recorder's first answer", SOON, answers).await?;
    first_footage(&mut recorder).await?;
    let closed = recorded(&mut recorder, 2, Duration::ZERO).await?;
    let (first, second) = (&closed[0], &closed[1]);
    say(&format!("recording; {} and {} are closed, {} frames", first.id, second.id, first.frames + second.frames));

    let client = recorder.client.clone();
    files.push(snapshot(&client, first, 1.0, "picture, decoder cold").await?);
    files.push(snapshot(&client, second, 1.0, "picture, decoder warm").await?);
    say("took pictures out of closed segments");
    let (clip, figures) = clip(&client, first, second).await?;
    say(&format!("cut a clip across the border between {} and {}", first.id, second.id));
    files.push(figures);
    protect(&client, first).await?;
    say(&format!("protected {}; removing it is refused", first.id));
    files.push(upload(&client, &stage, &clip).await?);
    say("sent the clip to the server whose host key is pinned; one with another key got nothing");

    recorded(&mut recorder, 2, Duration::from_secs(options.seconds)).await?;
    let mut watch = Watch::default();
    let look = async |client: &Client| watch.mid_segment(client).await;
    let before = recorder.until("recording in the middle of a segment", SOON, look).await?;
    // A commit has just ended; let frames arrive that only the next one would have saved.
    tokio::time::sleep(UNSAVED).await;
    let (killed_at, killed) = (now_micros(), Instant::now());
    recorder.kill();
    say("killed the recorder in the middle of a segment (SIGKILL) and started it again");

    let mut recorder = Recorder::start(&stage)?;
    let look = async |client: &Client| back(client, killed_at).await;
    let after = recorder.until("recovery and new footage of every lens", SOON, look).await?;
    let back_after = killed.elapsed();
    let mut figures = Vec::new();
    for (was, lateness) in before.iter().zip(watch.lateness()) {
        figures.push(aftermath(&after, was, killed_at, lateness)?);
    }
    let end = last_of_run(&after, &before[0])?;
    hold(end.state == "recovered", || format!("{} is recovered, not {}", end.id, end.state))?;
    say("recovered what was open, and recording goes on");
    let client = recorder.client.clone();
    let last = (end.end_ts - end.start_ts) as f64 / 1e6 - 0.001;
    files.push(snapshot(&client, end, last, "picture, last recovered").await?);
    let kept = found(&after, &first.id)?;
    hold(kept.protected, || format!("{} is still protected after the kill", kept.id))?;
    is_protected(&client, &kept.id).await?;
    say(&format!("{} is still protected", kept.id));

    let whole = segments(&client).await?;
    let status = recorder.stop(SOON).await?;
    hold(status.success(), || format!("the recorder ends in order when asked to ({status})"))?;
    say("stopped the recorder in order");
    total(&mut figures, &whole);
    Ok(Report { lenses: figures, files, back_after })
}

/// Waits until every lens has something durable; if one has not, says what the recorder thinks of it.
async fn first_footage(recorder: &mut Recorder) -> Result<(), DemoError> {
    let look = async |client: &Client| {
        let page = segments(client).await?;
        Ok(LENSES.iter().all(|lens| of_lens(&page, lens).next().is_some()).then_some(()))
    };
    let late = match recorder.until("the first footage of every lens", SOON, look).await {
        Err(late @ DemoError::Late { .. }) => late,
        other => return other,
    };
    let health = recorder.client.get::<HealthView>("/v1/health").await;
    let health = health.map_err(|error| DemoError::Api { step: "asking for the health", error })?;
    let ill = health.lenses.into_iter().find(|lens| lens.absent.is_some());
    Err(ill.map_or(late, |lens| DemoError::NoFootage { lens: lens.lens, why: lens.last_error.unwrap_or(lens.state) }))
}

/// Waits until every lens has that many closed segments and that much footage; returns the closed ones of `road`.
async fn recorded(recorder: &mut Recorder, closed: usize, footage: Duration) -> Result<Vec<SegmentView>, DemoError> {
    let what = format!("recording {closed} closed segments and {} s of every lens", footage.as_secs());
    // A source with long groups of pictures closes late.
    let patience = SOON + 2 * footage + closed as u32 * Duration::from_secs(u64::from(SEGMENT_SECONDS) + 5);
    let look = async |client: &Client| {
        let page = segments(client).await?;
        let enough = |lens: &str| {
            let done = of_lens(&page, lens).filter(|s| s.state == "closed").count() >= closed;
            let micros: i64 = of_lens(&page, lens).map(|s| s.end_ts - s.start_ts).sum();
            done && u128::try_from(micros).unwrap_or(0) >= footage.as_micros()
        };
        let ready = LENSES.iter().all(|lens| enough(lens));
        Ok(ready.then(|| of_lens(&page, LENSES[0]).filter(|s| s.state == "closed").cloned().collect()))
    };
    recorder.until(&what, patience, look).await
}

/// Takes a picture and checks that it is a whole JPEG of the segment's size.
async fn snapshot(client: &Client, of: &SegmentView, at: f64, what: &str) -> Result<FileFigures, DemoError> {
    let begun = Instant::now();
    let reply = client.post(&format!("/v1/segments/{}/snapshot", of.id), &json!({ "keyframe_offset": at })).await;
    let picture: SnapshotView = reply.map_err(|error| DemoError::Api { step: "taking a picture", error })?;
    let took = begun.elapsed();
    let bytes = judge::bytes(Path::new(&picture.path))?;
    let size = judge::jpeg_size(&bytes);
    hold(size == Some((of.width, of.height)), || {
        format!("the picture of {} is a whole JPEG of {}x{}, not {size:?}", of.id, of.width, of.height)
    })?;
    let checked = format!("JPEG {}x{} of {}", of.width, of.height, of.id);
    Ok(FileFigures { what: what.to_owned(), name: name(&picture.path), bytes: bytes.len() as u64, took, checked })
}

/// Cuts two seconds across the border of two segments and checks what the file itself says.
async fn clip(
    client: &Client,
    first: &SegmentView,
    second: &SegmentView,
) -> Result<(ClipView, FileFigures), DemoError> {
    let begun = Instant::now();
    let (from, to) = (second.start_ts - 1_000_000, second.start_ts + 1_000_000);
    let asked = json!({ "start_ts": from, "end_ts": to });
    let reply = client.post(&format!("/v1/lenses/{}/clip", first.lens), &asked).await;
    let clip: ClipView = reply.map_err(|error| DemoError::Api { step: "cutting a clip", error })?;
    let took = begun.elapsed();
    let bytes = judge::bytes(Path::new(&clip.path))?;
    hold(bytes.len() as u64 == clip.bytes, || {
        format!("the clip has the {} bytes that it is said to have", clip.bytes)
    })?;
    let read = judge::clip(&bytes).ok_or_else(|| DemoError::NotHeld("the clip is a readable MP4 file".to_owned()))?;
    let said = clip.shown.end_ts - clip.shown.start_ts;
    hold(((read.shown * 1e6).round() as i64 - said).abs() <= ROUNDING_MICROS, || {
        format!("the clip shows the {said} us that it is said to show, not {:.6} s", read.shown)
    })?;
    // Whole frames: the one that covers the start up to the last that begins before the end.
    let edges = [clip.shown.start_ts - from, clip.shown.end_ts - to];
    hold(edges.iter().all(|edge| edge.abs() <= a_frame(first)), || {
        format!("the clip's edges are within a frame of what was asked, not {edges:?} us away")
    })?;
    let rate = f64::from(first.frames) * 1e6 / (first.end_ts - first.start_ts) as f64;
    let least = ((2.0 * rate) as u32).saturating_sub(1);
    hold(read.frames >= least, || format!("the clip holds at least {least} frames, not {}", read.frames))?;
    hold(clip.gaps.is_empty(), || format!("the clip has no gap, not {:?}", clip.gaps))?;
    let checked = format!("MP4, shows {:.3} s of {} frames", read.shown, read.frames);
    let figures = FileFigures { what: "clip".to_owned(), name: name(&clip.path), bytes: clip.bytes, took, checked };
    Ok((clip, figures))
}

async fn protect(client: &Client, segment: &SegmentView) -> Result<(), DemoError> {
    let path = format!("/v1/segments/{}/protection", segment.id);
    let reply = client.put::<_, Value>(&path, &json!({ "why": "demo" })).await;
    reply.map_err(|error| DemoError::Api { step: "protecting a segment", error })?;
    let listed = segments(client).await?;
    hold(found(&listed, &segment.id)?.protected, || format!("{} is listed as protected", segment.id))?;
    is_protected(client, &segment.id).await
}

/// Tries to remove what is protected.
async fn is_protected(client: &Client, id: &str) -> Result<(), DemoError> {
    match client.delete::<Value>(&format!("/v1/segments/{id}")).await {
        Err(ClientError::Refused(why)) if why.kind == Kind::Protected => Ok(()),
        Err(error) => Err(DemoError::Api { step: "trying to remove a protected segment", error }),
        Ok(_) => Err(DemoError::NotHeld(format!("removing the protected {id} is refused"))),
    }
}

/// Sends the clip to the pinned server and compares what arrived; then tries a pin that is not the server's.
async fn upload(client: &Client, stage: &Stage, clip: &ClipView) -> Result<FileFigures, DemoError> {
    let identity = stage.sftp.identity().map_err(super::stage::stage("read the key"))?;
    let begun = Instant::now();
    let done = send(client, &clip.path, &stage.sftp.uri("vehicle/"), &stage.sftp.pin(), &identity).await?;
    let took = begun.elapsed();
    let JobState::Done { sha256, .. } = &done.state else {
        return Err(DemoError::NotHeld(format!("the upload is done, not {:?}", done.state)));
    };
    let (sent, name) = (judge::bytes(Path::new(&clip.path))?, name(&clip.path));
    let arrived = judge::bytes(&stage.inbox.join("vehicle").join(&name))?;
    hold(sent == arrived, || "what arrived equals what was sent, byte for byte".to_owned())?;
    hold(*sha256 == hex(&Sha256::digest(&arrived)), || "the reported SHA-256 is that of what arrived".to_owned())?;

    let logins = || stage.sftp.seen().logins.load(Ordering::Relaxed);
    let before = logins();
    let stranger = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let refused = send(client, &clip.path, &stage.sftp.uri("stranger/"), stranger, &identity).await?;
    let mismatch = matches!(refused.state, JobState::Failed { kind: FailureKind::HostKeyMismatch, .. });
    hold(mismatch, || format!("a wrong host key ends as host_key_mismatch, not {:?}", refused.state))?;
    hold(logins() == before, || "no credential was sent to the wrong host key".to_owned())?;
    let checked = "equal byte for byte".to_owned();
    Ok(FileFigures { what: "upload".to_owned(), name, bytes: arrived.len() as u64, took, checked })
}

async fn send(client: &Client, path: &str, uri: &str, pin: &str, identity: &str) -> Result<Job, DemoError> {
    let api = |error| DemoError::Api { step: "uploading", error };
    let options = json!({ "host_key": pin, "identity": identity });
    let request = json!({ "paths": [path], "destination_uri": uri, "options": options });
    let submitted: Value = client.post("/v1/uploads", &request).await.map_err(api)?;
    let id = submitted["uploads"][0]["id"].as_str().unwrap_or_default().to_owned();
    let mut events = client.events(&format!("/v1/uploads/{id}/events")).await.map_err(api)?;
    while let Some(job) = events.next::<Job>().await.map_err(api)? {
        if job.state.is_end() {
            return Ok(job);
        }
    }
    Err(DemoError::NotHeld("the events of an upload end with done or failed".to_owned()))
}

/// Adds up the listing.
fn total(figures: &mut [LensFigures], whole: &SegmentPage) {
    for segment in &whole.segments {
        if let Some(figures) = figures.iter_mut().find(|figures| figures.lens == segment.lens) {
            figures.segments += 1;
            figures.footage += micros(segment.end_ts - segment.start_ts);
            figures.frames += u64::from(segment.frames);
            figures.bytes += segment.bytes;
        }
    }
}

fn name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

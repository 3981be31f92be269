//! The demo's story, step by step. Each step asks the API as any client would and then looks at the files itself.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::DemoError;
use super::judge::{self, hold};
use super::recorder::Recorder;
use super::stage::{SEGMENT_SECONDS, Stage};
use crate::archive::ids::SegmentId;
use crate::cli::client::{Client, ClientError};
use crate::error::Kind;
use crate::http::{ClipView, GapView, HealthView, SegmentPage, SegmentView, SnapshotView};
use crate::upload::failure::FailureKind;
use crate::upload::job::{Job, JobState};
use crate::upload::queue::hex;

/// The lenses of the demo.
pub const LENSES: [&str; 2] = ["road", "cabin"];
/// For the recorder to answer, and for anything that takes no recording time.
const SOON: Duration = Duration::from_secs(15);
/// Most that a lens may lose when the recorder is killed.
const LOSS_LIMIT: Duration = Duration::from_secs(1);
/// From the last look before the kill to the kill: most of the 500 ms between two commits.
const UNSAVED: Duration = Duration::from_millis(400);

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
    let mut lateness = [i64::MAX; LENSES.len()];
    let look = async |client: &Client| mid_segment(client, &mut lateness).await;
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
    for (was, lateness) in before.iter().zip(lateness) {
        figures.push(aftermath(&after, was, killed_at, micros(lateness))?);
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

async fn answers(client: &Client) -> Result<Option<()>, DemoError> {
    match client.get::<SegmentPage>("/v1/segments?limit=1").await {
        Ok(_) => Ok(Some(())),
        // Not there yet, or there but still loading.
        Err(ClientError::Unreachable { .. } | ClientError::Refused(_)) => Ok(None),
        Err(error) => Err(DemoError::Api { step: "asking for segments", error }),
    }
}

async fn segments(client: &Client) -> Result<SegmentPage, DemoError> {
    let page = client.get("/v1/segments?limit=10000").await;
    page.map_err(|error| DemoError::Api { step: "listing segments", error })
}

fn of_lens<'a>(page: &'a SegmentPage, lens: &str) -> impl Iterator<Item = &'a SegmentView> + use<'a> {
    let lens = lens.to_owned();
    page.segments.iter().filter(move |s| s.lens == lens)
}

fn found<'a>(page: &'a SegmentPage, id: &str) -> Result<&'a SegmentView, DemoError> {
    page.segments.iter().find(|s| s.id == id).ok_or_else(|| DemoError::NotHeld(format!("{id} is still listed")))
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
    let asked = json!({ "start_ts": second.start_ts - 1_000_000, "end_ts": second.start_ts + 1_000_000 });
    let reply = client.post(&format!("/v1/lenses/{}/clip", first.lens), &asked).await;
    let clip: ClipView = reply.map_err(|error| DemoError::Api { step: "cutting a clip", error })?;
    let took = begun.elapsed();
    let bytes = judge::bytes(Path::new(&clip.path))?;
    hold(bytes.len() as u64 == clip.bytes, || {
        format!("the clip has the {} bytes that it is said to have", clip.bytes)
    })?;
    let read = judge::clip(&bytes).ok_or_else(|| DemoError::NotHeld("the clip is a readable MP4 file".to_owned()))?;
    let off = (read.shown * 1e6) as i64 - 2_000_000;
    hold(off.abs() <= a_frame(first), || format!("the clip shows 2 s, not {:.3} s", read.shown))?;
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

/// The newest segment of every lens, once that of `road` is open and has a good second in it. Also notes how far behind the
/// footage of each lens is at its best, which is how late its source delivers.
async fn mid_segment(
    client: &Client,
    lateness: &mut [i64; LENSES.len()],
) -> Result<Option<Vec<SegmentView>>, DemoError> {
    let page = segments(client).await?;
    let newest = |lens: &&str| of_lens(&page, lens).max_by_key(|s| s.start_ts).cloned();
    let newest: Option<Vec<SegmentView>> = LENSES.iter().map(newest).collect();
    for (lateness, newest) in lateness.iter_mut().zip(newest.iter().flatten()) {
        *lateness = (*lateness).min(now_micros() - newest.end_ts);
    }
    let middle = |s: &SegmentView| s.state == "open" && (1_000_000..2_000_000).contains(&(s.end_ts - s.start_ts));
    Ok(newest.filter(|all| all.first().is_some_and(middle)))
}

/// The listing in which nothing of before the kill is open and every lens has new footage.
async fn back(client: &Client, killed_at: i64) -> Result<Option<SegmentPage>, DemoError> {
    if answers(client).await?.is_none() {
        return Ok(None);
    }
    let page = segments(client).await?;
    let good = |lens: &str| {
        let (old, new): (Vec<_>, Vec<_>) = of_lens(&page, lens).partition(|s| s.start_ts <= killed_at);
        !old.is_empty() && old.iter().all(|s| s.state != "open") && new.iter().any(|s| s.end_ts > s.start_ts)
    };
    Ok(LENSES.iter().all(|lens| good(lens)).then_some(page))
}

/// The last segment of the run and lens of another.
fn last_of_run<'a>(page: &'a SegmentPage, of: &SegmentView) -> Result<&'a SegmentView, DemoError> {
    let run = |s: &SegmentView| s.id.parse::<SegmentId>().map(|id| (id.lens, id.run)).ok();
    let same = page.segments.iter().filter(|s| run(s) == run(of));
    same.max_by_key(|s| s.start_ts).ok_or_else(|| DemoError::NotHeld(format!("{} is still listed", of.id)))
}

/// What the kill cost a lens: at most a second lost, and every moment until the new footage in a gap with its cause.
///
/// From the last frame's end to the kill is more than what the recorder lost: the newest frames were still in the camera or
/// its encoder, and nobody had them yet.
fn aftermath(
    page: &SegmentPage,
    was: &SegmentView,
    killed_at: i64,
    lateness: Duration,
) -> Result<LensFigures, DemoError> {
    let same = found(page, &was.id)?;
    hold(same.frames >= was.frames, || {
        format!("{} keeps the {} frames that were durable before the kill, not {}", was.id, was.frames, same.frames)
    })?;
    let recovered = last_of_run(page, was)?;
    let lost = micros(killed_at - recovered.end_ts).saturating_sub(lateness);
    hold(lost <= LOSS_LIMIT, || format!("{} loses at most 1 s, not {} ms", was.lens, lost.as_millis()))?;
    let next = of_lens(page, &was.lens).filter(|s| s.start_ts >= recovered.end_ts).min_by_key(|s| s.start_ts);
    let next = next.ok_or_else(|| DemoError::NotHeld(format!("{} has new footage", was.lens)))?;
    let mut causes: Vec<String> = Vec::new();
    let mut reached = recovered.end_ts;
    let mut gaps: Vec<&GapView> =
        page.gaps.iter().filter(|g| g.lens == was.lens && g.end_ts > recovered.end_ts).collect();
    gaps.sort_by_key(|gap| gap.start_ts);
    for gap in gaps.iter().filter(|gap| gap.start_ts < next.start_ts) {
        if gap.start_ts <= reached + a_frame(was) {
            reached = reached.max(gap.end_ts);
        }
        if !causes.contains(&gap.cause) {
            causes.push(gap.cause.clone());
        }
    }
    hold(reached + a_frame(was) >= next.start_ts, || {
        let missing = (next.start_ts - reached) / 1000;
        format!("{} accounts for every moment after the kill; {missing} ms are in no gap", was.lens)
    })?;
    hold(causes.iter().any(|cause| cause == "recorder_killed"), || {
        format!("{} names the kill as cause, not {causes:?}", was.lens)
    })?;
    hold(!causes.iter().any(|cause| cause == "unknown"), || format!("{} has no unknown cause", was.lens))?;
    let gap = micros(next.start_ts - recovered.end_ts);
    let (lens, zero) = (was.lens.clone(), Duration::ZERO);
    Ok(LensFigures { lens, segments: 0, footage: zero, frames: 0, bytes: 0, lost, lateness, gap, causes })
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

/// Frames come at discrete moments: spans may be off by one of them, and live ones by its jitter. In microseconds.
fn a_frame(of: &SegmentView) -> i64 {
    let mean = (of.end_ts - of.start_ts) / i64::from(of.frames.max(1));
    (mean * 3 / 2).max(50_000)
}

fn micros(span: i64) -> Duration {
    Duration::from_micros(u64::try_from(span).unwrap_or(0))
}

fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

fn name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

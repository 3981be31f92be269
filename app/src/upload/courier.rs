//! The thread that carries jobs out: starts what may start, keeps connections open between jobs to the same server, and notes
//! how each try ended.
//!
//! It alone calls the backend. It never decides whose turn it is (`schedule.rs`) nor what is durable (`store.rs`).

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::book::{Remains, Task, WayIn};
use super::clearing;
use super::contents::{Contents, Part};
use super::destination::Endpoint;
use super::failure::{Failure, FailureKind};
use super::gentle;
use super::job::JobState;
use super::meter::Meter;
use super::queue::{Shared, hex};
use super::{Access, Delivered, Parcel, Progress, UploadSession};

/// How long a connection without work is kept.
const IDLE: Duration = Duration::from_secs(30);
/// How long clearing up at the server may take when a job is called off.
const CLEAR_UP: Duration = Duration::from_secs(5);

/// A connection that may serve the next job.
pub(super) type Kept = (Arc<Access>, Box<dyn UploadSession>);

/// What a job leaves behind.
struct Left {
    task: Task,
    session: Option<Kept>,
    /// The book knows already that the server is free.
    told: bool,
}

/// The thread's main loop, until told to stop.
pub(super) async fn serve(shared: &Arc<Shared>, stop: oneshot::Receiver<()>) {
    tokio::select! {
        never = clearing::serve(shared) => match never {},
        () = carry(shared, stop) => {}
    }
    shared.clearing.end();
}

async fn carry(shared: &Arc<Shared>, mut stop: oneshot::Receiver<()>) {
    let mut running: JoinSet<Left> = JoinSet::new();
    let mut numbers: HashMap<tokio::task::Id, i64> = HashMap::new();
    let mut idle: HashMap<Endpoint, (Kept, Instant)> = HashMap::new();
    let clock = shared.archive.clock().clone();
    loop {
        loop {
            let Some(task) = shared.book().next(clock.mono()) else { break };
            let (number, session) = (task.number, idle.remove(&task.to.endpoint()).map(|(kept, _)| kept));
            let handle = running.spawn(carry_out(shared.clone(), task, session));
            numbers.insert(handle.id(), number);
        }
        let wake = shared.book().wake().map(|at| Duration::from_nanos(at.since(clock.mono()).max(0) as u64));
        let oldest = idle.values().map(|(_, since)| *since).min();
        let rest = oldest.map(|since| (since + IDLE).saturating_duration_since(Instant::now()));
        tokio::select! {
            biased;
            _ = &mut stop => break,
            Some(done) = running.join_next_with_id() => match done {
                Ok((id, left)) => {
                    numbers.remove(&id);
                    if let Some(kept) = left.session {
                        idle.insert(left.task.to.endpoint(), (kept, Instant::now()));
                    }
                    if !left.told {
                        shared.book().free(&left.task.to, clock.mono());
                    }
                }
                Err(fault) => {
                    log::error!("an upload ended in a fault of the program: {fault}");
                    if let Some(number) = numbers.remove(&fault.id()) {
                        let failure = Failure::new(FailureKind::Internal, "a fault of the program; see the log");
                        shared.book().fail(number, failure, false, clock.mono(), clock.utc());
                    }
                }
            },
            () = shared.changed.notified() => {}
            () = sleep(wake.unwrap_or(Duration::MAX)), if wake.is_some() => {}
            () = sleep(rest.unwrap_or(Duration::MAX)), if rest.is_some() => {
                let old = idle.extract_if(|_, (_, since)| since.elapsed() >= IDLE);
                for (_, ((_, session), _)) in old.collect::<Vec<_>>() {
                    tokio::spawn(session.close());
                }
            }
        }
    }
    running.shutdown().await;
    for remains in numbers.into_values().filter_map(|number| shared.book().left_by(number)) {
        remains.may_lie_there(clearing::ENDED);
    }
    shared.book().park();
    for (_, ((_, session), _)) in idle {
        let _ = timeout(Duration::from_secs(1), session.close()).await;
    }
}

/// One try of one job, to its end.
async fn carry_out(shared: Arc<Shared>, task: Task, kept: Option<Kept>) -> Left {
    let id = task.record.id.clone();
    let before = task.known.part().acknowledged;
    let mut session = kept;
    let outcome = tokio::select! {
        biased;
        () = task.call_off.notified() => None,
        outcome = attempt(&shared, &task, &mut session) => Some(outcome),
    };
    match outcome {
        None => {
            // Called off: what lies at the server under the temporary name is of no use to anybody.
            let cleared = match session.as_mut() {
                Some((_, open)) if !open.is_closed() => {
                    matches!(timeout(CLEAR_UP, open.discard(&task.to, &id)).await, Ok(Ok(())))
                }
                _ => false,
            };
            if cleared {
                task.known.update(|part| *part = Part::default());
            } else {
                session = None;
                leave(&shared, &task);
            }
            Left { task, session, told: false }
        }
        Some(Ok(done)) => {
            log::info!("upload {id}: {} bytes lie at {}", done.bytes, task.to);
            let state = JobState::Done {
                remote_path: done.remote_path,
                bytes: done.bytes,
                sha256: hex(&done.sha256),
                synced: done.synced,
            };
            let of_end = shared.clone();
            let ended = tokio::task::spawn_blocking(move || of_end.close(&id, state)).await;
            if let Ok(Err(e)) = ended {
                log::info!("{e}");
            }
            Left { task, session, told: false }
        }
        Some(Err(failure)) => {
            log::warn!("upload {id} to {} failed: {failure}", task.to);
            let fine = failure.kind == FailureKind::DestinationExists;
            let further = task.known.part().acknowledged > before;
            let clock = shared.archive.clock();
            let state = shared.book().fail(task.number, failure, further, clock.mono(), clock.utc());
            if state == JobState::Cancelled {
                // Called off while it failed.
                leave(&shared, &task);
            }
            if state.is_end() {
                let of_end = shared.clone();
                let _ = tokio::task::spawn_blocking(move || of_end.note_failure(&id, &state)).await;
            }
            // What state the connection is in is not known; the next job gets a new one.
            Left { task, session: session.filter(|_| fine), told: true }
        }
    }
}

/// Has what a try left removed over another connection.
fn leave(shared: &Shared, task: &Task) {
    if task.known.may_lie_there() {
        let remains = Remains { id: task.record.id.clone(), to: task.to.clone(), way_in: task.way_in.clone() };
        shared.clearing.leave(remains);
        task.known.update(|part| *part = Part::default());
    }
}

/// The key to the server, as it is now.
pub(super) async fn way_in_of(shared: &Shared, way_in: &WayIn) -> Result<Arc<Access>, Failure> {
    match way_in {
        WayIn::Given(access) => Ok(access.clone()),
        WayIn::Named(name) => named_access(shared, name).await,
        WayIn::Forgotten => {
            Err(Failure::new(FailureKind::CredentialUnavailable, "the credential of this upload was forgotten"))
        }
    }
}

async fn attempt(shared: &Arc<Shared>, task: &Task, session: &mut Option<Kept>) -> Result<Delivered, Failure> {
    let access = way_in_of(shared, &task.way_in).await?;
    let file = shared.outbox.open(&task.outgoing)?;
    gentle::read_in_steps(file.as_ref());
    let contents = if task.record.reduce && has_boxes(&task.record.path) {
        // The same file gives the same plan, so a resumed upload goes on in the same bytes.
        let planned = tokio::task::spawn_blocking(move || Contents::reduced(file)).await;
        planned.map_err(|_| Failure::new(FailureKind::Internal, "a fault of the program; see the log"))??
    } else {
        Contents::whole(file).map_err(|e| Failure::unreadable(&e))?
    };
    if session.as_ref().is_some_and(|(of, open)| **of != *access || open.is_closed())
        && let Some((_, old)) = session.take()
    {
        tokio::spawn(old.close());
    }
    let parcel = Parcel {
        job: task.record.id.clone(),
        contents: Arc::new(contents),
        to: task.to.clone(),
        overwrite: task.record.overwrite,
        known: task.known.clone(),
        max_rate: task.record.max_rate,
        read_back: task.record.read_back,
    };
    let meter = Mutex::new(Meter::new());
    let report = |progress: Progress| {
        let mut meter = meter.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = meter.state(progress, Instant::now()) {
            shared.book().progress(task.number, state);
        }
    };
    if let Some((_, open)) = session {
        let before = task.known.part();
        match open.send(&parcel, &report).await {
            // A connection that was kept may have died in silence: the road is judged by a fresh one.
            Err(e) if e.kind == FailureKind::ConnectionLost && task.known.part() == before => *session = None,
            ended => return ended,
        }
    }
    let new = shared.backend.connect(&access).await?;
    session.insert((access, new)).1.send(&parcel, &report).await
}

/// The way in to a destination of the configuration, with the credential as it is now.
async fn named_access(shared: &Shared, name: &str) -> Result<Arc<Access>, Failure> {
    let Some(destination) = shared.roads.named(name).cloned() else {
        let message = format!("there is no [[destination]] '{name}' in the configuration any more");
        return Err(Failure::new(FailureKind::NoDestination, message));
    };
    // A key that is encrypted takes its time to open.
    match tokio::task::spawn_blocking(move || destination.access()).await {
        Ok(access) => access.map(Arc::new),
        Err(_) => Err(Failure::new(FailureKind::Internal, "a fault of the program; see the log")),
    }
}

/// Whether a path names an MP4 file, which is what segments and clips are.
fn has_boxes(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|end| end.eq_ignore_ascii_case("mp4"))
}

//! The queue: takes jobs, serves each server one job at a time, and tells everybody who asks where a job stands.
//!
//! It lives on one thread with its own small runtime. What waits and what has ended is bounded; a caller that is too fast is
//! told so. Everything is in memory: after a restart of the daemon the queue is empty.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, io};

use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::credential::{Credential, Secret};
use super::destination::{Destination, Endpoint};
use super::failure::{Failure, FailureKind, Refused};
use super::host_key::HostKeyPin;
use super::job::{Job, JobId, JobState};
use super::outbox::{Outbox, Outgoing};
use super::{Access, Parcel, Progress, UploadBackend, UploadSession};
use crate::archive::Archive;

/// Bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Jobs that may wait or run.
    pub live: usize,
    /// Jobs that have ended and are still shown; the oldest are forgotten.
    pub ended: usize,
    /// Servers that are served at the same time.
    pub servers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { live: 1000, ended: 200, servers: 4 }
    }
}

/// What a caller asks for: `POST /uploads`.
#[derive(Clone, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadRequest {
    /// Files under `segments/`, `clips/` or `snapshots/`, absolute or relative to the archive's root.
    pub paths: Vec<String>,
    /// `sftp://user@host[:port]/path`; ending with `/` it is a directory, else the name of the one file.
    /// `/~/path` is relative to the login directory. It may not hold a password.
    pub destination_uri: String,
    /// How.
    pub options: UploadOptions,
}

/// How to upload.
#[derive(Clone, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadOptions {
    /// `SHA256:…` or a known_hosts line. Without it nothing is connected.
    pub host_key: Option<String>,
    /// The text of a private key file in OpenSSH format, not encrypted.
    pub identity: Option<Secret>,
    /// A password, if the server takes no keys.
    pub password: Option<Secret>,
    /// Replace an existing file of that name; otherwise the job fails with `destination_exists`.
    #[serde(default)]
    pub overwrite: bool,
}

impl fmt::Debug for UploadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadRequest").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl fmt::Debug for UploadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadOptions").field("overwrite", &self.overwrite).finish_non_exhaustive()
    }
}

/// The jobs that one call made, one per path, in the order of the paths.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct Submitted {
    /// The id that they share.
    pub group: String,
    /// The jobs.
    pub uploads: Vec<Job>,
}

/// The upload service. Cheap to share; dropping the last one stops it as [`Uploads::stop`] does.
pub struct Uploads {
    shared: Arc<Shared>,
    tasks: mpsc::UnboundedSender<Task>,
    stop: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

struct Shared {
    outbox: Outbox,
    backend: Arc<dyn UploadBackend>,
    limits: Limits,
    book: Mutex<Book>,
}

/// Every job that is shown. Its lock is held only for look-ups.
#[derive(Default)]
struct Book {
    jobs: HashMap<JobId, watch::Sender<Job>>,
    /// In the order in which they were made.
    order: Vec<JobId>,
    ended: VecDeque<JobId>,
    life: String,
    made: u64,
    stopped: bool,
}

/// A job with all that it needs; dropping it lets go of pin and credential.
struct Task {
    id: JobId,
    access: Arc<Access>,
    outgoing: Outgoing,
    to: Destination,
    overwrite: bool,
}

impl Uploads {
    /// Starts the service for `archive`, which lies at `root`, with SFTP as its way out.
    pub fn start(root: &Path, archive: Archive, limits: Limits) -> io::Result<Self> {
        Self::with_backend(root, archive, Arc::new(super::sftp::Sftp), limits)
    }

    /// The same with another way out.
    pub fn with_backend(
        root: &Path,
        archive: Archive,
        backend: Arc<dyn UploadBackend>,
        limits: Limits,
    ) -> io::Result<Self> {
        let book = Book { life: random_hex()?, ..Book::default() };
        let outbox = Outbox::new(root, archive);
        let shared = Arc::new(Shared { outbox, backend, limits, book: Mutex::new(book) });
        let (tasks, inbox) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("mos-upload".to_owned())
            .spawn(move || runtime.block_on(serve(&of_thread, inbox, stopped)))?;
        Ok(Self { shared, tasks, stop: Mutex::new(Some((stop, thread))) })
    }

    /// Takes a call: all of its jobs or none. Returns before anything is connected.
    pub fn submit(&self, request: &UploadRequest) -> Result<Submitted, Refused> {
        let to = Destination::parse(&request.destination_uri)?;
        let endpoint = to.endpoint();
        let pin = request.options.host_key.as_deref().unwrap_or_default();
        let pin = HostKeyPin::parse(pin, &endpoint)?;
        let credential = credential(&request.options)?;
        let access = Arc::new(Access { endpoint, pin, credential });
        let tasks = self.tasks_of(request, &to, &access)?;
        self.enter(tasks)
    }

    fn tasks_of(&self, request: &UploadRequest, to: &Destination, access: &Arc<Access>) -> Result<Vec<Task>, Refused> {
        if request.paths.is_empty() {
            return Err(Refused::Path { path: String::new(), why: "name at least one file".to_owned() });
        }
        if request.paths.len() > self.shared.limits.live {
            return Err(Refused::QueueFull { waiting: self.shared.book().live() });
        }
        if request.paths.len() > 1 && !to.is_dir() {
            let why = "several files need a directory as their destination: end the URI with '/'";
            return Err(Refused::Destination(why.to_owned()));
        }
        let mut names = HashSet::new();
        let mut tasks = Vec::with_capacity(request.paths.len());
        for path in &request.paths {
            let outgoing = self.shared.outbox.take(path)?;
            let to = to.of_file(&outgoing.name);
            if !names.insert(to.remote_path()) {
                return Err(Refused::SameName { name: to.file_name().to_owned() });
            }
            let id = JobId(String::new());
            let overwrite = request.options.overwrite;
            tasks.push(Task { id, access: access.clone(), outgoing, to, overwrite });
        }
        Ok(tasks)
    }

    fn enter(&self, tasks: Vec<Task>) -> Result<Submitted, Refused> {
        let mut book = self.shared.book();
        if book.stopped {
            return Err(Refused::Stopping);
        }
        if book.live() + tasks.len() > self.shared.limits.live {
            return Err(Refused::QueueFull { waiting: book.live() });
        }
        let group = format!("g{}-{}", book.life, book.made);
        let mut uploads = Vec::with_capacity(tasks.len());
        for mut task in tasks {
            task.id = JobId(format!("{}-{}", book.life, book.made));
            book.made += 1;
            let job = Job {
                id: task.id.clone(),
                group: group.clone(),
                path: task.outgoing.path.display().to_string(),
                destination: task.to.to_string(),
                state: JobState::Queued,
            };
            uploads.push(job.clone());
            book.order.push(task.id.clone());
            book.jobs.insert(task.id.clone(), watch::Sender::new(job));
            self.tasks.send(task).map_err(|_| Refused::Stopping)?;
        }
        Ok(Submitted { group, uploads })
    }

    /// Where a job stands; `None` if there never was one or it was forgotten.
    #[must_use]
    pub fn get(&self, id: &JobId) -> Option<Job> {
        self.shared.book().jobs.get(id).map(|tx| tx.borrow().clone())
    }

    /// All jobs that are remembered, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Job> {
        let book = self.shared.book();
        book.order.iter().filter_map(|id| Some(book.jobs.get(id)?.borrow().clone())).collect()
    }

    /// Follows a job. The receiver holds the present state at once; the sender is gone once the job has ended and was forgotten.
    #[must_use]
    pub fn watch(&self, id: &JobId) -> Option<watch::Receiver<Job>> {
        self.shared.book().jobs.get(id).map(watch::Sender::subscribe)
    }

    /// Ends the service: jobs that have not ended become `failed` with kind `stopped`. Waits for its thread.
    pub fn stop(&self) {
        self.shared.book().stopped = true;
        let taken = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stop, thread)) = taken {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Book {
    fn live(&self) -> usize {
        self.jobs.len() - self.ended.len()
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves a job on, and forgets the oldest ended ones beyond the limit.
    fn set(&self, id: &JobId, state: JobState) {
        let mut book = self.book();
        let ended = state.is_end();
        if let Some(tx) = book.jobs.get(id) {
            if tx.borrow().state.is_end() {
                return;
            }
            tx.send_modify(|job| job.state = state);
        }
        if ended {
            book.ended.push_back(id.clone());
            while book.ended.len() > self.limits.ended {
                if let Some(old) = book.ended.pop_front() {
                    book.jobs.remove(&old);
                    book.order.retain(|id| *id != old);
                }
            }
        }
    }
}

/// The connection that a finished job leaves behind for the next one of the same call.
type Leftover = (Arc<Access>, Option<Box<dyn UploadSession>>);

/// What runs now.
#[derive(Default)]
struct Running {
    jobs: JoinSet<Leftover>,
    /// Whom each serves, and which job it is.
    who: HashMap<tokio::task::Id, (Endpoint, JobId)>,
}

/// The thread's main loop: starts what may start, until told to stop.
async fn serve(shared: &Arc<Shared>, mut inbox: mpsc::UnboundedReceiver<Task>, mut stop: oneshot::Receiver<()>) {
    let mut waiting: VecDeque<Task> = VecDeque::new();
    let mut running = Running::default();
    loop {
        tokio::select! {
            biased;
            _ = &mut stop => break,
            Some(done) = running.jobs.join_next_with_id() => match done {
                Ok((id, (access, session))) => {
                    running.who.remove(&id);
                    let next = waiting.iter().position(|t| Arc::ptr_eq(&t.access, &access));
                    match (next.and_then(|at| waiting.remove(at)), session) {
                        (Some(task), session) => running.begin(shared, task, session),
                        (None, Some(session)) => drop(tokio::spawn(session.close())),
                        (None, None) => {}
                    }
                }
                Err(fault) => {
                    log::error!("an upload ended in a fault of the program: {fault}");
                    if let Some((_, id)) = running.who.remove(&fault.id()) {
                        let text = "a fault of the program ended the upload; see the log";
                        shared.set(&id, Failure::new(FailureKind::Stopped, text).into());
                    }
                }
            },
            Some(task) = inbox.recv() => waiting.push_back(task),
        }
        while running.jobs.len() < shared.limits.servers {
            let free = waiting.iter().position(|t| running.is_free(&t.access.endpoint));
            let Some(task) = free.and_then(|at| waiting.remove(at)) else { break };
            running.begin(shared, task, None);
        }
    }
    running.jobs.shutdown().await;
    inbox.close();
    while let Ok(task) = inbox.try_recv() {
        waiting.push_back(task);
    }
    let stopped = Failure::new(FailureKind::Stopped, "the daemon stopped before the upload ended");
    let left = running.who.into_values().map(|(_, id)| id);
    for id in left.chain(waiting.into_iter().map(|t| t.id)) {
        shared.set(&id, stopped.clone().into());
    }
}

impl Running {
    fn is_free(&self, endpoint: &Endpoint) -> bool {
        !self.who.values().any(|(busy, _)| busy == endpoint)
    }

    fn begin(&mut self, shared: &Arc<Shared>, task: Task, session: Option<Box<dyn UploadSession>>) {
        let who = (task.access.endpoint.clone(), task.id.clone());
        let handle = self.jobs.spawn(carry_out(shared.clone(), task, session));
        self.who.insert(handle.id(), who);
    }
}

/// One job from connecting to its end.
async fn carry_out(shared: Arc<Shared>, task: Task, session: Option<Box<dyn UploadSession>>) -> Leftover {
    let mut session = session;
    let ended = attempt(&shared, &task, &mut session).await;
    let state = match ended {
        Ok(done) => {
            log::info!("upload {}: {} bytes lie at {}", task.id, done.bytes, task.to);
            JobState::Done {
                remote_path: done.remote_path,
                bytes: done.bytes,
                sha256: hex(&done.sha256),
                synced: done.synced,
            }
        }
        Err(failure) => {
            log::warn!("upload {} to {} failed: {failure}", task.id, task.to);
            // What state the connection is in is not known; the next job gets a new one.
            session = None;
            failure.into()
        }
    };
    shared.set(&task.id, state);
    (task.access, session)
}

async fn attempt(
    shared: &Shared,
    task: &Task,
    session: &mut Option<Box<dyn UploadSession>>,
) -> Result<super::Delivered, Failure> {
    shared.set(&task.id, JobState::Connecting);
    let file = shared.outbox.open(&task.outgoing)?;
    let open = match session.take() {
        Some(open) => open,
        None => shared.backend.connect(&task.access).await?,
    };
    let open = session.insert(open);
    let parcel = Parcel { job: task.id.clone(), file, to: task.to.clone(), overwrite: task.overwrite };
    let meter = Mutex::new(Meter::new(Instant::now()));
    let report = |progress| {
        let mut meter = meter.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = meter.state(progress, Instant::now()) {
            shared.set(&task.id, state);
        }
    };
    open.send(&parcel, &report).await
}

/// Turns acknowledgements into a few states a second with a rate over the last seconds.
struct Meter {
    /// When and at how many bytes; the span of the rate.
    marks: VecDeque<(Instant, u64)>,
    told: Option<Instant>,
}

impl Meter {
    /// Between two states that differ only in figures.
    const PERIOD: Duration = Duration::from_millis(100);
    /// What the rate is taken over.
    const SPAN: Duration = Duration::from_secs(3);

    fn new(now: Instant) -> Self {
        Self { marks: VecDeque::from([(now, 0)]), told: None }
    }

    fn state(&mut self, progress: Progress, now: Instant) -> Option<JobState> {
        let (bytes, total) = match progress {
            Progress::Verifying => return Some(JobState::Verifying),
            Progress::Sent { bytes, total } => (bytes, total),
        };
        let due = self.told.is_none_or(|t| now.duration_since(t) >= Self::PERIOD);
        if !due && bytes < total {
            return None;
        }
        self.told = Some(now);
        self.marks.push_back((now, bytes));
        while self.marks.len() > 2 && now.duration_since(self.marks[1].0) >= Self::SPAN {
            self.marks.pop_front();
        }
        let (then, before) = self.marks[0];
        let span = now.duration_since(then).as_secs_f64();
        let rate = if span > 0.0 { ((bytes - before) as f64 / span) as u64 } else { 0 };
        Some(JobState::Transferring { bytes, total, rate })
    }
}

fn credential(options: &UploadOptions) -> Result<Credential, Refused> {
    match (&options.identity, &options.password) {
        (Some(key), None) => Credential::from_key_text(key),
        (None, Some(password)) => Ok(Credential::Password(password.clone())),
        (Some(_), Some(_)) => Err(Refused::Credential("give a key or a password, not both".to_owned())),
        (None, None) => Err(Refused::Credential(
            "an upload needs the private key that the server knows; the daemon lends none of its own".to_owned(),
        )),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// Eight digits that tell this life of the queue from others.
fn random_hex() -> io::Result<String> {
    use io::Read as _;
    let mut bytes = [0; 4];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex(&bytes))
}

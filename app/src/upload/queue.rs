//! The queue: takes jobs, keeps them on disk until they are over, and tells everybody who asks where a job stands.
//!
//! Calls may come from any thread. Those that change the queue wait for the disk: what they answer is durable (`store.rs`).
//! The jobs are carried out by one thread of its own (`courier.rs`); everything that is waiting and everything that has ended
//! is bounded, and a caller that is too fast is told so.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};

use super::book::{Book, Entry, WayIn};
use super::clearing::Clearing;
use super::contents::Known;
use super::courier;
use super::destination::Destination;
use super::failure::Refused;
use super::gentle;
use super::host_key::HostKeyPin;
use super::job::{Job, JobId, JobState};
use super::outbox::Outbox;
use super::request::{self, Order};
use super::schedule::Schedule;
use super::store::{Record, Store, StoreError, Stored};
use super::{Access, UploadBackend};
use crate::archive::Archive;

pub use super::request::{RetryRequest, Roads, Submitted, UploadOptions, UploadRequest};
pub(crate) use super::request::{hear, hear_again};

/// How long the end may wait for the disk.
const WRITE_DOWN: Duration = Duration::from_secs(5);

/// Bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Jobs that may wait, run or stand as failed.
    pub live: usize,
    /// Jobs that are over and still shown; the oldest are forgotten.
    pub ended: usize,
    /// Servers that are served at the same time.
    pub servers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { live: 1000, ended: 200, servers: 4 }
    }
}

/// How to run the service.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Bounds.
    pub limits: Limits,
    /// Destinations and values of the configuration.
    pub roads: Roads,
}

/// The upload service. Dropping it stops it as [`Uploads::stop`] does.
pub struct Uploads {
    shared: Arc<Shared>,
    stop: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

/// What the callers and the courier share. The queue's lock is taken before the book's, never after it.
pub(super) struct Shared {
    root: PathBuf,
    pub(super) archive: Archive,
    pub(super) outbox: Outbox,
    pub(super) backend: Arc<dyn UploadBackend>,
    pub(super) roads: Roads,
    limits: Limits,
    queue: Mutex<Queue>,
    book: Mutex<Book>,
    /// What jobs that were called off may have left at servers.
    pub(super) clearing: Clearing,
    /// Why the queue is not open.
    trouble: Mutex<Option<String>>,
    /// Something changed for the courier.
    pub(super) changed: Notify,
}

/// What only callers that may wait for the disk touch.
struct Queue {
    /// None while the disk does not let us keep one.
    store: Option<Store>,
    life: String,
    made: u64,
    stopped: bool,
}

impl Uploads {
    /// Starts the service for `archive`, which lies at `root`, with SFTP as its way out. Jobs of earlier lives go on; their
    /// files are pinned when this returns, so start it before anything is removed from the archive.
    pub fn start(root: &Path, archive: Archive, settings: &Settings) -> io::Result<Self> {
        Self::with_backend(root, archive, Arc::new(super::sftp::Sftp), settings)
    }

    /// The same with another way out.
    pub fn with_backend(
        root: &Path,
        archive: Archive,
        backend: Arc<dyn UploadBackend>,
        settings: &Settings,
    ) -> io::Result<Self> {
        let limits = settings.limits;
        let seed = random()?;
        let life = format!("{:08x}", seed >> 32);
        let schedule = Schedule::new(limits.servers, seed);
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            outbox: Outbox::new(root, archive.clone()),
            archive,
            backend,
            roads: settings.roads.clone(),
            limits,
            queue: Mutex::new(Queue { store: None, life, made: 0, stopped: false }),
            book: Mutex::new(Book::new(schedule, limits.ended)),
            clearing: Clearing::default(),
            trouble: Mutex::default(),
            changed: Notify::new(),
        });
        // Cameras come first: a queue that cannot be opened costs uploads, not the daemon.
        let opened = shared.store(&mut shared.queue()).map(drop);
        if let Err(e) = opened {
            log::error!("no uploads for now: {e}");
        }
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new().name("mos-upload".to_owned()).spawn(move || {
            gentle::lower_disk_priority();
            runtime.block_on(courier::serve(&of_thread, stopped));
            // What is being written down is written to its end.
            runtime.shutdown_timeout(WRITE_DOWN);
        })?;
        Ok(Self { shared, stop: Mutex::new(Some((stop, thread))) })
    }

    /// Takes a call: all of its jobs or none. Returns when they are durable, before anything is connected.
    pub fn submit(&self, request: &UploadRequest) -> Result<Submitted, Refused> {
        let limit = self.shared.limits.live;
        if request.paths.len() > limit {
            return Err(Refused::QueueFull { waiting: self.shared.book().live() });
        }
        let order = request::order(request, &self.shared.outbox, &self.shared.roads)?;
        let mut queue = self.shared.queue();
        if queue.stopped {
            return Err(Refused::Stopping);
        }
        let live = self.shared.book().live();
        if live + order.files.len() > limit {
            return Err(Refused::QueueFull { waiting: live });
        }
        let group = format!("g{}-{}", queue.life, queue.made);
        let records = records(&order, &request.options, &group, &mut queue);
        let numbers = self.shared.store(&mut queue).and_then(|store| store.add(&records));
        let numbers = numbers.map_err(|e| Refused::NotDurable(e.to_string()))?;
        let mut book = self.shared.book();
        let mut uploads = Vec::with_capacity(records.len());
        for ((number, record), (outgoing, to)) in numbers.into_iter().zip(records).zip(order.files) {
            let way_in = order.way_in.clone();
            uploads.push(book.enter(Entry::new(number, record, to, way_in, Some(outgoing), JobState::Queued)));
        }
        drop(book);
        self.shared.changed.notify_one();
        Ok(Submitted { group, uploads })
    }

    /// Where a job stands; `None` if there never was one or it was forgotten.
    #[must_use]
    pub fn get(&self, id: &JobId) -> Option<Job> {
        Some(self.shared.book().get(id)?.job())
    }

    /// All jobs that are remembered, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Job> {
        self.shared.book().list()
    }

    /// Why no upload is taken at present, if so.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        lock(&self.shared.trouble).clone()
    }

    /// Files, relative to the archive's root, that jobs still need. Segments are pinned besides; clips and pictures are not.
    #[must_use]
    pub fn in_use(&self) -> BTreeSet<PathBuf> {
        self.shared.book().in_use()
    }

    /// Follows a job. The receiver holds the present state at once; the sender is gone once the job was forgotten.
    #[must_use]
    pub fn watch(&self, id: &JobId) -> Option<watch::Receiver<Job>> {
        self.shared.book().watch(id)
    }

    /// Calls a job off and lets go of its file; durable on return. What already lies under its final name stays there; a part
    /// under the temporary name is removed if the server lets us in, and else named in the log.
    pub fn cancel(&self, id: &JobId) -> Result<Job, Refused> {
        self.shared.close(id, JobState::Cancelled)
    }

    /// Tries a job again now, with another credential if one is given.
    pub fn retry(&self, id: &JobId, request: &RetryRequest) -> Result<Job, Refused> {
        let credential =
            request::given(request.identity.as_ref(), request.passphrase.as_ref(), request.password.as_ref())?;
        let mut queue = self.shared.queue();
        if queue.stopped {
            return Err(Refused::Stopping);
        }
        let (state, mut record, to, way_in) = match self.shared.book().get(id) {
            Some(entry) => (entry.state(), entry.record.clone(), entry.to.clone(), entry.way_in.clone()),
            None => return Err(Refused::NoJob { id: id.0.clone() }),
        };
        if let (WayIn::Named(name), true) = (&way_in, credential.is_some() || request.host_key.is_some()) {
            let why = format!("destination '{name}' has its own host key and credential; give none");
            return Err(Refused::Credential(why));
        }
        match state {
            JobState::Done { .. } | JobState::Cancelled => return Err(Refused::Over { id: id.0.clone() }),
            running if running.is_running() => return Err(Refused::Running { id: id.0.clone() }),
            _ => {}
        }
        let endpoint = to.endpoint();
        if let Some(pin) = &request.host_key {
            record.host_key = HostKeyPin::parse(pin, &endpoint)?.stored();
        }
        let pin = HostKeyPin::parse(&record.host_key, &endpoint)?;
        let way_in = match (credential, way_in) {
            (_, WayIn::Named(name)) => WayIn::Named(name),
            (Some(credential), _) => WayIn::Given(Arc::new(Access { endpoint, pin, credential })),
            (None, WayIn::Given(old)) if old.pin == pin => WayIn::Given(old),
            (None, WayIn::Given(old)) => {
                WayIn::Given(Arc::new(Access { endpoint, pin, credential: old.credential.clone() }))
            }
            (None, WayIn::Forgotten) => {
                return Err(Refused::Credential(
                    "the credential of this upload was forgotten when the daemon ended; give it again".to_owned(),
                ));
            }
        };
        let store = self.shared.store(&mut queue);
        store.and_then(|store| store.revive(&record)).map_err(|e| Refused::NotDurable(e.to_string()))?;
        let mut book = self.shared.book();
        if let Some(entry) = book.entry_mut(id) {
            (entry.record, entry.way_in) = (record, way_in);
        }
        let job = book.again(id).ok_or_else(|| Refused::NoJob { id: id.0.clone() })?;
        drop(book);
        self.shared.changed.notify_one();
        Ok(job)
    }

    /// Ends the service; jobs that are not over go on in the next life. Waits for its thread.
    pub fn stop(&self) {
        self.shared.queue().stopped = true;
        let taken = lock(&self.stop).take();
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

impl Shared {
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// The open queue; opened, and its jobs taken over, if that was not possible before.
    fn store<'a>(&self, queue: &'a mut Queue) -> Result<&'a mut Store, StoreError> {
        if queue.store.is_none() {
            let opened = Store::open(&self.root);
            *lock(&self.trouble) = opened.as_ref().err().map(ToString::to_string);
            let (store, found) = opened?;
            queue.store = Some(store);
            let mut book = self.book();
            for stored in found {
                if let Some(entry) = self.restored(stored) {
                    book.enter(entry);
                }
            }
        }
        queue.store.as_mut().ok_or_else(|| io::Error::other("the queue is not open").into())
    }

    /// A job of an earlier life, pinned anew if it is not over.
    fn restored(&self, stored: Stored) -> Option<Entry> {
        let Stored { number, record, end } = stored;
        let to = match Destination::parse(&record.destination) {
            Ok(to) => to,
            Err(e) => {
                log::error!("upload {} of an earlier run cannot be understood: {e}", record.id);
                return None;
            }
        };
        let (to, way_in) = match &record.named {
            None => (to, WayIn::Forgotten),
            // The server may have moved; the name stays as it was resolved.
            Some(name) => match self.roads.named(name) {
                Some(destination) => (to.at(&destination.endpoint), WayIn::Named(name.clone())),
                None => (to, WayIn::Named(name.clone())),
            },
        };
        let over = end.as_ref().is_some_and(JobState::is_over);
        let outgoing = (!over).then(|| self.outbox.retake(Path::new(&record.path)));
        let begin = if record.named.is_some() { JobState::Queued } else { JobState::NeedsCredentials };
        let mut entry = Entry::new(number, record, to, way_in, outgoing, end.unwrap_or(begin));
        entry.known = Known::of_earlier_life();
        Some(entry)
    }

    /// A job is over. Written down first; if that fails, the job is over all the same, and done again by the next life.
    pub(super) fn close(&self, id: &JobId, state: JobState) -> Result<Job, Refused> {
        let mut queue = self.queue();
        let (present, forget) = {
            let book = self.book();
            let entry = book.get(id).ok_or_else(|| Refused::NoJob { id: id.0.clone() })?;
            (entry.state(), book.surplus())
        };
        if present.is_over() {
            return Err(Refused::Over { id: id.0.clone() });
        }
        if let Err(e) = self.store(&mut queue).and_then(|store| store.end(id, &state, &forget)) {
            if state == JobState::Cancelled {
                return Err(Refused::NotDurable(e.to_string()));
            }
            log::error!("that upload {id} is over cannot be written down: {e}");
        }
        let mut book = self.book();
        // Looked at together with the closing: until then a try may have begun or ended.
        let remains = book.get(id).filter(|_| state == JobState::Cancelled).and_then(Entry::remains);
        let job = book.close(id, state, &forget);
        drop(book);
        if let Some(remains) = remains {
            self.clearing.leave(remains);
        }
        job.ok_or_else(|| Refused::NoJob { id: id.0.clone() })
    }

    /// A job has failed and will not be tried again by itself.
    pub(super) fn note_failure(&self, id: &JobId, state: &JobState) {
        let mut queue = self.queue();
        // Somebody may have asked for another try, or called it off, in the meantime.
        if self.book().get(id).is_none_or(|entry| entry.state() != *state) {
            return;
        }
        if let Err(e) = self.store(&mut queue).and_then(|store| store.end(id, state, &[])) {
            log::error!("that upload {id} failed cannot be written down: {e}");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn records(order: &Order, options: &UploadOptions, group: &str, queue: &mut Queue) -> Vec<Record> {
    let record = |(outgoing, to): &(super::outbox::Outgoing, Destination)| {
        let id = JobId(format!("{}-{}", queue.life, queue.made));
        queue.made += 1;
        Record {
            id,
            group: group.to_owned(),
            path: outgoing.path.display().to_string(),
            destination: to.to_string(),
            host_key: order.pin.stored(),
            named: order.named.clone(),
            priority: options.priority,
            overwrite: options.overwrite,
            max_rate: order.max_rate,
            read_back: options.read_back,
            reduce: options.reduce,
            clock: outgoing.values.get("clock").filter(|_| order.timed).cloned(),
        }
    };
    order.files.iter().map(record).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// Tells this life of the queue, and this box, from others.
fn random() -> io::Result<u64> {
    use io::Read as _;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

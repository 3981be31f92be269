//! The one thread that receives from all network cameras.
//!
//! Promises that wake-ups follow time and not packets: while every session streams, the thread rests before it waits for
//! sockets, so that many packets are read at once and the kernel's buffers, not our wake-ups, absorb them. It never rests
//! while a session is in its handshake, and starting or stopping a session ends the rest at once.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::task::AbortHandle;

/// One rest. At 4 Mbit/s a camera sends 30 KB in it, well below the smallest TCP receive window.
const REST: Duration = Duration::from_millis(60);

/// The thread's handle.
pub(super) struct Reactor {
    handle: Handle,
    shared: Arc<Shared>,
}

/// What the thread and its callers share.
#[derive(Default)]
struct Shared {
    /// Sessions that exist.
    sessions: AtomicUsize,
    /// Sessions that must be answered at once.
    busy: AtomicUsize,
    poked: Mutex<bool>,
    poke: Condvar,
}

impl Shared {
    /// Called by the thread each time before it waits for sockets.
    fn rest(&self) {
        let mut poked = self.poked.lock().unwrap_or_else(PoisonError::into_inner);
        if self.busy.load(Ordering::SeqCst) == 0 && self.sessions.load(Ordering::SeqCst) > 0 {
            let rested = self.poke.wait_timeout_while(poked, REST, |poked| !*poked);
            (poked, _) = rested.unwrap_or_else(PoisonError::into_inner);
        }
        *poked = false;
    }

    fn poke(&self) {
        *self.poked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.poke.notify_one();
    }
}

/// Counts in one of the counters of [`Shared`] while it lives.
struct Count(Arc<Shared>, fn(&Shared) -> &AtomicUsize);

impl Count {
    fn new(shared: &Arc<Shared>, counter: fn(&Shared) -> &AtomicUsize) -> Self {
        counter(shared).fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared), counter)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::SeqCst);
    }
}

/// Held by a session that must be answered at once.
pub(super) struct Busy {
    _count: Count,
}

impl Busy {
    /// Of a session that runs on no common thread.
    pub(super) fn alone() -> Self {
        Self { _count: Count::new(&Arc::default(), |s| &s.busy) }
    }
}

/// A session's task.
pub(super) struct Task {
    abort: AbortHandle,
    shared: Arc<Shared>,
}

impl Task {
    /// Ends the task at its next await, on the thread itself, without waiting for it.
    pub(super) fn stop(&self) {
        self.abort.abort();
        self.shared.poke();
    }
}

/// The thread of this process, started at the first call.
pub(super) fn get() -> io::Result<&'static Reactor> {
    static REACTOR: OnceLock<Reactor> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = REACTOR.get() {
        return Ok(running);
    }
    let started = start()?;
    Ok(REACTOR.get_or_init(|| started))
}

fn start() -> io::Result<Reactor> {
    let shared = Arc::new(Shared::default());
    let resting = Arc::clone(&shared);
    let runtime =
        Builder::new_current_thread().enable_io().enable_time().on_thread_park(move || resting.rest()).build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("mos-rtsp".into())
        .stack_size(512 * 1024)
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(Reactor { handle, shared })
}

impl Reactor {
    /// Runs a session. It starts busy.
    pub(super) fn spawn<F, R>(&self, session: F) -> Task
    where
        F: FnOnce(Busy) -> R + Send + 'static,
        R: Future<Output = ()> + Send,
    {
        let busy = Busy { _count: Count::new(&self.shared, |s| &s.busy) };
        let alive = Count::new(&self.shared, |s| &s.sessions);
        let task = self.handle.spawn(async move {
            session(busy).await;
            drop(alive);
        });
        self.shared.poke();
        Task { abort: task.abort_handle(), shared: Arc::clone(&self.shared) }
    }
}

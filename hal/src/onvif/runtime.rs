//! The one thread that talks ONVIF, started at the first call.

use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::runtime::{Builder, Handle};
use tokio::task::AbortHandle;

/// Work on the thread; dropping it ends the work at its next wait.
pub(crate) struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins work.
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> io::Result<Task> {
    Ok(Task(handle()?.spawn(work).abort_handle()))
}

/// Begins work that ends by itself.
pub(super) fn detach(work: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    handle()?.spawn(work);
    Ok(())
}

/// Work that the caller waits for, from a thread that may wait.
pub(super) fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
    let (done, result) = std::sync::mpsc::channel();
    let _task = spawn(async move {
        // Nobody waits only if the caller is gone.
        let _ = done.send(work.await);
    })?;
    result.recv().map_err(|_| io::Error::other("the work ended without a result"))
}

fn handle() -> io::Result<&'static Handle> {
    static HANDLE: OnceLock<Handle> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = HANDLE.get() {
        return Ok(running);
    }
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("mos-onvif".into())
        .stack_size(512 * 1024)
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(HANDLE.get_or_init(|| handle))
}

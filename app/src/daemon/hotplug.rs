//! Devices that come and go, handed on to capture.
//!
//! Promises that a machine where they cannot be heard of loses nothing but speed: what is absent is tried again all the same.

use std::io;
use std::path::Path;

use mos_hal::hotplug::Hotplug;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::capture::CaptureControlService;
use crate::config::Camera;

/// Listens from now on, within a runtime. To be called before the cameras are opened, so that nothing falls in between.
pub(super) fn listen(cameras: &[Camera]) -> Option<AsyncFd<Hotplug>> {
    Hotplug::listen(Path::new("/dev"), cameras.iter().map(|camera| &camera.source))
        .and_then(|hotplug| {
            // SAFETY: the descriptor is `hotplug`'s own, always the same, and open until it is dropped, after it was deregistered.
            let registered = unsafe { AsyncFd::register_with_interest(hotplug, Interest::READABLE) };
            registered.map_err(|e| io::Error::other(e.to_string()))
        })
        .inspect_err(|e| log::warn!("devices that come and go are not heard of, only looked for: {e}"))
        .ok()
}

/// Tells capture of every change; for ever.
pub(super) async fn follow(hotplug: Option<AsyncFd<Hotplug>>, capture: &CaptureControlService) {
    if let Some(mut hotplug) = hotplug {
        let Err(e) = tell(&mut hotplug, capture).await;
        log::warn!("devices that come and go are not heard of any more, only looked for: {e}");
    }
    std::future::pending::<()>().await;
}

async fn tell(hotplug: &mut AsyncFd<Hotplug>, capture: &CaptureControlService) -> io::Result<std::convert::Infallible> {
    loop {
        let mut ready = hotplug.readable_mut().await?;
        if ready.get_inner_mut().take()? {
            capture.devices_changed();
        }
        ready.clear_ready();
    }
}

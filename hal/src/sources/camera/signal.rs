//! Whether something is connected to the input of a V4L2 device.
//!
//! An HDMI or analogue input without a signal may go on to deliver pictures, of noise or blue; its driver tells by
//! `VIDIOC_ENUMINPUT` (Linux, include/uapi/linux/videodev2.h, `V4L2_IN_ST_*`). Promises that a source whose input has lost its
//! signal ends with that as its reason, within three seconds as long as pictures come, and that one is not begun without a
//! signal. Only asks, once a second, in the camera's own thread; a driver that does not know is never asked again.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::source::SourceError;
use crate::sources::outlet::Outlet;

const EVERY: Duration = Duration::from_secs(1);
/// A receiver that changes its mode is without a signal for a moment.
const IN_A_ROW: u32 = 2;
/// `V4L2_IN_ST_NO_POWER`, `V4L2_IN_ST_NO_SIGNAL`, `V4L2_IN_ST_NO_SYNC`.
const WITHOUT: u32 = 0x1 | 0x2 | 0x1_0000;

/// `struct v4l2_input`.
#[repr(C)]
#[derive(Default)]
struct V4l2Input {
    index: u32,
    name: [u8; 32],
    kind: u32,
    audioset: u32,
    tuner: u32,
    std: u64,
    status: u32,
    capabilities: u32,
    reserved: [u32; 3],
}

nix::ioctl_readwrite!(vidioc_enuminput, b'V', 26, V4l2Input);
nix::ioctl_read!(vidioc_g_input, b'V', 38, i32);

/// The input of an open device. `None`: the driver does not tell.
fn input(device: &File) -> Option<V4l2Input> {
    let mut index = 0;
    // SAFETY: the descriptor is open, and the kernel writes the one integer that the request's number tells.
    unsafe { vidioc_g_input(device.as_raw_fd(), &raw mut index) }.ok()?;
    let mut input = V4l2Input { index: u32::try_from(index).ok()?, ..V4l2Input::default() };
    // SAFETY: the descriptor is open, and the structure has the kernel's layout, whose size is part of the request's number.
    unsafe { vidioc_enuminput(device.as_raw_fd(), &raw mut input) }.ok()?;
    Some(input)
}

fn absent(input: &V4l2Input, outlet: &Outlet) -> SourceError {
    let name = String::from_utf8_lossy(&input.name);
    let detail = format!("its input {} has no signal", name.trim_end_matches('\0'));
    SourceError::Absent { what: outlet.what.clone(), detail }
}

/// Watches the input of `device`, whose pictures leave by `pad`. Fails if there is no signal now.
pub(super) fn watch(device: &Path, pad: &gst::Pad, outlet: &Arc<Outlet>) -> Result<(), SourceError> {
    // A second descriptor: it only asks, and needs no right to write.
    let Some(device) = OpenOptions::new().read(true).open(device).ok() else { return Ok(()) };
    let Some(now) = input(&device) else { return Ok(()) };
    if now.status & WITHOUT != 0 {
        return Err(absent(&now, outlet));
    }
    let (outlet, watched) = (Arc::clone(outlet), Mutex::new((Instant::now(), Missing::default())));
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, missing) = &mut *watched;
        if asked.elapsed() < EVERY {
            return gst::PadProbeReturn::Ok;
        }
        *asked = Instant::now();
        match input(&device) {
            Some(now) if missing.see(now.status) => outlet.end(absent(&now, &outlet)),
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

/// How often in a row there was no signal.
#[derive(Default)]
struct Missing(u32);

impl Missing {
    /// Whether it is gone.
    fn see(&mut self, status: u32) -> bool {
        self.0 = if status & WITHOUT == 0 { 0 } else { self.0 + 1 };
        self.0 >= IN_A_ROW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_is_the_kernels() {
        assert_eq!(size_of::<V4l2Input>(), 80);
        assert_eq!(std::mem::offset_of!(V4l2Input, status), 56);
    }

    #[test]
    fn a_moment_without_signal_ends_nothing() {
        let mut missing = Missing::default();
        // Colour that is missing (4) or a line lock that an old recorder loses (0x100) are no loss of the signal.
        let seen = [0, 2, 0, 2, 4, 0x1_0000, 0x100, 2, 2];
        assert_eq!(
            seen.map(|status| missing.see(status)),
            [false, false, false, false, false, false, false, false, true]
        );
    }
}

//! The ignition line as power event: when it goes off, hold-up time is running.
//!
//! Promises that contact bounce is no event, and that a line that is off already is none either: a box that a timer woke
//! records without ignition.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use gpiocdev::Request;
use gpiocdev::line::EdgeDetection;
use gpiocdev::request::Builder;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Line;
use crate::power::{PowerEvent, PowerEvents};

/// Shorter changes are bounce or the starter's dip.
const STEADY: Duration = Duration::from_millis(100);

/// An ignition line.
#[derive(Debug)]
pub struct Ignition {
    request: Request,
}

impl Ignition {
    pub(super) fn set_up<'a>(line: &Line, builder: &'a mut Builder) -> &'a mut Builder {
        // Levels are electrical.
        let off = if line.active_low { EdgeDetection::RisingEdge } else { EdgeDetection::FallingEdge };
        builder.as_input().with_edge_detection(off).with_debounce_period(STEADY)
    }

    pub(super) fn of(line: &Line, request: Request) -> Self {
        log::info!("the ignition is on GPIO line {line}");
        Self { request }
    }
}

impl AsFd for Ignition {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.request.as_fd()
    }
}

impl PowerEvents for Ignition {
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Option<PowerEvent>> {
        let timeout = timeout.map_or(PollTimeout::NONE, |t| PollTimeout::try_from(t).unwrap_or(PollTimeout::MAX));
        match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => Ok(None),
            Ok(_) => {
                self.request.read_edge_event().map_err(|e| io::Error::other(e.to_string()))?;
                Ok(Some(PowerEvent::Failing))
            }
            Err(e) => Err(e.into()),
        }
    }
}

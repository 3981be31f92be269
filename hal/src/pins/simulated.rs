//! Lines of a box that is not there: tests set what is read and see what is driven. Behaves as the kernel does: a line has one
//! taker at a time, and one that is not there is an error.

use std::collections::BTreeMap;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use embedded_hal::digital::{ErrorType, InputPin, OutputPin};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Input, Line, Output, PinError, Pins};
use crate::power::{PowerEvent, PowerEvents};

/// Simulated lines. Clones share them.
#[derive(Clone, Debug)]
pub struct SimPins(Arc<Mutex<BTreeMap<String, Wire>>>);

#[derive(Debug, Default)]
struct Wire {
    high: bool,
    taken: bool,
    /// Told of falling edges.
    falls: Option<PipeWriter>,
}

impl SimPins {
    /// Lines of these names, low.
    #[must_use]
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let wire = |name: &str| (name.to_owned(), Wire::default());
        Self(Arc::new(Mutex::new(names.into_iter().map(wire).collect())))
    }

    /// The electrical level of a line; `None` if there is none of that name.
    #[must_use]
    pub fn level(&self, line: &str) -> Option<bool> {
        self.lock().get(line.trim_start_matches('!')).map(|wire| wire.high)
    }

    /// Pulls a line from outside.
    pub fn pull(&self, line: &str, high: bool) {
        if let Some(wire) = self.lock().get_mut(line.trim_start_matches('!')) {
            if wire.high && !high {
                // A full pipe holds an event already.
                let _ = wire.falls.as_mut().map(|pipe| pipe.write(&[0]));
            }
            wire.high = high;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Wire>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, line: &Line, set_up: impl FnOnce(&mut Wire)) -> Result<Pin, PinError> {
        let name = line.to_string().trim_start_matches('!').to_owned();
        let mut wires = self.lock();
        let Some(wire) = wires.get_mut(&name) else {
            return Err(PinError::NoLine { line: line.clone(), seen: format!("no simulated line is called {name}") });
        };
        if wire.taken {
            return Err(PinError::Refused { line: line.clone(), why: "somebody has it already".into() });
        }
        wire.taken = true;
        set_up(wire);
        Ok(Pin { pins: self.clone(), name })
    }
}

impl Pins for SimPins {
    fn input(&self, line: &Line) -> Result<Input, PinError> {
        Ok(Box::new(self.take(line, |_| ())?))
    }

    fn output(&self, line: &Line) -> Result<Output, PinError> {
        Ok(Box::new(self.take(line, |wire| wire.high = line.active_low)?))
    }

    fn ignition(&self, line: &Line) -> Result<Box<dyn PowerEvents>, PinError> {
        let refused = |e: io::Error| PinError::Refused { line: line.clone(), why: e.to_string() };
        let (read, write) = io::pipe().map_err(refused)?;
        let pin = self.take(line, |wire| wire.falls = Some(write))?;
        Ok(Box::new(Falls { read, _pin: pin }))
    }
}

/// A taken line; dropping it gives it back.
struct Pin {
    pins: SimPins,
    name: String,
}

impl Pin {
    fn wire<T>(&self, with: impl FnOnce(&mut Wire) -> T) -> T {
        with(self.pins.lock().entry(self.name.clone()).or_default())
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.wire(|wire| (wire.taken, wire.falls) = (false, None));
    }
}

impl ErrorType for Pin {
    type Error = PinError;
}

impl InputPin for Pin {
    fn is_high(&mut self) -> Result<bool, PinError> {
        Ok(self.wire(|wire| wire.high))
    }
    fn is_low(&mut self) -> Result<bool, PinError> {
        Ok(!self.wire(|wire| wire.high))
    }
}

impl OutputPin for Pin {
    fn set_low(&mut self) -> Result<(), PinError> {
        self.wire(|wire| wire.high = false);
        Ok(())
    }
    fn set_high(&mut self) -> Result<(), PinError> {
        self.wire(|wire| wire.high = true);
        Ok(())
    }
}

struct Falls {
    read: PipeReader,
    _pin: Pin,
}

impl AsFd for Falls {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl PowerEvents for Falls {
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Option<PowerEvent>> {
        let timeout = timeout.map_or(PollTimeout::NONE, |t| PollTimeout::try_from(t).unwrap_or(PollTimeout::MAX));
        match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => Ok(None),
            Ok(_) => {
                self.read.read_exact(&mut [0])?;
                Ok(Some(PowerEvent::Failing))
            }
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ignition_going_off_is_an_event_and_being_off_is_none() {
        let pins = SimPins::new(["IGN"]);
        let line: Line = "IGN".parse().unwrap();
        let mut events = pins.ignition(&line).unwrap();
        assert_eq!(events.wait(Some(Duration::ZERO)).unwrap(), None);
        pins.pull("IGN", true);
        assert_eq!(events.wait(Some(Duration::ZERO)).unwrap(), None);
        pins.pull("IGN", false);
        assert_eq!(events.wait(None).unwrap(), Some(PowerEvent::Failing));
        assert_eq!(events.wait(Some(Duration::ZERO)).unwrap(), None);
        assert!(matches!(pins.input(&line).map(drop), Err(PinError::Refused { .. })), "it has one taker");
        drop(events);
        pins.pull("IGN", true);
        assert!(pins.input(&line).unwrap().is_high().unwrap());
    }
}

//! Lines by the kernel's GPIO character devices (Linux Documentation/userspace-api/gpio/chardev.rst).

use std::path::PathBuf;

use embedded_hal::digital::{ErrorType, InputPin, OutputPin};
use gpiocdev::Request;
use gpiocdev::line::Value;
use gpiocdev::request::Builder;

use super::{Ignition, Input, Line, Output, PinError, Pins, Place};
use crate::power::PowerEvents;

/// The lines of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gpio;

impl Pins for Gpio {
    fn input(&self, line: &Line) -> Result<Input, PinError> {
        let request = take(line, |builder| builder.as_input())?;
        let pin = gpiocdev_embedded_hal::InputPin::try_from(request).map_err(|e| refused(line, &e))?;
        Ok(Box::new(Taken { pin, line: line.clone() }))
    }

    fn output(&self, line: &Line) -> Result<Output, PinError> {
        let off = if line.active_low { Value::Active } else { Value::Inactive };
        let request = take(line, |builder| builder.as_output(off))?;
        let pin = gpiocdev_embedded_hal::OutputPin::try_from(request).map_err(|e| refused(line, &e))?;
        Ok(Box::new(Taken { pin, line: line.clone() }))
    }

    fn ignition(&self, line: &Line) -> Result<Box<dyn PowerEvents>, PinError> {
        Ok(Box::new(Ignition::of(line, take(line, |builder| Ignition::set_up(line, builder))?)))
    }
}

/// Requests a line. Levels are electrical: `active_low` is the caller's matter.
fn take(line: &Line, set_up: impl FnOnce(&mut Builder) -> &mut Builder) -> Result<Request, PinError> {
    let (chip, offset) = find(line)?;
    let mut builder = Request::builder();
    builder.on_chip(chip).with_consumer("mos").with_line(offset);
    set_up(&mut builder).request().map_err(|e| refused(line, &e))
}

fn find(line: &Line) -> Result<(PathBuf, u32), PinError> {
    match &line.place {
        Place::Offset { chip, offset } => {
            let path = PathBuf::from("/dev").join(chip);
            if !path.exists() {
                return Err(PinError::NoChip { line: line.clone(), chip: path.display().to_string() });
            }
            let info = gpiocdev::Chip::from_path(&path).and_then(|chip| chip.info()).map_err(|e| refused(line, &e))?;
            if *offset >= info.num_lines {
                let seen = format!("{} has lines 0 to {}", path.display(), info.num_lines.saturating_sub(1));
                return Err(PinError::NoLine { line: line.clone(), seen });
            }
            Ok((path, *offset))
        }
        Place::Name(name) => {
            let absent = || {
                let seen = format!("no line of any GPIO chip is called {name}");
                PinError::NoLine { line: line.clone(), seen }
            };
            gpiocdev::find_named_line(name).map(|found| (found.chip, found.info.offset)).ok_or_else(absent)
        }
    }
}

pub(super) fn refused(line: &Line, error: &impl ToString) -> PinError {
    let why = error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    PinError::Refused { line: line.clone(), why }
}

/// A pin whose errors name its line.
struct Taken<P> {
    pin: P,
    line: Line,
}

impl<P> ErrorType for Taken<P> {
    type Error = PinError;
}

impl<P: InputPin<Error: ToString>> InputPin for Taken<P> {
    fn is_high(&mut self) -> Result<bool, PinError> {
        self.pin.is_high().map_err(|e| refused(&self.line, &e))
    }
    fn is_low(&mut self) -> Result<bool, PinError> {
        self.pin.is_low().map_err(|e| refused(&self.line, &e))
    }
}

impl<P: OutputPin<Error: ToString>> OutputPin for Taken<P> {
    fn set_low(&mut self) -> Result<(), PinError> {
        self.pin.set_low().map_err(|e| refused(&self.line, &e))
    }
    fn set_high(&mut self) -> Result<(), PinError> {
        self.pin.set_high().map_err(|e| refused(&self.line, &e))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        let line = |text: &str| text.parse::<Line>().unwrap();
        let absent = "!gpiochip99999:3";
        for why in [
            Gpio.input(&line(absent)).map(drop).unwrap_err(),
            Gpio.output(&line(absent)).map(drop).unwrap_err(),
            Gpio.ignition(&line(absent)).map(drop).unwrap_err(),
        ] {
            assert_eq!(why.to_string(), "GPIO line !gpiochip99999:3: there is no chip /dev/gpiochip99999");
        }
        let why = Gpio.output(&line("MOS_NO_SUCH_LINE")).map(drop).unwrap_err().to_string();
        assert_eq!(why, "GPIO line MOS_NO_SUCH_LINE: no line of any GPIO chip is called MOS_NO_SUCH_LINE");
    }
}

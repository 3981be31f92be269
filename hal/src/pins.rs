//! GPIO lines of the box: a status light, and what wakes or switches it.
//!
//! Promises that a line that is not there, is taken or has another name is an error that says so, at opening; nothing is driven
//! before somebody asks. Lines are `embedded_hal` pins that work electrically; which level means "on" is the line's own matter
//! and stands in [`Line::active_low`].
//!
//! Reading a line does not make it wake the box: only what the kernel has as wake-up source does (gpio-keys in the device tree).

mod gpio;
mod ignition;
mod simulated;

use std::fmt;
use std::str::FromStr;

use embedded_hal::digital::{Error as DigitalError, ErrorKind, ErrorType, InputPin, OutputPin};

pub use gpio::Gpio;
pub use ignition::Ignition;
pub use simulated::SimPins;

use crate::power::PowerEvents;

/// How a line is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// `gpiochip3:12`: chip and offset on it.
    Offset {
        /// Name of the chip's node in `/dev`.
        chip: String,
        /// From 0.
        offset: u32,
    },
    /// `STATUS_LED`: the name that the device tree gives it (`gpio-line-names`).
    Name(String),
}

/// A line as the configuration names it: `gpiochip3:12` or `STATUS_LED`, with `!` before it if low means on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// Where it is.
    pub place: Place,
    /// Low means on.
    pub active_low: bool,
}

/// A text that names no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is gpiochipN:OFFSET or the line's name, with ! before it if low means on")]
pub struct BadLine;

impl FromStr for Line {
    type Err = BadLine;

    fn from_str(text: &str) -> Result<Self, BadLine> {
        let (active_low, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let place = match text.split_once(':') {
            Some((chip, offset)) => {
                let number = chip.strip_prefix("gpiochip").ok_or(BadLine)?;
                if number.is_empty() || number.len() > 5 || !number.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(BadLine);
                }
                Place::Offset { chip: chip.to_owned(), offset: offset.parse().map_err(|_| BadLine)? }
            }
            // The kernel's names have at most 31 bytes (GPIO_MAX_NAME_SIZE, include/uapi/linux/gpio.h).
            None if (1..32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) => {
                Place::Name(text.to_owned())
            }
            None => return Err(BadLine),
        };
        Ok(Self { place, active_low })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.active_low { "!" } else { "" })?;
        match &self.place {
            Place::Offset { chip, offset } => write!(f, "{chip}:{offset}"),
            Place::Name(name) => f.write_str(name),
        }
    }
}

/// Why a line cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// No such chip.
    #[error("GPIO line {line}: there is no chip {chip}")]
    NoChip {
        /// The line.
        line: Line,
        /// Its chip.
        chip: String,
    },
    /// The chip has fewer lines, or no chip has one of that name.
    #[error("GPIO line {line}: {seen}")]
    NoLine {
        /// The line.
        line: Line,
        /// What there is instead.
        seen: String,
    },
    /// The system refuses it: somebody else has it, or the rights are missing.
    #[error("GPIO line {line}: {why}")]
    Refused {
        /// The line.
        line: Line,
        /// The system's words.
        why: String,
    },
}

impl DigitalError for PinError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

/// A line that is read.
pub type Input = Box<dyn InputPin<Error = PinError> + Send>;
/// A line that is driven.
pub type Output = Box<dyn OutputPin<Error = PinError> + Send>;

/// The lines of a box. Object-safe.
pub trait Pins: Send + Sync {
    /// Takes a line to read it.
    fn input(&self, line: &Line) -> Result<Input, PinError>;
    /// Takes a line to drive it, off at first.
    fn output(&self, line: &Line) -> Result<Output, PinError>;
    /// Takes a line whose going off is a power event.
    fn ignition(&self, line: &Line) -> Result<Box<dyn PowerEvents>, PinError>;
}

/// Something that a line switches: a light, a camera's power.
pub struct Switch {
    pin: Output,
    active_low: bool,
}

impl Switch {
    /// Takes the line; it is off.
    pub fn take(pins: &dyn Pins, line: &Line) -> Result<Self, PinError> {
        Ok(Self { pin: pins.output(line)?, active_low: line.active_low })
    }

    /// Switches it.
    pub fn set(&mut self, on: bool) -> Result<(), PinError> {
        if on == self.active_low { self.pin.set_low() } else { self.pin.set_high() }
    }
}

impl ErrorType for Switch {
    type Error = PinError;
}

/// High is on, whichever level that is: for drivers that switch something.
impl OutputPin for Switch {
    fn set_low(&mut self) -> Result<(), PinError> {
        self.set(false)
    }
    fn set_high(&mut self) -> Result<(), PinError> {
        self.set(true)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_named_by_offset_or_name() {
        let read = |text: &str| text.parse::<Line>();
        let line = read("gpiochip3:12").unwrap();
        assert_eq!(line.place, Place::Offset { chip: "gpiochip3".into(), offset: 12 });
        assert_eq!(read("!STATUS_LED"), Ok(Line { place: Place::Name("STATUS_LED".into()), active_low: true }));
        for text in ["gpiochip0:0", "!gpiochip10:31", "IGN", "!gpio-5"] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        for bad in [
            "",
            "!",
            "chip0:1",
            "gpiochip:1",
            "gpiochip0:",
            "gpiochip0:-1",
            "gpiochip/../x:1",
            "a b",
            "\u{1b}",
            &"x".repeat(32),
        ] {
            assert_eq!(read(bad), Err(BadLine), "{bad}");
        }
    }

    #[test]
    fn a_switch_knows_which_level_is_on() {
        let pins = SimPins::new(["LED", "LOW"]);
        for (line, on, off) in [("LED", true, false), ("!LOW", false, true)] {
            let mut switch = Switch::take(&pins, &line.parse().unwrap()).unwrap();
            assert_eq!(pins.level(line), Some(off), "off at first");
            switch.set(true).unwrap();
            assert_eq!(pins.level(line), Some(on));
            switch.set(false).unwrap();
            assert_eq!(pins.level(line), Some(off));
        }
        let taken = Switch::take(&pins, &"LED".parse().unwrap()).map(drop);
        assert_eq!(taken, Ok(()), "a switch that is gone gives its line back");
    }
}

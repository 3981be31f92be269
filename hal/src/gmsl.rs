//! GMSL2 cameras: a deserializer on an I2C bus, up to four coax links, a serializer and a sensor at the far end of each.
//!
//! Promises:
//! - **G1** nothing is written to a chip that the kernel or the camera service drives; the reason is told (see [`Access`]);
//! - **G2** counters that clear on read have exactly one reader, [`watch`], and only grow in what it tells;
//! - **G3** a link that does not come up costs only itself, and its power is switched off again until it is tried anew (G5, G6 in
//!   [`starter`]);
//! - **G4** a bus that does not answer is a text in the report, never a wait without end and never a panic.
//!
//! All register facts come from drivers and vendors' scripts (graded in [`registers`]); no data sheet was read and nothing was
//! tried on a board. Chips are reached through `embedded_hal` alone, so that tests give a model of them.

pub mod access;
pub mod board;
pub mod bring_up;
pub mod deserializer;
#[cfg(test)]
mod model;
pub mod registers;
pub mod starter;
#[cfg(test)]
mod tests;
pub mod watch;

use std::fmt;

pub use access::Access;

use crate::media::LensId;

/// One of a deserializer's four links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    /// Link 0.
    A,
    /// Link 1.
    B,
    /// Link 2.
    C,
    /// Link 3.
    D,
}

impl Link {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::D];

    /// By its number in the tree, from 0.
    #[must_use]
    pub fn new(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// From 0.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Its place in arrays of four.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What the coax line measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Line {
    /// As it should be.
    Normal,
    /// Shorted to the battery.
    Battery,
    /// Shorted to ground.
    Ground,
    /// Open: nothing is plugged in.
    Open,
    /// The chip says something that has no name here.
    #[default]
    Unknown,
}

impl Line {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Battery => "short_to_battery",
            Self::Ground => "short_to_ground",
            Self::Open => "open",
            Self::Unknown => "unknown",
        }
    }
}

/// How a link is at one moment. Asking for it changes nothing in the chip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Serializer and deserializer hear each other.
    pub lock: bool,
    /// Video arrives.
    pub video_lock: bool,
    /// The coax line.
    pub line: Line,
}

/// A link over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// When it was asked last.
    pub state: LinkState,
    /// Symbols that could not be decoded, since the program started. At least so many: the chip counts to 255 between two
    /// readings.
    pub decode_errors: u64,
    /// Errors in idle words, likewise.
    pub idle_errors: u64,
    /// How often lock was lost.
    pub lock_losses: u64,
}

/// A link that somebody watches. Asking it never touches the bus.
pub trait GmslLink: Send + Sync {
    /// The lens at its far end.
    fn lens(&self) -> &LensId;
    /// Path of the deserializer's node in the device tree.
    fn deserializer(&self) -> &str;
    /// Which of its links.
    fn link(&self) -> Link;
    /// What may be done with the chip, and why not more.
    fn access(&self) -> Access;
    /// How the link is, or why that is not known.
    fn report(&self) -> Result<LinkReport, String>;
    /// Why the link is dark though MOS sets it up, and when it is tried again; `None` while it runs or is nothing of ours.
    fn dark(&self) -> Option<String>;
}

/// Why a GMSL chip could not be worked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GmslError {
    /// The bus refused or broke off.
    #[error("I2C address {address:#04x}, register {register:#06x}: {why}")]
    Bus {
        /// 7-bit.
        address: u8,
        /// 16-bit.
        register: u16,
        /// The bus's word: `no acknowledge`, `arbitration lost`…
        why: String,
    },
    /// Something else answers, or an unknown chip.
    #[error(
        "I2C address {address:#04x}: no deserializer that MOS knows: register 0x000d holds {id:#04x} and 0x004a {other_id:#04x}"
    )]
    UnknownDeserializer {
        /// 7-bit.
        address: u8,
        /// At 0x000D.
        id: u8,
        /// At 0x004A.
        other_id: u8,
    },
    /// The far end is no serializer that MOS knows.
    #[error("link {link}: no MAX9295A: register 0x000d of its serializer holds {id:#04x}")]
    UnknownSerializer {
        /// The link.
        link: Link,
        /// At 0x000D.
        id: u8,
    },
    /// The far end does not answer, or not in time.
    #[error("link {link}: no lock within {waited_ms} ms; is the camera plugged in and powered?")]
    NoLock {
        /// The link.
        link: Link,
        /// Milliseconds.
        waited_ms: u32,
    },
    /// A written register does not hold what was written.
    #[error(
        "I2C address {address:#04x}, register {register:#06x}: holds {found:#04x} after {written:#04x} was written"
    )]
    NotTaken {
        /// 7-bit.
        address: u8,
        /// 16-bit.
        register: u16,
        /// What was written.
        written: u8,
        /// What it holds.
        found: u8,
    },
    /// A pin could not be driven.
    #[error("the {what} pin cannot be driven: {why}")]
    Pin {
        /// Which.
        what: String,
        /// The system's word.
        why: String,
    },
    /// The plan cannot be carried out.
    #[error("the plan of bring-up: {0}")]
    Plan(String),
}

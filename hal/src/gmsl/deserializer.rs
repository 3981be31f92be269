//! A MAX96712 or MAX96724: who it is, and how its links are.
//!
//! [`Deserializer::states`] may be called by anybody; [`Deserializer::take_errors`] clears what it reads and belongs to the one
//! poller alone (G2). Neither writes (G1).

use embedded_hal::i2c::I2c;

use super::registers::{Registers, des};
use super::{GmslError, Line, Link, LinkState};

/// Which chip it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// MAX96712.
    Max96712,
    /// MAX96724, register-compatible as far as MOS goes.
    Max96724,
}

impl Model {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Max96712 => "MAX96712",
            Self::Max96724 => "MAX96724",
        }
    }
}

/// What the error counters held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// Of each link.
    pub decode: [u8; 4],
    /// Of each link.
    pub idle: [u8; 4],
}

/// An identified deserializer.
#[derive(Debug)]
pub struct Deserializer<I> {
    pub(super) registers: Registers<I>,
    pub(super) address: u8,
    model: Model,
}

impl<I: I2c> Deserializer<I> {
    /// Asks the chip at a 7-bit address who it is. Sources disagree about where its id stands; either is taken.
    pub fn identify(bus: I, address: u8) -> Result<Self, GmslError> {
        let mut registers = Registers::new(bus);
        let model = model(&mut registers, address)?;
        Ok(Self { registers, address, model })
    }

    /// Which chip it is.
    #[must_use]
    pub fn model(&self) -> Model {
        self.model
    }

    /// Asks again: after a reset, or whether it is still there.
    pub fn confirm(&mut self) -> Result<(), GmslError> {
        model(&mut self.registers, self.address).map(drop)
    }

    /// Whether a link is locked.
    pub fn locked(&mut self, link: Link) -> Result<bool, GmslError> {
        Ok(self.registers.read(self.address, des::lock(link))? & des::LOCKED != 0)
    }

    /// How all links are. Changes nothing.
    pub fn states(&mut self) -> Result<[LinkState; 4], GmslError> {
        let mut states = [LinkState::default(); 4];
        let [ab, cd] = self.registers.read_row(self.address, des::LINE)?;
        for (state, line) in states.iter_mut().zip([ab, ab >> 4, cd, cd >> 4]) {
            // 4 and above are shorts between lines of a pair, which coax has not [I].
            state.line = match line & 7 {
                0 => Line::Battery,
                1 => Line::Ground,
                2 => Line::Normal,
                3 => Line::Open,
                _ => Line::Unknown,
            };
        }
        for link in Link::ALL {
            states[link.index()].lock = self.locked(link)?;
        }
        // Whoever set the chip up chose which pipe carries which link.
        let enabled = self.registers.read(self.address, des::PIPES)?;
        let [first, second] = self.registers.read_row(self.address, des::PIPE_SELECT)?;
        for (pipe, select) in (0u16..).zip([first, first >> 4, second, second >> 4]) {
            if enabled >> pipe & 1 == 1 {
                let lock = self.registers.read(self.address, des::VIDEO_LOCK + des::VIDEO_LOCK_STEP * pipe)?;
                states[usize::from(select >> 2 & 3)].video_lock |= lock & 1 == 1;
            }
        }
        Ok(states)
    }

    /// The error counters, which start again from 0. For the one poller.
    pub fn take_errors(&mut self) -> Result<Errors, GmslError> {
        // In one transfer, or what was read would be lost with what was not.
        let row: [u8; 8] = self.registers.read_row(self.address, des::ERRORS)?;
        Ok(Errors { decode: std::array::from_fn(|link| row[link]), idle: std::array::from_fn(|link| row[4 + link]) })
    }
}

fn model<I: I2c>(registers: &mut Registers<I>, address: u8) -> Result<Model, GmslError> {
    match registers.read(address, des::ID)? {
        0xA0 => Ok(Model::Max96712),
        0xA2 => Ok(Model::Max96724),
        id => match registers.read(address, des::OTHER_ID)? {
            des::OTHER_ID_VALUE => Ok(Model::Max96712),
            other_id => Err(GmslError::UnknownDeserializer { address, id, other_id }),
        },
    }
}

//! Where what stands in the chips, and the one way to read and write it.
//!
//! Addresses have 16 bits, values 8. Grades: **S** read in a driver's source (ADI's max96724.c and max9295a, Linux' staging
//! max96712.c, NXP's max96724_regs.h, Rockchip's and Zephyr's drivers), **I** inferred. No data sheet was read.

use embedded_hal::i2c::{Error, ErrorKind, I2c, NoAcknowledgeSource};

use super::{GmslError, Link};

/// MAX96712 and MAX96724 \[S\].
pub mod des {
    use super::Link;

    /// Device id.
    pub const ID: u16 = 0x000D;
    /// Where Linux' staging driver looks for an id instead.
    pub const OTHER_ID: u16 = 0x004A;
    /// What it expects there.
    pub const OTHER_ID_VALUE: u8 = 0x20;
    /// Bits 3:0 enable links, 7:4 make them GMSL2.
    pub const LINKS: u16 = 0x0006;
    /// Rates of links A (low nibble) and B.
    pub const RATE_AB: u16 = 0x0010;
    /// Rates of links C and D.
    pub const RATE_CD: u16 = 0x0011;
    /// 6 Gbit/s forward, 187.5 Mbit/s back, on both.
    pub const RATE_6G: u8 = 0x22;
    /// Bit 6 resets the whole chip.
    pub const RESET: u16 = 0x0013;
    /// See [`RESET`].
    pub const RESET_ALL: u8 = 1 << 6;
    /// Bits 3:0 restart links; they clear themselves.
    pub const ONE_SHOT: u16 = 0x0018;
    /// Bit 3 of a link's lock register.
    pub const LOCKED: u8 = 1 << 3;
    /// Decode errors of link A; those of B, C, D follow, then idle errors of all four. They clear on read.
    pub const ERRORS: u16 = 0x0035;
    /// Line states of links A and B; C and D follow. Three bits in a nibble each \[I\].
    pub const LINE: u16 = 0x00E1;
    /// Pipes 0 (low nibble) and 1: `link << 2 | stream`; 2 and 3 follow.
    pub const PIPE_SELECT: u16 = 0x00F0;
    /// Bits 3:0 enable pipes.
    pub const PIPES: u16 = 0x00F4;
    /// Bit 0 of pipe 0's video lock.
    pub const VIDEO_LOCK: u16 = 0x01DC;
    /// From pipe to pipe.
    pub const VIDEO_LOCK_STEP: u16 = 0x20;
    /// Bit 1 switches the CSI-2 output on.
    pub const CSI: u16 = 0x040B;
    /// See [`CSI`].
    pub const CSI_ON: u8 = 1 << 1;
    /// Rate of CSI-2 output 0: bits 4:0 in 100 Mbit/s, bit 5 puts it in force; the next output's is 3 further.
    pub const CSI_RATE: u16 = 0x0415;
    /// See [`CSI_RATE`].
    pub const CSI_RATE_SET: u8 = 1 << 5;
    /// Lanes less one of CSI-2 controller 0 in bits 7:6; the next controller's is 0x40 further.
    pub const CSI_LANES: u16 = 0x090A;
    /// Which of pipe 0's mappings are in force; everything of the next pipe is 0x40 further.
    pub const MAP_ON: u16 = 0x090B;
    /// First mapping's source, `virtual channel << 6 | data type`; destination at +1, the next mapping at +2.
    pub const MAP: u16 = 0x090D;
    /// Controllers that mappings go to, two bits each.
    pub const MAP_CONTROLLER: u16 = 0x092D;
    /// From controller to controller, from pipe to pipe.
    pub const STEP: u16 = 0x40;

    /// The register with a link's lock.
    #[must_use]
    pub fn lock(link: Link) -> u16 {
        match link {
            Link::A => 0x001A,
            Link::B => 0x000A,
            Link::C => 0x000B,
            Link::D => 0x000C,
        }
    }
}

/// MAX9295A \[S\].
pub mod ser {
    /// Address after reset, unless straps say otherwise.
    pub const ADDRESS: u8 = 0x40;
    /// Its own address in bits 7:1.
    pub const OWN_ADDRESS: u16 = 0x0000;
    /// Bits 7:4 enable pipes.
    pub const PIPES: u16 = 0x0002;
    /// Device id: 0x91, MAX9295B 0x93.
    pub const ID: u16 = 0x000D;
    /// Ids that are taken.
    pub const IDS: [u8; 2] = [0x91, 0x93];
    /// Address under which the host reaches the sensor, shifted left.
    pub const ALIAS: u16 = 0x0042;
    /// The sensor's own address, shifted left.
    pub const ALIASED: u16 = 0x0043;
    /// GPIO 0; the next is 3 further.
    pub const GPIO: u16 = 0x02BE;
    /// Drives it high.
    pub const GPIO_HIGH: u8 = 0x90;
}

/// A bus with chips of 16-bit register addresses.
#[derive(Debug)]
pub struct Registers<I> {
    bus: I,
}

impl<I: I2c> Registers<I> {
    /// Over this bus.
    pub fn new(bus: I) -> Self {
        Self { bus }
    }

    /// One register.
    pub fn read(&mut self, chip: u8, register: u16) -> Result<u8, GmslError> {
        self.read_row::<1>(chip, register).map(|[value]| value)
    }

    /// Registers in a row, in one transfer.
    pub fn read_row<const N: usize>(&mut self, chip: u8, register: u16) -> Result<[u8; N], GmslError> {
        let mut values = [0; N];
        let done = self.bus.write_read(chip, &register.to_be_bytes(), &mut values);
        done.map(|()| values).map_err(|e| failed(chip, register, &e))
    }

    /// Writes one register.
    pub fn write(&mut self, chip: u8, register: u16, value: u8) -> Result<(), GmslError> {
        let [high, low] = register.to_be_bytes();
        self.bus.write(chip, &[high, low, value]).map_err(|e| failed(chip, register, &e))
    }

    /// Changes the bits of `mask`.
    pub fn update(&mut self, chip: u8, register: u16, mask: u8, value: u8) -> Result<(), GmslError> {
        let old = self.read(chip, register)?;
        self.write(chip, register, old & !mask | value & mask)
    }

    /// Writes, and reads back what the chip made of it.
    pub fn write_checked(&mut self, chip: u8, register: u16, value: u8) -> Result<(), GmslError> {
        self.write(chip, register, value)?;
        match self.read(chip, register)? {
            found if found == value => Ok(()),
            found => Err(GmslError::NotTaken { address: chip, register, written: value, found }),
        }
    }
}

fn failed(address: u8, register: u16, error: &impl Error) -> GmslError {
    let why = match error.kind() {
        ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address | NoAcknowledgeSource::Unknown) => {
            "no acknowledge".into()
        }
        ErrorKind::NoAcknowledge(NoAcknowledgeSource::Data) => "no acknowledge of data".into(),
        ErrorKind::ArbitrationLoss => "arbitration lost".into(),
        // The kernel's words are in the debug text only (linux-embedded-hal's error).
        _ => format!("{error:?}").chars().map(|c| if c.is_control() { ' ' } else { c }).take(120).collect(),
    };
    GmslError::Bus { address, register, why }
}

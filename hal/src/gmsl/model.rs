//! A MAX96712 with its camera modules, as the chips behave: a bus, pins and time for tests. Knows nothing of the driver.
//!
//! What it does that a map of bytes does not: it answers only when it is awake; a reset takes its time and forgets everything; a
//! link locks only with power, GMSL2, the right rate and a restart after it was enabled; every module wakes at one address, and
//! two that are heard at once both take what is written there; counters and flags clear on read and stop at 255; an I2C transfer
//! goes on from register to register; one address byte is no address.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::{ErrorType as PinErrorType, OutputPin};
use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};

pub(super) const DESERIALIZER: u8 = 0x29;
/// Milliseconds until a module that got power answers, a restarted link locks, a reset is over, a woken chip answers.
const BOOT: u64 = 30;
const LOCK: u64 = 60;
const RESET: u64 = 90;
const WAKE: u64 = 4;

/// What happens at a time of the script.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The cable is pulled; the next restart finds nothing.
    Unplug(usize),
    Plug(usize),
    /// Lock is lost for a moment and comes back.
    LoseLock(usize),
    Decode(usize, u8),
    Idle(usize, u8),
    /// Three bits of line state.
    Line(usize, u8),
    Video(usize, bool),
}

#[derive(Clone, Debug)]
struct Module {
    plugged: bool,
    powered_at: Option<u64>,
    registers: BTreeMap<u16, u8>,
    streaming: bool,
}

#[derive(Debug)]
pub(super) struct Chips {
    pub(super) now: u64,
    awake_at: Option<u64>,
    busy_until: u64,
    registers: BTreeMap<u16, u8>,
    modules: [Module; 4],
    /// When each link was restarted while it could come up.
    restarted: [Option<u64>; 4],
    line: [u8; 4],
    script: Vec<(u64, Event)>,
    /// Transfers that fail from now on.
    pub(super) refuse: u32,
    /// Transfers that are let through; all later ones fail.
    pub(super) refuse_after: Option<u32>,
    /// Registers of the deserializer that were written, in order.
    pub(super) written: Vec<(u8, u16, u8)>,
    /// Id registers, 0x000D and 0x004A.
    id: (u8, u8),
}

/// Shared by bus, pins and delay.
#[derive(Clone, Debug)]
pub(super) struct World(Arc<Mutex<Chips>>);

impl World {
    /// Modules on these links, no power yet.
    pub(super) fn new(plugged: [bool; 4]) -> Self {
        Self::with_id(plugged, (0xA0, 0))
    }

    pub(super) fn with_id(plugged: [bool; 4], id: (u8, u8)) -> Self {
        let module = |plugged| Module { plugged, powered_at: None, registers: serializer(), streaming: true };
        Self(Arc::new(Mutex::new(Chips {
            now: 0,
            awake_at: None,
            busy_until: 0,
            registers: deserializer(),
            modules: plugged.map(module),
            restarted: [None; 4],
            line: plugged.map(|p| if p { 2 } else { 3 }),
            script: Vec::new(),
            refuse: 0,
            refuse_after: None,
            written: Vec::new(),
            id,
        })))
    }

    pub(super) fn chips(&self) -> MutexGuard<'_, Chips> {
        self.0.lock().unwrap()
    }

    pub(super) fn bus(&self) -> Bus {
        Bus(self.clone())
    }

    pub(super) fn power(&self, link: usize) -> Pin {
        Pin(self.clone(), Wire::Power(link))
    }

    pub(super) fn awake(&self) -> Pin {
        Pin(self.clone(), Wire::Awake)
    }

    pub(super) fn pass(&self, ms: u64) {
        self.chips().pass(ms);
    }

    pub(super) fn at(&self, ms: u64, event: Event) {
        self.chips().script.push((ms, event));
    }
}

fn deserializer() -> BTreeMap<u16, u8> {
    // All links enabled as GMSL2 at 6 Gbit/s, pipes and output on: what the chip wakes with is not what one wants.
    BTreeMap::from([
        (0x0000, DESERIALIZER << 1),
        (0x0006, 0xFF),
        (0x0010, 0x22),
        (0x0011, 0x22),
        (0x00F0, 0x62),
        (0x00F1, 0xEA),
        (0x00F4, 0x0F),
        (0x040B, 0x02),
        (0x090B, 0),
    ])
}

fn serializer() -> BTreeMap<u16, u8> {
    BTreeMap::from([(0x0000, 0x80), (0x0002, 0x43), (0x000D, 0x91), (0x0013, 0x08)])
}

impl Chips {
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += 1;
            let due: Vec<Event> =
                self.script.extract_if(.., |(at, _)| *at <= self.now).map(|(_, event)| event).collect();
            for event in due {
                self.happen(event);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Unplug(l) => {
                self.modules[l].plugged = false;
                self.modules[l].registers = serializer();
                self.restarted[l] = None;
                self.line[l] = 3;
            }
            Event::Plug(l) => {
                self.modules[l].plugged = true;
                self.modules[l].powered_at = self.modules[l].powered_at.map(|_| self.now);
                self.line[l] = 2;
            }
            Event::LoseLock(l) => self.restarted[l] = self.restarted[l].map(|_| self.now),
            Event::Decode(l, n) => self.count(0x0035 + l as u16, 0x0026, l, n),
            Event::Idle(l, n) => self.count(0x0039 + l as u16, 0x002C, l, n),
            Event::Line(l, state) => self.line[l] = state,
            Event::Video(l, on) => self.modules[l].streaming = on,
        }
    }

    fn count(&mut self, counter: u16, flags: u16, link: usize, more: u8) {
        let value = self.registers.entry(counter).or_default();
        *value = value.saturating_add(more);
        *self.registers.entry(flags).or_default() |= 1 << link;
    }

    fn answers(&self) -> bool {
        self.awake_at.is_some_and(|at| self.now >= at + WAKE) && self.now >= self.busy_until
    }

    fn register(&self, register: u16) -> u8 {
        self.registers.get(&register).copied().unwrap_or(0)
    }

    fn enabled(&self, link: usize) -> bool {
        let value = self.register(0x0006);
        let rate = self.register(if link < 2 { 0x0010 } else { 0x0011 }) >> (4 * (link % 2)) & 0xF;
        value >> link & 1 == 1 && value >> (4 + link) & 1 == 1 && rate == 2
    }

    fn locked(&self, link: usize) -> bool {
        let module = &self.modules[link];
        let booted = module.powered_at.is_some_and(|at| self.now >= at + BOOT);
        let restarted = self.restarted[link].is_some_and(|at| self.now >= at + LOCK);
        self.answers() && module.plugged && booted && restarted && self.enabled(link)
    }

    /// Serializers that hear this address.
    fn heard(&self, address: u8) -> Vec<usize> {
        let cut = |l: usize| self.register(0x0003) >> (2 * l) & 3 == 3;
        let own = |l: usize| self.modules[l].registers[&0] >> 1;
        (0..4).filter(|l| self.locked(*l) && !cut(*l) && own(*l) == address).collect()
    }

    fn read(&mut self, register: u16) -> u8 {
        let lock = |chips: &Self, link| u8::from(chips.locked(link)) << 3;
        match register {
            0x000D => self.id.0,
            0x004A => self.id.1,
            0x001A => lock(self, 0),
            0x000A..=0x000C => lock(self, usize::from(register) - 0x0009),
            0x00E1 => self.line[0] | self.line[1] << 4,
            0x00E2 => self.line[2] | self.line[3] << 4,
            0x01DC | 0x01FC | 0x021C | 0x023C => {
                let pipe = usize::from(register - 0x01DC) / 0x20;
                let select = self.register(0x00F0 + pipe as u16 / 2) >> (4 * (pipe % 2)) & 0xF;
                let link = usize::from(select >> 2);
                let sends = self.modules[link].registers[&2] >> (4 + (select & 3)) & 1 == 1;
                let on = self.register(0x00F4) >> pipe & 1 == 1;
                u8::from(on && sends && self.locked(link) && self.modules[link].streaming)
            }
            0x0035..=0x003C | 0x0026 | 0x002C => self.registers.insert(register, 0).unwrap_or(0),
            _ => self.register(register),
        }
    }

    fn write(&mut self, register: u16, value: u8) {
        self.written.push((DESERIALIZER, register, value));
        match register {
            0x0013 if value & 0x40 != 0 => {
                self.registers = deserializer();
                self.restarted = [None; 4];
                self.busy_until = self.now + RESET;
            }
            0x0018 => {
                for link in (0..4).filter(|l| value >> l & 1 == 1) {
                    self.restarted[link] = self.enabled(link).then_some(self.now);
                }
            }
            0x0006 => {
                let before = self.register(0x0006);
                self.registers.insert(0x0006, value);
                // A link that is switched off falls; one that is switched on waits for its restart.
                for link in (0..4).filter(|l| (before ^ value) >> l & 1 == 1) {
                    self.restarted[link] = None;
                }
            }
            _ => drop(self.registers.insert(register, value)),
        }
    }
}

/// The bus.
#[derive(Debug)]
pub(super) struct Bus(World);

impl ErrorType for Bus {
    type Error = ErrorKind;
}

impl I2c for Bus {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), ErrorKind> {
        let mut chips = self.0.chips();
        let nobody = ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address);
        if chips.refuse > 0 {
            chips.refuse -= 1;
            return Err(nobody);
        }
        match &mut chips.refuse_after {
            Some(0) => return Err(nobody),
            Some(left) => *left -= 1,
            None => {}
        }
        let modules = if address == DESERIALIZER { Vec::new() } else { chips.heard(address) };
        if !chips.answers() || (address != DESERIALIZER && modules.is_empty()) {
            return Err(nobody);
        }
        let mut at: Option<u16> = None;
        for operation in operations {
            match operation {
                Operation::Write([high, low, values @ ..]) => {
                    let start = u16::from_be_bytes([*high, *low]);
                    at = Some(start + values.len() as u16);
                    for (register, value) in (start..).zip(values.iter()) {
                        if address == DESERIALIZER {
                            chips.write(register, *value);
                        } else {
                            chips.written.push((address, register, *value));
                            for module in &modules {
                                chips.modules[*module].registers.insert(register, *value);
                            }
                        }
                    }
                }
                Operation::Write(_) => return Err(ErrorKind::NoAcknowledge(NoAcknowledgeSource::Data)),
                Operation::Read(values) => {
                    let start = at.ok_or(ErrorKind::NoAcknowledge(NoAcknowledgeSource::Data))?;
                    for (register, value) in (start..).zip(values.iter_mut()) {
                        // Several that answer at once: a line is high only if nobody pulls it low.
                        *value = if address == DESERIALIZER {
                            chips.read(register)
                        } else {
                            let of = |m: &usize| chips.modules[*m].registers.get(&register).copied().unwrap_or(0);
                            modules.iter().map(of).fold(0xFF, |all, value| all & value)
                        };
                    }
                }
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Wire {
    Power(usize),
    Awake,
}

/// A power or power-down pin.
#[derive(Debug)]
pub(super) struct Pin(World, Wire);

impl PinErrorType for Pin {
    type Error = std::convert::Infallible;
}

impl OutputPin for Pin {
    fn set_low(&mut self) -> Result<(), Self::Error> {
        let mut chips = self.0.chips();
        match self.1 {
            Wire::Power(link) => {
                chips.modules[link].powered_at = None;
                chips.modules[link].registers = serializer();
            }
            Wire::Awake => chips.awake_at = None,
        }
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Self::Error> {
        let mut chips = self.0.chips();
        let now = chips.now;
        match self.1 {
            Wire::Power(link) => drop(chips.modules[link].powered_at.get_or_insert(now)),
            Wire::Awake => drop(chips.awake_at.get_or_insert(now)),
        }
        Ok(())
    }
}

impl World {
    /// Whether a link has power.
    pub(super) fn powered(&self, link: usize) -> bool {
        self.chips().modules[link].powered_at.is_some()
    }

    /// A register of a link's serializer.
    pub(super) fn serializer(&self, link: usize, register: u16) -> u8 {
        self.chips().modules[link].registers.get(&register).copied().unwrap_or(0)
    }
}

/// Time of the model.
impl DelayNs for World {
    fn delay_ns(&mut self, ns: u32) {
        self.pass(u64::from(ns).div_ceil(1_000_000));
    }
}

//! Setting a deserializer and its camera modules up from nothing, where neither kernel nor camera service does.
//!
//! The order is that of the drivers that MOS knows of: power, id, reset, everything off, rate, then link by link (every module
//! wakes at the same address, so only one may be heard until it has one of its own), then the deserializer's pipes and output,
//! then all links, pipes, output. Sensors are started by whoever drives them; video lock follows. A link that stayed dark can be
//! tried again alone, without a word to those that run.

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;
use embedded_hal::i2c::I2c;

use super::deserializer::{Deserializer, Model};
use super::registers::{des, ser};
use super::{GmslError, Link};

/// Wait after the chip was let out of power-down (at least 4 ms).
const AWAKE_MS: u32 = 5;
/// Wait after a full reset.
const RESET_MS: u32 = 100;
/// How often and how long lock is waited for (60 to 200 ms).
const LOCK_STEP_MS: u32 = 10;
/// See [`LOCK_STEP_MS`].
const LOCK_MS: u32 = 200;
/// Above it the receiver needs a deskew pattern, whose registers no source that we read sets alike.
const WITHOUT_DESKEW: u16 = 1500;

/// In [`des::LINKS`]: all links are GMSL2.
const GMSL2: u8 = 0xF0;
/// Pictures, frame starts, frame ends.
const ALL_MAPPINGS: u8 = 0b111;

/// A camera module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// 7-bit address that the serializer gets.
    pub address: u8,
    /// The sensor's own address and the one under which the host reaches it.
    pub sensor: Option<(u8, u8)>,
    /// The serializer's pipe that carries the video, 0 to 3.
    pub stream: u8,
    /// The serializer's GPIO that lets the sensor out of reset.
    pub reset_gpio: Option<u8>,
    /// CSI-2 data type, e.g. 0x2C for RAW12 (MIPI CSI-2).
    pub data_type: u8,
}

/// The deserializer's CSI-2 output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Csi {
    /// Controller, 0 to 3.
    pub controller: u8,
    /// Lanes, 1 to 4.
    pub lanes: u8,
    /// Mbit/s a lane, in steps of 100 up to 1500.
    pub mbps: u16,
}

/// What is to be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The module of each link that has one.
    pub modules: [Option<Module>; 4],
    /// The output.
    pub csi: Csi,
}

/// The pins beside the bus.
#[derive(Debug)]
pub struct Pins<P> {
    /// Power over coax of each link, high is on.
    pub power: [Option<P>; 4],
    /// The chip's PWDNB, high is awake; `None` if it is wired to high.
    pub awake: Option<P>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The chip.
    pub model: Model,
    /// Each planned link, or why it stayed dark (G3).
    pub links: [Option<Result<(), GmslError>>; 4],
}

/// What a configuration says of bring-up; the rest follows from the device tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetUp {
    /// The deserializer's output.
    pub csi: Csi,
    /// Of all modules; see [`Module::data_type`].
    pub data_type: u8,
}

/// The serializer's pipe that is on after its reset (pipe Z) \[G\].
const STREAM: u8 = 2;
/// Addresses that serializers and sensors get, from link to link one more.
const SERIALIZERS: u8 = 0x60;
/// See [`SERIALIZERS`].
const SENSORS: u8 = 0x64;

impl SetUp {
    /// The plan for modules on these links, each with its sensor's own address if that is known.
    #[must_use]
    pub fn plan(&self, modules: &[(Link, Option<u8>)]) -> Plan {
        let mut plan = Plan { modules: [None; 4], csi: self.csi };
        for (link, sensor) in modules {
            plan.modules[link.index()] = Some(Module {
                address: SERIALIZERS + link.number(),
                sensor: sensor.map(|own| (own, SENSORS + link.number())),
                stream: STREAM,
                reset_gpio: None,
                data_type: self.data_type,
            });
        }
        plan
    }
}

/// Carries the plan out. What fails for all links is the error; what fails for one is in its result.
pub fn bring_up<I: I2c, P: OutputPin, D: DelayNs>(
    bus: I,
    address: u8,
    plan: &Plan,
    pins: &mut Pins<P>,
    delay: &mut D,
) -> Result<(Deserializer<I>, Done), GmslError> {
    check(address, plan)?;
    for link in planned(plan) {
        power(pins, link, true)?;
    }
    if let Some(pin) = &mut pins.awake {
        pin.set_high().map_err(|e| GmslError::Pin { what: "power-down".into(), why: format!("{e:?}") })?;
    }
    delay.delay_ms(AWAKE_MS);
    let mut chip = Deserializer::identify(bus, address)?;
    let links = set_up(&mut chip, plan, pins, delay)?;
    let model = chip.model();
    Ok((chip, Done { model, links }))
}

/// What came of each planned link.
pub(super) type Links = [Option<Result<(), GmslError>>; 4];

/// All of it, from the chip's reset on: whatever ran stops.
pub(super) fn set_up<I: I2c, P: OutputPin, D: DelayNs>(
    chip: &mut Deserializer<I>,
    plan: &Plan,
    pins: &mut Pins<P>,
    delay: &mut D,
) -> Result<Links, GmslError> {
    let address = chip.address;
    for link in planned(plan) {
        power(pins, link, true)?;
    }
    reset(chip, delay)?;

    let mut links = [const { None }; 4];
    for (link, module) in modules(plan) {
        let come = one(chip, link, module, 0, delay);
        if come.is_err() {
            power(pins, link, false)?;
        }
        links[link.index()] = Some(come);
    }
    let up = |links: &[Option<Result<(), GmslError>>; 4], link: Link| matches!(links[link.index()], Some(Ok(())));
    for (link, module) in modules(plan).filter(|(link, _)| up(&links, *link)) {
        route(chip, link, module, plan.csi)?;
    }
    output(chip, plan.csi)?;

    let mask = modules(plan).filter(|(link, _)| up(&links, *link)).fold(0, |mask, (link, _)| mask | bit(link));
    enable(chip, mask, mask)?;
    for (link, _) in modules(plan).filter(|(link, _)| mask & bit(*link) != 0) {
        if let Err(e) = wait_for_lock(chip, link, delay) {
            power(pins, link, false)?;
            links[link.index()] = Some(Err(e));
        }
    }
    chip.registers.write_checked(address, des::PIPES, mask)?;
    chip.registers.update(address, des::CSI, des::CSI_ON, des::CSI_ON)?;
    Ok(links)
}

/// Tries one link of a chip that was set up, beside the `running` ones (a mask), which notice nothing. What fails for all is the
/// outer error; a link that stays dark is switched off again.
pub(super) fn try_again<I: I2c, P: OutputPin, D: DelayNs>(
    chip: &mut Deserializer<I>,
    plan: &Plan,
    link: Link,
    running: u8,
    pins: &mut Pins<P>,
    delay: &mut D,
) -> Result<Result<(), GmslError>, GmslError> {
    let Some(module) = plan.modules[link.index()] else { return Ok(Ok(())) };
    let address = chip.address;
    power(pins, link, true)?;
    // As long as the chip's reset leaves it when all come up.
    delay.delay_ms(RESET_MS);
    let come = one(chip, link, module, running, delay);
    let come = come.and_then(|()| route(chip, link, module, plan.csi));
    if let Err(e) = come {
        power(pins, link, false)?;
        chip.registers.write_checked(address, des::LINKS, GMSL2 | running)?;
        return Ok(Err(e));
    }
    chip.registers.update(address, des::PIPES, bit(link), bit(link))?;
    Ok(Ok(()))
}

/// Whether a link is routed as [`set_up`] and [`try_again`] leave it. A chip that lost its supply has forgotten it.
pub(super) fn routed<I: I2c>(chip: &mut Deserializer<I>, link: Link) -> Result<bool, GmslError> {
    let map = des::MAP_ON + des::STEP * u16::from(link.number());
    Ok(chip.registers.read(chip.address, map)? == ALL_MAPPINGS)
}

/// Whether a link's module answers at the address that it was given. One that was without power for a moment does not.
pub(super) fn answers<I: I2c>(chip: &mut Deserializer<I>, plan: &Plan, link: Link) -> bool {
    let module = plan.modules[link.index()];
    module.is_some_and(|m| chip.registers.read(m.address, ser::ID).is_ok_and(|id| ser::IDS.contains(&id)))
}

fn modules(plan: &Plan) -> impl Iterator<Item = (Link, Module)> {
    Link::ALL.into_iter().zip(plan.modules).filter_map(|(link, module)| Some((link, module?)))
}

pub(super) fn planned(plan: &Plan) -> impl Iterator<Item = Link> {
    modules(plan).map(|(link, _)| link)
}

pub(super) fn bit(link: Link) -> u8 {
    1 << link.number()
}

/// Addresses that would collide, and what the chip has not.
pub(super) fn check(deserializer: u8, plan: &Plan) -> Result<(), GmslError> {
    let wrong = |why: String| Err(GmslError::Plan(why));
    let mut taken = vec![deserializer, ser::ADDRESS];
    for (link, module) in modules(plan) {
        for address in [Some(module.address), module.sensor.map(|(_, alias)| alias)].into_iter().flatten() {
            if !(0x08..0x78).contains(&address) || taken.contains(&address) {
                return wrong(format!("link {link}: I2C address {address:#04x} is taken or no device's"));
            }
            taken.push(address);
        }
        if module.stream > 3 || module.data_type > 0x3F || module.reset_gpio.is_some_and(|gpio| gpio > 10) {
            return wrong(format!("link {link}: stream 0 to 3, data type up to 0x3f and GPIO 0 to 10 are possible"));
        }
    }
    let Csi { controller, lanes, mbps } = plan.csi;
    if controller > 3 || !(1..=4).contains(&lanes) || mbps % 100 != 0 || !(100..=WITHOUT_DESKEW).contains(&mbps) {
        return wrong(format!(
            "CSI-2: controller 0 to 3, 1 to 4 lanes, 100 to {WITHOUT_DESKEW} Mbit/s in steps of 100"
        ));
    }
    Ok(())
}

fn power<P: OutputPin>(pins: &mut Pins<P>, link: Link, on: bool) -> Result<(), GmslError> {
    // A link without a pin is powered by something else.
    let Some(pin) = &mut pins.power[link.index()] else { return Ok(()) };
    let done = if on { pin.set_high() } else { pin.set_low() };
    done.map_err(|e| GmslError::Pin { what: format!("link {link} power over coax"), why: format!("{e:?}") })
}

/// Reset, everything off, rate.
fn reset<I: I2c>(chip: &mut Deserializer<I>, delay: &mut impl DelayNs) -> Result<(), GmslError> {
    let address = chip.address;
    chip.registers.write(address, des::RESET, des::RESET_ALL)?;
    delay.delay_ms(RESET_MS);
    chip.confirm()?;
    chip.registers.update(address, des::CSI, des::CSI_ON, 0)?;
    chip.registers.write_checked(address, des::PIPES, 0)?;
    chip.registers.write_checked(address, des::RATE_AB, des::RATE_6G)?;
    chip.registers.write_checked(address, des::RATE_CD, des::RATE_6G)
}

/// Only the links of `heard` are heard; those of `afresh` start afresh.
fn enable<I: I2c>(chip: &mut Deserializer<I>, heard: u8, afresh: u8) -> Result<(), GmslError> {
    chip.registers.write_checked(chip.address, des::LINKS, GMSL2 | heard)?;
    chip.registers.write(chip.address, des::ONE_SHOT, afresh)
}

fn wait_for_lock<I: I2c>(chip: &mut Deserializer<I>, link: Link, delay: &mut impl DelayNs) -> Result<(), GmslError> {
    for _ in 0..LOCK_MS / LOCK_STEP_MS {
        if chip.locked(link)? {
            return Ok(());
        }
        delay.delay_ms(LOCK_STEP_MS);
    }
    if chip.locked(link)? { Ok(()) } else { Err(GmslError::NoLock { link, waited_ms: LOCK_MS }) }
}

/// One module, alone on the bus but for those `running` at addresses of their own: an address of its own, then its pipe and its
/// sensor.
fn one<I: I2c>(
    chip: &mut Deserializer<I>,
    link: Link,
    module: Module,
    running: u8,
    delay: &mut impl DelayNs,
) -> Result<(), GmslError> {
    enable(chip, running | bit(link), bit(link))?;
    wait_for_lock(chip, link, delay)?;
    let registers = &mut chip.registers;
    // One that kept its power since an earlier time has its address already.
    let id = match registers.read(ser::ADDRESS, ser::ID) {
        Ok(id) => {
            if ser::IDS.contains(&id) {
                registers.write(ser::ADDRESS, ser::OWN_ADDRESS, module.address << 1)?;
                registers.read(module.address, ser::ID)?
            } else {
                id
            }
        }
        Err(absent) => registers.read(module.address, ser::ID).map_err(|_| absent)?,
    };
    if !ser::IDS.contains(&id) {
        return Err(GmslError::UnknownSerializer { link, id });
    }
    let address = module.address;
    if let Some((sensor, alias)) = module.sensor {
        registers.write_checked(address, ser::ALIAS, alias << 1)?;
        registers.write_checked(address, ser::ALIASED, sensor << 1)?;
    }
    registers.update(address, ser::PIPES, 0xF0, 0x10 << module.stream)?;
    match module.reset_gpio {
        Some(gpio) => registers.write(address, ser::GPIO + 3 * u16::from(gpio), ser::GPIO_HIGH),
        None => Ok(()),
    }
}

/// Pipe n carries link n, out on virtual channel n: pictures, frame starts and frame ends.
fn route<I: I2c>(chip: &mut Deserializer<I>, link: Link, module: Module, csi: Csi) -> Result<(), GmslError> {
    let (address, registers) = (chip.address, &mut chip.registers);
    let pipe = u16::from(link.number());
    let shift = if pipe % 2 == 0 { 0 } else { 4 };
    let select = link.number() << 2 | module.stream;
    registers.update(address, des::PIPE_SELECT + pipe / 2, 0xF << shift, select << shift)?;
    let base = des::STEP * pipe;
    for (n, data_type) in (0u16..).zip([module.data_type, 0x00, 0x01]) {
        registers.write_checked(address, des::MAP + base + 2 * n, data_type)?;
        registers.write_checked(address, des::MAP + base + 2 * n + 1, link.number() << 6 | data_type)?;
    }
    let controllers = (0..3).fold(0, |value, n| value | csi.controller << (2 * n));
    registers.update(address, des::MAP_CONTROLLER + base, 0x3F, controllers)?;
    registers.write_checked(address, des::MAP_ON + base, ALL_MAPPINGS)
}

/// Lanes and rate.
fn output<I: I2c>(chip: &mut Deserializer<I>, csi: Csi) -> Result<(), GmslError> {
    let controller = u16::from(csi.controller);
    let lanes = (csi.lanes - 1) << 6;
    chip.registers.update(chip.address, des::CSI_LANES + des::STEP * controller, 0xC0, lanes)?;
    let rate = (csi.mbps / 100) as u8;
    chip.registers.update(chip.address, des::CSI_RATE + 3 * controller, 0x3F, des::CSI_RATE_SET | rate)
}

#![allow(clippy::unwrap_used)]

use embedded_hal::digital::OutputPin;
use embedded_hal::i2c::I2c;

use super::bring_up::{Csi, Module, Pins, Plan, SetUp, bring_up};
use super::deserializer::{Deserializer, Model};
use super::model::{Bus, DESERIALIZER, Event, Pin, World};
use super::starter::Starter;
use super::{GmslError, Line, Link};

fn plan(links: &[usize]) -> Plan {
    let mut modules = [None; 4];
    for link in links {
        let address = 0x44 + *link as u8;
        let sensor = Some((0x1A, 0x10 + *link as u8));
        modules[*link] = Some(Module { address, sensor, stream: 2, reset_gpio: Some(0), data_type: 0x2C });
    }
    Plan { modules, csi: Csi { controller: 1, lanes: 4, mbps: 1500 } }
}

fn pins(world: &World) -> Pins<Pin> {
    Pins { power: [0, 1, 2, 3].map(|link| Some(world.power(link))), awake: Some(world.awake()) }
}

/// The world with everything up.
fn running(links: &[usize]) -> (World, Deserializer<Bus>) {
    let world = World::new([true; 4]);
    let (chip, done) =
        bring_up(world.bus(), DESERIALIZER, &plan(links), &mut pins(&world), &mut world.clone()).unwrap();
    assert!(done.links.iter().flatten().all(Result::is_ok), "{done:?}");
    (world, chip)
}

#[test]
fn either_id_is_taken_and_a_stranger_is_not() {
    for (id, model) in [((0xA0, 0), Model::Max96712), ((0xA2, 0), Model::Max96724), ((0, 0x20), Model::Max96712)] {
        let world = World::with_id([true; 4], id);
        world.awake().set_high().unwrap();
        assert!(Deserializer::identify(world.bus(), DESERIALIZER).is_err(), "asleep");
        world.pass(5);
        assert_eq!(Deserializer::identify(world.bus(), DESERIALIZER).unwrap().model(), model);
    }
    let world = World::with_id([true; 4], (0x94, 1));
    world.awake().set_high().unwrap();
    world.pass(5);
    let refused = Deserializer::identify(world.bus(), DESERIALIZER).unwrap_err();
    assert_eq!(refused, GmslError::UnknownDeserializer { address: 0x29, id: 0x94, other_id: 1 });
    let nobody = Deserializer::identify(world.bus(), 0x48).unwrap_err().to_string();
    assert_eq!(nobody, "I2C address 0x48, register 0x000d: no acknowledge");
}

#[test]
fn four_modules_come_up_one_by_one_each_with_its_address_and_channel() {
    let (world, mut chip) = running(&[0, 1, 2, 3]);
    for link in 0..4 {
        assert_eq!(world.serializer(link, 0x0000) >> 1, 0x44 + link as u8);
        assert_eq!((world.serializer(link, 0x0042), world.serializer(link, 0x0043)), ((0x10 + link as u8) << 1, 0x34));
        assert_eq!((world.serializer(link, 0x0002), world.serializer(link, 0x02BE)), (0x43, 0x90));
    }
    let states = chip.states().unwrap();
    assert!(states.iter().all(|s| s.lock && s.video_lock && s.line == Line::Normal), "{states:?}");
    let mut bus = world.bus();
    let mut read = |register: u16| {
        let mut value = [0];
        bus.write_read(DESERIALIZER, &register.to_be_bytes(), &mut value).unwrap();
        value[0]
    };
    // Link, stream Z: 0b0010, 0b0110, 0b1010, 0b1110; the virtual channel is in bits 7:6 of the destination.
    assert_eq!((read(0x00F0), read(0x00F1), read(0x00F4), read(0x040B)), (0x62, 0xEA, 0x0F, 0x02));
    assert_eq!((read(0x090D + 0x80), read(0x090E + 0x80), read(0x092D + 0x80)), (0x2C, 0xAC, 0b01_0101));
    assert_eq!((read(0x094A), read(0x0418)), (0xC0, 0x20 | 15));
}

/// G3.
#[test]
fn a_dark_link_costs_only_itself_and_loses_its_power() {
    let world = World::new([true, false, true, true]);
    let all = plan(&[0, 1, 2, 3]);
    let (mut chip, done) = bring_up(world.bus(), DESERIALIZER, &all, &mut pins(&world), &mut world.clone()).unwrap();
    assert_eq!(done.links[1], Some(Err(GmslError::NoLock { link: Link::B, waited_ms: 200 })));
    assert!([0, 2, 3].iter().all(|l| done.links[*l] == Some(Ok(()))));
    assert_eq!([0, 1, 2, 3].map(|l| world.powered(l)), [true, false, true, true]);
    let states = chip.states().unwrap();
    assert_eq!(states.map(|s| s.video_lock), [true, false, true, true]);
    assert_eq!(states[1].line, Line::Open);
}

#[test]
fn it_can_be_done_again_without_cutting_the_power() {
    let (world, chip) = running(&[0, 3]);
    drop(chip);
    // One keeps its address, the other was exchanged and wakes at the common one.
    let now = world.chips().now;
    world.at(now + 1, Event::Unplug(3));
    world.at(now + 10, Event::Plug(3));
    world.pass(100);
    let (mut chip, done) =
        bring_up(world.bus(), DESERIALIZER, &plan(&[0, 3]), &mut pins(&world), &mut world.clone()).unwrap();
    assert_eq!((done.links[0].clone(), done.links[3].clone()), (Some(Ok(())), Some(Ok(()))));
    assert_eq!(chip.states().unwrap().map(|s| s.lock), [true, false, false, true]);
}

/// G2: a watch opens a chip again after every failed transfer; cameras that run must not notice.
#[test]
fn a_chip_is_set_up_once_and_later_only_opened() {
    let world = World::new([true; 4]);
    let setup = SetUp { csi: Csi { controller: 1, lanes: 4, mbps: 1500 }, data_type: 0x2C };
    let plan = setup.plan(&[(Link::A, Some(0x1A)), (Link::D, None)]);
    let mut starter = Starter::new(DESERIALIZER, plan, pins(&world));
    world.chips().refuse = 1;
    assert!(starter.open(world.bus(), &mut world.clone()).is_err());
    let mut chip = starter.open(world.bus(), &mut world.clone()).unwrap();
    assert_eq!(chip.states().unwrap().map(|s| s.video_lock), [true, false, false, true]);
    assert_eq!((world.serializer(0, 0), world.serializer(0, 0x42), world.serializer(3, 0)), (0xC0, 0xC8, 0xC6));
    world.chips().written.clear();
    starter.open(world.bus(), &mut world.clone()).unwrap();
    assert_eq!(world.chips().written, []);
}

#[test]
fn plans_that_cannot_be_are_refused_before_anything_is_switched() {
    let refused = |change: &dyn Fn(&mut Plan)| {
        let world = World::new([true; 4]);
        let mut wrong = plan(&[0, 1]);
        change(&mut wrong);
        let e = bring_up(world.bus(), DESERIALIZER, &wrong, &mut pins(&world), &mut world.clone()).unwrap_err();
        assert!(!world.powered(0) && world.chips().written.is_empty());
        e.to_string()
    };
    let module = |p: &mut Plan, f: &dyn Fn(&mut Module)| f(p.modules[1].as_mut().unwrap());
    assert!(refused(&|p| module(p, &|m| m.address = 0x44)).contains("address 0x44 is taken"));
    assert!(refused(&|p| module(p, &|m| m.address = 0x40)).contains("address 0x40 is taken"));
    assert!(refused(&|p| module(p, &|m| m.sensor = Some((0x1A, 0x29)))).contains("address 0x29 is taken"));
    assert!(refused(&|p| module(p, &|m| m.stream = 4)).contains("stream 0 to 3"));
    assert!(refused(&|p| p.csi.mbps = 1600).contains("100 to 1500 Mbit/s"));
    assert!(refused(&|p| p.csi.lanes = 0).contains("1 to 4 lanes"));
}

/// G4: whichever transfer fails first, there is an error or a result, and no panic.
#[test]
fn a_bus_that_breaks_off_anywhere_is_an_error() {
    let mut came_up = false;
    for good in 0..400u32 {
        let world = World::new([true; 4]);
        let bus = Failing { bus: world.bus(), good };
        let done = bring_up(bus, DESERIALIZER, &plan(&[0, 1]), &mut pins(&world), &mut world.clone());
        match done {
            Ok((_, done)) => came_up |= done.links.iter().flatten().all(Result::is_ok),
            Err(e) => assert!(e.to_string().contains("no acknowledge"), "{e}"),
        }
    }
    assert!(came_up, "with enough good transfers it works");
}

/// Lets some transfers through and refuses all others.
struct Failing<I> {
    bus: I,
    good: u32,
}

impl<I: embedded_hal::i2c::ErrorType> embedded_hal::i2c::ErrorType for Failing<I> {
    type Error = embedded_hal::i2c::ErrorKind;
}

impl<I: I2c<Error = embedded_hal::i2c::ErrorKind>> I2c for Failing<I> {
    fn transaction(
        &mut self,
        address: u8,
        operations: &mut [embedded_hal::i2c::Operation<'_>],
    ) -> Result<(), Self::Error> {
        match self.good.checked_sub(1) {
            Some(left) => {
                self.good = left;
                self.bus.transaction(address, operations)
            }
            None => Err(embedded_hal::i2c::ErrorKind::NoAcknowledge(embedded_hal::i2c::NoAcknowledgeSource::Address)),
        }
    }
}

/// A chip that MOS keeps up, and a reading a second.
struct Kept {
    world: World,
    starter: Starter<Pin>,
    chip: Deserializer<Bus>,
}

impl Kept {
    fn new(plugged: [bool; 4], links: &[usize]) -> Self {
        let world = World::new(plugged);
        let mut starter = Starter::new(DESERIALIZER, plan(links), pins(&world));
        let chip = starter.open(world.bus(), &mut world.clone()).unwrap();
        world.chips().written.clear();
        Self { world, starter, chip }
    }

    /// As the watch does it.
    fn reading(&mut self) -> Result<(), GmslError> {
        self.world.pass(1000);
        let states = self.chip.states()?;
        self.starter.tend(&mut self.chip, &states, &mut self.world.clone())
    }

    /// Readings until something is written, at most so many.
    fn until_tried(&mut self, most: u32) -> Option<u32> {
        self.world.chips().written.clear();
        (1..=most).find(|_| {
            self.reading().unwrap();
            !self.world.chips().written.is_empty()
        })
    }

    fn locks(&mut self) -> [bool; 4] {
        self.chip.states().unwrap().map(|s| s.lock && s.video_lock)
    }
}

/// G5, G6.
#[test]
fn a_dark_link_is_tried_again_ever_more_rarely_and_the_others_do_not_notice() {
    let mut kept = Kept::new([true, false, true, false], &[0, 1, 2]);
    assert_eq!(kept.locks(), [true, false, true, false]);
    let told = kept.starter.dark();
    assert!(told[1].as_ref().unwrap().contains("no lock within 200 ms"), "{told:?}");
    assert!(told[1].as_ref().unwrap().ends_with("attempts so far: 1, the next one is in about 2 s"), "{told:?}");
    assert!([0, 2, 3].iter().all(|l| told[*l].is_none()), "{told:?}");
    // What a camera loses by an attempt: its lock, or its address.
    let waits: Vec<u32> = (0..8)
        .map(|_| {
            let waited = kept.until_tried(100).unwrap();
            let (restarts, resets): (Vec<_>, Vec<_>) = {
                let written = kept.world.chips().written.clone();
                let to =
                    |register| written.iter().filter(|w| w.0 == DESERIALIZER && w.1 == register).map(|w| w.2).collect();
                (to(0x0018), to(0x0013))
            };
            assert_eq!((restarts, resets.len()), (vec![0b0010], 0), "only the dark link");
            assert_eq!(kept.locks(), [true, false, true, false]);
            assert!(!kept.world.powered(1), "dark without power again (G3)");
            waited
        })
        .collect();
    assert_eq!(waits, [2, 4, 8, 16, 32, 64, 64, 64]);
    // Somebody plugs it in.
    kept.world.at(0, Event::Plug(1));
    kept.until_tried(100).unwrap();
    kept.world.pass(100);
    assert_eq!(kept.locks(), [true, true, true, false]);
    assert_eq!((kept.world.serializer(1, 0) >> 1, kept.starter.dark()), (0x45, [const { None }; 4]));
    assert_eq!(kept.until_tried(100), None, "nothing more to do");
}

#[test]
fn when_no_link_runs_the_chip_is_set_up_as_a_whole() {
    let mut kept = Kept::new([false; 4], &[0, 3]);
    assert_eq!(kept.starter.dark().map(|d| d.is_some()), [true, false, false, true]);
    kept.world.at(0, Event::Plug(3));
    assert_eq!(kept.until_tried(100), Some(2));
    kept.world.pass(100);
    assert_eq!(kept.locks(), [false, false, false, true]);
    assert!(kept.world.chips().written.contains(&(DESERIALIZER, 0x0013, 0x40)));
    kept.world.at(0, Event::Plug(0));
    assert_eq!(kept.until_tried(100), Some(4));
    assert!(!kept.world.chips().written.contains(&(DESERIALIZER, 0x0013, 0x40)), "not while another runs (G6)");
    kept.world.pass(100);
    assert_eq!(kept.locks(), [true, false, false, true]);
}

/// A cable that was pulled, a module that lost its power so shortly that nobody saw it, a chip that lost its supply.
#[test]
fn a_link_that_ran_is_set_up_again_when_it_was_lost() {
    let mut kept = Kept::new([true; 4], &[0, 1]);
    assert_eq!(kept.until_tried(10), None);
    kept.world.at(0, Event::LoseLock(0));
    assert_eq!(kept.until_tried(10), None, "a short loss heals by itself");

    kept.world.at(0, Event::Unplug(1));
    assert_eq!(kept.until_tried(20), Some(5));
    assert!(kept.starter.dark()[1].as_ref().unwrap().contains("no lock"));
    kept.world.at(0, Event::Plug(1));
    assert_eq!(kept.until_tried(20), Some(2));
    kept.world.pass(100);
    assert_eq!((kept.locks(), kept.world.serializer(1, 0) >> 1), ([true, true, false, false], 0x45));

    // Module 1 wakes at the common address, beside one that is about to be set up there.
    let mut kept = Kept::new([true, true, false, false], &[0, 1, 2]);
    kept.world.at(0, Event::Plug(2));
    kept.world.bus().write(0x45, &[0x00, 0x00, 0x80]).unwrap();
    for _ in 0..10 {
        kept.reading().unwrap();
    }
    kept.world.pass(100);
    assert_eq!((kept.locks(), kept.starter.dark()), ([true, true, true, false], [const { None }; 4]));
    assert_eq!([0, 1, 2].map(|l| kept.world.serializer(l, 0) >> 1), [0x44, 0x45, 0x46]);

    // The chip forgets everything, as after a dip of its supply.
    let mut bus = kept.world.bus();
    bus.write(DESERIALIZER, &[0x00, 0x13, 0x40]).unwrap();
    kept.world.pass(200);
    assert_eq!(kept.until_tried(20), Some(1));
    kept.world.pass(100);
    assert_eq!((kept.locks(), kept.starter.dark()), ([true, true, true, false], [const { None }; 4]));
}

/// G4, G5: an attempt that breaks off anywhere counts as one, and the next one heals what it left.
#[test]
fn attempts_that_break_off_wait_too_and_heal() {
    for good in 0..60u32 {
        let mut kept = Kept::new([true, false, true, false], &[0, 1, 2]);
        kept.world.at(0, Event::Plug(1));
        kept.reading().unwrap();
        kept.world.pass(1000);
        let states = kept.chip.states().unwrap();
        kept.world.chips().refuse_after = Some(good);
        let broken = kept.starter.tend(&mut kept.chip, &states, &mut kept.world.clone());
        kept.world.chips().refuse_after = None;
        if let Err(e) = &broken {
            assert!(e.to_string().contains("no acknowledge"), "{e}");
            // As the watch does after a failed transfer.
            kept.chip = kept.starter.open(kept.world.bus(), &mut kept.world.clone()).unwrap();
        }
        for _ in 0..12 {
            kept.reading().unwrap();
        }
        kept.world.pass(100);
        assert_eq!(
            kept.locks(),
            [true, true, true, false],
            "after {good} transfers: {broken:?} {:?}",
            kept.starter.dark()
        );
    }
}

/// The model punishes what the chip punishes; else tests of the driver would prove nothing.
mod the_model {
    use super::*;

    fn awake() -> World {
        let world = World::new([true; 4]);
        world.awake().set_high().unwrap();
        world.pass(5);
        world
    }

    fn write(world: &World, chip: u8, register: u16, value: u8) -> bool {
        let [high, low] = register.to_be_bytes();
        world.bus().write(chip, &[high, low, value]).is_ok()
    }

    fn read(world: &World, chip: u8, register: u16) -> Option<u8> {
        let mut value = [0];
        world.bus().write_read(chip, &register.to_be_bytes(), &mut value).ok()?;
        Some(value[0])
    }

    #[test]
    fn locks_only_with_power_rate_and_restart_in_this_order() {
        let world = awake();
        let lock = |world: &World| read(world, DESERIALIZER, 0x001A).unwrap() & 8 != 0;
        write(&world, DESERIALIZER, 0x0018, 1);
        world.pass(500);
        assert!(!lock(&world), "no power");
        world.power(0).set_high().unwrap();
        world.pass(100);
        assert!(lock(&world), "power after the restart is heard too");
        write(&world, DESERIALIZER, 0x0006, 0xF0);
        write(&world, DESERIALIZER, 0x0006, 0xF1);
        world.pass(500);
        assert!(!lock(&world), "enabled, not restarted");
        write(&world, DESERIALIZER, 0x0010, 0x21);
        write(&world, DESERIALIZER, 0x0018, 1);
        world.pass(500);
        assert!(!lock(&world), "3 Gbit/s against 6");
        write(&world, DESERIALIZER, 0x0010, 0x22);
        write(&world, DESERIALIZER, 0x0018, 1);
        assert!(!lock(&world), "it takes a while");
        world.pass(60);
        assert!(lock(&world));
    }

    #[test]
    fn two_modules_at_one_address_both_take_what_is_written() {
        let world = awake();
        world.power(0).set_high().unwrap();
        world.power(1).set_high().unwrap();
        world.pass(30);
        write(&world, DESERIALIZER, 0x0018, 3);
        world.pass(60);
        assert!(write(&world, 0x40, 0x0000, 0x44 << 1));
        assert_eq!((world.serializer(0, 0), world.serializer(1, 0)), (0x88, 0x88), "now nobody can tell them apart");
        assert_eq!(read(&world, 0x40, 0x000D), None);
    }

    #[test]
    fn a_reset_takes_its_time_and_forgets() {
        let world = awake();
        write(&world, DESERIALIZER, 0x00F4, 0);
        write(&world, DESERIALIZER, 0x0013, 0x40);
        assert_eq!(read(&world, DESERIALIZER, 0x000D), None, "busy");
        world.pass(100);
        assert_eq!(read(&world, DESERIALIZER, 0x00F4), Some(0x0F));
    }

    #[test]
    fn counters_clear_on_read_and_an_address_has_two_bytes() {
        let world = awake();
        world.at(10, Event::Decode(2, 200));
        world.at(11, Event::Decode(2, 200));
        world.pass(20);
        assert_eq!(read(&world, DESERIALIZER, 0x0037), Some(255));
        assert_eq!(read(&world, DESERIALIZER, 0x0037), Some(0));
        assert!(world.bus().write_read(DESERIALIZER, &[0x0D], &mut [0]).is_err());
        let mut row = [0; 2];
        world.bus().write_read(DESERIALIZER, &[0x00, 0x10], &mut row).unwrap();
        assert_eq!(row, [0x22, 0x22], "a transfer goes on to the next register");
    }
}

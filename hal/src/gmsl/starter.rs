//! Sets a deserializer up and keeps it up, where neither kernel nor camera service does.
//!
//! Promises:
//! - **G5** a planned link that is dark is tried again for ever, at growing distances, and told with its reason meanwhile;
//! - **G6** links that run notice nothing of such an attempt, and a chip that was opened anew after a failed transfer is not
//!   touched: it is set up as a whole only while no link runs.
//!
//! The one poller of a chip calls it after each reading; distances are counted in readings, so that no clock is needed.

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;
use embedded_hal::i2c::I2c;

use super::bring_up::{Pins, Plan, answers, bit, bring_up, planned, routed, set_up, try_again};
use super::deserializer::Deserializer;
use super::{GmslError, Link, LinkState};

/// Readings without lock until a link that ran is set up again. Shorter losses heal by themselves.
const LOST: u32 = 5;
/// Readings until the second attempt; every further one waits twice as long.
const FIRST_WAIT: u32 = 2;
/// The longest wait, in readings.
const LONGEST_WAIT: u32 = 64;

/// A planned link.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// It runs.
    Up {
        /// Readings without lock, one after the other.
        unlocked: u32,
    },
    /// It does not.
    Dark {
        /// Why.
        why: String,
        /// Attempts in a row that failed.
        failures: u32,
        /// Readings until the next.
        wait: u32,
    },
}

/// Sets a chip up and keeps it up.
#[derive(Debug)]
pub struct Starter<P> {
    address: u8,
    plan: Plan,
    /// Held for ever: a line that is let go may switch the cameras off.
    pins: Pins<P>,
    /// Of each planned link; all `None` before the first set-up.
    links: [Option<Standing>; 4],
}

impl<P: OutputPin> Starter<P> {
    /// For the chip at a 7-bit address.
    #[must_use]
    pub fn new(address: u8, plan: Plan, pins: Pins<P>) -> Self {
        Self { address, plan, pins, links: [const { None }; 4] }
    }

    /// Opens the chip, setting it up first if that was not done yet. What fails for all links is tried again at the next call.
    pub fn open<I: I2c>(&mut self, bus: I, delay: &mut impl DelayNs) -> Result<Deserializer<I>, GmslError> {
        if self.links.iter().any(Option::is_some) {
            return Deserializer::identify(bus, self.address);
        }
        let (chip, done) = bring_up(bus, self.address, &self.plan, &mut self.pins, delay)?;
        for (link, come) in Link::ALL.into_iter().zip(done.links) {
            if let Some(come) = come {
                self.note(link, come);
            }
        }
        Ok(chip)
    }

    /// After a reading: sets up what is dark, if it is time to. At most one attempt, which takes about a second.
    pub fn tend<I: I2c>(
        &mut self,
        chip: &mut Deserializer<I>,
        states: &[LinkState; 4],
        delay: &mut impl DelayNs,
    ) -> Result<(), GmslError> {
        self.look(chip, states)?;
        let ready = |link: &Link| matches!(self.links[link.index()], Some(Standing::Dark { wait: 0, .. }));
        let Some(link) = planned(&self.plan).find(ready) else { return Ok(()) };
        // One that came back without its address would take what is meant for the next.
        for up in self.running() {
            if !answers(chip, &self.plan, up) {
                self.lose(up, "its camera module forgot its address");
            }
        }
        let running = self.running().fold(0, |mask, link| mask | bit(link));
        let tried: Vec<Link> = if running == 0 { planned(&self.plan).collect() } else { vec![link] };
        let come = if running == 0 {
            set_up(chip, &self.plan, &mut self.pins, delay)
        } else {
            let one = try_again(chip, &self.plan, link, running, &mut self.pins, delay);
            one.map(|one| {
                let mut links = [const { None }; 4];
                links[link.index()] = Some(one);
                links
            })
        };
        match come {
            Ok(mut come) => {
                for link in tried {
                    if let Some(come) = come[link.index()].take() {
                        self.note(link, come);
                    }
                }
                Ok(())
            }
            Err(e) => {
                // It counts as an attempt, or it would be made at every reading.
                for link in tried {
                    self.note(link, Err(e.clone()));
                }
                Err(e)
            }
        }
    }

    /// Why each link is dark that should run.
    #[must_use]
    pub fn dark(&self) -> [Option<String>; 4] {
        self.links.each_ref().map(|link| match link {
            Some(Standing::Dark { why, failures: 0, .. }) => Some(format!("{why}; it is set up again")),
            Some(Standing::Dark { why, failures, wait }) => {
                Some(format!("{why}; attempts so far: {failures}, the next one is in about {wait} s"))
            }
            _ => None,
        })
    }

    fn running(&self) -> impl Iterator<Item = Link> + use<P> {
        let up = self.links.each_ref().map(|link| matches!(link, Some(Standing::Up { .. })));
        Link::ALL.into_iter().filter(move |link| up[link.index()])
    }

    /// What the reading says of the links that ran, and one reading less to wait for those that are dark.
    fn look<I: I2c>(&mut self, chip: &mut Deserializer<I>, states: &[LinkState; 4]) -> Result<(), GmslError> {
        for link in Link::ALL {
            let lost = match &mut self.links[link.index()] {
                Some(Standing::Up { unlocked }) => {
                    *unlocked = if states[link.index()].lock { 0 } else { *unlocked + 1 };
                    *unlocked >= LOST
                }
                Some(Standing::Dark { wait, .. }) => {
                    *wait = wait.saturating_sub(1);
                    false
                }
                None => false,
            };
            if lost {
                self.lose(link, "lock was lost");
            }
        }
        // One for all: they are forgotten together.
        if let Some(first) = self.running().next()
            && !routed(chip, first)?
        {
            for link in self.running() {
                self.lose(link, "the deserializer lost its set-up");
            }
        }
        Ok(())
    }

    fn lose(&mut self, link: Link, why: &str) {
        log::error!("GMSL link {link} is dark: {why}; it is set up again");
        self.links[link.index()] = Some(Standing::Dark { why: why.to_owned(), failures: 0, wait: 0 });
    }

    fn note(&mut self, link: Link, come: Result<(), GmslError>) {
        let before = self.links[link.index()].take();
        self.links[link.index()] = Some(match come {
            Ok(()) => {
                log::info!("GMSL link {link} is up");
                Standing::Up { unlocked: 0 }
            }
            Err(e) => {
                let why = e.to_string();
                let (failures, told) = match before {
                    Some(Standing::Dark { failures, why, .. }) => (failures, Some(why)),
                    _ => (0, None),
                };
                if told.as_deref() != Some(&why) {
                    log::error!("GMSL link {link} stays dark: {why}");
                }
                let wait = FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT);
                Standing::Dark { why, failures: failures.saturating_add(1), wait }
            }
        });
    }
}

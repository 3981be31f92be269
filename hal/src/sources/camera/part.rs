//! A line's part of the board's encoder: what it needs, what it has, and what can never be.
//!
//! Promises that a line codes only what the book ([`crate::shared`]) has a place for; that its part follows the size that really
//! passes, also where the mode does not tell it; that what would not fit even alone with half of its pictures is refused for
//! good, so that nobody makes room for it in vain; and that one which fits alone with half of them only never asks for more.
//!
//! Asked where a line is opened and at the contract, where a size is seen for the first time; later by
//! [`Thinner`](super::Thinner), beside the pictures.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::super::outlet::Outlet;
use super::super::thin::Room;
use super::lock;
use crate::machine::Claim;
use crate::source::{Share, SourceError};

/// A lens that gives way codes one of so many pictures; none is asked for less but to stop.
const FEWEST: u32 = 2;

pub(super) struct Part {
    soc: &'static str,
    /// Pixels per second that the encoder takes in all; `None` if that is unknown or the CPU codes.
    budget: Option<u64>,
    fps: f32,
    /// Weak: the pipeline holds this, and the claim ends when the pipeline is gone.
    claim: Weak<Claim>,
    outlet: Arc<Outlet>,
    /// The size that was admitted.
    size: Mutex<Option<(u32, u32)>>,
    /// Of so many pictures one is coded, as far as that is settled; 0 before.
    coded: AtomicU32,
    /// For one of so many pictures the book has a place; 0 before. Held by who asks the book, so that a place is for the size
    /// that passes. Answers may take their time: no picture waits for this.
    booked: Mutex<u32>,
}

impl Part {
    pub(super) fn new(
        soc: &'static str,
        budget: Option<u64>,
        fps: f32,
        claim: &Arc<Claim>,
        outlet: &Arc<Outlet>,
    ) -> Self {
        let (claim, outlet) = (Arc::downgrade(claim), Arc::clone(outlet));
        let (size, booked) = (Mutex::default(), Mutex::default());
        Self { soc, budget, fps, claim, outlet, size, coded: AtomicU32::new(0), booked }
    }

    /// Of so many pictures one is coded to begin with.
    pub(super) fn first(&self) -> u32 {
        match self.coded.load(Ordering::Relaxed) {
            0 => self.outlet.one_in().max(self.least()),
            settled => settled,
        }
    }

    /// Takes the part for pictures of that size, unless it has it.
    pub(super) fn admit(&self, size: (u32, u32)) -> Result<(), SourceError> {
        let mut booked = lock(&self.booked);
        if lock(&self.size).replace(size) == Some(size) {
            return Ok(());
        }
        let Some(budget) = self.budget else { return Ok(()) };
        if self.needed(FEWEST) > budget {
            let (width, height) = size;
            return Err(self.outlet.unsupported(format!(
                "{width}x{height} with {} frames/s is more than the encoder of {} takes in all, {} frames/s of 1920x1080, even \
                 with half of the pictures: ask for a smaller picture or fewer frames per second",
                self.fps,
                self.soc,
                budget / (1920 * 1080),
            )));
        }
        // A larger part may have been granted that the line has not heard of yet: it is for the new size, too.
        let one_in = if *booked == 0 { self.first() } else { *booked }.max(self.least());
        let Some(claim) = self.claim.upgrade() else { return Ok(()) };
        match claim.encode(self.needed(one_in)) {
            Ok(()) => {
                self.coded.store(one_in, Ordering::Relaxed);
                *booked = one_in;
                Ok(())
            }
            Err(why) => {
                self.tell(0, self.outlet.one_in());
                Err(self.outlet.exhausted(why))
            }
        }
    }

    /// Pixels per second, if one of so many pictures is coded.
    fn needed(&self, one_in: u32) -> u64 {
        let (width, height) = lock(&self.size).unwrap_or_default();
        let fps = (self.fps / one_in.max(1) as f32).ceil();
        u64::from(width) * u64::from(height) * (fps as u64)
    }
}

impl Room for Part {
    fn is_counted(&self) -> bool {
        self.budget.is_some()
    }

    fn least(&self) -> u32 {
        if self.budget.is_some_and(|budget| self.needed(1) > budget) { FEWEST } else { 1 }
    }

    fn take(&self, one_in: u32) -> bool {
        let mut booked = lock(&self.booked);
        // Without a camera nothing is coded.
        let taken = self.claim.upgrade().is_none_or(|claim| claim.encode(self.needed(one_in)).is_ok());
        if taken {
            *booked = one_in;
        }
        taken
    }

    fn tell(&self, one_in: u32, wanted: u32) {
        self.coded.store(one_in, Ordering::Relaxed);
        let needs = if self.is_counted() { self.needed(1) } else { 0 };
        self.outlet.coded(Share { one_in, wanted, needs, budget: self.budget.unwrap_or(0) });
    }
}

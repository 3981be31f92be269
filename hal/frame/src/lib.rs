//! The frame bus: live frames of every lens for other processes, without a copy and without harm to the camera.
//!
//! `PROTOCOL.md` beside this crate is the contract between processes, byte by byte; [`wire`] is its codec. [`Publisher`] is
//! the camera's side, [`Subscriber`] the reader's. Nothing here knows where frames come from: they enter as file
//! descriptors (or bytes), planes and a value whose drop gives the buffer back.
//!
//! Promises, held by the tests that name them:
//!
//! - B1: `publish` never waits, allocates nothing and costs O(subscribers), whatever subscribers do.
//! - B2: what a reader validated after its work was read from an intact frame.
//! - B3: every buffer goes back to its camera, at the latest when its budget is needed or its lease has run out.
//! - B4: a peer that breaks the protocol is cut; one that does not read is starved; no other peer notices.
//! - B5: what a peer can make this process hold is bounded.
//! - B6: a peer that is not trusted never gets a descriptor through which it could write.

#![cfg_attr(loom, allow(dead_code, reason = "the model drives a part of the books"))]

mod generation;
mod handover;
mod ledger;
mod picture;
mod sync;
pub mod wire;

#[cfg(all(test, loom))]
mod model;

#[cfg(not(loom))]
mod publisher;
#[cfg(not(loom))]
mod subscriber;
#[cfg(not(loom))]
pub mod sys;

pub use picture::{Fourcc, MAX_PLANES, Modifier, Picture, Plane, Planes};
#[cfg(not(loom))]
pub use publisher::{
    BufferId, Demand, Frame, HANDOVER, Lent, Memory, MemoryKind, Pixels, PublishError, Publisher, Report, Settings,
    Totals,
};
#[cfg(not(loom))]
pub use subscriber::{Lease, Received, ReceivedFrame, SubscribeError, Subscriber, Wish};

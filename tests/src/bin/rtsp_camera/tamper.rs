//! What a camera's packets meet on their way out of the payloader.
//!
//! Promise: without an order from outside a packet passes as it is, uncopied. Orders count packets of one mount, of H.264.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use gst::prelude::*;
use gstreamer as gst;

/// A part of a NAL unit that fills several packets (RFC 6184, 5.8).
const FU_A: u8 = 28;

fn take(n: &AtomicU32) -> bool {
    n.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

/// Orders for one mount.
#[derive(Default)]
pub(crate) struct Orders {
    /// Nothing is sent; connections stay open.
    pub(crate) stalled: AtomicBool,
    /// The other coding of the file is sent, from the next keyframe on.
    pub(crate) swapped: AtomicBool,
    /// So many packets are lost.
    pub(crate) lost: AtomicU32,
    /// So many packets are damaged.
    pub(crate) damaged: AtomicU32,
    /// So many packets come a picture later than their place, as by another way through a network.
    pub(crate) disordered: AtomicU32,
    held: Mutex<Option<gst::Buffer>>,
    /// Added to RTP times, in ticks.
    pub(crate) shift: AtomicU32,
}

impl Orders {
    /// Follows one line: a word and perhaps a number.
    pub(crate) fn follow(&self, word: &str, number: Option<i64>) {
        let count = || u32::try_from(number.unwrap_or(1)).expect("a count");
        match word {
            "stall" => self.stalled.store(true, Ordering::SeqCst),
            "go" => self.stalled.store(false, Ordering::SeqCst),
            "swap" => drop(self.swapped.fetch_xor(true, Ordering::SeqCst)),
            "lose" => self.lost.store(count(), Ordering::SeqCst),
            "disorder" => self.disordered.store(count(), Ordering::SeqCst),
            "damage" => self.damaged.store(count(), Ordering::SeqCst),
            "jump" => {
                let ticks = number.expect("milliseconds") * 90;
                self.shift.fetch_add(ticks as u32, Ordering::SeqCst);
            }
            other => panic!("no order {other}"),
        }
    }

    fn idle(&self) -> bool {
        let counts = [&self.lost, &self.damaged, &self.disordered, &self.shift];
        counts.iter().all(|n| n.load(Ordering::SeqCst) == 0)
    }

    /// Takes a packet out of the middle of a picture, to be sent with the next one.
    fn hold_back(&self, packets: &mut Vec<gst::Buffer>) {
        let is_part = |packet: &gst::Buffer| packet.map_readable().expect("memory")[12] & 0x1f == FU_A;
        let two = packets.windows(2).position(|two| two.iter().all(is_part));
        if let Some(at) = two.filter(|_| take(&self.disordered)) {
            *self.held.lock().expect("nobody panics") = Some(packets.remove(at));
        }
    }

    /// What becomes of a packet.
    fn treat(&self, packet: &gst::BufferRef, out: &mut Vec<gst::Buffer>) {
        // Parameter sets and the like are not meant: without them nothing need be missing (ITU-T H.264 table 7-1).
        let nal = packet.map_readable().expect("memory")[12] & 0x1f;
        let is_picture = !(6..=9).contains(&nal);
        if is_picture && take(&self.lost) {
            return;
        }
        let mut packet = packet.copy_deep().expect("memory");
        {
            let mut map = packet.make_mut().map_writable().expect("our own copy");
            let time = u32::from_be_bytes([map[4], map[5], map[6], map[7]]);
            let time = time.wrapping_add(self.shift.load(Ordering::SeqCst));
            map[4..8].copy_from_slice(&time.to_be_bytes());
            if is_picture && take(&self.damaged) {
                // NAL types that RTP does not have, and nothing of the payload left.
                map[12..].fill(0x7f);
            }
        }
        out.push(packet);
    }
}

/// Has the packets of a payloader follow the orders.
pub(crate) fn watch(payloader: &gst::Element, orders: std::sync::Arc<Orders>) {
    let pad = payloader.static_pad("src").expect("a payloader has a way out");
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    pad.add_probe(kinds, move |pad, info| {
        // Pushing it leads here again.
        let held = orders.held.lock().expect("nobody panics").take();
        if let Some(held) = held {
            let _ = pad.push(held);
        }
        if orders.idle() {
            return gst::PadProbeReturn::Ok;
        }
        let mut out = Vec::new();
        match info.data.take() {
            Some(gst::PadProbeData::Buffer(packet)) => orders.treat(&packet, &mut out),
            Some(gst::PadProbeData::BufferList(list)) => {
                list.iter().for_each(|packet| orders.treat(packet, &mut out));
                orders.hold_back(&mut out);
            }
            other => {
                info.data = other;
                return gst::PadProbeReturn::Ok;
            }
        }
        if out.is_empty() {
            return gst::PadProbeReturn::Drop;
        }
        // What comes alone goes alone.
        info.data = Some(if info.mask.contains(gst::PadProbeType::BUFFER) {
            gst::PadProbeData::Buffer(out.remove(0))
        } else {
            gst::PadProbeData::BufferList(out.into_iter().collect())
        });
        gst::PadProbeReturn::Ok
    });
}

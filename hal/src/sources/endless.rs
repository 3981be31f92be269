//! A bound on what may be gathered for one picture.
//!
//! GStreamer's depayloaders put the fragments of a picture together without any bound, so a sender whose picture never ends would
//! fill the memory. Promises to tell when more than [`MOST`] bytes have come since a picture ended: since a unit came out, or since a
//! packet said that it was the last one of its picture. Of the second kind there are many and no unit while a depayloader waits for
//! its first keyframe, which a camera may send half a minute apart; but it may also be said falsely, with every fragment, so what comes
//! without a unit has a bound of its own, [`UNSEEN`]. Used by RTSP over UDP and by WHEP.

use std::sync::atomic::{AtomicUsize, Ordering};

use gstreamer as gst;

/// Most bytes of packets for one picture: ten times the largest keyframe of a camera of 8K.
const MOST: usize = 32 << 20;
/// Most bytes of packets without a unit: 34 Mbit/s for the thirty seconds that an opening waits for a picture.
const UNSEEN: usize = 128 << 20;

/// What has come since the last unit.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Since the last picture that ended.
    picture: AtomicUsize,
    /// Since the last unit.
    unseen: AtomicUsize,
}

impl Gathered {
    /// A packet came; the words of what is wrong if it is one too many.
    pub(super) fn packet(&self, packet: Option<&gst::Buffer>) -> Result<(), String> {
        let Some(packet) = packet else { return Ok(()) };
        let bytes = packet.size();
        let since = |counter: &AtomicUsize| counter.fetch_add(bytes, Ordering::Relaxed);
        if since(&self.picture) > MOST {
            return Err(format!("it sends more than {} MB without a picture's end", MOST >> 20));
        }
        if since(&self.unseen) > UNSEEN {
            return Err(format!("it sends more than {} MB without a picture", UNSEEN >> 20));
        }
        if ends(packet) {
            self.picture.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A unit came out.
    pub(super) fn unit(&self) {
        self.picture.store(0, Ordering::Relaxed);
        self.unseen.store(0, Ordering::Relaxed);
    }
}

/// Whether a packet says that it is the last one of its picture (the marker: RFC 6184, 5.1; RFC 7798, 4.1).
fn ends(packet: &gst::BufferRef) -> bool {
    let mut marker = [0];
    packet.copy_to_slice(1, &mut marker) == Ok(()) && marker[0] & 0x80 != 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Of 1000 bytes.
    fn packet(marker: bool) -> gst::Buffer {
        crate::gst::init().unwrap();
        let mut bytes = vec![0; 1000];
        (bytes[0], bytes[1]) = (0x80, 0x60 | u8::from(marker) << 7);
        gst::Buffer::from_slice(bytes)
    }

    #[test]
    fn a_picture_without_end_is_told_and_others_are_not() {
        let (gathered, packet) = (Gathered::default(), packet(false));
        for _ in 0..10 {
            assert_eq!((0..MOST / 1000).find(|_| gathered.packet(Some(&packet)).is_err()), None);
            gathered.unit();
        }
        let told = (0..MOST / 1000 + 2).find_map(|_| gathered.packet(Some(&packet)).err());
        assert_eq!(told.as_deref(), Some("it sends more than 32 MB without a picture's end"));
    }

    #[test]
    fn a_first_keyframe_may_be_far_but_not_without_end() {
        let (gathered, middle, end) = (Gathered::default(), packet(false), packet(true));
        // Pictures of 100 kB, none of which comes out before its keyframe: 34 Mbit/s for 30 s.
        let comes = |n: usize| if n % 100 == 99 { &end } else { &middle };
        assert_eq!((0..UNSEEN / 1000).find_map(|n| gathered.packet(Some(comes(n))).err()), None);
        gathered.unit();
        let told = (0..UNSEEN / 1000 + 2).find_map(|n| gathered.packet(Some(comes(n))).err());
        assert_eq!(told.as_deref(), Some("it sends more than 128 MB without a picture"));
    }
}

//! The sender's own times of packets that GStreamer's jitter buffer has put in order.
//!
//! The jitter buffer waits for a missing packet by our clock only in the modes in which it also bends times towards our clock; with
//! plain RTP times it waits too long or not at all as soon as the camera's clock was set or has drifted. So it may bend what it likes:
//! promises that buffers behind [`keep`] have the times of their packets, in the camera's clock, counted from where the server said
//! that playing begins, with a constant added so that none is negative. Wrap-arounds are followed; a clock that was set is a jump.

use gstreamer as gst;
use gstreamer::prelude::*;

/// What is added to times, ns: nine years, so that clocks may be set back.
const ORIGIN: i64 = 1 << 58;

/// The clock of one stream.
#[derive(Debug)]
struct MediaClock {
    /// Ticks in a second.
    rate: i64,
    /// The latest RTP time and how many ticks it is behind the origin.
    last: (u32, i64),
}

impl MediaClock {
    /// By what the session says of the stream (RFC 2326, 12.33), or from the first packet on.
    fn of(caps: Option<&gst::Caps>, first: u32) -> Self {
        let described = caps.and_then(|caps| caps.structure(0));
        let rate = described.and_then(|s| s.get::<i32>("clock-rate").ok()).filter(|rate| *rate > 0);
        let base = described.and_then(|s| s.get::<u32>("clock-base").ok());
        Self { rate: rate.map_or(90_000, i64::from), last: (base.unwrap_or(first), 0) }
    }

    /// Nanoseconds since the origin at an RTP time, which is the nearest to the one before.
    fn at(&mut self, time: u32) -> i64 {
        let (last, ticks) = self.last;
        let ticks = ticks + i64::from(time.wrapping_sub(last).cast_signed());
        self.last = (time, ticks);
        (i128::from(ticks) * 1_000_000_000 / i128::from(self.rate)) as i64
    }
}

/// The RTP time of a packet (RFC 3550, 5.1).
fn rtp_time(packet: &gst::BufferRef) -> Option<u32> {
    let mut head = [0; 8];
    (packet.copy_to_slice(0, &mut head) == Ok(())).then(|| u32::from_be_bytes([head[4], head[5], head[6], head[7]]))
}

/// Gives packets that go into a depayloader their own times, and what comes out of it a segment that leaves them as they are.
pub(super) fn keep(depayloader: &gst::Element) -> Option<()> {
    let (input, output) = (depayloader.static_pad("sink")?, depayloader.static_pad("src")?);
    let clock = std::sync::Mutex::new(None::<MediaClock>);
    input.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if let Some(gst::PadProbeData::Buffer(packet)) = &mut info.data
            && let Some(time) = rtp_time(packet)
        {
            let mut clock = clock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let clock = clock.get_or_insert_with(|| MediaClock::of(pad.current_caps().as_ref(), time));
            let at = u64::try_from(ORIGIN.saturating_add(clock.at(time))).ok().map(gst::ClockTime::from_nseconds);
            packet.make_mut().set_pts(at);
        }
        gst::PadProbeReturn::Ok
    });
    output.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        if let Some(gst::PadProbeData::Event(event)) = &mut info.data
            && event.type_() == gst::EventType::Segment
        {
            let whole = gst::FormattedSegment::<gst::ClockTime>::new();
            *event = gst::event::Segment::builder(&whole).seqnum(event.seqnum()).build();
        }
        gst::PadProbeReturn::Ok
    });
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn caps(base: Option<u32>) -> gst::Caps {
        gst::init().unwrap();
        let caps = gst::Caps::builder("application/x-rtp").field("clock-rate", 90_000);
        let caps = if let Some(base) = base { caps.field("clock-base", base) } else { caps };
        caps.build()
    }

    #[test]
    fn times_count_from_where_playing_begins_and_follow_every_wrap() {
        let mut clock = MediaClock::of(Some(&caps(Some(u32::MAX - 44_999))), 7);
        assert_eq!(clock.at(u32::MAX - 89_999), -500_000_000);
        assert_eq!(clock.at(0), 500_000_000);
        let mut time = 0u32;
        for turn in 1..10i64 {
            for _ in 0..4 {
                time = time.wrapping_add(1 << 30);
                let _ = clock.at(time);
            }
            assert_eq!(clock.at(time), (45_000 + (turn << 32)) * 100_000 / 9);
        }
    }

    #[test]
    fn without_a_word_of_the_server_they_count_from_the_first_packet_and_may_go_back() {
        let mut clock = MediaClock::of(Some(&caps(None)), 1000);
        assert_eq!(clock.at(1000), 0);
        assert_eq!(clock.at(1000u32.wrapping_sub(90_000 * 3600)), -3_600_000_000_000);
        assert_eq!(MediaClock::of(None, 5).at(90_005), 1_000_000_000);
    }
}

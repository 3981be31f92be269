//! What must hold of any bytes that come from a camera or a server: one function for each kind, which panics if it does not.
//!
//! `hal/fuzz` feeds them with libFuzzer (`make fuzz`), `mos::fuzzing` with the mutations of `make test`. The program calls none of them.

use bytes::Bytes;

use crate::clock::Mono;
use crate::media::VideoCodec;
use crate::timeline::Timeline;
use crate::{nal, onvif};

/// An answer of an ONVIF camera.
pub fn onvif(data: &[u8]) {
    onvif::hear::answer(&String::from_utf8_lossy(data));
}

/// A datagram that answers a search for cameras.
pub fn discovery(data: &[u8]) {
    onvif::hear::datagram(data);
}

/// All that an RTSP camera sends in one session, over TCP.
pub fn rtsp(data: &[u8]) {
    crate::sources::rtsp::hear::session(data);
}

/// Lines of a WHEP server with `Link:` or `Location:` before them, and a description from the first empty line on.
#[cfg(feature = "whep")]
pub fn whep(data: &[u8]) {
    crate::sources::whep::hear::answer(data);
}

/// An access unit, or the configuration of a decoder: codec by the first byte.
pub fn nal(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let codec = if first & 1 == 0 { VideoCodec::H264 } else { VideoCodec::H265 };
    let _ = nal::classify(codec, rest);
    let bytes = Bytes::copy_from_slice(rest);
    let stored = nal::stored(codec, bytes.clone());
    assert!(stored.len() <= rest.len() && nal::units(&stored).count() <= nal::units(rest).count());
    assert_eq!(nal::stored(codec, stored.clone()), stored, "what is stored has no parameter set more");
    if let Some(picture) = nal::picture(codec, rest) {
        // H.265 A.4.1: no level allows more.
        assert!((1..=16_888).contains(&picture.width) && (1..=16_888).contains(&picture.height));
    }
    // The same set as the only one of a configuration, so that the reader of sets comes to see all bytes.
    let length = (rest.len().min(usize::from(u16::MAX)) as u16).to_be_bytes();
    let set = &rest[..rest.len().min(usize::from(u16::MAX))];
    let head: Vec<u8> = match codec {
        VideoCodec::H264 => vec![1, 66, 0, 30, 0xff, 0xe1],
        VideoCodec::H265 => [&[1; 22][..], &[1, 33, 0, 1]].concat(),
    };
    let _ = nal::picture(codec, &[&head, &length[..], set].concat());
}

/// Media times and arrivals of two tracks: each track comes out in order where its own times are in order.
pub fn timeline(data: &[u8]) {
    let mut timeline = Timeline::new();
    let mut last: [Option<(i64, i64)>; 2] = [None; 2];
    let mut arrival = 0_i64;
    for step in data.chunks_exact(12) {
        let (time, rest) = step.split_at(8);
        let number = i64::from_le_bytes(time.try_into().unwrap_or_default());
        let track = usize::from(rest[0] & 1);
        // Anywhere in 64 bits, or near what was there before.
        let media = if rest[0] & 2 == 0 {
            number
        } else {
            last[track].map_or(0, |(m, _)| m.saturating_add(number % 10_000_000_000))
        };
        let pause =
            u64::from(u16::from_le_bytes([rest[1], rest[2]])) * if rest[3] > 250 { 10_000_000_000 } else { 1_000_000 };
        arrival = arrival.saturating_add_unsigned(pause);
        let placed = timeline.place(track, media, Mono(arrival)).0;
        // Invariant 2 of the timeline.
        if let Some((before, _)) = last[track].filter(|(before, at)| media > *before && placed < *at) {
            panic!("track {track}: {before} came before {media}, but not in the result");
        }
        last[track] = Some((media, placed));
    }
}

//! Units for the tests of this folder.

use std::sync::Arc;

use bytes::Bytes;
use mos_hal::clock::Mono;
use mos_hal::media::{AccessUnit, FrameKind, TrackFormat, VideoCodec, VideoFormat};

/// Nanoseconds in a millisecond.
pub(crate) const MS: i64 = 1_000_000;

/// A video format of this reorder depth.
pub(crate) fn video_format(reorder: u8) -> Arc<TrackFormat> {
    Arc::new(TrackFormat::Video(VideoFormat {
        codec: VideoCodec::H264,
        width: 160,
        height: 96,
        pixel_aspect: (1, 1),
        config: Bytes::from_static(&[1, 66, 0, 10, 0xff, 0xe0, 0]),
        reorder,
        frame_duration: None,
        rotation: mos_hal::media::Rotation::None,
    }))
}

/// A unit of 100 bytes.
pub(crate) fn unit_at(format: &Arc<TrackFormat>, pts: Option<i64>, arrival: i64, kind: FrameKind) -> AccessUnit {
    AccessUnit {
        format: Arc::clone(format),
        kind,
        pts: pts.map(Mono),
        duration: None,
        arrival: Mono(arrival),
        discontinuity: false,
        data: Bytes::from(vec![0; 100]),
    }
}

/// Decoding order of `n` frames in mini groups of `b` B-frames (a pyramid if `pyramid`), as output indices.
pub(crate) fn order(n: usize, b: usize, pyramid: bool) -> Vec<i64> {
    let mut out = vec![0];
    let mut last = 0;
    while out.len() < n {
        let p = last + b + 1;
        out.push(p as i64);
        let mid = last + b.div_ceil(2);
        if pyramid && b >= 2 {
            out.push(mid as i64);
        }
        out.extend((last + 1..p).filter(|i| !(pyramid && b >= 2 && *i == mid)).map(|i| i as i64));
        last = p;
    }
    out
}

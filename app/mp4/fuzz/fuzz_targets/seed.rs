//! A whole segment that the input damages: most bytes of random files never get past the first box.

use mos_mp4::{
    Checksum, Close, Fragment, FragmentSample, FragmentTrack, Header, Identity, Movie, SampleEntry, Track,
    VIDEO_TIMESCALE, VideoCodec,
};

/// A small segment: open, closing or closed as the first byte says, then patched: each further 8 bytes are a place (3), a
/// number of bytes (1) and a value (4); a number of 255 cuts the file there.
pub fn patched(data: &[u8]) -> Vec<u8> {
    let (kind, patches) = data.split_first().unwrap_or((&0, &[]));
    let mut file = segment(kind % 3);
    for p in patches.chunks_exact(8) {
        let at = (usize::from(p[0]) << 16 | usize::from(p[1]) << 8 | usize::from(p[2])) % file.len().max(1);
        if p[3] == 255 {
            file.truncate(at);
            continue;
        }
        for i in 0..usize::from(p[3] % 9) {
            if let Some(byte) = file.get_mut(at + i) {
                *byte = p[4 + i % 4];
            }
        }
    }
    file
}

fn segment(kind: u8) -> Vec<u8> {
    let entry = SampleEntry::Video {
        codec: VideoCodec::H264,
        width: 64,
        height: 48,
        pixel_aspect: (4, 3),
        config: vec![1, 100, 0, 30, 255],
        colour: None,
    };
    let mut movie = Movie { shown_from: 0, tracks: vec![Track::new(1, VIDEO_TIMESCALE, entry)] };
    let identity =
        Identity { version: 1, lens: "road".into(), run: 1, seq: 2, boot: [3; 16], mono_start: 4, utc: None };
    let mut file = Header::new(&identity, &movie).expect("a header").bytes;
    for n in 0..4_u32 {
        let samples: Vec<_> = (0..5)
            .map(|i| FragmentSample {
                size: 7 + i,
                duration: 3000,
                cts: [0, 6000, -3000, -3000, 0][i as usize],
                sync: i == 0,
            })
            .collect();
        let payload = vec![n as u8; samples.iter().map(|s| s.size as usize).sum()];
        let tracks = [FragmentTrack { id: 1, description: 1, dts: i64::from(n) * 15_000, samples: &samples }];
        let mut sum = Checksum::new();
        sum.update(&payload);
        let fragment = Fragment::new(n + 1, &tracks, sum.finish()).expect("a fragment");
        fragment.enter(&mut movie, file.len() as u64, &tracks).expect("its samples");
        file.extend_from_slice(&fragment.head);
        file.extend_from_slice(&payload);
    }
    let close = Close::new(&movie, file.len() as u64);
    if kind > 0 {
        let (at, word) = close.size_write();
        file[at as usize..at as usize + 8].copy_from_slice(&word);
        file.extend_from_slice(&close.guard);
        file.extend_from_slice(&close.moov);
    }
    if kind > 1 {
        let (at, word) = close.flip();
        file[at as usize..at as usize + 8].copy_from_slice(&word);
    }
    file
}

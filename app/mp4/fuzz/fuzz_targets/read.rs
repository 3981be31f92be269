//! Any bytes: reading and summarising end with a result, and what is read lies within the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mos_mp4::{SegmentFile, Summary, UpTo, Verify};

mod seed;

fuzz_target!(|data: &[u8]| {
    for file in [data.to_vec(), seed::patched(data)] {
        let _ = Summary::read(&file);
        let _ = SegmentFile::read(&UpTo(&file, file.len() as u64 / 2), Verify::Structure);
        for verify in [Verify::Structure, Verify::Payload] {
            let Ok(read) = SegmentFile::read(&file, verify) else { continue };
            assert!(read.end <= read.used && read.used <= read.file_len);
            for track in &read.movie.tracks {
                for sample in &track.table {
                    assert!(sample.offset >= read.header_len && sample.end() <= read.end);
                    assert!((1..=track.entries.len()).contains(&(sample.description as usize)));
                }
            }
        }
    }
});

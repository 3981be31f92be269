//! Any damage to a segment: its recovery ends in a closed file that needs no other, and loses no sample on the way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mos_mp4::recover::Finding;
use mos_mp4::{Recovery, SegmentFile, State, Step, Verify};

mod seed;

fuzz_target!(|data: &[u8]| {
    let mut file = seed::patched(data);
    let Ok(read) = SegmentFile::read(&file, Verify::Payload) else { return };
    let samples = read.movie.sample_count();
    let plan = Recovery::plan(&read);
    if matches!(plan.finding, Finding::Empty) {
        return;
    }
    for step in &plan.steps {
        match step {
            Step::Truncate(len) => file.resize(*len as usize, 0),
            Step::Write { offset, bytes } => {
                let (from, to) = (*offset as usize, *offset as usize + bytes.len());
                file.resize(file.len().max(to), 0);
                file[from..to].copy_from_slice(bytes);
            }
            Step::Sync => {
                let between = SegmentFile::read(&file, Verify::Payload).expect("readable at every sync");
                assert_eq!(between.movie.sample_count(), samples);
            }
        }
    }
    let after = SegmentFile::read(&file, Verify::Payload).expect("readable after recovery");
    assert_eq!(after.state, State::Closed);
    assert_eq!(after.movie, read.movie);
    assert_eq!(Recovery::plan(&after).finding, Finding::Intact);
});

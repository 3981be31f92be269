//! Any bytes: reducing ends with an error or with a plan whose output has nothing left to drop.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mos_mp4::{Piece, Reduction};

mod seed;

fuzz_target!(|data: &[u8]| {
    for file in [data.to_vec(), seed::patched(data)] {
        let Ok(plan) = Reduction::plan(&file) else { continue };
        let made = carry_out(&file, &plan);
        assert_eq!(plan.input_len() - plan.len(), plan.free_bytes() + plan.media_bytes());
        let again = Reduction::plan(&made).expect("the output can be reduced");
        assert_eq!((again.len(), again.is_prefix()), (plan.len(), true));
    }
});

fn carry_out(file: &[u8], plan: &Reduction) -> Vec<u8> {
    let mut made = Vec::new();
    let mut read_up_to = 0;
    for piece in plan.pieces() {
        match piece {
            Piece::Copy { offset, len } => {
                assert!(*offset >= read_up_to, "ranges are in order");
                read_up_to = offset + len;
                made.extend_from_slice(&file[*offset as usize..read_up_to as usize]);
            }
            Piece::Bytes(bytes) => made.extend_from_slice(bytes),
        }
    }
    assert_eq!(made.len() as u64, plan.len());
    made
}

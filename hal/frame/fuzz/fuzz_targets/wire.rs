//! Any bytes: decoding ends with an error or with a message that encodes to those very bytes; so do bytes behind a right head.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mos_frame::wire::{Message, VERSION};

fuzz_target!(|data: &[u8]| {
    let mut headed = data.to_vec();
    if let Some(head) = headed.get_mut(..8) {
        head[0] %= 8;
        head[1] = 0;
        head[2..4].copy_from_slice(&VERSION.to_le_bytes());
        let length = [0u8, 32, 32, 48, 128, 24, 24, 16][usize::from(head[0])];
        head[4..8].copy_from_slice(&u32::from(length).to_le_bytes());
        headed.resize(usize::from(length), 0);
    }
    for bytes in [data, &headed] {
        let Ok(message) = Message::decode(bytes) else { continue };
        assert_eq!(message.encode().as_slice(), bytes);
        if let Message::Frame(note) = message {
            // What a reader does with it before it reads a pixel.
            let sizes = [u64::from(note.picture.width), u64::MAX >> 1];
            if note.picture.fits(&sizes) {
                assert!(note.picture.planes.iter().all(|plane| plane.offset <= sizes[plane.memory as usize]));
            }
        }
    }
});

//! mp4parse (Firefox's parser) and mp4san (a strict sanitiser) as judges of the container.

use std::fs::File;
use std::io::{BufReader, Cursor};
use std::path::Path;

/// Asserts that mp4parse reads the file, and gives the number of its tracks.
pub fn assert_mp4parse(file: &Path) -> usize {
    let mut reader = BufReader::new(File::open(file).unwrap());
    let context = mp4parse::read_mp4(&mut reader).unwrap_or_else(|e| panic!("mp4parse on {}: {e:?}", file.display()));
    assert!(!context.tracks.is_empty(), "mp4parse finds no track in {}", file.display());
    context.tracks.len()
}

/// Asserts that mp4san accepts the file: an ordinary, unfragmented MP4.
///
/// mp4san refuses every vendor's box at the top level by design; a segment's identity box is shown to it as `free`.
pub fn assert_mp4san(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    if bytes.get(36..40) == Some(b"uuid") {
        bytes[36..40].copy_from_slice(b"free");
    }
    mp4san::sanitize(Cursor::new(bytes)).unwrap_or_else(|e| panic!("mp4san on {}: {e}", file.display()));
}

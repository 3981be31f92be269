//! Looks at what came out without trusting who made it: pictures, clips and copies are read from their bytes.

use std::path::Path;

use mos_mp4::boxes::{Children, Fields, child};

use super::DemoError;

/// What a clip's own boxes say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Clip {
    /// Coded video frames in the file.
    pub(super) frames: u32,
    /// What a player shows of them, in seconds.
    pub(super) shown: f64,
}

/// Fails with the text unless it holds.
pub(super) fn hold(holds: bool, text: impl FnOnce() -> String) -> Result<(), DemoError> {
    if holds { Ok(()) } else { Err(DemoError::NotHeld(text())) }
}

/// Reads a file whole.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, DemoError> {
    std::fs::read(path).map_err(|e| DemoError::NotHeld(format!("{} can be read ({e})", path.display())))
}

/// Width and height of a JPEG, which must be whole: from its start to its end marker (ISO/IEC 10918-1 annex B).
pub(super) fn jpeg_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut rest = bytes.strip_prefix(&[0xff, 0xd8])?;
    if !bytes.ends_with(&[0xff, 0xd9]) {
        return None;
    }
    loop {
        let (marker, segment) = (rest.get(..2)?, rest.get(2..)?);
        let len = usize::from(u16::from_be_bytes([*segment.first()?, *segment.get(1)?]));
        match marker {
            // A frame header, baseline or progressive: length, precision, height, width.
            [0xff, 0xc0..=0xc2] => {
                let number = |at| Some(u32::from(u16::from_be_bytes([*segment.get(at)?, *segment.get(at + 1)?])));
                return Some((number(5)?, number(3)?));
            }
            [0xff, _] => rest = segment.get(len..)?,
            _ => return None,
        }
    }
}

/// Reads the video track of a plain MP4 file (ISO/IEC 14496-12: `mvhd`, `trak`, `hdlr`, `stsz`, `elst`).
pub(super) fn clip(bytes: &[u8]) -> Option<Clip> {
    let moov = child(bytes, *b"moov")?;
    let mut header = Fields::new(child(moov, *b"mvhd")?);
    let (version, _) = header.version_and_flags()?;
    header.take(if version == 1 { 16 } else { 8 })?;
    let timescale = header.u32()?;
    let video = Children::new(moov).filter(|(kind, _)| kind == b"trak").map(|(_, body)| body).find(|trak| {
        child(trak, *b"mdia").and_then(|m| child(m, *b"hdlr")).is_some_and(|h| h.get(8..12) == Some(b"vide"))
    })?;
    let table = child(child(child(video, *b"mdia")?, *b"minf")?, *b"stbl")?;
    let mut sizes = Fields::new(child(table, *b"stsz")?);
    sizes.take(8)?;
    let frames = sizes.u32()?;
    let mut edits = Fields::new(child(child(video, *b"edts")?, *b"elst")?);
    let (version, _) = edits.version_and_flags()?;
    let mut shown = 0;
    for _ in 0..edits.u32()? {
        shown += edits.sized(version)?;
        edits.take(if version == 1 { 12 } else { 8 })?;
    }
    Some(Clip { frames, shown: shown as f64 / f64::from(timescale) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    /// What ffmpeg makes of its test picture.
    fn made(options: &[&str], name: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(name);
        let scene = ["-v", "error", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=25:duration=2"];
        let status = Command::new("ffmpeg").args(scene).args(options).arg(&file).status().unwrap();
        assert!(status.success());
        bytes(&file).unwrap()
    }

    #[test]
    fn a_picture_is_judged_by_its_own_markers() {
        let jpeg = made(&["-frames:v", "1"], "a.jpg");
        assert_eq!(jpeg_size(&jpeg), Some((320, 240)));
        assert_eq!(jpeg_size(&jpeg[..jpeg.len() - 1]), None);
        assert_eq!(jpeg_size(&jpeg[2..]), None);
        assert_eq!(jpeg_size(&[0xff, 0xd8, 0xff, 0xe0, 0xff, 0xff, 0xff, 0xd9]), None);
    }

    #[test]
    fn a_clip_is_judged_by_its_own_boxes() {
        let mp4 = made(&["-f", "lavfi", "-i", "sine=duration=2", "-c:v", "libx264", "-c:a", "aac"], "a.mp4");
        assert_eq!(clip(&mp4), Some(Clip { frames: 50, shown: 2.0 }));
        assert_eq!(clip(&mp4[..mp4.len() / 2]), None);
        assert_eq!(clip(b"no boxes at all"), None);
    }
}

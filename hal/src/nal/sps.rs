//! Sequence parameter sets, as far as the container needs them.
//!
//! Promises bounds-checked reading of hostile input: a set that makes no sense yields nothing. H.264 is read by
//! `h264-reader`, H.265 here (ITU-T H.265 section 7.3.2.2), up to the reordering limits.

use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::nal::{Nal, RefNal};

use super::Unescaped;
use crate::media::VideoCodec;

/// What a sequence parameter set says about its pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Displayed width in pixels, cropped.
    pub width: u32,
    /// Displayed height in pixels, cropped.
    pub height: u32,
    /// Most frames that precede any frame in decoding order and follow it in output order; `None` if not said.
    pub reorder: Option<u8>,
}

/// Largest edge that is believed, in pixels; levels allow 16,888 (H.265 A.4.1).
const MAX_EDGE: u32 = 16_888;

/// Reads the first sequence parameter set of a decoder configuration record (`avcC` or `hvcC` contents).
#[must_use]
pub fn picture(codec: VideoCodec, config: &[u8]) -> Option<Picture> {
    let found = match codec {
        VideoCodec::H264 => h264(avcc_sps(config)?),
        VideoCodec::H265 => h265(hvcc_sps(config)?),
    }?;
    let plausible = |n: u32| (1..=MAX_EDGE).contains(&n);
    (plausible(found.width) && plausible(found.height)).then_some(found)
}

/// ISO/IEC 14496-15 section 5.3.3.1.2.
fn avcc_sps(config: &[u8]) -> Option<&[u8]> {
    let sets = config.get(6..)?;
    (config[5] & 0x1f > 0).then_some(())?;
    prefixed(sets).map(|(sps, _)| sps)
}

/// ISO/IEC 14496-15 section 8.3.3.1.2: arrays of NAL units by type.
fn hvcc_sps(config: &[u8]) -> Option<&[u8]> {
    let mut rest = config.get(23..)?;
    for _ in 0..config[22] {
        let ([kind, high, low], mut units) = rest.split_first_chunk::<3>()?;
        for _ in 0..u16::from_be_bytes([*high, *low]) {
            let (unit, after) = prefixed(units)?;
            if kind & 0x3f == 33 {
                return Some(unit);
            }
            units = after;
        }
        rest = units;
    }
    None
}

/// A unit with a 2-byte length, and what follows it.
fn prefixed(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn h264(sps: &[u8]) -> Option<Picture> {
    // The reader wants at least the header byte.
    (sps.len() >= 4).then_some(())?;
    let sps = SeqParameterSet::from_bits(RefNal::new(sps, &[], true).rbsp_bits()).ok()?;
    let (width, height) = sps.pixel_dimensions().ok()?;
    let said = sps.vui_parameters.as_ref().and_then(|v| v.bitstream_restrictions.as_ref());
    let in_order = matches!(sps.pic_order_cnt, h264_reader::nal::sps::PicOrderCntType::TypeTwo);
    let baseline = sps.profile_idc == h264_reader::nal::sps::ProfileIdc::from(66);
    let reorder = match said {
        Some(r) => u8::try_from(r.max_num_reorder_frames).ok(),
        // Order count type 2 and the baseline profiles have output in decoding order (H.264 8.2.1.3, A.2.1).
        None if in_order || baseline => Some(0),
        None => None,
    };
    Some(Picture { width, height, reorder })
}

fn h265(sps: &[u8]) -> Option<Picture> {
    let mut bits = Bits { bytes: Unescaped { rest: sps.get(2..)?, zeros: 0 }, byte: 0, left: 0 };
    bits.skip(4)?; // sps_video_parameter_set_id
    let layers = bits.read(3)?; // sps_max_sub_layers_minus1
    bits.skip(1)?;
    profile_tier_level(&mut bits, layers)?;
    bits.ue()?; // sps_seq_parameter_set_id
    let chroma = bits.ue()?;
    if chroma == 3 {
        bits.skip(1)?; // separate_colour_plane_flag
    }
    let (width, height) = (bits.ue()?, bits.ue()?);
    let mut crop = [0u32; 4];
    if bits.read(1)? == 1 {
        for edge in &mut crop {
            *edge = bits.ue()?;
        }
    }
    bits.ue()?; // bit_depth_luma_minus8
    bits.ue()?; // bit_depth_chroma_minus8
    bits.ue()?; // log2_max_pic_order_cnt_lsb_minus4
    let every_layer = bits.read(1)? == 1;
    let mut reorder = 0;
    for _ in if every_layer { 0..=layers } else { layers..=layers } {
        bits.ue()?; // sps_max_dec_pic_buffering_minus1
        reorder = bits.ue()?; // sps_max_num_reorder_pics of the highest sub-layer
        bits.ue()?; // sps_max_latency_increase_plus1
    }
    // SubWidthC and SubHeightC (table 6-1); cropping counts in chroma samples.
    let (unit_x, unit_y) = match chroma {
        1 => (2, 2),
        2 => (2, 1),
        0 | 3 => (1, 1),
        _ => return None,
    };
    let cropped = |full: u32, a: u32, b: u32, unit: u32| full.checked_sub(a.checked_add(b)?.checked_mul(unit)?);
    Some(Picture {
        width: cropped(width, crop[0], crop[1], unit_x)?,
        height: cropped(height, crop[2], crop[3], unit_y)?,
        reorder: Some(u8::try_from(reorder).ok().filter(|r| *r <= 16)?),
    })
}

/// H.265 section 7.3.3; nothing in it is needed here.
fn profile_tier_level(bits: &mut Bits<'_>, layers: u32) -> Option<()> {
    bits.skip(88 + 8)?;
    let mut present = Vec::new();
    for _ in 0..layers {
        present.push((bits.read(1)?, bits.read(1)?));
    }
    if layers > 0 {
        bits.skip(2 * (8 - layers))?;
    }
    for (profile, level) in present {
        bits.skip(88 * profile + 8 * level)?;
    }
    Some(())
}

/// Bits of a NAL unit, most significant first; `None` at its end.
struct Bits<'a> {
    bytes: Unescaped<'a>,
    byte: u8,
    left: u8,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u32> {
        if self.left == 0 {
            self.byte = self.bytes.next()?;
            self.left = 8;
        }
        self.left -= 1;
        Some(u32::from(self.byte >> self.left & 1))
    }

    /// Up to 32 bits.
    fn read(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0u32, |value, _| Some(value << 1 | self.bit()?))
    }

    fn skip(&mut self, count: u32) -> Option<()> {
        (0..count).try_for_each(|_| self.bit().map(|_| ()))
    }

    /// Exp-Golomb (H.265 section 9.2).
    fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        (1u32 << zeros).checked_sub(1)?.checked_add(self.read(zeros)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// The configuration record of a stream that ffmpeg encodes.
    fn encoded(dir: &Path, codec: &[&str], size: &str) -> Vec<u8> {
        let file = dir.join("a.mp4");
        let source = format!("testsrc=size={size}:rate=25");
        let run = Command::new("ffmpeg")
            .args(["-v", "error", "-y", "-f", "lavfi", "-i", &source, "-frames:v", "12", "-c:v"])
            .args(codec)
            .arg(&file)
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let bytes = std::fs::read(&file).unwrap();
        let name: &[u8] = if codec[0] == "libx264" { b"avcC" } else { b"hvcC" };
        let at = bytes.windows(4).position(|w| w == name).unwrap();
        let size = u32::from_be_bytes(bytes[at - 4..at].try_into().unwrap()) as usize;
        bytes[at + 4..at - 4 + size].to_vec()
    }

    #[test]
    fn sizes_are_cropped_and_reordering_is_as_encoded() {
        let dir = tempfile::tempdir().unwrap();
        let h264 = |args: &[&str]| picture(VideoCodec::H264, &encoded(dir.path(), args, "322x182")).unwrap();
        let h265 = |args: &[&str]| picture(VideoCodec::H265, &encoded(dir.path(), args, "322x182")).unwrap();
        let with = |reorder| Picture { width: 322, height: 182, reorder: Some(reorder) };
        let p = "yuv420p";
        assert_eq!(h264(&["libx264", "-pix_fmt", p, "-bf", "0"]), with(0));
        assert_eq!(
            h264(&["libx264", "-pix_fmt", p, "-bf", "2", "-b_strategy", "0", "-x264-params", "b-pyramid=none"]),
            with(1)
        );
        assert_eq!(h264(&["libx264", "-pix_fmt", p, "-profile:v", "baseline"]), with(0));
        let quiet = "log-level=error";
        assert_eq!(h265(&["libx265", "-pix_fmt", p, "-x265-params", &format!("{quiet}:bframes=0")]), with(0));
        assert_eq!(
            h265(&["libx265", "-pix_fmt", p, "-x265-params", &format!("{quiet}:bframes=3:b-adapt=0:b-pyramid=1")]),
            with(2)
        );
        let deep = h265(&["libx265", "-pix_fmt", "yuv422p10le", "-x265-params", &format!("{quiet}:bframes=0")]);
        assert_eq!(deep, with(0));
    }

    proptest! {
        #[test]
        fn hostile_sets_yield_nothing_or_something_plausible(
            head in proptest::collection::vec(any::<u8>(), 0..40),
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let avcc = [&[1, 66, 0, 30, 255, 225, 0, body.len() as u8][..], &body].concat();
            let hvcc = [&[0u8; 22][..], &[1, 33, 0, 1, 0, body.len() as u8], &body].concat();
            for (codec, config) in [
                (VideoCodec::H264, &avcc),
                (VideoCodec::H265, &hvcc),
                (VideoCodec::H264, &head),
                (VideoCodec::H265, &[&head[..], &body].concat()),
            ] {
                if let Some(p) = picture(codec, config) {
                    prop_assert!(p.width > 0 && p.width <= MAX_EDGE && p.height > 0 && p.height <= MAX_EDGE);
                }
            }
        }
    }
}

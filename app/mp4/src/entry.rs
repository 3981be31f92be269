//! Sample entries: which codec, with which decoder configuration.
//!
//! Writes and reads `avc1`, `hvc1` (parameter sets only in the entry), `mp4a`, `alaw` and `ulaw` (registered at mp4ra.org, from
//! Apple's QuickTime File Format). Never looks into the configuration records beyond copying them.

use crate::boxes::{BoxWriter, Children, Fields, FourCc, child};

/// A video codec that can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VideoCodec {
    /// ISO/IEC 14496-10.
    H264,
    /// ISO/IEC 23008-2.
    H265,
}

impl VideoCodec {
    /// `h264` or `h265`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::H265 => "h265",
        }
    }

    fn fourcc(self) -> (FourCc, FourCc) {
        match self {
            Self::H264 => (*b"avc1", *b"avcC"),
            Self::H265 => (*b"hvc1", *b"hvcC"),
        }
    }
}

/// Colour description as of ISO/IEC 23091-2 (`colr` of type `nclx`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nclx {
    /// Colour primaries.
    pub primaries: u16,
    /// Transfer characteristics.
    pub transfer: u16,
    /// Matrix coefficients.
    pub matrix: u16,
    /// Full range instead of limited.
    pub full_range: bool,
}

/// How G.711 bends its scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Law {
    /// A-law, most of the world.
    A,
    /// µ-law, North America and Japan.
    Mu,
}

impl Law {
    fn fourcc(self) -> FourCc {
        match self {
            Self::A => *b"alaw",
            Self::Mu => *b"ulaw",
        }
    }
}

/// How the samples of a track are coded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SampleEntry {
    /// Moving pictures.
    Video {
        /// The codec.
        codec: VideoCodec,
        /// Coded width after cropping, in pixels.
        width: u16,
        /// Coded height after cropping, in pixels.
        height: u16,
        /// Pixel aspect ratio; (1, 1) writes no `pasp`.
        pixel_aspect: (u32, u32),
        /// Contents of `avcC` or `hvcC`.
        config: Vec<u8>,
        /// Only written when given.
        colour: Option<Nclx>,
    },
    /// MPEG-4 AAC.
    Aac {
        /// Samples per second.
        sample_rate: u32,
        /// Channels.
        channels: u16,
        /// AudioSpecificConfig.
        config: Vec<u8>,
    },
    /// ITU-T G.711, a byte for each sample of each channel. A sample of the track is a packet of them.
    G711 {
        /// A-law or µ-law.
        law: Law,
        /// Samples per second.
        sample_rate: u32,
        /// Channels.
        channels: u16,
    },
}

impl SampleEntry {
    /// Whether both can be entries of one track: same codec and size (video), or same rate and channels (audio).
    #[must_use]
    pub fn can_share_track(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Video { codec: c1, width: w1, height: h1, pixel_aspect: p1, .. },
                Self::Video { codec: c2, width: w2, height: h2, pixel_aspect: p2, .. },
            ) => c1 == c2 && (w1, h1, p1) == (w2, h2, p2),
            (Self::Aac { sample_rate: r1, channels: c1, .. }, Self::Aac { sample_rate: r2, channels: c2, .. }) => {
                (r1, c1) == (r2, c2)
            }
            (Self::G711 { .. }, Self::G711 { .. }) => self == other,
            _ => false,
        }
    }

    /// Width and height on the screen, for `tkhd`: square pixels, the height kept. (0, 0) for sound.
    #[must_use]
    pub fn display_size(&self) -> (u32, u32) {
        match self {
            Self::Video { width, height, pixel_aspect: (n, d), .. } => {
                let wide = u64::from(*width) * u64::from(*n) / u64::from((*d).max(1));
                (u32::try_from(wide).unwrap_or(u32::MAX), u32::from(*height))
            }
            Self::Aac { .. } | Self::G711 { .. } => (0, 0),
        }
    }

    /// The code of the entry's box.
    pub(crate) fn fourcc(&self) -> FourCc {
        match self {
            Self::Video { codec, .. } => codec.fourcc().0,
            Self::Aac { .. } => *b"mp4a",
            Self::G711 { law, .. } => law.fourcc(),
        }
    }

    pub(crate) fn write(&self, w: &mut BoxWriter) {
        match self {
            Self::Video { codec, width, height, pixel_aspect, config, colour } => {
                let (entry, record) = codec.fourcc();
                w.nested(entry, |w| {
                    w.zeros(6);
                    w.u16(1);
                    w.zeros(16);
                    w.u16(*width);
                    w.u16(*height);
                    w.u32(0x0048_0000);
                    w.u32(0x0048_0000);
                    w.u32(0);
                    w.u16(1);
                    w.zeros(32);
                    w.u16(0x18);
                    w.u16(0xffff);
                    w.nested(record, |w| w.raw(config));
                    if let Some(c) = colour {
                        w.nested(*b"colr", |w| {
                            w.raw(b"nclx");
                            w.u16(c.primaries);
                            w.u16(c.transfer);
                            w.u16(c.matrix);
                            w.u8(u8::from(c.full_range) << 7);
                        });
                    }
                    if pixel_aspect.0 != pixel_aspect.1 {
                        w.nested(*b"pasp", |w| {
                            w.u32(pixel_aspect.0);
                            w.u32(pixel_aspect.1);
                        });
                    }
                });
            }
            Self::Aac { sample_rate, channels, config } => w.nested(self.fourcc(), |w| {
                write_sound(w, *sample_rate, *channels);
                w.full(*b"esds", 0, 0, |w| write_es_descriptor(w, config));
            }),
            Self::G711 { sample_rate, channels, .. } => {
                w.nested(self.fourcc(), |w| write_sound(w, *sample_rate, *channels));
            }
        }
    }

    /// Parses one entry of an `stsd`. `None` if it is none that this crate writes, or is cut short.
    #[must_use]
    pub fn parse(kind: FourCc, body: &[u8], timescale: u32) -> Option<Self> {
        match &kind {
            b"avc1" => Self::parse_video(VideoCodec::H264, body),
            b"hvc1" => Self::parse_video(VideoCodec::H265, body),
            b"mp4a" => Self::parse_aac(body, timescale),
            b"alaw" => Self::parse_g711(Law::A, body, timescale),
            b"ulaw" => Self::parse_g711(Law::Mu, body, timescale),
            _ => None,
        }
    }

    fn parse_video(codec: VideoCodec, body: &[u8]) -> Option<Self> {
        let mut f = Fields::new(body);
        f.take(24)?;
        let (width, height) = (f.u16()?, f.u16()?);
        f.take(50)?;
        let boxes = f.rest();
        let config = child(boxes, codec.fourcc().1)?.to_vec();
        let pixel_aspect = child(boxes, *b"pasp").and_then(|b| {
            let mut f = Fields::new(b);
            f.u32().zip(f.u32()).filter(|(n, d)| *n > 0 && *d > 0 && n != d)
        });
        let colour = child(boxes, *b"colr").and_then(|b| {
            let mut f = Fields::new(b);
            (f.array()? == *b"nclx").then_some(())?;
            let (primaries, transfer, matrix) = (f.u16()?, f.u16()?, f.u16()?);
            Some(Nclx { primaries, transfer, matrix, full_range: f.u8()? & 0x80 != 0 })
        });
        Some(Self::Video { codec, width, height, pixel_aspect: pixel_aspect.unwrap_or((1, 1)), config, colour })
    }

    fn parse_aac(body: &[u8], timescale: u32) -> Option<Self> {
        let mut f = Fields::new(body);
        let channels = sound_channels(&mut f)?;
        let (_, esds) = Children::new(f.rest()).find(|(k, _)| k == b"esds")?;
        let config = specific_info(esds.get(4..)?)?.to_vec();
        Some(Self::Aac { sample_rate: timescale, channels, config })
    }

    fn parse_g711(law: Law, body: &[u8], timescale: u32) -> Option<Self> {
        let channels = sound_channels(&mut Fields::new(body))?;
        Some(Self::G711 { law, sample_rate: timescale, channels })
    }
}

/// The fixed part of an `AudioSampleEntry` (ISO/IEC 14496-12, 12.2.3).
fn write_sound(w: &mut BoxWriter, sample_rate: u32, channels: u16) {
    w.zeros(6);
    w.u16(1);
    w.zeros(8);
    w.u16(channels);
    w.u16(16);
    w.u32(0);
    // 16.16; rates that do not fit are 0 here and stand in the timescale, and in the AudioSpecificConfig.
    w.u32(u16::try_from(sample_rate).map_or(0, |r| u32::from(r) << 16));
}

/// Reads that part.
fn sound_channels(f: &mut Fields<'_>) -> Option<u16> {
    f.take(16)?;
    let channels = f.u16()?;
    f.take(10)?;
    Some(channels)
}

/// ES_Descriptor (ISO/IEC 14496-1, 7.2.6.5) with the fixed SL configuration that MP4 asks for.
fn write_es_descriptor(w: &mut BoxWriter, config: &[u8]) {
    let specific = config.len();
    let decoder = 13 + 5 + specific;
    write_descriptor_head(w, 3, 3 + 5 + decoder + 5 + 1);
    w.u16(0);
    w.u8(0);
    write_descriptor_head(w, 4, decoder);
    w.u8(0x40);
    w.u8(0x15);
    w.zeros(3);
    w.u32(0);
    w.u32(0);
    write_descriptor_head(w, 5, specific);
    w.raw(config);
    write_descriptor_head(w, 6, 1);
    w.u8(2);
}

/// Tag and length, the length always in four bytes so that sizes can be added up beforehand.
fn write_descriptor_head(w: &mut BoxWriter, tag: u8, len: usize) {
    w.u8(tag);
    for shift in [21, 14, 7] {
        w.u8(0x80 | (len >> shift) as u8 & 0x7f);
    }
    w.u8(len as u8 & 0x7f);
}

fn descriptor<'a>(f: &mut Fields<'a>, tag: u8) -> Option<Fields<'a>> {
    (f.u8()? == tag).then_some(())?;
    let mut len = 0_usize;
    for _ in 0..4 {
        let b = f.u8()?;
        len = len << 7 | usize::from(b & 0x7f);
        if b & 0x80 == 0 {
            break;
        }
    }
    f.take(len).map(Fields::new)
}

fn specific_info(esds: &[u8]) -> Option<&[u8]> {
    let mut es = descriptor(&mut Fields::new(esds), 3)?;
    es.take(3)?;
    let mut decoder = descriptor(&mut es, 4)?;
    (decoder.u8()? == 0x40).then_some(())?;
    decoder.take(12)?;
    descriptor(&mut decoder, 5).map(|f| f.rest())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn round_trip(entry: &SampleEntry, timescale: u32) -> Option<SampleEntry> {
        let mut w = BoxWriter::default();
        entry.write(&mut w);
        let bytes = w.into_bytes();
        let (kind, body) = Children::new(&bytes).next()?;
        for n in 0..body.len() {
            // Cut anywhere: no panic, and never a different entry.
            let cut = SampleEntry::parse(kind, &body[..n], timescale);
            assert!(cut.is_none() || n > 86, "cut at {n} parsed");
        }
        SampleEntry::parse(kind, body, timescale)
    }

    #[test]
    fn video_entries_round_trip() {
        let mut entry = SampleEntry::Video {
            codec: VideoCodec::H264,
            width: 1920,
            height: 1080,
            pixel_aspect: (1, 1),
            config: vec![1, 100, 0, 40, 0xff, 0xe1],
            colour: None,
        };
        assert_eq!(round_trip(&entry, 90_000), Some(entry.clone()));
        if let SampleEntry::Video { codec, pixel_aspect, colour, .. } = &mut entry {
            *codec = VideoCodec::H265;
            *pixel_aspect = (4, 3);
            *colour = Some(Nclx { primaries: 1, transfer: 1, matrix: 1, full_range: true });
        }
        assert_eq!(round_trip(&entry, 90_000), Some(entry.clone()));
        assert_eq!(entry.display_size(), (2560, 1080));
    }

    #[test]
    fn audio_entries_round_trip_with_rates_beyond_16_bits() {
        for sample_rate in [48_000, 96_000] {
            let entry = SampleEntry::Aac { sample_rate, channels: 2, config: vec![0x11, 0x90] };
            assert_eq!(round_trip(&entry, sample_rate), Some(entry));
        }
        for law in [Law::A, Law::Mu] {
            let entry = SampleEntry::G711 { law, sample_rate: 8_000, channels: 1 };
            assert_eq!(round_trip(&entry, 8_000), Some(entry.clone()));
            let other = SampleEntry::G711 { law, sample_rate: 16_000, channels: 1 };
            assert!(entry.can_share_track(&entry) && !entry.can_share_track(&other));
        }
    }
}

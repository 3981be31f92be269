//! The messages between recorder and worker.
//!
//! A message is its length (u32, little endian, without itself), a byte that says what it is, and its fields, little endian.
//! Promises that reading never panics and takes no more memory than [`LONGEST`], whatever comes. Pure: bytes in, messages out.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mos_hal::clock::Mono;
use mos_hal::codecs::families::Memory;
use mos_hal::media::{AccessUnit, AudioFormat, FrameKind, Law, Rotation, TrackFormat, VideoCodec, VideoFormat};
use mos_hal::shared::{Fact, Lesson};
use mos_hal::source::{LeftOutBy, Share, SourceError};

/// Longest message in bytes: a keyframe of an 8K camera fits with room to spare.
pub(super) const LONGEST: usize = 32 << 20;
/// Longest codec configuration, and longest text, in bytes.
const LONGEST_CONFIG: usize = 64 << 10;
const LONGEST_TEXT: usize = 1 << 10;
/// Largest picture edge in pixels, as for raw sources.
const LARGEST_EDGE: u32 = 16_384;

/// How far from now a time of a worker may lie.
const FAR: Duration = Duration::from_mins(1);

const FORMAT: u8 = 1;
const UNIT: u8 = 2;
const LEFT_OUT: u8 = 3;
const ENDED: u8 = 4;
const MEMORY: u8 = 5;
const TAKE: u8 = 6;
const ENCODE: u8 = 7;
const LEARNED: u8 = 8;
const CODED: u8 = 9;
const AWAITS: u8 = 10;
const WORK: u8 = 64;
const KEYFRAME: u8 = 65;
const ANSWER: u8 = 66;
const THIN: u8 = 67;

const FACTS: [Fact; 2] = [Fact::InSystemMemory, Fact::WithoutNv12];

/// Picture tracks and sound tracks have a format each.
pub(super) const VIDEO: u8 = 0;
pub(super) const AUDIO: u8 = 1;

/// How sound is coded.
const AAC: u8 = 0;
const A_LAW: u8 = 1;
const MU_LAW: u8 = 2;

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    /// From now on the format of that track.
    Format(u8, TrackFormat),
    /// A unit in the format of its track.
    Unit(Unit),
    /// Pictures that were left out.
    LeftOut { from: Mono, to: Mono, pictures: u64, by: LeftOutBy },
    /// The source is over.
    Ended(End, String),
    /// Where raw pictures are.
    Memory(Memory),
    /// Whether its camera is the one to connect, and has not yet.
    Awaits(bool),
    /// How many pictures are coded, and what that takes.
    Coded(Share),
    /// Asks for a camera; see [`mos_hal::shared`]. Questions have a number each.
    Take(u32, String),
    /// Asks for a part of the encoder, in pixels per second.
    Encode(u32, String, u64),
    /// What was learned of a camera.
    Learned(Lesson),
    /// To the worker: what to do, as JSON.
    Work(Vec<u8>),
    /// To the worker: a keyframe is wanted.
    Keyframe,
    /// To the worker: of so many pictures one is coded from now on.
    Thin(u32),
    /// To the worker: whether it gets what it asked for with that number, or why not.
    Answer(u32, Result<(), String>),
}

/// An access unit without its format.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unit {
    pub(super) kind: FrameKind,
    pub(super) pts: Option<Mono>,
    pub(super) duration: Option<u64>,
    pub(super) arrival: Mono,
    pub(super) discontinuity: bool,
    pub(super) data: Bytes,
}

/// How a source ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Absent,
    Refused,
    Unsupported,
    Broken,
    Ended,
    Exhausted,
}

impl End {
    const ALL: [Self; 6] = [Self::Absent, Self::Refused, Self::Unsupported, Self::Broken, Self::Ended, Self::Exhausted];

    pub(super) fn of(error: &SourceError) -> (Self, String) {
        match error {
            SourceError::Absent { detail, .. } => (Self::Absent, detail.clone()),
            SourceError::Refused { detail, .. } => (Self::Refused, detail.clone()),
            SourceError::Unsupported { detail, .. } => (Self::Unsupported, detail.clone()),
            SourceError::Exhausted { detail, .. } => (Self::Exhausted, detail.clone()),
            SourceError::Broken { detail, .. } => (Self::Broken, detail.clone()),
            SourceError::Ended { .. } => (Self::Ended, String::new()),
        }
    }

    pub(super) fn into_error(self, what: String, detail: String) -> SourceError {
        match self {
            Self::Absent => SourceError::Absent { what, detail },
            Self::Refused => SourceError::Refused { what, detail },
            Self::Unsupported => SourceError::Unsupported { what, detail },
            Self::Exhausted => SourceError::Exhausted { what, detail },
            Self::Broken => SourceError::Broken { what, detail },
            Self::Ended => SourceError::Ended { what },
        }
    }
}

const KINDS: [FrameKind; 7] = [
    FrameKind::Idr,
    FrameKind::Bla,
    FrameKind::Cra,
    FrameKind::Rasl,
    FrameKind::RecoveryPoint,
    FrameKind::Delta,
    FrameKind::Audio,
];

/// What was sent is no message.
#[derive(Debug, thiserror::Error)]
#[error("what came is no message of a worker")]
pub(super) struct Malformed;

/// The message as bytes, head and data: data is not copied together.
pub(super) fn write(message: &Message) -> (Vec<u8>, Bytes) {
    let mut head = vec![0; 4];
    let mut tail = Bytes::new();
    match message {
        Message::Format(track, format) => {
            head.extend([FORMAT, *track]);
            tail = write_format(format, &mut head);
        }
        Message::Unit(unit) => {
            let kind = KINDS.iter().position(|k| *k == unit.kind).unwrap_or(KINDS.len() - 1);
            let flags = u8::from(unit.pts.is_some())
                | u8::from(unit.duration.is_some()) << 1
                | u8::from(unit.discontinuity) << 2;
            head.extend([UNIT, kind as u8, flags]);
            head.extend(unit.pts.unwrap_or_default().0.to_le_bytes());
            head.extend(unit.duration.unwrap_or_default().to_le_bytes());
            head.extend(unit.arrival.0.to_le_bytes());
            tail = unit.data.clone();
        }
        Message::LeftOut { from, to, pictures, by } => {
            head.extend([LEFT_OUT, u8::from(*by == LeftOutBy::Camera)]);
            head.extend(from.0.to_le_bytes());
            head.extend(to.0.to_le_bytes());
            head.extend(pictures.to_le_bytes());
        }
        Message::Ended(end, text) => {
            head.extend([ENDED, End::ALL.iter().position(|e| e == end).unwrap_or_default() as u8]);
            tail = short(text);
        }
        Message::Memory(memory) => head.extend([MEMORY, u8::from(*memory == Memory::Dmabuf)]),
        Message::Awaits(awaits) => head.extend([AWAITS, u8::from(*awaits)]),
        Message::Work(work) => {
            head.push(WORK);
            tail = Bytes::copy_from_slice(work);
        }
        Message::Keyframe => head.push(KEYFRAME),
        Message::Thin(one_in) => {
            head.push(THIN);
            head.extend(one_in.to_le_bytes());
        }
        Message::Coded(Share { one_in, wanted, needs, budget }) => {
            head.push(CODED);
            head.extend(one_in.to_le_bytes());
            head.extend(wanted.to_le_bytes());
            head.extend(needs.to_le_bytes());
            head.extend(budget.to_le_bytes());
        }
        Message::Take(number, camera) => {
            head.push(TAKE);
            head.extend(number.to_le_bytes());
            tail = short(camera);
        }
        Message::Encode(number, camera, pixels) => {
            head.push(ENCODE);
            head.extend(number.to_le_bytes());
            head.extend(pixels.to_le_bytes());
            tail = short(camera);
        }
        Message::Learned(Lesson { camera, fact, holds }) => {
            let fact = FACTS.iter().position(|f| f == fact).unwrap_or_default();
            head.extend([LEARNED, fact as u8, u8::from(*holds)]);
            tail = short(camera);
        }
        Message::Answer(number, answer) => {
            head.extend([ANSWER, u8::from(answer.is_ok())]);
            head.extend(number.to_le_bytes());
            tail = answer.as_ref().map_or_else(|why| short(why), |()| Bytes::new());
        }
    }
    let length = u32::try_from(head.len() - 4 + tail.len()).unwrap_or(u32::MAX);
    head[..4].copy_from_slice(&length.to_le_bytes());
    (head, tail)
}

/// A text within [`LONGEST_TEXT`].
fn short(text: &str) -> Bytes {
    Bytes::from(text.chars().take(LONGEST_TEXT / 4).collect::<String>().into_bytes())
}

fn write_format(format: &TrackFormat, head: &mut Vec<u8>) -> Bytes {
    match format {
        TrackFormat::Video(v) => {
            head.push(u8::from(v.codec == VideoCodec::H265));
            for number in [v.width, v.height, v.pixel_aspect.0, v.pixel_aspect.1] {
                head.extend(number.to_le_bytes());
            }
            head.push(v.reorder);
            head.extend(v.frame_duration.unwrap_or_default().to_le_bytes());
            v.config.clone()
        }
        TrackFormat::Audio(AudioFormat::Aac { sample_rate, channels, config }) => {
            head.push(AAC);
            head.extend(sample_rate.to_le_bytes());
            head.extend(channels.to_le_bytes());
            config.clone()
        }
        TrackFormat::Audio(AudioFormat::G711 { law, sample_rate, channels }) => {
            head.push(if *law == Law::A { A_LAW } else { MU_LAW });
            head.extend(sample_rate.to_le_bytes());
            head.extend(channels.to_le_bytes());
            Bytes::new()
        }
    }
}

/// Reads one message; `None` at the end of the stream between two messages.
pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Result<Message, Malformed>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length == 0 || length > LONGEST {
        return Ok(Some(Err(Malformed)));
    }
    let mut body = vec![0; length];
    match from.read_exact(&mut body) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    Ok(Some(parse(Bytes::from(body)).ok_or(Malformed)))
}

/// Takes in what a worker says; for fuzzing.
pub(crate) fn hear(mut data: &[u8]) {
    while let Ok(Some(Ok(message))) = read(&mut data) {
        if let Message::Ended(_, text) | Message::Take(_, text) | Message::Encode(_, text, _) = &message {
            assert!(!text.contains(char::is_control), "{text:?}");
        }
        let (mut bytes, tail) = write(&message);
        bytes.extend(&tail);
        // Texts are shortened, and those of bytes that are none replaced.
        let again = read(&mut bytes.as_slice());
        assert!(matches!(again, Ok(Some(Ok(_)))), "{message:?} is no message when it is sent on");
    }
}

/// The fields of a message, one after another.
struct Fields(Bytes);

impl Fields {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        if self.0.len() < N {
            return None;
        }
        self.0.split_to(N).as_ref().try_into().ok()
    }
    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|b| b[0])
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
    fn mono(&mut self) -> Option<Mono> {
        self.take().map(|b| Mono(i64::from_le_bytes(b)))
    }
    fn flag(&mut self) -> Option<bool> {
        self.u8().filter(|flag| *flag < 2).map(|flag| flag == 1)
    }
    /// A text that may be logged.
    fn text(self) -> Option<String> {
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        Some(String::from_utf8_lossy(&self.rest(LONGEST_TEXT)?).chars().map(shown).collect())
    }
    fn rest(self, longest: usize) -> Option<Bytes> {
        Some(self.0).filter(|rest| rest.len() <= longest)
    }
}

fn parse(body: Bytes) -> Option<Message> {
    let mut fields = Fields(body);
    let message = match fields.u8()? {
        FORMAT => return read_format(fields),
        UNIT => {
            let kind = *KINDS.get(usize::from(fields.u8()?))?;
            let flags = fields.u8().filter(|flags| *flags < 8)?;
            let (pts, duration, arrival) = (fields.mono()?, fields.u64()?, fields.mono()?);
            Message::Unit(Unit {
                kind,
                pts: (flags & 1 != 0).then_some(pts),
                duration: (flags & 2 != 0).then_some(duration),
                arrival,
                discontinuity: flags & 4 != 0,
                data: fields.0,
            })
        }
        LEFT_OUT => {
            let by = match fields.u8()? {
                0 => LeftOutBy::Encoder,
                1 => LeftOutBy::Camera,
                _ => return None,
            };
            let (from, to, pictures) = (fields.mono()?, fields.mono()?, fields.u64()?);
            if from >= to || pictures == 0 || pictures > 1_000_000 || !fields.0.is_empty() {
                return None;
            }
            Message::LeftOut { from, to, pictures, by }
        }
        ENDED => {
            let end = *End::ALL.get(usize::from(fields.u8()?))?;
            Message::Ended(end, fields.text()?)
        }
        MEMORY => match (fields.u8()?, fields.0.is_empty()) {
            (0, true) => Message::Memory(Memory::System),
            (1, true) => Message::Memory(Memory::Dmabuf),
            _ => return None,
        },
        AWAITS => {
            let awaits = fields.flag()?;
            if fields.0.is_empty() { Message::Awaits(awaits) } else { return None }
        }
        WORK => Message::Work(fields.0.to_vec()),
        CODED => {
            let (one_in, wanted) = (fields.u32()?, fields.u32().filter(|n| *n > 0)?);
            let (needs, budget) = (fields.u64()?, fields.u64()?);
            if !fields.0.is_empty() {
                return None;
            }
            Message::Coded(Share { one_in, wanted, needs, budget })
        }
        TAKE => {
            let number = fields.u32()?;
            Message::Take(number, fields.text()?)
        }
        ENCODE => {
            let (number, pixels) = (fields.u32()?, fields.u64()?);
            Message::Encode(number, fields.text()?, pixels)
        }
        LEARNED => {
            let fact = *FACTS.get(usize::from(fields.u8()?))?;
            let holds = fields.flag()?;
            Message::Learned(Lesson { camera: fields.text()?, fact, holds })
        }
        KEYFRAME if fields.0.is_empty() => Message::Keyframe,
        THIN => {
            let one_in = fields.u32().filter(|n| *n > 0)?;
            if fields.0.is_empty() { Message::Thin(one_in) } else { return None }
        }
        ANSWER => {
            let (granted, number, text) = (fields.flag()?, fields.u32()?, fields.text()?);
            if granted && !text.is_empty() {
                return None;
            }
            Message::Answer(number, if granted { Ok(()) } else { Err(text) })
        }
        _ => return None,
    };
    Some(message)
}

fn read_format(mut fields: Fields) -> Option<Message> {
    match fields.u8()? {
        VIDEO => {
            let codec = match fields.u8()? {
                0 => VideoCodec::H264,
                1 => VideoCodec::H265,
                _ => return None,
            };
            let (width, height) = (fields.u32()?, fields.u32()?);
            let pixel_aspect = (fields.u32()?, fields.u32()?);
            let reorder = fields.u8()?;
            let frame_duration = Some(fields.u64()?).filter(|ns| *ns > 0);
            let config = fields.rest(LONGEST_CONFIG)?;
            let edges = 1..=LARGEST_EDGE;
            if !edges.contains(&width) || !edges.contains(&height) || pixel_aspect.0 == 0 || pixel_aspect.1 == 0 {
                return None;
            }
            // How it is shown is the recorder's matter.
            let rotation = Rotation::None;
            let format = VideoFormat { codec, width, height, pixel_aspect, config, reorder, frame_duration, rotation };
            Some(Message::Format(VIDEO, TrackFormat::Video(format)))
        }
        AUDIO => {
            let coding = fields.u8()?;
            let sample_rate = fields.u32().filter(|rate| (1..=768_000).contains(rate))?;
            let channels = fields.take().map(u16::from_le_bytes).filter(|n| (1..=64).contains(n))?;
            let config = fields.rest(LONGEST_CONFIG)?;
            let format = match coding {
                AAC => AudioFormat::Aac { sample_rate, channels, config },
                A_LAW => AudioFormat::G711 { law: Law::A, sample_rate, channels },
                MU_LAW => AudioFormat::G711 { law: Law::Mu, sample_rate, channels },
                _ => return None,
            };
            Some(Message::Format(AUDIO, TrackFormat::Audio(format)))
        }
        _ => None,
    }
}

impl Unit {
    pub(super) fn of(unit: AccessUnit) -> Self {
        let AccessUnit { kind, pts, duration, arrival, discontinuity, data, format: _ } = unit;
        Self { kind, pts, duration, arrival, discontinuity, data }
    }

    pub(super) fn track(&self) -> u8 {
        if self.kind == FrameKind::Audio { AUDIO } else { VIDEO }
    }

    pub(super) fn in_format(self, format: Arc<TrackFormat>, now: Mono) -> AccessUnit {
        let Self { kind, pts, duration, arrival, discontinuity, data } = self;
        let pts = pts.map(|pts| near(pts, now));
        AccessUnit { format, kind, pts, duration, arrival: near(arrival, now).min(now), discontinuity, data }
    }
}

/// A time that a worker tells, kept within [`FAR`] of `now`: whatever it says, sums and differences stay small.
pub(super) fn near(time: Mono, now: Mono) -> Mono {
    time.clamp(now - FAR, now + FAR)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn p1_no_time_of_a_worker_is_far_from_now() {
        let now = Mono(1_000_000_000_000);
        for absurd in [i64::MIN, i64::MIN + 1, -1, 0, 5, i64::MAX] {
            let unit = Unit {
                kind: FrameKind::Idr,
                pts: Some(Mono(absurd)),
                duration: None,
                arrival: Mono(absurd),
                discontinuity: false,
                data: Bytes::new(),
            };
            let format = crate::record::testing::video_format(0);
            let unit = unit.in_format(format, now);
            assert!(unit.arrival <= now && now.since(unit.arrival) <= 60_000_000_000, "{absurd}: {:?}", unit.arrival);
            assert!(unit.pts.unwrap().since(now).abs() <= 60_000_000_000, "{absurd}: {:?}", unit.pts);
        }
    }

    fn through(message: &Message) -> Message {
        let (mut bytes, tail) = write(message);
        bytes.extend(&tail);
        let mut rest = bytes.as_slice();
        let read = read(&mut rest).unwrap().unwrap().unwrap();
        assert!(rest.is_empty());
        read
    }

    #[test]
    fn p4_every_message_arrives_as_it_was() {
        let video = VideoFormat {
            codec: VideoCodec::H265,
            width: 1920,
            height: 1080,
            pixel_aspect: (4, 3),
            config: Bytes::from_static(b"hvcC"),
            reorder: 2,
            frame_duration: Some(33_333_333),
            rotation: Rotation::None,
        };
        let aac = AudioFormat::Aac { sample_rate: 48_000, channels: 2, config: Bytes::from_static(&[0x11, 0x90]) };
        let g711 = |law| AudioFormat::G711 { law, sample_rate: 8_000, channels: 1 };
        let left_out = Message::LeftOut { from: Mono(-3), to: Mono(9), pictures: 4, by: LeftOutBy::Camera };
        for message in [
            Message::Format(VIDEO, TrackFormat::Video(VideoFormat { frame_duration: None, ..video.clone() })),
            Message::Format(VIDEO, TrackFormat::Video(video)),
            Message::Format(AUDIO, TrackFormat::Audio(aac)),
            Message::Format(AUDIO, TrackFormat::Audio(g711(Law::A))),
            Message::Format(AUDIO, TrackFormat::Audio(g711(Law::Mu))),
            left_out,
            Message::Memory(Memory::Dmabuf),
            Message::Memory(Memory::System),
            Message::Awaits(true),
            Message::Awaits(false),
            Message::Work(b"{}".to_vec()),
            Message::Keyframe,
            Message::Thin(2),
            Message::Coded(Share { one_in: 2, wanted: 1, needs: 1920 * 1080 * 30, budget: u64::MAX }),
            Message::Take(u32::MAX, "libcamera:/base/camera@10".into()),
            Message::Encode(7, "qmmf:0".into(), u64::MAX),
            Message::Learned(Lesson { camera: "qmmf:0".into(), fact: Fact::WithoutNv12, holds: false }),
            Message::Learned(Lesson { camera: "qmmf:0".into(), fact: Fact::InSystemMemory, holds: true }),
            Message::Answer(u32::MAX, Ok(())),
            Message::Answer(7, Err("taken".into())),
        ] {
            assert_eq!(through(&message), message);
        }
        for end in End::ALL {
            assert_eq!(through(&Message::Ended(end, "héllo".into())), Message::Ended(end, "héllo".into()));
        }
        let long = through(&Message::Ended(End::Broken, "é\n".repeat(5000)));
        assert!(
            matches!(long, Message::Ended(End::Broken, text) if text.len() <= LONGEST_TEXT && !text.contains('\n'))
        );
    }

    proptest! {
        #[test]
        fn p1_whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..70) {
            let mut body = vec![kind];
            body.extend(&bytes);
            let _ = parse(Bytes::from(body));
            let mut rest = bytes.as_slice();
            while let Ok(Some(Ok(_))) = read(&mut rest) {}
        }

        #[test]
        fn p4_units_arrive_as_they_were(
            kind in 0usize..7, pts: Option<i64>, duration: Option<u64>, arrival: i64, discontinuity: bool,
            data in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let unit = Unit {
                kind: KINDS[kind], pts: pts.map(Mono), duration, arrival: Mono(arrival), discontinuity, data: data.into(),
            };
            prop_assert_eq!(through(&Message::Unit(unit.clone())), Message::Unit(unit));
        }
    }
}

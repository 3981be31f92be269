//! The messages of the frame bus, byte for byte as `PROTOCOL.md` has them: little-endian, of fixed size, one per datagram.
//!
//! Pure: bytes in, messages out. Decoding takes any bytes and ends with a message or a [`WireError`]; a decoded message
//! encodes to the very bytes that it came from.

use crate::picture::{Fourcc, MAX_PLANES, Modifier, Picture, Plane};

/// Version of the protocol.
pub const VERSION: u16 = 1;
/// First bytes of a hello's body, and of the generation page.
pub const MAGIC: [u8; 8] = *b"MOSFRAME";
/// The longest message.
pub const MAX_MESSAGE: usize = 128;
/// Buffers that a connection can speak of: indices are below it.
pub const MAX_BUFFERS: usize = 64;
/// Descriptors that one buffer may consist of.
pub const MAX_MEMORIES: usize = 4;
/// Bytes of the generation page.
pub const PAGE_SIZE: usize = 4096;
/// Where the generations begin in that page: one `u64` per buffer.
pub const PAGE_GENERATIONS: usize = 64;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not even a head.
    #[error("a message of {0} bytes is shorter than its head of 8")]
    Short(usize),
    /// Its type is unknown.
    #[error("unknown message type {0}")]
    Type(u16),
    /// Another version of the protocol.
    #[error("version {0} of the protocol, this side speaks {VERSION}")]
    Version(u16),
    /// The datagram, the length it tells and the length of its type differ.
    #[error("message type {kind} of {got} bytes tells {told}, and has {wanted}")]
    Length {
        /// Type.
        kind: u16,
        /// Bytes received.
        got: usize,
        /// Bytes told in the head.
        told: u32,
        /// Bytes that a message of this type has.
        wanted: usize,
    },
    /// A field holds what it must not.
    #[error("field {field} holds {value:#x}")]
    Field {
        /// Its name in `PROTOCOL.md`.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
}

/// Which memory a peer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The camera's own buffers.
    Trusted,
    /// Copies in write-sealed memory.
    Other,
}

/// Why a lease was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It was held longer than the lease time.
    Time,
    /// The camera needed the buffer.
    Pressure,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// The sender is done.
    Leaving,
    /// Buffers change; connect again.
    Reconfigured,
    /// As many peers as are allowed.
    Full,
    /// The receiver broke the protocol.
    Violation,
    /// The receiver speaks another version.
    Version,
    /// The receiver may not have frames, or would pin more memory than it may.
    Refused,
}

/// What a subscriber asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Frames that may wait for it; the newest are kept. At least 1; the publisher grants no more than its limit.
    pub waiting: u32,
    /// Frames that it may hold at once. At least 1; the publisher grants no more than its limit.
    pub leases: u32,
    /// Frames in 1000 s that it wants at most; 0 for all.
    pub max_rate: u32,
}

/// What it is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// Frames that may wait.
    pub waiting: u32,
    /// Frames it may hold at once.
    pub leases: u32,
    /// Which memory it gets.
    pub class: Class,
    /// A lease older than this is revoked, in ms.
    pub lease_ms: u32,
}

/// A buffer, once per connection, together with its descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announce {
    /// Its number in frames to come.
    pub index: u8,
    /// How many descriptors come along.
    pub memories: u8,
    /// Whether they are dmabufs: reading by the CPU is to be bracketed with `DMA_BUF_IOCTL_SYNC`.
    pub dmabuf: bool,
    /// Bytes of each memory that may be mapped.
    pub sizes: [u64; MAX_MEMORIES],
}

/// A frame, leased to the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameNote {
    /// Buffer.
    pub index: u8,
    /// Its generation while this frame is in it.
    pub generation: u64,
    /// Number of the frame from its camera; gaps are frames that this peer did not get.
    pub sequence: u64,
    /// Capture time, ns of `CLOCK_MONOTONIC`.
    pub captured: u64,
    /// What the pixels are.
    pub picture: Picture,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// First of a subscriber.
    Hello(Hello),
    /// First of a publisher, with the generation page.
    Welcome(Welcome),
    /// A buffer, with its descriptors.
    Announce(Announce),
    /// A frame.
    Frame(FrameNote),
    /// A lease is returned.
    Release {
        /// Buffer.
        index: u8,
        /// The frame's generation.
        generation: u64,
    },
    /// A lease is taken back; it is still to be returned.
    Revoked {
        /// Buffer.
        index: u8,
        /// The frame's generation.
        generation: u64,
        /// Why.
        reason: Reason,
    },
    /// The connection ends.
    Goodbye(Farewell),
}

/// A message as bytes.
#[derive(Clone, Copy)]
pub struct Encoded {
    bytes: [u8; MAX_MESSAGE],
    len: u8,
}

impl Encoded {
    /// The bytes to send.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn new(kind: u16, len: usize) -> Self {
        let mut this = Self { bytes: [0; MAX_MESSAGE], len: len as u8 };
        this.put(0, &kind.to_le_bytes());
        this.put(2, &VERSION.to_le_bytes());
        this.u32(4, len as u32);
        this
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    fn u64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }
}

const HELLO: u16 = 1;
const WELCOME: u16 = 2;
const ANNOUNCE: u16 = 3;
const FRAME: u16 = 4;
const RELEASE: u16 = 5;
const REVOKED: u16 = 6;
const GOODBYE: u16 = 7;

/// Bytes of a message of each type.
const fn length(kind: u16) -> Option<usize> {
    Some(match kind {
        HELLO | WELCOME => 32,
        ANNOUNCE => 48,
        FRAME => 128,
        RELEASE | REVOKED => 24,
        GOODBYE => 16,
        _ => return None,
    })
}

const fn encoded_length(kind: u16) -> usize {
    match length(kind) {
        Some(length) => length,
        None => MAX_MESSAGE,
    }
}

impl Message {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Encoded {
        let new = |kind| Encoded::new(kind, encoded_length(kind));
        match self {
            Self::Hello(hello) => {
                let mut out = new(HELLO);
                out.put(8, &MAGIC);
                out.u32(16, hello.waiting);
                out.u32(20, hello.leases);
                out.u32(24, hello.max_rate);
                out
            }
            Self::Welcome(welcome) => {
                let mut out = new(WELCOME);
                out.u32(8, welcome.waiting);
                out.u32(12, welcome.leases);
                out.u32(16, if welcome.class == Class::Trusted { 1 } else { 2 });
                out.u32(20, welcome.lease_ms);
                out.u32(24, PAGE_SIZE as u32);
                out.u32(28, PAGE_GENERATIONS as u32);
                out
            }
            Self::Announce(announce) => {
                let mut out = new(ANNOUNCE);
                out.u32(8, u32::from(announce.index));
                out.put(12, &[announce.memories, u8::from(announce.dmabuf)]);
                for (i, size) in announce.sizes.iter().enumerate() {
                    out.u64(16 + 8 * i, *size);
                }
                out
            }
            Self::Frame(note) => {
                let mut out = new(FRAME);
                out.u32(8, u32::from(note.index));
                out.u64(16, note.generation);
                out.u64(24, note.sequence);
                out.u64(32, note.captured);
                out.u32(40, note.picture.fourcc.0);
                out.u32(44, note.picture.planes.len() as u32);
                out.u64(48, note.picture.modifier.0);
                out.u32(56, note.picture.width);
                out.u32(60, note.picture.height);
                for (i, plane) in note.picture.planes.iter().enumerate() {
                    out.u32(64 + 16 * i, plane.memory);
                    out.u32(68 + 16 * i, plane.stride);
                    out.u64(72 + 16 * i, plane.offset);
                }
                out
            }
            Self::Release { index, generation } => {
                let mut out = new(RELEASE);
                out.u32(8, u32::from(*index));
                out.u64(16, *generation);
                out
            }
            Self::Revoked { index, generation, reason } => {
                let mut out = new(REVOKED);
                out.u32(8, u32::from(*index));
                out.u32(12, if *reason == Reason::Time { 1 } else { 2 });
                out.u64(16, *generation);
                out
            }
            Self::Goodbye(farewell) => {
                let mut out = new(GOODBYE);
                out.u32(
                    8,
                    match farewell {
                        Farewell::Leaving => 1,
                        Farewell::Reconfigured => 2,
                        Farewell::Full => 3,
                        Farewell::Violation => 4,
                        Farewell::Version => 5,
                        Farewell::Refused => 6,
                    },
                );
                out
            }
        }
    }

    /// From the bytes of one datagram.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let fields = Fields(bytes);
        if bytes.len() < 8 {
            return Err(WireError::Short(bytes.len()));
        }
        let (kind, version, told) = (fields.u16(0), fields.u16(2), fields.u32(4));
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let wanted = length(kind).ok_or(WireError::Type(kind))?;
        if bytes.len() != wanted || told as usize != wanted {
            return Err(WireError::Length { kind, got: bytes.len(), told, wanted });
        }
        match kind {
            HELLO => fields.hello(),
            WELCOME => fields.welcome(),
            ANNOUNCE => fields.announce(),
            FRAME => fields.frame(),
            RELEASE => {
                fields.zero("reserved", 12, 4)?;
                Ok(Self::Release { index: fields.index()?, generation: fields.u64(16) })
            }
            REVOKED => {
                let reason = match fields.u32(12) {
                    1 => Reason::Time,
                    2 => Reason::Pressure,
                    other => return Err(bad("reason", other)),
                };
                Ok(Self::Revoked { index: fields.index()?, generation: fields.u64(16), reason })
            }
            _ => {
                fields.zero("reserved", 12, 4)?;
                Ok(Self::Goodbye(match fields.u32(8) {
                    1 => Farewell::Leaving,
                    2 => Farewell::Reconfigured,
                    3 => Farewell::Full,
                    4 => Farewell::Violation,
                    5 => Farewell::Version,
                    6 => Farewell::Refused,
                    other => return Err(bad("reason", other)),
                }))
            }
        }
    }
}

fn bad(field: &'static str, value: impl Into<u64>) -> WireError {
    WireError::Field { field, value: value.into() }
}

/// The bytes of a message whose length is known to be right.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// Absent bytes read as zero, so that nothing here can panic.
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    fn zero(&self, field: &'static str, at: usize, bytes: usize) -> Result<(), WireError> {
        match self.0.get(at..at + bytes).and_then(|reserved| reserved.iter().find(|byte| **byte != 0)) {
            Some(byte) => Err(bad(field, *byte)),
            None => Ok(()),
        }
    }

    fn index(&self) -> Result<u8, WireError> {
        let index = self.u32(8);
        if index < MAX_BUFFERS as u32 { Ok(index as u8) } else { Err(bad("index", index)) }
    }

    fn at_least_one(&self, field: &'static str, at: usize) -> Result<u32, WireError> {
        match self.u32(at) {
            0 => Err(bad(field, 0u32)),
            value => Ok(value),
        }
    }

    fn hello(&self) -> Result<Message, WireError> {
        let magic: [u8; 8] = self.array(8);
        if magic != MAGIC {
            return Err(bad("magic", u64::from_le_bytes(magic)));
        }
        self.zero("reserved", 28, 4)?;
        let waiting = self.at_least_one("waiting", 16)?;
        let leases = self.at_least_one("leases", 20)?;
        Ok(Message::Hello(Hello { waiting, leases, max_rate: self.u32(24) }))
    }

    fn welcome(&self) -> Result<Message, WireError> {
        let class = match self.u32(16) {
            1 => Class::Trusted,
            2 => Class::Other,
            other => return Err(bad("class", other)),
        };
        for (field, at, wanted) in [("page_size", 24, PAGE_SIZE), ("page_generations", 28, PAGE_GENERATIONS)] {
            if self.u32(at) as usize != wanted {
                return Err(bad(field, self.u32(at)));
            }
        }
        let waiting = self.at_least_one("waiting", 8)?;
        let leases = self.at_least_one("leases", 12)?;
        Ok(Message::Welcome(Welcome { waiting, leases, class, lease_ms: self.u32(20) }))
    }

    fn announce(&self) -> Result<Message, WireError> {
        let [memories, dmabuf] = self.array(12);
        self.zero("reserved", 14, 2)?;
        if !(1..=MAX_MEMORIES).contains(&usize::from(memories)) {
            return Err(bad("memories", memories));
        }
        if dmabuf > 1 {
            return Err(bad("dmabuf", dmabuf));
        }
        let sizes = std::array::from_fn(|i| self.u64(16 + 8 * i));
        for (i, size) in sizes.iter().enumerate() {
            let used = i < usize::from(memories);
            if used != (*size > 0) || isize::try_from(*size).is_err() {
                return Err(bad("size", *size));
            }
        }
        Ok(Message::Announce(Announce { index: self.index()?, memories, dmabuf: dmabuf == 1, sizes }))
    }

    fn frame(&self) -> Result<Message, WireError> {
        self.zero("reserved", 12, 4)?;
        let (width, height) = (self.at_least_one("width", 56)?, self.at_least_one("height", 60)?);
        let count = self.u32(44) as usize;
        if !(1..=MAX_PLANES).contains(&count) {
            return Err(bad("planes", count as u64));
        }
        self.zero("plane", 64 + 16 * count, 16 * (MAX_PLANES - count))?;
        let mut planes = heapless::Vec::new();
        for at in (0..count).map(|i| 64 + 16 * i) {
            let plane = Plane { memory: self.u32(at), stride: self.u32(at + 4), offset: self.u64(at + 8) };
            if plane.memory as usize >= MAX_MEMORIES {
                return Err(bad("plane.memory", plane.memory));
            }
            let _ = planes.push(plane);
        }
        let fourcc = Fourcc(self.u32(40));
        let picture = Picture { fourcc, modifier: Modifier(self.u64(48)), width, height, planes };
        let index = self.index()?;
        let (generation, sequence, captured) = (self.u64(16), self.u64(24), self.u64(32));
        Ok(Message::Frame(FrameNote { index, generation, sequence, captured, picture }))
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

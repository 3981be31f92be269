//! The MP4 model of MOS. Pure: bytes in, bytes and plans out. It opens, reads and writes nothing itself.
//!
//! A segment is written as fragmented MP4, so that every fragment on disk plays at once, and is turned into an ordinary
//! MP4 in two commits when it closes:
//!
//! ```text
//! 0     ftyp                       never rewritten
//! 32    uuid                       identity, fixed size; checksum of the header's moov
//! 184   free, size 16              first word: the flip; second word: the size of the mdat to be
//! 200   moov + mvex                tracks, no samples
//! …     (moof mdat)*               fragments of 500 ms, each with a checksum
//! …     free + moov                only when closing: all samples, hidden in a free box until the flip;
//! …     moov                       once closed, the header of that free box being the end of the mdat
//! ```
//!
//! Invariants of the format, named in the tests:
//!
//! - **M1** `free` begins at a multiple of 8 below 496, so each of its two words is one aligned 8-byte write.
//! - **M2** A fragment's `moof` describes only bytes of the `mdat` that follows it, and carries a checksum over both.
//! - **M3** Decode times of a track never decrease over the file, and its sample with time 0 is the first video keyframe.
//! - **M4** Only the flip commits a close: while `free` is `free`, the trailing `moov` means nothing to anybody.
//! - **M5** Every state between two synced steps of a close or of a recovery plays every durable sample.
//! - **M6** A reader allocates in proportion to bytes that exist, never to a count that a file claims.
//! - **M7** A clip shows exactly the frames asked for, copies whole GOPs, and contains no empty edit but the audio's lead-in.
//!
//! Sources of facts: ISO/IEC 14496-12:2022 (box structure), 14496-15 (avcC, hvcC), 14496-14 (esds), 14496-3 (AAC).

pub mod boxes;
pub mod clip;
pub mod close;
pub mod entry;
pub mod fragment;
pub mod identity;
pub mod layout;
pub mod movie;
pub mod read;
pub mod recover;
pub mod reduce;
pub mod rotation;
pub mod shape;
pub mod summary;
pub mod table;
pub mod time;

pub use clip::{ClipError, ClipPlan, ClipSource, CopyRange, Edges, Span};
pub use close::Close;
pub use entry::{Law, SampleEntry, VideoCodec};
pub use fragment::{Checksum, Fragment, FragmentSample, FragmentTrack};
pub use identity::{Identity, Quality, UtcMapping};
pub use layout::Header;
pub use movie::{Movie, Track, TrackKind};
pub use read::{ReadAt, ReadError, SegmentFile, State, UpTo, Verify};
pub use recover::{Recovery, Step};
pub use reduce::{Piece, Reduction};
pub use rotation::Rotation;
pub use shape::shape;
pub use summary::Summary;
pub use table::{Sample, SampleTable};
pub use time::{AUDIO_PRIMING_UNITS, MOVIE_TIMESCALE, Ticks, Timescale, VIDEO_TIMESCALE};

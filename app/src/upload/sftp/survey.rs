//! What lies at the server: what an interrupted transfer left, and whether a file there is ours.
//!
//! A partial file is trusted only after a check:
//! - where the server tells hashes (`check-file`), the hash of all of it decides;
//! - else what was acknowledged in this life of the daemon is believed, after a restart all but the last [`SPREAD`] bytes
//!   (promise X2 of `transfer.rs`), each after samples of it were read back and compared; the rest is read back in full, block
//!   by block. What differs is sent again; if a sample differs, everything is.
//!
//! A server that loses acknowledged bytes in a power cut of its own and offers no hashes can defeat the samples; whoever must
//! exclude that asks for `read_back`.

use std::ops::Range;
use std::sync::Arc;

use russh_sftp::protocol::{Data, Extended, Packet, Read, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::transfer::{IN_FLIGHT, SMALLEST, SPREAD};
use super::wire::{Ack, Wire, WireError, unexpected};
use crate::upload::contents::Contents;
use crate::upload::failure::Failure;

/// The extension's name in the server's list (draft-ietf-secsh-filexfer-extensions-00 section 3).
pub(super) const CHECK_FILE: &str = "check-file";
const CHECK_FILE_NAME: &str = "check-file-name";
/// Samples of what is believed.
const SAMPLES: u64 = 4;

/// Why a look at the server failed.
pub(super) enum Blind {
    /// The file here.
    Source(Failure),
    /// The server or the road.
    Wire(WireError),
}

/// The first `size` bytes that the open file at the server should hold.
pub(super) struct Partial<'a> {
    pub(super) wire: &'a Arc<Wire>,
    pub(super) path: &'a str,
    /// Open for reading.
    pub(super) handle: &'a str,
    pub(super) contents: &'a Contents,
    pub(super) size: u64,
    /// Bytes from the start that were acknowledged in this life.
    pub(super) acknowledged: u64,
    pub(super) hashes: bool,
}

impl Partial<'_> {
    /// What is missing or wrong there, in order.
    pub(super) async fn missing(&self) -> Result<Vec<Range<u64>>, Blind> {
        let total = self.contents.len();
        let size = self.size.min(total);
        if size == 0 {
            return Ok(rest(0, total));
        }
        if self.hashes
            && let Some(there) = hash_at_server(self.wire, self.path, size).await.map_err(Blind::Wire)?
            && there == hash_here(self.contents, size).await.map_err(Blind::Source)?
        {
            return Ok(rest(size, total));
        }
        let believed = self.acknowledged.max(size.saturating_sub(SPREAD)).min(size);
        let step = SMALLEST as u64;
        let blocks = believed / step;
        let samples = (0..SAMPLES.min(blocks)).map(|n| {
            let at = if SAMPLES >= blocks { n } else { (blocks - 1) * n / (SAMPLES - 1) } * step;
            at..at + step
        });
        if !self.differing(samples.collect()).await?.is_empty() {
            log::warn!("the partial file {} is not what was sent; it is sent anew", self.path.escape_debug());
            return Ok(rest(0, total));
        }
        let uncertain: Vec<_> = (believed..size).step_by(SMALLEST).map(|at| at..(at + step).min(size)).collect();
        let mut missing = self.differing(uncertain).await?;
        missing.extend(rest(size, total));
        Ok(joined(missing))
    }

    /// Which of these ranges, each at most [`SMALLEST`] long, differ there from what they are here.
    pub(super) async fn differing(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Range<u64>>, Blind> {
        let (tell, mut acks) = mpsc::unbounded_channel::<Ack>();
        let mut asked = std::collections::HashMap::new();
        let mut differing = Vec::new();
        let mut ranges = ranges.into_iter();
        loop {
            while asked.len() < IN_FLIGHT as usize / SMALLEST {
                let Some(range) = ranges.next() else { break };
                let (handle, offset, len) = (self.handle.to_owned(), range.start, (range.end - range.start) as u32);
                let read = |id| Packet::from(Read { id, handle, offset, len });
                asked.insert(self.wire.begin(0, &tell, read).map_err(Blind::Wire)?, range);
            }
            if asked.is_empty() {
                differing.sort_by_key(|range: &Range<u64>| range.start);
                return Ok(differing);
            }
            let ack = tokio::time::timeout(super::wire::ANSWER, acks.recv()).await;
            let ack = ack.map_err(|_| Blind::Wire(WireError::Late))?.ok_or(Blind::Wire(WireError::Gone))?;
            let Some(range) = asked.remove(&ack.id) else { continue };
            let there = match ack.answer {
                Some(Packet::Data(Data { data, .. })) => data,
                Some(Packet::Status(s)) if s.status_code == StatusCode::Eof => Vec::new(),
                Some(other) => return Err(Blind::Wire(unexpected(other))),
                None => return Err(Blind::Wire(WireError::Gone)),
            };
            let mut here = vec![0; (range.end - range.start) as usize];
            self.contents.read_at(range.start, &mut here).map_err(|e| Blind::Source(Failure::unreadable(&e)))?;
            // A short answer counts as different: what it held is sent again, which is cheap.
            if here != there {
                differing.push(range);
            }
        }
    }
}

/// Everything from there on.
pub(super) fn rest(from: u64, total: u64) -> Vec<Range<u64>> {
    (from < total).then_some(from..total).into_iter().collect()
}

/// Neighbours become one range.
fn joined(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

/// The SHA-256 of the first `len` bytes of a file, by the server; none if it cannot tell.
pub(super) async fn hash_at_server(wire: &Wire, path: &str, len: u64) -> Result<Option<[u8; 32]>, WireError> {
    if len == 0 {
        return Ok(None);
    }
    let mut data = Vec::new();
    for text in [path, "sha256"] {
        data.extend_from_slice(&(text.len() as u32).to_be_bytes());
        data.extend_from_slice(text.as_bytes());
    }
    data.extend_from_slice(&0_u64.to_be_bytes());
    data.extend_from_slice(&len.to_be_bytes());
    // One hash over all of it.
    data.extend_from_slice(&0_u32.to_be_bytes());
    let ask = |id| Packet::from(Extended { id, request: CHECK_FILE_NAME.to_owned(), data });
    match wire.ask(ask).await {
        Ok(Packet::ExtendedReply(reply)) => Ok(reply.data.last_chunk::<32>().copied()),
        Ok(_) | Err(WireError::Status(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The SHA-256 of the first `len` bytes here.
pub(super) async fn hash_here(contents: &Contents, len: u64) -> Result<[u8; 32], Failure> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; SMALLEST * 4];
    let mut at = 0;
    while at < len {
        let now = buffer.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
        contents.read_at(at, &mut buffer[..now]).map_err(|e| Failure::unreadable(&e))?;
        hash.update(&buffer[..now]);
        at += now as u64;
        tokio::task::yield_now().await;
    }
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one() {
        assert_eq!(joined(vec![0..3, 3..5, 7..9, 9..10]), [0..5, 7..10]);
    }
}

//! Bytes on their way: many writes in flight on one channel, or on several where the road is long.
//!
//! Promises:
//! - X1: on each channel at most [`IN_FLIGHT`] bytes and one write wait for acknowledgement; slow answers lower that, so that
//!   a thin road is not filled for minutes ahead.
//! - X2: no byte is sent [`SPREAD`] or more beyond the first one that is not acknowledged. So a partial file of n bytes is
//!   whole up to n - [`SPREAD`], whoever looks at it later.
//! - X3: the file is read once, in order, at most [`LARGEST`] bytes at a time and one read at a time, and nothing is read
//!   ahead of what may be sent: a sync of the recorder never waits behind more than one such read.
//!
//! OpenSSH's channel window is 2 MiB, so one channel carries at most that in a round trip; where that is what holds the
//! transfer up, more channels are opened while it goes on.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use russh_sftp::protocol::{Close, Packet, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::rate::Bucket;
use super::wire::{Ack, Wire, WireError, WriteFrame, unexpected};
use crate::upload::contents::{Contents, Known};
use crate::upload::failure::Failure;

/// Bytes in flight on a channel: OpenSSH's window.
pub(super) const IN_FLIGHT: u64 = 2 << 20;
/// On a road that takes no time so much keeps the server busy, and stays in the processor's cache besides.
const IN_FLIGHT_NEAR: u64 = 3 * LARGEST as u64;
/// Round trips from which that is not enough.
const NEAR: Duration = Duration::from_millis(2);
/// Least that slow answers lower it to.
const LEAST_IN_FLIGHT: u64 = 128 << 10;
/// How far the sent may run ahead of the acknowledged.
pub(super) const SPREAD: u64 = 10 << 20;
/// Largest write, and largest read of the disk.
pub(super) const LARGEST: usize = 255 << 10;
/// What every server takes (draft-ietf-secsh-filexfer-02 section 3: packets of 34,000 bytes).
pub(super) const SMALLEST: usize = 32 << 10;
/// Bytes that a try sends in small writes first: a write that is cut off is lost as a whole, and a road that breaks off again and
/// again before a large one is through would never get anywhere.
const CAREFUL: u64 = 1 << 20;
/// Channels that are used together.
pub(super) const LANES: usize = 4;
/// Bytes left that make more channels worth opening.
const WORTH: u64 = 4 << 20;
/// A round trip from which a channel's window matters.
const LONG_ROAD: Duration = Duration::from_millis(15);
/// An answer that takes longer comes over a road that is full.
const SLOW: Duration = Duration::from_secs(5);
/// How long all writes may stay without any answer.
const STALL: Duration = Duration::from_secs(90);

/// A channel with the file open on it.
pub(super) struct Lane {
    pub(super) wire: Arc<Wire>,
    pub(super) handle: String,
}

/// What a transfer needs to know.
pub(super) struct Plan<'a> {
    pub(super) contents: &'a Contents,
    /// What the server lacks, in order; everything else lies there already.
    pub(super) todo: Vec<Range<u64>>,
    /// Largest write that the server takes.
    pub(super) largest: usize,
    pub(super) round_trip: Duration,
    pub(super) max_rate: Option<u64>,
    pub(super) known: &'a Known,
}

/// Why a transfer ended early.
pub(super) enum Broken {
    /// The file.
    Source(Failure),
    /// The server or the road.
    Wire(WireError),
}

/// A write on its way.
struct Sent {
    lane: usize,
    offset: u64,
    len: u64,
    at: Instant,
    /// Kept for its buffer.
    frame: Bytes,
}

struct Transfer<'a> {
    plan: Plan<'a>,
    lanes: Vec<(Lane, u64)>,
    sent: HashMap<(usize, u32), Sent>,
    /// Offsets that wait for acknowledgement, with lengths.
    open: BTreeMap<u64, u64>,
    /// Everything before this was read, and sent where needed.
    cursor: u64,
    acknowledged: u64,
    /// Of that, what lay at the server before this try.
    there: u64,
    /// Bytes in flight on a channel: now, and at most.
    limit: u64,
    most: u64,
    hash: Sha256,
    buffers: Vec<BytesMut>,
}

/// Sends what `plan` says is missing over `first`, and over what `another` opens. Returns the SHA-256 of the whole contents.
pub(super) async fn run<F>(
    plan: Plan<'_>,
    first: Lane,
    another: impl Fn() -> F,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<[u8; 32], Broken>
where
    F: Future<Output = Option<Lane>> + Send + 'static,
{
    let total = plan.contents.len();
    let missing: u64 = plan.todo.iter().map(|range| range.end - range.start).sum();
    let mut bucket = plan.max_rate.map(|rate| Bucket::new(rate, Instant::now()));
    let (tell, mut acks) = mpsc::unbounded_channel::<Ack>();
    let mut opening: JoinSet<Option<Lane>> = JoinSet::new();
    let mut pace = bucket.is_none().then(|| Pace::new(plan.round_trip, total - missing, Instant::now())).flatten();
    let most = if plan.round_trip < NEAR { IN_FLIGHT_NEAR } else { IN_FLIGHT };
    let mut t = Transfer {
        plan,
        lanes: vec![(first, 0)],
        sent: HashMap::new(),
        open: BTreeMap::new(),
        cursor: 0,
        acknowledged: total - missing,
        there: total - missing,
        limit: most,
        most,
        hash: Sha256::new(),
        buffers: Vec::new(),
    };
    progress(t.acknowledged);
    loop {
        let mut wait = Duration::ZERO;
        while let Some(lane) = t.room() {
            wait = bucket.as_ref().map_or(Duration::ZERO, |b| b.wait(Instant::now()));
            if !wait.is_zero() {
                break;
            }
            let portion = bucket.as_ref().map_or(usize::MAX, Bucket::portion);
            let sent = t.step(lane, &tell, portion)?;
            if let Some(bucket) = &mut bucket {
                bucket.spend(sent, Instant::now());
            }
            // What was read goes out before more is read.
            tokio::task::yield_now().await;
        }
        if t.cursor >= total && t.open.is_empty() {
            t.plan.contents.check().map_err(|e| Broken::Source(Failure::unreadable(&e)))?;
            // Some servers rename nothing that is open. The first channel is the caller's.
            for (Lane { wire, handle }, _) in t.lanes.drain(1..) {
                let _ = wire.begin(0, &tell, |id| Packet::from(Close { id, handle }));
            }
            return Ok(t.hash.finalize().into());
        }
        let paid = async { if wait.is_zero() { pending().await } else { sleep(wait).await } };
        tokio::select! {
            ack = timeout(STALL, acks.recv()), if !t.sent.is_empty() => match ack {
                Ok(Some(ack)) => {
                    t.settle(ack)?;
                    while let Ok(more) = acks.try_recv() {
                        t.settle(more)?;
                    }
                    progress(t.acknowledged);
                }
                Ok(None) => return Err(Broken::Wire(WireError::Gone)),
                Err(_) => return Err(Broken::Wire(WireError::Late)),
            },
            () = paid => {}
            Some(lane) = opening.join_next() => {
                if let Ok(Some(lane)) = lane {
                    t.lanes.push((lane, 0));
                }
            }
        }
        let left = total - t.cursor;
        if pace.as_mut().is_some_and(|pace| pace.wants_more(t.acknowledged, left, Instant::now())) {
            pace = None;
            for _ in 1..LANES {
                opening.spawn(another());
            }
        }
    }
}

/// Whether a channel's window is what holds a transfer up, and not the road: then more channels are worth opening. Decided in the
/// caller's time.
struct Pace {
    round_trip: Duration,
    /// Since when, and from how many bytes, the pace is taken.
    from: (Instant, u64),
}

impl Pace {
    /// None on a short road: one channel fills it.
    fn new(round_trip: Duration, acknowledged: u64, now: Instant) -> Option<Self> {
        (round_trip >= LONG_ROAD).then_some(Self { round_trip, from: (now, acknowledged) })
    }

    /// Does one window in a round trip go through?
    fn wants_more(&mut self, acknowledged: u64, left: u64, now: Instant) -> bool {
        let (since, from) = self.from;
        if acknowledged - from < IN_FLIGHT {
            return false;
        }
        self.from = (now, acknowledged);
        now.saturating_duration_since(since) < self.round_trip * 5 / 2 && left >= WORTH
    }
}

impl Transfer<'_> {
    /// The channel that takes the next write; none if all are full or everything is sent.
    fn room(&self) -> Option<usize> {
        let total = self.plan.contents.len();
        let first_open = self.open.first_key_value().map_or(self.cursor, |(offset, _)| *offset);
        if self.cursor >= total || self.cursor + LARGEST as u64 > first_open + SPREAD {
            return None;
        }
        let (lane, (_, in_flight)) = self.lanes.iter().enumerate().min_by_key(|(_, (_, in_flight))| *in_flight)?;
        (*in_flight < self.limit).then_some(lane)
    }

    /// Reads the next bytes and sends them if the server lacks them; how many were sent.
    fn step(&mut self, lane: usize, tell: &mpsc::UnboundedSender<Ack>, portion: usize) -> Result<u64, Broken> {
        let missing = self.plan.todo.iter().find(|range| range.end > self.cursor);
        let (needed, until) = match missing {
            Some(range) if range.start <= self.cursor => (true, range.end),
            Some(range) => (false, range.start),
            None => (false, self.plan.contents.len()),
        };
        let mut largest = self.plan.largest.min(LARGEST);
        if self.limit < self.most || self.acknowledged - self.there < CAREFUL {
            largest = largest.min(SMALLEST);
        }
        let len = largest.min(portion).min(usize::try_from(until - self.cursor).unwrap_or(usize::MAX));
        let (Lane { wire, handle }, in_flight) = &mut self.lanes[lane];
        let buffer = self.buffers.pop().unwrap_or_default();
        let mut frame = WriteFrame::new(buffer, handle, self.cursor, len);
        let read = self.plan.contents.read_at(self.cursor, frame.data());
        read.map_err(|e| Broken::Source(Failure::unreadable(&e)))?;
        self.hash.update(frame.data());
        let (offset, len) = (self.cursor, len as u64);
        self.cursor += len;
        if !needed {
            return Ok(0);
        }
        let (id, frame) = wire.begin_write(lane, tell, frame).map_err(Broken::Wire)?;
        *in_flight += len;
        self.open.insert(offset, len);
        self.sent.insert((lane, id), Sent { lane, offset, len, at: Instant::now(), frame });
        Ok(len)
    }

    /// Takes an acknowledgement.
    fn settle(&mut self, ack: Ack) -> Result<(), Broken> {
        let Some(sent) = self.sent.remove(&(ack.lane, ack.id)) else { return Ok(()) };
        match ack.answer {
            Some(Packet::Status(s)) if s.status_code == StatusCode::Ok => {}
            Some(other) => return Err(Broken::Wire(unexpected(other))),
            None => return Err(Broken::Wire(WireError::Gone)),
        }
        self.lanes[sent.lane].1 -= sent.len;
        self.open.remove(&sent.offset);
        self.acknowledged += sent.len;
        self.limit = if sent.at.elapsed() > SLOW {
            (self.limit / 2).max(LEAST_IN_FLIGHT)
        } else {
            (self.limit + sent.len).min(self.most)
        };
        if let Ok(buffer) = sent.frame.try_into_mut() {
            self.buffers.push(buffer);
        }
        let whole_until = self.open.first_key_value().map_or(self.cursor, |(offset, _)| *offset);
        self.plan.known.update(|part| part.acknowledged = part.acknowledged.max(whole_until));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Whether more channels are asked for on a road with such a round trip on which a window takes so long, with so much left.
    fn wants(round_trip: u64, windows: &[u64], left: u64) -> bool {
        let begun = Instant::now();
        let Some(mut pace) = Pace::new(Duration::from_millis(round_trip), 7, begun) else { return false };
        let (mut now, mut acknowledged) = (begun, 7);
        windows.iter().any(|window| {
            now += Duration::from_millis(*window);
            assert!(!pace.wants_more(acknowledged + IN_FLIGHT - 1, left, now), "less than a window says nothing");
            acknowledged += IN_FLIGHT;
            pace.wants_more(acknowledged, left, now)
        })
    }

    #[test]
    fn more_channels_are_opened_where_the_window_holds_a_transfer_up_and_nowhere_else() {
        assert!(wants(80, &[90], WORTH));
        assert!(wants(15, &[37], u64::MAX), "just under two and a half round trips");
        assert!(!wants(80, &[200, 300, 250], u64::MAX), "it is the road that is slow");
        assert!(wants(80, &[200, 300, 199], u64::MAX), "each window is judged anew");
        assert!(!wants(80, &[90], WORTH - 1), "too little is left");
        assert!(!wants(14, &[1], u64::MAX), "one channel fills a short road");
    }
}

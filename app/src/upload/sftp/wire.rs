//! One SFTP channel: requests go out one after another, answers come back in any order.
//!
//! Packets are those of `russh-sftp`; only writes, which carry the bytes of files, are framed here, so that what is read from
//! the disk is copied once, into the cipher. Promise: a request whose asker has gone disturbs nobody, and when the channel ends
//! everybody who waits hears of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use russh_sftp::protocol::{Init, Packet, Status, StatusCode, Version};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::upload::destination::Endpoint;
use crate::upload::failure::{Failure, FailureKind};

/// How long an answer may take that does not wait behind the bytes of a file.
pub(super) const ANSWER: Duration = Duration::from_mins(1);
/// Longest packet of a server: OpenSSH's own limit is 256 KiB.
const LONGEST: usize = (256 << 10) + 1024;
/// SSH_FXP_WRITE (draft-ietf-secsh-filexfer-02 section 3).
const WRITE: u8 = 6;
/// The key under which the answer to INIT, which has no number, is awaited.
const VERSION: u32 = 0;

/// Why a request has no good answer.
#[derive(Debug)]
pub(super) enum WireError {
    /// The server's own answer.
    Status(Status),
    /// The channel or the connection has ended.
    Gone,
    /// No answer in time.
    Late,
    /// The server offers no SFTP to this user.
    Refused,
    /// The server breaks the protocol.
    Garbled(String),
}

/// An answer to one of many requests of one asker.
#[derive(Debug)]
pub(super) struct Ack {
    /// Which of the asker's channels.
    pub(super) lane: usize,
    /// The request's number.
    pub(super) id: u32,
    /// None: the channel has ended.
    pub(super) answer: Option<Packet>,
}

enum Asker {
    One(oneshot::Sender<Packet>),
    Many(usize, mpsc::UnboundedSender<Ack>),
}

#[derive(Default)]
struct Waiting {
    askers: HashMap<u32, Asker>,
    /// Why nothing comes any more.
    over: Option<Over>,
}

#[derive(Clone, Debug)]
enum Over {
    Gone,
    Refused,
    Garbled(String),
}

/// The channel. Dropping it closes it.
pub(super) struct Wire {
    frames: mpsc::UnboundedSender<Bytes>,
    waiting: Arc<Mutex<Waiting>>,
    next: AtomicU32,
}

impl Wire {
    /// Starts SFTP on a fresh channel.
    pub(super) async fn open(channel: Channel<Msg>) -> Result<(Self, Version), WireError> {
        // Not awaited: the first packet follows at once, which saves a round trip.
        channel.request_subsystem(true, "sftp").await.map_err(|_| WireError::Gone)?;
        let (from, to) = channel.split();
        let (frames, outgoing) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let (tell, hear) = oneshot::channel();
        lock(&waiting).askers.insert(VERSION, Asker::One(tell));
        tokio::spawn(send_all(to, outgoing));
        tokio::spawn(hear_all(from, waiting.clone()));
        let wire = Self { frames, waiting, next: AtomicU32::new(VERSION + 1) };
        wire.send(Packet::from(Init::default()))?;
        match wire.answer(hear).await? {
            Packet::Version(version) => Ok((wire, version)),
            _ => Err(WireError::Garbled("no version was answered".to_owned())),
        }
    }

    /// Whether nothing comes any more.
    pub(super) fn is_over(&self) -> bool {
        lock(&self.waiting).over.is_some()
    }

    /// Sends a request and waits for its answer. Requests are sent when this is first polled, in the order of polling.
    pub(super) async fn ask(&self, make: impl FnOnce(u32) -> Packet) -> Result<Packet, WireError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, hear) = oneshot::channel();
        self.expect(id, Asker::One(tell))?;
        self.send(make(id))?;
        let answer = self.answer(hear).await;
        lock(&self.waiting).askers.remove(&id);
        answer
    }

    /// As [`Wire::ask`]; success is a status of OK.
    pub(super) async fn command(&self, make: impl FnOnce(u32) -> Packet) -> Result<(), WireError> {
        match self.ask(make).await? {
            Packet::Status(s) if s.status_code == StatusCode::Ok => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Sends a request whose answer goes to `to`; returns its number.
    pub(super) fn begin(
        &self,
        lane: usize,
        to: &mpsc::UnboundedSender<Ack>,
        make: impl FnOnce(u32) -> Packet,
    ) -> Result<u32, WireError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.expect(id, Asker::Many(lane, to.clone()))?;
        self.send(make(id))?;
        Ok(id)
    }

    /// As [`Wire::begin`] for a write, whose frame [`WriteFrame`] has made.
    pub(super) fn begin_write(
        &self,
        lane: usize,
        to: &mpsc::UnboundedSender<Ack>,
        frame: WriteFrame,
    ) -> Result<(u32, Bytes), WireError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.expect(id, Asker::Many(lane, to.clone()))?;
        let bytes = frame.finish(id);
        self.frames.send(bytes.clone()).map_err(|_| WireError::Gone)?;
        Ok((id, bytes))
    }

    fn expect(&self, id: u32, asker: Asker) -> Result<(), WireError> {
        let mut waiting = lock(&self.waiting);
        if let Some(over) = &waiting.over {
            return Err(over.clone().into());
        }
        waiting.askers.insert(id, asker);
        Ok(())
    }

    fn send(&self, packet: Packet) -> Result<(), WireError> {
        let frame = Bytes::try_from(packet).map_err(|e| WireError::Garbled(e.to_string()))?;
        self.frames.send(frame).map_err(|_| WireError::Gone)
    }

    async fn answer(&self, hear: oneshot::Receiver<Packet>) -> Result<Packet, WireError> {
        match timeout(ANSWER, hear).await {
            Ok(Ok(packet)) => Ok(packet),
            Ok(Err(_)) => Err(lock(&self.waiting).over.clone().unwrap_or(Over::Gone).into()),
            Err(_) => Err(WireError::Late),
        }
    }
}

/// A write in the making: header first, then room for the bytes, in a buffer that is used again.
pub(super) struct WriteFrame {
    buffer: BytesMut,
    header: usize,
}

impl WriteFrame {
    /// A write of `len` bytes at `offset`; `buffer` is what came back from an earlier one, or new.
    pub(super) fn new(mut buffer: BytesMut, handle: &str, offset: u64, len: usize) -> Self {
        let header = 4 + 1 + 4 + 4 + handle.len() + 8 + 4;
        // What is there already is overwritten; only growth is paid for.
        buffer.resize(header + len, 0);
        let mut head = &mut buffer[..header];
        head.put_u32((header - 4 + len) as u32);
        head.put_u8(WRITE);
        head.put_u32(0);
        head.put_u32(handle.len() as u32);
        head.put_slice(handle.as_bytes());
        head.put_u64(offset);
        head.put_u32(len as u32);
        Self { buffer, header }
    }

    /// Where the bytes go.
    pub(super) fn data(&mut self) -> &mut [u8] {
        &mut self.buffer[self.header..]
    }

    fn finish(mut self, id: u32) -> Bytes {
        self.buffer[5..9].copy_from_slice(&id.to_be_bytes());
        self.buffer.freeze()
    }
}

/// Sends frames whole and in order, as the channel's window allows.
async fn send_all(to: ChannelWriteHalf<Msg>, mut frames: mpsc::UnboundedReceiver<Bytes>) {
    while let Some(frame) = frames.recv().await {
        if to.data_bytes(frame).await.is_err() {
            return;
        }
    }
    let _ = to.close().await;
}

/// Takes answers in and hands them to whom they belong, until the channel ends.
async fn hear_all(mut from: ChannelReadHalf, waiting: Arc<Mutex<Waiting>>) {
    let mut buffer = BytesMut::new();
    let over = loop {
        match from.wait().await {
            Some(ChannelMsg::Data { data }) => {
                buffer.extend_from_slice(&data);
                if let Err(why) = hand_out(&mut buffer, &waiting) {
                    break Over::Garbled(why);
                }
            }
            Some(ChannelMsg::Failure) => break Over::Refused,
            None | Some(ChannelMsg::Eof | ChannelMsg::Close) => break Over::Gone,
            Some(_) => {}
        }
    };
    let mut waiting = lock(&waiting);
    waiting.over = Some(over);
    for (id, asker) in waiting.askers.drain() {
        if let Asker::Many(lane, to) = asker {
            let _ = to.send(Ack { lane, id, answer: None });
        }
    }
}

fn hand_out(buffer: &mut BytesMut, waiting: &Mutex<Waiting>) -> Result<(), String> {
    while let Some(length) = buffer.first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if length > LONGEST {
            return Err(format!("a packet of {length} bytes"));
        }
        if buffer.len() < 4 + length {
            return Ok(());
        }
        let mut frame = buffer.split_to(4 + length).freeze();
        frame.advance(4);
        let packet = Packet::try_from(&mut frame).map_err(|e| e.to_string())?;
        let id = match &packet {
            Packet::Version(_) => VERSION,
            Packet::Status(p) => p.id,
            Packet::Handle(p) => p.id,
            Packet::Data(p) => p.id,
            Packet::Name(p) => p.id,
            Packet::Attrs(p) => p.id,
            Packet::ExtendedReply(p) => p.id,
            _ => return Err("a packet that no server sends".to_owned()),
        };
        match lock(waiting).askers.remove(&id) {
            Some(Asker::One(tell)) => drop(tell.send(packet)),
            Some(Asker::Many(lane, to)) => drop(to.send(Ack { lane, id, answer: Some(packet) })),
            None => {}
        }
    }
    Ok(())
}

/// Takes in what a server says while eight requests wait; for fuzzing.
pub(crate) fn hear(data: &[u8]) {
    let (mut waiting, mut answers) = (Waiting::default(), Vec::new());
    for id in 0..8 {
        let (tell, answer) = oneshot::channel();
        waiting.askers.insert(id, Asker::One(tell));
        answers.push(answer);
    }
    let (waiting, mut buffer) = (Mutex::new(waiting), BytesMut::from(data));
    let heard = hand_out(&mut buffer, &waiting);
    assert!(heard.is_err() || buffer.len() <= LONGEST + 4, "more is kept than a packet has");
    for answer in answers.iter_mut().filter_map(|answer| answer.try_recv().ok()) {
        let failure = unexpected(answer);
        if let WireError::Status(status) = &failure {
            assert!(shown(&status.error_message).chars().all(|c| !c.is_control()));
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an answer of the wrong kind means.
pub(super) fn unexpected(packet: Packet) -> WireError {
    match packet {
        Packet::Status(status) => WireError::Status(status),
        _ => WireError::Garbled("an answer of another kind than asked for".to_owned()),
    }
}

impl From<Over> for WireError {
    fn from(over: Over) -> Self {
        match over {
            Over::Gone => Self::Gone,
            Over::Refused => Self::Refused,
            Over::Garbled(why) => Self::Garbled(why),
        }
    }
}

impl WireError {
    /// The server's own code.
    pub(super) fn code(&self) -> Option<StatusCode> {
        match self {
            Self::Status(status) => Some(status.status_code),
            _ => None,
        }
    }

    /// What this means for the job that wanted `what`.
    pub(super) fn failure(&self, at: &Endpoint, what: impl fmt::Display) -> Failure {
        let (kind, why) = match self {
            Self::Status(s) => match s.status_code {
                StatusCode::PermissionDenied => (FailureKind::PermissionDenied, "permission denied".to_owned()),
                StatusCode::NoConnection | StatusCode::ConnectionLost => {
                    (FailureKind::ConnectionLost, "the connection is gone".to_owned())
                }
                code => (FailureKind::ServerError, format!("{code}: {}", shown(&s.error_message))),
            },
            Self::Gone => (FailureKind::ConnectionLost, "the connection broke off".to_owned()),
            Self::Late => (FailureKind::TimedOut, format!("no answer within {} s", ANSWER.as_secs())),
            Self::Refused => (FailureKind::ServerError, "the server does not offer sftp to this user".to_owned()),
            Self::Garbled(why) => (FailureKind::ServerError, format!("the server breaks the protocol: {}", shown(why))),
        };
        Failure::new(kind, format!("{what} at {at} failed: {why}"))
    }
}

/// A text from the other side, made fit for a line of ours.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(300).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use russh_sftp::protocol::Write;

    use super::*;

    #[test]
    fn a_write_frame_is_the_packet_of_the_library_also_in_a_used_buffer() {
        let mut buffer = BytesMut::new();
        for (offset, len) in [(7, 300), (1 << 40, 5), (0, 0), (9, 40_000)] {
            let data: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let mut frame = WriteFrame::new(buffer, "handle", offset, len);
            frame.data().copy_from_slice(&data);
            let made = frame.finish(77);
            let packet = Packet::from(Write { id: 77, handle: "handle".to_owned(), offset, data });
            assert_eq!(made, Bytes::try_from(packet).unwrap());
            buffer = made.try_into_mut().unwrap();
        }
    }

    #[test]
    fn answers_reach_their_askers_however_they_are_cut() {
        let waiting = Mutex::new(Waiting::default());
        let (tell, mut one) = oneshot::channel();
        let (many, mut acks) = mpsc::unbounded_channel();
        lock(&waiting).askers.insert(5, Asker::One(tell));
        lock(&waiting).askers.insert(6, Asker::Many(2, many));
        let status = |id| Bytes::try_from(Packet::error(id, StatusCode::Failure)).unwrap();
        let mut buffer = BytesMut::new();
        for byte in [status(6), status(9), status(5)].concat() {
            buffer.put_u8(byte);
            hand_out(&mut buffer, &waiting).unwrap();
        }
        assert!(matches!(one.try_recv().unwrap(), Packet::Status(s) if s.id == 5));
        assert!(matches!(acks.try_recv().unwrap(), Ack { lane: 2, id: 6, answer: Some(_) }));
        assert!(lock(&waiting).askers.is_empty() && buffer.is_empty());
        let mut huge = BytesMut::from(&[0x7f, 0, 0, 0][..]);
        assert!(hand_out(&mut huge, &waiting).is_err());
    }
}

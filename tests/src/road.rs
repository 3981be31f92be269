//! A bad road in a box: a TCP proxy between the daemon and a server that does to connections what mobile networks do.
//!
//! Promises: what befalls connection number `n` of a road depends on the seed and `n` alone, and where in its bytes it does on
//! nothing else; bytes that are passed on are passed on in order, unchanged but for the ones that a fate flips. A road counts what
//! went over it. It knows nothing of SSH.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

mod fate;

pub use fate::{Fate, Fates, Random, Way};

/// Bytes that are taken up at a time.
const CHUNK: usize = 16 * 1024;
/// How much of a narrow road's time may be made up for after a pause.
const SLACK: Duration = Duration::from_millis(20);
/// How often a thread that waits looks whether its connection is over.
const LOOK: Duration = Duration::from_millis(50);

/// A proxy on loopback; it and its connections end when it is dropped.
#[derive(Debug)]
pub struct Road {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Where a road leads to.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The server.
    pub server: SocketAddr,
    /// Who answers in its place when a fate says so.
    pub impostor: SocketAddr,
}

#[derive(Debug)]
struct Shared {
    ends: Ends,
    fates: Mutex<Fates>,
    over: AtomicBool,
    /// Bytes that reached the server.
    up: AtomicU64,
    met: Mutex<Vec<Fate>>,
    open: AtomicUsize,
}

impl Road {
    /// A road to `ends` on which `fates` rule.
    #[must_use]
    pub fn open(ends: Ends, fates: Fates) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            ends,
            fates: Mutex::new(fates),
            over: AtomicBool::new(false),
            up: AtomicU64::new(0),
            met: Mutex::new(Vec::new()),
            open: AtomicUsize::new(0),
        });
        let of_thread = shared.clone();
        let thread = std::thread::spawn(move || accept(&listener, &of_thread));
        Self { address, shared, thread: Some(thread) }
    }

    /// The port where it begins.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Bytes that it brought to the server or the impostor.
    #[must_use]
    pub fn bytes_up(&self) -> u64 {
        self.shared.up.load(Ordering::SeqCst)
    }

    /// What befell the connections so far, in order.
    #[must_use]
    pub fn met(&self) -> Vec<Fate> {
        self.shared.met.lock().unwrap().clone()
    }

    /// Other fates for the connections to come.
    pub fn change(&self, fates: Fates) {
        *self.shared.fates.lock().unwrap() = fates;
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        crate::wait_for("the end of a road", Duration::from_mins(2), || {
            (self.shared.open.load(Ordering::SeqCst) == 0).then_some(())
        });
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        let (fate, end) = shared.fates.lock().unwrap().next();
        shared.met.lock().unwrap().push(fate);
        let shared = shared.clone();
        shared.open.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            travel(client, fate, end, &shared);
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// One connection. Each socket is held once, so that closing it with no time to linger resets it.
struct Trip<'a> {
    client: TcpStream,
    server: TcpStream,
    fate: Fate,
    /// It is hung up once so many bytes went up, if it lives as long.
    end: Option<u64>,
    shared: &'a Shared,
    /// Nothing more is to be done.
    over: AtomicBool,
    /// The fate struck: a hole swallows from now on.
    struck: AtomicBool,
}

fn travel(client: TcpStream, fate: Fate, end: Option<u64>, shared: &Shared) {
    let to = if fate == Fate::Impostor { shared.ends.impostor } else { shared.ends.server };
    let Ok(server) = TcpStream::connect(to) else { return };
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
        socket.set_read_timeout(Some(LOOK)).unwrap();
        socket.set_write_timeout(Some(LOOK)).unwrap();
    }
    let (over, struck) = (AtomicBool::new(false), AtomicBool::new(false));
    let trip = Trip { client, server, fate, end, shared, over, struck };
    std::thread::scope(|scope| {
        for way in [Way::Up, Way::Down] {
            let (send, receive) = mpsc::channel();
            let trip = &trip;
            scope.spawn(move || trip.take_up(way, &send));
            scope.spawn(move || trip.deliver(way, &receive));
        }
    });
}

impl Trip<'_> {
    fn from(&self, way: Way) -> &TcpStream {
        if way == Way::Up { &self.client } else { &self.server }
    }

    fn to(&self, way: Way) -> &TcpStream {
        self.from(way.other())
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst) || self.shared.over.load(Ordering::SeqCst)
    }

    /// Both sockets are closed with a reset as soon as the threads have noticed.
    fn reset(&self) {
        for socket in [&self.client, &self.server] {
            let _ = setsockopt(socket, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 });
        }
        self.over.store(true, Ordering::SeqCst);
    }

    /// Both sides are told that nothing more comes; the server still reads what it was given.
    fn hang_up(&self) {
        self.struck.store(true, Ordering::SeqCst);
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Write);
    }

    /// Takes bytes up, with the moment at which each is to arrive.
    fn take_up(&self, way: Way, send: &Sender<(Instant, Vec<u8>)>) {
        let mut buf = vec![0; CHUNK];
        while !self.is_over() {
            match (&mut self.from(way)).read(&mut buf) {
                Ok(0) => return,
                Ok(n) => {
                    let due = Instant::now() + self.fate.delay();
                    if send.send((due, buf[..n].to_vec())).is_err() {
                        return;
                    }
                }
                Err(e) if is_pause(&e) => {}
                Err(_) => return self.over.store(true, Ordering::SeqCst),
            }
        }
    }

    fn deliver(&self, way: Way, receive: &Receiver<(Instant, Vec<u8>)>) {
        let mut passed = 0_u64;
        // When a narrow road has room for the next bytes. What a sleep overshoots is made up for.
        let mut room_from = Instant::now();
        loop {
            let (due, mut bytes) = match receive.recv_timeout(LOOK) {
                Ok(next) => next,
                Err(RecvTimeoutError::Timeout) if self.is_over() => return,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    // The sender said goodbye: so does the road, unless the bytes before it fell into a hole.
                    if !self.struck.load(Ordering::SeqCst) {
                        let _ = self.to(way).shutdown(Shutdown::Write);
                    }
                    return;
                }
            };
            self.rest_until(due);
            if self.is_over() {
                return;
            }
            if let Some(until) = self.fate.strikes(way, passed, bytes.len() as u64) {
                match self.fate {
                    Fate::Flip { .. } => bytes[until as usize] ^= 0x10,
                    Fate::Stall { millis, .. } => self.rest_until(Instant::now() + Duration::from_millis(millis)),
                    _ => {
                        let _ = self.write(way, &bytes[..until as usize]);
                        self.struck.store(true, Ordering::SeqCst);
                        if matches!(self.fate, Fate::Reset { .. }) {
                            return self.reset();
                        }
                        if matches!(self.fate, Fate::HalfOpen { .. }) {
                            let _ = self.server.shutdown(Shutdown::Both);
                        }
                    }
                }
            }
            passed += bytes.len() as u64;
            if way == Way::Up && self.end.is_some_and(|end| end < passed) {
                self.hang_up();
            }
            if self.struck.load(Ordering::SeqCst) {
                continue;
            }
            if !self.write(way, &bytes) {
                return self.over.store(true, Ordering::SeqCst);
            }
            if let Some(pause) = self.fate.pace(bytes.len()) {
                room_from = room_from.max(Instant::now().checked_sub(SLACK).unwrap_or(room_from)) + pause;
                self.rest_until(room_from);
            }
        }
    }

    /// Whether all of it went.
    fn write(&self, way: Way, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() && !self.is_over() {
            match (&mut self.to(way)).write(bytes) {
                Ok(0) => return false,
                Ok(n) => {
                    if way == Way::Up {
                        self.shared.up.fetch_add(n as u64, Ordering::SeqCst);
                    }
                    bytes = &bytes[n..];
                }
                Err(e) if is_pause(&e) => {}
                Err(_) => return false,
            }
        }
        bytes.is_empty()
    }

    fn rest_until(&self, due: Instant) {
        while !self.is_over() {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

fn is_pause(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

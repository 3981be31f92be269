//! A wire between the recorder and a camera that can be cut, pulled and plugged in again while it is in use.
//!
//! Promise: bytes that pass are passed in order and unchanged. What is done to a wire concerns all its connections at once.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

/// How often a thread that waits looks whether there is news.
const LOOK: Duration = Duration::from_millis(20);

/// A wire on loopback; it and its connections end when it is dropped.
#[derive(Debug)]
pub struct Wire {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Nothing passes, and nobody is told.
    pulled: AtomicBool,
    /// Those who come are sent away with a reset.
    closed: AtomicBool,
    over: AtomicBool,
    came: AtomicUsize,
    open: Mutex<Vec<Arc<AtomicBool>>>,
    running: AtomicUsize,
}

impl Wire {
    /// A wire to the port.
    #[must_use]
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let thread = std::thread::spawn(move || accept(&listener, port, &of_thread));
        Self { port: own, shared, thread: Some(thread) }
    }

    /// Where it begins.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections that were tried.
    #[must_use]
    pub fn came(&self) -> usize {
        self.shared.came.load(Ordering::SeqCst)
    }

    /// Resets all connections, wherever in a message they are.
    pub fn cut(&self) {
        for end in self.shared.open.lock().unwrap().drain(..) {
            end.store(true, Ordering::SeqCst);
        }
    }

    /// Resets all connections, and those to come too.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// From now on nothing passes either way, without a word: the other side has vanished.
    pub fn pull(&self) {
        self.shared.pulled.store(true, Ordering::SeqCst);
    }

    /// As at first. What was open while it was pulled is lost: the other side has started anew.
    pub fn restore(&self) {
        if self.shared.pulled.load(Ordering::SeqCst) {
            self.cut();
        }
        self.shared.pulled.store(false, Ordering::SeqCst);
        self.shared.closed.store(false, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.cut();
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        crate::wait_for("the end of a wire", Duration::from_mins(2), || {
            (self.shared.running.load(Ordering::SeqCst) == 0).then_some(())
        });
    }
}

fn reset(socket: &TcpStream) {
    let _ = setsockopt(socket, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 });
}

fn accept(listener: &TcpListener, to: u16, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        shared.came.fetch_add(1, Ordering::SeqCst);
        if shared.closed.load(Ordering::SeqCst) {
            reset(&client);
            continue;
        }
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else {
            reset(&client);
            continue;
        };
        let end = Arc::new(AtomicBool::new(false));
        shared.open.lock().unwrap().push(end.clone());
        let shared = shared.clone();
        shared.running.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            for socket in [&client, &server] {
                let _ = socket.set_nodelay(true);
                socket.set_read_timeout(Some(LOOK)).unwrap();
                socket.set_write_timeout(Some(LOOK)).unwrap();
            }
            std::thread::scope(|scope| {
                scope.spawn(|| pass(&client, &server, &end, &shared));
                scope.spawn(|| pass(&server, &client, &end, &shared));
            });
            // A connection that was cut ends with a reset.
            if end.load(Ordering::SeqCst) {
                reset(&client);
                reset(&server);
            }
            shared.running.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, end: &AtomicBool, shared: &Shared) {
    // Small, so that a cut falls into a message.
    let mut buf = [0; 1000];
    let is_pause =
        |e: &std::io::Error| matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
    while !end.load(Ordering::SeqCst) {
        if shared.pulled.load(Ordering::SeqCst) {
            std::thread::sleep(LOOK);
            continue;
        }
        let n = match from.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if is_pause(&e) => continue,
            Err(_) => break,
        };
        let mut rest = &buf[..n];
        while !rest.is_empty() && !end.load(Ordering::SeqCst) {
            match to.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if is_pause(&e) => {}
                Err(_) => break,
            }
        }
        if !rest.is_empty() {
            break;
        }
    }
    // The other side hears of it as it was.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

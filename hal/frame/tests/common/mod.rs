//! A camera with a pool of real memory, for the tests: it paints every byte of a frame with its number, so that a reader
//! that sees two numbers has seen a torn frame.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test uses its part")]

pub mod hostile;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use mos_frame::sys::{self, Mapping};
use mos_frame::{BufferId, Frame, Lent, Memory, MemoryKind, Picture, Pixels, Publisher, Settings};

pub const WIDTH: u32 = 64;
pub const HEIGHT: u32 = 48;

/// Bytes of a buffer: whole pages, as devices have them, so more than the picture.
fn memory_size() -> u64 {
    u64::from(WIDTH * HEIGHT * 3 / 2).next_multiple_of(4096)
}

/// Gives the buffer back when it is dropped.
pub struct Loan {
    buffer: usize,
    back: Sender<usize>,
    system: Option<Vec<u8>>,
}

impl Lent for Loan {
    fn bytes(&self) -> Option<&[u8]> {
        self.system.as_deref()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let _ = self.back.send(self.buffer);
    }
}

/// A pool of buffers and their publisher.
pub struct Camera {
    pub publisher: Publisher<Loan>,
    pub picture: Picture,
    mappings: Vec<Mapping>,
    ids: Vec<BufferId>,
    back: Sender<usize>,
    free: Receiver<usize>,
    pub sequence: u64,
    kind: MemoryKind,
}

impl Camera {
    pub fn open(settings: Settings, buffers: usize) -> Self {
        Self::of(MemoryKind::Memfd, settings, buffers)
    }

    /// A camera whose buffers are told to be of this kind.
    pub fn of(kind: MemoryKind, settings: Settings, buffers: usize) -> Self {
        let publisher = Publisher::open(settings, None).unwrap();
        let picture = Picture::nv12(WIDTH, HEIGHT, WIDTH);
        let size = memory_size();
        let (back, free) = channel();
        let (mut mappings, mut ids) = (Vec::new(), Vec::new());
        for buffer in 0..buffers {
            let fd: OwnedFd = sys::memory("camera", size).unwrap();
            mappings.push(Mapping::new(fd.as_fd(), size as usize, true).unwrap());
            ids.push(publisher.add_buffer(kind, vec![Memory { fd, size }]).unwrap());
            back.send(buffer).unwrap();
        }
        Self { publisher, picture, mappings, ids, back, free, sequence: 0, kind }
    }

    /// The camera is opened anew, with as many new buffers.
    pub fn renew(&mut self) {
        self.publisher.reconfigure();
        self.all_back();
        let size = memory_size();
        for (mapping, id) in self.mappings.iter_mut().zip(&mut self.ids) {
            let fd: OwnedFd = sys::memory("camera", size).unwrap();
            *mapping = Mapping::new(fd.as_fd(), size as usize, true).unwrap();
            *id = self.publisher.add_buffer(self.kind, vec![Memory { fd, size }]).unwrap();
        }
    }

    /// Takes a free buffer, paints it and publishes it. Panics if all buffers are lent out: the camera would stand still.
    pub fn shoot(&mut self) -> u64 {
        let buffer = self.free.try_recv().expect("a camera that never waits for a buffer");
        self.sequence += 1;
        let mapping = &self.mappings[buffer];
        // SAFETY: the mapping is that long; it is a camera's buffer, whose readers copy through raw pointers.
        unsafe { std::ptr::write_bytes(mapping.start(), self.sequence as u8, mapping.len()) };
        // Between the pixels of a row and the next row there is what nobody must take for pixels.
        for plane in &self.picture.planes {
            let padding = (plane.stride - self.picture.width) as usize;
            for row in 0..if plane.offset == 0 { self.picture.height } else { self.picture.height / 2 } {
                let end = plane.offset + u64::from(row * plane.stride + self.picture.width);
                // SAFETY: as above; strides and offsets of the picture lie within it.
                unsafe { std::ptr::write_bytes(mapping.start().add(end as usize), !self.sequence as u8, padding) };
            }
        }
        let hold = Loan { buffer, back: self.back.clone(), system: None };
        self.publish(Pixels::Buffer(self.ids[buffer]), hold)
    }

    /// Publishes a frame that lies in memory of this process.
    pub fn shoot_system(&mut self) -> u64 {
        self.sequence += 1;
        let bytes = vec![self.sequence as u8; (WIDTH * HEIGHT * 3 / 2) as usize];
        let (back, _) = channel();
        self.publish(Pixels::System, Loan { buffer: 0, back, system: Some(bytes) })
    }

    fn publish(&mut self, pixels: Pixels, hold: Loan) -> u64 {
        let (sequence, captured, picture) = (self.sequence, sys::monotonic(), self.picture.clone());
        self.publisher.publish(Frame { pixels, sequence, captured, picture, hold });
        sequence
    }

    /// Waits until all buffers are back; panics with what is missing if they do not come.
    pub fn all_back(&self) {
        let mut seen = vec![false; self.ids.len()];
        while seen.iter().any(|back| !back) {
            let Ok(buffer) = self.free.recv_timeout(Duration::from_mins(2)) else {
                panic!("buffers are lost: back are {seen:?}");
            };
            seen[buffer] = true;
        }
        for buffer in 0..seen.len() {
            self.back.send(buffer).unwrap();
        }
    }

    /// Waits until this many peers have said hello.
    pub fn await_peers(&self, count: usize) {
        wait_for(&format!("{count} peers"), || self.publisher.reports().len() == count);
    }
}

/// Waits for something that other threads or processes bring about, at most two minutes.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_mins(2);
    while !holds() {
        assert!(std::time::Instant::now() < end, "waited two minutes for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A folder for one socket, and settings for it.
pub fn settings() -> (tempfile::TempDir, Settings) {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::new(folder.path().join("road.sock"));
    (folder, settings)
}

/// Settings under which this test's own user is not trusted.
pub fn distrusting() -> (tempfile::TempDir, Settings) {
    let (folder, settings) = settings();
    (folder, Settings { trusted: Vec::new(), ..settings })
}

/// An example of this crate, which `cargo test` builds beside the tests.
pub fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(name);
    assert!(path.exists(), "{} is not built: cargo build -p mos-frame --examples", path.display());
    path
}

/// The reader in Python.
pub fn in_python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/subscriber.py")
}

/// The reader in C, compiled as C and as C++.
pub fn in_c(folder: &Path) -> [PathBuf; 2] {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    [("cc", &["-std=c11"][..]), ("c++", &["-std=c++20", "-x", "c++"])].map(|(compiler, standard)| {
        let program = folder.join(format!("subscriber-{compiler}"));
        let mut compile = Command::new(compiler);
        compile
            .args(standard)
            .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-I"])
            .arg(here.join("include"));
        let done = compile.arg(here.join("examples/subscriber.c")).arg("-o").arg(&program).status().unwrap();
        assert!(done.success(), "{compiler} failed");
        program
    })
}

/// A process that is killed with the test.
pub struct Process(pub Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap())
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

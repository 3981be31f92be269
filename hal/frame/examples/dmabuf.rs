//! Proves that real dmabufs travel over the bus: `dmabuf` alone publishes frames in dmabufs of the kernel's udmabuf driver
//! from one process and imports them in another, once as a trusted user and once as one who gets copies.
//!
//! The importer asks the kernel what it was given, maps it once per buffer, brackets every read with `DMA_BUF_IOCTL_SYNC`
//! and looks at every byte. Ends with 0 if all is well, 77 if this machine has no `/dev/udmabuf`, and tells in any case.
//! Its two roles are `dmabuf publish SOCKET trusted|others` and `dmabuf import SOCKET COUNT`.
#![allow(clippy::print_stdout, clippy::unwrap_used, unsafe_code, reason = "an example prints and fails by panicking")]

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use mos_frame::sys::{self, Mapping};
use mos_frame::{
    Frame, HANDOVER, Lent, Memory, MemoryKind, Picture, Pixels, Publisher, Received, Settings, Subscriber, Wish,
};

const DRIVER: &str = "/dev/udmabuf";
const WIDTH: u32 = 320;
const HEIGHT: u32 = 240;
/// Frames that the importer judges.
const COUNT: u64 = 100;
/// What a test tells by who could not be run.
const SKIPPED: u8 = 77;

/// A buffer on loan; its drop brings it back to the pool.
struct Loan(usize, Sender<usize>);

impl Lent for Loan {}

impl Drop for Loan {
    fn drop(&mut self) {
        let _ = self.1.send(self.0);
    }
}

/// A dmabuf over sealed memory (`linux/udmabuf.h`).
fn dmabuf(driver: BorrowedFd<'_>, memory: BorrowedFd<'_>, size: u64) -> std::io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        memfd: u32,
        flags: u32,
        offset: u64,
        size: u64,
    }
    /// `UDMABUF_FLAGS_CLOEXEC`.
    const CLOEXEC: u32 = 1;
    nix::ioctl_write_ptr!(udmabuf_create, b'u', 0x42, Create);
    let create = Create { memfd: memory.as_raw_fd().cast_unsigned(), flags: CLOEXEC, offset: 0, size };
    // SAFETY: the struct of this call, which lives until it returns.
    let fd = unsafe { udmabuf_create(driver.as_raw_fd(), &raw const create) }?;
    // SAFETY: the kernel has just handed it out to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn publish(socket: &str, trusted: bool) -> Result<(), Box<dyn Error>> {
    let driver = std::fs::OpenOptions::new().read(true).write(true).open(DRIVER)?;
    let mut settings = Settings::new(socket.into());
    if !trusted {
        settings.trusted.clear();
    }
    let buffers = settings.lease_budget + HANDOVER + 1;
    let publisher = Publisher::open(settings, None)?;
    let picture = Picture::nv12(WIDTH, HEIGHT, WIDTH);
    // The driver takes whole pages.
    let size = (u64::from(WIDTH * HEIGHT) * 3 / 2).next_multiple_of(4096);
    let (back, free) = channel();
    let mut pool = Vec::new();
    for buffer in 0..buffers {
        let memory = sys::memory("camera", size)?;
        // The camera writes through the memory, as a device does, not through the dmabuf.
        let mapping = Mapping::new(memory.as_fd(), size as usize, true)?;
        let fd = dmabuf(driver.as_fd(), memory.as_fd(), size)?;
        pool.push((publisher.add_buffer(MemoryKind::Dmabuf, vec![Memory { fd, size }])?, mapping));
        back.send(buffer)?;
    }
    println!("publishing");
    let (stop, stopped) = channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(stop);
    });
    let mut starved = 0;
    for sequence in 1u64.. {
        // The pace of the camera, unless it is to stop.
        if stopped.recv_timeout(Duration::from_millis(10)) == Err(RecvTimeoutError::Disconnected) {
            break;
        }
        let Ok(buffer) = free.try_recv() else {
            starved += 1;
            continue;
        };
        let (id, mapping) = &pool[buffer];
        // SAFETY: the buffer is back, and the mapping is that long.
        unsafe { std::ptr::write_bytes(mapping.start(), sequence as u8, mapping.len()) };
        let (captured, hold) = (sys::monotonic(), Loan(buffer, back.clone()));
        publisher.publish(Frame { pixels: Pixels::Buffer(*id), sequence, captured, picture: picture.clone(), hold });
    }
    println!("{starved} frames without a buffer, {:?}", publisher.totals());
    if starved > 0 || publisher.totals().unreadable > 0 {
        return Err("the camera lacked buffers, or its frames could not be read".into());
    }
    Ok(())
}

fn import(socket: &str, count: u64) -> Result<(), Box<dyn Error>> {
    let mut subscriber = Subscriber::connect(Path::new(socket), Wish::default())?;
    let trusted = subscriber.is_trusted();
    let (mut judged, mut void, mut bytes) = (0, 0, Vec::new());
    let mut imported = [false; 64];
    while judged < count {
        let Some(Received::Frame(frame)) = subscriber.next(None)? else { continue };
        if !imported[frame.buffer()] {
            imported[frame.buffer()] = true;
            for fd in subscriber.descriptors(&frame) {
                let is = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
                let real = is.to_string_lossy().contains("dmabuf");
                println!("buffer {} is {}", frame.buffer(), is.display());
                if (real, subscriber.is_dmabuf(&frame)) != (trusted, trusted) {
                    return Err(format!("trusted: {trusted}, but the kernel calls it {}", is.display()).into());
                }
            }
        }
        let mut good = true;
        for plane in 0..frame.picture().planes.len() {
            good &= subscriber.copy_plane(&frame, plane, &mut bytes)?;
            if good && bytes.iter().any(|byte| *byte != frame.sequence() as u8) {
                return Err(format!("frame {} is torn, and was reported good", frame.sequence()).into());
            }
        }
        judged += u64::from(good);
        void += u64::from(!good);
        subscriber.release(frame)?;
    }
    println!("{judged} frames were whole, {void} void; {} buffers", imported.iter().filter(|known| **known).count());
    Ok(())
}

/// One process publishes, another imports.
fn prove(trusted: &str) -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("mos-dmabuf-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let socket = folder.join("road.sock");
    let own = std::env::current_exe()?;
    let mut publisher = Command::new(&own)
        .args([Path::new("publish"), &socket, Path::new(trusted)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut says = BufReader::new(publisher.stdout.take().unwrap());
    let mut line = String::new();
    says.read_line(&mut line)?;
    let imported = Command::new(&own).arg("import").arg(&socket).arg(COUNT.to_string()).status()?;
    drop(publisher.stdin.take());
    print!("{trusted}: {}", std::io::read_to_string(says)?);
    let published = publisher.wait()?;
    let _ = std::fs::remove_dir_all(&folder);
    if imported.success() && published.success() { Ok(()) } else { Err(format!("{trusted}: it failed").into()) }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["publish", socket, class] => publish(socket, class == "trusted")?,
        ["import", socket, count] => import(socket, count.parse()?)?,
        [] if !Path::new(DRIVER).exists() => {
            println!("skipped: this machine has no {DRIVER} (kernel option CONFIG_UDMABUF)");
            return Ok(ExitCode::from(SKIPPED));
        }
        [] => {
            prove("trusted")?;
            prove("others")?;
            println!("dmabufs travel over the bus");
        }
        _ => return Err("dmabuf, dmabuf publish SOCKET trusted|others, or dmabuf import SOCKET COUNT".into()),
    }
    Ok(ExitCode::SUCCESS)
}

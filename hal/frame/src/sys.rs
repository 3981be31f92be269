//! The few system calls of the frame bus: sockets that carry descriptors, sealed memory, mappings, `epoll`.
//!
//! All `unsafe` about descriptors and memory is here. Descriptors are owned from the moment the kernel hands them out;
//! nothing here keeps state or logs.
#![allow(
    unsafe_code,
    reason = "messages with descriptors, mappings and epoll have no safe interface in the features used"
)]

use std::ffi::CString;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::time::Duration;

use heapless::Vec;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, sockopt};

use crate::wire::MAX_MEMORIES;

/// Descriptors that came with a message.
pub type Descriptors = Vec<OwnedFd, MAX_MEMORIES>;

/// Room for the control message with [`MAX_MEMORIES`] descriptors, aligned as `cmsghdr` wants it.
#[repr(align(8))]
struct Control([u8; 64]);

// SAFETY: CMSG_SPACE only computes.
const _: () =
    assert!(unsafe { libc::CMSG_SPACE((MAX_MEMORIES * size_of::<RawFd>()) as u32) } as usize <= size_of::<Control>());

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn monotonic() -> u64 {
    // SAFETY: all zeros is a valid timespec, and the call fills it.
    let mut now: libc::timespec = unsafe { zeroed() };
    // SAFETY: `now` is ours. The call cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// A socket that listens at `path`, for messages. A socket file that nobody listens on any more is replaced; a link is not
/// followed, neither to a socket nor for its permissions.
pub fn listen(path: &Path, mode: u32, backlog: i32) -> io::Result<OwnedFd> {
    use std::os::unix::fs::FileTypeExt;
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        match connect(path) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    socket::bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    permit(path, mode)?;
    // Nobody can connect before this.
    socket::listen(&listener, Backlog::new(backlog)?)?;
    Ok(listener)
}

/// Sets the permissions of a socket file that was just made, and of nothing that took its place meanwhile.
fn permit(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
    let there = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
    if !there.metadata()?.file_type().is_socket() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    // What is open for its path alone has its permissions changed by the name of its descriptor.
    let name = format!("/proc/self/fd/{}", there.as_raw_fd());
    std::fs::set_permissions(name, std::fs::Permissions::from_mode(mode))
}

/// The next peer that has connected, its socket never blocking.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket::accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: the kernel has just handed it out to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket connected to `path`, for messages, that blocks from now on. Connecting never waits: who listens there may be
/// stuck. It is [`io::ErrorKind::WouldBlock`] where too many wait already.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(socket)
}

/// User and process at the other end, as the kernel knew them when it connected.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<(u32, i32)> {
    let found = socket::getsockopt(&socket, sockopt::PeerCredentials)?;
    Ok((found.uid(), found.pid()))
}

/// Sends one message, with descriptors; `flags` are added to `MSG_NOSIGNAL`.
pub fn send(socket: BorrowedFd<'_>, message: &[u8], with: &[BorrowedFd<'_>], flags: i32) -> io::Result<()> {
    let flags = flags | libc::MSG_NOSIGNAL;
    if with.is_empty() {
        // SAFETY: pointer and length are those of one slice.
        let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), flags) };
        return check_size(sent).map(drop);
    }
    let with = &with[..with.len().min(MAX_MEMORIES)];
    let bytes = size_of_val(with);
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    // SAFETY: all zeros is a valid msghdr.
    let mut head: libc::msghdr = unsafe { zeroed() };
    head.msg_iov = &raw mut part;
    head.msg_iovlen = 1;
    head.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE only computes; the assertion above says that the room is enough.
    head.msg_controllen = unsafe { libc::CMSG_SPACE(bytes as u32) } as _;
    // SAFETY: the control room holds a header and `bytes` of data; BorrowedFd is a RawFd in memory.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const head);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(bytes as u32) as _;
        ptr::copy_nonoverlapping(with.as_ptr().cast::<u8>(), libc::CMSG_DATA(first), bytes);
    }
    // SAFETY: everything that `head` points to lives until the call returns.
    check_size(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const head, flags) }).map(drop)
}

/// What a message was.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// Bytes; 0 is the end of the connection.
    pub len: usize,
    /// It was longer than the room for it.
    pub truncated: bool,
    /// It came with descriptors that nobody asked for; they are closed already.
    pub stray_descriptors: bool,
}

/// Receives one message and up to [`MAX_MEMORIES`] descriptors (none if `with` is none).
pub fn receive(
    socket: BorrowedFd<'_>,
    room: &mut [u8],
    with: Option<&mut Descriptors>,
    flags: i32,
) -> io::Result<Datagram> {
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    // SAFETY: all zeros is a valid msghdr.
    let mut head: libc::msghdr = unsafe { zeroed() };
    head.msg_iov = &raw mut part;
    head.msg_iovlen = 1;
    if with.is_some() {
        head.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE only computes.
        head.msg_controllen = unsafe { libc::CMSG_SPACE((MAX_MEMORIES * size_of::<RawFd>()) as u32) } as _;
    }
    // SAFETY: everything that `head` points to lives until the call returns.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut head, flags | libc::MSG_CMSG_CLOEXEC) };
    let len = check_size(got)?;
    let mut stray = head.msg_flags & libc::MSG_CTRUNC != 0;
    if let Some(with) = with {
        // SAFETY: the kernel has filled the control room as far as `head` now says.
        stray |= unsafe { take_descriptors(&head, with) };
    }
    Ok(Datagram { len, truncated: head.msg_flags & libc::MSG_TRUNC != 0, stray_descriptors: stray })
}

/// Owns the descriptors of a received message; true if there were more than fit.
///
/// # Safety
///
/// `head` is as `recvmsg` left it, and nobody has taken its descriptors.
unsafe fn take_descriptors(head: &libc::msghdr, with: &mut Descriptors) -> bool {
    let mut stray = false;
    // SAFETY: as promised by the caller; the macros stay within the control room.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(head);
        while let Some(entry) = at.as_ref() {
            if (entry.cmsg_level, entry.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let end = ptr::from_ref(entry).addr() + entry.cmsg_len;
                let data = libc::CMSG_DATA(at);
                let bytes = end.saturating_sub(data.addr());
                for i in 0..bytes / size_of::<RawFd>() {
                    let fd = OwnedFd::from_raw_fd(data.add(i * size_of::<RawFd>()).cast::<RawFd>().read_unaligned());
                    stray |= with.push(fd).is_err();
                }
            }
            at = libc::CMSG_NXTHDR(head, at);
        }
    }
    stray
}

/// New memory of `size` bytes that cannot change its size.
pub fn memory(name: &str, size: u64) -> io::Result<OwnedFd> {
    let name = CString::new(name)?;
    // SAFETY: the name is a C string that outlives the call.
    let fd = check(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) })?;
    // SAFETY: the kernel has just handed it out to us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    nix::unistd::ftruncate(&fd, i64::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?)?;
    // SAFETY: a plain call on a descriptor that we own.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW) })?;
    Ok(fd)
}

/// Forbids every write but through mappings that exist already, and every further change of that.
pub fn seal(fd: BorrowedFd<'_>) -> io::Result<()> {
    let seals = libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: a plain call on a descriptor that lives.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) }).map(drop)
}

/// Whether memory of others can become shorter below a mapping, which would end this process (`SIGBUS`).
pub(crate) fn may_shrink(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: a plain call on a descriptor that lives.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    seals < 0 || seals & libc::F_SEAL_SHRINK == 0
}

/// Whether memory that another process gave cannot shrink below a mapping of it: a dmabuf, sealed memory, or memory that
/// nobody may map through this descriptor.
#[must_use]
pub fn is_lasting(fd: BorrowedFd<'_>) -> bool {
    /// `DMA_BUF_MAGIC` of Linux's `magic.h`.
    const DMABUF: u64 = 0x444d_4142;
    // SAFETY: all zeros is a valid statfs, and the call fills it.
    let mut found: libc::statfs = unsafe { zeroed() };
    // SAFETY: `found` is ours; the other call takes and gives plain numbers.
    let (system, flags) = unsafe {
        let raw = fd.as_raw_fd();
        (libc::fstatfs(raw, &raw mut found), libc::fcntl(raw, libc::F_GETFL))
    };
    #[allow(clippy::useless_conversion, reason = "its type differs from target to target")]
    let dmabuf = system == 0 && i64::from(found.f_type).unsigned_abs() == DMABUF;
    dmabuf || !may_shrink(fd) || (flags >= 0 && flags & libc::O_ACCMODE == libc::O_WRONLY)
}

/// Bytes behind a descriptor: of a file, or of a dmabuf (which knows its size by `lseek` only).
pub fn size(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: all zeros is a valid stat, and the call fills it.
    let mut found: libc::stat = unsafe { zeroed() };
    // SAFETY: `found` is ours.
    check(unsafe { libc::fstat(fd.as_raw_fd(), &raw mut found) })?;
    if found.st_size > 0 {
        return Ok(found.st_size.unsigned_abs());
    }
    // SAFETY: a plain call on a descriptor that lives; dmabufs have no position that it could disturb.
    let end = unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_END) };
    u64::try_from(end).map_err(|_| io::Error::last_os_error())
}

/// Begins or ends reading a dmabuf by the CPU (`DMA_BUF_IOCTL_SYNC`).
pub fn sync_dmabuf(fd: BorrowedFd<'_>, begin: bool) -> io::Result<()> {
    /// `DMA_BUF_SYNC_READ`, `DMA_BUF_SYNC_END` of `linux/dma-buf.h`.
    const READ: u64 = 1;
    const END: u64 = 4;
    nix::ioctl_write_ptr!(dma_buf_sync, b'b', 0, u64);
    let flags = if begin { READ } else { READ | END };
    // SAFETY: the struct of this call is one u64.
    unsafe { dma_buf_sync(fd.as_raw_fd(), &raw const flags) }?;
    Ok(())
}

/// Memory of another file, in our address space until dropped.
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is plain memory; who may touch it when is up to its users, who do so through raw pointers.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes, for reading or for both.
    pub fn new(fd: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<Self> {
        let access = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new mapping at a place of the kernel's choosing.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, access, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// First byte.
    #[must_use]
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: the kernel maps no empty range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and nothing borrowed from it outlives this value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Tells which of many descriptors are readable.
pub struct Epoll(OwnedFd);

/// What [`Epoll::wait`] fills.
pub type Events = [libc::epoll_event; 32];

impl Epoll {
    /// A new, empty set.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a plain call.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just handed it out to us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches a descriptor until it is closed.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        // SAFETY: `event` lives until the call returns.
        let done = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event) };
        check(done).map(drop)
    }

    /// The tokens of those that are readable now; does not wait.
    pub fn ready<'e>(&self, events: &'e mut Events) -> io::Result<impl Iterator<Item = u64> + 'e> {
        // SAFETY: room and count are those of one array.
        let count =
            check(unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, 0) })?;
        Ok(events[..count as usize].iter().map(|event| event.u64))
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Room for [`Epoll::ready`].
#[must_use]
pub fn events() -> Events {
    [libc::epoll_event { events: 0, u64: 0 }; 32]
}

/// Wakes a thread that polls it.
pub struct Bell(OwnedFd);

impl Bell {
    /// A silent bell.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a plain call.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the kernel has just handed it out to us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Never blocks: a bell that rings already goes on ringing.
    pub fn ring(&self) {
        let one = 1u64;
        // SAFETY: eight bytes of `one` are read.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Silences it.
    pub fn hush(&self) {
        let mut count = 0u64;
        // SAFETY: eight bytes of `count` are written.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one is readable or the time is over; without a time as long as it takes.
pub fn wait(fds: &[BorrowedFd<'_>], time: Option<Duration>) -> io::Result<bool> {
    let mut entries: Vec<libc::pollfd, 2> =
        fds.iter().take(2).map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    let time = time.map(|time| libc::timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX) as libc::time_t,
        tv_nsec: libc::c_long::from(time.subsec_nanos().cast_signed()),
    });
    let limit = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: entries and limit live until the call returns; no signal mask.
    let count = unsafe { libc::ppoll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, limit, ptr::null()) };
    match check(count) {
        Ok(count) => Ok(count > 0),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(e) => Err(e),
    }
}

//! Publishers that lie, and every reader that comes with the crate: it ends with an error, never by a signal, and reports no
//! frame that is none. Also who may have a socket's place.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Process, example, in_c, in_python, settings, wait_for};
use mos_frame::wire::{Announce, Class, FrameNote, Hello, Message, Welcome};
use mos_frame::{Picture, PublishError, Publisher, sys};

const SIZE: u64 = 8192;

/// A message with descriptors.
type Sent = (Vec<u8>, Vec<OwnedFd>);

fn sealed(size: u64) -> OwnedFd {
    sys::memory("liar", size).unwrap()
}

/// A file, which its owner may cut at any time.
fn cuttable() -> OwnedFd {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SIZE).unwrap();
    file.into()
}

fn bytes(message: &Message) -> Vec<u8> {
    message.encode().as_slice().to_vec()
}

fn welcome() -> Vec<u8> {
    bytes(&Message::Welcome(Welcome { waiting: 1, leases: 2, class: Class::Trusted, lease_ms: 1000 }))
}

fn announce(index: u8, size: u64) -> Vec<u8> {
    bytes(&Message::Announce(Announce { index, memories: 1, dmabuf: false, sizes: [size, 0, 0, 0] }))
}

/// As what others call a dmabuf.
fn called_dmabuf(message: Vec<u8>) -> Vec<u8> {
    with(message, 13, &[1])
}

fn frame() -> Vec<u8> {
    let picture = Picture::nv12(64, 48, 64);
    bytes(&Message::Frame(FrameNote { index: 0, generation: 0, sequence: 1, captured: 1, picture }))
}

fn with(mut message: Vec<u8>, at: usize, value: &[u8]) -> Vec<u8> {
    message[at..at + value.len()].copy_from_slice(value);
    message
}

/// What a liar sends after the reader's hello, by what is wrong with it.
fn lies() -> Vec<(&'static str, Vec<Sent>)> {
    let greeting = || (welcome(), vec![sealed(4096)]);
    let buffer = || (announce(0, SIZE), vec![sealed(SIZE)]);
    let after = |sent: Sent| vec![greeting(), sent];
    let framed = |message: Vec<u8>| vec![greeting(), buffer(), (message, vec![])];
    let hello = bytes(&Message::Hello(Hello { waiting: 1, leases: 1, max_rate: 0 }));
    let most = u32::MAX.to_le_bytes();
    vec![
        ("no message", vec![(vec![0xff; 64], vec![])]),
        ("one byte", vec![(vec![2], vec![sealed(4096)])]),
        ("a cut welcome", vec![(welcome()[..31].to_vec(), vec![sealed(4096)])]),
        ("an oversized welcome", vec![([welcome(), vec![0; 4000]].concat(), vec![sealed(4096)])]),
        ("another version", vec![(with(welcome(), 2, &[9]), vec![sealed(4096)])]),
        ("another page", vec![(with(welcome(), 24, &most), vec![sealed(4096)])]),
        ("generations beyond the page", vec![(with(welcome(), 28, &most), vec![sealed(4096)])]),
        ("no page", vec![(welcome(), vec![])]),
        ("two pages", vec![(welcome(), vec![sealed(4096), sealed(4096)])]),
        ("a small page", vec![(welcome(), vec![sealed(16)])]),
        ("a page that may shrink", vec![(welcome(), vec![cuttable()])]),
        ("a frame first", vec![(frame(), vec![])]),
        ("two welcomes", after(greeting())),
        ("a hello", after((hello, vec![]))),
        ("an unknown type", after((with(frame(), 0, &[9]), vec![]))),
        ("a buffer without memory", after((announce(0, SIZE), vec![]))),
        ("more memories than descriptors", after((with(announce(0, SIZE), 12, &[2]), vec![sealed(SIZE)]))),
        ("a buffer smaller than told", after((announce(0, 1 << 40), vec![sealed(SIZE)]))),
        ("a buffer of no bytes", after((with(announce(0, 1), 16, &[0]), vec![sealed(SIZE)]))),
        ("a buffer that may shrink", after((announce(0, SIZE), vec![cuttable()]))),
        (
            "a dmabuf that is a file",
            vec![greeting(), (called_dmabuf(announce(0, SIZE)), vec![cuttable()]), (frame(), vec![])],
        ),
        ("a buffer beyond all numbers", after((with(announce(0, SIZE), 8, &[64]), vec![sealed(SIZE)]))),
        ("a buffer twice", vec![greeting(), buffer(), buffer()]),
        ("a frame in no buffer", after((frame(), vec![]))),
        ("a frame in an unknown buffer", framed(with(frame(), 8, &[63]))),
        ("a frame beyond all buffers", framed(with(frame(), 8, &most))),
        ("a frame with descriptors", vec![greeting(), buffer(), (frame(), vec![sealed(1)])]),
        ("no planes", framed(with(frame(), 44, &[0]))),
        ("too many planes", framed(with(frame(), 44, &most))),
        ("a plane in no memory", framed(with(frame(), 64, &[3]))),
        ("a plane beyond its memory", framed(with(frame(), 72, &SIZE.to_le_bytes()))),
        ("a cut frame", framed(frame()[..127].to_vec())),
    ]
}

/// Lies after which a reader may still take what is there for a frame, if it stays within its memory.
fn half_lies() -> Vec<(&'static str, Vec<Sent>)> {
    let most = u32::MAX.to_le_bytes();
    let framed =
        |message| vec![(welcome(), vec![sealed(4096)]), (announce(0, SIZE), vec![sealed(SIZE)]), (message, vec![])];
    vec![
        ("rows beyond their memory", framed(with(frame(), 68, &most))),
        ("rows of no bytes", framed(with(frame(), 68, &[0; 4]))),
        ("pixels beyond their row", framed(with(frame(), 56, &most))),
        ("rows without end", framed(with(frame(), 60, &[0, 0, 1, 0]))),
    ]
}

/// Lies to a reader; gives its exit code and what it reported.
fn lie(reader: &Path, what: &str, sent: &[Sent]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("road.sock");
    let listener = sys::listen(&socket, 0o600, 4).unwrap();
    let mut command = Command::new(reader);
    command.arg(&socket).arg("1").stderr(std::process::Stdio::null());
    let mut process = Process::start(&mut command);
    assert!(sys::wait(&[listener.as_fd()], Some(Duration::from_mins(3))).unwrap(), "it connects");
    let peer = sys::accept(listener.as_fd()).unwrap();
    for (message, fds) in sent {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        // It may have gone already.
        let _ = sys::send(peer.as_fd(), message, &fds, 0);
    }
    drop(peer);
    wait_for("the reader to end", || process.0.try_wait().unwrap().is_some());
    let status = process.0.wait().unwrap();
    let mut said = String::new();
    process.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    (status.code().unwrap_or_else(|| panic!("{}: {what}: {status}", reader.display())), said)
}

#[test]
fn readers_end_in_order_whatever_a_publisher_says() {
    let folder = tempfile::tempdir().unwrap();
    let [c, cpp] = in_c(folder.path());
    std::thread::scope(|scope| {
        for reader in [example("subscriber"), in_python(), c, cpp] {
            scope.spawn(move || {
                for (what, sent) in lies() {
                    let (code, said) = lie(&reader, what, &sent);
                    assert!(code != 0 && said.is_empty(), "{}: {what}: {code} {said}", reader.display());
                }
                for (what, sent) in half_lies() {
                    lie(&reader, what, &sent);
                }
            });
        }
    });
}

#[test]
fn a_link_in_a_sockets_place_is_not_followed() {
    use std::os::unix::fs::PermissionsExt;

    let (folder, settings) = settings();
    let file = folder.path().join("precious");
    std::fs::write(&file, "kept").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&file, &settings.socket).unwrap();
    let refused = Publisher::<Nothing>::open(settings.clone(), None);
    assert!(matches!(refused, Err(PublishError::Socket { .. })));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::remove_file(&settings.socket).unwrap();
    let publisher = Publisher::<Nothing>::open(settings.clone(), None).unwrap();
    assert_eq!(std::fs::metadata(&settings.socket).unwrap().permissions().mode() & 0o777, settings.mode);
    drop(publisher);
    assert!(!settings.socket.exists());
}

/// Whoever holds the place and answers nobody holds up nobody.
#[test]
fn a_stuck_listener_in_a_sockets_place_is_told_at_once() {
    let (_folder, settings) = settings();
    let _stuck = sys::listen(&settings.socket, 0o600, 0).unwrap();
    let _first = sys::connect(&settings.socket).unwrap();
    let refused = Publisher::<Nothing>::open(settings, None);
    assert!(matches!(refused, Err(PublishError::Socket { .. })));
}

struct Nothing;

impl mos_frame::Lent for Nothing {}

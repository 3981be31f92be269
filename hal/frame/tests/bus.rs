//! Publisher and subscriber over real sockets and memory.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::fd::AsFd;
use std::time::Duration;

use common::{Camera, HEIGHT, WIDTH, distrusting, settings};
use mos_frame::wire::{Farewell, Reason};
use mos_frame::{Received, ReceivedFrame, SubscribeError, Subscriber, Wish, sys};

const LONG: Option<Duration> = Some(Duration::from_mins(2));

fn frame(subscriber: &mut Subscriber) -> ReceivedFrame {
    match subscriber.next(LONG).unwrap() {
        Some(Received::Frame(frame)) => frame,
        other => panic!("a frame, not {other:?}"),
    }
}

/// The one number that every byte of a frame holds.
fn number(subscriber: &mut Subscriber, frame: &ReceivedFrame) -> Option<u8> {
    let mut bytes = Vec::new();
    let mut all = Vec::new();
    for plane in 0..frame.picture().planes.len() {
        if !subscriber.copy_plane(frame, plane, &mut bytes).unwrap() {
            return None;
        }
        all.extend_from_slice(&bytes);
    }
    assert_eq!(all.len(), (WIDTH * HEIGHT * 3 / 2) as usize);
    assert!(all.iter().all(|byte| *byte == all[0]), "a torn frame was reported good");
    Some(all[0])
}

#[test]
fn trusted_peers_read_the_cameras_own_buffers() {
    let (_folder, settings) = settings();
    let socket = settings.socket.clone();
    let mut camera = Camera::open(settings, 6);
    let mut subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
    assert!(subscriber.is_trusted());
    camera.await_peers(1);
    for _ in 0..100 {
        let sent = camera.shoot();
        let got = frame(&mut subscriber);
        assert_eq!(got.sequence(), sent);
        assert_eq!((got.picture(), subscriber.is_dmabuf(&got)), (&camera.picture, false));
        assert_eq!(number(&mut subscriber, &got), Some(sent as u8));
        subscriber.release(got).unwrap();
    }
    let report = camera.publisher.reports().remove(0);
    assert_eq!((report.delivered, report.replaced, report.revoked), (100, 0, 0));
    assert_eq!(report.pid, std::process::id().cast_signed());
    camera.all_back();
}

/// Whoever wants to stop is not held by a publisher that has no room or no answer.
#[test]
fn connecting_ends_when_it_is_asked_to() {
    let (_folder, settings) = settings();
    // One waits; there is no room for more.
    let listener = sys::listen(&settings.socket, 0o600, 0).unwrap();
    let stop = sys::Bell::new().unwrap();
    stop.ring();
    let attempt = || match Subscriber::connect_unless(&settings.socket, Wish::default(), Some(stop.as_fd())) {
        Err(SubscribeError::Connect { source, .. }) => source.kind(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("nobody answers"),
    };
    assert_eq!(attempt(), std::io::ErrorKind::Interrupted, "no answer");
    let _first = sys::accept(listener.as_fd()).unwrap();
    let _second = sys::connect(&settings.socket).unwrap();
    assert_eq!(sys::connect(&settings.socket).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(attempt(), std::io::ErrorKind::Interrupted, "no room");
}

#[test]
fn b6_others_read_copies_that_they_cannot_write() {
    let (_folder, settings) = distrusting();
    let socket = settings.socket.clone();
    let mut camera = Camera::open(settings, 6);
    let mut subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
    assert!(!subscriber.is_trusted());
    camera.await_peers(1);
    for round in 0..50 {
        let sent = if round % 2 == 0 { camera.shoot() } else { camera.shoot_system() };
        let got = frame(&mut subscriber);
        assert_eq!(number(&mut subscriber, &got), Some(sent as u8));
        let fd = &subscriber.descriptors(&got)[0];
        assert!(sys::Mapping::new(fd.as_fd(), 4096, true).is_err(), "mapped for writing");
        assert!(nix::unistd::write(fd, b"x").is_err(), "written");
        assert!(nix::unistd::ftruncate(fd, 0).is_err(), "shrunk");
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd));
        if let Ok(mut file) = std::fs::OpenOptions::new().write(true).open(again) {
            assert!(std::io::Write::write(&mut file, b"x").is_err(), "written by another way");
        }
        subscriber.release(got).unwrap();
    }
    assert_eq!(camera.publisher.totals().copied, 50);
    camera.all_back();
}

#[test]
fn system_memory_reaches_trusted_peers_as_a_copy_too() {
    let (_folder, settings) = settings();
    let socket = settings.socket.clone();
    let mut camera = Camera::open(settings, 2);
    let mut subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
    camera.await_peers(1);
    for _ in 0..20 {
        let sent = camera.shoot_system();
        let got = frame(&mut subscriber);
        assert_eq!(number(&mut subscriber, &got), Some(sent as u8));
        subscriber.release(got).unwrap();
    }
}

#[test]
fn l3_a_slow_reader_gets_the_newest() {
    let (_folder, settings) = settings();
    let socket = settings.socket.clone();
    let mut camera = Camera::open(settings, 6);
    let wish = Wish { waiting: 2, leases: 1, max_rate: 0 };
    let mut subscriber = Subscriber::connect(&socket, wish).unwrap();
    camera.await_peers(1);
    // Three frames fit into the budget of four beside the one that is held.
    for _ in 0..4 {
        camera.shoot();
    }
    let first = frame(&mut subscriber);
    assert_eq!(number(&mut subscriber, &first), Some(1));
    subscriber.release(first).unwrap();
    for newest in [3, 4] {
        let got = frame(&mut subscriber);
        assert_eq!(number(&mut subscriber, &got), Some(newest));
        subscriber.release(got).unwrap();
    }
    let report = camera.publisher.reports().remove(0);
    assert_eq!((report.delivered, report.replaced), (3, 1));
    camera.all_back();
}

#[test]
fn b2_a_frame_that_the_camera_took_back_is_not_reported_good() {
    let (_folder, settings) = settings();
    let socket = settings.socket.clone();
    let mut camera = Camera::open(settings, 5);
    let mut subscriber = Subscriber::connect(&socket, Wish { waiting: 1, leases: 4, max_rate: 0 }).unwrap();
    camera.await_peers(1);
    camera.shoot();
    let held = frame(&mut subscriber);
    assert_eq!(number(&mut subscriber, &held), Some(1));
    for _ in 0..3 {
        camera.shoot();
        assert!(subscriber.is_intact(&held), "a lease lives as long as budget - 1 further frames (L2)");
    }
    for _ in 0..20 {
        camera.shoot();
    }
    assert_eq!(number(&mut subscriber, &held), None);
    subscriber.release(held).unwrap();
    // What was on its way comes, and that the first lease is void; the newest follows when it is owed no more.
    let mut revoked = 0;
    loop {
        match subscriber.next(LONG).unwrap().unwrap() {
            Received::Revoked(reason) => revoked += u64::from(reason == Reason::Pressure),
            Received::Frame(got) => {
                let sequence = got.sequence();
                assert!(number(&mut subscriber, &got).is_none_or(|number| u64::from(number) == sequence));
                subscriber.release(got).unwrap();
                if sequence == camera.sequence {
                    break;
                }
            }
        }
    }
    assert!(revoked >= 1 && revoked == camera.publisher.reports()[0].revoked);
    camera.all_back();
}

#[test]
fn l5_a_lease_that_is_held_too_long_is_revoked() {
    let (_folder, mut settings) = settings();
    settings.lease_time = Duration::from_millis(50);
    let socket = settings.socket.clone();
    let mut camera = Camera::open(settings, 2);
    let mut subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
    camera.await_peers(1);
    camera.shoot();
    let held = frame(&mut subscriber);
    assert!(matches!(subscriber.next(LONG), Ok(Some(Received::Revoked(Reason::Time)))));
    // The message may come before the generation is raised; the buffer goes back after it.
    camera.all_back();
    assert!(!subscriber.is_intact(&held));
    subscriber.release(held).unwrap();
}

#[test]
fn a_rate_is_kept() {
    let (_folder, settings) = settings();
    let socket = settings.socket.clone();
    let mut camera = Camera::open(settings, 6);
    // One frame in 1000 s: the first of this test.
    let mut subscriber = Subscriber::connect(&socket, Wish { max_rate: 1, ..Wish::default() }).unwrap();
    camera.await_peers(1);
    for _ in 0..10 {
        camera.shoot();
    }
    let got = frame(&mut subscriber);
    assert_eq!(got.sequence(), 1);
    subscriber.release(got).unwrap();
    let report = camera.publisher.reports().remove(0);
    assert_eq!((report.delivered, report.thinned, report.replaced), (1, 9, 0));
}

#[test]
fn peers_are_cut_when_buffers_change_and_may_come_back() {
    let (_folder, settings) = settings();
    let socket = settings.socket.clone();
    let mut camera = Camera::open(settings, 4);
    let mut subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
    camera.await_peers(1);
    camera.shoot();
    let held = frame(&mut subscriber);
    camera.publisher.reconfigure();
    assert!(matches!(subscriber.next(LONG), Err(SubscribeError::Goodbye(Farewell::Reconfigured))));
    assert!(!subscriber.is_intact(&held));
    camera.all_back();
    // The old buffers are no longer known.
    camera.shoot();
    camera.all_back();
    assert_eq!(camera.publisher.totals().refused, 1);
    let again = Subscriber::connect(&socket, Wish::default()).unwrap();
    camera.await_peers(1);
    drop(again);
    camera.await_peers(0);
}

#[test]
fn a_socket_in_use_is_not_taken_over_and_a_dead_one_is() {
    let (_folder, settings) = settings();
    let socket = settings.socket.clone();
    let camera = Camera::open(settings.clone(), 1);
    let second = mos_frame::Publisher::<common::Loan>::open(settings.clone(), None);
    assert!(second.err().unwrap().to_string().contains(socket.to_str().unwrap()));
    drop(camera);
    assert!(!socket.exists());
    let text = Subscriber::connect(&socket, Wish::default()).err().unwrap().to_string();
    assert!(text.contains("is the lens captured"), "{text}");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    Camera::open(settings, 1);
}

#[test]
fn a_publisher_that_ends_late_leaves_the_socket_of_the_next_one() {
    let (_folder, settings) = settings();
    let socket = settings.socket.clone();
    let late = Camera::open(settings.clone(), 1);
    // As is done for a worker that was killed.
    std::fs::remove_file(&socket).unwrap();
    let next = Camera::open(settings, 1);
    drop(late);
    Subscriber::connect(&socket, Wish::default()).unwrap();
    drop(next);
    assert!(!socket.exists());
}

#[test]
fn demand_is_told() {
    let (_folder, settings) = settings();
    let socket = settings.socket.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let demand = Box::new(move |wanted| tell.send(wanted).unwrap());
    let publisher = mos_frame::Publisher::<common::Loan>::open(settings, Some(demand)).unwrap();
    let subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
    assert_eq!(told.recv_timeout(LONG.unwrap()), Ok(true));
    assert!(publisher.wanted());
    drop(subscriber);
    assert_eq!(told.recv_timeout(LONG.unwrap()), Ok(false));
}

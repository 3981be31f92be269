//! Network cameras in random trouble: every picture is stored or lies in a gap, the gaps tell what the injector did, and the recorder
//! holds no more than before.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mos_tests::camera::{Camera, Manner, Sent};
use mos_tests::daemon::{Daemon, Setup};
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use mos_tests::wire::Wire;

use crate::accounts::{Books, assert_causes, books};
use crate::figures::{Requests, Watch};
use crate::injector::{Field, Injected, run};
use crate::{LONG, given, lens};

fn await_streaming(daemon: &Daemon) {
    wait_for("all lenses streaming", LONG, || {
        let status = daemon.client.get("/v1/capture/status").ok();
        status["lenses"].as_array().unwrap().iter().all(|l| l["state"] == "streaming").then_some(())
    });
}

#[test]
#[ignore = "takes minutes: make soak"]
fn cameras_in_trouble_are_accounted_for_and_leave_nothing_behind() {
    let (minutes, cameras, seed) = (given("MINUTES", 10), given("CAMERAS", 16) as usize, given("SEED", 1));
    let stream = Stream::get(Kind::H264);
    let manner = Manner { login: true, ..Manner::default() };
    let camera = Camera::with(&vec![stream.clone(); cameras], manner);
    let wires: Vec<Wire> = (0..cameras).map(|_| Wire::to(camera.port())).collect();
    let setup = wires.iter().enumerate().fold(Setup::new().storage("segment_seconds", "15"), |setup, (at, wire)| {
        setup.camera_with(&lens(at), &camera.url_by(wire.port(), at), "transport = \"tcp\"")
    });
    let daemon = setup.start();
    await_streaming(&daemon);
    let mut field = Field { camera, wires };
    let mut watch = Watch::new(daemon.process(), Duration::from_secs(2));
    let before = watch.now();
    let log = run(&mut field, &daemon, Duration::from_secs(minutes * 60), seed, || watch.look());
    await_streaming(&daemon);
    let closed = |at: usize| daemon.segments(&lens(at)).iter().filter(|s| s["state"] != "open").count();
    let known: Vec<usize> = (0..cameras).map(closed).collect();
    for (at, known) in known.into_iter().enumerate() {
        wait_for("footage behind the trouble", LONG, || (closed(at) > known).then_some(()));
    }
    let after = wait_for("threads and descriptors of before", LONG, || {
        let now = watch.now();
        // Each segment whose close is under way holds a descriptor.
        (now.threads <= before.threads && now.fds <= before.fds + cameras).then_some(now)
    });
    Requests::default().print(&watch, 10, |_| String::new());
    println!("before {before:?}, after {after:?}");
    judge(&field.camera, &daemon, cameras, &stream, &log);
    if minutes >= 5 {
        watch.assert_flat();
    }
    daemon.stop();
}

/// The books of all lenses, judged; on all cores, for every picture is decoded.
fn judged(camera: &Camera, daemon: &Daemon, cameras: usize, stream: &Stream, log: &[Injected]) -> Vec<Books> {
    let next = AtomicUsize::new(0);
    let one = |at: usize| {
        let sent: Vec<Sent> = camera.sent(at);
        let own: Vec<&Injected> = log.iter().filter(|l| l.camera == at).collect();
        let books = books(daemon, &lens(at), stream, &sent);
        assert_causes(&lens(at), &books, &sent, &own);
        books
    };
    let some = || {
        let mut done = Vec::new();
        while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < cameras) {
            done.push(one(at));
        }
        done
    };
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(some)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("the books of every lens hold")).collect()
    })
}

fn judge(camera: &Camera, daemon: &Daemon, cameras: usize, stream: &Stream, log: &[Injected]) {
    let (mut captured, mut stored, mut missing, mut holes) = (0, 0, 0, 0);
    let (mut late, mut sent_late) = (Vec::new(), Vec::new());
    for books in judged(camera, daemon, cameras, stream, log) {
        captured += books.captured;
        stored += books.stored;
        missing += books.missing;
        holes += books.holes.len();
        late.extend(books.late);
        sent_late.extend(books.sent_late);
    }
    let mut kinds = BTreeMap::new();
    for line in log {
        *kinds.entry(line.trouble).or_insert(0) += 1;
    }
    println!("{} troubles: {kinds:?}", log.len());
    println!(
        "{captured} pictures captured = {stored} stored + {missing} in {holes} holes, each with the cause of its trouble"
    );
    for (what, mut late) in [("recorded as", late), ("sent", sent_late)] {
        late.sort_unstable();
        let at = |part: usize| late[(late.len() - 1) * part / 1000] as f64 / 1000.0;
        let (p01, p50, p99, most) = (at(1), at(500), at(990), at(1000));
        println!("{what} later than captured, ms: p0.1 {p01:.0}, p50 {p50:.0}, p99 {p99:.0}, most {most:.0}");
    }
}

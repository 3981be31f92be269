//! Workers, with the built program and with programs that misbehave: what comes through is what the source delivered, and
//! whatever a worker does, its source ends with a cause and nothing of it is left.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mos::capture::worker::Workers;
use mos_frame::wire::Farewell;
use mos_frame::{Received, SubscribeError, Subscriber, Wish};
use mos_hal::clock::{Clock, SystemClock};
use mos_hal::frames::{LensFrames, Settings};
use mos_hal::media::{AccessUnit, FrameKind, TrackFormat};
use mos_hal::probe::Options;
use mos_hal::shared::{Ledger, Shared};
use mos_hal::source::{LensSource, SourceError, SourceSpec, UnitSink};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LONG: Duration = Duration::from_mins(3);
/// P3: a source that is dropped is gone within it.
const GONE: Duration = Duration::from_secs(2);
/// What a busy machine may make of that.
const BUSY: Duration = Duration::from_secs(5);

/// The tests count descriptors, threads and children of this one process.
static ALONE: Mutex<()> = Mutex::new(());

enum News {
    Unit(AccessUnit),
    Ended(SourceError),
}

struct Told(Mutex<Sender<News>>);

impl UnitSink for Told {
    fn unit(&self, unit: AccessUnit) {
        let _ = self.0.lock().unwrap().send(News::Unit(unit));
    }
    fn ended(&self, why: SourceError) {
        let _ = self.0.lock().unwrap().send(News::Ended(why));
    }
}

fn sink() -> (Arc<dyn UnitSink>, Receiver<News>) {
    let (tell, told) = channel();
    (Arc::new(Told(Mutex::new(tell))), told)
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new().unwrap())
}

fn book() -> Arc<dyn Shared> {
    Arc::new(Ledger::new("none", None))
}

fn workers() -> Workers {
    Workers { program: env!("CARGO_BIN_EXE_mos").into(), board: Options::default(), shared: book() }
}

fn open(workers: &Workers, source: &str) -> (Box<dyn LensSource>, Receiver<News>) {
    let (sink, told) = sink();
    (workers.open(&SourceSpec::parse(source).unwrap(), false, clock(), sink, None).unwrap(), told)
}

/// What a source delivers until it ends.
fn all(told: &Receiver<News>) -> (Vec<AccessUnit>, SourceError) {
    let mut units = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < LONG {
        match told.recv_timeout(LONG).expect("the source goes on or ends") {
            News::Unit(unit) => units.push(unit),
            News::Ended(why) => return (units, why),
        }
    }
    panic!("the source does not end");
}

fn await_unit(told: &Receiver<News>) -> AccessUnit {
    match told.recv_timeout(LONG).expect("a unit") {
        News::Unit(unit) => unit,
        News::Ended(why) => panic!("{why}"),
    }
}

fn await_end(told: &Receiver<News>) -> String {
    all(told).1.to_string()
}

/// The ids of this process's children, also of those that have ended and were not reaped.
fn children() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of_task = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    tasks
        .flatten()
        .flat_map(|t| of_task(t).split_whitespace().map(|p| p.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

/// Open descriptors, and threads that read from workers.
fn held() -> (usize, usize) {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let name = |task: &std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    let of_workers = tasks.filter(|task| ["worker", "worker-end"].contains(&name(task).trim())).count();
    (std::fs::read_dir("/proc/self/fd").unwrap().count(), of_workers)
}

fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LONG, "waited in vain for {what}: children {:?}, held {:?}", children(), held());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Drops a source; gives how long it took until nothing was left of its worker. After a drop that returns only the kernel may have
/// something left to do.
fn let_go(source: Box<dyn LensSource>, of: &str) -> Duration {
    let begin = Instant::now();
    drop(source);
    while !children().is_empty() {
        assert!(begin.elapsed() < BUSY, "there is still a worker {of}: {:?}", children());
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = begin.elapsed();
    assert!(took < BUSY, "the end of a worker {of} took {took:?}");
    took
}

/// P3. A busy machine may hold up the end of one worker or the other, but hardly of all.
fn assert_gone_in_time(of: &str, open: impl Fn() -> Box<dyn LensSource>) {
    let mut took = Vec::new();
    while took.last().is_none_or(|last| *last >= GONE) {
        assert!(took.len() < 4, "the end of workers {of} took {took:?}");
        took.push(let_go(open(), of));
    }
}

/// What is held when the test before has let go of everything: threads of its pipelines may end later than it.
fn settled() -> (usize, usize) {
    let (mut last, mut same) = (held(), 0);
    await_that("nothing more to be let go of", || {
        let now = held();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same >= 20
    });
    last
}

fn await_held(before: (usize, usize)) {
    let no_more = |now: (usize, usize)| now.0 <= before.0 && now.1 <= before.1;
    await_that(&format!("no more descriptors and threads than before, {before:?}"), || no_more(held()));
}

fn movie(folder: &Path) -> PathBuf {
    let movie = folder.join("movie.mp4");
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc=size=1920x1080:rate=30:duration=3", "-pix_fmt", "yuv420p"])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-g", "30", "-bf", "2"])
        .arg(&movie)
        .status();
    assert!(made.expect("ffmpeg is installed").success());
    movie
}

#[test]
fn p4_a_stream_comes_through_bit_by_bit() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    let source = format!("file:{}", movie(folder.path()).display());
    let (sink, told) = sink();
    let here = mos_hal::platform::probe().open(&SourceSpec::parse(&source).unwrap(), false, clock(), sink).unwrap();
    let (expected, end) = all(&told);
    assert!(matches!(end, SourceError::Ended { .. }));
    drop(here);
    let (there, told) = open(&workers(), &source);
    let (units, end) = all(&told);
    assert_eq!(end, SourceError::Ended { what: source });
    let_go(there, "that played a file");
    assert_eq!((units.len(), expected.len()), (90, 90));
    // Both were played at some moment of this machine's clock: the steps between pictures are the same.
    let steps = |units: &[AccessUnit]| -> Vec<i64> {
        units.windows(2).map(|w| w[1].pts.unwrap().since(w[0].pts.unwrap()) / 1000).collect()
    };
    for (unit, expected) in units.iter().zip(&expected) {
        assert!(unit.data == expected.data && unit.format == expected.format && unit.kind == expected.kind);
    }
    assert_eq!(steps(&units), steps(&expected));
    assert!(units.iter().all(|u| u.arrival <= clock().mono()));
    let TrackFormat::Video(video) = &*units[0].format else { panic!("no picture") };
    assert_eq!((video.width, video.height, units[0].kind), (1920, 1080, FrameKind::Idr));
}

#[test]
fn p1_and_p3_a_worker_that_crashes_is_named_and_nothing_of_it_is_left() {
    let _alone = ALONE.lock();
    let scene = "test:?width=160&height=96&fps=20&bitrate=60000";
    let before = settled();
    for signal in [Signal::SIGSEGV, Signal::SIGKILL, Signal::SIGABRT] {
        let (source, told) = open(&workers(), scene);
        await_unit(&told);
        let pids = children();
        assert_eq!(pids.len(), 1);
        // Rust's own handler lets the first SIGSEGV that is sent by a process pass; the second one ends it.
        let end = loop {
            let _ = kill(Pid::from_raw(pids[0]), signal);
            match told.recv_timeout(LONG).expect("the source goes on or ends") {
                News::Unit(_) => {}
                News::Ended(why) => break why.to_string(),
            }
        };
        assert!(end.contains("broke off: its worker was ended by") && end.contains(signal.as_str()), "{end}");
        let_go(source, "that crashed");
    }
    // One that is stopped by the system does not answer; the drop ends it.
    assert_gone_in_time("that was stopped", || {
        let (source, told) = open(&workers(), scene);
        await_unit(&told);
        kill(Pid::from_raw(children()[0]), Signal::SIGSTOP).unwrap();
        source
    });
    // One that works lets go of its camera when it is asked.
    assert_gone_in_time("that works", || {
        let (source, told) = open(&workers(), scene);
        await_unit(&told);
        assert!(source.request_keyframe());
        source
    });
    await_held(before);
}

#[test]
fn p1_programs_that_are_no_workers_end_as_broken() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    let program = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Workers { program: path, board: Options::default(), shared: book() }
    };
    let before = settled();
    for (name, text, why) in [
        ("floods", "exec cat /dev/urandom >&0", "is no message"),
        ("zeros", "exec cat /dev/zero >&0", "is no message"),
        ("leaves", "exit 3", "its worker ended with status 3"),
        (
            "unit",
            "printf '\\034\\000\\000\\000\\002\\000\\000AAAAAAAAAAAAAAAAAAAAAAAAA' >&0; exec cat >/dev/null",
            "without a format",
        ),
    ] {
        let (source, told) = open(&program(name, text), "test:");
        let end = await_end(&told);
        assert!(end.contains("broke off") && end.contains(why), "{name}: {end}");
        let_go(source, name);
    }
    // A teardown that hangs: the process neither reads nor ends.
    let hangs = program("hangs", "trap '' TERM INT HUP; exec sleep 1000");
    let tolds = RefCell::new(Vec::new());
    assert_gone_in_time("that hangs", || {
        let (source, told) = open(&hangs, "test:");
        tolds.borrow_mut().push(told);
        source
    });
    for told in tolds.take() {
        assert!(told.try_recv().is_err(), "a source that was dropped says nothing more");
    }
    await_held(before);
    let absent = Workers { program: folder.path().join("absent"), board: Options::default(), shared: book() };
    let refused = absent.open(&SourceSpec::parse("test:").unwrap(), false, clock(), sink().0, None);
    assert!(matches!(refused, Err(SourceError::Broken { .. })));
}

#[test]
fn p3_nobody_but_the_recorder_starts_a_worker() {
    let _alone = ALONE.lock();
    let by_hand =
        Command::new(env!("CARGO_BIN_EXE_mos")).arg("lens-worker").stdin(std::process::Stdio::null()).output();
    let by_hand = by_hand.unwrap();
    assert_eq!(by_hand.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&by_hand.stderr).contains("a worker is started by the recorder only"));
    let (_source, told) = open(&workers(), "file:/there/is/no/such.mp4");
    let end = all(&told).1;
    assert!(matches!(end, SourceError::Absent { .. }), "{end}");
}

/// P6: a reader of a lens in a worker goes on after the worker was killed, at the same socket.
#[test]
fn p6_readers_of_a_lens_outlive_its_worker() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("road.sock");
    let frames = LensFrames::open(Settings::new(socket.clone()), &Arc::default()).unwrap();
    let scene = SourceSpec::parse("test:?width=160&height=96&fps=20&bitrate=60000").unwrap();
    let mut subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
    let mut read = |frames: u32| {
        let (mut read, mut changes, mut luma) = (0, 0, Vec::new());
        while read < frames {
            match subscriber.next(Some(LONG)) {
                Ok(Some(Received::Frame(frame))) => {
                    read += u32::from(subscriber.copy_plane(&frame, 0, &mut luma).unwrap());
                    assert!(luma.iter().any(|byte| *byte != luma[0]), "a picture");
                    subscriber.release(frame).unwrap();
                }
                Ok(Some(Received::Revoked(_))) => {}
                Ok(None) => panic!("no frame"),
                Err(SubscribeError::Goodbye(Farewell::Reconfigured)) => {
                    changes += 1;
                    subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
                }
                Err(why) => panic!("{why}"),
            }
        }
        changes
    };
    for opening in 0..3 {
        frames.renew();
        let (sink, told) = sink();
        let source = workers().open(&scene, false, clock(), sink, Some(&frames)).unwrap();
        await_unit(&told);
        assert_eq!(read(10), u32::from(opening > 0), "buffers changed once, with the worker");
        let [worker] = children()[..] else { panic!("not one worker") };
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
        let end = await_end(&told);
        assert!(end.contains("SIGKILL"), "{end}");
        let_go(source, "that was killed");
        assert!(!folder.path().join("road.worker").exists(), "nothing of it is left");
    }
    assert!(frames.totals().delivered >= 30);
}

//! 32 readers of which half are hostile, while the built program records a board's cameras: the recorder loses no picture, no
//! camera ever lacks a buffer, the good half get their frames.
//!
//! Judged by counts alone. CPU time is what every process on a machine can take from every other and the bus does not hand
//! out, so whoever is hostile here runs at the lowest priority.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mos_frame::{Received, ReceivedFrame, Subscriber, Wish};
use mos_tests::daemon::Daemon;
use mos_tests::judge::accounts::causes;
use mos_tests::judge::ffmpeg;
use mos_tests::picture::{STRIP_HEIGHT, STRIP_WIDTH, read_number};
use mos_tests::wait_for;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::boards::{CAMX, Rig};
use crate::frames::{on_the_bus, reader_in_python};

#[path = "../../hal/frame/tests/common/mod.rs"]
mod common;

use common::Process;
use common::hostile::{break_rules, cheat, die, greeted, storm};

const LENS: &str = "driver";
const GOOD: usize = 16;
/// Frames that every good reader must get, and see the picture of.
const COUNT: usize = 60;
const LONG: Duration = Duration::from_mins(2);

/// The number in a frame's picture; none if it is no whole picture.
pub(super) fn number(subscriber: &mut Subscriber, frame: &ReceivedFrame) -> Option<u16> {
    let stride = frame.picture().planes[0].stride as usize;
    let luma = subscriber.plane(frame, 0).unwrap();
    assert!(luma.len() >= stride * STRIP_HEIGHT && stride >= STRIP_WIDTH);
    let mut strip = vec![0; STRIP_WIDTH * STRIP_HEIGHT];
    for (row, out) in strip.chunks_mut(STRIP_WIDTH).enumerate() {
        // SAFETY: within the plane, which is mapped as long as the subscriber lives. It may change meanwhile.
        #[allow(unsafe_code, reason = "memory that others may write")]
        unsafe {
            std::ptr::copy_nonoverlapping(luma.cast::<u8>().add(row * stride), out.as_mut_ptr(), STRIP_WIDTH);
        }
    }
    read_number(&strip)
}

/// Takes frames, looks at the numbers in their pictures, gives them back.
fn read(socket: &Path) {
    let mut subscriber = Subscriber::connect(socket, Wish::default()).unwrap();
    let (mut last, mut seen) = (None, 0);
    while seen < COUNT {
        let received = subscriber.next(Some(LONG)).unwrap().expect("a frame");
        let Received::Frame(frame) = received else { continue };
        let number = number(&mut subscriber, &frame);
        if subscriber.is_intact(&frame) {
            assert!(number.is_some(), "a frame that was reported good holds no whole picture");
            assert!(last < number, "{number:?} after {last:?}");
            last = number;
            seen += 1;
        }
        subscriber.release(frame).unwrap();
    }
}

fn subscribers(daemon: &Daemon) -> Vec<Value> {
    on_the_bus(daemon, LENS)["subscribers"].as_array().unwrap().clone()
}

fn count(view: &Value, name: &str) -> u64 {
    view[name].as_u64().unwrap_or_else(|| panic!("no {name} in {view}"))
}

fn humble() {
    // SAFETY: changes the priority of the calling thread (as Linux has it), and nothing else.
    #[allow(unsafe_code, reason = "a call without memory")]
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
    assert_eq!(done, 0);
}

fn python(socket: &Path) -> Process {
    Process::start(Command::new("nice").arg("-n19").arg(reader_in_python()).arg(socket))
}

/// Ends the hostile threads also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets 16 good and 16 hostile readers at a lens until the good ones have what they want.
fn besiege(daemon: &Daemon, socket: &Path) {
    let over = AtomicBool::new(false);
    let reader: PathBuf = reader_in_python();
    std::thread::scope(|scope| {
        let _end = End(&over);
        let good: Vec<_> = (0..GOOD).map(|_| scope.spawn(|| read(socket))).collect();
        wait_for("the good readers", LONG, || (subscribers(daemon).len() == GOOD).then_some(()));

        // Four never read, two are stopped, and ten more come and go.
        let deaf: Vec<_> = (0..4).map(|_| greeted(socket)).collect();
        let stopped: Vec<Process> = (0..2).map(|_| python(socket)).collect();
        let pids: Vec<u64> = stopped.iter().map(|process| u64::from(process.0.id())).collect();
        wait_for("frames at the readers that will be stopped", LONG, || {
            let all = subscribers(daemon);
            let reads = |pid: &u64| all.iter().any(|s| count(s, "pid") == *pid && count(s, "delivered") > 0);
            pids.iter().all(reads).then_some(())
        });
        for process in &stopped {
            process.signal(Signal::SIGSTOP);
        }
        let (over, reader) = (&over, &reader);
        let in_threads = [break_rules, break_rules, break_rules, cheat, cheat, cheat, storm, storm];
        let mut hostile: Vec<_> = in_threads
            .map(|hostile| {
                scope.spawn(move || {
                    humble();
                    hostile(socket, over);
                })
            })
            .into();
        hostile.extend((0..2).map(|_| {
            scope.spawn(move || {
                humble();
                die(reader, socket, over);
            })
        }));
        wait_for("the good readers' frames, and cuts", Duration::from_mins(4), || {
            let done = good.iter().all(std::thread::ScopedJoinHandle::is_finished);
            (done && count(&on_the_bus(daemon, LENS), "cut") >= 50).then_some(())
        });
        for reader in good {
            reader.join().unwrap();
        }
        for held in subscribers(daemon).iter().filter(|s| pids.contains(&count(s, "pid"))) {
            // Starved: it was given what it may hold, and nothing since.
            assert!(count(held, "leased") <= 3 && count(held, "revoked") > 0, "{held}");
        }
        over.store(true, Ordering::Relaxed);
        for hostile in hostile {
            hostile.join().unwrap();
        }
        drop((deaf, stopped));
    });
}

#[test]
fn half_of_32_readers_are_hostile_and_the_recorder_loses_nothing() {
    let rig = Rig::new(&CAMX);
    // Who is trusted maps the camera's buffers, which the doubles else forbid.
    let setup =
        rig.setup("width=640&height=480&fps=10&gop=10&bitrate=1000000", "").environment("MOS_DOUBLES_GUARD", "off");
    let daemon = setup.start();
    for (lens, _) in CAMX.lenses {
        let _ = daemon.await_open(lens, 1.0, LONG);
    }
    let before = daemon.segments(LENS).len();
    let starved = rig.events("starved").len();
    let socket = PathBuf::from(on_the_bus(&daemon, LENS)["socket"].as_str().unwrap());
    besiege(&daemon, &socket);
    wait_for("readers to be gone", LONG, || subscribers(&daemon).is_empty().then_some(()));
    let during = daemon.segments(LENS).len();
    let bus = on_the_bus(&daemon, LENS);
    // A busy machine gives the bus no time for a frame now and then; there was a buffer for each.
    let refused = count(&bus, "refused") - count(&bus, "overtaken");
    assert_eq!((refused, count(&bus, "unreadable"), count(&bus, "copied")), (0, 0, 0), "{bus}");
    // The camera had a buffer for every frame, as before.
    assert_eq!(rig.events("starved").len(), starved, "frames for which the camera had no buffer");

    assert!(during > before + 1, "the siege outlasted a segment");
    for (lens, _) in CAMX.lenses {
        let segments = daemon.await_closed(lens, during + 1, LONG);
        assert_eq!(causes(&daemon, lens), Vec::<String>::new(), "{lens}: {:?}", daemon.gaps(lens));
        let closed = segments.iter().filter(|segment| segment["state"] != "open");
        let numbers: Vec<u16> = closed.flat_map(|segment| ffmpeg::all_numbers(&daemon.file(segment))).collect();
        let missing: Vec<&[u16]> = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
        assert_eq!(missing, Vec::<&[u16]>::new(), "{lens}: pictures that are not recorded");
    }
    daemon.stop();
}

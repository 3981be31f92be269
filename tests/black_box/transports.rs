//! All transports at once: one recorder with a MIPI lens and a GMSL lens of a board, a V4L2 camera, RTSP, SRT and, where it is built in,
//! WHEP. Each is recorded and read over the frame bus, and neither the recorder's rows nor its files nor the bus tell which is which.
//!
//! The board and the V4L2 camera are doubles; the network cameras are real servers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use mos_frame::wire::Farewell;
use mos_frame::{Received, SubscribeError, Subscriber, Wish};
use mos_tests::camera::Camera;
use mos_tests::daemon::Daemon;
use mos_tests::judge::archive::assert_tiled;
use mos_tests::judge::ffmpeg;
use mos_tests::srt::SrtCamera;
use mos_tests::streams::{Kind as Coding, Stream};
use mos_tests::whep::{Aiortc, TOKEN};
use mos_tests::{free_port, wait_for};
use serde_json::{Map, Value, json};

use crate::boards::{CAMX, Kind, Rig};
use crate::frames::on_the_bus;
use crate::siege::number;

const LONG: Duration = Duration::from_mins(2);
/// What raw cameras are asked for; the streams of the network cameras are alike.
const OPTIONS: &str = "width=640&height=360&fps=15&gop=15&bitrate=800000";
/// Frames that each reader takes.
const COUNT: usize = 10;

/// The lenses `driver` (MIPI CSI-2) and `left` (GMSL) of the RB3, and a camera on V4L2.
static BOARD: Kind =
    Kind { doubles: "qcs6490-camx,v4l2src-viv", cameras: "0,2,/dev/video82", cards: &[(82, "USB camera")], ..CAMX };

/// A value with the kinds of its parts in place of the parts.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("nothing"),
        Value::Bool(_) => json!("flag"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("text"),
        Value::Array(parts) => parts.iter().map(shape).take(1).collect(),
        Value::Object(parts) => {
            parts.iter().map(|(key, part)| (key.clone(), shape(part))).collect::<Map<_, _>>().into()
        }
    }
}

/// What came of a call to the bus; `None` if the lens is opened anew, as on a busy machine, and who reads it is to connect again.
fn unless_anew<T>(done: Result<T, SubscribeError>) -> Option<T> {
    match done {
        Err(SubscribeError::Goodbye(Farewell::Reconfigured)) => None,
        done => Some(done.unwrap()),
    }
}

/// Reads frames of a lens, each with its number in the picture, and tells what describes them.
fn read(socket: &Path) -> String {
    let connected =
        || wait_for("a lens that is open", LONG, || unless_anew(Subscriber::connect(socket, Wish::default())));
    let mut subscriber = connected();
    let (mut last, mut seen) = (None, 0);
    let mut described = String::new();
    let begun = Instant::now();
    while seen < COUNT {
        assert!(begun.elapsed() < LONG, "{}: {seen} frames in {LONG:?}", socket.display());
        let Some(received) = unless_anew(subscriber.next(Some(LONG))) else {
            subscriber = connected();
            continue;
        };
        let Received::Frame(frame) = received.expect("a frame") else { continue };
        let (shown, picture) = (number(&mut subscriber, &frame), frame.picture());
        let (format, planes) = (picture.fourcc, picture.planes.len());
        described = format!("{format} {:?} {}x{}, {planes} planes", picture.modifier, picture.width, picture.height);
        let time = frame.captured();
        if subscriber.is_intact(&frame) {
            assert!(shown.is_some(), "{}: no whole picture", socket.display());
            assert!(last < Some(time), "{}: {time} after {last:?}", socket.display());
            last = Some(time);
            seen += 1;
        }
        match subscriber.release(frame) {
            // The next call tells why.
            Err(SubscribeError::Closed) => {}
            done => done.unwrap(),
        }
    }
    described
}

/// What the recorder says and writes of a lens, without what is its own.
fn recorded(daemon: &Daemon, lens: &str) -> Value {
    let segments = daemon.await_closed(lens, 2, LONG);
    assert_tiled(&segments, &daemon.gaps(lens), 0.1);
    let segment = segments.iter().find(|s| s["state"] != "open").unwrap();
    let file = daemon.file(segment);
    ffmpeg::assert_decodes(&file);
    assert!(ffmpeg::all_numbers(&file).len() > 5, "{lens}: no numbers in its pictures");
    let probed = ffmpeg::probe(&file);
    let streams = probed["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 1, "{lens}: pictures only");
    let (video, format) = (&streams[0], &probed["format"]);
    json!({
        "row": shape(segment),
        "bus": shape(&on_the_bus(daemon, lens)),
        "codec": [video["codec_name"], video["codec_tag_string"], video["time_base"], video["width"], video["height"]],
        "container": [format["format_name"], shape(&format["tags"])],
    })
}

#[test]
fn the_recorder_and_the_bus_cannot_tell_which_lens_is_which() {
    let stream = Stream::get(Coding::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let port = free_port();
    let rig = Rig::new(&BOARD);
    let setup = rig
        .setup(OPTIONS, "")
        // The readers look at the pixels.
        .environment("MOS_DOUBLES_GUARD", "off")
        .camera("usb", &format!("v4l2:/dev/video82?{OPTIONS}"))
        .camera("rtsp", &camera.url(0))
        // What comes later than the latency is dropped by SRT itself, which a busy machine may well bring about.
        .camera("srt", &format!("srt://127.0.0.1:{port}?latency=3000"));
    let webrtc = cfg!(feature = "whep").then(|| Aiortc::start(&stream, free_port(), None)).flatten();
    let setup = match &webrtc {
        Some(server) => setup.camera("webrtc", &server.source(&format!("{TOKEN}@"), "whep")),
        None => setup,
    };
    // It begins when it is called.
    let _sender = SrtCamera::start(&stream, &format!("srt://:{port}?mode=listener"));
    let daemon = setup.start();
    let mut lenses = vec!["srt", "driver", "left", "usb", "rtsp"];
    lenses.extend(webrtc.as_ref().map(|_| "webrtc"));
    let sockets: Vec<_> = lenses
        .iter()
        .map(|lens| {
            let _ = daemon.await_open(lens, 0.5, LONG);
            let socket = on_the_bus(&daemon, lens)["socket"].as_str().unwrap().to_owned();
            std::thread::spawn(move || read(Path::new(&socket)))
        })
        .collect();
    let seen: BTreeMap<&str, String> =
        lenses.iter().copied().zip(sockets.into_iter().map(|reader| reader.join().unwrap())).collect();
    // What shows of a reader is not compared.
    let read = |lens: &&str| on_the_bus(&daemon, lens)["subscribers"].as_array().is_some_and(|all| !all.is_empty());
    wait_for("readers to be gone", LONG, || (!lenses.iter().any(read)).then_some(()));
    let known: BTreeMap<&str, Value> = lenses.iter().map(|lens| (*lens, recorded(&daemon, lens))).collect();
    for lens in &lenses {
        assert_eq!(seen[lens], seen["driver"], "{lens} on the bus");
        assert_eq!(known[lens], known["driver"], "{lens} in the archive");
    }
    // What is asked is where it differs: nobody else knows.
    let status = daemon.client.get("/v1/capture/status").json();
    let sources: Vec<&str> =
        status["lenses"].as_array().unwrap().iter().map(|lens| lens["source"].as_str().unwrap()).collect();
    let schemes = ["board:driver", "board:left", "v4l2:", "rtsp:", "srt:"];
    for scheme in schemes.into_iter().chain(webrtc.as_ref().map(|_| "whep+http:")) {
        assert!(sources.iter().any(|source| source.starts_with(scheme)), "{scheme} is not in {sources:?}");
    }
    daemon.stop();
}

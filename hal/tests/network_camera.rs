//! `rtsp://` against a real server.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used)]

mod rig;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use mos_hal::demo::{Login, RtspServer};
use mos_hal::media::{FrameKind, TrackFormat, VideoCodec};
use mos_hal::source::{SourceError, TestPattern, Transport};
use rig::{
    Collector, footage, frame_numbers, is_video, open_over, parameter_sets, picture_hashes, raw_file, video_format,
};

/// Every promise holds over both.
const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Udp];

/// A file of H.264 or H.265 as a camera.
fn camera(file: &Path, codec: &str, login: Login) -> RtspServer {
    let text = format!(
        "( filesrc location={} ! qtdemux name=d d.video_0 ! queue ! {codec}parse ! rtp{codec}pay name=pay0 pt=96 config-interval=-1 d.audio_0 ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97 )",
        file.display()
    );
    RtspServer::launch(&text, login).unwrap()
}

fn end_of(transport: Transport, spec: &str) -> SourceError {
    let (source, sink) = open_over(transport, spec, false);
    let _source = source.unwrap();
    sink.end().1
}

fn contains_secret(why: &SourceError, server: &RtspServer) -> bool {
    let text = format!("{why} {why:?}");
    text.contains(server.password()) || text.contains("viewer")
}

#[test]
fn a_scene_with_digest_login_arrives_whole() {
    let dir = tempfile::tempdir().unwrap();
    let server = RtspServer::start().unwrap();
    for transport in BOTH {
        let (source, sink) = open_over(transport, &server.url(), false);
        let source = source.unwrap();
        let units = sink.video(60);
        drop(source);
        let format = video_format(&units[0]);
        assert_eq!((format.codec, format.width, format.height, format.reorder), (VideoCodec::H264, 1280, 720, 0));
        assert_eq!(units[0].kind, FrameKind::Idr);
        let numbers = frame_numbers(&raw_file(dir.path(), &units));
        assert_eq!(numbers.len(), units.len());
        assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "{numbers:?}");
        assert!(units.windows(2).all(|w| w[0].pts < w[1].pts && !w[1].discontinuity));
    }
}

/// All pictures of a file that a server sends, as they are in the file, with the file's spacing.
fn arrives_whole(codec: &[&str], name: &str, login: Login, reorder: u8) {
    let dir = tempfile::tempdir().unwrap();
    let file = footage(dir.path(), "a.mp4", 3, 25, codec);
    let server = camera(&file, name, login);
    let formats = BOTH.map(|transport| whole_over(transport, dir.path(), &file, &server, reorder));
    assert_eq!(formats[0], formats[1], "the parameter sets do not depend on the transport");
}

/// What must not depend on the transport. (`hvcC` also tells whether more sets may come with the pictures.)
type Described = (Vec<Vec<u8>>, (u32, u32), u8, Option<u64>);

fn whole_over(transport: Transport, dir: &Path, file: &Path, server: &RtspServer, reorder: u8) -> Described {
    let (source, sink) = open_over(transport, &server.url(), true);
    let source = source.unwrap();
    let units = sink.video(60);
    drop(source);
    let video: Vec<_> = units.iter().filter(|u| is_video(u)).take(50).cloned().collect();
    assert_eq!(video_format(&video[0]).reorder, reorder);
    assert!(video[0].kind != FrameKind::Delta, "{:?}", video[0].kind);
    let sent = picture_hashes(file);
    let got = picture_hashes(&raw_file(dir, &video));
    // The last pictures of a cut stream may lack the ones they refer to.
    assert_eq!(got[..40], sent[..40]);
    let mut times: Vec<i64> = video.iter().map(|u| u.pts.unwrap().0).collect();
    times.sort_unstable();
    let steps: Vec<i64> = times.windows(2).map(|w| (w[1] - w[0]) / 1_000_000).collect();
    assert!(steps[..40].iter().all(|s| (36..=44).contains(s)), "{steps:?}");
    let sound: Vec<_> = units.iter().filter(|u| !is_video(u)).collect();
    assert!(sound.len() > 50, "{} frames of sound", sound.len());
    assert!(matches!(&*sound[0].format, TrackFormat::Audio(a) if a.sample_rate() == 48_000));
    let format = video_format(&video[0]);
    (parameter_sets(format), (format.width, format.height), format.reorder, format.frame_duration)
}

#[test]
fn h264_with_b_frames_and_sound() {
    arrives_whole(&["libx264", "-bf", "3", "-b_strategy", "0", "-g", "25"], "h264", Login::Digest, 2);
}

#[test]
fn h265_with_basic_login() {
    let params = "log-level=error:bframes=0";
    arrives_whole(&["libx265", "-g", "25", "-x265-params", params, "-tag:v", "hvc1"], "h265", Login::Basic, 0);
}

#[test]
fn h265_with_open_gops() {
    let params = "log-level=error:bframes=3:b-adapt=0:open-gop=1:keyint=25:min-keyint=25:scenecut=0";
    arrives_whole(&["libx265", "-x265-params", params, "-tag:v", "hvc1"], "h265", Login::Digest, 2);
}

#[test]
fn sound_is_not_set_up_unless_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = footage(dir.path(), "a.mp4", 2, 25, &["libx264", "-bf", "0"]);
    let server = camera(&file, "h264", Login::Digest);
    for transport in BOTH {
        let (source, sink) = open_over(transport, &server.url(), false);
        let source = source.unwrap();
        assert!(sink.video(25).iter().all(is_video));
        drop(source);
    }
}

#[test]
fn refusals_have_their_kind_and_no_secret() {
    let server = RtspServer::start().unwrap();
    for over in BOTH {
        let wrong = end_of(over, &server.url_as("viewer", "hunter2"));
        assert!(matches!(wrong, SourceError::Refused { .. }), "{wrong}");
        assert!(wrong.to_string().contains("user name and password"), "{wrong}");
        assert!(!wrong.to_string().contains("hunter2") && !contains_secret(&wrong, &server), "{wrong}");
        let none = end_of(over, &format!("rtsp://127.0.0.1:{}/cabin", server.port()));
        assert!(matches!(none, SourceError::Refused { .. }), "{none}");
        let path = end_of(over, &server.url().replace("/cabin", "/nowhere"));
        assert!(matches!(path, SourceError::Refused { .. }), "{path}");
        assert!(!contains_secret(&path, &server), "{path}");
    }
}

#[test]
fn a_dead_port_is_absent() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for over in BOTH {
        let why = end_of(over, &format!("rtsp://viewer:hunter2@127.0.0.1:{port}/cabin"));
        assert!(matches!(why, SourceError::Absent { .. }), "{why}");
        assert!(!why.to_string().contains("hunter2"), "{why}");
    }
    // Credentials that are part of any text do not hide the cause.
    let why = end_of(Transport::Auto, &format!("rtsp://u:e@127.0.0.1:{port}/x"));
    assert!(matches!(why, SourceError::Absent { .. }), "{why}");
    assert!(why.to_string().contains("refused"), "{why}");
}

#[test]
fn a_camera_that_dies_broke_off() {
    for over in BOTH {
        let server = RtspServer::start().unwrap();
        let (source, sink) = open_over(over, &server.url(), false);
        let source = source.unwrap();
        sink.video(10);
        drop(server);
        let (_, why) = sink.end();
        drop(source);
        assert!(matches!(why, SourceError::Broken { .. }), "{why}");
    }
}

#[test]
fn what_is_no_camera_is_not_taken_for_one() {
    let pattern = "( videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=64 ! jpegenc ! rtpjpegpay name=pay0 pt=26 )";
    let server = RtspServer::launch(pattern, Login::Digest).unwrap();
    for over in BOTH {
        let why = end_of(over, &server.url());
        assert!(matches!(why, SourceError::Unsupported { .. }), "{why}");
        assert!(over == Transport::Udp || why.to_string().contains("video/jpeg"), "{why}");
    }
}

#[test]
fn eight_cameras_share_one_thread_and_keep_their_pace() {
    let pattern = TestPattern { width: 384, height: 128, fps: 25, gop: 25, bitrate: 200_000, ..TestPattern::default() };
    let server = RtspServer::scene(pattern).unwrap();
    let running: Vec<(_, std::sync::Arc<Collector>)> =
        (0..8).map(|_| open_over(Transport::Tcp, &server.url(), false)).collect();
    let threads = || {
        let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        names.filter(|t| std::fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.trim() == "mos-rtsp")).count()
    };
    for (_, sink) in &running {
        let units = sink.video(50);
        let last = &units[units.len() - 1];
        let late = last.arrival.since(last.pts.unwrap());
        assert!(late < 2_000_000_000, "{late} ns late");
    }
    assert_eq!(threads(), 1);
}

/// A wire to the server on port `to` that does something to the video packets: `tamper` gets the number and the bytes of each
/// and says whether it goes on.
fn wire(to: u16, mut tamper: impl FnMut(usize, &mut Vec<u8>) -> bool + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
        let (mut server, mut client) = (BufReader::new(server), client);
        let mut number = 0;
        // Ends when either side closes.
        while let Some((message, video)) = message(&mut server) {
            let mut message = message;
            let goes_on = !video || tamper(number, &mut message);
            number += usize::from(video);
            if goes_on && client.write_all(&message).is_err() {
                break;
            }
        }
    });
    port
}

/// A response or an interleaved packet (RFC 2326 section 10.12), and whether it is a video packet.
fn message(server: &mut impl BufRead) -> Option<(Vec<u8>, bool)> {
    let mut bytes = vec![0; 4];
    server.read_exact(&mut bytes[..1]).ok()?;
    if bytes[0] == b'$' {
        server.read_exact(&mut bytes[1..]).ok()?;
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        bytes.resize(4 + length, 0);
        server.read_exact(&mut bytes[4..]).ok()?;
        let video = bytes[1] == 0;
        return Some((bytes, video));
    }
    bytes.truncate(1);
    let mut body = 0;
    loop {
        let start = bytes.len();
        server.read_until(b'\n', &mut bytes).ok()?;
        let line = String::from_utf8_lossy(&bytes[start..]).to_ascii_lowercase();
        if let Some(length) = line.strip_prefix("content-length:") {
            body = length.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let start = bytes.len();
    bytes.resize(start + body, 0);
    server.read_exact(&mut bytes[start..]).ok()?;
    Some((bytes, false))
}

#[test]
fn loss_is_told_and_damage_does_not_end_the_session() {
    let dir = tempfile::tempdir().unwrap();
    // Keyframes only: each frame decodes without the ones before.
    let pattern = TestPattern { width: 384, height: 128, fps: 25, gop: 1, bitrate: 400_000, ..TestPattern::default() };
    let server = RtspServer::scene(pattern).unwrap();
    let port = wire(server.port(), |number, packet| {
        match number {
            // RTP version 1: no such thing.
            40 => packet[4] = 0x40,
            // A NAL type that RTP does not have.
            60 => packet[16] = 0x7f,
            80 => packet.truncate(4 + 5),
            _ => {}
        }
        let length = (packet.len() - 4) as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        number != 20
    });
    // A slow start over TCP is no reason to ask over UDP, which the wire does not know.
    let url = server.url().replace(&server.port().to_string(), &port.to_string());
    let (source, sink) = open_over(Transport::Tcp, &url, false);
    let source = source.unwrap();
    let units = sink.video(120);
    drop(source);
    let told = units.iter().filter(|u| u.discontinuity).count();
    // A damaged packet may hold parameter sets only: then no picture is missing, but that cannot be known.
    assert_eq!(told, 4, "each of four damaged packets is told once");
    let numbers = frame_numbers(&raw_file(dir.path(), &units));
    for (i, pair) in numbers.windows(2).enumerate() {
        assert!(pair[1] == pair[0] + 1 || units[i + 1].discontinuity, "{pair:?} in silence");
    }
    assert!(numbers[numbers.len() - 1] - numbers[0] > units.len() as u64 - 1, "something was missing");
}

#[test]
fn a_change_of_parameter_sets_in_the_stream_is_a_new_format() {
    let dir = tempfile::tempdir().unwrap();
    let mut both = Vec::new();
    for (i, size) in ["320x240", "640x360"].iter().enumerate() {
        let file = dir.path().join(format!("{i}.h264"));
        let source = format!("testsrc2=size={size}:rate=25:duration=1");
        let args = ["-f", "lavfi", "-i", &source, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", "0", "-g", "25"];
        rig::ffmpeg(&[&args[..], &[file.to_str().unwrap()]].concat());
        both.extend(std::fs::read(&file).unwrap());
    }
    let file = dir.path().join("both.h264");
    std::fs::write(&file, both).unwrap();
    let text = format!("( filesrc location={} ! h264parse ! rtph264pay name=pay0 pt=96 )", file.display());
    let server = RtspServer::launch(&text, Login::Digest).unwrap();
    for over in BOTH {
        changes_once(&server, over, dir.path());
    }
}

fn changes_once(server: &RtspServer, over: Transport, dir: &Path) {
    let (source, sink) = open_over(over, &server.url(), false);
    let source = source.unwrap();
    let units = sink.video(40);
    drop(source);
    let widths: Vec<u32> = units.iter().map(|u| video_format(u).width).collect();
    let change = widths.iter().position(|w| *w == 640).unwrap();
    assert!(widths[..change].iter().all(|w| *w == 320) && widths[change..].iter().all(|w| *w == 640), "{widths:?}");
    assert_eq!(units[change].kind, FrameKind::Idr);
    assert_eq!(change, 25);
    assert_eq!(picture_hashes(&raw_file(dir, &units)).len(), units.len());
}

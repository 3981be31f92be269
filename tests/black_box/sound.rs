//! Sound that comes as G.711: recorded as it was sent, over TCP and UDP, and cut in step with the pictures. That of AAC is with
//! the clips, sound that comes late with the cameras' quirks.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mos_tests::camera::{Camera, Manner};
use mos_tests::cli::tool;
use mos_tests::daemon::Setup;
use mos_tests::judge::archive::{assert_pictures, assert_tiled};
use mos_tests::judge::{chromium, ffmpeg, gstreamer};
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use serde_json::Value;

use crate::clips::cut;
use crate::quirks::{assert_g711, assert_g711_pieces};

const LONG: Duration = Duration::from_mins(2);

/// The sound track as ffprobe and, packet by packet, GStreamer find it.
fn assert_track(file: &Path, codec: &str, caps: &str) {
    let probed = ffmpeg::probe(file);
    let streams = probed["streams"].as_array().unwrap();
    let sound: Vec<&Value> = streams.iter().filter(|s| s["codec_type"] == "audio").collect();
    assert_eq!(sound.len(), 1, "{codec}: {probed}");
    let told = [&sound[0]["codec_name"], &sound[0]["sample_rate"], &sound[0]["channels"]];
    assert_eq!(told, [&Value::from(codec), &"8000".into(), &1.into()]);
    gstreamer::assert_plays_pushed(file);
    let text = format!(
        "filesrc location={} ! qtdemux name=d d.audio_0 ! {caps},rate=8000,channels=1 ! fdsink",
        file.display()
    );
    let bytes = tool(Command::new("timeout").args(["240", "gst-launch-1.0", "-q"]).args(text.split_whitespace()));
    assert!(bytes.len() > 8_000, "GStreamer finds {} bytes of sound in {}", bytes.len(), file.display());
}

#[test]
fn g711_is_recorded_and_cut_as_it_was_sent() {
    let streams = [Stream::get(Kind::H264Pcma), Stream::get(Kind::H264Pcmu)];
    let camera = Camera::open(&streams);
    let over_udp = Camera::with(&streams[1..], Manner { udp_only: true, ..Manner::default() });
    let folder = tempfile::tempdir().unwrap();
    let with = |transport: &str| format!("audio = true\ntransport = \"{transport}\"");
    let setup = Setup::new()
        .storage("segment_seconds", "4")
        .camera_with("a_law", &camera.url(0), &with("tcp"))
        .camera_with("mu_law", &camera.url(1), &with("tcp"))
        .camera_with("mu_law_udp", &over_udp.url(0), &with("udp"));
    let daemon = setup.start();
    for (lens, stream, law) in
        [("a_law", &streams[0], "alaw"), ("mu_law", &streams[1], "mulaw"), ("mu_law_udp", &streams[1], "mulaw")]
    {
        let segments = daemon.await_closed(lens, 2, LONG);
        assert_tiled(&segments, &daemon.gaps(lens), 0.05);
        // The first may begin before its sound does, and one that a busy machine had to begin again may be short.
        let segment = &wait_for("a whole segment with sound", LONG, || {
            let closed = daemon.segments(lens).into_iter().filter(|s| s["state"] != "open");
            closed.skip(1).find(|s| s["frames"].as_u64() > Some(70))
        });
        let file = daemon.file(segment);
        assert_track(&file, &format!("pcm_{law}"), &format!("audio/x-{law}"));
        let sent = folder.path().join(lens);
        tool(
            Command::new("ffmpeg")
                .args(["-nostdin", "-v", "error", "-i"])
                .arg(&stream.path)
                .args(["-map", "0:a", "-c", "copy", "-f", law])
                .arg(&sent),
        );
        if lens == "mu_law_udp" {
            assert_g711_pieces(&file, &sent, law, lens);
            continue;
        }
        let _ = assert_pictures(&file, stream);
        assert_g711(&file, &sent, law, lens);
        let times = ffmpeg::times(&file, "v");
        let out = folder.path().join(format!("{lens}.mp4"));
        let _ = cut(&daemon, segment, times[13], times[63], &out);
        let shown = assert_pictures(&out, stream);
        assert_eq!(chromium::first_and_last(&out), (shown[0], shown[shown.len() - 1]), "{lens} in Chromium");
        assert_track(&out, &format!("pcm_{law}"), &format!("audio/x-{law}"));
        assert_g711(&out, &sent, law, lens);
        // Decoded sound, trimmed by its edit list, is as long as the pictures to within one packet.
        let raw = tool(
            Command::new("ffmpeg")
                .args(["-nostdin", "-v", "error", "-i", out.to_str().unwrap()])
                .args(["-map", "0:a", "-f", "s16le", "-"]),
        );
        let seconds = raw.len() as f64 / (2.0 * 8_000.0);
        assert!((seconds - 2.0).abs() <= 0.021, "{lens}: {seconds} s of sound for 2 s of pictures");
        assert!(ffmpeg::times(&out, "a")[0] <= 0.021, "{lens}: sound starts late");
    }
}

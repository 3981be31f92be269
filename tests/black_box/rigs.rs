//! The rigs themselves, judged by ffmpeg and GStreamer: a test is worth what its camera is worth.

use std::process::Command;

use mos_tests::camera::Camera;
use mos_tests::cli::{outcome, tool};
use mos_tests::disk::SmallDisk;
use mos_tests::judge::{chromium, ffmpeg, gstreamer};
use mos_tests::sshd::Sshd;
use mos_tests::streams::{Kind, Stream};

#[test]
fn every_stream_numbers_its_frames() {
    for kind in Kind::RECORDED {
        let stream = Stream::get(kind);
        let numbers = ffmpeg::all_numbers(&stream.path);
        assert_eq!(numbers.len(), stream.frames as usize, "{kind:?}");
        ffmpeg::assert_consecutive(&numbers, stream.frames);
        assert_eq!(ffmpeg::probe(&stream.path)["streams"][0]["codec_name"], kind.codec().replace("h265", "hevc"));
    }
}

#[test]
fn gstreamer_reads_the_same_numbers() {
    let stream = Stream::get(Kind::H264B3);
    let numbers = gstreamer::numbers(&stream.path, stream.width, stream.height);
    assert_eq!(numbers, ffmpeg::numbers(&stream.path));
}

#[test]
fn a_camera_delivers_what_it_says_it_sent() {
    let streams = [Stream::get(Kind::H264B3), Stream::get(Kind::H264Aac)];
    let camera = Camera::locked(&streams);
    let folder = tempfile::tempdir().unwrap();
    for (mount, stream) in streams.iter().enumerate() {
        let file = folder.path().join(format!("{mount}.mkv"));
        let mut record = Command::new("ffmpeg");
        record.args(["-nostdin", "-v", "error", "-rtsp_transport", "tcp", "-i", &camera.url(mount)]);
        tool(record.args(["-c", "copy", "-t", "3"]).arg(&file));
        let shown: Vec<u16> = ffmpeg::numbers(&file).into_iter().flatten().collect();
        let sent: Vec<u64> = camera.sent(mount).iter().map(|s| s.number % u64::from(stream.frames)).collect();
        assert!(shown.len() > 40, "{} frames came", shown.len());
        assert!(shown.iter().all(|n| sent.contains(&u64::from(*n))), "{shown:?} of {sent:?}");
        assert_eq!(ffmpeg::probe(&file)["streams"].as_array().unwrap().len(), if mount == 1 { 2 } else { 1 });
    }
}

#[test]
fn a_locked_camera_refuses_a_wrong_password() {
    let camera = Camera::locked(&[Stream::get(Kind::H264)]);
    let probed = outcome(Command::new("ffprobe").args(["-v", "error", "-rtsp_transport", "tcp", &camera.wrong_url()]));
    assert_ne!(probed.code, 0);
    assert!(probed.err.contains("401"), "{}", probed.err);
}

#[test]
fn chromium_reads_the_same_numbers() {
    let stream = Stream::get(Kind::H264B3);
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("short.mp4");
    let mut cut = Command::new("ffmpeg");
    tool(
        cut.args(["-nostdin", "-v", "error", "-i"])
            .arg(&stream.path)
            .args(["-t", "2", "-c:v", "libx264", "-preset", "ultrafast"])
            .arg(&short),
    );
    let numbers = ffmpeg::all_numbers(&short);
    assert_eq!(chromium::first_and_last(&short), (numbers[0], *numbers.last().unwrap()));
}

#[test]
fn the_ssh_server_takes_its_key_and_no_other() {
    let sshd = Sshd::start();
    let reach = |identity: &std::path::Path| {
        let uri = sshd.uri();
        let (login, path) = uri.trim_start_matches("sftp://").split_once('/').unwrap();
        let (host, port) = login.rsplit_once(':').unwrap();
        let mut sftp = Command::new("sftp");
        sftp.args(["-P", port, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        sftp.args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-F", "none", "-i"]).arg(identity);
        outcome(sftp.arg(format!("{host}:/{path}")))
    };
    assert_eq!(reach(&sshd.identity()).code, 0, "{}", sshd.log());
    assert_ne!(reach(&sshd.stranger()).code, 0);
    assert!(sshd.fingerprint().starts_with("SHA256:") && sshd.fingerprint() != sshd.wrong_fingerprint());
}

#[test]
fn a_small_disk_can_be_filled_to_the_last_block() {
    let disk = SmallDisk::mount(2);
    assert!(disk.free() > 1 << 20);
    let file = disk.fill();
    assert_eq!(disk.free(), 0);
    std::fs::remove_file(file).unwrap();
    assert!(disk.free() > 1 << 20);
}

//! Reducing what the daemon recorded: by the command, and while it is sent.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use mos_tests::camera::Camera;
use mos_tests::cli::{Mos, tool};
use mos_tests::daemon::{Setup, id};
use mos_tests::sshd::Sshd;
use mos_tests::streams::{Kind, Stream};

use crate::clips::closed;

/// Every packet with its times, as ffmpeg finds them.
fn packets(file: &Path) -> String {
    let mut ffmpeg = Command::new("ffmpeg");
    let seen =
        tool(ffmpeg.args(["-v", "error", "-i"]).arg(file).args(["-map", "0", "-c", "copy", "-f", "framemd5", "-"]));
    String::from_utf8(seen).unwrap()
}

#[test]
fn a_segment_is_reduced_by_the_command_and_on_its_way_to_the_same_bytes() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().storage("segment_seconds", "2").camera("road", &camera.url(0));
    let daemon = setup.start();
    let segment = closed(&daemon, "road", 40);
    let file = daemon.file(&segment);
    let (input, output) = (file.to_str().unwrap(), setup.folder().join("reduced.mp4"));
    let length = |path: &Path| std::fs::metadata(path).unwrap().len();

    let done = daemon.mos.run(&["reduce", input, output.to_str().unwrap(), "--json"]);
    assert_eq!(done.code, 0, "{}", done.err);
    let told = done.json();
    assert!(told["media_bytes"].as_u64().unwrap() > 0, "the heads of the fragments are of no use any more: {told}");
    assert_eq!(told["output_bytes"], length(&output));
    assert_eq!(told["saved_bytes"], length(&file) - length(&output));
    assert!(packets(&file).lines().count() > 30);
    assert_eq!(packets(&output), packets(&file));

    let sshd = Sshd::start();
    let (key, identity) = (sshd.fingerprint(), sshd.identity());
    let to = format!("{}sent.mp4", sshd.uri());
    let how = ["--host-key", &key, "--identity", identity.to_str().unwrap(), "--reduce"];
    let sent = daemon.mos.run(&[&["upload", input, "--to", &to][..], &how].concat());
    assert_eq!(sent.code, 0, "{}", sent.err);
    assert!(std::fs::read(sshd.upload().join("sent.mp4")).unwrap() == std::fs::read(&output).unwrap());

    // A clip too: what describes it stays, and so does what it shows.
    let clip = daemon.mos.run(&["clip", id(&segment), "--from", "0.3", "--to", "1.4", "--json"]).json();
    let clip = daemon.file(&clip);
    let small = setup.folder().join("clip.mp4");
    let done = daemon.mos.run(&["reduce", clip.to_str().unwrap(), small.to_str().unwrap()]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(length(&small) <= length(&clip));
    assert_eq!(packets(&small), packets(&clip));
    let sent = daemon.mos.run(&[&["upload", clip.to_str().unwrap(), "--to", &sshd.uri()][..], &how].concat());
    assert_eq!(sent.code, 0, "{}", sent.err);
    let arrived = sshd.upload().join(clip.file_name().unwrap());
    assert!(std::fs::read(arrived).unwrap() == std::fs::read(&small).unwrap());

    // What is broken is said to be, and nothing is left of it.
    let (broken, none) = (setup.folder().join("broken.mp4"), setup.folder().join("none.mp4"));
    std::fs::write(&broken, &std::fs::read(&file).unwrap()[..1000]).unwrap();
    let refused = daemon.mos.run(&["reduce", broken.to_str().unwrap(), none.to_str().unwrap()]);
    let said = refused.error();
    assert!(said.contains("no sound MP4 file: at byte"), "{said}");
    assert!(!none.exists());
}

/// A killed `mos reduce` leaves neither an output nor a part of one.
#[test]
fn a_reduction_that_is_killed_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.mov"), folder.path().join("out.mov"));
    let mut ffmpeg = Command::new("ffmpeg");
    let scene = ["-v", "error", "-f", "lavfi", "-i", "color=gray:size=1920x1080:rate=25", "-frames:v", "60"];
    tool(ffmpeg.args(scene).args(["-c:v", "rawvideo", "-pix_fmt", "yuv420p"]).arg(&input));
    let written = |pid: u32| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let sizes =
            fds.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.starts_with(folder.path()) && to != input));
        sizes.filter_map(|fd| Some(std::fs::metadata(fd.path()).ok()?.len())).max().unwrap_or(0)
    };
    let killed = (0..50).any(|_| {
        let _ = std::fs::remove_file(&output);
        let mut mos = Mos::default().command(&["reduce", input.to_str().unwrap(), output.to_str().unwrap()]);
        let mut child = mos.stdout(Stdio::null()).spawn().unwrap();
        let mut ended = None;
        while ended.is_none() && written(child.id()) == 0 {
            ended = child.try_wait().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap().signal() == Some(9)
    });
    assert!(killed, "every reduction was over before it was killed");
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["in.mov"]);
}

//! What is turned away at the door.

use std::fs;
use std::os::unix::fs::symlink;

use mos_hal::clock::Mono;
use russh::keys::ssh_key::LineEnding;

use super::rig::{Rig, request};
use crate::archive::{Row, SegmentState};
use crate::demo::sftp_server::{SftpServer, fresh_key};
use crate::upload::failure::Refused;
use crate::upload::job::JobState;
use crate::upload::queue::{Limits, UploadRequest};

const PIN: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn call(path: &str) -> UploadRequest {
    let identity = fresh_key().unwrap().to_openssh(LineEnding::LF).unwrap();
    // TEST-NET-1 (RFC 5737): nobody answers.
    request(path, "sftp://u@192.0.2.1/in/", PIN, &identity)
}

/// Invariant 5.
#[test]
fn only_files_of_the_archives_folders_are_sent() {
    let rig = Rig::new();
    rig.clip("good.mp4", 10);
    rig.clip(".unfinished.mp4", 10);
    fs::write(rig.root.join("index/state"), "x").unwrap();
    fs::write(rig.inbox.join("secret"), "x").unwrap();
    symlink(rig.inbox.join("secret"), rig.root.join("clips/link.mp4")).unwrap();
    symlink(&rig.inbox, rig.root.join("clips/linked")).unwrap();
    fs::create_dir_all(rig.root.join("segments/road/1")).unwrap();
    fs::write(rig.root.join("segments/road/1/gaps.jsonl"), "x").unwrap();
    let absolute = rig.root.join("clips/good.mp4").display().to_string();
    for good in ["clips/good.mp4", absolute.as_str()] {
        assert!(rig.uploads.submit(&call(good)).is_ok(), "{good}");
    }
    let outside = rig.inbox.join("secret").display().to_string();
    for bad in [
        "",
        "clips",
        "clips/",
        "clips/link.mp4",
        "clips/linked/secret",
        "clips/../index/state",
        "clips/../../inbox/secret",
        "index/state",
        "run",
        "/etc/passwd",
        outside.as_str(),
        "clips/.unfinished.mp4",
        "clips/good.mp4\0",
        "clips/a\nb",
        "segments/road/1/gaps.jsonl",
        "segments/road/1",
    ] {
        let refused = rig.uploads.submit(&call(bad)).expect_err(bad);
        assert!(matches!(refused, Refused::Path { .. }), "{bad}: {refused:?}");
    }
    for absent in ["clips/none.mp4", "segments/road/1/0.mp4"] {
        let refused = rig.uploads.submit(&call(absent)).expect_err(absent);
        assert!(matches!(refused, Refused::NotFound { .. }), "{absent}: {refused:?}");
    }
}

/// Invariant 5.
#[test]
fn a_segment_is_sent_only_when_it_is_whole_and_pinned_meanwhile() {
    let rig = Rig::new();
    let server = SftpServer::start(&rig.inbox).unwrap();
    let row = |id: &str, state| Row {
        id: id.parse().unwrap(),
        start: Mono(0),
        end: Mono(1_000_000_000),
        bytes: 9,
        allocated: 4096,
        frames: 30,
        codec: None,
        width: 1920,
        height: 1080,
        state,
        protected: false,
    };
    let run = rig.archive.run().0;
    let (open, closed) = (format!("road-{run}-1"), format!("road-{run}-0"));
    fs::create_dir_all(rig.root.join(format!("segments/road/{run}"))).unwrap();
    for (n, id, state) in [(1, &open, SegmentState::Open), (0, &closed, SegmentState::Closed)] {
        fs::write(rig.root.join(format!("segments/road/{run}/{n}.mp4")), "a segment").unwrap();
        rig.archive.catalog().begin(row(id, state));
    }
    let request = |n: u32| {
        request(&format!("segments/road/{run}/{n}.mp4"), &server.uri(""), &server.pin(), &server.identity().unwrap())
    };
    let refused = rig.uploads.submit(&request(1)).unwrap_err();
    assert!(matches!(refused, Refused::Open { .. }), "{refused:?}");
    // It will not be closed in this run, however long somebody waits.
    rig.archive.catalog().abandon(&open.parse().unwrap());
    let refused = rig.uploads.submit(&request(1)).unwrap_err();
    assert!(matches!(refused, Refused::Unfinished { .. }), "{refused:?}");
    let id = rig.uploads.submit(&request(0)).unwrap().uploads[0].id.clone();
    let job = rig.wait(&id, |job| job.state.is_end());
    assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
    // Segments get the name they are known by, for `0.mp4` of two lenses would be one file.
    assert_eq!(fs::read(rig.inbox.join(format!("{closed}.mp4"))).unwrap(), b"a segment");
    drop(server);
    // Nobody answers now; while the job waits for that, the segment is pinned.
    let mut waiting = call(&format!("segments/road/{run}/0.mp4"));
    waiting.destination_uri = "sftp://u@192.0.2.1/".to_owned();
    let id = rig.uploads.submit(&waiting).unwrap().uploads[0].id.clone();
    let pinned = |rig: &Rig| rig.archive.pins().is_pinned(&closed.parse().unwrap());
    assert!(pinned(&rig));
    // In the next life as well, before anything is listed.
    let rig = rig.restart();
    assert!(pinned(&rig));
    rig.uploads.cancel(&id).unwrap();
    assert!(!pinned(&rig));
    assert!(matches!(rig.uploads.cancel(&id), Err(Refused::Over { .. })));
}

/// Invariant 1: no pin, no connection.
#[test]
fn without_pin_or_credential_nothing_begins() {
    let rig = Rig::new();
    rig.clip("a.mp4", 10);
    let with = |change: fn(&mut UploadRequest)| {
        let mut call = call("clips/a.mp4");
        change(&mut call);
        rig.uploads.submit(&call).unwrap_err()
    };
    assert!(matches!(with(|c| c.options.host_key = None), Refused::NoHostKey { .. }));
    assert!(matches!(with(|c| c.options.host_key = Some(String::new())), Refused::NoHostKey { .. }));
    for pin in ["SHA256:short", "MD5:aa:bb", "nonsense", "192.0.2.1 ssh-ed25519 AAAA", "@revoked * ssh-ed25519 AAAA"] {
        let mut call = call("clips/a.mp4");
        call.options.host_key = Some(pin.to_owned());
        let refused = rig.uploads.submit(&call).unwrap_err();
        assert!(matches!(refused, Refused::HostKey(_)), "{pin}: {refused:?}");
    }
    assert!(matches!(with(|c| c.options.identity = None), Refused::Credential(_)));
    assert!(matches!(with(|c| c.options.identity = Some("garbage".to_owned().into())), Refused::Credential(_)));
    assert!(matches!(with(|c| c.options.password = Some("p".to_owned().into())), Refused::Credential(_)));
    assert!(matches!(with(|c| c.destination_uri = "sftp://u:hunter2@h/x".into()), Refused::Destination(_)));
    assert!(rig.uploads.list().is_empty());
}

/// Invariant 2.
#[test]
fn secrets_are_in_no_text() {
    let rig = Rig::new();
    rig.clip("a.mp4", 10);
    let key = fresh_key().unwrap();
    let encrypted = key.encrypt(&mut russh::keys::key::safe_rng(), "hunter2").unwrap();
    let encrypted = encrypted.to_openssh(LineEnding::LF).unwrap().to_string();
    let damaged = key.to_openssh(LineEnding::LF).unwrap().replacen("b3Blb", "b3Bl", 1);
    for identity in [encrypted, damaged] {
        let secret = identity.lines().nth(2).unwrap().to_owned();
        let mut call = call("clips/a.mp4");
        call.options.identity = Some(identity.into());
        let refused = rig.uploads.submit(&call).unwrap_err();
        assert!(matches!(refused, Refused::Credential(_)), "{refused:?}");
        for text in [refused.to_string(), format!("{refused:?}"), format!("{call:?}"), format!("{:?}", call.options)] {
            assert!(!text.contains(&secret) && !text.contains("hunter2"), "{text}");
        }
    }
    let mut call = call("clips/a.mp4");
    call.destination_uri = "sftp://u:hunter2@h/x".into();
    call.options.identity = None;
    call.options.password = Some("hunter3".to_owned().into());
    let refused = rig.uploads.submit(&call).unwrap_err();
    for text in [refused.to_string(), format!("{refused:?} {call:?} {:?}", call.options)] {
        assert!(!text.contains("hunter"), "{text}");
    }
}

/// Invariant 6.
#[test]
fn jobs_are_bounded_and_old_ends_are_forgotten() {
    let rig = Rig::with_limits(Limits { live: 3, ended: 2, servers: 1 });
    let server = SftpServer::start(&rig.inbox).unwrap();
    let identity = server.identity().unwrap();
    let mut ids = Vec::new();
    for n in 0..4 {
        let (path, _) = rig.clip(&format!("{n}.mp4"), 10);
        let id = rig.uploads.submit(&request(&path, &server.uri(""), &server.pin(), &identity)).unwrap().uploads[0]
            .id
            .clone();
        let mut watch = rig.uploads.watch(&id).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let end = runtime.block_on(async { watch.wait_for(|job| job.state.is_end()).await.unwrap().clone() });
        assert!(matches!(end.state, JobState::Done { .. }), "{end:?}");
        ids.push(id);
    }
    let remembered: Vec<_> = rig.uploads.list().into_iter().map(|job| job.id).collect();
    assert_eq!(remembered, ids[2..]);
    assert!(rig.uploads.get(&ids[0]).is_none());
    let mut many = request("clips/0.mp4", &server.uri("many/"), &server.pin(), &identity);
    many.paths = (0..4).map(|n| format!("clips/{n}.mp4")).collect();
    assert!(matches!(rig.uploads.submit(&many), Err(Refused::QueueFull { .. })));
    many.paths = vec!["clips/0.mp4".into(), "clips/0.mp4".into()];
    assert!(matches!(rig.uploads.submit(&many), Err(Refused::SameName { .. })));
    many.paths = vec!["clips/0.mp4".into(), "clips/1.mp4".into()];
    many.destination_uri = server.uri("one.mp4");
    assert!(matches!(rig.uploads.submit(&many), Err(Refused::Destination(_))));
}

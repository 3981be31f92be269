//! Against a server that misbehaves, and one that writes down what it is sent.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::Ordering;

use super::rig::{Rig, names, request};
use crate::demo::sftp_server::{Fault, SftpServer, fresh_key};
use crate::upload::failure::FailureKind;
use crate::upload::job::{Job, JobState};

fn kind(job: &Job) -> FailureKind {
    match &job.state {
        JobState::Failed { kind, .. } => *kind,
        other => panic!("failed was expected, not {other:?}"),
    }
}

#[test]
fn the_demo_server_takes_what_is_sent() {
    let rig = Rig::new();
    let server = SftpServer::start(&rig.inbox).unwrap();
    let (path, contents) = rig.clip("a.mp4", 3_000_001);
    let call = request(&path, &server.uri("sub/dir/b.mp4"), &server.pin(), &server.identity().unwrap());
    let job = rig.end_of(&call);
    assert!(matches!(job.state, JobState::Done { synced: true, .. }), "{job:?}");
    assert_eq!(fs::read(rig.inbox.join("sub/dir/b.mp4")).unwrap(), contents);
    assert_eq!(names(&rig.inbox.join("sub/dir")), ["b.mp4"]);
    assert_eq!(server.seen().renames.load(Ordering::Relaxed), 1);
}

/// Invariant 1: the server counts every login message, even a mere offer or question.
#[test]
fn no_login_is_tried_at_a_server_with_another_key() {
    let rig = Rig::new();
    let server = SftpServer::start(&rig.inbox).unwrap();
    let stranger = fresh_key().unwrap();
    let line = stranger.public_key().to_openssh().unwrap();
    let pins = [
        stranger.fingerprint(russh::keys::HashAlg::Sha256).to_string(),
        format!("[127.0.0.1]:{} {line}", server.address().port()),
    ];
    let (path, _) = rig.clip("a.mp4", 1000);
    for pin in pins {
        let before = server.seen().connections.load(Ordering::Relaxed);
        let job = rig.end_of(&request(&path, &server.uri("a.mp4"), &pin, &server.identity().unwrap()));
        assert_eq!(kind(&job), FailureKind::HostKeyMismatch);
        assert!(server.seen().connections.load(Ordering::Relaxed) > before);
    }
    assert_eq!(server.seen().logins.load(Ordering::Relaxed), 0);
    let job = rig.end_of(&request(&path, &server.uri("a.mp4"), &server.pin(), &server.identity().unwrap()));
    assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
    assert!(server.seen().logins.load(Ordering::Relaxed) > 0, "the counter counts");
}

/// Invariants 3 and 4.
#[test]
fn a_fault_of_the_server_is_never_done_and_leaves_nothing() {
    for (fault, expected) in [
        (Fault::LiesAboutSize, FailureKind::SizeMismatch),
        (Fault::RefusesRename, FailureKind::ServerError),
        (Fault::FullAfter(1_000_000), FailureKind::ServerFull),
    ] {
        let rig = Rig::new();
        let server = SftpServer::with_fault(&rig.inbox, fault).unwrap();
        let (path, _) = rig.clip("a.mp4", 3_000_000);
        let job = rig.halt_of(&request(&path, &server.uri("a.mp4"), &server.pin(), &server.identity().unwrap()));
        assert_eq!(kind(&job), expected, "{job:?}");
        assert_eq!(job.state.is_end(), expected != FailureKind::ServerFull, "only a full server is asked again");
        assert!(names(&rig.inbox).is_empty(), "{fault:?} left {:?}", names(&rig.inbox));
    }
}

#[test]
fn a_server_that_hangs_up_is_connection_lost() {
    for fault in [Fault::HangsUpAfter(1_000_000), Fault::HangsUpAtLogin] {
        let rig = Rig::new();
        let server = SftpServer::with_fault(&rig.inbox, fault).unwrap();
        let (path, _) = rig.clip("a.mp4", 3_000_000);
        let job = rig.halt_of(&request(&path, &server.uri("a.mp4"), &server.pin(), &server.identity().unwrap()));
        assert_eq!(kind(&job), FailureKind::ConnectionLost, "{job:?}");
        assert!(!names(&rig.inbox).contains(&"a.mp4".to_owned()));
    }
}

#[test]
fn nobody_there_is_unreachable() {
    let rig = Rig::new();
    let server = SftpServer::start(&rig.inbox).unwrap();
    let (uri, pin, identity) = (server.uri("a.mp4"), server.pin(), server.identity().unwrap());
    drop(server);
    let (path, _) = rig.clip("a.mp4", 10);
    assert_eq!(kind(&rig.halt_of(&request(&path, &uri, &pin, &identity))), FailureKind::Unreachable);
}

/// Invariant 8.
#[test]
fn stopping_ends_no_job() {
    let rig = Rig::new();
    // Takes connections and never says a word.
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let identity = fresh_key().unwrap();
    let pin = identity.fingerprint(russh::keys::HashAlg::Sha256).to_string();
    let identity = identity.to_openssh(russh::keys::ssh_key::LineEnding::LF).unwrap();
    let (path, _) = rig.clip("a.mp4", 10);
    let call = request(&path, &format!("sftp://u@{}/", mute.local_addr().unwrap()), &pin, &identity);
    let running = rig.uploads.submit(&call).unwrap().uploads[0].id.clone();
    rig.wait(&running, |job| job.state == JobState::Connecting);
    // The same server is served one job at a time.
    let waiting = rig.uploads.submit(&call).unwrap().uploads[0].id.clone();
    assert_eq!(rig.uploads.get(&waiting).unwrap().state, JobState::Queued);
    rig.uploads.stop();
    for id in [&running, &waiting] {
        assert_eq!(rig.uploads.get(id).unwrap().state, JobState::Queued);
    }
    assert!(rig.uploads.submit(&call).is_err());
    let rig = rig.restart();
    let left: Vec<_> = rig.uploads.list().into_iter().map(|job| (job.id, job.state)).collect();
    assert_eq!(left, [(running, JobState::NeedsCredentials), (waiting, JobState::NeedsCredentials)]);
}

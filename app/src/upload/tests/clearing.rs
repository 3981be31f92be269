//! Jobs that are called off while they wait: what becomes of what they left.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use super::rig::{Rig, Sshd, line_on, logged, names, request};
use crate::demo::sftp_server::{Fault, SftpServer};
use crate::upload::destination::Endpoint;
use crate::upload::host_key::HostKeyPin;
use crate::upload::job::{JobId, JobState};
use crate::upload::named::{CredentialSource, NamedDestination};
use crate::upload::queue::{Roads, Settings, UploadOptions, UploadRequest};

const SIZE: usize = 4_000_000;

/// The destination `depot` at an endpoint, with the key of `sshd`.
fn depot(rig: &Rig, sshd: &Sshd, endpoint: Endpoint) -> Settings {
    let key = rig.root.parent().unwrap().join("our_key");
    fs::write(&key, sshd.identity()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let credential = CredentialSource::KeyFile { path: key, passphrase: None };
    let pin = HostKeyPin::parse(&sshd.pin(), &endpoint).unwrap();
    let path = format!("{}/", rig.inbox.display());
    let depot = NamedDestination { name: "depot".to_owned(), endpoint, pin, path, credential, max_rate: None };
    Settings { roads: Roads { destinations: vec![depot], ..Roads::default() }, ..Settings::default() }
}

/// Asks for uploads of so many files to `depot`, each of which takes longer than a test.
fn submit(rig: &Rig, files: usize) -> Vec<JobId> {
    let upload = |n| {
        let (path, _) = rig.clip(&format!("{n}.mp4"), SIZE);
        let options = UploadOptions { max_rate: Some(10_000), ..UploadOptions::default() };
        let call = UploadRequest { paths: vec![path], destination_uri: "depot".to_owned(), options };
        rig.uploads.submit(&call).unwrap().uploads[0].id.clone()
    };
    (0..files).map(upload).collect()
}

/// C1. Of a job of an earlier life it is not known whether it ever began.
#[test]
fn c1_all_that_was_called_off_is_removed_over_one_connection() {
    const JOBS: usize = 30;
    logged();
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let with = depot(&rig, &sshd, sshd.endpoint());
    let rig = rig.restart_with(&with);
    let ids = submit(&rig, JOBS);
    rig.wait(&ids[0], |job| matches!(job.state, JobState::Transferring { bytes, .. } if bytes > 0));
    let rig = rig.restart_with(&with);
    assert_eq!(names(&rig.inbox).len(), 1, "one had begun");
    rig.wait(&ids[0], |job| matches!(job.state, JobState::Transferring { .. }));
    let before = sshd.connections();
    // The one that runs last, so that none of the others begins.
    for id in ids.iter().rev() {
        rig.uploads.cancel(id).unwrap();
    }
    for id in &ids[1..] {
        let line = line_on(id);
        assert!(line.ends_with("is gone"), "{line}");
    }
    let connections = sshd.connections() - before;
    assert!(connections <= 2, "{connections} connections for {JOBS} jobs");
    let until = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while !names(&rig.inbox).is_empty() {
        assert!(std::time::Instant::now() < until, "{:?} is left", names(&rig.inbox));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// C3. Only what the server said is gone is gone.
#[test]
fn c3_what_the_server_does_not_remove_is_named() {
    logged();
    let rig = Rig::new();
    let server = SftpServer::with_fault(&rig.inbox, Fault::RefusesRemove(SIZE as u64)).unwrap();
    let (path, _) = rig.clip("a.mp4", SIZE);
    let call = request(&path, &server.uri("a.mp4"), &server.pin(), &server.identity().unwrap());
    let id = rig.uploads.submit(&call).unwrap().uploads[0].id.clone();
    rig.wait(&id, |job| matches!(job.state, JobState::Failed { .. }));
    let left = names(&rig.inbox);
    assert_eq!(left.len(), 1, "half of it lies there");
    rig.uploads.cancel(&id).unwrap();
    let line = line_on(&id);
    assert!(line.contains("may still be there") && line.contains(&left[0]), "{line}");
    assert!(line.contains("permission denied"), "{line}");
}

/// C3. The server takes the connection and says nothing until the daemon ends.
#[test]
fn c3_what_was_not_removed_when_the_daemon_ends_is_named() {
    logged();
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = Endpoint { port: silent.local_addr().unwrap().port(), ..sshd.endpoint() };
    let (before, moved) = (depot(&rig, &sshd, sshd.endpoint()), depot(&rig, &sshd, there));
    let rig = rig.restart_with(&before);
    let ids = submit(&rig, 3);
    let rig = rig.restart_with(&moved);
    for id in &ids {
        rig.uploads.cancel(id).unwrap();
    }
    let (asked, _) = silent.accept().unwrap();
    rig.uploads.stop();
    for id in &ids {
        let line = line_on(id);
        assert!(line.contains("may still be there") && line.contains("ended"), "{line}");
    }
    drop(asked);
}

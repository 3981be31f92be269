//! Over several lives of the daemon.

use std::fs;

use super::rig::{Rig, Sshd, names, request};
use crate::upload::failure::{FailureKind, Refused};
use crate::upload::job::{JobId, JobState, Priority};
use crate::upload::queue::RetryRequest;

/// Invariants 2 and 8: the key is gone, the job is not.
#[test]
fn a_job_with_a_callers_key_waits_for_it_after_a_restart() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let (path, contents) = rig.clip("a.mp4", 100_000);
    let mut call = request(&path, "sftp://u@192.0.2.1/x", &sshd.pin(), sshd.identity());
    call.destination_uri = sshd.uri(&rig.inbox.join("a.mp4"));
    // Stopped at once: whether it had begun does not matter.
    rig.uploads.stop();
    let refused = rig.uploads.submit(&call).unwrap_err();
    assert!(matches!(refused, Refused::Stopping));
    let rig = rig.restart();
    let mut blocked = call.clone();
    blocked.destination_uri = "sftp://u@192.0.2.1/x".to_owned();
    let id = rig.uploads.submit(&blocked).unwrap().uploads[0].id.clone();
    let rig = rig.restart();
    let job = rig.uploads.get(&id).unwrap();
    assert_eq!(job.state, JobState::NeedsCredentials);
    assert!(rig.uploads.in_use().contains(std::path::Path::new(&path)));
    let secret = sshd.identity().lines().nth(2).unwrap().to_owned();
    let db: Vec<Vec<u8>> =
        fs::read_dir(rig.root.join("uploads")).unwrap().map(|e| fs::read(e.unwrap().path()).unwrap()).collect();
    assert!(!db.is_empty());
    for bytes in db {
        assert!(!String::from_utf8_lossy(&bytes).contains(&secret), "the key is in the queue's file");
    }
    let refused = rig.uploads.retry(&id, &RetryRequest::default()).unwrap_err();
    assert!(matches!(refused, Refused::Credential(_)), "{refused:?}");
    rig.uploads.cancel(&id).unwrap();
    assert!(rig.uploads.in_use().is_empty());

    // The same with a server that is there, once the key is given again.
    let sent = rig.uploads.submit(&call).unwrap().uploads[0].id.clone();
    rig.uploads.stop();
    let rig = rig.restart();
    if !rig.uploads.get(&sent).unwrap().state.is_over() {
        let key = RetryRequest { identity: Some(sshd.identity().to_owned().into()), ..RetryRequest::default() };
        rig.uploads.retry(&sent, &key).unwrap();
    }
    let job = rig.wait(&sent, |job| job.state.is_end());
    assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
    assert_eq!(fs::read(rig.inbox.join("a.mp4")).unwrap(), contents);
    assert_eq!(names(&rig.inbox), ["a.mp4"]);
    // What is over is remembered too.
    let rig = rig.restart();
    assert_eq!(rig.uploads.get(&sent).unwrap().state, job.state);
    assert_eq!(rig.uploads.get(&id).unwrap().state, JobState::Cancelled);
}

/// Invariant 8: a refused login stands until somebody gives a better key; then the same job goes on.
#[test]
fn a_failed_job_keeps_its_file_and_can_be_retried_with_another_key() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let other = Sshd::start(&rig.scratch("other"), "");
    let (path, contents) = rig.clip("a.mp4", 1000);
    let job = rig.end_of(&request(&path, &sshd.uri(&rig.inbox.join("")), &sshd.pin(), other.identity()));
    assert!(matches!(job.state, JobState::Failed { kind: FailureKind::AuthFailed, next_try_ts: None, .. }), "{job:?}");
    assert!(rig.uploads.in_use().contains(std::path::Path::new(&path)));
    let rig = rig.restart();
    let failed = rig.uploads.get(&job.id).unwrap();
    assert_eq!(failed.state, job.state);
    assert!(rig.uploads.in_use().contains(std::path::Path::new(&path)));
    let key = RetryRequest { identity: Some(sshd.identity().to_owned().into()), ..RetryRequest::default() };
    let again = rig.uploads.retry(&job.id, &key).unwrap();
    assert_eq!(again.state, JobState::Queued);
    let done = rig.wait(&job.id, |job| job.state.is_end());
    assert!(matches!(done.state, JobState::Done { .. }), "{done:?}");
    assert_eq!(fs::read(rig.inbox.join("a.mp4")).unwrap(), contents);
    assert!(rig.uploads.in_use().is_empty());
    assert!(matches!(rig.uploads.retry(&job.id, &key), Err(Refused::Over { .. })));
    let nobody = JobId("none".to_owned());
    assert!(matches!(rig.uploads.retry(&nobody, &key), Err(Refused::NoJob { .. })));
    assert!(matches!(rig.uploads.cancel(&nobody), Err(Refused::NoJob { .. })));
}

/// Events first, then in the order in which they were asked for.
#[test]
fn an_event_overtakes_what_waits() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    // Holds the server while the others are queued: without end, until it is called off.
    fs::File::create(rig.root.join("clips/long.mp4")).unwrap().set_len(64 << 30).unwrap();
    let call = |path: &str, priority| {
        let mut call = request(path, &sshd.uri(&rig.inbox.join("")), &sshd.pin(), sshd.identity());
        call.options.priority = priority;
        rig.uploads.submit(&call).unwrap().uploads[0].id.clone()
    };
    let long = call("clips/long.mp4", Priority::Normal);
    rig.wait(&long, |job| matches!(job.state, JobState::Transferring { bytes, .. } if bytes > 0));
    let ids: Vec<JobId> = [Priority::Background, Priority::Normal, Priority::Event, Priority::Normal]
        .into_iter()
        .enumerate()
        .map(|(n, priority)| call(&rig.clip(&format!("{n}.mp4"), 10).0, priority))
        .collect();
    assert_eq!(rig.uploads.cancel(&long).unwrap().state, JobState::Cancelled);
    let mut done = Vec::new();
    for id in &ids {
        rig.wait(id, |job| job.state.is_end());
    }
    for id in &ids {
        let name = rig.uploads.get(id).unwrap().path.rsplit('/').next().unwrap().to_owned();
        done.push((fs::metadata(rig.inbox.join(&name)).unwrap().modified().unwrap(), name));
    }
    done.sort();
    let order: Vec<_> = done.into_iter().map(|(_, name)| name).collect();
    assert_eq!(order, ["2.mp4", "1.mp4", "3.mp4", "0.mp4"]);
    assert_eq!(names(&rig.inbox), ["0.mp4", "1.mp4", "2.mp4", "3.mp4"], "and nothing is left of what was called off");
    assert_eq!(sshd.connections(), 1, "all over one connection");
}

/// Cameras come first: a queue that cannot be opened costs uploads, not the daemon, and only as long as it lasts.
#[test]
fn a_queue_that_cannot_be_opened_is_told_and_opened_later() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let (path, _) = rig.clip("a.mp4", 10);
    let call = request(&path, &sshd.uri(&rig.inbox.join("a.mp4")), &sshd.pin(), sshd.identity());
    let away = rig.root.join("uploads-away");
    fs::rename(rig.root.join("uploads"), &away).unwrap();
    fs::write(rig.root.join("uploads"), "no folder").unwrap();
    let rig = rig.restart();
    assert!(rig.uploads.trouble().is_some());
    assert!(matches!(rig.uploads.submit(&call).unwrap_err(), Refused::NotDurable(_)));
    fs::remove_file(rig.root.join("uploads")).unwrap();
    fs::rename(away, rig.root.join("uploads")).unwrap();
    let job = rig.end_of(&call);
    assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
    assert_eq!(rig.uploads.trouble(), None);
}

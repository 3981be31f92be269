//! Against OpenSSH.

use std::fs;

use sha2::{Digest as _, Sha256};

use super::rig::{Rig, Sshd, names, request};
use crate::upload::failure::FailureKind;
use crate::upload::job::JobState;
use crate::upload::queue::hex;

fn kind(state: &JobState) -> FailureKind {
    match state {
        JobState::Failed { kind, .. } => *kind,
        other => panic!("failed was expected, not {other:?}"),
    }
}

/// Invariants 3 and 4.
#[test]
fn files_of_all_sizes_arrive_byte_for_byte() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let there = rig.inbox.join("vehicle 7").join("today");
    let uri = sshd.uri(&there).replace(' ', "%20");
    for bytes in [0, 1, 32 * 1024, 32 * 1024 + 1, 5_000_017] {
        let name = format!("{bytes}.mp4");
        let (path, contents) = rig.clip(&name, bytes);
        let job = rig.end_of(&request(&path, &format!("{uri}/"), &sshd.pin(), sshd.identity()));
        let expected = JobState::Done {
            remote_path: there.join(&name).display().to_string(),
            bytes: bytes as u64,
            sha256: hex(&Sha256::digest(&contents)),
            synced: true,
        };
        assert_eq!(job.state, expected, "{}", sshd.log());
        assert_eq!(fs::read(there.join(&name)).unwrap(), contents);
    }
    assert_eq!(names(&there), ["0.mp4", "1.mp4", "32768.mp4", "32769.mp4", "5000017.mp4"]);
}

#[test]
fn several_files_of_one_call_share_a_connection() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let mut call = request("", &sshd.uri(&rig.inbox.join("")), &sshd.pin(), sshd.identity());
    call.paths = ["a.mp4", "b.mp4", "c.mp4"].map(|name| rig.clip(name, 100_000).0).to_vec();
    let submitted = rig.uploads.submit(&call).unwrap();
    for job in &submitted.uploads {
        assert_eq!(job.group, submitted.group);
        let end = rig.wait(&job.id, |job| job.state.is_end());
        assert!(matches!(end.state, JobState::Done { .. }), "{end:?}");
    }
    assert_eq!(names(&rig.inbox), ["a.mp4", "b.mp4", "c.mp4"]);
    assert_eq!(sshd.connections(), 1);
}

#[test]
fn a_connection_that_died_while_it_was_kept_is_no_fault_of_the_next_job() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    for name in ["a.mp4", "b.mp4", "c.mp4"] {
        let (path, _) = rig.clip(name, 1000);
        let job = rig.halt_of(&request(&path, &sshd.uri(&rig.inbox.join("")), &sshd.pin(), sshd.identity()));
        assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
        sshd.kill();
    }
    assert_eq!(sshd.connections(), 3);
}

/// Over one connection, on which the directory was known to be there.
#[test]
fn a_directory_that_has_gone_is_made_again() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let there = rig.inbox.join("today");
    for name in ["a.mp4", "b.mp4"] {
        let (path, contents) = rig.clip(name, 1000);
        let job = rig.end_of(&request(&path, &sshd.uri(&there.join("")), &sshd.pin(), sshd.identity()));
        assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
        assert_eq!(fs::read(there.join(name)).unwrap(), contents);
        fs::remove_dir_all(&there).unwrap();
    }
    assert_eq!(sshd.connections(), 1);
}

/// Invariant 1: any of the server's keys may be pinned, by fingerprint or by known_hosts line.
#[test]
fn every_kind_of_pin_lets_the_right_server_in() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    for (n, pin) in [sshd.pin(), sshd.ecdsa_pin(), sshd.known_hosts_line()].iter().enumerate() {
        let (path, contents) = rig.clip(&format!("{n}.mp4"), 10_000);
        let job = rig.end_of(&request(&path, &sshd.uri(&rig.inbox.join("")), pin, sshd.identity()));
        assert!(matches!(job.state, JobState::Done { .. }), "{pin}: {job:?}");
        assert_eq!(fs::read(rig.inbox.join(format!("{n}.mp4"))).unwrap(), contents);
    }
}

/// Invariant 1.
#[test]
fn a_wrong_host_key_ends_before_sshd_hears_of_a_user() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let other = Sshd::start(&rig.scratch("other"), "");
    let (path, _) = rig.clip("a.mp4", 1000);
    let job = rig.end_of(&request(&path, &sshd.uri(&rig.inbox.join("")), &other.pin(), sshd.identity()));
    assert_eq!(kind(&job.state), FailureKind::HostKeyMismatch);
    let JobState::Failed { message, .. } = &job.state else { unreachable!() };
    assert!(message.contains(&sshd.pin()) || message.contains(&sshd.ecdsa_pin()), "{message}");
    assert!(message.contains(&other.pin()), "{message}");
    drop(rig.uploads);
    let log = sshd.log();
    assert!(log.contains("Connection from"), "{log}");
    assert!(!log.to_lowercase().contains("publickey") && !log.contains("authenticating user"), "{log}");
    assert!(names(&rig.inbox).is_empty());
}

#[test]
fn a_key_that_the_server_does_not_know_is_auth_failed() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let other = Sshd::start(&rig.scratch("other"), "");
    let (path, _) = rig.clip("a.mp4", 1000);
    let job = rig.end_of(&request(&path, &sshd.uri(&rig.inbox.join("")), &sshd.pin(), other.identity()));
    assert_eq!(kind(&job.state), FailureKind::AuthFailed);
    assert!(names(&rig.inbox).is_empty());
}

#[test]
fn a_server_that_forbids_writing_is_permission_denied() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "-R");
    let (path, _) = rig.clip("a.mp4", 1000);
    for uri in [sshd.uri(&rig.inbox.join("")), sshd.uri(&rig.inbox.join("new/"))] {
        let job = rig.end_of(&request(&path, &uri, &sshd.pin(), sshd.identity()));
        assert_eq!(kind(&job.state), FailureKind::PermissionDenied, "{job:?}");
    }
    assert!(names(&rig.inbox).is_empty());
}

/// Invariant 3.
#[test]
fn an_existing_target_is_left_alone_unless_asked() {
    let rig = Rig::new();
    // The second server does not offer posix-rename.
    for (n, options) in ["", "-P posix-rename"].into_iter().enumerate() {
        let sshd = Sshd::start(&rig.scratch(&format!("sshd{n}")), options);
        let (path, contents) = rig.clip("a.mp4", 70_000);
        let target = rig.inbox.join("a.mp4");
        fs::write(&target, "older").unwrap();
        let mut call = request(&path, &sshd.uri(&target), &sshd.pin(), sshd.identity());
        let job = rig.end_of(&call);
        assert_eq!(kind(&job.state), FailureKind::DestinationExists);
        assert_eq!(fs::read(&target).unwrap(), b"older");
        call.options.overwrite = true;
        let job = rig.end_of(&call);
        assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
        assert_eq!(fs::read(&target).unwrap(), contents);
        assert_eq!(names(&rig.inbox), ["a.mp4"]);
    }
}

/// Invariants 3 and 4.
#[test]
fn a_server_killed_in_mid_transfer_leaves_a_failed_job_and_no_final_name() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    // Sparse: more than can be sent before the kill, without taking room here.
    fs::File::create(rig.root.join("clips/long.mp4")).unwrap().set_len(64 << 30).unwrap();
    let call = request("clips/long.mp4", &sshd.uri(&rig.inbox.join("")), &sshd.pin(), sshd.identity());
    let id = rig.uploads.submit(&call).unwrap().uploads[0].id.clone();
    let under_way = |state: &JobState| matches!(state, JobState::Transferring { bytes, .. } if *bytes > 0);
    let job = rig.wait(&id, |job| under_way(&job.state) || job.state.is_end());
    assert!(under_way(&job.state), "{job:?}");
    sshd.kill();
    let job = rig.wait(&id, |job| matches!(job.state, JobState::Failed { .. }));
    assert_eq!(kind(&job.state), FailureKind::ConnectionLost, "{job:?}");
    let left = names(&rig.inbox);
    assert!(!left.contains(&"long.mp4".to_owned()), "{left:?}");
    assert!(left.iter().all(|name| name.starts_with(".long.mp4.part-")), "{left:?}");
}

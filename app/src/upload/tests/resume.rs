//! A transfer that broke off goes on where it ended, and never trusts more than was checked.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::rig::{Rig, Sshd, names, request};
use crate::demo::sftp_server::{Fault, SftpServer};
use crate::upload::failure::FailureKind;
use crate::upload::job::{Job, JobId, JobState};
use crate::upload::queue::{RetryRequest, UploadRequest};

const SIZE: usize = 24_000_000;

fn kind(job: &Job) -> Option<FailureKind> {
    match &job.state {
        JobState::Failed { kind, .. } => Some(*kind),
        _ => None,
    }
}

fn call(server: &SftpServer, path: &str) -> UploadRequest {
    request(path, &server.uri("a.mp4"), &server.pin(), &server.identity().unwrap())
}

#[test]
fn after_a_drop_at_nine_tenths_at_most_an_eighth_is_sent_again() {
    let rig = Rig::new();
    let server = SftpServer::with_fault(&rig.inbox, Fault::HangsUpOnceAfter(SIZE as u64 * 9 / 10)).unwrap();
    let (path, contents) = rig.clip("a.mp4", SIZE);
    let id = rig.uploads.submit(&call(&server, &path)).unwrap().uploads[0].id.clone();
    let dropped = rig.wait(&id, |job| kind(job).is_some());
    assert_eq!(kind(&dropped), Some(FailureKind::ConnectionLost));
    let before = server.seen().written.load(Ordering::Relaxed);
    let job = rig.wait(&id, |job| job.state.is_end());
    assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
    assert!(fs::read(rig.inbox.join("a.mp4")).unwrap() == contents);
    let again = server.seen().written.load(Ordering::Relaxed) - before;
    assert!(again <= SIZE as u64 * 12 / 100, "{again} of {SIZE} bytes were sent after the drop");
    assert_eq!(names(&rig.inbox), ["a.mp4"]);
}

/// Starts a transfer, stops the daemon's life in the middle of it, and gives the next life.
fn cut_short(rig: Rig, call: &UploadRequest) -> (Rig, JobId, PathBuf) {
    let mut call = call.clone();
    // So slowly that a busy machine cuts it short before its end.
    call.options.max_rate = Some(8_000_000);
    let id = rig.uploads.submit(&call).unwrap().uploads[0].id.clone();
    let under_way = |job: &Job| matches!(job.state, JobState::Transferring { bytes, .. } if bytes > 14_000_000);
    let job = rig.wait(&id, |job| under_way(job) || job.state.is_end());
    assert!(under_way(&job), "{job:?}");
    let rig = rig.restart();
    let left = names(&rig.inbox);
    assert_eq!(left.len(), 1, "{left:?}");
    let partial = rig.inbox.join(&left[0]);
    (rig, id, partial)
}

fn go_on(rig: &Rig, id: &JobId, identity: &str) -> Job {
    let key = RetryRequest { identity: Some(identity.to_owned().into()), ..RetryRequest::default() };
    rig.uploads.retry(id, &key).unwrap();
    rig.wait(id, |job| job.state.is_end())
}

/// Also over lives of the daemon; with hashes the server is believed to the last byte.
#[test]
fn the_next_life_goes_on_with_what_lies_there() {
    for fault in [Fault::None, Fault::TellsHashes] {
        let rig = Rig::new();
        let server = SftpServer::with_fault(&rig.inbox, fault).unwrap();
        let (path, contents) = rig.clip("a.mp4", SIZE);
        let (rig, id, partial) = cut_short(rig, &call(&server, &path));
        let before = server.seen().written.load(Ordering::Relaxed);
        let there = fs::metadata(partial).unwrap().len();
        assert_eq!(there, before);
        let job = go_on(&rig, &id, &server.identity().unwrap());
        assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
        assert!(fs::read(rig.inbox.join("a.mp4")).unwrap() == contents);
        assert_eq!(server.seen().written.load(Ordering::Relaxed), SIZE as u64, "no byte twice: {fault:?}");
    }
}

/// Invariant 3: what was changed behind our back is found, near the end and far from it.
#[test]
fn a_partial_file_that_is_not_ours_any_more_is_mended_or_sent_anew() {
    for at in [10, 12_000_000] {
        let rig = Rig::new();
        let sshd = Sshd::start(&rig.scratch("sshd"), "");
        let (path, contents) = rig.clip("a.mp4", SIZE);
        let to = request(&path, &sshd.uri(&rig.inbox.join("a.mp4")), &sshd.pin(), sshd.identity());
        let (rig, id, partial) = cut_short(rig, &to);
        let mut file = fs::File::options().write(true).open(&partial).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(b"something else").unwrap();
        drop(file);
        let job = go_on(&rig, &id, sshd.identity());
        assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
        assert!(fs::read(rig.inbox.join("a.mp4")).unwrap() == contents, "changed at {at}");
    }
}

/// A partial file that is longer than the file, or of which a hole was left, is no help and no harm.
#[test]
fn a_partial_file_of_another_length_is_no_harm() {
    for len in [SIZE as u64 + 5, 23_000_000] {
        let rig = Rig::new();
        let sshd = Sshd::start(&rig.scratch("sshd"), "");
        let (path, contents) = rig.clip("a.mp4", SIZE);
        let to = request(&path, &sshd.uri(&rig.inbox.join("a.mp4")), &sshd.pin(), sshd.identity());
        let (rig, id, partial) = cut_short(rig, &to);
        fs::File::options().write(true).open(&partial).unwrap().set_len(len).unwrap();
        let job = go_on(&rig, &id, sshd.identity());
        assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
        assert!(fs::read(rig.inbox.join("a.mp4")).unwrap() == contents, "{len} long");
    }
}

/// Invariant 4: the rename went through, its answer did not.
#[test]
fn a_lost_answer_to_the_rename_is_found_out() {
    let rig = Rig::new();
    let server = SftpServer::with_fault(&rig.inbox, Fault::HangsUpAtRename).unwrap();
    let (path, contents) = rig.clip("a.mp4", 3_000_000);
    let job = rig.end_of(&call(&server, &path));
    assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
    assert!(fs::read(rig.inbox.join("a.mp4")).unwrap() == contents);
    assert_eq!(server.seen().written.load(Ordering::Relaxed), 3_000_000);
    assert_eq!(server.seen().renames.load(Ordering::Relaxed), 1);
}

/// The same, but somebody else's file of the same length took the name: it is left alone.
#[test]
fn another_file_of_the_same_length_is_not_taken_for_ours() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let (path, contents) = rig.clip("a.mp4", SIZE);
    let to = request(&path, &sshd.uri(&rig.inbox.join("a.mp4")), &sshd.pin(), sshd.identity());
    let (rig, id, partial) = cut_short(rig, &to);
    fs::remove_file(partial).unwrap();
    let mut other = contents;
    other[SIZE / 2] ^= 1;
    fs::write(rig.inbox.join("a.mp4"), &other).unwrap();
    let job = go_on(&rig, &id, sshd.identity());
    assert_eq!(kind(&job), Some(FailureKind::DestinationExists), "{job:?}");
    assert!(fs::read(rig.inbox.join("a.mp4")).unwrap() == other);
}

/// Invariants 3 and 4.
#[test]
fn a_server_that_writes_other_bytes_is_noticed_by_its_hash_or_by_reading_back() {
    for (fault, read_back) in [(Fault::CorruptsAndTells, false), (Fault::Corrupts, true)] {
        let rig = Rig::new();
        let server = SftpServer::with_fault(&rig.inbox, fault).unwrap();
        let (path, _) = rig.clip("a.mp4", 1_000_000);
        let mut call = call(&server, &path);
        call.options.read_back = read_back;
        let job = rig.end_of(&call);
        assert_eq!(kind(&job), Some(FailureKind::HashMismatch), "{job:?}");
        assert!(names(&rig.inbox).is_empty(), "{:?}", names(&rig.inbox));
    }
    let rig = Rig::new();
    let server = SftpServer::with_fault(&rig.inbox, Fault::TellsHashes).unwrap();
    let (path, _) = rig.clip("a.mp4", 1_000_000);
    let mut call = call(&server, &path);
    call.options.read_back = true;
    assert!(matches!(rig.end_of(&call).state, JobState::Done { .. }));
}

#[test]
fn what_was_called_off_leaves_nothing_and_lets_the_file_go() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let (path, _) = rig.clip("a.mp4", SIZE);
    let mut call = request(&path, &sshd.uri(&rig.inbox.join("a.mp4")), &sshd.pin(), sshd.identity());
    call.options.max_rate = Some(1_000_000);
    let id = rig.uploads.submit(&call).unwrap().uploads[0].id.clone();
    rig.wait(&id, |job| matches!(job.state, JobState::Transferring { bytes, .. } if bytes > 0));
    rig.uploads.cancel(&id).unwrap();
    assert_eq!(rig.uploads.get(&id).unwrap().state, JobState::Cancelled);
    assert!(rig.uploads.in_use().is_empty());
    // The next job over the same connection comes after the clearing up.
    let (next, _) = rig.clip("b.mp4", 10);
    let job = rig.end_of(&request(&next, &sshd.uri(&rig.inbox.join("b.mp4")), &sshd.pin(), sshd.identity()));
    assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
    assert_eq!(names(&rig.inbox), ["b.mp4"]);
}

#[test]
fn what_was_called_off_while_it_waited_leaves_nothing_either() {
    let rig = Rig::new();
    let server = SftpServer::with_fault(&rig.inbox, Fault::HangsUpOnceAfter(SIZE as u64 / 2)).unwrap();
    let (path, _) = rig.clip("a.mp4", SIZE);
    let id = rig.uploads.submit(&call(&server, &path)).unwrap().uploads[0].id.clone();
    let dropped = rig.wait(&id, |job| kind(job).is_some());
    assert!(matches!(dropped.state, JobState::Failed { next_try_ts: Some(_), .. }), "{dropped:?}");
    assert_eq!(names(&rig.inbox).len(), 1, "half of it lies there");
    assert_eq!(rig.uploads.cancel(&id).unwrap().state, JobState::Cancelled);
    assert!(server.seen().await_removals(1, std::time::Duration::from_mins(1)), "{:?} is left", names(&rig.inbox));
    assert!(names(&rig.inbox).is_empty(), "{:?}", names(&rig.inbox));
}

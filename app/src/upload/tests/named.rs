//! Destinations of the configuration, tokens, and that nobody else gets our credentials.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mos_hal::clock::Mono;

use super::rig::{Rig, Sshd, names};
use crate::archive::{Row, SegmentState};
use crate::upload::failure::{FailureKind, Refused};
use crate::upload::host_key::HostKeyPin;
use crate::upload::job::{Job, JobState};
use crate::upload::named::{CredentialSource, NamedDestination};
use crate::upload::queue::{RetryRequest, Roads, Settings, UploadOptions, UploadRequest};
use crate::upload::template::Values;

fn call(path: &str, to: &str) -> UploadRequest {
    UploadRequest { paths: vec![path.to_owned()], destination_uri: to.to_owned(), options: UploadOptions::default() }
}

fn key_file(rig: &Rig, sshd: &Sshd) -> PathBuf {
    let path = rig.root.parent().unwrap().join("our_key");
    fs::write(&path, sshd.identity()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn settings(sshd: &Sshd, path: String, credential: CredentialSource) -> Settings {
    let endpoint = sshd.endpoint();
    let pin = HostKeyPin::parse(&sshd.pin(), &endpoint).unwrap();
    let depot = NamedDestination { name: "depot".to_owned(), endpoint, pin, path, credential, max_rate: None };
    let context = Values::from([("vehicle_id".to_owned(), "bus 7/9".to_owned())]);
    Settings { roads: Roads { destinations: vec![depot], context }, ..Settings::default() }
}

fn failed(job: &Job) -> Option<FailureKind> {
    match &job.state {
        JobState::Failed { kind, .. } => Some(*kind),
        _ => None,
    }
}

/// `ssh-agent` in the foreground; dies when dropped.
struct Agent(Child);

impl Agent {
    fn start(socket: &Path) -> Self {
        let mut command = Command::new("ssh-agent");
        let child = command.args(["-D", "-a"]).arg(socket).stdout(Stdio::null()).spawn().unwrap();
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            std::thread::yield_now();
        }
        Self(child)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_destination_by_name_has_its_own_key_and_goes_on_after_a_restart() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let to = format!("{}/{{vehicle_id}}/", rig.inbox.display());
    let key = CredentialSource::KeyFile { path: key_file(&rig, &sshd), passphrase: None };
    let with = settings(&sshd, to, key);
    let rig = rig.restart_with(&with);
    let (path, contents) = rig.clip("a.mp4", 100_000);
    let job = rig.end_of(&call(&path, "depot"));
    assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
    assert_eq!(fs::read(rig.inbox.join("bus%207%2F9/a.mp4")).unwrap(), contents);

    // Asked for while the daemon ends: the next life carries it out without being asked.
    let (path, contents) = rig.clip("b.mp4", 12_000_000);
    let mut slow = call(&path, "depot");
    slow.options.max_rate = Some(8_000_000);
    let id = rig.uploads.submit(&slow).unwrap().uploads[0].id.clone();
    let rig = rig.restart_with(&with);
    let job = rig.wait(&id, |job| job.state.is_end());
    assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
    assert_eq!(fs::read(rig.inbox.join("bus%207%2F9/b.mp4")).unwrap(), contents);

    // Without the destination it stands, and is not lost; with it again it goes on.
    let (path, _) = rig.clip("c.mp4", 6_000_000);
    slow.paths = vec![path];
    slow.options.max_rate = Some(2_000_000);
    let id = rig.uploads.submit(&slow).unwrap().uploads[0].id.clone();
    let rig = rig.restart();
    let job = rig.wait(&id, |job| failed(job).is_some());
    assert_eq!(failed(&job), Some(FailureKind::NoDestination));
    let rig = rig.restart_with(&with);
    rig.uploads.retry(&id, &RetryRequest::default()).unwrap();
    let job = rig.wait(&id, |job| job.state.is_end());
    assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
    assert_eq!(names(&rig.inbox.join("bus%207%2F9")), ["a.mp4", "b.mp4", "c.mp4"]);
}

/// Invariants 1 and 2: the daemon's own credential goes to its destination only.
#[test]
fn a_uri_never_gets_the_daemons_credentials_and_a_name_takes_no_others() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let key = CredentialSource::KeyFile { path: key_file(&rig, &sshd), passphrase: None };
    let with = settings(&sshd, format!("{}/", rig.inbox.display()), key);
    let rig = rig.restart_with(&with);
    let (path, _) = rig.clip("a.mp4", 10);
    let mut uri = call(&path, &sshd.uri(&rig.inbox.join("")));
    uri.options.host_key = Some(sshd.pin());
    assert!(matches!(rig.uploads.submit(&uri).unwrap_err(), Refused::Credential(_)));
    for change in [
        |o: &mut UploadOptions| o.host_key = Some("SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned()),
        |o: &mut UploadOptions| o.password = Some("p".to_owned().into()),
    ] {
        let mut named = call(&path, "depot");
        change(&mut named.options);
        assert!(matches!(rig.uploads.submit(&named).unwrap_err(), Refused::Credential(_)));
    }
    for nowhere in ["depo", "", "depot/", "sftp:depot"] {
        let refused = rig.uploads.submit(&call(&path, nowhere)).unwrap_err();
        assert!(matches!(refused, Refused::Destination(_)), "{nowhere}: {refused:?}");
    }
    assert_eq!(sshd.connections(), 0);
}

#[test]
fn an_agent_signs_and_keeps_the_key() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let other = Sshd::start(&rig.scratch("other"), "");
    let socket = rig.root.parent().unwrap().join("agent");
    let agent = Agent::start(&socket);
    let add = |identity: &str| {
        let file = rig.root.parent().unwrap().join("to_add");
        fs::write(&file, identity).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let mut add = Command::new("ssh-add");
        assert!(add.arg("-q").arg(file).env("SSH_AUTH_SOCK", &socket).status().unwrap().success());
    };
    let to = format!("{}/", rig.inbox.display());
    let with = settings(&sshd, to, CredentialSource::Agent(Some(socket.clone())));
    // A key that the server does not know comes first.
    add(other.identity());
    let rig = rig.restart_with(&with);
    let (path, contents) = rig.clip("a.mp4", 1000);
    let job = rig.end_of(&call(&path, "depot"));
    assert_eq!(failed(&job), Some(FailureKind::AuthFailed), "{job:?}");
    let file = rig.root.parent().unwrap().join("to_add");
    fs::write(&file, sshd.identity()).unwrap();
    assert!(Command::new("ssh-add").arg("-q").arg(file).env("SSH_AUTH_SOCK", &socket).status().unwrap().success());
    rig.uploads.retry(&job.id, &RetryRequest::default()).unwrap();
    let job = rig.wait(&job.id, |job| job.state.is_end());
    assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
    assert_eq!(fs::read(rig.inbox.join("a.mp4")).unwrap(), contents);
    drop(agent);
    let (path, _) = rig.clip("b.mp4", 1000);
    let rig = rig.restart_with(&with);
    let job = rig.end_of(&call(&path, "depot"));
    assert_eq!(failed(&job), Some(FailureKind::CredentialUnavailable), "{job:?}");
}

/// Names are made of what the segment tells, and frozen; two of one call may not become one.
#[test]
fn tokens_of_segments_make_different_names_or_are_refused() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let key = CredentialSource::KeyFile { path: key_file(&rig, &sshd), passphrase: None };
    let template = format!("{}/{{vehicle_id}}/{{lens}}/{{start_ts}}.mp4", rig.inbox.display());
    let rig = rig.restart_with(&settings(&sshd, template, key));
    let run = rig.archive.run().0;
    for (lens, seq, start) in [("road", 0, 0), ("road", 1, 60_000_000_000), ("cabin", 0, 0)] {
        let id = format!("{lens}-{run}-{seq}");
        fs::create_dir_all(rig.root.join(format!("segments/{lens}/{run}"))).unwrap();
        fs::write(rig.root.join(format!("segments/{lens}/{run}/{seq}.mp4")), &id).unwrap();
        rig.archive.catalog().begin(Row {
            id: id.parse().unwrap(),
            start: Mono(start),
            end: Mono(start + 1_000_000_000),
            bytes: id.len() as u64,
            allocated: 4096,
            frames: 30,
            codec: None,
            width: 1920,
            height: 1080,
            state: SegmentState::Closed,
            protected: false,
        });
    }
    let path = |lens: &str, seq: u32| format!("segments/{lens}/{run}/{seq}.mp4");
    let mut all = call("", "depot");
    all.paths = vec![path("road", 0), path("road", 1), path("cabin", 0)];
    let submitted = rig.uploads.submit(&all).unwrap();
    let row = |id: &str| rig.archive.lookup(&id.parse().unwrap()).unwrap();
    for job in &submitted.uploads {
        assert_eq!(job.group, submitted.group);
        assert!(job.clock.is_some(), "what the time in the name is worth: {job:?}");
        let done = rig.wait(&job.id, |job| job.state.is_end());
        assert!(matches!(done.state, JobState::Done { .. }), "{done:?}");
    }
    for (lens, seq) in [("road", 0), ("road", 1), ("cabin", 0)] {
        let id = format!("{lens}-{run}-{seq}");
        let name = rig.inbox.join(format!("bus%207%2F9/{lens}/{}.mp4", row(&id).start_ts.0));
        assert_eq!(fs::read_to_string(name).unwrap(), id);
    }
    // Both cameras have a segment that starts at that moment.
    let uri = |template: &str| {
        let mut call = call("", &sshd.uri(&rig.inbox.join(template)));
        call.paths = vec![path("road", 0), path("cabin", 0)];
        (call.options.host_key, call.options.identity) = (Some(sshd.pin()), Some(sshd.identity().to_owned().into()));
        rig.uploads.submit(&call)
    };
    assert!(matches!(uri("{start_ts}.mp4").unwrap_err(), Refused::SameName { .. }));
    for unknown in ["{route}.mp4", "{Lens}.mp4", "{lens"] {
        let refused = uri(unknown).unwrap_err();
        assert!(matches!(refused, Refused::Destination(_)), "{unknown}: {refused:?}");
    }
    // A file that is neither segment nor clip has no lens.
    let (clip, _) = rig.clip("mine.mp4", 10);
    let refused = rig.uploads.submit(&call(&clip, "depot")).unwrap_err();
    assert!(refused.to_string().contains("{lens}"), "{refused}");
    assert_eq!(sshd.connections(), 1, "refusals connect nowhere");
}

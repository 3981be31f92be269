//! Servers that lie, refuse or are full: it is noticed, said by its name, and nothing lies under a final name.

use std::time::Duration;

use mos_tests::daemon::Setup;
use mos_tests::disk::SmallDisk;
use mos_tests::sshd::Sshd;
use mos_tests::{binary, wait_for};
use serde_json::{Value, json};

use crate::cargo::{bytes, job, lay_out, name, names, submit};

/// The first failure of an upload of 300 kB to a server whose `sftp` is this.
fn failure(subsystem: &str, more: &Value) -> Value {
    let (sshd, setup) = (Sshd::start_with(subsystem), Setup::new());
    let path = lay_out(&setup, &name(1, 300_000));
    let daemon = setup.start();
    let id = submit(&daemon, &sshd, (sshd.address().port(), &sshd.upload()), &path, more);
    let failed = wait_for("a failure", Duration::from_mins(3), || {
        let job = job(&daemon, &id);
        assert_ne!(job["state"], "done", "{subsystem} was not noticed");
        (job["state"] == "failed").then_some(job)
    });
    assert_eq!(names(&sshd.upload()).0, Vec::<String>::new(), "nothing under a final name");
    failed
}

#[test]
fn a_server_that_lies_about_sizes_is_noticed() {
    let liar = binary("sftp_liar");
    for lie in ["short", "longer"] {
        let failed = failure(&format!("{} {lie}", liar.display()), &json!({}));
        assert_eq!(failed["kind"], "size_mismatch", "{lie}: {failed}");
    }
}

#[test]
fn a_server_that_changes_bytes_is_noticed_when_they_are_read_back() {
    let failed = failure(&format!("{} changed", binary("sftp_liar").display()), &json!({"read_back": true}));
    assert!(failed["next_try_ts"].is_null(), "{failed}");
}

#[test]
fn a_server_that_refuses_the_rename_is_noticed() {
    let failed = failure("internal-sftp -P rename,posix-rename", &json!({}));
    assert_eq!(failed["kind"], "permission_denied", "{failed}");
    assert!(failed["next_try_ts"].is_null(), "nobody tries that again by itself");
}

#[test]
fn a_full_server_is_noticed_and_asked_again_when_it_has_room() {
    let (sshd, setup, disk) = (Sshd::start(), Setup::new(), SmallDisk::mount(4));
    let name = name(2, 2_000_000);
    let path = lay_out(&setup, &name);
    let filler = disk.fill();
    let daemon = setup.start();
    let id = submit(&daemon, &sshd, (sshd.address().port(), disk.path()), &path, &json!({}));
    let failed = wait_for("a failure", Duration::from_mins(3), || {
        let job = job(&daemon, &id);
        (job["state"] == "failed").then_some(job)
    });
    assert_eq!(failed["kind"], "server_full", "{failed}");
    assert!(failed["next_try_ts"].is_i64(), "it is tried again: {failed}");
    assert!(!disk.path().join(&name).exists());
    std::fs::remove_file(filler).unwrap();
    let done = || (job(&daemon, &id)["state"] == "done").then_some(());
    wait_for("the upload to go through by itself", Duration::from_mins(3), done);
    assert!(std::fs::read(disk.path().join(&name)).unwrap() == bytes(&name));
}

//! Roles over the Unix socket: what another user of this machine may do, by the kernel's word. Needs root to become that user.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use mos_tests::cli::{Outcome, outcome};
use mos_tests::daemon::{Daemon, Setup, id};

/// A user and a group that no account has.
const STRANGER: u32 = 54_321;

fn as_user(setup: &Setup, group: u32, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(setup.folder().join("mos"));
    command.arg("--socket").arg(setup.folder().join("mos.sock")).args(arguments);
    outcome(command.uid(STRANGER).gid(group))
}

fn open_to_all(setup: &Setup) -> Daemon<'_> {
    // A stranger may not get into the folder of the program.
    std::fs::copy(mos_tests::binary("mos"), setup.folder().join("mos")).unwrap();
    let daemon = setup.start();
    let mode = |path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(setup.folder().to_owned(), 0o755);
    mode(setup.folder().join("mos.sock"), 0o666);
    daemon
}

#[test]
#[allow(clippy::print_stderr, reason = "shown by the test harness")]
fn users_of_this_machine_have_the_role_that_is_configured() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root may become another user");
        return;
    }
    let setup = Setup::new().storage("segment_seconds", "1").camera("road", "test:?width=160&height=96");
    let daemon = open_to_all(&setup);
    let segment = id(&daemon.await_closed("road", 1, Duration::from_mins(3))[0]).to_owned();
    let seen = as_user(&setup, STRANGER, &["segments", "--lens", "road"]);
    assert!(seen.code == 0 && seen.out.contains(&segment), "{seen:?}");
    let refused = as_user(&setup, STRANGER, &["protect", &segment]).error();
    assert!(refused.contains("Protect needs the role operator; uid 54321 is viewer"), "{refused}");
    assert!(refused.contains("http.operators"), "{refused}");
    assert_eq!(daemon.mos.run(&["protect", &segment]).code, 0, "the daemon's own user is admin");
    daemon.stop();

    // As `[http]` is open already in what the setup writes, these are set from the environment.
    let setup = setup.environment("MOS_HTTP__OPERATORS", "@54322").environment("MOS_HTTP__OTHER_USERS", "none");
    let daemon = open_to_all(&setup);
    let refused = as_user(&setup, STRANGER, &["segments", "--lens", "road"]).error();
    assert!(refused.contains("GetSegments needs the role viewer; uid 54321 has no role"), "{refused}");
    assert_eq!(as_user(&setup, 54_322, &["protect", &segment]).code, 0);
    let refused = as_user(&setup, 54_322, &["unprotect", &segment]).error();
    assert!(refused.contains("Unprotect needs the role admin; uid 54321 is operator"), "{refused}");
    daemon.stop();
}

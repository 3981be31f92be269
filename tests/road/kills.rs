//! SIGKILL of the daemon in the middle of a large file: the next life goes on where the last one was.

use std::time::Duration;

use mos_tests::daemon::Setup;
use mos_tests::road::{Ends, Fate, Fates, Road};
use mos_tests::sshd::Sshd;
use mos_tests::wait_for;
use serde_json::json;

use crate::cargo::{bytes, job, key, lay_out, name, names, submit};

/// Bytes of the file.
const SIZE: usize = 24 << 20;
/// What may be on its way when a life ends, and is sent again.
const AGAIN: u64 = 3 << 20;

#[test]
fn a_kill_at_any_point_goes_on_by_offset() {
    let (sshd, setup) = (Sshd::start(), Setup::new());
    let ends = Ends { server: sshd.address(), impostor: sshd.address() };
    let road = Road::open(ends, Fates::all(Fate::Throttle { kilobytes_per_second: 8000 }));
    let name = name(7, SIZE);
    let path = lay_out(&setup, &name);
    let mut daemon = setup.start();
    let id = submit(&daemon, &sshd, (road.port(), &sshd.upload()), &path, &json!({}));
    let part = || {
        let (whole, partial) = names(&sshd.upload());
        assert!(whole.is_empty(), "nothing has its final name before it is whole");
        partial.first().map_or(0, |n| std::fs::metadata(sshd.upload().join(n)).map_or(0, |m| m.len()))
    };
    let kills = [2, 5, 8];
    for tenths in kills {
        wait_for("a part", Duration::from_mins(2), || (part() >= (SIZE / 10 * tenths) as u64).then_some(()));
        let _ = daemon.kill();
        daemon = setup.start();
        assert_eq!(job(&daemon, &id)["state"], "needs_credentials", "the caller's key is not kept");
        let _ = daemon.client.post(&format!("/v1/uploads/{id}/retry"), &json!({"identity": key(&sshd)})).ok();
    }
    let done = wait_for("the end of the upload", Duration::from_mins(2), || {
        let job = job(&daemon, &id);
        (job["state"] == "done").then_some(job)
    });
    assert_eq!(done["bytes"], SIZE);
    assert!(std::fs::read(sshd.upload().join(&name)).unwrap() == bytes(&name));
    assert_eq!(names(&sshd.upload()).1, Vec::<String>::new());
    // Each life sent what was missing and little more.
    let again = road.bytes_up() - SIZE as u64;
    assert!(again < kills.len() as u64 * AGAIN, "{again} bytes more than the file has went up");
}

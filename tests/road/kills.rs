//! SIGKILL of the daemon in the middle of a large file: the next life goes on where the last one was.

use std::time::Duration;

use mos_tests::daemon::Setup;
use mos_tests::road::{Ends, Fate, Fates, Road};
use mos_tests::sshd::Sshd;
use mos_tests::wait_for;
use serde_json::json;

use crate::cargo::{bytes, job, key, lay_out, name, names, submit};

/// Bytes of the file.
const SIZE: usize = 64 << 20;
/// What may go up twice for one kill: on a busy machine loopback looks like a long road, and then 10 MiB are on their way.
const AGAIN: u64 = 11 << 20;
/// Faster than any box on the road has it, so that the tests are short.
const ROAD: Fate = Fate::Throttle { kilobytes_per_second: 16_000 };

/// An MP4 file of one sample, with `free` bytes in front of its media.
fn movie(free: usize) -> Vec<u8> {
    let boxed = |kind: &[u8; 4], body: &[u8]| [&(8 + body.len() as u32).to_be_bytes()[..], kind, body].concat();
    let words = |words: &[usize]| words.iter().flat_map(|w| (*w as u32).to_be_bytes()).collect::<Vec<_>>();
    let media = bytes(&name(8, SIZE));
    let ftyp = boxed(b"ftyp", b"isom\0\0\0\0");
    let free = if free > 0 { boxed(b"free", &vec![0; free - 8]) } else { Vec::new() };
    let tables = [
        boxed(b"stsc", &words(&[0, 1, 1, 1, 1])),
        boxed(b"stsz", &words(&[0, 0, 1, SIZE])),
        boxed(b"stco", &words(&[0, 1, ftyp.len() + free.len() + 8])),
    ];
    let stbl = boxed(b"stbl", &tables.concat());
    let moov = boxed(b"moov", &boxed(b"trak", &boxed(b"mdia", &boxed(b"minf", &stbl))));
    [ftyp, free, boxed(b"mdat", &media), moov].concat()
}

#[test]
fn a_kill_of_a_reduced_upload_goes_on_in_the_same_bytes() {
    let (sshd, setup) = (Sshd::start(), Setup::new());
    let ends = Ends { server: sshd.address(), impostor: sshd.address() };
    let road = Road::open(ends, Fates::all(ROAD));
    let clips = setup.archive().join("clips");
    std::fs::create_dir_all(&clips).unwrap();
    std::fs::write(clips.join("movie.mp4"), movie(5_000_000)).unwrap();
    let daemon = setup.start();
    let to = (road.port(), &*sshd.upload());
    let id = submit(&daemon, &sshd, to, "clips/movie.mp4", &json!({"reduce": true}));
    wait_for("half of it", Duration::from_mins(2), || (road.bytes_up() > SIZE as u64 / 2).then_some(()));
    let _ = daemon.kill();
    let daemon = setup.start();
    let _ = daemon.client.post(&format!("/v1/uploads/{id}/retry"), &json!({"identity": key(&sshd)})).ok();
    let done = || (job(&daemon, &id)["state"] == "done").then_some(());
    wait_for("the end of the upload", Duration::from_mins(2), done);
    assert!(std::fs::read(sshd.upload().join("movie.mp4")).unwrap() == movie(0));
    assert_eq!(names(&sshd.upload()).1, Vec::<String>::new());
    let again = road.bytes_up() - SIZE as u64;
    assert!(again < AGAIN, "{again} bytes more than the file has went up");
}

#[test]
fn a_kill_at_any_point_goes_on_by_offset() {
    let (sshd, setup) = (Sshd::start(), Setup::new());
    let ends = Ends { server: sshd.address(), impostor: sshd.address() };
    let road = Road::open(ends, Fates::all(ROAD));
    let name = name(7, SIZE);
    let path = lay_out(&setup, &name);
    let mut daemon = setup.start();
    let id = submit(&daemon, &sshd, (road.port(), &sshd.upload()), &path, &json!({}));
    let part = || {
        let (whole, partial) = names(&sshd.upload());
        assert!(whole.is_empty(), "nothing has its final name before it is whole");
        partial.first().map_or(0, |n| std::fs::metadata(sshd.upload().join(n)).map_or(0, |m| m.len()))
    };
    // Far enough from the end for a busy machine to kill it before.
    let kills = [2, 5];
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

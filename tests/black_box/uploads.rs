//! Uploads to a real OpenSSH server: pinned, confined, verified; every refusal has its kind.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::cli::tool;
use mos_tests::daemon::Setup;
use mos_tests::sshd::Sshd;
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use serde_json::{Value, json};

#[test]
fn only_the_right_server_gets_only_what_may_be_sent() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().storage("segment_seconds", "2").camera("road", &camera.url(0));
    let daemon = setup.start();
    let segment = daemon.await_closed("road", 1, Duration::from_mins(2)).remove(0);
    let (file, sshd) = (daemon.file(&segment), Sshd::start());
    let (path, identity) = (file.to_str().unwrap(), sshd.identity());
    let upload = |more: &[&str]| daemon.mos.run(&[&["upload", path, "--to", &sshd.uri()], more].concat());
    let arrived = || std::fs::read_dir(sshd.upload()).unwrap().count();

    // No pin, no connection.
    let refused = upload(&["--identity", identity.to_str().unwrap()]);
    let _ = refused.error();
    assert!(!sshd.log().contains("Connection from"), "{}", sshd.log());

    // A wrong pin ends before any credential is sent.
    let refused = upload(&["--host-key", &sshd.wrong_fingerprint(), "--identity", identity.to_str().unwrap()]);
    assert!(refused.error().contains("host_key_mismatch"));
    assert!(!sshd.log().contains("Accepted") && !sshd.log().contains("Failed publickey"), "{}", sshd.log());

    // A stranger's key is refused by the server.
    let refused = upload(&["--host-key", &sshd.fingerprint(), "--identity", sshd.stranger().to_str().unwrap()]);
    assert!(refused.error().contains("auth_failed"));
    assert_eq!(arrived(), 0);

    // The right server gets the file, whole, under its final name only.
    let done = upload(&["--host-key", &sshd.fingerprint(), "--identity", identity.to_str().unwrap(), "--json"]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(arrived(), 1);
    let name = std::fs::read_dir(sshd.upload()).unwrap().next().unwrap().unwrap().path();
    assert!(std::fs::read(&name).unwrap() == std::fs::read(&file).unwrap());

    // An existing file is not replaced.
    let again = upload(&["--host-key", &sshd.fingerprint(), "--identity", identity.to_str().unwrap()]);
    assert!(again.error().contains("destination_exists"));

    // Through the API: events end with `done`, and no reply holds the key.
    let key = std::fs::read_to_string(&identity).unwrap();
    let options = json!({"host_key": sshd.fingerprint(), "identity": key});
    let uri = format!("{}by-api.mp4", sshd.uri());
    let post = |paths: Value| {
        daemon.client.post("/v1/uploads", &json!({"paths": paths, "destination_uri": uri, "options": options}))
    };
    let submitted = post(json!([path])).ok();
    let job = submitted["uploads"][0]["id"].as_str().unwrap().to_owned();
    let events = daemon.client.get(&format!("/v1/uploads/{job}/events")).text();
    let last = events.lines().rfind(|l| l.starts_with("data:")).unwrap();
    assert!(last.contains("\"done\"") && last.contains("sha256"), "{events}");
    let secret = key.lines().nth(2).unwrap();
    assert!(!events.contains(secret) && !submitted.to_string().contains(secret) && !daemon.log().contains(secret));

    // Nothing outside the archive's folders leaves.
    let inside = setup.archive().join("clips");
    std::fs::create_dir_all(&inside).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", inside.join("link.mp4")).unwrap();
    for bad in ["/etc/passwd", "segments/../../../etc/passwd", "clips/link.mp4", "index/x", "../x", ""] {
        let refused = post(json!([bad]));
        assert!([400, 403, 404].contains(&refused.status), "{bad}: {}", refused.text());
    }
    // One that is closed just then is taken.
    let refused = wait_for("an open segment to be refused", Duration::from_mins(2), || {
        let open = daemon.segments("road").into_iter().find(|s| s["state"] == "open")?;
        Some(post(json!([daemon.file(&open).to_str().unwrap()]))).filter(|answer| answer.status != 202)
    });
    assert_eq!(refused.error(409), "open");
    assert_eq!(arrived(), 2);
}

/// Bytes that no shift or swap leaves alike.
fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A destination of the configuration with an encrypted key, whose passphrase is in the environment.
fn with_depot(setup: Setup, sshd: &Sshd, key: &Path) -> Setup {
    tool(Command::new("cp").arg(sshd.identity()).arg(key));
    tool(Command::new("ssh-keygen").args(["-q", "-p", "-P", "", "-N", "open sesame", "-f"]).arg(key));
    let uri = sshd.uri();
    let (login, path) = uri.trim_start_matches("sftp://").split_once('/').unwrap();
    let (user, address) = login.split_once('@').unwrap();
    let (host, port) = address.rsplit_once(':').unwrap();
    let depot = format!(
        "[context]\nvehicle_id = \"bus 7\"\n[[destination]]\nname = \"depot\"\nhost = \"{host}\"\nport = {port}\n\
         user = \"{user}\"\npath = \"/{path}{{vehicle_id}}/{{name}}\"\nhost_key = \"{}\"\nkey_file = \"{}\"\n\
         passphrase_env = \"DEPOT_PASSPHRASE\"\n",
        sshd.fingerprint(),
        key.display()
    );
    setup.sections(&depot).environment("DEPOT_PASSPHRASE", "open sesame")
}

#[test]
fn a_killed_daemon_goes_on_where_the_server_has_what_it_sent() {
    let sshd = Sshd::start();
    let setup = Setup::new();
    let key = setup.folder().join("depot_key");
    let setup = with_depot(setup, &sshd, &key);
    let contents = bytes(32_000_000);
    let daemon = setup.start();
    std::fs::write(setup.archive().join("clips/a.mp4"), &contents).unwrap();
    let sent =
        daemon.mos.run(&["upload", "clips/a.mp4", "--to", "depot", "--max-rate", "6000000", "--detach", "--json"]);
    let id = sent.json()["uploads"][0]["id"].as_str().unwrap().to_owned();
    let acknowledged = wait_for("the middle of the transfer", Duration::from_mins(3), || {
        let job = daemon.client.get(&format!("/v1/uploads/{id}")).ok();
        job["bytes"].as_u64().filter(|bytes| *bytes > 20_000_000)
    });
    daemon.kill();
    let folder = sshd.upload().join("bus%207");
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].file_name().unwrap().to_str().unwrap().starts_with(".a.mp4.part-"), "{left:?}");
    let there = std::fs::metadata(&left[0]).unwrap().len();
    assert!(there >= acknowledged, "{there} bytes lie there, {acknowledged} were acknowledged");

    // Retention and Remove leave the file alone, and nobody has to ask for the rest.
    let daemon = setup.start();
    let resumed = wait_for("the transfer going on", Duration::from_mins(3), || {
        let job = daemon.client.get(&format!("/v1/uploads/{id}")).ok();
        job["bytes"].as_u64()
    });
    assert!(resumed >= acknowledged, "it went on at {resumed}, though {acknowledged} had been acknowledged");
    let events = daemon.client.get(&format!("/v1/uploads/{id}/events")).text();
    let last = events.lines().rfind(|l| l.starts_with("data:")).unwrap();
    assert!(last.contains("\"done\""), "{events}");
    assert!(std::fs::read(folder.join("a.mp4")).unwrap() == contents);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);

    // The list shows it; a new one can be called off.
    let sent = daemon.mos.run(&["upload", "clips/a.mp4", "--to", "depot", "--max-rate", "1024", "--detach", "--json"]);
    assert_eq!(sent.code, 0, "{}", sent.err);
    let second = sent.json()["uploads"][0]["id"].as_str().unwrap().to_owned();
    // The name is taken, which is a failure that stands until somebody decides.
    wait_for("the failure", Duration::from_mins(2), || {
        let job = daemon.client.get(&format!("/v1/uploads/{second}")).ok();
        (job["state"] == "failed" && job["kind"] == "destination_exists").then_some(())
    });
    let list = daemon.mos.run(&["uploads", "--json"]).json();
    let states: Vec<_> = list["uploads"].as_array().unwrap().iter().map(|job| job["state"].clone()).collect();
    assert_eq!(states, ["done", "failed"]);
    let cancelled = daemon.mos.run(&["uploads", "cancel", &second]);
    assert_eq!(cancelled.code, 0, "{}", cancelled.err);
    let _ = daemon.mos.run(&["uploads", "cancel", &second]).error();
    let _ = daemon.mos.run(&["uploads", "retry", "no-such-upload"]).error();
    assert!(daemon.mos.run(&["uploads"]).out.contains("cancelled"));
    let log = daemon.log();
    assert!(!log.contains("open sesame"), "the passphrase is in the log");
}

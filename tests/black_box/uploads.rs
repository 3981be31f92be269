//! Uploads to a real OpenSSH server: pinned, confined, verified; every refusal has its kind.

use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::daemon::{Setup, id};
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
    let segment = daemon.await_closed("road", 1, Duration::from_secs(30)).remove(0);
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
    let open = wait_for("an open segment", Duration::from_secs(20), || {
        daemon.segments("road").into_iter().find(|s| s["state"] == "open")
    });
    assert_eq!(post(json!([daemon.file(&open).to_str().unwrap()])).error(409), "open", "{}", id(&open));
    assert_eq!(arrived(), 2);
}

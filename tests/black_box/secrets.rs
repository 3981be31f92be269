//! Passwords are nowhere but in the configuration: not in the log, the process list, the API, an error, nor the archive.

use std::time::Duration;

use mos_tests::camera::{Camera, PASSWORD};
use mos_tests::daemon::Setup;
use mos_tests::judge::archive::files_below;
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;

#[test]
fn a_camera_password_shows_up_nowhere() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::locked(std::slice::from_ref(&stream));
    let setup = Setup::new()
        .environment("MOS_LOG__LEVEL", "trace")
        .environment("RUST_LOG", "trace")
        .storage("segment_seconds", "1")
        .camera("good", &camera.url(0))
        .camera("bad", &camera.wrong_url());
    let daemon = setup.start();
    let segments = daemon.await_closed("good", 1, Duration::from_mins(2));
    wait_for("the refusal", Duration::from_mins(2), || (!daemon.gaps("bad").is_empty()).then_some(()));
    let mut places = vec![
        ("process list".to_owned(), daemon.process().command_line()),
        ("listing".to_owned(), format!("{segments:?}")),
    ];
    for path in
        ["/v1/health", "/v1/metrics", "/v1/capture/devices", "/v1/segments?lens=bad", "/v1/openapi.json", "/v1/none"]
    {
        places.push((path.to_owned(), daemon.client.get(path).text()));
    }
    for args in [&["status"][..], &["status", "--json"], &["devices"], &["segments", "--lens", "bad"]] {
        let done = daemon.mos.run(args);
        places.push((args.join(" "), done.out + &done.err));
    }
    daemon.stop();
    let log = setup.log();
    assert!(!log.is_empty(), "the daemon logs nothing, even at trace level");
    places.push(("log".to_owned(), log));
    for file in files_below(setup.archive()) {
        places.push((file.display().to_string(), String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned()));
    }
    for (place, text) in places {
        assert!(!text.contains(PASSWORD), "the password is in the {place}");
    }
}

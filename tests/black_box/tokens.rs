//! Tokens over TCP while the daemon runs: one that is taken out of the configuration is refused without a restart, and what was
//! being sent to it is broken off; the others notice nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use mos_tests::cli::{Mos, Outcome, outcome};
use mos_tests::daemon::Setup;
use mos_tests::wait_for;

/// Long enough for any machine; the daemon promises two seconds.
const LONG: Duration = Duration::from_mins(3);

/// A token, and the lines of the configuration that let it in.
fn token(role: &str) -> (String, String) {
    let made = Mos::default().run(&["token", "--name", role, "--role", role, "--json"]).json();
    let section = format!("[[token]]\nname = \"{role}\"\nrole = \"{role}\"\nhash = {}\n", made["hash"]);
    (made["token"].as_str().unwrap().to_owned(), section)
}

fn ask(url: &str, token: &str) -> Outcome {
    let mut command = Command::new(mos_tests::binary("mos"));
    outcome(command.args(["--url", url, "status"]).env("MOS_TOKEN", token))
}

/// Puts a configuration in place at once: the daemon looks at any moment.
fn put(setup: &Setup, text: &str) {
    let beside = setup.folder().join("mos.toml.new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, setup.config()).unwrap();
}

/// A stream of events that has begun.
fn stream(url: &str, token: &str) -> TcpStream {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /v1/events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    stream
}

#[test]
fn a_revoked_token_is_refused_without_a_restart_and_its_streams_end() {
    let (tokens, sections): (Vec<_>, Vec<_>) = ["viewer", "operator", "admin"].into_iter().map(token).unzip();
    let setup = Setup::new().environment("MOS_HTTP__LISTEN", "127.0.0.1:0").sections(&sections.concat());
    let daemon = setup.start();
    let url = wait_for("the address of TCP", LONG, || {
        let log = setup.log();
        let at = log.find("http://127.0.0.1:")?;
        Some(log[at..].lines().next()?.trim().to_owned())
    });
    let mut streams: Vec<TcpStream> = tokens.iter().map(|token| stream(&url, token)).collect();
    for token in &tokens {
        let answer = ask(&url, token);
        assert_eq!(answer.code, 0, "{answer:?}");
    }

    let whole = std::fs::read_to_string(setup.config()).unwrap();
    // The lines of one are taken out, and put back when it was seen that it is refused.
    for (gone, section) in sections.iter().enumerate() {
        put(&setup, &whole.replace(section.as_str(), ""));
        wait_for("a refusal", LONG, || (ask(&url, &tokens[gone]).code != 0).then_some(()));
        let refused = ask(&url, &tokens[gone]).error();
        assert!(refused.contains("no such token is known; was it revoked?") && !refused.contains(&tokens[gone]));
        // Broken off, not ended: the last chunk of a complete stream would be `0\r\n\r\n`.
        let mut rest = Vec::new();
        streams[gone].set_read_timeout(Some(LONG)).unwrap();
        match streams[gone].read_to_end(&mut rest) {
            Ok(_) => assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest)),
            Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset),
        }
        for (n, token) in tokens.iter().enumerate().filter(|(n, _)| *n != gone) {
            assert_eq!(ask(&url, token).code, 0);
            streams[n].set_nonblocking(true).unwrap();
            let mut some = [0; 4096];
            while let Ok(n) = streams[n].read(&mut some) {
                assert_ne!(n, 0, "{token} was not touched");
            }
            streams[n].set_nonblocking(false).unwrap();
        }
        put(&setup, &whole);
        wait_for("the token's return", LONG, || (ask(&url, &tokens[gone]).code == 0).then_some(()));
        streams[gone] = stream(&url, &tokens[gone]);
    }
    // A mistake in the file revokes nobody; the log says that it is one.
    put(&setup, &format!("{whole}\n[[token]]\nname = \"depot\"\n"));
    wait_for("the log", LONG, || setup.log().contains("the tokens stay as they are").then_some(()));
    for token in &tokens {
        assert_eq!(ask(&url, token).code, 0);
        assert!(!setup.log().contains(token.as_str()));
    }
    drop(streams);
    daemon.stop();
}

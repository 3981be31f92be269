//! What must hold of any bytes from outside: one function for each kind of input, which panics if it does not.
//!
//! `app/fuzz` feeds them with libFuzzer (`make fuzz`), the tests below with mutations of good input, and so those of
//! [`mos_hal::fuzzing`]. The program calls none of them.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config;
use crate::evidence::chain::Chain;
use crate::evidence::judged::Judged;
use crate::evidence::manifest::Signed;
use crate::evidence::verify::{self, Verdict};
use crate::upload::destination::Destination;
use crate::upload::template::{authority, resolve, tokens};

/// Splits into two texts at the first zero byte.
fn two(data: &[u8]) -> (String, String) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    (text(), text())
}

/// Lines of `name=value`.
fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned()))
}

/// A text for people: it may not steer their terminal.
fn shown(text: &str) {
    assert!(text.chars().all(|c| !c.is_control() || c == '\n'), "{text:?}");
}

/// A configuration with its variables: taken, or refused in words.
pub fn config(data: &[u8]) {
    let (text, variables) = two(data);
    let variables = pairs(&variables).map(|(name, value)| (format!("MOS_{name}"), value));
    match config::parse(Path::new("mos.toml"), &text, variables) {
        Ok(config) => assert!(config.storage.root.is_absolute()),
        Err(refused) => shown(&refused.to_string()),
    }
}

/// A destination with tokens and their values: a name stays where the template puts it.
pub fn names(data: &[u8]) {
    let (uri, values) = two(data);
    let values: BTreeMap<String, String> = pairs(&values).collect();
    let Ok(found) = tokens(&uri) else { return };
    let Ok(resolved) = resolve(&uri, &values) else { return };
    assert!(found.iter().all(|token| values.contains_key(*token)));
    assert_eq!(authority(&resolved), authority(&uri), "a value decides about host or user");
    let Ok(destination) = Destination::parse(&resolved) else { return };
    let path = destination.remote_path();
    assert!(path.split('/').all(|part| part != ".." && part != "."), "{path:?}");
    assert!(!path.contains('\0'), "{path:?}");
    if let Ok(plain) = Destination::parse(&uri.replace(['{', '}'], "_")) {
        let place = |d: &Destination| (d.parents().len(), d.file_name().is_empty(), d.is_dir());
        assert_eq!(place(&plain), place(&destination), "a value makes a folder: {path:?}");
    }
}

/// A manifest and a clip, or the chain of a segment and the segment: a verdict. The first is up to the first zero byte.
pub fn evidence(data: &[u8]) {
    let cut = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (text, file) = (&data[..cut], data.get(cut + 1..).unwrap_or_default());
    let chain = Chain::read("road", 1, text);
    assert!(chain.bytes as usize <= text.len() && chain.links.iter().all(crate::evidence::chain::Link::holds));
    let _ = verify::segment(&file, text, Some(&|_| Ok(text.to_vec())), None, &mut Judged::default()).to_string();
    if let Ok(signed) = Signed::read(text) {
        let verdict = verify::clip(&file, &signed, Some("ed25519:nobody's"));
        assert!(!matches!(verdict, Verdict::Intact { .. }), "by a key that is none");
        let _ = verify::clip(&file, &signed, None).to_string();
    }
}

/// Packets of an SFTP server.
pub fn sftp(data: &[u8]) {
    crate::upload::sftp::hear(data);
}

/// What a client of the API sends: a body, a query, an id, or what it shows at the door; which, by the first byte.
pub fn request(data: &[u8]) {
    crate::http::hear::request(data);
}

/// Messages of a worker, which runs a vendor's code.
pub fn worker(data: &[u8]) {
    crate::capture::worker::wire::hear(data);
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr)]
    use std::time::Duration;

    #[cfg(feature = "whep")]
    use mos_hal::fuzzing::whep;
    use mos_hal::fuzzing::{discovery, nal, onvif, rtsp, timeline};

    use super::*;

    type Target = fn(&[u8]);

    /// Of CPU; what `make fuzz` calls a hang.
    const HANG: Duration = Duration::from_secs(20);

    /// Numbers that are the same in every run.
    pub(crate) struct Dice(pub(crate) u64);

    impl Dice {
        pub(crate) fn below(&mut self, n: usize) -> usize {
            // xorshift64* (Marsaglia).
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
        }
    }

    /// What breaks parsers.
    const WORDS: [&[u8]; 24] = [
        b"\0",
        b"\"",
        b"'",
        b"{",
        b"}",
        b"[",
        b"]",
        b"=",
        b"\n",
        b"..",
        b"/",
        b"%2e%2e",
        b"%00",
        b"\x1b[2J",
        b"-1",
        b"1e999",
        b"18446744073709551616",
        b"\xff\xfe",
        b"null",
        b"\xe2\x80\xae",
        b"@",
        b":",
        b"://",
        b"\\u0000",
    ];

    /// A few changes of a text.
    pub(crate) fn changed(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut data = seeds[dice.below(seeds.len())].clone();
        for _ in 0..=dice.below(4) {
            let at = dice.below(data.len() + 1);
            let end = (at + dice.below(12)).min(data.len());
            match dice.below(7) {
                0 if at < data.len() => data[at] ^= 1 << dice.below(8),
                1 => drop(data.splice(at..end, WORDS[dice.below(WORDS.len())].iter().copied())),
                2 => drop(data.drain(at..end)),
                3 => {
                    let piece = data[at..end].repeat(1 + dice.below(40));
                    drop(data.splice(at..at, piece));
                }
                4 => {
                    let other = &seeds[dice.below(seeds.len())];
                    let from = dice.below(other.len() + 1);
                    let piece = other[from..(from + dice.below(40)).min(other.len())].to_vec();
                    drop(data.splice(at..end, piece));
                }
                5 if dice.below(8) == 0 => data.truncate(at),
                _ => {
                    // A number of its own.
                    let number =
                        [0, 1, 255, 256, u64::from(u32::MAX), u64::MAX / 2, u64::MAX][dice.below(7)].to_string();
                    drop(data.splice(at..at, number.into_bytes()));
                }
            }
        }
        data.truncate(1 << 20);
        data
    }

    /// Tries mutations: a few hundred, or for as many seconds of CPU as `MUTATE_SECONDS` says.
    pub(crate) fn mutate(seeds: &[Vec<u8>], mut check: impl FnMut(&[u8])) {
        let seconds = std::env::var("MUTATE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
        let (begun, mut dice, mut count) = (cpu(), Dice(0x9e37_79b9_7f4a_7c15), 0_u32);
        for seed in seeds {
            check(seed);
        }
        while count < 400 || seconds.is_some_and(|seconds| cpu().saturating_sub(begun) < Duration::from_secs(seconds)) {
            let data = changed(&mut dice, seeds);
            let at = cpu();
            let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&data)));
            if let Err(panic) = held {
                eprintln!("of {} bytes: {}", data.len(), data.escape_ascii());
                std::panic::resume_unwind(panic);
            }
            let took = cpu().saturating_sub(at);
            assert!(took < HANG, "a hang, {took:?}: {}", data.escape_ascii());
            count += 1;
        }
        if seconds.is_some() {
            eprintln!("{count} mutations held in {:?} of CPU", cpu().saturating_sub(begun));
        }
    }

    /// CPU time of this thread.
    fn cpu() -> Duration {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    #[test]
    fn no_configuration_does_harm() {
        let full: String = include_str!("../mos.toml")
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        let variables = b"\0HTTP__UNIX_SOCKET=/run/x\nCAMERA__ROAD__SOURCE=rtsp://u:p@h/p\nSTORAGE__MAX_BYTES=1GiB";
        let small = "[storage]\nroot=\"/data\"\n[http]\nunix_socket=\"/run/mos.sock\"\n[[camera]]\nid=\"road\"\nsource=\"srt://h:1?mode=caller\"\n";
        mutate(&[full.clone().into_bytes(), [small.as_bytes(), variables].concat(), small.into()], config);
    }

    #[test]
    fn no_name_leaves_its_place() {
        mutate(&seeds("names"), names);
    }

    #[test]
    fn no_answer_of_a_server_does_harm() {
        mutate(&seeds("sftp"), sftp);
    }

    /// What a fuzzer's few kilobytes do not show: time that grows with the square of what comes, and nesting without end.
    #[test]
    fn nothing_long_or_deep_does_harm() {
        let targets: [(&str, Target); 8] = [
            ("config", config),
            ("names", names),
            ("evidence", evidence),
            ("sftp", sftp),
            ("request", request),
            ("worker", worker),
            ("onvif", onvif),
            ("discovery", discovery),
        ];
        for words in
            ["[[camera]]\n", "[", "a={", "a.", "{\"a\":", "<a>", "<a b='c'>", "sftp://{x}/", "../", "\0", "%41", "{}\n"]
        {
            let data = words.repeat((2 << 20) / words.len());
            for (name, target) in targets {
                let begun = cpu();
                target(data.as_bytes());
                let took = cpu().saturating_sub(begun);
                assert!(took < HANG, "{name}: {took:?} for {} times {words:?}", data.len() / words.len());
            }
        }
    }

    /// Good input of a target, where the fuzzer begins as well.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let places =
            ["fuzz/seeds", "../hal/fuzz/seeds"].map(|at| Path::new(env!("CARGO_MANIFEST_DIR")).join(at).join(target));
        let mut files: Vec<_> = places
            .iter()
            .find_map(|folder| std::fs::read_dir(folder).ok())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
    }

    #[test]
    fn no_answer_of_a_camera_does_harm() {
        mutate(&seeds("onvif"), onvif);
    }

    #[test]
    fn no_rtsp_session_does_harm() {
        mutate(&seeds("rtsp"), rtsp);
    }

    #[test]
    fn no_request_does_harm() {
        mutate(&seeds("request"), request);
    }

    #[test]
    fn no_worker_does_harm() {
        mutate(&seeds("worker"), worker);
    }

    #[test]
    fn no_datagram_does_harm() {
        mutate(&seeds("discovery"), discovery);
    }

    #[test]
    fn no_access_unit_and_no_parameter_set_does_harm() {
        mutate(&seeds("nal"), nal);
    }

    #[test]
    fn no_media_times_do_harm() {
        mutate(&seeds("timeline"), timeline);
    }

    #[cfg(feature = "whep")]
    #[test]
    fn no_answer_of_a_whep_server_does_harm() {
        mutate(&seeds("whep"), whep);
    }
}

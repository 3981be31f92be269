//! `hil/BENCH.md` tells people at a bench only of commands, options, figures and cases that exist: nobody should find out beside a board
//! that has to be given back.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use mos_tests::board_tree::QCS6490_CAMSS;
use mos_tests::cli::{outcome, tool};
use mos_tests::daemon::Setup;

/// What a page may name.
struct Known {
    /// Names of metrics, without what OpenMetrics adds for a counter or histogram.
    metrics: BTreeSet<String>,
    /// What `make help` prints.
    targets: String,
}

/// Asks a daemon that has all kinds of figures: those of GMSL links are there only on a board with some.
fn known() -> Known {
    let tree = QCS6490_CAMSS.live();
    let board = format!("[board]\ndevice_tree = \"{}\"\nsysfs = \"/nowhere\"\n", tree.path().display());
    let setup = Setup::new().sections(&board);
    let text = setup.start().client.get("/v1/metrics").text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let metrics = types.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    let mut help = Command::new("make");
    let help = tool(help.arg("--no-print-directory").arg("help").current_dir(mos_tests::repository()));
    Known { metrics, targets: String::from_utf8(help).unwrap() }
}

fn help_of(words: &[&str]) -> Option<String> {
    let done = outcome(Command::new(mos_tests::binary("mos")).args(words).arg("--help"));
    (done.code == 0).then_some(done.out)
}

/// The code spans and the lines of code blocks of a page.
fn spans(page: &str) -> Vec<String> {
    let (mut found, mut in_block) = (Vec::new(), false);
    for line in page.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            found.push(line.trim().to_owned());
        } else {
            // A bar within a table's cell is escaped.
            found.extend(line.split('`').skip(1).step_by(2).map(|span| span.replace("\\|", "|")));
        }
    }
    found
}

/// What of a page does not exist, in words.
fn untrue(page: &str, known: &Known) -> Vec<String> {
    let mut problems = Vec::new();
    for span in spans(page) {
        let commands =
            span.split(['|', ';']).map(|part| part.trim().trim_start_matches("do ").trim_start_matches("done "));
        for command in commands {
            let words: Vec<&str> = command.split_whitespace().collect();
            match words.first() {
                Some(&"mos") => problems.extend(refused(&words[1..]).map(|why| format!("`{command}`: {why}"))),
                Some(&"make") if words.len() > 1 => problems.extend(unmade(&words[1..], known)),
                _ => {}
            }
        }
        let names = span.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
        for name in names.filter(|name| name.starts_with("mos_")) {
            let plain = ["_total", "_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            if !known.metrics.contains(name) && !plain.is_some_and(|plain| known.metrics.contains(plain)) {
                problems.push(format!("no metric {name}"));
            }
        }
    }
    problems
}

/// Why the program would not take these words.
fn refused(words: &[&str]) -> Option<String> {
    let mut depth = 0;
    let mut help = help_of(&[])?;
    while help.contains("\nCommands:\n") {
        let word = words.get(depth).copied().unwrap_or("");
        let is_listed = |line: &str| line.strip_prefix("  ").is_some_and(|rest| rest.split(' ').next() == Some(word));
        if word.is_empty() || !help.lines().any(is_listed) {
            return Some(format!("there is no such command `{word}`"));
        }
        depth += 1;
        help = help_of(&words[..depth])?;
    }
    let (given, usage) = (&words[depth..], help.lines().find(|line| line.starts_with("Usage: "))?);
    let options = given.iter().filter(|word| word.starts_with('-'));
    if let Some(option) = options.map(|o| o.split('=').next().unwrap_or(o)).find(|o| !help.contains(&format!("{o} "))) {
        return Some(format!("there is no option {option}"));
    }
    let needed =
        usage.split_whitespace().skip(2 + depth).filter(|word| word.starts_with("--") || word.starts_with('<'));
    let missing = needed
        .enumerate()
        .find(|(at, word)| if word.starts_with("--") { !given.contains(word) } else { given.len() <= *at });
    missing.map(|(_, word)| format!("{word} is missing"))
}

/// Why `make` would not do this.
fn unmade(words: &[&str], known: &Known) -> Option<String> {
    let hil = mos_tests::repository().join("hil");
    if !known.targets.contains(&format!("make {} ", words[0])) {
        return Some(format!("there is no `make {}`", words[0]));
    }
    let exists = |folder: &str, file: String| Path::new(&hil).join(folder).join(file).exists();
    words[1..].iter().find_map(|word| match word.split_once('=') {
        Some(("RIG", rig)) if !exists("environments", format!("{rig}.yaml")) => Some(format!("no environment {rig}")),
        Some(("ONLY", case)) if !exists("cases", format!("test_{case}.py")) => Some(format!("no cases {case}")),
        Some(("RIG" | "ONLY" | "CUTS" | "SOAK", _)) => None,
        _ => Some(format!("`make hil` does not take {word}")),
    })
}

#[test]
fn the_page_of_the_bench_names_only_what_exists() {
    let known = known();
    let page = std::fs::read_to_string(mos_tests::repository().join("hil/BENCH.md")).unwrap();
    assert_eq!(untrue(&page, &known), Vec::<String>::new());
    let named: BTreeSet<String> = spans(&page).into_iter().filter(|s| s.starts_with("mos")).collect();
    assert!(named.len() > 8, "the page names commands and figures: {named:?}");
    // Each of these is found.
    for (text, found) in [
        ("`mos capture`", "`mos capture`: there is no such command ``"),
        ("`mos records`", "`mos records`: there is no such command `records`"),
        ("`mos segments`", "`mos segments`: --lens is missing"),
        ("`mos check`", "`mos check`: <ROOT> is missing"),
        ("`mos status --jason`", "`mos status --jason`: there is no option --jason"),
        ("`for i in 1 2; do mos snapshots S; done`", "`mos snapshots S`: there is no such command `snapshots`"),
        ("metric `mos_snapshot_hours`", "no metric mos_snapshot_hours"),
        ("`make hil RIG=warp`", "no environment warp"),
        ("`make hil ONLY=warp`", "no cases warp"),
        ("`make hill`", "there is no `make hill`"),
    ] {
        assert_eq!(untrue(text, &known), [found], "{text}");
    }
}

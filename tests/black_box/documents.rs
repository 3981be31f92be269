//! The documents tell the truth: every command, target and path that they name exists.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use mos_tests::cli::{outcome, tool};

fn read(name: &str) -> String {
    let path = mos_tests::repository().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The words that follow `before` in code spans and code blocks of a document.
fn words_after<'a>(text: &'a str, before: &str) -> BTreeSet<&'a str> {
    let starts = text.lines().flat_map(|line| {
        let spans = line.split('`').skip(1).step_by(2).map(str::trim_start);
        std::iter::once(line.trim_start().trim_start_matches("$ ")).chain(spans)
    });
    let followed = starts.filter_map(|start| start.strip_prefix(before));
    let in_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let word = |rest: &'a str| rest.split(|c: char| !in_word(c)).next().unwrap_or("");
    followed.map(word).filter(|w| !w.is_empty()).collect()
}

#[test]
fn commands_of_the_readme_exist() {
    let help = outcome(Command::new(mos_tests::binary("mos")).arg("--help")).out;
    let readme = read("README.md");
    let named = words_after(&readme, "mos ");
    assert!(named.len() >= 8, "the README shows the commands: {named:?}");
    for command in named {
        assert!(
            help.lines().any(|l| l.trim_start().starts_with(&format!("{command} "))),
            "there is no `mos {command}`"
        );
    }
    for command in [
        "run",
        "demo",
        "status",
        "devices",
        "segments",
        "clip",
        "snapshot",
        "protect",
        "unprotect",
        "remove",
        "upload",
        "uploads",
        "check",
    ] {
        let done = outcome(Command::new(mos_tests::binary("mos")).args([command, "--help"]));
        assert_eq!(done.code, 0, "mos {command} --help: {}", done.err);
    }
}

#[test]
fn targets_of_the_readme_exist() {
    let help = String::from_utf8(tool(
        Command::new("make").arg("--no-print-directory").arg("help").current_dir(mos_tests::repository()),
    ))
    .unwrap();
    let readme = read("README.md");
    let named = words_after(&readme, "make ");
    assert!(named.contains("demo") && named.contains("test"), "the README shows the two commands: {named:?}");
    for target in named {
        assert!(help.contains(&format!("make {target} ")), "there is no `make {target}`");
    }
    assert!(read(".ci/run").contains("make test"));
}

#[test]
fn paths_of_the_documents_exist() {
    for document in ["README.md", "ARCHITECTURE.md", "RELIABILITY.md", "SECURITY.md"] {
        let text = read(document);
        for span in text.split('`').skip(1).step_by(2) {
            let rooms = ["app/", "hal/", "tests/", ".ci/"];
            let span = span.split_once("::").map_or(span, |(file, _)| file);
            if rooms.iter().any(|room| span.starts_with(room)) && !span.contains(['*', '{', ' ', '…']) {
                assert!(mos_tests::repository().join(span).exists(), "{document} names {span}, which does not exist");
            }
        }
    }
}

#[test]
fn tests_that_prove_promises_exist() {
    let text = read("RELIABILITY.md") + &read("SECURITY.md");
    let named: BTreeSet<(&str, &str)> =
        text.split('`').skip(1).step_by(2).filter_map(|span| span.split_once("::")).collect();
    assert!(named.len() >= 20, "promises have their tests: {named:?}");
    for (file, test) in named {
        let functions = read(file);
        if Path::new(file).extension().is_some_and(|extension| extension == "py") {
            assert!(functions.contains(&format!("def {test}(")), "{file} has no case {test}");
            continue;
        }
        let at = functions.find(&format!("fn {test}(")).unwrap_or_else(|| panic!("{file} has no test {test}"));
        // Attributes stand in the lines above, up to what ends or begins something else.
        let above = functions[..at].rfind('\n').map_or("", |end| &functions[..end]);
        let marks = above.lines().rev().take_while(|line| !line.trim().is_empty() && line.trim() != "}");
        let marks: Vec<&str> = marks.collect();
        let runs = |mark: &str| marks.iter().any(|line| line.trim_start().starts_with(mark));
        assert!(runs("#[test]") || runs("#[tokio::test"), "{file}: {test} is no test: {marks:?}");
        assert!(!runs("#[ignore"), "{file}: {test} runs in no `make test`");
    }
}

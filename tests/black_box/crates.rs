//! The crates that the program is made of: their licences and their number, told by Cargo without any network.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use mos_tests::cli::tool;
use serde_json::Value;

/// Licences that a product may carry with no more than a notice.
const LICENCES: [&str; 10] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Zlib",
    "0BSD",
    "Unlicense",
];
/// Crates that are there in more than one version, because of what others ask for. One more is to be looked at first.
const DOUBLES: usize = 15;

fn metadata() -> Value {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    cargo.args(["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform"]);
    let text = tool(cargo.arg("x86_64-unknown-linux-gnu").current_dir(mos_tests::repository()));
    serde_json::from_slice(&text).unwrap()
}

/// Ids of the crates in the program `mos` as firmware builds it.
fn of_the_program(metadata: &Value) -> BTreeSet<String> {
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let all: BTreeMap<&str, &Value> = nodes.iter().map(|node| (node["id"].as_str().unwrap(), node)).collect();
    let mos = metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == "mos").unwrap();
    let (mut found, mut waiting) = (BTreeSet::new(), vec![mos["id"].as_str().unwrap()]);
    while let Some(id) = waiting.pop() {
        if !found.insert(id.to_owned()) {
            continue;
        }
        for dep in all[id]["deps"].as_array().unwrap() {
            if dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] != "dev") {
                waiting.push(dep["pkg"].as_str().unwrap());
            }
        }
    }
    found
}

/// Whether one of the alternatives of an SPDX expression is made of known licences only.
fn is_known(licence: &str) -> bool {
    let plain = licence.replace(['(', ')'], "").replace('/', " OR ");
    plain.split(" OR ").any(|way| way.split(" AND ").all(|name| LICENCES.contains(&name.trim())))
}

#[test]
fn every_crate_has_a_licence_that_a_product_may_carry_and_is_from_the_registry() {
    let metadata = metadata();
    let program = of_the_program(&metadata);
    assert!(program.len() > 50, "the crates of the program are seen");
    let packages = metadata["packages"].as_array().unwrap();
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for package in packages.iter().filter(|package| program.contains(package["id"].as_str().unwrap())) {
        let (name, licence) = (package["name"].as_str().unwrap(), package["license"].as_str().unwrap_or(""));
        assert!(is_known(licence), "{name} is under {licence:?}");
        let source = package["source"].as_str().unwrap_or("");
        assert!(source.is_empty() || source.contains("crates.io"), "{name} is from {source}");
        *versions.entry(name).or_default() += 1;
    }
    let doubles: Vec<&str> = versions.iter().filter(|(_, count)| **count > 1).map(|(name, _)| *name).collect();
    assert!(doubles.len() <= DOUBLES, "more crates than before are there twice: {doubles:?}");
    // Not twice what secrets and footage pass through.
    for single in ["ring", "rustls", "rusqlite", "hyper", "tokio", "russh"] {
        assert_eq!(versions.get(single), Some(&1), "{single}");
    }
    assert!(!is_known("GPL-3.0") && !is_known("MIT AND GPL-2.0") && !is_known("") && is_known("GPL-2.0 OR MIT"));
}

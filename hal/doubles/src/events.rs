//! What happened in the doubles, as lines of JSON in the file `MOS_DOUBLES_LOG`.
//!
//! Promises one whole line per event, appended at once, so that a test can follow a process that it does not share memory
//! with. Every line has `event`, `element` (the factory's name), `name` (the object's) and `at` (nanoseconds of
//! CLOCK_MONOTONIC). Without the variable nothing is written; faults go to standard error all the same.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;

use serde_json::{Value, json};

fn file() -> Option<&'static File> {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let open = || {
        let path = std::env::var_os("MOS_DOUBLES_LOG")?;
        let file = OpenOptions::new().append(true).create(true).open(&path);
        file.inspect_err(|e| log::error!("MOS_DOUBLES_LOG={}: {e}", path.display())).ok()
    };
    FILE.get_or_init(open).as_ref()
}

/// Writes an event with its further fields, which must be a JSON object.
pub(crate) fn event(event: &str, element: &str, name: &str, fields: Value) {
    let Some(mut file) = file() else { return };
    let at = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64);
    let mut line = json!({"event": event, "element": element, "name": name, "at": at});
    if let (Value::Object(line), Value::Object(fields)) = (&mut line, fields) {
        line.extend(fields);
    }
    let _ = file.write_all(format!("{line}\n").as_bytes());
}

/// Writes a misuse that a real element would not forgive, or that a test must hear of.
pub(crate) fn fault(element: &str, name: &str, what: &str) {
    log::error!("double {element} ({name}): {what}");
    let _ = writeln!(std::io::stderr(), "double {element} ({name}): {what}");
    event("fault", element, name, json!({ "what": what }));
}

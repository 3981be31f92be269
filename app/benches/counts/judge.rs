//! The baseline and what is compared with it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::process::Command;

use super::paths::Path;

/// Margins in percent: of the compiler of the baseline, whose counts are the same from run to run but for a few random
/// seeds and the order of threads; and of any other, which may inline another way.
const MARGIN: u64 = 10;
/// See [`MARGIN`].
const OTHER_COMPILER: u64 = 25;

pub(crate) struct Baseline {
    pub(crate) rustc: String,
    pub(crate) arch: String,
    counts: BTreeMap<String, u64>,
    present: String,
}

/// What became of a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Within the margin, by so many percent.
    Held(i64),
    /// Costs so many percent more.
    Grown(i64),
    /// Costs so many percent less: the baseline would hide the next growth.
    Shrunk(i64),
    /// The baseline does not know it.
    Unknown,
}

impl Verdict {
    pub(crate) fn holds(&self) -> bool {
        matches!(self, Self::Held(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(by) => write!(f, "held ({by:+} %)"),
            Self::Grown(by) => write!(f, "GROWN by {by} %"),
            Self::Shrunk(by) => write!(f, "SHRUNK ({by} %): renew the baseline"),
            Self::Unknown => f.write_str("NOT IN THE BASELINE"),
        }
    }
}

fn file() -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/counts/baseline.toml")
}

/// As the compiler tells it: version and date, without the host.
fn compiler() -> String {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let told = Command::new(rustc).arg("--version").output().expect("rustc, which built this, can be asked");
    String::from_utf8_lossy(&told.stdout).trim().to_owned()
}

impl Baseline {
    pub(crate) fn of(counts: &[(&Path, u64)]) -> Self {
        let counts = counts.iter().map(|(path, count)| (path.name.to_owned(), *count)).collect();
        Self { rustc: compiler(), arch: std::env::consts::ARCH.to_owned(), counts, present: compiler() }
    }

    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string(file()).unwrap_or_else(|e| panic!("{}: {e}", file().display()));
        let table: toml::Table = text.parse().unwrap_or_else(|e| panic!("{}: {e}", file().display()));
        let word = |key: &str| table[key].as_str().expect("text").to_owned();
        let counts = table["counts"].as_table().expect("a table").iter();
        let counts = counts.map(|(name, count)| (name.clone(), count.as_integer().expect("a number").unsigned_abs()));
        Self { rustc: word("rustc"), arch: word("arch"), counts: counts.collect(), present: compiler() }
    }

    pub(crate) fn write(&self) {
        let mut text = String::from("# Instructions per unit of each path: `RENEW=1 make counts` writes this file.\n");
        let _ = writeln!(text, "rustc = \"{}\"\narch = \"{}\"\n\n[counts]", self.rustc, self.arch);
        for (name, count) in &self.counts {
            let _ = writeln!(text, "{name} = {count}");
        }
        std::fs::write(file(), text).unwrap_or_else(|e| panic!("{}: {e}", file().display()));
    }

    /// In percent; `None` where it says nothing.
    pub(crate) fn margin(&self) -> Option<u64> {
        let of = if self.rustc == self.present { MARGIN } else { OTHER_COMPILER };
        (self.arch == std::env::consts::ARCH).then_some(of)
    }

    pub(crate) fn verdict(&self, name: &str, now: u64) -> Verdict {
        let (Some(then), Some(margin)) = (self.counts.get(name).filter(|then| **then > 0), self.margin()) else {
            return Verdict::Unknown;
        };
        let by = (now as i64 - *then as i64) * 100 / *then as i64;
        match by {
            by if by > margin as i64 => Verdict::Grown(by),
            // What got cheaper by another compiler is no news.
            by if by < -(margin as i64) && margin == MARGIN => Verdict::Shrunk(by),
            by => Verdict::Held(by),
        }
    }
}

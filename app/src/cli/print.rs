//! What commands print: tables for people, JSON for programs.

use std::io::{self, Write};

use serde::Serialize;

use super::{Failure, Outcome};

/// Prints a line to standard output.
pub(super) fn line(text: &str) -> Outcome {
    written(writeln!(io::stdout().lock(), "{text}"))
}

/// Prints a value as one JSON document.
pub(super) fn json(value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::Failed(e.to_string()))?;
    line(&text)
}

/// Prints a line to standard error; if that fails there is nobody to tell.
pub(super) fn to_stderr(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn written(result: io::Result<()>) -> Outcome {
    result.map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => Failure::NobodyReads,
        _ => Failure::Failed(format!("cannot write to standard output: {e}")),
    })
}

/// Rows of text under a header, columns as wide as needed.
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
    /// Columns of numbers, which are aligned to the right.
    numeric: [bool; N],
}

impl<const N: usize> Table<N> {
    /// A header that starts with `>` names a column of numbers.
    pub(super) fn new(header: [&str; N]) -> Self {
        let numeric = header.map(|name| name.starts_with('>'));
        Self { rows: vec![header.map(|name| name.trim_start_matches('>').to_owned())], numeric }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    pub(super) fn print(&self) -> Outcome {
        line(self.text().trim_end_matches('\n'))
    }

    fn text(&self) -> String {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut shown = String::new();
            for ((cell, width), numeric) in row.iter().zip(widths).zip(self.numeric) {
                let blanks = " ".repeat(width - cell.chars().count());
                let (before, after) = if numeric { (blanks.as_str(), "") } else { ("", blanks.as_str()) };
                shown.extend([before, cell, after, "  "]);
            }
            text.push_str(shown.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `12.3 MB`: a size for people, powers of 1000.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB"].iter();
    let mut unit = units.next().unwrap_or(&"B");
    for larger in units {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if *unit == "B" || value >= 99.95 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_needed_and_numbers_end_together() {
        let mut table = Table::new(["ID", ">FRAMES"]);
        table.row(["road-1-0".into(), "900".into()]);
        table.row(["b".into(), "1".into()]);
        assert_eq!(table.text(), "ID        FRAMES\nroad-1-0     900\nb              1\n");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(12_345_678), "12.3 MB");
        assert_eq!(size(999_999), "1.0 MB");
        assert_eq!(size(250_000_000_000), "250 GB");
    }
}

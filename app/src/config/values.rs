//! Typed reading of one section's values: sizes, durations, paths, numbers.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::entries::{Entry, Table, Value};
use super::error::{ConfigError, Place};
use super::schema::is_secret;

const SIZES: &str = "a size in bytes or with KiB, MiB, GiB, TiB, KB, MB, GB, TB, e.g. \"64GiB\"";

/// The values of one section.
pub(super) struct Fields<'a> {
    name: String,
    table: Option<&'a Table>,
    place: Place,
}

impl<'a> Fields<'a> {
    /// `place` is named when a key is missing and the file lacks the whole section.
    pub(super) fn new(name: String, table: Option<&'a Table>, place: Place) -> Self {
        Self { name, table, place }
    }

    fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.table.and_then(|table| table.entries.get(key))
    }

    /// Where a key stands.
    pub(super) fn place(&self, key: &str) -> Place {
        self.entry(key).map_or_else(|| self.place.clone(), |entry| entry.place.clone())
    }

    /// The value of `key` is refused.
    pub(super) fn bad(&self, key: &str, accepted: &str) -> ConfigError {
        let found = match self.entry(key).map(|entry| &entry.value) {
            _ if is_secret(key) => None,
            Some(Value::Text(text) | Value::Variable(text)) => Some(format!("{text:?}")),
            Some(Value::Integer(number)) => Some(number.to_string()),
            Some(Value::Float(number)) => Some(number.clone()),
            Some(Value::Boolean(flag)) => Some(flag.to_string()),
            Some(Value::Other(kind)) => Some(format!("({kind})")),
            None => None,
        };
        ConfigError::BadValue {
            place: self.place(key),
            key: format!("{}.{key}", self.name),
            found,
            accepted: accepted.to_owned(),
        }
    }

    /// `key` must be there.
    pub(super) fn missing(&self, key: &str, accepted: &str) -> ConfigError {
        let place = self.table.map_or(&self.place, |table| &table.place).clone();
        ConfigError::Missing { place, key: format!("{}.{key}", self.name), accepted: accepted.to_owned() }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        match self.entry(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Text(text) | Value::Variable(text)) => Ok(Some(text)),
            Some(_) => Err(self.bad(key, "text in quotes")),
        }
    }

    pub(super) fn absolute_path(&self, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        match self.text(key)?.map(PathBuf::from) {
            Some(path) if !path.is_absolute() => Err(self.bad(key, "an absolute path")),
            other => Ok(other),
        }
    }

    pub(super) fn boolean(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.entry(key).map(|entry| &entry.value) {
            None => Ok(default),
            Some(Value::Boolean(flag)) => Ok(*flag),
            Some(Value::Variable(text)) if text == "true" => Ok(true),
            Some(Value::Variable(text)) if text == "false" => Ok(false),
            Some(_) => Err(self.bad(key, "true or false")),
        }
    }

    pub(super) fn integer(&self, key: &str, range: RangeInclusive<u64>, default: u64) -> Result<u64, ConfigError> {
        let number = match self.entry(key).map(|entry| &entry.value) {
            None => return Ok(default),
            Some(Value::Integer(number)) => u64::try_from(*number).ok(),
            Some(Value::Variable(text)) => text.parse().ok(),
            Some(_) => None,
        };
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.bad(key, &format!("a whole number from {} to {}", range.start(), range.end())))
    }

    /// Bytes, at least `least`.
    pub(super) fn optional_size(&self, key: &str, least: u64) -> Result<Option<u64>, ConfigError> {
        let size = match self.entry(key).map(|entry| &entry.value) {
            None => return Ok(None),
            Some(Value::Integer(number)) => u64::try_from(*number).ok(),
            Some(Value::Text(text) | Value::Variable(text)) => bytes(text),
            Some(_) => None,
        };
        let accepted = || if least == 0 { SIZES.to_owned() } else { format!("{SIZES}, at least {least} bytes") };
        size.filter(|size| *size >= least).map(Some).ok_or_else(|| self.bad(key, &accepted()))
    }

    pub(super) fn size(&self, key: &str, least: u64, default: u64) -> Result<u64, ConfigError> {
        Ok(self.optional_size(key, least)?.unwrap_or(default))
    }

    /// A number of any kind.
    pub(super) fn number(&self, key: &str) -> Option<f64> {
        match &self.entry(key)?.value {
            Value::Integer(number) => Some(*number as f64),
            Value::Float(text) | Value::Variable(text) => text.replace('_', "").parse().ok(),
            _ => None,
        }
    }

    /// Whether there is a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    pub(super) fn duration(&self, key: &str, default: Duration) -> Result<Duration, ConfigError> {
        Ok(self.optional_duration(key)?.unwrap_or(default))
    }

    pub(super) fn optional_duration(&self, key: &str) -> Result<Option<Duration>, ConfigError> {
        match self.entry(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Text(text) | Value::Variable(text)) => match seconds(text) {
                Some(duration) => Ok(Some(duration)),
                None => Err(self.bad(key, "a duration in s, min, h or d, e.g. \"24h\"")),
            },
            Some(_) => Err(self.bad(key, "a duration in s, min, h or d, e.g. \"24h\"")),
        }
    }

    pub(super) fn level(&self, key: &str, default: log::LevelFilter) -> Result<log::LevelFilter, ConfigError> {
        match self.text(key)? {
            None => Ok(default),
            Some("error") => Ok(log::LevelFilter::Error),
            Some("warn") => Ok(log::LevelFilter::Warn),
            Some("info") => Ok(log::LevelFilter::Info),
            Some("debug") => Ok(log::LevelFilter::Debug),
            Some("trace") => Ok(log::LevelFilter::Trace),
            Some(_) => Err(self.bad(key, "error, warn, info, debug or trace")),
        }
    }
}

/// `64GiB`, `1500 MB`, `4096`: a whole number, then perhaps a unit.
fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" | "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// `90s`, `15min`, `24h`, `7d`: 1 s to 100 years.
fn seconds(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "s" => 1,
        "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let seconds = number.checked_mul(factor)?;
    (1..=100 * 365 * 86_400).contains(&seconds).then(|| Duration::from_secs(seconds))
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_whole_numbers_and_known_units() {
        assert_eq!(bytes("64GiB"), Some(64 << 30));
        assert_eq!(bytes("1500 MB"), Some(1_500_000_000));
        assert_eq!(bytes("4096"), Some(4096));
        for bad in ["", "GiB", "1.5GiB", "-1", "64gib", "99999999TiB", "1 2"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_have_units_and_are_not_zero() {
        assert_eq!(seconds("15min"), Some(Duration::from_mins(15)));
        assert_eq!(seconds("7d"), Some(Duration::from_hours(7 * 24)));
        for bad in ["10", "0s", "1m", "h", "99999999999d"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}

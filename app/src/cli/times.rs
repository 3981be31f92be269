//! Times as people and programs write them: RFC 3339 or UTC microseconds.

use jiff::Timestamp;

use super::Failure;

/// Reads RFC 3339 (`2026-11-20T10:00:00Z`, with any offset) or whole UTC microseconds.
pub(super) fn parse(option: &str, text: &str) -> Result<i64, Failure> {
    if let Ok(micros) = text.parse::<i64>() {
        return Ok(micros);
    }
    text.parse::<Timestamp>().map(Timestamp::as_microsecond).map_err(|_| {
        Failure::Usage(format!(
            "{option} '{text}' is no time: use RFC 3339 as in 2026-11-20T10:00:00Z, or UTC microseconds"
        ))
    })
}

/// Reads an offset in seconds, as in `12.5`.
pub(super) fn offset(option: &str, text: &str) -> Result<f64, Failure> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => Ok(seconds),
        _ => Err(Failure::Usage(format!(
            "{option} '{text}' is no offset: use seconds from the segment's start, as in 12.5"
        ))),
    }
}

/// RFC 3339 in UTC with milliseconds.
pub(super) fn show(micros: i64) -> String {
    match Timestamp::from_microsecond(micros) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
        Err(_) => micros.to_string(),
    }
}

/// A length of time in seconds, as in `30.033 s`.
pub(super) fn length(micros: i64) -> String {
    format!("{:.3} s", micros as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_spellings_mean_the_same_moment() {
        let micros = 1_795_168_800_250_000;
        assert_eq!(show(micros), "2026-11-20T10:00:00.250Z");
        for text in ["2026-11-20T10:00:00.25Z", "2026-11-20T12:00:00.25+02:00", "1795168800250000"] {
            assert_eq!(parse("--from", text).unwrap(), micros, "{text}");
        }
        for bad in ["", "yesterday", "2026-11-20", "2026-11-20T10:00:00", "1.5"] {
            assert!(matches!(parse("--from", bad), Err(Failure::Usage(_))), "{bad}");
        }
        for bad in ["-1", "nan", "inf", "1s"] {
            assert!(matches!(offset("--at", bad), Err(Failure::Usage(_))), "{bad}");
        }
    }
}

//! The run's mapping from monotonic time to UTC, kept as `clock` beside the segments of each lens.
//!
//! Promises:
//! - C1: UTC is derived on reading, so that one new mapping corrects a whole run.
//! - C2: the file is replaced atomically; a power cut leaves the old or the new mapping, never none after the first.
//! - C3: of several lenses' files of one run the highest revision holds.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mos_hal::clock::{BootId, ClockQuality, Mono, UtcMicros};
use serde::{Deserialize, Serialize};

use super::disk::{Disk, DiskFile, OpenMode};
use super::ids::RunId;
use super::sync::{Dirty, FileKey, TickReport};
use super::{line, lock};

/// Name of the file beside the segments.
pub(crate) const FILE_NAME: &str = "clock";

/// How a run's monotonic time maps to UTC: at `mono` it was `utc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// A moment in the run's monotonic time.
    pub mono: Mono,
    /// The same moment in UTC.
    pub utc: UtcMicros,
    /// How far that may be believed.
    pub quality: ClockQuality,
}

impl Mapping {
    /// UTC of a monotonic instant of this run, rounded down to whole microseconds.
    #[must_use]
    pub fn utc_of(&self, at: Mono) -> UtcMicros {
        UtcMicros(self.utc.0.saturating_add(at.0.saturating_sub(self.mono.0).div_euclid(1000)))
    }

    /// The first monotonic instant whose [`Mapping::utc_of`] is `at`.
    #[must_use]
    pub fn mono_of(&self, at: UtcMicros) -> Mono {
        Mono(self.mono.0.saturating_add(at.0.saturating_sub(self.utc.0).saturating_mul(1000)))
    }

    /// UTC minus monotonic time, in nanoseconds: what identifies the mapping.
    #[must_use]
    pub fn offset_ns(&self) -> i128 {
        i128::from(self.utc.0) * 1000 - i128::from(self.mono.0)
    }
}

/// The stable name of a quality, as in files and in the API: `unset`, `rtc`, `ntp`, `gnss`.
#[must_use]
pub fn quality_name(quality: ClockQuality) -> &'static str {
    match quality {
        ClockQuality::Unset => "unset",
        ClockQuality::Rtc => "rtc",
        ClockQuality::Ntp => "ntp",
        ClockQuality::Gnss => "gnss",
    }
}

/// What a `clock` file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunClock {
    pub(crate) run: RunId,
    pub(crate) boot: BootId,
    pub(crate) mapping: Mapping,
    pub(crate) revision: u32,
}

#[derive(Serialize, Deserialize)]
struct Text {
    run: u32,
    boot_id: String,
    mono_ns: i64,
    utc_us: i64,
    quality: String,
    revision: u32,
}

impl RunClock {
    pub(crate) fn to_text(self) -> String {
        let mut text = line::seal(&Text {
            run: self.run.0,
            boot_id: boot_text(self.boot),
            mono_ns: self.mapping.mono.0,
            utc_us: self.mapping.utc.0,
            quality: quality_name(self.mapping.quality).to_owned(),
            revision: self.revision,
        });
        text.push('\n');
        text
    }

    pub(crate) fn from_text(text: &[u8]) -> Option<Self> {
        let text: Text = line::unseal(text)?;
        let quality = match text.quality.as_str() {
            "rtc" => ClockQuality::Rtc,
            "ntp" => ClockQuality::Ntp,
            "gnss" => ClockQuality::Gnss,
            _ => ClockQuality::Unset,
        };
        let mapping = Mapping { mono: Mono(text.mono_ns), utc: UtcMicros(text.utc_us), quality };
        Some(Self { run: RunId(text.run), boot: boot_from_text(&text.boot_id)?, mapping, revision: text.revision })
    }
}

/// The `clock` file of one lens in the present run. It is replaced by way of the ticks: written to a temporary file in
/// one, renamed after that one's sync, its folder synced with the next.
pub(crate) struct ClockFile {
    dir: PathBuf,
    state: Mutex<Staging>,
}

#[derive(Default)]
struct Staging {
    stored: u32,
    staged: Option<(u32, FileKey)>,
}

impl ClockFile {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), state: Mutex::default() }
    }

    /// Writes the temporary file if `clock` is newer than what is stored. An error is tried again at the next tick.
    pub(crate) fn before_sync(&self, disk: &dyn Disk, dirty: &Dirty, clock: &RunClock) -> std::io::Result<()> {
        let mut state = lock(&self.state);
        if state.staged.is_some() || state.stored >= clock.revision {
            return Ok(());
        }
        let tmp = self.dir.join("clock.tmp");
        match disk.remove_file(&tmp) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file: Arc<dyn DiskFile> = disk.open(&tmp, OpenMode::CreateNew)?;
        file.write_at(0, &[IoSlice::new(clock.to_text().as_bytes())])?;
        let key = dirty.new_key();
        dirty.file(key, &tmp, &file, 1);
        state.staged = Some((clock.revision, key));
        Ok(())
    }

    /// Puts the synced file in its place.
    pub(crate) fn after_sync(&self, disk: &dyn Disk, dirty: &Dirty, report: &TickReport) -> std::io::Result<()> {
        let mut state = lock(&self.state);
        let Some((revision, key)) = state.staged else { return Ok(()) };
        let Some(outcome) = report.outcome(key) else { return Ok(()) };
        state.staged = None;
        if outcome.is_ok() {
            disk.rename(&self.dir.join("clock.tmp"), &self.dir.join(FILE_NAME))?;
            dirty.dir(&self.dir);
            state.stored = revision;
        }
        Ok(())
    }
}

pub(crate) fn boot_text(boot: BootId) -> String {
    format!("{:032x}", u128::from_be_bytes(boot.0))
}

pub(crate) fn boot_from_text(text: &str) -> Option<BootId> {
    let mut id = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(BootId(id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn c1_mapping_turns_both_ways() {
        let m =
            Mapping { mono: Mono(5_000_000_123), utc: UtcMicros(1_700_000_000_000_000), quality: ClockQuality::Ntp };
        for us in [-3_000_000, -1, 0, 1, 7_777_777] {
            let at = UtcMicros(m.utc.0 + us);
            assert_eq!(m.utc_of(m.mono_of(at)), at);
            assert_eq!(m.utc_of(Mono(m.mono_of(at).0 - 1)).0, at.0 - 1);
        }
    }

    #[test]
    fn c2_file_text_survives_and_damage_is_seen() {
        let mapping = Mapping { mono: Mono(1), utc: UtcMicros(2), quality: ClockQuality::Gnss };
        let clock = RunClock { run: RunId(9), boot: BootId([0xab; 16]), mapping, revision: 4 };
        let text = clock.to_text();
        assert_eq!(RunClock::from_text(text.as_bytes()), Some(clock));
        assert_eq!(RunClock::from_text(&text.as_bytes()[..text.len() - 9]), None);
    }
}

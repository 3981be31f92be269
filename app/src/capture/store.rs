//! Settings given by ConfigureStream, kept over restarts in the file `capture` beside the archive.
//!
//! Promises: the file is replaced as a whole and durable before a configuration counts; one that cannot be read is told and
//! set aside before it would be overwritten, and until somebody configures again the static configuration holds.

use std::collections::BTreeMap;
use std::path::Path;

use mos_hal::media::LensId;
use serde::{Deserialize, Serialize};

use super::settings::StreamSettings;
use crate::archive::{Archive, ArchiveError};

/// The file's name in the archive's root.
const FILE: &str = "capture";

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// By lens, also of lenses that are not configured at present.
    lenses: BTreeMap<String, StreamSettings>,
}

/// The settings, and where they are kept.
#[derive(Default)]
pub(crate) struct Store {
    archive: Option<Archive>,
    note: Note,
    broken: bool,
    /// What is wrong with what was kept: with all of it, or by lens.
    problems: BTreeMap<Option<LensId>, String>,
}

impl Store {
    /// Reads what was kept.
    pub(crate) fn read(archive: &Archive) -> Self {
        let note = archive.read_note::<Note>(Path::new(FILE));
        let broken = note.is_none() && archive.has_note(Path::new(FILE));
        let problems = broken.then(|| {
            format!(
                "the settings in {FILE} beside the archive cannot be read: the configuration file holds; configure again"
            )
        });
        Self {
            archive: Some(archive.clone()),
            note: note.unwrap_or_default(),
            broken,
            problems: problems.into_iter().map(|problem| (None, problem)).collect(),
        }
    }

    /// What was configured for a lens.
    pub(crate) fn of(&self, lens: &LensId) -> StreamSettings {
        self.note.lenses.get(lens.as_str()).cloned().unwrap_or_default()
    }

    /// Keeps settings of a lens; durable on return. Without an archive they last as long as the service.
    pub(crate) fn keep(&mut self, lens: &LensId, settings: &StreamSettings) -> Result<(), ArchiveError> {
        let mut note = self.note.clone();
        if *settings == StreamSettings::default() {
            note.lenses.remove(lens.as_str());
        } else {
            note.lenses.insert(lens.to_string(), settings.clone());
        }
        if let Some(archive) = &self.archive {
            if self.broken {
                archive.set_note_aside(Path::new(FILE))?;
                self.broken = false;
            }
            archive.write_note(Path::new(FILE), &note)?;
        }
        self.note = note;
        self.problems.retain(|of, _| of.as_ref().is_some_and(|of| of != lens));
        Ok(())
    }

    /// Notes that what was kept of a lens cannot be used.
    pub(crate) fn unusable(&mut self, lens: &LensId, why: String) {
        self.problems.insert(Some(lens.clone()), why);
    }

    /// What is wrong with what was kept.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems.values().cloned().collect()
    }
}

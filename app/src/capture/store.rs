//! What the API was told about lenses, kept over restarts in the file `capture` beside the archive: settings given by
//! ConfigureStream, lenses that were added, lenses that were stopped.
//!
//! Promises: the file is replaced as a whole and durable before a configuration counts; one that cannot be read is told and
//! set aside before it would be overwritten, and until somebody configures again the static configuration holds.

use std::collections::{BTreeMap, BTreeSet};
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
    /// Lenses that were added, each with its source as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    added: BTreeMap<String, String>,
    /// Lenses that were stopped.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    stopped: BTreeSet<String>,
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

    /// Lenses that were added, with their sources.
    pub(crate) fn added(&self) -> impl Iterator<Item = (LensId, String)> {
        self.note.added.iter().filter_map(|(lens, source)| Some((LensId::new(lens).ok()?, source.clone())))
    }

    /// Whether a lens was stopped.
    pub(crate) fn is_stopped(&self, lens: &LensId) -> bool {
        self.note.stopped.contains(lens.as_str())
    }

    /// Keeps settings of a lens; durable on return. Without an archive they last as long as the service.
    pub(crate) fn keep(&mut self, lens: &LensId, settings: &StreamSettings) -> Result<(), ArchiveError> {
        self.change(lens, |note| note.set(lens, settings))
    }

    /// Keeps a lens that was added; durable on return.
    pub(crate) fn add(&mut self, lens: &LensId, source: &str, settings: &StreamSettings) -> Result<(), ArchiveError> {
        self.change(lens, |note| {
            note.added.insert(lens.to_string(), source.to_owned());
            note.stopped.remove(lens.as_str());
            note.set(lens, settings);
        })
    }

    /// Forgets a lens that was added; durable on return.
    pub(crate) fn remove(&mut self, lens: &LensId) -> Result<(), ArchiveError> {
        self.change(lens, |note| {
            note.added.remove(lens.as_str());
            note.stopped.remove(lens.as_str());
            note.lenses.remove(lens.as_str());
        })
    }

    /// Keeps whether a lens is stopped. It is, or is not, all the same if that cannot be kept: nobody who wants a camera off
    /// shall be refused by a full disk.
    pub(crate) fn stopped(&mut self, lens: &LensId, stopped: bool) {
        if self.is_stopped(lens) == stopped {
            return;
        }
        let kept = self.change(lens, |note| {
            if stopped {
                note.stopped.insert(lens.to_string());
            } else {
                note.stopped.remove(lens.as_str());
            }
        });
        if let Err(e) = kept {
            let (now, then) = if stopped { ("stopped", "started") } else { ("started", "stopped") };
            let why = format!("lens {lens}: that it was {now} cannot be kept, the next start finds it {then}: {e}");
            log::error!("{why}");
            self.unusable(lens, why);
        }
    }

    fn change(&mut self, lens: &LensId, edit: impl FnOnce(&mut Note)) -> Result<(), ArchiveError> {
        let mut note = self.note.clone();
        edit(&mut note);
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

impl Note {
    fn set(&mut self, lens: &LensId, settings: &StreamSettings) {
        if *settings == StreamSettings::default() {
            self.lenses.remove(lens.as_str());
        } else {
            self.lenses.insert(lens.to_string(), settings.clone());
        }
    }
}

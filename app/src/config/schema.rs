//! Which keys there are. `app/mos.toml` documents each of them; a test holds it to that.

/// A table of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// `[storage]`.
    Storage,
    /// `[http]`.
    Http,
    /// `[log]`.
    Log,
    /// `[[camera]]`, any number of times.
    Camera,
}

/// A section with the keys that it takes.
pub const KEYS: &[(Section, &[&str])] = &[
    (
        Section::Storage,
        &[
            "root",
            "segment_seconds",
            "max_bytes",
            "max_age",
            "min_free_bytes",
            "protected_max_bytes",
            "protected_alarm_bytes",
            "output_max_bytes",
            "output_max_age",
            "quarantine_max_bytes",
            "quarantine_max_age",
            "buffer_bytes",
        ],
    ),
    (Section::Http, &["unix_socket", "listen", "token", "token_file"]),
    (Section::Log, &["level"]),
    (Section::Camera, &["id", "source", "audio", "share"]),
];

impl Section {
    /// Its name in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Http => "http",
            Self::Log => "log",
            Self::Camera => "camera",
        }
    }

    /// The section of that name.
    pub(super) fn find(name: &str) -> Option<Self> {
        KEYS.iter().map(|(section, _)| *section).find(|section| section.name() == name)
    }

    /// Its keys.
    pub(super) fn keys(self) -> &'static [&'static str] {
        KEYS.iter().find(|(section, _)| *section == self).map_or(&[], |(_, keys)| keys)
    }

    /// Its own spelling of a key, if it has that key.
    pub(super) fn key(self, name: &str) -> Option<&'static str> {
        self.keys().iter().copied().find(|key| *key == name)
    }
}

/// Whether a value must never be shown.
pub(super) fn is_secret(key: &str) -> bool {
    matches!(key, "source" | "token")
}

/// What may stand at the top of the file.
pub(super) fn section_names() -> String {
    let names: Vec<String> = KEYS
        .iter()
        .map(|(section, _)| match section {
            Section::Camera => "[[camera]]".to_owned(),
            other => format!("[{}]", other.name()),
        })
        .collect();
    names.join(", ")
}

//! Which keys there are. `app/mos.toml` documents each of them; a test holds it to that.

use crate::upload::template::{OF_FILES, is_token};

/// A table of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// `[storage]`.
    Storage,
    /// `[http]`.
    Http,
    /// `[[token]]`, any number of times.
    Token,
    /// `[evidence]`.
    Evidence,
    /// `[log]`.
    Log,
    /// `[board]`.
    Board,
    /// `[[board_lens]]`, any number of times.
    BoardLens,
    /// `[power]`.
    Power,
    /// `[degradation]`.
    Degradation,
    /// `[[thermal_zone]]`, any number of times.
    ThermalZone,
    /// `[frames]`.
    Frames,
    /// `[context]`: any tokens of names at a destination.
    Context,
    /// `[[camera]]`, any number of times.
    Camera,
    /// `[[destination]]`, any number of times.
    Destination,
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
    (
        Section::Http,
        &[
            "unix_socket",
            "admins",
            "operators",
            "viewers",
            "other_users",
            "listen",
            "tls_certificate",
            "tls_key",
            "host_names",
            "plain_text",
            "token",
            "token_file",
        ],
    ),
    (Section::Token, &["name", "role", "hash"]),
    (Section::Evidence, &["enabled", "key_file"]),
    (Section::Log, &["level"]),
    (
        Section::Board,
        &[
            "device_tree",
            "sysfs",
            "production",
            "status_line",
            "wake_line",
            "ignition_line",
            "gmsl_bring_up",
            "gmsl_csi_controller",
            "gmsl_csi_lanes",
            "gmsl_csi_mbps",
            "gmsl_data_type",
        ],
    ),
    (Section::BoardLens, &["name", "role", "camera_index", "rotation", "power_line", "disabled"]),
    (Section::Power, &["run_out", "ignition_lenses", "parking_lenses", "follow_ignition"]),
    (Section::Degradation, &["enabled", "order", "step_down", "step_up"]),
    (Section::ThermalZone, &["type", "warm", "hot", "ignored"]),
    (Section::Frames, &["enabled", "directory", "lease_budget", "max_rate", "trusted_users"]),
    (Section::Context, &["vehicle_id"]),
    (
        Section::Camera,
        &[
            "id",
            "source",
            "transport",
            "tls_ca",
            "tls_fingerprint",
            "plain_stream",
            "audio",
            "events",
            "protect_before",
            "protect_after",
            "isolation",
            "share",
        ],
    ),
    (
        Section::Destination,
        &[
            "name",
            "host",
            "port",
            "user",
            "path",
            "host_key",
            "key_file",
            "key_env",
            "passphrase_env",
            "password_env",
            "agent",
            "max_rate",
        ],
    ),
];

impl Section {
    /// Its name in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Http => "http",
            Self::Token => "token",
            Self::Evidence => "evidence",
            Self::Log => "log",
            Self::Board => "board",
            Self::BoardLens => "board_lens",
            Self::Power => "power",
            Self::Degradation => "degradation",
            Self::ThermalZone => "thermal_zone",
            Self::Frames => "frames",
            Self::Context => "context",
            Self::Camera => "camera",
            Self::Destination => "destination",
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
    pub(super) fn key(self, name: &str) -> Option<String> {
        let known = match self {
            Self::Context => is_token(name) && !OF_FILES.contains(&name),
            _ => self.keys().contains(&name),
        };
        known.then(|| name.to_owned())
    }

    /// What is accepted as a key, for people.
    pub(super) fn accepted_keys(self) -> String {
        match self {
            Self::Context => {
                format!("1 to 32 of a-z, 0-9 and _, but none of {}, which files bring along", OF_FILES.join(", "))
            }
            _ => self.keys().join(", "),
        }
    }

    /// The key by which one of several is known, if there may be several.
    pub(super) fn id_key(self) -> Option<&'static str> {
        match self {
            Self::Camera => Some("id"),
            Self::ThermalZone => Some("type"),
            Self::Destination | Self::BoardLens | Self::Token => Some("name"),
            _ => None,
        }
    }
}

/// Whether a value must never be shown.
pub(super) fn is_secret(key: &str) -> bool {
    matches!(key, "source" | "token" | "hash")
}

/// What may stand at the top of the file.
pub(super) fn section_names() -> String {
    let names: Vec<String> = KEYS
        .iter()
        .map(|(section, _)| match section {
            several if several.id_key().is_some() => format!("[[{}]]", several.name()),
            other => format!("[{}]", other.name()),
        })
        .collect();
    names.join(", ")
}

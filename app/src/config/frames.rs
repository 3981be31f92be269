//! `[frames]`: live frames for other processes.

use std::path::{Path, PathBuf};

use mos_hal::frames::Settings;
use mos_hal::media::LensId;
use nix::unistd::User;

use super::error::ConfigError;
use super::values::Fields;

/// Longest path of the directory, so that the socket of every lens fits into the 107 bytes that Linux takes.
const LONGEST: usize = 107 - "/.worker".len() - 32;

/// `[frames]`: where they are published, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    /// The folder with a socket for each lens.
    pub directory: PathBuf,
    /// Buffers of a camera that readers may hold in all.
    pub lease_budget: usize,
    /// Bytes per second that all lenses together may move; `None`: no limit.
    pub max_rate: Option<u64>,
    /// Users who get the camera's own buffers, besides root and the daemon's.
    pub trusted: Vec<u32>,
}

impl Frames {
    /// How a lens is published.
    #[must_use]
    pub fn of(&self, lens: &LensId) -> Settings {
        let mut settings = Settings::new(self.directory.join(format!("{lens}.sock")));
        settings.lease_budget = self.lease_budget;
        settings.trusted.extend(&self.trusted);
        settings
    }
}

/// The folder is beside the API's socket unless another is named.
pub(super) fn read(fields: &Fields<'_>, api: &Path) -> Result<Option<Frames>, ConfigError> {
    if !fields.boolean("enabled", true)? {
        return Ok(None);
    }
    let directory = match fields.absolute_path("directory")? {
        Some(path) if path.as_os_str().len() > LONGEST => {
            return Err(fields.bad("directory", &format!("an absolute path of at most {LONGEST} bytes")));
        }
        Some(path) => path,
        None => api.parent().unwrap_or(Path::new("/")).join("frames"),
    };
    let lease_budget = fields.integer("lease_budget", 0..=16, 4)? as usize;
    let max_rate = fields.optional_size("max_rate", 1 << 20)?;
    let mut trusted = Vec::new();
    for name in fields.text("trusted_users")?.unwrap_or_default().split_whitespace() {
        let known = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        let uid = name.parse().ok().or_else(known);
        trusted.push(uid.ok_or_else(|| fields.bad("trusted_users", "names or numbers of users, with spaces between"))?);
    }
    Ok(Some(Frames { directory, lease_budget, max_rate, trusted }))
}

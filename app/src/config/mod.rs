//! The settings of the daemon: one TOML file, every key of which the environment can override.
//!
//! Promises: what comes out of [`load`] is valid; what is refused is refused with the key, where it stands (file and line,
//! or variable) and what would be accepted. Credentials (`source`, `token`) never get into an error. Never reads the
//! environment by itself: the caller hands it over.
//!
//! The variable of a key is `MOS_`, the section, `__`, the key: `MOS_STORAGE__ROOT`. A camera is meant by its place in the
//! file or by its id: `MOS_CAMERA__0__SOURCE`, `MOS_CAMERA__ROAD__SOURCE`; the place after the last one adds a camera.
//! Destinations and tokens likewise, by place or name.
//! Variables without `__` belong to the commands (`MOS_SOCKET`, `MOS_URL`, `MOS_TOKEN`) and are not settings.

mod board;
mod degradation;
mod destinations;
mod entries;
mod error;
mod frames;
mod http;
mod power;
mod schema;
mod tokens;
mod values;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mos_hal::media::LensId;
use mos_hal::onvif::EventKind;
use mos_hal::pins::Line;
use mos_hal::source::{SourceSpec, Transport, Trust};

pub use error::{ConfigError, Place};
pub use frames::Frames;
pub use http::{Http, Tcp};
pub use schema::{KEYS, Section};
pub use tokens::{Given, HTTP_TOKEN, Lacking, TokenSource};

use crate::capture::{DegradationPlan, Isolation};
use crate::power::PowerPlan;
use crate::retention::DEFAULT_MIN_FREE;
use crate::retention::plan::Share;
use crate::triggers::{LONGEST_AROUND, TriggerPlan};
use crate::upload::named::NamedDestination;
use crate::upload::template::Values;
use entries::Document;
use values::Fields;

/// All settings, valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[storage]`.
    pub storage: Storage,
    /// `[http]` and `[[token]]`.
    pub http: Http,
    /// `[evidence]`: the file of the key that signs it; `None`: no evidence is kept.
    pub evidence: Option<PathBuf>,
    /// `[log]`.
    pub log: Log,
    /// `[board]` and `[[board_lens]]`: where the board describes itself, what is changed of it, what it must be able to do.
    pub board: mos_hal::probe::Options,
    /// `[board]`: the lines of the box.
    pub lines: PinLines,
    /// `[power]`: ignition and parking.
    pub power: PowerPlan,
    /// `[degradation]` and `[[thermal_zone]]`: who gives way if the machine is too hot or its encoder does not suffice.
    pub degradation: DegradationPlan,
    /// `[frames]`: live frames for other processes; `None` if nobody gets any.
    pub frames: Option<Frames>,
    /// `[[camera]]`, in the order of the file; ids differ.
    pub cameras: Vec<Camera>,
    /// `[[destination]]`, in the order of the file; names differ.
    pub destinations: Vec<NamedDestination>,
    /// `[context]`: values for tokens in names at a destination.
    pub context: Values,
}

/// `[storage]`: where media lies and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The archive's root, absolute.
    pub root: PathBuf,
    /// How long a segment shall be, 1 to 600 s; it ends at the first keyframe from there.
    pub segment: Duration,
    /// Most bytes of allocated blocks that segments may take; `None`: bounded by `min_free_bytes` only.
    pub max_bytes: Option<u64>,
    /// How long a segment may stay; `None`: as long as there is room.
    pub max_age: Option<Duration>,
    /// How much may be protected; `None`: half of what segments may take.
    pub protection: Option<Protection>,
    /// Bytes that stay free on the file system.
    pub min_free_bytes: u64,
    /// Most bytes that clips and snapshots may take together; the oldest go first.
    pub output_max_bytes: u64,
    /// How long a clip or snapshot is held.
    pub output_max_age: Duration,
    /// Most bytes that torn segments in quarantine may take; the oldest go first.
    pub quarantine_max_bytes: u64,
    /// How long a torn segment is held.
    pub quarantine_max_age: Duration,
    /// Coded frames that may wait in memory per lens while the disk is slow, in bytes.
    pub buffer_bytes: u64,
}

/// How much may be protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Most bytes of allocated blocks that protected segments may take.
    pub max_bytes: u64,
    /// From so many on there is an alarm.
    pub alarm_bytes: u64,
}

impl Protection {
    /// With the alarm at four fifths.
    #[must_use]
    pub fn up_to(max_bytes: u64) -> Self {
        Self { max_bytes, alarm_bytes: max_bytes / 5 * 4 }
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`.
    pub level: log::LevelFilter,
}

/// Lines of the box, as far as they are in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinLines {
    /// A light that tells whether all is recorded.
    pub status: Option<Line>,
    /// What woke the box.
    pub wake: Option<Line>,
    /// Going off is a power event.
    pub ignition: Option<Line>,
}

/// One `[[camera]]`: one lens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Camera {
    /// The lens's name in API and paths.
    pub id: LensId,
    /// Where its frames come from.
    pub source: SourceSpec,
    /// Whether sound is recorded. Off unless asked for: law and consent.
    pub audio: bool,
    /// Where its source runs; `None`: by its kind.
    pub isolation: Option<Isolation>,
    /// The part of what segments may take that is this lens's own.
    pub share: Option<Share>,
    /// What the camera's events protect.
    pub triggers: TriggerPlan,
}

/// Reads `file` and lays `variables` over it.
pub fn load(file: &Path, variables: impl IntoIterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|e| ConfigError::unreadable(file, &e))?;
    parse(file, &text, variables)
}

/// As [`load`], of a text that was read from `file` (which only names it in errors).
pub fn parse(
    file: &Path,
    text: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut document = Document::read(file, text)?;
    document.overlay(variables)?;
    let http = http::read(&document)?;
    let storage = storage(&document.section(Section::Storage))?;
    Ok(Config {
        evidence: evidence(&document.section(Section::Evidence), &storage)?,
        storage,
        frames: frames::read(&document.section(Section::Frames), &http.unix_socket)?,
        http,
        log: Log { level: document.section(Section::Log).level("level", log::LevelFilter::Info)? },
        board: board::options(&document)?,
        power: power::plan(&document.section(Section::Power), document.section(Section::Board).has("ignition_line"))?,
        degradation: degradation::plan(&document)?,
        lines: board::lines(&document)?,
        cameras: cameras(&document)?,
        context: destinations::context(&document)?,
        destinations: destinations::read(&document)?,
    })
}

fn evidence(fields: &Fields<'_>, storage: &Storage) -> Result<Option<PathBuf>, ConfigError> {
    let key = fields.absolute_path("key_file")?.unwrap_or_else(|| storage.root.join("device.key"));
    Ok(fields.boolean("enabled", false)?.then_some(key))
}

fn storage(fields: &Fields<'_>) -> Result<Storage, ConfigError> {
    let seconds = fields.integer("segment_seconds", 1..=600, 30)?;
    let max_bytes = fields.optional_size("max_bytes", 16 << 20)?;
    Ok(Storage {
        root: fields.absolute_path("root")?.ok_or_else(|| fields.missing("root", "the archive's folder, absolute"))?,
        segment: Duration::from_secs(seconds),
        max_bytes,
        max_age: fields.optional_duration("max_age")?,
        protection: protection(fields, max_bytes)?,
        min_free_bytes: fields.size("min_free_bytes", 0, DEFAULT_MIN_FREE)?,
        output_max_bytes: fields.size("output_max_bytes", 1 << 20, 4 << 30)?,
        output_max_age: fields.duration("output_max_age", Duration::from_hours(24))?,
        quarantine_max_bytes: fields.size("quarantine_max_bytes", 0, 4 << 30)?,
        quarantine_max_age: fields.duration("quarantine_max_age", Duration::from_hours(90 * 24))?,
        buffer_bytes: fields.size("buffer_bytes", 1 << 20, 16 << 20)?,
    })
}

fn protection(fields: &Fields<'_>, max_bytes: Option<u64>) -> Result<Option<Protection>, ConfigError> {
    let quota = fields.optional_size("protected_max_bytes", 0)?;
    let alarm = fields.optional_size("protected_alarm_bytes", 0)?;
    if quota > max_bytes.or(quota) {
        return Err(fields.bad("protected_max_bytes", "a size of at most storage.max_bytes"));
    }
    let protection = quota.or(max_bytes.map(|max| max / 2)).map(Protection::up_to);
    match (protection, alarm) {
        (None, Some(_)) => {
            Err(fields.bad("protected_alarm_bytes", "protected_max_bytes or max_bytes besides: it is a part of that"))
        }
        (Some(protection), Some(alarm)) if alarm > protection.max_bytes => {
            let accepted = format!("a size of at most what may be protected, {} bytes", protection.max_bytes);
            Err(fields.bad("protected_alarm_bytes", &accepted))
        }
        (Some(protection), Some(alarm_bytes)) => Ok(Some(Protection { alarm_bytes, ..protection })),
        (protection, None) => Ok(protection),
    }
}

fn cameras(document: &Document) -> Result<Vec<Camera>, ConfigError> {
    let mut cameras = Vec::new();
    let mut places: HashMap<LensId, Place> = HashMap::new();
    let mut shared = 0;
    for fields in document.all(Section::Camera) {
        let accepted = "1 to 32 of a-z, 0-9 and _, starting with a letter or digit";
        let id = fields.text("id")?.ok_or_else(|| fields.missing("id", accepted))?;
        let id = LensId::new(id).map_err(|_| fields.bad("id", accepted))?;
        if let Some(first) = places.insert(id.clone(), fields.place("id")) {
            return Err(fields.bad("id", &format!("an id that no other camera has; {first} has this one too")));
        }
        let accepted = "board:NAME, rtsp[s]://[user:password@]host[:port]/path, onvif[s]://[user:password@]host[:port][/profile], srt://host:port, whep+http[s]://[token@]host[:port]/path, v4l2:/dev/videoN, libcamera:ID, qmmf:NUMBER, \
                        file:/path.mp4 or test:";
        let source = fields.text("source")?.ok_or_else(|| fields.missing("source", accepted))?;
        // The parser's own words name what is wrong and are free of credentials (see `SourceSpec::parse`).
        let source = SourceSpec::parse(source).map_err(|e| fields.bad("source", &format!("{accepted} ({e})")))?;
        let source = match fields.text("transport")? {
            None => source,
            Some(name) => {
                let over = Transport::named(name).and_then(|transport| source.over(transport));
                over.ok_or_else(|| {
                    fields.bad(
                        "transport",
                        "\"auto\", \"tcp\" or \"udp\", of an rtsp:// or onvif:// camera, and not \"udp\" of rtsps://",
                    )
                })?
            }
        };
        let source = trusting(&fields, source)?;
        let share = share(&fields, &mut shared)?;
        let isolation = match fields.text("isolation")? {
            None => None,
            Some("process") => Some(Isolation::Process),
            Some("none") => Some(Isolation::None),
            Some(_) => return Err(fields.bad("isolation", "\"process\" or \"none\"")),
        };
        let (audio, triggers) = (fields.boolean("audio", false)?, triggers(&fields, &source)?);
        cameras.push(Camera { id, source, audio, isolation, share, triggers });
    }
    Ok(cameras)
}

/// What events of the camera protect.
fn triggers(fields: &Fields<'_>, source: &SourceSpec) -> Result<TriggerPlan, ConfigError> {
    let accepted = "motion, digital_input and tamper with spaces between, of an onvif:// or onvifs:// camera";
    let usual = TriggerPlan::default();
    let words = fields.text("events")?.unwrap_or_default();
    let events: Option<_> = words.split_whitespace().map(EventKind::named).collect();
    let asks = matches!(source, SourceSpec::Onvif { .. });
    let events = events.filter(|_| asks || words.is_empty()).ok_or_else(|| fields.bad("events", accepted))?;
    let around = |key, usual| {
        let around = fields.duration(key, usual)?;
        if around > LONGEST_AROUND { Err(fields.bad(key, "1 s to 1 h")) } else { Ok(around) }
    };
    Ok(TriggerPlan {
        events,
        before: around("protect_before", usual.before)?,
        after: around("protect_after", usual.after)?,
    })
}

/// The source with what the camera's certificate must be.
fn trusting(fields: &Fields<'_>, source: SourceSpec) -> Result<SourceSpec, ConfigError> {
    let ca = fields.absolute_path("tls_ca")?;
    let accepted =
        "the SHA-256 of the certificate as openssl x509 -fingerprint -sha256 shows it, 64 hexadecimal digits";
    let fingerprint = match fields.text("tls_fingerprint")? {
        Some(text) => Some(text.parse().map_err(|()| fields.bad("tls_fingerprint", accepted))?),
        None => None,
    };
    let plain_stream = fields.boolean("plain_stream", false)?;
    let onvif = matches!(&source, SourceSpec::Onvif { url, .. } if url.scheme() == "onvifs");
    if plain_stream && !onvif {
        return Err(fields.bad("plain_stream", "true of an onvifs:// camera only: of others it is said by the source"));
    }
    let key = match (&ca, &fingerprint) {
        (None, None) if !plain_stream => return Ok(source),
        (None, None) => "plain_stream",
        (Some(_), Some(_)) => return Err(fields.bad("tls_fingerprint", "none beside tls_ca: one of them decides")),
        (Some(_), None) => "tls_ca",
        (None, Some(_)) => "tls_fingerprint",
    };
    let trusting = source.trusting(Trust { ca, fingerprint, plain_stream });
    trusting.ok_or_else(|| fields.bad(key, "none, except of an rtsps://, onvifs:// or whep+https:// camera"))
}

/// `shared` adds up what the shares take, in millionths.
fn share(fields: &Fields<'_>, shared: &mut u32) -> Result<Option<Share>, ConfigError> {
    if !fields.has("share") {
        return Ok(None);
    }
    let share = fields.number("share").and_then(Share::new);
    let share = share.ok_or_else(|| fields.bad("share", "a number above 0 and up to 1, e.g. 0.4"))?;
    *shared += share.millionths();
    if *shared > Share::ALL {
        return Err(fields.bad("share", "shares of all cameras that add up to at most 1"));
    }
    Ok(Some(share))
}

#[cfg(test)]
mod tests;

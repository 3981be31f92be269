//! What libcamera itself says of its cameras: their models, modes, properties and controls.
//!
//! Promises that nothing of libcamera runs in the process that asks: [`ask`] starts a process that calls [`survey`] and ends
//! with it, within [`ANSWER_TIMEOUT`]. libcamera ends a process that makes a second `CameraManager`, and the streaming element
//! makes one of its own (libcamera, `CameraManager::CameraManager`, "Multiple CameraManager objects are not allowed" \[S\]).
//! Never streams: that is `libcamerasrc`'s, with or without this module.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libcamera::camera::Camera;
use libcamera::camera_manager::CameraManager;
use libcamera::control_value::ControlValue;
use libcamera::controls::ControlId;
use libcamera::properties::{Location, Model, PropertyId, Rotation};
use libcamera::stream::StreamRole;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::platform::{Control, Device, DeviceMode, Transport};

/// The program's argument that makes it call [`survey`] and print the answer.
pub const COMMAND: &str = "libcamera-survey";

/// Starting libcamera loads and may isolate image-processing modules; on a small board that takes seconds.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Most that an answer may take, in bytes: some dozen cameras with all they list.
const MAX_ANSWER: usize = 4 << 20;

/// Most modes listed per camera, as for V4L2 devices.
const MAX_MODES: usize = 256;

/// One camera of libcamera.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Surveyed {
    /// What a source names it by: `libcamera:ID`. Stable from boot to boot.
    pub id: String,
    /// The sensor's model, if it says.
    pub model: Option<String>,
    /// `front`, `back` or `external`, if it says.
    pub location: Option<String>,
    /// How far the sensor is mounted turned, in degrees clockwise, if it says.
    pub rotation: Option<i32>,
    /// Modes for recording: format, width and height in pixels. Their rates follow from the control
    /// `FrameDurationLimits`.
    pub modes: Vec<(String, u32, u32)>,
    /// Every property by its name.
    pub properties: Vec<(String, String)>,
    /// Every control that can be set.
    pub controls: Vec<SurveyedControl>,
}

/// A control with its range, as text in libcamera's own form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SurveyedControl {
    /// libcamera's name, `ExposureTime`; the streaming element has it as `exposure-time`.
    pub name: String,
    /// Least value.
    pub min: String,
    /// Greatest value.
    pub max: String,
    /// Value at start.
    pub default: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// libcamera did not start.
    #[error("libcamera does not start: {0}")]
    Start(std::io::Error),
    /// The process that asks libcamera did not start, or its answer could not be read.
    #[error("cannot ask libcamera by {program}: {source}")]
    Process {
        /// The program.
        program: String,
        /// What happened.
        source: std::io::Error,
    },
    /// It did not answer in time and was ended.
    #[error("libcamera did not answer within {} s; the process that asked was ended", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    /// It ended without an answer.
    #[error("the process that asked libcamera ended ({status}) without an answer")]
    Died {
        /// Exit status or signal.
        status: std::process::ExitStatus,
    },
    /// It answered something else.
    #[error("what libcamera answered cannot be read: {0}")]
    Answer(String),
}

/// Asks libcamera in a process of its own, `program` with the argument [`COMMAND`]. Waits up to [`ANSWER_TIMEOUT`].
pub fn ask(program: &Path) -> Result<Vec<Surveyed>, SurveyError> {
    let failed = |source| SurveyError::Process { program: program.display().to_string(), source };
    let mut child = Command::new(program)
        .arg(COMMAND)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let answer = answer(&mut child);
    if answer.is_err() {
        // Both fail only if it has ended by itself.
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    let answer = answer.map_err(failed)?.ok_or(SurveyError::Timeout)?;
    if !status.success() {
        return Err(SurveyError::Died { status });
    }
    serde_json::from_slice(&answer).map_err(|e| SurveyError::Answer(e.to_string()))
}

/// What `child` prints until it closes its output; `None` if that takes too long, after which it is ended.
fn answer(child: &mut Child) -> std::io::Result<Option<Vec<u8>>> {
    let mut out = child.stdout.take().ok_or_else(|| std::io::Error::other("it has no output"))?;
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let (mut text, mut block) = (Vec::new(), [0; 16384]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            child.kill()?;
            return Ok(None);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(out.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        match out.read(&mut block)? {
            0 => return Ok(Some(text)),
            n if text.len() + n > MAX_ANSWER => return Err(std::io::Error::other("its answer does not end")),
            n => text.extend_from_slice(&block[..n]),
        }
    }
}

/// All cameras, asked in this process. At most once in a process, and never in one that streams; see the module.
pub fn survey() -> Result<Vec<Surveyed>, SurveyError> {
    let libcamera = CameraManager::new().map_err(SurveyError::Start)?;
    let cameras = libcamera.cameras();
    Ok(cameras.iter().map(|camera| surveyed(&camera)).collect())
}

/// As JSON for [`ask`].
pub fn survey_json() -> Result<String, SurveyError> {
    serde_json::to_string(&survey()?).map_err(|e| SurveyError::Answer(e.to_string()))
}

fn surveyed(camera: &Camera<'_>) -> Surveyed {
    let properties = camera.properties();
    let named = |id: u32| PropertyId::try_from(id).map_or_else(|_| format!("{id}"), |p| p.name());
    let control = |(id, info): (u32, &libcamera::control::ControlInfo)| SurveyedControl {
        name: ControlId::try_from(id).map_or_else(|_| format!("{id}"), |c| c.name()),
        min: shown(&info.min()),
        max: shown(&info.max()),
        default: shown(&info.def()),
    };
    Surveyed {
        id: camera.id().to_owned(),
        model: properties.get::<Model>().ok().map(|m| m.0),
        location: properties.get::<Location>().ok().map(|l| {
            match l {
                Location::CameraFront => "front",
                Location::CameraBack => "back",
                Location::CameraExternal => "external",
            }
            .to_owned()
        }),
        rotation: properties.get::<Rotation>().ok().map(|r| r.0),
        modes: modes(camera),
        properties: properties.into_iter().map(|(id, value)| (named(id), shown(&value))).collect(),
        controls: camera.controls().into_iter().map(control).collect(),
    }
}

fn modes(camera: &Camera<'_>) -> Vec<(String, u32, u32)> {
    let Some(configuration) = camera.generate_configuration(&[StreamRole::VideoRecording]) else { return Vec::new() };
    let Some(stream) = configuration.get(0) else { return Vec::new() };
    let formats = stream.formats();
    let of_format = |format| {
        let mut sizes = formats.sizes(format);
        if sizes.is_empty() {
            sizes.push(formats.range(format).max);
        }
        sizes.into_iter().map(move |size| (format.to_string(), size.width, size.height))
    };
    formats.pixel_formats().into_iter().flat_map(of_format).take(MAX_MODES).collect()
}

/// A value as people write it: one element bare, several in brackets.
fn shown(value: &ControlValue) -> String {
    fn list<T: std::fmt::Debug>(values: &[T]) -> String {
        if let [one] = values { format!("{one:?}") } else { format!("{values:?}") }
    }
    match value {
        ControlValue::None => String::new(),
        ControlValue::Bool(v) => list(v),
        ControlValue::Byte(v) => list(v),
        ControlValue::Uint16(v) => list(v),
        ControlValue::Uint32(v) => list(v),
        ControlValue::Int32(v) => list(v),
        ControlValue::Int64(v) => list(v),
        ControlValue::Float(v) => list(v),
        ControlValue::String(v) => v.join(", "),
        ControlValue::Rectangle(v) => list(v),
        ControlValue::Size(v) => list(v),
        ControlValue::Point(v) => list(v),
    }
}

/// As an entry of ListDevices.
impl From<Surveyed> for Device {
    fn from(camera: Surveyed) -> Self {
        // Microseconds per frame (libcamera, control_ids_core.yaml, FrameDurationLimits \[S\]).
        let shortest =
            camera.controls.iter().find(|c| c.name == "FrameDurationLimits").and_then(|c| c.min.parse().ok());
        let max_fps = shortest.filter(|us| *us > 0.0).map_or(0.0, |us: f32| 1e6 / us);
        let mode = |(format, width, height)| DeviceMode { format, width, height, smallest: None, max_fps };
        let control = |c: SurveyedControl| Control { name: c.name, min: c.min, max: c.max, default: c.default };
        Self {
            name: camera.model.unwrap_or_else(|| camera.id.clone()),
            id: camera.id,
            transport: Transport::Libcamera,
            node: None,
            modes: camera.modes.into_iter().map(mode).collect(),
            properties: camera.properties,
            controls: camera.controls.into_iter().map(control).collect(),
        }
    }
}

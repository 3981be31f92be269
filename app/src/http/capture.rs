//! What could be captured: ListDevices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use mos_hal::platform::{Control, Device, Transport};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Services;
use super::extract::Params;
use super::fault::Fault;
use super::gmsl::{self, GmslLinkView};
use super::routes::Routes;
use super::segments::blocking;
use crate::error::ErrorBody;

/// The devices present now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceList {
    /// The board: `generic`, later a SoC's name.
    pub platform: String,
    /// What it was recognised by.
    pub evidence: String,
    /// The devices.
    pub devices: Vec<DeviceView>,
    /// The GMSL links that lenses of the device tree hang on.
    #[serde(default)]
    pub gmsl: Vec<GmslLinkView>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceView {
    /// Stable while the device stays in its port.
    pub id: String,
    /// What it calls itself.
    pub name: String,
    /// `v4l2`, `libcamera`, `rtsp`, `onvif`, `file` or `test`.
    pub transport: String,
    /// The lens that captures from it; absent if none does. ConfigureStream with the device's id adds one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lens: Option<String>,
    /// Its node, if it has one.
    pub node: Option<String>,
    /// What it can deliver.
    pub modes: Vec<ModeView>,
    /// What else it says of itself, in its own words.
    pub properties: BTreeMap<String, String>,
    /// What can be set, where the device lists it.
    pub controls: Vec<ControlView>,
}

/// A format that a device lists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModeView {
    /// DRM fourcc or codec name.
    pub format: String,
    /// Width in pixels; the greatest, if the device takes a range.
    pub width: u32,
    /// Height in pixels; the greatest, if the device takes a range.
    pub height: u32,
    /// Least width of a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_width: Option<u32>,
    /// Least height of a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_height: Option<u32>,
    /// Highest frame rate in frames per second; 0 where the device does not say.
    pub max_fps: f32,
}

/// A setting of a device, in the device's own words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ControlView {
    /// Its name.
    pub name: String,
    /// Least value.
    pub min: String,
    /// Greatest value.
    pub max: String,
    /// Value at start.
    pub default: String,
}

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/v1/capture/devices", list_devices);
}

/// How long network cameras may take to answer a search.
const SEARCH: Duration = Duration::from_millis(1500);

/// Which devices are listed.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
pub(super) struct Which {
    /// Network cameras too: a search by WS-Discovery is sent to the networks of this machine, and cameras that are
    /// configured as `onvif://` are asked for model, profiles and addresses. Takes 1.5 s and more.
    #[serde(default)]
    network: bool,
}

/// The capture devices that are present now.
#[utoipa::path(get, path = "/v1/capture/devices", operation_id = "ListDevices", tag = "capture",
    params(Which), responses((status = 200, body = DeviceList), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn list_devices(
    State(services): State<Arc<Services>>,
    Params(which): Params<Which>,
) -> Result<Json<DeviceList>, Fault> {
    let list = blocking(move || {
        let (platform, evidence) = services.capture.platform();
        let mut devices = services.capture.devices();
        if which.network {
            devices.extend(services.capture.network_devices(SEARCH));
        }
        let view = |device: Device| {
            let lens = services.capture.lens_of(&device).map(|lens| lens.to_string());
            DeviceView { lens, ..DeviceView::from(device) }
        };
        let devices = devices.into_iter().map(view).collect();
        let gmsl = gmsl::views(&services.capture.gmsl());
        DeviceList { platform: platform.to_owned(), evidence, devices, gmsl }
    });
    Ok(Json(list.await?))
}

impl From<Device> for DeviceView {
    fn from(device: Device) -> Self {
        let transport = match device.transport {
            Transport::V4l2 => "v4l2",
            Transport::Libcamera => "libcamera",
            Transport::Rtsp => "rtsp",
            Transport::Onvif => "onvif",
            Transport::File => "file",
            Transport::Test => "test",
        };
        let modes = device.modes.into_iter().map(|mode| ModeView {
            format: mode.format,
            width: mode.width,
            height: mode.height,
            min_width: mode.smallest.map(|(width, _)| width),
            min_height: mode.smallest.map(|(_, height)| height),
            max_fps: mode.max_fps,
        });
        Self {
            id: device.id,
            name: device.name,
            transport: transport.to_owned(),
            lens: None,
            node: device.node.map(|node| node.display().to_string()),
            modes: modes.collect(),
            properties: device.properties.into_iter().collect(),
            controls: device.controls.into_iter().map(ControlView::from).collect(),
        }
    }
}

impl From<Control> for ControlView {
    fn from(control: Control) -> Self {
        Self { name: control.name, min: control.min, max: control.max, default: control.default }
    }
}

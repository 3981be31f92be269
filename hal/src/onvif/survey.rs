//! The list of network cameras: what answers a search, and what is configured.
//!
//! Blocks for as long as it is told; may be called from any thread that may wait. What is configured is asked with its own
//! login for model, profiles and addresses; what was only found is not logged in to.

use std::time::Duration;

use tokio::task::JoinSet;
use url::Url;

use super::client::{Camera, Encoding, Profile};
use super::{Found, OnvifError, discovery, runtime};
use crate::platform::{Device, DeviceMode, Transport};
use crate::source::{Credentials, SourceSpec, Trust};

/// Cameras on the networks of this machine that answer within `wait`, and those of `configured` that are ONVIF cameras.
pub fn survey(configured: &[SourceSpec], wait: Duration) -> Vec<Device> {
    let known: Vec<(String, Url, Option<Credentials>, Trust)> = configured
        .iter()
        .filter_map(|source| match source {
            SourceSpec::Onvif { url, credentials, trust, .. } => {
                Some((source.to_string(), url.clone(), credentials.clone(), trust.clone()))
            }
            _ => None,
        })
        .collect();
    let work = async move {
        let searching = tokio::spawn(async move { discovery::search(discovery::group(), wait).await });
        let mut asking = JoinSet::new();
        for (i, (shown, url, credentials, trust)) in known.into_iter().enumerate() {
            asking.spawn(async move { (i, ask(&shown, &url, credentials.as_ref(), &trust).await) });
        }
        let mut asked = asking.join_all().await;
        asked.sort_by_key(|(i, _)| *i);
        let found = searching.await.unwrap_or_default();
        let mut devices: Vec<(Option<String>, Device)> = asked.into_iter().map(|(_, answer)| answer).collect();
        for camera in found {
            let host = camera.from.ip().to_string();
            match devices.iter_mut().find(|(asked, _)| asked.as_ref() == Some(&host)) {
                Some((_, device)) => device.properties.extend(told(&camera)),
                None => devices.push((None, unknown(&camera))),
            }
        }
        devices.into_iter().map(|(_, device)| device).collect()
    };
    runtime::wait(work).unwrap_or_else(|e| {
        log::warn!("network cameras cannot be searched: {e}");
        Vec::new()
    })
}

/// A configured camera, and the host that it answered at.
async fn ask(shown: &str, url: &Url, credentials: Option<&Credentials>, trust: &Trust) -> (Option<String>, Device) {
    let mut device = Device {
        id: shown.to_owned(),
        name: String::new(),
        transport: Transport::Onvif,
        node: None,
        modes: Vec::new(),
        properties: vec![("source".into(), shown.to_owned())],
        controls: Vec::new(),
    };
    let mut host = None;
    if let Err(e) = fill(&mut device, &mut host, url, credentials, trust).await {
        device.properties.push(("problem".into(), e.to_string()));
    }
    (host, device)
}

async fn fill(
    device: &mut Device,
    host: &mut Option<String>,
    url: &Url,
    credentials: Option<&Credentials>,
    trust: &Trust,
) -> Result<(), OnvifError> {
    let mut camera = Camera::meet(url, credentials, trust).await?;
    *host = Some(camera.host().0.to_owned());
    let information = camera.information().await?;
    let name = format!("{} {}", information.manufacturer, information.model);
    name.trim().clone_into(&mut device.name);
    device.properties.push(("firmware".into(), information.firmware));
    device.properties.push(("serial".into(), information.serial));
    let profiles = camera.profiles().await?;
    device.modes = profiles.iter().filter_map(mode).collect();
    for profile in &profiles {
        let codec = profile.encoding.as_ref().map_or("no video", Encoding::name);
        let (width, height) = profile.size;
        let text = format!("{} {codec} {width}x{height}", profile.name);
        device.properties.push((format!("profile {}", profile.token), text));
        for (what, uri) in [
            ("stream", camera.stream_uri(&profile.token).await),
            ("snapshot", camera.snapshot_uri(&profile.token).await),
        ] {
            // Some cameras put a login into the query: it is cut off.
            let shown = uri.map_or_else(|e| e.to_string(), |uri| crate::source::redacted(&uri));
            let secrets = credentials.iter().flat_map(|c| [&c.user, &c.password]).filter(|s| s.len() > 3);
            let tells = secrets.into_iter().any(|s| shown.contains(s.as_str()));
            let shown = if tells { "an address that repeats the login".to_owned() } else { shown };
            device.properties.push((format!("{what} {}", profile.token), shown));
        }
    }
    Ok(())
}

fn mode(profile: &Profile) -> Option<DeviceMode> {
    let format = profile.encoding.as_ref()?.name().to_owned();
    let (width, height) = profile.size;
    Some(DeviceMode { format, width, height, smallest: None, max_fps: profile.fps })
}

/// A camera that nobody configured.
fn unknown(found: &Found) -> Device {
    let name = found.name.clone().or_else(|| found.hardware.clone()).unwrap_or_default();
    let mut properties = told(found);
    properties.push(("source".into(), address(found)));
    Device {
        id: found.reference.clone(),
        name,
        transport: Transport::Onvif,
        node: None,
        modes: Vec::new(),
        properties,
        controls: Vec::new(),
    }
}

fn told(found: &Found) -> Vec<(String, String)> {
    let mut told = vec![("endpoint".to_owned(), found.reference.clone())];
    let more = [("name", &found.name), ("hardware", &found.hardware), ("location", &found.location)];
    told.extend(more.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))));
    told.push(("address".into(), found.from.ip().to_string()));
    told
}

/// It as a source: where its answer came from, with the port that it names; over TLS if it names no other way.
fn address(found: &Found) -> String {
    let named: Vec<Url> = found.addresses.iter().filter_map(|address| Url::parse(address).ok()).collect();
    let plain = named.iter().find(|url| url.scheme() == "http");
    let secure = named.iter().find(|url| url.scheme() == "https").filter(|_| plain.is_none());
    let scheme = if secure.is_some() { "onvifs" } else { "onvif" };
    let port = plain.or(secure).and_then(Url::port).map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{}{port}", found.from.ip())
}

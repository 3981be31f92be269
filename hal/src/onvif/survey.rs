//! The list of network cameras: what answers a search, and what is configured.
//!
//! Blocks for as long as it is told, or [`ASKING`] if any camera is configured; may be called from any thread that may wait. What is configured is asked with its own
//! login for model, profiles and addresses; what was only found is not logged in to.

use std::net::IpAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use url::Url;

use super::client::{Camera, Encoding, Profile};
use super::{Found, OnvifError, discovery, runtime};
use crate::platform::{Device, DeviceMode, Transport};
use crate::source::{Credentials, SourceSpec, Trust};

/// How long a configured camera may take for all that it is asked; what it has told by then is listed.
const ASKING: Duration = Duration::from_secs(12);
/// Profiles of a camera that are asked where they stream; a recorder of 64 channels has hundreds.
const MAX_ASKED: usize = 16;

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
            asking.spawn(async move { (i, ask(&shown, &url, credentials.as_ref(), &trust, ASKING).await) });
        }
        let mut asked = asking.join_all().await;
        asked.sort_by_key(|(i, _)| *i);
        let found = searching.await.unwrap_or_default();
        let mut devices: Vec<(Vec<IpAddr>, Device)> = asked.into_iter().map(|(_, answer)| answer).collect();
        for camera in found {
            match devices.iter_mut().find(|(asked, _)| asked.contains(&camera.from.ip())) {
                Some((_, device)) => device.properties.extend(told(&camera)),
                None => devices.push((Vec::new(), unknown(&camera))),
            }
        }
        devices.into_iter().map(|(_, device)| device).collect()
    };
    runtime::wait(work).unwrap_or_else(|e| {
        log::warn!("network cameras cannot be searched: {e}");
        Vec::new()
    })
}

/// A configured camera, and the addresses of the host that it answered at.
async fn ask(
    shown: &str,
    url: &Url,
    credentials: Option<&Credentials>,
    trust: &Trust,
    limit: Duration,
) -> (Vec<IpAddr>, Device) {
    let mut device = Device {
        id: shown.to_owned(),
        name: String::new(),
        transport: Transport::Onvif,
        node: None,
        modes: Vec::new(),
        properties: vec![("source".into(), shown.to_owned())],
        controls: Vec::new(),
    };
    let mut addresses = Vec::new();
    let filling = fill(&mut device, &mut addresses, url, credentials, trust);
    let problem = match tokio::time::timeout(limit, filling).await {
        Ok(filled) => filled.err().map(|e| e.to_string()),
        Err(_) => Some(format!("it has not told everything within {} s", limit.as_secs())),
    };
    device.properties.extend(problem.map(|problem| ("problem".to_owned(), problem)));
    (addresses, device)
}

async fn fill(
    device: &mut Device,
    addresses: &mut Vec<IpAddr>,
    url: &Url,
    credentials: Option<&Credentials>,
    trust: &Trust,
) -> Result<(), OnvifError> {
    let mut camera = Camera::meet(url, credentials, trust).await?;
    // It may be configured by a name, and is found by its address.
    if let Ok(found) = tokio::net::lookup_host(camera.host()).await {
        addresses.extend(found.map(|at| at.ip().to_canonical()));
    }
    let information = camera.information().await?;
    let name = format!("{} {}", information.manufacturer, information.model);
    name.trim().clone_into(&mut device.name);
    device.properties.push(("firmware".into(), information.firmware));
    device.properties.push(("serial".into(), information.serial));
    let profiles = camera.profiles().await?;
    device.modes = profiles.iter().filter_map(mode).collect();
    for (number, profile) in profiles.iter().enumerate() {
        let codec = profile.encoding.as_ref().map_or("no video", Encoding::name);
        let (width, height) = profile.size;
        let text = format!("{} {codec} {width}x{height}", profile.name);
        device.properties.push((format!("profile {}", profile.token), text));
        if number >= MAX_ASKED {
            continue;
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers a camera's questions but those where something is.
    fn camera_with(profiles: usize, listener: &TcpListener) {
        let body = |inside: &str| format!("<e:Envelope xmlns:e='x'><e:Body>{inside}</e:Body></e:Envelope>");
        let media = format!("http://{}/media", listener.local_addr().unwrap());
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            let mut room = [0; 4096];
            while !request.contains("Envelope>") {
                match stream.read(&mut room) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => request.push_str(&String::from_utf8_lossy(&room[..read])),
                }
            }
            let inside = if request.contains("<GetServices") {
                let service = "http://www.onvif.org/ver10/media/wsdl";
                format!("<R><Service><Namespace>{service}</Namespace><XAddr>{media}</XAddr></Service></R>")
            } else if request.contains("<GetDeviceInformation") {
                "<R><Manufacturer>Slow</Manufacturer><Model>One</Model></R>".to_owned()
            } else if request.contains("<GetProfiles") {
                let one = |n: usize| {
                    format!(
                        "<Profiles token='p{n}'><VideoEncoderConfiguration><Encoding>H264</Encoding>\
                         <Resolution><Width>640</Width><Height>360</Height></Resolution></VideoEncoderConfiguration></Profiles>"
                    )
                };
                format!("<R>{}</R>", (0..profiles).map(one).collect::<String>())
            } else if request.contains("<GetSystemDateAndTime") {
                "<R/>".to_owned()
            } else {
                held.push(stream);
                continue;
            };
            let text = body(&inside);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
            let _ = stream.write_all(format!("{head}{text}").as_bytes());
        }
    }

    #[tokio::test]
    async fn a_camera_that_does_not_tell_everything_in_time_is_listed_with_what_it_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("onvif://localhost:{}", listener.local_addr().unwrap().port())).unwrap();
        std::thread::spawn(move || camera_with(40, &listener));
        // Each of the 80 questions would take 4 s.
        let (addresses, device) = ask(url.as_str(), &url, None, &Trust::default(), Duration::from_secs(6)).await;
        assert_eq!((device.name.as_str(), device.modes.len()), ("Slow One", 40), "{device:?}");
        let problem = device.properties.iter().find(|(name, _)| name == "problem").unwrap();
        assert!(problem.1.contains("within 6 s"), "{problem:?}");
        // As a search finds it.
        assert!(addresses.contains(&"127.0.0.1".parse().unwrap()), "{addresses:?}");
    }
}

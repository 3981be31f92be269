//! The list of network cameras: what answers a search, and what is configured.
//!
//! A camera that is configured and found is one device ([`identity`](super::identity)), told with its endpoint, so that several
//! lenses of one camera are known as such; what is configured in the same words is listed once.
//!
//! Blocks for as long as it is told, or [`ASKING`] if any camera is configured; may be called from any thread that may wait. What is configured is asked with its own
//! login for model, profiles and addresses; what was only found is not logged in to.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::task::JoinSet;
use url::Url;

use super::client::{Camera, Encoding, Profile};
use super::identity::Known;
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
        list(asked.into_iter().map(|(_, answer)| answer).collect(), &found)
    };
    runtime::wait(work).unwrap_or_else(|e| {
        log::warn!("network cameras cannot be searched: {e}");
        Vec::new()
    })
}

/// One device for each camera that is configured, in their order, and for each that was found only.
fn list(asked: Vec<(Known, Device)>, found: &[Found]) -> Vec<Device> {
    let has_problem = |device: &Device| device.properties.iter().any(|(name, _)| name == "problem");
    let mut devices: Vec<(Known, Device)> = Vec::new();
    for (known, device) in asked {
        // The same source with another login, which may see more.
        match devices.iter_mut().find(|(_, listed)| listed.id == device.id) {
            Some(listed) if has_problem(&listed.1) && !has_problem(&device) => *listed = (known, device),
            Some(_) => {}
            None => devices.push((known, device)),
        }
    }
    let mut strangers = Vec::new();
    for camera in found {
        let mut its: Vec<_> = devices.iter_mut().filter(|(known, _)| known.is(camera)).collect();
        for (known, device) in &mut its {
            device.properties.extend(told(camera, known));
        }
        if its.is_empty() {
            strangers.push(stranger(camera));
        }
    }
    devices.into_iter().map(|(_, device)| device).chain(strangers).collect()
}

/// A configured camera, and what it is known by.
async fn ask(
    shown: &str,
    url: &Url,
    credentials: Option<&Credentials>,
    trust: &Trust,
    limit: Duration,
) -> (Known, Device) {
    let mut device = Device {
        id: shown.to_owned(),
        name: String::new(),
        transport: Transport::Onvif,
        node: None,
        modes: Vec::new(),
        properties: vec![("source".into(), shown.to_owned())],
        controls: Vec::new(),
    };
    let mut known = Known::of(url);
    let filling = fill(&mut device, &mut known, url, credentials, trust);
    let problem = match tokio::time::timeout(limit, filling).await {
        Ok(filled) => filled.err().map(|e| e.to_string()),
        Err(_) => Some(format!("it has not told everything within {} s", limit.as_secs())),
    };
    device.properties.extend(problem.map(|problem| ("problem".to_owned(), problem)));
    (known, device)
}

async fn fill(
    device: &mut Device,
    known: &mut Known,
    url: &Url,
    credentials: Option<&Credentials>,
    trust: &Trust,
) -> Result<(), OnvifError> {
    known.look_up().await;
    let mut camera = Camera::meet(url, credentials, trust).await?;
    known.hear(&mut camera).await;
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
fn stranger(found: &Found) -> Device {
    let name = found.name.clone().or_else(|| found.hardware.clone()).unwrap_or_default();
    let (source, known) = source(found);
    let mut properties = told(found, &known);
    properties.push(("source".into(), source));
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

/// What its answers say, with the addresses that they came from: first that by which it is known.
fn told(found: &Found, known: &Known) -> Vec<(String, String)> {
    let mut told = vec![("endpoint".to_owned(), found.reference.clone())];
    let more = [("name", &found.name), ("hardware", &found.hardware), ("location", &found.location)];
    told.extend(more.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))));
    let mut addresses = found.from.clone();
    addresses.sort_by_key(|address| !known.is_at(*address));
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    told.push(("address".into(), addresses.join(", ")));
    told
}

/// It as a source, and what that is known by: where its answer came from, at best an address that it names as well, with the port
/// that it names; over TLS if it names no other way.
fn source(found: &Found) -> (String, Known) {
    let named: Vec<Url> = found.addresses.iter().filter_map(|address| Url::parse(address).ok()).collect();
    let plain = named.iter().find(|url| url.scheme() == "http");
    let secure = named.iter().find(|url| url.scheme() == "https").filter(|_| plain.is_none());
    let scheme = if secure.is_some() { "onvifs" } else { "onvif" };
    let port = plain.or(secure).and_then(Url::port).map(|port| format!(":{port}")).unwrap_or_default();
    let is_named = |address: &&IpAddr| named.iter().any(|url| url.host_str() == Some(&address.to_string()));
    let address = found.from.iter().find(is_named).or(found.from.first());
    let address = address.copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    (format!("{scheme}://{address}{port}"), Known::at(address))
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
        let (known, device) = ask(url.as_str(), &url, None, &Trust::default(), Duration::from_secs(6)).await;
        assert_eq!((device.name.as_str(), device.modes.len()), ("Slow One", 40), "{device:?}");
        let problem = device.properties.iter().find(|(name, _)| name == "problem").unwrap();
        assert!(problem.1.contains("within 6 s"), "{problem:?}");
        // As a search finds it.
        assert!(known.is_at("127.0.0.1".parse().unwrap()), "{known:?}");
    }

    #[test]
    fn a_camera_that_is_configured_and_found_is_one_device() {
        let device = |source: &str, properties: &[(&str, &str)]| {
            let url = Url::parse(source).unwrap();
            let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let found = Found {
                reference: source.to_owned(),
                addresses: Vec::new(),
                from: Vec::new(),
                name: None,
                hardware: None,
                location: None,
            };
            let known = url.host_str().and_then(|host| host.parse().ok()).map_or_else(|| Known::of(&url), Known::at);
            (known, Device { properties, ..stranger(&found) })
        };
        let uuid = "8a52f1de-77aa-4c0e-b0c5-5d1e0f2a9b11";
        let by_uuid = format!("onvif://{uuid}/sub");
        let asked = vec![
            device("onvif://192.0.2.7", &[("problem", "it does not accept this user name and password")]),
            device(&by_uuid, &[]),
            device("onvif://192.0.2.7", &[("serial", "1")]),
            device("onvif://192.0.2.9", &[]),
        ];
        let found = Found {
            reference: format!("urn:uuid:{}", uuid.to_uppercase()),
            addresses: vec!["http://192.0.2.7/onvif/device_service".into()],
            from: vec!["192.0.2.5".parse().unwrap(), "192.0.2.7".parse().unwrap()],
            name: Some("Yard".into()),
            hardware: None,
            location: None,
        };
        let other = Found {
            reference: "urn:uuid:other".into(),
            addresses: Vec::new(),
            from: vec!["192.0.2.8".parse().unwrap()],
            ..found.clone()
        };
        let listed = list(asked, &[found.clone(), other]);
        let ids: Vec<&str> = listed.iter().map(|device| device.id.as_str()).collect();
        assert_eq!(ids, ["onvif://192.0.2.7", &by_uuid, "onvif://192.0.2.9", "urn:uuid:other"]);
        let of = |n: usize, name: &str| {
            listed[n].properties.iter().find(|(key, _)| key == name).map(|(_, text)| text.as_str())
        };
        // The login that was taken, not the one that was refused; the address by which it is configured goes first.
        assert_eq!(
            (of(0, "serial"), of(0, "problem"), of(0, "address")),
            (Some("1"), None, Some("192.0.2.7, 192.0.2.5"))
        );
        assert_eq!(
            (of(0, "endpoint"), of(1, "endpoint")),
            (Some(found.reference.as_str()), Some(found.reference.as_str()))
        );
        assert_eq!((of(2, "endpoint"), of(3, "source")), (None, Some("onvif://192.0.2.8")));
        // Nobody configured: where it answers and says to be.
        assert_eq!(source(&found).0, "onvif://192.0.2.7");
    }
}

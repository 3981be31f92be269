//! Whether a camera that a search found is one that is configured.
//!
//! Promises that a camera is known by its endpoint reference wherever it answers from, if the configuration or the camera itself
//! tells it; else by an address that it answers from, and at last by one that it names. For lists only: where requests and
//! logins go is never decided by it.

use std::net::IpAddr;

use url::Url;

use super::Found;
use super::client::{self, Camera};

/// What a configured camera is known by.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The UUID that its source names instead of a host.
    named: Option<String>,
    /// The UUID that it tells when it is asked.
    told: Option<String>,
    /// Its host and port; `None` if its source names no host.
    host: Option<(String, u16)>,
    /// The addresses of its host.
    addresses: Vec<IpAddr>,
    /// Asked over TLS.
    secure: bool,
}

impl Known {
    /// What a source says.
    pub(super) fn of(url: &Url) -> Self {
        let named = client::endpoint_reference(url);
        let entry = client::entry(url).ok().filter(|_| named.is_none());
        let secure = entry.as_ref().is_some_and(|entry| entry.secure);
        let host = entry.map(|entry| (entry.host, entry.port));
        Self { named, told: None, host, addresses: Vec::new(), secure }
    }

    /// An address, and nothing more.
    pub(super) fn at(address: IpAddr) -> Self {
        let host = Some((address.to_string(), 80));
        Self { named: None, told: None, host, addresses: vec![address], secure: false }
    }

    /// Finds out what its name leads to: it is found by an address.
    pub(super) async fn look_up(&mut self) {
        let Some((host, port)) = &self.host else { return };
        if let Ok(found) = tokio::net::lookup_host((host.as_str(), *port)).await {
            self.addresses.extend(found.map(|at| at.ip().to_canonical()));
        }
    }

    /// Asks it who it is; many cannot say.
    pub(super) async fn hear(&mut self, camera: &mut Camera) {
        let told = camera.reference().await.ok();
        self.told = told.and_then(|told| client::uuid(told.get(told.len().checked_sub(36)?..)?));
    }

    /// Whether its host has that address.
    pub(super) fn is_at(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Whether it is the camera that was found.
    pub(super) fn is(&self, found: &Found) -> bool {
        if let Some(uuid) = &self.named {
            return found.is(uuid);
        }
        if self.told.as_ref().is_some_and(|uuid| found.is(uuid)) {
            return true;
        }
        let Some((_, port)) = &self.host else { return false };
        let named = || found.addresses.iter().filter_map(|address| client::device_at(address));
        // Several cameras may share an address. One that names no port of our kind may have it all the same.
        let its_port = named().any(|at| (at.port, at.secure) == (*port, self.secure));
        let no_port = named().all(|at| at.secure != self.secure);
        if found.from.iter().any(|from| self.is_at(*from)) {
            return its_port || no_port;
        }
        // It answers on another network than ours to it, and names the address that we have. Cameras that were never set up
        // name the same one: who has told another reference is not taken for them.
        let here = |host: &str| host.parse().is_ok_and(|address: IpAddr| self.is_at(address.to_canonical()));
        self.told.is_none() && named().any(|at| (at.port, at.secure) == (*port, self.secure) && here(&at.host))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const UUID: &str = "8a52f1de-77aa-4c0e-b0c5-5d1e0f2a9b11";

    fn known(source: &str) -> Known {
        let mut known = Known::of(&Url::parse(source).unwrap());
        // What a look-up of an address gives.
        known.addresses = known.host.iter().filter_map(|(host, _)| host.parse().ok()).collect();
        known
    }

    fn found(reference: &str, from: &[&str], named: &[&str]) -> Found {
        Found {
            reference: format!("urn:uuid:{reference}"),
            addresses: named.iter().map(|at| format!("{at}/onvif/device_service")).collect(),
            from: from.iter().map(|from| from.parse().unwrap()).collect(),
            name: None,
            hardware: None,
            location: None,
        }
    }

    #[test]
    fn a_reference_counts_wherever_the_camera_answers_from() {
        let configured = known(&format!("onvif://{}/main", UUID.to_uppercase()));
        assert!(configured.is(&found(&UUID.to_uppercase(), &["192.0.2.5"], &[])));
        assert!(!configured.is(&found("another", &["192.0.2.7"], &["http://192.0.2.7"])));
        let told = Known { told: Some(UUID.to_owned()), ..known("onvif://192.0.2.7") };
        assert!(told.is(&found(UUID, &["198.51.100.5"], &["http://203.0.113.9:81"])));
    }

    #[test]
    fn an_address_counts_with_its_port() {
        let configured = known("onvif://192.0.2.7:8000");
        for (from, named, is) in [
            (&["192.0.2.5", "192.0.2.7"][..], &["http://192.0.2.7:8000"][..], true),
            (&["192.0.2.7"], &[], true),
            (&["192.0.2.7"], &["https://192.0.2.7"], true),
            // A neighbour behind the same address.
            (&["192.0.2.7"], &["http://192.0.2.7:8001"], false),
            // On another of our networks.
            (&["192.0.2.5"], &["http://[2001:db8::1]:8000", "http://192.0.2.7:8000"], true),
            (&["192.0.2.5"], &["http://192.0.2.7:8001"], false),
            (&["192.0.2.5"], &["https://192.0.2.7:8000"], false),
            (&["192.0.2.5"], &[], false),
        ] {
            assert_eq!(configured.is(&found(UUID, from, named)), is, "{from:?} {named:?}");
        }
        // Two that were never set up name the same address.
        let told = Known { told: Some("6f1d2c54-8a41-4c2e-9d6b-0a7c51e3f001".into()), ..configured };
        assert!(!told.is(&found(UUID, &["192.0.2.5"], &["http://192.0.2.7:8000"])));
    }
}

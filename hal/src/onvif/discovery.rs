//! WS-Discovery: which cameras are on the networks of this machine.
//!
//! Promises to send a few small datagrams to a multicast group and nothing else, to believe only what relates to them, and to
//! keep at most [`MAX_FOUND`] cameras, whatever is answered. IPv4 only.
//!
//! A camera that is on several of our networks answers on each of them; it is one camera, at several addresses.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use roxmltree::Node;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::http::Endpoint;
use super::{OnvifError, client, security, shown, soap};

/// WS-Discovery 1.0, section 2.4.
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 3702);
/// Most cameras that are kept of one search.
const MAX_FOUND: usize = 256;
/// Most addresses that are kept of one camera, of those that it names and of those that it answers from.
const MAX_ADDRESSES: usize = 8;
/// When a probe is repeated: datagrams get lost.
const AGAIN: Duration = Duration::from_millis(400);
/// How long one camera is searched for.
const FIND: Duration = Duration::from_secs(3);

/// A camera that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its endpoint reference, mostly `urn:uuid:…`; stays when its address changes.
    pub reference: String,
    /// Addresses of its device service, as it names them.
    pub addresses: Vec<String>,
    /// Where its answers came from, in order; never empty.
    pub from: Vec<IpAddr>,
    /// Its name, if it tells one.
    pub name: Option<String>,
    /// Its model, if it tells it.
    pub hardware: Option<String>,
    /// Where it is mounted, as somebody has set it.
    pub location: Option<String>,
}

/// Every camera that answers within `wait`, in order of their references.
pub(super) async fn search(group: SocketAddr, wait: Duration) -> Vec<Found> {
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    let mut answers = ask(group, wait);
    while let Some(camera) = answers.recv().await {
        let room = found.len() < MAX_FOUND;
        match found.entry(camera.reference.clone()) {
            Entry::Occupied(mut known) => known.get_mut().add(camera),
            Entry::Vacant(place) if room => {
                place.insert(camera);
            }
            Entry::Vacant(_) => {}
        }
    }
    found.into_values().collect()
}

impl Found {
    /// The same camera has answered again, perhaps on another network.
    fn add(&mut self, again: Self) {
        self.from.extend(again.from);
        self.from.sort_unstable();
        self.from.dedup();
        self.from.truncate(MAX_ADDRESSES);
        for address in again.addresses {
            if self.addresses.len() < MAX_ADDRESSES && !self.addresses.contains(&address) {
                self.addresses.push(address);
            }
        }
        self.name = self.name.take().or(again.name);
        self.hardware = self.hardware.take().or(again.hardware);
        self.location = self.location.take().or(again.location);
    }

    /// Whether it is the camera of that UUID, in small letters.
    pub(super) fn is(&self, uuid: &str) -> bool {
        self.reference.to_ascii_lowercase().ends_with(uuid)
    }
}

/// A search for one camera, which may answer from several addresses: one that nobody can connect to is no reason to miss the others.
pub(super) struct Search {
    answers: mpsc::Receiver<Found>,
    uuid: String,
    secure: bool,
    told: Vec<Endpoint>,
}

impl Search {
    /// Begins to look for the camera with that UUID, in small letters.
    pub(super) fn begin(uuid: &str, secure: bool) -> Self {
        Self::in_group(GROUP.into(), uuid, secure)
    }

    /// In another group than that of all.
    pub(super) fn in_group(group: SocketAddr, uuid: &str, secure: bool) -> Self {
        Self { answers: ask(group, FIND), uuid: uuid.to_owned(), secure, told: Vec::new() }
    }

    /// Where its device service may be besides, over TLS if it shall be; `None` once the time is over.
    pub(super) async fn next(&mut self) -> Option<Endpoint> {
        while self.told.len() < MAX_ADDRESSES {
            let camera = self.answers.recv().await?;
            if !camera.is(&self.uuid) {
                continue;
            }
            // Its answer came from where it is; what it says of its host may be old.
            let address = camera.addresses.iter().filter_map(|address| client::device_at(address));
            let address = address.into_iter().find(|address| address.secure == self.secure);
            let service = address.unwrap_or_else(|| Endpoint {
                host: String::new(),
                port: if self.secure { 443 } else { 80 },
                path: "/onvif/device_service".into(),
                secure: self.secure,
            });
            let Some(from) = camera.from.first() else { continue };
            let service = Endpoint { host: from.to_string(), ..service };
            if !self.told.contains(&service) {
                self.told.push(service.clone());
                return Some(service);
            }
        }
        None
    }

    /// Nobody of that UUID has answered.
    pub(super) fn in_vain(&self) -> OnvifError {
        OnvifError::Unreachable(format!("no camera {} answered within {} s", self.uuid, FIND.as_secs()))
    }
}

/// The multicast group of all.
pub(super) fn group() -> SocketAddr {
    GROUP.into()
}

/// Sends probes from every address of this machine; answers come until `wait` is over.
fn ask(group: SocketAddr, wait: Duration) -> mpsc::Receiver<Found> {
    let (out, answers) = mpsc::channel(16);
    tokio::spawn(async move {
        let end = Instant::now() + wait;
        let mut asking = JoinSet::new();
        for address in addresses() {
            let out = out.clone();
            asking.spawn(async move {
                if let Err(e) = ask_from(address, group, end, &out).await {
                    log::debug!("onvif: no search from {address}: {e}");
                }
            });
        }
        drop(out);
        while asking.join_next().await.is_some() {}
    });
    answers
}

/// A socket that is bound to an address of an interface sends its multicast there (Linux, `ip_route_output_key_hash_rcu`).
async fn ask_from(
    address: Ipv4Addr,
    group: SocketAddr,
    end: Instant,
    out: &mpsc::Sender<Found>,
) -> std::io::Result<()> {
    let socket = UdpSocket::bind((address, 0)).await?;
    let id = security::message_id().map_err(std::io::Error::other)?;
    let probe = probe(&id);
    let mut datagram = vec![0; 65_536];
    let mut again = Some(Instant::now() + AGAIN);
    socket.send_to(probe.as_bytes(), group).await?;
    loop {
        let until = again.map_or(end, |again| again.min(end));
        match timeout_at(until, socket.recv_from(&mut datagram)).await {
            Ok(Ok((n, from))) => {
                for camera in read(&datagram[..n], from, &id) {
                    if out.send(camera).await.is_err() {
                        return Ok(());
                    }
                }
            }
            // What the network says of one datagram ("port unreachable") says nothing of the others.
            Ok(Err(_)) => {}
            Err(_) if again.take().is_some() && Instant::now() < end => {
                socket.send_to(probe.as_bytes(), group).await?;
            }
            Err(_) => return Ok(()),
        }
    }
}

fn probe(id: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
         xmlns:d=\"http://schemas.xmlsoap.org/ws/2005/04/discovery\"><s:Header>\
         <a:MessageID>{id}</a:MessageID><a:To s:mustUnderstand=\"1\">urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To>\
         <a:Action s:mustUnderstand=\"1\">http://schemas.xmlsoap.org/ws/2005/04/discovery/Probe</a:Action></s:Header><s:Body>\
         <d:Probe><d:Types xmlns:n=\"http://www.onvif.org/ver10/network/wsdl\">n:NetworkVideoTransmitter</d:Types></d:Probe>\
         </s:Body></s:Envelope>"
    )
}

/// The cameras in an answer to the probe of that id.
pub(super) fn read(datagram: &[u8], from: SocketAddr, id: &str) -> Vec<Found> {
    let text = String::from_utf8_lossy(datagram);
    let Ok(document) = soap::read("Probe", &text) else { return Vec::new() };
    let related = soap::text(document.root_element(), &["Header", "RelatesTo"]);
    if related.is_none_or(|related| related != id) {
        return Vec::new();
    }
    let Ok(matches) = soap::body("Probe", &document) else { return Vec::new() };
    soap::children(matches, "ProbeMatch").take(MAX_FOUND).filter_map(|m| camera(m, from)).collect()
}

fn camera(found: Node<'_, '_>, from: SocketAddr) -> Option<Found> {
    let reference = shown(soap::text(found, &["EndpointReference", "Address"])?);
    let addresses = soap::text(found, &["XAddrs"]).unwrap_or_default();
    let scopes = soap::text(found, &["Scopes"]).unwrap_or_default();
    let scope = |name: &str| {
        let value = scopes
            .split_whitespace()
            .find_map(|scope| scope.strip_prefix("onvif://www.onvif.org/")?.strip_prefix(name)?.strip_prefix('/'))?;
        Some(shown(&crate::source::percent_decoded(value)?)).filter(|value| !value.is_empty())
    };
    Some(Found {
        reference,
        addresses: addresses.split_whitespace().take(MAX_ADDRESSES).map(shown).collect(),
        from: vec![from.ip().to_canonical()],
        name: scope("name"),
        hardware: scope("hardware"),
        location: scope("location"),
    })
}

/// The IPv4 addresses of this machine, from the kernel's routing tries (`/proc/net/fib_trie`); at least the unspecified one,
/// which leaves the choice to the default route.
fn addresses() -> Vec<Ipv4Addr> {
    let trie = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let found = local_addresses(&trie);
    if found.is_empty() { vec![Ipv4Addr::UNSPECIFIED] } else { found }
}

/// An address stands in a line of its own, and the next line says that it is local.
fn local_addresses(trie: &str) -> Vec<Ipv4Addr> {
    let mut last = None;
    let mut found = Vec::new();
    for line in trie.lines() {
        if let Some(address) = line.trim_start().strip_prefix("|-- ") {
            last = address.trim().parse().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = last.take()
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(id: &str, reference: &str) -> String {
        format!(
            "<e:Envelope xmlns:e='x' xmlns:a='y' xmlns:d='z'><e:Header><a:RelatesTo>{id}</a:RelatesTo></e:Header><e:Body><d:ProbeMatches>\
             <d:ProbeMatch><a:EndpointReference><a:Address>{reference}</a:Address></a:EndpointReference>\
             <d:Scopes>onvif://www.onvif.org/name/Front%20door onvif://www.onvif.org/hardware/M1 onvif://www.onvif.org/location/</d:Scopes>\
             <d:XAddrs>http://192.0.2.1/onvif/device_service http://[fe80::1]/onvif/device_service</d:XAddrs></d:ProbeMatch>\
             </d:ProbeMatches></e:Body></e:Envelope>"
        )
    }

    #[test]
    fn what_does_not_answer_our_probe_is_not_believed() {
        let from = "192.0.2.9:3702".parse().unwrap();
        let text = answer("urn:uuid:1", "urn:uuid:cafe");
        let found = read(text.as_bytes(), from, "urn:uuid:1");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_deref(), found[0].hardware.as_deref()), (Some("Front door"), Some("M1")));
        assert_eq!((found[0].location.as_deref(), found[0].addresses.len()), (None, 2));
        assert!(read(text.as_bytes(), from, "urn:uuid:2").is_empty());
        assert!(read(b"\xff<a", from, "urn:uuid:1").is_empty());
    }

    #[test]
    fn a_search_ends_in_time_with_each_camera_once() {
        let responder = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let group = responder.local_addr().unwrap();
        let replying = std::thread::spawn(move || {
            responder.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
            let mut buffer = [0; 4096];
            let (n, from) = responder.recv_from(&mut buffer).unwrap();
            let text = String::from_utf8(buffer[..n].to_vec()).unwrap();
            let document = soap::read("Probe", &text).unwrap();
            let id = soap::text(document.root_element(), &["Header", "MessageID"]).unwrap().to_owned();
            for (reference, named) in [("b", "192.0.2.1"), ("a", "192.0.2.1"), ("b", "192.0.2.2"), ("b", "192.0.2.2")] {
                let text = answer(&id, &format!("urn:uuid:{reference}")).replace("192.0.2.1", named);
                responder.send_to(text.as_bytes(), from).unwrap();
            }
            responder.send_to(b"noise", from).unwrap();
        });
        let found = super::super::runtime::wait(async move { search(group, Duration::from_secs(2)).await }).unwrap();
        replying.join().unwrap();
        let references: Vec<&str> = found.iter().map(|f| f.reference.as_str()).collect();
        assert_eq!(references, ["urn:uuid:a", "urn:uuid:b"]);
        // All that it says of where it is, each once.
        assert_eq!((found[0].addresses.len(), found[1].addresses.len()), (2, 3), "{found:?}");
        assert_eq!(found[1].from.len(), 1, "{found:?}");
    }

    #[test]
    fn addresses_of_this_machine_are_found() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 127.0.0.0\n        /8 host LOCAL\n\
            \x20    |-- 127.0.0.1\n           /32 host LOCAL\n     |-- 192.0.2.5\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n";
        assert_eq!(local_addresses(trie), [Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 5)]);
        assert!(!addresses().is_empty());
    }
}

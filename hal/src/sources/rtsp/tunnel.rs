//! `rtsps://`: the way of an RTSP session through an encrypted connection.
//!
//! The RTSP client opens its TCP connection by itself. So the camera is reached over TLS first, and the client is given a port
//! of this machine that leads into that connection. Promises that the port takes one connection and is closed then, that it
//! leads nowhere before the camera has shown who it is (`crate::tls`), and that both ends close together.

use std::net::Ipv4Addr;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::Url;

use crate::source::Trust;
use crate::tls::{self, TlsError};

/// The port of `rtsps://` (IANA).
const PORT: u16 = 322;
/// What is carried in one step to the camera and back: requests are small, packets are many.
const STEPS: (usize, usize) = (2 << 10, 64 << 10);

/// An open tunnel; it closes when dropped.
pub(super) struct Tunnel {
    /// The camera's address by way of this machine.
    pub(super) url: Url,
    carrying: JoinHandle<()>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

/// Reaches the camera at `url`, an address of `rtsps://`.
pub(super) async fn open(url: &Url, trust: &Trust) -> Result<Tunnel, TlsError> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let mut camera = tls::connect(host, url.port().unwrap_or(PORT), trust).await?;
    let local = |e: std::io::Error| TlsError::Refused(format!("no port of this machine for it: {e}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(local)?;
    let port = listener.local_addr().map_err(local)?.port();
    let within = format!("rtsp://{}:{port}{}", Ipv4Addr::LOCALHOST, &url[url::Position::BeforePath..]);
    let within = Url::parse(&within).map_err(|e| TlsError::Refused(e.to_string()))?;
    let carrying = tokio::spawn(async move {
        let Ok((mut client, _)) = listener.accept().await else { return };
        drop(listener);
        let _ = client.set_nodelay(true);
        // An error is the end of the connection, which the client sees by itself.
        let _ = copy_bidirectional_with_sizes(&mut client, &mut camera, STEPS.0, STEPS.1).await;
    });
    Ok(Tunnel { url: within, carrying })
}

//! `rtsps://`: the way of an RTSP session through an encrypted connection.
//!
//! The RTSP client opens its TCP connection by itself. So the camera is reached over TLS first, and the client is given a port
//! of this machine that leads into that connection. Promises that the port takes one connection of this very process, whoever
//! else comes first, and is closed then; that it leads nowhere before the camera has shown who it is (`crate::tls`), and that
//! both ends close together.
//!
//! Facts: proc_net_tcp (Linux documentation, networking): addresses as hexadecimal words of the machine's byte order, the
//! connection's inode in the tenth column; proc(5): `/proc/self/fd` shows a socket as `socket:[inode]`.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
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
    let local = |e: std::io::Error| TlsError::Broken(format!("no port of this machine for it: {e}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(local)?;
    let port = listener.local_addr().map_err(local)?.port();
    let within = format!("rtsp://{}:{port}{}", Ipv4Addr::LOCALHOST, &url[url::Position::BeforePath..]);
    let within = Url::parse(&within).map_err(|e| TlsError::Refused(e.to_string()))?;
    let carrying = tokio::spawn(async move {
        let Some(mut client) = our_own(&listener).await else { return };
        drop(listener);
        let _ = client.set_nodelay(true);
        // An error is the end of the connection, which the client sees by itself.
        let _ = copy_bidirectional_with_sizes(&mut client, &mut camera, STEPS.0, STEPS.1).await;
    });
    Ok(Tunnel { url: within, carrying })
}

/// Most connections of others that are sent away before the session is given up.
const STRANGERS: usize = 16;

/// The connection that this process makes to `listener`. All others are closed unheard: any user of this machine can come. The
/// kernel's tables are not read on the thread of all cameras.
async fn our_own(listener: &TcpListener) -> Option<TcpStream> {
    for _ in 0..=STRANGERS {
        let (client, from) = listener.accept().await.ok()?;
        let (SocketAddr::V4(from), Ok(SocketAddr::V4(to))) = (from, client.local_addr()) else { continue };
        if tokio::task::spawn_blocking(move || is_ours(from, to)).await.unwrap_or(false) {
            return Some(client);
        }
        log::warn!(
            "another process connected to a port of an encrypted camera session on this machine, and was sent away"
        );
    }
    None
}

/// Whether the end `from` of a connection to `to` is a socket of this process.
fn is_ours(from: SocketAddrV4, to: SocketAddrV4) -> bool {
    let Ok(table) = std::fs::read_to_string("/proc/self/net/tcp") else { return false };
    let Some(inode) = inode_of(&table, from, to) else { return false };
    let wanted = format!("socket:[{inode}]");
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else { return false };
    descriptors.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == &*wanted))
}

/// The inode of a connection in `/proc/net/tcp`; one that nobody holds has none.
fn inode_of(table: &str, from: SocketAddrV4, to: SocketAddrV4) -> Option<u64> {
    let word = |at: SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(at.ip().octets()), at.port());
    let (from, to) = (word(from), word(to));
    let mut lines = table.lines().map(str::split_ascii_whitespace);
    let inode = lines.find_map(|mut fields| {
        let ends = (fields.nth(1)?, fields.next()?);
        if ends == (&*from, &*to) { fields.nth(6)?.parse().ok() } else { None }
    });
    inode.filter(|inode| *inode != 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn the_port_is_for_this_process_whoever_comes_first() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        // Says when it is connected, and ends when it is sent away.
        let program = "import socket, sys; s = socket.create_connection((\"127.0.0.1\", int(sys.argv[1])))\n\
            print(\"here\", flush=True); s.recv(1)";
        let mut other = Command::new("python3");
        let mut other = other.args(["-c", program, &at.port().to_string()]).stdout(Stdio::piped()).spawn().unwrap();
        let mut here = [0; 4];
        let mut said = other.stdout.take().unwrap();
        said.read_exact(&mut here).unwrap();
        let ours = TcpStream::connect(at).await.unwrap();
        let accepted = our_own(&listener).await.unwrap();
        assert_eq!(accepted.peer_addr().unwrap(), ours.local_addr().unwrap());
        other.wait().unwrap();
    }
}

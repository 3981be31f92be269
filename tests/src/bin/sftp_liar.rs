//! `sftp_liar short|longer|changed`: OpenSSH's sftp-server behind somebody who lies. To be used as an sshd's subsystem.
//!
//! `short` drops the last byte of every write and says that all of it was written; `longer` says that files are one byte longer
//! than they are; `changed` changes one bit of every write. Packets are those of draft-ietf-secsh-filexfer-02.

#![allow(clippy::unwrap_used, reason = "a test rig fails by panicking")]

use std::io::{Read, Write};
use std::process::{Command, Stdio};

const WRITE: u8 = 6;
const ATTRS: u8 = 105;
/// The attributes begin with a size.
const HAS_SIZE: u32 = 1;

/// Reads one packet without its length, `None` at the end.
fn packet(from: &mut impl Read) -> Option<Vec<u8>> {
    let mut len = [0; 4];
    from.read_exact(&mut len).ok()?;
    let mut packet = vec![0; u32::from_be_bytes(len) as usize];
    from.read_exact(&mut packet).ok()?;
    Some(packet)
}

fn send(to: &mut impl Write, packet: &[u8]) -> Option<()> {
    to.write_all(&(packet.len() as u32).to_be_bytes()).ok()?;
    to.write_all(packet).ok()?;
    to.flush().ok()
}

fn word(packet: &[u8], at: usize) -> usize {
    u32::from_be_bytes(packet[at..at + 4].try_into().unwrap()) as usize
}

/// Where the length of a write's data stands: behind type, id, handle and offset.
fn data_at(packet: &[u8]) -> usize {
    5 + 4 + word(packet, 5) + 8
}

fn main() {
    let lie = std::env::args().nth(1).expect("short, longer or changed");
    let mut server = Command::new("/usr/lib/openssh/sftp-server");
    let mut server = server.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Debian's openssh-sftp-server");
    let (mut to_server, mut from_server) = (server.stdin.take().unwrap(), server.stdout.take().unwrap());
    let of_requests = lie.clone();
    std::thread::spawn(move || {
        while let Some(mut packet) = packet(&mut std::io::stdin().lock()) {
            if packet[0] == WRITE {
                let at = data_at(&packet);
                let len = word(&packet, at);
                if of_requests == "short" && len > 0 {
                    packet.pop();
                    packet[at..at + 4].copy_from_slice(&(len as u32 - 1).to_be_bytes());
                } else if of_requests == "changed" && len > 0 {
                    packet[at + 4] ^= 1;
                }
            }
            if send(&mut to_server, &packet).is_none() {
                break;
            }
        }
        // The server ends when its input does, and this program with it.
    });
    while let Some(mut packet) = packet(&mut from_server) {
        if lie == "longer" && packet[0] == ATTRS && word(&packet, 5) as u32 & HAS_SIZE != 0 {
            let size = u64::from_be_bytes(packet[9..17].try_into().unwrap()) + 1;
            packet[9..17].copy_from_slice(&size.to_be_bytes());
        }
        if send(&mut std::io::stdout().lock(), &packet).is_none() {
            break;
        }
    }
    let _ = server.wait();
}

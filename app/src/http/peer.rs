//! Who is at the other end of a Unix socket: the kernel's word, which the peer cannot choose.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::net::UnixStream;

use crate::access::{Caller, LocalUsers, Who};

/// More groups than a process can have (`NGROUPS_MAX`, limits.h of Linux).
const MAX_GROUPS: usize = 1 << 16;

/// Who connected, with the role that they have.
pub(super) fn caller(stream: &UnixStream, users: &LocalUsers) -> io::Result<Caller> {
    let peer = stream.peer_cred()?;
    let mut groups = match further_groups(stream) {
        Ok(groups) => groups,
        // Before Linux 4.13 only the first group is told.
        Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => Vec::new(),
        Err(e) => return Err(e),
    };
    groups.push(peer.gid());
    Ok(Caller { who: Who::User(peer.uid()), role: users.role(peer.uid(), &groups) })
}

/// The supplementary groups that the peer had when it connected (`SO_PEERGROUPS`, unix(7)).
fn further_groups(socket: &impl AsFd) -> io::Result<Vec<libc::gid_t>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut length = libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `length` bytes, which is the size of the buffer, and says how many.
        let done = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if done == 0 {
            groups.truncate(length as usize / size_of::<libc::gid_t>());
            return Ok(groups);
        }
        match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ERANGE) && groups.len() < MAX_GROUPS => groups.resize(MAX_GROUPS, 0),
            e => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::access::Role;

    #[test]
    fn the_kernel_tells_who_the_peer_is_and_its_groups() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let caller = caller(&ours, &LocalUsers::default()).unwrap();
            let uid = nix::unistd::geteuid().as_raw();
            assert_eq!(caller, Caller { who: Who::User(uid), role: Some(Role::Admin) });
            let mut told = further_groups(&ours).unwrap();
            let mut own: Vec<u32> =
                nix::unistd::getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect();
            told.sort_unstable();
            own.sort_unstable();
            assert_eq!(told, own);
        });
    }
}

//! Reading that steps back behind the recorder: uploads can wait, fragments cannot.
//!
//! The file is read in steps of at most 255 KiB, one at a time (promise X3 of `sftp/transfer.rs`). Here the kernel is told not to
//! read ahead beyond them, and to serve the thread after everybody else. Not as `idle`: a box that records all day would then
//! never send.

use crate::archive::disk::DiskFile;

/// `IOPRIO_CLASS_BE` with the lowest level (linux/ioprio.h: class in the bits from 13 on, level below).
const LOWEST: libc::c_int = (2 << 13) | 7;
/// `IOPRIO_WHO_PROCESS` (linux/ioprio.h).
const WHO_PROCESS: libc::c_int = 1;

/// Gives the calling thread, and those that it starts, the lowest priority at the disk; best effort: not every scheduler knows
/// priorities.
pub(super) fn lower_disk_priority() {
    // SAFETY: takes three numbers; 0 is the calling thread.
    let refused = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, LOWEST) } != 0;
    if refused {
        log::debug!("the priority at the disk cannot be lowered: {}", std::io::Error::last_os_error());
    }
}

/// Tells the kernel that this opening of the file is read in steps of ours, so that it reads nothing ahead; best effort.
pub(super) fn read_in_steps(file: &dyn DiskFile) {
    if let Some(fd) = file.raw_fd() {
        // SAFETY: the descriptor is open as long as `file` is borrowed; the call changes only how it is read.
        let _ = unsafe { libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_RANDOM) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_and_its_children_step_back_and_nobody_else() {
        let ask = || {
            // SAFETY: as above, and only asks.
            unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) }
        };
        let before = ask();
        let other = std::thread::spawn(move || {
            lower_disk_priority();
            (ask(), std::thread::spawn(ask).join())
        });
        let (own, child) = other.join().unwrap_or((0, Ok(0)));
        assert_eq!(own, i64::from(LOWEST));
        assert!(child.is_ok_and(|child| child == i64::from(LOWEST)));
        assert_eq!(ask(), before);
    }
}

//! News that devices came or went, or may be opened now.
//!
//! Promises that whatever changes the presence of a watched node, or who may open it, makes the descriptor readable; that news
//! is never lost, only joined; and that a folder which does not exist yet is watched as soon as something tells of it.
//!
//! Watches `/dev` and udev's links by inotify rather than the kernel's uevents: a uevent comes before udev has made the link and
//! given the node to its group, so that the camera could not be opened yet, and it does not reach other network namespaces.
//! inotify needs no privilege, tells of the very things that opening depends on, and works with any maker of nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;

use crate::source::SourceSpec;

/// What changes presence or permission. Files that are being written are told of when they are complete.
const CHANGES: u32 = libc::IN_CREATE
    | libc::IN_DELETE
    | libc::IN_MOVED_TO
    | libc::IN_MOVED_FROM
    | libc::IN_ATTRIB
    | libc::IN_CLOSE_WRITE
    | libc::IN_ONLYDIR;
/// Beginnings of the names in `/dev` that cameras have.
const CAMERAS: [&str; 3] = ["video", "media", "v4l"];
/// Bytes of an event before its name (inotify(7)).
const HEAD: usize = 16;

/// Whether what a source captures from is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// There, and may be opened.
    Here,
    /// There, but we may not open it: udev has not come to it yet, or the rights are missing.
    Barred,
    /// Not there.
    Gone,
    /// Cannot be told without opening it.
    Unknown,
}

impl Presence {
    /// Of what a source is captured from.
    #[must_use]
    pub fn of(source: &SourceSpec) -> Self {
        use nix::unistd::{AccessFlags, access};
        let (path, flags) = match source {
            SourceSpec::V4l2 { device, .. } => (device, AccessFlags::R_OK | AccessFlags::W_OK),
            SourceSpec::File { path, .. } => (path, AccessFlags::R_OK),
            _ => return Self::Unknown,
        };
        match access(path, flags) {
            Ok(()) => Self::Here,
            Err(Errno::ENOENT | Errno::ENOTDIR) => Self::Gone,
            Err(_) => Self::Barred,
        }
    }
}

/// A folder that is watched, and the names in it that matter.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    names: Names,
}

#[derive(Debug)]
enum Names {
    All,
    Cameras,
    These(Vec<OsString>),
}

impl Names {
    fn has(&self, name: &OsStr) -> bool {
        match self {
            Self::All => true,
            Self::Cameras => CAMERAS.iter().any(|camera| name.as_bytes().starts_with(camera.as_bytes())),
            Self::These(names) => names.iter().any(|n| n == name),
        }
    }
}

/// Listens for devices that come and go.
#[derive(Debug)]
pub struct Hotplug {
    inotify: OwnedFd,
    folders: Vec<Folder>,
    /// The kernel's number of a watch, and which folders it is: several paths may lead to one.
    watches: BTreeMap<i32, BTreeSet<usize>>,
}

impl Hotplug {
    /// Listens below `dev`, which is `/dev` but for tests, and for what `sources` are captured from elsewhere.
    pub fn listen<'a>(dev: &Path, sources: impl IntoIterator<Item = &'a SourceSpec>) -> io::Result<Self> {
        // SAFETY: takes no pointer; the descriptor is checked before it is owned.
        let fd = Errno::result(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
        // SAFETY: the kernel just gave it to us.
        let inotify = unsafe { OwnedFd::from_raw_fd(fd) };
        let links = dev.join("v4l");
        let mut folders = vec![
            Folder { path: dev.to_owned(), names: Names::Cameras },
            Folder { path: links.join("by-path"), names: Names::All },
            Folder { path: links.join("by-id"), names: Names::All },
            Folder { path: links, names: Names::All },
        ];
        let mut elsewhere: BTreeMap<PathBuf, Vec<OsString>> = BTreeMap::new();
        for source in sources {
            let (SourceSpec::V4l2 { device: path, .. } | SourceSpec::File { path, .. }) = source else { continue };
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { continue };
            // Also where a folder is watched for cameras' own names: links may have any.
            elsewhere.entry(folder.to_owned()).or_default().push(name.to_owned());
        }
        folders.extend(elsewhere.into_iter().map(|(path, names)| Folder { path, names: Names::These(names) }));
        let mut hotplug = Self { inotify, folders, watches: BTreeMap::new() };
        hotplug.watch();
        Ok(hotplug)
    }

    /// Watches what can be watched; whether that is more than before.
    fn watch(&mut self) -> bool {
        let mut more = false;
        for (index, folder) in self.folders.iter().enumerate() {
            let Ok(path) = CString::new(folder.path.as_os_str().as_bytes()) else { continue };
            // SAFETY: the path is a C string that outlives the call. The same folder again keeps its number, by whatever path.
            let watch = unsafe { libc::inotify_add_watch(self.inotify.as_raw_fd(), path.as_ptr(), CHANGES) };
            if watch >= 0 {
                more |= self.watches.entry(watch).or_default().insert(index);
            }
        }
        more
    }

    /// Takes what has come; whether any of it may concern a camera. Never waits.
    pub fn take(&mut self) -> io::Result<bool> {
        let mut news = false;
        let mut buffer = [0u8; 4096];
        loop {
            match nix::unistd::read(&self.inotify, &mut buffer) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(read) => news |= self.concerns(&buffer[..read]),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        // A folder that has just come may hold something already.
        Ok(self.watch() || news)
    }

    fn concerns(&mut self, mut events: &[u8]) -> bool {
        let mut news = false;
        while let Some((head, rest)) = events.split_at_checked(HEAD) {
            let word = |at: usize| head[at..at + 4].try_into().map(u32::from_ne_bytes).unwrap_or_default();
            let (watch, mask, length) = (word(0) as i32, word(4), word(12) as usize);
            let Some((name, rest)) = rest.split_at_checked(length) else { break };
            events = rest;
            let name = OsStr::from_bytes(name.split(|byte| *byte == 0).next().unwrap_or_default());
            if mask & libc::IN_IGNORED != 0 {
                self.watches.remove(&watch);
            }
            // The queue ran over: anything may have happened.
            news |= mask & libc::IN_Q_OVERFLOW != 0
                || self.watches.get(&watch).is_some_and(|at| at.iter().any(|at| self.folders[*at].names.has(name)));
        }
        news
    }
}

impl AsFd for Hotplug {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl AsRawFd for Hotplug {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::source::RawOptions;

    fn awaited(hotplug: &mut Hotplug) -> bool {
        let limit = PollTimeout::from(60_000u16);
        let ready = poll(&mut [PollFd::new(hotplug.as_fd(), PollFlags::POLLIN)], limit).unwrap();
        assert_eq!(ready, 1, "nothing came in a minute");
        hotplug.take().unwrap()
    }

    #[test]
    fn nodes_links_and_rights_are_news_and_other_devices_are_not() {
        let dev = tempfile::tempdir().unwrap();
        let node = dev.path().join("video3");
        let mut hotplug = Hotplug::listen(dev.path(), []).unwrap();
        assert!(!hotplug.take().unwrap());
        fs::write(dev.path().join("ttyACM0"), "").unwrap();
        assert!(!awaited(&mut hotplug), "a modem is no camera");

        fs::write(&node, "").unwrap();
        assert!(awaited(&mut hotplug));
        fs::set_permissions(&node, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(awaited(&mut hotplug), "now it may be opened");
        // udev makes the folders with the first link.
        let links = dev.path().join("v4l/by-path");
        fs::create_dir_all(&links).unwrap();
        assert!(awaited(&mut hotplug));
        symlink(&node, links.join("pci-0000:00:14.0-usb-0:1:1.0-video-index0")).unwrap();
        assert!(awaited(&mut hotplug));
        fs::remove_dir_all(dev.path().join("v4l")).unwrap();
        assert!(awaited(&mut hotplug));
        fs::create_dir_all(&links).unwrap();
        symlink(&node, links.join("a")).unwrap();
        assert!(awaited(&mut hotplug), "links that came back are watched again");
        hotplug.take().unwrap();
        fs::remove_file(&node).unwrap();
        assert!(awaited(&mut hotplug));
        assert!(!hotplug.take().unwrap());
    }

    #[test]
    fn what_a_source_plays_is_told_wherever_it_lies() {
        let (dev, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = disk.path().join("road.mp4");
        let source = SourceSpec::File { path: path.clone(), looped: true };
        let mut hotplug = Hotplug::listen(dev.path(), [&source]).unwrap();
        fs::write(disk.path().join("other.mp4"), "").unwrap();
        assert!(!awaited(&mut hotplug));
        assert_eq!(Presence::of(&source), Presence::Gone);
        fs::write(&path, "").unwrap();
        assert!(awaited(&mut hotplug));
        assert_eq!(Presence::of(&source), Presence::Here);
    }

    /// udev's rules of a machine may give a camera any name in `/dev`, and other devices have theirs beside it.
    #[test]
    fn a_link_of_any_name_is_news_where_a_source_names_it() {
        let dev = tempfile::tempdir().unwrap();
        let node = dev.path().join("usbcam");
        fs::write(&node, "").unwrap();
        let of = |name: &str| SourceSpec::V4l2 { device: dev.path().join(name), options: RawOptions::default() };
        let mut hotplug = Hotplug::listen(dev.path(), [&of("cam-front")]).unwrap();
        fs::write(dev.path().join("ttyACM0"), "").unwrap();
        assert!(!awaited(&mut hotplug));
        symlink(&node, dev.path().join("cam-front")).unwrap();
        assert!(awaited(&mut hotplug));
        fs::write(dev.path().join("video0"), "").unwrap();
        assert!(awaited(&mut hotplug), "cameras' own names are news as before");
    }

    /// The kernel has one watch for a folder, by however many paths it is reached.
    #[test]
    fn a_folder_that_two_paths_lead_to_is_watched_for_both() {
        let dev = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let same = other.path().join("dev");
        symlink(dev.path(), &same).unwrap();
        let source = SourceSpec::V4l2 { device: same.join("cam-front"), options: RawOptions::default() };
        let mut hotplug = Hotplug::listen(dev.path(), [&source]).unwrap();
        assert!(!hotplug.take().unwrap(), "nothing is new by looking twice");
        fs::write(dev.path().join("video0"), "").unwrap();
        assert!(awaited(&mut hotplug));
        hotplug.take().unwrap();
        fs::write(dev.path().join("cam-front"), "").unwrap();
        assert!(awaited(&mut hotplug));
    }

    #[test]
    fn a_camera_is_the_node_that_its_link_leads_to() {
        let dev = tempfile::tempdir().unwrap();
        let (node, link) = (dev.path().join("video3"), dev.path().join("pci-0-video-index0"));
        let source = SourceSpec::V4l2 { device: link.clone(), options: RawOptions::default() };
        assert_eq!(Presence::of(&source), Presence::Gone);
        symlink(&node, &link).unwrap();
        assert_eq!(Presence::of(&source), Presence::Gone, "a link without its node");
        fs::write(&node, "").unwrap();
        assert_eq!(Presence::of(&source), Presence::Here);
        assert_eq!(Presence::of(&SourceSpec::Qmmf { camera: 0, options: RawOptions::default() }), Presence::Unknown);
    }
}

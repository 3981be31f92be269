//! Lenses that come and go at run time.
//!
//! Promises that a lens which was added is there again after a restart, before the cameras are opened; that taking one out
//! makes what it has delivered durable and never touches footage; and that a device is captured by one lens. Lenses of the
//! configuration file come and go with it only.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mos_hal::frames::LensFrames;
use mos_hal::media::LensId;
use mos_hal::platform::{Device, Platform, Transport};
use mos_hal::source::SourceSpec;

use super::operations::CaptureError;
use super::settings::{StreamSettings, check};
use super::store::Store;
use super::{CaptureControlService, Intake, Isolation, LensConfig, LensStatus, News, lock};

/// Most lenses that may be added.
const MOST: usize = 64;
/// udev's links by port; see `mos_hal::hotplug`.
const BY_PATH: &str = "/dev/v4l/by-path";

/// What a lens needs around it that is not capture's own: where its units and its raw pictures go.
pub trait LensHost: Send + Sync {
    /// Records a lens from now on; `None` once the recording has stopped.
    fn take_in(&self, lens: &LensId) -> Option<Arc<Intake>>;
    /// Records it no longer; what it delivered is durable on return, as far as the disk lets it be.
    fn let_go(&self, lens: &LensId);
    /// Where its raw pictures are published, if they are.
    fn frames(&self, lens: &LensId) -> Option<Arc<LensFrames>>;
}

/// Something to capture from: how it is written in the configuration, and what that means.
struct Found {
    text: String,
    source: SourceSpec,
}

impl CaptureControlService {
    /// Adds a lens that captures from `device`, an id of ListDevices or a source without password, with `settings`; it is kept
    /// over restarts and records at once (ConfigureStream with a device).
    pub(super) fn add(
        &self,
        store: &mut Store,
        id: &LensId,
        device: &str,
        settings: &StreamSettings,
    ) -> Result<LensStatus, CaptureError> {
        let refused = |why| CaptureError::Settings { lens: id.clone(), why };
        let found = find(device, &*self.shared.openers.platform)?;
        for lens in self.lenses() {
            let lens = lock(&lens);
            if is_same(&lens.base().source, &found.source) {
                return Err(CaptureError::Taken { device: found.source.to_string(), by: lens.id().clone() });
            }
        }
        if store.added().count() >= MOST {
            return Err(refused(format!("{MOST} lenses were added already; remove one")));
        }
        let host = self.shared.host.get().ok_or_else(|| refused("lenses cannot be added here".into()))?;
        let base = bare(id, found.source.clone());
        check(&settings.apply(&base).map_err(refused)?.source, &*self.shared.openers.platform).map_err(refused)?;
        let Some(intake) = host.take_in(id) else {
            return Err(refused("the recorder is stopping".into()));
        };
        store.add(id, &found.text, settings).map_err(|e| {
            host.let_go(id);
            CaptureError::NotDurable(e.to_string())
        })?;
        let status = self.insert(LensConfig { frames: host.frames(id), ..base }, settings, intake)?;
        self.shared.bell.ring();
        Ok(status)
    }

    /// Lenses that earlier lives were told to add.
    pub(super) fn restore(&self, store: &mut Store) {
        let Some(host) = self.shared.host.get() else { return };
        for (id, text) in store.added().collect::<Vec<_>>() {
            if self.lens(&id).is_some() {
                log::info!("{id}: the configuration file has this lens now, what was added under its name is not used");
                continue;
            }
            let Ok(source) = SourceSpec::parse(&text) else {
                store.unusable(&id, format!("lens {id}: what it was added with is no source any more; add it again"));
                continue;
            };
            let Some(intake) = host.take_in(&id) else { return };
            let config = LensConfig { frames: host.frames(&id), ..bare(&id, source) };
            // What was configured for it is applied as for all others.
            let _ = self.insert(config, &StreamSettings::default(), intake);
        }
    }

    fn insert(
        &self,
        base: LensConfig,
        settings: &StreamSettings,
        intake: Arc<Intake>,
    ) -> Result<LensStatus, CaptureError> {
        let config = settings.apply(&base);
        let config = config.map_err(|why| CaptureError::Settings { lens: base.id.clone(), why })?;
        if let Some(frames) = &base.frames {
            let published = (base.id.clone(), Arc::clone(frames));
            self.shared.frames.write().unwrap_or_else(std::sync::PoisonError::into_inner).push(published);
        }
        let mut lens = self.shared.parts.lens(base, intake);
        lens.is_added();
        lens.set(config, settings.clone());
        let status = lens.status();
        self.shared.lenses.write().unwrap_or_else(std::sync::PoisonError::into_inner).push(Arc::new(lens.into()));
        Ok(status)
    }

    /// Takes out a lens that was added; its footage stays (RemoveLens). Gives its last state.
    pub fn remove_lens(&self, id: &LensId) -> Result<LensStatus, CaptureError> {
        let mut store = lock(&self.shared.store);
        let lens = self.lens(id).ok_or_else(|| CaptureError::NoLens(id.clone()))?;
        if !lock(&lens).status().added {
            return Err(CaptureError::InFile(id.clone()));
        }
        store.remove(id).map_err(|e| CaptureError::NotDurable(e.to_string()))?;
        let last = {
            let mut lens = lock(&lens);
            // Refused only if it is idle already.
            let _ = lens.stop();
            lens.join();
            lens.status()
        };
        self.shared
            .lenses
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .retain(|l| !Arc::ptr_eq(l, &lens));
        let mut frames = self.shared.frames.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        frames.retain(|(published, _)| published != id);
        drop(frames);
        if let Some(host) = self.shared.host.get() {
            host.let_go(id);
        }
        // Nobody may be listening.
        let _ = self.shared.parts.changes.send(News::Removed { lens: id.clone(), at: self.shared.parts.clock.mono() });
        Ok(last)
    }

    /// Whether a source captures from what `device` names.
    pub(super) fn is_from(&self, source: &SourceSpec, device: &str) -> bool {
        find(device, &*self.shared.openers.platform)
            .is_ok_and(|found| is_same(source, &found.source) || *source == found.source)
    }

    /// The lens that captures from a device.
    #[must_use]
    pub fn lens_of(&self, device: &Device) -> Option<LensId> {
        let captures = |lens: &super::Lens| is_of(&lens.base().source, device).then(|| lens.id().clone());
        self.lenses().iter().find_map(|lens| captures(&lock(lens)))
    }
}

/// A lens with nothing but its source.
fn bare(id: &LensId, source: SourceSpec) -> LensConfig {
    let isolation = Isolation::of(&source);
    LensConfig { id: id.clone(), source, audio: false, frames: None, isolation }
}

/// A device of ListDevices, or else a source as in the configuration file.
fn find(text: &str, platform: &dyn Platform) -> Result<Found, CaptureError> {
    let source = match platform.devices().into_iter().find(|device| device.id == text) {
        Some(device) => named(&device).ok_or_else(|| CaptureError::NoDevice("it has no node".to_owned()))?,
        None => text.to_owned(),
    };
    match SourceSpec::parse(&source) {
        Ok(spec) if spec.is_secret() => {
            let why = "a camera with a password belongs in the configuration file, which the daemon alone can read";
            Err(CaptureError::NoDevice(why.to_owned()))
        }
        Ok(spec) => Ok(Found { text: source, source: spec }),
        Err(e) => Err(CaptureError::NoDevice(format!("ListDevices has none of that id, and as a source: {e}"))),
    }
}

/// How a device is written as a source that stays the same while it stays in its port.
fn named(device: &Device) -> Option<String> {
    match device.transport {
        Transport::V4l2 => {
            let link = Path::new(BY_PATH).join(&device.id);
            let path = if link.exists() { Some(link) } else { device.node.clone() };
            path.map(|path| format!("v4l2:{}", path.display()))
        }
        Transport::Libcamera => Some(format!("libcamera:{}", device.id.replace('%', "%25").replace('?', "%3F"))),
        Transport::Onvif => device.properties.iter().find(|(name, _)| name == "source").map(|(_, text)| text.clone()),
        Transport::Rtsp | Transport::File | Transport::Test => None,
    }
}

/// Whether a source captures from a device.
pub(super) fn is_of(source: &SourceSpec, device: &Device) -> bool {
    match source {
        SourceSpec::V4l2 { device: node, .. } => device.node.as_ref().is_some_and(|other| real(node) == real(other)),
        SourceSpec::Libcamera { camera, .. } => device.id == *camera,
        SourceSpec::Onvif { .. } => device.transport == Transport::Onvif && device.id == source.to_string(),
        _ => false,
    }
}

/// Whether two sources capture from the same device. Network cameras, files and scenes may be captured more than once.
fn is_same(one: &SourceSpec, other: &SourceSpec) -> bool {
    match (one, other) {
        (SourceSpec::V4l2 { device: one, .. }, SourceSpec::V4l2 { device: other, .. }) => real(one) == real(other),
        (SourceSpec::Libcamera { .. } | SourceSpec::Board { .. } | SourceSpec::Qmmf { .. }, _) => {
            one.to_string() == other.to_string()
        }
        _ => false,
    }
}

/// Where a link leads to; of what is not there, the path itself.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mos_hal::source::RawOptions;

    use super::*;

    #[test]
    fn what_bears_a_password_is_not_kept_beside_the_footage() {
        let platform = mos_hal::platform::probe();
        for source in [
            "rtsp://user:secret@192.0.2.10/",
            "rtsp://192.0.2.10/cam?user=admin&password=secret",
            "rtsp://192.0.2.10/user=admin_password=secret_channel=1.sdp",
            "srt://192.0.2.10:9000?passphrase=long-enough-secret",
        ] {
            let found = find(source, &*platform);
            assert!(
                matches!(&found, Err(CaptureError::NoDevice(why)) if why.contains("configuration file")),
                "{source}"
            );
        }
        assert!(find("rtsp://192.0.2.10/cam/realmonitor?channel=1&subtype=0", &*platform).is_ok());
    }

    #[test]
    fn a_link_and_its_node_are_one_device() {
        let dir = tempfile::tempdir().unwrap();
        let (node, link) = (dir.path().join("video3"), dir.path().join("port"));
        std::fs::write(&node, "").unwrap();
        std::os::unix::fs::symlink(&node, &link).unwrap();
        let source = |path: &Path| SourceSpec::V4l2 { device: path.to_owned(), options: RawOptions::default() };
        assert!(is_same(&source(&node), &source(&link)));
        assert!(!is_same(&source(&node), &source(&dir.path().join("video4"))));
        let device = Device {
            id: "port".into(),
            name: "camera".into(),
            transport: Transport::V4l2,
            node: Some(node),
            modes: Vec::new(),
            properties: Vec::new(),
            controls: Vec::new(),
        };
        assert!(is_of(&source(&link), &device));
        assert_eq!(named(&device).unwrap(), format!("v4l2:{}", device.node.as_ref().unwrap().display()));
        let camera = Device { id: "a?b%c".into(), transport: Transport::Libcamera, ..device };
        let again = SourceSpec::parse(&named(&camera).unwrap()).unwrap();
        assert!(is_of(&again, &camera), "{again}");
    }
}

//! The element: properties, connecting, negotiation, time. What it promises stands in the crate's documentation.

use gstreamer as gst;
use gstreamer::glib;

glib::wrapper! {
    /// The element `mosframesrc`.
    pub struct MosFrameSrc(ObjectSubclass<imp::MosFrameSrc>)
        @extends gstreamer_base::PushSrc, gstreamer_base::BaseSrc, gst::Element, gst::Object;
}

mod imp {
    use std::io;
    use std::os::fd::AsFd;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
    use std::time::Duration;

    use gstreamer as gst;
    use gstreamer::glib;
    use gstreamer::prelude::*;
    use gstreamer::subclass::prelude::*;
    use gstreamer_base::prelude::*;
    use gstreamer_base::subclass::base_src::CreateSuccess;
    use gstreamer_base::subclass::prelude::*;
    use gstreamer_video::VideoMeta;
    use mos_frame::wire::Farewell;
    use mos_frame::{ReceivedFrame, SubscribeError, Wish, sys};

    use crate::format;
    use crate::stream::Stream;

    static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
        gst::DebugCategory::new(crate::ELEMENT, gst::DebugColorFlags::empty(), Some("Live frames of the frame bus"))
    });
    /// The capture time itself.
    static CAPTURED: LazyLock<gst::Caps> = LazyLock::new(|| gst::Caps::new_empty_simple("timestamp/x-monotonic"));

    /// Between attempts to connect, at first and at most.
    const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
    /// Latency is told in multiples of this, so that it is told seldom.
    const LATENCY_STEP: u64 = 5_000_000;
    /// An older frame does not raise the latency: it was held up, which is no property of the way.
    const LATENCY_MOST: u64 = 1_000_000_000;

    #[derive(Clone, Debug)]
    struct Settings {
        lens: Option<String>,
        directory: String,
        socket: Option<String>,
        waiting: u32,
        leases: u32,
        rate: gst::Fraction,
        reconnect: bool,
    }

    impl Default for Settings {
        fn default() -> Self {
            Self {
                lens: None,
                directory: "/run/mos/frames".into(),
                socket: None,
                waiting: 1,
                leases: 3,
                rate: gst::Fraction::new(0, 1),
                reconnect: true,
            }
        }
    }

    impl Settings {
        fn path(&self) -> Result<PathBuf, String> {
            match (&self.socket, &self.lens) {
                (Some(socket), _) => Ok(socket.into()),
                (None, Some(lens)) if !lens.is_empty() && !lens.contains(['/', '\0']) => {
                    Ok(PathBuf::from(&self.directory).join(format!("{lens}.sock")))
                }
                (None, Some(lens)) => Err(format!("'{lens}' is no id of a lens")),
                (None, None) => Err("set the property lens, or socket".into()),
            }
        }

        fn wish(&self) -> Wish {
            let (frames, seconds) = (i64::from(self.rate.numer()), i64::from(self.rate.denom()).max(1));
            let max_rate = u32::try_from(frames.saturating_mul(1000) / seconds).unwrap_or(0);
            let max_rate = if frames > 0 { max_rate.max(1) } else { 0 };
            Wish { waiting: self.waiting, leases: self.leases, max_rate }
        }
    }

    /// What the streaming thread keeps.
    #[derive(Default)]
    struct Run {
        stream: Option<Stream>,
        /// Until the next attempt.
        pause: Duration,
        /// The next buffer does not follow the one before.
        broken: bool,
        counts: Counts,
    }

    #[derive(Clone, Copy, Debug, Default)]
    struct Counts {
        frames: u64,
        copied: u64,
        void: u64,
        connections: u64,
    }

    #[derive(Default)]
    pub struct MosFrameSrc {
        settings: Mutex<Settings>,
        run: Mutex<Run>,
        counts: Mutex<Counts>,
        stale: Arc<AtomicU64>,
        bell: Mutex<Option<Arc<sys::Bell>>>,
        flushing: AtomicBool,
        /// ns.
        latency: AtomicU64,
    }

    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[glib::object_subclass]
    impl ObjectSubclass for MosFrameSrc {
        const NAME: &'static str = "MosFrameSrc";
        type Type = super::MosFrameSrc;
        type ParentType = gstreamer_base::PushSrc;
    }

    impl ObjectImpl for MosFrameSrc {
        fn properties() -> &'static [glib::ParamSpec] {
            static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
                let default = Settings::default();
                let text = |name: &'static str, blurb: &'static str| {
                    glib::ParamSpecString::builder(name).blurb(blurb).mutable_ready()
                };
                let number = |name: &'static str, blurb: &'static str, default| {
                    glib::ParamSpecUInt::builder(name)
                        .blurb(blurb)
                        .minimum(1)
                        .maximum(8)
                        .default_value(default)
                        .mutable_ready()
                        .build()
                };
                vec![
                    text("lens", "Id of the lens").build(),
                    text("directory", "Folder with a socket for each lens").default_value(&*default.directory).build(),
                    text("socket", "Path of the socket, in the place of directory and lens").build(),
                    number("waiting", "Frames that may wait at the publisher; the newest", default.waiting),
                    number("leases", "Frames that the pipeline may hold at once", default.leases),
                    gst::ParamSpecFraction::builder("max-framerate")
                        .blurb("Frames per second at most; 0/1 is all")
                        .minimum(gst::Fraction::new(0, 1))
                        .maximum(gst::Fraction::new(1000, 1))
                        .default_value(default.rate)
                        .mutable_ready()
                        .build(),
                    glib::ParamSpecBoolean::builder("reconnect")
                        .blurb("Wait for a publisher that is not there, and connect again when it has gone")
                        .default_value(default.reconnect)
                        .mutable_ready()
                        .build(),
                    glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                        .blurb("Counts of frames, copied, void, stale, and connections")
                        .read_only()
                        .build(),
                ]
            });
            &PROPERTIES
        }

        fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
            let settings = &mut *lock(&self.settings);
            // GObject has checked types and ranges; what does not fit leaves the value as it is.
            match pspec.name() {
                "lens" => settings.lens = value.get().unwrap_or_default(),
                "directory" => settings.directory = value.get::<Option<String>>().ok().flatten().unwrap_or_default(),
                "socket" => settings.socket = value.get().unwrap_or_default(),
                "waiting" => settings.waiting = value.get().unwrap_or(settings.waiting),
                "leases" => settings.leases = value.get().unwrap_or(settings.leases),
                "max-framerate" => settings.rate = value.get().unwrap_or(settings.rate),
                "reconnect" => settings.reconnect = value.get().unwrap_or(settings.reconnect),
                _ => {}
            }
        }

        fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
            let settings = lock(&self.settings);
            match pspec.name() {
                "lens" => settings.lens.to_value(),
                "directory" => settings.directory.to_value(),
                "socket" => settings.socket.to_value(),
                "waiting" => settings.waiting.to_value(),
                "leases" => settings.leases.to_value(),
                "max-framerate" => settings.rate.to_value(),
                "reconnect" => settings.reconnect.to_value(),
                _ => {
                    let Counts { frames, copied, void, connections } = *lock(&self.counts);
                    gst::Structure::builder("application/x-mos-frame-stats")
                        .field("frames", frames)
                        .field("copied", copied)
                        .field("void", void)
                        .field("stale", self.stale.load(Ordering::Relaxed))
                        .field("connections", connections)
                        .build()
                        .to_value()
                }
            }
        }

        fn constructed(&self) {
            self.parent_constructed();
            let source = self.obj();
            source.set_live(true);
            source.set_format(gst::Format::Time);
        }
    }

    impl GstObjectImpl for MosFrameSrc {}

    impl ElementImpl for MosFrameSrc {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "Frame bus source",
                    "Source/Video",
                    "Live frames of a lens of MOS, without a copy",
                    "The MOS authors",
                )
            });
            Some(&METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                let mut caps = gst::Caps::new_empty();
                let all = caps.make_mut();
                all.append(gst::Caps::new_empty_simple("video/x-raw"));
                all.append(gst::Caps::builder("video/x-raw").features(["memory:DMABuf"]).build());
                let template = gst::PadTemplate::new("src", gst::PadDirection::Src, gst::PadPresence::Always, &caps);
                template.into_iter().collect()
            });
            &TEMPLATES
        }
    }

    impl BaseSrcImpl for MosFrameSrc {
        fn start(&self) -> Result<(), gst::ErrorMessage> {
            lock(&self.settings).path().map_err(|why| gst::error_msg!(gst::ResourceError::Settings, ["{why}"]))?;
            let bell = sys::Bell::new().map_err(|e| gst::error_msg!(gst::ResourceError::OpenRead, ["eventfd: {e}"]))?;
            *lock(&self.bell) = Some(Arc::new(bell));
            *lock(&self.run) = Run::default();
            *lock(&self.counts) = Counts::default();
            self.latency.store(0, Ordering::Relaxed);
            self.stale.store(0, Ordering::Relaxed);
            Ok(())
        }

        fn stop(&self) -> Result<(), gst::ErrorMessage> {
            lock(&self.run).stream = None;
            Ok(())
        }

        fn is_seekable(&self) -> bool {
            false
        }

        /// What frames are is known with the first of them.
        fn negotiate(&self) -> Result<(), gst::LoggableError> {
            Ok(())
        }

        fn unlock(&self) -> Result<(), gst::ErrorMessage> {
            self.flushing.store(true, Ordering::SeqCst);
            if let Some(bell) = &*lock(&self.bell) {
                bell.ring();
            }
            Ok(())
        }

        fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
            self.flushing.store(false, Ordering::SeqCst);
            if let Some(bell) = &*lock(&self.bell) {
                bell.hush();
            }
            Ok(())
        }

        fn query(&self, query: &mut gst::QueryRef) -> bool {
            if let gst::QueryViewMut::Latency(query) = query.view_mut() {
                let least = gst::ClockTime::from_nseconds(self.latency.load(Ordering::Relaxed));
                query.set(true, least, gst::ClockTime::NONE);
                return true;
            }
            BaseSrcImplExt::parent_query(self, query)
        }
    }

    impl PushSrcImpl for MosFrameSrc {
        fn create(&self, _: Option<&mut gst::BufferRef>) -> Result<CreateSuccess, gst::FlowError> {
            let bell = lock(&self.bell).clone().ok_or(gst::FlowError::Error)?;
            let run = &mut *lock(&self.run);
            loop {
                if self.flushing.load(Ordering::SeqCst) {
                    return Err(gst::FlowError::Flushing);
                }
                let Some(stream) = &mut run.stream else {
                    self.connect(run, &bell)?;
                    continue;
                };
                if let Err(e) = sys::wait(&[stream.as_fd(), bell.as_fd()], None) {
                    gst::element_imp_error!(self, gst::ResourceError::Read, ["cannot wait for frames: {e}"]);
                    return Err(gst::FlowError::Error);
                }
                let received = stream.next(&mut run.counts.void);
                let made = match received {
                    Ok(Some(frame)) => self.make(run, frame)?,
                    Ok(None) => None,
                    Err(why) => {
                        self.parted(run, &why)?;
                        None
                    }
                };
                *lock(&self.counts) = run.counts;
                if let Some(buffer) = made {
                    return Ok(CreateSuccess::NewBuffer(buffer));
                }
            }
        }
    }

    impl MosFrameSrc {
        /// One attempt, which [`BaseSrcImpl::unlock`] ends; waits after one that failed.
        fn connect(&self, run: &mut Run, bell: &sys::Bell) -> Result<(), gst::FlowError> {
            let settings = lock(&self.settings).clone();
            let path = settings.path().map_err(|why| {
                gst::element_imp_error!(self, gst::ResourceError::Settings, ["{why}"]);
                gst::FlowError::Error
            })?;
            match Stream::connect(&path, settings.wish(), Arc::clone(&self.stale), bell.as_fd()) {
                Ok(stream) => {
                    gst::info!(CAT, imp = self, "connected to {}", path.display());
                    run.stream = Some(stream);
                    run.counts.connections += 1;
                    run.broken |= run.counts.connections > 1;
                    run.pause = Duration::ZERO;
                    Ok(())
                }
                Err(why) if self.flushing.load(Ordering::SeqCst) => {
                    gst::info!(CAT, imp = self, "stopped while connecting: {why}");
                    Err(gst::FlowError::Flushing)
                }
                Err(why) => {
                    self.parted(run, &why)?;
                    run.pause = (run.pause * 2).clamp(PAUSES[0], PAUSES[1]);
                    let _ = sys::wait(&[bell.as_fd()], Some(run.pause));
                    Ok(())
                }
            }
        }

        /// There is no connection (any more): whether that ends the stream.
        fn parted(&self, run: &mut Run, why: &SubscribeError) -> Result<(), gst::FlowError> {
            run.stream = None;
            let again = match why {
                SubscribeError::Goodbye(Farewell::Reconfigured) => true,
                SubscribeError::Goodbye(Farewell::Version | Farewell::Refused | Farewell::Violation)
                | SubscribeError::Wire(_)
                | SubscribeError::Protocol(_) => false,
                SubscribeError::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => false,
                _ if lock(&self.settings).reconnect => true,
                SubscribeError::Closed | SubscribeError::Goodbye(Farewell::Leaving) => {
                    gst::info!(CAT, imp = self, "{why}");
                    return Err(gst::FlowError::Eos);
                }
                _ => false,
            };
            if again {
                gst::info!(CAT, imp = self, "connecting again: {why}");
                return Ok(());
            }
            let kind = match why {
                SubscribeError::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                    gst::ResourceError::NotAuthorized
                }
                SubscribeError::Connect { .. } => gst::ResourceError::NotFound,
                _ => gst::ResourceError::Read,
            };
            gst::element_imp_error!(self, kind, ["{why}"]);
            Err(gst::FlowError::Error)
        }

        /// A frame as a buffer with its time; none if it became void.
        fn make(&self, run: &mut Run, frame: ReceivedFrame) -> Result<Option<gst::Buffer>, gst::FlowError> {
            let Some(stream) = &mut run.stream else { return Ok(None) };
            let captured = frame.captured();
            let refused = |why: String| {
                gst::element_imp_error!(self, gst::StreamError::Format, ["{why}"]);
                gst::FlowError::NotNegotiated
            };
            if stream.is_news(&frame) {
                let (caps, heeds) = self.agree(stream, &frame)?;
                stream.settle(&frame, &caps, heeds).map_err(refused)?;
            }
            let Some(mut taken) = stream.take(frame, &mut run.counts.void).map_err(refused)? else { return Ok(None) };
            run.counts.frames += 1;
            run.counts.copied += u64::from(taken.copied);
            let buffer = taken.buffer.make_mut();
            buffer.set_pts(self.running(captured));
            gst::ReferenceTimestampMeta::add(
                buffer,
                &CAPTURED,
                gst::ClockTime::from_nseconds(captured),
                gst::ClockTime::NONE,
            );
            if std::mem::take(&mut run.broken) {
                buffer.set_flags(gst::BufferFlags::DISCONT);
            }
            Ok(Some(taken.buffer))
        }

        /// Agrees with downstream on caps for a frame; also tells whether downstream heeds where planes lie.
        fn agree(&self, stream: &Stream, frame: &ReceivedFrame) -> Result<(gst::Caps, bool), gst::FlowError> {
            let source = self.obj();
            let pad = source.src_pad();
            let wanted = format::caps(frame.picture(), stream.is_dmabuf(frame), format::by_drm_format());
            let taken = pad.peer_query_caps(None);
            let Some(caps) = wanted.iter().find(|caps| caps.can_intersect(&taken)) else {
                let what = frame.picture();
                gst::element_imp_error!(
                    self,
                    gst::StreamError::Format,
                    ["downstream takes no {} with modifier {:#x}, but {taken}", what.fourcc, what.modifier.0]
                );
                return Err(gst::FlowError::NotNegotiated);
            };
            source.set_caps(caps).map_err(|_| gst::FlowError::NotNegotiated)?;
            let mut query = gst::query::Allocation::new(Some(caps), false);
            let heeds = pad.peer_query(query.query_mut()) && query.find_allocation_meta::<VideoMeta>().is_some();
            gst::info!(CAT, imp = self, "{caps}, where planes lie is heeded: {heeds}");
            Ok((caps.clone(), heeds))
        }

        /// The running time of a moment of `CLOCK_MONOTONIC`; raises the latency if that is longer ago than ever.
        fn running(&self, captured: u64) -> Option<gst::ClockTime> {
            let source = self.obj();
            let (clock, base) = (source.clock()?, source.base_time()?);
            let age = sys::monotonic().saturating_sub(captured);
            let latency = age.min(LATENCY_MOST).next_multiple_of(LATENCY_STEP);
            if self.latency.fetch_max(latency, Ordering::Relaxed) < latency {
                let _ = source.post_message(gst::message::Latency::builder().src(&*source).build());
            }
            let monotonic = clock.downcast_ref::<gst::SystemClock>().is_some_and(|clock| {
                clock.type_() == gst::SystemClock::static_type()
                    && clock.property::<gst::ClockType>("clock-type") == gst::ClockType::Monotonic
            });
            let taken = if monotonic {
                gst::ClockTime::from_nseconds(captured)
            } else {
                clock.time().saturating_sub(gst::ClockTime::from_nseconds(age))
            };
            Some(taken.saturating_sub(base))
        }
    }
}

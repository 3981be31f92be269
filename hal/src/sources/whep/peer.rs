//! Our end of a WebRTC session: `webrtcbin` that receives one video stream and hands out its access units.
//!
//! Promises that only H.264 and H.265 are offered, that coded pictures are passed on as they were sent, at the spacing of the
//! sender's RTP clock, and that a lost packet is told with the picture that follows it and answered by asking for a keyframe.
//!
//! Facts: GStreamer's `webrtcbin` 1.22; RFC 6184 and RFC 7798 (parameters of payloads), RFC 8834 (feedback).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSink;
use gstreamer_sdp::{SDPMediaRef, SDPMessage, SDPMessageRef};
use gstreamer_video::UpstreamForceKeyUnitEvent;
use gstreamer_webrtc::{
    WebRTCICEGatheringState, WebRTCPeerConnectionState, WebRTCRTPTransceiver, WebRTCRTPTransceiverDirection,
    WebRTCSDPType, WebRTCSessionDescription,
};

use super::super::live;
use super::super::outlet::Outlet;
use super::super::samples::{self, Samples};
use super::ice::IceServer;
use crate::gst as common;
use crate::timeline::Timeline;

/// How long a missing packet is waited for, in ms; it is asked for again meanwhile. What comes in order is passed on at once.
const ORDERING: u32 = 1000;
/// How long our own addresses are gathered; a server for ICE that does not answer must not hold the offer up.
const GATHERING: Duration = Duration::from_secs(3);
/// How long `webrtcbin` may take for a step that asks nobody: it makes a key and a certificate first.
const STEP: Duration = Duration::from_secs(8);
/// Ticks of the RTP clock of video in a second (RFC 6184, RFC 7798).
const RATE: i64 = 90_000;
/// Most servers for ICE that are tried.
const ICE_SERVERS: usize = 4;
/// The elements of a session, and where they come from.
const ELEMENTS: [(&str, &str); 6] = [
    ("webrtcbin", "gst-plugins-bad"),
    ("nicesrc", "libnice"),
    ("dtlsdec", "gst-plugins-bad"),
    ("srtpdec", "gst-plugins-bad"),
    ("rtpbin", "gst-plugins-good"),
    ("rtph264depay", "gst-plugins-good"),
];
/// H.264 profiles as they are offered: High, Main, Constrained Baseline. Levels do not bind (`level-asymmetry-allowed`), and
/// nothing here decodes, so any is taken; servers compare the profile.
const PROFILES: [&str; 3] = ["640034", "4d0034", "42e034"];

/// Our end.
pub(super) struct Peer {
    pub(super) pipeline: gst::Pipeline,
    webrtc: gst::Element,
    gathered: mpsc::Receiver<()>,
}

impl Peer {
    /// Builds it. It offers nothing before it runs.
    pub(super) fn build(outlet: &Arc<Outlet>, ice: &[IceServer]) -> Result<Self, String> {
        common::init()?;
        if let Some((name, from)) = ELEMENTS.iter().find(|(name, _)| !common::has(name)) {
            return Err(format!("WebRTC needs GStreamer's element {name} of {from}, which is not installed"));
        }
        let pipeline = gst::Pipeline::new();
        let webrtc = gst::ElementFactory::make("webrtcbin").build().map_err(|e| e.to_string())?;
        pipeline.add(&webrtc).map_err(|e| e.to_string())?;
        common::set(&webrtc, "bundle-policy", "max-bundle")?;
        webrtc.set_property("latency", ORDERING);
        let rtp: gst::Element = common::named(&pipeline, "rtpbin")?;
        common::set(&rtp, "do-lost", "true")?;
        for server in ice.iter().take(ICE_SERVERS) {
            match server {
                IceServer::Stun(url) => webrtc.set_property("stun-server", url),
                IceServer::Turn(url) => {
                    webrtc.emit_by_name::<bool>("add-turn-server", &[url]);
                }
            }
        }
        let direction = WebRTCRTPTransceiverDirection::Recvonly;
        let transceiver = webrtc.emit_by_name::<WebRTCRTPTransceiver>("add-transceiver", &[&direction, &offered()]);
        transceiver.set_property("do-nack", true);
        let (tell, gathered) = mpsc::channel();
        webrtc.connect_notify(Some("ice-gathering-state"), move |webrtc, _| {
            if webrtc.property::<WebRTCICEGatheringState>("ice-gathering-state") == WebRTCICEGatheringState::Complete {
                // Nobody listens once the offer is made.
                let _ = tell.send(());
            }
        });
        let out = Arc::clone(outlet);
        webrtc.connect_notify(Some("connection-state"), move |webrtc, _| {
            match webrtc.property::<WebRTCPeerConnectionState>("connection-state") {
                WebRTCPeerConnectionState::Failed => {
                    out.end(out.broken("no way for its media: ICE or DTLS failed"));
                }
                WebRTCPeerConnectionState::Closed => out.end(out.broken("it closed the session")),
                _ => {}
            }
        });
        receive(&pipeline, &webrtc, outlet);
        Ok(Self { pipeline, webrtc, gathered })
    }

    /// The offer with our addresses. The pipeline must run.
    pub(super) fn offer(&self) -> Result<String, String> {
        let (tell, made) = mpsc::channel();
        let promise = gst::Promise::with_change_func(move |reply| {
            let offer = reply.ok().flatten().and_then(|s| s.get::<WebRTCSessionDescription>("offer").ok());
            let _ = tell.send(offer);
        });
        self.webrtc.emit_by_name::<()>("create-offer", &[&None::<gst::Structure>, &promise]);
        let offer = made.recv_timeout(STEP).ok().flatten().ok_or("webrtcbin makes no offer")?;
        self.describe("set-local-description", &offer)?;
        let begun = Instant::now();
        loop {
            let complete = self.gathered.recv_timeout(GATHERING).is_ok();
            let local = self.webrtc.property::<Option<WebRTCSessionDescription>>("local-description");
            let local = local.ok_or("webrtcbin has no description of its own")?;
            let text = local.sdp().as_text().map_err(|e| e.to_string())?;
            if text.contains("a=candidate:") {
                return Ok(text);
            }
            if complete || begun.elapsed() > STEP {
                return Err("this machine has no address that its media could come to".to_owned());
            }
        }
    }

    /// Takes the answer; what follows comes by itself.
    pub(super) fn accept(&self, answer: &[u8]) -> Result<(), String> {
        let answer = read(answer)?;
        judge(&answer)?;
        self.describe("set-remote-description", &WebRTCSessionDescription::new(WebRTCSDPType::Answer, answer))
    }

    fn describe(&self, how: &str, description: &WebRTCSessionDescription) -> Result<(), String> {
        let (tell, done) = mpsc::channel();
        let promise = gst::Promise::with_change_func(move |reply| {
            // An error comes as a field of the reply (webrtcbin since 1.22).
            let error = reply.ok().flatten().and_then(|s| s.get::<gst::glib::Error>("error").ok());
            let _ = tell.send(error);
        });
        self.webrtc.emit_by_name::<()>(how, &[description, &promise]);
        match done.recv_timeout(STEP) {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(format!("its answer cannot be used: {}", error.message())),
            Err(_) => Err("webrtcbin does not take the description".to_owned()),
        }
    }

    /// Asks the sender for a keyframe (PLI).
    pub(super) fn request_keyframe(pipeline: &gst::Pipeline) -> bool {
        let sink = common::named::<AppSink>(pipeline, OUT).ok();
        let Some(pad) = sink.and_then(|sink| sink.static_pad("sink")) else { return false };
        pad.push_event(UpstreamForceKeyUnitEvent::builder().all_headers(true).build())
    }
}

/// The name that [`super::super::file::connect`] finds a sink by.
const OUT: &str = "out";

/// What we take, the most capable first.
fn offered() -> gst::Caps {
    let mut caps = gst::Caps::new_empty();
    let all = caps.make_mut();
    let codec = |name: &str, payload: i32| {
        let rtp = gst::Structure::builder("application/x-rtp").field("media", "video").field("clock-rate", RATE as i32);
        let rtp = rtp.field("encoding-name", name).field("payload", payload);
        rtp.field("rtcp-fb-nack", true).field("rtcp-fb-nack-pli", true).field("rtcp-fb-ccm-fir", true)
    };
    for (payload, profile) in (96..).zip(PROFILES) {
        let h264 = codec("H264", payload).field("packetization-mode", "1").field("level-asymmetry-allowed", "1");
        all.append_structure(h264.field("profile-level-id", profile).build());
    }
    all.append_structure(codec("H265", 96 + PROFILES.len() as i32).build());
    caps
}

/// An answer's text. What is beyond ASCII in it is nothing that is looked at here, and the bindings panic at what is no UTF-8.
pub(super) fn read(answer: &[u8]) -> Result<SDPMessage, String> {
    let text: Vec<u8> = answer.iter().map(|byte| if byte.is_ascii() { *byte } else { b'?' }).collect();
    SDPMessage::parse_buffer(&text).map_err(|_| "its answer is no session description".to_owned())
}

/// Whether an answer has what is recorded.
pub(super) fn judge(answer: &SDPMessageRef) -> Result<(), String> {
    let video = answer.medias().find(|media| media.media() == Some("video"));
    let video = video.ok_or_else(|| "its answer has no video".to_owned())?;
    let codecs = codecs(video);
    let sends = video.port() != 0 && !["inactive", "recvonly"].iter().any(|d| video.attribute_val(d).is_some());
    let taken = codecs.iter().any(|c| ["H264", "H265"].contains(&c.as_str()));
    match (sends, taken) {
        (true, true) => Ok(()),
        (true, false) => Err(format!("it offers {}; accepted are H.264 and H.265", codecs.join(", "))),
        (false, _) => Err("it sends no video to an offer of H.264 and H.265".to_owned()),
    }
}

fn codecs(media: &SDPMediaRef) -> Vec<String> {
    let maps = media.attributes().filter(|a| a.key() == "rtpmap").filter_map(|a| a.value());
    // "96 H264/90000"
    let names = maps.filter_map(|v| v.split_once(' ')?.1.split('/').next());
    names.map(|name| name.chars().filter(char::is_ascii_graphic).take(16).collect::<String>().to_uppercase()).collect()
}

/// Gives the first video stream its way out.
fn receive(pipeline: &gst::Pipeline, webrtc: &gst::Element, outlet: &Arc<Outlet>) {
    let (parent, outlet) = (pipeline.downgrade(), Arc::clone(outlet));
    let seen = AtomicBool::new(false);
    webrtc.connect_pad_added(move |_, pad| {
        let Some(pipeline) = parent.upgrade().filter(|_| pad.direction() == gst::PadDirection::Src) else { return };
        let caps = pad.current_caps().or_else(|| pad.allowed_caps()).unwrap_or_else(|| pad.query_caps(None));
        let name = caps.structure(0).and_then(|s| s.get::<String>("encoding-name").ok()).unwrap_or_default();
        let Some(text) = branch(&name).filter(|_| !seen.swap(true, Ordering::SeqCst)) else {
            log::debug!("{}: a stream of {name} is left out", outlet.what);
            return;
        };
        keep_times(pad);
        match super::super::file::connect(&pipeline, pad, &text) {
            Ok(sink) => deliver(&sink, &outlet),
            Err(why) => outlet.end(outlet.unsupported(why)),
        }
    });
}

/// Puts the sender's own times in place of what the jitter buffer made of them and of the arrivals: the timeline maps them.
fn keep_times(pad: &gst::Pad) {
    let clock = Mutex::new(RtpClock::default());
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let mut stamp = [0; 4];
        // The timestamp stands behind the first four bytes of a packet (RFC 3550 section 5.1).
        if let Some(packet) = info.buffer_mut()
            && packet.copy_to_slice(4, &mut stamp).is_ok()
        {
            let time = clock.lock().unwrap_or_else(PoisonError::into_inner).nanoseconds(u32::from_be_bytes(stamp));
            packet.make_mut().set_pts(gst::ClockTime::from_nseconds(time));
        }
        gst::PadProbeReturn::Ok
    });
}

/// RTP timestamps of 90 kHz without their wrapping every 13 hours.
#[derive(Default)]
struct RtpClock(Option<(u32, i64)>);

impl RtpClock {
    /// The time of a stamp that lies at most half a round from the one before, in ns; the first is an hour, since pictures
    /// that are shown earlier may follow.
    fn nanoseconds(&mut self, stamp: u32) -> u64 {
        let ticks =
            self.0.map_or(3600 * RATE, |(last, ticks)| ticks + i64::from(stamp.wrapping_sub(last).cast_signed()));
        self.0 = Some((stamp, ticks));
        u64::try_from(ticks.saturating_mul(1_000_000_000 / 10_000) / (RATE / 10_000)).unwrap_or(0)
    }
}

fn branch(name: &str) -> Option<String> {
    let parser = match name {
        "H264" => {
            format!("rtph264depay name=depay ! h264parse config-interval=0 ! {}", samples::H264)
        }
        "H265" => format!("rtph265depay name=depay ! h265parse config-interval=0 ! {}", samples::H265),
        _ => return None,
    };
    Some(format!("{parser} ! {}", live::sink(OUT)))
}

fn deliver(sink: &AppSink, outlet: &Arc<Outlet>) {
    let damaged = Arc::new(AtomicBool::new(false));
    let depay = sink.parent().and_then(|bin| bin.downcast::<gst::Bin>().ok()).and_then(|bin| bin.by_name("depay"));
    if let Some(pad) = depay.and_then(|depay| depay.static_pad("sink")) {
        let damaged = Arc::clone(&damaged);
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |pad, info| {
            let lost = |event: &gst::EventRef| event.structure().is_some_and(|s| s.name() == "GstRTPPacketLost");
            if info.event().is_some_and(|event| lost(event)) && !damaged.swap(true, Ordering::SeqCst) {
                // Only the first of a burst: the next picture tells whether that helped.
                pad.push_event(UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
            }
            gst::PadProbeReturn::Ok
        });
    }
    if let Some(pad) = sink.static_pad("sink") {
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(buffer) = info.buffer_mut()
                && damaged.swap(false, Ordering::SeqCst)
            {
                buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
            }
            gst::PadProbeReturn::Ok
        });
    }
    let timeline = Mutex::new(Timeline::new());
    live::deliver(sink, Arc::clone(outlet), Samples::new(true), move |media, arrival| {
        timeline.lock().unwrap_or_else(PoisonError::into_inner).place(0, media, arrival)
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rtp_times_go_on_over_a_wrap_and_back_for_reordered_pictures() {
        let mut clock = RtpClock::default();
        let first = clock.nanoseconds(u32::MAX - 3599);
        assert_eq!(first, 3600 * 1_000_000_000);
        assert_eq!(clock.nanoseconds(0) - first, 40_000_000);
        assert_eq!(clock.nanoseconds(7200) - first, 120_000_000);
        assert_eq!(clock.nanoseconds(3600) - first, 80_000_000);
        assert_eq!(first - clock.nanoseconds(u32::MAX - 3599 - 3600), 40_000_000);
    }

    #[test]
    fn an_answer_must_send_what_is_recorded() {
        gst::init().unwrap();
        let head = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";
        let judged = |media: &str| {
            let text = format!("{head}{media}");
            judge(&SDPMessage::parse_buffer(text.as_bytes()).unwrap())
        };
        let line = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=sendonly\r\n";
        assert_eq!(judged(&format!("{line}a=rtpmap:96 H265/90000\r\n")), Ok(()));
        let other = judged(&format!("{line}a=rtpmap:96 VP8/90000\r\na=rtpmap:97 \u{7}AV1/90000\r\n")).unwrap_err();
        assert_eq!(other, "it offers VP8, AV1; accepted are H.264 and H.265");
        let rejected = "m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 H264/90000\r\n";
        let inactive = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=inactive\r\na=rtpmap:96 H264/90000\r\n";
        for none in [rejected, inactive] {
            assert!(judged(none).unwrap_err().contains("sends no video"), "{none}");
        }
        assert_eq!(judged(""), Err("its answer has no video".into()));
    }
}

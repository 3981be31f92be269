//! Our end of a WebRTC session: `webrtcbin` that receives one video stream and hands out its access units.
//!
//! Promises that only H.264 and H.265 are offered, that nobody else than who is named by the answer can send ([`certificate`]), and
//! that no step takes longer than the time that is given for all of them. Pictures take the way of [`Stream`].
//!
//! Facts: GStreamer's `webrtcbin` 1.22; RFC 6184 and RFC 7798 (parameters of payloads), RFC 8834 (feedback).

use std::sync::{Arc, mpsc};
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

use super::super::outlet::Outlet;
use super::certificate;
use super::ice::IceServer;
use super::stream::{OUT, Stream};
use crate::gst as common;

/// How long a missing packet is waited for, in ms; it is asked for again meanwhile. What comes in order is passed on at once.
const ORDERING: u32 = 1000;
/// How long our own addresses are gathered; a server for ICE that does not answer must not hold the offer up.
const GATHERING: Duration = Duration::from_secs(3);
/// Ticks of the RTP clock of video in a second (RFC 6184, RFC 7798).
const RATE: i32 = 90_000;
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
/// H.265 profiles as they are offered, at the highest level: Main 10 and Main. Without parameters Main up to level 3.1 would be
/// meant (RFC 7798 section 7.1); that is offered too, for servers that compare parameters as text.
const H265_PROFILES: [Option<&str>; 3] = [Some("2"), Some("1"), None];

/// Most codecs of an answer that are told.
const CODECS_TOLD: usize = 8;

/// Our end.
pub(super) struct Peer {
    pub(super) pipeline: gst::Pipeline,
    webrtc: gst::Element,
    stream: Arc<Stream>,
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
        // It takes one server for STUN and several for TURN.
        let stun = ice.iter().find_map(|server| if let IceServer::Stun(url) = server { Some(url) } else { None });
        if let Some(url) = stun {
            webrtc.set_property("stun-server", url);
        }
        for server in ice.iter().take(ICE_SERVERS) {
            if let IceServer::Turn(url) = server {
                webrtc.emit_by_name::<bool>("add-turn-server", &[url]);
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
        let stream = Stream::await_one(&pipeline, &webrtc, outlet);
        Ok(Self { pipeline, webrtc, stream, gathered })
    }

    /// The offer with our addresses, until `deadline`. The pipeline must run.
    pub(super) fn offer(&self, deadline: Instant) -> Result<String, String> {
        let (tell, made) = mpsc::channel();
        let promise = gst::Promise::with_change_func(move |reply| {
            let offer = reply.ok().flatten().and_then(|s| s.get::<WebRTCSessionDescription>("offer").ok());
            let _ = tell.send(offer);
        });
        self.webrtc.emit_by_name::<()>("create-offer", &[&None::<gst::Structure>, &promise]);
        let offer = made.recv_timeout(left(deadline)).ok().flatten().ok_or("webrtcbin makes no offer")?;
        self.describe("set-local-description", &offer, deadline)?;
        loop {
            let complete = self.gathered.recv_timeout(GATHERING.min(left(deadline))).is_ok();
            let local = self.webrtc.property::<Option<WebRTCSessionDescription>>("local-description");
            let local = local.ok_or("webrtcbin has no description of its own")?;
            let text = local.sdp().as_text().map_err(|e| e.to_string())?;
            if text.contains("a=candidate:") {
                return Ok(text);
            }
            if complete || left(deadline).is_zero() {
                return Err("this machine has no address that its media could come to".to_owned());
            }
        }
    }

    /// Takes the answer; what follows comes by itself.
    pub(super) fn accept(&self, answer: &[u8], deadline: Instant) -> Result<(), String> {
        let answer = read(answer)?;
        judge(&answer)?;
        self.stream.believe(certificate::named(&answer)?);
        let answer = WebRTCSessionDescription::new(WebRTCSDPType::Answer, answer);
        self.describe("set-remote-description", &answer, deadline)
    }

    fn describe(&self, how: &str, description: &WebRTCSessionDescription, deadline: Instant) -> Result<(), String> {
        let (tell, done) = mpsc::channel();
        let promise = gst::Promise::with_change_func(move |reply| {
            // An error comes as a field of the reply (webrtcbin since 1.22).
            let error = reply.ok().flatten().and_then(|s| s.get::<gst::glib::Error>("error").ok());
            let _ = tell.send(error);
        });
        self.webrtc.emit_by_name::<()>(how, &[description, &promise]);
        match done.recv_timeout(left(deadline)) {
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

/// What is left of the time for all steps.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// What we take, the most capable first.
fn offered() -> gst::Caps {
    let mut caps = gst::Caps::new_empty();
    let all = caps.make_mut();
    let codec = |name: &str, payload: i32| {
        let rtp = gst::Structure::builder("application/x-rtp").field("media", "video").field("clock-rate", RATE);
        let rtp = rtp.field("encoding-name", name).field("payload", payload);
        rtp.field("rtcp-fb-nack", true).field("rtcp-fb-nack-pli", true).field("rtcp-fb-ccm-fir", true)
    };
    for (payload, profile) in (96..).zip(PROFILES) {
        let h264 = codec("H264", payload).field("packetization-mode", "1").field("level-asymmetry-allowed", "1");
        all.append_structure(h264.field("profile-level-id", profile).build());
    }
    for (payload, profile) in (96 + PROFILES.len() as i32..).zip(H265_PROFILES) {
        let h265 = codec("H265", payload);
        let level = profile.map(|_| "186");
        all.append_structure(h265.field_if_some("profile-id", profile).field_if_some("level-id", level).build());
    }
    caps
}

/// An answer's text. What is beyond ASCII in it is nothing that is looked at here, and the bindings panic at what is no UTF-8.
pub(super) fn read(answer: &[u8]) -> Result<SDPMessage, String> {
    let none = || "its answer is no session description".to_owned();
    // The bindings lose the memory of a description that nothing could be read from.
    if answer.is_empty() {
        return Err(none());
    }
    let text: Vec<u8> = answer.iter().map(|byte| if byte.is_ascii() { *byte } else { b'?' }).collect();
    SDPMessage::parse_buffer(&text).map_err(|_| none())
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
        (true, false) => Err(format!(
            "it offers {}; accepted are H.264 and H.265",
            codecs[..codecs.len().min(CODECS_TOLD)].join(", ")
        )),
        (false, _) => Err("it sends no video to an offer of H.264 and H.265".to_owned()),
    }
}

fn codecs(media: &SDPMediaRef) -> Vec<String> {
    let maps = media.attributes().filter(|a| a.key() == "rtpmap").filter_map(|a| a.value());
    // "96 H264/90000"
    let names = maps.filter_map(|v| v.split_once(' ')?.1.split('/').next());
    names.map(|name| name.chars().filter(char::is_ascii_graphic).take(16).collect::<String>().to_uppercase()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
        let many = "a=rtpmap:96 ABCDEFGHIJKLMNOP/90000\r\n".repeat(9000);
        assert!(judged(&format!("{line}{many}")).unwrap_err().len() < 300);
        assert_eq!(judged(""), Err("its answer has no video".into()));
    }
}

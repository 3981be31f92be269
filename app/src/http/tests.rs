//! The API over real sockets, with a real archive in a temporary folder. Only the clock is simulated.
#![allow(clippy::unwrap_used)]

mod doors;
mod hostile;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mos_hal::clock::{BootId, Clock, Mono, SimClock, UtcMicros};
use mos_hal::media::{AccessUnit, FrameKind, LensId, TrackFormat, VideoCodec, VideoFormat};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::serve::{self, ServeError};
use super::*;
use crate::access::{LocalUsers, Role, Token, TokenHash};
use crate::archive::ArchiveOptions;
use crate::archive::disk::RealDisk;
use crate::capture::{Degradation, DegradationPlan, DropMode};
use crate::cli::client::{Address, Client, ClientError};
use crate::error::Kind;
use crate::power::{Levels, Power, PowerPlan};
use crate::record::RecorderOptions;
use crate::retention;
use crate::upload::queue::Settings;

const TOKEN: &str = "0123456789abcdef";
/// 2026-11-20T10:00:00Z.
const BEGIN: i64 = 1_795_168_800_000_000;
const FPS: i64 = 25;

/// A lens `road` that was recorded for some seconds in segments of two: all closed but the last.
pub(crate) struct Rig {
    folder: tempfile::TempDir,
    services: Arc<Services>,
}

impl Rig {
    pub(crate) fn recorded(seconds: i64) -> Self {
        Self::with_protection(seconds, u64::MAX)
    }

    /// Recorded with a quota of protection, and the alarm at a half of it.
    fn with_protection(seconds: i64, protected_max_bytes: u64) -> Self {
        Self::behind(|_| {}, seconds, protected_max_bytes)
    }

    /// Recorded behind what `left` puts into the archive's root.
    fn behind(left: impl FnOnce(&Path), seconds: i64, protected_max_bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(SimClock::new(BootId([7; 16]), UtcMicros(BEGIN)));
        let disk = Arc::new(RealDisk::open(&folder.path().join("archive")).unwrap());
        let root = disk.root().to_owned();
        left(&root);
        let as_clock: Arc<dyn Clock> = clock.clone();
        let options = ArchiveOptions { sync_threads: 0, protected_max_bytes, ..ArchiveOptions::default() };
        let archive = Archive::open(disk, as_clock.clone(), &options).unwrap();
        archive.load().unwrap();
        let options = RecorderOptions { segment_length: Duration::from_secs(2), ..RecorderOptions::default() };
        let lens = LensId::new("road").unwrap();
        let recorder = Recorder::new(archive.clone(), as_clock.clone(), &options, std::slice::from_ref(&lens));
        let intake = recorder.intake(&lens).unwrap();
        let format = format();
        for frame in 0..seconds * FPS {
            intake.push(unit(&format, frame));
            clock.advance(Duration::from_millis(40));
            if frame % 12 == 11 {
                recorder.step();
            }
        }
        // Three ticks without footage: everything durable, every close complete.
        for _ in 0..3 {
            clock.advance(Duration::from_millis(100));
            recorder.step();
        }
        let platform = mos_hal::platform::probe();
        let limits =
            retention::Limits { protected_alarm_bytes: protected_max_bytes / 2, ..retention::Limits::default() };
        let capture = CaptureControlService::new(platform.clone(), None, &as_clock, Vec::new(), DropMode::InPlace);
        let (plan, clock, levels) = (PowerPlan::default(), as_clock.clone(), Levels::default());
        let power = Power::new(plan, capture.clone(), recorder.clone(), archive.clone(), clock, levels);
        let plan = DegradationPlan::default();
        let services = Services {
            degradation: Degradation::new(plan, capture.clone(), as_clock.clone(), "/none".into()),
            capture,
            power,
            clips: Clips::new(archive.clone()),
            snapshots: Snapshots::new(archive.clone(), platform.codecs()),
            uploads: Uploads::start(&root, archive.clone(), &Settings::default()).unwrap(),
            retention: Retention::new(archive.clone(), as_clock, limits, None),
            evidence: None,
            pins: crate::pins::BoxPins::default(),
            loading: Mutex::new(Loading::Done),
            archive,
            root,
            recorder,
        };
        Self { folder, services: Arc::new(services) }
    }

    pub(crate) fn archive(&self) -> &Archive {
        &self.services.archive
    }

    pub(crate) fn root(&self) -> &Path {
        &self.services.root
    }

    /// The archive of a next start, and its root; the folder lasts as long as the process.
    pub(crate) fn again(self) -> (std::path::PathBuf, Archive) {
        let Self { folder, services } = self;
        let root = services.root.clone();
        drop(services);
        let _ = folder.keep();
        let disk = Arc::new(RealDisk::open(&root).unwrap());
        let clock = Arc::new(SimClock::new(BootId([8; 16]), UtcMicros(BEGIN + 60_000_000)));
        let archive = Archive::open(disk, clock, &ArchiveOptions::default()).unwrap();
        archive.load().unwrap();
        (root, archive)
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("api/mos.sock")
    }

    /// Serves the Unix socket while `work` goes on.
    fn served<T>(&self, work: impl AsyncFnOnce(Client) -> T) -> T {
        runtime().block_on(async {
            let endpoint = serve::bind_unix(&self.socket()).unwrap();
            let users = LocalUsers::default();
            let client = Client::new(Address::Unix(self.socket()), None);
            tokio::select! {
                () = serve::unix(&endpoint, &users, local(&self.services)) => unreachable!("serves until dropped"),
                result = work(client) => result,
            }
        })
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn door(tokens: &[Token]) -> Door {
    Door { tokens: Tokens::new(tokens.to_vec()), host_names: Vec::new(), addresses: false, tls: false }
}

fn format() -> Arc<TrackFormat> {
    Arc::new(TrackFormat::Video(VideoFormat {
        codec: VideoCodec::H264,
        width: 160,
        height: 96,
        pixel_aspect: (1, 1),
        config: Bytes::from_static(&[1, 66, 0, 10, 0xff, 0xe0, 0]),
        reorder: 0,
        frame_duration: Some(40_000_000),
        rotation: mos_hal::media::Rotation::None,
    }))
}

/// Frame `n`, one keyframe a second.
fn unit(format: &Arc<TrackFormat>, n: i64) -> AccessUnit {
    AccessUnit {
        format: format.clone(),
        kind: if n % FPS == 0 { FrameKind::Idr } else { FrameKind::Delta },
        pts: Some(Mono(n * 40_000_000)),
        duration: Some(40_000_000),
        arrival: Mono(n * 40_000_000),
        discontinuity: false,
        data: Bytes::from(vec![n as u8; 200]),
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Kind {
    match result {
        Err(ClientError::Refused(detail)) => detail.kind,
        other => panic!("not refused: {other:?}"),
    }
}

/// Sends bytes as they are; the whole answer.
async fn raw(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn segments_are_listed_in_pages_without_loss_or_repetition() {
    let rig = Rig::recorded(21);
    rig.served(async |client| {
        let whole: Value = client.get("/v1/segments?lens=road").await.unwrap();
        let first = &whole["segments"][0];
        let keys: BTreeSet<&str> = first.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "id",
            "lens",
            "start_ts",
            "end_ts",
            "bytes",
            "frames",
            "codec",
            "width",
            "height",
            "state",
            "protected",
            "path",
        ];
        assert_eq!(keys, BTreeSet::from(expected));
        assert_eq!((&first["id"], &first["start_ts"]), (&json!("road-1-0"), &json!(BEGIN)));
        assert_eq!((&first["end_ts"], &first["frames"]), (&json!(BEGIN + 2_000_000), &json!(50)));
        assert_eq!((&first["state"], &first["codec"]), (&json!("closed"), &json!("h264")));
        let path = Path::new(first["path"].as_str().unwrap());
        assert_eq!(first["bytes"].as_u64().unwrap(), std::fs::metadata(path).unwrap().len());
        assert!(whole.get("next_cursor").is_none());

        let whole: SegmentPage = client.get("/v1/segments").await.unwrap();
        assert_eq!(whole.segments.len(), 11);
        assert!(whole.segments.is_sorted_by_key(|s| s.start_ts));
        assert_eq!(whole.segments.last().unwrap().state, "open");
        for limit in [1, 2, 3, 10, 11] {
            let (mut segments, mut gaps, mut cursor) = (Vec::new(), Vec::new(), String::new());
            loop {
                let page: SegmentPage = client.get(&format!("/v1/segments?limit={limit}{cursor}")).await.unwrap();
                assert!(page.segments.len() <= limit);
                segments.extend(page.segments);
                gaps.extend(page.gaps);
                let Some(next) = page.next_cursor else { break };
                cursor = format!("&cursor={next}");
            }
            assert_eq!((segments, gaps), (whole.segments.clone(), whole.gaps.clone()), "pages of {limit}");
        }
        // The window is half-open: what ends at its start or starts at its end is outside.
        let (from, to) = (BEGIN + 2_000_000, BEGIN + 6_000_000);
        let path = format!("/v1/segments?lens=road&start_ts={from}&end_ts={to}");
        let some: SegmentPage = client.get(&path).await.unwrap();
        let ids: Vec<&str> = some.segments.iter().map(|s| s.id.as_str()).collect();
        assert_eq!(ids, ["road-1-1", "road-1-2"]);
        let none: SegmentPage = client.get("/v1/segments?lens=nobody").await.unwrap();
        assert_eq!(none, SegmentPage::default());
        for bad in
            ["limit=0", "limit=10001", "limit=x", "lens=No-Lens", "start_ts=2&end_ts=2", "cursor=x", "colour=red"]
        {
            assert_eq!(kind(client.get::<Value>(&format!("/v1/segments?{bad}")).await), Kind::BadRequest, "{bad}");
        }
    });
}

#[test]
fn an_answer_says_that_something_could_not_be_read() {
    let left = |root: &Path| {
        let folder = root.join("segments/door/4");
        std::fs::create_dir_all(&folder).unwrap();
        // A link is not followed: an error that says nothing of the segment.
        std::os::unix::fs::symlink("nowhere", folder.join("0.mp4")).unwrap();
    };
    let rig = Rig::behind(left, 5, u64::MAX);
    rig.served(async |client| {
        let page: SegmentPage = client.get("/v1/segments").await.unwrap();
        assert!(page.unreadable && !page.listing && !page.recovering, "{page:?}");
        let health: HealthView = client.get("/v1/health").await.unwrap();
        assert!(health.problems.iter().any(|problem| problem.contains("segments/door/4/0.mp4")), "{health:?}");
    });
    let whole = Rig::recorded(5).served(async |client| client.get::<Value>("/v1/segments").await.unwrap());
    assert!(whole.get("unreadable").is_none(), "{whole}");
}

#[test]
fn protection_holds_and_repeats() {
    let rig = Rig::recorded(5);
    rig.served(async |client| {
        let path = "/v1/segments/road-1-0/protection";
        let first: ProtectionView = client.put(path, &json!({ "why": "accident" })).await.unwrap();
        let uid = nix::unistd::getuid();
        assert_eq!(first.who, Some(format!("uid {uid}")));
        let again: ProtectionView = client.put(path, &json!({ "who": "another", "why": "other" })).await.unwrap();
        assert_eq!(again, first, "repeating a protection changes nothing");
        assert_eq!(kind(client.delete::<()>("/v1/segments/road-1-0").await), Kind::Protected);
        for _ in 0..2 {
            assert!(!client.delete::<ProtectionView>(path).await.unwrap().protected);
        }
        for _ in 0..2 {
            client.delete::<()>("/v1/segments/road-1-0").await.unwrap();
        }
        assert_eq!(kind(client.put::<_, Value>(path, &json!({})).await), Kind::NotFound);
        assert_eq!(kind(client.delete::<()>("/v1/segments/road-9-0").await), Kind::NotFound);
        assert_eq!(kind(client.delete::<()>("/v1/segments/road-1-2").await), Kind::Open);
        let left: SegmentPage = client.get("/v1/segments").await.unwrap();
        assert_eq!(left.segments.len(), 2);
        assert!(left.gaps.iter().any(|gap| gap.cause == "removed"), "{:?}", left.gaps);
        // Neither body nor content type is needed.
        let answer = raw(
            UnixStream::connect(rig.socket()).await.unwrap(),
            "PUT /v1/segments/road-1-1/protection HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        );
        assert!(answer.await.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn clips_are_cut_described_and_handed_out() {
    let rig = Rig::recorded(5);
    rig.served(async |client| {
        let asked = json!({ "start_offset": 0.4, "end_offset": 1.2 });
        let clip: ClipView = client.post("/v1/segments/road-1-0/clip", &asked).await.unwrap();
        let span = |start: i64, end: i64| SpanView { start_ts: BEGIN + start * 1000, end_ts: BEGIN + end * 1000 };
        assert_eq!((clip.asked, clip.shown, clip.frames), (span(400, 1200), span(400, 1200), 20));
        assert_eq!(clip.payload.start_ts, BEGIN, "whole groups of pictures are in the file");
        assert!(clip.note.is_some() && clip.gaps.is_empty());
        let known: ClipView = client.get(&format!("/v1/clips/{}", clip.id)).await.unwrap();
        assert_eq!(known, clip);
        let mut bytes = Vec::new();
        let take = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        client.download(&format!("/v1/clips/{}/file", clip.id), take).await.unwrap();
        assert!(bytes == std::fs::read(&clip.path).unwrap() && bytes.len() as u64 == clip.bytes);

        let across = json!({ "start_ts": BEGIN + 1_000_000, "end_ts": BEGIN + 3_000_000, "edges": "gop" });
        let clip: ClipView = client.post("/v1/lenses/road/clip", &across).await.unwrap();
        assert_eq!((clip.edges.as_str(), clip.frames), ("gop", 50));
        let refused = async |path: &str, body: Value| kind(client.post::<_, Value>(path, &body).await);
        assert_eq!(refused("/v1/lenses/nobody/clip", across).await, Kind::NotFound);
        let long_ago = json!({ "start_ts": 1, "end_ts": 2 });
        assert_eq!(refused("/v1/lenses/road/clip", long_ago).await, Kind::NoFootage);
        for body in [json!({}), json!({ "start_offset": 1.0, "end_offset": 0.5 }), json!([])] {
            assert_eq!(refused("/v1/segments/road-1-0/clip", body.clone()).await, Kind::BadRequest, "{body}");
        }
        for path in ["/v1/clips/clip-9-9", "/v1/clips/clip-9-9/file", "/v1/clips/..%2Frun", "/v1/snapshots/x/file"] {
            assert_eq!(kind(client.get::<Value>(path).await), Kind::NotFound, "{path}");
        }
    });
}

#[test]
fn the_quota_of_protection_is_an_alarm_an_event_a_metric_and_a_refusal() {
    let one = Rig::recorded(7).services.archive.catalog().counts().stored;
    let rig = Rig::with_protection(7, one.allocated / one.segments * 5 / 4);
    rig.served(async |client| {
        let retention = &rig.services.retention;
        let mut events = UnixStream::connect(rig.socket()).await.unwrap();
        events.write_all(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut heard = String::new();
        let mut hear = async |what: &str| {
            let mut part = [0; 4096];
            while !heard.contains(what) {
                let n = events.read(&mut part).await.unwrap();
                assert!(n > 0, "{heard}");
                heard.push_str(std::str::from_utf8(&part[..n]).unwrap());
            }
        };
        hear("text/event-stream").await;
        let protect = |id: &str| format!("/v1/segments/{id}/protection");
        let _: Value = client.put(&protect("road-1-0"), &json!({})).await.unwrap();
        retention.step(&BTreeSet::new);
        hear("\"kind\":\"protected_alarm\",\"raised\":true").await;
        hear("\"kind\":\"protected_quota\",\"raised\":true").await;
        let refused = client.put::<_, Value>(&protect("road-1-1"), &json!({})).await;
        assert_eq!(kind(refused), Kind::ProtectedQuota);
        let stream = UnixStream::connect(rig.socket()).await.unwrap();
        let request = "PUT /v1/segments/road-1-1/protection HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let answer = raw(stream, request).await;
        assert!(answer.starts_with("HTTP/1.1 507") && answer.contains("protected_quota"), "{answer}");
        let _: Value = client.put(&protect("road-1-0"), &json!({})).await.unwrap();
        let health: HealthView = client.get("/v1/health").await.unwrap();
        assert_eq!(
            (health.status.as_str(), health.alarms.len(), health.storage.protected_segments),
            ("degraded", 2, 1)
        );
        let metrics = client.text("/v1/metrics").await.unwrap();
        let bytes = format!("mos_protected_bytes {}", health.storage.protected_bytes);
        for line in ["mos_alarm{kind=\"protected_quota\"} 1", "mos_protected_segments 1", &bytes] {
            assert!(metrics.contains(line), "{line} is not in {metrics}");
        }
        let _: Value = client.delete(&protect("road-1-0")).await.unwrap();
        retention.step(&BTreeSet::new);
        hear("\"kind\":\"protected_quota\",\"raised\":false").await;
        let health: HealthView = client.get("/v1/health").await.unwrap();
        assert_eq!(health.alarms, []);
    });
}

#[test]
fn what_is_no_request_is_refused_in_the_form_of_the_api() {
    let rig = Rig::recorded(3);
    rig.served(async |client| {
        assert_eq!(kind(client.get::<Value>("/v1/nothing").await), Kind::NotFound);
        assert_eq!(kind(client.put::<_, Value>("/v1/segments", &json!({})).await), Kind::MethodNotAllowed);
        assert_eq!(kind(client.get::<Value>("/v1/uploads/none").await), Kind::NotFound);
        let large = json!({ "start_offset": 0.0, "end_offset": 1.0, "x": "x".repeat(MAX_BODY) });
        assert_eq!(kind(client.post::<_, Value>("/v1/segments/road-1-0/clip", &large).await), Kind::TooLarge);
        let upload = json!({ "paths": ["run"], "destination_uri": "sftp://a@b/c/", "options": {} });
        assert_eq!(kind(client.post::<_, Value>("/v1/uploads", &upload).await), Kind::BadRequest);
        let stream = UnixStream::connect(rig.socket()).await.unwrap();
        let long = format!("GET /v1/health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(64 << 10));
        assert!(raw(stream, &long).await.starts_with("HTTP/1.1 431"));
        let metrics = client.text("/v1/metrics").await.unwrap();
        for line in ["# TYPE mos_sync_seconds histogram", "mos_lens_stored_units_total{lens=\"road\"} 75", "# EOF"] {
            assert!(metrics.contains(line), "{line} is not in {metrics}");
        }
        let health: HealthView = client.get("/v1/health").await.unwrap();
        assert_eq!((health.run, health.storage.segments), (1, 1));
    });
}

#[test]
fn a_socket_is_private_and_taken_from_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mos.sock");
    runtime().block_on(async {
        let first = serve::bind_unix(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(serve::bind_unix(&path), Err(ServeError::InUse(_))));
        drop(first);
        assert!(!path.exists());
        // A stale one: bound, and nobody listens any more.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(serve::bind_unix(&path).unwrap());
        std::fs::write(&path, "somebody's file").unwrap();
        assert!(matches!(serve::bind_unix(&path), Err(ServeError::NoSocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody's file");
    });
}

#[test]
fn r1_every_operation_asks_for_its_role_over_real_sockets() {
    let rig = Rig::recorded(3);
    let secret = |role: Role| format!("{role}-0123456789");
    let all = [Role::Viewer, Role::Operator, Role::Admin];
    let tokens = all.map(|role| Token { name: role.name().into(), role, hash: TokenHash::of(&secret(role)) });
    runtime().block_on(async {
        let listener = serve::bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // The head and as much of the body as comes with it: streams of events do not end.
        let ask = async |method: &str, path: &str, token: &str| {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{token}content-length: 0\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let (mut answer, mut some) = (Vec::new(), [0; 4096]);
            while !String::from_utf8_lossy(&answer).contains("\r\n\r\n") || answer.starts_with(b"HTTP/1.1 4") {
                match stream.read(&mut some).await.unwrap() {
                    0 => break,
                    n => answer.extend(&some[..n]),
                }
            }
            String::from_utf8(answer).unwrap()
        };
        let work = async {
            for (least, name, method, path) in roles::OPERATIONS {
                let path = path.replace("{id}", "road-9-9").replace("{lens}", "nobody");
                let nobody = ask(method.as_str(), &path, "").await;
                assert!(
                    nobody.starts_with("HTTP/1.1 401") && nobody.contains("Authorization: Bearer"),
                    "{name}: {nobody}"
                );
                for role in all {
                    let token = format!("authorization: Bearer {}\r\n", secret(role));
                    let answer = ask(method.as_str(), &path, &token).await;
                    let refused = answer.starts_with("HTTP/1.1 403");
                    assert_eq!(refused, role < *least, "{name} as {role}: {answer}");
                    let told = answer.contains(&format!("\"needed_role\":\"{least}\"")) && answer.contains(*name);
                    assert!(!refused || told, "{name} as {role}: {answer}");
                    assert!(!answer.starts_with("HTTP/1.1 401"), "{name} as {role}: {answer}");
                }
            }
        };
        tokio::select! {
            () = serve::tcp(&listener, None, remote(&rig.services, door(&tokens))) => unreachable!("serves until dropped"),
            () = work => {}
        }
    });
}

#[test]
fn tcp_asks_for_the_token_and_this_machine() {
    let rig = Rig::recorded(3);
    runtime().block_on(async {
        let listener = serve::bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let token = Token { name: "depot".into(), role: Role::Admin, hash: TokenHash::of(TOKEN) };
        let client = |token: Option<&str>| Client::new(Address::Tcp(address.clone()), token.map(str::to_owned));
        let work = async {
            assert_eq!(kind(client(None).get::<Value>("/v1/segments").await), Kind::Unauthorized);
            assert_eq!(kind(client(Some("wrong")).get::<Value>("/v1/nothing").await), Kind::Unauthorized);
            let page: SegmentPage = client(Some(TOKEN)).get("/v1/segments").await.unwrap();
            assert_eq!(page.segments.len(), 2);
            let rebound = format!(
                "GET /v1/segments HTTP/1.1\r\nhost: evil.example\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"
            );
            let answer = raw(TcpStream::connect(&address).await.unwrap(), &rebound).await;
            assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("forbidden"), "{answer}");
        };
        tokio::select! {
            () = serve::tcp(&listener, None, remote(&rig.services, door(&[token]))) => unreachable!("serves until dropped"),
            () = work => {}
        }
    });
}

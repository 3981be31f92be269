//! Profiles, channels, addresses, and what is streamed in confidence.
#![allow(clippy::unwrap_used)]

use super::*;

fn profile(token: &str, name: &str, encoding: Encoding, size: (u32, u32)) -> Profile {
    let channel = Channel::default();
    Profile { token: token.into(), name: name.into(), encoding: Some(encoding), size, fps: 25.0, channel }
}

#[test]
fn the_largest_recordable_profile_is_taken_unless_one_is_named() {
    let profiles = [
        profile("p0", "Foto", Encoding::Other("jpeg".into()), (3840, 2160)),
        profile("p1", "Main", Encoding::H265, (1920, 1080)),
        profile("p2", "Sub", Encoding::H264, (640, 360)),
        profile("p3", "p2", Encoding::H264, (1920, 1080)),
    ];
    let token = |asked| choose(&profiles, asked).map(|p| p.token.as_str());
    assert_eq!(token(""), Ok("p1"));
    assert_eq!((token("p2"), token("Main")), (Ok("p2"), Ok("p1")), "a token goes before a name");
    assert!(token("Foto").unwrap_err().to_string().contains("neither"));
    assert!(token("x").unwrap_err().to_string().contains("p2 (h264 640x360)"));
    assert!(choose(&profiles[..1], "").is_err());
}

#[test]
fn profiles_of_both_services_are_read() {
    let old = "<r xmlns:t='u'><t:Profiles token='a'><t:Name>M</t:Name><t:VideoSourceConfiguration token='v1'>\
        <t:SourceToken>s1</t:SourceToken></t:VideoSourceConfiguration><t:VideoEncoderConfiguration><t:Encoding>H264</t:Encoding>\
        <t:Resolution><t:Width>1280</t:Width><t:Height>720</t:Height></t:Resolution><t:RateControl><t:FrameRateLimit>15</t:FrameRateLimit>\
        </t:RateControl></t:VideoEncoderConfiguration></t:Profiles></r>";
    let new = "<r><Profiles token='a'><Name>M</Name><Configurations><VideoSource token='v1'>\
        <SourceToken>s1</SourceToken></VideoSource><VideoEncoder><Encoding>H264</Encoding><Resolution>\
        <Width>1280</Width><Height>720</Height></Resolution><RateControl><FrameRateLimit>15.0</FrameRateLimit></RateControl>\
        </VideoEncoder></Configurations></Profiles></r>";
    let read = |text: &str| {
        let document = soap::read("x", text).unwrap();
        Profile::read(child(document.root_element(), "Profiles").unwrap()).unwrap()
    };
    assert_eq!(read(old), read(new));
    assert_eq!((read(old).size, read(old).fps), ((1280, 720), 15.0));
    let channel = read(old).channel;
    assert_eq!((channel.configuration.as_deref(), channel.source.as_deref()), (Some("v1"), Some("s1")));
}

#[test]
fn events_of_another_channel_are_known_by_their_source() {
    let channel = |configuration: &str, source: &str| Channel {
        configuration: Some(configuration.into()),
        source: Some(source.into()),
    };
    let (own, others) = (channel("v1", "s1"), [channel("v2", "s2"), channel("s1", "3")]);
    let foreign = |item, value| own.is_foreign(&others, item, value);
    assert!(foreign("VideoSourceConfigurationToken", "v2") && foreign("Source", "s2"));
    assert!(foreign("VideoSourceConfigurationToken", "s2"), "some name the other token");
    assert!(foreign("VideoSourceConfigurationToken", "s1"), "and some use a word twice");
    for (item, value) in [
        ("VideoSourceConfigurationToken", "v1"),
        ("VideoSourceToken", "s1"),
        ("VideoSource", "v1"),
        ("VideoSourceToken", "whatever"),
        ("InputToken", "v2"),
        ("Rule", "s2"),
    ] {
        assert!(!foreign(item, value), "{item} {value}");
    }
    assert!(!Channel::default().is_foreign(&[], "VideoSourceToken", "s2"));
}

#[test]
fn a_cameras_hosts_are_not_believed() {
    let url = Url::parse("onvif://192.0.2.7:8000/x").unwrap();
    let (login, offset) = (Login::default(), ClockOffset::default());
    let device = entry(&url).unwrap();
    let trust = Trust::default();
    let camera = Camera {
        device,
        media: None,
        media2: None,
        events: None,
        trust,
        credentials: None,
        login,
        offset,
        address: None,
    };
    let uri = camera.own("x", Some("rtsp://a:b@10.0.0.1:8554/s?c=1"), &["rtsp"]).unwrap();
    assert_eq!(uri.as_str(), "rtsp://192.0.2.7:8554/s?c=1");
    assert_eq!(camera.reached("http://10.0.0.1:81/m?x").unwrap().port, 8000);
    let same = camera.reached("http://192.0.2.7:81/m?x").unwrap();
    assert_eq!((same.port, &*same.path), (81, "/m?x"));
    assert!(camera.own("x", Some("http://h/"), &["rtsp"]).is_err() && camera.own("x", None, &["rtsp"]).is_err());
    assert_eq!(entry(&Url::parse("onvif://[::1]/").unwrap()).unwrap().host, "::1");
    let secure = Camera { device: entry(&Url::parse("onvifs://192.0.2.7/").unwrap()).unwrap(), ..camera };
    let media = secure.reached("http://192.0.2.7:80/m").unwrap();
    assert_eq!((media.port, media.secure), (443, true), "who is asked over TLS is not asked in clear");
    assert_eq!(secure.reached("https://192.0.2.7:8443/m").unwrap().port, 8443);
    let mut named = Camera { device: entry(&Url::parse("onvif://camera.example/").unwrap()).unwrap(), ..secure };
    assert_eq!(named.reached("http://192.0.2.7:81/m").unwrap().port, 80);
    named.address = Some("192.0.2.7".parse().unwrap());
    let service = named.reached("http://192.0.2.7:81/m").unwrap();
    assert_eq!((service.port, &*service.host), (81, "camera.example"), "its name led to that address");
    assert_eq!(named.reached("http://192.0.2.8:81/m").unwrap().port, 80);
}

/// Answers as a camera over TLS whose answer to one question is `answer`, which may be nothing at all.
async fn stream_of(answer: Option<&'static str>) -> (Result<Url, OnvifError>, usize) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = String::new();
            let mut room = [0; 4096];
            while !request.contains("Envelope>") {
                let read = stream.read(&mut room).await.unwrap();
                request.push_str(&String::from_utf8_lossy(&room[..read]));
            }
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let body = if request.contains("RtspsUnicast") {
                answer
            } else {
                Some("<R><Uri>rtsp://192.0.2.1/in-clear</Uri></R>")
            };
            if let Some(body) = body {
                let body = soap::envelope("", body);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
        }
    });
    // It is asked as one over TLS, which is another test's matter.
    let mut device = entry(&Url::parse(&format!("onvif://{at}/")).unwrap()).unwrap();
    let media2 = Some(device.clone());
    device.secure = true;
    let mut camera = Camera {
        device,
        media: None,
        media2,
        events: None,
        trust: Trust::default(),
        credentials: None,
        login: Login::default(),
        offset: ClockOffset::default(),
        address: None,
    };
    let uri = camera.stream_uri("main").await;
    serving.abort();
    (uri, asked.load(std::sync::atomic::Ordering::SeqCst))
}

#[tokio::test]
async fn n5_a_broken_question_for_the_stream_over_tls_is_no_answer() {
    let (uri, asked) = stream_of(None).await;
    assert!(matches!(uri, Err(OnvifError::BrokeOff(_))) && asked == 1, "{uri:?} after {asked} questions");
    let (uri, asked) = stream_of(Some("<R><Uri>rtsps://192.0.2.1:322/s</Uri></R>")).await;
    assert_eq!((uri.unwrap().as_str(), asked), ("rtsps://127.0.0.1:322/s", 1));
    let fault = "<Fault><Code><Value>Sender</Value></Code></Fault>";
    let (uri, asked) = stream_of(Some(fault)).await;
    assert_eq!((uri.unwrap().scheme(), asked), ("rtsp", 2));
}

#[test]
fn a_uuid_instead_of_a_host_is_looked_for() {
    let of = |text: &str| endpoint_reference(&Url::parse(text).unwrap());
    let uuid = "2419d68a-2dd2-21b2-a205-4c3e5a1b0c7d";
    assert_eq!(of(&format!("onvif://{uuid}/main")).as_deref(), Some(uuid));
    assert_eq!(of("onvif://2419d68a-2dd2-21b2-a205-4c3e5a1b0c7x/"), None);
    assert_eq!(of("onvif://camera.local/"), None);
}

#[test]
fn n5_a_camera_over_tls_is_recorded_over_tls_unless_that_is_permitted() {
    let url = |text: &str| Url::parse(text).unwrap();
    let (asked, clear) = (url("onvifs://h/"), url("rtsp://h/s"));
    let refused = in_confidence(&asked, &clear, &Trust::default()).unwrap_err();
    assert!(matches!(&refused, OnvifError::Refused(why) if why.contains("plain_stream")), "{refused}");
    let permitting = Trust { plain_stream: true, ..Trust::default() };
    for (asked, stream, trust) in [
        (&asked, &url("rtsps://h/s"), &Trust::default()),
        (&asked, &clear, &permitting),
        (&url("onvif://h/"), &clear, &Trust::default()),
    ] {
        assert_eq!(in_confidence(asked, stream, trust), Ok(()));
    }
}

/// Answers one search: the camera is at two ports, of which only the second is open.
#[tokio::test]
async fn a_camera_that_is_found_at_several_addresses_is_asked_where_it_answers() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let named = [closed.port(), open.local_addr().unwrap().port()];
    let responder = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let group = responder.local_addr().unwrap();
    let uuid = "2419d68a-2dd2-21b2-a205-4c3e5a1b0c7d";
    let answering = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        let (n, from) = responder.recv_from(&mut buffer).await.unwrap();
        let text = String::from_utf8(buffer[..n].to_vec()).unwrap();
        let document = soap::read("Probe", &text).unwrap();
        let id = soap::text(document.root_element(), &["Header", "MessageID"]).unwrap();
        for port in named {
            let found = format!(
                "<E><Header><RelatesTo>{id}</RelatesTo></Header><Body><M><ProbeMatch><EndpointReference><Address>urn:uuid:{uuid}</Address>\
                 </EndpointReference><XAddrs>http://192.0.2.1:{port}/d</XAddrs></ProbeMatch></M></Body></E>"
            );
            responder.send_to(found.as_bytes(), from).await.unwrap();
        }
    });
    let serving = tokio::spawn(async move {
        let (mut stream, _) = open.accept().await.unwrap();
        let mut room = [0; 4096];
        let _ = stream.read(&mut room).await.unwrap();
        let body = soap::envelope("", "<R/>");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
    });
    let search = discovery::Search::in_group(group, uuid, false);
    let camera = Camera::found(search, None, &Trust::default()).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((camera.device.port, &*camera.device.host), (named[1], "127.0.0.1"));
    answering.await.unwrap();
    serving.await.unwrap();
}

/// With no fault of SOAP at all, and to who has a login and who has none.
#[tokio::test]
async fn who_is_forbidden_is_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for (credentials, words) in [
        (None, "it wants a user name and password for GetDeviceInformation"),
        (
            Some(Credentials { user: "u".into(), password: "p".into() }),
            "it does not permit GetDeviceInformation to this user",
        ),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("onvif://{}/", listener.local_addr().unwrap())).unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut room = [0; 4096];
            let _ = stream.read(&mut room).await.unwrap();
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nforbidden").await.unwrap();
        });
        let mut camera = Camera::unmet(&url, credentials.as_ref(), &Trust::default()).unwrap();
        assert_eq!(camera.information().await, Err(OnvifError::Refused(words.into())));
        serving.await.unwrap();
    }
}

//! Strangers at the TCP listener: certificates that do not hold, downgrades, crowds and clients that say nothing. Certificates
//! are made by OpenSSL, whose client also tries what ours does not offer.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;
use crate::http::tls::{TlsError, acceptor};

/// Files of an authority and of the certificates that it signed.
struct Authority(tempfile::TempDir);

impl Authority {
    fn new() -> Self {
        let it = Self(tempfile::tempdir().unwrap());
        it.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 9");
        it
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let done = command.args(arguments.split(' ')).current_dir(self.0.path()).stdin(Stdio::null()).output();
        let done = done.expect("openssl is installed");
        assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A certificate for `name` that ends in so many days, and its key.
    fn sign(&self, file: &str, name: &str, days: i32) -> (PathBuf, PathBuf) {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {file}.key -out {file}.csr -subj /CN=box -addext \
             subjectAltName={name}"
        ));
        self.openssl(&format!(
            "x509 -req -in {file}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -copy_extensions copy -out {file}.pem"
        ));
        (self.file(&format!("{file}.pem")), self.file(&format!("{file}.key")))
    }
}

fn tokens() -> [Token; 1] {
    [Token { name: "depot".into(), role: Role::Viewer, hash: TokenHash::of(TOKEN) }]
}

/// Serves `api` with a certificate while `work` goes on.
async fn with_tls<T>(rig: &Rig, files: (PathBuf, PathBuf), work: impl AsyncFnOnce(u16) -> T) -> T {
    let listener = serve::bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = acceptor(&files.0, &files.1).unwrap();
    let door = Door { tls: true, ..door(&tokens()) };
    tokio::select! {
        () = serve::tcp(&listener, Some(&tls), remote(&rig.services, door)) => unreachable!("serves until dropped"),
        result = work(port) => result,
    }
}

fn trusting(port: u16, authority: &Authority) -> Client {
    let address = Address::from_url(&format!("https://localhost:{port}")).unwrap();
    Client::new(address, Some(TOKEN.to_owned())).trusting(&authority.file("ca.pem")).unwrap()
}

#[test]
fn a_client_tells_its_token_only_to_who_it_asked_for() {
    let (rig, ours, others) = (Rig::recorded(3), Authority::new(), Authority::new());
    let good = ours.sign("good", "DNS:localhost,IP:127.0.0.1", 9);
    runtime().block_on(async {
        with_tls(&rig, good.clone(), async |port| {
            let page: SegmentPage = trusting(port, &ours).get("/v1/segments").await.unwrap();
            assert_eq!(page.segments.len(), 2);
            let by_address = Address::from_url(&format!("https://127.0.0.1:{port}")).unwrap();
            let client =
                Client::new(by_address.clone(), Some(TOKEN.to_owned())).trusting(&ours.file("ca.pem")).unwrap();
            let _: SegmentPage = client.get("/v1/segments").await.unwrap();
            let nobody = Client::new(by_address, None).get::<Value>("/v1/segments").await.unwrap_err();
            assert!(nobody.to_string().contains("--ca FILE"), "{nobody}");
            let wrong = trusting(port, &others).get::<Value>("/v1/segments").await.unwrap_err();
            assert!(wrong.to_string().contains("nothing was sent"), "{wrong}");
        })
        .await;
        for (file, name, days, told) in
            [("expired", "DNS:localhost", -1, "Expired"), ("named", "DNS:bus-8.fleet.example", 9, "not valid for name")]
        {
            with_tls(&rig, ours.sign(file, name, days), async |port| {
                let refused = trusting(port, &ours).get::<Value>("/v1/segments").await;
                assert!(matches!(&refused, Err(ClientError::Untrusted { .. })), "{file}: {refused:?}");
                let refused = refused.unwrap_err().to_string();
                assert!(refused.contains(told) && !refused.contains(TOKEN), "{file}: {refused}");
            })
            .await;
        }
    });
    let foreign = others.sign("foreign", "DNS:localhost", 9);
    assert!(matches!(acceptor(&good.0, &foreign.1), Err(TlsError::Unusable { .. })));
    assert!(matches!(acceptor(&good.1, &good.1), Err(TlsError::File { wanted: "certificate", .. })));
    assert!(matches!(acceptor(&good.0, &good.0), Err(TlsError::File { wanted: "private key", .. })));
}

#[test]
fn nothing_is_talked_down() {
    let (rig, ours) = (Rig::recorded(1), Authority::new());
    let good = ours.sign("good", "DNS:localhost", 9);
    runtime().block_on(with_tls(&rig, good, async |port| {
        let shake = async |version: &'static str| {
            let done = move || {
                let mut command = Command::new("openssl");
                command.args(["s_client", version, "-connect", &format!("127.0.0.1:{port}")]);
                command.stdin(Stdio::null()).output().unwrap().status.success()
            };
            tokio::task::spawn_blocking(done).await.unwrap()
        };
        assert!(shake("-tls1_3").await);
        assert!(!shake("-tls1_2").await);
        let plain = format!("GET /v1/health HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
        let answer = raw(TcpStream::connect(("127.0.0.1", port)).await.unwrap(), &plain).await;
        assert!(!answer.contains("HTTP/1.1"), "{answer}");
        // And a client that was told https does not send anything in plain text.
        let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = mute.local_addr().unwrap().port();
        let heard = async {
            let (mut stream, _) = mute.accept().await.unwrap();
            let mut some = [0; 4096];
            let n = stream.read(&mut some).await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
            some[..n].to_vec()
        };
        let client = trusting(port, &ours);
        let (heard, refused) = tokio::join!(heard, client.get::<Value>("/v1/health"));
        assert!(matches!(refused, Err(ClientError::Untrusted { .. })), "{refused:?}");
        assert!(!heard.windows(TOKEN.len()).any(|w| w == TOKEN.as_bytes()) && !heard.starts_with(b"GET"));
    }));
}

/// As many descriptors as the system lets this process have.
fn many_descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a limit that lives as long as they take, and change nothing else.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    limit.rlim_cur
}

#[test]
fn a_thousand_connections_that_say_nothing_keep_nobody_out() {
    assert!(many_descriptors() > 2200, "too few descriptors for this test");
    let rig = Rig::recorded(3);
    runtime().block_on(async {
        let listener = serve::bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let work = async {
            let client = Client::new(Address::Tcp(address.clone()), Some(TOKEN.to_owned()));
            // One that has shown its token keeps its place through all of it.
            let mut events = client.events("/v1/events").await.unwrap();
            let mut mute = Vec::new();
            for n in 0..1000 {
                let mut stream = TcpStream::connect(&address).await.unwrap();
                if n % 2 == 0 {
                    let _ = stream.write_all(b"GET /v1/health HTTP/1.1\r\nx: ").await;
                }
                mute.push(stream);
            }
            for _ in 0..20 {
                let page: SegmentPage = client.get("/v1/segments").await.unwrap();
                assert_eq!(page.segments.len(), 2);
            }
            // The first of them has been sent away, without waiting for any time to pass.
            let mut some = [0; 16];
            assert!(matches!(mute[0].read(&mut some).await, Ok(0) | Err(_)));
            let still = tokio::time::timeout(Duration::from_millis(10), events.next::<Value>()).await;
            assert!(!matches!(still, Ok(Ok(None) | Err(_))), "{still:?}");
        };
        tokio::select! {
            () = serve::tcp(&listener, None, remote(&rig.services, door(&tokens()))) => unreachable!("serves until dropped"),
            () = work => {}
        }
    });
}

#[test]
fn connections_of_this_machine_that_say_nothing_keep_nobody_out() {
    let rig = Rig::recorded(1);
    rig.served(async |client| {
        let mut mute = Vec::new();
        for n in 0..300 {
            let mut stream = UnixStream::connect(rig.socket()).await.unwrap();
            if n % 2 == 0 {
                let _ = stream.write_all(b"GET /v1/health HTTP/1.1\r\nx: ").await;
            }
            mute.push(stream);
        }
        let mut events = client.events("/v1/events").await.unwrap();
        for _ in 0..100 {
            mute.push(UnixStream::connect(rig.socket()).await.unwrap());
            let _: Value = client.get("/v1/evidence").await.unwrap();
        }
        let mut some = [0; 16];
        assert!(matches!(mute[0].read(&mut some).await, Ok(0) | Err(_)));
        // What is being served goes on.
        let still = tokio::time::timeout(Duration::from_millis(10), events.next::<Value>()).await;
        assert!(!matches!(still, Ok(Ok(None) | Err(_))), "{still:?}");
    });
}

#[test]
fn who_takes_too_long_to_say_anything_is_sent_away() {
    let rig = Rig::recorded(1);
    runtime().block_on(async {
        let (endpoint, users) = (serve::bind_unix(&rig.socket()).unwrap(), LocalUsers::default());
        let work = async {
            let mut slow = UnixStream::connect(rig.socket()).await.unwrap();
            let mut begun = UnixStream::connect(rig.socket()).await.unwrap();
            begun.write_all(b"POST /v1/uploads HTTP/1.1\r\nhost: x\r\nx: ").await.unwrap();
            // Each byte comes in time, the header never: what counts is the whole.
            let mut drip = tokio::time::interval(Duration::from_secs(1));
            let mut some = [0; 1024];
            let dripped = async {
                loop {
                    drip.tick().await;
                    if begun.write_all(b"x").await.is_err() || matches!(begun.try_read(&mut some), Ok(0)) {
                        return;
                    }
                }
            };
            let mut nothing = [0; 16];
            let _ = tokio::join!(slow.read(&mut nothing), dripped);
        };
        tokio::select! {
            () = serve::unix(&endpoint, &users, local(&rig.services)) => unreachable!("serves until dropped"),
            () = work => {}
            () = tokio::time::sleep(Duration::from_mins(2)) => panic!("they are still connected after two minutes"),
        }
    });
}

#[test]
fn a_token_that_is_taken_out_is_refused_and_its_streams_end_at_once() {
    const ROLES: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];
    let secret = |role: Role| format!("the-token-of-{role}");
    let rig = Rig::recorded(5);
    let held = |roles: &[Role]| -> Vec<Token> {
        let token = |role: &Role| Token { name: role.name().into(), role: *role, hash: TokenHash::of(&secret(*role)) };
        roles.iter().map(token).collect()
    };
    for gone in ROLES {
        runtime().block_on(async {
            let listener = serve::bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let door = door(&held(&ROLES));
            let tokens = door.tokens.clone();
            let client = |role| Client::new(Address::Tcp(address.clone()), Some(secret(role)));
            let work = async {
                let mut streams = Vec::new();
                for role in ROLES {
                    streams.push((role, client(role).events("/v1/events").await.unwrap()));
                }
                // A connection that is kept, in the middle of its life.
                let mut kept = TcpStream::connect(&address).await.unwrap();
                let ask = format!(
                    "GET /v1/uploads HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n",
                    secret(gone)
                );
                kept.write_all(format!("{ask}\r\n").as_bytes()).await.unwrap();
                let mut some = [0; 4096];
                let n = kept.read(&mut some).await.unwrap();
                assert!(some[..n].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&some[..n]));
                let rest: Vec<Role> = ROLES.into_iter().filter(|role| *role != gone).collect();
                tokens.set(held(&rest));
                assert_eq!(kind(client(gone).get::<Value>("/v1/segments").await), Kind::Unauthorized);
                let refused = raw(kept, &format!("{ask}connection: close\r\n\r\n")).await;
                assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
                for (role, mut stream) in streams {
                    let ended = loop {
                        let next = tokio::time::timeout(
                            Duration::from_millis(if role == gone { 60_000 } else { 10 }),
                            stream.next::<Value>(),
                        );
                        match next.await {
                            Ok(Ok(Some(_))) => {}
                            Ok(Ok(None)) => panic!("{role}: the stream ended as if it were complete"),
                            Ok(Err(_)) => break true,
                            Err(_) => break false,
                        }
                    };
                    assert_eq!(ended, role == gone, "{role}, {gone} is gone");
                }
                for role in rest {
                    let _: SegmentPage = client(role).get("/v1/segments").await.unwrap();
                }
                // Back again, with less than it had.
                tokens.set(vec![Token { role: Role::Viewer, ..held(&[gone]).remove(0) }]);
                let page: SegmentPage = client(gone).get("/v1/segments").await.unwrap();
                let path = format!("/v1/segments/{}/protection", page.segments[0].id);
                assert_eq!(kind(client(gone).put::<_, Value>(&path, &json!({})).await), Kind::Forbidden);
            };
            tokio::select! {
                () = serve::tcp(&listener, None, remote(&rig.services, door)) => unreachable!("serves until dropped"),
                () = work => {}
            }
        });
    }
}

#[test]
fn a_request_that_waits_for_its_body_does_not_outlive_its_token() {
    let rig = Rig::recorded(5);
    let token = |role| Token { name: "depot".into(), role, hash: TokenHash::of(TOKEN) };
    for then in [Vec::new(), vec![token(Role::Viewer)]] {
        runtime().block_on(async {
            let listener = serve::bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let door = door(&[token(Role::Operator)]);
            let tokens = door.tokens.clone();
            let work = async {
                let client = Client::new(Address::Tcp(address.clone()), Some(TOKEN.to_owned()));
                let page: SegmentPage = client.get("/v1/segments").await.unwrap();
                let id = page.segments[0].id.clone();
                let mut stream = TcpStream::connect(&address).await.unwrap();
                let ask = format!(
                    "PUT /v1/segments/{id}/protection HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
                     content-type: application/json\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\
                     connection: close\r\n\r\n"
                );
                stream.write_all(ask.as_bytes()).await.unwrap();
                // Said when the operation begins to wait for its body.
                let mut some = [0; 64];
                let n = stream.read(&mut some).await.unwrap();
                assert!(some[..n].starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&some[..n]));
                stream.write_all(b"{").await.unwrap();
                tokens.set(then.clone());
                let answer = raw(stream, "}").await;
                assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
                assert!(rig.archive().protection(&id.parse().unwrap()).unwrap().is_none(), "{then:?}");
            };
            tokio::select! {
                () = serve::tcp(&listener, None, remote(&rig.services, door)) => unreachable!("serves until dropped"),
                () = work => {}
            }
        });
    }
}

#[test]
fn streams_of_one_token_keep_no_other_out() {
    let rig = Rig::recorded(3);
    let token = |role: Role, secret: &str| Token { name: role.name().into(), role, hash: TokenHash::of(secret) };
    let tokens = [token(Role::Viewer, "the token of many"), token(Role::Admin, TOKEN)];
    runtime().block_on(async {
        let listener = serve::bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let work = async {
            let client = |secret: &str| Client::new(Address::Tcp(address.clone()), Some(secret.to_owned()));
            let mut admins = client(TOKEN).events("/v1/events").await.unwrap();
            let mut streams = Vec::new();
            for _ in 0..200 {
                streams.push(client("the token of many").events("/v1/events").await.unwrap());
            }
            for _ in 0..20 {
                let page: SegmentPage = client(TOKEN).get("/v1/segments").await.unwrap();
                assert_eq!(page.segments.len(), 2);
            }
            let first = streams[0].next::<Value>().await;
            assert!(matches!(first, Ok(None) | Err(_)), "the oldest one has made way: {first:?}");
            let still = tokio::time::timeout(Duration::from_millis(10), admins.next::<Value>()).await;
            assert!(!matches!(still, Ok(Ok(None) | Err(_))), "{still:?}");
        };
        tokio::select! {
            () = serve::tcp(&listener, None, remote(&rig.services, door(&tokens))) => unreachable!("serves until dropped"),
            () = work => {}
        }
    });
}

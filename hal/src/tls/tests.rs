//! Connections to a server of the same library, with a certificate made by the `openssl` program.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{HandshakeKind, ServerConfig};

use super::*;

/// A certificate that speaks for 127.0.0.1 and is its own authority: `certificate.pem` and `key.pem` in a folder.
fn made() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let words =
        "[req]\ndistinguished_name=name\n[name]\n[camera]\nsubjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
    std::fs::write(folder.path().join("words"), words).unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=camera"])
        .args([
            "-config",
            "words",
            "-extensions",
            "camera",
            "-keyout",
            "key.pem",
            "-out",
            "certificate.pem",
            "-days",
            "2",
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder
}

/// A server on loopback that greets whoever connects, and its certificate's fingerprint.
async fn server(made: &TempDir) -> (u16, Trust) {
    let certificate = CertificateDer::from_pem_file(made.path().join("certificate.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(made.path().join("key.pem")).unwrap();
    let fingerprint = Fingerprint(digest(&SHA256, &certificate).as_ref().try_into().unwrap());
    let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Who is not believed ends the handshake.
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.write_all(b"!").await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    (port, Trust { fingerprint: Some(fingerprint), ..Trust::default() })
}

async fn greeted(port: u16, trust: &Trust) -> Option<HandshakeKind> {
    let mut stream = connect("127.0.0.1", port, trust).await.unwrap();
    let mut greeting = [0];
    stream.read_exact(&mut greeting).await.unwrap();
    stream.get_ref().1.handshake_kind()
}

#[tokio::test]
async fn y5_a_camera_that_was_judged_is_known_again() {
    let (port, trust) = server(&made()).await;
    assert_eq!(greeted(port, &trust).await, Some(HandshakeKind::Full));
    assert_eq!(greeted(port, &trust).await, Some(HandshakeKind::Resumed));
    // Another trust is another judgement, and sessions of the first do not count for it.
    let other = Trust { fingerprint: Some(Fingerprint([7; 32])), ..Trust::default() };
    let refused = connect("127.0.0.1", port, &other).await.unwrap_err();
    assert!(matches!(&refused, TlsError::Refused(why) if why.contains("tls_fingerprint")), "{refused}");
    assert_eq!(greeted(port, &trust).await, Some(HandshakeKind::Resumed));
}

#[tokio::test]
async fn y5_other_authorities_are_read_after_a_refusal() {
    let (camera, other) = (made(), made());
    let (port, _) = server(&camera).await;
    let file = camera.path().join("ca.pem");
    let trust = Trust { ca: Some(file.clone()), ..Trust::default() };
    let refused = connect("127.0.0.1", port, &trust).await.unwrap_err();
    assert!(matches!(&refused, TlsError::Refused(why) if why.contains("cannot be read")), "{refused}");
    std::fs::write(&file, "nothing").unwrap();
    let refused = connect("127.0.0.1", port, &trust).await.unwrap_err();
    assert!(matches!(&refused, TlsError::Refused(why) if why.contains("holds no certificate")), "{refused}");
    std::fs::copy(other.path().join("certificate.pem"), &file).unwrap();
    let refused = connect("127.0.0.1", port, &trust).await.unwrap_err();
    assert!(matches!(&refused, TlsError::Refused(why) if why.contains("own authority")), "{refused}");
    std::fs::copy(camera.path().join("certificate.pem"), &file).unwrap();
    assert_eq!(greeted(port, &trust).await, Some(HandshakeKind::Full));
}

#[tokio::test]
async fn y5_a_camera_is_judged_anew_after_a_while() {
    let trust = Trust { fingerprint: Some(Fingerprint([9; 32])), ..Trust::default() };
    let begun = Instant::now();
    let way = async |after: Duration| known_way(&trust, "camera.invalid", 1, begun + after).await.unwrap();
    let first = way(Duration::ZERO).await;
    assert!(Arc::ptr_eq(&first, &way(JUDGED_ANEW / 2).await));
    assert!(!Arc::ptr_eq(&first, &way(JUDGED_ANEW).await), "its sessions count for ever");
}

#[tokio::test]
async fn y4_what_breaks_off_is_no_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // What was said is read, so that it ends in order and without an answer.
            let _ = stream.read(&mut [0; 4096]).await;
        }
    });
    let trust = Trust { fingerprint: Some(Fingerprint([7; 32])), ..Trust::default() };
    let broken = connect("127.0.0.1", port, &trust).await.unwrap_err();
    assert!(matches!(&broken, TlsError::Broken(why) if why.contains("before it was encrypted")), "{broken}");
}

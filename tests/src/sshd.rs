//! A throw-away OpenSSH server on loopback with keys of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cli::tool;
use crate::wait_for;

/// A running `sshd` that offers SFTP; it dies when dropped.
#[derive(Debug)]
pub struct Sshd {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Sshd {
    /// Starts a server that knows one client key.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("internal-sftp")
    }

    /// Starts one whose subsystem `sftp` is this command.
    #[must_use]
    pub fn start_with(subsystem: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("mos-sshd-").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        for name in ["host_key", "client_key", "other_key"] {
            tool(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", &at(name)]));
        }
        fs::copy(at("client_key.pub"), at("authorized_keys")).unwrap();
        fs::create_dir(at("upload")).unwrap();
        let port = crate::free_port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nLogLevel VERBOSE\n\
             MaxStartups 1000\nSubsystem sftp {subsystem}\n",
            at("host_key"),
            at("authorized_keys")
        );
        fs::write(at("sshd_config"), config).unwrap();
        // sshd wants its empty folder even for a user who cannot use it.
        if nix::unistd::Uid::effective().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
            fs::set_permissions("/run/sshd", fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-f", &at("sshd_config"), "-E", &at("log")]);
        let child = command.stdin(Stdio::null()).spawn().expect("openssh-server is installed (make test-deps)");
        let server = Self { child, port, folder };
        wait_for("sshd", Duration::from_mins(2), || server.log().contains("Server listening").then_some(()));
        server
    }

    /// Where uploads arrive, on the server's side.
    #[must_use]
    pub fn upload(&self) -> PathBuf {
        self.folder.path().join("upload")
    }

    /// The URI of that folder for the user who runs the test.
    #[must_use]
    pub fn uri(&self) -> String {
        self.uri_by(self.port, &self.upload())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The URI of a folder for somebody who reaches it by another port.
    #[must_use]
    pub fn uri_by(&self, port: u16, folder: &Path) -> String {
        let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap().name;
        format!("sftp://{user}@127.0.0.1:{port}{}/", folder.display())
    }

    /// The fingerprint of the server's host key: `SHA256:…`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.folder.path().join("host_key.pub"))
    }

    /// The fingerprint of a key that the server does not have.
    #[must_use]
    pub fn wrong_fingerprint(&self) -> String {
        fingerprint(&self.folder.path().join("other_key.pub"))
    }

    /// The private key that the server lets in.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.folder.path().join("client_key")
    }

    /// A private key that the server does not know.
    #[must_use]
    pub fn stranger(&self) -> PathBuf {
        self.folder.path().join("other_key")
    }

    /// What the server logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fingerprint(public_key: &Path) -> String {
    let line = tool(Command::new("ssh-keygen").args(["-l", "-E", "sha256", "-f"]).arg(public_key));
    let line = String::from_utf8(line).unwrap();
    line.split(' ').nth(1).expect("ssh-keygen prints size, fingerprint, comment").to_owned()
}

//! What the upload tests stand on: a real archive in a temporary folder, an upload service, and real `sshd` processes.

use std::fs;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mos_hal::clock::SystemClock;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey};
use tempfile::TempDir;

use crate::archive::disk::RealDisk;
use crate::archive::{Archive, ArchiveOptions};
use crate::upload::destination::Endpoint;
use crate::upload::job::{Job, JobId, JobState};
use crate::upload::queue::{Limits, Settings, UploadOptions, UploadRequest, Uploads};

/// What the log was told of jobs that were called off, of all tests; the ids in it tell them apart.
pub(super) fn logged() -> Arc<Mutex<Vec<String>>> {
    struct Logger(Arc<Mutex<Vec<String>>>);
    impl log::Log for Logger {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            let line = record.args().to_string();
            if line.contains("was called off") {
                self.0.lock().unwrap().push(line);
            }
        }
        fn flush(&self) {}
    }
    static LINES: OnceLock<Arc<Mutex<Vec<String>>>> = OnceLock::new();
    let begin = || {
        let lines = Arc::default();
        log::set_boxed_logger(Box::new(Logger(Arc::clone(&lines)))).unwrap();
        log::set_max_level(log::LevelFilter::Info);
        lines
    };
    LINES.get_or_init(begin).clone()
}

/// The line of the log on a job that was called off, once it is there.
pub(super) fn line_on(id: &JobId) -> String {
    let (lines, until) = (logged(), Instant::now() + Duration::from_mins(2));
    loop {
        if let Some(line) = lines.lock().unwrap().iter().find(|line| line.contains(&id.0)) {
            return line.clone();
        }
        assert!(Instant::now() < until, "the log says nothing of {id}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An archive and its upload service.
pub(super) struct Rig {
    pub(super) uploads: Uploads,
    pub(super) archive: Archive,
    pub(super) root: PathBuf,
    /// Where servers put what they get.
    pub(super) inbox: PathBuf,
    dir: TempDir,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(super) fn with_limits(limits: Limits) -> Self {
        Self::with(&Settings { limits, ..Settings::default() })
    }

    pub(super) fn with(settings: &Settings) -> Self {
        let dir = TempDir::with_prefix("mos-upload-").unwrap();
        let (root, inbox) = (dir.path().join("archive"), dir.path().join("inbox"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&inbox).unwrap();
        Self::on(dir, root, inbox, settings)
    }

    fn on(dir: TempDir, root: PathBuf, inbox: PathBuf, settings: &Settings) -> Self {
        // A child that another test has just forked holds a copy of the lock until it is another program.
        let disk = loop {
            match RealDisk::open(&root) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
                opened => break Arc::new(opened.unwrap()),
            }
        };
        let clock = Arc::new(SystemClock::new().unwrap());
        let archive = Archive::open(disk, clock, &ArchiveOptions::default()).unwrap();
        let uploads = Uploads::start(&root, archive.clone(), settings).unwrap();
        Self { uploads, archive, root, inbox, dir }
    }

    pub(super) fn scratch(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    /// A file in `clips/` with contents that no shift or swap leaves alike; its path for a request.
    pub(super) fn clip(&self, name: &str, bytes: usize) -> (String, Vec<u8>) {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ bytes as u64;
        let mut contents = Vec::with_capacity(bytes + 8);
        while contents.len() < bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            contents.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
        }
        contents.truncate(bytes);
        let path = format!("clips/{name}");
        fs::write(self.root.join(&path), &contents).unwrap();
        (path, contents)
    }

    /// The next life of the daemon: everything that is only in memory is gone.
    pub(super) fn restart(self) -> Self {
        self.restart_with(&Settings::default())
    }

    /// The same with another configuration.
    pub(super) fn restart_with(self, settings: &Settings) -> Self {
        let Self { uploads, archive, root, inbox, dir } = self;
        drop((uploads, archive));
        Self::on(dir, root, inbox, settings)
    }

    /// The only job of a call, when it has ended, or when a fault of the road holds it up.
    pub(super) fn halt_of(&self, request: &UploadRequest) -> Job {
        let submitted = self.uploads.submit(request).unwrap();
        self.wait(&submitted.uploads[0].id, |job| job.state.is_end() || matches!(job.state, JobState::Failed { .. }))
    }

    /// The only job of a call, when it has ended.
    pub(super) fn end_of(&self, request: &UploadRequest) -> Job {
        let submitted = self.uploads.submit(request).unwrap();
        assert_eq!(submitted.uploads.len(), 1);
        self.wait(&submitted.uploads[0].id, |job| job.state.is_end())
    }

    /// Follows a job until it is as wanted.
    pub(super) fn wait(&self, id: &JobId, wanted: impl FnMut(&Job) -> bool) -> Job {
        let mut watch = self.uploads.watch(id).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async move { watch.wait_for(wanted).await.unwrap().clone() })
    }
}

/// A request for one path.
pub(super) fn request(path: &str, uri: &str, pin: &str, identity: &str) -> UploadRequest {
    let options = UploadOptions {
        host_key: Some(pin.to_owned()),
        identity: Some(identity.to_owned().into()),
        ..UploadOptions::default()
    };
    UploadRequest { paths: vec![path.to_owned()], destination_uri: uri.to_owned(), options }
}

/// Names in a directory.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// OpenSSH's server: one `sshd -i` process for each connection to a socket of ours, so that no port can be lost to others
/// and each process is known.
pub(super) struct Sshd {
    address: SocketAddr,
    user: String,
    identity: String,
    ed25519: PrivateKey,
    ecdsa: PrivateKey,
    log: PathBuf,
    children: Arc<Mutex<Vec<Child>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sshd {
    /// A server with its files in `dir`; `sftp_options` as sftp-server(8) has them.
    pub(super) fn start(dir: &Path, sftp_options: &str) -> Self {
        let key = |algorithm| PrivateKey::random(&mut russh::keys::key::safe_rng(), algorithm).unwrap();
        let ecdsa = key(Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 });
        let (ed25519, client) = (key(Algorithm::Ed25519), key(Algorithm::Ed25519));
        ed25519.write_openssh_file(dir.join("host_ed25519"), LineEnding::LF).unwrap();
        ecdsa.write_openssh_file(dir.join("host_ecdsa"), LineEnding::LF).unwrap();
        client.public_key().write_openssh_file(dir.join("authorized")).unwrap();
        let shown = dir.display();
        let config = format!(
            "HostKey {shown}/host_ed25519\nHostKey {shown}/host_ecdsa\nAuthorizedKeysFile {shown}/authorized\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nPidFile none\nLogLevel VERBOSE\n\
             Subsystem sftp internal-sftp {sftp_options}\n"
        );
        fs::write(dir.join("config"), config).unwrap();
        if nix::unistd::geteuid().is_root() {
            // The packaged service makes this at boot; sshd asks for it (privilege separation directory).
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let children = Arc::new(Mutex::new(Vec::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let log = dir.join("log");
        let thread = {
            let (children, stopping, dir, log) = (children.clone(), stopping.clone(), dir.to_owned(), log.clone());
            std::thread::spawn(move || serve(&listener, &dir, &log, &children, &stopping))
        };
        let identity = client.to_openssh(LineEnding::LF).unwrap().to_string();
        Self { address, user, identity, ed25519, ecdsa, log, children, stopping, thread: Some(thread) }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint { host: self.address.ip().to_string(), port: self.address.port(), user: self.user.clone() }
    }

    pub(super) fn uri(&self, path: &Path) -> String {
        format!("sftp://{}@{}{}", self.user, self.address, path.display())
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    pub(super) fn pin(&self) -> String {
        self.ed25519.fingerprint(HashAlg::Sha256).to_string()
    }

    pub(super) fn ecdsa_pin(&self) -> String {
        self.ecdsa.fingerprint(HashAlg::Sha256).to_string()
    }

    pub(super) fn known_hosts_line(&self) -> String {
        let key = self.ed25519.public_key().to_openssh().unwrap();
        format!("[127.0.0.1]:{} {key}", self.address.port())
    }

    /// What the processes wrote.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills every connection's process without warning.
    pub(super) fn kill(&self) {
        for child in self.children.lock().unwrap().iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.children.lock().unwrap().len()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Ok(wake) = TcpStream::connect(self.address) {
            let _ = wake.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.kill();
    }
}

fn serve(listener: &TcpListener, dir: &Path, log: &Path, children: &Mutex<Vec<Child>>, stopping: &AtomicBool) {
    for socket in listener.incoming() {
        let socket = socket.unwrap();
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        let (input, output) = (OwnedFd::from(socket.try_clone().unwrap()), OwnedFd::from(socket));
        let errors = fs::File::options().append(true).create(true).open(log).unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-i", "-e", "-f"])
            .arg(dir.join("config"))
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output))
            .stderr(errors)
            .spawn()
            .expect("OpenSSH's server is needed at /usr/sbin/sshd (Debian: openssh-server)");
        children.lock().unwrap().push(child);
    }
}

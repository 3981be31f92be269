//! A throw-away SFTP server on the loopback, with a fresh host key and one account with a fresh key.
//!
//! It serves one directory, speaks as much of SFTP version 3 as an upload needs, and counts what it is asked, so that tests can
//! prove what was *not* sent to it. Firmware leaves it out (cargo feature `demo`).

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId};
use russh_sftp::protocol::{Attrs, Data, FileAttributes, Handle, OpenFlags, Packet, Status, StatusCode, Version};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// The account's name.
pub const USER: &str = "demo";

/// What the server saw. Counters only rise.
#[derive(Debug, Default)]
pub struct Seen {
    /// TCP connections.
    pub connections: AtomicU64,
    /// Login messages of any kind, a mere offer of a key and the question which methods there are included.
    pub logins: AtomicU64,
    /// Files that were renamed into place.
    pub renames: AtomicU64,
    /// Bytes of files that came.
    pub written: AtomicU64,
    /// Connections that the server broke off on purpose.
    pub hang_ups: AtomicU64,
    /// Files that were removed.
    removals: Mutex<u64>,
    removed: Condvar,
}

impl Seen {
    /// Waits until `count` files were removed; whether they were within `limit`.
    #[must_use]
    pub fn await_removals(&self, count: u64, limit: Duration) -> bool {
        let removals = self.removals.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.removed.wait_timeout_while(removals, limit, |removals| *removals < count);
        *waited.unwrap_or_else(PoisonError::into_inner).0 >= count
    }
}

/// A way in which the server misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "the demo's server is well-behaved; tests make others"))]
pub(crate) enum Fault {
    /// None.
    None,
    /// It says that files are one byte longer than they are.
    LiesAboutSize,
    /// It refuses to rename.
    RefusesRename,
    /// It removes nothing, and hangs up once when half of this many bytes was written.
    RefusesRemove(u64),
    /// It refuses to write beyond this many bytes, as a full disk does, and reports that nothing is free.
    FullAfter(u64),
    /// It closes the connection at the first write beyond this many bytes.
    HangsUpAfter(u64),
    /// The same, but only once.
    HangsUpOnceAfter(u64),
    /// It closes the connection when a key is offered.
    HangsUpAtLogin,
    /// It renames, and closes the connection before it says so, once.
    HangsUpAtRename,
    /// Well-behaved, and it tells hashes.
    TellsHashes,
    /// It writes a wrong byte, and tells the hash of what it wrote.
    CorruptsAndTells,
    /// It writes a wrong byte.
    Corrupts,
}

/// A running server; dropping it stops it.
pub struct SftpServer {
    address: SocketAddr,
    host_key: PublicKey,
    client_key: PrivateKey,
    seen: Arc<Seen>,
    stop: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl SftpServer {
    /// Serves `root` on a free port of 127.0.0.1.
    pub fn start(root: &Path) -> io::Result<Self> {
        Self::with_fault(root, Fault::None)
    }

    pub(crate) fn with_fault(root: &Path, fault: Fault) -> io::Result<Self> {
        let host_key = fresh_key()?;
        let client_key = fresh_key()?;
        let seen = Arc::new(Seen::default());
        let account = Account {
            root: root.canonicalize()?,
            key: client_key.public_key().clone(),
            seen: seen.clone(),
            fault,
            channels: HashMap::new(),
        };
        let config = Config {
            keys: vec![host_key.clone()],
            auth_rejection_time: Duration::from_millis(10),
            auth_rejection_time_initial: Some(Duration::ZERO),
            inactivity_timeout: Some(Duration::from_mins(10)),
            nodelay: true,
            ..Config::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("demo-sftp".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, Arc::new(config), account) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { address, host_key: host_key.public_key().clone(), client_key, seen, stop: Some((stop, thread)) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The destination of a file or directory below the served one: `sftp://demo@127.0.0.1:port/path`.
    #[must_use]
    pub fn uri(&self, path: &str) -> String {
        format!("sftp://{USER}@{}/{path}", self.address)
    }

    /// The host key's pin, `SHA256:…`.
    #[must_use]
    pub fn pin(&self) -> String {
        self.host_key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// The account's private key as the text of a key file.
    pub fn identity(&self) -> io::Result<String> {
        Ok(self.client_key.to_openssh(LineEnding::LF).map_err(io::Error::other)?.to_string())
    }

    /// What it saw until now.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }
}

impl Drop for SftpServer {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.stop.take() {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

/// An Ed25519 key that nobody has seen before.
pub(crate) fn fresh_key() -> io::Result<PrivateKey> {
    PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).map_err(io::Error::other)
}

async fn accept(listener: std::net::TcpListener, config: Arc<Config>, account: Account) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    while let Ok((tcp, _)) = listener.accept().await {
        account.seen.connections.fetch_add(1, Ordering::Relaxed);
        let _ = tcp.set_nodelay(true);
        let (config, account) = (config.clone(), account.share());
        tokio::spawn(async move {
            if let Ok(session) = russh::server::run_stream(config, tcp, account).await {
                let _ = session.await;
            }
        });
    }
}

/// One connection.
struct Account {
    root: PathBuf,
    key: PublicKey,
    seen: Arc<Seen>,
    fault: Fault,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Account {
    fn share(&self) -> Self {
        let (root, key, seen) = (self.root.clone(), self.key.clone(), self.seen.clone());
        Self { root, key, seen, fault: self.fault, channels: HashMap::new() }
    }

    fn judge(&self, user: &str, key: &PublicKey) -> Auth {
        self.seen.logins.fetch_add(1, Ordering::Relaxed);
        if user == USER && key.key_data() == self.key.key_data() { Auth::Accept } else { Auth::reject() }
    }
}

impl russh::server::Handler for Account {
    type Error = russh::Error;

    async fn auth_none(&mut self, _user: &str) -> Result<Auth, Self::Error> {
        self.seen.logins.fetch_add(1, Ordering::Relaxed);
        Ok(Auth::reject())
    }

    async fn auth_password(&mut self, _user: &str, _password: &str) -> Result<Auth, Self::Error> {
        self.seen.logins.fetch_add(1, Ordering::Relaxed);
        Ok(Auth::reject())
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        if self.fault == Fault::HangsUpAtLogin {
            return Err(russh::Error::Disconnect);
        }
        Ok(self.judge(user, offer.public_key))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(self.judge(user, key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        session.close(channel)
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Self::Error> {
        match self.channels.remove(&id) {
            Some(channel) if name == "sftp" => {
                session.channel_success(id)?;
                let files = Files {
                    root: self.root.clone(),
                    seen: self.seen.clone(),
                    fault: self.fault,
                    hang_up: session.handle(),
                    open: Mutex::default(),
                };
                russh_sftp::server::run(channel.into_stream(), files).await;
                Ok(())
            }
            _ => session.channel_failure(id),
        }
    }
}

/// One SFTP session.
struct Files {
    root: PathBuf,
    seen: Arc<Seen>,
    fault: Fault,
    hang_up: russh::server::Handle,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    files: HashMap<String, Arc<File>>,
}

impl Files {
    /// The file behind a path of the client's; its `/` is the served directory.
    fn at(&self, path: &str) -> Result<PathBuf, StatusCode> {
        let mut real = self.root.clone();
        for part in Path::new(path).components() {
            match part {
                Component::Normal(part) => real.push(part),
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(StatusCode::PermissionDenied),
            }
        }
        Ok(real)
    }

    fn file(&self, handle: &str) -> Result<Arc<File>, StatusCode> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.files.get(handle).cloned().ok_or(StatusCode::Failure)
    }

    fn attrs(&self, id: u32, meta: &fs::Metadata) -> Attrs {
        let lie = u64::from(self.fault == Fault::LiesAboutSize && meta.is_file());
        let attrs = FileAttributes {
            size: Some(meta.len() + lie),
            permissions: Some(meta.mode()),
            ..FileAttributes::default()
        };
        Attrs { id, attrs }
    }

    fn moved(&self, from: &str, to: &str) -> Result<(), StatusCode> {
        if self.fault == Fault::RefusesRename {
            return Err(StatusCode::Failure);
        }
        fs::rename(self.at(from)?, self.at(to)?).map_err(|e| code(&e))?;
        self.seen.renames.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn hang_up(&self) -> StatusCode {
        self.seen.hang_ups.fetch_add(1, Ordering::Relaxed);
        let by = russh::Disconnect::ByApplication;
        let _ = self.hang_up.disconnect(by, String::new(), String::new()).await;
        StatusCode::ConnectionLost
    }

    fn hung_up(&self) -> bool {
        self.seen.hang_ups.load(Ordering::Relaxed) > 0
    }

    /// draft-ietf-secsh-filexfer-extensions-00 section 3: one SHA-256 over the first `len` bytes.
    fn hash(&self, path: &str, len: u64) -> Result<Vec<u8>, StatusCode> {
        let mut contents = fs::read(self.at(path)?).map_err(|e| code(&e))?;
        contents.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        let mut data = Vec::new();
        for text in ["check-file", "sha256"] {
            data.extend_from_slice(&(text.len() as u32).to_be_bytes());
            data.extend_from_slice(text.as_bytes());
        }
        data.extend_from_slice(&Sha256::digest(&contents));
        Ok(data)
    }
}

impl russh_sftp::server::Handler for Files {
    type Error = StatusCode;

    fn unimplemented(&self) -> Self::Error {
        StatusCode::OpUnsupported
    }

    async fn init(&mut self, _version: u32, _extensions: HashMap<String, String>) -> Result<Version, Self::Error> {
        let mut version = Version::new();
        for name in ["posix-rename@openssh.com", "fsync@openssh.com"] {
            version.extensions.insert(name.to_owned(), "1".to_owned());
        }
        version.extensions.insert("statvfs@openssh.com".to_owned(), "2".to_owned());
        if matches!(self.fault, Fault::TellsHashes | Fault::CorruptsAndTells) {
            version.extensions.insert("check-file".to_owned(), "1".to_owned());
        }
        Ok(version)
    }

    async fn open(
        &mut self,
        id: u32,
        name: String,
        flags: OpenFlags,
        _attrs: FileAttributes,
    ) -> Result<Handle, Self::Error> {
        let file = OpenOptions::from(flags).open(self.at(&name)?).map_err(|e| code(&e))?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.next += 1;
        let handle = open.next.to_string();
        open.files.insert(handle.clone(), Arc::new(file));
        Ok(Handle { id, handle })
    }

    async fn close(&mut self, id: u32, handle: String) -> Result<Status, Self::Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.files.remove(&handle).map(|_| ok(id)).ok_or(StatusCode::Failure)
    }

    async fn write(&mut self, id: u32, handle: String, offset: u64, data: Vec<u8>) -> Result<Status, Self::Error> {
        let end = offset + data.len() as u64;
        let mut data = data;
        match self.fault {
            Fault::FullAfter(bytes) if end > bytes => return Err(StatusCode::Failure),
            Fault::HangsUpAfter(bytes) if end > bytes => return Err(self.hang_up().await),
            Fault::RefusesRemove(bytes) if end > bytes / 2 && !self.hung_up() => return Err(self.hang_up().await),
            Fault::HangsUpOnceAfter(bytes) if end > bytes && !self.hung_up() => return Err(self.hang_up().await),
            Fault::Corrupts | Fault::CorruptsAndTells if offset == 0 => data[0] ^= 1,
            _ => {}
        }
        self.file(&handle)?.write_all_at(&data, offset).map_err(|e| code(&e))?;
        self.seen.written.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(ok(id))
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Result<Data, Self::Error> {
        let mut data = vec![0; len.min(1 << 18) as usize];
        let read = self.file(&handle)?.read_at(&mut data, offset).map_err(|e| code(&e))?;
        data.truncate(read);
        if data.is_empty() { Err(StatusCode::Eof) } else { Ok(Data { id, data }) }
    }

    async fn stat(&mut self, id: u32, path: String) -> Result<Attrs, Self::Error> {
        let meta = fs::metadata(self.at(&path)?).map_err(|e| code(&e))?;
        Ok(self.attrs(id, &meta))
    }

    async fn lstat(&mut self, id: u32, path: String) -> Result<Attrs, Self::Error> {
        let meta = fs::symlink_metadata(self.at(&path)?).map_err(|e| code(&e))?;
        Ok(self.attrs(id, &meta))
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Result<Attrs, Self::Error> {
        let meta = self.file(&handle)?.metadata().map_err(|e| code(&e))?;
        Ok(self.attrs(id, &meta))
    }

    async fn mkdir(&mut self, id: u32, path: String, _attrs: FileAttributes) -> Result<Status, Self::Error> {
        fs::create_dir(self.at(&path)?).map_err(|e| code(&e))?;
        Ok(ok(id))
    }

    async fn remove(&mut self, id: u32, name: String) -> Result<Status, Self::Error> {
        if matches!(self.fault, Fault::RefusesRemove(_)) {
            return Err(StatusCode::PermissionDenied);
        }
        fs::remove_file(self.at(&name)?).map_err(|e| code(&e))?;
        *self.seen.removals.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.seen.removed.notify_all();
        Ok(ok(id))
    }

    async fn rename(&mut self, id: u32, from: String, to: String) -> Result<Status, Self::Error> {
        // SFTP's rename is an error if the target exists (draft-ietf-secsh-filexfer-02 section 6.5).
        if self.at(&to)?.symlink_metadata().is_ok() {
            return Err(StatusCode::Failure);
        }
        self.moved(&from, &to)?;
        if self.fault == Fault::HangsUpAtRename && !self.hung_up() {
            return Err(self.hang_up().await);
        }
        Ok(ok(id))
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Result<Packet, Self::Error> {
        match (request.as_str(), strings(&data).as_slice()) {
            ("posix-rename@openssh.com", [from, to]) => self.moved(from, to).map(|()| ok(id).into()),
            ("fsync@openssh.com", [handle]) => {
                self.file(handle)?.sync_all().map_err(|e| code(&e))?;
                Ok(ok(id).into())
            }
            ("check-file-name", [path, algorithms, ..]) if algorithms == "sha256" => {
                // After the two texts: start, length, block size.
                let len =
                    data.get(8 + path.len() + 6 + 8..).and_then(<[u8]>::first_chunk).map(|b| u64::from_be_bytes(*b));
                let data = self.hash(path, len.unwrap_or(u64::MAX))?;
                Ok(russh_sftp::protocol::ExtendedReply { id, data }.into())
            }
            ("statvfs@openssh.com", [_]) if matches!(self.fault, Fault::FullAfter(_)) => {
                // PROTOCOL of OpenSSH, section 4.4: eleven 64-bit numbers; block size 4096, nothing free.
                let figures: [u64; 11] = [4096, 4096, 1000, 0, 0, 1000, 1000, 1000, 1, 0, 255];
                let data = figures.iter().flat_map(|n| n.to_be_bytes()).collect();
                Ok(russh_sftp::protocol::ExtendedReply { id, data }.into())
            }
            _ => Err(StatusCode::OpUnsupported),
        }
    }
}

fn ok(id: u32) -> Status {
    Status { id, status_code: StatusCode::Ok, error_message: "Ok".to_owned(), language_tag: "en".to_owned() }
}

fn code(e: &io::Error) -> StatusCode {
    match e.kind() {
        io::ErrorKind::NotFound => StatusCode::NoSuchFile,
        io::ErrorKind::PermissionDenied => StatusCode::PermissionDenied,
        _ => StatusCode::Failure,
    }
}

/// SSH strings one after another (RFC 4251 section 5); stops at what is none.
fn strings(mut data: &[u8]) -> Vec<String> {
    let mut out = Vec::new();
    while let Some((len, rest)) = data.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*len) as usize;
        let Some((text, rest)) = rest.split_at_checked(len) else { break };
        out.push(String::from_utf8_lossy(text).into_owned());
        data = rest;
    }
    out
}

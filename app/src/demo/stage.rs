//! What the demo plays on: a folder of its own, a camera, a server, and the recorder's configuration. Dropping it clears all
//! of it away, unless it was to be kept.

use std::fs;
use std::path::{Path, PathBuf};

use mos_hal::demo::RtspServer;
use mos_hal::source::SourceSpec;
use tempfile::TempDir;

use super::DemoError;
use super::sftp_server::SftpServer;

/// Segments of the demo are short, so that several close within its time.
pub(super) const SEGMENT_SECONDS: u32 = 3;

/// The running stage.
pub(super) struct Stage {
    /// What the SFTP server got.
    pub(super) inbox: PathBuf,
    /// The recorder's configuration; its folder is for the owner only, for it may hold a camera's password.
    pub(super) config: PathBuf,
    /// The recorder's socket.
    pub(super) socket: PathBuf,
    /// The recorder's log.
    pub(super) log: PathBuf,
    /// Where `road` comes from, without credentials.
    pub(super) road: String,
    /// The server for uploads.
    pub(super) sftp: SftpServer,
    /// Serves `cabin`.
    _camera: RtspServer,
    _folder: Folder,
}

enum Folder {
    Cleared { _dir: TempDir },
    Kept,
}

impl Stage {
    /// Builds it; `road` is a test pattern unless an input is given. `keep` names a new or empty folder that stays.
    pub(super) fn build(input: Option<&str>, keep: Option<&Path>) -> Result<Self, DemoError> {
        let (road, shown) = source_of(input)?;
        let (dir, folder) = folder(keep)?;
        let (archive, inbox) = (dir.join("archive"), dir.join("server"));
        for path in [&archive, &inbox] {
            fs::create_dir(path).map_err(stage("make a folder"))?;
        }
        let camera = RtspServer::start().map_err(stage("serve a camera"))?;
        let sftp = SftpServer::start(&inbox).map_err(stage("serve SFTP"))?;
        let (config, socket, log) = (dir.join("mos.toml"), dir.join("mos.sock"), dir.join("mos.log"));
        fs::write(&config, text(&archive, &socket, &road, &camera.url())).map_err(stage("write the configuration"))?;
        Ok(Self { inbox, config, socket, log, road: shown, sftp, _camera: camera, _folder: folder })
    }
}

fn folder(keep: Option<&Path>) -> Result<(PathBuf, Folder), DemoError> {
    let Some(path) = keep else {
        let dir = TempDir::with_prefix("mos-demo-").map_err(stage("make a folder"))?;
        return Ok((dir.path().to_owned(), Folder::Cleared { _dir: dir }));
    };
    fs::create_dir_all(path).map_err(stage("make the folder"))?;
    let path = path.canonicalize().map_err(stage("find the folder"))?;
    if fs::read_dir(&path).map_err(stage("read the folder"))?.next().is_some() {
        return Err(stage("use the folder")("it is not empty"));
    }
    Ok((path, Folder::Kept))
}

/// The configuration's text for `road`, and how it is shown.
fn source_of(input: Option<&str>) -> Result<(String, String), DemoError> {
    let Some(input) = input else {
        return Ok(("test:".to_owned(), "synthetic scene, 1080p30, encoded here".to_owned()));
    };
    let spec = SourceSpec::for_input(input).map_err(stage("use the input"))?;
    let source = match (&spec, SourceSpec::parse(input)) {
        (_, Ok(_)) => input.to_owned(),
        (SourceSpec::File { path, .. }, Err(_)) => {
            fs::metadata(path).map_err(stage("read the input"))?;
            format!("file:{}?loop=true", path.display().to_string().replace('%', "%25").replace('?', "%3F"))
        }
        (_, Err(_)) => format!("v4l2:{input}"),
    };
    Ok((source, spec.to_string()))
}

fn text(archive: &Path, socket: &Path, road: &str, cabin: &str) -> String {
    // JSON's strings are basic strings of TOML.
    let quoted = |text: String| serde_json::Value::String(text).to_string();
    format!(
        "[storage]\nroot = {}\nsegment_seconds = {SEGMENT_SECONDS}\n\n[http]\nunix_socket = {}\n\n\
         [[camera]]\nid = \"road\"\nsource = {}\n\n[[camera]]\nid = \"cabin\"\nsource = {}\n",
        quoted(archive.display().to_string()),
        quoted(socket.display().to_string()),
        quoted(road.to_owned()),
        quoted(cabin.to_owned()),
    )
}

/// Adds what was tried to an error.
pub(super) fn stage<E: ToString>(what: &'static str) -> impl FnOnce(E) -> DemoError {
    move |reason| DemoError::stage(what, &reason)
}

//! Brings a clip or picture out of the archive: by its path if it lies on this machine, else over the API.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::Failure;
use super::client::{Address, Client};

/// What is to be brought out.
pub(super) struct Output<'a> {
    /// Its path on the daemon's disk.
    pub(super) path: &'a Path,
    /// Its size.
    pub(super) bytes: u64,
    /// Where the API hands it out.
    pub(super) url: String,
}

/// Copies to `to`, which is replaced only when the copy is whole.
pub(super) async fn out(client: &Client, output: &Output<'_>, to: &Path) -> Result<(), Failure> {
    let fail = |e: &dyn std::fmt::Display| Failure::Failed(format!("cannot write {}: {e}", to.display()));
    let part = PathBuf::from(format!("{}.{}.part", to.display(), std::process::id()));
    let copied = if let Some(path) = local(client, output) {
        fs::copy(path, &part).map_err(|e| fail(&e))
    } else {
        let mut file = File::create(&part).map_err(|e| fail(&e))?;
        let written = client.download(&output.url, |chunk| file.write_all(chunk)).await;
        written.map_err(Failure::from)
    };
    let whole = copied.and_then(|bytes| {
        if bytes != output.bytes {
            return Err(fail(&format!("{bytes} of {} bytes came", output.bytes)));
        }
        fs::rename(&part, to).map_err(|e| fail(&e))
    });
    if whole.is_err() {
        let _ = fs::remove_file(&part);
    }
    whole
}

/// The file itself, if this process can read it.
fn local<'a>(client: &Client, output: &Output<'a>) -> Option<&'a Path> {
    let here = matches!(client.address(), Address::Unix(_))
        && File::open(output.path).and_then(|file| file.metadata()).is_ok_and(|found| found.len() == output.bytes);
    here.then_some(output.path)
}

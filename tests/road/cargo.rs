//! What is uploaded here: files whose name tells their bytes, and the calls around them.

use std::path::Path;

use mos_tests::daemon::{Daemon, Setup};
use mos_tests::road::Random;
use mos_tests::sshd::Sshd;
use serde_json::{Value, json};

/// The name of a file of `size` bytes; there is only one with this name.
pub(crate) fn name(number: usize, size: usize) -> String {
    format!("{number:05}-{size}.bin")
}

/// The bytes that belong to a name.
pub(crate) fn bytes(name: &str) -> Vec<u8> {
    let (number, size) = name.strip_suffix(".bin").unwrap().split_once('-').unwrap();
    let size: usize = size.parse().unwrap();
    let mut random = Random::new(number.parse::<u64>().unwrap());
    let mut bytes: Vec<u8> = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Puts the file into the archive's `clips/`; gives its path for a call.
pub(crate) fn lay_out(setup: &Setup, name: &str) -> String {
    let folder = setup.archive().join("clips");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), bytes(name)).unwrap();
    format!("clips/{name}")
}

/// Uploads one file into a folder of the server, which is reached by `port`; gives the job.
pub(crate) fn submit(
    daemon: &Daemon<'_>,
    sshd: &Sshd,
    (port, folder): (u16, &Path),
    path: &str,
    more: &Value,
) -> String {
    let mut options = json!({"host_key": sshd.fingerprint(), "identity": key(sshd)});
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let body = json!({"paths": [path], "destination_uri": sshd.uri_by(port, folder), "options": options});
    daemon.client.post("/v1/uploads", &body).ok()["uploads"][0]["id"].as_str().unwrap().to_owned()
}

/// Uploads one file to a destination of the configuration; gives the job.
pub(crate) fn submit_by_name(daemon: &Daemon<'_>, destination: &str, path: &str) -> String {
    let body = json!({"paths": [path], "destination_uri": destination});
    daemon.client.post("/v1/uploads", &body).ok()["uploads"][0]["id"].as_str().unwrap().to_owned()
}

/// The destination `name` of the configuration: the server, reached by `port`, with its key in a file.
pub(crate) fn destination(name: &str, sshd: &Sshd, port: u16) -> String {
    let uri = sshd.uri_by(port, &sshd.upload());
    let user = uri.trim_start_matches("sftp://").split('@').next().unwrap();
    format!(
        "[[destination]]\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"{user}\"\n\
         path = \"{}/{{name}}\"\nhost_key = \"{}\"\nkey_file = \"{}\"\n",
        sshd.upload().display(),
        sshd.fingerprint(),
        sshd.identity().display()
    )
}

/// The private key that the server lets in.
pub(crate) fn key(sshd: &Sshd) -> String {
    std::fs::read_to_string(sshd.identity()).unwrap()
}

/// Where a job stands.
pub(crate) fn job(daemon: &Daemon<'_>, id: &str) -> Value {
    daemon.client.get(&format!("/v1/uploads/{id}")).ok()
}

/// Names in a folder: finished ones, and those with a leading dot.
pub(crate) fn names(folder: &Path) -> (Vec<String>, Vec<String>) {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.into_iter().partition(|name| !name.starts_with('.'))
}

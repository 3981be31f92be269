//! Headless Chromium as a judge: the first and the last frame that a browser shows.
//!
//! A tiny web server on loopback gives the browser a page and the file; the page reads the burnt-in numbers from a canvas and
//! posts them back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::picture::{CELL, CELLS};

const PAGE: &str = r#"<!doctype html><video id=v muted preload=auto src="/file.mp4"></video><script>
const v = document.getElementById('v'), c = document.createElement('canvas');
const post = text => fetch('/result', {method: 'POST', body: text});
function number() {
  c.width = v.videoWidth; c.height = v.videoHeight;
  const g = c.getContext('2d'); g.drawImage(v, 0, 0);
  let n = 0;
  for (let bit = 0; bit < CELLS / 2; bit++) {
    const mid = cell => g.getImageData(cell * CELL + CELL / 2, CELL / 2, 1, 1).data[0];
    const a = mid(bit), b = mid(bit + CELLS / 2);
    if (Math.abs(a - b) < 80) return 'none';
    n = n * 2 + (a > b ? 1 : 0);
  }
  return n;
}
let first = null;
v.onerror = () => post('error ' + (v.error ? v.error.message : ''));
v.requestVideoFrameCallback(() => { first = number(); v.play(); });
// A slow machine may not have presented the last frames in time: it is asked for the very last one.
v.onended = () => {
  v.onended = null;
  v.onseeked = () => post('shown ' + first + ' ' + number());
  v.currentTime = v.duration - 0.005;
};
</script>"#;

/// The numbers of the first and the last frame that Chromium shows.
#[must_use]
pub fn first_and_last(file: &Path) -> (u16, u16) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", server.local_addr().unwrap());
    let bytes = std::fs::read(file).unwrap();
    let (say, said) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in server.incoming().flatten() {
            let (bytes, say) = (bytes.clone(), say.clone());
            // A browser that goes away in mid-answer is no matter.
            std::thread::spawn(move || drop(serve(stream, &bytes, &say)));
        }
    });
    let profile = tempfile::tempdir().unwrap();
    let browser = Browser::open(&url, profile.path());
    let result = said.recv_timeout(Duration::from_mins(4));
    drop(browser);
    let result = result.unwrap_or_else(|_| panic!("Chromium says nothing about {}", file.display()));
    let numbers = result.strip_prefix("shown ").and_then(|n| n.split_once(' '));
    let read = numbers.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    read.unwrap_or_else(|| panic!("Chromium on {}: {result}", file.display()))
}

/// A running browser; it dies when dropped.
struct Browser(Child);

impl Browser {
    fn open(url: &str, profile: &Path) -> Self {
        let mut command = Command::new("chromium");
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--autoplay-policy=no-user-gesture-required", "--mute-audio", "--disable-extensions"]);
        command.arg(format!("--user-data-dir={}", profile.display())).arg(url);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.expect("chromium is installed (make test-deps)"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(mut stream: TcpStream, file: &[u8], say: &mpsc::Sender<String>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut request, mut range, mut length) = (String::new(), None, 0);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("range: bytes=") {
            range = value
                .split_once('-')
                .and_then(|(from, to)| Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok())));
        } else if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        } else if line.is_empty() {
            break;
        }
    }
    let mut answer = |status: &str, kind: &str, more: &str, body: &[u8]| -> std::io::Result<()> {
        let size = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n{more}Connection: close\r\n\r\n"
        )?;
        stream.write_all(body)
    };
    if request.starts_with("POST /result") {
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        answer("204 No Content", "text/plain", "", b"")?;
        let _ = say.send(String::from_utf8_lossy(&body).into_owned());
    } else if request.starts_with("GET /file.mp4") {
        let (from, to) = range.unwrap_or((0, None));
        let end = to.map_or(file.len(), |to| (to + 1).min(file.len()));
        let part = file.get(from..end).unwrap_or_default();
        let more = format!("Accept-Ranges: bytes\r\nContent-Range: bytes {from}-{}/{}\r\n", end.max(1) - 1, file.len());
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        answer(status, "video/mp4", &more, part)?;
    } else if request.starts_with("GET / ") {
        let page = PAGE.replace("CELLS", &CELLS.to_string()).replace("CELL", &CELL.to_string());
        answer("200 OK", "text/html", "", page.as_bytes())?;
    } else {
        answer("404 Not Found", "text/plain", "", b"")?;
    }
    Ok(())
}

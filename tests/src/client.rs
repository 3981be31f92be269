//! A minimal HTTP/1.1 client over a Unix socket, so that no library hides what the daemon says.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// Header lines in lower case.
    pub headers: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.text()))
    }

    /// The JSON body of a success; panics with the answer if it was none.
    #[must_use]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "status {}: {}", self.status, self.text());
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The error kind of a failure with this status; panics if it was something else.
    #[must_use]
    pub fn error(self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        let json = self.json();
        assert!(json["error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{json}");
        json["error"]["kind"].as_str().unwrap_or_else(|| panic!("no kind: {json}")).to_owned()
    }
}

impl Client {
    /// A client of the daemon that listens on `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Sends one request on a connection of its own; fails if nobody listens or the answer breaks off.
    pub fn try_request(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(Duration::from_mins(3)))?;
        send(&mut stream, method, path, body, "close")?;
        receive(&mut BufReader::new(stream))
    }

    /// Sends one request; panics if there is no answer.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_request(method, path, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// `GET`.
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, None)
    }

    /// `POST` with a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, Some(body))
    }

    /// What a stream of events says up to its `count`th event, head and all; less if it ends before. Panics if it falls silent.
    #[must_use]
    pub fn events(&self, path: &str, count: usize) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("the daemon listens");
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        send(&mut stream, "GET", path, None, "close").unwrap();
        let (mut said, mut stream) = (String::new(), BufReader::new(stream));
        while said.matches("\ndata:").count() < count {
            if stream.read_line(&mut said).unwrap_or_else(|e| panic!("{path} after {said}: {e}")) == 0 {
                break;
            }
        }
        said
    }

    /// A connection that stays open for many requests: what a benchmark wants.
    #[must_use]
    pub fn connect(&self) -> Connection {
        Connection { stream: BufReader::new(UnixStream::connect(&self.socket).expect("the daemon listens")) }
    }
}

/// A connection that is kept alive.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Sends one request and reads its answer.
    pub fn request(&mut self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        send(self.stream.get_mut(), method, path, body, "keep-alive").expect("the daemon takes a request");
        receive(&mut self.stream).expect("the daemon answers")
    }
}

fn send(
    stream: &mut UnixStream,
    method: &str,
    path: &str,
    body: Option<&Value>,
    connection: &str,
) -> std::io::Result<()> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let json = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n{json}Content-Length: {length}\r\n\r\n{body}"
    )
}

fn receive(stream: &mut BufReader<UnixStream>) -> std::io::Result<Answer> {
    let broken = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| broken("no status line"))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(broken("the answer breaks off"));
        }
        match line.trim_end() {
            "" => break,
            header => headers.push(header.to_ascii_lowercase()),
        }
    }
    let value = |name: &str| headers.iter().find_map(|h| h.strip_prefix(name)).map(|v| v.trim().to_owned());
    let mut body = Vec::new();
    if let Some(length) = value("content-length:") {
        body.resize(length.parse().map_err(|_| broken("bad content-length"))?, 0);
        stream.read_exact(&mut body)?;
    } else if value("transfer-encoding:").is_some_and(|v| v == "chunked") {
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(|_| broken("bad chunk"))?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk)?;
            body.extend(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else if status != 204 {
        stream.read_to_end(&mut body)?;
    }
    Ok(Answer { status, headers, body })
}

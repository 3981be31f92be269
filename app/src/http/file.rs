//! Hands out a file of the archive piece by piece. A slow client holds one piece in memory and no thread.

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Services;
use super::fault::Fault;
use crate::archive::disk::{DiskFile, OpenMode};

/// Bytes in one piece.
const PIECE: u64 = 256 << 10;

/// A file that is there.
pub(super) struct Found {
    file: Arc<dyn DiskFile>,
    bytes: u64,
}

/// Opens a clip or picture. Waits for the disk.
pub(super) fn open(services: &Services, path: &Path) -> Result<Found, Fault> {
    let opened = services.archive.disk().open(path, OpenMode::Read).and_then(|file| Ok((file.len()?, file)));
    match opened {
        Ok((bytes, file)) => Ok(Found { file, bytes }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Fault::absent("file", &path.display().to_string())),
        Err(e) => Err(Fault::internal("reading a file", e)),
    }
}

impl Found {
    pub(super) fn response(self, kind: &'static str) -> Response {
        let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_LENGTH, self.bytes.to_string())];
        let (pieces, stream) = mpsc::channel::<Result<Bytes, io::Error>>(1);
        tokio::spawn(self.send(pieces));
        (headers, Body::from_stream(ReceiverStream::new(stream))).into_response()
    }

    async fn send(self, pieces: mpsc::Sender<Result<Bytes, io::Error>>) {
        let mut offset = 0;
        while offset < self.bytes {
            let (file, len) = (self.file.clone(), PIECE.min(self.bytes - offset));
            let read = tokio::task::spawn_blocking(move || piece(file.as_ref(), offset, len));
            let piece = read.await.unwrap_or_else(|e| Err(io::Error::other(e)));
            let over = piece.is_err();
            // An error breaks the connection off, so that the client sees that bytes are missing.
            if pieces.send(piece).await.is_err() || over {
                return;
            }
            offset += len;
        }
    }
}

fn piece(file: &dyn DiskFile, offset: u64, len: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; usize::try_from(len).unwrap_or(0)];
    let read = file.read_at(offset, &mut piece)?;
    if read < piece.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(piece.into()) }
}

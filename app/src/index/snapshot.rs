//! Snapshots of the index: one file with a checksum, replaced atomically.
//!
//! Promises:
//! - N1: a snapshot is loaded wholly or not at all; anything odd about it means "rebuild from the files".
//! - N2: writing one holds the index only while the database is copied in memory.

use std::io::IoSlice;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::Backup;
use sha2::{Digest, Sha256};

use super::Index;
use super::table::SCHEMA;
use crate::archive::disk::{Disk, OpenMode};
use crate::archive::error::at;
use crate::archive::{ArchiveError, way};

pub(crate) const FILE: &str = "index/segments.db";
const TMP: &str = "index/segments.tmp";
/// Magic, SHA-256 of the rest, then the database as SQLite serializes it.
const MAGIC: &[u8; 8] = b"MOSIDX\0\x01";
const HEADER_LEN: usize = 8 + 32;
/// A database larger than this is none of ours.
const MAX_LEN: u64 = 1 << 30;

/// The database's bytes; copied while the caller holds the index.
pub fn serialize(index: &mut Index) -> Result<Vec<u8>, ArchiveError> {
    let data = index.connection().serialize("main").map_err(failed)?;
    Ok(data.to_vec())
}

/// Writes what [`serialize`] gave: temporary file, sync, rename, sync of the folder.
pub fn write(disk: &dyn Disk, database: &[u8]) -> Result<(), ArchiveError> {
    let (tmp, path) = (Path::new(TMP), Path::new(FILE));
    for path in [tmp, path] {
        way::file(disk, path).map_err(at("make way for", path))?;
    }
    if let Err(error) = disk.remove_file(tmp)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(at("remove", tmp)(error));
    }
    let sum = Sha256::digest(database);
    let file = disk.open(tmp, OpenMode::CreateNew).map_err(at("create", tmp))?;
    let parts = [IoSlice::new(MAGIC), IoSlice::new(&sum), IoSlice::new(database)];
    file.write_at(0, &parts).map_err(at("write", tmp))?;
    file.sync().map_err(at("sync", tmp))?;
    disk.rename(tmp, path).map_err(at("rename", tmp))?;
    disk.sync_dir(Path::new("index")).map_err(at("sync", Path::new("index")))
}

/// Loads the snapshot; `Err` tells why it must be rebuilt.
pub fn load(disk: &dyn Disk) -> Result<Index, String> {
    let file = disk.open(Path::new(FILE), OpenMode::Read).map_err(|e| e.to_string())?;
    let len = file.len().map_err(|e| e.to_string())?;
    if len < HEADER_LEN as u64 || len > MAX_LEN {
        return Err(format!("{len} bytes is no sensible length"));
    }
    let mut bytes = vec![0; len as usize];
    let n = file.read_at(0, &mut bytes).map_err(|e| e.to_string())?;
    let (header, database) = bytes[..n].split_at_checked(HEADER_LEN).ok_or("cut short")?;
    if &header[..8] != MAGIC {
        return Err("not a snapshot of this version".into());
    }
    if Sha256::digest(database)[..] != header[8..] {
        return Err("the checksum does not fit".into());
    }
    open(database).map_err(|e| e.to_string())
}

fn open(database: &[u8]) -> rusqlite::Result<Index> {
    let mut stored = Connection::open_in_memory()?;
    stored.deserialize_read_exact("main", database, database.len(), true)?;
    let schema: i64 = stored.pragma_query_value(None, "user_version", |r| r.get(0))?;
    if schema != SCHEMA {
        return Err(rusqlite::Error::InvalidQuery);
    }
    // Into a database of its own: a deserialized one lives in one block that doubles whenever it grows.
    let mut conn = Connection::open_in_memory()?;
    Backup::new(&stored, &mut conn)?.step(-1)?;
    Index::over(conn)
}

// By value, as `map_err` hands it over.
#[allow(clippy::needless_pass_by_value)]
fn failed(error: rusqlite::Error) -> ArchiveError {
    ArchiveError::Index(error.to_string())
}

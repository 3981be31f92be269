//! The queue on disk: one SQLite file, `uploads/queue.db` under the archive's root.
//!
//! Promises:
//! - D1: what [`Store::add`] and [`Store::end`] have returned from survives SIGKILL and power cuts (`synchronous=FULL`).
//! - D2: no credential is ever written; a job says at most by which name the daemon's own are found.
//! - D3: a database that cannot be read is put aside under another name, never deleted, and the queue starts empty and says so.
//!   So is what is no plain file under its name or its log's: a link is not followed.
//! - D4: what a newer version wrote stays: its version is not overwritten, and jobs that only it understands stay in the file.
//!
//! Write-ahead log: one commit is one append and one sync, where a rollback journal takes two files and three syncs; on eMMC
//! that is less wear and less waiting. Jobs are written when they are made and when they end, never while they run. The lock
//! is exclusive, so no shared memory file lies beside it. Only the queue uses it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::job::{JobId, JobState, Priority};

/// The folder, relative to the archive's root.
pub(super) const FOLDER: &str = "uploads";
pub(super) const FILE: &str = "queue.db";

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        spec TEXT NOT NULL,
        end TEXT
    );
";
/// Of the tables above.
const VERSION: i64 = 1;

/// All of a job that outlives the daemon. Unknown members are ignored, so that an older version can read a newer one's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: JobId,
    pub(super) group: String,
    /// Relative to the archive's root.
    pub(super) path: String,
    /// The resolved URI of the file at the server.
    pub(super) destination: String,
    /// The pinned host key, as [`super::host_key::HostKeyPin::stored`] writes it.
    pub(super) host_key: String,
    /// The `[[destination]]` whose credential it uses; none for a URI of the caller's.
    #[serde(default)]
    pub(super) named: Option<String>,
    #[serde(default)]
    pub(super) priority: Priority,
    #[serde(default)]
    pub(super) overwrite: bool,
    /// Bytes per second at most; none: no limit.
    #[serde(default)]
    pub(super) max_rate: Option<u64>,
    /// Read everything back before the rename.
    #[serde(default)]
    pub(super) read_back: bool,
    /// Leave out what no player needs.
    #[serde(default)]
    pub(super) reduce: bool,
    /// What the wall clock was worth when times got into the name.
    #[serde(default)]
    pub(super) clock: Option<String>,
}

/// A job as it was found.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) number: i64,
    pub(super) record: Record,
    /// How it ended; none if it has not.
    pub(super) end: Option<JobState>,
}

/// Why the queue cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// SQLite's reason.
    #[error("the queue of uploads cannot be written: {0}")]
    Database(#[from] rusqlite::Error),
    /// The file system's reason.
    #[error("the folder of the queue of uploads cannot be used: {0}")]
    Io(#[from] io::Error),
    /// Cannot happen; a record that cannot be turned into text.
    #[error("a job cannot be written down: {0}")]
    Record(#[from] serde_json::Error),
}

/// The open database.
pub(super) struct Store {
    conn: Connection,
}

impl Store {
    /// Opens or makes the queue of the archive at `root`, and reads what is in it, oldest first.
    pub(super) fn open(root: &Path) -> Result<(Self, Vec<Stored>), StoreError> {
        let folder = root.join(FOLDER);
        if !folder.is_dir() {
            fs::create_dir(&folder)?;
        }
        // Each time: who made the folder may have been killed before it was durable.
        sync_dir(root)?;
        let file = folder.join(FILE);
        // SQLite would follow a link to a file that is none of ours, and write there.
        for name in [file.clone(), with(&file, "-wal")] {
            if fs::symlink_metadata(&name).is_ok_and(|found| !found.is_file()) {
                let aside = put_aside(&name)?;
                log::error!("{} is no plain file; it was put aside as {}", name.display(), aside.display());
            }
        }
        let opened = Self::connect(&file).and_then(|mut store| {
            let found = store.read()?;
            Ok((store, found))
        });
        let (store, found) = match opened {
            Ok(both) => both,
            Err(StoreError::Database(e)) if is_damage(&e) => {
                let aside = put_aside(&file)?;
                log::error!(
                    "the queue of uploads cannot be read ({e}); it was put aside as {} and uploads that waited in it are \
                     not known any more",
                    aside.display()
                );
                (Self::connect(&file)?, Vec::new())
            }
            Err(e) => return Err(e),
        };
        sync_dir(&folder)?;
        Ok((store, found))
    }

    /// Whether a start would put this file aside. Writes to it.
    pub(super) fn is_damaged(file: &Path) -> Result<bool, StoreError> {
        match Self::connect(file).and_then(|mut store| store.read()) {
            Ok(_) => Ok(false),
            Err(StoreError::Database(e)) if is_damage(&e) => Ok(true),
            Err(e) => Err(e),
        }
    }

    fn connect(file: &Path) -> Result<Self, StoreError> {
        let conn = Connection::open(file)?;
        conn.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA journal_size_limit = 1048576; PRAGMA wal_autocheckpoint = 256; PRAGMA cache_size = -256;",
        )?;
        let sound: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if sound != "ok" {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(code, Some(sound)).into());
        }
        conn.execute_batch(TABLES)?;
        let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version > VERSION {
            log::warn!(
                "the queue of uploads is of a newer version ({version}); what this one cannot read waits for it"
            );
        } else if version < VERSION {
            conn.pragma_update(None, "user_version", VERSION)?;
        }
        Ok(Self { conn })
    }

    fn read(&mut self) -> Result<Vec<Stored>, StoreError> {
        let mut query = self.conn.prepare("SELECT number, spec, end FROM jobs ORDER BY number")?;
        let mut rows = query.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (number, spec, end): (i64, String, Option<String>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let record = serde_json::from_str(&spec);
            let end = end.map(|text| serde_json::from_str(&text)).transpose();
            match (record, end) {
                (Ok(record), Ok(end)) => found.push(Stored { number, record, end }),
                // Left where it is: the version that wrote it can read it.
                (Err(e), _) | (_, Err(e)) => {
                    log::error!("upload {number} of the queue cannot be read by this version: {e}");
                }
            }
        }
        Ok(found)
    }

    /// Adds jobs, all or none; their numbers in order.
    pub(super) fn add(&mut self, records: &[Record]) -> Result<Vec<i64>, StoreError> {
        let change = self.conn.transaction()?;
        let mut numbers = Vec::with_capacity(records.len());
        for record in records {
            let spec = serde_json::to_string(record)?;
            change.execute("INSERT INTO jobs (id, spec) VALUES (?1, ?2)", params![record.id.0, spec])?;
            numbers.push(change.last_insert_rowid());
        }
        change.commit()?;
        Ok(numbers)
    }

    /// Notes how a job ended, and forgets others.
    pub(super) fn end(&mut self, id: &JobId, state: &JobState, forget: &[JobId]) -> Result<(), StoreError> {
        let change = self.conn.transaction()?;
        let end = serde_json::to_string(state)?;
        change.execute("UPDATE jobs SET end = ?2 WHERE id = ?1", params![id.0, end])?;
        for old in forget {
            change.execute("DELETE FROM jobs WHERE id = ?1", params![old.0])?;
        }
        change.commit()?;
        Ok(())
    }

    /// A job that had ended goes on, perhaps otherwise than before.
    pub(super) fn revive(&mut self, record: &Record) -> Result<(), StoreError> {
        let spec = serde_json::to_string(record)?;
        self.conn.execute("UPDATE jobs SET end = NULL, spec = ?2 WHERE id = ?1", params![record.id.0, spec])?;
        Ok(())
    }
}

fn is_damage(e: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(e.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// Renames the database and its log to the first free `queue.db.damaged-{n}`.
fn put_aside(file: &Path) -> io::Result<PathBuf> {
    let mut n = 1;
    let aside = loop {
        let aside = with(file, &format!(".damaged-{n}"));
        // Of the name itself: a link that leads nowhere is there too.
        if fs::symlink_metadata(&aside).is_err() {
            break aside;
        }
        n += 1;
    };
    fs::rename(file, &aside)?;
    let wal = with(file, "-wal");
    if fs::symlink_metadata(&wal).is_ok() {
        fs::rename(&wal, with(&aside, "-wal"))?;
    }
    Ok(aside)
}

pub(super) fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(id: &str) -> Record {
        Record {
            id: JobId(id.to_owned()),
            group: "g".to_owned(),
            path: "clips/a.mp4".to_owned(),
            destination: "sftp://u@h/a.mp4".to_owned(),
            host_key: "SHA256:x".to_owned(),
            named: None,
            priority: Priority::Event,
            overwrite: true,
            max_rate: Some(7),
            read_back: false,
            reduce: true,
            clock: None,
        }
    }

    /// D1, as far as it can be seen without cutting power (`tests/power.rs` does): another opening finds the same, in order.
    #[test]
    fn what_was_added_and_ended_is_found_again() {
        let root = tempfile::tempdir().unwrap();
        let (mut store, found) = Store::open(root.path()).unwrap();
        assert!(found.is_empty());
        let records = [record("a-0"), record("a-1"), record("a-2")];
        let numbers = store.add(&records).unwrap();
        assert!(numbers.is_sorted());
        assert!(store.add(&[record("a-9"), record("a-0")]).is_err(), "an id twice");
        store.end(&records[0].id, &JobState::Cancelled, &[]).unwrap();
        store.end(&records[1].id, &JobState::Cancelled, &[records[0].id.clone()]).unwrap();
        store.revive(&records[1]).unwrap();
        store.end(&records[2].id, &JobState::Cancelled, &[]).unwrap();
        drop(store);
        let (_, found) = Store::open(root.path()).unwrap();
        let ids: Vec<_> = found.iter().map(|s| (s.record.clone(), s.end.clone())).collect();
        assert_eq!(ids, [(records[1].clone(), None), (records[2].clone(), Some(JobState::Cancelled))]);
    }

    /// D1: the settings that make a commit durable are those that the connection has.
    #[test]
    fn commits_are_synchronous_and_logged_ahead() {
        let root = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(root.path()).unwrap();
        let ask = |pragma: &str| store.conn.query_row(pragma, [], |r| r.get::<_, String>(0));
        assert_eq!(ask("PRAGMA journal_mode").unwrap(), "wal");
        assert_eq!(store.conn.query_row("PRAGMA synchronous", [], |r| r.get::<_, i64>(0)).unwrap(), 2);
        assert_eq!(ask("PRAGMA locking_mode").unwrap(), "exclusive");
    }

    /// D3.
    #[test]
    fn a_damaged_queue_is_put_aside() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(FOLDER)).unwrap();
        let file = root.path().join(FOLDER).join(FILE);
        for n in 1..=2 {
            fs::write(&file, vec![0x5a; 9000]).unwrap();
            let (mut store, found) = Store::open(root.path()).unwrap();
            assert!(found.is_empty());
            store.add(&[record("b-0")]).unwrap();
            let aside = root.path().join(FOLDER).join(format!("{FILE}.damaged-{n}"));
            assert_eq!(fs::read(aside).unwrap(), vec![0x5a; 9000]);
        }
    }

    /// D3: a link is renamed, and what it leads to is not written to.
    #[test]
    fn a_queue_that_is_a_link_is_put_aside_and_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(FOLDER);
        fs::create_dir(&folder).unwrap();
        let other = root.path().join("other");
        fs::write(&other, b"").unwrap();
        for (n, target) in [(1, "/nowhere"), (2, other.to_str().unwrap())] {
            for name in [FILE, "queue.db-wal"] {
                let _ = fs::remove_file(folder.join(name));
                std::os::unix::fs::symlink(target, folder.join(name)).unwrap();
            }
            let (mut store, _) = Store::open(root.path()).unwrap();
            store.add(&[record("c-0")]).unwrap();
            for name in [FILE, "queue.db-wal"] {
                assert!(fs::symlink_metadata(folder.join(name)).unwrap().is_file(), "{name}");
            }
            let aside = fs::read_link(folder.join(format!("{FILE}.damaged-{n}"))).unwrap();
            assert_eq!((aside.to_str(), fs::read(&other).unwrap().len()), (Some(target), 0));
            let links =
                fs::read_dir(&folder).unwrap().filter(|e| e.as_ref().unwrap().file_type().unwrap().is_symlink());
            assert_eq!(links.count(), 2 * n, "none is deleted");
        }
    }

    /// D4.
    #[test]
    fn what_a_newer_version_wrote_is_there_when_it_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(root.path()).unwrap();
        store.add(&[record("n-0")]).unwrap();
        let newer = "PRAGMA user_version = 7; ALTER TABLE jobs ADD COLUMN more TEXT;
             INSERT INTO jobs (id, spec, more) VALUES ('n-1', '{\"by_pigeon\":true}', 'x');
             UPDATE jobs SET spec = json_set(spec, '$.more', 1) WHERE id = 'n-0';";
        store.conn.execute_batch(newer).unwrap();
        drop(store);
        let (mut store, found) = Store::open(root.path()).unwrap();
        assert_eq!(found.iter().map(|s| s.record.id.0.as_str()).collect::<Vec<_>>(), ["n-0"], "what it understands");
        store.end(&found[0].record.id, &JobState::Cancelled, &[]).unwrap();
        store.add(&[record("n-2")]).unwrap();
        let ask = |what: &str| store.conn.query_row(what, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(ask("SELECT CAST(user_version AS TEXT) FROM pragma_user_version"), "7");
        assert_eq!(ask("SELECT spec || more FROM jobs WHERE id = 'n-1'"), "{\"by_pigeon\":true}x");
        assert_eq!(ask("SELECT CAST(json_extract(spec, '$.more') AS TEXT) FROM jobs WHERE id = 'n-0'"), "1");
    }
}

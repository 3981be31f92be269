//! What both disks must do alike, and what only the simulated one can show.
#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mos_hal::clock::{BootId, Clock, SimClock, UtcMicros};

use super::{Disk, DiskFile, OpenMode, RealDisk, SimDisk, SimOp};

fn sim() -> (SimDisk, Arc<SimClock>) {
    let clock = Arc::new(SimClock::new(BootId([1; 16]), UtcMicros(0)));
    (SimDisk::new(clock.clone(), 1 << 30), clock)
}

fn both(test: impl Fn(&dyn Disk)) {
    test(&sim().0);
    let dir = tempfile::tempdir().unwrap();
    test(&RealDisk::open(dir.path()).unwrap());
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    result.err().unwrap().kind()
}

fn text(disk: &dyn Disk, path: &str) -> String {
    let bytes = crate::archive::run::read_whole(disk, Path::new(path)).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn put(disk: &dyn Disk, path: &str, text: &str) -> Arc<dyn DiskFile> {
    let file = disk.open(Path::new(path), OpenMode::CreateNew).unwrap();
    file.write_at(0, &[IoSlice::new(text.as_bytes())]).unwrap();
    file
}

#[test]
fn files_read_back_what_was_written() {
    both(|disk| {
        let file = disk.open(Path::new("a"), OpenMode::CreateNew).unwrap();
        assert!(file.is_empty().unwrap());
        file.write_at(2, &[IoSlice::new(b"cd"), IoSlice::new(b""), IoSlice::new(b"ef")]).unwrap();
        assert_eq!(text(disk, "a"), "\0\0cdef");
        file.write_at(0, &[IoSlice::new(b"ab")]).unwrap();
        let mut buf = [0; 16];
        assert_eq!(file.read_at(1, &mut buf).unwrap(), 5);
        assert_eq!(&buf[..5], b"bcdef");
        assert_eq!(file.read_at(6, &mut buf).unwrap(), 0);
        assert_eq!(file.read_at(600, &mut buf).unwrap(), 0);
        file.set_len(3).unwrap();
        file.sync().unwrap();
        file.evict().unwrap();
        assert_eq!(text(disk, "a"), "abc");
        file.set_len(5).unwrap();
        assert_eq!(text(disk, "a"), "abc\0\0");
        assert_eq!(disk.size(Path::new("a")).unwrap().len, 5);
    });
}

#[test]
fn many_parts_go_into_one_write() {
    both(|disk| {
        let file = disk.open(Path::new("a"), OpenMode::CreateNew).unwrap();
        let bytes: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
        let parts: Vec<IoSlice<'_>> = bytes.chunks(2).map(IoSlice::new).collect();
        file.write_at(0, &parts).unwrap();
        let mut back = vec![0; 6000];
        assert_eq!(file.read_at(0, &mut back).unwrap(), 5000);
        assert_eq!(&back[..5000], &bytes[..]);
    });
}

#[test]
fn a_reserve_counts_as_allocated_and_is_trimmed() {
    both(|disk| {
        let file = put(disk, "a", "x");
        file.reserve(1 << 20).unwrap();
        let size = disk.size(Path::new("a")).unwrap();
        assert_eq!(size.len, 1);
        assert!(size.allocated >= 1 << 20, "{size:?}");
        file.set_len(1).unwrap();
        file.sync().unwrap();
        let size = disk.size(Path::new("a")).unwrap();
        assert!(size.allocated <= 64 * 1024, "{size:?}");
    });
}

#[test]
fn creation_is_exclusive_and_needs_its_folder() {
    both(|disk| {
        put(disk, "a", "1");
        assert_eq!(kind(disk.open(Path::new("a"), OpenMode::CreateNew)), ErrorKind::AlreadyExists);
        assert_eq!(kind(disk.open(Path::new("b"), OpenMode::Read)), ErrorKind::NotFound);
        assert_eq!(kind(disk.open(Path::new("b"), OpenMode::ReadWrite)), ErrorKind::NotFound);
        assert_eq!(kind(disk.open(Path::new("d/b"), OpenMode::CreateNew)), ErrorKind::NotFound);
        assert_eq!(kind(disk.create_dir(Path::new("d/e"))), ErrorKind::NotFound);
        assert_eq!(kind(disk.create_dir(Path::new("a"))), ErrorKind::NotADirectory);
        disk.create_dir(Path::new("d")).unwrap();
        disk.create_dir(Path::new("d")).unwrap();
        put(disk, "d/b", "2");
        assert!(disk.open(Path::new("d"), OpenMode::Read).is_err());
        assert!(disk.open(Path::new("a/b"), OpenMode::Read).is_err());
    });
}

#[test]
fn read_handles_do_not_write() {
    both(|disk| {
        put(disk, "a", "1");
        let file = disk.open(Path::new("a"), OpenMode::Read).unwrap();
        assert!(file.write_at(0, &[IoSlice::new(b"2")]).is_err());
        assert!(file.set_len(0).is_err());
        assert_eq!(text(disk, "a"), "1");
    });
}

#[test]
fn b1_paths_stay_beneath_the_root() {
    both(|disk| {
        disk.create_dir(Path::new("d")).unwrap();
        for bad in ["", "/etc/passwd", "..", "d/../a", "../x"] {
            let bad = Path::new(bad);
            assert!(disk.open(bad, OpenMode::Read).is_err(), "{bad:?}");
            assert!(disk.open(bad, OpenMode::CreateNew).is_err(), "{bad:?}");
            assert!(disk.remove_file(bad).is_err(), "{bad:?}");
            assert!(disk.rename(bad, Path::new("d/x")).is_err(), "{bad:?}");
            assert!(disk.size(bad).is_err(), "{bad:?}");
        }
    });
}

#[test]
fn b1_symbolic_links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(&dir.path().join("root")).unwrap();
    std::fs::write(dir.path().join("secret"), "s").unwrap();
    std::fs::create_dir(dir.path().join("out")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret"), disk.root().join("file")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("out"), disk.root().join("dir")).unwrap();
    assert!(disk.open(Path::new("file"), OpenMode::Read).is_err());
    assert!(disk.open(Path::new("dir/x"), OpenMode::CreateNew).is_err());
    assert!(disk.read_dir(Path::new("dir")).is_err());
    assert!(disk.create_dir(Path::new("dir")).is_err());
    assert!(disk.rename(Path::new("file"), Path::new("dir/x")).is_err());
    disk.remove_file(Path::new("file")).unwrap();
    assert!(dir.path().join("secret").exists());
}

#[test]
fn b2_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = RealDisk::open(dir.path()).unwrap();
    assert_eq!(kind(RealDisk::open(dir.path())), ErrorKind::WouldBlock);
    drop(first);
    assert!(RealDisk::open(dir.path()).is_ok());
}

#[test]
fn names_move_and_vanish() {
    both(|disk| {
        put(disk, "a", "1");
        put(disk, "b", "2");
        disk.create_dir(Path::new("d")).unwrap();
        disk.rename(Path::new("a"), Path::new("b")).unwrap();
        assert_eq!(text(disk, "b"), "1");
        disk.rename(Path::new("b"), Path::new("d/c")).unwrap();
        assert_eq!(kind(disk.rename(Path::new("b"), Path::new("a"))), ErrorKind::NotFound);
        assert_eq!(kind(disk.remove_dir(Path::new("d"))), ErrorKind::DirectoryNotEmpty);
        assert!(disk.remove_file(Path::new("d")).is_err());
        let names = disk.read_dir(Path::new("")).unwrap();
        assert_eq!(names.iter().map(|e| (e.name.as_str(), e.is_dir)).collect::<Vec<_>>(), [("d", true)]);
        disk.remove_file(Path::new("d/c")).unwrap();
        disk.remove_dir(Path::new("d")).unwrap();
        assert_eq!(kind(disk.read_dir(Path::new("d"))), ErrorKind::NotFound);
        assert_eq!(kind(disk.sync_dir(Path::new("d"))), ErrorKind::NotFound);
    });
}

#[test]
fn removed_files_can_still_be_read_through_open_handles() {
    both(|disk| {
        let file = put(disk, "a", "123");
        disk.remove_file(Path::new("a")).unwrap();
        let mut buf = [0; 3];
        assert_eq!(file.read_at(0, &mut buf).unwrap(), 3);
        assert_eq!(&buf, b"123");
        // B3: synced as well as it may be, it is not durable.
        assert_eq!(kind(file.sync()), ErrorKind::NotFound);
    });
}

#[test]
fn files_are_copied_piecewise() {
    both(|disk| {
        let from = put(disk, "a", &"0123456789".repeat(1000));
        let to = put(disk, "b", "xx");
        from.copy_to(5, 9000, to.as_ref(), 2).unwrap();
        let copied = text(disk, "b");
        assert_eq!(copied.len(), 9002);
        assert!(copied.starts_with("xx5678901"));
        assert!(from.copy_to(9999, 2, to.as_ref(), 0).is_err());
    });
}

#[test]
fn synced_things_survive_every_crash() {
    for seed in 0..200 {
        let (disk, _) = sim();
        disk.create_dir(Path::new("d")).unwrap();
        let file = put(&disk, "d/a", "stable words");
        file.sync().unwrap();
        disk.sync_dir(Path::new("d")).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        file.write_at(0, &[IoSlice::new(b"UNSYNCED")]).unwrap();
        disk.crash(seed);
        assert!(file.read_at(0, &mut [0]).is_err());
        let after = text(&disk, "d/a");
        assert!(after == "stable words" || after == "UNSYNCEDords", "{after}");
    }
}

#[test]
fn unsynced_things_are_lost_kept_and_torn() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..400 {
        let (disk, _) = sim();
        put(&disk, "a", "old").sync().unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        put(&disk, "b", "AAAAAAAABBBBBBBB").set_len(16).unwrap();
        disk.rename(Path::new("b"), Path::new("a")).unwrap();
        disk.crash(seed);
        let a = text(&disk, "a");
        seen.insert(match a.as_str() {
            "old" => "not renamed",
            "" => "renamed, empty",
            "AAAAAAAABBBBBBBB" => "renamed, whole",
            t if t.bytes().all(|b| b == 0) => "renamed, zeros",
            _ => "renamed, torn",
        });
        let b = disk.open(Path::new("b"), OpenMode::Read).is_ok();
        seen.insert(if b { "b is there" } else { "b is not there" });
    }
    assert_eq!(seen.len(), 7, "{seen:?}");
}

#[test]
fn a_failed_sync_shows_only_after_eviction() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..100 {
        let (disk, _) = sim();
        disk.crash(seed);
        let file = put(&disk, "a", "stable");
        file.sync().unwrap();
        file.write_at(0, &[IoSlice::new(b"FAILED")]).unwrap();
        disk.fail(SimOp::Sync, "a", libc::EIO, 1);
        assert!(file.sync().is_err());
        assert_eq!(text(&disk, "a"), "FAILED");
        file.sync().unwrap();
        assert_eq!(text(&disk, "a"), "FAILED");
        file.evict().unwrap();
        if text(&disk, "a") == "FAILED" { kept += 1 } else { lost += 1 }
    }
    assert!(lost > 10 && kept > 10, "{lost} {kept}");
}

#[test]
fn the_power_can_go_at_any_operation() {
    for cut in 0..6 {
        let (disk, _) = sim();
        disk.cut_at(cut);
        let run = || -> std::io::Result<()> {
            let file = disk.open(Path::new("a"), OpenMode::CreateNew)?;
            file.write_at(0, &[IoSlice::new(b"x")])?;
            file.sync()?;
            disk.sync_dir(Path::new(""))?;
            disk.rename(Path::new("a"), Path::new("b"))?;
            disk.sync_dir(Path::new(""))
        };
        assert!(run().is_err());
        assert!(disk.is_cut());
        assert!(disk.read_dir(Path::new("")).is_err());
        disk.crash(7);
        let names = disk.read_dir(Path::new("")).unwrap();
        assert!(names.len() <= 1);
        if cut >= 4 {
            assert_eq!(text(&disk, &names[0].name), "x");
        }
    }
}

#[test]
fn a_kill_loses_nothing_but_handles() {
    let (disk, _) = sim();
    let file = put(&disk, "a", "x");
    disk.kill();
    assert!(file.sync().is_err());
    assert_eq!(text(&disk, "a"), "x");
}

#[test]
fn latency_passes_on_the_simulated_clock_and_a_full_disk_says_so() {
    let (disk, clock) = sim();
    disk.set_latency(SimOp::Sync, Duration::from_millis(40));
    let file = put(&disk, "a", "x");
    disk.stall_at(disk.ops(), Duration::from_secs(2));
    file.sync().unwrap();
    file.sync().unwrap();
    assert_eq!(clock.mono().0, 2_080_000_000);
    disk.set_capacity(8192);
    let error = file.write_at(0, &[IoSlice::new(&[0; 9000])]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    file.write_at(0, &[IoSlice::new(&[0; 8192])]).unwrap();
    assert_eq!(disk.space().unwrap().free, 0);
}

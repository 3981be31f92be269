//! Snapshot on a real disk.

//! The archive: the only room that creates, renames or deletes media.

pub mod disk;
pub mod ids;

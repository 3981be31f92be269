//! Judges: independent programs and parsers that say whether a media file is what MOS claims.

pub mod accounts;
pub mod archive;
pub mod chromium;
pub mod ffmpeg;
pub mod gstreamer;
pub mod parsers;

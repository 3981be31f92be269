//! Doubles of vendors' GStreamer elements: a plugin for tests and rigs without boards.

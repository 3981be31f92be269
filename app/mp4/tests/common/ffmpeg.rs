//! Streams made by ffmpeg.

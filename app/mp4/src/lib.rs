//! The MP4 model of MOS. Pure: bytes in, bytes and plans out.

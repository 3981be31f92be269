//! Decoders and encoders for stored media, on the CPU.

mod jfif;
mod jpeg;

pub use jpeg::Jpegs;

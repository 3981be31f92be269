//! Elements that encode, decode and convert: the table of their families, the choice among them, and stored keyframes to JPEG.

mod chain;
pub mod choice;
pub mod families;
mod jfif;
mod jpeg;

pub use jpeg::Jpegs;

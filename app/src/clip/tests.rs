//! ExtractClip on a real disk.

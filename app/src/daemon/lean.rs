//! Keeps the process small.

/// Most arenas that glibc's allocator may open. By default it opens up to eight per core, each of which keeps what a burst
/// of one thread once needed.
const ARENAS: libc::c_int = 2;

/// Blocks from this size on are mapped on their own and returned to the system when they are freed; bytes.
const MMAP_FROM: libc::c_int = 256 << 10;

/// Sets the allocator's bounds. To be called before any thread is made.
pub(super) fn bound_the_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes plain numbers and only changes the allocator's own settings (mallopt(3)).
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_FROM);
    }
}

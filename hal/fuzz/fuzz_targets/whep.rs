//! Any headers and description of a WHEP server: credentials stay with their host.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mos_hal::fuzzing::whep(data));

// What libraries allocate while they are loaded is left out of the search for leaks. GLib's constructor takes 16 KiB for the names of
// its first 2048 quarks, and when GStreamer has made more of them, GLib goes on with a larger block and leaves this one behind, as
// others may be reading it ("This leaks the old quarks array", gquark.c). Once in a process, whatever comes in.
unsafe extern "C" {
    fn __lsan_disable();
    fn __lsan_enable();
}

/// Before any library's constructor.
#[used]
#[unsafe(link_section = ".preinit_array")]
static LOADING: unsafe extern "C" fn() = __lsan_disable;

/// Behind them all.
#[used]
#[unsafe(link_section = ".init_array")]
static LOADED: unsafe extern "C" fn() = __lsan_enable;

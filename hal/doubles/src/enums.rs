//! Enum types and enum properties that come from data files.
//!
//! Promises one GType per enum name in a process, registered at first use and for ever.

#![allow(unsafe_code, reason = "glib's safe API registers only enums that are known when the program is compiled")]

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{LazyLock, Mutex, PoisonError};

use gstreamer::glib;
use gstreamer::glib::gobject_ffi;
use gstreamer::glib::translate::{FromGlib, IntoGlib, from_glib_none};

/// The enum type of this name with these nicks and numbers.
pub(crate) fn enum_type(name: &str, values: &[(String, i32)]) -> glib::Type {
    static TYPES: LazyLock<Mutex<HashMap<String, glib::Type>>> = LazyLock::new(Mutex::default);
    let mut types = TYPES.lock().unwrap_or_else(PoisonError::into_inner);
    *types.entry(name.to_owned()).or_insert_with(|| register(name, values))
}

fn register(name: &str, values: &[(String, i32)]) -> glib::Type {
    let text = |s: &str| CString::new(s.replace('\0', "")).unwrap_or_default().into_raw().cast_const();
    let value = |v: &(String, i32)| {
        let nick = text(&v.0);
        gobject_ffi::GEnumValue { value: v.1, value_name: nick, value_nick: nick }
    };
    let end = gobject_ffi::GEnumValue { value: 0, value_name: std::ptr::null(), value_nick: std::ptr::null() };
    let table: Vec<_> = values.iter().map(value).chain([end]).collect();
    // SAFETY: name, table and its strings are leaked, as GObject asks of static enum data; the table ends with a null name.
    unsafe {
        let table: &'static [gobject_ffi::GEnumValue] = Box::leak(table.into_boxed_slice());
        glib::Type::from_glib(gobject_ffi::g_enum_register_static(text(name), table.as_ptr()))
    }
}

/// A property of such a type.
pub(crate) fn param(
    name: &str,
    blurb: &str,
    kind: glib::Type,
    default: i32,
    flags: glib::ParamFlags,
) -> glib::ParamSpec {
    let text = |s: &str| CString::new(s.replace('\0', "")).unwrap_or_default();
    let (name, blurb) = (text(name), text(blurb));
    // SAFETY: `kind` is an enum type that holds `default` (a test of the data files); GObject copies the strings.
    unsafe {
        let spec = gobject_ffi::g_param_spec_enum(
            name.as_ptr(),
            name.as_ptr(),
            blurb.as_ptr(),
            kind.into_glib(),
            default,
            flags.into_glib(),
        );
        from_glib_none(gobject_ffi::g_param_spec_ref_sink(spec))
    }
}

/// GObject's type of arrays of pointers, which a signal of the camera service takes.
pub(crate) fn ptr_array() -> glib::Type {
    // SAFETY: takes nothing, returns a type.
    unsafe { glib::Type::from_glib(glib::ffi::g_ptr_array_get_type()) }
}

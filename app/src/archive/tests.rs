//! The archive's promises, one by one, on the simulated disk; and all of them under random sequences with power cuts.
#![allow(clippy::unwrap_used)]

mod accounts;
mod keeping;
mod model;
mod opening;
mod recording;

use super::{Archive, GapCause, KeepNote, Window};

pub(crate) fn causes(archive: &Archive) -> Vec<GapCause> {
    archive.catalog().gaps(None, Window::ALL).iter().map(|g| g.cause).collect()
}

pub(crate) fn ids(archive: &Archive) -> Vec<String> {
    archive.catalog().segments(None, Window::ALL, 0, 999).iter().map(|s| s.row.id.to_string()).collect()
}

pub(crate) fn note() -> KeepNote {
    KeepNote { who: "operator".into(), why: "near miss".into() }
}

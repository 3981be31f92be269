//! Pictures that a camera or its driver left out.
//!
//! V4L2 numbers every picture of a capture, also those that no buffer was free for (`v4l2_buffer.sequence`), and so does
//! libcamera; their elements put the number into a buffer's offset. Promises that a jump of the numbers is told to the sink
//! where the times agree that a picture is missing, and nothing is where they do not: some drivers count fields, or count anew.
//! Looks at numbers and times only; holds nothing up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::outlet::Outlet;
use crate::clock::Mono;
use crate::source::LeftOutBy;

/// Distances of pictures whose least is taken for the camera's pace.
const PACE: usize = 16;
/// A camera that pauses for longer than this is a matter of the capture service.
const LONGEST: i64 = 10_000_000_000;

/// Watches the pad of a camera. Its buffers' times are capture times, as in every pipeline of [`super::live`].
pub(super) fn watch(pad: &gst::Pad, outlet: &Arc<Outlet>) {
    let numbers: Mutex<Numbers> = Mutex::default();
    let outlet = Arc::clone(outlet);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer()
            && let Some(time) = buffer.pts().and_then(|time| i64::try_from(time.nseconds()).ok())
            && let Some(number) = Some(buffer.offset()).filter(|number| *number != gst::ffi::GST_BUFFER_OFFSET_NONE)
        {
            let missing = numbers.lock().unwrap_or_else(PoisonError::into_inner).see(number, Mono(time));
            if let Some((from, pictures)) = missing {
                outlet.left_out(from, Mono(time), pictures, LeftOutBy::Camera);
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// What is known of a camera's numbers.
#[derive(Default)]
struct Numbers {
    last: Option<(u64, Mono)>,
    /// The latest distances, in ns.
    apart: VecDeque<i64>,
}

impl Numbers {
    /// The capture time of the first picture that is missing before this one, and how many are.
    fn see(&mut self, number: u64, time: Mono) -> Option<(Mono, u64)> {
        let (last, before) = self.last.replace((number, time))?;
        let apart = time.since(before);
        if apart <= 0 || apart > LONGEST {
            self.apart.clear();
            return None;
        }
        let pace = self.apart.iter().min().copied();
        if self.apart.len() == PACE {
            self.apart.pop_front();
        }
        self.apart.push_back(apart);
        let jump = number.checked_sub(last).filter(|jump| *jump > 1)?;
        let pace = pace?.max(1);
        let places = (apart + pace / 2) / pace;
        let missing = u64::try_from(places - 1).unwrap_or(0).min(jump - 1);
        (missing > 0).then_some((Mono(before.0 + pace), missing))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn told(pictures: &[(u64, i64)]) -> Vec<(i64, u64)> {
        let mut numbers = Numbers::default();
        let told = pictures.iter().filter_map(|(number, ms)| numbers.see(*number, Mono(ms * MS)));
        told.map(|(from, missing)| (from.0 / MS, missing)).collect()
    }

    #[test]
    fn a_jump_of_numbers_and_times_is_told() {
        assert_eq!(told(&[(0, 0), (1, 40), (2, 80), (5, 200), (6, 240)]), [(120, 2)]);
    }

    #[test]
    fn a_jump_of_one_of_them_is_not() {
        assert!(told(&[(0, 0), (1, 40), (2, 80), (3, 400), (4, 440)]).is_empty(), "a pause of the camera");
        assert!(told(&[(0, 0), (1, 40), (2, 80), (9, 120), (10, 160)]).is_empty(), "numbers of something else");
        assert!(told(&[(5, 0), (6, 40), (0, 80), (1, 120)]).is_empty(), "counted anew");
        assert!(told(&[(5, 0), (5, 40), (5, 80), (5, 120)]).is_empty(), "not counted at all");
    }

    #[test]
    fn fields_are_no_missing_pictures() {
        let fields: Vec<_> = (0..50).map(|n| (n as u64 * 2, n * 40)).collect();
        assert!(told(&fields).is_empty(), "{:?}", told(&fields));
    }
}

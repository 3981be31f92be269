//! Which element fits a task here, which do not, and why; and how an encoder is written.
//!
//! Promises that every row of the table for a task is answered for: chosen, or passed over with a reason. Asks the surroundings
//! only.

use super::families::{Family, Memory, Task, Unit};
use crate::surroundings::Surroundings;

/// An element that was not chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Its factory name.
    pub element: &'static str,
    /// Why not.
    pub why: String,
}

/// The answer for one task.
#[derive(Clone, Debug)]
pub struct Choice {
    /// What is to be done.
    pub task: Task,
    /// What fits best; `None` if nothing here can do it.
    pub chosen: Option<&'static Family>,
    /// All others that were looked at, in order of preference.
    pub passed_over: Vec<PassedOver>,
}

/// Chooses from rows in order of preference.
pub fn choose<'a>(
    task: Task,
    families: impl IntoIterator<Item = &'a &'static Family>,
    here: &dyn Surroundings,
) -> Choice {
    let mut chosen: Option<&'static Family> = None;
    let mut passed_over = Vec::new();
    for family in families.into_iter().filter(|f| f.task == task) {
        match (obstacle(family, here), chosen) {
            (None, None) => chosen = Some(family),
            (None, Some(first)) => {
                let why = match (first.memory, family.memory) {
                    (Memory::Dmabuf, Memory::System) => format!("works on the CPU; {} does not", first.element),
                    _ => format!("{} comes first", first.element),
                };
                passed_over.push(PassedOver { element: family.element, why });
            }
            (Some(why), _) => passed_over.push(PassedOver { element: family.element, why }),
        }
    }
    Choice { task, chosen, passed_over }
}

/// What keeps an element from being used.
fn obstacle(family: &Family, here: &dyn Surroundings) -> Option<String> {
    if !here.element(family.element) {
        return Some("is not installed".into());
    }
    if family.template.is_empty() {
        return Some("is installed, but its properties are not known to MOS".into());
    }
    match family.card {
        Some(card) if !here.cards().iter().any(|c| c.name.starts_with(card)) => {
            Some(format!("is installed, but there is no V4L2 card {card}"))
        }
        _ => None,
    }
}

impl Family {
    /// An encoder as pipeline text. `bitrate` in bit/s, `gop` in frames; `from`: what its pictures are in.
    #[must_use]
    pub fn text(&self, bitrate: u32, gop: u32, from: Memory) -> String {
        let io = match from {
            Memory::Dmabuf => "dmabuf-import",
            Memory::System => "mmap",
        };
        let bitrate = match self.unit {
            Unit::Bit => bitrate,
            Unit::Kbit => (bitrate / 1000).max(1),
        };
        self.template.replace("{bitrate}", &bitrate.to_string()).replace("{gop}", &gop.to_string()).replace("{io}", io)
    }

    /// Why an encoder does not take pictures of this size at this bit rate in bit/s, with what it would take; `None` if it does.
    #[must_use]
    pub fn refusal(&self, (width, height): (u32, u32), bitrate: u32) -> Option<String> {
        let (element, limits) = (self.element, &self.limits);
        let within = |n: u32, (least, most): (u32, u32)| (least..=most).contains(&n);
        if !within(width, limits.width) || !within(height, limits.height) {
            let (least, most) = ((limits.width.0, limits.height.0), (limits.width.1, limits.height.1));
            return Some(format!(
                "{element} takes pictures from {}x{} to {}x{}, not {width}x{height}",
                least.0, least.1, most.0, most.1
            ));
        }
        let (least, most) = limits.bitrate;
        let fits = within(bitrate, limits.bitrate);
        (!fits).then(|| format!("{element} takes bit rates from {least} to {most} bit/s, not {bitrate}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::families::*;
    use super::*;
    use crate::media::VideoCodec;
    use crate::surroundings::Described;

    const H264: Task = Task::Encode(VideoCodec::H264);
    const SOME: [&Family; 4] = [&VSI_H264, &VPUENC_H264, &IMXVPUENC_H264, &X264];

    fn elements(choice: &Choice) -> Vec<(&str, &str)> {
        choice.passed_over.iter().map(|p| (p.element, p.why.as_str())).collect()
    }

    #[test]
    fn the_first_that_is_there_is_chosen_and_the_others_say_why_not() {
        let mut here = Described { elements: vec!["v4l2h264enc", "imxvpuenc_h264", "x264enc"], ..Described::default() };
        let choice = choose(H264, &SOME, &here);
        assert_eq!(choice.chosen.unwrap().element, "x264enc");
        assert_eq!(
            elements(&choice),
            [
                ("v4l2h264enc", "is installed, but there is no V4L2 card vsi_v4l2enc"),
                ("vpuenc_h264", "is not installed"),
                ("imxvpuenc_h264", "is installed, but its properties are not known to MOS"),
            ]
        );
        here.cards.push("vsi_v4l2enc");
        let choice = choose(H264, &SOME, &here);
        assert_eq!(choice.chosen.unwrap().memory, Memory::Dmabuf);
        assert_eq!(elements(&choice)[2], ("x264enc", "works on the CPU; v4l2h264enc does not"));
        assert!(choose(H264, &SOME, &Described::default()).chosen.is_none());
    }

    #[test]
    fn an_encoder_is_only_asked_for_what_it_takes() {
        let refused = |family: &Family, size, bitrate| family.refusal(size, bitrate).unwrap_or_default();
        assert_eq!(refused(&VSI_H264, (1920, 1080), 8_000_000), "");
        let takes = "takes pictures from 64x64 to 1920x1088";
        assert_eq!(refused(&VSI_H264, (3840, 2160), 8_000_000), format!("v4l2h264enc {takes}, not 3840x2160"));
        assert_eq!(refused(&VPUENC_H264, (32, 32), 8_000_000), format!("vpuenc_h264 {takes}, not 32x32"));
        assert_eq!(refused(&X264, (3840, 2160), 200_000_000), "");
        let why = refused(&VSI_H264, (1280, 720), 9_999);
        assert_eq!(why, "v4l2h264enc takes bit rates from 10000 to 288000000 bit/s, not 9999");
    }

    #[test]
    fn bit_rates_are_counted_in_the_elements_own_unit() {
        assert!(VPUENC_H264.text(4_000_000, 30, Memory::Dmabuf).contains("bitrate=4000 gop-size=30"));
        assert!(VSI_H264.text(4_000_000, 30, Memory::Dmabuf).contains("video_bitrate=4000000,"));
        assert!(QTIC2_H264.text(4_000_000, 30, Memory::Dmabuf).contains("target-bitrate=4000000 "));
        assert!(VSI_H264.text(1, 1, Memory::Dmabuf).contains("output-io-mode=dmabuf-import"));
        assert!(VSI_H264.text(1, 1, Memory::System).contains("output-io-mode=mmap"));
        assert!(X264.text(999, 30, Memory::System).contains("bitrate=1 "));
        for family in SOME.iter().chain(&[&IRIS_H264, &QTIC2_H265, &X265]) {
            assert!(!family.text(1, 1, Memory::System).contains(['{', '}']), "{}", family.element);
        }
    }

    /// Each row has what the rest of the crate takes for granted.
    #[test]
    fn every_row_of_the_table_is_complete() {
        let rows = crate::probe::SOCS.iter().flat_map(|soc| soc.elements()).copied().chain(SOFTWARE);
        for row in rows {
            assert!(!row.element.is_empty() && !row.facts.is_empty(), "{row:?}");
            assert!(row.facts.contains(['[']), "{} has no grade", row.element);
            assert!(row.template.is_empty() || row.template.contains(row.element), "{}", row.element);
            if matches!(row.task, Task::Encode(_)) && !row.template.is_empty() {
                assert!(row.template.contains("{bitrate}") && row.template.contains("{gop}"), "{}", row.element);
            }
        }
    }
}

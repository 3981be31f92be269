//! GMSL links in the device list and as figures for Prometheus. Reads what the HAL's watch knows; asks no chip.

use std::fmt;
use std::sync::Arc;

use mos_hal::gmsl::{GmslLink, LinkReport};
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A lens's GMSL link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GmslLinkView {
    /// The lens at its far end, by the device tree.
    pub lens: String,
    /// The deserializer's node in the device tree.
    pub deserializer: String,
    /// Which of its links, from 0.
    pub link: u8,
    /// What may be done with the chip: `full`, `read_only` or `none`.
    pub access: String,
    /// Why not more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_why: Option<String>,
    /// How it is; absent while that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<GmslStateView>,
    /// Why its state is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Why it is dark although MOS sets it up, and when that is tried again; absent while it runs or others set it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dark: Option<String>,
}

/// How a link is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GmslStateView {
    /// Serializer and deserializer hear each other.
    pub locked: bool,
    /// Video arrives.
    pub video_locked: bool,
    /// The coax line: `normal`, `short_to_battery`, `short_to_ground`, `open` or `unknown`.
    pub line: String,
    /// Symbols that could not be decoded since the daemon started, at least.
    pub decode_errors: u64,
    /// Errors in idle words, likewise.
    pub idle_errors: u64,
    /// How often lock was seen lost.
    pub lock_losses: u64,
}

/// All links, in the order of the device tree.
pub(super) fn views(links: &[Arc<dyn GmslLink>]) -> Vec<GmslLinkView> {
    let view = |link: &Arc<dyn GmslLink>| {
        let (access, report) = (link.access(), link.report());
        GmslLinkView {
            lens: link.lens().to_string(),
            deserializer: link.deserializer().to_owned(),
            link: link.link().number(),
            access: access.name().to_owned(),
            access_why: access.why().map(str::to_owned),
            problem: report.as_ref().err().cloned(),
            dark: link.dark(),
            state: report.ok().map(GmslStateView::from),
        }
    };
    links.iter().map(view).collect()
}

impl From<LinkReport> for GmslStateView {
    fn from(report: LinkReport) -> Self {
        Self {
            locked: report.state.lock,
            video_locked: report.state.video_lock,
            line: report.state.line.name().to_owned(),
            decode_errors: report.decode_errors,
            idle_errors: report.idle_errors,
            lock_losses: report.lock_losses,
        }
    }
}

/// What needs attention: links that MOS sets up and that stay dark.
pub(crate) fn alarm(links: &[Arc<dyn GmslLink>]) -> Option<String> {
    let dark: Vec<String> = links.iter().filter_map(|l| Some(format!("{}: {}", l.lens(), l.dark()?))).collect();
    (!dark.is_empty()).then(|| format!("GMSL links are dark: {}", dark.join("; ")))
}

type Figure = fn(&GmslStateView) -> u64;

/// Gauges and counters of all links; one that is not known has no figures but `gmsl_link_known` 0.
pub(super) fn encode(links: &[GmslLinkView], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    if links.is_empty() {
        return Ok(());
    }
    let numbers: Vec<String> = links.iter().map(|l| l.link.to_string()).collect();
    let labels = |at: usize| {
        let link = &links[at];
        [("lens", link.lens.as_str()), ("deserializer", &link.deserializer), ("link", &numbers[at])]
    };
    let help = "1 while the state of the GMSL link is known";
    let mut metric = encoder.encode_descriptor("gmsl_link_known", help, None, MetricType::Gauge)?;
    for (at, link) in links.iter().enumerate() {
        metric.encode_family(&labels(at))?.encode_gauge(&i64::from(link.state.is_some()))?;
    }
    let help = "1 while the GMSL link is dark although MOS sets it up";
    let mut metric = encoder.encode_descriptor("gmsl_link_dark", help, None, MetricType::Gauge)?;
    for (at, link) in links.iter().enumerate() {
        metric.encode_family(&labels(at))?.encode_gauge(&i64::from(link.dark.is_some()))?;
    }
    let states = || links.iter().enumerate().filter_map(|(at, link)| Some((at, link.state.as_ref()?)));
    let gauges: [(&str, &str, Figure); 3] = [
        ("gmsl_link_locked", "1 while the GMSL link is locked", |s| u64::from(s.locked)),
        ("gmsl_video_locked", "1 while video arrives over the GMSL link", |s| u64::from(s.video_locked)),
        ("gmsl_line_fault", "1 while the coax line is open or shorted", |s| {
            u64::from(!matches!(s.line.as_str(), "normal" | "unknown"))
        }),
    ];
    for (name, help, figure) in gauges {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (at, state) in states() {
            metric.encode_family(&labels(at))?.encode_gauge(&(figure(state) as i64))?;
        }
    }
    let counters: [(&str, &str, Figure); 3] = [
        ("gmsl_decode_errors", "Symbols that could not be decoded, at least", |s| s.decode_errors),
        ("gmsl_idle_errors", "Errors in idle words, at least", |s| s.idle_errors),
        ("gmsl_lock_losses", "How often lock was seen lost", |s| s.lock_losses),
    ];
    for (name, help, figure) in counters {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (at, state) in states() {
            let labels = labels(at);
            metric.encode_family(&labels)?.encode_counter::<[(&str, &str); 0], _, u64>(&figure(state), None)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mos_hal::gmsl::{Access, Line, Link, LinkState};
    use mos_hal::media::LensId;
    use prometheus_client::collector::Collector;
    use prometheus_client::registry::Registry;

    use super::*;

    /// A link with a given report.
    struct Told(LensId, Result<LinkReport, String>, Option<String>);

    impl GmslLink for Told {
        fn lens(&self) -> &LensId {
            &self.0
        }
        fn deserializer(&self) -> &'static str {
            "/i2c@1/gmsl@29"
        }
        fn link(&self) -> Link {
            Link::C
        }
        fn access(&self) -> Access {
            Access::ReadOnly("the kernel's driver max96712 sets it up".into())
        }
        fn report(&self) -> Result<LinkReport, String> {
            self.1.clone()
        }
        fn dark(&self) -> Option<String> {
            self.2.clone()
        }
    }

    #[derive(Debug)]
    struct Figures(Vec<GmslLinkView>);

    impl Collector for Figures {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            encode(&self.0, &mut encoder)
        }
    }

    fn told(name: &str, report: Result<LinkReport, String>, dark: Option<&str>) -> Arc<dyn GmslLink> {
        Arc::new(Told(LensId::new(name).unwrap(), report, dark.map(str::to_owned)))
    }

    #[test]
    fn links_are_listed_and_counted() {
        let state = LinkState { lock: true, video_lock: false, line: Line::Open };
        let report = LinkReport { state, decode_errors: 300, idle_errors: 2, lock_losses: 1 };
        let links = [told("left", Ok(report), Some("no lock")), told("rear", Err("no acknowledge".into()), None)];
        assert_eq!(alarm(&links).as_deref(), Some("GMSL links are dark: left: no lock"));
        assert_eq!(alarm(&links[1..]), None);
        let views = views(&links);
        assert_eq!(views[0].state.as_ref().unwrap().line, "open");
        assert_eq!((views[0].link, views[0].access.as_str()), (2, "read_only"));
        assert_eq!((&views[1].state, views[1].problem.as_deref()), (&None, Some("no acknowledge")));
        let mut registry = Registry::with_prefix("mos");
        registry.register_collector(Box::new(Figures(views)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let left = "{lens=\"left\",deserializer=\"/i2c@1/gmsl@29\",link=\"2\"}";
        for line in [
            format!("mos_gmsl_link_known{left} 1"),
            format!("mos_gmsl_link_locked{left} 1"),
            format!("mos_gmsl_link_dark{left} 1"),
            format!("mos_gmsl_video_locked{left} 0"),
            format!("mos_gmsl_line_fault{left} 1"),
            format!("mos_gmsl_decode_errors_total{left} 300"),
            format!("mos_gmsl_idle_errors_total{left} 2"),
            format!("mos_gmsl_lock_losses_total{left} 1"),
            format!("mos_gmsl_link_known{} 0", left.replace("left", "rear")),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        assert!(!text.contains("mos_gmsl_link_locked{lens=\"rear\""), "unknown is not unlocked: {text}");
    }
}

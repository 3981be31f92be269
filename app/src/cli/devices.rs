//! `mos devices`

use clap::Args;

use super::client::Client;
use super::print::{self, Table};
use super::{Outcome, Report};
use crate::http::DeviceList;

#[derive(Debug, Args)]
pub(super) struct DevicesArgs {
    /// Search for network cameras, too, and ask those that are configured as onvif:// what they offer.
    #[arg(long)]
    network: bool,
    #[command(flatten)]
    report: Report,
}

pub(super) async fn execute(client: &Client, args: &DevicesArgs) -> Outcome {
    let path = if args.network { "/v1/capture/devices?network=true" } else { "/v1/capture/devices" };
    let list: DeviceList = client.get(path).await?;
    if args.report.json {
        return print::json(&list);
    }
    print::line(&format!("platform {} ({})", list.platform, list.evidence))?;
    let mut table = Table::new(["ID", "NAME", "TRANSPORT", "NODE", "BEST MODE"]);
    for device in &list.devices {
        let best = device.modes.iter().max_by_key(|mode| u64::from(mode.width) * u64::from(mode.height));
        let best = best.map_or_else(String::new, |mode| {
            let rate = if mode.max_fps > 0.0 { format!(" at {:.0} fps", mode.max_fps) } else { String::new() };
            format!("{} {}x{}{rate}", mode.format, mode.width, mode.height)
        });
        let node = device.node.clone().unwrap_or_default();
        table.row([device.id.clone(), device.name.clone(), device.transport.clone(), node, best]);
    }
    if table.is_empty() {
        print::line("no capture devices are attached")?;
    } else {
        table.print()?;
    }
    // What a network camera says of itself does not fit into a line.
    for device in list.devices.iter().filter(|device| device.transport == "onvif") {
        print::line(&format!("onvif {}", device.id))?;
        for (name, value) in &device.properties {
            print::line(&format!("  {name}: {value}"))?;
        }
    }
    for link in &list.gmsl {
        let state = match (&link.state, &link.problem) {
            (Some(s), _) => {
                let lock = match (s.locked, s.video_locked) {
                    (true, true) => "locked, with video",
                    (true, false) => "locked, without video",
                    (false, _) => "not locked",
                };
                format!("{lock}, line {}, {} decode and {} idle errors", s.line, s.decode_errors, s.idle_errors)
            }
            (None, problem) => format!("not known: {}", problem.as_deref().unwrap_or("no reason is told")),
        };
        let state = link.dark.iter().fold(state, |state, dark| format!("{state}; dark: {dark}"));
        print::line(&format!("gmsl {}: link {} of {}, {state}", link.lens, link.link, link.deserializer))?;
    }
    Ok(())
}

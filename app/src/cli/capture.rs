//! `mos capture`

use clap::{Args, Subcommand};

use super::client::Client;
use super::print::{self, Table};
use super::{Failure, Outcome, Report, devices, times};
use crate::capture::StreamSettings;
use crate::http::{CaptureStatusView, CaptureView, PowerView};

#[derive(Debug, Args)]
pub(super) struct CaptureArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List capture devices
    List(devices::DevicesArgs),
    /// Tell how each lens is captured
    Status(StatusArgs),
    /// Change what is asked of a lens, or add one; kept over restarts
    Configure(ConfigureArgs),
    /// Start a lens that is idle
    Start(LensArgs),
    /// Stop a lens until it is started, over restarts
    Stop(LensArgs),
    /// Drop source, circuit breaker and delays of a lens and start it anew
    Reset(LensArgs),
    /// Take out a lens that was added; its footage stays
    Remove(LensArgs),
    /// Tell where the recorder stands between ignition and parking, and how fast it was woken last
    Power(StatusArgs),
    /// Bring a parked recorder back
    Wake(StatusArgs),
    /// Park the recorder at once
    Park(StatusArgs),
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    report: Report,
}

#[derive(Debug, Args)]
struct LensArgs {
    /// The lens
    lens: String,
    #[command(flatten)]
    report: Report,
}

#[derive(Debug, Args)]
struct ConfigureArgs {
    /// The lens
    lens: String,
    /// Width and height in pixels
    #[arg(long, value_name = "WxH", value_parser = size)]
    size: Option<(u32, u32)>,
    /// Frames per second
    #[arg(long)]
    frame_rate: Option<u32>,
    /// h264 or h265
    #[arg(long)]
    codec: Option<String>,
    /// Target in bit/s
    #[arg(long)]
    bitrate: Option<u32>,
    /// Frames from keyframe to keyframe
    #[arg(long)]
    gop: Option<u32>,
    /// Degrees clockwise
    #[arg(long)]
    rotation: Option<u32>,
    /// Whether sound is recorded
    #[arg(long)]
    audio: Option<bool>,
    /// What is not given becomes what the configuration file says
    #[arg(long)]
    from_file: bool,
    /// Add the lens: an id of `mos capture list`, or a source as in the configuration file, without a password
    #[arg(long)]
    device: Option<String>,
    #[command(flatten)]
    report: Report,
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    parts.ok_or_else(|| "a size looks like 1280x720".to_owned())
}

pub(super) async fn execute(client: &Client, args: &CaptureArgs) -> Outcome {
    match &args.command {
        Command::List(args) => devices::execute(client, args).await,
        Command::Status(args) => status(client, args).await,
        Command::Configure(args) => configure(client, args).await,
        Command::Start(args) => ask(client, args, "start").await,
        Command::Stop(args) => ask(client, args, "stop").await,
        Command::Reset(args) => ask(client, args, "reset").await,
        Command::Remove(args) => remove(client, args).await,
        Command::Power(args) => power(&client.get("/v1/capture/power").await?, args.report),
        Command::Wake(args) => power(&client.post("/v1/capture/wake", &()).await?, args.report),
        Command::Park(args) => power(&client.post("/v1/capture/park", &()).await?, args.report),
    }
}

async fn status(client: &Client, args: &StatusArgs) -> Outcome {
    let status: CaptureStatusView = client.get("/v1/capture/status").await?;
    if args.report.json {
        return print::json(&status);
    }
    let mut table = Table::new([
        "LENS",
        "STATE",
        "SINCE (UTC)",
        "PICTURE",
        ">FPS",
        ">MBIT/S",
        ">KEY S",
        ">DURABLE S",
        ">DROPPED",
        ">AGAIN",
        "BREAKER",
        "LAST ERROR",
    ]);
    let seconds = |span: Option<f64>| span.map_or_else(String::new, |s| format!("{s:.2}"));
    for lens in &status.lenses {
        let picture = lens.codec.as_ref().map(|codec| format!("{codec} {}x{}", lens.width, lens.height));
        table.row([
            lens.lens.clone(),
            state(lens),
            times::show(lens.since_ts),
            picture.unwrap_or_default(),
            format!("{:.1}", lens.frame_rate),
            format!("{:.2}", lens.bitrate as f64 / 1e6),
            seconds(lens.keyframe_interval),
            seconds(lens.durable_latency),
            lens.dropped.values().sum::<u64>().to_string(),
            lens.reconnects.to_string(),
            lens.breaker.state.clone(),
            lens.last_error.clone().unwrap_or_default(),
        ]);
    }
    if table.is_empty() {
        print::line("no cameras are configured")?;
    } else {
        table.print()?;
    }
    for (lens, degraded) in status.lenses.iter().filter_map(|lens| Some((lens, lens.degraded.as_ref()?))) {
        let since = times::show(degraded.since_ts);
        print::line(&format!("{} is {} since {since}: {}", lens.lens, degraded.step, degraded.why))?;
    }
    Ok(())
}

async fn configure(client: &Client, args: &ConfigureArgs) -> Outcome {
    let settings = StreamSettings {
        width: args.size.map(|size| size.0),
        height: args.size.map(|size| size.1),
        frame_rate: args.frame_rate,
        codec: args.codec.clone(),
        bitrate: args.bitrate,
        gop: args.gop,
        rotation: args.rotation,
        audio: args.audio,
    };
    if settings == StreamSettings::default() && !args.from_file && args.device.is_none() {
        return Err(Failure::Usage("nothing is asked for; see --help".to_owned()));
    }
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("from_file", &args.from_file.to_string());
    if let Some(device) = &args.device {
        query.append_pair("device", device);
    }
    let path = format!("{}?{}", path(&args.lens, "configure")?, query.finish());
    tell(&client.post(&path, &settings).await?, args.report)
}

async fn ask(client: &Client, args: &LensArgs, operation: &str) -> Outcome {
    tell(&client.post(&path(&args.lens, operation)?, &()).await?, args.report)
}

async fn remove(client: &Client, args: &LensArgs) -> Outcome {
    let lens: CaptureView = client.delete(&path(&args.lens, "")?).await?;
    if args.report.json {
        return print::json(&lens);
    }
    print::line(&format!("{} is gone; its footage stays", lens.lens))
}

fn power(power: &PowerView, report: Report) -> Outcome {
    if report.json {
        return print::json(power);
    }
    let until = power.until_ts.map_or_else(String::new, |ts| format!(", until {}", times::show(ts)));
    print::line(&format!("{} since {}{until}", power.state, times::show(power.since_ts)))?;
    let Some(wake) = &power.last_wake else { return Ok(()) };
    print::line(&format!("woken {} times, last {} by {}", power.wakes, times::show(wake.at_ts), wake.by))?;
    for (lens, seconds) in &wake.keyframe_seconds {
        print::line(&format!("{lens}: the first keyframe was durable after {seconds:.2} s"))?;
    }
    wake.waiting.iter().try_for_each(|lens| print::line(&format!("{lens}: nothing is durable yet")))
}

/// The API's path of an operation; a text that is no lens never gets into a path.
fn path(lens: &str, operation: &str) -> Result<String, Failure> {
    let lens = mos_hal::media::LensId::new(lens).map_err(|e| Failure::Usage(e.to_string()))?;
    let separator = if operation.is_empty() { "" } else { "/" };
    Ok(format!("/v1/capture/lenses/{lens}{separator}{operation}"))
}

fn tell(lens: &CaptureView, report: Report) -> Outcome {
    if report.json {
        return print::json(lens);
    }
    print::line(&format!("{} is {}: {}", lens.lens, state(lens), lens.source))
}

fn state(lens: &CaptureView) -> String {
    match &lens.cause {
        Some(cause) => format!("{} ({cause})", lens.state),
        None if lens.degraded.is_some() => format!("{} (reduced)", lens.state),
        None => lens.state.clone(),
    }
}

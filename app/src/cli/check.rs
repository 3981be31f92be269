//! `mos check`: looks through an archive that no daemon uses.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use mos_hal::clock::SystemClock;

use super::{Failure, Outcome, Report, print};
use crate::archive::check::{self, Report as Found};
use crate::archive::disk::{Disk, RealDisk};
use crate::{evidence, upload};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The archive's root
    root: PathBuf,
    /// Mend what can be mended; deletes no media
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    report: Report,
}

pub(super) fn execute(args: &CheckArgs) -> Outcome {
    let root = &args.root;
    if !root.join("segments").is_dir() {
        return Err(Failure::Failed(format!("{} is no archive: it has no folder 'segments'", root.display())));
    }
    let failed = |why: String| Failure::Failed(why);
    let disk = RealDisk::open(root).map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => {
            failed(format!("{} is in use by a running mos; stop it first", root.display()))
        }
        _ => failed(format!("cannot open {}: {e}", root.display())),
    })?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let found = if args.repair {
        let clock = SystemClock::new().map_err(|e| failed(format!("cannot read the clocks: {e}")))?;
        check::repair(&disk, Arc::new(clock))
    } else {
        check::check(disk.as_ref())
    };
    let mut found = found.map_err(|e| failed(e.to_string()))?;
    let older = evidence::chain::older(disk.as_ref());
    found.notes.extend(older.unwrap_or_default().iter().map(|path| {
        let path = path.display();
        format!("{path} is a chain of an older form, by which nothing is judged: what it links is linked anew, as late")
    }));
    match upload::check::check(root, args.repair) {
        Ok(queue) => {
            found.damaged.extend(queue.damaged);
            found.notes.extend(queue.notes);
            found.repairs.extend(queue.repairs);
        }
        Err(e) => found.unreadable.push(format!("the queue of uploads: {e}")),
    }
    if args.report.json {
        print::json(&found)?;
    } else {
        print::line(&text(&found))?;
    }
    if found.is_sound() {
        return Ok(());
    }
    let hint = if args.repair { "see above" } else { "run `mos check ROOT --repair`" };
    Err(failed(format!("{} needs attention: {hint}", root.display())))
}

fn text(found: &Found) -> String {
    let mut lines = vec![format!(
        "{} segments: {} closed, {} not closed, {} newer, {} protected; {} in quarantine",
        found.segments,
        found.closed,
        found.unclosed.len(),
        found.newer,
        found.protected,
        found.quarantined
    )];
    lines.extend(found.unclosed.iter().map(|id| format!("not closed: {id} (the next start closes it)")));
    lines.extend(found.strangers.iter().map(|p| format!("not of MOS: {p}")));
    lines.extend(found.damaged.iter().map(|d| format!("damaged: {d}")));
    lines.extend(found.unreadable.iter().map(|d| format!("unreadable: {d}")));
    lines.extend(found.notes.iter().map(|n| format!("note: {n}")));
    lines.extend(found.index.iter().map(|why| format!("index snapshot: {why} (the next start rebuilds it)")));
    lines.extend(found.repairs.iter().map(|r| format!("repaired: {r}")));
    lines.join("\n")
}

//! `mos verify` and `mos manifest`. Verifying needs no daemon and no archive, only the files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use clap::Args;
use mos_mp4::ReadAt;
use serde_json::json;

use super::client::Client;
use super::{Failure, Outcome, Report, print};
use crate::clip::ClipId;
use crate::evidence::chain;
use crate::evidence::manifest::Signed;
use crate::evidence::verify::{self, Verdict};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// A clip, or a segment
    file: PathBuf,
    /// The clip's manifest, as `mos manifest` prints it [default: FILE with .json in place of .mp4]
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// The part of the chain that holds a segment; what is before it is not looked at then [default: the chain as it lies in the archive, back to the start of its run]
    #[arg(long, value_name = "FILE", conflicts_with = "manifest")]
    chain: Option<PathBuf>,
    /// The public key of the device; without it any key is accepted, and printed
    #[arg(long, value_name = "ed25519:…")]
    key: Option<String>,
    #[command(flatten)]
    report: Report,
}

#[derive(Debug, Args)]
pub(super) struct ManifestArgs {
    /// The clip, clip-RUN-NUMBER
    clip: String,
}

/// A file to be judged.
struct Stored(File);

impl ReadAt for Stored {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.0.read_at(&mut buf[filled..], offset.saturating_add(filled as u64))? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

pub(super) fn execute(args: &VerifyArgs) -> Outcome {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |e: io::Error| Failure::Failed(format!("{path}: {e}"))
    };
    let file = Stored(File::open(&args.file).map_err(failed(&args.file))?);
    let key = args.key.as_deref();
    let beside = args.file.with_extension("json");
    let manifest = args.manifest.clone().or_else(|| (args.chain.is_none() && beside.is_file()).then_some(beside));
    let verdict = if let Some(path) = manifest {
        let text = std::fs::read(&path).map_err(failed(&path))?;
        let signed = Signed::read(&text).map_err(|e| Failure::Failed(format!("{}: {e}", path.display())))?;
        verify::clip(&file, &signed, key)
    } else if let Some(path) = &args.chain {
        verify::segment(&file, &std::fs::read(path).map_err(failed(path))?, None, key)
    } else {
        let path = chain_of(&args.file).ok_or_else(|| {
            Failure::Usage("say what attests it: --manifest of a clip, --chain of a segment's run".to_owned())
        })?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let beside = |name: &str| optional(&folder.join(name));
        verify::segment(&file, &optional(&path).map_err(failed(&path))?, Some(&beside), key)
    };
    if args.report.json {
        print::json(&told(&verdict))?;
    } else if matches!(verdict, Verdict::Intact { .. }) {
        print::line(&verdict.to_string())?;
    }
    match verdict {
        Verdict::Intact { .. } => Ok(()),
        other => Err(Failure::Failed(format!("{} is {other}", args.file.display()))),
    }
}

/// The contents of a file; none if it is not there.
fn optional(path: &Path) -> io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

/// The verdict for programs: every member is always there.
fn told(verdict: &Verdict) -> serde_json::Value {
    let none: &[String] = &[];
    let (name, key, places, late) = match verdict {
        Verdict::Intact { key, later } => ("intact", Some(key), none, later.as_slice()),
        Verdict::Late { key, segments } => ("late", Some(key), none, segments.as_slice()),
        Verdict::Tampered(places) => ("tampered", None, places.as_slice(), none),
        Verdict::Incomplete(places) => ("incomplete", None, places.as_slice(), none),
        Verdict::Unlinked(why) => ("unlinked", None, std::slice::from_ref(why), none),
    };
    json!({ "verdict": name, "places": places, "key": key, "later": late })
}

/// Where the chain of a segment lies in its archive: `segments/{lens}/{run}/{seq}.mp4` has
/// `evidence/{lens}/{run}-{part}.jsonl`.
fn chain_of(file: &Path) -> Option<PathBuf> {
    let file = file.canonicalize().ok()?;
    let run = file.parent()?;
    let lens = run.parent()?;
    let root = lens.parent().filter(|folder| folder.file_name().is_some_and(|name| name == "segments"))?.parent()?;
    let part = chain::part_of(file.file_stem()?.to_str()?.parse().ok()?);
    let name = chain::part_name(run.file_name()?.to_str()?.parse().ok()?, part);
    Some(root.join(chain::FOLDER).join(lens.file_name()?).join(name))
}

pub(super) async fn manifest(client: &Client, args: &ManifestArgs) -> Outcome {
    let clip = ClipId::parse(&args.clip).ok_or_else(|| Failure::Usage("a clip is clip-RUN-NUMBER".to_owned()))?;
    let signed: Signed = client.get(&format!("/v1/clips/{clip}/manifest")).await?;
    // Members stand in the order in which they were signed, whoever writes them.
    print::json(&signed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn programs_are_told_the_key_and_what_was_linked_late() {
        let later = vec!["road-1-7".to_owned()];
        let intact = told(&Verdict::Intact { key: "ed25519:A".into(), later: later.clone() });
        assert_eq!(intact, json!({"verdict": "intact", "places": [], "key": "ed25519:A", "later": ["road-1-7"]}));
        let late = told(&Verdict::Late { key: "ed25519:A".into(), segments: later });
        assert_eq!(late, json!({"verdict": "late", "places": [], "key": "ed25519:A", "later": ["road-1-7"]}));
        let harmed = told(&Verdict::Tampered(vec!["here".into()]));
        assert_eq!(harmed, json!({"verdict": "tampered", "places": ["here"], "key": null, "later": []}));
    }

    #[test]
    fn the_chain_of_a_segment_lies_where_its_number_says() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let file = root.join("segments/road/3/130.mp4");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, b"").unwrap();
        assert_eq!(chain_of(&file), Some(root.join("evidence/road/3-2.jsonl")));
    }
}

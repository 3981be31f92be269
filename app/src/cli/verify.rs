//! `mos verify` and `mos manifest`. Verifying needs no daemon and no archive, only the files.

use std::collections::BTreeMap;
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
use crate::evidence::judged::Judged;
use crate::evidence::manifest::Signed;
use crate::evidence::verify::{self, Verdict};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Clips or segments; segments of a run that are judged in one call share what their chain costs
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
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

/// What was judged of chains, by the folders that they lie in.
type Folders = BTreeMap<PathBuf, Judged>;

pub(super) fn execute(args: &VerifyArgs) -> Outcome {
    let mut folders = Folders::new();
    let [file] = args.files.as_slice() else { return each(args, &mut folders) };
    let verdict = judge(file, args, &mut folders)?;
    if args.report.json {
        print::json(&told(&verdict))?;
    } else if is_intact(&verdict) {
        print::line(&verdict.to_string())?;
    }
    if is_intact(&verdict) { Ok(()) } else { Err(Failure::Failed(format!("{} is {verdict}", file.display()))) }
}

/// Judges several files, and tells of each. One that cannot be read keeps nobody from the others.
fn each(args: &VerifyArgs, folders: &mut Folders) -> Outcome {
    if args.manifest.is_some() {
        return Err(Failure::Usage("--manifest speaks of one clip: name that alone".to_owned()));
    }
    let (mut rows, mut intact) = (Vec::new(), 0);
    for file in &args.files {
        let verdict = one_of_several(file, args, folders)?;
        intact += usize::from(verdict.as_ref().is_ok_and(is_intact));
        if args.report.json {
            rows.push(row(file, &verdict));
        } else {
            let what = verdict.map_or_else(|why| format!("not judged: {why}"), |verdict| verdict.to_string());
            print::line(&format!("{}: {what}", file.display()))?;
        }
    }
    if args.report.json {
        print::json(&rows)?;
    }
    match args.files.len() - intact {
        0 => Ok(()),
        others => Err(Failure::Failed(format!("{others} of {} files are not intact", args.files.len()))),
    }
}

/// Judges a file; or why it cannot be judged, without its name, which is told with each.
fn one_of_several(file: &Path, args: &VerifyArgs, folders: &mut Folders) -> Result<Result<Verdict, String>, Failure> {
    let named = format!("{}: ", file.display());
    match judge(file, args, folders) {
        Ok(verdict) => Ok(Ok(verdict)),
        Err(Failure::Failed(why) | Failure::Usage(why)) => {
            Ok(Err(why.strip_prefix(&named).map_or_else(|| why.clone(), str::to_owned)))
        }
        Err(gone @ Failure::NobodyReads) => Err(gone),
    }
}

/// Judges a file by what attests it.
fn judge(file: &Path, args: &VerifyArgs, folders: &mut Folders) -> Result<Verdict, Failure> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |e: io::Error| Failure::Failed(format!("{path}: {e}"))
    };
    let stored = Stored(File::open(file).map_err(failed(file))?);
    let key = args.key.as_deref();
    let beside = file.with_extension("json");
    let manifest = args.manifest.clone().or_else(|| (args.chain.is_none() && beside.is_file()).then_some(beside));
    Ok(if let Some(path) = manifest {
        let text = std::fs::read(&path).map_err(failed(&path))?;
        let signed = Signed::read(&text).map_err(|e| Failure::Failed(format!("{}: {e}", path.display())))?;
        verify::clip(&stored, &signed, key)
    } else if let Some(path) = &args.chain {
        let judged = folders.entry(PathBuf::new()).or_default();
        verify::segment(&stored, &std::fs::read(path).map_err(failed(path))?, None, key, judged)
    } else {
        let path = chain_of(file).ok_or_else(|| {
            Failure::Usage("say what attests it: --manifest of a clip, --chain of a segment's run".to_owned())
        })?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let beside = |name: &str| optional(&folder.join(name));
        let judged = folders.entry(folder.to_owned()).or_default();
        verify::segment(&stored, &optional(&path).map_err(failed(&path))?, Some(&beside), key, judged)
    })
}

fn is_intact(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Intact { .. })
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

/// The same of one of several files; no verdict of one that cannot be judged, and then why.
fn row(file: &Path, verdict: &Result<Verdict, String>) -> serde_json::Value {
    let mut row = match verdict {
        Ok(verdict) => told(verdict),
        Err(why) => json!({ "verdict": null, "places": [why], "key": null, "later": [] }),
    };
    row["file"] = file.display().to_string().into();
    row
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
    fn of_several_files_each_is_told_and_one_that_cannot_be_judged_as_well() {
        let file = Path::new("segments/road/3/130.mp4");
        let intact = row(file, &Ok(Verdict::Intact { key: "ed25519:A".into(), later: Vec::new() }));
        let name = "segments/road/3/130.mp4";
        let told = json!({"file": name, "verdict": "intact", "places": [], "key": "ed25519:A", "later": []});
        assert_eq!(intact, told);
        let args =
            VerifyArgs { files: Vec::new(), manifest: None, chain: None, key: None, report: Report { json: true } };
        let unread = row(file, &one_of_several(file, &args, &mut Folders::new()).unwrap());
        let why = "No such file or directory (os error 2)";
        let told = json!({"file": name, "verdict": null, "places": [why], "key": null, "later": []});
        assert_eq!(unread, told);
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

//! Boards' device trees as Linux shows them, made from `device-tree/` by the tools that firmware is made with.
//!
//! Promises: `dtc -@` compiles, `fdtoverlay` applies, and the blob that comes out is written as directories and files as
//! under `/proc/device-tree`. Knows the format of blobs (Devicetree Specification 0.4, chapter 5), nothing of MOS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A board of `device-tree/fixtures`, and the overlay of `device-tree/overlays` on it, if any.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    /// `imx8mp-evk`, `qcs6490-rb3gen2`, `qcs6490-rb3gen2-camss` or `pc`.
    pub base: &'static str,
    /// `imx8mp-evk-mos-two-mipi` or `qcs6490-rb3gen2-mos`.
    pub overlay: Option<&'static str>,
}

/// The EVK with its two lenses.
pub const IMX8MP: Board = Board { base: "imx8mp-evk", overlay: Some("imx8mp-evk-mos-two-mipi") };
/// RB3 Gen 2 with its five lenses, cameras left to CamX.
pub const QCS6490: Board = Board { base: "qcs6490-rb3gen2", overlay: Some("qcs6490-rb3gen2-mos") };
/// The same with the kernel's camera drivers.
pub const QCS6490_CAMSS: Board = Board { base: "qcs6490-rb3gen2-camss", overlay: Some("qcs6490-rb3gen2-mos") };
/// A machine without a module.
pub const PC: Board = Board { base: "pc", overlay: None };

impl Board {
    /// Its live tree, in a folder that is removed with the value.
    #[must_use]
    pub fn live(self) -> TempDir {
        live_of_blob(&self.blob().unwrap())
    }

    /// Its blob, or what the tools said against it.
    pub fn blob(self) -> Result<Vec<u8>, String> {
        let folder = TempDir::new().unwrap();
        let base = compile(&device_tree().join("fixtures").join(self.base).with_extension("dts"), folder.path())?;
        match self.overlay {
            None => Ok(fs::read(base).unwrap()),
            Some(overlay) => with_overlay(&base, overlay),
        }
    }
}

/// The blob of a compiled base tree with an overlay of `device-tree/overlays`, or what the tools said against it.
pub fn with_overlay(base: &Path, overlay: &str) -> Result<Vec<u8>, String> {
    let folder = TempDir::new().unwrap();
    let overlay = compile(&device_tree().join("overlays").join(overlay).with_extension("dtso"), folder.path())?;
    let out = folder.path().join("out.dtb");
    run(Command::new("fdtoverlay").arg("-i").arg(base).arg("-o").arg(&out).arg(overlay))?;
    Ok(fs::read(out).unwrap())
}

/// What `dtc` finds odd in a blob, a line for each.
#[must_use]
pub fn warnings(blob: &[u8]) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("board.dtb");
    fs::write(&file, blob).unwrap();
    let mut dtc = Command::new("dtc");
    let done = dtc.args(["-I", "dtb", "-O", "dtb", "-o", "/dev/null"]).arg(file).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stderr).unwrap().lines().map(str::to_owned).collect()
}

/// The live tree of a blob.
#[must_use]
pub fn live_of_blob(blob: &[u8]) -> TempDir {
    let live = TempDir::new().unwrap();
    write(blob, live.path());
    live
}

/// The live tree of a text of tree source.
#[must_use]
pub fn live_of(source: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("board.dts");
    fs::write(&file, source).unwrap();
    live_of_blob(&fs::read(compile(&file, folder.path()).unwrap()).unwrap())
}

/// Where the sources lie.
#[must_use]
pub fn device_tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .find(|p| p.join("device-tree").is_dir())
        .unwrap()
        .join("device-tree")
}

/// Compiles with symbols. Warnings are errors.
fn compile(source: &Path, folder: &Path) -> Result<PathBuf, String> {
    let out = folder.join(source.file_name().unwrap()).with_extension("dtb");
    // An overlay has only one of the two ports that make the cell counts necessary.
    let mut dtc = Command::new("dtc");
    dtc.args(["-@", "-W", "no-graph_child_address", "-I", "dts", "-O", "dtb", "-i"]).arg(source.parent().unwrap());
    run(dtc.arg("-o").arg(&out).arg(source))?;
    Ok(out)
}

/// Fails with what the tool wrote, and also if it succeeded but warned.
fn run(tool: &mut Command) -> Result<(), String> {
    let done = tool.output().unwrap_or_else(|e| panic!("{tool:?}: {e}; install device-tree-compiler"));
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    if done.status.success() && said.is_empty() { Ok(()) } else { Err(format!("{tool:?}: {said}")) }
}

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// Writes a blob as the kernel shows it: a directory for each node, a file for each property, and the node's name in `name`.
fn write(blob: &[u8], root: &Path) {
    let word = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().unwrap());
    assert_eq!(word(0), 0xd00d_feed, "a flattened device tree");
    let (mut at, strings) = (word(8) as usize, word(12) as usize);
    let text = |at: usize| {
        let end = at + blob[at..].iter().position(|b| *b == 0).unwrap();
        std::str::from_utf8(&blob[at..end]).unwrap()
    };
    let mut open: Vec<PathBuf> = Vec::new();
    loop {
        let token = word(at);
        at += 4;
        match token {
            BEGIN_NODE => {
                let name = text(at);
                at = (at + name.len() + 1).next_multiple_of(4);
                let dir = open.last().map_or_else(|| root.to_owned(), |parent| parent.join(name));
                fs::create_dir_all(&dir).unwrap();
                let bare = name.split('@').next().unwrap_or_default();
                fs::write(dir.join("name"), format!("{bare}\0")).unwrap();
                open.push(dir);
            }
            END_NODE => drop(open.pop()),
            PROP => {
                let (len, name) = (word(at) as usize, text(strings + word(at + 4) as usize));
                fs::write(open.last().unwrap().join(name), &blob[at + 8..at + 8 + len]).unwrap();
                at = (at + 8 + len).next_multiple_of(4);
            }
            NOP => {}
            END => return,
            other => panic!("token {other} in a device tree"),
        }
    }
}

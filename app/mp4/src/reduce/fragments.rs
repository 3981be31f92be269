//! Fragments: which bytes of the file the samples of a `moof` are, and by which fields it says so.

use super::samples::aux_places;
use super::tree::{Node, Tree};
use super::{Live, ReduceError};
use crate::boxes::Fields;

/// The samples of one `trun`, which lie behind one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u64,
    pub(super) len: u64,
    /// What its data offset counts from: the place that the `tfhd` gives, the `moof`, or the end of the run before it.
    pub(super) base: u64,
    /// Where in the tree its data offset stands, if it has one.
    pub(super) offset_at: Option<usize>,
}

/// A `traf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Traf {
    /// Where in the tree its `tfhd` gives a place, and which.
    pub(super) base_at: Option<(usize, u64)>,
    pub(super) runs: Vec<Run>,
    pub(super) aux: Vec<Aux>,
}

/// Places of a `saio` in a fragment: where in the tree they begin, with 64 bits if `wide`, and what they count from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Aux {
    pub(super) at: usize,
    pub(super) wide: bool,
    pub(super) base: u64,
    pub(super) places: Vec<u64>,
}

/// Enters what the samples of a fragment refer to.
pub(super) fn survey(tree: &Tree, live: &mut Live) -> Result<(), ReduceError> {
    super::samples::obstacles(tree, live);
    for traf in trafs(tree, &live.defaults)? {
        for run in &traf.runs {
            live.ranges.push(run.start, run.start + run.len);
        }
        for aux in &traf.aux {
            if !aux.places.iter().all(|p| tree.range().contains(&aux.base.saturating_add(*p))) {
                live.obstruct(tree.place(aux.at), "auxiliary sample data outside of the moof");
            }
        }
    }
    Ok(())
}

/// All track fragments of a `moof` in order. `defaults` are sample sizes by track, in order of the tracks.
pub(super) fn trafs(tree: &Tree, defaults: &[(u32, u32)]) -> Result<Vec<Traf>, ReduceError> {
    let mut end = None;
    tree.children(0, *b"traf").map(|(number, node)| traf(tree, number, node, defaults, &mut end)).collect()
}

/// One `traf`; `end` is where the data of the one before it ends.
fn traf(
    tree: &Tree,
    number: usize,
    node: &Node,
    defaults: &[(u32, u32)],
    end: &mut Option<u64>,
) -> Result<Traf, ReduceError> {
    let (_, tfhd) = tree.only(number, *b"tfhd")?.ok_or(tree.malformed(node, "a traf without tfhd"))?;
    let head = Head::parse(tree.body(tfhd)).ok_or(tree.malformed(tfhd, "a tfhd that is cut short"))?;
    let origin = match (head.base, *end) {
        (Some(place), _) => place,
        (None, Some(end)) if !head.from_moof => end,
        _ => tree.at,
    };
    let trex = || defaults.binary_search_by_key(&head.track, |d| d.0).ok().and_then(|i| defaults.get(i)).map(|d| d.1);
    let common = head.size.or_else(trex);
    let mut runs: Vec<Run> = Vec::new();
    for (_, trun) in tree.children(number, *b"trun") {
        let bad = |what| tree.malformed(trun, what);
        let row = Trun::parse(tree.body(trun), common).ok_or(bad("a trun that contradicts itself"))?;
        let base = match (row.offset, runs.last()) {
            (None, Some(before)) => before.start + before.len,
            _ => origin,
        };
        let start = base.checked_add_signed(i64::from(row.offset.unwrap_or(0)));
        let start = start.filter(|s| s.checked_add(row.len).is_some()).ok_or(bad("a run that lies nowhere"))?;
        // Behind the box header, version and flags, and the number of samples.
        let offset_at = row.offset.map(|_| trun.body + 8);
        runs.push(Run { start, len: row.len, base, offset_at });
        *end = Some(start + row.len);
    }
    let mut aux = Vec::new();
    for (_, saio) in tree.children(number, *b"saio") {
        let body = tree.body(saio);
        let (from, places) = aux_places(body).ok_or(tree.malformed(saio, "a saio that is cut short"))?;
        aux.push(Aux { at: saio.body + from, wide: body.first() != Some(&0), base: origin, places });
    }
    // Behind the box header, version and flags, and the track.
    Ok(Traf { base_at: head.base.map(|place| (tfhd.body + 8, place)), runs, aux })
}

/// What a `tfhd` says.
struct Head {
    track: u32,
    base: Option<u64>,
    size: Option<u32>,
    from_moof: bool,
}

impl Head {
    fn parse(body: &[u8]) -> Option<Self> {
        let mut f = Fields::new(body);
        let (_, flags) = f.version_and_flags()?;
        let track = f.u32()?;
        let base = if flags & 0x1 != 0 { Some(f.u64()?) } else { None };
        for flag in [0x2, 0x8] {
            if flags & flag != 0 {
                f.u32()?;
            }
        }
        let size = if flags & 0x10 != 0 { Some(f.u32()?) } else { None };
        Some(Self { track, base, size, from_moof: flags & 0x02_0000 != 0 })
    }
}

/// What a `trun` says.
struct Trun {
    offset: Option<i32>,
    /// Bytes of all its samples.
    len: u64,
}

impl Trun {
    fn parse(body: &[u8], common: Option<u32>) -> Option<Self> {
        let mut f = Fields::new(body);
        let (_, flags) = f.version_and_flags()?;
        let count = f.u32()?;
        let offset = if flags & 0x1 != 0 { Some(f.i32()?) } else { None };
        if flags & 0x4 != 0 {
            f.u32()?;
        }
        let width = [0x100, 0x200, 0x400, 0x800].iter().filter(|flag| flags & **flag != 0).count() * 4;
        let rows = f.take((count as usize).checked_mul(width)?)?;
        let len = if flags & 0x200 != 0 {
            let skip = if flags & 0x100 != 0 { 4 } else { 0 };
            let size = |row: &[u8]| row.get(skip..skip + 4)?.try_into().ok().map(|b| u64::from(u32::from_be_bytes(b)));
            rows.chunks_exact(width).map(size).sum::<Option<u64>>()?
        } else if count == 0 {
            0
        } else {
            u64::from(common?) * u64::from(count)
        };
        Some(Self { offset, len })
    }
}

//! A world as text, to be read when a seed has failed.

use std::fmt::Write;

use mos::archive::Window;

use super::cameras::Sent;
use super::judge::Judge;
use super::verdict::gaps_of;
use super::world::{MS, World};

/// Lives, expected gaps, segments, gaps and what the cameras sent.
pub(crate) fn tell(world: &World, judge: &Judge) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for life in &world.lives {
        writeln!(text, "{life:?}")?;
    }
    for window in &world.windows {
        writeln!(text, "{window:?}")?;
    }
    let media = world.media();
    for (lens, id) in world.lenses.iter().enumerate() {
        for row in world.archive().catalog().segments(Some(id), Window::ALL, 0, usize::MAX) {
            let bytes = media.iter().find(|(p, _)| *p == row.path().to_string_lossy());
            let numbers = bytes.map(|(_, b)| judge.seen(b).numbers).unwrap_or_default();
            let ends = (numbers.first(), numbers.last());
            writeln!(text, "{:?} shows {} {ends:?}", row.row, numbers.len())?;
        }
        for (start, end, cause) in gaps_of(world, lens) {
            writeln!(text, "{id} gap {}..{} {}", start / MS, end / MS, cause.name())?;
        }
        let mut sent = world.cameras.log(id);
        sent.sort_by_key(|s| s.at);
        let together = |a: &Sent, b: &Sent| (a.life, a.decodable) == (b.life, b.decodable) && b.at - a.at < 200 * MS;
        for run in sent.chunk_by(together) {
            let (from, to) = (run[0], run[run.len() - 1]);
            let decodable = if from.decodable { "" } else { ", not decodable" };
            writeln!(text, "{id} sent {}..{} in life {}{decodable}", from.number, to.number, from.life)?;
        }
    }
    Ok(text)
}

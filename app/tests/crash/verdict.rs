//! Compares what a restarted archive holds with what the cameras sent and what was done to the box.

use std::collections::{BTreeMap, BTreeSet};

use mos::archive::gaps::GapCause;
use mos::archive::{SegmentRow, SegmentState, Window};

use super::cameras::Sent;
use super::judge::{Judge, Seen};
use super::world::{End, Life, MS, S, Window1, World};

/// Two frames and what rounding to ticks and microseconds adds.
const EDGE: i64 = 85 * MS;
/// What may lie between two frames, or a frame and a gap, that follow one another: half a frame, and rounding.
const SEAM: i64 = 22 * MS;
/// The loss that a power cut may cost while a sync takes at most 300 ms.
const LIMIT: i64 = S;

/// A life that ends sooner after its first keyframe may leave nothing: a tick and its sync.
const TOO_SHORT: i64 = 700 * MS;

/// What a cut cost.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    pub(crate) lens: usize,
    pub(crate) ns: i64,
    /// A sync took longer than 300 ms shortly before, or a disk fault was being dealt with: the promise does not hold.
    pub(crate) excused: bool,
}

/// A frame as found in a file.
struct Found {
    at: i64,
    number: u16,
    file: String,
}

/// Judges the whole world after its last life. Complaints are returned, one a line.
pub(crate) fn judge(world: &World, judge: &Judge) -> (Vec<Loss>, Vec<String>) {
    let mut complaints = Vec::new();
    let mut losses = Vec::new();
    let media = world.media();
    let rows = world.archive().catalog().segments(None, Window::ALL, 0, usize::MAX);
    promises(world, &rows, &media, &mut complaints);
    for (lens, id) in world.lenses.iter().enumerate() {
        let sent = world.cameras.log(id);
        let mine: Vec<&SegmentRow> = rows.iter().filter(|r| r.row.id.lens == *id).collect();
        let found = found_frames(world, &mine, &media, judge, &sent, &mut complaints);
        let removed = removed_spans(world, lens);
        for (n, life) in world.lives.iter().enumerate() {
            let Some(ns) = loss(n, life, &sent, &found, &removed) else { continue };
            if world.room_made && !world.is_remembered(lens, life) {
                continue;
            }
            let (excused, stopped) = (excuse(world, lens, life), life.end == End::Stop);
            let most = if stopped { 0 } else { LIMIT };
            if ns > most && !excused {
                complaints.push(format!("{id}: life {n} lost {} ms", ns / MS));
            }
            if !stopped {
                losses.push(Loss { lens, ns, excused });
            } else if !excused {
                stop(world, lens, life, &sent, &mine, &mut complaints);
            }
        }
        accounts(world, lens, &sent, &found, &removed, &mut complaints);
    }
    (losses, complaints)
}

/// Kept stays kept, removed stays removed, and no file is there that nobody knows.
fn promises(world: &World, rows: &[SegmentRow], media: &[(String, Vec<u8>)], complaints: &mut Vec<String>) {
    for id in &world.kept {
        match rows.iter().find(|r| r.row.id == *id) {
            None => complaints.push(format!("{id} was kept and is gone")),
            Some(row) if !row.row.protected => complaints.push(format!("{id} was kept and is not any more")),
            Some(_) => {}
        }
    }
    for id in &world.removed {
        let path = id.media_path();
        if rows.iter().any(|r| r.row.id == *id) || media.iter().any(|(p, _)| *p == path.to_string_lossy()) {
            complaints.push(format!("{id} was removed and is back"));
        }
    }
    let listed: BTreeSet<String> = rows.iter().map(|r| r.path().to_string_lossy().into_owned()).collect();
    for (path, _) in media.iter().filter(|(p, _)| !listed.contains(p)) {
        complaints.push(format!("{path} lies there and is not listed"));
    }
}

fn found_frames(
    world: &World,
    rows: &[&SegmentRow],
    media: &[(String, Vec<u8>)],
    judge: &Judge,
    sent: &[Sent],
    complaints: &mut Vec<String>,
) -> Vec<Found> {
    let by_number: BTreeMap<u16, &Sent> = sent.iter().map(|s| (s.number, s)).collect();
    let mut found: Vec<Found> = Vec::new();
    for row in rows {
        let id = &row.row.id;
        let path = row.path().to_string_lossy().into_owned();
        let Some((_, bytes)) = media.iter().find(|(p, _)| *p == path) else {
            complaints.push(format!("{id} is listed and there is no file"));
            continue;
        };
        let Seen { numbers, complaints: decoder } = judge.seen(bytes);
        if !decoder.is_empty() {
            complaints.push(format!("{id} ({:?}) does not decode cleanly: {}", row.row.state, decoder.trim()));
        }
        if numbers.len() != row.row.frames as usize {
            complaints.push(format!("{id} lists {} frames and shows {}", row.row.frames, numbers.len()));
        }
        let Some(life) = world.lives.iter().find(|l| l.run == id.run.0) else {
            complaints.push(format!("{id} is of no known run"));
            continue;
        };
        for number in numbers {
            let Some(origin) = number.and_then(|n| by_number.get(&n)) else {
                complaints.push(format!("{id} shows a picture that no camera sent: {number:?}"));
                continue;
            };
            found.push(Found { at: origin.at, number: origin.number, file: id.to_string() });
        }
        let mine: Vec<i64> = found.iter().filter(|f| f.file == id.to_string()).map(|f| f.at).collect();
        if let (Some(first), Some(last)) = (mine.iter().min(), mine.iter().max()) {
            let (start, end) = (row.row.start.0 + life.boot, row.row.end.0 + life.boot);
            if (start - first).abs() > MS || end < *last || end - last > 120 * MS {
                let ms = |t: i64| t / MS;
                complaints.push(format!(
                    "{id} says {}..{} and shows {}..{}",
                    ms(start),
                    ms(end),
                    ms(*first),
                    ms(*last)
                ));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for f in &found {
        if !seen.insert(f.number) {
            complaints.push(format!("frame {} is stored twice, also in {}", f.number, f.file));
        }
    }
    found.sort_by_key(|f| f.at);
    found
}

/// DESIGN's definition: newest frame delivered minus last frame that decodes, here per life.
fn loss(n: usize, life: &Life, sent: &[Sent], found: &[Found], removed: &[(i64, i64)]) -> Option<i64> {
    let mine = |s: &&Sent| s.life == n && s.decodable && s.delivered <= life.ended;
    let newest = sent.iter().filter(mine).map(|s| s.at).max()?;
    let of_life = |at: i64| sent.iter().any(|s| s.at == at && s.life == n);
    let last_found = found.iter().filter(|f| of_life(f.at)).map(|f| f.at).max();
    // What was removed on purpose had been there.
    let spans = removed.iter().filter(|r| r.1 > life.began && r.0 < life.ended);
    let last_removed = spans.map(|r| r.1.min(life.ended) - 40 * MS).max();
    let last = last_found.max(last_removed).unwrap_or(i64::MIN);
    // What a camera did not deliver in between cannot be lost.
    let missing = sent.iter().filter(mine).map(|s| s.at).filter(|at| *at > last.saturating_add(SEAM)).min();
    Some(missing.map_or(0, |first| newest - first + 40 * MS))
}

/// After an orderly stop nothing is left to be recovered, and the gap begins where the footage ends.
fn stop(world: &World, lens: usize, life: &Life, sent: &[Sent], rows: &[&SegmentRow], complaints: &mut Vec<String>) {
    let id = &world.lenses[lens];
    let last = rows.iter().filter(|r| r.row.id.run.0 == life.run).max_by_key(|r| r.row.id.seq);
    if let Some(last) = last.filter(|r| r.row.state != SegmentState::Closed) {
        complaints.push(format!("{} is {:?} after an orderly stop", last.row.id, last.row.state));
    }
    let delivered = sent.iter().filter(|s| s.decodable && s.delivered <= life.ended);
    let newest = delivered.map(|s| s.at + 40 * MS).max().unwrap_or(life.began);
    let gaps = gaps_of(world, lens);
    let stopped = gaps.iter().find(|g| g.2 == GapCause::Stopped && g.0 <= life.ended && g.1 >= life.ended);
    match stopped {
        None => complaints.push(format!("{id}: no gap tells of the stop at {}", life.ended / MS)),
        // Of a camera that was silent or away, another gap is in front of it.
        Some((start, ..)) if life.ended - newest < 200 * MS && (start - newest).abs() > SEAM => {
            complaints.push(format!("{id}: frames up to {} and stopped from {}", newest / MS, start / MS));
        }
        Some(_) => {}
    }
}

fn excuse(world: &World, lens: usize, life: &Life) -> bool {
    let slow = life.slow.iter().any(|(at, took)| life.ended - (at + took) < S);
    let faulty = world.windows.iter().any(|w| {
        w.lens.is_none_or(|l| l == lens)
            && w.causes.iter().any(|c| matches!(c, GapCause::DiskError | GapCause::DiskFull | GapCause::DiskSlow))
            && w.from < life.ended
            && w.to > life.ended - S
    });
    slow || faulty
}

fn removed_spans(world: &World, lens: usize) -> Vec<(i64, i64)> {
    let gaps = gaps_of(world, lens);
    gaps.into_iter().filter(|g| matches!(g.2, GapCause::Removed | GapCause::Retention)).map(|g| (g.0, g.1)).collect()
}

/// The catalog's gaps of a lens in world time, adjoining ones of one cause joined.
pub(crate) fn gaps_of(world: &World, lens: usize) -> Vec<(i64, i64, GapCause)> {
    let id = &world.lenses[lens];
    let rows = world.archive().catalog().gaps(Some(id), Window::ALL);
    let mut gaps: Vec<(i64, i64, GapCause)> = Vec::new();
    let mut spans: Vec<_> =
        rows.iter().map(|g| (world_time(world, g.start_ts.0), world_time(world, g.end_ts.0), g.cause)).collect();
    spans.sort_by_key(|s| (s.0, s.1));
    for (start, end, cause) in spans {
        match gaps.last_mut() {
            Some(last) if last.2 == cause && start - last.1 <= MS => last.1 = last.1.max(end),
            _ => gaps.push((start, end, cause)),
        }
    }
    gaps
}

/// World time of a UTC time by the mapping of the life that it falls into. Steps of the clock are so large that at most one fits.
fn world_time(world: &World, utc: i64) -> i64 {
    let mut best = (i64::MAX, 0);
    for life in &world.lives {
        for (_, offset) in &life.offsets {
            let at = (utc - offset) * 1000;
            let outside = (life.began - at).max(at - life.ended).max(0);
            best = best.min((outside, at));
        }
    }
    best.1
}

/// Every frame that was sent is stored or lies in a gap; every gap has a cause that somebody made, at that time.
fn accounts(
    world: &World,
    lens: usize,
    sent: &[Sent],
    found: &[Found],
    removed: &[(i64, i64)],
    complaints: &mut Vec<String>,
) {
    let id = &world.lenses[lens];
    let ms = |t: i64| t / MS;
    let gaps = gaps_of(world, lens);
    let mut windows: Vec<Window1> =
        world.windows.iter().filter(|w| w.lens.is_none_or(|l| l == lens)).cloned().collect();
    for (n, life) in world.lives.iter().enumerate() {
        let first = sent.iter().find(|s| s.life == n && s.decodable).map_or(life.ended, |s| s.at);
        let causes = vec![GapCause::Starting];
        windows.push(Window1 { lens: None, from: life.began, to: first, causes, must: false, ends: None });
    }
    join_windows_over_empty_lives(world, sent, found, &mut windows);
    join_windows_of_one_camera(&mut windows);
    widen_windows_without_witness(world, &mut windows);
    for (start, end, cause) in &gaps {
        if end < start {
            complaints.push(format!("{id}: a gap runs backwards, {}..{} {}", ms(*start), ms(*end), cause.name()));
        }
        let fits = |w: &Window1| w.causes.contains(cause) && *start >= w.from - EDGE && *end <= w.to + EDGE;
        let on_purpose = match cause {
            GapCause::Removed => !(world.removed.is_empty() && world.maybe_removed.is_empty()),
            GapCause::Retention => world.room_made,
            _ => false,
        };
        // Where the power went in the tick behind a long one, what had waited may be on the disk of one lens and not of another, which
        // then looks like a silent camera. Only a commit for each turn of the writer would keep them together: many syncs where the
        // disk has just been slow, and footage at stake for as long as they take.
        let waited = |life: &Life| {
            let behind = |(at, took): &(i64, i64)| *took > 2 * S && *start >= at - S && life.ended - (at + took) < S;
            let is_its_last = !found.iter().any(|f| f.at >= *end && f.at < life.ended);
            matches!(life.end, End::Cut { .. }) && *end <= life.ended && is_its_last && life.slow.iter().any(behind)
        };
        let on_purpose = on_purpose || *cause == GapCause::CameraStalled && world.lives.iter().any(waited);
        if !on_purpose && end - start > MS && !windows.iter().any(fits) {
            complaints.push(format!("{id}: nobody made the gap {}..{} {}", ms(*start), ms(*end), cause.name()));
        }
        let inside = found.iter().filter(|f| f.at > start + EDGE && f.at < end - EDGE);
        let inside: Vec<u16> = inside.map(|f| f.number).collect();
        if !inside.is_empty() {
            let (from, to) = (ms(*start), ms(*end));
            complaints.push(format!("{id}: the gap {from}..{to} {} holds frames {inside:?}", cause.name()));
        }
    }
    // With the folders of the oldest runs their accounts went.
    let horizon =
        world.lives.iter().rev().skip_while(|l| world.is_remembered(lens, l)).find(|l| l.run > 0 && world.room_made);
    let horizon = horizon.map_or(i64::MIN, |l| l.ended);
    for w in windows.iter().filter(|w| w.must && w.to > horizon) {
        // A camera that sent nothing while the disk was full has lost nothing to that.
        let sends = |s: &Sent| s.at > w.from + 1200 * MS && s.at < w.to - 10 * S;
        if w.causes[0] == GapCause::DiskFull && !sent.iter().any(sends) {
            continue;
        }
        let hit = gaps.iter().any(|g| g.2 == w.causes[0] && g.0 < w.to && g.1 > w.from);
        let hidden = removed.iter().any(|r| r.0 < w.to && r.1 > w.from);
        if !hit && !hidden {
            complaints.push(format!("{id}: no gap {} in {}..{}", w.causes[0].name(), ms(w.from), ms(w.to)));
        }
    }
    // From the first life's begin to the last one's end, frames and gaps follow one another.
    let mut spans: Vec<(i64, i64)> = gaps.iter().map(|g| (g.0, g.1)).collect();
    spans.extend(found.iter().map(|f| (f.at, f.at + 40 * MS)));
    spans.sort_unstable();
    // A life that ended before the first sync of a keyframe could leave nothing, not even that it was.
    let accountable = |(n, l): &(usize, &Life)| {
        let first = sent.iter().find(|s| s.life == *n && s.decodable);
        first.is_some_and(|f| l.ended - f.delivered > TOO_SHORT)
    };
    let mut lives = world.lives.iter().enumerate().filter(|(_, l)| l.began >= horizon);
    let mut at = lives.find(accountable).map_or(0, |(_, l)| l.began);
    // The recorder itself takes a moment to start.
    at += EDGE - SEAM;
    for (start, end) in spans {
        if start > at + SEAM && !lost_to_an_unknown_step(world, at, start) {
            complaints.push(format!("{id}: {}..{} is neither footage nor gap", ms(at), ms(start)));
        }
        at = at.max(end);
    }
    let end = world.lives.last().map_or(0, |l| l.ended);
    if end > at + 300 * MS {
        complaints.push(format!("{id}: {}..{} is neither footage nor gap", ms(at), ms(end)));
    }
}

/// A wall clock that was set back just before the cut: the correction was not durable yet, so in UTC the next life lies before
/// this one and nothing lies between them.
fn lost_to_an_unknown_step(world: &World, from: i64, to: i64) -> bool {
    let stepped = |l: &Life| l.offsets.len() > 1 && l.offsets.last().is_some_and(|(at, _)| l.ended - at < 1200 * MS);
    world.lives.iter().any(|l| stepped(l) && from <= l.ended + EDGE && to >= l.ended && l.ended - from < 1200 * MS)
}

/// Lives that left no frame make one gap out of the two beside them; a first one is all one gap.
fn join_windows_over_empty_lives(world: &World, sent: &[Sent], found: &[Found], windows: &mut Vec<Window1>) {
    for (n, life) in world.lives.iter().enumerate() {
        let left = found.iter().any(|f| sent.iter().any(|s| s.at == f.at && s.life == n));
        let end_of = |life| windows.iter().rfind(|w| w.ends == Some(life)).cloned();
        if left {
            continue;
        }
        let before = n.checked_sub(1).and_then(end_of);
        let from = before.as_ref().map_or(life.began, |w| w.from);
        if let Some(after) = end_of(n) {
            let causes = before.iter().chain([&after]).flat_map(|w| &w.causes).copied().collect();
            windows.push(Window1 { lens: None, from, to: after.to, causes, must: false, ends: Some(n) });
        }
    }
}

/// Of a camera that breaks off while it is silent already, or the other way round, all is one trouble.
fn join_windows_of_one_camera(windows: &mut Vec<Window1>) {
    let troubles: Vec<Window1> = windows.iter().filter(|w| w.lens.is_some() && w.ends.is_none()).cloned().collect();
    for (n, one) in troubles.iter().enumerate() {
        for other in troubles[n + 1..].iter().filter(|w| w.from < one.to && w.to > one.from) {
            let causes = one.causes.iter().chain(&other.causes).copied().collect();
            let (from, to) = (one.from.min(other.from), one.to.max(other.to));
            windows.push(Window1 { lens: one.lens, from, to, causes, must: false, ends: None });
        }
    }
}

/// Where retention has taken a life of some lens, nothing tells that the recorder lived on while another camera was silent.
fn widen_windows_without_witness(world: &World, windows: &mut Vec<Window1>) {
    let remembered = |life: &Life| (0..world.lenses.len()).all(|lens| world.is_remembered(lens, life));
    let ends: Vec<Window1> =
        windows.iter().filter(|w| w.ends.is_some_and(|n| !remembered(&world.lives[n]))).cloned().collect();
    let silent: Vec<Window1> =
        windows.iter().filter(|w| w.causes.contains(&GapCause::CameraStalled)).cloned().collect();
    for (end, silent) in ends.iter().flat_map(|end| silent.iter().map(move |silent| (end, silent))) {
        if silent.from < end.from && silent.to > end.from {
            windows.push(Window1 { lens: silent.lens, from: silent.from, must: false, ..end.clone() });
        }
    }
}

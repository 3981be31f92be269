//! The segment index: in-memory SQLite, one row per closed segment.
//!
//! Promises:
//! - I1: it is a cache. Everything in it can be had again from the files; a damaged snapshot costs time, nothing else.
//! - I2: a window over one lens costs time by the rows it returns, not by the rows there are.
//! - I3: rows hold the run's monotonic times; UTC is derived outside, so a new mapping re-maps a run at no cost here.
//! - I4: what retention asks every second (sums, the oldest that may go) costs no time by the rows there are.
//!
//! Only the archive's catalog uses it, under its lock. Lenses are stored as small integers; how rows are packed is told by `table`.

pub mod snapshot;
mod table;

use std::collections::BTreeMap;

use mos_hal::clock::Mono;
use mos_hal::media::LensId;
use rusqlite::{Connection, OptionalExtension, params};

use self::table::{COLUMNS, PROTECTED, TABLES, row_of, state_of};
use crate::archive::ids::{RunId, SegmentId, Seq};
use crate::archive::{Row, SegmentState};

/// First and last moment that a lens's segments of one run cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Start of the first segment.
    pub start: Mono,
    /// Latest end of a segment.
    pub end: Mono,
}

/// A stretch of a run for which a lens has no segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The lens.
    pub lens: LensId,
    /// The run.
    pub run: RunId,
    /// End of the segment before.
    pub start: Mono,
    /// Start of the segment after.
    pub end: Mono,
    /// Numbers of both.
    pub seqs: (Seq, Seq),
    /// Segments that follow in the run.
    pub follow: u32,
}

/// What is stored, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Segments.
    pub segments: u64,
    /// Bytes of their allocated blocks.
    pub allocated: u64,
    /// Protected ones among them.
    pub protected: u64,
    /// Bytes of the allocated blocks of these.
    pub protected_allocated: u64,
}

impl Totals {
    fn of(row: &Row) -> Self {
        let protected = u64::from(row.protected);
        Self { segments: 1, allocated: row.allocated, protected, protected_allocated: protected * row.allocated }
    }

    fn add(&mut self, more: Self) {
        self.segments += more.segments;
        self.allocated += more.allocated;
        self.protected += more.protected;
        self.protected_allocated += more.protected_allocated;
    }

    fn take(&mut self, less: Self) {
        self.segments -= less.segments;
        self.allocated -= less.allocated;
        self.protected -= less.protected;
        self.protected_allocated -= less.protected_allocated;
    }
}

/// A place in a lens's segments, ordered by age.
pub(crate) type Place = (RunId, Mono, Seq);

/// The index. Errors are SQLite's; none is expected of an in-memory database but lack of memory.
pub struct Index {
    conn: Connection,
    lenses: BTreeMap<LensId, i64>,
    spans: BTreeMap<(i64, u32), Span>,
    totals: BTreeMap<i64, Totals>,
}

type Result<T> = rusqlite::Result<T>;

impl Index {
    /// An empty index.
    pub fn new() -> Result<Self> {
        let conn = Connection::open_in_memory()?;
        conn.execute_batch(TABLES)?;
        Self::over(conn)
    }

    /// Takes over a database that already has the tables.
    pub(crate) fn over(conn: Connection) -> Result<Self> {
        let mut index = Self { conn, lenses: BTreeMap::new(), spans: BTreeMap::new(), totals: BTreeMap::new() };
        index.read_back()?;
        Ok(index)
    }

    fn read_back(&mut self) -> Result<()> {
        let mut names = self.conn.prepare("SELECT name, no FROM lenses")?;
        for pair in names.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get(1)?)))? {
            let (name, no) = pair?;
            let lens = LensId::new(&name).map_err(|_| rusqlite::Error::InvalidQuery)?;
            self.lenses.insert(lens, no);
        }
        let mut spans = self.conn.prepare(
            "SELECT lens, run, min(start), max(start + duration), count(*), sum(allocated),
                 sum(flags >= 16), sum(iif(flags >= 16, allocated, 0)) FROM segments GROUP BY lens, run",
        )?;
        let mut rows = spans.query([])?;
        while let Some(r) = rows.next()? {
            let span = Span { start: Mono(r.get(2)?), end: Mono(r.get(3)?) };
            self.spans.insert((r.get(0)?, r.get(1)?), span);
            let (segments, allocated) = (r.get(4)?, r.get(5)?);
            let (protected, protected_allocated) = (r.get(6)?, r.get(7)?);
            let of_run = Totals { segments, allocated, protected, protected_allocated };
            self.totals.entry(r.get(0)?).or_default().add(of_run);
        }
        Ok(())
    }

    /// Adds or replaces one row.
    pub fn put(&mut self, row: &Row) -> Result<()> {
        let lens = self.lens_no(&row.id.lens)?;
        let before = self.forget(&row.id)?;
        self.insert(lens, row)?;
        match before {
            // It may have been the first or the last: a power cut takes from a file what a kill had left in it.
            Some((key, old)) if old.start < row.start || old.end > row.end => self.measure(key),
            _ => Ok(()),
        }
    }

    /// Adds many rows at once, none of which is there already.
    pub fn add_all<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>) -> Result<()> {
        self.conn.execute_batch("BEGIN")?;
        let done = rows.into_iter().try_for_each(|row| {
            let lens = self.lens_no(&row.id.lens)?;
            self.insert(lens, row)
        });
        self.conn.execute_batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        done
    }

    fn insert(&mut self, lens: i64, row: &Row) -> Result<()> {
        table::insert(&self.conn, lens, row)?;
        self.totals.entry(lens).or_default().add(Totals::of(row));
        let span = self.spans.entry((lens, row.id.run.0)).or_insert(Span { start: row.start, end: row.end });
        span.start = span.start.min(row.start);
        span.end = span.end.max(row.end);
        Ok(())
    }

    /// A row by its id.
    pub fn get(&self, id: &SegmentId) -> Result<Option<Row>> {
        let Some(lens) = self.lenses.get(&id.lens) else { return Ok(None) };
        let sql = format!("SELECT {COLUMNS} FROM segments WHERE lens=?1 AND run=?2 AND seq=?3");
        let mut statement = self.conn.prepare_cached(&sql)?;
        statement.query_row(params![lens, id.run.0, id.seq.0], |r| row_of(r, &id.lens, id.run)).optional()
    }

    /// Removes a row; one that is not there is no error.
    pub fn remove(&mut self, id: &SegmentId) -> Result<()> {
        let Some(span) = self.forget(id)? else { return Ok(()) };
        let (key, row) = span;
        let edge = self.spans.get(&key).is_some_and(|s| s.start >= row.start || s.end <= row.end);
        if edge { self.measure(key) } else { Ok(()) }
    }

    /// Segments of a run follow one another: the first and the last tell its span.
    fn measure(&mut self, key: (i64, u32)) -> Result<()> {
        let first = self.edge(key, "SELECT start FROM segments WHERE lens=?1 AND run=?2 ORDER BY start LIMIT 1")?;
        let last = self
            .edge(key, "SELECT start + duration FROM segments WHERE lens=?1 AND run=?2 ORDER BY start DESC LIMIT 1")?;
        match (first, last) {
            (Some(start), Some(end)) => self.spans.insert(key, Span { start, end }),
            _ => self.spans.remove(&key),
        };
        Ok(())
    }

    fn edge(&self, key: (i64, u32), sql: &str) -> Result<Option<Mono>> {
        self.conn.prepare_cached(sql)?.query_row(params![key.0, key.1], |r| r.get(0).map(Mono)).optional()
    }

    fn forget(&mut self, id: &SegmentId) -> Result<Option<((i64, u32), Row)>> {
        let Some(row) = self.get(id)? else { return Ok(None) };
        let Some(lens) = self.lenses.get(&id.lens).copied() else { return Ok(None) };
        self.conn
            .prepare_cached("DELETE FROM segments WHERE lens=?1 AND run=?2 AND start=?3 AND seq=?4")?
            .execute(params![lens, id.run.0, row.start.0, id.seq.0])?;
        self.totals.entry(lens).or_default().take(Totals::of(&row));
        Ok(Some(((lens, id.run.0), row)))
    }

    /// Notes whether a segment is protected.
    pub fn set_protected(&mut self, id: &SegmentId, protected: bool) -> Result<()> {
        let Some(row) = self.get(id)? else { return Ok(()) };
        if row.protected == protected { Ok(()) } else { self.put(&Row { protected, ..row }) }
    }

    /// Segments of one lens and run that overlap `[from, to)`, in order, at most `limit`.
    pub fn overlapping(&self, lens: &LensId, run: RunId, (from, to): (Mono, Mono), limit: usize) -> Result<Vec<Row>> {
        let Some(no) = self.lenses.get(lens) else { return Ok(Vec::new()) };
        // Segments of a run follow one another: of those that begin before the window only the last one can reach in.
        let before: Option<(i64, i64)> = self
            .conn
            .prepare_cached(
                "SELECT start, start + duration FROM segments WHERE lens=?1 AND run=?2 AND start<=?3
                 ORDER BY start DESC LIMIT 1",
            )?
            .query_row(params![no, run.0, from.0], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        let low = match before {
            Some((start, end)) if end > from.0 => start,
            Some(_) => from.0.saturating_add(1),
            None => from.0,
        };
        let sql = format!(
            "SELECT {COLUMNS} FROM segments WHERE lens=?1 AND run=?2 AND start>=?3 AND start<?4 ORDER BY start, seq
             LIMIT ?5"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![no, run.0, low, to.0, limit], |r| row_of(r, lens, run))?;
        rows.collect()
    }

    /// Numbers, states and protections of a lens's segments of one run, by number.
    pub fn seqs(&self, lens: &LensId, run: RunId) -> Result<Vec<(Seq, SegmentState, bool)>> {
        let Some(no) = self.lenses.get(lens) else { return Ok(Vec::new()) };
        let mut statement =
            self.conn.prepare_cached("SELECT seq, flags FROM segments WHERE lens=?1 AND run=?2 ORDER BY seq")?;
        let rows = statement.query_map(params![no, run.0], |r| {
            let flags: i64 = r.get(1)?;
            Ok((Seq(r.get(0)?), state_of(flags), flags & PROTECTED != 0))
        })?;
        rows.collect()
    }

    /// Unprotected closed or recovered segments of a lens, oldest run and start first, behind `after`, at most `limit`.
    pub(crate) fn oldest_of(&self, lens: &LensId, after: Option<Place>, limit: usize) -> Result<Vec<Row>> {
        let Some(no) = self.lenses.get(lens) else { return Ok(Vec::new()) };
        let (run, start, seq) = after.map_or((-1, i64::MIN, -1), |(r, s, q)| (i64::from(r.0), s.0, i64::from(q.0)));
        let sql = format!(
            "SELECT {COLUMNS}, run FROM segments INDEXED BY may_go WHERE lens=?1 AND flags IN (1, 2)
             AND (run, start, seq) > (?2, ?3, ?4) ORDER BY run, start, seq LIMIT ?5"
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.conn.prepare_cached(&sql)?;
        let rows = statement.query_map(params![no, run, start, seq, limit], |r| row_of(r, lens, RunId(r.get(8)?)))?;
        rows.collect()
    }

    /// Where a segment does not begin where the one before it in its lens and run ended. Shorter than `tolerance`
    /// nanoseconds is none.
    pub fn holes(&self, tolerance: i64) -> Result<Vec<Hole>> {
        let mut statement = self
            .conn
            .prepare("SELECT run, start, start + duration, seq FROM segments WHERE lens=?1 ORDER BY run, start")?;
        let mut holes: Vec<Hole> = Vec::new();
        for (lens, no) in &self.lenses {
            let mut rows = statement.query([no])?;
            let mut before: Option<(RunId, Mono, Seq)> = None;
            // Holes of the present run tell how many segments came before them, until it is known how many there are.
            let (mut fresh, mut segments) = (holes.len(), 0);
            while let Some(r) = rows.next()? {
                let (run, start, end, seq) = (RunId(r.get(0)?), Mono(r.get(1)?), Mono(r.get(2)?), Seq(r.get(3)?));
                match before {
                    Some((last, last_end, last_seq)) if last == run => {
                        if start.since(last_end) > tolerance {
                            let (lens, seqs) = (lens.clone(), (last_seq, seq));
                            holes.push(Hole { lens, run, start: last_end, end: start, seqs, follow: segments });
                        }
                    }
                    _ => {
                        holes[fresh..].iter_mut().for_each(|hole| hole.follow = segments - hole.follow);
                        (fresh, segments) = (holes.len(), 0);
                    }
                }
                segments += 1;
                before = Some((run, end, seq));
            }
            holes[fresh..].iter_mut().for_each(|hole| hole.follow = segments - hole.follow);
        }
        Ok(holes)
    }

    /// The protected rows. Looks at all of them.
    pub(crate) fn protected(&self) -> Result<Vec<Row>> {
        let sql =
            format!("SELECT {COLUMNS}, run FROM segments WHERE lens=?1 AND flags & {PROTECTED} ORDER BY run, start");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut found = Vec::new();
        for (lens, no) in &self.lenses {
            let rows = statement.query_map(params![no], |r| row_of(r, lens, RunId(r.get(8)?)))?;
            for row in rows {
                found.push(row?);
            }
        }
        Ok(found)
    }

    /// Every row, by lens and run and start.
    pub fn all(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for lens in self.lenses.keys() {
            for (run, _) in self.runs(lens) {
                rows.extend(self.overlapping(lens, run, (Mono(i64::MIN), Mono(i64::MAX)), usize::MAX)?);
            }
        }
        Ok(rows)
    }

    /// Lenses that ever had a row.
    pub fn lenses(&self) -> impl Iterator<Item = &LensId> {
        self.lenses.keys()
    }

    /// Runs in which a lens has segments, by number.
    pub fn runs(&self, lens: &LensId) -> impl Iterator<Item = (RunId, Span)> {
        let no = self.lenses.get(lens).copied().unwrap_or(-1);
        self.spans.range((no, 0)..=(no, u32::MAX)).map(|((_, run), span)| (RunId(*run), *span))
    }

    /// From the first to the last moment of a lens in a run.
    #[must_use]
    pub fn span(&self, lens: &LensId, run: RunId) -> Option<Span> {
        self.spans.get(&(*self.lenses.get(lens)?, run.0)).copied()
    }

    /// What is stored, added up.
    pub fn totals(&self) -> Totals {
        let mut all = Totals::default();
        self.totals.values().for_each(|of_lens| all.add(*of_lens));
        all
    }

    /// What is stored of a lens.
    pub fn totals_of(&self, lens: &LensId) -> Totals {
        self.lenses.get(lens).and_then(|no| self.totals.get(no)).copied().unwrap_or_default()
    }

    /// Bytes that the database takes in memory.
    pub fn memory(&self) -> Result<u64> {
        let pages: u64 = self.conn.pragma_query_value(None, "page_count", |r| r.get(0))?;
        let size: u64 = self.conn.pragma_query_value(None, "page_size", |r| r.get(0))?;
        Ok(pages * size)
    }

    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.conn
    }

    fn lens_no(&mut self, lens: &LensId) -> Result<i64> {
        if let Some(no) = self.lenses.get(lens) {
            return Ok(*no);
        }
        self.conn.execute("INSERT INTO lenses (name) VALUES (?1)", [lens.as_str()])?;
        let no = self.conn.last_insert_rowid();
        self.lenses.insert(lens.clone(), no);
        Ok(no)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mos_hal::media::VideoCodec;

    use super::*;

    fn row(id: &str, start: i64, end: i64) -> Row {
        Row {
            id: id.parse().unwrap(),
            start: Mono(start),
            end: Mono(end),
            bytes: 1000,
            allocated: 4096,
            frames: 25,
            codec: Some(VideoCodec::H265),
            width: 3840,
            height: 2160,
            state: SegmentState::Closed,
            protected: false,
        }
    }

    fn ids(rows: &[Row]) -> Vec<String> {
        rows.iter().map(|r| r.id.to_string()).collect()
    }

    fn sample() -> Index {
        let mut index = Index::new().unwrap();
        let rows = [
            row("road-1-0", 0, 10),
            row("road-1-1", 10, 20),
            row("road-1-2", 25, 30),
            row("cabin-1-0", 3, 9),
            row("road-2-0", 5, 8),
        ];
        index.add_all(&rows).unwrap();
        index
    }

    #[test]
    fn rows_come_back_as_they_went_in() {
        let mut index = Index::new().unwrap();
        let mut rows = vec![row("road-1-0", 5, 10), row("cabin-7-4000000000", -9, i64::from(u32::MAX))];
        rows[1].state = SegmentState::Recovered;
        rows[1].protected = true;
        rows[1].codec = None;
        rows[1].bytes = 1 << 40;
        for row in &rows {
            index.put(row).unwrap();
            assert_eq!(index.get(&row.id).unwrap().as_ref(), Some(row));
        }
        assert_eq!(index.get(&"road-1-1".parse().unwrap()).unwrap(), None);
        assert_eq!(index.get(&"tail-1-1".parse().unwrap()).unwrap(), None);
    }

    #[test]
    fn i2_windows_are_half_open() {
        let index = sample();
        let road: LensId = LensId::new("road").unwrap();
        let ask = |from, to| ids(&index.overlapping(&road, RunId(1), (Mono(from), Mono(to)), 99).unwrap());
        assert_eq!(ask(0, 10), ["road-1-0"]);
        assert_eq!(ask(9, 11), ["road-1-0", "road-1-1"]);
        assert_eq!(ask(10, 11), ["road-1-1"]);
        assert_eq!(ask(20, 25), Vec::<String>::new());
        assert_eq!(ask(20, 26), ["road-1-2"]);
        assert_eq!(ask(30, 99), Vec::<String>::new());
        assert_eq!(ask(i64::MIN, i64::MAX), ["road-1-0", "road-1-1", "road-1-2"]);
        let few = index.overlapping(&road, RunId(1), (Mono(5), Mono(99)), 2).unwrap();
        assert_eq!(ids(&few), ["road-1-0", "road-1-1"]);
    }

    #[test]
    fn holes_are_found_within_runs_only() {
        let mut index = sample();
        assert_eq!(index.holes(5).unwrap(), []);
        let holes = index.holes(4).unwrap();
        assert_eq!(holes.len(), 1);
        assert_eq!((holes[0].start, holes[0].end, holes[0].follow), (Mono(20), Mono(25), 1));
        index.remove(&"road-1-1".parse().unwrap()).unwrap();
        assert_eq!(index.holes(5).unwrap()[0].seqs, (Seq(0), Seq(2)));
        index.put(&row("road-1-3", 40, 45)).unwrap();
        index.put(&row("road-2-1", 50, 55)).unwrap();
        index.put(&row("road-2-2", 55, 60)).unwrap();
        let follow: Vec<_> = index.holes(5).unwrap().iter().map(|h| (h.run, h.start, h.follow)).collect();
        let expected = [(RunId(1), Mono(10), 2), (RunId(1), Mono(30), 1), (RunId(2), Mono(8), 2)];
        assert_eq!(follow, expected, "counted in the run, from the segment behind the hole");
        assert_eq!(index.all().unwrap().len(), 7);
    }

    #[test]
    fn totals_and_spans_follow_every_change() {
        let mut index = sample();
        let of = |segments, blocks: u64| Totals { segments, allocated: blocks * 4096, ..Totals::default() };
        let road: LensId = LensId::new("road").unwrap();
        assert_eq!(index.totals(), of(5, 5));
        let spans: Vec<_> = index.runs(&road).collect();
        assert_eq!(
            spans,
            [(RunId(1), Span { start: Mono(0), end: Mono(30) }), (RunId(2), Span { start: Mono(5), end: Mono(8) })]
        );
        index.remove(&"road-1-2".parse().unwrap()).unwrap();
        index.remove(&"road-2-0".parse().unwrap()).unwrap();
        index.remove(&"road-2-0".parse().unwrap()).unwrap();
        index.put(&Row { allocated: 8192, ..row("road-1-0", 0, 10) }).unwrap();
        assert_eq!(index.totals(), of(3, 4));
        let spans: Vec<_> = index.runs(&road).collect();
        assert_eq!(spans, [(RunId(1), Span { start: Mono(0), end: Mono(20) })]);
        index.put(&row("road-1-1", 10, 16)).unwrap();
        let shorter = index.span(&road, RunId(1));
        assert_eq!(shorter, Some(Span { start: Mono(0), end: Mono(16) }), "a segment that is found shorter");
    }

    #[test]
    fn i4_the_oldest_of_a_lens_spare_the_protected_and_go_on_behind_a_place() {
        let mut index = sample();
        let road = LensId::new("road").unwrap();
        let id = |text: &str| text.parse::<SegmentId>().unwrap();
        index.set_protected(&id("road-1-0"), true).unwrap();
        let protected = Totals { segments: 4, allocated: 4 * 4096, protected: 1, protected_allocated: 4096 };
        assert_eq!(index.totals_of(&road), protected);
        assert_eq!(ids(&index.oldest_of(&road, None, 2).unwrap()), ["road-1-1", "road-1-2"]);
        let behind = Some((RunId(1), Mono(25), Seq(2)));
        assert_eq!(ids(&index.oldest_of(&road, behind, 9).unwrap()), ["road-2-0"]);
        index.set_protected(&id("road-1-0"), false).unwrap();
        assert_eq!(index.totals_of(&road).protected_allocated, 0);
        assert_eq!(ids(&index.oldest_of(&road, None, 9).unwrap()).len(), 4);
        let plan: String = index
            .conn
            .query_row(
                "EXPLAIN QUERY PLAN SELECT start FROM segments INDEXED BY may_go WHERE lens=1 AND flags IN (1, 2)
                 AND (run, start, seq) > (1, 2, 3) ORDER BY run, start, seq LIMIT 5",
                [],
                |r| r.get(3),
            )
            .unwrap();
        assert!(plan.contains("may_go (lens=? AND (run,start,seq)>(?,?,?))"), "{plan}");
    }

    #[test]
    fn a_hundred_thousand_rows_fit_into_twelve_megabytes() {
        let mut index = Index::new().unwrap();
        let rows: Vec<Row> = (0..100_000_i64)
            .map(|n| {
                let id = format!("lens{}-{}-{}", n % 8, 1 + n / 8000, n % 8000 / 8);
                let start = 7_000_000_000_123 + n / 8 * 30_000_000_000;
                Row { bytes: 15_000_000 + n as u64, ..row(&id, start, start + 29_966_666_666) }
            })
            .collect();
        index.add_all(&rows).unwrap();
        assert_eq!(index.totals().segments, 100_000);
        let bytes = index.memory().unwrap();
        assert!(bytes <= 12 << 20, "{bytes} bytes");
    }
}

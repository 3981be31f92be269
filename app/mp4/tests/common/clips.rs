//! Clips: made from built segments, and judged by mp4parse's own sample tables.

use mos_mp4::{ClipError, ClipPlan, ClipSource, Edges, SegmentFile, Span, Verify, clip};
use mp4parse::unstable::{CheckedInteger, create_sample_table};

/// A segment file with its place on the common clock.
#[derive(Clone, Debug)]
pub struct Placed {
    pub start: i64,
    pub file: Vec<u8>,
}

/// Plans a clip and makes the file.
pub fn make(segments: &[Placed], asked: Span, edges: Edges) -> Result<(ClipPlan, Vec<u8>), ClipError> {
    let read: Vec<_> = segments.iter().map(|s| SegmentFile::read(&s.file, Verify::Structure).unwrap()).collect();
    let sources: Vec<_> =
        segments.iter().zip(&read).map(|(s, r)| ClipSource { start: s.start, movie: &r.movie }).collect();
    let plan = clip::plan(&sources, asked, edges)?;
    let mut file = plan.head(b"{}");
    let head = file.len() as u64;
    for c in &plan.copies {
        let from = &segments[c.source].file;
        file.extend_from_slice(&from[c.offset as usize..(c.offset + c.len) as usize]);
    }
    assert_eq!(file.len() as u64, head + plan.payload_bytes);
    Ok((plan, file))
}

/// A sample as mp4parse finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub pts: i64,
    pub sync: bool,
    pub data: Vec<u8>,
    /// Whether the edit list shows it.
    pub shown: bool,
}

/// Samples of track `index` in decoding order, and by how much its presentation begins late, in ticks of the movie.
pub fn track(file: &[u8], index: usize) -> (Vec<Found>, u64) {
    let context = mp4parse::read_mp4(&mut std::io::Cursor::new(file)).unwrap();
    let t = &context.tracks[index];
    let scale = t.timescale.unwrap().0;
    let media_time = t.media_time.unwrap().0 as i64;
    let duration = (t.edited_duration.unwrap().0 * scale / context.timescale.unwrap().0) as i64;
    let samples = create_sample_table(t, CheckedInteger(0)).unwrap();
    let found = samples
        .iter()
        .map(|s| {
            let pts = s.start_composition.0;
            Found {
                pts: pts - media_time,
                sync: s.sync,
                data: file[s.start_offset.0 as usize..s.end_offset.0 as usize].to_vec(),
                shown: (media_time..media_time + duration).contains(&pts),
            }
        })
        .collect();
    (found, t.empty_duration.map_or(0, |e| e.0))
}

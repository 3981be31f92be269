//! Any tables and any range: a plan copies only bytes of its sources, or there is an error.
#![no_main]

use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use mos_mp4::{
    ClipSource, Edges, Movie, Sample, SampleEntry, SampleTable, Span, Timescale, Track, VIDEO_TIMESCALE, VideoCodec,
    clip,
};

fn table(u: &mut Unstructured<'_>, most: usize) -> Option<SampleTable> {
    let mut table = SampleTable::new();
    let (mut dts, mut offset) = (i64::from(u.arbitrary::<i32>().ok()?), u64::from(u.arbitrary::<u32>().ok()?));
    for _ in 0..u.int_in_range(0..=most).ok()? {
        let duration = if u.ratio(1, 50).ok()? { u.arbitrary().ok()? } else { u.int_in_range(0..=9000).ok()? };
        let cts = if u.ratio(1, 50).ok()? { u.arbitrary().ok()? } else { u.int_in_range(-9000..=9000).ok()? };
        let size = u.int_in_range(0..=1 << 20).ok()?;
        let (sync, description) = (u.ratio(1, 5).ok()?, u.int_in_range(0..=3).ok()?);
        table.push(Sample { offset, size, dts, duration, cts, sync, description }).ok()?;
        offset += u64::from(size) + u64::from(u.arbitrary::<u8>().ok()?);
        dts += i64::from(duration);
    }
    Some(table)
}

fn movie(u: &mut Unstructured<'_>) -> Option<Movie> {
    let width = *u.choose(&[64, 64, 128]).ok()?;
    let config = vec![*u.choose(&[1, 1, 2]).ok()?];
    let entry =
        SampleEntry::Video { codec: VideoCodec::H265, width, height: 48, pixel_aspect: (1, 1), config, colour: None };
    let mut video = Track::new(1, VIDEO_TIMESCALE, entry);
    video.table = table(u, 200)?;
    let mut movie = Movie { shown_from: i64::from(u.arbitrary::<i16>().ok()?), tracks: vec![video] };
    if u.arbitrary().ok()? {
        let rate = u.arbitrary::<u32>().ok()?;
        let entry = SampleEntry::Aac { sample_rate: rate, channels: 2, config: vec![0x11, 0x90] };
        let mut audio = Track::new(2, Timescale::new(rate)?, entry);
        audio.table = table(u, 200)?;
        movie.tracks.push(audio);
    }
    Some(movie)
}

fuzz_target!(|data: &[u8]| {
    let mut u = Unstructured::new(data);
    let mut made = || {
        let movies: Vec<Movie> = (0..u.int_in_range(0..=3).ok()?).map_while(|_| movie(&mut u)).collect();
        let starts: Vec<i64> = movies.iter().map_while(|_| u.arbitrary().ok()).collect();
        let span = Span { from: u.arbitrary().ok()?, to: u.arbitrary().ok()? };
        let near = u.arbitrary::<bool>().ok()?;
        Some((movies, starts, span, near))
    };
    let Some((movies, starts, span, near)) = made() else { return };
    // Anywhere in 64 bits, or where something is to be found.
    let sources: Vec<ClipSource<'_>> = movies
        .iter()
        .zip(&starts)
        .enumerate()
        .map(|(i, (movie, start))| {
            let start = if near { i as i64 * 2_000_000_000 + start % 1_000_000_000 } else { *start };
            ClipSource { start, movie }
        })
        .collect();
    let span = if near { Span { from: span.from % 8_000_000_000, to: span.to % 8_000_000_000 } } else { span };
    for edges in [Edges::Exact, Edges::Gop] {
        let Ok(plan) = clip::plan(&sources, span, edges) else { continue };
        assert_eq!(plan.payload_bytes, plan.copies.iter().map(|c| c.len).sum::<u64>());
        assert!(plan.shown.from < plan.shown.to || plan.frames > 0);
        for copy in &plan.copies {
            let tables = movies[copy.source].tracks.iter();
            let end = tables.flat_map(|t| t.table.iter()).map(|s| s.end()).max().unwrap_or(0);
            assert!(copy.offset + copy.len <= end);
        }
        let head = plan.head(data);
        assert_eq!(&head[4..8], b"ftyp");
    }
});

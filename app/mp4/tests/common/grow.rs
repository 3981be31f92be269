//! The opposite of reducing, made for tests only: puts bytes into an MP4 file that no player needs, and mends all places.
//!
//! Knows only what ffmpeg and GStreamer write in these tests, and shares no code with what it tests but the reading of boxes.

use std::ops::Range;

use mos_mp4::boxes::BoxHeader;

/// Boxes that consist of boxes.
const CONTAINERS: [&[u8; 4]; 13] = [
    b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta", b"mvex", b"moof", b"traf", b"mfra", b"ilst",
];

/// A box with its place in the file.
#[derive(Clone, Debug)]
pub struct Place {
    pub kind: [u8; 4],
    pub start: usize,
    pub body: usize,
    pub end: usize,
    /// Number of the box around it.
    pub parent: Option<usize>,
}

/// All boxes of a file, each behind the one around it.
pub fn boxes(file: &[u8]) -> Vec<Place> {
    let mut found = Vec::new();
    walk(file, 0..file.len(), None, &mut found);
    found
}

fn walk(file: &[u8], range: Range<usize>, parent: Option<usize>, found: &mut Vec<Place>) {
    let mut at = range.start;
    while at < range.end {
        let header = BoxHeader::parse(&file[at..]).unwrap();
        let end = header.size.map_or(range.end, |size| at + size as usize);
        let body = at + header.header_len as usize;
        found.push(Place { kind: header.kind, start: at, body, end, parent });
        let this = found.len() - 1;
        if CONTAINERS.contains(&&header.kind) {
            walk(file, body..end, Some(this), found);
        } else if &header.kind == b"meta" {
            walk(file, body + 4..end, Some(this), found);
        }
        at = end;
    }
}

/// Bytes put before byte `at` of a file: between two boxes, or in front of a sample in an `mdat`.
#[derive(Clone, Debug)]
pub struct Insert {
    pub at: usize,
    /// The first of them; a free box begins with its header.
    pub bytes: Vec<u8>,
    /// How many; those behind `bytes` are zeros.
    pub len: u64,
}

impl Insert {
    /// A `free` or `skip` box of `len` bytes.
    pub fn free(at: usize, kind: [u8; 4], len: u64) -> Self {
        let bytes = match u32::try_from(len) {
            Ok(short) => [&short.to_be_bytes()[..], &kind].concat(),
            Err(_) => [&1_u32.to_be_bytes()[..], &kind, &len.to_be_bytes()].concat(),
        };
        Self { at, bytes, len }
    }

    /// Bytes that no sample refers to.
    pub fn junk(at: usize, len: u64) -> Self {
        Self { at, bytes: vec![0xa5; len as usize], len }
    }
}

/// A file as its parts, with zeros between them.
#[derive(Clone, Debug)]
pub struct Grown {
    pub parts: Vec<(u64, Vec<u8>)>,
    pub len: u64,
}

impl Grown {
    pub fn to_vec(&self) -> Vec<u8> {
        let mut file = vec![0; self.len as usize];
        for (at, bytes) in &self.parts {
            file[*at as usize..*at as usize + bytes.len()].copy_from_slice(bytes);
        }
        file
    }
}

/// Puts `inserts` into `file`.
pub fn grow(file: &[u8], inserts: &[Insert]) -> Grown {
    let mut inserts = inserts.to_vec();
    inserts.sort_by_key(|i| i.at);
    let moved = |at: usize| at as u64 + inserts.iter().filter(|i| i.at <= at).map(|i| i.len).sum::<u64>();
    let all = boxes(file);
    let mut new = file.to_vec();
    for b in &all {
        let inner: u64 = inserts.iter().filter(|i| (b.start + 1..b.end).contains(&i.at)).map(|i| i.len).sum();
        let size = (b.end - b.start) as u64 + inner;
        if file[b.start..b.start + 4] == [0; 4] {
            continue;
        }
        if b.body - b.start == 16 {
            put(&mut new, b.start + 8, &size.to_be_bytes());
        } else {
            put(&mut new, b.start, &u32::try_from(size).unwrap().to_be_bytes());
        }
        places(file, b, size, &moved, &mut new);
    }
    let mut parts = Vec::new();
    let (mut from, mut at) = (0, 0_u64);
    for i in &inserts {
        parts.push((at, new[from..i.at].to_vec()));
        at += (i.at - from) as u64;
        parts.push((at, i.bytes.clone()));
        at += i.len;
        from = i.at;
    }
    parts.push((at, new[from..].to_vec()));
    Grown { parts, len: at + (new.len() - from) as u64 }
}

/// Mends the places that box `b` names. `new_size` is its own size by then.
fn places(file: &[u8], b: &Place, new_size: u64, moved: &dyn Fn(usize) -> u64, new: &mut [u8]) {
    let body = b.body;
    let u32_at = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_be_bytes(file[at..at + 8].try_into().unwrap());
    match &b.kind {
        b"stco" => (0..u32_at(body + 4) as usize)
            .map(|i| body + 8 + 4 * i)
            .for_each(|at| put32(new, at, moved(u32_at(at) as usize))),
        b"co64" => (0..u32_at(body + 4) as usize).map(|i| body + 8 + 8 * i).for_each(|at| {
            put(new, at, &moved(u64_at(at) as usize).to_be_bytes());
        }),
        b"saio" => {
            // What ffmpeg writes: 32 bits, one place, in the file or counted from the moof.
            let flags = u32_at(body) as usize;
            assert_eq!((flags >> 24, u32_at(body + 4 + flags * 8)), (0, 1));
            let at = body + 8 + flags * 8;
            let from = moof_of(file, b.start);
            let origin = from.map_or(0, moved);
            put32(new, at, moved(from.unwrap_or(0) + u32_at(at) as usize) - origin);
        }
        b"sidx" => {
            let wide = file[body] != 0;
            let at = body + if wide { 20 } else { 16 };
            let first = if wide { u64_at(at) as usize } else { u32_at(at) as usize };
            let mut place = b.end + first;
            let distance = moved(place) - (moved(b.start) + new_size);
            let references = if wide {
                put(new, at, &distance.to_be_bytes());
                at + 8
            } else {
                put32(new, at, distance);
                at + 4
            };
            let count = u32_at(references) as usize & 0xffff;
            for at in (0..count).map(|i| references + 4 + 12 * i) {
                let word = u32_at(at);
                let next = place + (word & 0x7fff_ffff) as usize;
                let size = moved(next) - moved(place);
                put(new, at, &(u32::try_from(size).unwrap() | word & 0x8000_0000).to_be_bytes());
                place = next;
            }
        }
        b"tfhd" if u32_at(body) & 1 != 0 => {
            let base = moved(u64_at(body + 8) as usize);
            put(new, body + 8, &base.to_be_bytes());
        }
        b"trun" if u32_at(body) & 1 != 0 => {
            // What ffmpeg writes here counts from the moof, whether it says so in tfhd or not.
            let moof = moof_of(file, b.start).unwrap();
            let start = moof + u32_at(body + 8) as usize;
            put32(new, body + 8, moved(start) - moved(moof));
        }
        b"tfra" => {
            let wide = file[body] != 0;
            let lengths = u32_at(body + 8);
            let numbers: usize = [0, 2, 4].iter().map(|s| 1 + (lengths >> s & 3) as usize).sum();
            let row = numbers + if wide { 16 } else { 8 };
            for at in (0..u32_at(body + 12) as usize).map(|i| body + 16 + row * i) {
                if wide {
                    put(new, at + 8, &moved(u64_at(at + 8) as usize).to_be_bytes());
                } else {
                    put32(new, at + 4, moved(u32_at(at + 4) as usize));
                }
            }
        }
        _ => {}
    }
}

/// Where the `moof` around byte `at` begins.
fn moof_of(file: &[u8], at: usize) -> Option<usize> {
    boxes(file).iter().find(|b| &b.kind == b"moof" && (b.start..b.end).contains(&at)).map(|b| b.start)
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Every `stco` becomes a `co64`; for a file whose `moov` is its last box.
pub fn to_co64(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    while let Some(stco) = boxes(&file).into_iter().find(|b| &b.kind == b"stco") {
        let all = boxes(&file);
        assert_eq!(&all.iter().rfind(|b| b.parent.is_none()).unwrap().kind, b"moov");
        let places = file[stco.body + 8..stco.end].chunks_exact(4);
        let wide: Vec<u8> = places.flat_map(|p| [&[0; 4], p].concat()).collect();
        let more = (stco.end - stco.body - 8) as u32;
        let mut around = Some(all.iter().position(|b| b.start == stco.start).unwrap());
        while let Some(i) = around {
            let size = (all[i].end - all[i].start) as u32 + more;
            put(&mut file, all[i].start, &size.to_be_bytes());
            around = all[i].parent;
        }
        put(&mut file, stco.start + 4, b"co64");
        file.splice(stco.body + 8..stco.end, wide);
    }
    file
}

fn put32(file: &mut [u8], at: usize, value: u64) {
    put(file, at, &u32::try_from(value).unwrap().to_be_bytes());
}

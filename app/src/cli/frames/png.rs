//! A raw picture as a PNG, stored without compression: for a look, not for keeping (ISO/IEC 15948, RFC 1950, RFC 1951).
//!
//! Colours are those of limited-range BT.709, of BT.601 below 720 rows, as video has them.

use mos_frame::{Modifier, Picture};

/// The file; which layout cannot be shown, else.
pub(super) fn of(picture: &Picture, planes: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    if picture.modifier != Modifier::LINEAR {
        return Err(format!("frames with modifier {:#x} cannot be read by the CPU", picture.modifier.0));
    }
    let name = picture.fourcc.to_string();
    let sample: fn(&Reading<'_>, usize, usize) -> Option<[u8; 3]> = match name.as_str() {
        "NV12" => |p, x, y| Some([p.at(0, x, y)?, p.at(1, x / 2 * 2, y / 2)?, p.at(1, x / 2 * 2 + 1, y / 2)?]),
        "NV21" => |p, x, y| Some([p.at(0, x, y)?, p.at(1, x / 2 * 2 + 1, y / 2)?, p.at(1, x / 2 * 2, y / 2)?]),
        "NV16" => |p, x, y| Some([p.at(0, x, y)?, p.at(1, x / 2 * 2, y)?, p.at(1, x / 2 * 2 + 1, y)?]),
        "YU12" => |p, x, y| Some([p.at(0, x, y)?, p.at(1, x / 2, y / 2)?, p.at(2, x / 2, y / 2)?]),
        "YV12" => |p, x, y| Some([p.at(0, x, y)?, p.at(2, x / 2, y / 2)?, p.at(1, x / 2, y / 2)?]),
        "YUYV" => |p, x, y| Some([p.at(0, 2 * x, y)?, p.at(0, x / 2 * 4 + 1, y)?, p.at(0, x / 2 * 4 + 3, y)?]),
        "UYVY" => |p, x, y| Some([p.at(0, 2 * x + 1, y)?, p.at(0, x / 2 * 4, y)?, p.at(0, x / 2 * 4 + 2, y)?]),
        _ => return Err(format!("frames in {name} cannot be written as a picture")),
    };
    let reading = Reading { picture, planes };
    let (width, height) = (picture.width as usize, picture.height as usize);
    let short = || "the frame is shorter than its size".to_owned();
    // Each row begins with its filter: none.
    let mut rows = Vec::with_capacity(height * (1 + 3 * width));
    for y in 0..height {
        rows.push(0);
        for x in 0..width {
            let yuv = sample(&reading, x, y).ok_or_else(short)?;
            rows.extend(rgb(yuv, picture.height < 720));
        }
    }
    Ok(file(picture.width, picture.height, &rows))
}

struct Reading<'a> {
    picture: &'a Picture,
    planes: &'a [Vec<u8>],
}

impl Reading<'_> {
    fn at(&self, plane: usize, x: usize, y: usize) -> Option<u8> {
        self.planes.get(plane)?.get(y * self.picture.planes.get(plane)?.stride as usize + x).copied()
    }
}

fn rgb([y, u, v]: [u8; 3], small: bool) -> [u8; 3] {
    let (red, green_u, green_v, blue) = if small { (1.596, 0.392, 0.813, 2.017) } else { (1.793, 0.213, 0.533, 2.112) };
    let (y, u, v) = (1.164 * (f32::from(y) - 16.0), f32::from(u) - 128.0, f32::from(v) - 128.0);
    [y + red * v, y - green_u * u - green_v * v, y + blue * u].map(|value| value.round().clamp(0.0, 255.0) as u8)
}

fn file(width: u32, height: u32, rows: &[u8]) -> Vec<u8> {
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut head = Vec::new();
    head.extend(width.to_be_bytes());
    head.extend(height.to_be_bytes());
    // 8 bits, red green blue, the usual compression and filter, not interlaced.
    head.extend([8, 2, 0, 0, 0]);
    chunk(&mut out, *b"IHDR", &head);
    let mut data = vec![0x78, 0x01];
    let blocks = rows.chunks(0xffff);
    let last = blocks.len().saturating_sub(1);
    for (at, block) in blocks.enumerate() {
        let len = block.len() as u16;
        data.push(u8::from(at == last));
        data.extend(len.to_le_bytes());
        data.extend((!len).to_le_bytes());
        data.extend(block);
    }
    let (a, b) = rows.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    data.extend((b << 16 | a).to_be_bytes());
    chunk(&mut out, *b"IDAT", &data);
    chunk(&mut out, *b"IEND", &[]);
    out
}

fn chunk(out: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    out.extend((data.len() as u32).to_be_bytes());
    let begin = out.len();
    out.extend(kind);
    out.extend(data);
    let sum = !out[begin..].iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 })
    });
    out.extend(sum.to_be_bytes());
}

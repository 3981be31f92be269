//! Test pictures that carry their own frame number.
//!
//! Promise: [`paint`] burns a number into a picture so that both a machine (black and white blocks) and a person (digits)
//! can read it after lossy coding; [`read_number`] gets it back, or says that it is not there. Pure: no I/O.

/// Edge of one block in pixels. A multiple of the H.264 macroblock, so that coding leaves it sharp.
pub const CELL: usize = 16;
/// Blocks in the strip: 16 bits of the number, then the same 16 inverted.
pub const CELLS: usize = 32;
/// Width of the strip in pixels; no test picture may be narrower.
pub const STRIP_WIDTH: usize = CELL * CELLS;
/// Height of the strip, at the top of the picture.
pub const STRIP_HEIGHT: usize = CELL;

const BLACK: u8 = 16;
const WHITE: u8 = 235;

/// The seven segments of each digit, bit 0 the top bar, then clockwise, bit 6 the middle bar.
const DIGITS: [u8; 10] = [0x3f, 0x06, 0x5b, 0x4f, 0x66, 0x6d, 0x7d, 0x07, 0x7f, 0x6f];

/// Paints frame `number` as I420 (limited range) into `out`, which must hold `width * height * 3 / 2` bytes.
///
/// `texture` is the amplitude (0 to 100) of a moving noise that makes an encoder spend bits.
pub fn paint(out: &mut [u8], width: usize, height: usize, number: u16, texture: u8) {
    assert!(width >= STRIP_WIDTH && height >= 96, "a test picture is at least {STRIP_WIDTH}x96");
    let (luma, chroma) = out.split_at_mut(width * height);
    let shift = usize::from(number) * 3;
    let mut noise = u32::from(number).wrapping_mul(2_654_435_761) | 1;
    for (y, row) in luma.chunks_exact_mut(width).enumerate() {
        for (x, p) in row.iter_mut().enumerate() {
            *p = 50 + ((x + y + shift) / 4 % 128) as u8;
        }
        if texture > 0 && y % 2 == 0 {
            for p in row.iter_mut().step_by(2) {
                noise ^= noise << 13;
                noise ^= noise >> 17;
                noise ^= noise << 5;
                *p = p.saturating_add((noise % u32::from(texture)) as u8);
            }
        }
    }
    for (i, p) in chroma.iter_mut().enumerate() {
        *p = 96 + ((i / 64 + shift / 8) % 64) as u8;
    }
    for cell in 0..CELLS {
        let bit = (number >> (15 - cell % 16)) & 1 == 1;
        fill(luma, width, cell * CELL, 0, CELL, CELL, if bit == (cell < 16) { WHITE } else { BLACK });
    }
    // Neutral colour below blocks and digits, so that a player shows them black and white.
    for plane in chroma.chunks_exact_mut(width * height / 4) {
        for row in plane.chunks_exact_mut(width / 2).take(48) {
            row[..STRIP_WIDTH / 2].fill(128);
        }
    }
    fill(luma, width, 0, CELL, 5 * 32 + 16, 72, BLACK);
    for place in 0..5 {
        let digit = number / 10_u16.pow(4 - place) % 10;
        seven_segments(luma, width, 16 + place as usize * 32, 28, DIGITS[usize::from(digit)]);
    }
}

fn seven_segments(luma: &mut [u8], width: usize, x: usize, y: usize, segments: u8) {
    let bars =
        [(0, 0, 20, 4), (16, 0, 4, 24), (16, 20, 4, 24), (0, 40, 20, 4), (0, 20, 4, 24), (0, 0, 4, 24), (0, 20, 20, 4)];
    for (i, (dx, dy, w, h)) in bars.into_iter().enumerate() {
        if segments >> i & 1 == 1 {
            fill(luma, width, x + dx, y + dy, w, h, WHITE);
        }
    }
}

fn fill(luma: &mut [u8], width: usize, x: usize, y: usize, w: usize, h: usize, value: u8) {
    for row in luma.chunks_exact_mut(width).skip(y).take(h) {
        row[x..x + w].fill(value);
    }
}

/// Reads the number from a grey strip of [`STRIP_WIDTH`] × [`STRIP_HEIGHT`] bytes; `None` if a block disagrees with its
/// inverse, which is what a damaged or foreign picture looks like.
#[must_use]
pub fn read_number(strip: &[u8]) -> Option<u16> {
    if strip.len() < STRIP_WIDTH * STRIP_HEIGHT {
        return None;
    }
    let mean = |cell: usize| -> i32 {
        let inner = strip.chunks_exact(STRIP_WIDTH).skip(4).take(8).flat_map(|row| &row[cell * CELL + 4..][..8]);
        inner.map(|p| i32::from(*p)).sum::<i32>() / 64
    };
    (0..16).try_fold(0_u16, |number, bit| {
        let (plain, inverse) = (mean(bit), mean(bit + 16));
        ((plain - inverse).abs() > 80).then_some(number << 1 | u16::from(plain > inverse))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_painted_number_is_read_back() {
        let (w, h) = (640, 360);
        let mut picture = vec![0; w * h * 3 / 2];
        for number in [0, 1, 799, 43_690, u16::MAX] {
            paint(&mut picture, w, h, number, 30);
            let strip: Vec<u8> =
                picture.chunks_exact(w).take(STRIP_HEIGHT).flat_map(|row| &row[..STRIP_WIDTH]).copied().collect();
            assert_eq!(read_number(&strip), Some(number));
        }
    }

    #[test]
    fn a_grey_picture_has_no_number() {
        assert_eq!(read_number(&[128; STRIP_WIDTH * STRIP_HEIGHT]), None);
        assert_eq!(read_number(&[]), None);
    }
}

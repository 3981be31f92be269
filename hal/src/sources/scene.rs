//! The synthetic scene: colour bars, a moving bar, the frame number for people and for programs, and a running clock.
//!
//! Promises a cheap picture whose number survives lossy coding and scaling of a whole-picture kind.
//!
//! # The strip
//!
//! The first 24 blocks of 16×16 pixels of the top row hold the low 24 bits of the frame number, most significant bit at the
//! left: white (luma 235) is 1, black (luma 16) is 0. Read a bit at the middle of its block, pixel (16·i + 8, 8), as luma
//! above 125. With ffmpeg: `-vf crop=384:16:0:0,scale=24:1:flags=area,format=gray -f rawvideo -` gives 24 bytes per frame.

use crate::clock::UtcMicros;

/// Pixels per block of the strip.
pub(crate) const BLOCK: usize = 16;
/// Bits of the strip.
pub(crate) const BITS: usize = 24;

const WHITE: u8 = 235;
const BLACK: u8 = 16;

/// 75 % colour bars in BT.709, limited range: luma, Cb, Cr of white, yellow, cyan, green, magenta, red, blue.
const BARS: [(u8, u8, u8); 7] =
    [(180, 128, 128), (168, 44, 136), (145, 147, 44), (133, 63, 52), (63, 193, 204), (51, 109, 212), (28, 212, 120)];

/// Where the planes of an I420 picture lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planes {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) offsets: [usize; 3],
    pub(super) strides: [usize; 3],
    pub(super) size: usize,
}

/// The scene with its unchanging part painted.
pub(super) struct Scene {
    planes: Planes,
    base: Vec<u8>,
}

impl Scene {
    pub(super) fn new(planes: Planes) -> Self {
        let mut base = vec![BLACK; planes.size];
        for (plane, scale) in [(0, 1), (1, 2), (2, 2)] {
            let (width, height) = (planes.width.div_ceil(scale), planes.height.div_ceil(scale));
            for y in 0..height {
                let row = planes.offsets[plane] + y * planes.strides[plane];
                for (x, pixel) in base[row..row + width].iter_mut().enumerate() {
                    let bar = BARS[x * BARS.len() / width];
                    *pixel = [bar.0, bar.1, bar.2][plane];
                }
            }
        }
        Self { planes, base }
    }

    /// Paints frame `number` into a picture of the scene's planes.
    pub(super) fn paint(&self, picture: &mut [u8], number: u64, utc: UtcMicros) {
        let Some(picture) = picture.get_mut(..self.base.len()) else { return };
        picture.copy_from_slice(&self.base);
        let Planes { width, height, .. } = self.planes;
        // The bar crosses the picture in 8 s at 30 frames/s.
        let bar = (width / 60).max(8);
        let x = usize::try_from(number % 240).unwrap_or(0) * (width - bar) / 240;
        self.fill(picture, x, BLOCK, bar, height - BLOCK, WHITE);
        for bit in 0..BITS {
            let on = number >> (BITS - 1 - bit) & 1 == 1;
            self.fill(picture, bit * BLOCK, 0, BLOCK, BLOCK, if on { WHITE } else { BLACK });
        }
        let scale = (width / 320).max(1);
        self.text(picture, (8 * scale, BLOCK + 8 * scale), scale, &number.to_string());
        self.text(picture, (8 * scale, BLOCK + 20 * scale), scale, &clock_text(utc));
    }

    fn fill(&self, picture: &mut [u8], x: usize, y: usize, width: usize, height: usize, luma: u8) {
        let right = (x + width).min(self.planes.width);
        for line in y..(y + height).min(self.planes.height) {
            let row = self.planes.offsets[0] + line * self.planes.strides[0];
            if let Some(pixels) = picture.get_mut(row + x..row + right) {
                pixels.fill(luma);
            }
        }
    }

    /// Digits and signs of 5×7 dots with a black ground.
    fn text(&self, picture: &mut [u8], at: (usize, usize), scale: usize, text: &str) {
        let (mut x, y) = at;
        self.fill(picture, x - scale, y - scale, (text.len() * 6 + 1) * scale, 9 * scale, BLACK);
        for c in text.chars() {
            for (line, dots) in glyph(c).iter().enumerate() {
                for column in 0..5 {
                    if dots >> (4 - column) & 1 == 1 {
                        self.fill(picture, x + column * scale, y + line * scale, scale, scale, WHITE);
                    }
                }
            }
            x += 6 * scale;
        }
    }
}

/// Seven lines of five dots, the leftmost in bit 4.
fn glyph(c: char) -> [u8; 7] {
    match c {
        '0' => [0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e],
        '1' => [0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e],
        '2' => [0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f],
        '3' => [0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e],
        '4' => [0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02],
        '5' => [0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e],
        '6' => [0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e],
        '7' => [0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08],
        '8' => [0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e],
        '9' => [0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c],
        '-' => [0, 0, 0, 0x1f, 0, 0, 0],
        ':' => [0, 0x0c, 0x0c, 0, 0x0c, 0x0c, 0],
        '.' => [0, 0, 0, 0, 0, 0x0c, 0x0c],
        'Z' => [0x1f, 0x01, 0x02, 0x04, 0x08, 0x10, 0x1f],
        _ => [0; 7],
    }
}

/// `2026-01-31 23:59:59.123Z`.
fn clock_text(utc: UtcMicros) -> String {
    let seconds = utc.0.div_euclid(1_000_000);
    let millis = utc.0.rem_euclid(1_000_000) / 1000;
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of a day number since 1970-01-01 in the Gregorian calendar, counted in 400-year eras that begin on
/// 1 March.
fn civil(days: i64) -> (i64, i64, i64) {
    let since = days + 719_468;
    let (era, of_era) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn planes(width: usize, height: usize) -> Planes {
        let (y, c) = (width * height, width / 2 * height.div_ceil(2));
        Planes { width, height, offsets: [0, y, y + c], strides: [width, width / 2, width / 2], size: y + 2 * c }
    }

    #[test]
    fn the_strip_holds_the_number() {
        let p = planes(384, 64);
        let scene = Scene::new(p);
        for number in [0u64, 1, 0xff_ffff, 0xab_cdef, 0x1_00ab_cdef] {
            let mut picture = vec![0; p.size];
            scene.paint(&mut picture, number, UtcMicros(0));
            let read = (0..BITS).fold(0u64, |n, i| n << 1 | u64::from(picture[8 * 384 + i * BLOCK + 8] > 125));
            assert_eq!(read, number & 0xff_ffff);
        }
    }

    #[test]
    fn the_clock_knows_the_calendar() {
        let at = |s: i64| clock_text(UtcMicros(s * 1_000_000 + 7_000));
        assert_eq!(at(0), "1970-01-01 00:00:00.007Z");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00.007Z");
        assert_eq!(at(1_798_761_599), "2026-12-31 23:59:59.007Z");
        assert_eq!(at(-1), "1969-12-31 23:59:59.007Z");
    }
}

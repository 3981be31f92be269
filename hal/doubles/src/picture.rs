//! The pictures of the doubles' cameras: a moving scene with the frame's number in black and white blocks along the top.
//!
//! Promises that [`number`] and every reader of the project's test pictures get the number back after lossy coding: 16 blocks
//! of 16 × 16 pixels with its bits, the highest first, then the same inverted. Costs little: the background is painted once
//! per buffer, the strip and a moving square each time.

use gstreamer_video::VideoFormat;

use crate::pool::Layout;

const CELL: usize = 16;
const BLACK: u8 = 16;
const WHITE: u8 = 235;

/// Paints frame `number`; `fresh` is a buffer that was never painted. Pictures narrower than the strip carry none.
pub(crate) fn paint(out: &mut [u8], layout: &Layout, number: u16, fresh: bool) {
    let (width, height) = (layout.width as usize, layout.height as usize);
    let stride = layout.strides[0] as usize;
    // Packed 4:2:2 has luma in every other byte.
    let step = if layout.format == VideoFormat::Yuy2 { 2 } else { 1 };
    if fresh || height < 64 {
        out.fill(128);
        for (y, row) in out.chunks_exact_mut(stride).take(height).enumerate() {
            for x in 0..width {
                row[x * step] = 60 + ((x / 2 + y) % 96) as u8;
            }
        }
    }
    let mut fill = |x: usize, y: usize, w: usize, h: usize, value: &dyn Fn(usize, usize) -> u8| {
        for row in y..(y + h).min(height) {
            for column in x..(x + w).min(width) {
                out[row * stride + column * step] = value(column, row);
            }
        }
    };
    if height >= 64 {
        // The band in which the square moves, as it was, then the square.
        let band = height - 32;
        fill(0, band, width, 32, &|x, y| 60 + ((x / 2 + y) % 96) as u8);
        let at = usize::from(number) * 8 % width.saturating_sub(32).max(1);
        fill(at, band, 32, 32, &|_, _| WHITE);
    }
    if width >= CELL * 32 && height >= CELL {
        for cell in 0..32 {
            let bit = (number >> (15 - cell % 16)) & 1 == 1;
            fill(cell * CELL, 0, CELL, CELL, &|_, _| if bit == (cell < 16) { WHITE } else { BLACK });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::data::Output;
    use gstreamer as gst;

    #[test]
    fn a_painted_number_stands_in_the_blocks() {
        gst::init().unwrap();
        for format in ["NV12", "YUY2"] {
            let caps = gst::Caps::builder("video/x-raw").field("format", format).field("width", 600);
            let caps = caps.field("height", 120).field("framerate", gst::Fraction::new(30, 1)).build();
            let layout = Layout::of(&caps, Output::Fd).unwrap();
            assert_eq!(layout.strides[0] % 64, 0);
            let mut out = vec![0; layout.size];
            paint(&mut out, &layout, 0xA5C3, true);
            let step = if format == "YUY2" { 2 } else { 1 };
            let bits = (0..16).fold(0_u16, |n, i| {
                n << 1 | u16::from(out[(i * 16 + 8) * step + 8 * layout.strides[0] as usize] > 128)
            });
            assert_eq!(bits, 0xA5C3);
        }
    }
}

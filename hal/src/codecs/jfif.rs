//! Video colours to JPEG colours.
//!
//! JFIF 1.02 knows one kind of colour: BT.601 over the full range of 8 bits. Promises that, from 4:2:0 planes of any common
//! matrix and range. Chroma samples stay where they are: their half-pixel offset from JPEG's centre is not corrected.

/// Luma weights of red and blue that a matrix is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Weights {
    red: f64,
    blue: f64,
}

/// ITU-R BT.601.
pub(super) const BT601: Weights = Weights { red: 0.299, blue: 0.114 };
/// ITU-R BT.709.
pub(super) const BT709: Weights = Weights { red: 0.2126, blue: 0.0722 };
/// ITU-R BT.2020, non-constant luminance.
pub(super) const BT2020: Weights = Weights { red: 0.2627, blue: 0.0593 };

/// Fractional bits of luma sums. All sums fit 16 bits, so that compilers use vector arithmetic on any machine.
const LUMA: u32 = 5;
/// What luma, within 0 ± 256, is shifted by before [`high`], to fill 16 bits.
const LUMA_UP: u32 = 7;
/// Fractional bits of the factors of differences; these lie within 0 ± 128 and the factors below 1.3.
const CHROMA: u32 = 7;

/// A conversion, ready to run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ToJfif {
    luma_zero: i16,
    /// What is added to luma, as a factor: scale minus one.
    luma: i16,
    /// What blue and red difference add to luma.
    to_luma: [i16; 2],
    /// What the differences become: rows for blue and red.
    chroma: [[i16; 2]; 2],
}

/// One plane to read or write.
pub(super) struct Plane<B> {
    pub(super) data: B,
    pub(super) stride: usize,
}

impl Plane<&[u8]> {
    fn line(&self, line: usize, width: usize) -> Option<&[u8]> {
        self.data.get(line * self.stride..)?.get(..width)
    }
}

impl Plane<&mut [u8]> {
    /// A line and what lies between it and the next.
    fn line_mut(&mut self, line: usize, width: usize) -> Option<(&mut [u8], &mut [u8])> {
        let (start, stride) = (line * self.stride, self.stride);
        let rest = self.data.get_mut(start..)?;
        let end = stride.min(rest.len());
        rest[..end].split_at_mut_checked(width)
    }
}

/// Repeats the last pixel: encoders read whole blocks, and must not find old memory there.
fn extend(line: &[u8], pad: &mut [u8]) {
    pad.fill(line.last().copied().unwrap_or_default());
}

impl ToJfif {
    /// From a matrix and a range (`full`: 0 to 255, else 16 to 235).
    pub(super) fn new(from: Weights, full: bool) -> Self {
        let (luma_zero, luma, chroma) = if full { (0, 1.0, 1.0) } else { (16, 255.0 / 219.0, 255.0 / 224.0) };
        // A colour with no luma and differences (cb, cr) in the old matrix, as red, green and blue…
        let rgb = |cb: f64, cr: f64| {
            let (r, b) = (2.0 * (1.0 - from.red) * cr, 2.0 * (1.0 - from.blue) * cb);
            (r, -(from.red * r + from.blue * b) / (1.0 - from.red - from.blue), b)
        };
        // …and in the new one.
        let new = |(r, g, b): (f64, f64, f64)| {
            let y = BT601.red * r + (1.0 - BT601.red - BT601.blue) * g + BT601.blue * b;
            [y, (b - y) / (2.0 * (1.0 - BT601.blue)), (r - y) / (2.0 * (1.0 - BT601.red))]
        };
        let (blue, red) = (new(rgb(1.0, 0.0)), new(rgb(0.0, 1.0)));
        let fixed = |x: f64| (x * f64::from(1 << CHROMA)).round() as i16;
        Self {
            luma_zero,
            luma: ((luma - 1.0) * f64::from(1 << (16 - LUMA_UP + LUMA))).round() as i16,
            to_luma: [fixed(blue[0] * chroma), fixed(red[0] * chroma)],
            chroma: [[blue[1], red[1]], [blue[2], red[2]]].map(|row| row.map(|x| fixed(x * chroma))),
        }
    }

    /// Whether nothing changes.
    pub(super) fn is_identity(&self) -> bool {
        *self == Self::new(BT601, true)
    }

    /// Converts a picture of `width`×`height` pixels, planes in the order luma, blue, red.
    pub(super) fn convert(
        &self,
        from: &[Plane<&[u8]>; 3],
        to: &mut [Plane<&mut [u8]>; 3],
        width: usize,
        height: usize,
    ) {
        // Planes that are too short end the conversion early.
        let _ = self.try_convert(from, to, width, height);
    }

    fn try_convert(
        &self,
        from: &[Plane<&[u8]>; 3],
        to: &mut [Plane<&mut [u8]>; 3],
        width: usize,
        height: usize,
    ) -> Option<()> {
        let half = width.div_ceil(2);
        let mut shift = vec![0i16; half * 2];
        let [luma, blue, red] = to;
        for line in 0..height.div_ceil(2) {
            let (cb, cr) = (from[1].line(line, half)?, from[2].line(line, half)?);
            let (out_blue, blue_pad) = blue.line_mut(line, half)?;
            let (out_red, red_pad) = red.line_mut(line, half)?;
            self.chroma_line(cb, cr, out_blue, out_red, &mut shift);
            extend(out_blue, blue_pad);
            extend(out_red, red_pad);
            for y in (2 * line..height).take(2) {
                let source = from[0].line(y, width)?;
                let (target, pad) = luma.line_mut(y, width)?;
                for ((out, y), shift) in target.iter_mut().zip(source).zip(&shift) {
                    let y = i16::from(*y) - self.luma_zero;
                    let value = (y << LUMA) + high(y << LUMA_UP, self.luma) + shift;
                    *out = ((value + (1 << (LUMA - 1))) >> LUMA).clamp(0, 255) as u8;
                }
                extend(target, pad);
            }
        }
        Some(())
    }

    /// One line of both differences; `shift` takes what they add to the two luma pixels above and below each.
    fn chroma_line(&self, cb: &[u8], cr: &[u8], out_blue: &mut [u8], out_red: &mut [u8], shift: &mut [i16]) {
        // One plain loop per result: compilers turn each into vector instructions, and do not if they are one.
        let difference = |out: &mut [u8], [from_blue, from_red]: [i16; 2]| {
            for ((out, cb), cr) in out.iter_mut().zip(cb).zip(cr) {
                let sum = centred(*cb) * from_blue + centred(*cr) * from_red;
                *out = (((sum + (1 << (CHROMA - 1))) >> CHROMA) + 128).clamp(0, 255) as u8;
            }
        };
        difference(out_blue, self.chroma[0]);
        difference(out_red, self.chroma[1]);
        let [from_blue, from_red] = self.to_luma;
        for ((shift, cb), cr) in shift.chunks_exact_mut(2).zip(cb).zip(cr) {
            shift.fill((centred(*cb) * from_blue + centred(*cr) * from_red) >> (CHROMA - LUMA));
        }
    }
}

/// A difference around zero.
fn centred(difference: u8) -> i16 {
    i16::from(difference) - 128
}

/// The upper 16 bits of a product.
fn high(a: i16, b: i16) -> i16 {
    ((i32::from(a) * i32::from(b)) >> 16) as i16
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// One pixel block of one colour.
    fn one(c: ToJfif, y: u8, cb: u8, cr: u8) -> (u8, u8, u8) {
        let (mut ly, mut lb, mut lr) = ([0u8; 4], [0u8; 1], [0u8; 1]);
        let from = [
            Plane { data: &[y; 4][..], stride: 2 },
            Plane { data: &[cb][..], stride: 1 },
            Plane { data: &[cr][..], stride: 1 },
        ];
        let mut to = [
            Plane { data: &mut ly[..], stride: 2 },
            Plane { data: &mut lb[..], stride: 1 },
            Plane { data: &mut lr[..], stride: 1 },
        ];
        c.convert(&from, &mut to, 2, 2);
        assert_eq!(ly, [ly[0]; 4]);
        (ly[0], lb[0], lr[0])
    }

    #[test]
    fn black_and_white_span_the_full_range() {
        for from in [BT601, BT709, BT2020] {
            let c = ToJfif::new(from, false);
            assert_eq!(one(c, 16, 128, 128), (0, 128, 128));
            assert_eq!(one(c, 235, 128, 128), (255, 128, 128));
            assert_eq!(one(c, 0, 128, 128), (0, 128, 128), "below black");
        }
        let same = ToJfif::new(BT601, true);
        assert!(same.is_identity() && !ToJfif::new(BT601, false).is_identity());
        assert_eq!([one(same, 0, 0, 255), one(same, 255, 255, 0)], [(0, 0, 255), (255, 255, 0)]);
    }

    #[test]
    fn pure_red_is_the_same_red() {
        // Red in limited BT.709 (63, 102, 240) and in limited BT.601 (81, 90, 240); JFIF red is (76, 85, 255).
        let near = |got: (u8, u8, u8)| {
            let apart = [got.0.abs_diff(76), got.1.abs_diff(85), got.2.abs_diff(255)];
            assert!(apart.iter().all(|d| *d <= 1), "{got:?}");
        };
        near(one(ToJfif::new(BT709, false), 63, 102, 240));
        near(one(ToJfif::new(BT601, false), 81, 90, 240));
    }

    #[test]
    fn odd_sizes_and_short_planes_stay_in_bounds() {
        let c = ToJfif::new(BT709, false);
        let (y, uv) = (vec![100u8; 15], vec![100u8; 6]);
        let (mut oy, mut ou, mut ov) = (vec![0u8; 15], vec![0u8; 6], vec![0u8; 5]);
        let from = [3, 2, 2].map(|stride| stride);
        let planes = [
            Plane { data: &y[..], stride: from[0] },
            Plane { data: &uv[..], stride: from[1] },
            Plane { data: &uv[..], stride: from[2] },
        ];
        let mut to = [
            Plane { data: &mut oy[..], stride: 3 },
            Plane { data: &mut ou[..], stride: 2 },
            Plane { data: &mut ov[..], stride: 2 },
        ];
        c.convert(&planes, &mut to, 3, 5);
        assert_eq!(oy[..12], [98; 12].map(|_| oy[0]));
    }
}

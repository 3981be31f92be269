//! How a player shall turn the pictures of a track: the matrix of `tkhd` (ISO/IEC 14496-12, 8.3.2 and 6.2.2).
//!
//! Pictures stay as they are coded; players that know the matrix show them turned. The offsets bring the turned picture back to
//! the origin, as QuickTime asks for.

/// A quarter turn or more, clockwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rotation {
    /// Shown as coded.
    #[default]
    None,
    /// 90 degrees.
    Quarter,
    /// 180 degrees.
    Half,
    /// 270 degrees.
    ThreeQuarters,
}

const ONE: u32 = 0x1_0000;
const MINUS_ONE: u32 = 0xffff_0000;

impl Rotation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Quarter, Self::Half, Self::ThreeQuarters];

    /// In degrees, clockwise.
    #[must_use]
    pub fn degrees(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Quarter => 90,
            Self::Half => 180,
            Self::ThreeQuarters => 270,
        }
    }

    /// Of 0, 90, 180 or 270 degrees, clockwise.
    #[must_use]
    pub fn of_degrees(degrees: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|rotation| rotation.degrees() == degrees)
    }

    /// a, b, c and d of the matrix: a point (x, y) is shown at (a x + c y, b x + d y).
    fn turn(self) -> [u32; 4] {
        match self {
            Self::None => [ONE, 0, 0, ONE],
            Self::Quarter => [0, ONE, MINUS_ONE, 0],
            Self::Half => [MINUS_ONE, 0, 0, MINUS_ONE],
            Self::ThreeQuarters => [0, MINUS_ONE, ONE, 0],
        }
    }

    /// The matrix for a picture of this size on the screen, before it is turned.
    pub(crate) fn matrix(self, (width, height): (u32, u32)) -> [u32; 9] {
        let [a, b, c, d] = self.turn();
        let corner = match self {
            Self::None => (0, 0),
            Self::Quarter => (height, 0),
            Self::Half => (width, height),
            Self::ThreeQuarters => (0, width),
        };
        let fixed = |pixels: u32| pixels.min(0x7fff) << 16;
        [a, b, 0, c, d, 0, fixed(corner.0), fixed(corner.1), 0x4000_0000]
    }

    /// What a matrix means; one that this crate does not write means nothing.
    pub(crate) fn of_matrix(matrix: [u32; 9]) -> Self {
        let turn = [matrix[0], matrix[1], matrix[3], matrix[4]];
        Self::ALL.into_iter().find(|rotation| rotation.turn() == turn).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_corner_comes_to_lie_where_it_is_seen() {
        let number = |fixed: u32| i64::from(fixed.cast_signed() >> 16);
        for rotation in Rotation::ALL {
            let (w, h) = (640, 360);
            let m = rotation.matrix((640, 360));
            assert_eq!(Rotation::of_matrix(m), rotation);
            assert_eq!(Rotation::of_degrees(rotation.degrees()), Some(rotation));
            let place = |x: i64, y: i64| {
                (number(m[0]) * x + number(m[3]) * y + number(m[6]), number(m[1]) * x + number(m[4]) * y + number(m[7]))
            };
            // Upper left and upper right corner of the coded picture.
            let seen = (place(0, 0), place(w, 0));
            let expected = match rotation {
                Rotation::None => ((0, 0), (w, 0)),
                Rotation::Quarter => ((h, 0), (h, w)),
                Rotation::Half => ((w, h), (0, h)),
                Rotation::ThreeQuarters => ((0, w), (0, 0)),
            };
            assert_eq!(seen, expected, "{rotation:?}");
        }
        assert_eq!(Rotation::of_degrees(45), None);
        assert_eq!(Rotation::of_matrix([7; 9]), Rotation::None);
    }
}

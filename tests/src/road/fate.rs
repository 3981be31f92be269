//! What befalls a connection, drawn from a seed.

use std::time::Duration;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Way {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        if self == Self::Up { Self::Down } else { Self::Up }
    }
}

/// What befalls one connection. `after` counts bytes of its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Nothing.
    Clean,
    /// Every byte arrives late.
    Delay {
        /// By so much, each way.
        millis: u64,
    },
    /// Bytes pass slowly.
    Throttle {
        /// At most so fast.
        kilobytes_per_second: u64,
    },
    /// A link as a mobile network has it: every byte late, and only so many of them. Never drawn.
    Link {
        /// So late, each way.
        millis: u64,
        /// At most so fast.
        kilobytes_per_second: u64,
    },
    /// Nothing passes for a while.
    Stall {
        /// From here on.
        after: u64,
        /// For so long.
        millis: u64,
    },
    /// Both sides get a reset.
    Reset {
        /// Which bytes are counted.
        way: Way,
        /// From here on.
        after: u64,
    },
    /// One bit is another.
    Flip {
        /// Which bytes are counted.
        way: Way,
        /// This one.
        after: u64,
    },
    /// Bytes vanish both ways, and nobody is told.
    BlackHole {
        /// Once so many went up.
        after: u64,
    },
    /// The server's side is closed, and the client is not told.
    HalfOpen {
        /// Once so many went up.
        after: u64,
    },
    /// Another server answers.
    Impostor,
}

impl Fate {
    /// How late bytes arrive.
    pub(super) fn delay(self) -> Duration {
        match self {
            Self::Delay { millis } | Self::Link { millis, .. } => Duration::from_millis(millis),
            _ => Duration::ZERO,
        }
    }

    /// How long to wait after `bytes` have passed.
    pub(super) fn pace(self, bytes: usize) -> Option<Duration> {
        let (Self::Throttle { kilobytes_per_second } | Self::Link { kilobytes_per_second, .. }) = self else {
            return None;
        };
        Some(Duration::from_micros(bytes as u64 * 1000 / kilobytes_per_second))
    }

    /// Where among the next `len` bytes of `way`, of which `passed` went before, it strikes.
    pub(super) fn strikes(self, way: Way, passed: u64, len: u64) -> Option<u64> {
        let (of, after) = match self {
            Self::Reset { way, after } | Self::Flip { way, after } => (way, after),
            Self::Stall { after, .. } | Self::BlackHole { after } | Self::HalfOpen { after } => (Way::Up, after),
            Self::Clean | Self::Delay { .. } | Self::Throttle { .. } | Self::Link { .. } | Self::Impostor => {
                return None;
            }
        };
        (of == way && (passed..passed + len).contains(&after)).then(|| after - passed)
    }
}

/// A schedule of fates.
#[derive(Clone, Debug)]
pub struct Fates {
    kind: Kind,
    random: Random,
    /// The first connection is still to come: it meets an impostor, so that no schedule is without one.
    first: bool,
    /// One in so many connections falls into a hole or half opens, which takes the client long to notice; 0: none.
    silent: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    Fixed(Fate),
    Drawn,
}

impl Fates {
    /// The same for every connection, which lasts.
    #[must_use]
    pub fn all(fate: Fate) -> Self {
        Self { kind: Kind::Fixed(fate), random: Random(1), first: false, silent: 0 }
    }

    /// Anything, drawn from `seed`, and an early end; of `silent` connections one is dead without a sign (0: none).
    #[must_use]
    pub fn drawn(seed: u64, silent: u64) -> Self {
        Self { kind: Kind::Drawn, random: Random::new(seed), first: true, silent }
    }

    /// The next connection's fate, and after how many bytes up it is hung up if it is still there.
    pub(super) fn next(&mut self) -> (Fate, Option<u64>) {
        if let Kind::Fixed(fate) = self.kind {
            return (fate, None);
        }
        let end = 200_000 + self.random.spread(23);
        let fate = self.draw();
        (if std::mem::take(&mut self.first) { Fate::Impostor } else { fate }, Some(end))
    }

    fn draw(&mut self) -> Fate {
        let r = &mut self.random;
        // The same number of draws whatever comes of it.
        let (which, long, way, size, silent) = (r.below(100), r.below(2), r.below(3), r.spread(20), r.next());
        let way = if way == 0 { Way::Down } else { Way::Up };
        if self.silent > 0 && silent.is_multiple_of(self.silent) {
            return if long == 0 { Fate::BlackHole { after: size } } else { Fate::HalfOpen { after: size } };
        }
        match which {
            0..40 => Fate::Clean,
            40..47 => Fate::Delay { millis: 5 + size % 45 },
            47..53 => Fate::Throttle { kilobytes_per_second: 200 + size % 2000 },
            53..60 => Fate::Stall { after: size, millis: 100 + size % 900 },
            60..82 => Fate::Reset { way, after: size },
            82..95 => Fate::Flip { way, after: size },
            _ => Fate::Impostor,
        }
    }
}

/// A small generator (xorshift64*, Vigna 2016): the schedule must be the same everywhere and always.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Streams of different seeds have nothing in common.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // One round of splitmix64, so that small seeds are as good as others.
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((z ^ (z >> 31)) | 1)
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "it has no end and is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A number below 2^`bits`, each order of magnitude as likely as the others.
    pub fn spread(&mut self, bits: u64) -> u64 {
        let order = self.below(bits) + 1;
        self.below(1 << order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_schedule_and_every_fate_comes() {
        let drawn = |seed| {
            let mut fates = Fates::drawn(seed, 50);
            (0..2000).map(|_| fates.next().0).collect::<Vec<_>>()
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        let kinds: std::collections::HashSet<_> = drawn(7).iter().map(std::mem::discriminant).collect();
        assert_eq!(kinds.len(), 9);
    }

    #[test]
    fn a_fate_strikes_once_at_its_byte() {
        let fate = Fate::Reset { way: Way::Up, after: 10 };
        assert_eq!(fate.strikes(Way::Up, 0, 10), None);
        assert_eq!(fate.strikes(Way::Up, 10, 1), Some(0));
        assert_eq!(fate.strikes(Way::Up, 3, 100), Some(7));
        assert_eq!(fate.strikes(Way::Down, 3, 100), None);
    }
}

//! The one source of chance: whatever a seed decides comes from here.

/// Sebastiano Vigna's SplitMix64: the same numbers from the same seed, on every machine and with
/// every version of any crate.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 on, below `count`, which is at least 1.
    pub fn below(&mut self, count: usize) -> usize {
        (self.next_u64() % count as u64) as usize
    }

    /// From `least` to `most`, both included.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// The seed of this run of the tests: property tests draw from it by themselves, every other test
/// by this.
///
/// # Panics
/// Where Cargo did not set it.
pub fn seed() -> u64 {
    let value = std::env::var("PROPTEST_RNG_SEED").unwrap_or_default();
    value.parse().unwrap_or_else(|_| {
        panic!(
            "PROPTEST_RNG_SEED is {value:?}, no number: .cargo/config.toml sets it where Cargo runs"
        )
    })
}

//! All chance of a run, from one seed.

use jiff::SignedDuration;

/// A stream of numbers. The same seed gives the same stream.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x6a09_e667_f3bc_c908)
    }
    /// Another stream, so that one actor's throws do not shift another's.
    pub(super) fn split(&mut self) -> Dice {
        Dice(self.next())
    }
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// A number from 0 to `n - 1`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    /// True in so many of a thousand cases.
    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.next() % 1000 < per_mille
    }
    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
    /// A span of so many milliseconds, both ends included.
    pub(super) fn millis(&mut self, from: u64, to: u64) -> SignedDuration {
        SignedDuration::from_millis((from + self.next() % (to - from + 1)) as i64)
    }
    /// A span of so many seconds, to the millisecond.
    pub(super) fn seconds(&mut self, from: u64, to: u64) -> SignedDuration {
        self.millis(from * 1000, to * 1000)
    }
}

//! The order of additions: how the values of a channel become two sums, in one place for all
//! passes.
//!
//! Statistics need the sums of `t` and `t*t`, with `t = x - pivot`; gradients need the sums of `g`
//! and `g*(x - mean)`. Either pair is summed in the same order, which the shape alone decides:
//!
//! ```text
//! block, f32     vectors, or rows where lanes are columns, in fours:
//!
//!                v0 v1   v2 v3      v4 v5   v6 v7      v8            a vector or a row that is
//!                  +       +          +       +         |            missing adds nothing
//!                  └── + ──┘          └── + ──┘         |
//!                0 ── + ─────────────── + ───────────── + ── sum of the block
//!
//! part, f64      each lane of the sum of a block is widened and added to the lane of the part;
//!                256 blocks in sequence
//! channel, f64   planar: the lanes of a part are folded, the upper half added to the lower:
//!                16, 8, 4, 2, 1. Columns: each lane is a column. Parts in sequence, then the
//!                columns of a channel in sequence.
//! ```
//!
//! A run begins a new four, so that a row of four vectors is always one four. At most sixteen fours
//! are added in sequence, and the first addition rounds nothing: no f32 sum is more than 15
//! roundings deep, and most are five.

use core::ops::Add;

use crate::simd::{LANES, Lanes, Simd};

/// Two sums, or the summands of both, side by side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Two<T> {
    pub(crate) first: T,
    pub(crate) second: T,
}

impl<T: Add<Output = T>> Add for Two<T> {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self { first: self.first + other.first, second: self.second + other.second }
    }
}

impl<T: Copy> Two<T> {
    /// `value` as both numbers.
    #[inline(always)]
    pub(crate) const fn both(value: T) -> Self {
        Self { first: value, second: value }
    }
}

/// A sum in fours, one summand after the other. The last four may have fewer summands.
#[derive(Clone, Copy)]
pub(crate) struct InFours<T> {
    sum: Two<T>,
    pair: Two<T>,
    last: Two<T>,
    number: usize,
}

impl<T: Copy + Add<Output = T>> InFours<T> {
    /// A sum that adds its fours to `sum`.
    #[inline(always)]
    pub(crate) const fn after(sum: Two<T>) -> Self {
        Self { sum, pair: sum, last: sum, number: 0 }
    }

    /// Adds the next summand.
    #[inline(always)]
    pub(crate) fn add(&mut self, summand: Two<T>) {
        match self.number % 4 {
            0 | 2 => self.last = summand,
            1 => self.pair = self.last + summand,
            _ => self.sum = self.sum + (self.pair + (self.last + summand)),
        }
        self.number += 1;
    }

    /// The sum of `sum` and all summands.
    #[inline(always)]
    pub(crate) fn total(self) -> Two<T> {
        match self.number % 4 {
            0 => self.sum,
            1 => self.sum + self.last,
            2 => self.sum + self.pair,
            _ => self.sum + (self.pair + self.last),
        }
    }
}

/// The two sums of the blocks of a part, lane by lane.
#[derive(Clone, Copy)]
pub(crate) struct LaneSums<S: Simd>(Two<S::F64>);

impl<S: Simd> LaneSums<S> {
    /// The sums so far from memory.
    #[inline(always)]
    pub(crate) fn load(s: S, [first, second]: &[Lanes<f64>; 2]) -> Self {
        Self(Two { first: s.load_f64(first), second: s.load_f64(second) })
    }

    /// Adds a block.
    #[inline(always)]
    pub(crate) fn add(&mut self, s: S, block: Two<S::F32>) {
        self.0 = self.0 + Two { first: s.widen(block.first), second: s.widen(block.second) };
    }

    /// The sums so far to memory.
    #[inline(always)]
    pub(crate) fn store(self, s: S, [first, second]: &mut [Lanes<f64>; 2]) {
        s.store_f64(self.0.first, first);
        s.store_f64(self.0.second, second);
    }
}

/// The lanes of both sums of each of sixteen channels.
pub(crate) type PlanarSums = [[Lanes<f64>; 2]; LANES];

/// Folds the lanes of each channel into its two sums of a part, one channel after the other.
#[inline(always)]
pub(crate) fn fold_channels(sums: &PlanarSums, first: &mut [f64], second: &mut [f64]) {
    for ([firsts, seconds], (first, second)) in sums.iter().zip(first.iter_mut().zip(second)) {
        (*first, *second) = (fold(firsts), fold(seconds));
    }
}

/// Both sums over the lanes, in a function of its own. They end in the first lanes.
#[inline(never)]
pub(crate) fn fold_both(sums: &mut [Lanes<f64>; 2]) -> [f64; 2] {
    for half in [8, 4, 2, 1] {
        for lanes in &mut *sums {
            for lane in 0..half {
                lanes[lane % LANES] += lanes[(lane + half) % LANES];
            }
        }
    }
    [sums[0][0], sums[1][0]]
}

/// The sum over the lanes.
#[inline(always)]
fn fold(&[a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: &Lanes<f64>) -> f64 {
    let (a, b, c, d, e, f, g, h) = (a + i, b + j, c + k, d + l, e + m, f + n, g + o, h + p);
    let (a, b, c, d) = (a + e, b + f, c + g, d + h);
    (a + c) + (b + d)
}

#[cfg(test)]
mod tests {
    use super::{InFours, Two, fold};

    /// The number of a summand, as a sum that shows the order in which it was made: every addition
    /// has a pair of parentheses.
    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Order([u8; 64], usize);

    impl core::ops::Add for Order {
        type Output = Self;
        fn add(self, other: Self) -> Self {
            let (mut text, mut len) = ([0; 64], 0);
            let mut push = |bytes: &[u8]| {
                for &byte in bytes {
                    text[len] = byte;
                    len += 1;
                }
            };
            push(b"(");
            push(&self.0[..self.1]);
            push(b"+");
            push(&other.0[..other.1]);
            push(b")");
            Self(text, len)
        }
    }

    fn one(text: &str) -> Two<Order> {
        let mut bytes = [0; 64];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Two::both(Order(bytes, text.len()))
    }

    #[test]
    fn fours_are_added_in_pairs_and_in_sequence() {
        let expected = [
            "0",
            "(0+a)",
            "(0+(a+b))",
            "(0+((a+b)+c))",
            "(0+((a+b)+(c+d)))",
            "((0+((a+b)+(c+d)))+e)",
            "((0+((a+b)+(c+d)))+(e+f))",
            "((0+((a+b)+(c+d)))+((e+f)+g))",
            "((0+((a+b)+(c+d)))+((e+f)+(g+h)))",
        ];
        for (count, expected) in expected.iter().enumerate() {
            let mut sum = InFours::after(one("0"));
            for name in ["a", "b", "c", "d", "e", "f", "g", "h"].iter().take(count) {
                sum.add(one(name));
            }
            let Order(text, len) = sum.total().second;
            assert_eq!(core::str::from_utf8(&text[..len]), Ok(*expected));
        }
    }

    #[test]
    fn lanes_are_folded_upper_half_onto_lower() {
        // Rounding shows the order: next to 1e17 a 1 is lost.
        let mut lanes = [0.0; 16];
        (lanes[0], lanes[8], lanes[4]) = (1e17, -1e17, 1.0);
        assert_eq!(fold(&lanes).to_bits(), 1.0_f64.to_bits(), "8 onto 0 comes before 4 onto 0");
        (lanes[0], lanes[8], lanes[1]) = (1e17, 0.0, -1e17);
        assert_eq!(fold(&lanes).to_bits(), 0.0_f64.to_bits(), "4 onto 0 comes before 1 onto 0");
    }
}

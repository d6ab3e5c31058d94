//! Double-double arithmetic: unevaluated sums of two f64, good for about 32 decimal digits.
//!
//! Sources: Dekker, *A floating-point technique for extending the available precision*, 1971; Knuth, *The Art of
//! Computer Programming*, volume 2, section 4.2.2 (`TwoSum`); Hida, Li and Bailey, *Library for double-double and
//! quad-double arithmetic*, 2007. Exact as long as nothing leaves the range of f64, which products of a few f32 never
//! do. Where the leading part is not finite, it is the result and the tail is zero.

use std::iter::Sum;
use std::ops::{Add, Div, Mul, Sub};

/// The number `high + low`, where `high` is that sum rounded to f64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Double {
    /// The leading part.
    pub high: f64,
    /// What rounding left out of the leading part.
    pub low: f64,
}

impl Double {
    /// Zero.
    pub const ZERO: Self = Self { high: 0.0, low: 0.0 };

    /// `a + b` exactly: `TwoSum`.
    #[must_use]
    pub fn sum_of(a: f64, b: f64) -> Self {
        let high = a + b;
        let b_part = high - a;
        let a_part = high - b_part;
        Self::with_tail(high, (a - a_part) + (b - b_part))
    }

    /// `a + b` exactly, for `|a| >= |b|`: `FastTwoSum`.
    fn ordered_sum_of(a: f64, b: f64) -> Self {
        let high = a + b;
        Self::with_tail(high, b - (high - a))
    }

    /// `a * b` exactly: Dekker's product of halves, because a fused multiply-add is slow where it is software.
    #[must_use]
    pub fn product_of(a: f64, b: f64) -> Self {
        let high = a * b;
        let ((a_high, a_low), (b_high, b_low)) = (halves(a), halves(b));
        let low = ((a_high * b_high - high) + a_high * b_low + a_low * b_high) + a_low * b_low;
        Self::with_tail(high, low)
    }

    /// The number rounded to f64.
    #[must_use]
    pub fn rounded(self) -> f64 {
        self.high
    }

    fn with_tail(high: f64, low: f64) -> Self {
        Self { high, low: if high.is_finite() { low } else { 0.0 } }
    }
}

/// Two numbers of at most 26 bits whose sum is `value`.
fn halves(value: f64) -> (f64, f64) {
    const SPLITTER: f64 = (1u32 << 27) as f64 + 1.0;
    let scaled = SPLITTER * value;
    let high = scaled - (scaled - value);
    (high, value - high)
}

impl From<f64> for Double {
    fn from(value: f64) -> Self {
        Self { high: value, low: 0.0 }
    }
}

impl Add for Double {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let high = Self::sum_of(self.high, other.high);
        let low = Self::sum_of(self.low, other.low);
        let sum = Self::ordered_sum_of(high.high, high.low + low.high);
        Self::ordered_sum_of(sum.high, sum.low + low.low)
    }
}

impl Sub for Double {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + Self { high: -other.high, low: -other.low }
    }
}

impl Mul for Double {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let product = Self::product_of(self.high, other.high);
        Self::ordered_sum_of(product.high, product.low + (self.high * other.low + self.low * other.high))
    }
}

impl Div for Double {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        let first = self.high / other.high;
        let rest = self - Self::from(first) * other;
        let second = rest.high / other.high;
        let rest = rest - Self::from(second) * other;
        Self::ordered_sum_of(first, second) + Self::from(rest.high / other.high)
    }
}

impl Sum for Double {
    fn sum<I: Iterator<Item = Self>>(terms: I) -> Self {
        terms.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_keeps_what_f64_rounds_away() {
        assert_eq!(Double::from(1e16) + Double::from(1.0) - Double::from(1e16), Double::from(1.0));
        assert_eq!(Double::from(1.0) + Double::from(1e-30), Double { high: 1.0, low: 1e-30 });
    }

    #[test]
    fn a_product_is_exact() {
        let a = 1.0 + f64::EPSILON;
        assert_eq!(Double::product_of(a, a), Double { high: 1.0 + 2.0 * f64::EPSILON, low: f64::EPSILON.powi(2) });
        for (a, b) in [(0.1, 0.3), (1e77, 1e-45), (-3.4e38, 3.4e38), (1.0 / 3.0, 7.0)] {
            assert_eq!(Double::product_of(a, b), Double { high: a * b, low: f64::mul_add(a, b, -(a * b)) });
        }
    }

    #[test]
    fn a_quotient_times_its_divisor_is_the_dividend() {
        let (a, b) = (Double { high: 2.0, low: 1e-17 }, Double { high: 3.0, low: -1e-16 });
        let difference = (a / b) * b - a;
        assert!(difference.high.abs() < 1e-30, "{difference:?}");
    }

    #[test]
    fn alternating_magnitudes_sum_exactly() {
        let terms = (0..1_000_000).map(|i| Double::from(if i % 2 == 0 { 1e8 } else { 1e-3 }));
        let exact = Double::product_of(500_000.0, 1e8) + Double::product_of(500_000.0, 1e-3);
        let difference: Double = terms.sum::<Double>() - exact;
        assert!(difference.high.abs() < 1e-15, "{difference:?}");
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let infinity = Double::from(f64::INFINITY);
        assert_eq!((infinity + Double::from(1.0)).high, f64::INFINITY);
        assert!((infinity - infinity).high.is_nan());
        assert!((infinity * Double::ZERO).high.is_nan());
    }
}

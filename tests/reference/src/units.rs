//! How errors are measured: in units in the last place of a scale that belongs to the result.

/// `u = 2^-24`: half the distance from 1 to the next f32, the largest relative error of one rounding.
pub const U: f64 = 1.0 / (1u32 << 24) as f64;

/// `2^-149`: the smallest f32 above zero, and twice the largest error of a rounding that underflows.
pub const SMALLEST: f64 = f64::from_bits((1023 - 149) << 52);

/// What a result that does not fit an f32 counts as, so that it is compared with an infinity: `2^128`.
const OVERFLOW: f64 = f64::from_bits((1023 + 128) << 52);

/// The error of `actual` in units `u*scale`, apart from an absolute allowance for underflow.
///
/// Where the exact result is NaN or infinite, nothing else will do; where it is finite but does not fit an f32, an
/// infinity and the largest f32 are both as good as a rounding can be.
#[must_use]
pub fn units(actual: f64, expected: f64, scale: f64, allowance: f64) -> f64 {
    if actual == expected || (actual.is_nan() && expected.is_nan()) {
        return 0.0;
    }
    if actual.is_nan() || !expected.is_finite() {
        return f64::INFINITY;
    }
    let difference = (actual.clamp(-OVERFLOW, OVERFLOW) - expected.clamp(-OVERFLOW, OVERFLOW)).abs();
    let excess = difference - allowance;
    if excess <= 0.0 { 0.0 } else { excess / (U * scale) }
}

/// The worst error of many, and where it was.
#[derive(Debug, Clone)]
pub struct Worst {
    what: &'static str,
    units: f64,
    at: Option<Case>,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    index: usize,
    actual: f64,
    expected: f64,
    scale: f64,
}

impl Worst {
    /// No error yet, of a result called `what`.
    #[must_use]
    pub fn new(what: &'static str) -> Self {
        Self { what, units: 0.0, at: None }
    }

    /// Takes one more result into account; the arguments are those of [`units`].
    pub fn add(&mut self, index: usize, actual: f64, expected: f64, scale: f64, allowance: f64) {
        let units = units(actual, expected, scale, allowance);
        // The scale may be 0 or NaN where the result is known exactly; whatever is wrong there is worst of all.
        let units = if units.is_nan() { f64::INFINITY } else { units };
        if self.at.is_none() || units > self.units {
            self.units = units;
            self.at = Some(Case { index, actual, expected, scale });
        }
    }

    /// Takes the worse of two.
    pub fn merge(&mut self, other: &Self) {
        if self.at.is_none() || other.units > self.units {
            *self = Self { what: self.what, ..other.clone() };
        }
    }

    /// The worst error, in units of its scale.
    #[must_use]
    pub fn units(&self) -> f64 {
        self.units
    }

    /// Whether every error was within a bound, and if not, a sentence about the worst one.
    ///
    /// # Errors
    /// The sentence.
    pub fn within(&self, bound: f64) -> Result<(), String> {
        match self.at {
            Some(Case { index, actual, expected, scale }) if self.units > bound => Err(format!(
                "{} is wrong by {:.3} u, more than {bound} u: at index {index} it is {actual:e} instead of {expected:e}, \
                 scale {scale:e}",
                self.what, self.units
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_one_unit_is_one_unit() {
        assert_eq!(units(1.0 + U, 1.0, 1.0, 0.0), 1.0);
        assert_eq!(units(2.0 + U, 2.0, 2.0, 0.0), 0.5);
    }

    #[test]
    fn underflow_is_allowed_for() {
        assert_eq!(units(0.0, SMALLEST / 2.0, SMALLEST, SMALLEST / 2.0), 0.0);
        assert!(units(0.0, SMALLEST, SMALLEST, SMALLEST / 2.0) > 1e6);
    }

    #[test]
    fn overflow_is_compared_with_infinity() {
        assert_eq!(units(f64::INFINITY, 1e39, 1e39, 0.0), 0.0);
        assert!(units(f64::INFINITY, f64::from(f32::MAX), f64::from(f32::MAX), 0.0) < 1.1);
        assert!(units(f64::INFINITY, 3e38, 3e38, 0.0) > 1e6);
        assert!(units(f64::NEG_INFINITY, 1e39, 1e39, 0.0) > 1e6);
    }

    #[test]
    fn what_is_not_finite_has_no_tolerance() {
        assert_eq!(units(f64::NAN, f64::NAN, 1.0, 0.0), 0.0);
        assert_eq!(units(f64::INFINITY, f64::INFINITY, f64::INFINITY, 0.0), 0.0);
        for (actual, expected) in [(0.0, f64::NAN), (f64::NAN, 0.0), (f64::INFINITY, f64::NAN), (1.0, f64::INFINITY)] {
            assert_eq!(units(actual, expected, f64::INFINITY, f64::INFINITY), f64::INFINITY);
        }
    }

    #[test]
    fn the_worst_is_remembered() {
        let mut worst = Worst::new("result");
        worst.add(0, 1.0, 1.0, 1.0, 0.0);
        worst.add(1, 1.0 + 3.0 * U, 1.0, 1.0, 0.0);
        worst.add(2, 1.0 + U, 1.0, 1.0, 0.0);
        assert_eq!(worst.units(), 3.0);
        assert!(worst.within(3.0).is_ok());
        assert!(worst.within(2.9).is_err_and(|sentence| sentence.contains("index 1")));
    }

    #[test]
    fn anything_but_the_exact_result_fails_at_scale_zero() {
        let mut worst = Worst::new("result");
        worst.add(0, 0.0, 0.0, 0.0, 0.0);
        assert!(worst.within(0.0).is_ok());
        worst.add(1, 1e-45, 0.0, 0.0, 0.0);
        assert!(worst.within(1e9).is_err());
    }
}

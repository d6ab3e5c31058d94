//! The two formulas of an element for channels that f32 is not enough for: in f64, sixteen lanes at a
//! time.
//!
//! A channel whose coefficients leave the range of f32 has the flag *exact* in the table of its
//! group. The passes compute its elements apart from the others, in vectors of one run or of one
//! tile of columns ([`crate::walk::Vectors`]). A tile may have columns without the flag: their lanes
//! are computed in f32, so that their bits do not depend on their neighbours.

use crate::channel::{differentiated, normalised};
use crate::simd::Simd;

/// `z` in f64 in the lanes that need it, and in f32 in the others.
pub(super) struct ExactNormalise<S: Simd> {
    /// Mean, slope and shift in f32.
    pub(super) rounded: [S::F32; 3],
    /// Slope and shift; of all lanes if there is a residual, else of the lanes that need f64.
    pub(super) wide: [S::F64; 2],
    /// The lanes that need f64.
    pub(super) exact: S::Mask,
}

impl<S: Simd> ExactNormalise<S> {
    /// `z` of a vector. With a residual, f64 is also needed if the sum may be finite although one of
    /// its terms is not.
    #[inline(always)]
    pub(super) fn z(&self, s: S, x: S::F32, residual: Option<S::F32>) -> S::F32 {
        let ([mean, ..], [slope, shift]) = (self.rounded, self.wide);
        let wide = (s.widen(x) - s.widen(mean)) * slope + shift;
        // A lane that needs f64 might overflow in f32.
        let z = normalised(self.rounded, s.select(self.exact, mean, x));
        let Some(residual) = residual else {
            return s.select(self.exact, s.narrow(wide), z);
        };
        let is_finite = s.le(s.splat(f32::MIN), z) & s.le(z, s.splat(f32::MAX));
        let in_f32 = s.mask(s.bits(is_finite) & !s.bits(self.exact));
        s.select(in_f32, z + residual, s.narrow(wide + s.widen(residual)))
    }
}

/// `dx` in f64 in the lanes that need it, and in f32 in the others.
pub(super) struct ExactDifferentiate<S: Simd> {
    pub(super) mean: S::F32,
    /// Slope, tilt and offset in f32.
    pub(super) rounded: [S::F32; 3],
    /// Slope, tilt and offset of the lanes that need f64.
    pub(super) wide: [S::F64; 3],
    /// The lanes that need f64.
    pub(super) exact: S::Mask,
}

impl<S: Simd> ExactDifferentiate<S> {
    /// `dx` of a vector. With fixed statistics `dx` has no term of `x`, not even if `x` is not finite.
    #[inline(always)]
    pub(super) fn dx(&self, s: S, batch: bool, x: S::F32, g: S::F32) -> S::F32 {
        let [slope, tilt, offset] = self.wide;
        let deviation = s.select(self.exact, self.mean, x) - self.mean;
        let dx = differentiated(self.rounded, batch, deviation, s.drop(self.exact, g));
        let mut wide = s.widen(g) * slope;
        if batch {
            wide = wide + ((s.widen(x) - s.widen(self.mean)) * tilt + offset);
        }
        s.select(self.exact, s.narrow(wide), dx)
    }
}

//! The portable lanes where there are no vector registers: one after the other.

use core::ops::AddAssign;

use super::{LANES, Lane, Lanes, Machine};

/// The backend that every target has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

impl Machine for Portable {
    type Simd = Lane;

    #[inline(always)]
    fn all(self) -> Option<Lane> {
        None
    }

    #[inline(always)]
    fn each(self, wanted: usize) -> impl Iterator<Item = Lane> {
        (0..wanted.min(LANES)).map(Lane)
    }

    #[inline(always)]
    fn fold(self, values: &Lanes<f32>) -> f32 {
        fold(*values)
    }

    #[inline(always)]
    fn fold_f64(self, values: &Lanes<f32>) -> f64 {
        fold(values.map(f64::from))
    }
}

/// The sum over the lanes, in little code.
fn fold<T: Copy + AddAssign>(mut values: Lanes<T>) -> T {
    for half in [8, 4, 2, 1] {
        let (lower, upper) = values.split_at_mut_checked(half).unwrap_or_default();
        for (lower, upper) in lower.iter_mut().zip(upper) {
            *lower += *upper;
        }
    }
    values[0]
}

//! The portable lanes of targets without vector registers: scalars, one lane at a time.

use core::ops::{Add, AddAssign};

use super::strip::{SingleFunction, Strip, StripFunction, single, strip};
use super::{LANES, Lane, Lanes, Machine};

/// The backend that every target has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

/// A [`Strip`] on portable lanes: single values are all that there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PortableStrip {
    pub(super) single: SingleFunction,
}

impl PortableStrip {
    pub(super) const fn of<F: Strip>() -> Self {
        // What vectors would be put through. Named, and not kept: single values are enough here.
        let _: StripFunction<Lane> = strip::<Lane, F>;
        Self { single: single::<F> }
    }
}

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
        fold(values)
    }

    #[inline(always)]
    fn fold_f64(self, values: &Lanes<f32>) -> f64 {
        fold(values)
    }
}

/// The sum over the lanes, in little code and stack.
#[inline(never)]
fn fold<T: Copy + From<f32> + Add<Output = T> + AddAssign>(lanes: &Lanes<f32>) -> T {
    let (lower, upper) = lanes.split_at_checked(LANES / 2).unwrap_or_default();
    let mut values = [T::from(0.0); LANES / 2];
    for (value, (&lower, &upper)) in values.iter_mut().zip(lower.iter().zip(upper)) {
        *value = T::from(lower) + T::from(upper);
    }
    for half in [4, 2, 1] {
        let (lower, upper) = values.split_at_mut_checked(half).unwrap_or_default();
        for (lower, upper) in lower.iter_mut().zip(upper) {
            *lower += *upper;
        }
    }
    values[0]
}

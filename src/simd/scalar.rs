//! The portable lanes of targets without vector registers: scalars, one lane at a time.

use super::strip::{SingleFunction, Strip, StripFunction, single, strip};
use super::{LANES, Lane, Machine};

/// The backend that every target has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

/// A [`Strip`] on portable lanes, which are single values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PortableStrip {
    pub(super) single: SingleFunction,
}

impl PortableStrip {
    pub(super) const fn of<F: Strip>() -> Self {
        // The function of a strip of vectors is named here, and not kept: the function of single values
        // is enough on these targets.
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
}

//! The portable lanes of targets without vector registers: scalars, one lane at a time.

use super::strip::{SingleFunction, Strip, StripFunction, single, strip};
use super::{LANES, Lane, Machine};

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
}

//! The types that the elements of tensors are stored in: f32 and two of half its size.
//!
//! All arithmetic is done in f32 and f64. A half is widened exactly when it is read, and a result is
//! rounded once when it is written. The conversions here are integer operations, so that they do not
//! depend on the floating-point environment; [`crate::simd`] has the conversions of sixteen lanes.

mod halves;

pub(crate) use halves::Half;
pub use halves::{Bf16, F16};
#[cfg(feature = "half-precision")]
pub(crate) use halves::{Values, ValuesMut};

/// An element of a tensor: `f32`; with the feature `half-precision` also [`F16`] and [`Bf16`], and with
/// the feature `half` also `f16` and `bf16` of the crate `half`.
///
/// A call takes its tensors as slices of these types. `x`, the residual and their gradients have one
/// type, `y` and its gradient have one that may differ. The result of a call is that of f32 on the
/// widened values, to the bit, rounded once to nearest even where it is stored as a half. Parameters,
/// statistics, sums and gradients of parameters are f32 and f64, whatever the elements are.
///
/// ```
/// # #[cfg(feature = "half-precision")]
/// # fn main() -> Result<(), normdrop::Error> {
/// use normdrop::{Bf16, Config, Eval, Identity, Layer, Running, Shape};
///
/// let layer = Layer::new(Shape::nc(1, 2)?, Identity, Config { eps: 0.0, ..Config::DEFAULT })?;
/// let (x, mut y) = ([1.0, 3.0].map(Bf16::from_f32), [Bf16::ZERO; 2]);
/// let running = Running::new(&[0.0, 1.0], &[1.0, 4.0]);
/// layer.eval(Eval::new(running, &x, &mut y, &mut vec![0.0; layer.eval_scratch_len()]))?;
/// assert_eq!(y.map(f32::from), [1.0, 1.0]);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "half-precision"))]
/// # fn main() {}
/// ```
///
/// The trait is sealed: no other type can implement it.
pub trait Element: sealed::Sealed {}

impl Element for f32 {}

mod sealed {
    #[cfg(feature = "half-precision")]
    use super::{Values, ValuesMut};

    /// The trait that keeps other types out. Its items are all that the crate needs of an element type.
    pub trait Sealed: Copy + Default + core::fmt::Debug + Send + Sync + 'static {
        /// Whether these elements are f32.
        const SINGLE: bool;

        /// `values` as f32; `None` if they are of another type.
        fn singles(values: &[Self]) -> Option<&[f32]>;
        /// [`Self::singles`] of elements that are written.
        fn singles_mut(values: &mut [Self]) -> Option<&mut [f32]>;
        /// `values`, with their type known at run time.
        #[cfg(feature = "half-precision")]
        fn values(values: &[Self]) -> Values<'_>;
        /// [`Self::values`] of elements that are written.
        #[cfg(feature = "half-precision")]
        fn values_mut(values: &mut [Self]) -> ValuesMut<'_>;
    }
}

impl sealed::Sealed for f32 {
    const SINGLE: bool = true;

    #[inline(always)]
    fn singles(values: &[Self]) -> Option<&[f32]> {
        Some(values)
    }

    #[inline(always)]
    fn singles_mut(values: &mut [Self]) -> Option<&mut [f32]> {
        Some(values)
    }

    #[cfg(feature = "half-precision")]
    #[inline(always)]
    fn values(values: &[Self]) -> Values<'_> {
        Values::F32(values)
    }

    #[cfg(feature = "half-precision")]
    #[inline(always)]
    fn values_mut(values: &mut [Self]) -> ValuesMut<'_> {
        ValuesMut::F32(values)
    }
}

//! Activation functions, between normalisation and dropout.
//!
//! Each is a type of its own and the layer is generic over it, so that a program which uses one carries no code
//! of the others. To add one: a type, the three items of [`Lanewise`], a line in the tests' table.
#![expect(private_bounds, reason = "the lane functions seal the trait")]

use crate::simd::Simd;

/// An activation function; implemented by the types of this module and by no others.
pub trait Activation: Lanewise + Copy + core::fmt::Debug {}

impl<A: Lanewise + Copy + core::fmt::Debug> Activation for A {}

/// What the kernels need of an activation function.
pub(crate) trait Lanewise {
    /// Whether `act(s*z) = s*act(z)` for every `s > 0`, so that the dropout scale can be folded into the
    /// normalisation instead of costing a multiplication and a rounding of its own.
    const HOMOGENEOUS: bool;

    /// `act(z)`.
    fn forward<S: Simd>(self, s: S, z: S::F32) -> S::F32;

    /// `act'(z) * dy`.
    fn backward<S: Simd>(self, s: S, z: S::F32, dy: S::F32) -> S::F32;
}

/// `act(z) = z`: batch norm and dropout alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Identity;

impl Lanewise for Identity {
    const HOMOGENEOUS: bool = true;

    #[inline(always)]
    fn forward<S: Simd>(self, _: S, z: S::F32) -> S::F32 {
        z
    }

    #[inline(always)]
    fn backward<S: Simd>(self, _: S, _: S::F32, dy: S::F32) -> S::F32 {
        dy
    }
}

/// `act(z) = max(z, 0)`, the rectified linear unit. NaN passes through, in both directions, as in PyTorch; the
/// derivative at 0 is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relu;

impl Lanewise for Relu {
    const HOMOGENEOUS: bool = true;

    #[inline(always)]
    fn forward<S: Simd>(self, s: S, z: S::F32) -> S::F32 {
        s.drop(s.le(z, s.splat(0.0)), z)
    }

    #[inline(always)]
    fn backward<S: Simd>(self, s: S, z: S::F32, dy: S::F32) -> S::F32 {
        s.drop(s.le(z, s.splat(0.0)), dy)
    }
}

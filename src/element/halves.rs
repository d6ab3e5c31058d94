//! The numbers of 16 bits, and slices whose type is known at run time. With the feature
//! `half-precision` they are elements.
#![expect(unsafe_code, reason = "slices of one transparent type as those of another")]

use core::cmp::Ordering;
use core::fmt;

#[cfg(feature = "half-precision")]
use super::{Element, sealed};

/// Elements that are read, with their type known at run time.
#[cfg(feature = "half-precision")]
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Singles.
    F32(&'a [f32]),
    /// IEEE halves.
    F16(&'a [F16]),
    /// Brain floats.
    Bf16(&'a [Bf16]),
}

/// Elements that are written, with their type known at run time.
#[cfg(feature = "half-precision")]
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// Singles.
    F32(&'a mut [f32]),
    /// IEEE halves.
    F16(&'a mut [F16]),
    /// Brain floats.
    Bf16(&'a mut [Bf16]),
}

/// A type of 16 bits, of which conversions of lanes know the bits alone.
pub(crate) trait Half: Copy {
    fn of_bits(bits: u16) -> Self;
    fn bits(self) -> u16;
}

/// The functions and traits of a type of 16 bits, the same for both.
macro_rules! half {
    ($name:ident) => {
        impl $name {
            /// +0.0.
            pub const ZERO: Self = Self(0);

            /// The number with these bits.
            #[must_use]
            #[inline]
            pub const fn from_bits(bits: u16) -> Self {
                Self(bits)
            }

            /// The bits of the number.
            #[must_use]
            #[inline]
            pub const fn to_bits(self) -> u16 {
                self.0
            }

            /// The numbers with these bits, without a copy: for tensors of other libraries, which give
            /// their halves as 16 bits each.
            #[must_use]
            #[inline]
            pub const fn from_bits_slice(bits: &[u16]) -> &[Self] {
                // SAFETY: the type is a transparent u16, and any bits are a value.
                unsafe { core::slice::from_raw_parts(bits.as_ptr().cast(), bits.len()) }
            }

            /// [`Self::from_bits_slice`] of numbers that are written.
            #[must_use]
            #[inline]
            pub const fn from_bits_slice_mut(bits: &mut [u16]) -> &mut [Self] {
                // SAFETY: the type is a transparent u16, and any bits are a value of either.
                unsafe { core::slice::from_raw_parts_mut(bits.as_mut_ptr().cast(), bits.len()) }
            }
        }

        impl Half for $name {
            #[inline(always)]
            fn of_bits(bits: u16) -> Self {
                Self(bits)
            }

            #[inline(always)]
            fn bits(self) -> u16 {
                self.0
            }
        }

        impl From<$name> for f32 {
            #[inline]
            fn from(half: $name) -> Self {
                half.to_f32()
            }
        }

        /// As numbers: +0.0 equals -0.0, and NaN equals nothing.
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.to_f32() == other.to_f32()
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                self.to_f32().partial_cmp(&other.to_f32())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.to_f32().fmt(f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.to_f32().fmt(f)
            }
        }
    };
}

/// A half of IEEE 754 (binary16): a sign, 5 bits of exponent, 10 of fraction.
///
/// The largest finite number is 65504, the smallest above 0 is 2^-24, and numbers below 2^-14 have
/// fewer bits. A result of 65520 and more is stored as infinity: gradients of a loss that is scaled
/// up may need [`Bf16`] or a smaller scale.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct F16(u16);

/// The upper half of an f32 ("brain float"): a sign, 8 bits of exponent, 7 of fraction.
///
/// It has the range of f32, and two or three decimal digits.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct Bf16(u16);

half!(F16);
half!(Bf16);

/// Makes `$element`, a transparent u16, an element type. `$name` says whether it is an [`F16`] or a
/// [`Bf16`].
#[cfg(feature = "half-precision")]
macro_rules! element {
    ($element:ty, $name:ident) => {
        impl Element for $element {}

        impl sealed::Sealed for $element {
            const SINGLE: bool = false;

            #[inline(always)]
            fn singles(_: &[Self]) -> Option<&[f32]> {
                None
            }

            #[inline(always)]
            fn singles_mut(_: &mut [Self]) -> Option<&mut [f32]> {
                None
            }

            #[inline(always)]
            fn values(values: &[Self]) -> Values<'_> {
                // SAFETY: either type is a transparent u16, and any bits are a value.
                Values::$name(unsafe { core::slice::from_raw_parts(values.as_ptr().cast(), values.len()) })
            }

            #[inline(always)]
            fn values_mut(values: &mut [Self]) -> ValuesMut<'_> {
                // SAFETY: as above.
                ValuesMut::$name(unsafe { core::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) })
            }
        }
    };
}

#[cfg(feature = "half-precision")]
element!(F16, F16);
#[cfg(feature = "half-precision")]
element!(Bf16, Bf16);

/// Makes the type `$half` of the crate `half` an element type, and converts between it and `$name`.
#[cfg(feature = "half")]
macro_rules! of_crate {
    ($name:ident, $half:ident) => {
        impl From<::half::$half> for $name {
            #[inline]
            fn from(value: ::half::$half) -> Self {
                Self(value.to_bits())
            }
        }

        impl From<$name> for ::half::$half {
            #[inline]
            fn from(value: $name) -> Self {
                Self::from_bits(value.0)
            }
        }

        element!(::half::$half, $name);
    };
}

#[cfg(feature = "half")]
of_crate!(F16, f16);
#[cfg(feature = "half")]
of_crate!(Bf16, bf16);

/// The exponent of an f32 minus the exponent of the same number as an [`F16`], at the bits where an f32
/// has its exponent.
const BIASES: u32 = (127 - 15) << 23;

impl F16 {
    /// The number nearest to `value`, of two equally near ones the even one. Subnormal numbers are
    /// kept, a magnitude of 65520 and more becomes infinity, and NaN stays NaN and is quiet.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "what is left has sixteen bits")]
    pub const fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let (sign, magnitude) = ((bits >> 16 & 0x8000) as u16, bits & 0x7fff_ffff);
        let rounded = if magnitude > 0x7f80_0000 {
            0x7e00 | magnitude >> 13 & 0x03ff
        } else if magnitude >= 0x4780_0000 {
            0x7c00
        } else if magnitude >= 0x3880_0000 {
            // Half of the last place that stays, less one if that place is even. A carry goes into
            // the exponent, as far as infinity.
            (magnitude - BIASES + 0x0fff + (magnitude >> 13 & 1)) >> 13
        } else if magnitude >= 0x3300_0000 {
            // In units of 2^-24; from 2^-25 on, so that the shift is at most 24.
            let (fraction, shift) = (magnitude & 0x007f_ffff | 0x0080_0000, 126 - (magnitude >> 23));
            (fraction + (1 << (shift - 1)) - 1 + (fraction >> shift & 1)) >> shift
        } else {
            0
        };
        Self(sign | rounded as u16)
    }

    /// The same number as an f32.
    #[must_use]
    pub const fn to_f32(self) -> f32 {
        let (sign, magnitude) = ((self.0 as u32 & 0x8000) << 16, self.0 as u32 & 0x7fff);
        let bits = match magnitude {
            0 => 0,
            1..0x0400 => {
                // The highest bit becomes the hidden one.
                let shift = magnitude.leading_zeros() - 8;
                (magnitude << shift) + ((125 - shift) << 23)
            }
            0x0400..0x7c00 => (magnitude << 13) + BIASES,
            0x7c00 => 0x7f80_0000,
            _ => 0x7fc0_0000 | magnitude << 13,
        };
        f32::from_bits(sign | bits)
    }
}

impl Bf16 {
    /// The number nearest to `value`, of two equally near ones the even one. Subnormal numbers are
    /// kept, a number beyond the largest one becomes infinity as rounding says, and NaN stays
    /// NaN and is quiet.
    #[must_use]
    pub const fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        if bits & 0x7fff_ffff > 0x7f80_0000 {
            return Self((bits >> 16) as u16 | 0x0040);
        }
        Self(((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16)
    }

    /// The same number as an f32.
    #[must_use]
    #[inline]
    pub const fn to_f32(self) -> f32 {
        f32::from_bits((self.0 as u32) << 16)
    }
}

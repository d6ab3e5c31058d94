//! Memory of one type of numbers for another one.
#![expect(unsafe_code, reason = "a cast of slices")]

use core::slice;

/// The memory of f64 values as twice as many f32 values.
pub(crate) const fn singles(values: &[f64]) -> &[f32] {
    // SAFETY: an f64 has the size of two f32 and at least their alignment, and any bits are an f32.
    // The slice is borrowed for as long as the result.
    unsafe { slice::from_raw_parts(values.as_ptr().cast(), 2 * values.len()) }
}

/// [`singles`], to be written.
pub(crate) const fn singles_mut(values: &mut [f64]) -> &mut [f32] {
    // SAFETY: as above, and any bits that are written are an f64. The slice is borrowed alone.
    unsafe { slice::from_raw_parts_mut(values.as_mut_ptr().cast(), 2 * values.len()) }
}

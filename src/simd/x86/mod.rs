//! The lanes of x86-64 that are chosen at run time: AVX2 (two 256-bit registers) and AVX-512 (one
//! 512-bit register), on `core::arch`; and the few instructions of SSE that the portable lanes use
//! beside `wide`.
//!
//! The tokens [`Avx2`] and [`Avx512`] and every value of their lanes exist only inside a call of
//! `run`, which is unsafe and asks for the CPU feature. Therefore every intrinsic of these modules
//! may be called.
#![expect(unsafe_code, reason = "intrinsics")]

mod avx2;
mod avx512;

use core::arch::x86_64::*;

pub(crate) use avx2::Avx2;
pub(crate) use avx512::Avx512;

use super::Lanes;

/// [`Simd::stream`](crate::simd::Simd::stream) of values that are in registers of 128 bits, for the
/// portable backend.
#[cfg(all(target_feature = "sse2", not(normdrop_backend = "scalar")))]
#[inline(always)]
pub(super) fn stream(values: Lanes<f32>, to: &mut Lanes<f32>) {
    if !begins_line(to) {
        *to = values;
        return;
    }
    for (values, to) in values.as_chunks::<4>().0.iter().zip(to.as_chunks_mut::<4>().0) {
        // SAFETY: SSE is part of x86-64; `to` is four values, aligned to 16 bytes.
        unsafe { _mm_stream_ps(to.as_mut_ptr(), _mm_loadu_ps(values.as_ptr())) };
    }
}

/// [`Simd::fence`](crate::simd::Simd::fence).
#[inline(always)]
pub(super) fn fence() {
    // SAFETY: SSE is part of x86-64.
    unsafe { _mm_sfence() };
}

/// Whether `values` begins at a cache line, and so fills one.
#[inline(always)]
fn begins_line<T>(values: &T) -> bool {
    core::ptr::from_ref(values).addr().is_multiple_of(64)
}

/// [`Simd::prefetch_first`](crate::simd::Simd::prefetch_first).
#[inline(always)]
pub(super) fn prefetch_first<T>(from: &Lanes<T>, ahead: usize) {
    // SAFETY: SSE is part of x86-64; a prefetch of an unmapped address does nothing.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(ahead).cast()) }
}

/// [`Simd::prefetch_second`](crate::simd::Simd::prefetch_second).
#[inline(always)]
pub(super) fn prefetch_second<T>(from: &Lanes<T>, ahead: usize) {
    // SAFETY: as above.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(from.as_ptr().wrapping_add(ahead).cast()) }
}

/// Eight lanes of all ones followed by eight of zeros: a window into it starting at lane `8 - n`
/// selects `n` lanes.
static WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// All ones in the first `n` of eight lanes; `n` above 8 counts as 8.
///
/// # Safety
/// The CPU has AVX.
#[inline(always)]
unsafe fn first_lanes(n: usize) -> __m256i {
    // SAFETY: the window starts at lane 0 to 8 of sixteen, so its eight lanes are inside the array.
    unsafe { _mm256_loadu_si256(WINDOW.as_ptr().add(8 - n.min(8)).cast()) }
}

/// The address at which a masked load of `values` begins; a mapped address even if `values` is
/// empty.
///
/// A masked load of no value from an unmapped address is no fault, but CPUs take hundreds of cycles
/// to find that out, and emulators may get it wrong.
#[inline(always)]
const fn readable(values: &[f32]) -> *const f32 {
    if values.is_empty() { WINDOW.as_ptr().cast() } else { values.as_ptr() }
}

//! Parts of slices whose lengths have been checked before, taken without code that could panic.

/// The `len` values of a slice from `start` on. The caller has checked that the slice has them; if
/// it has not, the result is empty.
#[inline(always)]
pub(crate) fn range<T>(slice: &[T], start: usize, len: usize) -> &[T] {
    let range = slice.get(start..).and_then(|rest| rest.get(..len));
    debug_assert!(range.is_some(), "a range that is not all there");
    range.unwrap_or_default()
}

/// [`range`] of a mutable slice.
#[inline(always)]
pub(crate) fn range_mut<T>(slice: &mut [T], start: usize, len: usize) -> &mut [T] {
    debug_assert!(start + len <= slice.len(), "a range that is not all there");
    slice.get_mut(start..).and_then(|rest| rest.get_mut(..len)).unwrap_or_default()
}

/// Copies the first values of `from` to `to`, up to the end of the shorter slice. It is a function of its own: the compiler would
/// unroll the loop in each of the many places in kernels that copy values before they are overwritten.
#[inline(never)]
pub(crate) fn copy_values<T: Copy>(from: &[T], to: &mut [T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

/// Takes the first `len` values out of a slice and leaves the rest in it.
#[inline(always)]
pub(crate) fn take_front<'a, T>(slice: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (front, rest) = core::mem::take(slice).split_at_mut_checked(len).unwrap_or_default();
    *slice = rest;
    front
}

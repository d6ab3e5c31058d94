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

/// Takes the first `len` values out of a slice and leaves the rest in it.
#[inline(always)]
pub(crate) fn take_front<'a, T>(slice: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (front, rest) = core::mem::take(slice).split_at_mut_checked(len).unwrap_or_default();
    *slice = rest;
    front
}

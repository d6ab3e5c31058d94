//! Parts of slices whose lengths have been checked before, without code that could panic.

/// A range of a slice, or nothing if it is not all there; callers have checked that it is.
#[inline(always)]
pub(crate) fn range<T>(slice: &[T], start: usize, len: usize) -> &[T] {
    let range = slice.get(start..).and_then(|rest| rest.get(..len));
    debug_assert!(range.is_some(), "a range that is not all there");
    range.unwrap_or_default()
}

/// [`range`], mutable.
#[inline(always)]
pub(crate) fn range_mut<T>(slice: &mut [T], start: usize, len: usize) -> &mut [T] {
    debug_assert!(start + len <= slice.len(), "a range that is not all there");
    slice.get_mut(start..).and_then(|rest| rest.get_mut(..len)).unwrap_or_default()
}

/// Takes the first values of a slice, which is left with the others.
#[inline(always)]
pub(crate) fn take_front<'a, T>(slice: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (front, rest) = core::mem::take(slice).split_at_mut_checked(len).unwrap_or_default();
    *slice = rest;
    front
}

//! Memory between two inaccessible pages.
//!
//! A buffer that ends where its page ends, or begins where its page begins, stops any access one element too far at once:
//! by the processor, so also without a sanitizer, and also an access that a sanitizer does not see because it jumps over
//! the few bytes that it watches.
#![expect(unsafe_code, reason = "pages are protected and used through pointers")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use region::{Allocation, Protection};

/// Which end of a buffer is at an inaccessible page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Start,
    End,
}

/// Pages that can be read and written, between two that cannot.
struct Pages {
    /// Of all of them.
    allocation: Allocation,
    /// Of those that can be used.
    start: *mut u8,
}

impl Pages {
    fn new(len: usize) -> Self {
        let page = region::page::size();
        let mut allocation =
            region::alloc(len + 2 * page, Protection::READ_WRITE).expect("there is memory for a few pages");
        let start = allocation.as_mut_ptr::<u8>();
        for guard in [start, start.wrapping_add(page + len)] {
            // SAFETY: the page is the first or last one of this allocation, which nobody else knows yet.
            unsafe { region::protect(guard, page, Protection::NONE) }.expect("an own page can be protected");
        }
        Self { allocation, start: start.wrapping_add(page) }
    }

    /// The bytes that can be used.
    fn len(&self) -> usize {
        self.allocation.len() - 2 * region::page::size()
    }
}

thread_local! {
    /// Pages that no buffer uses, by their length: to map and protect them again for every call would take longer than
    /// the call.
    static FREE: RefCell<BTreeMap<usize, Vec<Pages>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Values that begin or end at an inaccessible page.
pub(crate) struct Guarded<T: Copy> {
    /// Always there, until it is dropped.
    pages: Option<Pages>,
    side: Side,
    len: usize,
    values: PhantomData<T>,
}

impl<T: Copy> Guarded<T> {
    /// As many values as the iterator has, on a side of their pages.
    pub(crate) fn new(values: impl ExactSizeIterator<Item = T>, side: Side) -> Self {
        let len = values.len();
        let bytes = (len * size_of::<T>()).max(1).next_multiple_of(region::page::size());
        let free = FREE.with_borrow_mut(|free| free.get_mut(&bytes).and_then(Vec::pop));
        let pages = free.unwrap_or_else(|| Pages::new(bytes));
        let guarded = Self { pages: Some(pages), side, len, values: PhantomData };
        let start = guarded.start();
        for (index, value) in values.take(len).enumerate() {
            // SAFETY: the index is below the length, and `start` has room for as many.
            unsafe { start.add(index).write(value) };
        }
        guarded
    }

    /// Where the values are: aligned, because pages are and the size of a number divides them; followed by room for all.
    fn start(&self) -> *mut T {
        let pages = self.pages.as_ref().expect("it is not dropped yet");
        let offset = match self.side {
            Side::Start => 0,
            Side::End => pages.len() - self.len * size_of::<T>(),
        };
        pages.start.wrapping_add(offset).cast()
    }
}

impl<T: Copy> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` wrote as many values there, and they are borrowed from `self`.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }
}

impl<T: Copy> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: `new` wrote as many values there, and they are borrowed from `self`, which is the only one to use them.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }
}

impl<T: Copy> Clone for Guarded<T> {
    fn clone(&self) -> Self {
        Self::new(self.iter().copied(), self.side)
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for Guarded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Copy> Drop for Guarded<T> {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            // At the end of a thread there may be nothing to keep them in.
            let _ = FREE.try_with(|free| free.borrow_mut().entry(pages.len()).or_default().push(pages));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_hold_their_values_and_touch_their_guards() {
        let page = region::page::size();
        for len in [0, 1, 3, 1023, 1024, 1025] {
            let values = || (0..len).map(|value: u16| f32::from(value));
            for side in [Side::Start, Side::End] {
                let mut guarded = Guarded::new(values(), side);
                assert!(guarded.iter().copied().eq(values()));
                assert!(guarded.clone().iter().copied().eq(values()));
                let ends = guarded.as_ptr_range();
                let guard = if side == Side::Start { ends.start.wrapping_byte_sub(1) } else { ends.end };
                assert!(guard.addr() % page == if side == Side::Start { page - 1 } else { 0 });
                assert_eq!(region::query(guard).expect("the page is mapped").protection(), Protection::NONE);
                guarded.fill(7.0);
                assert!(guarded.iter().all(|&value| value == 7.0));
            }
        }
    }
}

//! Buffers that nobody can leave unnoticed: exactly as long as they say, from the heap, where a sanitizer watches, or at an
//! inaccessible page.

use std::ops::{Deref, DerefMut};

use crate::guard::{Guarded, Side};
use crate::input::Guard;

/// Where a buffer is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    guard: Guard,
    lead: usize,
}

impl Place {
    /// As an input says; the lead, of less than so many elements, is that of buffers from the heap.
    pub(crate) fn new(guard: Guard, misalign: u8, leads: u8) -> Self {
        Self { guard, lead: usize::from(misalign % leads) }
    }
}

/// A buffer that ends where its memory ends, so that reading or writing one element too many is found.
///
/// With a `lead` it starts later in its memory, so that vectors in it are not aligned; where it ends at an inaccessible
/// page, its length does that.
#[derive(Debug, Clone)]
pub(crate) enum Buffer<T: Copy> {
    Heap { memory: Box<[T]>, lead: usize },
    Pages(Guarded<T>),
}

impl<T: Copy> Buffer<T> {
    /// A buffer of `len` elements: those of `values` as far as they reach, then `filling`.
    pub(crate) fn new(values: &[T], len: usize, filling: T, place: Place) -> Self {
        let elements = (0..len).map(|index| values.get(index).copied().unwrap_or(filling));
        let Place { guard, lead } = place;
        match guard {
            Guard::Heap => Self::Heap { memory: std::iter::repeat_n(filling, lead).chain(elements).collect(), lead },
            Guard::Start => Self::Pages(Guarded::new(elements, Side::Start)),
            Guard::End => Self::Pages(Guarded::new(elements, Side::End)),
        }
    }
}

impl<T: Copy> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Heap { memory, lead } => &memory[*lead..],
            Self::Pages(values) => values,
        }
    }
}

impl<T: Copy> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::Heap { memory, lead } => &mut memory[*lead..],
            Self::Pages(values) => values,
        }
    }
}

/// The bits of a number, where all NaN are one: their payloads are no part of any contract.
pub(crate) trait Bits: Copy {
    /// The bits.
    fn bits(self) -> u64;
}

impl Bits for f32 {
    fn bits(self) -> u64 {
        if self.is_nan() { u64::MAX } else { u64::from(self.to_bits()) }
    }
}

impl Bits for f64 {
    fn bits(self) -> u64 {
        if self.is_nan() { u64::MAX } else { self.to_bits() }
    }
}

impl Bits for u8 {
    fn bits(self) -> u64 {
        u64::from(self)
    }
}

/// Whether two slices hold the same bits.
pub(crate) fn same_bits<T: Bits>(a: &[T], b: &[T]) -> bool {
    a.iter().map(|value| value.bits()).eq(b.iter().map(|value| value.bits()))
}

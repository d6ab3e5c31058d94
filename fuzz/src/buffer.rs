//! Buffers that a sanitizer watches: exactly as long as they say, from the heap.

use std::ops::{Deref, DerefMut};

/// A buffer that ends where its memory ends, so that reading or writing one element too many is found.
///
/// With a `lead` it starts later in its memory, so that vectors in it are not aligned.
#[derive(Debug, Clone)]
pub(crate) struct Buffer<T> {
    memory: Box<[T]>,
    lead: usize,
}

impl<T: Copy> Buffer<T> {
    /// A buffer of `len` elements: those of `values` as far as they reach, then `filling`.
    pub(crate) fn new(values: &[T], len: usize, filling: T, lead: usize) -> Self {
        let values = values.iter().copied().chain(std::iter::repeat(filling)).take(len);
        Self { memory: std::iter::repeat_n(filling, lead).chain(values).collect(), lead }
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.memory[self.lead..]
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.lead..]
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

//! Bits of elements in bytes: masks that are read, and gates that are written. Bit `i % 8` of byte
//! `i / 8` belongs to element `i`.

use crate::simd::LANES;
use crate::slices::take_front;

/// The number of vectors whose bits are made at once.
pub(crate) const BITS: usize = 32;

/// Room for the bits of [`BITS`] vectors, and for two bytes more, because the bits may begin inside a byte.
pub(crate) type Buffer = [u8; 2 * BITS + 2];

/// The mask bits of a piece of four rows.
pub(crate) type FourBits = [[u16; BITS]; 4];

/// The mask bits of a vector of each of four rows at a time.
#[inline(always)]
pub(crate) fn each_four([a, b, c, d]: &FourBits) -> impl Iterator<Item = [u16; 4]> {
    a.iter().zip(b).zip(c.iter().zip(d)).map(|((&a, &b), (&c, &d))| [a, b, c, d])
}

/// One bit of a mask.
#[inline(always)]
pub(crate) fn bit_of(mask: &[u8], bit: usize) -> bool {
    mask.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
}

/// The most bits that are copied at once: a word of them has room for a shift of up to seven.
const COPIED: usize = 56;

/// Copies `len` bits of the mask `from`, from bit `first` on, into the mask `to`, from bit `at` on.
pub(crate) fn copy_bits(from: &[u8], mut first: usize, to: &mut [u8], mut at: usize, len: usize) {
    let end = at + len;
    while at < end {
        let bits = COPIED.min(end - at);
        let (shift, wanted) = (at % 8, u64::MAX >> (64 - bits));
        let word = word_at(from, first / 8) >> (first % 8) & wanted;
        put_word(to, at / 8, wanted << shift, word << shift);
        (first, at) = (first + bits, at + bits);
    }
}

/// Eight of `bytes`, from number `first` on, as one word; bytes past the end are 0.
#[inline(always)]
fn word_at(bytes: &[u8], first: usize) -> u64 {
    let bytes = bytes.get(first..).unwrap_or_default();
    match bytes.first_chunk() {
        Some(&chunk) => u64::from_le_bytes(chunk),
        None => last_word(bytes),
    }
}

/// The bits of fewer than eight bytes.
#[cold]
#[inline(never)]
fn last_word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// Replaces the bits that `mask` has, in eight bytes from number `first` on, by the bits of `word`.
#[inline(always)]
fn put_word(bytes: &mut [u8], first: usize, mask: u64, word: u64) {
    let bytes = bytes.get_mut(first..).unwrap_or_default();
    match bytes.first_chunk_mut() {
        Some(chunk) => *chunk = (u64::from_le_bytes(*chunk) & !mask | word).to_le_bytes(),
        None => put_last_word(bytes, mask, word),
    }
}

/// [`put_word`] of fewer than eight bytes.
#[cold]
#[inline(never)]
fn put_last_word(bytes: &mut [u8], mask: u64, word: u64) {
    for ((byte, mask), word) in bytes.iter_mut().zip(mask.to_le_bytes()).zip(word.to_le_bytes()) {
        *byte = *byte & !mask | word;
    }
}

/// Sixteen bits of a mask from bit `first` on; bits past its end are 0.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lowest sixteen bits are the ones wanted")]
pub(crate) fn sixteen_bits(mask: &[u8], first: usize) -> u16 {
    let bytes = mask.get(first / 8..).unwrap_or_default();
    let word = match bytes.first_chunk() {
        Some(&chunk) => u32::from_le_bytes(chunk),
        None => last_bits(bytes),
    };
    (word >> (first % 8)) as u16
}

/// The bits of fewer than four bytes.
#[cold]
#[inline(never)]
fn last_bits(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

/// The gates that a forward call writes: the bit of an element is 1 if the element is kept and the
/// derivative of the activation is not 0.
#[derive(Debug)]
pub(crate) struct WrittenGates<'a> {
    /// The bits from element `base` on, a multiple of eight.
    pub(crate) bytes: &'a mut [u8],
    pub(crate) base: usize,
    /// Whether the bits are those of the mask before they are overwritten.
    pub(crate) has_mask: bool,
}

impl<'a> WrittenGates<'a> {
    /// These gates, borrowed for a shorter time.
    #[inline(always)]
    pub(crate) const fn reborrow(&mut self) -> WrittenGates<'_> {
        WrittenGates { bytes: self.bytes, base: self.base, has_mask: self.has_mask }
    }

    /// Takes the bits of the next `len` elements, a multiple of eight unless they are the last.
    #[inline(always)]
    pub(crate) fn take(&mut self, len: usize) -> Self {
        let bytes = take_front(&mut self.bytes, len.div_ceil(8));
        let part = Self { bytes, base: self.base, has_mask: self.has_mask };
        self.base += len;
        part
    }

    /// Whether the mask keeps one element.
    pub(crate) fn keeps(&self, element: usize) -> bool {
        bit_of(self.bytes, element - self.base)
    }

    /// Writes the bits of `len` elements from element `first` on, and no others.
    #[inline(never)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits, and a byte")]
    pub(crate) fn put(&mut self, first: usize, len: usize, words: &[u16]) {
        let (start, shift) = ((first - self.base) / 8, (first - self.base) % 8);
        let bytes = self.bytes.get_mut(start..).unwrap_or_default();
        // The bits of the first byte that belong to other elements stay.
        let mut carry = bytes.first().map_or(0, |&byte| u32::from(byte) & ((1 << shift) - 1));
        let (whole, last) = words.split_at_checked(len / LANES).unwrap_or_default();
        let (pairs, bytes) = bytes.split_at_mut_checked(2 * whole.len()).unwrap_or_default();
        for (pair, &word) in pairs.as_chunks_mut().0.iter_mut().zip(whole) {
            carry |= u32::from(word) << shift;
            *pair = (carry as u16).to_le_bytes();
            carry >>= LANES;
        }
        carry |= last.first().map_or(0, |&word| u32::from(word) << shift);
        let mut left = shift + len % LANES;
        for byte in bytes.iter_mut().take(left.div_ceil(8)) {
            let mask = ((1_u32 << left.min(8)) - 1) as u8;
            *byte = *byte & !mask | carry as u8 & mask;
            (carry, left) = (carry >> 8, left.saturating_sub(8));
        }
    }
}

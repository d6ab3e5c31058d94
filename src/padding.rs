//! Sequences of different lengths in one tensor: which of its elements are padding.
//!
//! A sample has `positions*inner` positions. One of the two factors is 1: a channels-last shape has
//! its positions before the channels, a channels-first shape after them. The first `length`
//! positions of a sample are valid, and the rest are padding.

use core::ops::Range;

use crate::shape::Shape;

/// The number of sequences of a tensor and the number of positions of each; `None` if the tensor is
/// empty.
pub(crate) const fn sequences(shape: Shape) -> Option<(usize, usize)> {
    // An empty tensor may have no positions.
    match shape.outer().checked_div(shape.positions()) {
        // One of the two factors is 1.
        Some(samples) if !shape.is_empty() => Some((samples, shape.positions() * shape.inner())),
        _ => None,
    }
}

/// The places of the padding in a tensor that is not empty.
struct Padding<'a> {
    lengths: &'a [usize],
    /// The number of stretches of a sample that end in padding: one in a channels-last shape, one
    /// for each channel in a channels-first shape.
    stretches: usize,
    /// The number of elements of a stretch.
    elements: usize,
    /// The number of elements of a stretch at one position.
    width: usize,
}

impl<'a> Padding<'a> {
    /// The padding behind sequences of `lengths`, which have been checked; `None` if the tensor is
    /// empty.
    fn new(shape: Shape, lengths: &'a [usize]) -> Option<Self> {
        let (_, positions) = sequences(shape)?;
        let (stretches, width) = if shape.inner() == 1 { (1, shape.channels()) } else { (shape.channels(), 1) };
        Some(Self { lengths, stretches, elements: positions * width, width })
    }

    /// The padding as ranges of elements, in memory order.
    fn ranges(self) -> impl Iterator<Item = Range<usize>> {
        let Self { lengths, stretches, elements, width } = self;
        lengths.iter().enumerate().flat_map(move |(sample, &length)| {
            (0..stretches).map(move |stretch| {
                let start = (sample * stretches + stretch) * elements;
                start + length * width..start + elements
            })
        })
    }
}

/// Sets the padding of a tensor to +0.0. All lengths have been checked.
pub(crate) fn clear(shape: Shape, lengths: &[usize], values: &mut [f32]) {
    for padding in Padding::new(shape, lengths).into_iter().flat_map(Padding::ranges) {
        if let Some(values) = values.get_mut(padding) {
            values.fill(0.0);
        }
    }
}

/// Clears the bits of the padding in a mask with a bit for each element. All lengths have been
/// checked.
pub(crate) fn drop_from_mask(shape: Shape, lengths: &[usize], mask: &mut [u8]) {
    for padding in Padding::new(shape, lengths).into_iter().flat_map(Padding::ranges) {
        clear_bits(padding, mask);
    }
}

/// Clears a range of the bits of a mask.
fn clear_bits(bits: Range<usize>, mask: &mut [u8]) {
    if bits.is_empty() {
        return;
    }
    let (first, last) = (bits.start / 8, bits.end / 8);
    // The bits of the first byte before the range, and the bits of the last byte behind the range.
    let (before, behind) = ((1_u8 << (bits.start % 8)) - 1, u8::MAX << (bits.end % 8));
    if first == last {
        if let Some(byte) = mask.get_mut(first) {
            *byte &= before | behind;
        }
        return;
    }
    if let Some(byte) = mask.get_mut(first) {
        *byte &= before;
    }
    if let Some(bytes) = mask.get_mut(first + 1..last) {
        bytes.fill(0);
    }
    // A range that ends with a byte may end with the mask.
    if let Some(byte) = mask.get_mut(last) {
        *byte &= behind;
    }
}

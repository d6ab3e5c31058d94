//! Sequences of different lengths in one tensor: which of its elements are padding.
//!
//! A sample has `positions*inner` positions. One of the two factors is 1: a channels-last shape has
//! its positions before the channels, a channels-first shape after them. The first `length`
//! positions of a sample are valid, and the rest are padding.

use core::ops::Range;

use crate::args::Validity;
use crate::bits::bit_of;
use crate::element::Element;
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
pub(crate) fn clear<E: Element>(shape: Shape, lengths: &[usize], values: &mut [E]) {
    for padding in Padding::new(shape, lengths).into_iter().flat_map(Padding::ranges) {
        if let Some(values) = values.get_mut(padding) {
            values.fill(E::default());
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
pub(crate) fn clear_bits(bits: Range<usize>, mask: &mut [u8]) {
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

/// Neighbouring positions of one sample that are all valid, or all padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) sample: usize,
    pub(crate) first: usize,
    pub(crate) len: usize,
}

/// The valid positions of a tensor that is not empty from some position on, or its padding. The
/// validity has been checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Positions<'a> {
    validity: Validity<'a>,
    /// Whether valid positions are wanted.
    valid: bool,
    samples: usize,
    /// The number of positions of a sample.
    positions: usize,
    sample: usize,
    position: usize,
}

impl<'a> Positions<'a> {
    /// The valid positions. An empty tensor has none.
    pub(crate) fn valid(shape: Shape, validity: Validity<'a>) -> Self {
        let (samples, positions) = sequences(shape).unwrap_or((0, 0));
        Self { validity, valid: true, samples, positions, sample: 0, position: 0 }
    }

    /// The other positions of the tensor: the padding, if these are the valid positions.
    pub(crate) const fn padding(self) -> Self {
        Self { valid: !self.valid, ..self }
    }

    /// The number of these positions.
    pub(crate) fn count(mut self) -> usize {
        self.skip(usize::MAX)
    }

    /// Whether these are all positions of the tensor.
    pub(crate) fn is_all(self) -> bool {
        self.padding().take(1).is_none()
    }

    /// Goes past the next positions, `most` at most, and returns their number.
    pub(crate) fn skip(&mut self, most: usize) -> usize {
        let mut skipped = 0;
        while let Some(run) = self.take(most - skipped) {
            skipped += run.len;
        }
        skipped
    }

    /// The place of the next position that has not been looked at, among the positions of all samples.
    pub(crate) const fn place(&self) -> usize {
        self.sample * self.positions + self.position
    }

    /// The next run of at most `most` positions.
    pub(crate) fn take(&mut self, most: usize) -> Option<Run> {
        while most != 0 && self.sample < self.samples {
            let (first, end) = self.next_run();
            if first < end {
                let len = most.min(end - first);
                self.position = first + len;
                return Some(Run { sample: self.sample, first, len });
            }
            (self.sample, self.position) = (self.sample + 1, 0);
        }
        None
    }

    /// The start and the end of the next run of positions in the sample, which is empty if the sample has
    /// no more of them.
    fn next_run(&self) -> (usize, usize) {
        match self.validity {
            Validity::Lengths(lengths) => {
                let length = lengths.get(self.sample).copied().unwrap_or(0);
                let (first, end) = if self.valid { (0, length) } else { (length, self.positions) };
                (self.position.max(first), end)
            }
            Validity::Bitmap(bits) => {
                let sample = self.sample * self.positions;
                let end = sample + self.positions;
                let first = first_bit(bits, sample + self.position, end, self.valid);
                (first - sample, first_bit(bits, first, end, !self.valid) - sample)
            }
        }
    }
}

/// The first bit between `first` and `end` that is `wanted`; `end` if there is none.
fn first_bit(bits: &[u8], mut first: usize, end: usize, wanted: bool) -> usize {
    let none = if wanted { 0 } else { u8::MAX };
    while first < end {
        if first.is_multiple_of(8) && bits.get(first / 8) == Some(&none) {
            first += 8;
        } else if bit_of(bits, first) == wanted {
            return first;
        } else {
            first += 1;
        }
    }
    end
}

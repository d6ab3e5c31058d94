//! Which elements dropout keeps: a mask bit for each, or one for many.

use crate::bits::{BITS, Buffer, WrittenGates, bit_of, sixteen_bits};
use crate::config::Granularity;
use crate::shape::Shape;
use crate::simd::LANES;
use crate::walk::Values;

/// What decides whether an element is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gates<'a> {
    /// All elements are kept.
    Open,
    /// A mask bit for every element.
    Each(&'a [u8]),
    /// A mask bit for many elements.
    Shared(SharedMask<'a>),
}

impl<'a> Gates<'a> {
    /// Which elements are kept, and how.
    pub(crate) const fn keep(&'a self, scale: f32) -> Keep<'a> {
        let (mask, shared): (&[u8], _) = match self {
            Self::Open => (&[], None),
            Self::Each(mask) => (*mask, None),
            Self::Shared(shared) => (&[], Some(shared)),
        };
        Keep { mask, shared, others: u16::MAX, scale }
    }
}

/// Which elements are kept, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep<'a> {
    /// A mask bit for every element, if it is not empty.
    mask: &'a [u8],
    /// A mask bit for many elements.
    shared: Option<&'a SharedMask<'a>>,
    /// The bits of sixteen elements where there is no mask: all are 1, or all are 0.
    others: u16,
    /// The factor of kept elements.
    pub(crate) scale: f32,
}

/// A mask with one bit for a whole channel of a sample, or for a whole sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedMask<'a> {
    mask: &'a [u8],
    /// The number of neighbours that share a bit.
    run: usize,
    /// The number of runs of a sample.
    runs_per_sample: usize,
    /// The number of bits of a sample. Its runs take them in turn, again and again.
    bits_per_sample: usize,
}

impl<'a> SharedMask<'a> {
    /// The mask of a tensor that is not empty.
    pub(crate) const fn new(shape: Shape, granularity: Granularity, mask: &'a [u8]) -> Self {
        let (positions, channels, inner) = (shape.positions(), shape.channels(), shape.inner());
        match granularity {
            Granularity::Element => Self { mask, run: 1, runs_per_sample: 1, bits_per_sample: 1 },
            Granularity::Channel => {
                Self { mask, run: inner, runs_per_sample: positions * channels, bits_per_sample: channels }
            }
            Granularity::Sample => {
                Self { mask, run: positions * channels * inner, runs_per_sample: 1, bits_per_sample: 1 }
            }
        }
    }

    /// Whether an element is kept, and how many elements from it on share its bit.
    #[inline(always)]
    fn at(&self, element: usize) -> (bool, usize) {
        let run = self.run.max(1);
        let (bit, _) = self.bit(element / run);
        (bit_of(self.mask, bit), run - element % run)
    }

    /// The bit of a run, and how many runs from it on have bits that follow each other.
    #[inline(always)]
    fn bit(&self, run: usize) -> (usize, usize) {
        let (runs, bits) = (self.runs_per_sample.max(1), self.bits_per_sample.max(1));
        let within = run % runs % bits;
        (run / runs * bits + within, bits - within)
    }

    /// The bits of sixteen elements from `first` on.
    #[inline(never)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits")]
    fn sixteen_bits(&self, first: usize) -> u16 {
        let (mut bits, mut lane) = (0_u32, 0);
        while lane < LANES {
            let (drawn, lanes) = if self.run == 1 {
                let (bit, runs) = self.bit(first + lane);
                (u32::from(sixteen_bits(self.mask, bit)), runs)
            } else {
                let (kept, elements) = self.at(first + lane);
                (if kept { u32::MAX } else { 0 }, elements)
            };
            let lanes = lanes.min(LANES - lane);
            bits |= (drawn & ((1 << lanes) - 1)) << lane;
            lane += lanes;
        }
        bits as u16
    }
}

/// The mask bits of vectors that follow each other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bits<'a> {
    /// The bytes from the first bit on: two more than the vectors have.
    bytes: &'a [u8],
    /// The first bit's place in the first byte.
    shift: usize,
}

impl<'a> Bits<'a> {
    /// The bits of vectors whose elements are all dropped.
    const NONE: Self = Self { bytes: &NONE_OR_ALL[0], shift: 0 };

    /// The bits of the first `count` times four vectors, and the bits of the vectors after them.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits each")]
    pub(crate) fn fours(self, count: usize) -> (impl Iterator<Item = [u16; 4]> + use<'a>, Self) {
        let Self { bytes, shift } = self;
        let (eights, rest) = bytes.split_at_checked(8 * count).unwrap_or_default();
        // Where four vectors do not start with a byte, their last bits are in a ninth one.
        let ninths = bytes.get(8..).unwrap_or_default().iter().step_by(8);
        let fours = eights.as_chunks().0.iter().zip(ninths).map(move |(&eight, &ninth)| {
            let word = u64::from_le_bytes(eight) >> shift | u64::from(ninth) << 1 << (63 - shift);
            [word as u16, (word >> 16) as u16, (word >> 32) as u16, (word >> 48) as u16]
        });
        (fours, Self { bytes: rest, shift })
    }

    /// Writes the bits of as many vectors as `bits` has words.
    #[inline(never)]
    pub(crate) fn put(self, bits: &mut [u16]) {
        let (fours, rest) = bits.as_chunks_mut();
        let (words, rest_bits) = self.fours(fours.len());
        for (four, word) in fours.iter_mut().zip(words) {
            *four = word;
        }
        for (bits, of_vector) in rest.iter_mut().zip(rest_bits.vectors()) {
            *bits = of_vector;
        }
    }

    /// The bits of `vectors` vectors as two bytes each, in place if they begin with a byte: a loop reads
    /// two bytes with one load.
    #[inline(always)]
    pub(crate) fn pairs<'b>(self, vectors: usize, buffer: &'b mut [[u8; 2]; BITS]) -> &'b [[u8; 2]]
    where
        'a: 'b,
    {
        if self.shift == 0 {
            return self.bytes.as_chunks().0.get(..vectors).unwrap_or_default();
        }
        let pairs = buffer.get_mut(..vectors).unwrap_or_default();
        self.put_pairs(pairs);
        pairs
    }

    /// Writes the bits of as many vectors as `pairs` has pairs.
    #[inline(never)]
    fn put_pairs(self, pairs: &mut [[u8; 2]]) {
        for (pair, bits) in pairs.iter_mut().zip(self.vectors()) {
            *pair = bits.to_le_bytes();
        }
    }

    /// The bits of each vector.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits")]
    pub(crate) fn vectors(self) -> impl Iterator<Item = u16> + use<'a> {
        let (lower, upper) = (self.bytes.as_chunks().0, self.bytes.get(2..).unwrap_or_default().as_chunks().0);
        lower.iter().zip(upper).map(move |(&lower, &upper)| {
            let [lower, upper] = [lower, upper].map(|pair| u32::from(u16::from_le_bytes(pair)));
            ((lower | upper << 16) >> self.shift) as u16
        })
    }
}

impl WrittenGates<'_> {
    /// The mask bits of at most 32 vectors from element `first` on: a copy, because the gates take the place
    /// of the mask.
    #[inline(never)]
    pub(crate) fn copy_bits<'b>(&self, first: usize, vectors: usize, buffer: &'b mut Buffer) -> Bits<'b> {
        let (start, shift) = ((first - self.base) / 8, (first - self.base) % 8);
        let bytes = self.bytes.get(start..).unwrap_or_default();
        for (copy, &byte) in buffer.iter_mut().zip(bytes).take(2 * vectors + 2) {
            *copy = byte;
        }
        Bits { bytes: buffer, shift }
    }
}

impl WrittenGates<'_> {
    /// The mask bits of one vector of neighbours from element `first` on.
    #[inline(never)]
    pub(crate) fn of_vector(&self, first: usize) -> u16 {
        sixteen_bits(self.bytes, first - self.base)
    }

    /// Writes the bits of one vector of neighbours or of a column.
    #[inline(always)]
    pub(crate) fn put_values(&mut self, place: Values, bits: u16) {
        if place.stride == 1 {
            return self.put(place.start, place.len, &[bits]);
        }
        self.put_column(place, bits);
    }

    #[cold]
    #[inline(never)]
    fn put_column(&mut self, place: Values, bits: u16) {
        for lane in 0..place.len {
            self.put(place.element(lane), 1, &[bits >> lane]);
        }
    }
}

/// The bits of vectors as the bytes of a mask.
fn put_bytes(bits: &[u16; BITS], buffer: &mut Buffer) {
    for (bytes, bits) in buffer.as_chunks_mut().0.iter_mut().zip(bits) {
        *bytes = bits.to_le_bytes();
    }
}

/// Bytes for vectors of which all elements are dropped or kept.
static NONE_OR_ALL: [Buffer; 2] = [[0; 2 * BITS + 2], [u8::MAX; 2 * BITS + 2]];

impl Keep<'_> {
    /// Whether no bit decides about several elements.
    #[inline(always)]
    pub(crate) const fn is_each(&self) -> bool {
        self.shared.is_none()
    }

    /// The bits of at most 32 vectors from element `first` on; the bits of kept elements are 1.
    ///
    /// They are in the mask itself, unless the mask has one bit for many elements or ends with them.
    #[inline(always)]
    pub(crate) fn bits<'a>(&'a self, first: usize, vectors: usize, buffer: &'a mut Buffer) -> Bits<'a> {
        if self.shared.is_none() && self.mask.is_empty() {
            return if self.others == 0 { Bits::NONE } else { Bits { bytes: &NONE_OR_ALL[1], shift: 0 } };
        }
        match self.mask.get(first / 8..).and_then(|bytes| bytes.get(..2 * vectors + 2)) {
            Some(bytes) => Bits { bytes, shift: first % 8 },
            None => {
                self.copy(first, vectors, buffer);
                Bits { bytes: buffer, shift: 0 }
            }
        }
    }

    /// The bits of some vectors as the bytes of a mask.
    #[cold]
    #[inline(never)]
    fn copy(&self, first: usize, vectors: usize, buffer: &mut Buffer) {
        let mut bits = [0; BITS];
        self.fill(first, bits.get_mut(..vectors).unwrap_or_default());
        put_bytes(&bits, buffer);
    }

    /// The gates of the `len` elements from element `first` on alone. If one bit of a shared mask decides
    /// about them all, the result needs no mask.
    #[inline(always)]
    pub(crate) fn within(self, first: usize, len: usize) -> Self {
        match self.shared {
            Some(mask) => self.within_shared(mask, first, len),
            None => self,
        }
    }

    #[cold]
    #[inline(never)]
    fn within_shared(self, mask: &SharedMask<'_>, first: usize, len: usize) -> Self {
        match mask.at(first) {
            (_, shared) if shared < len => self,
            (kept, _) => Self { shared: None, others: if kept { u16::MAX } else { 0 }, ..self },
        }
    }

    /// The bits of vectors that follow each other from element `first` on: the bits of kept elements are 1.
    ///
    /// It takes any number of vectors and any kind of mask. [`Self::bits`] falls back to it, and single
    /// elements use it.
    #[inline(never)]
    pub(crate) fn fill(&self, first: usize, bits: &mut [u16]) {
        if let Some(shared) = self.shared {
            bits.iter_mut().zip((first..).step_by(LANES)).for_each(|(bits, first)| *bits = shared.sixteen_bits(first));
        } else if self.mask.is_empty() {
            bits.fill(self.others);
        } else {
            for (bits, first) in bits.iter_mut().zip((first..).step_by(LANES)) {
                *bits = sixteen_bits(self.mask, first);
            }
        }
    }

    /// The bits of one vector of neighbours.
    #[inline(always)]
    fn of_vector(&self, first: usize) -> u16 {
        let mut bits = [0];
        self.fill(first, &mut bits);
        bits[0]
    }

    /// The bits of one vector of neighbours or of a column.
    #[inline(always)]
    pub(crate) fn of_values(&self, place: Values) -> u16 {
        if place.stride == 1 { self.of_vector(place.start) } else { self.of_column(place) }
    }

    #[cold]
    #[inline(never)]
    fn of_column(&self, place: Values) -> u16 {
        match self.shared {
            None if self.mask.is_empty() => self.others,
            None => place.bits(|element| bit_of(self.mask, element)),
            Some(shared) => place.bits(|element| shared.at(element).0),
        }
    }

    /// Whether one element is kept.
    #[inline(never)]
    pub(crate) fn keeps(&self, element: usize) -> bool {
        match self.shared {
            Some(shared) => shared.at(element).0,
            None if self.mask.is_empty() => self.others != 0,
            None => bit_of(self.mask, element),
        }
    }
}

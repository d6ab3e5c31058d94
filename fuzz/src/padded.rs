//! Calls over the valid positions of a padded batch: each is made as the plain calls are, with garbage in the padding, and
//! its results are compared with those of the reference on the valid values alone.

use normdrop::{Buffer as Name, Error, Layer, Shape, Validity};
use normdrop_reference::layer;
use normdrop_reference::padding::Padded;
use normdrop_reference::random::SplitMix64;

use crate::buffer::Buffer;
use crate::calls::scratch_len;
use crate::case::{Case, Entry, Lengths, Memory};
use crate::input::LayerInput;

/// Which positions are valid, and in which form a call is told.
#[derive(Debug, Clone)]
pub(crate) struct Padding {
    padded: Padded,
    lengths: Option<Vec<usize>>,
    bitmap: Vec<u8>,
    workspace_len: usize,
    /// The elements at valid positions.
    elements: Vec<usize>,
}

impl Padding {
    /// The padding of a case: lengths or stretches of positions, by the seeds of the input. Nothing has none.
    pub(crate) fn new(case: &Case, input: &LayerInput) -> Option<Self> {
        if case.shape.is_empty() {
            return None;
        }
        let shape = case.shape;
        let positions = shape.positions() * shape.inner();
        let samples = shape.samples() / positions;
        let mut random = SplitMix64::new(input.mask_seed ^ u64::from(input.x.seed) << 32 ^ u64::from(input.p_bits));
        let by_lengths = random.next_below(2) == 0;
        let stretch = 1 + random.next_below(60);
        let mut valid = Vec::new();
        for _ in 0..samples {
            let length = match random.next_below(5) {
                0 => 0,
                1 => positions,
                _ => random.next_below(positions + 1),
            };
            let mut is_valid = random.next_below(2) == 0;
            valid.extend((0..positions).map(|position| {
                is_valid ^= random.next_below(stretch) == 0;
                if by_lengths { position < length } else { is_valid }
            }));
        }
        let (outer, channels, inner) = (shape.outer(), shape.channels(), shape.inner());
        let padded = Padded { shape: layer::Shape { outer, channels, inner }, positions, valid };
        let lengths = padded.lengths().filter(|_| by_lengths);
        let (bitmap, elements) = (padded.bitmap(), padded.elements());
        Some(Self { padded, lengths, bitmap, workspace_len: workspace_len(shape), elements })
    }

    /// The number of valid positions.
    pub(crate) fn valid(&self) -> usize {
        self.padded.dense().outer
    }

    pub(crate) fn is_valid(&self, element: usize) -> bool {
        let (channels, inner) = (self.padded.shape.channels, self.padded.shape.inner);
        self.padded.valid
            [if inner == 1 { element / channels } else { element / (channels * inner) * inner + element % inner }]
    }

    pub(crate) fn validity(&self) -> Validity<'_> {
        self.lengths.as_deref().map_or(Validity::Bitmap(&self.bitmap), Validity::Lengths)
    }

    pub(crate) fn workspace_len(&self) -> usize {
        self.workspace_len
    }

    /// The valid values of a tensor.
    pub(crate) fn take<T: Copy>(&self, tensor: &[T]) -> Vec<T> {
        self.elements.iter().map(|&element| tensor[element]).collect()
    }

    /// A tensor with another value in the padding.
    pub(crate) fn filled(&self, tensor: &[f32], padding: f32) -> Vec<f32> {
        self.padded.with_padding(tensor, || padding)
    }

    /// The call on the valid values alone, with the results of a call over valid positions; those must be +0.0 elsewhere.
    pub(crate) fn dense(&self, case: &Case, entry: Entry, memory: &Memory) -> (Case, Memory) {
        let dense = case.dense(self);
        let mut results = memory.clone();
        let take = |name: Name, tensor: &Buffer<f32>| {
            let cleared = |(element, value): (usize, &f32)| self.is_valid(element) || value.to_bits() == 0;
            assert!(tensor.iter().enumerate().all(cleared), "{} is not +0.0 in the padding", name.name());
            Buffer::new(&self.take(tensor), dense.shape.len(), f32::NAN, case.place)
        };
        if entry == Entry::Backward {
            results.grad_input = memory.grad_input.as_ref().map(|tensor| take(Name::GradInput, tensor));
            results.grad_residual = memory.grad_residual.as_ref().map(|tensor| take(Name::GradResidual, tensor));
        } else {
            results.output = take(Name::Output, &memory.output);
        }
        (dense, results)
    }
}

/// The workspace is that of a shape, whatever the activation.
fn workspace_len(shape: Shape) -> usize {
    let layer = Layer::new(shape, normdrop::Identity, normdrop::Config::DEFAULT).expect("the constants are valid");
    layer.masked_workspace_len()
}

/// A validity, a workspace or a scratch that does not fit is refused for what it is, and nothing is written.
pub(crate) fn refuse<A: normdrop::Activation>(case: &Case, entry: Entry, layer: &Layer<A>) {
    let padding = case.padding.as_ref().expect("a padded case");
    let scratch = scratch_len(case, entry, layer);
    let of = |buffer, expected, actual| Error::Length { buffer, expected, actual };
    for fault in 0..4 {
        let mut wrong = case.clone();
        let changed = wrong.padding.as_mut().expect("a padded case");
        let mut scratch_len = scratch;
        let error = match (fault, &mut changed.lengths) {
            (0, Some(lengths)) => {
                lengths.push(0);
                of(Name::Lengths, lengths.len() - 1, lengths.len())
            }
            (0, None) => {
                changed.bitmap.push(0);
                of(Name::Validity, changed.bitmap.len() - 1, changed.bitmap.len())
            }
            (1, Some(lengths)) => {
                let sample = lengths.len() / 2;
                lengths[sample] = padding.padded.positions + 1;
                Error::SequenceLength { sample, positions: padding.padded.positions, length: lengths[sample] }
            }
            (2, _) => {
                changed.workspace_len -= 1;
                of(Name::Workspace, padding.workspace_len, changed.workspace_len)
            }
            (3, _) if scratch > 0 => {
                scratch_len -= 1;
                of(Name::Scratch, scratch, scratch_len)
            }
            _ => continue,
        };
        let mut memory = Memory::new(&wrong, entry, Lengths::Right, scratch_len, 1);
        if error == of(Name::Scratch, scratch, scratch_len) {
            memory.scratch = Buffer::new(&[], scratch_len, f64::NAN, case.place);
        }
        let before = memory.clone();
        assert_eq!(memory.call(&wrong, entry, layer), Err(error));
        assert_eq!(memory.contents(), before.contents(), "a refused call wrote");
        assert_eq!(memory.scratch_contents(), before.scratch_contents(), "a refused call wrote scratch");
    }
}

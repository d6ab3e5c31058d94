//! Padded batches: which elements of a tensor are at valid positions.

use crate::layer::Shape;

/// A padded batch: its shape, and whether each position of each sample is valid.
#[derive(Debug, Clone)]
pub struct Padded {
    /// The shape of the tensor, padding included.
    pub shape: Shape,
    /// The positions of a sample: before the channels if `shape.inner` is 1, else after them.
    pub positions: usize,
    /// `samples*positions` of them.
    pub valid: Vec<bool>,
}

impl Padded {
    /// The shape of the valid values alone, channels last.
    #[must_use]
    pub fn dense(&self) -> Shape {
        Shape { outer: self.valid.iter().filter(|&&valid| valid).count(), channels: self.shape.channels, inner: 1 }
    }

    /// The element of a channel at a position of a sample.
    fn element(&self, position: usize, channel: usize) -> usize {
        let (sample, within) = (position / self.positions, position % self.positions);
        if self.shape.inner == 1 {
            position * self.shape.channels + channel
        } else {
            (sample * self.shape.channels + channel) * self.positions + within
        }
    }

    /// The elements at valid positions, in the order of the dense tensor.
    #[must_use]
    pub fn elements(&self) -> Vec<usize> {
        let valid = (0..).zip(&self.valid).filter(|(_, valid)| **valid);
        valid.flat_map(|(position, _)| (0..self.shape.channels).map(move |c| self.element(position, c))).collect()
    }

    /// The valid values of a tensor.
    #[must_use]
    pub fn take<T: Copy>(&self, tensor: &[T]) -> Vec<T> {
        self.elements().into_iter().map(|element| tensor[element]).collect()
    }

    /// A tensor with other values in the padding.
    #[must_use]
    pub fn with_padding<T: Copy>(&self, tensor: &[T], mut padding: impl FnMut() -> T) -> Vec<T> {
        let mut padded: Vec<T> = tensor.iter().map(|_| padding()).collect();
        for element in self.elements() {
            padded[element] = tensor[element];
        }
        padded
    }

    /// The positions as a bitmap.
    #[must_use]
    pub fn bitmap(&self) -> Vec<u8> {
        crate::mask::packed(&self.valid)
    }

    /// The lengths of the samples, if the valid positions of each are its first ones.
    #[must_use]
    pub fn lengths(&self) -> Option<Vec<usize>> {
        let samples = self.valid.chunks(self.positions.max(1));
        let length = |sample: &[bool]| {
            let length = sample.iter().take_while(|&&valid| valid).count();
            sample[length..].iter().all(|&valid| !valid).then_some(length)
        };
        samples.map(length).collect()
    }
}

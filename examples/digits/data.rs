//! The handwritten digits of the UCI repository, and a generator of whole numbers.

use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::Rng;

/// The pixels of an image, 8 by 8.
pub(crate) const PIXELS: usize = 64;
/// The digits 0 to 9.
pub(crate) const CLASSES: usize = 10;
/// The images that a run tests on and does not train on.
pub(crate) const TEST_SAMPLES: usize = 1000;
/// The images that a run can train on: the others of the 1,797.
pub(crate) const MOST_TRAIN_SAMPLES: usize = 797;

/// Images and what they show.
#[derive(Clone, Default)]
pub(crate) struct Samples {
    /// `[samples, PIXELS]`, from 0 for paper to 1 for ink.
    pub(crate) pixels: Vec<f32>,
    /// The digit of each image.
    pub(crate) labels: Vec<usize>,
}

impl Samples {
    /// All images of the file, in its order.
    pub(crate) fn all() -> Self {
        let mut samples = Self::default();
        for line in include_str!("digits.csv").lines() {
            let mut numbers =
                line.split(',').map(|number| number.parse::<u8>().expect("digits.csv holds small numbers"));
            samples.pixels.extend(numbers.by_ref().take(PIXELS).map(|ink| f32::from(ink) / 16.0));
            samples.labels.extend(numbers.map(usize::from));
        }
        assert_eq!(samples.pixels.len(), samples.len() * PIXELS, "digits.csv has 64 pixels and a label per line");
        samples
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// A training set of `train_samples` images and a test set of `TEST_SAMPLES` others.
    pub(crate) fn split(&self, rng: &mut Xoshiro128PlusPlus, train_samples: usize) -> (Self, Self) {
        let order = shuffled(rng, self.len());
        let (rest, test) = order.split_at(self.len() - TEST_SAMPLES);
        (self.pick(&rest[..train_samples]), self.pick(test))
    }

    /// The images of these indices, in this order.
    pub(crate) fn pick(&self, indices: &[usize]) -> Self {
        let mut picked = Self::default();
        for &index in indices {
            picked.pixels.extend(&self.pixels[index * PIXELS..][..PIXELS]);
            picked.labels.push(self.labels[index]);
        }
        picked
    }
}

/// The numbers below `count` in random order (Fisher and Yates).
pub(crate) fn shuffled(rng: &mut Xoshiro128PlusPlus, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, below(rng, last + 1));
    }
    order
}

/// A number below `bound`, from the upper bits of a product: no floating point, the same everywhere.
fn below(rng: &mut Xoshiro128PlusPlus, bound: usize) -> usize {
    ((u64::from(rng.next_u32()) * bound as u64) >> 32) as usize
}

//! The batch of the demonstration, and which part of it a rank has.

use std::ops::Range;

use normdrop::{Config, Error, Layer, Relu, RunningVariance, Shape};
use normdrop_reference::case::Case;
use normdrop_reference::classes::{MEASURED, class};
use normdrop_reference::layer as reference;

/// One kind of data per channel: those that the crate's accuracy is promised for, and two whose mean is another in every
/// part.
pub(crate) const CHANNELS: usize = MEASURED.len() + 2;

/// A whole batch. Every rank makes it, from the same seed, and works on its own part only; a real one would read its part.
pub(crate) struct Batch {
    pub(crate) rows: usize,
    pub(crate) inner: usize,
    /// Whether the second of several ranks has no rows.
    pub(crate) empty_part: bool,
    pub(crate) case: Case,
}

/// The seed of its dropout mask.
pub(crate) const MASK_SEED: u64 = 42;

/// Running statistics become those of the batch, so that they can be compared with its exact ones.
const CONFIG: Config = Config { p: 0.25, momentum: 1.0, running_var: RunningVariance::Biased, ..Config::DEFAULT };

impl Batch {
    pub(crate) fn new(rows: usize, inner: usize, empty_part: bool) -> Self {
        let classes: Vec<_> = MEASURED.into_iter().chain(["trend", "steps of the mean"]).map(class).collect();
        let case = Case::new(reference::Shape { outer: rows, channels: CHANNELS, inner }, &classes, 1)
            .with_activation(reference::Activation::Relu)
            .with_dropout(CONFIG.p, MASK_SEED);
        Self { rows, inner, empty_part, case }
    }

    /// The values of a row.
    pub(crate) fn row(&self) -> usize {
        CHANNELS * self.inner
    }

    /// The layer for so many rows.
    pub(crate) fn layer(&self, rows: usize) -> Result<Layer<Relu>, Error> {
        Layer::new(Shape::new(rows, CHANNELS, self.inner)?, Relu, CONFIG)
    }

    /// The rows of a rank: uneven parts.
    pub(crate) fn part(&self, rank: usize, ranks: usize) -> Range<usize> {
        let share = |rank: usize| if rank == 1 && self.empty_part { 0 } else { rank + 1 };
        let before = |rank| (0..rank).map(share).sum::<usize>() * self.rows / (0..ranks).map(share).sum::<usize>();
        before(rank)..before(rank + 1)
    }
}

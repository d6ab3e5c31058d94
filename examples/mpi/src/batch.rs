//! The batch of the demonstration, and which part of it a rank has.

use std::ops::Range;

use normdrop::{Activation, Config, Error, Layer, Shape};
use normdrop_reference::classes::{MEASURED, class};
use normdrop_reference::layer as reference;

/// One kind of data per channel: those that the crate's accuracy is promised for, and two whose mean is another in every
/// part.
pub(crate) const CHANNELS: usize = MEASURED.len() + 2;

/// A whole batch. Every rank makes it, from the same seeds, and works on its own part only; a real one would read its part.
pub(crate) struct Batch {
    pub(crate) rows: usize,
    pub(crate) inner: usize,
    /// Whether the second of several ranks has no rows.
    pub(crate) empty_part: bool,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) x: Vec<f32>,
    pub(crate) dy: Vec<f32>,
}

/// The seed of its dropout mask.
pub(crate) const MASK_SEED: u64 = 42;

/// Running statistics become those of the batch, so that they can be compared with its exact ones.
pub(crate) const CONFIG: Config = Config { p: 0.25, momentum: 1.0, ..Config::DEFAULT };

impl Batch {
    pub(crate) fn new(rows: usize, inner: usize, empty_part: bool) -> Self {
        let shape = reference::Shape { outer: rows, channels: CHANNELS, inner };
        let names = || MEASURED.into_iter().chain(["trend", "steps of the mean"]);
        let (mut of_x, mut seeds) = (names(), 1..);
        let x = shape.tensor(|channel| {
            let name = of_x.next().unwrap_or("normal");
            class(name).values(channel as u64, shape.samples())
        });
        let normal = |seed, len| class("normal").values(seed, len);
        Self {
            rows,
            inner,
            empty_part,
            weight: normal(1001, CHANNELS),
            bias: normal(1002, CHANNELS),
            x,
            dy: shape.tensor(|_| normal(2000 + seeds.next().unwrap_or(0), shape.samples())),
        }
    }

    /// The values of a row.
    pub(crate) fn row(&self) -> usize {
        CHANNELS * self.inner
    }

    /// The layer for so many rows.
    pub(crate) fn layer<A: Activation>(&self, rows: usize, activation: A) -> Result<Layer<A>, Error> {
        Layer::new(Shape::new(rows, CHANNELS, self.inner)?, activation, CONFIG)
    }

    /// The rows of a rank: uneven parts.
    pub(crate) fn part(&self, rank: usize, ranks: usize) -> Range<usize> {
        let share = |rank: usize| if rank == 1 && self.empty_part { 0 } else { rank + 1 };
        let before = |rank| (0..rank).map(share).sum::<usize>() * self.rows / (0..ranks).map(share).sum::<usize>();
        before(rank)..before(rank + 1)
    }
}

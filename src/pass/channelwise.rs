//! The passes again, for targets without vector registers: channel after channel, value after value, in little code and
//! stack. Every result has the bits that the other passes give it.
//!
//! Those targets are small: flash and stack are what they lack, and mostly they have no cache that would care for the order
//! in which memory is read. One channel at a time needs no table, so the scratch is not touched, and one description of
//! where its values lie serves both walks: a matrix whose lanes are columns has runs of one value, and a channel may own
//! several of its columns. It costs time: functions are called for every value that are part of the loops elsewhere. With the
//! feature `rayon` there are threads and an operating system: the other passes are used then.

use core::ops::{Add, Range};

use super::apply::Apply;
use super::moments::{inverse, of_deviations};
use super::tree;
use crate::channel::{ChannelDifferentiate, ChannelNormalise, GradientSums, Moments};
use crate::shape::Shape;
use crate::simd::{LANES, Lanes, Machine, Portable};
use crate::walk::{Group, Planar, RowBlock, Walk};

/// The channels of a tensor; none if it is empty.
pub(crate) fn channels(shape: Shape) -> Range<usize> {
    0..if shape.is_empty() { 0 } else { shape.channels() }
}

/// A value of a tensor; callers have checked that it is there.
#[inline(always)]
fn at(tensor: &[f32], element: usize) -> f32 {
    tensor.get(element).copied().unwrap_or(0.0)
}

/// Copies a tensor: to work in place costs less code and stack than to read one and write another.
pub(crate) fn copy(input: Option<&[f32]>, output: &mut [f32]) {
    for (to, &from) in output.iter_mut().zip(input.unwrap_or_default()) {
        *to = from;
    }
}

/// Does something for every element of a channel, in order.
#[inline(always)]
fn each_element(shape: Shape, channel: usize, mut work: impl FnMut(usize)) {
    let (len, inner) = (shape.len(), shape.inner());
    let mut first = channel * inner;
    while first < len {
        (first..first + inner).for_each(&mut work);
        first += shape.channels() * inner;
    }
}

/// Where the values of channels lie: runs of neighbours, one column of them after the other, and a channel's columns.
struct Layout {
    runs: Planar,
    /// All channels.
    group: Group,
    /// The values of the last, shorter row, and where it starts.
    rest: usize,
    rest_start: usize,
    /// Whether lanes are columns elsewhere.
    is_matrix: bool,
}

impl Layout {
    fn new(walk: &Walk) -> Self {
        match *walk {
            Walk::Empty => Self::planar(Planar::new(0, 0, 0)),
            Walk::Planar(runs) => Self::planar(runs),
            Walk::Columns(columns) => Self {
                runs: Planar::new(columns.rows, columns.width, 1),
                group: Group {
                    first_channel: 0,
                    channels: columns.channels,
                    first_column: 0,
                    columns: columns.width,
                    inner: columns.inner,
                },
                rest: columns.rest,
                rest_start: columns.rows * columns.width,
                is_matrix: true,
            },
        }
    }

    const fn planar(runs: Planar) -> Self {
        let channels = runs.channels;
        let group = Group { first_channel: 0, channels, first_column: 0, columns: channels, inner: 1 };
        Self { runs, group, rest: 0, rest_start: 0, is_matrix: false }
    }

    /// The shorter row in one column.
    fn shorter_row(&self, column: usize) -> Option<RowBlock> {
        (column < self.rest).then_some(RowBlock { start: self.rest_start, rows: 1, width: 0, column, columns: 1 })
    }
}

/// Two numbers that are summed side by side.
#[derive(Clone, Copy)]
struct Pair(f32, f32);

impl Add for Pair {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0, self.1 + other.1)
    }
}

/// The sums of what becomes of the values of a block, lane by lane: vectors in pairs, pairs in pairs, these in pairs; and
/// rows in as many levels of pairs as wanted. There is one copy of this code for whatever values become.
#[inline(never)]
fn lane_sums(block: RowBlock, levels: usize, sums: &mut [Lanes<f32>; 2], value: &mut dyn FnMut(usize) -> Pair) {
    const ZERO: Pair = Pair(0.0, 0.0);
    let [first, second] = sums;
    for (lane, (first, second)) in first.iter_mut().zip(second).enumerate().take(block.columns) {
        Pair(*first, *second) = tree(levels, block.rows, ZERO, |row| {
            // Past its end the last vector has nothing.
            let first = block.elements(row).start + lane;
            match (block.columns - lane).div_ceil(LANES) {
                1 => value(first),
                vectors => tree(3, vectors, ZERO, |vector| value(first + vector * LANES)),
            }
        });
    }
}

/// The moments of all values of a channel.
pub(crate) fn moments(walk: &Walk, channel: usize, input: &[f32]) -> Moments {
    let layout = Layout::new(walk);
    let mut all = Moments::EMPTY;
    for column in layout.group.columns_of(channel) {
        let mut moments = Moments::EMPTY;
        for part in 0..walk.parts() {
            let mut of_part = Moments::EMPTY;
            for block in layout.runs.blocks_of(part) {
                let block = layout.runs.in_channel(block, column);
                merge(&mut of_part, block_moments(block, layout.is_matrix, input));
            }
            merge(&mut moments, of_part);
        }
        if let Some(row) = layout.shorter_row(column) {
            let mean = f64::from(at(input, row.first()));
            merge(&mut moments, Moments { count: 1.0, mean, m2: 0.0 });
        }
        merge(&mut all, moments);
    }
    all
}

/// [`Moments::merge`], in one place, of moments that may be empty.
#[inline(never)]
fn merge(moments: &mut Moments, other: Moments) {
    if other.count != 0.0 {
        moments.merge(other);
    }
}

/// The moments of a block, in a column of a matrix or of runs of neighbours.
#[inline(never)]
#[expect(clippy::cast_precision_loss, reason = "at most 256 values")]
fn block_moments(block: RowBlock, is_matrix: bool, input: &[f32]) -> Moments {
    let count = (block.rows * block.columns) as f32;
    let mut sums = [[0.0; LANES]; 2];
    let deviations = |pivot: f32, sums: &mut [Lanes<f32>; 2]| {
        lane_sums(block, if is_matrix { 4 } else { 2 }, sums, &mut |element| {
            let t = at(input, element) - pivot;
            Pair(t, t * t)
        });
    };
    // The sum of the values is that of their deviations from 0.
    deviations(0.0, &mut sums);
    let sum = Portable.fold(&sums[0]);
    let pivot = if is_matrix { sum * inverse(block.rows) } else { sum / count };
    deviations(pivot, &mut sums);
    let sums = sums.each_ref().map(|sums| Portable.fold_f64(sums));
    of_deviations(f64::from(count), pivot, sums, block, input)
}

/// One channel of a tensor, and what its elements are normalised with.
pub(crate) struct Channel<'a> {
    apply: &'a Apply<'a>,
    channel: usize,
    normalise: ChannelNormalise,
}

impl<'a> Channel<'a> {
    pub(crate) fn new(apply: &'a Apply<'a>, channel: usize) -> Self {
        Self { apply, channel, normalise: apply.normalisation.of_channel(channel) }
    }

    /// `z` of an element, in f64 where it is needed.
    #[inline(never)]
    fn z(&self, x: f32, element: usize) -> f32 {
        self.normalise.z(x, self.apply.residual.map(|residual| at(residual, element)))
    }

    /// The output, in place of the input.
    pub(crate) fn forward(&self, shape: Shape, values: &mut [f32]) {
        each_element(shape, self.channel, |element| {
            if let Some(value) = values.get_mut(element) {
                *value = self.y(*value, element);
            }
        });
    }

    /// `y` of an element.
    #[inline(never)]
    fn y(&self, x: f32, element: usize) -> f32 {
        let bits = self.apply.keep.keeps(element).into();
        self.apply.y_of(bits, self.z(x, element))
    }

    /// `g` of an element, without the dropout scale.
    #[inline(never)]
    fn g(&self, x: f32, dy: f32, element: usize) -> f32 {
        let bits = self.apply.keep.keeps(element).into();
        self.apply.gradient_of(bits, self.z(x, element), dy)
    }

    /// The sums that gradients are made of, with the unit of the deviations.
    pub(crate) fn sums(&self, walk: &Walk, unit: f64, input: &[f32], grad: &[f32]) -> [f64; 2] {
        let layout = Layout::new(walk);
        let (parts, mut all) = (walk.parts(), [0.0; 2]);
        for column in layout.group.columns_of(self.channel) {
            let mut sums = [0.0; 2];
            for part in 0..parts {
                let mut of_part = [0.0; 2];
                let blocks = layout.runs.blocks_of(part).map(|block| layout.runs.in_channel(block, column));
                for block in blocks.chain(layout.shorter_row(column).filter(|_| part + 1 == parts)) {
                    add(&mut of_part, self.block_sums(block, unit, input, grad));
                }
                add(&mut sums, of_part);
            }
            add(&mut all, sums);
        }
        all
    }

    /// The sums over a block; in f64 if they do not fit f32.
    #[inline(never)]
    #[expect(clippy::cast_possible_truncation, reason = "a power of two")]
    fn block_sums(&self, block: RowBlock, unit: f64, input: &[f32], grad: &[f32]) -> [f64; 2] {
        let (mean, small_unit) = (self.normalise.mean, unit as f32);
        let mut sums = [[0.0; LANES]; 2];
        lane_sums(block, 2, &mut sums, &mut |element| {
            let x = at(input, element);
            let g = self.g(x, at(grad, element), element);
            Pair(g, g * ((x - mean) * small_unit))
        });
        let [g, g_deviation] = sums.each_ref().map(|sums| Portable.fold_f64(sums));
        let mut sums = GradientSums { g, g_deviation };
        if self.normalise.exact || !sums.are_finite() {
            sums = GradientSums::ZERO;
            for element in (0..block.rows).flat_map(|row| block.elements(row)) {
                let x = at(input, element);
                sums.add_exactly(x, mean, unit, self.g(x, at(grad, element), element));
            }
        }
        [sums.g, sums.g_deviation]
    }

    /// The gradients of the elements, in place of `dy`; and that of the residual, if it is wanted.
    pub(crate) fn gradient(
        &self,
        shape: Shape,
        differentiate: &ChannelDifferentiate,
        batch: bool,
        input: &[f32],
        values: &mut [f32],
        mut grad_residual: Option<&mut [f32]>,
    ) {
        let scale = self.apply.keep.scale;
        each_element(shape, self.channel, |element| {
            let Some(value) = values.get_mut(element) else { return };
            let x = at(input, element);
            let g = self.g(x, *value, element);
            *value = differentiate.dx(batch, x, g);
            if let Some(to) = grad_residual.as_deref_mut().and_then(|tensor| tensor.get_mut(element)) {
                *to = g * scale;
            }
        });
    }
}

/// Adds two sums to two others.
fn add(sums: &mut [f64; 2], others: [f64; 2]) {
    for (sum, other) in sums.iter_mut().zip(others) {
        *sum += other;
    }
}

//! The passes again, for targets without vector registers: channel after channel, value after value,
//! in little code and stack. Every result has the bits that the other passes give it.
//!
//! Flash and stack are what such targets lack, and mostly they have no cache that would care for the
//! order in which memory is read. One channel at a time needs no table, so the scratch is not
//! touched, and one description of where its values lie serves both walks: a matrix whose lanes are
//! columns has runs of one value, and a channel may own several of its columns.
//!
//! No loop here can be turned into one over vectors, and none may be: Helium, the vector unit of a
//! Cortex-M55, takes subnormal numbers for 0. The arithmetic of an element is in a function that is
//! not inlined (`y`, `g`), or goes into a sum whose additions follow each other; all else is f64,
//! which Helium does not have. `.ci/targets` looks for arithmetic of Helium in the machine code.

use core::ops::Range;

use super::apply::Apply;
use super::moments::{Deviations, FURTHER_WALKS, PivotPlaces, next_walk};
use super::sums::{InFours, Two, fold_both};
use crate::bits::WrittenGates;
use crate::channel::{ChannelDifferentiate, ChannelNormalise, Channels, GradientSums, Moments};
use crate::shape::Shape;
use crate::simd::{LANES, Lane, Lanes};
use crate::storage::{Load, OfOneType, Storage};
use crate::walk::{Planar, RowBlock, Walk};

/// The channels of a tensor; none if it is empty.
pub(crate) fn channels(shape: Shape) -> Range<usize> {
    0..if shape.is_empty() { 0 } else { shape.channels() }
}

/// A value of a tensor; callers have checked that it is there.
#[inline(always)]
fn at<E: Load>(tensor: &[E], element: usize) -> f32 {
    tensor.get(element).map_or(0.0, |value| value.single())
}

/// Calls `work` for every element of a channel, in order.
#[inline(always)]
fn each_element(shape: Shape, channel: usize, mut work: impl FnMut(usize)) {
    let (len, inner) = (shape.len(), shape.inner());
    let mut first = channel * inner;
    while first < len {
        (first..first + inner).for_each(&mut work);
        first += shape.channels() * inner;
    }
}

/// Where the values of channels lie: runs of neighbours, one column of them after the other.
struct Layout {
    runs: Planar,
    /// The values of the last, shorter row, and where it starts.
    rest: usize,
    rest_start: usize,
    /// Whether lanes are columns elsewhere, so that the runs are single values.
    is_matrix: bool,
}

impl Layout {
    fn new(walk: &Walk) -> Self {
        match *walk {
            Walk::Empty => Self { runs: Planar::new(0, 0, 0), rest: 0, rest_start: 0, is_matrix: false },
            Walk::Planar(runs) => Self { runs, rest: 0, rest_start: 0, is_matrix: false },
            Walk::Columns(columns) => Self {
                runs: Planar::new(columns.rows, columns.width, 1),
                rest: columns.rest,
                rest_start: columns.rows * columns.width,
                is_matrix: true,
            },
        }
    }

    /// The shorter row in one column.
    fn shorter_row(&self, column: usize) -> Option<RowBlock> {
        (column < self.rest).then_some(RowBlock { start: self.rest_start, rows: 1, width: 0, column, columns: 1 })
    }

    /// Both sums of the summands of a part of a column. One copy of this code serves all passes, whatever
    /// their summands are.
    #[inline(never)]
    fn sums_of_part(&self, part: usize, column: usize, summands: &mut dyn FnMut(usize) -> Two<f32>) -> [f64; 2] {
        let mut lanes = [[0.0; LANES]; 2];
        for block in self.runs.blocks_of(part) {
            self.add_block(self.runs.in_channel(block, column), summands, &mut lanes);
        }
        fold_both(&mut lanes)
    }

    /// Adds the sums of a block to the lanes of a part.
    #[inline(never)]
    fn add_block(&self, block: RowBlock, summands: &mut dyn FnMut(usize) -> Two<f32>, lanes: &mut [Lanes<f64>; 2]) {
        let [firsts, seconds] = lanes;
        for (lane, (first, second)) in firsts.iter_mut().zip(seconds).enumerate().take(block.columns) {
            let (mut sum, mut fours) = (Two::both(0.0), InFours::after(Two::both(0.0)));
            for row in 0..block.rows {
                for element in block.elements(row).skip(lane).step_by(LANES) {
                    fours.add(summands(element));
                }
                // A run begins a new four; rows where lanes are columns do not.
                if !self.is_matrix {
                    sum = fours.total();
                    fours = InFours::after(sum);
                }
            }
            if self.is_matrix {
                sum = fours.total();
            }
            *first += f64::from(sum.first);
            *second += f64::from(sum.second);
        }
    }
}

/// The moments of all values of a channel.
pub(crate) fn moments<T: Storage>(walk: &Walk, shape: Shape, channel: usize, input: T::Ref<'_>) -> Moments {
    T::of_one_type(input, OfChannel { walk, shape, channel })
}

/// [`moments`] for the type of the input's elements.
struct OfChannel<'a> {
    walk: &'a Walk,
    shape: Shape,
    channel: usize,
}

impl OfOneType for OfChannel<'_> {
    type Output = Moments;

    #[inline(always)]
    fn run<E: Load>(self, input: &[E]) -> Moments {
        moments_of(self.walk, self.shape, self.channel, input)
    }
}

fn moments_of<E: Load>(walk: &Walk, shape: Shape, channel: usize, input: &[E]) -> Moments {
    let pivot = PivotPlaces::new(shape).pivots(Lane::FIRST, Channels::one(channel), input);
    let (mut moments, mut next) = (Moments::EMPTY, Some([pivot, 1.0]));
    for _ in 0..=FURTHER_WALKS {
        let Some(pair) = next else { break };
        moments = moments_of_walk(walk, channel, input, pair);
        next = next_walk(moments, pair);
    }
    moments
}

/// The moments that one walk over a channel finds with a pivot and a unit.
#[inline(never)]
fn moments_of_walk<E: Load>(walk: &Walk, channel: usize, input: &[E], [pivot, unit]: [f32; 2]) -> Moments {
    let layout = Layout::new(walk);
    let deviations = Deviations::new::<true>(pivot, unit);
    let mut all = Moments::EMPTY;
    for column in walk.columns_of(channel) {
        let mut moments = Moments::EMPTY;
        for part in 0..walk.parts() {
            let count = walk.values_before(part + 1) - walk.values_before(part);
            let sums = layout.sums_of_part(part, column, &mut |element| deviations.of::<true>(at(input, element)));
            if count != 0.0 {
                merge(&mut moments, deviations.moments(count, sums));
            }
        }
        if let Some(row) = layout.shorter_row(column) {
            let mean = f64::from(at(input, row.first()));
            merge(&mut moments, Moments { count: 1.0, mean, m2: 0.0 });
        }
        merge(&mut all, moments);
    }
    all
}

/// [`Moments::merge`], in one place.
#[inline(never)]
fn merge(moments: &mut Moments, other: Moments) {
    moments.merge(other);
}

/// One channel of a tensor, and the coefficients by which its elements are normalised.
pub(crate) struct Channel<'a, 'b, T: Storage> {
    apply: &'a Apply<'b, T>,
    channel: usize,
    normalise: ChannelNormalise,
}

impl<'a, 'b, T: Storage> Channel<'a, 'b, T> {
    /// A channel of statistics that are not prepared.
    pub(crate) fn new(apply: &'a Apply<'b, T>, channel: usize) -> Self {
        Self::with(apply, channel, apply.normalisation.computed_of_channel(channel))
    }

    pub(crate) const fn with(apply: &'a Apply<'b, T>, channel: usize, normalise: ChannelNormalise) -> Self {
        Self { apply, channel, normalise }
    }

    /// `z` of an element, in f64 where it is needed.
    #[inline(never)]
    fn z(&self, x: f32, element: usize) -> f32 {
        self.normalise.z(x, self.apply.residual.map(|residual| T::at(residual, element)))
    }

    /// The output, in place of the input if [`Storage::begin`] has copied it or there is none.
    pub(crate) fn forward(&self, shape: Shape, input: Option<T::Ref<'_>>, output: &mut T::Mut<'_>) {
        each_element(shape, self.channel, |element| {
            T::change(input, output, element, |x| self.y(x, element));
        });
    }

    /// [`Self::forward`] that writes the gates, too.
    pub(crate) fn forward_with_gates(
        &self,
        shape: Shape,
        input: Option<T::Ref<'_>>,
        output: &mut T::Mut<'_>,
        gates: &mut WrittenGates<'_>,
    ) {
        each_element(shape, self.channel, |element| {
            T::change(input, output, element, |x| {
                let kept = if gates.has_mask { gates.keeps(element) } else { self.apply.keep.keeps(element) };
                let z = self.z(x, element);
                gates.put(element, 1, &[(kept && !self.apply.is_closed(z)).into()]);
                self.apply.y_of(kept.into(), z)
            });
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

    /// The sums that gradients are made of, with the unit of the deviations; in f64 if they do not
    /// fit f32.
    #[expect(clippy::cast_possible_truncation, reason = "a power of two")]
    pub(crate) fn sums(&self, walk: &Walk, unit: f64, input: T::Ref<'_>, grad: T::Ref<'_>) -> [f64; 2] {
        let layout = Layout::new(walk);
        let (mean, exact_unit, unit) = (self.normalise.mean, unit, unit as f32);
        let mut summands = |element| {
            let x = T::at(input, element);
            let g = self.g(x, T::at(grad, element), element);
            Two { first: g, second: g * ((x - mean) * unit) }
        };
        let (parts, mut all) = (walk.parts(), GradientSums::ZERO);
        for column in walk.columns_of(self.channel) {
            let mut sums = [0.0; 2];
            for part in 0..parts {
                let mut of_part = layout.sums_of_part(part, column, &mut summands);
                if let Some(row) = layout.shorter_row(column).filter(|_| part + 1 == parts) {
                    let Two { first, second } = summands(row.first());
                    add(&mut of_part, [f64::from(first), f64::from(second)]);
                }
                add(&mut sums, of_part);
            }
            all.g += sums[0];
            all.g_deviation += sums[1];
        }
        if self.normalise.exact || !all.are_finite() {
            let one = ExactChannel { apply: self.apply, normalise: self.normalise, unit: exact_unit };
            all = exactly(walk, &one, self.channel, (T::shorter(input), T::shorter(grad)));
        }
        [all.g, all.g_deviation]
    }

    /// The gradients of the elements, in place of `dy` as in [`Self::forward`]; and the gradient of the
    /// residual, if it is wanted.
    pub(crate) fn gradient(
        &self,
        shape: Shape,
        (differentiate, batch): (&ChannelDifferentiate, bool),
        (input, grad): (T::Ref<'_>, Option<T::Ref<'_>>),
        output: &mut T::Mut<'_>,
        mut grad_residual: Option<&mut T::Mut<'_>>,
    ) {
        let scale = self.apply.keep.scale;
        each_element(shape, self.channel, |element| {
            let x = T::at(input, element);
            T::change(grad, output, element, |dy| {
                let g = self.g(x, dy, element);
                if let Some(tensor) = &mut grad_residual {
                    T::put(tensor, element, g * scale);
                }
                differentiate.dx(batch, x, g)
            });
        });
    }
}

/// The sums of a channel in f64. Planar: each lane in the order of memory, then the fold. Columns:
/// each column in the order of memory, then the columns in sequence.
#[cold]
#[inline(never)]
fn exactly<T: Storage>(
    walk: &Walk,
    one: &ExactChannel<'_, '_, T>,
    channel: usize,
    (input, grad): (T::Ref<'_>, T::Ref<'_>),
) -> GradientSums {
    match *walk {
        Walk::Empty => GradientSums::ZERO,
        Walk::Planar(planar) => {
            let mut lanes = [[0.0; LANES]; 2];
            for run in 0..planar.outer {
                let first = (run * planar.channels + channel) * planar.inner;
                for position in 0..planar.inner {
                    let [g, g_deviation] = one.summands(first + position, input, grad);
                    lanes[0][position % LANES] += g;
                    lanes[1][position % LANES] += g_deviation;
                }
            }
            let [g, g_deviation] = fold_both(&mut lanes);
            GradientSums { g, g_deviation }
        }
        Walk::Columns(columns) => {
            let mut sums = GradientSums::ZERO;
            for column in walk.columns_of(channel) {
                let mut of_column = GradientSums::ZERO;
                let mut element = column;
                while element < T::len(input) {
                    let [g, g_deviation] = one.summands(element, input, grad);
                    of_column.g += g;
                    of_column.g_deviation += g_deviation;
                    element += columns.width;
                }
                sums.g += of_column.g;
                sums.g_deviation += of_column.g_deviation;
            }
            sums
        }
    }
}

/// The numbers that turn the elements of one channel into summands in f64.
struct ExactChannel<'a, 'b, T: Storage> {
    apply: &'a Apply<'b, T>,
    normalise: ChannelNormalise,
    unit: f64,
}

impl<T: Storage> ExactChannel<'_, '_, T> {
    /// `g` and `g*(x - mean)*unit`.
    #[inline(never)]
    fn summands(&self, element: usize, input: T::Ref<'_>, grad: T::Ref<'_>) -> [f64; 2] {
        let Self { apply, normalise, unit } = self;
        let x = T::at(input, element);
        let z = normalise.z(x, apply.residual.map(|residual| T::at(residual, element)));
        let g = f64::from(apply.gradient_of(apply.keep.keeps(element).into(), z, T::at(grad, element)));
        [g, g * ((f64::from(x) - f64::from(normalise.mean)) * unit)]
    }
}

/// Adds `others` to `sums`, each to its own sum.
fn add(sums: &mut [f64; 2], others: [f64; 2]) {
    for (sum, other) in sums.iter_mut().zip(others) {
        *sum += other;
    }
}

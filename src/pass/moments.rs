//! The moments of every channel by pivoted sums, in one walk over `x`.
//!
//! The textbook's `sum(x*x) - sum(x)^2/n` loses everything where the mean is large. Welford's update
//! loses nothing, but divides for every value. Between the two: subtract a *pivot*, some number near
//! the mean, from every value, and the textbook's formula is as good as any other.
//!
//! ```text
//! pivot = the mean of up to sixteen values that are spread over the channel
//! part:    t = x - pivot      e = sum(t)      q = sum(t*t)
//!          mean = pivot + e/n                 M2 = q - e*e/n
//! channel: parts are merged by the formula of Chan, Golub and LeVeque (1979), which is Welford's
//!          for sets of values
//! ```
//!
//! `M2` loses at most one bit as long as `e*e/n <= M2`, that is while the pivot is not further than
//! one standard deviation from the mean. A channel where it is further is done again with its mean
//! as the pivot. A channel whose squares leave the range of f32 is done again in another *unit*, a
//! power of two by which its values are multiplied first. The data alone decide whether that
//! happens. Such a channel costs at most two more walks over its own values.
//!
//! Each value is read once and takes three additions and a product; 4 bytes per element.
//! [`super::sums`] has the order of the additions.

use core::ops::{Add, Mul, Range, Sub};

use super::sums::{LaneSums, PlanarSums, Two, fold_channels};
use super::{SHORT, lanes_from, load_partial_four, pair_lane};
use crate::channel::{BatchMoments, Channels, MergeWeights, Moments, lane_of};
use crate::shape::Shape;
use crate::simd::{Kernel, LANES, Lanes, Machine, Simd, first_lanes};
use crate::slices::{range, range_mut};
use crate::storage::{Load, OfOneType, Storage, four_rows, in_sequence, load_four, whole_vectors};
use crate::tasks::Tasks;
use crate::walk::{BLOCK_VECTORS, Columns, Group, Piece, Planar, Tile, Walk};

/// The number of values whose mean is the first pivot.
const PIVOT_VALUES: usize = 16;
/// The unit of a channel whose squares are too large for f32. Every finite f32 times this number is
/// below 2^32.
const UNIT_OF_LARGE: f32 = 1.0 / (1u128 << 96) as f32;
/// The unit of a channel whose squares are too small for f32.
const UNIT_OF_SMALL: f32 = (1u128 << 100) as f32;
/// Squares of deviations are too small if their mean is below this. A square below 2^-126 has lost
/// bits, but at most 2^-150 of its value.
const SMALLEST_SQUARE: f64 = 1.0 / (1u128 << 120) as f64;
/// The pivots that small deviations can have. The numbers around a larger pivot are so far apart
/// that no square of a difference loses bits.
const SMALL_PIVOT: f32 = 1.0 / (1u128 << 30) as f32;
/// The walks over a channel that its data may ask for after the first.
pub(crate) const FURTHER_WALKS: usize = 2;

/// The fields of the table of a group: mean and M2 of the merged parts, and a pair of f32 vectors,
/// the pivot and the unit of the next walk. The unit is 0 where the moments are final.
pub(crate) const FIELDS: usize = 3;
const MEAN: usize = 0;
const M2: usize = 1;
const PIVOT: usize = 2;

/// The fields of a task's own table: the sums of `t` and of `t*t` of a part.
pub(crate) const TASK_FIELDS: usize = 2;

/// The places of the values whose mean is the first pivot, in the first channel. They are as far
/// apart as possible, and an odd number of values, so that they follow no period of the data that
/// is a power of two.
pub(crate) struct PivotPlaces {
    elements: Lanes<usize>,
    count: usize,
    inner: usize,
}

impl PivotPlaces {
    #[inline(always)]
    pub(crate) fn new(shape: Shape) -> Self {
        let (samples, inner) = (shape.samples(), shape.inner().max(1));
        let count = samples.min(PIVOT_VALUES);
        let step = samples.checked_div(count).unwrap_or(1);
        let step = step - usize::from(step.is_multiple_of(2));
        let mut elements = [0; LANES];
        for (number, element) in elements.iter_mut().enumerate() {
            let value = number * step + step / 2;
            let (outer, position) = (value / inner, value % inner);
            *element = outer * shape.channels() * inner + position;
        }
        Self { elements, count, inner }
    }

    /// The first pivots of some channels.
    #[inline(always)]
    pub(crate) fn pivots<S: Simd, E: Load>(&self, s: S, channels: Channels, input: &[E]) -> S::F32 {
        let mut sum = s.splat_f64(0.0);
        for &element in self.elements.get(..self.count).unwrap_or_default() {
            let first = element + channels.first * self.inner;
            let x = if self.inner == 1 {
                E::load_any(s, range(input, first, channels.len))
            } else {
                let mut values = [0.0; LANES];
                for (lane, value) in values.iter_mut().enumerate().take(channels.len) {
                    *value = input.get(first + lane * self.inner).map_or(0.0, |value| value.single());
                }
                s.load(&values)
            };
            sum = sum + s.widen(x);
        }
        let mean = s.narrow(sum / s.splat_f64(self.count as f64));
        // 0 instead of a mean that is not finite: the sums find the infinities of a channel.
        s.keep(s.le(s.splat(f32::MIN), mean) & s.le(mean, s.splat(f32::MAX)), mean)
    }
}

/// The pivot and the unit of the next walk over a channel with these moments, which a walk with
/// this pivot and this unit found; `None` if they are final.
pub(crate) fn next_walk(moments: Moments, [pivot, unit]: [f32; 2]) -> Option<[f32; 2]> {
    let Moments { count, mean, m2 } = moments;
    let off = mean - f64::from(pivot);
    let off = off * off * count;
    #[expect(clippy::cast_possible_truncation, reason = "any number near the mean will do")]
    let rounded = mean as f32;
    #[expect(clippy::float_cmp, reason = "the first walk has this very number")]
    let is_first = unit == 1.0;
    if !m2.is_finite() {
        return is_first.then_some([pivot, UNIT_OF_LARGE]);
    }
    if is_first && m2 + off < count * SMALLEST_SQUARE && pivot.abs() < SMALL_PIVOT {
        return Some([rounded, UNIT_OF_SMALL]);
    }
    #[expect(clippy::float_cmp, reason = "another walk with the same pivot would find the same")]
    let is_new = rounded != pivot;
    (m2 < off && is_new).then_some([rounded, unit])
}

/// The pivot and the unit with which values become summands: `t` and `t*t`.
#[derive(Clone, Copy)]
pub(crate) struct Deviations<F> {
    /// The pivot, in the unit.
    pivot: F,
    unit: F,
}

impl<F> Deviations<F>
where
    F: Copy + Add<Output = F> + Mul<Output = F> + Sub<Output = F>,
{
    #[inline(always)]
    pub(crate) fn new<const UNIT: bool>(pivot: F, unit: F) -> Self {
        Self { pivot: if UNIT { pivot * unit } else { pivot }, unit }
    }

    /// `t` of a vector or of a value.
    #[inline(always)]
    fn deviation<const UNIT: bool>(&self, x: F) -> F {
        if UNIT { x * self.unit - self.pivot } else { x - self.pivot }
    }

    /// The summands of a vector or of a value: `t` and `t*t`.
    #[inline(always)]
    pub(crate) fn of<const UNIT: bool>(&self, x: F) -> Two<F> {
        let t = self.deviation::<UNIT>(x);
        Two { first: t, second: t * t }
    }

    /// The sum of a four.
    #[inline(always)]
    fn four<const UNIT: bool>(&self, [a, b, c, d]: [F; 4]) -> Two<F> {
        (self.of::<UNIT>(a) + self.of::<UNIT>(b)) + (self.of::<UNIT>(c) + self.of::<UNIT>(d))
    }
}

/// The mean, `pivot` plus `offset`. Values whose `m2` is not finite have no mean either: without the
/// last term an infinity would be the mean of one part, and NaN the mean of two.
#[inline(always)]
fn mean_of<F: Copy + Add<Output = F> + Mul<Output = F>>([pivot, offset, m2]: [F; 3], zero: F) -> F {
    (pivot + offset) + m2 * zero
}

impl Deviations<f32> {
    /// The moments of `count` values with these sums of `t` and `t*t`.
    pub(crate) fn moments(self, count: f64, [e, q]: [f64; 2]) -> Moments {
        let (offset, unit) = (e / count, f64::from(self.unit));
        let m2 = q - e * offset;
        Moments { count, mean: mean_of([f64::from(self.pivot), offset, m2], 0.0) / unit, m2: m2 / (unit * unit) }
    }
}

/// The summands of `x`, the first values of a vector; the other lanes add nothing.
#[inline(always)]
fn of_some<S: Simd, E: Load, const UNIT: bool>(s: S, deviations: &Deviations<S::F32>, x: &[E]) -> Two<S::F32> {
    let t = s.keep(s.mask(first_lanes(x.len().min(LANES))), deviations.deviation::<UNIT>(E::load_partial(s, x)));
    Two { first: t, second: t * t }
}

/// Adds a row of at most 256 values.
#[inline(always)]
fn add_row<S: Simd, E: Load, const UNIT: bool>(
    s: S,
    deviations: &Deviations<S::F32>,
    row: &[E],
    mut sum: Two<S::F32>,
) -> Two<S::F32> {
    let (vectors, tail) = row.as_chunks();
    let (fours, rest) = vectors.as_chunks();
    for [a, b, c, d] in fours {
        sum = sum + deviations.four::<UNIT>([E::load(s, a), E::load(s, b), E::load(s, c), E::load(s, d)]);
    }
    if rest.is_empty() && tail.is_empty() {
        return sum;
    }
    let last = if tail.is_empty() { Two::both(s.splat(0.0)) } else { of_some::<S, E, UNIT>(s, deviations, tail) };
    // Written out, because closures would be functions of their own, without the CPU feature.
    sum + match rest {
        [a] => deviations.of::<UNIT>(E::load(s, a)) + last,
        [a, b] => (deviations.of::<UNIT>(E::load(s, a)) + deviations.of::<UNIT>(E::load(s, b))) + last,
        [a, b, c] => {
            let (a, b, c) = (E::load(s, a), E::load(s, b), E::load(s, c));
            (deviations.of::<UNIT>(a) + deviations.of::<UNIT>(b)) + (deviations.of::<UNIT>(c) + last)
        }
        _ => last,
    }
}

/// Adds a run of three or four vectors: all four are loaded, and values of the next channel add nothing.
#[inline(always)]
fn add_short<S: Simd, E: Load, const UNIT: bool>(
    s: S,
    deviations: &Deviations<S::F32>,
    run: &[E; SHORT],
    lanes: [u16; 2],
    sum: Two<S::F32>,
) -> Two<S::F32> {
    let [a, b, c, d] = run.as_chunks().0 else { return sum };
    let (a, b) = (deviations.of::<UNIT>(E::load(s, a)), deviations.of::<UNIT>(E::load(s, b)));
    let c = s.keep(s.mask(lanes[0]), deviations.deviation::<UNIT>(E::load(s, c)));
    let d = s.keep(s.mask(lanes[1]), deviations.deviation::<UNIT>(E::load(s, d)));
    let (c, d) = (Two { first: c, second: c * c }, Two { first: d, second: d * d });
    sum + ((a + b) + (c + d))
}

/// The moments of a group, into its table.
#[inline(always)]
pub(crate) fn of_group<T: Storage>(
    tasks: Tasks,
    (walk, shape): (&Walk, Shape),
    group: Group,
    input: T::Ref<'_>,
    table: &mut [Tile<FIELDS>],
    parts: &mut [Tile<TASK_FIELDS>],
) {
    T::of_one_type(input, OfGroup { tasks, walk, shape, group, table, parts });
}

/// [`of_group`] for the type of the input's elements.
struct OfGroup<'a> {
    tasks: Tasks,
    walk: &'a Walk,
    shape: Shape,
    group: Group,
    table: &'a mut [Tile<FIELDS>],
    parts: &'a mut [Tile<TASK_FIELDS>],
}

impl OfOneType for OfGroup<'_> {
    type Output = ();

    #[inline(always)]
    fn run<E: Load>(self, input: &[E]) {
        let Self { tasks, walk, shape, group, table, parts } = self;
        of_group_of(tasks, (walk, shape), group, input, table, parts);
    }
}

#[inline(always)]
fn of_group_of<E: Load>(
    tasks: Tasks,
    (walk, shape): (&Walk, Shape),
    group: Group,
    input: &[E],
    table: &mut [Tile<FIELDS>],
    parts: &mut [Tile<TASK_FIELDS>],
) {
    tasks.run(FirstPivots { shape, group, input, table });
    walk_group::<E, false>(tasks, walk, group, input, table, parts);
    for further in 0..FURTHER_WALKS {
        let (samples, mut unsettled) = (shape.samples() as f64, false);
        tasks.run(Unsettled { walk, group, samples, table, found: &mut unsettled });
        if !unsettled {
            return;
        }
        // Small squares may be those of numbers whose squares are 0. Whether all numbers are 0 takes less time than a walk.
        if further == 0 {
            let mut zeros = false;
            tasks.run(AllZeros { walk, group, input, found: &mut zeros });
            if zeros {
                return;
            }
        }
        let mut any = false;
        tasks.run(NextPivots { walk, group, samples, table, any: &mut any });
        if !any {
            return;
        }
        walk_group::<E, true>(tasks, walk, group, input, table, parts);
    }
}

/// One walk over the values of a group, in the channels whose moments are not final.
#[inline(always)]
fn walk_group<E: Load, const UNIT: bool>(
    tasks: Tasks,
    walk: &Walk,
    group: Group,
    input: &[E],
    table: &mut [Tile<FIELDS>],
    parts: &mut [Tile<TASK_FIELDS>],
) {
    tasks.statistics(
        walk,
        group,
        table,
        parts,
        |(group, piece), table, part| match walk {
            Walk::Empty => {}
            Walk::Planar(planar) => tasks.run(PlanarPart::<E, UNIT> { planar, group, piece, input, table, part }),
            Walk::Columns(columns) => tasks.run(ColumnsPart::<E, UNIT> { columns, group, piece, input, table, part }),
        },
        |(group, piece), table, part| tasks.run(MergePart::<UNIT> { walk, group, piece, part, table }),
    );
    if let Walk::Columns(columns) = walk {
        tasks.run(MergeShorterRow { columns, group, input, table });
    }
}

/// Writes the first pivots of a group into its table.
struct FirstPivots<'a, E> {
    shape: Shape,
    group: Group,
    input: &'a [E],
    table: &'a mut [Tile<FIELDS>],
}

impl<E: Load> Kernel for FirstPivots<'_, E> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let Self { shape, group, input, table } = self;
        let (places, Some(s)) = (PivotPlaces::new(shape), m.all()) else { return };
        for channels in group.sixteens() {
            group.put_pair(s, channels, table, PIVOT, [places.pivots(s, channels, input), s.splat(1.0)]);
        }
    }
}

/// The sums of some channels of a group in one part, into a table of the part's own. One kernel for
/// each layout, because without optimisation the stack would hold the vectors of both.
struct PlanarPart<'a, E, const UNIT: bool> {
    planar: &'a Planar,
    group: Group,
    piece: Piece,
    input: &'a [E],
    table: &'a [Tile<FIELDS>],
    part: &'a mut [Tile<TASK_FIELDS>],
}

impl<E: Load, const UNIT: bool> Kernel for PlanarPart<'_, E, UNIT> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        if let Some(s) = m.all() {
            self.planar_part(s);
        }
    }
}

impl<E: Load, const UNIT: bool> PlanarPart<'_, E, UNIT> {
    /// Runs of neighbours: stretch after stretch, each in all channels of the piece, which is the
    /// order of memory.
    #[inline(always)]
    fn planar_part<S: Simd>(self, s: S) {
        let Self { planar, group, piece, input, table, part } = self;
        let (Some(tile), Some([first, second])) = (table.first(), part.first_mut()) else { return };
        let (first, second) =
            (range_mut(first, piece.first, piece.columns), range_mut(second, piece.first, piece.columns));
        let mut sums: PlanarSums = [[[0.0; LANES]; 2]; LANES];
        for stretch in planar.stretches_of::<LANES>(piece.part) {
            for (column, sums) in (piece.first..piece.first + piece.columns).zip(&mut sums) {
                let [pivot, unit] = pair_lane(&tile[PIVOT], column);
                if UNIT && unit == 0.0 {
                    continue;
                }
                let deviations = Deviations::new::<UNIT>(s.splat(pivot), s.splat(unit));
                let mut lanes = LaneSums::load(s, sums);
                for block in planar.in_channel(stretch, group.first_channel + column).blocks() {
                    block.prefetch_next_of(s, input);
                    let mut sum = Two::both(s.splat(0.0));
                    let is_short = block.columns <= SHORT && block.columns > SHORT / 2;
                    let of_run = [lanes_from(block.columns, 2), lanes_from(block.columns, 3)];
                    for row in 0..block.rows {
                        let run = if is_short { input.get(block.elements(row).start..) } else { None };
                        sum = match run.and_then(|values| values.first_chunk()) {
                            Some(run) => add_short::<S, E, UNIT>(s, &deviations, run, of_run, sum),
                            None => add_row::<S, E, UNIT>(s, &deviations, block.row(input, row), sum),
                        };
                    }
                    lanes.add(s, sum);
                }
                lanes.store(s, sums);
            }
        }
        fold_channels(&sums, first, second);
    }
}

/// The sums of some columns of a group in one part, into a table of the part's own.
struct ColumnsPart<'a, E, const UNIT: bool> {
    columns: &'a Columns,
    group: Group,
    piece: Piece,
    input: &'a [E],
    table: &'a [Tile<FIELDS>],
    part: &'a mut [Tile<TASK_FIELDS>],
}

impl<E: Load, const UNIT: bool> Kernel for ColumnsPart<'_, E, UNIT> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        if let Some(s) = m.all() {
            self.columns_part(s);
        }
    }
}

impl<E: Load, const UNIT: bool> ColumnsPart<'_, E, UNIT> {
    /// Columns of a matrix: sixteen rows at a time, along the rows.
    #[inline(always)]
    fn columns_part<S: Simd>(self, s: S) {
        let Self { columns, group, piece, input, table, part } = self;
        let (tiles, count) = (piece.first / LANES, piece.columns.div_ceil(LANES));
        let table = table.get(tiles..).unwrap_or_default();
        let part = part.get_mut(tiles..).unwrap_or_default();
        for part in part.iter_mut().take(count) {
            *part = [[0.0; LANES]; TASK_FIELDS];
        }
        // A further walk goes from the first tile that is not final to the last one.
        let open = if UNIT { not_final(s, table.get(..count).unwrap_or_default()) } else { 0..count };
        let (table, part) = (table.get(open.clone()), part.get_mut(open.clone()));
        let (Some(table), Some(part)) = (table, part) else { return };
        let first = open.start * LANES;
        for block in columns.blocks_of(group, piece) {
            let block = block.columns_from(first, block.columns.min(open.end * LANES).saturating_sub(first));
            let far = open.len() == count && in_sequence(block.width, input.len());
            let (whole, rest) = whole_vectors::<E, BLOCK_VECTORS>(block.array_of(input));
            let tiles = whole.first().map_or(0, |row| row.len());
            let [first, second, third, fourth] = quarters(whole);
            let rows = four_rows(first).zip(four_rows(second)).zip(four_rows(third).zip(four_rows(fourth)));
            let both = table.iter().zip(part.iter_mut());
            for (number, ((tile, part), ((first, second), (third, fourth)))) in both.zip(rows).enumerate() {
                if UNIT && is_final(s, tile) {
                    continue;
                }
                if far {
                    // Sixteen vectors of the next sixteen rows, which follow each other in memory.
                    for vector in 0..BLOCK_VECTORS {
                        let before = number * (BLOCK_VECTORS - 1) + vector;
                        s.prefetch_second(first[0], BLOCK_VECTORS * block.width + before * LANES);
                    }
                }
                let x = [load_four(s, first), load_four(s, second), load_four(s, third), load_four(s, fourth)];
                add_rows::<S, UNIT>(s, tile, part, &x, block.rows);
            }
            if rest.first().is_some_and(|rest| !rest.is_empty())
                && let (Some(tile), Some(part)) = (table.get(tiles), part.get_mut(tiles))
            {
                let [first, second, third, fourth] = quarters(rest);
                let x = [
                    load_partial_four(s, first),
                    load_partial_four(s, second),
                    load_partial_four(s, third),
                    load_partial_four(s, fourth),
                ];
                add_rows::<S, UNIT>(s, tile, part, &x, block.rows);
            }
        }
    }
}

/// The tiles from the first to the last one that has a column whose moments are not final.
#[inline(always)]
fn not_final<S: Simd>(s: S, table: &[Tile<FIELDS>]) -> Range<usize> {
    let (mut start, mut end) = (0, 0);
    for (number, tile) in table.iter().enumerate() {
        if !is_final(s, tile) {
            start = if end == 0 { number } else { start };
            end = number + 1;
        }
    }
    start..end
}

/// Whether the moments of all columns of a tile are final.
#[inline(always)]
fn is_final<S: Simd>(s: S, tile: &Tile<FIELDS>) -> bool {
    let (_, unit) = s.load_pair(&tile[PIVOT]);
    s.bits(s.le(unit, s.splat(0.0))) == s.lanes()
}

/// Adds up to sixteen rows of a tile. Rows that are missing have the values of any other row.
#[inline(always)]
fn add_rows<S: Simd, const UNIT: bool>(
    s: S,
    tile: &Tile<FIELDS>,
    part: &mut Tile<TASK_FIELDS>,
    [a, b, c, d]: &[[S::F32; 4]; 4],
    rows: usize,
) {
    let (pivot, unit) = s.load_pair(&tile[PIVOT]);
    let deviations = Deviations::new::<UNIT>(pivot, unit);
    let mut sum = Two::both(s.splat(0.0));
    // Written out, because a loop would have the vectors in memory.
    sum = sum + four_of::<S, UNIT>(s, &deviations, a, rows);
    if rows > 4 {
        sum = sum + four_of::<S, UNIT>(s, &deviations, b, rows - 4);
    }
    if rows > 8 {
        sum = sum + four_of::<S, UNIT>(s, &deviations, c, rows - 8);
    }
    if rows > 12 {
        sum = sum + four_of::<S, UNIT>(s, &deviations, d, rows - 12);
    }
    let mut lanes = LaneSums::load(s, part);
    lanes.add(s, sum);
    lanes.store(s, part);
}

/// The sum of the first `rows` rows of a four, one at least.
#[inline(always)]
fn four_of<S: Simd, const UNIT: bool>(
    s: S,
    deviations: &Deviations<S::F32>,
    &[a, b, c, d]: &[S::F32; 4],
    rows: usize,
) -> Two<S::F32> {
    if rows >= 4 {
        return deviations.four::<UNIT>([a, b, c, d]);
    }
    let nothing = Two::both(s.splat(0.0));
    let b = if rows > 1 { deviations.of::<UNIT>(b) } else { nothing };
    let c = if rows > 2 { deviations.of::<UNIT>(c) } else { nothing };
    (deviations.of::<UNIT>(a) + b) + c
}

#[inline(always)]
fn quarters<T: Copy>([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: [T; BLOCK_VECTORS]) -> [[T; 4]; 4] {
    [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]]
}

/// Makes moments of the sums of a part, and merges them into the moments of all parts before it.
struct MergePart<'a, const UNIT: bool> {
    walk: &'a Walk,
    group: Group,
    piece: Piece,
    part: &'a [Tile<TASK_FIELDS>],
    table: &'a mut [Tile<FIELDS>],
}

impl<const UNIT: bool> Kernel for MergePart<'_, UNIT> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let (Self { walk, group, piece, part, table }, Some(s)) = (self, m.all()) else { return };
        let before = walk.values_before(piece.part);
        let count = walk.values_before(piece.part + 1) - before;
        if count == 0.0 {
            return;
        }
        let (weights, is_first) = (MergeWeights::new(before, count), piece.part == 0);
        let (first, end) = (piece.first / LANES, (piece.first + piece.columns).div_ceil(LANES));
        let tiles = table.get_mut(first..end).unwrap_or_default().iter_mut();
        for (number, (tile, part)) in (first..).zip(tiles.zip(part.get(first..end).unwrap_or_default())) {
            if UNIT && is_final(s, tile) {
                continue;
            }
            let moments = of_sums::<M::Simd, UNIT>(s, tile, part, count);
            merge_tile(s, tile, is_first, weights, moments, lanes_of(group, piece, number));
        }
    }
}

/// The lanes of a tile that belong to a piece. Lanes behind the last column may be any piece's.
#[inline(always)]
fn lanes_of(group: Group, piece: Piece, tile: usize) -> u16 {
    let (first, end) = (piece.first, piece.first + piece.columns);
    let before = first_lanes(first.saturating_sub(tile * LANES).min(LANES));
    if end >= group.columns { !before } else { first_lanes((end - tile * LANES).min(LANES)) & !before }
}

/// Mean and M2 of a part from its sums.
#[inline(always)]
fn of_sums<S: Simd, const UNIT: bool>(
    s: S,
    tile: &Tile<FIELDS>,
    [first, second]: &Tile<TASK_FIELDS>,
    count: f64,
) -> [S::F64; 2] {
    let (pivot, unit) = s.load_pair(&tile[PIVOT]);
    let (e, q, count) = (s.load_f64(first), s.load_f64(second), s.splat_f64(count));
    let offset = e / count;
    let m2 = q - e * offset;
    if !UNIT {
        return [mean_of([s.widen(pivot), offset, m2], s.splat_f64(0.0)), m2];
    }
    let pivot = Deviations::new::<UNIT>(pivot, unit).pivot;
    // A power of two; 1 in lanes whose moments are final.
    let unit = s.widen(s.select(s.le(unit, s.splat(0.0)), s.splat(1.0), unit));
    [mean_of([s.widen(pivot), offset, m2], s.splat_f64(0.0)) / unit, m2 / (unit * unit)]
}

/// Merges the moments `other`, of equally many values in every lane, into the moments of a tile: in
/// those of `lanes` whose moments are not final.
#[inline(always)]
fn merge_tile<S: Simd>(
    s: S,
    tile: &mut Tile<FIELDS>,
    is_first: bool,
    weights: MergeWeights,
    other: [S::F64; 2],
    lanes: u16,
) {
    let zero = s.splat_f64(0.0);
    let old = [s.load_f64(&tile[MEAN]), s.load_f64(&tile[M2])];
    let [mean, m2] = if is_first { [zero, zero] } else { old };
    let mut merged = merged(s, [mean, m2], weights, other);
    let (_, unit) = s.load_pair(&tile[PIVOT]);
    let lanes = lanes & !s.bits(s.le(unit, s.splat(0.0)));
    if lanes != u16::MAX {
        merged = [lanes_or(s, lanes, merged[0], old[0]), lanes_or(s, lanes, merged[1], old[1])];
    }
    s.store_f64(merged[0], &mut tile[MEAN]);
    s.store_f64(merged[1], &mut tile[M2]);
}

/// Mean and sum of squared deviations in every lane, after `other` is merged into them as
/// [`Moments::merge_with`] does.
#[inline(always)]
fn merged<S: Simd>(s: S, [mean, m2]: [S::F64; 2], weights: MergeWeights, other: [S::F64; 2]) -> [S::F64; 2] {
    let delta = other[0] - mean;
    [mean + delta * s.splat_f64(weights.mean), m2 + (other[1] + delta * delta * s.splat_f64(weights.m2))]
}

/// `value` in the lanes `lanes`, and `other` in the other lanes.
#[inline(always)]
fn lanes_or<S: Simd>(s: S, lanes: u16, value: S::F64, other: S::F64) -> S::F64 {
    let [value, _] = s.change_lanes_f64([value, other], |lane, values| {
        if lanes >> lane & 1 == 0 {
            values[0] = values[1];
        }
    });
    value
}

/// Merges the last, shorter row of a matrix: one more value in its columns.
struct MergeShorterRow<'a, E> {
    columns: &'a Columns,
    group: Group,
    input: &'a [E],
    table: &'a mut [Tile<FIELDS>],
}

impl<E: Load> Kernel for MergeShorterRow<'_, E> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let (Self { columns, group, input, table }, Some(s)) = (self, m.all()) else { return };
        let Some(row) = columns.shorter_row(group, columns.last_piece(group)) else { return };
        let weights = MergeWeights::new(columns.full_rows(), 1.0);
        for (number, tile) in table.iter_mut().enumerate() {
            let x = row.tile(number);
            if x.columns == 0 {
                return;
            }
            let x = [s.widen(E::load_any(s, x.row(input, 0))), s.splat_f64(0.0)];
            merge_tile(s, tile, false, weights, x, first_lanes(row.tile(number).columns));
        }
    }
}

/// Finds out whether a channel of a group may need another walk.
struct Unsettled<'a> {
    walk: &'a Walk,
    group: Group,
    samples: f64,
    table: &'a [Tile<FIELDS>],
    found: &'a mut bool,
}

impl Kernel for Unsettled<'_> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let (Self { walk, group, samples, table, found }, Some(s)) = (self, m.all()) else { return };
        for channels in group.sixteens() {
            let [pivots, _] = group.pair_of(s, channels, table, PIVOT);
            *found |= !settled(s, of_channels(s, walk, group, channels, table, samples), pivots)
                & first_lanes(channels.len)
                != 0;
        }
    }
}

/// Finds out whether every value of a group is 0.
struct AllZeros<'a, E> {
    walk: &'a Walk,
    group: Group,
    input: &'a [E],
    found: &'a mut bool,
}

impl<E: Load> Kernel for AllZeros<'_, E> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let (Self { walk, group, input, found }, Some(s)) = (self, m.all()) else { return };
        let units = 0..walk.units(group);
        *found = true;
        match walk {
            Walk::Empty => {}
            Walk::Planar(planar) => {
                for (_, start, len) in planar.runs(group, units) {
                    if !all_zeros(s, range(input, start, len)) {
                        *found = false;
                        return;
                    }
                }
            }
            Walk::Columns(columns) => {
                for (start, len) in columns.rows_of(group, units) {
                    if !all_zeros(s, range(input, start, len)) {
                        *found = false;
                        return;
                    }
                }
            }
        }
    }
}

/// Whether every value is 0. The first other value ends the search.
#[inline(always)]
fn all_zeros<S: Simd, E: Load>(s: S, values: &[E]) -> bool {
    let (values, rest) = values.as_chunks();
    for values in values {
        // Without the sign.
        if !s.is_zero(s.shift_left::<1>(s.to_bits(E::load(s, values)))) {
            return false;
        }
    }
    s.is_zero(s.shift_left::<1>(s.to_bits(E::load_partial(s, rest))))
}

/// The lanes whose moments are final for sure.
#[inline(always)]
fn settled<S: Simd>(s: S, BatchMoments { count, mean, m2 }: BatchMoments<S>, pivots: S::F32) -> u16 {
    let off = mean - s.widen(pivots);
    let off = off * off * count;
    s.less(m2, s.splat_f64(f64::INFINITY)) & !s.less(m2, off) & !s.less(m2 + off, count * s.splat_f64(SMALLEST_SQUARE))
}

/// Writes pivot and unit of the next walk into the table of a group, and says whether there is one. The unit of a channel whose
/// moments are final is 0.
struct NextPivots<'a> {
    walk: &'a Walk,
    group: Group,
    samples: f64,
    table: &'a mut [Tile<FIELDS>],
    any: &'a mut bool,
}

impl Kernel for NextPivots<'_> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let (Self { walk, group, samples, table, any }, Some(s)) = (self, m.all()) else { return };
        for channels in group.sixteens() {
            let [pivots, units] = group.pair_of(s, channels, table, PIVOT);
            let settled = settled(s, of_channels(s, walk, group, channels, table, samples), pivots);
            group.put_pair(s, channels, table, PIVOT, [pivots, s.drop(s.mask(settled), units)]);
            // Few channels are left to look at one by one.
            for lane in (0..channels.len).filter(|lane| settled >> lane & 1 == 0) {
                *any |= next_pivot(walk, group, samples, table, channels.first + lane);
            }
        }
    }
}

/// Writes pivot and unit of the next walk over a channel into the table, and says whether there is one.
#[cold]
#[inline(never)]
fn next_pivot(walk: &Walk, group: Group, samples: f64, table: &mut [Tile<FIELDS>], channel: usize) -> bool {
    let column = group.columns_of(channel).next().unwrap_or(0);
    let [pivot, unit] = table.get(column / LANES).map_or([0.0; 2], |tile| pair_lane(&tile[PIVOT], column));
    if unit == 0.0 {
        return false;
    }
    let Moments { mean, m2, .. } = of_channel(walk, group, channel, table);
    let next = next_walk(Moments { count: samples, mean, m2 }, [pivot, unit]);
    let pair = next.unwrap_or([pivot, 0.0]);
    group.put_pair(crate::simd::Lane::FIRST, Channels::one(channel), table, PIVOT, pair);
    next.is_some()
}

/// The moments of sixteen channels from the table of their group.
#[inline(always)]
pub(crate) fn of_channels<S: Simd>(
    s: S,
    walk: &Walk,
    group: Group,
    channels: Channels,
    table: &[Tile<FIELDS>],
    samples: f64,
) -> BatchMoments<S> {
    let count = s.splat_f64(samples);
    if group.has_whole_tiles() {
        let [mean, m2] = of_whole_tiles(s, walk, group, channels, table);
        return BatchMoments { count, mean, m2 };
    }
    let [mean, m2] = s.lane_by_lane(channels.len, |lane| {
        let Moments { mean, m2, .. } = of_channel(walk, group, channels.first + lane, table);
        [mean, m2]
    });
    BatchMoments { count, mean, m2 }
}

/// [`of_channels`] of channels whose columns are whole tiles: [`of_channel`] for sixteen channels at once.
#[inline(always)]
fn of_whole_tiles<S: Simd>(s: S, walk: &Walk, group: Group, channels: Channels, table: &[Tile<FIELDS>]) -> [S::F64; 2] {
    let (mut moments, mut count) = ([s.splat_f64(0.0); 2], 0.0);
    for number in group.whole_tiles_of(channels) {
        let Some(tile) = table.get(number) else { break };
        let other = [s.load_f64(&tile[MEAN]), s.load_f64(&tile[M2])];
        let (Walk::Columns(columns), false) = (walk, group.is_direct()) else { return other };
        // A tile has columns of one length.
        let weights = MergeWeights::new(count, columns.column_count(group.first_column + number * LANES));
        moments = merged(s, moments, weights, other);
        count = weights.count;
    }
    moments
}

/// The moments of one channel: the moments of its columns, merged in order.
#[inline(always)]
fn of_channel(walk: &Walk, group: Group, channel: usize, table: &[Tile<FIELDS>]) -> Moments {
    let mut moments = Moments::EMPTY;
    for column in group.columns_of(channel) {
        let Some(tile) = table.get(column / LANES) else { break };
        let (mean, m2) = (lane_of(&tile[MEAN], column), lane_of(&tile[M2], column));
        match walk {
            Walk::Columns(columns) => {
                let count = columns.column_count(group.first_column + column);
                moments.merge(Moments { count, mean, m2 });
            }
            Walk::Empty | Walk::Planar(_) => moments = Moments { count: 1.0, mean, m2 },
        }
    }
    moments
}

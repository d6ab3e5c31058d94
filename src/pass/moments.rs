//! Blocked Welford: the moments of every channel, in one walk.
//!
//! A block holds at most sixteen vectors. In it, in f32: the mean of the block, then `t = x - block_mean`,
//! `e = sum(t)`, `q = sum(t*t)`, so that the sum of squared deviations is `q - e*e/n` and the mean
//! `block_mean + e/n`. Vectors are added in pairs, the pairs in pairs, at most four of these in sequence, and the lanes
//! of `e` and `q` in f64: no sum is more than five roundings deep. Blocks are merged in f64 by the formula of Chan,
//! Golub and LeVeque (1979), 256 blocks to a part, then part to part.
//!
//! Each value is read from memory once and used twice; 4 bytes per element.

use core::ops::Add;

use super::{RowSum, four_rows, in_sequence, load_four, load_partial_four, tree, whole_vectors};
use crate::channel::{BatchMoments, Channels, MergeWeights, Moments, lane_of};
use crate::simd::{Kernel, LANES, Lanes, Machine, Simd, Work, first_lanes};
use crate::slices::range_mut;
use crate::tasks::Tasks;
use crate::walk::{BLOCK_VALUES, BLOCK_VECTORS, Columns, Group, Piece, Planar, RowBlock, Tile, Walk};

/// Squares below this have lost bits to underflow: such a block is done again in f64. 2^-110.
const SMALLEST_SQUARES: f64 = 1.0 / (1u128 << 110) as f64;

/// Four vectors added in pairs.
#[inline(always)]
fn in_pairs<S: Simd>([a, b, c, d]: [S::F32; 4]) -> S::F32 {
    (a + b) + (c + d)
}

/// The sum of a row of at most 256 values, lane by lane.
#[inline(always)]
fn row_sum<S: Simd>(s: S, row: &[f32]) -> S::F32 {
    let (vectors, tail) = row.as_chunks();
    let (eights, rest) = vectors.as_chunks();
    let (fours, rest) = rest.as_chunks();
    let mut sum = s.splat(0.0);
    for [a, b, c, d, e, f, g, h] in eights {
        let first = in_pairs::<S>([s.load(a), s.load(b), s.load(c), s.load(d)]);
        sum = sum + (first + in_pairs::<S>([s.load(e), s.load(f), s.load(g), s.load(h)]));
    }
    let mut last = if tail.is_empty() { s.splat(0.0) } else { s.load_partial(tail) };
    last = match rest {
        [a] => s.load(a) + last,
        [a, b] => (s.load(a) + s.load(b)) + last,
        [a, b, c] => (s.load(a) + s.load(b)) + (s.load(c) + last),
        _ => last,
    };
    for [a, b, c, d] in fours {
        last = in_pairs::<S>([s.load(a), s.load(b), s.load(c), s.load(d)]) + last;
    }
    sum + last
}

/// The sums of `t` and of `t*t` with `t = x - pivot`, lane by lane.
#[derive(Clone, Copy)]
struct Deviations<S: Simd> {
    e: S::F32,
    q: S::F32,
}

impl<S: Simd> Deviations<S> {
    #[inline(always)]
    fn zero(s: S) -> Self {
        Self { e: s.splat(0.0), q: s.splat(0.0) }
    }

    #[inline(always)]
    fn of(pivot: S::F32, x: S::F32) -> Self {
        let t = x - pivot;
        Self { e: t, q: t * t }
    }

    /// Of a row of at most 256 values.
    #[inline(always)]
    fn of_row(s: S, pivot: S::F32, row: &[f32]) -> Self {
        let (vectors, tail) = row.as_chunks();
        let (eights, rest) = vectors.as_chunks();
        let (fours, rest) = rest.as_chunks();
        let mut sum = Self::zero(s);
        for [a, b, c, d, e, f, g, h] in eights {
            let first = four_deviations(s, pivot, [s.load(a), s.load(b), s.load(c), s.load(d)]);
            sum = sum + (first + four_deviations(s, pivot, [s.load(e), s.load(f), s.load(g), s.load(h)]));
        }
        let mut last = Self::zero(s);
        if !tail.is_empty() {
            let t = s.keep(s.mask(first_lanes(tail.len())), s.load_partial(tail) - pivot);
            last = Self { e: t, q: t * t };
        }
        last = match rest {
            [a] => Self::of(pivot, s.load(a)) + last,
            [a, b] => (Self::of(pivot, s.load(a)) + Self::of(pivot, s.load(b))) + last,
            [a, b, c] => {
                (Self::of(pivot, s.load(a)) + Self::of(pivot, s.load(b))) + (Self::of(pivot, s.load(c)) + last)
            }
            _ => last,
        };
        for [a, b, c, d] in fours {
            last = four_deviations(s, pivot, [s.load(a), s.load(b), s.load(c), s.load(d)]) + last;
        }
        sum + last
    }
}

impl<S: Simd> Add for Deviations<S> {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self { e: self.e + other.e, q: self.q + other.q }
    }
}

#[inline(always)]
fn four_deviations<S: Simd>(_: S, pivot: S::F32, [a, b, c, d]: [S::F32; 4]) -> Deviations<S> {
    let (a, b, c, d) =
        (Deviations::of(pivot, a), Deviations::of(pivot, b), Deviations::of(pivot, c), Deviations::of(pivot, d));
    (a + b) + (c + d)
}

/// The sum of sixteen vectors, in pairs.
#[inline(always)]
fn sixteen_sum<S: Simd>(_: S, &[a, b, c, d]: &[[S::F32; 4]; 4]) -> S::F32 {
    (in_pairs::<S>(a) + in_pairs::<S>(b)) + (in_pairs::<S>(c) + in_pairs::<S>(d))
}

/// The deviations of sixteen vectors, added in pairs.
#[inline(always)]
fn sixteen_deviations<S: Simd>(s: S, pivot: S::F32, &[a, b, c, d]: &[[S::F32; 4]; 4]) -> Deviations<S> {
    let (first, second) = (four_deviations(s, pivot, a), four_deviations(s, pivot, b));
    let (third, fourth) = (four_deviations(s, pivot, c), four_deviations(s, pivot, d));
    (first + second) + (third + fourth)
}

/// The sum of a block whose values all belong to one channel, lane by lane.
#[inline(always)]
fn block_sum<S: Simd>(s: S, block: RowBlock, input: &[f32]) -> S::F32 {
    if !S::AT_ONCE {
        return tree(2, block.rows, s.splat(0.0), |row| {
            tree(3, block.columns.div_ceil(LANES), s.splat(0.0), |vector| {
                s.load_partial(block.since_vector(vector).row(input, row))
            })
        });
    }
    let rows = block.rows_of(input);
    // The common case, without a loop.
    if let Some(Ok(vectors)) = rows.clone().next().map(<&[f32; BLOCK_VALUES]>::try_from) {
        return sixteen_sum(s, &sixteen_of(s, vectors));
    }
    let mut sum = RowSum::new(s.splat(0.0));
    for row in rows {
        sum.add(row_sum(s, row));
    }
    sum.total()
}

/// The deviations of such a block.
#[inline(always)]
fn block_deviations<S: Simd>(s: S, pivot: S::F32, block: RowBlock, input: &[f32]) -> Deviations<S> {
    if !S::AT_ONCE {
        return tree(2, block.rows, Deviations::zero(s), |row| {
            tree(3, block.columns.div_ceil(LANES), Deviations::zero(s), |vector| {
                let vector = block.since_vector(vector).row(input, row);
                let t = s.keep(s.mask(first_lanes(vector.len().min(LANES))), s.load_partial(vector) - pivot);
                Deviations { e: t, q: t * t }
            })
        });
    }
    let rows = block.rows_of(input);
    if let Some(Ok(vectors)) = rows.clone().next().map(<&[f32; BLOCK_VALUES]>::try_from) {
        return sixteen_deviations(s, pivot, &sixteen_of(s, vectors));
    }
    let mut sum = RowSum::new(Deviations::zero(s));
    for row in rows {
        sum.add(Deviations::of_row(s, pivot, row));
    }
    sum.total()
}

/// Sixteen vectors of a row.
#[inline(always)]
fn sixteen_of<S: Simd>(s: S, vectors: &[f32; BLOCK_VALUES]) -> [[S::F32; 4]; 4] {
    let mut x = [[s.splat(0.0); 4]; 4];
    for (x, vector) in x.as_flattened_mut().iter_mut().zip(vectors.as_chunks().0) {
        *x = s.load(vector);
    }
    x
}

/// The moments of a block whose values all belong to one channel, in lanes that are worked one after the other.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "at most 256 values")]
fn block_moments<M: Machine>(m: M, block: RowBlock, input: &[f32]) -> Moments {
    let count = (block.rows * block.columns) as f32;
    let mut sums = [0.0; LANES];
    for s in m.each(LANES) {
        s.store(block_sum(s, block, input), &mut sums);
    }
    let pivot = m.fold(&sums) / count;
    let (mut e, mut q) = ([0.0; LANES], [0.0; LANES]);
    for s in m.each(LANES) {
        let sums = block_deviations(s, s.splat(pivot), block, input);
        s.store(sums.e, &mut e);
        s.store(sums.q, &mut q);
    }
    of_deviations(f64::from(count), pivot, [m.fold_f64(&e), m.fold_f64(&q)], block, input)
}

/// The moments of a block from the sums of its deviations from a pivot and of their squares.
#[inline(always)]
pub(crate) fn of_deviations(count: f64, pivot: f32, [e, q]: [f64; 2], block: RowBlock, input: &[f32]) -> Moments {
    if !(SMALLEST_SQUARES..=f64::MAX).contains(&q) {
        return exact_moments(block, input);
    }
    Moments { count, mean: f64::from(pivot) + e / count, m2: q - e * e / count }
}

/// The moments of a block whose squares do not fit f32: too large, too small or not finite.
#[cold]
#[inline(never)]
fn exact_moments(block: RowBlock, input: &[f32]) -> Moments {
    two_passes(block.rows_of(input).flatten().copied())
}

/// First the mean, then the deviations from it, corrected by their sum, all in f64. Equal values are common (zeros
/// behind a ReLU) and have moments without arithmetic.
#[inline(always)]
fn two_passes(values: impl Iterator<Item = f32> + Clone) -> Moments {
    let first = values.clone().next().unwrap_or(0.0);
    let (mut count, mut total, mut constant) = (0.0, 0.0, first.is_finite());
    for value in values.clone() {
        count += 1.0;
        total += f64::from(value);
        constant &= value == first;
    }
    if constant {
        return Moments { count, mean: f64::from(first), m2: 0.0 };
    }
    let pivot = total / count;
    let (e, q) = values.fold((0.0, 0.0), |(e, q), value| {
        let t = f64::from(value) - pivot;
        (e + t, q + t * t)
    });
    Moments { count, mean: pivot + e / count, m2: q - e * e / count }
}

/// The fields of a table of moments: the mean and the sum of squared deviations of a part, or of all merged parts.
pub(crate) const FIELDS: usize = 2;
const MEAN: usize = 0;
const M2: usize = 1;

/// The moments of a group, into its table.
#[inline(always)]
pub(crate) fn of_group(
    tasks: Tasks,
    walk: &Walk,
    group: Group,
    input: &[f32],
    table: &mut [Tile<FIELDS>],
    parts: &mut [Tile<FIELDS>],
) {
    tasks.statistics(
        walk,
        group,
        table,
        parts,
        |(group, piece), _, table| match walk {
            Walk::Empty => {}
            Walk::Planar(planar) => tasks.run(PlanarMoments { planar, group, piece, input, table }),
            Walk::Columns(columns) => tasks.run(ColumnMoments { columns, group, piece, input, table }),
        },
        |piece, table, part| tasks.run(MergePart { walk, piece, part, table }),
    );
    if let Walk::Columns(columns) = walk {
        merge_shorter_row(columns, group, input, table);
    }
}

/// The moments of some channels of a group in one part, into a table of the part's own. One kernel for each layout, because
/// without optimisation the stack would hold the vectors of both.
struct PlanarMoments<'a> {
    planar: &'a Planar,
    group: Group,
    piece: Piece,
    input: &'a [f32],
    table: &'a mut [Tile<FIELDS>],
}

impl Kernel for PlanarMoments<'_> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        planar_part(m, self.planar, self.group, self.piece, self.input, self.table);
    }
}

/// The moments of some columns of a group in one part, into a table of the part's own.
struct ColumnMoments<'a> {
    columns: &'a Columns,
    group: Group,
    piece: Piece,
    input: &'a [f32],
    table: &'a mut [Tile<FIELDS>],
}

impl Kernel for ColumnMoments<'_> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        columns_part(m, self.columns, self.group, self.piece, self.input, self.table);
    }
}

/// Runs of neighbours: stretch after stretch, each in all channels of the piece, which is the order of memory.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "at most 256 values")]
fn planar_part<M: Machine>(
    m: M,
    planar: &Planar,
    group: Group,
    piece: Piece,
    input: &[f32],
    table: &mut [Tile<FIELDS>],
) {
    let Some([means, m2s]) = table.first_mut() else { return };
    let (means, m2s) = (range_mut(means, piece.first, piece.columns), range_mut(m2s, piece.first, piece.columns));
    let mut count = 0.0;
    // A constant, so that the other kind of lanes has no place on the stack either.
    if const { !M::Simd::AT_ONCE } {
        for block in planar.blocks_of(piece.part) {
            let weights = MergeWeights::new(count, (block.rows * block.columns) as f64);
            for (column, (mean, m2)) in (piece.first..).zip(means.iter_mut().zip(m2s.iter_mut())) {
                let block = planar.in_channel(block, group.first_channel + column);
                let mut moments = if count == 0.0 { Moments::EMPTY } else { Moments { count, mean: *mean, m2: *m2 } };
                moments.merge_with(weights, block_moments(m, block, input));
                (*mean, *m2) = (moments.mean, moments.m2);
            }
            count = weights.count;
        }
        return;
    }
    let zeros = [[0.0; LANES]; LANES];
    let mut batch = Batch { blocks: [BatchBlock::NONE; LANES], lanes: zeros, squares: zeros, len: 0 };
    let mut of_blocks = [BatchBlock::NONE.weights; LANES];
    let mut left = planar.blocks_in(piece.part) * piece.columns;
    for stretch in planar.stretches_of::<LANES>(piece.part) {
        let is_first = count == 0.0;
        for (weights, block) in of_blocks.iter_mut().zip(stretch.blocks()) {
            *weights = MergeWeights::new(count, (block.rows * block.columns) as f64);
            count = weights.count;
        }
        for column in 0..piece.columns {
            let stretch = planar.in_channel(stretch, group.first_channel + piece.first + column);
            let mut is_first = is_first;
            for (block, &weights) in stretch.blocks().zip(&of_blocks) {
                batch.push(BatchBlock { block, column, is_first, weights });
                is_first = false;
                left -= 1;
                // One call: inlined twice, it would need twice the stack where nothing is optimised.
                if batch.len == LANES || left == 0 {
                    batch.merge(m, input, (means, m2s));
                }
            }
        }
    }
}

/// Blocks that are worked together, because sixteen sums over lanes at once take little more than two alone.
struct Batch {
    blocks: Lanes<BatchBlock>,
    /// The sums of each, lane by lane, and later those of the deviations; and of the squares of these.
    lanes: Lanes<Lanes<f32>>,
    squares: Lanes<Lanes<f32>>,
    len: usize,
}

/// A block of one channel, and what its moments are merged with.
#[derive(Clone, Copy)]
struct BatchBlock {
    block: RowBlock,
    column: usize,
    is_first: bool,
    weights: MergeWeights,
}

impl BatchBlock {
    const NONE: Self = Self {
        block: RowBlock::NONE,
        column: 0,
        is_first: true,
        weights: MergeWeights { count: 0.0, mean: 0.0, m2: 0.0 },
    };

    /// The number of its values.
    #[inline(always)]
    #[expect(clippy::cast_precision_loss, reason = "at most 256 values")]
    const fn count(&self) -> f32 {
        (self.block.rows * self.block.columns) as f32
    }
}

impl Batch {
    #[inline(always)]
    fn push(&mut self, block: BatchBlock) {
        self.blocks[self.len % LANES] = block;
        self.len += 1;
    }

    /// Merges the moments of the blocks, in their order, into those of their columns; then there are none.
    #[inline(always)]
    fn merge<M: Machine>(&mut self, m: M, input: &[f32], (means, m2s): (&mut [f64], &mut [f64])) {
        let Some(s) = m.all() else { return };
        let blocks = self.blocks.get(..self.len).unwrap_or_default();
        let mut counts = [1.0; LANES];
        for (count, block) in counts.iter_mut().zip(blocks) {
            *count = block.count();
        }
        s.apart(BlockSums { blocks, input, lanes: &mut self.lanes });
        let counts = s.load(&counts);
        let mut pivots = [0.0; LANES];
        let pivot = s.load(&m.fold_each(&self.lanes)) / counts;
        s.store(pivot, &mut pivots);
        s.apart(BlockDeviations { blocks, pivots: &pivots, input, lanes: (&mut self.lanes, &mut self.squares) });
        let (e, q) = (s.load_f64(&m.fold_each_f64(&self.lanes)), m.fold_each_f64(&self.squares));
        let counts = s.widen(counts);
        let (mut block_means, mut block_m2s) = ([0.0; LANES], [0.0; LANES]);
        s.store_f64(s.widen(pivot) + e / counts, &mut block_means);
        s.store_f64(s.load_f64(&q) - e * e / counts, &mut block_m2s);
        for ((block, q), (&mean, &m2)) in blocks.iter().zip(q).zip(block_means.iter().zip(&block_m2s)) {
            let mut of_block = Moments { count: 0.0, mean, m2 };
            if !(SMALLEST_SQUARES..=f64::MAX).contains(&q) {
                of_block = exact_moments(block.block, input);
            }
            let (Some(mean), Some(m2)) = (means.get_mut(block.column), m2s.get_mut(block.column)) else { break };
            let mut moments = Moments { count: 0.0, mean: *mean, m2: *m2 };
            if block.is_first {
                moments = Moments::EMPTY;
            }
            moments.merge_with(block.weights, of_block);
            (*mean, *m2) = (moments.mean, moments.m2);
        }
        self.len = 0;
    }
}

/// The sums of some blocks, lane by lane: a function of its own, as [`BlockDeviations`], whose vectors are on the stack only
/// while it lasts where nothing is optimised.
struct BlockSums<'a> {
    blocks: &'a [BatchBlock],
    input: &'a [f32],
    lanes: &'a mut Lanes<Lanes<f32>>,
}

impl<S: Simd> Work<S> for BlockSums<'_> {
    #[inline(always)]
    fn run(self, s: S) {
        for (lanes, BatchBlock { block, .. }) in self.lanes.iter_mut().zip(self.blocks) {
            block.prefetch_next(s, self.input);
            s.store(block_sum(s, *block, self.input), lanes);
        }
    }
}

/// The deviations of some blocks from a pivot each and their squares, summed lane by lane.
struct BlockDeviations<'a> {
    blocks: &'a [BatchBlock],
    pivots: &'a Lanes<f32>,
    input: &'a [f32],
    lanes: (&'a mut Lanes<Lanes<f32>>, &'a mut Lanes<Lanes<f32>>),
}

impl<S: Simd> Work<S> for BlockDeviations<'_> {
    #[inline(always)]
    fn run(self, s: S) {
        let Self { blocks, pivots, input, lanes } = self;
        for ((e, q), (block, &pivot)) in lanes.0.iter_mut().zip(lanes.1).zip(blocks.iter().zip(pivots)) {
            let sums = block_deviations(s, s.splat(pivot), block.block, input);
            s.store(sums.e, e);
            s.store(sums.q, q);
        }
    }
}

/// Columns of a matrix: sixteen rows at a time, along the rows.
#[inline(always)]
fn columns_part<M: Machine>(
    m: M,
    columns: &Columns,
    group: Group,
    piece: Piece,
    input: &[f32],
    table: &mut [Tile<FIELDS>],
) {
    let table = table.get_mut(piece.first / LANES..).unwrap_or_default();
    let mut count = 0.0;
    for block in columns.blocks_of(group, piece) {
        let weights = MergeWeights::new(count, block.rows as f64);
        let is_first = count == 0.0;
        count = weights.count;
        if const { !M::Simd::AT_ONCE } {
            for (number, tile) in table.iter_mut().enumerate() {
                let block = block.tile(number);
                for s in m.each(block.columns) {
                    let (pivot, sums) = lane_deviations(s, block, input);
                    merge_lanes(s, tile, is_first, weights, tile_moments(s, pivot, sums, block, input));
                }
            }
            continue;
        }
        let Some(s) = m.all() else { break };
        let far = in_sequence(block.width, input);
        let (whole, rest) = whole_vectors::<BLOCK_VECTORS>(block.array_of(input));
        let tiles = whole.first().map_or(0, |row| row.len());
        let [first, second, third, fourth] = quarters(whole);
        let rows = four_rows(first).zip(four_rows(second)).zip(four_rows(third).zip(four_rows(fourth)));
        for (number, (tile, ((first, second), (third, fourth)))) in table.iter_mut().zip(rows).enumerate() {
            if far {
                // Sixteen vectors of the next sixteen rows, which follow each other in memory.
                for vector in 0..BLOCK_VECTORS {
                    let before = number * (BLOCK_VECTORS - 1) + vector;
                    s.prefetch_second(first[0], BLOCK_VECTORS * block.width + before * LANES);
                }
            }
            let x = [load_four(s, first), load_four(s, second), load_four(s, third), load_four(s, fourth)];
            let block = block.tile(number);
            let (pivot, sums) = rows_deviations(s, x, block.rows);
            merge_lanes(s, tile, is_first, weights, tile_moments(s, pivot, sums, block, input));
        }
        if rest.first().is_some_and(|rest| !rest.is_empty())
            && let Some(tile) = table.get_mut(tiles)
        {
            let [first, second, third, fourth] = quarters(rest);
            let x = [
                load_partial_four(s, first),
                load_partial_four(s, second),
                load_partial_four(s, third),
                load_partial_four(s, fourth),
            ];
            let block = block.tile(tiles);
            let (pivot, sums) = rows_deviations(s, x, block.rows);
            merge_lanes(s, tile, is_first, weights, tile_moments(s, pivot, sums, block, input));
        }
    }
}

/// Merges the moments of a part into those of all parts before it.
struct MergePart<'a> {
    walk: &'a Walk,
    piece: Piece,
    part: &'a [Tile<FIELDS>],
    table: &'a mut [Tile<FIELDS>],
}

impl Kernel for MergePart<'_> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let Self { walk, piece, part, table } = self;
        let before = walk.values_before(piece.part);
        let count = walk.values_before(piece.part + 1) - before;
        if count == 0.0 {
            return;
        }
        let (weights, is_first) = (MergeWeights::new(before, count), piece.part == 0);
        let tiles = piece.first / LANES..(piece.first + piece.columns).div_ceil(LANES);
        let pairs =
            table.get_mut(tiles.clone()).unwrap_or_default().iter_mut().zip(part.get(tiles).unwrap_or_default());
        for (tile, part) in pairs {
            let mut merged = *tile;
            for s in m.each(LANES) {
                let others = (s.load_f64(&part[MEAN]), s.load_f64(&part[M2]));
                merge_lanes(s, &mut merged, is_first, weights, others);
            }
            if piece.columns >= LANES {
                *tile = merged;
                continue;
            }
            // Only some channels of a tile: the other lanes are another piece's.
            for (to, from) in tile.iter_mut().zip(&merged) {
                let lanes = to.iter_mut().zip(from).skip(piece.first % LANES).take(piece.columns);
                lanes.for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// Merges the last, shorter row of a matrix: one more value in its columns.
fn merge_shorter_row(columns: &Columns, group: Group, input: &[f32], table: &mut [Tile<FIELDS>]) {
    let last = columns.last_piece(group);
    let Some(row) = columns.shorter_row(group, last) else { return };
    for (column, &value) in row.rows_of(input).flatten().enumerate() {
        let Some([means, m2s]) = table.get_mut(column / LANES) else { break };
        let (mean, m2) = (&mut means[column % LANES], &mut m2s[column % LANES]);
        let mut moments = Moments { count: columns.full_rows(), mean: *mean, m2: *m2 };
        moments.merge(Moments { count: 1.0, mean: f64::from(value), m2: 0.0 });
        (*mean, *m2) = (moments.mean, moments.m2);
    }
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
    let (Walk::Columns(columns), false) = (walk, group.is_direct()) else {
        let [mean, m2] = table.get(group.tile_of(channels)).unwrap_or(&[[0.0; LANES]; FIELDS]);
        return BatchMoments { count, mean: s.load_f64(mean), m2: s.load_f64(m2) };
    };
    let [mean, m2] = s.lane_by_lane(channels.len, |lane| {
        let mut moments = Moments::EMPTY;
        for column in group.columns_of(channels.first + lane) {
            let Some(tile) = table.get(column / LANES) else { break };
            let [mean, m2] = tile.each_ref().map(|field| lane_of(field, column));
            moments.merge(Moments { count: columns.column_count(group.first_column + column), mean, m2 });
        }
        [moments.mean, moments.m2]
    });
    BatchMoments { count, mean, m2 }
}

/// The mean of up to sixteen rows whose lanes are columns, rounded, and the deviations from it.
#[inline(always)]
fn rows_deviations<S: Simd>(s: S, mut x: [[S::F32; 4]; 4], rows: usize) -> (S::F32, Deviations<S>) {
    if rows < BLOCK_VECTORS {
        fill_from(&mut x, rows, s.splat(0.0));
    }
    let pivot = sixteen_sum(s, &x) * s.splat(inverse(rows));
    if rows < BLOCK_VECTORS {
        // A missing row deviates by nothing.
        fill_from(&mut x, rows, pivot);
    }
    (pivot, sixteen_deviations(s, pivot, &x))
}

/// Overwrites the vectors from a given one on. Each is asked whether it is one of these: an index that is not known would
/// keep all of them in memory, also where none is missing.
#[inline(always)]
fn fill_from<T: Copy>(x: &mut [[T; 4]; 4], first: usize, value: T) {
    for (number, x) in x.as_flattened_mut().iter_mut().enumerate() {
        if number >= first {
            *x = value;
        }
    }
}

/// [`rows_deviations`] of lanes that are worked one after the other.
#[inline(always)]
fn lane_deviations<S: Simd>(s: S, block: RowBlock, input: &[f32]) -> (S::F32, Deviations<S>) {
    let row = |row| s.load_partial(block.row(input, row));
    let pivot = tree(4, block.rows, s.splat(0.0), row) * s.splat(inverse(block.rows));
    (pivot, tree(4, block.rows, Deviations::zero(s), |number| Deviations::of(pivot, row(number))))
}

/// The inverse of the rows of a block, rounded.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "at most 16 rows in a block")]
pub(crate) fn inverse(rows: usize) -> f32 {
    1.0 / rows as f32
}

/// The moments of a block whose lanes are columns, lane by lane.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "at most 16 rows in a block")]
#[expect(clippy::cast_possible_truncation, reason = "a power of two")]
fn tile_moments<S: Simd>(
    s: S,
    pivot: S::F32,
    Deviations { e, q }: Deviations<S>,
    block: RowBlock,
    input: &[f32],
) -> (S::F64, S::F64) {
    let sound = s.bits(s.le(s.splat(SMALLEST_SQUARES as f32), q) & s.le(q, s.splat(f32::MAX)));
    let (e, q) = (s.widen(e), s.widen(q));
    let (mean, m2) = if block.rows == BLOCK_VECTORS {
        // Sixteen is a power of two: its inverse is exact, and so is the quotient.
        let inverse = s.splat_f64(1.0 / BLOCK_VECTORS as f64);
        (s.widen(pivot) + e * inverse, q - e * e * inverse)
    } else {
        let count = s.splat_f64(block.rows as f64);
        (s.widen(pivot) + e / count, q - e * e / count)
    };
    let unsound = !sound & first_lanes(block.columns) & s.lanes();
    if unsound == 0 {
        return (mean, m2);
    }
    // The squares of these columns do not fit f32: too large, too small or not finite.
    let [mean, m2] = s.change_lanes_f64([mean, m2], |lane, moments| {
        if unsound >> lane & 1 == 1 {
            let Moments { mean, m2, .. } = exact_moments(block.column(lane), input);
            *moments = [mean, m2];
        }
    });
    (mean, m2)
}

#[inline(always)]
fn quarters<T: Copy>([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: [T; BLOCK_VECTORS]) -> [[T; 4]; 4] {
    [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]]
}

/// Merges the moments of as many values in every lane into the fields of a tile, which hold none before the first.
#[inline(always)]
fn merge_lanes<S: Simd>(
    s: S,
    tile: &mut Tile<FIELDS>,
    is_first: bool,
    weights: MergeWeights,
    (other_mean, other_m2): (S::F64, S::F64),
) {
    let zero = s.splat_f64(0.0);
    let (mean, m2) = if is_first { (zero, zero) } else { (s.load_f64(&tile[MEAN]), s.load_f64(&tile[M2])) };
    let delta = other_mean - mean;
    s.store_f64(mean + delta * s.splat_f64(weights.mean), &mut tile[MEAN]);
    s.store_f64(m2 + (other_m2 + delta * delta * s.splat_f64(weights.m2)), &mut tile[M2]);
}

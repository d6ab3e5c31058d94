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

use super::{BLOCK_VECTORS, BLOCKS_PER_PART, Columns, Planar, RowBlock, Strip, Tile, range};
use crate::channel::{MergeWeights, Moments};
use crate::simd::{LANES, Lanes, Simd};

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

/// The bits of the first `n` lanes, for `n` up to 16.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "sixteen bits")]
const fn first_lanes(n: usize) -> u16 {
    ((1_u32 << n) - 1) as u16
}

/// The moments of a block whose values all belong to one channel.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "at most 256 values")]
fn block_moments<S: Simd>(s: S, block: RowBlock, input: &[f32]) -> Moments {
    let count = (block.rows * block.columns) as f32;
    let mut rows = block.parts_of(input);
    let mut sum = s.splat(0.0);
    for _ in 0..block.rows.div_ceil(4) {
        let mut four = s.splat(0.0);
        for _ in 0..2 {
            let mut two = s.splat(0.0);
            for row in rows.by_ref().take(2) {
                two = two + row_sum(s, row);
            }
            four = four + two;
        }
        sum = sum + four;
    }
    let pivot = s.fold(sum) / count;
    let mut rows = block.parts_of(input);
    let mut sum = Deviations::zero(s);
    for _ in 0..block.rows.div_ceil(4) {
        let mut four = Deviations::zero(s);
        for _ in 0..2 {
            let mut two = Deviations::zero(s);
            for row in rows.by_ref().take(2) {
                two = two + Deviations::of_row(s, s.splat(pivot), row);
            }
            four = four + two;
        }
        sum = sum + four;
    }
    let (e, q) = (s.fold_f64(s.widen(sum.e)), s.fold_f64(s.widen(sum.q)));
    if !(SMALLEST_SQUARES..=f64::MAX).contains(&q) {
        return exact_moments(block, input);
    }
    let count = f64::from(count);
    Moments { count, mean: f64::from(pivot) + e / count, m2: q - e * e / count }
}

/// The moments of a block whose squares do not fit f32: too large, too small or not finite.
#[cold]
#[inline(never)]
fn exact_moments(block: RowBlock, input: &[f32]) -> Moments {
    two_passes(block.parts_of(input).flatten().copied())
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

/// Merges the blocks of one channel, 256 to a part, then part to part.
struct Parts {
    total: Moments,
    part: Moments,
    blocks: usize,
}

impl Parts {
    const EMPTY: Self = Self { total: Moments::EMPTY, part: Moments::EMPTY, blocks: 0 };

    #[inline(always)]
    fn merge(&mut self, block: Moments) {
        self.part.merge(block);
        self.blocks += 1;
        if self.blocks == BLOCKS_PER_PART {
            self.total.merge(self.part);
            (self.part, self.blocks) = (Moments::EMPTY, 0);
        }
    }

    #[inline(always)]
    fn finish(mut self) -> Moments {
        if self.blocks != 0 {
            self.total.merge(self.part);
        }
        self.total
    }
}

/// The moments of one channel of runs of neighbours.
#[inline(always)]
pub(crate) fn planar<S: Simd>(s: S, planar: &Planar, input: &[f32], channel: usize) -> Moments {
    let mut parts = Parts::EMPTY;
    for block in planar.blocks(channel) {
        parts.merge(block_moments(s, block, input));
    }
    parts.finish()
}

/// The fields of a table of moments: the mean and the sum of squared deviations, first of the part in progress,
/// then of all finished parts.
pub(crate) const FIELDS: usize = 4;
const PART_MEAN: usize = 0;
const PART_M2: usize = 1;
const MEAN: usize = 2;
const M2: usize = 3;

/// The moments of every column of a strip, into a table.
#[inline(always)]
pub(crate) fn columns<S: Simd>(s: S, columns: &Columns, strip: Strip, input: &[f32], table: &mut [Tile<FIELDS>]) {
    for tile in table.iter_mut() {
        *tile = [[0.0; LANES]; FIELDS];
    }
    let (mut total, mut part, mut blocks) = (0.0, 0.0, 0);
    for block in columns.full_rows(strip, BLOCK_VECTORS) {
        let weights = MergeWeights::new(part, block.rows as f64);
        for (tile, block) in table.iter_mut().zip(block.tiles()) {
            let (mean, m2) = tile_moments(s, block, input);
            merge_lanes(s, tile, [PART_MEAN, PART_M2], weights, mean, m2);
        }
        part = weights.count;
        blocks += 1;
        if blocks == BLOCKS_PER_PART {
            total = end_part(s, table, total, part);
            (part, blocks) = (0.0, 0);
        }
    }
    if blocks != 0 {
        total = end_part(s, table, total, part);
    }
    // The last, shorter row of the matrix: one more value in its columns.
    if let Some(row) = columns.shorter_row() {
        for (column, &value) in range(input, row.start, row.columns).iter().enumerate() {
            let Some(tile) = table.get_mut(column / LANES) else { break };
            let lane = column % LANES;
            let mut moments = Moments { count: total, mean: tile[MEAN][lane], m2: tile[M2][lane] };
            moments.merge(Moments { count: 1.0, mean: f64::from(value), m2: 0.0 });
            (tile[MEAN][lane], tile[M2][lane]) = (moments.mean, moments.m2);
        }
    }
}

/// Merges the part in progress into the finished ones and returns their joint count.
#[inline(always)]
fn end_part<S: Simd>(s: S, table: &mut [Tile<FIELDS>], total: f64, part: f64) -> f64 {
    let weights = MergeWeights::new(total, part);
    for tile in table {
        let (mean, m2) = (s.load_f64(&tile[PART_MEAN]), s.load_f64(&tile[PART_M2]));
        merge_lanes(s, tile, [MEAN, M2], weights, mean, m2);
        tile[PART_MEAN] = [0.0; LANES];
        tile[PART_M2] = [0.0; LANES];
    }
    weights.count
}

/// The moments of a block whose lanes are columns, lane by lane.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "at most 16 rows in a block")]
#[expect(clippy::cast_possible_truncation, reason = "a power of two")]
fn tile_moments<S: Simd>(s: S, block: RowBlock, input: &[f32]) -> (S::F64, S::F64) {
    let mut x = [s.splat(0.0); BLOCK_VECTORS];
    for (x, row) in x.iter_mut().zip(block.rows_of(input)) {
        *x = block.load(s, row);
    }
    let [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] = quarters(x);
    let sum = (in_pairs::<S>([a, b, c, d]) + in_pairs::<S>([e, f, g, h]))
        + (in_pairs::<S>([i, j, k, l]) + in_pairs::<S>([m, n, o, p]));
    let pivot = sum * s.splat(1.0 / block.rows as f32);
    let whole = block.rows == BLOCK_VECTORS;
    if !whole {
        // A missing row deviates by nothing.
        x.iter_mut().skip(block.rows).for_each(|x| *x = pivot);
    }
    let [first, second, third, fourth] = quarters(x);
    let (first, second) = (four_deviations(s, pivot, first), four_deviations(s, pivot, second));
    let (third, fourth) = (four_deviations(s, pivot, third), four_deviations(s, pivot, fourth));
    let Deviations { e, q } = (first + second) + (third + fourth);
    let sound = s.bits(s.le(s.splat(SMALLEST_SQUARES as f32), q) & s.le(q, s.splat(f32::MAX)));
    let (e, q) = (s.widen(e), s.widen(q));
    let (mean, m2) = if whole {
        // Sixteen is a power of two: its inverse is exact, and so is the quotient.
        let inverse = s.splat_f64(1.0 / BLOCK_VECTORS as f64);
        (s.widen(pivot) + e * inverse, q - e * e * inverse)
    } else {
        let count = s.splat_f64(block.rows as f64);
        (s.widen(pivot) + e / count, q - e * e / count)
    };
    let unsound = !sound & first_lanes(block.columns);
    if unsound == 0 {
        return (mean, m2);
    }
    let (mut means, mut m2s) = ([0.0; LANES], [0.0; LANES]);
    s.store_f64(mean, &mut means);
    s.store_f64(m2, &mut m2s);
    exact_lanes(block, input, unsound, &mut means, &mut m2s);
    (s.load_f64(&means), s.load_f64(&m2s))
}

#[inline(always)]
fn quarters<T: Copy>([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: [T; BLOCK_VECTORS]) -> [[T; 4]; 4] {
    [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]]
}

/// Replaces the moments of those columns whose squares do not fit f32: too large, too small or not finite.
#[cold]
#[inline(never)]
fn exact_lanes(block: RowBlock, input: &[f32], unsound: u16, means: &mut Lanes<f64>, m2s: &mut Lanes<f64>) {
    for (lane, (mean, m2)) in means.iter_mut().zip(m2s).enumerate() {
        if unsound >> lane & 1 == 1 {
            let column = RowBlock { column: block.column + lane, columns: 1, ..block };
            let moments = exact_moments(column, input);
            (*mean, *m2) = (moments.mean, moments.m2);
        }
    }
}

/// Merges the moments of as many values in every lane into two fields of a tile.
#[inline(always)]
fn merge_lanes<S: Simd>(
    s: S,
    tile: &mut Tile<FIELDS>,
    [mean_field, m2_field]: [usize; 2],
    weights: MergeWeights,
    other_mean: S::F64,
    other_m2: S::F64,
) {
    let (mean, m2) = (s.load_f64(&tile[mean_field]), s.load_f64(&tile[m2_field]));
    let delta = other_mean - mean;
    s.store_f64(mean + delta * s.splat_f64(weights.mean), &mut tile[mean_field]);
    s.store_f64(m2 + (other_m2 + delta * delta * s.splat_f64(weights.m2)), &mut tile[m2_field]);
}

/// The moments of one channel from the table of its strip.
#[inline(always)]
pub(crate) fn of_channel(columns: &Columns, strip: Strip, table: &[Tile<FIELDS>], channel: usize) -> Moments {
    let mut moments = Moments::EMPTY;
    for column in strip.columns_of(columns, channel) {
        let Some(tile) = table.get(column / LANES) else { break };
        let lane = column % LANES;
        moments.merge(Moments { count: columns.column_count(column), mean: tile[MEAN][lane], m2: tile[M2][lane] });
    }
    moments
}

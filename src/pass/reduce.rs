//! The sums that the gradients of one channel are made of, in one walk.
//!
//! `g = keep ? act'(z)*dy : 0`, and the sums of `g` and of `g*(x - mean)*unit`, where `unit` is the power of two next
//! below `1/sqrt(var + eps)`: an exact factor that keeps the products from under- and overflowing, in the blocks and parts of the
//! moments: sixteen vectors in f32, in pairs, then f64. A block whose sums overflow is done again in f64. 8 bytes read per
//! element, 4 more with a residual, and one mask bit.

use core::ops::Add;

use super::apply::{self, Apply, CoefficientFields, Coefficients};
use super::{BLOCK_VECTORS, BLOCKS_PER_PART, Columns, Planar, RowBlock, Strip, Tile, lane_of, load};
use crate::activation::Activation;
use crate::channel::{GradientSums, Normalise};
use crate::simd::{LANES, Lanes, Portable, Simd};

impl<A: Activation> Apply<'_, A> {
    /// `g` without the dropout scale, where lane 0 is element `first`.
    #[inline(always)]
    pub(crate) fn gradient<S: Simd>(&self, s: S, z: S::F32, grad: S::F32, first: usize) -> S::F32 {
        self.keep.select(s, first, self.activation.backward(s, z, grad))
    }
}

/// The two sums of some vectors, lane by lane.
struct Sums<S: Simd> {
    g: S::F32,
    g_deviation: S::F32,
}

impl<S: Simd> Sums<S> {
    #[inline(always)]
    fn zero(s: S) -> Self {
        Self { g: s.splat(0.0), g_deviation: s.splat(0.0) }
    }
}

impl<S: Simd> Add for Sums<S> {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self { g: self.g + other.g, g_deviation: self.g_deviation + other.g_deviation }
    }
}

/// What turns a vector of one channel into its summands.
struct Summands<'a, S: Simd, A> {
    apply: Apply<'a, A>,
    normalise: &'a Normalise,
    forward: Coefficients<S>,
    unit: S::F32,
}

impl<S: Simd, A: Activation> Summands<'_, S, A> {
    /// The summands of a vector, where lane 0 is element `first` and there are `lanes` of them.
    #[inline(always)]
    fn of(&self, s: S, x: S::F32, dy: S::F32, (first, lanes): (usize, usize)) -> Sums<S> {
        let z = self.apply.channel_z::<S, false>(s, &self.forward, self.normalise, x, (first, lanes));
        summands(s, &self.forward, self.unit, x, self.apply.gradient(s, z, dy, first))
    }

    /// The sums of a row of at most 256 values: vectors in pairs, pairs in pairs, these in pairs, and those in sequence.
    ///
    /// Whole groups of four vectors first, then the rest with a check each: as few copies of the summands' code as
    /// speed allows.
    #[inline(always)]
    fn row(&self, s: S, x: &[f32], dy: &[f32], mut first: usize) -> Sums<S> {
        let ((x, x_rest), (dy, dy_rest)) = (x.as_chunks::<{ 4 * LANES }>(), dy.as_chunks::<{ 4 * LANES }>());
        let mut sum = Sums::zero(s);
        let mut before = None;
        for (x, dy) in x.iter().zip(dy) {
            let four = self.four(s, x, dy, first);
            first += 4 * LANES;
            match before.take() {
                Some(fours) => sum = sum + (fours + four),
                None => before = Some(four),
            }
        }
        let mut rest = x_rest.chunks(LANES).zip(dy_rest.chunks(LANES));
        let mut last = Sums::zero(s);
        for _ in 0..2 {
            let mut two = Sums::zero(s);
            for (x, dy) in rest.by_ref().take(2) {
                two = two + self.of(s, load(s, x), load(s, dy), (first, x.len()));
                first += LANES;
            }
            last = last + two;
        }
        match before {
            Some(fours) => sum + (fours + last),
            None => sum + last,
        }
    }

    /// The sums of four vectors, in pairs.
    #[inline(always)]
    fn four(&self, s: S, x: &[f32; 4 * LANES], dy: &[f32; 4 * LANES], mut first: usize) -> Sums<S> {
        let mut four = Sums::zero(s);
        let (x, dy) = (x.as_chunks().0.as_chunks().0, dy.as_chunks().0.as_chunks().0);
        for ([a, b], [i, j]) in x.iter().zip(dy) {
            let one = self.of(s, s.load(a), s.load(i), (first, LANES));
            four = four + (one + self.of(s, s.load(b), s.load(j), (first + LANES, LANES)));
            first += 2 * LANES;
        }
        four
    }
}

#[inline(always)]
fn summands<S: Simd>(_: S, forward: &Coefficients<S>, unit: S::F32, x: S::F32, g: S::F32) -> Sums<S> {
    Sums { g, g_deviation: g * ((x - forward.mean) * unit) }
}

/// What one channel's sums are computed with.
pub(crate) struct ChannelReduce<'a, A> {
    pub(crate) apply: &'a Apply<'a, A>,
    pub(crate) normalise: &'a Normalise,
    pub(crate) unit: f64,
}

impl<A: Activation> ChannelReduce<'_, A> {
    /// The sums of a block in f64, for magnitudes that f32 cannot hold. All lanes give the same `g`, so the portable
    /// ones serve every backend.
    #[cold]
    #[inline(never)]
    fn exactly(&self, block: RowBlock, input: &[f32], grad: &[f32]) -> GradientSums {
        let s = Portable;
        let coefficients = Coefficients::of_channel(s, self.normalise);
        let mut sums = GradientSums::ZERO;
        let mut row_first = block.first();
        for (x, dy) in block.parts_of(input).zip(block.parts_of(grad)) {
            let mut first = row_first;
            for (x, dy) in x.chunks(LANES).zip(dy.chunks(LANES)) {
                let (vector, place) = (load(s, x), (first, x.len()));
                let z = if self.normalise.exact {
                    self.apply.channel_z::<_, true>(s, &coefficients, self.normalise, vector, place)
                } else {
                    self.apply.channel_z::<_, false>(s, &coefficients, self.normalise, vector, place)
                };
                let mut g = [0.0; LANES];
                s.store(self.apply.gradient(s, z, load(s, dy), first), &mut g);
                for (&x, &g) in x.iter().zip(&g) {
                    sums.add_exactly(x, self.normalise.mean, self.unit, g);
                }
                first += LANES;
            }
            row_first += block.width;
        }
        sums
    }
}

/// The sums of one channel of runs of neighbours.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
pub(crate) fn planar<S: Simd, A: Activation>(
    s: S,
    planar: &Planar,
    channel: &ChannelReduce<'_, A>,
    number: usize,
    input: &[f32],
    grad: &[f32],
) -> GradientSums {
    let (forward, unit) = (Coefficients::of_channel(s, channel.normalise), s.splat(channel.unit as f32));
    let mut parts = Parts::default();
    for block in planar.blocks(number) {
        let mut rows = block.parts_of(input).zip(block.parts_of(grad));
        let mut first = block.first();
        let mut sums = Sums::zero(s);
        for _ in 0..block.rows.div_ceil(4) {
            let mut four = Sums::zero(s);
            for _ in 0..2 {
                let mut two = Sums::zero(s);
                for (x, dy) in rows.by_ref().take(2) {
                    let apply = channel.apply.within(first, x.len());
                    let summands = Summands { apply, normalise: channel.normalise, forward, unit };
                    two = two + summands.row(s, x, dy, first);
                    first += block.width;
                }
                four = four + two;
            }
            sums = sums + four;
        }
        let sums = GradientSums { g: s.fold_f64(s.widen(sums.g)), g_deviation: s.fold_f64(s.widen(sums.g_deviation)) };
        let sound = sums.are_finite() && !channel.normalise.exact;
        parts.add(if sound { sums } else { channel.exactly(block, input, grad) });
    }
    parts.finish()
}

/// Adds the blocks of one channel, 256 to a part, then part to part.
#[derive(Default)]
struct Parts {
    total: GradientSums,
    part: GradientSums,
    blocks: usize,
}

impl Parts {
    #[inline(always)]
    fn add(&mut self, block: GradientSums) {
        self.part.add(block);
        self.blocks += 1;
        if self.blocks == BLOCKS_PER_PART {
            self.total.add(self.part);
            (self.part, self.blocks) = (GradientSums::ZERO, 0);
        }
    }

    #[inline(always)]
    fn finish(mut self) -> GradientSums {
        self.total.add(self.part);
        self.total
    }
}

/// The fields of the table of a backward call: the coefficients of the forward call, then `UNIT`, then four
/// sums: of the part in progress and of all finished parts.
pub(crate) const FIELDS: usize = apply::FIELDS + 5;
pub(crate) const UNIT: usize = apply::FIELDS;
/// The first of the four fields that hold sums here and the coefficients of the input gradient afterwards.
pub(crate) const SUMS: usize = apply::FIELDS + 1;
const PART_G: usize = SUMS;
const PART_G_DEVIATION: usize = SUMS + 1;
const G: usize = SUMS + 2;
const G_DEVIATION: usize = SUMS + 3;

/// The coefficients of the forward call in a tile.
#[inline(always)]
pub(crate) fn forward_fields(tile: &Tile<FIELDS>) -> &CoefficientFields {
    const { assert!(apply::FIELDS <= FIELDS, "the forward fields come first") };
    match tile.first_chunk() {
        Some(fields) => fields,
        None => &[[0.0; LANES]; apply::FIELDS],
    }
}

/// The sums of every column of a strip, into a table that holds the coefficients.
#[inline(always)]
pub(crate) fn columns<S: Simd, A: Activation>(
    s: S,
    columns: &Columns,
    apply: &Apply<'_, A>,
    strip: Strip,
    input: &[f32],
    grad: &[f32],
    table: &mut [Tile<FIELDS>],
) {
    for tile in table.iter_mut() {
        tile[PART_G] = [0.0; LANES];
        tile[PART_G_DEVIATION] = [0.0; LANES];
        tile[G] = [0.0; LANES];
        tile[G_DEVIATION] = [0.0; LANES];
    }
    for (number, block) in columns.all_rows(strip, BLOCK_VECTORS).enumerate() {
        for (tile, block) in table.iter_mut().zip(block.tiles()) {
            let (g, g_deviation) = tile_sums(s, apply, tile, block, input, grad);
            s.store_f64(s.load_f64(&tile[PART_G]) + g, &mut tile[PART_G]);
            s.store_f64(s.load_f64(&tile[PART_G_DEVIATION]) + g_deviation, &mut tile[PART_G_DEVIATION]);
        }
        if number % BLOCKS_PER_PART == BLOCKS_PER_PART - 1 {
            end_part(s, table);
        }
    }
    end_part(s, table);
}

/// Adds the part in progress to the finished ones.
#[inline(always)]
fn end_part<S: Simd>(s: S, table: &mut [Tile<FIELDS>]) {
    for tile in table {
        s.store_f64(s.load_f64(&tile[G]) + s.load_f64(&tile[PART_G]), &mut tile[G]);
        s.store_f64(s.load_f64(&tile[G_DEVIATION]) + s.load_f64(&tile[PART_G_DEVIATION]), &mut tile[G_DEVIATION]);
        tile[PART_G] = [0.0; LANES];
        tile[PART_G_DEVIATION] = [0.0; LANES];
    }
}

/// The sums of a block whose lanes are columns, lane by lane.
#[inline(always)]
fn tile_sums<S: Simd, A: Activation>(
    s: S,
    apply: &Apply<'_, A>,
    tile: &Tile<FIELDS>,
    block: RowBlock,
    input: &[f32],
    grad: &[f32],
) -> (S::F64, S::F64) {
    let fields = forward_fields(tile);
    let (forward, unit) = (Coefficients::of_tile(s, fields), s.narrow(s.load_f64(&tile[UNIT])));
    let mut rows = block.rows_of(input).zip(block.rows_of(grad));
    let mut first = block.first();
    let mut sums = Sums::zero(s);
    for _ in 0..block.rows.div_ceil(4) {
        let mut four = Sums::zero(s);
        for _ in 0..2 {
            let mut two = Sums::zero(s);
            for (x, dy) in rows.by_ref().take(2) {
                let (x, dy) = (block.load(s, x), block.load(s, dy));
                let z = apply.tile_z::<S, false>(s, &forward, fields, x, (first, block.columns));
                two = two + summands(s, &forward, unit, x, apply.gradient(s, z, dy, first));
                first += block.width;
            }
            four = four + two;
        }
        sums = sums + four;
    }
    let Sums { g, g_deviation } = sums;
    let (least, most) = (s.splat(f32::MIN), s.splat(f32::MAX));
    let finite = s.le(least, g) & s.le(g, most) & s.le(least, g_deviation) & s.le(g_deviation, most);
    let (g, g_deviation) = (s.widen(g), s.widen(g_deviation));
    let finite = s.bits(finite);
    if finite == u16::MAX && !apply::any_exact(&tile[apply::EXACT]) {
        return (g, g_deviation);
    }
    let (mut sums_g, mut sums_deviation) = ([0.0; LANES], [0.0; LANES]);
    s.store_f64(g, &mut sums_g);
    s.store_f64(g_deviation, &mut sums_deviation);
    let exactly = exact_lanes(apply, tile, block, input, grad);
    for (lane, (sums, (g, g_deviation))) in exactly.iter().zip(sums_g.iter_mut().zip(&mut sums_deviation)).enumerate() {
        if finite >> lane & 1 == 0 || lane_of(&tile[apply::EXACT], lane) != 0.0 {
            (*g, *g_deviation) = (sums.g, sums.g_deviation);
        }
    }
    (s.load_f64(&sums_g), s.load_f64(&sums_deviation))
}

/// The sums of every column of a tile in f64.
#[cold]
#[inline(never)]
fn exact_lanes<A: Activation>(
    apply: &Apply<'_, A>,
    tile: &Tile<FIELDS>,
    block: RowBlock,
    input: &[f32],
    grad: &[f32],
) -> Lanes<GradientSums> {
    let s = Portable;
    let fields = forward_fields(tile);
    let forward = Coefficients::of_tile(s, fields);
    let mut sums = [GradientSums::ZERO; LANES];
    let mut first = block.first();
    for (x, dy) in block.parts_of(input).zip(block.parts_of(grad)) {
        let z = apply.tile_z::<_, true>(s, &forward, fields, load(s, x), (first, x.len()));
        let mut g = [0.0; LANES];
        s.store(apply.gradient(s, z, load(s, dy), first), &mut g);
        for (lane, ((sums, &x), &g)) in sums.iter_mut().zip(x).zip(&g).enumerate() {
            sums.add_exactly(x, apply::column(fields, lane).mean, lane_of(&tile[UNIT], lane), g);
        }
        first += block.width;
    }
    sums
}

/// The sums of one channel from the table of its strip.
#[inline(always)]
pub(crate) fn of_channel(columns: &Columns, strip: Strip, table: &[Tile<FIELDS>], channel: usize) -> GradientSums {
    let mut sums = GradientSums::ZERO;
    for column in strip.columns_of(columns, channel) {
        let Some(tile) = table.get(column / LANES) else { break };
        let lane = column % LANES;
        sums.add(GradientSums { g: lane_of(&tile[G], lane), g_deviation: lane_of(&tile[G_DEVIATION], lane) });
    }
    sums
}

//! The sums that the gradients of one channel are made of, in one walk.
//!
//! `g = keep ? act'(z)*dy : 0`, and the sums of `g` and of `g*(x - mean)*unit`, where `unit` is the power of two next
//! below `1/sqrt(var + eps)`: an exact factor that keeps the products from under- and overflowing, in the blocks and parts of the
//! moments: sixteen vectors in f32, in pairs, then f64. A block whose sums overflow is done again in f64. 8 bytes read per
//! element, 4 more with a residual, and one mask bit.

use core::ops::Add;

use super::apply::{self, Apply, Coefficients, Owner, of_columns};
use super::keep::Keep;
use super::{Columns, Group, Piece, Planar, RowBlock, Tile, Walk, four_rows, pair_lane, whole_vectors};
use crate::activation::Activation;
use crate::channel::{ChannelNormalise, Channels, GradientSums, any, lane_of};
use crate::simd::{Kernel, LANES, Lanes, Portable, Simd, load};
use crate::tasks::Tasks;

impl<A: Activation> Apply<'_, A> {
    /// `g` without the dropout scale, where lane 0 is element `first`.
    #[inline(always)]
    pub(crate) fn gradient<S: Simd>(&self, s: S, keep: &Keep<'_>, z: S::F32, grad: S::F32, first: usize) -> S::F32 {
        keep.select(s, first, self.activation.backward(s, z, grad))
    }
}

/// The fields of the table of a backward call. First pairs of f32 vectors: the coefficients of the forward call; slope and
/// tilt of the input gradient; its offset, and the unit of the sums until they are there and whether the input gradient needs
/// f64 from then on. Then, in f64, the sums: first of `g` and `g*(x - mean)*unit`, then those of `g` and of `g*xhat` with the
/// dropout scale.
pub(crate) const FIELDS: usize = apply::FIELDS + 4;
/// Slope and tilt.
pub(crate) const SLOPE: usize = apply::FIELDS;
/// Offset, and unit or whether f64 is needed.
pub(crate) const OFFSET: usize = apply::FIELDS + 1;
/// The sums of `g`.
pub(crate) const G: usize = apply::FIELDS + 2;
/// The sums of `g*(x - mean)*unit` or of `g*xhat`.
pub(crate) const G_OTHER: usize = apply::FIELDS + 3;

/// The fields of a task's own table: two sums of the part in progress, and a pair of f32 vectors, the sums of its block in
/// progress.
pub(crate) const TASK_FIELDS: usize = 3;
const PART_G: usize = 0;
const PART_G_DEVIATION: usize = 1;
const BLOCK: usize = 2;

/// The coefficients of the forward call in a tile.
#[inline(always)]
pub(crate) fn forward_fields(tile: &Tile<FIELDS>) -> &Tile<{ apply::FIELDS }> {
    const { assert!(apply::FIELDS <= FIELDS, "the forward fields come first") };
    match tile.first_chunk() {
        Some(fields) => fields,
        None => &[[0.0; LANES]; apply::FIELDS],
    }
}

/// The sums of a group, into its table, which holds the coefficients.
#[inline(always)]
pub(crate) fn of_group<A: Activation>(
    tasks: Tasks,
    walk: &Walk,
    group: Group,
    apply: &Apply<'_, A>,
    (input, grad): (&[f32], &[f32]),
    table: &mut [Tile<FIELDS>],
    parts: &mut [Tile<TASK_FIELDS>],
) {
    tasks.statistics(
        walk,
        group,
        table,
        parts,
        |piece, table, part| tasks.run(PartSums { walk, group, piece, apply, input, grad, table, part }),
        |piece, table, part| tasks.run(MergePart { piece, part, table }),
    );
}

/// The two sums of some vectors, lane by lane.
#[derive(Clone, Copy)]
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
    apply: &'a Apply<'a, A>,
    keep: Keep<'a>,
    channel: usize,
    forward: Coefficients<S>,
    unit: S::F32,
}

impl<S: Simd, A: Activation> Summands<'_, S, A> {
    /// The summands of a vector, where lane 0 is element `first` and there are `lanes` of them.
    #[inline(always)]
    fn of(&self, s: S, x: S::F32, dy: S::F32, (first, lanes): (usize, usize)) -> Sums<S> {
        let z = self.apply.z(s, &self.forward, x, Owner::Channel(self.channel), (first, lanes));
        summands(s, &self.forward, self.unit, x, self.apply.gradient(s, &self.keep, z, dy, first))
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

/// The sums of some columns of a group in one part, into a table of the part's own.
struct PartSums<'a, A> {
    walk: &'a Walk,
    group: Group,
    piece: Piece,
    apply: &'a Apply<'a, A>,
    input: &'a [f32],
    grad: &'a [f32],
    table: &'a [Tile<FIELDS>],
    part: &'a mut [Tile<TASK_FIELDS>],
}

impl<A: Activation> Kernel for PartSums<'_, A> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match *self.walk {
            Walk::Empty => {}
            Walk::Planar(planar) => self.planar(s, &planar),
            Walk::Columns(columns) => self.columns(s, &columns),
        }
    }
}

impl<A: Activation> PartSums<'_, A> {
    /// Runs of neighbours: block after block, each in all channels of the piece, which is the order of memory.
    #[inline(always)]
    fn planar<S: Simd>(mut self, s: S, planar: &Planar) {
        let part = core::mem::take(&mut self.part).first_mut();
        let (Some(tile), Some(part)) = (self.table.first(), part) else { return };
        *part = [[0.0; LANES]; TASK_FIELDS];
        let [part_g, part_g_deviation, _] = part;
        for block in planar.blocks_of(self.piece.part) {
            let columns = part_g.iter_mut().zip(part_g_deviation.iter_mut()).enumerate();
            for (column, (g, g_deviation)) in columns.skip(self.piece.first).take(self.piece.columns) {
                let channel = self.group.first_channel + column;
                let block = planar.in_channel(block, channel);
                let forward = Coefficients::of_column(s, forward_fields(tile), column);
                let [_, unit] = pair_lane(&tile[OFFSET], column);
                let sums = self.block_sums(s, block, channel, forward, s.splat(unit));
                let sound = sums.are_finite() && !any(s, forward.exact);
                let sums = if sound { sums } else { self.exactly(block, channel) };
                *g += sums.g;
                *g_deviation += sums.g_deviation;
            }
        }
    }

    /// The sums of a block whose values all belong to one channel.
    #[inline(always)]
    fn block_sums<S: Simd>(
        &self,
        s: S,
        block: RowBlock,
        channel: usize,
        forward: Coefficients<S>,
        unit: S::F32,
    ) -> GradientSums {
        let mut rows = block.rows_of(self.input).zip(block.rows_of(self.grad));
        let mut first = block.first();
        let mut sums = Sums::zero(s);
        for _ in 0..block.rows.div_ceil(4) {
            let mut four = Sums::zero(s);
            for _ in 0..2 {
                let mut two = Sums::zero(s);
                for (x, dy) in rows.by_ref().take(2) {
                    let keep = self.apply.keep.within(first, x.len());
                    let summands = Summands { apply: self.apply, keep, channel, forward, unit };
                    two = two + summands.row(s, x, dy, first);
                    first += block.width;
                }
                four = four + two;
            }
            sums = sums + four;
        }
        GradientSums { g: s.fold_f64(s.widen(sums.g)), g_deviation: s.fold_f64(s.widen(sums.g_deviation)) }
    }

    /// The sums of a block in f64, for magnitudes that f32 cannot hold. All lanes give the same `g`, so the portable
    /// ones serve every backend.
    #[cold]
    #[inline(never)]
    fn exactly(&self, block: RowBlock, channel: usize) -> GradientSums {
        let (s, normalisation) = (Portable, &self.apply.normalisation);
        let centre = normalisation.centre(s, Channels::one(channel));
        let unit = s.first_f64(centre.unit(s));
        let channels = [normalisation.of_channel(channel); LANES];
        let column = channel - self.group.first_channel;
        let Some(tile) = self.table.first() else { return GradientSums::ZERO };
        let coefficients = Coefficients::of_column(s, forward_fields(tile), column);
        let owner = if channels[0].exact { Owner::Exact(&channels) } else { Owner::Channel(channel) };
        let mut sums = GradientSums::ZERO;
        let mut row_first = block.first();
        for (x, dy) in block.rows_of(self.input).zip(block.rows_of(self.grad)) {
            let mut first = row_first;
            for (x, dy) in x.chunks(LANES).zip(dy.chunks(LANES)) {
                let z = self.apply.z(s, &coefficients, load(s, x), owner, (first, x.len()));
                let mut g = [0.0; LANES];
                s.store(self.apply.gradient(s, &self.apply.keep, z, load(s, dy), first), &mut g);
                for (&x, &g) in x.iter().zip(&g) {
                    sums.add_exactly(x, channels[0].mean, unit, g);
                }
                first += LANES;
            }
            row_first += block.width;
        }
        sums
    }

    /// Columns of a matrix: four rows at a time, along the rows.
    #[inline(always)]
    fn columns<S: Simd>(mut self, s: S, columns: &Columns) {
        let (group, piece) = (self.group, self.piece);
        let tiles = piece.first / LANES;
        let table = self.table.get(tiles..).unwrap_or_default();
        let part = core::mem::take(&mut self.part).get_mut(tiles..).unwrap_or_default();
        for tile in part.iter_mut().take(piece.columns.div_ceil(LANES)) {
            *tile = [[0.0; LANES]; TASK_FIELDS];
        }
        for block in columns.blocks_of(group, piece).chain(columns.shorter_row(group, piece)) {
            for row in (0..block.rows).step_by(4) {
                let four =
                    RowBlock { start: block.start + row * block.width, rows: (block.rows - row).min(4), ..block };
                let (x, x_rest) = whole_vectors::<4>(four.array_of(self.input));
                let (dy, dy_rest) = whole_vectors::<4>(four.array_of(self.grad));
                let whole = x.first().map_or(0, |row| row.len());
                let rows = four_rows(x).zip(four_rows(dy));
                for (number, ((tile, part), ([a, b, c, d], [i, j, k, l]))) in
                    table.iter().zip(part.iter_mut()).zip(rows).enumerate()
                {
                    let x = [s.load(a), s.load(b), s.load(c), s.load(d)];
                    let dy = [s.load(i), s.load(j), s.load(k), s.load(l)];
                    self.add_four(s, four.tile(number), piece.first + number * LANES, (tile, part), x, dy);
                }
                let [x, ..] = x_rest;
                if !x.is_empty()
                    && let (Some(tile), Some(part)) = (table.get(whole), part.get_mut(whole))
                {
                    let [x, dy] = [x_rest, dy_rest].map(|rest| rest.map(|row| s.load_partial(row)));
                    self.add_four(s, four.tile(whole), piece.first + whole * LANES, (tile, part), x, dy);
                }
            }
            for (number, (tile, part)) in table.iter().zip(part.iter_mut()).enumerate() {
                let block = block.tile(number);
                if block.columns == 0 {
                    break;
                }
                self.end_block(s, block, piece.first + number * LANES, tile, part);
            }
        }
    }

    /// Adds the sums of up to four rows to those of their block.
    #[inline(always)]
    fn add_four<S: Simd>(
        &self,
        s: S,
        rows: RowBlock,
        column: usize,
        (tile, part): (&Tile<FIELDS>, &mut Tile<TASK_FIELDS>),
        [a, b, c, d]: [S::F32; 4],
        [i, j, k, l]: [S::F32; 4],
    ) {
        let forward = Coefficients::of_tile(s, forward_fields(tile));
        let (_, unit) = s.load_pair(&tile[OFFSET]);
        let this = TileSummands { apply: self.apply, owner: Owner::Column(self.group, column), forward, unit, rows };
        let (zero, a, b) = (Sums::zero(s), this.of_row(s, 0, a, i), this.of_row(s, 1, b, j));
        let (c, d) = (this.of_row(s, 2, c, k), this.of_row(s, 3, d, l));
        let four = (zero + a + b) + (zero + c + d);
        let (g, g_deviation) = s.load_pair(&part[BLOCK]);
        let Sums { g, g_deviation } = Sums::<S> { g, g_deviation } + four;
        s.store_pair(g, g_deviation, &mut part[BLOCK]);
    }

    /// Adds the sums of a block to those of its part.
    #[inline(always)]
    fn end_block<S: Simd>(
        &self,
        s: S,
        block: RowBlock,
        column: usize,
        tile: &Tile<FIELDS>,
        part: &mut Tile<TASK_FIELDS>,
    ) {
        let (g, g_deviation) = s.load_pair(&part[BLOCK]);
        part[BLOCK] = [0.0; LANES];
        let (least, most) = (s.splat(f32::MIN), s.splat(f32::MAX));
        let finite = s.le(least, g) & s.le(g, most) & s.le(least, g_deviation) & s.le(g_deviation, most);
        let finite = s.bits(finite);
        let (mut g, mut g_deviation) = (s.widen(g), s.widen(g_deviation));
        if finite != u16::MAX || any(s, Coefficients::of_tile(s, forward_fields(tile)).exact) {
            let (mut sums_g, mut sums_deviation) = ([0.0; LANES], [0.0; LANES]);
            s.store_f64(g, &mut sums_g);
            s.store_f64(g_deviation, &mut sums_deviation);
            self.exact_lanes(block, column, tile, finite, &mut sums_g, &mut sums_deviation);
            (g, g_deviation) = (s.load_f64(&sums_g), s.load_f64(&sums_deviation));
        }
        s.store_f64(s.load_f64(&part[PART_G]) + g, &mut part[PART_G]);
        s.store_f64(s.load_f64(&part[PART_G_DEVIATION]) + g_deviation, &mut part[PART_G_DEVIATION]);
    }

    /// Replaces the sums of those columns of a tile that need f64.
    #[cold]
    #[inline(never)]
    fn exact_lanes(
        &self,
        block: RowBlock,
        column: usize,
        tile: &Tile<FIELDS>,
        finite: u16,
        sums_g: &mut Lanes<f64>,
        sums_deviation: &mut Lanes<f64>,
    ) {
        let (s, normalisation) = (Portable, &self.apply.normalisation);
        let channels: Lanes<ChannelNormalise> = of_columns(normalisation, self.group, column);
        let forward = Coefficients::of_tile(s, forward_fields(tile));
        let mut sums = [GradientSums::ZERO; LANES];
        let mut units = [0.0; LANES];
        for (column, unit) in (column..self.group.columns).zip(&mut units) {
            let centre = normalisation.centre(s, Channels::one(self.group.channel_of(column)));
            *unit = s.first_f64(centre.unit(s));
        }
        let mut first = block.first();
        for (x, dy) in block.rows_of(self.input).zip(block.rows_of(self.grad)) {
            let z = self.apply.z(s, &forward, load(s, x), Owner::Exact(&channels), (first, x.len()));
            let mut g = [0.0; LANES];
            s.store(self.apply.gradient(s, &self.apply.keep, z, load(s, dy), first), &mut g);
            for (lane, ((sums, &x), &g)) in sums.iter_mut().zip(x).zip(&g).enumerate() {
                sums.add_exactly(x, lane_of(&channels, lane).mean, lane_of(&units, lane), g);
            }
            first += block.width;
        }
        let exactly = sums.iter().zip(&channels).zip(sums_g.iter_mut().zip(sums_deviation));
        for (lane, ((sums, channel), (g, g_deviation))) in exactly.enumerate() {
            if finite >> lane & 1 == 0 || channel.exact {
                (*g, *g_deviation) = (sums.g, sums.g_deviation);
            }
        }
    }
}

/// What turns vectors whose lanes are columns into their summands.
struct TileSummands<'a, S: Simd, A> {
    apply: &'a Apply<'a, A>,
    owner: Owner<'a>,
    forward: Coefficients<S>,
    unit: S::F32,
    rows: RowBlock,
}

impl<S: Simd, A: Activation> TileSummands<'_, S, A> {
    #[inline(always)]
    fn of_row(&self, s: S, row: usize, x: S::F32, dy: S::F32) -> Sums<S> {
        // The rows that are missing are the first one again, with every element dropped.
        let RowBlock { rows, width, columns, .. } = self.rows;
        let (row, valid) = if row < rows { (row, u16::MAX) } else { (0, 0) };
        let first = self.rows.first() + row * width;
        let z = self.apply.z(s, &self.forward, x, self.owner, (first, columns));
        let kept = s.mask(self.apply.keep.bits(first) & valid);
        summands(s, &self.forward, self.unit, x, s.keep(kept, self.apply.activation.backward(s, z, dy)))
    }
}

/// Adds the sums of a part to those of all parts before it.
struct MergePart<'a> {
    piece: Piece,
    part: &'a [Tile<TASK_FIELDS>],
    table: &'a mut [Tile<FIELDS>],
}

impl Kernel for MergePart<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { piece, part, table } = self;
        let tiles = piece.first / LANES..(piece.first + piece.columns).div_ceil(LANES);
        // Lanes that are no columns of the piece have sums of 0.
        for (tile, part) in
            table.get_mut(tiles.clone()).unwrap_or_default().iter_mut().zip(part.get(tiles).unwrap_or_default())
        {
            s.store_f64(s.load_f64(&tile[G]) + s.load_f64(&part[PART_G]), &mut tile[G]);
            s.store_f64(s.load_f64(&tile[G_OTHER]) + s.load_f64(&part[PART_G_DEVIATION]), &mut tile[G_OTHER]);
        }
    }
}

/// The sums of sixteen channels from the table of their group.
#[inline(always)]
pub(crate) fn of_channels<S: Simd>(s: S, group: Group, channels: Channels, table: &[Tile<FIELDS>]) -> [S::F64; 2] {
    if group.is_direct() {
        let tile = table.get(group.tile_of(channels)).unwrap_or(&[[0.0; LANES]; FIELDS]);
        return [s.load_f64(&tile[G]), s.load_f64(&tile[G_OTHER])];
    }
    let mut sums = [[0.0; LANES]; 2];
    let [g, g_deviation] = &mut sums;
    for (channel, (g, g_deviation)) in
        (channels.first..channels.first + channels.len).zip(g.iter_mut().zip(g_deviation))
    {
        for column in group.columns_of(channel) {
            let Some(tile) = table.get(column / LANES) else { break };
            *g += lane_of(&tile[G], column);
            *g_deviation += lane_of(&tile[G_OTHER], column);
        }
    }
    [s.load_f64(&sums[0]), s.load_f64(&sums[1])]
}

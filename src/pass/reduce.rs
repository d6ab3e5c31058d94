//! The sums that the gradients of one channel are made of, in one walk.
//!
//! `g = keep ? act'(z)*dy : 0`, and the sums of `g` and of `g*(x - mean)*unit`, where `unit` is the
//! power of two next below `1/sqrt(var + eps)`: an exact factor that keeps the products from under-
//! and overflowing. They are summed as moments are: [`super::sums`] has the order of the additions.
//! A channel whose sums or coefficients leave the range of f32 is summed again in f64. 8 bytes read
//! per element, 4 more with a residual, and one mask bit.

use core::slice;

use super::apply::{self, Apply, Coefficients, ColumnCoefficients, ExactSource, Residuals, bounded};
use super::elementwise::{Column, Everywhere, FEW_COLUMNS, Owner, Sources};
use super::exact::ExactNormalise;
use super::keep::{Bits, Keep};
use super::sums::{LaneSums, PlanarSums, Two, fold_both, fold_channels};
use super::{SHORT, four_bits, lanes_from, load_values, of_columns, pair_lane};
use crate::bits::{BITS, Buffer, FourBits};
use crate::channel::{Channels, any, lane_of};
use crate::simd::{Kernel, LANES, Lane, Lanes, Machine, Simd, Work, first_lanes};
use crate::slices::{range, range_mut};
use crate::storage::{Ahead, Load, OfTwo, PIECE, Storage, four_rows, in_sequence, load_four, rows_of, whole_vectors};
use crate::tasks::Tasks;
use crate::walk::{BLOCK_VALUES, Columns, Group, Piece, Planar, RowBlock, Tile, Vectors, Walk};

/// The bound of the activation in a backward call.
#[derive(Clone, Copy)]
pub(super) struct Bound<V> {
    pub(super) lower: V,
    /// [`Apply::is_open`]: whether the gradient of every kept element passes.
    pub(super) open: bool,
}

/// Whether gradients that all pass have loops of their own: a loop that asks for every vector takes up to a
/// third longer. In a debug build the stack would hold the vectors of both loops.
const OWN_LOOPS: bool = !cfg!(debug_assertions);

impl<V> Bound<V> {
    /// The same bound in code for one value of `open` alone. With this constant the compiler makes loops of
    /// their own.
    #[inline(always)]
    fn with_open(self, open: bool) -> Self {
        if OWN_LOOPS { Self { open, ..self } } else { self }
    }
}

impl<T: Storage> Apply<'_, T> {
    /// `g` without the dropout scale. Where lanes are processed at once, `grad` has been through the curve
    /// already.
    #[inline(always)]
    pub(crate) fn gradient<S: Simd>(&self, s: S, lower: S::F32, bits: u16, z: S::F32, grad: S::F32) -> S::F32 {
        let grad = match &self.formula.curve {
            Some(curve) if !S::AT_ONCE => s.change_lanes([z, grad], |_, [z, dy]| curve.single(z, dy)),
            _ => grad,
        };
        bounded(s, lower, bits, z, grad)
    }

    /// The bound of the activation. It is taken before a loop, for the reason of [`Self::lower`].
    #[inline(always)]
    pub(super) fn bound<S: Simd>(&self, s: S) -> Bound<S::F32> {
        Bound { lower: self.lower(s), open: self.is_open() }
    }

    /// `g` of a vector, without the dropout scale. Without `RESIDUAL` there is no residual. With a curve,
    /// `dy` is `act'(z)*dy`.
    #[inline(always)]
    pub(super) fn g<S: Simd, const RESIDUAL: bool>(
        &self,
        s: S,
        forward: &Coefficients<S>,
        owner: Owner,
        [x, dy, residual]: [S::F32; 3],
        (bound, bits): (Bound<S::F32>, u16),
    ) -> S::F32 {
        // In a debug build, kernels for a curve look at `z`, too: its bound lets every gradient pass.
        if (OWN_LOOPS || !RESIDUAL) && bound.open {
            return s.keep(s.mask(bits), dy);
        }
        self.gradient(s, bound.lower, bits, self.z::<S, RESIDUAL>(s, forward, x, residual, owner), dy)
    }

    /// Writes `g` without the dropout scale into the first strip: of `vectors` from number `first` on, where
    /// some lanes need f64. Lanes without an element get 0.
    #[inline(always)]
    pub(super) fn fill_strip_with_g<S: Simd>(
        &self,
        s: S,
        normalise: &ExactNormalise<S>,
        keep: &Keep<'_>,
        (vectors, first): (Vectors, usize),
        (input, (grad, base)): (T::Ref<'_>, (T::Ref<'_>, usize)),
        ([strip, factors], [of_x, of_dy, of_residual]): (&mut [[f32; PIECE]; 2], [&mut T::Room; 3]),
    ) {
        let mut filled = 0;
        let strips = strip.as_chunks_mut().0.iter_mut().zip(factors.as_chunks_mut().0);
        for (place, (z, dy)) in vectors.from(first, BITS).zip(strips) {
            let x = load_values::<S, T>(s, T::shorter(input), place, of_x);
            s.store(normalise.z(s, x, self.residual_of(s, place, of_residual)), z);
            s.store(load_values::<S, T>(s, T::shorter(grad), place.after(base), of_dy), dy);
            filled += LANES;
        }
        if let Some(curve) = &self.formula.curve {
            let (strip, factors) = (strip.get_mut(..filled).unwrap_or_default(), factors.get(..filled));
            s.strip(curve.functions, curve.parameter, factors.unwrap_or_default(), strip);
        }
        let lower = self.lower(s);
        let strips = strip.as_chunks_mut().0.iter_mut().zip(factors.as_chunks().0);
        for (place, (strip, dy)) in vectors.from(first, BITS).zip(strips) {
            let (bits, z) = (keep.of_values(place) & first_lanes(place.len), s.load(strip));
            // A strip that has been through a curve is the gradient, which has no bound.
            let gradient = if self.formula.curve.is_some() { z } else { s.load(dy) };
            s.store(bounded(s, lower, bits, z, gradient), strip);
        }
    }

    /// `g` of one element, without the dropout scale.
    #[inline(always)]
    pub(crate) fn gradient_of(&self, bits: u16, z: f32, dy: f32) -> f32 {
        self.gradient(Lane::FIRST, self.formula.lower, bits, z, dy)
    }
}

/// The number of fields of the table of a backward call. First come pairs of f32 vectors: the
/// coefficients of the forward call; slope and tilt of the input gradient; its offset and another number.
/// Until the sums are made, this number is their unit; from then on it says whether the input gradient
/// needs f64. Then come two fields of f64: the sums of `g` and of `g*(x - mean)*unit`, and later the sums
/// of `g` and of `g*xhat` with the dropout scale.
pub(crate) const FIELDS: usize = apply::FIELDS + 4;
/// Slope and tilt.
pub(crate) const SLOPE: usize = apply::FIELDS;
/// Offset, and the unit or whether f64 is needed.
pub(crate) const OFFSET: usize = apply::FIELDS + 1;
/// The sums of `g`.
pub(crate) const G: usize = apply::FIELDS + 2;
/// The sums of `g*(x - mean)*unit` or of `g*xhat`.
pub(crate) const G_OTHER: usize = apply::FIELDS + 3;

/// The number of fields of a task's own table: two sums of the part in progress, and a pair of f32
/// vectors, the sums of its block in progress.
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
pub(crate) fn of_group<T: Storage>(
    tasks: Tasks,
    walk: &Walk,
    group: Group,
    apply: &Apply<'_, T>,
    tensors: (T::Ref<'_>, T::Ref<'_>),
    table: &mut [Tile<FIELDS>],
    parts: &mut [Tile<TASK_FIELDS>],
) {
    tasks.statistics(
        walk,
        group,
        table,
        parts,
        |(group, piece), table, part| {
            let (input, grad) = (T::shorter(tensors.0), T::shorter(tensors.1));
            let sums = PartSums { walk, group, piece, apply, input, grad, table, part };
            if apply.formula.curve.is_some() || (apply.residual.is_some() && !apply.is_open()) {
                tasks.run(Variant::<T, true>(sums));
            } else {
                tasks.run(Variant::<T, false>(sums));
            }
        },
        |(_, piece), table, part| tasks.run(MergePart { piece, part, table }),
    );
    let mut found = false;
    tasks.run(Unsound { group, table, found: &mut found });
    if found {
        exact_channels(tasks, walk, group, apply, tensors, table);
    }
}

/// The coefficients of the forward call of a row of columns.
#[derive(Clone)]
struct ForwardTiles<'a>(slice::Iter<'a, Tile<FIELDS>>);

impl<S: Simd> Sources<S> for ForwardTiles<'_> {
    type Vector = Coefficients<S>;

    #[inline(always)]
    fn take(&mut self, s: S) -> Option<Coefficients<S>> {
        let tile = self.0.next()?;
        Some(ColumnCoefficients::of_tile(s, forward_fields(tile)))
    }
}

/// The coefficients that turn vectors into their summands.
#[derive(Clone, Copy)]
struct Summands<'a, 'b, S: Simd, T: Storage> {
    apply: &'a Apply<'b, T>,
    owner: Owner,
    forward: Coefficients<S>,
    unit: S::F32,
    bound: Bound<S::F32>,
}

impl<S: Simd, T: Storage> Summands<'_, '_, S, T> {
    /// The summands of a vector.
    #[inline(always)]
    fn of<const RESIDUAL: bool>(&self, s: S, x: S::F32, dy: S::F32, residual: S::F32, bits: u16) -> Two<S::F32> {
        let g = self.apply.g::<S, RESIDUAL>(s, &self.forward, self.owner, [x, dy, residual], (self.bound, bits));
        Two { first: g, second: g * ((x - self.forward.mean) * self.unit) }
    }

    /// The summands of the first values of a vector. Lanes past them add nothing, whatever the formulas make
    /// of the zeros there.
    #[inline(always)]
    fn of_some<E: Load, const RESIDUAL: bool>(
        &self,
        s: S,
        [x, dy]: [&[E]; 2],
        residual: S::F32,
        bits: u16,
    ) -> Two<S::F32> {
        let lanes = first_lanes(x.len().min(LANES));
        let sums = self.of::<RESIDUAL>(s, E::load_any(s, x), E::load_any(s, dy), residual, bits & lanes);
        // Without its bit `g` is 0, but the deviation may be infinite.
        Two { first: sums.first, second: s.keep(s.mask(lanes), sums.second) }
    }

    /// The sum of a four, some lanes of which belong to other channels.
    #[inline(always)]
    fn four_of_some<E: Load, const RESIDUAL: bool>(
        &self,
        s: S,
        (x, dy): (&[E; SHORT], &[E; SHORT]),
        residuals: &Residuals<'_>,
        lanes: [u16; 4],
        bits: [u16; 4],
    ) -> Two<S::F32> {
        let ([x_a, x_b, x_c, x_d], [dy_a, dy_b, dy_c, dy_d]) = (in_four(x), in_four(dy));
        let a = self.of::<RESIDUAL>(s, E::load(s, x_a), E::load(s, dy_a), residuals.load(s, 0), bits[0]);
        let b = self.of::<RESIDUAL>(s, E::load(s, x_b), E::load(s, dy_b), residuals.load(s, 1), bits[1]);
        let c = self.of::<RESIDUAL>(s, E::load(s, x_c), E::load(s, dy_c), residuals.load(s, 2), bits[2] & lanes[2]);
        let d = self.of::<RESIDUAL>(s, E::load(s, x_d), E::load(s, dy_d), residuals.load(s, 3), bits[3] & lanes[3]);
        let c = Two { first: c.first, second: s.keep(s.mask(lanes[2]), c.second) };
        let d = Two { first: d.first, second: s.keep(s.mask(lanes[3]), d.second) };
        (a + b) + (c + d)
    }

    /// Adds a row of at most 256 values.
    #[inline(always)]
    fn add_row<E: Load, const RESIDUAL: bool>(
        &self,
        s: S,
        x: &[E],
        dy: &[E],
        residuals: &Residuals<'_>,
        bits: Bits<'_>,
        mut sum: Two<S::F32>,
    ) -> Two<S::F32> {
        let ((x, x_rest), (dy, dy_rest)) = (x.as_chunks::<{ 4 * LANES }>(), dy.as_chunks::<{ 4 * LANES }>());
        let (bits, rest_bits) = bits.fours(x.len());
        let mut vector = 0;
        for ((x, dy), bits) in x.iter().zip(dy).zip(bits) {
            sum = sum + self.four::<E, RESIDUAL>(s, x, dy, residuals, vector, bits);
            vector += 4;
        }
        if x_rest.is_empty() {
            return sum;
        }
        // Up to three whole vectors and a part of one, without a loop, which costs short runs too much.
        let (mut bits, mut last) = (rest_bits.vectors(), Two::both(s.splat(0.0)));
        let (mut x, mut dy) = (x_rest, dy_rest);
        if let (Some((x_two, x_rest)), Some((dy_two, dy_rest))) = (x.split_first_chunk(), dy.split_first_chunk()) {
            let ([x_a, x_b], [dy_a, dy_b]) = (in_two(x_two), in_two(dy_two));
            let (bits_a, bits_b) = (bits.next().unwrap_or_default(), bits.next().unwrap_or_default());
            let a = self.of::<RESIDUAL>(s, E::load(s, x_a), E::load(s, dy_a), residuals.load(s, vector), bits_a);
            let b = self.of::<RESIDUAL>(s, E::load(s, x_b), E::load(s, dy_b), residuals.load(s, vector + 1), bits_b);
            last = a + b;
            vector += 2;
            (x, dy) = (x_rest, dy_rest);
        }
        if !x.is_empty() {
            let (bits_a, bits_b) = (bits.next().unwrap_or_default(), bits.next().unwrap_or_default());
            let ([x_a, x_b], [dy_a, dy_b]) = (up_to_two(x), up_to_two(dy));
            let mut two = self.of_some::<E, RESIDUAL>(s, [x_a, dy_a], residuals.load_any(s, vector), bits_a);
            if !x_b.is_empty() {
                two = two + self.of_some::<E, RESIDUAL>(s, [x_b, dy_b], residuals.load_rest(s), bits_b);
            }
            last = last + two;
        }
        sum + last
    }

    /// The sum of a four.
    #[inline(always)]
    fn four<E: Load, const RESIDUAL: bool>(
        &self,
        s: S,
        x: &[E; 4 * LANES],
        dy: &[E; 4 * LANES],
        residuals: &Residuals<'_>,
        vector: usize,
        bits: [u16; 4],
    ) -> Two<S::F32> {
        let ([x_a, x_b, x_c, x_d], [dy_a, dy_b, dy_c, dy_d]) = (in_four(x), in_four(dy));
        let a = self.of::<RESIDUAL>(s, E::load(s, x_a), E::load(s, dy_a), residuals.load(s, vector), bits[0]);
        let b = self.of::<RESIDUAL>(s, E::load(s, x_b), E::load(s, dy_b), residuals.load(s, vector + 1), bits[1]);
        let c = self.of::<RESIDUAL>(s, E::load(s, x_c), E::load(s, dy_c), residuals.load(s, vector + 2), bits[2]);
        let d = self.of::<RESIDUAL>(s, E::load(s, x_d), E::load(s, dy_d), residuals.load(s, vector + 3), bits[3]);
        (a + b) + (c + d)
    }
}

/// The values from number `first` on that are loaded as a four; `None` if the tensor has fewer.
#[inline(always)]
fn four_from<E>(tensor: &[E], first: usize) -> Option<&[E; SHORT]> {
    tensor.get(first..)?.first_chunk()
}

/// Four vectors that follow each other.
#[inline(always)]
fn in_four<E: Load>(values: &[E; 4 * LANES]) -> [&Lanes<E>; 4] {
    match values.as_chunks().0 {
        [a, b, c, d] => [a, b, c, d],
        _ => [E::ZEROS; 4],
    }
}

/// The lanes of four vectors that belong to a run of three or four vectors; `None` for another length. All
/// four vectors of such a run are loaded, and values of the next channel add nothing.
#[inline(always)]
fn lanes_of_short(columns: usize) -> Option<[u16; 4]> {
    let is_short = columns > 2 * LANES && columns <= SHORT;
    is_short.then(|| [u16::MAX, u16::MAX, lanes_from(columns, 2), lanes_from(columns, 3)])
}

/// Two vectors that follow each other.
#[inline(always)]
fn in_two<E: Load>(values: &[E; 2 * LANES]) -> [&Lanes<E>; 2] {
    match values.as_chunks().0 {
        [a, b] => [a, b],
        _ => [E::ZEROS; 2],
    }
}

/// The values of the first vector and of the second one, where fewer than two vectors are left.
#[inline(always)]
fn up_to_two<E>(values: &[E]) -> [&[E]; 2] {
    match values.split_at_checked(LANES) {
        Some((first, second)) => [first, second],
        None => [values, &[]],
    }
}

/// Adds the rows of a block, whose values all belong to one channel, to a sum, without a residual or a
/// curve.
struct RowsOfBlock<'a, 'b, S: Simd, T: Storage> {
    summands: Summands<'a, 'b, S, T>,
    block: RowBlock,
    keep: Keep<'a>,
    buffer: &'a mut Buffer,
    sum: &'a mut Two<S::F32>,
}

impl<S: Simd, T: Storage> OfTwo<S> for RowsOfBlock<'_, '_, S, T> {
    #[inline(always)]
    fn run<E: Load>(self, s: S, x: &[E], dy: &[E]) {
        let Self { summands, block, keep, buffer, sum } = self;
        let (mut first, columns) = (block.first(), block.columns);
        let vectors = columns.div_ceil(LANES);
        let short = lanes_of_short(columns);
        // A copy, because a value whose address is given to a function is not in registers.
        let mut of_rows = *sum;
        for _ in 0..block.rows {
            let keep = keep.within(first, columns);
            if let (Some(lanes), Some(x), Some(dy)) = (short, four_from(x, first), four_from(dy, first)) {
                let (mut bits, _) = keep.bits(first, 4, buffer).fours(1);
                let bits = bits.next().unwrap_or_default();
                of_rows = of_rows + summands.four_of_some::<E, false>(s, (x, dy), &Residuals::of(&[]), lanes, bits);
            } else {
                let (x, dy, bits) =
                    (range(x, first, columns), range(dy, first, columns), keep.bits(first, vectors, buffer));
                of_rows = summands.add_row::<E, false>(s, x, dy, &Residuals::of(&[]), bits, of_rows);
            }
            first += block.width;
        }
        *sum = of_rows;
    }
}

/// The sums of some columns of a group in one part, into a table of the part's own.
struct PartSums<'a, 'b, T: Storage> {
    walk: &'a Walk,
    group: Group,
    piece: Piece,
    apply: &'a Apply<'b, T>,
    input: T::Ref<'a>,
    grad: T::Ref<'a>,
    table: &'a [Tile<FIELDS>],
    part: &'a mut [Tile<TASK_FIELDS>],
}

/// [`PartSums`] with or without a residual or a curve. Each has loops of its own for gradients that all pass
/// ([`Apply::is_open`]).
struct Variant<'a, 'b, T: Storage, const RESIDUAL: bool>(PartSums<'a, 'b, T>);

impl<T: Storage, const RESIDUAL: bool> Kernel for Variant<'_, '_, T, RESIDUAL> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let (Self(sums), Some(s)) = (self, m.all()) else { return };
        match *sums.walk {
            Walk::Empty => {}
            Walk::Planar(planar) => sums.planar::<_, RESIDUAL>(s, &planar),
            Walk::Columns(columns) => sums.columns::<_, RESIDUAL>(s, &columns),
        }
    }
}

/// Rooms for the tensors of a walk that sums.
struct Rooms<T: Storage> {
    x: T::Room,
    dy: T::Room,
    residual: T::Room,
}

impl<T: Storage> Rooms<T> {
    #[inline(always)]
    fn new() -> Self {
        Self { x: T::room(), dy: T::room(), residual: T::room() }
    }

    #[inline(always)]
    const fn each(&mut self) -> [&mut T::Room; 3] {
        [&mut self.x, &mut self.dy, &mut self.residual]
    }
}

/// The same columns of four rows.
type Four<'a, E> = [&'a [E]; 4];

/// The memory that a walk uses again and again: for bits, a strip, and the values of tensors.
type Buffers<'a, T, Strip> = (&'a mut Buffer, &'a mut Option<Strip>, &'a mut Rooms<T>);

impl<'b, T: Storage> PartSums<'_, 'b, T> {
    /// Runs of neighbours: stretch after stretch, each in all channels of the piece, which is the
    /// order of memory.
    #[inline(always)]
    fn planar<S: Simd, const RESIDUAL: bool>(mut self, s: S, planar: &Planar) {
        let part = core::mem::take(&mut self.part).first_mut();
        let (Some(tile), Some(part)) = (self.table.first(), part) else { return };
        // Lanes that are no columns of the piece have sums of 0.
        *part = [[0.0; LANES]; TASK_FIELDS];
        let [part_g, part_g_deviation, _] = part;
        let (first, columns) = (self.piece.first, self.piece.columns);
        let of_tile = of_columns(self.group, |column| {
            let [_, unit] = pair_lane(&tile[OFFSET], column);
            (ColumnCoefficients::new(forward_fields(tile), column), unit)
        });
        let mut sums: PlanarSums = [[[0.0; LANES]; 2]; LANES];
        let (mut buffer, mut strip, mut rooms) = ([0; _], None, Rooms::new());
        for stretch in planar.stretches_of::<LANES>(self.piece.part) {
            for (column, sums) in (first..first + columns).zip(&mut sums) {
                let mut lanes = LaneSums::load(s, sums);
                for block in planar.in_channel(stretch, self.group.first_channel + column).blocks() {
                    block.prefetch_next::<_, T>(s, self.input);
                    block.prefetch_next::<_, T>(s, self.grad);
                    if let (true, Some(residual)) = (RESIDUAL, self.apply.residual) {
                        block.prefetch_next::<_, T>(s, residual);
                    }
                    let buffers = (&mut buffer, &mut strip, &mut rooms);
                    let of_column = &of_tile[column % LANES];
                    lanes.add(s, self.block_sums::<_, RESIDUAL>(s, block, column, of_column, buffers));
                }
                lanes.store(s, sums);
            }
        }
        fold_channels(&sums, range_mut(part_g, first, columns), range_mut(part_g_deviation, first, columns));
    }

    /// The sums of a block whose values all belong to one channel, lane by lane.
    #[inline(always)]
    fn block_sums<S: Simd, const RESIDUAL: bool>(
        &self,
        s: S,
        block: RowBlock,
        column: usize,
        &(forward, unit): &(ColumnCoefficients, f32),
        (buffer, strip, rooms): Buffers<'_, T, [f32; BLOCK_VALUES]>,
    ) -> Two<S::F32> {
        let apply = self.apply;
        let owner = Owner::Channel(self.group.first_channel + column);
        let summands =
            Summands { apply, owner, forward: forward.everywhere(s), unit: s.splat(unit), bound: apply.bound(s) };
        let mut sum = Two::both(s.splat(0.0));
        if !RESIDUAL {
            let (tensors, keep) = ([T::shorter(self.input), T::shorter(self.grad)], apply.keep);
            let done = if OWN_LOOPS && summands.bound.open {
                let summands = Summands { bound: summands.bound.with_open(true), ..summands };
                T::of_two(s, tensors, RowsOfBlock { summands, block, keep, buffer: &mut *buffer, sum: &mut sum })
            } else {
                let summands = Summands { bound: summands.bound.with_open(false), ..summands };
                T::of_two(s, tensors, RowsOfBlock { summands, block, keep, buffer: &mut *buffer, sum: &mut sum })
            };
            if done {
                return sum;
            }
        }
        let (mut first, vectors) = (block.first(), block.columns.div_ceil(LANES));
        // A debug build's stack has no room for the vectors of this sum.
        let short = if OWN_LOOPS && !summands.bound.open { lanes_of_short(block.columns) } else { None };
        for _ in 0..block.rows {
            let short = if first + SHORT <= T::len(self.input) { short } else { None };
            let place = (first, if short.is_some() { SHORT } else { block.columns });
            let x = T::read(s, T::shorter(self.input), place, Ahead::NOT, &mut rooms.x);
            let dy = T::read(s, T::shorter(self.grad), place, Ahead::NOT, &mut rooms.dy);
            let residuals = apply.residuals::<S, RESIDUAL>(s, place, Ahead::NOT, &mut rooms.residual);
            let keep = apply.keep.within(first, block.columns);
            let bits = keep.bits(first, if short.is_some() { 4 } else { vectors }, buffer);
            let dy = match apply.curve_if::<RESIDUAL>() {
                None => dy,
                Some(curve) => {
                    let strip = strip.get_or_insert_with(|| [0.0; BLOCK_VALUES]).get_mut(..x.len()).unwrap_or_default();
                    apply.curve(s, curve, (&mut Everywhere(summands.forward), owner), (&residuals, x, dy), strip);
                    strip
                }
            };
            sum = if OWN_LOOPS && summands.bound.open {
                let summands = Summands { bound: summands.bound.with_open(true), ..summands };
                summands.add_row::<_, false>(s, x, dy, &residuals, bits, sum)
            } else {
                let summands = Summands { bound: summands.bound.with_open(false), ..summands };
                if OWN_LOOPS && let (Some(lanes), Some(x), Some(dy)) = (short, x.first_chunk(), dy.first_chunk()) {
                    let bits = bits.fours(1).0.next().unwrap_or_default();
                    sum + summands.four_of_some::<_, RESIDUAL>(s, (x, dy), &residuals, lanes, bits)
                } else {
                    summands.add_row::<_, RESIDUAL>(s, x, dy, &residuals, bits, sum)
                }
            };
            first += block.width;
        }
        sum
    }

    /// Columns of a matrix: four rows at a time, along the rows.
    #[inline(always)]
    fn columns<S: Simd, const RESIDUAL: bool>(mut self, s: S, columns: &Columns) {
        let (group, piece) = (self.group, self.piece);
        let tiles = piece.first / LANES;
        let table = self.table.get(tiles..).unwrap_or_default();
        let part = core::mem::take(&mut self.part).get_mut(tiles..).unwrap_or_default();
        let part = part.get_mut(..piece.columns.div_ceil(LANES)).unwrap_or_default();
        part.fill([[0.0; LANES]; TASK_FIELDS]);
        for block in columns.blocks_of(group, piece).chain(columns.shorter_row(group, piece)) {
            self.four_by_four::<_, RESIDUAL>(s, block, table, part);
            // Where the shorter row has no columns, the sums of the block are 0.
            for part in part.iter_mut() {
                end_block(s, part);
            }
        }
    }

    /// The sums of the rows of a block, four at a time.
    #[inline(always)]
    fn four_by_four<S: Simd, const RESIDUAL: bool>(
        &self,
        s: S,
        block: RowBlock,
        table: &[Tile<FIELDS>],
        part: &mut [Tile<TASK_FIELDS>],
    ) {
        let (mut bits, mut buffer, mut strips, mut rooms) = ([[0; _]; 4], [0; _], None, Rooms::new());
        for row in (0..block.rows).step_by(4) {
            let four = RowBlock { start: block.start + row * block.width, rows: (block.rows - row).min(4), ..block };
            let step = T::COLUMNS;
            for first in (0..block.columns).step_by(step) {
                let columns = step.min(block.columns - first);
                let tile = first / LANES;
                let rows = RowBlock { column: four.column + first, columns, ..four };
                let (table, part) = (table.get(tile..), part.get_mut(tile..));
                let tiles = (table.unwrap_or_default(), part.unwrap_or_default());
                let buffers = (&mut bits, &mut buffer, &mut strips, &mut rooms);
                self.four_rows::<S, RESIDUAL>(s, rows, self.piece.first + first, tiles, buffers);
            }
        }
    }

    /// Adds the sums of up to four rows, from column `column` of the table on, to the sums of their block.
    #[inline(always)]
    fn four_rows<S: Simd, const RESIDUAL: bool>(
        &self,
        s: S,
        rows: RowBlock,
        column: usize,
        (table, part): (&[Tile<FIELDS>], &mut [Tile<TASK_FIELDS>]),
        (bits, buffer, strips, rooms): (&mut FourBits, &mut Buffer, &mut Option<[[f32; PIECE]; 4]>, &mut Rooms<T>),
    ) {
        let far = in_sequence(rows.width, T::len(self.grad));
        if !RESIDUAL {
            let (buffers, tiles) = ((&mut *bits, &mut *buffer), (table, &mut *part));
            let tensors = [T::shorter(self.input), T::shorter(self.grad)];
            let bound = self.apply.bound(s);
            let done = if OWN_LOOPS && bound.open {
                let bound = bound.with_open(true);
                T::of_two(s, tensors, RowsOfTensors { sums: self, rows, column, bound, tiles, far, buffers })
            } else {
                let bound = bound.with_open(false);
                T::of_two(s, tensors, RowsOfTensors { sums: self, rows, column, bound, tiles, far, buffers })
            };
            if done {
                return;
            }
        }
        // If these rows are widened, the next four rows are asked for.
        let ahead = if far { Ahead::second(4 * rows.width) } else { Ahead::NOT };
        let (place, of_rows) = ((rows.first(), rows.columns), (rows.rows, rows.width));
        let residuals = match if RESIDUAL { self.apply.residual } else { None } {
            Some(tensor) => T::read_rows(s, T::shorter(tensor), place, of_rows, ahead, &mut rooms.residual),
            None => [&[][..]; 4],
        };
        let x: Four<'_, f32> = T::read_rows(s, T::shorter(self.input), place, of_rows, ahead, &mut rooms.x);
        let dy = T::read_rows(s, T::shorter(self.grad), place, of_rows, ahead, &mut rooms.dy);
        let dy = self.four_gradients::<S, RESIDUAL>(s, rows, column, table, ([x, dy, residuals], strips));
        let (far, tensors) = (far && T::DIRECT, ([x, dy], residuals));
        let bound = self.apply.bound(s);
        if OWN_LOOPS && bound.open {
            let bound = bound.with_open(true);
            self.add_rows::<S, f32, false>(s, rows, (column, bound), (table, part), (tensors, far), (bits, buffer));
        } else {
            let bound = bound.with_open(false);
            self.add_rows::<S, f32, RESIDUAL>(s, rows, (column, bound), (table, part), (tensors, far), (bits, buffer));
        }
    }

    /// Adds the sums of up to four rows, whose values are given, to the sums of their block. `far` says that
    /// the next rows are asked for: the values are those of the tensors themselves, which come from memory.
    #[inline(always)]
    fn add_rows<S: Simd, E: Load, const RESIDUAL: bool>(
        &self,
        s: S,
        rows: RowBlock,
        (column, bound): (usize, Bound<S::F32>),
        (table, part): (&[Tile<FIELDS>], &mut [Tile<TASK_FIELDS>]),
        (([x, dy], residual), far): (([Four<'_, E>; 2], Four<'_, f32>), bool),
        (bits, buffer): (&mut FourBits, &mut Buffer),
    ) {
        // Rows that are missing are the first row again, with every element dropped.
        let bits = four_bits(&self.apply.keep, rows, bits, buffer);
        let first = column / LANES * LANES;
        let (residual, residual_rest) = whole_vectors::<_, 4>(residual);
        let ((x, x_rest), (dy, dy_rest)) = (whole_vectors::<_, 4>(x), whole_vectors::<_, 4>(dy));
        let mut tiles = table.iter().zip(part).zip(bits).enumerate();
        // `zip` asks its left side first, so that the end of the rows ends the loop before a tile is taken.
        for ((x, dy), (number, ((tile, part), bits))) in four_rows(x).zip(four_rows(dy)).zip(tiles.by_ref()) {
            let owner = Owner::Column(self.group, column + number * LANES);
            let residual = residual.map(|row| row.get(number).unwrap_or(&[0.0; LANES]));
            if far {
                // Four vectors of the next four rows, which follow each other in memory.
                let ahead = 4 * rows.width + 3 * (first + number * LANES);
                for vector in 0..4 {
                    s.prefetch_second(x[0], ahead + vector * LANES);
                    s.prefetch_second(dy[0], ahead + vector * LANES);
                    if RESIDUAL {
                        s.prefetch_second(residual[0], ahead + vector * LANES);
                    }
                }
            }
            let x = load_four(s, x);
            let dy = load_four(s, dy);
            let residual = load_four(s, residual);
            self.add_four::<S, RESIDUAL>(s, (bound, owner), (tile, part), [&x, &dy, &residual], bits);
        }
        if let (false, Some((number, ((tile, part), bits)))) = (x_rest[0].is_empty(), tiles.next()) {
            let this = self.summands(s, bound, tile, Owner::Column(self.group, column + number * LANES));
            let mut four = [Two::both(s.splat(0.0)); 4];
            for ((((sums, x), dy), residual), bits) in
                four.iter_mut().zip(x_rest).zip(dy_rest).zip(residual_rest).zip(bits)
            {
                let (x, dy, residual) = (E::load_partial(s, x), E::load_partial(s, dy), s.load_partial(residual));
                *sums = this.of::<RESIDUAL>(s, x, dy, residual, bits);
            }
            let [a, b, c, d] = four;
            add_to_block(s, part, (a + b) + (c + d));
        }
    }

    /// `dy` of four rows, from column `column` of the table on, after the curve if there is one.
    #[inline(always)]
    fn four_gradients<'c, S: Simd, const RESIDUAL: bool>(
        &'c self,
        s: S,
        rows: RowBlock,
        column: usize,
        table: &[Tile<FIELDS>],
        ([x, dy, residuals], strips): ([Four<'c, f32>; 3], &'c mut Option<[[f32; PIECE]; 4]>),
    ) -> [&'c [f32]; 4] {
        let Some(curve) = self.apply.curve_if::<RESIDUAL>() else { return dy };
        let strips = strips.get_or_insert_with(|| [[0.0; PIECE]; 4]);
        let owner = Owner::Column(self.group, column);
        let tensors = x.into_iter().zip(dy).zip(residuals).take(rows.rows);
        for (strip, ((x, dy), residuals)) in strips.iter_mut().zip(tensors) {
            let strip = strip.get_mut(..x.len()).unwrap_or_default();
            self.apply.curve(
                s,
                curve,
                (&mut ForwardTiles(table.iter()), owner),
                (&Residuals::of(residuals), x, dy),
                strip,
            );
        }
        strips.each_ref().map(|strip| strip.get(..rows.columns).unwrap_or_default())
    }

    /// The coefficients that turn the vectors of a tile into their summands.
    #[inline(always)]
    fn summands<S: Simd>(
        &self,
        s: S,
        bound: Bound<S::F32>,
        tile: &Tile<FIELDS>,
        owner: Owner,
    ) -> Summands<'_, 'b, S, T> {
        let (_, unit) = s.load_pair(&tile[OFFSET]);
        Summands {
            apply: self.apply,
            owner,
            forward: ColumnCoefficients::of_tile(s, forward_fields(tile)),
            unit,
            bound,
        }
    }

    /// Adds the sums of four vectors whose lanes are columns to the sums of their block.
    #[inline(always)]
    fn add_four<S: Simd, const RESIDUAL: bool>(
        &self,
        s: S,
        (bound, owner): (Bound<S::F32>, Owner),
        (tile, part): (&Tile<FIELDS>, &mut Tile<TASK_FIELDS>),
        [x, dy, residual]: [&[S::F32; 4]; 3],
        bits: [u16; 4],
    ) {
        let this = self.summands(s, bound, tile, owner);
        // Written out, because a loop would have the vectors in memory, to count them off.
        let first = this.of::<RESIDUAL>(s, x[0], dy[0], residual[0], bits[0])
            + this.of::<RESIDUAL>(s, x[1], dy[1], residual[1], bits[1]);
        let second = this.of::<RESIDUAL>(s, x[2], dy[2], residual[2], bits[2])
            + this.of::<RESIDUAL>(s, x[3], dy[3], residual[3], bits[3]);
        add_to_block(s, part, first + second);
    }
}

/// Adds the sums of up to four rows of two tensors of one type: without a residual or a curve.
struct RowsOfTensors<'a, 'b, 'c, S: Simd, T: Storage> {
    sums: &'c PartSums<'a, 'b, T>,
    rows: RowBlock,
    column: usize,
    bound: Bound<S::F32>,
    tiles: (&'c [Tile<FIELDS>], &'c mut [Tile<TASK_FIELDS>]),
    far: bool,
    buffers: (&'c mut FourBits, &'c mut Buffer),
}

impl<S: Simd, T: Storage> OfTwo<S> for RowsOfTensors<'_, '_, '_, S, T> {
    #[inline(always)]
    fn run<E: Load>(self, s: S, x: &[E], dy: &[E]) {
        let Self { sums, rows, column, bound, tiles, far, buffers } = self;
        let (place, of_rows) = ((rows.first(), rows.columns), (rows.rows, rows.width));
        let tensors = ([rows_of(x, place, of_rows), rows_of(dy, place, of_rows)], [&[][..]; 4]);
        sums.add_rows::<S, E, false>(s, rows, (column, bound), tiles, (tensors, far), buffers);
    }
}

/// Adds `sums` to the sums of the block in progress.
#[inline(always)]
fn add_to_block<S: Simd>(s: S, part: &mut Tile<TASK_FIELDS>, sums: Two<S::F32>) {
    let (first, second) = s.load_pair(&part[BLOCK]);
    let Two { first, second } = Two { first, second } + sums;
    s.store_pair(first, second, &mut part[BLOCK]);
}

/// Adds the sums of a block to the sums of its part.
#[inline(always)]
fn end_block<S: Simd>(s: S, part: &mut Tile<TASK_FIELDS>) {
    let (first, second) = s.load_pair(&part[BLOCK]);
    let [part_g, part_g_deviation, block] = part;
    s.store_pair(s.splat(0.0), s.splat(0.0), block);
    s.store_f64(s.load_f64(part_g) + s.widen(first), part_g);
    s.store_f64(s.load_f64(part_g_deviation) + s.widen(second), part_g_deviation);
}

/// Adds the sums of a part to the sums of all parts before it.
struct MergePart<'a> {
    piece: Piece,
    part: &'a [Tile<TASK_FIELDS>],
    table: &'a mut [Tile<FIELDS>],
}

impl Kernel for MergePart<'_> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let (Self { piece, part, table }, Some(s)) = (self, m.all()) else { return };
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

/// Finds out whether a channel of a group needs its sums in f64.
struct Unsound<'a> {
    group: Group,
    table: &'a [Tile<FIELDS>],
    found: &'a mut bool,
}

impl Kernel for Unsound<'_> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let (Self { group, table, found }, Some(s)) = (self, m.all()) else { return };
        for tile in table.iter().take(group.tiles()) {
            let sound = are_finite(s, [s.load_f64(&tile[G]), s.load_f64(&tile[G_OTHER])]);
            let (_, exact) = s.load_pair(&tile[apply::EXACT]);
            *found |= sound != s.lanes() || any(s, exact);
        }
    }
}

/// Computes in f64 the sums of channels whose numbers leave the range of f32, into the table of
/// their group. Planar: each lane in the order of memory, then the fold. Columns: each column in the
/// order of memory.
#[cold]
#[inline(never)]
fn exact_channels<T: Storage>(
    tasks: Tasks,
    walk: &Walk,
    group: Group,
    apply: &Apply<'_, T>,
    (input, grad): (T::Ref<'_>, T::Ref<'_>),
    table: &mut [Tile<FIELDS>],
) {
    tasks.run(MarkUnsound { group, table });
    let (input, grad) = (T::shorter(input), T::shorter(grad));
    tasks.run(ExactSums { walk, group, apply, input, grad, table });
}

/// Marks the channels that need their sums in f64 by a NaN in all of their columns, before the first sum
/// is replaced.
struct MarkUnsound<'a> {
    group: Group,
    table: &'a mut [Tile<FIELDS>],
}

impl Kernel for MarkUnsound<'_> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let (Self { group, table }, Some(s)) = (self, m.all()) else { return };
        for channels in group.sixteens() {
            let (sums, [_, exact]) =
                (of_channels(s, group, channels, table), group.pair_of(s, channels, table, apply::EXACT));
            let unsound = (!are_finite(s, sums) | s.bits(s.le(s.splat(1.0), exact))) & first_lanes(channels.len);
            for lane in (0..LANES).filter(|lane| unsound >> lane & 1 == 1) {
                group.put_f64(Lane::FIRST, Channels::one(channels.first + lane), table, G, f64::NAN);
            }
        }
    }
}

/// The lanes whose sums are finite: a number times 0 is 0 if the number is finite, and NaN otherwise.
#[inline(always)]
fn are_finite<S: Simd>(s: S, [g, other]: [S::F64; 2]) -> u16 {
    let zero = s.splat_f64(0.0);
    s.less(g * zero + other * zero, s.splat_f64(1.0))
}

/// The sums of the columns of a group whose sum of `g` is NaN, in f64.
struct ExactSums<'a, 'b, T: Storage> {
    walk: &'a Walk,
    group: Group,
    apply: &'a Apply<'b, T>,
    input: T::Ref<'a>,
    grad: T::Ref<'a>,
    table: &'a mut [Tile<FIELDS>],
}

impl<T: Storage> Kernel for ExactSums<'_, '_, T> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let Some(s) = m.all() else { return };
        match *self.walk {
            Walk::Empty => {}
            Walk::Planar(planar) => self.exact_runs(s, &planar),
            Walk::Columns(columns) => self.exact_tiles(s, &columns),
        }
    }
}

impl<T: Storage> ExactSums<'_, '_, T> {
    #[inline(always)]
    fn exact_runs<S: Simd>(mut self, s: S, planar: &Planar) {
        let (group, table) = (self.group, core::mem::take(&mut self.table));
        // A group that tasks share has several tiles.
        for column in 0..group.columns {
            let Some(tile) = table.get_mut(column / LANES) else { return };
            if !lane_of(&tile[G], column).is_nan() {
                continue;
            }
            let channel = group.channel_of(column);
            let [slope, shift, unit] = self.wide(channel);
            let coefficients = ColumnCoefficients::new(forward_fields(tile), column);
            let source = ExactSource::Run(coefficients, [slope, shift]);
            let (mut sums, mut strips) = ([[0.0; LANES]; 2], [[0.0; PIECE]; 2]);
            for run in 0..planar.outer {
                let start = (run * planar.channels + channel) * planar.inner;
                let keep = self.apply.keep.within(start, planar.inner);
                let vectors = Vectors::of_run(start, planar.inner);
                let unit = [unit; LANES];
                let strips = &mut strips;
                s.apart(AddExactly { sums: &mut sums, of: &self, source, unit: &unit, keep, vectors, strips });
            }
            let [g, g_deviation] = fold_both(&mut sums);
            (tile[G][column % LANES], tile[G_OTHER][column % LANES]) = (g, g_deviation);
        }
    }

    #[inline(always)]
    fn exact_tiles<S: Simd>(mut self, s: S, columns: &Columns) {
        let group = self.group;
        let units = self.walk.units(group);
        for (number, tile) in core::mem::take(&mut self.table).iter_mut().enumerate() {
            // NaN is not less than any number.
            let wanted = !s.less(s.load_f64(&tile[G]) * s.splat_f64(0.0), s.splat_f64(1.0));
            if wanted == 0 {
                continue;
            }
            if wanted.count_ones() <= FEW_COLUMNS {
                for lane in (0..LANES).filter(|lane| wanted >> lane & 1 == 1) {
                    self.exact_column(s, columns, tile, number * LANES + lane, units);
                }
                continue;
            }
            let (owner, mut unit) = (Owner::Column(group, number * LANES), [1.0; LANES]);
            for (lane, unit) in unit.iter_mut().enumerate() {
                if let (1, Some(channel)) = (wanted >> lane & 1, owner.channel_of(lane)) {
                    [_, _, *unit] = self.wide(channel);
                }
            }
            let (source, keep) = (ExactSource::Tile(forward_fields(tile), owner), self.apply.keep);
            let vectors = columns.vectors_of(group, 0..units, number * LANES);
            let (mut sums, strips) = ([[0.0; LANES]; 2], &mut [[0.0; PIECE]; 2]);
            s.apart(AddExactly { sums: &mut sums, of: &self, source, unit: &unit, keep, vectors, strips });
            let [g, g_deviation] = sums;
            for lane in 0..LANES {
                if wanted >> lane & 1 == 1 {
                    (tile[G][lane], tile[G_OTHER][lane]) = (g[lane], g_deviation[lane]);
                }
            }
        }
    }

    /// The sums of one column, in the order of its rows.
    #[inline(always)]
    fn exact_column<S: Simd>(&self, s: S, columns: &Columns, tile: &mut Tile<FIELDS>, column: usize, rows: usize) {
        let [slope, shift, unit] = self.wide(self.group.channel_of(column));
        let source = ExactSource::Run(ColumnCoefficients::new(forward_fields(tile), column), [slope, shift]);
        let vectors = columns.vectors_of_column(self.group, 0..rows, column);
        let (mut sums, strips) = ([[0.0; LANES]; 2], &mut [[0.0; PIECE]; 2]);
        let (unit, keep) = ([unit; LANES], self.apply.keep);
        s.apart(AddExactly { sums: &mut sums, of: self, source, unit: &unit, keep, vectors, strips });
        (tile[G][column % LANES], tile[G_OTHER][column % LANES]) = (sums[0][0], sums[1][0]);
    }

    /// Slope and shift of a channel in f64, and the unit of its deviations.
    #[cold]
    #[inline(never)]
    fn wide(&self, channel: usize) -> [f64; 3] {
        let normalisation = self.apply.normalisation;
        let [slope, shift] = normalisation.of_channel(channel).wide();
        [slope, shift, normalisation.centre_of_channel(channel).unit(Lane::FIRST)]
    }
}

/// Adds the summands of some vectors to sums in f64, lane by lane.
struct AddExactly<'a, 'b, 'c, T: Storage> {
    sums: &'c mut [Lanes<f64>; 2],
    of: &'c ExactSums<'a, 'b, T>,
    source: ExactSource<'c>,
    unit: &'c Lanes<f64>,
    keep: Keep<'c>,
    vectors: Vectors,
    strips: &'c mut [[f32; PIECE]; 2],
}

impl<S: Simd, T: Storage> Work<S> for AddExactly<'_, '_, '_, T> {
    #[inline(always)]
    fn run(self, s: S) {
        self.add_exactly(s);
    }
}

impl<T: Storage> AddExactly<'_, '_, '_, T> {
    #[inline(always)]
    fn add_exactly<S: Simd>(self, s: S) {
        let Self { sums: [g_sums, other_sums], of, source, unit, keep, vectors, strips } = self;
        let &ExactSums { apply, input, grad, .. } = of;
        let normalise = source.normalise(s, apply);
        let (mean, unit) = (s.widen(normalise.rounded[0]), s.load_f64(unit));
        let (mut g_sum, mut other_sum) = (s.load_f64(g_sums), s.load_f64(other_sums));
        // The sums of vectors whose lanes are rows of one column: the rows are added in their order.
        let mut of_column = [0.0; 2];
        let mut rooms = Rooms::<T>::new();
        for first in (0..vectors.count()).step_by(BITS) {
            let (all, tensors) = ((vectors, first), (T::shorter(input), (T::shorter(grad), 0)));
            apply.fill_strip_with_g(s, &normalise, &keep, all, tensors, (&mut *strips, rooms.each()));
            for (place, g) in vectors.from(first, BITS).zip(strips[0].as_chunks().0) {
                let x = load_values::<S, T>(s, T::shorter(input), place, &mut rooms.x);
                let (x, g) = (s.widen(x), s.widen(s.load(g)));
                let other = g * ((x - mean) * unit);
                if place.stride == 1 {
                    (g_sum, other_sum) = (g_sum + g, other_sum + other);
                    continue;
                }
                let mut summands = [[0.0; LANES]; 2];
                s.store_f64(g, &mut summands[0]);
                s.store_f64(other, &mut summands[1]);
                add_in_order(&mut of_column, &summands, place.len);
            }
        }
        s.store_f64(g_sum, g_sums);
        s.store_f64(other_sum, other_sums);
        (g_sums[0], other_sums[0]) = (g_sums[0] + of_column[0], other_sums[0] + of_column[1]);
    }
}

/// Adds the first `count` summands of each of two sums, one after the other.
#[cold]
#[inline(never)]
fn add_in_order(sums: &mut [f64; 2], [first, second]: &[Lanes<f64>; 2], count: usize) {
    for (first, second) in first.iter().zip(second).take(count) {
        *sums = [sums[0] + first, sums[1] + second];
    }
}

/// The sums of sixteen channels from the table of their group.
#[inline(always)]
pub(crate) fn of_channels<S: Simd>(s: S, group: Group, channels: Channels, table: &[Tile<FIELDS>]) -> [S::F64; 2] {
    if group.has_whole_tiles() {
        let mut sums = [s.splat_f64(0.0); 2];
        for tile in group.whole_tiles_of(channels) {
            let Some(tile) = table.get(tile) else { break };
            sums = [sums[0] + s.load_f64(&tile[G]), sums[1] + s.load_f64(&tile[G_OTHER])];
        }
        return sums;
    }
    s.lane_by_lane(channels.len, |lane| of_channel(group, channels.first + lane, table))
}

/// The sums of one channel: the sums of its columns, added in order.
#[inline(always)]
fn of_channel(group: Group, channel: usize, table: &[Tile<FIELDS>]) -> [f64; 2] {
    let mut sums = [0.0; 2];
    for column in group.columns_of(channel) {
        let Some(tile) = table.get(column / LANES) else { break };
        sums[0] += lane_of(&tile[G], column);
        sums[1] += lane_of(&tile[G_OTHER], column);
    }
    sums
}

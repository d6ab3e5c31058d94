//! The input gradient: the elementwise half of every backward call.
//!
//! `dx = g*slope + ((x - mean)*tilt + offset)` through batch statistics and `dx = g*slope` with fixed
//! statistics, with `g` computed again from `x` and `dy`; the gradient of a residual is `g*scale`. One
//! pass: 8 bytes read and 4 written per element, 4 more of each with a residual, and one mask bit.

use core::ops::Range;
use core::slice;

use super::apply::{
    self, Apply, Coefficients, ColumnCoefficients, ExactSource as ForwardSource, ForwardCoefficients, Residuals,
};
use super::elementwise::{self, Column, Elementwise, Owner, Sources, Strips, Tiles};
use super::exact::{ExactDifferentiate, ExactNormalise};
use super::keep::Keep;
use super::reduce::{Bound, FIELDS, G, G_OTHER, OFFSET, SLOPE, forward_fields};
use super::{Elements, Place, Rooms, fill_four_bits, load_values, of_columns, pair_lane, put, put_values};
use crate::bits::{BITS, Buffer, FourBits};
use crate::channel::{Differential, Differentiation, differentiated, lane_of};
use crate::simd::{Kernel, LANES, Lanes, Machine, Simd, Work};
use crate::slices::range;
use crate::storage::{Ahead, AlignedPiece, By, EachFour, EachVector, PIECE, Singles, Storage};
use crate::tasks::{Tasks, Written};
use crate::walk::{Group, RowBlock, Tile, Vectors, Walk};

/// The formula of the gradients of elements, and the tensors that it reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gradient<'a, T: Storage> {
    pub(crate) apply: Apply<'a, T>,
    pub(crate) differentiation: Differentiation<'a>,
    /// `x`.
    pub(crate) input: T::Ref<'a>,
    /// `dy`; `None` if `dx` overwrites it.
    pub(crate) grad_output: Option<T::Ref<'a>>,
}

impl<T: Storage> Gradient<'_, T> {
    /// The coefficients of a channel in f64, from a column of a tile of its group: slope and shift of `z`; slope, tilt and offset
    /// of `dx`.
    #[cold]
    #[inline(never)]
    fn wide(&self, tile: &Tile<FIELDS>, column: usize, channel: usize) -> [f64; 5] {
        let sums = [lane_of(&tile[G], column), lane_of(&tile[G_OTHER], column)];
        let centre = self.apply.normalisation.centre_of_channel(channel);
        let [slope, shift] = self.apply.normalisation.of_channel(channel).wide();
        let [own_slope, tilt, offset] = self.differentiation.of_channel(channel, &centre, sums).wide();
        [slope, shift, own_slope, tilt, offset]
    }
}

/// The coefficients of one vector of gradients.
#[derive(Clone, Copy)]
struct GradientCoefficients<S: Simd> {
    slope: S::F32,
    tilt: S::F32,
    offset: S::F32,
}

/// The coefficients of one vector: of the forward call, and of the gradient.
#[derive(Clone, Copy)]
struct VectorCoefficients<S: Simd> {
    forward: Coefficients<S>,
    own: GradientCoefficients<S>,
}

impl<S: Simd> ForwardCoefficients<S> for VectorCoefficients<S> {
    #[inline(always)]
    fn forward(&self) -> &Coefficients<S> {
        &self.forward
    }
}

impl<S: Simd> GradientCoefficients<S> {
    #[inline(always)]
    fn of_tile(s: S, tile: &Tile<FIELDS>) -> Self {
        let ((slope, tilt), (offset, _)) = (s.load_pair(&tile[SLOPE]), s.load_pair(&tile[OFFSET]));
        Self { slope, tilt, offset }
    }

    /// `dx` in f32.
    #[inline(always)]
    fn differentiate(&self, batch: bool, deviation: S::F32, g: S::F32) -> S::F32 {
        differentiated([self.slope, self.tilt, self.offset], batch, deviation, g)
    }
}

/// The coefficients of one column.
#[derive(Debug, Clone, Copy)]
struct ColumnGradient {
    forward: ColumnCoefficients,
    slope: f32,
    tilt: f32,
    offset: f32,
    /// Whether `dx` needs f64.
    exact: bool,
}

impl ColumnGradient {
    /// The coefficients of each column of a group with sixteen columns at most. They are written to
    /// memory, so that one function serves all kernels.
    #[inline(never)]
    fn each(group: Group, tile: &Tile<FIELDS>) -> Lanes<Self> {
        of_columns(group, |column| Self::new(tile, column))
    }

    #[inline(always)]
    fn new(tile: &Tile<FIELDS>, column: usize) -> Self {
        let forward = ColumnCoefficients::new(forward_fields(tile), column);
        let ([slope, tilt], [offset, exact]) = (pair_lane(&tile[SLOPE], column), pair_lane(&tile[OFFSET], column));
        Self { forward, slope, tilt, offset, exact: exact != 0.0 }
    }

    #[inline(always)]
    fn own<S: Simd>(self, s: S) -> GradientCoefficients<S> {
        GradientCoefficients { slope: s.splat(self.slope), tilt: s.splat(self.tilt), offset: s.splat(self.offset) }
    }
}

impl<S: Simd> Column<S, FIELDS> for ColumnGradient {
    type Vector = VectorCoefficients<S>;

    #[inline(always)]
    fn of_column(tile: &Tile<FIELDS>, column: usize) -> Self {
        Self::new(tile, column)
    }

    #[inline(always)]
    fn of_columns(group: Group, tile: &Tile<FIELDS>) -> Lanes<Self> {
        Self::each(group, tile)
    }

    #[inline(always)]
    fn of_tile(s: S, tile: &Tile<FIELDS>) -> VectorCoefficients<S> {
        let forward = ColumnCoefficients::of_tile(s, forward_fields(tile));
        VectorCoefficients { forward, own: GradientCoefficients::of_tile(s, tile) }
    }

    #[inline(always)]
    fn everywhere(self, s: S) -> VectorCoefficients<S> {
        VectorCoefficients { forward: self.forward.everywhere(s), own: self.own(s) }
    }

    #[inline(always)]
    fn select(s: S, lanes: S::Mask, these: Self::Vector, others: Self::Vector) -> Self::Vector {
        let own = GradientCoefficients {
            slope: s.select(lanes, these.own.slope, others.own.slope),
            tilt: s.select(lanes, these.own.tilt, others.own.tilt),
            offset: s.select(lanes, these.own.offset, others.own.offset),
        };
        VectorCoefficients { forward: ColumnCoefficients::select(s, lanes, these.forward, others.forward), own }
    }

    /// Whether `z` or `dx` need f64.
    #[inline(always)]
    fn needs_f64(self) -> bool {
        self.forward.exact || self.exact
    }
}

/// Writes the gradients of a group's elements. The coefficients of the group are in `table`.
#[inline(always)]
pub(crate) fn elements<T: Storage>(
    tasks: Tasks,
    walk: &Walk,
    group: Group,
    gradient: &Gradient<'_, T>,
    table: &[Tile<FIELDS>],
    written: Written<'_, T>,
) {
    tasks.elements(walk, group, written, |units, Written { mut output, mut grad_residual, base, .. }| {
        for tile in walk.tiles_of(group) {
            let (group, table, units) = (tile.group, tile.table(table), tile.units(units.clone()));
            let dy = gradient.grad_output.map(|dy| T::shorter(dy));
            let elements = Elements::new(dy, T::reborrow(&mut output), base);
            let grad_residual = grad_residual.as_mut().map(T::reborrow);
            let backward = Backward { walk, group, gradient, table, units, elements, grad_residual };
            match (backward.has_residual(), gradient.apply.is_open()) {
                (false, _) => tasks.run(Variant::<T, false, false>(backward)),
                (true, false) => tasks.run(Variant::<T, true, false>(backward)),
                (true, true) => tasks.run(Variant::<T, true, true>(backward)),
            }
        }
    });
}

/// The coefficients that differentiate vectors in which some lanes need f64: the coefficients of a run
/// or of one column in f32, and in f64 as [`Gradient::wide`] has them, or a tile of columns.
type ExactGradientSource<'a> = elementwise::ExactCoefficients<'a, ColumnGradient, [f64; 5], FIELDS>;

impl ExactGradientSource<'_> {
    #[inline(always)]
    fn coefficients<S: Simd, T: Storage>(
        self,
        s: S,
        gradient: &Gradient<'_, T>,
    ) -> (ExactNormalise<S>, ExactDifferentiate<S>) {
        match self {
            Self::Run(coefficients, [slope, shift, own_slope, own_tilt, own_offset]) => {
                let forward = ForwardSource::Run(coefficients.forward, [slope, shift]);
                let GradientCoefficients { slope, tilt, offset } = coefficients.own(s);
                let differentiate = ExactDifferentiate {
                    mean: s.splat(coefficients.forward.mean),
                    rounded: [slope, tilt, offset],
                    wide: [s.splat_f64(own_slope), s.splat_f64(own_tilt), s.splat_f64(own_offset)],
                    exact: s.mask(if coefficients.exact { s.lanes() } else { 0 }),
                };
                (forward.normalise(s, &gradient.apply), differentiate)
            }
            Self::Tile(tile, owner) => {
                let forward = ForwardSource::Tile(forward_fields(tile), owner).normalise(s, &gradient.apply);
                let GradientCoefficients { slope, tilt, offset } = GradientCoefficients::of_tile(s, tile);
                let (_, flags) = s.load_pair(&tile[OFFSET]);
                let exact = s.le(s.splat(1.0), flags);
                let needed = s.bits(exact);
                let [_, _, own_slope, own_tilt, own_offset] =
                    s.lane_by_lane(LANES, |lane| match owner.channel_of(lane) {
                        Some(channel) if needed >> lane & 1 == 1 => gradient.wide(tile, lane, channel),
                        _ => [0.0; 5],
                    });
                let [mean, ..] = forward.rounded;
                let wide = [own_slope, own_tilt, own_offset];
                (forward, ExactDifferentiate { mean, rounded: [slope, tilt, offset], wide, exact })
            }
        }
    }
}

/// The gradients of some units of a group.
struct Backward<'a, 'b, T: Storage> {
    walk: &'a Walk,
    group: Group,
    gradient: &'a Gradient<'b, T>,
    table: &'a [Tile<FIELDS>],
    units: Range<usize>,
    /// `dy`, which is read, and `dx`, which is written.
    elements: Elements<'a, T>,
    /// The gradient of the residual, if it is wanted beside `dx`.
    grad_residual: Option<T::Mut<'a>>,
}

/// [`Backward`] with or without a residual, a gradient of a residual or a curve. `OPEN` says that `z` need
/// not be looked at, at least not after a curve ([`Apply::is_open`]). Without `RESIDUAL`, there are loops
/// for both cases in one kernel. With it each has a kernel, because with the loops of both the compiler
/// has too few registers. With both, there may be a curve.
struct Variant<'a, 'b, T: Storage, const RESIDUAL: bool, const OPEN: bool>(Backward<'a, 'b, T>);

impl<T: Storage, const RESIDUAL: bool, const OPEN: bool> Kernel for Variant<'_, '_, T, RESIDUAL, OPEN> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let (Self(backward), Some(s)) = (&self, m.all()) else { return };
        let (walk, stream) = (*backward.walk, backward.elements.stream);
        let place = (backward.group, backward.table, backward.units.clone());
        elementwise::walk(s, &walk, place, self);
        if stream {
            s.fence();
        }
    }
}

impl<'a, S: Simd, T: Storage, const RESIDUAL: bool, const OPEN: bool> Elementwise<'a, S, FIELDS>
    for Variant<'a, '_, T, RESIDUAL, OPEN>
{
    type Column = ColumnGradient;
    type Wide = [f64; 5];
    type Rooms = (Rooms<T>, Rooms<T>);
    const FLAGS: [usize; 2] = [apply::EXACT, OFFSET];
    const BAND: usize = PIECE / LANES;

    #[inline(always)]
    fn rooms() -> Self::Rooms {
        (Rooms::new(), Rooms::new())
    }

    #[inline(always)]
    fn keep(&self) -> Keep<'a> {
        self.0.gradient.apply.keep
    }

    #[inline(always)]
    fn len(&self) -> usize {
        T::len(self.0.gradient.input)
    }

    #[inline(always)]
    fn needs_copy(&self) -> bool {
        self.0.elements.read.is_none() || self.0.gradient.apply.formula.curve.is_some()
    }

    #[inline(always)]
    fn is_rewritable(&self) -> bool {
        self.0.elements.read.is_some()
    }

    #[inline(always)]
    fn in_turn(&self) -> bool {
        !RESIDUAL && self.0.elements.in_turn(Some(T::shorter(self.0.gradient.input)))
    }

    #[inline(always)]
    fn asks_owner(&self) -> bool {
        RESIDUAL && (!OPEN || self.0.gradient.apply.residual.is_some())
    }

    #[inline(always)]
    fn ahead(&self, width: usize) -> Ahead {
        Ahead::in_sequence(width, T::len(self.0.gradient.input))
    }

    #[inline(always)]
    fn wide(&self, tile: &Tile<FIELDS>, column: usize) -> [f64; 5] {
        self.0.gradient.wide(tile, column, self.0.group.channel_of(column))
    }

    #[inline(always)]
    fn vectors(
        &mut self,
        s: S,
        sources: (&mut impl Sources<S, Vector = VectorCoefficients<S>>, Owner),
        keep: &Keep<'_>,
        piece: ((usize, usize), Ahead),
        room: (&mut [f32], &mut Self::Rooms),
    ) {
        self.0.vectors::<S, RESIDUAL, OPEN>(s, sources, keep, piece, room);
    }

    #[inline(always)]
    fn four_rows(&mut self, s: S, rows: RowBlock, tile: usize, bits: (&mut FourBits, &mut Buffer)) {
        self.0.four_rows::<S>(s, rows, tile, bits);
    }

    #[inline(always)]
    fn exact(&mut self, s: S, source: ExactGradientSource<'_>, keep: Keep<'_>, vectors: Vectors, strips: &mut Strips) {
        s.apart(ExactBackward { backward: &mut self.0, source, keep, vectors, strips });
    }
}

impl<T: Storage> Backward<'_, '_, T> {
    /// Whether there is a curve, a gradient of a residual, or a residual that is looked at.
    #[inline(always)]
    fn has_residual(&self) -> bool {
        let apply = &self.gradient.apply;
        let has_residual = apply.residual.is_some() && !apply.is_open();
        has_residual || apply.formula.curve.is_some() || self.grad_residual.is_some()
    }

    /// Whether the gradient goes through batch statistics.
    #[inline(always)]
    fn is_batch(&self) -> bool {
        self.gradient.differentiation.differential == Differential::Batch
    }

    /// Writes the gradients of a piece of four rows of a matrix from memory, past the caches. The first
    /// tile of the piece is number `tile` of the table. Memory takes less time for four sequences in
    /// turn than for one sequence after the other.
    #[inline(always)]
    fn four_rows<S: Simd>(&mut self, s: S, rows: RowBlock, tile: usize, (bits, buffer): (&mut FourBits, &mut Buffer)) {
        let gradient = self.gradient;
        fill_four_bits(&gradient.apply.keep, rows, bits, buffer);
        let Some(dy) = self.elements.read else { return };
        let inputs = [T::shorter(gradient.input), T::shorter(dy)];
        let batch = self.is_batch();
        let output = (&mut self.elements.write, self.elements.base);
        let (bound, tiles) = (gradient.apply.bound(s), Tiles::new(self.table.get(tile..).unwrap_or_default()));
        T::four_rows(s, inputs, output, rows, (FourGradients::<T, _> { gradient, bound, tiles, batch }, bits));
    }

    /// [`Self::vectors`] without a residual or a curve.
    #[inline(always)]
    fn plain_vectors<S: Simd, const OPEN: bool>(
        &mut self,
        s: S,
        (sources, owner): (&mut impl Sources<S, Vector = VectorCoefficients<S>>, Owner),
        bits: &[[u8; 2]],
        place: ((usize, usize), Ahead),
        (copy, rooms, others): (&mut [f32], &mut Rooms<T>, &mut Rooms<T>),
    ) {
        let gradient = self.gradient;
        let mut each = Some(EachGradient::<T, _, _, _, false, OPEN> {
            gradient,
            batch: self.is_batch(),
            lower: gradient.apply.lower(s),
            sources: sources.clone(),
            owner,
            vector: 0,
            residual: NoResidual,
        });
        let inputs = (Some(T::shorter(gradient.input)), self.elements.read.map(|dy| T::shorter(dy)));
        let output = (&mut self.elements.write, self.elements.base);
        let rooms = [&mut others.read, &mut rooms.read, &mut rooms.write];
        let by = By { copy, stream: self.elements.stream, rooms };
        T::each_vector(s, inputs, output, place, by, (&mut each, bits));
        if let Some(each) = each {
            *sources = each.sources;
        }
    }

    /// Writes the gradients of some neighbours, whose first vector belongs to `owner`.
    #[inline(always)]
    fn vectors<S: Simd, const RESIDUAL: bool, const OPEN: bool>(
        &mut self,
        s: S,
        (sources, owner): (&mut impl Sources<S, Vector = VectorCoefficients<S>>, Owner),
        keep: &Keep<'_>,
        ((start, len), ahead): ((usize, usize), Ahead),
        (copy, (rooms, others)): (&mut [f32], &mut (Rooms<T>, Rooms<T>)),
    ) {
        let (gradient, mut buffer, mut pairs) = (self.gradient, [0; _], [[0; 2]; _]);
        let vectors = len.div_ceil(LANES);
        let bits = keep.bits(start, vectors, &mut buffer).pairs(vectors, &mut pairs);
        if !RESIDUAL {
            let (place, rooms) = (((start, len), ahead), (copy, rooms, others));
            // A loop for each: a loop that asks for every vector takes up to a third longer.
            return if gradient.apply.is_open() {
                self.plain_vectors::<S, true>(s, (sources, owner), bits, place, rooms);
            } else {
                self.plain_vectors::<S, false>(s, (sources, owner), bits, place, rooms);
            };
        }
        let (lower, batch, base) = (gradient.apply.lower(s), self.is_batch(), self.elements.base);
        let (stream, streams) = (self.elements.stream, self.elements.streams());
        let curve = if OPEN { gradient.apply.curve_if::<RESIDUAL>() } else { None };
        let residuals = if OPEN && curve.is_none() {
            Residuals::of(&[])
        } else {
            gradient.apply.residuals::<S, RESIDUAL>(s, (start, len), ahead, &mut rooms.residual)
        };
        let x = T::read(s, T::shorter(gradient.input), (start, len), ahead, &mut others.read);
        let Place { read, write } = match curve {
            None => self.elements.piece(s, (start, len), ahead, copy, (&mut rooms.read, &mut rooms.write)),
            Some(curve) => {
                // From here on `act'(z)*dy` takes the place of `dy`.
                let strip = copy.get_mut(..len).unwrap_or_default();
                let dy = self.elements.values_of(s, start, len, &mut rooms.read);
                let mut these = sources.clone();
                gradient.apply.curve(s, curve, (&mut these, owner), (&residuals, x, dy), strip);
                Place { read: strip, write: self.elements.place(start, len, &mut rooms.write) }
            }
        };
        let (of_residual, stream_residual) = match &mut self.grad_residual {
            Some(tensor) => {
                let stream = stream && T::is_direct(tensor);
                (T::place(tensor, (start - base, len), &mut others.write), stream)
            }
            None => (&mut [][..], false),
        };
        // All values are f32 here, in the tensors or in rooms. The caches hold the rooms.
        let ahead = if T::DIRECT { ahead } else { Ahead::NOT };
        // Zeros are read where there is no residual: the portable backend would call a function to make them in the loop.
        let residuals = match gradient.apply.residual {
            Some(_) => (residuals, ahead),
            None if OPEN => (residuals, Ahead::NOT),
            None => (Residuals::of(range(&ZEROS.0, 0, len)), Ahead::NOT),
        };
        let residual = WithResidual::new(residuals, (of_residual, stream_residual, keep.scale));
        let of_all = EachGradient::<T, _, _, _, RESIDUAL, OPEN> {
            gradient,
            batch,
            lower,
            sources: sources.clone(),
            owner,
            vector: 0,
            residual,
        };
        let mut each = Some(of_all);
        let inputs = (Some(x), Some(read));
        let by = By { copy: &mut [], stream: streams, rooms: [&mut (), &mut (), &mut ()] };
        Singles::each_vector(s, inputs, (&mut &mut *write, 0), ((0, len), ahead), by, (&mut each, bits));
        if let Some(each) = each {
            *sources = each.sources;
        }
        if let Some(tensor) = &mut self.grad_residual {
            T::finish(s, stream, tensor, (start - base, len), &others.write);
        }
        self.elements.finish(s, start, len, &rooms.write);
    }
}

/// The input gradients of four rows, without a residual or a curve.
struct FourGradients<'a, 'b, T: Storage, V> {
    gradient: &'a Gradient<'b, T>,
    bound: Bound<V>,
    batch: bool,
    tiles: Tiles<'a, ColumnGradient, FIELDS>,
}

impl<S: Simd, T: Storage> EachFour<S> for FourGradients<'_, '_, T, S::F32> {
    type Coefficients = VectorCoefficients<S>;
    const TWO: bool = true;

    #[inline(always)]
    fn next(&mut self, s: S) -> Option<VectorCoefficients<S>> {
        self.tiles.take(s)
    }

    #[inline(always)]
    fn of_row(&mut self, s: S, _: usize, of: &VectorCoefficients<S>, (x, dy): (S::F32, S::F32), bits: u16) -> S::F32 {
        let values = [x, dy, s.splat(0.0)];
        let g = self.gradient.apply.g::<S, false>(s, &of.forward, Owner::Channel(0), values, (self.bound, bits));
        of.own.differentiate(self.batch, x - of.forward.mean, g)
    }
}

/// The residual of a piece in a call without a residual.
static ZEROS: AlignedPiece = AlignedPiece::zeros();

/// The residual of one vector after the other, and its gradient.
trait Residual<S: Simd> {
    /// The residual of the next vector.
    fn next(&mut self, s: S) -> S::F32;
    /// Takes `g` of the vector whose residual [`Self::next`] gave last.
    fn put(&mut self, s: S, g: S::F32);
}

/// No residual is read, and no gradient of a residual is written.
struct NoResidual;

impl<S: Simd> Residual<S> for NoResidual {
    #[inline(always)]
    fn next(&mut self, s: S) -> S::F32 {
        s.splat(0.0)
    }

    #[inline(always)]
    fn put(&mut self, _: S, _: S::F32) {}
}

/// The residual of some neighbours, zeros if there is none, and the place of its gradient. The place is empty
/// if the gradient is not wanted.
struct WithResidual<'a> {
    residuals: slice::Iter<'a, Lanes<f32>>,
    residual_rest: &'a [f32],
    ahead: Ahead,
    gradients: slice::IterMut<'a, Lanes<f32>>,
    gradient_rest: &'a mut [f32],
    stream: bool,
    scale: f32,
}

impl<'a> WithResidual<'a> {
    #[inline(always)]
    fn new((residuals, ahead): (Residuals<'a>, Ahead), (gradients, stream, scale): (&'a mut [f32], bool, f32)) -> Self {
        let (gradients, gradient_rest) = gradients.as_chunks_mut();
        let Residuals { whole, rest: residual_rest } = residuals;
        Self {
            residuals: whole.iter(),
            residual_rest,
            ahead,
            gradients: gradients.iter_mut(),
            gradient_rest,
            stream,
            scale,
        }
    }
}

impl<S: Simd> Residual<S> for WithResidual<'_> {
    #[inline(always)]
    fn next(&mut self, s: S) -> S::F32 {
        match self.residuals.next() {
            Some(residual) => {
                self.ahead.prefetch(s, residual);
                s.load(residual)
            }
            None => s.load_partial(self.residual_rest),
        }
    }

    #[inline(always)]
    fn put(&mut self, s: S, g: S::F32) {
        let gradient = g * s.splat(self.scale);
        match self.gradients.next() {
            Some(to) => put(s, self.stream, gradient, to),
            // Nothing is stored: a masked store of no lanes is no fault anywhere, but takes CPUs
            // hundreds of cycles.
            None if self.gradient_rest.is_empty() => {}
            None => s.store_partial(gradient, self.gradient_rest),
        }
    }
}

/// The input gradient of one vector after the other. With a curve, `dy` is `act'(z)*dy`.
struct EachGradient<'a, 'b, T: Storage, U, V, R, const RESIDUAL: bool, const OPEN: bool> {
    gradient: &'a Gradient<'b, T>,
    batch: bool,
    lower: V,
    sources: U,
    /// The owner of the first vector, and the number of the next vector.
    owner: Owner,
    vector: usize,
    residual: R,
}

impl<S, T, U, R, const RESIDUAL: bool, const OPEN: bool> EachVector<S>
    for EachGradient<'_, '_, T, U, S::F32, R, RESIDUAL, OPEN>
where
    S: Simd,
    T: Storage,
    U: Sources<S, Vector = VectorCoefficients<S>>,
    R: Residual<S>,
{
    const TWO: bool = true;

    #[inline(always)]
    fn next(&mut self, s: S, (x, dy): (S::F32, S::F32), bits: u16) -> Option<S::F32> {
        let (VectorCoefficients { forward, own }, owner) = (self.sources.take(s)?, self.owner.further(self.vector));
        let residual = if OPEN { s.splat(0.0) } else { self.residual.next(s) };
        let bound = Bound { lower: self.lower, open: OPEN };
        let g = self.gradient.apply.g::<S, RESIDUAL>(s, &forward, owner, [x, dy, residual], (bound, bits));
        self.residual.put(s, g);
        self.vector += 1;
        Some(own.differentiate(self.batch, x - forward.mean, g))
    }
}

/// Writes the gradients of vectors in which some lanes need f64. It is a function of its own, beside the
/// loops that most tensors need.
struct ExactBackward<'a, 'b, 'c, T: Storage> {
    backward: &'c mut Backward<'a, 'b, T>,
    source: ExactGradientSource<'c>,
    keep: Keep<'c>,
    vectors: Vectors,
    strips: &'c mut Strips,
}

impl<S: Simd, T: Storage> Work<S> for ExactBackward<'_, '_, '_, T> {
    #[inline(always)]
    fn run(self, s: S) {
        self.exact_gradients(s);
    }
}

impl<T: Storage> ExactBackward<'_, '_, '_, T> {
    #[inline(always)]
    fn exact_gradients<S: Simd>(self, s: S) {
        let Self { backward, source, keep, vectors, strips } = self;
        let (gradient, batch, base) = (backward.gradient, backward.is_batch(), backward.elements.base);
        let (normalise, differentiate) = source.coefficients(s, gradient);
        let mut rooms = (Rooms::<T>::new(), Rooms::<T>::new());
        for first in (0..vectors.count()).step_by(BITS) {
            let tensors = (T::shorter(gradient.input), backward.elements.source());
            let all = (vectors, first);
            let (rooms, others) = &mut rooms;
            let to = (&mut *strips, [&mut others.read, &mut rooms.read, &mut rooms.residual]);
            gradient.apply.fill_strip_with_g(s, &normalise, &keep, all, tensors, to);
            for (place, g) in vectors.from(first, BITS).zip(strips[0].as_chunks().0) {
                let x = load_values::<S, T>(s, T::shorter(gradient.input), place, &mut others.read);
                let g = s.load(g);
                if let Some(tensor) = &mut backward.grad_residual {
                    let to = (tensor, place.after(base));
                    put_values::<S, T>(s, false, g * s.splat(keep.scale), to, &mut others.write);
                }
                backward.elements.put_values(s, differentiate.dx(s, batch, x, g), place, &mut rooms.write);
            }
        }
    }
}

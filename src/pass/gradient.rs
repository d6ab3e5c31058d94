//! The input gradient: the elementwise half of every backward call.
//!
//! `dx = g*slope + ((x - mean)*tilt + offset)` through batch statistics and `dx = g*slope` past fixed ones, with `g`
//! computed again from `x` and `dy`; the gradient of a residual is `g*scale`. One pass: 8 bytes read and 4 written per
//! element, 4 more of each with a residual, and one mask bit.

use core::iter::repeat;
use core::ops::Range;

use super::apply::{
    self, Apply, Coefficients, ColumnCoefficients, OneColumn, Owner, Source, Sources, needs_f64, next_segment,
};
use super::keep::Keep;
use super::reduce::{FIELDS, G, G_OTHER, OFFSET, SLOPE, forward_fields};
use super::{Elements, OfRuns, Place, Rooms, first_bits, of_columns, pair_lane, pieces, put};
use crate::bits::BITS;
use crate::channel::{ChannelDifferentiate, Differential, Differentiation, differentiated, lane_of};
use crate::simd::{Kernel, LANES, Lane, Machine, Simd};
use crate::storage::{Ahead, PIECE, Storage};
use crate::tasks::{Tasks, Written};
use crate::walk::{Columns, Group, Planar, Tile, Unit, Walk};

/// What the gradients of elements are made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gradient<'a, T: Storage> {
    pub(crate) apply: Apply<'a, T>,
    pub(crate) differentiation: Differentiation<'a>,
    /// `x`.
    pub(crate) input: T::Ref<'a>,
    /// `dy`, or nothing where `dx` overwrites it.
    pub(crate) grad_output: Option<T::Ref<'a>>,
}

impl<T: Storage> Gradient<'_, T> {
    /// `g` of a vector, and its input gradient.
    #[inline(always)]
    fn of_one<S: Simd, const RESIDUAL: bool, const GATED: bool>(
        &self,
        s: S,
        (forward, own): (&Coefficients<S>, &GradientCoefficients<S>),
        owner: Owner,
        [x, dy, residual]: [S::F32; 3],
        (lower, bits, batch): (S::F32, u16, bool),
    ) -> (S::F32, S::F32) {
        let apply = &self.apply;
        let g = if GATED {
            s.keep(s.mask(bits), dy)
        } else {
            apply.gradient(s, lower, bits, apply.z::<S, RESIDUAL>(s, forward, x, residual, owner), dy)
        };
        (g, own.differentiate(batch, x - forward.mean, g))
    }
}

/// The coefficients of one vector of gradients.
#[derive(Clone, Copy)]
struct GradientCoefficients<S: Simd> {
    slope: S::F32,
    tilt: S::F32,
    offset: S::F32,
}

impl<S: Simd> GradientCoefficients<S> {
    /// `dx` in f32.
    #[inline(always)]
    fn differentiate(&self, batch: bool, deviation: S::F32, g: S::F32) -> S::F32 {
        differentiated([self.slope, self.tilt, self.offset], batch, deviation, g)
    }
}

/// Where the coefficients of a vector of gradients come from, beside those of the forward call.
trait GradientSource<S: Simd>: Source<S> {
    fn gradient_coefficients(&self, s: S) -> GradientCoefficients<S>;
}

/// The coefficients of one column.
#[derive(Debug, Clone, Copy)]
struct ColumnGradient {
    forward: ColumnCoefficients,
    slope: f32,
    tilt: f32,
    offset: f32,
    /// Whether it needs f64.
    exact: bool,
}

impl ColumnGradient {
    #[inline(always)]
    fn new(tile: &Tile<FIELDS>, column: usize) -> Self {
        let forward = ColumnCoefficients::new(forward_fields(tile), column);
        let ([slope, tilt], [offset, exact]) = (pair_lane(&tile[SLOPE], column), pair_lane(&tile[OFFSET], column));
        Self { forward, slope, tilt, offset, exact: forward.exact || exact != 0.0 }
    }

    /// The fields of the forward call, then slope, tilt and offset.
    #[inline(always)]
    const fn fields(self) -> [f32; 6] {
        let [mean, slope, shift] = self.forward.fields();
        [mean, slope, shift, self.slope, self.tilt, self.offset]
    }
}

impl<S: Simd> Source<S> for ColumnGradient {
    #[inline(always)]
    fn coefficients(&self, s: S) -> Coefficients<S> {
        self.forward.coefficients(s)
    }
}

impl<S: Simd> GradientSource<S> for ColumnGradient {
    #[inline(always)]
    fn gradient_coefficients(&self, s: S) -> GradientCoefficients<S> {
        GradientCoefficients { slope: s.splat(self.slope), tilt: s.splat(self.tilt), offset: s.splat(self.offset) }
    }
}

impl<S: Simd> Source<S> for &Tile<FIELDS> {
    #[inline(always)]
    fn coefficients(&self, s: S) -> Coefficients<S> {
        forward_fields(self).coefficients(s)
    }
}

impl<S: Simd> GradientSource<S> for &Tile<FIELDS> {
    #[inline(always)]
    fn gradient_coefficients(&self, s: S) -> GradientCoefficients<S> {
        let ((slope, tilt), (offset, _)) = (s.load_pair(&self[SLOPE]), s.load_pair(&self[OFFSET]));
        GradientCoefficients { slope, tilt, offset }
    }
}

impl<S: Simd> Source<S> for OfRuns<S, 6> {
    #[inline(always)]
    fn coefficients(&self, _: S) -> Coefficients<S> {
        let [mean, slope, shift, ..] = self.0;
        Coefficients::new([mean, slope, shift])
    }
}

impl<S: Simd> GradientSource<S> for OfRuns<S, 6> {
    #[inline(always)]
    fn gradient_coefficients(&self, _: S) -> GradientCoefficients<S> {
        let [.., slope, tilt, offset] = self.0;
        GradientCoefficients { slope, tilt, offset }
    }
}

/// The gradients of a group's elements, whose coefficients are in its table.
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
            match (gradient.apply.is_plain(), backward.is_batch()) {
                (true, true) if gradient.apply.is_open() => tasks.run(Variant::<T, false, true, true>(backward)),
                (true, true) => tasks.run(Variant::<T, false, false, true>(backward)),
                (true, false) => tasks.run(Variant::<T, false, false, false>(backward)),
                (false, _) => tasks.run(Variant::<T, true, false, true>(backward)),
            }
        }
    });
}

/// What single elements of a column are normalised and differentiated with.
fn source<T: Storage>(
    gradient: &Gradient<'_, T>,
    group: Group,
    table: &[Tile<FIELDS>],
    column: usize,
) -> (OneColumn, ColumnGradient, Option<ChannelDifferentiate>) {
    let tile = table.get(column / LANES).unwrap_or(&[[0.0; LANES]; FIELDS]);
    let one = OneColumn::new(gradient.apply.normalisation, group, forward_fields(tile), column);
    let coefficients = ColumnGradient::new(tile, column);
    let exactly = coefficients.exact.then(|| {
        let sums = [lane_of(&tile[G], column), lane_of(&tile[G_OTHER], column)];
        let channel = group.channel_of(column);
        gradient.differentiation.of_channel(channel, &gradient.apply.normalisation.centre_of_channel(channel), sums)
    });
    (one, coefficients, exactly)
}

/// `dx` of one element, in f64 if it is needed.
#[inline(always)]
fn dx_of(
    s: Lane,
    coefficients: &ColumnGradient,
    exactly: Option<&ChannelDifferentiate>,
    batch: bool,
    x: f32,
    g: f32,
) -> f32 {
    match exactly {
        Some(exactly) => exactly.dx(batch, x, g),
        None => coefficients.gradient_coefficients(s).differentiate(batch, x - coefficients.forward.mean, g),
    }
}

/// The gradients of some units of a group.
struct Backward<'a, 'b, T: Storage> {
    walk: &'a Walk,
    group: Group,
    gradient: &'a Gradient<'b, T>,
    table: &'a [Tile<FIELDS>],
    units: Range<usize>,
    /// From `dy` to `dx`.
    elements: Elements<'a, T>,
    /// The gradient of the residual, if it is wanted beside `dx`.
    grad_residual: Option<T::Mut<'a>>,
}

/// The same with or without a residual: a kernel for each, because without optimisation the stack would hold the vectors of
/// both. Without a residual `BATCH` says whether the gradient goes through batch statistics, and `GATED` that `z` need not be
/// looked at; with one, it is asked in the loop.
struct Variant<'a, 'b, T: Storage, const RESIDUAL: bool, const GATED: bool, const BATCH: bool>(Backward<'a, 'b, T>);

impl<T: Storage, const RESIDUAL: bool, const GATED: bool, const BATCH: bool> Kernel
    for Variant<'_, '_, T, RESIDUAL, GATED, BATCH>
{
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let Self(backward) = self;
        let Some(s) = m.all() else { return };
        let stream = backward.elements.stream;
        match *backward.walk {
            Walk::Empty => {}
            Walk::Planar(planar) => backward.planar::<_, RESIDUAL, GATED, BATCH>(s, &planar),
            Walk::Columns(columns) => backward.columns::<_, RESIDUAL, GATED, BATCH>(s, &columns),
        }
        if stream {
            s.fence();
        }
    }
}

impl<T: Storage> Backward<'_, '_, T> {
    /// Whether the gradient goes through batch statistics.
    #[inline(always)]
    fn is_batch(&self) -> bool {
        self.gradient.differentiation.differential == Differential::Batch
    }

    #[inline(always)]
    fn planar<S: Simd, const RESIDUAL: bool, const GATED: bool, const BATCH: bool>(mut self, s: S, planar: &Planar) {
        let Some(tile) = self.table.first() else { return };
        let (mut copy, mut rooms) = ([0.0; PIECE], (Rooms::new(), Rooms::new()));
        let columns = of_columns(self.group, |column| ColumnGradient::new(tile, column));
        let mut runs = [self.units.clone(), 0..0];
        if let Some((rows, others)) = planar.rows_of(self.group, self.units.clone())
            && self.gradient.apply.keep.is_each()
            && !columns.iter().any(|column| column.exact)
        {
            let of_channels = columns.map(ColumnGradient::fields);
            let ahead = Ahead::next_row(rows.width, T::len(self.gradient.input));
            let keep = &self.gradient.apply.keep;
            for row in 0..rows.rows {
                let mut of_runs = planar.of_runs(s, &of_channels);
                let start = rows.first() + row * rows.width;
                for piece in pieces(start, rows.columns) {
                    let owner = Owner::Position { group: self.group, inner: planar.inner, position: piece.0 - start };
                    let room = (&mut copy, &mut rooms);
                    self.vectors::<S, RESIDUAL, GATED, BATCH>(s, &mut of_runs, owner, keep, (piece, ahead), room);
                }
            }
            runs = others;
        }
        for units in runs {
            for (unit, (column, start, len)) in units.clone().zip(planar.runs(self.group, units)) {
                let coefficients = columns[column % LANES];
                if coefficients.exact {
                    self.one_by_one(unit);
                    continue;
                }
                let keep = self.gradient.apply.keep.within(start, len);
                let owner = Owner::Channel(self.group.first_channel + column);
                for piece in pieces(start, len) {
                    self.vectors::<S, RESIDUAL, GATED, BATCH>(
                        s,
                        &mut repeat(coefficients),
                        owner,
                        &keep,
                        (piece, Ahead::NOT),
                        (&mut copy, &mut rooms),
                    );
                }
            }
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const RESIDUAL: bool, const GATED: bool, const BATCH: bool>(mut self, s: S, columns: &Columns) {
        let (group, table, keep) = (self.group, self.table, self.gradient.apply.keep);
        let (forward, own) = (table.iter().map(|tile| &tile[apply::EXACT]), table.iter().map(|tile| &tile[OFFSET]));
        if needs_f64(s, forward) || needs_f64(s, own) {
            if self.gradient.apply.formula.curve.is_some() {
                return self.units.clone().for_each(|unit| self.one_by_one(unit));
            }
            return self.columns_beside_exact::<S, RESIDUAL, GATED, BATCH>(s, columns);
        }
        let (mut copy, mut rooms) = ([0.0; PIECE], (Rooms::new(), Rooms::new()));
        let ahead = Ahead::in_sequence(columns.width, T::len(self.gradient.input));
        for (start, len) in columns.rows_of(group, self.units.clone()) {
            let mut tiles = table.iter();
            for piece in pieces(start, len) {
                let owner = Owner::Column(group, piece.0 - start);
                let room = (&mut copy, &mut rooms);
                self.vectors::<S, RESIDUAL, GATED, BATCH>(s, &mut tiles, owner, &keep, (piece, ahead), room);
            }
        }
    }

    /// The gradients of columns of which some need f64, in the order of the output's: first the columns that need f64.
    #[inline(always)]
    fn columns_beside_exact<S: Simd, const RESIDUAL: bool, const GATED: bool, const BATCH: bool>(
        mut self,
        s: S,
        columns: &Columns,
    ) {
        let (group, table, keep) = (self.group, self.table, self.gradient.apply.keep);
        self.exact_columns(columns);
        let (mut copy, mut rooms) = ([0.0; PIECE], (Rooms::new(), Rooms::new()));
        let mut next = 0;
        while let Some(segment) = next_segment(s, table, next, [apply::EXACT, OFFSET]) {
            next = segment.end;
            let (first, end) = (segment.start * LANES, segment.end * LANES);
            let Some(tiles) = table.get(segment) else { break };
            let is_exact = needs_f64(s, tiles.iter().map(|tile| &tile[apply::EXACT]))
                || needs_f64(s, tiles.iter().map(|tile| &tile[OFFSET]));
            for (start, len) in columns.rows_of(group, self.units.clone()) {
                let (start, len) = (start + first, end.min(len).saturating_sub(first));
                if is_exact {
                    if let (Some(tile), 1..) = (tiles.first(), len) {
                        let owner = Owner::Column(group, first);
                        self.beside_exact::<S, RESIDUAL, GATED>(s, tile, owner, (start, len), &mut rooms);
                    }
                    continue;
                }
                let mut sources = tiles.iter();
                for piece in pieces(start, len) {
                    let (owner, ahead) = (Owner::Column(group, first + piece.0 - start), Ahead::NOT);
                    let room = (&mut copy, &mut rooms);
                    self.vectors::<S, RESIDUAL, GATED, BATCH>(s, &mut sources, owner, &keep, (piece, ahead), room);
                }
            }
        }
    }

    /// The gradients of up to sixteen columns of a row, except for those that need f64.
    #[inline(always)]
    fn beside_exact<S: Simd, const RESIDUAL: bool, const GATED: bool>(
        &mut self,
        s: S,
        tile: &Tile<FIELDS>,
        owner: Owner,
        (start, len): (usize, usize),
        (rooms, others): &mut (Rooms<T>, Rooms<T>),
    ) {
        let (gradient, batch, base) = (self.gradient, self.is_batch(), self.elements.base);
        let (forward, own) = (tile.coefficients(s), tile.gradient_coefficients(s));
        let (flags, own_flags) = (s.load_pair(&tile[apply::EXACT]).1, s.load_pair(&tile[OFFSET]).1);
        let exact = s.le(s.splat(1.0), flags + own_flags);
        let mut buffer = [0; _];
        let bits = gradient.apply.keep.bits(start, 1, &mut buffer).vectors().next().unwrap_or_default();
        let x = T::read(s, T::shorter(gradient.input), (start, len), Ahead::NOT, &mut others.read);
        let x = s.select(exact, forward.mean, s.load_partial(x));
        let dy = s.drop(exact, s.load_partial(self.elements.values_of(s, start, len, &mut rooms.read)));
        let residual = gradient.apply.residuals::<S, RESIDUAL>(s, (start, len), Ahead::NOT, &mut rooms.residual);
        let residual = residual.load_all(s);
        let (values, bounds) = ([x, dy, residual], (gradient.apply.lower(s), bits, batch));
        let (g, of_one) = gradient.of_one::<S, RESIDUAL, GATED>(s, (&forward, &own), owner, values, bounds);
        let at = (start - base, len);
        if let Some(tensor) = &mut self.grad_residual {
            let g = g * s.splat(gradient.apply.keep.scale);
            let old = s.load_partial(T::read(s, T::as_ref(tensor), at, Ahead::NOT, &mut others.read));
            s.store_partial(s.select(exact, old, g), T::place(tensor, at, &mut others.write));
            T::finish(s, false, tensor, at, &others.write);
        }
        let old = s.load_partial(T::read(s, T::as_ref(&self.elements.write), at, Ahead::NOT, &mut others.read));
        s.store_partial(s.select(exact, old, of_one), self.elements.place(start, len, &mut rooms.write));
        self.elements.finish(s, start, len, &rooms.write);
    }

    /// The gradients of the columns that need f64, one after the other.
    #[cold]
    #[inline(never)]
    fn exact_columns(&mut self, columns: &Columns) {
        let (s, gradient, group, batch) = (Lane::FIRST, self.gradient, self.group, self.is_batch());
        let (apply, base) = (&gradient.apply, self.elements.base);
        for column in 0..group.columns {
            let (one, coefficients, exactly) = source(gradient, group, self.table, column);
            if !coefficients.exact {
                continue;
            }
            for (start, len) in columns.rows_of(group, self.units.clone()) {
                let element = start + column;
                if column >= len {
                    continue;
                }
                let (x, dy) = (T::at(gradient.input, element), self.elements.at(element));
                let z = apply.z_of(&one, x, element);
                let g = apply.gradient_of(apply.keep.keeps(element).into(), z, dy);
                self.elements.set(element, dx_of(s, &coefficients, exactly.as_ref(), batch, x, g));
                if let Some(tensor) = &mut self.grad_residual {
                    T::put(tensor, element - base, g * apply.keep.scale);
                }
            }
        }
    }

    /// The gradients of some neighbours, whose first vector belongs to `owner`.
    #[inline(always)]
    fn vectors<S: Simd, const RESIDUAL: bool, const GATED: bool, const BATCH: bool>(
        &mut self,
        s: S,
        sources: &mut impl Sources<S, Source: GradientSource<S>>,
        owner: Owner,
        keep: &Keep<'_>,
        ((start, len), ahead): ((usize, usize), Ahead),
        (copy, (rooms, others)): (&mut [f32; PIECE], &mut (Rooms<T>, Rooms<T>)),
    ) {
        let (gradient, mut buffer) = (self.gradient, [0; _]);
        let batch = if RESIDUAL { self.is_batch() } else { BATCH };
        let mut bits = keep.bits(start, len.div_ceil(LANES), &mut buffer).vectors();
        let residuals = gradient.apply.residuals::<S, RESIDUAL>(s, (start, len), ahead, &mut rooms.residual);
        let all_x = T::read(s, T::shorter(gradient.input), (start, len), ahead, &mut others.read);
        let (x, x_rest) = all_x.as_chunks();
        let base = self.elements.base;
        let (stream, in_place) = (self.elements.streams(), self.elements.read.is_none());
        let (grad_residual, stream_residual) = match &mut self.grad_residual {
            Some(tensor) => {
                let stream = self.elements.stream && T::is_direct(tensor);
                (T::place(tensor, (start - base, len), &mut others.write), stream)
            }
            None => (&mut [][..], false),
        };
        let (grad_residual, grad_residual_rest) = grad_residual.as_chunks_mut();
        let Place { read, write } = match gradient.apply.curve_if::<RESIDUAL>() {
            None => self.elements.piece(s, (start, len), ahead, &mut copy[..], (&mut rooms.read, &mut rooms.write)),
            Some(curve) => {
                // From here on `act'(z)*dy` takes the place of `dy`.
                let strip = copy.get_mut(..len).unwrap_or_default();
                let dy = self.elements.values_of(s, start, len, &mut rooms.read);
                let mut these = sources.clone();
                gradient.apply.curve(s, curve, (&mut these, owner), (&residuals, all_x, dy), strip);
                Place { read: strip, write: self.elements.place(start, len, &mut rooms.write) }
            }
        };
        let ((dy, dy_rest), (dx, dx_rest)) = (read.as_chunks(), write.as_chunks_mut());
        let (lower, mut vector) = (gradient.apply.lower(s), 0);
        for (((x, dy), dx), bits) in x.iter().zip(dy).zip(dx).zip(bits.by_ref()) {
            let Some(source) = sources.take() else { break };
            if T::DIRECT {
                ahead.prefetch(s, x);
                ahead.prefetch(s, if in_place { dx } else { dy });
            }
            if RESIDUAL && T::DIRECT {
                residuals.prefetch(s, ahead, vector);
            }
            let coefficients = (&source.coefficients(s), &source.gradient_coefficients(s));
            let (owner, values) = (owner.further(vector), [s.load(x), s.load(dy), residuals.load(s, vector)]);
            let (g, of_one) =
                gradient.of_one::<S, RESIDUAL, GATED>(s, coefficients, owner, values, (lower, bits, batch));
            if let Some(grad_residual) = grad_residual.get_mut(vector) {
                put(s, stream_residual, g * s.splat(keep.scale), grad_residual);
            }
            put(s, stream, of_one, dx);
            vector += 1;
        }
        // No source is taken if there is no rest: the next piece begins with it.
        if !x_rest.is_empty()
            && let (Some(source), Some(bits)) = (sources.take(), bits.next())
        {
            let coefficients = (&source.coefficients(s), &source.gradient_coefficients(s));
            let values = [s.load_partial(x_rest), s.load_partial(dy_rest), residuals.load_rest(s)];
            let owner = owner.further(vector);
            let (g, of_one) =
                gradient.of_one::<S, RESIDUAL, GATED>(s, coefficients, owner, values, (lower, bits, batch));
            // A masked store of nothing is no fault anywhere, but takes CPUs hundreds of cycles.
            if !grad_residual_rest.is_empty() {
                s.store_partial(g * s.splat(keep.scale), grad_residual_rest);
            }
            s.store_partial(of_one, dx_rest);
        }
        if let Some(tensor) = &mut self.grad_residual {
            T::finish(s, self.elements.stream, tensor, (start - base, len), &others.write);
        }
        self.elements.finish(s, start, len, &rooms.write);
    }

    /// The gradients of a unit, element by element, for columns that need f64.
    #[inline(never)]
    fn one_by_one(&mut self, unit: usize) {
        let (s, gradient, group, batch) = (Lane::FIRST, self.gradient, self.group, self.is_batch());
        let (apply, base) = (&gradient.apply, self.elements.base);
        let Unit { start, len, mut column, step } = self.walk.unit(group, unit);
        let keep = apply.keep.within(start, len);
        let mut sources = source(gradient, group, self.table, column);
        for (start, len) in pieces(start, len) {
            let mut bits = [0; BITS];
            keep.fill(start, first_bits(&mut bits, len));
            for offset in 0..len {
                let (one, coefficients, exactly) = &sources;
                let (x, dy) = (T::at(gradient.input, start + offset), self.elements.at(start + offset));
                let z = apply.z_of(one, x, start + offset);
                let g = apply.gradient_of(bits[offset / LANES % BITS] >> (offset % LANES), z, dy);
                self.elements.set(start + offset, dx_of(s, coefficients, exactly.as_ref(), batch, x, g));
                if let Some(tensor) = &mut self.grad_residual {
                    T::put(tensor, start + offset - base, g * keep.scale);
                }
                if step != 0 {
                    column += step;
                    sources = source(gradient, group, self.table, column);
                }
            }
        }
    }
}

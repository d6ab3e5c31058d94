//! The input gradient: the elementwise half of every backward call.
//!
//! `dx = g*slope + ((x - mean)*tilt + offset)` through batch statistics and `dx = g*slope` past fixed ones, with `g`
//! computed again from `x` and `dy`; the gradient of a residual is `g*scale`. One pass: 8 bytes read and 4 written per
//! element, 4 more of each with a residual, and one mask bit.

use core::ops::Range;

use super::apply::{Apply, Coefficients, Owner, of_columns};
use super::keep::Keep;
use super::reduce::{FIELDS, G, G_OTHER, OFFSET, SLOPE, forward_fields};
use super::{Columns, Elements, Group, Planar, Tile, Walk, load_at, pair_lane};
use crate::activation::Activation;
use crate::channel::{ChannelDifferentiate, ChannelNormalise, Differential, Differentiation, any, lane_of};
use crate::simd::{Kernel, LANES, Lanes, Portable, Simd, store};
use crate::slices::{range, range_mut};
use crate::tasks::{Tasks, Written};

/// What the gradients of elements are made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gradient<'a, A> {
    pub(crate) apply: Apply<'a, A>,
    pub(crate) differentiation: Differentiation<'a>,
    /// `x`.
    pub(crate) input: &'a [f32],
    /// `dy`, or nothing where `dx` overwrites it.
    pub(crate) grad_output: Option<&'a [f32]>,
}

/// The coefficients of one vector of gradients.
#[derive(Clone, Copy)]
struct GradientCoefficients<S: Simd> {
    slope: S::F32,
    tilt: S::F32,
    offset: S::F32,
    /// 1 where a lane needs f64.
    exact: S::F32,
}

impl<S: Simd> GradientCoefficients<S> {
    /// One column of a table in every lane.
    #[inline(always)]
    fn of_column(s: S, tile: &Tile<FIELDS>, column: usize) -> Self {
        let ([slope, tilt], [offset, exact]) = (pair_lane(&tile[SLOPE], column), pair_lane(&tile[OFFSET], column));
        Self { slope: s.splat(slope), tilt: s.splat(tilt), offset: s.splat(offset), exact: s.splat(exact) }
    }

    #[inline(always)]
    fn of_tile(s: S, tile: &Tile<FIELDS>) -> Self {
        let ((slope, tilt), (offset, exact)) = (s.load_pair(&tile[SLOPE]), s.load_pair(&tile[OFFSET]));
        Self { slope, tilt, offset, exact }
    }

    /// `dx` in f32. Fixed statistics have no terms of `x`, not even where it is not finite.
    #[inline(always)]
    fn differentiate<const BATCH: bool>(&self, deviation: S::F32, g: S::F32) -> S::F32 {
        if BATCH { g * self.slope + (deviation * self.tilt + self.offset) } else { g * self.slope }
    }
}

/// What sixteen lanes need in f64.
struct Exactly {
    normalise: Lanes<ChannelNormalise>,
    differentiate: Lanes<ChannelDifferentiate>,
}

/// The gradients of a group's elements, whose coefficients are in its table.
#[inline(always)]
pub(crate) fn elements<A: Activation>(
    tasks: Tasks,
    walk: &Walk,
    group: Group,
    gradient: &Gradient<'_, A>,
    table: &[Tile<FIELDS>],
    written: Written<'_>,
) {
    tasks.elements(walk, group, written, |units, Written { output, grad_residual, base }| {
        let elements = Elements { input: gradient.grad_output, output, base };
        tasks.run(Backward { walk, group, gradient, table, units, elements, grad_residual });
    });
}

/// The gradients of some units of a group.
struct Backward<'a, A> {
    walk: &'a Walk,
    group: Group,
    gradient: &'a Gradient<'a, A>,
    table: &'a [Tile<FIELDS>],
    units: Range<usize>,
    /// From `dy` to `dx`.
    elements: Elements<'a>,
    /// The gradient of the residual, if it is wanted beside `dx`.
    grad_residual: Option<&'a mut [f32]>,
}

impl<A: Activation> Kernel for Backward<'_, A> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let batch = self.gradient.differentiation.differential == Differential::Batch;
        match (*self.walk, batch) {
            (Walk::Empty, _) => {}
            (Walk::Planar(planar), true) => self.planar::<S, true>(s, &planar),
            (Walk::Planar(planar), false) => self.planar::<S, false>(s, &planar),
            (Walk::Columns(columns), true) => self.columns::<S, true>(s, &columns),
            (Walk::Columns(columns), false) => self.columns::<S, false>(s, &columns),
        }
    }
}

/// What a vector of gradients is made with.
struct Vectors<'a, S: Simd, A> {
    apply: &'a Apply<'a, A>,
    keep: Keep<'a>,
    forward: Coefficients<S>,
    backward: GradientCoefficients<S>,
    owner: Owner<'a>,
    exactly: Option<&'a Exactly>,
}

impl<S: Simd, A: Activation> Vectors<'_, S, A> {
    /// `dx` of a vector, and the gradient of its residual, which is written.
    #[inline(always)]
    fn gradient<const BATCH: bool>(
        &self,
        s: S,
        x: S::F32,
        dy: S::F32,
        place: (usize, usize),
        residual: Option<&mut [f32]>,
    ) -> S::F32 {
        let z = self.apply.z(s, &self.forward, x, self.owner, place);
        let g = self.apply.gradient(s, &self.keep, z, dy, place.0);
        if let Some(residual) = residual {
            store(s, g * s.splat(self.keep.scale), residual);
        }
        let dx = self.backward.differentiate::<BATCH>(x - self.forward.mean, g);
        match self.exactly {
            Some(exactly) => exactly.replace::<S, BATCH>(s, x, g, dx),
            None => dx,
        }
    }
}

impl Exactly {
    /// Replaces `dx` in the lanes that need f64.
    #[inline(always)]
    fn replace<S: Simd, const BATCH: bool>(&self, s: S, x: S::F32, g: S::F32, dx: S::F32) -> S::F32 {
        let (mut values, mut gradients, mut results) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        s.store(x, &mut values);
        s.store(g, &mut gradients);
        s.store(dx, &mut results);
        for (((&x, &g), dx), lane) in values.iter().zip(&gradients).zip(&mut results).zip(&self.differentiate) {
            if lane.exact {
                *dx = lane.exactly::<BATCH>(x, g);
            }
        }
        s.load(&results)
    }
}

impl<A: Activation> Backward<'_, A> {
    #[inline(always)]
    fn planar<S: Simd, const BATCH: bool>(mut self, s: S, planar: &Planar) {
        let Some(tile) = self.table.first() else { return };
        for (column, start, len) in planar.runs(self.group, self.units.clone()) {
            let forward = Coefficients::of_column(s, forward_fields(tile), column);
            let backward = GradientCoefficients::of_column(s, tile, column);
            if any(s, forward.exact) || any(s, backward.exact) {
                self.exact_run::<BATCH>(tile, column, start, len);
                continue;
            }
            let (apply, keep) = (&self.gradient.apply, self.gradient.apply.keep.within(start, len));
            let owner = Owner::Channel(self.group.first_channel + column);
            self.vectors::<S, BATCH>(s, &Vectors { apply, keep, forward, backward, owner, exactly: None }, start, len);
        }
    }

    /// A run of a channel that needs f64. All lanes give the same bits, so the portable ones serve every backend.
    #[cold]
    #[inline(never)]
    fn exact_run<const BATCH: bool>(&mut self, tile: &Tile<FIELDS>, column: usize, start: usize, len: usize) {
        let (s, gradient, channel) = (Portable, self.gradient, self.group.first_channel + column);
        let forward = Coefficients::of_column(s, forward_fields(tile), column);
        let backward = GradientCoefficients::of_column(s, tile, column);
        let (apply, keep) = (&gradient.apply, gradient.apply.keep.within(start, len));
        let exactly = Exactly {
            normalise: [apply.normalisation.of_channel(channel); LANES],
            differentiate: [gradient.differentiation.of_channel(channel, sums_of(tile, column)); LANES],
        };
        let owner = if exactly.normalise[0].exact { Owner::Exact(&exactly.normalise) } else { Owner::Channel(channel) };
        let exactly = exactly.differentiate[0].exact.then_some(&exactly);
        self.vectors::<_, BATCH>(s, &Vectors { apply, keep, forward, backward, owner, exactly }, start, len);
    }

    #[inline(always)]
    fn vectors<S: Simd, const BATCH: bool>(&mut self, s: S, vectors: &Vectors<'_, S, A>, start: usize, len: usize) {
        let (x, x_rest) = range(self.gradient.input, start, len).as_chunks();
        let base = self.elements.base;
        let (slots, rest) = self.elements.run(start, len).split();
        let mut first = start;
        for (x, slot) in x.iter().zip(slots) {
            let residual = self.grad_residual.as_deref_mut().map(|tensor| range_mut(tensor, first - base, LANES));
            let dx = vectors.gradient::<BATCH>(s, s.load(x), slot.load(s), (first, LANES), residual);
            s.store(dx, slot.output);
            first += LANES;
        }
        if let lanes @ 1.. = x_rest.len() {
            let residual = self.grad_residual.as_deref_mut().map(|tensor| range_mut(tensor, first - base, lanes));
            let dx = vectors.gradient::<BATCH>(s, s.load_partial(x_rest), rest.load(s), (first, lanes), residual);
            s.store_partial(dx, rest.output);
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const BATCH: bool>(mut self, s: S, columns: &Columns) {
        if self.table.iter().any(|tile| needs_f64(s, tile)) {
            return self.exact_columns::<BATCH>(columns);
        }
        let (group, gradient, base) = (self.group, self.gradient, self.elements.base);
        for (start, len) in columns.rows_of(group, self.units.clone()) {
            let (x, x_rest) = range(gradient.input, start, len).as_chunks();
            let (slots, rest) = self.elements.run(start, len).split();
            let (mut first, mut column) = (start, 0);
            for ((x, slot), tile) in x.iter().zip(slots).zip(self.table) {
                let vectors = Vectors::of_tile(s, gradient, tile, Owner::Column(group, column), None);
                let residual = self.grad_residual.as_deref_mut().map(|tensor| range_mut(tensor, first - base, LANES));
                let dx = vectors.gradient::<BATCH>(s, s.load(x), slot.load(s), (first, LANES), residual);
                s.store(dx, slot.output);
                first += LANES;
                column += LANES;
            }
            if let (lanes @ 1.., Some(tile)) = (x_rest.len(), self.table.get(x.len())) {
                let vectors = Vectors::of_tile(s, gradient, tile, Owner::Column(group, column), None);
                let residual = self.grad_residual.as_deref_mut().map(|tensor| range_mut(tensor, first - base, lanes));
                let dx = vectors.gradient::<BATCH>(s, s.load_partial(x_rest), rest.load(s), (first, lanes), residual);
                s.store_partial(dx, rest.output);
            }
        }
    }

    /// Rows with columns that need f64, tile by tile.
    #[cold]
    #[inline(never)]
    fn exact_columns<const BATCH: bool>(mut self, columns: &Columns) {
        let (s, gradient, base) = (Portable, self.gradient, self.elements.base);
        for (number, tile) in self.table.iter().enumerate() {
            let column = number * LANES;
            let mut differentiate = [ChannelDifferentiate::default(); LANES];
            for (lane, column) in differentiate.iter_mut().zip(column..self.group.columns) {
                let channel = self.group.channel_of(column);
                *lane = gradient.differentiation.of_channel(channel, sums_of(tile, column));
            }
            let normalise = of_columns(&gradient.apply.normalisation, self.group, column);
            let exactly = Exactly { normalise, differentiate };
            let vectors = Vectors::of_tile(s, gradient, tile, Owner::Exact(&exactly.normalise), Some(&exactly));
            for (start, len) in columns.rows_of(self.group, self.units.clone()) {
                let (first, lanes) = (start + column, LANES.min(len.saturating_sub(column)));
                if lanes == 0 {
                    continue;
                }
                let x = load_at(s, gradient.input, (first, lanes));
                let place = self.elements.run(first, lanes);
                let residual = self.grad_residual.as_deref_mut().map(|tensor| range_mut(tensor, first - base, lanes));
                let dx = vectors.gradient::<BATCH>(s, x, place.load(s), (first, lanes), residual);
                s.store_partial(dx, place.output);
            }
        }
    }
}

impl<'a, S: Simd, A: Activation> Vectors<'a, S, A> {
    #[inline(always)]
    fn of_tile(
        s: S,
        gradient: &'a Gradient<'a, A>,
        tile: &Tile<FIELDS>,
        owner: Owner<'a>,
        exactly: Option<&'a Exactly>,
    ) -> Self {
        Self {
            apply: &gradient.apply,
            keep: gradient.apply.keep,
            forward: Coefficients::of_tile(s, forward_fields(tile)),
            backward: GradientCoefficients::of_tile(s, tile),
            owner,
            exactly,
        }
    }
}

/// Whether a column of a tile needs f64.
#[inline(always)]
fn needs_f64<S: Simd>(s: S, tile: &Tile<FIELDS>) -> bool {
    let (forward, backward) = (Coefficients::of_tile(s, forward_fields(tile)), GradientCoefficients::of_tile(s, tile));
    any(s, forward.exact) || any(s, backward.exact)
}

/// The sums of one column.
fn sums_of(tile: &Tile<FIELDS>, column: usize) -> [f64; 2] {
    [lane_of(&tile[G], column), lane_of(&tile[G_OTHER], column)]
}

//! Normalise, activate and drop: the elementwise half of every forward call.
//!
//! `y = keep ? act((x - mean)*slope + shift + residual)*scale : +0.0`, with the dropout scale folded into slope and shift
//! where the activation allows it and there is no residual. One pass: 4 bytes read and 4 written per element, 4 more
//! read with a residual, and one mask bit.

use core::ops::Range;

use super::keep::Keep;
use super::{Columns, Elements, Group, Planar, Tile, Walk, load_at, pair_lane};
use crate::activation::Activation;
use crate::channel::{ChannelNormalise, Normalisation, any};
use crate::simd::{Kernel, LANES, Lanes, Portable, Simd};
use crate::tasks::{Tasks, Written};

/// What the elementwise passes do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Apply<'a, A> {
    pub(crate) activation: A,
    pub(crate) normalisation: Normalisation<'a>,
    /// What is added to the normalised values, if anything is.
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) keep: Keep<'a>,
}

/// Whether the dropout scale is part of the normalisation.
fn folds_scale<A: Activation>(residual: Option<&[f32]>) -> bool {
    A::HOMOGENEOUS && residual.is_none()
}

/// The part of the dropout scale that belongs into the normalisation.
pub(crate) fn folded_scale<A: Activation>(residual: Option<&[f32]>, scale: f32) -> f32 {
    if folds_scale::<A>(residual) { scale } else { 1.0 }
}

impl<A: Activation> Apply<'_, A> {
    /// `z` of a vector, where lane 0 is element `first` and there are `lanes` of them.
    #[inline(always)]
    pub(crate) fn z<S: Simd>(
        &self,
        s: S,
        coefficients: &Coefficients<S>,
        x: S::F32,
        owner: Owner<'_>,
        place: (usize, usize),
    ) -> S::F32 {
        let z = coefficients.normalise(x);
        match (self.residual, owner) {
            (None, Owner::Exact(channels)) => exact_z(s, channels, x, z, None),
            (None, _) => z,
            (Some(residual), _) => {
                let residual = load_at(s, residual, place);
                match owner {
                    Owner::Exact(channels) => exact_z(s, channels, x, z, Some(residual)),
                    // The sum may be finite though one of its terms is not.
                    Owner::Column(group, column) if !is_finite(s, z) => {
                        exact_z(s, &of_columns(&self.normalisation, group, column), x, z, Some(residual))
                    }
                    Owner::Column(..) => z + residual,
                    Owner::Channel(channel) if !is_finite(s, z) => {
                        exact_z(s, &[self.normalisation.of_channel(channel); LANES], x, z, Some(residual))
                    }
                    Owner::Channel(_) => z + residual,
                }
            }
        }
    }

    /// From `z` to `y`, where lane 0 is element `first`.
    #[inline(always)]
    fn finish<S: Simd>(&self, s: S, keep: &Keep<'_>, z: S::F32, first: usize) -> S::F32 {
        let y = self.activation.forward(s, z);
        let y = if folds_scale::<A>(self.residual) { y } else { y * s.splat(keep.scale) };
        keep.select(s, first, y)
    }
}

/// Whose values the lanes of a vector are.
#[derive(Clone, Copy)]
pub(crate) enum Owner<'a> {
    /// All are of one channel.
    Channel(usize),
    /// They are columns of a group's table, from a given one on.
    Column(Group, usize),
    /// Some of them need f64, and here is what for.
    Exact(&'a Lanes<ChannelNormalise>),
}

/// What sixteen columns of a group are normalised with in f64.
#[cold]
#[inline(never)]
pub(crate) fn of_columns(normalisation: &Normalisation<'_>, group: Group, first: usize) -> Lanes<ChannelNormalise> {
    let mut lanes = [ChannelNormalise::default(); LANES];
    for (lane, column) in lanes.iter_mut().zip(first..group.columns) {
        *lane = normalisation.of_channel(group.channel_of(column));
    }
    lanes
}

/// What can be added to any number and leaves it as it is, the sign of zero included.
const NOTHING: f32 = -0.0;

/// Whether all lanes are finite.
#[inline(always)]
fn is_finite<S: Simd>(s: S, value: S::F32) -> bool {
    s.bits(s.le(s.splat(f32::MIN), value) & s.le(value, s.splat(f32::MAX))) == u16::MAX
}

/// The coefficients of one vector: the same in every lane, or one column each.
#[derive(Clone, Copy)]
pub(crate) struct Coefficients<S: Simd> {
    pub(crate) mean: S::F32,
    pub(crate) slope: S::F32,
    pub(crate) shift: S::F32,
    /// 1 where a lane needs f64.
    pub(crate) exact: S::F32,
}

impl<S: Simd> Coefficients<S> {
    /// One column of a table in every lane.
    #[inline(always)]
    pub(crate) fn of_column(s: S, [first, second]: &Tile<FIELDS>, column: usize) -> Self {
        let ([mean, slope], [shift, exact]) = (pair_lane(first, column), pair_lane(second, column));
        Self { mean: s.splat(mean), slope: s.splat(slope), shift: s.splat(shift), exact: s.splat(exact) }
    }

    #[inline(always)]
    pub(crate) fn of_tile(s: S, [first, second]: &Tile<FIELDS>) -> Self {
        let ((mean, slope), (shift, exact)) = (s.load_pair(first), s.load_pair(second));
        Self { mean, slope, shift, exact }
    }

    /// `z`, in f32.
    #[inline(always)]
    pub(crate) fn normalise(&self, x: S::F32) -> S::F32 {
        (x - self.mean) * self.slope + self.shift
    }
}

/// `z` of a vector, in f64 where a lane or, with a residual, its result needs it.
#[inline(always)]
fn exact_z<S: Simd>(
    s: S,
    channels: &Lanes<ChannelNormalise>,
    x: S::F32,
    z: S::F32,
    residual: Option<S::F32>,
) -> S::F32 {
    let (mut values, mut residuals, mut results) = ([0.0; LANES], [NOTHING; LANES], [0.0; LANES]);
    s.store(x, &mut values);
    if let Some(residual) = residual {
        s.store(residual, &mut residuals);
    }
    s.store(z, &mut results);
    exact_lanes(channels, &values, residual.is_some().then_some(&residuals), &mut results);
    s.load(&results)
}

#[cold]
#[inline(never)]
fn exact_lanes(
    channels: &Lanes<ChannelNormalise>,
    values: &Lanes<f32>,
    residuals: Option<&Lanes<f32>>,
    results: &mut Lanes<f32>,
) {
    for (lane, ((channel, &x), z)) in channels.iter().zip(values).zip(results).enumerate() {
        let residual = residuals.map_or(NOTHING, |residuals| residuals[lane % LANES]);
        // The sum with a residual may be finite though one of its terms is not.
        let exact = channel.exact || (residuals.is_some() && !z.is_finite());
        *z = if exact { channel.exactly(x, residual) } else { *z + residual };
    }
}

/// The fields of a table of coefficients: pairs of f32 vectors, mean and slope, shift and whether f64 is needed.
pub(crate) const FIELDS: usize = 2;

/// The coefficients of a group, into its table.
#[derive(Debug)]
pub(crate) struct GroupCoefficients<'a> {
    pub(crate) normalisation: Normalisation<'a>,
    pub(crate) group: Group,
    pub(crate) table: &'a mut [Tile<FIELDS>],
}

impl Kernel for GroupCoefficients<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { normalisation, group, table } = self;
        for channels in group.sixteens() {
            let normalise = normalisation.coefficients(s, channels, &normalisation.centre(s, channels));
            let mut fields = [[0.0; LANES]; FIELDS];
            let [first, second] = &mut fields;
            normalise.store(s, [first, second]);
            group.spread(channels, table, 0, (&fields, &[]));
        }
    }
}

/// The output of a group, whose coefficients are in its table.
#[inline(always)]
pub(crate) fn elements<A: Activation>(
    tasks: Tasks,
    walk: &Walk,
    group: Group,
    apply: &Apply<'_, A>,
    table: &[Tile<FIELDS>],
    input: Option<&[f32]>,
    output: &mut [f32],
) {
    let written = Written { output, grad_residual: None, base: 0 };
    tasks.elements(walk, group, written, |units, Written { output, base, .. }| {
        tasks.run(Forward { walk, group, apply, table, units, elements: Elements { input, output, base } });
    });
}

/// The output of some units of a group.
struct Forward<'a, A> {
    walk: &'a Walk,
    group: Group,
    apply: &'a Apply<'a, A>,
    table: &'a [Tile<FIELDS>],
    units: Range<usize>,
    elements: Elements<'a>,
}

impl<A: Activation> Kernel for Forward<'_, A> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match *self.walk {
            Walk::Empty => {}
            Walk::Planar(planar) => self.planar(s, &planar),
            Walk::Columns(columns) => self.columns(s, &columns),
        }
    }
}

impl<A: Activation> Forward<'_, A> {
    #[inline(always)]
    fn planar<S: Simd>(mut self, s: S, planar: &Planar) {
        let Some(tile) = self.table.first() else { return };
        for (column, start, len) in planar.runs(self.group, self.units.clone()) {
            let coefficients = Coefficients::of_column(s, tile, column);
            let channel = self.group.first_channel + column;
            if any(s, coefficients.exact) {
                exact_run(self.apply, channel, tile, column, start, len, &mut self.elements);
            } else {
                run(s, self.apply, &coefficients, Owner::Channel(channel), start, len, &mut self.elements);
            }
        }
    }

    #[inline(always)]
    fn columns<S: Simd>(mut self, s: S, columns: &Columns) {
        if self.table.iter().any(|tile| any(s, Coefficients::of_tile(s, tile).exact)) {
            return self.exact_columns(columns);
        }
        let (group, apply) = (self.group, self.apply);
        for (start, len) in columns.rows_of(group, self.units.clone()) {
            let (mut first, mut column) = (start, 0);
            let (slots, rest) = self.elements.run(start, len).split();
            for (slot, tile) in slots.zip(self.table) {
                let coefficients = Coefficients::of_tile(s, tile);
                let owner = Owner::Column(group, column);
                let z = apply.z(s, &coefficients, slot.load(s), owner, (first, LANES));
                s.store(apply.finish(s, &apply.keep, z, first), slot.output);
                first += LANES;
                column += LANES;
            }
            if let (lanes @ 1.., Some(tile)) = (len % LANES, self.table.get(len / LANES)) {
                let coefficients = Coefficients::of_tile(s, tile);
                let owner = Owner::Column(group, column);
                let z = apply.z(s, &coefficients, rest.load(s), owner, (first, lanes));
                s.store_partial(apply.finish(s, &apply.keep, z, first), rest.output);
            }
        }
    }

    /// Rows with columns that need f64, tile by tile. All lanes give the same bits, so the portable ones serve every
    /// backend.
    #[cold]
    #[inline(never)]
    fn exact_columns(mut self, columns: &Columns) {
        let s = Portable;
        for (number, tile) in self.table.iter().enumerate() {
            let coefficients = Coefficients::of_tile(s, tile);
            let channels = of_columns(&self.apply.normalisation, self.group, number * LANES);
            for (start, len) in columns.rows_of(self.group, self.units.clone()) {
                let (first, lanes) = (start + number * LANES, LANES.min(len.saturating_sub(number * LANES)));
                if lanes == 0 {
                    continue;
                }
                let place = self.elements.run(first, lanes);
                let z = self.apply.z(s, &coefficients, place.load(s), Owner::Exact(&channels), (first, lanes));
                s.store_partial(self.apply.finish(s, &self.apply.keep, z, first), place.output);
            }
        }
    }
}

/// A run of a channel that needs f64.
#[cold]
#[inline(never)]
fn exact_run<A: Activation>(
    apply: &Apply<'_, A>,
    channel: usize,
    tile: &Tile<FIELDS>,
    column: usize,
    start: usize,
    len: usize,
    elements: &mut Elements<'_>,
) {
    let channels = [apply.normalisation.of_channel(channel); LANES];
    let coefficients = Coefficients::of_column(Portable, tile, column);
    run(Portable, apply, &coefficients, Owner::Exact(&channels), start, len, elements);
}

#[inline(always)]
fn run<S: Simd, A: Activation>(
    s: S,
    apply: &Apply<'_, A>,
    coefficients: &Coefficients<S>,
    owner: Owner<'_>,
    start: usize,
    len: usize,
    elements: &mut Elements<'_>,
) {
    let keep = apply.keep.within(start, len);
    let mut first = start;
    let (slots, rest) = elements.run(start, len).split();
    for slot in slots {
        let z = apply.z(s, coefficients, slot.load(s), owner, (first, LANES));
        s.store(apply.finish(s, &keep, z, first), slot.output);
        first += LANES;
    }
    if let lanes @ 1.. = len % LANES {
        let z = apply.z(s, coefficients, rest.load(s), owner, (first, lanes));
        s.store_partial(apply.finish(s, &keep, z, first), rest.output);
    }
}

//! Normalise, activate and drop: the elementwise half of every forward call.
//!
//! `y = keep ? act((x - mean)*slope + shift + residual)*scale : +0.0`, with the dropout scale folded into slope and shift
//! where the activation allows it and there is no residual. One pass: 4 bytes read and 4 written per element, 4 more
//! read with a residual, and one mask bit.

use super::{Columns, Elements, Keep, Planar, RowBlock, Run, Slot, Strip, Tile, lane_of, load, range};
use crate::activation::Activation;
use crate::channel::Normalise;
use crate::simd::{LANES, Lanes, Portable, Simd};

/// The rows of a tile that are worked in sequence, with its coefficients in registers.
const ROWS: usize = 32;

/// What the elementwise passes do after normalisation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Apply<'a, A> {
    pub(crate) activation: A,
    /// What is added to the normalised values, if anything is.
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) keep: Keep<'a>,
}

impl<A: Activation> Apply<'_, A> {
    /// The same for the elements of a range alone.
    #[inline(always)]
    pub(crate) fn within(&self, first: usize, len: usize) -> Self {
        Self { keep: self.keep.within(first, len), ..*self }
    }

    /// Whether the dropout scale is part of the normalisation.
    #[inline(always)]
    fn folds_scale(&self) -> bool {
        A::HOMOGENEOUS && self.residual.is_none()
    }

    /// The part of the dropout scale that belongs into the normalisation.
    #[inline(always)]
    pub(crate) fn folded_scale(&self) -> f32 {
        if self.folds_scale() { self.keep.scale } else { 1.0 }
    }

    /// `z` of a vector of one channel, where lane 0 is element `first` and there are `lanes` of them.
    #[inline(always)]
    pub(crate) fn channel_z<S: Simd, const EXACT: bool>(
        &self,
        s: S,
        coefficients: &Coefficients<S>,
        normalise: &Normalise,
        x: S::F32,
        (first, lanes): (usize, usize),
    ) -> S::F32 {
        match self.residual {
            None if !EXACT => coefficients.normalise(x),
            None => exact_channel(s, normalise, x, None),
            Some(residual) => {
                let residual = load(s, range(residual, first, lanes));
                let z = coefficients.normalise(x);
                // The sum may be finite though one of its terms is not.
                if EXACT || !is_finite(s, z) {
                    return exact_channel(s, normalise, x, Some(residual));
                }
                z + residual
            }
        }
    }

    /// `z` of a vector whose lanes are columns of a tile, some of which need f64 if `EXACT`.
    #[inline(always)]
    pub(crate) fn tile_z<S: Simd, const EXACT: bool>(
        &self,
        s: S,
        coefficients: &Coefficients<S>,
        tile: &CoefficientFields,
        x: S::F32,
        (first, lanes): (usize, usize),
    ) -> S::F32 {
        let z = coefficients.normalise(x);
        match self.residual {
            None if !EXACT => z,
            None => exact_tile_z(s, tile, x, z, None),
            Some(residual) => {
                let residual = load(s, range(residual, first, lanes));
                if EXACT || !is_finite(s, z) {
                    return exact_tile_z(s, tile, x, z, Some(residual));
                }
                z + residual
            }
        }
    }

    /// From `z` to `y`, where lane 0 is element `first`.
    #[inline(always)]
    fn finish<S: Simd>(&self, s: S, z: S::F32, first: usize) -> S::F32 {
        let y = self.activation.forward(s, z);
        let y = if self.folds_scale() { y } else { y * s.splat(self.keep.scale) };
        self.keep.select(s, first, y)
    }
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
}

impl<S: Simd> Coefficients<S> {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
    pub(crate) fn of_channel(s: S, normalise: &Normalise) -> Self {
        Self {
            mean: s.splat(normalise.mean),
            slope: s.splat(normalise.slope as f32),
            shift: s.splat(normalise.shift as f32),
        }
    }

    #[inline(always)]
    pub(crate) fn of_tile(s: S, tile: &CoefficientFields) -> Self {
        Self {
            mean: s.narrow(s.load_f64(&tile[MEAN])),
            slope: s.narrow(s.load_f64(&tile[SLOPE])),
            shift: s.narrow(s.load_f64(&tile[SHIFT])),
        }
    }

    /// `z`, in f32.
    #[inline(always)]
    pub(crate) fn normalise(&self, x: S::F32) -> S::F32 {
        (x - self.mean) * self.slope + self.shift
    }
}

/// `z` of a vector of one channel, in f64.
#[inline(always)]
fn exact_channel<S: Simd>(s: S, normalise: &Normalise, x: S::F32, residual: Option<S::F32>) -> S::F32 {
    let (mut values, mut residuals) = ([0.0; LANES], [NOTHING; LANES]);
    s.store(x, &mut values);
    if let Some(residual) = residual {
        s.store(residual, &mut residuals);
    }
    exact_channel_lanes(normalise, &mut values, &residuals);
    s.load(&values)
}

#[cold]
#[inline(never)]
fn exact_channel_lanes(normalise: &Normalise, values: &mut Lanes<f32>, residuals: &Lanes<f32>) {
    for (value, &residual) in values.iter_mut().zip(residuals) {
        *value = normalise.exactly(*value, residual);
    }
}

/// Applies the layer to all runs of one channel.
#[inline(always)]
pub(crate) fn planar<S: Simd, A: Activation>(
    s: S,
    planar: &Planar,
    apply: &Apply<'_, A>,
    normalise: &Normalise,
    channel: usize,
    elements: &mut impl Elements,
) {
    if normalise.exact {
        exact_planar(planar, apply, normalise, channel, elements);
    } else {
        runs::<S, A, false>(s, planar, apply, normalise, channel, elements);
    }
}

/// [`planar`] for a channel that needs f64. All lanes give the same bits, so the portable ones serve every backend.
#[cold]
#[inline(never)]
fn exact_planar<A: Activation>(
    planar: &Planar,
    apply: &Apply<'_, A>,
    normalise: &Normalise,
    channel: usize,
    elements: &mut impl Elements,
) {
    runs::<Portable, A, true>(Portable, planar, apply, normalise, channel, elements);
}

#[inline(always)]
fn runs<S: Simd, A: Activation, const EXACT: bool>(
    s: S,
    planar: &Planar,
    apply: &Apply<'_, A>,
    normalise: &Normalise,
    channel: usize,
    elements: &mut impl Elements,
) {
    let coefficients = Coefficients::of_channel(s, normalise);
    for outer in 0..planar.outer {
        let mut first = planar.start(outer, channel);
        let apply = apply.within(first, planar.inner);
        let mut run = elements.run(first, planar.inner);
        for mut slot in run.chunks() {
            let x = s.load(slot.input());
            let z = apply.channel_z::<S, EXACT>(s, &coefficients, normalise, x, (first, LANES));
            s.store(apply.finish(s, z, first), slot.output());
            first += LANES;
        }
        let mut slot = run.rest();
        let lanes = slot.input().len();
        if lanes != 0 {
            let x = s.load_partial(slot.input());
            let z = apply.channel_z::<S, EXACT>(s, &coefficients, normalise, x, (first, lanes));
            s.store_partial(apply.finish(s, z, first), slot.output());
        }
    }
}

/// The fields of a table of coefficients, f64 each; `EXACT` is 1 for columns that need f64 and 0 for the others.
pub(crate) const FIELDS: usize = 4;
const MEAN: usize = 0;
const SLOPE: usize = 1;
const SHIFT: usize = 2;
pub(crate) const EXACT: usize = 3;

/// The coefficients of sixteen columns.
pub(crate) type CoefficientFields = Tile<FIELDS>;

/// Whether any column of a tile needs f64.
#[inline(always)]
pub(crate) fn any_exact(exact: &Lanes<f64>) -> bool {
    exact.iter().fold(false, |any, &exact| any | (exact != 0.0))
}

/// The coefficients of one column.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the mean is stored as it was, an f32")]
pub(crate) fn column(tile: &CoefficientFields, lane: usize) -> Normalise {
    Normalise {
        mean: lane_of(&tile[MEAN], lane) as f32,
        slope: lane_of(&tile[SLOPE], lane),
        shift: lane_of(&tile[SHIFT], lane),
        exact: lane_of(&tile[EXACT], lane) != 0.0,
    }
}

/// `z` of a vector whose lanes are columns of a tile, in f64 where a column or its result needs it.
#[inline(always)]
fn exact_tile_z<S: Simd>(s: S, tile: &CoefficientFields, x: S::F32, z: S::F32, residual: Option<S::F32>) -> S::F32 {
    let (mut values, mut residuals, mut results) = ([0.0; LANES], [NOTHING; LANES], [0.0; LANES]);
    s.store(x, &mut values);
    if let Some(residual) = residual {
        s.store(residual, &mut residuals);
    }
    s.store(z, &mut results);
    exact_tile_lanes(tile, &values, residual.is_some().then_some(&residuals), &mut results);
    s.load(&results)
}

#[cold]
#[inline(never)]
fn exact_tile_lanes(
    tile: &CoefficientFields,
    values: &Lanes<f32>,
    residuals: Option<&Lanes<f32>>,
    results: &mut Lanes<f32>,
) {
    for (lane, (&x, z)) in values.iter().zip(results).enumerate() {
        let normalise = column(tile, lane);
        let residual = residuals.map_or(NOTHING, |residuals| residuals[lane % LANES]);
        // The sum with a residual may be finite though one of its terms is not.
        let exact = normalise.exact || (residuals.is_some() && !z.is_finite());
        *z = if exact { normalise.exactly(x, residual) } else { *z + residual };
    }
}

/// Applies the layer to all rows of one strip, with a table of its coefficients.
#[inline(always)]
pub(crate) fn columns<S: Simd, A: Activation>(
    s: S,
    columns: &Columns,
    apply: &Apply<'_, A>,
    strip: Strip,
    table: &[CoefficientFields],
    elements: &mut impl Elements,
) {
    for block in columns.all_rows(strip, ROWS) {
        for (tile, block) in table.iter().zip(block.tiles()) {
            if any_exact(&tile[EXACT]) {
                exact_tile(apply, tile, block, elements);
            } else {
                rows::<S, A, false>(s, apply, tile, block, elements);
            }
        }
    }
}

/// A tile with columns that need f64. All lanes give the same bits, so the portable ones serve every backend.
#[cold]
#[inline(never)]
fn exact_tile<A: Activation>(
    apply: &Apply<'_, A>,
    tile: &CoefficientFields,
    block: RowBlock,
    elements: &mut impl Elements,
) {
    rows::<Portable, A, true>(Portable, apply, tile, block, elements);
}

#[inline(always)]
fn rows<S: Simd, A: Activation, const EXACT: bool>(
    s: S,
    apply: &Apply<'_, A>,
    tile: &CoefficientFields,
    block: RowBlock,
    elements: &mut impl Elements,
) {
    let coefficients = Coefficients::of_tile(s, tile);
    let mut first = block.first();
    for mut slot in elements.rows(block) {
        let x = block.load(s, slot.input());
        let z = apply.tile_z::<S, EXACT>(s, &coefficients, tile, x, (first, block.columns));
        block.store(s, apply.finish(s, z, first), slot.output());
        first += block.width;
    }
}

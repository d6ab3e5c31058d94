//! The input gradient: the elementwise half of every backward call.
//!
//! `dx = g*slope + ((x - mean)*tilt + offset)` through batch statistics and `dx = g*slope` past fixed ones, with `g`
//! computed again from `x` and `dy`; the gradient of a residual is `g*scale`. One pass: 8 bytes read and 4 written per
//! element, 4 more of each with a residual, and one mask bit.

use super::apply::{self, Apply, Coefficients};
use super::reduce::{FIELDS, SUMS, forward_fields};
use super::{Columns, Elements, Planar, RowBlock, Run, Slot, Strip, Tile, lane_of, range, store_at};
use crate::activation::Activation;
use crate::channel::{Differentiate, Normalise};
use crate::simd::{LANES, Portable, Simd};

/// The rows of a tile that are worked in sequence, with its coefficients in registers.
const ROWS: usize = 32;

/// The coefficients of one vector of gradients.
#[derive(Clone, Copy)]
struct GradientCoefficients<S: Simd> {
    slope: S::F32,
    tilt: S::F32,
    offset: S::F32,
}

impl<S: Simd> GradientCoefficients<S> {
    /// `dx` in f32. Fixed statistics have no terms of `x`, not even where it is not finite.
    #[inline(always)]
    fn differentiate<const BATCH: bool>(&self, deviation: S::F32, g: S::F32) -> S::F32 {
        if BATCH { g * self.slope + (deviation * self.tilt + self.offset) } else { g * self.slope }
    }
}

/// The tensors of a backward call.
#[derive(Debug)]
pub(crate) struct Tensors<'a, E> {
    /// `x`.
    pub(crate) input: &'a [f32],
    /// From `dy` to `dx`.
    pub(crate) elements: E,
    /// The gradient of the residual, if it is wanted beside `dx`.
    pub(crate) grad_residual: Option<&'a mut [f32]>,
}

/// One channel's coefficients of a backward call.
pub(crate) struct ChannelGradient<'a, A> {
    pub(crate) apply: &'a Apply<'a, A>,
    pub(crate) normalise: &'a Normalise,
    pub(crate) differentiate: &'a Differentiate,
}

/// The input gradient of all runs of one channel.
#[inline(always)]
pub(crate) fn planar<S: Simd, A: Activation, const BATCH: bool>(
    s: S,
    planar: &Planar,
    channel: &ChannelGradient<'_, A>,
    number: usize,
    tensors: &mut Tensors<'_, impl Elements>,
) {
    if channel.normalise.exact || channel.differentiate.exact {
        exact_planar::<A, BATCH>(planar, channel, number, tensors);
    } else {
        runs::<S, A, BATCH, false>(s, planar, channel, number, tensors);
    }
}

/// [`planar`] for a channel that needs f64. All lanes give the same bits, so the portable ones serve every backend.
#[cold]
#[inline(never)]
fn exact_planar<A: Activation, const BATCH: bool>(
    planar: &Planar,
    channel: &ChannelGradient<'_, A>,
    number: usize,
    tensors: &mut Tensors<'_, impl Elements>,
) {
    runs::<Portable, A, BATCH, true>(Portable, planar, channel, number, tensors);
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
fn runs<S: Simd, A: Activation, const BATCH: bool, const EXACT: bool>(
    s: S,
    planar: &Planar,
    channel: &ChannelGradient<'_, A>,
    number: usize,
    tensors: &mut Tensors<'_, impl Elements>,
) {
    let mut vectors = ChannelVectors {
        channel,
        apply: *channel.apply,
        forward: Coefficients::of_channel(s, channel.normalise),
        backward: GradientCoefficients::<S> {
            slope: s.splat(channel.differentiate.slope as f32),
            tilt: s.splat(channel.differentiate.tilt as f32),
            offset: s.splat(channel.differentiate.offset as f32),
        },
    };
    for outer in 0..planar.outer {
        let mut first = planar.start(outer, number);
        vectors.apply = channel.apply.within(first, planar.inner);
        let (x, x_tail) = range(tensors.input, first, planar.inner).as_chunks();
        let mut run = tensors.elements.run(first, planar.inner);
        for (x, mut slot) in x.iter().zip(run.chunks()) {
            let (x, dy, place) = (s.load(x), s.load(slot.input()), (first, LANES));
            let g = vectors.gradient::<EXACT>(s, x, dy, place);
            store_at(s, vectors.of_residual(s, g), tensors.grad_residual.as_deref_mut(), place);
            s.store(vectors.differentiate::<BATCH, EXACT>(s, x, g), slot.output());
            first += LANES;
        }
        if !x_tail.is_empty() {
            let mut slot = run.rest();
            let (x, dy, place) = (s.load_partial(x_tail), s.load_partial(slot.input()), (first, x_tail.len()));
            let g = vectors.gradient::<EXACT>(s, x, dy, place);
            store_at(s, vectors.of_residual(s, g), tensors.grad_residual.as_deref_mut(), place);
            s.store_partial(vectors.differentiate::<BATCH, EXACT>(s, x, g), slot.output());
        }
    }
}

/// The coefficients of one channel in every lane.
struct ChannelVectors<'a, S: Simd, A> {
    channel: &'a ChannelGradient<'a, A>,
    apply: Apply<'a, A>,
    forward: Coefficients<S>,
    backward: GradientCoefficients<S>,
}

impl<S: Simd, A: Activation> ChannelVectors<'_, S, A> {
    /// `g` without the dropout scale.
    #[inline(always)]
    fn gradient<const EXACT: bool>(&self, s: S, x: S::F32, dy: S::F32, place: (usize, usize)) -> S::F32 {
        let normalise = self.channel.normalise;
        let z = if EXACT && normalise.exact {
            self.apply.channel_z::<S, true>(s, &self.forward, normalise, x, place)
        } else {
            self.apply.channel_z::<S, false>(s, &self.forward, normalise, x, place)
        };
        self.apply.gradient(s, z, dy, place.0)
    }

    /// The gradient of the residual.
    #[inline(always)]
    fn of_residual(&self, s: S, g: S::F32) -> S::F32 {
        g * s.splat(self.apply.keep.scale)
    }

    #[inline(always)]
    fn differentiate<const BATCH: bool, const EXACT: bool>(&self, s: S, x: S::F32, g: S::F32) -> S::F32 {
        if !EXACT {
            return self.backward.differentiate::<BATCH>(x - self.forward.mean, g);
        }
        let (mut values, mut gradients) = ([0.0; LANES], [0.0; LANES]);
        s.store(x, &mut values);
        s.store(g, &mut gradients);
        for (&x, g) in values.iter().zip(&mut gradients) {
            *g = self.channel.differentiate.exactly::<BATCH>(self.channel.normalise.mean, x, *g);
        }
        s.load(&gradients)
    }
}

/// The fields of the input gradient in the table of a backward call, where the sums were.
const SLOPE: usize = SUMS;
const TILT: usize = SUMS + 1;
const OFFSET: usize = SUMS + 2;
const EXACT: usize = SUMS + 3;

/// The input gradient of all rows of one strip, with a table of its coefficients.
#[inline(always)]
pub(crate) fn columns<S: Simd, A: Activation, const BATCH: bool>(
    s: S,
    columns: &Columns,
    apply: &Apply<'_, A>,
    strip: Strip,
    table: &[Tile<FIELDS>],
    tensors: &mut Tensors<'_, impl Elements>,
) {
    for block in columns.all_rows(strip, ROWS) {
        for (tile, block) in table.iter().zip(block.tiles()) {
            if apply::any_exact(&tile[EXACT]) || apply::any_exact(&tile[apply::EXACT]) {
                exact_tile::<A, BATCH>(apply, tile, block, tensors);
            } else {
                rows::<S, A, BATCH, false>(s, apply, tile, block, tensors);
            }
        }
    }
}

/// A tile with columns that need f64. All lanes give the same bits, so the portable ones serve every backend.
#[cold]
#[inline(never)]
fn exact_tile<A: Activation, const BATCH: bool>(
    apply: &Apply<'_, A>,
    tile: &Tile<FIELDS>,
    block: RowBlock,
    tensors: &mut Tensors<'_, impl Elements>,
) {
    rows::<Portable, A, BATCH, true>(Portable, apply, tile, block, tensors);
}

#[inline(always)]
fn rows<S: Simd, A: Activation, const BATCH: bool, const EXACT: bool>(
    s: S,
    apply: &Apply<'_, A>,
    tile: &Tile<FIELDS>,
    block: RowBlock,
    tensors: &mut Tensors<'_, impl Elements>,
) {
    let forward = Coefficients::of_tile(s, forward_fields(tile));
    let backward = GradientCoefficients::<S> {
        slope: s.narrow(s.load_f64(&tile[SLOPE])),
        tilt: s.narrow(s.load_f64(&tile[TILT])),
        offset: s.narrow(s.load_f64(&tile[OFFSET])),
    };
    let mut first = block.first();
    for (x, mut slot) in block.rows_of(tensors.input).zip(tensors.elements.rows(block)) {
        let x = block.load(s, x);
        let place = (first, block.columns);
        let z = apply.tile_z::<S, EXACT>(s, &forward, forward_fields(tile), x, place);
        let g = apply.gradient(s, z, block.load(s, slot.input()), first);
        store_at(s, g * s.splat(apply.keep.scale), tensors.grad_residual.as_deref_mut(), place);
        let mut dx = backward.differentiate::<BATCH>(x - forward.mean, g);
        if EXACT {
            dx = exact_lanes::<S, BATCH>(s, tile, x, g, dx);
        }
        block.store(s, dx, slot.output());
        first += block.width;
    }
}

/// Replaces `dx` in the lanes that need f64.
#[inline(always)]
fn exact_lanes<S: Simd, const BATCH: bool>(s: S, tile: &Tile<FIELDS>, x: S::F32, g: S::F32, dx: S::F32) -> S::F32 {
    let (mut values, mut gradients, mut results) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    s.store(x, &mut values);
    s.store(g, &mut gradients);
    s.store(dx, &mut results);
    for (lane, ((&x, &g), dx)) in values.iter().zip(&gradients).zip(&mut results).enumerate() {
        if lane_of(&tile[EXACT], lane) != 0.0 {
            let differentiate = Differentiate {
                slope: lane_of(&tile[SLOPE], lane),
                tilt: lane_of(&tile[TILT], lane),
                offset: lane_of(&tile[OFFSET], lane),
                exact: true,
            };
            *dx = differentiate.exactly::<BATCH>(apply::column(forward_fields(tile), lane).mean, x, g);
        }
    }
    s.load(&results)
}

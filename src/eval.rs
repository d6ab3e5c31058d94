//! Forward with given statistics, top to bottom: coefficients from the statistics, then one pass.

use crate::activation::Activation;
use crate::args::{Dropout, Parameters, Statistics};
use crate::channel::Normalise;
use crate::layer::Layer;
use crate::pass::apply::{self, Apply};
use crate::pass::{Elements, Keep, Walk, put_column, table};
use crate::simd::{Kernel, Simd, dispatch};

/// The fields per column of this call's scratch.
pub(crate) const FIELDS: usize = apply::FIELDS;

/// A forward call with given statistics.
pub(crate) struct EvalCall<'a, E> {
    pub(crate) parameters: Parameters<'a>,
    pub(crate) statistics: Statistics<'a>,
    pub(crate) dropout: Dropout<'a>,
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) elements: E,
    pub(crate) scratch: &'a mut [f64],
}

/// Runs an evaluation call whose arguments have been checked.
pub(crate) fn run<A: Activation>(layer: &Layer<A>, mut call: EvalCall<'_, impl Elements>) {
    match layer.keep_of(call.dropout) {
        Some(keep) => dispatch(layer.backend(), Forward { layer, keep, call }),
        None => call.elements.target().fill(0.0),
    }
}

struct Forward<'a, A, E> {
    layer: &'a Layer<A>,
    keep: Keep<'a>,
    call: EvalCall<'a, E>,
}

impl<A: Activation, E: Elements> Kernel for Forward<'_, A, E> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { layer, keep, call } = self;
        let EvalCall { parameters, statistics, residual, mut elements, scratch, .. } = call;
        let apply = Apply { activation: layer.activation(), residual, keep };
        let coefficients =
            ChannelCoefficients { parameters, statistics, eps: layer.config().eps, scale: apply.folded_scale() };
        match layer.walk() {
            Walk::Empty => {}
            Walk::Planar(planar) => {
                for channel in 0..planar.channels {
                    apply::planar(s, &planar, &apply, &coefficients.of(s, channel), channel, &mut elements);
                }
            }
            Walk::Columns(columns) => {
                for strip in columns.strips() {
                    let table = table(scratch, strip.columns);
                    for (column, channel) in strip.column_channels(&columns).enumerate() {
                        put_column(table, column, 0, coefficients.of(s, channel).fields());
                    }
                    apply::columns(s, &columns, &apply, strip, table, &mut elements);
                }
            }
        }
    }
}

struct ChannelCoefficients<'a> {
    parameters: Parameters<'a>,
    statistics: Statistics<'a>,
    eps: f32,
    scale: f32,
}

impl ChannelCoefficients<'_> {
    #[inline(always)]
    fn of<S: Simd>(&self, s: S, channel: usize) -> Normalise {
        Normalise::new(
            self.statistics.centre(s, channel, self.eps),
            self.parameters.weight(channel),
            self.parameters.bias(channel),
            self.scale,
        )
    }
}

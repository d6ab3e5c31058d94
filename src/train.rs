//! Forward with batch statistics, top to bottom: for each channel, or strip of channels, its moments, what is kept of
//! them, its coefficients, and its output, which finds the input in the cache again where the channel fits it.

use crate::activation::Activation;
use crate::args::{Finish, Parameters, RunningMut, SavedMut, Train};
use crate::channel::{Centre, Moments, Normalise, RunningUpdate};
use crate::config::Config;
use crate::layer::Layer;
use crate::moments::channel_moments;
use crate::pass::apply::{self, Apply};
use crate::pass::{Apart, Keep, Walk, moments, put_column, table};
use crate::simd::{Kernel, Portable, Simd, dispatch};

/// The fields per column of this call's scratch: first the moments, then the coefficients in their place.
pub(crate) const FIELDS: usize = {
    assert!(moments::FIELDS == apply::FIELDS, "the coefficients take the place of the moments");
    moments::FIELDS
};

/// Runs a training call whose arguments have been checked.
pub(crate) fn run<A: Activation>(layer: &Layer<A>, mut call: Train<'_>) {
    if layer.shape().is_empty() {
        return;
    }
    let keep = layer.keep_of(call.dropout);
    if keep.is_none() {
        call.output.fill(0.0);
    }
    let update = next_update(layer.config(), call.running.as_mut());
    dispatch(layer.backend(), Forward { layer, keep, update, call });
}

/// How a batch moves the running statistics; counts it.
fn next_update(config: Config, running: Option<&mut RunningMut<'_>>) -> RunningUpdate {
    let momentum = config.momentum;
    let momentum = running.map_or(momentum, |running| running.average.next_momentum(momentum));
    RunningUpdate { momentum, variance: config.running_var }
}

/// Finishes the moments of a batch, in a call whose arguments have been checked.
pub(crate) fn finish<A: Activation>(layer: &Layer<A>, call: Finish<'_>) {
    let Finish { moments, mut running, saved } = call;
    let update = next_update(layer.config(), running.as_mut());
    let mut statistics = ChannelStatistics { eps: layer.config().eps, update, running, saved };
    for channel in 0..layer.shape().channels() {
        let moments = channel_moments(moments, channel);
        if moments.count != 0.0 {
            // Square roots are rounded the same way everywhere.
            statistics.finish(Portable, channel, moments);
        }
    }
}

struct Forward<'a, A> {
    layer: &'a Layer<A>,
    /// Nothing if every element is dropped; the statistics are wanted all the same.
    keep: Option<Keep<'a>>,
    update: RunningUpdate,
    call: Train<'a>,
}

impl<A: Activation> Kernel for Forward<'_, A> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { layer, keep, update, call } = self;
        let Train { parameters, running, input, residual, output, saved, scratch, .. } = call;
        let mut elements = Apart { input, output };
        let mut statistics = ChannelStatistics { eps: layer.config().eps, update, running, saved };
        let apply = keep.map(|keep| Apply { activation: layer.activation(), residual, keep });
        match layer.walk() {
            Walk::Empty => {}
            Walk::Planar(planar) => {
                for channel in 0..planar.channels {
                    statistics.finish(s, channel, moments::planar(s, &planar, input, channel));
                    if let Some(apply) = &apply {
                        let normalise = statistics.normalise(channel, parameters, apply.folded_scale());
                        apply::planar(s, &planar, apply, &normalise, channel, &mut elements);
                    }
                }
            }
            Walk::Columns(columns) => {
                for strip in columns.strips() {
                    let table = table(scratch, strip.columns);
                    moments::columns(s, &columns, strip, input, table);
                    for channel in strip.range() {
                        statistics.finish(s, channel, moments::of_channel(&columns, strip, table, channel));
                    }
                    let Some(apply) = &apply else { continue };
                    for (column, channel) in strip.column_channels(&columns).enumerate() {
                        let normalise = statistics.normalise(channel, parameters, apply.folded_scale());
                        put_column(table, column, 0, normalise.fields());
                    }
                    apply::columns(s, &columns, apply, strip, table, &mut elements);
                }
            }
        }
    }
}

/// What becomes of the moments of a channel.
struct ChannelStatistics<'a> {
    eps: f32,
    update: RunningUpdate,
    running: Option<RunningMut<'a>>,
    saved: SavedMut<'a>,
}

impl ChannelStatistics<'_> {
    /// Saves the centre of a channel for the backward pass and moves the running statistics.
    #[inline(always)]
    fn finish<S: Simd>(&mut self, s: S, channel: usize, moments: Moments) {
        let centre = Centre::of_batch(s, moments, self.eps);
        if let (Some(mean), Some(tail), Some(inv_std)) = (
            self.saved.mean.get_mut(channel),
            self.saved.mean_tail.get_mut(channel),
            self.saved.inv_std.get_mut(channel),
        ) {
            (*mean, *tail, *inv_std) = (centre.mean, centre.tail, centre.inv_std);
        }
        if let Some(running) = &mut self.running
            && let (Some(mean), Some(var)) = (running.mean.get_mut(channel), running.var.get_mut(channel))
        {
            self.update.apply(mean, var, moments);
        }
    }

    /// The normalisation of a channel, from the very numbers that were saved for backward.
    #[inline(always)]
    fn normalise(&self, channel: usize, parameters: Parameters<'_>, scale: f32) -> Normalise {
        Normalise::new(
            self.saved.as_saved().centre(channel),
            parameters.weight(channel),
            parameters.bias(channel),
            scale,
        )
    }
}

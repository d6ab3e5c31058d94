//! Forward with batch statistics, top to bottom. For each group of channels: its moments, the saved
//! and running statistics, its coefficients, and its output. The output reads the input from the
//! cache if the group fits it.

use crate::activation::Formula;
use crate::args::{Finish, RunningMut, SavedMut, Statistics};
use crate::bits::WrittenGates;
use crate::channel::{BatchMoments, Centre, Channels, Moments, Normalisation, RunningUpdate};
use crate::config::Config;
use crate::pass::apply::{self, Apply, GroupCoefficients, folded_scale};
use crate::pass::channelwise::{self, Channel, channels};
use crate::pass::{self, moments, tables};
use crate::phase::eval::{close, written_gates};
use crate::plan::{Plan, TrainCall};
use crate::simd::{CHANNELWISE, Kernel, Lane, Machine, Simd};
use crate::storage::Storage;
use crate::walk::{Group, Tile, Walk};

/// Runs a training call whose arguments have been checked.
#[inline(always)]
pub(crate) fn run<T: Storage, const GATES: bool>(
    plan: &Plan,
    formula: &Formula,
    mut call: TrainCall<'_, T>,
    mut written: Option<&mut [u8]>,
) {
    if plan.shape.is_empty() {
        call.saved.clear();
        return;
    }
    // `None` if every element is dropped. The statistics are needed all the same.
    let gates = plan.gates_of(call.dropout);
    let keep = gates.as_ref().map(|(gates, scale)| gates.keep(*scale));
    if keep.is_none() {
        T::clear(&mut call.output);
        if GATES {
            close(written.take());
        }
    }
    let mut written = if GATES { written_gates(plan, call.dropout, written) } else { None };
    let (tasks, walk, config) = (plan.tasks(), &plan.walk(), plan.config);
    let update = next_update(config, call.running.as_mut());
    let TrainCall { parameters, mut running, input, residual, mut output, mut saved, scratch, .. } = call;
    let samples = plan.shape.samples() as f64;
    if CHANNELWISE {
        T::begin(keep.and(Some(input)), &mut output);
        for channel in channels(plan.shape) {
            let Moments { mean, m2, .. } = channelwise::moments::<T>(walk, plan.shape, channel, input);
            let mut statistics = ChannelStatistics { update, running: running.as_mut(), saved: &mut saved };
            let moments = BatchMoments { count: samples, mean, m2 };
            statistics.finish(Lane::FIRST, Channels::one(channel), &moments, config.eps);
            let Some(keep) = keep else { continue };
            let normalisation = Normalisation {
                parameters,
                statistics: Statistics::Batch(saved.as_saved()),
                eps: config.eps,
                scale: folded_scale(formula, residual.is_some(), keep.scale),
            };
            let apply = Apply::<T> {
                formula,
                normalisation: &normalisation,
                residual: residual.map(|residual| T::shorter(residual)),
                keep,
            };
            let channel = Channel::new(&apply, channel);
            match &mut written {
                Some(gates) if GATES => {
                    channel.forward_with_gates(plan.shape, T::left(Some(input)), &mut output, gates);
                }
                _ => channel.forward(plan.shape, T::left(Some(input)), &mut output),
            }
        }
        return;
    }
    for group in walk.groups(tasks.cached_values(), tasks.count) {
        let (table, parts) = tables(scratch, group, tasks.count);
        moments::of_group::<T>(tasks, (walk, plan.shape), group, input, table, parts);
        tasks.run(FinishGroup {
            walk,
            group,
            table,
            samples,
            eps: config.eps,
            statistics: ChannelStatistics { update, running: running.as_mut(), saved: &mut saved },
        });
        let Some(keep) = keep else { continue };
        let normalisation = Normalisation {
            parameters,
            statistics: Statistics::Batch(saved.as_saved()),
            eps: config.eps,
            scale: folded_scale(formula, residual.is_some(), keep.scale),
        };
        // The coefficients take the place of the moments.
        let table = pass::table(&mut &mut *scratch, group.tiles());
        tasks.run(GroupCoefficients { normalisation: &normalisation, group, table });
        let apply = Apply::<T> {
            formula,
            normalisation: &normalisation,
            residual: residual.map(|residual| T::shorter(residual)),
            keep,
        };
        let gates = written.as_mut().map(WrittenGates::reborrow);
        apply::elements(tasks, walk, group, &apply, table, Some(input), (T::reborrow(&mut output), gates));
    }
}

/// Counts the batch and says how it moves the running statistics.
fn next_update(config: Config, running: Option<&mut RunningMut<'_>>) -> RunningUpdate {
    let momentum = config.momentum;
    let momentum = running.map_or(momentum, |running| running.average.next_momentum(momentum));
    RunningUpdate { momentum, variance: config.running_var }
}

/// The kernel that does for a group what [`ChannelStatistics::finish`] does for some channels.
struct FinishGroup<'a, 'b> {
    walk: &'a Walk,
    group: Group,
    table: &'a [Tile<{ moments::FIELDS }>],
    samples: f64,
    eps: f32,
    statistics: ChannelStatistics<'a, 'b>,
}

impl Kernel for FinishGroup<'_, '_> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let Self { walk, group, table, samples, eps, mut statistics } = self;
        for channels in group.sixteens() {
            for s in m.each(channels.len) {
                let moments = moments::of_channels(s, walk, group, channels, table, samples).only(s, channels);
                statistics.finish(s, channels, &moments, eps);
            }
        }
    }
}

/// The saved and running statistics that the moments of a batch are written to.
struct ChannelStatistics<'a, 'b> {
    update: RunningUpdate,
    running: Option<&'a mut RunningMut<'b>>,
    saved: &'a mut SavedMut<'b>,
}

impl ChannelStatistics<'_, '_> {
    /// Saves the mean and the inverse standard deviation of `channels` for the backward pass, and
    /// moves their running statistics.
    #[inline(always)]
    fn finish<S: Simd>(&mut self, s: S, channels: Channels, moments: &BatchMoments<S>, eps: f32) {
        let centre = Centre::of_batch(s, moments, eps);
        s.store_partial(centre.mean, channels.of_mut(self.saved.mean));
        s.store_partial(centre.tail, channels.of_mut(self.saved.mean_tail));
        s.store_partial_f64(centre.inv_std, channels.of_mut(self.saved.inv_std));
        if let Some(running) = &mut self.running {
            self.update.apply(s, channels, running, moments);
        }
    }
}

/// Finishes the moments of a batch, one channel at a time, in a call whose arguments have been
/// checked. A channel without values keeps its running statistics.
pub(crate) fn finish(plan: &Plan, call: Finish<'_>) {
    let Finish { moments, mut running, mut saved } = call;
    let (channels, eps) = (plan.shape.channels(), plan.config.eps);
    let (counts, rest) = moments.split_at_checked(channels).unwrap_or_default();
    let (means, m2s) = rest.split_at_checked(channels).unwrap_or_default();
    saved.clear();
    if counts.iter().all(|&count| count == 0.0) {
        return;
    }
    let update = next_update(plan.config, running.as_mut());
    let mut statistics = ChannelStatistics { update, running: running.as_mut(), saved: &mut saved };
    for (channel, ((&count, &mean), &m2)) in counts.iter().zip(means).zip(m2s).enumerate() {
        if count != 0.0 {
            statistics.finish(Lane::FIRST, Channels::one(channel), &BatchMoments { count, mean, m2 }, eps);
        }
    }
}

//! Backward, top to bottom. For each group of channels: the coefficients of the forward call, the
//! sums, the gradients of weight and bias from the sums, the coefficients of the input gradient,
//! and the input gradient.

use crate::activation::Formula;
use crate::args::{ParameterGradients, Statistics};
use crate::channel::{Centre, Channels, Differential, Differentiation, Normalisation, Sums};
use crate::pass::apply::{self, Apply, folded_scale};
use crate::pass::channelwise::{Channel, channels};
use crate::pass::gradient::{self, Gradient};
use crate::pass::reduce;
use crate::pass::tables;
use crate::plan::{BackwardCall, Gradients, Phase, Plan, Target};
use crate::simd::{CHANNELWISE, Kernel, Lane, Machine, Simd};
use crate::storage::Storage;
use crate::tasks::Written;
use crate::walk::{Group, Tile};

/// Runs a backward call whose arguments have been checked.
#[inline(always)]
pub(crate) fn run<T: Storage>(plan: &Plan, formula: &Formula, call: &mut BackwardCall<'_, T>) {
    let BackwardCall { normalisation, dropout, phase, input, residual, gradients, grad_parameters, scratch } = call;
    let input = *input;
    // The gates have all that the activation would add: nothing of the forward call is computed again.
    let (formula, residual) = if dropout.is_gates() { (&Formula::OPEN, None) } else { (formula, *residual) };
    let Gradients { target, grad_output, output, grad_residual } = gradients;
    let (target, grad_output) = (*target, *grad_output);
    let gates = plan.gates_of(*dropout);
    let keep = gates.as_ref().map(|(gates, scale)| gates.keep(*scale));
    let Some(keep) = keep.filter(|_| !plan.shape.is_empty()) else {
        if let Phase::Reduce(sums) = phase {
            sums.fill(0.0);
        }
        let ParameterGradients { weight, bias } = core::mem::take(grad_parameters);
        for gradient in [weight, bias].into_iter().flatten() {
            gradient.fill(0.0);
        }
        grad_residual.iter_mut().for_each(T::clear);
        T::clear(output);
        return;
    };
    let (tasks, walk) = (plan.tasks(), &plan.walk());
    normalisation.scale = folded_scale(formula, residual.is_some(), keep.scale);
    let normalisation = &*normalisation;
    let apply = Apply::<T> { formula, normalisation, residual: residual.map(|residual| T::shorter(residual)), keep };
    let differential = match normalisation.statistics {
        _ if target == Target::Residual => Differential::Residual,
        Statistics::Batch(_) => Differential::Batch,
        Statistics::Fixed(_) | Statistics::Prepared(_) => Differential::Fixed,
    };
    let samples = match phase {
        Phase::Apply { samples, .. } => *samples,
        Phase::Whole | Phase::Reduce(_) => plan.shape.samples() as f64,
    };
    let differentiation = Differentiation { normalisation, differential, scale: keep.scale, samples };
    let write = target != Target::Nothing;
    // With fixed statistics the input gradient needs no sums.
    let reduce = match phase {
        Phase::Whole => {
            let wanted = grad_parameters.weight.is_some() || grad_parameters.bias.is_some();
            wanted || target == Target::Input && differential == Differential::Batch
        }
        Phase::Reduce(_) => true,
        Phase::Apply { .. } => false,
    };
    if CHANNELWISE {
        if write {
            T::begin(grad_output, output);
        }
        for channel in channels(plan.shape) {
            let (s, one) = (Lane::FIRST, Channels::one(channel));
            let this = Channel::with(&apply, channel, normalisation.of_channel(channel));
            let centre = normalisation.centre_of_channel(channel);
            let of_channel = reduce.then(|| {
                let grad = match grad_output {
                    Some(grad) if !(T::DIRECT && write) => T::shorter(grad),
                    _ => T::as_ref(output),
                };
                this.sums(walk, centre.unit(s), T::shorter(input), grad)
            });
            let sums = Wanted { phase, grad_parameters }.sums(s, one, &centre, of_channel, keep.scale);
            if write {
                let differentiate = differentiation.of_channel(channel, &centre, [sums.g, sums.g_xhat]);
                let batch = differential == Differential::Batch;
                let inputs = (T::shorter(input), T::left(grad_output.map(|grad| T::shorter(grad))));
                this.gradient(plan.shape, (&differentiate, batch), inputs, output, grad_residual.as_mut());
            }
        }
        return;
    }
    // A group that is read twice should be in the cache the second time.
    let values = if reduce && write { tasks.cached_values() / 2 } else { usize::MAX };
    for group in walk.groups(values, tasks.count) {
        let (table, parts) = tables(scratch, group, tasks.count);
        tasks.run(GroupCoefficients { normalisation, group, table });
        if reduce {
            let grad = grad_output.map_or(T::as_ref(output), |grad| T::shorter(grad));
            let tensors = (T::shorter(input), grad);
            reduce::of_group(tasks, walk, group, &apply, tensors, table, parts);
        }
        tasks.run(FinishGroup {
            group,
            table,
            differentiation,
            reduced: reduce,
            wanted: Wanted { phase, grad_parameters },
        });
        if write {
            let grad_output = grad_output.map(|grad| T::shorter(grad));
            let gradient = Gradient::<T> { apply, differentiation, input: T::shorter(input), grad_output };
            let grad_residual = grad_residual.as_mut().map(T::reborrow);
            let written = Written::<T> { output: T::reborrow(output), grad_residual, gates: None, base: 0 };
            gradient::elements(tasks, walk, group, &gradient, table, written);
        }
    }
}

/// The kernel that writes the coefficients for the sums of a group into its table.
struct GroupCoefficients<'a> {
    normalisation: &'a Normalisation<'a>,
    group: Group,
    table: &'a mut [Tile<{ reduce::FIELDS }>],
}

impl Kernel for GroupCoefficients<'_> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let Self { normalisation, group, table } = self;
        for channels in group.sixteens() {
            for s in m.each(channels.len) {
                // The normalisation of the forward call, to the bit.
                apply::put_coefficients(s, group, channels, table, &normalisation.of_channels(s, channels));
                let (zero, unit) = (s.splat(0.0), s.narrow(normalisation.centre(s, channels).unit(s)));
                group.put_pair(s, channels, table, reduce::OFFSET, [zero, unit]);
                for field in [reduce::G, reduce::G_OTHER] {
                    group.put_f64(s, channels, table, field, s.splat_f64(0.0));
                }
            }
        }
    }
}

/// The kernel that finishes the sums of a group: it writes the gradients of the parameters, and the
/// coefficients of the input gradient into the table.
struct FinishGroup<'a, 'b> {
    group: Group,
    table: &'a mut [Tile<{ reduce::FIELDS }>],
    differentiation: Differentiation<'a>,
    /// Whether the table has sums that this call has made.
    reduced: bool,
    wanted: Wanted<'a, 'b>,
}

/// The source or the destinations of the sums: the caller gives them (apply phase), or the call
/// writes them.
struct Wanted<'a, 'b> {
    phase: &'a mut Phase<'b>,
    grad_parameters: &'a mut ParameterGradients<'b>,
}

impl Kernel for FinishGroup<'_, '_> {
    #[inline(always)]
    fn run<M: Machine>(mut self, m: M) {
        for channels in self.group.sixteens() {
            for s in m.each(channels.len) {
                let centre = self.differentiation.normalisation.centre(s, channels);
                let of_channels =
                    if self.reduced { Some(reduce::of_channels(s, self.group, channels, self.table)) } else { None };
                let sums = self.wanted.sums(s, channels, &centre, of_channels, self.differentiation.scale);
                let differentiate = self.differentiation.coefficients(s, channels, &centre, sums);
                let (group, table) = (self.group, &mut *self.table);
                let [slopes, offset] = differentiate.pairs(s);
                group.put_pair(s, channels, table, reduce::SLOPE, slopes);
                group.put_pair(s, channels, table, reduce::OFFSET, offset);
                group.put_f64(s, channels, table, reduce::G, sums.g);
                group.put_f64(s, channels, table, reduce::G_OTHER, sums.g_xhat);
            }
        }
    }
}

impl Wanted<'_, '_> {
    /// The sums of `channels`: given by the caller, or finished from `of_channels` and written to
    /// their destinations.
    #[inline(always)]
    fn sums<S: Simd>(
        &mut self,
        s: S,
        channels: Channels,
        centre: &Centre<S>,
        of_channels: Option<[S::F64; 2]>,
        scale: f32,
    ) -> Sums<S> {
        if let Phase::Apply { sums, .. } = self.phase {
            return given_sums(s, sums, channels);
        }
        let Some(of_channels) = of_channels else {
            return Sums { g: s.splat_f64(0.0), g_xhat: s.splat_f64(0.0) };
        };
        let sums = Sums::finish(s, of_channels, centre, scale);
        if let Some(weight) = &mut self.grad_parameters.weight {
            s.store_partial(s.narrow(sums.g_xhat), channels.of_mut(weight));
        }
        if let Some(bias) = &mut self.grad_parameters.bias {
            s.store_partial(s.narrow(sums.g), channels.of_mut(bias));
        }
        if let Phase::Reduce(out) = self.phase {
            let (g, g_xhat) = out.split_at_mut_checked(out.len() / 2).unwrap_or_default();
            s.store_partial_f64(sums.g, channels.of_mut(g));
            s.store_partial_f64(sums.g_xhat, channels.of_mut(g_xhat));
        }
        sums
    }
}

/// The sums of `channels`, taken from the sums of all channels: first all sums of `g`, then all
/// sums of `g*xhat`.
#[inline(always)]
fn given_sums<S: Simd>(s: S, sums: &[f64], channels: Channels) -> Sums<S> {
    let (g, g_xhat) = sums.split_at_checked(sums.len() / 2).unwrap_or_default();
    Sums { g: s.load_partial_f64(channels.of(g)), g_xhat: s.load_partial_f64(channels.of(g_xhat)) }
}

/// The gradients of weight and bias from the sums over the whole batch, each rounded once.
#[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
pub(crate) fn parameter_gradients(sums: &[f64], gradients: ParameterGradients<'_>) {
    let (g, g_xhat) = sums.split_at_checked(sums.len() / 2).unwrap_or_default();
    for (gradient, sums) in [(gradients.weight, g_xhat), (gradients.bias, g)] {
        for (gradient, &sum) in gradient.into_iter().flatten().zip(sums) {
            *gradient = sum as f32;
        }
    }
}

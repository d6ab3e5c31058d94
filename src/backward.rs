//! Backward, top to bottom: for each group of channels the coefficients of the forward call, the sums, the gradients of
//! weight and bias made of them, the coefficients of the input gradient, and the input gradient.

use crate::activation::Activation;
use crate::args::{Dropout, ParameterGradients, Statistics};
use crate::channel::{Centre, Channels, Differential, Differentiation, Normalisation, Sums, flags};
use crate::layer::Layer;
use crate::pass::apply::{self, Apply, folded_scale};
use crate::pass::channelwise::{CHANNELWISE, Channel, channels, copy};
use crate::pass::gradient::{self, Gradient};
use crate::pass::reduce;
use crate::pass::{Group, Tile, tables};
use crate::simd::{Kernel, Lane, Machine, Simd};
use crate::tasks::Written;

/// The fields per column of this call's table.
pub(crate) const FIELDS: usize = reduce::FIELDS;
/// The fields per column of each task's own table.
pub(crate) const TASK_FIELDS: usize = reduce::TASK_FIELDS;

/// What a backward call writes into the tensor that it was given for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Nothing: only gradients of parameters are wanted.
    Nothing,
    /// `dx`; the gradient of the residual, if wanted, has a tensor of its own.
    Input,
    /// The gradient of the residual, because nobody needs `dx`.
    Residual,
}

/// Which part of a backward call is wanted.
#[derive(Debug)]
pub(crate) enum Phase<'a> {
    /// All of it, for a tensor that is the whole batch.
    Whole,
    /// The sums of a part of a batch: those of `g`, then those of `g*xhat`.
    Reduce(&'a mut [f64]),
    /// The gradients of the elements of a part of a batch, from the sums over the whole of it.
    Apply {
        /// The sums.
        sums: &'a [f64],
        /// The values per channel of the whole batch.
        samples: f64,
    },
}

/// A backward call.
pub(crate) struct BackwardCall<'a> {
    /// With any scale.
    pub(crate) normalisation: Normalisation<'a>,
    pub(crate) dropout: Dropout<'a>,
    pub(crate) phase: Phase<'a>,
    pub(crate) input: &'a [f32],
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) grad_parameters: ParameterGradients<'a>,
    pub(crate) scratch: &'a mut [f64],
}

/// The tensors that a backward call turns one into the other.
pub(crate) struct Gradients<'a> {
    pub(crate) target: Target,
    /// `dy`, or nothing where the output overwrites it.
    pub(crate) grad_output: Option<&'a [f32]>,
    pub(crate) output: &'a mut [f32],
    /// The gradient of the residual, if it is wanted beside `dx`.
    pub(crate) grad_residual: Option<&'a mut [f32]>,
}

/// Runs a backward call whose arguments have been checked.
pub(crate) fn run<A: Activation>(layer: &Layer<A>, call: &mut BackwardCall<'_>, gradients: Gradients<'_>) {
    let BackwardCall { normalisation, dropout, phase, input, residual, grad_parameters, scratch } = call;
    let (input, residual) = (*input, *residual);
    let Gradients { target, grad_output, output, mut grad_residual } = gradients;
    let gates = layer.gates_of(*dropout);
    let keep = gates.as_ref().map(|(gates, scale)| gates.keep(*scale));
    let Some(keep) = keep.filter(|_| !layer.shape().is_empty()) else {
        if let Phase::Reduce(sums) = phase {
            sums.fill(0.0);
        }
        let ParameterGradients { weight, bias } = core::mem::take(grad_parameters);
        for gradient in [weight, bias, grad_residual].into_iter().flatten() {
            gradient.fill(0.0);
        }
        output.fill(0.0);
        return;
    };
    let (tasks, walk) = (layer.tasks(), &layer.walk());
    normalisation.scale = folded_scale::<A>(residual, keep.scale);
    let normalisation = &*normalisation;
    let apply = Apply { activation: layer.activation(), normalisation, residual, keep };
    let differential = match normalisation.statistics {
        _ if target == Target::Residual => Differential::Residual,
        Statistics::Batch(_) => Differential::Batch,
        Statistics::Fixed(_) => Differential::Fixed,
    };
    let samples = match phase {
        Phase::Apply { samples, .. } => *samples,
        Phase::Whole | Phase::Reduce(_) => layer.shape().samples() as f64,
    };
    let differentiation = Differentiation { normalisation, differential, scale: keep.scale, samples };
    let write = target != Target::Nothing;
    // Past fixed statistics the input gradient needs no sums.
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
            copy(grad_output, output);
        }
        for channel in channels(layer.shape()) {
            let (s, one, this) = (Lane::FIRST, Channels::one(channel), Channel::new(&apply, channel));
            let centre = normalisation.centre_of_channel(channel);
            let of_channel = reduce.then(|| {
                let grad = if write { &*output } else { grad_output.unwrap_or_default() };
                this.sums(walk, centre.unit(s), input, grad)
            });
            let sums = Wanted { phase, grad_parameters }.sums(s, one, &centre, of_channel, keep.scale);
            if write {
                let differentiate = differentiation.of_channel(channel, [sums.g, sums.g_xhat]);
                let batch = differential == Differential::Batch;
                this.gradient(layer.shape(), &differentiate, batch, input, output, grad_residual.as_deref_mut());
            }
        }
        return;
    }
    // What is read twice should be in the cache the second time.
    let values = if reduce && write { tasks.cached_values() / 2 } else { usize::MAX };
    for group in walk.groups(values, tasks.count) {
        let (table, parts) = tables(scratch, group, tasks.count);
        tasks.run(GroupCoefficients { normalisation, group, table });
        if reduce {
            let tensors = (input, grad_output.unwrap_or(output));
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
            let gradient = Gradient { apply, differentiation, input, grad_output };
            let written = Written { output: &mut *output, grad_residual: grad_residual.as_deref_mut(), base: 0 };
            gradient::elements(tasks, walk, group, &gradient, table, written);
        }
    }
}

/// The coefficients of a group before its sums, into its table.
struct GroupCoefficients<'a> {
    normalisation: &'a Normalisation<'a>,
    group: Group,
    table: &'a mut [Tile<FIELDS>],
}

impl Kernel for GroupCoefficients<'_> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let Self { normalisation, group, table } = self;
        for channels in group.sixteens() {
            for s in m.each(channels.len) {
                // The normalisation of the forward call, to the bit.
                apply::put_coefficients(s, group, channels, table, &normalisation.of_channels::<M>(s, channels));
                let (zero, unit) = (s.splat(0.0), s.narrow(normalisation.centre(s, channels).unit(s)));
                group.put_pair(s, channels, table, reduce::OFFSET, [zero, unit]);
                for field in [reduce::G, reduce::G_OTHER] {
                    group.put_f64(s, channels, table, field, s.splat_f64(0.0));
                }
            }
        }
    }
}

/// What becomes of the sums of a group.
struct FinishGroup<'a, 'b> {
    group: Group,
    table: &'a mut [Tile<FIELDS>],
    differentiation: Differentiation<'a>,
    /// Whether the table has sums.
    reduced: bool,
    wanted: Wanted<'a, 'b>,
}

/// Where sums come from that are given, and where others go.
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
                let differentiate = self.differentiation.of_channels::<M>(s, channels, &centre, sums);
                let (group, table) = (self.group, &mut *self.table);
                let slopes = [s.narrow(differentiate.slope), s.narrow(differentiate.tilt)];
                group.put_pair(s, channels, table, reduce::SLOPE, slopes);
                let offset = [s.narrow(differentiate.offset), flags(s, differentiate.exact)];
                group.put_pair(s, channels, table, reduce::OFFSET, offset);
                group.put_f64(s, channels, table, reduce::G, sums.g);
                group.put_f64(s, channels, table, reduce::G_OTHER, sums.g_xhat);
            }
        }
    }
}

impl Wanted<'_, '_> {
    /// The sums of some channels, which the table may have, written where they are wanted.
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

/// The sums of some channels from those of all: first those of `g`, then those of `g*xhat`.
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

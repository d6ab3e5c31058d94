//! Backward, top to bottom: for each channel, or strip of channels, the sums, the gradients of weight and bias made of
//! them, the coefficients of the input gradient, and the input gradient.

use crate::activation::Activation;
use crate::args::{Dropout, ParameterGradients, Parameters, Statistics};
use crate::channel::{Centre, ChannelSums, Differentiate, Normalise};
use crate::layer::Layer;
use crate::pass::apply::Apply;
use crate::pass::gradient::{self, ChannelGradient, Tensors};
use crate::pass::reduce::{self, ChannelReduce};
use crate::pass::{Elements, Keep, Walk, put_column, table};
use crate::simd::{Kernel, Simd, dispatch};

/// The fields per column of this call's scratch.
pub(crate) const FIELDS: usize = reduce::FIELDS;

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
    pub(crate) parameters: Parameters<'a>,
    pub(crate) statistics: Statistics<'a>,
    pub(crate) dropout: Dropout<'a>,
    pub(crate) phase: Phase<'a>,
    pub(crate) input: &'a [f32],
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) grad_residual: Option<&'a mut [f32]>,
    pub(crate) grad_parameters: ParameterGradients<'a>,
    pub(crate) scratch: &'a mut [f64],
}

/// Runs a backward call whose arguments have been checked.
pub(crate) fn run<A: Activation, E: Elements>(
    layer: &Layer<A>,
    call: BackwardCall<'_>,
    mut elements: E,
    target: Target,
) {
    let keep = layer.keep_of(call.dropout);
    let Some(keep) = keep.filter(|_| !layer.shape().is_empty()) else {
        if let Phase::Reduce(sums) = call.phase {
            sums.fill(0.0);
        }
        let ParameterGradients { weight, bias } = call.grad_parameters;
        for gradient in [weight, bias, call.grad_residual].into_iter().flatten() {
            gradient.fill(0.0);
        }
        if target != Target::Nothing {
            elements.target().fill(0.0);
        }
        return;
    };
    dispatch(layer.backend(), Gradients { layer, keep, call, elements, target });
}

struct Gradients<'a, A, E> {
    layer: &'a Layer<A>,
    keep: Keep<'a>,
    call: BackwardCall<'a>,
    elements: E,
    target: Target,
}

impl<A: Activation, E: Elements> Kernel for Gradients<'_, A, E> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { layer, keep, call, elements, target } = self;
        let BackwardCall {
            parameters,
            statistics,
            phase,
            input,
            residual,
            grad_residual,
            grad_parameters,
            scratch,
            ..
        } = call;
        let mut tensors = Tensors { input, elements, grad_residual };
        let apply = Apply { activation: layer.activation(), residual, keep };
        // Only the input gradient is made of more than `g`.
        let batch = matches!(statistics, Statistics::Batch(_)) && target == Target::Input;
        // Past fixed statistics the input gradient needs no sums.
        let reduce = match phase {
            Phase::Whole => batch || grad_parameters.weight.is_some() || grad_parameters.bias.is_some(),
            Phase::Reduce(_) => true,
            Phase::Apply { .. } => false,
        };
        let write = target != Target::Nothing;
        let mut channels = ChannelGradients {
            target,
            phase,
            parameters,
            statistics,
            eps: layer.config().eps,
            scale: keep.scale,
            folded_scale: apply.folded_scale(),
            samples: layer.shape().samples(),
            grad_parameters,
        };
        match layer.walk() {
            Walk::Empty => {}
            Walk::Planar(planar) => {
                for channel in 0..planar.channels {
                    let centre = channels.centre(s, channel);
                    let normalise = channels.normalise(channel, centre);
                    let mut sums = channels.given_sums(channel);
                    if reduce {
                        let this = ChannelReduce { apply: &apply, normalise: &normalise, unit: centre.unit() };
                        let of_part = reduce::planar(s, &planar, &this, channel, input, tensors.elements.source());
                        sums = of_part.finish(centre, keep.scale);
                        channels.finish(channel, sums);
                    }
                    if write {
                        let differentiate = channels.differentiate(channel, centre, sums);
                        let this =
                            ChannelGradient { apply: &apply, normalise: &normalise, differentiate: &differentiate };
                        if batch {
                            gradient::planar::<S, A, true>(s, &planar, &this, channel, &mut tensors);
                        } else {
                            gradient::planar::<S, A, false>(s, &planar, &this, channel, &mut tensors);
                        }
                    }
                }
            }
            Walk::Columns(columns) => {
                for strip in columns.strips() {
                    let table = table(scratch, strip.columns);
                    for (column, channel) in strip.column_channels(&columns).enumerate() {
                        let centre = channels.centre(s, channel);
                        let normalise = channels.normalise(channel, centre);
                        put_column(table, column, 0, normalise.fields());
                        put_column(table, column, reduce::UNIT, [centre.unit()]);
                    }
                    if reduce {
                        reduce::columns(s, &columns, &apply, strip, input, tensors.elements.source(), table);
                    }
                    for channel in strip.range() {
                        let centre = channels.centre(s, channel);
                        let mut sums = channels.given_sums(channel);
                        if reduce {
                            sums = reduce::of_channel(&columns, strip, table, channel).finish(centre, keep.scale);
                            channels.finish(channel, sums);
                        }
                        let differentiate = channels.differentiate(channel, centre, sums);
                        for column in strip.columns_of(&columns, channel) {
                            put_column(table, column, reduce::SUMS, differentiate.fields());
                        }
                    }
                    if write && batch {
                        gradient::columns::<S, A, true>(s, &columns, &apply, strip, table, &mut tensors);
                    } else if write {
                        gradient::columns::<S, A, false>(s, &columns, &apply, strip, table, &mut tensors);
                    }
                }
            }
        }
    }
}

/// The coefficients of every channel, and what becomes of its sums.
struct ChannelGradients<'a> {
    target: Target,
    phase: Phase<'a>,
    parameters: Parameters<'a>,
    statistics: Statistics<'a>,
    eps: f32,
    scale: f32,
    folded_scale: f32,
    samples: usize,
    grad_parameters: ParameterGradients<'a>,
}

impl ChannelGradients<'_> {
    #[inline(always)]
    fn centre<S: Simd>(&self, s: S, channel: usize) -> Centre {
        self.statistics.centre(s, channel, self.eps)
    }

    /// The normalisation of the forward call, to the bit.
    #[inline(always)]
    fn normalise(&self, channel: usize, centre: Centre) -> Normalise {
        Normalise::new(centre, self.parameters.weight(channel), self.parameters.bias(channel), self.folded_scale)
    }

    /// Writes what the sums of a channel are wanted for.
    #[inline(always)]
    fn finish(&mut self, channel: usize, sums: ChannelSums) {
        if let Some(weight) = self.grad_parameters.weight.as_mut().and_then(|weight| weight.get_mut(channel)) {
            *weight = sums.weight();
        }
        if let Some(bias) = self.grad_parameters.bias.as_mut().and_then(|bias| bias.get_mut(channel)) {
            *bias = sums.bias();
        }
        if let Phase::Reduce(out) = &mut self.phase {
            let (g, g_xhat) = out.split_at_mut_checked(out.len() / 2).unwrap_or_default();
            if let (Some(g), Some(g_xhat)) = (g.get_mut(channel), g_xhat.get_mut(channel)) {
                (*g, *g_xhat) = (sums.g, sums.g_xhat);
            }
        }
    }

    /// The sums that the call was given, and 0 where it was given none.
    #[inline(always)]
    fn given_sums(&self, channel: usize) -> ChannelSums {
        match self.phase {
            Phase::Apply { sums, .. } => channel_sums(sums, channel),
            Phase::Whole | Phase::Reduce(_) => ChannelSums::default(),
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 values")]
    fn differentiate(&self, channel: usize, centre: Centre, sums: ChannelSums) -> Differentiate {
        let weight = self.parameters.weight(channel);
        let samples = match self.phase {
            Phase::Apply { samples, .. } => samples,
            Phase::Whole | Phase::Reduce(_) => self.samples as f64,
        };
        match self.statistics {
            _ if self.target == Target::Residual => Differentiate::residual(self.scale),
            Statistics::Batch(_) => Differentiate::batch(centre, weight, self.scale, sums, samples),
            Statistics::Fixed(_) => Differentiate::fixed(centre, weight, self.scale),
        }
    }
}

/// The sums of one channel from those of all: first those of `g`, then those of `g*xhat`.
#[inline(always)]
fn channel_sums(sums: &[f64], channel: usize) -> ChannelSums {
    let (g, g_xhat) = sums.split_at_checked(sums.len() / 2).unwrap_or_default();
    match (g.get(channel), g_xhat.get(channel)) {
        (Some(&g), Some(&g_xhat)) => ChannelSums { g, g_xhat },
        _ => ChannelSums::default(),
    }
}

/// The gradients of weight and bias from the sums over the whole batch.
pub(crate) fn parameter_gradients(sums: &[f64], gradients: ParameterGradients<'_>) {
    let sums = |channel| channel_sums(sums, channel);
    for (channel, weight) in gradients.weight.into_iter().flatten().enumerate() {
        *weight = sums(channel).weight();
    }
    for (channel, bias) in gradients.bias.into_iter().flatten().enumerate() {
        *bias = sums(channel).bias();
    }
}

//! The plan of a layer: its shape, constants, backend and tasks, but not its activation. And the
//! requests of its calls, in the form that the phases take.

#[cfg(feature = "rayon")]
use core::num::NonZero;

use crate::args::{
    Apply, ApplyGradient, Backward, BackwardInPlace, Dropout, Eval, EvalInPlace, EvalPrepared, EvalPreparedInPlace,
    Moments, ParameterGradients, Parameters, Reduce, RunningMut, SavedMut, Statistics, Train,
};
use crate::backend::Backend;
use crate::channel::Normalisation;
use crate::config::{Config, Granularity, check_eps};
use crate::element::Element;
use crate::error::Error;
use crate::mask::Bernoulli;
use crate::pass::keep::{Gates, SharedMask};
use crate::pass::{apply, moments, reduce};
use crate::shape::Shape;
use crate::storage::Storage;
use crate::tasks::Tasks;
use crate::walk::Walk;

/// A layer without its activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) config: Config,
    /// The distribution of the mask's bits.
    pub(crate) keep: Bernoulli,
    /// The backend that the caller asked for; `None` is the fastest one.
    pub(crate) backend: Option<Backend>,
    /// The largest number of tasks into which a call is cut.
    #[cfg(feature = "rayon")]
    pub(crate) tasks: NonZero<usize>,
}

impl Plan {
    /// A plan for the fastest backend and one task; an error if a constant is out of its range.
    // As a function of its own it takes 230 bytes more of a microcontroller's stack, on which its
    // result would be twice.
    #[inline(always)]
    pub(crate) const fn new(shape: Shape, config: Config) -> Result<Self, Error> {
        if let Err(error) = check_eps(config.eps) {
            return Err(error);
        }
        match Bernoulli::new(config.p) {
            Ok(keep) => Ok(Self {
                shape,
                config,
                keep,
                backend: None,
                #[cfg(feature = "rayon")]
                tasks: NonZero::<usize>::MIN,
            }),
            Err(error) => Err(error),
        }
    }

    /// The number of bits of a dropout mask.
    pub(crate) const fn mask_bits(&self) -> usize {
        // An empty tensor may have no positions.
        let Some(samples) = self.shape.outer().checked_div(self.shape.positions()) else { return 0 };
        match self.config.granularity {
            _ if self.shape.is_empty() => 0,
            Granularity::Element => self.shape.len(),
            Granularity::Channel => samples * self.shape.channels(),
            Granularity::Sample => samples,
        }
    }

    // Scratch is the table of the largest group of channels. A call that makes statistics has one
    // more table for each task. A task writes the statistics of its parts of the group there, and
    // they are merged into the table of the group in the order of the parts.

    /// The number of f64 values of scratch of a forward call with given statistics: a table of
    /// coefficients.
    pub(crate) const fn eval_scratch_len(&self) -> usize {
        self.walk().table_len(apply::FIELDS, self.task_count())
    }

    /// The number of f64 values of scratch of a training call: a table for the moments, then for
    /// the coefficients, and a table for each task.
    pub(crate) const fn train_scratch_len(&self) -> usize {
        const { assert!(moments::FIELDS >= apply::FIELDS, "the coefficients take the place of the moments") };
        let tasks = self.task_count();
        self.walk().table_len(moments::FIELDS + moments::TASK_FIELDS * tasks, tasks)
    }

    /// The number of f64 values of scratch of a backward call: a table of coefficients and sums,
    /// and a table for each task.
    pub(crate) const fn backward_scratch_len(&self) -> usize {
        let tasks = self.task_count();
        self.walk().table_len(reduce::FIELDS + reduce::TASK_FIELDS * tasks, tasks)
    }

    /// The gates, which decide which elements a call keeps, and the factor of kept elements; `None`
    /// if the call drops all elements.
    pub(crate) fn gates_of<'a>(&self, dropout: Dropout<'a>) -> Option<(Gates<'a>, f32)> {
        match dropout {
            Dropout::Unset | Dropout::Off => Some((Gates::Open, 1.0)),
            Dropout::UnscaledGates(gates) => Some((Gates::Each(gates), 1.0)),
            Dropout::Mask(_) | Dropout::InGates | Dropout::Gates(_) if self.keep.threshold() == 0 => None,
            // The mask is read where the gates are written.
            Dropout::InGates => Some((Gates::Open, self.keep.scale())),
            Dropout::Gates(gates) => Some((Gates::Each(gates), self.keep.scale())),
            Dropout::Mask(mask) => {
                let gates = if self.mask_bits() == self.shape.len() {
                    Gates::Each(mask)
                } else {
                    Gates::Shared(SharedMask::new(self.shape, self.config.granularity, mask))
                };
                Some((gates, self.keep.scale()))
            }
        }
    }

    /// How the tensor is walked.
    pub(crate) const fn walk(&self) -> Walk {
        Walk::new(self.shape)
    }

    /// The backend and the number of tasks of a call.
    pub(crate) const fn tasks(&self) -> Tasks {
        Tasks { backend: self.backend, count: self.task_count() }
    }

    /// The largest number of tasks of a call.
    const fn task_count(&self) -> usize {
        #[cfg(feature = "rayon")]
        {
            // The scratch lengths grow with the number of tasks and must not overflow.
            const MOST: usize = 1 << 16;
            if self.tasks.get() < MOST { self.tasks.get() } else { MOST }
        }
        #[cfg(not(feature = "rayon"))]
        {
            1
        }
    }

    /// The statistics and parameters by which a call normalises, before the dropout scale is known.
    pub(crate) const fn normalisation<'a>(
        &self,
        parameters: Parameters<'a>,
        statistics: Statistics<'a>,
    ) -> Normalisation<'a> {
        Normalisation { parameters, statistics, eps: self.config.eps, scale: 1.0 }
    }
}

/// Prepared statistics have the parameters in them.
const NO_PARAMETERS: Parameters<'static> = Parameters { weight: None, bias: None };

/// A training call.
pub(crate) struct TrainCall<'a, T: Storage> {
    pub(crate) parameters: Parameters<'a>,
    pub(crate) running: Option<RunningMut<'a>>,
    pub(crate) dropout: Dropout<'a>,
    pub(crate) input: T::Ref<'a>,
    pub(crate) residual: Option<T::Ref<'a>>,
    pub(crate) output: T::Mut<'a>,
    pub(crate) saved: SavedMut<'a>,
    pub(crate) scratch: &'a mut [f64],
}

impl<'a, T: Storage> TrainCall<'a, T> {
    #[inline(always)]
    pub(crate) fn new<X: Element, Y: Element>(call: Train<'a, X, Y>) -> Self {
        let Train { parameters, running, dropout, input, residual, output, saved, scratch } = call;
        let (input, residual, output) = (T::of(input), residual.map(T::of), T::of_mut(output));
        Self { parameters, running, dropout, input, residual, output, saved, scratch }
    }
}

/// A call that computes the moments of a part.
pub(crate) struct MomentsCall<'a, T: Storage> {
    pub(crate) input: T::Ref<'a>,
    pub(crate) moments: &'a mut [f64],
    pub(crate) scratch: &'a mut [f64],
}

impl<'a, T: Storage> MomentsCall<'a, T> {
    #[inline(always)]
    pub(crate) fn new<X: Element>(call: Moments<'a, X>) -> Self {
        let Moments { input, moments, scratch } = call;
        Self { input: T::of(input), moments, scratch }
    }
}

/// A forward call with given statistics.
pub(crate) struct ForwardCall<'a, T: Storage> {
    /// The normalisation. Its scale does not matter: the phase sets it.
    pub(crate) normalisation: Normalisation<'a>,
    pub(crate) dropout: Dropout<'a>,
    pub(crate) residual: Option<T::Ref<'a>>,
    /// `x`; `None` if the output overwrites it.
    pub(crate) input: Option<T::Ref<'a>>,
    pub(crate) output: T::Mut<'a>,
    pub(crate) scratch: &'a mut [f64],
}

impl<'a, T: Storage> ForwardCall<'a, T> {
    #[inline(always)]
    pub(crate) fn eval<X: Element, Y: Element>(plan: &Plan, call: Eval<'a, X, Y>) -> Self {
        let Eval { parameters, running, dropout, input, residual, output, scratch } = call;
        let normalisation = plan.normalisation(parameters, Statistics::Fixed(running));
        let (residual, input, output) = (residual.map(T::of), Some(T::of(input)), T::of_mut(output));
        Self { normalisation, dropout, residual, input, output, scratch }
    }

    #[inline(always)]
    pub(crate) fn eval_in_place<X: Element>(plan: &Plan, call: EvalInPlace<'a, X>) -> Self {
        let EvalInPlace { parameters, running, dropout, residual, values: output, scratch } = call;
        let normalisation = plan.normalisation(parameters, Statistics::Fixed(running));
        let (residual, output) = (residual.map(T::of), T::of_mut(output));
        Self { normalisation, dropout, residual, input: None, output, scratch }
    }

    #[inline(always)]
    pub(crate) fn eval_prepared<X: Element, Y: Element>(plan: &Plan, call: EvalPrepared<'a, X, Y>) -> Self {
        let EvalPrepared { prepared, dropout, input, residual, output, scratch } = call;
        let normalisation = plan.normalisation(NO_PARAMETERS, Statistics::Prepared(prepared));
        let (residual, input, output) = (residual.map(T::of), Some(T::of(input)), T::of_mut(output));
        Self { normalisation, dropout, residual, input, output, scratch }
    }

    #[inline(always)]
    pub(crate) fn eval_prepared_in_place<X: Element>(plan: &Plan, call: EvalPreparedInPlace<'a, X>) -> Self {
        let EvalPreparedInPlace { prepared, dropout, residual, values: output, scratch } = call;
        let normalisation = plan.normalisation(NO_PARAMETERS, Statistics::Prepared(prepared));
        let (residual, output) = (residual.map(T::of), T::of_mut(output));
        Self { normalisation, dropout, residual, input: None, output, scratch }
    }

    #[inline(always)]
    pub(crate) fn apply<X: Element, Y: Element>(plan: &Plan, call: Apply<'a, X, Y>) -> Self {
        let Apply { parameters, saved, dropout, input, residual, output, scratch } = call;
        let normalisation = plan.normalisation(parameters, Statistics::Batch(saved));
        let (residual, input, output) = (residual.map(T::of), Some(T::of(input)), T::of_mut(output));
        Self { normalisation, dropout, residual, input, output, scratch }
    }
}

/// The gradient that a backward call writes into its output tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Nothing: only gradients of parameters are wanted.
    Nothing,
    /// `dx`; the gradient of the residual, if wanted, has a tensor of its own.
    Input,
    /// The gradient of the residual, because the caller does not need `dx`.
    Residual,
}

/// The part of the backward pass that a call asks for.
#[derive(Debug)]
pub(crate) enum Phase<'a> {
    /// The whole backward pass, for a tensor that is the whole batch.
    Whole,
    /// The sums of a part of a batch: first the sums of `g`, then the sums of `g*xhat`.
    Reduce(&'a mut [f64]),
    /// The gradients of the elements of a part of a batch, from the sums over the whole batch.
    Apply {
        /// The sums.
        sums: &'a [f64],
        /// The values per channel of the whole batch.
        samples: f64,
    },
}

/// A backward call.
pub(crate) struct BackwardCall<'a, T: Storage> {
    /// The normalisation. Its scale does not matter: the phase sets it.
    pub(crate) normalisation: Normalisation<'a>,
    pub(crate) dropout: Dropout<'a>,
    pub(crate) phase: Phase<'a>,
    /// `x`.
    pub(crate) input: T::Ref<'a>,
    pub(crate) residual: Option<T::Ref<'a>>,
    pub(crate) gradients: Gradients<'a, T>,
    pub(crate) grad_parameters: ParameterGradients<'a>,
    pub(crate) scratch: &'a mut [f64],
}

/// The tensors of gradients of a backward call.
pub(crate) struct Gradients<'a, T: Storage> {
    pub(crate) target: Target,
    /// `dy`; `None` if the output overwrites it.
    pub(crate) grad_output: Option<T::Ref<'a>>,
    /// The tensor of the gradient that `target` names.
    pub(crate) output: T::Mut<'a>,
    /// The gradient of the residual, if the caller wants it in addition to `dx`.
    pub(crate) grad_residual: Option<T::Mut<'a>>,
}

impl<'a, T: Storage> Gradients<'a, T> {
    /// The gradients that a caller wants. If `grad_output` is `None`, `grad_input` has `dy` and is
    /// overwritten.
    #[inline(always)]
    pub(crate) fn new(
        grad_output: Option<T::Ref<'a>>,
        grad_input: Option<T::Mut<'a>>,
        grad_residual: Option<T::Mut<'a>>,
    ) -> Self {
        let (target, output, grad_residual) = match (grad_input, grad_residual) {
            (Some(grad_input), grad_residual) => (Target::Input, grad_input, grad_residual),
            (None, Some(grad_residual)) => (Target::Residual, grad_residual, None),
            (None, None) => (Target::Nothing, T::of_mut::<f32>(&mut []), None),
        };
        Self { target, grad_output, output, grad_residual }
    }
}

impl<'a, T: Storage> BackwardCall<'a, T> {
    #[inline(always)]
    pub(crate) fn whole<X: Element, Y: Element>(plan: &Plan, call: Backward<'a, X, Y>) -> Self {
        let Backward {
            parameters,
            statistics,
            dropout,
            input,
            residual,
            grad_output,
            grad_input,
            grad_residual,
            grad_parameters,
            scratch,
        } = call;
        Self {
            normalisation: plan.normalisation(parameters, statistics),
            dropout,
            phase: Phase::Whole,
            input: T::of(input),
            residual: residual.map(T::of),
            gradients: Gradients::new(
                Some(T::of(grad_output)),
                grad_input.map(T::of_mut),
                grad_residual.map(T::of_mut),
            ),
            grad_parameters,
            scratch,
        }
    }

    #[inline(always)]
    pub(crate) fn in_place<X: Element, Y: Element>(plan: &Plan, call: BackwardInPlace<'a, X, Y>) -> Self {
        let BackwardInPlace {
            parameters,
            statistics,
            dropout,
            input,
            residual,
            values,
            grad_residual,
            grad_parameters,
            scratch,
        } = call;
        Self {
            normalisation: plan.normalisation(parameters, statistics),
            dropout,
            phase: Phase::Whole,
            input: T::of(input),
            residual: residual.map(T::of),
            gradients: Gradients {
                target: Target::Input,
                grad_output: None,
                output: T::of_mut(values),
                grad_residual: grad_residual.map(T::of_mut),
            },
            grad_parameters,
            scratch,
        }
    }

    #[inline(always)]
    pub(crate) fn reduce<X: Element, Y: Element>(plan: &Plan, call: Reduce<'a, X, Y>) -> Self {
        let Reduce { parameters, statistics, dropout, input, residual, grad_output, sums, scratch } = call;
        let grad_output = Some(T::of(grad_output));
        Self {
            normalisation: plan.normalisation(parameters, statistics),
            dropout,
            phase: Phase::Reduce(sums),
            input: T::of(input),
            residual: residual.map(T::of),
            gradients: Gradients {
                target: Target::Nothing,
                grad_output,
                output: T::of_mut::<X>(&mut []),
                grad_residual: None,
            },
            grad_parameters: ParameterGradients::default(),
            scratch,
        }
    }

    #[inline(always)]
    pub(crate) fn apply<X: Element, Y: Element>(plan: &Plan, call: ApplyGradient<'a, X, Y>) -> Self {
        let ApplyGradient {
            parameters,
            saved,
            samples,
            sums,
            dropout,
            input,
            residual,
            grad_output,
            grad_input,
            grad_residual,
            scratch,
        } = call;
        let grad_output = Some(T::of(grad_output));
        Self {
            normalisation: plan.normalisation(parameters, Statistics::Batch(saved)),
            dropout,
            phase: Phase::Apply { sums, samples },
            input: T::of(input),
            residual: residual.map(T::of),
            gradients: Gradients {
                target: Target::Input,
                grad_output,
                output: T::of_mut(grad_input),
                grad_residual: grad_residual.map(T::of_mut),
            },
            grad_parameters: ParameterGradients::default(),
            scratch,
        }
    }
}

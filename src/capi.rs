//! The C interface: the calls of the crate for C, C++ and every language that can call C. Only with
//! the feature `capi`.
//!
//! `include/normdrop.h` is generated from this module, and `examples/c` shows how to use it. From
//! Rust, use the rest of the crate.
//!
//! # Memory
//! A call first copies its structs. Then it checks every buffer: that it is not null, its
//! alignment, its size, and that no buffer which is written shares memory with any other buffer.
//! Only then does it make slices, so that there are never two Rust references to the same memory.
//! The layer checks the lengths, as it does for Rust.
//!
//! # Panics
//! The calls cannot panic. Only with the feature `rayon` there may be a panic, if its pool fails to
//! start. It then ends the process at the border of the C function and does not unwind into C.
#![expect(unsafe_code, reason = "functions that C calls with pointers")]
#![expect(non_camel_case_types, reason = "the names are those of C")]

mod buffers;
mod types;

// The parts of a Rust runtime that a library for C must bring; with an rlib, the program has them.
#[cfg(not(target_os = "none"))]
extern crate std;

use core::convert::Infallible;
use core::ffi::{CStr, c_char, c_void};

use rand_core::TryRng;

use crate::activation::{
    Activation, Elu, Gelu, GeluTanh, HardSwish, Identity, LeakyRelu, Mish, Relu, Relu6, Selu, Sigmoid, Silu, Softplus,
    Tanh,
};
use crate::args::{
    Apply, ApplyGradient, Average, Backward, BackwardInPlace, Dropout, Eval, EvalInPlace, EvalPrepared,
    EvalPreparedInPlace, Finish, Masked, Moments, ParameterGradients, Parameters, Prepare, Reduce, Running, RunningMut,
    Saved, SavedMut, Statistics, Train, Validity,
};
use crate::backend::Backend;
use crate::channel::Normalisation;
use crate::config::{Config, Granularity, RunningVariance};
#[cfg(feature = "half-precision")]
use crate::element::ValuesMut;
use crate::error::{Buffer, Error};
use crate::fold::{self, Fold, FoldPadding, WeightOrder, WeightShape};
use crate::layer::Layer;
use crate::mask::{self, Bernoulli};
use crate::noise::Noise;
use crate::parts;
use crate::plan::{BackwardCall, ForwardCall, Gradients, MomentsCall, Phase, TrainCall};
use crate::shape::Shape;
use crate::stored::Stored;

use buffers::{Region, Tensor, TensorMut, Tensors, check_apart, check_apart_from, check_struct, read_struct};
pub use types::*;

type Outcome = Result<(), normdrop_error>;

/// Runs a call, writes `error` if the call is refused, and returns the status.
///
/// # Safety
/// `error` is null or points to a `normdrop_error` that nobody else uses while the call lasts, of
/// which at least the version is set.
unsafe fn report(error: *mut normdrop_error, run: impl FnOnce() -> Outcome) -> normdrop_status {
    if !error.is_null() {
        // SAFETY: passed on.
        if let Err(refused) = unsafe { check_struct(error, NORMDROP_BUFFER_RESULT) } {
            return refused.status;
        }
    }
    let Err(refused) = run() else { return NORMDROP_STATUS_OK };
    if !error.is_null() {
        // SAFETY: not null and aligned, of a version that is this struct; the slices of the call
        // are gone.
        unsafe { error.write(refused) };
    }
    refused.status
}

impl From<Error> for normdrop_error {
    fn from(error: Error) -> Self {
        match error {
            Error::Length { buffer, expected, actual } => {
                Self::new(NORMDROP_STATUS_LENGTH).of(number_of(buffer)).counts(expected, actual)
            }
            Error::LengthMultiple { buffer, fields, actual } => {
                Self::new(NORMDROP_STATUS_MULTIPLE).of(number_of(buffer)).counts(fields, actual)
            }
            Error::ShapeOverflow { product, dimension } => {
                Self::new(NORMDROP_STATUS_SHAPE).of(NORMDROP_BUFFER_LAYER).counts(product, dimension)
            }
            Error::Eps { eps } => Self { value: eps.into(), ..Self::new(NORMDROP_STATUS_EPS) },
            Error::Momentum { momentum } => Self { value: momentum, ..Self::new(NORMDROP_STATUS_MOMENTUM) },
            Error::Probability { p } => Self { value: p, ..Self::new(NORMDROP_STATUS_PROBABILITY) },
            Error::DropoutUnset { p } => {
                Self { value: p, ..Self::new(NORMDROP_STATUS_MASK_MISSING).of(NORMDROP_BUFFER_MASK) }
            }
            // A call of C gives gates only in the direction that they have. So the mask in gates is at fault:
            // it has one bit for several elements.
            Error::GatesDirection => Self::new(NORMDROP_STATUS_NOT_AN_ELEMENT_MASK).of(NORMDROP_BUFFER_GATES),
            Error::GatesActivation => Self::new(NORMDROP_STATUS_NO_GATES).of(NORMDROP_BUFFER_GATES),
            Error::Slope { slope } => Self { value: slope.into(), ..Self::new(NORMDROP_STATUS_SLOPE) },
            Error::Alpha { alpha } => Self { value: alpha.into(), ..Self::new(NORMDROP_STATUS_ALPHA) },
            Error::NoiseWidth { width } => {
                Self { value: width.into(), ..Self::new(NORMDROP_STATUS_NOISE_WIDTH).of(NORMDROP_BUFFER_NOISE) }
            }
            Error::SingleSample => Self::new(NORMDROP_STATUS_SINGLE_SAMPLE),
            Error::Count { channel, count } => {
                Self { value: count, ..Self::new(NORMDROP_STATUS_COUNT).counts(0, channel) }
            }
            Error::BackendUnavailable { backend } => unknown(NORMDROP_STATUS_BACKEND, number_of_backend(backend)),
            Error::Groups { groups } => Self::new(NORMDROP_STATUS_GROUPS).of(NORMDROP_BUFFER_CALL).counts(1, groups),
            Error::MissingBias { channel } => {
                Self::new(NORMDROP_STATUS_MISSING_BIAS).of(NORMDROP_BUFFER_FOLD_BIAS).counts(0, channel)
            }
            Error::Variance { channel, var } => {
                let error = Self::new(NORMDROP_STATUS_VARIANCE).of(NORMDROP_BUFFER_RUNNING_VAR).counts(0, channel);
                Self { value: var.into(), ..error }
            }
            Error::NotFinite { buffer, index } => {
                Self::new(NORMDROP_STATUS_NOT_FINITE).of(number_of(buffer)).counts(0, index)
            }
            Error::SequenceLength { sample, positions, length } => Self {
                value: sample as f64,
                ..Self::new(NORMDROP_STATUS_SEQUENCE_LENGTH).of(NORMDROP_BUFFER_LENGTHS).counts(positions, length)
            },
            Error::NotAnElementMask => Self::new(NORMDROP_STATUS_NOT_AN_ELEMENT_MASK).of(NORMDROP_BUFFER_MASK),
            // No function of C makes a layer that owns its memory.
            #[cfg(feature = "alloc")]
            Error::OutOfMemory { buffer, len } => Self::new(NORMDROP_STATUS_SIZE).of(number_of(buffer)).counts(len, 0),
            #[cfg(feature = "alloc")]
            Error::NoForward => Self::new(NORMDROP_STATUS_STATISTICS).of(NORMDROP_BUFFER_CALL),
            Error::NotPrepared { channels } => {
                Self::new(NORMDROP_STATUS_NOT_PREPARED).of(NORMDROP_BUFFER_PREPARED).counts(channels, 0)
            }
        }
    }
}

const fn number_of(buffer: Buffer) -> normdrop_buffer {
    match buffer {
        Buffer::Input => NORMDROP_BUFFER_INPUT,
        Buffer::Residual => NORMDROP_BUFFER_RESIDUAL,
        // `values` is the output of an evaluation in place. A backward call in place translates the
        // name by itself.
        Buffer::Output | Buffer::Values => NORMDROP_BUFFER_OUTPUT,
        Buffer::GradOutput => NORMDROP_BUFFER_GRAD_OUTPUT,
        Buffer::GradInput => NORMDROP_BUFFER_GRAD_INPUT,
        Buffer::GradResidual => NORMDROP_BUFFER_GRAD_RESIDUAL,
        Buffer::Weight => NORMDROP_BUFFER_WEIGHT,
        Buffer::Bias => NORMDROP_BUFFER_BIAS,
        Buffer::GradWeight => NORMDROP_BUFFER_GRAD_WEIGHT,
        Buffer::GradBias => NORMDROP_BUFFER_GRAD_BIAS,
        Buffer::RunningMean => NORMDROP_BUFFER_RUNNING_MEAN,
        Buffer::RunningMeanTail => NORMDROP_BUFFER_RUNNING_MEAN_TAIL,
        Buffer::RunningVar => NORMDROP_BUFFER_RUNNING_VAR,
        Buffer::SavedMean => NORMDROP_BUFFER_SAVED_MEAN,
        Buffer::SavedMeanTail => NORMDROP_BUFFER_SAVED_MEAN_TAIL,
        Buffer::SavedInvStd => NORMDROP_BUFFER_SAVED_INV_STD,
        Buffer::Moments => NORMDROP_BUFFER_MOMENTS,
        Buffer::Sums => NORMDROP_BUFFER_SUMS,
        Buffer::Mask => NORMDROP_BUFFER_MASK,
        Buffer::Gates => NORMDROP_BUFFER_GATES,
        Buffer::Scratch => NORMDROP_BUFFER_SCRATCH,
        Buffer::Workspace => NORMDROP_BUFFER_WORKSPACE,
        Buffer::FoldWeights => NORMDROP_BUFFER_FOLD_WEIGHTS,
        Buffer::FoldBias => NORMDROP_BUFFER_FOLD_BIAS,
        Buffer::FoldPadding => NORMDROP_BUFFER_FOLD_PADDING,
        Buffer::Lengths => NORMDROP_BUFFER_LENGTHS,
        Buffer::Validity => NORMDROP_BUFFER_VALIDITY,
        Buffer::Prepared => NORMDROP_BUFFER_PREPARED,
        Buffer::Slope => NORMDROP_BUFFER_SLOPE,
        Buffer::GradSlope => NORMDROP_BUFFER_GRAD_SLOPE,
    }
}

const fn unknown(status: normdrop_status, number: u32) -> normdrop_error {
    normdrop_error::new(status).of(NORMDROP_BUFFER_LAYER).counts(0, number as usize)
}

impl normdrop_fold_call {
    fn shape(&self) -> Result<WeightShape, normdrop_error> {
        let order = match self.order {
            NORMDROP_WEIGHT_ORDER_OUT_IN_TAPS => WeightOrder::OutInTaps,
            NORMDROP_WEIGHT_ORDER_OUT_TAPS_IN => WeightOrder::OutTapsIn,
            NORMDROP_WEIGHT_ORDER_IN_OUT_TAPS => WeightOrder::InOutTaps,
            NORMDROP_WEIGHT_ORDER_IN_TAPS_OUT => WeightOrder::InTapsOut,
            NORMDROP_WEIGHT_ORDER_TAPS_IN_OUT => WeightOrder::TapsInOut,
            NORMDROP_WEIGHT_ORDER_TAPS_OUT_IN => WeightOrder::TapsOutIn,
            other => {
                return Err(normdrop_error::new(NORMDROP_STATUS_WEIGHT_ORDER)
                    .of(NORMDROP_BUFFER_CALL)
                    .counts(0, other as usize));
            }
        };
        let Self { outputs, inputs, taps, groups, .. } = *self;
        Ok(WeightShape { order, outputs, inputs, taps, groups: groups.max(1) })
    }
}

impl normdrop_layer {
    fn shape(&self) -> Result<Shape, normdrop_error> {
        let Self { outer, channels, inner, positions, .. } = *self;
        if positions <= 1 {
            return Ok(Shape::new(outer, channels, inner)?);
        }
        if inner != 1 || outer % positions != 0 {
            return Err(normdrop_error::new(NORMDROP_STATUS_POSITIONS)
                .of(NORMDROP_BUFFER_LAYER)
                .counts(outer, positions));
        }
        Ok(Shape::nlc(outer / positions, positions, channels)?)
    }

    /// The layer with the activation `activation`: that of this struct, or any other if the call uses no
    /// activation.
    fn with<A: Activation>(&self, activation: A) -> Result<Layer<A>, normdrop_error> {
        let granularity = match self.granularity {
            NORMDROP_GRANULARITY_ELEMENT => Granularity::Element,
            NORMDROP_GRANULARITY_CHANNEL => Granularity::Channel,
            NORMDROP_GRANULARITY_SAMPLE => Granularity::Sample,
            other => return Err(unknown(NORMDROP_STATUS_GRANULARITY, other)),
        };
        let running_var = match self.running_variance {
            NORMDROP_RUNNING_VARIANCE_UNBIASED => RunningVariance::Unbiased,
            NORMDROP_RUNNING_VARIANCE_BIASED => RunningVariance::Biased,
            other => return Err(unknown(NORMDROP_STATUS_RUNNING_VARIANCE, other)),
        };
        let config = Config { eps: self.eps, momentum: self.momentum, running_var, p: self.p, granularity };
        let layer = Layer::new(self.shape()?, activation, config)?;
        let layer = match self.backend {
            NORMDROP_BACKEND_FASTEST => layer,
            other => match backend_of(other) {
                Some(backend) if backend.is_available() => layer.with_backend(backend)?,
                _ => return Err(unknown(NORMDROP_STATUS_BACKEND, other)),
            },
        };
        #[cfg(feature = "rayon")]
        let layer = layer.with_tasks(self.tasks as usize);
        #[cfg(not(feature = "rayon"))]
        if self.tasks > 1 {
            return Err(unknown(NORMDROP_STATUS_TASKS, self.tasks));
        }
        Ok(layer)
    }

    /// The layer for calls without an activation. The activation of this struct is checked all the
    /// same.
    fn without_activation(&self) -> Result<Layer<Identity>, normdrop_error> {
        match self.activation {
            NORMDROP_ACTIVATION_LEAKY_RELU => _ = LeakyRelu::new(self.slope)?,
            NORMDROP_ACTIVATION_ELU => _ = Elu::new(self.alpha)?,
            NORMDROP_ACTIVATION_IDENTITY..=NORMDROP_ACTIVATION_SOFTPLUS => {}
            other => return Err(unknown(NORMDROP_STATUS_ACTIVATION, other)),
        }
        self.with(Identity)
    }
}

/// Evaluates an expression with the layer that a `normdrop_layer` describes. The type of the layer
/// depends on the activation.
macro_rules! with_layer {
    ($described:expr, $layer:ident => $call:expr) => {
        match $described.activation {
            NORMDROP_ACTIVATION_IDENTITY => with_layer!($described, Identity, $layer => $call),
            NORMDROP_ACTIVATION_RELU => with_layer!($described, Relu, $layer => $call),
            NORMDROP_ACTIVATION_RELU6 => with_layer!($described, Relu6, $layer => $call),
            NORMDROP_ACTIVATION_LEAKY_RELU => {
                with_layer!($described, LeakyRelu::new($described.slope)?, $layer => $call)
            }
            NORMDROP_ACTIVATION_HARD_SWISH => with_layer!($described, HardSwish, $layer => $call),
            NORMDROP_ACTIVATION_SIGMOID => with_layer!($described, Sigmoid, $layer => $call),
            NORMDROP_ACTIVATION_TANH => with_layer!($described, Tanh, $layer => $call),
            NORMDROP_ACTIVATION_SILU => with_layer!($described, Silu, $layer => $call),
            NORMDROP_ACTIVATION_GELU_TANH => with_layer!($described, GeluTanh, $layer => $call),
            NORMDROP_ACTIVATION_GELU => with_layer!($described, Gelu, $layer => $call),
            NORMDROP_ACTIVATION_ELU => with_layer!($described, Elu::new($described.alpha)?, $layer => $call),
            NORMDROP_ACTIVATION_SELU => with_layer!($described, Selu, $layer => $call),
            NORMDROP_ACTIVATION_MISH => with_layer!($described, Mish, $layer => $call),
            NORMDROP_ACTIVATION_SOFTPLUS => with_layer!($described, Softplus, $layer => $call),
            other => Err(unknown(NORMDROP_STATUS_ACTIVATION, other)),
        }
    };
    ($described:expr, $activation:expr, $layer:ident => $call:expr) => {{
        let $layer = $described.with($activation)?;
        $call.map_err(normdrop_error::from)
    }};
}

/// A tensor that a call reads, of floats or of halves.
macro_rules! tensor {
    ($call:expr, input) => {
        Tensor { single: $call.input, half: $call.input_half }
    };
    ($call:expr, residual) => {
        Tensor { single: $call.residual, half: $call.residual_half }
    };
    ($call:expr, grad_output) => {
        Tensor { single: $call.grad_output, half: $call.grad_output_half }
    };
}

/// A tensor that a call writes, of floats or of halves.
macro_rules! tensor_mut {
    ($call:expr, output) => {
        TensorMut { single: $call.output, half: $call.output_half }
    };
    ($call:expr, grad_input) => {
        TensorMut { single: $call.grad_input, half: $call.grad_input_half }
    };
    ($call:expr, grad_residual) => {
        TensorMut { single: $call.grad_residual, half: $call.grad_residual_half }
    };
}

/// The statistics of a struct with the buffers of a call.
macro_rules! given_statistics {
    ($call:expr) => {
        GivenStatistics {
            kind: $call.statistics,
            running_mean: $call.running_mean,
            running_mean_tail: $call.running_mean_tail,
            running_var: $call.running_var,
            saved_mean: $call.saved_mean,
            saved_mean_tail: $call.saved_mean_tail,
            saved_inv_std: $call.saved_inv_std,
            prepared: $call.prepared,
        }
    };
}

/// The regions of the parameters and running statistics in a struct with the buffers of a call.
macro_rules! batch_norm_regions {
    ($call:expr) => {
        [
            $call.weight.region(NORMDROP_BUFFER_WEIGHT)?,
            $call.bias.region(NORMDROP_BUFFER_BIAS)?,
            $call.running_mean.region(NORMDROP_BUFFER_RUNNING_MEAN)?,
            $call.running_mean_tail.region(NORMDROP_BUFFER_RUNNING_MEAN_TAIL)?,
            $call.running_var.region(NORMDROP_BUFFER_RUNNING_VAR)?,
        ]
    };
}

impl normdrop_train_call {
    /// Checks each buffer by itself.
    fn regions(&self) -> Result<[Region; 15], normdrop_error> {
        let in_gates = self.mask.is(self.gates);
        Ok([
            self.weight.region(NORMDROP_BUFFER_WEIGHT)?,
            self.bias.region(NORMDROP_BUFFER_BIAS)?,
            self.running_mean.region(NORMDROP_BUFFER_RUNNING_MEAN)?,
            self.running_mean_tail.region(NORMDROP_BUFFER_RUNNING_MEAN_TAIL)?,
            self.running_var.region(NORMDROP_BUFFER_RUNNING_VAR)?,
            count_of(self.batches).region(NORMDROP_BUFFER_BATCHES)?,
            if in_gates { Region::NONE } else { self.mask.region(NORMDROP_BUFFER_MASK)? },
            self.gates.region(NORMDROP_BUFFER_GATES)?,
            tensor!(self, input).region(NORMDROP_BUFFER_INPUT)?,
            tensor!(self, residual).region(NORMDROP_BUFFER_RESIDUAL)?,
            tensor_mut!(self, output).region(NORMDROP_BUFFER_OUTPUT)?,
            self.saved_mean.region(NORMDROP_BUFFER_SAVED_MEAN)?,
            self.saved_mean_tail.region(NORMDROP_BUFFER_SAVED_MEAN_TAIL)?,
            self.saved_inv_std.region(NORMDROP_BUFFER_SAVED_INV_STD)?,
            self.scratch.region(NORMDROP_BUFFER_SCRATCH)?,
        ])
    }

    fn has_halves(&self) -> bool {
        tensor!(self, input).is_of_halves()
            || tensor!(self, residual).is_of_halves()
            || tensor_mut!(self, output).is_of_halves()
    }

    /// The call with tensors of any types.
    ///
    /// # Safety
    /// As `normdrop_slice_mut::optional`, for all.
    #[inline(never)]
    unsafe fn run_mixed(&self, layer: &normdrop_layer) -> Outcome {
        let batches = count_of(self.batches);
        // SAFETY: passed on.
        let (train, gates) = unsafe {
            let train = TrainCall::<Tensors> {
                parameters: parameters(self.weight, self.bias),
                running: running_mut(self.running_mean, self.running_mean_tail, self.running_var, batches),
                dropout: forward_dropout(self.mask.is(self.gates), self.mask),
                input: tensor!(self, input).get(),
                residual: tensor!(self, residual).optional(),
                output: tensor_mut!(self, output).get(),
                saved: saved_mut(self.saved_mean, self.saved_mean_tail, self.saved_inv_std),
                scratch: self.scratch.get(),
            };
            (train, self.gates.optional())
        };
        with_layer!(layer, layer => match gates {
            Some(gates) => layer.trained_with_gates(train, gates),
            None => layer.trained(train),
        })
    }

    /// All buffers but the gates.
    ///
    /// # Safety
    /// As `normdrop_slice_mut::optional`, for all.
    unsafe fn get<'a>(&self) -> Train<'a> {
        let batches = count_of(self.batches);
        // SAFETY: passed on.
        unsafe {
            Train {
                parameters: parameters(self.weight, self.bias),
                running: running_mut(self.running_mean, self.running_mean_tail, self.running_var, batches),
                dropout: forward_dropout(self.mask.is(self.gates), self.mask),
                input: self.input.get(),
                residual: self.residual.optional(),
                output: self.output.get(),
                saved: saved_mut(self.saved_mean, self.saved_mean_tail, self.saved_inv_std),
                scratch: self.scratch.get(),
            }
        }
    }
}

impl normdrop_eval_call {
    fn has_halves(&self) -> bool {
        tensor!(self, input).is_of_halves()
            || tensor!(self, residual).is_of_halves()
            || tensor_mut!(self, output).is_of_halves()
    }

    /// The call with tensors of any types.
    ///
    /// # Safety
    /// As `normdrop_slice_mut::optional`, for all, but for the input if the call is in place.
    #[inline(never)]
    unsafe fn run_mixed(&self, layer: &normdrop_layer, in_place: bool) -> Outcome {
        let is_prepared = !self.prepared.is_left_out();
        if is_prepared && !self.gates.values.is_null() {
            return Err(normdrop_error::new(NORMDROP_STATUS_NO_GATES).of(NORMDROP_BUFFER_GATES));
        }
        // SAFETY: passed on.
        let (mut eval, gates) = unsafe {
            let (parameters, statistics) = if is_prepared {
                (Parameters::default(), Statistics::Prepared(self.prepared.get()))
            } else {
                let running = running(self.running_mean, self.running_mean_tail, self.running_var);
                (parameters(self.weight, self.bias), Statistics::Fixed(running))
            };
            let eval = ForwardCall::<Tensors> {
                normalisation: Normalisation { parameters, statistics, eps: layer.eps, scale: 1.0 },
                dropout: forward_dropout(self.mask.is(self.gates), self.mask),
                residual: tensor!(self, residual).optional(),
                input: None,
                output: tensor_mut!(self, output).get(),
                scratch: self.scratch.get(),
            };
            (eval, self.gates.optional())
        };
        if !in_place {
            // SAFETY: passed on.
            eval.input = Some(unsafe { tensor!(self, input).get() });
        }
        if is_prepared {
            return with_layer!(layer, layer => layer.forward_prepared(eval));
        }
        with_layer!(layer, layer => match gates {
            Some(_) if is_unscaled(&eval.dropout, layer.config().p) => Err(Error::DropoutUnset { p: layer.config().p }),
            Some(gates) => layer.forward_with_gates(eval, gates),
            None => layer.forward(eval),
        })
    }
}

impl normdrop_backward_call {
    /// Checks each buffer by itself.
    fn regions(&self, in_place: bool) -> Result<[Region; 15], normdrop_error> {
        let [first, second, third] = given_statistics!(self).regions()?;
        Ok([
            self.weight.region(NORMDROP_BUFFER_WEIGHT)?,
            self.bias.region(NORMDROP_BUFFER_BIAS)?,
            first,
            second,
            third,
            self.mask.region(NORMDROP_BUFFER_MASK)?,
            self.gates.region(NORMDROP_BUFFER_GATES)?,
            tensor!(self, input).region(NORMDROP_BUFFER_INPUT)?,
            tensor!(self, residual).region(NORMDROP_BUFFER_RESIDUAL)?,
            if in_place { Region::NONE } else { tensor!(self, grad_output).region(NORMDROP_BUFFER_GRAD_OUTPUT)? },
            tensor_mut!(self, grad_input).region(NORMDROP_BUFFER_GRAD_INPUT)?,
            tensor_mut!(self, grad_residual).region(NORMDROP_BUFFER_GRAD_RESIDUAL)?,
            self.grad_weight.region(NORMDROP_BUFFER_GRAD_WEIGHT)?,
            self.grad_bias.region(NORMDROP_BUFFER_GRAD_BIAS)?,
            self.scratch.region(NORMDROP_BUFFER_SCRATCH)?,
        ])
    }

    fn has_halves(&self) -> bool {
        tensor!(self, input).is_of_halves()
            || tensor!(self, residual).is_of_halves()
            || tensor!(self, grad_output).is_of_halves()
            || tensor_mut!(self, grad_input).is_of_halves()
            || tensor_mut!(self, grad_residual).is_of_halves()
    }

    /// The call with tensors of any types.
    ///
    /// # Safety
    /// As `normdrop_slice_mut::optional`, for all, but for `grad_output` if the call is in place.
    #[inline(never)]
    unsafe fn run_mixed(&self, layer: &normdrop_layer, in_place: bool) -> Outcome {
        // SAFETY: passed on.
        let backward = unsafe {
            let normalisation = Normalisation {
                parameters: parameters(self.weight, self.bias),
                statistics: given_statistics!(self).get(),
                eps: layer.eps,
                scale: 1.0,
            };
            BackwardCall::<Tensors> {
                normalisation,
                dropout: backward_dropout(self.mask, self.gates),
                phase: Phase::Whole,
                input: tensor!(self, input).get(),
                residual: tensor!(self, residual).optional(),
                gradients: Gradients::new(
                    if in_place { None } else { Some(tensor!(self, grad_output).get()) },
                    tensor_mut!(self, grad_input).optional(),
                    tensor_mut!(self, grad_residual).optional(),
                ),
                grad_parameters: ParameterGradients {
                    weight: self.grad_weight.optional(),
                    bias: self.grad_bias.optional(),
                },
                scratch: self.scratch.get(),
            }
        };
        with_layer!(layer, layer => layer.differentiate(backward).map_err(of_grad_input))
    }

    /// All buffers, but no `grad_output` if the gradient of the input takes its place.
    ///
    /// # Safety
    /// As `normdrop_slice_mut::optional`, for all.
    unsafe fn get<'a>(&self, in_place: bool) -> Backward<'a> {
        // SAFETY: passed on.
        unsafe {
            Backward {
                parameters: parameters(self.weight, self.bias),
                statistics: given_statistics!(self).get(),
                dropout: backward_dropout(self.mask, self.gates),
                input: self.input.get(),
                residual: self.residual.optional(),
                grad_output: if in_place { &[] } else { self.grad_output.get() },
                grad_input: self.grad_input.optional(),
                grad_residual: self.grad_residual.optional(),
                grad_parameters: ParameterGradients {
                    weight: self.grad_weight.optional(),
                    bias: self.grad_bias.optional(),
                },
                scratch: self.scratch.get(),
            }
        }
    }
}

impl normdrop_apply_call {
    /// The call with tensors of any types.
    ///
    /// # Safety
    /// As `normdrop_slice_mut::optional`, for all.
    #[inline(never)]
    unsafe fn run_mixed(&self, layer: &normdrop_layer) -> Outcome {
        // SAFETY: passed on.
        let (apply, gates) = unsafe {
            let statistics = Statistics::Batch(saved(self.saved_mean, self.saved_mean_tail, self.saved_inv_std));
            let parameters = parameters(self.weight, self.bias);
            let apply = ForwardCall::<Tensors> {
                normalisation: Normalisation { parameters, statistics, eps: layer.eps, scale: 1.0 },
                dropout: forward_dropout(self.mask.is(self.gates), self.mask),
                residual: tensor!(self, residual).optional(),
                input: Some(tensor!(self, input).get()),
                output: tensor_mut!(self, output).get(),
                scratch: self.scratch.get(),
            };
            (apply, self.gates.optional())
        };
        with_layer!(layer, layer => match gates {
            Some(gates) => layer.forward_with_gates(apply, gates),
            None => layer.forward(apply),
        })
    }
}

impl normdrop_reduce_call {
    /// The call with tensors of any types.
    ///
    /// # Safety
    /// As `normdrop_slice_mut::optional`, for all.
    #[inline(never)]
    unsafe fn run_mixed(&self, layer: &normdrop_layer) -> Outcome {
        // SAFETY: passed on.
        let reduce = unsafe {
            let (parameters, statistics) = (parameters(self.weight, self.bias), given_statistics!(self).get());
            BackwardCall::<Tensors> {
                normalisation: Normalisation { parameters, statistics, eps: layer.eps, scale: 1.0 },
                dropout: backward_dropout(self.mask, self.gates),
                phase: Phase::Reduce(self.sums.get()),
                input: tensor!(self, input).get(),
                residual: tensor!(self, residual).optional(),
                gradients: Gradients::new(Some(tensor!(self, grad_output).get()), None, None),
                grad_parameters: ParameterGradients::default(),
                scratch: self.scratch.get(),
            }
        };
        with_layer!(layer, layer => layer.differentiate(reduce))
    }
}

impl normdrop_apply_gradient_call {
    /// The call with tensors of any types.
    ///
    /// # Safety
    /// As `normdrop_slice_mut::optional`, for all.
    #[inline(never)]
    unsafe fn run_mixed(&self, layer: &normdrop_layer) -> Outcome {
        // SAFETY: passed on.
        let apply = unsafe {
            let statistics = Statistics::Batch(saved(self.saved_mean, self.saved_mean_tail, self.saved_inv_std));
            let parameters = parameters(self.weight, self.bias);
            let grad_input = tensor_mut!(self, grad_input).get();
            BackwardCall::<Tensors> {
                normalisation: Normalisation { parameters, statistics, eps: layer.eps, scale: 1.0 },
                dropout: backward_dropout(self.mask, self.gates),
                phase: Phase::Apply { sums: self.sums.get(), samples: self.samples },
                input: tensor!(self, input).get(),
                residual: tensor!(self, residual).optional(),
                gradients: Gradients::new(
                    Some(tensor!(self, grad_output).get()),
                    Some(grad_input),
                    tensor_mut!(self, grad_residual).optional(),
                ),
                grad_parameters: ParameterGradients::default(),
                scratch: self.scratch.get(),
            }
        };
        with_layer!(layer, layer => layer.differentiate(apply))
    }
}

impl normdrop_masked {
    /// Checks each buffer by itself, against each other and against the other buffers of the call.
    fn check(&self, others: &[Region]) -> Outcome {
        let given = [
            self.lengths.region(NORMDROP_BUFFER_LENGTHS)?,
            self.validity.region(NORMDROP_BUFFER_VALIDITY)?,
            self.workspace.region(NORMDROP_BUFFER_WORKSPACE)?,
        ];
        if !self.lengths.is_left_out() && !self.validity.is_left_out() {
            return Err(two_buffers(NORMDROP_BUFFER_LENGTHS, NORMDROP_BUFFER_VALIDITY));
        }
        check_apart(others)?;
        check_apart(&given)?;
        given.iter().try_for_each(|region| check_apart_from(region, others))
    }

    /// # Safety
    /// As `normdrop_slice_mut::optional`, for all.
    unsafe fn get<'a>(&self) -> Masked<'a> {
        // SAFETY: passed on.
        unsafe {
            let validity = match self.validity.optional() {
                Some(bits) => Validity::Bitmap(bits),
                None => Validity::Lengths(self.lengths.get()),
            };
            Masked::new(validity, self.workspace.get())
        }
    }
}

impl normdrop_noise {
    fn get(&self) -> Result<Noise, normdrop_error> {
        Ok(match self.law {
            NORMDROP_NOISE_LAW_GAUSSIAN => Noise::gaussian(self.width)?,
            NORMDROP_NOISE_LAW_GAUSSIAN_DROPOUT => Noise::gaussian_dropout(self.p)?,
            NORMDROP_NOISE_LAW_UNIFORM => Noise::uniform(self.width)?,
            other => return Err(unknown(NORMDROP_STATUS_NOISE_LAW, other).of(NORMDROP_BUFFER_NOISE)),
        })
    }
}

impl normdrop_stored {
    fn get(&self) -> Result<Stored, normdrop_error> {
        let Self { form, factor, eps, .. } = *self;
        Ok(match form {
            NORMDROP_STORED_FORM_EPS_OUTSIDE => Stored::EpsOutside { eps },
            NORMDROP_STORED_FORM_DEVIATION => Stored::Deviation,
            NORMDROP_STORED_FORM_INVERSE_DEVIATION => Stored::InverseDeviation,
            NORMDROP_STORED_FORM_SUMS => Stored::Sums { factor, eps },
            other => return Err(unknown(NORMDROP_STATUS_STORED_FORM, other).of(NORMDROP_BUFFER_CALL)),
        })
    }
}

/// The error of a call over valid positions that is given a tensor of halves.
const fn masked_halves() -> normdrop_error {
    normdrop_error::new(NORMDROP_STATUS_ELEMENT).of(NORMDROP_BUFFER_MASKED)
}

/// The error of a call that is given two buffers which stand for the same thing.
fn two_buffers(buffer: normdrop_buffer, other: normdrop_buffer) -> normdrop_error {
    normdrop_error { other, ..normdrop_error::new(NORMDROP_STATUS_TWO_BUFFERS).of(buffer) }
}

/// The error of a backward call in place, whose tensor is `grad_input` in C.
fn of_grad_input(error: Error) -> Error {
    match error {
        Error::Length { buffer: Buffer::Values, expected, actual } => {
            Error::Length { buffer: Buffer::GradInput, expected, actual }
        }
        other => other,
    }
}

/// The error of a call whose tensor has the name `values` in C, too.
fn of_values(error: Error) -> normdrop_error {
    match error {
        Error::Length { buffer: Buffer::Values, expected, actual } => {
            normdrop_error::new(NORMDROP_STATUS_LENGTH).of(NORMDROP_BUFFER_VALUES).counts(expected, actual)
        }
        other => other.into(),
    }
}

const fn backend_of(number: normdrop_backend) -> Option<Backend> {
    match number {
        NORMDROP_BACKEND_PORTABLE => Some(Backend::Portable),
        NORMDROP_BACKEND_AVX2 => Some(Backend::Avx2),
        NORMDROP_BACKEND_AVX512 => Some(Backend::Avx512),
        _ => None,
    }
}

const fn number_of_backend(backend: Backend) -> normdrop_backend {
    match backend {
        Backend::Portable => NORMDROP_BACKEND_PORTABLE,
        Backend::Avx2 => NORMDROP_BACKEND_AVX2,
        Backend::Avx512 => NORMDROP_BACKEND_AVX512,
    }
}

/// The version of the interface of this library. Compare it with `NORMDROP_ABI_VERSION`, the
/// version of the header: every struct must have a version that the library knows.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_abi_version() -> u32 {
    NORMDROP_ABI_VERSION
}

/// The version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version has no zero byte"),
    };
    VERSION.as_ptr()
}

/// The meaning of a status, in English.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_status_text(status: normdrop_status) -> *const c_char {
    match status {
        NORMDROP_STATUS_OK => c"success",
        NORMDROP_STATUS_NULL => c"a pointer is NULL that must not be, or is NULL and has a length",
        NORMDROP_STATUS_VERSION => {
            c"the version of a struct is not one that this library knows: set it to NORMDROP_ABI_VERSION before the call"
        }
        NORMDROP_STATUS_ALIGNMENT => c"a pointer is not aligned as its type asks for, in bytes",
        NORMDROP_STATUS_SIZE => c"a buffer has more values than memory can hold",
        NORMDROP_STATUS_OVERLAP => c"a buffer that would be written overlaps another one",
        NORMDROP_STATUS_LENGTH => {
            c"a buffer has the wrong length (in values of its type; of a mask in bytes); see normdrop_layer_lengths"
        }
        NORMDROP_STATUS_SHAPE => c"the product of the dimensions does not fit a size_t",
        NORMDROP_STATUS_POSITIONS => c"positions is above 1 and does not divide outer, or inner is not 1",
        NORMDROP_STATUS_ACTIVATION => c"there is no activation of that number: see NORMDROP_ACTIVATION_*",
        NORMDROP_STATUS_SLOPE => c"slope must be finite",
        NORMDROP_STATUS_ALPHA => c"alpha must be finite",
        NORMDROP_STATUS_EPS => c"eps must be finite and at least 0, in training above 0",
        NORMDROP_STATUS_MOMENTUM => {
            c"momentum, the weight of the new value in the running statistics, must be in [0, 1]"
        }
        NORMDROP_STATUS_PROBABILITY => c"p, the probability to drop, must be in [0, 1]",
        NORMDROP_STATUS_GRANULARITY => c"there is no granularity of that number: see NORMDROP_GRANULARITY_*",
        NORMDROP_STATUS_RUNNING_VARIANCE => {
            c"there is no running variance of that number: see NORMDROP_RUNNING_VARIANCE_*"
        }
        NORMDROP_STATUS_BACKEND => {
            c"there is no backend of that number, or this CPU or build cannot run it: see normdrop_backend_is_available"
        }
        NORMDROP_STATUS_TASKS => c"several tasks need a library that was built with the feature rayon: set tasks to 1",
        NORMDROP_STATUS_STATISTICS => {
            c"there are no statistics of that number (see NORMDROP_STATISTICS_*), or a masked evaluation is given prepared ones"
        }
        NORMDROP_STATUS_SINGLE_SAMPLE => {
            c"training needs more than one value per channel, because the unbiased variance of one does not exist: give \
              more, keep a biased running variance or none, or normalise with fixed statistics"
        }
        NORMDROP_STATUS_MISSING_BIAS => {
            c"a channel of the batch norm has a shift, and the layer that it is folded into has no bias to take it: give \
              it a bias of zeros"
        }
        NORMDROP_STATUS_MULTIPLE => c"moments or sums do not have a whole number of values for each channel",
        NORMDROP_STATUS_VARIANCE => {
            c"the running variance of a channel plus eps must be above 0: raise eps, or set the variance to that of the data"
        }
        NORMDROP_STATUS_COUNT => c"the number of values of a channel must be positive and finite",
        NORMDROP_STATUS_NOT_FINITE => c"a value is not finite, or would not be after the call",
        NORMDROP_STATUS_WEIGHT_ORDER => c"there is no such order of weights",
        NORMDROP_STATUS_GROUPS => c"groups must divide inputs and outputs",
        NORMDROP_STATUS_SEQUENCE_LENGTH => c"a sequence is longer than the tensor has positions",
        NORMDROP_STATUS_NOT_AN_ELEMENT_MASK => {
            c"only in a mask with one bit per element can padding be dropped, or gates take the place of the mask"
        }
        NORMDROP_STATUS_NO_GATES => {
            c"only the identity and NORMDROP_ACTIVATION_RELU have gates, and a call with prepared statistics writes none"
        }
        NORMDROP_STATUS_MASK_MISSING => {
            c"a training call of a layer that drops elements needs a mask: fill one, or set p to 0"
        }
        NORMDROP_STATUS_NOT_PREPARED => {
            c"prepared must be what normdrop_prepare has written for as many channels as the layer has"
        }
        NORMDROP_STATUS_TWO_BUFFERS => c"two buffers are given for one thing: leave one of them out",
        NORMDROP_STATUS_NOISE_WIDTH => {
            c"the width of noise must be in [0, 2^64], and a p of Gaussian dropout must not round to 1"
        }
        NORMDROP_STATUS_ELEMENT => {
            c"there is no type of elements of that number (see NORMDROP_ELEMENT_*), or a masked call is given halves"
        }
        NORMDROP_STATUS_NOISE_LAW => c"there is no law of noise of that number: see NORMDROP_NOISE_LAW_*",
        NORMDROP_STATUS_STORED_FORM => {
            c"there is no form of stored statistics of that number: see NORMDROP_STORED_FORM_*"
        }
        _ => c"unknown status",
    }
    .as_ptr()
}

/// The name of a buffer, as the fields of the structs spell it.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_buffer_name(buffer: normdrop_buffer) -> *const c_char {
    match buffer {
        NORMDROP_BUFFER_NONE => c"none",
        NORMDROP_BUFFER_LAYER => c"layer",
        NORMDROP_BUFFER_CALL => c"call",
        NORMDROP_BUFFER_RESULT => c"result",
        NORMDROP_BUFFER_NEXT => c"next",
        NORMDROP_BUFFER_INPUT => c"input",
        NORMDROP_BUFFER_RESIDUAL => c"residual",
        NORMDROP_BUFFER_OUTPUT => c"output",
        NORMDROP_BUFFER_GRAD_OUTPUT => c"grad_output",
        NORMDROP_BUFFER_GRAD_INPUT => c"grad_input",
        NORMDROP_BUFFER_GRAD_RESIDUAL => c"grad_residual",
        NORMDROP_BUFFER_WEIGHT => c"weight",
        NORMDROP_BUFFER_BIAS => c"bias",
        NORMDROP_BUFFER_GRAD_WEIGHT => c"grad_weight",
        NORMDROP_BUFFER_GRAD_BIAS => c"grad_bias",
        NORMDROP_BUFFER_RUNNING_MEAN => c"running_mean",
        NORMDROP_BUFFER_RUNNING_MEAN_TAIL => c"running_mean_tail",
        NORMDROP_BUFFER_RUNNING_VAR => c"running_var",
        NORMDROP_BUFFER_BATCHES => c"batches",
        NORMDROP_BUFFER_SAVED_MEAN => c"saved_mean",
        NORMDROP_BUFFER_SAVED_MEAN_TAIL => c"saved_mean_tail",
        NORMDROP_BUFFER_SAVED_INV_STD => c"saved_inv_std",
        NORMDROP_BUFFER_MOMENTS => c"moments",
        NORMDROP_BUFFER_SUMS => c"sums",
        NORMDROP_BUFFER_MASK => c"mask",
        NORMDROP_BUFFER_GATES => c"gates",
        NORMDROP_BUFFER_SCRATCH => c"scratch",
        NORMDROP_BUFFER_FOLD_WEIGHTS => c"weights",
        NORMDROP_BUFFER_FOLD_BIAS => c"weights_bias",
        NORMDROP_BUFFER_LENGTHS => c"lengths",
        NORMDROP_BUFFER_VALUES => c"values",
        NORMDROP_BUFFER_PREPARED => c"prepared",
        NORMDROP_BUFFER_FOLD_PADDING => c"padding",
        NORMDROP_BUFFER_VALIDITY => c"validity",
        NORMDROP_BUFFER_WORKSPACE => c"workspace",
        NORMDROP_BUFFER_MASKED => c"masked",
        NORMDROP_BUFFER_NOISE => c"noise",
        NORMDROP_BUFFER_SLOPE => c"slope",
        NORMDROP_BUFFER_GRAD_SLOPE => c"grad_slope",
        _ => c"unknown buffer",
    }
    .as_ptr()
}

/// The fastest backend that this CPU and this build can run: one of `NORMDROP_BACKEND_*`.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_backend_detect() -> normdrop_backend {
    number_of_backend(Backend::detect())
}

/// 1 if this CPU and this build can run a backend, 0 if not.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_backend_is_available(backend: normdrop_backend) -> i32 {
    match backend {
        NORMDROP_BACKEND_FASTEST => 1,
        other => backend_of(other).is_some_and(Backend::is_available).into(),
    }
}

/// The name of a backend in lower case.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_backend_name(backend: normdrop_backend) -> *const c_char {
    match backend {
        NORMDROP_BACKEND_FASTEST => c"fastest",
        NORMDROP_BACKEND_PORTABLE => c"portable",
        NORMDROP_BACKEND_AVX2 => c"avx2",
        NORMDROP_BACKEND_AVX512 => c"avx512",
        _ => c"unknown backend",
    }
    .as_ptr()
}

/// Gives every field of a layer its default. `version` is `NORMDROP_ABI_VERSION`, the version of
/// the header.
///
/// # Safety
/// `layer` is NULL or has room for a `normdrop_layer` of that version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_layer_init(layer: *mut normdrop_layer, version: u32) -> normdrop_status {
    if let Err(refused) = buffers::check_pointer(layer, NORMDROP_BUFFER_LAYER) {
        return refused.status;
    }
    if version != NORMDROP_ABI_VERSION {
        return NORMDROP_STATUS_VERSION;
    }
    let Config { eps, momentum, p, .. } = Config::DEFAULT;
    let default = normdrop_layer {
        version,
        activation: NORMDROP_ACTIVATION_IDENTITY,
        outer: 1,
        channels: 1,
        inner: 1,
        positions: 1,
        momentum,
        p,
        eps,
        slope: LeakyRelu::default().slope(),
        alpha: Elu::default().alpha(),
        granularity: NORMDROP_GRANULARITY_ELEMENT,
        running_variance: NORMDROP_RUNNING_VARIANCE_UNBIASED,
        backend: NORMDROP_BACKEND_FASTEST,
        tasks: 1,
    };
    // SAFETY: not null and aligned, and the caller says that there is room.
    unsafe { layer.write(default) };
    NORMDROP_STATUS_OK
}

/// The lengths of all buffers of a layer. It also checks the layer, except for the momentum, which
/// only the calls that use it check.
///
/// # Safety
/// Each pointer is NULL or points to its struct, of which at least the version is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_layer_lengths(
    layer: *const normdrop_layer,
    lengths: *mut normdrop_lengths,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
        // SAFETY: passed on.
        unsafe { check_struct(lengths, NORMDROP_BUFFER_RESULT)? };
        let answer = normdrop_lengths {
            version: NORMDROP_ABI_VERSION,
            elements: layer.shape().len(),
            channels: layer.shape().channels(),
            mask_bits: layer.mask_bits(),
            mask: layer.mask_len(),
            eval_scratch: layer.eval_scratch_len(),
            train_scratch: layer.train_scratch_len(),
            backward_scratch: layer.backward_scratch_len(),
            scratch: layer.scratch_len(),
            moments: layer.moments_len(),
            sums: layer.sums_len(),
            prepared: layer.prepared_len(),
            masked_scratch: layer.masked_scratch_len(),
            masked_workspace: layer.masked_workspace_len(),
            prelu_scratch: layer.prelu_scratch_len(),
        };
        // SAFETY: checked to be a struct of this version.
        unsafe { lengths.write(answer) };
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// The number of bytes of a mask of `bits` bits.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_mask_len(bits: usize) -> usize {
    mask::mask_len(bits)
}

/// Draws the dropout mask of `seed`. Each bit is a pure function of `seed`, `p` and the index of
/// the bit, the same on every machine. A mask that was never filled is all zeros and drops
/// everything.
///
/// Bit `i % 8` of byte `i / 8` is 1 if element `i` is kept: `numpy.packbits(bitorder="little")`.
///
/// # Safety
/// Each pointer is NULL or points to a value of its type. A buffer has its full length, and nobody
/// else uses it while the call lasts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_fill_mask(
    layer: *const normdrop_layer,
    seed: u64,
    mask: normdrop_slice_mut<u8>,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
        mask.region(NORMDROP_BUFFER_MASK)?;
        // SAFETY: the only buffer, in order by itself; the rest is passed on.
        layer.fill_mask(seed, unsafe { mask.get() })?;
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// Draws a dropout mask with a random generator of the caller. Each step takes sixteen words for
/// 512 bits.
///
/// `context` is passed to `next` and used for nothing else.
///
/// # Safety
/// As `normdrop_fill_mask`. `next` may be called with `context` from this thread, returns, and
/// leaves the mask alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_fill_mask_with(
    layer: *const normdrop_layer,
    next: normdrop_next,
    context: *mut c_void,
    mask: normdrop_slice_mut<u8>,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
        let mut generator = Generator::new(next, context)?;
        mask.region(NORMDROP_BUFFER_MASK)?;
        // SAFETY: the only buffer, in order by itself; the rest is passed on.
        layer.fill_mask_with(&mut generator, unsafe { mask.get() })?;
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// The exact keep probability and the scale that belong to a probability `p` to drop.
///
/// # Safety
/// Each pointer is NULL or points to its struct, of which at least the version is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_bernoulli_keep(
    p: f64,
    keep: *mut normdrop_keep,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        let bernoulli = Bernoulli::new(p)?;
        // SAFETY: passed on.
        unsafe { check_struct(keep, NORMDROP_BUFFER_RESULT)? };
        let answer = normdrop_keep {
            version: NORMDROP_ABI_VERSION,
            scale: bernoulli.scale(),
            threshold: bernoulli.threshold(),
            probability: bernoulli.keep_probability(),
        };
        // SAFETY: checked to be a struct of this version.
        unsafe { keep.write(answer) };
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// Draws a part of a mask: `bits` bits from bit `first` of the whole mask on, into
/// `normdrop_mask_len(bits)` bytes.
///
/// # Safety
/// As `normdrop_fill_mask`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_bernoulli_fill(
    p: f64,
    seed: u64,
    first: u64,
    bits: usize,
    mask: normdrop_slice_mut<u8>,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        let bernoulli = Bernoulli::new(p)?;
        mask.region(NORMDROP_BUFFER_MASK)?;
        // SAFETY: the only buffer, in order by itself; the rest is passed on.
        Ok(bernoulli.fill(seed, first, bits, unsafe { mask.get() })?)
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// Draws a mask of `bits` bits with a random generator of the caller, as `normdrop_fill_mask_with`.
///
/// # Safety
/// As `normdrop_fill_mask_with`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_bernoulli_fill_with(
    p: f64,
    next: normdrop_next,
    context: *mut c_void,
    bits: usize,
    mask: normdrop_slice_mut<u8>,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        let bernoulli = Bernoulli::new(p)?;
        let mut generator = Generator::new(next, context)?;
        mask.region(NORMDROP_BUFFER_MASK)?;
        // SAFETY: the only buffer, in order by itself; the rest is passed on.
        Ok(bernoulli.fill_with(&mut generator, bits, unsafe { mask.get() })?)
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// The seed of one mask of a training run, from the seed of the run and the numbers of a layer, a
/// step and a rank. Calls that differ in one number alone never give the same seed; sums of the
/// numbers may. The values are frozen, as masks are.
///
/// `seed_for(root, layer, step, rank) = next(next(next(root, layer), step), rank)`, where
/// `next(seed, n)` is output number `n + 1` of `SplitMix64(seed)`. Pass 0 for a number that the
/// program does not have.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_seed_for(root: u64, layer: u64, step: u64, rank: u64) -> u64 {
    mask::seed_for(root, layer, step, rank)
}

/// Drops the padding of sequences of different lengths: clears the bits of all padded elements in a
/// mask, which must have one bit per element. Position `i` of sample `s` is padding where
/// `i >= lengths[s]`.
///
/// Every call with this mask gives exactly +0.0 at the padded places, in the output and in the
/// gradient of the residual. `normdrop_reduce` sums over the valid places alone if the padding of
/// the input is finite. The gradient of the input needs `normdrop_clear_padding`, too. A sample has
/// `positions*inner` positions.
///
/// # Safety
/// As `normdrop_fill_mask`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_drop_padding(
    layer: *const normdrop_layer,
    lengths: normdrop_slice<usize>,
    mask: normdrop_slice_mut<u8>,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
        check_apart(&[lengths.region(NORMDROP_BUFFER_LENGTHS)?, mask.region(NORMDROP_BUFFER_MASK)?])?;
        // SAFETY: both buffers are in order and apart; the rest is passed on.
        let (lengths, mask) = unsafe { (lengths.get(), mask.get()) };
        Ok(layer.drop_padding(lengths, mask)?)
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// Clears the padding of sequences of different lengths in a tensor: +0.0 at all padded places. See
/// `normdrop_drop_padding`.
///
/// # Safety
/// As `normdrop_fill_mask`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_clear_padding(
    layer: *const normdrop_layer,
    lengths: normdrop_slice<usize>,
    values: normdrop_slice_mut<f32>,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
        check_apart(&[lengths.region(NORMDROP_BUFFER_LENGTHS)?, values.region(NORMDROP_BUFFER_VALUES)?])?;
        // SAFETY: both buffers are in order and apart; the rest is passed on.
        let (lengths, values) = unsafe { (lengths.get(), values.get()) };
        layer.clear_padding(lengths, values).map_err(of_values)
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// `normdrop_clear_padding` of halves.
///
/// # Safety
/// As `normdrop_fill_mask`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_clear_padding_half(
    layer: *const normdrop_layer,
    lengths: normdrop_slice<usize>,
    values: normdrop_halves_mut,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
        let values = TensorMut { single: NO_FLOATS_MUT, half: values };
        check_apart(&[lengths.region(NORMDROP_BUFFER_LENGTHS)?, values.region(NORMDROP_BUFFER_VALUES)?])?;
        // SAFETY: both buffers are in order and apart; the rest is passed on.
        let (lengths, values) = unsafe { (lengths.get(), values.get()) };
        #[cfg(not(feature = "half-precision"))]
        {
            layer.clear_padding(lengths, values).map_err(of_values)
        }
        #[cfg(feature = "half-precision")]
        match values {
            ValuesMut::F32(values) => layer.clear_padding(lengths, values),
            ValuesMut::F16(values) => layer.clear_padding(lengths, values),
            ValuesMut::Bf16(values) => layer.clear_padding(lengths, values),
        }
        .map_err(of_values)
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// Multiplies a tensor by noise, in place: Gaussian or uniform dropout. Each factor is a pure function
/// of `seed`, the law and the index, the same on every machine, and has the mean 1.
///
/// Forward it follows a training call of a layer whose `p` is 0, on `output`. Backward it is the first
/// step, on `grad_output`, with the same noise and seed. `p` of the layer plays no part. `values` has
/// the elements of the layer.
///
/// # Safety
/// As `normdrop_fill_mask`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_apply_noise(
    layer: *const normdrop_layer,
    noise: *const normdrop_noise,
    seed: u64,
    values: normdrop_slice_mut<f32>,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
        // SAFETY: passed on.
        let noise = unsafe { read_struct(noise, NORMDROP_BUFFER_NOISE)? }.get()?;
        values.region(NORMDROP_BUFFER_VALUES)?;
        // SAFETY: the only buffer, in order by itself; the rest is passed on.
        layer.apply_noise(noise, seed, unsafe { values.get() }).map_err(of_values)
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// Multiplies a part of a tensor by noise, in place: element `first + k` of the noise is the factor of
/// `values[k]`. Values of 1 become the factors themselves. Any part can be made alone, in any order.
///
/// # Safety
/// As `normdrop_fill_mask`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_noise_apply(
    noise: *const normdrop_noise,
    seed: u64,
    first: u64,
    values: normdrop_slice_mut<f32>,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let noise = unsafe { read_struct(noise, NORMDROP_BUFFER_NOISE)? }.get()?;
        values.region(NORMDROP_BUFFER_VALUES)?;
        // SAFETY: the only buffer, in order by itself; the rest is passed on.
        noise.apply(seed, first, unsafe { values.get() });
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// Alpha dropout of a tensor, in place: dropout for `NORMDROP_ACTIVATION_SELU`, which leaves a mean of
/// 0 and a variance of 1 as they are.
///
/// With `p` of the layer, `q = 1 - p`, `alpha = 1.7580993408473766` and
/// `a = 1/sqrt((alpha^2*p + 1)*q)`, a kept `x` becomes `a*x + alpha*a*p`, and a dropped one `-alpha*a*q`.
/// With a `p` of 1 every value becomes +0.0. The granularity of the layer says what a bit of the mask
/// decides about: an element is PyTorch's `AlphaDropout`, a channel its `FeatureAlphaDropout`.
///
/// It follows a training call without dropout, for which another layer has a `p` of 0. `values` has the
/// elements of the layer.
///
/// # Safety
/// As `normdrop_fill_mask`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_alpha_dropout(
    layer: *const normdrop_layer,
    mask: normdrop_slice<u8>,
    values: normdrop_slice_mut<f32>,
    error: *mut normdrop_error,
) -> normdrop_status {
    // SAFETY: passed on.
    unsafe { report(error, || alpha_dropout(layer, mask, values, Layer::alpha_dropout)) }
}

/// The gradient of `normdrop_alpha_dropout`, in place: a kept value becomes `a` times itself, a dropped
/// one +0.0. It is the first step of a backward call.
///
/// # Safety
/// As `normdrop_fill_mask`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_alpha_dropout_backward(
    layer: *const normdrop_layer,
    mask: normdrop_slice<u8>,
    values: normdrop_slice_mut<f32>,
    error: *mut normdrop_error,
) -> normdrop_status {
    // SAFETY: passed on.
    unsafe { report(error, || alpha_dropout(layer, mask, values, Layer::alpha_dropout_backward)) }
}

/// # Safety
/// As `normdrop_fill_mask`.
unsafe fn alpha_dropout(
    layer: *const normdrop_layer,
    mask: normdrop_slice<u8>,
    values: normdrop_slice_mut<f32>,
    run: impl FnOnce(&Layer<Identity>, &[u8], &mut [f32]) -> Result<(), Error>,
) -> Outcome {
    // SAFETY: passed on.
    let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
    check_apart(&[mask.region(NORMDROP_BUFFER_MASK)?, values.region(NORMDROP_BUFFER_VALUES)?])?;
    // SAFETY: both buffers are in order and apart; the rest is passed on.
    let (mask, values) = unsafe { (mask.get(), values.get()) };
    run(&layer, mask, values).map_err(of_values)
}

/// PReLU of a tensor, in place: `y` becomes `y < 0 ? slope*y : y`, with a slope for each channel that is
/// learned, or with one for all channels.
///
/// It follows any forward call of a layer with `NORMDROP_ACTIVATION_IDENTITY`, with dropout or without:
/// training, evaluation, prepared, masked, of a part of a batch. `slope` has `channels` values or one, and
/// `values` the elements of the layer. A dropped element stays +0.0.
///
/// # Safety
/// As `normdrop_fill_mask`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_prelu(
    layer: *const normdrop_layer,
    slope: normdrop_slice<f32>,
    values: normdrop_slice_mut<f32>,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
        check_apart(&[slope.region(NORMDROP_BUFFER_SLOPE)?, values.region(NORMDROP_BUFFER_VALUES)?])?;
        // SAFETY: both buffers are in order and apart; the rest is passed on.
        let (slope, values) = unsafe { (slope.get(), values.get()) };
        layer.prelu(slope, values).map_err(of_values)
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// The gradient of `normdrop_prelu`, in place. `values` has what went into PReLU, and gets the gradient
/// `y > 0 ? grad_output : slope*grad_output`; `grad_slope` gets the sums of `y*grad_output` where `y` is
/// below 0.
///
/// `values` is made by the forward call once more: `normdrop_eval`, or `normdrop_apply` with the saved
/// statistics of a training call, with the same dropout. Afterwards `values` is the `grad_output` of
/// `normdrop_backward` of a layer with `NORMDROP_ACTIVATION_IDENTITY`, again with the same dropout;
/// in place it may become `grad_input`. `slope` has `channels` values or one, `grad_slope` as many, unless
/// it is left out because it is not needed. `scratch` has `prelu_scratch` values of `normdrop_lengths`.
///
/// # Safety
/// As `normdrop_fill_mask`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_prelu_gradient(
    layer: *const normdrop_layer,
    slope: normdrop_slice<f32>,
    grad_output: normdrop_slice<f32>,
    values: normdrop_slice_mut<f32>,
    grad_slope: normdrop_slice_mut<f32>,
    scratch: normdrop_slice_mut<f64>,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
        check_apart(&[
            slope.region(NORMDROP_BUFFER_SLOPE)?,
            grad_output.region(NORMDROP_BUFFER_GRAD_OUTPUT)?,
            values.region(NORMDROP_BUFFER_VALUES)?,
            grad_slope.region(NORMDROP_BUFFER_GRAD_SLOPE)?,
            scratch.region(NORMDROP_BUFFER_SCRATCH)?,
        ])?;
        // SAFETY: all buffers are in order and apart; the rest is passed on.
        let (slope, grad_output, values) = unsafe { (slope.get(), grad_output.get(), values.get()) };
        // SAFETY: as above.
        let (grad_slope, scratch) = unsafe { (grad_slope.optional(), scratch.get()) };
        layer.prelu_gradient(slope, grad_output, values, grad_slope, scratch).map_err(of_values)
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// A random generator of the caller.
struct Generator {
    next: unsafe extern "C" fn(*mut c_void) -> u32,
    context: *mut c_void,
}

impl Generator {
    fn new(next: normdrop_next, context: *mut c_void) -> Result<Self, normdrop_error> {
        match next {
            Some(next) => Ok(Self { next, context }),
            None => Err(normdrop_error::new(NORMDROP_STATUS_NULL).of(NORMDROP_BUFFER_NEXT)),
        }
    }

    fn word(&mut self) -> u32 {
        // SAFETY: the caller of the C function promises that `next` may be called.
        unsafe { (self.next)(self.context) }
    }
}

impl TryRng for Generator {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.word())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from(self.word()) | u64::from(self.word()) << 32)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for bytes in bytes.chunks_mut(4) {
            for (byte, drawn) in bytes.iter_mut().zip(self.word().to_le_bytes()) {
                *byte = drawn;
            }
        }
        Ok(())
    }
}

/// Training forward: batch statistics, optionally with dropout. It updates the running statistics
/// and saves the statistics that `normdrop_backward` needs. Not in place, because the backward call
/// needs the input.
///
/// # Safety
/// Each pointer is NULL or points to a value of its type, and buffers have their full lengths.
/// While the call lasts, nobody else writes a buffer of the call, or reads a buffer that the call
/// writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_train(
    layer: *const normdrop_layer,
    call: *const normdrop_train_call,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? };
        // SAFETY: passed on.
        let call = unsafe { read_struct(call, NORMDROP_BUFFER_CALL)? };
        check_apart(&call.regions()?)?;
        if call.has_halves() {
            // SAFETY: all buffers are in order and apart; the rest is passed on.
            return unsafe { call.run_mixed(&layer) };
        }
        // SAFETY: as above.
        let (train, gates) = unsafe { (call.get(), call.gates.optional()) };
        with_layer!(layer, layer => match gates {
            Some(gates) => layer.train_with_gates(train, gates),
            None => layer.train(train),
        })
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// Prepares fixed (running) statistics and parameters, once, for any number of calls that have the
/// same: `normdrop_eval` with `prepared`, and `normdrop_backward` and `normdrop_reduce` with
/// `NORMDROP_STATISTICS_PREPARED`. Their results are the same bits, without a square root or a
/// quotient: small calls are several times faster.
///
/// `prepared` serves every layer with as many channels. It is a copy: after a change of the
/// statistics or parameters, prepare again. The activation, `p` and the shape apart from the
/// channels do not matter.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_prepare(
    layer: *const normdrop_layer,
    call: *const normdrop_prepare_call,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
        // SAFETY: passed on.
        let call = unsafe { read_struct(call, NORMDROP_BUFFER_CALL)? };
        let [weight, bias, mean, mean_tail, var] = batch_norm_regions!(call);
        check_apart(&[weight, bias, mean, mean_tail, var, call.prepared.region(NORMDROP_BUFFER_PREPARED)?])?;
        // SAFETY: all buffers are in order and apart; the rest is passed on.
        let prepare = unsafe {
            Prepare {
                parameters: parameters(call.weight, call.bias),
                running: running(call.running_mean, call.running_mean_tail, call.running_var),
                prepared: call.prepared.get(),
            }
        };
        Ok(layer.prepare(prepare)?)
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// Evaluation forward: fixed (running) statistics, optionally with dropout. `output` may be `input`
/// itself.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_eval(
    layer: *const normdrop_layer,
    call: *const normdrop_eval_call,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? };
        // SAFETY: passed on.
        let call = unsafe { read_struct(call, NORMDROP_BUFFER_CALL)? };
        // A call that writes gates is not in place, because the backward call with the gates needs the input.
        let in_place = tensor!(call, input).is(tensor_mut!(call, output)) && call.gates.values.is_null();
        let in_gates = call.mask.is(call.gates);
        let is_prepared = !call.prepared.is_left_out();
        // With prepared statistics no other statistics or parameters are used, nor checked.
        let statistics = if is_prepared {
            [call.prepared.region(NORMDROP_BUFFER_PREPARED)?, Region::NONE, Region::NONE, Region::NONE, Region::NONE]
        } else {
            batch_norm_regions!(call)
        };
        let [first, second, third, fourth, fifth] = statistics;
        check_apart(&[
            first,
            second,
            third,
            fourth,
            fifth,
            if in_gates { Region::NONE } else { call.mask.region(NORMDROP_BUFFER_MASK)? },
            call.gates.region(NORMDROP_BUFFER_GATES)?,
            if in_place { Region::NONE } else { tensor!(call, input).region(NORMDROP_BUFFER_INPUT)? },
            tensor!(call, residual).region(NORMDROP_BUFFER_RESIDUAL)?,
            tensor_mut!(call, output).region(NORMDROP_BUFFER_OUTPUT)?,
            call.scratch.region(NORMDROP_BUFFER_SCRATCH)?,
        ])?;
        if call.has_halves() {
            // SAFETY: all buffers are in order and apart; the rest is passed on.
            return unsafe { call.run_mixed(&layer, in_place) };
        }
        // SAFETY: as above.
        let (dropout, residual, output, scratch) = unsafe {
            (forward_dropout(in_gates, call.mask), call.residual.optional(), call.output.get(), call.scratch.get())
        };
        // SAFETY: as above; where the output is the input, it is not used.
        let input = if in_place { &[][..] } else { unsafe { call.input.get() } };
        // SAFETY: as above.
        let gates = unsafe { call.gates.optional() };
        if is_prepared {
            if gates.is_some() {
                return Err(normdrop_error::new(NORMDROP_STATUS_NO_GATES).of(NORMDROP_BUFFER_GATES));
            }
            // SAFETY: as above.
            let prepared = unsafe { call.prepared.get() };
            return if in_place {
                let eval = EvalPreparedInPlace { prepared, dropout, residual, values: output, scratch };
                with_layer!(layer, layer => layer.eval_prepared_in_place(eval))
            } else {
                let eval = EvalPrepared { prepared, dropout, input, residual, output, scratch };
                with_layer!(layer, layer => layer.eval_prepared(eval))
            };
        }
        // SAFETY: as above.
        let (parameters, running) = unsafe {
            (parameters(call.weight, call.bias), running(call.running_mean, call.running_mean_tail, call.running_var))
        };
        if in_place {
            let eval = EvalInPlace { parameters, running, dropout, residual, values: output, scratch };
            with_layer!(layer, layer => layer.eval_in_place(eval))
        } else {
            let eval = Eval { parameters, running, dropout, input, residual, output, scratch };
            with_layer!(layer, layer => match gates {
                Some(_) if is_unscaled(&dropout, layer.config().p) => Err(Error::DropoutUnset { p: layer.config().p }),
                Some(gates) => layer.eval_with_gates(eval, gates),
                None => layer.eval(eval),
            })
        }
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// The gradients of the layer. They flow through batch statistics; fixed statistics are constants.
/// `grad_input` may be `grad_output` itself.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_backward(
    layer: *const normdrop_layer,
    call: *const normdrop_backward_call,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? };
        // SAFETY: passed on.
        let call = unsafe { read_struct(call, NORMDROP_BUFFER_CALL)? };
        let in_place = tensor!(call, grad_output).is(tensor_mut!(call, grad_input));
        check_apart(&call.regions(in_place)?)?;
        if call.has_halves() {
            // SAFETY: all buffers are in order and apart; the rest is passed on.
            return unsafe { call.run_mixed(&layer, in_place) };
        }
        // SAFETY: all buffers are in order and apart; the rest is passed on.
        match unsafe { call.get(in_place) } {
            Backward {
                parameters,
                statistics,
                dropout,
                input,
                residual,
                grad_input: Some(values),
                grad_residual,
                grad_parameters,
                scratch,
                ..
            } if in_place => {
                let backward = BackwardInPlace {
                    parameters,
                    statistics,
                    dropout,
                    input,
                    residual,
                    values,
                    grad_residual,
                    grad_parameters,
                    scratch,
                };
                with_layer!(layer, layer => layer.backward_in_place(backward).map_err(of_grad_input))
            }
            backward => {
                with_layer!(layer, layer => layer.backward(backward))
            }
        }
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// `normdrop_train` over the valid positions of a padded batch, sequences of different lengths in one
/// tensor: statistics of the valid values alone, and +0.0 in `output` where a position is padding.
/// What the tensors have in the padding is never read.
///
/// The mask has the bits of the whole tensor. `call` has `masked_scratch` values of scratch. A batch
/// without a valid position leaves the running statistics as they are, and its saved statistics are 0.
/// If every position is valid, the results are the bits of `normdrop_train`.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_train_masked(
    layer: *const normdrop_layer,
    call: *const normdrop_train_call,
    masked: *const normdrop_masked,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? };
        // SAFETY: passed on.
        let call = unsafe { read_struct(call, NORMDROP_BUFFER_CALL)? };
        // SAFETY: passed on.
        let masked = unsafe { read_struct(masked, NORMDROP_BUFFER_MASKED)? };
        if call.has_halves() {
            return Err(masked_halves());
        }
        masked.check(&call.regions()?)?;
        // SAFETY: all buffers are in order and apart; the rest is passed on.
        let (train, gates, masked) = unsafe { (call.get(), call.gates.optional(), masked.get()) };
        with_layer!(layer, layer => match gates {
            Some(gates) => layer.train_masked_with_gates(train, masked, gates),
            None => layer.train_masked(train, masked),
        })
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// `normdrop_eval` over the valid positions of a padded batch: +0.0 in `output` where a position is
/// padding. Not in place, and not with prepared statistics. At valid positions the
/// results are the bits of `normdrop_eval`.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_eval_masked(
    layer: *const normdrop_layer,
    call: *const normdrop_eval_call,
    masked: *const normdrop_masked,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? };
        // SAFETY: passed on.
        let call = unsafe { read_struct(call, NORMDROP_BUFFER_CALL)? };
        // SAFETY: passed on.
        let masked = unsafe { read_struct(masked, NORMDROP_BUFFER_MASKED)? };
        if call.has_halves() {
            return Err(masked_halves());
        }
        if !call.prepared.is_left_out() {
            return Err(normdrop_error::new(NORMDROP_STATUS_STATISTICS).of(NORMDROP_BUFFER_PREPARED));
        }
        let in_gates = call.mask.is(call.gates);
        let [weight, bias, mean, mean_tail, var] = batch_norm_regions!(call);
        masked.check(&[
            weight,
            bias,
            mean,
            mean_tail,
            var,
            if in_gates { Region::NONE } else { call.mask.region(NORMDROP_BUFFER_MASK)? },
            call.gates.region(NORMDROP_BUFFER_GATES)?,
            tensor!(call, input).region(NORMDROP_BUFFER_INPUT)?,
            tensor!(call, residual).region(NORMDROP_BUFFER_RESIDUAL)?,
            tensor_mut!(call, output).region(NORMDROP_BUFFER_OUTPUT)?,
            call.scratch.region(NORMDROP_BUFFER_SCRATCH)?,
        ])?;
        // SAFETY: all buffers are in order and apart; the rest is passed on.
        let (eval, masked, gates) = unsafe {
            let eval = Eval {
                parameters: parameters(call.weight, call.bias),
                running: running(call.running_mean, call.running_mean_tail, call.running_var),
                dropout: forward_dropout(in_gates, call.mask),
                input: call.input.get(),
                residual: call.residual.optional(),
                output: call.output.get(),
                scratch: call.scratch.get(),
            };
            (eval, masked.get(), call.gates.optional())
        };
        with_layer!(layer, layer => match gates {
            Some(_) if is_unscaled(&eval.dropout, layer.config().p) => Err(Error::DropoutUnset { p: layer.config().p }),
            Some(gates) => layer.eval_masked_with_gates(eval, masked, gates),
            None => layer.eval_masked(eval, masked),
        })
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// `normdrop_backward` over the valid positions of a padded batch, after `normdrop_train_masked` or
/// `normdrop_eval_masked`: `grad_input` and `grad_residual` are +0.0 where a position is padding. Not in
/// place.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_backward_masked(
    layer: *const normdrop_layer,
    call: *const normdrop_backward_call,
    masked: *const normdrop_masked,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? };
        // SAFETY: passed on.
        let call = unsafe { read_struct(call, NORMDROP_BUFFER_CALL)? };
        // SAFETY: passed on.
        let masked = unsafe { read_struct(masked, NORMDROP_BUFFER_MASKED)? };
        if call.has_halves() {
            return Err(masked_halves());
        }
        masked.check(&call.regions(false)?)?;
        // SAFETY: all buffers are in order and apart; the rest is passed on.
        let (backward, masked) = unsafe { (call.get(false), masked.get()) };
        with_layer!(layer, layer => layer.backward_masked(backward, masked))
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// The moments of a part of a batch: counts, means and sums of squared deviations. The layer has
/// the shape of the part. Merge the moments of all parts with `normdrop_merge_moments`, then call
/// `normdrop_finish` and `normdrop_apply`.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_moments(
    layer: *const normdrop_layer,
    input: normdrop_slice<f32>,
    moments: normdrop_slice_mut<f64>,
    scratch: normdrop_slice_mut<f64>,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
        check_apart(&[
            input.region(NORMDROP_BUFFER_INPUT)?,
            moments.region(NORMDROP_BUFFER_MOMENTS)?,
            scratch.region(NORMDROP_BUFFER_SCRATCH)?,
        ])?;
        // SAFETY: all buffers are in order and apart; the rest is passed on.
        let call = unsafe { Moments { input: input.get(), moments: moments.get(), scratch: scratch.get() } };
        Ok(layer.moments(call)?)
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// `normdrop_moments` of halves.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_moments_half(
    layer: *const normdrop_layer,
    input: normdrop_halves,
    moments: normdrop_slice_mut<f64>,
    scratch: normdrop_slice_mut<f64>,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
        let input = Tensor { single: NO_FLOATS, half: input };
        check_apart(&[
            input.region(NORMDROP_BUFFER_INPUT)?,
            moments.region(NORMDROP_BUFFER_MOMENTS)?,
            scratch.region(NORMDROP_BUFFER_SCRATCH)?,
        ])?;
        // SAFETY: all buffers are in order and apart; the rest is passed on.
        let call =
            unsafe { MomentsCall::<Tensors> { input: input.get(), moments: moments.get(), scratch: scratch.get() } };
        Ok(layer.sum_up(call)?)
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// Merges the moments of one part of a batch into the moments of another part: afterwards `into`
/// has the moments of both parts.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_merge_moments(
    into: normdrop_slice_mut<f64>,
    from: normdrop_slice<f64>,
    error: *mut normdrop_error,
) -> normdrop_status {
    // SAFETY: passed on.
    unsafe { report(error, || merge(into, from, NORMDROP_BUFFER_MOMENTS, parts::merge_moments)) }
}

/// Checks that the merged moments of a batch have means and variances that fit a float. Call it
/// before `normdrop_finish` in order to skip a batch with a NaN or with values beyond 1e19. If a
/// mean or variance does not fit, the status is `NORMDROP_STATUS_NOT_FINITE`, and the error has
/// `running_mean` or `running_var` and the channel.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_check_moments(
    layer: *const normdrop_layer,
    moments: normdrop_slice<f64>,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
        moments.region(NORMDROP_BUFFER_MOMENTS)?;
        // SAFETY: the only buffer, in order by itself; the rest is passed on.
        Ok(layer.check_moments(unsafe { moments.get() })?)
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// The statistics of a batch from its moments. It updates the running statistics. `outer`, `inner`
/// and the activation of the layer do not matter.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_finish(
    layer: *const normdrop_layer,
    call: *const normdrop_finish_call,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
        // SAFETY: passed on.
        let call = unsafe { read_struct(call, NORMDROP_BUFFER_CALL)? };
        let batches = count_of(call.batches);
        check_apart(&[
            call.moments.region(NORMDROP_BUFFER_MOMENTS)?,
            call.running_mean.region(NORMDROP_BUFFER_RUNNING_MEAN)?,
            call.running_mean_tail.region(NORMDROP_BUFFER_RUNNING_MEAN_TAIL)?,
            call.running_var.region(NORMDROP_BUFFER_RUNNING_VAR)?,
            batches.region(NORMDROP_BUFFER_BATCHES)?,
            call.saved_mean.region(NORMDROP_BUFFER_SAVED_MEAN)?,
            call.saved_mean_tail.region(NORMDROP_BUFFER_SAVED_MEAN_TAIL)?,
            call.saved_inv_std.region(NORMDROP_BUFFER_SAVED_INV_STD)?,
        ])?;
        // SAFETY: all buffers are in order and apart; the rest is passed on.
        let finish = unsafe {
            Finish {
                moments: call.moments.get(),
                running: running_mut(call.running_mean, call.running_mean_tail, call.running_var, batches),
                saved: saved_mut(call.saved_mean, call.saved_mean_tail, call.saved_inv_std),
            }
        };
        Ok(layer.finish(finish)?)
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// The forward call of a part of a batch, with the statistics of the whole batch. Not in place.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_apply(
    layer: *const normdrop_layer,
    call: *const normdrop_apply_call,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? };
        // SAFETY: passed on.
        let call = unsafe { read_struct(call, NORMDROP_BUFFER_CALL)? };
        let in_gates = call.mask.is(call.gates);
        check_apart(&[
            call.weight.region(NORMDROP_BUFFER_WEIGHT)?,
            call.bias.region(NORMDROP_BUFFER_BIAS)?,
            call.saved_mean.region(NORMDROP_BUFFER_SAVED_MEAN)?,
            call.saved_mean_tail.region(NORMDROP_BUFFER_SAVED_MEAN_TAIL)?,
            call.saved_inv_std.region(NORMDROP_BUFFER_SAVED_INV_STD)?,
            if in_gates { Region::NONE } else { call.mask.region(NORMDROP_BUFFER_MASK)? },
            call.gates.region(NORMDROP_BUFFER_GATES)?,
            tensor!(call, input).region(NORMDROP_BUFFER_INPUT)?,
            tensor!(call, residual).region(NORMDROP_BUFFER_RESIDUAL)?,
            tensor_mut!(call, output).region(NORMDROP_BUFFER_OUTPUT)?,
            call.scratch.region(NORMDROP_BUFFER_SCRATCH)?,
        ])?;
        if [tensor!(call, input), tensor!(call, residual)].iter().any(|tensor| tensor.is_of_halves())
            || tensor_mut!(call, output).is_of_halves()
        {
            // SAFETY: all buffers are in order and apart; the rest is passed on.
            return unsafe { call.run_mixed(&layer) };
        }
        // SAFETY: as above.
        let apply = unsafe {
            Apply {
                parameters: parameters(call.weight, call.bias),
                saved: saved(call.saved_mean, call.saved_mean_tail, call.saved_inv_std),
                dropout: forward_dropout(in_gates, call.mask),
                input: call.input.get(),
                residual: call.residual.optional(),
                output: call.output.get(),
                scratch: call.scratch.get(),
            }
        };
        // SAFETY: as above.
        let gates = unsafe { call.gates.optional() };
        with_layer!(layer, layer => match gates {
            Some(gates) => layer.apply_with_gates(apply, gates),
            None => layer.apply(apply),
        })
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// The sums over a part of a batch from which gradients are made. Merge the sums of all parts with
/// `normdrop_merge_sums`, then call `normdrop_finish_gradients` and `normdrop_apply_gradient`.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_reduce(
    layer: *const normdrop_layer,
    call: *const normdrop_reduce_call,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? };
        // SAFETY: passed on.
        let call = unsafe { read_struct(call, NORMDROP_BUFFER_CALL)? };
        let given = given_statistics!(call);
        let [first, second, third] = given.regions()?;
        check_apart(&[
            call.weight.region(NORMDROP_BUFFER_WEIGHT)?,
            call.bias.region(NORMDROP_BUFFER_BIAS)?,
            first,
            second,
            third,
            call.mask.region(NORMDROP_BUFFER_MASK)?,
            call.gates.region(NORMDROP_BUFFER_GATES)?,
            tensor!(call, input).region(NORMDROP_BUFFER_INPUT)?,
            tensor!(call, residual).region(NORMDROP_BUFFER_RESIDUAL)?,
            tensor!(call, grad_output).region(NORMDROP_BUFFER_GRAD_OUTPUT)?,
            call.sums.region(NORMDROP_BUFFER_SUMS)?,
            call.scratch.region(NORMDROP_BUFFER_SCRATCH)?,
        ])?;
        if [tensor!(call, input), tensor!(call, residual), tensor!(call, grad_output)]
            .iter()
            .any(|tensor| tensor.is_of_halves())
        {
            // SAFETY: all buffers are in order and apart; the rest is passed on.
            return unsafe { call.run_mixed(&layer) };
        }
        // SAFETY: as above.
        let reduce = unsafe {
            Reduce {
                parameters: parameters(call.weight, call.bias),
                statistics: given.get(),
                dropout: backward_dropout(call.mask, call.gates),
                input: call.input.get(),
                residual: call.residual.optional(),
                grad_output: call.grad_output.get(),
                sums: call.sums.get(),
                scratch: call.scratch.get(),
            }
        };
        with_layer!(layer, layer => layer.reduce(reduce))
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// Merges the sums of one part of a batch into the sums of another part: a plain addition, as any
/// all-reduce does it.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_merge_sums(
    into: normdrop_slice_mut<f64>,
    from: normdrop_slice<f64>,
    error: *mut normdrop_error,
) -> normdrop_status {
    // SAFETY: passed on.
    unsafe { report(error, || merge(into, from, NORMDROP_BUFFER_SUMS, parts::merge_sums)) }
}

/// The gradients of weight and bias from the sums over the whole batch. Each has C values, or is
/// left out.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_finish_gradients(
    layer: *const normdrop_layer,
    sums: normdrop_slice<f64>,
    grad_weight: normdrop_slice_mut<f32>,
    grad_bias: normdrop_slice_mut<f32>,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? }.without_activation()?;
        check_apart(&[
            sums.region(NORMDROP_BUFFER_SUMS)?,
            grad_weight.region(NORMDROP_BUFFER_GRAD_WEIGHT)?,
            grad_bias.region(NORMDROP_BUFFER_GRAD_BIAS)?,
        ])?;
        // SAFETY: all buffers are in order and apart; the rest is passed on.
        let (sums, gradients) =
            unsafe { (sums.get(), ParameterGradients { weight: grad_weight.optional(), bias: grad_bias.optional() }) };
        Ok(layer.finish_gradients(sums, gradients)?)
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// The gradients of the elements of a part of a batch, through the statistics of the whole batch.
/// Not in place.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_apply_gradient(
    layer: *const normdrop_layer,
    call: *const normdrop_apply_gradient_call,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let layer = unsafe { read_struct(layer, NORMDROP_BUFFER_LAYER)? };
        // SAFETY: passed on.
        let call = unsafe { read_struct(call, NORMDROP_BUFFER_CALL)? };
        check_apart(&[
            call.weight.region(NORMDROP_BUFFER_WEIGHT)?,
            call.bias.region(NORMDROP_BUFFER_BIAS)?,
            call.saved_mean.region(NORMDROP_BUFFER_SAVED_MEAN)?,
            call.saved_mean_tail.region(NORMDROP_BUFFER_SAVED_MEAN_TAIL)?,
            call.saved_inv_std.region(NORMDROP_BUFFER_SAVED_INV_STD)?,
            call.sums.region(NORMDROP_BUFFER_SUMS)?,
            call.mask.region(NORMDROP_BUFFER_MASK)?,
            call.gates.region(NORMDROP_BUFFER_GATES)?,
            tensor!(call, input).region(NORMDROP_BUFFER_INPUT)?,
            tensor!(call, residual).region(NORMDROP_BUFFER_RESIDUAL)?,
            tensor!(call, grad_output).region(NORMDROP_BUFFER_GRAD_OUTPUT)?,
            tensor_mut!(call, grad_input).region(NORMDROP_BUFFER_GRAD_INPUT)?,
            tensor_mut!(call, grad_residual).region(NORMDROP_BUFFER_GRAD_RESIDUAL)?,
            call.scratch.region(NORMDROP_BUFFER_SCRATCH)?,
        ])?;
        if [tensor!(call, input), tensor!(call, residual), tensor!(call, grad_output)]
            .iter()
            .any(|tensor| tensor.is_of_halves())
            || [tensor_mut!(call, grad_input), tensor_mut!(call, grad_residual)]
                .iter()
                .any(|tensor| tensor.is_of_halves())
        {
            // SAFETY: all buffers are in order and apart; the rest is passed on.
            return unsafe { call.run_mixed(&layer) };
        }
        // SAFETY: as above.
        let apply_gradient = unsafe {
            ApplyGradient {
                parameters: parameters(call.weight, call.bias),
                saved: saved(call.saved_mean, call.saved_mean_tail, call.saved_inv_std),
                samples: call.samples,
                sums: call.sums.get(),
                dropout: backward_dropout(call.mask, call.gates),
                input: call.input.get(),
                residual: call.residual.optional(),
                grad_output: call.grad_output.get(),
                grad_input: call.grad_input.get(),
                grad_residual: call.grad_residual.optional(),
                scratch: call.scratch.get(),
            }
        };
        with_layer!(layer, layer => layer.apply_gradient(apply_gradient))
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// Folds batch norm into the linear or convolution layer directly before it: `batchnorm(W*x + b)`
/// becomes `W'*x + b'`.
///
/// The call refuses a running variance that `eps` does not lift above 0, parameters that are not
/// finite, and results that do not fit a float. It writes weights below 2^-126 as they are. Such
/// weights are slow on many CPUs; if the data are below 1e30, set them to 0.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_fold_into_previous(
    call: *const normdrop_fold_call,
    error: *mut normdrop_error,
) -> normdrop_status {
    // SAFETY: passed on.
    unsafe { report(error, || run_fold(call, fold::fold_into_previous)) }
}

/// Folds batch norm into the linear or convolution layer after it: `W*batchnorm(x) + b` becomes
/// `W'*x + b'`.
///
/// The result is exact only if nothing but dropout and a flattening stands between the two, and if
/// every output uses every tap. So it is not exact with zero padding and for most transposed
/// convolutions, unless the batch norm shifts nothing. Zero padding of the network becomes a
/// padding with the values of `normdrop_fold_padding`. Max-pooling between the two becomes
/// min-pooling in the channels with a negative `weight`. The call refuses the arguments that
/// `normdrop_fold_into_previous` refuses.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_fold_into_next(
    call: *const normdrop_fold_call,
    error: *mut normdrop_error,
) -> normdrop_status {
    // SAFETY: passed on.
    unsafe { report(error, || run_fold(call, fold::fold_into_next)) }
}

/// The values with which a network pads instead of zeros after `normdrop_fold_into_next`, one per
/// channel: `running_mean - bias*sqrt(running_var + eps)/weight`, which the batch norm maps to 0.
///
/// Of `call`, only `version`, `eps` and the buffers of the batch norm are used; shape, `weights` and
/// `weights_bias` may be left out. `padding` has C values and is overwritten.
///
/// The call refuses the arguments that `normdrop_fold_into_next` refuses, and a channel for which
/// there is no such value, because its `weight` is 0 and its shift is not, with
/// `NORMDROP_STATUS_NOT_FINITE` and `NORMDROP_BUFFER_FOLD_PADDING`.
///
/// # Safety
/// As `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_fold_padding(
    call: *const normdrop_fold_call,
    padding: normdrop_slice_mut<f32>,
    error: *mut normdrop_error,
) -> normdrop_status {
    let run = || {
        // SAFETY: passed on.
        let call = unsafe { read_struct(call, NORMDROP_BUFFER_CALL)? };
        let [weight, bias, mean, mean_tail, var] = batch_norm_regions!(call);
        check_apart(&[weight, bias, mean, mean_tail, var, padding.region(NORMDROP_BUFFER_FOLD_PADDING)?])?;
        // SAFETY: all buffers are in order and apart; the rest is passed on.
        let arguments = unsafe {
            FoldPadding {
                parameters: parameters(call.weight, call.bias),
                running: running(call.running_mean, call.running_mean_tail, call.running_var),
                eps: call.eps,
                padding: padding.get(),
            }
        };
        Ok(fold::fold_padding(arguments)?)
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// The first channel whose max-pooling between a batch norm and the weight layer after it has to become
/// min-pooling, if the batch norm is folded by `normdrop_fold_into_next`: the first one with a `weight`
/// below 0. If there is none, so that max-pooling stays, `channel` becomes the length of `weight`, 0 if
/// `weight` is left out.
///
/// # Safety
/// `weight` has the values that it names, which nobody writes while the call lasts. `channel` points to
/// a `size_t` that nobody else uses meanwhile. `error` is as for `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_first_min_pooled(
    weight: normdrop_slice<f32>,
    channel: *mut usize,
    error: *mut normdrop_error,
) -> normdrop_status {
    let channel = normdrop_slice_mut { values: channel, len: 1 };
    let run = || {
        check_apart(&[weight.region(NORMDROP_BUFFER_WEIGHT)?, channel.region(NORMDROP_BUFFER_RESULT)?])?;
        // SAFETY: both are in order and apart; the rest is passed on.
        let (weight, channel) = unsafe { (weight.optional(), channel.get()) };
        let first = fold::first_min_pooled(Parameters { weight, bias: None });
        channel.fill(first.unwrap_or(weight.map_or(0, <[f32]>::len)));
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// Turns the statistics of another program into a running mean, a running variance and the `eps` that
/// belongs to them. `mean` and `spread` have one value per channel and are overwritten by the running
/// mean and the running variance. `mean` changes only for sums.
///
///     NORMDROP_STORED_FORM_EPS_OUTSIDE          var = (sqrt(spread) + stored.eps)^2     eps = 0
///     NORMDROP_STORED_FORM_DEVIATION            var = spread^2                          eps = 0
///     NORMDROP_STORED_FORM_INVERSE_DEVIATION    var = 1/spread^2                        eps = 0
///     NORMDROP_STORED_FORM_SUMS                 mean/factor, var = spread/factor        eps = stored.eps
///
/// The arithmetic is double and each result is rounded once. A NaN stays NaN. The call refuses, and
/// writes nothing then:
///
/// - a negative variance or deviation, and a channel with nothing to divide by: a deviation of 0, or a
///   variance and an `eps` of 0 (`NORMDROP_STATUS_VARIANCE`). An inverse deviation of 0 becomes an infinite
///   variance, whose channel is its bias. Sums may be negative.
/// - a factor that is not finite, and a variance that does not fit a float or would be 0 by rounding
///   (`NORMDROP_STATUS_NOT_FINITE`).
/// - an `eps` that is negative or not finite (`NORMDROP_STATUS_EPS`).
///
/// # Safety
/// `stored` is NULL or points to a `normdrop_stored`. The buffers have the values that they name, and
/// `eps` points to a float; nobody else uses them while the call lasts. `error` is as for
/// `normdrop_train`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_into_running(
    stored: *const normdrop_stored,
    mean: normdrop_slice_mut<f32>,
    spread: normdrop_slice_mut<f32>,
    eps: *mut f32,
    error: *mut normdrop_error,
) -> normdrop_status {
    let eps = normdrop_slice_mut { values: eps, len: 1 };
    let run = || {
        // SAFETY: passed on.
        let stored = unsafe { read_struct(stored, NORMDROP_BUFFER_CALL)? }.get()?;
        let (of_mean, of_var) = (NORMDROP_BUFFER_RUNNING_MEAN, NORMDROP_BUFFER_RUNNING_VAR);
        check_apart(&[mean.region(of_mean)?, spread.region(of_var)?, eps.region(NORMDROP_BUFFER_RESULT)?])?;
        // SAFETY: all are in order and apart; the rest is passed on.
        let (mean, spread, eps) = unsafe { (mean.get(), spread.get(), eps.get()) };
        eps.fill(stored.into_running(mean, spread)?);
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { report(error, run) }
}

/// # Safety
/// As `normdrop_train`.
unsafe fn run_fold(call: *const normdrop_fold_call, fold: impl FnOnce(Fold<'_>) -> Result<(), Error>) -> Outcome {
    // SAFETY: passed on.
    let call = unsafe { read_struct(call, NORMDROP_BUFFER_CALL)? };
    let shape = call.shape()?;
    let [weight, bias, mean, mean_tail, var] = batch_norm_regions!(call);
    let weights = call.weights.region(NORMDROP_BUFFER_FOLD_WEIGHTS)?;
    let weights_bias = call.weights_bias.region(NORMDROP_BUFFER_FOLD_BIAS)?;
    check_apart(&[weight, bias, mean, mean_tail, var, weights, weights_bias])?;
    // SAFETY: all buffers are in order and apart; the rest is passed on.
    let arguments = unsafe {
        Fold {
            parameters: parameters(call.weight, call.bias),
            running: running(call.running_mean, call.running_mean_tail, call.running_var),
            eps: call.eps,
            shape,
            weights: call.weights.get(),
            bias: call.weights_bias.optional(),
        }
    };
    Ok(fold(arguments)?)
}

/// # Safety
/// As `normdrop_train`.
unsafe fn merge(
    into: normdrop_slice_mut<f64>,
    from: normdrop_slice<f64>,
    buffer: normdrop_buffer,
    merge: impl FnOnce(&mut [f64], &[f64]) -> Result<(), Error>,
) -> Outcome {
    check_apart(&[into.region(buffer)?, from.region(buffer)?])?;
    // SAFETY: both are in order and apart; the rest is passed on.
    Ok(merge(unsafe { into.get() }, unsafe { from.get() })?)
}

/// The missing tensor of floats, where a function takes a tensor of halves alone.
const NO_FLOATS: normdrop_slice<f32> = normdrop_slice { values: core::ptr::null(), len: 0 };
const NO_FLOATS_MUT: normdrop_slice_mut<f32> = normdrop_slice_mut { values: core::ptr::null_mut(), len: 0 };

/// The counter of batches, as a buffer of one value.
fn count_of(batches: *mut u64) -> normdrop_slice_mut<u64> {
    normdrop_slice_mut { values: batches, len: usize::from(!batches.is_null()) }
}

/// # Safety
/// As `normdrop_slice::optional`, for both.
unsafe fn parameters<'a>(weight: normdrop_slice<f32>, bias: normdrop_slice<f32>) -> Parameters<'a> {
    // SAFETY: passed on.
    unsafe { Parameters { weight: weight.optional(), bias: bias.optional() } }
}

/// # Safety
/// As `normdrop_slice::optional`, for all.
unsafe fn running<'a>(
    mean: normdrop_slice<f32>,
    mean_tail: normdrop_slice<f32>,
    var: normdrop_slice<f32>,
) -> Running<'a> {
    // SAFETY: passed on.
    unsafe { Running { mean: mean.get(), mean_tail: mean_tail.optional(), var: var.get() } }
}

/// The running statistics, or `None` if mean, tail, variance and counter of batches are all
/// missing. If only some are missing, a missing mean or variance is an empty slice, which the layer
/// refuses.
///
/// # Safety
/// As `normdrop_slice_mut::optional`, for all.
unsafe fn running_mut<'a>(
    mean: normdrop_slice_mut<f32>,
    mean_tail: normdrop_slice_mut<f32>,
    var: normdrop_slice_mut<f32>,
    batches: normdrop_slice_mut<u64>,
) -> Option<RunningMut<'a>> {
    let of_running = [mean.values, mean_tail.values, var.values];
    if of_running.iter().all(|values| values.is_null()) && batches.values.is_null() {
        return None;
    }
    // SAFETY: passed on.
    let (mean, mean_tail, var, batches) = unsafe { (mean.get(), mean_tail.optional(), var.get(), batches.optional()) };
    let average = match batches {
        Some([batches]) => Average::Cumulative { batches },
        _ => Average::Exponential,
    };
    Some(RunningMut { mean, mean_tail, var, average })
}

/// # Safety
/// As `normdrop_slice::optional`, for all.
unsafe fn saved<'a>(
    mean: normdrop_slice<f32>,
    mean_tail: normdrop_slice<f32>,
    inv_std: normdrop_slice<f64>,
) -> Saved<'a> {
    // SAFETY: passed on.
    unsafe { Saved { mean: mean.get(), mean_tail: mean_tail.get(), inv_std: inv_std.get() } }
}

/// # Safety
/// As `normdrop_slice_mut::optional`, for all.
unsafe fn saved_mut<'a>(
    mean: normdrop_slice_mut<f32>,
    mean_tail: normdrop_slice_mut<f32>,
    inv_std: normdrop_slice_mut<f64>,
) -> SavedMut<'a> {
    // SAFETY: passed on.
    unsafe { SavedMut { mean: mean.get(), mean_tail: mean_tail.get(), inv_std: inv_std.get() } }
}

/// # Safety
/// As `normdrop_slice::optional`.
unsafe fn dropout<'a>(mask: normdrop_slice<u8>) -> Dropout<'a> {
    // SAFETY: passed on.
    unsafe { mask.optional() }.map_or(Dropout::Unset, Dropout::Mask)
}

/// The dropout of a forward call, whose mask may be in the buffer of its gates.
///
/// # Safety
/// As `normdrop_slice::optional`, unless the mask is in the gates.
unsafe fn forward_dropout<'a>(in_gates: bool, mask: normdrop_slice<u8>) -> Dropout<'a> {
    // SAFETY: passed on.
    if in_gates { Dropout::InGates } else { unsafe { dropout(mask) } }
}

/// Whether a forward call with fixed statistics scales nothing, although a backward call of C with its
/// gates would scale by `p`.
fn is_unscaled(dropout: &Dropout<'_>, p: f64) -> bool {
    matches!(dropout, Dropout::Unset) && p > 0.0
}

/// The dropout of a backward call: gates, or the mask if there are none.
///
/// # Safety
/// As `normdrop_slice::optional`, for both.
unsafe fn backward_dropout<'a>(mask: normdrop_slice<u8>, gates: normdrop_slice<u8>) -> Dropout<'a> {
    // SAFETY: passed on.
    unsafe { gates.optional().map_or_else(|| dropout(mask), Dropout::Gates) }
}

/// The statistics of a backward call, before their buffers are checked.
#[derive(Clone, Copy)]
struct GivenStatistics {
    kind: normdrop_statistics,
    running_mean: normdrop_slice<f32>,
    running_mean_tail: normdrop_slice<f32>,
    running_var: normdrop_slice<f32>,
    saved_mean: normdrop_slice<f32>,
    saved_mean_tail: normdrop_slice<f32>,
    saved_inv_std: normdrop_slice<f64>,
    prepared: normdrop_slice<f64>,
}

impl GivenStatistics {
    /// Checks the buffers of the statistics that the call uses, each by itself.
    fn regions(self) -> Result<[Region; 3], normdrop_error> {
        match self.kind {
            NORMDROP_STATISTICS_BATCH => Ok([
                self.saved_mean.region(NORMDROP_BUFFER_SAVED_MEAN)?,
                self.saved_mean_tail.region(NORMDROP_BUFFER_SAVED_MEAN_TAIL)?,
                self.saved_inv_std.region(NORMDROP_BUFFER_SAVED_INV_STD)?,
            ]),
            NORMDROP_STATISTICS_FIXED => Ok([
                self.running_mean.region(NORMDROP_BUFFER_RUNNING_MEAN)?,
                self.running_mean_tail.region(NORMDROP_BUFFER_RUNNING_MEAN_TAIL)?,
                self.running_var.region(NORMDROP_BUFFER_RUNNING_VAR)?,
            ]),
            NORMDROP_STATISTICS_PREPARED => {
                Ok([self.prepared.region(NORMDROP_BUFFER_PREPARED)?, Region::NONE, Region::NONE])
            }
            other => Err(unknown(NORMDROP_STATUS_STATISTICS, other).of(NORMDROP_BUFFER_CALL)),
        }
    }

    /// # Safety
    /// As `normdrop_slice::optional`, for the buffers of [`Self::regions`].
    unsafe fn get<'a>(self) -> Statistics<'a> {
        // SAFETY: passed on.
        unsafe {
            match self.kind {
                NORMDROP_STATISTICS_BATCH => {
                    Statistics::Batch(saved(self.saved_mean, self.saved_mean_tail, self.saved_inv_std))
                }
                NORMDROP_STATISTICS_PREPARED => Statistics::Prepared(self.prepared.get()),
                _ => Statistics::Fixed(running(self.running_mean, self.running_mean_tail, self.running_var)),
            }
        }
    }
}

/// The panic handler, without which a library without std is not complete. No call reaches it.
#[cfg(all(feature = "panic-handler", target_os = "none"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

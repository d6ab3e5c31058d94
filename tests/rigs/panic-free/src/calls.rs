//! The C functions.
//!
//! # Safety
//! Every pointer is null or points to as many values as the length beside it says, and nobody else has the values while
//! the call lasts.

use normdrop::{
    Activation, Apply, ApplyGradient, Average, Backend, Backward, BackwardInPlace, Bernoulli, Buffer, Config, Dropout,
    Error, Eval, EvalInPlace, Finish, Fold, Gelu, Granularity, HardSwish, Identity, Layer, LeakyRelu, Moments,
    ParameterGradients, Parameters, Reduce, Relu, Relu6, Running, RunningMut, RunningVariance, Saved, SavedMut, Shape,
    Sigmoid, Silu, Statistics, Tanh, Train, WeightOrder, WeightShape,
};
use rand_core::{Infallible, TryRng};

/// A slice of the caller, or none if the pointer is null.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Slice<T> {
    values: *mut T,
    len: usize,
}

impl<T> Slice<T> {
    unsafe fn get<'a>(self) -> Option<&'a [T]> {
        // SAFETY: the caller of the C function says that the pointer and the length belong together.
        if self.values.is_null() { None } else { Some(unsafe { core::slice::from_raw_parts(self.values, self.len) }) }
    }

    unsafe fn get_mut<'a>(self) -> Option<&'a mut [T]> {
        if self.values.is_null() {
            return None;
        }
        // SAFETY: as in `get`; and that nobody else has the values while the call lasts.
        Some(unsafe { core::slice::from_raw_parts_mut(self.values, self.len) })
    }

    unsafe fn read<'a>(self) -> &'a [T] {
        // SAFETY: passed on.
        unsafe { self.get() }.unwrap_or_default()
    }

    unsafe fn write<'a>(self) -> &'a mut [T] {
        // SAFETY: passed on.
        unsafe { self.get_mut() }.unwrap_or_default()
    }
}

/// Everything that any call of a layer takes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    outer: usize,
    channels: usize,
    inner: usize,
    eps: f32,
    momentum: f64,
    /// Whether the biased variance goes into the running one.
    biased: bool,
    p: f64,
    /// 0: the fastest, else one more than the index in `Backend::ALL`.
    backend: usize,
    /// Null: dropout is off.
    mask: Slice<u8>,
    /// Gradients past fixed statistics.
    fixed: bool,
    weight: Slice<f32>,
    bias: Slice<f32>,
    running_mean: Slice<f32>,
    running_var: Slice<f32>,
    /// Empty or null: the running statistics are the exponential average.
    batches: Slice<u64>,
    saved_mean: Slice<f32>,
    saved_mean_tail: Slice<f32>,
    saved_inv_std: Slice<f64>,
    input: Slice<f32>,
    residual: Slice<f32>,
    output: Slice<f32>,
    grad_output: Slice<f32>,
    grad_input: Slice<f32>,
    grad_residual: Slice<f32>,
    grad_weight: Slice<f32>,
    grad_bias: Slice<f32>,
    /// The moments or the sums of a part of a batch.
    part: Slice<f64>,
    /// The values per channel of the whole batch.
    total: f64,
    scratch: Slice<f64>,
    positions: usize,
    granularity: u8,
}

impl Call {
    fn layer<A: Activation>(&self, activation: A) -> Result<Layer<A>, Error> {
        let Self { outer, channels, inner, eps, momentum, biased, p, .. } = *self;
        let running_var = if biased { RunningVariance::Biased } else { RunningVariance::Unbiased };
        let granularity = match self.granularity {
            0 => Granularity::Element,
            1 => Granularity::Channel,
            _ => Granularity::Sample,
        };
        let shape = match inner {
            1 => Shape::nlc(outer, self.positions, channels)?,
            _ => Shape::new(outer, channels, inner)?,
        };
        let layer = Layer::new(shape, activation, Config { eps, momentum, running_var, p, granularity })?;
        match Backend::ALL.get(self.backend.wrapping_sub(1)) {
            Some(&backend) => layer.with_backend(backend),
            None => Ok(layer),
        }
    }

    unsafe fn parameters<'a>(&self) -> Parameters<'a> {
        // SAFETY: passed on.
        unsafe { Parameters { weight: self.weight.get(), bias: self.bias.get() } }
    }

    unsafe fn dropout<'a>(&self) -> Dropout<'a> {
        // SAFETY: passed on.
        unsafe { self.mask.get() }.map_or(Dropout::Off, Dropout::Mask)
    }

    unsafe fn running<'a>(&self) -> Running<'a> {
        // SAFETY: passed on.
        unsafe { Running { mean: self.running_mean.read(), var: self.running_var.read() } }
    }

    unsafe fn statistics<'a>(&self) -> Statistics<'a> {
        if self.fixed {
            // SAFETY: passed on.
            return Statistics::Fixed(unsafe { self.running() });
        }
        // SAFETY: passed on.
        unsafe {
            Statistics::Batch(Saved {
                mean: self.saved_mean.read(),
                mean_tail: self.saved_mean_tail.read(),
                inv_std: self.saved_inv_std.read(),
            })
        }
    }

    unsafe fn grad_parameters<'a>(&self) -> ParameterGradients<'a> {
        // SAFETY: passed on.
        unsafe { ParameterGradients { weight: self.grad_weight.get_mut(), bias: self.grad_bias.get_mut() } }
    }

    unsafe fn train(&self, activation: impl Activation) -> Result<(), Error> {
        // SAFETY: passed on.
        let call = unsafe {
            Train {
                parameters: self.parameters(),
                running: match (self.running_mean.get_mut(), self.running_var.get_mut()) {
                    (None, None) => None,
                    (mean, var) => Some(RunningMut {
                        mean: mean.unwrap_or_default(),
                        var: var.unwrap_or_default(),
                        average: match self.batches.write() {
                            [batches, ..] => Average::Cumulative { batches },
                            [] => Average::Exponential,
                        },
                    }),
                },
                dropout: self.dropout(),
                input: self.input.read(),
                output: self.output.write(),
                saved: SavedMut {
                    mean: self.saved_mean.write(),
                    mean_tail: self.saved_mean_tail.write(),
                    inv_std: self.saved_inv_std.write(),
                },
                residual: self.residual.get(),
                scratch: self.scratch.write(),
            }
        };
        self.layer(activation)?.train(call)
    }

    unsafe fn eval(&self, activation: impl Activation) -> Result<(), Error> {
        // SAFETY: passed on.
        let call = unsafe {
            Eval {
                parameters: self.parameters(),
                running: self.running(),
                dropout: self.dropout(),
                input: self.input.read(),
                output: self.output.write(),
                residual: self.residual.get(),
                scratch: self.scratch.write(),
            }
        };
        self.layer(activation)?.eval(call)
    }

    unsafe fn eval_in_place(&self, activation: impl Activation) -> Result<(), Error> {
        // SAFETY: passed on.
        let call = unsafe {
            EvalInPlace {
                parameters: self.parameters(),
                running: self.running(),
                dropout: self.dropout(),
                values: self.output.write(),
                residual: self.residual.get(),
                scratch: self.scratch.write(),
            }
        };
        self.layer(activation)?.eval_in_place(call)
    }

    unsafe fn backward(&self, activation: impl Activation) -> Result<(), Error> {
        // SAFETY: passed on.
        let call = unsafe {
            Backward {
                parameters: self.parameters(),
                statistics: self.statistics(),
                dropout: self.dropout(),
                input: self.input.read(),
                grad_output: self.grad_output.read(),
                grad_input: self.grad_input.get_mut(),
                grad_parameters: self.grad_parameters(),
                residual: self.residual.get(),
                grad_residual: self.grad_residual.get_mut(),
                scratch: self.scratch.write(),
            }
        };
        self.layer(activation)?.backward(call)
    }

    unsafe fn backward_in_place(&self, activation: impl Activation) -> Result<(), Error> {
        // SAFETY: passed on.
        let call = unsafe {
            BackwardInPlace {
                parameters: self.parameters(),
                statistics: self.statistics(),
                dropout: self.dropout(),
                input: self.input.read(),
                values: self.grad_output.write(),
                grad_parameters: self.grad_parameters(),
                residual: self.residual.get(),
                grad_residual: self.grad_residual.get_mut(),
                scratch: self.scratch.write(),
            }
        };
        self.layer(activation)?.backward_in_place(call)
    }
}

/// The phases of a batch in parts.
impl Call {
    unsafe fn saved<'a>(&self) -> Saved<'a> {
        // SAFETY: passed on.
        unsafe {
            Saved {
                mean: self.saved_mean.read(),
                mean_tail: self.saved_mean_tail.read(),
                inv_std: self.saved_inv_std.read(),
            }
        }
    }

    unsafe fn moments(&self, activation: impl Activation) -> Result<(), Error> {
        // SAFETY: passed on.
        let call =
            unsafe { Moments { input: self.input.read(), moments: self.part.write(), scratch: self.scratch.write() } };
        self.layer(activation)?.moments(call)
    }

    unsafe fn finish(&self, activation: impl Activation) -> Result<(), Error> {
        // SAFETY: passed on.
        let call = unsafe {
            Finish {
                moments: self.part.read(),
                running: Some(RunningMut {
                    mean: self.running_mean.write(),
                    var: self.running_var.write(),
                    average: Average::Exponential,
                }),
                saved: SavedMut {
                    mean: self.saved_mean.write(),
                    mean_tail: self.saved_mean_tail.write(),
                    inv_std: self.saved_inv_std.write(),
                },
            }
        };
        self.layer(activation)?.finish(call)
    }

    unsafe fn apply(&self, activation: impl Activation) -> Result<(), Error> {
        // SAFETY: passed on.
        let call = unsafe {
            Apply {
                parameters: self.parameters(),
                saved: self.saved(),
                dropout: self.dropout(),
                input: self.input.read(),
                residual: self.residual.get(),
                output: self.output.write(),
                scratch: self.scratch.write(),
            }
        };
        self.layer(activation)?.apply(call)
    }

    unsafe fn reduce(&self, activation: impl Activation) -> Result<(), Error> {
        // SAFETY: passed on.
        let call = unsafe {
            Reduce {
                parameters: self.parameters(),
                statistics: self.statistics(),
                dropout: self.dropout(),
                input: self.input.read(),
                residual: self.residual.get(),
                grad_output: self.grad_output.read(),
                sums: self.part.write(),
                scratch: self.scratch.write(),
            }
        };
        self.layer(activation)?.reduce(call)
    }

    unsafe fn finish_gradients(&self, activation: impl Activation) -> Result<(), Error> {
        // SAFETY: passed on.
        let (sums, gradients) = unsafe { (self.part.read(), self.grad_parameters()) };
        self.layer(activation)?.finish_gradients(sums, gradients)
    }

    unsafe fn apply_gradient(&self, activation: impl Activation) -> Result<(), Error> {
        // SAFETY: passed on.
        let call = unsafe {
            ApplyGradient {
                parameters: self.parameters(),
                saved: self.saved(),
                samples: self.total,
                sums: self.part.read(),
                dropout: self.dropout(),
                input: self.input.read(),
                residual: self.residual.get(),
                grad_output: self.grad_output.read(),
                grad_input: self.grad_input.write(),
                grad_residual: self.grad_residual.get_mut(),
                scratch: self.scratch.write(),
            }
        };
        self.layer(activation)?.apply_gradient(call)
    }
}

/// `merge_moments`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_merge_moments(into: Slice<f64>, from: Slice<f64>) -> usize {
    // SAFETY: passed on.
    code(unsafe { normdrop::merge_moments(into.write(), from.read()) })
}

/// `merge_sums`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_merge_sums(into: Slice<f64>, from: Slice<f64>) -> usize {
    // SAFETY: passed on.
    code(unsafe { normdrop::merge_sums(into.write(), from.read()) })
}

/// 0 for success and another number for every error.
fn code(result: Result<(), Error>) -> usize {
    match result {
        Ok(()) => 0,
        Err(Error::Length { buffer, expected, actual }) => 1 ^ expected ^ actual ^ buffer.name().len(),
        Err(Error::ShapeOverflow) => 2,
        Err(Error::Eps { .. }) => 3,
        Err(Error::Momentum { .. }) => 4,
        Err(Error::Probability { .. }) => 5,
        Err(Error::SingleSample) => 6,
        Err(Error::BackendUnavailable) => 7,
        Err(Error::MissingBias { channel }) => 8 ^ channel,
        Err(Error::Slope { .. }) => 9,
        Err(_) => 10,
    }
}

macro_rules! calls {
    ($($name:ident: $method:ident($activation:expr);)*) => {$(
        #[doc = concat!("`Layer::", stringify!($method), "` with ", stringify!($activation), ".")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(call: &Call) -> usize {
            // SAFETY: passed on.
            code(unsafe { call.$method($activation) })
        }
    )*};
}

calls! {
    normdrop_train: train(Identity);
    normdrop_eval: eval(Identity);
    normdrop_eval_in_place: eval_in_place(Identity);
    normdrop_backward: backward(Identity);
    normdrop_backward_in_place: backward_in_place(Identity);
    normdrop_train_relu: train(Relu);
    normdrop_eval_relu: eval(Relu);
    normdrop_eval_in_place_relu: eval_in_place(Relu);
    normdrop_backward_relu: backward(Relu);
    normdrop_backward_in_place_relu: backward_in_place(Relu);
    normdrop_moments: moments(Relu);
    normdrop_finish: finish(Relu);
    normdrop_apply: apply(Relu);
    normdrop_reduce: reduce(Relu);
    normdrop_finish_gradients: finish_gradients(Relu);
    normdrop_apply_gradient: apply_gradient(Relu);
    // The walks are the same with every activation: two calls each reach all of the others' code.
    normdrop_eval_relu6: eval(Relu6);
    normdrop_backward_relu6: backward(Relu6);
    normdrop_eval_hard_swish: eval(HardSwish);
    normdrop_backward_hard_swish: backward(HardSwish);
    normdrop_eval_sigmoid: eval(Sigmoid);
    normdrop_backward_sigmoid: backward(Sigmoid);
    normdrop_eval_tanh: eval(Tanh);
    normdrop_backward_tanh: backward(Tanh);
    normdrop_eval_silu: eval(Silu);
    normdrop_backward_silu: backward(Silu);
    normdrop_eval_gelu: eval(Gelu);
    normdrop_backward_gelu: backward(Gelu);
}

/// `Layer::eval` with a leaky ReLU of any slope.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_eval_leaky_relu(call: &Call, slope: f32) -> usize {
    // SAFETY: passed on.
    code(LeakyRelu::new(slope).and_then(|leaky| unsafe { call.eval(leaky) }))
}

/// `Layer::backward` with a leaky ReLU of any slope.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_backward_leaky_relu(call: &Call, slope: f32) -> usize {
    // SAFETY: passed on.
    code(LeakyRelu::new(slope).and_then(|leaky| unsafe { call.backward(leaky) }))
}

impl Call {
    /// The weights are `input`, and the bias of their layer is `output`.
    unsafe fn fold(&self, fold: fn(Fold<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let order = match self.positions {
            0 => WeightOrder::OutInTaps,
            1 => WeightOrder::OutTapsIn,
            2 => WeightOrder::InOutTaps,
            3 => WeightOrder::InTapsOut,
            4 => WeightOrder::TapsInOut,
            _ => WeightOrder::TapsOutIn,
        };
        let groups = self.positions;
        let shape = WeightShape { order, outputs: self.channels, inputs: self.outer, taps: self.inner, groups };
        // SAFETY: passed on.
        let call = unsafe {
            Fold {
                parameters: self.parameters(),
                running: self.running(),
                eps: self.eps,
                shape,
                weights: self.input.write(),
                bias: self.output.get_mut(),
            }
        };
        fold(call)
    }
}

/// `fold_into_previous`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_fold_into_previous(call: &Call) -> usize {
    // SAFETY: passed on.
    code(unsafe { call.fold(normdrop::fold_into_previous) })
}

/// `fold_into_next`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_fold_into_next(call: &Call) -> usize {
    // SAFETY: passed on.
    code(unsafe { call.fold(normdrop::fold_into_next) })
}

/// `Layer::fill_mask`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_fill_mask(call: &Call, seed: u64, mask: Slice<u8>) -> usize {
    // SAFETY: passed on.
    let mask = unsafe { mask.write() };
    code(call.layer(Relu).and_then(|layer| layer.fill_mask(seed, mask)))
}

/// The caller's own generator.
struct Words(extern "C" fn() -> u64);

impl TryRng for Words {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.0() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0())
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        for byte in to {
            *byte = self.0() as u8;
        }
        Ok(())
    }
}

/// `Layer::fill_mask_with`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_fill_mask_with(call: &Call, words: extern "C" fn() -> u64, mask: Slice<u8>) -> usize {
    // SAFETY: passed on.
    let mask = unsafe { mask.write() };
    code(call.layer(Relu).and_then(|layer| layer.fill_mask_with(&mut Words(words), mask)))
}

/// What a layer says about itself.
#[repr(C)]
pub struct Lengths {
    len: usize,
    samples: usize,
    mask: usize,
    eval_scratch: usize,
    train_scratch: usize,
    backward_scratch: usize,
    scratch: usize,
    threshold: u64,
    eps: f32,
}

/// The lengths and getters of a layer.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_lengths(call: &Call, lengths: &mut Lengths) -> usize {
    code(call.layer(Identity).map(|layer| {
        *lengths = Lengths {
            len: layer.shape().len(),
            samples: layer.shape().samples(),
            mask: layer.mask_len(),
            eval_scratch: layer.eval_scratch_len(),
            train_scratch: layer.train_scratch_len(),
            backward_scratch: layer.backward_scratch_len(),
            scratch: layer.scratch_len(),
            threshold: layer.keep().threshold(),
            eps: layer.config().eps,
        };
    }))
}

/// Every constructor of a shape: returns the sum of what they say, for any dimensions.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_shapes(dims: &[usize; 5]) -> usize {
    let [n, c, d, h, w] = *dims;
    [
        Shape::new(n, c, d),
        Shape::nc(n, c),
        Shape::ncl(n, c, w),
        Shape::nchw(n, c, h, w),
        Shape::ncdhw(n, c, d, h, w),
        Shape::nlc(n, w, c),
        Shape::nhwc(n, h, w, c),
        Shape::ndhwc(n, d, h, w, c),
    ]
    .into_iter()
    .flatten()
    .fold(0, |sum: usize, shape| {
        let properties = [shape.outer(), shape.channels(), shape.inner(), shape.len(), shape.samples()];
        properties.into_iter().fold(sum, usize::wrapping_add) ^ usize::from(shape.is_empty())
    })
}

/// `Bernoulli::new` and its getters.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_bernoulli(
    p: f64,
    threshold: &mut u64,
    keep_probability: &mut f64,
    scale: &mut f32,
) -> usize {
    code(Bernoulli::new(p).map(|keep| {
        (*threshold, *keep_probability, *scale) = (keep.threshold(), keep.keep_probability(), keep.scale());
    }))
}

/// `Bernoulli::fill`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_bernoulli_fill(
    p: f64,
    seed: u64,
    first: u64,
    elements: usize,
    mask: Slice<u8>,
) -> usize {
    // SAFETY: passed on.
    let mask = unsafe { mask.write() };
    code(Bernoulli::new(p).and_then(|keep| keep.fill(seed, first, elements, mask)))
}

/// `Bernoulli::fill_with`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_bernoulli_fill_with(
    p: f64,
    words: extern "C" fn() -> u64,
    elements: usize,
    mask: Slice<u8>,
) -> usize {
    // SAFETY: passed on.
    let mask = unsafe { mask.write() };
    code(Bernoulli::new(p).and_then(|keep| keep.fill_with(&mut Words(words), elements, mask)))
}

/// `mask_len`.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_mask_len(elements: usize) -> usize {
    normdrop::mask_len(elements)
}

/// `seed_for`.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_seed_for(root: u64, layer: u64, step: u64, rank: u64) -> u64 {
    normdrop::seed_for(root, layer, step, rank)
}

/// `Layer::drop_padding`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_drop_padding(call: &Call, lengths: Slice<usize>, mask: Slice<u8>) -> usize {
    // SAFETY: passed on.
    let (lengths, mask) = unsafe { (lengths.read(), mask.write()) };
    code(call.layer(Relu).and_then(|layer| layer.drop_padding(lengths, mask)))
}

/// `Layer::clear_padding`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_clear_padding(call: &Call, lengths: Slice<usize>, values: Slice<f32>) -> usize {
    // SAFETY: passed on.
    let (lengths, values) = unsafe { (lengths.read(), values.write()) };
    code(call.layer(Relu).and_then(|layer| layer.clear_padding(lengths, values)))
}

/// `seed_from`.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_seed_from(words: extern "C" fn() -> u64) -> u64 {
    normdrop::seed_from(&mut Words(words))
}

/// What a backend and a buffer say about themselves.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_names(backend: usize) -> usize {
    let backend = Backend::ALL.get(backend).copied().unwrap_or_else(Backend::detect);
    let buffer = if backend.is_available() { Buffer::Input } else { Buffer::Output };
    backend.name().len() ^ buffer.name().len() ^ code(backend.require().map(|_| ()))
}

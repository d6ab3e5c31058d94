//! The C functions.
//!
//! # Safety
//! Every pointer is null or points to as many values as the length beside it says, and nobody else has the values while
//! the call lasts.

use normdrop::{
    Activation, Backend, Bernoulli, Bf16, Buffer, Config, Element, Elu, Error, F16, Fold, Gelu, GeluTanh, Granularity,
    HardSwish, Identity, Layer, LeakyRelu, Masked, Mish, Noise, Relu, Relu6, RunningVariance, Selu, Shape, Sigmoid,
    Silu, Softplus, Stored, Tanh, Validity, WeightOrder, WeightShape,
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
    /// The same memory as values of another type.
    const fn cast<U>(self) -> Slice<U> {
        Slice { values: self.values.cast(), len: self.len }
    }

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
    /// The gates of the calls that write them or are given them, and whether the mask is in them.
    gates: Slice<u8>,
    in_gates: bool,
    /// Gradients past fixed statistics.
    fixed: bool,
    weight: Slice<f32>,
    bias: Slice<f32>,
    running_mean: Slice<f32>,
    /// Null: the running mean is one f32.
    running_mean_tail: Slice<f32>,
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
    /// Those of another part.
    other: Slice<f64>,
    /// Prepared statistics.
    prepared: Slice<f64>,
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

    /// Makes a call with the buffers, whose tensors are of `E`, of a layer of the shape and the options.
    unsafe fn make<A: Activation, E: Element>(
        &self,
        activation: A,
        call: impl FnOnce(&mut normdrop_calls::Call<'_, E>, &Layer<A>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // SAFETY: passed on.
        let mut buffers = unsafe { self.buffers() };
        let result = self.layer(activation).and_then(|layer| call(&mut buffers, &layer));
        // SAFETY: passed on.
        if let (Some(now), [batches, ..]) = (buffers.batches, unsafe { self.batches.write() }) {
            *batches = now;
        }
        result
    }

    unsafe fn buffers<'a, E: Element>(&self) -> normdrop_calls::Call<'a, E> {
        // SAFETY: passed on.
        unsafe {
            normdrop_calls::Call {
                weight: self.weight.get(),
                bias: self.bias.get(),
                running_mean: self.running_mean.write(),
                running_mean_tail: self.running_mean_tail.get_mut(),
                running_var: self.running_var.write(),
                updates_running: !self.running_mean.values.is_null() || !self.running_var.values.is_null(),
                batches: self.batches.read().first().copied(),
                mask: self.mask.get(),
                gates: self.gates.write(),
                in_gates: self.in_gates,
                fixed: self.fixed,
                saved_mean: self.saved_mean.write(),
                saved_mean_tail: self.saved_mean_tail.write(),
                saved_inv_std: self.saved_inv_std.write(),
                input: self.input.cast().read(),
                residual: self.residual.cast().get(),
                output: self.output.cast().write(),
                grad_output: self.grad_output.cast().read(),
                grad_input: self.grad_input.cast().get_mut(),
                grad_residual: self.grad_residual.cast().get_mut(),
                grad_weight: self.grad_weight.get_mut(),
                grad_bias: self.grad_bias.get_mut(),
                part: self.part.write(),
                other: self.other.write(),
                prepared: self.prepared.write(),
                samples: self.total,
                scratch: self.scratch.write(),
            }
        }
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
        Err(Error::ShapeOverflow { product, dimension }) => 2 ^ product ^ dimension,
        Err(Error::Eps { .. }) => 3,
        Err(Error::Momentum { .. }) => 4,
        Err(Error::Probability { .. }) => 5,
        Err(Error::SingleSample) => 6,
        Err(Error::BackendUnavailable { .. }) => 7,
        Err(Error::MissingBias { channel }) => 8 ^ channel,
        Err(Error::Slope { .. }) => 9,
        Err(_) => 10,
    }
}

macro_rules! calls {
    ($($name:ident: $method:ident($activation:expr) $(of $element:ty)?;)*) => {$(
        #[doc = concat!("`Layer::", stringify!($method), "` with ", stringify!($activation), $(", tensors of ", stringify!($element),)? ".")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(call: &Call) -> usize {
            type Buffers<'a> = normdrop_calls::Call<'a $(, $element)?>;
            // SAFETY: passed on.
            code(unsafe { call.make($activation, |buffers: &mut Buffers<'_>, layer| buffers.$method(layer)) })
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
    normdrop_prepare: prepare(Relu);
    normdrop_eval_prepared: eval_prepared(Relu);
    normdrop_eval_prepared_in_place: eval_prepared_in_place(Relu);
    normdrop_backward_prepared: backward_prepared(Relu);
    normdrop_moments: moments(Relu);
    normdrop_finish: finish(Relu);
    normdrop_apply: apply(Relu);
    normdrop_reduce: reduce(Relu);
    normdrop_finish_gradients: finish_gradients(Relu);
    normdrop_apply_gradient: apply_gradient(Relu);
    normdrop_train_with_gates: train_with_gates(Relu);
    normdrop_eval_with_gates: eval_with_gates(Relu);
    normdrop_apply_with_gates: apply_with_gates(Relu);
    normdrop_backward_with_gates: backward_with_gates(Relu);
    normdrop_train_bf16: train(Relu) of Bf16;
    normdrop_eval_bf16: eval(Relu) of Bf16;
    normdrop_eval_in_place_f16: eval_in_place(Relu) of F16;
    normdrop_eval_prepared_f16: eval_prepared(Relu) of F16;
    normdrop_eval_prepared_in_place_bf16: eval_prepared_in_place(Relu) of Bf16;
    normdrop_backward_bf16: backward(Relu) of Bf16;
    normdrop_backward_gelu_f16: backward(Gelu) of F16;
    normdrop_backward_in_place_f16: backward_in_place(Relu) of F16;
    normdrop_moments_f16: moments(Relu) of F16;
    normdrop_apply_bf16: apply(Relu) of Bf16;
    normdrop_train_with_gates_bf16: train_with_gates(Relu) of Bf16;
    normdrop_reduce_f16: reduce(Relu) of F16;
    normdrop_apply_gradient_bf16: apply_gradient(Relu) of Bf16;
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
    normdrop_eval_gelu_tanh: eval(GeluTanh);
    normdrop_backward_gelu_tanh: backward(GeluTanh);
    normdrop_eval_gelu: eval(Gelu);
    normdrop_backward_gelu: backward(Gelu);
    normdrop_eval_selu: eval(Selu);
    normdrop_backward_selu: backward(Selu);
    normdrop_eval_mish: eval(Mish);
    normdrop_backward_mish: backward(Mish);
    normdrop_eval_softplus: eval(Softplus);
    normdrop_backward_softplus: backward(Softplus);
}

/// `Layer::eval` with a leaky ReLU of any slope.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_eval_leaky_relu(call: &Call, slope: f32) -> usize {
    // SAFETY: passed on.
    code(LeakyRelu::new(slope).and_then(|leaky| unsafe {
        call.make(leaky, |buffers: &mut normdrop_calls::Call<'_>, layer| buffers.eval(layer))
    }))
}

/// `Layer::backward` with a leaky ReLU of any slope.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_backward_leaky_relu(call: &Call, slope: f32) -> usize {
    // SAFETY: passed on.
    code(LeakyRelu::new(slope).and_then(|leaky| unsafe {
        call.make(leaky, |buffers: &mut normdrop_calls::Call<'_>, layer| buffers.backward(layer))
    }))
}

/// `Layer::eval` with an ELU of any alpha.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_eval_elu(call: &Call, alpha: f32) -> usize {
    // SAFETY: passed on.
    code(
        Elu::new(alpha).and_then(|elu| unsafe {
            call.make(elu, |buffers: &mut normdrop_calls::Call<'_>, layer| buffers.eval(layer))
        }),
    )
}

/// `Layer::backward` with an ELU of any alpha.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_backward_elu(call: &Call, alpha: f32) -> usize {
    // SAFETY: passed on.
    code(Elu::new(alpha).and_then(|elu| unsafe {
        call.make(elu, |buffers: &mut normdrop_calls::Call<'_>, layer| buffers.backward(layer))
    }))
}

impl Call {
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
        unsafe { self.buffers::<f32>() }.fold(fold, shape, self.eps)
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

/// `fold_padding`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_fold_padding(call: &Call) -> usize {
    // SAFETY: passed on.
    code(unsafe { call.buffers::<f32>() }.fold_padding(call.eps))
}

/// `Stored::into_running`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_into_running(call: &Call, form: usize, factor: f32) -> usize {
    let eps = call.eps;
    let stored = match form {
        0 => Stored::EpsOutside { eps },
        1 => Stored::Deviation,
        2 => Stored::InverseDeviation,
        _ => Stored::Sums { factor, eps },
    };
    // SAFETY: passed on.
    code(unsafe { call.buffers::<f32>() }.stored(stored))
}

/// `Layer::fill_mask`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_fill_mask(call: &Call, seed: u64, mask: Slice<u8>) -> usize {
    // SAFETY: passed on.
    let mask = unsafe { mask.write() };
    code(call.layer(Relu).and_then(|layer| layer.fill_mask(seed, mask).map(drop)))
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
    code(call.layer(Relu).and_then(|layer| layer.fill_mask_with(&mut Words(words), mask).map(drop)))
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
    prepared: usize,
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
            prepared: layer.prepared_len(),
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

/// The valid positions of a padded batch, and its workspace.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Padded {
    /// Null: there is a bitmap.
    lengths: Slice<usize>,
    bitmap: Slice<u8>,
    workspace: Slice<f32>,
}

impl Padded {
    unsafe fn masked<'a>(self) -> Masked<'a> {
        // SAFETY: passed on.
        unsafe {
            let bitmap = || Validity::Bitmap(self.bitmap.read());
            Masked::new(self.lengths.get().map_or_else(bitmap, Validity::Lengths), self.workspace.write())
        }
    }
}

macro_rules! masked_calls {
    ($($name:ident: $method:ident;)*) => {$(
        #[doc = concat!("`Layer::", stringify!($method), "`.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(call: &Call, padded: Padded) -> usize {
            // SAFETY: passed on.
            code(unsafe { call.make(Relu, |buffers: &mut normdrop_calls::Call<'_>, layer| buffers.$method(layer, padded.masked())) })
        }
    )*};
}

masked_calls! {
    normdrop_train_masked: train_masked;
    normdrop_eval_masked: eval_masked;
    normdrop_backward_masked: backward_masked;
}

/// `Layer::train_masked_with_gates`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_train_masked_with_gates(call: &Call, padded: Padded, gates: Slice<u8>) -> usize {
    // SAFETY: passed on.
    code(unsafe {
        call.make(Relu, |buffers, layer| buffers.train_masked_with_gates(layer, padded.masked(), gates.write()))
    })
}

/// `Layer::eval_masked_with_gates`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_eval_masked_with_gates(call: &Call, padded: Padded, gates: Slice<u8>) -> usize {
    // SAFETY: passed on.
    code(unsafe {
        call.make(Relu, |buffers, layer| buffers.eval_masked_with_gates(layer, padded.masked(), gates.write()))
    })
}

/// The lengths of the memory of masked calls.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_masked_lengths(call: &Call, scratch: &mut usize, workspace: &mut usize) -> usize {
    code(call.layer(Relu).map(|layer| {
        (*scratch, *workspace) = (layer.masked_scratch_len(), layer.masked_workspace_len());
    }))
}

macro_rules! prelu_calls {
    ($($name:ident: $method:ident of $element:ty;)*) => {$(
        #[doc = concat!("`Layer::", stringify!($method), "`.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(call: &Call, slope: Slice<f32>) -> usize {
            // SAFETY: passed on.
            code(unsafe { call.make(Identity, |buffers: &mut normdrop_calls::Call<'_, $element>, layer| buffers.$method(layer, slope.read())) })
        }
    )*};
}

prelu_calls! {
    normdrop_train_prelu: train_prelu of f32;
    normdrop_eval_prelu: eval_prelu of f32;
    normdrop_eval_prelu_in_place: eval_prelu_in_place of f32;
    normdrop_prelu: prelu of f32;
    normdrop_train_prelu_bf16: train_prelu of Bf16;
    normdrop_eval_prelu_f16: eval_prelu of F16;
    normdrop_eval_prelu_in_place_bf16: eval_prelu_in_place of Bf16;
}

/// `Layer::backward_prelu` of halves.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_backward_prelu_f16(call: &Call, slope: Slice<f32>, grad_slope: Slice<f32>) -> usize {
    // SAFETY: passed on.
    code(unsafe {
        call.make(Identity, |buffers: &mut normdrop_calls::Call<'_, F16>, layer| {
            buffers.backward_prelu(layer, slope.read(), grad_slope.get_mut())
        })
    })
}

/// `Layer::backward_prelu`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_backward_prelu(call: &Call, slope: Slice<f32>, grad_slope: Slice<f32>) -> usize {
    // SAFETY: passed on.
    code(unsafe {
        call.make(Identity, |buffers: &mut normdrop_calls::Call<'_>, layer| {
            buffers.backward_prelu(layer, slope.read(), grad_slope.get_mut())
        })
    })
}

/// `Layer::prelu_gradient`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_prelu_gradient(call: &Call, slope: Slice<f32>, grad_slope: Slice<f32>) -> usize {
    // SAFETY: passed on.
    code(unsafe {
        call.make(Relu, |buffers: &mut normdrop_calls::Call<'_>, layer| {
            buffers.prelu_gradient(layer, slope.read(), grad_slope.get_mut())
        })
    })
}

/// The length of the scratch of calls with PReLU.
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_prelu_scratch_len(call: &Call) -> usize {
    call.layer(Identity).map_or(0, |layer| layer.prelu_scratch_len())
}

/// `Layer::apply_noise`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_apply_noise(call: &Call, width: f32, seed: u64, values: Slice<f32>) -> usize {
    // SAFETY: passed on.
    let values = unsafe { values.write() };
    code(call.layer(Relu).and_then(|layer| layer.apply_noise(Noise::gaussian(width)?, seed, values)))
}

/// `Noise::apply`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_noise_apply(law: usize, p: f64, seed: u64, first: u64, values: Slice<f32>) -> usize {
    // SAFETY: passed on.
    let values = unsafe { values.write() };
    let noise = if law == 0 { Noise::gaussian_dropout(p) } else { Noise::uniform(0.5) };
    code(noise.map(|noise| noise.apply(seed, first, values)))
}

/// `Layer::alpha_dropout`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_alpha_dropout(call: &Call, mask: Slice<u8>, values: Slice<f32>) -> usize {
    // SAFETY: passed on.
    let (mask, values) = unsafe { (mask.read(), values.write()) };
    code(call.layer(Relu).and_then(|layer| layer.alpha_dropout(mask, values)))
}

/// `Layer::alpha_dropout_backward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normdrop_alpha_dropout_backward(call: &Call, mask: Slice<u8>, values: Slice<f32>) -> usize {
    // SAFETY: passed on.
    let (mask, values) = unsafe { (mask.read(), values.write()) };
    code(call.layer(Relu).and_then(|layer| layer.alpha_dropout_backward(mask, values)))
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

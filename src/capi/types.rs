//! The types and constants of the C interface.

use core::ffi::c_void;

/// The version of this interface: of the structs, the functions and their meaning.
///
/// Fields and functions are only ever added, and each addition makes this number larger.
pub const NORMDROP_ABI_VERSION: u32 = 1;

/// Whether a call succeeded, or why it was refused: one of `NORMDROP_STATUS_*`.
///
/// A call that was refused has written nothing but its `normdrop_error`.
pub type normdrop_status = i32;

/// The call succeeded.
pub const NORMDROP_STATUS_OK: normdrop_status = 0;
/// A pointer that must not be NULL is NULL, or a buffer is NULL and has a length.
pub const NORMDROP_STATUS_NULL: normdrop_status = 1;
/// This library does not know the `version` of a struct.
pub const NORMDROP_STATUS_VERSION: normdrop_status = 2;
/// A pointer is not aligned as its type asks for.
pub const NORMDROP_STATUS_ALIGNMENT: normdrop_status = 3;
/// A buffer is larger than any memory.
pub const NORMDROP_STATUS_SIZE: normdrop_status = 4;
/// A buffer that the call would write overlaps another buffer of the call.
pub const NORMDROP_STATUS_OVERLAP: normdrop_status = 5;
/// A buffer does not have the length that the layer asks for.
pub const NORMDROP_STATUS_LENGTH: normdrop_status = 6;
/// The product of the dimensions does not fit a `size_t`.
pub const NORMDROP_STATUS_SHAPE: normdrop_status = 7;
/// `positions` is above 1 and does not divide `outer`, or `inner` is not 1.
pub const NORMDROP_STATUS_POSITIONS: normdrop_status = 8;
/// There is no such activation.
pub const NORMDROP_STATUS_ACTIVATION: normdrop_status = 9;
/// `slope` is not finite.
pub const NORMDROP_STATUS_SLOPE: normdrop_status = 10;
/// `eps` is not finite, is negative, or is zero in a training call.
pub const NORMDROP_STATUS_EPS: normdrop_status = 11;
/// A call averages the running statistics with a `momentum` that is not in [0, 1].
pub const NORMDROP_STATUS_MOMENTUM: normdrop_status = 12;
/// `p` is not in [0, 1].
pub const NORMDROP_STATUS_PROBABILITY: normdrop_status = 13;
/// There is no such granularity.
pub const NORMDROP_STATUS_GRANULARITY: normdrop_status = 14;
/// There is no such kind of running variance.
pub const NORMDROP_STATUS_RUNNING_VARIANCE: normdrop_status = 15;
/// There is no such backend, or this CPU or this build cannot run it.
pub const NORMDROP_STATUS_BACKEND: normdrop_status = 16;
/// Several tasks are asked for, and this library was built without threads.
pub const NORMDROP_STATUS_TASKS: normdrop_status = 17;
/// There is no such kind of statistics, or a masked evaluation is given prepared ones.
pub const NORMDROP_STATUS_STATISTICS: normdrop_status = 18;
/// The running variance averages the unbiased variance, and a channel with one value has no
/// unbiased variance. The call is possible with the biased running variance, or without running
/// statistics.
pub const NORMDROP_STATUS_SINGLE_SAMPLE: normdrop_status = 19;
/// Folding would move a shift into the bias of a weight layer that has no bias.
pub const NORMDROP_STATUS_MISSING_BIAS: normdrop_status = 20;
/// The running variance of a channel plus `eps` is not above 0, or it is NaN. `actual` is the
/// channel, `value` its running variance.
pub const NORMDROP_STATUS_VARIANCE: normdrop_status = 21;
/// A value of `buffer` is not finite, or the value that the call would write does not fit a float.
/// `actual` is its index.
pub const NORMDROP_STATUS_NOT_FINITE: normdrop_status = 22;
/// There is no such order of weights: `actual` is its number.
pub const NORMDROP_STATUS_WEIGHT_ORDER: normdrop_status = 23;
/// `groups` does not divide `inputs` and `outputs`.
pub const NORMDROP_STATUS_GROUPS: normdrop_status = 24;
/// A sequence is longer than the tensor has positions.
pub const NORMDROP_STATUS_SEQUENCE_LENGTH: normdrop_status = 25;
/// Padding can be dropped, and a mask can have its place taken by gates, only if the mask has one bit
/// per element. `buffer` is the mask or the gates.
pub const NORMDROP_STATUS_NOT_AN_ELEMENT_MASK: normdrop_status = 26;
/// The length of moments is not a multiple of 3, or the length of sums is not a multiple of 2.
pub const NORMDROP_STATUS_MULTIPLE: normdrop_status = 27;
/// The number of values of a channel is negative or not finite, or `samples` is not positive.
/// `actual` is the channel, `value` the number.
pub const NORMDROP_STATUS_COUNT: normdrop_status = 28;
/// A call with batch statistics has no mask, and `p` of the layer is above 0. `value` is `p`. To
/// train without dropout, set `p` to 0.
pub const NORMDROP_STATUS_MASK_MISSING: normdrop_status = 29;
/// `prepared` is not what `normdrop_prepare` has written for as many channels as the layer has.
/// `expected` is the number of channels.
pub const NORMDROP_STATUS_NOT_PREPARED: normdrop_status = 30;
/// `alpha` is not finite.
pub const NORMDROP_STATUS_ALPHA: normdrop_status = 31;
/// The derivative of the activation has other values than 0 and 1, so there are no gates: only the
/// identity and `NORMDROP_ACTIVATION_RELU` have them. Or a forward call with prepared statistics is
/// asked for gates.
pub const NORMDROP_STATUS_NO_GATES: normdrop_status = 32;
/// `buffer` and `other` are both given, and stand for the same thing; or both are one tensor, which is
/// given as floats and as halves.
pub const NORMDROP_STATUS_TWO_BUFFERS: normdrop_status = 33;
/// `width` of noise is not in [0, 2^64], or `p` of `NORMDROP_NOISE_LAW_GAUSSIAN_DROPOUT` rounds to 1,
/// for which the width would be infinite. `value` is the width.
pub const NORMDROP_STATUS_NOISE_WIDTH: normdrop_status = 34;
/// There is no such law of noise. `actual` is its number.
pub const NORMDROP_STATUS_NOISE_LAW: normdrop_status = 35;

/// There is no such type of elements, the library has no halves (it was built without the feature
/// `half-precision`), or a masked call is given halves. `actual` is the number.
pub const NORMDROP_STATUS_ELEMENT: normdrop_status = 36;
/// There is no such form of stored statistics. `actual` is its number.
pub const NORMDROP_STATUS_STORED_FORM: normdrop_status = 37;

/// A buffer or struct of a call: one of `NORMDROP_BUFFER_*`.
pub type normdrop_buffer = u32;

/// No buffer: the error is about something else.
pub const NORMDROP_BUFFER_NONE: normdrop_buffer = 0;
/// The struct `normdrop_layer`.
pub const NORMDROP_BUFFER_LAYER: normdrop_buffer = 1;
/// The struct with the buffers of the call.
pub const NORMDROP_BUFFER_CALL: normdrop_buffer = 2;
/// The struct into which the call writes its answer.
pub const NORMDROP_BUFFER_RESULT: normdrop_buffer = 3;
/// The function that gives random words.
pub const NORMDROP_BUFFER_NEXT: normdrop_buffer = 4;
/// `input`
pub const NORMDROP_BUFFER_INPUT: normdrop_buffer = 5;
/// `residual`
pub const NORMDROP_BUFFER_RESIDUAL: normdrop_buffer = 6;
/// `output`
pub const NORMDROP_BUFFER_OUTPUT: normdrop_buffer = 7;
/// `grad_output`
pub const NORMDROP_BUFFER_GRAD_OUTPUT: normdrop_buffer = 8;
/// `grad_input`
pub const NORMDROP_BUFFER_GRAD_INPUT: normdrop_buffer = 9;
/// `grad_residual`
pub const NORMDROP_BUFFER_GRAD_RESIDUAL: normdrop_buffer = 10;
/// `weight`
pub const NORMDROP_BUFFER_WEIGHT: normdrop_buffer = 11;
/// `bias`
pub const NORMDROP_BUFFER_BIAS: normdrop_buffer = 12;
/// `grad_weight`
pub const NORMDROP_BUFFER_GRAD_WEIGHT: normdrop_buffer = 13;
/// `grad_bias`
pub const NORMDROP_BUFFER_GRAD_BIAS: normdrop_buffer = 14;
/// `running_mean`
pub const NORMDROP_BUFFER_RUNNING_MEAN: normdrop_buffer = 15;
/// `running_var`
pub const NORMDROP_BUFFER_RUNNING_VAR: normdrop_buffer = 16;
/// `batches`
pub const NORMDROP_BUFFER_BATCHES: normdrop_buffer = 17;
/// `saved_mean`
pub const NORMDROP_BUFFER_SAVED_MEAN: normdrop_buffer = 18;
/// `saved_mean_tail`
pub const NORMDROP_BUFFER_SAVED_MEAN_TAIL: normdrop_buffer = 19;
/// `saved_inv_std`
pub const NORMDROP_BUFFER_SAVED_INV_STD: normdrop_buffer = 20;
/// `moments`, or one of the two moments to be merged
pub const NORMDROP_BUFFER_MOMENTS: normdrop_buffer = 21;
/// `sums`, or one of the two sums to be merged
pub const NORMDROP_BUFFER_SUMS: normdrop_buffer = 22;
/// `mask`
pub const NORMDROP_BUFFER_MASK: normdrop_buffer = 23;
/// `scratch`
pub const NORMDROP_BUFFER_SCRATCH: normdrop_buffer = 24;
/// `weights` of a fold
pub const NORMDROP_BUFFER_FOLD_WEIGHTS: normdrop_buffer = 25;
/// `weights_bias` of a fold
pub const NORMDROP_BUFFER_FOLD_BIAS: normdrop_buffer = 26;
/// `lengths` of the sequences of a padded batch
pub const NORMDROP_BUFFER_LENGTHS: normdrop_buffer = 27;
/// `values` whose padding is cleared, or to which noise, alpha dropout or PReLU is applied
pub const NORMDROP_BUFFER_VALUES: normdrop_buffer = 28;
/// `running_mean_tail`
pub const NORMDROP_BUFFER_RUNNING_MEAN_TAIL: normdrop_buffer = 29;
/// `gates`
pub const NORMDROP_BUFFER_GATES: normdrop_buffer = 31;
/// `prepared`
pub const NORMDROP_BUFFER_PREPARED: normdrop_buffer = 30;
/// `padding` of a fold
pub const NORMDROP_BUFFER_FOLD_PADDING: normdrop_buffer = 32;
/// `validity` of the positions of a padded batch
pub const NORMDROP_BUFFER_VALIDITY: normdrop_buffer = 33;
/// `workspace`
pub const NORMDROP_BUFFER_WORKSPACE: normdrop_buffer = 34;
/// The struct `normdrop_masked`.
pub const NORMDROP_BUFFER_MASKED: normdrop_buffer = 35;
/// The struct `normdrop_noise`.
pub const NORMDROP_BUFFER_NOISE: normdrop_buffer = 36;
/// `slope` of PReLU
pub const NORMDROP_BUFFER_SLOPE: normdrop_buffer = 37;
/// `grad_slope` of PReLU
pub const NORMDROP_BUFFER_GRAD_SLOPE: normdrop_buffer = 38;

/// The order in memory of the dimensions of weights, the innermost last: one of
/// `NORMDROP_WEIGHT_ORDER_*`.
///
/// In the dimension that is not divided by `groups`, the groups follow each other.
pub type normdrop_weight_order = u32;

/// `[outputs, inputs/groups, taps]`
pub const NORMDROP_WEIGHT_ORDER_OUT_IN_TAPS: normdrop_weight_order = 1;
/// `[outputs, taps, inputs/groups]`
pub const NORMDROP_WEIGHT_ORDER_OUT_TAPS_IN: normdrop_weight_order = 2;
/// `[inputs, outputs/groups, taps]`
pub const NORMDROP_WEIGHT_ORDER_IN_OUT_TAPS: normdrop_weight_order = 3;
/// `[inputs, taps, outputs/groups]`
pub const NORMDROP_WEIGHT_ORDER_IN_TAPS_OUT: normdrop_weight_order = 4;
/// `[taps, inputs/groups, outputs]`
pub const NORMDROP_WEIGHT_ORDER_TAPS_IN_OUT: normdrop_weight_order = 5;
/// `[taps, outputs/groups, inputs]`
pub const NORMDROP_WEIGHT_ORDER_TAPS_OUT_IN: normdrop_weight_order = 6;

/// An activation function: one of `NORMDROP_ACTIVATION_*`.
pub type normdrop_activation = u32;

/// `z`
pub const NORMDROP_ACTIVATION_IDENTITY: normdrop_activation = 0;
/// `max(z, 0)`
pub const NORMDROP_ACTIVATION_RELU: normdrop_activation = 1;
/// `min(max(z, 0), 6)`
pub const NORMDROP_ACTIVATION_RELU6: normdrop_activation = 2;
/// `z > 0 ? z : slope*z`
pub const NORMDROP_ACTIVATION_LEAKY_RELU: normdrop_activation = 3;
/// `z*min(max(z + 3, 0), 6)/6`
pub const NORMDROP_ACTIVATION_HARD_SWISH: normdrop_activation = 4;
/// `1/(1 + exp(-z))`
pub const NORMDROP_ACTIVATION_SIGMOID: normdrop_activation = 5;
/// `tanh(z)`
pub const NORMDROP_ACTIVATION_TANH: normdrop_activation = 6;
/// `z/(1 + exp(-z))`
pub const NORMDROP_ACTIVATION_SILU: normdrop_activation = 7;
/// `z/2*(1 + tanh(sqrt(2/pi)*(z + 0.044715*z^3)))`
pub const NORMDROP_ACTIVATION_GELU_TANH: normdrop_activation = 8;
/// `z/2*(1 + erf(z/sqrt(2)))`
pub const NORMDROP_ACTIVATION_GELU: normdrop_activation = 9;
/// `z > 0 ? z : alpha*(exp(z) - 1)`
pub const NORMDROP_ACTIVATION_ELU: normdrop_activation = 10;
/// `1.0507009873554805*(z > 0 ? z : 1.6732632423543772*(exp(z) - 1))`
pub const NORMDROP_ACTIVATION_SELU: normdrop_activation = 11;
/// `z*tanh(log(1 + exp(z)))`
pub const NORMDROP_ACTIVATION_MISH: normdrop_activation = 12;
/// `log(1 + exp(z))`
pub const NORMDROP_ACTIVATION_SOFTPLUS: normdrop_activation = 13;

/// The elements that one bit of the mask decides about: one of `NORMDROP_GRANULARITY_*`.
pub type normdrop_granularity = u32;

/// An element: `outer*channels*inner` bits in memory order.
pub const NORMDROP_GRANULARITY_ELEMENT: normdrop_granularity = 0;
/// A channel of a sample: `samples*channels` bits, with `samples = outer/positions`.
pub const NORMDROP_GRANULARITY_CHANNEL: normdrop_granularity = 1;
/// A sample: `outer/positions` bits.
pub const NORMDROP_GRANULARITY_SAMPLE: normdrop_granularity = 2;

/// The variance that the running variance averages: one of `NORMDROP_RUNNING_VARIANCE_*`.
pub type normdrop_running_variance = u32;

/// Divided by `samples - 1`: PyTorch.
pub const NORMDROP_RUNNING_VARIANCE_UNBIASED: normdrop_running_variance = 0;
/// Divided by `samples`: Keras 3, flax, ONNX, oneDNN.
pub const NORMDROP_RUNNING_VARIANCE_BIASED: normdrop_running_variance = 1;

/// The statistics of a backward call: one of `NORMDROP_STATISTICS_*`.
pub type normdrop_statistics = u32;

/// The statistics of the batch, from `saved_*`, after `normdrop_train`.
pub const NORMDROP_STATISTICS_BATCH: normdrop_statistics = 0;
/// Fixed statistics, from `running_*`, after `normdrop_eval`.
pub const NORMDROP_STATISTICS_FIXED: normdrop_statistics = 1;
/// Fixed statistics and parameters, from `prepared`, after `normdrop_eval` with the same.
pub const NORMDROP_STATISTICS_PREPARED: normdrop_statistics = 2;

/// The form in which a file has the fixed statistics of a batch norm: one of
/// `NORMDROP_STORED_FORM_*`.
pub type normdrop_stored_form = u32;

/// A variance whose root is taken before `eps` is added: `1/(sqrt(var) + eps)`. Darknet (YOLO), with
/// an `eps` of 1e-6.
pub const NORMDROP_STORED_FORM_EPS_OUTSIDE: normdrop_stored_form = 1;
/// A standard deviation `s`, in the normalisation `1/s`.
pub const NORMDROP_STORED_FORM_DEVIATION: normdrop_stored_form = 2;
/// An inverse standard deviation `r`, by which the centred values are multiplied: the saved `invstd`
/// of PyTorch and cuDNN.
pub const NORMDROP_STORED_FORM_INVERSE_DEVIATION: normdrop_stored_form = 3;
/// Sums of means and variances, which `factor` divides: blobs 0, 1 and 2 of Caffe's `BatchNorm`, whose
/// `eps` is 1e-5 unless the layer names another. With a factor of 0, Caffe takes 0 for both.
pub const NORMDROP_STORED_FORM_SUMS: normdrop_stored_form = 4;

/// The distribution of the factors of noise: one of `NORMDROP_NOISE_LAW_*`.
pub type normdrop_noise_law = u32;

/// `1 + width*n`, where n is normal with the standard deviation 1, of about 2^24 values up to 5.42.
pub const NORMDROP_NOISE_LAW_GAUSSIAN: normdrop_noise_law = 0;
/// `1 + sqrt(p/(1 - p))*n`: the variance that dropout with the probability `p` gives. `GaussianDropout`
/// of Keras.
pub const NORMDROP_NOISE_LAW_GAUSSIAN_DROPOUT: normdrop_noise_law = 1;
/// `1 + width*u`, where u is uniform in (-1, 1), of 2^24 values. `Uout` of arXiv 1801.05134, whose beta
/// is `width`.
pub const NORMDROP_NOISE_LAW_UNIFORM: normdrop_noise_law = 2;

/// An instruction set: one of `NORMDROP_BACKEND_*`. All give the same bits.
pub type normdrop_backend = u32;

/// The fastest instruction set of this CPU.
pub const NORMDROP_BACKEND_FASTEST: normdrop_backend = 0;
/// The instructions that every CPU of the target has.
pub const NORMDROP_BACKEND_PORTABLE: normdrop_backend = 1;
/// x86-64 with AVX2.
pub const NORMDROP_BACKEND_AVX2: normdrop_backend = 2;
/// x86-64 with AVX-512 F, VL, BW and DQ.
pub const NORMDROP_BACKEND_AVX512: normdrop_backend = 3;

/// A buffer that a call reads. NULL with the length 0 is no buffer.
#[repr(C)]
#[derive(Debug)]
pub struct normdrop_slice<T> {
    /// The first value.
    pub values: *const T,
    /// The number of values.
    pub len: usize,
}

/// A buffer that a call writes. NULL with the length 0 is no buffer.
#[repr(C)]
#[derive(Debug)]
pub struct normdrop_slice_mut<T> {
    /// The first value.
    pub values: *mut T,
    /// The number of values.
    pub len: usize,
}

/// The type of elements of half the size of a float: one of `NORMDROP_ELEMENT_*`.
///
/// They are widened exactly, everything in between is computed as for floats, and results are rounded
/// once, to nearest even, subnormals kept: each result is that of the call with floats, rounded once.
/// Beyond the largest number of the type it becomes an infinity.
pub type normdrop_element = u32;

/// IEEE binary16: `_Float16` of C23, `numpy.float16`, `torch.float16`. The largest number is 65504.
pub const NORMDROP_ELEMENT_F16: normdrop_element = 1;
/// The upper half of a float: `__bf16`, `ml_dtypes.bfloat16`, `torch.bfloat16`.
pub const NORMDROP_ELEMENT_BF16: normdrop_element = 2;

/// A tensor of halves that a call reads, in the place of one of floats: `input_half` in the place of
/// `input`, which is left out. Each tensor of a call has its own type. NULL with the length 0 is no
/// buffer.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct normdrop_halves {
    /// The bits of the first element.
    pub values: *const u16,
    /// The number of elements.
    pub len: usize,
    /// One of `NORMDROP_ELEMENT_*`; there is no default.
    pub element: normdrop_element,
}

/// A tensor of halves that a call writes, in the place of one of floats.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct normdrop_halves_mut {
    /// The bits of the first element.
    pub values: *mut u16,
    /// The number of elements.
    pub len: usize,
    /// One of `NORMDROP_ELEMENT_*`; there is no default.
    pub element: normdrop_element,
}

impl Default for normdrop_halves {
    /// No buffer.
    fn default() -> Self {
        Self { values: core::ptr::null(), len: 0, element: 0 }
    }
}

impl Default for normdrop_halves_mut {
    /// No buffer.
    fn default() -> Self {
        Self { values: core::ptr::null_mut(), len: 0, element: 0 }
    }
}

/// A random generator of the caller, which returns the next 32 random bits. It must return, without
/// an exception or a `longjmp`, and must not touch the mask.
pub type normdrop_next = Option<unsafe extern "C" fn(context: *mut c_void) -> u32>;

/// The reason for which a call was refused.
///
/// Set `version` to `NORMDROP_ABI_VERSION` before the call. The call writes the struct only if it
/// is refused. The struct must not overlap any buffer of the call.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct normdrop_error {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// The status that the call returned.
    pub status: normdrop_status,
    /// The buffer or struct at fault, or `NORMDROP_BUFFER_NONE`.
    pub buffer: normdrop_buffer,
    /// The buffer that `buffer` overlaps, or `NORMDROP_BUFFER_NONE`.
    pub other: normdrop_buffer,
    /// The expected number, by the status:
    ///
    /// LENGTH     the values of the buffer (scratch: at least), or the bytes of a mask
    /// MULTIPLE   the values of one channel
    /// ALIGNMENT  the alignment in bytes
    /// VERSION    the version
    /// SIZE       the largest number of values that a buffer of the type can have
    /// NULL       the values that the buffer is said to have
    /// SHAPE      the product of the dimensions as far as it fits
    /// POSITIONS  `outer`, which must be a multiple of `positions`
    /// `NOT_PREPARED`  the number of channels
    ///
    /// and 0 for every other status.
    pub expected: usize,
    /// The number that the caller gave, by the status:
    ///
    /// LENGTH, MULTIPLE  the values of the buffer, or the bytes of a mask
    /// ALIGNMENT         the address modulo the alignment
    /// VERSION           the version
    /// SIZE              the values that the buffer is said to have
    /// SHAPE             the next dimension, which is too large
    /// POSITIONS         `positions`
    /// `MISSING_BIAS`    the first channel with a shift
    /// VARIANCE          the first channel without a standard deviation
    /// COUNT             the first channel with such a count
    /// GROUPS            `groups`
    /// `SEQUENCE_LENGTH`  the length of the sequence
    /// `NOT_FINITE`      the index of the value
    /// ACTIVATION, GRANULARITY, `RUNNING_VARIANCE`, BACKEND, TASKS, STATISTICS,
    /// `WEIGHT_ORDER`, `NOISE_LAW`, ELEMENT  the number that was given
    ///
    /// and 0 for every other status.
    pub actual: usize,
    /// The number that is out of its range: eps, momentum, p, slope, alpha or the width of noise. For VARIANCE it is the
    /// running variance, for COUNT the count, for `SEQUENCE_LENGTH` the sample.
    pub value: f64,
}

/// A layer: shape, activation and constants. It holds no data, can be copied and shared, and costs
/// nothing to make: make another layer for the last, smaller batch.
///
/// A tensor is `[outer, channels, inner]`, row-major:
///
/// NCHW:   outer = n,      channels = c,  inner = h*w
/// NC:     outer = n,      channels = c,  inner = 1
/// NHWC:   outer = n*h*w,  channels = c,  inner = 1,  positions = h*w
///
/// `normdrop_layer_init` gives every field its default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct normdrop_layer {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// One of `NORMDROP_ACTIVATION_*`; the default is the identity.
    pub activation: normdrop_activation,
    /// The product of the dimensions before the channels; the default is 1.
    pub outer: usize,
    /// The number of channels, C below; the default is 1.
    pub channels: usize,
    /// The product of the dimensions after the channels; the default is 1.
    pub inner: usize,
    /// The number of positions of one sample that are part of `outer`, in channels-last layouts. It
    /// matters only if a mask bit decides about more than an element, and for padding. 0 and 1 mean
    /// the same; the default is 1.
    pub positions: usize,
    /// The weight of the new value in the running statistics, in [0, 1]; the default is 0.1,
    /// PyTorch's. Calls that do not use the momentum accept any number.
    pub momentum: f64,
    /// The probability to drop, in [0, 1]; the default is 0.
    pub p: f64,
    /// Added to the variance under the square root, at least 0, and above 0 in training; the
    /// default is 1e-5.
    pub eps: f32,
    /// The slope of `NORMDROP_ACTIVATION_LEAKY_RELU`; the default is 0.01.
    pub slope: f32,
    /// The alpha of `NORMDROP_ACTIVATION_ELU`; the default is 1.
    pub alpha: f32,
    /// One of `NORMDROP_GRANULARITY_*`; the default is an element.
    pub granularity: normdrop_granularity,
    /// One of `NORMDROP_RUNNING_VARIANCE_*`; the default is the unbiased variance.
    pub running_variance: normdrop_running_variance,
    /// One of `NORMDROP_BACKEND_*`; the default is the fastest.
    pub backend: normdrop_backend,
    /// The largest number of tasks into which a call is cut for threads, if the library was built
    /// with threads. 0 and 1 mean the same; the default is 1. A process made by `fork` has no
    /// threads of its parent. If the parent has used threads before, the calls of the child run
    /// their tasks one at a time on the calling thread, with the same results.
    pub tasks: u32,
}

/// The lengths of all buffers of a layer, in values of their type.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct normdrop_lengths {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// `input`, `output`, `residual` and their gradients.
    pub elements: usize,
    /// `weight`, `bias`, `running_*`, `saved_*`, `grad_weight`, `grad_bias`.
    pub channels: usize,
    /// The number of bits of a mask.
    pub mask_bits: usize,
    /// The number of bytes of a mask.
    pub mask: usize,
    /// The number of doubles of scratch that `normdrop_eval` and `normdrop_apply` need.
    pub eval_scratch: usize,
    /// The number of doubles of scratch that `normdrop_train` and `normdrop_moments` need.
    pub train_scratch: usize,
    /// The number of doubles of scratch that `normdrop_backward`, `normdrop_reduce` and
    /// `normdrop_apply_gradient` need.
    pub backward_scratch: usize,
    /// The number of doubles of scratch that are enough for every call. One scratch buffer of the
    /// largest number serves all layers of a program, one call at a time.
    pub scratch: usize,
    /// The number of doubles of `moments`.
    pub moments: usize,
    /// The number of doubles of `sums`.
    pub sums: usize,
    /// The number of doubles of `prepared`.
    pub prepared: usize,
    /// The number of doubles of scratch that are enough for every call with a `normdrop_masked`, and for
    /// every other call.
    pub masked_scratch: usize,
    /// The number of floats of `workspace` in a `normdrop_masked`.
    pub masked_workspace: usize,
    /// The number of doubles of scratch of `normdrop_prelu_gradient`: enough for every call without a
    /// `normdrop_masked`, too.
    pub prelu_scratch: usize,
}

/// The exact keep probability and the scale that belong to a probability to drop.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct normdrop_keep {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// The factor of kept elements.
    pub scale: f32,
    /// The keep probability times 2^32.
    pub threshold: u64,
    /// The keep probability, exactly.
    pub probability: f64,
}

/// Noise by which a tensor is multiplied, in the place of dropout: factors with the mean 1.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct normdrop_noise {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// One of `NORMDROP_NOISE_LAW_*`.
    pub law: normdrop_noise_law,
    /// The probability to drop whose variance `NORMDROP_NOISE_LAW_GAUSSIAN_DROPOUT` has, in [0, 1).
    /// Ignored by the other laws.
    pub p: f64,
    /// The standard deviation of `NORMDROP_NOISE_LAW_GAUSSIAN`, or the half width of
    /// `NORMDROP_NOISE_LAW_UNIFORM`, in [0, 2^64]. Ignored by the other law.
    pub width: f32,
}

/// The form in which a file has the fixed statistics of a batch norm.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct normdrop_stored {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// One of `NORMDROP_STORED_FORM_*`.
    pub form: normdrop_stored_form,
    /// What `NORMDROP_STORED_FORM_SUMS` divides by. Ignored by the other forms.
    pub factor: f32,
    /// The `eps` of the other program, for `NORMDROP_STORED_FORM_EPS_OUTSIDE` and
    /// `NORMDROP_STORED_FORM_SUMS`. Ignored by the other forms.
    pub eps: f32,
}

/// Which positions of a padded batch are valid, and the memory that a call over them needs beside its
/// own. Position `i` of sample `s` is one of the `positions*inner` positions of a sample.
///
/// Give either `lengths` or `validity`.
#[repr(C)]
#[derive(Debug)]
pub struct normdrop_masked {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// The length of each sample: position `i` of sample `s` is valid where `i < lengths[s]`. Or left
    /// out.
    pub lengths: normdrop_slice<usize>,
    /// A bit for each position of each sample, `normdrop_mask_len(samples*positions)` bytes: bit `i % 8`
    /// of byte `i / 8` is 1 if position `i` of all positions is valid, as
    /// `numpy.packbits(bitorder="little")` and Arrow's validity bitmaps have it. Or left out.
    pub validity: normdrop_slice<u8>,
    /// At least `masked_workspace` values. Its contents do not matter.
    pub workspace: normdrop_slice_mut<f32>,
}

/// The buffers of `normdrop_train`. C is the number of channels and len is the number of elements.
#[repr(C)]
#[derive(Debug)]
pub struct normdrop_train_call {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// The scale per channel, C values; if left out, 1.
    pub weight: normdrop_slice<f32>,
    /// The shift per channel, C values; if left out, 0.
    pub bias: normdrop_slice<f32>,
    /// The running mean to update, C values, or left out. A new layer starts with zeros.
    pub running_mean: normdrop_slice_mut<f32>,
    /// The exact running mean minus `running_mean`, to update, C values, zeros in a new layer. If
    /// it is left out, the running mean is one float and stops within 2^-24*|mean|/momentum of its
    /// limit.
    pub running_mean_tail: normdrop_slice_mut<f32>,
    /// The running variance to update, C values, or left out. A new layer starts with ones.
    pub running_var: normdrop_slice_mut<f32>,
    /// NULL: the running statistics are the exponential average, with `momentum`. Otherwise they
    /// are the mean of all batches, and this is the number of batches, to which the call adds one.
    pub batches: *mut u64,
    /// The mask, needed if `p` is above 0. A mask of zeros drops everything.
    pub mask: normdrop_slice<u8>,
    /// The gates to write, `normdrop_mask_len(len)` bytes, or left out. The bit of an element is 1 if the
    /// element is kept and the derivative of the activation is not 0. `normdrop_backward` takes them in
    /// place of the mask and does not need the residual then. They may be `mask` itself, if that has
    /// a bit per element: the gates take the place of the mask. For the identity and
    /// `NORMDROP_ACTIVATION_RELU`; a call that writes gates needs a mask, or a `p` of 0.
    pub gates: normdrop_slice_mut<u8>,
    /// x, len values.
    pub input: normdrop_slice<f32>,
    /// The residual, len values, which is added between normalisation and activation; or left out.
    pub residual: normdrop_slice<f32>,
    /// y, len values.
    pub output: normdrop_slice_mut<f32>,
    /// The batch mean, rounded, C values: for `normdrop_backward`, as are the next two buffers. All
    /// three are 0 for an empty batch.
    pub saved_mean: normdrop_slice_mut<f32>,
    /// The exact batch mean minus `saved_mean`, C values.
    pub saved_mean_tail: normdrop_slice_mut<f32>,
    /// 1/sqrt(var + eps), C values.
    pub saved_inv_std: normdrop_slice_mut<f64>,
    /// At least `train_scratch` values. Its contents do not matter.
    pub scratch: normdrop_slice_mut<f64>,
    /// `input` as halves, which takes its place; or left out.
    pub input_half: normdrop_halves,
    /// `residual` as halves, which takes its place; or left out.
    pub residual_half: normdrop_halves,
    /// `output` as halves, which takes its place; or left out.
    pub output_half: normdrop_halves_mut,
}

/// The buffers of `normdrop_eval`. C is the number of channels and len is the number of elements.
#[repr(C)]
#[derive(Debug)]
pub struct normdrop_eval_call {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// The scale per channel, C values; if left out, 1.
    pub weight: normdrop_slice<f32>,
    /// The shift per channel, C values; if left out, 0.
    pub bias: normdrop_slice<f32>,
    /// The running mean, C values.
    pub running_mean: normdrop_slice<f32>,
    /// The exact running mean minus `running_mean`, C values; if left out, 0.
    pub running_mean_tail: normdrop_slice<f32>,
    /// The running variance, C values.
    pub running_var: normdrop_slice<f32>,
    /// The mask; if left out, dropout is off. A mask of zeros drops everything.
    pub mask: normdrop_slice<u8>,
    /// As in `normdrop_train_call`. `output` must then not be `input`, and the statistics not
    /// prepared.
    pub gates: normdrop_slice_mut<u8>,
    /// x, len values.
    pub input: normdrop_slice<f32>,
    /// The residual, len values, which is added between normalisation and activation; or left out.
    pub residual: normdrop_slice<f32>,
    /// y, len values: `input` itself, or memory apart from it.
    pub output: normdrop_slice_mut<f32>,
    /// At least `eval_scratch` values. Its contents do not matter.
    pub scratch: normdrop_slice_mut<f64>,
    /// As `normdrop_prepare` wrote it, or left out. If it is given, `weight`, `bias` and `running_*`
    /// are ignored: `prepared` has them.
    pub prepared: normdrop_slice<f64>,
    /// `input` as halves, which takes its place; or left out.
    pub input_half: normdrop_halves,
    /// `residual` as halves, which takes its place; or left out.
    pub residual_half: normdrop_halves,
    /// `output` as halves, which takes its place; or left out.
    pub output_half: normdrop_halves_mut,
}

/// The buffers of `normdrop_prepare`. C is the number of channels.
#[repr(C)]
#[derive(Debug)]
pub struct normdrop_prepare_call {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// The scale per channel, C values; if left out, 1.
    pub weight: normdrop_slice<f32>,
    /// The shift per channel, C values; if left out, 0.
    pub bias: normdrop_slice<f32>,
    /// The running mean, C values.
    pub running_mean: normdrop_slice<f32>,
    /// The exact running mean minus `running_mean`, C values; if left out, 0.
    pub running_mean_tail: normdrop_slice<f32>,
    /// The running variance, C values.
    pub running_var: normdrop_slice<f32>,
    /// `prepared` values of `normdrop_lengths`, overwritten.
    pub prepared: normdrop_slice_mut<f64>,
}

/// The buffers of `normdrop_backward`. C is the number of channels and len is the number of
/// elements.
#[repr(C)]
#[derive(Debug)]
pub struct normdrop_backward_call {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// One of `NORMDROP_STATISTICS_*`.
    pub statistics: normdrop_statistics,
    /// The scale per channel, C values; if left out, 1.
    pub weight: normdrop_slice<f32>,
    /// The shift per channel, C values; if left out, 0.
    pub bias: normdrop_slice<f32>,
    /// The running mean, C values. Only with fixed statistics, ignored otherwise.
    pub running_mean: normdrop_slice<f32>,
    /// The exact running mean minus `running_mean`, C values; if left out, 0. Only with fixed
    /// statistics.
    pub running_mean_tail: normdrop_slice<f32>,
    /// The running variance, C values. Only with fixed statistics, ignored otherwise.
    pub running_var: normdrop_slice<f32>,
    /// As `normdrop_train` wrote it, C values. Only with batch statistics, ignored otherwise.
    pub saved_mean: normdrop_slice<f32>,
    /// As `normdrop_train` wrote it, C values. Only with batch statistics, ignored otherwise.
    pub saved_mean_tail: normdrop_slice<f32>,
    /// As `normdrop_train` wrote it, C values. Only with batch statistics, ignored otherwise.
    pub saved_inv_std: normdrop_slice<f64>,
    /// The mask of the forward call; left out if dropout was off.
    pub mask: normdrop_slice<u8>,
    /// The gates of the forward call, `normdrop_mask_len(len)` bytes, or left out. With them `mask`
    /// and `residual` are not used; `p` must be that of the forward call. The results have the same
    /// bits. `bias` may be left out, too, if its values are below 2^68: a channel of a larger bias is
    /// computed in double, and only a call that is given the bias knows that.
    pub gates: normdrop_slice<u8>,
    /// x of the forward call, len values.
    pub input: normdrop_slice<f32>,
    /// The residual of the forward call, len values, or left out.
    pub residual: normdrop_slice<f32>,
    /// dy, len values.
    pub grad_output: normdrop_slice<f32>,
    /// dx, len values: `grad_output` itself, or memory apart from it; or left out.
    pub grad_input: normdrop_slice_mut<f32>,
    /// The gradient of the residual, len values, or left out.
    pub grad_residual: normdrop_slice_mut<f32>,
    /// The gradient of the weight, C values, or left out.
    pub grad_weight: normdrop_slice_mut<f32>,
    /// The gradient of the bias, C values, or left out.
    pub grad_bias: normdrop_slice_mut<f32>,
    /// At least `backward_scratch` values. Its contents do not matter.
    pub scratch: normdrop_slice_mut<f64>,
    /// As `normdrop_prepare` wrote it. Only with prepared statistics, ignored otherwise. `weight` and
    /// `bias` are not used with it.
    pub prepared: normdrop_slice<f64>,
    /// `input` as halves, which takes its place; or left out.
    pub input_half: normdrop_halves,
    /// `residual` as halves, which takes its place; or left out.
    pub residual_half: normdrop_halves,
    /// `grad_output` as halves, which takes its place; or left out.
    pub grad_output_half: normdrop_halves,
    /// `grad_input` as halves, which takes its place; or left out.
    pub grad_input_half: normdrop_halves_mut,
    /// `grad_residual` as halves, which takes its place; or left out.
    pub grad_residual_half: normdrop_halves_mut,
}

/// The buffers of `normdrop_finish`. C is the number of channels.
#[repr(C)]
#[derive(Debug)]
pub struct normdrop_finish_call {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// The moments of all parts, merged, 3*C values.
    pub moments: normdrop_slice<f64>,
    /// The running mean to update, C values, or left out. A new layer starts with zeros.
    pub running_mean: normdrop_slice_mut<f32>,
    /// The exact running mean minus `running_mean`, to update, C values, zeros in a new layer. If
    /// it is left out, the running mean is one float and stops within 2^-24*|mean|/momentum of its
    /// limit.
    pub running_mean_tail: normdrop_slice_mut<f32>,
    /// The running variance to update, C values, or left out. A new layer starts with ones.
    pub running_var: normdrop_slice_mut<f32>,
    /// As in `normdrop_train_call`.
    pub batches: *mut u64,
    /// The batch mean, rounded, C values; 0 for a channel without values, as are the next two
    /// buffers.
    pub saved_mean: normdrop_slice_mut<f32>,
    /// The exact batch mean minus `saved_mean`, C values.
    pub saved_mean_tail: normdrop_slice_mut<f32>,
    /// 1/sqrt(var + eps), C values.
    pub saved_inv_std: normdrop_slice_mut<f64>,
}

/// The buffers of `normdrop_apply`. C is the number of channels and len is the number of elements
/// of the part.
#[repr(C)]
#[derive(Debug)]
pub struct normdrop_apply_call {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// The scale per channel, C values; if left out, 1.
    pub weight: normdrop_slice<f32>,
    /// The shift per channel, C values; if left out, 0.
    pub bias: normdrop_slice<f32>,
    /// As `normdrop_finish` wrote it, C values.
    pub saved_mean: normdrop_slice<f32>,
    /// As `normdrop_finish` wrote it, C values.
    pub saved_mean_tail: normdrop_slice<f32>,
    /// As `normdrop_finish` wrote it, C values.
    pub saved_inv_std: normdrop_slice<f64>,
    /// The mask of the part, needed if `p` is above 0. A mask of zeros drops everything.
    pub mask: normdrop_slice<u8>,
    /// As in `normdrop_train_call`, of the part.
    pub gates: normdrop_slice_mut<u8>,
    /// x of the part, len values.
    pub input: normdrop_slice<f32>,
    /// The residual, len values, which is added between normalisation and activation; or left out.
    pub residual: normdrop_slice<f32>,
    /// y of the part, len values.
    pub output: normdrop_slice_mut<f32>,
    /// At least `eval_scratch` values. Its contents do not matter.
    pub scratch: normdrop_slice_mut<f64>,
    /// `input` as halves, which takes its place; or left out.
    pub input_half: normdrop_halves,
    /// `residual` as halves, which takes its place; or left out.
    pub residual_half: normdrop_halves,
    /// `output` as halves, which takes its place; or left out.
    pub output_half: normdrop_halves_mut,
}

/// The buffers of `normdrop_reduce`. C is the number of channels and len is the number of elements
/// of the part.
#[repr(C)]
#[derive(Debug)]
pub struct normdrop_reduce_call {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// One of `NORMDROP_STATISTICS_*`.
    pub statistics: normdrop_statistics,
    /// The scale per channel, C values; if left out, 1.
    pub weight: normdrop_slice<f32>,
    /// The shift per channel, C values; if left out, 0.
    pub bias: normdrop_slice<f32>,
    /// The running mean, C values. Only with fixed statistics, ignored otherwise.
    pub running_mean: normdrop_slice<f32>,
    /// The exact running mean minus `running_mean`, C values; if left out, 0. Only with fixed
    /// statistics.
    pub running_mean_tail: normdrop_slice<f32>,
    /// The running variance, C values. Only with fixed statistics, ignored otherwise.
    pub running_var: normdrop_slice<f32>,
    /// As `normdrop_finish` wrote it, C values. Only with batch statistics, ignored otherwise.
    pub saved_mean: normdrop_slice<f32>,
    /// As `normdrop_finish` wrote it, C values. Only with batch statistics, ignored otherwise.
    pub saved_mean_tail: normdrop_slice<f32>,
    /// As `normdrop_finish` wrote it, C values. Only with batch statistics, ignored otherwise.
    pub saved_inv_std: normdrop_slice<f64>,
    /// The mask of the part's forward call; left out if dropout was off.
    pub mask: normdrop_slice<u8>,
    /// As in `normdrop_backward_call`, of the part.
    pub gates: normdrop_slice<u8>,
    /// x of the part, len values.
    pub input: normdrop_slice<f32>,
    /// The residual of the part's forward call, len values, or left out.
    pub residual: normdrop_slice<f32>,
    /// dy of the part, len values.
    pub grad_output: normdrop_slice<f32>,
    /// The sums, 2*C values: C sums of g, then C sums of g*xhat.
    pub sums: normdrop_slice_mut<f64>,
    /// At least `backward_scratch` values. Its contents do not matter.
    pub scratch: normdrop_slice_mut<f64>,
    /// As `normdrop_prepare` wrote it. Only with prepared statistics, ignored otherwise. `weight` and
    /// `bias` are not used with it.
    pub prepared: normdrop_slice<f64>,
    /// `input` as halves, which takes its place; or left out.
    pub input_half: normdrop_halves,
    /// `residual` as halves, which takes its place; or left out.
    pub residual_half: normdrop_halves,
    /// `grad_output` as halves, which takes its place; or left out.
    pub grad_output_half: normdrop_halves,
}

/// The buffers of `normdrop_apply_gradient`. C is the number of channels and len is the number of
/// elements of the part.
#[repr(C)]
#[derive(Debug)]
pub struct normdrop_apply_gradient_call {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// The scale per channel, C values; if left out, 1.
    pub weight: normdrop_slice<f32>,
    /// The shift per channel, C values; if left out, 0.
    pub bias: normdrop_slice<f32>,
    /// As `normdrop_finish` wrote it, C values.
    pub saved_mean: normdrop_slice<f32>,
    /// As `normdrop_finish` wrote it, C values.
    pub saved_mean_tail: normdrop_slice<f32>,
    /// As `normdrop_finish` wrote it, C values.
    pub saved_inv_std: normdrop_slice<f64>,
    /// The values per channel of the whole batch: the count of its moments.
    pub samples: f64,
    /// The sums of all parts, merged, 2*C values.
    pub sums: normdrop_slice<f64>,
    /// The mask of the part's forward call; left out if dropout was off.
    pub mask: normdrop_slice<u8>,
    /// As in `normdrop_backward_call`, of the part.
    pub gates: normdrop_slice<u8>,
    /// x of the part, len values.
    pub input: normdrop_slice<f32>,
    /// The residual of the part's forward call, len values, or left out.
    pub residual: normdrop_slice<f32>,
    /// dy of the part, len values.
    pub grad_output: normdrop_slice<f32>,
    /// dx of the part, len values.
    pub grad_input: normdrop_slice_mut<f32>,
    /// The gradient of the residual, len values, or left out.
    pub grad_residual: normdrop_slice_mut<f32>,
    /// At least `backward_scratch` values. Its contents do not matter.
    pub scratch: normdrop_slice_mut<f64>,
    /// `input` as halves, which takes its place; or left out.
    pub input_half: normdrop_halves,
    /// `residual` as halves, which takes its place; or left out.
    pub residual_half: normdrop_halves,
    /// `grad_output` as halves, which takes its place; or left out.
    pub grad_output_half: normdrop_halves,
    /// `grad_input` as halves, which takes its place; or left out.
    pub grad_input_half: normdrop_halves_mut,
    /// `grad_residual` as halves, which takes its place; or left out.
    pub grad_residual_half: normdrop_halves_mut,
}

/// The buffers of `normdrop_fold_into_previous` and `normdrop_fold_into_next`. C is the number of
/// channels of the batch norm: `outputs` for `normdrop_fold_into_previous` and `inputs` for
/// `normdrop_fold_into_next`.
///
/// Copy the row of the weight layer. The table leaves out the prefix `NORMDROP_WEIGHT_ORDER_`. The
/// call cannot notice a wrong row whose weights have the same length. k is the number of taps of
/// the kernel, kh*kw in two dimensions. m is the multiplier of a depthwise convolution, which has
/// in*m outputs. After a flattening, `inputs` are the channels of the image, and its pixels are the
/// taps.
///
///                                                      dimensions in memory   order          taps  groups
///     linear: PyTorch, TFLite, ONNX Gemm (transB=1)    [out, in]              OUT_IN_TAPS    1     1
///     dense: Keras, flax, ONNX MatMul and Gemm         [in, out]              TAPS_IN_OUT    1     1
///     convolution: PyTorch, ONNX                       [out, in/groups, k]    OUT_IN_TAPS    k     groups
///     convolution: Keras, flax                         [k, in/groups, out]    TAPS_IN_OUT    k     groups
///     convolution: TFLite, PyTorch channels-last       [out, k, in/groups]    OUT_TAPS_IN    k     groups
///     depthwise convolution: PyTorch, ONNX             [in*m, 1, k]           OUT_IN_TAPS    k     in
///     depthwise convolution: Keras                     [k, in, m]             TAPS_IN_OUT    k     in
///     depthwise convolution: TFLite                    [1, k, in*m]           TAPS_IN_OUT    k     in
///     transposed convolution: PyTorch, ONNX            [in, out/groups, k]    IN_OUT_TAPS    k     groups
///     transposed convolution: Keras                    [k, out, in]           TAPS_OUT_IN    k     1
///     transposed convolution: flax                     [k, in, out]           TAPS_IN_OUT    k     1
///     transposed convolution: TFLite                   [out, k, in]           OUT_TAPS_IN    k     1
///     NCHW, flatten, linear: PyTorch                   [out, c, h*w]          OUT_IN_TAPS    h*w   1
///     NHWC, flatten, linear: PyTorch, TFLite           [out, h*w, c]          OUT_TAPS_IN    h*w   1
///     NHWC, flatten, dense: Keras, flax                [h*w, c, out]          TAPS_IN_OUT    h*w   1
///     NCHW, flatten, dense: ONNX                       [c, h*w, out]          IN_TAPS_OUT    h*w   1
#[repr(C)]
#[derive(Debug)]
pub struct normdrop_fold_call {
    /// `NORMDROP_ABI_VERSION`
    pub version: u32,
    /// The `eps` of the batch norm.
    pub eps: f32,
    /// The order of the weights in memory: one of `NORMDROP_WEIGHT_ORDER_*`.
    pub order: normdrop_weight_order,
    /// The number of outputs of the weight layer, of all groups together.
    pub outputs: usize,
    /// The number of inputs of the weight layer, of all groups together.
    pub inputs: usize,
    /// The number of taps of the kernel; 1 for a linear layer.
    pub taps: usize,
    /// The number of groups; 0 or 1 for a layer without groups.
    pub groups: usize,
    /// The scale per channel of the batch norm, C values; if left out, 1.
    pub weight: normdrop_slice<f32>,
    /// The shift per channel of the batch norm, C values; if left out, 0.
    pub bias: normdrop_slice<f32>,
    /// The running mean, C values.
    pub running_mean: normdrop_slice<f32>,
    /// The exact running mean minus `running_mean`, C values; if left out, 0.
    pub running_mean_tail: normdrop_slice<f32>,
    /// The running variance, C values.
    pub running_var: normdrop_slice<f32>,
    /// The weights of the weight layer, outputs*inputs/groups*taps values, overwritten.
    pub weights: normdrop_slice_mut<f32>,
    /// The bias of the weight layer, `outputs` values, overwritten; may be left out if no channel
    /// needs a bias.
    pub weights_bias: normdrop_slice_mut<f32>,
}

impl<T> Clone for normdrop_slice<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for normdrop_slice<T> {}

impl<T> Clone for normdrop_slice_mut<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for normdrop_slice_mut<T> {}

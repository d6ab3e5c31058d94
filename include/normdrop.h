/*
 * normdrop: fused batch norm, activation and dropout, y = dropout(act(batchnorm(x) + residual)), forward and backward.
 *
 * The same bits on every target; no allocation, no global state, no errno; every function can be called from any thread.
 *
 * How every call works:
 *
 * - Structs carry a version, to be set to NORMDROP_ABI_VERSION; the rest of them may be zero where a field is not needed.
 * - A buffer is a pointer and the number of its values. What is optional is left out as {NULL, 0}. A NULL with a length is
 *   refused: it is most likely an allocation that failed.
 * - All arguments are checked before anything is read or written: null, alignment, length, and that what is written shares
 *   no memory with any other buffer. Buffers that are only read may overlap. Where a function says so, the buffer written
 *   may be the one read, exactly; never a part of it.
 * - The return value is 0 or one of NORMDROP_STATUS_*; a call that is refused has written nothing. If `error` is not NULL,
 *   it says then which buffer, what was expected and what came.
 * - Scratch, masks and outputs need not be initialised. normdrop_layer_lengths says how long they must be.
 */

#ifndef NORMDROP_H
#define NORMDROP_H

/* Made by cbindgen of src/capi.rs: change that. */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * The version of this interface: of the structs, of the functions and of what they mean.
 *
 * A field or a function is only ever added, and then this number grows.
 */
#define NORMDROP_ABI_VERSION 1

/**
 * Whether a call succeeded, or why it was refused: one of `NORMDROP_STATUS_*`.
 *
 * A call that was refused has written nothing but its `normdrop_error`.
 */
typedef int32_t normdrop_status;

/**
 * A buffer or struct of a call: one of `NORMDROP_BUFFER_*`.
 */
typedef uint32_t normdrop_buffer;

/**
 * An instruction set: one of `NORMDROP_BACKEND_*`. All give the same bits.
 */
typedef uint32_t normdrop_backend;

/**
 * An activation function: one of `NORMDROP_ACTIVATION_*`.
 */
typedef uint32_t normdrop_activation;

/**
 * What one bit of the mask decides about: one of `NORMDROP_GRANULARITY_*`.
 */
typedef uint32_t normdrop_granularity;

/**
 * The variance that goes into the running variance: one of `NORMDROP_RUNNING_VARIANCE_*`.
 */
typedef uint32_t normdrop_running_variance;

/**
 * A layer: shape, activation and constants. It holds no data and can be copied, made anew or shared at will.
 *
 * A tensor is `[outer, channels, inner]`, row-major:
 *
 * NCHW:   outer = n,      channels = c,  inner = h*w
 * NC:     outer = n,      channels = c,  inner = 1
 * NHWC:   outer = n*h*w,  channels = c,  inner = 1,  positions = h*w
 *
 * `normdrop_layer_init` gives every field its default.
 */
typedef struct normdrop_layer {
  /**
   * `NORMDROP_ABI_VERSION`
   */
  uint32_t version;
  /**
   * One of `NORMDROP_ACTIVATION_*`; the default is the identity.
   */
  normdrop_activation activation;
  /**
   * The product of the dimensions before the channels; the default is 1.
   */
  size_t outer;
  /**
   * The channels; the default is 1.
   */
  size_t channels;
  /**
   * The product of the dimensions after the channels; the default is 1.
   */
  size_t inner;
  /**
   * The positions of one sample that are part of `outer`, in channels-last layouts. It matters only where a mask bit
   * decides about more than an element, and for padding. 0 and 1 are the same; the default is 1.
   */
  size_t positions;
  /**
   * The weight of the new value in the running statistics, in [0, 1]; the default is 0.1,
   * PyTorch's. Calls that do not use it take any number.
   */
  double momentum;
  /**
   * The probability to drop, in [0, 1]; the default is 0.
   */
  double p;
  /**
   * Added to the variance under the root, at least 0 and in training above 0; the default is 1e-5.
   */
  float eps;
  /**
   * The slope of `NORMDROP_ACTIVATION_LEAKY_RELU`; the default is 0.01.
   */
  float slope;
  /**
   * One of `NORMDROP_GRANULARITY_*`; the default is an element.
   */
  normdrop_granularity granularity;
  /**
   * One of `NORMDROP_RUNNING_VARIANCE_*`; the default is the unbiased one.
   */
  normdrop_running_variance running_variance;
  /**
   * One of `NORMDROP_BACKEND_*`; the default is the fastest.
   */
  normdrop_backend backend;
  /**
   * The tasks that a call is cut into at most, for threads, if the library was built with them. 0 and 1 are the same;
   * the default is 1. A process made by `fork` has no threads of its parent: if that has used some before, the calls
   * of the child work their tasks one after the other, with the same results.
   */
  uint32_t tasks;
} normdrop_layer;

/**
 * The lengths of all buffers of a layer, in values of their type.
 */
typedef struct normdrop_lengths {
  /**
   * `NORMDROP_ABI_VERSION`
   */
  uint32_t version;
  /**
   * `input`, `output`, `residual` and their gradients.
   */
  size_t elements;
  /**
   * `weight`, `bias`, `running_*`, `saved_*`, `grad_weight`, `grad_bias`.
   */
  size_t channels;
  /**
   * The bits of a mask.
   */
  size_t mask_bits;
  /**
   * The bytes of a mask.
   */
  size_t mask;
  /**
   * The doubles of scratch of `normdrop_eval` and `normdrop_apply`, at least.
   */
  size_t eval_scratch;
  /**
   * The doubles of scratch of `normdrop_train` and `normdrop_moments`, at least.
   */
  size_t train_scratch;
  /**
   * The doubles of scratch of `normdrop_backward`, `normdrop_reduce` and `normdrop_apply_gradient`, at least.
   */
  size_t backward_scratch;
  /**
   * The doubles of scratch that are enough for every call.
   */
  size_t scratch;
  /**
   * The doubles of `moments`.
   */
  size_t moments;
  /**
   * The doubles of `sums`.
   */
  size_t sums;
} normdrop_lengths;

/**
 * What is wrong with a call that was refused.
 *
 * Set `version` to `NORMDROP_ABI_VERSION` before the call. It is written only if the call is refused, and must not
 * overlap any buffer of the call.
 */
typedef struct normdrop_error {
  /**
   * `NORMDROP_ABI_VERSION`
   */
  uint32_t version;
  /**
   * What the call returned.
   */
  normdrop_status status;
  /**
   * The buffer or struct at fault, or `NORMDROP_BUFFER_NONE`.
   */
  normdrop_buffer buffer;
  /**
   * The buffer that it overlaps, or `NORMDROP_BUFFER_NONE`.
   */
  normdrop_buffer other;
  /**
   * What was expected, by the status:
   *
   * LENGTH     the values of the buffer (of scratch: at least), of a mask the bytes
   * MULTIPLE   the values of one channel
   * ALIGNMENT  the alignment in bytes
   * VERSION    the version
   * SIZE       the most values that a buffer of the type can have
   * NULL       the values that the buffer is said to have
   * SHAPE      the product of the dimensions as far as it fits
   * POSITIONS  `outer`, which must be a multiple of `positions`
   *
   * and 0 for every other one.
   */
  size_t expected;
  /**
   * What came, by the status:
   *
   * LENGTH, MULTIPLE  the values of the buffer, of a mask the bytes
   * ALIGNMENT         the address modulo the alignment
   * VERSION           the version
   * SIZE              the values that the buffer is said to have
   * SHAPE             the next dimension, which is too large
   * POSITIONS         `positions`
   * `MISSING_BIAS`    the first channel with a shift
   * VARIANCE          the first channel without a standard deviation
   * GROUPS            `groups`
   * `SEQUENCE_LENGTH`  the length of the sequence
   * `NOT_FINITE`      the index of the value
   * ACTIVATION, GRANULARITY, `RUNNING_VARIANCE`, BACKEND, TASKS, STATISTICS, `WEIGHT_ORDER`   the number that was given
   *
   * and 0 for every other one.
   */
  size_t actual;
  /**
   * The number that is out of its range: eps, momentum, p or slope; of VARIANCE, the running variance; of
   * `SEQUENCE_LENGTH`, the sample.
   */
  double value;
} normdrop_error;

/**
 * A buffer that a call writes. NULL with the length 0 is no buffer.
 */
typedef struct normdrop_slice_mut_u8 {
  /**
   * The first value.
   */
  uint8_t *values;
  /**
   * The number of values.
   */
  size_t len;
} normdrop_slice_mut_u8;

/**
 * A random generator of the caller: gives the next 32 random bits. It must return: no exception, no `longjmp`. It must
 * leave the mask alone.
 */
typedef uint32_t (*normdrop_next)(void *context);

/**
 * What a probability to drop comes to.
 */
typedef struct normdrop_keep {
  /**
   * `NORMDROP_ABI_VERSION`
   */
  uint32_t version;
  /**
   * What kept elements are multiplied by.
   */
  float scale;
  /**
   * The keep probability times 2^32.
   */
  uint64_t threshold;
  /**
   * The keep probability, exactly.
   */
  double probability;
} normdrop_keep;

/**
 * A buffer that a call reads. NULL with the length 0 is no buffer.
 */
typedef struct normdrop_slice_usize {
  /**
   * The first value.
   */
  const size_t *values;
  /**
   * The number of values.
   */
  size_t len;
} normdrop_slice_usize;

/**
 * A buffer that a call writes. NULL with the length 0 is no buffer.
 */
typedef struct normdrop_slice_mut_f32 {
  /**
   * The first value.
   */
  float *values;
  /**
   * The number of values.
   */
  size_t len;
} normdrop_slice_mut_f32;

/**
 * A buffer that a call reads. NULL with the length 0 is no buffer.
 */
typedef struct normdrop_slice_f32 {
  /**
   * The first value.
   */
  const float *values;
  /**
   * The number of values.
   */
  size_t len;
} normdrop_slice_f32;

/**
 * A buffer that a call reads. NULL with the length 0 is no buffer.
 */
typedef struct normdrop_slice_u8 {
  /**
   * The first value.
   */
  const uint8_t *values;
  /**
   * The number of values.
   */
  size_t len;
} normdrop_slice_u8;

/**
 * A buffer that a call writes. NULL with the length 0 is no buffer.
 */
typedef struct normdrop_slice_mut_f64 {
  /**
   * The first value.
   */
  double *values;
  /**
   * The number of values.
   */
  size_t len;
} normdrop_slice_mut_f64;

/**
 * The buffers of `normdrop_train`. C is the number of channels and len that of elements.
 */
typedef struct normdrop_train_call {
  /**
   * `NORMDROP_ABI_VERSION`
   */
  uint32_t version;
  /**
   * The scale per channel, C values; none: 1.
   */
  struct normdrop_slice_f32 weight;
  /**
   * The shift per channel, C values; none: 0.
   */
  struct normdrop_slice_f32 bias;
  /**
   * The running mean to update, C values, or none.
   */
  struct normdrop_slice_mut_f32 running_mean;
  /**
   * What the rounding of the running mean left out, to update, C values, zeros in a new layer;
   * none: the running mean is one float, and stops within 2^-24*|mean|/momentum of its limit.
   */
  struct normdrop_slice_mut_f32 running_mean_tail;
  /**
   * The running variance to update, C values, or none.
   */
  struct normdrop_slice_mut_f32 running_var;
  /**
   * NULL: the running statistics are the exponential average, with `momentum`. Else they are the mean of all batches,
   * and this is how many there were: the call adds one.
   */
  uint64_t *batches;
  /**
   * The mask; none: dropout is off.
   */
  struct normdrop_slice_u8 mask;
  /**
   * x, len values.
   */
  struct normdrop_slice_f32 input;
  /**
   * What is added between normalisation and activation, len values, or none.
   */
  struct normdrop_slice_f32 residual;
  /**
   * y, len values.
   */
  struct normdrop_slice_mut_f32 output;
  /**
   * The batch mean, rounded, C values: for `normdrop_backward`, as are the next two. All three
   * are 0 for an empty batch.
   */
  struct normdrop_slice_mut_f32 saved_mean;
  /**
   * What the rounding left out, C values.
   */
  struct normdrop_slice_mut_f32 saved_mean_tail;
  /**
   * 1/sqrt(var + eps), C values.
   */
  struct normdrop_slice_mut_f64 saved_inv_std;
  /**
   * At least `train_scratch` values. Its contents do not matter.
   */
  struct normdrop_slice_mut_f64 scratch;
} normdrop_train_call;

/**
 * The buffers of `normdrop_eval`. C is the number of channels and len that of elements.
 */
typedef struct normdrop_eval_call {
  /**
   * `NORMDROP_ABI_VERSION`
   */
  uint32_t version;
  /**
   * The scale per channel, C values; none: 1.
   */
  struct normdrop_slice_f32 weight;
  /**
   * The shift per channel, C values; none: 0.
   */
  struct normdrop_slice_f32 bias;
  /**
   * The running mean, C values.
   */
  struct normdrop_slice_f32 running_mean;
  /**
   * What its rounding left out, C values; none: 0.
   */
  struct normdrop_slice_f32 running_mean_tail;
  /**
   * The running variance, C values.
   */
  struct normdrop_slice_f32 running_var;
  /**
   * The mask; none: dropout is off.
   */
  struct normdrop_slice_u8 mask;
  /**
   * x, len values.
   */
  struct normdrop_slice_f32 input;
  /**
   * What is added between normalisation and activation, len values, or none.
   */
  struct normdrop_slice_f32 residual;
  /**
   * y, len values: `input` itself, or apart from it.
   */
  struct normdrop_slice_mut_f32 output;
  /**
   * At least `eval_scratch` values. Its contents do not matter.
   */
  struct normdrop_slice_mut_f64 scratch;
} normdrop_eval_call;

/**
 * The statistics that a gradient flows through: one of `NORMDROP_STATISTICS_*`.
 */
typedef uint32_t normdrop_statistics;

/**
 * A buffer that a call reads. NULL with the length 0 is no buffer.
 */
typedef struct normdrop_slice_f64 {
  /**
   * The first value.
   */
  const double *values;
  /**
   * The number of values.
   */
  size_t len;
} normdrop_slice_f64;

/**
 * The buffers of `normdrop_backward`. C is the number of channels and len that of elements.
 */
typedef struct normdrop_backward_call {
  /**
   * `NORMDROP_ABI_VERSION`
   */
  uint32_t version;
  /**
   * One of `NORMDROP_STATISTICS_*`.
   */
  normdrop_statistics statistics;
  /**
   * The scale per channel, C values; none: 1.
   */
  struct normdrop_slice_f32 weight;
  /**
   * The shift per channel, C values; none: 0.
   */
  struct normdrop_slice_f32 bias;
  /**
   * The running mean, C values. Only with fixed statistics, else not looked at.
   */
  struct normdrop_slice_f32 running_mean;
  /**
   * What its rounding left out, C values; none: 0. Only with fixed statistics.
   */
  struct normdrop_slice_f32 running_mean_tail;
  /**
   * The running variance, C values. Only with fixed statistics, else not looked at.
   */
  struct normdrop_slice_f32 running_var;
  /**
   * As `normdrop_train` wrote it, C values. Only with batch statistics, else not looked at.
   */
  struct normdrop_slice_f32 saved_mean;
  /**
   * As `normdrop_train` wrote it, C values. Only with batch statistics, else not looked at.
   */
  struct normdrop_slice_f32 saved_mean_tail;
  /**
   * As `normdrop_train` wrote it, C values. Only with batch statistics, else not looked at.
   */
  struct normdrop_slice_f64 saved_inv_std;
  /**
   * The mask of the forward call; none: dropout was off.
   */
  struct normdrop_slice_u8 mask;
  /**
   * x of the forward call, len values.
   */
  struct normdrop_slice_f32 input;
  /**
   * The residual of the forward call, len values, or none.
   */
  struct normdrop_slice_f32 residual;
  /**
   * dy, len values.
   */
  struct normdrop_slice_f32 grad_output;
  /**
   * dx, len values, or none: `grad_output` itself, or apart from it.
   */
  struct normdrop_slice_mut_f32 grad_input;
  /**
   * The gradient of the residual, len values, or none.
   */
  struct normdrop_slice_mut_f32 grad_residual;
  /**
   * The gradient of the weight, C values, or none.
   */
  struct normdrop_slice_mut_f32 grad_weight;
  /**
   * The gradient of the bias, C values, or none.
   */
  struct normdrop_slice_mut_f32 grad_bias;
  /**
   * At least `backward_scratch` values. Its contents do not matter.
   */
  struct normdrop_slice_mut_f64 scratch;
} normdrop_backward_call;

/**
 * The buffers of `normdrop_finish`. C is the number of channels.
 */
typedef struct normdrop_finish_call {
  /**
   * `NORMDROP_ABI_VERSION`
   */
  uint32_t version;
  /**
   * The moments of all parts, merged, 3*C values.
   */
  struct normdrop_slice_f64 moments;
  /**
   * The running mean to update, C values, or none.
   */
  struct normdrop_slice_mut_f32 running_mean;
  /**
   * What the rounding of the running mean left out, to update, C values, zeros in a new layer;
   * none: the running mean is one float, and stops within 2^-24*|mean|/momentum of its limit.
   */
  struct normdrop_slice_mut_f32 running_mean_tail;
  /**
   * The running variance to update, C values, or none.
   */
  struct normdrop_slice_mut_f32 running_var;
  /**
   * As in `normdrop_train_call`.
   */
  uint64_t *batches;
  /**
   * The batch mean, rounded, C values; 0 for a channel without values, as are the next two.
   */
  struct normdrop_slice_mut_f32 saved_mean;
  /**
   * What the rounding left out, C values.
   */
  struct normdrop_slice_mut_f32 saved_mean_tail;
  /**
   * 1/sqrt(var + eps), C values.
   */
  struct normdrop_slice_mut_f64 saved_inv_std;
} normdrop_finish_call;

/**
 * The buffers of `normdrop_apply`. C is the number of channels and len that of elements of the part.
 */
typedef struct normdrop_apply_call {
  /**
   * `NORMDROP_ABI_VERSION`
   */
  uint32_t version;
  /**
   * The scale per channel, C values; none: 1.
   */
  struct normdrop_slice_f32 weight;
  /**
   * The shift per channel, C values; none: 0.
   */
  struct normdrop_slice_f32 bias;
  /**
   * As `normdrop_finish` wrote it, C values.
   */
  struct normdrop_slice_f32 saved_mean;
  /**
   * As `normdrop_finish` wrote it, C values.
   */
  struct normdrop_slice_f32 saved_mean_tail;
  /**
   * As `normdrop_finish` wrote it, C values.
   */
  struct normdrop_slice_f64 saved_inv_std;
  /**
   * The mask of the part; none: dropout is off.
   */
  struct normdrop_slice_u8 mask;
  /**
   * x of the part, len values.
   */
  struct normdrop_slice_f32 input;
  /**
   * What is added between normalisation and activation, len values, or none.
   */
  struct normdrop_slice_f32 residual;
  /**
   * y of the part, len values.
   */
  struct normdrop_slice_mut_f32 output;
  /**
   * At least `eval_scratch` values. Its contents do not matter.
   */
  struct normdrop_slice_mut_f64 scratch;
} normdrop_apply_call;

/**
 * The buffers of `normdrop_reduce`. C is the number of channels and len that of elements of the part.
 */
typedef struct normdrop_reduce_call {
  /**
   * `NORMDROP_ABI_VERSION`
   */
  uint32_t version;
  /**
   * One of `NORMDROP_STATISTICS_*`.
   */
  normdrop_statistics statistics;
  /**
   * The scale per channel, C values; none: 1.
   */
  struct normdrop_slice_f32 weight;
  /**
   * The shift per channel, C values; none: 0.
   */
  struct normdrop_slice_f32 bias;
  /**
   * The running mean, C values. Only with fixed statistics, else not looked at.
   */
  struct normdrop_slice_f32 running_mean;
  /**
   * What its rounding left out, C values; none: 0. Only with fixed statistics.
   */
  struct normdrop_slice_f32 running_mean_tail;
  /**
   * The running variance, C values. Only with fixed statistics, else not looked at.
   */
  struct normdrop_slice_f32 running_var;
  /**
   * As `normdrop_finish` wrote it, C values. Only with batch statistics, else not looked at.
   */
  struct normdrop_slice_f32 saved_mean;
  /**
   * As `normdrop_finish` wrote it, C values. Only with batch statistics, else not looked at.
   */
  struct normdrop_slice_f32 saved_mean_tail;
  /**
   * As `normdrop_finish` wrote it, C values. Only with batch statistics, else not looked at.
   */
  struct normdrop_slice_f64 saved_inv_std;
  /**
   * The mask of the part's forward call; none: dropout was off.
   */
  struct normdrop_slice_u8 mask;
  /**
   * x of the part, len values.
   */
  struct normdrop_slice_f32 input;
  /**
   * The residual of the part's forward call, len values, or none.
   */
  struct normdrop_slice_f32 residual;
  /**
   * dy of the part, len values.
   */
  struct normdrop_slice_f32 grad_output;
  /**
   * The sums, 2*C values: C sums of g, then C sums of g*xhat.
   */
  struct normdrop_slice_mut_f64 sums;
  /**
   * At least `backward_scratch` values. Its contents do not matter.
   */
  struct normdrop_slice_mut_f64 scratch;
} normdrop_reduce_call;

/**
 * The buffers of `normdrop_apply_gradient`. C is the number of channels and len that of elements of the part.
 */
typedef struct normdrop_apply_gradient_call {
  /**
   * `NORMDROP_ABI_VERSION`
   */
  uint32_t version;
  /**
   * The scale per channel, C values; none: 1.
   */
  struct normdrop_slice_f32 weight;
  /**
   * The shift per channel, C values; none: 0.
   */
  struct normdrop_slice_f32 bias;
  /**
   * As `normdrop_finish` wrote it, C values.
   */
  struct normdrop_slice_f32 saved_mean;
  /**
   * As `normdrop_finish` wrote it, C values.
   */
  struct normdrop_slice_f32 saved_mean_tail;
  /**
   * As `normdrop_finish` wrote it, C values.
   */
  struct normdrop_slice_f64 saved_inv_std;
  /**
   * The values per channel of the whole batch: the count of its moments.
   */
  double samples;
  /**
   * The sums of all parts, merged, 2*C values.
   */
  struct normdrop_slice_f64 sums;
  /**
   * The mask of the part's forward call; none: dropout was off.
   */
  struct normdrop_slice_u8 mask;
  /**
   * x of the part, len values.
   */
  struct normdrop_slice_f32 input;
  /**
   * The residual of the part's forward call, len values, or none.
   */
  struct normdrop_slice_f32 residual;
  /**
   * dy of the part, len values.
   */
  struct normdrop_slice_f32 grad_output;
  /**
   * dx of the part, len values.
   */
  struct normdrop_slice_mut_f32 grad_input;
  /**
   * The gradient of the residual, len values, or none.
   */
  struct normdrop_slice_mut_f32 grad_residual;
  /**
   * At least `backward_scratch` values. Its contents do not matter.
   */
  struct normdrop_slice_mut_f64 scratch;
} normdrop_apply_gradient_call;

/**
 * The order in memory of the dimensions of weights, the innermost last: one of `NORMDROP_WEIGHT_ORDER_*`.
 *
 * The dimension that is not divided by `groups` has the groups one after the other.
 */
typedef uint32_t normdrop_weight_order;

/**
 * The buffers of `normdrop_fold_into_previous` and `normdrop_fold_into_next`. C is the number of channels of the batch
 * norm: `outputs` for the former and `inputs` for the latter.
 *
 * Copy the row of the weight layer, whose order is without its prefix `NORMDROP_WEIGHT_ORDER_` here; a wrong row of the
 * same length cannot be noticed. k is the number of taps of the kernel, kh*kw in two dimensions, and m the multiplier of
 * a depthwise convolution, which has in*m outputs. After a flattening, `inputs` are the channels of the image, and its
 * places are the taps.
 *
 *                                                      dimensions in memory   order          taps  groups
 *     linear: PyTorch, TFLite, ONNX Gemm (transB=1)    [out, in]              OUT_IN_TAPS    1     1
 *     dense: Keras, flax, ONNX MatMul and Gemm         [in, out]              TAPS_IN_OUT    1     1
 *     convolution: PyTorch, ONNX                       [out, in/groups, k]    OUT_IN_TAPS    k     groups
 *     convolution: Keras, flax                         [k, in/groups, out]    TAPS_IN_OUT    k     groups
 *     convolution: TFLite, PyTorch channels-last       [out, k, in/groups]    OUT_TAPS_IN    k     groups
 *     depthwise convolution: PyTorch, ONNX             [in*m, 1, k]           OUT_IN_TAPS    k     in
 *     depthwise convolution: Keras                     [k, in, m]             TAPS_IN_OUT    k     in
 *     depthwise convolution: TFLite                    [1, k, in*m]           TAPS_IN_OUT    k     in
 *     transposed convolution: PyTorch, ONNX            [in, out/groups, k]    IN_OUT_TAPS    k     groups
 *     transposed convolution: Keras                    [k, out, in]           TAPS_OUT_IN    k     1
 *     transposed convolution: flax                     [k, in, out]           TAPS_IN_OUT    k     1
 *     transposed convolution: TFLite                   [out, k, in]           OUT_TAPS_IN    k     1
 *     NCHW, flatten, linear: PyTorch                   [out, c, h*w]          OUT_IN_TAPS    h*w   1
 *     NHWC, flatten, linear: PyTorch, TFLite           [out, h*w, c]          OUT_TAPS_IN    h*w   1
 *     NHWC, flatten, dense: Keras, flax                [h*w, c, out]          TAPS_IN_OUT    h*w   1
 *     NCHW, flatten, dense: ONNX                       [c, h*w, out]          IN_TAPS_OUT    h*w   1
 */
typedef struct normdrop_fold_call {
  /**
   * `NORMDROP_ABI_VERSION`
   */
  uint32_t version;
  /**
   * The `eps` of the batch norm.
   */
  float eps;
  /**
   * The order of the weights in memory: one of `NORMDROP_WEIGHT_ORDER_*`.
   */
  normdrop_weight_order order;
  /**
   * The number of outputs of the weight layer, of all groups.
   */
  size_t outputs;
  /**
   * The number of inputs, of all groups.
   */
  size_t inputs;
  /**
   * The number of taps of the kernel; 1 for a linear layer.
   */
  size_t taps;
  /**
   * The number of groups; 0 or 1 where the layer has none.
   */
  size_t groups;
  /**
   * The scale per channel of the batch norm, C values; none: 1.
   */
  struct normdrop_slice_f32 weight;
  /**
   * The shift per channel of the batch norm, C values; none: 0.
   */
  struct normdrop_slice_f32 bias;
  /**
   * The running mean, C values.
   */
  struct normdrop_slice_f32 running_mean;
  /**
   * What its rounding left out, C values; none: 0.
   */
  struct normdrop_slice_f32 running_mean_tail;
  /**
   * The running variance, C values.
   */
  struct normdrop_slice_f32 running_var;
  /**
   * The weights of the weight layer, outputs*inputs/groups*taps values, overwritten.
   */
  struct normdrop_slice_mut_f32 weights;
  /**
   * The bias of the weight layer, `outputs` values, overwritten; or none, if no channel needs one.
   */
  struct normdrop_slice_mut_f32 weights_bias;
} normdrop_fold_call;

/**
 * The call has done its work.
 */
#define NORMDROP_STATUS_OK 0

/**
 * A pointer is NULL that must not be, or is NULL and has a length.
 */
#define NORMDROP_STATUS_NULL 1

/**
 * A struct's `version` is not one that this library knows.
 */
#define NORMDROP_STATUS_VERSION 2

/**
 * A pointer is not aligned as its type asks for.
 */
#define NORMDROP_STATUS_ALIGNMENT 3

/**
 * A buffer is larger than memory can be.
 */
#define NORMDROP_STATUS_SIZE 4

/**
 * A buffer that would be written overlaps another one.
 */
#define NORMDROP_STATUS_OVERLAP 5

/**
 * A buffer does not have the length that the layer asks for.
 */
#define NORMDROP_STATUS_LENGTH 6

/**
 * The product of the dimensions does not fit a `size_t`.
 */
#define NORMDROP_STATUS_SHAPE 7

/**
 * `positions` is above 1 and does not divide `outer`, or `inner` is not 1.
 */
#define NORMDROP_STATUS_POSITIONS 8

/**
 * There is no such activation.
 */
#define NORMDROP_STATUS_ACTIVATION 9

/**
 * `slope` is not finite.
 */
#define NORMDROP_STATUS_SLOPE 10

/**
 * `eps` is not finite, is negative, or is zero in a training call.
 */
#define NORMDROP_STATUS_EPS 11

/**
 * A call averages the running statistics with a `momentum` that is not in [0, 1].
 */
#define NORMDROP_STATUS_MOMENTUM 12

/**
 * `p` is not in [0, 1].
 */
#define NORMDROP_STATUS_PROBABILITY 13

/**
 * There is no such granularity.
 */
#define NORMDROP_STATUS_GRANULARITY 14

/**
 * There is no such kind of running variance.
 */
#define NORMDROP_STATUS_RUNNING_VARIANCE 15

/**
 * There is no such backend, or this CPU or this build cannot run it.
 */
#define NORMDROP_STATUS_BACKEND 16

/**
 * Several tasks are asked for, and this library was built without threads.
 */
#define NORMDROP_STATUS_TASKS 17

/**
 * There is no such kind of statistics.
 */
#define NORMDROP_STATUS_STATISTICS 18

/**
 * The running variance takes the unbiased variance of a channel with one value, which does not
 * exist. The biased one does, and nothing is refused without running statistics.
 */
#define NORMDROP_STATUS_SINGLE_SAMPLE 19

/**
 * Folding would move a shift into the bias of a layer that has none.
 */
#define NORMDROP_STATUS_MISSING_BIAS 20

/**
 * The running variance of a channel plus `eps` is not above 0, or it is NaN. `actual` is the channel, `value` its
 * running variance.
 */
#define NORMDROP_STATUS_VARIANCE 21

/**
 * A value of `buffer` is not finite, or would not be after the call. `actual` is its index.
 */
#define NORMDROP_STATUS_NOT_FINITE 22

/**
 * There is no such order of weights: `actual` is its number.
 */
#define NORMDROP_STATUS_WEIGHT_ORDER 23

/**
 * `groups` does not divide `inputs` and `outputs`.
 */
#define NORMDROP_STATUS_GROUPS 24

/**
 * A sequence is longer than the tensor has positions.
 */
#define NORMDROP_STATUS_SEQUENCE_LENGTH 25

/**
 * Padding can be dropped only by a mask with one bit per element.
 */
#define NORMDROP_STATUS_NOT_AN_ELEMENT_MASK 26

/**
 * Moments do not have three values for each channel, or sums not two.
 */
#define NORMDROP_STATUS_MULTIPLE 27

/**
 * The number of values of a channel is negative or not finite, or `samples` is not positive.
 * `actual` is the channel, `value` the number.
 */
#define NORMDROP_STATUS_COUNT 28

/**
 * No buffer: the error is about something else.
 */
#define NORMDROP_BUFFER_NONE 0

/**
 * The struct `normdrop_layer`.
 */
#define NORMDROP_BUFFER_LAYER 1

/**
 * The struct with the buffers of the call.
 */
#define NORMDROP_BUFFER_CALL 2

/**
 * The struct that the call writes its answer to.
 */
#define NORMDROP_BUFFER_RESULT 3

/**
 * The function that gives random words.
 */
#define NORMDROP_BUFFER_NEXT 4

/**
 * `input`
 */
#define NORMDROP_BUFFER_INPUT 5

/**
 * `residual`
 */
#define NORMDROP_BUFFER_RESIDUAL 6

/**
 * `output`
 */
#define NORMDROP_BUFFER_OUTPUT 7

/**
 * `grad_output`
 */
#define NORMDROP_BUFFER_GRAD_OUTPUT 8

/**
 * `grad_input`
 */
#define NORMDROP_BUFFER_GRAD_INPUT 9

/**
 * `grad_residual`
 */
#define NORMDROP_BUFFER_GRAD_RESIDUAL 10

/**
 * `weight`
 */
#define NORMDROP_BUFFER_WEIGHT 11

/**
 * `bias`
 */
#define NORMDROP_BUFFER_BIAS 12

/**
 * `grad_weight`
 */
#define NORMDROP_BUFFER_GRAD_WEIGHT 13

/**
 * `grad_bias`
 */
#define NORMDROP_BUFFER_GRAD_BIAS 14

/**
 * `running_mean`
 */
#define NORMDROP_BUFFER_RUNNING_MEAN 15

/**
 * `running_var`
 */
#define NORMDROP_BUFFER_RUNNING_VAR 16

/**
 * `batches`
 */
#define NORMDROP_BUFFER_BATCHES 17

/**
 * `saved_mean`
 */
#define NORMDROP_BUFFER_SAVED_MEAN 18

/**
 * `saved_mean_tail`
 */
#define NORMDROP_BUFFER_SAVED_MEAN_TAIL 19

/**
 * `saved_inv_std`
 */
#define NORMDROP_BUFFER_SAVED_INV_STD 20

/**
 * `moments`, or one of the two that are merged
 */
#define NORMDROP_BUFFER_MOMENTS 21

/**
 * `sums`, or one of the two that are merged
 */
#define NORMDROP_BUFFER_SUMS 22

/**
 * `mask`
 */
#define NORMDROP_BUFFER_MASK 23

/**
 * `scratch`
 */
#define NORMDROP_BUFFER_SCRATCH 24

/**
 * `weights` of a fold
 */
#define NORMDROP_BUFFER_FOLD_WEIGHTS 25

/**
 * `weights_bias` of a fold
 */
#define NORMDROP_BUFFER_FOLD_BIAS 26

/**
 * `lengths` of the sequences of a padded batch
 */
#define NORMDROP_BUFFER_LENGTHS 27

/**
 * `values` whose padding is cleared
 */
#define NORMDROP_BUFFER_VALUES 28

/**
 * `running_mean_tail`
 */
#define NORMDROP_BUFFER_RUNNING_MEAN_TAIL 29

/**
 * `[outputs, inputs/groups, taps]`
 */
#define NORMDROP_WEIGHT_ORDER_OUT_IN_TAPS 1

/**
 * `[outputs, taps, inputs/groups]`
 */
#define NORMDROP_WEIGHT_ORDER_OUT_TAPS_IN 2

/**
 * `[inputs, outputs/groups, taps]`
 */
#define NORMDROP_WEIGHT_ORDER_IN_OUT_TAPS 3

/**
 * `[inputs, taps, outputs/groups]`
 */
#define NORMDROP_WEIGHT_ORDER_IN_TAPS_OUT 4

/**
 * `[taps, inputs/groups, outputs]`
 */
#define NORMDROP_WEIGHT_ORDER_TAPS_IN_OUT 5

/**
 * `[taps, outputs/groups, inputs]`
 */
#define NORMDROP_WEIGHT_ORDER_TAPS_OUT_IN 6

/**
 * `z`
 */
#define NORMDROP_ACTIVATION_IDENTITY 0

/**
 * `max(z, 0)`
 */
#define NORMDROP_ACTIVATION_RELU 1

/**
 * `min(max(z, 0), 6)`
 */
#define NORMDROP_ACTIVATION_RELU6 2

/**
 * `z > 0 ? z : slope*z`
 */
#define NORMDROP_ACTIVATION_LEAKY_RELU 3

/**
 * `z*min(max(z + 3, 0), 6)/6`
 */
#define NORMDROP_ACTIVATION_HARD_SWISH 4

/**
 * `1/(1 + exp(-z))`
 */
#define NORMDROP_ACTIVATION_SIGMOID 5

/**
 * `tanh(z)`
 */
#define NORMDROP_ACTIVATION_TANH 6

/**
 * `z/(1 + exp(-z))`
 */
#define NORMDROP_ACTIVATION_SILU 7

/**
 * `z/2*(1 + tanh(sqrt(2/pi)*(z + 0.044715*z^3)))`
 */
#define NORMDROP_ACTIVATION_GELU 8

/**
 * An element: `outer*channels*inner` bits in memory order.
 */
#define NORMDROP_GRANULARITY_ELEMENT 0

/**
 * A channel of a sample: `samples*channels` bits, with `samples = outer/positions`.
 */
#define NORMDROP_GRANULARITY_CHANNEL 1

/**
 * A sample: `outer/positions` bits.
 */
#define NORMDROP_GRANULARITY_SAMPLE 2

/**
 * Divided by `samples - 1`: PyTorch.
 */
#define NORMDROP_RUNNING_VARIANCE_UNBIASED 0

/**
 * Divided by `samples`: Keras 3, flax, ONNX, oneDNN.
 */
#define NORMDROP_RUNNING_VARIANCE_BIASED 1

/**
 * Those of the batch, from `saved_*`, after `normdrop_train`.
 */
#define NORMDROP_STATISTICS_BATCH 0

/**
 * Fixed ones, `running_*`, after `normdrop_eval`.
 */
#define NORMDROP_STATISTICS_FIXED 1

/**
 * The fastest one that this CPU has.
 */
#define NORMDROP_BACKEND_FASTEST 0

/**
 * What every CPU of the target has.
 */
#define NORMDROP_BACKEND_PORTABLE 1

/**
 * x86-64 with AVX2.
 */
#define NORMDROP_BACKEND_AVX2 2

/**
 * x86-64 with AVX-512 F, VL, BW and DQ.
 */
#define NORMDROP_BACKEND_AVX512 3



/**
 * The version of the interface that this library has. Compare it with `NORMDROP_ABI_VERSION`, that of the header: every
 * struct must have a version that the library knows.
 */
uint32_t normdrop_abi_version(void);

/**
 * The version of the library, such as "0.1.0".
 */
const char *normdrop_version(void);

/**
 * What a status means, in English.
 */
const char *normdrop_status_text(normdrop_status status);

/**
 * The name of a buffer, as the structs spell it.
 */
const char *normdrop_buffer_name(normdrop_buffer buffer);

/**
 * The fastest backend that this CPU and this build can run: one of `NORMDROP_BACKEND_*`.
 */
normdrop_backend normdrop_backend_detect(void);

/**
 * Whether this CPU and this build can run a backend: 1 or 0.
 */
int32_t normdrop_backend_is_available(normdrop_backend backend);

/**
 * The name of a backend in lower case.
 */
const char *normdrop_backend_name(normdrop_backend backend);

/**
 * Gives every field of a layer its default. `version` is `NORMDROP_ABI_VERSION`, that of the header.
 *
 * # Safety
 * `layer` is NULL or has room for a `normdrop_layer` of that version.
 */
normdrop_status normdrop_layer_init(struct normdrop_layer *layer, uint32_t version);

/**
 * The lengths of all buffers of a layer; checks the layer, too, but for the momentum, which only
 * the calls that use it check.
 *
 * # Safety
 * Each pointer is NULL or points to its struct, of which at least the version is set.
 */
normdrop_status normdrop_layer_lengths(const struct normdrop_layer *layer,
                                       struct normdrop_lengths *lengths,
                                       struct normdrop_error *error);

/**
 * The bytes of a mask of so many bits.
 */
size_t normdrop_mask_len(size_t bits);

/**
 * Draws the dropout mask of a seed: a pure function of the seed, `p` and the bit's index, the same on every machine.
 *
 * Bit `i % 8` of byte `i / 8` is 1 if element `i` is kept: `numpy.packbits(bitorder="little")`.
 *
 * # Safety
 * Each pointer is NULL or points to what its type says; a buffer is there to its full length and nobody else uses it
 * while the call lasts.
 */
normdrop_status normdrop_fill_mask(const struct normdrop_layer *layer,
                                   uint64_t seed,
                                   struct normdrop_slice_mut_u8 mask,
                                   struct normdrop_error *error);

/**
 * Draws a dropout mask from a random generator of the caller: sixteen words a step, for 512 bits.
 *
 * `context` is handed to `next` and not looked at.
 *
 * # Safety
 * As `normdrop_fill_mask`. `next` may be called with `context` from this thread, returns, and leaves the mask alone.
 */
normdrop_status normdrop_fill_mask_with(const struct normdrop_layer *layer,
                                        normdrop_next next,
                                        void *context,
                                        struct normdrop_slice_mut_u8 mask,
                                        struct normdrop_error *error);

/**
 * What a probability to drop comes to: the exact keep probability and the scale.
 *
 * # Safety
 * Each pointer is NULL or points to its struct, of which at least the version is set.
 */
normdrop_status normdrop_bernoulli_keep(double p, struct normdrop_keep *keep, struct normdrop_error *error);

/**
 * Draws a part of a mask: `bits` bits from bit `first` of the whole on, into `normdrop_mask_len(bits)` bytes.
 *
 * # Safety
 * As `normdrop_fill_mask`.
 */
normdrop_status normdrop_bernoulli_fill(double p,
                                        uint64_t seed,
                                        uint64_t first,
                                        size_t bits,
                                        struct normdrop_slice_mut_u8 mask,
                                        struct normdrop_error *error);

/**
 * Draws a mask of so many bits from a random generator of the caller, as `normdrop_fill_mask_with`.
 *
 * # Safety
 * As `normdrop_fill_mask_with`.
 */
normdrop_status normdrop_bernoulli_fill_with(double p,
                                             normdrop_next next,
                                             void *context,
                                             size_t bits,
                                             struct normdrop_slice_mut_u8 mask,
                                             struct normdrop_error *error);

/**
 * The seed of one mask of a training run, from the run's one seed: of a layer, a step and a rank.
 * Calls that differ in one number alone never give the same seed; sums of the numbers may. The
 * values are frozen, as masks are.
 *
 * `seed_for(root, layer, step, rank) = next(next(next(root, layer), step), rank)`, where
 * `next(seed, n)` is output number `n + 1` of `SplitMix64(seed)`. Pass 0 for a number that the
 * program does not have.
 */
uint64_t normdrop_seed_for(uint64_t root, uint64_t layer, uint64_t step, uint64_t rank);

/**
 * Drops the padding of sequences of different lengths: clears the bits of all padded elements in a
 * mask, which must have one bit per element. Position `i` of sample `s` is padding where
 * `i >= lengths[s]`.
 *
 * Every call with this mask gives exactly +0.0 at the padded places, as output and as the gradient
 * of the residual, and `normdrop_reduce` sums over the others alone, if the padding of the input is
 * finite. The gradient of the input needs `normdrop_clear_padding`, too. A sample has
 * `positions*inner` positions.
 *
 * # Safety
 * As `normdrop_fill_mask`.
 */
normdrop_status normdrop_drop_padding(const struct normdrop_layer *layer,
                                      struct normdrop_slice_usize lengths,
                                      struct normdrop_slice_mut_u8 mask,
                                      struct normdrop_error *error);

/**
 * Clears the padding of sequences of different lengths in a tensor: +0.0 at all padded places. See
 * `normdrop_drop_padding`.
 *
 * # Safety
 * As `normdrop_fill_mask`.
 */
normdrop_status normdrop_clear_padding(const struct normdrop_layer *layer,
                                       struct normdrop_slice_usize lengths,
                                       struct normdrop_slice_mut_f32 values,
                                       struct normdrop_error *error);

/**
 * Training forward: batch statistics, optionally dropout; updates the running statistics and saves what
 * `normdrop_backward` needs. Not in place, because backward needs the input.
 *
 * # Safety
 * Each pointer is NULL or points to what its type says; buffers are there to their full lengths, and nobody else writes
 * them, or reads those that are written, while the call lasts.
 */
normdrop_status normdrop_train(const struct normdrop_layer *layer,
                               const struct normdrop_train_call *call,
                               struct normdrop_error *error);

/**
 * Evaluation forward: fixed (running) statistics, optionally dropout. `output` may be `input` itself.
 *
 * # Safety
 * As `normdrop_train`.
 */
normdrop_status normdrop_eval(const struct normdrop_layer *layer,
                              const struct normdrop_eval_call *call,
                              struct normdrop_error *error);

/**
 * The gradients of the layer, through batch statistics or past fixed ones. `grad_input` may be `grad_output` itself.
 *
 * # Safety
 * As `normdrop_train`.
 */
normdrop_status normdrop_backward(const struct normdrop_layer *layer,
                                  const struct normdrop_backward_call *call,
                                  struct normdrop_error *error);

/**
 * The moments of a part of a batch: counts, means and sums of squared deviations. The shape of the layer is that of the
 * part. Merge those of all parts with `normdrop_merge_moments`, then `normdrop_finish` and `normdrop_apply`.
 *
 * # Safety
 * As `normdrop_train`.
 */
normdrop_status normdrop_moments(const struct normdrop_layer *layer,
                                 struct normdrop_slice_f32 input,
                                 struct normdrop_slice_mut_f64 moments,
                                 struct normdrop_slice_mut_f64 scratch,
                                 struct normdrop_error *error);

/**
 * Merges the moments of one part of a batch into those of another: `into` has those of both then.
 *
 * # Safety
 * As `normdrop_train`.
 */
normdrop_status normdrop_merge_moments(struct normdrop_slice_mut_f64 into,
                                       struct normdrop_slice_f64 from,
                                       struct normdrop_error *error);

/**
 * Whether the moments of all parts of a batch have means and variances that fit a float: what to
 * ask before `normdrop_finish` averages them, in order to skip a batch with a NaN or with values
 * beyond 1e19. If not, the status is `NORMDROP_STATUS_NOT_FINITE`, and the error has
 * `running_mean` or `running_var` and the channel.
 *
 * # Safety
 * As `normdrop_train`.
 */
normdrop_status normdrop_check_moments(const struct normdrop_layer *layer,
                                       struct normdrop_slice_f64 moments,
                                       struct normdrop_error *error);

/**
 * The statistics of a batch from its moments; updates the running statistics. `outer`, `inner` and the activation do not
 * matter.
 *
 * # Safety
 * As `normdrop_train`.
 */
normdrop_status normdrop_finish(const struct normdrop_layer *layer,
                                const struct normdrop_finish_call *call,
                                struct normdrop_error *error);

/**
 * The forward call of a part of a batch, with the statistics of the whole. Not in place.
 *
 * # Safety
 * As `normdrop_train`.
 */
normdrop_status normdrop_apply(const struct normdrop_layer *layer,
                               const struct normdrop_apply_call *call,
                               struct normdrop_error *error);

/**
 * The sums over a part of a batch that gradients are made of. Merge those of all parts with `normdrop_merge_sums`, then
 * `normdrop_finish_gradients` and `normdrop_apply_gradient`.
 *
 * # Safety
 * As `normdrop_train`.
 */
normdrop_status normdrop_reduce(const struct normdrop_layer *layer,
                                const struct normdrop_reduce_call *call,
                                struct normdrop_error *error);

/**
 * Merges the sums of one part of a batch into those of another: a plain addition, as any all-reduce does it.
 *
 * # Safety
 * As `normdrop_train`.
 */
normdrop_status normdrop_merge_sums(struct normdrop_slice_mut_f64 into,
                                    struct normdrop_slice_f64 from,
                                    struct normdrop_error *error);

/**
 * The gradients of weight and bias, each C values or none, from the sums over the whole batch.
 *
 * # Safety
 * As `normdrop_train`.
 */
normdrop_status normdrop_finish_gradients(const struct normdrop_layer *layer,
                                          struct normdrop_slice_f64 sums,
                                          struct normdrop_slice_mut_f32 grad_weight,
                                          struct normdrop_slice_mut_f32 grad_bias,
                                          struct normdrop_error *error);

/**
 * The gradients of the elements of a part of a batch, through the statistics of the whole. Not in place.
 *
 * # Safety
 * As `normdrop_train`.
 */
normdrop_status normdrop_apply_gradient(const struct normdrop_layer *layer,
                                        const struct normdrop_apply_gradient_call *call,
                                        struct normdrop_error *error);

/**
 * Folds batch norm into the linear or convolution layer directly before it: `batchnorm(W*x + b)` becomes `W'*x + b'`.
 *
 * A running variance that `eps` does not lift above 0, parameters that are not finite, and results that do not fit a float
 * are refused. Weights below 2^-126 are written as they are; where they are slow and data are small, set them to 0.
 *
 * # Safety
 * As `normdrop_train`.
 */
normdrop_status normdrop_fold_into_previous(const struct normdrop_fold_call *call,
                                            struct normdrop_error *error);

/**
 * Folds batch norm into the linear or convolution layer after it: `W*batchnorm(x) + b` becomes `W'*x + b'`.
 *
 * Exact only where nothing but dropout and a flattening stands between the two, and where every output sees every tap:
 * not with zero padding and not for most transposed convolutions, unless the batch norm shifts nothing. Zero padding of
 * the network becomes a padding of `running_mean - bias*sqrt(running_var + eps)/weight` per channel; where `weight` is 0
 * there is no such value. Refused as `normdrop_fold_into_previous`.
 *
 * # Safety
 * As `normdrop_train`.
 */
normdrop_status normdrop_fold_into_next(const struct normdrop_fold_call *call,
                                        struct normdrop_error *error);

#ifdef __cplusplus
}
#endif

#endif  /* NORMDROP_H */

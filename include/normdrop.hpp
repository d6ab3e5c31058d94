// normdrop for C++17: fused batch norm, activation and dropout,
// y = dropout(act(batchnorm(x) + residual)), forward and backward.
//
// Thin wrappers around normdrop.h, which documents each field and each call in full:
//
//     normdrop::Config config;
//     config.activation = normdrop::Activation::relu;
//     config.p = 0.1;
//     const normdrop::Layer layer(normdrop::Shape::nchw(8, 16, 32, 32), config);
//
//     std::vector<float> x(layer.lengths().elements), y(x.size());
//     const std::vector<std::uint8_t> mask = layer.mask(42);
//     normdrop::Train train;
//     train.input = x;
//     train.output = y;
//     train.mask = mask;
//     const normdrop::Saved saved = layer.train(train);
//
// - A buffer is a `Span`: made from anything with `data()` and `size()`, from an array, or from a pointer and a number. It owns
//   nothing. A default one, or an empty vector, is a buffer that is left out.
// - `Saved`, `Scratch` and the vectors that calls return own their memory.
// - A call that is refused has written nothing, and throws an `Error` that names the buffer, what was expected and what was given.
// - A `Layer` holds no data and cannot be changed, so threads can share it. Calls without a `Scratch` allocate one.
//
// C below is the number of channels, and len the number of elements.

#ifndef NORMDROP_HPP
#define NORMDROP_HPP

#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <normdrop.h>

namespace normdrop {

/// Values that are somewhere else: a pointer and their number. `Span<const float>` is read, `Span<float>` is written.
template <class T> class Span {
  public:
    /// No buffer.
    constexpr Span() noexcept = default;
    /// No buffer.
    constexpr Span(std::nullptr_t) noexcept {}
    /// `size` values from `data` on. A NULL with a size is refused by the call that it is given to.
    constexpr Span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    /// The values of an array.
    template <std::size_t N> constexpr Span(T (&values)[N]) noexcept : data_(values), size_(N) {}
    /// The values of a container, which has to outlive the span: `std::vector`, `std::array`, `std::span`, `Span<float>` as
    /// `Span<const float>`.
    template <class Container, class = std::enable_if_t<std::is_convertible_v<decltype(std::declval<Container &>().data()), T *> &&
                                                        !std::is_same_v<std::remove_cv_t<Container>, Span>>>
    constexpr Span(Container &values) noexcept(noexcept(values.data())) : data_(values.data()), size_(values.size()) {}

    /// The first value.
    constexpr T *data() const noexcept { return data_; }
    /// The number of values.
    constexpr std::size_t size() const noexcept { return size_; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/// The reason for which a call was refused. Nothing was written.
class Error : public std::invalid_argument {
  public:
    /// That of a call which returned a status, and filled in the struct unless it has none.
    explicit Error(const normdrop_error &reason) : std::invalid_argument(text(reason)), reason_(reason) {}

    /// One of `NORMDROP_STATUS_*`.
    normdrop_status status() const noexcept { return reason_.status; }
    /// The buffer or struct at fault: one of `NORMDROP_BUFFER_*`.
    normdrop_buffer buffer() const noexcept { return reason_.buffer; }
    /// The buffer that it overlaps: one of `NORMDROP_BUFFER_*`.
    normdrop_buffer other() const noexcept { return reason_.other; }
    /// The expected number; `normdrop_error` says what it is for each status.
    std::size_t expected() const noexcept { return reason_.expected; }
    /// The number that was given.
    std::size_t actual() const noexcept { return reason_.actual; }
    /// The number that is out of its range.
    double value() const noexcept { return reason_.value; }

  private:
    static std::string text(const normdrop_error &reason) {
        if (reason.status == NORMDROP_STATUS_LENGTH) {
            return std::string(normdrop_buffer_name(reason.buffer)) + " must have " +
                   (reason.buffer == NORMDROP_BUFFER_SCRATCH || reason.buffer == NORMDROP_BUFFER_WORKSPACE ? "at least " : "") +
                   std::to_string(reason.expected) +
                   (reason.buffer == NORMDROP_BUFFER_MASK || reason.buffer == NORMDROP_BUFFER_GATES || reason.buffer == NORMDROP_BUFFER_VALIDITY
                        ? " bytes"
                        : " values") + ", but has " + std::to_string(reason.actual);
        }
        std::string text = normdrop_status_text(reason.status);
        if (reason.buffer != NORMDROP_BUFFER_NONE) {
            text += std::string(": ") + normdrop_buffer_name(reason.buffer);
        }
        if (reason.other != NORMDROP_BUFFER_NONE) {
            text += std::string(" and ") + normdrop_buffer_name(reason.other);
        }
        if (reason.expected != 0 || reason.actual != 0) {
            text += ", expected " + std::to_string(reason.expected) + ", got " + std::to_string(reason.actual);
        }
        if (reason.value != 0) {
            text += ", value " + std::to_string(reason.value);
        }
        return text;
    }

    normdrop_error reason_;
};

/// An activation function; `normdrop.h` has the formulas.
enum class Activation : normdrop_activation {
    identity = NORMDROP_ACTIVATION_IDENTITY,
    relu = NORMDROP_ACTIVATION_RELU,
    relu6 = NORMDROP_ACTIVATION_RELU6,
    leaky_relu = NORMDROP_ACTIVATION_LEAKY_RELU,
    hard_swish = NORMDROP_ACTIVATION_HARD_SWISH,
    sigmoid = NORMDROP_ACTIVATION_SIGMOID,
    tanh = NORMDROP_ACTIVATION_TANH,
    silu = NORMDROP_ACTIVATION_SILU,
    gelu_tanh = NORMDROP_ACTIVATION_GELU_TANH,
    gelu = NORMDROP_ACTIVATION_GELU,
    elu = NORMDROP_ACTIVATION_ELU,
    selu = NORMDROP_ACTIVATION_SELU,
    mish = NORMDROP_ACTIVATION_MISH,
    softplus = NORMDROP_ACTIVATION_SOFTPLUS,
};

/// The elements that one bit of the mask decides about: dropout, spatial dropout, stochastic depth.
enum class Granularity : normdrop_granularity {
    element = NORMDROP_GRANULARITY_ELEMENT,
    channel = NORMDROP_GRANULARITY_CHANNEL,
    sample = NORMDROP_GRANULARITY_SAMPLE,
};

/// The variance that the running variance averages: PyTorch's, or that of Keras, flax, ONNX and oneDNN.
enum class RunningVariance : normdrop_running_variance {
    unbiased = NORMDROP_RUNNING_VARIANCE_UNBIASED,
    biased = NORMDROP_RUNNING_VARIANCE_BIASED,
};

/// An instruction set. All give the same bits.
enum class Backend : normdrop_backend {
    fastest = NORMDROP_BACKEND_FASTEST,
    portable = NORMDROP_BACKEND_PORTABLE,
    avx2 = NORMDROP_BACKEND_AVX2,
    avx512 = NORMDROP_BACKEND_AVX512,
};

/// The order in memory of the dimensions of weights; the table of `normdrop_fold_call` has the frameworks.
enum class WeightOrder : normdrop_weight_order {
    out_in_taps = NORMDROP_WEIGHT_ORDER_OUT_IN_TAPS,
    out_taps_in = NORMDROP_WEIGHT_ORDER_OUT_TAPS_IN,
    in_out_taps = NORMDROP_WEIGHT_ORDER_IN_OUT_TAPS,
    in_taps_out = NORMDROP_WEIGHT_ORDER_IN_TAPS_OUT,
    taps_in_out = NORMDROP_WEIGHT_ORDER_TAPS_IN_OUT,
    taps_out_in = NORMDROP_WEIGHT_ORDER_TAPS_OUT_IN,
};

/// The form in which a file has the fixed statistics of a batch norm.
enum class StoredForm : normdrop_stored_form {
    eps_outside = NORMDROP_STORED_FORM_EPS_OUTSIDE,
    deviation = NORMDROP_STORED_FORM_DEVIATION,
    inverse_deviation = NORMDROP_STORED_FORM_INVERSE_DEVIATION,
    sums = NORMDROP_STORED_FORM_SUMS,
};

/// The type of elements of half the size of a float.
enum class Element : normdrop_element {
    f16 = NORMDROP_ELEMENT_F16,
    bf16 = NORMDROP_ELEMENT_BF16,
};

/// A tensor of halves that a call reads, in the place of one of floats: the bits of its elements, and their type.
struct Halves {
    /// No buffer.
    constexpr Halves() noexcept = default;
    /// The bits, which are somewhere else.
    constexpr Halves(Span<const std::uint16_t> bits_, Element element_) noexcept : bits(bits_), element(element_) {}

    /// The bits.
    Span<const std::uint16_t> bits;
    /// The type.
    Element element = Element::f16;
};

/// A tensor of halves that a call writes.
struct HalvesMut {
    /// No buffer.
    constexpr HalvesMut() noexcept = default;
    /// The bits, which are somewhere else.
    constexpr HalvesMut(Span<std::uint16_t> bits_, Element element_) noexcept : bits(bits_), element(element_) {}

    /// The bits.
    Span<std::uint16_t> bits;
    /// The type.
    Element element = Element::f16;
};

/// Noise by which a tensor is multiplied, in the place of dropout: factors with the mean 1. `normdrop.h` has the laws.
struct Noise {
    /// `1 + width*n`, n normal.
    static Noise gaussian(float width) noexcept { return {NORMDROP_NOISE_LAW_GAUSSIAN, 0.0, width}; }
    /// `1 + sqrt(p/(1 - p))*n`: with the variance of dropout.
    static Noise gaussian_dropout(double p) noexcept { return {NORMDROP_NOISE_LAW_GAUSSIAN_DROPOUT, p, 0.0f}; }
    /// `1 + width*u`, u uniform in (-1, 1).
    static Noise uniform(float width) noexcept { return {NORMDROP_NOISE_LAW_UNIFORM, 0.0, width}; }

    /// One of `NORMDROP_NOISE_LAW_*`.
    normdrop_noise_law law;
    /// Of Gaussian dropout.
    double p;
    /// Of the others.
    float width;
};

namespace detail {

inline normdrop_error new_error() noexcept {
    normdrop_error error{};
    error.version = NORMDROP_ABI_VERSION;
    return error;
}

/// Calls a function of normdrop.h with an error as its last argument, and throws that.
template <class Function, class... Arguments> void call(Function function, Arguments... arguments) {
    normdrop_error error = new_error();
    const normdrop_status status = function(arguments..., &error);
    if (status != NORMDROP_STATUS_OK) {
        error.status = status;
        throw Error(error);
    }
}

template <class Struct> Struct new_call() noexcept {
    Struct call{};
    call.version = NORMDROP_ABI_VERSION;
    return call;
}

inline normdrop_slice_f32 slice(Span<const float> values) noexcept { return {values.data(), values.size()}; }
inline normdrop_slice_f64 slice(Span<const double> values) noexcept { return {values.data(), values.size()}; }
inline normdrop_slice_u8 slice(Span<const std::uint8_t> values) noexcept { return {values.data(), values.size()}; }
inline normdrop_slice_usize slice(Span<const std::size_t> values) noexcept { return {values.data(), values.size()}; }
inline normdrop_slice_mut_f32 slice_mut(Span<float> values) noexcept { return {values.data(), values.size()}; }
inline normdrop_slice_mut_f64 slice_mut(Span<double> values) noexcept { return {values.data(), values.size()}; }
inline normdrop_slice_mut_u8 slice_mut(Span<std::uint8_t> values) noexcept { return {values.data(), values.size()}; }

inline normdrop_halves halves(const Halves &of) noexcept {
    return {of.bits.data(), of.bits.size(), static_cast<normdrop_element>(of.element)};
}
inline normdrop_halves_mut halves_mut(const HalvesMut &of) noexcept {
    return {of.bits.data(), of.bits.size(), static_cast<normdrop_element>(of.element)};
}

inline normdrop_noise noise(const Noise &of) noexcept {
    auto noise = new_call<normdrop_noise>();
    noise.law = of.law;
    noise.p = of.p;
    noise.width = of.width;
    return noise;
}

/// A generator of C++ as a function of C, through which no exception may pass: it is thrown again after the call.
template <class Generator> struct Words {
    static_assert(Generator::min() == 0 && Generator::max() == std::numeric_limits<std::uint32_t>::max(),
                  "masks are made of words of 32 random bits, as of std::mt19937");

    Generator &generator;
    std::exception_ptr failed;

    static std::uint32_t next(void *context) noexcept {
        Words &words = *static_cast<Words *>(context);
        if (!words.failed) {
            try {
                return static_cast<std::uint32_t>(words.generator());
            } catch (...) {
                words.failed = std::current_exception();
            }
        }
        return 0;
    }

    void end() const {
        if (failed) {
            std::rethrow_exception(failed);
        }
    }
};

} // namespace detail

/// The shape of a tensor, `[outer, channels, inner]` in memory.
struct Shape {
    /// The product of the dimensions before the channels.
    std::size_t outer = 1;
    /// The number of channels.
    std::size_t channels = 1;
    /// The product of the dimensions after the channels.
    std::size_t inner = 1;
    /// In channels-last layouts: the number of positions of one sample, which are part of `outer`.
    std::size_t positions = 1;

    /// `[n, c]`.
    static Shape nc(std::size_t n, std::size_t c) { return {n, c, 1, 1}; }
    /// `[n, c, l]`.
    static Shape ncl(std::size_t n, std::size_t c, std::size_t l) { return {n, c, l, 1}; }
    /// `[n, c, h, w]`.
    static Shape nchw(std::size_t n, std::size_t c, std::size_t h, std::size_t w) { return {n, c, product({h, w}), 1}; }
    /// `[n, c, d, h, w]`.
    static Shape ncdhw(std::size_t n, std::size_t c, std::size_t d, std::size_t h, std::size_t w) {
        return {n, c, product({d, h, w}), 1};
    }
    /// `[n, l, c]`.
    static Shape nlc(std::size_t n, std::size_t l, std::size_t c) { return {product({n, l}), c, 1, l}; }
    /// `[n, h, w, c]`.
    static Shape nhwc(std::size_t n, std::size_t h, std::size_t w, std::size_t c) {
        return {product({n, h, w}), c, 1, product({h, w})};
    }
    /// `[n, d, h, w, c]`.
    static Shape ndhwc(std::size_t n, std::size_t d, std::size_t h, std::size_t w, std::size_t c) {
        return {product({n, d, h, w}), c, 1, product({d, h, w})};
    }

  private:
    static std::size_t product(std::initializer_list<std::size_t> sizes) {
        std::size_t product = 1;
        bool fits = true;
        for (const std::size_t size : sizes) {
            if (size == 0) {
                return 0;
            }
            fits = fits && product <= std::numeric_limits<std::size_t>::max() / size;
            product *= size;
        }
        if (!fits) {
            normdrop_error error = detail::new_error();
            error.status = NORMDROP_STATUS_SHAPE;
            throw Error(error);
        }
        return product;
    }

  public:
    /// Of all four numbers.
    constexpr Shape(std::size_t outer_, std::size_t channels_, std::size_t inner_, std::size_t positions_ = 1) noexcept
        : outer(outer_), channels(channels_), inner(inner_), positions(positions_) {}
};

/// The constants of a layer, with the defaults of PyTorch.
struct Config {
    /// The identity by default.
    Activation activation = Activation::identity;
    /// The probability to drop, in [0, 1].
    double p = 0.0;
    /// Added to the variance under the square root: above 0 in training, at least 0 in evaluation.
    float eps = 1e-5f;
    /// The weight of the new value in the running statistics, in [0, 1].
    double momentum = 0.1;
    /// The slope of `Activation::leaky_relu`.
    float slope = 0.01f;
    /// The alpha of `Activation::elu`.
    float alpha = 1.0f;
    /// What a bit of the mask decides about.
    Granularity granularity = Granularity::element;
    /// The variance that the running variance averages.
    RunningVariance running_variance = RunningVariance::unbiased;
    /// The largest instruction set.
    Backend backend = Backend::fastest;
    /// The largest number of tasks of a call, for a library with threads.
    std::uint32_t tasks = 1;
};

/// What a training call leaves for the backward call: the statistics of the batch, C values each.
struct Saved {
    /// The mean, rounded.
    std::vector<float> mean;
    /// The exact mean minus `mean`.
    std::vector<float> mean_tail;
    /// 1/sqrt(var + eps).
    std::vector<double> inv_std;
};

/// Memory that a call uses while it lasts, and that grows as needed. One serves all layers of a thread.
class Scratch {
  public:
    /// At least `len` values, whatever they are.
    Span<double> of(std::size_t len) { return at_least(values_, len); }
    /// The same for the copies of valid values of a padded batch.
    Span<float> workspace(std::size_t len) { return at_least(copies_, len); }

  private:
    template <class T> static Span<T> at_least(std::vector<T> &values, std::size_t len) {
        if (values.size() < len) {
            values.resize(len);
        }
        return {values.data(), len};
    }

    std::vector<double> values_;
    std::vector<float> copies_;
};

/// Which positions of a padded batch are valid: one of the two.
struct Validity {
    /// The number of valid positions of each sample, from its first on.
    Span<const std::size_t> lengths{};
    /// A bit for each position of each sample, 1 if it is valid, `mask_len(samples*positions)` bytes.
    Span<const std::uint8_t> bits{};
};

/// The buffers of `Layer::train`.
struct Train {
    /// C values, or left out: 1 and 0.
    Span<const float> weight, bias;
    /// Updated, C values each, or left out. A new layer starts with zeros, zeros and ones. Without the tail, the running mean is one
    /// float.
    Span<float> running_mean, running_mean_tail, running_var;
    /// NULL for an average with the momentum; otherwise the number of batches so far, which the call increments.
    std::uint64_t *batches = nullptr;
    /// Needed if `p` is above 0.
    Span<const std::uint8_t> mask;
    /// Written, `mask_len(len)` bytes, or left out: the bit of an element is 1 if it is kept and the derivative of the
    /// activation is not 0. `mask` itself, if that has a bit per element, or memory apart from it. For the identity and ReLU.
    Span<std::uint8_t> gates;
    /// x, len values.
    Span<const float> input;
    /// Added before the activation, len values, or left out.
    Span<const float> residual;
    /// y, len values, apart from `input`.
    Span<float> output;
    /// Tensors of halves, each in the place of the one of floats, which is left out.
    Halves input_half{}, residual_half{};
    HalvesMut output_half{};
};

/// The buffers of `Layer::eval`.
struct Eval {
    /// C values, or left out: 1 and 0.
    Span<const float> weight, bias;
    /// C values each; the tail may be left out.
    Span<const float> running_mean, running_mean_tail, running_var;
    /// If left out, dropout is off.
    Span<const std::uint8_t> mask;
    /// As in `Train`; `output` must then not be `input`.
    Span<std::uint8_t> gates;
    /// x, len values.
    Span<const float> input;
    /// Added before the activation, len values, or left out.
    Span<const float> residual;
    /// y, len values: `input` itself, or memory apart from it.
    Span<float> output;
    /// What `Layer::prepare` returned, in place of `weight`, `bias` and `running_*`, or left out.
    Span<const double> prepared{};
    /// Tensors of halves, each in the place of the one of floats, which is left out.
    Halves input_half{}, residual_half{};
    HalvesMut output_half{};
};

/// The buffers of `Layer::prepare`.
struct Prepare {
    /// C values, or left out: 1 and 0.
    Span<const float> weight, bias;
    /// C values each; the tail may be left out.
    Span<const float> running_mean, running_mean_tail, running_var;
};

/// The buffers of `Layer::backward`.
struct Backward {
    /// As in the forward call.
    Span<const float> weight, bias;
    /// After `train`: what it returned. NULL after `eval`, with the running statistics instead.
    const Saved *saved = nullptr;
    /// After `eval`, as it had them.
    Span<const float> running_mean, running_mean_tail, running_var;
    /// As in the forward call.
    Span<const std::uint8_t> mask;
    /// As the forward call wrote them, in place of `mask`, `bias` and `residual`; or left out.
    Span<const std::uint8_t> gates;
    /// As in the forward call.
    Span<const float> input, residual;
    /// dy, len values.
    Span<const float> grad_output;
    /// dx, len values: `grad_output` itself, or memory apart from it; or left out.
    Span<float> grad_input;
    /// len values, or left out.
    Span<float> grad_residual;
    /// C values each, or left out.
    Span<float> grad_weight, grad_bias;
    /// After `eval` with it: in place of `weight`, `bias` and `running_*`, or left out.
    Span<const double> prepared{};
    /// Tensors of halves, each in the place of the one of floats, which is left out.
    Halves input_half{}, residual_half{}, grad_output_half{};
    HalvesMut grad_input_half{}, grad_residual_half{};
};

/// The buffers of `Layer::finish`.
struct Finish {
    /// Those of all parts, merged, 3*C values.
    Span<const double> moments;
    /// As in `Train`.
    Span<float> running_mean, running_mean_tail, running_var;
    /// As in `Train`.
    std::uint64_t *batches = nullptr;
};

/// The buffers of `Layer::apply`.
struct Apply {
    /// C values, or left out: 1 and 0.
    Span<const float> weight, bias;
    /// What `finish` returned.
    const Saved *saved = nullptr;
    /// Needed if `p` is above 0.
    Span<const std::uint8_t> mask;
    /// As in `Train`, of the part.
    Span<std::uint8_t> gates;
    /// x of the part and its residual, which may be left out; len values.
    Span<const float> input, residual;
    /// y of the part, len values, apart from `input`.
    Span<float> output;
    /// Tensors of halves, each in the place of the one of floats, which is left out.
    Halves input_half{}, residual_half{};
    HalvesMut output_half{};
};

/// The buffers of `Layer::reduce`.
struct Reduce {
    /// As in the forward call.
    Span<const float> weight, bias;
    /// What `finish` returned. NULL after `eval`, with the running statistics instead.
    const Saved *saved = nullptr;
    /// After `eval`, as it had them.
    Span<const float> running_mean, running_mean_tail, running_var;
    /// As in the forward call of the part.
    Span<const std::uint8_t> mask;
    /// As the forward call of the part wrote them, in place of `mask`, `bias` and `residual`; or left out.
    Span<const std::uint8_t> gates;
    /// As in the forward call of the part.
    Span<const float> input, residual;
    /// dy of the part, len values.
    Span<const float> grad_output;
    /// After `eval` with it: in place of `weight`, `bias` and `running_*`, or left out.
    Span<const double> prepared{};
    /// Tensors of halves, each in the place of the one of floats, which is left out.
    Halves input_half{}, residual_half{}, grad_output_half{};
};

/// The buffers of `Layer::apply_gradient`.
struct ApplyGradient {
    /// As in the forward call.
    Span<const float> weight, bias;
    /// What `finish` returned.
    const Saved *saved = nullptr;
    /// The values per channel of the whole batch: the count of its moments.
    double samples = 0.0;
    /// Those of all parts, merged, 2*C values.
    Span<const double> sums;
    /// As in the forward call of the part.
    Span<const std::uint8_t> mask;
    /// As the forward call of the part wrote them, in place of `mask`, `bias` and `residual`; or left out.
    Span<const std::uint8_t> gates;
    /// As in the forward call of the part.
    Span<const float> input, residual;
    /// dy of the part, len values.
    Span<const float> grad_output;
    /// dx of the part, len values, apart from `grad_output`.
    Span<float> grad_input;
    /// len values, or left out.
    Span<float> grad_residual;
    /// Tensors of halves, each in the place of the one of floats, which is left out.
    Halves input_half{}, residual_half{}, grad_output_half{};
    HalvesMut grad_input_half{}, grad_residual_half{};
};

/// The buffers of `fold_into_previous` and `fold_into_next`.
struct Fold {
    /// That of the batch norm.
    float eps = 1e-5f;
    /// The order of the weights in memory. There is no default: a wrong one cannot be noticed.
    explicit Fold(WeightOrder order_) : order(order_) {}
    /// The order of the weights in memory.
    WeightOrder order;
    /// Of the weight layer, all groups together.
    std::size_t outputs = 0, inputs = 0;
    /// The number of taps of the kernel.
    std::size_t taps = 1;
    /// The number of groups.
    std::size_t groups = 1;
    /// Of the batch norm, C values each; `weight`, `bias` and the tail may be left out.
    Span<const float> weight, bias, running_mean, running_mean_tail, running_var;
    /// Overwritten: outputs*inputs/groups*taps values, and `outputs` values, which may be left out if no channel needs a bias.
    Span<float> weights, weights_bias;
};

/// The fused layer for one shape. It holds no data, and costs nothing to make: make another one for the last, smaller batch.
class Layer {
  public:
    /// Throws an `Error` if the shape or a constant is out of its range, or if the library is older than the header.
    explicit Layer(const Shape &shape, const Config &config = {}) {
        const normdrop_status status = normdrop_layer_init(&layer_, NORMDROP_ABI_VERSION);
        if (status != NORMDROP_STATUS_OK) {
            normdrop_error error = detail::new_error();
            error.status = status;
            throw Error(error);
        }
        layer_.activation = static_cast<normdrop_activation>(config.activation);
        layer_.outer = shape.outer;
        layer_.channels = shape.channels;
        layer_.inner = shape.inner;
        layer_.positions = shape.positions;
        layer_.momentum = config.momentum;
        layer_.p = config.p;
        layer_.eps = config.eps;
        layer_.slope = config.slope;
        layer_.alpha = config.alpha;
        layer_.granularity = static_cast<normdrop_granularity>(config.granularity);
        layer_.running_variance = static_cast<normdrop_running_variance>(config.running_variance);
        layer_.backend = static_cast<normdrop_backend>(config.backend);
        layer_.tasks = config.tasks;
        lengths_.version = NORMDROP_ABI_VERSION;
        detail::call(normdrop_layer_lengths, &layer_, &lengths_);
    }

    /// The lengths of all buffers.
    const normdrop_lengths &lengths() const noexcept { return lengths_; }
    /// The struct of C.
    const normdrop_layer &c() const noexcept { return layer_; }

    /// The dropout mask of a seed, a pure function of it: `lengths().mask` bytes.
    std::vector<std::uint8_t> mask(std::uint64_t seed) const {
        std::vector<std::uint8_t> mask(lengths_.mask);
        fill_mask(seed, mask);
        return mask;
    }
    /// The same, into memory that is there.
    void fill_mask(std::uint64_t seed, Span<std::uint8_t> mask) const {
        detail::call(normdrop_fill_mask, &layer_, seed, detail::slice_mut(mask));
    }
    /// A mask from a generator of words of 32 random bits, such as `std::mt19937`.
    template <class Generator> void fill_mask_with(Generator &generator, Span<std::uint8_t> mask) const {
        detail::Words<Generator> words{generator, nullptr};
        void *const context = &words;
        detail::call(normdrop_fill_mask_with, &layer_, &detail::Words<Generator>::next, context, detail::slice_mut(mask));
        words.end();
    }
    /// Clears the bits of padded elements. `lengths` has the number of positions of each sample that are not padding.
    void drop_padding(Span<const std::size_t> lengths, Span<std::uint8_t> mask) const {
        detail::call(normdrop_drop_padding, &layer_, detail::slice(lengths), detail::slice_mut(mask));
    }
    /// Sets the padding of a tensor to +0.0.
    void clear_padding(Span<const std::size_t> lengths, Span<float> values) const {
        detail::call(normdrop_clear_padding, &layer_, detail::slice(lengths), detail::slice_mut(values));
    }

    /// The same of halves.
    void clear_padding(Span<const std::size_t> lengths, const HalvesMut &values) const {
        detail::call(normdrop_clear_padding_half, &layer_, detail::slice(lengths), detail::halves_mut(values));
    }

    /// Multiplies a tensor by noise, in place: forward on y, and backward on dy with the same noise and seed.
    void apply_noise(const Noise &noise, std::uint64_t seed, Span<float> values) const {
        const normdrop_noise of = detail::noise(noise);
        detail::call(normdrop_apply_noise, &layer_, &of, seed, detail::slice_mut(values));
    }
    /// Alpha dropout of a tensor with the layer's `p`, in place, for networks of `Activation::selu`.
    void alpha_dropout(Span<const std::uint8_t> mask, Span<float> values) const {
        detail::call(normdrop_alpha_dropout, &layer_, detail::slice(mask), detail::slice_mut(values));
    }
    /// Its gradient, in place.
    void alpha_dropout_backward(Span<const std::uint8_t> mask, Span<float> values) const {
        detail::call(normdrop_alpha_dropout_backward, &layer_, detail::slice(mask), detail::slice_mut(values));
    }

    /// PReLU of a tensor, in place, after any forward call of a layer with `Activation::identity`, with dropout or without.
    /// `slope` has a value for each channel, or one for all.
    void prelu(Span<const float> slope, Span<float> values) const {
        detail::call(normdrop_prelu, &layer_, detail::slice(slope), detail::slice_mut(values));
    }
    /// Its gradient, in place, and that of the slopes, which may be left out. `values` has what went into PReLU: the forward
    /// call once more. Afterwards it is the `grad_output` of a layer with `Activation::identity`.
    void prelu_gradient(Span<const float> slope, Span<const float> grad_output, Span<float> values, Span<float> grad_slope,
                        Scratch &scratch) const {
        detail::call(normdrop_prelu_gradient, &layer_, detail::slice(slope), detail::slice(grad_output), detail::slice_mut(values),
                     detail::slice_mut(grad_slope), detail::slice_mut(scratch.of(lengths_.prelu_scratch)));
    }

    /// Training forward, with the statistics of the batch.
    void train(const Train &buffers, Saved &saved, Scratch &scratch) const {
        const auto call = train_call(buffers, saved, scratch.of(lengths_.train_scratch));
        detail::call(normdrop_train, &layer_, &call);
    }
    /// The same over the valid positions of a padded batch: +0.0 where a position is padding, which is never read.
    void train_masked(const Train &buffers, const Validity &validity, Saved &saved, Scratch &scratch) const {
        const auto call = train_call(buffers, saved, scratch.of(lengths_.masked_scratch));
        const normdrop_masked masked = masked_of(validity, scratch);
        detail::call(normdrop_train_masked, &layer_, &call, &masked);
    }
    /// The same, with memory of its own.
    Saved train(const Train &buffers) const {
        Saved saved;
        Scratch scratch;
        train(buffers, saved, scratch);
        return saved;
    }

    /// Evaluation forward, with the running statistics.
    void eval(const Eval &buffers, Scratch &scratch) const {
        const auto call = eval_call(buffers, scratch.of(lengths_.eval_scratch));
        detail::call(normdrop_eval, &layer_, &call);
    }
    /// The same over the valid positions of a padded batch. Not in place, not with prepared statistics.
    void eval_masked(const Eval &buffers, const Validity &validity, Scratch &scratch) const {
        const auto call = eval_call(buffers, scratch.of(lengths_.masked_scratch));
        const normdrop_masked masked = masked_of(validity, scratch);
        detail::call(normdrop_eval_masked, &layer_, &call, &masked);
    }
    /// The same, with memory of its own.
    void eval(const Eval &buffers) const {
        Scratch scratch;
        eval(buffers, scratch);
    }

    /// Running statistics and parameters in the form that calls compute with, for many calls with the same: the results are
    /// the same bits, and small calls are several times faster. A copy, which serves every layer with as many channels.
    std::vector<double> prepare(const Prepare &buffers) const {
        std::vector<double> prepared(lengths_.prepared);
        prepare(buffers, prepared);
        return prepared;
    }
    /// The same, into memory that is there.
    void prepare(const Prepare &buffers, Span<double> prepared) const {
        auto call = with_parameters(detail::new_call<normdrop_prepare_call>(), buffers);
        with_running(call, buffers);
        call.prepared = detail::slice_mut(prepared);
        detail::call(normdrop_prepare, &layer_, &call);
    }

    /// The gradients: through the statistics of the batch, or past the running ones.
    void backward(const Backward &buffers, Scratch &scratch) const {
        const auto call = backward_call(buffers, scratch.of(lengths_.backward_scratch));
        detail::call(normdrop_backward, &layer_, &call);
    }
    /// The same over the valid positions of a padded batch, after `train_masked` or `eval_masked`. Not in place.
    void backward_masked(const Backward &buffers, const Validity &validity, Scratch &scratch) const {
        const auto call = backward_call(buffers, scratch.of(lengths_.masked_scratch));
        const normdrop_masked masked = masked_of(validity, scratch);
        detail::call(normdrop_backward_masked, &layer_, &call, &masked);
    }
    /// The same, with memory of its own.
    void backward(const Backward &buffers) const {
        Scratch scratch;
        backward(buffers, scratch);
    }

    // A batch in parts. The layer has the shape of the part.

    /// The moments of a part, 3*C values: counts, means and sums of squared deviations. `merge_moments` merges them.
    std::vector<double> moments(Span<const float> input) const {
        std::vector<double> moments(lengths_.moments);
        Scratch scratch;
        this->moments(input, moments, scratch);
        return moments;
    }
    /// The same, into memory that is there.
    void moments(Span<const float> input, Span<double> moments, Scratch &scratch) const {
        detail::call(normdrop_moments, &layer_, detail::slice(input), detail::slice_mut(moments),
                     detail::slice_mut(scratch.of(lengths_.train_scratch)));
    }
    /// The same of halves.
    void moments(const Halves &input, Span<double> moments, Scratch &scratch) const {
        detail::call(normdrop_moments_half, &layer_, detail::halves(input), detail::slice_mut(moments),
                     detail::slice_mut(scratch.of(lengths_.train_scratch)));
    }
    /// Refuses moments of a whole batch whose means or variances do not fit a float, before `finish` averages them.
    void check_moments(Span<const double> moments) const {
        detail::call(normdrop_check_moments, &layer_, detail::slice(moments));
    }
    /// The statistics of a batch from the moments of all its parts. Updates the running statistics.
    Saved finish(const Finish &buffers) const {
        Saved saved;
        finish(buffers, saved);
        return saved;
    }
    /// The same, into memory that is there.
    void finish(const Finish &buffers, Saved &saved) const {
        auto call = with_saved(detail::new_call<normdrop_finish_call>(), saved);
        with_running_mut(call, buffers);
        call.moments = detail::slice(buffers.moments);
        detail::call(normdrop_finish, &layer_, &call);
    }
    /// The forward call of a part, with the statistics of the whole batch.
    void apply(const Apply &buffers, Scratch &scratch) const {
        auto call = with_parameters(detail::new_call<normdrop_apply_call>(), buffers);
        of_saved(call, buffers.saved);
        call.mask = detail::slice(buffers.mask);
        call.gates = detail::slice_mut(buffers.gates);
        call.input = detail::slice(buffers.input);
        call.residual = detail::slice(buffers.residual);
        call.output = detail::slice_mut(buffers.output);
        call.input_half = detail::halves(buffers.input_half);
        call.residual_half = detail::halves(buffers.residual_half);
        call.output_half = detail::halves_mut(buffers.output_half);
        call.scratch = detail::slice_mut(scratch.of(lengths_.eval_scratch));
        detail::call(normdrop_apply, &layer_, &call);
    }
    /// The same, with memory of its own.
    void apply(const Apply &buffers) const {
        Scratch scratch;
        apply(buffers, scratch);
    }
    /// The sums over a part that gradients are made of, 2*C values. `merge_sums` merges them.
    std::vector<double> reduce(const Reduce &buffers) const {
        std::vector<double> sums(lengths_.sums);
        Scratch scratch;
        reduce(buffers, sums, scratch);
        return sums;
    }
    /// The same, into memory that is there.
    void reduce(const Reduce &buffers, Span<double> sums, Scratch &scratch) const {
        auto call = with_gradient(with_parameters(detail::new_call<normdrop_reduce_call>(), buffers), buffers);
        with_statistics(call, buffers);
        call.sums = detail::slice_mut(sums);
        call.scratch = detail::slice_mut(scratch.of(lengths_.backward_scratch));
        detail::call(normdrop_reduce, &layer_, &call);
    }
    /// The gradients of weight and bias, C values each or left out, from the sums over the whole batch.
    void finish_gradients(Span<const double> sums, Span<float> grad_weight, Span<float> grad_bias) const {
        detail::call(normdrop_finish_gradients, &layer_, detail::slice(sums), detail::slice_mut(grad_weight),
                     detail::slice_mut(grad_bias));
    }
    /// The gradients of the elements of a part, through the statistics of the whole batch.
    void apply_gradient(const ApplyGradient &buffers, Scratch &scratch) const {
        auto call = with_gradient(with_parameters(detail::new_call<normdrop_apply_gradient_call>(), buffers), buffers);
        of_saved(call, buffers.saved);
        call.samples = buffers.samples;
        call.sums = detail::slice(buffers.sums);
        call.grad_input = detail::slice_mut(buffers.grad_input);
        call.grad_residual = detail::slice_mut(buffers.grad_residual);
        call.grad_input_half = detail::halves_mut(buffers.grad_input_half);
        call.grad_residual_half = detail::halves_mut(buffers.grad_residual_half);
        call.scratch = detail::slice_mut(scratch.of(lengths_.backward_scratch));
        detail::call(normdrop_apply_gradient, &layer_, &call);
    }
    /// The same, with memory of its own.
    void apply_gradient(const ApplyGradient &buffers) const {
        Scratch scratch;
        apply_gradient(buffers, scratch);
    }

  private:
    normdrop_train_call train_call(const Train &buffers, Saved &saved, Span<double> scratch) const {
        auto call = with_saved(with_parameters(detail::new_call<normdrop_train_call>(), buffers), saved);
        with_running_mut(call, buffers);
        call.mask = detail::slice(buffers.mask);
        call.gates = detail::slice_mut(buffers.gates);
        call.input = detail::slice(buffers.input);
        call.residual = detail::slice(buffers.residual);
        call.output = detail::slice_mut(buffers.output);
        call.input_half = detail::halves(buffers.input_half);
        call.residual_half = detail::halves(buffers.residual_half);
        call.output_half = detail::halves_mut(buffers.output_half);
        call.scratch = detail::slice_mut(scratch);
        return call;
    }

    static normdrop_eval_call eval_call(const Eval &buffers, Span<double> scratch) {
        auto call = with_parameters(detail::new_call<normdrop_eval_call>(), buffers);
        with_running(call, buffers);
        call.mask = detail::slice(buffers.mask);
        call.gates = detail::slice_mut(buffers.gates);
        call.input = detail::slice(buffers.input);
        call.residual = detail::slice(buffers.residual);
        call.output = detail::slice_mut(buffers.output);
        call.input_half = detail::halves(buffers.input_half);
        call.residual_half = detail::halves(buffers.residual_half);
        call.output_half = detail::halves_mut(buffers.output_half);
        call.scratch = detail::slice_mut(scratch);
        call.prepared = detail::slice(buffers.prepared);
        return call;
    }

    static normdrop_backward_call backward_call(const Backward &buffers, Span<double> scratch) {
        auto call = with_gradient(with_parameters(detail::new_call<normdrop_backward_call>(), buffers), buffers);
        with_statistics(call, buffers);
        call.grad_input = detail::slice_mut(buffers.grad_input);
        call.grad_residual = detail::slice_mut(buffers.grad_residual);
        call.grad_input_half = detail::halves_mut(buffers.grad_input_half);
        call.grad_residual_half = detail::halves_mut(buffers.grad_residual_half);
        call.grad_weight = detail::slice_mut(buffers.grad_weight);
        call.grad_bias = detail::slice_mut(buffers.grad_bias);
        call.scratch = detail::slice_mut(scratch);
        return call;
    }

    normdrop_masked masked_of(const Validity &validity, Scratch &scratch) const {
        auto masked = detail::new_call<normdrop_masked>();
        masked.lengths = detail::slice(validity.lengths);
        masked.validity = detail::slice(validity.bits);
        masked.workspace = detail::slice_mut(scratch.workspace(lengths_.masked_workspace));
        return masked;
    }

    // Fields that several structs of C have.

    template <class Call, class Buffers> static Call with_parameters(Call call, const Buffers &buffers) {
        call.weight = detail::slice(buffers.weight);
        call.bias = detail::slice(buffers.bias);
        return call;
    }

    template <class Call, class Buffers> static void with_running_mut(Call &call, const Buffers &buffers) {
        call.running_mean = detail::slice_mut(buffers.running_mean);
        call.running_mean_tail = detail::slice_mut(buffers.running_mean_tail);
        call.running_var = detail::slice_mut(buffers.running_var);
        call.batches = buffers.batches;
    }

    template <class Call, class Buffers> static void with_running(Call &call, const Buffers &buffers) {
        call.running_mean = detail::slice(buffers.running_mean);
        call.running_mean_tail = detail::slice(buffers.running_mean_tail);
        call.running_var = detail::slice(buffers.running_var);
    }

    template <class Call> Call with_saved(Call call, Saved &saved) const {
        saved.mean.resize(lengths_.channels);
        saved.mean_tail.resize(lengths_.channels);
        saved.inv_std.resize(lengths_.channels);
        call.saved_mean = detail::slice_mut(saved.mean);
        call.saved_mean_tail = detail::slice_mut(saved.mean_tail);
        call.saved_inv_std = detail::slice_mut(saved.inv_std);
        return call;
    }

    template <class Call> static void of_saved(Call &call, const Saved *saved) {
        if (saved != nullptr) {
            call.saved_mean = detail::slice(saved->mean);
            call.saved_mean_tail = detail::slice(saved->mean_tail);
            call.saved_inv_std = detail::slice(saved->inv_std);
        }
    }

    template <class Call, class Buffers> static Call with_gradient(Call call, const Buffers &buffers) {
        call.mask = detail::slice(buffers.mask);
        call.gates = detail::slice(buffers.gates);
        call.input = detail::slice(buffers.input);
        call.residual = detail::slice(buffers.residual);
        call.grad_output = detail::slice(buffers.grad_output);
        call.input_half = detail::halves(buffers.input_half);
        call.residual_half = detail::halves(buffers.residual_half);
        call.grad_output_half = detail::halves(buffers.grad_output_half);
        return call;
    }

    template <class Call, class Buffers> static void with_statistics(Call &call, const Buffers &buffers) {
        const bool batch = buffers.saved != nullptr;
        if (buffers.prepared.data() != nullptr) {
            if (batch || buffers.running_mean.data() != nullptr || buffers.running_var.data() != nullptr) {
                throw std::invalid_argument("give either prepared, which has statistics in it, or others");
            }
            call.statistics = NORMDROP_STATISTICS_PREPARED;
            call.prepared = detail::slice(buffers.prepared);
            return;
        }
        if (batch && (buffers.running_mean.data() != nullptr || buffers.running_var.data() != nullptr)) {
            throw std::invalid_argument("give either saved, the statistics of the batch, or running_mean and running_var");
        }
        call.statistics = batch ? NORMDROP_STATISTICS_BATCH : NORMDROP_STATISTICS_FIXED;
        of_saved(call, buffers.saved);
        with_running(call, buffers);
    }

    normdrop_layer layer_{};
    normdrop_lengths lengths_{};
};

/// The exact keep probability for a probability to drop, and the factor of kept elements.
inline normdrop_keep keep(double p) {
    auto keep = detail::new_call<normdrop_keep>();
    detail::call(normdrop_bernoulli_keep, p, &keep);
    return keep;
}

/// The number of bytes of a mask.
inline std::size_t mask_len(std::size_t bits) noexcept { return normdrop_mask_len(bits); }

/// A part of a mask: `bits` bits from bit `first` of the whole mask on, into `mask_len(bits)` bytes.
inline void fill_mask(double p, std::uint64_t seed, std::uint64_t first, std::size_t bits, Span<std::uint8_t> mask) {
    detail::call(normdrop_bernoulli_fill, p, seed, first, bits, detail::slice_mut(mask));
}

/// A mask of `bits` bits from a generator of words of 32 random bits, such as `std::mt19937`.
template <class Generator> void fill_mask_with(double p, Generator &generator, std::size_t bits, Span<std::uint8_t> mask) {
    detail::Words<Generator> words{generator, nullptr};
    void *const context = &words;
    detail::call(normdrop_bernoulli_fill_with, p, &detail::Words<Generator>::next, context, bits, detail::slice_mut(mask));
    words.end();
}

/// Multiplies a part of a tensor by noise, in place: element `first + k` of the noise is the factor of `values[k]`.
inline void apply_noise(const Noise &noise, std::uint64_t seed, std::uint64_t first, Span<float> values) {
    const normdrop_noise of = detail::noise(noise);
    detail::call(normdrop_noise_apply, &of, seed, first, detail::slice_mut(values));
}

/// The seed of one mask of a training run, from the seed of the run and the numbers of a layer, a step and a rank.
inline std::uint64_t seed_for(std::uint64_t root, std::uint64_t layer, std::uint64_t step = 0, std::uint64_t rank = 0) noexcept {
    return normdrop_seed_for(root, layer, step, rank);
}

/// Merges the moments of a part of a batch into those of another.
inline void merge_moments(Span<double> into, Span<const double> from) {
    detail::call(normdrop_merge_moments, detail::slice_mut(into), detail::slice(from));
}

/// Merges the sums of a part of a batch into those of another.
inline void merge_sums(Span<double> into, Span<const double> from) {
    detail::call(normdrop_merge_sums, detail::slice_mut(into), detail::slice(from));
}

namespace detail {

inline normdrop_fold_call fold_call(const Fold &buffers) {
    auto call = new_call<normdrop_fold_call>();
    call.eps = buffers.eps;
    call.order = static_cast<normdrop_weight_order>(buffers.order);
    call.outputs = buffers.outputs;
    call.inputs = buffers.inputs;
    call.taps = buffers.taps;
    call.groups = buffers.groups;
    call.weight = slice(buffers.weight);
    call.bias = slice(buffers.bias);
    call.running_mean = slice(buffers.running_mean);
    call.running_mean_tail = slice(buffers.running_mean_tail);
    call.running_var = slice(buffers.running_var);
    call.weights = slice_mut(buffers.weights);
    call.weights_bias = slice_mut(buffers.weights_bias);
    return call;
}

} // namespace detail

/// Folds batch norm into the linear or convolution layer directly before it.
inline void fold_into_previous(const Fold &buffers) {
    const normdrop_fold_call call = detail::fold_call(buffers);
    detail::call(normdrop_fold_into_previous, &call);
}

/// Folds batch norm into the linear or convolution layer after it; `normdrop.h` says when that is exact.
inline void fold_into_next(const Fold &buffers) {
    const normdrop_fold_call call = detail::fold_call(buffers);
    detail::call(normdrop_fold_into_next, &call);
}

/// The values with which a network pads instead of zeros after `fold_into_next`, one per channel of the batch norm. Of
/// `buffers`, only `eps` and the buffers of the batch norm are used.
inline void fold_padding(const Fold &buffers, Span<float> padding) {
    const normdrop_fold_call call = detail::fold_call(buffers);
    detail::call(normdrop_fold_padding, &call, detail::slice_mut(padding));
}

/// The first channel whose max-pooling between a batch norm and the layer after it has to become min-pooling after
/// `fold_into_next`, or the length of `weight` if there is none.
inline std::size_t first_min_pooled(Span<const float> weight) {
    std::size_t channel = 0;
    detail::call(normdrop_first_min_pooled, detail::slice(weight), &channel);
    return channel;
}

/// Turns the statistics of another program into a running mean and a running variance, in place, and returns the `eps` that
/// belongs to them; `normdrop.h` has the forms. `factor` is for sums, `eps` for sums and for an `eps` outside the root.
inline float into_running(StoredForm form, Span<float> mean, Span<float> spread, float eps = 0.0f, float factor = 1.0f) {
    auto stored = detail::new_call<normdrop_stored>();
    stored.form = static_cast<normdrop_stored_form>(form);
    stored.factor = factor;
    stored.eps = eps;
    float running_eps = 0.0f;
    detail::call(normdrop_into_running, &stored, detail::slice_mut(mean), detail::slice_mut(spread), &running_eps);
    return running_eps;
}

/// The version of the library, such as "0.1.0".
inline const char *version() noexcept { return normdrop_version(); }
/// The version of the interface of the library; `NORMDROP_ABI_VERSION` is that of the header.
inline std::uint32_t abi_version() noexcept { return normdrop_abi_version(); }
/// The fastest backend that this CPU and this build can run.
inline Backend detect_backend() noexcept { return static_cast<Backend>(normdrop_backend_detect()); }
/// Whether this CPU and this build can run a backend.
inline bool is_available(Backend backend) noexcept {
    return normdrop_backend_is_available(static_cast<normdrop_backend>(backend)) != 0;
}
/// The name of a backend in lower case.
inline const char *name(Backend backend) noexcept { return normdrop_backend_name(static_cast<normdrop_backend>(backend)); }

} // namespace normdrop

#endif // NORMDROP_HPP

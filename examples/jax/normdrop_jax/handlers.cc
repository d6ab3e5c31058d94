// The calls of normdrop as handlers of XLA's foreign function interface, on the CPU.
//
// Every handler has the same attributes, `Settings`. A buffer of no elements is one that is left out. `normdrop.h` checks all
// lengths and numbers before it reads or writes; a call that it refuses becomes an error of XLA with the same text.
//
// Tensors, `x`, `y`, the residual and their gradients, are of floats or of halves; everything else of a call is of floats.
//
// Results whose type JAX has only with `jax_enable_x64` are passed as pairs of uint32: the seed, and `inv_std`, which is of
// doubles.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <normdrop.hpp>
#include <xla/ffi/api/ffi.h>

namespace ffi = xla::ffi;

namespace {

// The layer, with the shape of the tensor.
struct Settings {
    std::int64_t outer, channels, inner, positions;
    std::int32_t activation, granularity, running_variance, tasks;
    double momentum, p;
    float eps, slope, alpha;
};

using Tensor = ffi::AnyBuffer;
using Floats = ffi::Buffer<ffi::F32>;
using Words = ffi::Buffer<ffi::U32>;
using Bytes = ffi::Buffer<ffi::U8>;

// What a call reads and writes. An empty buffer of XLA may have any address.
normdrop_slice_f32 in(const Floats &buffer) {
    const std::size_t len = buffer.element_count();
    return {len ? buffer.typed_data() : nullptr, len};
}
normdrop_slice_u8 in(const Bytes &buffer) {
    const std::size_t len = buffer.element_count();
    return {len ? buffer.typed_data() : nullptr, len};
}
normdrop_slice_f64 in(const Words &buffer) {
    const std::size_t len = buffer.element_count() / 2;
    return {len ? static_cast<const double *>(buffer.untyped_data()) : nullptr, len};
}
normdrop_slice_mut_f32 out(ffi::Result<Floats> &buffer) {
    const std::size_t len = buffer->element_count();
    return {len ? buffer->typed_data() : nullptr, len};
}
normdrop_slice_mut_u8 out(ffi::Result<Bytes> &buffer) {
    const std::size_t len = buffer->element_count();
    return {len ? buffer->typed_data() : nullptr, len};
}
normdrop_slice_mut_f64 out(ffi::Result<Words> &buffer) {
    const std::size_t len = buffer->element_count() / 2;
    return {len ? static_cast<double *>(buffer->untyped_data()) : nullptr, len};
}

// The type of halves, or 0: floats.
normdrop_element element_of(ffi::DataType type) {
    switch (type) {
    case ffi::F32:
        return 0;
    case ffi::F16:
        return NORMDROP_ELEMENT_F16;
    case ffi::BF16:
        return NORMDROP_ELEMENT_BF16;
    default:
        throw std::invalid_argument("a tensor must be of float32, float16 or bfloat16");
    }
}

// Sets one of the two fields that a call has for a tensor that it reads. One without elements is left out.
void in(const Tensor &buffer, normdrop_slice_f32 &floats, normdrop_halves &halves) {
    const std::size_t len = buffer.element_count();
    const normdrop_element element = element_of(buffer.element_type());
    if (len != 0 && element == 0) {
        floats = {static_cast<const float *>(buffer.untyped_data()), len};
    } else if (len != 0) {
        halves = {static_cast<const std::uint16_t *>(buffer.untyped_data()), len, element};
    }
}
// Asks the system for large pages in memory that is about to be written. XLA allocates the results of each step anew, and Linux fills
// a page with zeros when it is first written: in pages of 4 KiB that takes longer than the call itself. Whole pages of 2 MiB alone are
// asked for. A system that does not have them, or has the pages already, goes on as without.
void advise_large_pages(void *data, std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr std::uintptr_t page = std::uintptr_t{1} << 21;
    const auto start = reinterpret_cast<std::uintptr_t>(data);
    const std::uintptr_t first = (start + page - 1) / page * page, end = (start + bytes) / page * page;
    if (first < end) {
        madvise(reinterpret_cast<void *>(first), end - first, MADV_HUGEPAGE);
    }
#else
    static_cast<void>(data), static_cast<void>(bytes);
#endif
}

// The same of a tensor that it writes.
void out(ffi::Result<Tensor> &buffer, normdrop_slice_mut_f32 &floats, normdrop_halves_mut &halves) {
    const std::size_t len = buffer->element_count();
    const normdrop_element element = element_of(buffer->element_type());
    advise_large_pages(buffer->untyped_data(), buffer->size_bytes());
    if (len != 0 && element == 0) {
        floats = {static_cast<float *>(buffer->untyped_data()), len};
    } else if (len != 0) {
        halves = {static_cast<std::uint16_t *>(buffer->untyped_data()), len, element};
    }
}

// The layer of a call. Without a number of tasks it has as many as XLA has threads: its own wait while a handler runs.
normdrop::Layer layer_of(const Settings &settings, ffi::ThreadPool pool) {
    normdrop::Config config;
    config.activation = static_cast<normdrop::Activation>(settings.activation);
    config.p = settings.p;
    config.eps = settings.eps;
    config.momentum = settings.momentum;
    config.slope = settings.slope;
    config.alpha = settings.alpha;
    config.granularity = static_cast<normdrop::Granularity>(settings.granularity);
    config.running_variance = static_cast<normdrop::RunningVariance>(settings.running_variance);
    const std::int64_t tasks = settings.tasks != 0 ? settings.tasks : pool.num_threads();
    config.tasks = static_cast<std::uint32_t>(std::clamp<std::int64_t>(tasks, 1, 1024));
    const auto size = [](std::int64_t value) { return static_cast<std::size_t>(value); };
    return normdrop::Layer({size(settings.outer), size(settings.channels), size(settings.inner), size(settings.positions)}, config);
}

// Gates are for the activations whose derivative is 0 or 1.
bool has_gates(const Settings &settings) {
    return settings.activation == NORMDROP_ACTIVATION_IDENTITY || settings.activation == NORMDROP_ACTIVATION_RELU;
}

std::uint64_t seed_of(const Words &words) {
    return static_cast<std::uint64_t>(words.typed_data()[0]) << 32 | words.typed_data()[1];
}

// Memory of a thread of XLA, for one call at a time.
normdrop_slice_mut_f64 scratch_of(std::size_t len) {
    static thread_local normdrop::Scratch scratch;
    const normdrop::Span<double> span = scratch.of(len);
    return {span.data(), span.size()};
}

template <class Struct> void call(normdrop_status (*function)(const normdrop_layer *, const Struct *, normdrop_error *),
                                  const normdrop::Layer &layer, const Struct &buffers) {
    normdrop_error error{};
    error.version = NORMDROP_ABI_VERSION;
    const normdrop_status status = function(&layer.c(), &buffers, &error);
    if (status != NORMDROP_STATUS_OK) {
        error.status = status;
        throw normdrop::Error(error);
    }
}

// No exception may pass through XLA.
template <class Body> ffi::Error guarded(Body body) {
    try {
        body();
    } catch (const normdrop::Error &error) {
        return ffi::Error::InvalidArgument(std::string("normdrop: ") + error.what());
    } catch (const std::exception &error) {
        return ffi::Error::Internal(std::string("normdrop: ") + error.what());
    }
    return ffi::Error::Success();
}

// Sets the mask and the gates of a forward call, from a mask that is given, or from a seed, or neither.
//
// `bits` is what the backward call will need, or empty: gates for the activations that have them, otherwise the mask.
template <class Struct> void with_dropout(Struct &buffers, const normdrop::Layer &layer, const Settings &settings, const Words &seed,
                                          const Bytes &mask, ffi::Result<Bytes> &bits) {
    static thread_local std::vector<std::uint8_t> drawn;
    const normdrop_slice_mut_u8 written = out(bits);
    const bool gates = has_gates(settings) && written.len != 0;
    if (gates) {
        buffers.gates = written;
    }
    if (mask.element_count() != 0) {
        buffers.mask = in(mask);
        if (!gates && written.len == buffers.mask.len) {
            std::memcpy(written.values, buffers.mask.values, written.len);
        }
    } else if (seed.element_count() == 2) {
        // Not where the gates will be: with them in its place the forward call takes a tenth longer.
        const bool here = written.len != 0 && !gates;
        if (!here) {
            drawn.resize(layer.lengths().mask);
        }
        const normdrop::Span<std::uint8_t> span = here ? normdrop::Span<std::uint8_t>(written.values, written.len) : drawn;
        layer.fill_mask(seed_of(seed), span);
        buffers.mask = {span.size() ? span.data() : nullptr, span.size()};
    }
}

void copy(const Floats &from, ffi::Result<Floats> &to) {
    if (from.element_count() != 0) {
        std::memcpy(to->typed_data(), from.typed_data(), from.size_bytes());
    }
}

ffi::Error train(ffi::ThreadPool pool, Settings settings, Tensor x, Floats weight, Floats bias, Floats running_mean, Floats running_mean_tail,
                 Floats running_var, Tensor residual, Words seed, Bytes mask, ffi::Result<Tensor> y, ffi::Result<Floats> saved_mean,
                 ffi::Result<Floats> saved_mean_tail, ffi::Result<Words> saved_inv_std, ffi::Result<Floats> new_mean,
                 ffi::Result<Floats> new_mean_tail, ffi::Result<Floats> new_var, ffi::Result<Bytes> bits) {
    return guarded([&] {
        const normdrop::Layer layer = layer_of(settings, pool);
        copy(running_mean, new_mean);
        copy(running_mean_tail, new_mean_tail);
        copy(running_var, new_var);
        normdrop_train_call buffers{};
        buffers.version = NORMDROP_ABI_VERSION;
        buffers.weight = in(weight);
        buffers.bias = in(bias);
        buffers.running_mean = out(new_mean);
        buffers.running_mean_tail = out(new_mean_tail);
        buffers.running_var = out(new_var);
        with_dropout(buffers, layer, settings, seed, mask, bits);
        in(x, buffers.input, buffers.input_half);
        in(residual, buffers.residual, buffers.residual_half);
        out(y, buffers.output, buffers.output_half);
        buffers.saved_mean = out(saved_mean);
        buffers.saved_mean_tail = out(saved_mean_tail);
        buffers.saved_inv_std = out(saved_inv_std);
        buffers.scratch = scratch_of(layer.lengths().train_scratch);
        call(normdrop_train, layer, buffers);
    });
}

ffi::Error eval(ffi::ThreadPool pool, Settings settings, Tensor x, Floats weight, Floats bias, Floats running_mean, Floats running_mean_tail,
                Floats running_var, Tensor residual, Words seed, Bytes mask, ffi::Result<Tensor> y, ffi::Result<Bytes> bits) {
    return guarded([&] {
        const normdrop::Layer layer = layer_of(settings, pool);
        normdrop_eval_call buffers{};
        buffers.version = NORMDROP_ABI_VERSION;
        buffers.weight = in(weight);
        buffers.bias = in(bias);
        buffers.running_mean = in(running_mean);
        buffers.running_mean_tail = in(running_mean_tail);
        buffers.running_var = in(running_var);
        with_dropout(buffers, layer, settings, seed, mask, bits);
        in(x, buffers.input, buffers.input_half);
        in(residual, buffers.residual, buffers.residual_half);
        out(y, buffers.output, buffers.output_half);
        buffers.scratch = scratch_of(layer.lengths().eval_scratch);
        call(normdrop_eval, layer, buffers);
    });
}

// `bits` as the forward call wrote them. `mean` and `mean_tail` are the saved ones, or the running ones if `inv_std` is left out.
ffi::Error backward(ffi::ThreadPool pool, Settings settings, Tensor grad_output, Tensor x, Floats weight, Floats bias, Floats mean, Floats mean_tail,
                    Floats running_var, Words saved_inv_std, Tensor residual, Bytes bits, ffi::Result<Tensor> grad_input,
                    ffi::Result<Floats> grad_weight, ffi::Result<Floats> grad_bias, ffi::Result<Tensor> grad_residual) {
    return guarded([&] {
        const normdrop::Layer layer = layer_of(settings, pool);
        normdrop_backward_call buffers{};
        buffers.version = NORMDROP_ABI_VERSION;
        buffers.weight = in(weight);
        buffers.bias = in(bias);
        if (running_var.element_count() == 0) {
            buffers.statistics = NORMDROP_STATISTICS_BATCH;
            buffers.saved_mean = in(mean);
            buffers.saved_mean_tail = in(mean_tail);
            buffers.saved_inv_std = in(saved_inv_std);
        } else {
            buffers.statistics = NORMDROP_STATISTICS_FIXED;
            buffers.running_mean = in(mean);
            buffers.running_mean_tail = in(mean_tail);
            buffers.running_var = in(running_var);
        }
        (has_gates(settings) ? buffers.gates : buffers.mask) = in(bits);
        in(x, buffers.input, buffers.input_half);
        in(residual, buffers.residual, buffers.residual_half);
        in(grad_output, buffers.grad_output, buffers.grad_output_half);
        out(grad_input, buffers.grad_input, buffers.grad_input_half);
        buffers.grad_weight = out(grad_weight);
        buffers.grad_bias = out(grad_bias);
        out(grad_residual, buffers.grad_residual, buffers.grad_residual_half);
        buffers.scratch = scratch_of(layer.lengths().backward_scratch);
        call(normdrop_backward, layer, buffers);
    });
}

ffi::Error mask(ffi::ThreadPool pool, Settings settings, Words seed, ffi::Result<Bytes> mask) {
    return guarded([&] { layer_of(settings, pool).fill_mask(seed_of(seed), {mask->typed_data(), mask->element_count()}); });
}

} // namespace

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(Settings, ffi::StructMember<std::int64_t>("outer"), ffi::StructMember<std::int64_t>("channels"),
                                      ffi::StructMember<std::int64_t>("inner"), ffi::StructMember<std::int64_t>("positions"),
                                      ffi::StructMember<std::int32_t>("activation"), ffi::StructMember<std::int32_t>("granularity"),
                                      ffi::StructMember<std::int32_t>("running_variance"), ffi::StructMember<std::int32_t>("tasks"),
                                      ffi::StructMember<double>("momentum"), ffi::StructMember<double>("p"),
                                      ffi::StructMember<float>("eps"), ffi::StructMember<float>("slope"),
                                      ffi::StructMember<float>("alpha"));

#pragma GCC visibility push(default)

// x, weight, bias, running mean, tail and variance, residual, seed, mask
XLA_FFI_DEFINE_HANDLER_SYMBOL(normdrop_jax_train, train,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attrs<Settings>()
                                  .Arg<Tensor>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>()
                                  .Arg<Tensor>().Arg<Words>().Arg<Bytes>()
                                  .Ret<Tensor>().Ret<Floats>().Ret<Floats>().Ret<Words>()
                                  .Ret<Floats>().Ret<Floats>().Ret<Floats>().Ret<Bytes>());

// x, weight, bias, running mean, tail and variance, residual, seed, mask
XLA_FFI_DEFINE_HANDLER_SYMBOL(normdrop_jax_eval, eval,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attrs<Settings>()
                                  .Arg<Tensor>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>()
                                  .Arg<Tensor>().Arg<Words>().Arg<Bytes>()
                                  .Ret<Tensor>().Ret<Bytes>());

// dy, x, weight, bias, mean, tail, running variance, inv_std, residual, bits
XLA_FFI_DEFINE_HANDLER_SYMBOL(normdrop_jax_backward, backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attrs<Settings>()
                                  .Arg<Tensor>().Arg<Tensor>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>()
                                  .Arg<Floats>().Arg<Words>().Arg<Tensor>().Arg<Bytes>()
                                  .Ret<Tensor>().Ret<Floats>().Ret<Floats>().Ret<Tensor>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(normdrop_jax_mask, mask, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attrs<Settings>().Arg<Words>().Ret<Bytes>());

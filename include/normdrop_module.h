/*
 * normdrop_module.h: what makes normdrop.h shorter to use, for C99 and later, and for C++11 and later.
 *
 * - A call in one line, in C: NORMDROP_TRAIN(&layer, &error, .input = NORMDROP_ARRAY(x), ...). What is not named is left
 *   out.
 * - A module: a layer with its parameters, running statistics, gradients, mask and scratch in one allocation, from malloc
 *   or from an allocator of the caller's.
 *
 * Everything here is inline and calls the functions of normdrop.h; the library itself allocates nothing.
 */
#ifndef NORMDROP_MODULE_H
#define NORMDROP_MODULE_H

#include <stdlib.h>
#include <string.h>

#include <normdrop.h>

#ifndef __cplusplus
/*
 * The calls with their struct made in place, of C99's designated initialisers: the layer, the error (or NULL), and the
 * fields of the struct that are not left out, one at least. They return what the function returns. A struct is gone at the
 * end of the block; the buffers are the caller's, as ever.
 */
#define NORMDROP_TRAIN(layer, error, ...) \
    normdrop_train((layer), &(normdrop_train_call){.version = NORMDROP_ABI_VERSION, __VA_ARGS__}, (error))
#define NORMDROP_EVAL(layer, error, ...) \
    normdrop_eval((layer), &(normdrop_eval_call){.version = NORMDROP_ABI_VERSION, __VA_ARGS__}, (error))
#define NORMDROP_BACKWARD(layer, error, ...) \
    normdrop_backward((layer), &(normdrop_backward_call){.version = NORMDROP_ABI_VERSION, __VA_ARGS__}, (error))
#define NORMDROP_PREPARE(layer, error, ...) \
    normdrop_prepare((layer), &(normdrop_prepare_call){.version = NORMDROP_ABI_VERSION, __VA_ARGS__}, (error))
/* The same over the valid positions of a padded batch: `masked` points to a normdrop_masked, for example NORMDROP_MASKED. */
#define NORMDROP_TRAIN_MASKED(layer, masked, error, ...) \
    normdrop_train_masked((layer), &(normdrop_train_call){.version = NORMDROP_ABI_VERSION, __VA_ARGS__}, (masked), (error))
#define NORMDROP_EVAL_MASKED(layer, masked, error, ...) \
    normdrop_eval_masked((layer), &(normdrop_eval_call){.version = NORMDROP_ABI_VERSION, __VA_ARGS__}, (masked), (error))
#define NORMDROP_BACKWARD_MASKED(layer, masked, error, ...) \
    normdrop_backward_masked((layer), &(normdrop_backward_call){.version = NORMDROP_ABI_VERSION, __VA_ARGS__}, (masked), (error))
/* Pointers to structs that are made in place: NORMDROP_MASKED(.lengths = NORMDROP_ARRAY(lengths), .workspace = ...), and
 * NORMDROP_NOISE(.law = NORMDROP_NOISE_LAW_UNIFORM, .width = 0.1f) for normdrop_apply_noise and normdrop_noise_apply. */
#define NORMDROP_MASKED(...) (&(normdrop_masked){.version = NORMDROP_ABI_VERSION, __VA_ARGS__})
#define NORMDROP_NOISE(...) (&(normdrop_noise){.version = NORMDROP_ABI_VERSION, __VA_ARGS__})
#endif

/*
 * Where the memory of a module comes from. `allocate` returns `size` bytes at a multiple of 16, or NULL if there are none.
 * `release` gives them back, and is told the size again. `context` is handed to both. Both must be there.
 */
typedef struct normdrop_allocator {
    void *(*allocate)(void *context, size_t size);
    void (*release)(void *context, void *memory, size_t size);
    void *context;
} normdrop_allocator;

/*
 * A layer and its memory. The caller may read every field, and write the values of weight, bias, the running statistics
 * and batches, but not the pointers. Each of the first seven arrays has layer.channels values.
 *
 * A module serves one thread at a time, and batches of one shape.
 *
 * The last four fields are those of normdrop_module_new_prelu, and 0 in other modules.
 */
typedef struct normdrop_module {
    normdrop_layer layer;
    normdrop_lengths lengths;
    /* The parameters, ones and zeros at first, and their gradients, which each backward call overwrites. */
    float *weight, *bias, *grad_weight, *grad_bias;
    /* The running statistics: zeros, zeros and ones at first. The mean is the sum of running_mean and running_mean_tail. */
    float *running_mean, *running_mean_tail, *running_var;
    /* Of the last training call. */
    float *saved_mean, *saved_mean_tail;
    double *saved_inv_std;
    uint8_t *mask;
    double *scratch;
    /* Whether there was a training call. */
    int trained;
    size_t size;
    normdrop_allocator allocator;
    /* The number of slopes of PReLU; they are 0.25 at first, and grad_slope is their gradient. */
    size_t slopes;
    float *slope, *grad_slope;
    /* What went into PReLU, computed again, and its gradient: lengths.elements values. */
    float *before_prelu;
} normdrop_module;

/* With `malloc`, whose memory is at a multiple of 16 wherever a long double or a vector of 16 bytes is. */
static inline void *normdrop_allocate_(void *context, size_t size) {
    (void)context;
    return malloc(size);
}

static inline void normdrop_release_(void *context, void *memory, size_t size) {
    (void)context;
    (void)size;
    free(memory);
}

/* The place of an array of `count` values of `width` bytes behind `*size` bytes; all ones if no memory is that large. */
static inline size_t normdrop_place_(size_t *size, size_t count, size_t width) {
    const size_t none = (size_t)-1;
    size_t place = *size;
    if (place > none - 64 || count > (none - 64 - place) / width) {
        *size = none;
        return none;
    }
    *size = (place + count * width + 15) / 16 * 16;
    return place;
}

static inline float *normdrop_filled_(unsigned char *memory, size_t place, size_t count, float value) {
    float *values = (float *)(void *)(memory + place);
    size_t i;
    for (i = 0; i < count; i++) {
        values[i] = value;
    }
    return values;
}

/* Whether a module has PReLU. */
enum normdrop_slopes_ { NORMDROP_NO_SLOPES_, NORMDROP_ONE_SLOPE_, NORMDROP_SLOPE_PER_CHANNEL_ };

/* normdrop_module_new and normdrop_module_new_prelu. */
static inline normdrop_module *normdrop_module_with_(const normdrop_layer *layer, enum normdrop_slopes_ slopes,
                                                     const normdrop_allocator *allocator, normdrop_error *error) {
    normdrop_allocator with = {normdrop_allocate_, normdrop_release_, NULL};
    normdrop_lengths lengths;
    normdrop_module *module;
    unsigned char *memory;
    size_t size = 0, i, place[15];
    size_t c, slope_count, values;
    memset(&lengths, 0, sizeof lengths);
    lengths.version = NORMDROP_ABI_VERSION;
    if (normdrop_layer_lengths(layer, &lengths, error) != NORMDROP_STATUS_OK) {
        return NULL;
    }
    if (error != NULL) {
        error->status = NORMDROP_STATUS_OK;
    }
    if (allocator != NULL) {
        with = *allocator;
    }
    c = lengths.channels;
    slope_count = slopes == NORMDROP_SLOPE_PER_CHANNEL_ ? c : slopes == NORMDROP_ONE_SLOPE_ ? 1 : 0;
    values = slopes == NORMDROP_NO_SLOPES_ ? 0 : lengths.elements;
    (void)normdrop_place_(&size, 1, sizeof(normdrop_module));
    for (i = 0; i < 9; i++) {
        place[i] = normdrop_place_(&size, c, sizeof(float));
    }
    place[9] = normdrop_place_(&size, c, sizeof(double));
    if (slopes != NORMDROP_NO_SLOPES_) {
        lengths.scratch = lengths.prelu_scratch;
    }
    place[10] = normdrop_place_(&size, lengths.scratch, sizeof(double));
    place[11] = normdrop_place_(&size, lengths.mask, 1);
    place[12] = normdrop_place_(&size, slope_count, sizeof(float));
    place[13] = normdrop_place_(&size, slope_count, sizeof(float));
    place[14] = normdrop_place_(&size, values, sizeof(float));
    memory = size == (size_t)-1 ? NULL : (unsigned char *)with.allocate(with.context, size);
    if (memory == NULL) {
        return NULL;
    }
    memset(memory, 0, size);
    module = (normdrop_module *)(void *)memory;
    module->layer = *layer;
    module->lengths = lengths;
    module->weight = normdrop_filled_(memory, place[0], c, 1.0f);
    module->bias = normdrop_filled_(memory, place[1], c, 0.0f);
    module->grad_weight = normdrop_filled_(memory, place[2], c, 0.0f);
    module->grad_bias = normdrop_filled_(memory, place[3], c, 0.0f);
    module->running_mean = normdrop_filled_(memory, place[4], c, 0.0f);
    module->running_mean_tail = normdrop_filled_(memory, place[5], c, 0.0f);
    module->running_var = normdrop_filled_(memory, place[6], c, 1.0f);
    module->saved_mean = normdrop_filled_(memory, place[7], c, 0.0f);
    module->saved_mean_tail = normdrop_filled_(memory, place[8], c, 0.0f);
    module->saved_inv_std = (double *)(void *)(memory + place[9]);
    module->scratch = (double *)(void *)(memory + place[10]);
    module->mask = memory + place[11];
    if (slopes != NORMDROP_NO_SLOPES_) {
        module->layer.activation = NORMDROP_ACTIVATION_IDENTITY;
        module->slopes = slope_count;
        module->slope = normdrop_filled_(memory, place[12], slope_count, 0.25f);
        module->grad_slope = normdrop_filled_(memory, place[13], slope_count, 0.0f);
        module->before_prelu = (float *)(void *)(memory + place[14]);
    }
    module->size = size;
    module->allocator = with;
    return module;
}

/*
 * A new module for the layer, which is copied. `allocator` may be NULL, for malloc and free; otherwise it is copied, too.
 *
 * Returns NULL if the layer is refused, or if there is no memory: then nothing is held. `error` may be NULL. Otherwise its
 * version must be set, and its status afterwards is that of the layer, and NORMDROP_STATUS_OK if there is no memory.
 * Every size comes from the layer. The one allocation of the module is freed by normdrop_module_free.
 */
static inline normdrop_module *normdrop_module_new(const normdrop_layer *layer, const normdrop_allocator *allocator,
                                                   normdrop_error *error) {
    return normdrop_module_with_(layer, NORMDROP_NO_SLOPES_, allocator, error);
}

/*
 * As normdrop_module_new, with PReLU in the place of the layer's activation: with a slope for each channel if
 * `slope_per_channel` is not 0, otherwise with one for all. normdrop_module_backward writes their gradient to grad_slope.
 * The module has 4 bytes more for each element of a batch.
 */
static inline normdrop_module *normdrop_module_new_prelu(const normdrop_layer *layer, int slope_per_channel,
                                                         const normdrop_allocator *allocator, normdrop_error *error) {
    return normdrop_module_with_(layer, slope_per_channel != 0 ? NORMDROP_SLOPE_PER_CHANNEL_ : NORMDROP_ONE_SLOPE_,
                                 allocator, error);
}

/* Frees a module; NULL is no module, and is left alone. Nothing of the module may be used afterwards. */
static inline void normdrop_module_free(normdrop_module *module) {
    if (module != NULL) {
        const normdrop_allocator allocator = module->allocator;
        allocator.release(allocator.context, module, module->size);
    }
}

/* PReLU of the output of a call that has returned `status`, if the module has it. */
static inline normdrop_status normdrop_activate_(const normdrop_module *module, normdrop_status status, float *y,
                                                 normdrop_error *error) {
    normdrop_slice_f32 slope;
    normdrop_slice_mut_f32 values;
    if (status != NORMDROP_STATUS_OK || module->slope == NULL) {
        return status;
    }
    slope.values = module->slope, slope.len = module->slopes;
    values.values = y, values.len = module->lengths.elements;
    return normdrop_prelu(&module->layer, slope, values, error);
}

/* `y` of the last training call before PReLU, and from it and grad_y the gradients of `y` and of the slopes. */
static inline normdrop_status normdrop_differentiate_prelu_(normdrop_module *module, const float *x, const float *grad_y,
                                                            normdrop_error *error) {
    const size_t c = module->lengths.channels;
    normdrop_apply_call call;
    normdrop_status status;
    normdrop_slice_f32 slope, grad_output;
    memset(&call, 0, sizeof call);
    call.version = NORMDROP_ABI_VERSION;
    call.weight.values = module->weight, call.weight.len = c;
    call.bias.values = module->bias, call.bias.len = c;
    if (module->trained) {
        call.saved_mean.values = module->saved_mean, call.saved_mean.len = c;
        call.saved_mean_tail.values = module->saved_mean_tail, call.saved_mean_tail.len = c;
        call.saved_inv_std.values = module->saved_inv_std, call.saved_inv_std.len = c;
    }
    if (module->layer.p > 0.0) {
        call.mask.values = module->mask, call.mask.len = module->lengths.mask;
    }
    call.input.values = x, call.input.len = module->lengths.elements;
    call.output.values = module->before_prelu, call.output.len = module->lengths.elements;
    call.scratch.values = module->scratch, call.scratch.len = module->lengths.scratch;
    status = normdrop_apply(&module->layer, &call, error);
    if (status != NORMDROP_STATUS_OK) {
        return status;
    }
    slope.values = module->slope, slope.len = module->slopes;
    grad_output.values = grad_y, grad_output.len = module->lengths.elements;
    {
        normdrop_slice_mut_f32 grad_slope;
        grad_slope.values = module->grad_slope, grad_slope.len = module->slopes;
        return normdrop_prelu_gradient(&module->layer, slope, grad_output, call.output, grad_slope, call.scratch, error);
    }
}

/*
 * A training call: x and y have lengths.elements values each. It draws the mask of the seed, moves the running statistics
 * and saves what normdrop_module_backward needs. With a p of 0 the seed does not matter.
 */
static inline normdrop_status normdrop_module_train(normdrop_module *module, uint64_t seed, const float *x, float *y,
                                                    normdrop_error *error) {
    const size_t c = module->lengths.channels;
    normdrop_train_call call;
    normdrop_status status;
    memset(&call, 0, sizeof call);
    call.version = NORMDROP_ABI_VERSION;
    module->trained = 0;
    if (module->layer.p > 0.0) {
        normdrop_slice_mut_u8 mask;
        mask.values = module->mask;
        mask.len = module->lengths.mask;
        status = normdrop_fill_mask(&module->layer, seed, mask, error);
        if (status != NORMDROP_STATUS_OK) {
            return status;
        }
        call.mask.values = module->mask;
        call.mask.len = module->lengths.mask;
    }
    call.weight.values = module->weight, call.weight.len = c;
    call.bias.values = module->bias, call.bias.len = c;
    call.running_mean.values = module->running_mean, call.running_mean.len = c;
    call.running_mean_tail.values = module->running_mean_tail, call.running_mean_tail.len = c;
    call.running_var.values = module->running_var, call.running_var.len = c;
    call.input.values = x, call.input.len = module->lengths.elements;
    call.output.values = y, call.output.len = module->lengths.elements;
    call.saved_mean.values = module->saved_mean, call.saved_mean.len = c;
    call.saved_mean_tail.values = module->saved_mean_tail, call.saved_mean_tail.len = c;
    call.saved_inv_std.values = module->saved_inv_std, call.saved_inv_std.len = c;
    call.scratch.values = module->scratch, call.scratch.len = module->lengths.scratch;
    status = normdrop_activate_(module, normdrop_train(&module->layer, &call, error), y, error);
    module->trained = status == NORMDROP_STATUS_OK;
    return status;
}

/* An evaluation with the running statistics, without dropout. y may be x itself. */
static inline normdrop_status normdrop_module_eval(normdrop_module *module, const float *x, float *y,
                                                   normdrop_error *error) {
    const size_t c = module->lengths.channels;
    normdrop_eval_call call;
    memset(&call, 0, sizeof call);
    call.version = NORMDROP_ABI_VERSION;
    call.weight.values = module->weight, call.weight.len = c;
    call.bias.values = module->bias, call.bias.len = c;
    call.running_mean.values = module->running_mean, call.running_mean.len = c;
    call.running_mean_tail.values = module->running_mean_tail, call.running_mean_tail.len = c;
    call.running_var.values = module->running_var, call.running_var.len = c;
    call.input.values = x, call.input.len = module->lengths.elements;
    call.output.values = y, call.output.len = module->lengths.elements;
    call.scratch.values = module->scratch, call.scratch.len = module->lengths.scratch;
    return normdrop_activate_(module, normdrop_eval(&module->layer, &call, error), y, error);
}

/*
 * The gradients of the last training call, whose x is given again: grad_x (NULL if it is not needed), and those of weight
 * and bias into grad_weight and grad_bias. grad_x may be grad_y itself. Evaluations in between do not matter. Without a
 * training call, or after one that was refused, it is refused: there is no saved_mean.
 */
static inline normdrop_status normdrop_module_backward(normdrop_module *module, const float *x, const float *grad_y,
                                                       float *grad_x, normdrop_error *error) {
    const size_t c = module->lengths.channels;
    normdrop_backward_call call;
    memset(&call, 0, sizeof call);
    call.version = NORMDROP_ABI_VERSION;
    call.statistics = NORMDROP_STATISTICS_BATCH;
    call.weight.values = module->weight, call.weight.len = c;
    call.bias.values = module->bias, call.bias.len = c;
    if (module->trained) {
        call.saved_mean.values = module->saved_mean, call.saved_mean.len = c;
        call.saved_mean_tail.values = module->saved_mean_tail, call.saved_mean_tail.len = c;
        call.saved_inv_std.values = module->saved_inv_std, call.saved_inv_std.len = c;
    }
    if (module->layer.p > 0.0) {
        call.mask.values = module->mask, call.mask.len = module->lengths.mask;
    }
    call.input.values = x, call.input.len = module->lengths.elements;
    if (module->slope != NULL) {
        const normdrop_status status = normdrop_differentiate_prelu_(module, x, grad_y, error);
        if (status != NORMDROP_STATUS_OK) {
            return status;
        }
        grad_y = module->before_prelu;
    }
    call.grad_output.values = grad_y, call.grad_output.len = module->lengths.elements;
    if (grad_x != NULL) {
        call.grad_input.values = grad_x, call.grad_input.len = module->lengths.elements;
    }
    call.grad_weight.values = module->grad_weight, call.grad_weight.len = c;
    call.grad_bias.values = module->grad_bias, call.grad_bias.len = c;
    call.scratch.values = module->scratch, call.scratch.len = module->lengths.scratch;
    return normdrop_backward(&module->layer, &call, error);
}

#ifdef __cplusplus
#include <memory>

namespace normdrop {

struct FreeModule {
    void operator()(normdrop_module *module) const noexcept { normdrop_module_free(module); }
};

/* A module that is freed at the end of its scope: `normdrop::Module module(normdrop_module_new(&layer, nullptr, &error));` */
using Module = std::unique_ptr<normdrop_module, FreeModule>;

} /* namespace normdrop */
#endif

#endif

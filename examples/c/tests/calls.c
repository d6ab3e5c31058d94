/* Every function of normdrop.h, with right and with wrong arguments. Valid C99 and valid C++17: it is compiled as both.
 *
 * Every buffer is an allocation of its own and exactly as long as it must be, outputs and scratch are not initialised, so
 * that the address sanitizer and valgrind see any access too far or too early. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <normdrop.h>

static long checks, failures;

static void check(int holds, const char *what, const char *file, int line) {
    checks++;
    if (!holds) {
        failures++;
        fprintf(stderr, "%s:%d: %s\n", file, line, what);
    }
}

#define CHECK(condition) check((condition) != 0, #condition, __FILE__, __LINE__)

/* ---- buffers ---- */

enum { LIMIT = 256 };

static void *allocations[LIMIT];
static size_t allocated[LIMIT];
static int allocation_count;
static int initialised;

/* Memory of exactly so many bytes, uninitialised, except where all of it will be compared. */
static void *fresh(size_t bytes) {
    void *memory = malloc(bytes != 0 ? bytes : 1);
    if (memory == NULL || allocation_count == LIMIT) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    if (initialised) {
        memset(memory, 0x3A, bytes);
    }
    allocations[allocation_count] = memory;
    allocated[allocation_count++] = bytes;
    return memory;
}

static void free_all(void) {
    while (allocation_count > 0) {
        free(allocations[--allocation_count]);
    }
}

/* The same numbers on every run: between -2 and 2. */
static float number(void) {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / 4194304.0f - 2.0f;
}

static normdrop_slice_mut_f32 empty_f32(size_t len) {
    normdrop_slice_mut_f32 slice;
    slice.values = (float *)fresh(len * sizeof(float));
    slice.len = len;
    return slice;
}

static normdrop_slice_mut_f64 empty_f64(size_t len) {
    normdrop_slice_mut_f64 slice;
    slice.values = (double *)fresh(len * sizeof(double));
    slice.len = len;
    return slice;
}

static normdrop_slice_f32 reading(normdrop_slice_mut_f32 written) {
    normdrop_slice_f32 slice;
    slice.values = written.values;
    slice.len = written.len;
    return slice;
}

static normdrop_slice_f32 reading_f32(normdrop_slice_mut_f32 written) {
    normdrop_slice_f32 slice;
    slice.values = written.values;
    slice.len = written.len;
    return slice;
}

static normdrop_slice_f64 reading_f64(normdrop_slice_mut_f64 written) {
    normdrop_slice_f64 slice;
    slice.values = written.values;
    slice.len = written.len;
    return slice;
}

static normdrop_slice_u8 reading_u8(normdrop_slice_mut_u8 written) {
    normdrop_slice_u8 slice;
    slice.values = written.values;
    slice.len = written.len;
    return slice;
}

static normdrop_slice_mut_f32 random_mut_f32(size_t len) {
    normdrop_slice_mut_f32 slice = empty_f32(len);
    size_t i;
    for (i = 0; i < len; i++) {
        slice.values[i] = number();
    }
    return slice;
}

static normdrop_slice_f32 random_f32(size_t len) { return reading(random_mut_f32(len)); }

/* Variances: between 0.5 and 1.5. */
static normdrop_slice_mut_f32 random_positive(size_t len) {
    normdrop_slice_mut_f32 slice = random_mut_f32(len);
    size_t i;
    for (i = 0; i < len; i++) {
        slice.values[i] = slice.values[i] / 4 + 1;
    }
    return slice;
}

/* What rounding leaves out of means of about 1. */
static normdrop_slice_mut_f32 random_tail(size_t len) {
    normdrop_slice_mut_f32 slice = random_mut_f32(len);
    size_t i;
    for (i = 0; i < len; i++) {
        slice.values[i] /= 1 << 26;
    }
    return slice;
}

/* ---- the layer ---- */

static normdrop_error new_error(void) {
    normdrop_error error;
    memset(&error, 0, sizeof error);
    error.version = NORMDROP_ABI_VERSION;
    return error;
}

static normdrop_layer new_layer(size_t outer, size_t channels, size_t inner, normdrop_activation activation) {
    normdrop_layer layer;
    CHECK(normdrop_layer_init(&layer, NORMDROP_ABI_VERSION) == NORMDROP_STATUS_OK);
    layer.outer = outer;
    layer.channels = channels;
    layer.inner = inner;
    layer.activation = activation;
    layer.slope = 0.25f;
    layer.alpha = 0.75f;
    layer.p = 0.375;
    return layer;
}

static normdrop_lengths lengths_of(const normdrop_layer *layer) {
    normdrop_lengths lengths;
    normdrop_error error = new_error();
    memset(&lengths, 0, sizeof lengths);
    lengths.version = NORMDROP_ABI_VERSION;
    CHECK(normdrop_layer_lengths(layer, &lengths, &error) == NORMDROP_STATUS_OK);
    return lengths;
}

static normdrop_slice_mut_u8 mask_of(const normdrop_layer *layer, uint64_t seed) {
    normdrop_slice_mut_u8 mask;
    mask.len = lengths_of(layer).mask;
    mask.values = (uint8_t *)fresh(mask.len);
    CHECK(normdrop_fill_mask(layer, seed, mask, NULL) == NORMDROP_STATUS_OK);
    return mask;
}

/* ---- the formulas, in double ---- */

/* `parameter` is the slope or the alpha. */
static double act(normdrop_activation activation, double parameter, double z) {
    double inner = 0.7978845608028654 * (z + 0.044715 * z * z * z);
    switch (activation) {
    case NORMDROP_ACTIVATION_RELU: return z > 0 ? z : 0;
    case NORMDROP_ACTIVATION_RELU6: return z > 6 ? 6 : z > 0 ? z : 0;
    case NORMDROP_ACTIVATION_LEAKY_RELU: return z > 0 ? z : parameter * z;
    case NORMDROP_ACTIVATION_HARD_SWISH: return z <= -3 ? 0 : z >= 3 ? z : z * (z + 3) / 6;
    case NORMDROP_ACTIVATION_SIGMOID: return 1 / (1 + exp(-z));
    case NORMDROP_ACTIVATION_TANH: return tanh(z);
    case NORMDROP_ACTIVATION_SILU: return z / (1 + exp(-z));
    case NORMDROP_ACTIVATION_GELU_TANH: return z / 2 * (1 + tanh(inner));
    case NORMDROP_ACTIVATION_GELU: return z / 2 * (1 + erf(z / sqrt(2.0)));
    case NORMDROP_ACTIVATION_ELU: return z > 0 ? z : parameter * (exp(z) - 1);
    case NORMDROP_ACTIVATION_SELU: return 1.0507009873554805 * (z > 0 ? z : 1.6732632423543772 * (exp(z) - 1));
    case NORMDROP_ACTIVATION_MISH: return z * tanh(log(1 + exp(z)));
    case NORMDROP_ACTIVATION_SOFTPLUS: return log(1 + exp(z));
    default: return z;
    }
}

/* Central differences: good to ten digits for functions like these, where they are smooth. */
static double slope_of(normdrop_activation activation, double parameter, double z) {
    double h = 1e-5;
    return (act(activation, parameter, z + h) - act(activation, parameter, z - h)) / (2 * h);
}

static double parameter_of(const normdrop_layer *layer) {
    return layer->activation == NORMDROP_ACTIVATION_ELU ? (double)layer->alpha : (double)layer->slope;
}

static int near(double got, double wanted, double tolerance) {
    return fabs(got - wanted) <= tolerance * (1 + fabs(wanted));
}

static int kept(normdrop_slice_u8 mask, size_t bit) {
    return mask.values == NULL || (mask.values[bit / 8] >> (bit % 8) & 1) == 1;
}

/* ---- right arguments ---- */

static void test_names(void) {
    normdrop_status status;
    normdrop_buffer buffer;
    normdrop_backend backend;
    CHECK(normdrop_abi_version() == NORMDROP_ABI_VERSION);
    CHECK(strchr(normdrop_version(), '.') != NULL);
    for (status = NORMDROP_STATUS_OK; status <= NORMDROP_STATUS_STORED_FORM; status++) {
        CHECK(strlen(normdrop_status_text(status)) > 6);
        CHECK(strcmp(normdrop_status_text(status), "unknown status") != 0);
    }
    CHECK(strcmp(normdrop_status_text(NORMDROP_STATUS_STORED_FORM + 1), "unknown status") == 0);
    CHECK(strcmp(normdrop_status_text(-1), "unknown status") == 0);
    for (buffer = NORMDROP_BUFFER_NONE; buffer <= NORMDROP_BUFFER_GRAD_SLOPE; buffer++) {
        CHECK(strcmp(normdrop_buffer_name(buffer), "unknown buffer") != 0);
    }
    CHECK(strcmp(normdrop_buffer_name(NORMDROP_BUFFER_SAVED_INV_STD), "saved_inv_std") == 0);
    CHECK(strcmp(normdrop_buffer_name(NORMDROP_BUFFER_GRAD_SLOPE + 1), "unknown buffer") == 0);
    backend = normdrop_backend_detect();
    CHECK(backend >= NORMDROP_BACKEND_PORTABLE && backend <= NORMDROP_BACKEND_AVX512);
    CHECK(normdrop_backend_is_available(NORMDROP_BACKEND_FASTEST) == 1);
    CHECK(normdrop_backend_is_available(NORMDROP_BACKEND_PORTABLE) == 1);
    CHECK(normdrop_backend_is_available(backend) == 1);
    CHECK(backend == NORMDROP_BACKEND_AVX512 || normdrop_backend_is_available(backend + 1) == 0);
    CHECK(normdrop_backend_is_available(NORMDROP_BACKEND_AVX512 + 1) == 0);
    CHECK(strcmp(normdrop_backend_name(NORMDROP_BACKEND_FASTEST), "fastest") == 0);
    CHECK(strcmp(normdrop_backend_name(NORMDROP_BACKEND_PORTABLE), "portable") == 0);
    CHECK(strcmp(normdrop_backend_name(NORMDROP_BACKEND_AVX2), "avx2") == 0);
    CHECK(strcmp(normdrop_backend_name(NORMDROP_BACKEND_AVX512), "avx512") == 0);
    CHECK(strcmp(normdrop_backend_name(NORMDROP_BACKEND_AVX512 + 1), "unknown backend") == 0);
}

static void test_layer(void) {
    normdrop_layer layer;
    normdrop_lengths lengths;
    CHECK(normdrop_layer_init(&layer, NORMDROP_ABI_VERSION) == NORMDROP_STATUS_OK);
    CHECK(layer.version == NORMDROP_ABI_VERSION && layer.activation == NORMDROP_ACTIVATION_IDENTITY);
    CHECK(layer.outer == 1 && layer.channels == 1 && layer.inner == 1 && layer.positions == 1);
    CHECK(layer.momentum == 0.1 && layer.p == 0.0 && layer.eps == 1e-5f && layer.slope == 0.01f);
    CHECK(layer.alpha == 1.0f);
    CHECK(layer.granularity == NORMDROP_GRANULARITY_ELEMENT && layer.tasks == 1);
    CHECK(layer.running_variance == NORMDROP_RUNNING_VARIANCE_UNBIASED && layer.backend == NORMDROP_BACKEND_FASTEST);

    layer = new_layer(6, 5, 7, NORMDROP_ACTIVATION_RELU);
    lengths = lengths_of(&layer);
    CHECK(lengths.version == NORMDROP_ABI_VERSION);
    CHECK(lengths.elements == 210 && lengths.channels == 5 && lengths.mask_bits == 210 && lengths.mask == 27);
    CHECK(lengths.moments == 15 && lengths.sums == 10 && lengths.prepared == 32 + 4 * 5 + 2);
    CHECK(lengths.eval_scratch <= lengths.scratch && lengths.train_scratch <= lengths.scratch);
    CHECK(lengths.backward_scratch <= lengths.scratch);
    CHECK(lengths.masked_scratch >= lengths.scratch && lengths.masked_workspace == 4 * 210);
    CHECK(lengths.prelu_scratch >= lengths.scratch);
    layer.granularity = NORMDROP_GRANULARITY_CHANNEL;
    CHECK(lengths_of(&layer).mask_bits == 30 && lengths_of(&layer).mask == 4);
    layer.granularity = NORMDROP_GRANULARITY_SAMPLE;
    CHECK(lengths_of(&layer).mask_bits == 6 && lengths_of(&layer).mask == 1);
    layer.inner = 1;
    layer.positions = 3;
    CHECK(lengths_of(&layer).mask_bits == 2);
    layer.granularity = NORMDROP_GRANULARITY_CHANNEL;
    CHECK(lengths_of(&layer).mask_bits == 10);
    layer.positions = 0;
    CHECK(lengths_of(&layer).mask_bits == 30);
    layer.channels = 0;
    CHECK(lengths_of(&layer).elements == 0);
    CHECK(normdrop_mask_len(0) == 0 && normdrop_mask_len(8) == 1 && normdrop_mask_len(9) == 2);
}

static uint32_t count_words(void *context) {
    uint32_t *count = (uint32_t *)context;
    return ++*count * 2654435761u;
}

static void test_masks(void) {
    normdrop_layer layer = new_layer(40, 25, 10, NORMDROP_ACTIVATION_IDENTITY);
    normdrop_slice_mut_u8 whole = mask_of(&layer, 42), again = mask_of(&layer, 42), other = mask_of(&layer, 43), part;
    normdrop_keep keep;
    size_t i, bits = 0;
    uint32_t words = 0;
    CHECK(memcmp(whole.values, again.values, whole.len) == 0);
    CHECK(memcmp(whole.values, other.values, whole.len) != 0);
    for (i = 0; i < 10000; i++) {
        bits += (size_t)kept(reading_u8(whole), i);
    }
    /* 6250 are expected, with a standard deviation of 48. */
    CHECK(bits > 6000 && bits < 6500);

    part.len = normdrop_mask_len(999);
    part.values = (uint8_t *)fresh(part.len);
    CHECK(normdrop_bernoulli_fill(0.375, 42, 4003, 999, part, NULL) == NORMDROP_STATUS_OK);
    for (i = 0; i < 999; i++) {
        CHECK(kept(reading_u8(part), i) == kept(reading_u8(whole), 4003 + i));
    }
    CHECK(part.values[124] >> 7 == 0);

    keep.version = NORMDROP_ABI_VERSION;
    CHECK(normdrop_bernoulli_keep(0.375, &keep, NULL) == NORMDROP_STATUS_OK);
    CHECK(keep.threshold == 2684354560u && keep.probability == 0.625 && keep.scale == 1.6f);
    CHECK(normdrop_bernoulli_keep(1, &keep, NULL) == NORMDROP_STATUS_OK);
    CHECK(keep.threshold == 0 && keep.probability == 0 && keep.scale == 0);

    CHECK(normdrop_fill_mask_with(&layer, count_words, &words, whole, NULL) == NORMDROP_STATUS_OK);
    CHECK(words > 0 && words % 16 == 0);
    words = 0;
    CHECK(normdrop_bernoulli_fill_with(0.375, count_words, &words, 10000, again, NULL) == NORMDROP_STATUS_OK);
    CHECK(memcmp(whole.values, again.values, whole.len) == 0);
    free_all();
}

static void test_seeds(void) {
    CHECK(normdrop_seed_for(42, 3, 1000, 7) == UINT64_C(0xa1f2a979a5169ad1));
    CHECK(normdrop_seed_for(UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX) == UINT64_C(0xdd2e126981c8585f));
    CHECK(normdrop_seed_for(1, 2, 3, 4) != normdrop_seed_for(1, 3, 2, 4));
    CHECK(normdrop_seed_for(1, 2, 3, 4) != normdrop_seed_for(1, 2, 4, 3));
}

/* Three sequences of at most four positions with two channels, in both orders of memory. */
static void test_padding(void) {
    static const size_t valid[3] = {4, 1, 0};
    normdrop_error error = new_error();
    normdrop_slice_usize lengths;
    size_t order, i;
    lengths.values = valid;
    lengths.len = 3;
    for (order = 0; order < 2; order++) {
        normdrop_layer layer = new_layer(order == 0 ? 12 : 3, 2, order == 0 ? 1 : 4, NORMDROP_ACTIVATION_IDENTITY);
        normdrop_slice_mut_f32 values = empty_f32(24);
        normdrop_slice_mut_u8 mask = mask_of(&layer, 42), drawn = mask_of(&layer, 42);
        layer.positions = order == 0 ? 4 : 1;
        for (i = 0; i < 24; i++) {
            values.values[i] = number();
        }
        CHECK(normdrop_clear_padding(&layer, lengths, values, &error) == NORMDROP_STATUS_OK);
        CHECK(normdrop_drop_padding(&layer, lengths, mask, &error) == NORMDROP_STATUS_OK);
        for (i = 0; i < 24; i++) {
            size_t sample = i / 8, position = order == 0 ? i / 2 % 4 : i % 4;
            int padding = position >= valid[sample];
            CHECK((values.values[i] == 0) == padding);
            CHECK(kept(reading_u8(mask), i) == (kept(reading_u8(drawn), i) && !padding));
        }
        layer.granularity = NORMDROP_GRANULARITY_SAMPLE;
        mask.len = 1;
        CHECK(normdrop_drop_padding(&layer, lengths, mask, &error) == NORMDROP_STATUS_NOT_AN_ELEMENT_MASK);
        CHECK(error.buffer == NORMDROP_BUFFER_MASK);
    }
    free_all();
}

/* Everything that a network keeps of one layer. */
typedef struct {
    normdrop_layer layer;
    normdrop_train_call train;
    normdrop_eval_call eval;
    normdrop_prepare_call prepare;
    normdrop_backward_call backward;
    uint64_t batches;
} problem;

static void make_problem(problem *made, size_t outer, size_t channels, size_t inner, normdrop_activation activation) {
    normdrop_lengths lengths;
    size_t len = outer * channels * inner;
    memset(made, 0, sizeof *made);
    made->layer = new_layer(outer, channels, inner, activation);
    lengths = lengths_of(&made->layer);

    made->train.version = NORMDROP_ABI_VERSION;
    made->train.weight = random_f32(channels);
    made->train.bias = random_f32(channels);
    made->train.running_mean = random_mut_f32(channels);
    made->train.running_mean_tail = random_tail(channels);
    made->train.running_var = random_positive(channels);
    made->train.mask = reading_u8(mask_of(&made->layer, 7));
    made->train.input = random_f32(len);
    made->train.residual = random_f32(len);
    made->train.output = empty_f32(len);
    made->train.saved_mean = empty_f32(channels);
    made->train.saved_mean_tail = empty_f32(channels);
    made->train.saved_inv_std = empty_f64(channels);
    made->train.scratch = empty_f64(lengths.train_scratch);

    made->eval.version = NORMDROP_ABI_VERSION;
    made->eval.weight = made->train.weight;
    made->eval.bias = made->train.bias;
    made->eval.running_mean = reading(made->train.running_mean);
    made->eval.running_mean_tail = reading(made->train.running_mean_tail);
    made->eval.running_var = reading(made->train.running_var);
    made->eval.mask = made->train.mask;
    made->eval.input = made->train.input;
    made->eval.residual = made->train.residual;
    made->eval.output = empty_f32(len);
    made->eval.scratch = empty_f64(lengths.eval_scratch);

    made->prepare.version = NORMDROP_ABI_VERSION;
    made->prepare.weight = made->eval.weight;
    made->prepare.bias = made->eval.bias;
    made->prepare.running_mean = made->eval.running_mean;
    made->prepare.running_mean_tail = made->eval.running_mean_tail;
    made->prepare.running_var = made->eval.running_var;
    made->prepare.prepared = empty_f64(lengths.prepared);

    made->backward.version = NORMDROP_ABI_VERSION;
    made->backward.statistics = NORMDROP_STATISTICS_BATCH;
    made->backward.weight = made->train.weight;
    made->backward.bias = made->train.bias;
    made->backward.saved_mean = reading(made->train.saved_mean);
    made->backward.saved_mean_tail = reading(made->train.saved_mean_tail);
    made->backward.saved_inv_std = reading_f64(made->train.saved_inv_std);
    made->backward.mask = made->train.mask;
    made->backward.input = made->train.input;
    made->backward.residual = made->train.residual;
    made->backward.grad_output = random_f32(len);
    made->backward.grad_input = empty_f32(len);
    made->backward.grad_residual = empty_f32(len);
    made->backward.grad_weight = empty_f32(channels);
    made->backward.grad_bias = empty_f32(channels);
    made->backward.scratch = empty_f64(lengths.backward_scratch);
}

/* What one channel of the layer gives, by the formulas. With fixed statistics `mean` and `var` are given. */
static void check_channel(const problem *of, size_t channel, int batch, const float *y, double mean, double var) {
    const normdrop_layer *layer = &of->layer;
    const normdrop_backward_call *call = &of->backward;
    size_t outer, i, samples = layer->outer * layer->inner;
    double inv_std, d_weight = 0, d_bias = 0, scale = call->mask.values != NULL ? 1 / (1 - layer->p) : 1;
    double weight = call->weight.values != NULL ? (double)call->weight.values[channel] : 1;
    double bias = call->bias.values != NULL ? (double)call->bias.values[channel] : 0;
    int pass;
    inv_std = 1 / sqrt(var + (double)layer->eps);
    /* The sums first, then what is made of them. */
    for (pass = 0; pass < 2; pass++) {
        for (outer = 0; outer < layer->outer; outer++) {
            for (i = 0; i < layer->inner; i++) {
                size_t at = (outer * layer->channels + channel) * layer->inner + i;
                double xhat = ((double)call->input.values[at] - mean) * inv_std;
                double z = xhat * weight + bias + (call->residual.values != NULL ? (double)call->residual.values[at] : 0);
                int keep = kept(call->mask, at);
                double g = keep ? slope_of(layer->activation, parameter_of(layer), z) * scale *
                                      (double)call->grad_output.values[at]
                                : 0;
                if (pass == 0) {
                    d_weight += g * xhat;
                    d_bias += g;
                    CHECK(near((double)y[at], keep ? act(layer->activation, parameter_of(layer), z) * scale : 0, 2e-6));
                } else {
                    double rest = batch ? (d_bias + xhat * d_weight) / (double)samples : 0;
                    CHECK(near((double)call->grad_input.values[at], weight * inv_std * (g - rest), 1e-5));
                    CHECK(near((double)call->grad_residual.values[at], g, 1e-5));
                }
            }
        }
    }
    CHECK(near((double)call->grad_weight.values[channel], d_weight, 1e-5));
    CHECK(near((double)call->grad_bias.values[channel], d_bias, 1e-5));
}

/* Evaluation and its gradients once more, from prepared statistics, in place and not: the same bits. */
static void check_prepared(problem *of, normdrop_slice_mut_f32 values, normdrop_slice_mut_f32 gradient) {
    normdrop_error error = new_error();
    normdrop_eval_call eval;
    normdrop_backward_call backward;
    size_t size = values.len * sizeof(float);
    of->prepare.weight = of->eval.weight;
    of->prepare.bias = of->eval.bias;
    CHECK(normdrop_prepare(&of->layer, &of->prepare, &error) == NORMDROP_STATUS_OK);
    memset(&eval, 0, sizeof eval);
    eval.version = NORMDROP_ABI_VERSION;
    eval.prepared = reading_f64(of->prepare.prepared);
    eval.mask = of->eval.mask;
    eval.input = of->eval.input;
    eval.residual = of->eval.residual;
    eval.output = values;
    eval.scratch = of->eval.scratch;
    memset(values.values, 0x3A, size);
    CHECK(normdrop_eval(&of->layer, &eval, &error) == NORMDROP_STATUS_OK);
    CHECK(memcmp(values.values, of->eval.output.values, size) == 0);
    memcpy(values.values, of->eval.input.values, size);
    eval.input = reading(values);
    CHECK(normdrop_eval(&of->layer, &eval, &error) == NORMDROP_STATUS_OK);
    CHECK(memcmp(values.values, of->eval.output.values, size) == 0);

    backward = of->backward;
    backward.statistics = NORMDROP_STATISTICS_PREPARED;
    backward.prepared = eval.prepared;
    memset(&backward.weight, 0, sizeof backward.weight);
    memset(&backward.bias, 0, sizeof backward.bias);
    memset(&backward.running_mean, 0, sizeof backward.running_mean);
    memset(&backward.running_mean_tail, 0, sizeof backward.running_mean_tail);
    memset(&backward.running_var, 0, sizeof backward.running_var);
    backward.grad_input = gradient;
    CHECK(normdrop_backward(&of->layer, &backward, &error) == NORMDROP_STATUS_OK);
    CHECK(memcmp(gradient.values, of->backward.grad_input.values, gradient.len * sizeof(float)) == 0);

    of->prepare.prepared.values[of->prepare.prepared.len - 1] = 0;
    CHECK(normdrop_eval(&of->layer, &eval, &error) == NORMDROP_STATUS_NOT_PREPARED);
    CHECK(error.buffer == NORMDROP_BUFFER_PREPARED && error.expected == of->layer.channels && error.actual == 0);
    CHECK(normdrop_backward(&of->layer, &backward, NULL) == NORMDROP_STATUS_NOT_PREPARED);
}

/* Training and its gradients, then evaluation and its gradients, each against the formulas. */
static void check_layer(problem *of) {
    normdrop_error error = new_error();
    const normdrop_layer *layer = &of->layer;
    size_t channel, outer, i, channels = layer->channels, samples = layer->outer * layer->inner;
    normdrop_slice_mut_f32 gradient = empty_f32(of->backward.grad_output.len), values = empty_f32(of->eval.input.len);
    normdrop_slice_mut_f32 running_mean = of->train.running_mean, running_var = of->train.running_var;
    normdrop_slice_mut_f32 old_mean = empty_f32(channels), old_var = empty_f32(channels);
    memcpy(old_mean.values, running_mean.values, channels * sizeof(float));
    memcpy(old_var.values, running_var.values, channels * sizeof(float));

    CHECK(normdrop_train(layer, &of->train, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_backward(layer, &of->backward, &error) == NORMDROP_STATUS_OK);
    for (channel = 0; channel < channels; channel++) {
        double mean = 0, var = 0, unbiased;
        for (outer = 0; outer < layer->outer; outer++) {
            for (i = 0; i < layer->inner; i++) {
                mean += (double)of->train.input.values[(outer * channels + channel) * layer->inner + i];
            }
        }
        mean /= (double)samples;
        for (outer = 0; outer < layer->outer; outer++) {
            for (i = 0; i < layer->inner; i++) {
                double off = (double)of->train.input.values[(outer * channels + channel) * layer->inner + i] - mean;
                var += off * off;
            }
        }
        unbiased = var / (double)(samples - 1);
        var /= (double)samples;
        CHECK(near((double)of->train.saved_mean.values[channel], mean, 1e-6));
        CHECK(fabs((double)of->train.saved_mean_tail.values[channel]) < 1e-6);
        CHECK(near(of->train.saved_inv_std.values[channel], 1 / sqrt(var + (double)layer->eps), 1e-6));
        CHECK(near((double)running_mean.values[channel], 0.9 * (double)old_mean.values[channel] + 0.1 * mean, 1e-6));
        CHECK(near((double)running_var.values[channel], 0.9 * (double)old_var.values[channel] + 0.1 * unbiased, 1e-6));
        check_channel(of, channel, 1, of->train.output.values, mean, var);
    }

    /* In place: the same bits. */
    memcpy(gradient.values, of->backward.grad_output.values, gradient.len * sizeof(float));
    {
        normdrop_backward_call in_place = of->backward;
        in_place.grad_output = reading(gradient);
        in_place.grad_input = gradient;
        CHECK(normdrop_backward(layer, &in_place, &error) == NORMDROP_STATUS_OK);
        CHECK(memcmp(gradient.values, of->backward.grad_input.values, gradient.len * sizeof(float)) == 0);
    }

    CHECK(normdrop_eval(layer, &of->eval, &error) == NORMDROP_STATUS_OK);
    of->backward.statistics = NORMDROP_STATISTICS_FIXED;
    of->backward.running_mean = of->eval.running_mean;
    of->backward.running_mean_tail = of->eval.running_mean_tail;
    of->backward.running_var = of->eval.running_var;
    CHECK(normdrop_backward(layer, &of->backward, &error) == NORMDROP_STATUS_OK);
    for (channel = 0; channel < channels; channel++) {
        check_channel(of, channel, 0, of->eval.output.values, (double)running_mean.values[channel],
                      (double)running_var.values[channel]);
    }
    memcpy(values.values, of->eval.input.values, values.len * sizeof(float));
    {
        normdrop_eval_call in_place = of->eval;
        in_place.input = reading(values);
        in_place.output = values;
        CHECK(normdrop_eval(layer, &in_place, &error) == NORMDROP_STATUS_OK);
        CHECK(memcmp(values.values, of->eval.output.values, values.len * sizeof(float)) == 0);
    }
    check_prepared(of, values, gradient);
    CHECK(error.status == NORMDROP_STATUS_OK);
}

/* A layer that drops elements does not train without a mask, and says so. */
static void check_missing_mask(const problem *of) {
    normdrop_error error = new_error();
    CHECK(normdrop_train(&of->layer, &of->train, &error) == NORMDROP_STATUS_MASK_MISSING);
    CHECK(error.buffer == NORMDROP_BUFFER_MASK && error.value == of->layer.p);
    CHECK(normdrop_backward(&of->layer, &of->backward, &error) == NORMDROP_STATUS_MASK_MISSING);
    CHECK(normdrop_eval(&of->layer, &of->eval, NULL) == NORMDROP_STATUS_OK);
}

static void test_layers(void) {
    static const size_t shapes[3][3] = {{6, 5, 7}, {37, 19, 1}, {2, 3, 600}};
    const normdrop_slice_f32 none = {NULL, 0};
    const normdrop_slice_u8 no_mask = {NULL, 0};
    normdrop_activation activation;
    problem whole;
    int shape;
    for (activation = NORMDROP_ACTIVATION_IDENTITY; activation <= NORMDROP_ACTIVATION_SOFTPLUS; activation++) {
        for (shape = 0; shape < 3; shape++) {
            make_problem(&whole, shapes[shape][0], shapes[shape][1], shapes[shape][2], activation);
            check_layer(&whole);
            free_all();
        }
        make_problem(&whole, 8, 6, 5, activation);
        whole.train.weight = whole.eval.weight = whole.backward.weight = none;
        whole.train.bias = whole.eval.bias = whole.backward.bias = none;
        /* What is only read may be the same buffer. */
        whole.train.residual = whole.eval.residual = whole.backward.residual = whole.train.input;
        check_layer(&whole);
        whole.backward.statistics = NORMDROP_STATISTICS_BATCH;
        whole.train.mask = whole.eval.mask = whole.backward.mask = no_mask;
        check_missing_mask(&whole);
        whole.layer.p = 0;
        check_layer(&whole);
        free_all();
    }
}

static void test_options(void) {
    const normdrop_slice_mut_f32 none = {NULL, 0};
    problem whole;
    size_t i;
    normdrop_slice_mut_f32 mean, tail;
    make_problem(&whole, 9, 4, 6, NORMDROP_ACTIVATION_RELU);

    /* The mean of all batches: the first one replaces what was there. */
    whole.train.batches = &whole.batches;
    CHECK(normdrop_train(&whole.layer, &whole.train, NULL) == NORMDROP_STATUS_OK);
    CHECK(whole.batches == 1);
    for (i = 0; i < 4; i++) {
        CHECK(whole.train.running_mean.values[i] == whole.train.saved_mean.values[i]);
        CHECK(whole.train.running_mean_tail.values[i] == whole.train.saved_mean_tail.values[i]);
    }
    whole.train.batches = NULL;

    /* The biased variance, by a momentum of 1. */
    whole.layer.momentum = 1;
    whole.layer.running_variance = NORMDROP_RUNNING_VARIANCE_BIASED;
    CHECK(normdrop_train(&whole.layer, &whole.train, NULL) == NORMDROP_STATUS_OK);
    for (i = 0; i < 4; i++) {
        double inv_std = whole.train.saved_inv_std.values[i];
        CHECK(near((double)whole.train.running_var.values[i], 1 / (inv_std * inv_std) - 1e-5, 1e-5));
    }

    /* No running statistics, no parameter gradients. */
    mean = whole.train.running_mean;
    tail = whole.train.running_mean_tail;
    whole.train.running_mean = none;
    whole.train.running_mean_tail = none;
    whole.train.running_var = none;
    CHECK(normdrop_train(&whole.layer, &whole.train, NULL) == NORMDROP_STATUS_OK);
    whole.backward.grad_weight = none;
    whole.backward.grad_bias = none;
    whole.backward.grad_residual = none;
    CHECK(normdrop_backward(&whole.layer, &whole.backward, NULL) == NORMDROP_STATUS_OK);
    whole.backward.grad_input = none;
    CHECK(normdrop_backward(&whole.layer, &whole.backward, NULL) == NORMDROP_STATUS_OK);
    whole.train.running_mean = mean;
    CHECK(normdrop_train(&whole.layer, &whole.train, NULL) == NORMDROP_STATUS_LENGTH);
    whole.train.running_mean = none;
    whole.train.running_mean_tail = tail;
    CHECK(normdrop_train(&whole.layer, &whole.train, NULL) == NORMDROP_STATUS_LENGTH);
    whole.train.running_mean_tail = none;
    whole.train.batches = &whole.batches;
    CHECK(normdrop_train(&whole.layer, &whole.train, NULL) == NORMDROP_STATUS_LENGTH);
    whole.train.batches = NULL;

    /* Every backend gives the same bits. */
    for (whole.layer.backend = NORMDROP_BACKEND_PORTABLE; whole.layer.backend <= NORMDROP_BACKEND_AVX512;
         whole.layer.backend++) {
        normdrop_train_call on_it = whole.train;
        on_it.output = empty_f32(whole.train.output.len);
        if (normdrop_backend_is_available(whole.layer.backend)) {
            CHECK(normdrop_train(&whole.layer, &on_it, NULL) == NORMDROP_STATUS_OK);
            CHECK(memcmp(on_it.output.values, whole.train.output.values, on_it.output.len * sizeof(float)) == 0);
        } else {
            CHECK(normdrop_train(&whole.layer, &on_it, NULL) == NORMDROP_STATUS_BACKEND);
        }
    }
    whole.layer.backend = NORMDROP_BACKEND_FASTEST;
    free_all();

    /* An empty tensor is no error. */
    make_problem(&whole, 0, 4, 6, NORMDROP_ACTIVATION_RELU);
    CHECK(normdrop_train(&whole.layer, &whole.train, NULL) == NORMDROP_STATUS_OK);
    CHECK(normdrop_eval(&whole.layer, &whole.eval, NULL) == NORMDROP_STATUS_OK);
    free_all();
}

/* The phases of one batch: all their calls, with every buffer. */
typedef struct {
    normdrop_layer layer;
    normdrop_slice_f32 input;
    normdrop_slice_mut_f64 moments, sums, train_scratch;
    normdrop_finish_call finish;
    normdrop_apply_call apply;
    normdrop_reduce_call reduce;
    normdrop_slice_mut_f32 grad_weight, grad_bias;
    normdrop_apply_gradient_call apply_gradient;
} phases;

static void make_phases(phases *made, const problem *of, size_t outer) {
    normdrop_lengths lengths;
    size_t channels = of->layer.channels, inner = of->layer.inner, len = outer * channels * inner;
    memset(made, 0, sizeof *made);
    made->layer = of->layer;
    made->layer.outer = outer;
    lengths = lengths_of(&made->layer);
    made->input = of->train.input;
    made->input.len = len;
    made->moments = empty_f64(lengths.moments);
    made->sums = empty_f64(lengths.sums);
    made->train_scratch = empty_f64(lengths.train_scratch);

    made->finish.version = NORMDROP_ABI_VERSION;
    made->finish.moments = reading_f64(made->moments);
    made->finish.running_mean = random_mut_f32(channels);
    made->finish.running_mean_tail = random_tail(channels);
    made->finish.running_var = random_positive(channels);
    made->finish.saved_mean = empty_f32(channels);
    made->finish.saved_mean_tail = empty_f32(channels);
    made->finish.saved_inv_std = empty_f64(channels);

    made->apply.version = NORMDROP_ABI_VERSION;
    made->apply.weight = of->train.weight;
    made->apply.bias = of->train.bias;
    made->apply.saved_mean = reading(made->finish.saved_mean);
    made->apply.saved_mean_tail = reading(made->finish.saved_mean_tail);
    made->apply.saved_inv_std = reading_f64(made->finish.saved_inv_std);
    made->apply.mask = reading_u8(mask_of(&made->layer, 7));
    made->apply.input = made->input;
    made->apply.residual = of->train.residual;
    made->apply.residual.len = len;
    made->apply.output = empty_f32(len);
    made->apply.scratch = empty_f64(lengths.eval_scratch);

    made->reduce.version = NORMDROP_ABI_VERSION;
    made->reduce.statistics = NORMDROP_STATISTICS_BATCH;
    made->reduce.weight = made->apply.weight;
    made->reduce.bias = made->apply.bias;
    made->reduce.saved_mean = made->apply.saved_mean;
    made->reduce.saved_mean_tail = made->apply.saved_mean_tail;
    made->reduce.saved_inv_std = made->apply.saved_inv_std;
    made->reduce.mask = made->apply.mask;
    made->reduce.input = made->input;
    made->reduce.residual = made->apply.residual;
    made->reduce.grad_output = of->backward.grad_output;
    made->reduce.grad_output.len = len;
    made->reduce.sums = made->sums;
    made->reduce.scratch = empty_f64(lengths.backward_scratch);

    made->grad_weight = empty_f32(channels);
    made->grad_bias = empty_f32(channels);

    made->apply_gradient.version = NORMDROP_ABI_VERSION;
    made->apply_gradient.weight = made->apply.weight;
    made->apply_gradient.bias = made->apply.bias;
    made->apply_gradient.saved_mean = made->apply.saved_mean;
    made->apply_gradient.saved_mean_tail = made->apply.saved_mean_tail;
    made->apply_gradient.saved_inv_std = made->apply.saved_inv_std;
    made->apply_gradient.samples = (double)(of->layer.outer * inner);
    made->apply_gradient.sums = reading_f64(made->sums);
    made->apply_gradient.mask = made->apply.mask;
    made->apply_gradient.input = made->input;
    made->apply_gradient.residual = made->apply.residual;
    made->apply_gradient.grad_output = made->reduce.grad_output;
    made->apply_gradient.grad_input = empty_f32(len);
    made->apply_gradient.grad_residual = empty_f32(len);
    made->apply_gradient.scratch = made->reduce.scratch;
}

/* A buffer for gates, one bit per element, filled with the bytes of a mask if there is one. */
static normdrop_slice_mut_u8 gates_of(size_t elements, const normdrop_slice_u8 *mask) {
    normdrop_slice_mut_u8 gates;
    gates.len = normdrop_mask_len(elements);
    gates.values = (uint8_t *)fresh(gates.len);
    memset(gates.values, 0xA5, gates.len);
    if (mask != NULL) {
        memcpy(gates.values, mask->values, gates.len);
    }
    return gates;
}

static int same_f32(normdrop_slice_mut_f32 one, normdrop_slice_mut_f32 other) {
    return one.len == other.len && memcmp(one.values, other.values, one.len * sizeof(float)) == 0;
}

/* The gradients of a backward call with gates, and without mask, bias and residual, against those of the call as it is. */
static void check_backward_gates(const problem *of, normdrop_slice_mut_u8 gates) {
    const normdrop_slice_f32 none = {NULL, 0};
    const normdrop_slice_u8 no_mask = {NULL, 0};
    const size_t len = of->backward.grad_input.len, channels = of->layer.channels;
    normdrop_backward_call backward = of->backward;
    CHECK(normdrop_backward(&of->layer, &of->backward, NULL) == NORMDROP_STATUS_OK);
    backward.grad_input = empty_f32(len);
    backward.grad_residual = empty_f32(len);
    backward.grad_weight = empty_f32(channels);
    backward.grad_bias = empty_f32(channels);
    backward.gates = reading_u8(gates);
    backward.mask = no_mask;
    backward.bias = backward.residual = none;
    CHECK(normdrop_backward(&of->layer, &backward, NULL) == NORMDROP_STATUS_OK);
    CHECK(same_f32(backward.grad_input, of->backward.grad_input));
    CHECK(same_f32(backward.grad_residual, of->backward.grad_residual));
    CHECK(same_f32(backward.grad_weight, of->backward.grad_weight));
    CHECK(same_f32(backward.grad_bias, of->backward.grad_bias));
}

static void test_gates(void) {
    static const size_t shapes[3][3] = {{6, 5, 7}, {37, 19, 1}, {2, 3, 600}};
    const normdrop_slice_f32 none = {NULL, 0};
    const normdrop_slice_f64 no_doubles = {NULL, 0};
    const normdrop_slice_u8 no_mask = {NULL, 0};
    normdrop_error error = new_error();
    normdrop_activation activation;
    normdrop_slice_mut_u8 gates, over;
    normdrop_slice_mut_f32 y;
    problem of;
    phases parts;
    size_t i, len;
    int shape;
    for (activation = NORMDROP_ACTIVATION_IDENTITY; activation <= NORMDROP_ACTIVATION_RELU; activation++) {
        for (shape = 0; shape < 3; shape++) {
            make_problem(&of, shapes[shape][0], shapes[shape][1], shapes[shape][2], activation);
            len = of.train.output.len;

            /* Beside the mask, and in its place: the same output, and a bit where there is a gradient. */
            CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_OK);
            y = of.train.output;
            of.train.output = empty_f32(len);
            of.train.gates = gates = gates_of(len, NULL);
            CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_OK);
            CHECK(same_f32(of.train.output, y));
            for (i = 0; i < len; i++) {
                int closed = activation == NORMDROP_ACTIVATION_RELU && y.values[i] == 0;
                CHECK(kept(reading_u8(gates), i) == (kept(of.train.mask, i) && !closed));
            }
            of.train.gates = over = gates_of(len, &of.train.mask);
            of.train.mask = reading_u8(over);
            CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_OK);
            CHECK(same_f32(of.train.output, y) && memcmp(over.values, gates.values, gates.len) == 0);
            check_backward_gates(&of, gates);

            /* Fixed statistics. */
            CHECK(normdrop_eval(&of.layer, &of.eval, &error) == NORMDROP_STATUS_OK);
            y = of.eval.output;
            of.eval.output = empty_f32(len);
            of.eval.gates = gates = gates_of(len, &of.eval.mask);
            of.backward.mask = of.eval.mask;
            of.eval.mask = reading_u8(gates);
            CHECK(normdrop_eval(&of.layer, &of.eval, &error) == NORMDROP_STATUS_OK);
            CHECK(same_f32(of.eval.output, y));
            of.backward.statistics = NORMDROP_STATISTICS_FIXED;
            of.backward.running_mean = of.eval.running_mean;
            of.backward.running_mean_tail = of.eval.running_mean_tail;
            of.backward.running_var = of.eval.running_var;
            check_backward_gates(&of, gates);
            free_all();
        }
    }

    /* The phases. */
    make_problem(&of, 6, 5, 7, NORMDROP_ACTIVATION_RELU);
    make_phases(&parts, &of, 6);
    len = parts.input.len;
    CHECK(normdrop_moments(&parts.layer, parts.input, parts.moments, parts.train_scratch, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_finish(&parts.layer, &parts.finish, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_apply(&parts.layer, &parts.apply, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_reduce(&parts.layer, &parts.reduce, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_apply_gradient(&parts.layer, &parts.apply_gradient, &error) == NORMDROP_STATUS_OK);
    {
        phases with = parts;
        with.apply.output = empty_f32(len);
        with.apply.gates = gates = gates_of(len, &parts.apply.mask);
        with.apply.mask = reading_u8(gates);
        CHECK(normdrop_apply(&with.layer, &with.apply, &error) == NORMDROP_STATUS_OK);
        CHECK(same_f32(with.apply.output, parts.apply.output));
        with.reduce.sums = empty_f64(10);
        with.reduce.mask = with.apply_gradient.mask = no_mask;
        with.reduce.residual = with.apply_gradient.residual = with.reduce.bias = with.apply_gradient.bias = none;
        with.reduce.gates = with.apply_gradient.gates = reading_u8(gates);
        CHECK(normdrop_reduce(&with.layer, &with.reduce, &error) == NORMDROP_STATUS_OK);
        CHECK(memcmp(with.reduce.sums.values, parts.sums.values, 10 * sizeof(double)) == 0);
        with.apply_gradient.grad_input = empty_f32(len);
        with.apply_gradient.grad_residual = empty_f32(len);
        CHECK(normdrop_apply_gradient(&with.layer, &with.apply_gradient, &error) == NORMDROP_STATUS_OK);
        CHECK(same_f32(with.apply_gradient.grad_input, parts.apply_gradient.grad_input));
        CHECK(same_f32(with.apply_gradient.grad_residual, parts.apply_gradient.grad_residual));
    }

    /* What a call with gates refuses. */
    of.train.gates = of.eval.gates = gates_of(len, NULL);
    of.layer.activation = NORMDROP_ACTIVATION_GELU;
    CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_NO_GATES);
    CHECK(error.buffer == NORMDROP_BUFFER_GATES);
    of.backward.gates = reading_u8(of.train.gates);
    CHECK(normdrop_backward(&of.layer, &of.backward, NULL) == NORMDROP_STATUS_NO_GATES);
    of.layer.activation = NORMDROP_ACTIVATION_RELU;
    of.eval.mask = no_mask;
    CHECK(normdrop_eval(&of.layer, &of.eval, &error) == NORMDROP_STATUS_MASK_MISSING && error.value == of.layer.p);
    CHECK(normdrop_prepare(&of.layer, &of.prepare, NULL) == NORMDROP_STATUS_OK);
    of.eval.mask = of.train.mask;
    of.eval.prepared = reading_f64(of.prepare.prepared);
    CHECK(normdrop_eval(&of.layer, &of.eval, &error) == NORMDROP_STATUS_NO_GATES);
    of.eval.prepared = no_doubles;
    of.eval.input.values = of.eval.output.values;
    CHECK(normdrop_eval(&of.layer, &of.eval, &error) == NORMDROP_STATUS_OVERLAP);
    CHECK(error.buffer == NORMDROP_BUFFER_OUTPUT && error.other == NORMDROP_BUFFER_INPUT);
    of.train.gates.len--;
    CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_LENGTH);
    CHECK(error.buffer == NORMDROP_BUFFER_GATES && error.expected == of.train.gates.len + 1);
    of.train.gates.len++;
    /* Not the mask itself, but a part of its memory. */
    of.train.mask.values = of.train.gates.values;
    of.train.mask.len = of.train.gates.len - 1;
    CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_OVERLAP);
    CHECK(error.buffer == NORMDROP_BUFFER_GATES && error.other == NORMDROP_BUFFER_MASK);
    of.train.gates.values = (uint8_t *)of.train.output.values;
    CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_OVERLAP);
    of.train.gates.values = NULL;
    CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_NULL && error.buffer == NORMDROP_BUFFER_GATES);
    free_all();

    /* One bit for all elements, in as many bytes as the gates: there is no room for the mask. */
    make_problem(&of, 2, 1, 3, NORMDROP_ACTIVATION_RELU);
    of.layer.granularity = NORMDROP_GRANULARITY_SAMPLE;
    of.train.gates = gates_of(6, NULL);
    CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_OK);
    of.train.mask = reading_u8(of.train.gates);
    CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_NOT_AN_ELEMENT_MASK);
    CHECK(error.buffer == NORMDROP_BUFFER_GATES);
    free_all();
}

static void test_phases(void) {
    problem whole;
    phases all, first, second;
    normdrop_error error = new_error();
    normdrop_lengths lengths;
    size_t i, len, half;
    make_problem(&whole, 8, 5, 9, NORMDROP_ACTIVATION_SILU);
    lengths = lengths_of(&whole.layer);
    len = lengths.elements;
    make_phases(&all, &whole, 8);
    memcpy(all.finish.running_mean.values, whole.train.running_mean.values, 5 * sizeof(float));
    memcpy(all.finish.running_mean_tail.values, whole.train.running_mean_tail.values, 5 * sizeof(float));
    memcpy(all.finish.running_var.values, whole.train.running_var.values, 5 * sizeof(float));
    CHECK(normdrop_train(&whole.layer, &whole.train, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_backward(&whole.layer, &whole.backward, &error) == NORMDROP_STATUS_OK);

    /* One part: the same bits as the whole calls. */
    CHECK(normdrop_moments(&all.layer, all.input, all.moments, all.train_scratch, &error) == NORMDROP_STATUS_OK);
    CHECK(all.moments.values[0] == 72);
    CHECK(normdrop_finish(&all.layer, &all.finish, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_apply(&all.layer, &all.apply, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_reduce(&all.layer, &all.reduce, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_finish_gradients(&all.layer, reading_f64(all.sums), all.grad_weight, all.grad_bias, &error) ==
          NORMDROP_STATUS_OK);
    CHECK(normdrop_apply_gradient(&all.layer, &all.apply_gradient, &error) == NORMDROP_STATUS_OK);
    CHECK(memcmp(all.finish.running_mean.values, whole.train.running_mean.values, 5 * sizeof(float)) == 0);
    CHECK(memcmp(all.finish.running_mean_tail.values, whole.train.running_mean_tail.values, 5 * sizeof(float)) == 0);
    CHECK(memcmp(all.finish.running_var.values, whole.train.running_var.values, 5 * sizeof(float)) == 0);
    CHECK(memcmp(all.finish.saved_inv_std.values, whole.train.saved_inv_std.values, 5 * sizeof(double)) == 0);
    CHECK(memcmp(all.apply.output.values, whole.train.output.values, len * sizeof(float)) == 0);
    CHECK(memcmp(all.apply_gradient.grad_input.values, whole.backward.grad_input.values, len * sizeof(float)) == 0);
    CHECK(memcmp(all.apply_gradient.grad_residual.values, whole.backward.grad_residual.values, len * sizeof(float)) == 0);
    CHECK(memcmp(all.grad_weight.values, whole.backward.grad_weight.values, 5 * sizeof(float)) == 0);
    CHECK(memcmp(all.grad_bias.values, whole.backward.grad_bias.values, 5 * sizeof(float)) == 0);

    /* Two parts: the same statistics and sums, up to rounding. */
    make_phases(&first, &whole, 3);
    make_phases(&second, &whole, 5);
    half = first.input.len;
    second.input.values += half;
    second.reduce.input = second.input;
    second.reduce.residual.values += half;
    second.reduce.grad_output.values += half;
    CHECK(normdrop_moments(&first.layer, first.input, first.moments, first.train_scratch, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_moments(&second.layer, second.input, second.moments, second.train_scratch, &error) ==
          NORMDROP_STATUS_OK);
    CHECK(normdrop_merge_moments(first.moments, reading_f64(second.moments), &error) == NORMDROP_STATUS_OK);
    for (i = 0; i < lengths.moments; i++) {
        CHECK(near(first.moments.values[i], all.moments.values[i], 1e-6));
    }
    first.reduce.mask.values = NULL;
    first.reduce.mask.len = 0;
    second.reduce.mask = all.reduce.mask = first.reduce.mask;
    CHECK(normdrop_reduce(&first.layer, &first.reduce, &error) == NORMDROP_STATUS_MASK_MISSING);
    error = new_error();
    first.layer.p = second.layer.p = all.layer.p = 0;
    first.reduce.saved_mean = second.reduce.saved_mean = all.reduce.saved_mean;
    first.reduce.saved_mean_tail = second.reduce.saved_mean_tail = all.reduce.saved_mean_tail;
    first.reduce.saved_inv_std = second.reduce.saved_inv_std = all.reduce.saved_inv_std;
    CHECK(normdrop_reduce(&all.layer, &all.reduce, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_reduce(&first.layer, &first.reduce, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_reduce(&second.layer, &second.reduce, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_merge_sums(first.sums, reading_f64(second.sums), &error) == NORMDROP_STATUS_OK);
    for (i = 0; i < lengths.sums; i++) {
        CHECK(near(first.sums.values[i], all.sums.values[i], 1e-5));
    }

    /* Past fixed statistics. */
    all.reduce.statistics = NORMDROP_STATISTICS_FIXED;
    all.reduce.running_mean = reading(all.finish.running_mean);
    all.reduce.running_mean_tail = reading(all.finish.running_mean_tail);
    all.reduce.running_var = reading(all.finish.running_var);
    CHECK(normdrop_reduce(&all.layer, &all.reduce, &error) == NORMDROP_STATUS_OK);

    /* The batches are counted. */
    all.finish.batches = &whole.batches;
    CHECK(normdrop_finish(&all.layer, &all.finish, &error) == NORMDROP_STATUS_OK && whole.batches == 1);
    CHECK(all.finish.running_mean.values[0] == all.finish.saved_mean.values[0]);
    CHECK(error.status == NORMDROP_STATUS_OK);
    free_all();
}

/* ---- halves ---- */

static float of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float widened(uint16_t half, normdrop_element element) {
    int exponent = half >> 10 & 31, mantissa = half & 1023;
    double value;
    if (element == NORMDROP_ELEMENT_BF16) {
        return of_bits((uint32_t)half << 16);
    }
    value = exponent == 31 ? (mantissa == 0 ? HUGE_VAL : NAN)
            : exponent == 0 ? ldexp(mantissa, -24)
                            : ldexp(mantissa + 1024, exponent - 25);
    return (float)(half >> 15 ? -value : value);
}

/* Rounded once, to nearest even. */
static uint16_t narrowed(float value, normdrop_element element) {
    uint32_t bits = bits_of(value);
    int exponent;
    double magnitude = fabs((double)value), steps;
    if (element == NORMDROP_ELEMENT_BF16) {
        return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    }
    if (magnitude >= 65520) {
        return (uint16_t)(bits >> 16 & 0x8000) | 0x7C00;
    }
    frexp(magnitude, &exponent);
    exponent = magnitude == 0 || exponent < -13 ? -13 : exponent;
    /* Steps of the numbers of this exponent; the next exponent begins where they end. */
    steps = rint(ldexp(magnitude, 11 - exponent));
    return (uint16_t)((uint32_t)(bits >> 16 & 0x8000) + (uint32_t)((exponent + 13) * 1024) + (uint32_t)steps);
}

/* Random halves, and the same values as floats. Some are subnormal. */
static normdrop_halves random_halves(size_t len, normdrop_element element, normdrop_slice_f32 *floats) {
    normdrop_halves halves;
    uint16_t *bits = (uint16_t *)fresh(len * sizeof(uint16_t));
    normdrop_slice_mut_f32 same = empty_f32(len);
    size_t i;
    for (i = 0; i < len; i++) {
        bits[i] = narrowed(i % 17 == 3 ? ldexpf(number(), -16) : number(), element);
        same.values[i] = widened(bits[i], element);
    }
    halves.values = bits;
    halves.len = len;
    halves.element = element;
    *floats = reading(same);
    return halves;
}

static normdrop_halves_mut empty_halves(size_t len, normdrop_element element) {
    normdrop_halves_mut halves;
    halves.values = (uint16_t *)fresh(len * sizeof(uint16_t));
    halves.len = len;
    halves.element = element;
    return halves;
}

static normdrop_halves reading_halves(normdrop_halves_mut written) {
    normdrop_halves halves;
    halves.values = written.values;
    halves.len = written.len;
    halves.element = written.element;
    return halves;
}

/* Whether halves are floats, each rounded once. */
static int are_rounded(normdrop_halves_mut halves, normdrop_slice_mut_f32 floats) {
    size_t i, same = 0;
    for (i = 0; i < floats.len; i++) {
        same += halves.values[i] == narrowed(floats.values[i], halves.element);
    }
    return halves.len == floats.len && same == floats.len;
}

/* What a call of floats has given must come from one of halves, rounded once: with every tensor of its own type. */
static void check_halves(normdrop_element one, normdrop_element other, size_t outer, size_t channels, size_t inner,
                         normdrop_activation activation) {
    static const normdrop_slice_f32 none = {NULL, 0};
    static const normdrop_slice_mut_f32 none_mut = {NULL, 0};
    problem of, half;
    phases parts, part;
    normdrop_error error = new_error();
    normdrop_slice_mut_f32 mean, tail, var, in_place;
    normdrop_halves_mut values;
    size_t i, len = outer * channels * inner;
    double moments[64], sums[64];
    make_problem(&of, outer, channels, inner, activation);
    half = of;
    half.train.input_half = half.eval.input_half = half.backward.input_half = random_halves(len, one, &of.train.input);
    half.train.residual_half = half.eval.residual_half = half.backward.residual_half = random_halves(len, other, &of.train.residual);
    half.backward.grad_output_half = random_halves(len, one, &of.backward.grad_output);
    of.eval.input = of.backward.input = of.train.input;
    of.eval.residual = of.backward.residual = of.train.residual;
    half.train.input = half.eval.input = half.backward.input = half.backward.grad_output = none;
    half.train.residual = half.eval.residual = half.backward.residual = none;
    half.train.output = half.eval.output = half.backward.grad_input = half.backward.grad_residual = none_mut;
    half.train.output_half = empty_halves(len, other);
    half.eval.output_half = empty_halves(len, one);
    half.backward.grad_input_half = empty_halves(len, other);
    half.backward.grad_residual_half = empty_halves(len, one);
    half.backward.grad_weight = empty_f32(channels);
    half.backward.grad_bias = empty_f32(channels);
    /* The statistics are the same bits. */
    mean = empty_f32(channels), tail = empty_f32(channels), var = empty_f32(channels);
    memcpy(mean.values, of.train.running_mean.values, channels * sizeof(float));
    memcpy(tail.values, of.train.running_mean_tail.values, channels * sizeof(float));
    memcpy(var.values, of.train.running_var.values, channels * sizeof(float));
    half.train.running_mean = mean;
    half.train.running_mean_tail = tail;
    half.train.running_var = var;
    CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_backward(&of.layer, &of.backward, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_train(&half.layer, &half.train, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_backward(&half.layer, &half.backward, &error) == NORMDROP_STATUS_OK);
    CHECK(same_f32(mean, of.train.running_mean) && same_f32(tail, of.train.running_mean_tail));
    CHECK(same_f32(var, of.train.running_var) && are_rounded(half.train.output_half, of.train.output));
    CHECK(are_rounded(half.backward.grad_input_half, of.backward.grad_input));
    CHECK(are_rounded(half.backward.grad_residual_half, of.backward.grad_residual));
    CHECK(same_f32(half.backward.grad_weight, of.backward.grad_weight));
    CHECK(same_f32(half.backward.grad_bias, of.backward.grad_bias));
    /* Backward in place: dy becomes dx. */
    values = empty_halves(len, one);
    memcpy(values.values, half.backward.grad_output_half.values, len * sizeof(uint16_t));
    half.backward.grad_output_half = reading_halves(values);
    half.backward.grad_input_half = values;
    CHECK(normdrop_backward(&half.layer, &half.backward, &error) == NORMDROP_STATUS_OK);
    CHECK(are_rounded(values, of.backward.grad_input));
    half.backward.grad_output_half = random_halves(len, one, &of.backward.grad_output);

    /* Evaluation, into another tensor, in place, and from prepared statistics; into floats: not rounded. */
    CHECK(normdrop_eval(&of.layer, &of.eval, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_eval(&half.layer, &half.eval, &error) == NORMDROP_STATUS_OK);
    CHECK(are_rounded(half.eval.output_half, of.eval.output));
    CHECK(normdrop_prepare(&of.layer, &of.prepare, &error) == NORMDROP_STATUS_OK);
    half.eval.prepared = reading_f64(of.prepare.prepared);
    values = empty_halves(len, one);
    memcpy(values.values, half.eval.input_half.values, len * sizeof(uint16_t));
    half.eval.input_half = reading_halves(values);
    half.eval.output_half = values;
    CHECK(normdrop_eval(&half.layer, &half.eval, &error) == NORMDROP_STATUS_OK);
    CHECK(are_rounded(values, of.eval.output));
    in_place = empty_f32(len);
    half.eval.input_half = half.train.input_half;
    memset(&half.eval.output_half, 0, sizeof half.eval.output_half);
    half.eval.output = in_place;
    CHECK(normdrop_eval(&half.layer, &half.eval, &error) == NORMDROP_STATUS_OK);
    CHECK(same_f32(in_place, of.eval.output));

    /* The phases, of one part. */
    make_phases(&parts, &of, outer);
    part = parts;
    CHECK(channels * 3 <= 64);
    CHECK(normdrop_moments(&parts.layer, of.train.input, parts.moments, parts.train_scratch, &error) == NORMDROP_STATUS_OK);
    memcpy(moments, parts.moments.values, 3 * channels * sizeof(double));
    CHECK(normdrop_moments_half(&parts.layer, half.train.input_half, parts.moments, parts.train_scratch, &error) ==
          NORMDROP_STATUS_OK);
    CHECK(memcmp(moments, parts.moments.values, 3 * channels * sizeof(double)) == 0);
    parts.apply.input = parts.reduce.input = parts.apply_gradient.input = of.train.input;
    parts.apply.residual = parts.reduce.residual = parts.apply_gradient.residual = of.train.residual;
    parts.reduce.grad_output = parts.apply_gradient.grad_output = of.backward.grad_output;
    CHECK(normdrop_finish(&parts.layer, &parts.finish, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_apply(&parts.layer, &parts.apply, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_reduce(&parts.layer, &parts.reduce, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_apply_gradient(&parts.layer, &parts.apply_gradient, &error) == NORMDROP_STATUS_OK);
    memcpy(sums, parts.sums.values, 2 * channels * sizeof(double));
    part.apply.input = part.reduce.input = part.apply_gradient.input = none;
    part.apply.residual = part.reduce.residual = part.apply_gradient.residual = none;
    part.reduce.grad_output = part.apply_gradient.grad_output = none;
    part.apply.output = part.apply_gradient.grad_input = part.apply_gradient.grad_residual = none_mut;
    part.apply.input_half = part.reduce.input_half = part.apply_gradient.input_half = half.train.input_half;
    part.apply.residual_half = part.reduce.residual_half = part.apply_gradient.residual_half = half.train.residual_half;
    part.reduce.grad_output_half = part.apply_gradient.grad_output_half = half.backward.grad_output_half;
    part.apply.output_half = empty_halves(len, other);
    part.apply_gradient.grad_input_half = empty_halves(len, one);
    part.apply_gradient.grad_residual_half = empty_halves(len, other);
    CHECK(normdrop_apply(&part.layer, &part.apply, &error) == NORMDROP_STATUS_OK);
    CHECK(are_rounded(part.apply.output_half, parts.apply.output));
    CHECK(normdrop_reduce(&part.layer, &part.reduce, &error) == NORMDROP_STATUS_OK);
    CHECK(memcmp(sums, part.sums.values, 2 * channels * sizeof(double)) == 0);
    CHECK(normdrop_apply_gradient(&part.layer, &part.apply_gradient, &error) == NORMDROP_STATUS_OK);
    CHECK(are_rounded(part.apply_gradient.grad_input_half, parts.apply_gradient.grad_input));
    CHECK(are_rounded(part.apply_gradient.grad_residual_half, parts.apply_gradient.grad_residual));

    {
        size_t lengths[64];
        normdrop_slice_usize all;
        normdrop_layer rows = new_layer(len, 1, 1, NORMDROP_ACTIVATION_IDENTITY);
        CHECK(outer <= 64);
        rows.outer = outer, rows.channels = channels, rows.inner = inner;
        for (i = 0; i < outer; i++) {
            lengths[i] = i % (inner + 1);
        }
        all.values = lengths;
        all.len = outer;
        memcpy(values.values, half.train.input_half.values, len * sizeof(uint16_t));
        CHECK(normdrop_clear_padding_half(&rows, all, values, &error) == NORMDROP_STATUS_OK);
        for (i = 0; i < len; i++) {
            int padding = i % inner >= lengths[i / (channels * inner)];
            CHECK(values.values[i] == (padding ? 0 : half.train.input_half.values[i]));
        }
    }
    CHECK(error.status == NORMDROP_STATUS_OK);
    free_all();
}

static void test_halves(void) {
    const normdrop_element f16 = NORMDROP_ELEMENT_F16, bf16 = NORMDROP_ELEMENT_BF16;
    CHECK(widened(0x3C00, f16) == 1 && widened(0x0001, f16) == ldexpf(1, -24) && widened(0xFBFF, f16) == -65504);
    CHECK(narrowed(1, f16) == 0x3C00 && narrowed(65519.9f, f16) == 0x7BFF && narrowed(65520, f16) == 0x7C00);
    CHECK(narrowed(ldexpf(3, -25), f16) == 2 && narrowed(ldexpf(1, -25), f16) == 0 && narrowed(2047.5f, f16) == 0x6800);
    CHECK(narrowed(-1.00390625f, bf16) == 0xBF80 && narrowed(1.01171875f, bf16) == 0x3F82);
    check_halves(f16, bf16, 6, 5, 7, NORMDROP_ACTIVATION_RELU);
    check_halves(bf16, f16, 37, 19, 1, NORMDROP_ACTIVATION_SILU);
    check_halves(bf16, bf16, 2, 3, 600, NORMDROP_ACTIVATION_IDENTITY);
    check_halves(f16, f16, 9, 4, 33, NORMDROP_ACTIVATION_GELU);
}

/* ---- noise and alpha dropout ---- */

static normdrop_noise new_noise(normdrop_noise_law law, double p, float width) {
    normdrop_noise noise;
    memset(&noise, 0, sizeof noise);
    noise.version = NORMDROP_ABI_VERSION;
    noise.law = law;
    noise.p = p;
    noise.width = width;
    return noise;
}

static void fill(normdrop_slice_mut_f32 values, float value) {
    size_t i;
    for (i = 0; i < values.len; i++) {
        values.values[i] = value;
    }
}

static void refused_noise(normdrop_noise noise, normdrop_status status, size_t actual, double value) {
    normdrop_slice_mut_f32 values = empty_f32(3);
    normdrop_error error = new_error();
    fill(values, 1);
    CHECK(normdrop_noise_apply(&noise, 1, 0, values, &error) == status);
    CHECK(error.status == status && error.actual == actual && error.value == value);
    CHECK(values.values[0] == 1 && values.values[1] == 1 && values.values[2] == 1);
}

static void test_noise(void) {
    const normdrop_layer layer = new_layer(10, 100, 9, NORMDROP_ACTIVATION_IDENTITY);
    normdrop_slice_mut_f32 factors = empty_f32(9000), values = empty_f32(9000), part;
    normdrop_noise noise = new_noise(NORMDROP_NOISE_LAW_UNIFORM, 0, 1), wrong;
    normdrop_error error = new_error();
    double sum = 0, squares = 0, fourth = 0;
    float most = 0;
    size_t i;

    /* Uniform: 1 + u, with the moments of u and its bounds. */
    fill(factors, 1);
    CHECK(normdrop_noise_apply(&noise, 42, 0, factors, &error) == NORMDROP_STATUS_OK);
    for (i = 0; i < 9000; i++) {
        double u = (double)factors.values[i] - 1;
        sum += u;
        squares += u * u;
        most = fabs(u) > (double)most ? (float)fabs(u) : most;
    }
    CHECK(fabs(sum / 9000) < 0.02 && fabs(squares / 9000 - 1 / 3.0) < 0.015 && most <= 1 && most > 0.99f);
    /* Half as wide: half as far from 1. Any part can be made alone, and the layer makes all of it. */
    noise.width = 0.5f;
    fill(values, 2);
    CHECK(normdrop_apply_noise(&layer, &noise, 42, values, &error) == NORMDROP_STATUS_OK);
    for (i = 0; i < 9000; i++) {
        CHECK(fabs((double)values.values[i] - 2 - ((double)factors.values[i] - 1)) < 4e-7);
    }
    part = empty_f32(777);
    fill(part, 2);
    CHECK(normdrop_noise_apply(&noise, 42, 4090, part, &error) == NORMDROP_STATUS_OK);
    CHECK(memcmp(part.values, values.values + 4090, 777 * sizeof(float)) == 0);
    CHECK(normdrop_noise_apply(&noise, 43, 4090, part, &error) == NORMDROP_STATUS_OK);
    CHECK(part.values[0] != values.values[4090] || part.values[1] != values.values[4091]);

    /* Gaussian: a variance and a fourth moment that no uniform number has. With a p of 0.5, dropout has a width of 1. */
    noise = new_noise(NORMDROP_NOISE_LAW_GAUSSIAN_DROPOUT, 0.5, -1);
    fill(factors, 1);
    CHECK(normdrop_apply_noise(&layer, &noise, 7, factors, &error) == NORMDROP_STATUS_OK);
    for (i = 0, sum = squares = 0; i < 9000; i++) {
        double n = (double)factors.values[i] - 1;
        sum += n;
        squares += n * n;
        fourth += n * n * n * n;
    }
    CHECK(fabs(sum / 9000) < 0.04 && fabs(squares / 9000 - 1) < 0.06 && fabs(fourth / 9000 - 3) < 0.5);
    noise = new_noise(NORMDROP_NOISE_LAW_GAUSSIAN, 7, 1);
    fill(values, 1);
    CHECK(normdrop_noise_apply(&noise, 7, 0, values, &error) == NORMDROP_STATUS_OK);
    CHECK(memcmp(values.values, factors.values, 9000 * sizeof(float)) == 0);
    /* A width of 0 changes nothing. */
    noise.width = 0;
    CHECK(normdrop_noise_apply(&noise, 7, 0, values, &error) == NORMDROP_STATUS_OK);
    CHECK(memcmp(values.values, factors.values, 9000 * sizeof(float)) == 0);
    CHECK(error.status == NORMDROP_STATUS_OK);

    refused_noise(new_noise(NORMDROP_NOISE_LAW_UNIFORM + 1, 0, 0), NORMDROP_STATUS_NOISE_LAW, 3, 0);
    refused_noise(new_noise(NORMDROP_NOISE_LAW_UNIFORM, 0, -0.5f), NORMDROP_STATUS_NOISE_WIDTH, 0, -0.5);
    refused_noise(new_noise(NORMDROP_NOISE_LAW_GAUSSIAN, 0, 3e19f), NORMDROP_STATUS_NOISE_WIDTH, 0, (double)3e19f);
    refused_noise(new_noise(NORMDROP_NOISE_LAW_GAUSSIAN_DROPOUT, 1, 0), NORMDROP_STATUS_NOISE_WIDTH, 0, HUGE_VAL);
    refused_noise(new_noise(NORMDROP_NOISE_LAW_GAUSSIAN_DROPOUT, 1.5, 0), NORMDROP_STATUS_PROBABILITY, 0, 1.5);
    wrong = noise;
    wrong.version = NORMDROP_ABI_VERSION + 1;
    CHECK(normdrop_noise_apply(&wrong, 1, 0, values, &error) == NORMDROP_STATUS_VERSION);
    CHECK(error.buffer == NORMDROP_BUFFER_NOISE);
    CHECK(normdrop_noise_apply(NULL, 1, 0, values, &error) == NORMDROP_STATUS_NULL && error.buffer == NORMDROP_BUFFER_NOISE);
    CHECK(normdrop_apply_noise(&layer, NULL, 1, values, NULL) == NORMDROP_STATUS_NULL);
    free_all();
}

static void test_alpha_dropout(void) {
    normdrop_layer layer = new_layer(6, 5, 7, NORMDROP_ACTIVATION_SELU);
    const double alpha = 1.7580993408473766, p = 0.375;
    const double a = 1 / sqrt((alpha * alpha * p + 1) * (1 - p));
    normdrop_error error = new_error();
    normdrop_slice_u8 mask = reading_u8(mask_of(&layer, 11));
    normdrop_slice_mut_f32 x = random_mut_f32(210), y = empty_f32(210);
    size_t i;
    memcpy(y.values, x.values, 210 * sizeof(float));
    CHECK(normdrop_alpha_dropout(&layer, mask, y, &error) == NORMDROP_STATUS_OK);
    for (i = 0; i < 210; i++) {
        double wanted = kept(mask, i) ? a * (double)x.values[i] + alpha * a * p : -alpha * a * (1 - p);
        CHECK(near((double)y.values[i], wanted, 4e-7));
    }
    memcpy(y.values, x.values, 210 * sizeof(float));
    CHECK(normdrop_alpha_dropout_backward(&layer, mask, y, &error) == NORMDROP_STATUS_OK);
    for (i = 0; i < 210; i++) {
        CHECK(kept(mask, i) ? near((double)y.values[i], a * (double)x.values[i], 4e-7) : y.values[i] == 0);
    }
    /* A bit for each channel of each sample. */
    layer.granularity = NORMDROP_GRANULARITY_CHANNEL;
    mask = reading_u8(mask_of(&layer, 12));
    memcpy(y.values, x.values, 210 * sizeof(float));
    CHECK(normdrop_alpha_dropout(&layer, mask, y, &error) == NORMDROP_STATUS_OK);
    for (i = 0; i < 210; i++) {
        double wanted = kept(mask, i / 7) ? a * (double)x.values[i] + alpha * a * p : -alpha * a * (1 - p);
        CHECK(near((double)y.values[i], wanted, 4e-7));
    }
    CHECK(error.status == NORMDROP_STATUS_OK);
    free_all();
}

static void test_prelu(void) {
    normdrop_layer layer = new_layer(6, 5, 7, NORMDROP_ACTIVATION_IDENTITY);
    normdrop_lengths lengths;
    normdrop_error error = new_error();
    normdrop_slice_mut_f32 x = random_mut_f32(210), dy = random_mut_f32(210), y = empty_f32(210), g = empty_f32(210);
    normdrop_slice_mut_f32 slope = random_mut_f32(5), grad_slope = empty_f32(5), one = empty_f32(1);
    normdrop_slice_mut_f64 scratch;
    double sums[5] = {0, 0, 0, 0, 0}, all = 0;
    size_t i;
    lengths.version = NORMDROP_ABI_VERSION;
    CHECK(normdrop_layer_lengths(&layer, &lengths, NULL) == NORMDROP_STATUS_OK);
    scratch = empty_f64(lengths.prelu_scratch);
    memcpy(y.values, x.values, 210 * sizeof(float));
    memcpy(g.values, x.values, 210 * sizeof(float));
    CHECK(normdrop_prelu(&layer, reading_f32(slope), y, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_prelu_gradient(&layer, reading_f32(slope), reading_f32(dy), g, grad_slope, scratch, &error) ==
          NORMDROP_STATUS_OK);
    for (i = 0; i < 210; i++) {
        size_t channel = i / 7 % 5;
        int below = x.values[i] < 0;
        CHECK(y.values[i] == (below ? slope.values[channel] * x.values[i] : x.values[i]));
        CHECK(g.values[i] == (below ? slope.values[channel] * dy.values[i] : dy.values[i]));
        sums[channel] += below ? (double)x.values[i] * (double)dy.values[i] : 0;
    }
    for (i = 0; i < 5; i++) {
        CHECK(near((double)grad_slope.values[i], sums[i], 1e-5) && sums[i] != 0);
        all += sums[i];
    }
    /* One slope for all channels. */
    one.values[0] = 0.25f;
    memcpy(g.values, x.values, 210 * sizeof(float));
    slope.len = 1;
    CHECK(normdrop_prelu_gradient(&layer, reading_f32(slope), reading_f32(dy), g, one, scratch, &error) == NORMDROP_STATUS_OK);
    CHECK(near((double)one.values[0], all, 1e-5));
    grad_slope.values = NULL;
    grad_slope.len = 0;
    CHECK(normdrop_prelu_gradient(&layer, reading_f32(slope), reading_f32(dy), g, grad_slope, scratch, &error) ==
          NORMDROP_STATUS_OK);
    CHECK(error.status == NORMDROP_STATUS_OK);
    free_all();
}

/* ---- padded batches ---- */

/* The calls over valid positions, with all their buffers. */
typedef struct {
    normdrop_layer layer;
    normdrop_train_call train;
    normdrop_eval_call eval;
    normdrop_backward_call backward;
    normdrop_masked masked;
} masked_calls;

/* Whether position `at` of all positions is valid, and the place of element `channel` of it. */
static int is_valid(const masked_calls *of, size_t at) {
    size_t positions = of->layer.positions * of->layer.inner;
    if (of->masked.validity.values != NULL) {
        return kept(of->masked.validity, at);
    }
    return at % positions < of->masked.lengths.values[at / positions];
}

static size_t place_of(const normdrop_layer *layer, size_t at, size_t channel) {
    return (at / layer->inner * layer->channels + channel) * layer->inner + at % layer->inner;
}

/* NaN in the padding of a tensor. */
static void spoil_padding(const masked_calls *of, normdrop_slice_mut_f32 values) {
    size_t at, channel;
    for (at = 0; at < of->layer.outer * of->layer.inner; at++) {
        for (channel = 0; channel < of->layer.channels && !is_valid(of, at); channel++) {
            values.values[place_of(&of->layer, at, channel)] = (float)NAN;
        }
    }
}

static void make_masked(masked_calls *made, const normdrop_layer *layer, normdrop_masked masked) {
    normdrop_lengths lengths = lengths_of(layer);
    size_t channels = layer->channels, len = lengths.elements;
    normdrop_slice_mut_f32 x = random_mut_f32(len), residual = random_mut_f32(len), dy = random_mut_f32(len);
    memset(made, 0, sizeof *made);
    made->layer = *layer;
    made->masked = masked;
    made->masked.version = NORMDROP_ABI_VERSION;
    made->masked.workspace = empty_f32(lengths.masked_workspace);
    spoil_padding(made, x);
    spoil_padding(made, residual);
    spoil_padding(made, dy);
    made->train.version = made->eval.version = made->backward.version = NORMDROP_ABI_VERSION;
    made->train.weight = made->eval.weight = made->backward.weight = random_f32(channels);
    made->train.bias = made->eval.bias = made->backward.bias = random_f32(channels);
    made->train.running_mean = random_mut_f32(channels);
    made->train.running_mean_tail = random_tail(channels);
    made->train.running_var = random_positive(channels);
    made->train.mask = made->eval.mask = made->backward.mask = reading_u8(mask_of(layer, 7));
    made->train.input = made->eval.input = made->backward.input = reading(x);
    made->train.residual = made->eval.residual = made->backward.residual = reading(residual);
    made->train.output = empty_f32(len);
    made->train.saved_mean = empty_f32(channels);
    made->train.saved_mean_tail = empty_f32(channels);
    made->train.saved_inv_std = empty_f64(channels);
    made->train.scratch = made->eval.scratch = made->backward.scratch = empty_f64(lengths.masked_scratch);
    made->eval.running_mean = reading(made->train.running_mean);
    made->eval.running_mean_tail = reading(made->train.running_mean_tail);
    made->eval.running_var = reading(made->train.running_var);
    made->eval.output = empty_f32(len);
    made->backward.statistics = NORMDROP_STATISTICS_BATCH;
    made->backward.saved_mean = reading(made->train.saved_mean);
    made->backward.saved_mean_tail = reading(made->train.saved_mean_tail);
    made->backward.saved_inv_std = reading_f64(made->train.saved_inv_std);
    made->backward.grad_output = reading(dy);
    made->backward.grad_input = empty_f32(len);
    made->backward.grad_residual = empty_f32(len);
    made->backward.grad_weight = empty_f32(channels);
    made->backward.grad_bias = empty_f32(channels);
}

/* The three calls against the formulas over the valid values alone. */
static void check_masked(masked_calls *of) {
    normdrop_error error = new_error();
    const normdrop_layer *layer = &of->layer;
    const normdrop_backward_call *call = &of->backward;
    size_t channel, at, positions = layer->outer * layer->inner, channels = layer->channels, count = 0;
    double scale = 1 / (1 - layer->p);
    float old_mean[8], old_var[8];
    memcpy(old_mean, of->train.running_mean.values, channels * sizeof(float));
    memcpy(old_var, of->train.running_var.values, channels * sizeof(float));
    CHECK(normdrop_eval_masked(layer, &of->eval, &of->masked, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_train_masked(layer, &of->train, &of->masked, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_backward_masked(layer, &of->backward, &of->masked, &error) == NORMDROP_STATUS_OK);
    for (at = 0; at < positions; at++) {
        count += is_valid(of, at) != 0;
    }
    CHECK(count > 1 && count < positions);
    for (channel = 0; channel < channels; channel++) {
        double weight = (double)call->weight.values[channel], bias = (double)call->bias.values[channel];
        double mean = 0, var = 0, inv_std, d_weight = 0, d_bias = 0;
        double fixed_mean = (double)old_mean[channel];
        double fixed_inv_std = 1 / sqrt((double)old_var[channel] + (double)layer->eps);
        int pass;
        for (at = 0; at < positions; at++) {
            mean += is_valid(of, at) ? (double)call->input.values[place_of(layer, at, channel)] : 0;
        }
        mean /= (double)count;
        for (at = 0; at < positions; at++) {
            double off = (double)call->input.values[place_of(layer, at, channel)] - mean;
            var += is_valid(of, at) ? off * off : 0;
        }
        CHECK(near((double)of->train.running_mean.values[channel], 0.9 * (double)old_mean[channel] + 0.1 * mean, 1e-6));
        CHECK(near((double)of->train.running_var.values[channel],
                   0.9 * (double)old_var[channel] + 0.1 * var / (double)(count - 1), 1e-6));
        var /= (double)count;
        inv_std = 1 / sqrt(var + (double)layer->eps);
        CHECK(near((double)of->train.saved_mean.values[channel], mean, 1e-6));
        CHECK(near(of->train.saved_inv_std.values[channel], inv_std, 1e-6));
        for (pass = 0; pass < 2; pass++) {
            for (at = 0; at < positions; at++) {
                size_t i = place_of(layer, at, channel);
                double x = (double)call->input.values[i], residual = (double)call->residual.values[i];
                double xhat = (x - mean) * inv_std, z = xhat * weight + bias + residual;
                double fixed_z = (x - fixed_mean) * fixed_inv_std * weight + bias + residual, g;
                int keep = kept(call->mask, i);
                if (!is_valid(of, at)) {
                    CHECK(of->train.output.values[i] == 0 && of->eval.output.values[i] == 0);
                    CHECK(call->grad_input.values[i] == 0 && call->grad_residual.values[i] == 0);
                    continue;
                }
                g = keep ? slope_of(layer->activation, 0, z) * scale * (double)call->grad_output.values[i] : 0;
                if (pass == 0) {
                    d_weight += g * xhat;
                    d_bias += g;
                    continue;
                }
                CHECK(near((double)of->train.output.values[i], keep ? act(layer->activation, 0, z) * scale : 0, 2e-6));
                CHECK(near((double)of->eval.output.values[i], keep ? act(layer->activation, 0, fixed_z) * scale : 0, 2e-6));
                CHECK(near((double)call->grad_residual.values[i], g, 1e-5));
                CHECK(near((double)call->grad_input.values[i],
                           weight * inv_std * (g - (d_bias + xhat * d_weight) / (double)count), 1e-5));
            }
        }
        CHECK(near((double)call->grad_weight.values[channel], d_weight, 1e-5));
        CHECK(near((double)call->grad_bias.values[channel], d_bias, 1e-5));
    }
    CHECK(error.status == NORMDROP_STATUS_OK);
}

static void test_masked(void) {
    static const size_t valid[6] = {4, 1, 0, 7, 2, 5};
    static const uint8_t bits[6] = {0x5A, 0xFF, 0x00, 0x13, 0xE7, 0xFF};
    static const size_t all[6] = {7, 7, 7, 7, 7, 7};
    masked_calls of;
    normdrop_masked masked;
    normdrop_error error = new_error();
    normdrop_slice_mut_u8 gates;
    normdrop_slice_mut_f32 other;
    int order, form;
    for (order = 0; order < 2; order++) {
        normdrop_layer layer = new_layer(order == 0 ? 42 : 6, 5, order == 0 ? 1 : 7, NORMDROP_ACTIVATION_SILU);
        layer.positions = order == 0 ? 7 : 1;
        for (form = 0; form < 2; form++) {
            memset(&masked, 0, sizeof masked);
            if (form == 0) {
                masked.lengths.values = valid;
                masked.lengths.len = 6;
            } else {
                masked.validity.values = bits;
                masked.validity.len = 6;
            }
            make_masked(&of, &layer, masked);
            check_masked(&of);
            free_all();
        }
        /* Without padding: the bits of the plain calls. */
        memset(&masked, 0, sizeof masked);
        masked.lengths.values = all;
        masked.lengths.len = 6;
        make_masked(&of, &layer, masked);
        other = of.train.output;
        memset(&of.train.running_mean, 0, sizeof of.train.running_mean);
        memset(&of.train.running_mean_tail, 0, sizeof of.train.running_mean_tail);
        memset(&of.train.running_var, 0, sizeof of.train.running_var);
        CHECK(normdrop_train_masked(&layer, &of.train, &of.masked, &error) == NORMDROP_STATUS_OK);
        of.train.output = empty_f32(210);
        CHECK(normdrop_train(&layer, &of.train, &error) == NORMDROP_STATUS_OK);
        CHECK(same_f32(other, of.train.output));
        free_all();
        /* Gates in the place of the mask: the same gradients. */
        layer.activation = NORMDROP_ACTIVATION_RELU;
        masked.lengths.values = valid;
        make_masked(&of, &layer, masked);
        gates = gates_of(210, NULL);
        of.train.gates = gates;
        CHECK(normdrop_train_masked(&layer, &of.train, &of.masked, &error) == NORMDROP_STATUS_OK);
        CHECK(normdrop_backward_masked(&layer, &of.backward, &of.masked, &error) == NORMDROP_STATUS_OK);
        other = of.backward.grad_input;
        of.backward.grad_input = empty_f32(210);
        of.backward.gates = reading_u8(gates);
        memset(&of.backward.mask, 0, sizeof of.backward.mask);
        memset(&of.backward.residual, 0, sizeof of.backward.residual);
        CHECK(normdrop_backward_masked(&layer, &of.backward, &of.masked, &error) == NORMDROP_STATUS_OK);
        CHECK(same_f32(other, of.backward.grad_input));
        /* The same with fixed statistics, whose gates take the place of the mask. */
        of.backward.statistics = NORMDROP_STATISTICS_FIXED;
        of.backward.running_mean = of.eval.running_mean;
        of.backward.running_mean_tail = of.eval.running_mean_tail;
        of.backward.running_var = of.eval.running_var;
        of.backward.mask = of.eval.mask;
        of.backward.residual = of.eval.residual;
        memset(&of.backward.gates, 0, sizeof of.backward.gates);
        CHECK(normdrop_backward_masked(&layer, &of.backward, &of.masked, &error) == NORMDROP_STATUS_OK);
        memcpy(other.values, of.backward.grad_input.values, 210 * sizeof(float));
        gates = gates_of(210, &of.eval.mask);
        of.eval.gates = gates;
        of.eval.mask = reading_u8(gates);
        CHECK(normdrop_eval_masked(&layer, &of.eval, &of.masked, &error) == NORMDROP_STATUS_OK);
        of.backward.gates = reading_u8(gates);
        memset(&of.backward.mask, 0, sizeof of.backward.mask);
        CHECK(normdrop_backward_masked(&layer, &of.backward, &of.masked, &error) == NORMDROP_STATUS_OK);
        CHECK(same_f32(other, of.backward.grad_input));
        free_all();
    }
    CHECK(error.status == NORMDROP_STATUS_OK);
}

/* `channels` is the number of outputs or inputs: of the dimension that the batch norm has. */
static normdrop_fold_call make_fold(normdrop_weight_order order, size_t outputs, size_t inputs, size_t taps, size_t channels) {
    normdrop_fold_call made;
    memset(&made, 0, sizeof made);
    made.version = NORMDROP_ABI_VERSION;
    made.eps = 1e-3f;
    made.order = order;
    made.outputs = outputs;
    made.inputs = inputs;
    made.taps = taps;
    made.weight = random_f32(channels);
    made.bias = random_f32(channels);
    made.running_mean = random_f32(channels);
    made.running_mean_tail = reading(random_tail(channels));
    made.running_var = reading(random_positive(channels));
    made.weights = random_mut_f32(outputs * inputs * taps);
    made.weights_bias = random_mut_f32(outputs);
    return made;
}

static void test_folds(void) {
    const normdrop_slice_f32 none = {NULL, 0};
    const normdrop_slice_mut_f32 no_bias = {NULL, 0};
    normdrop_fold_call previous = make_fold(NORMDROP_WEIGHT_ORDER_OUT_IN_TAPS, 3, 4, 1, 3);
    normdrop_fold_call next = make_fold(NORMDROP_WEIGHT_ORDER_OUT_IN_TAPS, 3, 4, 2, 4);
    normdrop_error error = new_error();
    normdrop_slice_mut_f32 weights = empty_f32(24), bias = empty_f32(3), spoilt, padding;
    normdrop_fold_call no_weight;
    size_t i, channel, tap;
    memcpy(weights.values, previous.weights.values, 12 * sizeof(float));
    memcpy(bias.values, previous.weights_bias.values, 3 * sizeof(float));
    CHECK(normdrop_fold_into_previous(&previous, &error) == NORMDROP_STATUS_OK);
    for (i = 0; i < 3; i++) {
        double a = (double)previous.weight.values[i] / sqrt((double)previous.running_var.values[i] + (double)previous.eps);
        double shift = ((double)bias.values[i] - (double)previous.running_mean.values[i]) * a;
        CHECK(near((double)previous.weights_bias.values[i], shift + (double)previous.bias.values[i], 1e-6));
        for (tap = 0; tap < 4; tap++) {
            CHECK(near((double)previous.weights.values[4 * i + tap], (double)weights.values[4 * i + tap] * a, 1e-6));
        }
    }
    /* Batch norm maps the padding to 0. The shape and the weights of the call are not used. */
    padding = empty_f32(4);
    next.order = 0;
    CHECK(normdrop_fold_padding(&next, padding, &error) == NORMDROP_STATUS_OK);
    next.order = NORMDROP_WEIGHT_ORDER_OUT_IN_TAPS;
    for (i = 0; i < 4; i++) {
        double a = (double)next.weight.values[i] / sqrt((double)next.running_var.values[i] + (double)next.eps);
        double shift = ((double)padding.values[i] - (double)next.running_mean.values[i]) * a;
        CHECK(near(shift + (double)next.bias.values[i], 0, 1e-6));
    }
    CHECK(normdrop_fold_padding(NULL, padding, &error) == NORMDROP_STATUS_NULL && error.buffer == NORMDROP_BUFFER_CALL);
    padding.len = 3;
    CHECK(normdrop_fold_padding(&next, padding, &error) == NORMDROP_STATUS_LENGTH);
    padding.len = 4;
    next.bias = reading(padding);
    CHECK(normdrop_fold_padding(&next, padding, &error) == NORMDROP_STATUS_OVERLAP);
    next.bias = random_f32(4);
    padding.values = NULL;
    CHECK(normdrop_fold_padding(&next, padding, &error) == NORMDROP_STATUS_NULL);
    CHECK(error.buffer == NORMDROP_BUFFER_FOLD_PADDING);
    padding = empty_f32(4);
    spoilt = random_positive(4);
    spoilt.values[1] = 0;
    no_weight = next;
    no_weight.weight = reading(spoilt);
    CHECK(normdrop_fold_padding(&no_weight, padding, &error) == NORMDROP_STATUS_NOT_FINITE);
    CHECK(error.buffer == NORMDROP_BUFFER_FOLD_PADDING && error.actual == 1);
    memcpy(weights.values, next.weights.values, 24 * sizeof(float));
    memcpy(bias.values, next.weights_bias.values, 3 * sizeof(float));
    CHECK(normdrop_fold_into_next(&next, &error) == NORMDROP_STATUS_OK);
    for (i = 0; i < 3; i++) {
        double shift = (double)bias.values[i];
        for (channel = 0; channel < 4; channel++) {
            double a = (double)next.weight.values[channel] /
                       sqrt((double)next.running_var.values[channel] + (double)next.eps);
            double c = (double)next.bias.values[channel] - (double)next.running_mean.values[channel] * a;
            for (tap = 0; tap < 2; tap++) {
                size_t at = (4 * i + channel) * 2 + tap;
                shift += (double)weights.values[at] * c;
                CHECK(near((double)next.weights.values[at], (double)weights.values[at] * a, 1e-6));
            }
        }
        CHECK(near((double)next.weights_bias.values[i], shift, 1e-6));
    }
    next.weight = none;
    next.bias = none;
    CHECK(normdrop_fold_into_next(&next, &error) == NORMDROP_STATUS_OK);

    next.weights_bias = no_bias;
    CHECK(normdrop_fold_into_next(&next, &error) == NORMDROP_STATUS_MISSING_BIAS);
    CHECK(error.status == NORMDROP_STATUS_MISSING_BIAS && error.buffer == NORMDROP_BUFFER_FOLD_BIAS && error.actual == 0);
    spoilt = random_positive(4);
    spoilt.values[2] = (float)HUGE_VAL;
    next.bias = reading(spoilt);
    CHECK(normdrop_fold_into_next(&next, &error) == NORMDROP_STATUS_NOT_FINITE);
    CHECK(error.buffer == NORMDROP_BUFFER_BIAS && error.actual == 2);
    next.bias = none;
    spoilt.values[2] = -1;
    next.running_var = reading(spoilt);
    CHECK(normdrop_fold_into_next(&next, &error) == NORMDROP_STATUS_VARIANCE);
    CHECK(error.buffer == NORMDROP_BUFFER_RUNNING_VAR && error.actual == 2 && error.value == -1);
    previous.eps = -1;
    CHECK(normdrop_fold_into_previous(&previous, &error) == NORMDROP_STATUS_EPS && error.value == -1);
    previous.outputs = SIZE_MAX;
    CHECK(normdrop_fold_into_previous(&previous, &error) == NORMDROP_STATUS_SHAPE);
    free_all();
}

static normdrop_stored new_stored(normdrop_stored_form form, float factor, float eps) {
    normdrop_stored made;
    made.version = NORMDROP_ABI_VERSION;
    made.form = form;
    made.factor = factor;
    made.eps = eps;
    return made;
}

/* Statistics as other programs store them, and the channels that max-pooling stands in the way of. */
static void test_stored(void) {
    static const struct {
        normdrop_stored_form form;
        float factor, eps, mean, spread, running_mean, running_var, running_eps;
    } cases[] = {
        {NORMDROP_STORED_FORM_EPS_OUTSIDE, 7, 0.5f, 3, 4, 3, 6.25f, 0},
        {NORMDROP_STORED_FORM_DEVIATION, 7, -1, 3, 4, 3, 16, 0},
        {NORMDROP_STORED_FORM_INVERSE_DEVIATION, 7, -1, 3, 4, 3, 0.0625f, 0},
        {NORMDROP_STORED_FORM_SUMS, 8, 1e-3f, 3, 4, 0.375f, 0.5f, 1e-3f},
    };
    normdrop_slice_mut_f32 mean = empty_f32(2), spread = empty_f32(2), weight = empty_f32(3);
    normdrop_slice_f32 left_out = {NULL, 0};
    normdrop_error error = new_error();
    normdrop_stored stored;
    float eps = 7;
    size_t i, channel = 7;
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        stored = new_stored(cases[i].form, cases[i].factor, cases[i].eps);
        mean.values[0] = mean.values[1] = cases[i].mean;
        spread.values[0] = spread.values[1] = cases[i].spread;
        CHECK(normdrop_into_running(&stored, mean, spread, &eps, &error) == NORMDROP_STATUS_OK);
        CHECK(mean.values[1] == cases[i].running_mean && spread.values[1] == cases[i].running_var);
        CHECK(eps == cases[i].running_eps);
    }
    /* What is refused writes nothing. */
    eps = 7;
    mean.values[0] = 3;
    spread.values[0] = 1;
    spread.values[1] = -1;
    stored = new_stored(NORMDROP_STORED_FORM_DEVIATION, 0, 0);
    CHECK(normdrop_into_running(&stored, mean, spread, &eps, &error) == NORMDROP_STATUS_VARIANCE);
    CHECK(error.buffer == NORMDROP_BUFFER_RUNNING_VAR && error.actual == 1 && error.value == -1);
    stored = new_stored(NORMDROP_STORED_FORM_SUMS, (float)HUGE_VAL, 0);
    CHECK(normdrop_into_running(&stored, mean, spread, &eps, &error) == NORMDROP_STATUS_NOT_FINITE);
    stored = new_stored(NORMDROP_STORED_FORM_SUMS, 1, -1);
    CHECK(normdrop_into_running(&stored, mean, spread, &eps, &error) == NORMDROP_STATUS_EPS && error.value == -1);
    stored = new_stored(NORMDROP_STORED_FORM_SUMS + 1, 1, 0);
    CHECK(normdrop_into_running(&stored, mean, spread, &eps, &error) == NORMDROP_STATUS_STORED_FORM);
    CHECK(error.buffer == NORMDROP_BUFFER_CALL && error.actual == NORMDROP_STORED_FORM_SUMS + 1);
    stored = new_stored(0, 1, 0);
    CHECK(normdrop_into_running(&stored, mean, spread, &eps, NULL) == NORMDROP_STATUS_STORED_FORM);
    stored = new_stored(NORMDROP_STORED_FORM_SUMS, 1, 0);
    CHECK(normdrop_into_running(NULL, mean, spread, &eps, &error) == NORMDROP_STATUS_NULL && error.buffer == NORMDROP_BUFFER_CALL);
    CHECK(normdrop_into_running(&stored, mean, spread, NULL, &error) == NORMDROP_STATUS_NULL);
    CHECK(error.buffer == NORMDROP_BUFFER_RESULT);
    CHECK(normdrop_into_running(&stored, mean, mean, &eps, &error) == NORMDROP_STATUS_OVERLAP);
    CHECK(normdrop_into_running(&stored, mean, spread, mean.values, &error) == NORMDROP_STATUS_OVERLAP);
    spread.len = 1;
    CHECK(normdrop_into_running(&stored, mean, spread, &eps, &error) == NORMDROP_STATUS_LENGTH);
    CHECK(error.buffer == NORMDROP_BUFFER_RUNNING_VAR && error.expected == 2 && error.actual == 1);
    stored.version = 0;
    CHECK(normdrop_into_running(&stored, mean, spread, &eps, &error) == NORMDROP_STATUS_VERSION);
    CHECK(mean.values[0] == 3 && spread.values[0] == 1 && spread.values[1] == -1 && eps == 7);

    weight.values[0] = 1;
    weight.values[1] = weight.values[2] = -0.0f;
    CHECK(normdrop_first_min_pooled(reading(weight), &channel, &error) == NORMDROP_STATUS_OK && channel == 3);
    weight.values[2] = -1e-40f;
    CHECK(normdrop_first_min_pooled(reading(weight), &channel, NULL) == NORMDROP_STATUS_OK && channel == 2);
    CHECK(normdrop_first_min_pooled(left_out, &channel, NULL) == NORMDROP_STATUS_OK && channel == 0);
    CHECK(normdrop_first_min_pooled(reading(weight), NULL, &error) == NORMDROP_STATUS_NULL);
    CHECK(error.buffer == NORMDROP_BUFFER_RESULT);
    left_out.len = 1;
    CHECK(normdrop_first_min_pooled(left_out, &channel, &error) == NORMDROP_STATUS_NULL && error.buffer == NORMDROP_BUFFER_WEIGHT);
    free_all();
}

/* Which output and which input a weight has, in each order, with two groups. */
static void test_weight_orders(void) {
    enum { OUTPUTS = 4, INPUTS = 6, TAPS = 3, GROUPS = 2, O = OUTPUTS / GROUPS, I = INPUTS / GROUPS, LEN = OUTPUTS * I * TAPS };
    normdrop_weight_order order;
    normdrop_error error = new_error();
    for (order = NORMDROP_WEIGHT_ORDER_OUT_IN_TAPS; order <= NORMDROP_WEIGHT_ORDER_TAPS_OUT_IN; order++) {
        float scales[INPUTS], zeros[INPUTS] = {0}, ones[INPUTS], weights[2][LEN];
        normdrop_fold_call call;
        size_t o, i, t, k;
        for (i = 0; i < INPUTS; i++) {
            scales[i] = (float)(i + 2);
            ones[i] = 1;
        }
        for (k = 0; k < LEN; k++) {
            weights[0][k] = weights[1][k] = 1;
        }
        memset(&call, 0, sizeof call);
        call.version = NORMDROP_ABI_VERSION;
        call.order = order;
        call.outputs = OUTPUTS;
        call.inputs = INPUTS;
        call.taps = TAPS;
        call.groups = GROUPS;
        for (k = 0; k < 2; k++) {
            size_t channels = k == 0 ? OUTPUTS : INPUTS;
            call.weight.values = scales;
            call.running_mean.values = zeros;
            call.running_var.values = ones;
            call.weight.len = call.running_mean.len = call.running_var.len = channels;
            call.weights.values = weights[k];
            call.weights.len = LEN;
            CHECK((k == 0 ? normdrop_fold_into_previous : normdrop_fold_into_next)(&call, &error) == NORMDROP_STATUS_OK);
        }
        for (o = 0; o < OUTPUTS; o++) {
            for (i = 0; i < I; i++) {
                for (t = 0; t < TAPS; t++) {
                    size_t input = o / O * I + i, of = o % O, at = 0;
                    switch (order) {
                    case NORMDROP_WEIGHT_ORDER_OUT_IN_TAPS: at = (o * I + i) * TAPS + t; break;
                    case NORMDROP_WEIGHT_ORDER_OUT_TAPS_IN: at = (o * TAPS + t) * I + i; break;
                    case NORMDROP_WEIGHT_ORDER_IN_OUT_TAPS: at = (input * O + of) * TAPS + t; break;
                    case NORMDROP_WEIGHT_ORDER_IN_TAPS_OUT: at = (input * TAPS + t) * O + of; break;
                    case NORMDROP_WEIGHT_ORDER_TAPS_IN_OUT: at = (t * I + i) * OUTPUTS + o; break;
                    case NORMDROP_WEIGHT_ORDER_TAPS_OUT_IN: at = (t * O + of) * INPUTS + input; break;
                    }
                    CHECK((int)weights[0][at] == (int)o + 2 && (int)weights[1][at] == (int)input + 2);
                }
            }
        }
        call.groups = 4;
        CHECK(normdrop_fold_into_next(&call, &error) == NORMDROP_STATUS_GROUPS);
        CHECK(error.buffer == NORMDROP_BUFFER_CALL && error.actual == 4);
        call.order = order < 4 ? 0 : NORMDROP_WEIGHT_ORDER_TAPS_OUT_IN + 1;
        CHECK(normdrop_fold_into_next(&call, &error) == NORMDROP_STATUS_WEIGHT_ORDER);
        CHECK(error.buffer == NORMDROP_BUFFER_CALL && error.actual == call.order);
    }
}

/* ---- wrong arguments: layers ---- */

static void refused_layer(normdrop_layer layer, normdrop_status status, size_t actual, double value) {
    normdrop_lengths lengths;
    normdrop_error error = new_error();
    memset(&lengths, 0, sizeof lengths);
    lengths.version = NORMDROP_ABI_VERSION;
    CHECK(normdrop_layer_lengths(&layer, &lengths, &error) == status);
    CHECK(error.version == NORMDROP_ABI_VERSION && error.status == status);
    CHECK(error.actual == actual);
    CHECK(error.value == value || (isnan(error.value) && isnan(value)));
    CHECK(lengths.elements == 0);
    CHECK(normdrop_layer_lengths(&layer, &lengths, NULL) == status);
}

static void test_wrong_layers(void) {
    normdrop_layer right = new_layer(6, 5, 1, NORMDROP_ACTIVATION_LEAKY_RELU), layer;
    normdrop_lengths lengths;
    normdrop_keep keep;
    normdrop_error error = new_error();
    double memory[sizeof(normdrop_lengths) / sizeof(double) + 2];
    problem whole;

#define REFUSED(change, status, actual, value) (layer = right, change, refused_layer(layer, status, actual, value))
    REFUSED(layer.version = 0, NORMDROP_STATUS_VERSION, 0, 0);
    REFUSED(layer.version = NORMDROP_ABI_VERSION + 1, NORMDROP_STATUS_VERSION, NORMDROP_ABI_VERSION + 1, 0);
    REFUSED(layer.activation = 14, NORMDROP_STATUS_ACTIVATION, 14, 0);
    REFUSED(layer.granularity = 3, NORMDROP_STATUS_GRANULARITY, 3, 0);
    REFUSED(layer.running_variance = 2, NORMDROP_STATUS_RUNNING_VARIANCE, 2, 0);
    REFUSED(layer.backend = 4, NORMDROP_STATUS_BACKEND, 4, 0);
    REFUSED(layer.positions = 4, NORMDROP_STATUS_POSITIONS, 4, 0);
    REFUSED((layer.positions = 2, layer.inner = 2), NORMDROP_STATUS_POSITIONS, 2, 0);
    REFUSED((layer.outer = SIZE_MAX, layer.inner = 2), NORMDROP_STATUS_SHAPE, 5, 0);
    REFUSED((layer.outer = SIZE_MAX / 2, layer.channels = 3), NORMDROP_STATUS_SHAPE, 3, 0);
    REFUSED(layer.slope = HUGE_VALF, NORMDROP_STATUS_SLOPE, 0, HUGE_VAL);
    REFUSED((layer.activation = NORMDROP_ACTIVATION_ELU, layer.alpha = HUGE_VALF), NORMDROP_STATUS_ALPHA, 0, HUGE_VAL);
    REFUSED(layer.eps = -1, NORMDROP_STATUS_EPS, 0, -1);
    REFUSED(layer.eps = HUGE_VALF, NORMDROP_STATUS_EPS, 0, HUGE_VAL);
    REFUSED(layer.p = -0.5, NORMDROP_STATUS_PROBABILITY, 0, -0.5);
    REFUSED(layer.p = 1.5, NORMDROP_STATUS_PROBABILITY, 0, 1.5);
    layer = right;
    layer.tasks = 2;
    lengths.version = NORMDROP_ABI_VERSION;
    /* A library with threads has them; one without says so. */
    CHECK(normdrop_layer_lengths(&layer, &lengths, &error) == NORMDROP_STATUS_OK ||
          (error.status == NORMDROP_STATUS_TASKS && error.actual == 2));

    CHECK(normdrop_layer_init(NULL, NORMDROP_ABI_VERSION) == NORMDROP_STATUS_NULL);
    CHECK(normdrop_layer_init(&layer, NORMDROP_ABI_VERSION + 1) == NORMDROP_STATUS_VERSION);
    CHECK(layer.tasks == 2);
    CHECK(normdrop_layer_init((normdrop_layer *)(void *)((char *)memory + 4), NORMDROP_ABI_VERSION) ==
          NORMDROP_STATUS_ALIGNMENT);

    CHECK(normdrop_layer_lengths(NULL, &lengths, &error) == NORMDROP_STATUS_NULL);
    CHECK(error.status == NORMDROP_STATUS_NULL && error.buffer == NORMDROP_BUFFER_LAYER);
    CHECK(normdrop_layer_lengths(&right, NULL, &error) == NORMDROP_STATUS_NULL);
    CHECK(error.buffer == NORMDROP_BUFFER_RESULT);
    CHECK(normdrop_layer_lengths(&right, (normdrop_lengths *)(void *)((char *)memory + 4), &error) ==
          NORMDROP_STATUS_ALIGNMENT);
    CHECK(error.buffer == NORMDROP_BUFFER_RESULT && error.expected == sizeof(size_t) && error.actual == 4);
    lengths.version = NORMDROP_ABI_VERSION + 1;
    CHECK(normdrop_layer_lengths(&right, &lengths, &error) == NORMDROP_STATUS_VERSION);
    CHECK(error.buffer == NORMDROP_BUFFER_RESULT && error.expected == NORMDROP_ABI_VERSION);

    /* An error that cannot be told: nothing is done. */
    lengths.version = NORMDROP_ABI_VERSION;
    lengths.elements = 77;
    error.version = 0;
    CHECK(normdrop_layer_lengths(&right, &lengths, &error) == NORMDROP_STATUS_VERSION);
    CHECK(normdrop_layer_lengths(&right, &lengths, (normdrop_error *)(void *)((char *)memory + 4)) ==
          NORMDROP_STATUS_ALIGNMENT);
    CHECK(lengths.elements == 77);
    error = new_error();

    keep.version = NORMDROP_ABI_VERSION;
    CHECK(normdrop_bernoulli_keep(2, &keep, &error) == NORMDROP_STATUS_PROBABILITY && error.value == 2);
    CHECK(normdrop_bernoulli_keep(0.5, NULL, &error) == NORMDROP_STATUS_NULL);
    keep.version = 0;
    CHECK(normdrop_bernoulli_keep(0.5, &keep, &error) == NORMDROP_STATUS_VERSION);

    /* What training asks for and evaluation does not. */
    make_problem(&whole, 1, 4, 1, NORMDROP_ACTIVATION_RELU);
    CHECK(normdrop_train(&whole.layer, &whole.train, &error) == NORMDROP_STATUS_SINGLE_SAMPLE);
    CHECK(normdrop_eval(&whole.layer, &whole.eval, &error) == NORMDROP_STATUS_OK);
    /* The biased variance of one value is 0, and nothing flows back. */
    whole.layer.running_variance = NORMDROP_RUNNING_VARIANCE_BIASED;
    CHECK(normdrop_train(&whole.layer, &whole.train, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_backward(&whole.layer, &whole.backward, &error) == NORMDROP_STATUS_OK);
    CHECK(whole.train.saved_mean.values[3] == whole.train.input.values[3]);
    CHECK(whole.backward.grad_input.values[3] == 0 && whole.backward.grad_weight.values[3] == 0);
    /* A momentum is wrong where it is used. */
    whole.layer.momentum = 1.5;
    CHECK(normdrop_train(&whole.layer, &whole.train, &error) == NORMDROP_STATUS_MOMENTUM && error.value == 1.5);
    CHECK(normdrop_eval(&whole.layer, &whole.eval, &error) == NORMDROP_STATUS_OK);
    whole.train.batches = &whole.batches;
    CHECK(normdrop_train(&whole.layer, &whole.train, &error) == NORMDROP_STATUS_OK && whole.batches == 1);
    /* A running variance below -eps has no root. */
    whole.train.running_var.values[2] = -1;
    CHECK(normdrop_eval(&whole.layer, &whole.eval, &error) == NORMDROP_STATUS_VARIANCE);
    CHECK(error.buffer == NORMDROP_BUFFER_RUNNING_VAR && error.actual == 2 && error.value == -1);
    free_all();
    make_problem(&whole, 2, 4, 1, NORMDROP_ACTIVATION_RELU);
    whole.layer.eps = 0;
    CHECK(normdrop_train(&whole.layer, &whole.train, &error) == NORMDROP_STATUS_EPS && error.value == 0);
    CHECK(normdrop_eval(&whole.layer, &whole.eval, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_backward(&whole.layer, &whole.backward, &error) == NORMDROP_STATUS_EPS);
    free_all();
}

/* ---- wrong arguments: buffers ---- */

/* Where a call has a buffer. All slices are a pointer and a length, in this order. */
typedef struct {
    size_t offset;
    size_t size;
    normdrop_buffer buffer;
    int written;
} field;

typedef struct {
    void *values;
    size_t len;
} any_slice;

typedef normdrop_status (*runner)(const normdrop_layer *layer, const void *call, normdrop_error *error);

#define READ(call, name, number, type) {offsetof(call, name), sizeof(type), NORMDROP_BUFFER_##number, 0}
#define WRITTEN(call, name, number, type) {offsetof(call, name), sizeof(type), NORMDROP_BUFFER_##number, 1}
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static any_slice get_slice(const void *call, const field *of) {
    any_slice slice;
    memcpy(&slice, (const char *)call + of->offset, sizeof slice);
    return slice;
}

static void set_slice(void *call, const field *of, void *values, size_t len) {
    any_slice slice;
    slice.values = values;
    slice.len = len;
    memcpy((char *)call + of->offset, &slice, sizeof slice);
}

static unsigned char *snapshot;

static void take_snapshot(void) {
    size_t total = 0, at = 0;
    int i;
    for (i = 0; i < allocation_count; i++) {
        total += allocated[i];
    }
    snapshot = (unsigned char *)malloc(total + 1);
    for (i = 0; i < allocation_count; i++) {
        memcpy(snapshot + at, allocations[i], allocated[i]);
        at += allocated[i];
    }
}

static int nothing_written(void) {
    size_t at = 0;
    int i, same = 1;
    for (i = 0; i < allocation_count; i++) {
        same = same && memcmp(snapshot + at, allocations[i], allocated[i]) == 0;
        at += allocated[i];
    }
    return same;
}

/* Runs a call that must be refused, and looks at everything that it tells. */
static void refused(runner run, const normdrop_layer *layer, const void *call, normdrop_status status,
                    normdrop_buffer buffer, size_t expected, size_t actual, int line) {
    normdrop_error error = new_error();
    normdrop_status got = run(layer, call, &error);
    int right = got == status && error.status == status && error.buffer == buffer &&
                error.other == NORMDROP_BUFFER_NONE && error.expected == expected && error.actual == actual &&
                run(layer, call, NULL) == status;
    if (!right) {
        fprintf(stderr, "wanted %d %s %zu %zu, got %d: %d %s %s %zu %zu\n", (int)status, normdrop_buffer_name(buffer),
                expected, actual, (int)got, (int)error.status, normdrop_buffer_name(error.buffer),
                normdrop_buffer_name(error.other), error.expected, error.actual);
    }
    check(right, "the refusal says what is wrong", __FILE__, line);
    check(nothing_written(), "nothing was written", __FILE__, line);
}

/* The same for buffers that overlap. Which pair is named depends on where the allocator has put the others: the two must
 * overlap, and the first must be written. */
static void refused_overlap(runner run, const normdrop_layer *layer, const void *call, const field *fields, size_t count,
                            int line) {
    normdrop_error error = new_error();
    normdrop_status got = run(layer, call, &error);
    const field *first = NULL, *second = NULL;
    int right;
    size_t i;
    for (i = 0; i < count; i++) {
        first = fields[i].buffer == error.buffer ? &fields[i] : first;
        second = fields[i].buffer == error.other ? &fields[i] : second;
    }
    right = got == NORMDROP_STATUS_OVERLAP && error.status == got && first != NULL && second != NULL && first != second &&
            first->written;
    if (right) {
        any_slice one = get_slice(call, first), two = get_slice(call, second);
        uintptr_t one_at = (uintptr_t)one.values, two_at = (uintptr_t)two.values;
        right = one_at < two_at + two.len * second->size && two_at < one_at + one.len * first->size;
    }
    check(right, "the overlap is refused and is one", __FILE__, line);
    check(run(layer, call, NULL) == NORMDROP_STATUS_OVERLAP, "and without an error, too", __FILE__, line);
    check(nothing_written(), "nothing was written", __FILE__, line);
}

/* Every way in which each buffer of a call can be wrong. `of` is a call that is right; the pair `from`, `to` may be one
 * buffer, as far as the call is in place. */
static void check_buffers(runner run, const normdrop_layer *layer, void *of, const field *fields, size_t count,
                          normdrop_buffer from, normdrop_buffer to) {
    const size_t most = (size_t)PTRDIFF_MAX;
    size_t i, j;
    take_snapshot();
    for (i = 0; i < count; i++) {
        const field *one = &fields[i];
        any_slice slice = get_slice(of, one);
        /* Scratch, where there are no vector registers: nothing is too short for it, and nothing overlaps it. */
        if (slice.len == 0) {
            continue;
        }
        set_slice(of, one, slice.values, slice.len - 1);
        refused(run, layer, of, NORMDROP_STATUS_LENGTH, one->buffer, slice.len, slice.len - 1, __LINE__);
        set_slice(of, one, slice.values, 0);
        refused(run, layer, of, NORMDROP_STATUS_LENGTH, one->buffer, slice.len, 0, __LINE__);
        set_slice(of, one, NULL, slice.len);
        refused(run, layer, of, NORMDROP_STATUS_NULL, one->buffer, slice.len, 0, __LINE__);
        if (one->size > 1) {
            set_slice(of, one, (char *)slice.values + 1, slice.len);
            refused(run, layer, of, NORMDROP_STATUS_ALIGNMENT, one->buffer, one->size, 1, __LINE__);
        }
        set_slice(of, one, slice.values, most / one->size + 1);
        refused(run, layer, of, NORMDROP_STATUS_SIZE, one->buffer, most / one->size, most / one->size + 1, __LINE__);
        /* Past the end of the address space. */
        set_slice(of, one, (void *)(UINTPTR_MAX - 63), 64);
        refused(run, layer, of, NORMDROP_STATUS_SIZE, one->buffer, most / one->size, 64, __LINE__);
        for (j = 0; j < count; j++) {
            const field *two = &fields[j];
            any_slice whole = get_slice(of, two);
            size_t bytes = whole.len * two->size;
            int may_be_same = (one->buffer == from && two->buffer == to) || (one->buffer == to && two->buffer == from);
            if (i == j || whole.len == 0 || (!one->written && !two->written)) {
                continue;
            }
            /* The same start; where the very same buffer is allowed, only a part of it is not. */
            set_slice(of, one, whole.values, may_be_same ? slice.len - 1 : slice.len);
            refused_overlap(run, layer, of, fields, count, __LINE__);
            /* The last values of the other buffer. */
            if (bytes > 8) {
                set_slice(of, one, (char *)whole.values + (bytes - 1) / 8 * 8, slice.len);
                refused_overlap(run, layer, of, fields, count, __LINE__);
            }
        }
        set_slice(of, one, slice.values, slice.len);
    }
    /* Right again. */
    CHECK(run(layer, of, NULL) == NORMDROP_STATUS_OK);
    free(snapshot);
}

/* Every way in which the structs themselves can be wrong. */
static void check_structs(runner run, const normdrop_layer *layer, const void *call, size_t size) {
    static double memory[64];
    normdrop_layer wrong = *layer;
    const uint32_t version = NORMDROP_ABI_VERSION + 1;
    take_snapshot();
    refused(run, NULL, call, NORMDROP_STATUS_NULL, NORMDROP_BUFFER_LAYER, 0, 0, __LINE__);
    wrong.version = version;
    refused(run, &wrong, call, NORMDROP_STATUS_VERSION, NORMDROP_BUFFER_LAYER, NORMDROP_ABI_VERSION, version, __LINE__);
    wrong.version = NORMDROP_ABI_VERSION;
    wrong.activation = NORMDROP_ACTIVATION_SOFTPLUS + 1;
    refused(run, &wrong, call, NORMDROP_STATUS_ACTIVATION, NORMDROP_BUFFER_LAYER, 0, wrong.activation, __LINE__);
    memcpy((char *)memory + 4, layer, sizeof *layer);
    refused(run, (const normdrop_layer *)(const void *)((char *)memory + 4), call, NORMDROP_STATUS_ALIGNMENT,
            NORMDROP_BUFFER_LAYER, sizeof(size_t), 4, __LINE__);
    if (size != 0) {
        refused(run, layer, NULL, NORMDROP_STATUS_NULL, NORMDROP_BUFFER_CALL, 0, 0, __LINE__);
        memcpy((char *)memory + 4, call, size);
        refused(run, layer, (char *)memory + 4, NORMDROP_STATUS_ALIGNMENT, NORMDROP_BUFFER_CALL, sizeof(size_t), 4,
                __LINE__);
        memcpy(memory, call, size);
        memcpy(memory, &version, sizeof version);
        refused(run, layer, memory, NORMDROP_STATUS_VERSION, NORMDROP_BUFFER_CALL, NORMDROP_ABI_VERSION, version,
                __LINE__);
    }
    free(snapshot);
}

static normdrop_status run_train(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_train(layer, (const normdrop_train_call *)call, error);
}

static normdrop_status run_eval(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_eval(layer, (const normdrop_eval_call *)call, error);
}

static normdrop_status run_prepare(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_prepare(layer, (const normdrop_prepare_call *)call, error);
}

static normdrop_status run_backward(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_backward(layer, (const normdrop_backward_call *)call, error);
}

static normdrop_status run_finish(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_finish(layer, (const normdrop_finish_call *)call, error);
}

static normdrop_status run_apply(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_apply(layer, (const normdrop_apply_call *)call, error);
}

static normdrop_status run_reduce(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_reduce(layer, (const normdrop_reduce_call *)call, error);
}

static normdrop_status run_apply_gradient(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_apply_gradient(layer, (const normdrop_apply_gradient_call *)call, error);
}

static normdrop_status run_previous(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    (void)layer;
    return normdrop_fold_into_previous((const normdrop_fold_call *)call, error);
}

static normdrop_status run_next(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    (void)layer;
    return normdrop_fold_into_next((const normdrop_fold_call *)call, error);
}

/* The calls that take their buffers one by one. */
typedef struct {
    normdrop_slice_f32 input;
    normdrop_slice_mut_f64 moments, scratch;
    normdrop_slice_f64 from;
    normdrop_slice_mut_f32 grad_weight, grad_bias, values, grad_slope;
    normdrop_slice_f32 slope, grad_output;
    normdrop_slice_mut_u8 mask;
    normdrop_slice_usize lengths;
} loose;

static normdrop_status run_moments(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    const loose *of = (const loose *)call;
    return normdrop_moments(layer, of->input, of->moments, of->scratch, error);
}

static normdrop_status run_finish_gradients(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    const loose *of = (const loose *)call;
    return normdrop_finish_gradients(layer, of->from, of->grad_weight, of->grad_bias, error);
}

static normdrop_status run_fill_mask(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_fill_mask(layer, 1, ((const loose *)call)->mask, error);
}

static normdrop_status run_fill_mask_with(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    uint32_t words = 0;
    return normdrop_fill_mask_with(layer, count_words, &words, ((const loose *)call)->mask, error);
}

static normdrop_status run_drop_padding(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_drop_padding(layer, ((const loose *)call)->lengths, ((const loose *)call)->mask, error);
}

static normdrop_status run_clear_padding(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_clear_padding(layer, ((const loose *)call)->lengths, ((const loose *)call)->values, error);
}

static normdrop_status run_fill(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_bernoulli_fill(layer->p, 1, 0, 210, ((const loose *)call)->mask, error);
}

static normdrop_status run_fill_with(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    uint32_t words = 0;
    return normdrop_bernoulli_fill_with(layer->p, count_words, &words, 210, ((const loose *)call)->mask, error);
}

static normdrop_status run_alpha_dropout(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_alpha_dropout(layer, reading_u8(((const loose *)call)->mask), ((const loose *)call)->values, error);
}

static normdrop_status run_alpha_dropout_backward(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_alpha_dropout_backward(layer, reading_u8(((const loose *)call)->mask), ((const loose *)call)->values,
                                           error);
}

static normdrop_status run_prelu(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_prelu(layer, ((const loose *)call)->slope, ((const loose *)call)->values, error);
}

static normdrop_status run_prelu_gradient(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    const loose *of = (const loose *)call;
    return normdrop_prelu_gradient(layer, of->slope, of->grad_output, of->values, of->grad_slope, of->scratch, error);
}

static normdrop_status run_apply_noise(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    const normdrop_noise noise = new_noise(NORMDROP_NOISE_LAW_UNIFORM, 0, 0.5f);
    return normdrop_apply_noise(layer, &noise, 1, ((const loose *)call)->values, error);
}

static normdrop_status run_train_masked(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_train_masked(layer, &((const masked_calls *)call)->train, &((const masked_calls *)call)->masked, error);
}

static normdrop_status run_eval_masked(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_eval_masked(layer, &((const masked_calls *)call)->eval, &((const masked_calls *)call)->masked, error);
}

static normdrop_status run_backward_masked(const normdrop_layer *layer, const void *call, normdrop_error *error) {
    return normdrop_backward_masked(layer, &((const masked_calls *)call)->backward, &((const masked_calls *)call)->masked,
                                    error);
}

static void test_wrong_halves(void) {
    static const field train[] = {
        READ(normdrop_train_call, weight, WEIGHT, float),
        READ(normdrop_train_call, bias, BIAS, float),
        WRITTEN(normdrop_train_call, running_mean, RUNNING_MEAN, float),
        WRITTEN(normdrop_train_call, running_mean_tail, RUNNING_MEAN_TAIL, float),
        WRITTEN(normdrop_train_call, running_var, RUNNING_VAR, float),
        READ(normdrop_train_call, mask, MASK, uint8_t),
        READ(normdrop_train_call, input_half, INPUT, uint16_t),
        READ(normdrop_train_call, residual, RESIDUAL, float),
        WRITTEN(normdrop_train_call, output_half, OUTPUT, uint16_t),
        WRITTEN(normdrop_train_call, saved_mean, SAVED_MEAN, float),
        WRITTEN(normdrop_train_call, saved_mean_tail, SAVED_MEAN_TAIL, float),
        WRITTEN(normdrop_train_call, saved_inv_std, SAVED_INV_STD, double),
        WRITTEN(normdrop_train_call, scratch, SCRATCH, double),
    };
    static const field eval[] = {
        READ(normdrop_eval_call, weight, WEIGHT, float),
        READ(normdrop_eval_call, bias, BIAS, float),
        READ(normdrop_eval_call, running_mean, RUNNING_MEAN, float),
        READ(normdrop_eval_call, running_mean_tail, RUNNING_MEAN_TAIL, float),
        READ(normdrop_eval_call, running_var, RUNNING_VAR, float),
        READ(normdrop_eval_call, mask, MASK, uint8_t),
        READ(normdrop_eval_call, input_half, INPUT, uint16_t),
        READ(normdrop_eval_call, residual_half, RESIDUAL, uint16_t),
        WRITTEN(normdrop_eval_call, output_half, OUTPUT, uint16_t),
        WRITTEN(normdrop_eval_call, scratch, SCRATCH, double),
    };
    static const field backward[] = {
        READ(normdrop_backward_call, weight, WEIGHT, float),
        READ(normdrop_backward_call, bias, BIAS, float),
        READ(normdrop_backward_call, saved_mean, SAVED_MEAN, float),
        READ(normdrop_backward_call, saved_mean_tail, SAVED_MEAN_TAIL, float),
        READ(normdrop_backward_call, saved_inv_std, SAVED_INV_STD, double),
        READ(normdrop_backward_call, mask, MASK, uint8_t),
        READ(normdrop_backward_call, input_half, INPUT, uint16_t),
        READ(normdrop_backward_call, residual, RESIDUAL, float),
        READ(normdrop_backward_call, grad_output_half, GRAD_OUTPUT, uint16_t),
        WRITTEN(normdrop_backward_call, grad_input_half, GRAD_INPUT, uint16_t),
        WRITTEN(normdrop_backward_call, grad_residual_half, GRAD_RESIDUAL, uint16_t),
        WRITTEN(normdrop_backward_call, grad_weight, GRAD_WEIGHT, float),
        WRITTEN(normdrop_backward_call, grad_bias, GRAD_BIAS, float),
        WRITTEN(normdrop_backward_call, scratch, SCRATCH, double),
    };
    const normdrop_element f16 = NORMDROP_ELEMENT_F16, bf16 = NORMDROP_ELEMENT_BF16;
    normdrop_error error = new_error();
    normdrop_slice_f32 floats;
    normdrop_masked masked;
    problem of;
    make_problem(&of, 6, 5, 7, NORMDROP_ACTIVATION_RELU);
    of.train.input_half = of.eval.input_half = of.backward.input_half = random_halves(210, bf16, &floats);
    of.eval.residual_half = random_halves(210, f16, &floats);
    of.backward.grad_output_half = random_halves(210, f16, &floats);
    of.train.output_half = empty_halves(210, f16);
    of.eval.output_half = empty_halves(210, bf16);
    of.backward.grad_input_half = empty_halves(210, f16);
    of.backward.grad_residual_half = empty_halves(210, bf16);

    /* Floats and halves of one tensor, one after the other. */
    CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_TWO_BUFFERS);
    CHECK(error.buffer == NORMDROP_BUFFER_INPUT && error.other == NORMDROP_BUFFER_INPUT);
    memset(&of.train.input, 0, sizeof of.train.input);
    CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_TWO_BUFFERS && error.buffer == NORMDROP_BUFFER_OUTPUT);
    memset(&of.train.output, 0, sizeof of.train.output);
    /* In place as floats does not hide it. */
    floats = of.eval.input;
    of.eval.input = reading(of.eval.output);
    CHECK(normdrop_eval(&of.layer, &of.eval, &error) == NORMDROP_STATUS_TWO_BUFFERS && error.buffer == NORMDROP_BUFFER_INPUT);
    memset(&of.eval.output_half, 0, sizeof of.eval.output_half);
    CHECK(normdrop_eval(&of.layer, &of.eval, &error) == NORMDROP_STATUS_TWO_BUFFERS && error.buffer == NORMDROP_BUFFER_INPUT);
    of.eval.output_half = empty_halves(210, bf16);
    memset(&of.eval.input, 0, sizeof of.eval.input);
    memset(&of.eval.residual, 0, sizeof of.eval.residual);
    memset(&of.eval.output, 0, sizeof of.eval.output);
    memset(&of.backward.input, 0, sizeof of.backward.input);
    memset(&of.backward.grad_output, 0, sizeof of.backward.grad_output);
    memset(&of.backward.grad_input, 0, sizeof of.backward.grad_input);
    CHECK(normdrop_backward(&of.layer, &of.backward, &error) == NORMDROP_STATUS_TWO_BUFFERS);
    CHECK(error.buffer == NORMDROP_BUFFER_GRAD_RESIDUAL);
    memset(&of.backward.grad_residual, 0, sizeof of.backward.grad_residual);

    initialised = 1;
    check_buffers(run_train, &of.layer, &of.train, train, COUNT(train), 0, 0);
    check_buffers(run_eval, &of.layer, &of.eval, eval, COUNT(eval), NORMDROP_BUFFER_INPUT, NORMDROP_BUFFER_OUTPUT);
    check_buffers(run_backward, &of.layer, &of.backward, backward, COUNT(backward), NORMDROP_BUFFER_GRAD_OUTPUT,
                  NORMDROP_BUFFER_GRAD_INPUT);

    /* Types that there are not; 0, of a struct that was not filled in, is none. */
    take_snapshot();
    of.train.input_half.element = 0;
    CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_ELEMENT);
    CHECK(error.buffer == NORMDROP_BUFFER_INPUT && error.actual == 0);
    of.train.input_half.element = bf16;
    of.train.output_half.element = 3;
    CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_ELEMENT);
    CHECK(error.buffer == NORMDROP_BUFFER_OUTPUT && error.actual == 3);
    of.backward.grad_input_half.element = 77;
    CHECK(normdrop_backward(&of.layer, &of.backward, &error) == NORMDROP_STATUS_ELEMENT && error.actual == 77);
    /* The same memory as another type is not in place. */
    of.eval.output_half.values = (uint16_t *)of.eval.input_half.values;
    of.eval.output_half.element = f16;
    CHECK(normdrop_eval(&of.layer, &of.eval, &error) == NORMDROP_STATUS_OVERLAP);
    memset(&masked, 0, sizeof masked);
    masked.version = NORMDROP_ABI_VERSION;
    CHECK(normdrop_eval_masked(&of.layer, &of.eval, &masked, &error) == NORMDROP_STATUS_ELEMENT);
    CHECK(error.buffer == NORMDROP_BUFFER_MASKED);
    CHECK(normdrop_train_masked(&of.layer, &of.train, &masked, &error) == NORMDROP_STATUS_ELEMENT);
    CHECK(normdrop_backward_masked(&of.layer, &of.backward, &masked, &error) == NORMDROP_STATUS_ELEMENT);
    CHECK(nothing_written());
    free(snapshot);
    free_all();
}

static void test_wrong_masked(void) {
    static const size_t valid[6] = {4, 1, 0, 7, 2, 5}, too_long[6] = {4, 1, 8, 7, 2, 5};
    static const field train[] = {
        READ(masked_calls, masked.lengths, LENGTHS, size_t),
        WRITTEN(masked_calls, masked.workspace, WORKSPACE, float),
        READ(masked_calls, train.weight, WEIGHT, float),
        READ(masked_calls, train.bias, BIAS, float),
        WRITTEN(masked_calls, train.running_mean, RUNNING_MEAN, float),
        WRITTEN(masked_calls, train.running_mean_tail, RUNNING_MEAN_TAIL, float),
        WRITTEN(masked_calls, train.running_var, RUNNING_VAR, float),
        READ(masked_calls, train.mask, MASK, uint8_t),
        READ(masked_calls, train.input, INPUT, float),
        READ(masked_calls, train.residual, RESIDUAL, float),
        WRITTEN(masked_calls, train.output, OUTPUT, float),
        WRITTEN(masked_calls, train.saved_mean, SAVED_MEAN, float),
        WRITTEN(masked_calls, train.saved_mean_tail, SAVED_MEAN_TAIL, float),
        WRITTEN(masked_calls, train.saved_inv_std, SAVED_INV_STD, double),
        WRITTEN(masked_calls, train.scratch, SCRATCH, double),
    };
    static const field eval[] = {
        READ(masked_calls, masked.validity, VALIDITY, uint8_t),
        WRITTEN(masked_calls, masked.workspace, WORKSPACE, float),
        READ(masked_calls, eval.weight, WEIGHT, float),
        READ(masked_calls, eval.bias, BIAS, float),
        READ(masked_calls, eval.running_mean, RUNNING_MEAN, float),
        READ(masked_calls, eval.running_mean_tail, RUNNING_MEAN_TAIL, float),
        READ(masked_calls, eval.running_var, RUNNING_VAR, float),
        READ(masked_calls, eval.mask, MASK, uint8_t),
        READ(masked_calls, eval.input, INPUT, float),
        READ(masked_calls, eval.residual, RESIDUAL, float),
        WRITTEN(masked_calls, eval.output, OUTPUT, float),
        WRITTEN(masked_calls, eval.scratch, SCRATCH, double),
    };
    static const field backward[] = {
        READ(masked_calls, masked.validity, VALIDITY, uint8_t),
        WRITTEN(masked_calls, masked.workspace, WORKSPACE, float),
        READ(masked_calls, backward.weight, WEIGHT, float),
        READ(masked_calls, backward.bias, BIAS, float),
        READ(masked_calls, backward.saved_mean, SAVED_MEAN, float),
        READ(masked_calls, backward.saved_mean_tail, SAVED_MEAN_TAIL, float),
        READ(masked_calls, backward.saved_inv_std, SAVED_INV_STD, double),
        READ(masked_calls, backward.mask, MASK, uint8_t),
        READ(masked_calls, backward.input, INPUT, float),
        READ(masked_calls, backward.residual, RESIDUAL, float),
        READ(masked_calls, backward.grad_output, GRAD_OUTPUT, float),
        WRITTEN(masked_calls, backward.grad_input, GRAD_INPUT, float),
        WRITTEN(masked_calls, backward.grad_residual, GRAD_RESIDUAL, float),
        WRITTEN(masked_calls, backward.grad_weight, GRAD_WEIGHT, float),
        WRITTEN(masked_calls, backward.grad_bias, GRAD_BIAS, float),
        WRITTEN(masked_calls, backward.scratch, SCRATCH, double),
    };
    normdrop_layer layer = new_layer(6, 5, 7, NORMDROP_ACTIVATION_SILU);
    normdrop_masked masked, wrong;
    normdrop_error error = new_error();
    normdrop_slice_mut_u8 bits;
    masked_calls of;
    memset(&masked, 0, sizeof masked);
    masked.lengths.values = valid;
    masked.lengths.len = 6;
    make_masked(&of, &layer, masked);
    check_buffers(run_train_masked, &layer, &of, train, COUNT(train), 0, 0);
    check_structs(run_train_masked, &layer, &of, 0);

    /* The struct itself, and what it says. */
    CHECK(normdrop_train_masked(&layer, &of.train, NULL, &error) == NORMDROP_STATUS_NULL);
    CHECK(error.buffer == NORMDROP_BUFFER_MASKED);
    wrong = of.masked;
    wrong.version = 0;
    CHECK(normdrop_eval_masked(&layer, &of.eval, &wrong, &error) == NORMDROP_STATUS_VERSION);
    CHECK(error.buffer == NORMDROP_BUFFER_MASKED);
    CHECK(normdrop_backward_masked(&layer, &of.backward, &wrong, &error) == NORMDROP_STATUS_VERSION);
    wrong = of.masked;
    wrong.lengths.values = too_long;
    CHECK(normdrop_train_masked(&layer, &of.train, &wrong, &error) == NORMDROP_STATUS_SEQUENCE_LENGTH);
    CHECK(error.buffer == NORMDROP_BUFFER_LENGTHS && error.expected == 7 && error.actual == 8 && error.value == 2);
    bits.values = (uint8_t *)fresh(6);
    bits.len = 6;
    memset(bits.values, 0x5A, 6);
    wrong = of.masked;
    wrong.validity = reading_u8(bits);
    CHECK(normdrop_train_masked(&layer, &of.train, &wrong, &error) == NORMDROP_STATUS_TWO_BUFFERS);
    CHECK(error.buffer == NORMDROP_BUFFER_LENGTHS && error.other == NORMDROP_BUFFER_VALIDITY);
    memset(&wrong.lengths, 0, sizeof wrong.lengths);
    of.masked = wrong;
    memset(&wrong.validity, 0, sizeof wrong.validity);
    CHECK(normdrop_train_masked(&layer, &of.train, &wrong, &error) == NORMDROP_STATUS_LENGTH);
    CHECK(error.buffer == NORMDROP_BUFFER_LENGTHS && error.expected == 6 && error.actual == 0);

    check_buffers(run_eval_masked, &layer, &of, eval, COUNT(eval), 0, 0);
    check_structs(run_eval_masked, &layer, &of, 0);
    check_buffers(run_backward_masked, &layer, &of, backward, COUNT(backward), 0, 0);
    check_structs(run_backward_masked, &layer, &of, 0);
    of.eval.prepared = reading_f64(empty_f64(3));
    CHECK(normdrop_eval_masked(&layer, &of.eval, &of.masked, &error) == NORMDROP_STATUS_STATISTICS);
    CHECK(error.buffer == NORMDROP_BUFFER_PREPARED);
    memset(&of.eval.prepared, 0, sizeof of.eval.prepared);
    of.eval.gates = gates_of(210, NULL);
    CHECK(normdrop_eval_masked(&layer, &of.eval, &of.masked, &error) == NORMDROP_STATUS_NO_GATES);
    CHECK(error.buffer == NORMDROP_BUFFER_GATES);
    layer.activation = NORMDROP_ACTIVATION_RELU;
    memset(&of.eval.mask, 0, sizeof of.eval.mask);
    CHECK(normdrop_eval_masked(&layer, &of.eval, &of.masked, &error) == NORMDROP_STATUS_MASK_MISSING);
    free_all();
}

static void test_wrong_buffers(void) {
    static const field train[] = {
        READ(normdrop_train_call, weight, WEIGHT, float),
        READ(normdrop_train_call, bias, BIAS, float),
        WRITTEN(normdrop_train_call, running_mean, RUNNING_MEAN, float),
        WRITTEN(normdrop_train_call, running_mean_tail, RUNNING_MEAN_TAIL, float),
        WRITTEN(normdrop_train_call, running_var, RUNNING_VAR, float),
        READ(normdrop_train_call, mask, MASK, uint8_t),
        READ(normdrop_train_call, input, INPUT, float),
        READ(normdrop_train_call, residual, RESIDUAL, float),
        WRITTEN(normdrop_train_call, output, OUTPUT, float),
        WRITTEN(normdrop_train_call, saved_mean, SAVED_MEAN, float),
        WRITTEN(normdrop_train_call, saved_mean_tail, SAVED_MEAN_TAIL, float),
        WRITTEN(normdrop_train_call, saved_inv_std, SAVED_INV_STD, double),
        WRITTEN(normdrop_train_call, scratch, SCRATCH, double),
    };
    static const field eval[] = {
        READ(normdrop_eval_call, weight, WEIGHT, float),
        READ(normdrop_eval_call, bias, BIAS, float),
        READ(normdrop_eval_call, running_mean, RUNNING_MEAN, float),
        READ(normdrop_eval_call, running_mean_tail, RUNNING_MEAN_TAIL, float),
        READ(normdrop_eval_call, running_var, RUNNING_VAR, float),
        READ(normdrop_eval_call, mask, MASK, uint8_t),
        READ(normdrop_eval_call, input, INPUT, float),
        READ(normdrop_eval_call, residual, RESIDUAL, float),
        WRITTEN(normdrop_eval_call, output, OUTPUT, float),
        WRITTEN(normdrop_eval_call, scratch, SCRATCH, double),
    };
    static const field eval_prepared[] = {
        READ(normdrop_eval_call, prepared, PREPARED, double),
        READ(normdrop_eval_call, mask, MASK, uint8_t),
        READ(normdrop_eval_call, input, INPUT, float),
        READ(normdrop_eval_call, residual, RESIDUAL, float),
        WRITTEN(normdrop_eval_call, output, OUTPUT, float),
        WRITTEN(normdrop_eval_call, scratch, SCRATCH, double),
    };
    static const field prepare[] = {
        READ(normdrop_prepare_call, weight, WEIGHT, float),
        READ(normdrop_prepare_call, bias, BIAS, float),
        READ(normdrop_prepare_call, running_mean, RUNNING_MEAN, float),
        READ(normdrop_prepare_call, running_mean_tail, RUNNING_MEAN_TAIL, float),
        READ(normdrop_prepare_call, running_var, RUNNING_VAR, float),
        WRITTEN(normdrop_prepare_call, prepared, PREPARED, double),
    };
    static const field backward_prepared[] = {
        READ(normdrop_backward_call, prepared, PREPARED, double),
        READ(normdrop_backward_call, mask, MASK, uint8_t),
        READ(normdrop_backward_call, input, INPUT, float),
        READ(normdrop_backward_call, residual, RESIDUAL, float),
        READ(normdrop_backward_call, grad_output, GRAD_OUTPUT, float),
        WRITTEN(normdrop_backward_call, grad_input, GRAD_INPUT, float),
        WRITTEN(normdrop_backward_call, grad_residual, GRAD_RESIDUAL, float),
        WRITTEN(normdrop_backward_call, grad_weight, GRAD_WEIGHT, float),
        WRITTEN(normdrop_backward_call, grad_bias, GRAD_BIAS, float),
        WRITTEN(normdrop_backward_call, scratch, SCRATCH, double),
    };
    static const field backward[] = {
        READ(normdrop_backward_call, weight, WEIGHT, float),
        READ(normdrop_backward_call, bias, BIAS, float),
        READ(normdrop_backward_call, saved_mean, SAVED_MEAN, float),
        READ(normdrop_backward_call, saved_mean_tail, SAVED_MEAN_TAIL, float),
        READ(normdrop_backward_call, saved_inv_std, SAVED_INV_STD, double),
        READ(normdrop_backward_call, mask, MASK, uint8_t),
        READ(normdrop_backward_call, input, INPUT, float),
        READ(normdrop_backward_call, residual, RESIDUAL, float),
        READ(normdrop_backward_call, grad_output, GRAD_OUTPUT, float),
        WRITTEN(normdrop_backward_call, grad_input, GRAD_INPUT, float),
        WRITTEN(normdrop_backward_call, grad_residual, GRAD_RESIDUAL, float),
        WRITTEN(normdrop_backward_call, grad_weight, GRAD_WEIGHT, float),
        WRITTEN(normdrop_backward_call, grad_bias, GRAD_BIAS, float),
        WRITTEN(normdrop_backward_call, scratch, SCRATCH, double),
    };
    static const field fixed[] = {
        READ(normdrop_backward_call, weight, WEIGHT, float),
        READ(normdrop_backward_call, bias, BIAS, float),
        READ(normdrop_backward_call, running_mean, RUNNING_MEAN, float),
        READ(normdrop_backward_call, running_mean_tail, RUNNING_MEAN_TAIL, float),
        READ(normdrop_backward_call, running_var, RUNNING_VAR, float),
        READ(normdrop_backward_call, mask, MASK, uint8_t),
        READ(normdrop_backward_call, input, INPUT, float),
        READ(normdrop_backward_call, residual, RESIDUAL, float),
        READ(normdrop_backward_call, grad_output, GRAD_OUTPUT, float),
        WRITTEN(normdrop_backward_call, grad_input, GRAD_INPUT, float),
        WRITTEN(normdrop_backward_call, grad_residual, GRAD_RESIDUAL, float),
        WRITTEN(normdrop_backward_call, grad_weight, GRAD_WEIGHT, float),
        WRITTEN(normdrop_backward_call, grad_bias, GRAD_BIAS, float),
        WRITTEN(normdrop_backward_call, scratch, SCRATCH, double),
    };
    static const field finish[] = {
        READ(normdrop_finish_call, moments, MOMENTS, double),
        WRITTEN(normdrop_finish_call, running_mean, RUNNING_MEAN, float),
        WRITTEN(normdrop_finish_call, running_mean_tail, RUNNING_MEAN_TAIL, float),
        WRITTEN(normdrop_finish_call, running_var, RUNNING_VAR, float),
        WRITTEN(normdrop_finish_call, saved_mean, SAVED_MEAN, float),
        WRITTEN(normdrop_finish_call, saved_mean_tail, SAVED_MEAN_TAIL, float),
        WRITTEN(normdrop_finish_call, saved_inv_std, SAVED_INV_STD, double),
    };
    static const field apply[] = {
        READ(normdrop_apply_call, weight, WEIGHT, float),
        READ(normdrop_apply_call, bias, BIAS, float),
        READ(normdrop_apply_call, saved_mean, SAVED_MEAN, float),
        READ(normdrop_apply_call, saved_mean_tail, SAVED_MEAN_TAIL, float),
        READ(normdrop_apply_call, saved_inv_std, SAVED_INV_STD, double),
        READ(normdrop_apply_call, mask, MASK, uint8_t),
        READ(normdrop_apply_call, input, INPUT, float),
        READ(normdrop_apply_call, residual, RESIDUAL, float),
        WRITTEN(normdrop_apply_call, output, OUTPUT, float),
        WRITTEN(normdrop_apply_call, scratch, SCRATCH, double),
    };
    static const field reduce[] = {
        READ(normdrop_reduce_call, weight, WEIGHT, float),
        READ(normdrop_reduce_call, bias, BIAS, float),
        READ(normdrop_reduce_call, saved_mean, SAVED_MEAN, float),
        READ(normdrop_reduce_call, saved_mean_tail, SAVED_MEAN_TAIL, float),
        READ(normdrop_reduce_call, saved_inv_std, SAVED_INV_STD, double),
        READ(normdrop_reduce_call, mask, MASK, uint8_t),
        READ(normdrop_reduce_call, input, INPUT, float),
        READ(normdrop_reduce_call, residual, RESIDUAL, float),
        READ(normdrop_reduce_call, grad_output, GRAD_OUTPUT, float),
        WRITTEN(normdrop_reduce_call, sums, SUMS, double),
        WRITTEN(normdrop_reduce_call, scratch, SCRATCH, double),
    };
    static const field reduce_fixed[] = {
        READ(normdrop_reduce_call, weight, WEIGHT, float),
        READ(normdrop_reduce_call, bias, BIAS, float),
        READ(normdrop_reduce_call, running_mean, RUNNING_MEAN, float),
        READ(normdrop_reduce_call, running_mean_tail, RUNNING_MEAN_TAIL, float),
        READ(normdrop_reduce_call, running_var, RUNNING_VAR, float),
        READ(normdrop_reduce_call, mask, MASK, uint8_t),
        READ(normdrop_reduce_call, input, INPUT, float),
        READ(normdrop_reduce_call, residual, RESIDUAL, float),
        READ(normdrop_reduce_call, grad_output, GRAD_OUTPUT, float),
        WRITTEN(normdrop_reduce_call, sums, SUMS, double),
        WRITTEN(normdrop_reduce_call, scratch, SCRATCH, double),
    };
    static const field apply_gradient[] = {
        READ(normdrop_apply_gradient_call, weight, WEIGHT, float),
        READ(normdrop_apply_gradient_call, bias, BIAS, float),
        READ(normdrop_apply_gradient_call, saved_mean, SAVED_MEAN, float),
        READ(normdrop_apply_gradient_call, saved_mean_tail, SAVED_MEAN_TAIL, float),
        READ(normdrop_apply_gradient_call, saved_inv_std, SAVED_INV_STD, double),
        READ(normdrop_apply_gradient_call, sums, SUMS, double),
        READ(normdrop_apply_gradient_call, mask, MASK, uint8_t),
        READ(normdrop_apply_gradient_call, input, INPUT, float),
        READ(normdrop_apply_gradient_call, residual, RESIDUAL, float),
        READ(normdrop_apply_gradient_call, grad_output, GRAD_OUTPUT, float),
        WRITTEN(normdrop_apply_gradient_call, grad_input, GRAD_INPUT, float),
        WRITTEN(normdrop_apply_gradient_call, grad_residual, GRAD_RESIDUAL, float),
        WRITTEN(normdrop_apply_gradient_call, scratch, SCRATCH, double),
    };
    static const field fold[] = {
        READ(normdrop_fold_call, weight, WEIGHT, float),
        READ(normdrop_fold_call, bias, BIAS, float),
        READ(normdrop_fold_call, running_mean, RUNNING_MEAN, float),
        READ(normdrop_fold_call, running_mean_tail, RUNNING_MEAN_TAIL, float),
        READ(normdrop_fold_call, running_var, RUNNING_VAR, float),
        WRITTEN(normdrop_fold_call, weights, FOLD_WEIGHTS, float),
        WRITTEN(normdrop_fold_call, weights_bias, FOLD_BIAS, float),
    };
    static const field moments[] = {
        READ(loose, input, INPUT, float),
        WRITTEN(loose, moments, MOMENTS, double),
        WRITTEN(loose, scratch, SCRATCH, double),
    };
    static const field finish_gradients[] = {
        READ(loose, from, SUMS, double),
        WRITTEN(loose, grad_weight, GRAD_WEIGHT, float),
        WRITTEN(loose, grad_bias, GRAD_BIAS, float),
    };
    static const field mask[] = {WRITTEN(loose, mask, MASK, uint8_t)};
    static const field drop_padding[] = {READ(loose, lengths, LENGTHS, size_t), WRITTEN(loose, mask, MASK, uint8_t)};
    static const field alpha[] = {READ(loose, mask, MASK, uint8_t), WRITTEN(loose, values, VALUES, float)};
    static const field prelu[] = {READ(loose, slope, SLOPE, float), WRITTEN(loose, values, VALUES, float)};
    static const field prelu_gradient[] = {
        READ(loose, slope, SLOPE, float),
        READ(loose, grad_output, GRAD_OUTPUT, float),
        WRITTEN(loose, values, VALUES, float),
        WRITTEN(loose, grad_slope, GRAD_SLOPE, float),
        WRITTEN(loose, scratch, SCRATCH, double),
    };
    static const field noise[] = {WRITTEN(loose, values, VALUES, float)};
    static const field clear_padding[] = {READ(loose, lengths, LENGTHS, size_t), WRITTEN(loose, values, VALUES, float)};
    normdrop_error error = new_error();
    problem of;
    phases parts;
    normdrop_fold_call into;
    loose others;
    size_t j;

    initialised = 1;
    make_problem(&of, 6, 5, 7, NORMDROP_ACTIVATION_GELU_TANH);
    check_buffers(run_train, &of.layer, &of.train, train, COUNT(train), 0, 0);
    check_structs(run_train, &of.layer, &of.train, sizeof of.train);
    of.train.batches = (uint64_t *)(void *)((char *)of.train.output.values + 4);
    CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_ALIGNMENT);
    CHECK(error.buffer == NORMDROP_BUFFER_BATCHES);
    of.train.batches = (uint64_t *)(void *)of.train.output.values;
    CHECK(normdrop_train(&of.layer, &of.train, &error) == NORMDROP_STATUS_OVERLAP);
    CHECK(error.buffer == NORMDROP_BUFFER_BATCHES || error.other == NORMDROP_BUFFER_BATCHES);
    CHECK(error.buffer == NORMDROP_BUFFER_OUTPUT || error.other == NORMDROP_BUFFER_OUTPUT);
    check_buffers(run_eval, &of.layer, &of.eval, eval, COUNT(eval), NORMDROP_BUFFER_INPUT, NORMDROP_BUFFER_OUTPUT);
    check_structs(run_eval, &of.layer, &of.eval, sizeof of.eval);
    check_buffers(run_prepare, &of.layer, &of.prepare, prepare, COUNT(prepare), 0, 0);
    check_structs(run_prepare, &of.layer, &of.prepare, sizeof of.prepare);
    of.eval.prepared = reading_f64(of.prepare.prepared);
    check_buffers(run_eval, &of.layer, &of.eval, eval_prepared, COUNT(eval_prepared), NORMDROP_BUFFER_INPUT,
                  NORMDROP_BUFFER_OUTPUT);
    check_buffers(run_backward, &of.layer, &of.backward, backward, COUNT(backward), NORMDROP_BUFFER_GRAD_OUTPUT,
                  NORMDROP_BUFFER_GRAD_INPUT);
    check_structs(run_backward, &of.layer, &of.backward, sizeof of.backward);
    of.backward.statistics = NORMDROP_STATISTICS_FIXED;
    of.backward.running_mean = of.eval.running_mean;
    of.backward.running_mean_tail = of.eval.running_mean_tail;
    of.backward.running_var = of.eval.running_var;
    check_buffers(run_backward, &of.layer, &of.backward, fixed, COUNT(fixed), NORMDROP_BUFFER_GRAD_OUTPUT,
                  NORMDROP_BUFFER_GRAD_INPUT);
    of.backward.statistics = NORMDROP_STATISTICS_PREPARED;
    of.backward.prepared = of.eval.prepared;
    memset(&of.backward.weight, 0, sizeof of.backward.weight);
    memset(&of.backward.bias, 0, sizeof of.backward.bias);
    check_buffers(run_backward, &of.layer, &of.backward, backward_prepared, COUNT(backward_prepared),
                  NORMDROP_BUFFER_GRAD_OUTPUT, NORMDROP_BUFFER_GRAD_INPUT);
    of.backward.statistics = 3;
    CHECK(normdrop_backward(&of.layer, &of.backward, &error) == NORMDROP_STATUS_STATISTICS && error.actual == 3);
    /* In place, but of the wrong length: named as the struct names it. */
    of.backward.statistics = NORMDROP_STATISTICS_FIXED;
    of.backward.grad_input.len = of.backward.grad_output.len = 9;
    of.backward.grad_output.values = of.backward.grad_input.values;
    CHECK(normdrop_backward(&of.layer, &of.backward, &error) == NORMDROP_STATUS_LENGTH);
    CHECK(error.buffer == NORMDROP_BUFFER_GRAD_INPUT && error.expected == 210 && error.actual == 9);
    of.eval.input.len = of.eval.output.len = 9;
    of.eval.input.values = of.eval.output.values;
    CHECK(normdrop_eval(&of.layer, &of.eval, &error) == NORMDROP_STATUS_LENGTH);
    CHECK(error.buffer == NORMDROP_BUFFER_OUTPUT);
    free_all();

    make_problem(&of, 6, 5, 7, NORMDROP_ACTIVATION_LEAKY_RELU);
    make_phases(&parts, &of, 6);
    memset(&others, 0, sizeof others);
    others.input = parts.input;
    others.moments = parts.moments;
    others.scratch = parts.train_scratch;
    check_buffers(run_moments, &parts.layer, &others, moments, COUNT(moments), 0, 0);
    check_structs(run_moments, &parts.layer, &others, 0);
    check_buffers(run_finish, &parts.layer, &parts.finish, finish, COUNT(finish), 0, 0);
    CHECK(normdrop_moments(&parts.layer, parts.input, parts.moments, parts.train_scratch, NULL) == NORMDROP_STATUS_OK);
    check_structs(run_finish, &parts.layer, &parts.finish, sizeof parts.finish);
    check_buffers(run_apply, &parts.layer, &parts.apply, apply, COUNT(apply), 0, 0);
    check_structs(run_apply, &parts.layer, &parts.apply, sizeof parts.apply);
    check_buffers(run_reduce, &parts.layer, &parts.reduce, reduce, COUNT(reduce), 0, 0);
    check_structs(run_reduce, &parts.layer, &parts.reduce, sizeof parts.reduce);
    parts.reduce.statistics = NORMDROP_STATISTICS_FIXED;
    parts.reduce.running_mean = of.eval.running_mean;
    parts.reduce.running_mean_tail = of.eval.running_mean_tail;
    parts.reduce.running_var = of.eval.running_var;
    check_buffers(run_reduce, &parts.layer, &parts.reduce, reduce_fixed, COUNT(reduce_fixed), 0, 0);
    parts.reduce.statistics = 3;
    CHECK(normdrop_reduce(&parts.layer, &parts.reduce, &error) == NORMDROP_STATUS_STATISTICS && error.actual == 3);
    others.from = reading_f64(parts.sums);
    others.grad_weight = parts.grad_weight;
    others.grad_bias = parts.grad_bias;
    check_buffers(run_finish_gradients, &parts.layer, &others, finish_gradients, COUNT(finish_gradients), 0, 0);
    check_structs(run_finish_gradients, &parts.layer, &others, 0);
    check_buffers(run_apply_gradient, &parts.layer, &parts.apply_gradient, apply_gradient, COUNT(apply_gradient), 0, 0);
    check_structs(run_apply_gradient, &parts.layer, &parts.apply_gradient, sizeof parts.apply_gradient);
    parts.apply_gradient.samples = -1;
    CHECK(normdrop_apply_gradient(&parts.layer, &parts.apply_gradient, &error) == NORMDROP_STATUS_COUNT);
    CHECK(error.value == -1);
    for (parts.moments.len = 0; parts.moments.len < 5; parts.moments.len++) {
        parts.moments.values[parts.moments.len] = 1;
    }
    CHECK(normdrop_finish(&parts.layer, &parts.finish, &error) == NORMDROP_STATUS_SINGLE_SAMPLE);
    CHECK(normdrop_check_moments(&parts.layer, parts.finish.moments, &error) == NORMDROP_STATUS_OK);
    parts.moments.values[13] = HUGE_VAL;
    CHECK(normdrop_check_moments(&parts.layer, parts.finish.moments, &error) == NORMDROP_STATUS_NOT_FINITE);
    CHECK(error.buffer == NORMDROP_BUFFER_RUNNING_VAR && error.actual == 3);
    parts.moments.values[8] = HUGE_VAL;
    CHECK(normdrop_check_moments(&parts.layer, parts.finish.moments, NULL) == NORMDROP_STATUS_NOT_FINITE);
    parts.moments.values[4] = -1;
    CHECK(normdrop_check_moments(&parts.layer, parts.finish.moments, &error) == NORMDROP_STATUS_COUNT);
    CHECK(error.actual == 4 && error.value == -1);
    CHECK(normdrop_check_moments(NULL, parts.finish.moments, &error) == NORMDROP_STATUS_NULL);
    parts.finish.moments.len--;
    CHECK(normdrop_check_moments(&parts.layer, parts.finish.moments, &error) == NORMDROP_STATUS_LENGTH);
    CHECK(error.buffer == NORMDROP_BUFFER_MOMENTS && error.expected == 15 && error.actual == 14);
    parts.finish.moments.len++;
    parts.moments.values[4] = 1;
    parts.layer.eps = 0;
    CHECK(normdrop_finish(&parts.layer, &parts.finish, &error) == NORMDROP_STATUS_EPS);

    /* Merging: one layer does not know the length, so the two must agree. */
    parts.moments.len = 15;
    CHECK(normdrop_merge_moments(parts.moments, reading_f64(parts.moments), &error) == NORMDROP_STATUS_OVERLAP);
    CHECK(error.buffer == NORMDROP_BUFFER_MOMENTS && error.other == NORMDROP_BUFFER_MOMENTS);
    others.moments = empty_f64(14);
    others.from = reading_f64(others.moments);
    CHECK(normdrop_merge_moments(parts.moments, others.from, &error) == NORMDROP_STATUS_LENGTH);
    CHECK(error.buffer == NORMDROP_BUFFER_MOMENTS && error.expected == 15 && error.actual == 14);
    CHECK(normdrop_merge_sums(parts.sums, others.from, &error) == NORMDROP_STATUS_LENGTH);
    CHECK(error.buffer == NORMDROP_BUFFER_SUMS && error.expected == 10 && error.actual == 14);
    parts.moments.len = 14;
    CHECK(normdrop_merge_moments(parts.moments, others.from, &error) == NORMDROP_STATUS_MULTIPLE);
    CHECK(error.buffer == NORMDROP_BUFFER_MOMENTS && error.expected == 3 && error.actual == 14);
    parts.moments.len = 15;
    CHECK(normdrop_merge_sums(parts.sums, reading_f64(parts.sums), &error) == NORMDROP_STATUS_OVERLAP);
    others.from.values = NULL;
    CHECK(normdrop_merge_sums(parts.sums, others.from, &error) == NORMDROP_STATUS_NULL);
    CHECK(normdrop_merge_moments(parts.moments, others.from, &error) == NORMDROP_STATUS_NULL);
    parts.sums.values = NULL;
    CHECK(normdrop_merge_sums(parts.sums, others.from, NULL) == NORMDROP_STATUS_NULL);

    others.mask = mask_of(&of.layer, 5);
    check_buffers(run_fill_mask, &of.layer, &others, mask, 1, 0, 0);
    check_structs(run_fill_mask, &of.layer, &others, 0);
    check_buffers(run_fill_mask_with, &of.layer, &others, mask, 1, 0, 0);
    check_structs(run_fill_mask_with, &of.layer, &others, 0);
    check_buffers(run_fill, &of.layer, &others, mask, 1, 0, 0);
    check_buffers(run_fill_with, &of.layer, &others, mask, 1, 0, 0);
    {
        size_t *lengths = (size_t *)fresh(6 * sizeof(size_t));
        for (j = 0; j < 6; j++) {
            lengths[j] = j;
        }
        others.lengths.values = lengths;
        others.lengths.len = 6;
        others.values = empty_f32(210);
        check_buffers(run_drop_padding, &of.layer, &others, drop_padding, COUNT(drop_padding), 0, 0);
        check_structs(run_drop_padding, &of.layer, &others, 0);
        check_buffers(run_clear_padding, &of.layer, &others, clear_padding, COUNT(clear_padding), 0, 0);
        check_structs(run_clear_padding, &of.layer, &others, 0);
        check_buffers(run_alpha_dropout, &of.layer, &others, alpha, COUNT(alpha), 0, 0);
        check_structs(run_alpha_dropout, &of.layer, &others, 0);
        check_buffers(run_alpha_dropout_backward, &of.layer, &others, alpha, COUNT(alpha), 0, 0);
        check_structs(run_alpha_dropout_backward, &of.layer, &others, 0);
        {
            normdrop_lengths needed;
            needed.version = NORMDROP_ABI_VERSION;
            CHECK(normdrop_layer_lengths(&of.layer, &needed, NULL) == NORMDROP_STATUS_OK);
            others.slope = random_f32(5);
            others.grad_output = random_f32(210);
            others.grad_slope = empty_f32(5);
            others.scratch = empty_f64(needed.prelu_scratch);
        }
        check_buffers(run_prelu, &of.layer, &others, prelu, COUNT(prelu), 0, 0);
        check_structs(run_prelu, &of.layer, &others, 0);
        check_buffers(run_prelu_gradient, &of.layer, &others, prelu_gradient, COUNT(prelu_gradient), 0, 0);
        check_structs(run_prelu_gradient, &of.layer, &others, 0);
        check_buffers(run_apply_noise, &of.layer, &others, noise, COUNT(noise), 0, 0);
        check_structs(run_apply_noise, &of.layer, &others, 0);
        lengths[2] = 8;
        CHECK(normdrop_drop_padding(&of.layer, others.lengths, others.mask, &error) == NORMDROP_STATUS_SEQUENCE_LENGTH);
        CHECK(error.buffer == NORMDROP_BUFFER_LENGTHS && error.expected == 7 && error.actual == 8 && error.value == 2);
        CHECK(normdrop_clear_padding(&of.layer, others.lengths, others.values, &error) == NORMDROP_STATUS_SEQUENCE_LENGTH);
        CHECK(error.buffer == NORMDROP_BUFFER_LENGTHS && error.expected == 7 && error.actual == 8 && error.value == 2);
    }
    CHECK(normdrop_fill_mask_with(&of.layer, NULL, NULL, others.mask, &error) == NORMDROP_STATUS_NULL);
    CHECK(error.buffer == NORMDROP_BUFFER_NEXT);
    CHECK(normdrop_bernoulli_fill_with(0.5, NULL, NULL, 210, others.mask, &error) == NORMDROP_STATUS_NULL);
    CHECK(error.buffer == NORMDROP_BUFFER_NEXT);
    CHECK(normdrop_bernoulli_fill(-1, 1, 0, 210, others.mask, &error) == NORMDROP_STATUS_PROBABILITY);
    CHECK(normdrop_bernoulli_fill_with(7, count_words, &of.layer, 210, others.mask, &error) == NORMDROP_STATUS_PROBABILITY);
    free_all();

    into = make_fold(NORMDROP_WEIGHT_ORDER_IN_OUT_TAPS, 4, 3, 2, 4);
    check_buffers(run_previous, &of.layer, &into, fold, COUNT(fold), 0, 0);
    into.order = NORMDROP_WEIGHT_ORDER_OUT_IN_TAPS;
    into.outputs = 3;
    into.inputs = 4;
    into.weights_bias = empty_f32(3);
    check_buffers(run_next, &of.layer, &into, fold, COUNT(fold), 0, 0);
    CHECK(normdrop_fold_into_previous(NULL, &error) == NORMDROP_STATUS_NULL && error.buffer == NORMDROP_BUFFER_CALL);
    CHECK(normdrop_fold_into_next(NULL, NULL) == NORMDROP_STATUS_NULL);
    into.version = 0;
    CHECK(normdrop_fold_into_previous(&into, &error) == NORMDROP_STATUS_VERSION && error.buffer == NORMDROP_BUFFER_CALL);
    CHECK(normdrop_fold_into_next(&into, &error) == NORMDROP_STATUS_VERSION);
    free_all();
}

int main(void) {
    test_names();
    test_layer();
    test_masks();
    test_seeds();
    test_padding();
    test_layers();
    test_options();
    test_gates();
    test_phases();
    test_halves();
    test_noise();
    test_alpha_dropout();
    test_prelu();
    test_masked();
    test_folds();
    test_stored();
    test_weight_orders();
    test_wrong_layers();
    test_wrong_buffers();
    test_wrong_halves();
    test_wrong_masked();
    printf("%ld passed, %ld failed\n", checks - failures, failures);
    return failures != 0;
}

/* normdrop_module.h: the calls in one line and the module, with the bits of the plain calls; its memory, and refusals. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <normdrop_module.h>

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);    \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

enum { ROWS = 5, FEATURES = 3, LEN = ROWS * FEATURES };

static normdrop_layer new_layer(double p) {
    normdrop_layer layer;
    CHECK(normdrop_layer_init(&layer, NORMDROP_ABI_VERSION) == NORMDROP_STATUS_OK);
    layer.outer = ROWS;
    layer.channels = FEATURES;
    layer.activation = NORMDROP_ACTIVATION_RELU;
    layer.p = p;
    return layer;
}

static normdrop_error new_error(void) {
    normdrop_error error;
    memset(&error, 0, sizeof error);
    error.version = NORMDROP_ABI_VERSION;
    return error;
}

static void data(float *x, float *grad_y) {
    int i;
    for (i = 0; i < LEN; i++) {
        x[i] = (float)(i * i % 7) - 0.5f * (float)i;
        grad_y[i] = (float)(i % 4) - 1.0f;
    }
}

/* Counts what is allocated and freed, and may have no memory. */
typedef struct Counter {
    int allocated, freed, has_memory;
    size_t size;
} Counter;

static void *count_allocate(void *context, size_t size) {
    Counter *counter = (Counter *)context;
    void *memory = counter->has_memory ? malloc(size) : NULL;
    counter->size = size;
    counter->allocated += memory != NULL;
    /* Memory is as the allocator found it. */
    if (memory != NULL) {
        memset(memory, 0xFF, size);
    }
    return memory;
}

static void count_release(void *context, void *memory, size_t size) {
    Counter *counter = (Counter *)context;
    CHECK(size == counter->size);
    counter->freed += 1;
    free(memory);
}

/* The same steps as plain calls, from the buffers of a module that has made none. */
static void plain(normdrop_module *with, uint64_t seed, const float *x, float *y, const float *grad_y, float *grad_x) {
    normdrop_error error = new_error();
    const size_t c = FEATURES;
    normdrop_slice_mut_u8 mask;
    normdrop_train_call train;
    normdrop_backward_call backward;
    mask.values = with->mask, mask.len = with->lengths.mask;
    CHECK(normdrop_fill_mask(&with->layer, seed, mask, &error) == NORMDROP_STATUS_OK);
    memset(&train, 0, sizeof train);
    train.version = NORMDROP_ABI_VERSION;
    train.weight.values = with->weight, train.weight.len = c;
    train.bias.values = with->bias, train.bias.len = c;
    train.running_mean.values = with->running_mean, train.running_mean.len = c;
    train.running_mean_tail.values = with->running_mean_tail, train.running_mean_tail.len = c;
    train.running_var.values = with->running_var, train.running_var.len = c;
    train.mask.values = with->mask, train.mask.len = with->lengths.mask;
    train.input.values = x, train.input.len = LEN;
    train.output.values = y, train.output.len = LEN;
    train.saved_mean.values = with->saved_mean, train.saved_mean.len = c;
    train.saved_mean_tail.values = with->saved_mean_tail, train.saved_mean_tail.len = c;
    train.saved_inv_std.values = with->saved_inv_std, train.saved_inv_std.len = c;
    train.scratch.values = with->scratch, train.scratch.len = with->lengths.scratch;
    CHECK(normdrop_train(&with->layer, &train, &error) == NORMDROP_STATUS_OK);
    memset(&backward, 0, sizeof backward);
    backward.version = NORMDROP_ABI_VERSION;
    backward.statistics = NORMDROP_STATISTICS_BATCH;
    backward.weight.values = with->weight, backward.weight.len = c;
    backward.bias.values = with->bias, backward.bias.len = c;
    backward.saved_mean.values = with->saved_mean, backward.saved_mean.len = c;
    backward.saved_mean_tail.values = with->saved_mean_tail, backward.saved_mean_tail.len = c;
    backward.saved_inv_std.values = with->saved_inv_std, backward.saved_inv_std.len = c;
    backward.mask.values = with->mask, backward.mask.len = with->lengths.mask;
    backward.input.values = x, backward.input.len = LEN;
    backward.grad_output.values = grad_y, backward.grad_output.len = LEN;
    backward.grad_input.values = grad_x, backward.grad_input.len = LEN;
    backward.grad_weight.values = with->grad_weight, backward.grad_weight.len = c;
    backward.grad_bias.values = with->grad_bias, backward.grad_bias.len = c;
    backward.scratch.values = with->scratch, backward.scratch.len = with->lengths.scratch;
    CHECK(normdrop_backward(&with->layer, &backward, &error) == NORMDROP_STATUS_OK);
}

static void the_module_gives_the_bits_of_the_plain_calls(void) {
    const normdrop_layer layer = new_layer(0.5);
    normdrop_error error = new_error();
    normdrop_module *module = normdrop_module_new(&layer, NULL, &error);
    normdrop_module *other = normdrop_module_new(&layer, NULL, NULL);
    float x[LEN], grad_y[LEN], y[2][LEN], grad_x[2][LEN];
    int step, i;
    CHECK(module != NULL && other != NULL);
    data(x, grad_y);
    for (step = 0; step < 3; step++) {
        module->weight[1] = other->weight[1] = 0.5f + (float)step;
        CHECK(normdrop_module_train(module, (uint64_t)step, x, y[0], &error) == NORMDROP_STATUS_OK);
        CHECK(normdrop_module_eval(module, x, grad_x[0], &error) == NORMDROP_STATUS_OK);
        CHECK(normdrop_module_backward(module, x, grad_y, grad_x[0], &error) == NORMDROP_STATUS_OK);
        plain(other, (uint64_t)step, x, y[1], grad_y, grad_x[1]);
        CHECK(memcmp(y[0], y[1], sizeof y[0]) == 0 && memcmp(grad_x[0], grad_x[1], sizeof grad_x[0]) == 0);
        CHECK(memcmp(module->grad_weight, other->grad_weight, FEATURES * sizeof(float)) == 0);
        CHECK(memcmp(module->grad_bias, other->grad_bias, FEATURES * sizeof(float)) == 0);
        CHECK(memcmp(module->running_mean, other->running_mean, FEATURES * sizeof(float)) == 0);
        CHECK(memcmp(module->running_mean_tail, other->running_mean_tail, FEATURES * sizeof(float)) == 0);
        CHECK(memcmp(module->running_var, other->running_var, FEATURES * sizeof(float)) == 0);
    }
    CHECK(module->running_mean[0] != 0.0f && module->running_var[0] != 1.0f && module->grad_bias[0] != 0.0f);
    /* In place, and without the gradient of the input. */
    memcpy(grad_x[1], grad_y, sizeof grad_y);
    CHECK(normdrop_module_backward(module, x, grad_x[1], grad_x[1], &error) == NORMDROP_STATUS_OK);
    CHECK(memcmp(grad_x[0], grad_x[1], sizeof grad_x[0]) == 0);
    module->grad_bias[0] = 77.0f;
    CHECK(normdrop_module_backward(module, x, grad_y, NULL, &error) == NORMDROP_STATUS_OK);
    CHECK(module->grad_bias[0] == other->grad_bias[0]);
    CHECK(normdrop_module_eval(module, x, y[0], &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_module_eval(module, x, x, &error) == NORMDROP_STATUS_OK);
    for (i = 0; i < LEN; i++) {
        CHECK(x[i] == y[0][i]);
    }
    normdrop_module_free(other);
    normdrop_module_free(module);
    normdrop_module_free(NULL);
}

static void a_module_is_one_allocation_and_none_is_left(void) {
    const normdrop_layer layer = new_layer(0.25);
    normdrop_layer wrong = layer;
    normdrop_error error = new_error();
    Counter counter = {0, 0, 1, 0};
    normdrop_allocator allocator;
    normdrop_module *module;
    allocator.allocate = count_allocate, allocator.release = count_release, allocator.context = &counter;
    module = normdrop_module_new(&layer, &allocator, &error);
    CHECK(module != NULL && counter.allocated == 1 && counter.freed == 0);
    CHECK(module->running_var[2] == 1.0f && module->running_mean[2] == 0.0f && module->running_mean_tail[0] == 0.0f);
    CHECK(module->weight[0] == 1.0f && module->bias[2] == 0.0f);
    CHECK((size_t)(module->mask - (unsigned char *)module) + module->lengths.mask <= counter.size);
    CHECK((size_t)module->saved_inv_std % sizeof(double) == 0 && (size_t)module->scratch % sizeof(double) == 0);
    normdrop_module_free(module);
    CHECK(counter.freed == 1);

    /* No memory: no module, and no error of the layer. */
    counter.has_memory = 0;
    error.status = NORMDROP_STATUS_SHAPE;
    CHECK(normdrop_module_new(&layer, &allocator, &error) == NULL && error.status == NORMDROP_STATUS_OK);
    /* A layer that is refused: nothing is asked of the allocator. */
    counter.has_memory = 1;
    wrong.p = 2.0;
    CHECK(normdrop_module_new(&wrong, &allocator, &error) == NULL && error.status == NORMDROP_STATUS_PROBABILITY);
    CHECK(normdrop_module_new(&wrong, &allocator, NULL) == NULL);
    /* Channels whose arrays would be larger than any memory. */
    wrong.p = 0.0, wrong.outer = 1, wrong.channels = (size_t)-1 / 8;
    counter.size = 0;
    CHECK(normdrop_module_new(&wrong, &allocator, &error) == NULL && counter.size == 0);
    CHECK(counter.allocated == 1 && counter.freed == 1);
}

static void without_a_training_call_there_is_nothing_to_differentiate(void) {
    const normdrop_layer layer = new_layer(0.5);
    normdrop_error error = new_error();
    normdrop_module *module = normdrop_module_new(&layer, NULL, &error);
    float x[LEN], grad_y[LEN], y[LEN], grad_x[LEN];
    CHECK(module != NULL);
    data(x, grad_y);
    grad_x[0] = 7.0f;
    CHECK(normdrop_module_backward(module, x, grad_y, grad_x, &error) != NORMDROP_STATUS_OK);
    CHECK(error.buffer == NORMDROP_BUFFER_SAVED_MEAN && grad_x[0] == 7.0f);
    CHECK(normdrop_module_train(module, 1, x, y, &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_module_backward(module, x, grad_y, grad_x, &error) == NORMDROP_STATUS_OK && grad_x[0] != 7.0f);
    /* A training call that is refused leaves nothing, either. */
    CHECK(normdrop_module_train(module, 2, NULL, y, &error) != NORMDROP_STATUS_OK);
    CHECK(error.buffer == NORMDROP_BUFFER_INPUT);
    CHECK(normdrop_module_backward(module, x, grad_y, grad_x, &error) != NORMDROP_STATUS_OK);
    normdrop_module_free(module);
}

/* With one slope it is the layer with LeakyReLU, whose bits it has; with one for each channel, each has its own. */
static void a_module_with_prelu_has_the_gradient_of_its_slopes(void) {
    normdrop_layer layer = new_layer(0.5);
    normdrop_error error = new_error();
    normdrop_module *leaky, *one, *each;
    float x[LEN], grad_y[LEN], y[3][LEN], grad_x[3][LEN];
    double sum = 0.0, sums[FEATURES] = {0, 0, 0};
    int i;
    layer.activation = NORMDROP_ACTIVATION_LEAKY_RELU, layer.slope = 0.5f;
    leaky = normdrop_module_new(&layer, NULL, &error);
    one = normdrop_module_new_prelu(&layer, 0, NULL, &error);
    each = normdrop_module_new_prelu(&layer, 1, NULL, &error);
    CHECK(leaky != NULL && one != NULL && each != NULL);
    CHECK(leaky->slopes == 0 && leaky->slope == NULL && one->slopes == 1 && each->slopes == FEATURES);
    CHECK(one->slope[0] == 0.25f && each->slope[FEATURES - 1] == 0.25f && one->layer.activation == NORMDROP_ACTIVATION_IDENTITY);
    one->slope[0] = each->slope[0] = each->slope[1] = each->slope[2] = 0.5f;
    data(x, grad_y);
    CHECK(normdrop_module_backward(one, x, grad_y, grad_x[0], &error) != NORMDROP_STATUS_OK);
    CHECK(error.buffer == NORMDROP_BUFFER_SAVED_MEAN);
    CHECK(normdrop_module_train(leaky, 3, x, y[0], &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_module_train(one, 3, x, y[1], &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_module_train(each, 3, x, y[2], &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_module_backward(leaky, x, grad_y, grad_x[0], &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_module_backward(one, x, grad_y, grad_x[1], &error) == NORMDROP_STATUS_OK);
    /* In place. */
    memcpy(grad_x[2], grad_y, sizeof grad_y);
    CHECK(normdrop_module_backward(each, x, grad_x[2], grad_x[2], &error) == NORMDROP_STATUS_OK);
    for (i = 0; i < LEN; i++) {
        CHECK(y[1][i] == y[0][i] && y[2][i] == y[0][i]);
        CHECK(grad_x[1][i] == grad_x[0][i] && grad_x[2][i] == grad_x[0][i]);
        if (y[0][i] < 0.0f) {
            /* act(z) = slope*z, so z is act(z)/slope, and a slope of a half loses no bit. */
            sum += (double)y[0][i] * 2.0 * (double)grad_y[i];
            sums[i % FEATURES] += (double)y[0][i] * 2.0 * (double)grad_y[i];
        }
    }
    CHECK(sum != 0.0 && one->grad_slope[0] - (float)sum < 1e-5f && (float)sum - one->grad_slope[0] < 1e-5f);
    for (i = 0; i < FEATURES; i++) {
        CHECK(each->grad_slope[i] - (float)sums[i] < 1e-5f && (float)sums[i] - each->grad_slope[i] < 1e-5f);
        CHECK(each->grad_weight[i] == leaky->grad_weight[i] && each->grad_bias[i] == leaky->grad_bias[i]);
    }
    CHECK(normdrop_module_eval(leaky, x, y[0], &error) == NORMDROP_STATUS_OK);
    CHECK(normdrop_module_eval(each, x, x, &error) == NORMDROP_STATUS_OK);
    for (i = 0; i < LEN; i++) {
        CHECK(x[i] == y[0][i]);
    }
    normdrop_module_free(each);
    normdrop_module_free(one);
    normdrop_module_free(leaky);
}

#ifndef __cplusplus
static void a_call_is_one_line(void) {
    const normdrop_layer layer = new_layer(0.0);
    normdrop_error error = new_error();
    float x[LEN], grad_y[LEN], y[LEN], grad_x[LEN], bias[FEATURES] = {0, 0.5f, 1}, module_y[LEN];
    float mean[FEATURES], tail[FEATURES], var[FEATURES] = {1, 2, 3};
    double inv_std[FEATURES], scratch[4096], prepared[128];
    normdrop_module *module = normdrop_module_new(&layer, NULL, &error);
    CHECK(module != NULL && module->lengths.scratch <= 4096);
    data(x, grad_y);
    CHECK(NORMDROP_TRAIN(&layer, &error, .input = NORMDROP_ARRAY(x), .output = NORMDROP_ARRAY(y),
                         .bias = NORMDROP_ARRAY(bias), .saved_mean = NORMDROP_ARRAY(mean),
                         .saved_mean_tail = NORMDROP_ARRAY(tail), .saved_inv_std = NORMDROP_ARRAY(inv_std),
                         .scratch = NORMDROP_ARRAY(scratch)) == NORMDROP_STATUS_OK);
    memcpy(module->bias, bias, sizeof bias);
    CHECK(normdrop_module_train(module, 0, x, module_y, &error) == NORMDROP_STATUS_OK);
    CHECK(memcmp(y, module_y, sizeof y) == 0);
    CHECK(NORMDROP_BACKWARD(&layer, &error, .input = NORMDROP_ARRAY(x), .grad_output = NORMDROP_ARRAY(grad_y),
                            .grad_input = NORMDROP_ARRAY(grad_x), .bias = NORMDROP_ARRAY(bias),
                            .statistics = NORMDROP_STATISTICS_BATCH, .saved_mean = NORMDROP_ARRAY(mean),
                            .saved_mean_tail = NORMDROP_ARRAY(tail), .saved_inv_std = NORMDROP_ARRAY(inv_std),
                            .scratch = NORMDROP_ARRAY(scratch)) == NORMDROP_STATUS_OK);
    CHECK(NORMDROP_EVAL(&layer, &error, .input = NORMDROP_ARRAY(x), .output = NORMDROP_ARRAY(y),
                        .running_mean = NORMDROP_ARRAY(mean), .running_var = NORMDROP_ARRAY(var),
                        .scratch = NORMDROP_ARRAY(scratch)) == NORMDROP_STATUS_OK);
    CHECK(module->lengths.prepared <= 128);
    CHECK(NORMDROP_PREPARE(&layer, NULL, .running_mean = NORMDROP_ARRAY(mean), .running_var = NORMDROP_ARRAY(var),
                           .prepared = {prepared, module->lengths.prepared}) == NORMDROP_STATUS_OK);
    {
        /* Of five samples the last two are padding: the statistics are those of the first three. */
        const size_t lengths[ROWS] = {1, 1, 1, 0, 0};
        normdrop_layer three = layer;
        float workspace[4 * LEN], y_three[LEN], ones[LEN], factors[LEN];
        int i;
        three.outer = 3;
        CHECK(NORMDROP_TRAIN_MASKED(&layer, NORMDROP_MASKED(.lengths = NORMDROP_ARRAY(lengths), .workspace = NORMDROP_ARRAY(workspace)),
                                    &error, .input = NORMDROP_ARRAY(x), .output = NORMDROP_ARRAY(y),
                                    .saved_mean = NORMDROP_ARRAY(mean), .saved_mean_tail = NORMDROP_ARRAY(tail),
                                    .saved_inv_std = NORMDROP_ARRAY(inv_std), .scratch = NORMDROP_ARRAY(scratch)) == NORMDROP_STATUS_OK);
        CHECK(NORMDROP_BACKWARD_MASKED(&layer, NORMDROP_MASKED(.lengths = NORMDROP_ARRAY(lengths), .workspace = NORMDROP_ARRAY(workspace)),
                                       &error, .input = NORMDROP_ARRAY(x), .grad_output = NORMDROP_ARRAY(grad_y),
                                       .grad_input = NORMDROP_ARRAY(grad_x), .saved_mean = NORMDROP_ARRAY(mean),
                                       .saved_mean_tail = NORMDROP_ARRAY(tail), .saved_inv_std = NORMDROP_ARRAY(inv_std),
                                       .scratch = NORMDROP_ARRAY(scratch)) == NORMDROP_STATUS_OK);
        CHECK(NORMDROP_EVAL(&three, &error, .input = {x, 9}, .output = {y_three, 9}, .running_mean = NORMDROP_ARRAY(mean),
                            .running_var = NORMDROP_ARRAY(var), .scratch = NORMDROP_ARRAY(scratch)) == NORMDROP_STATUS_OK);
        for (i = 9; i < LEN; i++) {
            CHECK(y[i] == 0.0f && grad_x[i] == 0.0f);
        }
        CHECK(NORMDROP_EVAL_MASKED(&layer, NORMDROP_MASKED(.lengths = NORMDROP_ARRAY(lengths), .workspace = NORMDROP_ARRAY(workspace)),
                                   &error, .input = NORMDROP_ARRAY(x), .output = NORMDROP_ARRAY(y),
                                   .running_mean = NORMDROP_ARRAY(mean), .running_var = NORMDROP_ARRAY(var),
                                   .scratch = NORMDROP_ARRAY(scratch)) == NORMDROP_STATUS_OK);
        CHECK(memcmp(y, y_three, 9 * sizeof(float)) == 0 && y[9] == 0.0f);
        for (i = 0; i < LEN; i++) {
            ones[i] = factors[i] = 1.0f;
        }
        CHECK(normdrop_apply_noise(&layer, NORMDROP_NOISE(.law = NORMDROP_NOISE_LAW_UNIFORM, .width = 0.1f), 42,
                                   (normdrop_slice_mut_f32)NORMDROP_ARRAY(factors), &error) == NORMDROP_STATUS_OK);
        CHECK(memcmp(ones, factors, sizeof ones) != 0);
        CHECK(factors[0] > 0.9f && factors[0] < 1.1f && factors[LEN - 1] > 0.9f && factors[LEN - 1] < 1.1f);
    }
    /* What is left out is missed. */
    CHECK(NORMDROP_TRAIN(&layer, &error, .input = NORMDROP_ARRAY(x)) != NORMDROP_STATUS_OK);
    normdrop_module_free(module);
}
#else
static void a_call_is_one_line(void) {
    const normdrop_layer layer = new_layer(0.0);
    normdrop::Module module(normdrop_module_new(&layer, nullptr, nullptr));
    float x[LEN], grad_y[LEN], y[LEN];
    CHECK(module != nullptr);
    data(x, grad_y);
    CHECK(normdrop_module_train(module.get(), 0, x, y, nullptr) == NORMDROP_STATUS_OK);
}
#endif

int main(void) {
    the_module_gives_the_bits_of_the_plain_calls();
    a_module_with_prelu_has_the_gradient_of_its_slopes();
    a_module_is_one_allocation_and_none_is_left();
    without_a_training_call_there_is_nothing_to_differentiate();
    a_call_is_one_line();
    printf("module: all in order\n");
    return 0;
}

/* One training step of batch norm + ReLU + dropout on four rows of three features, then an evaluation in place. */

#include <stdio.h>
#include <stdlib.h>

#include <normdrop.h>

enum { ROWS = 4, FEATURES = 3, LEN = ROWS * FEATURES };

/* Prints what is wrong with a call, and gives up. */
static void must(normdrop_status status, const normdrop_error *error) {
    if (status == NORMDROP_STATUS_OK) {
        return;
    }
    fprintf(stderr, "normdrop: %s\n", normdrop_status_text(status));
    if (error->buffer != NORMDROP_BUFFER_NONE) {
        fprintf(stderr, "  %s: expected %zu, got %zu\n", normdrop_buffer_name(error->buffer), error->expected,
                error->actual);
    }
    exit(1);
}

int main(void) {
    const float x[LEN] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    const float grad_y[LEN] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    float y[LEN], grad_x[LEN];
    float running_mean[FEATURES] = {0, 0, 0}, running_var[FEATURES] = {1, 1, 1};
    float mean[FEATURES], mean_tail[FEATURES];
    double inv_std[FEATURES];
    normdrop_error error = {.version = NORMDROP_ABI_VERSION};
    normdrop_lengths lengths = {.version = NORMDROP_ABI_VERSION};
    normdrop_layer layer;

    if (normdrop_abi_version() != NORMDROP_ABI_VERSION) {
        fprintf(stderr, "the library is not of the version of its header\n");
        return 1;
    }
    normdrop_layer_init(&layer, NORMDROP_ABI_VERSION);
    layer.outer = ROWS;
    layer.channels = FEATURES;
    layer.activation = NORMDROP_ACTIVATION_RELU;
    layer.p = 0.5;
    must(normdrop_layer_lengths(&layer, &lengths, &error), &error);

    uint8_t *mask = malloc(lengths.mask);
    double *scratch = malloc(lengths.scratch * sizeof *scratch);

    /* A mask is a pure function of its seed: the same bits on every machine, so that it can be made again later. */
    must(normdrop_fill_mask(&layer, 42, (normdrop_slice_mut_u8){mask, lengths.mask}, &error), &error);

    /* What is not named is left out: here, weight, bias and residual. */
    normdrop_train_call train = {
        .version = NORMDROP_ABI_VERSION,
        .running_mean = NORMDROP_ARRAY(running_mean),
        .running_var = NORMDROP_ARRAY(running_var),
        .mask = {mask, lengths.mask},
        .input = NORMDROP_ARRAY(x),
        .output = NORMDROP_ARRAY(y),
        .saved_mean = NORMDROP_ARRAY(mean),
        .saved_mean_tail = NORMDROP_ARRAY(mean_tail),
        .saved_inv_std = NORMDROP_ARRAY(inv_std),
        .scratch = {scratch, lengths.scratch},
    };
    must(normdrop_train(&layer, &train, &error), &error);
    printf("normdrop %s, %s backend\n", normdrop_version(), normdrop_backend_name(normdrop_backend_detect()));
    printf("mean %g %g %g, running mean %g %g %g\n", mean[0], mean[1], mean[2], running_mean[0], running_mean[1],
           running_mean[2]);
    for (int row = 0; row < ROWS; row++) {
        printf("y    %9.6f %9.6f %9.6f\n", y[3 * row], y[3 * row + 1], y[3 * row + 2]);
    }

    normdrop_backward_call backward = {
        .version = NORMDROP_ABI_VERSION,
        .statistics = NORMDROP_STATISTICS_BATCH,
        .saved_mean = NORMDROP_ARRAY(mean),
        .saved_mean_tail = NORMDROP_ARRAY(mean_tail),
        .saved_inv_std = NORMDROP_ARRAY(inv_std),
        .mask = {mask, lengths.mask},
        .input = NORMDROP_ARRAY(x),
        .grad_output = NORMDROP_ARRAY(grad_y),
        .grad_input = NORMDROP_ARRAY(grad_x),
        .scratch = {scratch, lengths.scratch},
    };
    must(normdrop_backward(&layer, &backward, &error), &error);
    for (int row = 0; row < ROWS; row++) {
        printf("dx   %9.6f %9.6f %9.6f\n", grad_x[3 * row], grad_x[3 * row + 1], grad_x[3 * row + 2]);
    }

    /* Evaluation may overwrite its input: the same buffer for both. */
    normdrop_eval_call eval = {
        .version = NORMDROP_ABI_VERSION,
        .running_mean = NORMDROP_ARRAY(running_mean),
        .running_var = NORMDROP_ARRAY(running_var),
        .input = NORMDROP_ARRAY(y),
        .output = NORMDROP_ARRAY(y),
        .scratch = {scratch, lengths.scratch},
    };
    must(normdrop_eval(&layer, &eval, &error), &error);

    /* A call that is wrong is refused before anything is written, and says why. */
    eval.output.len = LEN - 1;
    normdrop_status status = normdrop_eval(&layer, &eval, &error);
    printf("refused: %s (%s, %s)\n", normdrop_status_text(status), normdrop_buffer_name(error.buffer),
           normdrop_buffer_name(error.other));

    free(scratch);
    free(mask);
    return status == NORMDROP_STATUS_OVERLAP ? 0 : 1;
}

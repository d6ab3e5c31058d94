/* The kernel under test: batch norm in training, forward and backward, on [outer, channels, inner]. It stands for yours.
 *
 * Once with the mistake that is made most often, and once without it. */
#include <math.h>
#include <stddef.h>

typedef struct {
    size_t outer, channels, inner;
    float eps;
} layer;

/* The index of the value i of sample o of channel c. */
static size_t at(const layer *layer, size_t o, size_t c, size_t i) {
    return (o * layer->channels + c) * layer->inner + i;
}

/* The variance as the mean of the squares minus the square of the mean: one pass over the data, and it cancels. */
static void one_pass(const layer *layer, size_t c, const float *x, float *mean, float *var) {
    float sum = 0, squares = 0, samples = (float)(layer->outer * layer->inner);
    for (size_t o = 0; o < layer->outer; o++)
        for (size_t i = 0; i < layer->inner; i++) {
            float value = x[at(layer, o, c, i)];
            sum += value;
            squares += value * value;
        }
    *mean = sum / samples;
    *var = squares / samples - *mean * *mean;
}

void one_pass_forward(const layer *layer, const float *weight, const float *bias, const float *x, float *mean, float *var,
                      float *y) {
    for (size_t c = 0; c < layer->channels; c++) {
        one_pass(layer, c, x, &mean[c], &var[c]);
        float slope = weight[c] / sqrtf(var[c] + layer->eps);
        for (size_t o = 0; o < layer->outer; o++)
            for (size_t i = 0; i < layer->inner; i++) {
                size_t index = at(layer, o, c, i);
                y[index] = (x[index] - mean[c]) * slope + bias[c];
            }
    }
}

/* Mean first, then the squares of what is left, both in double. */
static void two_passes(const layer *layer, size_t c, const float *x, double *mean, double *var) {
    double sum = 0, squares = 0, samples = (double)(layer->outer * layer->inner);
    for (size_t o = 0; o < layer->outer; o++)
        for (size_t i = 0; i < layer->inner; i++)
            sum += x[at(layer, o, c, i)];
    *mean = sum / samples;
    for (size_t o = 0; o < layer->outer; o++)
        for (size_t i = 0; i < layer->inner; i++) {
            double deviation = x[at(layer, o, c, i)] - *mean;
            squares += deviation * deviation;
        }
    *var = squares / samples;
}

void two_pass_forward(const layer *layer, const float *weight, const float *bias, const float *x, float *mean, float *var,
                      float *y) {
    for (size_t c = 0; c < layer->channels; c++) {
        double exact_mean, exact_var;
        two_passes(layer, c, x, &exact_mean, &exact_var);
        mean[c] = (float)exact_mean;
        var[c] = (float)exact_var;
        double slope = weight[c] / sqrt(exact_var + layer->eps);
        for (size_t o = 0; o < layer->outer; o++)
            for (size_t i = 0; i < layer->inner; i++) {
                size_t index = at(layer, o, c, i);
                y[index] = (float)((x[index] - exact_mean) * slope + bias[c]);
            }
    }
}

/* The gradients, for either: d_bias = sum(dy), d_weight = sum(dy*xhat),
 * dx = weight/sqrt(var + eps) * (dy - d_bias/samples - xhat*d_weight/samples). */
void backward(const layer *layer, const float *weight, const float *x, const float *dy, float *dx, float *d_weight,
              float *d_bias) {
    double samples = (double)(layer->outer * layer->inner);
    for (size_t c = 0; c < layer->channels; c++) {
        double mean, var, of_bias = 0, of_weight = 0;
        two_passes(layer, c, x, &mean, &var);
        double inv_std = 1 / sqrt(var + layer->eps);
        for (size_t o = 0; o < layer->outer; o++)
            for (size_t i = 0; i < layer->inner; i++) {
                size_t index = at(layer, o, c, i);
                of_bias += dy[index];
                of_weight += dy[index] * ((x[index] - mean) * inv_std);
            }
        d_bias[c] = (float)of_bias;
        d_weight[c] = (float)of_weight;
        for (size_t o = 0; o < layer->outer; o++)
            for (size_t i = 0; i < layer->inner; i++) {
                size_t index = at(layer, o, c, i);
                double xhat = (x[index] - mean) * inv_std;
                dx[index] = (float)(weight[c] * inv_std * (dy[index] - of_bias / samples - xhat * of_weight / samples));
            }
    }
}

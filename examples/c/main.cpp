// The same library from C++: one training step of batch norm, GELU and dropout on images, and an evaluation in place.

#include <cstdio>
#include <vector>

#include <normdrop.hpp>

int main() {
    normdrop::Config config;
    config.activation = normdrop::Activation::gelu;
    config.p = 0.25;
    const normdrop::Layer layer(normdrop::Shape::nchw(2, 3, 2, 2), config);

    std::vector<float> x(layer.lengths().elements), y(x.size()), dx(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
        x[i] = static_cast<float>(i);
    }
    std::vector<float> running_mean(3, 0.0f), running_var(3, 1.0f), grad_weight(3), grad_bias(3);
    const std::vector<std::uint8_t> mask = layer.mask(42);

    // What is not named is left out: here, weight, bias and residual.
    normdrop::Train train;
    train.running_mean = running_mean;
    train.running_var = running_var;
    train.mask = mask;
    train.input = x;
    train.output = y;
    const normdrop::Saved saved = layer.train(train);
    std::printf("mean %g %g %g\n", static_cast<double>(saved.mean[0]), static_cast<double>(saved.mean[1]), static_cast<double>(saved.mean[2]));

    normdrop::Backward backward;
    backward.saved = &saved;
    backward.mask = mask;
    backward.input = x;
    backward.grad_output = y;
    backward.grad_input = dx;
    backward.grad_weight = grad_weight;
    backward.grad_bias = grad_bias;
    layer.backward(backward);

    // Without a mask, dropout is off; the output may be the input itself.
    normdrop::Eval eval;
    eval.running_mean = running_mean;
    eval.running_var = running_var;
    eval.input = x;
    eval.output = x;
    layer.eval(eval);
    std::printf("evaluated: %.6f to %.6f\n", static_cast<double>(x.front()), static_cast<double>(x.back()));

    try {
        std::vector<float> too_few(23);
        eval.output = too_few;
        layer.eval(eval);
    } catch (const normdrop::Error &refused) {
        std::printf("refused: %s\n", refused.what());
        return refused.status() == NORMDROP_STATUS_LENGTH && refused.actual() == 23 ? 0 : 1;
    }
    return 1;
}

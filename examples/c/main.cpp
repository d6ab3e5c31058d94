// The same library from C++: a layer that owns its buffers, throws what C returns, and evaluates a batch of images.

#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include <normdrop.h>

namespace {

void check(normdrop_status status, const normdrop_error &error) {
    if (status == NORMDROP_STATUS_OK) {
        return;
    }
    std::string text = normdrop_status_text(status);
    if (error.buffer != NORMDROP_BUFFER_NONE) {
        text += std::string(": ") + normdrop_buffer_name(error.buffer) + ", expected " + std::to_string(error.expected) +
                ", got " + std::to_string(error.actual);
    }
    throw std::invalid_argument(text);
}

normdrop_slice_f32 reading(const std::vector<float> &values) { return {values.data(), values.size()}; }
normdrop_slice_mut_f32 writing(std::vector<float> &values) { return {values.data(), values.size()}; }

// Batch norm and GELU on NCHW images, with running statistics.
class Layer {
  public:
    Layer(std::size_t images, std::size_t channels, std::size_t pixels)
        : running_mean(channels, 0.0f), running_var(channels, 1.0f) {
        normdrop_layer_init(&layer, NORMDROP_ABI_VERSION);
        layer.outer = images;
        layer.channels = channels;
        layer.inner = pixels;
        layer.activation = NORMDROP_ACTIVATION_GELU;
        normdrop_error error = new_error();
        normdrop_lengths lengths{};
        lengths.version = NORMDROP_ABI_VERSION;
        check(normdrop_layer_lengths(&layer, &lengths, &error), error);
        scratch.resize(lengths.scratch);
    }

    // Overwrites the images with the activations.
    void eval(std::vector<float> &images) {
        normdrop_error error = new_error();
        normdrop_eval_call call{}; // zero: no weight, bias, residual, mask
        call.version = NORMDROP_ABI_VERSION;
        call.running_mean = reading(running_mean);
        call.running_var = reading(running_var);
        call.input = reading(images);
        call.output = writing(images);
        call.scratch = {scratch.data(), scratch.size()};
        check(normdrop_eval(&layer, &call, &error), error);
    }

  private:
    static normdrop_error new_error() {
        normdrop_error error{};
        error.version = NORMDROP_ABI_VERSION;
        return error;
    }

    normdrop_layer layer;
    std::vector<float> running_mean, running_var;
    std::vector<double> scratch;
};

} // namespace

int main() {
    Layer layer(2, 3, 4);
    std::vector<float> images(24, 1.0f);
    layer.eval(images);
    std::printf("gelu(1) = %.7f\n", static_cast<double>(images[0]));
    try {
        std::vector<float> too_few(23);
        layer.eval(too_few);
    } catch (const std::invalid_argument &refused) {
        std::printf("refused: %s\n", refused.what());
        return 0;
    }
    return 1;
}

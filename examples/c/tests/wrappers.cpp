// normdrop.hpp against normdrop.h: each wrapper gives the bits of its function of C, and throws what that refuses.

#include <array>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <normdrop.hpp>
#include <normdrop.hpp> // Twice, as two headers of a user may do it.

namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;
using Bytes = std::vector<std::uint8_t>;

void require(bool holds, const char *what, int line) {
    if (!holds) {
        std::fprintf(stderr, "wrappers.cpp:%d: %s\n", line, what);
        std::exit(1);
    }
}
#define REQUIRE(condition) require((condition), #condition, __LINE__)
#define OK(call) REQUIRE((call) == NORMDROP_STATUS_OK)

template <class T> bool same(const std::vector<T> &one, const std::vector<T> &other) {
    return one.size() == other.size() && std::memcmp(one.data(), other.data(), one.size() * sizeof(T)) == 0;
}
bool same(const normdrop::Saved &one, const normdrop::Saved &other) {
    return same(one.mean, other.mean) && same(one.mean_tail, other.mean_tail) && same(one.inv_std, other.inv_std);
}

/// The error that a call throws.
template <class Function> normdrop::Error refusal(Function function, int line) {
    try {
        function();
    } catch (const normdrop::Error &error) {
        return error;
    }
    require(false, "a call was not refused", line);
    std::abort();
}
#define REFUSED(statement, expected) REQUIRE(refusal([&] { statement; }, __LINE__).status() == (expected))

Floats random_floats(std::size_t len, std::uint32_t seed) {
    std::mt19937 generator(seed);
    Floats values(len);
    for (float &value : values) {
        value = static_cast<float>(generator()) / 4294967296.0f * 4.0f - 1.5f;
    }
    return values;
}

normdrop_slice_f32 in(const Floats &values) { return {values.data(), values.size()}; }
normdrop_slice_f64 in(const Doubles &values) { return {values.data(), values.size()}; }
normdrop_slice_u8 in(const Bytes &values) { return {values.data(), values.size()}; }
normdrop_slice_mut_f32 out(Floats &values) { return {values.data(), values.size()}; }
normdrop_slice_mut_f64 out(Doubles &values) { return {values.data(), values.size()}; }
normdrop_slice_mut_u8 out(Bytes &values) { return {values.data(), values.size()}; }

constexpr std::size_t C = 5;

normdrop::Config unusual() {
    normdrop::Config config;
    config.activation = normdrop::Activation::leaky_relu;
    config.p = 0.3;
    config.eps = 1e-3f;
    config.momentum = 0.25;
    config.slope = 0.125f;
    config.alpha = 0.75f;
    config.running_variance = normdrop::RunningVariance::biased;
    config.backend = normdrop::Backend::portable;
    return config;
}

/// A layer with every constant away from its default, and the same in C.
struct Problem {
    normdrop::Layer layer{normdrop::Shape::nchw(4, C, 3, 7), unusual()};
    normdrop_layer c = layer.c();
    std::size_t len = layer.lengths().elements;
    Floats x = random_floats(len, 1), residual = random_floats(len, 2), dy = random_floats(len, 3);
    Floats weight = random_floats(C, 4), bias = random_floats(C, 5);
    Bytes mask = layer.mask(99);
    Doubles scratch = Doubles(layer.lengths().scratch);
    Floats mean{0.5f, -0.5f, 0.25f, 0.0f, 1.0f}, tail = Floats(C, 1e-9f), var{1.0f, 2.0f, 0.5f, 3.0f, 1.5f};
};

void shapes_and_constants() {
    const Problem problem;
    normdrop_layer expected;
    OK(normdrop_layer_init(&expected, NORMDROP_ABI_VERSION));
    expected.outer = 4;
    expected.channels = C;
    expected.inner = 21;
    expected.activation = NORMDROP_ACTIVATION_LEAKY_RELU;
    expected.p = 0.3;
    expected.eps = 1e-3f;
    expected.momentum = 0.25;
    expected.slope = 0.125f;
    expected.alpha = 0.75f;
    expected.running_variance = NORMDROP_RUNNING_VARIANCE_BIASED;
    expected.backend = NORMDROP_BACKEND_PORTABLE;
    const normdrop_layer &got = problem.layer.c();
    REQUIRE(got.outer == expected.outer && got.channels == expected.channels && got.inner == expected.inner);
    REQUIRE(got.positions == expected.positions && got.activation == expected.activation && !(got.p < expected.p || got.p > expected.p));
    REQUIRE(!(got.eps < expected.eps || got.eps > expected.eps) && !(got.slope < expected.slope || got.slope > expected.slope));
    REQUIRE(!(got.alpha < expected.alpha || got.alpha > expected.alpha));
    REQUIRE(!(got.momentum < expected.momentum || got.momentum > expected.momentum) && got.tasks == expected.tasks);
    REQUIRE(got.running_variance == expected.running_variance && got.backend == expected.backend && got.granularity == expected.granularity);
    // The defaults of Config are those of C.
    normdrop_layer usual;
    OK(normdrop_layer_init(&usual, NORMDROP_ABI_VERSION));
    const normdrop_layer made = normdrop::Layer(normdrop::Shape(1, 1, 1)).c();
    // The struct may end with padding.
    REQUIRE(std::memcmp(&usual, &made, offsetof(normdrop_layer, tasks) + sizeof usual.tasks) == 0);

    using normdrop::Shape;
    const auto is = [](const Shape &shape, std::size_t outer, std::size_t channels, std::size_t inner, std::size_t positions) {
        return shape.outer == outer && shape.channels == channels && shape.inner == inner && shape.positions == positions;
    };
    REQUIRE(is(Shape::nc(2, 3), 2, 3, 1, 1) && is(Shape::ncl(2, 3, 5), 2, 3, 5, 1) && is(Shape::nchw(2, 3, 5, 7), 2, 3, 35, 1));
    REQUIRE(is(Shape::ncdhw(2, 3, 5, 7, 11), 2, 3, 385, 1) && is(Shape::nlc(2, 5, 3), 10, 3, 1, 5));
    REQUIRE(is(Shape::nhwc(2, 5, 7, 3), 70, 3, 1, 35) && is(Shape::ndhwc(2, 5, 7, 11, 3), 770, 3, 1, 385));
    const std::size_t half = std::size_t{1} << (4 * sizeof(std::size_t));
    REFUSED(Shape::nchw(1, 1, half, half), NORMDROP_STATUS_SHAPE);
    REQUIRE(is(Shape::nchw(1, 1, half, 0), 1, 1, 0, 1) && is(Shape::ncdhw(1, 1, half, half, 0), 1, 1, 0, 1));
    REFUSED(normdrop::Layer(Shape(half, half, 1)), NORMDROP_STATUS_SHAPE);
    normdrop::Config config;
    config.p = 1.5;
    const normdrop::Error error = refusal([&] { normdrop::Layer(Shape::nc(2, 3), config); }, __LINE__);
    REQUIRE(error.status() == NORMDROP_STATUS_PROBABILITY && error.value() > 1.4 && std::string(error.what()).find("1.5") != std::string::npos);
}

void masks() {
    const Problem problem;
    const normdrop_layer &c = problem.c;
    Bytes expected(problem.mask.size());
    OK(normdrop_fill_mask(&c, 99, out(expected), nullptr));
    REQUIRE(same(problem.mask, expected));

    std::mt19937 one(7), other(7);
    Bytes mask(expected.size());
    problem.layer.fill_mask_with(one, mask);
    OK(normdrop_fill_mask_with(
        &c, [](void *context) { return static_cast<std::uint32_t>((*static_cast<std::mt19937 *>(context))()); }, &other, out(expected), nullptr));
    REQUIRE(same(mask, expected) && one == other);
    const std::size_t bits = 1234;
    Bytes part(normdrop::mask_len(bits)), expected_part(part.size());
    REQUIRE(part.size() == normdrop_mask_len(bits));
    normdrop::fill_mask_with(0.3, one, bits, part);
    OK(normdrop_bernoulli_fill_with(
        0.3, [](void *context) { return static_cast<std::uint32_t>((*static_cast<std::mt19937 *>(context))()); }, &other, bits, out(expected_part),
        nullptr));
    REQUIRE(same(part, expected_part));
    normdrop::fill_mask(0.3, 5, 77, bits, part);
    OK(normdrop_bernoulli_fill(0.3, 5, 77, bits, out(expected_part), nullptr));
    REQUIRE(same(part, expected_part));

    // An exception of a generator comes back, after a number of words.
    struct Failing {
        int left = 20;
        static constexpr std::uint32_t min() { return 0; }
        static constexpr std::uint32_t max() { return 0xFFFFFFFF; }
        std::uint32_t operator()() {
            if (left-- == 0) {
                throw std::runtime_error("no more random bits");
            }
            return 0x12345678;
        }
    } failing;
    bool thrown = false;
    try {
        problem.layer.fill_mask_with(failing, mask);
    } catch (const std::runtime_error &error) {
        thrown = std::string(error.what()) == "no more random bits";
    }
    REQUIRE(thrown && failing.left == -1);

    const normdrop_keep keep = normdrop::keep(0.3);
    normdrop_keep expected_keep{};
    expected_keep.version = NORMDROP_ABI_VERSION;
    OK(normdrop_bernoulli_keep(0.3, &expected_keep, nullptr));
    REQUIRE(keep.threshold == expected_keep.threshold && keep.threshold != 0);
    REFUSED(normdrop::keep(-0.5), NORMDROP_STATUS_PROBABILITY);
    REQUIRE(normdrop::seed_for(1, 2, 3, 4) == normdrop_seed_for(1, 2, 3, 4) && normdrop::seed_for(1, 2) == normdrop_seed_for(1, 2, 0, 0));

    const std::vector<std::size_t> lengths{21, 20, 0, 3};
    mask = expected = problem.mask;
    problem.layer.drop_padding(lengths, mask);
    OK(normdrop_drop_padding(&c, {lengths.data(), lengths.size()}, out(expected), nullptr));
    REQUIRE(same(mask, expected) && !same(mask, problem.mask));
    Floats values = problem.x, expected_values = problem.x;
    problem.layer.clear_padding(lengths, values);
    OK(normdrop_clear_padding(&c, {lengths.data(), lengths.size()}, out(expected_values), nullptr));
    REQUIRE(same(values, expected_values) && !same(values, problem.x));
}

void halves() {
    const Problem problem;
    const normdrop::Layer &layer = problem.layer;
    using Words = std::vector<std::uint16_t>;
    // The upper halves of floats: bf16.
    const auto upper = [](const Floats &floats) {
        Words words(floats.size());
        for (std::size_t i = 0; i < floats.size(); ++i) {
            std::uint32_t bits;
            std::memcpy(&bits, &floats[i], sizeof bits);
            words[i] = static_cast<std::uint16_t>(bits >> 16);
        }
        return words;
    };
    const Words x = upper(problem.x), residual = upper(problem.residual), dy = upper(problem.dy);
    Words y(problem.len), expected_y(problem.len), dx(problem.len), expected_dx(problem.len), dr(problem.len), expected_dr(problem.len);
    const auto in_half = [](const Words &words) { return normdrop_halves{words.data(), words.size(), NORMDROP_ELEMENT_BF16}; };
    const auto out_half = [](Words &words) { return normdrop_halves_mut{words.data(), words.size(), NORMDROP_ELEMENT_F16}; };
    const normdrop::Element bf16 = normdrop::Element::bf16, f16 = normdrop::Element::f16;
    normdrop::Train train;
    train.mask = problem.mask;
    train.input_half = {x, bf16};
    train.residual_half = {residual, bf16};
    train.output_half = {y, f16};
    const normdrop::Saved saved = layer.train(train);
    normdrop::Saved expected{Floats(C), Floats(C), Doubles(C)};
    Doubles scratch = problem.scratch;
    normdrop_train_call c_train{};
    c_train.version = NORMDROP_ABI_VERSION;
    c_train.mask = in(problem.mask);
    c_train.input_half = in_half(x);
    c_train.residual_half = in_half(residual);
    c_train.output_half = out_half(expected_y);
    c_train.saved_mean = out(expected.mean);
    c_train.saved_mean_tail = out(expected.mean_tail);
    c_train.saved_inv_std = out(expected.inv_std);
    c_train.scratch = out(scratch);
    OK(normdrop_train(&problem.c, &c_train, nullptr));
    REQUIRE(same(y, expected_y) && same(saved, expected));
    normdrop::Backward backward;
    backward.saved = &saved;
    backward.mask = problem.mask;
    backward.input_half = {x, bf16};
    backward.residual_half = {residual, bf16};
    backward.grad_output_half = {dy, bf16};
    backward.grad_input_half = {dx, f16};
    backward.grad_residual_half = {dr, f16};
    layer.backward(backward);
    normdrop_backward_call c_backward{};
    c_backward.version = NORMDROP_ABI_VERSION;
    c_backward.mask = in(problem.mask);
    c_backward.saved_mean = in(saved.mean);
    c_backward.saved_mean_tail = in(saved.mean_tail);
    c_backward.saved_inv_std = in(saved.inv_std);
    c_backward.input_half = in_half(x);
    c_backward.residual_half = in_half(residual);
    c_backward.grad_output_half = in_half(dy);
    c_backward.grad_input_half = out_half(expected_dx);
    c_backward.grad_residual_half = out_half(expected_dr);
    c_backward.scratch = out(scratch);
    OK(normdrop_backward(&problem.c, &c_backward, nullptr));
    REQUIRE(same(dx, expected_dx) && same(dr, expected_dr) && !same(dx, dr));

    // The phases of one part give the same; floats are as good as halves where nothing is rounded.
    normdrop::Scratch memory;
    Doubles moments(layer.lengths().moments);
    layer.moments(normdrop::Halves(x, bf16), moments, memory);
    normdrop::Finish finish;
    finish.moments = moments;
    const normdrop::Saved finished = layer.finish(finish);
    REQUIRE(same(finished, saved));
    normdrop::Apply apply;
    apply.saved = &finished;
    apply.mask = problem.mask;
    apply.input_half = {x, bf16};
    apply.residual_half = {residual, bf16};
    apply.output_half = {y, f16};
    layer.apply(apply);
    REQUIRE(same(y, expected_y));
    normdrop::Reduce reduce;
    reduce.saved = &finished;
    reduce.mask = problem.mask;
    reduce.input_half = {x, bf16};
    reduce.residual_half = {residual, bf16};
    reduce.grad_output_half = {dy, bf16};
    const Doubles sums = layer.reduce(reduce);
    normdrop::ApplyGradient apply_gradient;
    apply_gradient.saved = &finished;
    apply_gradient.samples = moments[0];
    apply_gradient.sums = sums;
    apply_gradient.mask = problem.mask;
    apply_gradient.input_half = {x, bf16};
    apply_gradient.residual_half = {residual, bf16};
    apply_gradient.grad_output_half = {dy, bf16};
    apply_gradient.grad_input_half = {dx, f16};
    apply_gradient.grad_residual_half = {dr, f16};
    layer.apply_gradient(apply_gradient);
    REQUIRE(same(dx, expected_dx) && same(dr, expected_dr));

    normdrop::Eval eval;
    eval.running_mean = problem.mean;
    eval.running_var = problem.var;
    eval.input_half = {x, bf16};
    Floats floats(problem.len), other_floats(problem.len), widened(problem.len);
    eval.output = floats;
    layer.eval(eval);
    for (std::size_t i = 0; i < x.size(); ++i) {
        const std::uint32_t bits = static_cast<std::uint32_t>(x[i]) << 16;
        std::memcpy(&widened[i], &bits, sizeof bits);
    }
    eval.input_half = {};
    eval.input = widened;
    eval.output = other_floats;
    layer.eval(eval);
    REQUIRE(same(floats, other_floats));
    eval.input_half = {x, bf16};
    REFUSED(layer.eval(eval), NORMDROP_STATUS_TWO_BUFFERS);

    const std::vector<std::size_t> lengths{21, 20, 0, 3};
    Words cleared = x, expected_cleared = x;
    layer.clear_padding(lengths, normdrop::HalvesMut(cleared, bf16));
    OK(normdrop_clear_padding_half(&problem.c, {lengths.data(), lengths.size()}, out_half(expected_cleared), nullptr));
    REQUIRE(same(cleared, expected_cleared) && !same(cleared, x));
}

void noise_and_alpha_dropout() {
    const Problem problem;
    const auto c_noise = [](normdrop_noise_law law, double p, float width) {
        normdrop_noise noise{};
        noise.version = NORMDROP_ABI_VERSION;
        noise.law = law;
        noise.p = p;
        noise.width = width;
        return noise;
    };
    const std::array<normdrop::Noise, 3> all{normdrop::Noise::gaussian(0.5f), normdrop::Noise::gaussian_dropout(0.25),
                                             normdrop::Noise::uniform(0.125f)};
    const std::array<normdrop_noise, 3> of_c{c_noise(NORMDROP_NOISE_LAW_GAUSSIAN, 0.0, 0.5f),
                                             c_noise(NORMDROP_NOISE_LAW_GAUSSIAN_DROPOUT, 0.25, 0.0f),
                                             c_noise(NORMDROP_NOISE_LAW_UNIFORM, 0.0, 0.125f)};
    for (std::size_t law = 0; law < all.size(); ++law) {
        Floats values = problem.x, expected = problem.x, part = problem.x;
        problem.layer.apply_noise(all[law], 42, values);
        OK(normdrop_apply_noise(&problem.c, &of_c[law], 42, out(expected), nullptr));
        REQUIRE(same(values, expected) && !same(values, problem.x));
        normdrop::apply_noise(all[law], 42, 77, part);
        expected = problem.x;
        OK(normdrop_noise_apply(&of_c[law], 42, 77, out(expected), nullptr));
        REQUIRE(same(part, expected) && !same(part, values));
    }
    Floats values = problem.x, expected = problem.x;
    REFUSED(problem.layer.apply_noise(normdrop::Noise::uniform(-1.0f), 1, values), NORMDROP_STATUS_NOISE_WIDTH);
    problem.layer.alpha_dropout(problem.mask, values);
    OK(normdrop_alpha_dropout(&problem.c, in(problem.mask), out(expected), nullptr));
    REQUIRE(same(values, expected) && !same(values, problem.x));
    problem.layer.alpha_dropout_backward(problem.mask, values);
    OK(normdrop_alpha_dropout_backward(&problem.c, in(problem.mask), out(expected), nullptr));
    REQUIRE(same(values, expected));
}

void prelu() {
    const Problem problem;
    const Floats slope(problem.layer.lengths().channels, 0.25f), dy = problem.x;
    Floats values = problem.x, expected = problem.x;
    problem.layer.prelu(slope, values);
    OK(normdrop_prelu(&problem.c, in(slope), out(expected), nullptr));
    REQUIRE(same(values, expected) && !same(values, problem.x));
    normdrop::Scratch scratch;
    std::vector<double> memory(problem.layer.lengths().prelu_scratch);
    Floats grad_slope(slope.size()), expected_slope(slope.size());
    values = expected = problem.x;
    problem.layer.prelu_gradient(slope, dy, values, grad_slope, scratch);
    OK(normdrop_prelu_gradient(&problem.c, in(slope), in(dy), out(expected), out(expected_slope), out(memory), nullptr));
    REQUIRE(same(values, expected) && same(grad_slope, expected_slope) && !same(values, problem.x));
    // One slope for all channels, and no gradient of it.
    values = problem.x;
    const Floats one(1, 0.25f), wrong(2, 0.25f);
    problem.layer.prelu_gradient(one, dy, values, {}, scratch);
    REQUIRE(same(values, expected));
    REFUSED(problem.layer.prelu(wrong, values), NORMDROP_STATUS_LENGTH);
}

void padded_batches() {
    const Problem problem;
    const normdrop::Layer &layer = problem.layer;
    const std::vector<std::size_t> lengths{21, 20, 0, 3};
    // The same positions as bits.
    Bytes bits(normdrop::mask_len(84));
    for (std::size_t at = 0; at < 84; ++at) {
        bits[at / 8] = static_cast<std::uint8_t>(bits[at / 8] | (at % 21 < lengths[at / 21] ? 1 << (at % 8) : 0));
    }
    normdrop::Scratch scratch;
    Floats y(problem.len), expected_y(problem.len), dx(problem.len), other_dx(problem.len);
    normdrop::Saved saved, other;
    normdrop::Train train;
    train.weight = problem.weight;
    train.bias = problem.bias;
    train.mask = problem.mask;
    train.input = problem.x;
    train.output = y;
    normdrop::Validity by_lengths, by_bits;
    by_lengths.lengths = lengths;
    by_bits.bits = bits;
    layer.train_masked(train, by_lengths, saved, scratch);

    normdrop::Saved expected{Floats(C), Floats(C), Doubles(C)};
    Doubles memory(layer.lengths().masked_scratch);
    Floats workspace(layer.lengths().masked_workspace);
    normdrop_train_call c_train{};
    c_train.version = NORMDROP_ABI_VERSION;
    c_train.weight = in(problem.weight);
    c_train.bias = in(problem.bias);
    c_train.mask = in(problem.mask);
    c_train.input = in(problem.x);
    c_train.output = out(expected_y);
    c_train.saved_mean = out(expected.mean);
    c_train.saved_mean_tail = out(expected.mean_tail);
    c_train.saved_inv_std = out(expected.inv_std);
    c_train.scratch = out(memory);
    normdrop_masked masked{};
    masked.version = NORMDROP_ABI_VERSION;
    masked.lengths = {lengths.data(), lengths.size()};
    masked.workspace = out(workspace);
    OK(normdrop_train_masked(&problem.c, &c_train, &masked, nullptr));
    REQUIRE(same(y, expected_y) && same(saved, expected));
    train.output = expected_y;
    layer.train_masked(train, by_bits, other, scratch);
    REQUIRE(same(y, expected_y) && same(saved, other));

    normdrop::Backward backward;
    backward.weight = problem.weight;
    backward.bias = problem.bias;
    backward.saved = &saved;
    backward.mask = problem.mask;
    backward.input = problem.x;
    backward.grad_output = problem.dy;
    backward.grad_input = dx;
    layer.backward_masked(backward, by_lengths, scratch);
    normdrop_backward_call c_backward{};
    c_backward.version = NORMDROP_ABI_VERSION;
    c_backward.weight = in(problem.weight);
    c_backward.bias = in(problem.bias);
    c_backward.saved_mean = in(saved.mean);
    c_backward.saved_mean_tail = in(saved.mean_tail);
    c_backward.saved_inv_std = in(saved.inv_std);
    c_backward.mask = in(problem.mask);
    c_backward.input = in(problem.x);
    c_backward.grad_output = in(problem.dy);
    c_backward.grad_input = out(other_dx);
    c_backward.scratch = out(memory);
    OK(normdrop_backward_masked(&problem.c, &c_backward, &masked, nullptr));
    REQUIRE(same(dx, other_dx));

    // Sample 2 has no valid position, and in sample 0 evaluation knows nothing of padding.
    normdrop::Eval eval;
    eval.weight = problem.weight;
    eval.bias = problem.bias;
    eval.running_mean = problem.mean;
    eval.running_var = problem.var;
    eval.input = problem.x;
    eval.output = y;
    layer.eval(eval);
    eval.output = expected_y;
    layer.eval_masked(eval, by_bits, scratch);
    const std::size_t sample = C * 21;
    REQUIRE(std::memcmp(y.data(), expected_y.data(), sample * sizeof(float)) == 0);
    for (std::size_t element = 2 * sample; element < 3 * sample; ++element) {
        REQUIRE(!(expected_y[element] < 0 || expected_y[element] > 0));
    }
    normdrop::Validity both = by_bits;
    both.lengths = lengths;
    REFUSED(layer.eval_masked(eval, both, scratch), NORMDROP_STATUS_TWO_BUFFERS);
    REFUSED(layer.eval_masked(eval, normdrop::Validity(), scratch), NORMDROP_STATUS_LENGTH);
}

void whole_batches() {
    Problem problem;
    const normdrop::Layer &layer = problem.layer;
    const std::size_t len = problem.len;
    Floats y(len), expected_y(len), mean = problem.mean, tail = problem.tail, var = problem.var;
    std::uint64_t batches = 3, expected_batches = 3;

    normdrop::Train train;
    train.weight = problem.weight;
    train.bias = problem.bias;
    train.running_mean = mean;
    train.running_mean_tail = tail;
    train.running_var = var;
    train.batches = &batches;
    train.mask = problem.mask;
    train.input = problem.x;
    train.residual = problem.residual;
    train.output = y;
    const normdrop::Saved saved = layer.train(train);
    normdrop::Saved expected{Floats(C), Floats(C), Doubles(C)};
    Floats expected_mean = problem.mean, expected_tail = problem.tail, expected_var = problem.var;
    normdrop_train_call c_train{};
    c_train.version = NORMDROP_ABI_VERSION;
    c_train.weight = in(problem.weight);
    c_train.bias = in(problem.bias);
    c_train.running_mean = out(expected_mean);
    c_train.running_mean_tail = out(expected_tail);
    c_train.running_var = out(expected_var);
    c_train.batches = &expected_batches;
    c_train.mask = in(problem.mask);
    c_train.input = in(problem.x);
    c_train.residual = in(problem.residual);
    c_train.output = out(expected_y);
    c_train.saved_mean = out(expected.mean);
    c_train.saved_mean_tail = out(expected.mean_tail);
    c_train.saved_inv_std = out(expected.inv_std);
    c_train.scratch = out(problem.scratch);
    OK(normdrop_train(&problem.c, &c_train, nullptr));
    REQUIRE(same(y, expected_y) && same(saved, expected) && batches == 4 && expected_batches == 4);
    REQUIRE(same(mean, expected_mean) && same(tail, expected_tail) && same(var, expected_var) && !same(mean, problem.mean));

    normdrop::Eval eval;
    eval.weight = problem.weight;
    eval.bias = problem.bias;
    eval.running_mean = mean;
    eval.running_mean_tail = tail;
    eval.running_var = var;
    eval.mask = problem.mask;
    eval.input = problem.x;
    eval.residual = problem.residual;
    eval.output = y;
    layer.eval(eval);
    normdrop_eval_call c_eval{};
    c_eval.version = NORMDROP_ABI_VERSION;
    c_eval.weight = in(problem.weight);
    c_eval.bias = in(problem.bias);
    c_eval.running_mean = in(mean);
    c_eval.running_mean_tail = in(tail);
    c_eval.running_var = in(var);
    c_eval.mask = in(problem.mask);
    c_eval.input = in(problem.x);
    c_eval.residual = in(problem.residual);
    c_eval.output = out(expected_y);
    c_eval.scratch = out(problem.scratch);
    OK(normdrop_eval(&problem.c, &c_eval, nullptr));
    REQUIRE(same(y, expected_y));
    Floats in_place = problem.x;
    eval.input = in_place;
    eval.output = in_place;
    layer.eval(eval);
    REQUIRE(same(in_place, y));

    normdrop::Prepare prepare;
    prepare.weight = problem.weight;
    prepare.bias = problem.bias;
    prepare.running_mean = mean;
    prepare.running_mean_tail = tail;
    prepare.running_var = var;
    const std::vector<double> prepared = layer.prepare(prepare);
    normdrop::Eval eval_prepared;
    eval_prepared.prepared = prepared;
    eval_prepared.mask = problem.mask;
    eval_prepared.input = problem.x;
    eval_prepared.residual = problem.residual;
    eval_prepared.output = in_place;
    layer.eval(eval_prepared);
    REQUIRE(same(in_place, y));
    Floats dx_fixed(len), dx_prepared(len);
    normdrop::Backward past;
    past.weight = problem.weight;
    past.bias = problem.bias;
    past.running_mean = mean;
    past.running_mean_tail = tail;
    past.running_var = var;
    past.mask = problem.mask;
    past.input = problem.x;
    past.residual = problem.residual;
    past.grad_output = problem.dy;
    past.grad_input = dx_fixed;
    layer.backward(past);
    past.grad_input = dx_prepared;
    past.weight = past.bias = past.running_mean = past.running_mean_tail = past.running_var = {};
    past.prepared = prepared;
    layer.backward(past);
    REQUIRE(same(dx_prepared, dx_fixed));

    for (const bool batch : {true, false}) {
        Floats dx(len), dr(len), dw(C), db(C), expected_dx(len), expected_dr(len), expected_dw(C), expected_db(C);
        normdrop::Backward backward;
        backward.weight = problem.weight;
        backward.bias = problem.bias;
        if (batch) {
            backward.saved = &saved;
        } else {
            backward.running_mean = mean;
            backward.running_mean_tail = tail;
            backward.running_var = var;
        }
        backward.mask = problem.mask;
        backward.input = problem.x;
        backward.residual = problem.residual;
        backward.grad_output = problem.dy;
        backward.grad_input = dx;
        backward.grad_residual = dr;
        backward.grad_weight = dw;
        backward.grad_bias = db;
        layer.backward(backward);
        normdrop_backward_call c_backward{};
        c_backward.version = NORMDROP_ABI_VERSION;
        c_backward.statistics = batch ? NORMDROP_STATISTICS_BATCH : NORMDROP_STATISTICS_FIXED;
        c_backward.weight = in(problem.weight);
        c_backward.bias = in(problem.bias);
        c_backward.running_mean = in(mean);
        c_backward.running_mean_tail = in(tail);
        c_backward.running_var = in(var);
        c_backward.saved_mean = in(saved.mean);
        c_backward.saved_mean_tail = in(saved.mean_tail);
        c_backward.saved_inv_std = in(saved.inv_std);
        c_backward.mask = in(problem.mask);
        c_backward.input = in(problem.x);
        c_backward.residual = in(problem.residual);
        c_backward.grad_output = in(problem.dy);
        c_backward.grad_input = out(expected_dx);
        c_backward.grad_residual = out(expected_dr);
        c_backward.grad_weight = out(expected_dw);
        c_backward.grad_bias = out(expected_db);
        c_backward.scratch = out(problem.scratch);
        OK(normdrop_backward(&problem.c, &c_backward, nullptr));
        REQUIRE(same(dx, expected_dx) && same(dr, expected_dr) && same(dw, expected_dw) && same(db, expected_db));
    }
    normdrop::Backward both;
    both.saved = &saved;
    both.running_mean = mean;
    bool thrown = false;
    try {
        layer.backward(both);
    } catch (const std::invalid_argument &) {
        thrown = true;
    }
    REQUIRE(thrown);
}

void batches_in_parts() {
    Problem problem;
    const normdrop::Layer &layer = problem.layer;
    Doubles moments = layer.moments(problem.x), expected_moments(moments.size());
    OK(normdrop_moments(&problem.c, in(problem.x), out(expected_moments), out(problem.scratch), nullptr));
    REQUIRE(same(moments, expected_moments));
    const Doubles other = layer.moments(problem.dy);
    normdrop::merge_moments(moments, other);
    OK(normdrop_merge_moments(out(expected_moments), in(other), nullptr));
    REQUIRE(same(moments, expected_moments));
    layer.check_moments(moments);
    Doubles infinite = moments;
    infinite[C] = 1e300;
    REFUSED(layer.check_moments(infinite), NORMDROP_STATUS_NOT_FINITE);

    Floats mean = problem.mean, tail = problem.tail, var = problem.var;
    Floats expected_mean = mean, expected_tail = tail, expected_var = var;
    std::uint64_t batches = 1, expected_batches = 1;
    normdrop::Finish finish;
    finish.moments = moments;
    finish.running_mean = mean;
    finish.running_mean_tail = tail;
    finish.running_var = var;
    finish.batches = &batches;
    const normdrop::Saved saved = layer.finish(finish);
    normdrop::Saved expected{Floats(C), Floats(C), Doubles(C)};
    normdrop_finish_call c_finish{};
    c_finish.version = NORMDROP_ABI_VERSION;
    c_finish.moments = in(moments);
    c_finish.running_mean = out(expected_mean);
    c_finish.running_mean_tail = out(expected_tail);
    c_finish.running_var = out(expected_var);
    c_finish.batches = &expected_batches;
    c_finish.saved_mean = out(expected.mean);
    c_finish.saved_mean_tail = out(expected.mean_tail);
    c_finish.saved_inv_std = out(expected.inv_std);
    OK(normdrop_finish(&problem.c, &c_finish, nullptr));
    REQUIRE(same(saved, expected) && same(mean, expected_mean) && same(tail, expected_tail) && same(var, expected_var));
    REQUIRE(batches == 2 && expected_batches == 2 && !same(var, problem.var));

    Floats y(problem.len), expected_y(problem.len);
    normdrop::Apply apply;
    apply.weight = problem.weight;
    apply.bias = problem.bias;
    apply.saved = &saved;
    apply.mask = problem.mask;
    apply.input = problem.x;
    apply.residual = problem.residual;
    apply.output = y;
    layer.apply(apply);
    normdrop_apply_call c_apply{};
    c_apply.version = NORMDROP_ABI_VERSION;
    c_apply.weight = in(problem.weight);
    c_apply.bias = in(problem.bias);
    c_apply.saved_mean = in(saved.mean);
    c_apply.saved_mean_tail = in(saved.mean_tail);
    c_apply.saved_inv_std = in(saved.inv_std);
    c_apply.mask = in(problem.mask);
    c_apply.input = in(problem.x);
    c_apply.residual = in(problem.residual);
    c_apply.output = out(expected_y);
    c_apply.scratch = out(problem.scratch);
    OK(normdrop_apply(&problem.c, &c_apply, nullptr));
    REQUIRE(same(y, expected_y));

    Doubles sums;
    for (const bool batch : {false, true}) {
        normdrop::Reduce reduce;
        reduce.weight = problem.weight;
        reduce.bias = problem.bias;
        if (batch) {
            reduce.saved = &saved;
        } else {
            reduce.running_mean = mean;
            reduce.running_mean_tail = tail;
            reduce.running_var = var;
        }
        reduce.mask = problem.mask;
        reduce.input = problem.x;
        reduce.residual = problem.residual;
        reduce.grad_output = problem.dy;
        sums = layer.reduce(reduce);
        Doubles expected_sums(sums.size());
        normdrop_reduce_call c_reduce{};
        c_reduce.version = NORMDROP_ABI_VERSION;
        c_reduce.statistics = batch ? NORMDROP_STATISTICS_BATCH : NORMDROP_STATISTICS_FIXED;
        c_reduce.weight = in(problem.weight);
        c_reduce.bias = in(problem.bias);
        c_reduce.running_mean = in(mean);
        c_reduce.running_mean_tail = in(tail);
        c_reduce.running_var = in(var);
        c_reduce.saved_mean = in(saved.mean);
        c_reduce.saved_mean_tail = in(saved.mean_tail);
        c_reduce.saved_inv_std = in(saved.inv_std);
        c_reduce.mask = in(problem.mask);
        c_reduce.input = in(problem.x);
        c_reduce.residual = in(problem.residual);
        c_reduce.grad_output = in(problem.dy);
        c_reduce.sums = out(expected_sums);
        c_reduce.scratch = out(problem.scratch);
        OK(normdrop_reduce(&problem.c, &c_reduce, nullptr));
        REQUIRE(same(sums, expected_sums));
    }
    Doubles merged = sums;
    normdrop::merge_sums(merged, sums);
    for (std::size_t i = 0; i < sums.size(); ++i) {
        REQUIRE(!(merged[i] < 2 * sums[i] || merged[i] > 2 * sums[i]));
    }

    Floats dw(C), db(C), expected_dw(C), expected_db(C), dx(problem.len), dr(problem.len), expected_dx(problem.len), expected_dr(problem.len);
    layer.finish_gradients(sums, dw, db);
    OK(normdrop_finish_gradients(&problem.c, in(sums), out(expected_dw), out(expected_db), nullptr));
    REQUIRE(same(dw, expected_dw) && same(db, expected_db));
    layer.finish_gradients(sums, nullptr, db);
    normdrop::ApplyGradient apply_gradient;
    apply_gradient.weight = problem.weight;
    apply_gradient.bias = problem.bias;
    apply_gradient.saved = &saved;
    apply_gradient.samples = moments[0];
    apply_gradient.sums = sums;
    apply_gradient.mask = problem.mask;
    apply_gradient.input = problem.x;
    apply_gradient.residual = problem.residual;
    apply_gradient.grad_output = problem.dy;
    apply_gradient.grad_input = dx;
    apply_gradient.grad_residual = dr;
    layer.apply_gradient(apply_gradient);
    normdrop_apply_gradient_call c_gradient{};
    c_gradient.version = NORMDROP_ABI_VERSION;
    c_gradient.weight = in(problem.weight);
    c_gradient.bias = in(problem.bias);
    c_gradient.saved_mean = in(saved.mean);
    c_gradient.saved_mean_tail = in(saved.mean_tail);
    c_gradient.saved_inv_std = in(saved.inv_std);
    c_gradient.samples = moments[0];
    c_gradient.sums = in(sums);
    c_gradient.mask = in(problem.mask);
    c_gradient.input = in(problem.x);
    c_gradient.residual = in(problem.residual);
    c_gradient.grad_output = in(problem.dy);
    c_gradient.grad_input = out(expected_dx);
    c_gradient.grad_residual = out(expected_dr);
    c_gradient.scratch = out(problem.scratch);
    OK(normdrop_apply_gradient(&problem.c, &c_gradient, nullptr));
    REQUIRE(same(dx, expected_dx) && same(dr, expected_dr));
}

void folds() {
    const Problem problem;
    for (const bool previous : {true, false}) {
        const std::size_t others = 3, taps = 4;
        Floats weights = random_floats(C * others * taps, 8), expected = weights, bias(previous ? C : others, 0.5f), expected_bias = bias;
        normdrop::Fold fold(normdrop::WeightOrder::taps_in_out);
        fold.eps = 1e-3f;
        fold.outputs = previous ? C : others;
        fold.inputs = previous ? others : C;
        fold.taps = taps;
        fold.weight = problem.weight;
        fold.bias = problem.bias;
        fold.running_mean = problem.mean;
        fold.running_mean_tail = problem.tail;
        fold.running_var = problem.var;
        fold.weights = weights;
        fold.weights_bias = bias;
        normdrop_fold_call c_fold{};
        c_fold.version = NORMDROP_ABI_VERSION;
        c_fold.eps = 1e-3f;
        c_fold.order = NORMDROP_WEIGHT_ORDER_TAPS_IN_OUT;
        c_fold.outputs = fold.outputs;
        c_fold.inputs = fold.inputs;
        c_fold.taps = taps;
        c_fold.groups = 1;
        c_fold.weight = in(problem.weight);
        c_fold.bias = in(problem.bias);
        c_fold.running_mean = in(problem.mean);
        c_fold.running_mean_tail = in(problem.tail);
        c_fold.running_var = in(problem.var);
        c_fold.weights = out(expected);
        c_fold.weights_bias = out(expected_bias);
        const Floats before = weights;
        if (previous) {
            normdrop::fold_into_previous(fold);
            OK(normdrop_fold_into_previous(&c_fold, nullptr));
        } else {
            normdrop::fold_into_next(fold);
            OK(normdrop_fold_into_next(&c_fold, nullptr));
        }
        REQUIRE(same(weights, expected) && same(bias, expected_bias) && !same(weights, before));
        Floats padding(C), expected_padding(C);
        normdrop::fold_padding(fold, padding);
        OK(normdrop_fold_padding(&c_fold, out(expected_padding), nullptr));
        REQUIRE(same(padding, expected_padding));
        fold.groups = 2;
        REFUSED(previous ? normdrop::fold_into_previous(fold) : normdrop::fold_into_next(fold), NORMDROP_STATUS_GROUPS);
    }
}

void stored() {
    const Floats weight{1.0f, 0.5f, -0.5f};
    REQUIRE(normdrop::first_min_pooled(weight) == 2);
    Floats mean{3.0f, 8.0f}, spread{4.0f, 2.0f};
    REQUIRE(normdrop::into_running(normdrop::StoredForm::sums, mean, spread, 1e-3f, 8.0f) == 1e-3f);
    REQUIRE((same(mean, Floats{0.375f, 1.0f}) && same(spread, Floats{0.5f, 0.25f})));
    REQUIRE(normdrop::into_running(normdrop::StoredForm::eps_outside, mean, spread, 0.5f) == 0.0f);
    REQUIRE(spread[1] == 1.0f);
    spread[0] = -1.0f;
    REFUSED(normdrop::into_running(normdrop::StoredForm::deviation, mean, spread), NORMDROP_STATUS_VARIANCE);
    REQUIRE(spread[1] == 1.0f);
}

void refusals() {
    Problem problem;
    Floats y(problem.len, 7.0f);
    normdrop::Eval eval;
    eval.running_mean = problem.mean;
    eval.running_var = problem.var;
    eval.input = problem.x;
    eval.output = normdrop::Span<float>(y.data(), y.size() - 1);
    const normdrop::Error error = refusal([&] { problem.layer.eval(eval); }, __LINE__);
    REQUIRE(error.status() == NORMDROP_STATUS_LENGTH && error.buffer() == NORMDROP_BUFFER_OUTPUT);
    REQUIRE(error.expected() == problem.len && error.actual() == problem.len - 1 && error.other() == NORMDROP_BUFFER_NONE);
    REQUIRE(std::string(error.what()).find("output must have 420 values, but has 419") != std::string::npos);
    REQUIRE(same(y, Floats(problem.len, 7.0f)));
    // A copy of an exception outlives the call.
    const std::exception_ptr kept = std::make_exception_ptr(error);
    REQUIRE(kept != nullptr);
    eval.output = y;
    eval.input = normdrop::Span<const float>(problem.x.data(), problem.len - 1);
    REFUSED(problem.layer.eval(eval), NORMDROP_STATUS_LENGTH);
    eval.input = normdrop::Span<const float>(nullptr, problem.len);
    REFUSED(problem.layer.eval(eval), NORMDROP_STATUS_NULL);
    normdrop::Train train;
    train.input = problem.x;
    train.output = y;
    REFUSED(problem.layer.train(train), NORMDROP_STATUS_MASK_MISSING);
    train.mask = problem.mask;
    train.output = problem.x;
    const normdrop::Error overlap = refusal([&] { problem.layer.train(train); }, __LINE__);
    REQUIRE(overlap.status() == NORMDROP_STATUS_OVERLAP && overlap.buffer() != NORMDROP_BUFFER_NONE && overlap.other() != NORMDROP_BUFFER_NONE);
}

void spans() {
    using normdrop::Span;
    static_assert(std::is_convertible_v<Floats &, Span<float>> && std::is_convertible_v<const Floats &, Span<const float>>);
    static_assert(!std::is_convertible_v<const Floats &, Span<float>>, "a buffer that is written must not be const");
    static_assert(!std::is_convertible_v<Floats, Span<float>>, "a temporary is gone before the call");
    static_assert(!std::is_convertible_v<Doubles &, Span<float>> && std::is_convertible_v<Span<float> &, Span<const float>>);
    std::array<float, 3> array{};
    float plain[4] = {};
    REQUIRE(Span<float>(array).size() == 3 && Span<float>(plain).size() == 4 && Span<const float>(plain).data() == plain);
    REQUIRE(Span<float>().data() == nullptr && Span<float>(nullptr).size() == 0);
    normdrop::Scratch scratch;
    const Span<double> large = scratch.of(100), small = scratch.of(10);
    REQUIRE(large.data() == small.data() && large.size() == 100 && small.size() == 10);
}

void library() {
    REQUIRE(normdrop::abi_version() == NORMDROP_ABI_VERSION && std::strcmp(normdrop::version(), normdrop_version()) == 0);
    const normdrop::Backend fastest = normdrop::detect_backend();
    REQUIRE(normdrop::is_available(fastest) && normdrop::is_available(normdrop::Backend::portable));
    REQUIRE(std::strcmp(normdrop::name(normdrop::Backend::portable), "portable") == 0);
}

} // namespace

/// Gates in the place of the mask, whole and in one part, give the gradients that mask, bias and residual give.
void gates() {
    normdrop::Config config;
    config.activation = normdrop::Activation::relu;
    config.p = 0.3;
    const normdrop::Layer layer(normdrop::Shape::nchw(4, C, 3, 7), config);
    const std::size_t len = layer.lengths().elements;
    const Floats x = random_floats(len, 1), residual = random_floats(len, 2), dy = random_floats(len, 3);
    const Bytes mask = layer.mask(99);
    Bytes bits = mask, of_part = mask, of_eval = mask;
    Floats y(len), y_of_part(len);
    normdrop::Train train;
    train.mask = bits;
    train.gates = bits;
    train.input = x;
    train.residual = residual;
    train.output = y;
    const normdrop::Saved saved = layer.train(train);
    REQUIRE(!same(bits, mask));
    normdrop::Apply apply;
    apply.saved = &saved;
    apply.mask = of_part;
    apply.gates = of_part;
    apply.input = x;
    apply.residual = residual;
    apply.output = y_of_part;
    layer.apply(apply);
    REQUIRE(same(y_of_part, y) && same(of_part, bits));
    // With the statistics of the batch, evaluation closes the gates that training closes.
    Floats var(C);
    for (std::size_t channel = 0; channel < C; channel++) {
        var[channel] = static_cast<float>(1.0 / (saved.inv_std[channel] * saved.inv_std[channel]) - 1e-5);
    }
    normdrop::Eval eval;
    eval.running_mean = saved.mean;
    eval.running_var = var;
    eval.mask = of_eval;
    eval.gates = of_eval;
    eval.input = x;
    eval.residual = residual;
    eval.output = y_of_part;
    layer.eval(eval);
    REQUIRE(same(of_eval, bits));

    Floats dx(len), dr(len), other_dx(len), other_dr(len);
    normdrop::Backward backward;
    backward.saved = &saved;
    backward.mask = mask;
    backward.input = x;
    backward.residual = residual;
    backward.grad_output = dy;
    backward.grad_input = dx;
    backward.grad_residual = dr;
    layer.backward(backward);
    backward.mask = {};
    backward.residual = {};
    backward.gates = bits;
    backward.grad_input = other_dx;
    backward.grad_residual = other_dr;
    layer.backward(backward);
    REQUIRE(same(other_dx, dx) && same(other_dr, dr));

    normdrop::Reduce reduce;
    reduce.saved = &saved;
    reduce.gates = bits;
    reduce.input = x;
    reduce.grad_output = dy;
    const Doubles sums = layer.reduce(reduce);
    normdrop::ApplyGradient apply_gradient;
    apply_gradient.saved = &saved;
    apply_gradient.samples = static_cast<double>(len / C);
    apply_gradient.sums = sums;
    apply_gradient.gates = bits;
    apply_gradient.input = x;
    apply_gradient.grad_output = dy;
    Floats dx_of_part(len);
    apply_gradient.grad_input = dx_of_part;
    layer.apply_gradient(apply_gradient);
    REQUIRE(same(dx_of_part, dx));
}

int main() {
    shapes_and_constants();
    masks();
    gates();
    halves();
    noise_and_alpha_dropout();
    prelu();
    padded_batches();
    whole_batches();
    batches_in_parts();
    folds();
    stored();
    refusals();
    spans();
    library();
    std::puts("wrappers: all in order");
    return 0;
}

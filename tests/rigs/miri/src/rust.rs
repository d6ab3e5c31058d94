//! The calls from Rust.

use std::convert::Infallible;

use normdrop::{
    Activation, Backend, Bernoulli, Config, Elu, Error, Fold, Gelu, GeluTanh, Granularity, HardSwish, Identity, Layer,
    LeakyRelu, Masked, Mish, Noise, Relu, Relu6, RunningVariance, Selu, Shape, Sigmoid, Silu, Softplus, Stored, Tanh,
    Validity, WeightOrder, WeightShape, fold_into_next, fold_into_previous, mask_len, seed_for, seed_from,
};
use normdrop_calls::{Call, front};
use rand_core::TryRng;

use crate::digest::{Digest, numbers};

/// Planar: a vector of sixteen, and fewer. Columns: a tile that is not full. One value per channel.
const SHAPES: [[usize; 3]; 3] = [[2, 2, 17], [4, 3, 1], [1, 2, 1]];

/// Every call of a layer: of one activation with all options, of the others once.
pub(crate) fn every_call() {
    for (number, shape) in SHAPES.into_iter().enumerate() {
        every_call_of("Relu", Relu, shape, number, false);
    }
    every_call_of("Identity", Identity, SHAPES[1], 1, true);
    forward_and_backward("Relu6", Relu6);
    forward_and_backward("LeakyRelu", LeakyRelu::new(0.1).expect("a finite slope"));
    forward_and_backward("HardSwish", HardSwish);
    forward_and_backward("Sigmoid", Sigmoid);
    forward_and_backward("Tanh", Tanh);
    forward_and_backward("Silu", Silu);
    forward_and_backward("GeluTanh", GeluTanh);
    forward_and_backward("Gelu", Gelu);
    forward_and_backward("Elu", Elu::new(0.9).expect("a finite alpha"));
    forward_and_backward("Selu", Selu);
    forward_and_backward("Mish", Mish);
    forward_and_backward("Softplus", Softplus);
    masks();
    refusals();
}

fn config(number: usize) -> Config {
    let granularities = [Granularity::Element, Granularity::Channel, Granularity::Sample];
    let running_var = if number.is_multiple_of(2) { RunningVariance::Unbiased } else { RunningVariance::Biased };
    Config { p: 0.25, granularity: granularities[number % 3], running_var, ..Config::DEFAULT }
}

/// The buffers of a layer, each alone in its allocation.
struct Memory {
    weight: Vec<f32>,
    bias: Vec<f32>,
    running: [Vec<f32>; 3],
    mask: Vec<u8>,
    gates: Vec<u8>,
    saved: [Vec<f32>; 2],
    inv_std: Vec<f64>,
    input: Vec<f32>,
    residual: Vec<f32>,
    output: Vec<f32>,
    grad_output: Vec<f32>,
    grad_input: Vec<f32>,
    grad_residual: Vec<f32>,
    grad_parameters: [Vec<f32>; 2],
    part: Vec<f64>,
    other: Vec<f64>,
    prepared: Vec<f64>,
    scratch: Vec<f64>,
}

impl Memory {
    fn new<A: Activation>(layer: &Layer<A>, placed: bool) -> Self {
        let (len, c) = (layer.shape().len(), layer.shape().channels());
        let mut mask = vec![0; layer.mask_len()];
        layer.fill_mask(42, &mut mask).expect("the mask has the length of the layer");
        Self {
            weight: numbers(c, 1, placed),
            bias: numbers(c, 2, false),
            running: [
                numbers(c, 3, placed),
                vec![1e-9; c],
                numbers(c, 4, false).iter().map(|x| x * x + 0.125).collect(),
            ],
            mask,
            gates: vec![0xA5; mask_len(len)],
            saved: [vec![0.0; c], vec![0.0; c]],
            inv_std: vec![0.0; c],
            input: numbers(len, 5, placed),
            residual: numbers(len, 6, false),
            output: vec![0.0; len],
            grad_output: numbers(len, 7, placed),
            grad_input: vec![0.0; len],
            grad_residual: vec![0.0; len],
            grad_parameters: [vec![0.0; c], vec![0.0; c]],
            part: vec![0.0; layer.moments_len()],
            other: vec![0.0; layer.moments_len()],
            prepared: vec![0.0; layer.prepared_len()],
            scratch: vec![f64::NAN; layer.masked_scratch_len().max(layer.prelu_scratch_len())],
        }
    }

    fn call(&mut self, number: usize, samples: usize) -> Call<'_> {
        let [running_mean, running_mean_tail, running_var] = &mut self.running;
        let [saved_mean, saved_mean_tail] = &mut self.saved;
        let [grad_weight, grad_bias] = &mut self.grad_parameters;
        Call {
            weight: Some(&self.weight),
            bias: Some(&self.bias),
            running_mean,
            running_mean_tail: (number != 1).then_some(running_mean_tail),
            running_var,
            updates_running: true,
            batches: (number == 1).then_some(3),
            mask: Some(&self.mask),
            gates: &mut self.gates,
            in_gates: false,
            fixed: false,
            saved_mean,
            saved_mean_tail,
            saved_inv_std: &mut self.inv_std,
            input: &self.input,
            residual: (number != 1).then_some(&self.residual),
            output: &mut self.output,
            grad_output: &self.grad_output,
            grad_input: Some(&mut self.grad_input),
            grad_residual: Some(&mut self.grad_residual),
            grad_weight: Some(grad_weight),
            grad_bias: Some(grad_bias),
            part: &mut self.part,
            other: &mut self.other,
            prepared: &mut self.prepared,
            samples: samples as f64,
            scratch: &mut self.scratch,
        }
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest::new();
        let tensors = [&self.output, &self.grad_input, &self.grad_residual];
        for values in self.running.iter().chain(&self.saved).chain(tensors).chain(&self.grad_parameters) {
            digest.floats(values);
        }
        for values in [&self.inv_std, &self.part, &self.other, &self.prepared] {
            digest.doubles(values);
        }
        digest.bytes(&self.gates);
        digest.finish()
    }
}

fn layer<A: Activation>([outer, channels, inner]: [usize; 3], activation: A, number: usize) -> Layer<A> {
    let shape = Shape::new(outer, channels, inner).expect("a small shape");
    Layer::new(shape, activation, config(number)).expect("constants in their range")
}

type FoldInto = fn(Fold<'_>) -> Result<(), Error>;
/// Another call without a layer, with an `eps`.
type Other = fn(&mut Call<'_>, f32) -> Result<(), Error>;

/// Calls in an order in which each finds what it needs; a line after each.
fn every_call_of<A: Activation>(name: &str, activation: A, dimensions: [usize; 3], number: usize, placed: bool) {
    let layer = layer(dimensions, activation, number);
    let (eps, samples) = (layer.config().eps, layer.shape().samples());
    let mut memory = Memory::new(&layer, placed);
    let has_batch = samples > 1;
    type Make<A> = fn(&mut Call<'_>, &Layer<A>) -> Result<(), Error>;
    let calls: &[(&str, bool, Make<A>)] = &[
        ("eval", false, |call, layer| call.eval(layer)),
        ("eval in place", false, |call, layer| {
            call.output.copy_from_slice(call.input);
            call.eval_in_place(layer)
        }),
        ("backward, fixed", false, |call, layer| {
            call.fixed = true;
            call.backward(layer)
        }),
        ("prepare", false, |call, layer| call.prepare(layer)),
        ("eval prepared", false, |call, layer| call.eval_prepared(layer)),
        ("eval prepared in place", false, |call, layer| {
            call.output.copy_from_slice(call.input);
            call.eval_prepared_in_place(layer)
        }),
        ("backward, prepared", false, |call, layer| call.backward_prepared(layer)),
        ("train", true, |call, layer| call.train(layer)),
        ("backward", true, |call, layer| call.backward(layer)),
        ("backward in place", true, |call, layer| {
            call.output.copy_from_slice(call.grad_output);
            call.backward_in_place(layer)
        }),
        ("train with gates", true, |call, layer| call.train_with_gates(layer)),
        ("train with gates over the mask", true, |call, layer| {
            // A mask of more than elements has no room there.
            call.in_gates = layer.mask_bits() == layer.shape().len();
            call.gates.fill(0x5A);
            call.train_with_gates(layer)
        }),
        ("backward with gates", true, |call, layer| call.backward_with_gates(layer)),
        ("eval with gates", false, |call, layer| call.eval_with_gates(layer)),
        ("backward with gates, fixed", false, |call, layer| {
            call.fixed = true;
            call.backward_with_gates(layer)
        }),
        ("moments", false, |call, layer| call.moments(layer)),
        ("merge moments", false, |call, layer| {
            call.moments_of_other(layer)?;
            call.merge_moments(layer)
        }),
        ("finish", true, |call, layer| call.finish(layer)),
        ("apply", true, |call, layer| call.apply(layer)),
        ("apply with gates", true, |call, layer| call.apply_with_gates(layer)),
        ("reduce", true, |call, layer| call.reduce(layer)),
        ("merge sums", true, |call, layer| call.merge_sums(layer)),
        ("finish gradients", true, |call, layer| call.finish_gradients(layer)),
        ("apply gradient", true, |call, layer| call.apply_gradient(layer)),
        ("train masked", true, |call, layer| masked(layer, |masked| call.train_masked(layer, masked))),
        ("eval masked", false, |call, layer| masked(layer, |masked| call.eval_masked(layer, masked))),
        ("backward masked", true, |call, layer| masked(layer, |masked| call.backward_masked(layer, masked))),
        ("train masked with gates", true, |call, layer| {
            // A bit for each element, as gates have.
            let config = Config { granularity: Granularity::Element, ..layer.config() };
            let layer = Layer::new(layer.shape(), Relu, config)?;
            let mut gates = vec![0; layer.mask_len()];
            layer.fill_mask(7, &mut gates)?;
            masked(&layer, |masked| call.train_masked_with_gates(&layer, masked, &mut gates))
        }),
        ("eval masked with gates", false, |call, layer| {
            let config = Config { granularity: Granularity::Element, ..layer.config() };
            let layer = Layer::new(layer.shape(), Relu, config)?;
            let mut gates = vec![0; layer.mask_len()];
            layer.fill_mask(7, &mut gates)?;
            masked(&layer, |masked| call.eval_masked_with_gates(&layer, masked, &mut gates))
        }),
        ("train prelu", true, |call, layer| prelu(layer, |layer, slope, _| call.train_prelu(layer, slope))),
        ("eval prelu", false, |call, layer| prelu(layer, |layer, slope, _| call.eval_prelu(layer, slope))),
        ("eval prelu in place", false, |call, layer| {
            prelu(layer, |layer, slope, _| call.eval_prelu_in_place(layer, slope))
        }),
        ("backward prelu", true, |call, layer| {
            prelu(layer, |layer, slope, gradient| call.backward_prelu(layer, slope, Some(gradient)))
        }),
        ("prelu", false, |call, layer| prelu(layer, |layer, slope, _| call.prelu(layer, slope))),
        ("prelu gradient", false, |call, layer| {
            prelu(layer, |layer, slope, gradient| call.prelu_gradient(layer, slope, Some(gradient)))
        }),
    ];
    for (what, needs_batch, make) in calls {
        if has_batch || !needs_batch {
            make(&mut memory.call(number, samples), &layer).expect(what);
            println!("{name} {dimensions:?} {placed} {what}: {:016x}", memory.digest());
        }
    }
    let [outer, channels, taps] = dimensions;
    let weights = |order, outputs, inputs| WeightShape { order, outputs, inputs, taps, groups: 1 };
    let folds: [(&str, FoldInto, WeightShape); 2] = [
        ("fold into previous", fold_into_previous, weights(WeightOrder::InOutTaps, channels, outer)),
        ("fold into next", fold_into_next, weights(WeightOrder::OutInTaps, outer, channels)),
    ];
    for (what, fold, weights) in folds {
        let result = memory.call(number, samples).fold(fold, weights, eps);
        // Weights that overflow are refused.
        assert!(result.is_ok() || placed, "{what}: {result:?}");
        println!("{name} {dimensions:?} {placed} {what}: {:016x} {result:?}", memory.digest());
    }
    let others: [(&str, Other); 2] = [
        ("fold padding", |call, eps| call.fold_padding(eps)),
        ("into running", |call, eps| call.stored(Stored::EpsOutside { eps })),
    ];
    for (what, make) in others {
        let result = make(&mut memory.call(number, samples), eps);
        assert!(result.is_ok() || placed, "{what}: {result:?}");
        println!("{name} {dimensions:?} {placed} {what}: {:016x} {result:?}", memory.digest());
    }
}

/// A call over all positions but the first, with a workspace of its own.
fn masked<A: Activation>(layer: &Layer<A>, call: impl FnOnce(Masked<'_>) -> Result<(), Error>) -> Result<(), Error> {
    let mut bitmap = vec![0xFF; mask_len(layer.shape().samples())];
    bitmap[0] = 0xFE;
    call(Masked::new(Validity::Bitmap(&bitmap), &mut vec![f32::NAN; layer.masked_workspace_len()]))
}

/// A call of the layer without its activation, with a slope for each channel and a place for their gradients.
fn prelu<A: Activation>(
    layer: &Layer<A>,
    call: impl FnOnce(&Layer<Identity>, &[f32], &mut [f32]) -> Result<(), Error>,
) -> Result<(), Error> {
    let layer = Layer::new(layer.shape(), Identity, layer.config())?;
    let slopes = numbers(layer.shape().channels(), 12, false);
    call(&layer, &slopes, &mut vec![f32::NAN; slopes.len()])
}

fn forward_and_backward<A: Activation>(name: &str, activation: A) {
    let layer = layer(SHAPES[1], activation, 0);
    let mut memory = Memory::new(&layer, false);
    let mut call = memory.call(0, layer.shape().samples());
    call.train(&layer).expect("train");
    call.backward(&layer).expect("backward");
    println!("{name}: {:016x}", memory.digest());
}

/// A generator of the caller's.
struct Counter(u64);

impl TryRng for Counter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|word| (word >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        Ok(self.0.rotate_left(23).wrapping_mul(0xD129_0B26_2C54_81CD))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.fill(0x5A);
        Ok(())
    }
}

/// Masks: a part of a group and more than one, from the middle and at the end of the sequence.
fn masks() {
    let keep = Bernoulli::new(0.3).expect("a probability");
    let mut digest = Digest::new();
    for (first, bits) in [(0, 520), (13, 9), (4090, 20), (u64::MAX - 10, 11), (5, 0)] {
        let mut mask = vec![0; mask_len(bits)];
        keep.fill(7, first, bits, &mut mask).expect("the mask has the length");
        digest.bytes(&mask);
    }
    let mut random = Counter(1);
    let mut mask = vec![0; mask_len(70)];
    keep.fill_with(&mut random, 70, &mut mask).expect("the mask has the length");
    digest.bytes(&mask);
    layer(SHAPES[1], Identity, 1).fill_mask_with(&mut random, &mut mask[..2]).expect("four samples of three channels");
    digest.bytes(&mask);
    digest.bytes(&seed_from(&mut random).to_le_bytes());
    digest.bytes(&seed_for(1, 2, 3, 4).to_le_bytes());
    let sequences = Shape::nlc(2, 3, 2).expect("a small shape");
    let sequences = Layer::new(sequences, Identity, Config::DEFAULT).expect("constants in their range");
    let (mut mask, mut values) = (vec![0xFF; sequences.mask_len()], numbers(12, 9, true));
    sequences.drop_padding(&[1, 3], &mut mask).expect("two sequences of three positions");
    sequences.clear_padding(&[0, 2], &mut values).expect("two sequences of three positions");
    digest.bytes(&mask);
    digest.floats(&values);
    let noise = [Noise::gaussian(0.5), Noise::gaussian_dropout(0.5), Noise::uniform(0.5)];
    for (noise, first) in noise.into_iter().zip([4085, 0, u64::MAX - 3]) {
        let mut values = numbers(33, 10, true);
        noise.expect("a width in its range").apply(7, first, &mut values);
        digest.floats(&values);
    }
    let alpha = layer(SHAPES[1], Identity, 1);
    let elements = alpha.shape().len();
    let (mut mask, mut values) = (vec![0; alpha.mask_len()], numbers(elements, 11, true));
    alpha.fill_mask(3, &mut mask).expect("the mask has the length");
    alpha.apply_noise(Noise::uniform(2.0).expect("a width in its range"), 8, &mut values).expect("all elements");
    alpha.alpha_dropout(&mask, &mut values).expect("all elements");
    alpha.alpha_dropout_backward(&mask, &mut values).expect("all elements");
    digest.floats(&values);
    println!("masks: {:016x}, {} of {:?}", digest.finish(), Backend::detect().name(), keep);
}

/// What is refused says why, and has written nothing.
fn refusals() {
    let layer = layer(SHAPES[1], Relu, 0);
    let mut memory = Memory::new(&layer, false);
    let before = memory.digest();
    for short in 0..4 {
        let mut call = memory.call(0, 4);
        let (channels, elements) = (call.bias.map_or(0, <[f32]>::len) - 1, call.input.len() - 1);
        match short {
            0 => call.input = front(call.input, elements),
            1 => call.weight = call.weight.map(|weight| front(weight, channels)),
            2 => call.running_var = &mut [],
            _ => call.mask = Some(&[]),
        }
        let error = call.train(&layer).expect_err("a buffer is too short");
        println!("{error}");
    }
    assert_eq!(memory.digest(), before, "a refused call wrote");
}

//! The targets that call a layer: on every backend, then against the reference.

use normdrop::{Backend, Buffer as Name, Config, Dropout, EvalInPlace, Layer, Running, Shape};
use normdrop_reference::layer::{Backward, Centre, Moments, Parameters, Statistics, joined, widened};
use normdrop_reference::units::U;

use crate::bounds::{self, Comparison};
use crate::buffer::same_bits;
use crate::case::{Case, Entry, ForwardResult, Lengths, Memory, written};
use crate::gates;
use crate::halves;
use crate::input::{Activation, LayerInput};
use crate::padded::{self, Padding};

/// Fuzzes one entry.
pub(crate) fn entry(entry: Entry, input: &LayerInput) {
    let mut case = Case::new(input);
    with_activation(case.activation, Call { case: &mut case, entry });
    halves::check(input, entry);
    // Once more over some of the positions.
    let mut case = Case::new(input);
    case.padding = Padding::new(&case, input);
    if case.padding.is_some() && matches!(entry, Entry::Train | Entry::Eval | Entry::Backward) {
        with_activation(case.activation, Call { case: &mut case, entry });
    }
}

/// What is done with an activation.
pub(crate) trait Visitor {
    type Result;

    fn visit<A: normdrop::Activation>(self, activation: A) -> Self::Result;
}

/// Does something with the activation of an input.
pub(crate) fn with_activation<V: Visitor>(activation: Activation, visitor: V) -> V::Result {
    match activation {
        Activation::Identity => visitor.visit(normdrop::Identity),
        Activation::Relu => visitor.visit(normdrop::Relu),
        Activation::Relu6 => visitor.visit(normdrop::Relu6),
        Activation::LeakyRelu => visitor.visit(normdrop::LeakyRelu::default()),
        Activation::HardSwish => visitor.visit(normdrop::HardSwish),
        Activation::Sigmoid => visitor.visit(normdrop::Sigmoid),
        Activation::Tanh => visitor.visit(normdrop::Tanh),
        Activation::Silu => visitor.visit(normdrop::Silu),
        Activation::GeluTanh => visitor.visit(normdrop::GeluTanh),
        Activation::Gelu => visitor.visit(normdrop::Gelu),
        Activation::Elu => visitor.visit(normdrop::Elu::default()),
        Activation::Selu => visitor.visit(normdrop::Selu),
        Activation::Mish => visitor.visit(normdrop::Mish),
        Activation::Softplus => visitor.visit(normdrop::Softplus),
    }
}

struct Call<'a> {
    case: &'a mut Case,
    entry: Entry,
}

impl Visitor for Call<'_> {
    type Result = ();

    fn visit<A: normdrop::Activation>(self, activation: A) {
        call(self.case, self.entry, activation);
    }
}

fn call<A: normdrop::Activation>(case: &mut Case, entry: Entry, activation: A) {
    let layer = case.layer(activation);
    if matches!(entry, Entry::Backward | Entry::BackwardInPlace) {
        case.forward = forward(case, &layer);
    }
    if case.padding.is_some() {
        padded::refuse(case, entry, &layer);
    }
    let Some(memory) = on_every_backend(case, entry, &layer) else { return };
    if let Some(padding) = case.padding.clone() {
        if entry == Entry::Backward {
            check_subset(case, &memory, &layer);
        }
        let (dense, memory) = padding.dense(case, entry, &memory);
        return match entry {
            Entry::Train => check_train(&dense, &memory),
            Entry::Eval => check_eval(&dense, &memory),
            _ => check_backward(&dense, &memory),
        };
    }
    match entry {
        Entry::Train => check_train(case, &memory),
        Entry::Eval => check_eval(case, &memory),
        Entry::EvalInPlace => {
            let (apart, _) = alone(case, Entry::Eval, &layer);
            assert!(same_bits(&memory.values, &apart.output), "evaluation in place differs from evaluation");
            check_eval(case, &apart);
        }
        Entry::Backward => {
            check_subset(case, &memory, &layer);
            check_backward(case, &memory);
        }
        Entry::BackwardInPlace => {
            case.wants_input = true;
            let (apart, _) = alone(case, Entry::Backward, &layer);
            let grad_input = apart.grad_input.as_deref().unwrap_or_default();
            assert!(same_bits(&memory.values, grad_input), "backward in place differs from backward");
            check_backward(case, &apart);
        }
        // They are called on parts of a batch: see the module `phases`.
        Entry::Moments
        | Entry::Finish
        | Entry::Apply
        | Entry::Reduce
        | Entry::FinishGradients
        | Entry::ApplyGradient => {}
    }
}

/// Calls an entry on every backend of this machine, each time with other garbage where no content may matter.
///
/// All must return the same, leave the same bits, and write nothing that is not theirs. Gives back the memory of the
/// first, or nothing if the call was refused.
pub(crate) fn on_every_backend<A: normdrop::Activation>(case: &Case, entry: Entry, layer: &Layer<A>) -> Option<Memory> {
    let mut first: Option<Memory> = None;
    for (run, layer) in on_backends(layer).enumerate() {
        let mut memory = Memory::new(case, entry, Lengths::AsGiven, scratch_len(case, entry, &layer), run);
        let before = memory.clone();
        let result = memory.call(case, entry, &layer);
        let refusals = memory.refusals(case, entry, scratch_len(case, entry, &layer));
        match result {
            Ok(()) => assert!(refusals.is_empty(), "the call succeeded in spite of {refusals:?}"),
            Err(error) => assert!(refusals.contains(&error), "{error:?} is none of {refusals:?}"),
        }
        let written = if result.is_ok() { written(case, entry) } else { &[] };
        let reference = first.as_ref().map_or_else(|| memory.contents(), Memory::contents);
        for (((name, bits), (_, before)), (_, reference)) in
            memory.contents().iter().zip(&before.contents()).zip(&reference)
        {
            if written.contains(name) {
                assert_eq!(bits, reference, "{} of run {run} differs from that of the first", name.name());
            } else {
                assert_eq!(bits, before, "{} was written and {result:?} returned", name.name());
            }
        }
        if result.is_err() {
            assert_eq!(memory.scratch_contents(), before.scratch_contents(), "a refused call wrote scratch");
            continue;
        }
        first.get_or_insert(memory);
    }
    gates::check(case, entry, layer, first.as_ref());
    first
}

/// The layer on the fastest backend and on each of this machine.
pub(crate) fn on_backends<A: normdrop::Activation>(layer: &Layer<A>) -> impl Iterator<Item = Layer<A>> {
    let backends = Backend::ALL.into_iter().filter(|backend| backend.is_available());
    let layer = *layer;
    std::iter::once(layer)
        .chain(backends.map(move |backend| layer.with_backend(backend).expect("the backend is available")))
}

pub(crate) fn scratch_len<A: normdrop::Activation>(case: &Case, entry: Entry, layer: &Layer<A>) -> usize {
    if case.padding.is_some() {
        return layer.masked_scratch_len();
    }
    let len = match entry {
        Entry::Train | Entry::Moments => layer.train_scratch_len(),
        Entry::Eval | Entry::EvalInPlace | Entry::Apply => layer.eval_scratch_len(),
        Entry::Backward | Entry::BackwardInPlace | Entry::Reduce | Entry::ApplyGradient => layer.backward_scratch_len(),
        Entry::Finish | Entry::FinishGradients => 0,
    };
    assert!(len <= layer.scratch_len(), "one length must be enough for every call");
    len
}

/// Calls an entry on buffers of the right lengths; the call may still be refused.
pub(crate) fn alone<A: normdrop::Activation>(case: &Case, entry: Entry, layer: &Layer<A>) -> (Memory, bool) {
    let mut memory = Memory::new(case, entry, Lengths::Right, scratch_len(case, entry, layer), 1);
    let result = memory.call(case, entry, layer);
    (memory, result.is_ok())
}

/// What the forward call of a backward call leaves for it.
pub(crate) fn forward<A: normdrop::Activation>(case: &mut Case, layer: &Layer<A>) -> ForwardResult {
    let entry = if case.fixed_statistics { Entry::Eval } else { Entry::Train };
    // Without running statistics: those of one value may be refused, and what is saved and put out is the same.
    let has_running = std::mem::take(&mut case.has_running);
    let (memory, _) = alone(case, entry, layer);
    let z = sides(case, entry);
    case.has_running = has_running;
    if case.foreign_saved {
        return ForwardResult {
            saved_mean: case.running_mean.clone(),
            saved_mean_tail: case.running_mean.iter().rev().copied().collect(),
            saved_inv_std: widened(&case.running_var),
            z,
        };
    }
    ForwardResult {
        saved_mean: memory.saved_mean.to_vec(),
        saved_mean_tail: memory.saved_mean_tail.to_vec(),
        saved_inv_std: memory.saved_inv_std.to_vec(),
        z,
    }
}

/// What tells on which side of a kink a `z` is: see [`ForwardResult::z`].
pub(crate) fn sides(case: &mut Case, entry: Entry) -> Vec<f32> {
    let mask = if scales_z(case.activation) { None } else { case.mask.take() };
    let (memory, _) = alone(case, entry, &case.layer(normdrop::Identity));
    if !scales_z(case.activation) {
        case.mask = mask;
    }
    memory.output.to_vec()
}

/// Whether the dropout scale of an activation is folded into the normalisation.
pub(crate) fn scales_z(activation: Activation) -> bool {
    matches!(activation, Activation::Relu | Activation::LeakyRelu)
}

/// The learned parameters, for the reference.
struct Widened {
    weight: Option<Vec<f64>>,
    bias: Option<Vec<f64>>,
    residual: Option<Vec<f64>>,
}

impl Widened {
    fn of(case: &Case) -> Self {
        Self {
            weight: case.weight.as_deref().map(widened),
            bias: case.bias.as_deref().map(widened),
            residual: case.residual.as_deref().map(widened),
        }
    }

    fn parameters(&self) -> Parameters<'_> {
        Parameters { weight: self.weight.as_deref(), bias: self.bias.as_deref(), residual: self.residual.as_deref() }
    }
}

pub(crate) fn check_train(case: &Case, memory: &Memory) {
    if case.shape.is_empty() {
        let mut saved = memory.saved_mean.iter().chain(&*memory.saved_mean_tail);
        let zeros = saved.all(|value| value.to_bits() == 0) && memory.saved_inv_std.iter().all(|&value| value == 0.0);
        assert!(zeros, "what is saved of an empty batch is not zero");
        return;
    }
    let moments = case.reference().moments(&widened(&case.x));
    let centres = case.reference().batch_statistics(&moments);
    check_statistics(case, memory, &moments, &centres);
    check_y(case, &centres, bounds::Y_BATCH, &memory.output);
    check_constant_channels(case, &memory.output);
}

fn check_eval(case: &Case, memory: &Memory) {
    let (mean, var) = (case.joined_mean(), widened(&case.running_var));
    // Beside a tail that is not small in standard deviations, the mean is rounded as that of a
    // batch is.
    let bound = if case.running_mean_tail.is_some() { bounds::Y_BATCH } else { bounds::Y_FIXED };
    check_y(case, &case.reference().fixed_statistics(&mean, &var), bound, &memory.output);
}

/// What training saves, and the running statistics.
fn check_statistics(case: &Case, memory: &Memory, moments: &[Moments], centres: &[Centre]) {
    let mut means = Comparison::new("saved mean", bounds::MEAN);
    let mut inv_stds = Comparison::new("saved inv_std", bounds::INV_STD);
    let mut running_means = Comparison::new("running mean", 1.0);
    let mut running_vars = Comparison::new("running var", 1.0);
    let mut running_pairs = Comparison::new("running mean with its tail", 1.0);
    let pairs = joined(&memory.running_mean, memory.running_mean_tail.as_deref());
    let (mut mean, mut var) = (case.joined_mean(), widened(&case.running_var));
    let (old_mean, old_var) = (mean.clone(), var.clone());
    if case.has_running {
        case.reference().update_running(moments, case.average(), &mut mean, &mut var);
    }
    let momentum = case.average().momentum(case.config.momentum);
    // A batch of weight 0 does not count, even if it is NaN.
    let weighed = |error: f64| if momentum == 0.0 { 0.0 } else { momentum * error };
    for (channel, (moments, centre)) in moments.iter().zip(centres).enumerate() {
        let exact_mean = moments.mean.rounded();
        let std = moments.var.sqrt();
        // The pair holds 48 bits of the mean, and f64 holds it in between with 53.
        let pair = f64::from(memory.saved_mean[channel]) + f64::from(memory.saved_mean_tail[channel]);
        means.add(channel, pair, exact_mean, std, exact_mean.abs() / (1u64 << 46) as f64);
        inv_stds.add(channel, memory.saved_inv_std[channel], centre.inv_std, centre.inv_std, 0.0);
        // The errors of both shares are allowed for, the old one's unless it is NaN; then everything is rounded once.
        let share = weighed(bounds::MEAN * U * std + exact_mean.abs() / (1u64 << 46) as f64);
        let slack = (f64::EPSILON * (1.0 - momentum) * old_mean[channel].abs()).max(0.0);
        if !case.has_running {
            continue;
        }
        let actual = f64::from(memory.running_mean[channel]);
        running_means.add(channel, actual, mean[channel], mean[channel].abs(), share + slack);
        if case.running_mean_tail.is_some() {
            // A unit of this is the last of 46 bits.
            let scale = mean[channel].abs() / (1u64 << 22) as f64;
            running_pairs.add(channel, pairs[channel], mean[channel], scale, share + slack);
        }
        let of_batch = case.reference().running_var.of(moments);
        let share = weighed(bounds::VAR * U * of_batch);
        let slack = (f64::EPSILON * (1.0 - momentum) * old_var[channel].abs()).max(0.0);
        let actual = f64::from(memory.running_var[channel]);
        running_vars.add(channel, actual, var[channel], var[channel].abs(), share + slack);
    }
}

fn check_y(case: &Case, centres: &[Centre], bound: f64, y: &[f32]) {
    let (x, parameters) = (widened(&case.x), Widened::of(case));
    let expected = case.reference().forward(parameters.parameters(), centres, case.mask_of_elements.as_deref(), &x);
    // Two roundings more: of the sum with the residual, and of the dropout scale, which is no part of the slope then.
    let bound = if case.residual.is_some() { bound + 2.0 } else { bound };
    let mut errors = Comparison::new("y", bound).exactly_placed();
    for channel in 0..case.shape.channels() {
        // Of an infinite weight nothing is promised.
        let promised = case.weight.as_ref().is_none_or(|weight| !weight[channel].is_infinite());
        for index in case.reference().shape.indices(channel) {
            let actual = y[index];
            if !case.keeps(index) {
                assert!(actual.to_bits() == 0, "y[{index}] was dropped and is {actual:e}");
            } else if promised {
                errors.add(index, f64::from(actual), expected.y[index], expected.y_scale[index], expected.y_underflow);
            }
        }
    }
}

/// Without a residual a constant channel gives exactly `act(bias)`, times the dropout scale.
fn check_constant_channels(case: &Case, y: &[f32]) {
    if case.residual.is_some() {
        return;
    }
    let reference = case.reference();
    for channel in 0..case.shape.channels() {
        let bias = case.bias.as_ref().map_or(0.0, |bias| bias[channel]);
        let weight = case.weight.as_ref().map_or(1.0, |weight| weight[channel]);
        let mut values = reference.shape.indices(channel).map(|index| case.x[index]);
        let constant = values.next().filter(|&first| first.is_finite() && values.all(|value| value == first));
        if constant.is_none() || !weight.is_finite() || !bias.is_finite() {
            continue;
        }
        for index in reference.shape.indices(channel).filter(|&index| case.keeps(index)) {
            let scale = if case.mask.is_some() { case.keep.scale() } else { 1.0 };
            // What the dropout scale is folded into is rounded with it.
            let expected = match case.activation {
                Activation::Identity => bias * scale,
                Activation::Relu => {
                    if bias <= 0.0 {
                        0.0
                    } else {
                        bias * scale
                    }
                }
                Activation::LeakyRelu => activated(case, bias * scale),
                _ => activated(case, bias) * scale,
            };
            assert!(y[index] == expected, "y[{index}] of a constant channel is {:e}, not {expected:e}", y[index]);
        }
    }
}

/// `act(z)` of the layer under test, from a layer in which it is alone.
fn activated(case: &Case, z: f32) -> f32 {
    struct Alone(f32);

    impl Visitor for Alone {
        type Result = f32;

        fn visit<A: normdrop::Activation>(self, activation: A) -> f32 {
            let shape = Shape::nc(1, 1).expect("a small shape");
            let layer = Layer::new(shape, activation, Config { eps: 0.0, ..Config::DEFAULT }).expect("valid constants");
            let mut values = [self.0];
            let call = EvalInPlace {
                parameters: normdrop::Parameters::default(),
                running: Running::new(&[0.0], &[1.0]),
                dropout: Dropout::Off,
                residual: None,
                values: &mut values,
                scratch: &mut vec![0.0; layer.eval_scratch_len()],
            };
            layer.eval_in_place(call).expect("a call without faults");
            values[0]
        }
    }
    with_activation(case.activation, Alone(z))
}

/// What a gradient is does not depend on which others are asked for.
fn check_subset<A: normdrop::Activation>(case: &mut Case, memory: &Memory, layer: &Layer<A>) {
    (case.wants_input, case.wants_weight, case.wants_bias, case.wants_residual) = (true, true, true, true);
    let (all, _) = alone(case, Entry::Backward, layer);
    for (name, some, all) in [
        (Name::GradInput, &memory.grad_input, &all.grad_input),
        (Name::GradResidual, &memory.grad_residual, &all.grad_residual),
        (Name::GradWeight, &memory.grad_weight, &all.grad_weight),
        (Name::GradBias, &memory.grad_bias, &all.grad_bias),
    ] {
        if let (Some(some), Some(all)) = (some, all) {
            assert!(same_bits(some, all), "{} depends on which other gradients are asked for", name.name());
        }
    }
}

pub(crate) fn check_backward(case: &Case, memory: &Memory) {
    let gradients = [&memory.grad_input, &memory.grad_residual, &memory.grad_weight, &memory.grad_bias];
    if case.shape.is_empty() {
        let mut values = gradients.into_iter().flatten().flat_map(|gradient| gradient.iter());
        assert!(values.all(|value| value.to_bits() == 0), "a gradient of an empty tensor is not zero");
        return;
    }
    if case.foreign_saved && !case.fixed_statistics {
        return;
    }
    let reference = case.reference();
    let (x, dy, parameters) = (widened(&case.x), widened(&case.dy), Widened::of(case));
    let (centres, statistics) = if case.fixed_statistics {
        let (mean, var) = (case.joined_mean(), widened(&case.running_var));
        (reference.fixed_statistics(&mean, &var), Statistics::Fixed)
    } else {
        (reference.batch_statistics(&reference.moments(&x)), Statistics::Batch)
    };
    let call = Backward { mask: case.mask_of_elements.as_deref(), x: &x, dy: &dy, z: Some(&case.forward.z) };
    let expected = reference.backward(parameters.parameters(), &centres, statistics, call);
    let [grad_input, grad_residual, grad_weight, grad_bias] = gradients;
    let of_dx: Vec<_> = {
        let (channels, inner) = (case.shape.channels(), case.shape.inner());
        (0..case.shape.len()).map(|index| expected.dx_underflow[index / inner % channels]).collect()
    };
    let of_residual = vec![expected.d_residual_underflow; case.shape.len()];
    let of_bias = vec![expected.d_bias_underflow; case.shape.channels()];
    for (what, bound, actual, expected, scale, underflow) in [
        ("dx", bounds::DX, grad_input, &expected.dx, &expected.dx_scale, &of_dx),
        ("d_residual", bounds::G, grad_residual, &expected.d_residual, &expected.d_residual_scale, &of_residual),
        (
            "d_weight",
            bounds::SUMS,
            grad_weight,
            &expected.d_weight,
            &expected.d_weight_scale,
            &expected.d_weight_underflow,
        ),
        ("d_bias", bounds::SUMS, grad_bias, &expected.d_bias, &expected.d_bias_scale, &of_bias),
    ] {
        let Some(actual) = actual else { continue };
        let mut errors = Comparison::new(what, bound);
        for (index, &actual) in actual.iter().enumerate() {
            errors.add(index, f64::from(actual), expected[index], scale[index], underflow[index]);
        }
    }
}

//! The safety contract: every length is checked before anything is written, nothing is allocated, every output is
//! overwritten, and the contents of scratch influence nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use normdrop::{
    Average, Backend, Backward, BackwardInPlace, Bernoulli, Buffer, Config, Dropout, Error, Eval, EvalInPlace,
    Identity, Layer, ParameterGradients, Parameters, Relu, Running, RunningMut, Saved, SavedMut, Shape, Statistics,
    Train, merge_moments, merge_sums,
};
use normdrop_reference::random::SplitMix64;

/// The system's allocator, which counts what each thread asks of it.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every method passes its arguments on to the system's allocator, unchanged.
#[expect(unsafe_code, reason = "the trait is unsafe to implement")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller upholds the contract of the same method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of the same method.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// A call of the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Train,
    Eval,
    EvalInPlace,
    BackwardThroughBatch,
    BackwardPastFixed,
    BackwardInPlaceThroughBatch,
    BackwardInPlacePastFixed,
    FillMask,
    FillMaskWith,
}

const CALLS: [Call; 9] = [
    Call::Train,
    Call::Eval,
    Call::EvalInPlace,
    Call::BackwardThroughBatch,
    Call::BackwardPastFixed,
    Call::BackwardInPlaceThroughBatch,
    Call::BackwardInPlacePastFixed,
    Call::FillMask,
    Call::FillMaskWith,
];

impl Call {
    /// Every buffer that the call is given.
    fn buffers(self) -> Vec<Buffer> {
        let parameters = [Buffer::Weight, Buffer::Bias, Buffer::Mask, Buffer::Scratch];
        let running = [Buffer::RunningMean, Buffer::RunningMeanTail, Buffer::RunningVar];
        let saved = [Buffer::SavedMean, Buffer::SavedMeanTail, Buffer::SavedInvStd];
        let gradients = [Buffer::Input, Buffer::Residual, Buffer::GradResidual, Buffer::GradWeight, Buffer::GradBias];
        let apart = [Buffer::GradOutput, Buffer::GradInput];
        let own: &[&[Buffer]] = match self {
            Self::Train => &[&running, &saved, &[Buffer::Input, Buffer::Residual, Buffer::Output]],
            Self::Eval => &[&running, &[Buffer::Input, Buffer::Residual, Buffer::Output]],
            Self::EvalInPlace => &[&running, &[Buffer::Residual, Buffer::Values]],
            Self::BackwardThroughBatch => &[&saved, &gradients, &apart],
            Self::BackwardPastFixed => &[&running, &gradients, &apart],
            Self::BackwardInPlaceThroughBatch => &[&saved, &gradients, &[Buffer::Values]],
            Self::BackwardInPlacePastFixed => &[&running, &gradients, &[Buffer::Values]],
            Self::FillMask | Self::FillMaskWith => return vec![Buffer::Mask],
        };
        [&parameters[..], &own.concat()].concat()
    }
}

/// The buffers of every call, with contents of no special meaning.
#[derive(Debug, Clone)]
struct Buffers {
    weight: Vec<f32>,
    bias: Vec<f32>,
    running_mean: Vec<f32>,
    running_mean_tail: Vec<f32>,
    running_var: Vec<f32>,
    mask: Vec<u8>,
    input: Vec<f32>,
    residual: Vec<f32>,
    output: Vec<f32>,
    values: Vec<f32>,
    grad_output: Vec<f32>,
    grad_input: Vec<f32>,
    grad_residual: Vec<f32>,
    grad_weight: Vec<f32>,
    grad_bias: Vec<f32>,
    mean: Vec<f32>,
    mean_tail: Vec<f32>,
    inv_std: Vec<f64>,
    scratch: Vec<f64>,
    batches: u64,
}

/// What outputs and scratch are full of before a call.
const SENTINEL: f32 = -1.234_567e-7;

/// The length that the layer asks of a buffer.
fn right_length(layer: &Layer<Relu>, call: Call, buffer: Buffer) -> usize {
    match buffer {
        Buffer::Input | Buffer::Residual | Buffer::Output | Buffer::Values => layer.shape().len(),
        Buffer::GradOutput | Buffer::GradInput | Buffer::GradResidual => layer.shape().len(),
        Buffer::Mask => layer.mask_len(),
        Buffer::Scratch => match call {
            Call::Train => layer.train_scratch_len(),
            Call::Eval | Call::EvalInPlace => layer.eval_scratch_len(),
            _ => layer.backward_scratch_len(),
        },
        _ => layer.shape().channels(),
    }
}

impl Buffers {
    /// Buffers of the right lengths, but for those that `length` changes.
    fn new(layer: &Layer<Relu>, call: Call, length: impl Fn(Buffer, usize) -> usize) -> Self {
        let length = |buffer| length(buffer, right_length(layer, call, buffer));
        let mut random = SplitMix64::new(1);
        #[expect(clippy::cast_possible_truncation, reason = "rounded to f32")]
        let mut data = |buffer| (0..length(buffer)).map(|_| 0.5 + random.next_unit() as f32).collect::<Vec<f32>>();
        let sentinels = |buffer| vec![SENTINEL; length(buffer)];
        Self {
            weight: data(Buffer::Weight),
            bias: data(Buffer::Bias),
            running_mean: data(Buffer::RunningMean),
            running_mean_tail: vec![1e-9; length(Buffer::RunningMeanTail)],
            running_var: data(Buffer::RunningVar),
            mask: vec![0b0110_1010; length(Buffer::Mask)],
            input: data(Buffer::Input),
            residual: data(Buffer::Residual),
            output: sentinels(Buffer::Output),
            values: data(Buffer::Values),
            grad_output: data(Buffer::GradOutput),
            grad_input: sentinels(Buffer::GradInput),
            grad_residual: sentinels(Buffer::GradResidual),
            grad_weight: sentinels(Buffer::GradWeight),
            grad_bias: sentinels(Buffer::GradBias),
            mean: data(Buffer::SavedMean),
            mean_tail: vec![0.0; length(Buffer::SavedMeanTail)],
            inv_std: vec![1.5; length(Buffer::SavedInvStd)],
            scratch: vec![f64::from(SENTINEL); length(Buffer::Scratch)],
            batches: 3,
        }
    }

    /// The bits of everything but scratch.
    fn bits(&self) -> Vec<u64> {
        let singles = [
            &self.weight,
            &self.bias,
            &self.running_mean,
            &self.running_mean_tail,
            &self.running_var,
            &self.input,
            &self.residual,
            &self.output,
            &self.values,
            &self.grad_output,
            &self.grad_input,
            &self.grad_residual,
            &self.grad_weight,
            &self.grad_bias,
            &self.mean,
            &self.mean_tail,
        ];
        let singles = singles.into_iter().flatten().map(|value| u64::from(value.to_bits()));
        let doubles = self.inv_std.iter().map(|value| value.to_bits());
        singles.chain(doubles).chain(self.mask.iter().map(|&byte| u64::from(byte))).chain([self.batches]).collect()
    }

    fn call(&mut self, layer: &Layer<Relu>, call: Call) -> Result<(), Error> {
        let parameters = Parameters { weight: Some(&self.weight), bias: Some(&self.bias) };
        let running =
            Running { mean: &self.running_mean, mean_tail: Some(&self.running_mean_tail), var: &self.running_var };
        let saved = Saved { mean: &self.mean, mean_tail: &self.mean_tail, inv_std: &self.inv_std };
        let dropout = Dropout::Mask(&self.mask);
        let statistics = match call {
            Call::BackwardThroughBatch | Call::BackwardInPlaceThroughBatch => Statistics::Batch(saved),
            _ => Statistics::Fixed(running),
        };
        let grad_parameters =
            ParameterGradients { weight: Some(&mut self.grad_weight), bias: Some(&mut self.grad_bias) };
        let scratch = &mut self.scratch;
        match call {
            Call::Train => layer.train(Train {
                parameters,
                running: Some(RunningMut {
                    mean: &mut self.running_mean,
                    mean_tail: Some(&mut self.running_mean_tail),
                    var: &mut self.running_var,
                    average: Average::Cumulative { batches: &mut self.batches },
                }),
                dropout,
                input: &self.input,
                output: &mut self.output,
                saved: SavedMut { mean: &mut self.mean, mean_tail: &mut self.mean_tail, inv_std: &mut self.inv_std },
                residual: Some(&self.residual),
                scratch,
            }),
            Call::Eval => {
                let (input, output) = (&self.input, &mut self.output);
                layer.eval(Eval {
                    parameters,
                    running,
                    dropout,
                    input,
                    output,
                    residual: Some(&self.residual),
                    scratch,
                })
            }
            Call::EvalInPlace => layer.eval_in_place(EvalInPlace {
                parameters,
                running,
                dropout,
                values: &mut self.values,
                residual: Some(&self.residual),
                scratch,
            }),
            Call::BackwardThroughBatch | Call::BackwardPastFixed => layer.backward(Backward {
                parameters,
                statistics,
                dropout,
                input: &self.input,
                grad_output: &self.grad_output,
                grad_input: Some(&mut self.grad_input),
                grad_parameters,
                residual: Some(&self.residual),
                grad_residual: Some(&mut self.grad_residual),
                scratch,
            }),
            Call::BackwardInPlaceThroughBatch | Call::BackwardInPlacePastFixed => {
                layer.backward_in_place(BackwardInPlace {
                    parameters,
                    statistics,
                    dropout,
                    input: &self.input,
                    values: &mut self.values,
                    grad_parameters,
                    residual: Some(&self.residual),
                    grad_residual: Some(&mut self.grad_residual),
                    scratch,
                })
            }
            Call::FillMask => layer.fill_mask(1, &mut self.mask).map(drop),
            Call::FillMaskWith => layer.fill_mask_with(&mut rand_xoshiro_generator(), &mut self.mask).map(drop),
        }
    }

    /// The buffers that a call must overwrite, which hold sentinels before it.
    fn overwritten(&self, call: Call) -> Vec<&Vec<f32>> {
        match call {
            Call::Train | Call::Eval => vec![&self.output],
            Call::BackwardThroughBatch | Call::BackwardPastFixed => {
                vec![&self.grad_input, &self.grad_residual, &self.grad_weight, &self.grad_bias]
            }
            Call::BackwardInPlaceThroughBatch | Call::BackwardInPlacePastFixed => {
                vec![&self.grad_residual, &self.grad_weight, &self.grad_bias]
            }
            Call::EvalInPlace | Call::FillMask | Call::FillMaskWith => vec![],
        }
    }
}

fn rand_xoshiro_generator() -> rand_xoshiro::Xoshiro128PlusPlus {
    use rand_xoshiro::rand_core::SeedableRng;
    rand_xoshiro::Xoshiro128PlusPlus::seed_from_u64(1)
}

/// One shape of each walk, and those that have nothing to walk.
const SHAPES: &[[usize; 3]] =
    &[[6, 5, 20], [2, 3, 300], [40, 1, 1], [21, 19, 1], [200, 3, 1], [9, 7, 5], [20, 600, 1], [0, 3, 1], [2, 3, 0]];

fn layer([outer, channels, inner]: [usize; 3], p: f64) -> Layer<Relu> {
    let shape = Shape::new(outer, channels, inner).expect("a small shape");
    Layer::new(shape, Relu, Config { p, ..Config::DEFAULT }).expect("constants in their ranges")
}

/// Calls with one buffer of a wrong length.
fn for_each_fault(mut check: impl FnMut(&Layer<Relu>, Call, Buffer, usize, usize)) {
    for &shape in SHAPES {
        for p in [0.25, 1.0] {
            let layer = layer(shape, p);
            for call in CALLS {
                for buffer in call.buffers() {
                    let right = right_length(&layer, call, buffer);
                    let mut wrong = vec![0, right.wrapping_sub(1), right + 1, 2 * right + 3];
                    wrong.retain(|&length| length != right && length != usize::MAX);
                    if buffer == Buffer::Scratch {
                        wrong.retain(|&length| length < right);
                    }
                    for length in wrong {
                        check(&layer, call, buffer, right, length);
                    }
                }
            }
        }
    }
}

#[test]
fn every_buffer_of_a_wrong_length_is_refused_by_name_with_both_lengths() {
    let mut faults = 0;
    for_each_fault(|layer, call, buffer, expected, actual| {
        let mut buffers = Buffers::new(layer, call, |b, right| if b == buffer { actual } else { right });
        let error = buffers.call(layer, call).expect_err("a wrong length");
        assert_eq!(error, Error::Length { buffer, expected, actual }, "{call:?}, {:?}", layer.shape());
        let text = error.to_string();
        for part in [buffer.name(), &expected.to_string(), &actual.to_string()] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
        faults += 1;
    });
    assert!(faults > 1000, "only {faults} faults were tried");
}

/// That of its field, and where fields of different bundles have the same name, with that of the bundle.
#[test]
fn buffers_have_the_names_of_their_fields() {
    for (buffer, name) in [
        (Buffer::Input, "input"),
        (Buffer::Residual, "residual"),
        (Buffer::Output, "output"),
        (Buffer::Values, "values"),
        (Buffer::GradOutput, "grad_output"),
        (Buffer::GradInput, "grad_input"),
        (Buffer::GradResidual, "grad_residual"),
        (Buffer::Weight, "weight"),
        (Buffer::Bias, "bias"),
        (Buffer::GradWeight, "grad_weight"),
        (Buffer::GradBias, "grad_bias"),
        (Buffer::RunningMean, "running mean"),
        (Buffer::RunningMeanTail, "running mean_tail"),
        (Buffer::RunningVar, "running var"),
        (Buffer::SavedMean, "saved mean"),
        (Buffer::SavedMeanTail, "saved mean_tail"),
        (Buffer::SavedInvStd, "saved inv_std"),
        (Buffer::Moments, "moments"),
        (Buffer::Sums, "sums"),
        (Buffer::Mask, "mask"),
        (Buffer::Scratch, "scratch"),
        (Buffer::FoldWeights, "fold weights"),
        (Buffer::FoldBias, "fold bias"),
        (Buffer::Lengths, "lengths"),
    ] {
        assert_eq!(buffer.name(), name);
    }
}

#[test]
fn nothing_is_written_when_a_length_is_wrong() {
    for_each_fault(|layer, call, buffer, _, actual| {
        let mut buffers = Buffers::new(layer, call, |b, right| if b == buffer { actual } else { right });
        let before = (buffers.bits(), buffers.scratch.clone());
        assert!(buffers.call(layer, call).is_err());
        assert_eq!(before, (buffers.bits(), buffers.scratch), "{call:?}, {buffer:?}, {:?}", layer.shape());
    });
}

#[test]
fn nothing_is_written_when_several_lengths_are_wrong() {
    for &shape in SHAPES {
        let layer = layer(shape, 0.25);
        for call in CALLS {
            let mut buffers = Buffers::new(&layer, call, |_, right| right + 1);
            let before = buffers.bits();
            assert!(buffers.call(&layer, call).is_err(), "{call:?}, shape {shape:?}");
            assert_eq!(before, buffers.bits(), "{call:?}, shape {shape:?}");
        }
    }
}

#[test]
fn nothing_is_written_when_batch_statistics_do_not_exist() {
    let shape = Shape::nc(4, 3).expect("a small shape");
    let eps_of_zero = Layer::new(shape, Relu, Config { eps: 0.0, ..Config::DEFAULT }).expect("fine for evaluation");
    let through_batch = [Call::Train, Call::BackwardThroughBatch, Call::BackwardInPlaceThroughBatch];
    for (layer, calls, error) in [
        (layer([1, 3, 1], 0.5), &through_batch[..1], Error::SingleSample),
        (eps_of_zero, &through_batch[..], Error::Eps { eps: 0.0 }),
    ] {
        for &call in calls {
            let mut buffers = Buffers::new(&layer, call, |_, right| right);
            let before = (buffers.bits(), buffers.scratch.clone());
            assert_eq!(buffers.call(&layer, call), Err(error));
            assert_eq!(before, (buffers.bits(), buffers.scratch), "{call:?}");
        }
    }
}

#[test]
fn errors_of_constants_say_what_came() {
    let shape = Shape::nc(4, 3).expect("a small shape");
    let text = |config| Layer::new(shape, Relu, config).expect_err("a constant out of its range").to_string();
    assert!(text(Config { eps: -2.5, ..Config::DEFAULT }).contains("-2.5"));
    assert!(Error::Momentum { momentum: 7.25 }.to_string().contains("7.25"));
    assert!(Error::Count { channel: 3, count: -7.25 }.to_string().contains("channel 3"));
    assert!(Error::Count { channel: 3, count: -7.25 }.to_string().contains("-7.25"));
    // `check_moments` is given no running statistics: the text must hold for values that a call would write.
    let overflow = Error::NotFinite { buffer: Buffer::RunningVar, index: 1 }.to_string();
    assert_eq!(overflow, "running var[1]: a value is not finite, or would not be after the call; nothing was written");
    assert!(Error::SingleSample.to_string().contains("keep a biased running variance or none"));
    assert!(text(Config { p: 1.75, ..Config::DEFAULT }).contains("1.75"));
    const MAX: usize = usize::MAX;
    for (shape, product, dimension) in
        [(Shape::new(MAX, 2, 1), MAX, 2), (Shape::nchw(1, 1, MAX, 3), MAX, 3), (Shape::nhwc(2, MAX, 1, 3), 2, MAX)]
    {
        assert_eq!(shape, Err(Error::ShapeOverflow { product, dimension }));
        let text = shape.expect_err("too large").to_string();
        assert!(text.contains(&format!("{product} times {dimension} is above {MAX}")), "{text}");
    }
}

/// The reason of an error by its panic, as the compiler shows it for a constant, and its whole text.
#[test]
fn every_error_says_what_was_expected_what_came_and_what_to_do() {
    let length = |buffer, expected, actual| Error::Length { buffer, expected, actual };
    for (error, reason, text) in [
        (length(Buffer::Mask, 2, 12), "length", "mask must have 2 bytes (eight bits each, "),
        (length(Buffer::Mask, 2, 12), "length", ") but has 12; nothing was written"),
        (length(Buffer::Weight, 3, 4), "length", "weight must have 3 f32 values but has 4; nothing was written"),
        (length(Buffer::SavedInvStd, 3, 4), "length", "saved inv_std must have 3 f64 values but has 4;"),
        (
            length(Buffer::Slope, 3, 2),
            "length",
            "slope must have 3 f32 values (one for each channel) or one but has 2;",
        ),
        (length(Buffer::Scratch, 30, 4), "length", "scratch must have at least 30 f64 values (`Layer::scratch_len`"),
        (
            Error::LengthMultiple { buffer: Buffer::Moments, fields: 3, actual: 4 },
            "for each channel",
            "moments must have 3 f64 values for each channel but have 4 in all; nothing was written",
        ),
        (Error::ShapeOverflow { product: 7, dimension: 9 }, "the product of the dimensions", "7 times 9"),
        (Error::Eps { eps: -1.0 }, "eps must be finite and at least 0, in training above 0", ", but is -1.0"),
        (Error::Momentum { momentum: 99.0 }, "momentum, the weight of the new value", "must be in [0, 1], but is 99.0"),
        (Error::Momentum { momentum: 99.0 }, "momentum", "Keras and flax is 1 minus this one"),
        (Error::Probability { p: f64::NAN }, "p, the probability to drop, must be in [0, 1]", ", but is NaN"),
        (Error::Slope { slope: f32::INFINITY }, "the slope must be finite", "but is inf"),
        (Error::SingleSample, "more than one value per channel", "or normalise with fixed statistics; nothing"),
        (Error::BackendUnavailable { backend: Backend::Avx512 }, "`Backend::detect`", "avx512: the backend cannot run"),
        (Error::MissingBias { channel: 7 }, "give it a bias", "channel 7: "),
        (Error::Variance { channel: 7, var: -2.0 }, "raise eps", "the running var of channel 7 is -2.0; nothing"),
    ] {
        assert!(error.to_string().contains(text), "{text:?} is not in {error}");
        let panic = std::panic::catch_unwind(|| error.panic()).expect_err("it returned");
        let panic = *panic.downcast::<String>().expect("a text");
        assert!(panic.contains(reason), "{reason:?} is not in {panic}");
    }
}

#[test]
fn moments_and_sums_that_are_not_whole_are_refused_with_the_values_of_a_channel() {
    let (mut into, from) = ([1.0; 4], [1.0; 4]);
    let error = merge_moments(&mut into, &from);
    assert_eq!(error, Err(Error::LengthMultiple { buffer: Buffer::Moments, fields: 3, actual: 4 }));
    let error = merge_sums(&mut into[..3], &from);
    assert_eq!(error, Err(Error::LengthMultiple { buffer: Buffer::Sums, fields: 2, actual: 3 }));
    let error = merge_moments(&mut into[..3], &from);
    assert_eq!(error, Err(Error::Length { buffer: Buffer::Moments, expected: 3, actual: 4 }));
    assert_eq!(into, [1.0; 4]);
}

/// The panic of `Layer::new_const` is what the compiler shows where a constant is out of its range.
#[test]
fn a_constant_layer_names_what_is_out_of_its_range() {
    const LAYER: Layer<Relu> = Layer::new_const(Shape::nc(4, 3), Relu, Config { p: 0.25, ..Config::DEFAULT });
    let layer = Layer::new(Shape::nc(4, 3).expect("a small shape"), Relu, Config { p: 0.25, ..Config::DEFAULT });
    assert_eq!(Ok(LAYER), layer);
    for (shape, config, named) in [
        (Shape::nc(usize::MAX, 3), Config::DEFAULT, "dimensions"),
        (Shape::nc(4, 3), Config { eps: -1.0, ..Config::DEFAULT }, "eps"),
        (Shape::nc(4, 3), Config { p: f64::NAN, ..Config::DEFAULT }, "p, the probability"),
    ] {
        let panic = std::panic::catch_unwind(|| Layer::new_const(shape, Relu, config)).expect_err("a layer");
        let panic = *panic.downcast::<String>().expect("a text");
        assert!(panic.contains(named), "{named:?} is not in {panic}");
    }
}

#[test]
fn a_shape_with_an_empty_dimension_never_overflows() {
    for dimensions in [[0, usize::MAX, usize::MAX], [usize::MAX, 0, usize::MAX], [usize::MAX, usize::MAX, 0]] {
        let shape = Shape::new(dimensions[0], dimensions[1], dimensions[2]).expect("an empty shape");
        assert!(shape.is_empty());
        assert_eq!(shape.len(), 0);
        let layer = Layer::new(shape, Identity, Config::DEFAULT).expect("constants in their ranges");
        assert_eq!((layer.scratch_len(), layer.mask_len()), (0, 0));
    }
}

/// Channels-last, where positions are part of the outer dimension: that is 0 without a sample, whatever they are.
#[test]
fn positions_that_do_not_fit_are_an_overflow_unless_there_is_no_sample() {
    const MAX: usize = usize::MAX;
    for shape in [Shape::nhwc(0, MAX, 2, 3), Shape::ndhwc(0, 2, MAX, 1, 3)] {
        let shape = shape.expect("an empty shape");
        assert_eq!((shape.outer(), shape.channels(), shape.inner(), shape.len()), (0, 3, 1, 0));
    }
    for n in [1, 2] {
        for shape in [Shape::nhwc(n, MAX, 2, 3), Shape::nhwc(n, MAX, 2, 0), Shape::ndhwc(n, 2, MAX, 1, 3)] {
            assert!(matches!(shape, Err(Error::ShapeOverflow { .. })));
        }
    }
    assert_eq!(Shape::nlc(2, MAX, 3), Err(Error::ShapeOverflow { product: 2, dimension: MAX }));
}

#[test]
fn every_output_is_overwritten() {
    for &shape in SHAPES {
        for p in [0.25, 1.0] {
            let layer = layer(shape, p);
            for call in CALLS {
                let mut buffers = Buffers::new(&layer, call, |_, right| right);
                buffers.call(&layer, call).expect("a call without faults");
                for output in buffers.overwritten(call) {
                    assert!(output.iter().all(|&value| value != SENTINEL), "{call:?}, shape {shape:?}, p {p}");
                }
            }
        }
    }
}

#[test]
fn the_inputs_of_a_call_are_never_written() {
    for &shape in SHAPES {
        let layer = layer(shape, 0.25);
        for call in CALLS {
            let mut buffers = Buffers::new(&layer, call, |_, right| right);
            let before = buffers.clone();
            buffers.call(&layer, call).expect("a call without faults");
            // What the call writes is taken from before it; then nothing else may differ.
            let written = match call {
                Call::Train => Buffers {
                    output: before.output.clone(),
                    running_mean: before.running_mean.clone(),
                    running_mean_tail: before.running_mean_tail.clone(),
                    running_var: before.running_var.clone(),
                    batches: before.batches,
                    mean: before.mean.clone(),
                    mean_tail: before.mean_tail.clone(),
                    inv_std: before.inv_std.clone(),
                    ..buffers
                },
                Call::Eval => Buffers { output: before.output.clone(), ..buffers },
                Call::EvalInPlace => Buffers { values: before.values.clone(), ..buffers },
                Call::FillMask | Call::FillMaskWith => Buffers { mask: before.mask.clone(), ..buffers },
                _ => Buffers {
                    grad_input: before.grad_input.clone(),
                    grad_residual: before.grad_residual.clone(),
                    values: before.values.clone(),
                    grad_weight: before.grad_weight.clone(),
                    grad_bias: before.grad_bias.clone(),
                    ..buffers
                },
            };
            assert_eq!(written.bits(), before.bits(), "{call:?}, shape {shape:?}");
        }
    }
}

#[test]
fn the_contents_of_scratch_influence_no_result() {
    for &shape in SHAPES {
        let layer = layer(shape, 0.25);
        for call in CALLS {
            let result = |contents: f64, more: usize| {
                let mut buffers =
                    Buffers::new(&layer, call, |b, right| if b == Buffer::Scratch { right + more } else { right });
                buffers.scratch.fill(contents);
                buffers.call(&layer, call).expect("a call without faults");
                buffers.bits()
            };
            let expected = result(0.0, 0);
            for contents in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
                assert_eq!(result(contents, 0), expected, "{call:?}, shape {shape:?}, scratch full of {contents}");
            }
            for more in [1, 15, 16, 1000] {
                assert_eq!(result(f64::NAN, more), expected, "{call:?}, shape {shape:?}, {more} more of scratch");
            }
        }
    }
}

/// A tile with fewer columns than lanes, whose columns need f64: found by fuzzing, where large values of both signs in
/// the idle lanes cancelled the flags of the others.
#[test]
#[expect(clippy::cast_possible_truncation, reason = "any f32 will do")]
fn the_contents_of_scratch_do_not_hide_a_channel_that_needs_f64() {
    const CHANNELS: usize = 6;
    let layer = Layer::new(Shape::nc(40, CHANNELS).expect("small"), Identity, Config::DEFAULT).expect("defaults");
    let mut random = SplitMix64::new(6);
    let x: Vec<f32> = (0..40 * CHANNELS).map(|_| random.next_normal() as f32).collect();
    let (weight, mean, var) = ([3e31; CHANNELS], [0.1; CHANNELS], [0.7; CHANNELS]);
    let outputs = [[0.0, 0.0], [1e300, -1e300], [-1e300, 1e300]].map(|pair| {
        let mut scratch: Vec<f64> = pair.into_iter().cycle().take(layer.eval_scratch_len()).collect();
        let mut y = vec![0.0; x.len()];
        let call = Eval {
            parameters: Parameters { weight: Some(&weight), bias: None },
            running: Running::new(&mean, &var),
            dropout: Dropout::Off,
            input: &x,
            output: &mut y,
            residual: None,
            scratch: &mut scratch,
        };
        layer.eval(call).expect("right lengths");
        y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    });
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(outputs[0], outputs[2]);
}

#[test]
fn one_scratch_is_enough_for_every_call_of_a_layer() {
    for &shape in SHAPES {
        let layer = layer(shape, 0.25);
        let lengths = [layer.train_scratch_len(), layer.eval_scratch_len(), layer.backward_scratch_len()];
        assert_eq!(Some(layer.scratch_len()), lengths.into_iter().max());
        // Without vector registers calls are worked channel by channel, in no scratch at all.
        if cfg!(all(normdrop_backend = "scalar", not(feature = "rayon"))) {
            assert_eq!(layer.scratch_len(), 0);
        }
    }
}

#[test]
fn in_place_is_the_same_as_out_of_place_to_the_bit() {
    let pairs = [
        (Call::Eval, Call::EvalInPlace),
        (Call::BackwardThroughBatch, Call::BackwardInPlaceThroughBatch),
        (Call::BackwardPastFixed, Call::BackwardInPlacePastFixed),
    ];
    for &shape in SHAPES {
        for p in [0.25, 1.0] {
            let layer = layer(shape, p);
            for (apart, in_place) in pairs {
                let mut expected = Buffers::new(&layer, apart, |_, right| right);
                let mut actual = Buffers::new(&layer, in_place, |_, right| right);
                actual.values.clone_from(if apart == Call::Eval { &actual.input } else { &actual.grad_output });
                expected.call(&layer, apart).expect("a call without faults");
                actual.call(&layer, in_place).expect("a call without faults");
                let written = if apart == Call::Eval { &expected.output } else { &expected.grad_input };
                let (written, values) = (written.iter(), actual.values.iter());
                assert!(written.map(|x| x.to_bits()).eq(values.map(|x| x.to_bits())), "{in_place:?}, shape {shape:?}");
                assert_eq!(actual.grad_weight, expected.grad_weight, "{in_place:?}, shape {shape:?}");
                assert_eq!(actual.grad_bias, expected.grad_bias, "{in_place:?}, shape {shape:?}");
            }
        }
    }
}

/// The allocations of this thread while `work` runs.
pub(crate) fn allocations<T>(work: impl FnOnce() -> T) -> usize {
    let before = ALLOCATIONS.get();
    let _ = std::hint::black_box(work());
    ALLOCATIONS.get() - before
}

#[test]
fn the_allocator_of_these_tests_counts() {
    assert_eq!(allocations(|| vec![1u8; 100]), 1);
}

#[test]
fn no_call_allocates_whether_it_succeeds_or_fails() {
    for &shape in SHAPES {
        for p in [0.25, 1.0] {
            assert_eq!(allocations(|| layer(shape, p)), 0);
            let layer = layer(shape, p);
            for call in CALLS {
                let mut buffers = Buffers::new(&layer, call, |_, right| right);
                assert_eq!(allocations(|| buffers.call(&layer, call)), 0, "{call:?}, shape {shape:?}");
                let mut faulty = Buffers::new(&layer, call, |_, right| right + 1);
                assert_eq!(allocations(|| faulty.call(&layer, call)), 0, "{call:?} that fails, shape {shape:?}");
            }
        }
    }
}

#[test]
fn a_mask_of_a_wrong_length_is_refused_for_any_range() {
    let keep = Bernoulli::new(0.5).expect("a probability");
    for (elements, expected) in [(0, 0), (1, 1), (8, 1), (9, 2), (1000, 125_usize)] {
        for actual in [expected + 1, expected + 100, expected.wrapping_sub(1)] {
            if actual == usize::MAX {
                continue;
            }
            let mut mask = vec![0xA5; actual];
            let error = Err(Error::Length { buffer: Buffer::Mask, expected, actual });
            assert_eq!(keep.fill(1, 3, elements, &mut mask), error);
            assert_eq!(keep.fill_with(&mut rand_xoshiro_generator(), elements, &mut mask), error);
            assert!(mask.iter().all(|&byte| byte == 0xA5));
        }
    }
}

/// A layer, its scratch and its mask as an embedded program declares them: arrays whose lengths are constants.
#[test]
fn lengths_are_constants() {
    const LAYER: Layer<Relu> = match Shape::nhwc(2, 4, 4, 10) {
        Ok(shape) => match Layer::new(shape, Relu, Config::DEFAULT) {
            Ok(layer) => layer,
            Err(_) => panic!("a constant is out of its range"),
        },
        Err(_) => panic!("the shape is too large"),
    };
    let mut scratch = [0.0; LAYER.scratch_len()];
    let mask = [0xFF; LAYER.mask_len()];
    let (input, mut output) = ([1.0; LAYER.shape().len()], [0.0; LAYER.shape().len()]);
    let (mean, var) = ([0.0; LAYER.shape().channels()], [1.0; LAYER.shape().channels()]);
    LAYER
        .eval(Eval {
            parameters: Parameters::default(),
            running: Running::new(&mean, &var),
            dropout: Dropout::Mask(&mask),
            input: &input,
            output: &mut output,
            residual: None,
            scratch: &mut scratch,
        })
        .expect("a call without faults");
    assert!(output.iter().all(|y| (y - 1.0).abs() < 1e-4));
}

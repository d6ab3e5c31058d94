//! The layer that owns its memory: the bits of the layer on slices, whatever happens between the calls, and no way to train
//! with a mask, statistics or an input that are not those of the call.

use normdrop::{
    Activation, AnyActivation, Average, Backend, Backward, BackwardStep, BatchNormDropout, BatchNormState, Buffer,
    Config, Dropout, Error, Eval, ForwardStep, Gelu, Granularity, Identity, Layer, LeakyRelu, Masked, Noise,
    ParameterGradients, Parameters, Relu, Running, RunningMut, Saved, SavedArrays, SavedMut, Shape, Statistics, Train,
    Validity,
};
use normdrop_reference::random::SplitMix64;

const CHANNELS: usize = 5;

fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut random = SplitMix64::new(seed);
    #[expect(clippy::cast_possible_truncation, reason = "data for f32")]
    let value = |_| (3.0 + 2.0 * random.next_normal()) as f32;
    (0..len).map(value).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A batch that grows, shrinks and changes its layout.
fn shapes() -> [Shape; 6] {
    let shapes = [
        Shape::nc(16, CHANNELS),
        Shape::nc(3, CHANNELS),
        Shape::nchw(2, CHANNELS, 7, 5),
        Shape::nlc(4, 9, CHANNELS),
        Shape::nc(40, CHANNELS),
        Shape::nc(16, CHANNELS),
    ];
    shapes.map(|shape| shape.expect("a small shape"))
}

/// The state of a layer of another program, in buffers one by one.
struct Slices {
    state: BatchNormState,
    cumulative: bool,
    mean: Vec<f32>,
    mean_tail: Vec<f32>,
    inv_std: Vec<f64>,
}

/// What a training call and its backward call write.
#[derive(Debug, PartialEq)]
struct Step {
    y: Vec<u32>,
    dx: Vec<u32>,
    dr: Vec<u32>,
    gradients: [Vec<u32>; 2],
}

impl Slices {
    fn new(state: &BatchNormState, cumulative: bool) -> Self {
        let (state, channels) = (state.clone(), state.weight.len());
        Self {
            state,
            cumulative,
            mean: vec![0.0; channels],
            mean_tail: vec![0.0; channels],
            inv_std: vec![0.0; channels],
        }
    }

    /// The calls of [`Layer`], every field named.
    fn step<A: Activation>(
        &mut self,
        layer: &Layer<A>,
        seed: u64,
        frozen: bool,
        [x, dy]: [&[f32]; 2],
        residual: Option<&[f32]>,
    ) -> Step {
        let mut mask = vec![0; layer.mask_len()];
        layer.fill_mask(seed, &mut mask).expect("the length of the layer");
        let dropout = Dropout::Mask(&mask);
        let (mut y, mut dx, mut dr) = (vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; x.len()]);
        let mut scratch = vec![f64::NAN; layer.scratch_len()];
        let state = &mut self.state;
        let parameters = Parameters { weight: Some(&state.weight), bias: Some(&state.bias) };
        let statistics = if frozen {
            let running = Running {
                mean: &state.running_mean,
                mean_tail: Some(&state.running_mean_tail),
                var: &state.running_var,
            };
            let (output, scratch) = (&mut y[..], &mut scratch[..]);
            let call = Eval { parameters, running, dropout, input: x, residual, output, scratch };
            layer.eval(call).expect("valid arguments");
            Statistics::Fixed(running)
        } else {
            let average = if self.cumulative {
                Average::Cumulative { batches: &mut state.num_batches_tracked }
            } else {
                state.num_batches_tracked += 1;
                Average::Exponential
            };
            let running = RunningMut {
                mean: &mut state.running_mean,
                mean_tail: Some(&mut state.running_mean_tail),
                var: &mut state.running_var,
                average,
            };
            layer
                .train(Train {
                    parameters,
                    running: Some(running),
                    dropout,
                    input: x,
                    residual,
                    output: &mut y,
                    saved: SavedMut {
                        mean: &mut self.mean,
                        mean_tail: &mut self.mean_tail,
                        inv_std: &mut self.inv_std,
                    },
                    scratch: &mut scratch,
                })
                .expect("valid arguments");
            let (mean, mean_tail, inv_std) = (&self.mean[..], &self.mean_tail[..], &self.inv_std[..]);
            Statistics::Batch(Saved { mean, mean_tail, inv_std })
        };
        let (mut d_weight, mut d_bias) = (vec![0.0; state.weight.len()], vec![0.0; state.weight.len()]);
        layer
            .backward(Backward {
                parameters,
                statistics,
                dropout,
                input: x,
                residual,
                grad_output: dy,
                grad_input: Some(&mut dx),
                grad_residual: Some(&mut dr),
                grad_parameters: ParameterGradients { weight: Some(&mut d_weight), bias: Some(&mut d_bias) },
                scratch: &mut scratch,
            })
            .expect("valid arguments");
        Step { y: bits(&y), dx: bits(&dx), dr: bits(&dr), gradients: [bits(&d_weight), bits(&d_bias)] }
    }
}

/// An owned layer whose parameters are not those of a new one.
fn owned<A: Activation>(activation: A, config: Config) -> BatchNormDropout<A> {
    let mut layer = BatchNormDropout::new(CHANNELS, activation, config).expect("valid constants");
    layer.state.weight = values(CHANNELS, 1);
    layer.state.bias = values(CHANNELS, 2);
    layer
}

fn compare<A: Activation>(activation: A, config: Config, cumulative: bool) {
    let mut layer = owned(activation, config);
    if cumulative {
        layer = layer.with_cumulative_average();
    }
    let mut slices = Slices::new(&layer.state, cumulative);
    for (seed, shape) in (0..).zip(shapes()) {
        let on_slices = Layer::new(shape, activation, config).expect("valid constants");
        let [x, dy, r] = [10, 20, 30].map(|data| values(shape.len(), data + seed));
        for (frozen, with_residual) in [(false, false), (false, true), (true, false), (true, true)] {
            let (mut y, mut dx, mut dr) = (vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; x.len()]);
            let residual = with_residual.then_some(&r[..]);
            let expected = slices.step(&on_slices, seed, frozen, [&x, &dy], residual);
            if with_residual {
                let step = ForwardStep { residual, ..ForwardStep::new(shape, seed, &x, &mut y) };
                if frozen { layer.train_frozen_step(step) } else { layer.train_step(step) }.expect("valid");
            } else if frozen {
                layer.train_frozen(shape, seed, &x, &mut y).expect("valid");
            } else {
                layer.train(shape, seed, &x, &mut y).expect("valid");
            }
            // Evaluations in between take the mask's place and that of scratch.
            let mut other = values(2 * CHANNELS, 99);
            let two = Shape::nc(2, CHANNELS).expect("a small shape");
            layer.monte_carlo_in_place(two, seed + 1, &mut other).expect("valid");
            layer.eval_in_place(two, &mut other).expect("valid");
            if with_residual {
                let (grad_input, grad_residual) = (Some(&mut dx[..]), Some(&mut dr[..]));
                let residual = residual.filter(|_| !on_slices.has_gates());
                let step = BackwardStep { residual, grad_input, grad_residual, ..BackwardStep::new(&x, &dy) };
                layer.backward_step(step).expect("valid");
            } else {
                layer.backward(&dy, &mut dx).expect("valid");
                dr = expected.dr.iter().map(|&bits| f32::from_bits(bits)).collect();
            }
            let gradients = [bits(&layer.grad_weight), bits(&layer.grad_bias)];
            let step = Step { y: bits(&y), dx: bits(&dx), dr: bits(&dr), gradients };
            assert_eq!(step, expected, "{shape:?} frozen {frozen} residual {with_residual}");
            assert_eq!(layer.state, slices.state, "{shape:?} frozen {frozen} residual {with_residual}");
        }
    }
    assert_eq!(layer.state.num_batches_tracked, 2 * shapes().len() as u64);
    assert!(layer.state.running_mean_tail.iter().any(|&tail| tail != 0.0), "the tail is not kept");
}

#[test]
fn an_owned_layer_gives_the_bits_of_the_layer_on_slices_for_batches_of_any_size() {
    for granularity in [Granularity::Element, Granularity::Channel, Granularity::Sample] {
        compare(Relu, Config { p: 0.3, granularity, ..Config::DEFAULT }, false);
    }
    compare(Gelu, Config { p: 0.3, ..Config::DEFAULT }, true);
    compare(Identity, Config::DEFAULT, false);
    compare(AnyActivation::Relu(Relu), Config { p: 1.0, ..Config::DEFAULT }, false);
    compare(LeakyRelu::default(), Config { p: 1.0, momentum: 0.7, ..Config::DEFAULT }, false);
}

/// Which elements of a padded batch are at valid positions.
fn valid_elements(shape: Shape, validity: Validity<'_>) -> Vec<bool> {
    let positions = shape.positions() * shape.inner();
    let of = |element: usize| {
        let (sample, position) = if shape.inner() == 1 {
            (element / (shape.channels() * positions), element / shape.channels() % positions)
        } else {
            (element / (shape.channels() * positions), element % positions)
        };
        match validity {
            Validity::Lengths(lengths) => position < lengths[sample],
            Validity::Bitmap(bits) => {
                bits[(sample * positions + position) / 8] >> ((sample * positions + position) % 8) & 1 == 1
            }
        }
    };
    (0..shape.len()).map(of).collect()
}

/// A training, a frozen and an evaluating step over valid positions, beside the calls on slices. In the padding there is NaN.
fn compare_masked<A: Activation>(activation: A, config: Config, noise: Option<Noise>, alpha: bool) {
    let bits_of_positions: Vec<u8> = (0..30).map(|byte: u8| byte.wrapping_mul(77) ^ 0x5A).collect();
    let cases = [
        (Shape::nlc(4, 9, CHANNELS), Validity::Lengths(&[9, 0, 4, 7])),
        (Shape::ncl(3, CHANNELS, 40), Validity::Lengths(&[40, 40, 40])),
        (Shape::ncl(3, CHANNELS, 40), Validity::Bitmap(&bits_of_positions[..15])),
        (Shape::nlc(2, 70, CHANNELS), Validity::Bitmap(&bits_of_positions[..18])),
        (Shape::ncl(5, CHANNELS, 6), Validity::Lengths(&[0, 3, 1, 0, 6])),
        (Shape::nlc(2, 3, CHANNELS), Validity::Lengths(&[0, 0])),
    ];
    let mut owned = owned(activation, config);
    if let Some(noise) = noise {
        owned = owned.with_noise(noise);
    }
    if alpha {
        owned = owned.with_alpha_dropout();
    }
    let mut expected_state = owned.state.clone();
    for (seed, (shape, validity)) in (0..).zip(cases) {
        let shape = shape.expect("a small shape");
        let valid = valid_elements(shape, validity);
        let padded = |mut tensor: Vec<f32>, padding: f32| {
            tensor.iter_mut().zip(&valid).filter(|(_, valid)| !**valid).for_each(|(value, _)| *value = padding);
            tensor
        };
        let [x, dy, r] = [10, 20, 30].map(|data| padded(values(shape.len(), data + seed), f32::NAN));
        let layer = Layer::new(shape, activation, config).expect("valid constants");
        let (mut scratch, mut workspace) =
            (vec![f64::NAN; layer.masked_scratch_len()], vec![f32::NAN; layer.masked_workspace_len()]);
        let mut mask = vec![0; layer.mask_len()];
        layer.fill_mask(seed, &mut mask).expect("the mask has the length");
        let dropout = if alpha { Dropout::Off } else { Dropout::Mask(&mask) };
        for (frozen, with_residual) in [(false, false), (false, true), (true, false), (true, true)] {
            let residual = with_residual.then_some(&r[..]);
            let new = || vec![7.0; shape.len()];
            // The calls on slices.
            let (mut y, mut dx, mut dr, mut saved) = (new(), new(), new(), SavedArrays::<CHANNELS>::new());
            let state = &mut expected_state;
            let masked = Masked::new(validity, &mut workspace);
            if frozen {
                let call = Eval::new(state.running(), &x, &mut y, &mut scratch);
                let call = Eval { parameters: state.parameters(), dropout, residual, ..call };
                layer.eval_masked(call, masked).expect("valid");
            } else {
                let BatchNormState { weight, bias, running_mean, running_mean_tail, running_var, .. } = &mut *state;
                let running =
                    RunningMut { mean_tail: Some(running_mean_tail), ..RunningMut::new(running_mean, running_var) };
                let call = Train::new(&x, &mut y, saved.as_mut(), &mut scratch);
                let parameters = Parameters::new(weight, bias);
                let call = Train { parameters, running: Some(running), dropout, residual, ..call };
                layer.train_masked(call, masked).expect("valid");
                state.num_batches_tracked += u64::from(valid.contains(&true));
            }
            let mut noisy = padded(dy.clone(), 0.0);
            if alpha {
                layer.alpha_dropout(&mask, &mut y).expect("the lengths");
            }
            if let Some(noise) = noise {
                layer.apply_noise(noise, seed, &mut y).expect("the lengths");
                layer.apply_noise(noise, seed, &mut noisy).expect("the lengths");
            }
            if alpha {
                layer.alpha_dropout_backward(&mask, &mut noisy).expect("the lengths");
            }
            let y = padded(y, 0.0);
            let (mut d_weight, mut d_bias) = (vec![7.0; CHANNELS], vec![7.0; CHANNELS]);
            let Saved { mean, mean_tail, inv_std } = saved.as_saved();
            let statistics = if frozen {
                Statistics::Fixed(state.running())
            } else {
                Statistics::Batch(Saved::new(mean, mean_tail, inv_std))
            };
            let call = Backward {
                parameters: state.parameters(),
                dropout,
                residual,
                grad_input: Some(&mut dx),
                grad_residual: with_residual.then_some(&mut dr),
                grad_parameters: ParameterGradients::new(&mut d_weight, &mut d_bias),
                ..Backward::new(statistics, &x, &noisy, &mut scratch)
            };
            layer.backward_masked(call, Masked::new(validity, &mut workspace)).expect("valid");
            let expected =
                Step { y: bits(&y), dx: bits(&dx), dr: bits(&dr), gradients: [bits(&d_weight), bits(&d_bias)] };

            // The owned layer.
            let (mut y, mut dx, mut dr) = (new(), new(), new());
            let step = ForwardStep { residual, validity: Some(validity), ..ForwardStep::new(shape, seed, &x, &mut y) };
            match (frozen, with_residual) {
                (true, _) => owned.train_frozen_step(step),
                (false, true) => owned.train_step(step),
                (false, false) => owned.train_masked(shape, seed, validity, &x, &mut y),
            }
            .expect("valid");
            // An evaluation in between takes the place of scratch and workspace.
            let two = Shape::nlc(2, 3, CHANNELS).expect("a small shape");
            let (other, mut evaluated) = (values(two.len(), 9), vec![7.0; two.len()]);
            owned.eval_masked(two, Validity::Lengths(&[1, 2]), &other, &mut evaluated).expect("valid");
            if frozen || with_residual {
                let residual = residual.filter(|_| !layer.has_gates());
                let grad_residual = with_residual.then_some(&mut dr[..]);
                let step =
                    BackwardStep { residual, grad_input: Some(&mut dx), grad_residual, ..BackwardStep::new(&x, &dy) };
                owned.backward_step(step).expect("valid");
            } else {
                owned.backward(&dy, &mut dx).expect("valid");
            }
            let gradients = [bits(&owned.grad_weight), bits(&owned.grad_bias)];
            let step = Step { y: bits(&y), dx: bits(&dx), dr: bits(&dr), gradients };
            assert_eq!(step, expected, "{shape:?} {validity:?} frozen {frozen} residual {with_residual}");
            assert_eq!(owned.state, *state, "{shape:?} {validity:?} frozen {frozen} residual {with_residual}");
        }
        // Evaluation has neither noise nor dropout.
        let (mut y, mut expected) = (vec![7.0; shape.len()], vec![7.0; shape.len()]);
        owned.eval_masked(shape, validity, &x, &mut y).expect("valid");
        let state = &expected_state;
        let call = Eval::new(state.running(), &x, &mut expected, &mut scratch);
        let call = Eval { parameters: state.parameters(), ..call };
        layer.eval_masked(call, Masked::new(validity, &mut workspace)).expect("valid");
        assert_eq!(bits(&y), bits(&expected));
        // A plain step after a padded one forgets the padding.
        let (x, dy) = (values(shape.len(), 10), values(shape.len(), 20));
        let [mut plain, mut fresh] = [new_dx(shape), new_dx(shape)];
        let mut other = owned.clone();
        other.train_masked(shape, seed, validity, &x, &mut y).expect("valid");
        other.train_frozen(shape, seed, &x, &mut y).expect("valid");
        other.backward(&dy, &mut plain).expect("valid");
        other.train_frozen(shape, seed, &x, &mut y).expect("valid");
        other.backward(&dy, &mut fresh).expect("valid");
        assert!(bits(&plain) == bits(&fresh) && plain.iter().any(|&value| value != 7.0));
    }
}

#[test]
fn an_owned_layer_gives_the_bits_of_masked_calls_on_slices() {
    for granularity in [Granularity::Element, Granularity::Channel] {
        compare_masked(Relu, Config { p: 0.3, granularity, ..Config::DEFAULT }, None, false);
    }
    compare_masked(Gelu, Config { p: 0.3, ..Config::DEFAULT }, None, false);
    compare_masked(Identity, Config::DEFAULT, Noise::uniform(3.0).ok(), false);
    compare_masked(Relu, Config { p: 0.3, ..Config::DEFAULT }, Noise::gaussian(0.5).ok(), true);
    compare_masked(Gelu, Config { p: 0.3, ..Config::DEFAULT }, None, true);
}

#[test]
fn an_owned_layer_refuses_a_validity_that_does_not_fit() -> Result<(), Error> {
    let mut layer = owned(Relu, Config { p: 0.5, ..Config::DEFAULT });
    let (shape, before) = (Shape::nlc(2, 4, CHANNELS)?, layer.state.clone());
    let (x, mut y) = (values(40, 1), vec![7.0; 40]);
    let lengths = Error::Length { buffer: Buffer::Lengths, expected: 2, actual: 1 };
    let bits = Error::Length { buffer: Buffer::Validity, expected: 1, actual: 2 };
    let too_long = Error::SequenceLength { sample: 1, positions: 4, length: 5 };
    for (validity, error) in
        [(Validity::Lengths(&[3]), lengths), (Validity::Bitmap(&[1, 2]), bits), (Validity::Lengths(&[1, 5]), too_long)]
    {
        assert_eq!(layer.train_masked(shape, 1, validity, &x, &mut y), Err(error));
        assert_eq!(layer.eval_masked(shape, validity, &x, &mut y), Err(error));
        assert_eq!(layer.backward(&x, &mut y), Err(Error::NoForward));
        let step = ForwardStep { validity: Some(validity), ..ForwardStep::new(shape, 1, &x, &mut y) };
        assert_eq!(layer.train_frozen_step(step), Err(error));
    }
    let valid = Validity::Lengths(&[1, 4]);
    let length = |buffer| Err(Error::Length { buffer, expected: 40, actual: 39 });
    assert_eq!(layer.train_masked(shape, 1, valid, &x[1..], &mut y), length(Buffer::Input));
    assert_eq!(layer.eval_masked(shape, valid, &x, &mut y[1..]), length(Buffer::Output));
    assert_eq!((&layer.state, &y), (&before, &vec![7.0; 40]), "a refused call has written");
    Ok(())
}

fn new_dx(shape: Shape) -> Vec<f32> {
    vec![7.0; shape.len()]
}

#[test]
fn an_owned_layer_evaluates_as_the_layer_on_slices() -> Result<(), Error> {
    let config = Config { p: 0.5, ..Config::DEFAULT };
    let mut layer = owned(Relu, config);
    let batch = Shape::nc(16, CHANNELS)?;
    layer.train(batch, 1, &values(batch.len(), 3), &mut vec![0.0; batch.len()])?;
    for shape in shapes() {
        let on_slices = Layer::new(shape, Relu, config)?;
        let (x, mut scratch) = (values(shape.len(), 4), vec![0.0; on_slices.eval_scratch_len()]);
        let mut expected = |seed: Option<u64>| {
            let (mut y, mut mask) = (vec![0.0; x.len()], vec![0; on_slices.mask_len()]);
            let dropout = seed.map_or(Ok(Dropout::Off), |seed| on_slices.fill_mask(seed, &mut mask))?;
            let call = Eval::new(layer.state.running(), &x, &mut y, &mut scratch);
            on_slices.eval(Eval { parameters: layer.state.parameters(), dropout, ..call })?;
            Ok::<_, Error>(bits(&y))
        };
        let (plain, dropped) = (expected(None)?, [expected(Some(5))?, expected(Some(6))?]);
        assert_ne!(plain, dropped[0]);
        assert_ne!(dropped[0], dropped[1]);

        let (mut y, mut in_place) = (vec![0.0; x.len()], x.clone());
        layer.eval(shape, &x, &mut y)?;
        layer.eval_in_place(shape, &mut in_place)?;
        assert_eq!((bits(&y), bits(&in_place)), (plain.clone(), plain));
        let mut all = Vec::new();
        layer.monte_carlo(shape, [5, 6], &x, &mut y, |seed, y| all.push((seed, bits(y))))?;
        assert_eq!(all, [(5, dropped[0].clone()), (6, dropped[1].clone())]);
        assert_eq!(bits(&y), dropped[1]);
        in_place.clone_from(&x);
        layer.monte_carlo_in_place(shape, 5, &mut in_place)?;
        assert_eq!(bits(&in_place), dropped[0]);
    }
    Ok(())
}

#[test]
fn an_owned_layer_never_trains_with_a_mask_that_was_not_drawn() -> Result<(), Error> {
    let shape = Shape::nc(4000, CHANNELS)?;
    let (x, mut y) = (values(shape.len(), 3), vec![0.0; shape.len()]);
    for p in [0.25, 0.5, 0.75] {
        let mut layer = BatchNormDropout::new(CHANNELS, Identity, Config { p, ..Config::DEFAULT })?;
        for seed in 0..3 {
            layer.train(shape, seed, &x, &mut y)?;
            let dropped = y.iter().filter(|&&y| y == 0.0).count() as f64 / y.len() as f64;
            assert!((dropped - p).abs() < 0.02, "{dropped} instead of {p}");
        }
    }
    Ok(())
}

#[test]
fn a_backward_call_without_its_training_call_is_refused() -> Result<(), Error> {
    let mut layer = owned(Relu, Config { p: 0.5, ..Config::DEFAULT });
    let shape = Shape::nc(8, CHANNELS)?;
    let (x, dy, mut y, mut dx) = (values(40, 1), values(40, 2), vec![0.0; 40], vec![7.0; 40]);
    assert_eq!(layer.backward(&dy, &mut dx), Err(Error::NoForward));
    assert_eq!(layer.backward_step(BackwardStep::new(&x, &dy)), Err(Error::NoForward));
    layer.eval(shape, &x, &mut y)?;
    layer.monte_carlo(shape, [1], &x, &mut y, |_, _| {})?;
    assert_eq!(layer.backward(&dy, &mut dx), Err(Error::NoForward), "an evaluation is no training call");

    // A step leaves the input with the caller, so that there is nothing for `backward` to read.
    layer.train(shape, 1, &x, &mut y)?;
    layer.train_step(ForwardStep::new(shape, 2, &x, &mut y))?;
    assert_eq!(layer.backward(&dy, &mut dx), Err(Error::NoForward));
    layer.backward_step(BackwardStep::new(&x, &dy))?;

    // A training call that is refused.
    layer.train(shape, 1, &x, &mut y)?;
    let weight = layer.state.weight.pop().expect("a value for each channel");
    assert!(layer.train(shape, 1, &x, &mut y).is_err());
    layer.state.weight.push(weight);
    assert_eq!(layer.backward(&dy, &mut dx), Err(Error::NoForward));
    assert_eq!((dx, layer.grad_weight.len()), (vec![7.0; 40], CHANNELS));
    Ok(())
}

/// Lengths, shapes and states that do not belong to the layer.
#[test]
fn an_owned_layer_refuses_what_does_not_fit_before_it_writes_anything() -> Result<(), Error> {
    let length = |buffer, expected, actual| Err(Error::Length { buffer, expected, actual });
    let mut layer = owned(Relu, Config { p: 0.5, ..Config::DEFAULT });
    let (shape, other) = (Shape::nc(8, CHANNELS)?, Shape::nc(5, 8)?);
    let (x, mut y, mut dx) = (values(40, 1), vec![7.0; 40], vec![7.0; 40]);
    let huge = Shape::nc(usize::MAX / CHANNELS, CHANNELS)?;
    let before = layer.state.clone();

    assert_eq!(layer.layer(other).map(drop), length(Buffer::Weight, 8, CHANNELS));
    assert_eq!(layer.train(other, 1, &x, &mut y), length(Buffer::Weight, 8, CHANNELS));
    assert_eq!(layer.eval(other, &x, &mut y), length(Buffer::Weight, 8, CHANNELS));
    assert_eq!(layer.train(huge, 1, &x, &mut y), length(Buffer::Input, huge.len(), 40));
    assert_eq!(layer.train_frozen(shape, 1, &x[1..], &mut y), length(Buffer::Input, 40, 39));
    assert_eq!(layer.train(shape, 1, &x, &mut y[1..]), length(Buffer::Output, 40, 39));
    assert_eq!(layer.eval(shape, &x, &mut y[1..]), length(Buffer::Output, 40, 39));
    assert_eq!(layer.eval_in_place(shape, &mut y[1..]), length(Buffer::Values, 40, 39));
    assert_eq!(layer.monte_carlo_in_place(huge, 1, &mut y), length(Buffer::Values, huge.len(), 40));
    assert_eq!(layer.monte_carlo(shape, [1], &x, &mut y[1..], |_, _| {}), length(Buffer::Output, 40, 39));
    let step = ForwardStep { residual: Some(&x[1..]), ..ForwardStep::new(shape, 1, &x, &mut y) };
    assert_eq!(layer.train_step(step), length(Buffer::Residual, 40, 39));
    let single = Shape::nc(1, CHANNELS)?;
    assert_eq!(layer.train(single, 1, &x[..5], &mut y[..5]), Err(Error::SingleSample));
    assert_eq!((&layer.state, &y), (&before, &vec![7.0; 40]), "a refused call has written");

    layer.train(shape, 1, &x, &mut y)?;
    assert_eq!(layer.backward(&x[1..], &mut dx), length(Buffer::GradOutput, 40, 39));
    assert_eq!(layer.backward(&x, &mut dx[1..]), length(Buffer::GradInput, 40, 39));
    let gradients = (layer.grad_weight.clone(), layer.grad_bias.clone());
    assert_eq!((gradients, dx), ((vec![0.0; 5], vec![0.0; 5]), vec![7.0; 40]), "a refused call has written");

    for (buffer, wrong) in [
        (Buffer::Weight, BatchNormState { weight: vec![1.0; 4], ..before.clone() }),
        (Buffer::Bias, BatchNormState { bias: vec![1.0; 4], ..before.clone() }),
        (Buffer::RunningMean, BatchNormState { running_mean: vec![1.0; 4], ..before.clone() }),
        (Buffer::RunningMeanTail, BatchNormState { running_mean_tail: vec![1.0; 4], ..before.clone() }),
        (Buffer::RunningVar, BatchNormState { running_var: vec![1.0; 4], ..before.clone() }),
    ] {
        let now = layer.state.clone();
        assert_eq!(layer.load_state(wrong.clone()), length(buffer, CHANNELS, 4));
        assert_eq!(layer.state, now);
        // A state that is written field by field is found by the next call.
        layer.state = wrong;
        assert_eq!(layer.eval(shape, &x, &mut y), length(buffer, CHANNELS, 4));
        assert_eq!(layer.train(shape, 1, &x, &mut y), length(buffer, CHANNELS, 4));
        layer.state = now;
    }
    layer.load_state(before.clone())?;
    assert_eq!(layer.state, before);
    Ok(())
}

#[test]
fn a_layer_that_no_memory_can_hold_is_an_error_and_no_panic() {
    for channels in [usize::MAX, usize::MAX / 4, isize::MAX as usize / 4] {
        let error = BatchNormDropout::new(channels, Relu, Config::DEFAULT).expect_err("there is not so much memory");
        assert_eq!(error, Error::OutOfMemory { buffer: Buffer::Weight, len: channels });
        assert!(error.to_string().contains("weight"), "{error}");
    }
    assert!(Error::NoForward.to_string().contains("`backward` follows `train`"));
}

#[test]
fn an_empty_batch_changes_nothing() -> Result<(), Error> {
    let mut layer = owned(Relu, Config { p: 0.5, ..Config::DEFAULT });
    let before = layer.state.clone();
    layer.grad_bias.fill(7.0);
    for shape in [Shape::nc(0, CHANNELS)?, Shape::nchw(3, CHANNELS, 0, 4)?] {
        layer.train(shape, 1, &[], &mut [])?;
        layer.backward(&[], &mut [])?;
        layer.eval(shape, &[], &mut [])?;
        assert_eq!((&layer.state, &layer.grad_bias), (&before, &vec![0.0; CHANNELS]));
    }
    let mut none = BatchNormDropout::new(0, Relu, Config::DEFAULT)?;
    none.train(Shape::nc(3, 0)?, 1, &[], &mut [])?;
    assert_eq!(none.state.num_batches_tracked, 0);
    Ok(())
}

/// PyTorch's state: no tail. The running mean is one f32 then, and a file without a tail is read.
#[test]
fn a_state_without_a_tail_keeps_the_running_mean_in_one_f32() -> Result<(), Error> {
    let shape = Shape::nc(16, CHANNELS)?;
    let (x, mut y) = (values(shape.len(), 5), vec![0.0; shape.len()]);
    let mut layer = owned(Relu, Config::DEFAULT);
    layer.load_state(BatchNormState { running_mean_tail: Vec::new(), ..layer.state.clone() })?;
    layer.train(shape, 1, &x, &mut y)?;
    layer.eval(shape, &x, &mut y)?;
    assert!(layer.state.running_mean_tail.is_empty());

    let mut with_tail = owned(Relu, Config::DEFAULT);
    with_tail.train(shape, 1, &x, &mut y)?;
    assert_eq!(bits(&layer.state.running_mean), bits(&with_tail.state.running_mean));
    Ok(())
}

#[test]
fn an_owned_layer_keeps_its_backend_for_every_shape() -> Result<(), Error> {
    let layer = owned(Relu, Config::DEFAULT).with_backend(Backend::Portable)?;
    let shape = Shape::nc(3, CHANNELS)?;
    assert_eq!(layer.layer(shape)?, Layer::new(shape, Relu, Config::DEFAULT)?.with_backend(Backend::Portable)?);
    #[cfg(feature = "rayon")]
    assert_eq!(layer.with_tasks(3).layer(shape)?.shape(), shape);
    Ok(())
}

#[cfg(feature = "serde")]
#[test]
fn a_state_is_read_back_from_a_file_with_every_bit() -> Result<(), Box<dyn std::error::Error>> {
    let shape = Shape::nc(16, CHANNELS)?;
    let mut layer = owned(Relu, Config::DEFAULT);
    layer.train(shape, 1, &values(shape.len(), 5), &mut vec![0.0; shape.len()])?;
    let text = serde_json::to_string(&layer.state)?;
    for name in ["weight", "bias", "running_mean", "running_mean_tail", "running_var", "num_batches_tracked"] {
        assert!(text.contains(&format!("\"{name}\":")), "{text}");
    }
    assert_eq!(serde_json::from_str::<BatchNormState>(&text)?, layer.state);

    let of_pytorch = r#"{"weight":[1.0],"bias":[0.5],"running_mean":[2.0],"running_var":[3.0]}"#;
    let read: BatchNormState = serde_json::from_str(of_pytorch)?;
    assert_eq!((read.running_mean_tail.len(), read.num_batches_tracked), (0, 0));
    let mut single = BatchNormDropout::new(1, Identity, Config { eps: 1.0, ..Config::DEFAULT })?;
    single.load_state(read)?;
    let mut y = [6.0];
    single.eval_in_place(Shape::nc(1, 1)?, &mut y)?;
    assert_eq!(y, [2.5]);
    Ok(())
}

/// Every call of two layers, one after the other: what they write.
fn every_call<A: Activation>(layer: &mut BatchNormDropout<A>, dropout: bool) -> Result<Vec<Vec<f32>>, Error> {
    let mut all = Vec::new();
    for (number, shape) in shapes().into_iter().enumerate() {
        let (x, dy) = (values(shape.len(), 1), values(shape.len(), 2));
        let (mut y, mut dx, mut dr) = (vec![7.0; shape.len()], vec![7.0; shape.len()], vec![7.0; shape.len()]);
        // A residual and dropout together are rounded otherwise.
        let residual = (!dropout).then(|| values(shape.len(), 3));
        let masked = (number % 2 == 1).then(|| vec![0b0101_1101; shape.samples().div_ceil(8)]);
        let validity = masked.as_deref().map(Validity::Bitmap);
        let step = ForwardStep { residual: residual.as_deref(), validity, ..ForwardStep::new(shape, 5, &x, &mut y) };
        if number % 3 == 2 {
            layer.train_frozen_step(step)?;
        } else {
            layer.train_step(step)?;
        }
        let step =
            BackwardStep { residual: residual.as_deref(), grad_input: Some(&mut dx), ..BackwardStep::new(&x, &dy) };
        layer.backward_step(BackwardStep { grad_residual: Some(&mut dr), ..step })?;
        all.extend([y.clone(), dx.clone(), dr, layer.grad_weight.clone(), layer.grad_bias.clone()]);
        all.push(layer.state.running_var.clone());
        layer.train(shape, 6, &x, &mut y)?;
        layer.backward(&dy, &mut dx)?;
        all.extend([y.clone(), dx]);
        layer.backward_step(BackwardStep::new(&x, &dy))?;
        all.push(layer.grad_weight.clone());
        layer.eval(shape, &x, &mut y)?;
        all.push(y.clone());
        layer.monte_carlo(shape, [3, 4], &x, &mut y, |_, y| all.push(y.to_vec()))?;
        y.copy_from_slice(&x);
        layer.eval_in_place(shape, &mut y)?;
        all.push(y.clone());
        layer.monte_carlo_in_place(shape, 9, &mut y)?;
        all.push(y.clone());
        if let Some(validity) = validity {
            layer.eval_masked(shape, validity, &x, &mut y)?;
            all.push(y);
        }
    }
    Ok(all)
}

#[test]
fn an_owned_layer_with_prelu_is_one_with_leaky_relu_whose_slope_has_a_gradient() -> Result<(), Error> {
    let slope = 0.375;
    for p in [0.0, 0.5] {
        let config = Config { p, ..Config::DEFAULT };
        let leaky = || owned(LeakyRelu::new(slope).expect("a finite slope"), config);
        for slopes in [&[slope; CHANNELS][..], &[slope]] {
            let prelu = || owned(Identity, config).with_prelu(slopes);
            let noise = Noise::uniform(0.5)?;
            for (mut leaky, mut prelu) in [
                (leaky(), prelu()?),
                (leaky().with_noise(noise), prelu()?.with_noise(noise)),
                (leaky().with_alpha_dropout(), prelu()?.with_alpha_dropout()),
            ] {
                let (expected, found) = (every_call(&mut leaky, p > 0.0)?, every_call(&mut prelu, p > 0.0)?);
                assert_eq!(found.len(), expected.len());
                for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    assert_eq!(found, expected, "p = {p}, {} slopes, result {number}", slopes.len());
                }
                assert_eq!(prelu.parameters_mut()[2].1.len(), slopes.len());
                // Of some channels no value is below 0.
                assert!(prelu.grad_slope.iter().all(|gradient| gradient.is_finite()));
                assert!(prelu.grad_slope.iter().any(|gradient| *gradient != 0.0));
            }
        }
    }
    Ok(())
}

#[test]
fn an_owned_layer_has_the_gradients_of_the_slopes_of_the_layer_on_slices() -> Result<(), Error> {
    let (slopes, config) = ([0.5, -0.25, 0.0, 2.0, 0.1], Config { p: 0.25, ..Config::DEFAULT });
    let mut layer = owned(Identity, config).with_prelu(&slopes)?;
    for shape in shapes() {
        let (x, dy) = (values(shape.len(), 1), values(shape.len(), 2));
        let (mut y, mut dx) = (vec![0.0; shape.len()], vec![0.0; shape.len()]);
        layer.train(shape, 42, &x, &mut y)?;
        layer.backward(&dy, &mut dx)?;
        let slices = layer.layer(shape)?;
        let (mut of_slices, mut d_slope, mut mask) =
            (vec![0.0; shape.len()], [0.0; CHANNELS], vec![0; slices.mask_len()]);
        let (mut saved, mut scratch) = (SavedArrays::<CHANNELS>::new(), vec![0.0; slices.prelu_scratch_len()]);
        let (dropout, parameters) = (slices.fill_mask(42, &mut mask)?, layer.state.parameters());
        let call = Train::new(&x, &mut of_slices, saved.as_mut(), &mut scratch);
        slices.train_prelu(Train { dropout, parameters, ..call }, &slopes)?;
        assert_eq!(bits(&y), bits(&of_slices));
        let call = Backward::new(Statistics::Batch(saved.as_saved()), &x, &dy, &mut scratch);
        let call = Backward { dropout, parameters, grad_input: Some(&mut of_slices), ..call };
        slices.backward_prelu(call, &slopes, Some(&mut d_slope))?;
        assert_eq!((bits(&dx), bits(&layer.grad_slope)), (bits(&of_slices), bits(&d_slope)));
    }
    Ok(())
}

/// With 0 or NaN in the padding, the results are the same.
#[test]
fn an_owned_layer_with_prelu_never_reads_the_padding() -> Result<(), Error> {
    let shape = Shape::nlc(2, 3, CHANNELS)?;
    let run = |padding: f32| -> Result<_, Error> {
        let mut layer = owned(Identity, Config { p: 0.25, ..Config::DEFAULT }).with_prelu(&[0.5; CHANNELS])?;
        let (mut x, mut dy) = (values(shape.len(), 1), values(shape.len(), 2));
        for tensor in [&mut x, &mut dy] {
            tensor[2 * CHANNELS..3 * CHANNELS].fill(padding);
        }
        let (mut y, mut dx) = (vec![7.0; shape.len()], vec![7.0; shape.len()]);
        layer.train_masked(shape, 42, Validity::Lengths(&[2, 3]), &x, &mut y)?;
        layer.backward(&dy, &mut dx)?;
        assert!(layer.grad_slope.iter().any(|gradient| *gradient != 0.0), "no value is below 0");
        Ok([y, dx, layer.grad_slope.clone(), layer.grad_weight.clone(), layer.grad_bias.clone()].map(|all| bits(&all)))
    };
    assert_eq!(run(0.0)?, run(f32::NAN)?);
    Ok(())
}

#[test]
fn an_owned_layer_refuses_slopes_that_are_not_its_own() -> Result<(), Error> {
    let length = |expected, actual| Err(Error::Length { buffer: Buffer::Slope, expected, actual });
    assert_eq!(owned(Identity, Config::DEFAULT).with_prelu(&[0.5; 4]).map(drop), length(CHANNELS, 4));
    assert_eq!(owned(Identity, Config::DEFAULT).with_prelu(&[]).map(drop), length(CHANNELS, 0));
    let mut layer = owned(Identity, Config::DEFAULT).with_prelu(&[0.5; CHANNELS])?;
    let state = layer.state.clone();
    assert_eq!(layer.load_state(BatchNormState { slope: vec![0.5], ..state.clone() }), length(CHANNELS, 1));
    let mut without = owned(Relu, Config::DEFAULT);
    assert_eq!(without.load_state(state), length(0, CHANNELS));
    let shape = Shape::nc(8, CHANNELS)?;
    let (x, mut y) = (values(40, 1), vec![7.0; 40]);
    layer.train(shape, 1, &x, &mut y)?;
    y.fill(7.0);
    layer.state.slope = vec![0.5; 3];
    assert_eq!(layer.train(shape, 1, &x, &mut y), length(CHANNELS, 3));
    assert_eq!(layer.train_frozen(shape, 1, &x, &mut y), length(CHANNELS, 3));
    assert_eq!(layer.eval(shape, &x, &mut y), length(CHANNELS, 3));
    assert_eq!(layer.eval_in_place(shape, &mut y), length(CHANNELS, 3));
    assert_eq!(layer.monte_carlo(shape, [1], &x, &mut y, |_, _| {}), length(CHANNELS, 3));
    assert_eq!(layer.eval_masked(shape, Validity::Lengths(&[1; 8]), &x, &mut y), length(CHANNELS, 3));
    assert_eq!(y, [7.0; 40]);
    layer.state.slope = vec![0.5; CHANNELS];
    layer.train(shape, 1, &x, &mut y)?;
    let (mut dx, mut short) = (vec![7.0; 40], vec![7.0; 39]);
    layer.grad_slope.fill(7.0);
    let refused = |buffer| Err(Error::Length { buffer, expected: 40, actual: 39 });
    assert_eq!(layer.backward(&x[1..], &mut dx), refused(Buffer::GradOutput));
    assert_eq!(layer.backward(&x, &mut short), refused(Buffer::GradInput));
    let step = BackwardStep { residual: Some(&x[1..]), ..BackwardStep::new(&x, &x) };
    assert_eq!(layer.backward_step(step), refused(Buffer::Residual));
    layer.grad_bias.pop();
    let refused = Err(Error::Length { buffer: Buffer::GradBias, expected: CHANNELS, actual: CHANNELS - 1 });
    assert_eq!(layer.backward(&x, &mut dx), refused);
    assert_eq!((&layer.grad_slope[..], dx), (&[7.0; CHANNELS][..], vec![7.0; 40]), "a refused call has written");
    Ok(())
}

//! What protects a newcomer: the short forms of the bundles are the long ones, a layer of another shape is that layer, and
//! training without a mask is noticed.

use normdrop::{
    Activation, AnyActivation, Apply, ApplyGradient, Backward, BackwardInPlace, Config, Dropout, Elu, Error, Eval,
    EvalInPlace, Finish, Gelu, GeluTanh, HardSwish, Identity, Layer, LeakyRelu, Mish, Moments, ParameterGradients,
    Parameters, Reduce, Relu, Relu6, Running, RunningMut, Saved, SavedArrays, SavedMut, Selu, Shape, Sigmoid, Silu,
    Softplus, Statistics, Tanh, Train, saved_len,
};

const SAMPLES: usize = 24;
const CHANNELS: usize = 3;
const LEN: usize = SAMPLES * CHANNELS;
const P: f64 = 0.25;

fn layer(p: f64) -> Layer<Relu> {
    Layer::new_const(Shape::nc(SAMPLES, CHANNELS), Relu, Config { p, ..Config::DEFAULT })
}

fn data(seed: usize) -> [f32; LEN] {
    core::array::from_fn(|i| ((i * 37 + seed * 11) % 29) as f32 * 0.25 - 3.0)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Runs every call in its short form, with the residual and the parameters if `full`, and returns all results.
fn short(layer: &Layer<Relu>, mask: &[u8], full: bool) -> Result<Vec<Vec<u32>>, Error> {
    let (x, dy, r) = (data(1), data(2), data(3));
    let (weight, bias) = ([0.5, 1.5, -2.0], [0.25, -1.0, 0.5]);
    let parameters = if full { Parameters::new(&weight, &bias) } else { Parameters::default() };
    let residual = full.then_some(&r[..]);
    let dropout = Dropout::Mask(mask);
    let (mut mean, mut var) = ([0.5; CHANNELS], [2.0; CHANNELS]);
    let (mut saved, mut scratch) = (SavedArrays::<CHANNELS>::new(), vec![f64::NAN; layer.scratch_len()]);
    let mut y = [[f32::NAN; LEN]; 4];
    let mut dx = [[f32::NAN; LEN]; 3];
    let (mut d_weight, mut d_bias) = ([[f32::NAN; CHANNELS]; 2], [[f32::NAN; CHANNELS]; 2]);

    let running = Some(RunningMut::new(&mut mean, &mut var));
    let call = Train::new(&x, &mut y[0], saved.as_mut(), &mut scratch);
    layer.train(Train { parameters, residual, dropout, running, ..call })?;
    let running = Running::new(&mean, &var);
    layer.eval(Eval { parameters, residual, ..Eval::new(running, &x, &mut y[1], &mut scratch) })?;
    y[2] = x;
    layer.eval_in_place(EvalInPlace { parameters, residual, ..EvalInPlace::new(running, &mut y[2], &mut scratch) })?;

    let statistics = Statistics::Batch(saved.as_saved());
    layer.backward(Backward {
        parameters,
        residual,
        dropout,
        grad_input: Some(&mut dx[0]),
        grad_parameters: ParameterGradients::new(&mut d_weight[0], &mut d_bias[0]),
        ..Backward::new(statistics, &x, &dy, &mut scratch)
    })?;
    dx[1] = dy;
    let call = BackwardInPlace::new(statistics, &x, &mut dx[1], &mut scratch);
    layer.backward_in_place(BackwardInPlace { parameters, residual, dropout, ..call })?;

    let (mut moments, mut sums) = (vec![f64::NAN; layer.moments_len()], vec![f64::NAN; layer.sums_len()]);
    let mut merged = SavedArrays::<CHANNELS>::default();
    layer.moments(Moments::new(&x, &mut moments, &mut scratch))?;
    layer.finish(Finish::new(&moments, merged.as_mut()))?;
    assert_eq!(merged, saved);
    let call = Apply::new(saved.as_saved(), &x, &mut y[3], &mut scratch);
    layer.apply(Apply { parameters, residual, dropout, ..call })?;
    let call = Reduce::new(statistics, &x, &dy, &mut sums, &mut scratch);
    layer.reduce(Reduce { parameters, residual, dropout, ..call })?;
    layer.finish_gradients(&sums, ParameterGradients::new(&mut d_weight[1], &mut d_bias[1]))?;
    let call = ApplyGradient::new(saved.as_saved(), SAMPLES as f64, &sums, &x, &dy, &mut dx[2], &mut scratch);
    layer.apply_gradient(ApplyGradient { parameters, residual, dropout, ..call })?;

    assert_eq!(bits(&y[0]), bits(&y[3]));
    assert_eq!(bits(&y[1]), bits(&y[2]));
    assert_eq!(bits(&dx[0]), bits(&dx[1]));
    assert_eq!(bits(&dx[0]), bits(&dx[2]));
    assert_eq!([bits(&d_weight[0]), bits(&d_bias[0])], [bits(&d_weight[1]), bits(&d_bias[1])]);
    Ok(vec![bits(&y[0]), bits(&y[1]), bits(&dx[0]), bits(&d_weight[0]), bits(&d_bias[0]), bits(&mean), bits(&var)])
}

/// The same with every field named.
fn long(layer: &Layer<Relu>, mask: &[u8], full: bool) -> Result<Vec<Vec<u32>>, Error> {
    let (x, dy, r) = (data(1), data(2), data(3));
    let (weight, bias) = ([0.5, 1.5, -2.0], [0.25, -1.0, 0.5]);
    let parameters = Parameters { weight: full.then_some(&weight), bias: full.then_some(&bias) };
    let residual = full.then_some(&r[..]);
    let dropout = Dropout::Mask(mask);
    let (mut running_mean, mut running_var) = ([0.5; CHANNELS], [2.0; CHANNELS]);
    let (mut mean, mut mean_tail, mut inv_std) = ([0.0; CHANNELS], [0.0; CHANNELS], [0.0; CHANNELS]);
    let mut scratch = vec![f64::NAN; layer.scratch_len()];
    let (mut y, mut evaluated, mut dx) = ([f32::NAN; LEN], [f32::NAN; LEN], [f32::NAN; LEN]);
    let (mut d_weight, mut d_bias) = ([f32::NAN; CHANNELS], [f32::NAN; CHANNELS]);
    layer.train(Train {
        parameters,
        running: Some(RunningMut::new(&mut running_mean, &mut running_var)),
        dropout,
        input: &x,
        residual,
        output: &mut y,
        saved: SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std },
        scratch: &mut scratch,
    })?;
    layer.eval(Eval {
        parameters,
        running: Running { mean: &running_mean, mean_tail: None, var: &running_var },
        dropout: Dropout::Off,
        input: &x,
        residual,
        output: &mut evaluated,
        scratch: &mut scratch,
    })?;
    layer.backward(Backward {
        parameters,
        statistics: Statistics::Batch(Saved { mean: &mean, mean_tail: &mean_tail, inv_std: &inv_std }),
        dropout,
        input: &x,
        residual,
        grad_output: &dy,
        grad_input: Some(&mut dx),
        grad_residual: None,
        grad_parameters: ParameterGradients { weight: Some(&mut d_weight), bias: Some(&mut d_bias) },
        scratch: &mut scratch,
    })?;
    let results = [&y[..], &evaluated, &dx, &d_weight, &d_bias, &running_mean, &running_var];
    Ok(results.into_iter().map(bits).collect())
}

#[test]
fn the_short_form_of_a_call_is_the_call_with_every_field_named() -> Result<(), Error> {
    let layer = layer(P);
    let mut mask = vec![0; layer.mask_len()];
    layer.fill_mask(7, &mut mask)?;
    for full in [false, true] {
        assert_eq!(short(&layer, &mask, full)?, long(&layer, &mask, full)?, "with parameters and residual: {full}");
    }
    Ok(())
}

#[test]
fn a_filled_mask_comes_back_as_the_dropout_of_a_call() -> Result<(), Error> {
    let layer = layer(P);
    let (mut mask, mut again) = (vec![0; layer.mask_len()], vec![0; layer.mask_len()]);
    let Dropout::Mask(filled) = layer.fill_mask(7, &mut mask)? else { panic!("no mask") };
    layer.keep().fill(7, 0, LEN, &mut again)?;
    assert_eq!(filled, again);
    Ok(())
}

/// Every call with batch statistics, of a layer of this probability, that does not say what to drop.
fn unset(p: f64) -> Vec<Result<(), Error>> {
    let (layer, x, dy) = (layer(p), data(1), data(2));
    let (mut y, mut dx, mut values) = ([7.0; LEN], [7.0; LEN], dy);
    let (mut moments, mut sums) = (vec![0.0; layer.moments_len()], vec![0.0; layer.sums_len()]);
    let (mut saved, mut scratch) = (SavedArrays::<CHANNELS>::new(), vec![0.0; layer.scratch_len()]);
    layer.moments(Moments::new(&x, &mut moments, &mut scratch)).expect("moments drop nothing");
    layer.finish(Finish::new(&moments, saved.as_mut())).expect("moments drop nothing");
    let mut of_training = SavedArrays::<CHANNELS>::new();
    let (mean, inv_std) = (saved.as_saved(), Statistics::Batch(saved.as_saved()));
    let results = vec![
        layer.train(Train::new(&x, &mut y, of_training.as_mut(), &mut scratch)),
        layer.apply(Apply::new(mean, &x, &mut y, &mut scratch)),
        layer.backward(Backward { grad_input: Some(&mut dx), ..Backward::new(inv_std, &x, &dy, &mut scratch) }),
        layer.backward_in_place(BackwardInPlace::new(inv_std, &x, &mut values, &mut scratch)),
        layer.reduce(Reduce::new(inv_std, &x, &dy, &mut sums, &mut scratch)),
        layer.apply_gradient(ApplyGradient::new(mean, 24.0, &sums, &x, &dy, &mut dx, &mut scratch)),
    ];
    if results.iter().all(Result::is_err) {
        assert_eq!((y, dx, values), ([7.0; LEN], [7.0; LEN], dy), "a refused call has written");
        assert_eq!(of_training, SavedArrays::new(), "a refused call has written");
    }
    results
}

#[test]
fn training_that_does_not_say_what_to_drop_is_refused_where_p_is_above_0() {
    for p in [f64::MIN_POSITIVE, P, 1.0] {
        assert_eq!(unset(p), vec![Err(Error::DropoutUnset { p }); 6], "{p}");
    }
    assert_eq!(unset(0.0), vec![Ok(()); 6]);
    let text = Error::DropoutUnset { p: P }.to_string();
    for part in ["`Layer::fill_mask`", "`Dropout::Off`", "p is 0.25", "nothing was written"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn an_evaluation_that_does_not_say_what_to_drop_drops_nothing() -> Result<(), Error> {
    let (layer, x, dy) = (layer(P), data(1), data(2));
    let (running, mut scratch) = (Running::new(&[0.5; CHANNELS], &[2.0; CHANNELS]), vec![0.0; layer.scratch_len()]);
    let (mut y, mut dx) = ([[0.0; LEN]; 2], [[0.0; LEN]; 2]);
    for (dropout, (y, dx)) in [Dropout::Unset, Dropout::Off].into_iter().zip(y.iter_mut().zip(&mut dx)) {
        layer.eval(Eval { dropout, ..Eval::new(running, &x, y, &mut scratch) })?;
        let call = Backward::new(Statistics::Fixed(running), &x, &dy, &mut scratch);
        layer.backward(Backward { dropout, grad_input: Some(dx), ..call })?;
    }
    assert_eq!((bits(&y[0]), bits(&dx[0])), (bits(&y[1]), bits(&dx[1])));
    Ok(())
}

#[test]
fn a_layer_of_another_shape_is_the_layer_made_with_that_shape() -> Result<(), Error> {
    let config = Config { eps: 1e-3, momentum: 0.3, p: P, ..Config::DEFAULT };
    let shapes =
        [Shape::nc(64, 5)?, Shape::nc(1, 5)?, Shape::nhwc(2, 3, 4, 5)?, Shape::nchw(2, 5, 8, 8)?, Shape::nc(0, 5)?];
    for from in shapes {
        for to in shapes {
            let layer = Layer::new(from, Identity, config)?.with_shape(to);
            let expected = Layer::new(to, Identity, config)?;
            assert_eq!(layer, expected);
            assert_eq!((layer.mask_len(), layer.scratch_len()), (expected.mask_len(), expected.scratch_len()));
        }
    }
    // Everything else of a layer stays.
    let backend = normdrop::Backend::Portable;
    let portable = Layer::new(shapes[0], Identity, config)?.with_backend(backend)?;
    let other = Layer::new(shapes[1], Identity, config)?;
    assert_eq!(portable.with_shape(shapes[1]), other.with_backend(backend)?);
    assert_ne!(portable.with_shape(shapes[1]), other);
    #[cfg(feature = "rayon")]
    {
        let large = Shape::nchw(8, 64, 64, 64)?;
        let in_tasks = other.with_shape(large).with_tasks(3);
        assert_eq!(other.with_tasks(3).with_shape(large), in_tasks);
        assert_ne!(in_tasks, other.with_shape(large));
        assert_eq!(in_tasks.with_tasks(0), other.with_shape(large).with_tasks(1), "0 counts as 1");
    }
    Ok(())
}

/// The output and the input gradient of a training call, and of an evaluation.
fn results<A: Activation>(activation: A) -> Result<[Vec<u32>; 3], Error> {
    let layer = Layer::new(Shape::nc(SAMPLES, CHANNELS)?, activation, Config { p: P, ..Config::DEFAULT })?;
    let (x, dy, mut mask) = (data(1), data(2), vec![0; layer.mask_len()]);
    let (mut y, mut dx, mut evaluated) = ([0.0; LEN], [0.0; LEN], [0.0; LEN]);
    let (mut saved, mut scratch) = (SavedArrays::<CHANNELS>::new(), vec![0.0; layer.scratch_len()]);
    let dropout = layer.fill_mask(7, &mut mask)?;
    layer.train(Train { dropout, ..Train::new(&x, &mut y, saved.as_mut(), &mut scratch) })?;
    let call = Backward::new(Statistics::Batch(saved.as_saved()), &x, &dy, &mut scratch);
    layer.backward(Backward { dropout, grad_input: Some(&mut dx), ..call })?;
    let running = Running::new(&[0.5; CHANNELS], &[2.0; CHANNELS]);
    layer.eval(Eval::new(running, &x, &mut evaluated, &mut scratch))?;
    Ok([bits(&y), bits(&dx), bits(&evaluated)])
}

#[test]
fn an_activation_of_run_time_gives_the_bits_of_its_own_type() -> Result<(), Error> {
    let mut all = Vec::new();
    let mut compare = |own: Result<[Vec<u32>; 3], Error>, any: AnyActivation| {
        let own = own?;
        assert_eq!(results(any)?, own, "{any:?}");
        assert!(!all.contains(&own), "{any:?} is another activation");
        all.push(own);
        Ok::<_, Error>(())
    };
    compare(results(Identity), Identity.into())?;
    compare(results(Relu), Relu.into())?;
    compare(results(Relu6), Relu6.into())?;
    compare(results(LeakyRelu::default()), LeakyRelu::default().into())?;
    compare(results(LeakyRelu::new(0.5)?), LeakyRelu::new(0.5)?.into())?;
    compare(results(HardSwish), HardSwish.into())?;
    compare(results(Sigmoid), Sigmoid.into())?;
    compare(results(Tanh), Tanh.into())?;
    compare(results(Silu), Silu.into())?;
    compare(results(GeluTanh), GeluTanh.into())?;
    compare(results(Gelu), Gelu.into())?;
    compare(results(Elu::default()), Elu::default().into())?;
    compare(results(Elu::new(0.5)?), Elu::new(0.5)?.into())?;
    compare(results(Selu), Selu.into())?;
    compare(results(Mish), Mish.into())?;
    compare(results(Softplus), Softplus.into())
}

#[test]
fn saved_statistics_fit_one_slice_and_any_other_length_is_refused() {
    for channels in 0..20 {
        let mut memory = vec![7.0; saved_len(channels)];
        let saved = SavedMut::split(&mut memory);
        assert_eq!([saved.mean.len(), saved.mean_tail.len(), saved.inv_std.len()], [channels; 3]);
        for channel in 0..channels {
            let number = channel as f32;
            (saved.mean[channel], saved.mean_tail[channel]) = (number, -number);
            saved.inv_std[channel] = f64::from(number) + 0.5;
        }
        let saved = Saved::split(&memory);
        for channel in 0..channels {
            let number = channel as f32;
            let read = (saved.mean[channel], saved.mean_tail[channel], saved.inv_std[channel]);
            assert_eq!(read, (number, -number, f64::from(number) + 0.5));
        }
    }
    let layer = Layer::new(Shape::nc(4, 3).expect("a small shape"), Identity, Config::DEFAULT).expect("constants");
    assert_eq!(layer.saved_len(), 6);
    for (len, accepted) in [(0, false), (4, false), (5, false), (6, true), (7, true), (8, false)] {
        let (mut y, mut memory) = ([7.0; 12], vec![7.0; len]);
        let mut scratch = vec![0.0; layer.scratch_len()];
        let call = Train::new(&[1.0; 12], &mut y, SavedMut::split(&mut memory), &mut scratch);
        assert_eq!(layer.train(call).is_ok(), accepted, "{len} values");
        assert_eq!(y[0] == 7.0, !accepted);
    }
}

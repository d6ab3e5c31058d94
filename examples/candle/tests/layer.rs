//! The layer against candle's own layers and operations, which compute the exact results in f64.

#![expect(unreachable_pub, reason = "a module that the tests of several packages share")]

#[path = "../../shared/case.rs"]
mod case;

use candle_core::{DType, Device, Error, Result, Tensor, Var};
use candle_nn::{BatchNorm, Module, ModuleT, Optimizer, SGD, VarBuilder, VarMap};
use normdrop::{Config, Granularity, Layer, Relu, Shape};
use normdrop_candle::{BatchNormDropout, batch_norm_dropout};

use case::{Case, EPS, Results, factors, widened};

const CPU: Device = Device::Cpu;
const SEED: u64 = 42;
const CONFIG: Config = Config { eps: EPS, ..Config::DEFAULT };

/// A layer with the parameters and running statistics of a case, and the map that its variables are in.
fn layer_of(case: &Case, config: Config) -> Result<(BatchNormDropout, VarMap)> {
    let mut variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &CPU);
    let layer = batch_norm_dropout(case.channels(), Relu, config, SEED, vb)?;
    for (name, values) in [
        ("weight", &case.weight),
        ("bias", &case.bias),
        ("running_mean", &case.running_mean),
        ("running_var", &case.running_var),
    ] {
        variables.set_one(name, Tensor::from_slice(values, values.len(), &CPU)?)?;
    }
    Ok((layer, variables))
}

fn variable(values: &[f32], dims: &[usize]) -> Result<Var> {
    Var::from_tensor(&Tensor::from_slice(values, dims, &CPU)?)
}

fn flat(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

fn flat64(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.flatten_all()?.to_vec1()
}

/// Forward and backward through the layer. `x` is what the layer gets of the variable.
fn ours(layer: &BatchNormDropout, case: &Case, train: bool, x: &Var, view: &Tensor) -> Result<Results<f32>> {
    let y = layer.forward_t(view, train)?;
    let grad_output = Tensor::from_slice(&case.grad_output, y.shape(), &CPU)?;
    let gradients = (&y * grad_output)?.sum_all()?.backward()?;
    let of = |tensor: &Tensor| flat(gradients.get(tensor).expect("the tensor is part of the graph"));
    Ok(Results {
        y: flat(&y)?,
        dx: of(x)?,
        d_weight: of(layer.weight())?,
        d_bias: of(layer.bias())?,
        running_mean: flat(layer.running_mean())?,
        running_var: flat(layer.running_var())?,
    })
}

fn run(layer: &BatchNormDropout, case: &Case, train: bool) -> Result<Results<f32>> {
    let x = variable(&case.x, &case.dims)?;
    ours(layer, case, train, &x, &x)
}

/// The same by candle's batch norm in f64, its ReLU, and a multiplication by the mask.
fn exactly(case: &Case, train: bool, momentum: f64, factors: &[f32]) -> Result<Results<f64>> {
    let tensor = |values: &[f32], dims: &[usize]| Tensor::from_vec(widened(values), dims, &CPU);
    let channels = [case.channels()];
    let [x, weight, bias] =
        [tensor(&case.x, &case.dims)?, tensor(&case.weight, &channels)?, tensor(&case.bias, &channels)?]
            .map(|tensor| Var::from_tensor(&tensor));
    let (x, weight, bias) = (x?, weight?, bias?);
    let norm = BatchNorm::new_with_momentum(
        case.channels(),
        tensor(&case.running_mean, &channels)?,
        tensor(&case.running_var, &channels)?,
        weight.as_tensor().clone(),
        bias.as_tensor().clone(),
        EPS.into(),
        momentum,
    )?;
    let y = (norm.forward_t(&x, train)?.relu()? * tensor(factors, &case.dims)?)?;
    let gradients = (&y * tensor(&case.grad_output, &case.dims)?)?.sum_all()?.backward()?;
    let of = |tensor: &Tensor| flat64(gradients.get(tensor).expect("the tensor is part of the graph"));
    Ok(Results {
        y: flat64(&y)?,
        dx: of(&x)?,
        d_weight: of(&weight)?,
        d_bias: of(&bias)?,
        running_mean: flat64(norm.running_mean())?,
        running_var: flat64(norm.running_var())?,
    })
}

fn cases() -> impl Iterator<Item = Case> {
    let large = [Case::of(&[131, 67], 1), Case::of(&[3, 5, 31, 33], 2), Case::of(&[2, 1], 3)];
    (0..40).flat_map(|seed| [Case::random(2, seed), Case::random(4, seed)]).chain(large)
}

/// The mask of the layer's next step, as what each element is multiplied by.
fn factors_of(layer: &BatchNormDropout, case: &Case, config: Config) -> Result<Vec<f32>> {
    let plan = Shape::new(case.dims[0], case.channels(), case.dims[2..].iter().product())
        .and_then(|shape| Layer::new(shape, Relu, config))
        .map_err(Error::wrap)?;
    let mut mask = vec![0; plan.mask_len()];
    plan.fill_mask(layer.mask_seed(layer.step()), &mut mask).map_err(Error::wrap)?;
    Ok(factors(&mask, plan.keep().scale(), case.x.len()))
}

#[test]
fn training_is_within_the_bounds_of_candles_batch_norm_and_relu() -> Result<()> {
    for (case, momentum) in cases().zip([0.1, 0.5, 0.0, 1.0].into_iter().cycle()) {
        let (layer, _variables) = layer_of(&case, Config { momentum, ..CONFIG })?;
        let all = vec![1.0; case.x.len()];
        case.check(true, momentum, &all, &run(&layer, &case, true)?, &exactly(&case, true, momentum, &all)?);
    }
    Ok(())
}

#[test]
fn training_with_dropout_is_within_the_bounds_of_a_multiplication_by_the_mask() -> Result<()> {
    for (case, p) in cases().zip([0.5, 0.1, 0.9, 0.25].into_iter().cycle()) {
        let config = Config { p, ..CONFIG };
        let (layer, _variables) = layer_of(&case, config)?;
        let factors = factors_of(&layer, &case, config)?;
        let exact = exactly(&case, true, config.momentum, &factors)?;
        case.check(true, config.momentum, &factors, &run(&layer, &case, true)?, &exact);
    }
    Ok(())
}

#[test]
fn evaluation_uses_the_running_statistics_and_drops_nothing() -> Result<()> {
    for case in cases() {
        let (layer, _variables) = layer_of(&case, Config { p: 0.5, ..CONFIG })?;
        let all = vec![1.0; case.x.len()];
        let results = run(&layer, &case, false)?;
        case.check(false, CONFIG.momentum, &all, &results, &exactly(&case, false, CONFIG.momentum, &all)?);
        assert_eq!(results.running_mean, case.running_mean);
        assert_eq!(results.running_var, case.running_var);
        assert_eq!(layer.step(), 0, "an evaluation takes no mask");
    }
    Ok(())
}

#[test]
fn halves_give_the_results_of_f32_rounded_once() -> Result<()> {
    let config = Config { p: 0.3, ..CONFIG };
    for dtype in [DType::BF16, DType::F16] {
        for (seed, dims) in [(20, &[64, 24][..]), (21, &[5, 6, 7, 3])] {
            let mut case = Case::of(dims, seed);
            // What the halves are, as f32.
            let rounded = |values: &[f32]| -> Result<Vec<f32>> {
                flat(&Tensor::from_slice(values, values.len(), &CPU)?.to_dtype(dtype)?.to_dtype(DType::F32)?)
            };
            (case.x, case.grad_output) = (rounded(&case.x)?, rounded(&case.grad_output)?);
            for train in [true, false] {
                let expected = run(&layer_of(&case, config)?.0, &case, train)?;
                let x = Var::from_tensor(&Tensor::from_slice(&case.x, dims, &CPU)?.to_dtype(dtype)?)?;
                let (layer, _variables) = layer_of(&case, config)?;
                let y = layer.forward_t(&x, train)?;
                let grad_output = Tensor::from_slice(&case.grad_output, dims, &CPU)?.to_dtype(dtype)?;
                let gradients = (&y * grad_output)?.sum_all()?.backward()?;
                let dx = gradients.get(&x).expect("x is part of the graph");
                assert_eq!((y.dtype(), dx.dtype()), (dtype, dtype));
                assert_eq!(flat(&y.to_dtype(DType::F32)?)?, rounded(&expected.y)?);
                assert_eq!(flat(&dx.to_dtype(DType::F32)?)?, rounded(&expected.dx)?);
                let of = |tensor: &Tensor| flat(gradients.get(tensor).expect("the tensor is part of the graph"));
                assert_eq!([of(layer.weight())?, of(layer.bias())?], [expected.d_weight, expected.d_bias]);
                let running = [flat(layer.running_mean())?, flat(layer.running_var())?];
                assert_eq!(running, [expected.running_mean, expected.running_var]);
            }
        }
    }
    Ok(())
}

#[test]
fn a_view_gives_the_bits_of_its_copy() -> Result<()> {
    let case = Case::of(&[5, 6, 7, 3], 4);
    let config = Config { p: 0.3, ..CONFIG };
    for train in [true, false] {
        let expected = run(&layer_of(&case, config)?.0, &case, train)?;
        // The same numbers with the last two dimensions in the other order, and the view that puts them back.
        let x = Tensor::from_slice(&case.x, &*case.dims, &CPU)?;
        let turned = Var::from_tensor(&x.permute((0, 1, 3, 2))?.contiguous()?)?;
        let view = turned.permute((0, 1, 3, 2))?;
        assert!(!view.is_contiguous());
        let (layer, _variables) = layer_of(&case, config)?;
        let mut results = ours(&layer, &case, train, &turned, &view)?;
        let dims = [case.dims[0], case.dims[1], case.dims[3], case.dims[2]];
        results.dx = flat(&Tensor::from_slice(&results.dx, &dims, &CPU)?.permute((0, 1, 3, 2))?)?;
        assert_eq!(results, expected);
        // Part of a larger tensor: contiguous, but not from its start on.
        let larger = Var::from_tensor(&Tensor::cat(&[&x.neg()?, &x], 0)?)?;
        let view = larger.narrow(0, case.dims[0], case.dims[0])?;
        let (layer, _variables) = layer_of(&case, config)?;
        let mut results = ours(&layer, &case, train, &larger, &view)?;
        assert!(results.dx.drain(..case.x.len()).all(|value| value == 0.0));
        assert_eq!(results, expected);
    }
    Ok(())
}

#[test]
fn a_view_of_channels_last_is_read_where_it_is() -> Result<()> {
    let config = Config { p: 0.3, ..CONFIG };
    // With more and with fewer channels than a vector has, and with three and five dimensions.
    for (seed, dims) in [(24, &[5, 6, 7, 3][..]), (25, &[2, 40, 3, 5]), (26, &[4, 5, 9]), (27, &[2, 3, 2, 4, 3])] {
        for train in [true, false] {
            let case = Case::of(dims, seed);
            let rank = dims.len();
            let to_last: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
            let to_first: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
            let last = |values: &[f32]| -> Result<Tensor> {
                Tensor::from_slice(values, dims, &CPU)?.permute(&*to_last)?.contiguous()
            };
            let (x, grad_output) = (last(&case.x)?, last(&case.grad_output)?);
            // The same memory is a matrix of channels, with the same masks and sums.
            let mut matrix = case.clone();
            matrix.dims = vec![case.x.len() / dims[1], dims[1]];
            (matrix.x, matrix.grad_output) = (flat(&x)?, flat(&grad_output)?);
            let expected = run(&layer_of(&matrix, config)?.0, &matrix, train)?;

            let x = Var::from_tensor(&x)?;
            let (layer, _variables) = layer_of(&case, config)?;
            let y = layer.forward_t(&x.permute(&*to_first)?, train)?;
            assert_eq!(y.dims(), dims);
            let in_memory = y.permute(&*to_last)?;
            assert!(in_memory.is_contiguous() && !y.is_contiguous(), "the output is in the order of the input");
            assert_eq!(flat(&in_memory)?, expected.y);
            let gradients = (&y * grad_output.permute(&*to_first)?)?.sum_all()?.backward()?;
            let of = |tensor: &Tensor| flat(gradients.get(tensor).expect("the tensor is part of the graph"));
            assert_eq!(of(&x)?, expected.dx);
            assert_eq!([of(layer.weight())?, of(layer.bias())?], [expected.d_weight, expected.d_bias]);
            let running = [flat(layer.running_mean())?, flat(layer.running_var())?];
            assert_eq!(running, [expected.running_mean, expected.running_var]);
        }
    }
    // Whole samples and channels are dropped, not rows of the matrix.
    for granularity in [Granularity::Sample, Granularity::Channel] {
        let case = Case::of(&[16, 6, 3, 4], 28);
        let (layer, _variables) = layer_of(&case, Config { p: 0.5, granularity, ..CONFIG })?;
        let x = Tensor::from_slice(&case.x, &*case.dims, &CPU)?.permute((0, 2, 3, 1))?.contiguous()?;
        let kept = layer.forward_t(&x.permute((0, 3, 1, 2))?, true)?.sum((2, 3))?.to_vec2::<f32>()?;
        let (layer, _variables) = layer_of(&case, Config { p: 0.5, granularity, ..CONFIG })?;
        let expected = layer.forward_t(&Tensor::from_slice(&case.x, &*case.dims, &CPU)?, true)?.sum((2, 3))?;
        let zeros = |rows: Vec<Vec<f32>>| -> Vec<bool> { rows.concat().iter().map(|&sum| sum == 0.0).collect() };
        assert_eq!(zeros(kept), zeros(expected.to_vec2()?));
    }
    Ok(())
}

#[test]
fn a_prepared_layer_has_the_bits_of_an_evaluation() -> Result<()> {
    for dims in [&[9, 5][..], &[3, 6, 4, 5], &[0, 4]] {
        let case = Case::of(dims, 29);
        let (layer, variables) = layer_of(&case, Config { p: 0.5, ..CONFIG })?;
        let prepared = layer.prepare()?;
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let x = Tensor::from_slice(&case.x, dims, &CPU)?.to_dtype(dtype)?;
            let (found, expected) = (prepared.forward(&x)?, layer.forward_t(&x, false)?);
            assert_eq!((found.dtype(), found.dims()), (dtype, dims));
            let single = |y: &Tensor| flat(&y.to_dtype(DType::F32)?);
            assert_eq!(single(&found)?, single(&expected)?);
        }
        // What it was prepared with stays, whatever becomes of the variables.
        let x = Tensor::from_slice(&case.x, dims, &CPU)?;
        let before = flat(&prepared.forward(&x)?)?;
        variables.data().lock().expect("nothing has panicked")["bias"].set(&Tensor::ones(
            dims[1],
            DType::F32,
            &CPU,
        )?)?;
        assert_eq!(flat(&prepared.forward(&x)?)?, before);
    }
    let case = Case::of(&[4, 3], 30);
    let prepared = layer_of(&case, CONFIG)?.0.prepare()?;
    let x = variable(&case.x, &case.dims)?;
    assert!(prepared.forward(&x)?.sum_all()?.backward().is_err(), "no gradient is lost in silence");
    assert!(prepared.forward(&Tensor::zeros((4, 2), DType::F32, &CPU)?).is_err());
    assert!(prepared.forward(&Tensor::zeros((4, 3), DType::F64, &CPU)?).is_err());
    let mut broken = case;
    broken.running_var[1] = -1.0;
    assert!(layer_of(&broken, CONFIG)?.0.prepare().is_err());
    Ok(())
}

#[test]
fn a_gradient_that_is_one_number_expanded_counts_for_every_element() -> Result<()> {
    let mut case = Case::of(&[9, 4], 5);
    case.grad_output.fill(1.0);
    let (layer, _variables) = layer_of(&case, CONFIG)?;
    let expected = run(&layer, &case, true)?;
    let (layer, _variables) = layer_of(&case, CONFIG)?;
    let x = variable(&case.x, &case.dims)?;
    let gradients = layer.forward_t(&x, true)?.sum_all()?.backward()?;
    assert_eq!(flat(gradients.get(&x).expect("x is part of the graph"))?, expected.dx);
    Ok(())
}

#[test]
fn p_0_keeps_all_and_p_1_drops_all() -> Result<()> {
    let case = Case::of(&[8, 5, 3, 3], 6);
    let all = vec![1.0; case.x.len()];
    let (layer, _variables) = layer_of(&case, Config { p: 0.0, ..CONFIG })?;
    let kept = run(&layer, &case, true)?;
    case.check(true, CONFIG.momentum, &all, &kept, &exactly(&case, true, CONFIG.momentum, &all)?);

    let (layer, _variables) = layer_of(&case, Config { p: 1.0, ..CONFIG })?;
    let dropped = run(&layer, &case, true)?;
    for (name, values) in
        [("y", &dropped.y), ("dx", &dropped.dx), ("d_weight", &dropped.d_weight), ("d_bias", &dropped.d_bias)]
    {
        assert!(values.iter().all(|value| value.to_bits() == 0), "{name}: {values:?}");
    }
    assert_eq!((dropped.running_mean, dropped.running_var), (kept.running_mean, kept.running_var));
    Ok(())
}

#[test]
fn masks_are_a_function_of_seed_rank_and_step() -> Result<()> {
    let case = Case::of(&[64, 32], 7);
    let config = Config { p: 0.5, ..CONFIG };
    let two_steps = |layer: &BatchNormDropout| -> Result<_> {
        Ok([run(layer, &case, true)?, run(layer, &case, true)?]
            .map(|results| (results.y, results.dx, results.d_weight)))
    };
    let (layer, _variables) = layer_of(&case, config)?;
    let [first, second] = two_steps(&layer)?;
    assert_ne!(first.0, second.0, "every step has a mask of its own");
    assert_eq!(layer.step(), 2);
    layer.set_step(0);
    assert_eq!(two_steps(&layer)?[1], second, "a step can be made again");
    assert_eq!(two_steps(&layer_of(&case, config)?.0)?, [first.clone(), second], "same seed, same bits");
    assert_ne!(two_steps(&layer_of(&case, config)?.0.with_rank(1))?[0].0, first.0, "other ranks, other masks");
    let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &CPU);
    let other = batch_norm_dropout(32, Relu, config, SEED + 1, vb)?;
    assert_ne!(other.mask_seed(0), layer.mask_seed(0));
    // No sum of the three counts: a step further is not the next rank.
    assert_ne!(layer_of(&case, config)?.0.with_rank(1).mask_seed(0), layer.mask_seed(1));
    Ok(())
}

#[test]
fn the_variables_are_those_of_candles_batch_norm_and_can_be_trained() -> Result<()> {
    let case = Case::of(&[16, 8], 8);
    let (layer, variables) = layer_of(&case, CONFIG)?;
    let own = VarMap::new();
    candle_nn::batch_norm(8, 1e-5, VarBuilder::from_varmap(&own, DType::F32, &CPU))?;
    let names = |map: &VarMap| {
        let mut names: Vec<String> = map.data().lock().expect("no thread has panicked").keys().cloned().collect();
        names.sort();
        names
    };
    assert_eq!(names(&variables), names(&own));

    let before = flat(layer.weight())?;
    let x = Tensor::from_slice(&case.x, &*case.dims, &CPU)?;
    let loss = layer.forward_t(&x, true)?.sqr()?.mean_all()?;
    SGD::new(variables.all_vars(), 0.1)?.backward_step(&loss)?;
    assert_ne!(flat(layer.weight())?, before);
    // In the map as well, where they are saved from: candle's layer evaluates the same.
    let running_mean = variables.data().lock().expect("no thread has panicked")["running_mean"].as_tensor().clone();
    assert_eq!(flat(&running_mean)?, flat(layer.running_mean())?);
    assert_ne!(flat(&running_mean)?, case.running_mean);
    let same = candle_nn::batch_norm(8, 1e-5, VarBuilder::from_varmap(&variables, DType::F32, &CPU))?;
    let difference = (same.forward_t(&x, false)?.relu()? - layer.forward_t(&x, false)?)?.abs()?.max_all()?;
    assert!(difference.to_scalar::<f32>()? < 1e-5);
    Ok(())
}

#[test]
fn an_input_that_is_not_tracked_gets_no_gradient() -> Result<()> {
    let case = Case::of(&[16, 8], 9);
    let (layer, _variables) = layer_of(&case, CONFIG)?;
    let x = Tensor::from_slice(&case.x, &*case.dims, &CPU)?;
    let gradients = layer.forward_t(&x, true)?.sum_all()?.backward()?;
    assert!(gradients.get(&x).is_none());
    assert!(gradients.get(layer.weight()).is_some());
    Ok(())
}

#[test]
fn what_is_wrong_is_an_error_of_candle_and_changes_nothing() -> Result<()> {
    let case = Case::of(&[4, 3], 10);
    let (layer, _variables) = layer_of(&case, Config { p: 0.5, ..CONFIG })?;
    let refused = |x: Result<Tensor>, train: bool, expected: &str| -> Result<()> {
        let error = layer.forward_t(&x?, train).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(flat(layer.running_mean())?, case.running_mean);
        assert_eq!(flat(layer.running_var())?, case.running_var);
        assert_eq!(layer.step(), 0);
        Ok(())
    };
    for train in [true, false] {
        refused(Tensor::zeros((4, 5), DType::F32, &CPU), train, "has 3 channels")?;
        refused(Tensor::zeros((3, 4, 3, 3), DType::F32, &CPU), train, "has 3 channels")?;
        refused(Tensor::zeros(3, DType::F32, &CPU), train, "at least two dimensions")?;
        refused(Tensor::zeros((), DType::F32, &CPU), train, "at least two dimensions")?;
        refused(Tensor::zeros((4, 3), DType::F64, &CPU), train, "F64")?;
    }
    refused(Tensor::zeros((1, 3), DType::F32, &CPU), true, "more than one value per channel")?;
    layer.forward_t(&Tensor::zeros((1, 3), DType::F32, &CPU)?, false)?;
    Ok(())
}

#[test]
fn an_empty_batch_gives_an_empty_result_and_changes_no_statistics() -> Result<()> {
    let case = Case::of(&[0, 3, 4, 4], 11);
    let (layer, _variables) = layer_of(&case, Config { p: 0.5, ..CONFIG })?;
    let results = run(&layer, &case, true)?;
    assert!(results.y.is_empty() && results.dx.is_empty());
    assert_eq!([results.d_weight, results.d_bias], [[0.0; 3]; 2]);
    assert_eq!([results.running_mean, results.running_var], [case.running_mean, case.running_var]);
    Ok(())
}

#[test]
fn constants_out_of_range_are_refused_where_the_layer_is_made() {
    let nan = f64::NAN;
    for config in [
        Config { p: 1.5, ..CONFIG },
        Config { p: nan, ..CONFIG },
        Config { momentum: -0.1, ..CONFIG },
        Config { eps: 0.0, ..CONFIG },
        Config { eps: f32::INFINITY, ..CONFIG },
    ] {
        let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &CPU);
        assert!(batch_norm_dropout(3, Relu, config, SEED, vb).is_err(), "{config:?}");
    }
    let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F64, &CPU);
    let error = batch_norm_dropout(3, Relu, CONFIG, SEED, vb).expect_err("f64").to_string();
    assert!(error.contains("F64"), "{error}");
}

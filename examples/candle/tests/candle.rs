//! What candle's own batch norm and dropout do where one might expect something else; the README has the list. A test that fails
//! here says that candle has changed and the list must, too.

#[path = "../../shared/channel.rs"]
mod channel;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::ops::dropout;
use candle_nn::{BatchNorm, Dropout, ModuleT, VarBuilder, VarMap, batch_norm};
use normdrop::{Config, Identity, Relu};
use normdrop_candle::{BatchNormDropout, batch_norm_dropout};

use channel::{normal, normalised};

const CPU: Device = Device::Cpu;

fn own(channels: usize) -> Result<BatchNorm> {
    batch_norm(channels, 1e-5, VarBuilder::from_varmap(&VarMap::new(), DType::F32, &CPU))
}

fn ours(channels: usize) -> Result<BatchNormDropout<Identity>> {
    let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &CPU);
    batch_norm_dropout(channels, Identity, Config::DEFAULT, 0, vb)
}

fn flat(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

/// The largest absolute error of a training call on one channel.
fn largest_error(layer: &impl ModuleT, x: &[f32]) -> Result<f64> {
    let y = flat(&layer.forward_t(&Tensor::from_slice(x, (x.len(), 1), &CPU)?, true)?)?;
    Ok(y.iter().zip(normalised(x)).map(|(&y, exact)| (f64::from(y) - exact).abs()).fold(0.0, f64::max))
}

#[test]
fn dropout_cannot_be_seeded_on_the_cpu() -> Result<()> {
    assert!(CPU.set_seed(42).is_err());
    let ones = Tensor::ones(4096, DType::F32, &CPU)?;
    assert_ne!(flat(&dropout(&ones, 0.5)?)?, flat(&dropout(&ones, 0.5)?)?);
    Ok(())
}

#[test]
fn dropout_with_p_1_is_an_error_and_only_when_it_is_used() -> Result<()> {
    let layer = Dropout::new(1.0);
    let error = layer.forward(&Tensor::ones(4, DType::F32, &CPU)?, true).expect_err("p = 1").to_string();
    assert!(error.contains("[0, 1)"), "{error}");
    assert!(layer.forward(&Tensor::ones(4, DType::F32, &CPU)?, false).is_ok());
    Ok(())
}

#[test]
fn dropout_turns_a_dropped_infinity_into_nan() -> Result<()> {
    let infinite = Tensor::full(f32::INFINITY, 4096, &CPU)?;
    let dropped = flat(&dropout(&infinite, 0.5)?)?;
    assert!(dropped.iter().any(|value| value.is_nan()), "a dropped infinity times 0");
    // The layer selects. A NaN spoils its channel in batch norm, so that p = 1 is the clearest case.
    let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &CPU);
    let layer = batch_norm_dropout(1, Relu, Config { p: 1.0, ..Config::DEFAULT }, 0, vb)?;
    let y = layer.forward_t(&Tensor::full(f32::NAN, (8, 1), &CPU)?, true)?;
    assert!(flat(&y)?.iter().all(|value| value.to_bits() == 0));
    Ok(())
}

#[test]
fn a_batch_of_one_turns_the_running_variance_into_nan() -> Result<()> {
    let x = Tensor::ones((1, 3), DType::F32, &CPU)?;
    let norm = own(3)?;
    assert!(norm.forward_t(&x, true).is_ok());
    assert!(flat(norm.running_var())?.iter().all(|var| var.is_nan()));
    assert!(flat(&norm.forward_t(&x, false)?)?.iter().all(|y| y.is_nan()), "and every evaluation after it");

    let layer = ours(3)?;
    assert!(layer.forward_t(&x, true).is_err());
    assert_eq!(flat(layer.running_var())?, [1.0; 3]);
    Ok(())
}

#[test]
fn an_empty_batch_turns_the_running_statistics_into_nan() -> Result<()> {
    let x = Tensor::zeros((0, 3), DType::F32, &CPU)?;
    let norm = own(3)?;
    assert!(norm.forward_t(&x, true).is_ok());
    assert!(flat(norm.running_mean())?.iter().chain(&flat(norm.running_var())?).all(|value| value.is_nan()));

    let layer = ours(3)?;
    layer.forward_t(&x, true)?;
    assert_eq!((flat(layer.running_mean())?, flat(layer.running_var())?), (vec![0.0; 3], vec![1.0; 3]));
    Ok(())
}

#[test]
fn the_running_variance_is_unbiased() -> Result<()> {
    let x = Tensor::new(&[[1f32], [3.0]], &CPU)?; // biased 1, unbiased 2
    let norm = own(1)?;
    norm.forward_t(&x, true)?;
    let layer = ours(1)?;
    layer.forward_t(&x, true)?;
    for var in [flat(norm.running_var())?[0], flat(layer.running_var())?[0]] {
        assert!((var - 1.1).abs() < 1e-6, "{var}");
    }
    Ok(())
}

#[test]
fn data_far_from_zero_is_normalised_wrongly() -> Result<()> {
    for (mean, at_least) in [(1e4, 1e-4), (1e6, 1e-3)] {
        let x = normal(1 << 16, mean);
        let (own, ours) = (largest_error(&own(1)?, &x)?, largest_error(&ours(1)?, &x)?);
        println!("mean {mean:e}: candle {own:e}, normdrop {ours:e}");
        assert!(own > at_least, "mean {mean:e}: {own:e}");
        assert!(ours < 2e-6, "mean {mean:e}: {ours:e}");
    }
    Ok(())
}

#[test]
fn many_values_a_channel_of_data_far_from_zero_have_no_variance_to_speak_of() -> Result<()> {
    let x = normal(1 << 20, 1e6);
    let (own, ours) = (largest_error(&own(1)?, &x)?, largest_error(&ours(1)?, &x)?);
    println!("candle {own:e}, normdrop {ours:e}");
    assert!(own > 1.0, "{own:e}");
    assert!(ours < 2e-6, "{ours:e}");
    Ok(())
}

#[test]
fn a_constant_channel_is_not_the_bias() -> Result<()> {
    let x = Tensor::full(0.1f32, (4099, 1), &CPU)?;
    let error = |y: Tensor| Ok::<_, candle_core::Error>(flat(&y)?.into_iter().fold(0.0, |a: f32, b| a.max(b.abs())));
    let (own, ours) = (error(own(1)?.forward_t(&x, true)?)?, error(ours(1)?.forward_t(&x, true)?)?);
    println!("candle {own:e}");
    assert!(own > 0.0);
    assert_eq!(ours.to_bits(), 0);
    Ok(())
}

#[test]
fn large_finite_values_come_out_as_zeros() -> Result<()> {
    let values = [1e30f32, -1e30, 2e30, -2e30];
    let x = Tensor::from_slice(&values, (4, 1), &CPU)?;
    assert_eq!(flat(&own(1)?.forward_t(&x, true)?)?, [0.0, -0.0, 0.0, -0.0]);
    let y = flat(&ours(1)?.forward_t(&x, true)?)?;
    for (y, exact) in y.iter().zip(normalised(&values)) {
        assert!((f64::from(*y) - exact).abs() < 1e-6, "{y} {exact}");
    }
    Ok(())
}

#[test]
fn momentum_1_does_not_replace_a_nan() -> Result<()> {
    let start = |value: f32| Tensor::full(value, 1, &CPU);
    let (one, zero) = (start(1.0)?, start(0.0)?);
    let norm = BatchNorm::new_with_momentum(1, start(f32::NAN)?, start(f32::NAN)?, one, zero, 1e-5, 1.0)?;
    let x = Tensor::new(&[[1f32], [3.0]], &CPU)?;
    norm.forward_t(&x, true)?;
    assert!(flat(norm.running_mean())?[0].is_nan());

    let mut variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &CPU);
    let layer = batch_norm_dropout(1, Identity, Config { momentum: 1.0, ..Config::DEFAULT }, 0, vb)?;
    variables.set_one("running_mean", start(f32::NAN)?)?;
    layer.forward_t(&x, true)?;
    assert_eq!(flat(layer.running_mean())?, [2.0]);
    Ok(())
}

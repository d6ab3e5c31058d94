//! Statistics in the forms of other programs: what becomes of them, within one rounding, and what is refused.

use crate::support::bits;
use normdrop::{Buffer, Config, Error, Eval, Identity, Layer, Parameters, Running, Shape, Stored};

/// The running statistics that a form gives, and the `eps` for them.
fn running(stored: Stored, mean: &[f32], spread: &[f32]) -> Result<(Vec<f32>, Vec<f32>, f32), Error> {
    let (mut new_mean, mut var) = (mean.to_vec(), spread.to_vec());
    let result = stored.into_running(&mut new_mean, &mut var);
    if result.is_err() {
        assert_eq!((bits(&new_mean), bits(&var)), (bits(mean), bits(spread)), "{stored:?}: something was written");
    }
    result.map(|eps| (new_mean, var, eps))
}

/// What evaluation makes of 1.0 and mean 0 in each channel: the inverse standard deviation.
fn gains(var: &[f32], eps: f32) -> Vec<f32> {
    let layer = Layer::new(Shape::nc(1, var.len()).expect("small"), Identity, Config { eps, ..Config::DEFAULT });
    let layer = layer.expect("an eps of at least 0");
    let (mut output, zeros) = (vec![f32::NAN; var.len()], vec![0.0; var.len()]);
    layer
        .eval(Eval {
            parameters: Parameters::default(),
            running: Running::new(&zeros, var),
            dropout: normdrop::Dropout::Off,
            input: &vec![1.0; var.len()],
            residual: None,
            output: &mut output,
            scratch: &mut vec![0.0; layer.eval_scratch_len()],
        })
        .expect("variances above -eps");
    output
}

/// Spreads over the whole range in which none of the forms leaves an f32.
fn spreads() -> Vec<f32> {
    (-60..60).map(|exponent| 1.37 * 2.0_f32.powi(exponent)).collect()
}

/// The inverse standard deviation of a stored spread.
type Gain = fn(f64) -> f64;

#[test]
fn every_form_evaluates_to_the_gain_of_its_formula() {
    let spreads = spreads();
    let zeros = vec![0.0; spreads.len()];
    let forms: [(Stored, Gain); 4] = [
        (Stored::EpsOutside { eps: 1e-6 }, |v| 1.0 / (v.sqrt() + f64::from(1e-6_f32))),
        (Stored::Deviation, |s| 1.0 / s),
        (Stored::InverseDeviation, |r| r),
        (Stored::Sums { factor: 3.0, eps: 1e-5 }, |v| 1.0 / (v / 3.0 + f64::from(1e-5_f32)).sqrt()),
    ];
    for (stored, gain) in forms {
        let (mean, var, eps) = running(stored, &zeros, &spreads).expect("nothing to refuse");
        assert_eq!(mean, zeros);
        for (spread, actual) in spreads.iter().zip(gains(&var, eps)) {
            let exact = gain(f64::from(*spread));
            // Half a unit of the variance is a quarter of its root, and the layer itself has four for the output.
            let units = (f64::from(actual) / exact - 1.0).abs() * 2.0_f64.powi(24);
            assert!(units < 4.3, "{stored:?} of {spread}: {actual} and not {exact}, {units} units");
        }
    }
}

/// The numbers of the documents of other programs: Darknet's gain of a variance of 1e-6 is 999, not 707.
#[test]
fn eps_outside_the_root_is_not_eps_inside() {
    let (_, var, eps) = running(Stored::EpsOutside { eps: 1e-6 }, &[0.0], &[1e-6]).expect("a variance");
    assert!((gains(&var, eps)[0] - 999.001).abs() < 1e-3);
    assert!((gains(&[1e-6], 1e-6)[0] - 707.107).abs() < 1e-3);
}

#[test]
fn caffe_divides_mean_and_variance_by_the_factor_and_a_factor_of_0_clears_them() {
    let of = |factor| running(Stored::Sums { factor, eps: 1e-5 }, &[3.0, -6.0], &[12.0, 0.0]);
    assert_eq!(of(3.0), Ok((vec![1.0, -2.0], vec![4.0, 0.0], 1e-5)));
    assert_eq!(of(0.0), Ok((vec![0.0; 2], vec![0.0; 2], 1e-5)));
    assert_eq!(of(f32::NAN), Err(Error::NotFinite { buffer: Buffer::RunningVar, index: 0 }));
    // A variance that rounding made negative is the business of the call that gets it.
    let (_, var, _) = running(Stored::Sums { factor: 2.0, eps: 1e-5 }, &[0.0], &[-2e-9]).expect("left as it is");
    assert_eq!(var, [-1e-9]);
    // What no longer fits.
    let large = running(Stored::Sums { factor: 1e-3, eps: 0.0 }, &[1.0, 1e37], &[1.0, 1.0]);
    assert_eq!(large, Err(Error::NotFinite { buffer: Buffer::RunningMean, index: 1 }));
    let large = running(Stored::Sums { factor: 1e-3, eps: 0.0 }, &[1.0, 1.0], &[1.0, 1e37]);
    assert_eq!(large, Err(Error::NotFinite { buffer: Buffer::RunningVar, index: 1 }));
}

#[test]
fn a_spread_that_nothing_can_be_divided_by_is_refused_by_channel_and_nothing_is_written() {
    let variance = |var| Err(Error::Variance { channel: 1, var });
    let lost = || Err(Error::NotFinite { buffer: Buffer::RunningVar, index: 1 });
    let outside = |eps| Stored::EpsOutside { eps };
    for (stored, spread, expected) in [
        (outside(1e-6), -1e-30, variance(-1e-30)),
        (outside(0.0), 0.0, variance(0.0)),
        (Stored::Deviation, 0.0, variance(0.0)),
        (Stored::Deviation, -1.0, variance(-1.0)),
        (Stored::InverseDeviation, -1.0, variance(-1.0)),
        (Stored::Deviation, 1e-30, lost()),
        (Stored::Deviation, 1e30, lost()),
        (Stored::InverseDeviation, 1e-30, lost()),
        (Stored::InverseDeviation, 1e30, lost()),
    ] {
        assert_eq!(running(stored, &[0.5; 2], &[1.0, spread]), expected, "{stored:?} of {spread}");
    }
    for eps in [-1e-6, f32::NAN, f32::INFINITY] {
        for stored in [outside(eps), Stored::Sums { factor: 1.0, eps }] {
            assert!(matches!(running(stored, &[0.0], &[1.0]), Err(Error::Eps { .. })), "{stored:?}");
        }
    }
    let length = Err(Error::Length { buffer: Buffer::RunningVar, expected: 2, actual: 1 });
    assert_eq!(running(Stored::Deviation, &[0.0; 2], &[1.0]), length);
}

#[test]
fn an_eps_lifts_a_variance_of_0_and_an_inverse_deviation_of_0_is_a_constant_channel() {
    let (_, var, eps) = running(Stored::EpsOutside { eps: 0.25 }, &[0.0], &[0.0]).expect("eps above 0");
    assert_eq!((var[0], eps), (0.0625, 0.0));
    let (_, var, _) = running(Stored::InverseDeviation, &[0.0], &[0.0]).expect("a constant");
    assert_eq!((var[0], gains(&var, 0.0)[0]), (f32::INFINITY, 0.0));
    let (_, var, _) = running(Stored::Deviation, &[0.0], &[f32::NAN]).expect("NaN stays in its channel");
    assert!(var[0].is_nan());
}

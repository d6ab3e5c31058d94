//! The targets of what holds no data: shapes and constants.

use normdrop::{
    Average, Backend, Bernoulli, Config, Dropout, Error, Layer, Parameters, RunningMut, SavedMut, Shape, Train,
};
use normdrop_reference::mask;

use crate::buffer::{Buffer, Place};
use crate::input::{ConfigInput, Dimension, ShapeInput};

/// Every constructor of a shape, and a layer of each.
pub(crate) fn shape(input: &ShapeInput) {
    let mut dimensions = [0; 5];
    for (dimension, (&kind, &value)) in dimensions.iter_mut().zip(input.kinds.iter().zip(&input.values)) {
        let value = usize::try_from(value).unwrap_or(usize::MAX);
        *dimension = match kind {
            Dimension::Value => value,
            Dimension::Small => value % 6,
            Dimension::PowerOfTwo => 1 << (value % 64),
            Dimension::FractionOfMax => usize::MAX / (value % 8).max(1),
        };
    }
    let [a, b, c, d, e] = dimensions;
    let (lengths, place) = (input.lengths.map(usize::from), Place::new(input.guard, 0, 1));
    check_shape(Shape::new(a, b, c), &[a], b, &[c], lengths, place);
    check_shape(Shape::nc(a, b), &[a], b, &[], lengths, place);
    check_shape(Shape::ncl(a, b, c), &[a], b, &[c], lengths, place);
    check_shape(Shape::nchw(a, b, c, d), &[a], b, &[c, d], lengths, place);
    check_shape(Shape::ncdhw(a, b, c, d, e), &[a], b, &[c, d, e], lengths, place);
    check_shape(Shape::nlc(a, b, c), &[a, b], c, &[], lengths, place);
    check_shape(Shape::nhwc(a, b, c, d), &[a, b, c], d, &[], lengths, place);
    check_shape(Shape::ndhwc(a, b, c, d, e), &[a, b, c, d], e, &[], lengths, place);
}

/// The product of the dimensions if it fits; a dimension of 0 makes it 0, whatever the others are.
fn product(dimensions: &[usize]) -> Option<usize> {
    if dimensions.contains(&0) {
        return Some(0);
    }
    dimensions.iter().try_fold(1usize, |product, &dimension| product.checked_mul(dimension))
}

fn check_shape(
    shape: Result<Shape, Error>,
    outer: &[usize],
    channels: usize,
    inner: &[usize],
    lengths: [usize; 4],
    place: Place,
) {
    let dimensions = product(outer).zip(product(inner)).map(|(outer, inner)| [outer, channels, inner]);
    let Some((dimensions, len)) = dimensions.and_then(|dimensions| Some((dimensions, product(&dimensions)?))) else {
        assert!(matches!(shape, Err(Error::ShapeOverflow { .. })), "{outer:?} {channels} {inner:?}");
        return;
    };
    let shape = shape.expect("every product fits");
    assert_eq!([shape.outer(), shape.channels(), shape.inner()], dimensions);
    assert_eq!((shape.len(), shape.is_empty()), (len, len == 0));
    if !shape.is_empty() {
        assert_eq!(Some(shape.samples()), product(&[shape.outer(), shape.inner()]));
    }
    let layer = Layer::new(shape, normdrop::Identity, Config::DEFAULT).expect("the constants are valid");
    assert_eq!(layer.mask_len(), len.div_ceil(8));
    check_call(&layer, lengths, place);
}

/// A call with buffers that are almost always too short.
fn check_call(layer: &Layer<normdrop::Identity>, [elements, channels, mask, scratch]: [usize; 4], place: Place) {
    let shape = layer.shape();
    let floats = |len| Buffer::new(&[], len, 0.0f32, place);
    let (input, mut output) = (floats(elements), floats(elements));
    let (mut mean, mut tail) = (floats(channels), floats(channels));
    let (mut running_mean, mut running_var) = (floats(channels), floats(channels));
    let mut inv_std = Buffer::new(&[], channels, 0.0, place);
    let mask = Buffer::new(&[], mask, 0u8, place);
    let mut scratch = Buffer::new(&[], scratch, 0.0, place);
    let right = (elements, channels, mask.len()) == (shape.len(), shape.channels(), layer.mask_len())
        && scratch.len() >= layer.train_scratch_len();
    let mut batches = 7;
    let result = layer.train(Train {
        parameters: Parameters::default(),
        running: Some(RunningMut {
            mean: &mut running_mean,
            mean_tail: None,
            var: &mut running_var,
            average: Average::Cumulative { batches: &mut batches },
        }),
        dropout: Dropout::Mask(&mask),
        input: &input,
        output: &mut output,
        saved: SavedMut { mean: &mut mean, mean_tail: &mut tail, inv_std: &mut inv_std },
        residual: None,
        scratch: &mut scratch,
    });
    let counted = result.is_ok() && !shape.is_empty();
    assert_eq!(batches, 7 + u64::from(counted), "{result:?}");
    match result {
        Ok(()) => assert!(right && (shape.is_empty() || shape.samples() > 1)),
        Err(Error::SingleSample) => assert!(right && shape.samples() == 1),
        Err(error) => assert!(matches!(error, Error::Length { .. }) && !right, "{error:?}"),
    }
}

/// A layer of any constants.
pub(crate) fn config(input: &ConfigInput) {
    let (eps, momentum, p) = (f32::from_bits(input.eps), f64::from_bits(input.momentum), f64::from_bits(input.p));
    let shape = Shape::nc(2, 3).expect("the dimensions are small");
    let layer = Layer::new(shape, normdrop::Relu, Config { eps, momentum, p, ..Config::DEFAULT });
    let unit = 0.0..=1.0;
    let valid = [eps.is_finite() && eps >= 0.0, unit.contains(&p)];
    let layer = match layer {
        Ok(layer) => layer,
        Err(error) => {
            let refused = match error {
                Error::Eps { eps } => !valid[0] && eps.to_bits() == input.eps,
                Error::Probability { p } => !valid[1] && p.to_bits() == input.p,
                _ => false,
            };
            assert!(refused, "{error:?} of {eps:e}, {momentum:e}, {p:e}");
            return;
        }
    };
    assert_eq!(valid, [true; 2], "{eps:e}, {p:e} were accepted");
    assert_eq!(layer.config().momentum.to_bits(), input.momentum);
    // NaN is not equal to itself.
    let kept = Config { momentum: 0.0, ..layer.config() };
    assert_eq!(kept, Config { eps, momentum: 0.0, p, ..Config::DEFAULT });
    check_momentum(&layer, unit.contains(&momentum));
    check_keep(layer.keep(), p);
    for backend in Backend::ALL {
        assert_eq!(layer.with_backend(backend).is_ok(), backend.is_available(), "{}", backend.name());
    }
}

/// The momentum matters where it is used.
fn check_momentum(layer: &Layer<normdrop::Relu>, valid: bool) {
    let config = layer.config();
    for running in [true, false] {
        let (mut mean, mut var, mut batches) = ([7.0; 3], [7.0; 3], 0);
        for cumulative in [false, true] {
            let mut statistics = RunningMut::new(&mut mean, &mut var);
            if cumulative {
                statistics.average = Average::Cumulative { batches: &mut batches };
            }
            let result = layer.train(Train {
                parameters: Parameters::default(),
                running: running.then_some(statistics),
                dropout: Dropout::Off,
                input: &[1.0; 6],
                residual: None,
                output: &mut [0.0; 6],
                saved: SavedMut { mean: &mut [0.0; 3], mean_tail: &mut [0.0; 3], inv_std: &mut [0.0; 3] },
                scratch: &mut vec![0.0; layer.train_scratch_len()],
            });
            match result {
                Ok(()) => assert!(config.eps != 0.0 && (valid || cumulative || !running)),
                Err(Error::Eps { eps }) => assert_eq!(eps, 0.0),
                Err(Error::Momentum { momentum }) => {
                    assert!(!valid && running && !cumulative && momentum.to_bits() == config.momentum.to_bits());
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

/// The exact numbers of a probability.
pub(crate) fn check_keep(keep: Bernoulli, p: f64) {
    assert_eq!(keep.threshold(), mask::threshold(p), "the threshold of {p:e}");
    assert_eq!(keep.scale().to_bits(), mask::scale(keep.threshold()).to_bits(), "the scale of {p:e}");
    assert_eq!(keep.keep_probability() * (1u64 << 32) as f64, keep.threshold() as f64);
}

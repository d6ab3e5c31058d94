//! Padded sequences: which elements are padding, and that nothing of it reaches statistics, outputs
//! or gradients.

use normdrop::{
    Apply, ApplyGradient, Bernoulli, Buffer, Config, Dropout, Error, Finish, Granularity, Identity, Layer, Moments,
    ParameterGradients, Parameters, Reduce, Relu, Saved, SavedMut, Shape, Statistics, mask_len, merge_moments,
};
use normdrop_reference::random::SplitMix64;

/// A layer for a shape, with a bit of the mask for each element.
fn layer(shape: Shape) -> Layer<Identity> {
    Layer::new(shape, Identity, Config::DEFAULT).expect("constants in their ranges")
}

/// The element at a place `[sample, position, channel]` of a tensor of `[n, positions, channels]`.
type Element = fn([usize; 3], [usize; 3]) -> usize;

/// Shapes of `n` sequences of `positions` positions and `channels` channels, with the element of a
/// place.
fn shapes(n: usize, positions: usize, channels: usize) -> [(Shape, Element); 2] {
    let last = Shape::nlc(n, positions, channels).expect("a small shape");
    let first = Shape::ncl(n, channels, positions).expect("a small shape");
    [
        (last, |[_, positions, channels], [n, l, c]| (n * positions + l) * channels + c),
        (first, |[_, positions, channels], [n, l, c]| (n * channels + c) * positions + l),
    ]
}

/// Whether each element is padding, by the definition.
fn padding_of([n, positions, channels]: [usize; 3], element: Element, lengths: &[usize]) -> Vec<bool> {
    let mut padding = vec![false; n * positions * channels];
    for sample in 0..n {
        for position in lengths[sample]..positions {
            for channel in 0..channels {
                padding[element([n, positions, channels], [sample, position, channel])] = true;
            }
        }
    }
    padding
}

fn bit(mask: &[u8], element: usize) -> bool {
    mask[element / 8] >> (element % 8) & 1 == 1
}

#[test]
fn exactly_the_padded_places_are_cleared() {
    let mut random = SplitMix64::new(1);
    for n in 1..4 {
        for positions in [1, 2, 3, 7, 8, 9, 17, 40] {
            for channels in [1, 2, 3, 8, 13] {
                for (shape, element) in shapes(n, positions, channels) {
                    for case in 0..12 {
                        let lengths: Vec<usize> = (0..n)
                            .map(|_| match case {
                                0 => 0,
                                1 => positions,
                                _ => random.next_below(positions + 1),
                            })
                            .collect();
                        check_cleared(shape, &padding_of([n, positions, channels], element, &lengths), &lengths);
                    }
                }
            }
        }
    }
}

fn check_cleared(shape: Shape, padding: &[bool], lengths: &[usize]) {
    let layer = layer(shape);
    let margin = 16;
    // Values between margins; NaN must go as well, and -0.0 must stay.
    let before: Vec<f32> = (0..shape.len() + 2 * margin).map(|i| if i % 3 == 0 { f32::NAN } else { -0.0 }).collect();
    let mut values = before.clone();
    layer.clear_padding(lengths, &mut values[margin..margin + shape.len()]).expect("lengths that fit");
    for (element, (value, before)) in values.iter().zip(&before).enumerate() {
        let cleared = element.checked_sub(margin).and_then(|element| padding.get(element)) == Some(&true);
        let expected = if cleared { 0 } else { before.to_bits() };
        assert_eq!(value.to_bits(), expected, "element {element} of {shape:?} with {lengths:?}");
    }

    for pattern in [0xFF, 0xA5] {
        let mut bytes = vec![pattern; layer.mask_len() + 2 * margin];
        layer.drop_padding(lengths, &mut bytes[margin..margin + layer.mask_len()]).expect("lengths that fit");
        for element in 0..8 * bytes.len() {
            let cleared = element.checked_sub(8 * margin).and_then(|element| padding.get(element)) == Some(&true);
            let expected = !cleared && pattern >> (element % 8) & 1 == 1;
            assert_eq!(bit(&bytes, element), expected, "bit {element} of {shape:?} with {lengths:?}");
        }
    }
}

#[test]
fn images_have_their_positions_in_the_order_of_memory() {
    // The first four of six positions of each image.
    for (shape, valid) in [
        (Shape::nhwc(2, 2, 3, 2), [0..8, 12..20].concat_ranges()),
        (Shape::nchw(2, 2, 2, 3), [0..4, 6..10, 12..16, 18..22].concat_ranges()),
        (Shape::ndhwc(2, 1, 2, 3, 2), [0..8, 12..20].concat_ranges()),
        (Shape::ncdhw(2, 2, 3, 1, 2), [0..4, 6..10, 12..16, 18..22].concat_ranges()),
    ] {
        let mut values = vec![1.0_f32; 24];
        layer(shape.expect("a small shape")).clear_padding(&[4, 4], &mut values).expect("lengths that fit");
        let kept: Vec<usize> = (0..24).filter(|&element| values[element] == 1.0).collect();
        assert_eq!(kept, valid);
    }
}

/// All numbers of several ranges.
trait ConcatRanges {
    fn concat_ranges(self) -> Vec<usize>;
}

impl<const N: usize> ConcatRanges for [std::ops::Range<usize>; N] {
    fn concat_ranges(self) -> Vec<usize> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    for shape in [Shape::nlc(3, 5, 2), Shape::ncl(3, 2, 5)] {
        let layer = layer(shape.expect("a small shape"));
        let wrong_lengths = |actual| Error::Length { buffer: Buffer::Lengths, expected: 3, actual };
        let too_long = |sample, length| Error::SequenceLength { sample, positions: 5, length };
        for (lengths, error) in [
            (&[][..], wrong_lengths(0)),
            (&[5, 5], wrong_lengths(2)),
            (&[1, 2, 3, 4], wrong_lengths(4)),
            (&[6, 0, 7], too_long(0, 6)),
            (&[0, 5, 6], too_long(2, 6)),
            (&[0, usize::MAX, 0], too_long(1, usize::MAX)),
        ] {
            let (mut values, mut mask) = ([1.0; 30], [0xFF; 4]);
            assert_eq!(layer.clear_padding(lengths, &mut values), Err(error));
            assert_eq!(layer.drop_padding(lengths, &mut mask), Err(error));
            assert_eq!((values, mask), ([1.0; 30], [0xFF; 4]));
        }
        for actual in [0, 29, 31] {
            let error = Error::Length { buffer: Buffer::Values, expected: 30, actual };
            assert_eq!(layer.clear_padding(&[0; 3], &mut vec![1.0; actual]), Err(error));
        }
        for actual in [0, 3, 5] {
            let error = Error::Length { buffer: Buffer::Mask, expected: 4, actual };
            assert_eq!(layer.drop_padding(&[0; 3], &mut vec![0xFF; actual]), Err(error));
        }
    }
    let error = Error::SequenceLength { sample: 2, positions: 5, length: 6 };
    assert_eq!(
        error.to_string(),
        "the length of sequence 2 must be at most 5, the positions of a sample, but is 6; nothing was written"
    );
}

#[test]
fn a_mask_of_channels_or_samples_cannot_drop_padding() {
    let shape = Shape::nlc(3, 5, 2).expect("a small shape");
    for granularity in [Granularity::Channel, Granularity::Sample] {
        let layer = Layer::new(shape, Identity, Config { granularity, ..Config::DEFAULT }).expect("in their ranges");
        let mut mask = vec![0xFF; layer.mask_len()];
        assert_eq!(layer.drop_padding(&[0; 3], &mut mask), Err(Error::NotAnElementMask));
        assert!(mask.iter().all(|&byte| byte == 0xFF));
        assert_eq!(layer.clear_padding(&[0; 3], &mut [1.0; 30]), Ok(()));
    }
    let said = Error::NotAnElementMask.to_string();
    assert!(said.contains("Granularity::Element") && said.contains("clear_padding"), "{said}");
}

#[test]
fn empty_tensors_have_no_padding() {
    for shape in [Shape::nlc(3, 0, 2), Shape::nlc(0, 3, 2), Shape::ncl(3, 2, 0), Shape::ncl(3, 0, 2), Shape::nc(0, 0)] {
        let layer = layer(shape.expect("an empty shape"));
        for lengths in [&[][..], &[0; 3], &[9; 4]] {
            assert_eq!(layer.clear_padding(lengths, &mut [0.0_f32; 0]), Ok(()));
            assert_eq!(layer.drop_padding(lengths, &mut []), Ok(()));
        }
        assert!(layer.clear_padding(&[], &mut [1.0]).is_err());
        assert!(layer.drop_padding(&[], &mut [1]).is_err());
    }
    // Samples that hold nothing: one position each, valid or not.
    let mut values = [1.0; 6];
    layer(Shape::nc(3, 2).expect("a small shape")).clear_padding(&[1, 0, 1], &mut values).expect("lengths that fit");
    assert_eq!(values, [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
}

/// A padded batch: the values of valid places, and something else in the padding.
struct Batch {
    n: usize,
    positions: usize,
    channels: usize,
    lengths: Vec<usize>,
    shape: Shape,
    element: Element,
}

impl Batch {
    #[expect(clippy::cast_possible_truncation, reason = "rounded to the type of the data")]
    fn values(&self, random: &mut SplitMix64, offset: f32, padding: f32) -> Vec<f32> {
        let is_padding = padding_of([self.n, self.positions, self.channels], self.element, &self.lengths);
        is_padding
            .iter()
            .map(|&is_padding| if is_padding { padding } else { offset + random.next_normal() as f32 })
            .collect()
    }

    /// The elements of a channel at valid places.
    fn valid(&self, channel: usize) -> Vec<usize> {
        let places = (0..self.n).flat_map(|n| (0..self.lengths[n]).map(move |l| [n, l, channel]));
        places.map(|place| (self.element)([self.n, self.positions, self.channels], place)).collect()
    }

    /// The merged moments of the valid places: of whole sequences, or of one channel's row of a
    /// sequence.
    fn moments(&self, x: &[f32]) -> Vec<f64> {
        let (c, l) = (self.channels, self.positions);
        let mut moments = vec![0.0; 3 * c];
        let moments_of = |shape: Shape, input: &[f32], moments: &mut [f64]| {
            let part = layer(shape);
            let mut scratch = vec![f64::NAN; part.train_scratch_len()];
            part.moments(Moments { input, moments, scratch: &mut scratch }).expect("buffers of the right lengths");
        };
        if self.shape.inner() == 1 {
            for (sequence, &length) in x.chunks(l * c).zip(&self.lengths) {
                let mut part = vec![f64::NAN; 3 * c];
                moments_of(Shape::nc(length, c).expect("a part"), &sequence[..length * c], &mut part);
                merge_moments(&mut moments, &part).expect("as many channels");
            }
            return moments;
        }
        for channel in 0..c {
            let mut of_channel = [0.0; 3];
            for (sequence, &length) in x.chunks(l * c).zip(&self.lengths) {
                let mut part = [f64::NAN; 3];
                let row = &sequence[channel * l..][..length];
                moments_of(Shape::new(1, 1, length).expect("a part"), row, &mut part);
                merge_moments(&mut of_channel, &part).expect("one channel");
            }
            for (field, value) in of_channel.into_iter().enumerate() {
                moments[field * c + channel] = value;
            }
        }
        moments
    }
}

/// Forward and backward of a padded batch against the formulas in f64, over the valid places alone.
fn check_padded_training(batch: &Batch, p: f64, padding_of_x: f32, padding_of_others: f32) {
    let mut random = SplitMix64::new(3);
    let x = batch.values(&mut random, 5.0, padding_of_x);
    let (residual, dy) =
        (batch.values(&mut random, 0.0, padding_of_others), batch.values(&mut random, 0.0, padding_of_others));
    let (weight, bias): (Vec<f32>, Vec<f32>) =
        (0..batch.channels).map(|c| (0.5 + c as f32, 0.25 * c as f32 - 0.5)).unzip();
    let parameters = Parameters { weight: Some(&weight), bias: Some(&bias) };
    let layer = Layer::new(batch.shape, Relu, Config { p, ..Config::DEFAULT }).expect("constants in their ranges");
    let keep = Bernoulli::new(p).expect("a probability");

    let mut mask = vec![0; mask_len(batch.shape.len())];
    layer.fill_mask(9, &mut mask).expect("a mask of the right length");
    let drawn = mask.clone();
    layer.drop_padding(&batch.lengths, &mut mask).expect("lengths that fit");
    let dropout = Dropout::Mask(&mask);
    let moments = batch.moments(&x);
    let (mut mean, mut mean_tail, mut inv_std) =
        (vec![0.0; batch.channels], vec![0.0; batch.channels], vec![0.0; batch.channels]);
    let saved = SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std };
    layer.finish(Finish { moments: &moments, running: None, saved }).expect("more than one value per channel");
    let saved = Saved { mean: &mean, mean_tail: &mean_tail, inv_std: &inv_std };
    let mut scratch = vec![f64::NAN; layer.scratch_len()];
    let (mut y, mut dx, mut d_residual) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
    layer
        .apply(Apply {
            parameters,
            saved,
            dropout,
            input: &x,
            residual: Some(&residual),
            output: &mut y,
            scratch: &mut scratch,
        })
        .expect("buffers of the right lengths");
    let mut sums = vec![f64::NAN; 2 * batch.channels];
    layer
        .reduce(Reduce {
            parameters,
            statistics: Statistics::Batch(saved),
            dropout,
            input: &x,
            residual: Some(&residual),
            grad_output: &dy,
            sums: &mut sums,
            scratch: &mut scratch,
        })
        .expect("buffers of the right lengths");
    let (mut d_weight, mut d_bias) = (vec![f32::NAN; batch.channels], vec![f32::NAN; batch.channels]);
    layer
        .finish_gradients(&sums, ParameterGradients { weight: Some(&mut d_weight), bias: Some(&mut d_bias) })
        .expect("buffers of the right lengths");
    layer
        .apply_gradient(ApplyGradient {
            parameters,
            saved,
            samples: moments[0],
            sums: &sums,
            dropout,
            input: &x,
            residual: Some(&residual),
            grad_output: &dy,
            grad_input: &mut dx,
            grad_residual: Some(&mut d_residual),
            scratch: &mut scratch,
        })
        .expect("buffers of the right lengths");
    layer.clear_padding(&batch.lengths, &mut dx).expect("lengths that fit");

    let close = |actual: f32, expected: f64, scale: f64, what: &str| {
        let error = (f64::from(actual) - expected).abs();
        assert!(error <= 1e-6 * scale.max(1.0), "{what}: {actual:e} instead of {expected:e}, of {:?}", batch.lengths);
    };
    let scale = f64::from(keep.scale());
    for channel in 0..batch.channels {
        let valid = batch.valid(channel);
        let samples = valid.len() as f64;
        let mean = valid.iter().map(|&i| f64::from(x[i])).sum::<f64>() / samples;
        let var = valid.iter().map(|&i| (f64::from(x[i]) - mean).powi(2)).sum::<f64>() / samples;
        let inv_std = 1.0 / (var + f64::from(layer.config().eps)).sqrt();
        let (w, b) = (f64::from(weight[channel]), f64::from(bias[channel]));
        let of = |i: usize| {
            let xhat = (f64::from(x[i]) - mean) * inv_std;
            let z = xhat * w + b + f64::from(residual[i]);
            let g = if bit(&drawn, i) && z > 0.0 { scale * f64::from(dy[i]) } else { 0.0 };
            (xhat, if bit(&drawn, i) { z.max(0.0) * scale } else { 0.0 }, g)
        };
        let sum_g: f64 = valid.iter().map(|&i| of(i).2).sum();
        let sum_g_xhat: f64 = valid.iter().map(|&i| of(i).2 * of(i).0).sum();
        close(d_bias[channel], sum_g, samples, "d_bias");
        close(d_weight[channel], sum_g_xhat, samples, "d_weight");
        for &i in &valid {
            let (xhat, expected, g) = of(i);
            close(y[i], expected, 4.0 * (w + 1.0), "y");
            close(d_residual[i], g, scale, "d_residual");
            close(dx[i], w * inv_std * (g - sum_g / samples - xhat * sum_g_xhat / samples), 8.0 * w, "dx");
        }
    }
    let padding = padding_of([batch.n, batch.positions, batch.channels], batch.element, &batch.lengths);
    for (i, _) in padding.iter().enumerate().filter(|&(_, &is_padding)| is_padding) {
        assert_eq!([y[i], dx[i], d_residual[i]].map(f32::to_bits), [0; 3], "element {i} of {:?}", batch.lengths);
    }
}

#[test]
fn training_on_padded_sequences_sees_the_valid_places_alone() {
    for (n, positions, channels, lengths) in [
        (3, 7, 2, vec![7, 3, 1]),
        (4, 5, 3, vec![0, 5, 2, 1]),
        (2, 40, 16, vec![40, 23]),
        (5, 33, 19, vec![1, 33, 17, 0, 9]),
        (3, 300, 1, vec![1, 299, 130]),
    ] {
        for (shape, element) in shapes(n, positions, channels) {
            let batch = Batch { n, positions, channels, lengths: lengths.clone(), shape, element };
            for p in [0.0, 0.3] {
                for padding_of_x in [0.0, 1e9, f32::MAX] {
                    for padding_of_others in [0.0, 1e9, f32::NAN, f32::INFINITY] {
                        check_padded_training(&batch, p, padding_of_x, padding_of_others);
                    }
                }
            }
        }
    }
}

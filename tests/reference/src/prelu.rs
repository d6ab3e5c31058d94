//! PReLU: an activation with a slope for each channel, which is learned (He et al., *Delving deep into
//! rectifiers*, 2015).

use crate::double::Double;
use crate::layer::Shape;

/// The slope of an element's channel; there may be one for all channels.
#[must_use]
pub fn slope_of(shape: Shape, slopes: &[f64], element: usize) -> f64 {
    match slopes {
        [one] => *one,
        slopes => slopes[element / shape.inner % shape.channels],
    }
}

/// `act(z) = z > 0 ? z : slope*z`.
#[must_use]
pub fn value(z: f64, slope: f64) -> f64 {
    if z > 0.0 { z } else { slope * z }
}

/// `act'(z)`: the slope at 0, NaN where `z` is NaN.
#[must_use]
pub fn derivative(z: f64, slope: f64) -> f64 {
    if z.is_nan() {
        z
    } else if z > 0.0 {
        1.0
    } else {
        slope
    }
}

/// The gradient of the slopes, and what an error of it is measured in: per channel, or of one slope for
/// all, the sums of `z*dy` and of `|z*dy|` where `z` is not above 0. `z` and `dy` are those of a layer
/// whose dropout comes before PReLU, so that `z` is 0 where an element is dropped.
///
/// ```text
/// d_slope = sum(z > 0 ? 0 : z*dy)
/// ```
#[must_use]
pub fn slope_gradients(shape: Shape, slopes: usize, z: &[f64], dy: &[f64]) -> Vec<[f64; 2]> {
    let of_channel = |channel| {
        let mut sums = [Double::from(0.0); 2];
        for index in shape.indices(channel).filter(|&index| z[index] < 0.0 || z[index].is_nan()) {
            let product = z[index] * dy[index];
            sums = [sums[0] + Double::from(product), sums[1] + Double::from(product.abs())];
        }
        sums
    };
    let channels: Vec<[Double; 2]> = (0..shape.channels).map(of_channel).collect();
    let rounded = |sums: [Double; 2]| sums.map(Double::rounded);
    if slopes == 1 {
        let zeros = [Double::from(0.0); 2];
        let all = channels.into_iter().fold(zeros, |[a, b], [c, d]| [a + c, b + d]);
        return vec![rounded(all)];
    }
    channels.into_iter().map(rounded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    /// The loss `sum(act(z)*dy)` is linear in each slope, so that differences have no error but rounding.
    #[test]
    fn the_gradients_of_the_slopes_are_the_differences_of_the_loss() {
        let shape = Shape { outer: 5, channels: 3, inner: 4 };
        let mut random = SplitMix64::new(1);
        let mut draw = |len: usize| (0..len).map(|_| random.next_normal()).collect::<Vec<f64>>();
        let (z, dy) = (draw(shape.len()), draw(shape.len()));
        for slopes in [draw(3), draw(1)] {
            let loss = |slopes: &[f64]| {
                let terms = z.iter().zip(&dy).enumerate();
                terms.map(|(element, (&z, dy))| value(z, slope_of(shape, slopes, element)) * dy).sum::<f64>()
            };
            let gradients = slope_gradients(shape, slopes.len(), &z, &dy);
            assert_eq!(gradients.len(), slopes.len());
            for (slope, [gradient, scale]) in gradients.into_iter().enumerate() {
                let mut moved = slopes.clone();
                moved[slope] += 1.0;
                let difference = loss(&moved) - loss(&slopes);
                assert!((difference - gradient).abs() < 1e-12 * scale, "{difference} is not {gradient}");
            }
        }
    }

    #[test]
    fn the_derivative_is_that_of_the_value() {
        for (z, slope) in [(2.0, 0.25), (-2.0, 0.25), (-1.0, -3.0), (-1.0, 0.0)] {
            let difference = (value(z + 0.5, slope) - value(z - 0.5, slope)).to_bits();
            assert_eq!(difference, derivative(z, slope).to_bits(), "{z}");
        }
        assert_eq!(derivative(0.0, 0.25).to_bits(), 0.25_f64.to_bits());
        assert!(derivative(f64::NAN, 0.25).is_nan());
    }
}

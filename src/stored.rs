//! Fixed statistics in the forms in which other programs store them.

use crate::config::check_eps;
use crate::error::{Buffer, Error, check_len};
use crate::simd::{in_default, rounded};

/// The form in which a file has the fixed statistics of a batch norm.
///
/// Evaluation and folding take a mean and a variance and compute `1/sqrt(var + eps)`.
/// [`into_running`](Self::into_running) turns the other forms into that one.
///
/// ```
/// use normdrop::Stored;
///
/// // Darknet: a rolling variance of 1e-6, and an eps of 1e-6 outside the root.
/// let (mut mean, mut var) = ([0.5], [1e-6]);
/// let eps = Stored::EpsOutside { eps: 1e-6 }.into_running(&mut mean, &mut var)?;
/// // 1/(0.001 + 0.000001)
/// assert!((1.0 / (var[0] + eps).sqrt() - 999.001).abs() < 1e-3);
///
/// // Caffe: sums, and the factor by which they are divided in the third blob.
/// let (mut mean, mut var) = ([1.5, 3.0], [6.0, 0.0]);
/// let eps = Stored::Sums { factor: 3.0, eps: 1e-5 }.into_running(&mut mean, &mut var)?;
/// assert_eq!((mean, var, eps), ([0.5, 1.0], [2.0, 0.0], 1e-5));
/// # Ok::<(), normdrop::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Stored {
    /// A variance whose root is taken before `eps` is added: `1/(sqrt(var) + eps)`. Darknet (YOLO),
    /// with an `eps` of 1e-6.
    EpsOutside {
        /// Added to the standard deviation.
        eps: f32,
    },
    /// A standard deviation `s`, in the normalisation `1/s`. An `eps` that `s` was made with is in
    /// `s`.
    Deviation,
    /// An inverse standard deviation `r`, by which the centred values are multiplied: the saved
    /// `invstd` of PyTorch and cuDNN.
    InverseDeviation,
    /// Sums of means and variances, which a common factor divides: Caffe's `BatchNorm`, whose
    /// blobs 0, 1 and 2 are mean, variance and factor. With a factor of 0, Caffe takes 0 for both.
    Sums {
        /// The number that mean and variance are divided by.
        factor: f32,
        /// Added to the quotient, under the root: 1e-5 in Caffe unless the layer names another.
        eps: f32,
    },
}

impl Stored {
    /// Overwrites the mean and the stored spread of each channel by the running mean and the
    /// running variance, and returns the `eps` that evaluation and folding need with them.
    ///
    /// `mean` and `spread` have one value per channel. `mean` changes only for [`Stored::Sums`].
    /// ```text
    /// EpsOutside          var = (sqrt(v) + eps)^2        returns 0
    /// Deviation           var = s^2                      returns 0
    /// InverseDeviation    var = 1/r^2                    returns 0
    /// Sums                mean/factor, v/factor          returns eps
    /// ```
    /// The arithmetic is f64 and each result is rounded once, so that a standard deviation has an
    /// error of at most `2^-25`. A NaN stays NaN.
    ///
    /// # Errors
    /// - [`Error::Length`] if `spread` is not as long as `mean`.
    /// - [`Error::Eps`] if `eps` is negative or not finite.
    /// - [`Error::Variance`] with the stored value, if a variance of `EpsOutside`, a standard
    ///   deviation or an inverse one is negative, or if there is nothing to divide by: a standard
    ///   deviation of 0, or a variance and an `eps` of 0. An inverse standard deviation of 0 becomes
    ///   an infinite variance, whose channel is the constant `bias`. The variances of `Sums` are
    ///   checked by the call that they are given to.
    /// - [`Error::NotFinite`] if the factor is not finite, and if a variance would not fit an f32
    ///   or would be 0 by rounding (a standard deviation below 1e-22 or above 1e19).
    ///
    /// Nothing was written then.
    pub fn into_running(self, mean: &mut [f32], spread: &mut [f32]) -> Result<f32, Error> {
        in_default(|| self.write(mean, spread))
    }

    /// [`into_running`](Self::into_running), in the default floating-point environment.
    fn write(self, mean: &mut [f32], spread: &mut [f32]) -> Result<f32, Error> {
        check_len(Buffer::RunningVar, mean.len(), spread.len())?;
        let returned = match self {
            Self::EpsOutside { eps } => {
                check_eps(eps)?;
                0.0
            }
            Self::Deviation | Self::InverseDeviation => 0.0,
            Self::Sums { factor, eps } => {
                check_eps(eps)?;
                if !factor.is_finite() {
                    return Err(Error::NotFinite { buffer: Buffer::RunningVar, index: 0 });
                }
                eps
            }
        };
        for (channel, (&mean, &spread)) in mean.iter().zip(&*spread).enumerate() {
            self.check(channel, mean, spread)?;
        }
        for (mean, spread) in mean.iter_mut().zip(spread) {
            (*mean, *spread) = (self.mean(*mean), self.var(*spread));
        }
        Ok(returned)
    }

    /// Checks the numbers of one channel.
    fn check(self, channel: usize, mean: f32, spread: f32) -> Result<(), Error> {
        let (new_mean, var) = (self.mean(mean), self.var(spread));
        let allowed = match self {
            Self::Deviation => spread > 0.0,
            Self::InverseDeviation => spread >= 0.0,
            Self::EpsOutside { eps } => spread > 0.0 || spread == 0.0 && eps > 0.0,
            Self::Sums { .. } => true,
        };
        if !allowed && !spread.is_nan() {
            return Err(Error::Variance { channel, var: spread });
        }
        let lost = var == 0.0 && spread.is_finite() && !matches!(self, Self::Sums { .. });
        let constant = spread == 0.0 && self == Self::InverseDeviation;
        if lost || var.is_infinite() && spread.is_finite() && !constant {
            return Err(Error::NotFinite { buffer: Buffer::RunningVar, index: channel });
        }
        if new_mean.is_infinite() && mean.is_finite() {
            return Err(Error::NotFinite { buffer: Buffer::RunningMean, index: channel });
        }
        Ok(())
    }

    fn mean(self, mean: f32) -> f32 {
        match self {
            Self::Sums { factor, .. } => quotient(mean, factor),
            _ => mean,
        }
    }

    fn var(self, spread: f32) -> f32 {
        let wide = f64::from(spread);
        match self {
            Self::EpsOutside { eps } => {
                let deviation = libm::sqrt(wide) + f64::from(eps);
                rounded(deviation * deviation)
            }
            Self::Deviation => rounded(wide * wide),
            Self::InverseDeviation => rounded(1.0 / (wide * wide)),
            Self::Sums { factor, .. } => quotient(spread, factor),
        }
    }
}

/// A sum divided by Caffe's factor.
fn quotient(sum: f32, factor: f32) -> f32 {
    if factor == 0.0 { 0.0 } else { rounded(f64::from(sum) / f64::from(factor)) }
}

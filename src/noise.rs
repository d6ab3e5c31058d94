//! Noise by which a tensor is multiplied, in the place of dropout. Each factor is a pure function of
//! `(seed, law, index)`.

use crate::error::Error;
use crate::mask::{BLOCK, Bernoulli};
use crate::pass::noise::{Factor, Gaussian, Multiply, Uniform};
use crate::simd::{in_default, splitmix64};
use crate::tasks::Tasks;

/// The largest standard deviation and half width, with which every factor is finite.
const LARGEST: f32 = 18_446_744_073_709_551_616.0;

/// Multiplicative noise, in the place of dropout: every element is multiplied by a random factor
/// with the mean 1, and nothing is dropped.
///
/// | law | factor | constructor | where it is from |
/// |---|---|---|---|
/// | Gaussian | `1 + sigma*n`, `n` normal | [`Noise::gaussian`], [`Noise::gaussian_dropout`] | Srivastava et al., *Dropout*, 2014, section 10; `GaussianDropout` in Keras |
/// | uniform | `1 + half_width*u`, `u` uniform in (-1, 1) | [`Noise::uniform`] | `Uout` in Li et al., *Understanding the disharmony between dropout and batch normalization by variance shift*, arXiv 1801.05134 |
///
/// It is a pass of its own over a tensor: the last one of a forward call, after
/// [`Layer::train`](crate::Layer::train) without dropout, and the first one of a backward call. The
/// derivative of `x*factor` is `factor`, so that both are the same call with the same seed. Evaluation
/// has no noise.
///
/// ```
/// use normdrop::{Config, Dropout, Layer, Noise, Relu, SavedArrays, Shape, Train};
/// const NOISE: Noise = match Noise::uniform(0.1) {
///     Ok(noise) => noise,
///     Err(error) => error.panic(),
/// };
///
/// let layer = Layer::new(Shape::nc(4, 3)?, Relu, Config::DEFAULT)?;
/// let (x, mut y) = ([0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11.], [0.0; 12]);
/// let (mut saved, mut scratch) = (SavedArrays::<3>::new(), vec![0.0; layer.scratch_len()]);
/// layer.train(Train { dropout: Dropout::Off, ..Train::new(&x, &mut y, saved.as_mut(), &mut scratch) })?;
/// layer.apply_noise(NOISE, 42, &mut y)?;
///
/// let mut dy = [1.0; 12]; // the gradient of the loss sum(y)
/// layer.apply_noise(NOISE, 42, &mut dy)?; // and now `layer.backward` takes it, again with `Dropout::Off`
///
/// // Any part can be made alone, in any order, by any thread, on any target.
/// let mut part = [1.0; 5];
/// NOISE.apply(42, 4, &mut part);
/// assert_eq!(part, dy[4..9]);
/// # Ok::<(), normdrop::Error>(())
/// ```
///
/// # The random numbers
/// They come from sixteen xoshiro128++ generators side by side (Blackman and Vigna, *Scrambled linear
/// pseudorandom number generators*, 2021), seeded as the generators of [`Bernoulli`], with another key, so
/// that a mask and noise of the same seed have nothing in common. Element `i` belongs to block
/// `b = i / 4096` and has word number `i % 4096 / 16` of the generator of lane `l = i % 16`, which is
/// `Xoshiro128PlusPlus::seed_from_u64(key + (16*b + l) * 2 * 0x9E3779B97F4A7C15)` where `key` is the
/// second output of `SplitMix64(seed)`, all modulo 2^64. The low 23 bits of the word are `m`, its top
/// bit is the sign of `u = ±(2m + 1)*2^-24`, without rounding.
///
/// # The law of the factors
/// | | values | mean | variance | largest absolute value |
/// |---|---|---|---|---|
/// | `u` | `2^24`, each as likely as any other | 0 | `(1 - 2^-48)/3` | `1 - 2^-24` |
/// | `n` | one for each `u`: `sqrt(2)*erfinv(u)`, the quantile of `(1 + u)/2`, within `3e-7*|n|` of it | 0 | `1 - 6.6e-8` | 5.42 |
///
/// Means and variances are taken over all possible values; both laws are symmetric. The tails
/// of the normal distribution end at 5.42: one of 17 million of its variates is further out. A factor
/// is `1 + half_width*u` or `1 + sigma*n`, with the product and the sum rounded to f32.
///
/// `n` is made by the polynomials of Giles, *Approximating the erfinv function* (GPU Computing Gems
/// Jade Edition, 2011), with a logarithm of this crate's: additions, multiplications, a division and a
/// square root alone, so that the bits are the same on every target.
///
/// # Special values
/// A finite value stays finite unless its product with the factor does not fit an f32: factors are
/// finite. NaN stays NaN. An infinite value stays infinite, with the sign of the product, and becomes
/// NaN where the factor is 0, which needs a `half_width` above 1 or a `sigma` above 0.18. A width of 0
/// leaves every bit as it was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    law: Law,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Law {
    Gaussian {
        sigma: f32,
    },
    /// Gaussian, with the standard deviation of dropout.
    Dropout(Bernoulli),
    Uniform {
        half_width: f32,
    },
}

impl Noise {
    /// Gaussian noise: the factor `1 + sigma*n`, where `n` has the standard deviation 1.
    ///
    /// # Errors
    /// [`Error::NoiseWidth`] if `sigma` is not in `[0, 2^64]`.
    pub const fn gaussian(sigma: f32) -> Result<Self, Error> {
        match check_width(sigma) {
            Ok(()) => Ok(Self { law: Law::Gaussian { sigma } }),
            Err(error) => Err(error),
        }
    }

    /// Gaussian noise with the variance that dropout with the probability `p` gives:
    /// `sigma = sqrt(p/(1 - p))`, as `GaussianDropout(p)` of Keras.
    ///
    /// `1 - p` is the keep probability of [`Bernoulli::new`], a multiple of `2^-32`, and `sigma` is
    /// rounded to f32.
    ///
    /// # Errors
    /// [`Error::Probability`] if `p` is not in `[0, 1]`, and [`Error::NoiseWidth`] if `p` rounds to 1,
    /// for which `sigma` would be infinite.
    pub const fn gaussian_dropout(p: f64) -> Result<Self, Error> {
        match Bernoulli::new(p) {
            Ok(keep) if keep.threshold() == 0 => Err(Error::NoiseWidth { width: f32::INFINITY }),
            Ok(keep) => Ok(Self { law: Law::Dropout(keep) }),
            Err(error) => Err(error),
        }
    }

    /// Uniform noise, `Uout`: the factor `1 + half_width*u`, where `u` is uniform in (-1, 1).
    ///
    /// The paper's `beta` is `half_width`; it uses 0.1. A `half_width` of `sqrt(3*p/(1 - p))` has the
    /// variance that dropout with the probability `p` has.
    ///
    /// # Errors
    /// [`Error::NoiseWidth`] if `half_width` is not in `[0, 2^64]`.
    pub const fn uniform(half_width: f32) -> Result<Self, Error> {
        match check_width(half_width) {
            Ok(()) => Ok(Self { law: Law::Uniform { half_width } }),
            Err(error) => Err(error),
        }
    }

    /// Multiplies `values` by their factors, in place: element `first + k` of the noise is the factor
    /// of `values[k]`. Forward on `y` and backward on `dy`, with the same seed.
    ///
    /// Values of 1 become the factors themselves. [`Layer::apply_noise`](crate::Layer::apply_noise)
    /// does the same for a whole tensor, in the layer's tasks. Each step and layer needs a seed of its
    /// own: [`seed_for`](crate::seed_for).
    pub fn apply(self, seed: u64, first: u64, values: &mut [f32]) {
        in_default(|| self.apply_on(Tasks { backend: None, count: 1 }, seed, first, values));
    }

    /// [`Noise::apply`] in tasks, in the default floating-point environment.
    pub(crate) fn apply_on(self, tasks: Tasks, seed: u64, first: u64, values: &mut [f32]) {
        let key = splitmix64(seed, 2);
        match self.law {
            Law::Uniform { half_width: 0.0 } | Law::Gaussian { sigma: 0.0 } => {}
            Law::Uniform { half_width } => multiply(tasks, Uniform { half_width }, key, first, values),
            Law::Gaussian { sigma } => multiply(tasks, Gaussian::with_deviation(sigma), key, first, values),
            Law::Dropout(keep) => match deviation(keep) {
                0.0 => {}
                sigma => multiply(tasks, Gaussian::with_deviation(sigma), key, first, values),
            },
        }
    }
}

/// The standard deviation of a factor that is 0 where an element is dropped and 1 divided by the keep
/// probability elsewhere.
#[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
fn deviation(keep: Bernoulli) -> f32 {
    const ONE: u64 = 1 << 32;
    libm::sqrt((ONE - keep.threshold()) as f64 / keep.threshold() as f64) as f32
}

impl Gaussian {
    #[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
    fn with_deviation(sigma: f32) -> Self {
        Self { scale: (f64::from(sigma) * core::f64::consts::SQRT_2) as f32 }
    }
}

/// Multiplies values in tasks, each of whole blocks of the generators.
fn multiply<F: Factor + Sync + Send>(tasks: Tasks, factor: F, key: u64, first: u64, values: &mut [f32]) {
    let step = match tasks.for_elements(values.len()) {
        1 => values.len(),
        tasks => values.len().div_ceil(tasks).next_multiple_of(BLOCK),
    };
    let pieces = values.chunks_mut(step.max(1)).enumerate();
    tasks.each(pieces, |(number, values)| {
        let first = first.wrapping_add((number * step) as u64);
        tasks.run(Multiply { factor, key, first, values });
    });
}

/// Checks a standard deviation or a half width.
const fn check_width(width: f32) -> Result<(), Error> {
    // By its bits, whose order is that of positive numbers: a comparison of floats would depend on
    // the caller's floating-point environment.
    const MOST: u32 = LARGEST.to_bits();
    const NEGATIVE_ZERO: u32 = (-0.0_f32).to_bits();
    match width.to_bits() {
        0..=MOST | NEGATIVE_ZERO => Ok(()),
        _ => Err(Error::NoiseWidth { width }),
    }
}

//! The scalar arithmetic of one channel, in f64: moments, what is normalised with them, what is kept of them.

use crate::config::RunningVariance;
use crate::simd::Simd;

/// The count, mean and sum of squared deviations of some values of one channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Moments {
    /// The number of values.
    pub(crate) count: f64,
    /// Their mean.
    pub(crate) mean: f64,
    /// The sum of their squared deviations from the mean.
    pub(crate) m2: f64,
}

impl Moments {
    /// The moments of no values.
    pub(crate) const EMPTY: Self = Self { count: 0.0, mean: 0.0, m2: 0.0 };

    /// The moments of both sets of values together (Chan, Golub and LeVeque, *Updating formulae and a pairwise
    /// algorithm for computing sample variances*, 1979). `other` is not empty.
    #[inline(always)]
    pub(crate) fn merge(&mut self, other: Self) {
        let weights = MergeWeights::new(self.count, other.count);
        let delta = other.mean - self.mean;
        self.count = weights.count;
        self.mean += delta * weights.mean;
        self.m2 += other.m2 + delta * delta * weights.m2;
    }

    /// The biased variance: the sum of squared deviations over the count. Rounding may leave a sum a little below
    /// zero; NaN stays.
    #[inline(always)]
    fn squares(self) -> f64 {
        if self.m2 < 0.0 { 0.0 } else { self.m2 }
    }
}

/// The factors of a merge, which depend on the counts alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MergeWeights {
    /// The joint count.
    pub(crate) count: f64,
    /// What the difference of the means is multiplied by.
    pub(crate) mean: f64,
    /// What the squared difference of the means is multiplied by.
    pub(crate) m2: f64,
}

impl MergeWeights {
    #[inline(always)]
    pub(crate) fn new(count: f64, other: f64) -> Self {
        let total = count + other;
        let mean = other / total;
        Self { count: total, mean, m2: count * mean }
    }
}

/// What a channel is centred and scaled with: batch or running statistics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Centre {
    /// The mean, rounded to f32.
    pub(crate) mean: f32,
    /// The mean minus `mean`.
    pub(crate) tail: f32,
    /// `1/sqrt(var + eps)`.
    pub(crate) inv_std: f64,
}

impl Centre {
    /// The centre of a channel that does not exist.
    pub(crate) const NONE: Self = Self { mean: 0.0, tail: 0.0, inv_std: 0.0 };

    /// The centre of a batch, whose moments are not empty.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "split into two f32, each rounded to nearest")]
    pub(crate) fn of_batch<S: Simd>(s: S, moments: Moments, eps: f32) -> Self {
        let mean = moments.mean as f32;
        let tail = (moments.mean - f64::from(mean)) as f32;
        Self { mean, tail, inv_std: inv_std(s, moments.squares() / moments.count, eps) }
    }

    /// The tail in standard deviations. Without a tail there is nothing to make good, not even where `inv_std` is
    /// infinite because eps and the variance are 0.
    #[inline(always)]
    fn tail_xhat(self) -> f64 {
        if self.tail == 0.0 { 0.0 } else { f64::from(self.tail) * self.inv_std }
    }

    /// The power of two next below `inv_std`: deviations times this are about 1, and exact.
    #[inline(always)]
    pub(crate) fn unit(self) -> f64 {
        const EXPONENT: u64 = 0x7FF << 52;
        if self.inv_std.is_normal() { f64::from_bits(self.inv_std.to_bits() & EXPONENT) } else { 1.0 }
    }

    /// The centre of fixed statistics.
    #[inline(always)]
    pub(crate) fn fixed<S: Simd>(s: S, mean: f32, var: f32, eps: f32) -> Self {
        Self { mean, tail: 0.0, inv_std: inv_std(s, f64::from(var), eps) }
    }
}

#[inline(always)]
fn inv_std<S: Simd>(s: S, var: f64, eps: f32) -> f64 {
    1.0 / s.sqrt(var + f64::from(eps))
}

/// How a call moves the running statistics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunningUpdate {
    /// The weight of the batch.
    pub(crate) momentum: f64,
    pub(crate) variance: RunningVariance,
}

impl RunningUpdate {
    /// Moves the running statistics of one channel towards a batch whose moments hold more than one value.
    #[inline(always)]
    pub(crate) fn apply(self, mean: &mut f32, var: &mut f32, batch: Moments) {
        let divisor = match self.variance {
            RunningVariance::Unbiased => batch.count - 1.0,
            RunningVariance::Biased => batch.count,
        };
        average(mean, batch.mean, self.momentum);
        average(var, batch.squares() / divisor, self.momentum);
    }
}

/// `(1 - momentum)*running + momentum*batch`, where a side of weight 0 does not count even if it is NaN.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, clippy::float_cmp, reason = "rounded once; 0 and 1 are exact cases")]
fn average(running: &mut f32, batch: f64, momentum: f64) {
    if momentum == 1.0 {
        *running = batch as f32;
    } else if momentum != 0.0 {
        *running = ((1.0 - momentum) * f64::from(*running) + momentum * batch) as f32;
    }
}

/// Whether a coefficient can be rounded to f32 and multiplied there without leaving the normal numbers. 2^±100
/// leaves room for the largest deviations, and NaN and infinities give the same result either way.
#[inline(always)]
fn is_ordinary(coefficient: f64) -> bool {
    let magnitude = coefficient.abs();
    magnitude == 0.0 || !(magnitude < SMALL || (LARGE..f64::INFINITY).contains(&magnitude))
}

/// 2^-100.
const SMALL: f64 = 1.0 / LARGE;
/// 2^100.
const LARGE: f64 = (1u128 << 100) as f64;

/// The normalisation of one channel: `z = (x - mean)*slope + shift`, for either kind of statistics.
///
/// Never `x*slope + shift`: with a large mean the two terms cancel. The rounding of the mean is made good in the
/// shift, which costs nothing per element.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Normalise {
    /// The mean, rounded to f32.
    pub(crate) mean: f32,
    /// `weight*inv_std*scale`.
    pub(crate) slope: f64,
    /// `(bias - tail*weight*inv_std)*scale`.
    pub(crate) shift: f64,
    /// Whether the channel has magnitudes that f32 arithmetic would lose and must be normalised in f64.
    pub(crate) exact: bool,
}

impl Normalise {
    #[inline(always)]
    pub(crate) fn new(centre: Centre, weight: f32, bias: f32, scale: f32) -> Self {
        let slope = f64::from(weight) * centre.inv_std;
        let shift = f64::from(bias) - f64::from(weight) * centre.tail_xhat();
        let (slope, shift) = (slope * f64::from(scale), shift * f64::from(scale));
        let mean = f64::from(centre.mean);
        let exact = !(is_ordinary(slope) && is_ordinary(centre.inv_std) && is_small(mean) && is_small(shift));
        Self { mean: centre.mean, slope, shift, exact }
    }

    /// The coefficients as the fields of a table: mean, slope, shift, and 1 if the channel needs f64.
    #[inline(always)]
    pub(crate) fn fields(&self) -> [f64; 4] {
        [f64::from(self.mean), self.slope, self.shift, f64::from(u8::from(self.exact))]
    }

    /// `z` of one element, in f64.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "rounded once")]
    pub(crate) fn exactly(&self, x: f32, residual: f32) -> f32 {
        ((f64::from(x) - f64::from(self.mean)) * self.slope + self.shift + f64::from(residual)) as f32
    }
}

/// Whether a number is not too large for sums in f32; NaN and infinities are not helped by f64.
#[inline(always)]
fn is_small(number: f64) -> bool {
    !(LARGE..f64::INFINITY).contains(&number.abs())
}

/// The sums over one channel that every gradient is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct GradientSums {
    /// The sum of `g`, without the dropout scale.
    pub(crate) g: f64,
    /// The sum of `g*(x - mean)*unit`, without the dropout scale, with the mean rounded to f32.
    pub(crate) g_deviation: f64,
}

impl GradientSums {
    /// The sums over nothing.
    pub(crate) const ZERO: Self = Self { g: 0.0, g_deviation: 0.0 };

    #[inline(always)]
    pub(crate) fn add(&mut self, other: Self) {
        self.g += other.g;
        self.g_deviation += other.g_deviation;
    }

    /// Adds one element.
    #[inline(always)]
    pub(crate) fn add_exactly(&mut self, x: f32, mean: f32, unit: f64, g: f32) {
        self.g += f64::from(g);
        self.g_deviation += f64::from(g) * ((f64::from(x) - f64::from(mean)) * unit);
    }

    #[inline(always)]
    pub(crate) fn are_finite(self) -> bool {
        self.g.is_finite() && self.g_deviation.is_finite()
    }

    /// The sum of `g*xhat`: the rounding of the mean is made good here.
    #[inline(always)]
    fn g_xhat(self, centre: Centre) -> f64 {
        self.g_deviation * (centre.inv_std / centre.unit()) - centre.tail_xhat() * self.g
    }

    /// The sums that gradients are made of.
    #[inline(always)]
    pub(crate) fn finish(self, centre: Centre, scale: f32) -> ChannelSums {
        let scale = f64::from(scale);
        ChannelSums { g: self.g * scale, g_xhat: self.g_xhat(centre) * scale }
    }
}

/// What every gradient of one channel is made of; `g` has the dropout scale here.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ChannelSums {
    /// The sum of `g`.
    pub(crate) g: f64,
    /// The sum of `g*xhat`.
    pub(crate) g_xhat: f64,
}

impl ChannelSums {
    /// The gradient of the bias.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "rounded once")]
    pub(crate) fn bias(self) -> f32 {
        self.g as f32
    }

    /// The gradient of the weight.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "rounded once")]
    pub(crate) fn weight(self) -> f32 {
        self.g_xhat as f32
    }
}

/// The input gradient of one channel: `dx = g*slope + ((x - mean)*tilt + offset)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Differentiate {
    /// `weight*inv_std*scale`.
    pub(crate) slope: f64,
    /// `-weight*inv_std^2*sum(g*xhat)/samples`, 0 with fixed statistics.
    pub(crate) tilt: f64,
    /// `-weight*inv_std*(sum(g) - tail*inv_std*sum(g*xhat))/samples`, 0 with fixed statistics.
    pub(crate) offset: f64,
    /// Whether the channel has magnitudes that f32 arithmetic would lose.
    pub(crate) exact: bool,
}

impl Differentiate {
    /// Through batch statistics of `samples` values.
    #[inline(always)]
    pub(crate) fn batch(centre: Centre, weight: f32, scale: f32, sums: ChannelSums, samples: f64) -> Self {
        let unscaled = f64::from(weight) * centre.inv_std;
        let slope = unscaled * f64::from(scale);
        let mean_g = sums.g / samples;
        let mean_g_xhat = sums.g_xhat / samples;
        let tilt = -unscaled * centre.inv_std * mean_g_xhat;
        let offset = -unscaled * (mean_g - centre.tail_xhat() * mean_g_xhat);
        // No deviation exceeds sqrt(samples) standard deviations, so this bounds every (x - mean)*tilt.
        let largest = unscaled * mean_g_xhat * samples;
        let exact = !(is_ordinary(slope) && is_ordinary(tilt) && is_small(offset) && is_small(largest));
        Self { slope, tilt, offset, exact: exact || !is_small(f64::from(centre.mean)) }
    }

    /// Past fixed statistics.
    #[inline(always)]
    pub(crate) fn fixed(centre: Centre, weight: f32, scale: f32) -> Self {
        let slope = f64::from(weight) * centre.inv_std * f64::from(scale);
        Self { slope, tilt: 0.0, offset: 0.0, exact: !is_ordinary(slope) }
    }

    /// The gradient of the residual in place of the input's: `g*scale`.
    #[inline(always)]
    pub(crate) fn residual(scale: f32) -> Self {
        Self { slope: f64::from(scale), tilt: 0.0, offset: 0.0, exact: false }
    }

    /// The coefficients as the fields of a table: slope, tilt, offset, and 1 if the channel needs f64.
    #[inline(always)]
    pub(crate) fn fields(&self) -> [f64; 4] {
        [self.slope, self.tilt, self.offset, f64::from(u8::from(self.exact))]
    }

    /// `dx` of one element, in f64.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "rounded once")]
    pub(crate) fn exactly<const BATCH: bool>(&self, mean: f32, x: f32, g: f32) -> f32 {
        let dx = f64::from(g) * self.slope;
        if BATCH { (dx + ((f64::from(x) - f64::from(mean)) * self.tilt + self.offset)) as f32 } else { dx as f32 }
    }
}

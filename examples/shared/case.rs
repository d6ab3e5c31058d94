//! A call with random data, and how far a layer may be from the exact results, which a framework computes in f64.
//!
//! The bounds are those that the crate promises, in units `u = 2^-24` of the magnitudes that a result is made of:
//! ```text
//! y         4 u of scale*(|weight|*max(|xhat|, 1) + |bias|)
//! d_bias    3 u of sum(|g|)
//! d_weight  5 u of sum(|g|*max(|xhat|, 1))
//! dx        5 u of |weight|*inv_std*(|g| + (sum(|g|) + max(|xhat|, 1)*sum(|g|*max(|xhat|, 1)))/samples)
//! running   8 u of what is added up
//! ```

use normdrop_reference::random::SplitMix64;

const U: f64 = 1.0 / (1 << 24) as f64;
/// The constant of the layer as it is, not rounded from the decimal in f64.
pub const EPS: f32 = 1e-5;

/// The arguments of one call.
#[derive(Debug, Clone)]
pub struct Case {
    pub dims: Vec<usize>,
    pub x: Vec<f32>,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub grad_output: Vec<f32>,
    pub running_mean: Vec<f32>,
    pub running_var: Vec<f32>,
}

/// What comes of a call, as a layer under test has it (f32) or exactly (f64).
#[derive(Debug, Clone, PartialEq)]
pub struct Results<T> {
    pub y: Vec<T>,
    pub dx: Vec<T>,
    pub d_weight: Vec<T>,
    pub d_bias: Vec<T>,
    pub running_mean: Vec<T>,
    pub running_var: Vec<T>,
}

/// Dropout with a given mask: what every element is multiplied by.
pub type Factors = Vec<f32>;

impl Case {
    /// Random data of a random shape, `[N, C]` or `[N, C, H, W]`, with sizes that are no multiples of anything.
    pub fn random(dimensions: usize, seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed);
        let largest: &[usize] = if dimensions == 2 { &[90, 40] } else { &[7, 9, 13, 17] };
        let dims: Vec<usize> = largest.iter().map(|&largest| 1 + rng.next_below(largest)).collect();
        // One value per channel is an error, and has a test of its own.
        let dims = if dims.iter().product::<usize>() == dims[1] { [&[2], &dims[1..]].concat() } else { dims };
        Self::of(&dims, seed)
    }

    /// Random data of a given shape.
    #[expect(clippy::cast_possible_truncation, reason = "data for f32")]
    pub fn of(dims: &[usize], seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed ^ 0x5EED);
        let channels = dims[1];
        let mut normal = |count: usize, mean: f64, std: f64| -> Vec<f32> {
            (0..count).map(|_| (mean + std * rng.next_normal()) as f32).collect()
        };
        let (means, stds) = (normal(channels, 0.0, 10.0), normal(channels, 0.0, 2.0));
        let len = dims.iter().product();
        let mut case = Self {
            dims: dims.to_vec(),
            x: normal(len, 0.0, 1.0),
            weight: normal(channels, 0.5, 1.0),
            bias: normal(channels, 0.0, 1.0),
            grad_output: normal(len, 0.0, 1.0),
            running_mean: normal(channels, 0.0, 1.0),
            running_var: normal(channels, 0.0, 1.0).into_iter().map(|value| value * value + 0.1).collect(),
        };
        for index in 0..len {
            let channel = case.channel(index);
            case.x[index] = means[channel] + case.x[index] * stds[channel];
        }
        case
    }

    pub fn channels(&self) -> usize {
        self.dims[1]
    }

    /// The values per channel.
    pub fn samples(&self) -> usize {
        self.x.len() / self.channels()
    }

    fn channel(&self, index: usize) -> usize {
        index / self.dims[2..].iter().product::<usize>() % self.channels()
    }

    /// The sums over each channel.
    fn sums(&self, value: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut sums = vec![0.0; self.channels()];
        (0..self.x.len()).for_each(|index| sums[self.channel(index)] += value(index));
        sums
    }

    /// Fails unless all results are within the bounds.
    pub fn check(&self, train: bool, momentum: f64, factors: &Factors, ours: &Results<f32>, exact: &Results<f64>) {
        let count = self.samples() as f64;
        let (mean, var) = if train {
            let mean: Vec<f64> = self.sums(|i| f64::from(self.x[i])).iter().map(|sum| sum / count).collect();
            let var = self.sums(|i| (f64::from(self.x[i]) - mean[self.channel(i)]).powi(2));
            (mean, var.iter().map(|sum| sum / count).collect())
        } else {
            (widened(&self.running_mean), widened(&self.running_var))
        };
        let inv_std: Vec<f64> = var.iter().map(|var: &f64| 1.0 / (var + f64::from(EPS)).sqrt()).collect();
        let of = |values: &[f32], i: usize| f64::from(values[self.channel(i)]).abs();
        let xhat = |i: usize| {
            let channel = self.channel(i);
            ((f64::from(self.x[i]) - mean[channel]) * inv_std[channel]).abs().max(1.0)
        };
        // ReLU lets the gradient through where there is an output.
        let g = |i: usize| {
            if exact.y[i] > 0.0 { f64::from(self.grad_output[i] * factors[i]).abs() } else { 0.0 }
        };
        let (sum_g, sum_gx) = (self.sums(g), self.sums(|i| g(i) * xhat(i)));
        let dx_scale = |i: usize| {
            let channel = self.channel(i);
            let through_batch = if train { (sum_g[channel] + xhat(i) * sum_gx[channel]) / count } else { 0.0 };
            of(&self.weight, i) * inv_std[channel] * (g(i) + through_batch)
        };
        let y_scale = |i: usize| f64::from(factors[i]) * (of(&self.weight, i) * xhat(i) + of(&self.bias, i));
        close("y", 4.0, &ours.y, &exact.y, y_scale);
        close("dx", 5.0, &ours.dx, &exact.dx, dx_scale);
        close("d_weight", 5.0, &ours.d_weight, &exact.d_weight, |channel| sum_gx[channel]);
        close("d_bias", 3.0, &ours.d_bias, &exact.d_bias, |channel| sum_g[channel]);
        let momentum = if train { momentum } else { 0.0 };
        let mix = |old: f32, new: f64| (1.0 - momentum) * f64::from(old).abs() + momentum * new;
        close("running mean", 8.0, &ours.running_mean, &exact.running_mean, |channel| {
            mix(self.running_mean[channel], mean[channel].abs().max(var[channel].sqrt()))
        });
        let bessel = count / (count - 1.0).max(1.0);
        close("running var", 8.0, &ours.running_var, &exact.running_var, |channel| {
            mix(self.running_var[channel], bessel * var[channel])
        });
    }
}

/// Fails unless every value is within so many units of its scale.
fn close(name: &str, bound: f64, ours: &[f32], exact: &[f64], scale: impl Fn(usize) -> f64) {
    assert_eq!(ours.len(), exact.len(), "{name}");
    for (index, (&ours, &exact)) in ours.iter().zip(exact).enumerate() {
        let (error, bound) = ((f64::from(ours) - exact).abs(), bound * U * scale(index));
        assert!(error <= bound, "{name}[{index}] is {ours}, exactly {exact}: off by {error:e}, allowed are {bound:e}");
    }
}

/// The same numbers in f64.
pub fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// What a mask of one bit per element multiplies every element by.
pub fn factors(mask: &[u8], scale: f32, len: usize) -> Factors {
    (0..len).map(|index| if mask[index / 8] >> (index % 8) & 1 == 1 { scale } else { 0.0 }).collect()
}

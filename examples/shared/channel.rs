//! The data of one channel, and what batch norm makes of it exactly: for what the READMEs say of the frameworks' own layers.

use normdrop_reference::random::SplitMix64;

/// Normally distributed values with a standard deviation of 1.
#[expect(clippy::cast_possible_truncation, reason = "data for f32")]
pub(crate) fn normal(count: usize, mean: f64) -> Vec<f32> {
    let mut rng = SplitMix64::new(1);
    (0..count).map(|_| (mean + rng.next_normal()) as f32).collect()
}

/// The exact `xhat` of one channel.
pub(crate) fn normalised(x: &[f32]) -> Vec<f64> {
    let count = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let var = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
    x.iter().map(|&x| (f64::from(x) - mean) / (var + 1e-5).sqrt()).collect()
}

//! Noise in the place of dropout, and alpha dropout, as their contracts state them, one element at a time.
//!
//! A factor of noise is a pure function of the seed, the law and the index of its element. The functions in f32 give
//! the bits of the contract; the functions in f64 are the exact ones that they are compared with.

use crate::activation::{normal, normal_density};
use crate::random::{SplitMix64, Xoshiro128PlusPlus};

/// The generators side by side.
const LANES: u128 = 16;
/// The elements that one seeding lasts for.
const BLOCK: u128 = 4096;

/// The law of a factor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Law {
    /// `1 + sigma*n`, where `n` is normal.
    Gaussian {
        /// The standard deviation.
        sigma: f32,
    },
    /// `1 + half_width*u`, where `u` is uniform in (-1, 1).
    Uniform {
        /// Half of the width.
        half_width: f32,
    },
}

/// The random words of the elements from `first` on.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "modulo 2^64, and lanes and places in blocks")]
pub fn words(seed: u64, first: u128, elements: usize) -> Vec<u32> {
    let mut keys = SplitMix64::new(seed);
    keys.next_u64();
    let key = keys.next_u64();
    let end = first + elements as u128;
    let mut words = Vec::with_capacity(elements);
    for block in first / BLOCK..end.div_ceil(BLOCK) {
        let mut generators: Vec<_> = (0..LANES)
            .map(|lane| {
                let step = SplitMix64::GOLDEN_GAMMA.wrapping_mul(2);
                let stream = (LANES * block + lane) as u64;
                Xoshiro128PlusPlus::seed_from_u64(key.wrapping_add(stream.wrapping_mul(step)))
            })
            .collect();
        for element in block * BLOCK..(block + 1) * BLOCK {
            let word = generators[(element % LANES) as usize].next_u32();
            if (first..end).contains(&element) {
                words.push(word);
            }
        }
    }
    words
}

/// `u = ±(2m + 1)*2^-24`: `m` is the low 23 bits of the word, and its top bit the sign.
#[must_use]
pub fn uniform(word: u32) -> f32 {
    let magnitude = (2 * (word & 0x7F_FFFF) + 1) as f32 / (1 << 24) as f32;
    if word >> 31 == 1 { -magnitude } else { magnitude }
}

/// `erfinv(u)` in the f32 arithmetic of the contract (Giles, *Approximating the erfinv function*, 2011).
#[must_use]
pub fn erfinv(u: f32) -> f32 {
    let w = minus_ln((1.0 - u) * (1.0 + u));
    let (x, coefficients) = if w < 5.0 {
        let near = [
            2.810_226_4e-8,
            3.432_739_4e-7,
            -3.523_387_7e-6,
            -4.391_506_5e-6,
            2.185_808_7e-4,
            -1.253_725e-3,
            -4.177_681_6e-3,
            2.466_407_3e-1,
            1.501_409_4e0,
        ];
        (w - 2.5, near)
    } else {
        let far = [
            -2.002_142_6e-4,
            1.009_505_6e-4,
            1.349_343_2e-3,
            -3.673_428_4e-3,
            5.739_507_7e-3,
            -7.622_461_3e-3,
            9.438_870_5e-3,
            1.001_674e0,
            2.832_976_8e0,
        ];
        (w.sqrt() - 3.0, far)
    };
    coefficients.into_iter().reduce(|sum, coefficient| sum * x + coefficient).unwrap_or(0.0) * u
}

/// `-ln(y)` in the f32 arithmetic of the contract: `y = m*2^-k` with `m` in `[sqrt(1/2), sqrt(2))`.
fn minus_ln(y: f32) -> f32 {
    let (mut m, mut k) = (y, 0.0);
    while m < std::f32::consts::FRAC_1_SQRT_2 {
        (m, k) = (2.0 * m, k + 1.0);
    }
    let t = (1.0 - m) / (1.0 + m);
    let square = t * t;
    let series = ((1.0 / 9.0 * square + 1.0 / 7.0) * square + 1.0 / 5.0) * square + 1.0 / 3.0;
    let atanh = t + t * (square * series);
    k * std::f32::consts::LN_2 + 2.0 * atanh
}

/// The factor of a random word, with the bits of the contract.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
pub fn factor(law: Law, word: u32) -> f32 {
    match law {
        Law::Gaussian { sigma: 0.0 } | Law::Uniform { half_width: 0.0 } => 1.0,
        Law::Gaussian { sigma } => {
            let scale = (f64::from(sigma) * std::f64::consts::SQRT_2) as f32;
            1.0 + scale * erfinv(uniform(word))
        }
        Law::Uniform { half_width } => 1.0 + half_width * uniform(word),
    }
}

/// The point below which a normal variate lies with the probability `(1 + u)/2`, for `u` from 0 to 1 without 1: by
/// Newton's method, from a first guess.
#[must_use]
pub fn exact_normal(u: f64, guess: f64) -> f64 {
    let mut n = guess;
    for _ in 0..40 {
        // The upper tail, which has no cancellation: normal(-n) = (1 - u)/2.
        let step = (normal(-n) - (1.0 - u) / 2.0) / normal_density(n);
        n += step;
        if step.abs() <= 1e-15 * n {
            break;
        }
    }
    n
}

/// The limit of SELU on the left, with the sign turned.
pub const ALPHA: f64 = 1.758_099_340_847_376_6;

/// Alpha dropout of a value (Klambauer et al., *Self-normalizing neural networks*, 2017), with `p` the probability to
/// drop, and the sum of the magnitudes that are added.
#[must_use]
pub fn alpha_dropout(x: f64, kept: bool, p: f64) -> (f64, f64) {
    let q = 1.0 - p;
    if p == 1.0 {
        return (0.0, 0.0);
    }
    let a = 1.0 / ((ALPHA * ALPHA * p + 1.0) * q).sqrt();
    if kept { (a * x + ALPHA * a * p, (a * x).abs() + ALPHA * a * p) } else { (-ALPHA * a * q, ALPHA * a * q) }
}

/// The gradient of [`alpha_dropout`].
#[must_use]
pub fn alpha_dropout_gradient(dy: f64, kept: bool, p: f64) -> f64 {
    if kept && p != 1.0 { dy / ((ALPHA * ALPHA * p + 1.0) * (1.0 - p)).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::{erfinv, uniform};

    /// The digest of the crate's test of the same name, which has the kernels.
    #[test]
    fn noise_contract_every_uniform_and_normal_number_has_the_bits_of_the_reference() {
        let mut digest = 0xCBF2_9CE4_8422_2325_u64;
        for number in 0..1_u32 << 23 {
            let index = number & 0xFFFF;
            let u = uniform(number | index << 23 & 0x7F80_0000 | index << 31);
            for bits in [u.to_bits(), erfinv(u).to_bits()] {
                digest = (digest ^ u64::from(bits)).wrapping_mul(0x0100_0000_01B3);
            }
        }
        assert_eq!(digest, 0x2EE6_56C1_27E1_DB47, "{digest:#x}");
    }
}

//! Noise: a tensor times random factors, and alpha dropout. Both overwrite their tensor, one pass
//! over it: 8 bytes of memory an element, and the mask's bit.
//!
//! # Random numbers
//! The words come from sixteen xoshiro128++ generators side by side, seeded block by block of 4096
//! elements as the generators of masks, with another key. In its block element `e` has word number `e / 16`
//! of lane `e % 16`. The low 23 bits of the word are `m`, its top bit is the sign of
//! `u = ±(2m + 1)*2^-24`: one of the `2^24` odd multiples of `2^-24` in (-1, 1), each as likely as
//! any other, and an f32 without rounding.
//!
//! # From uniform to normal
//! `n = sqrt(2)*erfinv(u)` is the point below which a normal variate lies with the probability
//! `(1 + u)/2`. `erfinv(u)` is `u` times a polynomial of `w = -ln((1 - u)*(1 + u))` below `w = 5`, and
//! a polynomial of `sqrt(w)` from there on (Giles, *Approximating the erfinv function*, GPU Computing Gems
//! Jade Edition, 2011, table 5). One word of 300 is in the second part, which a vector computes only
//! if one of its lanes is there. The logarithm is `-k*ln(2) + 2*atanh((m - 1)/(m + 1))` of
//! `m*2^-k`, with `m` in `[sqrt(1/2), sqrt(2))`.

use super::keep::{Bits, Keep};
use super::pieces;
use crate::bits::BITS;
use crate::mask::{BLOCK, Generators, next_word};
use crate::simd::{Kernel, LANES, Machine, Simd, one_at_a_time};
use crate::slices::take_front;

/// The polynomial of `w - 2.5` for `w` below [`FAR`], the highest power first.
const NEAR_COEFFICIENTS: [f32; 9] = [
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
/// The polynomial of `sqrt(w) - 3` from [`FAR`] on.
const FAR_COEFFICIENTS: [f32; 9] = [
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
/// Where the second polynomial begins.
const FAR: f32 = 5.0;

/// The law of the factors of a tensor, in the form in which a vector of them is computed.
pub(crate) trait Factor: Copy {
    /// The factors of random words.
    fn of_words<S: Simd>(self, s: S, words: S::U32) -> S::F32;
}

/// `1 + half_width*u`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Uniform {
    pub(crate) half_width: f32,
}

impl Factor for Uniform {
    #[inline(always)]
    fn of_words<S: Simd>(self, s: S, words: S::U32) -> S::F32 {
        s.splat(1.0) + s.splat(self.half_width) * uniform(s, words)
    }
}

/// `1 + sigma*n`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gaussian {
    /// `sigma*sqrt(2)`.
    pub(crate) scale: f32,
}

impl Factor for Gaussian {
    #[inline(always)]
    fn of_words<S: Simd>(self, s: S, words: S::U32) -> S::F32 {
        s.splat(1.0) + s.splat(self.scale) * erfinv(s, uniform(s, words))
    }
}

/// `±(2m + 1)*2^-24`.
#[inline(always)]
fn uniform<S: Simd>(s: S, words: S::U32) -> S::F32 {
    // m*2^-23 + 1, from which 1 - 2^-24 is subtracted exactly.
    let above_one = s.with_bits((words & s.splat_u32(0x007F_FFFF)) | s.splat_u32(1.0_f32.to_bits()));
    let magnitude = above_one - s.splat(1.0 - f32::EPSILON / 2.0);
    s.with_bits(s.to_bits(magnitude) | (words & s.splat_u32(1 << 31)))
}

/// `erfinv(u)` for `u` of [`uniform`].
#[inline(always)]
fn erfinv<S: Simd>(s: S, u: S::F32) -> S::F32 {
    let one = s.splat(1.0);
    let w = minus_ln(s, (one - u) * (one + u));
    let near = polynomial(s, &NEAR_COEFFICIENTS, w - s.splat(2.5));
    let is_far = s.le(s.splat(FAR), w);
    // Lanes in the far part have the bits of 1, and the other lanes have none.
    if s.is_zero(s.to_bits(s.keep(is_far, one))) {
        return near * u;
    }
    let far = polynomial(s, &FAR_COEFFICIENTS, s.narrow(s.sqrt(s.widen(w))) - s.splat(3.0));
    s.select(is_far, far, near) * u
}

#[inline(always)]
fn polynomial<S: Simd>(s: S, coefficients: &[f32; 9], x: S::F32) -> S::F32 {
    let mut sum = s.splat(coefficients[0]);
    sum = sum * x + s.splat(coefficients[1]);
    sum = sum * x + s.splat(coefficients[2]);
    sum = sum * x + s.splat(coefficients[3]);
    sum = sum * x + s.splat(coefficients[4]);
    sum = sum * x + s.splat(coefficients[5]);
    sum = sum * x + s.splat(coefficients[6]);
    sum = sum * x + s.splat(coefficients[7]);
    sum * x + s.splat(coefficients[8])
}

/// `-ln(y)` for a normal `y` in (0, 1].
#[inline(always)]
fn minus_ln<S: Simd>(s: S, y: S::F32) -> S::F32 {
    /// The bits of `sqrt(1/2)`, from which on a significand counts to the next power of two.
    const ROOT_OF_HALF: u32 = core::f32::consts::FRAC_1_SQRT_2.to_bits();
    const ONE: u32 = 1.0_f32.to_bits();
    /// `2^23`: an f32 in `[2^23, 2^24)` has an integer in its low bits.
    const INTEGERS: f32 = 8_388_608.0;
    let shifted = s.to_bits(y) + s.splat_u32(ONE - ROOT_OF_HALF);
    let m = s.with_bits((shifted & s.splat_u32(0x007F_FFFF)) + s.splat_u32(ROOT_OF_HALF));
    let exponent = s.rotate_left::<9>(shifted & s.splat_u32(0x7F80_0000));
    let k = s.splat(INTEGERS + 127.0) - s.with_bits(exponent | s.splat_u32(INTEGERS.to_bits()));
    let one = s.splat(1.0);
    let t = (one - m) / (one + m);
    let square = t * t;
    // atanh(t)/t - 1, Taylor's: |t| is below 0.172, so that the next term is below 2^-28.
    let mut sum = s.splat(1.0 / 9.0);
    sum = sum * square + s.splat(1.0 / 7.0);
    sum = sum * square + s.splat(1.0 / 5.0);
    sum = sum * square + s.splat(1.0 / 3.0);
    let half = t + t * (square * sum);
    k * s.splat(core::f32::consts::LN_2) + (half + half)
}

/// Multiplies each value by its factor.
pub(crate) struct Multiply<'a, F> {
    pub(crate) factor: F,
    pub(crate) key: u64,
    /// The index of the first value.
    pub(crate) first: u64,
    pub(crate) values: &'a mut [f32],
}

impl<F: Factor> Kernel for Multiply<'_, F> {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a place in a block")]
    fn run<M: Machine>(self, m: M) {
        let Self { factor, key, first, values: mut rest } = self;
        // Blocks are counted, not elements, because `first` plus the length may be larger than a
        // u64.
        let (mut block, mut skip) = (first / BLOCK as u64, (first % BLOCK as u64) as usize);
        while !rest.is_empty() {
            let len = rest.len().min(BLOCK - skip);
            let values = take_front(&mut rest, len);
            multiply_block(m, factor, &Generators::seeded(m, key, block), skip, values);
            (block, skip) = (block.wrapping_add(1), 0);
        }
    }
}

/// Multiplies values of one block. The first value is element number `skip` of the block.
#[inline(always)]
fn multiply_block<M: Machine, F: Factor>(m: M, factor: F, generators: &Generators, skip: usize, values: &mut [f32]) {
    let skipped = skip % LANES;
    let head = if skipped == 0 { 0 } else { values.len().min(LANES - skipped) };
    for s in m.each(LANES) {
        let mut state = generators.words(s);
        for _ in 0..skip / LANES {
            let _ = next_word(s, &mut state);
        }
        let (head, rest) = values.split_at_mut_checked(head).unwrap_or_default();
        if !head.is_empty() {
            let mut lanes = [0.0; LANES];
            for (lane, &value) in lanes.iter_mut().skip(skipped).zip(&*head) {
                *lane = value;
            }
            s.store(s.load(&lanes) * factor.of_words(s, next_word(s, &mut state)), &mut lanes);
            for (value, &lane) in head.iter_mut().zip(lanes.iter().skip(skipped)) {
                *value = lane;
            }
        }
        let (whole, tail) = rest.as_chunks_mut();
        for values in whole {
            one_at_a_time();
            s.store(s.load(values) * factor.of_words(s, next_word(s, &mut state)), values);
        }
        if !tail.is_empty() {
            s.store_partial(s.load_partial(tail) * factor.of_words(s, next_word(s, &mut state)), tail);
        }
    }
}

/// `slope*x + shift` where an element is kept, and `dropped` elsewhere.
pub(crate) struct Alpha<'a> {
    pub(crate) keep: Keep<'a>,
    pub(crate) slope: f32,
    pub(crate) shift: f32,
    pub(crate) dropped: f32,
    /// The index of the first value.
    pub(crate) first: usize,
    pub(crate) values: &'a mut [f32],
}

impl Kernel for Alpha<'_> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let Self { keep, slope, shift, dropped, first, values: mut rest } = self;
        for (start, len) in pieces(first, rest.len()) {
            let values = take_front(&mut rest, len);
            let (keep, mut buffer) = (keep.within(start, len), [0; 2 * BITS + 2]);
            let bits = keep.bits(start, len.div_ceil(LANES), &mut buffer);
            for s in m.each(LANES) {
                alpha_piece(s, [slope, shift, dropped], bits, values);
            }
        }
    }
}

/// [`Alpha`] of a piece: `slope`, `shift` and the value of dropped elements.
#[inline(always)]
fn alpha_piece<S: Simd>(s: S, coefficients: [f32; 3], bits: Bits<'_>, values: &mut [f32]) {
    let [slope, shift, dropped] = coefficients;
    let [slope, shift, dropped] = [s.splat(slope), s.splat(shift), s.splat(dropped)];
    let ((whole, tail), mut bits) = (values.as_chunks_mut(), bits.vectors());
    for (values, bits) in whole.iter_mut().zip(&mut bits) {
        one_at_a_time();
        s.store(s.select(s.mask(bits), slope * s.load(values) + shift, dropped), values);
    }
    if let (Some(bits), false) = (bits.next(), tail.is_empty()) {
        s.store_partial(s.select(s.mask(bits), slope * s.load_partial(tail) + shift, dropped), tail);
    }
}

#[cfg(test)]
mod tests {
    use super::{erfinv, uniform};
    use crate::backend::Backend;
    use crate::simd::{Kernel, LANES, Lanes, Machine, Simd, dispatch};

    extern crate std;
    use std::vec::Vec;

    const DIGEST: u64 = 0x2EE6_56C1_27E1_DB47;

    /// `u` and `erfinv(u)` of words.
    struct Values<'a> {
        words: &'a [Lanes<u32>],
        values: &'a mut [[Lanes<f32>; 2]],
    }

    impl Kernel for Values<'_> {
        #[inline(always)]
        fn run<M: Machine>(self, m: M) {
            for (words, [uniforms, normals]) in self.words.iter().zip(self.values) {
                for s in m.each(LANES) {
                    let u = uniform(s, s.load_u32(words));
                    s.store(u, uniforms);
                    s.store(erfinv(s, u), normals);
                }
            }
        }
    }

    /// Every word that gives another value, on every backend. The reference, which is not part of the
    /// published crate, has a test with the same digest.
    #[test]
    fn noise_contract_every_uniform_and_normal_number_has_the_bits_of_the_reference() {
        const WORDS: u32 = 1 << 16;
        for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
            let mut digest = 0xCBF2_9CE4_8422_2325_u64;
            for start in (0..1 << 23).step_by(WORDS as usize) {
                // The bits 23 to 30 of a word do not matter.
                let word = |index: u32| (start + index) | index << 23 & 0x7F80_0000 | index << 31;
                let words: Vec<u32> = (0..WORDS).map(word).collect();
                let mut values = std::vec![[[0.0; LANES]; 2]; words.len() / LANES];
                dispatch(Some(backend), Values { words: words.as_chunks().0, values: &mut values });
                for (u, n) in values.iter().flat_map(|[uniforms, normals]| uniforms.iter().zip(normals)) {
                    for bits in [u.to_bits(), n.to_bits()] {
                        digest = (digest ^ u64::from(bits)).wrapping_mul(0x0100_0000_01B3);
                    }
                }
            }
            assert_eq!(digest, DIGEST, "{digest:#x} on {backend:?}");
        }
    }
}

//! The two generators that masks are specified with, from their published algorithms.

/// `SplitMix64` (Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, 2014; Vigna's `splitmix64.c`).
#[derive(Debug, Clone)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// 2^64 divided by the golden ratio, made odd: the distance from one state to the next.
    pub const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

    /// The generator whose first state is one step after `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(Self::GOLDEN_GAMMA);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from `[0, 1)`, a multiple of 2^-53.
    pub fn next_unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A normal variate of mean 0 and variance 1 (Box and Muller, *A note on the generation of random normal
    /// deviates*, 1958).
    pub fn next_normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.next_unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.next_unit()).cos()
    }

    /// A number below `bound`; the bias of the remainder is far below what any test can see.
    #[expect(clippy::cast_possible_truncation, reason = "below the bound")]
    pub fn next_below(&mut self, bound: usize) -> usize {
        (self.next_u64() % bound as u64) as usize
    }
}

/// xoshiro128++ (Blackman and Vigna, *Scrambled linear pseudorandom number generators*, 2021; `xoshiro128plusplus.c`).
#[derive(Debug, Clone)]
pub struct Xoshiro128PlusPlus {
    state: [u32; 4],
}

impl Xoshiro128PlusPlus {
    /// The generator with a given state, which must not be all zero.
    #[must_use]
    pub fn from_state(state: [u32; 4]) -> Self {
        Self { state }
    }

    /// The generator whose state is two outputs of [`SplitMix64`], least significant word first.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a u64")]
    pub fn seed_from_u64(seed: u64) -> Self {
        let mut seeds = SplitMix64::new(seed);
        let (first, second) = (seeds.next_u64(), seeds.next_u64());
        Self::from_state([first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32])
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(7).wrapping_add(s[0]);
        let t = s[1] << 9;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(11);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_the_published_numbers() {
        let mut generator = SplitMix64::new(1_234_567);
        let published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431];
        assert_eq!(std::array::from_fn(|_| generator.next_u64()), published);
    }

    #[test]
    fn xoshiro128plusplus_gives_the_numbers_of_its_c_source() {
        let mut generator = Xoshiro128PlusPlus::from_state([1, 2, 3, 4]);
        let published = [641, 1573767, 3222811527, 3517856514, 836907274, 4247214768, 3867114732, 1355841295];
        assert_eq!(std::array::from_fn(|_| generator.next_u32()), published);
    }

    #[test]
    fn normal_variates_have_mean_0_and_variance_1() {
        let mut generator = SplitMix64::new(7);
        let values: Vec<f64> = (0..100_000).map(|_| generator.next_normal()).collect();
        let mean = values.iter().sum::<f64>() / 1e5;
        let var = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (var - 1.0).abs() < 0.02, "mean {mean}, variance {var}");
    }
}

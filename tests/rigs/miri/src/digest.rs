//! A digest of what calls have written, and the numbers that they are given.

/// FNV-1a (Fowler, Noll and Vo), every NaN counted as the same pattern.
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) const fn new() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }

    pub(crate) fn floats(&mut self, values: &[f32]) {
        for value in values {
            let bits = if value.is_nan() { 0x7FC0_0000 } else { value.to_bits() };
            self.bytes(&bits.to_le_bytes());
        }
    }

    pub(crate) fn doubles(&mut self, values: &[f64]) {
        for value in values {
            let bits = if value.is_nan() { 0x7FF8 << 48 } else { value.to_bits() };
            self.bytes(&bits.to_le_bytes());
        }
    }

    pub(crate) const fn finish(&self) -> u64 {
        self.0
    }
}

/// Numbers around 1. With `placed`, some are huge, subnormal, infinite or NaN, which takes the paths in f64.
pub(crate) fn numbers(len: usize, seed: u32, placed: bool) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let mut number = || {
        let word = next();
        let ordinary = word as f32 / (1 << 22) as f32 - 2.0;
        match word % 9 {
            0 if placed => 3e38,
            1 if placed => 1e-40,
            2 if placed && word % 5 == 0 => f32::NAN,
            3 if placed && word % 5 == 0 => f32::NEG_INFINITY,
            _ => ordinary,
        }
    };
    (0..len).map(|_| number()).collect()
}

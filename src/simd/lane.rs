//! Single lanes, for targets without vector registers, and on every target for the few values that
//! are not processed in vectors.

use core::ops::{Add, BitAnd, BitOr, BitXor};

use super::{LANES, Lanes, Simd, StripFunctions, Work, halves, whole};
use crate::element::{Bf16, F16, Half};

/// One of sixteen lanes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lane(pub(super) usize);

impl Lane {
    /// The first lane, for a single value.
    pub(crate) const FIRST: Self = Self(0);

    /// The lane of a column of a table.
    #[inline(always)]
    pub(crate) const fn of_column(column: usize) -> Self {
        Self(column % LANES)
    }

    /// The number of the lane, in a form that needs no check.
    #[inline(always)]
    const fn number(self) -> usize {
        self.0 % LANES
    }

    /// The index of the word, in a pair of vectors in memory, that has this lane of the first or
    /// second vector.
    #[inline(always)]
    const fn word_of(self, vector: usize) -> usize {
        (vector * LANES + self.number()) / 2 % LANES
    }

    /// Whether the lane is the lower half of the word that [`Self::word_of`] names.
    #[inline(always)]
    const fn is_even(self) -> bool {
        self.0.is_multiple_of(2)
    }
}

/// A u32 whose addition wraps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Word(u32);

impl Add for Word {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

macro_rules! bitwise {
    ($($trait:ident $method:ident,)*) => {$(
        impl $trait for Word {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(self.0.$method(other.0))
            }
        }
    )*};
}
bitwise!(BitAnd bitand, BitOr bitor, BitXor bitxor,);

impl Simd for Lane {
    const AT_ONCE: bool = false;

    type F32 = f32;
    type F64 = f64;
    type U32 = Word;
    type Mask = bool;
    type Halves = u16;

    #[inline(always)]
    fn lanes(self) -> u16 {
        1 << self.number()
    }

    #[inline(never)]
    fn apart(self, work: impl Work<Self>) {
        work.run(self);
    }

    fn strip(self, functions: &StripFunctions, parameter: f32, factors: &[f32], values: &mut [f32]) {
        for (number, value) in values.iter_mut().enumerate() {
            *value = functions.single(parameter, *value, factors.get(number).copied().unwrap_or(0.0));
        }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> f32 {
        value
    }

    #[inline(always)]
    fn load(self, from: &Lanes<f32>) -> f32 {
        from[self.number()]
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> f32 {
        from.get(self.number()).copied().unwrap_or(0.0)
    }

    #[inline(always)]
    fn store(self, value: f32, to: &mut Lanes<f32>) {
        to[self.number()] = value;
    }

    #[inline(always)]
    fn store_partial(self, value: f32, to: &mut [f32]) {
        if let Some(to) = to.get_mut(self.number()) {
            *to = value;
        }
    }

    #[inline(always)]
    fn load_halves<H: Half>(self, from: &Lanes<H>) -> u16 {
        from[self.number()].bits()
    }

    #[inline(always)]
    fn store_halves<H: Half>(self, halves: u16, to: &mut Lanes<H>) {
        to[self.number()] = H::of_bits(halves);
    }

    #[inline(always)]
    fn load_partial_halves<H: Half>(self, from: &[H]) -> u16 {
        from.get(self.number()).map_or(0, |half| half.bits())
    }

    #[inline(always)]
    fn store_partial_halves<H: Half>(self, halves: u16, to: &mut [H]) {
        if let Some(to) = to.get_mut(self.number()) {
            *to = H::of_bits(halves);
        }
    }

    #[inline(always)]
    fn widen_f16(self, halves: u16) -> f32 {
        F16::from_bits(halves).to_f32()
    }

    #[inline(always)]
    fn narrow_f16(self, value: f32) -> u16 {
        F16::from_f32(value).to_bits()
    }

    #[inline(always)]
    fn widen_bf16(self, halves: u16) -> f32 {
        Bf16::from_bits(halves).to_f32()
    }

    #[inline(always)]
    fn narrow_bf16(self, value: f32) -> u16 {
        Bf16::from_f32(value).to_bits()
    }

    #[inline(always)]
    fn le(self, a: f32, b: f32) -> bool {
        a <= b
    }

    #[inline(always)]
    fn unless_less(self, mask: bool, a: f32, b: f32) -> bool {
        let less = a < b;
        mask && !less
    }

    #[inline(always)]
    fn keep(self, mask: bool, value: f32) -> f32 {
        if mask { value } else { 0.0 }
    }

    #[inline(always)]
    fn drop(self, mask: bool, value: f32) -> f32 {
        if mask { 0.0 } else { value }
    }

    #[inline(always)]
    fn select(self, mask: bool, yes: f32, no: f32) -> f32 {
        if mask { yes } else { no }
    }

    #[inline(always)]
    fn mask(self, bits: u16) -> bool {
        bits & self.lanes() != 0
    }

    #[inline(always)]
    fn bits(self, mask: bool) -> u16 {
        if mask { self.lanes() } else { 0 }
    }

    #[inline(always)]
    fn splat_f64(self, value: f64) -> f64 {
        value
    }

    #[inline(always)]
    fn load_f64(self, from: &Lanes<f64>) -> f64 {
        from[self.number()]
    }

    #[inline(always)]
    fn store_f64(self, value: f64, to: &mut Lanes<f64>) {
        to[self.number()] = value;
    }

    #[inline(always)]
    fn widen(self, value: f32) -> f64 {
        f64::from(value)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "rounding is the purpose")]
    fn narrow(self, value: f64) -> f32 {
        value as f32
    }

    #[inline(always)]
    fn sqrt(self, value: f64) -> f64 {
        libm::sqrt(value)
    }

    #[inline(always)]
    fn larger(self, a: f64, b: f64) -> f64 {
        if a > b { a } else { b }
    }

    #[inline(always)]
    fn less(self, a: f64, b: f64) -> u16 {
        self.bits(a < b)
    }

    #[inline(always)]
    fn load_pair(self, from: &Lanes<f64>) -> (f32, f32) {
        let half = |vector| {
            let [lower, upper] = halves(from[self.word_of(vector)]);
            if self.is_even() { lower } else { upper }
        };
        (half(0), half(1))
    }

    #[inline(always)]
    fn store_pair(self, first: f32, second: f32, to: &mut Lanes<f64>) {
        for (vector, value) in [first, second].into_iter().enumerate() {
            let word = &mut to[self.word_of(vector)];
            let [lower, upper] = halves(*word);
            *word = whole(if self.is_even() { [value, upper] } else { [lower, value] });
        }
    }

    #[inline(always)]
    fn splat_u32(self, value: u32) -> Word {
        Word(value)
    }

    #[inline(always)]
    fn load_u32(self, from: &Lanes<u32>) -> Word {
        Word(from[self.number()])
    }

    #[inline(always)]
    fn store_u32(self, value: Word, to: &mut Lanes<u32>) {
        to[self.number()] = value.0;
    }

    #[inline(always)]
    fn without(self, value: Word, of: Word) -> Word {
        Word(value.0 & !of.0)
    }

    #[inline(always)]
    fn shift_left<const BITS: u32>(self, value: Word) -> Word {
        Word(value.0 << BITS)
    }

    #[inline(always)]
    fn rotate_left<const BITS: u32>(self, value: Word) -> Word {
        Word(value.0.rotate_left(BITS))
    }

    #[inline(always)]
    fn to_bits(self, value: f32) -> Word {
        Word(value.to_bits())
    }

    #[inline(always)]
    fn with_bits(self, bits: Word) -> f32 {
        f32::from_bits(bits.0)
    }

    #[inline(always)]
    fn is_zero(self, value: Word) -> bool {
        value.0 == 0
    }

    /// The comparison is one of integers, whose order is that of the magnitudes. In software it is
    /// cheaper than a comparison of floats.
    #[inline(always)]
    fn magnitude_between(self, value: f64, above: f64, below: f64) -> u16 {
        let magnitude = value.to_bits() & !(1 << 63);
        self.bits(above.to_bits() < magnitude && magnitude < below.to_bits())
    }

    #[inline(always)]
    fn magnitude_above(self, value: f64, above: f64) -> u16 {
        let magnitude = value.to_bits() & !(1 << 63);
        self.bits(above.to_bits() < magnitude && magnitude <= f64::INFINITY.to_bits())
    }

    #[inline(always)]
    fn lane_by_lane<const N: usize>(self, lanes: usize, mut make: impl FnMut(usize) -> [f64; N]) -> [f64; N] {
        if self.0 < lanes { make(self.0) } else { [0.0; N] }
    }

    #[inline(always)]
    fn each_lane<const N: usize>(self, lanes: usize, values: [f32; N], mut take: impl FnMut(usize, [f32; N])) {
        if self.0 < lanes {
            take(self.0, values);
        }
    }

    #[inline(always)]
    fn each_lane_f64(self, lanes: usize, value: f64, mut take: impl FnMut(usize, f64)) {
        if self.0 < lanes {
            take(self.0, value);
        }
    }

    #[inline(always)]
    fn change_lanes<const N: usize>(self, values: [f32; N], mut change: impl FnMut(usize, [f32; N]) -> f32) -> f32 {
        change(self.0, values)
    }

    #[inline(always)]
    fn change_lanes_f64<const N: usize>(
        self,
        mut values: [f64; N],
        mut change: impl FnMut(usize, &mut [f64; N]),
    ) -> [f64; N] {
        change(self.0, &mut values);
        values
    }

    #[inline(always)]
    fn load_partial_f64(self, from: &[f64]) -> f64 {
        from.get(self.number()).copied().unwrap_or(0.0)
    }

    #[inline(always)]
    fn store_partial_f64(self, value: f64, to: &mut [f64]) {
        if let Some(to) = to.get_mut(self.number()) {
            *to = value;
        }
    }
}

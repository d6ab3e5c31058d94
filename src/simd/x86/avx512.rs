//! AVX-512 lanes: one 512-bit register of f32, two of f64, and mask registers.

use core::arch::x86_64::*;
use core::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Sub};

use super::super::splitmix::{GOLDEN_GAMMA, MULTIPLIERS, SHIFTS};
use super::super::{Kernel, LANES, Lanes, Machine, Simd, StripFunctions, Work};
use super::{begins_line, fence, prefetch_first, prefetch_second, readable};
use crate::element::Half;

/// The proof that the CPU has AVX-512 F, VL, BW and DQ and that its registers may be used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The bits of sixteen f32 whose upper halves are rounded to nearest even. The half of a NaN is a
    /// quiet NaN.
    #[inline(always)]
    fn rounded_to_bf16(self, value: Avx512F32) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let bits = _mm512_castps_si512(value.0[0]);
            let odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x0001_0000));
            let sum = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
            let sum = _mm512_mask_add_epi32(sum, odd, sum, _mm512_set1_epi32(1));
            let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value.0[0], value.0[0]);
            _mm512_mask_or_epi32(sum, is_nan, bits, _mm512_set1_epi32(0x0040_0000))
        }
    }

    /// [`Simd::apart`]. It is not inlined, because its caller does not have the CPU feature.
    #[target_feature(enable = "avx2,avx512f,avx512vl,avx512bw,avx512dq")]
    fn run_apart(self, work: impl Work<Self>) {
        work.run(self);
    }

    /// Runs a kernel on AVX-512 lanes.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, VL, BW and DQ and the operating system saves their registers.
    #[target_feature(enable = "avx2,avx512f,avx512vl,avx512bw,avx512dq")]
    pub(crate) unsafe fn run(kernel: impl Kernel) {
        kernel.run(Self(()));
    }
}

lanes!(
    /// Sixteen f32 in one register.
    Avx512F32([__m512; 1])
    Add add _mm512_add_ps,
    Sub sub _mm512_sub_ps,
    Mul mul _mm512_mul_ps,
    Div div _mm512_div_ps,
);
lanes!(
    /// Sixteen f64 in two registers.
    Avx512F64([__m512d; 2])
    Add add _mm512_add_pd,
    Sub sub _mm512_sub_pd,
    Mul mul _mm512_mul_pd,
    Div div _mm512_div_pd,
);
lanes!(
    /// Sixteen u32 in one register.
    Avx512U32([__m512i; 1])
    Add add _mm512_add_epi32,
    BitAnd bitand _mm512_and_si512,
    BitOr bitor _mm512_or_si512,
    BitXor bitxor _mm512_xor_si512,
);

/// Sixteen truth values in a mask register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Mask(__mmask16);

impl BitAnd for Avx512Mask {
    type Output = Self;
    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The mask of the first `n` lanes; `n` above 16 counts as 16.
#[inline(always)]
fn first_bits(n: usize) -> __mmask16 {
    if n < 16 { (1 << n) - 1 } else { !0 }
}

/// `value`, in a register. The compiler would merge the load of the value with the masked
/// operation after it, and such a load waits for the mask before it reads memory.
#[inline]
#[target_feature(enable = "avx512f")]
fn in_register(mut value: __m512) -> __m512 {
    // SAFETY: no instruction at all; the register keeps its value.
    unsafe {
        core::arch::asm!("/* {0} */", inout(zmm_reg) value, options(pure, nomem, nostack, preserves_flags));
    }
    value
}

/// Every second output of the `SplitMix64` sequence that starts at `seed`, from number `first` on.
/// A function, because a closure would not be inlined.
///
/// # Safety
/// The CPU has AVX-512 F and DQ.
#[inline(always)]
#[expect(clippy::cast_possible_wrap, reason = "the same bits")]
unsafe fn splitmix64(seed: u64, first: u64) -> __m512i {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let lanes = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
        let number = _mm512_add_epi64(lanes, _mm512_set1_epi64(first as i64));
        let steps = _mm512_mullo_epi64(number, _mm512_set1_epi64(GOLDEN_GAMMA as i64));
        let z = _mm512_add_epi64(_mm512_set1_epi64(seed as i64), steps);
        let z = _mm512_xor_si512(z, _mm512_srli_epi64::<{ SHIFTS[0] }>(z));
        let z = _mm512_mullo_epi64(z, _mm512_set1_epi64(MULTIPLIERS[0] as i64));
        let z = _mm512_xor_si512(z, _mm512_srli_epi64::<{ SHIFTS[1] }>(z));
        let z = _mm512_mullo_epi64(z, _mm512_set1_epi64(MULTIPLIERS[1] as i64));
        _mm512_xor_si512(z, _mm512_srli_epi64::<{ SHIFTS[2] }>(z))
    }
}

impl Machine for Avx512 {
    type Simd = Self;

    #[inline(always)]
    fn all(self) -> Option<Self> {
        Some(self)
    }

    #[inline(always)]
    fn states(self, seed: u64, words: &mut [Lanes<u32>; 4]) {
        // SAFETY: the token proves AVX-512; each of `words` is sixteen values.
        unsafe {
            let lower = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let upper = _mm512_add_epi32(lower, _mm512_set1_epi32(1));
            for (number, words) in words.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let (low, high) = (splitmix64(seed, 1 + number as u64), splitmix64(seed, 17 + number as u64));
                for (words, halves) in words.iter_mut().zip([lower, upper]) {
                    _mm512_storeu_si512(words.as_mut_ptr().cast(), _mm512_permutex2var_epi32(low, halves, high));
                }
            }
        }
    }
}

impl Simd for Avx512 {
    type F32 = Avx512F32;
    type F64 = Avx512F64;
    type U32 = Avx512U32;
    type Mask = Avx512Mask;
    type Halves = __m256i;

    // This function does not have the CPU feature: a function with the feature would be inlined in
    // spite of `inline(never)`.
    #[inline(never)]
    fn apart(self, work: impl Work<Self>) {
        // SAFETY: the token proves AVX-512.
        unsafe { self.run_apart(work) }
    }

    #[inline(always)]
    fn strip(self, functions: &StripFunctions, parameter: f32, factors: &[f32], values: &mut [f32]) {
        (functions.avx512)(self, parameter, factors, values);
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Avx512F32 {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512F32([_mm512_set1_ps(value)]) }
    }

    #[inline(always)]
    fn load(self, from: &Lanes<f32>) -> Avx512F32 {
        // SAFETY: the token proves AVX-512; `from` is sixteen values.
        unsafe { Avx512F32([_mm512_loadu_ps(from.as_ptr())]) }
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> Avx512F32 {
        // SAFETY: the token proves AVX-512; a masked load touches only as many lanes as there are
        // values.
        unsafe { Avx512F32([_mm512_maskz_loadu_ps(first_bits(from.len()), readable(from))]) }
    }

    #[inline(always)]
    fn prefetch_first<T>(self, from: &Lanes<T>, ahead: usize) {
        prefetch_first(from, ahead);
    }

    #[inline(always)]
    fn prefetch_second<T>(self, from: &Lanes<T>, ahead: usize) {
        prefetch_second(from, ahead);
    }

    #[inline(always)]
    fn store(self, value: Avx512F32, to: &mut Lanes<f32>) {
        // SAFETY: the token proves AVX-512; `to` is sixteen values.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value.0[0]) }
    }

    #[inline(always)]
    fn store_partial(self, value: Avx512F32, to: &mut [f32]) {
        // SAFETY: the token proves AVX-512; a masked store touches only as many lanes as there is
        // room for.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), first_bits(to.len()), value.0[0]) }
    }

    #[inline(always)]
    fn stream(self, value: Avx512F32, to: &mut Lanes<f32>) {
        if !begins_line(to) {
            return self.store(value, to);
        }
        let to = to.as_mut_ptr();
        // SAFETY: the token proves AVX-512; `to` is sixteen values, aligned to 64 bytes. `fence`
        // comes before another thread may read them.
        unsafe {
            _mm512_stream_ps(to, value.0[0]);
        }
    }

    #[inline(always)]
    fn fence(self) {
        fence();
    }

    #[inline(always)]
    fn load_halves<H: Half>(self, from: &Lanes<H>) -> __m256i {
        // SAFETY: the token proves AVX-512; `from` is sixteen values of sixteen bits.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_halves<H: Half>(self, halves: __m256i, to: &mut Lanes<H>) {
        // SAFETY: the token proves AVX-512; `to` is sixteen values of sixteen bits, and any bits
        // are a value.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), halves) }
    }

    #[inline(always)]
    fn load_partial_halves<H: Half>(self, from: &[H]) -> __m256i {
        // SAFETY: the token proves AVX-512 BW and VL; a masked load touches only as many lanes as
        // there are values of sixteen bits.
        unsafe { _mm256_maskz_loadu_epi16(first_bits(from.len()), from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_partial_halves<H: Half>(self, halves: __m256i, to: &mut [H]) {
        // SAFETY: the token proves AVX-512 BW and VL; a masked store touches only as many lanes as
        // there is room for, and any bits are a value.
        unsafe { _mm256_mask_storeu_epi16(to.as_mut_ptr().cast(), first_bits(to.len()), halves) }
    }

    #[inline(always)]
    fn stream_halves<H: Half>(self, [first, second]: [__m256i; 2], to: &mut [Lanes<H>; 2]) {
        if !begins_line(to) {
            let [to_first, to_second] = to;
            self.store_halves(first, to_first);
            return self.store_halves(second, to_second);
        }
        // SAFETY: the token proves AVX-512; `to` is 32 values of sixteen bits, aligned to 64 bytes,
        // and any bits are a value. `fence` comes before another thread may read them.
        unsafe {
            let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second);
            _mm512_stream_si512(to.as_mut_ptr().cast(), both);
        }
    }

    #[inline(always)]
    fn widen_f16(self, halves: __m256i) -> Avx512F32 {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512F32([_mm512_cvtph_ps(halves)]) }
    }

    #[inline(always)]
    fn narrow_f16(self, value: Avx512F32) -> __m256i {
        // SAFETY: the token proves AVX-512. The rounding is to nearest even, and the instruction
        // keeps subnormal halves in every environment.
        unsafe { _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value.0[0]) }
    }

    #[inline(always)]
    fn widen_bf16(self, halves: __m256i) -> Avx512F32 {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512F32([_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))]) }
    }

    #[inline(always)]
    fn narrow_bf16(self, value: Avx512F32) -> __m256i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(self.rounded_to_bf16(value))) }
    }

    #[inline(always)]
    fn narrow_two_bf16(self, [first, second]: [Avx512F32; 2]) -> [__m256i; 2] {
        // The indices of the upper halves of the words of `first`, and of the words of `second`.
        let upper_words: &[u16; 2 * LANES] = &const {
            let mut words = [0; 2 * LANES];
            let (mut lane, mut word) = (0, 1);
            while lane < words.len() {
                words[lane] = word;
                (lane, word) = (lane + 1, word + 2);
            }
            words
        };
        let (first, second) = (self.rounded_to_bf16(first), self.rounded_to_bf16(second));
        // SAFETY: the token proves AVX-512; `upper_words` is 32 values of sixteen bits.
        unsafe {
            let upper = _mm512_loadu_si512(upper_words.as_ptr().cast());
            let both = _mm512_permutex2var_epi16(first, upper, second);
            [_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64::<1>(both)]
        }
    }

    #[inline(always)]
    fn le(self, a: Avx512F32, b: Avx512F32) -> Avx512Mask {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512Mask(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(a.0[0], b.0[0])) }
    }

    #[inline(always)]
    fn unless_less(self, mask: Avx512Mask, a: Avx512F32, b: Avx512F32) -> Avx512Mask {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512Mask(_mm512_mask_cmp_ps_mask::<_CMP_NLT_UQ>(mask.0, a.0[0], b.0[0])) }
    }

    #[inline(always)]
    fn keep(self, mask: Avx512Mask, value: Avx512F32) -> Avx512F32 {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512F32([_mm512_maskz_mov_ps(mask.0, in_register(value.0[0]))]) }
    }

    #[inline(always)]
    fn drop(self, mask: Avx512Mask, value: Avx512F32) -> Avx512F32 {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512F32([_mm512_maskz_mov_ps(!mask.0, in_register(value.0[0]))]) }
    }

    #[inline(always)]
    fn select(self, mask: Avx512Mask, yes: Avx512F32, no: Avx512F32) -> Avx512F32 {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512F32([_mm512_mask_blend_ps(mask.0, no.0[0], yes.0[0])]) }
    }

    #[inline(always)]
    fn mask(self, bits: u16) -> Avx512Mask {
        Avx512Mask(bits)
    }

    #[inline(always)]
    fn bits(self, mask: Avx512Mask) -> u16 {
        mask.0
    }

    #[inline(always)]
    fn splat_f64(self, value: f64) -> Avx512F64 {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512F64([_mm512_set1_pd(value); 2]) }
    }

    #[inline(always)]
    fn load_f64(self, from: &Lanes<f64>) -> Avx512F64 {
        let from = from.as_ptr();
        // SAFETY: the token proves AVX-512; `from` is sixteen values.
        unsafe { Avx512F64([_mm512_loadu_pd(from), _mm512_loadu_pd(from.add(8))]) }
    }

    #[inline(always)]
    fn store_f64(self, value: Avx512F64, to: &mut Lanes<f64>) {
        let to = to.as_mut_ptr();
        // SAFETY: the token proves AVX-512; `to` is sixteen values.
        unsafe {
            _mm512_storeu_pd(to, value.0[0]);
            _mm512_storeu_pd(to.add(8), value.0[1]);
        }
    }

    #[inline(always)]
    fn widen(self, value: Avx512F32) -> Avx512F64 {
        // SAFETY: the token proves AVX-512.
        unsafe {
            Avx512F64([
                _mm512_cvtps_pd(_mm512_castps512_ps256(value.0[0])),
                _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(value.0[0])),
            ])
        }
    }

    #[inline(always)]
    fn narrow(self, value: Avx512F64) -> Avx512F32 {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let low = _mm512_castps256_ps512(_mm512_cvtpd_ps(value.0[0]));
            Avx512F32([_mm512_insertf32x8::<1>(low, _mm512_cvtpd_ps(value.0[1]))])
        }
    }

    #[inline(always)]
    fn sqrt(self, value: Avx512F64) -> Avx512F64 {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512F64([_mm512_sqrt_pd(value.0[0]), _mm512_sqrt_pd(value.0[1])]) }
    }

    #[inline(always)]
    fn larger(self, a: Avx512F64, b: Avx512F64) -> Avx512F64 {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512F64([_mm512_max_pd(a.0[0], b.0[0]), _mm512_max_pd(a.0[1], b.0[1])]) }
    }

    #[inline(always)]
    fn less(self, a: Avx512F64, b: Avx512F64) -> u16 {
        // SAFETY: the token proves AVX-512.
        let [low, high] = unsafe {
            [_mm512_cmp_pd_mask::<_CMP_LT_OQ>(a.0[0], b.0[0]), _mm512_cmp_pd_mask::<_CMP_LT_OQ>(a.0[1], b.0[1])]
        };
        u16::from(low) | u16::from(high) << 8
    }

    #[inline(always)]
    fn load_pair(self, from: &Lanes<f64>) -> (Avx512F32, Avx512F32) {
        let from = from.as_ptr().cast::<f32>();
        // SAFETY: the token proves AVX-512; `from` is sixteen words, which have room for 32 values.
        unsafe { (Avx512F32([_mm512_loadu_ps(from)]), Avx512F32([_mm512_loadu_ps(from.add(16))])) }
    }

    #[inline(always)]
    fn store_pair(self, first: Avx512F32, second: Avx512F32, to: &mut Lanes<f64>) {
        let to = to.as_mut_ptr().cast::<f32>();
        // SAFETY: the token proves AVX-512; `to` is sixteen words, which have room for 32 values.
        unsafe {
            _mm512_storeu_ps(to, first.0[0]);
            _mm512_storeu_ps(to.add(16), second.0[0]);
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_wrap, reason = "the same bits")]
    fn splat_u32(self, value: u32) -> Avx512U32 {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512U32([_mm512_set1_epi32(value as i32)]) }
    }

    #[inline(always)]
    fn load_u32(self, from: &Lanes<u32>) -> Avx512U32 {
        // SAFETY: the token proves AVX-512; `from` is sixteen values.
        unsafe { Avx512U32([_mm512_loadu_si512(from.as_ptr().cast())]) }
    }

    #[inline(always)]
    fn store_u32(self, value: Avx512U32, to: &mut Lanes<u32>) {
        // SAFETY: the token proves AVX-512; `to` is sixteen values.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), value.0[0]) }
    }

    #[inline(always)]
    fn without(self, value: Avx512U32, of: Avx512U32) -> Avx512U32 {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512U32([_mm512_andnot_si512(of.0[0], value.0[0])]) }
    }

    #[inline(always)]
    fn shift_left<const BITS: u32>(self, value: Avx512U32) -> Avx512U32 {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512U32([_mm512_slli_epi32::<BITS>(value.0[0])]) }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_wrap, reason = "a count of at most 31")]
    fn rotate_left<const BITS: u32>(self, value: Avx512U32) -> Avx512U32 {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512U32([_mm512_rolv_epi32(value.0[0], _mm512_set1_epi32(BITS as i32))]) }
    }

    #[inline(always)]
    fn to_bits(self, value: Avx512F32) -> Avx512U32 {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512U32([_mm512_castps_si512(value.0[0])]) }
    }

    #[inline(always)]
    fn with_bits(self, bits: Avx512U32) -> Avx512F32 {
        // SAFETY: the token proves AVX-512.
        unsafe { Avx512F32([_mm512_castsi512_ps(bits.0[0])]) }
    }

    #[inline(always)]
    fn is_zero(self, value: Avx512U32) -> bool {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_test_epi32_mask(value.0[0], value.0[0]) == 0 }
    }
}

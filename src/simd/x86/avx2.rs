//! AVX2 lanes: two 256-bit registers of f32, four of f64.

use core::arch::x86_64::*;
use core::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Sub};

use super::super::{Kernel, Lanes, Machine, Simd, StripFunctions, Work};
use super::{begins_line, fence, first_lanes, prefetch_first, prefetch_second, readable};
use crate::element::Half;

/// The proof that the CPU has AVX2 and F16C and that its registers may be used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// [`Simd::apart`]. It is not inlined, because its caller does not have the CPU feature.
    #[target_feature(enable = "avx2,f16c")]
    fn run_apart(self, work: impl Work<Self>) {
        work.run(self);
    }

    /// Runs a kernel on AVX2 lanes.
    ///
    /// # Safety
    /// The CPU has AVX2 and F16C and the operating system saves its registers.
    #[target_feature(enable = "avx2,f16c")]
    pub(crate) unsafe fn run(kernel: impl Kernel) {
        kernel.run(Self(()));
    }
}

lanes!(
    /// Sixteen f32 in two registers.
    Avx2F32([__m256; 2])
    Add add _mm256_add_ps,
    Sub sub _mm256_sub_ps,
    Mul mul _mm256_mul_ps,
    Div div _mm256_div_ps,
);
lanes!(
    /// Sixteen f64 in four registers.
    Avx2F64([__m256d; 4])
    Add add _mm256_add_pd,
    Sub sub _mm256_sub_pd,
    Mul mul _mm256_mul_pd,
    Div div _mm256_div_pd,
);
lanes!(
    /// Sixteen u32 in two registers.
    Avx2U32([__m256i; 2])
    Add add _mm256_add_epi32,
    BitAnd bitand _mm256_and_si256,
    BitOr bitor _mm256_or_si256,
    BitXor bitxor _mm256_xor_si256,
);
lanes!(
    /// Sixteen truth values: all bits of a lane set or clear.
    Avx2Mask([__m256; 2])
    BitAnd bitand _mm256_and_ps,
);

impl Machine for Avx2 {
    type Simd = Self;

    #[inline(always)]
    fn all(self) -> Option<Self> {
        Some(self)
    }
}

impl Simd for Avx2 {
    type F32 = Avx2F32;
    type F64 = Avx2F64;
    type U32 = Avx2U32;
    type Mask = Avx2Mask;
    type Halves = [__m128i; 2];

    // This function does not have the CPU feature: a function with the feature would be inlined in
    // spite of `inline(never)`.
    #[inline(never)]
    fn apart(self, work: impl Work<Self>) {
        // SAFETY: the token proves AVX2.
        unsafe { self.run_apart(work) }
    }

    #[inline(always)]
    fn strip(self, functions: &StripFunctions, parameter: f32, factors: &[f32], values: &mut [f32]) {
        (functions.avx2)(self, parameter, factors, values);
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Avx2F32 {
        // SAFETY: the token proves AVX2.
        unsafe { Avx2F32([_mm256_set1_ps(value); 2]) }
    }

    #[inline(always)]
    fn load(self, from: &Lanes<f32>) -> Avx2F32 {
        let from = from.as_ptr();
        // SAFETY: the token proves AVX2; `from` is sixteen values.
        unsafe { Avx2F32([_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))]) }
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> Avx2F32 {
        let (from, n) = (readable(from), from.len());
        let upper = if n > 8 { from.wrapping_add(8) } else { from };
        // SAFETY: the token proves AVX2; a masked load touches only the first lanes, as many as
        // there are values.
        unsafe {
            Avx2F32([
                _mm256_maskload_ps(from, first_lanes(n)),
                _mm256_maskload_ps(upper, first_lanes(n.saturating_sub(8))),
            ])
        }
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
    fn store(self, value: Avx2F32, to: &mut Lanes<f32>) {
        let to = to.as_mut_ptr();
        // SAFETY: the token proves AVX2; `to` is sixteen values.
        unsafe {
            _mm256_storeu_ps(to, value.0[0]);
            _mm256_storeu_ps(to.add(8), value.0[1]);
        }
    }

    #[inline(always)]
    fn store_partial(self, value: Avx2F32, to: &mut [f32]) {
        if let Some(to) = to.first_chunk_mut() {
            return self.store(value, to);
        }
        let ([mut eight, upper], n) = (value.0, to.len());
        let mut to = to.as_mut_ptr();
        // Masked stores would not do: one takes a dozen cycles on some CPUs. SAFETY: the token
        // proves AVX2; `to` has room for `n` values, and `n` is the sum of the powers of two that
        // are stored behind each other.
        unsafe {
            if n & 8 != 0 {
                _mm256_storeu_ps(to, eight);
                (to, eight) = (to.add(8), upper);
            }
            let mut four = _mm256_castps256_ps128(eight);
            if n & 4 != 0 {
                _mm_storeu_ps(to, four);
                (to, four) = (to.add(4), _mm256_extractf128_ps::<1>(eight));
            }
            if n & 2 != 0 {
                _mm_storel_epi64(to.cast(), _mm_castps_si128(four));
                (to, four) = (to.add(2), _mm_movehl_ps(four, four));
            }
            if n & 1 != 0 {
                _mm_store_ss(to, four);
            }
        }
    }

    #[inline(always)]
    fn stream(self, value: Avx2F32, to: &mut Lanes<f32>) {
        if !begins_line(to) {
            return self.store(value, to);
        }
        let to = to.as_mut_ptr();
        // SAFETY: the token proves AVX2; `to` is sixteen values, aligned to 64 bytes. `fence` comes
        // before another thread may read them.
        unsafe {
            _mm256_stream_ps(to, value.0[0]);
            _mm256_stream_ps(to.add(8), value.0[1]);
        }
    }

    #[inline(always)]
    fn fence(self) {
        fence();
    }

    #[inline(always)]
    fn load_halves<H: Half>(self, from: &Lanes<H>) -> [__m128i; 2] {
        let from = from.as_ptr().cast::<__m128i>();
        // SAFETY: the token proves AVX2; `from` is sixteen values of sixteen bits.
        unsafe { [_mm_loadu_si128(from), _mm_loadu_si128(from.add(1))] }
    }

    #[inline(always)]
    fn store_halves<H: Half>(self, [low, high]: [__m128i; 2], to: &mut Lanes<H>) {
        let to = to.as_mut_ptr().cast::<__m128i>();
        // SAFETY: the token proves AVX2; `to` is sixteen values of sixteen bits, and any bits are a
        // value.
        unsafe {
            _mm_storeu_si128(to, low);
            _mm_storeu_si128(to.add(1), high);
        }
    }

    #[inline(always)]
    fn stream_halves<H: Half>(self, [first, second]: [[__m128i; 2]; 2], to: &mut [Lanes<H>; 2]) {
        if !begins_line(to) {
            let [to_first, to_second] = to;
            self.store_halves(first, to_first);
            return self.store_halves(second, to_second);
        }
        let to = to.as_mut_ptr().cast::<__m256i>();
        // SAFETY: the token proves AVX2; `to` is 32 values of sixteen bits, aligned to 64 bytes, and
        // any bits are a value. `fence` comes before another thread may read them.
        unsafe {
            _mm256_stream_si256(to, _mm256_set_m128i(first[1], first[0]));
            _mm256_stream_si256(to.add(1), _mm256_set_m128i(second[1], second[0]));
        }
    }

    #[inline(always)]
    fn widen_f16(self, [low, high]: [__m128i; 2]) -> Avx2F32 {
        // SAFETY: the token proves F16C.
        unsafe { Avx2F32([_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)]) }
    }

    #[inline(always)]
    fn narrow_f16(self, value: Avx2F32) -> [__m128i; 2] {
        const NEAREST_EVEN: i32 = _MM_FROUND_TO_NEAREST_INT;
        // SAFETY: the token proves F16C. The instruction keeps subnormal halves in every
        // environment.
        unsafe { [_mm256_cvtps_ph::<NEAREST_EVEN>(value.0[0]), _mm256_cvtps_ph::<NEAREST_EVEN>(value.0[1])] }
    }

    #[inline(always)]
    fn widen_bf16(self, [low, high]: [__m128i; 2]) -> Avx2F32 {
        // SAFETY: the token proves AVX2.
        unsafe {
            let (low, high) = (_mm256_cvtepu16_epi32(low), _mm256_cvtepu16_epi32(high));
            Avx2F32([
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ])
        }
    }

    #[inline(always)]
    fn narrow_bf16(self, value: Avx2F32) -> [__m128i; 2] {
        /// The upper halves of eight f32, rounded to nearest even. The half of a NaN is a quiet NaN.
        ///
        /// # Safety
        /// The CPU has AVX2.
        #[inline(always)]
        unsafe fn upper_halves(value: __m256) -> __m256i {
            // SAFETY: the caller has AVX2.
            unsafe {
                let bits = _mm256_castps_si256(value);
                let upper = _mm256_srli_epi32::<16>(bits);
                let even = _mm256_and_si256(upper, _mm256_set1_epi32(1));
                let sum = _mm256_add_epi32(bits, _mm256_add_epi32(even, _mm256_set1_epi32(0x7fff)));
                let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
                let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x0040));
                _mm256_blendv_epi8(_mm256_srli_epi32::<16>(sum), quiet, is_nan)
            }
        }

        // SAFETY: the token proves AVX2.
        unsafe {
            let [low, high] = [upper_halves(value.0[0]), upper_halves(value.0[1])];
            // `packus` leaves four words of `low` and four of `high` in each half of the register.
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high));
            [_mm256_castsi256_si128(packed), _mm256_extracti128_si256::<1>(packed)]
        }
    }

    #[inline(always)]
    fn le(self, a: Avx2F32, b: Avx2F32) -> Avx2Mask {
        // SAFETY: the token proves AVX2.
        unsafe { Avx2Mask([_mm256_cmp_ps::<_CMP_LE_OQ>(a.0[0], b.0[0]), _mm256_cmp_ps::<_CMP_LE_OQ>(a.0[1], b.0[1])]) }
    }

    #[inline(always)]
    fn unless_less(self, mask: Avx2Mask, a: Avx2F32, b: Avx2F32) -> Avx2Mask {
        // SAFETY: the token proves AVX2.
        unsafe {
            Avx2Mask([
                _mm256_and_ps(mask.0[0], _mm256_cmp_ps::<_CMP_NLT_UQ>(a.0[0], b.0[0])),
                _mm256_and_ps(mask.0[1], _mm256_cmp_ps::<_CMP_NLT_UQ>(a.0[1], b.0[1])),
            ])
        }
    }

    #[inline(always)]
    fn keep(self, mask: Avx2Mask, value: Avx2F32) -> Avx2F32 {
        // SAFETY: the token proves AVX2.
        unsafe { Avx2F32([_mm256_and_ps(mask.0[0], value.0[0]), _mm256_and_ps(mask.0[1], value.0[1])]) }
    }

    #[inline(always)]
    fn drop(self, mask: Avx2Mask, value: Avx2F32) -> Avx2F32 {
        // SAFETY: the token proves AVX2.
        unsafe { Avx2F32([_mm256_andnot_ps(mask.0[0], value.0[0]), _mm256_andnot_ps(mask.0[1], value.0[1])]) }
    }

    #[inline(always)]
    fn select(self, mask: Avx2Mask, yes: Avx2F32, no: Avx2F32) -> Avx2F32 {
        // SAFETY: the token proves AVX2.
        unsafe {
            Avx2F32([_mm256_blendv_ps(no.0[0], yes.0[0], mask.0[0]), _mm256_blendv_ps(no.0[1], yes.0[1], mask.0[1])])
        }
    }

    #[inline(always)]
    fn mask(self, bits: u16) -> Avx2Mask {
        // SAFETY: the token proves AVX2.
        unsafe {
            let low = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let high = _mm256_slli_epi32::<8>(low);
            let bits = _mm256_set1_epi32(i32::from(bits));
            Avx2Mask([
                _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(bits, low), low)),
                _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(bits, high), high)),
            ])
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "eight bits each")]
    fn bits(self, mask: Avx2Mask) -> u16 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_movemask_ps(mask.0[0]) as u16 | (_mm256_movemask_ps(mask.0[1]) as u16) << 8 }
    }

    #[inline(always)]
    fn splat_f64(self, value: f64) -> Avx2F64 {
        // SAFETY: the token proves AVX2.
        unsafe { Avx2F64([_mm256_set1_pd(value); 4]) }
    }

    #[inline(always)]
    fn load_f64(self, from: &Lanes<f64>) -> Avx2F64 {
        let from = from.as_ptr();
        // SAFETY: the token proves AVX2; `from` is sixteen values.
        unsafe {
            Avx2F64([
                _mm256_loadu_pd(from),
                _mm256_loadu_pd(from.add(4)),
                _mm256_loadu_pd(from.add(8)),
                _mm256_loadu_pd(from.add(12)),
            ])
        }
    }

    #[inline(always)]
    fn store_f64(self, value: Avx2F64, to: &mut Lanes<f64>) {
        let to = to.as_mut_ptr();
        // SAFETY: the token proves AVX2; `to` is sixteen values.
        unsafe {
            _mm256_storeu_pd(to, value.0[0]);
            _mm256_storeu_pd(to.add(4), value.0[1]);
            _mm256_storeu_pd(to.add(8), value.0[2]);
            _mm256_storeu_pd(to.add(12), value.0[3]);
        }
    }

    #[inline(always)]
    fn widen(self, value: Avx2F32) -> Avx2F64 {
        // SAFETY: the token proves AVX2.
        unsafe {
            Avx2F64([
                _mm256_cvtps_pd(_mm256_castps256_ps128(value.0[0])),
                _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(value.0[0])),
                _mm256_cvtps_pd(_mm256_castps256_ps128(value.0[1])),
                _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(value.0[1])),
            ])
        }
    }

    #[inline(always)]
    fn narrow(self, value: Avx2F64) -> Avx2F32 {
        // SAFETY: the token proves AVX2.
        unsafe {
            Avx2F32([
                _mm256_set_m128(_mm256_cvtpd_ps(value.0[1]), _mm256_cvtpd_ps(value.0[0])),
                _mm256_set_m128(_mm256_cvtpd_ps(value.0[3]), _mm256_cvtpd_ps(value.0[2])),
            ])
        }
    }

    #[inline(always)]
    fn sqrt(self, value: Avx2F64) -> Avx2F64 {
        let mut result = value.0;
        for value in &mut result {
            // SAFETY: the token proves AVX2.
            *value = unsafe { _mm256_sqrt_pd(*value) };
        }
        Avx2F64(result)
    }

    #[inline(always)]
    fn larger(self, a: Avx2F64, b: Avx2F64) -> Avx2F64 {
        let mut result = b.0;
        for (b, a) in result.iter_mut().zip(a.0) {
            // SAFETY: the token proves AVX2.
            *b = unsafe { _mm256_max_pd(a, *b) };
        }
        Avx2F64(result)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "four bits")]
    fn less(self, a: Avx2F64, b: Avx2F64) -> u16 {
        let mut bits = 0;
        for (number, (a, b)) in a.0.into_iter().zip(b.0).enumerate() {
            // SAFETY: the token proves AVX2.
            let four = unsafe { _mm256_movemask_pd(_mm256_cmp_pd::<_CMP_LT_OQ>(a, b)) };
            bits |= (four as u16) << (4 * number);
        }
        bits
    }

    #[inline(always)]
    fn load_pair(self, from: &Lanes<f64>) -> (Avx2F32, Avx2F32) {
        let from = from.as_ptr().cast::<f32>();
        // SAFETY: the token proves AVX2; `from` is sixteen words, which have room for 32 values.
        unsafe {
            (
                Avx2F32([_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))]),
                Avx2F32([_mm256_loadu_ps(from.add(16)), _mm256_loadu_ps(from.add(24))]),
            )
        }
    }

    #[inline(always)]
    fn store_pair(self, first: Avx2F32, second: Avx2F32, to: &mut Lanes<f64>) {
        let to = to.as_mut_ptr().cast::<f32>();
        // SAFETY: the token proves AVX2; `to` is sixteen words, which have room for 32 values.
        unsafe {
            _mm256_storeu_ps(to, first.0[0]);
            _mm256_storeu_ps(to.add(8), first.0[1]);
            _mm256_storeu_ps(to.add(16), second.0[0]);
            _mm256_storeu_ps(to.add(24), second.0[1]);
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_wrap, reason = "the same bits")]
    fn splat_u32(self, value: u32) -> Avx2U32 {
        // SAFETY: the token proves AVX2.
        unsafe { Avx2U32([_mm256_set1_epi32(value as i32); 2]) }
    }

    #[inline(always)]
    fn load_u32(self, from: &Lanes<u32>) -> Avx2U32 {
        let from = from.as_ptr();
        // SAFETY: the token proves AVX2; `from` is sixteen values.
        unsafe { Avx2U32([_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())]) }
    }

    #[inline(always)]
    fn store_u32(self, value: Avx2U32, to: &mut Lanes<u32>) {
        let to = to.as_mut_ptr();
        // SAFETY: the token proves AVX2; `to` is sixteen values.
        unsafe {
            _mm256_storeu_si256(to.cast(), value.0[0]);
            _mm256_storeu_si256(to.add(8).cast(), value.0[1]);
        }
    }

    #[inline(always)]
    fn without(self, value: Avx2U32, of: Avx2U32) -> Avx2U32 {
        // SAFETY: the token proves AVX2.
        unsafe { Avx2U32([_mm256_andnot_si256(of.0[0], value.0[0]), _mm256_andnot_si256(of.0[1], value.0[1])]) }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_wrap, reason = "a count of at most 31")]
    fn shift_left<const BITS: u32>(self, value: Avx2U32) -> Avx2U32 {
        // SAFETY: the token proves AVX2.
        unsafe {
            let count = _mm_cvtsi32_si128(BITS as i32);
            Avx2U32([_mm256_sll_epi32(value.0[0], count), _mm256_sll_epi32(value.0[1], count)])
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_wrap, reason = "counts of at most 31")]
    fn rotate_left<const BITS: u32>(self, value: Avx2U32) -> Avx2U32 {
        // SAFETY: the token proves AVX2.
        let right = unsafe {
            let count = _mm_cvtsi32_si128(32 - BITS as i32);
            Avx2U32([_mm256_srl_epi32(value.0[0], count), _mm256_srl_epi32(value.0[1], count)])
        };
        self.shift_left::<BITS>(value) | right
    }

    #[inline(always)]
    fn to_bits(self, value: Avx2F32) -> Avx2U32 {
        // SAFETY: the token proves AVX2.
        unsafe { Avx2U32([_mm256_castps_si256(value.0[0]), _mm256_castps_si256(value.0[1])]) }
    }

    #[inline(always)]
    fn with_bits(self, bits: Avx2U32) -> Avx2F32 {
        // SAFETY: the token proves AVX2.
        unsafe { Avx2F32([_mm256_castsi256_ps(bits.0[0]), _mm256_castsi256_ps(bits.0[1])]) }
    }

    #[inline(always)]
    fn is_zero(self, value: Avx2U32) -> bool {
        // SAFETY: the token proves AVX2.
        unsafe {
            let any = _mm256_or_si256(value.0[0], value.0[1]);
            _mm256_testz_si256(any, any) != 0
        }
    }
}

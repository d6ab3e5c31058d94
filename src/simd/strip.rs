//! Functions of a strip of values, which kernels call by a pointer. Each is compiled once for each
//! backend, and a program has its code only if it names the function.

use core::marker::PhantomData;

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
use super::x86::{Avx2, Avx512};
use super::{LANES, Lane, Lanes, PortableStrip, Simd, Work};

/// A function of a value `z`, of a factor `dy` for each value if it asks for factors, and of one
/// parameter.
pub(crate) trait Strip {
    /// Whether the function has a factor for each value.
    const FACTORS: bool;

    /// The function of a vector of values.
    fn vector<S: Simd>(s: S, parameter: f32, z: S::F32, dy: S::F32) -> S::F32;
}

/// A [`Strip`] as pointers to functions, one for each backend of the target and one for single
/// values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StripFunctions {
    /// The function on portable lanes, for single values on every backend.
    pub(super) portable: PortableStrip,
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
    pub(super) avx2: StripFunction<Avx2>,
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
    pub(super) avx512: StripFunction<Avx512>,
}

/// A [`Strip`] of a single value. Its arguments are the parameter, `z` and `dy`.
pub(super) type SingleFunction = fn(f32, f32, f32) -> f32;

/// A [`Strip`] on the lanes of one backend. Its arguments are the token, the parameter, the factors
/// (none if it asks for none) and the values, which it overwrites.
pub(super) type StripFunction<S> = fn(S, f32, &[f32], &mut [f32]);

impl StripFunctions {
    pub(crate) const fn of<F: Strip>() -> Self {
        Self {
            portable: PortableStrip::of::<F>(),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
            avx2: if cfg!(any(normdrop_backend = "scalar", normdrop_backend = "portable")) {
                |_, _, _, _| {}
            } else {
                strip::<Avx2, F>
            },
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
            avx512: if cfg!(any(normdrop_backend = "scalar", normdrop_backend = "portable", normdrop_backend = "avx2"))
            {
                |_, _, _, _| {}
            } else {
                strip::<Avx512, F>
            },
        }
    }

    /// The function of one value.
    #[inline(always)]
    pub(crate) fn single(&self, parameter: f32, z: f32, dy: f32) -> f32 {
        (self.portable.single)(parameter, z, dy)
    }
}

/// Calls a function with a single value.
pub(super) fn single<F: Strip>(parameter: f32, z: f32, dy: f32) -> f32 {
    F::vector(Lane::FIRST, parameter, z, dy)
}

/// Calls a function with a strip.
pub(super) fn strip<S: Simd, F: Strip>(s: S, parameter: f32, factors: &[f32], values: &mut [f32]) {
    s.apart(Run { strip: PhantomData::<F>, parameter, factors, values });
}

/// A function of a strip, and the strip.
struct Run<'a, F> {
    strip: PhantomData<F>,
    parameter: f32,
    factors: &'a [f32],
    values: &'a mut [f32],
}

impl<S: Simd, F: Strip> Work<S> for Run<'_, F> {
    #[inline(always)]
    fn run(self, s: S) {
        self.each_vector(s);
    }
}

impl<F: Strip> Run<'_, F> {
    #[inline(always)]
    fn each_vector<S: Simd>(self, s: S) {
        let Self { parameter, factors, values, .. } = self;
        let (values, rest) = values.as_chunks_mut::<LANES>();
        if !F::FACTORS {
            for z in values {
                s.store(F::vector(s, parameter, s.load(z), s.splat(0.0)), z);
            }
            if !rest.is_empty() {
                s.store_partial(F::vector(s, parameter, s.load_partial(rest), s.splat(0.0)), rest);
            }
            return;
        }
        let (factors, factors_rest): (&[Lanes<f32>], _) = factors.as_chunks();
        for (z, dy) in values.iter_mut().zip(factors) {
            s.store(F::vector(s, parameter, s.load(z), s.load(dy)), z);
        }
        if !rest.is_empty() {
            s.store_partial(F::vector(s, parameter, s.load_partial(rest), s.load_partial(factors_rest)), rest);
        }
    }
}

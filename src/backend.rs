//! The names of the instruction sets. `simd/detect.rs` says which of them this CPU and this build
//! can run.

/// The instruction sets for which the kernels are written. All give the same bits and differ only
/// in speed.
///
/// ```
/// use normdrop::Backend;
/// assert!(Backend::Portable.is_available());
/// println!("this CPU runs {:?}", Backend::detect());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// 128-bit registers where the target has them by default (SSE2, NEON, simd128), scalar
    /// arithmetic elsewhere.
    Portable,
    /// x86-64 with AVX2 and F16C: 256-bit registers.
    Avx2,
    /// x86-64 with AVX-512 F, VL, BW and DQ: 512-bit registers.
    Avx512,
}

impl Backend {
    /// All backends, slowest first.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// The backend's name in lower case, as benchmarks and reports print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

//! The choice of the backend of a call: by the build if it decides, by CPUID otherwise.
#![cfg_attr(
    all(target_arch = "x86_64", target_feature = "sse2"),
    expect(unsafe_code, reason = "the tokens of the backends, CPUID and XGETBV")
)]

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
use super::x86::{Avx2, Avx512};
use super::{Kernel, Portable};
use crate::backend::Backend;
use crate::error::Error;

impl Backend {
    /// The fastest backend that this CPU and this build can run. Every call uses it unless
    /// [`Layer::with_backend`](crate::Layer::with_backend) names another.
    ///
    /// With `--cfg normdrop_backend="portable"` (or `"avx2"`, `"avx512"`) in `RUSTFLAGS` it is at
    /// most the named backend. With `"scalar"` it is the portable backend in its form for targets
    /// without vector registers.
    #[must_use]
    #[inline]
    pub fn detect() -> Self {
        if cfg!(any(normdrop_backend = "scalar", normdrop_backend = "portable")) {
            return Self::Portable;
        }
        let fastest = cpuid::fastest();
        if cfg!(normdrop_backend = "avx2") { fastest.min(Self::Avx2) } else { fastest }
    }

    /// Whether this CPU and this build can run the backend.
    #[must_use]
    #[inline]
    pub fn is_available(self) -> bool {
        self <= Self::detect()
    }

    /// The backend `self`, if it is available.
    ///
    /// # Errors
    /// [`Error::BackendUnavailable`] if this CPU or this build cannot run it.
    #[inline]
    pub fn require(self) -> Result<Self, Error> {
        if self.is_available() { Ok(self) } else { Err(Error::BackendUnavailable { backend: self }) }
    }
}

/// Runs a kernel on the requested backend, or on the fastest one if none is requested or it is not
/// available.
#[inline(always)]
pub(crate) fn dispatch(requested: Option<Backend>, kernel: impl Kernel) {
    let detected = Backend::detect();
    let backend = match requested {
        Some(requested) => requested.min(detected),
        None => detected,
    };
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
    {
        // A token is made only here, right after detection.
        match backend {
            Backend::Avx512
                if !cfg!(any(
                    normdrop_backend = "scalar",
                    normdrop_backend = "portable",
                    normdrop_backend = "avx2"
                )) =>
            {
                // SAFETY: `detect` found AVX-512 F, VL, BW and DQ, and the operating system saves
                // their registers.
                return unsafe { Avx512::run(kernel) };
            }
            Backend::Avx2 if !cfg!(any(normdrop_backend = "scalar", normdrop_backend = "portable")) => {
                // SAFETY: `detect` found AVX2 and F16C or better, and the operating system saves its
                // registers.
                return unsafe { Avx2::run(kernel) };
            }
            _ => {}
        }
    }
    let _ = backend;
    run_portable(kernel);
}

/// Runs a kernel on portable lanes. Where the lanes are vectors this is a function of its own: without
/// optimisation every vector has its place on the stack, and the caller would have the vectors of
/// several kernels and backends.
#[cfg_attr(
    any(target_feature = "sse2", target_feature = "simd128", all(target_arch = "aarch64", target_feature = "neon")),
    inline(never)
)]
#[cfg_attr(
    not(any(
        target_feature = "sse2",
        target_feature = "simd128",
        all(target_arch = "aarch64", target_feature = "neon")
    )),
    inline(always)
)]
fn run_portable(kernel: impl Kernel) {
    kernel.run(Portable);
}

#[cfg(not(all(
    target_arch = "x86_64",
    target_feature = "sse2",
    not(target_os = "none"),
    not(target_os = "uefi"),
    not(target_env = "sgx")
)))]
mod cpuid {
    use super::Backend;

    #[inline(always)]
    pub(super) const fn fastest() -> Backend {
        // Other targets have one backend. Bare x86-64, UEFI and SGX do not promise wide registers,
        // or have no CPUID.
        Backend::Portable
    }
}

/// The answers of CPUID and XGETBV.
#[cfg(all(
    target_arch = "x86_64",
    target_feature = "sse2",
    not(target_os = "none"),
    not(target_os = "uefi"),
    not(target_env = "sgx")
))]
mod cpuid {
    use super::Backend;
    use core::arch::x86_64::{__cpuid_count, CpuidResult};

    /// The fastest backend of this CPU, asked for once.
    #[inline(always)]
    pub(super) fn fastest() -> Backend {
        use core::sync::atomic::{AtomicU8, Ordering};

        // A CPU feature that `-C target-cpu` or `-C target-feature` promised at build time needs no
        // question at run time.
        if cfg!(all(
            target_feature = "avx512f",
            target_feature = "avx512vl",
            target_feature = "avx512bw",
            target_feature = "avx512dq"
        )) {
            return Backend::Avx512;
        }

        // CPUID traps in virtual machines and costs more than a small layer: it is asked once.
        // Threads that race here store the same value.
        const UNKNOWN: u8 = 0;
        const PORTABLE: u8 = 1;
        const AVX2: u8 = 2;
        const AVX512: u8 = 3;
        static CACHED: AtomicU8 = AtomicU8::new(UNKNOWN);

        #[cold]
        #[inline(never)]
        fn ask(cached: &AtomicU8) -> u8 {
            let found = match cpu() {
                Backend::Portable => PORTABLE,
                Backend::Avx2 => AVX2,
                Backend::Avx512 => AVX512,
            };
            cached.store(found, Ordering::Relaxed);
            found
        }

        let found = match CACHED.load(Ordering::Relaxed) {
            UNKNOWN => ask(&CACHED),
            found => found,
        };
        match found {
            AVX512 => Backend::Avx512,
            AVX2 => Backend::Avx2,
            _ if cfg!(all(target_feature = "avx2", target_feature = "f16c")) => Backend::Avx2,
            _ => Backend::Portable,
        }
    }

    /// The fastest backend whose instructions the CPU has and whose registers the operating system
    /// saves.
    fn cpu() -> Backend {
        best(cpuid(0).eax, cpuid(1).ecx, || cpuid(7).ebx, saved_state)
    }

    /// The first subleaf of a leaf of CPUID.
    fn cpuid(leaf: u32) -> CpuidResult {
        // The intrinsic is unsafe before Rust 1.94 and safe since. A pointer of this type is unsafe
        // to call in all of them.
        let cpuid: unsafe fn(u32, u32) -> CpuidResult = __cpuid_count;
        // SAFETY: every x86-64 CPU has the instruction, which only reads information about the CPU.
        unsafe { cpuid(leaf, 0) }
    }

    /// The fastest backend of a CPU, from its last leaf of CPUID, ECX of leaf 1, EBX of leaf 7 and
    /// XCR0. The last two are functions, called only if the CPU has leaf 7 and XGETBV.
    ///
    /// Every CPU with AVX2 has F16C, but an emulator may leave it out.
    ///
    /// The bits are from the Intel Software Developer's Manual, volume 2A, CPUID, and volume 1,
    /// section 14.3 and 15.2 (detection of AVX2 and AVX-512).
    fn best(last_leaf: u32, leaf_1: u32, leaf_7: impl FnOnce() -> u32, saved_state: impl FnOnce() -> u32) -> Backend {
        const OSXSAVE_AVX_AND_F16C: u32 = 1 << 27 | 1 << 28 | 1 << 29;
        const AVX2: u32 = 1 << 5;
        const AVX512: u32 = 1 << 16 | 1 << 17 | 1 << 30 | 1 << 31; // F, DQ, BW, VL
        const YMM_SAVED: u32 = 0b110; // xmm and the upper halves of ymm
        const ZMM_SAVED: u32 = 0b1110_0110; // also mask registers, upper halves and upper registers of zmm

        if last_leaf < 7 || leaf_1 & OSXSAVE_AVX_AND_F16C != OSXSAVE_AVX_AND_F16C {
            return Backend::Portable;
        }
        let (saved, features) = (saved_state(), leaf_7());
        if saved & YMM_SAVED != YMM_SAVED || features & AVX2 == 0 {
            return Backend::Portable;
        }
        if saved & ZMM_SAVED != ZMM_SAVED || features & AVX512 != AVX512 {
            return Backend::Avx2;
        }
        Backend::Avx512
    }

    /// The low half of XCR0: the register state that the operating system saves. Only if CPUID
    /// reports OSXSAVE.
    fn saved_state() -> u32 {
        let low: u32;
        // SAFETY: the caller found OSXSAVE, so XGETBV exists and XCR0 may be read; it touches
        // neither memory nor stack.
        unsafe {
            core::arch::asm!(
                "xgetbv",
                in("ecx") 0,
                out("eax") low,
                out("edx") _,
                options(nomem, nostack, preserves_flags),
            );
        }
        low
    }

    #[cfg(test)]
    mod tests {
        use super::{Backend, best};

        /// The bits of a CPU with AVX-512 whose registers the operating system saves, each with
        /// the fastest backend that is left without it.
        const LEAF_1: [(u32, Backend); 3] = [
            (0x0800_0000, Backend::Portable), // OSXSAVE
            (0x1000_0000, Backend::Portable), // AVX
            (0x2000_0000, Backend::Portable), // F16C
        ];
        const LEAF_7: [(u32, Backend); 5] = [
            (0x0000_0020, Backend::Portable), // AVX2
            (0x0001_0000, Backend::Avx2),     // AVX-512 F
            (0x0002_0000, Backend::Avx2),     // DQ
            (0x4000_0000, Backend::Avx2),     // BW
            (0x8000_0000, Backend::Avx2),     // VL
        ];
        const SAVED: [(u32, Backend); 5] = [
            (0x02, Backend::Portable),
            (0x04, Backend::Portable),
            (0x20, Backend::Avx2),
            (0x40, Backend::Avx2),
            (0x80, Backend::Avx2),
        ];

        fn all(bits: &[(u32, Backend)]) -> u32 {
            bits.iter().fold(0, |all, (bit, _)| all | bit)
        }

        /// The answer of [`best`], which must not depend on the bits that it does not read: they are all
        /// clear, then all set.
        fn of(leaf_1: u32, leaf_7: u32, saved: u32) -> Backend {
            let [one, other] = [0, u32::MAX].map(|noise| {
                let noisy = |bits: u32, looked_at: &[(u32, Backend)]| bits | noise & !all(looked_at);
                best(13, noisy(leaf_1, &LEAF_1), || noisy(leaf_7, &LEAF_7), || noisy(saved, &SAVED))
            });
            assert_eq!(one, other);
            one
        }

        #[test]
        fn safety_contract_no_backend_without_every_feature_and_register_that_it_needs() {
            let (leaf_1, leaf_7, saved) = (all(&LEAF_1), all(&LEAF_7), all(&SAVED));
            assert_eq!(of(leaf_1, leaf_7, saved), Backend::Avx512);
            for (bit, left) in LEAF_1 {
                assert_eq!(of(leaf_1 & !bit, leaf_7, saved), left, "without bit {bit:#x} of leaf 1");
            }
            for (bit, left) in LEAF_7 {
                assert_eq!(of(leaf_1, leaf_7 & !bit, saved), left, "without bit {bit:#x} of leaf 7");
            }
            for (bit, left) in SAVED {
                assert_eq!(of(leaf_1, leaf_7, saved & !bit), left, "without bit {bit:#x} of XCR0");
            }
        }

        /// Leaf 7 and XGETBV are asked for only where they exist.
        #[test]
        fn safety_contract_nothing_is_asked_that_the_cpu_does_not_have() {
            let (leaf_1, leaf_7, saved) = (all(&LEAF_1), all(&LEAF_7), all(&SAVED));
            let none = || -> u32 { panic!("there is no such thing") };
            assert_eq!(best(6, leaf_1, none, none), Backend::Portable);
            assert_eq!(best(7, leaf_1, || leaf_7, || saved), Backend::Avx512);
            for (bit, _) in LEAF_1 {
                assert_eq!(best(13, leaf_1 & !bit, none, none), Backend::Portable);
            }
        }
    }
}

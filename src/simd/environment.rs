//! The floating-point environment of a thread: rounding mode, subnormal numbers, traps, and the
//! sticky flags of exceptions.
//!
//! Results are those of the default environment of IEEE 754: rounded to nearest even, subnormal
//! numbers kept, no exception trapped. [`in_default`] sets it for some work if the thread has
//! another one, and gives the thread its own back afterwards, flags included. If the thread has the
//! default one, a call reads one register, and the flags that its arithmetic raises stay raised.
//!
//! | architecture | register |
//! |---|---|
//! | x86-64 and x86 with SSE2 | MXCSR |
//! | `AArch64` with floating point | FPCR; FPSR has the flags |
//! | Arm of 32 bits | FPSCR |
//! | RISC-V | fcsr |
//! | s390x | FPC |
//! | `LoongArch` of 64 bits with floating point | FCSR0 |
//!
//! Stable Rust does not say whether a RISC-V target other than Linux, or an Arm target
//! with the ABI `eabi`, has a unit for floats, and without one there is no register to read. There
//! a call first computes two sums. Arithmetic in software always gives the results of the default
//! environment; another result shows that there is a unit, and that its register is to be read.
//! (Such a sum may raise the flags of inexact results and of subnormal operands.)
//!
//! WebAssembly, arithmetic in software, and Miri, which interprets a program, have the default
//! environment alone. PowerPC, MIPS and SPARC have a register that is not touched here, because
//! the declared minimum of the compiler has no stable inline assembly for them: the caller has to
//! keep the default environment.

pub(crate) use unit::Caller;

/// Runs `work` in the default floating-point environment.
///
/// For the compiler, arithmetic on floats has no side effects, so that it could move arithmetic of a
/// function across the instructions that change the register. The work is therefore always a
/// function of its own, which is called between them.
#[inline(always)]
pub(crate) fn in_default<R>(work: impl FnOnce() -> R) -> R {
    let _caller = Caller::enter();
    Caller::apart(work)
}

/// On Arm, keeps the compiler from vectorising the loop in which this function is called: Helium, the
/// vector unit of a Cortex-M55, takes subnormal numbers for 0. The call becomes no instruction.
#[inline(always)]
#[cfg_attr(target_arch = "arm", expect(unsafe_code, reason = "an empty piece of assembly"))]
pub(crate) fn one_at_a_time() {
    #[cfg(all(target_arch = "arm", not(miri)))]
    // SAFETY: no instruction.
    unsafe {
        core::arch::asm!("", options(nostack, preserves_flags));
    }
}

/// A result in f64, rounded once to nearest.
///
/// On Arm it is not inlined: LLVM makes f32 arithmetic of an f64 sum or product that is rounded at
/// once, if the result is the same, and vectorises it for Helium.
#[cfg_attr(target_arch = "arm", inline(never))]
#[expect(clippy::cast_possible_truncation, reason = "rounded once, to nearest")]
pub(crate) fn rounded(value: f64) -> f32 {
    value as f32
}

/// Targets whose register is read and written.
#[cfg(all(
    not(miri),
    any(
        all(any(target_arch = "x86_64", target_arch = "x86"), target_feature = "sse2"),
        all(target_arch = "aarch64", target_feature = "neon"),
        all(target_arch = "arm", any(target_abi = "eabihf", target_has_atomic = "32")),
        target_arch = "riscv32",
        target_arch = "riscv64",
        target_arch = "s390x",
        all(target_arch = "loongarch64", target_feature = "f"),
    )
))]
#[expect(unsafe_code, reason = "the register of the floating-point environment")]
mod unit {
    use core::arch::asm;

    /// The environment that the thread had. The thread gets it back when this value is dropped: at the
    /// end of the work, or when a task of the work panics.
    pub(crate) struct Caller(Register);

    impl Caller {
        /// Sets the default environment. A caller that does not use
        /// [`in_default`](super::in_default), which takes a place on the stack, does no arithmetic
        /// on floats itself, but calls functions that are not inlined.
        #[inline(always)]
        pub(crate) fn enter() -> Self {
            let register = Register::read();
            if register.is_default() { Self(register) } else { Self(register.replace()) }
        }

        #[inline(never)]
        pub(super) fn apart<R>(work: impl FnOnce() -> R) -> R {
            // SAFETY: no instruction. For the compiler this call may now read and write any memory,
            // as the changes of the register may, and it keeps the three in order.
            unsafe { asm!("", options(nostack, preserves_flags)) };
            work()
        }
    }

    impl Drop for Caller {
        #[inline(always)]
        fn drop(&mut self) {
            if !self.0.is_default() {
                self.0.write();
            }
        }
    }

    /// MXCSR. Intel Software Developer's Manual, volume 1, section 10.2.3.
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    struct Register(u32);

    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    impl Register {
        /// The six sticky flags. The bits above 15 are no flags.
        const FLAGS: u32 = 0x3F;
        /// Every exception masked, rounding to nearest, neither flush-to-zero nor
        /// denormals-are-zero.
        const DEFAULT: u32 = 0x1F80;

        #[inline(always)]
        fn read() -> Self {
            let mut word = 0_u32;
            // SAFETY: SSE is there; it stores 32 bits where there are 32.
            unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
            Self(word)
        }

        #[inline(always)]
        const fn is_default(&self) -> bool {
            self.0 & 0xFFFF & !Self::FLAGS == Self::DEFAULT
        }

        #[cold]
        fn replace(self) -> Self {
            Self(Self::DEFAULT).write();
            self
        }

        #[inline(always)]
        fn write(&self) {
            // SAFETY: the CPU accepts the word: it is the default one or was read. No arithmetic of
            // this function can be affected, and the caller's environment is as it was when the
            // call ends.
            unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const self.0, options(nostack)) };
        }
    }

    /// FPCR and, read only if FPCR is not the default one, FPSR. Arm Architecture Reference Manual
    /// for A-profile, sections D24.2.64 and D24.2.65 (issue K.a).
    #[cfg(target_arch = "aarch64")]
    struct Register {
        control: u64,
        status: u64,
    }

    #[cfg(target_arch = "aarch64")]
    impl Register {
        #[inline(always)]
        fn read() -> Self {
            let control;
            // SAFETY: reads a register that every program may read.
            unsafe { asm!("mrs {}, fpcr", out(reg) control, options(nostack, preserves_flags)) };
            Self { control, status: 0 }
        }

        #[inline(always)]
        const fn is_default(&self) -> bool {
            self.control == 0
        }

        #[cold]
        fn replace(self) -> Self {
            let status;
            // SAFETY: as above.
            unsafe { asm!("mrs {}, fpsr", out(reg) status, options(nostack, preserves_flags)) };
            Self { control: 0, status }.write();
            Self { status, ..self }
        }

        #[inline(always)]
        fn write(&self) {
            // SAFETY: every program may write these registers, with 0 or what was read. No
            // arithmetic of this function can be affected, and the caller's environment is as it
            // was when the call ends.
            unsafe {
                asm!("msr fpcr, {}", "msr fpsr, {}", in(reg) self.control, in(reg) self.status, options(nostack))
            };
        }
    }

    /// One word that has the control bits of [`CONTROL`] and the flags.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    struct Register(Word);

    /// FPSCR: alternative half precision, default NaN, flush-to-zero, rounding mode, traps. Arm
    /// Architecture Reference Manual for `ARMv7-A`, section A2.7.3; for `ARMv8-M`, section D1.2.94.
    #[cfg(target_arch = "arm")]
    const CONTROL: Word = 0x07C0_9F00;
    /// fcsr: the rounding mode, frm. The RISC-V Instruction Set Manual, volume I, "Floating-Point
    /// Control and Status Register".
    #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
    const CONTROL: Word = 0xE0;
    /// FPC: the masks of exceptions and the binary rounding mode. z/Architecture Principles of
    /// Operation, chapter 9, "Floating-Point-Control (FPC) Register".
    #[cfg(target_arch = "s390x")]
    const CONTROL: Word = 0xFC00_0007;
    /// FCSR0: the enables of exceptions and the rounding mode. `LoongArch` Reference Manual, volume
    /// 1, section 3.1.3.
    #[cfg(target_arch = "loongarch64")]
    const CONTROL: Word = 0x31F;

    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    type Word = usize;

    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    impl Register {
        #[inline(always)]
        fn read() -> Self {
            if seems_default() {
                return Self(0);
            }
            let word: Word;
            // SAFETY: reads a register that every program may read: there is a unit, either by the
            // target or because arithmetic in software would have seemed the default one. An
            // instruction that is given as a number is the one in the comment above it: the assembler
            // would refuse its name on targets that need not have the instruction.
            unsafe {
                #[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
                asm!("vmrs {}, fpscr", out(reg) word, options(nostack, preserves_flags));
                #[cfg(all(target_arch = "arm", not(target_abi = "eabihf")))]
                // vmrs r0, fpscr
                asm!(".inst 0xeef10a10", out("r0") word, options(nostack, preserves_flags));
                #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
                // The number of fcsr is 3.
                asm!("csrr {}, 3", out(reg) word, options(nostack, preserves_flags));
                #[cfg(target_arch = "s390x")]
                asm!("efpc {}", out(reg) word, options(nostack, preserves_flags));
                #[cfg(target_arch = "loongarch64")]
                asm!("movfcsr2gr {}, $fcsr0", out(reg) word, options(nostack, preserves_flags));
            }
            Self(word)
        }

        #[inline(always)]
        const fn is_default(&self) -> bool {
            self.0 & CONTROL == 0
        }

        #[cold]
        fn replace(self) -> Self {
            Self(self.0 & !CONTROL).write();
            self
        }

        #[inline(always)]
        fn write(&self) {
            // SAFETY: as above; the word was read, but for the control bits, which have a default
            // everywhere. No arithmetic of this function can be affected, and the caller's
            // environment is as it was when the call ends.
            unsafe {
                #[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
                asm!("vmsr fpscr, {}", in(reg) self.0, options(nostack));
                #[cfg(all(target_arch = "arm", not(target_abi = "eabihf")))]
                // vmsr fpscr, r0
                asm!(".inst 0xeee10a10", in("r0") self.0, options(nostack));
                #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
                asm!("csrw 3, {}", in(reg) self.0, options(nostack));
                #[cfg(target_arch = "s390x")]
                asm!("sfpc {}", in(reg) self.0, options(nostack));
                #[cfg(target_arch = "loongarch64")]
                asm!("movgr2fcsr $fcsr0, {}", in(reg) self.0, options(nostack));
            }
        }
    }

    /// Whether the environment is the default one, as far as arithmetic shows, on targets that may or
    /// may not have a unit; false on other targets, whose register says whether it is.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    #[inline(always)]
    fn seems_default() -> bool {
        #[cfg(any(
            all(target_arch = "arm", not(target_abi = "eabihf")),
            all(any(target_arch = "riscv32", target_arch = "riscv64"), not(target_os = "linux")),
        ))]
        {
            let [half, eighth, subnormal] =
                core::hint::black_box([f32::EPSILON / 2.0, f32::EPSILON / 8.0, f32::from_bits(1)]);
            // Ties to even, neither up nor away from zero; neither down nor towards zero; not flushed.
            1.0 + half == 1.0 && 1.0 - eighth == 1.0 && subnormal != 0.0
        }
        #[cfg(not(any(
            all(target_arch = "arm", not(target_abi = "eabihf")),
            all(any(target_arch = "riscv32", target_arch = "riscv64"), not(target_os = "linux")),
        )))]
        false
    }
}

/// All other targets.
#[cfg(not(all(
    not(miri),
    any(
        all(any(target_arch = "x86_64", target_arch = "x86"), target_feature = "sse2"),
        all(target_arch = "aarch64", target_feature = "neon"),
        all(target_arch = "arm", any(target_abi = "eabihf", target_has_atomic = "32")),
        target_arch = "riscv32",
        target_arch = "riscv64",
        target_arch = "s390x",
        all(target_arch = "loongarch64", target_feature = "f"),
    )
)))]
mod unit {
    /// No other environment than the default one.
    pub(crate) struct Caller;

    impl Caller {
        #[inline(always)]
        pub(crate) const fn enter() -> Self {
            Self
        }

        #[inline(always)]
        pub(super) fn apart<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
    }
}

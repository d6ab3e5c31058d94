//! Floating-point environments in which a caller may be: rounding modes, flushed subnormal numbers, trapped exceptions,
//! and flags that are already raised. The corpus makes each call in one of them, so that its digests do not depend on
//! the environment, and looks whether it is still there afterwards.
//!
//! Where the target has no such register, or none that normdrop touches, there is the default environment alone.
//! Whether a RISC-V target, or an Arm target with the ABI `eabi`, has a unit says `--cfg with_fpu`.

pub use registers::{CONTROLS, State};

/// Goes into one of the environments; any number is that of one. What it returns is what [`leave`] expects to find.
#[inline(never)]
pub fn enter(number: usize) -> State {
    let flags = if number.is_multiple_of(2) { State::FLAGS } else { State::NO_FLAGS };
    State::of(CONTROLS[number % CONTROLS.len()], flags).write();
    // What the CPU does not have, such as trapped exceptions on most of AArch64, does not stay.
    State::read()
}

/// Goes back to the default environment, without flags, and says whether the one before was as [`enter`] has left it.
/// In the default one a call may raise flags.
#[inline(never)]
#[must_use]
pub fn leave(entered: State) -> bool {
    let (found, default) = (State::read(), State::of(CONTROLS[0], State::NO_FLAGS));
    default.write();
    found == entered || entered.without_flags() == default && found.without_flags() == default
}

/// Whether an operation was invalid, divided by zero or overflowed since [`enter`] or [`leave`].
#[inline(never)]
#[must_use]
pub fn raised() -> bool {
    State::read().raised()
}

#[cfg(all(any(target_arch = "x86_64", target_arch = "x86"), target_feature = "sse2", not(miri)))]
mod registers {
    use core::arch::asm;

    /// MXCSR without flags: the default one; denormals-are-zero; flush-to-zero; down; up; to zero; nothing masked; all
    /// together.
    pub const CONTROLS: [u32; 9] = [0x1F80, 0x1FC0, 0x9F80, 0x3F80, 0x5F80, 0x7F80, 0x0000, 0x1D00, 0xE040];

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct State(u32);

    impl State {
        pub const FLAGS: u32 = 0x3F;
        pub const NO_FLAGS: u32 = 0;

        pub const fn of(control: u32, flags: u32) -> Self {
            Self(control | flags)
        }

        pub const fn raised(self) -> bool {
            self.0 & 0b1101 != 0
        }

        pub const fn without_flags(self) -> Self {
            Self(self.0 & !Self::FLAGS)
        }

        pub fn read() -> Self {
            let mut word = 0_u32;
            // SAFETY: stores 32 bits where there are 32.
            unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack)) };
            Self(word)
        }

        pub fn write(self) {
            // SAFETY: a word that the CPU accepts. No function with arithmetic has this one inlined.
            unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const self.0, options(nostack)) };
        }
    }
}

#[cfg(all(target_arch = "aarch64", target_feature = "neon", not(miri)))]
mod registers {
    use core::arch::asm;

    /// FPCR: the default one; flush-to-zero; up; down; to zero; default NaN; every exception trapped, where the CPU can;
    /// all together.
    pub const CONTROLS: [u64; 8] =
        [0, 1 << 24, 1 << 22, 2 << 22, 3 << 22, 1 << 25, 0x9F00, 1 << 24 | 3 << 22 | 1 << 25 | 0x9F00];

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct State {
        control: u64,
        status: u64,
    }

    impl State {
        /// Without QC, bit 27, which vectors of integers may set.
        pub const FLAGS: u64 = 0x9F;
        pub const NO_FLAGS: u64 = 0;

        pub const fn of(control: u64, status: u64) -> Self {
            Self { control, status }
        }

        pub const fn raised(self) -> bool {
            self.status & 0b111 != 0
        }

        pub const fn without_flags(self) -> Self {
            Self { status: 0, ..self }
        }

        pub fn read() -> Self {
            let (control, status): (u64, u64);
            // SAFETY: registers that every program may read.
            unsafe { asm!("mrs {}, fpcr", "mrs {}, fpsr", out(reg) control, out(reg) status, options(nostack)) };
            Self { control, status }
        }

        pub fn write(self) {
            // SAFETY: registers that every program may write. No function with arithmetic has this one inlined.
            unsafe {
                asm!("msr fpcr, {}", "msr fpsr, {}", in(reg) self.control, in(reg) self.status, options(nostack))
            };
        }
    }
}

/// One register for both.
#[cfg(all(
    any(
        all(target_arch = "arm", any(target_abi = "eabihf", with_fpu)),
        all(any(target_arch = "riscv32", target_arch = "riscv64"), with_fpu),
        target_arch = "s390x",
    ),
    not(miri)
))]
mod registers {
    use core::arch::asm;

    /// FPSCR: the default one; flush-to-zero; up; down; to zero; default NaN, which arithmetic does not show alone; all
    /// together.
    #[cfg(target_arch = "arm")]
    pub const CONTROLS: [usize; 7] =
        [0, 1 << 24, 1 << 22, 2 << 22, 3 << 22, 1 << 25 | (cfg!(with_fpu) as usize) << 24, 1 << 24 | 3 << 22 | 1 << 25];
    /// fcsr: to nearest even, which is the default; to zero; down; up; to nearest, ties away from zero.
    #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
    pub const CONTROLS: [usize; 5] = [0, 1 << 5, 2 << 5, 3 << 5, 4 << 5];
    /// FPC: to nearest, nothing trapped, which is the default; to zero; up; down; everything trapped; all together.
    #[cfg(target_arch = "s390x")]
    pub const CONTROLS: [usize; 6] = [0, 1, 2, 3, 0xF800_0000, 0xF800_0001];

    /// The flags of an invalid operation, a division by zero, an overflow, an underflow and an inexact result.
    #[cfg(target_arch = "arm")]
    const ALL: [usize; 5] = [1, 2, 4, 8, 16];
    #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
    const ALL: [usize; 5] = [16, 8, 4, 2, 1];
    #[cfg(target_arch = "s390x")]
    const ALL: [usize; 5] = [0x80_0000, 0x40_0000, 0x20_0000, 0x10_0000, 0x08_0000];

    /// The bits that are looked at. On Arm the register has the result of the last comparison, too. Where arithmetic shows
    /// that there is a register, that may raise the flags of inexact results and of subnormal operands.
    #[cfg(target_arch = "arm")]
    const KEPT: usize = 0x07F7_9F9F & if cfg!(with_fpu) { !(ALL[4] | 0x80) } else { usize::MAX };
    #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
    const KEPT: usize = !ALL[4];
    #[cfg(target_arch = "s390x")]
    const KEPT: usize = 0xFFFF_FFFF;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct State(usize);

    impl State {
        pub const FLAGS: usize = ALL[0] | ALL[1] | ALL[2] | ALL[3] | ALL[4];
        pub const NO_FLAGS: usize = 0;

        pub fn of(control: usize, flags: usize) -> Self {
            // Arm has the length of vectors in it, which is not to be changed.
            let length = if cfg!(target_arch = "arm") { Self::read().0 & 0x7_0000 } else { 0 };
            Self(control | flags | length)
        }

        pub const fn raised(self) -> bool {
            self.0 & (ALL[0] | ALL[1] | ALL[2]) != 0
        }

        pub const fn without_flags(self) -> Self {
            Self(self.0 & !Self::FLAGS)
        }

        pub fn read() -> Self {
            let word: usize;
            // SAFETY: a register that every program may read; there is a unit. By their numbers where the assembler would
            // refuse the names.
            unsafe {
                #[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
                asm!("vmrs {}, fpscr", out(reg) word, options(nostack));
                #[cfg(all(target_arch = "arm", not(target_abi = "eabihf")))]
                asm!(".inst 0xeef10a10", out("r0") word, options(nostack));
                #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
                asm!("csrr {}, 3", out(reg) word, options(nostack));
                #[cfg(target_arch = "s390x")]
                asm!("efpc {}", out(reg) word, options(nostack));
            }
            Self(word & KEPT)
        }

        pub fn write(self) {
            // SAFETY: as above. No function with arithmetic has this one inlined.
            unsafe {
                #[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
                asm!("vmsr fpscr, {}", in(reg) self.0, options(nostack));
                #[cfg(all(target_arch = "arm", not(target_abi = "eabihf")))]
                asm!(".inst 0xeee10a10", in("r0") self.0, options(nostack));
                #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
                asm!("csrw 3, {}", in(reg) self.0, options(nostack));
                #[cfg(target_arch = "s390x")]
                asm!("sfpc {}", in(reg) self.0, options(nostack));
            }
        }
    }
}

#[cfg(any(
    miri,
    not(any(
        all(any(target_arch = "x86_64", target_arch = "x86"), target_feature = "sse2"),
        all(target_arch = "aarch64", target_feature = "neon"),
        all(target_arch = "arm", any(target_abi = "eabihf", with_fpu)),
        all(any(target_arch = "riscv32", target_arch = "riscv64"), with_fpu),
        target_arch = "s390x",
    ))
))]
mod registers {
    pub const CONTROLS: [u32; 1] = [0];

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct State;

    impl State {
        pub const FLAGS: u32 = 0;
        pub const NO_FLAGS: u32 = 0;

        pub const fn of(_control: u32, _flags: u32) -> Self {
            Self
        }

        pub const fn raised(self) -> bool {
            false
        }

        pub const fn without_flags(self) -> Self {
            self
        }

        pub const fn read() -> Self {
            Self
        }

        pub const fn write(self) {}
    }
}

//! Bare metal: text and exit status by semihosting, which is QEMU's or a debugger's.

use core::fmt::{self, Write};

#[cfg(target_arch = "arm")]
use cortex_m_rt::entry;
#[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
use riscv_rt::entry;
use semihosting::io::{self, Write as _};
use semihosting::process::exit;

/// Where the ABI is that without a unit for floats, nothing switches the unit on that the CPU has all the same: CPACR, full
/// access to both halves (ARMv7-M Architecture Reference Manual, section B3.2.20).
#[cfg(all(target_arch = "arm", not(target_abi = "eabihf"), with_fpu))]
#[cortex_m_rt::pre_init]
unsafe fn switch_on() {
    // SAFETY: the register is there on every CPU of this profile, and nothing else runs yet.
    unsafe {
        core::arch::asm!("str {full}, [{cpacr}]", "dsb", "isb", full = in(reg) 0xF << 20, cpacr = in(reg) 0xE000_ED88_u32);
    }
}

struct Console(io::Stdout);

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_all(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

#[entry]
fn main() -> ! {
    match io::stdout().map(Console).map(|mut console| crate::run(&mut console)) {
        Ok(Ok(())) => exit(0),
        // The panic handler prints it.
        Ok(Err(failure)) => panic!("{failure}"),
        Err(error) => panic!("{error}"),
    }
}

//! Bare metal: text and exit status by semihosting, which is QEMU's or a debugger's.

use core::fmt::{self, Write};

#[cfg(target_arch = "arm")]
use cortex_m_rt::entry;
#[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
use riscv_rt::entry;
use semihosting::io::{self, Write as _};
use semihosting::process::exit;

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

//! Linux: `main`, `write` and `abort` of the C library.

use core::ffi::{c_int, c_void};
use core::fmt::{self, Write};
use core::panic::PanicInfo;

#[link(name = "c")]
unsafe extern "C" {
    fn write(file: c_int, bytes: *const c_void, len: usize) -> isize;
    fn abort() -> !;
}

struct File(c_int);

impl Write for File {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            // SAFETY: the pointer and the length are those of a slice.
            let written = unsafe { write(self.0, rest.as_ptr().cast(), rest.len()) };
            let written = usize::try_from(written).map_err(|_| fmt::Error)?;
            rest = rest.get(written.max(1)..).unwrap_or_default();
        }
        Ok(())
    }
}

#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    match crate::run(&mut File(1)) {
        Ok(()) => 0,
        Err(failure) => {
            // The exit status says so too, if this cannot be printed.
            let _ = writeln!(File(2), "{failure}");
            1
        }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(File(2), "{info}");
    // SAFETY: it may be called at any time.
    unsafe { abort() }
}

/// The core library that comes with a compiler is made for unwinding and asks for this function; nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// Likewise the tables for unwinding on ARM, which name these two.
#[cfg(target_arch = "arm")]
mod unwinding {
    #[unsafe(no_mangle)]
    extern "C" fn __aeabi_unwind_cpp_pr0() {}
    #[unsafe(no_mangle)]
    extern "C" fn __aeabi_unwind_cpp_pr1() {}
}

//! WebAssembly: the host has `print` and calls `digest`.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

#[link(wasm_import_module = "host")]
unsafe extern "C" {
    fn print(text: *const u8, len: usize);
}

struct Host;

impl Write for Host {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the pointer and the length are those of a slice, which the host reads and does not keep.
        unsafe { print(text.as_ptr(), text.len()) };
        Ok(())
    }
}

/// Returns 0 if every call had success.
#[unsafe(no_mangle)]
extern "C" fn digest() -> u32 {
    match crate::run(&mut Host) {
        Ok(()) => 0,
        Err(failure) => {
            // The result says so too.
            let _ = writeln!(Host, "{failure}");
            1
        }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Host, "{info}");
    core::arch::wasm32::unreachable()
}

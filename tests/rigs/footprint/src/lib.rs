//! What the images share: the end of a run and the panic that must not be in them.
#![no_std]

use core::panic::PanicInfo;

use cortex_m_semihosting::debug::{EXIT_FAILURE, EXIT_SUCCESS, exit};
use normdrop::Error;

/// Never linked, if the check of the images is right: a call that could panic would bring it in.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        exit(EXIT_FAILURE);
    }
}

/// Ends the emulator, with success if all calls had it.
pub fn end(result: Result<(), Error>) -> ! {
    loop {
        exit(if result.is_ok() { EXIT_SUCCESS } else { EXIT_FAILURE });
    }
}

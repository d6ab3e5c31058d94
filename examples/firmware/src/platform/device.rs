//! A Cortex-M: text by semihosting, time by SysTick, stack by its paint.

use core::panic::PanicInfo;

use cortex_m::Peripherals;
use cortex_m::asm::delay;
use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_semihosting::debug::{EXIT_FAILURE, EXIT_SUCCESS, exit};
use cortex_m_semihosting::hio::{HostStream, hstdout};
use normdrop::Error;

use super::Platform;
use crate::print::Print;

/// The longest that SysTick counts to.
const MOST: u32 = 0x00FF_FFFF;
/// The instructions of a loop whose length is known: `cortex_m::asm::delay` makes half as many turns of two.
const KNOWN: u32 = 20_000;
/// What cortex-m-rt paints the stack with.
const PAINT: u32 = 0xCCCC_CCCC;

/// The device.
#[expect(missing_debug_implementations, reason = "the registers of the timer have none")]
pub struct Device {
    out: HostStream,
    timer: SYST,
    /// The ticks of `KNOWN` instructions.
    known: u32,
}

impl Device {
    /// Runs a program and ends the emulator, with success if the program had it.
    pub fn run(program: impl FnOnce(&mut Self) -> Result<(), Error>) -> ! {
        let success = match (hstdout(), Peripherals::take()) {
            (Ok(out), Some(Peripherals { SYST: timer, .. })) => {
                let mut device = Self { out, timer, known: 0 };
                device.start();
                let result = program(&mut device);
                device.remark("stack", stack(), " bytes at most");
                result.is_ok()
            }
            _ => false,
        };
        end(success)
    }

    /// Starts the timer and measures its ticks. In the emulator, whose clock goes on by the same time at each instruction,
    /// they become instructions; on hardware the unit is a turn of the loop, which is a matter of cycles.
    fn start(&mut self) {
        self.timer.set_clock_source(SystClkSource::Core);
        self.timer.set_reload(MOST);
        self.timer.enable_counter();
        self.known = self.ticks(|| delay(KNOWN)).0.unwrap_or(0);
        self.remark("timer", self.known, " ticks in 20000 instructions");
    }

    /// The ticks that something takes, if they can be counted.
    fn ticks<R>(&mut self, work: impl FnOnce() -> R) -> (Option<u32>, R) {
        self.timer.clear_current();
        let result = work();
        let left = SYST::get_current();
        let ticks = if self.timer.has_wrapped() { None } else { Some(MOST - left) };
        (ticks, result)
    }

    fn remark(&mut self, what: &str, number: u32, unit: &str) {
        self.print("# ");
        self.print(what);
        self.print(": ");
        self.number(number);
        self.print(unit);
        self.print("\n");
    }
}

impl Print for Device {
    fn print(&mut self, text: &str) {
        // The emulator would say that it cannot; there is nobody else to tell.
        let _ = self.out.write_all(text.as_bytes());
    }
}

impl Platform for Device {
    fn measure<R>(&mut self, what: &str, work: impl FnOnce() -> R) -> R {
        let (ticks, result) = self.ticks(work);
        match ticks.and_then(|ticks| (u64::from(ticks) * u64::from(KNOWN)).checked_div(self.known.into())) {
            Some(instructions) => self.remark(what, instructions as u32, " instructions"),
            None => self.remark(what, MOST, " ticks or more, which the timer cannot count"),
        }
        result
    }
}

/// The bytes of stack that have been used since the start.
fn stack() -> u32 {
    unsafe extern "C" {
        /// The top of the stack, whose address is what counts.
        static _stack_start: u32;
    }
    let top = &raw const _stack_start;
    let mut lowest = cortex_m_rt::heap_start().cast_const();
    // SAFETY: nothing else is between the end of the statics and the top of the stack, all of it is RAM, and all of it was
    // painted or has been written since. The reads are volatile because the compiler does not know of either.
    while lowest < top && unsafe { lowest.read_volatile() } == PAINT {
        lowest = lowest.wrapping_add(1);
    }
    (top as usize - lowest as usize) as u32
}

fn end(success: bool) -> ! {
    loop {
        exit(if success { EXIT_SUCCESS } else { EXIT_FAILURE });
    }
}

/// Nothing here can panic, which the check of the images proves; the language asks for it all the same.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    end(false)
}

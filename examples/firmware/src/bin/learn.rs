//! Learns to read turned digits.
#![cfg_attr(target_os = "none", no_std, no_main)]

use firmware::learn::{Memory, run};
use firmware::platform::This;

#[cfg(target_os = "none")]
#[cortex_m_rt::entry]
fn main() -> ! {
    // `entry` makes a `&mut` of it.
    static mut MEMORY: Memory<f32> = Memory::new();
    This::run(|device| run(MEMORY, device))
}

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    This::run(|desktop| run(&mut Memory::<f32>::new(), desktop))
}

//! Where the programs run: on a microcontroller, or on the desktop for comparison.

use crate::print::Print;

#[cfg(target_os = "none")]
mod device;
#[cfg(target_os = "none")]
pub use device::Device as This;

#[cfg(not(target_os = "none"))]
mod desktop;
#[cfg(not(target_os = "none"))]
pub use desktop::Desktop as This;

/// A place to run.
pub trait Platform: Print {
    /// Runs something and, where that can be known, prints what it took as a remark: a line that begins with `#`.
    fn measure<R>(&mut self, what: &str, work: impl FnOnce() -> R) -> R;
}

//! The desktop: text, and nothing is measured.

extern crate std;

use std::print;
use std::process::ExitCode;

use normdrop::Error;

use super::Platform;
use crate::print::Print;

/// The desktop.
#[derive(Debug)]
pub struct Desktop;

impl Desktop {
    /// Runs a program.
    #[must_use]
    pub fn run(program: impl FnOnce(&mut Self) -> Result<(), Error>) -> ExitCode {
        match program(&mut Self) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                std::eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

impl Print for Desktop {
    fn print(&mut self, text: &str) {
        print!("{text}");
    }
}

impl Platform for Desktop {
    fn measure<R>(&mut self, _: &str, work: impl FnOnce() -> R) -> R {
        work()
    }
}

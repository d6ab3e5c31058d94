//! The command line.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::thread;

use lexopt::{Arg, Error, Parser, ValueExt};

use crate::data::MOST_TRAIN_SAMPLES;
use crate::training::BATCH;

pub(crate) const HELP: &str = "\
usage: cargo run --release -p digits -- [options]
  --epochs N         passes over the training images, 2 to 10000 (60)
  --seeds N          runs of each variant, 1 to 1000 (10)
  --train-samples N  training images, 20 to 797 (200)
  --threads N        changes the time and nothing else (all cores)
  --out PATH         the picture to write (digits.png)
  --no-progress      no progress bar
  --noise            another comparison: dropout, Gaussian and uniform noise before and behind batch norms; no picture
  --export FOLDER    nothing of the above: trains one small network, writes it and images that it has not seen there, for
                     firmware to carry
  --help
";

/// What the command line asks for.
pub(crate) struct Options {
    pub(crate) epochs: u32,
    pub(crate) seeds: u32,
    pub(crate) train_samples: usize,
    pub(crate) threads: usize,
    pub(crate) out: PathBuf,
    pub(crate) progress: bool,
    pub(crate) noise: bool,
    pub(crate) export: Option<PathBuf>,
}

impl Options {
    /// The options of this process, or none if it was asked for help.
    pub(crate) fn from_arguments() -> Result<Option<Self>, Error> {
        Self::parse(Parser::from_env())
    }

    fn parse(mut parser: Parser) -> Result<Option<Self>, Error> {
        let mut options = Self {
            epochs: 60,
            seeds: 10,
            train_samples: 200,
            threads: thread::available_parallelism().map_or(1, usize::from),
            out: PathBuf::from("digits.png"),
            progress: true,
            noise: false,
            export: None,
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("epochs") => options.epochs = number(&mut parser, "--epochs", 2, 10_000)?,
                Arg::Long("seeds") => options.seeds = number(&mut parser, "--seeds", 1, 1000)?,
                Arg::Long("train-samples") => {
                    options.train_samples = number(&mut parser, "--train-samples", BATCH, MOST_TRAIN_SAMPLES)?;
                }
                Arg::Long("threads") => options.threads = number(&mut parser, "--threads", 1, 1024)?,
                Arg::Long("out") => options.out = parser.value()?.into(),
                Arg::Long("no-progress") => options.progress = false,
                Arg::Long("noise") => options.noise = true,
                Arg::Long("export") => options.export = Some(parser.value()?.into()),
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(options))
    }
}

/// The value of the option that was just read: a whole number from `least` to `most`.
fn number<T: FromStr + PartialOrd + Display>(parser: &mut Parser, option: &str, least: T, most: T) -> Result<T, Error> {
    let text = parser.value()?.string()?;
    match text.parse() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(format!("{option} takes a whole number from {least} to {most}, not '{text}'").into()),
    }
}

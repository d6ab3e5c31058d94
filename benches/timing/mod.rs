//! What the benches that time calls share: the time of calls, medians, data, lists of names on the command line, and what is said
//! about a run.

use std::fs;
use std::time::{Duration, Instant};

use lexopt::{Parser, ValueExt};
use rand_xoshiro::rand_core::Rng;
use serde::Serialize;

/// The least time that the calls of one sample take together: long for the clock, short for the scheduler.
pub(crate) const SAMPLE: Duration = Duration::from_micros(500);

/// The first line of the results.
#[derive(Serialize)]
pub(crate) struct About<'a> {
    pub(crate) date: &'a str,
    pub(crate) cpu: &'a str,
    pub(crate) reason: &'a str,
}

/// The time of some calls together.
pub(crate) fn time(
    repeats: u32,
    mut call: impl FnMut() -> Result<(), normdrop::Error>,
) -> Result<Duration, normdrop::Error> {
    let waited_before = waited();
    let start = Instant::now();
    for _ in 0..repeats {
        call()?;
    }
    let elapsed = start.elapsed();
    Ok(elapsed.saturating_sub(waited().saturating_sub(waited_before)))
}

/// How long this thread has waited for a core since it started, where the kernel tells (Linux with scheduler
/// statistics); nothing elsewhere.
fn waited() -> Duration {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = statistics.split_whitespace().nth(1).and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// How many calls together take [`SAMPLE`]: a power of two.
pub(crate) fn repeats(mut call: impl FnMut() -> Result<(), normdrop::Error>) -> Result<u32, normdrop::Error> {
    let mut repeats = 1;
    while time(repeats, &mut call)? < SAMPLE && repeats < 1 << 20 {
        repeats *= 2;
    }
    Ok(repeats)
}

/// The middle of some values, or the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

pub(crate) fn uniform(rng: &mut impl Rng, low: f32, high: f32) -> f32 {
    let unit = (rng.next_u32() >> 8) as f32 / (1 << 24) as f32;
    low + unit * (high - low)
}

/// The CPU's name, where the system tells.
pub(crate) fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The value of an option that is a list of known names.
pub(crate) fn names(parser: &mut Parser, known: &[&'static str]) -> Result<Vec<String>, lexopt::Error> {
    let names: Vec<String> = parser.value()?.string()?.split(',').map(str::to_owned).collect();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("{name:?} is none of {}", known.join(", ")).into()),
        None => Ok(names),
    }
}

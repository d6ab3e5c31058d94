//! The bounds that `docs/bounds.md` proves: its numbers, and a search for rounding errors that tries to exceed them.
//!
//! The search is a hill climb: it changes a value or two of a channel and keeps the change if the error of one result did
//! not become smaller. Every result of every step has to be within the bound of that very data. It draws the same numbers
//! in every run; `NORMDROP_CLIMB` is the number of steps of each climb, and the ignored test takes many more.
//! `cargo test --test contracts bounds -- --nocapture` prints the worst that it found.

use crate::accuracy::{Errors, errors};
use crate::support::Problem;
use normdrop::{Config, Identity};
use normdrop_reference::errors::PROMISE;
use normdrop_reference::layer::{Moments, widened};
use normdrop_reference::random::SplitMix64;
use normdrop_reference::units::U;

/// The results in the order of [`Errors::each`], and whether a search is made for each.
const RESULTS: [(&str, bool); 13] = [
    ("mean", true),
    ("variance", true),
    ("`inv_std`", false),
    ("`y`", true),
    ("`dx`", true),
    ("`d_residual`", false),
    ("`d_weight`", true),
    ("`d_bias`", true),
    ("`y`, fixed", true),
    ("`dx`, fixed", true),
    ("`d_residual`, fixed", false),
    ("`d_weight`, fixed", true),
    ("`d_bias`, fixed", false),
];

/// What the bounds depend on: the names are those of `docs/bounds.md`.
#[derive(Debug, Clone, Copy)]
struct Channel {
    /// `D`: the roundings of an f32 sum that a summand can go through.
    depth: f64,
    /// `r`: how far the last pivot is from the mean, in standard deviations.
    r: f64,
    /// `t`: the mean in standard deviations, times u.
    t: f64,
}

/// What the page leaves out of its formulas: products of roundings, f64 in one part, squares that lost bits.
const LEFT_OUT: f64 = 1.0 / 16.0;

impl Channel {
    /// The bounds of one part, in the order of [`RESULTS`].
    fn bounds(self) -> [f64; 13] {
        let Self { depth: d, r, t } = self;
        let root = r.hypot(1.0);
        let centre = (1.0 + d) * root + 1.125 * t;
        let variance = 2.0 * root + (1.0 + d) * root * root + 2.0 * d * r * root;
        let results = |centre: f64, inv_std: f64, t: f64| {
            let mean_g_xhat = f64::max(2.0 + d, (1.0 + d) * (1.0 + t)) + d * t + inv_std + centre;
            [
                f64::max(4.0, 3.0 + 3.0 * t) + inv_std + centre,
                f64::max(5.0, 4.0 + 4.0 * t) + 3.0 * t + 2.0 * inv_std + centre + mean_g_xhat,
                1.0,
                mean_g_xhat + 1.0,
                d + 1.0,
            ]
        };
        let mut all = [0.0; 13];
        all[..3].copy_from_slice(&[1.0 + centre - t, variance + 1.0, variance / 2.0]);
        all[3..8].copy_from_slice(&results(centre, variance / 2.0, t));
        all[8..].copy_from_slice(&results(0.0, 0.0, 0.0));
        all[9] = 2.0;
        all
    }
}

/// The depths of f32 sums, and where they are.
const DEPTHS: [(f64, &str); 5] = [
    (5.0, "all other shapes"),
    (6.0, "`inner` 33 to 48"),
    (7.0, "`inner` 65 to 80"),
    (8.0, "`inner` 17 to 32"),
    (15.0, "`inner` 16"),
];

/// The places of the table's columns among the results.
const COLUMNS: [usize; 10] = [0, 1, 2, 3, 4, 6, 7, 8, 9, 11];

#[test]
fn the_numbers_of_the_page_of_bounds_are_those_of_its_formulas() {
    let page = include_str!("../../docs/bounds.md");
    let line = |first: String, channel: Channel| {
        let bounds = channel.bounds();
        let cells: Vec<String> = COLUMNS.iter().map(|&column| rounded_up(bounds[column])).collect();
        format!("| {first} | {} |", cells.join(" | "))
    };
    let mut lines = vec![
        line("5, `r` = 0, `t` = 0".into(), Channel { depth: 5.0, r: 0.0, t: 0.0 }),
        line("5, `r` = 1/4, `t` = 0".into(), Channel { depth: 5.0, r: 0.25, t: 0.0 }),
    ];
    lines.extend(DEPTHS.map(|(depth, shapes)| line(format!("{depth}: {shapes}"), Channel { depth, r: 1.0, t: 0.6 })));
    let missing: Vec<&String> = lines.iter().filter(|line| !page.contains(line.as_str())).collect();
    assert!(missing.is_empty(), "docs/bounds.md lacks\n{}", lines.join("\n"));
}

/// A bound with one decimal.
fn rounded_up(bound: f64) -> String {
    format!("{:.1}", (bound * 10.0 - 1e-6).ceil() / 10.0)
}

/// A layout of one channel under search. A second channel of zeros keeps the first from being one long run.
#[derive(Clone, Copy)]
struct Layout {
    name: &'static str,
    shape: fn(usize) -> [usize; 3],
    /// The depth of the f32 sums of a number of values.
    depth: fn(usize) -> usize,
}

const LAYOUTS: [Layout; 3] = [
    Layout { name: "one run", shape: |n| [1, 1, n], depth: |n| n.div_ceil(16).next_power_of_two().ilog2() as usize },
    Layout { name: "runs of sixteen", shape: |n| [n / 16, 2, 16], depth: |n| n / 16 - 1 },
    Layout { name: "columns", shape: |n| [n, 2, 1], depth: |n| n.min(4).ilog2() as usize + n.min(16).div_ceil(4) - 1 },
];

/// The numbers of values of the searches.
const SIZES: [usize; 4] = [16, 32, 48, 64];

/// The channel that a search changes, as the values of a problem.
struct Climb {
    layout: Layout,
    problem: Problem,
    samples: usize,
    random: SplitMix64,
}

/// A number from 2^-30 to 2^30, or 0.
fn tame(value: f32) -> f32 {
    let (least, most) = (1.0 / (1 << 30) as f32, (1 << 30) as f32);
    if value == 0.0 || !value.is_finite() { 0.0 } else { value.abs().clamp(least, most).copysign(value) }
}

impl Climb {
    fn new(layout: Layout, samples: usize, seed: u64) -> Self {
        let [outer, channels, inner] = (layout.shape)(samples);
        let mut problem = Problem::new(outer, channels, inner);
        problem.config = Config { momentum: 1.0, eps: 1e-12, ..Config::DEFAULT };
        problem.weight = Some(vec![1.0; channels]);
        problem.bias = Some(vec![0.0; channels]);
        let mut climb = Self { layout, problem, samples, random: SplitMix64::new(seed) };
        let style = climb.random.next_below(4);
        for sample in 0..samples {
            let index = climb.index(sample);
            (climb.problem.x[index], climb.problem.dy[index]) = (climb.draw(style), climb.draw(3));
        }
        climb
    }

    /// The element of a value of the first channel.
    fn index(&self, sample: usize) -> usize {
        let Problem { channels, inner, .. } = self.problem;
        sample / inner * inner * channels + sample % inner
    }

    /// A value: normal, near a power of two of either sign, one of few, or with an offset.
    #[expect(clippy::cast_possible_truncation, reason = "rounded to f32")]
    fn draw(&mut self, style: usize) -> f32 {
        let random = &mut self.random;
        let sign = if random.next_below(2) == 0 { 1.0 } else { -1.0 };
        tame(match style {
            0 => random.next_normal() as f32,
            1 => (sign * (1.0 + random.next_unit() / 4096.0)) as f32,
            2 => (100.0 + random.next_normal()) as f32,
            _ => (sign * (1.0 + random.next_unit() / 64.0) * (random.next_below(3) as f64).exp2()) as f32,
        })
    }

    /// A number a little or much different from another.
    fn changed(&mut self, value: f32, others: f32) -> f32 {
        let random = &mut self.random;
        tame(match random.next_below(8) {
            0 => f32::from_bits(value.to_bits() ^ 1 << random.next_below(23)),
            1 => f32::from_bits(value.to_bits() ^ 1 << (random.next_below(12))),
            2 => value * 2.0,
            3 => value / 2.0,
            4 => -value,
            5 => others,
            6 => {
                let steps = u32::try_from(random.next_below(9)).expect("a small number");
                f32::from_bits(value.to_bits().wrapping_add(steps).wrapping_sub(4))
            }
            _ => {
                let style = random.next_below(4);
                self.draw(style)
            }
        })
    }

    /// Changes one to three numbers.
    fn change(&mut self) {
        for _ in 0..=self.random.next_below(3) {
            let (sample, other) = (self.random.next_below(self.samples), self.random.next_below(self.samples));
            let (index, other) = (self.index(sample), self.index(other));
            match self.random.next_below(16) {
                0..8 => self.problem.x[index] = self.changed(self.problem.x[index], self.problem.x[other]),
                8..12 => self.problem.dy[index] = self.changed(self.problem.dy[index], self.problem.dy[other]),
                number => {
                    let Problem { weight, bias, running_mean, running_var, .. } = &self.problem;
                    let (Some(weight), Some(bias)) = (weight, bias) else { continue };
                    let before = [weight[0], bias[0], running_mean[0], running_var[0]][number - 12];
                    let changed = self.changed(before, self.problem.x[other]);
                    let Problem { weight, bias, running_mean, running_var, .. } = &mut self.problem;
                    match (number, weight, bias) {
                        (12, Some(weight), _) => weight[0] = changed,
                        (13, _, Some(bias)) => bias[0] = changed,
                        (14, ..) => running_mean[0] = changed,
                        _ => running_var[0] = changed.abs().max(1e-6),
                    }
                }
            }
        }
    }

    /// What the bounds of the channel depend on; `None` where the mean is more than 1e7 standard deviations.
    #[expect(clippy::cast_possible_truncation, reason = "rounded as the pivot is")]
    fn channel(&self) -> Option<Channel> {
        let moments: Moments = self.problem.reference::<Identity>().moments(&widened(&self.problem.x))[0];
        let (mean, std) = (moments.mean.rounded(), moments.var.sqrt());
        if mean.abs() > 1e7 * std {
            return None;
        }
        let step = self.samples / 16;
        let step = step - usize::from(step.is_multiple_of(2));
        let value = |number: usize| f64::from(self.problem.x[self.index(number * step + step / 2)]);
        let pivot = ((0..16).map(value).sum::<f64>() / 16.0) as f32;
        let (off, t) = ((mean - f64::from(pivot)).abs() / std, U * mean.abs() / std);
        // A pivot that is further off is replaced by the mean, rounded.
        let r = if off <= 1.0 + 1e-4 { off } else { t + 1e-4 };
        Some(Channel { depth: (self.layout.depth)(self.samples) as f64, r, t })
    }

    /// Climbs the error of one result and says how large it became; every result is to be within its bound.
    fn climb(&mut self, result: usize, steps: usize, worst: &mut [f64; 13]) {
        let mut best = 0.0;
        let mut kept = self.problem.clone();
        for step in 0..steps {
            if step != 0 {
                self.change();
            }
            let mut units = 0.0;
            if let Some(channel) = self.channel() {
                let errors: Errors = errors::<Identity>(&self.problem, PROMISE);
                let bounds = channel.bounds();
                for (number, (error, _)) in errors.each().enumerate() {
                    worst[number] = worst[number].max(error.units());
                    if let Err(fault) = error.within(bounds[number] + LEFT_OUT) {
                        let (Problem { x, dy, .. }, name) = (&self.problem, self.layout.name);
                        panic!("{}, {name}: {fault}; {channel:?}\nx = {x:?}\ndy = {dy:?}", RESULTS[number].0);
                    }
                    if number == result {
                        units = error.units();
                    }
                }
            }
            if units >= best {
                (best, kept) = (units, self.problem.clone());
            } else {
                self.problem.clone_from(&kept);
            }
        }
    }
}

/// Searches from several starts and prints the worst of every result.
fn search(steps: usize, starts: u64) {
    let mut all = [0.0; 13];
    for layout in LAYOUTS {
        let mut worst = [0.0; 13];
        for (size, samples) in (0..).zip(SIZES) {
            for (result, _) in RESULTS.iter().enumerate().filter(|(_, (_, searched))| *searched) {
                for start in 0..starts {
                    let seed = (start * 13 + result as u64) * 4 + size;
                    Climb::new(layout, samples, seed).climb(result, steps, &mut worst);
                }
            }
        }
        let cells: Vec<String> = COLUMNS.iter().map(|&column| format!("{:.2}", worst[column])).collect();
        println!("| {} | {} |", layout.name, cells.join(" | "));
        for (all, worst) in all.iter_mut().zip(worst) {
            *all = f64::max(*all, worst);
        }
    }
    // A search that finds nothing searches wrongly: the classes of data reach these without a search.
    for (result, least) in [(0, 1.0), (1, 1.5), (3, 2.5), (4, 2.0), (6, 1.5), (7, 1.0)] {
        assert!(all[result] > least, "the worst {} that was found is {} u", RESULTS[result].0, all[result]);
    }
}

#[test]
fn a_search_for_rounding_errors_stays_within_the_bounds_that_are_proved() {
    let steps = std::env::var("NORMDROP_CLIMB").ok().map(|steps| steps.parse().expect("a number of steps"));
    search(steps.unwrap_or(500), 1);
}

#[test]
#[ignore = "minutes; the test before it searches for seconds"]
fn a_long_search_for_rounding_errors_stays_within_the_bounds_that_are_proved() {
    search(10_000, 4);
}

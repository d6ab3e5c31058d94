//! Kinds of data: those that accuracy is promised for, and those that must not break anything.

use crate::random::SplitMix64;

/// A kind of data: how the values of one channel are made.
#[derive(Debug, Clone, Copy)]
pub struct Class {
    /// What the class is called in reports.
    pub name: &'static str,
    /// Whether it holds finite values only.
    pub finite: bool,
    fill: fn(&mut SplitMix64, &mut [f32]),
}

impl Class {
    /// The values of one channel: a pure function of the seed and the number of values.
    #[must_use]
    pub fn values(&self, seed: u64, samples: usize) -> Vec<f32> {
        let mut values = vec![0.0; samples];
        (self.fill)(&mut SplitMix64::new(seed), &mut values);
        values
    }
}

const fn finite(name: &'static str, fill: fn(&mut SplitMix64, &mut [f32])) -> Class {
    Class { name, finite: true, fill }
}

const fn not_finite(name: &'static str, fill: fn(&mut SplitMix64, &mut [f32])) -> Class {
    Class { name, finite: false, fill }
}

/// Every class.
pub const CLASSES: &[Class] = &[
    finite("normal", |random, values| normal(random, values, 0.0, 1.0)),
    finite("uniform", |random, values| each(values, |_| 2.0 * random.next_unit() - 1.0)),
    // A mean of 10^k standard deviations.
    finite("offset 1", |random, values| normal(random, values, 1.0, 1.0)),
    finite("offset 1e1", |random, values| normal(random, values, 1e1, 1.0)),
    finite("offset 1e2", |random, values| normal(random, values, 1e2, 1.0)),
    finite("offset 1e3", |random, values| normal(random, values, 1e3, 1.0)),
    finite("offset 1e4", |random, values| normal(random, values, 1e4, 1.0)),
    finite("offset 1e5", |random, values| normal(random, values, 1e5, 1.0)),
    finite("offset -1e6", |random, values| normal(random, values, -1e6, 1.0)),
    finite("offset 1e7", |random, values| normal(random, values, 1e7, 1.0)),
    finite("small offset", |random, values| normal(random, values, 0.1, 1e-3)),
    // A block of statistics is much shorter than a trend.
    finite("trend", |random, values| {
        let step = 100.0 / values.len() as f64;
        each(values, |index| index as f64 * step + random.next_normal());
    }),
    finite("steps of the mean", |random, values| {
        each(values, |index| 1e3 * ((index / 100) % 7) as f64 + random.next_normal());
    }),
    finite("alternating 1e8 and 1e-3", |_, values| each(values, |index| if index % 2 == 0 { 1e8 } else { 1e-3 })),
    finite("alternating signs", |random, values| {
        each(values, |index| (1e4 + random.next_unit()) * if index % 2 == 0 { 1.0 } else { -1.0 });
    }),
    finite("first value an outlier", |random, values| {
        normal(random, values, 0.0, 1.0);
        values[..1].fill(1e6);
    }),
    finite("one outlier", |random, values| {
        normal(random, values, 3.0, 1.0);
        let index = random.next_below(values.len());
        values[index] = -1e10;
    }),
    finite("one outlier of 1e30", |random, values| {
        normal(random, values, 0.0, 1.0);
        let index = random.next_below(values.len());
        values[index] = 1e30;
    }),
    finite("constant", |random, values| {
        let constants = [0.0, -0.0, 0.1, -0.1, 7.0, 1e8, 16_777_217.0, 1e-3, 3e38, -3e38, 1e30, 1e-38, 1e-45];
        let constant = constants[random.next_below(constants.len())];
        values.fill(constant);
    }),
    finite("two values", |random, values| each(values, |_| if random.next_unit() < 0.5 { 0.1 } else { 0.3 })),
    // Half of the values are exactly 0, as after a ReLU.
    finite("sparse", |random, values| each(values, |_| random.next_normal().max(0.0))),
    // Means, normalised values and outputs that are often exactly or nearly 0, where a ReLU's gate jumps.
    finite("lattice", |random, values| each(values, |_| (random.next_unit() * 5.0).floor() - 2.0)),
    finite("heavy tails", |random, values| {
        each(values, |_| random.next_normal() * (4.0 * random.next_normal()).exp());
    }),
    // Every exponent alike.
    finite("all magnitudes", |random, values| {
        each(values, |_| sign(random) * (random.next_unit() * 276.0 - 138.0).exp2().clamp(1e-45, 3e38));
    }),
    finite("1e-10", |random, values| normal(random, values, 0.0, 1e-10)),
    finite("1e-20", |random, values| normal(random, values, 1e-20, 1e-20)),
    finite("1e-30", |random, values| normal(random, values, 0.0, 1e-30)),
    finite("subnormal", |random, values| normal(random, values, 0.0, 1e-40)),
    finite("smallest", |random, values| each(values, |_| (random.next_unit() * 5.0).floor() * 1.5e-45)),
    finite("1e10", |random, values| normal(random, values, 0.0, 1e10)),
    // Squares that just do not fit an f32, or just do, depending on the block.
    finite("1e18", |random, values| normal(random, values, 0.0, 4e18)),
    finite("1e30", |random, values| normal(random, values, 0.0, 1e30)),
    finite("1e30 with an offset", |random, values| normal(random, values, 1e32, 1e30)),
    finite("3e38", |random, values| each(values, |_| 3e38 + random.next_unit() * 4e37)),
    finite("3e38 of both signs", |random, values| each(values, |_| sign(random) * 3.4e38)),
    not_finite("one NaN", |random, values| place(random, values, &[f32::NAN])),
    not_finite("one Inf", |random, values| place(random, values, &[f32::INFINITY])),
    not_finite("one -Inf", |random, values| place(random, values, &[f32::NEG_INFINITY])),
    not_finite("NaN and Inf", |random, values| {
        place(random, values, &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
    }),
];

/// Classes that are about the places of values: blocks of 256 values, parts of 4,096 rows or 65,536 values, and the values
/// whose mean is the crate's first pivot. For inputs and for gradients. They are a list of their own, so that a number that
/// a fuzzer has drawn for one of [`CLASSES`] keeps its meaning.
pub const PLACED: &[Class] = &[
    finite("one large value", |random, values| {
        normal(random, values, 0.0, 1.0);
        let index = random.next_below(values.len());
        values[index] = 1e6;
    }),
    finite("one outlier a block", |random, values| {
        let place = random.next_below(values.len().min(256));
        each(values, |index| random.next_normal() + if index % 256 == place { 1e4 } else { 0.0 });
    }),
    finite("steps from part to part", |random, values| {
        each(values, |index| 1e3 * ((index / 4096 * 5) % 7) as f64 + random.next_normal());
    }),
    finite("ramps from part to part", |random, values| {
        each(values, |index| {
            100.0 * (index % 4096) as f64 / 4096.0 + 50.0 * (index / 4096) as f64 + random.next_normal()
        });
    }),
    finite("high where the pivot looks", |random, values| {
        let (count, samples) = (values.len().min(16), values.len());
        let step = samples / count;
        let step = step - usize::from(step.is_multiple_of(2));
        each(values, |index| {
            let is_high = index % step == step / 2 && index / step < count;
            random.next_normal() + if is_high { 1e5 } else { 0.0 }
        });
    }),
];

/// The names of the classes that accuracy is measured for, and compared with other libraries, in one table: those of the
/// crate's promise.
pub const MEASURED: [&str; 16] = [
    "normal",
    "offset 1e1",
    "offset 1e2",
    "offset 1e3",
    "offset 1e4",
    "offset 1e5",
    "offset -1e6",
    "offset 1e7",
    "alternating 1e8 and 1e-3",
    "one outlier",
    "two values",
    "constant",
    "subnormal",
    "1e30",
    "3e38",
    "3e38 of both signs",
];

/// The class of a name.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn class(name: &str) -> Class {
    match CLASSES.iter().chain(PLACED).find(|class| class.name == name) {
        Some(&class) => class,
        None => panic!("no class of data is called {name:?}"),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounded to the f32 that the layer is given")]
fn each(values: &mut [f32], mut value: impl FnMut(usize) -> f64) {
    for (index, element) in values.iter_mut().enumerate() {
        // What the largest f32 cannot hold is not finite any more, and finite data must be.
        *element = (value(index) as f32).clamp(f32::MIN, f32::MAX);
    }
}

fn normal(random: &mut SplitMix64, values: &mut [f32], mean: f64, std: f64) {
    each(values, |_| mean + std * random.next_normal());
}

fn sign(random: &mut SplitMix64) -> f64 {
    if random.next_unit() < 0.5 { -1.0 } else { 1.0 }
}

fn place(random: &mut SplitMix64, values: &mut [f32], guests: &[f32]) {
    normal(random, values, 0.0, 1.0);
    for &guest in guests {
        let index = random.next_below(values.len());
        values[index] = guest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_what_they_say() {
        for class in CLASSES.iter().chain(PLACED) {
            let values = class.values(1, 257);
            assert_eq!(values.iter().all(|value| value.is_finite()), class.finite, "{}", class.name);
            let again = class.values(1, 257);
            assert!(values.iter().map(|v| v.to_bits()).eq(again.iter().map(|v| v.to_bits())), "{}", class.name);
        }
    }

    #[test]
    fn what_is_measured_exists_and_is_finite() {
        assert!(MEASURED.iter().all(|name| class(name).finite));
    }

    #[test]
    fn names_are_distinct() {
        for name in CLASSES.iter().chain(PLACED).map(|class| class.name) {
            assert_eq!(CLASSES.iter().chain(PLACED).filter(|class| class.name == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn subnormal_values_are_subnormal() {
        assert!(class("subnormal").values(1, 100).iter().any(|value| value.is_subnormal()));
        assert!(class("smallest").values(1, 100).contains(&f32::from_bits(1)));
    }
}

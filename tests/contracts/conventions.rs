//! The layer against batch norms of other frameworks, recorded in `conventions/conventions.json`: five training steps and
//! an evaluation of each with the settings of `docs/conventions.md`, whose lines are those of the recorded rows.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use normdrop::{
    Average, Config, Dropout, Error, Eval, Identity, Layer, Parameters, Running, RunningMut, RunningVariance, SavedMut,
    Shape, Train,
};
use serde::Deserialize;

/// What `conventions/conventions.py` says about the file.
#[derive(Debug, Deserialize)]
struct Record {
    format: u32,
    data: BTreeMap<String, Data>,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Data {
    shape: Vec<usize>,
    batches: Vec<Vec<f32>>,
}

#[derive(Debug, Deserialize)]
struct Row {
    framework: String,
    version: String,
    path: String,
    layout: String,
    weighs: String,
    momentum: f64,
    momentum_default: Option<f64>,
    eps: f64,
    eps_default: f64,
    running_var: String,
    debias: f64,
    precision: String,
    initial: State,
    steps: Vec<Step>,
    eval: Vec<f64>,
    one_value: Option<String>,
    dropout: Option<Dropped>,
}

#[derive(Debug, Deserialize)]
struct State {
    mean: Vec<f64>,
    var: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct Step {
    y: Vec<f64>,
    mean: Vec<f64>,
    var: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct Dropped {
    call: String,
    dropped: f64,
    kept: f64,
    all: String,
    infinity: String,
}

const WEIGHT: [f32; 3] = [1.5, 0.5, 2.0];
const BIAS: [f32; 3] = [0.25, -1.0, 0.0];

fn record() -> Record {
    serde_json::from_str(include_str!("conventions/conventions.json")).expect("the format of conventions.py")
}

fn single(value: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "rounded to f32")]
    let single = value as f32;
    single
}

/// The settings that the table of the documents gives for a row.
#[derive(Debug, Clone, Copy)]
struct Settings {
    momentum: f64,
    running_var: RunningVariance,
}

impl Row {
    fn name(&self) -> String {
        format!("{} {}, {}", self.framework, self.version, self.path)
    }

    fn settings(&self) -> Settings {
        Settings {
            momentum: match self.weighs.as_str() {
                "new" => self.momentum,
                "old" => 1.0 - self.momentum,
                other => panic!("{other} is no value"),
            },
            running_var: match self.running_var.as_str() {
                "biased" => RunningVariance::Biased,
                "unbiased" => RunningVariance::Unbiased,
                other => panic!("{other} is no variance"),
            },
        }
    }

    fn layer(&self, data: &Data, settings: Settings) -> Layer<Identity> {
        let shape = match (self.layout.as_str(), data.shape.as_slice()) {
            ("NC", &[n, c]) => Shape::nc(n, c),
            ("NHWC", &[n, h, w, c]) => Shape::nhwc(n, h, w, c),
            ("NCHW", &[n, c, h, w]) => Shape::nchw(n, c, h, w),
            other => panic!("{other:?} is no layout"),
        };
        let Settings { momentum, running_var } = settings;
        let config = Config { eps: single(self.eps), momentum, running_var, ..Config::DEFAULT };
        Layer::new(shape.expect("small"), Identity, config).expect("numbers in their ranges")
    }

    /// The largest difference from what the framework had, in all numbers of all steps and of the evaluation.
    fn difference(&self, data: &Data, settings: Settings) -> f64 {
        let layer = self.layer(data, settings);
        let parameters = Parameters { weight: Some(&WEIGHT), bias: Some(&BIAS) };
        let state = |values: &[f64]| values.iter().map(|&value| single(value)).collect::<Vec<f32>>();
        let (mut mean, mut mean_tail, mut var) = (state(&self.initial.mean), vec![0.0; 3], state(&self.initial.var));
        let mut scratch = vec![0.0; layer.scratch_len()];
        let mut worst = 0.0_f64;
        let mut compare = |actual: &[f64], expected: &[f64]| {
            assert_eq!(actual.len(), expected.len(), "{}", self.name());
            for (actual, expected) in actual.iter().zip(expected) {
                worst = worst.max((actual - expected).abs());
            }
        };
        let doubles = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<f64>>();
        let mut debias = 1.0;
        for (input, step) in data.batches.iter().zip(&self.steps) {
            let mut output = vec![f32::NAN; input.len()];
            layer
                .train(Train {
                    parameters,
                    running: Some(RunningMut {
                        mean: &mut mean,
                        mean_tail: Some(&mut mean_tail),
                        var: &mut var,
                        average: Average::Exponential,
                    }),
                    dropout: Dropout::Off,
                    input,
                    residual: None,
                    output: &mut output,
                    saved: SavedMut { mean: &mut [0.0; 3], mean_tail: &mut [0.0; 3], inv_std: &mut [0.0; 3] },
                    scratch: &mut scratch,
                })
                .expect("buffers of the shape");
            compare(&doubles(&output), &step.y);
            debias *= self.debias;
            let means = mean.iter().zip(&mean_tail).map(|(mean, tail)| f64::from(*mean) + f64::from(*tail));
            compare(&means.map(|mean| mean / (1.0 - debias)).collect::<Vec<f64>>(), &step.mean);
            let vars = var.iter().map(|var| f64::from(*var) / (1.0 - debias));
            compare(&vars.collect::<Vec<f64>>(), &step.var);
        }
        // As a user of the framework's file has them.
        let last = self.steps.last().expect("five steps");
        let input = &data.batches[0];
        let mut output = vec![f32::NAN; input.len()];
        layer
            .eval(Eval {
                parameters,
                running: Running::new(&state(&last.mean), &state(&last.var)),
                dropout: Dropout::Off,
                input,
                residual: None,
                output: &mut output,
                scratch: &mut scratch,
            })
            .expect("buffers of the shape");
        compare(&doubles(&output), &self.eval);
        worst
    }

    /// What the numbers may differ by: they are at most 12. The frameworks in f32 round a few times, and Keras on torch, which
    /// computes `E[x^2] - E[x]^2`, is off by 2.3e-5 in the channel around 10.
    fn allowed(&self) -> f64 {
        match self.precision.as_str() {
            "float64" => 2e-6,
            "float32" => 5e-5,
            other => panic!("{other} is no precision"),
        }
    }
}

#[test]
fn five_steps_and_an_evaluation_of_every_recorded_framework_go_on_with_the_settings_of_the_table() {
    let Record { format, data, rows } = record();
    assert_eq!((format, rows.len()), (1, 46), "rows that were added or lost");
    for row in &rows {
        let data = &data[&row.layout];
        assert_eq!((data.batches.len(), row.steps.len()), (5, 5));
        let settings = row.settings();
        let difference = row.difference(data, settings);
        println!("{:<50} {difference:.1e}", row.name());
        assert!(difference <= row.allowed(), "{}: {difference}", row.name());

        // The settings matter: neither the other variance nor the momentum that is meant the other way round will do.
        let running_var = match settings.running_var {
            RunningVariance::Biased => RunningVariance::Unbiased,
            RunningVariance::Unbiased => RunningVariance::Biased,
        };
        for wrong in [Settings { running_var, ..settings }, Settings { momentum: 1.0 - settings.momentum, ..settings }]
        {
            assert!(row.difference(data, wrong) > 1e-2, "{}: {wrong:?} would do as well", row.name());
        }
    }
}

/// A line of the first table of `docs/conventions.md`.
fn line(row: &Row) -> String {
    let default = row.momentum_default.map_or_else(|| "none".to_owned(), |momentum| momentum.to_string());
    let (weighs, here) = (&row.weighs, if row.weighs == "new" { "the same" } else { "1 − its" });
    let variance = format!("{:?}", row.settings().running_var);
    let initial = match (row.debias > 0.0, row.initial.mean[0], row.initial.var[0]) {
        (false, mean, var) => format!("{mean}, {var}"),
        (true, mean, var) => format!("{mean}, {var}, divided by 1 − its^steps"),
    };
    let one_value = match row.one_value.as_deref() {
        None => "not run",
        Some("shrinks") => "variance 0",
        Some("NaN") => "running variance NaN",
        Some("unchanged") => "running variance as it was",
        Some(other) => other,
    };
    format!(
        "| {} {} | {} | {weighs} ({default}) | {here} | `{variance}` | {:e} | {initial} | {one_value} |",
        row.framework, row.version, row.path, row.eps_default
    )
}

/// A line of the table of dropouts.
fn dropout_line(row: &Row, dropped: &Dropped) -> String {
    let Dropped { call, dropped: fraction, kept, all, infinity } = dropped;
    // 65,536 elements: the fraction has a standard deviation of 0.0017.
    let drops = |p: f64| (fraction - p).abs() < 0.01;
    let (what, p) = if drops(0.25) { ("drops", 0.25) } else { ("keeps", 0.75) };
    assert!(drops(p), "{}: {fraction}", row.name());
    // Every recorded dropout is inverted.
    assert!((kept * (1.0 - p) - 1.0).abs() < 1e-6, "{}: {kept}", row.name());
    format!("| {} {} | `{call}` | {what} 0.25 | {kept:.4} | {all} | {infinity} |", row.framework, row.version)
}

#[test]
fn the_tables_of_the_document_are_the_recorded_rows() {
    let document = include_str!("../../docs/conventions.md");
    let rows = record().rows;
    let dropouts = rows.iter().filter_map(|row| row.dropout.as_ref().map(|dropped| dropout_line(row, dropped)));
    for (heading, lines) in [
        ("| framework | path |", rows.iter().map(line).collect::<Vec<_>>()),
        ("| framework | call |", dropouts.collect::<Vec<_>>()),
    ] {
        let table = document.lines().skip_while(|line| !line.starts_with(heading)).skip(2);
        let table: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
        let mut expected = String::new();
        lines.iter().for_each(|line| writeln!(expected, "{line}").expect("a string"));
        assert_eq!(table, lines, "the table has to be:\n{expected}");
    }
}

/// The column "one value per channel", for this crate.
#[test]
fn one_value_per_channel_is_refused_for_the_unbiased_variance_and_is_a_variance_of_0_for_the_biased_one() {
    let train = |running_var| {
        let config = Config { momentum: 0.25, running_var, ..Config::DEFAULT };
        let layer = Layer::new(Shape::nc(1, 3).expect("small"), Identity, config).expect("numbers in their ranges");
        let (mut mean, mut var, mut output) = ([0.0; 3], [1.0; 3], [f32::NAN; 3]);
        let result = layer.train(Train {
            parameters: Parameters { weight: Some(&WEIGHT), bias: Some(&BIAS) },
            running: Some(RunningMut::new(&mut mean, &mut var)),
            dropout: Dropout::Off,
            input: &[1.0, 2.0, 3.0],
            residual: None,
            output: &mut output,
            saved: SavedMut { mean: &mut [0.0; 3], mean_tail: &mut [0.0; 3], inv_std: &mut [0.0; 3] },
            scratch: &mut vec![0.0; layer.scratch_len()],
        });
        result.map(|()| (output, var))
    };
    assert_eq!(train(RunningVariance::Unbiased), Err(Error::SingleSample));
    assert_eq!(train(RunningVariance::Biased), Ok((BIAS, [0.75; 3])));
}

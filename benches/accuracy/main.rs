//! The worst error of each result of training, forward and backward, per class of data, beside PyTorch's for the same data.
//!
//! ```text
//! cargo bench --bench accuracy                                          # the crate's part again, PyTorch's as recorded
//! cargo bench --bench accuracy -- --pytorch python3 --date 2026-11-24   # both; that python has torch and numpy
//! cargo bench --bench accuracy -- --table                               # only the table, from what is recorded
//! ```
//!
//! The layer is batch norm alone, with weight and bias, because that is what both have; data are the classes
//! [`MEASURED`], normal gradients, and [`SIZES`] values per channel in two layouts: planar (`[1, channels, size]`, PyTorch's
//! NCHW) and channels last (`[size, channels, 1]`). Errors are those of the reference's [`errors`](normdrop_reference::errors):
//! in units `u = 2^-24` of the scale of each result, the same code for both. Statistics are the running ones with momentum 1.
//!
//! Every run writes all errors to `benches/results/accuracy/current.jsonl` and the table to `docs/accuracy.md`, between its marks; the bits of
//! the crate's results depend on neither the machine nor its backend. Every error of the crate is also held below its bound by
//! a test, in `tests/contracts/accuracy.rs`.
//!
//! Without `--bench`, which `cargo bench` passes and `cargo test` does not, it measures the small sizes alone, writes
//! nothing, and fails unless they and the recorded errors are below the bounds and `docs/accuracy.md` has the recorded table. That
//! they are the recorded ones is not asked: the data go through `ln` and `cos`, which differ between systems.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{env, fs};

use lexopt::{Arg, Parser, ValueExt};
use normdrop::{
    Backward, Config, Dropout, Identity, Layer, ParameterGradients, Parameters, RunningMut, Saved, SavedMut, Shape,
    Statistics, Train,
};
use normdrop_reference::classes::{MEASURED, class};
use normdrop_reference::errors::{Bounds, CallErrors, Differentiated, PROMISE, StatisticsErrors};
use normdrop_reference::layer::{self as reference, Forward, Gradients, widened};
use normdrop_reference::random::SplitMix64;
use serde::{Deserialize, Serialize};

const HELP: &str = "\
usage: cargo bench --bench accuracy -- [options]
  --pytorch PYTHON  also measure PyTorch, in this python, which has torch and numpy
  --date DATE       the day to record beside PyTorch's results, which need it
  --table           measure nothing; only write the table of what is recorded to docs/accuracy.md
  --help
";

/// The values per channel: the fewest, odd ones, either side of a block of statistics, and the largest that is promised for.
const SIZES: [usize; 8] = [2, 17, 256, 257, 4096, 65_537, 1 << 20, (1 << 24) + 17];

/// Sizes up to here are measured again in every test run.
const SMALL: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    if !env::args_os().any(|argument| argument == "--bench") {
        return check();
    }
    let Some(options) = Options::from_arguments()? else {
        print!("{HELP}");
        return Ok(());
    };
    let mut records = recorded()?;
    if !options.table {
        let mut pytorch = options.pytorch.as_deref().map(PyTorch::start).transpose()?;
        let measured = |record: &Record| record.library == Library::Normdrop || pytorch.is_some();
        records.retain(|record| !measured(record));
        let date = options.date.unwrap_or_default();
        for name in MEASURED {
            for layout in Layout::ALL {
                for size in SIZES {
                    let of_case = Case::new(name, layout, size).measure(pytorch.as_mut(), &date)?;
                    for record in of_case {
                        println!("{}", serde_json::to_string(&record)?);
                        records.push(record);
                    }
                }
            }
        }
        records.sort_by_key(Record::key);
        let lines: Result<Vec<String>, _> = records.iter().map(serde_json::to_string).collect();
        fs::write(path("benches/results/accuracy/current.jsonl"), lines?.join("\n") + "\n")?;
    }
    fs::write(path(PAGE), with_table(&fs::read_to_string(path(PAGE))?, &records)?)?;
    print!("{}", table(&records));
    Ok(())
}

/// Fails unless what is recorded is complete, within the bounds and in the page, and the small sizes still are within them.
fn check() -> Result<(), Box<dyn Error>> {
    let records = recorded()?;
    for name in MEASURED {
        for layout in Layout::ALL {
            for size in SIZES.into_iter().filter(|&size| size <= SMALL) {
                for measured in Case::new(name, layout, size).measure(None, "")? {
                    measured.check()?;
                }
            }
            for size in SIZES {
                for library in [Library::Normdrop, Library::PyTorch] {
                    let is = |record: &&Record| (record.library, record.layout, record.size) == (library, layout, size);
                    let recorded = records.iter().filter(is).find(|record| record.class == name);
                    recorded
                        .ok_or(format!("nothing is recorded of {library:?}, {name}, {layout:?}, {size}"))?
                        .check()?;
                }
            }
        }
    }
    let page = fs::read_to_string(path(PAGE))?;
    if with_table(&page, &records)? != page {
        return Err(format!("the table of errors in {PAGE} is not the recorded one: run with --table").into());
    }
    Ok(())
}

/// A file of the crate.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn recorded() -> Result<Vec<Record>, Box<dyn Error>> {
    let file = path("benches/results/accuracy/current.jsonl");
    let lines = if file.exists() { fs::read_to_string(file)? } else { String::new() };
    Ok(lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// The worst errors of one library, for one class of data in one layout and size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    library: Library,
    /// The version of another library, and the day of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<String>,
    class: String,
    layout: Layout,
    size: usize,
    channels: usize,
    errors: Units,
}

impl Record {
    /// Fails if it is the crate's and an error is larger than the bound that the tests hold.
    fn check(&self) -> Result<(), String> {
        let within = self.errors.each().into_iter().zip(bounds()).all(|(units, bound)| units <= bound);
        if within || self.library != Library::Normdrop { Ok(()) } else { Err(format!("out of bounds: {self:?}")) }
    }

    /// What tells a record from the others.
    fn key(&self) -> (Library, usize, Layout, usize) {
        let class = MEASURED.iter().position(|&name| name == self.class);
        (self.library, class.unwrap_or(MEASURED.len()), self.layout, self.size)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Library {
    Normdrop,
    PyTorch,
}

/// How the channels of a tensor are in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Layout {
    Planar,
    ChannelsLast,
}

impl Layout {
    const ALL: [Self; 2] = [Self::Planar, Self::ChannelsLast];

    const fn name(self) -> &'static str {
        match self {
            Self::Planar => "planar",
            Self::ChannelsLast => "channels_last",
        }
    }
}

/// The worst error of each result, in units of its scale.
///
/// Nothing stands for an infinite one, which JSON does not have: a result that is not finite where the exact one is, or is not
/// 0 where the exact one and its scale are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Units {
    mean: Option<f64>,
    var: Option<f64>,
    y: Option<f64>,
    dx: Option<f64>,
    d_weight: Option<f64>,
    d_bias: Option<f64>,
}

impl Units {
    const RESULTS: [&str; 6] = ["mean", "variance", "`y`", "`dx`", "`d_weight`", "`d_bias`"];

    fn new(statistics: &StatisticsErrors, call: &CallErrors) -> Self {
        // What a table shows; more digits would only be harder to compare.
        let rounded = |units: f64| units.is_finite().then_some((units * 1000.0).round() / 1000.0);
        Self {
            mean: rounded(statistics.mean.units()),
            var: rounded(statistics.var.units()),
            y: rounded(call.y.units()),
            dx: rounded(call.dx.units()),
            d_weight: rounded(call.d_weight.units()),
            d_bias: rounded(call.d_bias.units()),
        }
    }

    fn each(&self) -> [f64; 6] {
        let Self { mean, var, y, dx, d_weight, d_bias } = *self;
        [mean, var, y, dx, d_weight, d_bias].map(|units| units.unwrap_or(f64::INFINITY))
    }
}

/// What a layer is given.
struct Case {
    class: &'static str,
    layout: Layout,
    size: usize,
    shape: reference::Shape,
    weight: Vec<f32>,
    bias: Vec<f32>,
    x: Vec<f32>,
    dy: Vec<f32>,
}

/// What it gives back.
struct Results {
    y: Vec<f32>,
    dx: Vec<f32>,
    mean: Vec<f32>,
    var: Vec<f32>,
    d_weight: Vec<f32>,
    d_bias: Vec<f32>,
}

impl Case {
    fn new(name: &'static str, layout: Layout, size: usize) -> Self {
        // More than a vector of channels, and of the large sizes as many as the exact results have memory for.
        let channels = ((1 << 21) / size).clamp(2, 19);
        let (outer, inner) = match layout {
            Layout::Planar => (1, size),
            Layout::ChannelsLast => (size, 1),
        };
        let shape = reference::Shape { outer, channels, inner };
        let mut random = SplitMix64::new(size as u64);
        let seeds: Vec<u64> = (0..channels).map(|_| random.next_u64()).collect();
        let x = shape.tensor(|channel| class(name).values(seeds[channel], size));
        let dy = shape.tensor(|channel| class("normal").values(!seeds[channel], size));
        #[expect(clippy::cast_possible_truncation, reason = "rounded to f32")]
        let mut parameters = || (0..channels).map(|_| (4.0 * random.next_unit() - 2.0) as f32).collect();
        Self { class: name, layout, size, shape, weight: parameters(), bias: parameters(), x, dy }
    }

    /// The errors of the crate, and of PyTorch where it runs.
    fn measure(&self, pytorch: Option<&mut PyTorch>, date: &str) -> Result<Vec<Record>, Box<dyn Error>> {
        let exact = Exact::of(self);
        let record = |library, version, date, results: &Results| Record {
            library,
            version,
            date,
            class: self.class.to_owned(),
            layout: self.layout,
            size: self.size,
            channels: self.shape.channels,
            errors: exact.errors(results),
        };
        let mut records = vec![record(Library::Normdrop, None, None, &self.train()?)];
        if let Some(pytorch) = pytorch {
            let results = pytorch.train(self)?;
            records.push(record(Library::PyTorch, Some(pytorch.version.clone()), Some(date.to_owned()), &results));
        }
        Ok(records)
    }

    /// A training call and the backward call after it.
    fn train(&self) -> Result<Results, normdrop::Error> {
        let reference::Shape { outer, channels, inner } = self.shape;
        let config = Config { momentum: 1.0, ..Config::DEFAULT };
        let layer = Layer::new(Shape::new(outer, channels, inner)?, Identity, config)?;
        let parameters = Parameters { weight: Some(&self.weight), bias: Some(&self.bias) };
        let (elements, of_channels) = (vec![f32::NAN; self.x.len()], vec![f32::NAN; channels]);
        let mut results = Results {
            y: elements.clone(),
            dx: elements,
            mean: of_channels.clone(),
            var: of_channels.clone(),
            d_weight: of_channels.clone(),
            d_bias: of_channels.clone(),
        };
        let (mut mean, mut mean_tail, mut inv_std) = (of_channels.clone(), of_channels, vec![f64::NAN; channels]);
        let mut scratch = vec![0.0; layer.scratch_len()];
        layer.train(Train {
            parameters,
            running: Some(RunningMut::new(&mut results.mean, &mut results.var)),
            dropout: Dropout::Off,
            input: &self.x,
            residual: None,
            output: &mut results.y,
            saved: SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std },
            scratch: &mut scratch,
        })?;
        layer.backward(Backward {
            parameters,
            statistics: Statistics::Batch(Saved { mean: &mean, mean_tail: &mean_tail, inv_std: &inv_std }),
            dropout: Dropout::Off,
            input: &self.x,
            residual: None,
            grad_output: &self.dy,
            grad_input: Some(&mut results.dx),
            grad_residual: None,
            grad_parameters: ParameterGradients {
                weight: Some(&mut results.d_weight),
                bias: Some(&mut results.d_bias),
            },
            scratch: &mut scratch,
        })?;
        Ok(results)
    }
}

/// The exact results of a case.
struct Exact {
    layer: reference::Layer,
    moments: Vec<reference::Moments>,
    forward: Forward,
    backward: Gradients,
}

impl Exact {
    fn of(case: &Case) -> Self {
        let layer = reference::Layer {
            shape: case.shape,
            eps: Config::DEFAULT.eps,
            momentum: 1.0,
            running_var: reference::RunningVariance::Unbiased,
            threshold: 1 << 32,
            activation: reference::Activation::Identity,
        };
        let [weight, bias, x, dy] = [&case.weight, &case.bias, &case.x, &case.dy].map(|values| widened(values));
        let parameters = reference::Parameters { weight: Some(&weight), bias: Some(&bias), residual: None };
        let moments = layer.moments(&x);
        let centres = layer.batch_statistics(&moments);
        let forward = layer.forward(parameters, &centres, None, &x);
        let call = reference::Backward { mask: None, x: &x, dy: &dy, z: None };
        let backward = layer.backward(parameters, &centres, reference::Statistics::Batch, call);
        Self { layer, moments, forward, backward }
    }

    fn errors(&self, results: &Results) -> Units {
        let Results { y, dx, mean, var, d_weight, d_bias } = results;
        let (mut statistics, mut call) = (StatisticsErrors::none(), CallErrors::none());
        statistics.add(&self.layer, &self.moments, mean, var);
        call.add_forward(&self.forward, y);
        call.add_backward(self.layer.shape, &self.backward, Differentiated { dx, d_residual: &[], d_weight, d_bias });
        Units::new(&statistics, &call)
    }
}

/// PyTorch in a program of its own: `pytorch.py`, which says how to talk to it.
struct PyTorch {
    program: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    version: String,
}

impl PyTorch {
    fn start(python: &Path) -> Result<Self, Box<dyn Error>> {
        let mut program = Command::new(python)
            .arg(path("benches/accuracy/pytorch.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(requests), Some(answers)) = (program.stdin.take(), program.stdout.take()) else {
            return Err("the program has no pipes".into());
        };
        let (mut answers, mut version) = (BufReader::new(answers), String::new());
        answers.read_line(&mut version)?;
        Ok(Self { program, requests, answers, version: version.trim().to_owned() })
    }

    fn train(&mut self, case: &Case) -> Result<Results, Box<dyn Error>> {
        let (elements, channels) = (case.x.len(), case.shape.channels);
        writeln!(self.requests, "{} {channels} {}", case.layout.name(), case.size)?;
        for values in [&case.x, &case.dy, &case.weight, &case.bias] {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            self.requests.write_all(&bytes)?;
        }
        self.requests.flush()?;
        let mut read = |count: usize| -> Result<Vec<f32>, Box<dyn Error>> {
            let mut bytes = vec![0; 4 * count];
            self.answers.read_exact(&mut bytes)?;
            Ok(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
        };
        Ok(Results {
            y: read(elements)?,
            dx: read(elements)?,
            mean: read(channels)?,
            var: read(channels)?,
            d_weight: read(channels)?,
            d_bias: read(channels)?,
        })
    }
}

impl Drop for PyTorch {
    fn drop(&mut self) {
        // It would end by itself where its input does, but nothing is left for it to do.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// The page that has the table.
const PAGE: &str = "docs/accuracy.md";

/// The marks around the table in the page.
const MARKS: [&str; 2] = ["<!-- benches/accuracy writes from here -->\n", "<!-- to here -->\n"];

/// The page with the table of the records.
fn with_table(page: &str, records: &[Record]) -> Result<String, Box<dyn Error>> {
    let [start, end] = MARKS;
    let parts = page.split_once(start).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = parts.ok_or("the page has no marks for the table")?;
    Ok(format!("{before}{start}{}{end}{after}", table(records)))
}

/// The bounds of the crate's errors, in the order of [`Units::RESULTS`].
fn bounds() -> [f64; 6] {
    let Bounds { mean, var, y, dx, d_weight, d_bias, .. } = PROMISE;
    [mean, var, y, dx, d_weight, d_bias]
}

/// A row for each class; in each cell the worst errors over all sizes: of the crate over both layouts, of PyTorch in each.
fn table(records: &[Record]) -> String {
    let mut worst: BTreeMap<_, [f64; 6]> = BTreeMap::new();
    for record in records {
        let worst = worst.entry((record.class.as_str(), record.library, record.layout)).or_insert([0.0; 6]);
        for (worst, units) in worst.iter_mut().zip(record.errors.each()) {
            *worst = worst.max(units);
        }
    }
    let of = |name, library, layout, result: usize| worst.get(&(name, library, layout)).map(|worst| worst[result]);
    let mut text = format!("| data | {} |\n|---|{}\n", Units::RESULTS.join(" | "), "---|".repeat(6));
    // Writing to a string cannot fail.
    let _ = writeln!(text, "| *bound of the tests* | {} |", bounds().map(|bound| bound.to_string()).join(" | "));
    for name in MEASURED {
        let cells: Vec<String> = (0..Units::RESULTS.len())
            .map(|result| {
                let [planar, columns] = Layout::ALL.map(|layout| of(name, Library::Normdrop, layout, result));
                let here = planar.zip(columns).map(|(planar, columns)| planar.max(columns));
                let there = Layout::ALL.map(|layout| of(name, Library::PyTorch, layout, result));
                [here, there[0], there[1]].map(figure).join(" · ")
            })
            .collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    text
}

/// Two digits of an error, or what stands for one that was not measured or is infinite.
fn figure(units: Option<f64>) -> String {
    match units {
        None => "?".to_owned(),
        Some(units) if units.is_infinite() => "∞".to_owned(),
        Some(units) if units < 99.5 => format!("{units:.1}"),
        Some(units) => format!("{units:.0e}"),
    }
}

struct Options {
    pytorch: Option<PathBuf>,
    date: Option<String>,
    table: bool,
}

impl Options {
    /// The options of the command line, or nothing if it asks for help.
    fn from_arguments() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self { pytorch: None, date: None, table: false };
        let mut parser = Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("pytorch") => options.pytorch = Some(parser.value()?.into()),
                Arg::Long("date") => options.date = Some(parser.value()?.parse()?),
                Arg::Long("table") => options.table = true,
                // Of `cargo bench`.
                Arg::Long("bench") => {}
                Arg::Long("help") => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        match options {
            Self { pytorch: Some(_), date: None, .. } => Err("--pytorch needs --date".into()),
            options => Ok(Some(options)),
        }
    }
}

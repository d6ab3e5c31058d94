//! The speed of normdrop beside that of other libraries, all in one run whose rounds go through all of them.
//!
//! The README beside this package says how to run it, what is measured, and what is fair about it and what is not.

mod data;
mod handwritten;
mod ours;
mod peer;
mod picture;
mod report;
mod with_burn;
mod with_candle;
mod workload;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};
use normdrop::Bf16;

use crate::data::Data;
use crate::peer::{Inside, Outside, Peer, Result, time};
use crate::report::{ElementType, Line, Measurement, Name, Run};
use crate::workload::{Op, Workload};

const HELP: &str = "\
usage: peers [options]
  --venvs DIR       where setup.sh put the Python peers; what is not there is left out
  --workload A,C    some of the workloads A to H (all)
  --peer NAME,NAME  some of the peers (all); normdrop is always there, with a mask and with gates
  --element TYPE    the type of the elements, f32 or bf16 (f32); only normdrop and PyTorch have bf16
  --rounds N        samples of each op (15)
  --date DATE       the day to record
  --note TEXT       what else to say of the run
  --out PATH        write PATH.jsonl, PATH.md and PATH.png
  --report          measure nothing; write PATH.md and PATH.png from PATH.jsonl
  --help
";

/// Where normdrop is in the list of entries.
const WITH_MASK: usize = 0;
const WITH_GATES: usize = 1;
/// The least time that the calls of one sample take together.
const SAMPLE: Duration = Duration::from_millis(2);
/// From this many elements on, no cache still has what a call left, and a call that warms it up would be for nothing.
const LARGE: usize = 1 << 22;

fn main() -> Result<()> {
    let Some(options) = Options::from_arguments()? else {
        print!("{HELP}");
        return Ok(());
    };
    let lines = if options.report { recorded(&options.file("jsonl"))? } else { measured(&options)? };
    if !options.report {
        let text: serde_json::Result<Vec<String>> = lines.iter().map(serde_json::to_string).collect();
        fs::write(options.file("jsonl"), text?.join("\n") + "\n")?;
    }
    let markdown = report::markdown(&lines);
    print!("{markdown}");
    fs::write(options.file("md"), markdown)?;
    picture::write_png(BufWriter::new(File::create(options.file("png"))?), &lines)
}

fn recorded(file: &Path) -> Result<Vec<Line>> {
    fs::read_to_string(file)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// A peer and the ops that it has.
struct Entry {
    name: Name,
    version: String,
    ops: &'static [Op],
    peer: Box<dyn Peer>,
}

impl Entry {
    /// A peer of this process whose version is that of this tree.
    fn inside(name: Name, ops: &'static [Op], peer: Box<dyn Peer>) -> Self {
        Self { name, version: String::new(), ops, peer }
    }
}

const WITH_DROPOUT: &[Op] = &[Op::Forward, Op::Backward, Op::ReluForward, Op::ReluBackward];

/// normdrop on elements of type `E`, with a mask and with gates.
fn of_normdrop<E: ours::Stored>() -> Vec<Entry> {
    vec![
        Entry::inside(Name::Normdrop, &Op::RUN, Box::new(Inside(None::<ours::Normdrop<E, false>>))),
        Entry::inside(Name::NormdropGates, WITH_DROPOUT, Box::new(Inside(None::<ours::Normdrop<E, true>>))),
    ]
}

fn entries(options: &Options) -> Result<Vec<Entry>> {
    const NORM: &[Op] = &[Op::NormForward, Op::NormBackward];
    let mut entries = match options.element {
        ElementType::F32 => of_normdrop::<f32>(),
        ElementType::Bf16 => of_normdrop::<Bf16>(),
    };
    let is_bf16 = options.element == ElementType::Bf16;
    for name in Name::ALL.into_iter().filter(|&name| options.peers.is_empty() || options.peers.contains(&name)) {
        if is_bf16 && !matches!(name, Name::PytorchOld | Name::Pytorch | Name::PytorchCompiled) {
            continue;
        }
        let library = options.venvs.join("libdnnl.so.3").display().to_string();
        let python = |venv: &str| options.venvs.join(venv).join("bin/python");
        let (program, python, arguments, ops): (_, _, &[&str], &[Op]) = match name {
            Name::Normdrop | Name::NormdropGates => continue,
            Name::Handwritten => {
                entries.push(Entry::inside(name, &Op::RUN, Box::new(Inside(None::<handwritten::Handwritten>))));
                continue;
            }
            Name::Burn => {
                let peer = Box::new(Inside(None::<with_burn::Burn>));
                entries.push(Entry { name, version: locked("burn")?, ops: WITH_DROPOUT, peer });
                continue;
            }
            Name::Candle => {
                let peer = Box::new(Inside(None::<with_candle::Candle>));
                entries.push(Entry { name, version: locked("candle-nn")?, ops: WITH_DROPOUT, peer });
                continue;
            }
            Name::PytorchOld => ("pytorch.py", python("torch-2.4.1"), &[], &Op::RUN),
            Name::Pytorch => ("pytorch.py", python("torch"), &[], &Op::RUN),
            Name::PytorchCompiled => ("pytorch.py", python("torch"), &["--compile"], &Op::RUN),
            Name::Jax => ("xla.py", python("jax"), &[], &Op::RUN),
            Name::OnednnPlain => ("onednn.py", python("onednn"), &[&library, "plain"], NORM),
            Name::OnednnLast => ("onednn.py", python("onednn"), &[&library, "last"], NORM),
            Name::OnednnBlocked => ("onednn.py", python("onednn"), &[&library, "blocked"], NORM),
        };
        if !python.exists() {
            eprintln!("left out: {}, for want of {}", name.label(), python.display());
            continue;
        }
        let arguments = [arguments, if is_bf16 { &["--bf16"] } else { &[] }].concat();
        let (peer, version) = Outside::start(&python, program, &arguments)?;
        entries.push(Entry { name, version, ops, peer: Box::new(peer) });
    }
    Ok(entries)
}

/// The version of a package that this program was built with.
fn locked(package: &str) -> Result<String> {
    let lock = include_str!("../Cargo.lock");
    let after = lock.split_once(&format!("name = \"{package}\"\nversion = \"")).ok_or("no such package")?.1;
    Ok(after.split('"').next().unwrap_or_default().to_owned())
}

fn measured(options: &Options) -> Result<Vec<Line>> {
    let mut entries = entries(options)?;
    let load_before = load();
    let mut measurements = Vec::new();
    for workload in Workload::ALL.iter().filter(|it| chosen(&options.workloads, it.name)) {
        eprintln!("{} {}", workload.name, workload.label());
        measurements.append(&mut measure(workload, &mut entries, options.rounds)?);
    }
    let run = Run {
        date: options.date.clone(),
        note: options.note.clone(),
        element: options.element,
        cpu: cpu_model().unwrap_or_default(),
        rounds: options.rounds,
        load_before,
        load_after: load(),
        versions: entries.iter().map(|entry| (entry.name, entry.version.clone())).collect(),
    };
    Ok([Line::Run(run)].into_iter().chain(measurements.into_iter().map(Line::Measurement)).collect())
}

/// The time of one call, and of the copy right before it, in nanoseconds per element.
#[derive(Clone, Copy)]
struct Sample {
    call: f64,
    copy: f64,
}

fn measure(workload: &Workload, entries: &mut [Entry], rounds: usize) -> Result<Vec<Measurement>> {
    let data = Data::new(workload);
    let mut target = data.grad_output.clone();
    let mut copy = || {
        target.copy_from_slice(black_box(&data.input));
        black_box(&mut target);
        Ok(())
    };
    let copies = repeats(|count| time(count, &mut copy))?;
    for entry in entries.iter_mut() {
        entry.peer.open(workload)?;
    }
    let mut series: Vec<(Op, usize, u32, Vec<Sample>)> = Vec::new();
    for op in Op::RUN {
        for (index, entry) in entries.iter_mut().enumerate().filter(|(_, entry)| entry.ops.contains(&op)) {
            let calls = repeats(|count| entry.peer.time(op, 0, count))?;
            series.push((op, index, calls, Vec::new()));
        }
    }
    let per_element =
        |time: Duration, count: u32| time.as_secs_f64() * 1e9 / f64::from(count) / data.input.len() as f64;
    let warm = u32::from(data.input.len() < LARGE);
    for _ in 0..rounds {
        for (op, index, calls, samples) in &mut series {
            time(warm, &mut copy)?;
            let copy = per_element(time(copies, &mut copy)?, copies);
            let call = per_element(entries[*index].peer.time(*op, warm, *calls)?, *calls);
            samples.push(Sample { call, copy });
        }
    }

    let mut samples: BTreeMap<(Op, usize), Vec<Sample>> =
        series.into_iter().map(|(op, index, _, samples)| ((op, index), samples)).collect();
    for (sum, forward, backward) in Op::SUMS {
        for index in 0..entries.len() {
            let Some((forward, backward)) = samples.get(&(forward, index)).zip(samples.get(&(backward, index))) else {
                continue;
            };
            let add = |(a, b): (&Sample, &Sample)| Sample { call: a.call + b.call, copy: (a.copy + b.copy) / 2.0 };
            samples.insert((sum, index), forward.iter().zip(backward).map(add).collect());
        }
    }
    let measurement = |(&(op, index), of_peer): (&(Op, usize), &Vec<Sample>)| {
        let times = |ours: &Vec<Sample>| median(of_peer.iter().zip(ours).map(|(peer, ours)| peer.call / ours.call));
        Measurement {
            workload: workload.name.to_owned(),
            shape: workload.label(),
            op,
            peer: entries[index].name,
            ns_per_element: median(of_peer.iter().map(|sample| sample.call)),
            copy_ns_per_element: median(of_peer.iter().map(|sample| sample.copy)),
            copies: median(of_peer.iter().map(|sample| sample.call / sample.copy)),
            times_normdrop: times(&samples[&(op, WITH_MASK)]),
            times_gates: samples.get(&(op, WITH_GATES)).map(times),
        }
    };
    Ok(samples.iter().map(measurement).collect())
}

/// How many calls together take [`SAMPLE`]: a power of two.
fn repeats(mut time: impl FnMut(u32) -> Result<Duration>) -> Result<u32> {
    // Memory is touched, code compiled, and so on.
    time(1)?;
    let mut repeats = 1;
    while time(repeats)? < SAMPLE && repeats < 1 << 20 {
        repeats *= 2;
    }
    Ok(repeats)
}

/// The middle of some values, or the mean of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

/// The CPU's name and family, where the system tells.
fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    Some(format!("{}, family {} model {}", field("model name")?, field("cpu family")?, field("model")?))
}

/// How many threads of the machine ran or wanted to, on average over the last minute.
fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// Whether a name is in a list, where an empty list is everything.
fn chosen(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|chosen| chosen == name)
}

/// What the command line asks for. Empty lists are everything.
struct Options {
    venvs: PathBuf,
    workloads: Vec<String>,
    peers: Vec<Name>,
    element: ElementType,
    rounds: usize,
    date: String,
    note: String,
    out: PathBuf,
    report: bool,
}

impl Options {
    /// The options of this process, or none if it was asked for help.
    fn from_arguments() -> Result<Option<Self>> {
        let mut options = Self {
            venvs: "/tmp/normdrop-peers".into(),
            workloads: Vec::new(),
            peers: Vec::new(),
            element: ElementType::F32,
            rounds: 15,
            date: String::new(),
            note: String::new(),
            out: "peers".into(),
            report: false,
        };
        let mut parser = Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("venvs") => options.venvs = parser.value()?.into(),
                Arg::Long("workload") => options.workloads = list(&mut parser)?,
                Arg::Long("element") => {
                    options.element = serde_json::from_value(serde_json::Value::String(parser.value()?.string()?))?;
                }
                Arg::Long("peer") => {
                    let name = |name: String| serde_json::from_value(serde_json::Value::String(name));
                    options.peers = list(&mut parser)?.into_iter().map(name).collect::<std::result::Result<_, _>>()?;
                }
                Arg::Long("rounds") => options.rounds = parser.value()?.parse()?,
                Arg::Long("date") => options.date = parser.value()?.string()?,
                Arg::Long("note") => options.note = parser.value()?.string()?,
                Arg::Long("out") => options.out = parser.value()?.into(),
                Arg::Long("report") => options.report = true,
                Arg::Long("help") | Arg::Short('h') => return Ok(None),
                other => return Err(other.unexpected().into()),
            }
        }
        if options.rounds == 0 {
            return Err("there is no median of no rounds".into());
        }
        Ok(Some(options))
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.out.with_extension(extension)
    }
}

fn list(parser: &mut Parser) -> Result<Vec<String>> {
    Ok(parser.value()?.string()?.split(',').map(str::to_owned).collect())
}

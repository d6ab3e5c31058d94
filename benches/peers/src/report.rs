//! The results as lines of JSON and as tables.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::workload::Op;

/// A line of the results.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Line {
    Run(Run),
    Measurement(Measurement),
}

/// What is true of all measurements of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) date: String,
    pub(crate) note: String,
    /// The type of the elements of `x`, `y`, `dy` and `dx`.
    #[serde(default)]
    pub(crate) element: ElementType,
    pub(crate) cpu: String,
    pub(crate) rounds: usize,
    pub(crate) load_before: Option<f64>,
    pub(crate) load_after: Option<f64>,
    pub(crate) versions: Vec<(Name, String)>,
}

/// A type of elements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ElementType {
    #[default]
    F32,
    Bf16,
}

impl ElementType {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// Medians over the rounds of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measurement {
    pub(crate) workload: String,
    pub(crate) shape: String,
    pub(crate) op: Op,
    pub(crate) peer: Name,
    pub(crate) ns_per_element: f64,
    pub(crate) copy_ns_per_element: f64,
    /// The time over that of the copy right before.
    pub(crate) copies: f64,
    /// The time over that of normdrop in the same round.
    pub(crate) times_normdrop: f64,
    /// The time over that of normdrop with gates in the same round, of ops with dropout.
    pub(crate) times_gates: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Name {
    Normdrop,
    NormdropGates,
    Handwritten,
    PytorchOld,
    Pytorch,
    PytorchCompiled,
    Jax,
    Burn,
    Candle,
    OnednnPlain,
    OnednnLast,
    OnednnBlocked,
}

impl Name {
    pub(crate) const ALL: [Self; 12] = [
        Self::Normdrop,
        Self::NormdropGates,
        Self::Handwritten,
        Self::PytorchOld,
        Self::Pytorch,
        Self::PytorchCompiled,
        Self::Jax,
        Self::Burn,
        Self::Candle,
        Self::OnednnPlain,
        Self::OnednnLast,
        Self::OnednnBlocked,
    ];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Normdrop => "normdrop",
            Self::NormdropGates => "normdrop, gates",
            Self::Handwritten => "careful loop",
            Self::PytorchOld => "PyTorch 2.4.1",
            Self::Pytorch => "PyTorch",
            Self::PytorchCompiled => "PyTorch compiled",
            Self::Jax => "JAX",
            Self::Burn => "burn",
            Self::Candle => "candle",
            Self::OnednnPlain => "oneDNN NCHW",
            Self::OnednnLast => "oneDNN NHWC",
            Self::OnednnBlocked => "oneDNN nChw16c",
        }
    }

    /// Whether it is a framework, so not what someone wrote for one purpose.
    const fn is_framework(self) -> bool {
        !matches!(self, Self::Normdrop | Self::NormdropGates | Self::Handwritten)
    }

    pub(crate) const fn is_onednn(self) -> bool {
        matches!(self, Self::OnednnPlain | Self::OnednnLast | Self::OnednnBlocked)
    }
}

pub(crate) fn measurements(lines: &[Line]) -> impl Iterator<Item = &Measurement> {
    lines.iter().filter_map(|line| match line {
        Line::Measurement(measurement) => Some(measurement),
        Line::Run(_) => None,
    })
}

pub(crate) fn run(lines: &[Line]) -> Option<&Run> {
    lines.iter().find_map(|line| match line {
        Line::Run(run) => Some(run),
        Line::Measurement(_) => None,
    })
}

/// The workloads that were measured, by name and shape.
pub(crate) fn workloads(lines: &[Line]) -> Vec<(&str, &str)> {
    let mut workloads: Vec<_> = measurements(lines).map(|it| (it.workload.as_str(), it.shape.as_str())).collect();
    workloads.dedup();
    workloads
}

/// All peers of an op, in the order of [`Name::ALL`].
pub(crate) fn peers(lines: &[Line], op: Op) -> Vec<Name> {
    let has = |name: &Name| measurements(lines).any(|it| it.op == op && it.peer == *name);
    Name::ALL.into_iter().filter(has).collect()
}

pub(crate) fn find<'a>(lines: &'a [Line], workload: &str, op: Op, peer: Name) -> Option<&'a Measurement> {
    measurements(lines).find(|it| it.workload == workload && it.op == op && it.peer == peer)
}

pub(crate) fn markdown(lines: &[Line]) -> String {
    let mut text = String::new();
    if let Some(run) = run(lines) {
        let load = |load: Option<f64>| load.map_or("unknown".to_owned(), |load| format!("{load:.1}"));
        let versions: Vec<String> = run
            .versions
            .iter()
            .filter(|(_, version)| !version.is_empty())
            .map(|(name, version)| format!("{} ({version})", name.label()))
            .collect();
        text += "| | |\n|---|---|\n";
        for (key, value) in [
            ("date", run.date.clone()),
            ("CPU", format!("{}; one core, one thread", run.cpu)),
            ("peers", versions.join(", ")),
            ("rounds", run.rounds.to_string()),
            (
                "load average",
                format!("{} before, {} after, this run's own 1 included", load(run.load_before), load(run.load_after)),
            ),
            ("elements", run.element.label().to_owned()),
            ("note", run.note.clone()),
        ] {
            writeln!(text, "| {key} | {value} |").expect("a String takes everything");
        }
    }
    for (title, op) in [
        ("Batch norm and dropout: forward and backward together", Op::Step),
        ("Batch norm and dropout: forward", Op::Forward),
        ("Batch norm and dropout: backward", Op::Backward),
        ("Batch norm, ReLU and dropout: forward and backward together", Op::ReluStep),
        ("Batch norm, ReLU and dropout: forward", Op::ReluForward),
        ("Batch norm, ReLU and dropout: backward", Op::ReluBackward),
        ("Batch norm alone: forward and backward together", Op::NormStep),
        ("Batch norm alone: forward", Op::NormForward),
        ("Batch norm alone: backward", Op::NormBackward),
    ] {
        text += &table(lines, title, op);
    }
    text
}

/// A table of one op. In a cell: nanoseconds per element, and how many times those of normdrop in the same round.
/// "beside gates" is the best framework as a multiple of normdrop with gates.
fn table(lines: &[Line], title: &str, op: Op) -> String {
    let peers = peers(lines, op);
    let best_of: (&str, fn(Name) -> bool) =
        if op.has_dropout() { ("best framework", Name::is_framework) } else { ("best oneDNN", Name::is_onednn) };
    let mut text = format!("\n### {title}\n\n| workload | copy |");
    for peer in &peers {
        text += &format!(" {} |", peer.label());
    }
    text += &format!(" {} |", best_of.0);
    if op.has_dropout() {
        text += " beside gates |";
    }
    text += &format!("\n|---|{}\n", "---|".repeat(peers.len() + 2 + usize::from(op.has_dropout())));
    for (workload, shape) in workloads(lines) {
        let of_peers: Vec<_> = peers.iter().map(|&peer| find(lines, workload, op, peer)).collect();
        let copy = of_peers[0].map_or(f64::NAN, |it| it.copy_ns_per_element);
        text += &format!("| {workload} {shape} | {copy:.2} |");
        for measurement in &of_peers {
            text += &match measurement {
                Some(it) if it.peer == Name::Normdrop => format!(" **{:.2}** |", it.ns_per_element),
                Some(it) => format!(" {:.2} ({:.1}×) |", it.ns_per_element, it.times_normdrop),
                None => " |".to_owned(),
            };
        }
        let rivals = || of_peers.iter().flatten().filter(|it| best_of.1(it.peer));
        let mut best = |times: Option<f64>| match times {
            Some(times) => text += &format!(" **{times:.2}×** |"),
            None => text += " |",
        };
        best(rivals().map(|it| it.times_normdrop).min_by(f64::total_cmp));
        if op.has_dropout() {
            best(rivals().filter_map(|it| it.times_gates).min_by(f64::total_cmp));
        }
        text += "\n";
    }
    text
}

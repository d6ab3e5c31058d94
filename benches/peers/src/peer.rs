//! Whom the run goes through, in this process and in others.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::workload::{Layout, Op, Workload};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A library that runs the ops of a workload.
pub(crate) trait Peer {
    /// Makes the tensors of a workload, and forgets older ones.
    fn open(&mut self, workload: &Workload) -> Result<()>;

    /// The CPU time of `count` calls, after `warm` that do not count.
    fn time(&mut self, op: Op, warm: u32, count: u32) -> Result<Duration>;
}

/// A library of this process.
pub(crate) trait Library: Sized {
    fn new(workload: &Workload) -> Result<Self>;

    /// Makes what the next calls will use up; takes no part of the time.
    fn prepare(&mut self, _op: Op, _calls: u32) -> Result<()> {
        Ok(())
    }

    fn run(&mut self, op: Op) -> Result<()>;
}

/// A library of this process with the tensors of a workload, if one was opened.
pub(crate) struct Inside<L>(pub(crate) Option<L>);

impl<L: Library> Peer for Inside<L> {
    fn open(&mut self, workload: &Workload) -> Result<()> {
        self.0 = None;
        self.0 = Some(L::new(workload)?);
        Ok(())
    }

    fn time(&mut self, op: Op, warm: u32, count: u32) -> Result<Duration> {
        let library = self.0.as_mut().ok_or("no workload was opened")?;
        library.prepare(op, warm + count)?;
        for _ in 0..warm {
            library.run(op)?;
        }
        time(count, || library.run(op))
    }
}

/// A Python program that answers requests, as `python/peer.py` says.
pub(crate) struct Outside {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Outside {
    /// Starts it, and returns its version as well.
    pub(crate) fn start(python: &Path, program: &str, arguments: &[&str]) -> Result<(Self, String)> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(program);
        let mut child = Command::new(python)
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", python.display()))?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("the child has an output")?);
        let mut outside = Self { child, requests, answers };
        let version = serde_json::from_str(&outside.answer()?)?;
        Ok((outside, version))
    }

    fn ask(&mut self, request: &str) -> Result<String> {
        let requests = self.requests.as_mut().ok_or("the child has an input")?;
        writeln!(requests, "{request}")?;
        requests.flush()?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err("a Python program ended without an answer".into()),
            _ => Ok(line),
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // The end of its input is the end of the program.
        self.requests = None;
        if let Err(error) = self.child.wait() {
            eprintln!("a Python program did not end: {error}");
        }
    }
}

impl Peer for Outside {
    fn open(&mut self, workload: &Workload) -> Result<()> {
        let layout = match workload.layout {
            Layout::Planar => "planar",
            Layout::Last => "last",
        };
        let dims: Vec<String> = workload.dims.iter().map(usize::to_string).collect();
        self.ask(&format!("open {layout} {}", dims.join(" ")))?;
        Ok(())
    }

    fn time(&mut self, op: Op, warm: u32, count: u32) -> Result<Duration> {
        let answer = self.ask(&format!("time {} {warm} {count}", op.name()))?;
        Ok(Duration::from_secs_f64(serde_json::from_str(&answer)?))
    }
}

/// The CPU time that this process takes for some calls.
pub(crate) fn time(count: u32, mut call: impl FnMut() -> Result<()>) -> Result<Duration> {
    let start = cpu_time()?;
    for _ in 0..count {
        call()?;
    }
    Ok(cpu_time()?.saturating_sub(start))
}

fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::ProcessCPUTime).try_into()?)
}

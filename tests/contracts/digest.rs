//! The digests of `tests/digest.txt`, by the code that computes them on other targets: tests/rigs/digest, which
//! `.ci/targets` runs there. Here every backend of this CPU must give them.

use std::fmt::{self, Write};
use std::sync::Mutex;

use normdrop::Backend;

#[expect(unreachable_pub, reason = "in its own package it is a library")]
#[path = "../rigs/digest/src/corpus.rs"]
pub(crate) mod corpus;

use corpus::{Large, LargeMemory, Small, SmallMemory};

/// What is printed, compared line by line with what is recorded: the first digest that differs ends the test.
struct Comparison {
    backend: Backend,
    recorded: std::vec::IntoIter<&'static str>,
    line: String,
    lines: usize,
}

impl Comparison {
    fn new(backend: Backend) -> Self {
        let mut recorded = lines(include_str!("../digest.txt"));
        recorded.retain(|line| cfg!(feature = "half-precision") || !line.contains(" halves, "));
        Self { backend, recorded: recorded.into_iter(), line: String::new(), lines: 0 }
    }

    fn compare(&mut self) {
        let line = std::mem::take(&mut self.line);
        if is_line(&line) {
            assert_eq!(Some(line.as_str()), self.recorded.next(), "{}", self.backend.name());
            self.lines += 1;
        }
    }
}

impl Write for Comparison {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            self.line.push_str(part.trim_end_matches('\n'));
            if part.ends_with('\n') {
                self.compare();
            }
        }
        Ok(())
    }
}

/// Neither a remark nor empty.
fn is_line(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#')
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| is_line(line)).collect()
}

/// The backends of this CPU and this build.
pub(crate) fn backends() -> impl Iterator<Item = Backend> {
    Backend::ALL.into_iter().filter(|backend| backend.is_available())
}

#[test]
fn numeric_contract_every_backend_gives_the_digests_that_are_recorded_for_all_targets() {
    // More than the stack of a test's thread holds.
    static MEMORY: Mutex<LargeMemory> = Mutex::new(LargeMemory::new());
    let mut memory = MEMORY.lock().expect("nobody else has it");
    for backend in backends() {
        let mut comparison = Comparison::new(backend);
        memory.run::<Small>(Some(backend), &mut comparison).expect("the calls of the small corpus");
        memory.run::<Large>(Some(backend), &mut comparison).expect("the calls of the large corpus");
        assert_eq!(comparison.recorded.next(), None, "{}: a line is missing", backend.name());
        println!("{}: {} lines as recorded", backend.name(), comparison.lines);
    }
}

#[test]
fn numeric_contract_the_digests_of_the_small_corpus_need_little_memory() {
    // 16 KiB of RAM have room for this, and for the stack. Without vector registers it is less: there is hardly any scratch.
    const { assert!(size_of::<SmallMemory>() < 10 << 10) };
    for backend in backends() {
        let mut comparison = Comparison::new(backend);
        SmallMemory::new().run::<Small>(Some(backend), &mut comparison).expect("the calls of the small corpus");
        assert!(comparison.lines > 0, "nothing was printed");
    }
}

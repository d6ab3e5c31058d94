//! The digests of `tests/digest.txt`, by the code that computes them on other targets: examples/digest, which
//! `.ci/targets` runs there. Here every backend of this CPU must give them.

use std::sync::Mutex;

use normdrop::Backend;

#[expect(unreachable_pub, reason = "in its own package it is a library")]
#[path = "../../examples/digest/src/corpus.rs"]
mod corpus;

use corpus::{Large, LargeMemory, Small, SmallMemory};

/// Lines without remarks and empty ones.
fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// The backends of this CPU and this build.
fn backends() -> impl Iterator<Item = Backend> {
    Backend::ALL.into_iter().filter(|backend| backend.is_available())
}

#[test]
fn numeric_contract_every_backend_gives_the_digests_that_are_recorded_for_all_targets() {
    // More than the stack of a test's thread holds.
    static MEMORY: Mutex<LargeMemory> = Mutex::new(LargeMemory::new());
    let mut memory = MEMORY.lock().expect("nobody else has it");
    for backend in backends() {
        let mut printed = String::new();
        memory.run::<Small>(Some(backend), &mut printed).expect("the calls of the small corpus");
        memory.run::<Large>(Some(backend), &mut printed).expect("the calls of the large corpus");
        let (found, recorded) = (lines(&printed), lines(include_str!("../digest.txt")));
        for (found, recorded) in found.iter().zip(&recorded) {
            assert_eq!(found, recorded, "{}", backend.name());
        }
        assert_eq!(found.len(), recorded.len(), "{}", backend.name());
        println!("{}: {} lines as recorded", backend.name(), found.len());
    }
}

#[test]
fn numeric_contract_the_digests_of_the_small_corpus_need_little_memory() {
    // 16 KiB of RAM have room for this, and for the stack.
    const { assert!(size_of::<SmallMemory>() < 9 << 10) };
    for backend in backends() {
        let mut printed = String::new();
        SmallMemory::new().run::<Small>(Some(backend), &mut printed).expect("the calls of the small corpus");
        let recorded = lines(include_str!("../digest.txt"));
        assert!(lines(&printed).iter().zip(&recorded).all(|(found, recorded)| found == recorded), "{printed}");
    }
}

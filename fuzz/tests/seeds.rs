//! The checked-in seeds are what they say, and the crate keeps its promises on all of them.

use std::collections::BTreeMap;
use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};
use normdrop_fuzz::encode::Encode;
use normdrop_fuzz::input::{LayerInput, Poke, Values};
use normdrop_fuzz::seeds;

#[test]
fn every_seed_keeps_the_promises() {
    let broken: Vec<String> = seeds::all()
        .into_iter()
        .filter(|seed| std::panic::catch_unwind(|| seeds::run(seed.folder, &seed.bytes)).is_err())
        .map(|seed| format!("{}/{}", seed.folder, seed.name))
        .collect();
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn the_files_are_those_that_the_example_writes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut files = BTreeMap::new();
    for kind in std::fs::read_dir(folder).expect("the seeds are checked in") {
        let kind = kind.expect("the folder can be read").path();
        for file in std::fs::read_dir(&kind).expect("each kind has a folder") {
            let path = file.expect("the folder can be read").path();
            files.insert(path.clone(), std::fs::read(&path).expect("a seed can be read"));
        }
    }
    for seed in seeds::all() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(seed.folder).join(&seed.name);
        assert!(files.remove(&path).as_ref() == Some(&seed.bytes), "{} differs", path.display());
    }
    assert!(files.is_empty(), "nothing makes these files: {:?}", files.keys());
}

#[test]
fn what_is_encoded_is_what_the_fuzzer_reads() {
    let input = LayerInput {
        x: Values { class: 3, seed: 0xABCD, exponent: -7, mixed: true },
        pokes: vec![Poke { tensor: 1, index: 2, bits: 3 }, Poke { tensor: 4, index: 5, bits: 6 }],
        ..LayerInput::default()
    };
    let bytes = input.encoded();
    assert_eq!(LayerInput::arbitrary_take_rest(Unstructured::new(&bytes)).ok(), Some(input));
}

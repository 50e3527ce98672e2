//! The fuzz targets, over their corpus and what is almost in it: what a fuzzer would do, bounded and the same every time.

use crate::mutation::{Random, mutated};
use std::path::Path;

#[path = "../../fuzz/targets.rs"]
pub(crate) mod targets;

/// Mutations of a corpus in one run, unless `TRACT_FUZZ_RUNS` says otherwise.
const RUNS: usize = 20_000;

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let read = |path: std::path::PathBuf| (path.display().to_string(), std::fs::read(path).unwrap());
    let mut seeds: Vec<_> = files.map(|file| read(file.unwrap().path())).collect();
    seeds.sort();
    assert!(seeds.len() >= 5, "{target} has {} seeds", seeds.len());
    seeds
}

#[test]
fn every_target_keeps_its_promise() {
    let runs = std::env::var("TRACT_FUZZ_RUNS").ok().map_or(RUNS, |runs| runs.parse().expect("a number"));
    for (name, target) in targets::ALL {
        let holds = |what: &str, bytes: &[u8]| {
            let held = std::panic::catch_unwind(|| target(bytes));
            assert!(held.is_ok(), "{name}: {what}: {:?}", String::from_utf8_lossy(bytes));
        };
        let seeds = corpus(name);
        for (path, bytes) in &seeds {
            holds(path, bytes);
        }
        let seeds: Vec<_> = seeds.into_iter().map(|(_, bytes)| bytes).collect();
        let mut random = Random::new(name.len() as u64);
        for run in 0..runs {
            let seed = random.pick(&seeds);
            holds(&format!("run {run}"), &mutated(seed, &seeds, &mut random));
        }
    }
}

/// A target without a file, or a file without a target, would be forgotten.
#[test]
fn every_target_can_be_fuzzed() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let stem = |path: std::path::PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut files: Vec<_> = std::fs::read_dir(targets).unwrap().map(|file| stem(file.unwrap().path())).collect();
    files.sort();
    assert_eq!(files, targets::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}

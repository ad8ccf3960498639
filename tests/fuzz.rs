//! The promises of `fuzz/src` over the kept corpus, `fuzz/corpus/*`, and a few thousand changes of it. `FAAS_FUZZ_SEED` makes
//! other changes; `scripts/fuzz` goes on for as long as one likes.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "promises fail by panicking; FAAS_FUZZ_SEED is read from the environment"
)]

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
};

#[path = "../fuzz/src/lib.rs"]
mod targets;

/// Longest input that changes make, in bytes.
const LONGEST: usize = 16 * 1024;

#[test]
fn whatever_is_uploaded_becomes_a_plain_archive_or_is_refused() {
    run("archive", &[], 2000, targets::archive::check);
}

#[test]
fn whatever_a_manifest_says_is_judged_the_same_in_every_way() {
    let others = ["tests/corpus/good", "tests/corpus/bad", "tests/corpus/yaml"];
    run("manifest", &others, 300, targets::manifest::check);
}

#[test]
fn whatever_head_comes_is_understood_in_one_way_or_refused() {
    run("head", &[], 2000, targets::head::check);
}

#[test]
fn whatever_an_engine_reports_is_told_in_bounded_plain_words() {
    run("report", &[], 1000, targets::report::check);
}

#[test]
fn whatever_is_written_is_shown_without_control_codes() {
    run("text", &[], 500, targets::text::check);
}

/// Checks the corpus of a target, with what lies in `others` too, and so many changes of it.
fn run(target: &str, others: &[&str], changes: u32, check: fn(&[u8])) {
    let kept = format!("fuzz/corpus/{target}");
    let mut corpus = Vec::new();
    for dir in [kept.as_str()].iter().chain(others) {
        corpus.extend(read(dir));
    }
    for (name, bytes) in &corpus {
        hold(check, bytes, name);
    }
    let seed = env::var("FAAS_FUZZ_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("{changes} changes of {} files, seed {seed}", corpus.len());
    let mut random = Random(seed);
    for number in 1..=changes {
        let bytes = random.change(&corpus);
        hold(check, &bytes, &format!("change {number} of seed {seed}"));
    }
}

fn read(dir: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
        .into_iter()
        .map(|path| (path.display().to_string(), fs::read(path).unwrap()))
        .collect()
}

/// Says what it was that broke a promise.
fn hold(check: fn(&[u8]), bytes: &[u8], name: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(bytes))) {
        println!("{name}: b\"{}\"", bytes.escape_ascii());
        resume_unwind(panic);
    }
}

/// Numbers that are the same for the same seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap();
        usize::try_from(self.next() % bound).unwrap()
    }

    fn part(&mut self, bytes: &[u8], longest: usize) -> Vec<u8> {
        let from = self.below(bytes.len());
        let size = self.below(longest.min(bytes.len() - from) + 1);
        bytes[from..from + size].to_vec()
    }

    /// One file with a few changes: bytes are set, taken away, said twice, or come from another file.
    fn change(&mut self, corpus: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].1.clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let end = (at + self.below(32)).min(bytes.len());
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.next().to_le_bytes()[0],
                2 => drop(bytes.drain(at..end)),
                3 => {
                    let part = self.part(&bytes, 64);
                    bytes.splice(at..at, part);
                }
                _ => {
                    let other = self.below(corpus.len());
                    let part = self.part(&corpus[other].1, 256);
                    bytes.splice(at..end, part);
                }
            }
        }
        bytes.truncate(LONGEST);
        bytes
    }
}

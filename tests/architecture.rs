//! Keeps the house as it is drawn: what ARCHITECTURE.md and the module docs promise is true of the sources.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read the sources fails"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Modules that know nothing of IO, async or the clock, and say so in their docs.
const PURE: [&str; 37] = [
    "access/failures.rs",
    "access/needs.rs",
    "access/rights.rs",
    "access/token.rs",
    "access/tokens.rs",
    "builder/ignore.rs",
    "builder/recipe.rs",
    "builder/recipe/dockerfile.rs",
    "builder/recipe/node.rs",
    "directory/plan.rs",
    "function.rs",
    "function/crd.rs",
    "function/manifest.rs",
    "function/quantity.rs",
    "function/status.rs",
    "function/validate.rs",
    "gateway/cut_off.rs",
    "ingress/framing.rs",
    "ingress/guard.rs",
    "ingress/headless.rs",
    "ingress/reply.rs",
    "ingress/route.rs",
    "kubernetes/review/recent.rs",
    "lender/recalls.rs",
    "plan.rs",
    "plan/failure.rs",
    "plan/image.rs",
    "plan/report.rs",
    "plan/scale.rs",
    "pool/pace.rs",
    "pool/slots.rs",
    "retry.rs",
    "runtime/pods/pod.rs",
    "runtime/pods/seen.rs",
    "runtime/pods/status.rs",
    "telemetry/text.rs",
    "text.rs",
];

/// Most production lines of a file.
const MAX_LINES: usize = 400;

/// One source file.
struct Source {
    /// Below `src`, with slashes.
    path: String,
    text: String,
}

impl Source {
    /// What is compiled into the program: everything before the tests, without comments.
    fn production(&self) -> String {
        self.lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    /// All lines before the tests.
    fn lines(&self) -> impl Iterator<Item = &str> {
        let tests = self.path.ends_with("tests.rs") || self.path.contains("/tests/");
        self.text
            .lines()
            .take_while(|line| *line != "#[cfg(test)]")
            .filter(move |_| !tests)
    }

    /// The module doc.
    fn doc(&self) -> String {
        self.text
            .lines()
            .map_while(|line| line.strip_prefix("//!"))
            .collect()
    }

    fn says_that_it_is_pure(&self) -> bool {
        let doc = self.doc();
        doc.contains("[pure]") || doc.contains("(pure)")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    files.sort();
    let read = |path: PathBuf| Source {
        text: fs::read_to_string(&path).unwrap(),
        path: path
            .strip_prefix(&src)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/"),
    };
    files.into_iter().map(read).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Fails with everything that is wrong, not only with the first.
fn assert_none(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

/// The words of `words` that the production code of each source uses.
fn uses<'a>(sources: impl Iterator<Item = &'a Source>, words: &[&str]) -> Vec<String> {
    sources
        .flat_map(|source| {
            let code = source.production();
            let used: Vec<_> = words.iter().filter(|word| code.contains(**word)).collect();
            used.into_iter()
                .map(|word| format!("{}: {word}", source.path))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|s| s.doc().trim().is_empty())
        .map(|s| s.path)
        .collect();
    assert_none("files that do not begin with a module doc (//!)", &silent);
}

#[test]
fn pure_modules_are_pure() {
    let sources = sources();
    let missing: Vec<_> = PURE
        .iter()
        .filter(|p| !sources.iter().any(|s| s.path == **p))
        .map(|p| (*p).to_owned())
        .collect();
    assert_none("pure modules that are not there (renamed?)", &missing);
    let pure = sources.iter().filter(|s| {
        let parts = PURE
            .iter()
            .any(|p| s.path == *p || s.path.starts_with(&p.replace(".rs", "/")));
        parts || s.says_that_it_is_pure()
    });
    let words = [
        "tokio",
        "async fn",
        "async move",
        ".await",
        "std::fs",
        "std::process",
        "TcpStream",
        "TcpListener",
        "UnixStream",
        "Instant::now",
        "SystemTime::now",
        "Timestamp::now",
        "Zoned::now",
    ];
    assert_none(
        "pure modules that use IO, async or the clock",
        &uses(pure, &words),
    );
}

#[test]
fn the_heart_says_that_it_is_pure() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|s| PURE.contains(&s.path.as_str()) && !s.path.starts_with("function"))
        .filter(|s| !s.says_that_it_is_pure())
        .map(|s| s.path)
        .collect();
    assert_none("pure modules whose doc does not say [pure]", &silent);
}

#[test]
fn files_are_short() {
    let long: Vec<_> = sources()
        .iter()
        .map(|s| (s.lines().count(), &s.path))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, path)| format!("{path}: {lines}"))
        .collect();
    assert_none("files of more than 400 production lines", &long);
}

#[test]
fn nothing_is_done_by_a_shell() {
    let shells: Vec<_> = ["sh", "bash", "/bin/sh", "/bin/bash", "/usr/bin/env"]
        .iter()
        .map(|shell| format!("Command::new(\"{shell}\")"))
        .collect();
    let words: Vec<&str> = shells.iter().map(String::as_str).collect();
    assert_none("shells", &uses(sources().iter(), &words));
}

#[test]
fn only_the_configuration_reads_the_environment() {
    let sources = sources();
    let others = sources.iter().filter(|s| s.path != "config.rs");
    assert_none(
        "reads of the environment",
        &uses(others, &["env::var", "env::set_var", "use std::env"]),
    );
}

#[test]
fn no_file_is_called_mod() {
    let named: Vec<_> = sources()
        .into_iter()
        .map(|s| s.path)
        .filter(|p| p.ends_with("mod.rs"))
        .collect();
    assert_none("use foo.rs beside foo/", &named);
}

#[test]
fn one_place_builds_starts_and_stops() {
    let sources = sources();
    let others = sources
        .iter()
        .filter(|s| s.path.starts_with("controller") && !s.path.starts_with("controller/apply"));
    let words = [
        "runtime.start(",
        "runtime.stop(",
        "builder.build(",
        "builder.pull(",
    ];
    assert_none(
        "only controller/apply.rs carries plans out",
        &uses(others, &words),
    );
}

#[test]
fn what_is_promised_names_tests_that_are_there() {
    let pages = ["docs/reliability.md", "docs/testing.md"];
    let page: String = pages
        .map(|page| fs::read_to_string(root().join(page)).expect("the promises"))
        .concat();
    let mut files = Vec::new();
    for dir in ["src", "tests", "guest"] {
        collect(&root().join(dir), &mut files);
    }
    let text: String = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let unknown: Vec<_> = page
        .split('`')
        .skip(1)
        .step_by(2)
        // Nothing else that is named there is a sentence.
        .filter(|name| name.contains('_') && !text.contains(&format!("fn {name}() {{")))
        .map(str::to_owned)
        .collect();
    assert_none(
        "tests that a page of docs/ names and nobody wrote",
        &unknown,
    );
}

#[test]
fn the_map_names_every_module() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md"))
        .expect("ARCHITECTURE.md is the map of the sources");
    let unnamed: Vec<_> = sources()
        .into_iter()
        .map(|s| s.path)
        .filter(|path| !path.contains('/') && !map.contains(path.as_str()))
        .collect();
    assert_none("modules that ARCHITECTURE.md does not name", &unnamed);
}

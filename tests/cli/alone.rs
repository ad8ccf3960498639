//! Commands that need no server, and what happens where one is needed and none is there.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::Path, process::Stdio};

use tempfile::TempDir;

use crate::harness::{NOWHERE, Outcome, faas, run};

fn typed(dir: &Path, words: &[&str]) -> Outcome {
    run(faas(dir, NOWHERE, words), "")
}

fn here(words: &[&str]) -> Outcome {
    typed(Path::new(env!("CARGO_MANIFEST_DIR")), words)
}

#[test]
fn help_names_every_command() {
    let help = here(&["--help"]).good();
    for command in [
        "start",
        "init",
        "build",
        "invoke",
        "apply",
        "list",
        "describe",
        "logs",
        "delete",
        "status",
        "token",
        "validate",
        "crd",
        "doctor",
        "completions",
    ] {
        assert!(
            help.lines()
                .any(|line| line.trim_start().starts_with(command)),
            "{command} is not in\n{help}"
        );
        here(&[command, "--help"]).good();
    }
}

#[test]
fn a_path_that_is_no_text_is_refused_before_anything_begins() {
    let dir = TempDir::new().unwrap();
    let strange = dir.path().join(OsStr::from_bytes(b"d\xff"));
    fs::create_dir(&strange).unwrap();
    for flag in ["--dir", "--state-dir"] {
        let mut command = faas(dir.path(), NOWHERE, &["start", flag]);
        command.arg(&strange);
        let complaint = run(command, "").bad();
        assert!(complaint.contains("not UTF-8"), "{complaint}");
    }
}

#[test]
fn a_wrong_call_exits_with_2() {
    for words in [
        &["lst"][..],
        &[],
        &["invoke"],
        &["invoke", "No_Name"],
        &["list", "--colour"],
        &["list", "-o", "xml"],
        &["list", "-n", "a.b"],
        &["list", "-A", "-n", "a"],
        &["invoke", "a", "-d", "f", "--data", "{}"],
        &["apply"],
        &["validate"],
        &["delete"],
        &["completions", "cmd"],
        &["start", "--base-image", "node"],
    ] {
        let outcome = here(words);
        assert_eq!(outcome.code, Some(2), "{words:?}: {outcome:#?}");
        assert!(outcome.stderr.contains("--help"), "{words:?}: {outcome:#?}");
    }
}

#[test]
fn init_begins_a_function_and_overwrites_nothing() {
    let dir = TempDir::new().unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    fs::write(dir.path().join("index.js"), "mine").unwrap();

    let said = typed(dir.path(), &["init"]).good();
    assert!(
        said.contains("Wrote fn.yaml\n") && said.contains("Kept index.js"),
        "{said}"
    );
    assert_eq!(read("index.js"), "mine");
    assert_eq!(read("fn.yaml").lines().next(), Some("language: node"));

    let said = typed(dir.path(), &["init"]).bad();
    assert!(said.contains("--force"), "{said}");
    assert_eq!(read("index.js"), "mine");

    let said = typed(dir.path(), &["init", "--force"]).good();
    assert!(
        said.contains("Wrote fn.yaml and index.js\n") && said.contains("faas build"),
        "{said}"
    );
    assert!(read("index.js").contains("module.exports = (context, cb) =>"));
}

#[test]
fn validate_judges_every_file_of_the_corpus() {
    let good = here(&["validate", "tests/corpus/good"]).good();
    let files = fs::read_dir("tests/corpus/good").unwrap().count();
    assert!(
        good.lines().count() >= files && good.lines().all(|line| line.ends_with(" valid")),
        "{good}"
    );

    let wrong = here(&["validate", "tests/corpus/bad", "tests/corpus/yaml"]).bad();
    for dir in ["tests/corpus/bad", "tests/corpus/yaml"] {
        for entry in fs::read_dir(dir).unwrap() {
            let begin = format!("{}:", entry.unwrap().path().display());
            assert!(
                wrong.lines().any(|line| line.starts_with(&begin)),
                "{begin} is not in\n{wrong}"
            );
        }
    }
}

#[test]
fn validate_reads_standard_input_and_tells_all_errors() {
    let text = "apiVersion: faas.dev/v1alpha1\nkind: Function\nmetadata: {name: a}\nspec: {source: {}, timeoutSeconds: 0}\n";
    let outcome = run(faas(Path::new("."), NOWHERE, &["validate", "-"]), text);
    let wrong = outcome.bad();
    for begin in ["-:1: a: spec.source: ", "-:1: a: spec.timeoutSeconds: "] {
        assert!(
            wrong.lines().any(|line| line.starts_with(begin)),
            "{begin} is not in\n{wrong}"
        );
    }
}

#[test]
fn validate_judges_the_others_beside_what_it_cannot_read() {
    let dir = TempDir::new().unwrap();
    let good = "tests/corpus/good/minimal.yaml";
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::copy(here.join(good), dir.path().join("a.yaml")).unwrap();
    fs::write(dir.path().join("b.yaml"), "{}").unwrap();
    fs::create_dir(dir.path().join("none")).unwrap();
    let words = ["validate", "gone.yaml", "none", "a.yaml", "b.yaml"];
    let outcome = typed(dir.path(), &words);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stdout.contains("a.yaml: "), "{outcome:#?}");
    for said in [
        "cannot read gone.yaml: ",
        "file in none",
        "b.yaml:1: kind: Required",
    ] {
        assert!(outcome.stderr.contains(said), "{outcome:#?}");
    }
}

#[test]
fn validate_knows_the_settings_of_a_directory_of_code() {
    let dir = TempDir::new().unwrap();
    typed(dir.path(), &["init"]).good();
    for text in [None, Some("language: node\n"), Some("timeoutSeconds: 5\n")] {
        if let Some(text) = text {
            fs::write(dir.path().join("fn.yaml"), text).unwrap();
        }
        for file in ["fn.yaml", "."] {
            let said = typed(dir.path(), &["validate", file]).good();
            assert!(said.contains("fn.yaml: the fn.yaml of"), "{said}");
            assert!(said.ends_with("`faas build` there: valid\n"), "{said}");
        }
    }
    let said = typed(dir.path(), &["apply", "-f", "fn.yaml"]).bad();
    assert!(
        said.contains("deploy that directory with `faas build`"),
        "{said}"
    );

    fs::write(dir.path().join("fn.yaml"), "language: cobol\ncolour: 1\n").unwrap();
    let said = typed(dir.path(), &["validate", "fn.yaml"]).bad();
    for begin in [
        "fn.yaml:1: language: Unsupported value: \"cobol\"",
        "fn.yaml:1: colour: Unknown field",
    ] {
        assert!(said.lines().any(|line| line.starts_with(begin)), "{said}");
    }
    fs::write(
        dir.path().join("fn.yaml"),
        "apiVersion: faas.dev/v1alpha1\nkind: Function\n",
    )
    .unwrap();
    let said = typed(dir.path(), &["validate", "fn.yaml"]).bad();
    assert!(
        said.contains("metadata: Required"),
        "a manifest is one: {said}"
    );
}

#[test]
fn what_is_defined_twice_is_neither_valid_nor_applied() {
    let dir = TempDir::new().unwrap();
    let one = fs::read_to_string("tests/corpus/good/minimal.yaml").unwrap();
    fs::write(dir.path().join("twice.yaml"), format!("{one}\n---\n{one}")).unwrap();
    fs::write(dir.path().join("other.yaml"), &one).unwrap();
    let said = typed(dir.path(), &["validate", "twice.yaml"]).bad();
    assert!(
        said.contains("is defined already, at twice.yaml:"),
        "{said}"
    );
    typed(dir.path(), &["validate", "."]).bad();
    fs::write(dir.path().join("twice.yaml"), &one).unwrap();
    typed(dir.path(), &["validate", "."]).good();
    let said = typed(dir.path(), &["apply", "-f", "."]).bad();
    assert!(said.contains("nothing was applied"), "{said}");
    assert!(said.contains("is defined already, at "), "{said}");
}

#[test]
fn validate_names_what_it_cannot_read() {
    let dir = TempDir::new().unwrap();
    for (path, words) in [
        ("missing.yaml", "cannot read missing.yaml"),
        (".", "no *.yaml"),
    ] {
        let said = typed(dir.path(), &["validate", path]).bad();
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn crd_prints_the_committed_definition() {
    assert_eq!(
        here(&["crd"]).good(),
        fs::read_to_string("crds/function.yaml").unwrap()
    );
}

#[test]
fn completions_are_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            here(&["completions", shell]).good().contains("describe"),
            "{shell}"
        );
    }
}

#[test]
fn doctor_says_what_to_do_without_an_engine() {
    let mut command = faas(Path::new("."), NOWHERE, &["doctor"]);
    command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let outcome = run(command, "");
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    let first = outcome.stdout.lines().next().unwrap();
    assert!(
        first.starts_with("fail  engine") && first.contains("/nowhere/docker.sock"),
        "{outcome:#?}"
    );
    assert!(
        outcome.stdout.contains("apt-get install docker.io"),
        "{outcome:#?}"
    );
}

#[test]
fn without_a_server_every_command_says_how_to_start_one() {
    let dir = TempDir::new().unwrap();
    typed(dir.path(), &["init"]).good();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/inline.yaml");
    for words in [
        &["build", "--name", "a"][..],
        &["invoke", "a"],
        &["apply", "-f", manifest],
        &["list"],
        &["describe", "a"],
        &["logs", "a"],
        &["delete", "a"],
        &["status"],
    ] {
        let said = typed(dir.path(), words).bad();
        assert!(
            said.contains(NOWHERE) && said.contains("`faas start`"),
            "{words:?}: {said}"
        );
    }
    let said = typed(dir.path(), &["list", "--server", "ftp://example.com"]).bad();
    assert!(said.contains("is no server's URL"), "{said}");
}

#[test]
fn a_reader_who_leaves_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = faas(Path::new("."), NOWHERE, &["crd"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

#[test]
fn build_wants_a_function_and_a_name() {
    let dir = TempDir::new().unwrap();
    let said = typed(dir.path(), &["build", "--name", "a"]).bad();
    assert!(said.contains("faas init"), "{said}");
    let nameless = dir.path().join("...x...").join("___");
    fs::create_dir_all(&nameless).unwrap();
    let said = typed(&nameless, &["build"]).bad();
    assert!(said.contains("--name"), "{said}");
}

//! One verdict: what files and REST say of a manifest, the API server says too, by the same schema and rules.

use std::{
    fs,
    path::{Path, PathBuf},
};

use faas::function::manifest;
use serde_json::Value;

use super::{Cluster, served};

/// Good manifests that the API server, asked to be strict, does not take as they are, and why.
const ONLY_OURS: [(&str, &str); 1] = [(
    "status-is-dropped.yaml",
    "a status that somebody wrote is judged there before it is dropped",
)];
/// Reserved names, which REST drops instead of refusing them: who has read an object sends them back.
const DROPPED: [&str; 2] = ["annotation-reserved.yaml", "label-reserved.yaml"];
/// Bad manifests that the API server takes, and why.
const ONLY_THEIRS: [(&str, &str); 4] = [
    (
        "annotation-reserved.yaml",
        "rules there cannot see annotations; the store drops these",
    ),
    (
        "label-reserved.yaml",
        "rules there cannot see labels; nothing goes by those of a Function",
    ),
    (
        "inline-file-and-directory.yaml",
        "the rule costs more than is allowed there; SourceReady tells",
    ),
    (
        "kind-of-another-object.yaml",
        "it is a good object of that kind",
    ),
];

fn corpus(kind: &str) -> Vec<(String, PathBuf)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(kind);
    let paths = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    files.sort();
    files
}

impl Cluster {
    /// What the API server, asked to be strict, says of an object.
    fn judge(&self, file: &Path) -> Result<(), String> {
        let file = file.to_str().unwrap();
        let ran = self.kubectl([
            "create",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            file,
        ]);
        if ran.success { Ok(()) } else { Err(ran.stderr) }
    }
}

#[tokio::test]
async fn files_rest_and_the_api_server_give_the_same_verdicts() {
    let Some((cluster, _home, server)) = served().await else {
        return;
    };
    let mut failures = Vec::new();
    let scratch = tempfile::tempdir().unwrap();
    for (name, path) in corpus("good") {
        for parsed in manifest::parse(&fs::read(&path).unwrap()) {
            // kubectl takes text that begins with a brace for JSON, and the namespaces of the corpus are not there.
            let mut object = serde_json::to_value(parsed.verdict.unwrap()).unwrap();
            object["metadata"]["namespace"] = cluster.namespace.clone().into();
            let file = scratch.path().join("object.json");
            fs::write(&file, object.to_string()).unwrap();
            if let Err(error) = cluster.judge(&file) {
                failures.push(format!("{name} is good, but: {error}"));
            }
        }
        let is_different = ONLY_OURS.iter().any(|(ours, _)| *ours == name);
        let is_elsewhere =
            |error: &String| error.contains("namespaces \"") || error.contains("error parsing");
        match cluster.judge(&path) {
            Ok(()) if is_different => failures.push(format!("{name} is taken as it is")),
            Err(error) if !is_different && !is_elsewhere(&error) => {
                failures.push(format!("{name} is good, but: {error}"));
            }
            _ => {}
        }
    }
    for (name, path) in corpus("bad").into_iter().chain(corpus("yaml")) {
        let text = fs::read(&path).unwrap();
        let begin = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let file = scratch.path().join("bad.yaml");
        fs::write(&file, &text[begin..]).unwrap();
        let is_different = ONLY_THEIRS.iter().any(|(theirs, _)| *theirs == name);
        if cluster.judge(&file).is_ok() != is_different {
            failures.push(format!("{name}: {:?}", cluster.judge(&file)));
        }
        if DROPPED.contains(&name.as_str()) {
            continue;
        }
        let reply = server.put("/functions/sum", text[begin..].to_vec()).await;
        if reply.status != 400 {
            failures.push(format!("{name} by REST: {reply:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let functions = server.get("/functions").await.expect(200).json();
    assert_eq!(
        functions["items"],
        Value::Array(Vec::new()),
        "nothing came of it"
    );
}

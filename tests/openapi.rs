//! `/openapi.json`: the committed text is the generated one, the server serves it, and a validator accepts it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use faas::api::openapi;
use serde_json::Value;

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");

/// `UPDATE=1 cargo test --test openapi` writes the file anew.
#[test]
#[expect(clippy::disallowed_methods, reason = "the one switch of a test")]
fn the_committed_document_is_the_generated_one() {
    let generated = serde_json::to_string_pretty(&openapi::document()).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(COMMITTED, &generated).unwrap();
    }
    let committed = fs::read_to_string(COMMITTED).unwrap();
    assert!(
        committed == generated,
        "docs/openapi.json is stale: run UPDATE=1 cargo test --test openapi"
    );
}

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_server_serves_it() {
    let state = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_faas"))
        .args(["start", "--runtime", "process", "--listen", "127.0.0.1:0"])
        .arg("--state-dir")
        .arg(state.path())
        .current_dir(state.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let printed = BufReader::new(child.stdout.take().unwrap());
    let _server = Server(child);
    let address = printed
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("listening on http://").map(str::to_owned))
        .expect("the server says where it listens");

    let mut stream = TcpStream::connect(&address).unwrap();
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).unwrap();
    write!(
        stream,
        "GET /openapi.json HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.to_lowercase()
            .contains("content-type: application/json"),
        "{head}"
    );
    let served: Value = serde_json::from_str(body).unwrap();
    assert_eq!(served, openapi::document());
}

/// `make test` provides the validator and names it.
#[test]
#[expect(clippy::disallowed_methods, reason = "how the script tells the test")]
fn a_validator_accepts_it() {
    let Some(validator) = std::env::var_os("FAAS_OPENAPI_VALIDATOR") else {
        eprintln!("skipped: openapi validator: `make test` provides it");
        return;
    };
    let judge = |file: &str| Command::new(&validator).arg(file).output().unwrap();

    let verdict = judge(COMMITTED);
    assert!(verdict.status.success(), "{verdict:?}");

    let broken = tempfile::NamedTempFile::new().unwrap();
    let mut document = openapi::document();
    document["paths"]["/ping"]["get"]["responses"] = "none".into();
    fs::write(broken.path(), document.to_string()).unwrap();
    let verdict = judge(broken.path().to_str().unwrap());
    assert!(
        !verdict.status.success(),
        "it accepts anything: {verdict:?}"
    );
}

//! The engine's report of a build → our log and error.

use std::sync::{Arc, Mutex};

use bollard::{
    errors::Error,
    moby::buildkit::v1::{StatusResponse, Vertex, VertexLog},
    models::{BuildInfo, BuildInfoAux},
};
use faas::builder::{
    BuildError, BuildLog,
    docker::{Flavour, follow},
};
use futures::{FutureExt, stream};

use super::assert_message;

/// Most images that the sweep after a build is told of.
const MOST_IMAGES: usize = 500;

/// Keeps everything.
#[derive(Default)]
struct Log(Mutex<Vec<u8>>);

impl BuildLog for Log {
    fn write(&self, piece: &[u8]) {
        self.0.lock().expect("one thread").extend_from_slice(piece);
    }
}

/// What became of a report.
#[derive(Debug, PartialEq)]
struct Outcome {
    verdict: Result<(), BuildError>,
    log: Vec<u8>,
    images: Vec<String>,
}

/// The bytes are lines: a record of the engine in JSON, or, to be easier to find than protobuf in base64, BuildKit's own:
/// `vD NAME` for a vertex with the digest D that began (`V`: and was cached), with what failed after a tab; `lD WORDS` for
/// its log.
pub fn check(bytes: &[u8]) {
    for flavour in [Flavour::Classic, Flavour::BuildKit] {
        let outcome = run(flavour, records(bytes));
        check_outcome(&outcome, bytes.len());
        if flavour == Flavour::BuildKit {
            let split = records(bytes).into_iter().flat_map(split).collect();
            assert_eq!(run(flavour, split), outcome, "pieces make no difference");
        }
    }
}

fn check_outcome(outcome: &Outcome, size: usize) {
    // Each word is repeated at most once: below its step, and as the failure that ends the log. Steps take turns.
    assert!(outcome.log.len() <= 32 * size + 16 * 1024);
    assert!(outcome.images.len() <= MOST_IMAGES);
    for image in &outcome.images {
        let hex = image.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(image.len() == 12 && hex, "{image:?}");
    }
    let Err(error) = &outcome.verdict else { return };
    if let BuildError::Failed { step, .. } = error {
        assert!(!step.is_empty());
        assert_message(step, 1024);
    }
    let words = error.to_string();
    let lines = words.replace(['\n', '\t'], " ");
    assert_message(&lines, 8 * 1024);
}

fn run(flavour: Flavour, records: Vec<Result<BuildInfo, Error>>) -> Outcome {
    let log = Arc::new(Log::default());
    let mut images = Vec::new();
    let made = |image: &str| images.push(image.to_owned());
    let verdict = follow(flavour, stream::iter(records), log.clone(), made)
        .now_or_never()
        .expect("nothing to wait for");
    let log = std::mem::take(&mut *log.0.lock().expect("one thread"));
    Outcome {
        verdict,
        log,
        images,
    }
}

/// As the client library reads them.
fn records(bytes: &[u8]) -> Vec<Result<BuildInfo, Error>> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(record)
        .collect()
}

fn record(line: &[u8]) -> Result<BuildInfo, Error> {
    if let Some(status) = status(line) {
        return Ok(of_status(status));
    }
    let info: BuildInfo = serde_json::from_slice(line).map_err(|error| Error::JsonDataError {
        message: error.to_string(),
        column: error.column(),
    })?;
    match info.error_detail.and_then(|error| error.message) {
        Some(error) => Err(Error::DockerStreamError { error }),
        None => serde_json::from_slice(line).map_err(Into::into),
    }
}

fn status(line: &[u8]) -> Option<StatusResponse> {
    let (kind, rest) = line.split_first()?;
    let (digest, words) = rest.split_first()?;
    let digest = char::from(*digest).to_string();
    let text = String::from_utf8_lossy(words);
    let mut status = StatusResponse::default();
    match kind {
        b'v' | b'V' => {
            let (name, error) = text.split_once('\t').unwrap_or((&text, ""));
            let mut vertex = Vertex {
                digest,
                name: name.trim_start().to_owned(),
                cached: *kind == b'V',
                error: error.to_owned(),
                ..Vertex::default()
            };
            vertex.started.get_or_insert_default();
            status.vertexes.push(vertex);
        }
        b'l' => status.logs.push(VertexLog {
            vertex: digest,
            msg: words.to_vec(),
            ..VertexLog::default()
        }),
        _ => return None,
    }
    Some(status)
}

fn of_status(status: StatusResponse) -> BuildInfo {
    BuildInfo {
        aux: Some(BuildInfoAux::BuildKit(status)),
        ..BuildInfo::default()
    }
}

/// The same said in more records: each vertex and each byte of a log in one of its own.
fn split(record: Result<BuildInfo, Error>) -> Vec<Result<BuildInfo, Error>> {
    let Ok(BuildInfo {
        aux: Some(BuildInfoAux::BuildKit(status)),
        ..
    }) = record
    else {
        return vec![record];
    };
    let mut pieces = Vec::new();
    for vertex in status.vertexes {
        pieces.push(StatusResponse {
            vertexes: vec![vertex],
            ..StatusResponse::default()
        });
    }
    for log in status.logs {
        // An empty one still gives its step the word.
        if log.msg.is_empty() {
            pieces.push(StatusResponse {
                logs: vec![log.clone()],
                ..StatusResponse::default()
            });
        }
        for byte in &log.msg {
            let msg = vec![*byte];
            pieces.push(StatusResponse {
                logs: vec![VertexLog { msg, ..log.clone() }],
                ..StatusResponse::default()
            });
        }
    }
    pieces.into_iter().map(of_status).map(Ok).collect()
}

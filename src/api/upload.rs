//! `POST /functions`: an archive of code becomes a Function, as the first users were promised: the answer comes when it
//! can be called, or says why it cannot.

use std::time::Duration;

use axum::{
    Json,
    body::{Body, HttpBody as _},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::HOST},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Deserialize;
use serde_json::json;

use super::Api;
use crate::{
    builder::archive::{ArchiveError, Context, Limits},
    crash::{self, Point},
    function::{
        Function, FunctionKey,
        folder::{self, FN_YAML},
        manifest::ManifestError,
    },
    ingress::reply::ERROR_HEADER,
    store::Manager,
};

/// Largest archive, unpacked.
const MAX_ARCHIVE: usize = 64 << 20;
/// Largest body: the archive in base64, in JSON.
const MAX_BODY: usize = MAX_ARCHIVE / 3 * 4 + 64 * 1024;
/// Longest wait for a Function that is neither ready nor given up: a build may take an hour.
const PATIENCE: Duration = Duration::from_secs(3600);

/// The request's body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Upload {
    name: String,
    /// A tar archive in base64.
    file: String,
}

/// Why an upload was not deployed.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    code: String,
    info: String,
}

impl Failure {
    fn bad(code: &str, info: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: code.to_owned(),
            info: info.into(),
        }
    }

    fn too_large(info: String) -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: "BodyTooLarge".to_owned(),
            info,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body =
            json!({"message": "Failed to deploy function", "info": self.info, "code": self.code});
        (self.status, [(ERROR_HEADER, self.code)], Json(body)).into_response()
    }
}

/// Handles an upload.
pub async fn deploy(State(api): State<Api>, request: Request) -> Response {
    let host = host(request.headers());
    match take_in(&api, request.into_body()).await {
        Ok(key) => {
            Json(json!({"invoke": format!("http://{host}/functions/{}", key.url_segment())}))
                .into_response()
        }
        Err(failure) => failure.into_response(),
    }
}

async fn take_in(api: &Api, body: Body) -> Result<FunctionKey, Failure> {
    let upload = read(body).await?;
    let key: FunctionKey = upload
        .name
        .parse()
        .map_err(|e: crate::function::KeyError| Failure::bad("InvalidSpec", e.to_string()))?;
    let sources = api.sources.clone();
    let (context, function) = tokio::task::spawn_blocking(move || {
        let context = unpack(&upload.file)?;
        sources.put(&context).map_err(|error| {
            let info = format!("the archive could not be stored: {error}");
            Failure {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                code: "SourceUnavailable".to_owned(),
                info,
            }
        })?;
        crash::point(Point::UploadStored);
        Ok((context.digest().to_owned(), context))
    })
    .await
    .unwrap_or_else(|error| Err(Failure::bad("SourceUnavailable", error.to_string())))
    .and_then(|(digest, context)| {
        object(&key, &digest, &context).map(|function| (digest, function))
    })?;
    tracing::debug!(function = %key, %context, "Archive stored");
    api.store
        .apply(function, &Manager::Api, Timestamp::now())
        .await
        .map_err(|error| Failure {
            status: StatusCode::BAD_REQUEST,
            code: error.reason().to_owned(),
            info: error.to_string(),
        })?;
    crash::point(Point::ObjectStored);
    let before = api.controller.retry(&key);
    outcome(api, &key, before).await?;
    Ok(key)
}

/// Waits until the Function is ready, or until only an edit would help.
async fn outcome(api: &Api, key: &FunctionKey, before: u64) -> Result<(), Failure> {
    let decided = api.controller.until(key, |function, turns| {
        if turns <= before {
            return None;
        }
        verdict(function)
    });
    match tokio::time::timeout(PATIENCE, decided).await {
        Ok(Some(verdict)) => verdict,
        Ok(None) => Err(Failure::bad(
            "NotFound",
            "the function was deleted meanwhile",
        )),
        Err(_) => Err(Failure::bad(
            "Timeout",
            "the function did not become ready in time; see `faas describe`",
        )),
    }
}

/// What has become of the newest generation, if that is decided.
fn verdict(function: &Function) -> Option<Result<(), Failure>> {
    let status = function.status.as_ref()?;
    if status.observed_generation != function.metadata.generation {
        return None;
    }
    let holds = |kind: &str| -> Option<&Condition> {
        status
            .conditions
            .iter()
            .find(|c| c.type_ == kind && c.status == "True")
    };
    if holds("Ready").is_some() {
        return Some(Ok(()));
    }
    holds("Stalled").map(|stalled| Err(Failure::bad(&stalled.reason, &*stalled.message)))
}

async fn read(body: Body) -> Result<Upload, Failure> {
    let too_large =
        || Failure::too_large(format!("the archive is larger than {MAX_ARCHIVE} bytes"));
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    let bytes = axum::body::to_bytes(body, MAX_BODY)
        .await
        .map_err(|error| {
            let error = error.into_inner();
            if error.is::<http_body_util::LengthLimitError>() {
                too_large()
            } else {
                Failure::bad("BadRequest", error.to_string())
            }
        })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let info = format!(
            "the body must be {{\"name\": ..., \"file\": <a tar archive in base64>}}: {error}"
        );
        Failure::bad("BadRequest", info)
    })
}

/// Blocks for as long as it takes to read 64 MiB.
fn unpack(file: &str) -> Result<Context, Failure> {
    let tar = BASE64_STANDARD.decode(file.trim()).map_err(|error| {
        Failure::bad("SourceInvalid", format!("\"file\" is not base64: {error}"))
    })?;
    Context::from_tar(&tar, &Limits::default()).map_err(|error| match error {
        ArchiveError::TooLarge { .. } => Failure::too_large(error.to_string()),
        _ => Failure::bad("SourceInvalid", error.to_string()),
    })
}

/// The object that an upload stands for.
fn object(key: &FunctionKey, digest: &str, context: &Context) -> Result<Function, Failure> {
    let has_dockerfile = context.contains("Dockerfile");
    let object = folder::function(key, context.file(FN_YAML), has_dockerfile, digest);
    object.map_err(|error| {
        let info = match error {
            ManifestError::Invalid(errors) => {
                let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
                errors.join("; ")
            }
            error => format!("{FN_YAML}: {error}"),
        };
        Failure::bad("InvalidSpec", info)
    })
}

/// Under which name the caller reached us.
fn host(headers: &HeaderMap) -> String {
    headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost:5555")
        .to_owned()
}

//! `POST /functions`: an archive of code becomes a Function, as the first users were promised: the answer comes when it
//! can be called, or says why it cannot.

use std::time::Duration;

use axum::{
    Extension, Json,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use kube::api::ObjectMeta;
use serde::Deserialize;
use serde_json::json;

use tokio::sync::SemaphorePermit;

use super::{
    Api,
    asked::Asked,
    body::{self, BodyError, Whole},
};
use crate::{
    access::rights::Deed,
    builder::{
        archive::{ArchiveError, Context, Limits},
        archives::ArchivesError,
    },
    crash::{self, Point},
    function::{
        Function, FunctionKey,
        folder::{self, FN_YAML},
        manifest::ManifestError,
        status::{self, ConditionType, Reason},
    },
    ingress::{door::Calls, reply::ERROR_HEADER},
    store::{Manager, StoreError},
};

/// Largest archive, unpacked.
const MAX_ARCHIVE: usize = 64 << 20;
/// Largest body: the archive in base64, in JSON.
const MAX_BODY: usize = MAX_ARCHIVE / 3 * 4 + 64 * 1024;
/// Longest wait for a Function that is neither ready nor given up: a build may take an hour.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Longest wait for an engine that is away, and for memory that others have.
const PASSES: Duration = Duration::from_secs(20);
/// When to try again what failed for want of something of ours.
const RETRY_SECONDS: u64 = 10;

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
pub struct Failure {
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

    /// The uploader cannot mend it.
    fn ours(code: &str, info: &str) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            ..Self::bad(code, info)
        }
    }

    fn superseded() -> Self {
        Self {
            status: StatusCode::CONFLICT,
            ..Self::bad(
                "Superseded",
                "another deployment of this function came after this one, and counts",
            )
        }
    }

    fn deleted() -> Self {
        Self::bad("NotFound", "the function was deleted meanwhile")
    }

    fn too_large(info: String) -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: "BodyTooLarge".to_owned(),
            info,
        }
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge(_) => {
                Self::too_large(format!("the archive is larger than {MAX_ARCHIVE} bytes"))
            }
            BodyError::Slow => Self {
                status: StatusCode::REQUEST_TIMEOUT,
                ..Self::bad("BodyTimeout", error.to_string())
            },
            BodyError::Crowded => Self::ours("Overloaded", &error.to_string()),
            BodyError::Broken(_) => Self::bad("BadRequest", error.to_string()),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body =
            json!({"message": "Failed to deploy function", "info": self.info, "code": self.code});
        let mut response = (self.status, [(ERROR_HEADER, self.code)], Json(body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, RETRY_SECONDS.into());
        }
        response
    }
}

/// Handles an upload.
pub async fn deploy(
    State(api): State<Api>,
    Extension(Calls(calls)): Extension<Calls>,
    asked: Asked,
    request: Request,
) -> Result<Response, Failure> {
    let (upload, place) = read(request.into_body()).await?;
    let key: FunctionKey = upload
        .name
        .parse()
        .map_err(|e: crate::function::KeyError| Failure::bad("InvalidSpec", e.to_string()))?;
    asked.names(&key);
    let deed = Deed::upload(key.clone());
    let work = async move {
        let invoke = format!("{calls}/functions/{}", key.url_segment());
        let taken_in = take_in(&api, key, upload.file, place).await;
        taken_in.map(|()| Json(json!({"invoke": invoke})))
    };
    Ok(asked.carry_out(Some(deed), work).await)
}

/// Where archives are kept has no space, or a bad day.
fn not_stored(error: &ArchivesError) -> Failure {
    let info = format!("the archive could not be stored: {error}");
    let code = match error {
        ArchivesError::Full(_) => "NoSpace",
        ArchivesError::Unavailable(_) => "SourceUnavailable",
    };
    Failure::ours(code, &info)
}

async fn take_in(
    api: &Api,
    key: FunctionKey,
    file: String,
    place: Option<SemaphorePermit<'static>>,
) -> Result<(), Failure> {
    let context = tokio::task::spawn_blocking(move || unpack(&file))
        .await
        .unwrap_or_else(|error| Err(Failure::bad("SourceUnavailable", error.to_string())))?;
    drop(place);
    let stored = api.archives.put(key.namespace(), &context).await;
    stored.map_err(|error| not_stored(&error))?;
    crash::point(Point::UploadStored, &key);
    tracing::debug!(function = %key, digest = context.digest(), "Archive stored");
    let function = object(&key, context.digest(), &context)?;
    let applied = api
        .store
        .apply(function, &Manager::Api, Timestamp::now())
        .await;
    let (_, applied) = applied.map_err(|error| match error {
        StoreError::Full { .. } => Failure::ours(error.reason(), &error.to_string()),
        error => Failure::bad(error.reason(), error.to_string()),
    })?;
    crash::point(Point::ObjectStored, &key);
    let sent = Sent {
        turns: api.controller.retry(&key),
        key,
        metadata: applied.metadata.clone(),
    };
    outcome(api, &sent).await
}

/// What was uploaded, as an object.
struct Sent {
    key: FunctionKey,
    metadata: ObjectMeta,
    /// The Function's turns that may not have seen it.
    turns: u64,
}

/// Waits until the Function is ready, or until what stands in its way is known. What failed may be tried again after that:
/// the Function stays, and whoever sent it need not.
async fn outcome(api: &Api, sent: &Sent) -> Result<(), Failure> {
    let decided = async {
        let first = reached(api, sent, |verdict| verdict).await?;
        let Verdict::Hindered(_) = first else {
            return first.into_result();
        };
        // An engine may come back, and others may leave.
        let settled = |verdict| Some(verdict).filter(|v| !matches!(v, Verdict::Hindered(_)));
        let settled = reached(api, sent, |verdict| verdict.and_then(settled));
        if let Ok(verdict) = tokio::time::timeout(PASSES, settled).await {
            return verdict?.into_result();
        }
        reached(api, sent, |verdict| verdict).await?.into_result()
    };
    tokio::time::timeout(PATIENCE, decided)
        .await
        .unwrap_or_else(|_| {
            Err(Failure::bad(
                "Timeout",
                "the function did not become ready in time; see `faas describe`",
            ))
        })
}

/// Waits for a verdict that `counts`, of a turn that has seen the upload.
async fn reached(
    api: &Api,
    sent: &Sent,
    counts: impl Fn(Option<Verdict>) -> Option<Verdict>,
) -> Result<Verdict, Failure> {
    let decided = api.controller.until(&sent.key, |function, turns| {
        (turns > sent.turns)
            .then(|| counts(verdict(function, &sent.metadata)))
            .flatten()
    });
    decided.await.ok_or_else(Failure::deleted)
}

/// What has become of a generation.
#[derive(Debug)]
enum Verdict {
    Ready,
    Failed(Failure),
    /// It fails for what often passes.
    Hindered(Failure),
}

impl Verdict {
    fn into_result(self) -> Result<(), Failure> {
        match self {
            Self::Ready => Ok(()),
            Self::Failed(failure) | Self::Hindered(failure) => Err(failure),
        }
    }
}

/// What has become of the generation that was sent, if that is decided.
fn verdict(function: &Function, sent: &ObjectMeta) -> Option<Verdict> {
    let newest = &function.metadata;
    if newest.uid == sent.uid && newest.deletion_timestamp.is_some() {
        return Some(Verdict::Failed(Failure::deleted()));
    }
    if newest.uid != sent.uid || newest.generation > sent.generation {
        return Some(Verdict::Failed(Failure::superseded()));
    }
    let status = function.status.as_ref()?;
    if status.observed_generation != sent.generation {
        return None;
    }
    let find = |condition| status::find(&status.conditions, condition);
    if let Some(stalled) = find(ConditionType::Stalled) {
        let failure = Failure::bad(&stalled.reason, &*stalled.message);
        return Some(Verdict::Failed(failure));
    }
    let ready = find(ConditionType::Ready)?;
    let (reason, message) = (&ready.reason, &ready.message);
    match (ready.status.as_str(), reason.parse().ok()?) {
        ("True", _) => Some(Verdict::Ready),
        ("False", Reason::EngineUnavailable | Reason::NoCapacity) => {
            Some(Verdict::Hindered(Failure::ours(reason, message)))
        }
        (
            "False",
            Reason::NoSpace
            | Reason::SourceUnavailable
            | Reason::BuildInterrupted
            | Reason::RegistryUnavailable
            | Reason::RegistryRefused,
        ) => Some(Verdict::Failed(Failure::ours(reason, message))),
        ("False", Reason::PullFailed) => {
            Some(Verdict::Failed(Failure::bad(reason, message.as_str())))
        }
        // A start is tried again soon, and given up soon.
        _ => None,
    }
}

/// The upload, and its part of the room for large bodies.
async fn read(body: Body) -> Result<(Upload, Option<SemaphorePermit<'static>>), Failure> {
    let Whole { bytes, place } = body::whole(body, MAX_BODY).await?;
    let upload = serde_json::from_slice(&bytes).map_err(|error| {
        let info = format!(
            "the body must be {{\"name\": ..., \"file\": <a tar archive in base64>}}: {error}"
        );
        Failure::bad("BadRequest", info)
    })?;
    Ok((upload, place))
}

/// Blocks for as long as it takes to read 64 MiB.
pub fn unpack(file: &str) -> Result<Context, Failure> {
    // Many encoders break lines.
    let file: String = file.split_ascii_whitespace().collect();
    let tar = BASE64_STANDARD.decode(file).map_err(|error| {
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

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::function::status::Overall;

    /// The status that a word leads to, for the uploader; 200 is ready, and nothing is a longer wait.
    fn answer(overall: Overall, reason: Reason) -> Option<(u16, bool)> {
        let function = function(2, overall, reason);
        let verdict = verdict(&function, &function.metadata)?;
        let waits = matches!(verdict, Verdict::Hindered(_));
        let status = verdict.into_result().map_or_else(
            |failure| {
                let expected: &str = reason.into();
                assert_eq!(
                    (failure.code.as_str(), failure.info.as_str()),
                    (expected, "why")
                );
                failure.status.as_u16()
            },
            |()| 200,
        );
        Some((status, waits))
    }

    /// The second generation of an object, of which this one was observed to be so.
    fn function(observed: i64, overall: Overall, reason: Reason) -> Function {
        let conditions = overall.conditions(reason, "why");
        let conditions = status::merge(&[], conditions, observed, Timestamp::UNIX_EPOCH);
        let object = json!({
            "apiVersion": "faas.dev/v1alpha1", "kind": "Function", "metadata": {"name": "a", "uid": "a", "generation": 2},
            "spec": {"language": "node", "source": {"inline": {"index.js": ""}}},
            "status": {"observedGeneration": observed, "conditions": conditions},
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn the_verdict_is_of_what_was_sent() {
        let second = || function(2, Overall::Current, Reason::Ready);
        let meta = |uid: &str, generation| ObjectMeta {
            uid: Some(uid.to_owned()),
            generation: Some(generation),
            ..ObjectMeta::default()
        };
        for (what, function, sent, expected) in [
            ("it was observed", second(), meta("a", 2), Some("Ready")),
            (
                "another came after it",
                second(),
                meta("a", 1),
                Some("Superseded"),
            ),
            (
                "another came after it, and is built",
                function(1, Overall::Working, Reason::Building),
                meta("a", 1),
                Some("Superseded"),
            ),
            (
                "it was not observed yet",
                function(1, Overall::Current, Reason::Ready),
                meta("a", 2),
                None,
            ),
            ("it has not arrived here yet", second(), meta("a", 3), None),
            (
                "it is being deleted",
                Function {
                    metadata: ObjectMeta {
                        deletion_timestamp: Some(Time(Timestamp::now())),
                        ..meta("a", 3)
                    },
                    ..second()
                },
                meta("a", 2),
                Some("NotFound"),
            ),
            (
                "another object has its name",
                second(),
                meta("b", 2),
                Some("Superseded"),
            ),
        ] {
            let verdict = verdict(&function, &sent).map(|verdict| {
                let failure = verdict.into_result().err();
                failure.map_or("Ready".to_owned(), |failure| failure.code)
            });
            assert_eq!(verdict.as_deref(), expected, "{what}");
        }
    }

    #[test]
    fn an_uploader_waits_no_longer_than_there_is_hope() {
        for (overall, reason, expected) in [
            (Overall::Current, Reason::Ready, Some((200, false))),
            (Overall::Current, Reason::Idle, Some((200, false))),
            (Overall::Working, Reason::Building, None),
            (Overall::Working, Reason::Queued, None),
            (Overall::Stalled, Reason::BuildFailed, Some((400, false))),
            (Overall::Stalled, Reason::CrashLoop, Some((400, false))),
            (Overall::Stalled, Reason::NoCapacity, Some((400, false))),
            (Overall::Retrying, Reason::StartFailed, None),
            (Overall::Retrying, Reason::PullFailed, Some((400, false))),
            (Overall::Retrying, Reason::NoSpace, Some((503, false))),
            (
                Overall::Retrying,
                Reason::BuildInterrupted,
                Some((503, false)),
            ),
            (
                Overall::Retrying,
                Reason::SourceUnavailable,
                Some((503, false)),
            ),
            (
                Overall::Retrying,
                Reason::EngineUnavailable,
                Some((503, true)),
            ),
            (Overall::Retrying, Reason::NoCapacity, Some((503, true))),
        ] {
            assert_eq!(answer(overall, reason), expected, "{overall:?} {reason:?}");
        }
    }
}

//! The reconcile loop, visible: `/status`, `/readyz` and `/metrics`.

use axum::{
    Json,
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::Api;
use crate::{
    controller::view::Seen,
    function::{DEFAULT_NAMESPACE, Revision},
    plan::Failure,
    telemetry::text::Format,
};

/// What the loop does and how it goes, function by function.
pub async fn status(State(api): State<Api>) -> Response {
    let (status, freshness) = (api.controller.status(), api.store.freshness());
    let unreachable = status.unreachable.as_deref();
    let body = Body {
        server: &api.facts,
        state: json!({
            "queue": status.queue,
            "building": status.building,
            "queuedBuilds": status.queued,
            "engine": {"reachable": unreachable.is_none(), "error": unreachable},
            "store": {"fresh": freshness.trouble.is_none(), "error": freshness.trouble},
        }),
        functions: &status.functions,
        problems: json!(*api.problems.borrow()),
    };
    Json(body).into_response()
}

#[derive(Serialize)]
struct Body<'a> {
    server: &'a Value,
    #[serde(rename = "loop")]
    state: Value,
    #[serde(serialize_with = "one_by_one")]
    functions: &'a [Seen],
    problems: Value,
}

fn one_by_one<S: Serializer>(functions: &[Seen], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(functions.iter().map(Row::of))
}

/// One Function.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    name: &'a str,
    namespace: &'a str,
    generation: Option<i64>,
    observed_generation: Option<i64>,
    revision: Option<&'a str>,
    serving_revision: Option<&'a str>,
    conditions: &'a [Condition],
    turns: u64,
    attempts: u32,
    last_error: Option<&'a str>,
    last_turn: Option<Timestamp>,
    next_turn: Option<Timestamp>,
    failures: Vec<FailureRow<'a>>,
    instances: Vec<InstanceRow<'a>>,
}

#[derive(Serialize)]
struct FailureRow<'a> {
    revision: &'a Revision,
    reason: &'static str,
    message: &'a str,
    attempts: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InstanceRow<'a> {
    id: &'a str,
    revision: &'a Revision,
    state: &'static str,
    in_flight: u32,
}

impl<'a> Row<'a> {
    fn of(seen: &'a Seen) -> Self {
        let (metadata, turn) = (&seen.function.metadata, &seen.turn);
        let status = seen.function.status.as_ref();
        let instances = seen.instances.iter().map(|instance| InstanceRow {
            id: &instance.id,
            revision: &instance.revision,
            state: instance.phase.into(),
            in_flight: instance.in_flight,
        });
        // Of the turn itself, of what it looked at, or of what it began.
        let blocked = seen.blocked.as_ref();
        let mut failed = seen.failures.iter().map(|(_, failure)| failure);
        let attempts = failed.clone().map(|failure| failure.attempts);
        let attempts = attempts.chain(blocked.map(|(_, attempts)| *attempts));
        let error = turn.last_error.as_deref();
        let error = error.or_else(|| blocked.map(|(message, _)| message.as_str()));
        let error = error.or_else(|| failed.next_back().map(|failure| failure.message.as_str()));
        Self {
            name: metadata.name.as_deref().unwrap_or_default(),
            namespace: metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE),
            generation: metadata.generation,
            observed_generation: status.and_then(|s| s.observed_generation),
            revision: status.and_then(|s| s.revision.as_deref()),
            serving_revision: status.and_then(|s| s.serving_revision.as_deref()),
            conditions: status.map(|s| &*s.conditions).unwrap_or_default(),
            turns: turn.count,
            attempts: attempts.fold(turn.attempts, u32::max),
            last_error: error,
            last_turn: turn.last,
            next_turn: turn.next,
            failures: seen.failures.iter().map(FailureRow::of).collect(),
            instances: instances.collect(),
        }
    }
}

impl<'a> FailureRow<'a> {
    fn of((revision, failure): &'a (Revision, Failure)) -> Self {
        Self {
            revision,
            reason: failure.reason.into(),
            message: &failure.message,
            attempts: failure.attempts,
        }
    }
}

/// 200 once the engine has been asked and the Functions are known; 503 with the reason before that, and while either cannot be
/// told.
pub async fn ready(State(api): State<Api>) -> Response {
    let freshness = api.store.freshness();
    let engine = api.controller.engine();
    match freshness.trouble.as_deref().or_else(|| engine.away()) {
        None => {
            let watches = freshness.watches.iter();
            let ages =
                watches.map(|(path, age)| format!("watch {path}: {} s ago\n", age.as_secs()));
            (
                StatusCode::OK,
                format!("ready\n{}", ages.collect::<String>()),
            )
                .into_response()
        }
        Some(error) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {error}\n"),
        )
            .into_response(),
    }
}

/// The text for Prometheus.
pub async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    let text = api.metrics.render(&api.controller.snapshot(), format);
    ([(CONTENT_TYPE, format.content_type())], text).into_response()
}

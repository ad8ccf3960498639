//! What a gateway answers beside calls: for itself, and for the controller by passing on.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use super::error::ApiError;
use crate::{
    gateway::passage::{NotPassed, Passage},
    ingress::door::Origin,
    plan::Phase,
    pool::Pools,
    telemetry::{Metrics, Snapshot, text::Format},
};

/// What the handlers work with.
#[derive(Clone)]
pub struct Pages {
    pub pools: Arc<Pools>,
    pub metrics: Arc<Metrics>,
    pub passage: Passage,
}

/// The routes.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/ping", get(|| async { Json(json!({"message": "pong"})) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(pass)
        .with_state(pages)
}

/// Once it knows which functions there are, and from then on: what it knows it answers, with or without a controller.
async fn ready(State(pages): State<Pages>) -> Response {
    if pages.pools.is_complete() {
        return "ready\n".into_response();
    }
    let why = "not ready: no controller has said yet which functions there are\n";
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

async fn metrics(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    let text = pages.metrics.render(&snapshot(&pages.pools), format);
    ([(CONTENT_TYPE, format.content_type())], text).into_response()
}

fn snapshot(pools: &Pools) -> Snapshot {
    let mut waiting = 0;
    let mut instances = BTreeMap::from([("ready", 0), ("draining", 0)]);
    let all = pools.all();
    for pool in &all {
        let (waits, loans) = pool.borrowed();
        waiting += waits;
        for loan in loans.iter().filter(|loan| loan.held > 0) {
            let state = match loan.phase {
                Phase::Ready => "ready",
                _ => "draining",
            };
            *instances.entry(state).or_default() += 1;
        }
    }
    Snapshot {
        functions: all.len(),
        waiting,
        instances: instances.into_iter().collect(),
        builds_running: 0,
        queue: 0,
        engine_up: true,
    }
}

/// Everything else is the controller's.
async fn pass(
    State(pages): State<Pages>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Response, ApiError> {
    let answer = pages.passage.pass(request, origin).await;
    answer.map_err(|error| {
        let message = error.to_string();
        match error {
            NotPassed::NoController => ApiError::NoController(message),
            NotPassed::Crowded => ApiError::Overloaded(message),
            NotPassed::Broken(_) => ApiError::BadRequest(message),
            NotPassed::Lost => ApiError::ControllerLost(message),
        }
    })
}

//! The reconcile loop, visible: `/status`, `/readyz` and `/metrics`.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::Api;

/// What the loop does and how it goes, function by function.
pub async fn status(State(api): State<Api>) -> Json<Value> {
    let mut status = api.controller.status();
    status["server"] = Value::clone(&api.facts);
    status["problems"] = json!(*api.problems.borrow());
    Json(status)
}

/// 200 once the engine has been asked and the Functions are known; 503 with the reason before and while it is away.
pub async fn ready(State(api): State<Api>) -> Response {
    match api.controller.engine().away() {
        None => (StatusCode::OK, "ready\n").into_response(),
        Some(error) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {error}\n"),
        )
            .into_response(),
    }
}

/// The text for Prometheus.
pub async fn metrics(State(api): State<Api>) -> Response {
    let text = api.metrics.render(&api.controller.snapshot());
    (
        [(
            CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response()
}

//! Logs over HTTP: of instances and of builds, as they are written.

use std::convert::Infallible;

use axum::{
    body::Body,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::Deserialize;

use super::{Api, Key, Params, error::ApiError};

/// How a log is read.
#[derive(Debug, Deserialize)]
pub struct LogQuery {
    #[serde(default)]
    follow: bool,
    /// Last lines of each instance.
    #[serde(default = "default_tail")]
    tail: u32,
}

fn default_tail() -> u32 {
    100
}

/// What the instances of a Function wrote, each piece as it comes; with `follow`, new instances join in.
pub async fn logs(
    State(api): State<Api>,
    Key(key): Key,
    Params(query): Params<LogQuery>,
) -> Result<Response, ApiError> {
    api.store
        .get(&key)
        .ok_or_else(|| ApiError::no_function(&key))?;
    let pieces = api.controller.logs(key, query.tail, query.follow);
    let pieces = pieces.map_err(|error| ApiError::Overloaded(error.to_string()))?;
    Ok(text(stream(&api, pieces)))
}

/// What the last build of a Function said; with `follow`, until it ends.
pub async fn build_log(
    State(api): State<Api>,
    Key(key): Key,
    Params(query): Params<LogQuery>,
) -> Result<Response, ApiError> {
    let function = api
        .store
        .get(&key)
        .ok_or_else(|| ApiError::no_function(&key))?;
    let Some(log) = api.controller.build_log(&key) else {
        // Built before this server started: the tail in the status is what is left.
        let tail = function
            .status
            .as_ref()
            .and_then(|s| s.last_build.as_ref())
            .and_then(|b| b.log_tail.clone());
        return Ok(text(Body::from(tail.unwrap_or_default())));
    };
    Ok(text(stream(&api, log.read(query.follow))))
}

/// Pieces until there are no more, or the server drains.
fn stream(api: &Api, pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    let stop = api.stop.clone().cancelled_owned();
    Body::from_stream(pieces.take_until(stop).map(Ok::<_, Infallible>))
}

fn text(body: Body) -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

//! The management API: everything that is not a call. Writes go to the store, as kubectl's would; the controller does
//! the rest.

mod asked;
mod body;
pub mod error;
pub mod gateway;
pub mod openapi;
pub mod status;
pub mod stream;
pub mod upload;

use std::{iter, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, MatchedPath, Path, Query, Request, State},
    http::{
        HeaderValue, StatusCode,
        header::{self, ALLOW},
        request::Parts,
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{asked::Asked, error::ApiError};
use crate::{
    builder::archives::Archives,
    controller::Controller,
    directory::{Problem, is_watched},
    function::{
        API_VERSION, FunctionKey,
        manifest::{self, ManifestError},
    },
    store::{Applied, Manager, Store},
    telemetry::Metrics,
};

/// What the handlers work with.
#[derive(Clone)]
pub struct Api {
    pub store: Arc<dyn Store>,
    pub archives: Arc<dyn Archives>,
    pub controller: Arc<Controller>,
    pub metrics: Arc<Metrics>,
    /// The watched directories, absolute.
    pub roots: Arc<Vec<PathBuf>>,
    /// What is wrong with files of the watched directories.
    pub problems: watch::Receiver<Vec<Problem>>,
    /// What this server is made of, for `/status`.
    pub facts: Arc<Value>,
    /// The server drains: answers that would not end by themselves end.
    pub stop: CancellationToken,
}

/// The routes of the management API.
pub fn router(api: Api) -> Router {
    let known = middleware::from_fn_with_state(api.clone(), when_known);
    Router::new()
        .route("/functions", get(list).post(upload::deploy))
        .route("/functions/", get(list).post(upload::deploy))
        .route("/functions/{name}", get(read).put(apply).delete(delete))
        .route("/functions/{name}/logs", get(stream::logs))
        .route("/functions/{name}/build-log", get(stream::build_log))
        .route("/functions/{name}/events", get(events))
        .route_layer(known)
        .route("/status", get(status::status))
        .route("/ping", get(|| async { Json(json!({"message": "pong"})) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(status::ready))
        .route("/metrics", get(status::metrics))
        .route("/openapi.json", get(|| async { Json(openapi::document()) }))
        .fallback(unknown)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(api)
}

/// What there is, and that there is none, must not be said before it is known.
async fn when_known(State(api): State<Api>, request: Request, next: Next) -> Response {
    if api.store.freshness().is_known {
        return next.run(request).await;
    }
    let message = "what Functions there are is not known yet: try again in a moment";
    ApiError::Unavailable(message.to_owned()).into_response()
}

async fn unknown(uri: axum::http::Uri) -> ApiError {
    ApiError::NotFound(format!(
        "there is nothing at {}; see /openapi.json",
        uri.path()
    ))
}

async fn method_not_allowed(path: MatchedPath) -> Response {
    let mut response = ApiError::Method.into_response();
    if path.as_str() == "/functions/{name}" {
        // A POST is a call, and answered before it comes here.
        let allowed = HeaderValue::from_static("GET,HEAD,POST,PUT,DELETE");
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

/// `:name` or `:name.namespace` of a path.
pub struct Key(FunctionKey);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::BadRequest(error.to_string()))?;
        name.parse()
            .map(Self)
            .map_err(|error: crate::function::KeyError| ApiError::BadRequest(error.to_string()))
    }
}

/// What stands behind the question mark.
pub struct Params<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::from_request_parts(parts, state).await;
        let Query(params) = query.map_err(|error| ApiError::BadRequest(error.body_text()))?;
        Ok(Self(params))
    }
}

/// A body that is a manifest.
pub struct Text(Bytes);

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let body = body::whole(request.into_body(), manifest::MAX_SIZE).await?;
        Ok(Self(body.bytes))
    }
}

#[derive(Debug, Deserialize)]
struct ListQuery {
    namespace: Option<String>,
}

async fn list(
    State(api): State<Api>,
    Params(query): Params<ListQuery>,
) -> Result<Response, ApiError> {
    let mut functions = api.store.list();
    functions.retain(|f| query.namespace.is_none() || f.metadata.namespace == query.namespace);
    // Written as it is taken: it may be long, and its readers many and slow.
    let head = format!(
        r#"{{"apiVersion":"{API_VERSION}","kind":"FunctionList","metadata":{{}},"items":["#
    );
    let items = functions.into_iter().enumerate().map(|(at, function)| {
        let comma: &[u8] = if at == 0 { b"" } else { b"," };
        let item = serde_json::to_vec(&*function)?;
        Ok::<_, serde_json::Error>([comma, &item].concat())
    });
    let text = iter::once(Ok(head.into_bytes()))
        .chain(items)
        .chain(iter::once(Ok(b"]}".to_vec())));
    let body = Body::from_stream(futures::stream::iter(text));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

async fn read(State(api): State<Api>, Key(key): Key) -> Result<Response, ApiError> {
    let function = api
        .store
        .get(&key)
        .ok_or_else(|| ApiError::no_function(&key))?;
    Ok(Json(&*function).into_response())
}

async fn apply(State(api): State<Api>, Key(key): Key, asked: Asked, Text(body): Text) -> Response {
    let work = async move { put(&api, key, &body).await };
    asked.carry_out(None, work).await
}

async fn put(api: &Api, key: FunctionKey, body: &[u8]) -> Result<Response, ApiError> {
    let invalid = |error: ManifestError| ApiError::Invalid(error.to_string());
    let mut value = manifest::value(body).map_err(invalid)?;
    manifest::strip_ours(&mut value);
    let document = manifest::judge(1, value);
    if document.key.as_ref().is_some_and(|defined| *defined != key) {
        let message = format!("the body defines another Function than the path names ({key})");
        return Err(ApiError::BadRequest(message));
    }
    let function = document
        .verdict
        .map_err(|error| invalid(error.as_written(body, "")))?;
    if function.spec.source.directory.is_some() {
        let message = "spec.source.directory: Forbidden: works only in manifests below a watched directory \
                       (`faas start --dir`); use `faas build`, source.inline or source.archive";
        return Err(ApiError::Invalid(message.to_owned()));
    }
    let (applied, function) = api
        .store
        .apply(function, &Manager::Api, Timestamp::now())
        .await?;
    if applied == Applied::Unchanged {
        api.controller.retry(&key);
    }
    let status = if applied == Applied::Created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let headers = [(
        header::HeaderName::from_static("x-faas-applied"),
        applied.to_string(),
    )];
    Ok((status, headers, Json(&*function)).into_response())
}

async fn delete(State(api): State<Api>, Key(key): Key, asked: Asked) -> Response {
    let work = async move { remove(&api, &key).await };
    asked.carry_out(None, work).await
}

async fn remove(api: &Api, key: &FunctionKey) -> Result<Response, ApiError> {
    let function = api
        .store
        .get(key)
        .ok_or_else(|| ApiError::no_function(key))?;
    let manager = match Manager::of(&function) {
        // Its directory is not watched any more, or its file went unseen, so nothing else could delete it.
        Manager::Directory { file } if !is_watched(&api.roots, &file) || !file.exists() => {
            Manager::Directory { file }
        }
        _ => Manager::Api,
    };
    api.store.delete(key, &manager, Timestamp::now()).await?;
    let body = json!({"message": format!("Function {key} is being deleted")});
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}

async fn events(State(api): State<Api>, Key(key): Key) -> Result<Json<Value>, ApiError> {
    api.store
        .get(&key)
        .ok_or_else(|| ApiError::no_function(&key))?;
    let events = api.store.events(&key).await?;
    Ok(Json(json!({"items": events})))
}

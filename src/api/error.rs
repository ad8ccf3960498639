//! What the management API answers when it refuses: one shape, `{"message", "code"}`, and one table of codes.

use axum::{
    Json,
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::body::BodyError;
use crate::{function::FunctionKey, ingress::reply::ERROR_HEADER, store::StoreError};

/// When to try again what a server that has just begun, or the API server, could not do.
const RETRY_SECONDS: u64 = 1;

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    NotFound(String),
    #[error("this path does not take this method; see /openapi.json")]
    Method,
    #[error("the request body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("{0}")]
    Slow(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    NoController(String),
    #[error("{0}")]
    ControllerLost(String),
    #[error("{0}")]
    Overloaded(String),
}

impl ApiError {
    /// There is no such Function.
    pub fn no_function(key: &FunctionKey) -> Self {
        Self::NotFound(format!(
            "there is no function {:?}; `faas list` shows those that there are",
            key.to_string()
        ))
    }

    /// The word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "BadRequest",
            Self::Invalid(_) => "InvalidSpec",
            Self::NotFound(_) => "NotFound",
            Self::Method => "MethodNotAllowed",
            Self::TooLarge { .. } => "BodyTooLarge",
            Self::Slow(_) => "BodyTimeout",
            Self::Store(error) => error.reason(),
            Self::Unavailable(_) => "Unavailable",
            Self::NoController(_) => "NoController",
            Self::ControllerLost(_) => "ControllerLost",
            Self::Overloaded(_) => "Overloaded",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Invalid(_) | Self::Store(StoreError::Invalid { .. }) => {
                StatusCode::BAD_REQUEST
            }
            Self::NotFound(_) | Self::Store(StoreError::NotFound { .. }) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Store(
                StoreError::Managed { .. }
                | StoreError::Deleting { .. }
                | StoreError::Conflict { .. },
            ) => StatusCode::CONFLICT,
            Self::Store(StoreError::Full { .. }) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Unavailable(_)
            | Self::NoController(_)
            | Self::Overloaded(_)
            | Self::Store(StoreError::Cluster { .. }) => StatusCode::SERVICE_UNAVAILABLE,
            Self::ControllerLost(_) => StatusCode::BAD_GATEWAY,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge(limit) => Self::TooLarge { limit },
            BodyError::Slow => Self::Slow(error.to_string()),
            BodyError::Crowded => Self::Overloaded(error.to_string()),
            BodyError::Broken(_) => Self::BadRequest(error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = self.code();
        let body = json!({"message": self.to_string(), "code": code});
        let status = self.status();
        let mut response = (status, [(ERROR_HEADER, code)], Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, RETRY_SECONDS.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passes_is_to_be_tried_again() {
        for (error, status, again) in [
            (ApiError::Unavailable(String::new()), 503, true),
            (ApiError::NoController(String::new()), 503, true),
            (ApiError::Overloaded(String::new()), 503, true),
            (ApiError::ControllerLost(String::new()), 502, false),
            (ApiError::Invalid(String::new()), 400, false),
            (ApiError::NotFound(String::new()), 404, false),
        ] {
            let response = error.into_response();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().contains_key(RETRY_AFTER), again);
        }
    }
}

//! From what went wrong to what the caller reads (pure): one table for all answers that the platform makes itself.

use std::{
    io,
    time::{Duration, Instant},
};

use axum::body::Body;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{
        CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
    },
};
use serde::Deserialize;
use serde_json::json;

use super::{
    guard::Refusal,
    route::{PathError, Target},
};
use crate::{access::Denied, pool::LeaseError};

/// Says that the platform, not the function, made this answer, and why.
pub const ERROR_HEADER: HeaderName = HeaderName::from_static("x-faas-error");
/// Names the call, in the caller's log, ours and the function's.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest answer of a failed function that is looked through for a message, in bytes.
const MAX_FAILURE: usize = 256 << 10;

/// How the caller called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `POST /functions/:name`: failures of the caller or the function are 400, as the first users know it.
    Envelope,
    /// `/function/:name`: exact codes.
    Raw,
}

/// Why a call has no answer of the function's.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("there is no function {0}; `faas list -A` shows those that there are")]
    NotFound(Target),
    #[error(
        "this server has just begun, and does not know yet which functions there are; try again"
    )]
    NotKnown,
    #[error("calls are answered at {url} (--invoke-listen), and not here")]
    Elsewhere { url: String },
    #[error("this address answers calls and nothing else; there is no call at {0}")]
    CallsOnly(String),
    #[error("{message}")]
    Lease { message: String, error: LeaseError },
    #[error("the function did not answer within {}s (spec.timeoutSeconds); {:.1}s have passed", limit.as_secs(), elapsed.as_secs_f64())]
    Timeout {
        limit: Duration,
        elapsed: Duration,
        stopped: bool,
    },
    #[error("the request's body did not come within {}s (spec.timeoutSeconds); {:.1}s have passed", limit.as_secs(), elapsed.as_secs_f64())]
    BodyTimeout { limit: Duration, elapsed: Duration },
    #[error(
        "the request's body comes too slowly: send all of it within {}s, or at least 1 KiB a second of a larger one", limit.as_secs()
    )]
    SlowBody { limit: Duration },
    #[error("the request body is larger than {limit} bytes")]
    BodyTooLarge { limit: u64 },
    #[error("the request's body cannot be read: {0}")]
    BrokenBody(String),
    #[error(
        "the answer is larger than the {limit} bytes that fit into an envelope; call /function/NAME to have it streamed"
    )]
    ResponseTooLarge { limit: u64 },
    #[error(
        "the call was carried out, and there is no room for its answer: large ones of {limit} bytes in all wait to be taken by \
         their callers; call /function/NAME to have answers streamed"
    )]
    TooManyResponses { limit: usize },
    #[error(
        "the instance ended, or closed the connection, before it answered; `faas logs` shows its last words"
    )]
    InstanceLost,
    #[error("the function's answer is not HTTP as it should be: {0}")]
    BadResponse(String),
    #[error("{0}")]
    BadInput(String),
    #[error("{0}")]
    FunctionFailed(String),
    #[error("{limit} connections are open, and more are not served; try again later")]
    Crowded { limit: usize },
    #[error(
        "faas has too little left to reach an instance ({0}); try again later, or raise its limits (ulimit -n)"
    )]
    Shortage(io::Error),
    #[error("the request failed within faas; its log says why")]
    Internal,
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Nobody reads this: the caller has left.
    #[error("the caller has left")]
    CallerGone,
}

impl CallError {
    /// Why there was no lease; and how long the caller waited, where that is why.
    pub fn lease(error: LeaseError, waited: Duration) -> Self {
        let message = match &error {
            LeaseError::NoInstance { .. } | LeaseError::NoCapacity { .. } => {
                format!("{error}; {:.1}s have passed", waited.as_secs_f64())
            }
            LeaseError::QueueFull(_) | LeaseError::Failing(_) | LeaseError::Deleted => {
                error.to_string()
            }
        };
        Self::Lease { message, error }
    }

    /// The word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_)
            | Self::Elsewhere { .. }
            | Self::CallsOnly(_)
            | Self::Lease {
                error: LeaseError::Deleted,
                ..
            } => "NotFound",
            Self::Lease {
                error: LeaseError::QueueFull(_),
                ..
            } => "QueueFull",
            Self::Lease {
                error: LeaseError::NoInstance { .. },
                ..
            } => "NoInstance",
            Self::Lease {
                error: LeaseError::NoCapacity { .. },
                ..
            } => "NoCapacity",
            Self::Lease {
                error: LeaseError::Failing(failure),
                ..
            } => failure.reason.into(),
            Self::Timeout { stopped: true, .. } => "Timeout",
            Self::Timeout { stopped: false, .. } => "InstanceNotStopped",
            Self::BodyTimeout { .. } | Self::SlowBody { .. } => "BodyTimeout",
            Self::BodyTooLarge { .. } => "BodyTooLarge",
            Self::BrokenBody(_) => "BadRequest",
            Self::ResponseTooLarge { .. } => "ResponseTooLarge",
            Self::InstanceLost => "InstanceLost",
            Self::BadResponse(_) => "BadResponse",
            Self::BadInput(_) => "BadInput",
            Self::FunctionFailed(_) => "FunctionFailed",
            Self::NotKnown => "Unavailable",
            Self::TooManyResponses { .. } | Self::Crowded { .. } | Self::Shortage(_) => {
                "Overloaded"
            }
            Self::Internal => "Internal",
            Self::Path(_) => "BadPath",
            Self::Refused(refusal) => refusal.code(),
            Self::Denied(denied) => denied.code(),
            Self::CallerGone => "CallerGone",
        }
    }

    fn status(&self, style: Style) -> StatusCode {
        match self {
            Self::NotFound(_)
            | Self::Lease {
                error: LeaseError::Deleted,
                ..
            } => match style {
                Style::Envelope => StatusCode::BAD_REQUEST,
                Style::Raw => StatusCode::NOT_FOUND,
            },
            Self::FunctionFailed(_) => match style {
                Style::Envelope => StatusCode::BAD_REQUEST,
                Style::Raw => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BadInput(_)
            | Self::BrokenBody(_)
            | Self::Path(_)
            | Self::Refused(Refusal::Host | Refusal::Framing | Refusal::Page) => {
                StatusCode::BAD_REQUEST
            }
            Self::Refused(_) => StatusCode::FORBIDDEN,
            Self::Denied(denied) => denied.status(),
            Self::Lease {
                error: LeaseError::QueueFull(_),
                ..
            } => StatusCode::TOO_MANY_REQUESTS,
            Self::NotKnown
            | Self::Lease { .. }
            | Self::TooManyResponses { .. }
            | Self::Crowded { .. }
            | Self::Shortage(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Elsewhere { .. } | Self::CallsOnly(_) => StatusCode::NOT_FOUND,
            Self::BodyTimeout { .. } | Self::SlowBody { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ResponseTooLarge { .. } | Self::InstanceLost | Self::BadResponse(_) => {
                StatusCode::BAD_GATEWAY
            }
            // nginx's code for it, since HTTP has none.
            Self::CallerGone => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        }
    }

    /// After how many seconds trying again may help; nothing where only an edit of the function, or of the call, does, nor where
    /// the call was carried out.
    fn retry_after(&self, now: Instant) -> Option<u64> {
        match self {
            Self::Lease {
                error: LeaseError::Failing(failure),
                ..
            } => {
                let next_try = failure.retry_at?;
                Some(seconds(next_try.saturating_duration_since(now)))
            }
            Self::Lease {
                error: LeaseError::QueueFull(queue),
                ..
            } => Some(seconds(queue.takes.unwrap_or_default())),
            Self::Lease {
                error: LeaseError::Deleted,
                ..
            } => None,
            Self::NotKnown | Self::Lease { .. } | Self::Crowded { .. } | Self::Shortage(_) => {
                Some(1)
            }
            Self::Denied(denied) => denied.retry_after(),
            _ => None,
        }
    }

    /// The answer.
    pub fn response(&self, style: Style, now: Instant) -> Response<Body> {
        let code = self.code();
        let mut body = json!({"message": self.to_string(), "code": code});
        if let Self::Elsewhere { url } = self {
            body["invoke"] = url.as_str().into();
        }
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status(style);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ERROR_HEADER, HeaderValue::from_static(code));
        if let Some(seconds) = self.retry_after(now) {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Self::Denied(denied) = self
            && let Some(challenge) = denied.challenge()
        {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// Whole seconds after which so much time is over.
fn seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// Takes out the fields that belong to one connection and not to the message: those that HTTP names, and those that the
/// message does. `Host`, which HTTP wants in every request, is not for it to name.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let mut named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| name != HOST)
        .collect();
    // Few are there at all, so what is there is looked at, and not what could be.
    named.extend(headers.keys().filter(|name| is_hop_by_hop(name)).cloned());
    for name in named {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "expect"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// What a failed function says about its failure: the message of its JSON, or how its text begins.
pub fn failure_message(body: &[u8], status: StatusCode) -> String {
    if let Some(message) = message(body) {
        return message;
    }
    if body.is_empty() {
        return format!("the function answered {status}");
    }
    format!(
        "the function answered {status}: {}",
        String::from_utf8_lossy(&body[..body.len().min(1024)])
    )
}

/// All else that a long answer says would only cost time and memory.
fn message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Failed {
        message: String,
    }
    let is_object = body.len() <= MAX_FAILURE && body.trim_ascii_start().starts_with(b"{");
    let failed = is_object.then(|| serde_json::from_slice::<Failed>(body).ok())?;
    failed.map(|failed| failed.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{function::status::Reason, plan::Failure, pool::QueueFull};

    #[rustfmt::skip]
    /// Every error with its status in the envelope and raw, its code, and whether trying again may help.
    fn table() -> Vec<(CallError, u16, u16, &'static str, bool)> {
        let lease = |error| CallError::lease(error, Duration::from_secs(3));
        let limit = Duration::from_secs(20);
        let timeout = |stopped| CallError::Timeout { limit, elapsed: limit, stopped };
        let target = Target { namespace: "default".into(), name: "x".into() };
        let foreign = Refusal::ForeignHost("x".into());
        let full = QueueFull { waiting: 40, takes: Some(limit) };
        vec![
            (CallError::NotFound(target), 400, 404, "NotFound", false),
            (CallError::NotKnown, 503, 503, "Unavailable", true),
            (CallError::Elsewhere { url: "x".into() }, 404, 404, "NotFound", false),
            (CallError::CallsOnly("x".into()), 404, 404, "NotFound", false),
            (CallError::BodyTimeout { limit, elapsed: limit }, 408, 408, "BodyTimeout", false),
            (CallError::SlowBody { limit }, 408, 408, "BodyTimeout", false),
            (CallError::Shortage(io::ErrorKind::Other.into()), 503, 503, "Overloaded", true),
            (CallError::FunctionFailed("x".into()), 400, 500, "FunctionFailed", false),
            (CallError::BadInput("x".into()), 400, 400, "BadInput", false),
            (lease(LeaseError::QueueFull(full)), 429, 429, "QueueFull", true),
            (lease(LeaseError::NoInstance { limit, cause: None }), 503, 503, "NoInstance", true),
            (lease(LeaseError::NoCapacity { limit }), 503, 503, "NoCapacity", true),
            (lease(LeaseError::Failing(failure(None))), 503, 503, "BuildFailed", false),
            (lease(LeaseError::Deleted), 400, 404, "NotFound", false),
            (timeout(true), 504, 504, "Timeout", false),
            (timeout(false), 504, 504, "InstanceNotStopped", false),
            (CallError::BodyTooLarge { limit: 1 }, 413, 413, "BodyTooLarge", false),
            (CallError::BrokenBody("x".into()), 400, 400, "BadRequest", false),
            (CallError::ResponseTooLarge { limit: 1 }, 502, 502, "ResponseTooLarge", false),
            (CallError::Crowded { limit: 1 }, 503, 503, "Overloaded", true),
            (CallError::TooManyResponses { limit: 1 }, 503, 503, "Overloaded", false),
            (CallError::InstanceLost, 502, 502, "InstanceLost", false),
            (CallError::Refused(foreign), 403, 403, "ForeignHost", false),
            (CallError::Refused(Refusal::Framing), 400, 400, "BadRequest", false),
            (CallError::Refused(Refusal::Page), 400, 400, "BadRequest", false),
            (CallError::Denied(Denied::NoToken), 401, 401, "Unauthorized", false),
            (CallError::Denied(Denied::TooMany { wait: limit }), 429, 429, "TooManyFailures", true),
        ]
    }

    #[test]
    fn codes_fit_the_style() {
        let now = Instant::now();
        for (error, envelope, raw, code, retry) in table() {
            for (style, status) in [(Style::Envelope, envelope), (Style::Raw, raw)] {
                let response = error.response(style, now);
                assert_eq!(response.status(), status, "{error:?} {style:?}");
                assert_eq!(response.headers()[ERROR_HEADER], code);
                assert_eq!(
                    response.headers().contains_key(RETRY_AFTER),
                    retry,
                    "{error:?}"
                );
            }
        }
    }

    fn failure(retry_at: Option<Instant>) -> Failure {
        Failure {
            reason: Reason::BuildFailed,
            message: "the build failed with code 7".to_owned(),
            attempts: 2,
            retry_at,
            crash: None,
        }
    }

    #[test]
    fn who_is_to_come_again_is_told_when() {
        let now = Instant::now();
        let milliseconds = Duration::from_millis;
        let full = |takes| {
            LeaseError::QueueFull(QueueFull {
                waiting: 9,
                takes: Option::map(takes, milliseconds),
            })
        };
        let failing =
            |wait| LeaseError::Failing(failure(Option::map(wait, |ms| now + milliseconds(ms))));
        for (error, expected) in [
            (failing(None), None),
            (failing(Some(0)), Some("1")),
            (failing(Some(3000)), Some("3")),
            (failing(Some(3001)), Some("4")),
            (full(None), Some("1")),
            (full(Some(4500)), Some("5")),
            (LeaseError::Deleted, None),
        ] {
            let response = CallError::lease(error, Duration::ZERO).response(Style::Raw, now);
            let told = response.headers().get(RETRY_AFTER);
            assert_eq!(told.map(|value| value.to_str().unwrap()), expected);
        }
    }

    #[test]
    fn the_time_is_told_where_a_time_was_up() {
        let limit = Duration::from_secs(2);
        for (error, told) in [
            (
                LeaseError::NoInstance { limit, cause: None },
                "no instance became free within 2s (spec.startupTimeoutSeconds); 2.0s have passed",
            ),
            (
                LeaseError::Failing(failure(None)),
                "the build failed with code 7",
            ),
            (LeaseError::Deleted, "the function is being deleted"),
        ] {
            assert_eq!(CallError::lease(error, limit).to_string(), told);
        }
    }

    #[test]
    fn connection_fields_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-mine, Host"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("x-other", "2"),
            ("host", "localhost"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        strip_hop_by_hop(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-other", "host"]);
    }

    #[test]
    fn failures_are_told_in_the_functions_words() {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        assert_eq!(failure_message(br#"{"message":"boom"}"#, status), "boom");
        assert_eq!(
            failure_message(b"", status),
            "the function answered 500 Internal Server Error"
        );
        let long = format!(
            r#"{{"message":"boom","more":"{}"}}"#,
            "x".repeat(MAX_FAILURE)
        );
        let begin = format!("the function answered {status}: {}", &long[..1024]);
        for (body, expected) in [
            (
                "oops",
                "the function answered 500 Internal Server Error: oops",
            ),
            (
                r#"["boom"]"#,
                r#"the function answered 500 Internal Server Error: ["boom"]"#,
            ),
            (
                r#"{"message":1}"#,
                r#"the function answered 500 Internal Server Error: {"message":1}"#,
            ),
            (&long, &begin),
        ] {
            assert_eq!(failure_message(body.as_bytes(), status), expected);
        }
    }
}

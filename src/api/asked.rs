//! A change that is asked for, from when all of it is there: whoever asks is judged once more, as a body may take long to come,
//! and what has begun goes on to its end, also without its caller.

use std::{convert::Infallible, panic::AssertUnwindSafe, time::Instant};

use axum::{
    extract::FromRequestParts,
    http::request::Parts,
    response::{IntoResponse, Response},
};
use futures::FutureExt;

use crate::{
    access::{audit::Change, rights::Deed},
    function::FunctionKey,
    ingress::{
        door::Pass,
        reply::{CallError, Style},
    },
};

/// What the way in knows of a change.
pub struct Asked {
    /// Its line in the audit.
    change: Option<Change>,
    /// By what its caller was let in, where that needs anything.
    pass: Option<Pass>,
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self {
            change: parts.extensions.get().cloned(),
            pass: parts.extensions.get().cloned(),
        })
    }
}

impl Asked {
    /// It is this Function that is to change.
    pub fn names(&self, key: &FunctionKey) {
        if let Some(change) = &self.change {
            change.names(&key.url_segment());
        }
    }

    /// Carries it out, if its caller still may. `deed` is what the body says that it is, where the path does not.
    ///
    /// A caller who leaves must not choose so what the audit says: the task that works tells what came of it.
    pub async fn carry_out<R: IntoResponse>(
        self,
        deed: Option<Deed>,
        work: impl Future<Output = R> + Send + 'static,
    ) -> Response {
        if let Some(pass) = &self.pass
            && let Err(denied) = pass.again(deed.as_ref()).await
        {
            return CallError::from(denied).response(Style::Raw, Instant::now());
        }
        let change = self.change;
        if let Some(change) = &change {
            change.begins();
        }
        let done = tokio::spawn(async move {
            let work = AssertUnwindSafe(async { work.await.into_response() });
            let response = work.catch_unwind().await.unwrap_or_else(|_| failed());
            if let Some(change) = change {
                change.ended(&response);
            }
            response
        });
        done.await.unwrap_or_else(|_| failed())
    }
}

/// What is said of a panic is in the log.
fn failed() -> Response {
    tracing::error!("A change failed");
    CallError::Internal.response(Style::Raw, Instant::now())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::http::{HeaderValue, Request, StatusCode};
    use tokio::sync::oneshot;

    use super::*;

    fn asked() -> (Asked, Change) {
        let mut request = Request::put("/functions/a").body(()).unwrap();
        let id = HeaderValue::from_static("1");
        let change = Change::asked_by(&mut request, Ipv4Addr::LOCALHOST.into(), &id);
        let change = change.unwrap();
        let asked = Asked {
            change: Some(change.clone()),
            pass: None,
        };
        (asked, change)
    }

    #[tokio::test]
    async fn what_has_begun_ends_without_its_caller_and_is_noted_as_it_ended() {
        let (asked, change) = asked();
        let (begun, begins) = oneshot::channel();
        let (go_on, goes_on) = oneshot::channel();
        let work = async move {
            begun.send(()).unwrap();
            goes_on.await.unwrap();
            StatusCode::CREATED
        };
        let handler = tokio::spawn(asked.carry_out(None, work));
        begins.await.unwrap();
        handler.abort();
        assert!(handler.await.unwrap_err().is_cancelled());
        assert_eq!(change.result(), (503, "Unfinished".to_owned()));
        go_on.send(()).unwrap();
        let ended = async {
            while change.result().1 == "Unfinished" {
                tokio::task::yield_now().await;
            }
        };
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), ended).await;
        assert!(ended.is_ok(), "it went on");
        assert_eq!(change.result(), (201, "OK".to_owned()));
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_noted() {
        let (asked, change) = asked();
        assert_eq!(change.result(), (499, "CallerGone".to_owned()));
        let broken = async { unreachable_word().len().to_string() };
        let answer = asked.carry_out(None, broken).await;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(change.result(), (500, "Internal".to_owned()));
    }

    fn unreachable_word() -> &'static str {
        panic!("a fault of ours")
    }
}

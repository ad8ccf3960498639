//! Listeners, and who comes in by them.

use std::{net::IpAddr, sync::Arc};

use axum::body::Body;
use futures::StreamExt;
use http_body::Body as _;
use hyper::{
    HeaderMap, Method, Request, Response, Uri,
    header::{AUTHORIZATION, HOST},
};
use serde::{Deserialize, Serialize};

use super::route::Route;
use crate::access::{
    Access, Denied, Manager, audit::Change, needs, rights::Deed, tls::Tls, token::Scope as Needed,
};

/// What a listener serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Management and invocation.
    All,
    /// Everything but invocation, which has a listener of its own, with this URL.
    Manage { calls: String },
    /// Invocation and nothing else.
    Invoke,
    /// Invocation; management is passed on to the controller, who judges it.
    Gateway,
    /// Management that gateways pass on. Calls are answered by them, where their callers came in.
    Passed,
}

/// A listener's rules.
pub struct Door {
    pub scope: Scope,
    /// It is on loopback: callers name this machine as local programs do.
    pub local: bool,
    /// Tokens are asked for.
    pub access: Option<Arc<Access>>,
    pub tls: Option<Arc<Tls>>,
}

/// Where a request comes from, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub peer: IpAddr,
    /// Its caller speaks TLS.
    pub https: bool,
}

/// What the management API learns of where functions are called: how their URLs begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calls(pub String);

/// By what a manager was let in, and for what.
#[derive(Clone)]
pub struct Pass {
    access: Arc<Access>,
    manager: Manager,
    needed: Needed,
    deed: Deed,
}

impl Pass {
    /// Whether it is still good, for what the body says where the path does not.
    pub async fn again(&self, deed: Option<&Deed>) -> Result<(), Denied> {
        let deed = deed.unwrap_or(&self.deed);
        let judged = self.access.judge_again(&self.manager, self.needed, deed);
        judged.await
    }

    /// An answer that is told as it comes, such as a log, does not outlive the token. Only of such a one is the length not known.
    /// Users of a cluster have no token of ours: what they were let in to hear they hear to its end.
    pub fn bound(self, answer: Response<Body>) -> Response<Body> {
        let Some(token) = self.manager.token else {
            return answer;
        };
        answer.map(|body| {
            if body.size_hint().exact().is_some() {
                return body;
            }
            let end = async move { self.access.outlive(&token).await };
            Body::from_stream(body.into_data_stream().take_until(Box::pin(end)))
        })
    }
}

impl Door {
    /// One for programs of this machine.
    pub fn local(scope: Scope) -> Self {
        Self {
            scope,
            local: true,
            access: None,
            tls: None,
        }
    }

    /// How URLs begin that lead here.
    pub fn scheme(&self) -> &'static str {
        scheme(self.tls.is_some())
    }

    /// Whether somebody else judges and answers a request that is no call.
    pub fn passes_on(&self, path: &str) -> bool {
        self.scope == Scope::Gateway && needs::is_controllers(path)
    }
}

fn scheme(https: bool) -> &'static str {
    if https { "https" } else { "http" }
}

/// Whoever is at the other end of a connection.
#[derive(Clone)]
pub struct Caller {
    pub door: Arc<Door>,
    pub origin: Origin,
}

impl Caller {
    /// The one behind a connection to a listener.
    pub fn new(door: Arc<Door>, peer: IpAddr) -> Self {
        let https = door.tls.is_some();
        Self {
            door,
            origin: Origin { peer, https },
        }
    }

    /// Lets a call in, if its token allows it. No function gets to see the token.
    pub fn admit<B>(&self, request: &mut Request<B>) -> Result<(), Denied> {
        let Some(access) = &self.door.access else {
            return Ok(());
        };
        let verdict = access.admit(request.headers(), self.origin.peer, Needed::Invoke);
        request.headers_mut().remove(AUTHORIZATION);
        verdict.map(drop)
    }

    /// Lets a request in that is no call, if whoever asks may do that. What is passed on keeps its token, by which it is judged.
    pub async fn admit_management<B>(&self, request: &mut Request<B>) -> Result<(), Denied> {
        let calls = self.calls(request.headers());
        request.extensions_mut().insert(calls);
        request.extensions_mut().insert(self.origin);
        if self.door.passes_on(request.uri().path()) {
            return Ok(());
        }
        let who = self.who(request.method(), request.uri(), request.headers());
        let who = who.await;
        if let Some(change) = request.extensions().get::<Change>() {
            match &who {
                Ok(None) => change.by("local"),
                Ok(Some(pass)) => change.by(&pass.manager.name),
                Err(denied) => denied.who().into_iter().for_each(|who| change.by(who)),
            }
        }
        if self.door.access.is_some() {
            request.headers_mut().remove(AUTHORIZATION);
        }
        if let Some(pass) = who? {
            request.extensions_mut().insert(pass);
        }
        Ok(())
    }

    /// Who asks, if anybody in particular must.
    async fn who(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Option<Pass>, Denied> {
        let Some(access) = &self.door.access else {
            return Ok(None);
        };
        let Some(needed) = needs::needed(method, &Route::Manage, uri.path()) else {
            return Ok(None);
        };
        let (peer, deed) = (self.origin.peer, Deed::of(method, uri));
        let manager = access.admit_manager(headers, peer, needed, &deed).await?;
        Ok(Some(Pass {
            access: Arc::clone(access),
            manager,
            needed,
            deed,
        }))
    }

    /// Where this caller calls functions: under the name by which it reached us, unless it is elsewhere.
    pub fn calls(&self, headers: &HeaderMap) -> Calls {
        if let Scope::Manage { calls } = &self.door.scope {
            return Calls(calls.clone());
        }
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.unwrap_or("localhost:5555");
        Calls(format!("{}://{host}", scheme(self.origin.https)))
    }
}

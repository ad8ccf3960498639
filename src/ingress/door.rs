//! Listeners, and who comes in by them.

use std::{net::IpAddr, sync::Arc};

use hyper::{Request, header::AUTHORIZATION};

use super::route::Route;
use crate::access::{Access, Denied, audit::Change, needs, tls::Tls};

/// What a listener serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Management and invocation.
    All,
    /// Everything but invocation, which has a listener of its own, with this URL.
    Manage { calls: String },
    /// Invocation and nothing else.
    Invoke,
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

/// What the management API learns of how a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme(pub &'static str);

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
    pub fn scheme(&self) -> Scheme {
        Scheme(if self.tls.is_some() { "https" } else { "http" })
    }
}

/// Whoever is at the other end of a connection.
#[derive(Clone)]
pub struct Caller {
    pub door: Arc<Door>,
    pub peer: IpAddr,
}

impl Caller {
    /// Lets a request in, if its token allows it. No function gets to see the token.
    pub fn admit<B>(&self, request: &mut Request<B>, route: &Route) -> Result<(), Denied> {
        let who = self.who(request, route);
        if self.door.tls.is_some() {
            request.extensions_mut().insert(self.door.scheme());
        }
        if let Some(change) = request.extensions().get::<Change>() {
            match &who {
                Ok(None) => change.by("local"),
                Ok(Some(who)) => change.by(who),
                Err(denied) => denied.who().into_iter().for_each(|who| change.by(who)),
            }
        }
        if self.door.access.is_some() {
            request.headers_mut().remove(AUTHORIZATION);
        }
        who.map(drop)
    }

    /// Name of the token, if one is needed.
    fn who<B>(&self, request: &Request<B>, route: &Route) -> Result<Option<String>, Denied> {
        let Some(access) = &self.door.access else {
            return Ok(None);
        };
        match needs::needed(request.method(), route, request.uri().path()) {
            Some(needed) => access.admit(request.headers(), self.peer, needed).map(Some),
            None => Ok(None),
        }
    }
}

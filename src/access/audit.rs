//! One line for each change that somebody asks for: who, from where, what, and what came of it. No bodies.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use hyper::{Method, Request, Response, header::HeaderValue};
use jiff::Timestamp;

use super::token::Token;
use crate::ingress::reply::ERROR_HEADER;

/// Longest name that is written down; no Function has a longer one.
const MAX_NAME: usize = 128;

/// A change that is asked for. Its line is written when all who know of it have done with it, so also for a caller who
/// does not wait for the answer.
#[derive(Clone, Debug)]
pub struct Change(Arc<Line>);

#[derive(Debug)]
struct Line {
    verb: &'static str,
    peer: IpAddr,
    request_id: HeaderValue,
    name: OnceLock<String>,
    who: OnceLock<String>,
    /// All of it is here, and it is being carried out.
    begun: AtomicBool,
    result: OnceLock<(u16, String)>,
}

impl Change {
    /// What a request asks for, if it is a change; whoever handles it finds it in the request.
    pub fn asked_by<B>(request: &mut Request<B>, peer: IpAddr, id: &HeaderValue) -> Option<Self> {
        let (verb, name) = change(request.method(), request.uri().path())?;
        let change = Self(Arc::new(Line {
            verb,
            peer,
            request_id: id.clone(),
            name: OnceLock::new(),
            who: OnceLock::new(),
            begun: AtomicBool::new(false),
            result: OnceLock::new(),
        }));
        if let Some(name) = name {
            change.names(name);
        }
        request.extensions_mut().insert(change.clone());
        Some(change)
    }

    /// It is this Function that is to change.
    pub fn names(&self, name: &str) {
        // The first one told is the one asked for.
        let _ = self.0.name.set(name.chars().take(MAX_NAME).collect());
    }

    /// This is who asks for it.
    pub fn by(&self, who: &str) {
        let _ = self.0.who.set(who.to_owned());
    }

    /// From now on its caller has no part in what comes of it.
    pub fn begins(&self) {
        self.0.begun.store(true, Ordering::Relaxed);
    }

    /// This is what came of it.
    pub fn ended<B>(&self, response: &Response<B>) {
        let code = response.headers().get(ERROR_HEADER);
        let code = code.and_then(|code| code.to_str().ok()).unwrap_or("OK");
        let result = (response.status().as_u16(), code.to_owned());
        let _ = self.0.result.set(result);
    }

    /// What its line would say now.
    #[cfg(test)]
    pub fn result(&self) -> (u16, String) {
        let (status, code) = self.0.told();
        (status, code.to_owned())
    }
}

impl Line {
    fn told(&self) -> (u16, &str) {
        match self.result.get() {
            Some((status, code)) => (*status, code),
            // Only the end of this process keeps what has begun from its end.
            None if self.begun.load(Ordering::Relaxed) => (503, "Unfinished"),
            None => (499, "CallerGone"),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let (status, code) = self.told();
        // Those before it have their lines, and more would be a way to fill the log.
        if code == "TooManyFailures" {
            return;
        }
        tracing::info!(
            target: "audit",
            who = self.who.get().map_or("unknown", |who| who),
            peer = %self.peer,
            verb = self.verb,
            kind = "Function",
            name = self.name.get().map_or("", |name| name),
            status,
            code,
            request_id = %self.request_id.to_str().unwrap_or_default(),
        );
    }
}

/// The verb of a request that is a change, and the name in its path.
fn change<'a>(method: &Method, path: &'a str) -> Option<(&'static str, Option<&'a str>)> {
    let rest = path.strip_prefix("/functions")?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    let name = rest.trim_matches('/');
    match *method {
        Method::POST if name.is_empty() => Some(("deploy", None)),
        Method::PUT => Some(("apply", Some(name))),
        Method::DELETE => Some(("delete", Some(name))),
        _ => None,
    }
}

/// Tokens that were made or revoked, by whoever may write the state directory; it may have been a while ago.
pub fn tokens(old: &BTreeMap<String, Token>, new: &BTreeMap<String, Token>) {
    let line = |verb, token: &Token| {
        tracing::info!(
            target: "audit",
            who = "local",
            verb,
            kind = "Token",
            name = token.name,
            id = token.id,
            scopes = %token.scopes,
            created = %token.created,
            expires = %token.expires,
        );
    };
    let now = Timestamp::now();
    for token in new.values() {
        match old.get(&token.id) {
            None => line("create", token),
            Some(before) if before.expires != token.expires => line("replace", token),
            Some(_) => {}
        }
    }
    let gone = |token: &&Token| !new.contains_key(&token.id) && token.expires > now;
    for token in old.values().filter(gone) {
        line("revoke", token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_from_looks_and_calls() {
        for (method, path, expected) in [
            ("POST", "/functions", Some(("deploy", None))),
            ("POST", "/functions/", Some(("deploy", None))),
            ("PUT", "/functions/sum", Some(("apply", Some("sum")))),
            ("DELETE", "/functions/a.b", Some(("delete", Some("a.b")))),
            ("POST", "/functions/sum", None),
            ("GET", "/functions/sum", None),
            ("PUT", "/function/sum/functions", None),
            ("PUT", "/functionsum", None),
            ("DELETE", "/status", None),
        ] {
            assert_eq!(
                change(&method.parse().unwrap(), path),
                expected,
                "{method} {path}"
            );
        }
    }
}

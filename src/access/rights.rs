//! What a request does, in the words that a cluster has for it (pure): verbs on Functions, and where. Whoever may do that with
//! `kubectl` may do it here.

use hyper::{Method, Uri};

use crate::function::{FunctionKey, MAX_NAMESPACE, is_dns_label};

/// Where Functions are that a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    One(FunctionKey),
    Namespace(String),
    /// In all namespaces that are served.
    Served,
    /// It cannot be told from the path, so it may be any in the cluster.
    Anywhere,
    /// The body says it.
    Body,
}

/// What is done, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    pub verbs: &'static [&'static str],
    pub place: Place,
}

/// A PUT and an upload make a Function, or change it.
const APPLY: &[&str] = &["create", "patch"];

impl Deed {
    /// Of a management request.
    pub fn of(method: &Method, uri: &Uri) -> Self {
        let looks = matches!(*method, Method::GET | Method::HEAD);
        let rest = uri.path().strip_prefix("/functions");
        let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let segment = rest.map(|rest| rest.trim_start_matches('/').split('/').next());
        let (one, place) = match segment.flatten() {
            None => (false, Place::Served),
            Some("") if looks => (false, namespace(uri)),
            Some("") => (false, Place::Body),
            // What is written in another way is read by others.
            Some(segment) => (true, segment.parse().map_or(Place::Anywhere, Place::One)),
        };
        let verbs: &[&str] = match *method {
            _ if looks && one => &["get"],
            _ if looks => &["list"],
            Method::DELETE => &["delete"],
            _ => APPLY,
        };
        Self { verbs, place }
    }

    /// An upload of this Function.
    pub fn upload(key: FunctionKey) -> Self {
        Self {
            verbs: APPLY,
            place: Place::One(key),
        }
    }
}

/// The one namespace that a list is asked of, if it is one.
fn namespace(uri: &Uri) -> Place {
    let text = format!("http://faas/?{}", uri.query().unwrap_or_default());
    let Ok(url) = reqwest::Url::parse(&text) else {
        return Place::Served;
    };
    let mut named = url.query_pairs().filter(|(name, _)| name == "namespace");
    match (named.next(), named.next()) {
        (Some((_, name)), None) if is_dns_label(&name, MAX_NAMESPACE) => {
            Place::Namespace(name.into_owned())
        }
        _ => Place::Served,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_a_deed() {
        let one = |key: &str| Place::One(key.parse().unwrap());
        let namespace = |name: &str| Place::Namespace(name.to_owned());
        let (get, list, delete) = (&["get"][..], &["list"][..], &["delete"][..]);
        for (method, uri, verbs, place) in [
            ("GET", "/functions", list, Place::Served),
            ("GET", "/functions/", list, Place::Served),
            ("HEAD", "/functions?namespace=a", list, namespace("a")),
            ("GET", "/functions?x=y&namespace=%61", list, namespace("a")),
            ("GET", "/functions?n%61mespace=a", list, namespace("a")),
            ("GET", "/functions?namespace=A", list, Place::Served),
            ("GET", "/functions?namespace=", list, Place::Served),
            (
                "GET",
                "/functions?namespace=a&namespace=b",
                list,
                Place::Served,
            ),
            ("GET", "/functions/sum", get, one("sum")),
            ("GET", "/functions/sum.math", get, one("sum.math")),
            ("GET", "/functions/sum/logs?follow=true", get, one("sum")),
            ("GET", "/functions/sum/build-log", get, one("sum")),
            ("GET", "/functions/s%75m", get, Place::Anywhere),
            ("PUT", "/functions/s%75m.math", APPLY, Place::Anywhere),
            ("PUT", "/functions/sum.math", APPLY, one("sum.math")),
            ("PUT", "/functions//sum", APPLY, one("sum")),
            ("PATCH", "/functions/sum", APPLY, one("sum")),
            ("DELETE", "/functions/sum", delete, one("sum")),
            ("POST", "/functions", APPLY, Place::Body),
            ("POST", "/functions/", APPLY, Place::Body),
            ("POST", "/functions/sum/logs", APPLY, one("sum")),
            ("GET", "/status", list, Place::Served),
            ("GET", "/metrics", list, Place::Served),
            ("GET", "/functionsum", list, Place::Served),
            ("POST", "/status", APPLY, Place::Served),
        ] {
            let deed = Deed::of(&method.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!(deed, Deed { verbs, place }, "{method} {uri}");
        }
    }
}

//! Which scope a request needs (pure). What is not known to be a look is a change.

use hyper::Method;

use super::token::Scope;
use crate::ingress::route::Route;

/// Nothing for what anybody may ask, so that load balancers can.
pub fn needed(method: &Method, route: &Route, path: &str) -> Option<Scope> {
    match route {
        Route::Call(_) | Route::Raw(..) => Some(Scope::Invoke),
        Route::Manage if method == Method::GET || method == Method::HEAD => match path {
            "/healthz" | "/readyz" | "/ping" => None,
            _ => Some(Scope::Read),
        },
        Route::Manage => Some(Scope::Deploy),
    }
}

/// Whether what is no call is the controller's to judge and to answer, at a gateway: all but what that tells of itself.
pub fn is_controllers(path: &str) -> bool {
    !matches!(path, "/healthz" | "/readyz" | "/ping" | "/metrics")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::route;

    #[test]
    fn every_route_has_its_scope() {
        let (read, invoke, deploy) = (Scope::Read, Scope::Invoke, Scope::Deploy);
        for (method, path, scope) in [
            ("GET", "/healthz", None),
            ("HEAD", "/readyz", None),
            ("GET", "/ping", None),
            ("POST", "/ping", Some(deploy)),
            ("GET", "/metrics", Some(read)),
            ("GET", "/status", Some(read)),
            ("GET", "/openapi.json", Some(read)),
            ("GET", "/functions", Some(read)),
            ("HEAD", "/functions/", Some(read)),
            ("GET", "/functions/sum", Some(read)),
            ("GET", "/functions/sum/logs?follow=true", Some(read)),
            ("GET", "/functions/sum/build-log", Some(read)),
            ("GET", "/functions/sum/events", Some(read)),
            ("GET", "/nothing/here", Some(read)),
            ("GET", "/function/", Some(read)),
            ("GET", "/healthz/", Some(read)),
            ("POST", "/functions", Some(deploy)),
            ("POST", "/functions/", Some(deploy)),
            ("PUT", "/functions/sum", Some(deploy)),
            ("DELETE", "/functions/sum", Some(deploy)),
            ("PATCH", "/functions/sum", Some(deploy)),
            ("OPTIONS", "/functions/sum", Some(deploy)),
            ("POST", "/functions/sum/logs", Some(deploy)),
            ("POST", "/functions/sum", Some(invoke)),
            ("POST", "/functions/sum.math/", Some(invoke)),
            ("GET", "/function/web", Some(invoke)),
            ("DELETE", "/function/web/healthz", Some(invoke)),
        ] {
            let method = method.parse().unwrap();
            let uri: hyper::Uri = path.parse().unwrap();
            let route = route::parse(&method, &uri).unwrap();
            let found = needed(&method, &route, uri.path());
            assert_eq!(found, scope, "{method} {path}");
        }
    }

    #[test]
    fn a_gateway_answers_for_itself() {
        for path in ["/healthz", "/readyz", "/ping", "/metrics"] {
            assert!(!is_controllers(path), "{path}");
        }
        for path in ["/status", "/functions", "/functions/a", "/healthz/", "/"] {
            assert!(is_controllers(path), "{path}");
        }
    }
}

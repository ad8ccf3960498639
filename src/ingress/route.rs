//! What a request's path means (pure). Paths are compared as they were sent: nothing is decoded or tidied, and what could
//! be read in two ways is refused.

use std::fmt::{self, Display, Formatter};

use hyper::{Method, Uri};

use crate::function::DEFAULT_NAMESPACE;

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A call in the envelope: `POST /functions/:name`.
    Call(Target),
    /// A call the raw way: `ANY /function/:name/*path`; with path and query for the function.
    Raw(Target, String),
    /// Everything else is the management API's.
    Manage,
}

/// The function that a call is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub namespace: String,
    pub name: String,
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)?;
        match self.namespace.as_str() {
            DEFAULT_NAMESPACE => Ok(()),
            namespace => write!(f, " in namespace {namespace:?}"),
        }
    }
}

/// Longest path that is looked at, in bytes.
const MAX_PATH: usize = 8 * 1024;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path is longer than {MAX_PATH} bytes")]
    TooLong,
    #[error(
        "a path must not have '.' or '..' segments, encoded slashes, backslashes or control characters"
    )]
    Ambiguous,
    #[error("a function's name is written as it is, without '%'")]
    EncodedName,
    #[error("the request must name a path only, not a whole URL or a tunnel")]
    AbsoluteForm,
}

/// Reads a path.
pub fn parse(method: &Method, uri: &Uri) -> Result<Route, PathError> {
    if uri.scheme().is_some() || uri.authority().is_some() || method == Method::CONNECT {
        return Err(PathError::AbsoluteForm);
    }
    let path = uri.path();
    check(path)?;
    if let Some(rest) = path.strip_prefix("/function/") {
        let (segment, tail) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        is_plain(segment)?;
        if segment.is_empty() {
            return Ok(Route::Manage);
        }
        return Ok(Route::Raw(target(segment), onward(tail, uri.query())));
    }
    // Whoever manages would decode it: what the audit says of a path is what it means.
    is_plain(path)?;
    if let Some(rest) = path.strip_prefix("/functions/")
        && method == Method::POST
    {
        let segment = rest.strip_suffix('/').unwrap_or(rest);
        if !segment.is_empty() && !segment.contains('/') {
            return Ok(Route::Call(target(segment)));
        }
    }
    Ok(Route::Manage)
}

/// `name` or `name.namespace`.
fn target(segment: &str) -> Target {
    let (name, namespace) = segment
        .split_once('.')
        .unwrap_or((segment, DEFAULT_NAMESPACE));
    Target {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// What the function sees.
fn onward(tail: &str, query: Option<&str>) -> String {
    let tail = if tail.is_empty() { "/" } else { tail };
    match query {
        Some(query) => format!("{tail}?{query}"),
        None => tail.to_owned(),
    }
}

fn is_plain(name: &str) -> Result<(), PathError> {
    if name.contains('%') {
        return Err(PathError::EncodedName);
    }
    Ok(())
}

fn check(path: &str) -> Result<(), PathError> {
    if path.len() > MAX_PATH {
        return Err(PathError::TooLong);
    }
    let is_plain = |b: u8| !matches!(b, b'%' | b'\\' | b'.') && !b.is_ascii_control();
    if path.bytes().all(is_plain) {
        return Ok(());
    }
    let encoded = path.contains('%') && {
        let lower = path.to_ascii_lowercase();
        ["%2f", "%5c", "%2e", "%00"]
            .iter()
            .any(|bad| lower.contains(bad))
    };
    let control = path.bytes().any(|b| b == b'\\' || b.is_ascii_control());
    let dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
    if encoded || control || dots {
        Err(PathError::Ambiguous)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str, namespace: &str) -> Target {
        Target {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    #[test]
    fn reads_paths_as_they_are() {
        let raw = |name, namespace, path: &str| Ok(Route::Raw(at(name, namespace), path.into()));
        for (method, uri, expected) in [
            (
                Method::POST,
                "/functions/sum",
                Ok(Route::Call(at("sum", "default"))),
            ),
            (
                Method::POST,
                "/functions/sum/",
                Ok(Route::Call(at("sum", "default"))),
            ),
            (
                Method::POST,
                "/functions/sum.math",
                Ok(Route::Call(at("sum", "math"))),
            ),
            (Method::POST, "/functions/", Ok(Route::Manage)),
            (Method::POST, "/functions", Ok(Route::Manage)),
            (Method::GET, "/functions/sum", Ok(Route::Manage)),
            (Method::POST, "/functions/sum/logs", Ok(Route::Manage)),
            (Method::GET, "/function/web", raw("web", "default", "/")),
            (
                Method::PUT,
                "/function/web.shop/a/b?c=d",
                raw("web", "shop", "/a/b?c=d"),
            ),
            (
                Method::GET,
                "/function/web//a",
                raw("web", "default", "//a"),
            ),
            (Method::GET, "/function/", Ok(Route::Manage)),
            (
                Method::GET,
                "/function/web/../etc",
                Err(PathError::Ambiguous),
            ),
            (
                Method::GET,
                "/function/web/%2E%2e/etc",
                Err(PathError::Ambiguous),
            ),
            (Method::POST, "/functions/a%2Fb", Err(PathError::Ambiguous)),
            (
                Method::GET,
                "http://other/function/web",
                Err(PathError::AbsoluteForm),
            ),
            (
                Method::CONNECT,
                "/function/web",
                Err(PathError::AbsoluteForm),
            ),
        ] {
            let parsed = parse(&method, &uri.parse().unwrap());
            assert_eq!(parsed, expected, "{method} {uri}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_and_what_a_function_sees_is_its_own() {
        for (method, uri) in [
            (Method::POST, "/functions/%73um"),
            (Method::DELETE, "/functions/%73um"),
            (Method::GET, "/function/%73um/a"),
        ] {
            let parsed = parse(&method, &uri.parse().unwrap());
            assert_eq!(parsed, Err(PathError::EncodedName), "{method} {uri}");
        }
        let parsed = parse(&Method::GET, &"/function/sum/%73".parse().unwrap());
        assert_eq!(parsed, Ok(Route::Raw(at("sum", "default"), "/%73".into())));
    }

    #[test]
    fn targets_are_named_as_they_were_asked_for() {
        assert_eq!(at("sum", "default").to_string(), r#""sum""#);
        assert_eq!(at("sum", "v1").to_string(), r#""sum" in namespace "v1""#);
    }

    #[test]
    fn refuses_overlong_paths() {
        let uri = format!("/function/web/{}", "a".repeat(MAX_PATH))
            .parse()
            .unwrap();
        assert_eq!(parse(&Method::GET, &uri), Err(PathError::TooLong));
    }
}

//! Who may speak to a listener (pure): programs on this machine, not web pages that a browser on it shows.

use std::net::{IpAddr, Ipv6Addr};

use hyper::{
    HeaderMap,
    header::{HOST, HeaderName, HeaderValue, ORIGIN, TRANSFER_ENCODING},
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is refused before anything looks at it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "a request must have exactly one Host header: a name or an address (one of IPv6 in brackets), and a port or none"
    )]
    Host,
    #[error(
        "a request must be readable in one way: lines end with CR and LF, the target has no '#', and the body ends by one \
         Content-Length or by Transfer-Encoding: chunked, and nothing else"
    )]
    Framing,
    #[error(
        "a request must have at most one Origin header and one Sec-Fetch-Site header: which page asks must be clear"
    )]
    Page,
    #[error("host {0:?} is not this server: use localhost or the address that it listens on")]
    ForeignHost(String),
    #[error("requests from the web page {0:?} are refused")]
    ForeignOrigin(String),
    #[error("only calls are taken from a web page, also from one that a function answered")]
    OwnPage,
}

impl Refusal {
    /// Word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Host | Self::Framing | Self::Page => "BadRequest",
            Self::ForeignHost(_) => "ForeignHost",
            Self::ForeignOrigin(_) | Self::OwnPage => "ForeignOrigin",
        }
    }
}

/// Judges a request's headers. A listener that is `local`, on loopback, goes by local names alone; another one may have any, and asks
/// for a token that no page can send along.
///
/// A browser sends `Origin` or `Sec-Fetch-Site` whenever a page of another site is behind a request, and a page that
/// rebinds its own DNS name to 127.0.0.1 still sends that name as `Host`.
pub fn judge(headers: &HeaderMap, local: bool) -> Result<(), Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = codings
        .next()
        .is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !chunked || codings.next().is_some() {
        return Err(Refusal::Framing);
    }
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Refusal::Host);
    };
    let host = host.to_str().map_err(|_| Refusal::Host)?;
    let name = name(host).ok_or(Refusal::Host)?;
    if local && !is_local(name) {
        return Err(Refusal::ForeignHost(host.to_owned()));
    }
    if let Some(origin) = one(headers, &ORIGIN)?
        && !is_same(origin, host)
    {
        return Err(Refusal::ForeignOrigin(text(origin)));
    }
    match one(headers, &SEC_FETCH_SITE)? {
        None => Ok(()),
        Some(site) if site == "same-origin" || site == "none" => Ok(()),
        Some(site) => Err(Refusal::ForeignOrigin(text(site))),
    }
}

/// Refuses a request that a page is behind, be it one of this server's own: functions answer pages, and what a page asks for
/// it asks for in the name of whoever looks at it. To be asked where not a call is meant.
pub fn judge_management(headers: &HeaderMap) -> Result<(), Refusal> {
    let by_page = headers
        .get(SEC_FETCH_SITE)
        .is_some_and(|site| site != "none");
    if by_page || headers.contains_key(ORIGIN) {
        return Err(Refusal::OwnPage);
    }
    Ok(())
}

/// What a header says of the page that asks. Browsers send each once; of two, whoever else reads them could take the other.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Refusal::Page),
        (value, None) => Ok(value),
    }
}

/// The name or the address that a Host says, without brackets and port. In anything else, others may see another name.
fn name(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest
            .split_once(']')
            .filter(|(address, _)| address.parse::<Ipv6Addr>().is_ok()),
        None => host
            .split_at_checked(host.find(':').unwrap_or(host.len()))
            .filter(|(name, _)| is_name(name)),
    }?;
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(name)
}

fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

/// Whether it is a port's number, or none, which is the usual one.
fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a name or an address is this machine's loopback.
fn is_local(name: &str) -> bool {
    if name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
        return true;
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    last.eq_ignore_ascii_case("localhost")
}

fn is_same(origin: &HeaderValue, host: &str) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
        == Some(host)
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(headers: &[(&'static str, &str)]) -> Result<(), &'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        judge(&map, true).map_err(|refusal| refusal.code())
    }

    #[test]
    fn elsewhere_any_name_is_good_and_pages_stay_out() {
        let verdict = |headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, value.parse().unwrap())
            });
            judge(&headers.collect(), false).map_err(|refusal| refusal.code())
        };
        let host = ("host", "faas.example");
        assert_eq!(verdict(&[host]), Ok(()));
        assert_eq!(verdict(&[]), Err("BadRequest"));
        assert_eq!(verdict(&[host, ("origin", "https://faas.example")]), Ok(()));
        for page in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
        ] {
            assert_eq!(verdict(&[host, page]), Err("ForeignOrigin"), "{page:?}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port_or_none() {
        for no_host in [
            "localhost:abc",
            "localhost:1:2",
            "localhost:+1",
            "localhost:123456",
            "",
            ":80",
            "[::1]x",
            "[::1",
            "[]",
            "[127.0.0.1]",
            "[localhost]",
            "::1",
            "evil.example#.localhost",
            "evil.example/x.localhost",
            "evil.example?.localhost",
            "evil.example\\.localhost",
            "evil.example@localhost",
            "evil.example,localhost",
            "evil.example .localhost",
            "evil.example%23.localhost",
            "[::1]evil.example]",
            "[::1].evil.example]:80",
            "[evil.localhost",
        ] {
            let headers = [("host", no_host)];
            assert_eq!(verdict(&headers), Err("BadRequest"), "{no_host}");
            let map = HeaderMap::from_iter([(HOST, no_host.parse().unwrap())]);
            assert_eq!(judge(&map, false), Err(Refusal::Host), "{no_host}");
        }
    }

    #[test]
    fn a_page_is_named_once() {
        let host = ("host", "localhost:5555");
        for (name, value) in [
            ("origin", "http://localhost:5555"),
            ("sec-fetch-site", "same-origin"),
        ] {
            for other in [value, "http://evil.example", "cross-site"] {
                for fields in [
                    [(name, value), (name, other)],
                    [(name, other), (name, value)],
                ] {
                    let [one, two] = fields;
                    assert_eq!(verdict(&[host, one, two]), Err("BadRequest"), "{fields:?}");
                }
            }
        }
    }

    #[test]
    fn no_page_manages() {
        let verdict = |headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, value.parse().unwrap())
            });
            judge_management(&headers.collect()).map_err(|refusal| refusal.code())
        };
        assert_eq!(verdict(&[("host", "localhost")]), Ok(()));
        assert_eq!(verdict(&[("sec-fetch-site", "none")]), Ok(()));
        for page in [
            ("origin", "http://localhost:5555"),
            ("origin", "null"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "cross-site"),
        ] {
            assert_eq!(verdict(&[page]), Err("ForeignOrigin"), "{page:?}");
        }
    }

    #[test]
    fn lets_programs_in_and_pages_out() {
        for local in [
            "localhost:5555",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]:5555",
            "faas.localhost",
            "LOCALHOST",
            "localhost:",
            "[::1]",
        ] {
            assert_eq!(verdict(&[("host", local)]), Ok(()), "{local}");
        }
        for foreign in [
            "evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1:5555",
            "[::2]",
            "evil_2.example",
            "localhost.evil.example",
        ] {
            assert_eq!(
                verdict(&[("host", foreign)]),
                Err("ForeignHost"),
                "{foreign}"
            );
        }
        assert_eq!(verdict(&[]), Err("BadRequest"));
        assert_eq!(
            verdict(&[("host", "localhost"), ("host", "localhost")]),
            Err("BadRequest")
        );
        let host = ("host", "localhost:5555");
        assert_eq!(
            verdict(&[host, ("origin", "http://localhost:5555")]),
            Ok(())
        );
        assert_eq!(
            verdict(&[host, ("origin", "http://localhost:3000")]),
            Err("ForeignOrigin")
        );
        assert_eq!(verdict(&[host, ("origin", "null")]), Err("ForeignOrigin"));
        assert_eq!(verdict(&[host, ("sec-fetch-site", "none")]), Ok(()));
        assert_eq!(
            verdict(&[host, ("sec-fetch-site", "cross-site")]),
            Err("ForeignOrigin")
        );
        assert_eq!(
            verdict(&[host, ("sec-fetch-site", "same-site")]),
            Err("ForeignOrigin")
        );
    }
}

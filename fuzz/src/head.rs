//! The head of a request → whether it is taken, and what its path means.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll, Waker},
    time::Instant,
};

use axum::body::Body;
use faas::{
    function::FunctionKey,
    ingress::{
        MAX_FIELDS, MAX_HEAD,
        framing::{Fault, Framing},
        guard,
        reply::{CallError, ERROR_HEADER, Style},
        route::{self, PathError, Route, Target},
    },
};
use futures::FutureExt;
use http_body_util::BodyExt;
use hyper::{
    Request, Response, Uri, Version,
    body::{Body as _, Incoming},
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};

/// What we decide about a request by its head.
#[derive(Debug, PartialEq)]
enum Verdict {
    Refused(guard::Refusal),
    BadPath(PathError),
    Taken(Route, Taken),
}

/// How a request that is taken was understood.
#[derive(Debug, PartialEq)]
struct Taken {
    version: Version,
    has_body: bool,
    /// Size of the body, where it is said.
    size: Option<u64>,
}

/// The bytes are what comes on a connection.
pub fn check(bytes: &[u8]) {
    let verdicts = judge(bytes, bytes.len().max(1));
    for piece in [1, 2 + bytes.len() % 7] {
        assert_eq!(judge(bytes, piece), verdicts, "in pieces of {piece}");
    }
    for verdict in &verdicts {
        check_answer(verdict);
        if let Verdict::Taken(route, _) = verdict {
            check_route(route);
        }
    }
    if let Some(Verdict::Taken(_, taken)) = verdicts.first() {
        check_framing(bytes, taken);
    }
    let fields = bytes.splitn(2, |byte| *byte == b'\n').nth(1);
    let ways = ["functions", "function"].map(|way| {
        let line = format!("POST /{way}/sum HTTP/1.1\r\n");
        [line.as_bytes(), fields.unwrap_or_default()].concat()
    });
    let [call, raw] = ways.map(|head| judge(&head, head.len()));
    match (call.first(), raw.first()) {
        (Some(Verdict::Taken(_, call)), Some(Verdict::Taken(_, raw))) => assert_eq!(call, raw),
        (call, raw) => assert_eq!(call, raw, "both ways are judged alike"),
    }
}

/// As a listener does: the server below us reads requests, and we look on.
fn judge(bytes: &[u8], piece: usize) -> Vec<Verdict> {
    let framing = Mutex::new(Framing::default());
    let verdicts = Mutex::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| {
        let mut verdicts = verdicts.lock().expect("one thread");
        verdicts.push(decide(&request));
        // Byte by byte the server sees a head as soon as we do.
        if piece == 1 {
            let heads = framing.lock().expect("one thread").heads();
            assert_eq!(heads, verdicts.len() as u64, "both see the same requests");
        }
        // Of a body that nobody reads it depends on the pieces whether the connection can go on behind it.
        let body = request.into_body().collect();
        async move {
            let _ = body.await;
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    });
    let mut answer = Vec::new();
    let wire = Wire {
        left: bytes,
        piece,
        framing: &framing,
        answer: &mut answer,
    };
    let mut connection = http1::Builder::new()
        .half_close(true)
        .max_headers(MAX_FIELDS)
        .max_header_size(MAX_HEAD)
        .serve_connection(wire, service);
    let mut context = Context::from_waker(Waker::noop());
    while connection.poll_unpin(&mut context).is_pending() {}
    drop(connection);
    let verdicts = verdicts.into_inner().expect("one thread");
    if verdicts.is_empty() {
        check_own_answer(&answer);
    }
    verdicts
}

fn decide(request: &Request<Incoming>) -> Verdict {
    if let Err(refusal) = guard::judge(request.headers(), true) {
        return Verdict::Refused(refusal);
    }
    match route::parse(request.method(), request.uri()) {
        Err(error) => Verdict::BadPath(error),
        Ok(route) => {
            let taken = Taken {
                version: request.version(),
                has_body: !request.body().is_end_stream(),
                size: request.body().size_hint().exact(),
            };
            Verdict::Taken(route, taken)
        }
    }
}

/// What the server below us says by itself is what `headless` has better words for. It says nothing to what comes in half,
/// nor to HTTP/2.
fn check_own_answer(answer: &[u8]) {
    let known = ["HTTP/1.1 400 ", "HTTP/1.1 431 "];
    let is_known = |begin: &&str| answer.starts_with(begin.as_bytes());
    assert!(answer.is_empty() || known.iter().any(is_known));
}

/// A refusal is an answer in our one shape.
fn check_answer(verdict: &Verdict) {
    let error = match verdict {
        Verdict::Refused(refusal) => CallError::from(refusal.clone()),
        Verdict::BadPath(error) => CallError::from(*error),
        Verdict::Taken(Route::Call(target) | Route::Raw(target, _), _) => {
            CallError::NotFound(target.clone())
        }
        Verdict::Taken(Route::Manage, _) => return,
    };
    let answer: Response<Body> = error.response(Style::Raw, Instant::now());
    assert!(answer.status().is_client_error());
    let code = answer.headers()[ERROR_HEADER]
        .to_str()
        .expect("a word")
        .to_owned();
    let body = answer.into_body().collect().now_or_never();
    let body = body.expect("it is there").expect("it is whole").to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["code"], code);
    assert!(body["message"].is_string());
}

fn check_route(route: &Route) {
    let target = match route {
        Route::Manage => return,
        Route::Call(target) => target,
        Route::Raw(target, path) => {
            check_onward(path);
            target
        }
    };
    check_target(target);
}

/// What no Function can be called still is one segment of a path, and finds none.
fn check_target(target: &Target) {
    for part in [&target.name, &target.namespace] {
        let odd = |c: char| c.is_control() || matches!(c, '/' | '\\' | '\0');
        assert!(!part.contains(odd), "{target:?}");
    }
    assert!(!target.name.contains('.'));
    if let Ok(key) = FunctionKey::new(&target.namespace, &target.name) {
        let url = format!("/function/{}", key.url_segment());
        let again = route::parse(&hyper::Method::GET, &url.parse().expect("a path"));
        assert_eq!(again, Ok(Route::Raw(target.clone(), "/".into())));
    }
}

/// What the function sees can be sent, is all of it, and climbs nowhere.
fn check_onward(path: &str) {
    let uri: Uri = path.parse().expect("a path and query");
    assert!(uri.scheme().is_none() && uri.authority().is_none());
    assert_eq!(uri.to_string(), path);
    let path = uri.path().to_ascii_lowercase();
    for segment in path.split('/') {
        assert!(!matches!(segment, "." | ".."), "{path:?}");
    }
    for hidden in ["%2e", "%2f", "%5c", "%00", "\\", "\0"] {
        assert!(!path.contains(hidden), "{path:?}");
    }
}

/// The head as it was sent says once where the body ends, and that is what was understood.
fn check_framing(bytes: &[u8], taken: &Taken) {
    let lengths = values(bytes, "content-length");
    let codings = values(bytes, "transfer-encoding");
    assert!(lengths.is_empty() || codings.is_empty());
    let first = lengths.first().map(|length| {
        let size: u64 = length.parse().expect("a number");
        size
    });
    for length in &lengths {
        assert_eq!(length.parse().ok(), first, "one length");
    }
    assert!(codings.len() <= 1);
    if let Some(coding) = codings.first() {
        assert!(coding.eq_ignore_ascii_case("chunked"), "{coding:?}");
        assert_eq!((taken.version, taken.size), (Version::HTTP_11, None));
    } else {
        assert_eq!(taken.size, Some(first.unwrap_or(0)));
        assert_eq!(taken.has_body, first.is_some_and(|size| size > 0));
    }
}

/// The values of all fields of this name, read as plainly as can be.
fn values(bytes: &[u8], name: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .skip_while(|line| line.is_empty())
        .skip(1)
        .take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| line.split_once(':'))
        .filter(|(field, _)| field.trim().eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

/// A connection on which some bytes come, and then no more.
struct Wire<'a> {
    left: &'a [u8],
    piece: usize,
    framing: &'a Mutex<Framing>,
    answer: &'a mut Vec<u8>,
}

impl Read for Wire<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let size = self.piece.min(self.left.len()).min(buf.remaining());
        let (come, left) = self.left.split_at(size);
        let mut come = come.to_vec();
        let broken = || Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        let mut framing = self.framing.lock().expect("one thread");
        if framing.fault() == Some(Fault::Body) {
            return broken();
        }
        match framing.read(&come) {
            Some((0, Fault::Body)) => return broken(),
            Some((at, Fault::Body)) => come.truncate(at),
            Some((at, Fault::Head)) => come[at..].fill(0),
            None => {}
        }
        drop(framing);
        buf.put_slice(&come);
        self.left = left;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().answer.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

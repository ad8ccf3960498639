//! One call's way to an instance and back: lease → connection → request → answer. No engine, disk or store, and no lock
//! that other functions share.

use std::{
    error::Error,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, Version,
    body::Incoming,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, TRANSFER_ENCODING},
};
use tokio::time::timeout;

use super::{
    answer::{Answer, Cut, TimedOut},
    arriving::Arriving,
    body::{self, Bounded, Deadline, Owed},
    envelope::envelope,
    reply::{self, CallError, ERROR_HEADER},
    requests::Running,
    route::Target,
    sending::Sending,
};
use crate::{
    plan::Manners,
    pool::{
        Instance, Lease, Pool, Pools,
        connection::{Connection, MAX_FIELDS, MAX_HEAD, RequestBody, SendError, is_shortage},
    },
    runtime::Address,
};

/// Largest answer that fits into an envelope.
const MAX_ENVELOPE: u64 = 16 << 20;
/// Least time that a caller has for taking an envelope.
const TAKEN: Duration = Duration::from_secs(10);
/// Which pod a request is for. Shims know their own, and answer 421 to what is for another.
const INSTANCE_HEADER: &str = "x-faas-instance";
/// Longest wait for a server that has just begun to know which functions there are.
const BEGIN: Duration = Duration::from_secs(10);
/// Instances that are tried before a call that no instance has seen is given up.
const ATTEMPTS: usize = 3;

/// `POST /functions/:name`: the input in, `{"response": "..."}` out. `running` is told when the answer must be through.
pub async fn call(
    pools: &Pools,
    target: &Target,
    request: Request<Arriving>,
    running: &Running,
) -> Result<Response<Body>, CallError> {
    let (parts, body) = request.into_parts();
    let mut onward = Request::new(());
    *onward.method_mut() = Method::POST;
    *onward.uri_mut() = Uri::from_static("/invoke");
    for name in [HOST, reply::REQUEST_ID, CONTENT_LENGTH] {
        if let Some(value) = parts.headers.get(&name) {
            onward.headers_mut().insert(name, value.clone());
        }
    }
    onward
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut body = Bounded::new(body)?;
    body.gather().await?;
    let answer = send(pools, target, onward, body).await?;
    let (head, mut body) = answer.into_parts();
    let limit = usize::try_from(MAX_ENVELOPE).unwrap_or(usize::MAX);
    let result = match Limited::new(&mut body, limit).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Err(cut_off(&*error, body).await),
    };
    if head.status.is_success() {
        let end = body.end().max(Instant::now() + TAKEN);
        drop(body);
        let answer = envelope(result).await?;
        running.must_end(end);
        return Ok(answer);
    }
    let message = reply::failure_message(&result, head.status);
    let bad_input = head.status == StatusCode::BAD_REQUEST
        && head
            .headers
            .get(ERROR_HEADER)
            .is_some_and(|code| code == "BadInput");
    Err(if bad_input {
        CallError::BadInput(message)
    } else {
        CallError::FunctionFailed(message)
    })
}

/// Why an answer could not be read to its end.
async fn cut_off(error: &(dyn Error + Send + Sync + 'static), answer: Answer) -> CallError {
    match error.downcast_ref::<Cut>() {
        Some(Cut::Timeout(timed_out)) => {
            drop(answer);
            timed_out.clone().told(false).await
        }
        Some(Cut::Broken(error)) => {
            body::garbled(error).map_or(CallError::InstanceLost, CallError::BadResponse)
        }
        None => CallError::ResponseTooLarge {
            limit: MAX_ENVELOPE,
        },
    }
}

/// `ANY /function/:name/*path`: everything through, both ways, but what belongs to one connection: the version is ours on
/// one side, and on the other the server answers in the caller's. `running` is told when the answer must be through.
pub async fn raw(
    pools: &Pools,
    target: &Target,
    path: &str,
    request: Request<Arriving>,
    running: &Running,
) -> Result<Response<Body>, CallError> {
    let (mut parts, body) = request.into_parts();
    parts.uri = path
        .parse()
        .map_err(|_| super::route::PathError::Ambiguous)?;
    parts.version = Version::HTTP_11;
    reply::strip_hop_by_hop(&mut parts.headers);
    let body = Bounded::new(body)?;
    let mut answer = send(pools, target, Request::from_parts(parts, ()), body).await?;
    if let Err(cut) = answer.body_mut().begin() {
        return Err(cut_off(&cut, answer.into_body()).await);
    }
    *answer.version_mut() = Version::HTTP_11;
    reply::strip_hop_by_hop(answer.headers_mut());
    // By it callers know answers that are no function's.
    answer.headers_mut().remove(ERROR_HEADER);
    running.must_end(answer.body().end());
    Ok(answer.map(Body::new))
}

/// Leases an instance and sends it the request. What no instance has seen a byte of is sent to another one.
async fn send(
    pools: &Pools,
    target: &Target,
    head: Request<()>,
    body: Bounded,
) -> Result<Response<Answer>, CallError> {
    let pool = pool(pools, target).await?;
    let arrived = Instant::now();
    let mut lease = leased(&pool, arrived).await?;
    let owed = body.owed();
    let mut request = Box::new(with_body(head, body));
    for _ in 1..ATTEMPTS {
        match exchange(lease, request, &owed).await {
            Ok(answer) => return Ok(answer),
            Err(Unsent::Over(error)) => return Err(error),
            Err(Unsent::Again(unsent)) => request = unsent,
        }
        lease = leased(&pool, arrived).await?;
    }
    match exchange(lease, request, &owed).await {
        Ok(answer) => Ok(answer),
        Err(Unsent::Over(error)) => Err(error),
        Err(Unsent::Again(_)) => Err(CallError::InstanceLost),
    }
}

/// The function's pool. A server that has just begun need not know of it yet.
async fn pool(pools: &Pools, target: &Target) -> Result<Arc<Pool>, CallError> {
    let get = || pools.get(&target.namespace, &target.name);
    if let Some(pool) = get() {
        return Ok(pool);
    }
    if timeout(BEGIN, pools.complete()).await.is_err() {
        return Err(CallError::NotKnown);
    }
    get().ok_or_else(|| CallError::NotFound(target.clone()))
}

async fn leased(pool: &Arc<Pool>, arrived: Instant) -> Result<Lease, CallError> {
    pool.lease()
        .await
        .map_err(|e| CallError::lease(e, arrived.elapsed()))
}

fn with_body(head: Request<()>, body: Bounded) -> Request<RequestBody> {
    head.map(|()| body.boxed_unsync())
}

/// A call without an answer.
enum Unsent {
    /// No byte of it has reached the function.
    Again(Box<Request<RequestBody>>),
    Over(CallError),
}

/// One try with one instance.
async fn exchange(
    mut lease: Lease,
    mut request: Box<Request<RequestBody>>,
    owed: &Owed,
) -> Result<Response<Answer>, Unsent> {
    let mut deadline = Deadline::new(lease.route.timeout);
    let keep = lease.route.manners == Manners::Stays;
    set_connection(request.headers_mut(), keep);
    name_instance(request.headers_mut(), &lease.instance.address);
    let connections = &lease.instance.connections;
    let mut kept = keep.then(|| connections.take(deadline.began)).flatten();
    loop {
        let was_kept = kept.is_some();
        let connection = match kept.take() {
            Some(connection) => connection,
            None => match open(&lease.instance).await {
                Ok(connection) => connection,
                Err(error) => return Err(unreached(&lease, error, request)),
            },
        };
        let sending = Sending::new(connection, lease, deadline, *request);
        let (outcome, connection);
        (outcome, connection, lease, deadline) = sending.await;
        match outcome {
            None => {
                drop(connection);
                return Err(Unsent::Over(late(lease, &deadline, owed).await));
            }
            Some(Ok(answer)) if is_anothers(&answer, &lease.instance.address) => {
                lease.broke();
                return Err(Unsent::Over(CallError::InstanceLost));
            }
            Some(Ok(answer)) => {
                if let Some(why) = no_answer(&answer) {
                    lease.condemn();
                    return Err(Unsent::Over(CallError::BadResponse(why)));
                }
                lease.answered();
                return Ok(answer.map(|body| Answer::new(body, connection, keep, lease, deadline)));
            }
            // A kept connection that was closed in the meantime; a new one tells whether the instance lives.
            Some(Err(SendError {
                unsent: Some(unsent),
                ..
            })) if was_kept => request = unsent,
            Some(Err(SendError {
                unsent: Some(unsent),
                ..
            })) => {
                lease.broke();
                return Err(Unsent::Again(unsent));
            }
            Some(Err(SendError {
                unsent: None,
                error,
            })) => {
                drop(connection);
                return Err(Unsent::Over(lost(lease, &error).await));
            }
        }
    }
}

async fn open(instance: &Instance) -> io::Result<Connection> {
    Connection::open(&instance.address, &instance.gone).await
}

fn set_connection(headers: &mut HeaderMap, keep: bool) {
    if !keep {
        headers.insert("connection", HeaderValue::from_static("close"));
    }
}

/// Says which pod is meant: its address may have become another's.
fn name_instance(headers: &mut HeaderMap, address: &Address) {
    if let Some(uid) = address.uid()
        && let Ok(uid) = HeaderValue::from_str(uid)
    {
        headers.insert(INSTANCE_HEADER, uid);
    }
}

/// Whether it was another pod that answered, and did nothing.
fn is_anothers(answer: &Response<Incoming>, address: &Address) -> bool {
    answer.status() == StatusCode::MISDIRECTED_REQUEST
        && address.uid().is_some()
        && answer
            .headers()
            .get(ERROR_HEADER)
            .is_some_and(|code| code == "Misdirected")
}

/// Why a caller cannot be given this: it speaks of another connection than his, or of another end than it has.
fn no_answer(answer: &Response<Incoming>) -> Option<String> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Some("101, and nothing asked for another protocol".to_owned());
    }
    let headers = answer.headers();
    if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
        return Some("it has a Content-Length and a Transfer-Encoding".to_owned());
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let other = codings.find(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))?;
    Some(format!(
        "Transfer-Encoding {other:?}, and only chunked is known"
    ))
}

/// There is no connection to the instance.
fn unreached(lease: &Lease, error: io::Error, request: Box<Request<RequestBody>>) -> Unsent {
    if is_shortage(&error) {
        return Unsent::Over(CallError::Shortage(error));
    }
    tracing::debug!(instance = %lease.instance.id, %error, "Instance refused a connection");
    lease.broke();
    Unsent::Again(request)
}

/// The function may have seen the request and gave no answer.
async fn lost(lease: Lease, error: &hyper::Error) -> CallError {
    if error.is_user() {
        drop(lease);
        return body::broken(error).await;
    }
    lease.broke();
    if error.is_parse_too_large() {
        let why = format!(
            "its head is larger than {} KiB, or has more than {MAX_FIELDS} fields",
            MAX_HEAD >> 10
        );
        return CallError::BadResponse(why);
    }
    if error.is_parse() {
        return CallError::BadResponse(error.to_string());
    }
    CallError::InstanceLost
}

/// The time is over before there is an answer. That some of the request did not come is its caller's doing; but nobody knows
/// whether the function waits for it, or works on.
async fn late(lease: Lease, deadline: &Deadline, owed: &Owed) -> CallError {
    let owed = owed.is_so();
    let timed_out = TimedOut::condemn(&lease, deadline);
    drop(lease);
    timed_out.told(owed).await
}

//! The way in: connections, and for each request route → lease → proxy → reply.
//!
//! The accept loop is our own, because a server that faces clients needs bounds that a framework's default has not: a
//! limit of connections below the descriptor limit, health that answers beyond it, a time limit for a request's head.

mod accept;
mod answer;
pub mod arriving;
pub mod body;
mod connections;
pub mod door;
mod envelope;
pub mod framing;
pub mod guard;
mod headless;
mod ids;
pub mod passed;
mod peer;
mod places;
pub mod proxy;
pub mod reply;
pub mod requests;
pub mod route;
mod sending;
mod timed;
mod wire;

use std::{
    convert::Infallible,
    net::{self, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Body};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime::Handle};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tower::ServiceExt;

use self::{
    accept::{hand_over, pause_after},
    arriving::Arriving,
    connections::Connections,
    door::{Caller, Door, Pass, Scope},
    ids::Ids,
    places::Room,
    reply::{CallError, ERROR_HEADER, REQUEST_ID, Style},
    requests::{Answering, Requests, Running},
    route::Route,
    timed::Timed,
    wire::Wire,
};
use crate::{access::audit::Change, pool::Pools, telemetry::Metrics, workers::Workers};

/// Largest head of a request.
pub const MAX_HEAD: usize = 64 << 10;
/// Most fields of a request's head: as many as hyper takes unless it is told otherwise, which would cost each call.
pub const MAX_FIELDS: usize = 100;
/// Time in which an answer of management is taken, unless it follows a log.
const TAKEN: Duration = Duration::from_secs(60);
/// Serves requests; shared by all connections.
pub struct Ingress {
    pools: Arc<Pools>,
    management: Router,
    /// Where management runs, so that it holds up no call.
    control: Handle,
    /// Where connections live.
    workers: Workers,
    metrics: Arc<Metrics>,
    ids: Arc<Ids>,
    /// No connection outlasts the request that it has.
    leaving: AtomicBool,
    /// Requests that came nevertheless.
    late: AtomicUsize,
}

impl Ingress {
    /// `management` answers what is not a call, on the runtime that this is called on.
    pub fn new(
        pools: Arc<Pools>,
        management: Router,
        metrics: Arc<Metrics>,
        workers: Workers,
    ) -> Arc<Self> {
        Arc::new(Self {
            pools,
            management,
            control: Handle::current(),
            workers,
            metrics,
            ids: Arc::new(Ids::new()),
            leaving: AtomicBool::new(false),
            late: AtomicUsize::new(0),
        })
    }

    /// Accepts connections until `stop`, then lets requests finish. Ends when all have; the caller sets the deadline.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        door: Door,
        limit: usize,
        stop: CancellationToken,
    ) {
        let door = Arc::new(door);
        let mut connections = Connections::new(limit);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
                Ok((stream, peer)) => self.admit(stream, peer, &door, &mut connections),
                Err(error) => pause_after(&error).await,
            }
        }
        for (stream, peer) in accept::last(listener) {
            self.admit(stream, peer, &door, &mut connections);
        }
        connections.end(&self).await;
    }

    /// Gives a connection its worker.
    fn admit(
        self: &Arc<Self>,
        stream: net::TcpStream,
        peer: SocketAddr,
        door: &Arc<Door>,
        connections: &mut Connections,
    ) {
        let worker = self.workers.next();
        let Ok(stream) = hand_over(stream, worker) else {
            return;
        };
        // A small answer must not wait for the acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "No TCP_NODELAY");
        }
        let wire = Wire::new(stream, door.tls.as_deref());
        let caller = Caller::new(Arc::clone(door), peer.ip().to_canonical());
        self.hold(wire, caller, worker, connections);
    }

    /// Gives a connection its place. Beyond the limit the oldest one there makes room.
    fn hold(
        self: &Arc<Self>,
        wire: Wire,
        caller: Caller,
        worker: &Handle,
        connections: &mut Connections,
    ) {
        let permit = connections.places.take();
        let beyond = permit.is_none().then_some(connections.places.limit);
        let peer = caller.origin.peer;
        let room = connections.places.room();
        let connection = Arc::clone(self).connection(wire, room, caller, beyond);
        let connection = connections.graceful.watch(connection);
        let task = async move {
            let _permit = permit;
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "Connection ended");
            }
        };
        let task = connections.running.spawn_on(task, worker);
        if beyond.is_some() {
            connections.places.squeeze_in(task.abort_handle());
        }
    }

    /// One connection's requests. What is `beyond` the limit of connections is refused.
    fn connection(
        self: Arc<Self>,
        wire: Wire,
        room: Room,
        caller: Caller,
        beyond: Option<usize>,
    ) -> http1::Connection<
        TokioIo<Timed>,
        impl hyper::service::HttpService<
            Incoming,
            ResBody = Answering,
            Error = Infallible,
            Future: Send,
        >,
    > {
        let requests = Requests::default();
        let (ids, metrics) = (Arc::clone(&self.ids), Arc::clone(&self.metrics));
        let stream = Timed::new(wire, requests.clone(), room, ids, metrics);
        let service = service_fn(move |request: Request<Incoming>| {
            let running = requests.begin();
            let (this, caller) = (Arc::clone(&self), caller.clone());
            async move {
                let response = this.answer(request, &caller, &running, beyond).await;
                Ok::<_, Infallible>(running.until(response))
            }
        });
        http1::Builder::new()
            // `Timed` keeps the time.
            .header_read_timeout(None)
            // A caller that sends no more gets its answer; one that has left is noticed by `Timed`.
            .half_close(true)
            .max_header_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
    }

    /// One request's answer, which says whether it is the last of its connection.
    async fn answer(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
        running: &Running,
        beyond: Option<usize>,
    ) -> Response<Body> {
        let (mut request, remains) = Arriving::follow(request);
        let id = self.ids.identify(request.headers_mut());
        let mut response = match beyond {
            Some(limit) => self.refuse(request.uri().path(), limit),
            None => self.respond(request, &id, caller, running).await,
        };
        response.headers_mut().insert(REQUEST_ID, id);
        let is_leaving = self.leaving.load(Ordering::Relaxed);
        if is_leaving {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        if is_leaving || beyond.is_some() || !remains.are_none().await {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }

    async fn respond(
        &self,
        mut request: Request<Arriving>,
        id: &HeaderValue,
        caller: &Caller,
        running: &Running,
    ) -> Response<Body> {
        // What is passed on is noted where it is judged.
        let change = match caller.door.scope {
            Scope::Gateway => None,
            _ => Change::asked_by(&mut request, caller.origin.peer, id),
        };
        let local = caller.door.local;
        let response = match guard::judge(request.headers(), local) {
            Ok(()) => self.dispatch(request, caller, running).await,
            Err(refusal) => self.tell(&refusal.into(), Style::Raw),
        };
        if let Some(change) = change {
            change.ended(&response);
        }
        response
    }

    async fn dispatch(
        &self,
        mut request: Request<Arriving>,
        caller: &Caller,
        running: &Running,
    ) -> Response<Body> {
        let route = match route::parse(request.method(), request.uri()) {
            Ok(route) => route,
            Err(error) => return self.tell(&error.into(), Style::Raw),
        };
        if route == Route::Manage
            && let Err(refusal) = guard::judge_management(request.headers())
        {
            return self.tell(&refusal.into(), Style::Raw);
        }
        let admitted = match route {
            Route::Manage => caller.admit_management(&mut request).await,
            Route::Call(_) | Route::Raw(..) => caller.admit(&mut request),
        };
        if let Err(denied) = admitted {
            return self.tell(&denied.into(), Style::Raw);
        }
        match (route, &caller.door.scope) {
            (Route::Call(target), Scope::All | Scope::Invoke | Scope::Gateway) => {
                let busy = self.arrive();
                let outcome = proxy::call(&self.pools, &target, request, running).await;
                self.finish(outcome, Style::Envelope, busy)
            }
            (Route::Raw(target, path), Scope::All | Scope::Invoke | Scope::Gateway) => {
                let busy = self.arrive();
                let outcome = proxy::raw(&self.pools, &target, &path, request, running).await;
                self.finish(outcome, Style::Raw, busy)
            }
            (Route::Manage, Scope::Invoke) => {
                let path = request.uri().path().to_owned();
                self.tell(&CallError::CallsOnly(path), Style::Raw)
            }
            (Route::Manage, _) => {
                let query = request.uri().query();
                let follows = query.is_some_and(|query| query.contains("follow"));
                let answer = self.manage(request).await;
                if !follows {
                    running.must_end(Instant::now() + TAKEN);
                }
                answer
            }
            (Route::Call(_) | Route::Raw(..), Scope::Manage { .. } | Scope::Passed) => {
                let url = format!("{}{}", caller.calls(request.headers()).0, request.uri());
                self.tell(&CallError::Elsewhere { url }, Style::Raw)
            }
        }
    }

    async fn manage(&self, request: Request<Arriving>) -> Response<Body> {
        let pass = request.extensions().get::<Pass>().cloned();
        let answer = self.management.clone().oneshot(request.map(Body::new));
        let outcome: Result<Result<_, Infallible>, _> =
            AbortOnDropHandle::new(self.control.spawn(answer)).await;
        match outcome {
            Ok(Ok(response)) => {
                let code = response.headers().get(ERROR_HEADER);
                if let Some(code) = code.and_then(|code| code.to_str().ok()) {
                    self.metrics.error(code);
                }
                match pass {
                    Some(pass) => pass.bound(response),
                    None => response,
                }
            }
            Ok(Err(never)) => match never {},
            Err(error) => {
                tracing::error!(%error, "Management request failed");
                self.tell(&CallError::Internal, Style::Raw)
            }
        }
    }

    /// Notes a call that runs, from its arrival on.
    fn arrive(&self) -> Busy<'_> {
        self.metrics.in_flight.inc();
        Busy {
            metrics: &self.metrics,
            began: Instant::now(),
            code: 499,
        }
    }

    fn finish(
        &self,
        outcome: Result<Response<Body>, CallError>,
        style: Style,
        mut busy: Busy<'_>,
    ) -> Response<Body> {
        let response = outcome.unwrap_or_else(|error| self.tell(&error, style));
        busy.code = response.status().as_u16();
        response
    }

    /// The answer to what is refused or has failed. That a caller has left is no error.
    fn tell(&self, error: &CallError, style: Style) -> Response<Body> {
        let code = error.code();
        if !matches!(error, CallError::CallerGone) {
            self.metrics.error(code);
        }
        tracing::debug!(%error, code, "Refused or failed");
        error.response(style, Instant::now())
    }

    /// More connections than we may have: only questions about our health are answered.
    fn refuse(&self, path: &str, limit: usize) -> Response<Body> {
        if matches!(path, "/healthz" | "/readyz") {
            return Response::new(Body::from("ok\n"));
        }
        self.tell(&CallError::Crowded { limit }, Style::Raw)
    }
}

/// A call between its arrival and the head of its answer.
struct Busy<'a> {
    metrics: &'a Metrics,
    began: Instant,
    /// Status of the answer; that of a caller who has left before there is one.
    code: u16,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        self.metrics.called(self.code, self.began.elapsed());
    }
}

#[cfg(test)]
mod tests;

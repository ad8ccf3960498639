//! The API server of a cluster: how it is reached, who may write there ([`lease`]), what that one says to others
//! ([`notice`]), who its users are and what they may do ([`review`]), what is watched there ([`watch`]), and how long ago each watch
//! was seen to live.

pub mod lease;
pub mod notice;
pub mod review;
pub mod watch;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use hyper::{Method, Request, Response, StatusCode};
use kube::{Client, Config, client::ClientBuilder};
use tokio::time::timeout;
use tower::{BoxError, Layer, Service};

use self::lease::Fence;

/// How long one watch lasts. A connection that died in silence is noticed 5 s after that.
pub const WATCH: Duration = Duration::from_secs(45);
/// A watch of which nothing was heard for this long has failed: it should have ended, and begun anew, meanwhile.
pub const STALE: Duration = Duration::from_secs(75);

/// Longest wait for the head of an answer, also of a watch: a server that queues requests holds them for less.
const ANSWER: Duration = Duration::from_secs(30);

/// What gives a cluster the definition of Functions that this program has.
pub const CRD_REMEDY: &str = "`faas crd | kubectl apply --server-side -f -` gives it this one's";

/// Where is asked what we may do ourselves, also before there is a lease.
const OWN_RIGHTS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// When each watch was last seen to live, and which of them the server refuses, by the path that they ask for.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<BTreeMap<String, Beat>>>);

#[derive(Clone, Copy, Debug)]
enum Beat {
    Lived(Instant),
    Refused(StatusCode),
}

impl Pulse {
    /// How long ago each watch last lived.
    pub fn ages(&self, now: Instant) -> BTreeMap<String, Duration> {
        let beats = self.beats();
        let age = |(path, beat): (&String, &Beat)| match beat {
            Beat::Lived(at) => Some((path.clone(), now.saturating_duration_since(*at))),
            Beat::Refused(_) => None,
        };
        beats.iter().filter_map(age).collect()
    }

    /// The first watch that is not for us to have, with the way out.
    pub fn refusal(&self) -> Option<String> {
        self.beats().iter().find_map(|(path, beat)| match beat {
            Beat::Lived(_) => None,
            Beat::Refused(status) => refused(path, *status),
        })
    }

    /// The first watch that has failed, and how long ago it lived.
    pub fn stale(&self, now: Instant) -> Option<(String, Duration)> {
        self.ages(now).into_iter().find(|(_, age)| *age > STALE)
    }

    fn beat(&self, path: &str, now: Instant) {
        self.beats().insert(path.to_owned(), Beat::Lived(now));
    }

    fn refuse(&self, path: &str, status: StatusCode) {
        self.beats().insert(path.to_owned(), Beat::Refused(status));
    }

    fn beats(&self) -> MutexGuard<'_, BTreeMap<String, Beat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the server means that does not let us have what is at `path`, if its answer says that.
pub fn refused(path: &str, status: StatusCode) -> Option<String> {
    match status {
        StatusCode::NOT_FOUND if path.starts_with("/apis/faas.dev/") => {
            Some(format!("the API server knows no Functions: {CRD_REMEDY}"))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Some(format!(
            "the API server does not let us watch {path} ({status}): manifests/ has the rights that faas needs"
        )),
        _ => None,
    }
}

/// Nothing says where the API server is, or that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("no Kubernetes cluster: {0}; set KUBECONFIG, or run in a pod with a service account")]
pub struct NoCluster(String);

/// A cluster that can be spoken to.
#[derive(Clone)]
pub struct Cluster {
    /// Writes nothing while the fence is closed, but to leases.
    pub client: Client,
    pub pulse: Pulse,
    pub fence: Fence,
    /// Of the API server.
    pub url: String,
    /// The namespace that we are in: the kubeconfig's context names it, or the pod's service account.
    pub namespace: String,
}

/// The cluster that the environment names: by a kubeconfig, or a pod's service account.
///
/// # Errors
/// When it names none, or in a way that cannot be understood.
pub async fn connect() -> Result<Cluster, NoCluster> {
    let unknown = |error: &dyn std::fmt::Display| NoCluster(error.to_string());
    let config = Config::infer().await.map_err(|error| unknown(&error))?;
    let url = config.cluster_url.to_string();
    let namespace = config.default_namespace.clone();
    let pulse = Pulse::default();
    let builder = ClientBuilder::try_from(config).map_err(|error| unknown(&error))?;
    let fence = Fence::default();
    let watched = Watched(pulse.clone(), fence.clone());
    let client = builder.with_layer(&watched).build();
    Ok(Cluster {
        client,
        pulse,
        fence,
        url,
        namespace,
    })
}

/// What a person's command speaks by, and the namespace that it means: the kubeconfig's, or the pod's.
///
/// # Errors
/// As [`connect`].
pub async fn client() -> Result<(Client, String), NoCluster> {
    let unknown = |error: &dyn std::fmt::Display| NoCluster(error.to_string());
    let config = Config::infer().await.map_err(|error| unknown(&error))?;
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| unknown(&error))?;
    Ok((client, namespace))
}

/// Notes when the server begins to answer a watch, waits for no answer for ever, and lets nothing be written while the fence
/// is closed.
#[derive(Clone)]
struct Watched(Pulse, Fence);

impl<S> Layer<S> for Watched {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            pulse: self.0.clone(),
            fence: self.1.clone(),
        }
    }
}

/// See [`Watched`].
#[derive(Clone)]
struct Guarded<S> {
    inner: S,
    pulse: Pulse,
    fence: Fence,
}

impl<S, A, B> Service<Request<A>> for Guarded<S>
where
    S: Service<Request<A>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        if writes(&request) && self.fence.is_closed() {
            let error = "this faas does not control these namespaces at this moment: its lease is not renewed";
            return async move { Err(error.into()) }.boxed();
        }
        let asks = |word: &str| {
            let query = request.uri().query().unwrap_or_default();
            query.split('&').any(|pair| pair.starts_with(word))
        };
        // A watch begins with a list in parts.
        let is_watch = asks("watch=true");
        let watched = (is_watch || asks("limit="))
            .then(|| (request.uri().path().to_owned(), self.pulse.clone()));
        let answer = self.inner.call(request);
        async move {
            let response = timeout(ANSWER, answer).await??;
            if let Some((path, pulse)) = watched {
                match response.status() {
                    status if status.is_success() && is_watch => pulse.beat(&path, Instant::now()),
                    status if refused(&path, status).is_some() => pulse.refuse(&path, status),
                    _ => {}
                }
            }
            Ok(response)
        }
        .boxed()
    }
}

/// Whether it changes something else than a lease.
fn writes<A>(request: &Request<A>) -> bool {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path();
    !is_safe && !path.starts_with("/apis/coordination.k8s.io/") && path != OWN_RIGHTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_without_a_pulse_has_failed() {
        let (pulse, now) = (Pulse::default(), Instant::now());
        assert_eq!(pulse.stale(now), None, "nothing is watched");
        pulse.beat("/functions", now);
        pulse.beat("/controllerrevisions", now + STALE);
        assert_eq!(pulse.stale(now + STALE), None);
        let later = now + STALE + Duration::from_secs(1);
        let (path, age) = pulse.stale(later).unwrap();
        assert_eq!((path.as_str(), age), ("/functions", later - now));

        assert_eq!(pulse.refusal(), None);
        pulse.refuse("/functions", StatusCode::FORBIDDEN);
        assert_eq!(pulse.stale(later), None, "it is told as what it is");
        assert!(
            pulse
                .refusal()
                .unwrap()
                .contains("/functions (403 Forbidden)")
        );
        pulse.beat("/functions", later);
        assert_eq!(pulse.refusal(), None);
    }
}

//! A controller that waits for the Lease answers for its health, so that who runs it sees that it is there, and says of all else who
//! controls.
//!
//! One that may not ask whose a token is does not control: it could let no gateway in, and gateways that see a controller whom they
//! cannot reach give up what they have. Without one they go on with it.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    AppError,
    doors::{Doors, Part},
    say,
};
use crate::{
    api::error::ApiError,
    config::Config,
    controller::Turns,
    ingress::Ingress,
    kubernetes::{Cluster, review},
    pool::Pools,
    telemetry::Metrics,
    workers::Workers,
};

/// What is missing, and where it is.
const UNFIT: &str = "it may not create tokenreviews.authentication.k8s.io, so it could let no gateway in: \
                     manifests/system/reviewer.yaml has the right";

/// What it waits for.
#[derive(Clone)]
enum Wait {
    /// The end of who controls.
    Holder(String),
    /// The right to review tokens.
    Right,
}

/// Nothing while it is not known to wait.
type Waits = watch::Receiver<Option<Wait>>;

/// See the module.
pub(super) struct Standby<'a> {
    config: &'a Config,
    cluster: &'a Cluster,
    waits: watch::Sender<Option<Wait>>,
}

impl<'a> Standby<'a> {
    /// It listens once it is known to wait.
    pub fn new(config: &'a Config, cluster: &'a Cluster) -> Self {
        Self {
            config,
            cluster,
            waits: watch::Sender::default(),
        }
    }

    /// This one controls.
    pub fn waits_for(&self, holder: &str) {
        self.waits
            .send_replace(Some(Wait::Holder(holder.to_owned())));
    }

    /// Whether it may let gateways in; says so where it may not.
    pub async fn may_control(&self) -> bool {
        if review::may_review(&self.cluster.client).await {
            return true;
        }
        let before = self.waits.send_replace(Some(Wait::Right));
        if !matches!(before, Some(Wait::Right)) {
            say(&format!("waiting      {UNFIT}"));
            tracing::warn!("This controller does not take the lease: {UNFIT}");
        }
        false
    }

    /// Listens while it waits to enter, and not any more when it has.
    pub async fn beside<T>(
        &self,
        entering: impl Future<Output = Result<T, AppError>>,
    ) -> Result<T, AppError> {
        let stop = CancellationToken::new();
        let mut serving = self.serve(&stop).boxed();
        let entered = tokio::select! {
            entered = entering => entered,
            Err(error) = &mut serving => return Err(error),
        };
        stop.cancel();
        serving.await?;
        entered
    }

    async fn serve(&self, stop: &CancellationToken) -> Result<(), AppError> {
        let mut waits = self.waits.subscribe();
        let opened = async {
            // Fails only if the sender is gone, and we hold it.
            let _ = waits.wait_for(Option::is_some).await;
            let (doors, dir) = (&self.config.doors, &self.config.state_dir);
            Doors::open(doors, dir, Some(self.cluster), Part::Standby, None).await
        };
        let doors = tokio::select! {
            doors = opened => doors?,
            () = stop.cancelled() => return Ok(()),
        };
        let pools = Arc::new(Pools::new(Turns::new().0));
        let metrics = Arc::new(Metrics::default());
        let workers = Workers::alone().map_err(AppError::Threads)?;
        let ingress = Ingress::new(pools, router(self.waits.subscribe()), metrics, workers);
        let mut listeners = doors.serve(&ingress, stop);
        while listeners.running.join_next().await.is_some() {}
        Ok(())
    }
}

fn router(waits: Waits) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(elsewhere)
        .with_state(waits)
}

/// As ready as it can be.
async fn ready(State(waits): State<Waits>) -> Response {
    let (status, text) = match &*waits.borrow() {
        Some(Wait::Right) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {UNFIT}\n"),
        ),
        Some(Wait::Holder(holder)) => (StatusCode::OK, format!("standby: {holder} controls\n")),
        None => (StatusCode::OK, "standby\n".to_owned()),
    };
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

async fn elsewhere(State(waits): State<Waits>) -> ApiError {
    let why = match &*waits.borrow() {
        Some(Wait::Right) => UNFIT.to_owned(),
        Some(Wait::Holder(holder)) => {
            format!("{holder} controls: ask a gateway, which passes on to that one")
        }
        None => String::new(),
    };
    ApiError::NoController(format!("this controller is a standby: {why}"))
}

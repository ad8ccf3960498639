//! A controller that waits for the Lease answers for its health, so that who runs it sees that it is there, and says of all else who
//! controls.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    AppError,
    doors::{Doors, Part},
};
use crate::{
    api::error::ApiError, config::Config, controller::Turns, ingress::Ingress, kubernetes::Cluster,
    pool::Pools, telemetry::Metrics, workers::Workers,
};

/// Who controls; nobody while that is not known.
type Holder = watch::Receiver<Option<String>>;

/// See the module.
pub(super) struct Standby<'a> {
    config: &'a Config,
    cluster: &'a Cluster,
    holder: watch::Sender<Option<String>>,
}

impl<'a> Standby<'a> {
    /// It listens once it is known to wait.
    pub fn new(config: &'a Config, cluster: &'a Cluster) -> Self {
        Self {
            config,
            cluster,
            holder: watch::Sender::default(),
        }
    }

    /// This one controls.
    pub fn waits_for(&self, holder: &str) {
        self.holder.send_replace(Some(holder.to_owned()));
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
        let mut holder = self.holder.subscribe();
        let opened = async {
            // Fails only if the sender is gone, and we hold it.
            let _ = holder.wait_for(Option::is_some).await;
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
        let ingress = Ingress::new(pools, router(self.holder.subscribe()), metrics, workers);
        let mut listeners = doors.serve(&ingress, stop);
        while listeners.running.join_next().await.is_some() {}
        Ok(())
    }
}

fn router(holder: Holder) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(elsewhere)
        .with_state(holder)
}

fn name(holder: &Holder) -> String {
    holder.borrow().clone().unwrap_or_default()
}

/// As ready as it can be.
async fn ready(State(holder): State<Holder>) -> Response {
    let text = format!("standby: {} controls\n", name(&holder));
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

async fn elsewhere(State(holder): State<Holder>) -> ApiError {
    ApiError::NoController(format!(
        "this controller is a standby, and {} controls: ask a gateway, which passes on to that one",
        name(&holder)
    ))
}

//! `faas gateway`: the half of a server that answers calls.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    AppError, Tasks,
    doors::{Doors, Part},
    say,
    signals::Signals,
};
use crate::{
    api::gateway::{Pages, router},
    config::roles::GatewayConfig,
    controller::Turns,
    gateway::{Gateway, Settings},
    ingress::Ingress,
    kubernetes,
    pool::Pools,
    store::state::{self, Identity},
    telemetry::Metrics,
    workers::Workers,
};

/// Longest wait until the controller has everything back.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// Runs a gateway until a signal ends it.
pub async fn run(config: GatewayConfig) -> Result<(), AppError> {
    let _lock = state::lock(&config.state_dir, "faas gateway")?;
    let own = Identity::own(&config.state_dir)?;
    let cluster = kubernetes::connect().await?;
    let mut signals = Signals::listen();
    let (dir, part) = (&config.state_dir, Part::Gateway);
    let opening = Doors::open(&config.doors, dir, Some(&cluster), part, None);
    let doors = tokio::select! {
        doors = opening => doors?,
        // What it waits for may never come.
        () = signals.next() => return Ok(()),
    };
    let (turns, keys) = Turns::new();
    let pools = Arc::new(Pools::new(turns.clone()));
    let metrics = Arc::new(Metrics::default());
    let settings = Settings {
        client: cluster.client,
        namespace: cluster.namespace,
        name: super::stores::me(&own),
        token_file: config.controller_token,
    };
    say(&format!(
        "gateway      {}, for a controller at {}",
        settings.name, cluster.url
    ));
    say(&format!("listening on {}", doors.url()));

    let gateway = Gateway::new(settings, Arc::clone(&pools), turns);
    let mut tasks = Tasks::default();
    let pages = router(Pages {
        pools: Arc::clone(&pools),
        metrics: Arc::clone(&metrics),
        passage: gateway.passage(tasks.stop.clone()),
    });
    let workers = Workers::alone().map_err(AppError::Threads)?;
    let ingress = Ingress::new(pools, pages, metrics, workers);

    let (leave, left) = (CancellationToken::new(), CancellationToken::new());
    let (leaves, has_left) = (leave.clone(), left.clone());
    tasks.spawn("stream", async move {
        gateway.run(keys, leaves).await;
        has_left.cancel();
    });
    doors.follow(&mut tasks);
    let listeners = doors.serve(&ingress, &tasks.stop);
    let give_back = async {
        leave.cancel();
        // What the controller has not heard of it learns from the end of the stream.
        let _ = timeout(GIVE_BACK, left.cancelled()).await;
    };
    let ended = tasks
        .until_signal(signals, listeners, pending(), give_back)
        .await?;
    if ended.is_orderly {
        return Ok(());
    }
    Err(AppError::Left(
        "what was lent is free once the controller knows",
    ))
}

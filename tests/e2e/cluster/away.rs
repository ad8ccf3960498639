//! The API server is away: what runs goes on, and nothing is taken for gone.

use std::sync::Arc;

use serde_json::json;

use super::{answer, saying};
use crate::support::{Home, SOON, cluster::Cluster, has_docker, wait_until};

#[tokio::test]
async fn an_api_server_that_is_away_costs_no_call_and_takes_nothing_along() {
    if !has_docker("e2e cluster") {
        return;
    }
    let Some(cluster) = Cluster::here() else {
        return;
    };
    let Some(plane) = Cluster::plane("an API server that is away") else {
        return;
    };
    let home = Arc::new(Home::new());
    let key = cluster.key("warm");
    let server = cluster.start().at(&home).await;
    cluster.apply(&saying("warm", "on"));
    cluster.ready("warm");
    let before = home.containers();

    plane.stop_api();
    for _ in 0..50 {
        assert_eq!(answer(&server, &key).await, "on");
    }
    // Nor does a start beside a server that is away: it waits, and says for what.
    server.signal(rustix::process::Signal::KILL);
    server.end().await;
    drop(server);
    let server = cluster.start().at(&home).await;
    let ready = server.get("/readyz").await.expect(503);
    assert!(ready.text.contains("API server"), "{}", ready.text);
    server.get("/functions").await.refused(503, "Unavailable");
    server.get("/healthz").await.expect(200);
    assert_eq!(
        home.containers(),
        before,
        "nothing is known, so nothing is ended"
    );

    plane.start_api();
    wait_until("the function answers", SOON, async || {
        let reply = server.call(&key, json!({})).await;
        (reply.status == 200).then_some(())
    })
    .await;
    assert_eq!(home.containers(), before, "adopted");
    server.get("/readyz").await.expect(200);
    cluster.apply(&saying("warm", "on and on"));
    wait_until("a change is seen again", SOON, async || {
        (answer(&server, &key).await == "on and on").then_some(())
    })
    .await;
}

//! The API server is away, or knows no Functions: what runs goes on, and nothing is taken for gone.

mod node;

use std::sync::Arc;

use serde_json::{Value, json};

use super::{answer, saying};
use crate::support::{
    Home, SOON,
    cluster::{CRD, Cluster},
    has_docker, wait_until,
};

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
    for path in ["", "/K", "/K/logs", "/K/events", "/K/build-log"] {
        let path = format!("/functions{}", path.replace('K', &key));
        server.get(&path).await.refused(503, "Unavailable");
    }
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
    wait_until("the lease is renewed", SOON, async || {
        (server.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    cluster.apply(&saying("warm", "on and on"));
    wait_until("a change is seen again", SOON, async || {
        (answer(&server, &key).await == "on and on").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_definition_that_is_missing_or_older_is_told_with_the_way_out() {
    if !has_docker("e2e cluster") {
        return;
    }
    let Some(cluster) = Cluster::here() else {
        return;
    };
    if Cluster::plane("a cluster without our definition").is_none() {
        return;
    }
    let crd = "crd/functions.faas.dev";
    let definition = cluster.kubectl(["create", "--dry-run=client", "-o", "json", "-f", CRD]);
    let definition: Value = serde_json::from_str(&definition.good()).unwrap();
    cluster.kubectl(["delete", crd, "--timeout=60s"]).good();
    let server = cluster.start().at(&Arc::new(Home::new())).await;
    wait_until("it says what to do", SOON, async || {
        let ready = server.get("/readyz").await.expect(503);
        ready
            .text
            .contains("faas crd | kubectl apply")
            .then_some(())
    })
    .await;
    server.get("/healthz").await.expect(200);

    let mut older = definition.clone();
    let schema = &mut older["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let status = schema["properties"]["status"]["properties"].as_object_mut();
    status.unwrap().remove("lastBuild").unwrap();
    cluster.apply(&older);
    let is_there = ["wait", "--for=condition=Established", crd];
    cluster.kubectl(is_there).good();
    cluster.apply(&saying("hello", "older"));
    cluster.ready("hello");
    assert_eq!(answer(&server, &cluster.key("hello")).await, "older");
    let told = server.said();
    assert!(
        told.contains("definition of Functions is another's"),
        "{told}"
    );

    cluster.apply(&definition);
    cluster.apply(&saying("hello", "today"));
    wait_until("all of the status is there", SOON, async || {
        let object = cluster.get("fn", "hello")?;
        (!object["status"]["lastBuild"].is_null()).then_some(())
    })
    .await;
    server.get("/readyz").await.expect(200);
}

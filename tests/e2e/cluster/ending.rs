//! Namespaces that are deleted, and with them faas's own lease: what runs for their Functions ends, and then they go.

use reqwest::Method;
use serde_json::json;

use super::{saying, served};
use crate::support::{SOON, cluster::Cluster, function, node, wait_until};

fn delete(cluster: &Cluster) {
    let words = ["delete", "namespace", &cluster.namespace, "--wait=false"];
    cluster.kubectl(words).good();
}

/// Nothing could renew it any more.
async fn has_lost_its_lease(cluster: &Cluster) {
    wait_until("the lease is gone", SOON, async || {
        let lease = cluster.get("lease", "faas-controller");
        lease.is_none().then_some(())
    })
    .await;
}

async fn has_gone(cluster: &Cluster) {
    wait_until("the namespace is gone", SOON, async || {
        let namespace = cluster.get("namespace", &cluster.namespace);
        namespace.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_namespace_that_is_deleted_goes_when_its_calls_are_answered() {
    let Some((cluster, home, server)) = served().await else {
        return;
    };
    let code = "module.exports = (c, cb) => setTimeout(() => cb(null, 'bye'), c.ms || 0)";
    cluster.apply(&function("slow", node(code, json!({}))));
    cluster.ready("slow");
    // Longer than anything is written without a lease.
    let path = format!("/functions/{}", cluster.key("slow"));
    let call = server.request(Method::POST, &path);
    let call = tokio::spawn(call.json(&json!({"ms": 15_000})).send());
    wait_until("the call runs", SOON, async || {
        let status = server.status("slow").await;
        let busy = status["instances"][0]["inFlight"].as_u64();
        (busy > Some(0)).then_some(())
    })
    .await;
    delete(&cluster);
    has_lost_its_lease(&cluster).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    has_gone(&cluster).await;
    assert_eq!(home.containers(), [""; 0]);
}

#[tokio::test]
async fn a_namespace_that_was_deleted_while_nobody_looked_goes_after_the_next_start() {
    let Some((cluster, home, server)) = served().await else {
        return;
    };
    cluster.apply(&saying("left", "x"));
    cluster.ready("left");
    server.signal(rustix::process::Signal::KILL);
    server.end().await;
    drop(server);
    delete(&cluster);
    has_lost_its_lease(&cluster).await;
    assert!(
        cluster.get("fn", "left").is_some(),
        "the finalizer holds it"
    );

    let _server = cluster.start().at(&home).await;
    has_gone(&cluster).await;
    assert_eq!(home.containers(), [""; 0]);
}

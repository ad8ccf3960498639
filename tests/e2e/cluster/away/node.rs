//! A node disappears, with what runs there: nobody tells of it, and nobody answers for it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    cluster::{
        gateways::Halves,
        pods::{image, ready_made},
    },
    support::{
        SOON,
        cluster::Cluster,
        prober::{Call, Outcome, Prober, honest},
        wait_until,
    },
};

/// How long Kubernetes takes to miss a node, 50 s, and to tell; a test's machine may be busy.
const MISSED: Duration = SOON.saturating_mul(3);

/// That an instance takes at a time.
const CALLS: usize = 10;
/// A call this often, and what it takes in the function, in ms.
const PACE: (Duration, u64) = (Duration::from_millis(100), 20);

impl Cluster {
    /// Whether a node takes pods.
    fn opens(&self, node: &str, is_open: bool) {
        let what = if is_open { "uncordon" } else { "cordon" };
        self.kubectl([what, node]).good();
    }

    /// The pods of a Function by their nodes, and whether they are told to end.
    fn places(&self, name: &str) -> Vec<(String, bool)> {
        let pods = self.pods(name);
        let place = |pod: &Value| {
            let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
            (
                node.to_owned(),
                pod["metadata"]["deletionTimestamp"].is_string(),
            )
        };
        pods.iter().map(place).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_disappears_costs_the_calls_that_it_had_and_no_other() {
    let Some(plane) = Cluster::plane("a node that disappears") else {
        return;
    };
    let Some(halves) = Halves::start(1).await else {
        return;
    };
    let node = plane.second_node();
    let (cluster, gateway) = (&halves.cluster, &halves.gateways[0]);
    let key = cluster.key("spread");
    let image = image(cluster, "spread", &honest(&key, 1));
    let spec = json!({
        "scale": {"min": 1, "max": 2, "concurrency": CALLS},
        "startupTimeoutSeconds": 120,
        "timeoutSeconds": 300,
    });
    cluster.opens("plane", false);
    cluster.apply(&ready_made("spread", &image, spec));
    cluster.ready("spread");
    assert_eq!(cluster.places("spread"), [("plane-2".to_owned(), false)]);
    let prober = Prober::beside(&[gateway], &halves.controller, &key, PACE).await;
    let losing = async {
        prober.goes_on(5).await;
        cluster.opens("plane", true);
        prober.goes_on(20).await;
        node.lose();
        // A wait before the other node was open starts a second one here.
        let lost = cluster.places("spread").into_iter();
        let lost = lost.filter(|(node, _)| node == "plane-2").count();
        prober.goes_on(100).await;
        wait_until("Kubernetes misses the node", MISSED, async || {
            let lost = ("plane-2".to_owned(), true);
            cluster.places("spread").contains(&lost).then_some(())
        })
        .await;
        prober.goes_on(50).await;
        lost
    };
    // Nobody waits until its own time is over.
    let (slow, lost_instances) = tokio::join!(gateway.call(&key, json!({"ms": 250_000})), losing);
    slow.refused(502, "InstanceLost");
    let ledger = prober.stop_after_losses().await;
    let is_lost = |call: &Call| call.outcome == Outcome::Refused(502, "InstanceLost".to_owned());
    ledger.check_but(is_lost);
    let lost = ledger.calls.iter().filter(|call| is_lost(call)).count();
    println!("{lost} calls were lost with {lost_instances} instances");
    // One that they had was the slow one.
    let most = lost_instances * CALLS - 1;
    assert!(lost <= most, "{}", ledger.summary());

    node.find();
    wait_until("what ran there is gone", SOON, async || {
        let places = cluster.places("spread");
        places.iter().all(|(node, _)| node == "plane").then_some(())
    })
    .await;
    assert_eq!(gateway.call(&key, json!({})).await.response()["version"], 1);
}

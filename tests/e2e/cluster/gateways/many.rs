//! A thousand Functions at once.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Halves, image, ready_made};
use crate::support::{cluster::Cluster, prober::honest, wait_until};

/// Functions that are applied at once.
pub const MANY: usize = 1000;
/// Until all of them are what they should be, on a busy machine.
const LONG: Duration = Duration::from_secs(600);
/// Of each of them.
const PREFIX: &str = "many-";

/// All of one image, for `kubectl apply`.
pub fn list(image: &str) -> String {
    let function = |number| {
        let mut function = ready_made(&format!("{PREFIX}{number}"), image, json!({}));
        function["metadata"]["labels"] = json!({"batch": "many"});
        function
    };
    let items: Vec<_> = (0..MANY).map(function).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Their lines of `kubectl get fn`.
fn told(cluster: &Cluster) -> String {
    let words = ["get", "fn", "-l", "batch=many", "--no-headers"];
    cluster.kubectl(words).good()
}

pub async fn all_are_ready(cluster: &Cluster) {
    wait_until("all are Ready", LONG, async || {
        let told = told(cluster);
        let ready = told
            .lines()
            .filter(|line| line.split_whitespace().nth(1) == Some("True"));
        (ready.count() == MANY).then_some(())
    })
    .await;
}

/// In one request: `kubectl delete` makes one for each, five in a second.
pub async fn all_go(cluster: &Cluster) {
    let functions = format!(
        "/apis/faas.dev/v1alpha1/namespaces/{}/functions",
        cluster.namespace
    );
    let many = format!("{functions}?labelSelector=batch%3Dmany");
    cluster.kubectl(["delete", "--raw", &many]).good();
    wait_until("all are gone", LONG, async || {
        told(cluster).is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_functions_at_once_are_ready_and_cost_no_call() {
    let Some(halves) = Halves::start(2).await else {
        return;
    };
    let cluster = &halves.cluster;
    let key = cluster.key("beside");
    let scale = json!({
        "scale": {"min": 1, "max": 2, "concurrency": 8},
        "startupTimeoutSeconds": 120,
    });
    let beside = image(cluster, "beside", &honest(&key, 1));
    cluster.apply(&ready_made("beside", &beside, scale));
    cluster.ready("beside");
    let image = image(cluster, "many", "module.exports = () => 'one of many'");
    let prober = halves.probe(&key).await;

    let apply = ["apply", "--server-side", "-f", "-"];
    cluster.kubectl_with(apply, &list(&image)).good();
    all_are_ready(cluster).await;
    for (gateway, number) in halves.gateways.iter().zip([0, MANY - 1]) {
        let name = cluster.key(&format!("{PREFIX}{number}"));
        let answer = gateway.call(&name, json!({})).await;
        assert_eq!(answer.response(), "one of many");
    }
    all_go(cluster).await;
    prober.stop().await.check(|_| false);
    wait_until("no pod of theirs is left", LONG, async || {
        let pods = cluster.list("pods");
        let is_beside = |pod: &Value| pod["metadata"]["labels"]["faas.dev/function"] == "beside";
        pods.iter().all(is_beside).then_some(())
    })
    .await;
}

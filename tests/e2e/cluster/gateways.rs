//! A server in its halves: a controller, and gateways that answer with what it lends them.

pub(super) mod manage;
pub(super) mod many;
mod rights;
mod takeover;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::join_all;
use rustix::process::Signal;
use serde_json::json;

use super::pods::{image, push_base, ready_made};
use crate::support::{
    Home, SOON, Server, Start,
    cluster::Cluster,
    function, has_docker, node,
    prober::{Prober, honest},
    wait_until,
};

/// A controller and its gateways.
pub(super) struct Halves {
    pub gateways: Vec<Server>,
    pub controller: Server,
    pub cluster: Cluster,
}

impl Halves {
    /// With so many gateways, each of which knows what there is.
    pub async fn start(gateways: usize) -> Option<Self> {
        Self::of(gateways, Cluster::controller).await
    }

    /// With a gateway, and a registry where code becomes images.
    async fn with_registry() -> Option<Self> {
        let controller = |cluster: &Cluster| {
            let (place, base) = push_base(cluster);
            let start = cluster.controller().with("--registry", place);
            start.with("--base-image", format!("node={base}"))
        };
        Self::of(1, controller).await
    }

    async fn of(gateways: usize, controller: impl Fn(&Cluster) -> Start) -> Option<Self> {
        if !has_docker("e2e gateways") {
            return None;
        }
        let cluster = Cluster::here()?;
        Cluster::registry("e2e gateways")?;
        let controller = controller(&cluster).at(&Arc::new(Home::new())).await;
        let mut halves = Self {
            gateways: Vec::new(),
            controller,
            cluster,
        };
        for _ in 0..gateways {
            let gateway = halves.cluster.gateway().at(&Arc::new(Home::new())).await;
            is_ready(&gateway).await;
            halves.gateways.push(gateway);
        }
        Some(halves)
    }

    /// The same controller again, after it has ended.
    async fn control_again(&mut self) {
        let home = Arc::clone(&self.controller.home);
        self.controller = self.cluster.controller().at(&home).await;
    }

    /// The same gateway again, at its address.
    async fn gate_again(&mut self, number: usize) {
        let before = &self.gateways[number];
        let (home, address) = (Arc::clone(&before.home), before.address.to_string());
        let gateway = self.cluster.gateway().with("--listen", address);
        self.gateways[number] = gateway.at(&home).await;
        is_ready(&self.gateways[number]).await;
    }

    /// A call every 10 ms, by both gateways in turn.
    async fn probe(&self, key: &str) -> Prober {
        let gateways: Vec<_> = self.gateways.iter().collect();
        let pace = (Duration::from_millis(10), 20);
        Prober::beside(&gateways, &self.controller, key, pace).await
    }
}

async fn is_ready(server: &Server) {
    wait_until("it is ready", SOON, async || {
        (server.get("/readyz").await.status == 200).then_some(())
    })
    .await;
}

/// A program that is not ours takes one call at a time until it has stayed after its first.
async fn has_one(gateway: &Server) {
    wait_until("it has an instance", SOON, async || {
        let metrics = gateway.get("/metrics").await.text;
        metrics
            .contains("faas_instances{state=\"ready\"} 1")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_gateway_answers_with_what_the_controller_lends() {
    let Some(halves) = Halves::start(1).await else {
        return;
    };
    let (cluster, gateway) = (&halves.cluster, &halves.gateways[0]);
    let image = image(cluster, "hello", "module.exports = () => 'here'");
    cluster.apply(&ready_made("hello", &image, json!({"scale": {"min": 1}})));
    cluster.ready("hello");
    let key = cluster.key("hello");
    for _ in 0..3 {
        assert_eq!(gateway.call(&key, json!({})).await.response(), "here");
    }
    let elsewhere = halves.controller.call(&key, json!({})).await;
    elsewhere.refused(404, "NotFound");
}

#[tokio::test]
async fn a_call_at_any_gateway_starts_the_first_pod_and_both_answer_with_it() {
    let Some(halves) = Halves::start(2).await else {
        return;
    };
    let cluster = &halves.cluster;
    let image = image(
        cluster,
        "rare",
        "module.exports = () => process.env.FAAS_INSTANCE",
    );
    let scale = json!({"scale": {"min": 0, "max": 1, "concurrency": 100, "idleAfterSeconds": 2}});
    cluster.apply(&ready_made("rare", &image, scale));
    cluster.ready("rare");
    cluster.has_no_pods("rare").await;
    let key = cluster.key("rare");
    let calls = (0..20).map(|n| halves.gateways[n % 2].call(&key, json!({})));
    let answers = join_all(calls).await.into_iter();
    let pods: BTreeSet<_> = answers
        .map(|answer| answer.response().to_string())
        .collect();
    assert_eq!(pods.len(), 1, "{pods:?}");
    // What rests at gateways keeps no pod.
    cluster.has_no_pods("rare").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_at_a_time_is_one_over_all_gateways() {
    let Some(halves) = Halves::start(2).await else {
        return;
    };
    let cluster = &halves.cluster;
    let code = "let running = 0; module.exports = (context, cb) => {
        running += 1; const most = running
        setTimeout(() => { running -= 1; cb(most) }, 5)
    }";
    let image = image(cluster, "alone", code);
    let scale = json!({"scale": {"min": 1, "max": 1, "concurrency": 1}});
    cluster.apply(&ready_made("alone", &image, scale));
    cluster.ready("alone");
    let key = cluster.key("alone");
    let calls = (0..60).map(|n| halves.gateways[n % 2].call(&key, json!({})));
    for answer in join_all(calls).await {
        assert_eq!(answer.response(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_over_and_restarts_of_either_half_lose_no_call() {
    let Some(mut halves) = Halves::start(2).await else {
        return;
    };
    let key = halves.cluster.key("moved");
    // Callers have patience: on a machine that other tests keep busy, a queue may grow for a while, and is not what is looked at.
    let scale = json!({
        "scale": {"min": 1, "max": 2, "concurrency": 8},
        "startupTimeoutSeconds": 120,
    });
    let images = [1, 2].map(|version| {
        let code = honest(&key, version);
        image(&halves.cluster, &format!("moved-{version}"), &code)
    });
    let [first, second] = images.map(|image| ready_made("moved", &image, scale.clone()));
    halves.cluster.apply(&first);
    halves.cluster.ready("moved");
    let mut prober = halves.probe(&key).await;
    prober.goes_on(100).await;
    halves.cluster.apply(&second);
    for gateway in &halves.gateways {
        wait_until("the new version answers", SOON * 2, async || {
            let answer = gateway.call(&key, json!({"ms": 0})).await.response();
            (answer["version"] == 2).then_some(())
        })
        .await;
    }
    for number in 0..2 {
        halves.gateways[number].signal(Signal::TERM);
        assert!(halves.gateways[number].end().await.success());
        halves.gate_again(number).await;
        prober.goes_on(100).await;
    }
    for signal in [Signal::TERM, Signal::KILL] {
        halves.controller.signal(signal);
        halves.controller.end().await;
        prober.goes_on(100).await;
        halves.control_again().await;
        prober.listen_again(&halves.controller).await;
        prober.goes_on(200).await;
    }
    let ledger = prober.stop().await;
    ledger.check(|_| false);
    assert_eq!(ledger.versions(), [1, 2], "{}", ledger.summary());
    // Whoever controls now has all that there is: a pod more, and a new version.
    halves.cluster.apply(&first);
    wait_until("the first version answers again", SOON * 2, async || {
        let answer = halves.gateways[1].call(&key, json!({"ms": 0})).await;
        (answer.response()["version"] == 1).then_some(())
    })
    .await;
}

/// Each of them hears of it from the controller, and goes on calling until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_who_deletes_pod_after_pod_costs_no_call() {
    let Some(halves) = Halves::with_registry().await else {
        return;
    };
    let cluster = &halves.cluster;
    let key = cluster.key("culled");
    let more = json!({
        "scale": {"min": 2, "max": 3, "concurrency": 8},
        "startupTimeoutSeconds": 120,
        "timeoutSeconds": 300,
    });
    cluster.apply(&function("culled", node(&honest(&key, 1), more)));
    cluster.ready("culled");
    let prober = halves.probe(&key).await;
    for _ in 0..4 {
        prober.goes_on(100).await;
        let pod = wait_until("there is a pod", SOON, async || {
            cluster.pod_names("culled").pop()
        })
        .await;
        let deleted = ["delete", "pod", &pod, "--wait=false"];
        cluster.kubectl(deleted).good();
        wait_until("it is gone", SOON, async || {
            cluster.get("pod", &pod).is_none().then_some(())
        })
        .await;
    }
    // Pods go with the end of their logs.
    prober.stop_after_losses().await.check(|_| false);
}

#[tokio::test]
async fn a_gateway_answers_without_a_controller_and_never_without_a_token() {
    let Some(halves) = Halves::start(2).await else {
        return;
    };
    let cluster = &halves.cluster;
    let image = image(cluster, "kept", "module.exports = () => 'kept'");
    cluster.apply(&ready_made("kept", &image, json!({"scale": {"min": 1}})));
    cluster.ready("kept");
    let key = cluster.key("kept");
    let answer = async |number: usize| halves.gateways[number].call(&key, json!({})).await;
    for number in 0..2 {
        assert_eq!(answer(number).await.response(), "kept");
    }
    for gateway in &halves.gateways {
        has_one(gateway).await;
    }
    halves.controller.signal(Signal::KILL);
    halves.controller.end().await;
    for _ in 0..20 {
        for number in 0..2 {
            assert_eq!(answer(number).await.response(), "kept");
        }
    }
    is_ready(&halves.gateways[0]).await;

    // A token for another audience is good for nothing here.
    let home = Arc::clone(&halves.controller.home);
    let _controller = cluster.controller().at(&home).await;
    let wrong = cluster.kubectl(["create", "token", "faas-gateway"]).good();
    let stranger = cluster
        .gateway_with(&wrong)
        .at(&Arc::new(Home::new()))
        .await;
    wait_until("it is refused", SOON, async || {
        stranger
            .said()
            .contains("is not good for faas-controller")
            .then_some(())
    })
    .await;
    stranger.get("/readyz").await.expect(503);
}

//! A controller that stands by, and takes over from one that has gone or hangs.

use std::{collections::BTreeSet, net::TcpListener, sync::Arc, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    super::pods::{image, ready_made},
    Halves, is_ready, manage,
};
use crate::support::{
    Home, Reply, SOON, client,
    prober::{Prober, honest},
    wait_until,
};

/// Whoever runs it sees that it is there, and it takes over when the other one has gone.
#[tokio::test]
async fn a_controller_that_waits_is_a_standby_and_takes_over() {
    let Some(halves) = Halves::start(1).await else {
        return;
    };
    let address = free_address();
    let start = halves.cluster.controller().with("--listen", &address);
    let home = Arc::new(Home::new());
    let ask = async |path: &str| asked(&address, path).await;
    let looking = async {
        let ready = wait_until("it stands by", SOON, async || ask("/readyz").await).await;
        assert!(ready.text.starts_with("standby: "), "{ready:?}");
        ready.expect(200);
        ask("/healthz").await.unwrap().expect(200);
        let told = ask("/functions").await.unwrap();
        told.refused(503, "NoController");
        halves.controller.signal(Signal::TERM);
    };
    let (second, ()) = tokio::join!(start.at(&home), looking);
    is_ready(&second).await;
    second.get("/functions").await.expect(200);
    assert!(halves.controller.end().await.success());
    let token = manage::token(&second.home, "read");
    manage::ask_until(&halves.gateways[0], "GET /functions", &token, 200).await;
}

/// What is answered there, if somebody listens.
pub(super) async fn asked(address: &str, path: &str) -> Option<Reply> {
    let url = format!("http://{address}{path}");
    Some(Reply::of(client().get(url).send().await.ok()?).await)
}

/// An address of this machine on which nobody listens.
pub(super) fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Its successor does not know at first which calls run, and by then another version may serve.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hangs_while_a_function_changes_costs_no_call() {
    let Some(halves) = Halves::start(2).await else {
        return;
    };
    let cluster = &halves.cluster;
    let key = cluster.key("moved");
    let scale =
        json!({"scale": {"min": 1, "max": 4, "concurrency": 4}, "startupTimeoutSeconds": 120});
    let [first, second] = [1, 2].map(|version| {
        let image = image(cluster, &format!("moved-{version}"), &honest(&key, version));
        ready_made("moved", &image, scale.clone())
    });
    cluster.apply(&first);
    cluster.ready("moved");
    let gateways: Vec<_> = halves.gateways.iter().collect();
    let pace = (Duration::from_millis(25), 300);
    let mut prober = Prober::beside(&gateways, &halves.controller, &key, pace).await;
    prober.goes_on(100).await;
    halves.controller.signal(Signal::STOP);
    cluster.apply(&second);
    let home = Arc::new(Home::new());
    let successor = cluster.controller().at(&home).await;
    prober.listen_again(&successor).await;
    for gateway in gateways {
        wait_until("the new version answers", SOON * 2, async || {
            let answer = gateway.call(&key, json!({"ms": 0})).await.response();
            (answer["version"] == 2).then_some(())
        })
        .await;
    }
    wait_until("the old version is gone", SOON * 2, async || {
        let pods = cluster.pods("moved");
        let label = |pod: &Value| pod["metadata"]["labels"]["faas.dev/revision"].to_string();
        let revisions: BTreeSet<_> = pods.iter().map(label).collect();
        (revisions.len() == 1).then_some(())
    })
    .await;
    halves.controller.signal(Signal::CONT);
    let ledger = prober.stop_after_losses().await;
    // A gateway that has yet to find the successor goes on with the old version beside one that has found it.
    ledger.check_apart(|_| false);
    assert_eq!(ledger.versions(), [1, 2], "{}", ledger.summary());
}

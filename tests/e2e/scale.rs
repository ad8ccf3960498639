//! How many instances there are, who waits for them, and what happens when time is up.

use std::sync::Arc;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{Home, SOON, Server, Shared, Start, has_docker, inline, node, wait_until};

static SERVER: Shared = Shared::new();

async fn server() -> Arc<Server> {
    SERVER
        .get(async || Start::default().at(&Arc::new(Home::new())).await)
        .await
}

/// Tells who answers and how many calls it is busy with; takes `ms` for it.
const BUSY: &str = "
let busy = 0, most = 0
module.exports = (context, cb) => {
  most = Math.max(most, ++busy)
  setTimeout(() => { busy--; cb({most, who: process.env.HOSTNAME}) }, context.ms || 0)
}";

#[tokio::test]
async fn the_minimum_is_kept_warm_without_calls() {
    if !has_docker("e2e minimum") {
        return;
    }
    let server = server().await;
    let spec = node(BUSY, json!({"scale": {"min": 2, "idleAfterSeconds": 1}}));
    server.deploy("warm", spec).await;
    let instances = server.instances("warm", "ready").await;
    assert_eq!(instances.len(), 2);
    let containers = server.home.containers();
    assert!(
        instances.iter().all(|i| containers.contains(i)),
        "{containers:?}"
    );

    // One that somebody else ends is replaced.
    crate::support::docker(&["rm", "--force", &instances[0]]);
    wait_until("another takes its place", SOON, async || {
        let now = server.instances("warm", "ready").await;
        (now.len() == 2 && !now.contains(&instances[0])).then_some(())
    })
    .await;
    server.delete("/functions/warm").await.expect(202);
}

/// As many programs that never listen, for long, as instances may start at a time; as when what they wait for is away.
#[tokio::test]
async fn starts_that_hang_keep_no_neighbour_from_starting() {
    if !has_docker("e2e hanging starts") {
        return;
    }
    let server = Start::default().at(&Arc::new(Home::new())).await;
    let hangs = json!({"startupTimeoutSeconds": 300, "scale": {"min": 1}});
    let names: Vec<_> = (0..8).map(|number| format!("hangs-{number}")).collect();
    for name in &names {
        // Of one revision, one is tried at a time.
        let lines = format!("FROM busybox:1\nENV WHO={name}\nCMD [\"sleep\", \"1000\"]\n");
        let spec = inline("dockerfile", json!({"Dockerfile": lines}), hangs.clone());
        server.apply(name, spec).await;
    }
    for name in &names {
        wait_until("its container is there", SOON, async || {
            let prefix = format!("faas-{name}-");
            let containers = server.home.containers();
            containers
                .iter()
                .any(|c| c.starts_with(&prefix))
                .then_some(())
        })
        .await;
    }
    server.deploy("well", node(BUSY, json!({}))).await;
    server.call("well", json!({})).await.expect(200);
}

#[tokio::test]
async fn an_idle_function_goes_to_zero_and_comes_back() {
    if !has_docker("e2e zero") {
        return;
    }
    let server = server().await;
    server
        .deploy("shy", node(BUSY, json!({"scale": {"idleAfterSeconds": 1}})))
        .await;
    for _ in 0..2 {
        server.call("shy", json!({})).await.expect(200);
        zero(&server, "shy").await;
        let ready = server
            .condition("shy", "Ready", |c| c["reason"] == "Idle")
            .await;
        assert_eq!(ready["status"], "True", "zero is as it should be");
    }
}

async fn zero(server: &Server, name: &str) {
    wait_until("no instance is left", SOON, async || {
        let status = server.status(name).await;
        (status["instances"] == json!([])).then_some(())
    })
    .await;
    let prefix = format!("faas-{name}-");
    let left = server.home.containers();
    assert!(
        !left.iter().any(|name| name.starts_with(&prefix)),
        "{left:?}"
    );
}

#[tokio::test]
async fn waiting_callers_get_instances_up_to_the_maximum_and_never_share_beyond_the_concurrency() {
    if !has_docker("e2e maximum") {
        return;
    }
    let server = server().await;
    for (name, concurrency, calls, instances) in [("single", 1, 6, 3), ("double", 2, 8, 3)] {
        let scale = json!({"scale": {"max": 3, "concurrency": concurrency}});
        server.deploy(name, node(BUSY, scale)).await;
        let input = json!({"ms": 1500});
        let calls = (0..calls).map(|_| server.call(name, input.clone()));
        let watch = async {
            let mut most = 0;
            wait_until("all instances that may be are there", SOON, async || {
                most = most.max(running(&server, name).await);
                (most >= instances).then_some(())
            })
            .await;
            most
        };
        let (answers, most) = tokio::join!(join_all(calls), watch);
        assert_eq!(most, instances, "{name}");
        let mut who = Vec::new();
        for answer in answers {
            let answer = answer.response();
            assert!(answer["most"].as_u64().unwrap() <= concurrency, "{answer}");
            who.push(answer["who"].to_string());
        }
        who.sort();
        who.dedup();
        assert!(
            (2..=3).contains(&who.len()),
            "{name}: several answer: {who:?}"
        );
        assert!(running(&server, name).await <= 3);
        server
            .delete(&format!("/functions/{name}"))
            .await
            .expect(202);
    }
}

/// Containers of a Function.
async fn running(server: &Server, name: &str) -> usize {
    let status = server.status(name).await;
    let instances = status["instances"].as_array().map_or(0, Vec::len);
    let prefix = format!("faas-{name}-");
    let containers = server.home.containers();
    let containers = containers.iter().filter(|c| c.starts_with(&prefix)).count();
    instances.max(containers)
}

#[tokio::test]
async fn a_timed_out_instance_with_one_call_is_gone_before_the_504() {
    if !has_docker("e2e timeout") {
        return;
    }
    let server = server().await;
    let more = json!({"timeoutSeconds": 1, "scale": {"concurrency": 1, "min": 1}});
    server.deploy("slow", node(BUSY, more)).await;
    for path in ["/functions/slow", "/function/slow/invoke"] {
        wait_until("an instance", SOON, async || {
            (server.instances("slow", "ready").await.len() == 1).then_some(())
        })
        .await;
        let before = server.instances("slow", "ready").await;
        let reply = server.post(path, &json!({"ms": 60_000})).await;
        let left = server.home.containers();
        let reply = reply.refused(504, "Timeout");
        assert!(reply.text.contains("1s"), "names the limit: {}", reply.text);
        assert!(
            !left.contains(&before[0]),
            "{left:?} still holds {before:?}"
        );
        server.call("slow", json!({})).await.expect(200);
    }
    server.delete("/functions/slow").await.expect(202);
}

#[tokio::test]
async fn a_timeout_does_not_punish_the_neighbours() {
    if !has_docker("e2e neighbours") {
        return;
    }
    let server = server().await;
    let more = json!({"timeoutSeconds": 3, "scale": {"concurrency": 8, "max": 1, "min": 1}});
    server.deploy("block", node(BUSY, more)).await;
    let before = server.instances("block", "ready").await;
    let guilty = server.call("block", json!({"ms": 60_000}));
    let innocent = async {
        wait_until("the guilty call runs", SOON, async || {
            let status = server.status("block").await;
            (status["instances"][0]["inFlight"] == 1).then_some(())
        })
        .await;
        // In the middle of what comes now, the guilty one's time is up.
        server.call("block", json!({"ms": 1500})).await.expect(200);
        let calls = (0..3).map(|_| server.call("block", json!({"ms": 2500})));
        join_all(calls.collect::<Vec<_>>()).await
    };
    let (guilty, innocent) = tokio::join!(guilty, innocent);
    guilty.refused(504, "Timeout");
    for answer in innocent {
        answer.expect(200);
    }
    wait_until("another instance took over", SOON, async || {
        let now = server.instances("block", "ready").await;
        let there = server.home.containers();
        (now.len() == 1 && now != before && !there.contains(&before[0])).then_some(())
    })
    .await;
    server.delete("/functions/block").await.expect(202);
}

#[tokio::test]
async fn callers_of_what_cannot_start_learn_why_and_when_to_come_back() {
    if !has_docker("e2e no start") {
        return;
    }
    let server = server().await;
    let broken = "throw new Error('no way')";
    server
        .apply("stuck", node(broken, json!({"startupTimeoutSeconds": 5})))
        .await;
    let message = server.fails("stuck", "StartFailed").await;
    assert!(message.contains("no way"), "{message}");
    for path in ["/functions/stuck", "/function/stuck"] {
        let reply = server
            .post(path, &json!({}))
            .await
            .refused(503, "StartFailed");
        assert!(reply.text.contains("no way"), "{}", reply.text);
        let seconds: u64 = reply.header("retry-after").parse().unwrap();
        assert!(seconds >= 1);
    }
    let nothing = inline_without_index();
    server.apply("hollow", nothing).await;
    server.fails("hollow", "SourceInvalid").await;
    server
        .call("hollow", json!({}))
        .await
        .refused(503, "SourceInvalid");
}

fn inline_without_index() -> Value {
    inline("node", json!({"other.js": "1"}), json!({}))
}

//! Secrets that go or change while no server runs: what served goes on, as far as it can.

use std::{fs, sync::Arc};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::id_of;
use crate::support::{Home, SOON, Server, Start, docker, has_docker, node, save, wait_until};

/// Ends at its start with one secret, and does not come up with another.
const KEEPER: &str = r"
const secret = require('fs').readFileSync('/run/secrets/vault/password', 'utf8')
if (secret === 'bad') process.exit(3)
if (secret === 'slow') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
module.exports = async () => ({ secret, who: process.env.HOSTNAME })";

async fn start(home: &Arc<Home>) -> Server {
    let start = Start::default().with("--secrets-dir", home.secrets());
    start.at(home).await
}

fn set(home: &Home, secret: &str) {
    save(&home.secrets().join("vault/password"), secret);
}

fn remove(home: &Home) {
    fs::remove_dir_all(home.secrets().join("vault")).unwrap();
}

/// Kills the server, changes something, and starts another one.
async fn again(server: Server, change: impl FnOnce(&Home)) -> Server {
    server.signal(Signal::KILL);
    server.end().await;
    let home = Arc::clone(&server.home);
    drop(server);
    change(&home);
    start(&home).await
}

/// A server with a Function that has a secret, and its instance.
async fn keeper(home: &Arc<Home>) -> (Server, String) {
    set(home, "good");
    let server = start(home).await;
    let more = json!({"secrets": [{"name": "vault"}], "scale": {"min": 1}});
    server.deploy("keeper", node(KEEPER, more)).await;
    let instance = server.instances("keeper", "ready").await.remove(0);
    (server, instance)
}

/// A call is answered by this instance.
async fn answers(server: &Server, instance: &str) {
    let answer = server.call("keeper", json!({})).await.response();
    let who = answer["who"].as_str().unwrap();
    assert!(id_of(instance).starts_with(who), "{answer}");
}

#[tokio::test]
async fn a_secret_that_goes_or_changes_meanwhile_does_not_take_down_what_served() {
    if !has_docker("e2e secrets over a restart") {
        return;
    }
    let home = Arc::new(Home::new());
    let (mut server, before) = keeper(&home).await;
    let bad = |home: &Home| set(home, "bad");
    for (change, reason) in [
        (remove as fn(&Home), "SecretNotFound"),
        (bad, "StartFailed"),
    ] {
        server = again(server, change).await;
        answers(&server, &before).await;
        server.fails("keeper", reason).await;
        answers(&server, &before).await;
        let says_it = |c: &Value| c["message"].as_str().is_some_and(|m| m.contains("No more"));
        let serving = server.condition("keeper", "Serving", says_it).await;
        assert_eq!(serving["status"], "True", "{serving}");
    }

    let server = again(server, |home| set(home, "slow")).await;
    wait_until("an instance with the new secret begins", SOON, async || {
        let starting = server.instances("keeper", "starting").await;
        (!starting.is_empty()).then_some(())
    })
    .await;
    answers(&server, &before).await;
    set(&home, "better");
    wait_until("the new secret is used", SOON, async || {
        let answer = server.call("keeper", json!({})).await.response();
        (answer["secret"] == "better").then_some(())
    })
    .await;
    server.ready("keeper").await;
}

#[tokio::test]
async fn what_cannot_be_started_again_serves_as_long_as_it_lives() {
    if !has_docker("e2e the last instance of a secret") {
        return;
    }
    let home = Arc::new(Home::new());
    let (server, before) = keeper(&home).await;
    let server = again(server, remove).await;
    answers(&server, &before).await;
    docker(&["rm", "--force", &before]);
    wait_until("it is noticed", SOON, async || {
        let there = server.instances("keeper", "ready").await;
        there.is_empty().then_some(())
    })
    .await;
    let reply = server.call("keeper", json!({})).await;
    reply.refused(503, "SecretNotFound");
    set(&home, "good");
    server.ready("keeper").await;
    let answer = server.call("keeper", json!({})).await.response();
    assert_eq!(answer["secret"], "good");
}

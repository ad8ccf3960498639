//! The server beside a registry: what it pushes there, and days on which that is away or refuses.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    Home, Reply, SOON, Server, Start, client, docker, has_docker, node,
    prober::{Prober, honest},
    upload::{tar_of, upload},
    wait_until,
};

#[allow(dead_code, reason = "the builder's own tests use the rest")]
#[path = "../registry/server.rs"]
mod server;

use self::server::Registry;

/// Puts Node's base image into a registry.
fn provide(registry: &Registry) -> String {
    let name = format!("{}/upstream/node:22", registry.host());
    docker(&["tag", "faas.local/node:22", &name]);
    docker(&["push", "-q", &name]);
    docker(&["rmi", &name]);
    name
}

async fn beside(registry: &Registry, home: &Arc<Home>) -> Server {
    Start::default()
        .with("--registry", format!("{}/faas", registry.host()))
        .with(
            "--base-image",
            format!("node={}/upstream/node:22", registry.host()),
        )
        .at(home)
        .await
}

/// This machine's address on the engine's bridge, which engines do not always tell: the one that its kernel speaks from to there.
fn bridge() -> String {
    let subnet = "{{(index .IPAM.Config 0).Subnet}}";
    let subnet = docker(&["network", "inspect", "--format", subnet, "bridge"]);
    let there = format!("{}2:9", subnet.split_once("0/").unwrap().0);
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(there).unwrap();
    socket.local_addr().unwrap().ip().to_string()
}

/// As a registry of a company is: by TLS, with a certificate that only those trust who are told to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_by_tls_is_trusted_by_its_authority_alone() {
    if !has_docker("e2e registry by TLS") {
        return;
    }
    let plain = Registry::start();
    provide(&plain);
    let address = bridge();
    let (mute, registry) = (plain.by_http(&address), plain.by_tls(&address));
    let start = |registry: &Registry| {
        Start::default()
            .with("--registry", format!("{}/faas", registry.host()))
            // The engine has its own door, as it trusts nobody new.
            .with("--registry-pull", format!("{}/faas", plain.host()))
            .with(
                "--base-image",
                format!("node={}/upstream/node:22", registry.host()),
            )
    };
    let home = Arc::new(Home::new());
    let function = || node(&honest("guarded", 1), json!({}));
    for (registry, remedy) in [
        (&mute, "--registry-plain-http"),
        (&registry, "SSL_CERT_FILE"),
    ] {
        let server = start(registry).at(&home).await;
        server.apply("guarded", function()).await;
        wait_until("it is told what may help", SOON, async || {
            let told = server.fails("guarded", "RegistryUnavailable").await;
            told.contains(remedy).then_some(())
        })
        .await;
    }

    let trusting = start(&registry).in_environment("SSL_CERT_FILE", registry.authority());
    let server = trusting.at(&home).await;
    server.deploy("guarded", function()).await;
    let answer = server.call("guarded", json!({})).await;
    assert_eq!(answer.response()["version"], 1);
    assert_eq!(tags(&plain, "default/guarded").await.len(), 1);
}

/// Tags of a repository.
async fn tags(registry: &Registry, repository: &str) -> Vec<Value> {
    let url = format!("http://{}/v2/faas/{repository}/tags/list", registry.host());
    let reply = Reply::of(client().get(url).send().await.unwrap()).await;
    if reply.status == 404 {
        return Vec::new();
    }
    let tags = reply.expect(200).json()["tags"].clone();
    tags.as_array().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_and_uploads_lie_in_the_registry_while_they_are_needed() {
    if !has_docker("e2e registry") {
        return;
    }
    let registry = Registry::start();
    provide(&registry);
    let home = Arc::new(Home::new());
    let server = beside(&registry, &home).await;
    server
        .deploy("inline", node(&honest("inline", 1), json!({})))
        .await;
    assert_eq!(
        server.call("inline", json!({})).await.response()["version"],
        1
    );
    let code = honest("sent", 1);
    let archive = tar_of(&[("index.js", &code), ("fn.yaml", "language: node\n")]);
    server
        .post("/functions", &upload("sent", &archive))
        .await
        .expect(200);
    assert_eq!(
        server.call("sent", json!({})).await.response()["version"],
        1
    );
    for repository in ["default/inline", "default/sent", "default/archives"] {
        assert_eq!(tags(&registry, repository).await.len(), 1, "{repository}");
    }

    // Another controller has nothing of it, and finds it there.
    drop(server);
    std::fs::remove_dir_all(home.state().join("uploads")).unwrap();
    let server = beside(&registry, &home).await;
    server.ready("sent").await;
    assert_eq!(
        server.call("sent", json!({})).await.response()["version"],
        1
    );

    for name in ["inline", "sent"] {
        server.delete(&format!("/functions/{name}")).await;
    }
    wait_until("images that nobody needs go", SOON, async || {
        let left = [
            tags(&registry, "default/inline").await,
            tags(&registry, "default/sent").await,
        ];
        left.iter().all(Vec::is_empty).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_away_is_told_and_the_running_revision_serves_on() {
    if !has_docker("e2e registry away") {
        return;
    }
    let mut registry = Registry::start();
    provide(&registry);
    let home = Arc::new(Home::new());
    let server = beside(&registry, &home).await;
    let version = |version| node(&honest("kept", version), json!({"scale": {"min": 1}}));
    server.deploy("kept", version(1)).await;
    let prober = Prober::start(&server, "kept", Duration::from_millis(25), 20).await;

    registry.stop();
    server.apply("kept", version(2)).await;
    let told = server.fails("kept", "RegistryUnavailable").await;
    assert!(told.contains(&registry.host()), "{told}");
    server
        .condition("kept", "Serving", |c| c["status"] == "True")
        .await;
    server
        .condition("kept", "Reconciling", |c| c["status"] == "True")
        .await;
    // It is not the engine that is away.
    server.get("/readyz").await.expect(200);
    let status = server.get("/status").await.json();
    assert_eq!(status["loop"]["engine"]["reachable"], true);
    let archive = tar_of(&[("index.js", "1"), ("fn.yaml", "language: node\n")]);
    let refused = server
        .post("/functions", &upload("late", &archive))
        .await
        .expect(503);
    assert_eq!(refused.json()["code"], "SourceUnavailable");

    registry.run();
    server.ready("kept").await;
    assert_eq!(
        server.call("kept", json!({})).await.response()["version"],
        2
    );
    prober.stop().await.check(|_| false);
}

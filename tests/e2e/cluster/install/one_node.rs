//! The overlay for one node: its Docker engine builds and runs what the API server declares.

use serde_json::json;

use super::{Installed, Place, install, kustomize, ours};
use crate::support::{SOON, cluster::Cluster, function, node, wait_until};

const FAAS: [&str; 1] = ["deployment/faas"];
const NAME: &str = "on-one-node";

/// What people write: which image, and what the engine has for a base. It serves the namespace `default`.
fn one_node(place: &Place) -> tempfile::TempDir {
    let base = "--base-image=node=faas.local/node:22";
    let patch =
        json!([{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": base}]);
    let dir = tempfile::tempdir().unwrap();
    let overlay = dir.path().join("overlay");
    let kustomization = json!({
        "resources": [ours(&overlay).join("overlays/one-node")],
        "images": [place.image()],
        "patches": [{
            "target": {"kind": "Deployment", "name": "faas"},
            "patch": patch.to_string(),
        }],
    });
    kustomize(&overlay, &kustomization);
    dir
}

/// `kubectl` in the namespace that it serves.
fn in_default(installed: &Installed, words: &[&str]) -> String {
    let words = [&["--namespace", "default"], words].concat();
    installed.cluster.kubectl(words).good()
}

#[tokio::test]
async fn on_one_node_its_docker_engine_builds_and_runs_what_is_declared() {
    let Some(plane) = Cluster::plane("the overlay for one node") else {
        return;
    };
    let engine = plane.engine();
    let Some(installed) = install(&FAAS, one_node).await else {
        return;
    };
    let service = installed.service();
    let secret = [
        "create",
        "secret",
        "generic",
        NAME,
        "--from-literal=word=hush",
    ];
    in_default(&installed, &secret);
    let code = "module.exports = () => require('fs').readFileSync('/run/secrets/on-one-node/word', 'utf8')";
    let spec = node(
        code,
        json!({"secrets": [{"name": NAME}], "scale": {"min": 1}}),
    );
    let function = function(NAME, spec);
    let apply = ["apply", "--namespace", "default", "-f", "-"];
    let cluster = &installed.cluster;
    cluster.kubectl_with(apply, &function.to_string()).good();
    let ready = [
        "wait",
        "--for=condition=Ready",
        "--timeout=120s",
        "fn",
        NAME,
    ];
    in_default(&installed, &ready);
    service.answers(NAME, "hush").await;
    let running = || engine.docker(&["ps", "--all", "--format", "{{.Names}}"]);
    let first = running();
    assert!(first.starts_with("faas-on-one-node-"), "{first}");
    assert_eq!(first.lines().count(), 1, "{first}");

    // The next pod has the same state directory, and Functions their instances again.
    installed.in_system(&["rollout", "restart", FAAS[0]]).good();
    installed.rolled_out();
    service.answers(NAME, "hush").await;

    in_default(&installed, &["delete", "fn", NAME, "--timeout=60s"]);
    in_default(&installed, &["delete", "secret", NAME]);
    assert_eq!(running(), "", "the finalizer waits for the last container");
    wait_until("its image goes too", SOON, async || {
        let images = engine.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        (images == "faas.local/node:22").then_some(())
    })
    .await;
}

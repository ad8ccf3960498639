//! The overlay with a build engine: what must run commands is built beside the controller, by an engine that has no root.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{HALVES, Installed, Place, in_halves, install, push};
use crate::support::{
    SOON, cluster::Ran, fresh, function, has_image, inline, skip::skip, wait_until,
};

/// The image of the engine, or what stands in for it.
const ENGINE: &str = "faas.local/docker-rootless:1";
const TEST: &str = "the overlay build-engine";
/// User ids in the engine and what they are outside, as `uid_map` tells.
const NO_ROOT: &str = "0 1000 1 1 100000 65536";

/// What people write beside the usual: the engine pushes over plain HTTP as faas does.
fn build_engine(place: &Place) -> tempfile::TempDir {
    push(
        ENGINE,
        &format!("{}/install/docker:rootless", place.nodes_registry),
    );
    let image = json!({
        "name": "docker.io/library/docker",
        "newName": format!("{}/install/docker", place.nodes_registry),
        "newTag": "rootless",
    });
    let [faas, engine] = ["containers", "initContainers"].map(|containers| {
        move |argument| {
            let path = format!("/spec/template/spec/{containers}/0/args/-");
            json!({"op": "add", "path": path, "value": argument})
        }
    });
    let more = vec![
        faas(format!(
            "--base-image=node:22={}/install/node:22",
            place.registry
        )),
        engine(format!("--insecure-registry={}", place.registry)),
    ];
    let images = vec![place.image(), image];
    in_halves(place, &["overlays/build-engine"], images, more)
}

impl Installed {
    /// Runs a command beside the engine.
    fn in_engine(&self, words: &[&str]) -> Ran {
        self.in_system(&[&["exec", HALVES[0], "-c", "engine", "--"], words].concat())
    }
}

/// What the overlay promises: the engine is not root, finds no token, and listens at its socket alone, which is faas's too.
fn nobody_else_reaches_it(installed: &Installed) {
    let read = |path| installed.in_engine(&["cat", path]).good();
    let status = read("/proc/1/status");
    let field = |name| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap().split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), ["1000"; 4]);
    assert_eq!(field("Gid:"), ["1000"; 4]);
    assert_eq!(field("CapEff:"), ["0000000000000000"]);
    let mounts = read("/proc/mounts");
    assert!(!mounts.contains("serviceaccount"), "{mounts}");
    let socket = ["stat", "-c", "%a %u %g", "/engine/docker.sock"];
    assert_eq!(installed.in_engine(&socket).good().trim(), "660 1000 1000");
    // In the pod's network only faas listens: it lets gateways in when it controls.
    let connections = read("/proc/net/tcp") + &read("/proc/net/tcp6");
    let listens = connections.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        (words[3] == "0A").then(|| u16::from_str_radix(words[1].rsplit(':').next()?, 16).ok())?
    });
    let ports: BTreeSet<_> = listens.collect();
    assert!(ports.is_subset(&[5555, 5556].into()), "{ports:?}");
}

/// Each engine ends, as one that crashes does. The kubelet starts it again.
async fn engines_end(installed: &Installed) {
    let controllers = "app.kubernetes.io/component=controller";
    let list = |how| installed.in_system(&["get", "pods", "-l", controllers, "-o", how]);
    for pod in list("name").good().lines() {
        let end = ["exec", pod, "-c", "engine", "--", "sh", "-c", "kill 1"];
        installed.in_system(&end).good();
    }
    let starts = "jsonpath={.items[*].status.initContainerStatuses[0].restartCount}";
    wait_until("other engines run", SOON, async || {
        (list(starts).good() == "1 1").then_some(())
    })
    .await;
}

/// A program that answers with the user ids that a command in its build saw.
fn with_a_dockerfile() -> Value {
    let text = format!(
        "FROM node:22\nRUN : {} && cat /proc/self/uid_map > /ids\nCOPY index.js /\nCMD [\"node\", \"/index.js\"]\n",
        fresh()
    );
    let code = "const ids = require('fs').readFileSync('/ids', 'utf8').trim().split(/\\s+/).join(' ')
require('http').createServer((_, answer) => answer.end(JSON.stringify(ids))).listen(process.env.PORT)";
    let files = json!({"Dockerfile": text, "index.js": code});
    inline("dockerfile", files, json!({}))
}

/// A handler with a package, which is found without a registry of packages.
fn with_a_package() -> Value {
    let files = json!({
        "package.json": json!({"dependencies": {"word": "file:./word"}}).to_string(),
        "word/package.json": json!({"name": "word", "version": "1.0.0", "main": "index.js"}).to_string(),
        "word/index.js": format!("module.exports = 'packed' // {}", fresh()),
        "index.js": "module.exports = async () => require('word')",
    });
    inline("node", files, json!({}))
}

#[tokio::test]
async fn an_engine_without_root_beside_the_controller_builds_what_runs_commands() {
    if !has_image(ENGINE) {
        skip(
            TEST,
            "its engine's image is missing; `make test-cluster` brings one",
        );
        return;
    }
    let Some(installed) = install(&HALVES, build_engine).await else {
        return;
    };
    nobody_else_reaches_it(&installed);
    let (cluster, service) = (&installed.cluster, installed.service());
    let serves = async |name, spec, word| {
        cluster.apply(&function(name, spec));
        cluster.ready(name);
        service.answers(&cluster.key(name), word).await;
    };
    serves("with-a-dockerfile", with_a_dockerfile(), NO_ROOT).await;
    engines_end(&installed).await;
    serves("with-a-package", with_a_package(), "packed").await;
}

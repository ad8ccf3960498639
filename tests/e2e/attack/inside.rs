//! What a function can do and see where it is.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{attacker, attempt, server};
use crate::support::{docker, fresh, has_docker, node, save};

/// What the kernel answers to those who may not.
const REFUSALS: [&str; 4] = ["EPERM", "EACCES", "ENOSYS", "EAFNOSUPPORT"];

#[tokio::test]
async fn a_function_gains_no_privilege_and_does_not_touch_the_init() {
    if !has_docker("e2e privileges") {
        return;
    }
    let server = server().await;
    server.deploy("climber", attacker(json!({}))).await;
    let outcomes = attempt(&server, "climber", "privileges", json!({})).await;
    let outcomes = outcomes.as_object().unwrap();
    assert!(outcomes.len() > 30, "{outcomes:#?}");
    for (what, outcome) in outcomes {
        let outcome = outcome.as_str().unwrap();
        assert!(REFUSALS.contains(&outcome), "{what}: {outcome}");
    }
    server.delete("/functions/climber").await.expect(202);
}

#[tokio::test]
async fn a_function_writes_to_memory_of_its_own_and_nowhere_else() {
    if !has_docker("e2e writes") {
        return;
    }
    let server = server().await;
    server.deploy("scribbler", attacker(json!({}))).await;
    let mut found = attempt(&server, "scribbler", "writes", json!({})).await;
    // Whoever may open these waits for news of the machine's load; nothing is kept.
    let files = found["file"].as_array_mut().unwrap();
    files.retain(|file| !file.as_str().unwrap().starts_with("/proc/pressure/"));
    let devices = found["device"].take();
    let expected = json!({
        "directory": ["/dev/shm", "/run/faas", "/tmp"], "file": [], "socket": ["/run/faas/fn.sock"], "device": null,
    });
    assert_eq!(found, expected);
    for device in devices.as_array().unwrap() {
        let device = device.as_str().unwrap();
        let harmless = ["full", "null", "ptmx", "random", "tty", "urandom", "zero"];
        let name = device.rsplit('/').next().unwrap();
        // The engine covers files of the kernel by its null device.
        let covered = device.starts_with("/proc/") || device.starts_with("/sys/");
        assert!(covered || harmless.contains(&name), "{device}");
    }
    server.delete("/functions/scribbler").await.expect(202);
}

/// Whether a file of this host has this text.
fn is_in(path: &Path, text: &str) -> bool {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).contains(text)
}

#[tokio::test]
async fn a_function_finds_nothing_of_others() {
    if !has_docker("e2e neighbours") {
        return;
    }
    let server = server().await;
    let [code, env, secret, own] = [(); 4].map(|()| fresh());
    save(&server.home.secrets().join("theirs/key"), &secret);
    save(&server.home.secrets().join("own/key"), &own);
    // What is of the server alone: its identity, its key and its files.
    let state = server.home.state();
    let material = fresh();
    save(&state.join("access/tls.key"), &material);
    let owner = server.home.owner().unwrap();

    let victim = json!({
        "env": [{"name": "THEIRS", "value": env}], "secrets": [{"name": "theirs"}], "scale": {"min": 1},
    });
    let words = format!("module.exports = () => 'fine' // {code}");
    server.deploy("victim", node(&words, victim)).await;
    server
        .deploy("snoop", attacker(json!({"secrets": [{"name": "own"}]})))
        .await;

    let needles = json!([code, env, secret, material, own]);
    let input = json!({"needles": needles});
    let seen = attempt(&server, "snoop", "find", input).await;
    assert_eq!(
        seen["found"],
        json!({(own.as_str()): ["/run/secrets/own/key"]})
    );
    assert!(seen["read"].as_u64().unwrap() > 100, "{seen}");
    // All of that is on this host, and what the function reads is not another host's.
    assert!(is_in(&server.home.secrets().join("theirs/key"), &secret));
    assert!(is_in(&state.join("access/tls.key"), &material));
    let instance = &server.instances("victim", "ready").await[0];
    assert!(docker(&["inspect", instance]).contains(&env));
    assert!(docker(&["inspect", instance]).contains(&owner));

    let network = attempt(&server, "snoop", "network", json!({})).await;
    assert_eq!(network["interfaces"], json!(["lo"]));
    let unix = network["unix"].as_array().unwrap();
    let own = Value::from("/run/faas/fn.sock");
    assert!(unix.iter().all(|socket| *socket == own), "{unix:?}");
    for name in ["victim", "snoop"] {
        server
            .delete(&format!("/functions/{name}"))
            .await
            .expect(202);
    }
}

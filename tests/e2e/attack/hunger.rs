//! What a function uses up.

use std::fs;

use serde_json::json;

use super::{attacker, attempt, server};
use crate::{
    hostile::Watch,
    support::{SOON, docker, has_docker, wait_until},
};

const PIDS: usize = 32;
const DESCRIPTORS: usize = 1024;

/// A process of a container, seen from this host.
struct Process {
    threads: usize,
    descriptors: usize,
}

/// All of them.
fn processes(container: &str) -> Vec<Process> {
    let id = docker(&["inspect", "--format", "{{.Id}}", container]);
    assert!(!id.is_empty(), "{container}");
    let all = fs::read_dir("/proc").unwrap().flatten();
    let ours = all.filter(|process| {
        let groups = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        groups.contains(&id)
    });
    let count = |dir| fs::read_dir(dir).map_or(0, Iterator::count);
    ours.map(|process| Process {
        threads: count(process.path().join("task")),
        descriptors: count(process.path().join("fd")),
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_function_uses_up_is_its_own() {
    if !has_docker("e2e greed") {
        return;
    }
    let server = server().await;
    let resources = json!({"cpu": "1", "memory": "192Mi", "pids": PIDS, "tmp": "16Mi"});
    let more = json!({"resources": resources, "scale": {"min": 1, "max": 1}});
    server.deploy("glutton", attacker(more)).await;
    let instance = server.instances("glutton", "ready").await.remove(0);
    let watch = Watch::begin(&server, "glutton").await;

    let got = attempt(&server, "glutton", "gorge", json!({})).await;
    assert_eq!(got["disk"], json!(["ENOSPC", "ENOSPC", "ENOSPC"]));
    assert_eq!(got["end"], "EAGAIN", "there are no more processes: {got}");
    let hoards = got["hoards"].as_array().unwrap();
    assert!(hoards.len() > 5, "{got}");
    let files = hoards.iter().map(|hoard| hoard.as_u64().unwrap());
    assert!(files.clone().min() > Some(900), "{got}");

    let processes = processes(&instance);
    let threads: usize = processes.iter().map(|process| process.threads).sum();
    assert!(threads > PIDS / 2 && threads <= PIDS, "{threads}");
    let most = processes.iter().map(|process| process.descriptors).max();
    assert!(most > Some(900) && most <= Some(DESCRIPTORS), "{most:?}");
    // Nothing of it is on a disk.
    let written = docker(&["inspect", "--size", "--format", "{{.SizeRw}}", &instance]);
    assert_eq!(written, "0");

    // When memory runs out as well, what it has goes with it.
    let call = server.call("glutton", json!({"do": "hog"})).await;
    call.refused(502, "InstanceLost");
    wait_until("it is gone", SOON, async || {
        (!server.home.containers().contains(&instance)).then_some(())
    })
    .await;
    let fine = attempt(&server, "glutton", "fine", json!({})).await;
    assert_eq!(fine, "fine");
    watch.end().await;
    server.delete("/functions/glutton").await.expect(202);
}

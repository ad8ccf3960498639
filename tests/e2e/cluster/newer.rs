//! Functions of a faas that is newer than the one that runs: the cluster's definition lets their specs say what this one does not
//! understand.

use std::fs;

use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

use super::{answer, saying, served};
use crate::support::{
    SOON, Server,
    cluster::{CRD, Cluster},
    docker, wait_until,
};

/// A network that no faas knows yet.
const UNKNOWN: &str = r#"{"spec": {"network": "mesh-of-tomorrow"}}"#;
const KNOWN: &str = r#"{"spec": {"network": "none"}}"#;

/// There is one definition for all.
static DEFINITION: Mutex<()> = Mutex::const_new(());

/// The cluster's definition is a newer one until this goes.
struct Newer<'a> {
    cluster: &'a Cluster,
    _alone: MutexGuard<'static, ()>,
}

impl<'a> Newer<'a> {
    async fn defined(cluster: &'a Cluster) -> Self {
        let alone = DEFINITION.lock().await;
        let known = "                - internet\n";
        let crd = fs::read_to_string(CRD).unwrap();
        assert!(crd.contains(known));
        let both = format!("{known}                - mesh-of-tomorrow\n");
        define(cluster, &crd.replace(known, &both));
        Self {
            cluster,
            _alone: alone,
        }
    }
}

impl Drop for Newer<'_> {
    fn drop(&mut self) {
        define(self.cluster, &fs::read_to_string(CRD).unwrap());
    }
}

fn define(cluster: &Cluster, crd: &str) {
    let apply = ["apply", "--server-side", "-f", "-"];
    cluster.kubectl_with(apply, crd).good();
}

/// Says something to the object, as soon as the server goes by its new definition.
async fn say(cluster: &Cluster, words: &str) {
    wait_until("the API server takes it", SOON, async || {
        let ran = cluster.kubectl(["patch", "fn", "newer", "--type=merge", "-p", words]);
        ran.success.then_some(())
    })
    .await;
}

/// Waits until the status says that the newest generation is not understood, and whether something serves.
async fn is_told(cluster: &Cluster, serving: &str) {
    wait_until("it is told", SOON, async || {
        let object = cluster.get("fn", "newer")?;
        let newest = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        let stalled = cluster.condition("newer", "Stalled")?;
        let [status, reason, message] = cluster.condition("newer", "Ready")?;
        let is_told = newest && (status.as_str(), reason.as_str()) == ("False", "InvalidSpec");
        is_told.then(|| {
            assert!(message.contains("is not understood by faas"), "{message}");
            assert!(message.contains("mesh-of-tomorrow"), "{message}");
            assert_eq!(stalled[0], "True");
            assert_eq!(cluster.condition("newer", "Serving").unwrap()[0], serving);
        })
    })
    .await;
}

async fn answers(server: &Server, key: &str) {
    wait_until("it answers", SOON, async || {
        let reply = server.call(key, json!({})).await;
        (reply.status == 200).then(|| assert_eq!(reply.response(), "before"))
    })
    .await;
}

/// A Function that keeps an instance.
fn deployed(cluster: &Cluster) {
    let mut function = saying("newer", "before");
    function["spec"]["scale"] = json!({"min": 1});
    cluster.apply(&function);
    cluster.ready("newer");
}

async fn killed(server: Server) {
    server.signal(rustix::process::Signal::KILL);
    server.end().await;
}

#[tokio::test]
async fn what_served_of_a_function_that_is_not_understood_serves_on_also_after_a_restart() {
    let Some((cluster, home, server)) = served().await else {
        return;
    };
    let key = cluster.key("newer");
    deployed(&cluster);
    let (before, object) = (home.containers(), cluster.get("fn", "newer").unwrap());
    let image = object["status"]["image"].as_str().unwrap().to_owned();

    let _newer = Newer::defined(&cluster).await;
    say(&cluster, UNKNOWN).await;
    is_told(&cluster, "True").await;
    assert_eq!(answer(&server, &key).await, "before");

    // The memory of it is gone, and what the engine has of it stays.
    killed(server).await;
    let server = cluster.start().at(&home).await;
    answers(&server, &key).await;
    cluster.apply(&saying("another", "x"));
    cluster.ready("another");
    cluster.kubectl(["delete", "fn", "another"]).good();
    assert_eq!(home.containers(), before);
    docker(&["image", "inspect", &image]);
    is_told(&cluster, "True").await;

    // It is still its owner's to mend, and to delete.
    say(&cluster, KNOWN).await;
    cluster.ready("newer");
    assert_eq!(home.containers(), before, "nothing had changed");
    say(&cluster, UNKNOWN).await;
    is_told(&cluster, "True").await;
    let delete = ["delete", "fn", "newer", "--timeout=60s"];
    cluster.kubectl(delete).good();
    assert_eq!(home.containers(), [""; 0]);
}

/// As a newer faas would have kept what it serves.
fn rewrite_record(cluster: &Cluster) {
    let mut kept = cluster.list("controllerrevisions").remove(0);
    let record = kept["data"]["record"].as_str().unwrap();
    let newer = record.replace(r#""none""#, r#""mesh-of-tomorrow""#);
    assert_ne!(record, newer);
    kept["data"]["record"] = newer.into();
    let metadata = kept["metadata"].as_object_mut().unwrap();
    metadata.retain(|field, _| !["uid", "resourceVersion"].contains(&field.as_str()));
    let delete = ["delete", "controllerrevisions", "--all"];
    cluster.kubectl(delete).good();
    let create = ["create", "-f", "-"];
    cluster.kubectl_with(create, &kept.to_string()).good();
}

#[tokio::test]
async fn what_a_newer_faas_served_is_not_ended_where_its_record_is_not_understood() {
    let Some((cluster, home, server)) = served().await else {
        return;
    };
    deployed(&cluster);
    let before = home.containers();
    let _newer = Newer::defined(&cluster).await;
    say(&cluster, UNKNOWN).await;
    killed(server).await;
    rewrite_record(&cluster);

    let server = cluster.start().at(&home).await;
    is_told(&cluster, "False").await;
    let refused = server.call(&cluster.key("newer"), json!({})).await;
    refused.refused(503, "InvalidSpec");
    assert_eq!(home.containers(), before);
    say(&cluster, KNOWN).await;
    answers(&server, &cluster.key("newer")).await;
    assert_eq!(home.containers(), before);
}

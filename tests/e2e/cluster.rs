//! Functions declared by `kubectl`, run by the local engine: what people expect of a controller.

mod away;
mod bench;
mod days;
mod ending;
mod gateways;
mod hostile;
mod install;
mod isolation;
mod newer;
mod pods;
mod users;
mod verdicts;

use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    Home, SOON, Server, cluster::Cluster, function, has_docker, node, wait_until,
};

/// A cluster, a home, and a server between them.
async fn served() -> Option<(Cluster, Arc<Home>, Server)> {
    if !has_docker("e2e cluster") {
        return None;
    }
    let cluster = Cluster::here()?;
    let home = Arc::new(Home::new());
    let server = cluster.start().at(&home).await;
    wait_until("it knows what there is", SOON, async || {
        (server.get("/functions").await.status == 200).then_some(())
    })
    .await;
    Some((cluster, home, server))
}

fn saying(name: &str, word: &str) -> Value {
    let code = format!("module.exports = async () => {word:?}");
    function(name, node(&code, json!({})))
}

/// What a Function says.
async fn answer(server: &Server, key: &str) -> Value {
    server.call(key, json!({})).await.response()
}

impl Cluster {
    /// The name by which the server knows a Function of this namespace.
    fn key(&self, name: &str) -> String {
        format!("{name}.{}", self.namespace)
    }
}

#[tokio::test]
async fn what_kubectl_applies_is_ready_answers_and_is_shown() {
    let Some((cluster, home, server)) = served().await else {
        return;
    };
    cluster.apply(&saying("hello", "world"));
    cluster.ready("hello");
    assert_eq!(answer(&server, &cluster.key("hello")).await, "world");

    let table = cluster.kubectl(["get", "functions"]).good();
    let mut lines = table.lines();
    let head: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["NAME", "READY", "REASON", "REPLICAS", "URL", "AGE"]);
    let row: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["hello", "True", "Ready", "1"], "{table}");
    let wide = cluster.kubectl(["get", "fn", "-o", "wide"]).good();
    for column in ["LANGUAGE", "IMAGE", "REVISION", "MESSAGE"] {
        assert!(wide.contains(column), "{wide}");
    }
    let field = "functions.spec.scale.concurrency";
    let explained = cluster.kubectl(["explain", field]).good();
    assert!(explained.contains("DESCRIPTION"), "{explained}");

    // The finalizer came before the first container, and the status is the controller's by server-side apply.
    let object = cluster.get("fn", "hello").unwrap();
    assert_eq!(
        object["metadata"]["finalizers"],
        json!(["functions.faas.dev/cleanup"])
    );
    assert_eq!(object["status"]["observedGeneration"], 1);
    let managed = cluster.kubectl(["get", "fn", "hello", "-o", "json", "--show-managed-fields"]);
    let managed: Value = serde_json::from_str(&managed.good()).unwrap();
    let managers = managed["metadata"]["managedFields"].as_array().unwrap();
    let ours = |m: &&Value| m["subresource"] == "status";
    let ours: Vec<_> = managers.iter().filter(ours).collect();
    assert_eq!(ours.len(), 1);
    assert_eq!(
        (&ours[0]["manager"], &ours[0]["operation"]),
        (&json!("faas-controller"), &json!("Apply"))
    );

    cluster
        .kubectl([
            "delete",
            "fn",
            "hello",
            "--cascade=foreground",
            "--timeout=60s",
        ])
        .good();
    assert_eq!(
        home.containers(),
        [""; 0],
        "the object goes after the last container"
    );
    let gone = server.call(&cluster.key("hello"), json!({})).await;
    gone.refused(StatusCode::BAD_REQUEST.as_u16(), "NotFound");
}

#[tokio::test]
async fn an_edit_rolls_over_and_a_broken_one_leaves_the_old_one_serving_also_after_a_crash() {
    let Some((cluster, home, server)) = served().await else {
        return;
    };
    let key = cluster.key("rolls");
    cluster.apply(&saying("rolls", "one"));
    cluster.ready("rolls");
    cluster.apply(&saying("rolls", "two"));
    wait_until("the second version answers", SOON, async || {
        (answer(&server, &key).await == "two").then_some(())
    })
    .await;
    cluster.apply(&function("rolls", node("this is no code", json!({}))));
    let told = wait_until("the failure is told", SOON, async || {
        cluster
            .condition("rolls", "Ready")
            .filter(|[status, ..]| status == "False")
    })
    .await;
    assert_eq!(told[1], "StartFailed", "{told:?}");
    assert_eq!(answer(&server, &key).await, "two");
    let serving = cluster.condition("rolls", "Serving").unwrap();
    assert_eq!(serving[0], "True", "{serving:?}");
    // What is served is kept in the cluster, and what served before that.
    let kept = cluster.list("controllerrevisions");
    assert!(kept.len() <= 2, "{kept:?}");

    server.signal(rustix::process::Signal::KILL);
    server.end().await;
    drop(server);
    let server = cluster.start().at(&home).await;
    wait_until("the second version answers again", SOON, async || {
        let reply = server.call(&key, json!({})).await;
        (reply.status == 200).then(|| assert_eq!(reply.response(), "two"))
    })
    .await;
}

#[tokio::test]
async fn what_is_deleted_while_nobody_looks_is_cleaned_up_at_the_next_start() {
    let Some((cluster, home, server)) = served().await else {
        return;
    };
    cluster.apply(&saying("gone", "x"));
    cluster.apply(&saying("stays", "y"));
    cluster.ready("gone");
    cluster.ready("stays");
    let before = home.containers();
    assert_eq!(before.len(), 2);
    server.signal(rustix::process::Signal::KILL);
    server.end().await;
    drop(server);
    cluster
        .kubectl(["delete", "fn", "gone", "--wait=false"])
        .good();
    let object = cluster.get("fn", "gone").unwrap();
    assert!(
        object["metadata"]["deletionTimestamp"].is_string(),
        "held by the finalizer"
    );

    let server = cluster.start().at(&home).await;
    wait_until("the object has gone", SOON, async || {
        cluster.get("fn", "gone").is_none().then_some(())
    })
    .await;
    let left = home.containers();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(before.contains(&left[0]), "the other one was adopted");
    assert_eq!(answer(&server, &cluster.key("stays")).await, "y");
}

#[tokio::test]
async fn a_function_deleted_and_applied_again_is_another_one() {
    let Some((cluster, _home, server)) = served().await else {
        return;
    };
    cluster.apply(&saying("again", "first"));
    cluster.ready("again");
    let uid = |object: &Value| object["metadata"]["uid"].clone();
    let first = uid(&cluster.get("fn", "again").unwrap());
    cluster.kubectl(["delete", "fn", "again"]).good();
    cluster.apply(&saying("again", "second"));
    cluster.ready("again");
    assert_ne!(uid(&cluster.get("fn", "again").unwrap()), first);
    assert_eq!(answer(&server, &cluster.key("again")).await, "second");
}

#[tokio::test]
async fn rest_and_command_line_write_to_the_cluster_too() {
    let Some((cluster, _home, server)) = served().await else {
        return;
    };
    let mut object = saying("put", "by REST");
    object["metadata"]["namespace"] = cluster.namespace.clone().into();
    let path = format!("/functions/{}", cluster.key("put"));
    server.put(&path, object.to_string()).await.expect(201);
    server.put(&path, object.to_string()).await.expect(200);
    cluster.ready("put");
    assert_eq!(answer(&server, &cluster.key("put")).await, "by REST");
    let events = server
        .get(&format!("{path}/events"))
        .await
        .expect(200)
        .json();
    let reasons = events["items"].as_array().unwrap().iter();
    assert!(reasons.clone().any(|e| e["reason"] == "Ready"), "{events}");
    let told = cluster.kubectl(["describe", "fn", "put"]).good();
    assert!(told.contains("faas.dev/controller"), "{told}");

    // Fields that kubectl holds are not taken away from it.
    cluster.apply(&saying("held", "by kubectl"));
    cluster.ready("held");
    let mut object = saying("held", "by REST");
    object["metadata"]["namespace"] = cluster.namespace.clone().into();
    let path = format!("/functions/{}", cluster.key("held"));
    let reply = server.put(&path, object.to_string()).await;
    assert!(reply.text.contains("kubectl"), "{reply:?}");
    reply.refused(409, "Conflict");
    server.delete(&path).await.expect(202);
    wait_until("it has gone", SOON, async || {
        cluster.get("fn", "held").is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_directory_is_no_source_in_a_cluster() {
    let Some((cluster, _home, _server)) = served().await else {
        return;
    };
    let spec = json!({"language": "node", "source": {"directory": "./sum"}});
    cluster.apply(&function("elsewhere", spec));
    let told = wait_until("the source is missed", SOON, async || {
        cluster
            .condition("elsewhere", "SourceReady")
            .filter(|[status, ..]| status == "False")
    })
    .await;
    assert!(told[2].contains("directory"), "{told:?}");
    assert_eq!(
        cluster.condition("elsewhere", "Stalled").unwrap()[0],
        "True"
    );
}

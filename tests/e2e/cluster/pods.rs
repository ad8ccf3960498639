//! Functions whose instances are pods of a real node: they start, roll over, go to zero and come back as containers do, and
//! go on when the controller does not.

use std::{collections::BTreeSet, fs, process::Command, sync::Arc, time::Duration};

use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{
    Home, SOON, Server, Start,
    cluster::Cluster,
    function, has_docker, node,
    prober::{Prober, honest},
    wait_until,
};

const SHIM: &str = include_str!("../../../languages/node/shim.js");

/// A cluster with a registry, whose namespace takes no pod that is not restricted, and a server that runs pods there.
pub(super) async fn served() -> Option<(Cluster, Arc<Home>, Server)> {
    if !has_docker("e2e pods") {
        return None;
    }
    let cluster = Cluster::here()?;
    Cluster::registry("e2e pods")?;
    let level = "pod-security.kubernetes.io/enforce=restricted";
    let namespace = cluster.namespace.clone();
    cluster
        .kubectl(["label", "namespace", &namespace, level])
        .good();
    let home = Arc::new(Home::new());
    let server = start(&cluster).at(&home).await;
    Some((cluster, home, server))
}

fn start(cluster: &Cluster) -> Start {
    cluster.start().with("--runtime", "pods")
}

/// A server that puts images together, and where.
pub(super) fn building(cluster: &Cluster) -> (Start, String) {
    let (place, base) = push_base(cluster);
    let start = start(cluster).with("--registry", &place);
    (start.with("--base-image", format!("node={base}")), place)
}

/// Builds the image of a handler and pushes it where nodes pull it.
pub(super) fn image(cluster: &Cluster, name: &str, code: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("shim.js"), SHIM).unwrap();
    fs::write(dir.path().join("index.js"), code).unwrap();
    let dockerfile = "FROM faas.local/node:22\nCOPY index.js /function/\nCOPY shim.js /faas/\n\
                      CMD [\"node\", \"--max-http-header-size=131072\", \"/faas/shim.js\"]\n";
    fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    let registry = Cluster::registry("e2e pods").unwrap();
    let image = format!("{registry}/{}/{name}", cluster.namespace);
    let dir = dir.path().to_str().unwrap();
    for words in [vec!["build", "--tag", &image, dir], vec!["push", &image]] {
        let output = Command::new("docker").args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    image
}

/// Where images of a test's own go in the registry, and the base that is there.
pub(super) fn push_base(cluster: &Cluster) -> (String, String) {
    let registry = Cluster::registry("e2e pods").unwrap();
    let base = format!("{registry}/bases/node:22");
    for words in [
        ["tag", "faas.local/node:22", &base].as_slice(),
        &["push", &base],
    ] {
        let output = Command::new("docker").args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    (format!("{registry}/{}", cluster.namespace), base)
}

pub(super) fn ready_made(name: &str, image: &str, more: Value) -> Value {
    let mut spec = json!({"source": {"image": image}});
    let fields = more.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(fields);
    function(name, spec)
}

impl Cluster {
    /// The pods of a Function, those that end among them.
    pub(super) fn pods(&self, name: &str) -> Vec<Value> {
        let label = format!("faas.dev/function={name}");
        let ran = self.kubectl(["get", "pods", "-l", &label, "-o", "json"]);
        let list: Value = serde_json::from_str(&ran.good()).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// The pods that a Function's status selects, as `kubectl` tells them.
    fn selected(&self, name: &str) -> String {
        let object = self.get("function", name).unwrap();
        let selector = object["status"]["selector"].as_str().unwrap();
        let pods = ["get", "pods", "-l", selector, "-o", "name"];
        self.kubectl(pods).good()
    }

    pub(super) fn pod_names(&self, name: &str) -> Vec<String> {
        let pods = self.pods(name);
        let names = pods
            .iter()
            .map(|pod| pod["metadata"]["name"].as_str().unwrap());
        names.map(str::to_owned).collect()
    }

    pub(super) async fn has_no_pods(&self, name: &str) {
        wait_until("all pods are gone", SOON, async || {
            self.pods(name).is_empty().then_some(())
        })
        .await;
    }
}

/// Whoever takes it away.
async fn policy_comes_back(cluster: &Cluster, policy: &Value) {
    let removed = ["delete", "networkpolicy", "faas-network-none"];
    cluster.kubectl(removed).good();
    wait_until("the policy is there again", SOON, async || {
        let again = cluster.get("networkpolicy", "faas-network-none")?;
        (again["metadata"]["uid"] != policy["metadata"]["uid"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pod_is_an_instance_and_goes_with_its_function() {
    let Some((cluster, _home, server)) = served().await else {
        return;
    };
    let code = "module.exports = () => ({uid: process.getuid(), env: process.env.WORD})";
    let image = image(&cluster, "hello", code);
    let env = json!({"env": [{"name": "WORD", "value": "a $(PORT) $b"}], "scale": {"min": 1}});
    cluster.apply(&ready_made("hello", &image, env));
    cluster.ready("hello");
    let key = cluster.key("hello");
    let answer = server.call(&key, json!({})).await.response();
    assert_eq!(answer, json!({"uid": 65532, "env": "a $(PORT) $b"}));

    let pod = wait_until("a pod is ready", SOON, async || {
        let pods = cluster.pods("hello").into_iter();
        pods.into_iter()
            .find(|pod| pod["status"]["podIP"].is_string())
    })
    .await;
    let owner = &pod["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["name"]),
        (&json!("Function"), &json!("hello"))
    );
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);

    assert!(cluster.selected("hello").contains("pod/faas-hello-"));
    let policy = cluster.get("networkpolicy", "faas-network-none").unwrap();
    let selected = &policy["spec"]["podSelector"]["matchLabels"];
    for (label, value) in selected.as_object().unwrap() {
        assert_eq!(
            pod["metadata"]["labels"][label], *value,
            "it reaches nothing"
        );
    }

    policy_comes_back(&cluster, &policy).await;

    // Someone else at its address is answered by nobody: the shim knows whom it is.
    let port = container["ports"][0]["containerPort"].as_u64().unwrap();
    let address = format!(
        "http://{}:{port}/invoke",
        pod["status"]["podIP"].as_str().unwrap()
    );
    let strange = crate::support::client()
        .post(address)
        .header("x-faas-instance", "another");
    let refused = strange.body("{}").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::MISDIRECTED_REQUEST);

    let deleted = [
        "delete",
        "fn",
        "hello",
        "--cascade=foreground",
        "--timeout=60s",
    ];
    cluster.kubectl(deleted).good();
    assert_eq!(
        cluster.pod_names("hello"),
        [""; 0],
        "foreground waits for what is owned"
    );
    let gone = server.call(&key, json!({})).await;
    assert_eq!(gone.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_over_of_pods_loses_no_call() {
    let Some((cluster, _home, server)) = served().await else {
        return;
    };
    let key = cluster.key("moved");
    let scale = json!({"scale": {"min": 1, "max": 2, "concurrency": 8}});
    let apply = |version: u64| {
        let code = honest(&key, version);
        let image = image(&cluster, &format!("moved-{version}"), &code);
        cluster.apply(&ready_made("moved", &image, scale.clone()));
    };
    apply(1);
    cluster.ready("moved");
    let prober = Prober::start(&server, &key, Duration::from_millis(12), 20).await;
    for version in [2, 3] {
        apply(version);
        wait_until("the new version answers", SOON * 2, async || {
            let answer = server.call(&key, json!({"ms": 0})).await.response();
            (answer["version"] == version).then_some(())
        })
        .await;
    }
    let ledger = prober.stop().await;
    ledger.check(|_| false);
    assert_eq!(ledger.versions(), [1, 2, 3], "{}", ledger.summary());
}

#[tokio::test]
async fn pods_go_to_zero_and_callers_wait_for_the_first_of_many() {
    let Some((cluster, _home, server)) = served().await else {
        return;
    };
    let image = image(&cluster, "rare", "module.exports = () => 'here'");
    let scale = json!({"scale": {"min": 0, "max": 2, "concurrency": 100, "idleAfterSeconds": 1}});
    cluster.apply(&ready_made("rare", &image, scale));
    cluster.ready("rare");
    cluster.has_no_pods("rare").await;
    let key = cluster.key("rare");
    let calls = (0..20).map(|_| server.call(&key, json!({})));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.response(), "here");
    }
    cluster.has_no_pods("rare").await;
}

/// Asks the API server to evict a pod, as `kubectl drain` does.
fn evict(cluster: &Cluster, pod: &str) {
    let path = format!(
        "/api/v1/namespaces/{}/pods/{pod}/eviction",
        cluster.namespace
    );
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
    cluster
        .kubectl_with(["create", "--raw", &path, "-f", "-"], &eviction.to_string())
        .good();
}

fn delete(cluster: &Cluster, pod: &str) {
    cluster
        .kubectl(["delete", "pod", pod, "--wait=false"])
        .good();
}

async fn gone(cluster: &Cluster, pod: &str) {
    wait_until("it is gone", SOON, async || {
        cluster.get("pod", pod).is_none().then_some(())
    })
    .await;
}

/// Answers who it is, when it is told to.
const WAITS: &str = "module.exports = ({ms}, cb) => {
    if (ms) console.log('it waits')
    setTimeout(() => cb(process.env.FAAS_INSTANCE), ms)
}";

/// A call of ten seconds, and the name and the uid of the pod that has it.
async fn long_call(
    cluster: &Cluster,
    server: &Server,
    name: &str,
) -> (
    JoinHandle<reqwest::Result<reqwest::Response>>,
    String,
    Value,
) {
    let url = server.url(&format!("/functions/{}", cluster.key(name)));
    let call = crate::support::client().post(&url).body(r#"{"ms": 10000}"#);
    let running = tokio::spawn(call.send());
    let pod = wait_until("a pod has the call", SOON, async || {
        let mut names = cluster.pod_names(name).into_iter();
        names.find(|name| cluster.kubectl(["logs", name]).stdout.contains("it waits"))
    })
    .await;
    let uid = cluster.get("pod", &pod).unwrap()["metadata"]["uid"].clone();
    (running, pod, uid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_somebody_deletes_or_evicts_answers_the_calls_that_it_has() {
    let Some((cluster, _home, server)) = served().await else {
        return;
    };
    let image = image(&cluster, "slow", WAITS);
    let more = json!({"scale": {"min": 1, "max": 2, "concurrency": 10}, "timeoutSeconds": 20});
    cluster.apply(&ready_made("slow", &image, more));
    cluster.ready("slow");
    let key = cluster.key("slow");
    for end in [delete, evict] {
        let (running, pod, uid) = long_call(&cluster, &server, "slow").await;
        end(&cluster, &pod);
        wait_until("another pod answers", SOON, async || {
            let answer = server.call(&key, json!({"ms": 0})).await.response();
            (answer != uid).then_some(())
        })
        .await;
        assert!(!running.is_finished(), "the call goes on");
        let answer = running.await.unwrap().unwrap().text().await.unwrap();
        assert!(answer.contains(uid.as_str().unwrap()), "{answer}");
        gone(&cluster, &pod).await;
    }
}

/// Far longer than what an idle pod takes to end.
const LONG_CALLS: u64 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_somebody_deletes_goes_as_soon_as_it_has_no_call() {
    let Some((cluster, _home, idle)) = served().await else {
        return;
    };
    idle.signal(Signal::TERM);
    idle.end().await;
    let (start, _) = building(&cluster);
    let server = start.at(&Arc::new(Home::new())).await;
    let more =
        json!({"scale": {"min": 1, "max": 2, "concurrency": 10}, "timeoutSeconds": LONG_CALLS});
    cluster.apply(&function("built", node(WAITS, more)));
    cluster.ready("built");
    let key = cluster.key("built");

    // One that was called a moment ago, with connections that are kept for the next call.
    server.call(&key, json!({"ms": 0})).await.expect(200);
    let [pod] = &cluster.pod_names("built")[..] else {
        panic!("one pod is kept")
    };
    delete(&cluster, pod);
    gone(&cluster, pod).await;

    // One that has a call.
    let (running, pod, uid) = long_call(&cluster, &server, "built").await;
    delete(&cluster, &pod);
    let answer = running.await.unwrap().unwrap().text().await.unwrap();
    assert!(answer.contains(uid.as_str().unwrap()), "{answer}");
    gone(&cluster, &pod).await;

    cluster.ready("built");
    let deleted = [
        "delete",
        "fn",
        "built",
        "--cascade=foreground",
        "--timeout=60s",
    ];
    cluster.kubectl(deleted).good();
    assert_eq!(cluster.pod_names("built"), [""; 0]);
    let events = cluster.kubectl(["get", "events"]).good();
    assert!(!events.contains("FailedPreStopHook"), "{events}");
}

#[tokio::test]
async fn a_pod_that_runs_out_of_memory_is_told_and_replaced() {
    let Some((cluster, _home, server)) = served().await else {
        return;
    };
    let code = "module.exports = ({eat}, cb) => {
        const eaten = []
        while (eat) eaten.push(Buffer.alloc(1 << 20, 1))
        cb('sated')
    }";
    let image = image(&cluster, "hungry", code);
    let more = json!({"scale": {"min": 1, "max": 1}, "resources": {"memory": "96Mi"}});
    cluster.apply(&ready_made("hungry", &image, more));
    cluster.ready("hungry");
    let key = cluster.key("hungry");
    let [first] = &cluster.pod_names("hungry")[..] else {
        panic!("one pod is kept")
    };
    let lost = server.call(&key, json!({"eat": true})).await;
    lost.refused(502, "InstanceLost");
    wait_until("events tell why", SOON, async || {
        let events = cluster.kubectl(["events", "--for", "fn/hungry"]).good();
        events.contains("OOMKilled").then_some(())
    })
    .await;
    assert_eq!(server.call(&key, json!({})).await.response(), "sated");
    wait_until("one pod is there, another one", SOON, async || {
        let names = cluster.pod_names("hungry");
        (names.len() == 1 && names[0] != *first).then_some(())
    })
    .await;
}

#[tokio::test]
async fn deleted_and_applied_again_at_once_it_is_simply_new() {
    let Some((cluster, _home, server)) = served().await else {
        return;
    };
    let image = image(
        &cluster,
        "again",
        "module.exports = () => process.env.FAAS_INSTANCE",
    );
    let function = ready_made("again", &image, json!({"scale": {"min": 1}}));
    let key = cluster.key("again");
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        cluster.apply(&function);
        cluster.ready("again");
        let uid = cluster.get("fn", "again").unwrap()["metadata"]["uid"].clone();
        let owners = || {
            let pods = cluster.pods("again").into_iter();
            pods.map(|mut pod| pod["metadata"]["ownerReferences"][0]["uid"].take())
        };
        wait_until("all pods are its own", SOON, async || {
            owners().all(|owner| owner == uid).then_some(())
        })
        .await;
        let pod = server.call(&key, json!({})).await.response().to_string();
        assert!(seen.insert(pod), "no pod of the one before answers");
        cluster
            .kubectl(["delete", "fn/again", "--wait=false"])
            .good();
    }
}

#[tokio::test]
async fn an_image_that_no_node_can_pull_is_told_in_the_nodes_words() {
    let Some((cluster, _home, server)) = served().await else {
        return;
    };
    let good = image(&cluster, "good", "module.exports = () => 'good'");
    let always = json!({"scale": {"min": 1}});
    cluster.apply(&ready_made("broken", &good, always.clone()));
    cluster.ready("broken");
    let bad = format!("{}/nothing/here:1", Cluster::registry("e2e pods").unwrap());
    cluster.apply(&ready_made("broken", &bad, always));
    wait_until("the condition tells", SOON, async || {
        let [_, reason, message] = cluster.condition("broken", "Deployed")?;
        (reason == "PullFailed" && message.contains("not found")).then_some(())
    })
    .await;
    let answer = server.call(&cluster.key("broken"), json!({})).await;
    assert_eq!(answer.response(), "good", "the old revision serves");
}

#[tokio::test]
async fn pods_outlive_the_controller_and_are_adopted() {
    let Some((cluster, home, mut server)) = served().await else {
        return;
    };
    let code = "module.exports = () => process.env.FAAS_INSTANCE";
    let image = image(&cluster, "lasting", code);
    cluster.apply(&ready_made("lasting", &image, json!({"scale": {"min": 1}})));
    cluster.ready("lasting");
    let key = cluster.key("lasting");
    let before = server.call(&key, json!({})).await.response();
    for signal in [Signal::INT, Signal::KILL] {
        server.signal(signal);
        server.end().await;
        assert_eq!(cluster.pods("lasting").len(), 1);
        server = start(&cluster).at(&home).await;
        let answer = wait_until("it answers", SOON, async || {
            let answer = server.call(&key, json!({})).await;
            (answer.status == StatusCode::OK).then(|| answer.response())
        });
        assert_eq!(answer.await, before, "by the same pod");
    }
}

#[tokio::test]
async fn a_changed_secret_is_a_new_revision_and_no_pod_sees_half_of_it() {
    let Some((cluster, _home, server)) = served().await else {
        return;
    };
    let code = "const fs = require('fs'); \
                module.exports = () => fs.readFileSync('/run/secrets/login/password', 'utf8')";
    let image = image(&cluster, "secretive", code);
    let more = json!({"secrets": [{"name": "login"}], "scale": {"min": 1}});
    cluster.apply(&ready_made("secretive", &image, more));
    wait_until("the missing Secret is told", SOON, async || {
        let [_, reason, message] = cluster.condition("secretive", "Ready")?;
        (reason == "SecretNotFound" && message.contains("there is none")).then_some(())
    })
    .await;
    let key = cluster.key("secretive");
    for word in ["first", "second"] {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"},
            "stringData": {"password": word},
        });
        cluster.apply(&secret);
        wait_until("it has the secret", SOON, async || {
            let answer = server.call(&key, json!({})).await;
            (answer.status == StatusCode::OK && answer.response() == word).then_some(())
        })
        .await;
    }
    let status = cluster.get("fn", "secretive").unwrap().to_string();
    assert!(!status.contains("second"), "{status}");
    cluster.kubectl(["delete", "fn", "secretive"]).good();
    cluster.has_no_pods("secretive").await;
    wait_until("no copy is left", SOON, async || {
        let label = "faas.dev/function=secretive";
        let left = cluster.kubectl(["get", "secrets", "-l", label, "-o", "name"]);
        left.good().is_empty().then_some(())
    })
    .await;
}

/// Only one of two may control, and calls need it for nothing that runs.
#[tokio::test]
async fn of_two_controllers_one_waits_and_takes_over() {
    let Some((cluster, _home, first)) = served().await else {
        return;
    };
    let code = "module.exports = () => process.env.FAAS_INSTANCE";
    let image = image(&cluster, "kept", code);
    cluster.apply(&ready_made(
        "kept",
        &image,
        json!({"scale": {"min": 1, "max": 1}}),
    ));
    cluster.ready("kept");
    let key = cluster.key("kept");
    let before = first.call(&key, json!({})).await.response();

    let other = Arc::new(Home::new());
    let waiting = start(&cluster).at(&other);
    let killing = async {
        let holder = async || cluster.get("lease", "faas-controller");
        assert!(holder().await.is_some());
        // Stopped for as long as others wait, and more.
        first.signal(Signal::STOP);
    };
    let (second, ()) = tokio::join!(waiting, killing);
    assert_eq!(second.call(&key, json!({})).await.response(), before);
    let url = async || {
        let status = cluster.get("fn", "kept")?["status"].clone();
        (status["url"] == second.url(&format!("/functions/{key}"))).then_some(())
    };
    wait_until("the second one says where it is called", SOON, url).await;
    first.signal(Signal::CONT);
    assert!(!first.end().await.success(), "it was replaced");
    assert!(
        first
            .said()
            .contains("controls this cluster's functions now")
    );
    assert_eq!(url().await, Some(()), "it wrote nothing");

    // Who ends in order lets the next one begin at once, and who waits can be ended.
    second.signal(Signal::TERM);
    assert!(second.end().await.success());
    let lease = cluster.get("lease", "faas-controller").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], Value::Null);
    assert_eq!(cluster.pod_names("kept").len(), 1);
}

/// What is declared inline and what is uploaded is put together in the registry, by no engine, and runs by digest.
#[tokio::test]
async fn code_without_dependencies_runs_without_a_build_engine() {
    let Some((cluster, home, server)) = served().await else {
        return;
    };
    drop(server);
    let (start, place) = building(&cluster);
    let server = start.at(&home).await;
    let key = cluster.key("inline");
    for word in ["first", "second"] {
        cluster.apply(&super::saying("inline", word));
        wait_until("it says so", SOON, async || {
            let answer = server.call(&key, json!({})).await;
            (answer.status == StatusCode::OK && answer.response() == word).then_some(())
        })
        .await;
    }
    let image = cluster.pods("inline")[0]["spec"]["containers"][0]["image"].clone();
    let image = image.as_str().unwrap();
    assert!(
        image.starts_with(&place) && image.contains("@sha256:"),
        "{image}"
    );
    let built = cluster.get("fn", "inline").unwrap()["status"]["lastBuild"].clone();
    assert!(built["completionTime"].is_string(), "{built}");
}

/// The cluster's own helpers write what is kept of a Function anew: it must stay the same by every byte.
#[tokio::test]
async fn a_function_whose_dependents_are_orphaned_goes_and_its_pods_too() {
    let Some((cluster, _home, server)) = served().await else {
        return;
    };
    let image = image(&cluster, "left", "module.exports = () => 'here'");
    let env =
        json!([{"name": "ODD", "value": "<b> & \u{2028} \"c\""}, {"name": "A", "value": "1"}]);
    cluster.apply(&ready_made(
        "left",
        &image,
        json!({"env": env, "scale": {"min": 1}}),
    ));
    cluster.ready("left");
    let kept = wait_until("what it serves is kept", SOON, async || {
        cluster.list("controllerrevisions").pop()
    })
    .await;
    let name = kept["metadata"]["name"].as_str().unwrap();
    cluster
        .kubectl(["label", "controllerrevision", name, "seen=yes"])
        .good();
    let orphan = ["delete", "fn", "left", "--cascade=orphan", "--timeout=60s"];
    cluster.kubectl(orphan).good();
    cluster.has_no_pods("left").await;
    let call = server.call(&cluster.key("left"), json!({})).await;
    call.refused(400, "NotFound");
}

/// Nobody waits for what is no more.
#[tokio::test]
async fn callers_of_a_function_that_was_deleted_are_told_at_once() {
    let Some((cluster, _home, server)) = served().await else {
        return;
    };
    let image = image(&cluster, "gone", "module.exports = () => 'here'");
    let object = ready_made("gone", &image, json!({"scale": {"min": 1}}));
    let key = cluster.key("gone");
    for _ in 0..2 {
        cluster.apply(&object);
        cluster.ready("gone");
        assert_eq!(server.call(&key, json!({})).await.response(), "here");
        cluster.kubectl(["delete", "fn", "gone"]).good();
        wait_until("it is known to be gone", SOON, async || {
            let call = server.call(&key, json!({})).await;
            (call.header("x-faas-error") == "NotFound").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_no_node_has_room_for_says_so_at_once() {
    let Some((cluster, _home, _server)) = served().await else {
        return;
    };
    let image = image(&cluster, "vast", "module.exports = () => 'here'");
    let vast = json!({"resources": {"cpu": "64"}, "scale": {"min": 1}});
    cluster.apply(&ready_made("vast", &image, vast));
    wait_until("the scheduler's words are told", SOON, async || {
        let [status, reason, message] = cluster.condition("vast", "Ready")?;
        let told = message.contains("nodes are available") && message.contains("cpu");
        (told && status == "Unknown" && reason == "Starting").then_some(())
    })
    .await;
}

/// They may have pull secrets for it, or have it already.
#[tokio::test]
async fn an_image_that_only_nodes_may_have_is_left_to_them() {
    let Some((cluster, home, server)) = served().await else {
        return;
    };
    drop(server);
    let (start, _) = building(&cluster);
    let _server = start.at(&home).await;
    let spec = json!({"scale": {"min": 1}});
    cluster.apply(&ready_made("theirs", "nowhere.invalid/some/image:1", spec));
    wait_until("the node's words are told", SOON, async || {
        let [_, reason, message] = cluster.condition("theirs", "Ready")?;
        (reason == "PullFailed" && message.contains("ImagePull")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_function_that_others_hold_says_that_it_ends() {
    let Some((cluster, _home, server)) = served().await else {
        return;
    };
    let image = image(&cluster, "held", "module.exports = () => 'here'");
    let mut object = ready_made("held", &image, json!({"scale": {"min": 1}}));
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.apply(&object);
    cluster.ready("held");
    let delete = ["delete", "fn", "held", "--wait=false"];
    cluster.kubectl(delete).good();
    cluster.has_no_pods("held").await;
    wait_until("the status says so", SOON, async || {
        let [_, reason, _] = cluster.condition("held", "Ready")?;
        let status = cluster.get("fn", "held")?["status"].clone();
        (reason == "Draining" && status["replicas"] == 0).then_some(())
    })
    .await;
    let call = server.call(&cluster.key("held"), json!({})).await;
    call.refused(400, "NotFound");
    let free = json!({"metadata": {"finalizers": null}}).to_string();
    cluster
        .kubectl(["patch", "fn", "held", "--type=merge", "-p", &free])
        .good();
    wait_until("it has gone", SOON, async || {
        cluster.get("fn", "held").is_none().then_some(())
    })
    .await;
}

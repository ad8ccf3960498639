//! Days on which the API server is slow, busy or broken, has forgotten, or falls silent; and what others do to a Function
//! meanwhile.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::{answer, saying};
use crate::support::{
    Home, SOON, Server, client,
    cluster::{Cluster, FaultyApi},
    fault::{ALWAYS, Fault},
    function, has_docker, node,
    prober::{Prober, honest},
    wait_until,
};

/// Time between two calls of a function.
const PACE: Duration = Duration::from_millis(25);
/// A watch that says nothing is given up after 50 s, and what fails again and again is tried once a minute.
const PATIENCE: Duration = Duration::from_secs(150);

/// A server whose API server is before a test's faults.
async fn served() -> Option<(Cluster, FaultyApi, Server)> {
    if !has_docker("e2e cluster") {
        return None;
    }
    let cluster = Cluster::here()?;
    let api = cluster.faulty().await;
    let start = cluster.start();
    let start = start.in_environment("KUBECONFIG", &api.kubeconfig);
    let server = start.at(&Arc::new(Home::new())).await;
    Some((cluster, api, server))
}

/// What the API server says when it refuses.
fn refusal(code: u16, reason: &str) -> Fault {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason, "code": code,
    });
    Fault::Answer(code, status.to_string())
}

/// A Function that keeps a ledger, by the name that the server knows it by.
fn version(cluster: &Cluster, name: &str, version: u64) -> Value {
    let code = honest(&cluster.key(name), version);
    let scale =
        json!({"scale": {"min": 1, "max": 1, "concurrency": 8}, "startupTimeoutSeconds": 60});
    function(name, node(&code, scale))
}

/// Waits until the newest generation is Ready.
async fn settled(cluster: &Cluster, name: &str) {
    wait_until("the newest generation is Ready", PATIENCE, async || {
        let object = cluster.get("fn", name)?;
        let status = &object["status"];
        let newest = status["observedGeneration"] == object["metadata"]["generation"];
        let conditions = status["conditions"].as_array()?;
        let ready = conditions.iter().find(|c| c["type"] == "Ready")?;
        (newest && ready["status"] == "True").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_slow_busy_or_broken_delays_and_loses_nothing() {
    let Some((cluster, api, server)) = served().await else {
        return;
    };
    let key = cluster.key("warm");
    cluster.apply(&version(&cluster, "warm", 1));
    settled(&cluster, "warm").await;
    let prober = Prober::start(&server, &key, PACE, 10).await;
    for (number, fault) in [
        (2, Fault::Delay(Duration::from_millis(1500))),
        (3, refusal(429, "TooManyRequests")),
        (4, refusal(500, "InternalError")),
    ] {
        let enough = api.before.hits() + 12;
        for method in ["PATCH", "POST", "GET"] {
            api.before.on(method, "/", ALWAYS, fault.clone());
        }
        api.before.cut("watch=true");
        cluster.apply(&version(&cluster, "warm", number));
        wait_until("requests meet it", SOON, async || {
            (api.before.hits() >= enough).then_some(())
        })
        .await;
        if let Fault::Answer(..) = fault {
            api.before.heal();
        }
        settled(&cluster, "warm").await;
        api.before.heal();
    }
    let ledger = prober.stop().await;
    ledger.check(|_| false);
    assert_eq!(ledger.versions(), [1, 2, 3, 4], "{}", ledger.summary());
    wait_until("one instance is left", SOON, async || {
        (server.home.containers().len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_the_api_server_has_forgotten_is_listed_again() {
    let Some((cluster, api, server)) = served().await else {
        return;
    };
    for name in ["goes", "changes", "stays"] {
        cluster.apply(&saying(name, "first"));
    }
    for name in ["goes", "changes", "stays"] {
        settled(&cluster, name).await;
    }
    // Called once, it has an instance.
    assert_eq!(answer(&server, &cluster.key("stays")).await, "first");
    let of_what_stays = || {
        let mut containers = server.home.containers();
        containers.retain(|container| container.starts_with("faas-stays-"));
        containers
    };
    let before = of_what_stays();

    // Nobody hears of what happens now, and then the history is gone.
    let away = || refusal(503, "ServiceUnavailable");
    api.before.on("GET", "/functions?", ALWAYS, away());
    api.before.cut("watch=true");
    let delete = ["delete", "fn", "goes", "--wait=false"];
    cluster.kubectl(delete).good();
    cluster.apply(&saying("changes", "second"));
    cluster.apply(&saying("comes", "third"));
    assert_eq!(answer(&server, &cluster.key("stays")).await, "first");
    api.before.heal();
    api.before
        .on("GET", "watch=true", 3, refusal(410, "Expired"));

    settled(&cluster, "comes").await;
    settled(&cluster, "changes").await;
    wait_until("the deleted one has gone", SOON, async || {
        cluster.get("fn", "goes").is_none().then_some(())
    })
    .await;
    for (name, word) in [
        ("comes", "third"),
        ("changes", "second"),
        ("stays", "first"),
    ] {
        assert_eq!(answer(&server, &cluster.key(name)).await, word);
    }
    assert_eq!(of_what_stays(), before, "nobody touched it");
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_begun_anew() {
    let Some((cluster, api, server)) = served().await else {
        return;
    };
    cluster.apply(&saying("quiet", "before"));
    settled(&cluster, "quiet").await;
    // Taken, and nothing comes: not even its end.
    api.before.on("GET", "watch=true", ALWAYS, Fault::Silence);
    api.before.cut("watch=true");
    wait_until("somebody watches in vain", SOON, async || {
        (api.before.hits() > 0).then_some(())
    })
    .await;
    cluster.apply(&saying("quiet", "after"));
    let key = cluster.key("quiet");
    assert_eq!(answer(&server, &key).await, "before");
    api.before.heal();
    wait_until("the change is seen", PATIENCE, async || {
        (answer(&server, &key).await == "after").then_some(())
    })
    .await;
    settled(&cluster, "quiet").await;
    server.get("/readyz").await.expect(200);
}

/// Annotates an object 50 times a second, and tells how often.
async fn write(url: String, stop: Arc<AtomicBool>) -> usize {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        written += 1;
        let bump = json!({"metadata": {"annotations": {"example.com/bump": written.to_string()}}});
        let patch = client().patch(&url).body(bump.to_string());
        let patch = patch.header("content-type", "application/merge-patch+json");
        assert!(patch.send().await.unwrap().status().is_success());
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_who_writes_all_the_time_does_not_keep_the_status_from_being_told() {
    let Some((cluster, api, server)) = served().await else {
        return;
    };
    cluster.apply(&saying("busy", "before"));
    settled(&cluster, "busy").await;
    let stop = Arc::<AtomicBool>::default();
    // Nor does it cost a controller its lease.
    let writers = [
        ("faas.dev/v1alpha1", "functions/busy"),
        ("coordination.k8s.io/v1", "leases/faas-controller"),
    ];
    let writers = writers.map(|(api_version, object)| {
        let url = format!(
            "{}/apis/{api_version}/namespaces/{}/{object}",
            api.before.address(),
            cluster.namespace
        );
        tokio::spawn(write(url, Arc::clone(&stop)))
    });
    let before = server.home.containers();
    // Its own words are not in the spec, so nothing rolls over.
    for word in ["one", "two", "three"] {
        cluster.apply(&saying("busy", word));
        settled(&cluster, "busy").await;
        assert_eq!(answer(&server, &cluster.key("busy")).await, word);
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.unwrap() > 50, "it wrote too seldom");
    }
    assert!(server.ended().is_none(), "{}", server.said());
    let object = cluster.get("fn", "busy").unwrap();
    assert_eq!(object["metadata"]["generation"], 4);
    assert_ne!(server.home.containers(), before);
}

#[tokio::test]
async fn what_is_applied_to_a_dying_function_is_told_that_it_goes_along() {
    let Some((cluster, _api, server)) = served().await else {
        return;
    };
    let key = cluster.key("dies");
    let code = "module.exports = (c, cb) => setTimeout(() => cb(null, 'bye'), c.ms || 0)";
    cluster.apply(&function("dies", node(code, json!({}))));
    settled(&cluster, "dies").await;
    let uid = cluster.get("fn", "dies").unwrap()["metadata"]["uid"].clone();
    let call = tokio::spawn({
        let call = server.request(reqwest::Method::POST, &format!("/functions/{key}"));
        call.json(&json!({"ms": 4000})).send()
    });
    wait_until("the call runs", SOON, async || {
        let status = server.status("dies").await;
        let busy = status["instances"][0]["inFlight"].as_u64();
        (busy > Some(0)).then_some(())
    })
    .await;
    cluster
        .kubectl(["delete", "fn", "dies", "--wait=false"])
        .good();
    cluster.apply(&saying("dies", "again"));
    let told = wait_until("the status says so", SOON, async || {
        cluster
            .condition("dies", "Ready")
            .filter(|[_, reason, _]| reason == "Draining")
    })
    .await;
    assert!(told[2].contains("apply it again"), "{told:?}");
    let answered = call.await.unwrap().unwrap();
    assert_eq!(answered.status(), 200, "what ran is answered");
    wait_until("it has gone", SOON, async || {
        cluster.get("fn", "dies").is_none().then_some(())
    })
    .await;
    cluster.apply(&saying("dies", "again"));
    settled(&cluster, "dies").await;
    assert_eq!(answer(&server, &key).await, "again");
    assert_ne!(cluster.get("fn", "dies").unwrap()["metadata"]["uid"], uid);
}

/// A kubeconfig with rights in this namespace alone, for as long as the role binding `limited` is there.
pub(super) fn limited(cluster: &Cluster) -> PathBuf {
    let everything = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "limited"},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
    });
    cluster
        .kubectl(["create", "serviceaccount", "limited"])
        .good();
    cluster.apply(&everything);
    bind(cluster);
    let token = cluster.kubectl(["create", "token", "limited"]).good();
    let kubeconfig = cluster.kubeconfig().with_extension("limited");
    fs::copy(cluster.kubeconfig(), &kubeconfig).unwrap();
    let config = |words: &[&str]| {
        let mut all = vec!["--kubeconfig", kubeconfig.to_str().unwrap(), "config"];
        all.extend(words);
        cluster.kubectl(all).good();
    };
    let token = format!("--token={}", token.trim());
    config(&["set-credentials", "limited", &token]);
    config(&["set-context", "--current", "--user=limited"]);
    kubeconfig
}

fn bind(cluster: &Cluster) {
    let account = format!("--serviceaccount={}:limited", cluster.namespace);
    let bind = [
        "create",
        "rolebinding",
        "limited",
        "--role=limited",
        &account,
    ];
    cluster.kubectl(bind).good();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_are_taken_away_are_told_and_cost_no_call() {
    if !has_docker("e2e cluster") {
        return;
    }
    let Some(cluster) = Cluster::here() else {
        return;
    };
    let kubeconfig = limited(&cluster);
    let start = cluster.start().in_environment("KUBECONFIG", &kubeconfig);
    let server = start.at(&Arc::new(Home::new())).await;
    let key = cluster.key("warm");
    cluster.apply(&version(&cluster, "warm", 1));
    settled(&cluster, "warm").await;
    let prober = Prober::start(&server, &key, PACE, 10).await;

    cluster.kubectl(["delete", "rolebinding", "limited"]).good();
    cluster.apply(&version(&cluster, "warm", 2));
    wait_until("it is told what is missing", PATIENCE, async || {
        let ready = server.get("/readyz").await;
        (ready.status == 503 && ready.text.contains("403 Forbidden")).then_some(())
    })
    .await;
    assert!(server.said().contains("has the rights that faas needs"));

    bind(&cluster);
    settled(&cluster, "warm").await;
    wait_until("it is ready again", PATIENCE, async || {
        (server.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    let ledger = prober.stop().await;
    ledger.check(|_| false);
    assert_eq!(ledger.versions(), [1, 2], "{}", ledger.summary());
}

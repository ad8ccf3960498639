//! The watched directory: what is saved is served, what is broken is reported, and no call is lost meanwhile.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    Home, Reply, SOON, Server, Shared, Start, client, fresh, function, has_docker, wait_until,
};

/// Time between two calls of the load.
const PACE: Duration = Duration::from_millis(10);

static SERVER: Shared = Shared::new();

async fn server() -> Arc<Server> {
    SERVER
        .get(async || {
            let home = Arc::new(Home::new());
            Start::default().watching(&home).at(&home).await
        })
        .await
}

/// A manifest whose code is in the directory of the same name.
/// Its callers have patience: on a machine that other tests keep busy, a queue may grow for a while.
fn manifest(name: &str, more: Value) -> String {
    let source = json!({"directory": format!("./{name}")});
    let mut spec = json!({"language": "node", "source": source, "startupTimeoutSeconds": 120});
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    function(name, spec).to_string()
}

fn answers(text: &str) -> String {
    format!("module.exports = async () => '{text}'")
}

/// Writes a function that answers `text`, and waits until it does.
async fn live(server: &Server, name: &str, text: &str, more: Value) {
    server
        .home
        .write(&format!("{name}/index.js"), &answers(text));
    server
        .home
        .write(&format!("{name}.yaml"), &manifest(name, more));
    appears(server, name).await;
    server.ready(name).await;
    assert_eq!(server.call(name, json!({})).await.response(), text);
}

async fn appears(server: &Server, name: &str) {
    let what = format!("{name} is known");
    wait_until(&what, SOON, async || server.object(name).await.map(|_| ())).await;
}

/// Calls at a constant pace, whatever the answers take, until told to stop. Answers how often came what.
async fn load(url: String, stop: Arc<AtomicBool>) -> Vec<(u16, String)> {
    let client = client();
    let mut calls = JoinSet::new();
    let mut pace = tokio::time::interval(PACE);
    while !stop.load(Ordering::Relaxed) || calls.len() < 500 {
        pace.tick().await;
        let call = client.post(&url).json(&json!({})).send();
        calls.spawn(async move {
            let reply = Reply::of(call.await.unwrap()).await;
            (reply.status, reply.text)
        });
    }
    calls.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saved_change_under_load_loses_no_call() {
    if !has_docker("e2e roll-over") {
        return;
    }
    let server = server().await;
    for scale in [json!({"min": 1}), json!({"min": 0, "concurrency": 2})] {
        let name = format!("steady-{}", &fresh()[..6]);
        live(&server, &name, "v1", json!({"scale": scale})).await;
        let stop = Arc::new(AtomicBool::new(false));
        let url = server.url(&format!("/functions/{name}"));
        let load = tokio::spawn(load(url, Arc::clone(&stop)));
        for version in ["v2", "v3"] {
            server
                .home
                .write(&format!("{name}/index.js"), &answers(version));
            wait_until(&format!("{version} answers"), SOON, async || {
                let reply = server.call(&name, json!({})).await;
                (reply.response() == version).then_some(())
            })
            .await;
        }
        stop.store(true, Ordering::Relaxed);
        let mut counts = BTreeMap::<(u16, String), usize>::new();
        for answer in load.await.unwrap() {
            *counts.entry(answer).or_default() += 1;
        }
        assert!(
            counts.keys().all(|(status, _)| *status == 200),
            "{counts:?}"
        );
        assert!(counts.values().sum::<usize>() >= 500, "{counts:?}");
        for version in ["v1", "v3"] {
            let answer = json!({"response": format!("\"{version}\"")}).to_string();
            assert!(counts.contains_key(&(200, answer)), "{version}: {counts:?}");
        }
        wait_until("instances of old versions are gone", SOON, async || {
            let status = server.status(&name).await;
            let instances = status["instances"].as_array().unwrap();
            let old = instances
                .iter()
                .any(|i| i["revision"] != status["revision"]);
            (!old).then_some(())
        })
        .await;
        server.home.remove(&format!("{name}.yaml"));
    }
}

/// Replaces what programs listen with.
const SILENT: &str = "
require('http').createServer = () => ({on () {}, listen () { setInterval(() => {}, 1000) }})
console.error('silent words')
module.exports = () => 1";

/// A file and what is saved in it; the reason and the words that the status then has.
const BROKEN: [[&str; 4]; 4] = [
    [
        "index.js",
        "module.exports = (",
        "StartFailed",
        "SyntaxError",
    ],
    [
        "index.js",
        "console.error('bye'); process.exit(7)",
        "StartFailed",
        "bye",
    ],
    ["index.js", SILENT, "StartTimeout", "silent words"],
    [
        "package.json",
        r#"{"dependencies": {"left-pad": "999.0.0"}}"#,
        "BuildFailed",
        "npm",
    ],
];

#[tokio::test]
async fn a_broken_version_never_takes_the_old_one_down() {
    if !has_docker("e2e broken versions") {
        return;
    }
    let server = server().await;
    let more = json!({"scale": {"min": 1}, "startupTimeoutSeconds": 2});
    live(&server, "sturdy", "good", more).await;
    for [file, text, reason, words] in BROKEN {
        server.home.write(&format!("sturdy/{file}"), text);
        let message = server.fails("sturdy", reason).await;
        assert!(message.contains(words), "{reason}: {message}");
        server
            .condition("sturdy", "Serving", |c| c["status"] == "True")
            .await;
        assert_eq!(
            server.call("sturdy", json!({})).await.response(),
            "good",
            "{reason}"
        );
        if file == "package.json" {
            let object = server.object("sturdy").await.unwrap();
            let tail = object["status"]["lastBuild"]["logTail"].as_str().unwrap();
            assert!(tail.contains("left-pad"), "{tail}");
            server.home.remove("sturdy/package.json");
        }
        server.home.write("sturdy/index.js", &answers("good"));
        server.ready("sturdy").await;
    }
    server.home.remove("sturdy.yaml");
}

#[tokio::test]
async fn a_file_that_went_is_reported_and_comes_back() {
    if !has_docker("e2e missing files") {
        return;
    }
    let server = server().await;
    live(&server, "gap", "good", json!({"scale": {"min": 1}})).await;
    server.home.write("gap/other.js", "");
    server.home.remove("gap/index.js");
    let message = server.fails("gap", "SourceInvalid").await;
    assert!(message.contains("index.js"), "{message}");
    assert_eq!(server.call("gap", json!({})).await.response(), "good");

    server.home.write("gap/index.js", &answers("better"));
    wait_until("the mended version answers", SOON, async || {
        let reply = server.call("gap", json!({})).await;
        (reply.response() == "better").then_some(())
    })
    .await;
    server.ready("gap").await;
    server.home.remove("gap.yaml");
}

#[tokio::test]
async fn a_deleted_file_takes_its_function_along() {
    if !has_docker("e2e prune") {
        return;
    }
    let server = server().await;
    live(&server, "brief", "here", json!({"scale": {"min": 1}})).await;
    let instances = server.instances("brief", "ready").await;
    assert_eq!(instances.len(), 1);
    server.home.remove("brief.yaml");
    wait_until("the function is gone", SOON, async || {
        server.object("brief").await.is_none().then_some(())
    })
    .await;
    let left = server.home.containers();
    assert!(!left.contains(&instances[0]), "{left:?}");
    server
        .call("brief", json!({}))
        .await
        .refused(400, "NotFound");
}

#[tokio::test]
async fn half_a_file_changes_nothing_and_is_reported() {
    if !has_docker("e2e half files") {
        return;
    }
    let server = server().await;
    live(&server, "whole", "whole", json!({})).await;
    let before = server.object("whole").await.unwrap();
    for half in [
        "apiVersion: faas.dev/v1alpha1\nkind: Function\nmetadata: {name: whole",
        "",
        "spec: {scale: {min: 3}}\n",
        "{\"apiVersion\": \"faas.dev/v1alpha1\", \"kind\": \"Function\", \"metadata\"",
    ] {
        server.home.write("whole.yaml", half);
        if !half.is_empty() {
            problem(&server, "whole.yaml").await;
        }
        let now = server.object("whole").await.expect(half);
        assert_eq!(now["spec"], before["spec"], "{half}");
        assert_eq!(now["metadata"]["uid"], before["metadata"]["uid"], "{half}");
        assert_eq!(server.call("whole", json!({})).await.response(), "whole");
        server
            .home
            .write("whole.yaml", &manifest("whole", json!({})));
        wait_until("no problem is left", SOON, async || {
            problems(&server, "whole.yaml")
                .await
                .is_empty()
                .then_some(())
        })
        .await;
    }
    server.home.remove("whole.yaml");
}

#[tokio::test]
async fn of_two_files_with_one_name_the_first_serves_and_the_other_is_reported() {
    if !has_docker("e2e two files") {
        return;
    }
    let server = server().await;
    let spec =
        |text: &str| json!({"language": "node", "source": {"inline": {"index.js": answers(text)}}});
    server
        .home
        .write("twin-a.yaml", &function("twin", spec("a")).to_string());
    server
        .home
        .write("twin-b.yaml", &function("twin", spec("b")).to_string());
    appears(&server, "twin").await;
    let message = problem(&server, "twin-b.yaml").await;
    assert!(message.contains("twin-a.yaml"), "{message}");
    server.ready("twin").await;
    assert_eq!(server.call("twin", json!({})).await.response(), "a");
    server.home.remove("twin-a.yaml");
    wait_until("the other one serves", SOON, async || {
        let reply = server.call("twin", json!({})).await;
        (reply.status == 200 && reply.response() == "b").then_some(())
    })
    .await;
    server.home.remove("twin-b.yaml");
}

/// Waits for a problem of a file and answers its message.
async fn problem(server: &Server, file: &str) -> String {
    let what = format!("{file} is reported");
    wait_until(&what, SOON, async || problems(server, file).await.pop()).await
}

async fn problems(server: &Server, file: &str) -> Vec<String> {
    let status = server.get("/status").await.expect(200).json();
    let problems = status["problems"].as_array().unwrap();
    let of_file = problems
        .iter()
        .filter(|p| p["file"].as_str().unwrap().ends_with(file));
    of_file
        .map(|p| p["message"].as_str().unwrap().to_owned())
        .collect()
}

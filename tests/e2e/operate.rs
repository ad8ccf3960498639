//! What operators and programs work with: state, metrics, logs, events, and management over HTTP.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::Arc,
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Home, Reply, SOON, Server, Shared, Start, Streaming, client, exchange, fresh, function,
    has_docker, inline, node,
    upload::{tar_of, upload},
    wait_until,
};

static SERVER: Shared = Shared::new();

async fn server() -> Arc<Server> {
    SERVER
        .get(async || {
            let home = Arc::new(Home::new());
            Start::default().watching(&home).at(&home).await
        })
        .await
}

const ECHO: &str =
    "module.exports = async (context) => { console.log('heard ' + context.word); return context }";

#[tokio::test]
async fn the_reconcile_loop_is_visible() {
    if !has_docker("e2e status") {
        return;
    }
    let server = server().await;
    server
        .deploy("seen", node(ECHO, json!({"scale": {"min": 1}})))
        .await;
    let status = server.get("/status").await.expect(200).json();
    assert_eq!(status["loop"]["engine"]["reachable"], true);
    assert!(
        status["loop"]["queue"].is_u64() && status["loop"]["building"].is_u64(),
        "{status:#}"
    );
    assert_eq!(status["server"]["runtime"], "docker");
    assert!(status["problems"].is_array());
    let seen = server.status("seen").await;
    assert_eq!(seen["generation"], seen["observedGeneration"]);
    assert_eq!(seen["revision"], seen["servingRevision"]);
    assert!(seen["turns"].as_u64().unwrap() > 0, "{seen:#}");
    assert_eq!(seen["attempts"], 0);
    assert_eq!(seen["lastError"], Value::Null);
    assert_eq!(seen["instances"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_function_tells_its_conditions_its_build_and_its_events() {
    if !has_docker("e2e conditions") {
        return;
    }
    let server = server().await;
    server
        .deploy("told", node(ECHO, json!({"scale": {"min": 1}})))
        .await;
    let object = server.object("told").await.unwrap();
    let conditions = object["status"]["conditions"].as_array().unwrap();
    let states: BTreeMap<_, _> = conditions
        .iter()
        .map(|c| (c["type"].as_str().unwrap(), c["status"].as_str().unwrap()))
        .collect();
    for (kind, state) in [
        ("Ready", "True"),
        ("SourceReady", "True"),
        ("Built", "True"),
        ("Deployed", "True"),
        ("Serving", "True"),
    ] {
        assert_eq!(states.get(kind), Some(&state), "{states:?}");
    }
    let build = &object["status"]["lastBuild"];
    assert!(
        build["startTime"].is_string() && build["completionTime"].is_string(),
        "{build}"
    );
    assert_eq!(object["status"]["replicas"], 1);

    let events = server
        .get("/functions/told/events")
        .await
        .expect(200)
        .json();
    let events = events["items"].as_array().unwrap();
    assert!(events.iter().any(|e| e["reason"] == "Ready"), "{events:?}");
    let log = server
        .get("/functions/told/build-log")
        .await
        .expect(200)
        .text;
    assert!(log.contains("==> "), "{log}");
    for path in [
        "/functions/unseen/events",
        "/functions/unseen/logs",
        "/functions/unseen/build-log",
        "/functions/unseen",
    ] {
        server.get(path).await.refused(404, "NotFound");
    }
}

#[tokio::test]
async fn health_and_readiness_are_told() {
    if !has_docker("e2e health") {
        return;
    }
    let server = server().await;
    server.get("/healthz").await.expect(200);
    wait_until("it is ready", SOON, async || {
        (server.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(
        server.get("/ping").await.expect(200).json(),
        json!({"message": "pong"})
    );
    server.get("/nothing").await.refused(404, "NotFound");
    for query in ["follow=maybe", "tail=all"] {
        let path = format!("/functions/any/logs?{query}");
        server.get(&path).await.refused(400, "BadRequest");
    }
    server
        .delete("/ping")
        .await
        .refused(405, "MethodNotAllowed");
    let patch = server.request(Method::PATCH, "/functions/any").send();
    let refused = Reply::of(patch.await.unwrap()).await;
    let refused = refused.refused(405, "MethodNotAllowed");
    assert!(refused.header("allow").contains("POST"), "{refused:?}");
}

#[tokio::test]
async fn metrics_are_whole_and_count() {
    if !has_docker("e2e metrics") {
        return;
    }
    let server = server().await;
    server.deploy("counted", node(ECHO, json!({}))).await;
    let before = calls(&server, "200").await;
    for _ in 0..3 {
        server.call("counted", json!({})).await.expect(200);
    }
    assert!(calls(&server, "200").await >= before + 3.0);
    server.call("uncounted", json!({})).await.expect(400);
    assert!(calls(&server, "400").await >= 1.0);

    let reply = server.get("/metrics").await.expect(200);
    assert!(
        reply
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    assert!(reply.text.contains("# TYPE faas_calls_total counter\n"));
    let request = server.request(Method::GET, "/metrics");
    let request = request.header("accept", "application/openmetrics-text, */*;q=0.1");
    let reply = Reply::of(request.send().await.unwrap()).await.expect(200);
    assert!(
        reply
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    assert!(reply.text.ends_with("# EOF\n"));
    let (mut helped, mut typed) = (BTreeSet::new(), BTreeSet::new());
    for line in reply.text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["#", "HELP", name, ..] => drop(helped.insert(name)),
            ["#", "TYPE", name, ..] => drop(typed.insert(name)),
            ["#", ..] => {}
            _ => {
                let (name, value) = (
                    line.split(['{', ' ']).next().unwrap(),
                    words.last().unwrap(),
                );
                assert!(name.starts_with("faas_"), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let family = ["_total", "_bucket", "_count", "_sum"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end));
                let family = family.unwrap_or(name);
                assert!(helped.contains(family) && typed.contains(family), "{line}");
            }
        }
    }
    for family in [
        "faas_calls",
        "faas_call_duration_seconds",
        "faas_calls_waiting",
        "faas_calls_in_flight",
        "faas_instances",
        "faas_builds",
        "faas_reconcile_turns",
        "faas_errors",
    ] {
        assert!(typed.contains(family), "{family}: {typed:?}");
    }
}

/// Calls that were answered with this code so far.
async fn calls(server: &Server, code: &str) -> f64 {
    let text = server.get("/metrics").await.expect(200).text;
    let name = format!("faas_calls_total{{code=\"{code}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name));
    value.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn the_api_describes_itself() {
    if !has_docker("e2e openapi") {
        return;
    }
    let document = server().await.get("/openapi.json").await.expect(200).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let paths = document["paths"].as_object().unwrap();
    for path in [
        "/functions",
        "/functions/{name}",
        "/status",
        "/metrics",
        "/healthz",
        "/readyz",
    ] {
        assert!(paths.contains_key(path), "{path}: {:?}", paths.keys());
    }
}

#[tokio::test]
async fn logs_are_followed_from_instance_to_instance() {
    if !has_docker("e2e logs") {
        return;
    }
    let server = server().await;
    server.deploy("chatty", node(ECHO, json!({}))).await;
    server
        .call("chatty", json!({"word": "one"}))
        .await
        .expect(200);
    wait_until("the log holds the word", SOON, async || {
        let log = server.get("/functions/chatty/logs").await.expect(200).text;
        log.contains("heard one").then_some(())
    })
    .await;

    let url = server.url("/functions/chatty/logs?follow=true");
    let mut log = Streaming(client().get(url).send().await.unwrap());
    log.until("heard one\n").await;
    server
        .call("chatty", json!({"word": "two"}))
        .await
        .expect(200);
    log.until("heard two\n").await;
    // The instances of another revision are heard as well.
    server
        .deploy(
            "chatty",
            node(ECHO, json!({"env": [{"name": "A", "value": "b"}]})),
        )
        .await;
    server
        .call("chatty", json!({"word": "three"}))
        .await
        .expect(200);
    // Which of the two comes first depends on how long the old instance takes to end.
    let both = ["heard three\n", " was ended]\n"];
    let mut said = String::new();
    while !both.iter().all(|words| said.contains(words)) {
        said += &log.until("\n").await;
    }
    server.delete("/functions/chatty").await.expect(202);
    assert!(log.ended().await, "a log ends with its function");
}

#[tokio::test]
async fn a_build_is_followed_while_it_runs() {
    if !has_docker("e2e build log") {
        return;
    }
    let server = server().await;
    let dockerfile = format!(
        "FROM busybox:1\nRUN echo first {} && sleep 3\nRUN echo second && exit 1\n",
        fresh()
    );
    let files = json!({"Dockerfile": dockerfile});
    server
        .apply("building", inline("dockerfile", files, json!({})))
        .await;
    server
        .condition("building", "Ready", |c| c["reason"] == "Building")
        .await;
    let url = server.url("/functions/building/build-log?follow=true");
    let log = client().get(url).send().await.unwrap();
    let log = Reply::of(log).await.text;
    assert!(
        log.contains("first") && log.contains("second") && log.contains("exit code 1"),
        "{log}"
    );
    let message = server.fails("building", "BuildFailed").await;
    assert!(message.contains("echo second"), "the step: {message}");
}

#[tokio::test]
async fn builds_that_wait_are_told_from_those_that_run() {
    if !has_docker("e2e queued builds") {
        return;
    }
    let server = Start::default().at(&Arc::new(Home::new())).await;
    let names = ["one", "two", "three", "four"];
    for name in names {
        let dockerfile = format!(
            "FROM busybox:1\nRUN : {} && echo runs; exec sleep 1000\n",
            fresh()
        );
        let files = json!({"Dockerfile": dockerfile});
        server
            .apply(name, inline("dockerfile", files, json!({})))
            .await;
    }
    let reasons = async || {
        let mut reasons = Vec::new();
        for name in names {
            let object = server.object(name).await?;
            let conditions = object["status"]["conditions"].as_array()?.clone();
            let ready = conditions.into_iter().find(|c| c["type"] == "Ready")?;
            reasons.push((ready["reason"].as_str()?.to_owned(), name));
        }
        reasons.sort();
        Some(reasons)
    };
    let queued = wait_until("two are built and two wait", SOON, async || {
        let state = server.get("/status").await.json()["loop"].clone();
        let counts = (state["building"].as_u64(), state["queuedBuilds"].as_u64());
        let reasons = reasons().await?;
        let words: Vec<_> = reasons.iter().map(|(reason, _)| reason.as_str()).collect();
        let is_it =
            counts == (Some(2), Some(2)) && words == ["Building", "Building", "Queued", "Queued"];
        is_it.then(|| reasons.into_iter().skip(2).map(|(_, name)| name))
    })
    .await;
    let waiting: Vec<_> = queued.collect();
    for name in names.iter().filter(|name| !waiting.contains(name)) {
        server
            .delete(&format!("/functions/{name}"))
            .await
            .expect(202);
    }
    let log = format!("/functions/{}/build-log", waiting[0]);
    wait_until("it is the turn of one that waited", SOON, async || {
        let text = server.get(&log).await.text;
        text.contains("\nruns\n").then_some(())
    })
    .await;
    for name in waiting {
        server
            .delete(&format!("/functions/{name}"))
            .await
            .expect(202);
    }
}

#[tokio::test]
async fn functions_are_put_listed_changed_and_deleted() {
    if !has_docker("e2e management") {
        return;
    }
    let server = server().await;
    let yaml = "apiVersion: faas.dev/v1alpha1\nkind: Function\nmetadata:\n  name: managed\nspec:\n  language: node\n  \
                source:\n    inline:\n      index.js: module.exports = async () => 1\n";
    let reply = server.put("/functions/managed", yaml).await.expect(201);
    assert_eq!(reply.json()["metadata"]["generation"], 1);
    assert_eq!(
        server
            .put("/functions/managed", yaml)
            .await
            .expect(200)
            .json()["metadata"]["generation"],
        1
    );
    let changed = yaml.replace("=> 1", "=> 2");
    assert_eq!(
        server
            .put("/functions/managed", changed)
            .await
            .expect(200)
            .json()["metadata"]["generation"],
        2
    );
    server.ready("managed").await;
    assert_eq!(server.call("managed", json!({})).await.response(), 2);

    let list = server.get("/functions").await.expect(200).json();
    let names: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["metadata"]["name"].clone())
        .collect();
    assert!(names.contains(&json!("managed")), "{names:?}");

    server.delete("/functions/managed").await.expect(202);
    wait_until("it is gone", SOON, async || {
        server.object("managed").await.is_none().then_some(())
    })
    .await;
    server
        .delete("/functions/managed")
        .await
        .refused(404, "NotFound");
}

#[tokio::test]
async fn what_a_manifest_gets_wrong_is_named_all_at_once() {
    if !has_docker("e2e manifests") {
        return;
    }
    let server = server().await;
    let spec = json!({"languag": "node", "source": {"inline": {"a": "b"}}, "scale": {"min": -1, "often": 3}});
    let reply = server
        .put("/functions/wrong", function("wrong", spec).to_string())
        .await;
    let message = reply.refused(400, "InvalidSpec").json()["message"].to_string();
    for word in ["spec.languag", "spec.scale.min", "spec.scale.often"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    let bomb =
        "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: [*c, *c, *c, *c]\n"
            .repeat(50);
    for (what, body) in [
        ("aliases", bomb),
        ("depth", "[".repeat(10_000)),
        (
            "duplicate keys",
            "kind: Function\nkind: Function\n".to_owned(),
        ),
        (
            "two documents",
            format!(
                "{}\n---\n{}",
                function("wrong", json!({})),
                function("wrong", json!({}))
            ),
        ),
        (
            "another name",
            function("other", node("1", json!({}))).to_string(),
        ),
        ("nothing", String::new()),
    ] {
        let reply = server.put("/functions/wrong", body).await;
        assert_eq!(reply.status, 400, "{what}: {}", reply.text);
        assert!(!reply.header("x-faas-error").is_empty(), "{what}");
    }
    let request = server
        .request(Method::PUT, "/functions/wrong")
        .body(vec![0xff, 0xfe, 0x41, 0x00]);
    let reply = Reply::of(request.send().await.unwrap()).await;
    assert_eq!(reply.status, 400, "not UTF-8: {}", reply.text);
    let huge = format!("# {}\n", "x".repeat(8 << 20));
    let reply = server.put("/functions/wrong", huge).await;
    reply.refused(413, "BodyTooLarge");
    assert!(server.object("wrong").await.is_none());
    server.put("/functions/NOT_A_NAME", "{}").await.expect(400);
}

#[tokio::test]
async fn a_function_of_a_file_is_the_files() {
    if !has_docker("e2e managers") {
        return;
    }
    let server = server().await;
    server.home.write(
        "filed.yaml",
        &function("filed", node(ECHO, json!({}))).to_string(),
    );
    wait_until("the function is known", SOON, async || {
        server.object("filed").await
    })
    .await;
    let deleted = server.delete("/functions/filed").await;
    let put = server
        .put(
            "/functions/filed",
            function("filed", node("1", json!({}))).to_string(),
        )
        .await;
    for reply in [deleted, put] {
        assert_eq!(reply.status, 409, "{}", reply.text);
        assert!(reply.text.contains("filed.yaml"), "{}", reply.text);
    }
    server.home.remove("filed.yaml");
}

#[tokio::test]
async fn a_listener_for_calls_takes_only_calls() {
    if !has_docker("e2e two listeners") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default()
        .with("--invoke-listen", "127.0.0.1:0")
        .at(&home)
        .await;
    let calls = server.invoke.unwrap();
    server.deploy("apart", node(ECHO, json!({}))).await;
    let url = server.object("apart").await.unwrap()["status"]["url"].clone();
    assert_eq!(
        url,
        format!("http://{calls}/functions/apart"),
        "the URL is one that works"
    );
    let tar = tar_of(&[("index.js", "module.exports = () => 'uploaded'")]);
    let answer = server.post("/functions", &upload("sent", &tar)).await;
    let url = answer.expect(200).json()["invoke"].clone();
    assert_eq!(url, format!("http://{calls}/functions/sent"));

    for path in ["/functions/apart", "/function/apart/invoke"] {
        server.post(path, &json!({})).await.refused(404, "NotFound");
        let reply = client()
            .post(format!("http://{calls}{path}"))
            .json(&json!({}))
            .send()
            .await
            .unwrap();
        assert_eq!(reply.status(), 200, "{path}");
    }
    let invoke = Command::new(env!("CARGO_BIN_EXE_faas"))
        .args(["invoke", "apart", "--data", "7", "--server"])
        .arg(server.url(""))
        .output();
    assert_eq!(invoke.unwrap().stdout, b"Response: 7\n");
    for path in [
        "/status",
        "/functions",
        "/functions/apart",
        "/metrics",
        "/healthz",
        "/openapi.json",
        "/ping",
    ] {
        server.get(path).await.expect(200);
        let reply = Reply::of(
            client()
                .get(format!("http://{calls}{path}"))
                .send()
                .await
                .unwrap(),
        )
        .await;
        reply.refused(404, "NotFound");
    }
    let deploy = "POST /functions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert!(exchange(calls, deploy).await.starts_with("HTTP/1.1 404"));
}

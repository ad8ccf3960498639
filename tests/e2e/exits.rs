//! Instances that crash, in calls and between them: their users are told how, and what they wrote last.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::{Home, SOON, Server, Shared, Start, has_docker, inline, node, wait_until};

static SERVER: Shared = Shared::new();

async fn server() -> Arc<Server> {
    SERVER
        .get(async || Start::default().at(&Arc::new(Home::new())).await)
        .await
}

/// Says that it was called, and ends as it is told.
const BOOM: &str = "
module.exports = (context, cb) => {
  console.log('called ' + context.how)
  if (context.how === 'exit') process.exit(3)
  if (context.how === 'fault') process.kill(process.pid, 'SIGSEGV')
  if (context.how === 'memory') for (const all = []; ;) all.push(Buffer.alloc(1 << 20, 1))
  cb(context.how)
}";

/// The spec of a program that is a server itself.
fn program(code: &str) -> Value {
    let files = json!({
        "main.js": code,
        "Dockerfile": "FROM faas.local/node:22\nCOPY main.js /\nCMD [\"node\", \"/main.js\"]\n",
    });
    inline("dockerfile", files, json!({}))
}

async fn event(server: &Server, name: &str, reason: &str, words: &str) -> Value {
    wait_until(words, SOON, async || {
        let events = server
            .get(&format!("/functions/{name}/events"))
            .await
            .json();
        let events = events["items"].as_array()?.clone();
        let is_it = |e: &Value| {
            e["reason"] == reason && e["message"].as_str().is_some_and(|m| m.contains(words))
        };
        events.into_iter().find(is_it)
    })
    .await
}

async fn logged(server: &Server, name: &str, words: &[&str]) -> String {
    wait_until(&format!("the log has {words:?}"), SOON, async || {
        let log = server.get(&format!("/functions/{name}/logs")).await.text;
        words.iter().all(|word| log.contains(word)).then_some(log)
    })
    .await
}

#[tokio::test]
async fn a_crash_in_a_call_is_an_event_a_failure_and_a_readable_log() {
    if !has_docker("e2e crashes") {
        return;
    }
    let server = server().await;
    let more = json!({"resources": {"memory": "64Mi"}});
    server.deploy("boom", node(BOOM, more)).await;
    for (attempts, how, reason, end) in [
        (1, "exit", "CrashLoop", "exited with code 3"),
        (2, "fault", "CrashLoop", "exited with code 139"),
        (
            3,
            "memory",
            "OOMKilled",
            "exited with code 137 (out of memory; see spec.resources.memory)",
        ),
    ] {
        let reply = server.call("boom", json!({"how": how})).await;
        reply.refused(502, "InstanceLost");
        let event = event(server.as_ref(), "boom", reason, end).await;
        assert_eq!(
            (&event["type"], &event["count"]),
            (&json!("Warning"), &json!(1))
        );
        logged(&server, "boom", &[&format!("called {how}\n"), end]).await;
        let failure = server.status("boom").await["failures"][0].clone();
        assert_eq!(
            (&failure["reason"], &failure["attempts"]),
            (&json!(reason), &json!(attempts))
        );
    }
    server.fails("boom", "OOMKilled").await;

    // Whoever calls rightly is answered, and the crash is still told of beside that.
    let reply = server.call("boom", json!({"how": "well"})).await;
    assert_eq!(reply.response(), "well");
    server.ready("boom").await;
    let failures = server.status("boom").await["failures"].clone();
    assert_eq!(failures[0]["attempts"], 3, "{failures}");
    let log = logged(&server, "boom", &["called well"]).await;
    let ends: Vec<_> = log.matches(" exited with code ").collect();
    assert_eq!(ends.len(), 3, "{log}");
}

/// Nobody calls after the crash, so the one that is kept warm comes back in its time.
#[tokio::test]
async fn a_warm_instance_that_crashed_in_a_call_comes_back() {
    if !has_docker("e2e warm crashes") {
        return;
    }
    let server = server().await;
    let more = json!({"scale": {"min": 1}});
    server.deploy("phoenix", node(BOOM, more)).await;
    let mut before = server.instances("phoenix", "ready").await;
    for _ in 0..3 {
        let reply = server.call("phoenix", json!({"how": "exit"})).await;
        reply.refused(502, "InstanceLost");
        let after = wait_until("another is ready", SOON, async || {
            let ready = server.instances("phoenix", "ready").await;
            (ready.len() == 1 && ready != before).then_some(ready)
        })
        .await;
        before = after;
    }
    server.ready("phoenix").await;
}

/// Answers, and crashes once it has.
const BRITTLE: &str = "
const http = require('http')
const server = http.createServer((request, response) => {
  response.end('1', () => server.close(() => process.exit(7)))
})
server.listen(process.env.PORT)";

#[tokio::test]
async fn who_is_refused_for_crashes_between_calls_reads_the_same_in_the_status() {
    if !has_docker("e2e crashes between calls") {
        return;
    }
    let server = server().await;
    server.deploy("brittle", program(BRITTLE)).await;
    let mut answered = 0;
    let refused = loop {
        let reply = server.call("brittle", json!({})).await;
        if reply.status != 200 {
            break reply.refused(503, "CrashLoop");
        }
        answered += 1;
        wait_until("the crash is noted", SOON, async || {
            let failures = server.status("brittle").await["failures"].clone();
            (failures[0]["attempts"] == answered).then_some(())
        })
        .await;
    };
    assert!(answered > 1, "one crash hinders nobody");
    let told = server.fails("brittle", "CrashLoop").await;
    assert!(told.contains("exited with code 7"), "{told}");
    assert_eq!(refused.json()["message"], told);
}

/// Breaks the call off and lives on.
const RUDE: &str = "
const http = require('http')
const server = http.createServer((request, response) => {
  console.log('heard ' + request.url)
  request.socket.destroy()
})
server.listen(process.env.PORT)";

#[tokio::test]
async fn an_instance_that_only_breaks_a_call_off_is_ended_and_is_no_crash() {
    if !has_docker("e2e broken calls") {
        return;
    }
    let server = server().await;
    server.deploy("rude", program(RUDE)).await;
    let reply = server.call("rude", json!({})).await;
    reply.refused(502, "InstanceLost");
    wait_until("it is ended", SOON, async || {
        let status = server.status("rude").await;
        status["instances"].as_array()?.is_empty().then_some(())
    })
    .await;
    assert_eq!(server.status("rude").await["failures"], json!([]));
    logged(&server, "rude", &["heard /invoke", "was ended"]).await;
}

/// What exits after each call: its log outlives it for a while.
const ONCE: &str = "
const http = require('http')
const server = http.createServer((request, response) => {
  console.log('heard ' + request.url)
  response.end('1', () => server.close())
})
server.listen(process.env.PORT)";

#[tokio::test]
async fn the_log_of_an_instance_that_had_its_only_call_can_be_read() {
    if !has_docker("e2e single logs") {
        return;
    }
    let server = server().await;
    server.deploy("once", program(ONCE)).await;
    server.call("once", json!({})).await.expect(200);
    logged(
        &server,
        "once",
        &["heard /invoke\n", " exited with code 0]"],
    )
    .await;
    assert_eq!(server.status("once").await["failures"], json!([]));
}

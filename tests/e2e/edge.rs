//! The edges of the call path: answers that stall, callers that read slowly, stop sending or leave, and bytes that are not
//! quite HTTP.

use std::sync::Arc;

use serde_json::json;

use crate::support::{Home, SOON, Server, Shared, Start, has_docker, node, wait_until};

static SERVER: Shared = Shared::new();

async fn server() -> Arc<Server> {
    SERVER
        .get(async || Start::default().at(&Arc::new(Home::new())).await)
        .await
}

/// Waits for an instance of a Function and answers its id.
async fn instance(server: &Server, name: &str) -> String {
    wait_until("an instance", SOON, async || {
        server.instances(name, "ready").await.pop()
    })
    .await
}

/// Begins an answer and never ends it.
const STALLS: &str = r"
module.exports = {
  http (req, res) {
    res.writeHead(200, {'Content-Length': 100})
    res.write('only this')
  }
}";

#[tokio::test]
async fn an_answer_that_stalls_costs_the_instance_before_the_504() {
    if !has_docker("e2e stalled answers") {
        return;
    }
    let server = server().await;
    let more = json!({"timeoutSeconds": 1, "scale": {"concurrency": 1, "min": 1}});
    server.deploy("stall", node(STALLS, more)).await;
    let before = instance(&server, "stall").await;
    let reply = server.call("stall", json!({})).await;
    let left = server.home.containers();
    reply.refused(504, "Timeout");
    assert!(!left.contains(&before), "{left:?} still holds {before:?}");
    server.delete("/functions/stall").await.expect(202);
}

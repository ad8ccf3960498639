//! What is done with care where nobody looks: how instances end, what a laptop lacks, what went behind our back.

use std::sync::Arc;

use serde_json::json;

use crate::support::{Home, Server, Shared, Start, Streaming, client, has_docker, inline};

static SERVER: Shared = Shared::new();

async fn server() -> Arc<Server> {
    SERVER
        .get(async || Start::default().at(&Arc::new(Home::new())).await)
        .await
}

/// Answers one call, does something more, and exits.
const ONE_CALL: &str = "
process.on('SIGTERM', () => { console.log('told to end'); process.exit(0) })
require('http').createServer((request, response) => {
  let body = ''
  request.on('data', (data) => { body += data }).on('end', () => {
    response.end('{}')
    setTimeout(() => { console.log('saved ' + body); process.exit(0) }, 100)
  })
}).listen(process.env.PORT)";

#[tokio::test]
async fn a_program_that_exits_after_its_answer_is_left_to_do_so() {
    if !has_docker("e2e single calls") {
        return;
    }
    let server = server().await;
    let dockerfile = "FROM node:12\nCOPY . /app\nCMD [\"node\", \"/app/main.js\"]\n";
    let files = json!({"Dockerfile": dockerfile, "main.js": ONE_CALL});
    server
        .deploy("once", inline("dockerfile", files, json!({})))
        .await;
    let url = server.url("/functions/once/logs?follow=true");
    let mut log = Streaming(client().get(url).send().await.unwrap());
    for number in 1..5 {
        server.call("once", json!(number)).await.expect(200);
        let said = log.until(&format!("saved {number}\n")).await;
        assert!(!said.contains("told to end"), "{said}");
    }
    server.delete("/functions/once").await.expect(202);
}

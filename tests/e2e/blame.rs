//! Whose fault it is: what the caller or the server lacks costs no instance.

use std::sync::Arc;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Home, SOON, Server, Start, has_docker, node, wait_until};

const ECHO: &str = "module.exports = (context, cb) => cb(context)";

async fn instance(server: &Server, name: &str) -> String {
    wait_until("an instance", SOON, async || {
        server.instances(name, "ready").await.pop()
    })
    .await
}

/// Sends a request on a kept connection and answers the head of its answer, with what came along.
async fn ask(caller: &mut TcpStream, line: &str) -> String {
    let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    caller.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.contains("\r\n\r\n") {
        let mut piece = vec![0; 4096];
        let length = caller.read(&mut piece).await.unwrap();
        assert_ne!(length, 0, "closed after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    answer
}

#[tokio::test]
async fn a_server_out_of_descriptors_says_so_and_keeps_its_instances() {
    if !has_docker("e2e descriptors") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().at(&home).await;
    server
        .deploy("sober", node(ECHO, json!({"scale": {"min": 1}})))
        .await;
    let before = instance(&server, "sober").await;
    // A connection to the server needs a descriptor too.
    let mut caller = TcpStream::connect(server.address).await.unwrap();
    ask(&mut caller, "GET /ping").await;

    let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap());
    // It has given itself all that it may have.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = |current| prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).unwrap();
    limit(Some(3));
    let short = ask(&mut caller, "POST /functions/sober").await;
    limit(maximum);
    assert!(short.starts_with("HTTP/1.1 503"), "{short}");
    assert!(short.contains("x-faas-error: Overloaded"), "{short}");

    let answer = ask(&mut caller, "POST /functions/sober").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(instance(&server, "sober").await, before);
}

//! Management at a gateway is the controller's: passed on to it, and judged by it.

use std::process::Command;

use reqwest::Method;

use super::*;
use crate::support::{Reply, client};
use crate::support::{
    Streaming, fresh,
    upload::{tar_of, upload},
};

/// A token of the server that lives there, which knows it soon.
pub fn token(home: &Home, scope: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_faas"))
        .args(["token", "create", scope, "--scope", scope, "--state-dir"])
        .arg(home.state())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Asks for something such as `GET /status`, with a token or none.
pub async fn ask(server: &Server, what: &str, token: &str, body: impl Into<String>) -> Reply {
    let (method, path) = what.split_once(' ').unwrap();
    let method: Method = method.parse().unwrap();
    let request = client().request(method, server.url(path)).body(body.into());
    let request = request.header("x-request-id", fresh());
    let request = match token {
        "" => request,
        token => request.bearer_auth(token),
    };
    Reply::of(request.send().await.unwrap()).await
}

/// What is asked until it is answered so: a controller that has just begun, or a new token, is not known at once.
pub async fn ask_until(server: &Server, what: &str, token: &str, status: u16) -> Reply {
    wait_until(what, SOON, async || {
        let reply = ask(server, what, token, "").await;
        (reply.status == status).then_some(reply)
    })
    .await
}

/// Lines of the audit about this request.
fn audit(server: &Server, reply: &Reply) -> Vec<String> {
    let (said, id) = (server.said(), reply.header("x-request-id"));
    let lines = said.lines();
    let lines = lines.filter(|line| line.contains(" audit:") && line.contains(id));
    lines.map(str::to_owned).collect()
}

/// The one line that tells of it.
pub async fn audited(server: &Server, reply: &Reply) -> String {
    let mut lines = wait_until("a line of the audit", SOON, async || {
        Some(audit(server, reply)).filter(|lines| !lines.is_empty())
    })
    .await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

#[tokio::test]
async fn management_at_a_gateway_is_passed_on_to_the_controller_who_judges_it() {
    let Some(mut halves) = Halves::start(2).await else {
        return;
    };
    let (controller, gateways) = (&halves.controller, &halves.gateways);
    let [admin, read] = ["admin", "read"].map(|scope| token(&controller.home, scope));
    ask_until(&gateways[0], "GET /functions", &admin, 200).await;
    let code = "module.exports = () => { console.log('was called'); return 'here' }";
    let image = image(&halves.cluster, "put", code);
    let mut object = ready_made("put", &image, json!({"scale": {"min": 1}}));
    object["metadata"]["namespace"] = halves.cluster.namespace.clone().into();
    let key = halves.cluster.key("put");
    let (path, body) = (format!("/functions/{key}"), object.to_string());
    let (put, delete) = (format!("PUT {path}"), format!("DELETE {path}"));

    // Whoever has no token of the controller's has none: the gateway is on loopback, and that opens nothing there.
    let refused = ask(&gateways[0], &put, "", &*body).await;
    let refused = refused.refused(401, "Unauthorized");
    assert_eq!(refused.header("www-authenticate"), r#"Bearer realm="faas""#);
    let refused = ask(&gateways[0], &put, &read, &*body).await;
    refused.refused(403, "Forbidden");
    let made = ask(&gateways[0], &put, &admin, &*body).await.expect(201);
    assert_eq!(made.header("x-faas-applied"), "created");
    let told = audited(controller, &made).await;
    for part in ["who=\"admin\"", "peer=127.0.0.1", "verb=\"apply\"", &key] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let noted = audit(&gateways[0], &made);
    assert_eq!(noted, [""; 0], "it is the controller's to tell");

    // What one gateway was asked for the other tells.
    let list = ask(&gateways[1], "GET /functions", &read, "").await;
    assert!(list.expect(200).text.contains(&image));
    halves.cluster.ready("put");
    let logs = format!("{path}/logs?follow=true");
    let follow = gateways[1].request(Method::GET, &logs).bearer_auth(&read);
    let mut follow = Streaming(follow.send().await.unwrap());
    // Gateways judge calls, and on loopback these need no token.
    let answer = gateways[0].call(&key, json!({})).await;
    assert_eq!(answer.response(), "here");
    follow.until("was called\n").await;

    bounds_hold(&gateways[0], &path, &admin).await;

    // Without a controller it is said that there is none.
    halves.controller.signal(Signal::KILL);
    halves.controller.end().await;
    assert!(follow.ended().await, "a log ends with who tells it");
    let nobody = wait_until("the gateway knows", SOON, async || {
        let reply = ask(&halves.gateways[0], &delete, &admin, "").await;
        (reply.status == 503).then_some(reply)
    })
    .await;
    let nobody = nobody.refused(503, "NoController");
    assert_eq!(nobody.header("retry-after"), "1");
    halves.control_again().await;
    ask_until(&halves.gateways[1], "GET /functions", &read, 200).await;
    a_log_ends_with_its_gateway(&halves.gateways[1], &logs, &read).await;
    ask_until(&halves.gateways[0], &delete, &admin, 202).await;
    wait_until("it has gone", SOON, async || {
        halves.cluster.get("fn", "put").is_none().then_some(())
    })
    .await;
}

/// One that is followed keeps no gateway from its end.
async fn a_log_ends_with_its_gateway(gateway: &Server, logs: &str, token: &str) {
    let follow = gateway.request(Method::GET, logs).bearer_auth(token);
    let mut follow = Streaming(follow.send().await.unwrap());
    gateway.signal(Signal::TERM);
    assert!(follow.ended().await);
    assert!(gateway.end().await.success());
}

/// Bounds and guards hold, and nothing is lost of what says so.
async fn bounds_hold(gateway: &Server, path: &str, admin: &str) {
    let put = format!("PUT {path}");
    for _ in 0..5 {
        let large = ask(gateway, &put, admin, "x".repeat(8 << 20)).await;
        large.refused(413, "BodyTooLarge");
    }
    let page = gateway.request(Method::DELETE, path).bearer_auth(admin);
    let page = page.header("origin", "http://evil.example");
    let page = Reply::of(page.send().await.unwrap()).await;
    page.refused(403, "ForeignOrigin");
    let nothing = ask(gateway, "GET /nothing", admin, "").await;
    nothing.refused(404, "NotFound");
    let own = ask(gateway, "GET /metrics", "", "").await.expect(200);
    assert!(own.text.contains("faas_instances"), "{}", own.text);
}

#[tokio::test]
async fn an_upload_at_a_gateway_is_deployed_and_called_where_it_was_sent() {
    let Some(halves) = Halves::with_registry().await else {
        return;
    };
    let gateway = &halves.gateways[0];
    let admin = token(&halves.controller.home, "admin");
    ask_until(gateway, "GET /functions", &admin, 200).await;
    let key = halves.cluster.key("sent");
    let code = "module.exports = () => 'as it was sent'";
    let body = upload(&key, &tar_of(&[("index.js", code)])).to_string();
    let reply = ask(gateway, "POST /functions", &admin, body).await;
    let url = reply.expect(200).json()["invoke"].clone();
    assert_eq!(url, gateway.url(&format!("/functions/{key}")));
    let answer = gateway.call(&key, json!({})).await.response();
    assert_eq!(answer, "as it was sent");
}

//! Who may come in: tokens and their scopes, TLS, and what is refused at the start. Functions run as processes here, so
//! that all of it is tested without Docker too.

mod changes;
mod start;
mod tls;

use std::{
    net::{IpAddr, Ipv4Addr},
    process::Command,
    sync::Arc,
    time::Instant,
};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Home, Reply, SOON, Server, Start, Streaming, builder, client, exchange, fresh, function, node,
    wait_until,
};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Another address of this machine.
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// What a command printed.
struct Typed {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Typed {
    /// What it printed, if it succeeded.
    fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }
}

/// Types a command, with these variables.
fn typed(words: &[&str], env: &[(&str, &str)]) -> Typed {
    let mut command = Command::new(env!("CARGO_BIN_EXE_faas"));
    let command = command.args(words).envs(env.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Typed {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Types `faas token` and more words, for this home.
fn type_token(home: &Home, words: &str) -> Typed {
    let state = home.state();
    let mut line = vec!["token"];
    line.extend(words.split(' '));
    line.extend(["--state-dir", state.to_str().unwrap()]);
    typed(&line, &[])
}

fn token(home: &Home, words: &str) -> String {
    type_token(home, words).good().trim().to_owned()
}

/// A token with one scope, which names it too.
fn with_scope(home: &Home, scope: &str) -> String {
    token(home, &format!("create {scope} --scope {scope}"))
}

/// What nobody but its user may know of a token.
fn secret(token: &str) -> &str {
    token.rsplit('_').next().unwrap()
}

/// A loopback listener that asks for tokens.
async fn guarded(home: &Arc<Home>) -> Server {
    guarding().at(home).await
}

fn guarding() -> Start {
    let start = Start::default().with("--runtime", "process");
    start.with("--auth", "token")
}

/// Asks for something such as `GET /status`, with a token or none.
async fn ask(server: &Server, what: &str, token: &str) -> Reply {
    ask_from(HERE, server, what, token, "{}").await
}

async fn ask_from(
    from: IpAddr,
    server: &Server,
    what: &str,
    token: &str,
    body: impl Into<String>,
) -> Reply {
    let (method, path) = what.split_once(' ').unwrap();
    let method: Method = method.parse().unwrap();
    let client = builder().no_proxy().local_address(from);
    let request = client.build().unwrap().request(method, server.url(path));
    let request = request.header("x-request-id", fresh()).body(body.into());
    let request = match token {
        "" => request,
        token => request.bearer_auth(token),
    };
    Reply::of(request.send().await.unwrap()).await
}

/// The one line of the audit about this request.
async fn audited(server: &Server, reply: &Reply) -> String {
    let mut lines = wait_until("a line of the audit", SOON, async || {
        Some(audit(server, reply)).filter(|lines| !lines.is_empty())
    })
    .await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

fn audit(server: &Server, reply: &Reply) -> Vec<String> {
    let (said, id) = (server.said(), reply.header("x-request-id"));
    let lines = said.lines();
    let lines = lines.filter(|line| line.contains(" audit:") && line.contains(id));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn each_scope_opens_its_routes_and_no_others() {
    let home = Arc::new(Home::new());
    let tokens =
        ["read", "invoke", "deploy", "admin"].map(|scope| (scope, with_scope(&home, scope)));
    let server = guarded(&home).await;
    for what in ["GET /healthz", "GET /readyz", "GET /ping"] {
        ask(&server, what, "").await.expect(200);
    }
    for (what, needed) in [
        ("GET /metrics", "read"),
        ("GET /status", "read"),
        ("GET /functions", "read"),
        ("GET /functions/none", "read"),
        ("GET /functions/none/logs", "read"),
        ("POST /functions/none", "invoke"),
        ("GET /function/none/x", "invoke"),
        ("POST /functions", "deploy"),
        ("PUT /functions/none", "deploy"),
        ("DELETE /functions/none", "deploy"),
    ] {
        let reply = ask(&server, what, "").await.refused(401, "Unauthorized");
        assert_eq!(reply.header("www-authenticate"), r#"Bearer realm="faas""#);
        for (scope, token) in &tokens {
            let reply = ask(&server, what, token).await;
            if *scope == needed || *scope == "admin" {
                let denied = matches!(reply.status, 401 | 403 | 429);
                assert!(!denied, "{what} as {scope}: {reply:?}");
                continue;
            }
            let reply = reply.refused(403, "Forbidden");
            let words = format!("has not the scope {needed}");
            assert!(reply.text.contains(&words), "{}", reply.text);
            let challenge = reply.header("www-authenticate");
            assert!(challenge.contains("insufficient_scope"), "{challenge}");
        }
    }
}

/// Answers the headers that it got.
const HEADERS: &str = "module.exports = {http: (req, res) => res.end(JSON.stringify(req.headers))}";

#[tokio::test]
async fn no_function_sees_the_token_and_no_log_or_status_has_it() {
    let home = Arc::new(Home::new());
    let admin = with_scope(&home, "admin");
    let server = guarding().env("FAAS_LOG", "trace").at(&home).await;
    let body = function("show", node(HEADERS, json!({"scale": {"min": 1}})));
    let applied = ask_from(
        HERE,
        &server,
        "PUT /functions/show",
        &admin,
        body.to_string(),
    )
    .await;
    applied.expect(201);
    let heard = wait_until("the function answers", SOON, async || {
        let reply = ask(&server, "GET /function/show/", &admin).await;
        (reply.status == 200).then(|| reply.json())
    })
    .await;
    assert!(heard["host"].is_string(), "{heard}");
    assert_eq!(heard["authorization"], Value::Null);
    let status = ask(&server, "GET /status", &admin).await.expect(200).text;
    let kept = std::fs::read_to_string(home.state().join("access/tokens.json")).unwrap();
    for text in [server.said(), status, kept] {
        assert!(!text.contains(secret(&admin)), "{text}");
    }
}

#[tokio::test]
async fn tokens_made_replaced_and_revoked_count_without_a_restart() {
    let home = Arc::new(Home::new());
    let admin = with_scope(&home, "admin");
    let server = guarded(&home).await;
    let becomes = async |token: &str, status: u16| {
        wait_until(&format!("its answer is {status}"), SOON, async || {
            let reply = ask_from(THERE, &server, "GET /functions", token, "").await;
            (reply.status == status).then_some(reply)
        })
        .await
    };
    let first = token(&home, "create ci --scope read,invoke --expires 7d");
    becomes(&first, 200).await;
    let second = token(&home, "create --replaces ci --overlap 1h");
    becomes(&second, 200).await;
    becomes(&first, 200).await;
    // An overlap that ends.
    let third = token(&home, "create --replaces ci --overlap 1s");
    becomes(&third, 200).await;
    let expired = becomes(&second, 401).await.refused(401, "Unauthorized");
    assert!(expired.text.contains("expired at"), "{}", expired.text);

    token(&home, "revoke ci");
    becomes(&third, 401).await.refused(401, "Unauthorized");
    becomes(&admin, 200).await;
    let list = token(&home, "list");
    assert!(list.contains("admin") && !list.contains("ci "), "{list}");
    for list in [list, token(&home, "list -o json")] {
        assert!(!list.contains(secret(&admin)), "{list}");
    }
    for verb in ["create", "replace", "revoke"] {
        let line = format!(r#" audit: who="local" verb="{verb}" kind="Token" name="ci""#);
        assert!(server.said().contains(&line), "{line}");
    }
}

#[tokio::test]
async fn the_audit_tells_of_tokens_that_changed_while_no_server_ran() {
    let home = Arc::new(Home::new());
    let line =
        |verb, name| format!(r#" audit: who="local" verb="{verb}" kind="Token" name="{name}""#);
    token(&home, "create admin --scope admin");
    token(&home, "create ci --scope read");
    let told = async || {
        let server = guarded(&home).await;
        server.signal(Signal::TERM);
        server.end().await;
        server.said()
    };
    let first = told().await;
    for name in ["admin", "ci"] {
        assert!(first.contains(&line("create", name)), "{first}");
    }
    token(&home, "revoke ci");
    token(&home, "create --replaces admin --overlap 1h");
    let second = told().await;
    for (verb, name) in [("revoke", "ci"), ("replace", "admin"), ("create", "admin")] {
        assert!(second.contains(&line(verb, name)), "{second}");
    }
    let third = told().await;
    assert!(!third.contains(r#"kind="Token""#), "{third}");
}

#[tokio::test]
async fn a_log_that_is_followed_ends_with_the_token_that_opened_it() {
    let home = Arc::new(Home::new());
    let admin = with_scope(&home, "admin");
    let tokens = ["create revoked", "create stays", "create expires"];
    let [revoked, stays, _] = tokens.map(|words| token(&home, &format!("{words} --scope read")));
    let server = guarded(&home).await;
    let words = "let calls = 0; module.exports = {http: (req, res) => { console.log('call', ++calls); res.end() }}";
    let body = function("says", node(words, json!({"scale": {"min": 1, "max": 1}}))).to_string();
    let put = "PUT /functions/says";
    ask_from(HERE, &server, put, &admin, body).await.expect(201);
    let call = async || {
        wait_until("it answers", SOON, async || {
            let reply = ask(&server, "GET /function/says/", &admin).await;
            (reply.status == 200).then_some(())
        })
        .await;
    };
    let follow = async |token: &str| {
        let url = server.url("/functions/says/logs?follow=true");
        let log = client().get(url).bearer_auth(token).send().await.unwrap();
        let mut log = Streaming(log);
        log.until("call 1\n").await;
        log
    };
    call().await;
    let (mut first, mut other) = (follow(&revoked).await, follow(&stays).await);
    token(&home, "revoke revoked");
    assert!(first.ended().await, "its token was revoked");

    let next = token(&home, "create --replaces expires --overlap 1s");
    let mut last = follow(&next).await;
    token(&home, "create --replaces expires --overlap 1s");
    assert!(last.ended().await, "its token expired");
    call().await;
    other.until("call 2\n").await;
}

#[tokio::test]
async fn failures_are_limited_and_others_do_not_feel_it() {
    let home = Arc::new(Home::new());
    let read = with_scope(&home, "read");
    let server = guarded(&home).await;
    let bad = format!("faas_{}_{}", "0".repeat(12), "0".repeat(64));
    let limited = wait_until("a refusal to look", SOON, async || {
        let reply = ask_from(THERE, &server, "DELETE /functions/a", &bad, "").await;
        (reply.status != 401).then_some(reply)
    })
    .await
    .refused(429, "TooManyFailures");
    assert!(limited.header("retry-after").parse::<u64>().unwrap() > 0);
    let written = server.said().matches(r#"code="Unauthorized""#).count();
    assert!((10..15).contains(&written), "{}", server.said());
    for from in [HERE, THERE] {
        let good = ask_from(from, &server, "GET /functions", &read, "").await;
        good.expect(200);
    }
    let other = ask(&server, "GET /functions", "").await;
    other.refused(401, "Unauthorized");
}

#[tokio::test]
async fn each_change_leaves_one_line() {
    let home = Arc::new(Home::new());
    let (deploy, read) = (with_scope(&home, "deploy"), with_scope(&home, "read"));
    let server = guarded(&home).await;
    let word = fresh();
    let more = json!({"env": [{"name": "A", "value": word}]});
    let body = function("mine", node("module.exports = 1", more)).to_string();
    let upload = json!({"name": "theirs", "file": "AAAA"}).to_string();
    let (put, mine) = (
        "PUT /functions/mine",
        r#"verb="apply" kind="Function" name="mine""#,
    );
    for (what, token, body, words) in [
        (
            put,
            &deploy,
            &body,
            format!(r#"who="deploy" peer=127.0.0.1 {mine} status=201 code="OK""#),
        ),
        (
            put,
            &read,
            &body,
            format!(r#"who="read" peer=127.0.0.1 {mine} status=403 code="Forbidden""#),
        ),
        (
            put,
            &String::new(),
            &body,
            format!(r#"who="unknown" peer=127.0.0.1 {mine} status=401"#),
        ),
        (
            put,
            &deploy,
            &word,
            format!(r#"{mine} status=400 code="InvalidSpec""#),
        ),
        (
            "POST /functions",
            &deploy,
            &upload,
            r#"verb="deploy" kind="Function" name="theirs" status=400"#.into(),
        ),
        (
            "DELETE /functions/mine",
            &deploy,
            &body,
            r#"verb="delete" kind="Function" name="mine" status=202"#.into(),
        ),
    ] {
        let reply = ask_from(HERE, &server, what, token, body).await;
        let line = audited(&server, &reply).await;
        assert!(line.contains(&words), "{words}\n{line}");
    }
    let look = ask(&server, "GET /functions", &read).await.expect(200);
    let call = ask(&server, "GET /function/mine/", &read).await;
    audited(&server, &ask(&server, "DELETE /functions/a", &deploy).await).await;
    for reply in [look, call] {
        assert!(audit(&server, &reply).is_empty(), "{reply:?} is no change");
    }
    assert!(!server.said().contains(&word), "a body is in the log");
}

#[tokio::test]
async fn without_tokens_a_change_is_noted_as_local() {
    let home = Arc::new(Home::new());
    let start = Start::default().with("--runtime", "process");
    let server = start.at(&home).await;
    let reply = ask(&server, "DELETE /functions/none", "").await;
    let line = audited(&server, &reply.expect(404)).await;
    let words = r#"who="local" peer=127.0.0.1 verb="delete" kind="Function" name="none" status=404 code="NotFound""#;
    assert!(line.contains(words), "{line}");
}

#[tokio::test]
async fn a_page_does_not_come_in_with_a_token_either() {
    let home = Arc::new(Home::new());
    let admin = with_scope(&home, "admin");
    let server = guarded(&home).await;
    for (method, header) in [
        ("DELETE", "Origin: https://evil.example"),
        ("DELETE", "Sec-Fetch-Site: cross-site"),
        ("OPTIONS", "Origin: https://evil.example"),
    ] {
        let request = format!(
            "{method} /functions/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {admin}\r\n\
             Access-Control-Request-Headers: authorization\r\n{header}\r\n\r\n"
        );
        let answer = exchange(server.address, &request).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(answer.contains("x-faas-error: ForeignOrigin"), "{answer}");
        assert!(!answer.contains("access-control"), "{answer}");
    }
}

//! Changes whose callers leave, or lose their token, before these are done.

use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::support::upload::{tar_of, upload};

/// The head of a request with a body of so many bytes.
fn head(what: &str, token: &str, length: usize) -> String {
    format!(
        "{what} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

/// A connection on which this was sent.
async fn sent(server: &Server, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// The one line of the audit about a change of this Function.
async fn noted(server: &Server, name: &str) -> String {
    let named = format!(r#"kind="Function" name="{name}""#);
    let mut lines = wait_until(&format!("a line about {name}"), SOON, async || {
        let said = server.said();
        let lines = said.lines().filter(|line| line.contains(&named));
        let lines: Vec<_> = lines.map(str::to_owned).collect();
        (!lines.is_empty()).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

async fn is_there(server: &Server, name: &str, token: &str) -> bool {
    let reply = ask(server, &format!("GET /functions/{name}"), token).await;
    matches!(reply.status, 200)
}

fn archive(name: &str, code: &str) -> String {
    upload(name, &tar_of(&[("index.js", code)])).to_string()
}

/// An upload of code that takes so long to load; its caller leaves when it is stored, and before it can be called.
async fn left(server: &Server, name: &str, token: &str, milliseconds: u32) {
    let code = format!(
        "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, {milliseconds}); \
         module.exports = {{http: (_, res) => res.end()}}"
    );
    let body = archive(name, &code);
    let text = head("POST /functions", token, body.len()) + &body;
    let _caller = sent(server, &text).await;
    wait_until("it is stored", SOON, async || {
        is_there(server, name, token).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_change_that_was_made_is_noted_as_made_though_its_caller_has_left() {
    let home = Arc::new(Home::new());
    let admin = with_scope(&home, "admin");
    let server = guarded(&home).await;
    left(&server, "left", &admin, 2000).await;
    let line = noted(&server, "left").await;
    assert!(line.contains(r#"status=200 code="OK""#), "{line}");

    // Those who leave at once: each is made or not, and the line says which.
    for round in 0..30 {
        let name = format!("au{round}");
        let body = function(&name, node("module.exports = 1", json!({}))).to_string();
        let text = head(&format!("PUT /functions/{name}"), &admin, body.len()) + &body;
        drop(sent(&server, &text).await);
        let line = noted(&server, &name).await;
        let words = if is_there(&server, &name, &admin).await {
            r#"status=201 code="OK""#
        } else {
            r#"status=499 code="CallerGone""#
        };
        assert!(line.contains(words), "{words}\n{line}");
    }

    // Who leaves before all of it is here has asked for nothing.
    let half = head("PUT /functions/half", &admin, 1000) + "{";
    drop(sent(&server, &half).await);
    let line = noted(&server, "half").await;
    let is_told = line.contains("status=499") || line.contains("status=400");
    assert!(is_told, "{line}");
    assert!(!is_there(&server, "half", &admin).await);

    // What the end of the server cuts short is not said to be its caller's doing.
    left(&server, "cut", &admin, 60_000).await;
    server.signal(Signal::INT);
    let line = noted(&server, "cut").await;
    assert!(line.contains(r#"status=503 code="Unfinished""#), "{line}");
}

#[tokio::test]
async fn a_token_that_is_revoked_while_a_body_comes_changes_nothing() {
    let home = Arc::new(Home::new());
    let (read, deploy) = (with_scope(&home, "read"), with_scope(&home, "deploy"));
    let server = guarded(&home).await;
    let code = "module.exports = 1";
    let [put, post] = ["put", "post"];
    let bodies = [
        (
            "PUT /functions/put",
            put,
            function(put, node(code, json!({}))).to_string(),
        ),
        ("POST /functions", post, archive(post, code)),
    ];
    let mut callers = Vec::new();
    for (what, name, body) in &bodies {
        let (first, rest) = body.split_at(body.len() / 2);
        let text = head(what, &deploy, body.len()) + first;
        callers.push((sent(&server, &text).await, name, rest));
    }
    // A request that has arrived later was let in, so those were, too.
    ask(&server, "DELETE /functions/none", &deploy)
        .await
        .expect(404);
    token(&home, "revoke deploy");
    wait_until("it is revoked", SOON, async || {
        let reply = ask(&server, "DELETE /functions/none", &deploy).await;
        (reply.status == 401).then_some(())
    })
    .await;
    for (mut caller, name, rest) in callers {
        caller.write_all(rest.as_bytes()).await.unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{name}: {answer}");
        assert!(answer.contains("x-faas-error: Unauthorized"), "{answer}");
        assert!(answer.contains(r#"error="invalid_token""#), "{answer}");
        let line = noted(&server, name).await;
        // By the name it was let in, and so it is not the answer to one that came too late.
        let words = format!(r#"kind="Function" name="{name}" status=401 code="Unauthorized""#);
        assert!(line.contains(&words), "{line}");
        assert!(line.contains(r#"who="deploy""#), "{line}");
        assert!(!is_there(&server, name, &read).await);
    }
}

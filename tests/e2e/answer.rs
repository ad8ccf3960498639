//! What callers get: bodies and headers that pass untouched both ways, answers of the platform that say so, and functions
//! that misbehave without harm to others.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::support::{
    Home, Reply, SOON, Server, Shared, Start, Streaming, client, docker, exchange, has_docker,
    inline, node, save, wait_until,
};

static SERVER: Shared = Shared::new();

async fn server() -> Arc<Server> {
    SERVER
        .get(async || {
            let home = Arc::new(Home::new());
            save(&home.secrets().join("database/password"), "s3cret\n");
            Start::default()
                .with("--secrets-dir", home.secrets())
                .at(&home)
                .await
        })
        .await
}

/// Speaks HTTP itself: each path another way of answering.
const WEB: &str = r"
module.exports = {
  http (req, res) {
    const path = req.url.split('?')[0]
    if (path === '/echo') {
      res.writeHead(200, {'Content-Type': req.headers['content-type'] || 'none'})
      res.flushHeaders()
      req.pipe(res)
    } else if (path === '/sse') {
      res.writeHead(200, {'Content-Type': 'text/event-stream'})
      let n = 0
      const next = () => { if (n++ < 3) { res.write('data: ' + n + '\n\n'); req.once('data', next) } else res.end() }
      next()
    } else if (path === '/status') {
      res.writeHead(418, 'Short And Stout', {'X-Mine': 'yes', 'Set-Cookie': ['a=1', 'b=2'], Connection: 'X-Hop', 'X-Hop': '1', 'X-Faas-Error': 'NotFound'})
      res.end('teapot')
    } else if (path === '/empty') {
      res.writeHead(204)
      res.end()
    } else if (path === '/broken') {
      req.socket.end('this is not HTTP\r\n\r\n')
    } else if (path === '/half') {
      res.writeHead(200, {'Content-Length': 100})
      res.write('only this')
      setTimeout(() => req.socket.destroy(), 100)
    } else {
      res.end(JSON.stringify({method: req.method, url: req.url, headers: req.headers, raw: req.rawHeaders}))
    }
  }
}";

async fn web() -> Arc<Server> {
    let server = server().await;
    server.deploy("web", node(WEB, json!({}))).await;
    server
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    if !has_docker("e2e streaming") {
        return;
    }
    let server = web().await;
    let (pieces, body) = mpsc::unbounded_channel();
    let body = UnboundedReceiverStream::new(body).map(Ok::<Bytes, std::io::Error>);
    let request = server
        .request(Method::POST, "/function/web/echo")
        .header("content-type", "text/x-mine")
        .body(reqwest::Body::wrap_stream(body));
    // The answer begins before the request has ended.
    pieces.send(Bytes::from("one\n")).unwrap();
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/x-mine");
    let mut answer = Streaming(response);
    assert_eq!(answer.until("one\n").await, "one\n");
    for piece in ["two\n", "three\n"] {
        pieces.send(Bytes::from(piece)).unwrap();
        assert_eq!(answer.until(piece).await, piece);
    }
    drop(pieces);
    assert!(answer.ended().await);

    // Larger than every buffer on the way.
    let large = "0123456789abcdef".repeat(1 << 17);
    let request = server
        .request(Method::PUT, "/function/web/echo")
        .body(large.clone());
    assert!(
        Reply::of(request.send().await.unwrap())
            .await
            .expect(200)
            .text
            == large
    );
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    if !has_docker("e2e events") {
        return;
    }
    let server = web().await;
    let (pieces, body) = mpsc::unbounded_channel();
    let body = UnboundedReceiverStream::new(body).map(Ok::<Bytes, std::io::Error>);
    let request = server
        .request(Method::POST, "/function/web/sse")
        .body(reqwest::Body::wrap_stream(body));
    let mut answer = Streaming(request.send().await.unwrap());
    for n in 1..=3 {
        // The function says no more before this one was read.
        let event = format!("data: {n}\n\n");
        assert_eq!(answer.until(&event).await, event);
        pieces.send(Bytes::from("next")).unwrap();
    }
    assert!(answer.ended().await);
}

#[tokio::test]
async fn what_belongs_to_the_message_passes_and_what_belongs_to_the_connection_does_not() {
    if !has_docker("e2e headers") {
        return;
    }
    let server = web().await;
    let request = "OPTIONS /function/web/a//b?c=%20d&e HTTP/1.1\r\nHost: localhost\r\nX-Mine: 1\r\nX-mine: 2\r\n\
                   Connection: close, X-Hop\r\nX-Hop: secret\r\nTE: trailers\r\nKeep-Alive: 5\r\nX-Request-Id: call-7\r\n\
                   Accept: */*\r\n\r\n";
    let answer = exchange(server.address, request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let seen: Value =
        serde_json::from_str(&body[body.find('{').unwrap()..=body.rfind('}').unwrap()]).unwrap();
    assert_eq!(
        (&seen["method"], &seen["url"]),
        (&json!("OPTIONS"), &json!("/a//b?c=%20d&e"))
    );
    let headers = &seen["headers"];
    assert_eq!(headers["x-mine"], "1, 2");
    assert_eq!(headers["x-request-id"], "call-7");
    for gone in ["x-hop", "te", "keep-alive"] {
        assert_eq!(headers[gone], Value::Null, "{headers:#}");
    }
    assert!(
        head.to_ascii_lowercase()
            .contains("\r\nx-request-id: call-7"),
        "{head}"
    );
    assert!(
        !head.to_ascii_lowercase().contains("x-faas-error"),
        "{head}"
    );

    let reply = server.get("/function/web/status").await.expect(418);
    assert_eq!(
        (reply.text.as_str(), reply.header("x-mine")),
        ("teapot", "yes")
    );
    assert_eq!(reply.headers.get_all("set-cookie").iter().count(), 2);
    assert_eq!(
        (reply.header("x-hop"), reply.header("x-faas-error")),
        ("", "")
    );
    assert!(
        !reply.header("x-request-id").is_empty(),
        "every answer has one"
    );
    let head = server
        .request(Method::HEAD, "/function/web/")
        .send()
        .await
        .unwrap();
    assert_eq!(Reply::of(head).await.expect(200).text, "");
    server.get("/function/web/empty").await.expect(204);
}

#[tokio::test]
async fn answers_that_are_no_http_or_break_off_are_the_functions_fault() {
    if !has_docker("e2e bad answers") {
        return;
    }
    let server = web().await;
    server
        .get("/function/web/broken")
        .await
        .refused(502, "BadResponse");
    let half = server
        .request(Method::GET, "/function/web/half")
        .send()
        .await
        .unwrap();
    assert_eq!(half.status(), 200);
    assert!(
        half.text().await.is_err(),
        "an answer that was cut off must not look whole"
    );
    server.get("/function/web/").await.expect(200);
}

#[tokio::test]
async fn the_platform_says_when_an_answer_is_its_own() {
    if !has_docker("e2e refusals") {
        return;
    }
    let server = web().await;
    server
        .get("/function/nobody/x")
        .await
        .refused(404, "NotFound");
    server
        .call("nobody", json!({}))
        .await
        .refused(400, "NotFound");
    server
        .call("nobody.nowhere", json!({}))
        .await
        .refused(400, "NotFound");

    let length = 101 << 20;
    let request = format!(
        "POST /function/web/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    );
    let answer = exchange(server.address, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(
        answer.contains("BodyTooLarge") && answer.contains("104857600"),
        "names the limit: {answer}"
    );
}

#[tokio::test]
async fn web_pages_and_ambiguous_requests_are_refused() {
    if !has_docker("e2e foreign requests") {
        return;
    }
    let server = web().await;
    for (header, value, code) in [
        ("host", "evil.example", "ForeignHost"),
        ("origin", "http://evil.example", "ForeignOrigin"),
        ("sec-fetch-site", "cross-site", "ForeignOrigin"),
    ] {
        for path in ["/function/web/", "/functions/web", "/status"] {
            let request = server.request(Method::POST, path).header(header, value);
            Reply::of(request.send().await.unwrap())
                .await
                .refused(403, code);
        }
    }
    for (request, status) in [
        (
            "GET /function/web/../status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /function/web/%2e%2e/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /function/web HTTP/1.1\r\nConnection: close\r\n\r\n",
            "400",
        ),
        (
            "POST /functions/web HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\
             Origin: http://evil.example\r\nConnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /status HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n\
             Connection: close\r\n\r\n",
            "400",
        ),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = exchange(server.address, request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
    }
    let many = "X: 1\r\n".repeat(120);
    let request = format!("GET /function/web HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    assert!(
        exchange(server.address, &request)
            .await
            .starts_with("HTTP/1.1 431")
    );
}

/// Each word another misdeed.
const MISDEEDS: &str = r"
module.exports = (context, cb) => {
  switch (context.do) {
    case 'throw': throw new Error('thrown')
    case 'reject': return Promise.reject(new Error('rejected'))
    case 'twice': cb('first'); cb('second'); return
    case 'bigint': return cb(10n)
    case 'circle': { const a = {}; a.a = a; return cb(a) }
    case 'nothing': return cb()
    case 'never': return
    case 'later': return setTimeout(() => { throw new Error('thrown later') }, 10)
    case 'exit': return process.exit(3)
    case 'flood': for (let n = 0; n < 200000; n++) console.log('flood ' + n); return cb('done')
    default: return cb(context)
  }
}";

#[tokio::test]
async fn misbehaving_handlers_are_told_apart_and_harm_nobody() {
    if !has_docker("e2e misbehaving handlers") {
        return;
    }
    let server = server().await;
    let more = json!({"timeoutSeconds": 2, "scale": {"min": 1}, "resources": {"cpu": "1"}});
    server.deploy("rogue", node(MISDEEDS, more)).await;
    server
        .deploy(
            "decent",
            node(
                "module.exports = async (c) => c",
                json!({"scale": {"min": 1}}),
            ),
        )
        .await;
    for (misdeed, status, code, words) in [
        ("throw", 400, "FunctionFailed", "thrown"),
        ("reject", 400, "FunctionFailed", "rejected"),
        ("bigint", 400, "FunctionFailed", "BigInt"),
        ("circle", 400, "FunctionFailed", "circular"),
        ("later", 400, "FunctionFailed", "thrown later"),
        ("exit", 502, "InstanceLost", "logs"),
        ("never", 504, "Timeout", "2s"),
    ] {
        let reply = server
            .call("rogue", json!({"do": misdeed}))
            .await
            .refused(status, code);
        assert!(reply.text.contains(words), "{misdeed}: {}", reply.text);
        assert_eq!(
            server.call("decent", json!({"a": 1})).await.response(),
            json!({"a": 1})
        );
        let back = async || {
            let reply = server.call("rogue", json!({"fine": 1})).await;
            (reply.status == 200).then_some(())
        };
        wait_until(&format!("{misdeed}: it answers again"), SOON, back).await;
    }
}

#[tokio::test]
async fn odd_results_and_inputs_are_told_apart() {
    if !has_docker("e2e odd results") {
        return;
    }
    let server = server().await;
    server.deploy("odd", node(MISDEEDS, json!({}))).await;
    assert_eq!(
        server.call("odd", json!({"do": "twice"})).await.response(),
        "first"
    );
    assert_eq!(
        server
            .call("odd", json!({"do": "nothing"}))
            .await
            .response(),
        Value::Null
    );
    for input in ["{", "\"a", "nul"] {
        let request = server.request(Method::POST, "/functions/odd").body(input);
        Reply::of(request.send().await.unwrap())
            .await
            .refused(400, "BadInput");
    }
}

#[tokio::test]
async fn a_flood_of_words_harms_nobody() {
    if !has_docker("e2e floods") {
        return;
    }
    let server = server().await;
    server
        .deploy("quiet", node("module.exports = async (c) => c", json!({})))
        .await;
    server
        .deploy("flood", node(MISDEEDS, json!({"timeoutSeconds": 60})))
        .await;
    let flood = server.call("flood", json!({"do": "flood"}));
    let others = join_all((0..5).map(|n| server.call("quiet", json!({"n": n}))));
    let (flood, others) = tokio::join!(flood, others);
    assert_eq!(flood.response(), "done");
    for reply in others {
        reply.expect(200);
    }
    let log = server
        .get("/functions/flood/logs?tail=100000")
        .await
        .expect(200)
        .text;
    assert!(
        log.len() < 2 << 20,
        "what is kept of a flood is little: {}",
        log.len()
    );
}

#[tokio::test]
async fn a_program_that_knows_only_tcp_is_reached_without_a_network() {
    if !has_docker("e2e tcp programs") {
        return;
    }
    let server = server().await;
    let dockerfile = "FROM busybox:1\nRUN mkdir /www && echo plain page > /www/index.html\n\
                      CMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n";
    server
        .deploy(
            "page",
            inline("dockerfile", json!({"Dockerfile": dockerfile}), json!({})),
        )
        .await;
    for _ in 0..3 {
        assert_eq!(
            server
                .get("/function/page/index.html")
                .await
                .expect(200)
                .text,
            "plain page\n"
        );
    }
    let instance = instance(&server, "page").await;
    let mode = docker(&[
        "inspect",
        "--format",
        "{{.HostConfig.NetworkMode}}",
        &instance,
    ]);
    assert_eq!(mode, "none");

    let net = "require('http').createServer((req, res) => res.end(process.env.PORT + req.url)).listen(process.env.PORT)";
    let files = json!({"Dockerfile": "FROM node:12\nCOPY . /app\nCMD [\"node\", \"/app/main.js\"]\n", "main.js": net});
    server
        .deploy("own", inline("dockerfile", files, json!({})))
        .await;
    assert_eq!(
        server.get("/function/own/x").await.expect(200).text,
        "8080/x"
    );
}

async fn instance(server: &Server, name: &str) -> String {
    let status = server.status(name).await;
    status["instances"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_ready_image_runs_as_it_is() {
    if !has_docker("e2e ready images") {
        return;
    }
    let server = server().await;
    // It has a command that ends at once; what it needs to be is told by the start's failure.
    server
        .apply(
            "ready",
            json!({"source": {"image": "faas.local/busybox:1"}, "startupTimeoutSeconds": 5}),
        )
        .await;
    let failed = |c: &Value| {
        c["status"] == "False"
            && ["StartFailed", "StartTimeout"]
                .iter()
                .any(|r| c["reason"] == *r)
    };
    server.condition("ready", "Ready", failed).await;

    let name = format!("faas.local/e2e-ready-{}:1", crate::support::fresh());
    let (made, change) = (
        docker(&["create", "faas.local/busybox:1", "true"]),
        "CMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/bin\"]",
    );
    docker(&["commit", "--change", change, &made, &name]);
    docker(&["rm", &made]);
    server
        .deploy("ready", json!({"source": {"image": name}}))
        .await;
    server.get("/function/ready/nothing").await.expect(404);
    server.delete("/functions/ready").await.expect(202);
    wait_until("it is gone", SOON, async || {
        server.object("ready").await.is_none().then_some(())
    })
    .await;
    assert!(
        !docker(&["images", "--quiet", &name]).is_empty(),
        "an image of somebody else stays"
    );
    docker(&["rmi", &name]);

    server
        .apply(
            "absent",
            json!({"source": {"image": "faas.local/absent:1"}}),
        )
        .await;
    let message = server.fails("absent", "PullFailed").await;
    assert!(message.contains("faas.local/absent:1"), "{message}");
}

#[tokio::test]
async fn environment_secrets_and_limits_are_what_the_spec_says() {
    if !has_docker("e2e environment") {
        return;
    }
    let server = server().await;
    let code = r"
const fs = require('fs')
const read = (path) => { try { return fs.readFileSync(path, 'utf8').trim() } catch (e) { return e.code } }
module.exports = async (context) => ({
  env: process.env.GREETING, uid: process.getuid(), secret: read('/run/secrets/database/password'),
  memory: read('/sys/fs/cgroup/memory/memory.limit_in_bytes') + read('/sys/fs/cgroup/memory.max'),
  pids: read('/sys/fs/cgroup/pids/pids.max') + read('/sys/fs/cgroup/pids.max'),
  environment: JSON.stringify(process.env).includes('s3cret'),
  network: Object.keys(require('os').networkInterfaces())
})";
    let more = json!({
        "env": [{"name": "GREETING", "value": "hé $HOME \"quoted\""}],
        "secrets": [{"name": "database"}],
        "resources": {"memory": "96Mi", "pids": 40},
        "scale": {"min": 1},
    });
    server.deploy("inside", node(code, more)).await;
    let inside = server.call("inside", json!({})).await.response();
    assert_eq!(inside["env"], "hé $HOME \"quoted\"");
    assert_eq!(
        (&inside["secret"], &inside["environment"]),
        (&json!("s3cret"), &json!(false))
    );
    assert_eq!(inside["uid"], 65532);
    assert!(
        inside["memory"]
            .as_str()
            .unwrap()
            .contains(&(96 << 20).to_string()),
        "{inside}"
    );
    assert!(inside["pids"].as_str().unwrap().contains("40"), "{inside}");
    assert_eq!(inside["network"], json!(["lo"]));

    let before = server.status("inside").await["revision"].clone();
    save(
        &server.home.secrets().join("database/password"),
        "changed\n",
    );
    wait_until("the new secret is used", SOON, async || {
        let now = server.call("inside", json!({})).await.response();
        (now["secret"] == "changed").then_some(())
    })
    .await;
    assert_ne!(server.status("inside").await["revision"], before);

    server
        .apply(
            "secretive",
            node("1", json!({"secrets": [{"name": "unknown"}]})),
        )
        .await;
    let message = server.fails("secretive", "SecretNotFound").await;
    assert!(message.contains("unknown"), "{message}");
}

#[tokio::test]
async fn other_content_types_and_methods_are_for_the_raw_way() {
    if !has_docker("e2e content types") {
        return;
    }
    let server = server().await;
    server
        .deploy("plain", node("module.exports = async (c) => c", json!({})))
        .await;
    // What `curl -d` sends.
    let request = server
        .request(Method::POST, "/functions/plain")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(r#"{"a": 1}"#);
    assert_eq!(
        Reply::of(request.send().await.unwrap()).await.response(),
        json!({"a": 1})
    );
    let empty = client()
        .post(server.url("/functions/plain/"))
        .send()
        .await
        .unwrap();
    assert_eq!(Reply::of(empty).await.response(), json!({}));
    server.get("/function/plain/other").await.expect(404);
}

#[tokio::test]
async fn a_kept_connection_may_rest_but_a_head_may_not() {
    if !has_docker("e2e heads") {
        return;
    }
    let server = server().await;
    let (ping, end) = (
        "GET /ping HTTP/1.1\r\nHost: localhost\r\n",
        "Connection: close\r\n\r\n",
    );
    let mut kept = TcpStream::connect(server.address).await.unwrap();
    kept.write_all(format!("{ping}\r\n").as_bytes())
        .await
        .unwrap();
    let mut first = [0; 12];
    kept.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let unused = TcpStream::connect(server.address).await.unwrap();
    // While the other rests, this one is given up.
    let late = exchange(server.address, ping).await;
    assert!(late.starts_with("HTTP/1.1 408"), "{late}");
    assert!(late.contains("HeadTimeout"), "{late}");
    assert!(late.contains("x-request-id: "), "{late}");
    // Nor is one given up that a client has opened ahead, and uses only now.
    for mut connection in [kept, unused] {
        connection
            .write_all(format!("{ping}{end}").as_bytes())
            .await
            .unwrap();
        let mut rest = String::new();
        connection.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("HTTP/1.1 200"), "{rest}");
        assert!(rest.ends_with(r#"{"message":"pong"}"#), "{rest}");
    }
}

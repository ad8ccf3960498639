//! The contract of Node's shim, with the host's node and with the oldest that is promised.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

const SHIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/languages/node/shim.js");
/// Given wherever the shim is started.
const LARGE_HEADS: &str = "--max-http-header-size=131072";
const OLDEST: &str = "faas.local/node:12";

/// Every node that can be had, each with a line for those that cannot.
fn nodes(scratch: &Path) -> Vec<PathBuf> {
    let mut nodes = Vec::new();
    if Command::new("node").arg("--version").output().is_ok() {
        nodes.push(PathBuf::from("node"));
    } else {
        eprintln!("skipped: the host has no node");
    }
    match oldest(scratch) {
        Some(node) => nodes.push(node),
        None => eprintln!("skipped: no image {OLDEST}"),
    }
    nodes
}

fn oldest(scratch: &Path) -> Option<PathBuf> {
    let node = scratch.join("node-oldest");
    let created = Command::new("docker")
        .args(["create", OLDEST])
        .output()
        .ok()?;
    let id = String::from_utf8(created.stdout).ok()?.trim().to_owned();
    if id.is_empty() {
        return None;
    }
    let from = format!("{id}:/usr/local/bin/node");
    let copied = Command::new("docker")
        .args(["cp", "-L", &from, node.to_str()?])
        .output();
    Command::new("docker").args(["rm", &id]).output().ok()?;
    copied.ok()?.status.success().then_some(node)
}

/// A function that runs; it is killed when the test ends.
struct Function {
    child: Child,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Function {
    fn spawn(node: &Path, files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let socket = dir.path().join("socket");
        let child = Command::new(node)
            .args([LARGE_HEADS, SHIM])
            .arg(dir.path())
            .env("FAAS_SOCKET", &socket)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            child,
            socket,
            _dir: dir,
        }
    }

    fn start(node: &Path, code: &str) -> Self {
        let function = Self::spawn(node, &[("index.js", code)]);
        eventually("it listens", || {
            UnixStream::connect(&function.socket).is_ok()
        });
        function
    }

    fn connect(&self) -> Client {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Client(BufReader::new(stream))
    }

    fn invoke(&self, body: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect();
        client.send("POST", "/invoke", body);
        client.receive()
    }

    fn end(mut self) -> (Option<i32>, String, String) {
        eventually("it ends", || self.child.try_wait().unwrap().is_some());
        let code = self.child.wait().unwrap().code();
        let (mut out, mut err) = (String::new(), String::new());
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .unwrap();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .unwrap();
        (code, out, err)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

struct Client(BufReader<UnixStream>);

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn says(&self, status: u16, code: &str, body: &str) -> bool {
        let has_code = self.head.contains("X-Faas-Error: ");
        self.status == status
            && has_code != code.is_empty()
            && self.head.contains(code)
            && (code.is_empty() || self.body.contains(&format!("\"code\":\"{code}\"")))
            && self.body.contains(body)
    }
}

impl Client {
    fn send(&mut self, method: &str, path: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: f\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.get_mut().write_all(head.as_bytes()).unwrap();
        self.0.get_mut().write_all(body).unwrap();
    }

    fn receive(&mut self) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(
                self.0.read_line(&mut head).unwrap() > 0,
                "closed after {head:?}"
            );
        }
        let status = head[9..12].parse().unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.map_or(0, |text| text.parse().unwrap())];
        self.0.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        Answer { status, head, body }
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn on_every_node(test: impl Fn(&Path)) {
    let scratch = tempfile::tempdir().unwrap();
    for node in nodes(scratch.path()) {
        test(&node);
    }
}

const ECHO: &str = "module.exports = (context, cb) => cb(context)";
const FAILED: &str = "FunctionFailed";

/// Code and input; status, code and body of the answer.
const HANDLERS: [(&str, &str, u16, &str, &str); 20] = [
    (ECHO, r#"{"a":"ü"}"#, 200, "", r#"{"a":"ü"}"#),
    (ECHO, "", 200, "", "{}"),
    (ECHO, "[1]", 200, "", "[1]"),
    (ECHO, "{no", 400, "BadInput", "the input is not JSON"),
    (
        "module.exports = (c, cb) => setImmediate(cb)",
        "",
        200,
        "",
        "null",
    ),
    (
        "module.exports = async (c) => ({n: c.n + 1})",
        r#"{"n":1}"#,
        200,
        "",
        r#"{"n":2}"#,
    ),
    ("module.exports = async () => {}", "", 200, "", "null"),
    (
        "module.exports = async (c, cb) => { cb(7) }",
        "",
        200,
        "",
        "7",
    ),
    ("module.exports = async (c, cb) => 8", "", 200, "", "8"),
    ("module.exports = (c) => 'plain'", "", 200, "", "\"plain\""),
    ("exports.default = (c, cb) => cb(9)", "", 200, "", "9"),
    (
        "module.exports = (c, cb) => { cb(1); cb(2) }",
        "",
        200,
        "",
        "1",
    ),
    (
        "module.exports = () => { throw new Error('oh') }",
        "",
        500,
        FAILED,
        r#"{"message":"oh","code":"FunctionFailed"}"#,
    ),
    (
        "module.exports = async () => { throw 'oh' }",
        "",
        500,
        FAILED,
        r#"{"message":"oh","code":"FunctionFailed"}"#,
    ),
    (
        "module.exports = () => { throw Object.create(null) }",
        "",
        500,
        FAILED,
        "cannot be written as text",
    ),
    (
        "module.exports = async () => { throw Object.assign(new Error(), {message: {toString () { throw 1 }}}) }",
        "",
        500,
        FAILED,
        "cannot be written as text",
    ),
    (
        "module.exports = () => new Proxy({}, {get () { throw new Error('trap') }})",
        "",
        500,
        FAILED,
        "trap",
    ),
    (
        "module.exports = (c, cb) => cb(BigInt(1))",
        "",
        500,
        FAILED,
        "cannot be written as JSON",
    ),
    (
        "module.exports = (c, cb) => { const a = {}; a.a = a; cb(a) }",
        "",
        500,
        FAILED,
        "circular",
    ),
    (
        "module.exports = (c, cb) => cb(() => 1)",
        "",
        500,
        FAILED,
        "it is a function",
    ),
];

#[test]
fn handlers_of_every_shape_answer() {
    on_every_node(|node| {
        for (code, input, status, error, body) in HANDLERS {
            let function = Function::start(node, code);
            // Whatever happened to one call, the next is answered.
            for _ in 0..2 {
                let answer = function.invoke(input);
                assert!(
                    answer.says(status, error, body),
                    "{node:?}, {code}: {answer:?}"
                );
            }
        }
    });
}

#[test]
fn modules_and_named_entry_points_are_loaded() {
    on_every_node(|node| {
        let named: [(&str, &str); 2] = [
            ("package.json", r#"{"main": "app.js"}"#),
            ("app.js", "module.exports = (c, cb) => cb('app')"),
        ];
        let modern: [(&str, &str); 2] = [
            ("package.json", r#"{"type": "module"}"#),
            ("index.js", "export default async () => 'modern'"),
        ];
        for (files, body) in [(named, "\"app\""), (modern, "\"modern\"")] {
            let function = Function::spawn(node, &files);
            eventually("it listens", || {
                UnixStream::connect(&function.socket).is_ok()
            });
            let answer = function.invoke("");
            assert!(answer.says(200, "", body), "{node:?}: {answer:?}");
        }
    });
}

#[test]
fn code_that_cannot_be_called_ends_at_once_and_says_why() {
    let cases = [
        ("module.exports = {}", "the handler is missing"),
        ("throw new Error('at load')", "Error: at load"),
        ("require('absent')", "Cannot find module 'absent'"),
        ("syntax error", "the code cannot be loaded"),
    ];
    on_every_node(|node| {
        for (code, expected) in cases {
            let (code, _, err) = Function::spawn(node, &[("index.js", code)]).end();
            assert_eq!(code, Some(1));
            assert!(err.contains(expected), "{node:?}: {err}");
        }
    });
}

#[test]
fn what_a_handler_prints_is_passed_untouched() {
    on_every_node(|node| {
        let code = "module.exports = (c, cb) => { console.log('out'); console.error('err'); cb(1); cb(2) }";
        let function = Function::start(node, code);
        function.invoke("");
        function.signal(Signal::TERM);
        let (status, out, err) = function.end();
        assert_eq!(status, Some(0));
        assert_eq!(out, "out\n");
        assert_eq!(
            err,
            "err\nfaas: the handler called back twice; only the first result counts\n"
        );
    });
}

/// Whose it was is known only of a call that was alone; a neighbour may not read of it.
#[test]
fn an_error_of_a_later_tick_is_told_to_no_other_call_and_ends() {
    on_every_node(|node| {
        let code = "module.exports = (c, cb) => { if (c.bad) setImmediate(() => { throw new Error('late') }) }";
        for neighbours in [0, 2] {
            let function = Function::start(node, code);
            let mut waiting: Vec<_> = (0..neighbours).map(|_| function.connect()).collect();
            for client in &mut waiting {
                client.send("POST", "/invoke", "{}");
            }
            let mut bad = function.connect();
            bad.send("POST", "/invoke", r#"{"bad":1}"#);
            if neighbours == 0 {
                let answer = bad.receive();
                assert!(
                    answer.says(500, "FunctionFailed", "late"),
                    "{node:?}: {answer:?}"
                );
            }
            for client in waiting.iter_mut().chain([&mut bad]) {
                let mut rest = String::new();
                client.0.read_to_string(&mut rest).unwrap();
                assert_eq!(rest, "", "{node:?}");
            }
            let (code, _, err) = function.end();
            assert_eq!(code, Some(1));
            assert!(err.contains("Error: late\n    at"), "{err}");
        }
    });
}

#[test]
fn other_requests_go_to_http_or_nowhere() {
    on_every_node(|node| {
        let plain = Function::start(node, "module.exports = (c, cb) => cb(1)");
        let mut client = plain.connect();
        // One connection serves them all.
        for (method, path, status, code) in [
            ("GET", "/invoke", 405, "MethodNotAllowed"),
            ("POST", "/other", 404, "NotFound"),
            ("GET", "/?q=1", 405, "MethodNotAllowed"),
        ] {
            client.send(method, path, "");
            let answer = client.receive();
            let words = "POST / and POST /invoke only";
            assert!(answer.says(status, code, words), "{answer:?}");
            let allows = answer.head.contains("\r\nAllow: POST\r\n");
            assert_eq!(allows, status == 405, "{answer:?}");
        }
        client.send("POST", "/", "");
        assert!(client.receive().says(200, "", "1"));
        let code = "module.exports = (c, cb) => cb(1); module.exports.http = (req, res) => {
            if (req.url === '/throw') throw new Error('thrown')
            res.setHeader('Content-Length', '4'); res.write('pa'); req.on('data', () => res.end('rt')) }";
        let rich = Function::start(node, code);
        let mut client = rich.connect();
        for (method, path) in [("PUT", "/any?q=1"), ("POST", "/")] {
            client.send(method, path, "x");
            let answer = client.receive();
            assert!(answer.says(200, "", "part"), "{answer:?}");
        }
        client.send("GET", "/throw", "");
        let answer = client.receive();
        assert!(answer.says(500, "FunctionFailed", "thrown"), "{answer:?}");
        assert!(rich.invoke("").says(200, "", "1"));
    });
}

#[test]
fn term_lets_calls_end_and_leaves_idle_connections() {
    on_every_node(|node| {
        let code = "module.exports = (c, cb) => { process.on('SIGUSR2', () => cb('done')); console.log('in') }";
        let mut function = Function::start(node, code);
        let (mut idle, mut slow) = (function.connect(), function.connect());
        idle.send("GET", "/", "");
        idle.receive();
        slow.send("POST", "/invoke", "");
        let mut out = BufReader::new(function.child.stdout.as_mut().unwrap());
        out.read_line(&mut String::new()).unwrap();
        function.signal(Signal::TERM);
        eventually("nobody can come in", || {
            UnixStream::connect(&function.socket).is_err()
        });
        function.signal(Signal::USR2);
        assert!(slow.receive().says(200, "", "\"done\""));
        eventually("it ends", || function.child.try_wait().unwrap().is_some());
        assert_eq!(function.child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn large_bodies_arrive_whole() {
    on_every_node(|node| {
        let function = Function::start(node, "module.exports = (c, cb) => cb(c.text.length)");
        let body = format!(r#"{{"text":"{}"}}"#, "ü".repeat(400_000));
        assert!(function.invoke(&body).says(200, "", "400000"));
    });
}

#[test]
fn heads_as_large_as_the_platform_lets_pass_are_taken() {
    on_every_node(|node| {
        let code = "module.exports = { http (req, res) { res.setHeader('Content-Length', '5'); res.end(String(req.headers.x.length)) } }";
        let function = Function::start(node, code);
        let mut client = function.connect();
        let head = format!(
            "GET / HTTP/1.1\r\nHost: f\r\nX: {}\r\n\r\n",
            "x".repeat(65_000)
        );
        client.0.get_mut().write_all(head.as_bytes()).unwrap();
        let answer = client.receive();
        assert!(answer.says(200, "", "65000"), "{answer:?}");
    });
}

#[test]
fn input_that_is_not_utf8_is_not_taken_for_something_else() {
    on_every_node(|node| {
        let function = Function::start(node, ECHO);
        for body in [
            &b"\"a\xffb\""[..],
            b"\"\xef\xbf\xbd \xc3\"",
            b"\"\xed\xa0\x80\"",
        ] {
            let answer = function.invoke(body);
            assert!(
                answer.says(400, "BadInput", "it is not UTF-8"),
                "{answer:?}"
            );
        }
        let replaced = "\"a\u{fffd}b\"";
        assert!(function.invoke(replaced).says(200, "", replaced));
    });
}

//! The binary, running.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, Weak, mpsc},
    thread,
    time::{Duration, Instant},
};

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Home, Reply, SOON, client, function, wait_until};

/// Longest time from a signal to the end: calls of tests are short.
const END: Duration = Duration::from_secs(40);
const BASES: [&str; 3] = [
    "node=faas.local/node:22",
    "node:12=faas.local/node:12",
    "busybox:1=faas.local/busybox:1",
];
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How a server is started.
#[derive(Default)]
pub struct Start {
    /// `start` unless it is another.
    role: Option<&'static str>,
    args: Vec<OsString>,
    /// The command that runs it, if it is run by one.
    runner: Vec<String>,
    env: Vec<(&'static str, OsString)>,
}

impl Start {
    /// One half of a server: `controller` or `gateway`.
    pub fn role(role: &'static str) -> Self {
        Self {
            role: Some(role),
            ..Self::default()
        }
    }

    pub fn with(mut self, flag: &str, value: impl Into<OsString>) -> Self {
        self.args.extend([flag.into(), value.into()]);
        self
    }

    /// It may have no more open files than these.
    pub fn with_descriptors(self, limit: u32) -> Self {
        self.run_by(["prlimit".to_owned(), format!("--nofile={limit}")])
    }

    /// By a command that becomes it.
    pub fn run_by(mut self, runner: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.runner = runner.into_iter().map(Into::into).collect();
        self
    }

    /// With another Docker engine than ours.
    pub fn engine(self, address: String) -> Self {
        self.in_environment("DOCKER_HOST", address)
    }

    /// With this variable.
    pub fn in_environment(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// It ends, as by kill -9, at the point that this file names.
    pub fn crashing_by(self, file: &Path) -> Self {
        self.in_environment("FAAS_CRASH_FILE", file)
    }

    /// It is told this by a variable of its environment.
    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// The home's directory of manifests is watched.
    pub fn watching(self, home: &Home) -> Self {
        self.with("--dir", home.functions())
    }

    pub async fn at(self, home: &Arc<Home>) -> Server {
        Server::start(home, self.command(home)).await
    }

    /// The whole command, for starts that are expected to fail.
    pub fn command(self, home: &Home) -> Command {
        let words = self.runner.iter().map(String::as_str);
        let mut words = words.chain([env!("CARGO_BIN_EXE_faas")]);
        let mut run = Command::new(words.next().unwrap());
        run.args(words).env("FAAS_LOG", "info").envs(self.env);
        run.arg(self.role.unwrap_or("start"));
        command(&mut run, home, &self.args);
        if self.role != Some("gateway") {
            // A test's own base image counts more.
            run.args(BASES.iter().flat_map(|base| ["--base-image", base]));
            if has_own_authorities() {
                run.args(["--build-ca", CERTIFICATES]);
            }
        }
        run.args(self.args);
        run
    }
}

fn command(command: &mut Command, home: &Home, args: &[OsString]) {
    command
        .arg("--state-dir")
        .arg(home.state())
        // A directory without `functions`, which would be watched.
        .current_dir(home.secrets())
        .stdin(Stdio::null());
    if !args.iter().any(|arg| arg == "--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
}

/// Whether this machine trusts somebody that base images do not.
fn has_own_authorities() -> bool {
    let dir = Path::new("/usr/local/share/ca-certificates");
    let mut entries = dir.read_dir().into_iter().flatten().flatten();
    entries.any(|entry| entry.path().extension().is_some_and(|end| end == "crt"))
}

/// A server; its end is asked for, awaited and looked at when this is dropped.
pub struct Server {
    pub home: Arc<Home>,
    pub address: SocketAddr,
    /// Address of `--invoke-listen`.
    pub invoke: Option<SocketAddr>,
    child: Mutex<Child>,
    output: Arc<Mutex<String>>,
}

impl Server {
    async fn start(home: &Arc<Home>, mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Arc::<Mutex<String>>::default();
        let (lines, said) = mpsc::channel();
        keep(child.stdout.take().unwrap(), &output, Some(lines));
        keep(child.stderr.take().unwrap(), &output, None);
        let mut server = Self {
            home: Arc::clone(home),
            address: ([127, 0, 0, 1], 0).into(),
            invoke: None,
            child: Mutex::new(child),
            output,
        };
        server.address = wait_until("the server listens", SOON, async || {
            for line in said.try_iter() {
                let last = line.rsplit("://").next().and_then(|a| a.parse().ok());
                if line.starts_with("calls ") {
                    server.invoke = last;
                } else if line.starts_with("listening on ") {
                    return last;
                }
            }
            assert!(server.ended().is_none(), "{}", server.said());
            None
        })
        .await;
        server
    }

    /// Everything that it has printed.
    pub fn said(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// What it holds in memory, in KiB.
    pub fn memory(&self) -> u64 {
        memory_of(self.pid())
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).unwrap();
        // One that has ended already needs no signal.
        if self.ended().is_none() {
            kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        }
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// Waits for its end.
    pub async fn end(&self) -> ExitStatus {
        wait_until("the server ends", END, async || self.ended()).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        client().request(method, self.url(path))
    }

    pub async fn get(&self, path: &str) -> Reply {
        Reply::of(self.request(Method::GET, path).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        let request = self.request(Method::POST, path).json(body);
        Reply::of(request.send().await.unwrap()).await
    }

    pub async fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> Reply {
        let request = self.request(Method::PUT, path).body(body);
        Reply::of(request.send().await.unwrap()).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        Reply::of(self.request(Method::DELETE, path).send().await.unwrap()).await
    }

    /// Calls in the envelope.
    pub async fn call(&self, name: &str, input: Value) -> Reply {
        self.post(&format!("/functions/{name}"), &input).await
    }

    /// Applies a Function and waits until its newest generation is ready.
    pub async fn deploy(&self, name: &str, spec: Value) {
        self.apply(name, spec).await;
        self.ready(name).await;
    }

    /// Applies a Function.
    pub async fn apply(&self, name: &str, spec: Value) -> Reply {
        let body = function(name, spec).to_string();
        let reply = self.put(&format!("/functions/{name}"), body).await;
        assert!(reply.status < 300, "{}", reply.text);
        reply
    }

    /// The Function as it is, nothing when there is none.
    pub async fn object(&self, name: &str) -> Option<Value> {
        let reply = self.get(&format!("/functions/{name}")).await;
        (reply.status == 200).then(|| reply.json())
    }

    /// Waits until a condition of the newest generation is as wanted, and answers it.
    pub async fn condition(
        &self,
        name: &str,
        kind: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        let what = format!("{name}: {kind}");
        let end = Instant::now() + SOON;
        wait_until(&what, SOON * 2, async || {
            let object = self.object(name).await.unwrap_or_default();
            let status = &object["status"];
            let fresh = status["observedGeneration"] == object["metadata"]["generation"];
            let conditions = status["conditions"].as_array();
            let found = conditions.into_iter().flatten().find(|c| c["type"] == kind);
            last = found.cloned().unwrap_or_default();
            assert!(Instant::now() < end, "{name}: {kind} stays {last:#}");
            (fresh && wanted(&last)).then(|| last.clone())
        })
        .await
    }

    /// Waits until the newest generation is ready.
    pub async fn ready(&self, name: &str) {
        self.condition(name, "Ready", |c| c["status"] == "True")
            .await;
    }

    /// Waits until the newest generation fails for this reason; answers the message.
    pub async fn fails(&self, name: &str, reason: &str) -> String {
        let failed = |c: &Value| c["status"] == "False" && c["reason"] == reason;
        let condition = self.condition(name, "Ready", failed).await;
        condition["message"].as_str().unwrap().to_owned()
    }

    /// What `/status` says of a Function.
    pub async fn status(&self, name: &str) -> Value {
        let status = self.get("/status").await.expect(200).json();
        let functions = status["functions"].as_array().unwrap();
        let found = functions.iter().find(|f| f["name"] == name);
        found.cloned().unwrap_or_default()
    }

    /// Ids of a Function's instances in this state.
    pub async fn instances(&self, name: &str, state: &str) -> Vec<String> {
        let status = self.status(name).await;
        let instances = status["instances"].as_array().into_iter().flatten();
        let there = instances.filter(|i| i["state"] == state);
        there
            .map(|i| i["id"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Keeps what a pipe says, and passes lines on.
fn keep(
    pipe: impl Read + Send + 'static,
    output: &Arc<Mutex<String>>,
    to: Option<mpsc::Sender<String>>,
) {
    let output = Arc::clone(output);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            output.lock().unwrap().push_str(&format!("{line}\n"));
            if let Some(to) = &to {
                // Nobody listens any more once the address is known.
                let _ = to.send(line);
            }
        }
    });
}

impl Drop for Server {
    /// A server that is told to end ends, and takes its containers along.
    fn drop(&mut self) {
        let failing = thread::panicking();
        if self.ended().is_none() {
            self.signal(Signal::INT);
            let clean = self.wait();
            if !clean {
                self.signal(Signal::KILL);
                let _ = self.child.lock().unwrap().wait();
            }
            if !failing {
                assert!(clean, "SIGINT does not end the server: {}", self.said());
                let left = self.home.containers();
                assert!(left.is_empty(), "left behind: {left:?}\n{}", self.said());
            }
        }
        if failing {
            eprintln!("--- the server said:\n{}---", self.said());
        }
    }
}

impl Server {
    fn wait(&self) -> bool {
        let end = Instant::now() + END;
        while Instant::now() < end {
            if self.ended().is_some() {
                return true;
            }
            thread::park_timeout(Duration::from_millis(40));
        }
        false
    }
}

/// One server for several tests: there while somebody uses it.
pub struct Shared(tokio::sync::Mutex<Weak<Server>>);

impl Shared {
    pub const fn new() -> Self {
        Self(tokio::sync::Mutex::const_new(Weak::new()))
    }

    /// The server that others use at this moment, else a new one.
    pub async fn get(&self, start: impl AsyncFnOnce() -> Server) -> Arc<Server> {
        let mut shared = self.0.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(start().await);
        *shared = Arc::downgrade(&server);
        server
    }
}

/// Resident memory of a process, in KiB.
pub fn memory_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse().unwrap()
}

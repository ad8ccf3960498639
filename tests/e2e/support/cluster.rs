//! A Kubernetes cluster, as those see it who use `kubectl`. `scripts/cluster run` brings one.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use serde_json::{Value, json};

use super::{SOON, Start, engine::docker, fault::Faulty, skip::skip, wait_until};

/// The definition of Functions.
pub const CRD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/function.yaml");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster");

/// A namespace of a test's own, and a kubeconfig that is in it.
pub struct Cluster {
    pub namespace: String,
    dir: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// What it printed; fails if it did.
    pub fn good(self) -> String {
        assert!(self.success, "{self:?}");
        self.stdout
    }
}

/// A variable that names something of the cluster.
fn named(variable: &str) -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "scripts/cluster tells it this way"
    )]
    std::env::var(variable)
        .ok()
        .filter(|value| !value.is_empty())
}

impl Cluster {
    /// The cluster that KUBECONFIG names, with our CRD; else the test is skipped.
    pub fn here() -> Option<Self> {
        static HAS_CRD: OnceLock<()> = OnceLock::new();
        let Some(kubeconfig) = named("KUBECONFIG") else {
            skip(
                "Kubernetes",
                "no cluster is named; `make test-cluster` brings one",
            );
            return None;
        };
        let cluster = Self {
            namespace: format!(
                "faas-test-{}",
                &uuid::Uuid::new_v4().simple().to_string()[..12]
            ),
            dir: tempfile::tempdir().unwrap(),
        };
        fs::copy(kubeconfig, cluster.kubeconfig()).unwrap();
        HAS_CRD.get_or_init(|| {
            cluster
                .kubectl(["apply", "--server-side", "-f", CRD])
                .good();
            let is_there = "--for=condition=Established";
            cluster
                .kubectl(["wait", is_there, "-f", CRD, "--timeout=60s"])
                .good();
        });
        let namespace = &cluster.namespace;
        cluster.kubectl(["create", "namespace", namespace]).good();
        let context = [
            "config",
            "set-context",
            "--current",
            "--namespace",
            namespace,
        ];
        cluster.kubectl(context).good();
        Some(cluster)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// A server that serves this namespace.
    pub fn start(&self) -> Start {
        Start::default()
            .with("--store", "kubernetes")
            .in_environment("KUBECONFIG", self.kubeconfig())
    }

    /// The half of a server that controls this namespace, with the account that its gateways have.
    pub fn controller(&self) -> Start {
        if self.get("serviceaccount", "faas-gateway").is_none() {
            self.kubectl(["create", "serviceaccount", "faas-gateway"])
                .good();
        }
        Start::role("controller")
            .in_environment("KUBECONFIG", self.kubeconfig())
            .with("--gateways-listen", "127.0.0.1:0")
            .with("--public-url", "http://faas.example")
    }

    /// The half that answers calls.
    pub fn gateway(&self) -> Start {
        let audience = "--audience=faas-controller";
        let token = self.kubectl(["create", "token", "faas-gateway", audience]);
        self.gateway_with(&token.good())
    }

    /// The same with this token.
    pub fn gateway_with(&self, token: &str) -> Start {
        let name = uuid::Uuid::new_v4().to_string();
        Start::role("gateway")
            .in_environment("KUBECONFIG", self.kubeconfig())
            .with("--controller-token", self.file(&name, token))
    }

    /// A file of this test's own.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// `kubectl`, with the kubeconfig of this namespace.
    pub fn command(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new("kubectl");
        command.args(words).env("KUBECONFIG", self.kubeconfig());
        command
    }

    pub fn kubectl(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
        self.kubectl_with(words, "")
    }

    /// With something on its standard input.
    pub fn kubectl_with(
        &self,
        words: impl IntoIterator<Item = impl AsRef<OsStr>>,
        input: &str,
    ) -> Ran {
        let mut child = self
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that does not want it may have ended already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Ran {
            success: output.status.success(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Applies an object, and fails unless the server takes it.
    pub fn apply(&self, object: &Value) {
        self.kubectl_with(["apply", "-f", "-"], &object.to_string())
            .good();
    }

    /// Waits, as people and pipelines do, until the Function is Ready.
    pub fn ready(&self, name: &str) {
        let name = format!("fn/{name}");
        self.kubectl(["wait", "--for=condition=Ready", &name, "--timeout=60s"])
            .good();
    }

    /// An object as it is.
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let ran = self.kubectl(["get", kind, name, "-o", "json", "--ignore-not-found"]);
        let text = ran.good();
        (!text.is_empty()).then(|| serde_json::from_str(&text).unwrap())
    }

    /// Its API server behind what a test puts before it.
    pub async fn faulty(&self) -> FaultyApi {
        let socket = self.dir.path().join("api.sock");
        let mut proxy = Command::new("kubectl");
        proxy.args(["proxy", "--reject-paths=^$", "--unix-socket"]);
        let proxy = proxy
            .arg(&socket)
            .env("KUBECONFIG", self.kubeconfig())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let proxy = Proxy(proxy);
        wait_until("the proxy listens", SOON, async || {
            socket.exists().then_some(())
        })
        .await;
        let before = Faulty::by_tcp(&socket);
        let kubeconfig = self.dir.path().join("faulty");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": before.address()}}],
            "users": [{"name": "it", "user": {}}],
            "contexts": [{
                "name": "it", "context": {"cluster": "it", "user": "it", "namespace": self.namespace},
            }],
        });
        fs::write(&kubeconfig, config.to_string()).unwrap();
        FaultyApi {
            before,
            kubeconfig,
            _proxy: proxy,
        }
    }

    /// All objects of a kind.
    pub fn list(&self, kind: &str) -> Vec<Value> {
        let list: Value =
            serde_json::from_str(&self.kubectl(["get", kind, "-o", "json"]).good()).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// Status, reason and message of a condition.
    pub fn condition(&self, name: &str, condition: &str) -> Option<[String; 3]> {
        let object = self.get("fn", name)?;
        let conditions = object["status"]["conditions"].as_array()?;
        let found = conditions.iter().find(|c| c["type"] == condition)?;
        Some(["status", "reason", "message"].map(|field| found[field].as_str().unwrap().to_owned()))
    }

    /// Where images are pushed, under the name by which nodes pull them.
    pub fn registry(test: &str) -> Option<String> {
        let registry = named("FAAS_CLUSTER_REGISTRY");
        if registry.is_none() {
            skip(
                &format!("Kubernetes, {test}"),
                "the cluster has no registry of ours",
            );
        }
        registry
    }

    /// The registry as pods reach it, and the image of faas itself.
    pub fn installable(test: &str) -> Option<(String, String)> {
        let registry = named("FAAS_CLUSTER_POD_REGISTRY");
        let image = named("FAAS_IMAGE");
        if registry.is_none() || image.is_none() {
            skip(
                &format!("Kubernetes, {test}"),
                "no image of faas, or no registry that pods reach, is named; `make test-cluster` brings both",
            );
        }
        registry.zip(image)
    }

    /// The plane that the suite runs, where it runs one: its API server can be stopped and started.
    pub fn plane(test: &str) -> Option<Plane> {
        let dir = named("FAAS_CLUSTER_DIR");
        if dir.is_none() {
            skip(
                &format!("Kubernetes, {test}"),
                "the plane of another's cluster is not ours to stop",
            );
        }
        dir.map(Plane)
    }
}

/// The API server, with bad days. Whoever asks there may do what its cluster's kubeconfig lets them.
pub struct FaultyApi {
    pub before: Faulty,
    pub kubeconfig: PathBuf,
    _proxy: Proxy,
}

/// A process that ends with this.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // What a failed test left would hold the namespace for ever.
        for function in self.kubectl(["get", "fn", "-o", "name"]).stdout.lines() {
            let free = r#"{"metadata":{"finalizers":null}}"#;
            self.kubectl(["patch", function, "--type=merge", "-p", free]);
        }
        self.kubectl(["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}

/// A control plane whose parts can be stopped. Tests that do are run one at a time, apart from others.
pub struct Plane(String);

impl Plane {
    /// The API server is killed, until it is started again.
    pub fn stop_api(&self) {
        self.script("stop-api");
    }

    pub fn start_api(&self) {
        self.script("start-api");
    }

    /// A node more, which can be lost. It is the cluster's as long as this lives.
    pub fn second_node(&self) -> SecondNode<'_> {
        self.script("add-node");
        SecondNode(self)
    }

    /// A Docker engine on the node, with Node's base image. It ends with the plane.
    pub fn engine(&self) -> NodesEngine {
        self.script("add-engine");
        let engine = NodesEngine(format!("unix://{}/engine.sock", self.0));
        let image = tempfile::NamedTempFile::new().unwrap();
        let image = image.path().to_str().unwrap();
        docker(&["save", "--output", image, "faas.local/node:22"]);
        let loaded = engine.docker(&["load", "--quiet", "--input", image]);
        assert!(loaded.contains("faas.local/node:22"), "{loaded}");
        engine
    }

    /// Nothing that a pod sends arrives, as long as this lives.
    pub fn deny(&self, address: &str) -> Denied<'_> {
        script(&["deny", &self.0, address]);
        Denied(self, address.to_owned())
    }

    fn script(&self, what: &str) {
        script(&[what, &self.0]);
    }
}

fn script(words: &[&str]) {
    let status = Command::new(SCRIPT).args(words).status().unwrap();
    assert!(status.success(), "{words:?}");
}

/// See [`Plane::engine`].
pub struct NodesEngine(String);

impl NodesEngine {
    pub fn docker(&self, args: &[&str]) -> String {
        docker(&[&["--host", &self.0], args].concat())
    }
}

/// See [`Plane::second_node`].
pub struct SecondNode<'a>(&'a Plane);

impl SecondNode<'_> {
    /// Nothing is heard of it any more, nor of what runs there, which goes on.
    pub fn lose(&self) {
        self.0.script("lose-node");
    }

    /// It is there again.
    pub fn find(&self) {
        self.0.script("add-node");
    }
}

impl Drop for SecondNode<'_> {
    fn drop(&mut self) {
        self.0.script("drop-node");
    }
}

/// See [`Plane::deny`].
pub struct Denied<'a>(&'a Plane, String);

impl Drop for Denied<'_> {
    fn drop(&mut self) {
        script(&["allow", &self.0.0, &self.1]);
    }
}

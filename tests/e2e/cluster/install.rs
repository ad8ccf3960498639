//! faas installed by `kubectl apply -k`, in its own image, with the rights that the manifests give: it serves, and `kubectl` does with
//! Functions what people expect of it.

mod build_engine;
mod manners;
mod one_node;
mod rights;
mod written;

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use self::written::{Place, halves, in_halves, kustomize, ours};
use super::saying;
use crate::support::{
    Reply, SOON, builder,
    cluster::{Cluster, Ran},
    has_docker,
    skip::skip,
    wait_until,
};

const SYSTEM: &str = "faas-system";
/// Its halves.
const HALVES: [&str; 2] = ["deployment/faas-controller", "deployment/faas-gateway"];

/// A cluster has one of it: tests install it one after the other.
static ALONE: Mutex<()> = Mutex::const_new(());

/// faas in the cluster until this is dropped.
struct Installed {
    cluster: Cluster,
    manifests: tempfile::TempDir,
    deployments: &'static [&'static str],
    _alone: MutexGuard<'static, ()>,
}

/// Installs it in halves, serving the test's namespace; skips where that is not possible.
async fn installed() -> Option<Installed> {
    install(&HALVES, halves).await
}

/// Installs what these manifests say.
async fn install(
    deployments: &'static [&'static str],
    manifests: fn(&Place) -> tempfile::TempDir,
) -> Option<Installed> {
    if !has_docker("e2e install") {
        return None;
    }
    let alone = ALONE.lock().await;
    let cluster = Cluster::here()?;
    let nodes_registry = Cluster::registry("e2e install")?;
    let (registry, image) = Cluster::installable("e2e install")?;
    if cluster.get("namespace", SYSTEM).is_some() {
        skip(
            "Kubernetes, e2e install",
            "the cluster has a faas of its own",
        );
        return None;
    }
    for (from, to) in [(&*image, "faas:test"), ("faas.local/node:22", "node:22")] {
        push(from, &format!("{nodes_registry}/install/{to}"));
    }
    let place = Place {
        namespace: cluster.namespace.clone(),
        nodes_registry,
        registry,
    };
    let installed = Installed {
        manifests: manifests(&place),
        cluster,
        deployments,
        _alone: alone,
    };
    installed.apply().good();
    installed.rolled_out();
    Some(installed)
}

fn push(from: &str, to: &str) {
    for words in [vec!["tag", from, to], vec!["push", to]] {
        let output = Command::new("docker").args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Installed {
    fn apply(&self) -> Ran {
        let dir = self.manifests.path().join("overlay");
        self.cluster.kubectl(["apply", "-k", dir.to_str().unwrap()])
    }

    /// How each object is written, but for what controllers note about it.
    fn versions(&self) -> Vec<(String, String, String)> {
        let dir = self.manifests.path().join("overlay");
        let words = ["get", "-o", "json", "-k", dir.to_str().unwrap()];
        let list: Value = serde_json::from_str(&self.cluster.kubectl(words).good()).unwrap();
        let objects = list["items"].as_array().unwrap().iter().map(|object| {
            let metadata = &object["metadata"];
            let version = metadata
                .get("generation")
                .unwrap_or(&metadata["resourceVersion"]);
            (
                object["kind"].to_string(),
                metadata["name"].to_string(),
                version.to_string(),
            )
        });
        objects.collect()
    }

    fn in_system(&self, words: &[&str]) -> Ran {
        self.cluster
            .kubectl([&["--namespace", SYSTEM], words].concat())
    }

    fn rolled_out(&self) {
        for deployment in self.deployments {
            let ran = self.in_system(&["rollout", "status", deployment, "--timeout=120s"]);
            let why = || self.in_system(&["logs", deployment, "--tail=20"]);
            assert!(ran.success, "{ran:?} {:?}", why());
        }
    }

    /// A key of the Secret that lets callers in.
    fn secret(&self, key: &str) -> String {
        let template = format!("go-template={{{{index .data {key:?} | base64decode}}}}");
        self.in_system(&["get", "secret", "faas-access", "-o", &template])
            .good()
    }

    /// What people call: the Service, by its name, trusting its certificate alone.
    fn service(&self) -> Service {
        let address =
            self.in_system(&["get", "service", "faas", "-o", "jsonpath={.spec.clusterIP}"]);
        let address = format!("{}:443", address.good()).parse().unwrap();
        let certificate =
            reqwest::Certificate::from_pem(self.secret("tls.crt").as_bytes()).unwrap();
        let client = builder()
            .no_proxy()
            // The end of a kept connection would go unseen while kubectl runs.
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(60))
            .resolve("faas.faas-system.svc", address)
            .tls_certs_only([certificate]);
        Service {
            client: client.build().unwrap(),
            token: self.secret("token"),
        }
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // But for the CRD, which other tests need.
        let label = "app.kubernetes.io/name=faas";
        let roles = "clusterroles,clusterrolebindings";
        self.cluster.kubectl(["delete", roles, "-l", label]);
        // A namespace goes in seconds once it has no pods; else it is waited for as long as they may take to end.
        let how = ["--cascade=foreground", "--timeout=60s"];
        self.in_system(&[&["delete"][..], self.deployments, &how].concat());
        let gone = ["delete", "namespace", SYSTEM, "--timeout=60s"];
        self.cluster.kubectl(gone);
    }
}

/// faas as callers in the cluster know it.
struct Service {
    client: reqwest::Client,
    token: String,
}

impl Service {
    async fn try_to_ask(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::Result<Reply> {
        let url = format!("https://faas.faas-system.svc{path}");
        let request = self.client.request(method.parse().unwrap(), url);
        let request = request.bearer_auth(&self.token);
        let request = match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        };
        Ok(Reply::of(request.send().await?).await)
    }

    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        self.try_to_ask(method, path, body).await.unwrap()
    }

    async fn call(&self, key: &str) -> Reply {
        let path = format!("/functions/{key}");
        self.ask("POST", &path, Some(json!({}))).await
    }

    /// Waits until every gateway lets it in: each looks at the Secret by itself, and which of them answers is by chance.
    async fn is_known(&self, key: &str) {
        let path = format!("/functions/{key}");
        wait_until("every gateway knows the token", SOON, async || {
            for _ in 0..30 {
                let asked = self.try_to_ask("POST", &path, Some(json!({})));
                asked.await.ok().filter(|reply| reply.status == 200)?;
            }
            Some(())
        })
        .await;
    }

    /// Waits until a call answers this. It may be that nobody listens for a moment.
    async fn answers(&self, key: &str, word: &str) {
        let path = format!("/functions/{key}");
        wait_until(word, SOON, async || {
            let asked = self.try_to_ask("POST", &path, Some(json!({})));
            let reply = asked.await.ok()?;
            (reply.status == 200 && reply.response() == word).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn kubectl_apply_k_installs_what_serves_functions() {
    let Some(installed) = installed().await else {
        return;
    };
    let before = installed.versions();
    installed.apply().good();
    assert_eq!(
        installed.versions(),
        before,
        "applied again, it changes nothing"
    );

    let cluster = &installed.cluster;
    let service = installed.service();
    let key = cluster.key("hello");
    cluster.apply(&saying("hello", "world"));
    cluster.ready("hello");
    assert_eq!(service.call(&key).await.response(), "world");
    let status = cluster.get("fn", "hello").unwrap()["status"].clone();
    let url = format!("https://faas.faas-system.svc/functions/{key}");
    assert_eq!(
        status["url"], url,
        "who is in the cluster can call what it says"
    );

    // Without a token nobody comes in, and one that was made in the cluster's Secret opens what it is for.
    let nobody = Service {
        token: "faas_?".into(),
        ..installed.service()
    };
    nobody.call(&key).await.refused(401, "Unauthorized");
    let made = installed.in_system(&[
        "exec",
        HALVES[0],
        "--",
        "/faas",
        "token",
        "create",
        "caller",
        "--scope",
        "invoke",
        "--secret",
        "faas-access",
    ]);
    let caller = Service {
        token: made.good().trim().to_owned(),
        ..installed.service()
    };
    caller.is_known(&key).await;
    caller
        .ask("GET", "/functions", None)
        .await
        .refused(403, "Forbidden");

    restarts_lose_nothing(&installed, &caller, &key).await;
    // Management is passed on to the one that controls now.
    wait_until("it is told again", SOON, async || {
        let asked = service.try_to_ask("GET", "/functions", None).await;
        asked.ok().filter(|reply| reply.status == 200)
    })
    .await;
}

/// The next pods have the same certificate and tokens, and take the instances as they are. Calls go on all the while.
async fn restarts_lose_nothing(installed: &Installed, caller: &Service, key: &str) {
    let before = installed.cluster.pod_names("hello");
    for half in HALVES {
        installed.in_system(&["rollout", "restart", half]).good();
        let status = ["rollout", "status", half, "--timeout=120s"];
        let status = [&["--namespace", SYSTEM][..], &status].concat();
        let mut status = installed.cluster.command(status);
        let mut restart = status.stdout(Stdio::null()).spawn().unwrap();
        while restart.try_wait().unwrap().is_none() {
            let answer = caller.call(key).await;
            assert_eq!(answer.response(), "world", "{half} restarts");
        }
        assert!(restart.wait().unwrap().success(), "{half}");
    }
    assert_eq!(installed.cluster.pod_names("hello"), before);
}

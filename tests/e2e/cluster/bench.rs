//! What a Function costs in a cluster, side by side with what people would do without us: a Deployment of the same image.
//! `make bench-cluster` prints it; nothing here asserts a time.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    gateways::{
        Halves,
        many::{self, MANY},
    },
    pods::{image, ready_made},
};
use crate::support::{SOON, cluster::Cluster, wait_until};

/// Each way is measured so often, in turn. The median is shown.
const ROUNDS: usize = 7;
/// Between two tries whether a Deployment answers.
const TRY: Duration = Duration::from_millis(10);

#[tokio::test]
#[ignore = "takes minutes: make bench-cluster"]
async fn apply_to_ready() {
    if let Some(bench) = Bench::start().await {
        bench.apply_to_ready();
    }
}

#[tokio::test]
#[ignore = "takes minutes: make bench-cluster"]
async fn zero_to_the_first_answer() {
    if let Some(bench) = Bench::start().await {
        bench.zero_to_the_first_answer().await;
    }
}

#[tokio::test]
#[ignore = "takes minutes: make bench-cluster"]
async fn a_waiting_call_to_its_pod() {
    if let Some(bench) = Bench::start().await {
        bench.a_waiting_call_to_its_pod().await;
    }
}

#[tokio::test]
#[ignore = "takes minutes: make bench-cluster"]
async fn a_thousand_at_once() {
    if let Some(bench) = Bench::start().await {
        bench.a_thousand_at_once().await;
    }
}

struct Bench {
    halves: Halves,
}

impl Bench {
    /// A controller and a gateway.
    async fn start() -> Option<Self> {
        let halves = Halves::start(1).await?;
        Some(Self { halves })
    }

    fn cluster(&self) -> &Cluster {
        &self.halves.cluster
    }

    /// An image that no node has: that of another round shares its base with it.
    fn image(&self, name: &str) -> String {
        image(
            self.cluster(),
            name,
            &format!("module.exports = () => '{name}'"),
        )
    }

    /// From `kubectl apply` until `kubectl wait` returns; the image is pushed, and no node has pulled it.
    fn apply_to_ready(&self) {
        let cluster = self.cluster();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        // In the round before those that count, the node pulls the base.
        for round in 0..=ROUNDS {
            let [ready, available] = [format!("ready-{round}"), format!("available-{round}")];
            let function = ready_made(
                &ready,
                &self.image(&ready),
                json!({"scale": {"min": 1, "max": 1}}),
            );
            let deployment = deployment(&available, &self.image(&available), 1);
            let function = || {
                let name = format!("fn/{ready}");
                timed(|| {
                    cluster.apply(&function);
                    wait(cluster, "Ready", &name);
                })
            };
            let deployment = || {
                let name = format!("deployment/{available}");
                timed(|| {
                    cluster.apply(&deployment);
                    wait(cluster, "Available", &name);
                })
            };
            let [our, their] = in_turn(round, function, deployment);
            if round > 0 {
                ours.push(our);
                theirs.push(their);
            }
            for one in [format!("fn/{ready}"), format!("deployment/{available}")] {
                cluster.kubectl(["delete", &one]).good();
            }
        }
        show(
            "apply to Ready, of an image that is not pulled",
            ours,
            theirs,
            "<= 1.2",
        );
    }

    /// From nothing that runs to an answer: a call to a Function, and `kubectl scale` of a Deployment that is then asked until it
    /// answers.
    async fn zero_to_the_first_answer(&self) {
        let (cluster, gateway) = (self.cluster(), &self.halves.gateways[0]);
        let image = self.image("zero");
        let scale = json!({"scale": {"min": 0, "max": 1, "idleAfterSeconds": 1}});
        cluster.apply(&ready_made("zero", &image, scale));
        cluster.ready("zero");
        cluster.apply(&deployment("nought", &image, 0));
        cluster
            .kubectl([
                "expose",
                "deployment/nought",
                "--port=80",
                "--target-port=8080",
            ])
            .good();
        let address =
            cluster.kubectl(["get", "service/nought", "-o", "jsonpath={.spec.clusterIP}"]);
        let url = format!("http://{}/invoke", address.good());
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            cluster.has_no_pods("zero").await;
            let began = Instant::now();
            let answer = gateway.call(&cluster.key("zero"), json!({})).await;
            ours.push(began.elapsed());
            assert_eq!(answer.response(), "zero");

            let began = Instant::now();
            cluster
                .kubectl(["scale", "deployment/nought", "--replicas=1"])
                .good();
            until_it_answers(&url).await;
            theirs.push(began.elapsed());
            cluster
                .kubectl(["scale", "deployment/nought", "--replicas=0"])
                .good();
            let gone = [
                "wait",
                "--for=delete",
                "pod",
                "-l",
                "app=nought",
                "--timeout=60s",
            ];
            cluster.kubectl(gone).good();
        }
        show("zero to the first answer", ours, theirs, "<= 0.9");
        cluster.kubectl(["delete", "fn/zero"]).good();
        cluster
            .kubectl(["delete", "deployment/nought", "service/nought"])
            .good();
    }

    /// From a call that leaves for the gateway, and finds nothing that runs, until its pod is told to somebody who watches.
    async fn a_waiting_call_to_its_pod(&self) {
        let (cluster, gateway) = (self.cluster(), &self.halves.gateways[0]);
        let scale = json!({"scale": {"min": 0, "max": 1, "idleAfterSeconds": 1}});
        cluster.apply(&ready_made("soon", &self.image("soon"), scale));
        cluster.ready("soon");
        let pods = Watched::pods(cluster, "soon");
        let mut took = Vec::new();
        for _ in 0..ROUNDS {
            cluster.has_no_pods("soon").await;
            let began = Instant::now();
            let answer = gateway.call(&cluster.key("soon"), json!({})).await;
            assert_eq!(answer.response(), "soon");
            let pod = wait_until("its pod is told", SOON, async || {
                pods.added.try_iter().find(|told| *told > began)
            });
            took.push(pod.await - began);
        }
        took.sort_unstable();
        let told = |took: Duration| took.as_millis();
        println!(
            "\na waiting call to its pod, as kubectl sees it: {} ms, at most {} ms (expected <= 100)",
            told(took[ROUNDS / 2]),
            told(took[ROUNDS - 1])
        );
        cluster.kubectl(["delete", "fn/soon"]).good();
    }

    /// Functions of one image that come at once, and what both halves hold in memory with them.
    async fn a_thousand_at_once(&self) {
        let cluster = self.cluster();
        let image = self.image("many");
        let list = many::list(&image);
        let (controller, gateway) = (&self.halves.controller, &self.halves.gateways[0]);
        let memory = || [controller, gateway].map(|half| half.memory() as f64 / 1024.0);
        let before = memory();
        let began = Instant::now();
        let apply = ["apply", "--server-side", "-f", "-"];
        cluster.kubectl_with(apply, &list).good();
        let applied = began.elapsed();
        many::all_are_ready(cluster).await;
        let ready = began.elapsed();
        let after = memory();
        println!(
            "\n{MANY} Functions applied at once: all Ready after {:.1} s, of which kubectl apply took {:.1} s",
            ready.as_secs_f64(),
            applied.as_secs_f64()
        );
        for (half, (before, after)) in ["controller", "gateway"]
            .iter()
            .zip(before.iter().zip(after))
        {
            println!("memory of the {half:<10} {before:6.1} MiB before, {after:6.1} MiB with them");
        }
        many::all_go(cluster).await;
    }
}

/// What `kubectl` tells of the pods of a Function, until this is dropped.
struct Watched {
    kubectl: Child,
    /// When each pod came.
    added: mpsc::Receiver<Instant>,
}

impl Watched {
    fn pods(cluster: &Cluster, name: &str) -> Self {
        let label = format!("faas.dev/function={name}");
        let format = r#"jsonpath={.type}{"\n"}"#;
        let words = ["get", "pods", "-l", &label, "--watch", "-o", format];
        let mut command = cluster.command(words);
        let command = command.arg("--output-watch-events").stdout(Stdio::piped());
        let mut kubectl = command.spawn().unwrap();
        let lines = BufReader::new(kubectl.stdout.take().unwrap()).lines();
        let (tell, added) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // Nobody listens any more at the end.
                if line == "ADDED" && tell.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        Self { kubectl, added }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

fn deployment(name: &str, image: &str, replicas: u32) -> Value {
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "it", "image": image}], "terminationGracePeriodSeconds": 1},
            },
        },
    })
}

fn wait(cluster: &Cluster, condition: &str, name: &str) {
    let condition = format!("--for=condition={condition}");
    cluster
        .kubectl(["wait", &condition, name, "--timeout=120s"])
        .good();
}

async fn until_it_answers(url: &str) {
    let client = reqwest::Client::builder().no_proxy();
    let client = client.timeout(Duration::from_secs(1)).build().unwrap();
    let mut pace = tokio::time::interval(TRY);
    let end = Instant::now() + SOON;
    loop {
        pace.tick().await;
        let answer = client.post(url).body("{}").send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        assert!(Instant::now() < end, "no answer of {url}");
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// The one that comes first comes second in the next round.
fn in_turn<T>(round: usize, one: impl FnOnce() -> T, other: impl FnOnce() -> T) -> [T; 2] {
    if round.is_multiple_of(2) {
        let one = one();
        [one, other()]
    } else {
        let other = other();
        [one(), other]
    }
}

fn show(what: &str, ours: Vec<Duration>, theirs: Vec<Duration>, target: &str) {
    let median = |mut took: Vec<Duration>| {
        took.sort_unstable();
        took[took.len() / 2].as_secs_f64()
    };
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "\n{what}: Function {ours:.2} s, Deployment {theirs:.2} s, ratio {:.2} (expected {target})",
        ours / theirs
    );
}

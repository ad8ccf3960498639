//! kill -9 at every point of a Function's way, while one is created, changed or deleted: the next start comes to the same
//! end, nothing is left over, and a function beside it goes on with the same instance.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Home, SOON, Server, Start, containers, docker, has_docker, images, networks, node,
    prober::{Outcome, Prober, honest},
    upload::{tar_of, upload},
    wait_until,
};

/// Points on the way to an instance that serves.
const COMING: [&str; 10] = [
    "upload-stored",
    "object-stored",
    "context-digested",
    "build-sent",
    "image-built",
    "container-created",
    "instance-started",
    "instance-ready",
    "before-switch",
    "status-written",
];
/// Points on the way of one that goes, whatever takes its place.
const GOING: [&str; 2] = ["draining", "stopping"];
/// The point on the way of a Function that goes.
const GONE: &str = "deleting";
/// Between two calls of the function beside.
const PACE: Duration = Duration::from_millis(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_a_function_is_created() {
    if !has_docker("e2e crash points of creation") {
        return;
    }
    let mut world = World::new().await;
    for point in COMING {
        let name = format!("new-{point}");
        world.crash(point, &name, vec![deployed(&name, 1)]).await;
        world.comes_to(&name, 1).await;
    }
    // In the place of one that goes.
    for point in GOING.into_iter().chain([GONE]) {
        let name = format!("again-{point}");
        world.send(deployed(&name, 1)).await;
        let requests = vec![deleted(&name), deployed(&name, 2)];
        world.crash(point, &name, requests).await;
        // Its caller was not told that it is taken; nor is it before the one before has gone.
        wait_until("it is taken", SOON, async || {
            let status = send(&world.server, &deployed(&name, 2)).await;
            (status == Some(200)).then_some(())
        })
        .await;
        world.comes_to(&name, 2).await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_a_function_changes() {
    if !has_docker("e2e crash points of change") {
        return;
    }
    let mut world = World::new().await;
    for point in COMING.into_iter().chain(GOING) {
        let name = format!("changed-{point}");
        world.send(deployed(&name, 1)).await;
        world.crash(point, &name, vec![deployed(&name, 2)]).await;
        world.comes_to(&name, 2).await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_a_function_is_deleted() {
    if !has_docker("e2e crash points of deletion") {
        return;
    }
    let mut world = World::new().await;
    for point in GOING.into_iter().chain([GONE]) {
        let name = format!("deleted-{point}");
        world.send(deployed(&name, 1)).await;
        world.crash(point, &name, vec![deleted(&name)]).await;
        world.goes(&name).await;
    }
    // What a change had come to goes too.
    for point in COMING {
        let name = format!("changed-{point}");
        world.send(deployed(&name, 1)).await;
        world.crash(point, &name, vec![deployed(&name, 2)]).await;
        world.send(deleted(&name)).await;
        world.goes(&name).await;
    }
    world.end().await;
}

type Request = (Method, String, Value);

/// The request that uploads a version, one instance of which is kept warm. The first one has a network, the next has not.
fn deployed(name: &str, version: u64) -> Request {
    let code = honest(name, version);
    let network = if version == 1 { network() } else { "none" };
    let more = format!("language: node\nnetwork: {network}\nscale: {{min: 1, max: 1}}\n");
    let tar = tar_of(&[("index.js", code.as_str()), ("fn.yaml", &more)]);
    (Method::POST, "/functions".to_owned(), upload(name, &tar))
}

fn deleted(name: &str) -> Request {
    (Method::DELETE, format!("/functions/{name}"), Value::Null)
}

/// What functions get where the machine can be shielded from them.
fn network() -> &'static str {
    let is_root = rustix::process::geteuid().is_root();
    if is_root { "internet" } else { "none" }
}

/// A server that is begun again after each crash, and a function beside the one in question that is called all the time.
struct World {
    home: Arc<Home>,
    server: Arc<Server>,
    address: SocketAddr,
    /// The only instance of the function beside.
    bystander: String,
    prober: Prober,
    /// What lay in the state directory before anything happened.
    files: BTreeSet<String>,
}

impl World {
    async fn new() -> Self {
        let home = Arc::new(Home::new());
        let server = Arc::new(start(&home, "127.0.0.1:0").await);
        let warm = json!({"scale": {"min": 1, "max": 1}, "network": network()});
        server
            .deploy("bystander", node(&honest("bystander", 1), warm))
            .await;
        Self {
            address: server.address,
            bystander: server.instances("bystander", "ready").await.remove(0),
            prober: Prober::start(&server, "bystander", PACE, 0).await,
            files: names(&home.state()),
            home,
            server,
        }
    }

    async fn send(&self, request: Request) {
        let status = send(&self.server, &request).await;
        assert!(matches!(status, Some(200 | 202)), "{request:?}: {status:?}");
    }

    /// Sends requests, one after the other, to a server that ends at the point, and starts it anew. Only what was not stored
    /// is sent again.
    async fn crash(&mut self, point: &str, name: &str, requests: Vec<Request>) {
        if point == "draining" {
            hold(&self.server, name).await;
        }
        let before = self.generation(name).await;
        let there = format!("{point} {name}");
        fs::write(trigger(&self.home), there).unwrap();
        let on_their_way: Vec<_> = requests
            .iter()
            .map(|(method, path, body)| self.server.request(method.clone(), path).json(body))
            .collect();
        let sent = tokio::spawn(async move {
            for request in on_their_way {
                // A refusal says why the point is not reached.
                match request.send().await {
                    Ok(answer) => println!("answered: {:?}", answer.text().await),
                    Err(error) => println!("not answered: {error:?}"),
                }
            }
        });
        let what = format!("{point} of {name} is reached");
        // What fails on the way for a moment is tried again after some time.
        let ended = wait_until(&what, SOON * 3, async || self.server.ended()).await;
        assert_eq!(ended.signal(), Some(Signal::KILL.as_raw()));
        fs::remove_file(trigger(&self.home)).unwrap();
        sent.await.unwrap();
        self.begin_anew().await;
        // A late turn about what was there before may have come to the point first.
        let is_stored = self.generation(name).await != before;
        assert!(is_stored || point != "object-stored", "{name} is lost");
        if !is_stored {
            for request in requests {
                self.send(request).await;
            }
        }
    }

    /// Which declaration of it is stored.
    async fn generation(&self, name: &str) -> Option<u64> {
        self.server.object(name).await?["metadata"]["generation"].as_u64()
    }

    async fn begin_anew(&mut self) {
        self.server = Arc::new(start(&self.home, &self.address.to_string()).await);
        wait_until(
            "who has nothing to do with it is adopted",
            SOON,
            async || {
                let ready = self.server.instances("bystander", "ready").await;
                (ready == [self.bystander.as_str()]).then_some(())
            },
        )
        .await;
    }

    async fn comes_to(&self, name: &str, version: u64) {
        let is_the_version = async || {
            let answer = self.server.call(name, json!({})).await;
            let answer = (answer.status == 200).then(|| answer.response())?;
            (answer["name"] == name && answer["version"] == version).then_some(())
        };
        wait_until(
            &format!("{name} is of version {version}"),
            SOON,
            is_the_version,
        )
        .await;
        self.server.ready(name).await;
        wait_until("one container is there, and it serves", SOON, async || {
            let ready = self.server.instances(name, "ready").await;
            let there = self.containers(name);
            (ready == there && there.len() == 1).then_some(())
        })
        .await;
    }

    async fn goes(&self, name: &str) {
        wait_until(&format!("{name} is gone"), SOON, async || {
            let is_gone = self.server.object(name).await.is_none();
            (is_gone && self.containers(name).is_empty()).then_some(())
        })
        .await;
    }

    fn containers(&self, name: &str) -> Vec<String> {
        let prefix = format!("faas-{name}-");
        let mut there = self.home.containers();
        there.retain(|container| container.starts_with(&prefix));
        there
    }

    /// After one more crash, at rest, what is there is what the Functions need. After an orderly end nothing is left.
    async fn end(mut self) {
        self.server.signal(Signal::KILL);
        self.server.end().await;
        self.begin_anew().await;
        self.beside_is_well().await;
        let list = self.server.get("/functions").await.expect(200).json();
        let wanted: BTreeSet<_> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f["status"]["image"].as_str().unwrap().to_owned())
            .collect();
        let owner = self.home.owner().unwrap();
        let filter = format!("label=faas.dev/owner={owner}");
        wait_until("only images are left that serve", SOON, async || {
            let there = docker(&[
                "images",
                "--filter",
                &filter,
                "--format",
                "{{.Repository}}:{{.Tag}}",
            ]);
            let there: BTreeSet<_> = there.lines().map(str::to_owned).collect();
            (there == wanted).then_some(())
        })
        .await;
        let dirs = run_dirs(&owner);
        assert_eq!(dirs, self.home.containers().into_iter().collect());
        // Rules are looked after now and then, by programs that end.
        wait_until("no process is left", SOON, async || {
            children(self.server.pid()).is_empty().then_some(())
        })
        .await;
        let internet = networks(&owner);
        let shields: Vec<_> = internet.iter().map(|network| bridge(network)).collect();
        let needed = usize::from(network() == "internet");
        assert_eq!(internet.len(), needed, "the one beside uses it");
        for bridge in &shields {
            assert!(packet_rules().contains(bridge), "{bridge}");
        }
        drop(self.server);
        assert_eq!(containers(&owner), [""; 0]);
        assert_eq!(networks(&owner), [""; 0]);
        for bridge in &shields {
            assert!(!packet_rules().contains(bridge), "{bridge}");
        }
        assert!(images(&owner).len() == wanted.len());
        assert_eq!(run_dirs(&owner), BTreeSet::new());
        // Sources stay for a while: an upload may be about to name one.
        let sources = self.home.state().join("sources");
        let sources = names(&sources);
        assert!(
            sources
                .iter()
                .all(|name| Path::new(name).extension().is_some_and(|e| e == "tar")),
            "{sources:?}"
        );
        assert!(names(&self.home.state()).is_subset(&self.files));
    }

    /// Calls were lost only while nobody listened, and with a server that was killed; none was executed twice.
    async fn beside_is_well(&mut self) {
        self.prober.listen_again(&self.server).await;
        let again = Prober::start(&self.server, "bystander", PACE, 0).await;
        let ledger = std::mem::replace(&mut self.prober, again).stop().await;
        ledger.check_but(|call| matches!(call.outcome, Outcome::Unreachable | Outcome::Broken(_)));
    }
}

fn trigger(home: &Home) -> PathBuf {
    home.secrets().join("crash")
}

async fn start(home: &Arc<Home>, address: &str) -> Server {
    let start = Start::default().crashing_by(&trigger(home));
    start.with("--listen", address).at(home).await
}

/// Keeps an instance busy for longer than a server that ends.
async fn hold(server: &Arc<Server>, name: &str) {
    let call = (
        Method::POST,
        format!("/functions/{name}"),
        json!({"ms": 25_000}),
    );
    let task = Arc::clone(server);
    tokio::spawn(async move { send(&task, &call).await });
    wait_until("the call runs", SOON, async || {
        let status = server.status(name).await;
        (status["instances"][0]["inFlight"] == 1).then_some(())
    })
    .await;
}

/// The status of the answer, if there is one.
async fn send(server: &Server, (method, path, body): &Request) -> Option<u16> {
    let sent = server.request(method.clone(), path).json(body).send().await;
    Some(sent.ok()?.status().as_u16())
}

/// What a directory has.
fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect()
}

/// Processes that a server has begun, running or not waited for, by whichever of its threads.
fn children(pid: u32) -> Vec<String> {
    let mut children = Vec::new();
    for thread in names(Path::new(&format!("/proc/{pid}/task"))) {
        // A thread may have ended meanwhile, and what it had begun is another's.
        let of_thread = fs::read_to_string(format!("/proc/{pid}/task/{thread}/children"));
        let of_thread = of_thread.unwrap_or_default();
        children.extend(of_thread.split_whitespace().map(str::to_owned));
    }
    children
}

/// The interface of a network.
fn bridge(network: &str) -> String {
    let option = r#"{{index .Options "com.docker.network.bridge.name"}}"#;
    docker(&["network", "inspect", "--format", option, network])
}

/// The rules for packets before their addresses are translated.
fn packet_rules() -> String {
    let listed = Command::new("iptables")
        .args(["--wait", "-t", "raw", "-S"])
        .output()
        .unwrap();
    assert!(listed.status.success(), "{listed:?}");
    String::from_utf8(listed.stdout).unwrap()
}

/// Directories of instances.
fn run_dirs(owner: &str) -> BTreeSet<String> {
    let around = faas::config::surroundings().unwrap();
    let dir = faas::app::run_base(around.user_runtime_dir.as_deref()).join(owner);
    names(&dir)
}

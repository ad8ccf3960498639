//! kill -9 at every point of a Function's way: the next start comes to the same end, and nothing is left over.

use std::{collections::BTreeSet, fs, os::unix::process::ExitStatusExt, path::PathBuf, sync::Arc};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Home, SOON, Server, Start, containers, docker, has_docker, images, node,
    prober::honest,
    upload::{tar_of, upload},
    wait_until,
};

const CREATE: [&str; 10] = [
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
/// Beside those of a creation.
const CHANGE: [&str; 2] = ["draining", "stopping"];
const DELETE: [&str; 3] = ["draining", "stopping", "deleting"];

#[tokio::test]
async fn a_crash_while_a_function_is_created() {
    if !has_docker("e2e crash points of creation") {
        return;
    }
    let world = World::new().await;
    for point in CREATE {
        let name = format!("new-{point}");
        world.crash(point, &name, deployed(&name, 1)).await;
        world.comes_to(&name, 1).await;
    }
    world.end().await;
}

#[tokio::test]
async fn a_crash_while_a_function_changes() {
    if !has_docker("e2e crash points of change") {
        return;
    }
    let world = World::new().await;
    for point in CREATE.into_iter().chain(CHANGE) {
        let name = format!("changed-{point}");
        world.send(deployed(&name, 1)).await;
        world.crash(point, &name, deployed(&name, 2)).await;
        world.comes_to(&name, 2).await;
    }
    world.end().await;
}

#[tokio::test]
async fn a_crash_while_a_function_is_deleted() {
    if !has_docker("e2e crash points of deletion") {
        return;
    }
    let world = World::new().await;
    for point in DELETE {
        let name = format!("deleted-{point}");
        world.send(deployed(&name, 1)).await;
        let delete = (Method::DELETE, format!("/functions/{name}"), Value::Null);
        world.crash(point, &name, delete).await;
        let server = world.server();
        wait_until("the function is gone", SOON, async || {
            server.object(&name).await.is_none().then_some(())
        })
        .await;
    }
    world.end().await;
}

type Request = (Method, String, Value);

/// The request that uploads a version, one instance of which is kept warm.
fn deployed(name: &str, version: u64) -> Request {
    let code = honest(name, version);
    let tar = tar_of(&[
        ("index.js", code.as_str()),
        ("fn.yaml", "language: node\nscale: {min: 1, max: 1}\n"),
    ]);
    (Method::POST, "/functions".to_owned(), upload(name, &tar))
}

/// A server that is begun again after each crash, and a function beside the one in question.
struct World {
    home: Arc<Home>,
    server: std::sync::Mutex<Arc<Server>>,
    bystander: String,
}

impl World {
    async fn new() -> Self {
        let home = Arc::new(Home::new());
        let server = Arc::new(start(&home).await);
        let warm = json!({"scale": {"min": 1, "max": 1}});
        server
            .deploy("bystander", node(&honest("bystander", 1), warm))
            .await;
        let bystander = server.instances("bystander", "ready").await.remove(0);
        Self {
            home,
            server: server.into(),
            bystander,
        }
    }

    fn server(&self) -> Arc<Server> {
        Arc::clone(&self.server.lock().unwrap())
    }

    async fn send(&self, request: Request) {
        let reply = send(&self.server(), &request).await;
        assert!(matches!(reply, Some(200 | 202)), "{request:?}: {reply:?}");
    }

    /// Sends a request to a server that ends at the point; starts anew, and sends it again as a client does that got no
    /// answer.
    async fn crash(&self, point: &str, name: &str, request: Request) {
        let server = self.server();
        if point == "draining" {
            hold(&server, name).await;
        }
        fs::write(self.trigger(), point).unwrap();
        let sent = tokio::spawn({
            let (server, request) = (Arc::clone(&server), request.clone());
            async move { send(&server, &request).await }
        });
        let what = format!("{point} of {name} is reached");
        let ended = wait_until(&what, SOON, async || server.ended()).await;
        assert_eq!(ended.signal(), Some(Signal::KILL.as_raw()));
        fs::remove_file(self.trigger()).unwrap();
        sent.await.unwrap();
        drop(server);

        let server = Arc::new(start(&self.home).await);
        *self.server.lock().unwrap() = Arc::clone(&server);
        let again = send(&server, &request).await;
        let gone = request.0 == Method::DELETE && again == Some(404);
        assert!(gone || matches!(again, Some(200 | 202)), "{again:?}");
        wait_until(
            "who has nothing to do with it is adopted",
            SOON,
            async || {
                let ready = server.instances("bystander", "ready").await;
                (ready == [self.bystander.as_str()]).then_some(())
            },
        )
        .await;
    }

    async fn comes_to(&self, name: &str, version: u64) {
        let server = self.server();
        server.ready(name).await;
        let answer = server.call(name, json!({})).await.response();
        assert_eq!(
            (&answer["name"], &answer["version"]),
            (&json!(name), &json!(version))
        );
        let prefix = format!("faas-{name}-");
        wait_until("one container is there, and it serves", SOON, async || {
            let ready = server.instances(name, "ready").await;
            let mut there = self.home.containers();
            there.retain(|container| container.starts_with(&prefix));
            (ready == there && there.len() == 1).then_some(())
        })
        .await;
    }

    /// After one more crash, at rest, what is there is what the Functions need. After an orderly end nothing is left.
    async fn end(self) {
        let server = self.server();
        server.signal(Signal::KILL);
        server.end().await;
        drop(server);
        let server = Arc::new(start(&self.home).await);
        let list = server.get("/functions").await.expect(200).json();
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
        drop(server);
        drop(self.server);
        assert_eq!(containers(&owner), [""; 0]);
        assert!(images(&owner).len() == wanted.len());
        assert_eq!(run_dirs(&owner), BTreeSet::new());
        // Sources stay for a while: an upload may be about to name one.
        let mut sources = fs::read_dir(self.home.state().join("sources")).unwrap();
        assert!(sources.all(|source| source.unwrap().path().extension().unwrap() == "tar"));
    }

    fn trigger(&self) -> PathBuf {
        trigger(&self.home)
    }
}

fn trigger(home: &Home) -> PathBuf {
    home.secrets().join("crash")
}

async fn start(home: &Arc<Home>) -> Server {
    Start::default().crashing_by(&trigger(home)).at(home).await
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

/// Directories of instances.
fn run_dirs(owner: &str) -> BTreeSet<String> {
    let around = faas::config::surroundings().unwrap();
    let dir = faas::app::run_base(around.user_runtime_dir.as_deref()).join(owner);
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

//! Ends and beginnings: what a crash leaves is adopted, what an orderly end leaves is nothing, and others are left alone.

mod secrets;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
    sync::Arc,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{
    Home, SOON, Server, Start, client, docker, has_docker, node, try_docker, wait_until,
};

/// Tells which container it is; takes `ms` for it.
const WHO: &str =
    "module.exports = (context, cb) => setTimeout(() => cb(process.env.HOSTNAME), context.ms || 0)";

fn warm() -> Value {
    node(WHO, json!({"scale": {"min": 1}}))
}

/// The engine's id of a container, of which the host name of its programs is the beginning.
fn id_of(container: &str) -> String {
    docker(&["inspect", "--format", "{{.Id}}", container])
}

#[tokio::test]
async fn after_a_crash_instances_are_adopted_and_deleted_files_are_pruned() {
    if !has_docker("e2e crash") {
        return;
    }
    let home = Arc::new(Home::new());
    let manifest = |name| crate::support::function(name, warm()).to_string();
    let server = Start::default().watching(&home).at(&home).await;
    for name in ["stays", "goes"] {
        home.write(&format!("{name}.yaml"), &manifest(name));
        wait_until("the function is known", SOON, async || {
            server.object(name).await
        })
        .await;
        server.ready(name).await;
    }
    server.deploy("posted", warm()).await;
    let before = containers(&home);
    assert_eq!(before.len(), 3, "{before:?}");
    let uid = server.object("stays").await.unwrap()["metadata"]["uid"].clone();

    server.signal(Signal::KILL);
    server.end().await;
    drop(server);
    assert_eq!(containers(&home), before, "a crash ends no container");
    home.remove("goes.yaml");

    let server = Start::default().watching(&home).at(&home).await;
    for name in ["stays", "posted"] {
        let who = server.call(name, json!({})).await.response();
        let adopted = before
            .iter()
            .find(|c| c.starts_with(&format!("faas-{name}-")))
            .unwrap();
        assert!(
            id_of(adopted).starts_with(who.as_str().unwrap()),
            "{name}: {who}"
        );
        server.ready(name).await;
    }
    assert_eq!(
        server.object("stays").await.unwrap()["metadata"]["uid"],
        uid
    );
    wait_until("the function whose file went is gone", SOON, async || {
        server.object("goes").await.is_none().then_some(())
    })
    .await;
    let mut expected = before;
    expected.retain(|name| !name.starts_with("faas-goes-"));
    wait_until(
        "its container is gone, and no other came",
        SOON,
        async || (containers(&home) == expected).then_some(()),
    )
    .await;
}

fn containers(home: &Home) -> Vec<String> {
    let mut containers = home.containers();
    containers.sort();
    containers
}

#[tokio::test]
async fn a_broken_generation_and_a_crash_leave_the_old_revision_serving() {
    if !has_docker("e2e crash while broken") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().at(&home).await;
    server.deploy("old", warm()).await;
    let before = server.instances("old", "ready").await;
    server
        .apply(
            "old",
            node("module.exports = (", json!({"scale": {"min": 1}})),
        )
        .await;
    server.fails("old", "StartFailed").await;
    server.signal(Signal::KILL);
    server.end().await;
    drop(server);

    let server = Start::default().at(&home).await;
    let who = server.call("old", json!({})).await.response();
    assert!(id_of(&before[0]).starts_with(who.as_str().unwrap()));
    server.fails("old", "StartFailed").await;
}

#[tokio::test]
async fn a_state_directory_has_one_server() {
    if !has_docker("e2e lock") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().at(&home).await;
    let second = Start::default().command(&home).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8(second.stderr).unwrap();
    assert!(
        words.contains(&format!("process {}", server.pid())),
        "{words}"
    );
    assert!(
        words.contains(&home.state().display().to_string()),
        "{words}"
    );
    server.get("/healthz").await.expect(200);
}

#[tokio::test]
async fn an_orderly_end_answers_the_calls_that_run_and_leaves_nothing() {
    if !has_docker("e2e drain") {
        return;
    }
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let home = Arc::new(Home::new());
        // Whoever runs the tests may ignore one or the other, and children inherit that.
        let server =
            Start::default().run_by(["env", "--default-signal=HUP", "--ignore-signal=INT"]);
        let server = server.at(&home).await;
        server.deploy("patient", warm()).await;
        let call = server.call("patient", json!({"ms": 2000}));
        let end = async {
            busy(&server, "patient").await;
            server.signal(signal);
            wait_until("nobody is let in any more", SOON, async || {
                let connected = tokio::net::TcpStream::connect(server.address).await;
                connected.is_err().then_some(())
            })
            .await;
        };
        let (reply, ()) = tokio::join!(call, end);
        reply.response();
        assert!(server.end().await.success());
        assert!(server.said().contains("Draining"), "{}", server.said());
        assert_eq!(home.containers(), [""; 0]);
        assert_eq!(mounts(&home), [""; 0]);
    }
}

#[tokio::test]
async fn a_server_that_shall_outlive_its_terminal_does() {
    if !has_docker("e2e nohup") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().run_by(["nohup"]).at(&home).await;
    server.signal(Signal::HUP);
    server.signal(Signal::INT);
    assert!(server.end().await.success());
    // A second signal would not have waited for anything.
    assert!(!server.said().contains("left before"), "{}", server.said());
}

/// Mounts of the installation that exist.
fn mounts(home: &Home) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let owner = home.owner().unwrap();
    let ours = mounts.lines().filter(|line| line.contains(&owner));
    ours.map(str::to_owned).collect()
}

async fn busy(server: &Server, name: &str) {
    wait_until("a call runs", SOON, async || {
        let status = server.status(name).await;
        let instances = status["instances"].as_array()?.clone();
        instances.iter().any(|i| i["inFlight"] == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_second_signal_leaves_at_once_and_the_next_start_adopts() {
    if !has_docker("e2e two signals") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().at(&home).await;
    server.deploy("long", warm()).await;
    let before = home.containers();
    let request = server.request(reqwest::Method::POST, "/functions/long");
    let call = tokio::spawn(request.json(&json!({"ms": 20_000})).send());
    busy(&server, "long").await;
    server.signal(Signal::INT);
    wait_until("it drains", SOON, async || {
        server.said().contains("Draining").then_some(())
    })
    .await;
    assert!(server.ended().is_none(), "a call runs, so it waits");
    server.signal(Signal::INT);
    assert_eq!(server.end().await.code(), Some(1), "a call was cut");
    let said = server.said();
    assert!(said.contains("adopted at the next start"), "{said}");
    assert!(
        !call.is_finished() || call.await.unwrap().is_err(),
        "the call was cut off"
    );
    assert_eq!(home.containers(), before, "adopted at the next start");
    drop(server);

    let server = Start::default().at(&home).await;
    server.call("long", json!({})).await.expect(200);
    assert_eq!(home.containers(), before);
}

/// As in `faas start 2>&1 | head -1`.
#[tokio::test]
async fn nobody_reading_what_the_server_says_ends_nothing() {
    if !has_docker("e2e closed output") {
        return;
    }
    let home = Arc::new(Home::new());
    let mut command = Start::default()
        .with("--listen", "127.0.0.1:0")
        .command(&home);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    let mut lines = said.lines().map(Result::unwrap);
    let listens =
        lines.find_map(|line| Some(line.strip_prefix("listening on http://")?.to_owned()));
    let address = listens.unwrap();
    drop(lines);
    drop(child.stderr.take());
    let post = |path: &str, body: Value| {
        client()
            .post(format!("http://{address}{path}"))
            .json(&body)
            .send()
    };
    let spec = node(WHO, json!({"scale": {"min": 1}}));
    let put = client().put(format!("http://{address}/functions/heard"));
    let manifest = crate::support::function("heard", spec);
    assert!(
        put.json(&manifest)
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
    let call = tokio::spawn(post("/functions/heard", json!({"ms": 1500})));
    wait_until("the call runs", SOON, async || {
        let metrics = client()
            .get(format!("http://{address}/status"))
            .send()
            .await
            .unwrap();
        let text = metrics.text().await.unwrap();
        text.contains("\"inFlight\":1").then_some(())
    })
    .await;
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    let ended = wait_until("the server ends", SOON, async || child.try_wait().unwrap()).await;
    assert!(ended.success(), "{ended}");
    assert_eq!(home.containers(), [""; 0]);
}

#[tokio::test]
async fn an_end_in_the_middle_of_a_build_leaves_nothing_of_it() {
    if !has_docker("e2e end of a build") {
        return;
    }
    let server = Start::default().at(&Arc::new(Home::new())).await;
    let marker = crate::support::fresh();
    let lines = format!("FROM busybox:1\nRUN echo {marker}\nRUN exec sleep 1000\n");
    let spec = crate::support::inline("dockerfile", json!({"Dockerfile": lines}), json!({}));
    server.apply("half", spec).await;
    wait_until("its last step runs", SOON, async || {
        let log = server.get("/functions/half/build-log").await.text;
        log.contains("==> RUN exec sleep 1000").then_some(())
    })
    .await;
    server.signal(Signal::INT);
    server.end().await;
    assert_eq!(traces(&marker), [""; 0]);
}

/// What the engine has that says this: containers, and images of steps.
fn traces(marker: &str) -> Vec<String> {
    let all = [
        &["images", "--all", "--quiet"][..],
        &["ps", "--all", "--quiet"],
    ]
    .map(docker);
    let ids = all.iter().flat_map(|ids| ids.split_whitespace());
    // What others have may be gone meanwhile.
    ids.filter(|id| try_docker(&["inspect", id]).is_ok_and(|said| said.contains(marker)))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn what_a_build_left_whose_server_was_killed_is_removed_at_the_next_start() {
    if !has_docker("e2e killed build") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().watching(&home).at(&home).await;
    let marker = crate::support::fresh();
    // Its own labels do not hide what it leaves.
    let label = "LABEL faas.dev/build=x faas.dev/image=x faas.dev/owner=x";
    let lines = format!(
        "FROM busybox:1 AS first\n{label}\nRUN echo {marker}\nFROM busybox:1\n{label}\nRUN echo {marker} 2\n\
         RUN exec sleep 1000\n"
    );
    let spec = crate::support::inline("dockerfile", json!({"Dockerfile": lines}), json!({}));
    let manifest = crate::support::function("cut", spec).to_string();
    home.write("cut.yaml", &manifest);
    // A directory without any manifest at a start would delete nothing.
    let stays = crate::support::function("stays", node(WHO, json!({}))).to_string();
    home.write("stays.yaml", &stays);
    wait_until("its last step runs", SOON, async || {
        let log = server.get("/functions/cut/build-log").await.text;
        log.contains("==> RUN exec sleep 1000").then_some(())
    })
    .await;
    // The classic builder keeps steps as images and containers; BuildKit, which newer engines build with, keeps none.
    let is_classic = docker(&["version", "--format", "{{.Server.Version}}"]).starts_with("20.");
    assert_eq!(traces(&marker).is_empty(), !is_classic);
    server.signal(Signal::KILL);
    server.end().await;
    drop(server);
    home.remove("cut.yaml");

    let server = Start::default().watching(&home).at(&home).await;
    wait_until("nothing of it is left", SOON, async || {
        (traces(&marker).is_empty() && server.object("cut").await.is_none()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn containers_of_another_installation_are_left_alone() {
    if !has_docker("e2e two owners") {
        return;
    }
    let homes = [Arc::new(Home::new()), Arc::new(Home::new())];
    let servers = [
        Start::default().at(&homes[0]).await,
        Start::default().at(&homes[1]).await,
    ];
    for server in &servers {
        server.deploy("same", warm()).await;
    }
    let [first, second] = servers;
    let theirs = homes[1].containers();
    let who = second.call("same", json!({})).await.response();

    // A start takes stock and collects; a deletion and an end clear away.
    drop(first);
    let first = Start::default().at(&homes[0]).await;
    first.ready("same").await;
    first.delete("/functions/same").await.expect(202);
    wait_until("its own is gone", SOON, async || {
        first.object("same").await.is_none().then_some(())
    })
    .await;
    drop(first);
    assert_eq!(homes[1].containers(), theirs);
    assert_eq!(second.call("same", json!({})).await.response(), who);
    assert!(!crate::support::images(&homes[1].owner().unwrap()).is_empty());
}

/// Another base image, or another version of the program, has another recipe, and what served was made by the one before.
#[tokio::test]
async fn a_recipe_that_cannot_be_had_does_not_take_down_what_served() {
    if !has_docker("e2e another recipe") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().at(&home).await;
    server.deploy("warm", warm()).await;
    let idle = json!({"scale": {"min": 0, "idleAfterSeconds": 1}});
    server.deploy("idle", node(WHO, idle)).await;
    wait_until("it goes to zero", SOON, async || {
        let there = containers(&home);
        (!there.iter().any(|name| name.starts_with("faas-idle-"))).then_some(())
    })
    .await;
    let before = containers(&home);
    server.signal(Signal::KILL);
    server.end().await;
    drop(server);

    let nowhere = "127.0.0.1:1/nowhere/node:22";
    let start = Start::default().with("--base-image", format!("node={nowhere}"));
    let server = start.at(&home).await;
    for name in ["warm", "idle"] {
        let message = server.fails(name, "PullFailed").await;
        assert!(message.contains(nowhere), "{message}");
        server.call(name, json!({})).await.response();
        let serves = |condition: &Value| condition["status"] == "True";
        server.condition(name, "Serving", serves).await;
    }
    assert!(containers(&home).contains(&before[0]), "it was adopted");
}

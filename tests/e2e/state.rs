//! Days on which the state directory is damaged or full.

use std::{fs, sync::Arc, time::Duration};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Home, SOON, Start, docker, function, has_docker, node, prober::Prober, wait_until,
};

const HERE: &str = "module.exports = async () => 'here'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_set_aside_and_directories_and_instances_fill_the_new_one() {
    if !has_docker("e2e damaged store") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().watching(&home).at(&home).await;
    write(&home, "filed", HERE);
    wait_until("the function is known", SOON, async || {
        server.object("filed").await
    })
    .await;
    server.ready("filed").await;
    server
        .deploy("posted", node(HERE, json!({"scale": {"min": 1}})))
        .await;
    let resting = json!({"scale": {"idleAfterSeconds": 1}});
    server.deploy("resting", node(HERE, resting)).await;
    wait_until("nothing is left of it but its image", SOON, async || {
        let instances = server.status("resting").await["instances"].clone();
        (instances == json!([])).then_some(())
    })
    .await;
    let before = server.instances("posted", "ready").await;
    server.signal(Signal::KILL);
    server.end().await;
    drop(server);
    damage(&home);

    let server = Start::default().watching(&home).at(&home).await;
    wait_until("the function is known again", SOON, async || {
        server.object("filed").await
    })
    .await;
    assert_eq!(server.call("filed", json!({})).await.response(), "here");
    server.ready("posted").await;
    assert_eq!(server.call("posted", json!({})).await.response(), "here");
    assert_eq!(server.instances("posted", "ready").await, before);
    let resting = server.call("resting", json!({})).await;
    resting.refused(400, "NotFound");
    let said = server.said();
    assert!(
        said.contains("The store was damaged") && said.contains("store.db.damaged-"),
        "{said}"
    );
    wait_until(
        "only instances of what is known run",
        SOON,
        async || match home.containers().as_slice() {
            [one, other] => [one, other].contains(&&before[0]).then_some(()),
            _ => None,
        },
    )
    .await;
}

/// Whatever their files say by now, and however much that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_costs_no_instance_of_a_directory() {
    if !has_docker("e2e damaged store beside a directory") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().watching(&home).at(&home).await;
    let long = format!("{HERE} // {}", "x".repeat(9000));
    let all = [
        ("whole", HERE),
        ("broken", HERE),
        ("gone", HERE),
        ("long", &long),
    ];
    for (name, code) in all {
        write(&home, name, code);
        wait_until("the function is known", SOON, async || {
            server.object(name).await
        })
        .await;
        server.ready(name).await;
    }
    let before = sorted(home.containers());
    assert_eq!(before.len(), all.len(), "{before:?}");
    write(&home, "broken", "module.exports = (");
    server.fails("broken", "StartFailed").await;
    let uid = server.object("broken").await.unwrap()["metadata"]["uid"].clone();
    server.signal(Signal::KILL);
    server.end().await;
    drop(server);
    damage(&home);
    home.remove("gone.yaml");

    let server = Start::default().watching(&home).at(&home).await;
    for name in ["whole", "broken", "long"] {
        assert_eq!(server.call(name, json!({})).await.response(), "here");
    }
    server.fails("broken", "StartFailed").await;
    assert_eq!(server.call("broken", json!({})).await.response(), "here");
    let back = server.object("broken").await.unwrap()["metadata"]["uid"].clone();
    assert_eq!(back, uid);
    let is_of = |name: &str, container: &String| container.starts_with(&format!("faas-{name}-"));
    let expected: Vec<_> = before.iter().filter(|one| !is_of("gone", one)).collect();
    wait_until(
        "what is wanted runs on, and nothing else",
        SOON,
        async || {
            let now = sorted(home.containers());
            now.iter().eq(expected.iter().copied()).then_some(())
        },
    )
    .await;
    assert!(server.object("gone").await.is_none());

    // Its instance told what it was made from.
    let first = before.iter().find(|one| is_of("broken", one)).unwrap();
    docker(&["rm", "--force", first]);
    wait_until("another instance takes its place", SOON, async || {
        let now = server.instances("broken", "ready").await;
        (!now.is_empty() && !now.contains(first)).then_some(())
    })
    .await;
    assert_eq!(server.call("broken", json!({})).await.response(), "here");
}

fn write(home: &Home, name: &str, code: &str) {
    let warm = node(code, json!({"scale": {"min": 1}}));
    home.write(&format!("{name}.yaml"), &function(name, warm).to_string());
}

fn damage(home: &Home) {
    fs::write(home.state().join("store.db"), "noise ".repeat(1000)).unwrap();
    fs::remove_file(home.state().join("store.db-wal")).unwrap();
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_or_an_owner_that_is_lost_costs_no_instance() {
    if !has_docker("e2e lost store") {
        return;
    }
    let home = Arc::new(Home::new());
    let mut server = Start::default().at(&home).await;
    server
        .deploy("posted", node(HERE, json!({"scale": {"min": 1}})))
        .await;
    let before = server.instances("posted", "ready").await;
    assert!(!server.said().contains("was damaged"), "{}", server.said());
    let store = || home.state().join("store.db");
    let owner = || home.state().join("owner");
    for (damage, words) in [
        (
            &(|| fs::write(store(), "").unwrap()) as &dyn Fn(),
            "it is empty",
        ),
        (&|| fs::remove_file(store()).unwrap(), "it is gone"),
        (&|| fs::remove_file(owner()).unwrap(), "had lost its owner"),
    ] {
        server.signal(Signal::KILL);
        server.end().await;
        drop(server);
        damage();
        server = Start::default().at(&home).await;
        server.ready("posted").await;
        assert_eq!(server.call("posted", json!({})).await.response(), "here");
        assert_eq!(server.instances("posted", "ready").await, before, "{words}");
        assert_eq!(home.containers(), before, "{words}");
        assert!(server.said().contains(words), "{}", server.said());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_state_directory_refuses_changes_and_answers_calls() {
    if !has_docker("e2e full state directory") {
        return;
    }
    let Some(home) = Home::on_a_small_disk("e2e full state directory") else {
        return;
    };
    let home = Arc::new(home);
    let server = Start::default().at(&home).await;
    let warm = || node(HERE, json!({"scale": {"min": 1, "max": 1}}));
    server.deploy("warm", warm()).await;
    let code = crate::support::prober::honest("called", 1);
    server.deploy("called", node(&code, json!({}))).await;
    let prober = Prober::start(&server, "called", Duration::from_millis(25), 5).await;

    home.disk().fill(0);
    let manifest = function("new", warm()).to_string();
    let refused = server.put("/functions/new", manifest).await;
    let refused = refused.refused(507, "NoSpace");
    assert!(
        refused.text.contains("store.db") && refused.text.contains("full"),
        "{}",
        refused.text
    );
    // What happens meanwhile cannot be noted, and is done all the same.
    let before = server.instances("warm", "ready").await.remove(0);
    docker(&["rm", "--force", &before]);
    wait_until("another instance takes its place", SOON, async || {
        let now = home.containers();
        let new = now
            .iter()
            .find(|name| name.starts_with("faas-warm-") && **name != before);
        new.is_some().then_some(())
    })
    .await;
    assert_eq!(server.call("warm", json!({})).await.response(), "here");

    home.disk().free();
    server.deploy("new", warm()).await;
    wait_until("the status is true again", SOON, async || {
        let status = server.object("warm").await.unwrap()["status"].clone();
        (status["readyReplicas"] == 1 && status["replicas"] == 1).then_some(())
    })
    .await;
    server.ready("warm").await;
    prober.stop().await.check(|_| false);
}

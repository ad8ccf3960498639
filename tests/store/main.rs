//! The embedded store against a real file: versions, finalizers, watches, restarts, damage and the state directory.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod damage;
#[path = "../support/disk.rs"]
mod disk;
#[path = "../support/skip.rs"]
mod skip;

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use faas::{
    function::{Function, FunctionKey, FunctionStatus, Revision},
    store::{
        Applied, EventRecord, EventType, FINALIZER, Fact, Manager, Object, Store, StoreError,
        embedded::EmbeddedStore, state,
    },
};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::runtime::watcher::Event;
use serde_json::json;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(10);

fn function(name: &str, code: &str) -> Function {
    serde_json::from_value(json!({
        "apiVersion": "faas.dev/v1alpha1", "kind": "Function",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"language": "node", "source": {"inline": {"index.js": code}}},
    }))
    .unwrap()
}

fn key(name: &str) -> FunctionKey {
    name.parse().unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::new(1_700_000_000 + second, 5).unwrap()
}

fn file(path: &str) -> Manager {
    Manager::Directory { file: path.into() }
}

fn status(revision: &str) -> FunctionStatus {
    FunctionStatus {
        revision: Some(revision.to_owned()),
        ..FunctionStatus::default()
    }
}

fn uid(function: &Function) -> &str {
    function.metadata.uid.as_deref().unwrap()
}

fn store() -> (TempDir, EmbeddedStore) {
    let directory = TempDir::new().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    (directory, store)
}

/// What a watcher saw, in words.
async fn next(watch: &mut (impl Stream<Item = Event<Object>> + Unpin)) -> String {
    let name = |object: Object| object.metadata.name.clone().unwrap();
    match tokio::time::timeout(DEADLINE, watch.next())
        .await
        .expect("an event in time")
        .expect("a watch does not end")
    {
        Event::Init => "init".into(),
        Event::InitApply(function) => format!("init {}", name(function)),
        Event::InitDone => "done".into(),
        Event::Apply(function) => format!("apply {}", name(function)),
        Event::Delete(function) => format!("delete {}", name(function)),
    }
}

#[tokio::test]
async fn a_new_object_gets_its_metadata() {
    let (_directory, store) = store();
    let (applied, made) = store
        .apply(function("sum", "1"), &file("a.yaml"), at(0))
        .await
        .unwrap();
    assert_eq!(applied, Applied::Created);
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(made.metadata.finalizers, Some(vec![FINALIZER.to_owned()]));
    assert_eq!(
        made.metadata.creation_timestamp,
        Some(Time(Timestamp::from_second(at(0).as_second()).unwrap()))
    );
    assert_eq!(Manager::of(&made), file("a.yaml"));
    assert_eq!(store.get(&key("sum")), Some(Arc::clone(&made)));
    assert_eq!(store.list(), [made]);
}

#[tokio::test]
async fn a_generation_is_a_change_of_the_spec() {
    let (_directory, store) = store();
    let (_, first) = store
        .apply(function("sum", "1"), &Manager::Api, at(0))
        .await
        .unwrap();

    let (applied, same) = store
        .apply(function("sum", "1"), &Manager::Api, at(1))
        .await
        .unwrap();
    assert_eq!((applied, &same), (Applied::Unchanged, &first));

    let mut labelled = function("sum", "1");
    labelled.metadata.labels = Some(BTreeMap::from([("team".into(), "a".into())]));
    let (applied, labelled) = store.apply(labelled, &Manager::Api, at(2)).await.unwrap();
    assert_eq!(
        (applied, labelled.metadata.generation),
        (Applied::Configured, Some(1))
    );
    assert_ne!(
        labelled.metadata.resource_version,
        first.metadata.resource_version
    );

    store
        .write_status(&key("sum"), uid(&first), status("r1"))
        .await
        .unwrap();
    let (_, changed) = store
        .apply(function("sum", "2"), &Manager::Api, at(3))
        .await
        .unwrap();
    assert_eq!(
        (changed.metadata.generation, uid(&changed)),
        (Some(2), uid(&first))
    );
    assert_eq!(changed.metadata.labels, None);
    assert_eq!(changed.status, Some(status("r1")));
    assert_eq!(
        changed.metadata.creation_timestamp,
        first.metadata.creation_timestamp
    );
}

#[tokio::test]
async fn one_manager_holds_an_object() {
    let (_directory, store) = store();
    store
        .apply(function("files", "1"), &file("functions/a.yaml"), at(0))
        .await
        .unwrap();
    store
        .apply(function("api", "1"), &Manager::Api, at(0))
        .await
        .unwrap();

    let refused = store
        .apply(function("files", "2"), &Manager::Api, at(1))
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::Managed { .. }));
    assert!(
        refused.to_string().contains("functions/a.yaml"),
        "{refused}"
    );
    assert!(
        store
            .delete(&key("files"), &Manager::Api, at(1))
            .await
            .is_err()
    );
    assert!(
        store
            .apply(function("api", "2"), &file("b.yaml"), at(1))
            .await
            .is_err()
    );
    assert_eq!(
        store.get(&key("files")).unwrap().metadata.generation,
        Some(1)
    );

    let (applied, moved) = store
        .apply(function("files", "1"), &file("b.yaml"), at(1))
        .await
        .unwrap();
    assert_eq!(
        (applied, Manager::of(&moved)),
        (Applied::Configured, file("b.yaml"))
    );
}

#[tokio::test]
async fn a_deleted_object_stays_until_it_is_finalized() {
    let (_directory, store) = store();
    let (_, made) = store
        .apply(function("sum", "1"), &Manager::Api, at(0))
        .await
        .unwrap();
    assert!(
        !store.finalize(&key("sum"), uid(&made)).await.unwrap(),
        "nobody deleted it"
    );

    store
        .delete(&key("sum"), &Manager::Api, at(1))
        .await
        .unwrap();
    let dying = store.get(&key("sum")).unwrap();
    assert!(dying.metadata.deletion_timestamp.is_some());
    store
        .delete(&key("sum"), &Manager::Api, at(2))
        .await
        .unwrap();
    assert_eq!(
        store.get(&key("sum")),
        Some(dying),
        "a second delete changes nothing"
    );
    let refused = store
        .apply(function("sum", "2"), &Manager::Api, at(2))
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::Deleting { .. }));

    assert!(!store.finalize(&key("sum"), "another").await.unwrap());
    assert!(store.finalize(&key("sum"), uid(&made)).await.unwrap());
    assert_eq!(store.get(&key("sum")), None);
    let gone = store
        .delete(&key("sum"), &Manager::Api, at(3))
        .await
        .unwrap_err();
    assert!(matches!(gone, StoreError::NotFound { .. }));

    let (applied, anew) = store
        .apply(function("sum", "1"), &Manager::Api, at(4))
        .await
        .unwrap();
    assert_eq!(applied, Applied::Created);
    assert_ne!(uid(&anew), uid(&made));
    assert!(
        !store
            .write_status(&key("sum"), uid(&made), status("old"))
            .await
            .unwrap()
    );
    assert_eq!(store.get(&key("sum")).unwrap().status, None);
}

#[tokio::test]
async fn a_status_is_written_only_when_it_differs() {
    let (directory, store) = store();
    let (_, made) = store
        .apply(function("sum", "1"), &Manager::Api, at(0))
        .await
        .unwrap();
    let mut status = status("r1");
    status.conditions.push(Condition {
        last_transition_time: Time(at(1)),
        message: "fine".into(),
        observed_generation: Some(1),
        reason: "Ready".into(),
        status: "True".into(),
        type_: "Ready".into(),
    });
    assert!(
        store
            .write_status(&key("sum"), uid(&made), status.clone())
            .await
            .unwrap()
    );
    let version = store
        .get(&key("sum"))
        .unwrap()
        .metadata
        .resource_version
        .clone();
    assert!(
        !store
            .write_status(&key("sum"), uid(&made), status.clone())
            .await
            .unwrap()
    );
    let written = store.get(&key("sum")).unwrap();
    assert_eq!(
        (
            &written.metadata.resource_version,
            written.metadata.generation
        ),
        (&version, Some(1))
    );

    drop(store);
    let store = EmbeddedStore::open(directory.path()).unwrap();
    assert_eq!(
        store.get(&key("sum")),
        Some(written),
        "memory and file are the same"
    );
    assert!(
        !store
            .write_status(&key("sum"), uid(&made), status)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_watch_tells_what_is_there_and_then_every_change() {
    let (_directory, store) = store();
    let (_, a) = store
        .apply(function("a", "1"), &Manager::Api, at(0))
        .await
        .unwrap();
    store
        .apply(function("b", "1"), &Manager::Api, at(0))
        .await
        .unwrap();
    let mut watch = store.watch();

    store
        .apply(function("c", "1"), &Manager::Api, at(1))
        .await
        .unwrap();
    store
        .apply(function("c", "1"), &Manager::Api, at(1))
        .await
        .unwrap();
    store.delete(&key("a"), &Manager::Api, at(1)).await.unwrap();
    store
        .write_status(&key("b"), "another", status("r"))
        .await
        .unwrap();
    store.finalize(&key("a"), uid(&a)).await.unwrap();
    store
        .apply(function("a", "1"), &Manager::Api, at(2))
        .await
        .unwrap();

    for expected in [
        "init", "init a", "init b", "done", "apply c", "apply a", "delete a", "apply a",
    ] {
        assert_eq!(next(&mut watch).await, expected);
    }
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let (directory, store) = store();
    let revision = Revision::of([b"r".as_slice()]);
    store
        .apply(function("sum", "1"), &Manager::Api, at(0))
        .await
        .unwrap();
    let (_, gone) = store
        .apply(function("gone", "1"), &Manager::Api, at(0))
        .await
        .unwrap();
    store
        .note(&key("sum"), "1", &revision, Fact::Proven)
        .await
        .unwrap();
    store
        .delete(&key("gone"), &Manager::Api, at(1))
        .await
        .unwrap();
    store.finalize(&key("gone"), uid(&gone)).await.unwrap();
    let before = store.list();
    drop(store);

    let store = EmbeddedStore::open(directory.path()).unwrap();
    assert_eq!(store.list(), before);
    assert!(store.knows(&revision, Fact::Proven));
    assert!(!store.knows(&revision, Fact::SingleCall));
    let (_, later) = store
        .apply(function("later", "1"), &Manager::Api, at(2))
        .await
        .unwrap();
    let version = |function: &Function| {
        function
            .metadata
            .resource_version
            .clone()
            .unwrap()
            .parse::<i64>()
            .unwrap()
    };
    assert!(
        version(&later) > 4,
        "a version is never used twice, though the last change was a removal"
    );

    store.forget(vec![revision.clone()]).await.unwrap();
    assert!(store.known(Fact::Proven).is_empty());
    drop(store);
    assert!(
        !EmbeddedStore::open(directory.path())
            .unwrap()
            .knows(&revision, Fact::Proven)
    );
}

#[tokio::test]
async fn events_count_up_are_bounded_and_go_with_their_object() {
    let (directory, store) = store();
    let (_, made) = store
        .apply(function("sum", "1"), &Manager::Api, at(0))
        .await
        .unwrap();
    let event = |n: i64| {
        EventRecord::new(
            EventType::Warning,
            "BuildFailed",
            format!("build {n}"),
            at(n),
        )
    };
    for n in 0..60 {
        store
            .record(&key("sum"), uid(&made), event(n))
            .await
            .unwrap();
    }
    store
        .record(
            &key("sum"),
            uid(&made),
            EventRecord {
                time: at(99),
                ..event(20)
            },
        )
        .await
        .unwrap();
    store
        .record(&key("sum"), "another", event(100))
        .await
        .unwrap();
    drop(store);

    let store = EmbeddedStore::open(directory.path()).unwrap();
    let events = store.events(&key("sum")).await.unwrap();
    assert_eq!(events.len(), 50);
    assert_eq!(events.first().unwrap().message, "build 10");
    assert_eq!(
        events.last(),
        Some(&EventRecord {
            time: events[49].time,
            count: 2,
            ..event(20)
        })
    );
    assert_eq!(events[49].time.as_second(), at(99).as_second());

    store
        .delete(&key("sum"), &Manager::Api, at(100))
        .await
        .unwrap();
    store.finalize(&key("sum"), uid(&made)).await.unwrap();
    store
        .apply(function("sum", "1"), &Manager::Api, at(101))
        .await
        .unwrap();
    assert_eq!(store.events(&key("sum")).await.unwrap(), []);
}

#[tokio::test]
async fn writers_at_the_same_time_lose_nothing() {
    let (_directory, store) = store();
    let store = Arc::new(store);
    let writes = (0..50).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            store
                .apply(function("sum", &n.to_string()), &Manager::Api, at(n))
                .await
        })
    });
    let versions: std::collections::BTreeSet<_> = futures::future::join_all(writes)
        .await
        .into_iter()
        .map(|write| write.unwrap().unwrap().1.metadata.resource_version.clone())
        .collect();
    assert_eq!(versions.len(), 50);
    assert_eq!(
        store.get(&key("sum")).unwrap().metadata.generation,
        Some(50)
    );
}

/// A thousand objects with their statuses; run with `--nocapture` to see what they cost.
#[tokio::test]
async fn a_thousand_objects_are_cheap() {
    let (_directory, store) = store();
    let begin = std::time::Instant::now();
    for n in 0..1000 {
        let name = format!("f{n}");
        let (_, made) = store
            .apply(function(&name, "1"), &Manager::Api, at(0))
            .await
            .unwrap();
        assert!(
            store
                .write_status(&key(&name), uid(&made), status("r"))
                .await
                .unwrap()
        );
    }
    println!("1000 applies and 1000 status writes: {:?}", begin.elapsed());
    assert_eq!(store.list().len(), 1000);
}

#[test]
fn a_file_of_a_newer_format_is_left_alone() {
    let (directory, store) = store();
    drop(store);
    let connection = rusqlite::Connection::open(directory.path().join("store.db")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = EmbeddedStore::open(directory.path())
        .err()
        .expect("refused");
    assert!(
        matches!(error, StoreError::Newer { found: 99, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("store.db"), "{error}");
}

#[test]
fn the_second_to_take_the_state_directory_learns_who_has_it() {
    let directory = TempDir::new().unwrap();
    let lock = state::lock(directory.path(), "faas start --dir functions").unwrap();
    let refused = state::lock(directory.path(), "faas start")
        .unwrap_err()
        .to_string();
    for part in [
        &std::process::id().to_string(),
        "faas start --dir functions",
        directory.path().to_str().unwrap(),
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    drop(lock);
    state::lock(directory.path(), "faas start").unwrap();
}

#[test]
fn the_identity_is_made_once_and_never_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    let (owner, secret) = (
        state::owner(directory.path()).unwrap(),
        state::secret(directory.path()).unwrap(),
    );
    assert!(
        owner.len() == 16 && owner.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{owner}"
    );
    assert_eq!(state::owner(directory.path()).unwrap(), owner);
    assert_eq!(state::secret(directory.path()).unwrap(), secret);
    for name in ["owner", "secret"] {
        assert_eq!(
            fs::metadata(directory.path().join(name))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
    }
    fs::write(directory.path().join("owner"), "abc").unwrap();
    assert!(matches!(
        state::owner(directory.path()),
        Err(StoreError::Damaged { .. })
    ));
}

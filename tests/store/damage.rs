//! Damaged files, torn writes and full disks: the store is as it was before a write or after it, and what can be read of a
//! damaged one is kept.

use std::{
    fs,
    path::{Path, PathBuf},
};

use faas::{
    function::Revision,
    store::{
        Fact, Manager, Store, StoreError,
        embedded::{self, EmbeddedStore},
        state,
    },
};
use futures::FutureExt;
use tempfile::TempDir;

use super::{at, disk::Disk, file, function, key, status, store, uid};

/// Everything that a reader sees.
fn content(store: &EmbeddedStore) -> serde_json::Value {
    let objects: Vec<_> = store.list().iter().map(|f| (**f).clone()).collect();
    serde_json::to_value(objects).unwrap()
}

fn names(store: &EmbeddedStore) -> Vec<String> {
    let names = store.list().into_iter();
    names.map(|f| f.metadata.name.clone().unwrap()).collect()
}

async fn apply(store: &EmbeddedStore, name: &str, code: &str) {
    apply_by(&Manager::Api, store, name, code).await;
}

async fn apply_by(manager: &Manager, store: &EmbeddedStore, name: &str, code: &str) {
    let applied = store.apply(function(name, code), manager, at(0));
    applied.await.unwrap();
}

/// Where damaged stores were set aside.
fn set_aside(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.to_string_lossy().contains("store.db.damaged-"))
        .collect()
}

fn execute(directory: &Path, statement: &str) {
    let connection = rusqlite::Connection::open(directory.join("store.db")).unwrap();
    connection.execute_batch(statement).unwrap();
}

#[tokio::test]
async fn what_is_no_store_is_set_aside_with_the_sources() {
    let directory = TempDir::new().unwrap();
    let noise = "this is not a database, and long enough to be seen as none".repeat(20);
    fs::write(directory.path().join("store.db"), &noise).unwrap();
    fs::create_dir(directory.path().join("sources")).unwrap();
    fs::write(directory.path().join("sources/a.tar"), "a").unwrap();

    let store = EmbeddedStore::open(directory.path()).unwrap();
    assert!(names(&store).is_empty());
    apply(&store, "sum", "1").await;
    let aside = set_aside(directory.path());
    assert_eq!(aside.len(), 1);
    assert_eq!(
        fs::read_to_string(aside[0].join("store.db")).unwrap(),
        noise
    );
    assert!(aside[0].join("sources/a.tar").exists());

    drop(store);
    let store = EmbeddedStore::open(directory.path()).unwrap();
    assert_eq!(names(&store), ["sum"]);
    assert_eq!(set_aside(directory.path()).len(), 1, "the new one is whole");
}

/// Whatever is left of it: its log alone may be.
#[tokio::test]
async fn a_store_that_is_empty_or_gone_was_damaged() {
    let empty = |file: &Path| fs::write(file, "").unwrap();
    let gone = |file: &Path| fs::remove_file(file).unwrap();
    let open: fn(&Path) -> Result<EmbeddedStore, StoreError> = EmbeddedStore::open;
    for (what, damage, open) in [
        ("empty", &empty as &dyn Fn(&Path), open),
        ("empty", &empty, EmbeddedStore::open_again),
        ("gone", &gone, EmbeddedStore::open_again),
    ] {
        let (directory, store) = store();
        apply(&store, "sum", "1").await;
        let lost = store.get(&key("sum")).unwrap();
        drop(store);
        damage(&directory.path().join("store.db"));
        fs::write(directory.path().join("store.db-wal"), "log").unwrap();

        let store = open(directory.path()).unwrap();
        assert!(names(&store).is_empty(), "{what}");
        let aside = set_aside(directory.path());
        assert_eq!(aside.len(), 1, "{what}");
        let log = fs::read_to_string(aside[0].join("store.db-wal")).unwrap();
        assert_eq!(log, "log", "{what}");
        assert!(store.take_back((*lost).clone()).await.unwrap(), "{what}");
        let back = store.get(&key("sum")).unwrap();
        assert_eq!(uid(&back), uid(&lost), "{what}");
        drop(store);
        let store = EmbeddedStore::open_again(directory.path()).unwrap();
        assert_eq!(names(&store), ["sum"], "{what}");
        assert_eq!(set_aside(directory.path()).len(), 1, "the new one is whole");
    }
}

#[tokio::test]
async fn a_store_where_none_was_has_lost_nothing() {
    let (directory, store) = store();
    assert!(set_aside(directory.path()).is_empty());
    let function = function("sum", "1");
    assert!(!store.take_back(function).await.unwrap());
}

/// A directory writes what it defines anew, and its instances go by the uid that it had.
#[tokio::test]
async fn what_is_written_anew_gets_its_uid_back_where_it_was_lost() {
    for (damage, lost) in [
        ("UPDATE functions SET object = '{' WHERE name = 'one'", true),
        ("UPDATE facts SET fact = 'none'", false),
    ] {
        let (directory, store) = store();
        for name in ["one", "other"] {
            apply(&store, name, "1").await;
        }
        let revision = Revision::of([b"1".as_slice()]);
        let (one, other) = (key("one"), key("other"));
        let fact = store.note(&one, "uid", &revision, Fact::Proven);
        fact.await.unwrap();
        drop(store);
        execute(directory.path(), damage);

        let store = EmbeddedStore::open(directory.path()).unwrap();
        assert_eq!(store.has_lost(), lost, "{damage}");
        assert_eq!(store.ready().now_or_never().is_none(), lost, "{damage}");
        store.directories_are_read();
        assert!(store.ready().now_or_never().is_some());
        apply(&store, "one", "1").await;
        for is_first in [true, false] {
            let is_back = store.give_back(&one, "before").await.unwrap();
            assert_eq!(is_back, lost && is_first, "{damage}");
            let now = store.get(&one).unwrap();
            assert_eq!(uid(&now) == "before", lost, "{damage}");
            assert!(
                !store.give_back(&other, "before").await.unwrap(),
                "it was kept"
            );
        }
    }
}

#[tokio::test]
async fn an_owner_that_is_gone_is_read_from_the_store_or_asked_for() {
    const OWNER: &str = "0123456789abcdef";
    let theirs = "faas.local/fedcba9876543210:1";
    let ours = &format!("faas.local/{OWNER}:1");
    for (images, tells) in [
        (&[][..], false),
        (&[ours.as_str(), ours], true),
        (&[ours, theirs], false),
        (&["faas.local/node:22"], false),
        (&["busybox:1"], false),
    ] {
        let (directory, store) = store();
        for (number, image) in images.iter().enumerate() {
            let name = format!("f{number}");
            apply(&store, &name, "1").await;
            let key = key(&name);
            let function = store.get(&key).unwrap();
            let mut status = status("r1");
            status.image = Some((*image).to_owned());
            let written = store.write_status(&key, uid(&function), status);
            assert!(written.await.unwrap());
        }
        // As after a crash: the newest is in the log alone.
        let copy = TempDir::new().unwrap();
        for name in ["store.db", "store.db-wal"] {
            fs::copy(directory.path().join(name), copy.path().join(name)).unwrap();
        }
        let found = embedded::find_owner(copy.path());
        if tells {
            found.unwrap();
            assert_eq!(state::owner(copy.path()).unwrap(), OWNER);
            let names = names(&EmbeddedStore::open_again(copy.path()).unwrap());
            assert_eq!(names.len(), images.len());
        } else {
            let refused = found.unwrap_err().to_string();
            assert!(refused.contains("write the owner into it"), "{refused}");
            assert!(!state::has_owner(copy.path()), "{images:?}");
        }
    }
}

#[test]
fn an_owner_is_made_where_there_is_no_store() {
    let directory = TempDir::new().unwrap();
    embedded::find_owner(directory.path()).unwrap();
    assert!(!state::has_owner(directory.path()));
}

#[tokio::test]
async fn a_damaged_object_or_fact_costs_itself_alone() {
    for (sabotage, left) in [
        (
            "UPDATE functions SET object = '{' WHERE name = 'b'",
            &["a", "c"][..],
        ),
        ("UPDATE facts SET fact = 'x'", &["a", "b", "c"]),
    ] {
        let (directory, store) = store();
        for name in ["a", "b", "c"] {
            apply(&store, name, "1").await;
        }
        let first = store.get(&key("a")).unwrap();
        let state = status("r1");
        assert!(
            store
                .write_status(&key("a"), uid(&first), state)
                .await
                .unwrap()
        );
        let revision = Revision::of([b"r".as_slice()]);
        store
            .keep_served(&key("a"), uid(&first), &revision, "served".into())
            .await
            .unwrap();
        store
            .note(&key("a"), uid(&first), &revision, Fact::Proven)
            .await
            .unwrap();
        let before = store.get(&key("a")).unwrap();
        drop(store);
        execute(directory.path(), sabotage);

        let store = EmbeddedStore::open(directory.path()).unwrap();
        assert_eq!(names(&store), left, "{sabotage}");
        assert_eq!(set_aside(directory.path()).len(), 1, "{sabotage}");
        let after = store.get(&key("a")).unwrap();
        assert_eq!((uid(&after), &after.status), (uid(&before), &before.status));
        let version = |f: &faas::function::Function| -> i64 {
            f.metadata
                .resource_version
                .as_ref()
                .unwrap()
                .parse()
                .unwrap()
        };
        assert!(version(&after) > version(&before), "{sabotage}");
        assert_eq!(
            store
                .served(&key("a"), uid(&after))
                .await
                .unwrap()
                .as_deref(),
            Some("served")
        );
    }
}

/// Pages in the middle of the file are noise: what lies on others is read from both sides.
#[tokio::test]
async fn of_a_file_with_a_hole_the_rest_is_kept() {
    let (directory, store) = store();
    for number in 0..40 {
        apply(&store, &format!("f{number:02}"), &"x".repeat(3000)).await;
    }
    drop(store);
    let path = directory.path().join("store.db");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 3 * 4096].fill(0x5a);
    fs::write(&path, bytes).unwrap();

    let store = EmbeddedStore::open(directory.path()).unwrap();
    let left = names(&store);
    assert!((20..40).contains(&left.len()), "{left:?}");
    assert!(left.contains(&"f00".to_owned()) && left.contains(&"f39".to_owned()));
}

/// Sectors of a disk: what is written whole or not at all.
const SECTOR: usize = 512;

/// A store in the middle of its work, as its files are.
struct Written {
    main: Vec<u8>,
    log: Vec<u8>,
    /// The length of the log after each write, and what there was then.
    states: Vec<(usize, serde_json::Value)>,
    /// The main file once the log has been carried over.
    carried: Vec<u8>,
}

impl Written {
    async fn new() -> Self {
        let (directory, store) = store();
        let log = directory.path().join("store.db-wal");
        let length = || fs::metadata(&log).map_or(0, |m| usize::try_from(m.len()).unwrap());
        let mut states = vec![(length(), content(&store))];
        // What callers say is carried over at once.
        let files = file("f.yaml");
        for step in 0..6 {
            let name = format!("f{}", step % 3);
            apply_by(&files, &store, &name, &format!("{step}")).await;
            states.push((length(), content(&store)));
            let one = store.get(&key("f0")).unwrap();
            let revision = status(&format!("r{step}"));
            assert!(
                store
                    .write_status(&key("f0"), uid(&one), revision)
                    .await
                    .unwrap()
            );
            states.push((length(), content(&store)));
        }
        let main = directory.path().join("store.db");
        let (before, log) = (fs::read(&main).unwrap(), fs::read(&log).unwrap());
        drop(store);
        Self {
            main: before,
            log,
            states,
            carried: fs::read(&main).unwrap(),
        }
    }

    /// What was there when the log had this length.
    fn at(&self, length: usize) -> &serde_json::Value {
        let state = self.states.iter().rev().find(|(end, _)| *end <= length);
        &state.unwrap().1
    }
}

/// What is found in such files, none of which counts as damaged.
fn found(main: &[u8], log: &[u8]) -> serde_json::Value {
    let after = TempDir::new().unwrap();
    fs::write(after.path().join("store.db"), main).unwrap();
    fs::write(after.path().join("store.db-wal"), log).unwrap();
    let found = content(&EmbeddedStore::open(after.path()).unwrap());
    assert!(set_aside(after.path()).is_empty());
    found
}

/// A power cut leaves any part of what was written after the last sync, and noise. What comes back is exactly what the
/// last whole write left.
#[tokio::test]
async fn a_torn_write_leaves_the_state_before_it() {
    let written = Written::new().await;
    let length = written.log.len();
    for cut in (0..=length).step_by(1021).chain([length]) {
        for noise in [0, 200] {
            let mut torn = written.log[..cut].to_vec();
            torn.extend((0..noise).map(|n: u8| n ^ 0x5a));
            let found = found(&written.main, &torn);
            assert_eq!(&found, written.at(cut), "cut at {cut} of {length}");
        }
    }
}

/// SQLite takes a log that is damaged for one that ends sooner.
#[tokio::test]
async fn what_a_caller_was_told_stays_whatever_becomes_of_the_log() {
    let (directory, store) = store();
    apply(&store, "kept", "1").await;
    apply(&store, "gone", "1").await;
    let (kept_key, gone_key) = (key("kept"), key("gone"));
    let deleted = store.delete(&gone_key, &Manager::Api, at(1));
    deleted.await.unwrap();
    let kept = store.get(&kept_key).unwrap();
    for step in 0..5 {
        let state = status(&format!("r{step}"));
        let written = store.write_status(&kept_key, uid(&kept), state);
        assert!(written.await.unwrap());
    }
    let read = |name: &str| fs::read(directory.path().join(name)).unwrap();
    let (main, log) = (read("store.db"), read("store.db-wal"));
    assert!(log.len() > 4096, "there is something to lose");
    let mut logs = vec![Vec::new(), vec![0x5a; log.len()]];
    logs.extend((0..log.len()).step_by(769).map(|at| {
        let mut flipped = log.clone();
        flipped[at] ^= 1;
        flipped
    }));
    for (number, log) in logs.iter().enumerate() {
        let after = TempDir::new().unwrap();
        fs::write(after.path().join("store.db"), &main).unwrap();
        fs::write(after.path().join("store.db-wal"), log).unwrap();
        let store = EmbeddedStore::open(after.path()).unwrap();
        let found = store.get(&kept_key).unwrap();
        assert_eq!(found.spec, kept.spec, "{number}");
        assert_eq!(uid(&found), uid(&kept), "{number}");
        let gone = store.get(&gone_key).unwrap();
        assert!(gone.metadata.deletion_timestamp.is_some(), "{number}");
    }
}

/// Somebody put another database there, or a bit of the head has changed.
#[tokio::test]
async fn tables_of_no_known_format_are_set_aside() {
    for (sabotage, left) in [
        ("PRAGMA user_version = 0", &["sum"][..]),
        (
            "DROP TABLE functions; DROP TABLE served; PRAGMA user_version = 0",
            &[],
        ),
    ] {
        let (directory, store) = store();
        apply(&store, "sum", "1").await;
        let lost = store.get(&key("sum")).unwrap();
        drop(store);
        execute(directory.path(), sabotage);

        let store = EmbeddedStore::open(directory.path()).unwrap();
        assert_eq!(names(&store), left, "{sabotage}");
        assert_eq!(set_aside(directory.path()).len(), 1, "{sabotage}");
        let was_missing = store.take_back((*lost).clone()).await.unwrap();
        assert_eq!(was_missing, left.is_empty(), "{sabotage}");
    }
}

/// Disks write in any order: a sector may be missing where later ones are there.
#[tokio::test]
async fn a_write_that_is_missing_in_the_middle_leaves_the_state_before_it() {
    let written = Written::new().await;
    let mut holes = 0;
    for start in (0..written.log.len()).step_by(SECTOR) {
        let mut log = written.log.clone();
        let end = log.len().min(start + SECTOR);
        log[start..end].fill(0);
        // What was to be written there is nothing but zeros.
        if log == written.log {
            continue;
        }
        holes += 1;
        let found = found(&written.main, &log);
        assert_eq!(&found, written.at(start), "a hole at {start}");
    }
    assert!(holes > 50, "{holes}");
}

/// The log goes only once all of it is in the main file, so no part of that can be missing.
#[tokio::test]
async fn what_is_half_carried_over_is_carried_over_again() {
    let written = Written::new().await;
    let (old, new) = (&written.main, &written.carried);
    let last = written.at(written.log.len());
    let sectors = new.len().div_ceil(SECTOR);
    for (stride, offset) in [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (sectors, 0)] {
        let mut main = old.clone();
        main.resize(new.len(), 0);
        for start in (offset * SECTOR..new.len()).step_by(stride * SECTOR) {
            let end = new.len().min(start + SECTOR);
            main[start..end].copy_from_slice(&new[start..end]);
        }
        assert_eq!(&found(&main, &written.log), last, "{stride} {offset}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_a_write_and_loses_none() {
    let home = TempDir::new().unwrap();
    let Some(disk) = Disk::at(home.path(), "store full disk") else {
        return;
    };
    let directory = home.path();
    let store = EmbeddedStore::open(directory).unwrap();
    apply(&store, "sum", "0").await;
    let mut refused = 0;
    for pages in 0..12 {
        let before = content(&store);
        disk.fill(pages);
        let code = format!("{pages}").repeat(500);
        let written = store
            .apply(function("sum", &code), &Manager::Api, at(0))
            .await;
        if let Err(error) = &written {
            refused += 1;
            assert!(error.to_string().contains("full"), "{error}");
            assert_eq!(content(&store), before);
        }
        disk.free();
        // As after a crash: what another process would find.
        let copy = TempDir::new().unwrap();
        for name in ["store.db", "store.db-wal"] {
            fs::copy(directory.join(name), copy.path().join(name)).unwrap();
        }
        let found = content(&EmbeddedStore::open(copy.path()).unwrap());
        assert_eq!(found, content(&store), "{pages} pages");
        apply(&store, "sum", &format!("again {pages}")).await;
    }
    assert!((1..12).contains(&refused), "{refused}");
    drop(store);
    drop(EmbeddedStore::open(directory).unwrap());
}

/// The identity is written whole or not at all.
#[test]
fn a_full_disk_leaves_no_half_identity() {
    let home = TempDir::new().unwrap();
    let Some(disk) = Disk::at(home.path(), "store full disk") else {
        return;
    };
    disk.fill(0);
    let refused = state::owner(home.path()).unwrap_err().to_string();
    assert!(refused.contains("No space left"), "{refused}");
    disk.free();
    assert_eq!(state::owner(home.path()).unwrap().len(), 16);
}

//! The directory writer with real files, the kernel's own notifications and the real store.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, symlink},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use faas::{
    builder::{archive::Limits, sources::Sources},
    directory::{Directory, Problem},
    function::{Function, FunctionKey, SOURCE_DIGEST, SOURCE_ERROR},
    store::{Manager, Store, embedded::EmbeddedStore},
};
use futures::StreamExt;
use jiff::Timestamp;
use kube::runtime::watcher::Event;
use tempfile::TempDir;
use tokio::{sync::watch::Receiver, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(20);

/// A state directory with its store, and a root that may be watched.
struct World {
    state: TempDir,
    files: TempDir,
    store: Arc<dyn Store>,
}

/// A directory writer at work.
struct Running {
    problems: Receiver<Vec<Problem>>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl World {
    fn new() -> Self {
        let (state, files) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        fs::create_dir(files.path().join("root")).unwrap();
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(state.path()).unwrap());
        finalize_what_is_deleted(store.clone());
        Self {
            state,
            files,
            store,
        }
    }

    fn root(&self) -> PathBuf {
        self.files.path().join("root")
    }

    /// Writes a file below the root as careful programs do.
    fn write(&self, name: &str, text: &str) {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let temporary = self.files.path().join("temporary");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, path).unwrap();
    }

    fn sources(&self) -> Sources {
        Sources::open(&self.state.path().join("sources")).unwrap()
    }

    fn watch(&self, roots: &[PathBuf]) -> Running {
        let directory =
            Directory::new(roots, self.store.clone(), self.sources(), Limits::default()).unwrap();
        let (problems, shutdown) = (directory.problems(), CancellationToken::new());
        let task = tokio::spawn(directory.run(shutdown.clone()));
        Running {
            problems,
            shutdown,
            task,
        }
    }

    fn watch_root(&self) -> Running {
        self.watch(&[self.root()])
    }

    fn get(&self, name: &str) -> Option<Arc<Function>> {
        self.store.get(&name.parse().unwrap())
    }

    /// The code of a Function that is there to stay.
    fn code(&self, name: &str) -> Option<String> {
        let function = self
            .get(name)
            .filter(|function| function.metadata.deletion_timestamp.is_none())?;
        function
            .spec
            .source
            .inline
            .as_ref()?
            .get("index.js")
            .cloned()
    }

    fn annotation(&self, name: &str, annotation: &str) -> Option<String> {
        self.get(name)?
            .metadata
            .annotations
            .as_ref()?
            .get(annotation)
            .cloned()
    }

    async fn has(&self, name: &str, code: &str) {
        self.until(&format!("{name} is {code}"), || {
            self.code(name).as_deref() == Some(code)
        })
        .await;
    }

    async fn lacks(&self, name: &str) {
        self.until(&format!("{name} is gone"), || self.get(name).is_none())
            .await;
    }

    /// Waits for a condition on the store.
    async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let mut watch = self.store.watch();
        let wait = async {
            while !is_so() {
                watch.next().await;
            }
        };
        let text = || format!("{what}; there is {:?}", self.store.list());
        timeout(DEADLINE, wait)
            .await
            .unwrap_or_else(|_| panic!("in vain: {}", text()));
    }

    /// Waits until the writer has seen all that was written so far: a later change is in the store.
    async fn has_seen_all(&self) {
        let name = format!("probe-{}", uuid::Uuid::new_v4().simple());
        self.write(&format!("{name}.yaml"), &manifest(&name, "probe"));
        self.has(&name, "probe").await;
        fs::remove_file(self.root().join(format!("{name}.yaml"))).unwrap();
        // To be pruned takes two scans, so anything else that would have been pruned has been.
        self.lacks(&name).await;
    }
}

impl Running {
    async fn problem(&mut self, part: &str) -> Problem {
        let is_it =
            |problem: &Problem| problem.message.contains(part) || problem.file.ends_with(part);
        let found = timeout(
            DEADLINE,
            self.problems.wait_for(|all| all.iter().any(is_it)),
        )
        .await;
        let problems = found
            .unwrap_or_else(|_| panic!("no problem {part:?}"))
            .unwrap();
        problems
            .iter()
            .find(|problem| is_it(problem))
            .unwrap()
            .clone()
    }

    async fn is_content(&mut self) {
        let found = timeout(DEADLINE, self.problems.wait_for(Vec::is_empty)).await;
        found.expect("problems go").unwrap();
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(DEADLINE, self.task)
            .await
            .expect("it stops")
            .unwrap();
    }
}

/// Plays the controller: what is deleted has nothing to clean up.
fn finalize_what_is_deleted(store: Arc<dyn Store>) {
    tokio::spawn(async move {
        let mut watch = store.watch();
        while let Some(event) = watch.next().await {
            if let Event::Apply(function) | Event::InitApply(function) = event
                && function.metadata.deletion_timestamp.is_some()
            {
                let key = FunctionKey::try_from(&*function).unwrap();
                store
                    .finalize(&key, function.metadata.uid.as_deref().unwrap())
                    .await
                    .unwrap();
            }
        }
    });
}

fn manifest(name: &str, code: &str) -> String {
    format!(
        "apiVersion: faas.dev/v1alpha1\nkind: Function\nmetadata: {{name: {name}}}\n\
         spec: {{language: node, source: {{inline: {{index.js: \"{code}\"}}}}}}\n"
    )
}

fn manifest_of_directory(name: &str, directory: &str) -> String {
    format!(
        "apiVersion: faas.dev/v1alpha1\nkind: Function\nmetadata: {{name: {name}}}\n\
         spec: {{language: node, source: {{directory: {directory}}}}}\n"
    )
}

#[tokio::test]
async fn files_are_followed() {
    let world = World::new();
    world.write("a.yaml", &manifest("a", "1"));
    world.write(
        "both.yml",
        &format!("{}---\n{}", manifest("b", "1"), manifest("c", "1")),
    );
    let running = world.watch_root();
    for name in ["a", "b", "c"] {
        world.has(name, "1").await;
    }
    let manager = Manager::of(&world.get("a").unwrap());
    assert_eq!(
        manager,
        Manager::Directory {
            file: world.root().join("a.yaml")
        }
    );

    world.write("a.yaml", &manifest("a", "2"));
    world.has("a", "2").await;
    assert_eq!(world.get("a").unwrap().metadata.generation, Some(2));

    world.write("deeper/still/d.yaml", &manifest("d", "1"));
    world.has("d", "1").await;
    world.write("deeper/still/d.yaml", &manifest("d", "2"));
    world.has("d", "2").await;

    world.write("both.yml", &manifest("c", "1"));
    world.lacks("b").await;
    fs::remove_file(world.root().join("a.yaml")).unwrap();
    world.lacks("a").await;
    fs::remove_dir_all(world.root().join("deeper")).unwrap();
    world.lacks("d").await;
    assert_eq!(world.code("c").as_deref(), Some("1"));

    world.write("deeper/still/d.yaml", &manifest("d", "3"));
    world.has("d", "3").await;
    world.write("deeper/still/d.yaml", &manifest("d", "4"));
    world.has("d", "4").await;
    running.stop().await;
}

#[tokio::test]
async fn droppings_are_not_manifests() {
    let world = World::new();
    for (index, name) in [
        ".a.yaml",
        "b.yaml~",
        "#c.yaml#",
        ".d.yaml.swp",
        "4913",
        ".hidden/e.yaml",
        "node_modules/f.yaml",
        "g.json",
    ]
    .into_iter()
    .enumerate()
    {
        world.write(name, &manifest(&format!("dropping-{index}"), "1"));
    }
    world.write("z.yaml", &manifest("z", "1"));
    let running = world.watch_root();
    world.has("z", "1").await;
    world.has_seen_all().await;
    assert_eq!(world.store.list().len(), 1);
    assert_eq!(*running.problems.borrow(), []);
}

#[tokio::test]
async fn a_broken_file_keeps_what_it_said() {
    let world = World::new();
    world.write(
        "a.yaml",
        &format!("{}---\n{}", manifest("a", "1"), manifest("b", "1")),
    );
    let mut running = world.watch_root();
    world.has("b", "1").await;

    let half = format!(
        "{}---\n{}",
        manifest("a", "2"),
        "apiVersion: faas.dev/v1alpha1\nspec: {\n"
    );
    world.write("a.yaml", &half);
    let problem = running.problem("a.yaml").await;
    assert!(
        problem.line.is_some_and(|line| line >= 6) && problem.column.is_some(),
        "{problem:?}"
    );
    world.has_seen_all().await;
    assert_eq!(
        (world.code("a").as_deref(), world.code("b").as_deref()),
        (Some("1"), Some("1"))
    );

    // Understood, but wrong: the other documents are taken, and the wrong one's object stays.
    let wrong = manifest("b", "2").replace("language", "langauge");
    world.write("a.yaml", &format!("{}---\n{wrong}", manifest("a", "3")));
    world.has("a", "3").await;
    assert!(running.problem("langauge").await.line.is_some());
    world.has_seen_all().await;
    assert_eq!(world.code("b").as_deref(), Some("1"));

    world.write("a.yaml", &manifest("a", "4"));
    world.has("a", "4").await;
    world.lacks("b").await;
    running.is_content().await;
}

#[tokio::test]
async fn a_file_that_is_written_anew_is_not_missed_meanwhile() {
    let world = World::new();
    world.write("a.yaml", &manifest("a", "1"));
    let running = world.watch_root();
    world.has("a", "1").await;
    let uid = world.get("a").unwrap().metadata.uid.clone();
    for code in ["2", "3", "4"] {
        fs::rename(world.root().join("a.yaml"), world.root().join("a.yaml~")).unwrap();
        fs::write(world.root().join("a.yaml"), "").unwrap();
        fs::write(world.root().join("a.yaml"), manifest("a", code)).unwrap();
        world.has("a", code).await;
    }
    assert_eq!(
        world.get("a").unwrap().metadata.uid,
        uid,
        "it was never deleted"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_file_that_becomes_empty_keeps_what_it_said() {
    let world = World::new();
    let both = format!("{}---\n{}", manifest("a", "1"), manifest("b", "1"));
    world.write("a.yaml", &both);
    let mut running = world.watch_root();
    world.has("b", "1").await;
    for text in ["", "\n", "# what was here\n", "---\n", "...\n"] {
        fs::write(world.root().join("a.yaml"), text).unwrap();
        running.problem("no Function in it").await;
        world.has_seen_all().await;
        let codes = (world.code("a"), world.code("b"));
        assert_eq!(codes, (Some("1".into()), Some("1".into())), "{text:?}");
        world.write("a.yaml", &both);
        running.is_content().await;
    }
    world.write("a.yaml", &manifest("b", "1"));
    world.lacks("a").await;
    fs::remove_file(world.root().join("a.yaml")).unwrap();
    world.lacks("b").await;
    assert_eq!(*running.problems.borrow(), []);
}

/// Opens a file to write it anew, slowly.
fn begin(path: &Path, text: &str) -> fs::File {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn a_file_that_is_being_written_changes_nothing() {
    let world = World::new();
    let path = world.root().join("a.yaml");
    let both = format!("{}---\n{}", manifest("a", "1"), manifest("b", "1"));
    world.write("a.yaml", &both);
    let mut running = world.watch_root();
    world.has("b", "1").await;

    let whole = format!("{}---\n{}", manifest("a", "2"), manifest("b", "2"));
    let separator = whole.find("---").unwrap();
    let mut file = begin(&path, "");
    let mut written = 0;
    for end in [separator, separator + 4, whole.len() - 20] {
        file.write_all(&whole.as_bytes()[written..end]).unwrap();
        written = end;
        let said = running.problem("is being written").await;
        assert_eq!(said.file, path);
        world.has_seen_all().await;
        let codes = (world.code("a"), world.code("b"));
        assert_eq!(codes, (Some("1".into()), Some("1".into())), "{end}");
    }
    file.write_all(&whole.as_bytes()[written..]).unwrap();
    drop(file);
    world.has("b", "2").await;
    world.has("a", "2").await;
    running.is_content().await;
    running.stop().await;

    // Nobody was told of this writer.
    let mut file = begin(&path, &manifest("a", "3"));
    let running = world.watch_root();
    world.has_seen_all().await;
    let codes = (world.code("a"), world.code("b"));
    assert_eq!(codes, (Some("2".into()), Some("2".into())));
    let rest = format!("---\n{}", manifest("b", "3"));
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);
    world.has("b", "3").await;
    world.has("a", "3").await;
    running.stop().await;
}

#[tokio::test]
async fn code_that_is_being_written_changes_nothing() {
    let world = World::new();
    world.write("sum/index.js", "1");
    world.write("sum.yaml", &manifest_of_directory("sum", "sum"));
    let mut running = world.watch_root();
    let digest = || world.annotation("sum", SOURCE_DIGEST);
    world.until("a digest", || digest().is_some()).await;
    let first = digest();
    let mut file = begin(&world.root().join("sum/index.js"), "2, but not ");
    let said = running.problem("is being written").await;
    assert!(said.message.contains("sum/index.js"), "{said:?}");
    world.has_seen_all().await;
    assert_eq!(digest(), first);
    file.write_all(b"only half of it").unwrap();
    drop(file);
    world.until("a new digest", || digest() != first).await;
    running.is_content().await;
    let kept = world.sources().get(&digest().unwrap()).unwrap().unwrap();
    assert_eq!(
        kept.file("index.js"),
        Some(&b"2, but not only half of it"[..])
    );
}

#[tokio::test]
async fn a_root_that_vanishes_takes_nothing_along() {
    let world = World::new();
    world.write("a.yaml", &manifest("a", "1"));
    let mut running = world.watch_root();
    world.has("a", "1").await;
    let away = world.files.path().join("away");
    fs::rename(world.root(), &away).unwrap();
    running.problem("cannot be read").await;
    assert_eq!(world.code("a").as_deref(), Some("1"));

    fs::write(away.join("a.yaml"), manifest("a", "2")).unwrap();
    fs::rename(&away, world.root()).unwrap();
    world.has("a", "2").await;
    running.is_content().await;
    world.write("a.yaml", &manifest("a", "3"));
    world.has("a", "3").await;
}

#[tokio::test]
async fn a_root_that_becomes_another_is_followed() {
    let world = World::new();
    let at = |name: &str| world.files.path().join(name);
    for (version, code) in [("1", "1"), ("2", "2"), ("3", "3")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("a.yaml"), manifest("a", code)).unwrap();
    }
    symlink("1", at("link")).unwrap();
    let running = world.watch(&[at("link")]);
    world.has("a", "1").await;
    for version in ["2", "3"] {
        symlink(version, at("new")).unwrap();
        fs::rename(at("new"), at("link")).unwrap();
        world.has("a", version).await;
        fs::write(at(version).join("b.yaml"), manifest("b", version)).unwrap();
        world.has("b", version).await;
    }
    running.stop().await;

    let running = world.watch(&[at("3")]);
    fs::rename(at("3"), at("away")).unwrap();
    fs::rename(at("2"), at("3")).unwrap();
    world.has("a", "2").await;
    fs::write(at("3").join("a.yaml"), manifest("a", "4")).unwrap();
    world.has("a", "4").await;
    running.stop().await;
}

#[tokio::test]
async fn an_empty_directory_prunes_only_what_was_seen_to_go() {
    for (place, file) in [("", "a.yaml"), ("team", "a.yaml"), ("team", "inner/a.yaml")] {
        let world = World::new();
        let dir = world.root().join(place);
        fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
        fs::write(dir.join(file), manifest("a", "1")).unwrap();
        if !place.is_empty() {
            world.write("other.yaml", &manifest("other", "1"));
        }
        let mut running = world.watch_root();
        world.has("a", "1").await;
        let away = world.files.path().join("away");
        let unmount = || {
            fs::rename(&dir, &away).unwrap();
            fs::create_dir(&dir).unwrap();
        };
        let mount = || {
            fs::remove_dir(&dir).unwrap();
            fs::rename(&away, &dir).unwrap();
        };
        unmount();
        let said = running.problem("no manifest in it").await;
        assert_eq!(said.file, dir.components().collect::<PathBuf>());
        running.stop().await;
        let mut running = world.watch_root();
        running.problem("no manifest in it").await;
        assert_eq!(world.code("a").as_deref(), Some("1"));

        mount();
        running.is_content().await;
        assert_eq!(world.code("a").as_deref(), Some("1"));
        fs::remove_file(dir.join(file)).unwrap();
        world.lacks("a").await;
        assert_eq!(*running.problems.borrow(), []);
        running.stop().await;
    }
}

#[tokio::test]
async fn the_first_definition_of_a_name_serves() {
    let world = World::new();
    world.write("b.yaml", &manifest("same", "b"));
    let mut running = world.watch_root();
    world.has("same", "b").await;
    world.write("c.yaml", &manifest("same", "c"));
    assert!(
        running
            .problem("c.yaml")
            .await
            .message
            .contains("b.yaml already")
    );
    world.write("a.yaml", &manifest("same", "a"));
    world.has("same", "a").await;
    running.problem("b.yaml").await;
    fs::remove_file(world.root().join("a.yaml")).unwrap();
    fs::remove_file(world.root().join("b.yaml")).unwrap();
    world.has("same", "c").await;
    running.is_content().await;
}

#[tokio::test]
async fn roots_come_in_the_order_given() {
    let world = World::new();
    let (first, second) = (world.root().join("z"), world.root().join("a"));
    world.write("z/f.yaml", &manifest("same", "first"));
    world.write("a/f.yaml", &manifest("same", "second"));
    let mut running = world.watch(&[first.clone(), second.clone(), first]);
    world.has("same", "first").await;
    assert_eq!(running.problem("already").await.file, second.join("f.yaml"));
}

#[tokio::test]
async fn links_stay_inside() {
    let world = World::new();
    let outside = world.files.path().join("outside.yaml");
    fs::write(&outside, manifest("outside", "1")).unwrap();
    symlink(&outside, world.root().join("outside.yaml")).unwrap();
    symlink(world.root(), world.root().join("circle")).unwrap();
    world.write("inside.txt", &manifest("inside", "1"));
    symlink("inside.txt", world.root().join("inside.yaml")).unwrap();
    let mut running = world.watch_root();
    world.has("inside", "1").await;
    assert!(
        running
            .problem("outside.yaml")
            .await
            .message
            .contains("outside of")
    );
    assert_eq!(world.store.list().len(), 1);
    assert_eq!(running.problems.borrow().len(), 1);
}

#[tokio::test]
async fn a_mounted_config_map_is_followed() {
    let world = World::new();
    world.write("..2026_1/a.yaml", &manifest("a", "1"));
    world.write("..2026_1/deep/b.yaml", &manifest("b", "1"));
    symlink("..2026_1", world.root().join("..data")).unwrap();
    symlink("..data/a.yaml", world.root().join("a.yaml")).unwrap();
    symlink("..data/deep", world.root().join("deep")).unwrap();
    let mut running = world.watch_root();
    world.has("a", "1").await;
    world.has("b", "1").await;

    world.write("..2026_2/a.yaml", &manifest("a", "2"));
    world.write("..2026_2/deep/b.yaml", &manifest("b", "2"));
    symlink("..2026_2", world.root().join("..data_tmp")).unwrap();
    fs::rename(world.root().join("..data_tmp"), world.root().join("..data")).unwrap();
    fs::remove_dir_all(world.root().join("..2026_1")).unwrap();
    world.has("a", "2").await;
    world.has("b", "2").await;
    running.is_content().await;
}

#[tokio::test]
async fn code_in_a_directory_is_kept_and_followed() {
    let world = World::new();
    world.write("sum/index.js", "1");
    world.write("sum/lib/add.js", "1");
    world.write("sum/fn.yaml", "language: node\n");
    world.write("sum/fixtures/other.yaml", &manifest("other", "1"));
    world.write("sum.yaml", &manifest_of_directory("sum", "./sum"));
    let running = world.watch_root();
    let digest = || world.annotation("sum", SOURCE_DIGEST);
    world.until("a digest", || digest().is_some()).await;
    let mut last = digest().unwrap();
    let kept = world.sources().get(&last).unwrap().expect("it is kept");
    assert_eq!(kept.file("index.js"), Some(b"1".as_slice()));
    for (file, text) in [
        ("sum/index.js", "2"),
        ("sum/lib/add.js", "2"),
        ("sum/new/deep.js", "1"),
        ("sum/new/deep.js", "2"),
    ] {
        world.write(file, text);
        world
            .until(file, || digest().is_some_and(|digest| digest != last))
            .await;
        last = digest().unwrap();
    }
    assert_eq!(
        world.get("sum").unwrap().metadata.generation,
        Some(1),
        "the spec is the same"
    );
    assert_eq!(world.store.list().len(), 1, "YAML among the code is code");

    // A manifest that cannot be read now still says that the YAML below is code.
    world.write("sum.yaml", "half: [");
    world.has_seen_all().await;
    assert_eq!(world.store.list().len(), 1);
    assert_eq!(digest().as_ref(), Some(&last));
    running.stop().await;
}

#[tokio::test]
async fn code_that_cannot_be_read_is_said_in_the_object() {
    let world = World::new();
    world.write("sum.yaml", &manifest_of_directory("sum", "sum"));
    let mut running = world.watch_root();
    world
        .until("an error", || {
            world.annotation("sum", SOURCE_ERROR).is_some()
        })
        .await;
    assert_eq!(running.problem("source.directory").await.line, Some(1));

    world.write("sum/index.js", "1");
    world
        .until("a digest", || {
            world.annotation("sum", SOURCE_DIGEST).is_some()
        })
        .await;
    assert_eq!(world.annotation("sum", SOURCE_ERROR), None);
    running.is_content().await;

    symlink("/etc/hostname", world.root().join("sum/stolen")).unwrap();
    world
        .until("an error", || {
            world
                .annotation("sum", SOURCE_ERROR)
                .is_some_and(|error| error.contains("stolen"))
        })
        .await;
    assert_eq!(world.annotation("sum", SOURCE_DIGEST), None);
    fs::remove_dir_all(world.root().join("sum")).unwrap();
    running.problem("source.directory").await;
}

#[tokio::test]
async fn what_is_no_file_is_said_though_the_files_are_the_same() {
    let world = World::new();
    world.write("sum/index.js", "1");
    world.write("sum/lib/a.js", "1");
    world.write("sum.yaml", &manifest_of_directory("sum", "sum"));
    let mut running = world.watch_root();
    let lib = world.root().join("sum/lib");
    for name in ["out", "fifo", "nowhere"] {
        let is_read = || world.annotation("sum", SOURCE_DIGEST).is_some();
        world.until("a digest", is_read).await;
        // What changed long ago is not read again while it looks the same.
        while age_of(&lib) < Duration::from_secs(2) {
            world.has_seen_all().await;
        }
        world.has_seen_all().await;
        match name {
            "out" => symlink("/etc/hostname", lib.join(name)).unwrap(),
            "fifo" => make_fifo(&lib.join(name)),
            _ => symlink("nothing", lib.join(name)).unwrap(),
        }
        let is_said = || {
            let error = world.annotation("sum", SOURCE_ERROR);
            error.is_some_and(|error| error.contains(name))
        };
        world.until(name, is_said).await;
        fs::remove_file(lib.join(name)).unwrap();
        running.is_content().await;
    }
}

fn age_of(path: &Path) -> Duration {
    let changed = fs::metadata(path).unwrap().ctime();
    let changed = Duration::from_secs(changed.unsigned_abs());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.saturating_sub(changed)
}

fn make_fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
}

#[tokio::test]
async fn what_the_api_manages_is_not_taken_over() {
    let world = World::new();
    let of_api = faas::function::manifest::parse(manifest("a", "api").as_bytes())
        .remove(0)
        .verdict
        .unwrap();
    world
        .store
        .apply(of_api, &Manager::Api, Timestamp::now())
        .await
        .unwrap();
    world.write("a.yaml", &manifest("a", "file"));
    let mut running = world.watch_root();
    assert!(
        running
            .problem("managed by the API")
            .await
            .file
            .ends_with("a.yaml")
    );
    assert_eq!(world.code("a").as_deref(), Some("api"));
    world
        .store
        .delete(&"a".parse().unwrap(), &Manager::Api, Timestamp::now())
        .await
        .unwrap();
    world.has("a", "file").await;
    running.is_content().await;
}

#[tokio::test]
async fn a_restart_prunes_what_went_meanwhile_but_not_other_directories() {
    let world = World::new();
    let other = world.files.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("b.yaml"), manifest("b", "1")).unwrap();
    world.write("a.yaml", &manifest("a", "1"));
    world.write("broken.yaml", &manifest("c", "1"));
    let running = world.watch(&[world.root(), other.clone()]);
    for name in ["a", "b", "c"] {
        world.has(name, "1").await;
    }
    running.stop().await;

    fs::remove_file(world.root().join("a.yaml")).unwrap();
    world.write("broken.yaml", "half: [");
    let mut running = world.watch_root();
    world.lacks("a").await;
    world.has_seen_all().await;
    assert_eq!(world.code("b").as_deref(), Some("1"));
    assert_eq!(
        world.code("c").as_deref(),
        Some("1"),
        "its file cannot be read"
    );
    assert!(
        running
            .problem("in no watched directory")
            .await
            .file
            .starts_with(&other)
    );
}

#[tokio::test]
async fn a_function_comes_back_though_it_is_still_going() {
    let (state, files) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    // Nobody plays the controller here.
    let store = Arc::new(EmbeddedStore::open(state.path()).unwrap());
    let world = World {
        state,
        files,
        store,
    };
    fs::create_dir(world.root()).unwrap();
    world.write("a.yaml", &manifest("a", "1"));
    let running = world.watch_root();
    world.has("a", "1").await;
    fs::remove_file(world.root().join("a.yaml")).unwrap();
    let is_going = || {
        world
            .get("a")
            .is_some_and(|function| function.metadata.deletion_timestamp.is_some())
    };
    world.until("it is going", is_going).await;
    world.write("a.yaml", &manifest("a", "2"));
    world.write("later.yaml", &manifest("later", "1"));
    world.has("later", "1").await;
    assert!(is_going());
    let uid = world.get("a").unwrap().metadata.uid.clone().unwrap();
    world
        .store
        .finalize(&"a".parse().unwrap(), &uid)
        .await
        .unwrap();
    world.has("a", "2").await;
    running.stop().await;
}

#[tokio::test]
async fn strange_things_are_reported_and_hurt_nobody() {
    let world = World::new();
    world.write("a.yaml", &manifest("a", "1"));
    make_fifo(&world.root().join("fifo.yaml"));
    symlink("nowhere", world.root().join("dangling.yaml")).unwrap();
    fs::create_dir(world.root().join("folder.yaml")).unwrap();
    fs::write(world.root().join("binary.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    let nameless = OsStr::from_bytes(b"\xff.yaml");
    fs::write(world.root().join(nameless), manifest("b", "1")).unwrap();
    fs::write(world.root().join(OsStr::from_bytes(b"\xff.txt")), "").unwrap();
    let mut running = world.watch_root();
    world.has("a", "1").await;
    for file in ["fifo.yaml", "dangling.yaml", "binary.yaml", "\u{fffd}.yaml"] {
        running.problem(file).await;
    }
    assert_eq!(running.problems.borrow().len(), 4);
}

#[tokio::test]
async fn a_hundred_files_at_once_are_all_there() {
    let world = World::new();
    let running = world.watch_root();
    let names: Vec<String> = (0..100).map(|index| format!("f{index}")).collect();
    for name in &names {
        let path: &Path = &world.root().join(name);
        fs::create_dir(path).unwrap();
        fs::write(path.join("fn.yaml"), manifest(name, "1")).unwrap();
    }
    for name in &names {
        world.has(name, "1").await;
    }
    running.stop().await;
}

//! The directory writer: makes the store say what the files of some directories say, and goes on doing so.
//!
//! A turn has three steps: `scan` reads the files, `plan` compares them with the store, and `Directory` carries the
//! plan out. Turns come when `watch` sees a change, when an object has gone, when a plan has doubts, every two seconds
//! while something cannot be watched or read, and every half minute in any case. Like `kubectl apply --prune`, it owns what it applied and nothing else.

mod memory;
mod plan;
mod scan;
mod source;
mod walk;
mod watch;
mod writers;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, future::ready};
use jiff::Timestamp;
use kube::runtime::watcher::Event;
use serde::Serialize;
use tokio::{
    sync::watch::{Receiver, Sender},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use self::{
    plan::Plan,
    scan::{Scan, Scanner},
    source::SourceCache,
    watch::Eyes,
};
pub use self::{plan::is_watched, scan::is_manifest};
use crate::{
    blocking,
    builder::{archive::Limits, sources::Sources},
    function::{Function, FunctionKey, manifest::ManifestError},
    store::{Applied, Manager, Object, Store, StoreError},
};

/// Time after which doubtful news is looked at again.
const RECHECK: Duration = Duration::from_millis(200);
/// Time between scans while changes may be missed.
const POLL: Duration = Duration::from_secs(2);
/// Time between scans while no change is seen: a mount, or a directory far above that is renamed, is not told.
const RESCAN: Duration = Duration::from_secs(30);

/// Something in a watched directory that does not work, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub file: PathBuf,
    /// From 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// From 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    pub message: String,
}

impl Problem {
    fn new(file: &Path, message: String) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            column: None,
            message,
        }
    }

    fn of_manifest(file: &Path, line: usize, error: &ManifestError) -> Self {
        match error {
            ManifestError::Syntax {
                line,
                column,
                message,
            } => Self {
                line: Some(*line),
                column: Some(*column),
                ..Self::new(file, message.clone())
            },
            other => Self {
                line: Some(line),
                ..Self::new(file, other.to_string())
            },
        }
    }
}

/// The writer of some directories. There is one for a store.
pub struct Directory {
    roots: Vec<PathBuf>,
    store: Arc<dyn Store>,
    scanner: Arc<Mutex<Scanner>>,
    eyes: Eyes,
    rescan: Duration,
    doubts: BTreeSet<FunctionKey>,
    problems: Sender<Vec<Problem>>,
}

impl Directory {
    /// A writer of what is below `roots`, the first of which comes first where two files define one name. Relative roots
    /// are meant from the working directory of now. What their manifests name as source directories goes into `sources`,
    /// as long as it is within `limits`.
    ///
    /// # Errors
    ///
    /// When the working directory is not there.
    pub fn new(
        roots: &[PathBuf],
        store: Arc<dyn Store>,
        sources: Sources,
        limits: Limits,
    ) -> io::Result<Self> {
        let roots = absolute(roots)?;
        let scanner = Scanner::new(roots.clone(), SourceCache::new(sources, limits));
        Ok(Self {
            roots,
            store,
            scanner: Arc::new(Mutex::new(scanner)),
            eyes: Eyes::new(),
            rescan: RESCAN,
            doubts: BTreeSet::new(),
            problems: Sender::new(Vec::new()),
        })
    }

    /// What does not work, as of the last turn.
    #[must_use]
    pub fn problems(&self) -> Receiver<Vec<Problem>> {
        self.problems.subscribe()
    }

    /// Takes turns until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let is_delete = |event: &Event<Object>| ready(matches!(event, Event::Delete(_)));
        let mut gone = self.store.watch().filter(is_delete);
        let turns = async {
            loop {
                let again = self.turn().await;
                self.store.directories_are_read();
                self.wait(again, &mut gone).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = turns => {}
        }
    }

    /// Waits for a reason to take another turn.
    async fn wait(&self, again: Duration, gone: &mut (impl Stream<Item = Event<Object>> + Unpin)) {
        tokio::select! {
            () = sleep(again) => {}
            () = self.eyes.change() => {}
            Some(_) = gone.next() => {}
        }
        self.eyes.settle().await;
        while let Some(Some(_)) = gone.next().now_or_never() {}
    }

    /// One turn. Answers when to take the next one if nothing changes until then.
    async fn turn(&mut self) -> Duration {
        let objects = self.store.list();
        let scan = self.scan(objects.clone()).await;
        let is_unwatched = self.eyes.look_at(&scan.directories, &scan.gates);
        let is_partial = scan.is_partial;
        let plan = plan::plan(scan, &objects, &self.roots, &self.doubts);
        let is_doubtful = !plan.doubts.is_subset(&self.doubts);
        self.doubts.clone_from(&plan.doubts);
        let has_failed = self.carry_out(plan).await;
        if is_unwatched || is_doubtful {
            return RECHECK;
        }
        if has_failed || is_partial || self.eyes.trouble().is_some() {
            return POLL;
        }
        self.rescan
    }

    async fn scan(&self, objects: Vec<Arc<Function>>) -> Scan {
        let (scanner, sight) = (Arc::clone(&self.scanner), self.eyes.sight());
        blocking::run(move || {
            let mut scanner = scanner.lock().unwrap_or_else(PoisonError::into_inner);
            scanner.scan(&objects, &sight)
        })
        .await
    }

    /// Carries a plan out as far as it goes, publishes the problems, and answers whether the store failed.
    async fn carry_out(&mut self, plan: Plan) -> bool {
        let mut problems = plan.problems;
        let mut has_failed = false;
        let mut note = |file: &Path, outcome: Result<(), StoreError>| match outcome {
            // Its end brings the next turn.
            Ok(()) | Err(StoreError::Deleting { .. } | StoreError::NotFound { .. }) => {}
            Err(error) => {
                has_failed = true;
                problems.push(Problem::new(file, error.to_string()));
            }
        };
        for (function, file) in plan.applies {
            let outcome = self.apply(function, &file).await;
            note(&file, outcome);
        }
        for (key, file) in plan.deletes {
            tracing::info!(function = %key, file = %file.display(), "no file defines the function any more");
            let manager = Manager::Directory { file: file.clone() };
            note(
                &file,
                self.store.delete(&key, &manager, Timestamp::now()).await,
            );
        }
        self.publish(problems);
        has_failed
    }

    async fn apply(&self, function: Function, file: &Path) -> Result<(), StoreError> {
        let manager = Manager::Directory {
            file: file.to_owned(),
        };
        let (applied, function) = self
            .store
            .apply(function, &manager, Timestamp::now())
            .await?;
        if applied != Applied::Unchanged {
            let name = function.metadata.name.as_deref().unwrap_or_default();
            tracing::info!(function = name, file = %file.display(), "{applied}");
        }
        Ok(())
    }

    /// Publishes the problems, and logs those that are new.
    fn publish(&self, mut problems: Vec<Problem>) {
        if let Some(trouble) = self.eyes.trouble() {
            let message = format!(
                "changes are looked for every {} s only: {trouble}; if others hold what the kernel gives, raise \
                 fs.inotify.max_user_watches and fs.inotify.max_user_instances",
                POLL.as_secs()
            );
            problems.extend(
                self.roots
                    .iter()
                    .map(|root| Problem::new(root, message.clone())),
            );
        }
        self.problems.send_if_modified(|known| {
            for problem in problems.iter().filter(|problem| !known.contains(problem)) {
                let (file, line) = (problem.file.display(), problem.line.unwrap_or_default());
                tracing::warn!(%file, line, "{}", problem.message);
            }
            let is_news = *known != problems;
            *known = problems;
            is_news
        });
    }
}

/// The names by which files are known: the roots as they were given, from the top, links untouched.
///
/// # Errors
///
/// When the working directory is not there.
pub fn absolute(roots: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    roots
        .iter()
        .map(|root| std::path::absolute(root).map(|root| root.components().collect()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::timeout;

    use super::*;
    use crate::store::embedded::EmbeddedStore;

    const MANIFEST: &str = "apiVersion: faas.dev/v1alpha1\nkind: Function\nmetadata: {name: a}\n\
                            spec: {language: node, source: {inline: {index.js: '1'}}}\n";

    #[tokio::test]
    async fn without_notifications_the_files_are_followed_all_the_same() {
        let (state, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(state.path()).unwrap());
        let sources = Sources::open(&state.path().join("sources")).unwrap();
        let roots = [root.path().to_owned()];
        let mut directory =
            Directory::new(&roots, store.clone(), sources, Limits::default()).unwrap();
        directory.eyes = Eyes::blind();
        let (mut problems, shutdown) = (directory.problems(), CancellationToken::new());
        let task = tokio::spawn(directory.run(shutdown.clone()));
        let is_told = |all: &Vec<Problem>| {
            all.iter()
                .any(|problem| problem.message.contains("inotify"))
        };
        timeout(10 * POLL, problems.wait_for(is_told))
            .await
            .unwrap()
            .unwrap();

        let mut watch = store.watch();
        fs::write(root.path().join("a.yaml"), MANIFEST).unwrap();
        let is_there = async { while !matches!(watch.next().await, Some(Event::Apply(_))) {} };
        timeout(10 * POLL, is_there).await.unwrap();
        shutdown.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn what_no_notification_tells_is_seen_in_time() {
        let (state, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(state.path()).unwrap());
        let sources = Sources::open(&state.path().join("sources")).unwrap();
        let root = files.path().join("far/above/root");
        fs::create_dir_all(&root).unwrap();
        let mut directory = Directory::new(
            std::slice::from_ref(&root),
            store.clone(),
            sources,
            Limits::default(),
        )
        .unwrap();
        directory.rescan = RECHECK;
        let shutdown = CancellationToken::new();
        let mut watch = store.watch();
        let task = tokio::spawn(directory.run(shutdown.clone()));
        for (code, aside) in [("first", "1"), ("second", "2")] {
            fs::write(root.join("a.yaml"), MANIFEST.replace("'1'", code)).unwrap();
            let is_there = async {
                while !matches!(watch.next().await, Some(Event::Apply(object)) if of(&object) == code)
                {
                }
            };
            timeout(10 * POLL, is_there).await.unwrap();
            fs::rename(files.path().join("far"), files.path().join(aside)).unwrap();
            fs::create_dir_all(&root).unwrap();
        }
        shutdown.cancel();
        task.await.unwrap();
    }

    fn of(function: &Function) -> &str {
        &function.spec.source.inline.as_ref().unwrap()["index.js"]
    }
}

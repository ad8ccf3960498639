//! Tells that something changed below the directories that were looked at. What changed is for the next scan to see.
//!
//! The kernel may refuse (no watches left), fail, or lose events. Then [`Eyes::trouble`] says so and the directories must
//! be scanned regularly; each [`Eyes::look_at`] tries to get well again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

use super::writers::Writers;

/// Quiet time after which a burst of changes is over.
const QUIET: Duration = Duration::from_millis(100);
/// Longest time that a burst is waited for.
const BURST: Duration = Duration::from_secs(1);

/// The watched directories.
pub struct Eyes {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeMap<PathBuf, Watched>,
    trouble: Option<String>,
    seen: Arc<Seen>,
    open: Open,
}

/// A watch is one of a directory, not of its name.
struct Watched {
    identity: Option<Identity>,
    since: SystemTime,
}

/// Device and inode, which tell a directory from another of the same name.
pub type Identity = (u64, u64);

/// Which directory has this name now.
pub fn identity(path: &Path) -> Option<Identity> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// What the kernel tells of files, besides what is in them.
#[derive(Clone, Default)]
pub struct Sight {
    pub writers: Writers,
    /// Since when every change of a directory is told.
    since: BTreeMap<PathBuf, SystemTime>,
}

impl Sight {
    /// Whether a writer of a file that was modified then would have been told.
    pub fn reaches(&self, file: &Path, modified: SystemTime) -> bool {
        let since = file.parent().and_then(|parent| self.since.get(parent));
        since.is_some_and(|since| *since < modified)
    }
}

/// How to come to a watcher, which the kernel may refuse.
type Open = fn(Arc<Seen>) -> notify::Result<RecommendedWatcher>;

/// What the watcher's thread leaves for us.
#[derive(Default)]
struct Seen {
    change: Notify,
    notes: Mutex<Notes>,
    writers: Writers,
}

#[derive(Default)]
struct Notes {
    /// Paths that went or came back: a watch on them is one of something that is not there any more.
    moved: BTreeSet<PathBuf>,
    failure: Option<String>,
    /// The names of the roots.
    gates: BTreeSet<PathBuf>,
    /// Directories of which nothing but the gates matters.
    outside: BTreeSet<PathBuf>,
}

impl Eyes {
    /// Sees nothing yet.
    pub fn new() -> Self {
        Self::opened_by(|seen| notify::recommended_watcher(move |event| seen.take(event)))
    }

    fn opened_by(open: Open) -> Self {
        Self {
            watcher: None,
            watched: BTreeMap::new(),
            trouble: None,
            seen: Arc::default(),
            open,
        }
    }

    /// Those of a machine where others have taken all that the kernel gives.
    #[cfg(test)]
    pub fn blind() -> Self {
        Self::opened_by(|_| Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch)))
    }

    /// Watches these directories and no others, and whether the `gates` become other directories. Answers whether any of them
    /// was not watched while it was scanned: then it must be scanned again.
    pub fn look_at(&mut self, directories: &BTreeSet<PathBuf>, gates: &BTreeSet<PathBuf>) -> bool {
        let parents: BTreeSet<_> = gates.iter().filter_map(|gate| gate.parent()).collect();
        let outside = parents
            .into_iter()
            .filter(|path| !directories.contains(*path));
        let outside: BTreeSet<_> = outside.map(Path::to_owned).collect();
        let (moved, failure) = {
            let mut notes = self.seen.notes();
            notes.gates.clone_from(gates);
            notes.outside.clone_from(&outside);
            (std::mem::take(&mut notes.moved), notes.failure.take())
        };
        if failure.is_some() {
            self.watcher = None;
        }
        self.trouble = failure;
        if let Err(error) = self.open() {
            self.trouble = Some(error.to_string());
            return false;
        }
        self.unwatch(|path, watched| {
            !(directories.contains(path) || outside.contains(path))
                || path.ancestors().any(|path| moved.contains(path))
                || watched.identity != identity(path)
        });
        let mut is_new = false;
        for path in directories {
            is_new |= !self.watched.contains_key(path) && self.watch(path.clone());
        }
        // Without these, a gate that becomes another directory is noticed later.
        let trouble = self.trouble.clone();
        for path in outside {
            if !self.watched.contains_key(&path) {
                self.watch(path);
            }
        }
        self.trouble = trouble;
        is_new
    }

    /// What is known of files from now on.
    pub fn sight(&self) -> Sight {
        let is_blind = self.trouble.is_some();
        let watched = self.watched.iter().filter(|_| !is_blind);
        Sight {
            writers: self.seen.writers.clone(),
            since: watched
                .map(|(path, watched)| (path.clone(), watched.since))
                .collect(),
        }
    }

    fn unwatch(&mut self, is_stale: impl Fn(&Path, &Watched) -> bool) {
        let watched = std::mem::take(&mut self.watched).into_iter();
        let (stale, watched): (BTreeMap<_, _>, _) =
            watched.partition(|(path, watched)| is_stale(path, watched));
        self.watched = watched;
        for path in stale.into_keys() {
            // A watch that has gone with its directory cannot be taken away.
            let _ = self.watcher.as_mut().map(|watcher| watcher.unwatch(&path));
        }
    }

    /// Why changes may be missed, if they may.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Waits for a change.
    pub async fn change(&self) {
        self.seen.change.notified().await;
    }

    /// Waits until a burst of changes is over.
    pub async fn settle(&self) {
        let end = Instant::now() + BURST;
        let quiet = async { while timeout(QUIET, self.change()).await.is_ok() {} };
        let _ = timeout_at(end, quiet).await;
    }

    fn open(&mut self) -> notify::Result<()> {
        if self.watcher.is_none() {
            self.watched.clear();
            self.watcher = Some((self.open)(Arc::clone(&self.seen))?);
        }
        Ok(())
    }

    fn watch(&mut self, path: PathBuf) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        let identity = identity(&path);
        match watcher.watch(&path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                let since = SystemTime::now();
                self.watched.insert(path, Watched { identity, since });
                true
            }
            // It went since it was scanned: its parent tells.
            Err(_) if !path.exists() => true,
            Err(error) => {
                self.trouble = Some(error.to_string());
                false
            }
        }
    }
}

impl Seen {
    fn take(&self, event: notify::Result<Event>) {
        match event {
            Ok(event) if event.need_rescan() => {
                tracing::warn!("changes of files came too fast to be told one by one");
            }
            Ok(event) if is_reading(event.kind) || self.is_outside(&event.paths) => return,
            Ok(event) => {
                self.note_writers(&event);
                if is_move(event.kind) {
                    self.notes().moved.extend(event.paths);
                }
            }
            Err(error) => self.notes().failure = Some(error.to_string()),
        }
        self.change.notify_one();
    }

    fn note_writers(&self, event: &Event) {
        for path in &event.paths {
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => {
                    self.writers.modified(path, std::time::Instant::now());
                }
                EventKind::Modify(ModifyKind::Metadata(_)) | EventKind::Create(_) => {}
                _ => self.writers.closed(path),
            }
        }
    }

    fn is_outside(&self, paths: &[PathBuf]) -> bool {
        let notes = self.notes();
        let is_outside = |path: &PathBuf| {
            !notes.gates.contains(path)
                && path
                    .parent()
                    .is_some_and(|parent| notes.outside.contains(parent))
        };
        !paths.is_empty() && paths.iter().all(is_outside)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Our own reading is no change.
fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

fn is_move(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_is_a_change_and_is_got_over() {
        let directory = tempfile::tempdir().unwrap();
        let directories = BTreeSet::from([directory.path().to_owned()]);
        let mut eyes = Eyes::new();
        assert!(
            eyes.look_at(&directories, &BTreeSet::new()),
            "it was not watched before"
        );
        assert!(!eyes.look_at(&directories, &BTreeSet::new()));
        eyes.seen.take(Err(notify::Error::generic("lost")));
        eyes.change().await;
        assert!(
            eyes.look_at(&directories, &BTreeSet::new()),
            "nothing of before can be relied on"
        );
        assert_eq!(eyes.trouble(), Some("lost"));
        assert!(!eyes.look_at(&directories, &BTreeSet::new()));
        assert_eq!(eyes.trouble(), None);
    }

    #[tokio::test]
    async fn lost_events_are_a_change_and_our_reading_is_none() {
        let eyes = Eyes::new();
        let open = AccessKind::Open(AccessMode::Any);
        eyes.seen.take(Ok(Event::new(EventKind::Access(open))));
        assert!(futures::FutureExt::now_or_never(eyes.change()).is_none());
        eyes.seen.take(Ok(
            Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)
        ));
        assert!(futures::FutureExt::now_or_never(eyes.change()).is_some());
    }

    #[test]
    fn a_directory_that_was_made_anew_is_watched_anew() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let directories = BTreeSet::from([root.path().to_owned(), inner.clone()]);
        let mut eyes = Eyes::new();
        eyes.look_at(&directories, &BTreeSet::new());
        let removed = EventKind::Remove(notify::event::RemoveKind::Folder);
        eyes.seen.take(Ok(Event::new(removed).add_path(inner)));
        assert!(eyes.look_at(&directories, &BTreeSet::new()));
    }
}

//! What was made of files, kept as long as they look the same: with a thousand manifests, an edit of one must not cost the
//! reading of all.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::walk::Entry;

/// A file that changed this recently may change again without looking different: clocks of file systems are coarse.
const COARSE: Duration = Duration::from_secs(1);

/// What was made of the files of some paths.
pub struct Memory<T> {
    /// When this scan began.
    at: SystemTime,
    before: HashMap<PathBuf, Made<T>>,
    now: HashMap<PathBuf, Made<T>>,
}

struct Made<T> {
    of: Vec<Look>,
    what: T,
}

/// What tells a change of a file's content or mode without reading it.
#[derive(PartialEq)]
struct Look {
    path: PathBuf,
    inode: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl<T: Clone> Memory<T> {
    /// Remembers nothing.
    pub fn new() -> Self {
        Self {
            at: UNIX_EPOCH,
            before: HashMap::new(),
            now: HashMap::new(),
        }
    }

    /// Begins a scan: what was not asked for in the last one is forgotten.
    pub fn begin(&mut self) {
        self.at = SystemTime::now();
        self.before = std::mem::take(&mut self.now);
    }

    /// What was made of the files of `path`, if they look the same and it `is_good` still; else what `make` makes of them.
    pub fn recall<'a, E>(
        &mut self,
        path: &Path,
        files: impl IntoIterator<Item = &'a Entry>,
        is_good: impl FnOnce(&T) -> bool,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let of: Vec<Look> = files.into_iter().map(Look::of).collect();
        let made = match self.before.remove(path) {
            Some(made) if made.of == of && is_good(&made.what) => made,
            _ => Made { what: make()?, of },
        };
        let what = made.what.clone();
        if made.of.iter().all(|look| look.is_settled(self.at)) {
            self.now.insert(path.to_owned(), made);
        }
        Ok(what)
    }
}

impl Look {
    fn of(entry: &Entry) -> Self {
        let metadata = &entry.metadata;
        Self {
            path: entry.path.clone(),
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_settled(&self, at: SystemTime) -> bool {
        let (seconds, nanos) = self.changed;
        let parts = (u64::try_from(seconds), u32::try_from(nanos));
        let (Ok(seconds), Ok(nanos)) = parts else {
            return false;
        };
        UNIX_EPOCH + Duration::new(seconds, nanos) + COARSE < at
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, fs::FileTimes};

    use super::*;

    fn entry(path: &Path) -> Entry {
        Entry {
            path: path.to_owned(),
            real: path.to_owned(),
            metadata: fs::metadata(path).unwrap(),
        }
    }

    /// What `recall` answers when it would make `what`.
    fn recall(memory: &mut Memory<u32>, path: &Path, what: u32) -> u32 {
        let made: Result<u32, ()> = memory.recall(path, &[entry(path)], |_| true, || Ok(what));
        made.unwrap()
    }

    #[test]
    fn what_just_changed_is_read_again_and_what_has_settled_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, "1").unwrap();
        let mut memory = Memory::new();
        memory.begin();
        assert_eq!(recall(&mut memory, &path, 1), 1);
        memory.begin();
        assert_eq!(
            recall(&mut memory, &path, 2),
            2,
            "it was too fresh to be remembered"
        );

        memory.begin();
        memory.at += 10 * COARSE;
        assert_eq!(recall(&mut memory, &path, 3), 3);
        memory.begin();
        memory.at += 10 * COARSE;
        assert_eq!(recall(&mut memory, &path, 4), 3, "it looks the same");

        fs::File::open(&path)
            .unwrap()
            .set_times(FileTimes::new().set_modified(UNIX_EPOCH))
            .unwrap();
        memory.begin();
        assert_eq!(
            recall(&mut memory, &path, 5),
            5,
            "another change time, the same size"
        );
    }

    #[test]
    fn what_was_not_asked_for_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, "1").unwrap();
        let mut memory = Memory::new();
        memory.begin();
        memory.at += 10 * COARSE;
        recall(&mut memory, &path, 1);
        memory.begin();
        memory.begin();
        assert_eq!(recall(&mut memory, &path, 2), 2);
    }
}

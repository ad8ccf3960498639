//! Keeps the code of source directories among the sources, and packs a directory anew only when something in it changed.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::walk::{Entry, Interest, walk};
use crate::builder::{
    archive::{Context, Limits},
    sources::Sources,
};

/// A file that changed this recently may change again without looking different: clocks of file systems are coarse.
const COARSE: Duration = Duration::from_secs(1);
/// What [`Context::from_directory`] takes.
const CODE: Interest = Interest {
    directory: is_code,
    file: is_code,
};

/// The sources, and what the directories looked like when they were packed.
pub struct SourceCache {
    sources: Sources,
    limits: Limits,
    /// Digests of the sources that are kept.
    present: HashSet<String>,
    before: HashMap<PathBuf, Packed>,
    now: HashMap<PathBuf, Packed>,
}

struct Packed {
    looks: Vec<Look>,
    digest: String,
}

/// What tells a change of a file's content or mode without reading it.
#[derive(PartialEq)]
struct Look {
    path: PathBuf,
    inode: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl SourceCache {
    pub fn new(sources: Sources, limits: Limits) -> Self {
        Self {
            sources,
            limits,
            present: HashSet::new(),
            before: HashMap::new(),
            now: HashMap::new(),
        }
    }

    /// Begins a scan: what was not asked for in the last one is forgotten.
    pub fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
        // What cannot be listed is packed again, and then says why it cannot be kept.
        self.present = self
            .sources
            .list()
            .unwrap_or_default()
            .into_iter()
            .collect();
    }

    /// The digest of what `directory` holds, which is among the sources from now on, or why there is none; and every
    /// directory in which a change would matter. `root` has no links in it.
    pub fn keep(
        &mut self,
        root: &Path,
        directory: &Path,
    ) -> (Result<String, String>, BTreeSet<PathBuf>) {
        let at = SystemTime::now();
        let found = walk(root, directory, CODE, &BTreeSet::new());
        let looks: Vec<Look> = found.files.iter().map(Look::of).collect();
        let packed = match self.before.remove(directory) {
            Some(packed) if packed.looks == looks && self.present.contains(&packed.digest) => {
                Ok(packed)
            }
            _ => self
                .pack(root, directory)
                .map(|digest| Packed { looks, digest }),
        };
        let digest = packed.map(|packed| {
            let digest = packed.digest.clone();
            if packed.looks.iter().all(|look| look.is_settled(at)) {
                self.now.insert(directory.to_owned(), packed);
            }
            digest
        });
        (digest, found.directories)
    }

    fn pack(&self, root: &Path, directory: &Path) -> Result<String, String> {
        let context = Context::from_directory(root, directory, &self.limits)
            .map_err(|error| error.to_string())?;
        self.sources
            .put(&context)
            .map_err(|error| format!("the source cannot be kept: {error}"))?;
        Ok(context.digest().to_owned())
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

fn is_code(name: &str) -> bool {
    name != ".git" && name != "node_modules" && !name.starts_with("..")
}

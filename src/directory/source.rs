//! Keeps the code of source directories among the sources, and packs a directory anew only when something in it changed.

use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
};

use super::{
    memory::Memory,
    walk::{ENTRIES, Entry, Found, Interest, walk},
};
use crate::builder::{
    archive::{Context, Limits, is_code},
    sources::Sources,
};

/// What [`Context::from_directory`] takes.
const CODE: Interest = Interest {
    directory: is_code,
    file: is_code,
};

/// The sources, and the digests of the directories that were packed.
pub struct SourceCache {
    sources: Sources,
    limits: Limits,
    /// Digests of the sources that are kept.
    present: HashSet<String>,
    packed: Memory<String>,
}

impl SourceCache {
    pub fn new(sources: Sources, limits: Limits) -> Self {
        Self {
            sources,
            limits,
            present: HashSet::new(),
            packed: Memory::new(),
        }
    }

    /// Begins a scan.
    pub fn begin(&mut self) {
        self.packed.begin();
        // What cannot be listed is packed again, and then says why it cannot be kept.
        self.present = self
            .sources
            .list()
            .unwrap_or_default()
            .into_iter()
            .collect();
    }

    /// The digest of what `directory` holds, which is among the sources from now on, or why there is none; and what was
    /// found, where a change would matter. `root` has no links in it.
    pub fn keep(&mut self, root: &Path, directory: &Path) -> (Result<String, String>, Found) {
        let Self {
            sources,
            limits,
            present,
            packed,
        } = self;
        let found = walk(root, directory, CODE, &BTreeSet::new(), ENTRIES);
        let pack = || {
            let context = Context::from_directory(root, directory, limits)
                .map_err(|error| error.to_string())?;
            sources
                .put(&context)
                .map_err(|error| format!("the source cannot be kept: {error}"))?;
            Ok(context.digest().to_owned())
        };
        // What is no file (a fifo, a link that leads out) still changes the directory that it is put into.
        let directories: Vec<_> = found.directories.iter().filter_map(Entry::of).collect();
        let digest = packed.recall(
            directory,
            found.files.iter().chain(&directories),
            |digest| present.contains(digest),
            pack,
        );
        (digest, found)
    }
}

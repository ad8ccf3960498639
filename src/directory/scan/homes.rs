//! Directories that have lost all their manifests: because they were seen to go, or because a disk is not mounted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use crate::directory::watch::{Identity, identity};

/// Which directories these were when there last was a manifest below them.
#[derive(Default)]
pub(super) struct Homes(HashMap<PathBuf, Identity>);

impl Homes {
    /// Looks at the manifests that were `seen` below a root, and at the `files` that Functions come from. Answers which
    /// directories may be places of disks that are not mounted: there is no manifest below them, and they were not seen to
    /// lose them.
    pub fn look<'a>(
        &mut self,
        root: &Path,
        seen: &BTreeSet<PathBuf>,
        files: impl Iterator<Item = &'a PathBuf>,
    ) -> Vec<(PathBuf, String)> {
        let homes: BTreeSet<_> = seen.iter().flat_map(|file| above(root, file)).collect();
        let mut emptied = BTreeMap::<PathBuf, usize>::new();
        for file in files.filter(|file| !seen.contains(*file)) {
            let last = above(root, file).find(|dir| dir.is_dir());
            let is_suspect = |dir: &&Path| {
                let known = self.0.get(*dir);
                !homes.contains(*dir) && (known.is_none() || known != identity(dir).as_ref())
            };
            if let Some(dir) = last.filter(is_suspect) {
                *emptied.entry(dir.to_owned()).or_default() += 1;
            }
        }
        let known = homes.into_iter();
        self.0
            .extend(known.filter_map(|dir| Some((dir.to_owned(), identity(dir)?))));
        emptied
            .into_iter()
            .map(|(dir, count)| (dir, without(count)))
            .collect()
    }
}

/// The directories that a file is in, from the innermost to the root; none of a file elsewhere.
fn above<'a>(root: &'a Path, file: &'a Path) -> impl Iterator<Item = &'a Path> {
    let above = file.ancestors().skip(1);
    above.take_while(move |dir| dir.starts_with(root))
}

fn without(functions: usize) -> String {
    format!(
        "there is no manifest in it, and {functions} functions come from it: they stay; bring back what was mounted here, or \
         `faas delete` them"
    )
}

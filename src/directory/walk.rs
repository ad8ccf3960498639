//! Walks a tree of files without ever leaving its root. Links are followed as long as they stay inside, which is how a
//! mounted `ConfigMap` is laid out; every directory is entered once, so that links may form circles.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
};

/// Entries that one walk looks at.
pub const ENTRIES: usize = 100_000;

/// What a walk is interested in, by name.
#[derive(Clone, Copy)]
pub struct Interest {
    pub directory: fn(&str) -> bool,
    pub file: fn(&str) -> bool,
}

/// A regular file, or a directory where that is said.
pub struct Entry {
    /// Where it was found: the root as it was given, and the names below it.
    pub path: PathBuf,
    /// Where it is, without links.
    pub real: PathBuf,
    pub metadata: Metadata,
}

impl Entry {
    /// Something that is reached without links, if it is still there.
    pub fn of(path: &PathBuf) -> Option<Self> {
        Some(Self {
            path: path.clone(),
            real: path.clone(),
            metadata: fs::metadata(path).ok()?,
        })
    }
}

/// What a walk found, in the order of the paths.
#[derive(Default)]
pub struct Found {
    pub files: Vec<Entry>,
    /// Every directory that was entered, without links.
    pub directories: BTreeSet<PathBuf>,
    /// What could not be looked at, and why. What lies below is not known.
    pub faults: Vec<(PathBuf, String)>,
}

/// Walks what is below `path`, and stays below `root`, which has no links in it. Directories of `entered` are left out.
/// Looks at no more than `most` entries.
pub fn walk(
    root: &Path,
    path: &Path,
    interest: Interest,
    entered: &BTreeSet<PathBuf>,
    most: usize,
) -> Found {
    let mut walk = Walk {
        root,
        top: path,
        interest,
        entered,
        most,
        looked_at: 0,
        found: Found::default(),
    };
    match walk.resolve(path) {
        Ok(real) => walk.directory(path, &real),
        Err(fault) => walk.found.faults.push((path.to_owned(), fault)),
    }
    walk.found.files.sort_by(|a, b| a.path.cmp(&b.path));
    walk.found
}

struct Walk<'a> {
    root: &'a Path,
    /// Where it began.
    top: &'a Path,
    interest: Interest,
    entered: &'a BTreeSet<PathBuf>,
    most: usize,
    looked_at: usize,
    found: Found,
}

impl Walk<'_> {
    fn directory(&mut self, path: &Path, real: &Path) {
        if self.entered.contains(real) || !self.found.directories.insert(real.to_owned()) {
            return;
        }
        match names(real) {
            Ok(names) => names.into_iter().for_each(|name| match name.to_str() {
                Some(name) => self.entry(path, name),
                None => self.nameless(path, &name),
            }),
            Err(error) => self.fault(path, error.to_string()),
        }
    }

    fn entry(&mut self, parent: &Path, name: &str) {
        self.looked_at += 1;
        if self.looked_at == self.most + 1 {
            // Nothing that comes after is looked at, so nothing of the whole tree may be missed.
            let message = format!(
                "more than {} files and directories: watch a smaller directory",
                self.most
            );
            self.fault(self.top, message);
        }
        let wanted = (self.interest.directory)(name) || (self.interest.file)(name);
        if self.looked_at > self.most || !wanted {
            return;
        }
        let path = parent.join(name);
        let looked = self
            .resolve(&path)
            .and_then(|real| match fs::metadata(&real) {
                Ok(metadata) => Ok((real, metadata)),
                Err(error) => Err(error.to_string()),
            });
        match looked {
            Ok((real, metadata)) if metadata.is_dir() => {
                if (self.interest.directory)(name) {
                    self.directory(&path, &real);
                }
            }
            Ok((real, metadata)) if (self.interest.file)(name) => self.file(path, real, metadata),
            // What only might have been a directory is not missed.
            Err(fault) if (self.interest.file)(name) || path.is_dir() => self.fault(&path, fault),
            Ok(_) | Err(_) => {}
        }
    }

    fn file(&mut self, path: PathBuf, real: PathBuf, metadata: Metadata) {
        if metadata.is_file() {
            self.found.files.push(Entry {
                path,
                real,
                metadata,
            });
        } else {
            self.fault(
                &path,
                "it is neither a file nor a directory: move it elsewhere".to_owned(),
            );
        }
    }

    /// A name that is no text, and so none that a manifest's file can have in the store.
    fn nameless(&mut self, parent: &Path, name: &OsStr) {
        let name = name.to_string_lossy();
        if (self.interest.file)(&name) {
            let message = "its name is not UTF-8: rename the file".to_owned();
            self.fault(&parent.join(&*name), message);
        }
    }

    /// Where `path` leads to, if that is inside the root.
    fn resolve(&self, path: &Path) -> Result<PathBuf, String> {
        let real = fs::canonicalize(path).map_err(|error| error.to_string())?;
        if real.starts_with(self.root) {
            return Ok(real);
        }
        Err(format!(
            "it leads to {}, outside of {}: move the file inside",
            real.display(),
            self.root.display()
        ))
    }

    fn fault(&mut self, path: &Path, message: String) {
        self.found.faults.push((path.to_owned(), message));
    }
}

/// The names in a directory, sorted.
fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    let entries = fs::read_dir(directory)?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names: Vec<_> = names.collect::<Result<_, _>>()?;
    names.sort_unstable();
    Ok(names)
}

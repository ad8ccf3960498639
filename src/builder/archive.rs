//! The files of a source, checked and normalised: whatever way they came (an upload, a manifest, a directory), the same
//! names, contents and execute bits give the same bytes and so the same digest.

mod collect;
mod directory;
mod error;
mod walk;

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use self::collect::Collector;
pub use self::{directory::is_code, error::ArchiveError};
use super::ignore::Ignore;

/// Files that say what `docker build` leaves out; the first that is there counts.
const IGNORES: [&str; 2] = ["Dockerfile.dockerignore", ".dockerignore"];

/// What a source may hold at most.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Files and directories.
    pub entries: usize,
    /// Bytes of all files together.
    pub unpacked: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 10_000,
            unpacked: 64 << 20,
        }
    }
}

impl Limits {
    /// What was admitted once stays readable, whatever the limits are today.
    #[must_use]
    pub(super) fn none() -> Self {
        Self {
            entries: usize::MAX,
            unpacked: u64::MAX,
        }
    }
}

/// One file of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Whether anyone could execute it where it came from.
    pub executable: bool,
    /// What it holds.
    pub content: Bytes,
}

impl File {
    /// The mode that it gets: 0755 or 0644.
    #[must_use]
    pub fn mode(&self) -> u32 {
        if self.executable { 0o755 } else { 0o644 }
    }
}

/// The normalised files of a source. Names are relative, made of plain components joined by `/`, and sorted; nobody
/// owns the files (uid and gid 0) and they are of no time (0). Directories are those that files need: an empty one is
/// not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    digest: String,
    tar: Bytes,
    files: BTreeMap<String, File>,
}

impl Context {
    /// Reads a tar (ustar, pax, GNU) in memory. An archive without its end-of-archive blocks is fine as long as the
    /// bytes of the last entry are complete.
    ///
    /// # Errors
    /// Names the entry that cannot be taken and what to do about it.
    pub fn from_tar(tar: &[u8], limits: &Limits) -> Result<Self, ArchiveError> {
        walk::walk(tar, limits)?.finish()
    }

    /// Takes files as (path, mode, content).
    ///
    /// # Errors
    /// As [`Context::from_tar`].
    pub fn from_files<I, P>(files: I, limits: &Limits) -> Result<Self, ArchiveError>
    where
        I: IntoIterator<Item = (P, u32, Bytes)>,
        P: AsRef<str>,
    {
        let mut collector = Collector::new(limits);
        for (path, mode, content) in files {
            collector.file(path.as_ref().as_bytes(), mode, content)?;
        }
        collector.finish()
    }

    /// Reads a directory of this host. Links are followed as long as they stay within `root`; `.git`, `node_modules` and
    /// names that start with `..` (the inside of a mounted `ConfigMap`) are left out.
    ///
    /// # Errors
    /// As [`Context::from_tar`], and when something cannot be read.
    pub fn from_directory(root: &Path, dir: &Path, limits: &Limits) -> Result<Self, ArchiveError> {
        directory::read(root, dir, limits)?.finish()
    }

    /// The files that `docker build` would take: without what a `.dockerignore` among them leaves out. It and the Dockerfile
    /// stay, for the engine reads them.
    ///
    /// # Errors
    /// When a line of it is no pattern.
    pub fn without_ignored(self) -> Result<Self, ArchiveError> {
        let Some((name, text)) = IGNORES
            .iter()
            .find_map(|name| Some((*name, self.file(name)?)))
        else {
            return Ok(self);
        };
        let ignore = Ignore::parse(&String::from_utf8_lossy(text))
            .map_err(|message| ArchiveError::Ignore { name, message })?;
        let stays =
            |path: &str| path == "Dockerfile" || IGNORES.contains(&path) || !ignore.excludes(path);
        let files = self.files.iter().filter(|(path, _)| stays(path));
        let files = files.map(|(path, file)| (path, file.mode(), file.content.clone()));
        Self::from_files(files, &Limits::none())
    }

    /// SHA-256 of [`Context::tar`], as 64 hex digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The normalised archive.
    #[must_use]
    pub fn tar(&self) -> &Bytes {
        &self.tar
    }

    /// All files, sorted by name.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<String, File> {
        &self.files
    }

    /// What the file of this name holds.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(|file| file.content.as_ref())
    }

    /// Whether there is a file of this name.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn unpacked(&self) -> usize {
        self.files.values().map(|file| file.content.len()).sum()
    }
}

/// Lower-case hex of the SHA-256 of some bytes.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes files as a normalised tar: parents first, then by name. Also tells where each file's content begins.
pub(super) fn write_tar(files: &BTreeMap<String, File>) -> (Bytes, Vec<usize>) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut offsets = Vec::with_capacity(files.len());
    let mut directories = std::collections::BTreeSet::new();
    for (path, file) in files {
        for parent in parents(path) {
            if directories.insert(parent) {
                append(&mut builder, &format!("{parent}/"), 0o755, &[]);
            }
        }
        append(&mut builder, path, file.mode(), &file.content);
        let padded = file.content.len().next_multiple_of(512);
        offsets.push(builder.get_ref().len() - padded);
    }
    let tar = builder
        .into_inner()
        .expect("writing to memory does not fail");
    (tar.into(), offsets)
}

fn append(builder: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(if path.ends_with('/') {
        tar::EntryType::Directory
    } else {
        tar::EntryType::Regular
    });
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    builder
        .append_data(&mut header, path, content)
        .expect("names were checked, and writing to memory does not fail");
}

/// The directories that a path lies in, outermost first.
pub(super) fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests;

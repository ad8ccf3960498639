//! Gathers files one by one, with every rule about names and amounts, and seals them.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use bytes::Bytes;

use super::{ArchiveError, Context, File, Limits, parents, sha256, write_tar};

pub(super) const COMPONENT_BYTES: usize = 255;
pub(super) const PATH_BYTES: usize = 1024;
pub(super) const DEPTH: usize = 32;
/// How much of a name an error shows, in bytes.
const SHOWN_BYTES: usize = 256;

/// What was gathered so far.
pub(super) struct Collector<'a> {
    limits: &'a Limits,
    entries: BTreeMap<String, Option<File>>,
    count: usize,
    unpacked: u64,
}

impl<'a> Collector<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            count: 0,
            unpacked: 0,
        }
    }

    /// Adds a file.
    pub(super) fn file(
        &mut self,
        name: &[u8],
        mode: u32,
        content: Bytes,
    ) -> Result<(), ArchiveError> {
        let path = normalise(name)?;
        if path.is_empty() {
            return Err(ArchiveError::Outside(lossy(name)));
        }
        self.admit(&path, content.len() as u64)?;
        let file = File {
            executable: mode & 0o111 != 0,
            content,
        };
        match self.entries.entry(path) {
            Entry::Vacant(slot) => slot.insert(Some(file)),
            Entry::Occupied(slot) => return Err(ArchiveError::Duplicate(slot.key().clone())),
        };
        Ok(())
    }

    /// Adds a directory: only its name matters.
    pub(super) fn directory(&mut self, name: &[u8]) -> Result<(), ArchiveError> {
        let path = normalise(name)?;
        self.admit(&path, 0)?;
        match self.entries.entry(path) {
            Entry::Occupied(slot) if slot.get().is_some() => {
                Err(ArchiveError::Conflict(slot.key().clone()))
            }
            slot => {
                slot.or_insert(None);
                Ok(())
            }
        }
    }

    /// Whether `size` more bytes would still fit; to be asked before they are read.
    pub(super) fn fits(&self, entry: &str, size: u64) -> Result<(), ArchiveError> {
        if self.unpacked.saturating_add(size) > self.limits.unpacked {
            return Err(ArchiveError::TooLarge {
                entry: entry.into(),
                limit: self.limits.unpacked,
            });
        }
        Ok(())
    }

    fn admit(&mut self, path: &str, size: u64) -> Result<(), ArchiveError> {
        self.fits(path, size)?;
        self.unpacked += size;
        self.count += 1;
        if self.count > self.limits.entries {
            return Err(ArchiveError::TooMany {
                limit: self.limits.entries,
            });
        }
        Ok(())
    }

    /// Checks that names agree with each other, and writes the normalised archive.
    pub(super) fn finish(self) -> Result<Context, ArchiveError> {
        // Directories that only the names of files tell of count too: each is an entry of what is written.
        let mut implied = BTreeSet::new();
        for path in self.entries.keys() {
            for parent in parents(path) {
                match self.entries.get(parent) {
                    Some(Some(_)) => return Err(ArchiveError::Conflict(parent.into())),
                    Some(None) => {}
                    None => drop(implied.insert(parent)),
                }
            }
        }
        if self.count.saturating_add(implied.len()) > self.limits.entries {
            return Err(ArchiveError::TooMany {
                limit: self.limits.entries,
            });
        }
        let mut files: BTreeMap<_, _> = self
            .entries
            .into_iter()
            .filter_map(|(path, file)| Some((path, file?)))
            .collect();
        if files.is_empty() {
            return Err(ArchiveError::Empty);
        }
        let (tar, offsets) = write_tar(&files);
        for (file, offset) in files.values_mut().zip(offsets) {
            file.content = tar.slice(offset..offset + file.content.len());
        }
        Ok(Context {
            digest: sha256(&tar),
            tar,
            files,
        })
    }
}

/// A name as an error tells it.
pub(super) fn lossy(name: &[u8]) -> String {
    match name.get(..SHOWN_BYTES) {
        Some(begin) => String::from_utf8_lossy(begin) + "...",
        None => String::from_utf8_lossy(name),
    }
    .into_owned()
}

/// The plain form of a name: no leading `./`, no empty or `.` parts. Empty for the top itself.
fn normalise(name: &[u8]) -> Result<String, ArchiveError> {
    let text = std::str::from_utf8(name).map_err(|_| ArchiveError::NotUtf8(lossy(name)))?;
    if text.contains(|c: char| c.is_ascii_control()) {
        return Err(ArchiveError::Control(lossy(name)));
    }
    if text.starts_with('/') || text.split('/').any(|part| part == "..") {
        return Err(ArchiveError::Outside(lossy(name)));
    }
    let parts: Vec<_> = text
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.len() > DEPTH {
        return Err(ArchiveError::Deep(lossy(name)));
    }
    let path = parts.join("/");
    if path.len() > PATH_BYTES || parts.iter().any(|part| part.len() > COMPONENT_BYTES) {
        return Err(ArchiveError::LongName(lossy(name)));
    }
    Ok(path)
}

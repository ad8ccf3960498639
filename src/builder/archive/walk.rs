//! Walks a tar in memory. Nothing of it is ever written to the host under its own name.

use bytes::Bytes;
use tar::{Archive, Entry, EntryType};

use super::{
    ArchiveError, Limits,
    collect::{Collector, lossy},
};
use crate::text;

type Reader<'a> = &'a [u8];

/// Gathers the files of a tar.
pub(super) fn walk<'a>(tar: &[u8], limits: &'a Limits) -> Result<Collector<'a>, ArchiveError> {
    if tar.starts_with(&[0x1f, 0x8b]) {
        return Err(ArchiveError::Gzip);
    }
    let mut collector = Collector::new(limits);
    let mut archive = Archive::new(tar);
    let entries = archive.entries().map_err(|e| not_tar(&e))?;
    let mut last: Option<Seen> = None;
    for entry in entries {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => match last {
                // Some writers leave out the padding of the last entry and the blocks that end an archive.
                Some(seen) if seen.ends_at_or_after(tar.len()) => break,
                Some(seen) => {
                    return Err(ArchiveError::Cut {
                        after: seen.after(&error),
                    });
                }
                None => return Err(not_tar(&error)),
            },
        };
        last = Some(take(&mut entry, tar, &mut collector)?);
    }
    Ok(collector)
}

/// The entry before, to tell a missing end from a missing middle.
struct Seen {
    name: String,
    end: u64,
}

impl Seen {
    fn ends_at_or_after(&self, length: usize) -> bool {
        self.end.next_multiple_of(512) >= length as u64
    }

    fn after(&self, error: &std::io::Error) -> String {
        format!("after entry {:?} ({})", self.name, words(error))
    }
}

fn take(
    entry: &mut Entry<'_, Reader<'_>>,
    tar: &[u8],
    collector: &mut Collector<'_>,
) -> Result<Seen, ArchiveError> {
    let name = entry.path_bytes().into_owned();
    let (start, size) = (entry.raw_file_position(), entry.size());
    let shown = lossy(&name);
    if has_unreadable_pax(entry) {
        return Err(ArchiveError::Pax(shown));
    }
    match entry.header().entry_type() {
        // Directories of the oldest dialect.
        EntryType::Regular if name.ends_with(b"/") && size == 0 => collector.directory(&name)?,
        EntryType::Regular | EntryType::Continuous if !is_sparse(entry) => {
            collector.fits(&shown, size)?;
            let content = slice(tar, start, size).ok_or_else(|| ArchiveError::Cut {
                after: format!("within entry {shown:?}"),
            })?;
            let mode = entry.header().mode().unwrap_or(0o644);
            collector.file(&name, mode, Bytes::copy_from_slice(content))?;
        }
        EntryType::Directory => collector.directory(&name)?,
        // What `git archive` puts first: a comment about the commit.
        EntryType::XGlobalHeader => {}
        other => return Err(refused(shown, other)),
    }
    Ok(Seen {
        name: shown,
        end: start.saturating_add(size),
    })
}

fn slice(tar: &[u8], start: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    tar.get(start..end)
}

/// The reader passes over an extension that it does not understand, and so would take another name.
fn has_unreadable_pax(entry: &mut Entry<'_, Reader<'_>>) -> bool {
    match entry.pax_extensions() {
        Ok(Some(mut extensions)) => extensions.any(|extension| extension.is_err()),
        Ok(None) => false,
        Err(_) => true,
    }
}

/// Pax archives call a sparse file regular and say so only in their extension.
fn is_sparse(entry: &mut Entry<'_, Reader<'_>>) -> bool {
    match entry.pax_extensions() {
        Ok(Some(mut extensions)) => extensions.any(|extension| {
            extension.is_ok_and(|pair| pair.key_bytes().starts_with(b"GNU.sparse."))
        }),
        _ => false,
    }
}

fn refused(entry: String, kind: EntryType) -> ArchiveError {
    let (kind, remedy) = match kind {
        EntryType::Link => (
            "hard link",
            "add the file itself (`tar --hard-dereference`)",
        ),
        EntryType::Symlink => (
            "symbolic link",
            "add the file it leads to (`tar --dereference`)",
        ),
        EntryType::Char | EntryType::Block => ("device", "leave it out"),
        EntryType::Fifo => ("fifo", "leave it out"),
        EntryType::GNUSparse | EntryType::Regular | EntryType::Continuous => {
            ("sparse file", "pack without `tar --sparse`")
        }
        _ => ("entry of unknown kind", "leave it out"),
    };
    ArchiveError::Kind {
        entry,
        kind,
        remedy,
    }
}

/// The reader's words, which quote what it read.
fn words(error: &std::io::Error) -> String {
    text::quote(&error.to_string(), 256)
}

fn not_tar(error: &std::io::Error) -> ArchiveError {
    ArchiveError::NotTar(words(error))
}

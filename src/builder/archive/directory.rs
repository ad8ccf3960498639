//! Reads a directory of this host into a source.

use std::{
    fs::{self, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::{
    ArchiveError, Limits,
    collect::{Collector, DEPTH},
};

/// Gathers the files below `dir`; no link may leave `root`.
pub(super) fn read<'a>(
    root: &Path,
    dir: &Path,
    limits: &'a Limits,
) -> Result<Collector<'a>, ArchiveError> {
    let mut walk = Walk {
        root: fs::canonicalize(root).map_err(|e| unreadable(root, &e))?,
        collector: Collector::new(limits),
    };
    let real = walk.within_root(dir)?;
    walk.directory(&real, &PathBuf::new(), 0)?;
    Ok(walk.collector)
}

struct Walk<'a> {
    root: PathBuf,
    collector: Collector<'a>,
}

impl Walk<'_> {
    /// Takes all that `real` (without links in its path) holds, under the name `name`.
    fn directory(&mut self, real: &Path, name: &Path, depth: usize) -> Result<(), ArchiveError> {
        // Links can make a circle; nothing else ends it.
        if depth > DEPTH {
            return Err(ArchiveError::Deep(name.display().to_string()));
        }
        let entries = fs::read_dir(real).map_err(|e| unreadable(real, &e))?;
        for entry in entries {
            let entry = entry.map_err(|e| unreadable(real, &e))?;
            if is_code(&entry.file_name().to_string_lossy()) {
                self.entry(&entry.path(), &name.join(entry.file_name()), depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: &Path, depth: usize) -> Result<(), ArchiveError> {
        let real = self.within_root(path)?;
        let metadata = fs::symlink_metadata(&real).map_err(|e| unreadable(path, &e))?;
        if metadata.is_dir() {
            self.collector.directory(name.as_os_str().as_bytes())?;
            return self.directory(&real, name, depth + 1);
        }
        if !metadata.is_file() {
            return Err(ArchiveError::Kind {
                entry: name.display().to_string(),
                kind: kind(&metadata),
                remedy: "move it out of the directory",
            });
        }
        self.collector
            .fits(&name.display().to_string(), metadata.len())?;
        let content = read_file(&real, metadata.len()).map_err(|e| unreadable(path, &e))?;
        let mode = metadata.permissions().mode();
        self.collector
            .file(name.as_os_str().as_bytes(), mode, content.into())
    }

    fn within_root(&self, path: &Path) -> Result<PathBuf, ArchiveError> {
        let real = fs::canonicalize(path).map_err(|e| unreadable(path, &e))?;
        if real.starts_with(&self.root) {
            return Ok(real);
        }
        Err(ArchiveError::LinkOutside {
            link: path.display().to_string(),
            target: real.display().to_string(),
            root: self.root.display().to_string(),
        })
    }
}

/// Whether an entry of this name is the function's. Not so: `node_modules`, which `npm` makes; what version control keeps; and
/// what editors and desktops put beside files while they are open: locks, swap files, backups.
pub fn is_code(name: &str) -> bool {
    let is_between = |begin: &str, end: &str| {
        name.strip_prefix(begin)
            .is_some_and(|rest| rest.ends_with(end))
    };
    let is_swap = name.starts_with('.')
        && name
            .rsplit_once(".sw")
            .is_some_and(|(_, end)| matches!(end.as_bytes(), [b'a'..=b'z']));
    let is_named = matches!(
        name,
        ".git" | ".hg" | ".svn" | "node_modules" | ".DS_Store" | "4913"
    );
    let is_temporary = ["..", ".#", "._", ".goutputstream-", ".nfs"]
        .iter()
        .any(|begin| name.starts_with(begin));
    !(is_named
        || is_swap
        || is_temporary
        || name.ends_with('~')
        || is_between("#", "#")
        || is_between(".", ".kate-swp"))
}

fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_fifo() {
        "fifo"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    }
}

/// Reads what was measured: a file that grows meanwhile is cut there, and its next change is seen as one. No link is
/// followed any more and a fifo that took the file's place does not block.
fn read_file(path: &Path, size: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)?;
    let mut content = Vec::new();
    file.take(size).read_to_end(&mut content)?;
    Ok(content)
}

fn unreadable(path: &Path, error: &io::Error) -> ArchiveError {
    ArchiveError::Read {
        path: path.display().to_string(),
        message: error.to_string(),
    }
}

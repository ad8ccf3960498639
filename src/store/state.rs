//! The state directory: private to its user, held by one `faas` at a time, and home of this installation's identity. The
//! identity lives in files of its own beside the store, so that a store that was moved away does not orphan containers.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process,
};

use jiff::Timestamp;

use super::StoreError;

/// The store's file in the state directory.
pub const STORE: &str = "store.db";
/// Uploaded sources in the state directory, each in a file.
pub const SOURCES: &str = "sources";
/// Copies of uploads that a registry keeps, in the state directory.
pub const UPLOADS: &str = "uploads";

/// The identity, in a file of the state directory.
const OWNER: &str = "owner";
/// What a cluster's controllers have in common, as it was last told.
const CLUSTER: &str = "cluster";

const OWNER_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// Holds the state directory; given up when it is dropped, and by the kernel when the process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Makes the directory, parents included, and takes others' access to it away.
///
/// # Errors
///
/// What the file system says.
pub fn make_private(directory: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.map_err(StoreError::io("create", directory))?;
    let private = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    private.map_err(StoreError::io("protect", directory))
}

/// Takes the state directory for this process, whose start command is kept beside its pid for whoever comes second.
///
/// # Errors
///
/// [`StoreError::Held`] with the holder's pid and command; whatever the file system says.
pub fn lock(directory: &Path, command: &str) -> Result<Lock, StoreError> {
    make_private(directory)?;
    let path = directory.join("lock");
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let mut file = opened.map_err(StoreError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::Held {
                directory: directory.to_owned(),
                holder: holder(&mut file),
            });
        }
        Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path)(error)),
    }
    let noted = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}\n{}", process::id(), command.replace('\n', " ")));
    noted.map_err(StoreError::io("write", &path))?;
    Ok(Lock { _file: file })
}

/// The identity of this installation, 16 hex digits; made at random when there is none yet. Hold the [`lock`] before.
///
/// # Errors
///
/// [`StoreError::Damaged`] when the file holds something else: a new identity would orphan what runs. Whatever the file
/// system says.
pub fn owner(directory: &Path) -> Result<String, StoreError> {
    Ok(hex(&kept::<OWNER_BYTES>(directory, OWNER)?))
}

/// Whether the directory has an [`owner`], as one that was used before has. One that cannot be looked for is there: to read it
/// says why.
#[must_use]
pub fn has_owner(directory: &Path) -> bool {
    directory.join(OWNER).try_exists().unwrap_or(true)
}

/// Writes the file of an [`owner`] that was lost.
///
/// # Errors
///
/// [`StoreError::OwnerLost`] when this is none; whatever the file system says.
pub fn restore_owner(directory: &Path, owner: &str) -> Result<(), StoreError> {
    if unhex::<OWNER_BYTES>(owner).is_none() {
        return Err(StoreError::OwnerLost {
            directory: directory.to_owned(),
        });
    }
    let written = write_whole(directory, OWNER, owner);
    written.map_err(StoreError::io("write", &directory.join(OWNER)))
}

/// The key of the digests that stand for secrets in a revision; made at random when there is none yet. Hold the [`lock`]
/// before.
///
/// # Errors
///
/// As [`owner`].
pub fn secret(directory: &Path) -> Result<[u8; SECRET_BYTES], StoreError> {
    kept(directory, "secret")
}

/// Who an installation is, to others and to itself after a restart.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// See [`owner`].
    pub owner: String,
    /// See [`secret`].
    pub secret: [u8; SECRET_BYTES],
}

impl Identity {
    /// `None` when that is no owner: it becomes a part of names.
    #[must_use]
    pub fn new(owner: String, secret: [u8; SECRET_BYTES]) -> Option<Self> {
        let is_owner = unhex::<OWNER_BYTES>(&owner).is_some();
        is_owner.then_some(Self { owner, secret })
    }

    /// This machine's own.
    ///
    /// # Errors
    /// As [`owner`].
    pub fn own(directory: &Path) -> Result<Self, StoreError> {
        let (owner, secret) = (owner(directory)?, secret(directory)?);
        Ok(Self { owner, secret })
    }

    /// The one that a cluster had when this server last asked, if it did.
    #[must_use]
    pub fn recall(directory: &Path) -> Option<Self> {
        let text = fs::read_to_string(directory.join(CLUSTER)).ok()?;
        let (owner, secret) = text.trim_end().split_once(' ')?;
        Self::new(owner.to_owned(), unhex(secret)?)
    }

    /// Keeps a cluster's, for a start while that does not answer.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn remember(&self, directory: &Path) -> Result<(), StoreError> {
        let text = format!("{} {}", self.owner, hex(&self.secret));
        let written = write_whole(directory, CLUSTER, &text);
        written.map_err(StoreError::io("write", &directory.join(CLUSTER)))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?}, …)", self.owner)
    }
}

/// Moves the store out of the way, with all that belongs to it, into a directory of its own, and answers which. Sources are
/// linked there: they may be missed when nothing names them any more.
pub fn set_aside(directory: &Path) -> Result<PathBuf, StoreError> {
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%S.%3fZ");
    let aside = directory.join(format!("{STORE}.damaged-{time}"));
    let moved = || {
        DirBuilder::new().mode(0o700).create(&aside)?;
        for name in ["", "-wal", "-shm", "-journal"].map(|suffix| format!("{STORE}{suffix}")) {
            match fs::rename(directory.join(&name), aside.join(&name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let (sources, kept) = (directory.join(SOURCES), aside.join(SOURCES));
        if sources.is_dir() {
            fs::create_dir(&kept)?;
            for source in fs::read_dir(&sources)? {
                let source = source?;
                fs::hard_link(source.path(), kept.join(source.file_name()))?;
            }
        }
        Ok(())
    };
    moved().map_err(StoreError::io("set aside the damaged store in", directory))?;
    Ok(aside)
}

/// The pid and the command of the holder. It may not have written them yet.
fn holder(file: &mut File) -> String {
    let mut noted = String::new();
    match file
        .read_to_string(&mut noted)
        .ok()
        .and_then(|_| noted.trim_end().split_once('\n'))
    {
        Some((pid, command)) => format!("process {pid} ({command})"),
        None => "a process that is just starting".to_owned(),
    }
}

fn kept<const N: usize>(directory: &Path, name: &str) -> Result<[u8; N], StoreError> {
    let path = directory.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => unhex(text.trim_end()).ok_or_else(|| StoreError::Damaged {
            message: format!("it should hold {} hex digits", 2 * N),
            file: path,
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut bytes = [0; N];
            getrandom::fill(&mut bytes)
                .map_err(|error| StoreError::io("make random bytes for", &path)(error.into()))?;
            write_whole(directory, name, &hex(&bytes)).map_err(StoreError::io("write", &path))?;
            Ok(bytes)
        }
        Err(error) => Err(StoreError::io("read", &path)(error)),
    }
}

/// Writes a file that is there wholly or not at all, also after a power cut.
pub fn write_whole(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(name))?;
    File::open(directory)?.sync_all()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

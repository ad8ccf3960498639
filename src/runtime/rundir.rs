//! The directories of instances below the run root: one that an instance may write its socket to, one with its secrets.

use std::{
    ffi::CString,
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Component, Path, PathBuf},
};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{InstanceId, SecretFile, socket::SOCKET};

/// User and group of every container.
pub const INSTANCE_UID: u32 = 65532;

/// What an instance may store beside its socket: more than a socket needs, too little to hurt.
const SOCKET_BYTES: usize = 64 * 1024;
const SOCKET_INODES: usize = 16;

/// Ends the name of a secrets directory; no instance's name has a dot.
const SECRETS: &str = ".secrets";

/// A directory that only this user may enter, with two directories for every instance in it. Every installation and runtime
/// needs one of its own: what nobody there knows is removed as left over.
///
/// Without mounts, an instance of another user that makes directories in its own leaves ones that we cannot empty: they are
/// logged, and stay until the tmpfs ends.
#[derive(Clone, Debug)]
pub struct RunRoot {
    path: PathBuf,
    mounts: bool,
}

/// Who opens the files of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Uid 65532 of this host, and we are root: files are 0400 and belong to it.
    Instance,
    /// Another uid of this host (the engine maps users, or we are not root): files are 0444 behind the root's 0700.
    Mapped,
}

/// The directories of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceDirs {
    /// Holds the socket; the instance writes to it.
    pub sockets: PathBuf,
    /// Holds the secrets as `<name>/<key>`, if there are any.
    pub secrets: Option<PathBuf>,
}

impl RunRoot {
    /// Makes `path` (with parents, mode 0700). With `mounts` (needs root) every directory in it becomes a tmpfs of its own,
    /// limited in bytes and inodes; without, `path` should be on a tmpfs already (`$XDG_RUNTIME_DIR`).
    ///
    /// # Errors
    /// When the directory cannot be made, or belongs to another user.
    pub fn open(path: &Path, mounts: bool) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)?;
        if fs::symlink_metadata(path)?.uid() != rustix::process::geteuid().as_raw() {
            let message = format!(
                "{} belongs to another user: choose another run directory",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        Ok(Self {
            path: path.canonicalize()?,
            mounts,
        })
    }

    /// Where the socket of an instance is, or would be.
    #[must_use]
    pub fn socket(&self, id: &str) -> PathBuf {
        self.path.join(id).join(SOCKET)
    }

    /// Makes the directories of a new instance. On an error nothing stays.
    ///
    /// # Errors
    /// `AlreadyExists` when the instance has directories, which are left alone. No error tells a byte of a secret.
    pub fn create(
        &self,
        id: &str,
        secrets: &[SecretFile],
        readers: Readers,
    ) -> io::Result<InstanceDirs> {
        check_id(id)?;
        let sockets = self.path.join(id);
        fs::create_dir(&sockets)?;
        let filled = self.fill(id, sockets, secrets, readers);
        filled.inspect_err(|_| {
            // The first error is the one to tell; what stays is found by `leftovers`.
            let _ = self.remove(id);
        })
    }

    /// Removes the directories of an instance, and their mounts though they be busy. None there is no error.
    ///
    /// # Errors
    /// When one cannot be removed; the other one is tried all the same.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        check_id(id)?;
        let secrets = discard(&self.secrets(id));
        discard(&self.path.join(id)).and(secrets)
    }

    /// Instances that have directories here.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub fn leftovers(&self) -> io::Result<Vec<InstanceId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                ids.push(name.strip_suffix(SECRETS).unwrap_or(&name).to_owned());
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Removes the root itself, unless there is something in it. To be opened anew before it is used again.
    pub fn close(&self) {
        // What stays, and why, was told when it could not be removed.
        let _ = fs::remove_dir(&self.path);
    }

    fn secrets(&self, id: &str) -> PathBuf {
        self.path.join(format!("{id}{SECRETS}"))
    }

    fn fill(
        &self,
        id: &str,
        sockets: PathBuf,
        files: &[SecretFile],
        readers: Readers,
    ) -> io::Result<InstanceDirs> {
        if self.mounts {
            limit(&sockets, SOCKET_BYTES, SOCKET_INODES)?;
        }
        // The umask has no say in it, and a mount brings its own mode.
        fs::set_permissions(&sockets, fs::Permissions::from_mode(0o777))?;
        let secrets = (!files.is_empty()).then(|| self.secrets(id));
        if let Some(secrets) = &secrets {
            fs::create_dir(secrets)?;
            if self.mounts {
                limit(secrets, room_for(files), 16 + 2 * files.len())?;
            }
            fs::set_permissions(secrets, fs::Permissions::from_mode(0o755))?;
            for file in files {
                write_secret(secrets, file, readers)?;
            }
        }
        Ok(InstanceDirs { sockets, secrets })
    }
}

fn write_secret(dir: &Path, file: &SecretFile, readers: Readers) -> io::Result<()> {
    let (name, key) = split_secret(&file.path)?;
    let parent = dir.join(name);
    fs::create_dir_all(&parent)?;
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o755))?;
    let path = parent.join(key);
    let mut output = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(&path)?;
    io::Write::write_all(&mut output, &file.bytes)?;
    match readers {
        Readers::Instance => chown(&path, Some(INSTANCE_UID), Some(INSTANCE_UID)),
        Readers::Mapped => fs::set_permissions(&path, fs::Permissions::from_mode(0o444)),
    }
}

/// A tmpfs holds whole pages; some more for directories.
fn room_for(files: &[SecretFile]) -> usize {
    const PAGE: usize = 4096;
    let pages = |file: &SecretFile| file.bytes.len().div_ceil(PAGE) + 1;
    files.iter().map(pages).sum::<usize>() * PAGE + SOCKET_BYTES
}

/// Covers a directory by a tmpfs of its own.
fn limit(dir: &Path, bytes: usize, inodes: usize) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = CString::new(format!("size={bytes},nr_inodes={inodes},mode=0700"))?;
    Ok(mount("faas", dir, "tmpfs", flags, options.as_c_str())?)
}

/// Unmounts and removes a directory.
fn discard(dir: &Path) -> io::Result<()> {
    // EINVAL: no mount. EPERM: not root, so no mount of ours. A busy one leaves the tree now and ends with its last user.
    let _ = unmount(dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io::Error::new(
            error.kind(),
            format!("cannot remove {}: {error}", dir.display()),
        )),
        _ => Ok(()),
    }
}

/// Ids become names of directories, also those that labels tell.
fn check_id(id: &str) -> io::Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !id.is_empty() && id.chars().all(plain) {
        return Ok(());
    }
    let message = format!("{id:?} is no instance's name");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

fn split_secret(path: &str) -> io::Result<(&str, &str)> {
    let normal = |part: &str| {
        let mut components = Path::new(part).components();
        matches!(
            (components.next(), components.next()),
            (Some(Component::Normal(whole)), None) if whole == part
        )
    };
    match path.split_once('/') {
        Some((name, key)) if normal(name) && normal(key) => Ok((name, key)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a secret's file must be <name>/<key> and is {path:?}"),
        )),
    }
}

#[cfg(test)]
mod tests;

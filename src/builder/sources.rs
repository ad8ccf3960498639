//! Uploaded sources on disk, each a file named by its digest. Content decides the name, so a file is written once, whole or
//! not at all, and never changed; one that was damaged is replaced when its content comes again.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    archive::{Context, Limits},
    archives::{ArchiveId, Archives, ArchivesError},
};

const SUFFIX: &str = ".tar";

/// A directory of sources, for this user's eyes only.
#[derive(Clone, Debug)]
pub struct Sources {
    dir: PathBuf,
}

impl Sources {
    /// Makes the directory if need be, and takes away what a crash left half written.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "part") {
                fs::remove_file(path)?;
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Keeps a source; one that is kept already is left as it is, unless it was damaged.
    ///
    /// # Errors
    /// When it cannot be written; then nothing of it is there.
    pub fn put(&self, context: &Context) -> io::Result<()> {
        let path = self.path(context.digest())?;
        match fs::read(&path) {
            // Whoever puts it is about to need it.
            Ok(kept) if kept == *context.tar() => {
                return File::open(&path)?.set_modified(SystemTime::now());
            }
            Ok(_) => {
                tracing::warn!(file = %path.display(), "A stored source was damaged and is replaced");
            }
            // Whatever it is, one that can be read comes in its place.
            Err(_) => {}
        }
        let part = self.dir.join(format!("{}.part", Uuid::new_v4().simple()));
        let written = write(&part, context.tar()).and_then(|()| fs::rename(&part, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&part);
            return Err(error);
        }
        File::open(&self.dir)?.sync_all()
    }

    /// Reads a source; nothing when it is not kept.
    ///
    /// # Errors
    /// When it cannot be read, and when what is there has another digest.
    pub fn get(&self, digest: &str) -> io::Result<Option<Context>> {
        let path = self.path(digest)?;
        let tar = match fs::read(&path) {
            Ok(tar) => tar,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is damaged: upload the source again", path.display()),
            )
        };
        let context = Context::from_tar(&tar, &Limits::none()).map_err(|_| damaged())?;
        if context.digest() != digest || context.tar() != &tar {
            return Err(damaged());
        }
        Ok(Some(context))
    }

    /// Digests of all sources.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<String>> {
        let mut digests = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let digest = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            digests.extend(digest.filter(|text| is_digest(text)).map(str::to_owned));
        }
        digests.sort();
        Ok(digests)
    }

    /// Forgets a source; one that is not kept is no error.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn remove(&self, digest: &str) -> io::Result<()> {
        match fs::remove_file(self.path(digest)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Forgets the sources that are not `needed` and were stored before `before`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn collect(&self, needed: &HashSet<String>, before: SystemTime) -> io::Result<()> {
        for digest in self.list()?.into_iter().filter(|d| !needed.contains(d)) {
            if fs::metadata(self.path(&digest)?)?.modified()? < before {
                self.remove(&digest)?;
            }
        }
        Ok(())
    }

    /// [`Self::get`] where it holds nobody up.
    pub(super) async fn read(&self, digest: &str) -> io::Result<Option<Context>> {
        let (this, digest) = (self.clone(), digest.to_owned());
        off(move || this.get(&digest)).await
    }

    /// [`Self::collect`] where it holds nobody up.
    pub async fn tidy(&self, needed: HashSet<String>, before: SystemTime) -> io::Result<()> {
        let this = self.clone();
        off(move || this.collect(&needed, before)).await
    }

    fn path(&self, digest: &str) -> io::Result<PathBuf> {
        if is_digest(digest) {
            return Ok(self.dir.join(format!("{digest}{SUFFIX}")));
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{digest:?} is no digest: 64 hex digits are"),
        ))
    }
}

/// The uploads of one machine are those of all namespaces: a digest is known only to whoever has the content.
#[async_trait]
impl Archives for Sources {
    async fn put(&self, _: &str, context: &Context) -> Result<(), ArchivesError> {
        let (this, context) = (self.clone(), context.clone());
        Ok(off(move || Self::put(&this, &context)).await?)
    }

    async fn get(&self, _: &str, digest: &str) -> Result<Option<Context>, ArchivesError> {
        Ok(self.read(digest).await?)
    }

    /// They lie among the sources, and go with them.
    async fn collect(&self, _: &HashSet<ArchiveId>, _: SystemTime) -> Result<(), ArchivesError> {
        Ok(())
    }
}

impl From<io::Error> for ArchivesError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull => Self::Full(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// Does what waits for the disk on a thread that may.
async fn off<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other).flatten()
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use bytes::Bytes;

    use super::*;

    fn context(text: &'static str) -> Context {
        let file = ("index.js", 0o644, Bytes::from_static(text.as_bytes()));
        Context::from_files([file], &Limits::default()).unwrap()
    }

    #[test]
    fn what_is_put_is_got_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources::open(&dir.path().join("sources")).unwrap();
        let context = context("code");
        let digest = context.digest();
        assert_eq!(sources.get(digest).unwrap(), None);
        sources.put(&context).unwrap();
        sources.put(&context).unwrap();
        assert_eq!(sources.get(digest).unwrap().as_ref(), Some(&context));
        assert_eq!(sources.list().unwrap(), [digest]);
        let mode = fs::metadata(sources.path(digest).unwrap())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        sources.remove(digest).unwrap();
        sources.remove(digest).unwrap();
        assert_eq!(sources.list().unwrap(), [""; 0]);
    }

    #[test]
    fn damage_is_seen_and_mended_by_the_next_put_and_half_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources::open(dir.path()).unwrap();
        let (one, other) = (context("one"), context("other"));
        sources.put(&one).unwrap();
        let path = sources.path(one.digest()).unwrap();
        for bytes in [
            &b"noise"[..],
            other.tar(),
            &[one.tar(), &b"more"[..]].concat(),
        ] {
            fs::write(&path, bytes).unwrap();
            let error = sources.get(one.digest()).unwrap_err().to_string();
            assert!(error.contains("is damaged"), "{error}");
            sources.put(&one).unwrap();
            assert_eq!(sources.get(one.digest()).unwrap().as_ref(), Some(&one));
        }
        fs::write(dir.path().join("x.part"), "half").unwrap();
        Sources::open(dir.path()).unwrap();
        assert!(!dir.path().join("x.part").exists());
    }

    #[test]
    fn a_name_that_is_no_digest_reaches_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources::open(dir.path()).unwrap();
        assert!(sources.get("../secret").is_err());
        assert!(sources.remove("").is_err());
    }
}

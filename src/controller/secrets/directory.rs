//! Reads secrets from a directory of this host: a directory a secret, a file a key. Blocks.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use crate::runtime::SecretFile;

/// How often a secret is read that is replaced meanwhile.
const ATTEMPTS: usize = 10;

/// Bytes of a secret's files together. Kubernetes takes no more either.
const MOST: u64 = 1 << 20;

/// Real paths by key.
type Places = BTreeMap<String, PathBuf>;

/// The files of one secret, sorted by key, all of one version: what is replaced meanwhile, as Kubernetes does by swapping a
/// link, is read again.
///
/// # Errors
/// When something cannot be read, is larger than 1 MiB in all, or is a link that leads out of `root`: it would hand any file of
/// this host to a Function.
pub fn read(root: &Path, name: &str) -> io::Result<Vec<SecretFile>> {
    let root = root.canonicalize()?;
    let mut outcome = Err(changing());
    for _ in 0..ATTEMPTS {
        outcome = read_once(&root, name);
        match &outcome {
            Err(error) if is_passing(error) => {}
            _ => break,
        }
    }
    outcome
}

fn read_once(root: &Path, name: &str) -> io::Result<Vec<SecretFile>> {
    let places = places(root, name)?;
    let mut files = Vec::with_capacity(places.len());
    let mut room = MOST;
    for (key, place) in &places {
        let bytes = content(place, room)?;
        room -= bytes.len() as u64;
        files.push(SecretFile {
            path: format!("{name}/{key}"),
            bytes: bytes.into(),
        });
    }
    if self::places(root, name)? == places {
        return Ok(files);
    }
    Err(changing())
}

/// Where the keys of a secret are at this moment.
fn places(root: &Path, name: &str) -> io::Result<Places> {
    let mut places = Places::new();
    for entry in fs::read_dir(within(root, &root.join(name))?)? {
        let entry = entry?;
        let key = entry.file_name().to_string_lossy().into_owned();
        // Kubernetes keeps versions in dot directories.
        if key.starts_with('.') {
            continue;
        }
        let place = within(root, &entry.path())?;
        if fs::symlink_metadata(&place)?.is_file() {
            places.insert(key, place);
        }
    }
    Ok(places)
}

fn within(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let real = path.canonicalize()?;
    if real.starts_with(root) {
        return Ok(real);
    }
    let message = format!(
        "{} is a link that leads out of {}",
        path.display(),
        root.display()
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// At most so many bytes. No link is followed any more, and a fifo that took the file's place does not block.
fn content(path: &Path, room: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)?;
    let mut bytes = Vec::new();
    if file.take(room + 1).read_to_end(&mut bytes)? as u64 <= room {
        return Ok(bytes);
    }
    let message = format!("its files are larger than {} MiB in all", MOST >> 20);
    Err(io::Error::new(io::ErrorKind::FileTooLarge, message))
}

fn changing() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "it changes while it is read")
}

/// Whether the next look may see more: links and their targets come and go.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::NotFound
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn told(root: &Path, name: &str) -> Vec<(String, String)> {
        let files = read(root, name).unwrap();
        let text = |file: SecretFile| String::from_utf8(file.bytes.to_vec()).unwrap();
        files
            .into_iter()
            .map(|file| (file.path.clone(), text(file)))
            .collect()
    }

    /// Lays a version out as Kubernetes does, and makes it the one of today.
    fn publish(secret: &Path, version: usize) {
        let dir = secret.join(format!("..{version}"));
        fs::create_dir_all(&dir).unwrap();
        for key in ["password", "user"] {
            fs::write(dir.join(key), version.to_string()).unwrap();
            // There since the first version.
            let _ = symlink(format!("..data/{key}"), secret.join(key));
        }
        symlink(format!("..{version}"), secret.join("..data_tmp")).unwrap();
        fs::rename(secret.join("..data_tmp"), secret.join("..data")).unwrap();
        let _ = fs::remove_dir_all(secret.join(format!("..{}", version.wrapping_sub(1))));
    }

    #[test]
    fn links_are_followed_within_the_directory_and_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("secrets"), dir.path().join("outside"));
        fs::create_dir_all(root.join("db")).unwrap();
        fs::write(&outside, "not for anybody").unwrap();
        fs::write(root.join("db/plain"), "1").unwrap();
        fs::write(root.join(".shared"), "2").unwrap();
        fs::create_dir(root.join("db/directory")).unwrap();
        symlink("../.shared", root.join("db/linked")).unwrap();
        symlink("db", root.join("other")).unwrap();
        symlink(&root, dir.path().join("itself")).unwrap();
        let expected = |name| {
            let pair = |key, text: &str| (format!("{name}/{key}"), text.to_owned());
            [pair("linked", "2"), pair("plain", "1")]
        };
        assert_eq!(told(&root, "db"), expected("db"));
        assert_eq!(told(&root, "other"), expected("other"));
        assert_eq!(told(&dir.path().join("itself"), "db"), expected("db"));

        for target in [&outside, Path::new("../../outside"), Path::new("/dev/zero")] {
            symlink(target, root.join("db/out")).unwrap();
            let error = read(&root, "db").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(
                error
                    .to_string()
                    .contains("db/out is a link that leads out of"),
                "{error}"
            );
            fs::remove_file(root.join("db/out")).unwrap();
        }
        symlink(dir.path(), root.join("all")).unwrap();
        assert!(
            read(&root, "all")
                .unwrap_err()
                .to_string()
                .contains("leads out")
        );
        symlink("absent", root.join("db/nowhere")).unwrap();
        assert_eq!(
            read(&root, "db").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        assert_eq!(
            read(&root, "none").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn a_secret_is_no_larger_than_kubernetes_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("db");
        fs::create_dir(&secret).unwrap();
        let half = vec![b'x'; 1 << 19];
        fs::write(secret.join("a"), &half).unwrap();
        fs::write(secret.join("b"), &half).unwrap();
        assert_eq!(told(dir.path(), "db").len(), 2);
        fs::write(secret.join("c"), "x").unwrap();
        let error = read(dir.path(), "db").unwrap_err().to_string();
        assert!(error.contains("larger than 1 MiB"), "{error}");
    }

    #[test]
    fn what_is_swapped_meanwhile_is_never_of_two_versions() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("db");
        fs::create_dir(&secret).unwrap();
        publish(&secret, 0);
        let seen = std::thread::scope(|scope| {
            let writer = scope.spawn(|| (1..500).for_each(|version| publish(&secret, version)));
            let mut seen = std::collections::BTreeSet::new();
            while !writer.is_finished() {
                // One that is replaced faster than it can be read is an error.
                if let Ok(files) = read(dir.path(), "db") {
                    assert_eq!(files[0].bytes, files[1].bytes);
                    seen.insert(files[0].bytes.clone());
                }
            }
            seen
        });
        assert!(seen.len() > 10, "{} versions were seen", seen.len());
        assert_eq!(told(dir.path(), "db")[0].1, "499");
    }
}

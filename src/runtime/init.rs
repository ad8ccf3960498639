//! Our init on the host's disk, where the engine mounts it from and children are started with it.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// The init of `guest/`, as it was built with this program.
pub static INIT: &[u8] = include_bytes!(env!("FAAS_INIT_PATH"));

/// Stores the init as `<state>/init/<digest>/faas-init`, mode 0555, unless it is there and whole. A newer version gets
/// another directory, so that running containers keep theirs.
///
/// # Errors
/// When it cannot be written.
pub fn store(state: &Path, init: &[u8]) -> io::Result<PathBuf> {
    let dir = state.join("init").join(hex(&Sha256::digest(init)));
    let path = dir.join("faas-init");
    if is_whole(&path, init) {
        return Ok(path);
    }
    fs::create_dir_all(&dir)?;
    // Written beside and renamed: containers that run from the old file are not disturbed, and nobody sees a half. Several
    // starts may be at it.
    let fresh = dir.join(format!("faas-init.{}", uuid::Uuid::new_v4().simple()));
    let written = write(&fresh, init).and_then(|()| fs::rename(&fresh, &path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written.map(|()| path)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o700)
        .open(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.set_permissions(fs::Permissions::from_mode(0o555))?;
    file.sync_all()
}

fn is_whole(path: &Path, init: &[u8]) -> bool {
    let executable = fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o777 == 0o555);
    executable && fs::read(path).is_ok_and(|found| found == init)
}

/// Lower case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_stored_once_and_mended_when_damaged() {
        let state = tempfile::tempdir().unwrap();
        let path = store(state.path(), b"init").unwrap();
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
        let first = inode(&path);
        assert_eq!(store(state.path(), b"init").unwrap(), path);
        assert_eq!(inode(&path), first, "an intact one is left alone");

        for damage in [
            (|path: &Path| fs::remove_file(path)) as fn(&Path) -> io::Result<()>,
            |path| fs::remove_file(path).and_then(|()| fs::write(path, "inlt")),
            |path| fs::set_permissions(path, fs::Permissions::from_mode(0o444)),
        ] {
            damage(&path).unwrap();
            assert_eq!(store(state.path(), b"init").unwrap(), path);
            assert_eq!(fs::read(&path).unwrap(), b"init");
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o555
            );
        }
        assert_ne!(store(state.path(), b"newer").unwrap(), path);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn several_may_store_it_at_a_time() {
        let state = tempfile::tempdir().unwrap();
        let store = || store(state.path(), &vec![7; 100_000]).unwrap();
        let path = std::thread::scope(|scope| {
            let stores: Vec<_> = (0..8).map(|_| scope.spawn(store)).collect();
            let paths: Vec<_> = stores.into_iter().map(|s| s.join().unwrap()).collect();
            paths[0].clone()
        });
        assert_eq!(fs::read(&path).unwrap(), vec![7; 100_000]);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}

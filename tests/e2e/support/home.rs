//! Where servers live: directories for state, manifests and secrets, and what is tidied up in the end.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    containers,
    disk::Disk,
    engine::{CONTAINERS, IMAGES, owned, try_docker},
};

/// Temporary directories of one installation. Whatever a test leaves in the engine goes with it.
pub struct Home {
    /// The state directory, if it is a small one. It goes before the directory that it is mounted in.
    disk: Option<Disk>,
    dir: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        let home = Self {
            disk: None,
            dir: tempfile::tempdir().unwrap(),
        };
        for dir in [home.functions(), home.secrets()] {
            fs::create_dir(dir).unwrap();
        }
        home
    }

    /// Its state directory is a disk of 4 MiB. Where that cannot be, `test` is skipped.
    pub fn on_a_small_disk(test: &str) -> Option<Self> {
        let mut home = Self::new();
        fs::create_dir(home.state()).unwrap();
        home.disk = Some(Disk::at(&home.state(), test)?);
        Some(home)
    }

    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().unwrap()
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The watched directory.
    pub fn functions(&self) -> PathBuf {
        self.dir.path().join("functions")
    }

    pub fn secrets(&self) -> PathBuf {
        self.dir.path().join("secrets")
    }

    /// Writes a file as an editor does: beside, then in its place.
    pub fn write(&self, path: &str, text: &str) {
        save(&self.functions().join(path), text);
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.functions().join(path)).unwrap();
    }

    /// The identity of the installation; there is none before its first start.
    pub fn owner(&self) -> Option<String> {
        match fs::read_to_string(self.state().join("owner")) {
            Ok(owner) => Some(owner.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Names of the containers that exist.
    pub fn containers(&self) -> Vec<String> {
        self.owner()
            .map(|owner| containers(&owner))
            .unwrap_or_default()
    }
}

/// Replaces a file whole, and makes its directory.
pub fn save(path: &Path, text: &str) {
    let dir = path.parent().unwrap();
    fs::create_dir_all(dir).unwrap();
    let name = path.file_name().unwrap().to_string_lossy();
    let beside = dir.join(format!(".{name}.swp"));
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

impl Drop for Home {
    fn drop(&mut self) {
        let Some(owner) = self.owner() else { return };
        // What fails here has been told by the test, or there is no engine.
        let try_docker = |args: &[&str]| try_docker(args).unwrap_or_default();
        for container in owned(&owner, CONTAINERS, try_docker) {
            try_docker(&["rm", "--force", &container]);
        }
        for image in owned(&owner, IMAGES, try_docker) {
            try_docker(&["rmi", "--force", &image]);
        }
        // Instances of a failed test leave their mounts behind.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for point in points.filter(|point| point.contains(&owner)) {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

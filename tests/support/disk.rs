//! A small disk that can be filled: a file system of its own, unmounted in the end.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use super::skip::skip;

/// 4 MiB, mounted.
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts it on an empty directory. Where that cannot be, `test` is skipped.
    pub fn at(path: &Path, test: &str) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs"])
            .arg(path)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path.to_owned()));
        }
        skip(test, "mounting needs root");
        None
    }

    /// Takes all space but so many pages of 4 KiB.
    pub fn fill(&self, pages: u64) {
        let mut file = fs::File::create(self.filler()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        let taken = file.metadata().unwrap().len();
        file.set_len(taken.saturating_sub(4096 * pages)).unwrap();
    }

    /// Gives the space back.
    pub fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Not busy any more, unless the test has failed already.
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(std::thread::panicking() || unmounted.unwrap().success());
    }
}

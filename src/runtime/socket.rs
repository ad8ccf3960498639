//! How anyone connects to an instance: through its unix socket, and never through what a function put in its place.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::fs::{FileType, Mode, OFlags};
use tokio::net::UnixStream;

/// Name of the socket in its directory, on the host and in the container.
pub const SOCKET: &str = "fn.sock";

/// How often a full backlog is tried again; the waits double from one millisecond, half a second in all.
const BACKLOG_TRIES: u32 = 9;

/// Connects to the socket at `path`.
///
/// A function may write to the directory that holds its socket. So the last component is opened without following it and
/// must be a socket, and that very file is then connected to, whatever is put there meanwhile.
///
/// # Errors
/// `NotFound` and `ConnectionRefused` while nobody listens; `InvalidInput` when something else than a socket is there.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = open(path)?;
    let entry = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let mut wait = Duration::from_millis(1);
    for _ in 0..BACKLOG_TRIES {
        match UnixStream::connect(&entry).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            outcome => return outcome,
        }
    }
    UnixStream::connect(&entry).await
}

/// Opens the socket itself, only to name it.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(not_a_socket(path, "a directory"));
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let parent = rustix::fs::open(parent, flags | OFlags::DIRECTORY, Mode::empty())?;
    let socket = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&socket)?.st_mode) {
        FileType::Socket => Ok(socket),
        FileType::Symlink => Err(not_a_socket(path, "a symbolic link")),
        FileType::Directory => Err(not_a_socket(path, "a directory")),
        FileType::RegularFile => Err(not_a_socket(path, "a file")),
        _ => Err(not_a_socket(path, "a device or pipe")),
    }
}

fn not_a_socket(path: &Path, found: &str) -> io::Error {
    let message = format!(
        "{} must be the unix socket of the instance and is {found}",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;

    async fn refusal(path: &Path) -> String {
        let error = connect(path)
            .await
            .expect_err("only a socket is connected to");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        error.to_string()
    }

    #[tokio::test]
    async fn connects_to_a_socket_and_to_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let engine = dir.path().join("engine.sock");
        let _engine = UnixListener::bind(&engine).unwrap();
        connect(&engine).await.unwrap();

        let link = dir.path().join("link.sock");
        symlink(&engine, &link).unwrap();
        assert!(refusal(&link).await.ends_with("is a symbolic link"));

        let file = dir.path().join("file.sock");
        std::fs::write(&file, "").unwrap();
        assert!(refusal(&file).await.ends_with("is a file"));

        let directory = dir.path().join("dir.sock");
        std::fs::create_dir(&directory).unwrap();
        assert!(refusal(&directory).await.ends_with("is a directory"));
    }

    #[tokio::test]
    async fn a_directory_behind_a_symlink_is_not_entered() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        std::fs::create_dir(&real).unwrap();
        let _listener = UnixListener::bind(real.join(SOCKET)).unwrap();
        symlink(&real, dir.path().join("link")).unwrap();

        let error = connect(&dir.path().join("link").join(SOCKET))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{error}");
    }

    #[tokio::test]
    async fn nobody_listening_is_told_by_the_kind_of_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET);
        let kind = |outcome: io::Result<UnixStream>| outcome.unwrap_err().kind();
        assert_eq!(kind(connect(&path).await), io::ErrorKind::NotFound);

        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(kind(connect(&path).await), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_long_path_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let handle = rustix::fs::open(&deep, OFlags::PATH, Mode::empty()).unwrap();
        let bound = format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd());
        let _listener = UnixListener::bind(bound).unwrap();
        connect(&deep.join(SOCKET)).await.unwrap();
    }
}

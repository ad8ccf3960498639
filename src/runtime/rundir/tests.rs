//! The mount and the directories of sockets, against the real kernel.

use std::os::unix::net::UnixListener;

use bytes::Bytes;

use super::*;

const ID: &str = "faas-sum-0123456789ab";

fn root_user() -> bool {
    rustix::process::geteuid().is_root()
}

fn open(dir: &Path, mounts: bool) -> RunRoot {
    RunRoot::open(&dir.join("run"), mounts).unwrap()
}

fn create(root: &RunRoot, id: &str, secrets: &[SecretFile]) -> io::Result<InstanceDirs> {
    let readers = if root.mounts {
        Readers::Instance
    } else {
        Readers::Mapped
    };
    root.create(id, secrets, readers)
}

fn secret(path: &str) -> SecretFile {
    SecretFile {
        path: path.to_owned(),
        bytes: Bytes::from_static(b"hush"),
    }
}

fn mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.contains(&format!(" {} ", path.display()))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn the_parent_is_ours_alone_and_the_directory_everybodys() {
    let dir = tempfile::tempdir().unwrap();
    let root = open(dir.path(), false);
    let dirs = create(&root, ID, &[]).unwrap();
    assert_eq!(mode(&dir.path().join("run")), 0o700);
    assert_eq!(mode(&dirs.sockets), 0o777);
    assert_eq!(dirs.secrets, None);
    assert_eq!(dirs.sockets.join("fn.sock"), root.socket(ID));
}

#[test]
fn what_is_created_is_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    for mounts in [false, root_user()] {
        let root = open(dir.path(), mounts);
        let dirs = create(&root, ID, &[secret("db/password")]).unwrap();
        let secrets = dirs.secrets.unwrap();
        assert_eq!(mounted(&dirs.sockets), mounts);
        assert_eq!(mounted(&secrets), mounts);
        fs::create_dir(dirs.sockets.join("junk")).unwrap();
        fs::write(dirs.sockets.join("junk/file"), "junk").unwrap();
        assert_eq!(root.leftovers().unwrap(), [ID]);

        root.remove(ID).unwrap();
        root.remove(ID).unwrap();
        assert!(!mounted(&dirs.sockets) && !mounted(&secrets));
        assert!(root.leftovers().unwrap().is_empty());
    }
}

#[test]
fn a_second_creation_is_refused_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = open(dir.path(), false);
    create(&root, ID, &[secret("a/b")]).unwrap();
    let error = create(&root, ID, &[]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(root.leftovers().unwrap(), [ID]);
}

#[test]
fn bytes_and_inodes_are_limited_for_root() {
    if !root_user() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = open(dir.path(), true);
    let sockets = create(&root, ID, &[]).unwrap().sockets;
    let _listener = UnixListener::bind(root.socket(ID)).unwrap();

    let big = fs::write(sockets.join("big"), vec![0; 2 * SOCKET_BYTES]).unwrap_err();
    assert_eq!(big.kind(), io::ErrorKind::StorageFull);
    let many = (0..SOCKET_INODES).find_map(|n| fs::write(sockets.join(n.to_string()), "").err());
    assert_eq!(many.unwrap().kind(), io::ErrorKind::StorageFull);

    // In use, and removed all the same.
    let _open = fs::File::open(sockets.join("big")).unwrap();
    root.remove(ID).unwrap();
    assert!(!mounted(&sockets) && !sockets.exists());
}

#[test]
fn secrets_are_readable_by_the_instance_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = open(dir.path(), false);
    let secrets = create(&root, ID, &[secret("db/password")]).unwrap().secrets;
    let file = secrets.unwrap().join("db/password");
    assert_eq!(mode(&file), 0o444);
    assert_eq!(fs::read(&file).unwrap(), b"hush");
    root.remove(ID).unwrap();

    if root_user() {
        let root = open(dir.path(), true);
        let secrets = create(&root, ID, &[secret("db/password")]).unwrap().secrets;
        let file = secrets.unwrap().join("db/password");
        assert_eq!(mode(&file), 0o400);
        assert_eq!(fs::metadata(&file).unwrap().uid(), INSTANCE_UID);
        root.remove(ID).unwrap();
    }
}

#[test]
fn secrets_of_many_sizes_fit() {
    if !root_user() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = open(dir.path(), true);
    let sized = |n: usize| SecretFile {
        path: format!("name{n}/key"),
        bytes: vec![7; n * 1000].into(),
    };
    create(&root, ID, &(0..100).map(sized).collect::<Vec<_>>()).unwrap();
    root.remove(ID).unwrap();
}

#[test]
fn a_secret_elsewhere_is_refused_and_nothing_stays() {
    let dir = tempfile::tempdir().unwrap();
    let root = open(dir.path(), false);
    for path in [
        "../x",
        "x",
        "a/../b",
        "/etc/passwd",
        "a/b/c",
        "a//b",
        "./a",
        "a/",
        "a/.",
    ] {
        let error = create(&root, ID, &[secret("ok/ok"), secret(path)]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
        assert!(!error.to_string().contains("hush"));
        assert!(root.leftovers().unwrap().is_empty(), "{path}");
    }
}

#[test]
fn ids_cannot_leave_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let root = open(dir.path(), false);
    for id in ["", "..", "a/b", "a.secrets", "/tmp"] {
        assert!(create(&root, id, &[]).is_err(), "{id}");
        assert!(root.remove(id).is_err(), "{id}");
    }
}

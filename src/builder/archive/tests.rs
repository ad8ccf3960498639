//! Directories and uploads: what is taken, what is refused, and that order and time do not count.

use std::{fs, os::unix::fs::symlink};

use proptest::prelude::*;

use super::*;

fn limits() -> Limits {
    Limits::default()
}

fn tar_of(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        // Written by hand: the library's own setter refuses what must be refused here.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.as_gnu_mut().unwrap().set_real_size(0);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn file(path: &str) -> (&str, tar::EntryType, &[u8]) {
    (path, tar::EntryType::Regular, b"x")
}

fn inline(files: &[(&str, u32, &'static str)]) -> Result<Context, ArchiveError> {
    Context::from_files(
        files
            .iter()
            .map(|(path, mode, text)| (*path, *mode, Bytes::from_static(text.as_bytes()))),
        &limits(),
    )
}

#[test]
fn bad_entries_are_refused_by_name() {
    use tar::EntryType as Kind;
    let long = "n".repeat(90);
    let deep = vec!["d"; 40].join("/");
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"hello".repeat(300), "no tar archive"),
        (vec![0x1f, 0x8b, 8, 0], "gunzip"),
        (vec![], "no file in it"),
        (vec![0; 1024], "no file in it"),
        (tar_of(&[file("../up")]), "\"../up\" lies outside"),
        (tar_of(&[file("a/../../up")]), "outside"),
        (
            tar_of(&[file("/etc/passwd")]),
            "\"/etc/passwd\" lies outside",
        ),
        (tar_of(&[file(&deep)]), "deeper than 32"),
        (tar_of(&[file("a\nb")]), "\"a\\nb\" has a control character"),
        (
            tar_of(&[("a\tb/", Kind::Directory, b"")]),
            "\"a\\tb/\" has a control character",
        ),
        (tar_of(&[file("a"), file("./a")]), "\"a\" is there twice"),
        (tar_of(&[file("a"), file("a/b")]), "file and a directory"),
        (tar_of(&[file("a/b"), file("a")]), "file and a directory"),
        (
            tar_of(&[file("a"), ("a", Kind::Directory, b"")]),
            "file and a directory",
        ),
        (tar_of(&[("l", Kind::Link, b"")]), "\"l\" is a hard link"),
        (tar_of(&[("l", Kind::Symlink, b"")]), "symbolic link"),
        (tar_of(&[("c", Kind::Char, b"")]), "device"),
        (tar_of(&[("b", Kind::Block, b"")]), "device"),
        (tar_of(&[("f", Kind::Fifo, b"")]), "fifo"),
        (tar_of(&[(&long, Kind::new(b'Z'), b"")]), "unknown kind"),
    ];
    for (tar, expected) in cases {
        let error = Context::from_tar(&tar, &limits()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}

#[test]
fn names_that_are_not_text_are_refused() {
    for (name, expected) in [
        (&b"\xff\xfe"[..], "not UTF-8"),
        (b"a\0b", "\"a\\0b\" has a control"),
        (b"a\nb/c", "cannot be read, as with a line break"),
        (b"\x1b[2J", "\"\\u{1b}[2J\" has a control"),
        (b"a\x7f", "control"),
    ] {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("path", name)]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_path("short").unwrap();
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
        let error = Context::from_tar(&builder.into_inner().unwrap(), &limits()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn sparse_files_are_refused_in_both_dialects() {
    let old = tar_of(&[("s", tar::EntryType::GNUSparse, b"")]);
    let mut builder = tar::Builder::new(Vec::new());
    builder
        .append_pax_extensions([("GNU.sparse.major", &b"1"[..])])
        .unwrap();
    let mut pax = builder.into_inner().unwrap();
    pax.truncate(1024);
    pax.extend(tar_of(&[file("s")]));
    for tar in [old, pax] {
        let error = Context::from_tar(&tar, &limits()).unwrap_err().to_string();
        assert!(error.contains("sparse"), "{error}");
    }
}

#[test]
fn limits_count_entries_bytes_and_names() {
    let small = Limits {
        entries: 2,
        unpacked: 2,
    };
    let entries = |names: &[&str]| tar_of(&names.iter().map(|n| file(n)).collect::<Vec<_>>());
    assert!(Context::from_tar(&entries(&["a", "b"]), &small).is_ok());
    let many = Context::from_tar(
        &tar_of(&[
            file("a"),
            ("d", tar::EntryType::Directory, b""),
            ("e", tar::EntryType::Directory, b""),
        ]),
        &small,
    );
    assert_eq!(many, Err(ArchiveError::TooMany { limit: 2 }));
    let large = Context::from_tar(&entries(&["a", "b", "c"]), &small);
    assert_eq!(
        large,
        Err(ArchiveError::TooLarge {
            entry: "c".into(),
            limit: 2
        })
    );
    let deep = Context::from_tar(&entries(&["a/b/c"]), &small);
    assert_eq!(
        deep,
        Err(ArchiveError::TooMany { limit: 2 }),
        "what is only implied counts too"
    );
    let long = inline(&[(&"n".repeat(256), 0o644, "")]).unwrap_err();
    assert!(matches!(long, ArchiveError::LongName(_)));
}

#[test]
fn an_entry_that_claims_to_be_huge_is_refused_before_it_is_read() {
    let mut tar = tar_of(&[file("a")]);
    let mut header = tar::Header::from_byte_slice(&tar[..512]).clone();
    header.set_size(1 << 40);
    header.set_cksum();
    tar[..512].copy_from_slice(header.as_bytes());
    let error = Context::from_tar(&tar, &limits()).unwrap_err();
    assert!(matches!(error, ArchiveError::TooLarge { .. }), "{error}");
}

#[test]
fn a_missing_end_is_fine_and_a_missing_middle_is_not() {
    let tar = tar_of(&[file("a"), file("b")]);
    let whole = Context::from_tar(&tar, &limits()).unwrap();
    // Each entry is a block of header and a block of content of one byte.
    for length in [2048, 1537] {
        assert_eq!(
            Context::from_tar(&tar[..length], &limits()).unwrap(),
            whole,
            "{length}"
        );
    }
    for length in [1536, 1300, 1030] {
        let error = Context::from_tar(&tar[..length], &limits()).unwrap_err();
        assert!(
            matches!(error, ArchiveError::Cut { .. }),
            "{length}: {error}"
        );
    }
    assert!(Context::from_tar(&tar[..300], &limits()).is_err());
}

#[test]
fn directories_of_every_dialect_are_only_names() {
    use tar::EntryType as Kind;
    let plain = Context::from_tar(&tar_of(&[file("d/a")]), &limits()).unwrap();
    for directory in [
        ("d/", Kind::Directory, &b""[..]),
        ("./d/", Kind::Regular, b""),
        ("./", Kind::Directory, b""),
    ] {
        let tar = tar_of(&[directory, file("./d//a"), ("empty", Kind::Directory, b"")]);
        assert_eq!(Context::from_tar(&tar, &limits()).unwrap(), plain);
    }
}

#[test]
fn long_names_survive_in_all_dialects() {
    let path = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let context = inline(&[(&path, 0o755, "text")]).unwrap();
    let again = Context::from_tar(context.tar(), &limits()).unwrap();
    assert_eq!(again, context);
    let mut builder = tar::Builder::new(Vec::new());
    builder
        .append_pax_extensions([("path", path.as_bytes())])
        .unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("short").unwrap();
    header.set_size(4);
    header.set_mode(0o700);
    header.set_cksum();
    builder.append(&header, &b"text"[..]).unwrap();
    let pax = Context::from_tar(&builder.into_inner().unwrap(), &limits()).unwrap();
    assert_eq!(pax, context);
}

#[test]
fn a_directory_gives_what_its_files_give() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("sum");
    fs::create_dir_all(dir.join("lib")).unwrap();
    fs::create_dir_all(dir.join("node_modules/x")).unwrap();
    fs::create_dir_all(dir.join(".git")).unwrap();
    fs::write(dir.join("index.js"), "code").unwrap();
    fs::write(dir.join("node_modules/x/big.js"), "no").unwrap();
    fs::write(dir.join(".git/HEAD"), "no").unwrap();
    for dropping in [
        ".index.js.swp",
        ".index.js.swo",
        ".swp",
        "index.js~",
        "#index.js#",
        "4913",
        "._index.js",
        ".goutputstream-ABC",
        ".DS_Store",
        ".index.js.kate-swp",
        "..data",
    ] {
        fs::write(dir.join("lib").join(dropping), "no").unwrap();
    }
    symlink("user@host.123:456", dir.join(".#index.js")).unwrap();
    for code in [".swift.js", "lib/.env", "lib/#1.js"] {
        fs::write(dir.join(code), "code").unwrap();
    }
    fs::write(root.path().join("shared.js"), "shared").unwrap();
    symlink("../../shared.js", dir.join("lib/shared.js")).unwrap();
    let context = Context::from_directory(root.path(), &dir, &limits()).unwrap();
    let same = inline(&[
        ("lib/shared.js", 0o644, "shared"),
        ("index.js", 0o644, "code"),
        (".swift.js", 0o644, "code"),
        ("lib/.env", 0o644, "code"),
        ("lib/#1.js", 0o644, "code"),
    ]);
    assert_eq!(context, same.unwrap());
    assert_eq!(context.file("index.js"), Some(&b"code"[..]));
}

#[test]
fn links_out_circles_and_special_files_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let refuse = |make: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir_in(root.path()).unwrap();
        make(dir.path());
        Context::from_directory(root.path(), dir.path(), &limits())
            .unwrap_err()
            .to_string()
    };
    let out = refuse(&|dir| symlink("/etc/hostname", dir.join("l")).unwrap());
    assert!(out.contains("outside of"), "{out}");
    let circle = refuse(&|dir| symlink(".", dir.join("l")).unwrap());
    assert!(circle.contains("deeper than"), "{circle}");
    let socket = refuse(&|dir| {
        std::os::unix::net::UnixListener::bind(dir.join("s")).unwrap();
    });
    assert!(socket.contains("is a socket"), "{socket}");
    let dangling = refuse(&|dir| symlink("nowhere", dir.join("l")).unwrap());
    assert!(dangling.contains("cannot read"), "{dangling}");
}

fn some_files() -> impl Strategy<Value = BTreeMap<String, (bool, Vec<u8>)>> {
    let file = (any::<bool>(), prop::collection::vec(any::<u8>(), 0..600));
    // Directories and files never share a name.
    prop::collection::btree_map("(d[a-c]/){0,3}f[a-z]{1,120}", file, 1..8)
}

proptest! {
    #[test]
    fn same_content_same_digest_whatever_way_it_came(files in some_files(), seed in any::<u64>()) {
        let mut order: Vec<_> = files.iter().collect();
        order.sort_by_key(|(path, _)| sha256(format!("{seed}{path}").as_bytes()));
        let listed = Context::from_files(
            order.iter().map(|(path, (exec, content))| {
                (*path, if *exec { 0o711 } else { 0o600 }, Bytes::copy_from_slice(content))
            }),
            &limits(),
        ).unwrap();

        let mut builder = tar::Builder::new(Vec::new());
        for (path, (exec, content)) in &order {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(if *exec { 0o775 } else { 0o666 });
            header.set_mtime(seed & 0xffff_ffff);
            header.set_uid(1000);
            builder.append_data(&mut header, format!("./{path}"), content.as_slice()).unwrap();
        }
        let walked = Context::from_tar(&builder.into_inner().unwrap(), &limits()).unwrap();

        let dir = tempfile::tempdir().unwrap();
        for (path, (exec, content)) in &files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            let mode = if *exec { 0o755 } else { 0o640 };
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
        let read = Context::from_directory(dir.path(), dir.path(), &limits()).unwrap();

        prop_assert_eq!(&listed, &walked);
        prop_assert_eq!(&listed, &read);
        prop_assert_eq!(&Context::from_tar(listed.tar(), &limits()).unwrap(), &listed);
        for (path, (exec, content)) in &files {
            prop_assert_eq!(listed.file(path), Some(content.as_slice()));
            prop_assert_eq!(listed.files()[path].executable, *exec);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_taken_but_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let _ = Context::from_tar(&bytes, &limits());
    }
}

#[test]
fn what_is_ignored_decides_nothing() {
    let ignore = (".dockerignore", 0o644, "*\n!src\n");
    let files = [
        ("Dockerfile", 0o644, "FROM x"),
        ("src/run", 0o755, "1"),
        ignore,
    ];
    let wanted = inline(&files).unwrap();
    let noise = [("notes.md", 0o644, "2"), ("src2/x", 0o644, "3")];
    let all = inline(&[&files[..], &noise].concat()).unwrap();
    assert_ne!(all.digest(), wanted.digest());
    assert_eq!(all.clone().without_ignored(), Ok(wanted.clone()));
    assert_eq!(wanted.clone().without_ignored(), Ok(wanted));
    let plain = inline(&noise).unwrap();
    assert_eq!(plain.clone().without_ignored(), Ok(plain));

    let named = ("Dockerfile.dockerignore", 0o644, "src");
    let context = inline(&[&files[..], &[named]].concat()).unwrap();
    let names: Vec<_> = context
        .without_ignored()
        .unwrap()
        .files()
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        names,
        [".dockerignore", "Dockerfile", "Dockerfile.dockerignore"]
    );

    let bad = inline(&[("Dockerfile", 0o644, ""), (".dockerignore", 0o644, "[")]).unwrap();
    let error = bad.without_ignored().unwrap_err().to_string();
    assert!(error.starts_with(".dockerignore: line 1"), "{error}");
}

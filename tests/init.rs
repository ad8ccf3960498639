//! The init that the build embeds: static, small, and runnable where there is nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const INIT: &[u8] = include_bytes!(env!("FAAS_INIT_PATH"));

#[test]
fn is_small_and_names_no_loader() {
    assert!(INIT.starts_with(b"\x7fELF"));
    assert!(INIT.len() < 2 * 1024 * 1024, "{} bytes", INIT.len());
    let loaders: [&[u8]; 2] = [b"/ld-linux", b"/ld-musl"];
    let names_a_segment_of_one = |loader: &[u8]| {
        let head = &INIT[..4096.min(INIT.len())];
        head.windows(loader.len()).any(|part| part == loader)
    };
    assert!(!loaders.into_iter().any(names_a_segment_of_one));
}

#[test]
fn runs_without_anything_around_it() {
    let root = tempfile::tempdir().unwrap();
    let init = root.path().join("init");
    fs::write(&init, INIT).unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o555)).unwrap();
    // Its program is itself once more, which complains that it was given none.
    let output = Command::new(&init).arg(&init).env_clear().output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        error.starts_with("faas-init: no program was given"),
        "{error}"
    );
}

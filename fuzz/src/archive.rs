//! An uploaded archive: base64 → tar → normalised context.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use faas::{
    api::upload,
    builder::archive::{ArchiveError, Context, Limits},
};
use tar::{Archive, EntryType};

use super::assert_message;

/// Small, so that small inputs reach them.
const LIMITS: Limits = Limits {
    entries: 24,
    unpacked: 4096,
};
/// Most that an entry adds to the normalised archive beside its content: its header, a long name's, the name and padding.
const OVERHEAD: usize = 4 * 1024;

/// The bytes are a tar archive.
pub fn check(bytes: &[u8]) {
    let limited = Context::from_tar(bytes, &LIMITS);
    match &limited {
        Ok(context) => check_context(context),
        Err(error) => check_error(error),
    }
    // The whole way of an upload, with the limits that it has.
    let uploaded = upload::unpack(&BASE64_STANDARD.encode(bytes));
    let walked = Context::from_tar(bytes, &Limits::default());
    assert_eq!(uploaded.is_ok(), walked.is_ok());
    if let (Ok(uploaded), Ok(walked)) = (uploaded, walked) {
        assert_eq!(uploaded, walked);
        if let Ok(limited) = limited {
            assert_eq!(limited, walked, "limits do not change what they admit");
        }
    }
}

fn check_error(error: &ArchiveError) {
    assert_message(&error.to_string(), 4 * 1024);
}

fn check_context(context: &Context) {
    assert!(!context.files().is_empty());
    assert!(context.unpacked() as u64 <= LIMITS.unpacked);
    let room = LIMITS.entries * OVERHEAD + context.unpacked() + 1024;
    assert!(context.tar().len() <= room, "{} bytes", context.tar().len());
    for (name, file) in context.files() {
        check_name(name);
        assert_eq!(context.file(name), Some(&*file.content));
    }
    check_tar(context);
    assert_eq!(
        Context::from_tar(context.tar(), &LIMITS).as_ref(),
        Ok(context),
        "normalising again changes nothing"
    );
    let files = context
        .files()
        .iter()
        .map(|(name, file)| (name, file.mode(), Bytes::copy_from_slice(&file.content)));
    assert_eq!(
        Context::from_files(files, &LIMITS).as_ref(),
        Ok(context),
        "the way does not matter"
    );
    check_ignored(context);
}

fn check_ignored(context: &Context) {
    match context.clone().without_ignored() {
        Ok(less) => {
            let kept = |(name, file)| context.files().get(name) == Some(file);
            assert!(less.files().iter().all(kept), "nothing is made up");
            assert_eq!(less.clone().without_ignored(), Ok(less));
        }
        Err(error) => check_error(&error),
    }
}

fn check_name(name: &str) {
    assert!(!name.is_empty() && !name.starts_with('/') && !name.ends_with('/'));
    for part in name.split('/') {
        assert!(!matches!(part, "" | "." | ".."), "{name:?}");
    }
    assert!(!name.contains(|c: char| c.is_ascii_control()), "{name:?}");
    assert!(name.len() <= 1024);
}

/// What the engine will read, as another reader of archives sees it.
fn check_tar(context: &Context) {
    let mut files = Vec::new();
    let mut entries = 0;
    let mut archive = Archive::new(&context.tar()[..]);
    for entry in archive.entries().expect("an archive") {
        let entry = entry.expect("a whole entry");
        let header = entry.header();
        entries += 1;
        let name = String::from_utf8(entry.path_bytes().into_owned()).expect("a name in UTF-8");
        let owner = (header.uid().ok(), header.gid().ok(), header.mtime().ok());
        assert_eq!(owner, (Some(0), Some(0), Some(0)));
        assert_eq!(header.link_name_bytes(), None);
        match header.entry_type() {
            EntryType::Directory => {
                assert_eq!(header.mode().ok(), Some(0o755));
                check_name(name.strip_suffix('/').expect("a directory's name"));
            }
            EntryType::Regular => {
                let file = &context.files()[&name];
                assert_eq!(header.mode().ok(), Some(file.mode()));
                assert_eq!(entry.size(), file.content.len() as u64);
                files.push(name);
            }
            other => panic!("{name:?} is a {other:?}"),
        }
    }
    assert!(entries <= LIMITS.entries, "{entries} entries");
    assert!(files.iter().eq(context.files().keys()));
}

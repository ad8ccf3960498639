//! What callers upload.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tar::{Builder, Header};

/// The body of an upload.
pub fn upload(name: &str, tar: &[u8]) -> Value {
    json!({"name": name, "file": encoded(tar)})
}

pub fn encoded(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// An archive of these files.
pub fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let bytes = |(path, text): &(_, &str)| (*path, text.as_bytes().to_vec());
    tar_of_bytes(&files.iter().map(bytes).collect::<Vec<_>>())
}

/// The same of files that are no text.
pub fn tar_of_bytes(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, bytes.as_slice())
            .unwrap();
    }
    tar.into_inner().unwrap()
}

//! The layers that are put upon a base image: the init, which is the same for all functions, and code with its shim. Equal
//! files give equal bytes. (pure)

use std::{collections::BTreeMap, io::Write};

use bytes::Bytes;
use flate2::{Compression, GzBuilder};

use super::manifest::Layer;
use crate::builder::archive::{File, sha256, write_tar};

/// Where instances find the init: a runtime that cannot mount it takes it from the image.
const INIT: &str = ".faas/init";

/// Packs the init.
pub(super) fn of_init(init: &'static [u8]) -> Layer {
    let init = File {
        executable: true,
        content: Bytes::from_static(init),
    };
    of_files(&BTreeMap::from([(INIT.to_owned(), init)]))
}

/// Packs files, by their paths from the top of the image.
pub(super) fn of_files(files: &BTreeMap<String, File>) -> Layer {
    let (tar, _) = write_tar(files);
    // Without a name or a time in its head.
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::default());
    gzip.write_all(&tar)
        .expect("writing to memory does not fail");
    let bytes = gzip.finish().expect("writing to memory does not fail");
    Layer {
        bytes: bytes.into(),
        diff_id: format!("sha256:{}", sha256(&tar)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_files_give_equal_bytes() {
        let file = |text: &'static str| File {
            executable: false,
            content: Bytes::from_static(text.as_bytes()),
        };
        let make = |text| of_files(&BTreeMap::from([("function/a".into(), file(text))]));
        let (one, same, other) = (make("1"), make("1"), make("2"));
        assert_eq!((&one.bytes, &one.diff_id), (&same.bytes, &same.diff_id));
        assert_ne!(one.diff_id, other.diff_id);
    }
}

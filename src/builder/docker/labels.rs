//! The labels of what we build, and what they say of an image (pure).

use std::collections::HashMap;

use crate::builder::recipe::image_prefix;

/// Label with the owner of an image.
pub const OWNER_LABEL: &str = "faas.dev/owner";
/// Label with the name that an image was built under.
pub const IMAGE_LABEL: &str = "faas.dev/image";

/// Whether the image that is found under this name is the one that was built under it. Anybody can give a name of ours to
/// another image, but a label is part of what was built. A name that is not ours is its user's, and stands for any image.
#[must_use]
pub(crate) fn is_of_its_name(owner: &str, name: &str, labels: &HashMap<String, String>) -> bool {
    let says = |label: &str, value: &str| labels.get(label).is_some_and(|said| said == value);
    !name.starts_with(&image_prefix(owner)) || says(OWNER_LABEL, owner) && says(IMAGE_LABEL, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_ours_stands_for_what_was_built_under_it() {
        let one = "faas.local/me:1";
        for (name, labels, is_so) in [
            (one, &[(OWNER_LABEL, "me"), (IMAGE_LABEL, one)][..], true),
            (
                one,
                &[(OWNER_LABEL, "me"), (IMAGE_LABEL, "faas.local/me:2")],
                false,
            ),
            (one, &[(OWNER_LABEL, "you"), (IMAGE_LABEL, one)], false),
            (one, &[(OWNER_LABEL, "me")], false),
            (one, &[], false),
            ("faas.local/you:1", &[], true),
            ("busybox:1", &[], true),
        ] {
            let labels = labels.iter();
            let labels = labels.map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
            let labels = labels.collect();
            assert_eq!(
                is_of_its_name("me", name, &labels),
                is_so,
                "{name} {labels:?}"
            );
        }
    }
}

//! Which files are manifests, and what a tree that is too large is taken for.

use crate::builder::{archive::Limits, sources::Sources};

use super::*;

const MANIFEST: &str = "apiVersion: faas.dev/v1alpha1\nkind: Function\nmetadata: {name: NAME}\n\
                        spec: {language: node, source: {directory: .}}\n";

fn scanner(root: &Path, state: &Path) -> Scanner {
    let sources = SourceCache::new(Sources::open(state).unwrap(), Limits::default());
    Scanner::new(vec![root.to_owned()], sources)
}

#[test]
fn only_yaml_that_was_meant_to_be_one_is_a_manifest() {
    for (name, expected) in [
        ("a.yaml", true),
        ("a.yml", true),
        ("a.b.yaml", true),
        ("a.json", false),
        (".a.yaml", false),
        (".a.yaml.swp", false),
        ("a.yaml~", false),
        ("#a.yaml#", false),
        (".#a.yaml", false),
        ("#a.yaml", false),
        ("4913", false),
        ("yaml", false),
        (".yaml", false),
    ] {
        assert_eq!(is_manifest(name), expected, "{name}");
    }
}

#[test]
fn a_manifest_in_anothers_code_is_code() {
    let code = |directory: &str| Code {
        directory: directory.into(),
        beside: "root".into(),
    };
    assert!(lies_in(Path::new("root/sum/fn.yaml"), &code("root/sum")));
    assert!(!lies_in(
        Path::new("root/summary/fn.yaml"),
        &code("root/sum")
    ));
    assert!(
        !lies_in(Path::new("root/b.yaml"), &code("root")),
        "directory: ."
    );
    assert!(
        lies_in(Path::new("root/deeper/b.yaml"), &code("root")),
        "directory: ."
    );
}

/// Manifests before and after many files, the first of which calls all of the root its code.
#[test]
fn nothing_of_a_tree_that_is_too_large_is_known() {
    let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["a", "z"] {
        let file = root.path().join(name).with_extension("yaml");
        fs::write(file, MANIFEST.replace("NAME", name)).unwrap();
    }
    fs::create_dir(root.path().join("many")).unwrap();
    for number in 0..7 {
        fs::write(root.path().join(format!("many/{number}")), "").unwrap();
    }
    let mut scanner = scanner(root.path(), state.path());
    // All there is: two manifests, a directory and seven files.
    for (most, is_known) in [(10, true), (9, false), (5, false), (1, false)] {
        scanner.most = most;
        let scan = scanner.scan(&[], &Sight::default());
        let names: Vec<_> = scan.definitions.iter().map(|d| d.key.name()).collect();
        assert_eq!(names.len() == 2, is_known, "{most}: {names:?}");
        assert_eq!(scan.unknown.contains(root.path()), !is_known, "{most}");
        let is_told = scan
            .problems
            .iter()
            .any(|p| p.message.contains("more than"));
        assert_eq!(is_told, !is_known, "{most}: {:?}", scan.problems);
    }
}

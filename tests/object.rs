//! The object as users meet it: the CRD, and a corpus of manifests with their verdicts.

use faas::function::crd;

/// `UPDATE=1 cargo test --test object` writes the file anew.
#[test]
fn the_committed_crd_is_the_generated_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/function.yaml");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, crd::crd_yaml()).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(
        committed == crd::crd_yaml(),
        "crds/function.yaml is stale: run `faas crd > crds/function.yaml`"
    );
}

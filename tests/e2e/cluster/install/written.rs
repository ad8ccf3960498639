//! What people write to install faas in their cluster: kustomizations over the manifests of this project.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

/// Where it is installed.
pub struct Place {
    /// The test's own.
    pub namespace: String,
    /// The registry as nodes know it, and as pods do.
    pub nodes_registry: String,
    pub registry: String,
}

/// What people write to install it in their cluster: which image, which registry, which namespace.
pub fn halves(place: &Place) -> tempfile::TempDir {
    let resources = ["../crds", "system", "halves"];
    in_halves(place, &resources, vec![place.image()], vec![])
}

/// The same of these resources and images, with more that is changed in the controller's Deployment.
pub fn in_halves(
    place: &Place,
    resources: &[&str],
    images: Vec<Value>,
    more: Vec<Value>,
) -> tempfile::TempDir {
    let Place {
        namespace,
        nodes_registry,
        registry,
    } = place;
    let arguments = [
        format!("--namespaces={namespace}"),
        format!("--registry={registry}/{namespace}"),
        format!("--registry-pull={nodes_registry}/{namespace}"),
        "--registry-plain-http".to_owned(),
        format!("--base-image=node={registry}/install/node:22"),
    ];
    let path = "/spec/template/spec/containers/0/args";
    let mut patch = vec![
        json!({"op": "test", "path": format!("{path}/1"), "value": "--namespaces=default"}),
        json!({"op": "remove", "path": format!("{path}/1")}),
    ];
    let adds = arguments.iter();
    patch.extend(
        adds.map(|argument| json!({"op": "add", "path": format!("{path}/-"), "value": argument})),
    );
    patch.extend(more);
    let dir = tempfile::tempdir().unwrap();
    let ours = ours(&dir.path().join("serving"));
    kustomize(
        &dir.path().join("serving"),
        &json!({"namespace": namespace, "resources": [ours.join("serving")]}),
    );
    let theirs = resources.iter().map(|resource| ours.join(resource));
    let resources: Vec<PathBuf> = theirs.chain(["../serving".into()]).collect();
    kustomize(
        &dir.path().join("overlay"),
        &json!({
            "resources": resources,
            "images": images,
            "patches": [{
                "target": {"kind": "Deployment", "name": "faas-controller"},
                "patch": Value::from(patch).to_string(),
            }],
        }),
    );
    dir
}

impl Place {
    /// The image of faas, for kustomizations.
    pub fn image(&self) -> Value {
        json!({
            "name": "faas.local/faas",
            "newName": format!("{}/install/faas", self.nodes_registry),
            "newTag": "test",
        })
    }
}

pub fn kustomize(dir: &Path, kustomization: &Value) {
    fs::create_dir(dir).unwrap();
    let file = dir.join("kustomization.yaml");
    fs::write(file, kustomization.to_string()).unwrap();
}

/// The way from there to the manifests of this project.
pub fn ours(from: &Path) -> PathBuf {
    relative(
        from,
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests"),
    )
}

/// The way from one directory to another: no other is taken.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let up = from.components().skip(1).map(|_| "..");
    up.chain(
        to.components()
            .skip(1)
            .map(|c| c.as_os_str().to_str().unwrap()),
    )
    .collect()
}

//! The documents of a registry: which image of an index is meant, an image with one more layer, an artifact of ours. (pure)

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::builder::archive::sha256;

/// What we understand, for `Accept`.
pub(super) const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What artifacts have in place of a configuration.
pub(super) const EMPTY: &[u8] = b"{}";
const EMPTY_KIND: &str = "application/vnd.oci.empty.v1+json";

/// Why an image is of no use.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum DocumentError {
    #[error("its manifest is none of an image that has layers")]
    Manifest,
    #[error("its configuration cannot be read")]
    Config,
    #[error("there is none for {0}")]
    Platform(String),
}

/// A manifest as it lies in a registry.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub digest: String,
    pub kind: String,
    pub bytes: Bytes,
}

/// What a manifest says of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub kind: String,
    pub digest: String,
    pub size: u64,
}

impl Descriptor {
    pub(super) fn of(kind: &str, bytes: &[u8]) -> Self {
        Self {
            kind: kind.to_owned(),
            digest: format!("sha256:{}", sha256(bytes)),
            size: bytes.len() as u64,
        }
    }

    fn read(value: &Value) -> Option<Self> {
        let digest = value["digest"].as_str()?;
        super::reference::is_digest(digest).then(|| {
            Some(Self {
                kind: value["mediaType"].as_str()?.to_owned(),
                digest: digest.to_owned(),
                size: value["size"].as_u64()?,
            })
        })?
    }

    fn write(&self) -> Value {
        json!({"mediaType": self.kind, "digest": self.digest, "size": self.size})
    }
}

/// A layer and the digest of what it holds.
#[derive(Clone)]
pub(super) struct Layer {
    /// Compressed.
    pub bytes: Bytes,
    pub diff_id: String,
}

/// What is put upon a base, and what the image says beside it.
pub(super) struct Addition {
    pub layers: Vec<Layer>,
    /// Working directory and command, if they are not the base's.
    pub program: Option<(&'static str, Vec<&'static str>)>,
    pub labels: [(&'static str, String); 2],
}

/// An image as its documents tell it.
#[derive(Clone, Debug)]
pub(super) struct ImageDocuments {
    manifest: Value,
    config: Value,
    kind: String,
}

/// The digest of the manifest that is meant for this platform; nothing when this is no index.
pub(super) fn choose(
    manifest: &Manifest,
    architecture: &str,
) -> Result<Option<String>, DocumentError> {
    let index: Value =
        serde_json::from_slice(&manifest.bytes).map_err(|_| DocumentError::Manifest)?;
    let Some(entries) = index["manifests"].as_array() else {
        return Ok(None);
    };
    let fits = |entry: &&Value| {
        let platform = &entry["platform"];
        platform["os"] == "linux" && platform["architecture"] == architecture
    };
    let chosen = entries.iter().find(fits).and_then(Descriptor::read);
    chosen
        .map(|descriptor| Some(descriptor.digest))
        .ok_or_else(|| DocumentError::Platform(format!("linux/{architecture}")))
}

/// The configuration and the layers that a manifest names.
pub(super) fn blobs(manifest: &Manifest) -> Result<(Descriptor, Vec<Descriptor>), DocumentError> {
    let read = || {
        let manifest: Value = serde_json::from_slice(&manifest.bytes).ok()?;
        let layers = manifest["layers"].as_array()?.iter().map(Descriptor::read);
        Some((
            Descriptor::read(&manifest["config"])?,
            layers.collect::<Option<_>>()?,
        ))
    };
    read().ok_or(DocumentError::Manifest)
}

impl ImageDocuments {
    pub(super) fn read(manifest: &Manifest, config: &[u8]) -> Result<Self, DocumentError> {
        let config: Value = serde_json::from_slice(config).map_err(|_| DocumentError::Config)?;
        let settings = &config["config"];
        let plain = config["rootfs"]["diff_ids"].is_array()
            && (settings.is_null() || settings.is_object())
            && (settings["Labels"].is_null() || settings["Labels"].is_object())
            && (settings["Env"].is_null() || settings["Env"].is_array());
        if !plain {
            return Err(DocumentError::Config);
        }
        let document: Value =
            serde_json::from_slice(&manifest.bytes).map_err(|_| DocumentError::Manifest)?;
        if !document["layers"].is_array() {
            return Err(DocumentError::Manifest);
        }
        let told = document["mediaType"].as_str().unwrap_or(&manifest.kind);
        Ok(Self {
            kind: if told == DOCKER_MANIFEST {
                DOCKER_MANIFEST
            } else {
                OCI_MANIFEST
            }
            .to_owned(),
            manifest: document,
            config,
        })
    }

    /// Names of the labels.
    pub(super) fn labels(&self) -> impl Iterator<Item = &str> {
        let labels = self.config["config"]["Labels"].as_object();
        labels
            .into_iter()
            .flat_map(|labels| labels.keys().map(String::as_str))
    }

    /// Whether it orders things to be done by what is built on it (ONBUILD), so that layers alone will not do.
    pub(super) fn gives_orders(&self) -> bool {
        let orders = self.config["config"]["OnBuild"].as_array();
        orders.is_some_and(|orders| !orders.is_empty())
    }

    /// The manifest of this image with layers more, and the blobs that are new: the layers, and at last the configuration.
    pub(super) fn with(mut self, addition: Addition) -> (Manifest, Vec<(Descriptor, Bytes)>) {
        let docker = self.kind == DOCKER_MANIFEST;
        let (config_kind, layer_kind) = if docker {
            (DOCKER_CONFIG, DOCKER_LAYER)
        } else {
            (OCI_CONFIG, OCI_LAYER)
        };
        let settings = &mut self.config["config"];
        if settings.is_null() {
            *settings = json!({});
        }
        if let Some((directory, command)) = &addition.program {
            settings["WorkingDir"] = json!(directory);
            // Engines add one to what they build, and those that run it may not.
            let names_path = |word: &Value| word.as_str().is_some_and(|w| w.starts_with("PATH="));
            if settings["Env"].is_null() {
                settings["Env"] = json!([]);
            }
            if !settings["Env"]
                .as_array()
                .is_some_and(|env| env.iter().any(names_path))
            {
                push(&mut settings["Env"], json!(PATH));
            }
            settings["Cmd"] = json!(command);
        }
        if settings["Labels"].is_null() {
            settings["Labels"] = json!({});
        }
        for (name, value) in &addition.labels {
            settings["Labels"][*name] = json!(value);
        }
        let mut blobs = Vec::new();
        for layer in addition.layers {
            let descriptor = Descriptor::of(layer_kind, &layer.bytes);
            push(&mut self.manifest["layers"], descriptor.write());
            push(&mut self.config["rootfs"]["diff_ids"], json!(layer.diff_id));
            // One entry a layer, or engines find the image inconsistent; of no time, so that equal content has one digest. An
            // image may also tell no history at all.
            let entry = json!({"created": "1970-01-01T00:00:00Z", "created_by": "faas"});
            push(&mut self.config["history"], entry);
            blobs.push((descriptor, layer.bytes));
        }
        let config = Bytes::from(self.config.to_string());
        let config_is = Descriptor::of(config_kind, &config);
        self.manifest["config"] = config_is.write();
        self.manifest["mediaType"] = json!(self.kind);
        blobs.push((config_is, config));
        (seal(&self.manifest, &self.kind), blobs)
    }
}

/// A manifest of a kind of our own, which says what it has to say in annotations, and may hold one blob.
pub(super) fn artifact(
    kind: &str,
    blob: &Descriptor,
    annotations: &BTreeMap<&str, String>,
) -> Manifest {
    let document = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": empty().write(),
        "layers": [blob.write()],
        "annotations": annotations,
    });
    seal(&document, OCI_MANIFEST)
}

/// The blob of an artifact that has none.
pub(super) fn empty() -> Descriptor {
    Descriptor::of(EMPTY_KIND, EMPTY)
}

/// What an artifact of ours says.
pub(super) fn annotation(manifest: &Manifest, name: &str) -> Option<String> {
    let document: Value = serde_json::from_slice(&manifest.bytes).ok()?;
    document["annotations"][name].as_str().map(str::to_owned)
}

fn seal(document: &Value, kind: &str) -> Manifest {
    let bytes = Bytes::from(document.to_string());
    Manifest {
        digest: format!("sha256:{}", sha256(&bytes)),
        kind: kind.to_owned(),
        bytes,
    }
}

fn push(list: &mut Value, value: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(document: &Value) -> Manifest {
        seal(document, OCI_MANIFEST)
    }

    fn blob(text: &str) -> Value {
        Descriptor::of(OCI_LAYER, text.as_bytes()).write()
    }

    #[test]
    fn an_index_gives_the_image_of_a_platform() {
        let entry = |architecture: &str| {
            let mut entry = blob(architecture);
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            entry
        };
        let index = manifest(&json!({"manifests": [entry("arm64"), entry("amd64")]}));
        let chosen = choose(&index, "amd64").unwrap().unwrap();
        assert_eq!(chosen, format!("sha256:{}", sha256(b"amd64")));
        let error = choose(&index, "riscv64").unwrap_err();
        assert_eq!(error.to_string(), "there is none for linux/riscv64");
        let image = manifest(&json!({"config": blob("c"), "layers": [blob("l")]}));
        assert_eq!(choose(&image, "amd64"), Ok(None));
        assert_eq!(blobs(&image).unwrap().1.len(), 1);
        for none in [json!({}), json!({"config": {}, "layers": []}), json!(1)] {
            assert!(blobs(&manifest(&none)).is_err(), "{none}");
        }
    }

    #[test]
    fn an_image_of_a_strange_shape_is_none() {
        let base = manifest(&json!({"config": blob("c"), "layers": [blob("l")]}));
        let rootfs = json!({"diff_ids": []});
        for strange in [
            json!(null),
            json!([]),
            json!({"config": {}}),
            json!({"rootfs": rootfs, "config": "x"}),
            json!({"rootfs": rootfs, "config": {"Labels": []}}),
            json!({"rootfs": rootfs, "config": {"Env": {}}}),
        ] {
            let read = ImageDocuments::read(&base, strange.to_string().as_bytes());
            assert_eq!(read.err(), Some(DocumentError::Config), "{strange}");
        }
        let config = json!({"rootfs": rootfs}).to_string();
        let strange = manifest(&json!({"layers": 1}));
        assert!(ImageDocuments::read(&strange, config.as_bytes()).is_err());
        assert!(ImageDocuments::read(&base, config.as_bytes()).is_ok());
    }

    #[test]
    fn a_layer_more_keeps_what_the_base_says() {
        let base =
            manifest(&json!({"schemaVersion": 2, "config": blob("c"), "layers": [blob("l")]}));
        let config = json!({
            "architecture": "amd64",
            "config": {"Env": ["A=b", "PATH=/x"], "Entrypoint": ["entry"], "Cmd": ["x"], "Labels": {"theirs": "1"}},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]},
            "history": [{"created_by": "them"}],
        });
        let layer = |text: &'static str, diff_id: &str| Layer {
            bytes: Bytes::from_static(text.as_bytes()),
            diff_id: diff_id.into(),
        };
        let addition = || Addition {
            layers: vec![layer("init", "sha256:2"), layer("code", "sha256:3")],
            program: Some(("/function", vec!["node", "x.js"])),
            labels: [("owner", "o".into()), ("image", "i".into())],
        };
        let documents = ImageDocuments::read(&base, config.to_string().as_bytes()).unwrap();
        assert!(!documents.gives_orders());
        let (image, new) = documents.clone().with(addition());
        assert_eq!(image.digest, documents.with(addition()).0.digest);
        let (config_is, layers) = blobs(&image).unwrap();
        let told = [&layers[1], &layers[2], &config_is];
        assert_eq!(new.iter().map(|(is, _)| is).collect::<Vec<_>>(), told);
        let config: Value = serde_json::from_slice(&new[2].1).unwrap();
        assert_eq!(
            config["config"],
            json!({"Env": ["A=b", "PATH=/x"], "Entrypoint": ["entry"], "Cmd": ["node", "x.js"], "WorkingDir": "/function",
                "Labels": {"theirs": "1", "owner": "o", "image": "i"}})
        );
        assert_eq!(
            config["rootfs"]["diff_ids"],
            json!(["sha256:1", "sha256:2", "sha256:3"])
        );
        assert_eq!(config["history"].as_array().unwrap().len(), 3);
    }
}

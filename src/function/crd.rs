//! The `Function` object: its fields, defaults, limits and rules, from which the CRD is generated.
//!
//! The doc comments of fields are what `kubectl explain function` prints.

mod parts;
mod status;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use parts::{Build, BuildArg, EnvVar, Resources, Scale, SecretRef, Source};
pub use status::{FunctionStatus, LastBuild};

/// What the user declares: where the code comes from and how it is to run.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "faas.dev",
    version = "v1alpha1",
    kind = "Function",
    plural = "functions",
    shortname = "fn",
    category = "faas",
    namespaced,
    status = "FunctionStatus",
    derive = "PartialEq",
    doc = "A Function turns code into a URL: its source is built into an image, and as many instances as callers need are kept running.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the current spec is served"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why the Function is ready, or is not"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas",
        description = "Instances that exist now"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url",
        description = "Where the Function is called"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp",
        description = "Time since the Function was created"),
    printcolumn(name = "Language", type_ = "string", json_path = ".spec.language", priority = "1",
        description = "Recipe that builds the source"),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.image", priority = "1",
        description = "Image of the current revision"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision", priority = "1",
        description = "Current revision"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = "1", description = "The Ready condition in words"),
    validation = Rule::new("size(self.metadata.name) <= 50")
        .message("metadata.name must be no more than 50 characters"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be a DNS label: lower case letters, digits and '-', beginning and ending with a letter or digit"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.language) || has(self.source.image)")
        .message("is required unless source.image is set").field_path(".language").reason(kube::core::Reason::FieldValueRequired),
    validation = Rule::new("!has(self.language) || !has(self.source.image)")
        .message("may not be set with source.image: a ready image is not built")
        .field_path(".language").reason(kube::core::Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.build) || !has(self.source.image)")
        .message("may not be set with source.image: a ready image is not built")
        .field_path(".build").reason(kube::core::Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.build) || !has(self.build.baseImage) || !has(self.language) || self.language != 'dockerfile'")
        .message("may not be set with language dockerfile: the Dockerfile names its own base in FROM")
        .field_path(".build.baseImage").reason(kube::core::Reason::FieldValueForbidden),
)]
pub struct FunctionSpec {
    /// Recipe that builds the source: `node` runs a JavaScript handler, `dockerfile` builds the Dockerfile in the source.
    /// Required, except with source.image, where nothing is built and it must be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,

    /// Where the code comes from. Exactly one of inline, directory, archive and image.
    pub source: Source,

    /// How the source is built. Only without source.image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,

    /// Environment variables of every instance. At most 128. A change makes a new revision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,

    /// Secrets that instances may read, as files /run/secrets/NAME/KEY; they are never put into the environment.
    /// At most 16. A change of a secret's content makes a new revision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub secrets: Vec<SecretRef>,

    /// Limits of one instance.
    #[serde(default)]
    pub resources: Resources,

    /// What an instance may reach: `none` (the default) has no network, `internet` reaches public addresses.
    #[serde(default)]
    pub network: Network,

    /// How many instances run, and when they leave.
    #[serde(default)]
    pub scale: Scale,

    /// Seconds that a call may take, from the moment it gets an instance to the last byte of the answer. 1 to 900, 30 by
    /// default. Draining waits as long.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 900))]
    pub timeout_seconds: u32,

    /// Seconds that an instance may take to accept its first connection, and that a caller waits for an instance.
    /// 1 to 300, 20 by default.
    #[serde(default = "default_startup_timeout")]
    #[schemars(range(min = 1, max = 300))]
    pub startup_timeout_seconds: u32,
}

/// Recipe that builds a source.
#[derive(
    Serialize,
    Deserialize,
    JsonSchema,
    strum::IntoStaticStr,
    strum::Display,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Language {
    Node,
    Dockerfile,
}

/// What an instance may reach.
#[derive(
    Serialize,
    Deserialize,
    JsonSchema,
    strum::IntoStaticStr,
    strum::Display,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Network {
    #[default]
    None,
    Internet,
}

fn default_timeout() -> u32 {
    30
}

fn default_startup_timeout() -> u32 {
    20
}

/// The `CustomResourceDefinition` as an API server takes it.
///
/// It differs from [`Function::crd`] in two things that the derive cannot say: no field is nullable, so that a null means
/// "not given" everywhere, and integer formats are those that Kubernetes knows.
///
/// # Panics
/// Never: the input is fixed, and a test makes it.
#[must_use]
pub fn definition() -> CustomResourceDefinition {
    serde_json::from_value(definition_value()).expect("normalising keeps the shape of a definition")
}

/// `crds/function.yaml`: the definition as text, the same for every run.
///
/// # Panics
/// Never: the input is fixed, and a test makes it.
#[must_use]
pub fn crd_yaml() -> String {
    let yaml = serde_saphyr::to_string(&definition_value()).expect("JSON is YAML");
    format!("# Generated by `faas crd`.\n{yaml}")
}

/// The schema of version v1alpha1, by which objects are judged.
pub(crate) fn open_api_schema() -> Value {
    let mut definition = definition_value();
    let schema = definition.pointer_mut("/spec/versions/0/schema/openAPIV3Schema");
    schema
        .expect("a definition has the schema of its version")
        .take()
}

fn definition_value() -> Value {
    let mut definition = serde_json::to_value(Function::crd()).expect("a definition is JSON");
    normalise(&mut definition);
    definition
}

/// Drops `nullable`, writes whole floats as integers and formats as Kubernetes knows them, and folds the line breaks that
/// source code has in descriptions.
fn normalise(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| !(key == "nullable" && value.is_boolean()));
            if let Some(Value::Array(allowed)) = map.get_mut("enum") {
                allowed.retain(|value| !value.is_null());
            }
            map.values_mut().for_each(normalise);
        }
        Value::Array(items) => items.iter_mut().for_each(normalise),
        Value::Number(number) => {
            if let Some(whole) = number
                .as_f64()
                .filter(|n| n.fract() == 0.0 && n.abs() < 1e9)
            {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "whole and small, checked above"
                )]
                let whole = whole as i64;
                *value = whole.into();
            }
        }
        Value::String(text) => match text.as_str() {
            "uint32" => "int32".clone_into(text),
            _ => *text = text.replace('\n', " "),
        },
        Value::Null | Value::Bool(_) => {}
    }
}

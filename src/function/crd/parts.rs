//! The structures inside a Function's spec, each with its limits and rules.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::function::quantity::{Cpu, Memory};

const IDENTIFIER_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
const IMAGE_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._:/@-]*$";
const LABEL_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
const NO_NUL_PATTERN: &str = r"^[^\x00]*$";

/// Where the code comes from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.inline), has(self.directory), has(self.archive), has(self.image)].exists_one(given, given)")
    .message("must have exactly one of inline, directory, archive, image"))]
pub struct Source {
    /// Files by name, in the manifest itself. 1 to 64 files, 128 KiB in all. Names are relative paths of at most 255
    /// bytes, such as `index.js` or `lib/sum.js`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "inline_schema")]
    #[x_kube(
        validation = Rule::new("self.all(name, size(bytes(name)) <= 255)")
            .message("file names must be no more than 255 bytes"),
        validation = Rule::new(r"self.all(name, name.matches('^\\.?[^./\\\\[:cntrl:]][^/\\\\[:cntrl:]]*(/\\.?[^./\\\\[:cntrl:]][^/\\\\[:cntrl:]]*){0,31}$'))")
            .message("file names must be relative paths such as lib/sum.js: no leading '/', no '.' or '..', no backslash, no control \
                      character, at most 32 deep"),
        validation = Rule::new("self.map(name, size(bytes(self[name]))).sum() <= 131072")
            .message("all files together must be no more than 128 KiB (131072 bytes); use directory or archive for more"),
    )]
    pub inline: Option<BTreeMap<String, String>>,

    /// Directory with the code, relative to the directory of the manifest and inside the watched root, such as `./sum`.
    /// Works where faas watches files (faas start --dir); in a cluster it yields SourceReady=False.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new(r"self.matches('^(\\./?|(\\./)?\\.?[^./\\\\[:cntrl:]][^/\\\\[:cntrl:]]*(/\\.?[^./\\\\[:cntrl:]][^/\\\\[:cntrl:]]*)*/?)$')")
        .message("must be a path below the manifest's directory such as ./sum: no leading '/', no '..', no backslash"))]
    pub directory: Option<String>,

    /// An uploaded tar archive, by the SHA-256 digest of its content: `sha256:` and 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub archive: Option<String>,

    /// A ready image, best by digest: `registry/name@sha256:...`. Nothing is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = IMAGE_PATTERN), extend("example" = "registry.example/team/sum:1.0"))]
    pub image: Option<String>,
}

/// How the source is built.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Build {
    /// Image that the build starts from, in place of the language's own. Not with language dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = IMAGE_PATTERN), extend("example" = "node:22-slim"))]
    pub base_image: Option<String>,

    /// Build arguments, as `ARG` sees them in a Dockerfile. At most 64. They are no place for secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub args: Vec<BuildArg>,

    /// Seconds that a build may take. 1 to 3600, 600 by default.
    #[serde(default = "default_build_timeout")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: u32,
}

impl Default for Build {
    fn default() -> Self {
        Self {
            base_image: None,
            args: Vec::new(),
            timeout_seconds: default_build_timeout(),
        }
    }
}

/// One build argument.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct BuildArg {
    /// Name of the argument: letters, digits and `_`, not beginning with a digit. Names beginning with `BUILDKIT_`, and those of
    /// proxies (`HTTP_PROXY`), belong to the platform.
    #[schemars(length(min = 1, max = 128), regex(pattern = IDENTIFIER_PATTERN), extend("example" = "NODE_ENV"))]
    #[x_kube(validation = Rule::new("!self.startsWith('BUILDKIT_') && !self.matches('(?i)^(https?|ftp|no|all)_proxy$')")
        .message("is reserved: names beginning with BUILDKIT_ are the builder's, and proxies are the site's (--build-env)"))]
    pub name: String,

    /// Value of the argument, at most 4096 characters. Empty by default.
    #[serde(default)]
    #[schemars(length(max = 4096), regex(pattern = NO_NUL_PATTERN))]
    pub value: String,
}

/// One environment variable.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct EnvVar {
    /// Name of the variable: letters, digits and `_`, not beginning with a digit. `PORT` and names beginning with `FAAS_`
    /// belong to the platform.
    #[schemars(length(min = 1, max = 128), regex(pattern = IDENTIFIER_PATTERN), extend("example" = "LOG_LEVEL"))]
    #[x_kube(validation = Rule::new("self != 'PORT' && !self.startsWith('FAAS_')")
        .message("is reserved: PORT and names beginning with FAAS_ are set by the platform"))]
    pub name: String,

    /// Value of the variable, at most 32768 characters. Empty by default. Numbers need quotes in YAML.
    #[serde(default)]
    #[schemars(length(max = 32768), regex(pattern = NO_NUL_PATTERN))]
    pub value: String,
}

/// One secret that instances may read.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct SecretRef {
    /// Name of the secret: a directory below --secrets-dir, or a Secret of the Function's namespace. A DNS label.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN), extend("example" = "database"))]
    pub name: String,
}

/// Limits of one instance.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Resources {
    /// CPU time that an instance may use, in cores: `500m` (the default) is half a core. 10m to 64.
    #[serde(default)]
    #[x_kube(validation = Rule::new("quantity(self).compareTo(quantity('10m')) >= 0 && quantity(self).compareTo(quantity('64')) <= 0")
        .message("must be from 10m to 64"))]
    pub cpu: Cpu,

    /// Memory of an instance, in bytes with a suffix (k, M, G, T, Ki, Mi, Gi, Ti); `128Mi` by default. 16Mi to 1Ti. An
    /// instance that needs more is killed.
    #[serde(default = "Memory::default_limit")]
    #[x_kube(validation = Rule::new("quantity(self).compareTo(quantity('16Mi')) >= 0 && quantity(self).compareTo(quantity('1Ti')) <= 0")
        .message("must be from 16Mi to 1Ti"))]
    pub memory: Memory,

    /// Processes and threads that an instance may have. 8 to 32768, 128 by default.
    #[serde(default = "default_pids")]
    #[schemars(range(min = 8, max = 32768))]
    pub pids: u32,

    /// Size of /tmp, the only writable directory; it lives in memory and counts into it. `64Mi` by default. 1Mi to 1Ti.
    #[serde(default = "Memory::default_tmp")]
    #[x_kube(validation = Rule::new("quantity(self).compareTo(quantity('1Mi')) >= 0 && quantity(self).compareTo(quantity('1Ti')) <= 0")
        .message("must be from 1Mi to 1Ti"))]
    pub tmp: Memory,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu: Cpu::default(),
            memory: Memory::default_limit(),
            pids: default_pids(),
            tmp: Memory::default_tmp(),
        }
    }
}

/// How many instances run, and when they leave.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.min <= self.max").message("must be no more than max").field_path(".min"))]
pub struct Scale {
    /// Instances that are kept ready when nobody calls. 0 to 1000, 0 by default: the first call starts one.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub min: u32,

    /// Instances that take calls at most; as many again may be leaving. 1 to 1000, 10 by default. Further callers wait.
    #[serde(default = "default_max")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: u32,

    /// Calls that one instance answers at the same time. 1 to 1000, 16 by default.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: u32,

    /// Seconds without a call after which an instance above min leaves. 1 to 86400, 300 by default.
    #[serde(default = "default_idle")]
    #[schemars(range(min = 1, max = 86400))]
    pub idle_after_seconds: u32,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            min: 0,
            max: default_max(),
            concurrency: default_concurrency(),
            idle_after_seconds: default_idle(),
        }
    }
}

fn default_build_timeout() -> u32 {
    600
}

fn default_pids() -> u32 {
    128
}

fn default_max() -> u32 {
    10
}

fn default_concurrency() -> u32 {
    16
}

fn default_idle() -> u32 {
    300
}

fn inline_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 131_072},
    })
}

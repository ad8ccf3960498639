//! Where built images and uploads go, and who builds what must run commands, as the flags say.

use std::path::PathBuf;

use clap::Args;

use super::RuntimeKind;
use crate::builder::{docker::EngineHost, registry::Place};

/// What was typed after `faas start` about registries.
#[derive(Debug, Args)]
pub struct RegistryArgs {
    /// Registry that images and uploads are pushed to
    #[arg(long, value_name = "HOST[:PORT]/PREFIX")]
    registry: Option<Place>,

    /// What those who run images call that registry [default: as --registry]
    #[arg(long, value_name = "HOST[:PORT]/PREFIX", requires = "registry")]
    registry_pull: Option<Place>,

    /// Speak to the registry without TLS; on a loopback address that is the default
    #[arg(long, requires = "registry")]
    registry_plain_http: bool,

    /// Credentials for registries, a config.json of Docker's as a pull secret holds it; read again when it changes
    #[arg(long, value_name = "FILE", requires = "registry")]
    registry_auth: Option<PathBuf>,

    /// Docker engine that builds what must run commands, such as <tcp://127.0.0.1:2375> or <unix:///run/docker.sock>
    #[arg(long, value_name = "URL", requires = "registry")]
    build_host: Option<EngineHost>,
}

/// Which registry, and who builds.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    pub place: Place,
    pub pull: Place,
    pub plain_http: bool,
    pub auth: Option<PathBuf>,
    pub build_host: Option<EngineHost>,
}

/// Flags that do not go together.
#[derive(Debug, thiserror::Error)]
pub enum RegistryFlags {
    #[error("--registry holds images, and --runtime process has none: use --runtime docker")]
    Process,
    #[error("--registry-auth {}: no such file", .0.display())]
    NoFile(PathBuf),
}

impl RegistryArgs {
    /// What was typed, checked.
    pub(super) fn resolve(
        self,
        runtime: RuntimeKind,
    ) -> Result<Option<RegistryConfig>, RegistryFlags> {
        let Some(place) = self.registry else {
            return Ok(None);
        };
        if runtime == RuntimeKind::Process {
            return Err(RegistryFlags::Process);
        }
        if let Some(file) = self.registry_auth.iter().find(|file| !file.is_file()) {
            return Err(RegistryFlags::NoFile(file.clone()));
        }
        Ok(Some(RegistryConfig {
            pull: self.registry_pull.unwrap_or_else(|| place.clone()),
            place,
            plain_http: self.registry_plain_http,
            auth: self.registry_auth,
            build_host: self.build_host,
        }))
    }
}

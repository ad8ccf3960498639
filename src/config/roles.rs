//! What was typed after `faas start`, `faas controller` and `faas gateway`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::Args;

use super::{
    BuildEnvironment, Config, ConfigError, DEFAULT_ADDRESS, DoorsConfig, RuntimeKind, StoreKind,
    access::AccessArgs,
    address, certificates, directories, pair, read,
    registry::RegistryArgs,
    state_dir,
    store::{self, StoreConfig, StoreFlags},
    surroundings, variable,
};
use crate::builder::BaseImages;

/// Where the pods of gateways have the token of their service account.
const TOKEN: &str = "/var/run/secrets/faas.dev/controller/token";

/// What was typed after `faas start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Directory of manifests to watch; may be given several times [default: ./functions, if it exists]
    #[arg(long = "dir", value_name = "DIR")]
    dirs: Vec<PathBuf>,

    /// Where Functions are declared
    #[arg(long, value_enum, default_value_t = StoreKind::Embedded)]
    store: StoreKind,

    /// What runs functions
    #[arg(long, value_enum, default_value_t = RuntimeKind::Auto)]
    runtime: RuntimeKind,

    /// Address for calls alone; the other one then answers 404 to calls
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    invoke_listen: Option<SocketAddr>,

    /// Offer `network: internet` also where this host cannot be shielded from functions
    #[arg(long)]
    allow_host_reach: bool,

    #[command(flatten)]
    control: ControlArgs,
}

/// What was typed after `faas controller`.
#[derive(Debug, Args)]
pub struct ControllerArgs {
    /// Address where gateways come to; of a pod they are told `POD_IP`
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:5556", value_parser = address)]
    gateways_listen: SocketAddr,

    /// Service account of gateways, in the controller's namespace
    #[arg(long, value_name = "NAME", default_value = "faas-gateway")]
    gateways_account: String,

    #[command(flatten)]
    control: ControlArgs,
}

/// What was typed after `faas gateway`.
#[derive(Debug, Args)]
pub struct GatewayArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_ADDRESS, value_parser = address)]
    listen: SocketAddr,

    #[command(flatten)]
    access: AccessArgs,

    /// Where the gateway keeps its identity, and tokens [default: `$XDG_STATE_HOME/faas`]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Token of the gateway's service account for the audience faas-controller; read again for each stream
    #[arg(long, value_name = "FILE", default_value = TOKEN)]
    controller_token: PathBuf,
}

/// What controls is told, alone or in one process with all the rest.
#[derive(Debug, Args)]
struct ControlArgs {
    /// Namespaces of the cluster to serve [default: that of the kubeconfig's context, or of the pod]
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        conflicts_with = "all_namespaces"
    )]
    namespaces: Vec<String>,

    /// Serve all namespaces of the cluster
    #[arg(long)]
    all_namespaces: bool,

    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_ADDRESS, value_parser = address)]
    listen: SocketAddr,

    #[command(flatten)]
    access: AccessArgs,

    /// Where the server keeps what must survive it [default: `$XDG_STATE_HOME/faas`]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Base image of a language (node=REF), or what stands for an image that Dockerfiles name (node:12=REF); may be given
    /// several times
    #[arg(long = "base-image", value_name = "NAME=REF", value_parser = pair)]
    base_images: Vec<(String, String)>,

    /// Directory of secrets: a directory a secret, a file a key
    #[arg(long, value_name = "DIR")]
    secrets_dir: Option<PathBuf>,

    /// PEM file of authorities that builds trust beside their base image's, such as a company proxy's
    #[arg(long, value_name = "FILE")]
    build_ca: Option<PathBuf>,

    /// Variable that the commands of builds get (`HTTPS_PROXY`, or `NAME=VALUE`); may be given several times
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_env: Vec<String>,

    #[command(flatten)]
    registry: RegistryArgs,
}

/// Where gateways come to a controller.
#[derive(Clone, Debug)]
pub struct GatewaysConfig {
    pub listen: SocketAddr,
    /// The address that they are told in place of all addresses.
    pub told: IpAddr,
    /// Their service account.
    pub account: String,
}

/// What `faas gateway` is to do.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    pub doors: DoorsConfig,
    pub state_dir: PathBuf,
    pub controller_token: PathBuf,
}

/// How the roles that control differ.
struct Role {
    store: StoreConfig,
    runtime: RuntimeKind,
    dirs: Vec<PathBuf>,
    invoke: Option<SocketAddr>,
    gateways: Option<GatewaysConfig>,
    allow_host_reach: bool,
}

impl StartArgs {
    /// What was typed, checked and completed from the environment.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        if self.runtime == RuntimeKind::Pods && self.store != StoreKind::Kubernetes {
            return Err(StoreFlags::NoCluster("--runtime pods").into());
        }
        let role = Role {
            store: self.control.store(self.store, &self.dirs)?,
            runtime: self.runtime,
            dirs: match self.store {
                StoreKind::Embedded => directories(self.dirs)?,
                StoreKind::Kubernetes => Vec::new(),
            },
            invoke: self.invoke_listen,
            gateways: None,
            allow_host_reach: self.allow_host_reach,
        };
        self.control.resolve(role)
    }
}

impl ControllerArgs {
    /// What was typed, checked and completed from the environment.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let listen = self.gateways_listen;
        let told = match listen.ip() {
            all if all.is_unspecified() => read("POD_IP").and_then(|ip| ip.parse().ok()),
            one => Some(one),
        };
        let role = Role {
            store: self.control.store(StoreKind::Kubernetes, &[])?,
            runtime: RuntimeKind::Pods,
            dirs: Vec::new(),
            invoke: None,
            gateways: Some(GatewaysConfig {
                listen,
                told: told.ok_or(ConfigError::NoPodIp(listen))?,
                account: self.gateways_account,
            }),
            allow_host_reach: false,
        };
        let config = self.control.resolve(role)?;
        match config.doors.access.public_url {
            Some(_) => Ok(config),
            None => Err(ConfigError::NoPublicUrl),
        }
    }
}

impl GatewayArgs {
    /// What was typed, checked and completed from the environment.
    pub fn resolve(self) -> Result<GatewayConfig, ConfigError> {
        let state_dir = state_dir(self.state_dir)?;
        let addresses = [Some(self.listen), None];
        Ok(GatewayConfig {
            doors: DoorsConfig {
                listen: self.listen,
                invoke: None,
                access: self.access.resolve(addresses, true, &state_dir)?,
            },
            state_dir,
            controller_token: self.controller_token,
        })
    }
}

impl ControlArgs {
    fn store(&self, kind: StoreKind, dirs: &[PathBuf]) -> Result<StoreConfig, StoreFlags> {
        store::resolve(kind, self.namespaces.clone(), self.all_namespaces, dirs)
    }

    fn resolve(self, role: Role) -> Result<Config, ConfigError> {
        let state_dir = state_dir(self.state_dir)?;
        let addresses = [Some(self.listen), role.invoke];
        let in_cluster = role.store != StoreConfig::Embedded;
        let access = self.access.resolve(addresses, in_cluster, &state_dir)?;
        if let Some(dir) = self.secrets_dir.iter().find(|dir| !dir.is_dir()) {
            return Err(ConfigError::NoSecrets(dir.clone()));
        }
        let around = surroundings()?;
        let variables = self.build_env.into_iter().map(variable);
        Ok(Config {
            store: role.store,
            dirs: role.dirs,
            doors: DoorsConfig {
                listen: self.listen,
                invoke: role.invoke,
                access,
            },
            gateways: role.gateways,
            state_dir,
            runtime: role.runtime,
            bases: BaseImages(self.base_images.into_iter().collect::<BTreeMap<_, _>>()),
            secrets_dir: self.secrets_dir,
            build: BuildEnvironment {
                ca: self.build_ca.as_deref().map(certificates).transpose()?,
                variables: variables.collect::<Result<_, _>>()?,
                label: None,
            },
            registry: self.registry.resolve(role.runtime)?,
            allow_host_reach: role.allow_host_reach,
            docker_socket: around.docker_socket,
            user_runtime_dir: around.user_runtime_dir,
            path: around.path,
        })
    }
}

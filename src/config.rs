//! Flags and environment become a [`Config`]. Nothing else reads the environment.

pub mod access;
pub mod registry;
pub mod roles;
pub mod store;

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use clap::ValueEnum;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{
    access::AccessConfig,
    registry::{RegistryConfig, RegistryFlags},
    roles::GatewaysConfig,
    store::{StoreConfig, StoreFlags},
};
use crate::{
    builder::{BaseImages, BuildEnvironment, recipe::is_variable},
    crash,
};

/// Where the server listens, and clients look for it, unless told otherwise.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:5555";

/// What runs functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuntimeKind {
    /// Docker, or an error that says what is missing
    Auto,
    /// Hardened Docker containers
    Docker,
    /// Children of the server: no isolation at all, for machines without Docker
    Process,
    /// Pods of the cluster, with --store kubernetes
    Pods,
}

/// Where Functions are declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// A file in the state directory, written by --dir, REST and the command line
    Embedded,
    /// A Kubernetes API server, found by KUBECONFIG or as pods find it
    Kubernetes,
}

/// What `faas start` or `faas controller` is to do.
#[derive(Clone, Debug)]
pub struct Config {
    pub store: StoreConfig,
    pub dirs: Vec<PathBuf>,
    pub doors: DoorsConfig,
    /// Calls come to gateways, and this is where those come to.
    pub gateways: Option<GatewaysConfig>,
    pub state_dir: PathBuf,
    pub runtime: RuntimeKind,
    pub bases: BaseImages,
    pub secrets_dir: Option<PathBuf>,
    pub build: BuildEnvironment,
    pub registry: Option<RegistryConfig>,
    pub allow_host_reach: bool,
    /// The engine's socket.
    pub docker_socket: PathBuf,
    /// A tmpfs of this user, for sockets where faas may not mount its own.
    pub user_runtime_dir: Option<PathBuf>,
    /// `PATH` of children of the process runtime.
    pub path: String,
}

/// Where the server listens, and who may come in.
#[derive(Clone, Debug)]
pub struct DoorsConfig {
    pub listen: SocketAddr,
    /// For calls alone.
    pub invoke: Option<SocketAddr>,
    pub access: AccessConfig,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "{0} is no loopback address, and there faas speaks TLS only, with those who have a token: give --tls-cert FILE and \
         --tls-key FILE. To try it, make them:\n  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days \
         90 -subj /CN=faas \\\n    -addext subjectAltName=DNS:$(hostname) -addext basicConstraints=critical,CA:FALSE -keyout \
         tls.key -out tls.crt\nand a token, if there is none yet:\n  faas token create admin --scope admin"
    )]
    NoTls(SocketAddr),
    #[error("--dir {}: there is no directory", .0.display())]
    NoDirectory(PathBuf),
    #[error("{}: this path is not UTF-8, and could not be told in a status: rename it", .0.display())]
    NotText(PathBuf),
    #[error(
        "say with --public-url how callers come to the gateways, such as https://faas.example: it stands in the status of functions"
    )]
    NoPublicUrl,
    #[error(
        "--gateways-listen {0} is every address of this pod, and POD_IP does not say which one gateways can reach: set it, or name the address"
    )]
    NoPodIp(SocketAddr),
    #[error(transparent)]
    Store(#[from] StoreFlags),
    #[error(transparent)]
    Registry(#[from] RegistryFlags),
    #[error("--secrets-dir {}: there is no directory", .0.display())]
    NoSecrets(PathBuf),
    #[error("--build-ca {}: {error}", file.display())]
    BuildCa {
        file: PathBuf,
        error: std::io::Error,
    },
    #[error("--build-ca {}: holds no PEM certificate (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    #[error("--build-env {0}: the variable is not set here; set it, or give NAME=VALUE")]
    NoVariable(String),
    #[error("--build-env {0:?}: a variable's name has letters, digits and '_' only")]
    VariableName(String),
    #[error("neither XDG_STATE_HOME nor HOME is set: say where to keep the state with --state-dir")]
    NoStateDir,
    #[error(
        "DOCKER_HOST is {0}: faas speaks to a local engine only, through unix:///path/to/docker.sock"
    )]
    DockerHost(String),
}

/// An address to listen on; `localhost` is IPv4's.
fn address(text: &str) -> Result<SocketAddr, String> {
    let number = text.strip_prefix("localhost:");
    let number = number.map_or(text.to_owned(), |port| format!("127.0.0.1:{port}"));
    number
        .parse()
        .map_err(|_| format!("give an address and a port, such as {DEFAULT_ADDRESS}"))
}

/// What of the environment decides where the engine and the sockets of instances are.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// See [`Config::docker_socket`].
    pub docker_socket: PathBuf,
    /// See [`Config::user_runtime_dir`].
    pub user_runtime_dir: Option<PathBuf>,
    /// See [`Config::path`].
    pub path: String,
}

/// Looks around.
pub fn surroundings() -> Result<Surroundings, ConfigError> {
    Ok(Surroundings {
        docker_socket: docker_socket()?,
        user_runtime_dir: read("XDG_RUNTIME_DIR").map(PathBuf::from),
        path: read("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned()),
    })
}

/// Where clients find the server: `FAAS_URL`, or the default address.
pub fn server_url(given: Option<String>) -> String {
    given
        .or_else(|| read("FAAS_URL"))
        .unwrap_or_else(|| format!("http://{DEFAULT_ADDRESS}"))
}

/// What is logged: `FAAS_LOG` in the syntax of tracing's `EnvFilter`. Unless they are named there, the audit is, and requests to
/// the engine are not, which hold what builds and instances are told.
pub fn log_filter() -> String {
    let filter = read("FAAS_LOG").unwrap_or_else(|| "info,kube_runtime=warn".to_owned());
    let mut filters = vec![filter.as_str()];
    for (target, directive) in [("audit", "audit=info"), ("bollard", "bollard=info")] {
        if !filter.contains(target) {
            filters.push(directive);
        }
    }
    filters.join(",")
}

/// For tests alone: the file that names the [`crate::crash::Point`] to end at.
pub fn crash_file() -> Option<PathBuf> {
    if !crash::BUILT_IN {
        return None;
    }
    read("FAAS_CRASH_FILE").map(PathBuf::from)
}

/// How many descriptors this process may have, from now on as many as it can: shells are stingy by default.
pub fn descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    let raised = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
    let limit = if raised.is_ok() {
        current
    } else {
        limit.current
    };
    limit.unwrap_or(u64::MAX)
}

/// This machine's memory, in bytes.
pub fn machine_memory() -> i64 {
    let info = rustix::system::sysinfo();
    let bytes = info.totalram.saturating_mul(u64::from(info.mem_unit));
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn directories(mut given: Vec<PathBuf>) -> Result<Vec<PathBuf>, ConfigError> {
    let default = PathBuf::from("functions");
    if given.is_empty() && default.is_dir() {
        given.push(default);
    }
    if let Some(missing) = given.iter().find(|dir| !dir.is_dir()) {
        return Err(ConfigError::NoDirectory(missing.clone()));
    }
    given.into_iter().map(in_text).collect()
}

/// A path that the status can name, also from the top.
fn in_text(path: PathBuf) -> Result<PathBuf, ConfigError> {
    let whole = absolute(path.clone());
    match whole.to_str() {
        Some(_) => Ok(path),
        None => Err(ConfigError::NotText(whole)),
    }
}

/// Engines and children live in other directories than this process.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Where the server's state is.
pub fn state_dir(given: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    in_text(absolute(given.map_or_else(default_state_dir, Ok)?))
}

fn default_state_dir() -> Result<PathBuf, ConfigError> {
    let base = read("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| read("HOME").map(|home| Path::new(&home).join(".local/state")))
        .ok_or(ConfigError::NoStateDir)?;
    Ok(base.join("faas"))
}

fn docker_socket() -> Result<PathBuf, ConfigError> {
    match read("DOCKER_HOST") {
        None => Ok(PathBuf::from("/var/run/docker.sock")),
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) => Ok(PathBuf::from(path)),
            None => Err(ConfigError::DockerHost(host)),
        },
    }
}

fn certificates(file: &Path) -> Result<Bytes, ConfigError> {
    let pem = std::fs::read(file).map_err(|error| ConfigError::BuildCa {
        file: file.to_owned(),
        error,
    })?;
    if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
        return Err(ConfigError::NoCertificate(file.to_owned()));
    }
    Ok(pem.into())
}

fn variable(given: String) -> Result<(String, String), ConfigError> {
    let (name, value) = match given.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (given.as_str(), read(&given)),
    };
    if !is_variable(name) {
        return Err(ConfigError::VariableName(name.to_owned()));
    }
    match value {
        Some(value) => Ok((name.to_owned(), value)),
        None => Err(ConfigError::NoVariable(given)),
    }
}

/// For a flag's value: `NAME=REF`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, reference)) if !name.is_empty() && !reference.is_empty() => {
            Ok((name.to_owned(), reference.to_owned()))
        }
        _ => Err("must be NAME=REF, such as node=registry.example/node:22".to_owned()),
    }
}

/// The one place that reads the environment. Empty counts as unset.
#[expect(clippy::disallowed_methods, reason = "this file alone may")]
fn read(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numbers_or_localhost() {
        let read = |text| address(text).map(|address| address.to_string());
        assert_eq!(read("[::1]:80").as_deref(), Ok("[::1]:80"));
        assert_eq!(read("localhost:0").as_deref(), Ok("127.0.0.1:0"));
        for wrong in ["localhost", "localhost:x", "5555", "example.org:80"] {
            assert!(
                read(wrong).unwrap_err().contains(DEFAULT_ADDRESS),
                "{wrong}"
            );
        }
    }
}

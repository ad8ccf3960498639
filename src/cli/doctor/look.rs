//! Looks at this machine: the engine, its images, a socket directory, a program.

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use super::judge::{Check, Level};
use crate::{
    app::run_base,
    builder::{BuildEnvironment, Builder, docker::DockerBuilder},
    config::Surroundings,
    runtime::{
        docker::engine_facts,
        rundir::{Readers, RunRoot},
    },
};

/// Longest wait for a program to tell its version.
const VERSION: Duration = Duration::from_secs(10);
/// Our name as an owner: nothing is ever made under it in the engine.
const OWNER: &str = "doctor";

/// Whether this process may do everything.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What the engine says of itself, or that it says nothing.
pub async fn engine(socket: &Path) -> Result<BTreeMap<String, String>, Check> {
    engine_facts(socket).await.map_err(|error| {
        let remedy = match std::os::unix::net::UnixStream::connect(socket) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "join the docker group (usermod -aG docker USER, then log in again)"
            }
            _ => "install and start one (on Debian and Ubuntu: apt-get install docker.io)",
        };
        let text = format!(
            "no Docker engine at {}: {error}\n{remedy}, or run without isolation: faas start --runtime process",
            socket.display()
        );
        Check::new(Level::Fail, "engine", text)
    })
}

/// Whether the engine has the base image of node.
pub async fn base_image(socket: &Path, image: &str) -> Check {
    let here = match DockerBuilder::connect(socket, OWNER, b"", BuildEnvironment::default()).await {
        Ok(builder) => builder.exists(&image.to_owned()).await,
        Err(error) => Err(error),
    };
    match here {
        Ok(true) => Check::new(Level::Ok, "base image", format!("{image} is here")),
        Ok(false) => {
            let text = format!(
                "{image} is not here: the first build pulls it; where no registry answers, name one that is here with \
                 --base-image node=REF"
            );
            Check::new(Level::Warn, "base image", text)
        }
        Err(error) => Check::new(Level::Fail, "base image", format!("{image}: {error}")),
    }
}

/// Whether instances can have their directories: makes one, as for an instance, and removes it.
pub fn sockets(around: &Surroundings) -> Check {
    let base = run_base(around.user_runtime_dir.as_deref());
    let path = base.join(format!("{OWNER}-{}", std::process::id()));
    match try_sockets(&path) {
        Ok(()) if is_root() => Check::new(
            Level::Ok,
            "sockets",
            format!("in mounts of their own below {}", base.display()),
        ),
        Ok(()) => Check::new(Level::Ok, "sockets", format!("below {}", base.display())),
        Err(error) => {
            let text = format!(
                "cannot be made below {}: {error}; as root, mounting must be allowed",
                base.display()
            );
            Check::new(Level::Fail, "sockets", text)
        }
    }
}

fn try_sockets(path: &Path) -> io::Result<()> {
    let root = RunRoot::open(path, is_root())?;
    let made = root
        .create("faas-doctor-000000000000", &[], Readers::Mapped)
        .map(drop);
    let removed = root.remove("faas-doctor-000000000000");
    made.and(removed).and(std::fs::remove_dir(path))
}

/// The host's node, which only the process runtime needs.
pub async fn node(path: &str) -> Check {
    let asked = tokio::process::Command::new("node")
        .arg("--version")
        .env("PATH", path)
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(VERSION, asked).await {
        Ok(Ok(output)) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Check::new(
                Level::Ok,
                "node",
                format!("{version}, for --runtime process"),
            )
        }
        _ => Check::new(
            Level::Warn,
            "node",
            "not found: --runtime process needs it (apt-get install nodejs); Docker does not",
        ),
    }
}

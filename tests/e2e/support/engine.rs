//! The Docker engine seen from beside the server.

use std::process::Command;

use super::skip::skip;

/// Whether tests that need an engine can run; a test that cannot is noted by name.
pub fn has_docker(test: &str) -> bool {
    let engine = faas::config::surroundings().unwrap().docker_socket;
    if engine.exists() {
        return true;
    }
    skip(test, &format!("no Docker engine at {}", engine.display()));
    false
}

/// What a docker command prints. It must succeed: where nothing is printed, nothing is there.
pub fn docker(args: &[&str]) -> String {
    try_docker(args).unwrap_or_else(|words| panic!("docker {args:?}: {words}"))
}

/// What a docker command prints, or why it failed.
pub fn try_docker(args: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(args).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// Whether this machine's engine has an image of this name.
pub fn has_image(name: &str) -> bool {
    !docker(&["images", "--quiet", name]).is_empty()
}

/// How names of containers are listed, exited ones too.
pub const CONTAINERS: &[&str] = &["ps", "--all", "--format", "{{.Names}}"];
/// How ids of images are.
pub const IMAGES: &[&str] = &["images", "--quiet"];
const NETWORKS: &[&str] = &["network", "ls", "--quiet"];

/// Names of all containers of an owner, exited ones too.
pub fn containers(owner: &str) -> Vec<String> {
    owned(owner, CONTAINERS, docker)
}

/// Ids of all images of an owner.
pub fn images(owner: &str) -> Vec<String> {
    owned(owner, IMAGES, docker)
}

/// Ids of all networks of an owner.
pub fn networks(owner: &str) -> Vec<String> {
    owned(owner, NETWORKS, docker)
}

/// What such a listing tells of an owner, by this way to some engine.
pub fn owned(owner: &str, listing: &[&str], docker: impl Fn(&[&str]) -> String) -> Vec<String> {
    let filter = format!("label=faas.dev/owner={owner}");
    words(&docker(&[listing, &["--filter", &filter]].concat()))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

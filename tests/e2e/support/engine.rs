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

/// What a docker command prints; an error is no output, and so is having no such command.
pub fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output();
    let printed = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&printed).trim().to_owned()
}

/// Whether this machine's engine has an image of this name.
pub fn has_image(name: &str) -> bool {
    !docker(&["images", "--quiet", name]).is_empty()
}

/// Names of all containers of an owner, exited ones too.
pub fn containers(owner: &str) -> Vec<String> {
    owned(owner, docker)
}

/// The same by this way to some engine.
pub fn owned(owner: &str, docker: impl Fn(&[&str]) -> String) -> Vec<String> {
    let filter = format!("label=faas.dev/owner={owner}");
    words(&docker(&[
        "ps",
        "--all",
        "--format",
        "{{.Names}}",
        "--filter",
        &filter,
    ]))
}

/// Ids of all images of an owner.
pub fn images(owner: &str) -> Vec<String> {
    let filter = format!("label=faas.dev/owner={owner}");
    words(&docker(&["images", "--quiet", "--filter", &filter]))
}

/// Ids of all networks of an owner.
pub fn networks(owner: &str) -> Vec<String> {
    let filter = format!("label=faas.dev/owner={owner}");
    words(&docker(&["network", "ls", "--quiet", "--filter", &filter]))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

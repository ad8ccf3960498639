//! What comes of archives and images that are made to get out.

use std::{fs, net::TcpListener, os::unix::fs::MetadataExt, path::PathBuf};

use serde_json::json;
use tar::{
    EntryType::{self, Block, Char, Link, Regular, Symlink},
    Header,
};

use super::server;
use crate::support::{
    SOON, Server, containers, docker, fresh, has_docker, images, inline, upload::upload, wait_until,
};

/// A file of this host that exists while a test runs.
pub struct Canary(pub PathBuf);

impl Canary {
    pub fn new() -> Self {
        let path = PathBuf::from(format!("/tmp/faas-canary-{}", fresh()));
        fs::write(&path, "not for anybody").unwrap();
        Self(path)
    }

    /// One beside it, which nobody may make.
    pub fn beside(&self, end: &str) -> String {
        format!("{}-{end}", self.0.display())
    }

    /// Fails if anything was made beside it, or it is not what it was.
    pub fn is_alone(&self) {
        assert_eq!(fs::read_to_string(&self.0).unwrap(), "not for anybody");
        let name = self.0.file_name().unwrap().to_string_lossy().into_owned();
        let all = fs::read_dir(self.0.parent().unwrap()).unwrap().flatten();
        let ours = all.filter(|entry| entry.file_name().to_string_lossy().starts_with(&name));
        assert_eq!(ours.count(), 1);
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// An archive of entries that no packer would write: kind, name, mode, link.
pub fn hostile_tar(entries: &[(EntryType, &str, u32, &str)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (kind, name, mode, link) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        if *kind == Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(1).unwrap();
        }
        let content: &[u8] = if *kind == Regular { b"mark" } else { b"" };
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

#[tokio::test]
async fn no_archive_names_a_file_of_this_machine() {
    if !has_docker("e2e archives") {
        return;
    }
    let server = server().await;
    let canary = Canary::new();
    let (path, beside) = (canary.0.to_str().unwrap(), canary.beside("made"));
    let climbing = format!("../../../../../../../..{beside}");
    let through = format!(
        "tmp/{}-through",
        canary.0.file_name().unwrap().to_string_lossy()
    );
    for entries in [
        &[(Regular, beside.as_str(), 0o644, "")][..],
        &[(Regular, &climbing, 0o644, "")],
        &[(Regular, "a/../../../../../../tmp/x", 0o644, "")],
        &[(Symlink, "index.js", 0o777, path)],
        &[(Link, "index.js", 0o644, path)],
        &[
            (Symlink, "tmp", 0o777, "/tmp"),
            (Regular, &through, 0o644, ""),
        ],
        &[(Char, "index.js", 0o666, "")],
        &[(Block, "index.js", 0o666, "")],
    ] {
        let body = upload("climber", &hostile_tar(entries));
        let reply = server.post("/functions", &body).await;
        reply.refused(400, "SourceInvalid");
    }
    canary.is_alone();
    assert!(server.object("climber").await.is_none());
}

/// Says of itself whatever could confuse those who start it, and makes what could be used in a container.
const DOCKERFILE: &str = r#"FROM node
USER root
ARG PLACES DISK
COPY . /app
RUN chmod a+r /app/* && mknod -m 0666 /disk b $DISK && mknod -m 0666 /memory c 1 1 && \
    cp /usr/bin/id /elevated && chmod 4755 /elevated
RUN node /app/main.js build "$PLACES"
LABEL faas.dev/owner=THEIRS faas.dev/image=nobodys faas.dev/build=THEIRS faas.dev/instance=faas-x faas.dev/memory=1
ENV FAAS_SOCKET=/tmp/x.sock PORT=1
HEALTHCHECK --interval=1s CMD touch /data/healthy
VOLUME /data /run /run/faas /run/secrets /.faas /slash/ //two//slashes /dot/./dot /run/../up
STOPSIGNAL SIGCONT
ENTRYPOINT ["node"]
CMD ["/app/main.js"]
"#;

/// The name of a disk of this host, as mknod takes it.
fn disk() -> String {
    let device = fs::metadata("/").unwrap().dev();
    format!(
        "{} {}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    )
}

#[tokio::test]
async fn no_image_gains_more_than_a_function_has() {
    if !has_docker("e2e hostile images") {
        return;
    }
    let server = server().await;
    // What listens on this machine's loopback, the API among it.
    let here = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut places = Vec::new();
    for port in [server.address.port(), here.local_addr().unwrap().port()] {
        places.push(json!({"host": "127.0.0.1", "port": port}));
        places.push(json!({"host": "localhost", "port": port}));
    }
    places.push(json!({"path": "/var/run/docker.sock"}));
    let theirs = fresh();
    let files = json!({
        "Dockerfile": DOCKERFILE.replace("THEIRS", &theirs).replace("$DISK", &disk()),
        "main.js": include_str!("../data/attack-image.js"), "tool": "",
    });
    let args = json!([
        {"name": "PLACES", "value": json!(places).to_string()}, {"name": "DISK", "value": disk()},
    ]);
    let more = json!({"build": {"args": args}, "scale": {"min": 1, "max": 1}});
    server
        .deploy("trojan", inline("dockerfile", files, more))
        .await;
    let reply = server.get("/function/trojan/").await.expect(200).json();

    let outcomes = reply["built"]["places"].as_array().unwrap();
    assert_eq!(outcomes.len(), places.len());
    assert!(
        outcomes.iter().all(|outcome| *outcome != "open"),
        "{reply:#}"
    );
    assert_eq!(reply["built"]["sockets"], "");
    // Those of the step, and not this machine's.
    assert!(reply["built"]["processes"].as_u64() < Some(10), "{reply:#}");
    assert_eq!(
        (&reply["built"]["disk"], &reply["built"]["mount"]),
        (&json!("EPERM"), &json!("refused"))
    );
    for (what, expected) in [
        ("uid", json!(65532)),
        ("elevated", json!("65532")),
        ("sockets", json!("/run/faas/fn.sock")),
        ("disk", json!("EPERM")),
        ("memory", json!("EPERM")),
        ("mode", json!("644")),
        ("socket", json!("/run/faas/fn.sock")),
        ("init", json!("/.faas/init")),
    ] {
        assert_eq!(reply[what], expected, "{what}: {reply:#}");
    }
    let instance = wait_until("it has stayed", SOON, async || {
        server.instances("trojan", "ready").await.pop()
    })
    .await;
    let health = docker(&["inspect", "--format", "{{json .State.Health}}", &instance]);
    assert_eq!(health, "null", "nothing runs but what is called");
    let kinds = "{{range .Mounts}}{{.Type}} {{.Destination}}\n{{end}}";
    let mounts = docker(&["inspect", "--format", kinds, &instance]);
    let volumes: Vec<_> = mounts.lines().filter(|m| m.starts_with("volume")).collect();
    assert!(volumes.is_empty(), "on this machine's disk: {volumes:?}");
    is_ours(&server, "trojan", &instance, &theirs).await;
    server.delete("/functions/trojan").await.expect(202);
}

/// Fails if an image or a container is taken for somebody else's.
async fn is_ours(server: &Server, name: &str, instance: &str, theirs: &str) {
    let image = server.object(name).await.unwrap()["status"]["image"].clone();
    let image = image.as_str().unwrap();
    let owner = server.home.owner().unwrap();
    let label = |of: &str, name: &str| {
        let format = format!("{{{{index .Config.Labels {name:?}}}}}");
        docker(&["inspect", "--format", &format, of])
    };
    for of in [image, instance] {
        assert_eq!(label(of, "faas.dev/owner"), owner);
        assert_eq!(label(of, "faas.dev/image"), image);
    }
    assert_eq!(label(instance, "faas.dev/instance"), instance);
    assert!(containers(theirs).is_empty() && images(theirs).is_empty());
}

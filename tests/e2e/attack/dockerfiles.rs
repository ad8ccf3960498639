//! What a Dockerfile reaches.

use serde_json::{Value, json};
use tar::EntryType::{Link, Regular, Symlink};

use super::{
    server,
    uploads::{Canary, hostile_tar},
};
use crate::support::{
    Server, fresh, function, has_docker, inline, try_docker,
    upload::{tar_of, tar_of_bytes, upload},
};

/// Uploads what must be refused, and answers why it was.
pub async fn refused(server: &Server, name: &str, dockerfile: &str) -> String {
    let body = upload(name, &tar_of(&[("Dockerfile", dockerfile)]));
    let reply = server.post("/functions", &body).await;
    assert_eq!(reply.status, 400, "{dockerfile}: {}", reply.text);
    reply.json()["info"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn no_dockerfile_fetches_from_this_machine() {
    if !has_docker("e2e fetching Dockerfiles") {
        return;
    }
    let server = server().await;
    let api = server.url("/functions");
    for (lines, why) in [
        (
            format!("FROM busybox:1\nADD {api} /x"),
            "in the network of the engine",
        ),
        (
            format!("FROM busybox:1\nARG URL={api}\nADD $URL /x"),
            "in the network of the engine",
        ),
        (
            format!("FROM busybox:1\nRUN <<CMD\nADD {api} /x\nCMD"),
            "it is not clear",
        ),
        (
            format!("FROM busybox:1\nRUN <<EOF\nADD {api} \\\nEOF"),
            "last line",
        ),
        (
            format!("FROM busybox:1\nRUN echo $((1 << 2))\nAD\\\nD {api} /x"),
            "it is not clear",
        ),
        (
            format!("FROM busybox:1\nRUN true \\\r\r\nADD {api} /x"),
            "carriage return",
        ),
        (
            format!("# syntax={}/x\nFROM busybox:1", server.address),
            "the front end",
        ),
    ] {
        let told = refused(&server, "fetcher", &lines).await;
        assert!(told.contains(why), "{lines}: {told}");
    }
    // What the engine itself refuses, or does not find in the source.
    for line in [
        "ADD /etc/shadow /x",
        "ADD ../../../../etc/shadow /x",
        "COPY /var/run/docker.sock /x",
        "COPY --from=/ /etc/shadow /x",
        "RUN --network=host true",
        "RUN --security=insecure true",
        "RUN --mount=type=bind,source=/,target=/host cat /host/etc/shadow",
        "RUN --mount=type=bind,source=/etc,target=/host cat /host/shadow",
    ] {
        refused(&server, "fetcher", &format!("FROM busybox:1\n{line}\n")).await;
    }
    server.delete("/functions/fetcher").await.expect(202);
}

#[tokio::test]
async fn no_build_writes_to_this_machine_or_reads_it() {
    if !has_docker("e2e writing Dockerfiles") {
        return;
    }
    let server = server().await;
    let canary = Canary::new();
    let path = canary.0.to_str().unwrap();
    let made = ["copied", "climbed", "linked", "absolute"].map(|end| canary.beside(end));
    let [copied, climbed, linked, absolute] = made.each_ref().map(String::as_str);
    let copies = format!(
        "RUN mkdir -p /tmp && ln -s / /out && ln -s ../../../../.. /up\n\
         COPY mark /out{copied}\nCOPY mark /up{copied}-up"
    );
    // Engines unpack what ADD finds to be an archive.
    let climbing = format!("../../../../../../../..{climbed}");
    let through = format!("link{}", linked.trim_start_matches("/tmp"));
    let inner = [
        hostile_tar(&[
            (Regular, absolute, 0o644, ""),
            (Symlink, "link", 0o777, "/tmp"),
            (Regular, &through, 0o644, ""),
        ]),
        hostile_tar(&[(Regular, &climbing, 0o644, "")]),
        hostile_tar(&[(Link, "stolen", 0o644, path)]),
    ];
    let steps = [
        copies.as_str(),
        "ADD inner.tar /",
        "ADD inner.tar /",
        "ADD inner.tar /",
    ];
    for (inner, steps) in [Vec::new()].into_iter().chain(inner).zip(steps) {
        let dockerfile = format!("FROM busybox:1\n# {}\n{steps}\nCMD [\"true\"]\n", fresh());
        let files = [
            ("Dockerfile", dockerfile.into_bytes()),
            ("mark", b"mark".to_vec()),
            ("inner.tar", inner),
        ];
        // Whether it can be built is the engine's to say; a program that ends at once is no function either.
        let body = upload("writer", &tar_of_bytes(&files));
        server.post("/functions", &body).await.expect(400);
        let image = server.object("writer").await.unwrap()["status"]["image"].clone();
        let image = image.as_str().unwrap_or_default();
        let stolen = try_docker(&["run", "--rm", image, "cat", "/stolen", path]);
        let stolen = stolen.unwrap_or_else(|words| words);
        assert!(!stolen.contains("not for anybody"), "{steps}: {stolen}");
        canary.is_alone();
    }
    server.delete("/functions/writer").await.expect(202);
}

/// Engines do not look at a proxy when they take a step from the cache: what one build fetched through its own, another's
/// would get.
#[tokio::test]
async fn no_function_says_through_what_the_cache_is_filled() {
    if !has_docker("e2e proxies") {
        return;
    }
    let server = server().await;
    let args: Value = json!([{"name": "http_proxy", "value": "http://127.0.0.1:1"}]);
    let files = json!({"Dockerfile": "FROM busybox:1\nRUN true\nCMD [\"true\"]\n"});
    let spec = inline("dockerfile", files, json!({"build": {"args": args}}));
    let poisoner = function("poisoner", spec).to_string();
    let told = server.put("/functions/poisoner", poisoner).await;
    assert_eq!(told.status, 400, "{told:?}");
    assert!(told.text.contains("--build-env"), "{told:?}");
    assert_eq!(server.object("poisoner").await, None);
}

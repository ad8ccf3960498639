//! Whether anybody gets to see the code of a Function who knows its image.

use serde_json::json;

use super::{dockerfiles::refused, server};
use crate::support::{docker, fresh, has_docker, node, try_docker};

const THEIRS: &str = "is a Function's, or was made from one";

/// An image of ours with something changed, for as long as it is needed.
struct Made(String);

impl Made {
    fn from_busybox(change: &str) -> Self {
        let name = format!("faas.local/e2e-{}:1", fresh());
        let container = docker(&["create", "faas.local/busybox:1", "true"]);
        docker(&["commit", "--change", change, &container, &name]);
        docker(&["rm", &container]);
        Self(name)
    }

    fn tag(image: &str) -> Self {
        let name = format!("faas.local/e2e-{}:1", fresh());
        docker(&["tag", image, &name]);
        Self(name)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = try_docker(&["rmi", &self.0]);
    }
}

#[tokio::test]
async fn no_upload_sees_the_code_of_another_function() {
    if !has_docker("e2e foreign code") {
        return;
    }
    let server = server().await;
    let code = format!("module.exports = () => 1 // {}", fresh());
    server.deploy("owner", node(&code, json!({}))).await;
    let image = server.object("owner").await.unwrap()["status"]["image"].clone();
    let image = image.as_str().unwrap();
    let tagged = Made::tag(image);
    let id = docker(&["inspect", "--format", "{{.Id}}", image]);
    let short = &id.trim_start_matches("sha256:")[..12];

    let orders = Made::from_busybox(&format!("ONBUILD ADD {} /x", server.url("/functions")));
    let copies = Made::from_busybox(&format!("ONBUILD COPY --from={image} /function /x"));
    let mut cases = vec![
        (format!("ARG A={image}\nFROM ${{A}}"), THEIRS),
        (
            format!("ARG A=x\nFROM ${{A:+{image}}}"),
            "it cannot be told which image",
        ),
        (
            format!("FROM busybox:1\nRUN --mount=from={image},target=/x true"),
            "of stages only",
        ),
        (format!("FROM {}", orders.0), "in the network of the engine"),
        (format!("FROM {}", copies.0), "copies from the image"),
    ];
    // What the classic builder keeps of its steps has the code as well.
    let step = docker(&["inspect", "--format", "{{.Parent}}", image]);
    let froms = [image, short, &id, &tagged.0, &step].into_iter();
    for from in froms.filter(|from| !from.is_empty()) {
        cases.push((format!("FROM {from}"), THEIRS));
        cases.push((
            format!("FROM busybox:1\nCOPY --from={from} /function /x"),
            THEIRS,
        ));
    }
    for (dockerfile, why) in cases {
        let told = refused(&server, "thief", &dockerfile).await;
        assert!(told.contains(why), "{dockerfile}: {told}");
    }
    for (spec, reason) in [
        (json!({"source": {"image": image}}), "SourceInvalid"),
        (json!({"source": {"image": short}}), "BuildFailed"),
        (json!({"source": {"image": tagged.0}}), "BuildFailed"),
        (
            node("1", json!({"build": {"baseImage": image}})),
            "BuildFailed",
        ),
    ] {
        server.apply("thief", spec).await;
        let told = server.fails("thief", reason).await;
        assert!(told.contains("a Function's"), "{told}");
    }
    for name in ["thief", "owner"] {
        server
            .delete(&format!("/functions/{name}"))
            .await
            .expect(202);
    }
}

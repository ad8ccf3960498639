//! What is done with care where nobody looks: how instances end, what a laptop lacks, what went behind our back.

use std::{fs, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use faas::{
    builder::archive::{Context, Limits},
    config::machine_memory,
};
use serde_json::json;

use crate::support::{
    Home, SOON, Server, Shared, Start, Streaming, client, docker, fresh, function, has_docker,
    inline, node, wait_until,
};

static SERVER: Shared = Shared::new();

async fn server() -> Arc<Server> {
    SERVER
        .get(async || Start::default().at(&Arc::new(Home::new())).await)
        .await
}

/// Answers one call, does something more, and exits.
const ONE_CALL: &str = "
process.on('SIGTERM', () => { console.log('told to end'); process.exit(0) })
require('http').createServer((request, response) => {
  let body = ''
  request.on('data', (data) => { body += data }).on('end', () => {
    response.end('{}')
    setTimeout(() => { console.log('saved ' + body); process.exit(0) }, 100)
  })
}).listen(process.env.PORT)";

#[tokio::test]
async fn a_program_that_exits_after_its_answer_is_left_to_do_so() {
    if !has_docker("e2e single calls") {
        return;
    }
    let server = server().await;
    let dockerfile = "FROM node:12\nCOPY . /app\nCMD [\"node\", \"/app/main.js\"]\n";
    let files = json!({"Dockerfile": dockerfile, "main.js": ONE_CALL});
    server
        .deploy("once", inline("dockerfile", files, json!({})))
        .await;
    let url = server.url("/functions/once/logs?follow=true");
    let mut log = Streaming(client().get(url).send().await.unwrap());
    for number in 1..5 {
        server.call("once", json!(number)).await.expect(200);
        let said = log.until(&format!("saved {number}\n")).await;
        assert!(!said.contains("told to end"), "{said}");
    }
    server.delete("/functions/once").await.expect(202);
}

#[tokio::test]
async fn a_source_that_cannot_be_read_for_a_while_is_read_again() {
    if !has_docker("e2e unreadable source") {
        return;
    }
    let home = Arc::new(Home::new());
    home.write("sum/index.js", "module.exports = async () => 'here again'");
    let spec = json!({"language": "node", "source": {"directory": "./sum"}});
    home.write("sum.yaml", &function("sum", spec).to_string());
    let server = Start::default().watching(&home).at(&home).await;
    server.ready("sum").await;
    drop(server);

    let sources = home.state().join("sources");
    let kept = fs::read_dir(&sources).unwrap().next().unwrap().unwrap();
    let (kept, aside) = (kept.path(), home.state().join("aside"));
    fs::rename(&kept, &aside).unwrap();
    // Reading this fails, though it is there.
    fs::create_dir(&kept).unwrap();
    let server = Start::default().watching(&home).at(&home).await;
    server.fails("sum", "SourceUnavailable").await;
    let object = server.object("sum").await.unwrap();
    let conditions = object["status"]["conditions"].to_string();
    assert!(conditions.contains("Reconciling"), "{conditions}");

    fs::remove_dir(&kept).unwrap();
    fs::rename(&aside, &kept).unwrap();
    server.ready("sum").await;
    assert_eq!(server.call("sum", json!({})).await.response(), "here again");
}

#[tokio::test]
async fn an_upload_that_was_missed_is_taken_when_it_comes() {
    if !has_docker("e2e late upload") {
        return;
    }
    let server = server().await;
    let code = "module.exports = async () => 'better late'";
    let file = ("index.js", 0o644, code.into());
    let context = Context::from_files([file], &Limits::default()).unwrap();
    let archive = format!("sha256:{}", context.digest());
    let spec = json!({"language": "node", "source": {"archive": archive}});
    server.apply("late", spec).await;
    server.fails("late", "SourceNotFound").await;
    let upload = json!({"name": "late", "file": BASE64_STANDARD.encode(context.tar())});
    server.post("/functions", &upload).await.expect(200);
    let answer = server.call("late", json!({})).await.response();
    assert_eq!(answer, "better late");

    // What was damaged meanwhile is mended by whoever brings it again.
    let kept = format!("sources/{}.tar", context.digest());
    fs::write(server.home.state().join(kept), "half").unwrap();
    let upload = json!({"name": "later", "file": BASE64_STANDARD.encode(context.tar())});
    server.post("/functions", &upload).await.expect(200);
    let answer = server.call("later", json!({})).await.response();
    assert_eq!(answer, "better late");
}

#[tokio::test]
async fn an_image_that_somebody_removed_is_built_again_for_what_serves() {
    if !has_docker("e2e lost image") {
        return;
    }
    let server = server().await;
    let good = format!("module.exports = async () => '{}'", fresh());
    server.deploy("hurt", node(&good, json!({}))).await;
    let answer = server.call("hurt", json!({})).await.response();
    let image = server.object("hurt").await.unwrap()["status"]["image"].clone();
    server
        .apply("hurt", node("throw new Error('broken')", json!({})))
        .await;
    server.fails("hurt", "StartFailed").await;

    for instance in server.instances("hurt", "ready").await {
        docker(&["rm", "--force", &instance]);
    }
    docker(&["rmi", "--force", image.as_str().unwrap()]);
    let again = server.call("hurt", json!({})).await.response();
    assert_eq!(again, answer);
    server.fails("hurt", "StartFailed").await;
    server.delete("/functions/hurt").await.expect(202);
}

/// A name can be moved to any image; what was built under it is known by its label.
#[tokio::test]
async fn an_image_that_has_anothers_name_answers_no_call() {
    if !has_docker("e2e anothers name") {
        return;
    }
    let server = server().await;
    let mut images = Vec::new();
    for name in ["right", "wrong"] {
        let code = format!("module.exports = async () => '{name}' // {}", fresh());
        server.deploy(name, node(&code, json!({}))).await;
        let status = server.object(name).await.unwrap()["status"].clone();
        images.push(status["image"].as_str().unwrap().to_owned());
    }
    // In place of the Function's image, and where there is none.
    for removed in [false, true] {
        for instance in server.instances("right", "ready").await {
            docker(&["rm", "--force", &instance]);
        }
        if removed {
            docker(&["rmi", "--force", &images[0]]);
        }
        docker(&["tag", &images[1], &images[0]]);
        let answer = server.call("right", json!({})).await.response();
        assert_eq!(answer, "right", "removed: {removed}");
        let answer = server.call("wrong", json!({})).await.response();
        assert_eq!(answer, "wrong", "removed: {removed}");
    }
    for name in ["right", "wrong"] {
        server
            .delete(&format!("/functions/{name}"))
            .await
            .expect(202);
    }
}

/// As a checkout of another branch and back does it: what nobody needs is removed, and needed again before that is done.
#[tokio::test]
async fn functions_that_go_and_come_back_at_once_have_their_images() {
    if !has_docker("e2e images that are needed again") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().watching(&home).at(&home).await;
    let manifests: Vec<_> = (0..12)
        .map(|number| {
            let code = format!("module.exports = () => '{}'", fresh());
            let name = format!("back-{number}");
            let text = function(&name, node(&code, json!({}))).to_string();
            (name, text)
        })
        .collect();
    let write_all = || {
        for (name, text) in &manifests {
            home.write(&format!("{name}.yaml"), text);
        }
    };
    write_all();
    let mut images = Vec::new();
    for (name, _) in &manifests {
        wait_until("it is known", SOON, async || server.object(name).await).await;
        server.ready(name).await;
        let status = server.object(name).await.unwrap()["status"].clone();
        images.push(status["image"].as_str().unwrap().to_owned());
    }
    let is_there = |image: &String| !docker(&["images", "--quiet", image]).is_empty();
    for (name, _) in &manifests {
        home.remove(&format!("{name}.yaml"));
    }
    wait_until("the first image goes", SOON * 2, async || {
        (!images.iter().all(is_there)).then_some(())
    })
    .await;
    write_all();
    for (name, _) in &manifests {
        wait_until("it is known", SOON, async || server.object(name).await).await;
        server.ready(name).await;
    }
    wait_until("all images are there again", SOON * 2, async || {
        images.iter().all(is_there).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_roll_over_without_memory_for_both_says_so_and_how_to_have_it_all_the_same() {
    if !has_docker("e2e no memory for both") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().at(&home).await;
    let memory = format!("{}Mi", (machine_memory() >> 20) * 45 / 100);
    let spec = |answer: &str, min: u32| {
        let code = format!("module.exports = async () => '{answer}'");
        let more = json!({"resources": {"memory": memory}, "scale": {"min": min}});
        node(&code, more)
    };
    server.deploy("big", spec("old", 1)).await;
    server.apply("big", spec("new", 1)).await;
    let message = server.fails("big", "NoCapacity").await;
    assert!(message.contains(&memory), "{message}");
    assert!(message.contains("lower spec.scale.min"), "{message}");
    server
        .condition("big", "Serving", |c| c["status"] == "True")
        .await;
    assert_eq!(server.call("big", json!({})).await.response(), "old");

    server.deploy("big", spec("new", 0)).await;
    assert_eq!(server.call("big", json!({})).await.response(), "new");
}

#[tokio::test]
async fn what_a_dockerignore_names_is_neither_copied_nor_a_reason_to_build() {
    if !has_docker("e2e dockerignore") {
        return;
    }
    let server = server().await;
    let dockerfile = "FROM busybox:1\nCOPY . /www\nCMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n";
    let spec = |secret: &str| {
        let files = json!({
            "Dockerfile": dockerfile, "index.html": "page", "secret.txt": secret, ".dockerignore": "*.txt\n",
        });
        inline("dockerfile", files, json!({}))
    };
    server.deploy("partly", spec("one")).await;
    let page = server.get("/function/partly/index.html").await.expect(200);
    assert_eq!(page.text, "page");
    server.get("/function/partly/secret.txt").await.expect(404);
    let before = server.status("partly").await["revision"].clone();
    server.deploy("partly", spec("two")).await;
    assert_eq!(server.status("partly").await["revision"], before);
}

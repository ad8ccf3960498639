//! What the first users were promised: an upload becomes a function that answers, or an error that says why not.

use std::sync::Arc;

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};
use tokio::task::JoinHandle;

use crate::support::{
    self, Home, Reply, SOON, Server, Shared, Start,
    fault::{ALWAYS, Fault, Faulty},
    has_docker,
    upload::{encoded, tar_of},
    wait_until,
};

/// The request from the document that the first users have, as it is.
const ADD: &str = include_str!("data/add-function.json");

static SERVER: Shared = Shared::new();

async fn server() -> Arc<Server> {
    SERVER
        .get(async || Start::default().at(&Arc::new(Home::new())).await)
        .await
}

fn hello() -> Value {
    json!({"response": r#"{"hello":"world"}"#})
}

#[tokio::test]
async fn the_documents_own_request_deploys_and_answers_again_and_again() {
    if !has_docker("e2e seed") {
        return;
    }
    let server = server().await;
    for path in ["/functions/", "/functions"] {
        let request = server.request(reqwest::Method::POST, path).body(ADD);
        let reply = Reply::of(request.send().await.unwrap()).await.expect(200);
        let invoke = format!("http://{}/functions/add", server.address);
        assert_eq!(reply.json(), json!({"invoke": invoke}));
    }

    for _ in 0..5 {
        let reply = server
            .call("add", json!({"numbers": [7, 33, 12, 18]}))
            .await;
        assert_eq!(reply.expect(200).json(), hello());
    }
    let input = json!({});
    let calls = std::array::from_fn::<_, 4, _>(|_| server.call("add", input.clone()));
    for reply in futures::future::join_all(calls).await {
        assert_eq!(reply.expect(200).json(), hello());
    }

    // Its server stops after each call, so the next container waits for the next caller.
    wait_until("a spare instance", SOON, async || {
        let ready = server.instances("add", "ready").await;
        (ready.len() == 1).then_some(())
    })
    .await;
    let spare = server.instances("add", "ready").await;
    assert_eq!(
        server.call("add", json!({})).await.expect(200).json(),
        hello()
    );
    wait_until(
        "the spare took the call, and another waits",
        SOON,
        async || {
            let ready = server.instances("add", "ready").await;
            (ready.len() == 1 && ready != spare).then_some(())
        },
    )
    .await;
    let status = server.status("add").await;
    assert_eq!(
        status["failures"],
        json!([]),
        "an end after the answer is no crash"
    );
}

#[tokio::test]
async fn an_upload_without_a_dockerfile_is_node_and_a_second_one_replaces_it() {
    if !has_docker("e2e uploads") {
        return;
    }
    let server = server().await;
    for answer in ["first", "second"] {
        let code = format!("module.exports = (context, cb) => cb('{answer}')");
        let tar = tar_of(&[("fn.yaml", "language: node\n"), ("index.js", &code)]);
        upload(&server, "plain", &tar).await.expect(200);
        assert_eq!(server.call("plain", json!({})).await.response(), answer);
    }
}

#[tokio::test]
async fn an_archive_that_cannot_be_taken_says_why() {
    if !has_docker("e2e bad archives") {
        return;
    }
    let server = server().await;
    for (tar, why) in [
        (vec![7; 2048], "tar"),
        (vec![0x1f, 0x8b, 8, 0], "gzip"),
        (climbing(), "../../etc/x"),
        (special(EntryType::Symlink), "symbolic link"),
        (special(EntryType::Link), "hard link"),
        (special(EntryType::Char), "device"),
        (tar_of(&[]), "no file"),
        (tar_of(&[("main.js", "1")]), "index.js"),
    ] {
        let reply = upload(&server, "bad", &tar).await;
        explained(&reply.refused(400, "SourceInvalid"), why);
    }
}

#[tokio::test]
async fn a_request_that_makes_no_function_says_why() {
    if !has_docker("e2e bad uploads") {
        return;
    }
    let server = server().await;
    let good = encoded(&tar_of(&[("index.js", "module.exports = () => 1")]));
    let typo = encoded(&tar_of(&[("fn.yaml", "lenguage: node")]));
    for (body, code, why) in [
        (
            json!({"name": "bad", "file": "%%%"}),
            "SourceInvalid",
            "base64",
        ),
        (
            json!({"name": "Not_A_Label", "file": good}),
            "InvalidSpec",
            "Not_A_Label",
        ),
        (
            json!({"name": "bad", "file": typo}),
            "InvalidSpec",
            "lenguage",
        ),
        (json!({"name": "bad"}), "BadRequest", "file"),
        (json!({"name": 1, "file": ""}), "BadRequest", "name"),
        (json!([]), "BadRequest", "name"),
    ] {
        let reply = server.post("/functions/", &body).await;
        explained(&reply.refused(400, code), why);
    }
}

fn explained(reply: &Reply, why: &str) {
    assert_eq!(
        reply.json()["message"],
        "Failed to deploy function",
        "{why}"
    );
    let info = reply.json()["info"].as_str().unwrap().to_owned();
    assert!(info.contains(why), "{why}: {info}");
}

#[tokio::test]
async fn a_failing_build_tells_its_step_and_last_words() {
    if !has_docker("e2e failing build") {
        return;
    }
    let server = server().await;
    let dockerfile = "FROM busybox:1\nRUN echo the last words && exit 3\nCMD [\"true\"]\n";
    let reply = upload(
        &server,
        "unbuildable",
        &tar_of(&[("Dockerfile", dockerfile)]),
    )
    .await;
    let info = reply.refused(400, "BuildFailed").json()["info"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(info.contains("exit 3"), "the step: {info}");
    let object = server.object("unbuildable").await.unwrap();
    let tail = object["status"]["lastBuild"]["logTail"].as_str().unwrap();
    assert!(tail.contains("the last words"), "{tail}");
    let log = server
        .get("/functions/unbuildable/build-log")
        .await
        .expect(200)
        .text;
    assert!(log.contains("the last words"), "{log}");
    let reply = server.call("unbuildable", json!({})).await;
    let reply = reply.refused(503, "BuildFailed");
    assert_eq!(reply.header("retry-after"), "", "only an edit helps");
}

/// The controller goes on trying, but whoever uploads learns at once what is wrong.
#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_told_at_once() {
    if !has_docker("e2e unpullable upload") {
        return;
    }
    let server = server().await;
    // Nobody listens there.
    let dockerfile = "FROM 127.0.0.1:1/nothing:1\nCMD [\"true\"]\n";
    for _ in 0..2 {
        let reply = upload(&server, "unpulled", &tar_of(&[("Dockerfile", dockerfile)])).await;
        explained(&reply.refused(400, "PullFailed"), "127.0.0.1:1/nothing:1");
    }
    server.fails("unpulled", "PullFailed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_the_engine_is_not_fit_for_is_told_so() {
    if !has_docker("e2e unbuilt upload") {
        return;
    }
    let engine = Faulty::new();
    let home = Arc::new(Home::new());
    let server = Start::default().engine(engine.address()).at(&home).await;
    let tar = tar_of(&[("index.js", "module.exports = async () => 'built'")]);
    let full = json!({"message": "write /layer: no space left on device"}).to_string();
    engine.on("POST", "/build?", 1, Fault::Answer(500, full));
    let reply = upload(&server, "hindered", &tar).await;
    let reply = reply.refused(503, "NoSpace");
    explained(&reply, "no space left on device");
    assert!(reply.header("retry-after").parse::<u32>().unwrap() > 0);
    server.ready("hindered").await;

    let ill = json!({"message": "I have a bad day"}).to_string();
    engine.on("POST", "/build?", 1, Fault::Answer(500, ill.clone()));
    let tar = tar_of(&[("index.js", "module.exports = async () => 'again'")]);
    upload(&server, "hindered", &tar).await.expect(200);
    assert_eq!(server.call("hindered", json!({})).await.response(), "again");

    engine.on("POST", "/build?", ALWAYS, Fault::Answer(500, ill));
    let tar = tar_of(&[("index.js", "module.exports = async () => 'never'")]);
    let reply = upload(&server, "hindered", &tar).await;
    explained(&reply.refused(503, "EngineUnavailable"), "I have a bad day");
    assert_eq!(server.call("hindered", json!({})).await.response(), "again");
}

#[tokio::test]
async fn an_upload_over_the_limit_is_413() {
    if !has_docker("e2e upload limit") {
        return;
    }
    let server = server().await;
    let file = "A".repeat(90 << 20);
    let reply = server
        .post("/functions", &json!({"name": "big", "file": file}))
        .await;
    let reply = reply.refused(413, "BodyTooLarge");
    assert_eq!(reply.json()["message"], "Failed to deploy function");

    // Unpacked it is over the limit, though the upload as such is not.
    let mut huge = Header::new_ustar();
    huge.set_path("index.js").unwrap();
    huge.set_size(1 << 40);
    huge.set_cksum();
    upload(&server, "big", huge.as_bytes())
        .await
        .refused(413, "BodyTooLarge");
}

#[tokio::test]
async fn an_upload_that_another_one_overtakes_is_told_at_once() {
    if !has_docker("e2e overtaken upload") {
        return;
    }
    let server = server().await;
    let first = endless(&server).await;
    let second = endless(&server).await;
    first.await.unwrap().refused(409, "Superseded");
    assert!(!second.is_finished(), "that one is built still");
    let tar = tar_of(&[("index.js", "module.exports = () => 'third'")]);
    upload(&server, "raced", &tar).await.expect(200);
    second.await.unwrap().refused(409, "Superseded");
    let answer = server.call("raced", json!({})).await.response();
    assert_eq!(answer, "third");
}

/// An upload whose build has begun, and does not end.
async fn endless(server: &Arc<Server>) -> JoinHandle<Reply> {
    let marker = support::fresh();
    let dockerfile = format!("FROM busybox:1\nRUN echo {marker}\nRUN exec sleep 1000\n");
    let task = tokio::spawn({
        let (server, tar) = (Arc::clone(server), tar_of(&[("Dockerfile", &dockerfile)]));
        async move { upload(&server, "raced", &tar).await }
    });
    wait_until("its last step runs", SOON, async || {
        let log = server.get("/functions/raced/build-log").await.text;
        let runs = log.contains(&marker) && log.contains("RUN exec sleep 1000");
        runs.then_some(())
    })
    .await;
    task
}

async fn upload(server: &Server, name: &str, tar: &[u8]) -> Reply {
    let body = support::upload::upload(name, tar);
    server.post("/functions", &body).await
}

/// The crate that writes tars refuses such a path, so it is written by hand.
fn climbing() -> Vec<u8> {
    let path = b"../../etc/x";
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path);
    header.set_size(0);
    header.set_cksum();
    let mut tar = Builder::new(Vec::new());
    tar.append(&header, &b""[..]).unwrap();
    tar.into_inner().unwrap()
}

fn special(kind: EntryType) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_path("index.js").unwrap();
    header.set_entry_type(kind);
    header.set_link_name("/etc/passwd").unwrap();
    header.set_size(0);
    header.set_cksum();
    let mut tar = Builder::new(Vec::new());
    tar.append(&header, &b""[..]).unwrap();
    tar.into_inner().unwrap()
}

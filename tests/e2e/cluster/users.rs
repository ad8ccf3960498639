//! Users of the cluster manage Functions by HTTP as they may with `kubectl`, and as the API server says.

use std::{process::Command, sync::Arc};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    gateways::{
        Halves,
        manage::{ask, ask_until, audited, token},
    },
    saying,
};
use crate::support::{
    Home, Server,
    cluster::Cluster,
    fault::{ALWAYS, Fault},
    has_docker,
    upload::{tar_of, upload},
};

impl Cluster {
    /// A service account that may do this with Functions of the namespace, and its token.
    fn user(&self, name: &str, verbs: &str) -> String {
        let (verbs, role) = (format!("--verb={verbs}"), format!("--role={name}"));
        let account = format!("--serviceaccount={}:{name}", self.namespace);
        let resource = "--resource=functions.faas.dev";
        for words in [
            &["create", "serviceaccount", name][..],
            &["create", "role", name, &verbs, resource],
            &["create", "rolebinding", name, &role, &account],
        ] {
            self.kubectl(words).good();
        }
        self.kubectl(["create", "token", name]).good()
    }
}

#[tokio::test]
async fn users_of_the_cluster_manage_at_a_gateway_as_they_may_with_kubectl() {
    let Some(halves) = Halves::start(1).await else {
        return;
    };
    let (cluster, gateway) = (&halves.cluster, &halves.gateways[0]);
    let editor = cluster.user("editor", "get,list,create,patch,delete");
    let viewer = cluster.user("viewer", "get,list");
    let nobody = cluster.user("nobody", "watch");
    let own = ["create", "token", "editor", "--audience=faas.dev"];
    let own = cluster.kubectl(own).good();

    let key = cluster.key("theirs");
    let path = format!("/functions/{key}");
    let mut object = saying("theirs", "of a user");
    object["metadata"]["namespace"] = cluster.namespace.clone().into();
    let (put, read) = (format!("PUT {path}"), format!("GET {path}"));
    let list = format!("GET /functions?namespace={}", cluster.namespace);
    let made = ask(gateway, &put, &editor, object.to_string()).await;
    let made = made.expect(201);
    let who = format!("kubernetes:system:serviceaccount:{}", cluster.namespace);
    let told = audited(&halves.controller, &made).await;
    assert!(told.contains(&format!("who=\"{who}:editor\"")), "{told}");
    ask(gateway, &put, &own, object.to_string())
        .await
        .expect(200);
    for token in [&editor, &viewer, &own] {
        for what in [&*list, &read, "GET /functions", "GET /status"] {
            ask(gateway, what, token, "").await.expect(200);
        }
    }

    assert!(typed_list(gateway, &own).contains("theirs"));

    // What each may not, and who is nobody; of an upload it is said by its body, and by nothing before.
    let (delete, deploy) = (format!("DELETE {path}"), "POST /functions");
    let sent = |key: &str| upload(key, &tar_of(&[("index.js", "")])).to_string();
    let elsewhere = json!({"kind": "Function"}).to_string();
    for (what, token, body) in [
        (&*put, &viewer, object.to_string()),
        (&delete, &viewer, String::new()),
        (deploy, &viewer, sent(&key)),
        (deploy, &editor, sent("theirs.kube-system")),
        (&read, &nobody, String::new()),
        (&list, &nobody, String::new()),
        ("GET /status", &nobody, String::new()),
        ("GET /functions?namespace=default", &editor, String::new()),
        ("GET /functions/theirs", &editor, String::new()),
        ("PUT /functions/theirs.kube-system", &editor, elsewhere),
    ] {
        let refused = ask(gateway, what, token, body).await;
        refused.refused(403, "Forbidden");
    }
    // No name is decoded, so that nobody judges another one than is meant.
    let refused = ask(gateway, "GET /functions/their%73", &editor, "").await;
    refused.refused(400, "BadPath");
    let refused = ask(gateway, &delete, &viewer, "").await;
    let told = audited(&halves.controller, &refused).await;
    assert!(told.contains(&format!("who=\"{who}:viewer\"")), "{told}");
    for token in [&*stranger(cluster), "x.y.z"] {
        let refused = ask(gateway, &list, token, "").await;
        refused.refused(401, "Unauthorized");
    }

    taken_away(&halves, &editor, &own).await;
}

/// What is taken away is missed soon, also by a change whose body was on its way.
async fn taken_away(halves: &Halves, editor: &str, own: &str) {
    let (cluster, gateway) = (&halves.cluster, &halves.gateways[0]);
    let to = |verb: &str, name: &str| format!("{verb} /functions/{}", cluster.key(name));
    let (late, rest) = begun(halves, editor).await;
    // One that has arrived later was let in, so that one was, too.
    ask(gateway, &to("GET", "theirs"), editor, "")
        .await
        .expect(200);
    cluster.kubectl(["delete", "rolebinding", "editor"]).good();
    ask_until(gateway, &to("DELETE", "theirs"), editor, 403).await;
    ask_until(gateway, &to("PUT", "theirs"), own, 403).await;
    // What was said of this very right is remembered for a few seconds; nothing can come of such a body.
    ask_until(gateway, &to("PUT", "late"), editor, 403).await;
    let answer = ended(late, &rest).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains("x-faas-error: Forbidden"), "{answer}");
    assert!(cluster.get("function", "late").is_none());
}

/// A change of the Function `late` by its caller's word, of which half is said; and the other half.
async fn begun(halves: &Halves, token: &str) -> (TcpStream, String) {
    let cluster = &halves.cluster;
    let mut object = saying("late", "of a user");
    object["metadata"]["namespace"] = cluster.namespace.clone().into();
    let body = object.to_string();
    let (first, rest) = body.split_at(body.len() / 2);
    let head = format!(
        "PUT /functions/{} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        cluster.key("late"),
        body.len()
    );
    let mut late = TcpStream::connect(halves.gateways[0].address)
        .await
        .unwrap();
    late.write_all((head + first).as_bytes()).await.unwrap();
    (late, rest.to_owned())
}

/// What is answered once the rest is said, too.
async fn ended(mut caller: TcpStream, rest: &str) -> String {
    caller.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    answer
}

/// What `faas list` prints for whoever has this token.
fn typed_list(server: &Server, token: &str) -> String {
    let list = Command::new(env!("CARGO_BIN_EXE_faas"))
        .args(["list", "-A", "-o", "json"])
        .envs([("FAAS_TOKEN", token), ("FAAS_URL", &server.url(""))])
        .output()
        .unwrap();
    assert!(list.status.success(), "{list:?}");
    String::from_utf8(list.stdout).unwrap()
}

/// A gateway's own token, which proves that it is a gateway, and is for nothing else.
fn stranger(cluster: &Cluster) -> String {
    let audience = "--audience=faas-controller";
    let words = ["create", "token", "faas-gateway", audience];
    cluster.kubectl(words).good()
}

#[tokio::test]
async fn an_api_server_that_does_not_say_who_asks_lets_no_user_in() {
    if !has_docker("e2e users") {
        return;
    }
    let Some(cluster) = Cluster::here() else {
        return;
    };
    let home = Arc::new(Home::new());
    let admin = token(&home, "admin");
    let api = cluster.faulty().await;
    let start = cluster.start().with("--auth", "token");
    let start = start.in_environment("KUBECONFIG", &api.kubeconfig);
    let server = start.at(&home).await;
    let viewer = cluster.user("viewer", "get,list");
    ask_until(&server, "GET /functions", &viewer, 200).await;

    // It is the same where a verdict is late, refused, or none; and what was known of the user is forgotten meanwhile.
    let reviews = "/apis/authentication.k8s.io/";
    let refusal = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500});
    for fault in [Fault::Answer(500, refusal.to_string()), Fault::Silence] {
        api.before.on("POST", reviews, ALWAYS, fault);
        let unjudged = ask_until(&server, "GET /functions", &viewer, 503).await;
        let unjudged = unjudged.refused(503, "Unjudged");
        assert_eq!(unjudged.header("retry-after"), "1");
        ask(&server, "GET /functions", &admin, "").await.expect(200);
        api.before.heal();
        ask_until(&server, "GET /functions", &viewer, 200).await;
    }
    // Calls are for tokens of ours.
    ask(&server, "POST /functions/none", &viewer, "{}")
        .await
        .refused(401, "Unauthorized");
}

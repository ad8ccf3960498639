//! What people do with `kubectl`, and programs over HTTP, beside an installation that has only the rights of the manifests.

use std::process::Output;

use serde_json::json;

use super::{super::saying, Service, installed};
use crate::support::{SOON, cluster::Cluster, function, node, wait_until};

#[tokio::test]
async fn kubectl_does_with_functions_what_people_expect() {
    let Some(installed) = installed().await else {
        return;
    };
    let (cluster, service) = (&installed.cluster, installed.service());
    let key = cluster.key("manners");
    let object = |word: &str| saying("manners", word).to_string();

    // Applied by the server, and by it alone: who else applies a field is told whose it is.
    let by_server = ["apply", "--server-side", "-f", "-"];
    cluster.kubectl_with(by_server, &object("first")).good();
    cluster.ready("manners");
    assert_eq!(service.call(&key).await.response(), "first");
    let other = [&by_server[..], &["--field-manager=other"]].concat();
    let told = cluster.kubectl_with(other, &object("second"));
    assert!(
        !told.success && told.stderr.contains("conflict"),
        "{told:?}"
    );

    let table = cluster.kubectl(["get", "fn"]).good();
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["manners", "True", "Ready", "1"], "{table}");
    let explained = cluster.kubectl(["explain", "fn.spec.scale.idleAfterSeconds"]);
    assert!(explained.good().contains("DESCRIPTION"));

    // Nothing differs, as the status is no part of what is applied; and then a word does.
    assert_eq!(
        cluster
            .kubectl_with(["diff", "--server-side", "-f", "-"], &object("first"))
            .good(),
        ""
    );
    let differs = cluster.kubectl_with(["diff", "--server-side", "-f", "-"], &object("second"));
    assert!(
        !differs.success && differs.stdout.contains("+      index.js"),
        "{differs:?}"
    );

    let edited = edit(cluster, "sed -i s/first/edited/");
    assert!(edited.status.success(), "{edited:?}");
    service.answers(&key, "edited").await;
    // A wrong one comes back to the editor, and is given up when it is left as it is.
    let refused = edit(cluster, "sed -i s/language:.node/language:.cobol/");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("is invalid"),
        "{said}"
    );

    let gone = [
        "delete",
        "fn",
        "manners",
        "--cascade=foreground",
        "--timeout=60s",
    ];
    cluster.kubectl(gone).good();
    assert!(cluster.pod_names("manners").is_empty(), "pods go first");
    service.call(&key).await.refused(400, "NotFound");
}

fn edit(cluster: &Cluster, editor: &str) -> Output {
    let kept = tempfile::tempdir().unwrap();
    let mut command = cluster.command(["edit", "fn", "manners"]);
    command
        .env("KUBE_EDITOR", editor)
        .env("TMPDIR", kept.path());
    command.output().unwrap()
}

/// Everything that needs a right of its own is done once, and no right is missed.
#[tokio::test]
async fn the_rights_of_the_manifests_are_enough() {
    let Some(installed) = installed().await else {
        return;
    };
    let (cluster, service) = (&installed.cluster, installed.service());
    let key = cluster.key("all");
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"},
        "stringData": {"word": "first"},
    }));
    let code = "const fs = require('fs'); \
                module.exports = () => { console.log('was called'); \
                return fs.readFileSync('/run/secrets/login/word', 'utf8') + WORD }";
    // A third revision makes an older record go.
    for word in ["", "-again", "-and-again"] {
        let code = code.replace("WORD", &format!("{word:?}"));
        cluster.apply(&function(
            "all",
            node(&code, json!({"secrets": [{"name": "login"}]})),
        ));
        service.answers(&key, &format!("first{word}")).await;
    }
    wait_until("its log is read", SOON, async || {
        let log = service
            .ask("GET", &format!("/functions/{key}/logs"), None)
            .await;
        log.expect(200).text.contains("was called").then_some(())
    })
    .await;
    let events = service
        .ask("GET", &format!("/functions/{key}/events"), None)
        .await;
    assert!(events.expect(200).text.contains("Ready"));
    assert!(cluster.get("networkpolicy", "faas-network-none").is_some());

    // By REST, from nothing to nothing.
    let path = format!("/functions/{}", cluster.key("put"));
    let mut object = saying("put", "by REST");
    object["metadata"]["namespace"] = cluster.namespace.clone().into();
    service.ask("PUT", &path, Some(object)).await.expect(201);
    service.answers(&cluster.key("put"), "by REST").await;
    for name in ["put", "all"] {
        let path = format!("/functions/{}", cluster.key(name));
        service.ask("DELETE", &path, None).await.expect(202);
        has_gone(cluster, name).await;
    }
    a_user_may_what_kubectl_lets_them(cluster, &installed.service()).await;
    let ours = "app.kubernetes.io/name=faas";
    let said = installed.in_system(&["logs", "-l", ours, "--tail=-1"]);
    let said = said.good();
    assert!(said.contains("Gateway joined"), "{said}");
    assert!(!said.contains("forbidden"), "{said}");
}

/// Whoever may edit the namespace, and has a token of the cluster alone.
async fn a_user_may_what_kubectl_lets_them(cluster: &Cluster, service: &Service) {
    let account = format!("--serviceaccount={}:person", cluster.namespace);
    for words in [
        &["create", "serviceaccount", "person"][..],
        &[
            "create",
            "rolebinding",
            "person",
            "--clusterrole=edit",
            &account,
        ],
    ] {
        cluster.kubectl(words).good();
    }
    let token = ["create", "token", "person", "--audience=faas.dev"];
    let person = Service {
        token: cluster.kubectl(token).good(),
        client: service.client.clone(),
    };
    let path = format!("/functions/{}", cluster.key("person"));
    let mut object = saying("person", "by a person");
    object["metadata"]["namespace"] = cluster.namespace.clone().into();
    let made = person.ask("PUT", &path, Some(object)).await;
    made.expect(201);
    person.ask("DELETE", &path, None).await.expect(202);
    has_gone(cluster, "person").await;
    let elsewhere = "/functions?namespace=kube-system";
    let elsewhere = person.ask("GET", elsewhere, None).await;
    elsewhere.refused(403, "Forbidden");
}

async fn has_gone(cluster: &Cluster, name: &str) {
    wait_until("it has gone", SOON, async || {
        cluster.get("fn", name).is_none().then_some(())
    })
    .await;
}

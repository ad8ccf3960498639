//! What the manifests allow and what they do not, and that the API server takes all of them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{SYSTEM, installed};
use crate::support::cluster::Cluster;

const FAAS: &str = "--as=system:serviceaccount:faas-system:faas";
const GATEWAY: &str = "--as=system:serviceaccount:faas-system:faas-gateway";

/// The installation, and what may be taken in its place.
const OVERLAYS: [&str; 4] = [
    "",
    "overlays/all-namespaces",
    "overlays/one-node",
    "overlays/build-engine",
];
/// In a namespace that is served, in its own, in others; `kubectl auth can-i` words, and whether that is allowed.
const SERVED: [(&str, bool); 17] = [
    ("watch functions.faas.dev", true),
    ("patch functions.faas.dev/status", true),
    ("update functions.faas.dev/status", false),
    ("deletecollection functions.faas.dev", false),
    ("create pods", true),
    ("delete pods", true),
    ("patch pods", false),
    ("create pods/exec", false),
    ("create pods/portforward", false),
    ("get secrets", true),
    ("update secrets", false),
    ("patch networkpolicies.networking.k8s.io", true),
    ("watch networkpolicies.networking.k8s.io", true),
    ("delete networkpolicies.networking.k8s.io", false),
    ("get configmaps", false),
    ("create deployments.apps", false),
    ("create rolebindings.rbac.authorization.k8s.io", false),
];
const OWN: [(&str, bool); 16] = [
    ("get secrets/faas-access", true),
    ("update secrets/faas-access", true),
    ("get secrets/faas-identity", true),
    ("update secrets/faas-identity", false),
    ("get secrets/another", false),
    ("list secrets", false),
    ("delete secrets/faas-access", false),
    ("patch configmaps/faas-facts", true),
    ("get configmaps/kube-root-ca.crt", false),
    ("update leases.coordination.k8s.io/faas-controller", true),
    ("update leases.coordination.k8s.io/another", false),
    ("create pods", false),
    ("get pods", false),
    ("update deployments.apps", false),
    ("create serviceaccounts/token", false),
    ("list functions.faas.dev", false),
];
const ELSEWHERE: [(&str, bool); 6] = [
    ("list functions.faas.dev", false),
    ("get secrets", false),
    ("list secrets", false),
    ("create pods", false),
    ("create secrets", false),
    ("get leases.coordination.k8s.io", false),
];
/// Whatever the namespace.
const CLUSTER: [(&str, bool); 8] = [
    ("create tokenreviews.authentication.k8s.io", true),
    ("create subjectaccessreviews.authorization.k8s.io", true),
    ("list nodes", false),
    ("list namespaces", false),
    (
        "update customresourcedefinitions.apiextensions.k8s.io",
        false,
    ),
    ("list secrets", false),
    ("create clusterroles.rbac.authorization.k8s.io", false),
    ("impersonate users", false),
];

/// What gateways may in their namespace, in one that is served, and whatever the namespace.
const GATEWAYS_OWN: [(&str, bool); 9] = [
    ("get leases.coordination.k8s.io/faas-controller", true),
    ("update leases.coordination.k8s.io/faas-controller", false),
    ("get secrets/faas-access", true),
    ("update secrets/faas-access", false),
    ("get secrets/faas-identity", false),
    ("create secrets", false),
    ("list secrets", false),
    ("get pods", false),
    ("create serviceaccounts/token", false),
];
const GATEWAYS_ELSEWHERE: [(&str, bool); 6] = [
    ("list functions.faas.dev", false),
    ("list pods", false),
    ("get secrets", false),
    ("create tokenreviews.authentication.k8s.io", false),
    ("create subjectaccessreviews.authorization.k8s.io", false),
    ("list secrets", false),
];

impl Cluster {
    /// What of a table is not so.
    fn wrong(&self, table: &[(&str, bool)], place: &[&str], who: &[&str]) -> Vec<String> {
        let differs = |(words, wanted): &&(&str, bool)| {
            let (verb, resource) = words.split_once(' ').unwrap();
            // A name and a subresource are written alike, and no name here is one.
            let (resource, sub) = match resource.split_once('/') {
                Some((kind, sub @ ("status" | "exec" | "portforward" | "token"))) => {
                    (kind.to_owned(), sub)
                }
                _ => (resource.to_owned(), ""),
            };
            let sub = format!("--subresource={sub}");
            let asked = ["auth", "can-i", verb, &resource, &sub];
            let answer = self.kubectl([&asked[..], place, who].concat());
            assert!(matches!(answer.stdout.trim(), "yes" | "no"), "{answer:?}");
            answer.success != *wanted
        };
        let wrong = table.iter().filter(differs);
        wrong
            .map(|(words, _)| format!("{words} {place:?}"))
            .collect()
    }
}

#[tokio::test]
async fn faas_may_do_what_it_needs_and_nothing_else() {
    let Some(installed) = installed().await else {
        return;
    };
    let cluster = &installed.cluster;
    let served = cluster.namespace.as_str();
    let mut wrong = Vec::new();
    for (table, place) in [
        (&SERVED[..], &["--namespace", served][..]),
        (&OWN, &["--namespace", SYSTEM]),
        (&ELSEWHERE, &["--namespace", "kube-system"]),
        (&CLUSTER, &["--all-namespaces"]),
    ] {
        wrong.extend(cluster.wrong(table, place, &[FAAS]));
    }
    for (table, place) in [
        (&GATEWAYS_OWN[..], ["--namespace", SYSTEM]),
        (&GATEWAYS_ELSEWHERE, ["--namespace", served]),
    ] {
        wrong.extend(cluster.wrong(table, &place, &[GATEWAY]));
    }
    // What a function runs as may do nothing at all.
    let function = format!("--as=system:serviceaccount:{served}:default");
    let nothing = [
        ("get secrets", false),
        ("list functions.faas.dev", false),
        ("list pods", false),
    ];
    wrong.extend(cluster.wrong(&nothing, &["--namespace", served], &[&function]));
    assert!(wrong.is_empty(), "{wrong:#?}");
    people_may(cluster);
    for overlay in OVERLAYS {
        assert_eq!(wildcards(overlay), [""; 0], "{overlay}");
    }
    // What cannot be run here is at least what the API server takes.
    for overlay in OVERLAYS {
        let dir = manifests(overlay);
        let dry = ["apply", "--dry-run=server", "-k", dir.to_str().unwrap()];
        let taken = cluster.kubectl(dry);
        assert!(taken.success, "{overlay}: {}", taken.stderr);
        // Two ask for more, and say so in their namespace's label.
        let is_restricted = !taken.stderr.contains("would violate");
        let asks = ["overlays/one-node", "overlays/build-engine"].contains(&overlay);
        assert_ne!(is_restricted, asks, "{overlay}: {}", taken.stderr);
    }
}

/// Who may edit a namespace may declare Functions there, and who may view it sees them.
fn people_may(cluster: &Cluster) {
    let place = ["--namespace", cluster.namespace.as_str()];
    let edit = [
        ("create functions.faas.dev", true),
        ("update functions.faas.dev/status", false),
    ];
    let view = [
        ("list functions.faas.dev", true),
        ("create functions.faas.dev", false),
    ];
    for (role, table) in [("edit", edit), ("view", view)] {
        let (person, user) = (format!("{role}-person"), format!("--user={role}-person"));
        let role = format!("--clusterrole={role}");
        let bind = ["create", "rolebinding", &person, &role, &user];
        cluster.kubectl(bind).good();
        let who = format!("--as={person}");
        assert_eq!(cluster.wrong(&table, &place, &[&who]), [""; 0]);
    }
}

fn manifests(overlay: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("manifests")
        .join(overlay)
}

/// Rights that a manifest gives by `*`.
fn wildcards(overlay: &str) -> Vec<String> {
    let output = Command::new("kubectl")
        .arg("kustomize")
        .arg(manifests(overlay))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let values = text
        .lines()
        .map(|line| line.trim_matches([' ', '-', '"', '\'']));
    values
        .filter(|value| *value == "*")
        .map(str::to_owned)
        .collect()
}

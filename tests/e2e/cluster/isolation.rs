//! Whether `network: none` is kept is the cluster's to say, and is found out by trying.

use crate::{
    cluster::{
        pods::{building, served},
        saying,
    },
    support::{
        SOON,
        cluster::{Cluster, Denied, Plane},
        wait_until,
    },
};

/// The pod that may reach nothing.
const SHUT: &str = "faas-probe-shut";

impl Cluster {
    async fn isolates(&self, name: &str, expected: [&str; 2]) {
        wait_until(
            "it is told whether the cluster isolates",
            SOON,
            async || {
                let [status, reason, _] = self.condition(name, "Isolated")?;
                ([status.as_str(), reason.as_str()] == expected).then_some(())
            },
        )
        .await;
    }

    /// Does in place of a network plugin what the policy says.
    async fn enforces<'a>(&self, plane: &'a Plane) -> Denied<'a> {
        wait_until("the cluster is tried", SOON, async || {
            let pod = self.get("pod", SHUT)?;
            Some(plane.deny(pod["status"]["podIP"].as_str()?))
        })
        .await
    }
}

#[tokio::test]
async fn whether_the_cluster_keeps_network_none_is_tried_and_told() {
    let Some(plane) =
        Cluster::plane("a network plugin that enforces policies, and one that does not")
    else {
        return;
    };
    let Some((cluster, home, server)) = served().await else {
        return;
    };
    drop(server);
    let server = building(&cluster).0.at(&home).await;
    cluster.apply(&saying("kept", "one"));
    cluster.isolates("kept", ["False", "NotEnforced"]).await;
    let [.., message] = cluster.condition("kept", "Deployed").unwrap();
    assert!(message.contains("podPidsLimit"), "{message}");
    assert!(server.said().contains("does not keep to network policies"));

    // The next server tries again with the first instance that it starts; until then what was seen is so.
    drop(server);
    let _server = building(&cluster).0.at(&home).await;
    cluster.isolates("kept", ["False", "NotEnforced"]).await;
    cluster.apply(&saying("kept", "two"));
    let _denied = cluster.enforces(&plane).await;
    cluster.isolates("kept", ["True", "Enforced"]).await;
    for pod in ["faas-probe-open", SHUT] {
        assert!(cluster.get("pod", pod).is_none(), "{pod} stays");
    }
}

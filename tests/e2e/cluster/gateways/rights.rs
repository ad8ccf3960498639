//! A controller that was given less than it needs.

use serde_json::json;

use super::{
    super::{
        days::limited,
        pods::{image, ready_made},
    },
    Halves, has_one, is_ready,
    takeover::{asked, free_address},
};
use crate::support::{Home, SOON, cluster::Cluster, wait_until};

/// A right in all of the cluster, until this goes.
struct Granted<'a>(&'a Cluster);

impl<'a> Granted<'a> {
    /// To ask whose a token is.
    fn review(cluster: &'a Cluster) -> Self {
        let account = format!("--serviceaccount={}:limited", cluster.namespace);
        let role = "--clusterrole=system:auth-delegator";
        let words = [
            "create",
            "clusterrolebinding",
            &cluster.namespace,
            role,
            &account,
        ];
        cluster.kubectl(words).good();
        Self(cluster)
    }
}

impl Drop for Granted<'_> {
    fn drop(&mut self) {
        let words = ["delete", "clusterrolebinding", &self.0.namespace];
        self.0.kubectl(words).good();
    }
}

#[tokio::test]
async fn a_controller_that_may_not_judge_gateways_does_not_take_over() {
    let Some(halves) = Halves::start(1).await else {
        return;
    };
    let (cluster, gateway) = (&halves.cluster, &halves.gateways[0]);
    let image = image(cluster, "kept", "module.exports = () => 'here'");
    cluster.apply(&ready_made("kept", &image, json!({"scale": {"min": 1}})));
    cluster.ready("kept");
    let key = cluster.key("kept");
    assert_eq!(gateway.call(&key, json!({})).await.response(), "here");
    has_one(gateway).await;
    halves.controller.signal(rustix::process::Signal::TERM);
    assert!(halves.controller.end().await.success());

    let address = free_address();
    let start = cluster.controller().with("--listen", &address);
    let start = start.in_environment("KUBECONFIG", limited(cluster));
    let home = std::sync::Arc::new(Home::new());
    let looking = async {
        wait_until("it says what it may not", SOON, async || {
            let ready = asked(&address, "/readyz").await?;
            (ready.status == 503 && ready.text.contains("tokenreviews")).then_some(())
        })
        .await;
        let told = asked(&address, "/functions").await.unwrap();
        told.refused(503, "NoController");
        let lease = cluster.get("lease", "faas-controller").unwrap();
        assert!(lease["spec"]["holderIdentity"].is_null(), "{lease}");
        assert_eq!(gateway.call(&key, json!({})).await.response(), "here");
        Granted::review(cluster)
    };
    let (controller, _granted) = tokio::join!(start.at(&home), looking);
    is_ready(&controller).await;
    assert_eq!(gateway.call(&key, json!({})).await.response(), "here");
}

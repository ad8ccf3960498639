//! A day on which the Docker engine's disk is full, under load; in the words that engines have for it.

use serde_json::{Value, json};

use super::{PACE, behind, settled, version};
use crate::support::{
    SOON,
    fault::{ALWAYS, Fault, Faulty},
    has_docker,
    prober::Prober,
    wait_until,
};

const BUILD: &str =
    "Error processing tar file(exit status 1): write /index.js: no space left on device";
const CREATE: &str = "mkdir /var/lib/docker/overlay2/2f6c04b5-init: no space left on device";
const START: &str = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container \
     process: can't get final child's PID from pipe: no space left on device: unknown";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_engine_is_told_and_the_old_revision_serves_on() {
    if !has_docker("e2e engine full") {
        return;
    }
    let engine = Faulty::new();
    let server = behind(&engine).await;
    let warm = || json!({"scale": {"min": 1, "max": 1, "concurrency": 8}});
    server.deploy("kept", version("kept", 1, warm())).await;
    let prober = Prober::start(&server, "kept", PACE, 20).await;
    let full = [
        ("/build?", BUILD),
        ("/containers/create", CREATE),
        ("/start", START),
    ];
    for (number, (path, words)) in (2..).zip(full) {
        let body = json!({"message": words}).to_string();
        engine.on("POST", path, ALWAYS, Fault::Answer(500, body));
        server.apply("kept", version("kept", number, warm())).await;
        let message = server.fails("kept", "NoSpace").await;
        assert!(message.contains(words), "{message}");
        // As often as a revision is tried that fails by itself; but not in a rush.
        let (hits, sent) = (engine.hits(), prober.sent());
        wait_until("it is tried again and again", SOON, async || {
            (engine.hits() >= hits + 2).then_some(())
        })
        .await;
        let (hits, sent) = (engine.hits() - hits, prober.sent() - sent);
        assert!(
            hits <= sent / 10,
            "{hits} tries in the time of {sent} calls"
        );
        let is_so = |c: &Value| c["status"] == "True";
        server.condition("kept", "Reconciling", is_so).await;
        server.condition("kept", "Serving", is_so).await;
        prober.goes_on(20).await;
        engine.heal();
        server.ready("kept").await;
        settled(&server, "kept", 1).await;
    }
    let ledger = prober.stop().await;
    ledger.check(|_| false);
    assert_eq!(ledger.versions(), [1, 2, 3, 4], "{}", ledger.summary());
}

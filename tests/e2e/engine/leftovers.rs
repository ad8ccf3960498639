//! Days on which what nobody needs cannot be removed: that is in nobody's way.

use serde_json::json;

use super::{behind, noticed, replaced, version};
use crate::support::{
    SOON, docker,
    fault::{ALWAYS, Fault, Faulty},
    has_docker, wait_until,
};

#[tokio::test]
async fn an_image_that_cannot_be_removed_is_in_nobodys_way() {
    if !has_docker("e2e images that stay") {
        return;
    }
    let busy = json!({"message": "device or resource busy"}).to_string();
    for fault in [Fault::Answer(500, busy), Fault::Silence] {
        let engine = Faulty::new();
        let server = behind(&engine).await;
        let warm = json!({"scale": {"min": 1, "max": 1}});
        server.deploy("stays", version("stays", 1, warm)).await;
        server.deploy("goes", version("goes", 1, json!({}))).await;

        engine.on("DELETE", "/images/", ALWAYS, fault);
        server.delete("/functions/goes").await.expect(202);
        wait_until("its image is to be removed", SOON, async || {
            (engine.hits() > 0).then_some(())
        })
        .await;

        let instance = server.instances("stays", "ready").await.remove(0);
        docker(&["kill", &instance]);
        noticed(&server, "stays", &instance).await;
        replaced(&server, "stays", &instance).await;
        server.deploy("new", version("new", 1, json!({}))).await;
        server.get("/readyz").await.expect(200);
        let status = server.get("/status").await.expect(200).json();
        assert_eq!(status["loop"]["engine"]["reachable"], true);

        engine.heal();
        for name in ["stays", "new"] {
            let path = format!("/functions/{name}");
            server.delete(&path).await.expect(202);
        }
    }
}

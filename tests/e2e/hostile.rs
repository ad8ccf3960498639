//! Instances and callers that misbehave: the caller learns the cause, the server's memory stays flat, and a function beside
//! it loses no call all the while.

mod answers;
mod callers;
mod instances;

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Home, Reply, SOON, Server, Shared, Start, inline, node,
    prober::{Prober, honest},
    wait_until,
};

/// Time between two calls of the function beside.
const PACE: Duration = Duration::from_millis(40);
/// How much the server's memory may differ, in KiB: what tests that share it use for a while, and what an allocator keeps.
const FLAT: u64 = 64 << 10;

static SERVER: Shared = Shared::new();

async fn server() -> Arc<Server> {
    SERVER
        .get(async || Start::default().at(&Arc::new(Home::new())).await)
        .await
}

/// The program of all misdeeds. Two seconds are its calls' time.
fn rogue(more: Value) -> Value {
    let dockerfile = "FROM node\nCOPY . /app\nCMD [\"node\", \"/app/main.js\"]\n";
    let files = json!({"Dockerfile": dockerfile, "main.js": include_str!("data/hostile.js")});
    let mut fields = json!({"timeoutSeconds": 2, "resources": {"cpu": "1"}});
    let Value::Object(more) = more else {
        panic!("more fields must be an object")
    };
    fields.as_object_mut().unwrap().extend(more);
    inline("dockerfile", files, fields)
}

/// Has it done, the raw way.
async fn ask(server: &Server, name: &str, deed: &str) -> Reply {
    let request = server.request(Method::GET, &format!("/function/{name}/{deed}"));
    Reply::of(request.send().await.unwrap()).await
}

/// Waits until it answers as if nothing had been.
async fn recovers(server: &Server, name: &str) {
    wait_until(&format!("{name} answers again"), SOON, async || {
        let reply = ask(server, name, "fine").await;
        (reply.status == 200 && reply.text == "fine").then_some(())
    })
    .await;
}

/// The server is watched while something bad happens.
pub struct Watch {
    server: Arc<Server>,
    memory: u64,
    beside: String,
    prober: Prober,
}

impl Watch {
    /// Calls a function beside `name` from now on.
    pub async fn begin(server: &Arc<Server>, name: &str) -> Self {
        let beside = format!("beside-{name}");
        let spec = node(&honest(&beside, 1), json!({"scale": {"min": 1}}));
        server.deploy(&beside, spec).await;
        Self {
            memory: server.memory(),
            prober: Prober::start(server, &beside, PACE, 0).await,
            server: Arc::clone(server),
            beside,
        }
    }

    /// Fails unless all those calls were answered and the memory is what it was.
    pub async fn end(self) {
        // That nothing bad comes later either.
        let sent = self.prober.sent();
        wait_until("calls beside go on", SOON, async || {
            (self.prober.sent() > sent + 3).then_some(())
        })
        .await;
        self.prober.stop().await.check(|_| false);
        wait_until("the memory is what it was", SOON, async || {
            (self.server.memory() < self.memory + FLAT).then_some(())
        })
        .await;
        let path = format!("/functions/{}", self.beside);
        self.server.delete(&path).await.expect(202);
    }

    /// Fails if the server holds much more than before at this moment.
    fn is_flat(&self) {
        let (before, now) = (self.memory, self.server.memory());
        assert!(now < before + FLAT, "{before} KiB have become {now}");
    }
}

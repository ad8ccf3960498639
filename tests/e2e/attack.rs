//! Attacks, from inside a function and by what is uploaded: the function tries all that it can think of and tells what came
//! of it; the same attempts against something that is open show that they could succeed.

mod code;
mod dockerfiles;
mod hunger;
mod inside;
mod network;
mod page;
mod secrets;
mod uploads;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::{Home, Server, Shared, Start, node};

static SERVER: Shared = Shared::new();

async fn server() -> Arc<Server> {
    SERVER
        .get(async || {
            let home = Arc::new(Home::new());
            let start = Start::default().with("--secrets-dir", home.secrets());
            start.at(&home).await
        })
        .await
}

/// The program of all attacks.
fn attacker(more: Value) -> Value {
    let mut fields = json!({"timeoutSeconds": 60, "resources": {"cpu": "1"}});
    let Value::Object(more) = more else {
        panic!("more fields must be an object")
    };
    fields.as_object_mut().unwrap().extend(more);
    node(include_str!("data/attack.js"), fields)
}

/// Has it try something.
async fn attempt(server: &Server, name: &str, deed: &str, more: Value) -> Value {
    let mut input = more;
    input["do"] = deed.into();
    server.call(name, input).await.response()
}

//! What the tests stand on: a home, servers in it, calls, and waiting for what must come true.

pub mod cluster;
#[path = "../support/disk.rs"]
pub mod disk;
mod engine;
pub mod fault;
mod home;
mod http;
pub mod load;
pub mod own_engine;
pub mod prober;
mod server;
#[path = "../support/skip.rs"]
pub mod skip;
pub mod upload;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use self::{
    engine::{containers, docker, has_docker, has_image, images, networks, try_docker},
    home::{Home, save},
    http::{Reply, Streaming, builder, client, exchange},
    server::{Server, Shared, Start, memory_of},
};

/// Longest wait for what must come: generous, for slow and busy machines.
pub const SOON: Duration = Duration::from_secs(60);
/// Between two looks at what is waited for.
pub const LOOK: Duration = Duration::from_millis(40);

/// Looks until there is something to see, and fails naming it when it does not come.
pub async fn wait_until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// A Function as JSON.
pub fn function(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "faas.dev/v1alpha1", "kind": "Function", "metadata": {"name": name}, "spec": spec,
    })
}

/// A spec with the code in it, and more fields.
pub fn node(code: &str, more: Value) -> Value {
    inline("node", json!({"index.js": code}), more)
}

/// A spec of any language with these files.
pub fn inline(language: &str, files: Value, more: Value) -> Value {
    let mut spec = json!({"language": language, "source": {"inline": files}});
    let Value::Object(more) = more else {
        panic!("more fields must be an object")
    };
    spec.as_object_mut().unwrap().extend(more);
    spec
}

/// A text that no other run has.
pub fn fresh() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

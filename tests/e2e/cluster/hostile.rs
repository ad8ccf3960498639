//! Values that mean something to somebody on the way: a shell, a kubelet, a terminal, a path. What a Function says reaches its
//! instance as it stands there, whichever runtime runs it.

use serde_json::{Value, json};

use super::{
    pods::{self, image, ready_made},
    saying, served,
};
use crate::support::{Server, cluster::Cluster, function, node};

/// As long as a name may be.
const NAME: &str = "a-name-that-is-as-long-as-names-may-be-but-no-more";
const CODE: &str = "module.exports = async ({name}) => ({value: process.env[name]})";

/// Values of variables, each of which something expands, quotes, splits or shows.
fn values() -> Vec<String> {
    let mut values: Vec<_> = [
        "$(PORT) $$(PORT) $(V0) $PORT ${HOME} %PATH%",
        "`id` $(id) ; rm -rf / # && false | cat > /tmp/x",
        "\"'\\\"'\\\\ {{.Values}} {{ .Env }} <script>alert(1)</script>",
        "first\nsecond\r\n\tthird\u{1b}[31mred\u{7}\u{202e}",
        " spaces at both ends ",
        "\u{1f980} \u{e9} e\u{301} \u{feff} \u{fffd}",
        "=a=b=",
        "null",
        "!!python/object:os.system {a: &a [*a]} --- ...",
        "",
    ]
    .map(str::to_owned)
    .into();
    values.push("x".repeat(32768));
    values
}

/// All of them in a Function whose name is long, and whose numbers are at their ends.
fn extreme(mut declared: Value) -> Value {
    let variables = values().into_iter().enumerate();
    let env = variables.map(|(n, value)| json!({"name": format!("V{n}"), "value": value}));
    declared["metadata"]["annotations"] = json!({"odd/note": values()[3], "empty": ""});
    declared["metadata"]["labels"] = json!({"app": "x".repeat(63), "empty": ""});
    let spec = declared["spec"].as_object_mut().unwrap();
    spec.insert("env".to_owned(), env.collect());
    let scale = json!({"min": 0, "max": 1000, "concurrency": 1000, "idleAfterSeconds": 86400});
    spec.insert("scale".to_owned(), scale);
    spec.insert("timeoutSeconds".to_owned(), json!(900));
    spec.insert("startupTimeoutSeconds".to_owned(), json!(300));
    declared
}

async fn check(cluster: &Cluster, server: &Server) {
    cluster.ready(NAME);
    for (n, value) in values().into_iter().enumerate() {
        let name = format!("V{n}");
        let answer = server.call(&cluster.key(NAME), json!({"name": name})).await;
        assert_eq!(answer.response()["value"], value, "{name}");
    }
    // What is told of it is one line for each.
    let table = cluster.kubectl(["get", "fn", "-o", "wide"]).good();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
}

#[tokio::test]
async fn whatever_a_function_says_reaches_its_container_as_it_is() {
    let Some((cluster, _home, server)) = served().await else {
        return;
    };
    cluster.apply(&extreme(function(NAME, node(CODE, json!({})))));
    check(&cluster, &server).await;
    // A neighbour of an ordinary kind is none the worse for it.
    cluster.apply(&saying("plain", "plain"));
    cluster.ready("plain");
}

#[tokio::test]
async fn whatever_a_function_says_reaches_its_pod_as_it_is() {
    let Some((cluster, _home, server)) = pods::served().await else {
        return;
    };
    let image = image(&cluster, "odd", CODE);
    cluster.apply(&extreme(ready_made(NAME, &image, json!({}))));
    check(&cluster, &server).await;
}

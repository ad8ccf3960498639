//! The API, described for programs: `openapi.yaml` beside this file, completed by what other modules know better.

use serde_json::{Value, json};

use crate::function::crd;

const TEXT: &str = include_str!("openapi.yaml");

/// What any request may be refused with.
const ANYWHERE: [(&str, &str); 5] = [
    ("400", "BadRequest"),
    ("403", "Foreign"),
    ("408", "TooSlow"),
    ("431", "HeadTooLarge"),
    ("503", "Overloaded"),
];

/// And, on a listener that asks for tokens, what needs one.
const WITHOUT_TOKEN: [(&str, &str); 2] = [("401", "Unauthorized"), ("429", "TooManyFailures")];

/// The OpenAPI 3.1 document. `docs/openapi.json` is this, for those who have no server at hand.
///
/// # Panics
/// Never: the text is fixed, and a test reads it.
pub fn document() -> Value {
    let mut document: Value = serde_saphyr::from_str(TEXT).expect("openapi.yaml is YAML");
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document["components"]["schemas"]["Function"] = crd::open_api_schema();
    for operation in operations(&mut document) {
        let is_open = operation.get("security").is_some();
        let more = if is_open { &[][..] } else { &WITHOUT_TOKEN };
        let Some(responses) = operation.get_mut("responses") else {
            continue;
        };
        for (status, name) in ANYWHERE.iter().chain(more).copied() {
            if responses.get(status).is_none() {
                responses[status] = json!({"$ref": format!("#/components/responses/{name}")});
            }
        }
    }
    document
}

/// All of them, but for what is beside them in a path's description.
fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document["paths"].as_object_mut();
    let items = paths.into_iter().flat_map(|paths| paths.values_mut());
    items
        .filter_map(Value::as_object_mut)
        .flat_map(|item| item.values_mut())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Paths of the router, and those of calls, which never reach it.
    fn routed() -> BTreeSet<String> {
        let routes = include_str!("../api.rs")
            .split(".route(\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next());
        let served = routes.map(|path| path.trim_end_matches('/').to_owned());
        served
            .chain(["/function/{name}/{path}".to_owned()])
            .collect()
    }

    #[test]
    fn describes_every_route_and_no_other() {
        let document = document();
        let described = document["paths"].as_object().unwrap().keys().cloned();
        assert_eq!(described.collect::<BTreeSet<_>>(), routed());
    }

    #[test]
    fn every_operation_may_be_refused_and_every_refusal_is_described() {
        let document = document();
        let paths = document["paths"].as_object().unwrap().values();
        let items = paths.flat_map(|item| item.as_object().unwrap().values());
        let all: Vec<_> = items
            .filter(|item| item.get("responses").is_some())
            .collect();
        assert!(all.len() > 15);
        for operation in all {
            let open = operation.get("security").is_some();
            for (status, name) in ANYWHERE.into_iter().chain(WITHOUT_TOKEN) {
                let described = operation["responses"][status].is_object();
                assert!(described || open, "{status} {operation:#}");
                assert!(document["components"]["responses"][name].is_object());
            }
        }
    }

    #[test]
    fn functions_are_what_the_crd_says() {
        let function = &document()["components"]["schemas"]["Function"];
        assert_eq!(
            function["properties"]["spec"]["properties"]["timeoutSeconds"]["default"],
            30
        );
    }
}

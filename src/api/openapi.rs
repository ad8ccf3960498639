//! The API, described for programs: `openapi.yaml` beside this file, completed by what other modules know better.

use serde_json::Value;

use crate::function::crd;

const TEXT: &str = include_str!("openapi.yaml");

/// The OpenAPI 3.1 document. `docs/openapi.json` is this, for those who have no server at hand.
///
/// # Panics
/// Never: the text is fixed, and a test reads it.
pub fn document() -> Value {
    let mut document: Value = serde_saphyr::from_str(TEXT).expect("openapi.yaml is YAML");
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document["components"]["schemas"]["Function"] = crd::open_api_schema();
    document
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
    fn functions_are_what_the_crd_says() {
        let function = &document()["components"]["schemas"]["Function"];
        assert_eq!(
            function["properties"]["spec"]["properties"]["timeoutSeconds"]["default"],
            30
        );
    }
}

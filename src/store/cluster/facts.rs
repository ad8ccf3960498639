//! What was learnt of revisions, in a `ConfigMap` in the namespace of faas itself: `REVISION: FACT FACT`. One controller
//! writes it; who declares Functions may not, because facts are shared by all Functions of a revision.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Map, Value, json};

use super::CONTROLLER;
use crate::{
    function::Revision,
    store::{Fact, StoreError},
};

/// Name of the `ConfigMap`.
const NAME: &str = "faas-facts";

/// Everything that is known.
pub async fn read(client: &Client) -> Result<Vec<(Fact, Revision)>, StoreError> {
    let maps = Api::<ConfigMap>::default_namespaced(client.clone());
    let map = maps.get_opt(NAME).await;
    let map = map.map_err(StoreError::cluster("read", NAME))?;
    let data = map.and_then(|map| map.data).unwrap_or_default();
    let facts = data.iter().flat_map(|(revision, facts)| {
        let fact = |fact: &str| Some((fact.parse().ok()?, revision.parse().ok()?));
        facts.split_whitespace().filter_map(fact)
    });
    Ok(facts.collect())
}

/// Keeps all that is known of these revisions; of which nothing is, they are dropped.
pub async fn write(
    client: &Client,
    known: impl IntoIterator<Item = (Revision, Vec<Fact>)>,
) -> Result<(), StoreError> {
    let entry = |(revision, facts): (Revision, Vec<Fact>)| {
        let words: Vec<&'static str> = facts.into_iter().map(Into::into).collect();
        let text = words.join(" ");
        let value = if text.is_empty() {
            Value::Null
        } else {
            text.into()
        };
        (revision.to_string(), value)
    };
    let data: Map<String, Value> = known.into_iter().map(entry).collect();
    let maps = Api::<ConfigMap>::default_namespaced(client.clone());
    let params = PatchParams {
        field_manager: Some(CONTROLLER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({"data": data}));
    let failed = || StoreError::cluster("write", NAME);
    match maps.patch(NAME, &params, &patch).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        outcome => return outcome.map(drop).map_err(failed()),
    }
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    let created = maps.create(&PostParams::default(), &map).await;
    created.map_err(failed())?;
    maps.patch(NAME, &params, &patch)
        .await
        .map(drop)
        .map_err(failed())
}

//! After a store was damaged: Functions of which only their instances still tell come back, as the engine's labels have them, and
//! those that directories tell of are given back to their instances.

use kube::api::ObjectMeta;

use super::Controller;
use crate::{
    function::{Function, FunctionKey, MANAGED_BY},
    runtime::Observed,
    store::StoreError,
};

/// Longest description that an instance carries, in bytes: the engine tells it whenever it is asked what there is.
const MOST: usize = 8 << 10;

/// What an instance is to carry of its Function: nothing where the object's home is a cluster.
pub fn declared(function: &Function) -> Option<String> {
    let annotations = function.metadata.annotations.as_ref()?;
    annotations.get(MANAGED_BY)?;
    let declared = Function {
        metadata: ObjectMeta {
            name: function.metadata.name.clone(),
            namespace: function.metadata.namespace.clone(),
            uid: function.metadata.uid.clone(),
            labels: function.metadata.labels.clone(),
            annotations: function.metadata.annotations.clone(),
            ..ObjectMeta::default()
        },
        spec: function.spec.clone(),
        status: None,
    };
    let json = serde_json::to_string(&declared).ok()?;
    (json.len() <= MOST).then_some(json)
}

/// The Function that an instance carries, if it is its own.
fn carried(observed: &Observed) -> Option<Function> {
    let function: Function = serde_json::from_str(observed.declared.as_ref()?).ok()?;
    let key = FunctionKey::try_from(&function).ok()?;
    let is_own = key == observed.function && function.metadata.uid.as_ref() == Some(&observed.uid);
    is_own.then_some(function)
}

impl Controller {
    /// Gives the store back what it has lost, as far as these instances tell.
    pub(super) async fn fill_store(&self, observed: &[Observed]) {
        if !self.ports.store.has_lost() {
            return;
        }
        for instance in observed.iter().filter(|instance| instance.running) {
            if let Err(error) = self.fill_in(instance).await {
                let key = &instance.function;
                tracing::error!(function = %key, %error, "What the damaged store had lost of a Function cannot be stored");
            }
        }
    }

    /// The Function of an instance, its uid, and what it serves: that is what answers, whatever a directory says by now.
    async fn fill_in(&self, instance: &Observed) -> Result<(), StoreError> {
        let (store, key, uid) = (&self.ports.store, &instance.function, &instance.uid);
        let carried = carried(instance);
        let is_back = match (store.get(key), carried.clone()) {
            (Some(_), _) => store.give_back(key, uid).await?,
            (None, Some(function)) => store.take_back(function).await?,
            (None, None) => false,
        };
        if is_back {
            tracing::warn!(function = %key, instance = %instance.id, "A Function that the damaged store had lost is back, as its instance tells");
        }
        let object = store.get(key);
        let Some(object) = object.filter(|object| object.metadata.uid.as_ref() == Some(uid)) else {
            return Ok(());
        };
        let is_known = store.served(key, uid).await?.is_some();
        if is_known || instance.address.connect().await.is_err() {
            return Ok(());
        }
        let made_from = self.resolver.served(carried.as_ref().unwrap_or(&object));
        let served = made_from.by(&instance.image, &instance.revision);
        store
            .keep_served(key, uid, &instance.revision, served.record())
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn function(code: &str, managed_by: &str) -> Function {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "faas.dev/v1alpha1",
            "kind": "Function",
            "metadata": {
                "name": "sum", "namespace": "default", "uid": "5b1e", "generation": 3,
                "annotations": {MANAGED_BY: managed_by},
            },
            "spec": {"language": "node", "source": {"inline": {"index.js": code}}},
        }))
        .unwrap()
    }

    fn instance(declared: Option<String>, uid: &str) -> Observed {
        Observed {
            id: "faas-sum-1".to_owned(),
            function: "sum".parse().unwrap(),
            uid: uid.to_owned(),
            revision: "00112233445566ff".parse().unwrap(),
            image: "one".to_owned(),
            memory: 1,
            running: true,
            leaving: false,
            address: std::path::PathBuf::from("/nowhere").into(),
            declared,
        }
    }

    #[test]
    fn an_instance_carries_what_no_cluster_keeps_and_is_not_too_long() {
        let long = "x".repeat(MOST);
        for (code, managed_by, carries) in [
            ("1", Some("api"), true),
            ("1", Some("directory"), true),
            ("1", None, false),
            (long.as_str(), Some("api"), false),
        ] {
            let mut function = function(code, managed_by.unwrap_or_default());
            if managed_by.is_none() {
                function.metadata.annotations = Some(BTreeMap::new());
            }
            let back = carried(&instance(declared(&function), "5b1e"));
            let spec = back.map(|back| back.spec);
            assert_eq!(spec, carries.then_some(function.spec), "{managed_by:?}");
        }
    }

    #[test]
    fn an_instance_does_not_speak_for_another_function() {
        let own = declared(&function("1", "api"));
        assert!(carried(&instance(own.clone(), "another")).is_none());
        let other = own.unwrap().replace("\"sum\"", "\"product\"");
        assert!(carried(&instance(Some(other), "5b1e")).is_none());
        assert!(carried(&instance(Some("{}".to_owned()), "5b1e")).is_none());
    }
}

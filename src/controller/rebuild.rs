//! After a store was damaged: Functions of which only their instances still tell come back, as the engine's labels have them.

use kube::api::ObjectMeta;

use super::Controller;
use crate::{
    function::{Function, FunctionKey, MANAGED_BY},
    runtime::Observed,
};

/// Longest description that an instance carries, in bytes: the engine tells it whenever it is asked what there is.
const MOST: usize = 8 << 10;

/// What an instance is to carry of its Function: nothing where the object has another home, a file or a cluster.
pub fn declared(function: &Function) -> Option<String> {
    let annotations = function.metadata.annotations.as_ref()?;
    if annotations.get(MANAGED_BY).is_none_or(|by| by != "api") {
        return None;
    }
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
        for instance in observed.iter().filter(|instance| instance.running) {
            let key = &instance.function;
            if self.ports.store.get(key).is_some() {
                continue;
            }
            let Some(function) = carried(instance) else {
                continue;
            };
            match self.ports.store.take_back(function).await {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!(function = %key, instance = %instance.id, "A Function that the damaged store had lost is back, as its instance tells");
                }
                Err(error) => {
                    tracing::error!(function = %key, %error, "A Function that the damaged store had lost cannot be stored");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
    fn an_instance_carries_what_has_no_other_home_and_is_not_too_long() {
        let long = "x".repeat(MOST);
        for (code, managed_by, carries) in [
            ("1", "api", true),
            ("1", "directory", false),
            (long.as_str(), "api", false),
        ] {
            let function = function(code, managed_by);
            let back = carried(&instance(declared(&function), "5b1e"));
            let spec = back.map(|back| back.spec);
            assert_eq!(spec, carries.then_some(function.spec), "{managed_by}");
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

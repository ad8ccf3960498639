//! Functions as the server has them, also those whose spec this version does not understand: the cluster's definition of
//! Functions is newer than this program, or was when they were applied. Such a one is known all the same, with an annotation in
//! place of its spec. Were it left out, it would be taken for gone, and what it runs and is made from for nobody's.

use std::borrow::Cow;

use kube::{Resource, api::ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::function::{
    Function, FunctionSpec, NOT_UNDERSTOOD, RESERVED_PREFIX,
    crd::{Network, Resources, Scale, Source},
};

/// Longest error that is told, in characters: it may hold what it complains of.
const MOST: usize = 512;

/// One version of an object, without what nobody here reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Raw", into = "Function")]
pub struct Read(pub Function);

#[derive(Deserialize)]
struct Raw {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

impl From<Raw> for Read {
    fn from(raw: Raw) -> Self {
        let (spec, error) = match serde_json::from_value(raw.spec) {
            Ok(spec) => (spec, None),
            Err(error) => (nothing(), Some(error.to_string())),
        };
        let mut function = slim(Function {
            metadata: raw.metadata,
            spec,
            // It is the controller's own, and written anew where it cannot be read.
            status: serde_json::from_value(raw.status).unwrap_or_default(),
        });
        if let Some(error) = error {
            let error = error.chars().take(MOST).collect();
            let annotations = function.metadata.annotations.get_or_insert_default();
            annotations.insert(NOT_UNDERSTOOD.to_owned(), error);
        }
        Self(function)
    }
}

impl From<Read> for Function {
    fn from(read: Read) -> Self {
        read.0
    }
}

/// A spec that asks for nothing.
fn nothing() -> FunctionSpec {
    FunctionSpec {
        language: None,
        source: Source::default(),
        build: None,
        env: Vec::new(),
        secrets: Vec::new(),
        resources: Resources::default(),
        network: Network::None,
        scale: Scale::default(),
        timeout_seconds: 1,
        startup_timeout_seconds: 1,
    }
}

/// Without what nobody here reads, and without what only the platform itself may say.
fn slim(mut function: Function) -> Function {
    function.metadata.managed_fields = None;
    if let Some(annotations) = &mut function.metadata.annotations {
        annotations.retain(|name, _| !name.starts_with(RESERVED_PREFIX));
    }
    if let Some(status) = &mut function.status {
        status.conditions.shrink_to_fit();
    }
    function
}

impl Resource for Read {
    type DynamicType = <Function as Resource>::DynamicType;
    type Scope = <Function as Resource>::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        Function::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        Function::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        Function::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        Function::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: &Value, status: &Value) -> Function {
        let object = json!({
            "apiVersion": "faas.dev/v1alpha1", "kind": "Function", "spec": spec, "status": status,
            "metadata": {
                "name": "sum", "namespace": "maths", "uid": "5b1e", "generation": 2,
                "annotations": {NOT_UNDERSTOOD: "a user says so", "example.com/team": "one"},
            },
        });
        serde_json::from_value::<Read>(object).unwrap().0
    }

    fn error(function: &Function) -> Option<&String> {
        let annotations = function.metadata.annotations.as_ref().unwrap();
        assert_eq!(annotations["example.com/team"], "one");
        annotations.get(NOT_UNDERSTOOD)
    }

    #[test]
    fn a_spec_that_is_not_understood_leaves_an_object_that_says_so() {
        let known = json!({"source": {"image": "x"}, "network": "internet"});
        let status = json!({"servingRevision": "0123456789abcdef", "observedGeneration": 1});
        let function = read(&known, &status);
        assert_eq!(error(&function), None, "nobody else may say so");
        assert_eq!(function.spec.network, Network::Internet);

        let function = read(
            &json!({"source": {"image": "x"}, "network": "mesh"}),
            &status,
        );
        let said = error(&function).unwrap();
        assert!(said.contains("mesh"), "{said}");
        assert_eq!(function.metadata.uid.as_deref(), Some("5b1e"));
        let serving = function.status.unwrap().serving_revision;
        assert_eq!(serving.as_deref(), Some("0123456789abcdef"));

        let long = json!({"source": {"image": "x"}, "scale": "x".repeat(100_000)});
        let said = read(&long, &Value::Null);
        assert!(error(&said).unwrap().len() <= MOST);
        assert!(error(&read(&Value::Null, &Value::Null)).is_some());
    }

    #[test]
    fn a_status_that_is_not_understood_is_none() {
        let known = json!({"source": {"image": "x"}});
        let function = read(&known, &json!({"replicas": "many"}));
        assert_eq!((error(&function), &function.status), (None, &None));
    }
}

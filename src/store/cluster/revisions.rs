//! What each Function serves, as a `ControllerRevision` that it owns: the cluster's own kind for what something was made from.
//! It goes with the Function.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::{
    api::apps::v1::ControllerRevision,
    apimachinery::pkg::{apis::meta::v1::OwnerReference, runtime::RawExtension},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ObjectMeta, PostParams},
    runtime::watcher::Event,
};

use serde_json::json;

use crate::function::{Function, FunctionKey, Revision};

/// Label of what is ours.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "faas");
/// Label: the revision.
const REVISION: &str = "faas.dev/revision";
/// What the data is: text that is JSON.
const RECORD: &str = "record";

/// The `ControllerRevision`s of all Functions.
#[derive(Debug, Default)]
pub struct Revisions(Mutex<BTreeMap<Id, Kept>>);

/// Namespace and name.
type Id = (String, String);

#[derive(Debug)]
struct Kept {
    /// Uid of the Function.
    owner: String,
    revision: String,
    /// Generation of the Function when it began to serve.
    generation: i64,
    record: String,
}

impl Revisions {
    /// What the server says has changed.
    pub fn follow(&self, event: Event<ControllerRevision>) {
        match event {
            Event::Apply(object) | Event::InitApply(object) => self.put(&object),
            Event::Delete(object) => drop(self.all().remove(&id(&object))),
            // Those that went unseen are known by owners that went too.
            Event::Init | Event::InitDone => {}
        }
    }

    /// What the Function of this uid serves: the revision that its status names, else the newest that is kept.
    pub fn served(&self, uid: &str, serving: Option<&str>) -> Option<String> {
        let all = self.all();
        let its = || all.values().filter(|kept| kept.owner == uid);
        let named = its().find(|kept| Some(kept.revision.as_str()) == serving);
        let kept = named.or_else(|| its().max_by_key(|kept| kept.generation))?;
        Some(kept.record.clone())
    }

    /// Keeps what a Function serves from now on, and nothing older than what it served before.
    pub async fn keep(
        &self,
        client: &Client,
        object: &ControllerRevision,
    ) -> Result<(), kube::Error> {
        let namespace = object.namespace().unwrap_or_default();
        let api = Api::<ControllerRevision>::namespaced(client.clone(), &namespace);
        match api.create(&PostParams::default(), object).await {
            Ok(created) => self.put(&created),
            // It served before, and is what it was: the name says what it is made of.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => return Err(error),
        }
        for name in self.superseded(object) {
            match api.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                outcome => drop(outcome?),
            }
        }
        Ok(())
    }

    /// All of the Function's but this one and the newest of the others.
    fn superseded(&self, object: &ControllerRevision) -> Vec<String> {
        let (this, all) = (id(object), self.all());
        let owner = owner(object);
        let its = all
            .iter()
            .filter(|(id, kept)| Some(&kept.owner) == owner.as_ref() && **id != this);
        let mut others: Vec<_> = its
            .map(|((_, name), kept)| (kept.generation, name.clone()))
            .collect();
        others.sort_unstable();
        others.pop();
        others.into_iter().map(|(_, name)| name).collect()
    }

    fn put(&self, object: &ControllerRevision) {
        let owner = owner(object);
        let data = object.data.as_ref();
        let record = data.and_then(|data| data.0[RECORD].as_str());
        if let (Some(owner), Some(record)) = (owner, record) {
            let revision = object.labels().get(REVISION).cloned().unwrap_or_default();
            let generation = object.revision;
            let kept = Kept {
                owner,
                revision,
                generation,
                record: record.to_owned(),
            };
            self.all().insert(id(object), kept);
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Id, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Uid of the Function.
fn owner(object: &ControllerRevision) -> Option<String> {
    let owner = object.owner_references().first();
    owner.map(|owner| owner.uid.clone())
}

fn id(object: &ControllerRevision) -> Id {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// What is kept of a Function that serves a revision, with the record of what that is made from.
pub fn object(
    function: &Function,
    key: &FunctionKey,
    served: &Revision,
    record: &str,
) -> ControllerRevision {
    let revision = served.to_string();
    // Another Function of the same name is another owner.
    let uid = function.uid().unwrap_or_default();
    let name = format!("{}-{}-{}", key.name(), revision, &uid[..uid.len().min(8)]);
    let (managed_by, us) = MANAGED_BY;
    let labels = [
        (managed_by, us),
        (REVISION, &revision),
        ("app.kubernetes.io/name", key.name()),
    ];
    let owner = OwnerReference {
        block_owner_deletion: Some(false),
        ..function.controller_owner_ref(&()).unwrap_or_default()
    };
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(key.namespace().to_owned()),
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(json!({RECORD: lasting(record)}))),
        revision: function.metadata.generation.unwrap_or_default(),
    }
}

/// The same JSON, in text that every encoder writes alike. The data must not change by a byte, and whoever else changes
/// something of the object (the garbage collector takes its owner away) writes it anew: with sorted fields, and these escaped.
fn lasting(record: &str) -> String {
    let mut text = String::with_capacity(record.len());
    for char in record.chars() {
        match char {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(char)));
            }
            _ => text.push(char),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_the_same_without_what_encoders_differ_in() {
        let record = json!({"b<&>": "\u{2028}\u{2029} \"\\ é", "a": [1, null]}).to_string();
        let text = lasting(&record);
        assert!(
            !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']),
            "{text}"
        );
        let value = |text| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&text), value(&record));
    }

    fn function(generation: i64) -> Function {
        serde_json::from_value(json!({
            "metadata": {"name": "sum", "namespace": "maths", "uid": "0123456789", "generation": generation},
            "spec": {"source": {"image": "x"}},
        }))
        .unwrap()
    }

    fn kept(generation: i64, word: &str) -> ControllerRevision {
        let key = "sum.maths".parse().unwrap();
        let revision = Revision::of([word.as_bytes()]);
        object(
            &function(generation),
            &key,
            &revision,
            &format!("\"{word}\""),
        )
    }

    #[test]
    fn what_the_status_names_serves_else_the_newest() {
        let revisions = Revisions::default();
        for (generation, word) in [(1, "first"), (2, "second"), (3, "third")] {
            revisions.follow(Event::Apply(kept(generation, word)));
        }
        let second = Revision::of([b"second".as_slice()]).to_string();
        let served = |uid, serving| revisions.served(uid, serving);
        assert_eq!(
            served("0123456789", Some(&second)).as_deref(),
            Some("\"second\"")
        );
        assert_eq!(served("0123456789", None).as_deref(), Some("\"third\""));
        assert_eq!(served("another", Some(&second)), None);

        assert_eq!(
            revisions.superseded(&kept(3, "third")),
            [kept(1, "first").name_any()],
            "the one before stays"
        );
        revisions.follow(Event::Delete(kept(3, "third")));
        assert_eq!(served("0123456789", None).as_deref(), Some("\"second\""));
    }
}

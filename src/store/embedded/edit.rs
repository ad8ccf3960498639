//! (pure) What an API server does to an object's metadata when the object is created, changed, deleted and released.

use jiff::Timestamp;
use kube::api::ObjectMeta;

use crate::{
    function::{DEFAULT_NAMESPACE, Function, FunctionKey},
    store::{FINALIZER, Manager, StoreError, seconds},
};

/// `desired` as a new object; `uid` must never have been used.
pub fn created(desired: Function, manager: &Manager, uid: String, now: Timestamp) -> Function {
    let mut function = declared(desired, manager);
    function.metadata = ObjectMeta {
        uid: Some(uid),
        creation_timestamp: Some(seconds(now)),
        generation: Some(1),
        finalizers: Some(vec![FINALIZER.to_owned()]),
        ..function.metadata
    };
    function
}

/// `current` with the spec, labels and annotations of `desired`; nothing when they are equal already.
///
/// # Errors
///
/// When another manager holds `current`, or it is being deleted.
pub fn configured(
    current: &Function,
    desired: Function,
    manager: &Manager,
) -> Result<Option<Function>, StoreError> {
    held_by(current, manager)?;
    if current.metadata.deletion_timestamp.is_some() {
        return Err(StoreError::Deleting {
            key: FunctionKey::try_from(current)?,
        });
    }
    let desired = declared(desired, manager);
    let (before, after) = (&current.metadata, &desired.metadata);
    let is_same_spec = current.spec == desired.spec;
    if is_same_spec && before.labels == after.labels && before.annotations == after.annotations {
        return Ok(None);
    }
    let mut function = Function {
        metadata: ObjectMeta {
            labels: desired.metadata.labels,
            annotations: desired.metadata.annotations,
            ..current.metadata.clone()
        },
        spec: desired.spec,
        status: current.status.clone(),
    };
    if !is_same_spec {
        next_generation(&mut function);
    }
    Ok(Some(function))
}

/// `current`, marked for deletion; nothing when it is so already.
///
/// # Errors
///
/// When another manager holds `current`.
pub fn deleted(
    current: &Function,
    manager: &Manager,
    now: Timestamp,
) -> Result<Option<Function>, StoreError> {
    held_by(current, manager)?;
    if current.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let mut function = current.clone();
    function.metadata.deletion_timestamp = Some(seconds(now));
    next_generation(&mut function);
    Ok(Some(function))
}

/// The last form of an object, without its finalizer; nothing unless `current` is being deleted.
pub fn released(current: &Function) -> Option<Function> {
    current.metadata.deletion_timestamp.as_ref()?;
    let mut function = current.clone();
    function.metadata.finalizers = None;
    Some(function)
}

fn held_by(current: &Function, manager: &Manager) -> Result<(), StoreError> {
    let holder = Manager::of(current);
    if holder.is_same_writer(manager) {
        return Ok(());
    }
    Err(StoreError::Managed {
        key: FunctionKey::try_from(current)?,
        holder,
    })
}

/// What a writer may say of an object: name, labels, annotations and spec; the rest is the store's and the controller's.
fn declared(desired: Function, manager: &Manager) -> Function {
    let mut annotations = desired.metadata.annotations.unwrap_or_default();
    manager.sign(&mut annotations);
    Function {
        metadata: ObjectMeta {
            name: desired.metadata.name,
            namespace: desired
                .metadata
                .namespace
                .or_else(|| Some(DEFAULT_NAMESPACE.to_owned())),
            labels: desired.metadata.labels.filter(|labels| !labels.is_empty()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: desired.spec,
        status: None,
    }
}

fn next_generation(function: &mut Function) {
    function.metadata.generation = Some(function.metadata.generation.unwrap_or_default() + 1);
}

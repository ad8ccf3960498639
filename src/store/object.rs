//! A Function as those who watch the store get it: shared with the store, so that a thousand Functions are not kept once
//! more by everyone who follows them.

use std::{borrow::Cow, ops::Deref, sync::Arc};

use kube::{Resource, api::ObjectMeta};

use crate::function::Function;

/// One version of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object(Arc<Function>);

impl From<Arc<Function>> for Object {
    fn from(function: Arc<Function>) -> Self {
        Self(function)
    }
}

impl Deref for Object {
    type Target = Function;

    fn deref(&self) -> &Function {
        &self.0
    }
}

/// The Function's own, so that kube's reflector and applier take it for one.
impl Resource for Object {
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
        &mut Arc::make_mut(&mut self.0).metadata
    }
}

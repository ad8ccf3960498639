//! (pure) What the store must be told so that it says what the files say.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Problem,
    scan::{Definition, Scan},
};
use crate::{
    function::{Function, FunctionKey, SOURCE_DIGEST, SOURCE_ERROR},
    store::Manager,
};

/// What is to be done now, and what is to be looked at again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Functions with the files that define them.
    pub applies: Vec<(Function, PathBuf)>,
    /// Functions that no file defines any more, with the files that did.
    pub deletes: Vec<(FunctionKey, PathBuf)>,
    pub problems: Vec<Problem>,
    /// Bad news, believed only when the next scan brings it again: an editor may just have moved a file away to write it
    /// anew, and a tree that is being removed loses its files before itself.
    pub doubts: BTreeSet<FunctionKey>,
}

/// Compares what the files say with what the store holds. `doubts` are those of the plan before this.
///
/// * The first definition of a name serves; the others are problems.
/// * What cannot be read holds on to what it said before.
/// * What the API manages is never taken over.
/// * Objects of directories that are not watched are left as they are, and reported: a forgotten `--dir` must not end what
///   it held.
pub fn plan(
    scan: Scan,
    objects: &[Arc<Function>],
    roots: &[PathBuf],
    doubts: &BTreeSet<FunctionKey>,
) -> Plan {
    let mut planner = Planner {
        objects: objects
            .iter()
            .filter_map(|object| Some((FunctionKey::try_from(&**object).ok()?, &**object)))
            .collect(),
        unknown: &scan.unknown,
        doubts,
        plan: Plan {
            problems: scan.problems,
            ..Plan::default()
        },
    };
    let mut serving: BTreeMap<FunctionKey, PathBuf> = BTreeMap::new();
    for definition in scan.definitions {
        let key = definition.key.clone();
        if let Some(first) = serving.get(&key) {
            planner.duplicate(&definition, first);
        } else if let Some(file) = planner.define(definition) {
            serving.insert(key, file);
        }
    }
    planner.prune(&serving, roots);
    planner.plan
}

/// Whether a file lies below one of the watched directories.
#[must_use]
pub fn is_watched(roots: &[PathBuf], file: &Path) -> bool {
    roots.iter().any(|root| file.starts_with(root))
}

struct Planner<'a> {
    objects: BTreeMap<FunctionKey, &'a Function>,
    unknown: &'a BTreeSet<PathBuf>,
    doubts: &'a BTreeSet<FunctionKey>,
    plan: Plan,
}

impl Planner<'_> {
    /// Plans a definition, and answers which file serves the name; none when this definition cannot.
    fn define(&mut self, definition: Definition) -> Option<PathBuf> {
        let current = self.objects.get(&definition.key).copied();
        match current.map(Manager::of) {
            Some(Manager::Api) => {
                let message = format!(
                    "function {} exists and is managed by the API: `faas delete` it first, or name this one differently",
                    definition.key
                );
                self.problem(&definition, message);
                return None;
            }
            Some(Manager::Directory { file })
                if file != definition.file && self.is_unknown(&file) =>
            {
                self.duplicate(&definition, &file);
                return Some(file);
            }
            _ => {}
        }
        // While the old one goes away there is nothing to apply to; its end brings the next scan.
        let file = definition.file.clone();
        if current.is_none_or(|object| object.metadata.deletion_timestamp.is_none()) {
            let function = self.with_source(definition, current);
            self.plan.applies.push((function, file.clone()));
        }
        Some(file)
    }

    /// The Function with what became of its directory in its annotations.
    fn with_source(&mut self, definition: Definition, current: Option<&Function>) -> Function {
        let (name, value) = match &definition.source {
            None => return definition.function,
            Some(Ok(digest)) => (SOURCE_DIGEST, digest.clone()),
            Some(Err(error)) => match self.last_digest(&definition.key, current) {
                Some(digest) => (SOURCE_DIGEST, digest),
                None => (SOURCE_ERROR, error.clone()),
            },
        };
        if let Some(Err(error)) = &definition.source {
            self.problem(&definition, format!("source.directory: {error}"));
        }
        let mut function = definition.function;
        function
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(name.to_owned(), value);
        function
    }

    /// What to go by while it is not sure that a source is broken: the first time it may be read amid a change.
    fn last_digest(&mut self, key: &FunctionKey, current: Option<&Function>) -> Option<String> {
        let digest = current?
            .metadata
            .annotations
            .as_ref()?
            .get(SOURCE_DIGEST)?
            .clone();
        self.plan.doubts.insert(key.clone());
        (!self.doubts.contains(key)).then_some(digest)
    }

    fn prune(&mut self, serving: &BTreeMap<FunctionKey, PathBuf>, roots: &[PathBuf]) {
        for (key, object) in std::mem::take(&mut self.objects) {
            let Manager::Directory { file } = Manager::of(object) else {
                continue;
            };
            let is_going = object.metadata.deletion_timestamp.is_some();
            if is_going || serving.contains_key(&key) || self.is_unknown(&file) {
                continue;
            }
            if !is_watched(roots, &file) {
                self.plan
                    .problems
                    .push(Problem::new(&file, not_watched(&key)));
                continue;
            }
            if self.doubts.contains(&key) {
                self.plan.deletes.push((key.clone(), file));
            }
            self.plan.doubts.insert(key);
        }
    }

    fn is_unknown(&self, file: &Path) -> bool {
        file.ancestors().any(|path| self.unknown.contains(path))
    }

    fn duplicate(&mut self, definition: &Definition, first: &Path) {
        let message = format!(
            "function {} is defined by {} already: remove one of them",
            definition.key,
            first.display()
        );
        self.problem(definition, message);
    }

    fn problem(&mut self, definition: &Definition, message: String) {
        self.plan.problems.push(Problem {
            line: Some(definition.line),
            ..Problem::new(&definition.file, message)
        });
    }
}

fn not_watched(key: &FunctionKey) -> String {
    format!(
        "function {key} comes from this file, which is in no watched directory: it stays as it is; start with --dir for its \
         directory again, or remove it with `faas delete`"
    )
}

#[cfg(test)]
mod tests;

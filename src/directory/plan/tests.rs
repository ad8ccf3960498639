//! Small worlds of files and objects, all of them: what is planned is right, and carrying it out comes to rest.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::function::{FILE, MANAGED_BY};

const FILES: [&str; 3] = ["/root/a.yaml", "/root/b.yaml", "/elsewhere/c.yaml"];
const NAMES: [&str; 2] = ["one", "two"];

fn function(name: &str, manager: Option<&str>) -> Function {
    let annotations = match manager {
        None => json!({}),
        Some("api") => json!({MANAGED_BY: "api"}),
        Some(file) => json!({MANAGED_BY: "directory", FILE: file}),
    };
    serde_json::from_value(json!({
        "apiVersion": "faas.dev/v1alpha1", "kind": "Function",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {"language": "node", "source": {"directory": "code"}},
    }))
    .unwrap()
}

fn definition(name: &str, file: &str, source: Option<Result<String, String>>) -> Definition {
    Definition {
        key: name.parse().unwrap(),
        function: function(name, None),
        file: file.into(),
        line: 1,
        source,
    }
}

fn roots() -> Vec<PathBuf> {
    vec!["/root".into()]
}

/// Plans until nothing is in doubt any more, as if every plan were carried out at once.
fn settle(scan: &Scan, objects: &[Arc<Function>]) -> (BTreeMap<FunctionKey, PathBuf>, Plan) {
    let mut held: BTreeMap<FunctionKey, Function> = objects
        .iter()
        .map(|object| {
            (
                FunctionKey::try_from(&**object).unwrap(),
                Function::clone(object),
            )
        })
        .collect();
    let mut doubts = BTreeSet::new();
    for _ in 0..3 {
        let objects: Vec<_> = held.values().cloned().map(Arc::new).collect();
        let plan = plan(scan.clone(), &objects, &roots(), &doubts);
        for (function, file) in &plan.applies {
            let key = FunctionKey::try_from(function).unwrap();
            held.insert(key.clone(), self::function(key.name(), file.to_str()));
        }
        for (key, _) in &plan.deletes {
            held.remove(key);
        }
        doubts = plan.doubts;
    }
    let objects: Vec<_> = held.values().cloned().map(Arc::new).collect();
    let files = held.iter().map(|(key, function)| {
        let file = match Manager::of(function) {
            Manager::Directory { file } => file,
            Manager::Api => "api".into(),
        };
        (key.clone(), file)
    });
    (
        files.collect(),
        plan(scan.clone(), &objects, &roots(), &doubts),
    )
}

#[test]
fn a_name_that_went_is_deleted_when_it_is_missed_twice() {
    let objects = [Arc::new(function("one", Some(FILES[0])))];
    let first = plan(Scan::default(), &objects, &roots(), &BTreeSet::new());
    assert_eq!((first.deletes.len(), first.doubts.len()), (0, 1));
    let second = plan(Scan::default(), &objects, &roots(), &first.doubts);
    assert_eq!(
        second.deletes,
        [("one".parse().unwrap(), PathBuf::from(FILES[0]))]
    );
    let back = Scan {
        definitions: vec![definition("one", FILES[0], None)],
        ..Scan::default()
    };
    assert_eq!(
        plan(back, &objects, &roots(), &first.doubts).doubts,
        BTreeSet::new()
    );
}

#[test]
fn a_broken_source_keeps_its_digest_until_it_is_broken_twice() {
    let mut object = function("one", Some(FILES[0]));
    object
        .metadata
        .annotations
        .as_mut()
        .unwrap()
        .insert(SOURCE_DIGEST.into(), "old".into());
    let objects = [Arc::new(object)];
    let scan = Scan {
        definitions: vec![definition("one", FILES[0], Some(Err("gone".into())))],
        ..Scan::default()
    };
    let annotation = |plan: &Plan, name| {
        plan.applies[0]
            .0
            .metadata
            .annotations
            .as_ref()
            .unwrap()
            .get(name)
            .cloned()
    };
    let first = plan(scan.clone(), &objects, &roots(), &BTreeSet::new());
    assert_eq!(annotation(&first, SOURCE_DIGEST), Some("old".into()));
    let second = plan(scan.clone(), &objects, &roots(), &first.doubts);
    assert_eq!(annotation(&second, SOURCE_DIGEST), None);
    assert_eq!(annotation(&second, SOURCE_ERROR), Some("gone".into()));
    let new = plan(scan.clone(), &[], &roots(), &BTreeSet::new());
    assert_eq!(
        annotation(&new, SOURCE_ERROR),
        Some("gone".into()),
        "there is nothing to hold on to"
    );
}

prop_compose! {
    fn world()(
        held in prop::collection::vec(prop::option::of(prop::sample::select(vec![FILES[0], FILES[1], FILES[2], "api"])), 2),
        said in prop::collection::vec((0..2_usize, 0..2_usize), 0..4),
        unknown in prop::collection::btree_set(prop::sample::select(vec![FILES[0], FILES[1], "/root"]), 0..2),
    ) -> (Vec<Arc<Function>>, Scan) {
        let objects = held.iter().zip(NAMES).filter_map(|(by, name)| Some(Arc::new(function(name, Some((*by)?)))));
        let mut definitions: Vec<_> = said.iter().map(|(file, name)| definition(NAMES[*name], FILES[*file], None)).collect();
        definitions.sort_by(|a, b| a.file.cmp(&b.file));
        let unknown = unknown.into_iter().map(PathBuf::from).collect();
        (objects.collect(), Scan { definitions, unknown, ..Scan::default() })
    }
}

proptest! {
    #[test]
    fn plans_come_to_what_the_files_say_and_touch_nothing_else((objects, scan) in world()) {
        let (held, last) = settle(&scan, &objects);
        prop_assert!(last.deletes.is_empty() && last.doubts.is_empty(), "it comes to rest: {last:?}");
        let is_unknown = |file: &Path| file.ancestors().any(|path| scan.unknown.contains(path));
        for object in &objects {
            let key = FunctionKey::try_from(&**object).unwrap();
            let is_said = scan.definitions.iter().any(|definition| definition.key == key);
            let now = held.get(&key);
            match Manager::of(object) {
                Manager::Api => prop_assert_eq!(now, Some(&PathBuf::from("api"))),
                Manager::Directory { file } if is_unknown(&file) => prop_assert!(now.is_some()),
                Manager::Directory { file } if file.starts_with("/elsewhere") => prop_assert!(now.is_some()),
                Manager::Directory { .. } => prop_assert_eq!(now.is_some(), is_said),
            }
        }
        for definition in &scan.definitions {
            prop_assert!(held.contains_key(&definition.key), "what is said is there");
        }
    }

    #[test]
    fn nothing_is_deleted_on_the_first_sight((objects, scan) in world()) {
        prop_assert!(plan(scan.clone(), &objects, &roots(), &BTreeSet::new()).deletes.is_empty());
    }
}

//! Exits of our containers, from the engine's events.

use std::collections::{HashMap, HashSet};

use bollard::{Docker, models::EventMessage, query_parameters::EventsOptionsBuilder};
use futures::{StreamExt, future::ready, stream::BoxStream};

use super::container::{OWNER, identity};
use crate::runtime::Exit;

/// Exits since `since` (the engine's clock, so that none is missed between the call and the first event). Ends with the
/// connection.
pub fn exits(docker: &Docker, owner: &str, since: &str) -> BoxStream<'static, Exit> {
    let owned = format!("{OWNER}={owner}");
    let filters = HashMap::from([
        ("type", vec!["container"]),
        ("event", vec!["die", "oom"]),
        ("label", vec![owned.as_str()]),
    ]);
    let options = EventsOptionsBuilder::new()
        .since(since)
        .filters(&filters)
        .build();
    let mut starved = Starved::default();
    docker
        .events(Some(options))
        .take_while(|event| ready(event.is_ok()))
        .filter_map(move |event| ready(event.ok().and_then(|event| starved.exit(&event))))
        .boxed()
}

/// Containers of which a process was killed for want of memory; their end comes as another event.
#[derive(Default)]
struct Starved(HashSet<String>);

impl Starved {
    fn exit(&mut self, event: &EventMessage) -> Option<Exit> {
        let actor = event.actor.as_ref()?;
        let container = actor.id.as_ref()?;
        if event.action.as_deref() == Some("oom") {
            self.0.insert(container.clone());
            return None;
        }
        let starved = self.0.remove(container);
        let attributes = actor.attributes.as_ref()?;
        let (id, function) = identity(attributes)?;
        let code = attributes.get("exitCode")?.parse().ok()?;
        Some(Exit {
            id,
            function,
            code,
            // A child may be killed and the program live on to a good end.
            out_of_memory: starved && code != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn event(action: &str, container: &str, code: &str) -> EventMessage {
        let attributes = [
            ("exitCode", code),
            ("faas.dev/namespace", "default"),
            ("faas.dev/function", "sum"),
            ("faas.dev/instance", "faas-sum-1"),
        ];
        EventMessage {
            action: Some(action.to_owned()),
            actor: Some(EventActor {
                id: Some(container.to_owned()),
                attributes: Some(attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            }),
            ..EventMessage::default()
        }
    }

    #[test]
    fn an_end_for_want_of_memory_is_told_from_others() {
        let mut starved = Starved::default();
        assert_eq!(starved.exit(&event("oom", "a", "")), None);
        assert!(!starved.exit(&event("die", "b", "1")).unwrap().out_of_memory);
        let end = starved.exit(&event("die", "a", "137")).unwrap();
        assert!(end.out_of_memory && end.code == 137 && end.id == "faas-sum-1");
        assert!(
            !starved
                .exit(&event("die", "a", "137"))
                .unwrap()
                .out_of_memory
        );
    }

    #[test]
    fn a_good_end_after_a_killed_child_is_good() {
        let mut starved = Starved::default();
        starved.exit(&event("oom", "a", ""));
        assert!(!starved.exit(&event("die", "a", "0")).unwrap().out_of_memory);
    }

    #[test]
    fn an_event_without_our_labels_is_no_exit() {
        assert_eq!(Starved::default().exit(&EventMessage::default()), None);
    }
}

//! Exits of our containers, from the engine's events.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use async_stream::stream;
use bollard::{Docker, models::EventMessage, query_parameters::EventsOptionsBuilder};
use futures::{Stream, StreamExt, future::ready, pin_mut, stream::BoxStream};
use tokio::time::{Instant, timeout_at};

use super::container::{OWNER, identity, is_instance};
use crate::runtime::{End, Exit};

/// Exit code of a program that was killed.
const KILLED: i64 = 137;
/// How long after an end its cause may be told.
const LATE: Duration = Duration::from_millis(300);

/// Exits since `since` (the engine's clock, so that none is missed between the call and the first event). Ends with the
/// connection.
pub fn exits(docker: &Docker, owner: &str, since: &str) -> BoxStream<'static, Exit> {
    let owned = format!("{OWNER}={owner}");
    let filters = HashMap::from([
        ("type", vec!["container"]),
        ("event", vec!["die", "kill", "oom", "pause"]),
        ("label", vec![owned.as_str()]),
    ]);
    let options = EventsOptionsBuilder::new()
        .since(since)
        .filters(&filters)
        .build();
    let events = docker
        .events(Some(options))
        .take_while(|event| ready(event.is_ok()))
        .filter_map(|event| ready(event.ok()));
    told(events).boxed()
}

/// The exits among events.
fn told(events: impl Stream<Item = EventMessage>) -> impl Stream<Item = Exit> {
    stream! {
        pin_mut!(events);
        let mut causes = Causes::default();
        let mut others = VecDeque::new();
        while let Some(event) = match others.pop_front() {
            Some(event) => Some(event),
            None => events.next().await,
        } {
            let Some(mut exit) = causes.exit(&event) else {
                continue;
            };
            if exit.end == End::Itself && exit.code == KILLED {
                // Want of memory may be told after the end that it brought.
                let deadline = Instant::now() + LATE;
                while let Ok(Some(next)) = timeout_at(deadline, events.next()).await {
                    if next.action.as_deref() == Some("oom") && container(&next) == container(&event) {
                        exit.end = End::OutOfMemory;
                        break;
                    }
                    others.push_back(next);
                }
            }
            yield exit;
        }
    }
}

fn container(event: &EventMessage) -> Option<&String> {
    event.actor.as_ref()?.id.as_ref()
}

/// What may end containers soon, by events that come before those of their ends.
#[derive(Default)]
struct Causes(HashMap<String, End>);

impl Causes {
    fn exit(&mut self, event: &EventMessage) -> Option<Exit> {
        let actor = event.actor.as_ref()?;
        let container = actor.id.as_ref()?;
        let attributes = actor.attributes.as_ref()?;
        let told = |what| attributes.get(what).map_or("", String::as_str);
        if !is_instance(attributes, told("name"), told("image")) {
            return None;
        }
        let cause = match event.action.as_deref()? {
            "oom" => Some(End::OutOfMemory),
            "kill" if attributes.get("signal").is_some_and(|s| ends(s)) => Some(End::Engine),
            "kill" => return None,
            _ => None,
        };
        if let Some(cause) = cause {
            self.0.entry(container.clone()).or_insert(cause);
            return None;
        }
        let (id, function) = identity(attributes)?;
        if event.action.as_deref() == Some("pause") {
            return Some(Exit {
                id,
                function,
                code: 0,
                end: End::Paused,
            });
        }
        let cause = self.0.remove(container).unwrap_or(End::Itself);
        let code = attributes.get("exitCode")?.parse().ok()?;
        // A child may be killed for want of memory and the program live on to a good end.
        let end = match cause {
            End::OutOfMemory if code == 0 => End::Itself,
            cause => cause,
        };
        Some(Exit {
            id,
            function,
            code,
            end,
        })
    }
}

/// Whether programs end by this signal, TERM or KILL.
fn ends(signal: &str) -> bool {
    ["9", "15"].contains(&signal)
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn event(action: &str, container: &str, code: &str) -> EventMessage {
        let attributes = [
            ("exitCode", code),
            ("signal", code),
            ("faas.dev/namespace", "default"),
            ("faas.dev/function", "sum"),
            ("faas.dev/instance", "faas-sum-1"),
            ("name", "faas-sum-1"),
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
    fn an_end_is_told_by_what_came_before_it() {
        for (before, code, end) in [
            (&[][..], "1", End::Itself),
            (&["oom"], "137", End::OutOfMemory),
            (&["oom"], "0", End::Itself),
            (&["9"], "137", End::Engine),
            (&["15"], "143", End::Engine),
            (&["oom", "9"], "137", End::OutOfMemory),
            (&["1"], "129", End::Itself),
        ] {
            let mut causes = Causes::default();
            for what in before {
                let action = if *what == "oom" { "oom" } else { "kill" };
                assert_eq!(causes.exit(&event(action, "a", what)), None);
            }
            let other = causes.exit(&event("die", "b", code)).unwrap();
            assert_eq!(other.end, End::Itself, "{before:?}");
            let exit = causes.exit(&event("die", "a", code)).unwrap();
            assert_eq!(
                (exit.end, exit.id.as_str()),
                (end, "faas-sum-1"),
                "{before:?}"
            );
            assert_eq!(causes.0.len(), 0);
        }
    }

    #[tokio::test]
    async fn want_of_memory_is_told_though_it_comes_after_the_end() {
        let events = [
            event("die", "a", "137"),
            event("die", "b", "1"),
            event("oom", "a", ""),
            event("die", "c", "137"),
        ];
        let exits: Vec<_> = told(futures::stream::iter(events)).collect().await;
        let ends = exits.iter().map(|exit| (exit.code, exit.end));
        let expected = [
            (137, End::OutOfMemory),
            (1, End::Itself),
            (137, End::Itself),
        ];
        assert!(ends.eq(expected), "{exits:?}");
    }

    #[test]
    fn an_event_without_our_labels_is_no_exit() {
        assert_eq!(Causes::default().exit(&EventMessage::default()), None);
    }
}

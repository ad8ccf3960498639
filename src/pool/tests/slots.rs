//! The counts of [`Slots`], by tables.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::super::slots::*;
use crate::{
    function::Revision,
    plan::{Manners, Phase},
    pool::{QueueFull, Route},
};

type Counted = Slots<String, u32>;

fn revision(name: &str) -> Revision {
    Revision::of([name.as_bytes()])
}

fn route(name: &str, concurrency: u32, manners: Manners) -> Arc<Route> {
    let timeout = Duration::from_secs(30);
    Arc::new(Route {
        revision: revision(name),
        concurrency,
        manners,
        timeout,
    })
}

fn add(slots: &mut Counted, name: &str, id: &str) -> Vec<u32> {
    who(slots.add(
        id.to_owned(),
        revision(name),
        Arc::new(id.to_owned()),
        Instant::now(),
    ))
}

/// Who got a slot.
fn who(grants: Vec<Grant<String, u32>>) -> Vec<u32> {
    grants.into_iter().map(|grant| grant.waiter).collect()
}

fn take(slots: &mut Counted) -> Option<String> {
    slots.take().map(|(instance, _)| instance.to_string())
}

fn end(slots: &mut Counted, id: &str) -> (Vec<u32>, bool) {
    let instance = slots.handles().find(|handle| ***handle == id).cloned();
    let ended = slots.end(&instance.unwrap(), Instant::now());
    (who(ended.grants), ended.turn)
}

fn phase(slots: &Counted, id: &str) -> Option<Phase> {
    slots.instances().find(|i| i.id == id).map(|i| i.phase)
}

/// Two instances of `a`, each with two calls at a time.
fn two() -> Counted {
    let mut slots = Counted::default();
    slots.serve(Some(route("a", 2, Manners::Stays)));
    add(&mut slots, "a", "1");
    add(&mut slots, "a", "2");
    slots
}

#[test]
fn the_oldest_with_a_free_slot_takes_the_call() {
    let mut slots = two();
    let taken: Vec<_> = (0..5).map(|_| take(&mut slots)).collect();
    assert_eq!(
        taken.iter().flatten().collect::<Vec<_>>(),
        ["1", "1", "2", "2"]
    );
    end(&mut slots, "2");
    end(&mut slots, "1");
    assert_eq!(take(&mut slots).as_deref(), Some("1"));
}

#[test]
fn nobody_overtakes_who_waits() {
    let mut slots = two();
    for _ in 0..4 {
        take(&mut slots).unwrap();
    }
    let tickets: Vec<_> = (0..3).map(|caller| slots.wait(caller).unwrap()).collect();
    assert!(slots.leave(tickets[1], Instant::now()));
    assert!(!slots.leave(tickets[1], Instant::now()), "it has left");
    assert_eq!(end(&mut slots, "2"), (vec![0], false));
    assert_eq!(take(&mut slots), None);
    assert_eq!(add(&mut slots, "a", "3"), [2]);
    assert!(
        !slots.leave(tickets[2], Instant::now()),
        "its turn has come"
    );
    assert_eq!(take(&mut slots).as_deref(), Some("3"));
}

#[test]
fn the_queue_is_bounded() {
    let mut slots = Counted::default();
    for caller in 0..1000 {
        slots.wait(caller).unwrap();
    }
    assert_eq!(
        slots.wait(1000),
        Err(QueueFull {
            waiting: 1000,
            takes: None
        })
    );
    assert_eq!(slots.dismiss(), (0..1000).collect::<Vec<_>>());
    assert_eq!(slots.demand().waiting, 0);
    assert!(slots.wait(0).is_ok());
}

#[test]
fn a_queue_whose_turns_come_is_no_longer_than_a_part_of_the_patience() {
    let mut slots = two();
    slots.set_patience(Duration::from_secs(20));
    let begin = Instant::now();
    let mut calls = vec![];
    while let Some((instance, _)) = slots.take() {
        calls.push(instance);
    }
    let mut waiting = 0..;
    let mut wait = |slots: &mut Counted| slots.wait(waiting.next().unwrap());
    for _ in 0..300 {
        wait(&mut slots).unwrap();
    }
    // Ten turns in a second, after the one that begins it.
    for turn in 0..=10 {
        let call = &calls[turn % calls.len()];
        let now = begin + Duration::from_millis(100) * u32::try_from(turn).unwrap();
        assert_eq!(slots.end(call, now).grants.len(), 1);
    }
    let takes = Some(Duration::from_millis(28_900));
    assert_eq!(
        wait(&mut slots),
        Err(QueueFull {
            waiting: 289,
            takes
        })
    );
    for first in 11..250 {
        assert!(
            slots.leave(first, Instant::now()),
            "tickets are numbers from 0"
        );
    }
    wait(&mut slots).unwrap();
    assert!(wait(&mut slots).is_err(), "5.1 of 20 s");

    // With more instances turns may come faster, and after a pause too.
    add(&mut slots, "a", "3");
    wait(&mut slots).unwrap();
}

#[test]
fn a_few_may_wait_however_slowly_turns_come() {
    let mut slots = Counted::default();
    slots.serve(Some(route("a", 1, Manners::Stays)));
    add(&mut slots, "a", "1");
    let (call, _) = slots.take().unwrap();
    for caller in 0..10 {
        slots.wait(caller).unwrap();
    }
    let begin = Instant::now();
    for minute in 0..3 {
        slots.end(&call, begin + Duration::from_secs(60 * minute));
    }
    for caller in 0..9 {
        slots.wait(caller).unwrap();
    }
    let takes = Some(Duration::from_secs(16 * 60));
    assert_eq!(slots.wait(99), Err(QueueFull { waiting: 16, takes }));
}

#[test]
fn serving() {
    let mut slots = two();
    take(&mut slots).unwrap();
    add(&mut slots, "b", "new");
    slots.serve(Some(route("a", 1, Manners::Single)));
    assert_eq!(
        phase(&slots, "new"),
        Some(Phase::Ready),
        "on its way, whatever the terms of the old one"
    );
    assert_eq!(
        take(&mut slots).as_deref(),
        Some("2"),
        "the new terms hold at once"
    );
    assert_eq!(take(&mut slots), None);
    slots.wait(7).unwrap();
    assert_eq!(who(slots.serve(Some(route("b", 2, Manners::Stays)))), [7]);
    let phases = ["1", "2", "new"].map(|id| phase(&slots, id).unwrap());
    assert_eq!(phases, [Phase::Draining, Phase::Draining, Phase::Ready]);
    assert_eq!(end(&mut slots, "1"), (vec![], true), "an old one is done");
    slots.serve(None);
    assert_eq!(
        (take(&mut slots), phase(&slots, "new")),
        (None, Some(Phase::Draining))
    );
}

#[test]
fn what_was_adopted_before_the_route_is_known_stays() {
    let mut slots = Counted::default();
    add(&mut slots, "a", "1");
    assert_eq!(take(&mut slots), None);
    slots.serve(None);
    slots.serve(Some(route("a", 1, Manners::Stays)));
    assert_eq!(take(&mut slots).as_deref(), Some("1"));
}

#[test]
fn an_answer_decides_what_comes_after_it() {
    let now = Instant::now();
    for (manners, answered, expected, turn) in [
        (Manners::Stays, true, Phase::Ready, false),
        (Manners::Unknown, true, Phase::Probation(now), true),
        (Manners::Single, true, Phase::Leaving(now), true),
        (Manners::Unknown, false, Phase::Ready, false),
        (Manners::Single, false, Phase::Ready, false),
    ] {
        let mut slots = Counted::default();
        slots.serve(Some(route("a", 16, manners)));
        add(&mut slots, "a", "1");
        take(&mut slots).unwrap();
        let one_at_a_time = manners != Manners::Stays;
        assert_eq!(take(&mut slots).is_none(), one_at_a_time, "{manners:?}");
        if !one_at_a_time {
            end(&mut slots, "1");
        }
        if answered {
            slots.answered("1");
        }
        let instance = Arc::clone(slots.handles().next().unwrap());
        assert_eq!(slots.end(&instance, now).turn, turn, "{manners:?}");
        assert_eq!(phase(&slots, "1"), Some(expected), "{manners:?}");
        assert_eq!(slots.demand().last_call, Some(now));
    }
}

#[test]
fn who_stays_after_its_first_call_takes_the_next() {
    let mut slots = Counted::default();
    slots.serve(Some(route("a", 16, Manners::Unknown)));
    add(&mut slots, "a", "1");
    take(&mut slots).unwrap();
    slots.answered("1");
    end(&mut slots, "1");
    assert_eq!(take(&mut slots), None);
    slots.wait(5).unwrap();
    assert_eq!(who(slots.settle("1")), [5]);
}

#[test]
fn who_is_on_probation_when_its_kind_is_learnt_leaves_too() {
    let mut slots = Counted::default();
    slots.serve(Some(route("a", 16, Manners::Unknown)));
    add(&mut slots, "a", "1");
    take(&mut slots).unwrap();
    slots.answered("1");
    let now = Instant::now();
    let instance = Arc::clone(slots.handles().next().unwrap());
    slots.end(&instance, now);
    slots.serve(Some(route("a", 16, Manners::Single)));
    assert_eq!(phase(&slots, "1"), Some(Phase::Leaving(now)));
    slots.settle("1");
    assert_eq!(take(&mut slots), None);
}

#[test]
fn only_the_idle_are_retired() {
    let mut slots = two();
    take(&mut slots).unwrap();
    assert!(!slots.retire("1"), "it has a call");
    assert!(slots.retire("2"));
    assert!(slots.retire("2"), "said twice");
    assert!(!slots.retire("unknown"));
    slots.serve(Some(route("b", 1, Manners::Stays)));
    end(&mut slots, "1");
    assert!(slots.retire("1"), "it was drained meanwhile");
}

#[test]
fn the_condemned_get_no_more_calls() {
    let mut slots = two();
    take(&mut slots).unwrap();
    assert!(slots.condemn("1"));
    assert_eq!(take(&mut slots).as_deref(), Some("2"));
    assert_eq!(
        end(&mut slots, "1"),
        (vec![], true),
        "its last call is over"
    );
    slots.settle("1");
    assert_eq!(phase(&slots, "1"), Some(Phase::Condemned));
    assert!(!slots.condemn("unknown"));
}

#[test]
fn what_a_call_broke_off_on_gets_no_more_calls() {
    let mut slots = two();
    take(&mut slots).unwrap();
    let began = Instant::now();
    assert!(slots.broke("1", began));
    assert!(
        slots.broke("1", began + Duration::from_secs(1)),
        "so did another call"
    );
    assert_eq!(phase(&slots, "1"), Some(Phase::Broken(began)));
    assert_eq!(take(&mut slots).as_deref(), Some("2"));
    assert_eq!(end(&mut slots, "1"), (vec![], true));
    assert!(slots.condemn("1"));
    assert!(slots.broke("1", began));
    assert_eq!(
        phase(&slots, "1"),
        Some(Phase::Condemned),
        "nothing worse can come"
    );
    assert!(!slots.broke("unknown", began));
}

#[test]
fn the_end_of_a_call_after_its_instance_is_no_matter() {
    let mut slots = two();
    let (instance, _) = slots.take().unwrap();
    assert_eq!(slots.remove("1").unwrap().phase, Phase::Ready);
    assert!(slots.remove("1").is_none());
    assert!(!slots.end(&instance, Instant::now()).turn);

    // Found again, with none of its calls, and with one of its own.
    add(&mut slots, "a", "1");
    for _ in 0..4 {
        slots.take().unwrap();
    }
    slots.end(&instance, Instant::now());
    let in_flight: Vec<_> = slots.instances().map(|i| i.in_flight).collect();
    assert_eq!(in_flight, [2, 2], "those of now, and none of before");
}

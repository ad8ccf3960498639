//! What owner and borrower count of instances that are lent.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::super::{Route, slots::Slots};
use crate::{
    function::Revision,
    plan::{Manners, Phase},
};

type Counts = Slots<String, ()>;

fn revision(name: &str) -> Revision {
    Revision::of([name.as_bytes()])
}

fn route(name: &str, concurrency: u32, manners: Manners) -> Arc<Route> {
    Arc::new(Route {
        revision: revision(name),
        concurrency,
        manners,
        timeout: Duration::from_secs(30),
    })
}

/// An owner with an instance of which `lent` slots are somebody's.
fn owner(lent: u32, now: Instant) -> (Counts, Arc<String>) {
    let mut slots = Counts::default();
    slots.serve(Some(route("a", 4, Manners::Stays)));
    let instance = Arc::new("one".to_owned());
    slots.add("one".into(), revision("a"), Arc::clone(&instance), now);
    for _ in 0..lent {
        slots.take().unwrap();
    }
    (slots, instance)
}

fn seen(slots: &Counts) -> (Phase, u32, Instant) {
    let one = slots.instances().next().unwrap();
    (one.phase, one.in_flight, one.idle_since)
}

#[test]
fn a_lease_that_rests_is_no_load_but_keeps_an_instance_from_ending() {
    let now = Instant::now();
    let later = now + Duration::from_secs(5);
    let (mut slots, instance) = owner(2, now);
    assert_eq!(seen(&slots), (Phase::Ready, 2, now));
    slots.rest(&instance, None);
    slots.rest(&instance, Some(later));
    assert_eq!(seen(&slots), (Phase::Ready, 0, later));
    slots.wake(&instance);
    assert_eq!(seen(&slots), (Phase::Ready, 1, later));
    assert!(!slots.retire("one"), "it has a call");
    assert_eq!(seen(&slots).0, Phase::Ready);
    slots.rest(&instance, None);
    assert!(!slots.retire("one"), "it may have one at any time");
    assert_eq!(seen(&slots), (Phase::Draining, 2, later));
    let excess: Vec<_> = slots.excess().map(|(_, count)| count).collect();
    assert_eq!(excess, [2], "all is asked back");
    assert!(!slots.give_back(&instance, later).turn);
    assert!(slots.give_back(&instance, later).turn, "now it can end");
    assert!(slots.retire("one"));
}

#[test]
fn more_may_be_held_than_terms_allow_until_it_comes_back() {
    let now = Instant::now();
    let (mut slots, instance) = owner(4, now);
    let excess = |slots: &Counts| slots.excess().map(|(_, count)| count).sum::<u32>();
    assert_eq!(excess(&slots), 0);
    slots.serve(Some(route("a", 1, Manners::Stays)));
    assert_eq!(excess(&slots), 3);
    for _ in 0..3 {
        slots.end(&instance, now);
    }
    assert_eq!((excess(&slots), slots.take()), (0, None));
    slots.claim("one").unwrap();
    assert_eq!(excess(&slots), 1, "whoever held it did so before");
    assert_eq!(slots.claim("another"), None);
}

#[test]
fn what_is_held_back_is_nobodys_until_all_is_known() {
    let now = Instant::now();
    let (mut slots, _) = owner(4, now);
    slots.add_held_back(
        ("two".into(), revision("a")),
        Arc::new("two".to_owned()),
        now,
    );
    slots.wait(()).unwrap();
    assert_eq!(slots.take(), None);
    assert_eq!(slots.release().len(), 1);
    assert_eq!(*slots.take().unwrap().0, "two");
}

#[test]
fn a_borrower_hands_out_what_it_has_and_gives_back_what_is_asked() {
    let now = Instant::now();
    let mut slots = Counts::default();
    slots.serve(Some(route("a", 4, Manners::Stays)));
    let held = |slots: &Counts| {
        let all = slots.borrowed().next();
        all.map(|loan| (loan.held, loan.busy))
    };
    slots.wait(()).unwrap();
    let lend = |slots: &mut Counts, count| {
        let new = ("one".into(), revision("a"));
        slots.borrow(new, || Arc::new("one".to_owned()), count, now)
    };
    let grants = lend(&mut slots, 2);
    let instance = Arc::clone(&grants[0].instance);
    assert_eq!((grants.len(), held(&slots)), (1, Some((2, 1))));
    assert!(slots.take().is_some());
    assert_eq!(slots.take(), None, "that was all");
    slots.recall("one", 1);
    assert_eq!(held(&slots), Some((2, 2)), "both have calls");
    assert!(slots.end(&instance, now).turn, "the owner hears of it");
    assert_eq!(held(&slots), Some((1, 1)));
    slots.recall("one", 7);
    slots.end(&instance, now);
    assert_eq!(held(&slots), Some((0, 0)));
    // One that is lent later is not owed.
    lend(&mut slots, 1);
    slots.take().unwrap();
    slots.end(&instance, now);
    assert_eq!(held(&slots), Some((1, 0)));
    slots.forsake();
    assert_eq!(held(&slots), Some((0, 0)));
}

#[test]
fn what_is_out_of_service_goes_back_unasked() {
    let now = Instant::now();
    for out in [
        (|slots: &mut Counts| drop(slots.serve(Some(route("b", 4, Manners::Stays)))))
            as fn(&mut Counts),
        |slots| assert!(slots.condemn("one")),
        |slots| assert!(slots.broke("one", Instant::now())),
    ] {
        let mut slots = Counts::default();
        slots.serve(Some(route("a", 4, Manners::Stays)));
        let new = ("one".into(), revision("a"));
        slots.borrow(new.clone(), || Arc::new("one".to_owned()), 3, now);
        let (instance, _) = slots.take().unwrap();
        out(&mut slots);
        let held = |slots: &Counts| slots.borrowed().next().unwrap().held;
        assert_eq!(held(&slots), 1, "what has a call stays until its end");
        assert!(slots.end(&instance, now).turn);
        assert_eq!(held(&slots), 0);
    }
}

#[test]
fn a_program_that_may_exit_goes_back_after_its_answer_and_comes_again_when_it_stays() {
    let now = Instant::now();
    let mut slots = Counts::default();
    slots.serve(Some(route("a", 4, Manners::Unknown)));
    let new = ("one".into(), revision("a"));
    slots.borrow(new.clone(), || Arc::new("one".to_owned()), 1, now);
    let (instance, _) = slots.take().unwrap();
    slots.answered("one");
    assert!(slots.end(&instance, now).turn);
    let loan = slots.borrowed().next().unwrap();
    assert_eq!((loan.held, loan.answered), (0, true));
    slots.serve(Some(route("a", 4, Manners::Stays)));
    slots.borrow(new, || Arc::new("one".to_owned()), 1, now);
    assert!(slots.take().is_some());
}

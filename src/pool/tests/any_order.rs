//! Anything may happen to [`Slots`] in any order: they keep to a model that knows no more than what was promised.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use proptest::prelude::*;

use super::super::slots::*;
use crate::{
    function::Revision,
    plan::{Manners, Phase},
    pool::Route,
};

/// What may happen, with numbers that choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    /// One that was removed is found again.
    Find(u8),
    Call,
    Leave(u8),
    Answer(u8),
    End(u8),
    Retire(u8),
    Condemn(u8),
    Break(u8),
    Settle(u8),
    Remove(u8),
    Serve(Option<Terms>),
    Dismiss,
}

/// A route in short.
#[derive(Clone, Debug)]
struct Terms {
    revision: u8,
    concurrency: u32,
    manners: Manners,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => revision().prop_map(Step::Add),
        1 => any::<u8>().prop_map(Step::Find),
        12 => Just(Step::Call),
        2 => any::<u8>().prop_map(Step::Leave),
        4 => any::<u8>().prop_map(Step::Answer),
        8 => any::<u8>().prop_map(Step::End),
        2 => any::<u8>().prop_map(Step::Retire),
        1 => any::<u8>().prop_map(Step::Condemn),
        1 => any::<u8>().prop_map(Step::Break),
        3 => any::<u8>().prop_map(Step::Settle),
        1 => any::<u8>().prop_map(Step::Remove),
        2 => prop::option::weighted(0.8, terms()).prop_map(Step::Serve),
        1 => Just(Step::Dismiss),
    ]
}

fn revision() -> impl Strategy<Value = u8> {
    0_u8..3
}

fn terms() -> impl Strategy<Value = Terms> {
    let manners = vec![Manners::Stays, Manners::Single, Manners::Unknown];
    (revision(), 1_u32..4, prop::sample::select(manners)).prop_map(
        |(revision, concurrency, manners)| Terms {
            revision,
            concurrency,
            manners,
        },
    )
}

impl Terms {
    fn route(&self) -> Arc<Route> {
        Arc::new(Route {
            revision: named(self.revision),
            concurrency: self.concurrency,
            manners: self.manners,
            timeout: std::time::Duration::from_secs(30),
        })
    }
}

fn named(revision: u8) -> Revision {
    Revision::of([&[revision][..]])
}

/// What an instance is known by: the number of its coming, and its id, which comes again when it is found again.
type Known = (u32, String);

/// An instance as it was promised to be.
#[derive(Debug)]
struct Promised {
    instance: Arc<Known>,
    revision: u8,
    in_flight: u32,
    answered: bool,
    /// It gets no more calls: for good, or until it is settled.
    out: Option<Out>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Out {
    ForGood,
    UntilSettled,
}

/// The slots beside what must be true of them.
#[derive(Default)]
struct Model {
    slots: Slots<Known, u32>,
    terms: Option<Terms>,
    all: Vec<Promised>,
    removed: Vec<(String, u8)>,
    /// Calls under way, those of removed instances too.
    calls: Vec<Arc<Known>>,
    /// Who waits, in order.
    queue: Vec<(Ticket, u32)>,
    callers: u32,
    instances: u32,
}

impl Model {
    /// The n-th of the instances there are.
    fn pick(&mut self, n: u8) -> Option<&mut Promised> {
        let count = self.all.len().max(1);
        self.all.get_mut(usize::from(n) % count)
    }

    fn most(&self) -> u32 {
        self.terms.as_ref().map_or(0, |terms| match terms.manners {
            Manners::Stays => terms.concurrency,
            Manners::Single | Manners::Unknown => 1,
        })
    }

    /// Whether this one may be given a call.
    fn is_free(&self, one: &Promised) -> bool {
        let serves = self.terms.as_ref().map(|t| t.revision) == Some(one.revision);
        serves && one.out.is_none() && one.in_flight < self.most()
    }

    fn call(&mut self) {
        let waits = !self.queue.is_empty();
        if let Some((instance, route)) = self.slots.take() {
            assert!(!waits, "nobody overtakes");
            self.began(&instance, &route);
            return;
        }
        assert!(waits || !self.all.iter().any(|one| self.is_free(one)));
        self.callers += 1;
        let ticket = self.slots.wait(self.callers).unwrap();
        self.queue.push((ticket, self.callers));
    }

    fn began(&mut self, instance: &Arc<Known>, route: &Route) {
        let first = self.all.iter().position(|one| self.is_free(one));
        let one = &mut self.all[first.expect("a slot is free")];
        assert!(
            Arc::ptr_eq(&one.instance, instance),
            "the oldest takes the call: {one:?}"
        );
        one.in_flight += 1;
        assert_eq!(*route, *self.terms.as_ref().unwrap().route());
        self.calls.push(Arc::clone(instance));
    }

    fn granted(&mut self, grants: Vec<Grant<Known, u32>>) {
        for grant in grants {
            let (_, first) = self.queue.remove(0);
            assert_eq!(grant.waiter, first, "first come, first served");
            self.began(&grant.instance, &grant.route);
        }
    }

    fn add(&mut self, id: String, revision: u8) {
        self.instances += 1;
        let instance = Arc::new((self.instances, id.clone()));
        self.all.push(Promised {
            instance: Arc::clone(&instance),
            revision,
            in_flight: 0,
            answered: false,
            out: None,
        });
        let now = Instant::now();
        let grants = self.slots.add(id, named(revision), instance, now);
        self.granted(grants);
    }

    fn end(&mut self, n: u8) {
        let call = self.calls.remove(usize::from(n) % self.calls.len());
        let manners = self.terms.as_ref().map_or(Manners::Stays, |t| t.manners);
        let mut turn = false;
        let mut all = self.all.iter_mut();
        if let Some(one) = all.find(|one| Arc::ptr_eq(&one.instance, &call)) {
            one.in_flight -= 1;
            if one.answered && one.out.is_none() {
                one.out = match manners {
                    Manners::Stays => None,
                    Manners::Unknown => Some(Out::UntilSettled),
                    Manners::Single => Some(Out::ForGood),
                };
            }
            turn = one.in_flight == 0 && one.out.is_some();
        }
        let ended = self.slots.end(&call, Instant::now());
        assert_eq!(ended.turn, turn, "the controller hears of it");
        self.granted(ended.grants);
    }

    fn serve(&mut self, terms: Option<&Terms>) {
        let before = self.terms.as_ref().map(|t| t.revision);
        let now = terms.map(|t| t.revision);
        let single = terms.is_some_and(|t| t.manners == Manners::Single);
        for one in &mut self.all {
            let switched_away = Some(one.revision) == before && before != now;
            let leaves = single && Some(one.revision) == now && one.out.is_some();
            if switched_away || leaves {
                one.out = Some(Out::ForGood);
            }
        }
        self.terms = terms.cloned();
        let grants = self.slots.serve(terms.map(Terms::route));
        self.granted(grants);
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Add(revision) => self.add(format!("new {}", self.instances), revision),
            Step::Find(n) if !self.removed.is_empty() => {
                let n = usize::from(n) % self.removed.len();
                let (id, revision) = self.removed.swap_remove(n);
                self.add(id, revision);
            }
            Step::Call => self.call(),
            Step::Leave(n) if !self.queue.is_empty() => {
                let (ticket, _) = self.queue.remove(usize::from(n) % self.queue.len());
                assert!(self.slots.leave(ticket, Instant::now()));
                assert!(!self.slots.leave(ticket, Instant::now()), "it has left");
            }
            Step::End(n) if !self.calls.is_empty() => self.end(n),
            Step::Serve(ref terms) => self.serve(terms.as_ref()),
            Step::Dismiss => {
                let waiting: Vec<_> = self.queue.drain(..).map(|(_, caller)| caller).collect();
                assert_eq!(self.slots.dismiss(), waiting);
            }
            Step::Remove(n) if !self.all.is_empty() => {
                let one = self.all.remove(usize::from(n) % self.all.len());
                let id = one.instance.1.clone();
                let removed = self.slots.remove(&id).expect("it was there");
                assert!(Arc::ptr_eq(&removed.instance, &one.instance));
                let (busy, answered) = (one.in_flight > 0, one.answered);
                assert_eq!((removed.busy, removed.answered), (busy, answered));
                self.removed.push((id, one.revision));
            }
            Step::Answer(n)
            | Step::Retire(n)
            | Step::Condemn(n)
            | Step::Break(n)
            | Step::Settle(n) => self.change(step, n),
            Step::Find(_) | Step::Leave(_) | Step::End(_) | Step::Remove(_) => {}
        }
    }

    fn change(&mut self, step: &Step, n: u8) {
        let Some(one) = self.pick(n) else { return };
        let id = one.instance.1.clone();
        let busy = one.in_flight > 0;
        match step {
            Step::Answer(_) => {
                one.answered = true;
                self.slots.answered(&id);
            }
            Step::Retire(_) => {
                if !busy {
                    one.out = Some(Out::ForGood);
                }
                assert_eq!(self.slots.retire(&id), !busy, "never one with a call");
            }
            Step::Condemn(_) => {
                one.out = Some(Out::ForGood);
                assert!(self.slots.condemn(&id));
            }
            Step::Break(_) => {
                one.out = Some(Out::ForGood);
                assert!(self.slots.broke(&id, Instant::now()));
            }
            Step::Settle(_) => {
                one.out = one.out.filter(|out| *out == Out::ForGood);
                let grants = self.slots.settle(&id);
                self.granted(grants);
            }
            _ => {}
        }
    }

    fn check(&self) {
        let counts: Vec<_> = self
            .slots
            .instances()
            .map(|i| (i.id, i.in_flight, i.phase == Phase::Ready))
            .collect();
        let promised: Vec<_> = self
            .all
            .iter()
            .map(|one| (one.instance.1.clone(), one.in_flight, one.out.is_none()))
            .collect();
        assert_eq!(counts, promised);
        let mut calls = BTreeMap::<_, u32>::new();
        for call in &self.calls {
            *calls.entry(call.0).or_default() += 1;
        }
        for one in &self.all {
            assert_eq!(
                one.in_flight,
                calls.get(&one.instance.0).copied().unwrap_or(0)
            );
            assert!(
                self.queue.is_empty() || !self.is_free(one),
                "someone waits beside a free slot: {one:?}"
            );
        }
        assert_eq!(self.slots.demand().waiting as usize, self.queue.len());
        let callers: BTreeSet<_> = self.queue.iter().map(|(ticket, _)| ticket).collect();
        assert_eq!(callers.len(), self.queue.len(), "tickets are unique");
    }
}

#[test]
fn any_order_keeps_the_counts() {
    let cases = ProptestConfig::with_cases(1024);
    proptest!(cases, |(steps in prop::collection::vec(step(), 1..120))| {
        let mut model = Model::default();
        for step in &steps {
            model.apply(step);
            model.check();
        }
        model.apply(&Step::Dismiss);
        while !model.calls.is_empty() {
            model.end(0);
            model.check();
        }
        prop_assert_eq!(model.slots.instances().map(|i| i.in_flight).sum::<u32>(), 0);
    });
}

#[test]
fn as_many_are_granted_as_there_are_slots() {
    proptest!(|(concurrency in 1_u32..5, instances in 0_u32..4, callers in 0_u32..30)| {
        let terms = Terms { revision: 0, concurrency, manners: Manners::Stays };
        let mut model = Model::default();
        model.serve(Some(&terms));
        for _ in 0..callers {
            model.call();
        }
        for id in 0..instances {
            model.add(id.to_string(), 0);
            model.check();
        }
        prop_assert_eq!(model.calls.len(), callers.min(instances * concurrency) as usize);
    });
}

//! The counts, by tables and under any interleaving.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;

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
    let ended = slots.end(id, Instant::now());
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
    assert!(slots.leave(tickets[1]));
    assert!(!slots.leave(tickets[1]), "it has left");
    assert_eq!(end(&mut slots, "2"), (vec![0], false));
    assert_eq!(take(&mut slots), None);
    assert_eq!(add(&mut slots, "a", "3"), [2]);
    assert!(!slots.leave(tickets[2]), "its turn has come");
    assert_eq!(take(&mut slots).as_deref(), Some("3"));
}

#[test]
fn the_queue_is_bounded() {
    let mut slots = Counted::default();
    for caller in 0..1000 {
        slots.wait(caller).unwrap();
    }
    assert_eq!(slots.wait(1000), Err(QueueFull));
    assert_eq!(slots.dismiss(), (0..1000).collect::<Vec<_>>());
    assert_eq!(slots.waiting(), 0);
    assert!(slots.wait(0).is_ok());
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
        assert_eq!(slots.end("1", now).turn, turn, "{manners:?}");
        assert_eq!(phase(&slots, "1"), Some(expected), "{manners:?}");
        assert_eq!(slots.last_call(), Some(now));
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
    slots.end("1", now);
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
    take(&mut slots).unwrap();
    assert_eq!(slots.remove("1").unwrap().phase, Phase::Ready);
    assert!(slots.remove("1").is_none());
    assert_eq!(end(&mut slots, "1"), (vec![], false));
    add(&mut slots, "a", "1");
    end(&mut slots, "1");
    assert_eq!(
        slots.instances().map(|i| i.in_flight).sum::<u32>(),
        0,
        "found again, with none of its calls"
    );
}

/// What may happen, with numbers that choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    Call,
    Leave(u8),
    Answer(u8),
    End(u8),
    Retire(u8),
    Condemn(u8),
    Break(u8),
    Settle(u8),
    Remove(u8),
    Serve(u8, u32, u8),
    Dismiss,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u8..3).prop_map(Step::Add),
        12 => Just(Step::Call),
        2 => any::<u8>().prop_map(Step::Leave),
        4 => any::<u8>().prop_map(Step::Answer),
        8 => any::<u8>().prop_map(Step::End),
        2 => any::<u8>().prop_map(Step::Retire),
        1 => any::<u8>().prop_map(Step::Condemn),
        1 => any::<u8>().prop_map(Step::Break),
        3 => any::<u8>().prop_map(Step::Settle),
        1 => any::<u8>().prop_map(Step::Remove),
        2 => (0_u8..4, 1_u32..4, 0_u8..3).prop_map(|(r, c, m)| Step::Serve(r, c, m)),
        1 => Just(Step::Dismiss),
    ]
}

/// The slots beside what must be true of them.
#[derive(Default)]
struct Model {
    slots: Counted,
    /// Calls under way, by instance.
    calls: Vec<String>,
    /// Who waits, in order.
    queue: Vec<(Ticket, u32)>,
    callers: u32,
    instances: u32,
}

impl Model {
    /// The n-th of the instances there are.
    fn pick(&self, n: u8) -> Option<String> {
        let ids: Vec<_> = self.slots.instances().map(|i| i.id).collect();
        (!ids.is_empty()).then(|| ids[usize::from(n) % ids.len()].clone())
    }

    fn call(&mut self) {
        if let Some((instance, route)) = self.slots.take() {
            assert!(self.queue.is_empty(), "nobody overtakes");
            self.began(&instance, &route);
            return;
        }
        self.callers += 1;
        let ticket = self.slots.wait(self.callers).unwrap();
        self.queue.push((ticket, self.callers));
    }

    fn began(&mut self, id: &str, route: &Route) {
        let instance = self
            .slots
            .instances()
            .find(|i| i.id == id)
            .expect("a lease is of an instance that is there");
        assert_eq!(instance.phase, Phase::Ready);
        assert_eq!(Some(route), self.slots.route().map(|r| &**r));
        assert_eq!(instance.revision, route.revision);
        self.calls.push(id.to_owned());
    }

    fn granted(&mut self, grants: Vec<Grant<String, u32>>) {
        for grant in grants {
            let (_, first) = self.queue.remove(0);
            assert_eq!(grant.waiter, first, "first come, first served");
            self.began(&grant.instance, &grant.route);
        }
    }

    fn apply(&mut self, step: &Step) {
        let now = Instant::now();
        match *step {
            Step::Add(name) => {
                self.instances += 1;
                let id = self.instances.to_string();
                let grants =
                    self.slots
                        .add(id.clone(), revision(&name.to_string()), Arc::new(id), now);
                self.granted(grants);
            }
            Step::Call => self.call(),
            Step::Leave(n) if !self.queue.is_empty() => {
                let (ticket, _) = self.queue.remove(usize::from(n) % self.queue.len());
                assert!(self.slots.leave(ticket));
            }
            Step::End(n) if !self.calls.is_empty() => {
                let id = self.calls.remove(usize::from(n) % self.calls.len());
                let ended = self.slots.end(&id, now);
                self.granted(ended.grants);
            }
            Step::Serve(name, concurrency, manners) => {
                let manners =
                    [Manners::Stays, Manners::Single, Manners::Unknown][usize::from(manners)];
                let route = if name == 3 {
                    None
                } else {
                    Some(route(&name.to_string(), concurrency, manners))
                };
                let grants = self.slots.serve(route);
                self.granted(grants);
            }
            Step::Dismiss => {
                let waiting: Vec<_> = self.queue.drain(..).map(|(_, caller)| caller).collect();
                assert_eq!(self.slots.dismiss(), waiting);
            }
            Step::Answer(n)
            | Step::Retire(n)
            | Step::Condemn(n)
            | Step::Break(n)
            | Step::Settle(n)
            | Step::Remove(n) => {
                if let Some(id) = self.pick(n) {
                    self.change(step, &id);
                }
            }
            Step::Leave(_) | Step::End(_) => {}
        }
    }

    fn change(&mut self, step: &Step, id: &str) {
        match step {
            Step::Answer(_) => self.slots.answered(id),
            Step::Retire(_) => {
                let busy = self.calls.iter().any(|call| call == id);
                assert_eq!(self.slots.retire(id), !busy);
            }
            Step::Condemn(_) => assert!(self.slots.condemn(id)),
            Step::Break(_) => assert!(self.slots.broke(id, Instant::now())),
            Step::Settle(_) => {
                let grants = self.slots.settle(id);
                self.granted(grants);
            }
            Step::Remove(_) => assert!(self.slots.remove(id).is_some()),
            _ => {}
        }
    }

    fn check(&self) {
        let mut busy = BTreeMap::<_, u32>::new();
        for id in &self.calls {
            *busy.entry(id.clone()).or_default() += 1;
        }
        let route = self.slots.route();
        for instance in self.slots.instances() {
            assert_eq!(
                instance.in_flight,
                busy.get(&instance.id).copied().unwrap_or(0),
                "{instance:?}"
            );
            let serves =
                route.filter(|r| r.revision == instance.revision && instance.phase == Phase::Ready);
            if let Some(route) = serves {
                let free = instance.in_flight < route.calls_at_a_time();
                assert!(
                    !free || self.queue.is_empty(),
                    "someone waits beside a free slot: {instance:?}"
                );
            }
        }
        assert_eq!(self.slots.waiting(), self.queue.len());
    }
}

proptest! {
    #[test]
    fn any_interleaving_keeps_the_counts(steps in prop::collection::vec(step(), 1..120)) {
        let mut model = Model::default();
        for step in &steps {
            model.apply(step);
            model.check();
        }
        model.apply(&Step::Dismiss);
        while !model.calls.is_empty() {
            model.apply(&Step::End(0));
            model.check();
        }
        prop_assert_eq!(model.slots.instances().map(|i| i.in_flight).sum::<u32>(), 0);
    }

    #[test]
    fn a_grant_never_exceeds_what_an_instance_takes(
        concurrency in 1_u32..5,
        instances in 0_u32..4,
        callers in 0_u32..30,
    ) {
        let mut slots = Counted::default();
        slots.serve(Some(route("a", concurrency, Manners::Stays)));
        for caller in 0..callers {
            slots.wait(caller).unwrap();
        }
        let granted: usize = (0..instances).map(|id| add(&mut slots, "a", &id.to_string()).len()).sum();
        prop_assert_eq!(granted, callers.min(instances * concurrency) as usize);
        prop_assert!(slots.instances().all(|i| i.in_flight <= concurrency));
    }
}

//! A lender and gateways, their very sources, with a network between them that delivers when it likes and breaks at any time: no
//! instance ever has more calls than it may, nothing ends that has one, and everyone who waits is served in the end.

use std::{collections::BTreeMap, path::PathBuf, pin::Pin, task::Poll};

use futures::{FutureExt, poll};
use proptest::prelude::*;

use super::*;
use crate::{
    function::Revision,
    gateway::borrower::Borrower,
    plan::{Manners, Phase},
    pool::Route,
    runtime::InstanceId,
};

const CONCURRENCY: u32 = 2;
const GATEWAYS: usize = 3;

/// What may happen; numbers choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Call(usize),
    End(usize, usize),
    Break(usize, usize),
    GiveUp(usize, usize),
    Up(usize),
    Down(usize),
    Look,
    Tell(usize),
    Cut(usize),
    Join(usize),
    /// Its process ends, and its calls with it; another one of its name begins.
    Restart(usize),
    Add(u8),
    Retire(usize),
    Serve(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let gateway = || 0..GATEWAYS;
    let any = || 0_usize..8;
    prop_oneof![
        12 => gateway().prop_map(Step::Call),
        8 => (gateway(), any()).prop_map(|(g, n)| Step::End(g, n)),
        1 => (gateway(), any()).prop_map(|(g, n)| Step::Break(g, n)),
        2 => (gateway(), any()).prop_map(|(g, n)| Step::GiveUp(g, n)),
        12 => gateway().prop_map(Step::Up),
        12 => gateway().prop_map(Step::Down),
        6 => Just(Step::Look),
        3 => gateway().prop_map(Step::Tell),
        1 => gateway().prop_map(Step::Cut),
        4 => gateway().prop_map(Step::Join),
        1 => gateway().prop_map(Step::Restart),
        2 => (0_u8..2).prop_map(Step::Add),
        2 => any().prop_map(Step::Retire),
        1 => (0_u8..2).prop_map(Step::Serve),
    ]
}

type Keys = Pin<Box<dyn Stream<Item = FunctionKey> + Send>>;
type Waits = Pin<Box<dyn Future<Output = Result<Lease, LeaseError>>>>;

/// A gateway, and what is on its way to and from it.
struct Gate {
    name: String,
    run: u32,
    pools: Arc<Pools>,
    keys: Keys,
    borrower: Borrower,
    stream: Option<(u64, mpsc::Receiver<Up>, mpsc::Receiver<Down>)>,
    waiting: Vec<Waits>,
    calls: Vec<Lease>,
}

struct World {
    pool: Arc<Pool>,
    lender: Lender,
    keys: Keys,
    gates: Vec<Gate>,
    streams: u64,
    instances: u32,
    /// Those that were drained, and so have ended.
    ended: Vec<InstanceId>,
}

fn key() -> FunctionKey {
    "sum".parse().unwrap()
}

fn named(revision: u8) -> Revision {
    Revision::of([&[revision][..]])
}

impl Gate {
    fn new(number: usize, run: u32) -> Self {
        let (turns, keys) = Turns::new();
        let pools = Arc::new(Pools::new(turns.clone()));
        // Callers come before the controller has said anything.
        let pool = pools.ensure(&key());
        pool.set_patience(Duration::from_secs(3600));
        Self {
            name: format!("gateway-{number}"),
            run,
            borrower: Borrower::new(Arc::clone(&pools), turns),
            pools,
            keys: keys.boxed(),
            stream: None,
            waiting: Vec::new(),
            calls: Vec::new(),
        }
    }

    /// Callers whose turn it is begin.
    async fn serve(&mut self) {
        let mut still = Vec::new();
        for mut caller in std::mem::take(&mut self.waiting) {
            match poll!(&mut caller) {
                Poll::Ready(outcome) => self.calls.push(outcome.unwrap()),
                Poll::Pending => still.push(caller),
            }
        }
        self.waiting = still;
    }

    fn call(&mut self) {
        let pool = self.pools.ensure(&key());
        self.waiting
            .push(async move { pool.lease().await }.boxed_local());
    }

    fn tell(&mut self) {
        while let Some(Some(key)) = self.keys.next().now_or_never() {
            self.borrower.look(&key);
        }
        self.borrower.tell();
    }
}

impl World {
    fn new() -> Self {
        let (turns, _) = Turns::new();
        let (news, keys) = Turns::new();
        let pools = Arc::new(Pools::new(turns).lent_by(news.clone()));
        let pool = pools.ensure(&key());
        let lender = Lender::new(pools, news, Notice::default(), Fence::default());
        let mut world = Self {
            pool,
            lender,
            keys: keys.boxed(),
            gates: (0..GATEWAYS).map(|number| Gate::new(number, 0)).collect(),
            streams: 0,
            instances: 0,
            ended: Vec::new(),
        };
        world.serve(0);
        world
    }

    fn serve(&mut self, revision: u8) {
        self.pool.set_patience(Duration::from_secs(3600));
        self.pool.serve(Some(Route {
            revision: named(revision),
            concurrency: CONCURRENCY,
            manners: Manners::Stays,
            timeout: Duration::from_secs(30),
        }));
    }

    fn add(&mut self, revision: u8) {
        let id = format!("instance-{}", self.instances);
        self.instances += 1;
        self.pool.add(id, named(revision), PathBuf::new());
    }

    /// Everything that the lender has heard of.
    async fn look(&mut self) {
        // Tasks of its own tell it of turns.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        while let Ok(event) = self.lender.mailbox.try_recv() {
            self.lender.happened(event);
        }
        while let Some(Some(key)) = self.keys.next().now_or_never() {
            self.lender.news.begin(&key);
            self.lender.look(&key);
        }
    }

    fn up(&mut self, gate: usize) -> bool {
        let gate = &mut self.gates[gate];
        let Some((stream, up, _)) = &mut gate.stream else {
            return false;
        };
        let Ok(message) = up.try_recv() else {
            return false;
        };
        let said = Event::Said(gate.name.clone(), *stream, message);
        self.lender.happened(said);
        true
    }

    fn down(&mut self, gate: usize) -> bool {
        let gate = &mut self.gates[gate];
        let Some((_, _, down)) = &mut gate.stream else {
            return false;
        };
        let Ok(message) = down.try_recv() else {
            return false;
        };
        gate.borrower.hear(message);
        true
    }

    fn cut(&mut self, gate: usize) {
        let gate = &mut self.gates[gate];
        if let Some((stream, ..)) = gate.stream.take() {
            self.lender.happened(Event::Lost(gate.name.clone(), stream));
        }
    }

    fn join(&mut self, gate: usize) {
        if self.gates[gate].stream.is_some() {
            return;
        }
        self.streams += 1;
        let gate = &mut self.gates[gate];
        let (to, down) = mpsc::channel(10_000);
        let (from, up) = mpsc::channel(10_000);
        self.lender.happened(Event::Joined {
            name: gate.name.clone(),
            run: gate.run.to_string(),
            stream: self.streams,
            to,
        });
        gate.borrower.begin(from);
        gate.stream = Some((self.streams, up, down));
    }

    fn retire(&mut self, number: usize) {
        let ids: Vec<_> = self.pool.look().0.into_iter().map(|i| i.id).collect();
        if let Some(id) = ids.get(number) {
            // As a plan does with one that is idle; it goes once nobody may call it.
            self.pool.retire(id);
        }
    }

    /// What is drained ends, as the controller sees to.
    fn end_what_is_drained(&mut self) {
        for instance in self.pool.look().0 {
            if instance.phase != Phase::Ready && instance.in_flight == 0 {
                let removed = self.pool.remove(&instance.id).unwrap();
                removed.instance.gone.cancel();
                self.ended.push(instance.id);
            }
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Call(gate) => self.gates[gate].call(),
            Step::End(gate, number) => {
                let calls = &mut self.gates[gate].calls;
                if number < calls.len() {
                    calls.swap_remove(number);
                }
            }
            Step::Break(gate, number) => {
                let calls = &mut self.gates[gate].calls;
                if number < calls.len() {
                    calls.swap_remove(number).broke();
                }
            }
            Step::GiveUp(gate, number) => {
                let waiting = &mut self.gates[gate].waiting;
                if number < waiting.len() {
                    drop(waiting.swap_remove(number));
                }
            }
            Step::Up(gate) => drop(self.up(gate)),
            Step::Down(gate) => drop(self.down(gate)),
            Step::Look => self.look().await,
            Step::Tell(gate) => self.gates[gate].tell(),
            Step::Cut(gate) => self.cut(gate),
            Step::Join(gate) => self.join(gate),
            Step::Restart(gate) => {
                self.cut(gate);
                self.gates[gate] = Gate::new(gate, self.gates[gate].run + 1);
            }
            Step::Add(revision) => self.add(revision),
            Step::Retire(number) => self.retire(number),
            Step::Serve(revision) => self.serve(revision),
        }
        for gate in &mut self.gates {
            gate.serve().await;
        }
        self.end_what_is_drained();
        self.check();
    }

    fn check(&self) {
        let mut running = BTreeMap::<_, u32>::new();
        for call in self.gates.iter().flat_map(|gate| &gate.calls) {
            *running.entry(&call.instance.id).or_default() += 1;
        }
        for (id, calls) in running {
            assert!(calls <= CONCURRENCY, "{id} has {calls} calls");
            assert!(!self.ended.contains(id), "{id} was ended with a call");
        }
    }

    /// The network is well again, and calls end: until nothing happens any more.
    async fn come_to_rest(&mut self) {
        let mut quiet = 0;
        for _ in 0..10_000 {
            let mut moved = false;
            for gate in 0..GATEWAYS {
                self.join(gate);
                self.gates[gate].tell();
                while self.up(gate) {
                    moved = true;
                }
                self.look().await;
                while self.down(gate) {
                    moved = true;
                }
                self.gates[gate].serve().await;
                self.check();
                moved |= !self.gates[gate].calls.is_empty();
                self.gates[gate].calls.clear();
            }
            self.end_what_is_drained();
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet > 3 {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// In the end there are instances enough: everyone is served, and all leases are there.
    async fn end_well(&mut self) {
        self.serve(0);
        self.add(0);
        self.come_to_rest().await;
        for gate in &self.gates {
            assert_eq!(gate.waiting.len(), 0, "{} waits for ever", gate.name);
        }
        let instances = self.pool.look().0;
        for instance in &instances {
            assert_eq!(instance.in_flight, 0, "{instance:?} is idle");
            self.pool.retire(&instance.id);
        }
        self.come_to_rest().await;
        assert_eq!(self.pool.look().0, [], "all have come back and ended");
    }
}

fn run(steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new();
        world.add(0);
        for step in steps {
            world.step(step).await;
        }
        world.end_well().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_is_lost_no_instance_has_too_many_calls_and_everyone_is_served(
        steps in prop::collection::vec(step(), 0..150)
    ) {
        run(steps);
    }
}

/// A controller that has just begun lends what it adopted once it knows who holds it.
#[tokio::test]
async fn what_was_adopted_is_lent_when_all_who_may_hold_it_have_come() {
    let mut before = World::new();
    before.add(0);
    before.gates[0].call();
    before.gates[0].call();
    for _ in 0..3 {
        before.join(0);
        while before.up(0) {}
        before.look().await;
        while before.down(0) {}
        before.gates[0].serve().await;
        before.gates[0].tell();
    }
    assert_eq!(before.gates[0].calls.len(), 2);

    let mut after = World::new();
    after.lender.missing = ["gateway-0".to_owned()].into();
    after
        .pool
        .adopt("instance-0".to_owned(), named(0), PathBuf::new());
    after.gates[1].call();
    after.join(1);
    let settle = async |world: &mut World| {
        for gate in 0..2 {
            for _ in 0..3 {
                world.gates[gate].tell();
                while world.up(gate) {}
                world.look().await;
                while world.down(gate) {}
                world.gates[gate].serve().await;
            }
        }
    };
    settle(&mut after).await;
    assert_eq!(after.gates[1].calls.len(), 0, "another may have them all");
    // Calls may be running there, so it is not ended either, though another revision serves by now.
    let in_use = |world: &World| world.pool.look().0[0].in_flight;
    assert!(!after.pool.retire("instance-0") && in_use(&after) == 1);
    // It has them, and goes on with them.
    std::mem::swap(&mut after.gates[0], &mut before.gates[0]);
    after.gates[0].stream = None;
    after.join(0);
    settle(&mut after).await;
    assert_eq!(after.gates[1].calls.len(), 0);
    after.check();
    after.gates[0].calls.pop();
    settle(&mut after).await;
    settle(&mut after).await;
    assert_eq!(after.gates[1].calls.len(), 1, "the first that is free");
    after.check();
    after.gates[0].calls.clear();
    after.gates[1].calls.clear();
    settle(&mut after).await;
    assert_eq!(in_use(&after), 0);
}

/// Whoever is lost for good is given up when it has no call any more, and not before.
#[tokio::test]
async fn a_gateway_that_does_not_come_back_is_given_up() {
    let mut world = World::new();
    world.lender.fence.open_for(Duration::from_secs(3600));
    world.add(0);
    world.gates[0].call();
    world.join(0);
    for _ in 0..3 {
        world.gates[0].tell();
        while world.up(0) {}
        world.look().await;
        while world.down(0) {}
        world.gates[0].serve().await;
    }
    let busy = |world: &World| world.pool.look().0.iter().map(|i| i.in_flight).sum::<u32>();
    assert_eq!((world.gates[0].calls.len(), busy(&world)), (1, 1));
    world.cut(0);
    let now = Instant::now();
    world.lender.tick(now + CUT);
    assert_eq!(busy(&world), 1, "it may have a call");
    world.lender.tick(now + CUT + Duration::from_secs(31));
    assert_eq!(busy(&world), 0);
    assert!(world.lender.gateways.is_empty());
}

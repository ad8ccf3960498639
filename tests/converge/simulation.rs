//! One Function's world in virtual time: a builder, a runtime and callers that behave as badly as they are told, around the
//! real plan and the real slots. Turns come only when the controller would give one.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use faas::{
    function::{Revision, status::Reason},
    plan::{
        self, Blocked, Crash, Failure, ImageState, Instance, Manners, Phase, Plan, Stop, Target,
        World,
    },
    pool::{
        Route,
        slots::{Grant, Slots, Ticket},
    },
    retry::BACKOFF,
};

/// What a build takes, a start, and a stop.
const BUILD: Duration = Duration::from_secs(20);
const START: Duration = Duration::from_millis(400);
const STOP: Duration = Duration::from_millis(200);
/// After its answer, until a single-call program has exited.
const EXIT: Duration = Duration::from_millis(50);
/// More turns than any of these worlds needs to come to rest.
const MANY: usize = 3000;

/// What may happen; durations in milliseconds, numbers choose among what is there.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Pass(u64),
    Call(u64),
    Leave(usize),
    Edit {
        revision: u8,
        min: u32,
        max: u32,
        concurrency: u32,
    },
    Block,
    Crash(usize),
    Condemn(usize),
    /// A call breaks off, and its instance may crash with it.
    Break(usize, bool),
    /// Whether builds and starts fail from now on.
    Faults {
        builds: bool,
        starts: bool,
    },
    /// How many instances the machine takes.
    Memory(u32),
    Pressure(bool),
    LoseImages,
    /// Whether a call comes between each look and the deed.
    Race(bool),
}

/// What will happen at its time.
#[derive(Clone, Debug)]
enum Event {
    Built(String),
    Started(String),
    Stopped(String),
    CallEnds(String),
    Exits(String, i32),
}

type Caller = Duration;

#[allow(
    clippy::struct_excessive_bools,
    reason = "faults are on or off, each by itself"
)]
pub struct Simulation {
    now: Instant,
    events: Vec<(Instant, Event)>,
    slots: Slots<String, Caller>,
    waiting: Vec<Ticket>,
    desired: Result<Target, Blocked>,
    serving: Option<Target>,
    images: HashMap<String, ImageState>,
    moving: BTreeMap<String, (Revision, Phase, Instant)>,
    failures: HashMap<Revision, Failure>,
    proven: HashSet<Revision>,
    manners: HashMap<Revision, Manners>,
    memory: u32,
    pressure: bool,
    builds_fail: bool,
    starts_fail: bool,
    race: bool,
    deleted: bool,
    turn: bool,
    wake: Option<Instant>,
    started: u32,
    turns: usize,
}

impl Simulation {
    pub fn new() -> Self {
        Self {
            now: Instant::now(),
            events: Vec::new(),
            slots: Slots::default(),
            waiting: Vec::new(),
            desired: Err(blocked()),
            serving: None,
            images: HashMap::new(),
            moving: BTreeMap::new(),
            failures: HashMap::new(),
            proven: HashSet::new(),
            manners: HashMap::new(),
            memory: 8,
            pressure: false,
            builds_fail: false,
            starts_fail: false,
            race: false,
            deleted: false,
            turn: true,
            wake: None,
            started: 0,
            turns: 0,
        }
    }

    /// Starts that were begun.
    pub fn started(&self) -> u32 {
        self.started
    }

    pub fn take(&mut self, step: &Step) {
        match *step {
            Step::Pass(millis) => self.pass_to(self.now + Duration::from_millis(millis)),
            Step::Call(millis) => self.call(Duration::from_millis(millis)),
            Step::Leave(n) if !self.waiting.is_empty() => {
                let ticket = self.waiting.remove(n % self.waiting.len());
                self.turn |= self.slots.leave(ticket, self.now);
            }
            Step::Leave(_) => {}
            Step::Edit {
                revision,
                min,
                max,
                concurrency,
            } => {
                self.edit(Ok(target(revision, min, max, concurrency)));
            }
            Step::Block => self.edit(Err(blocked())),
            Step::Crash(n) => {
                if let Some(id) = self.pick(n) {
                    self.exited(&id, 1);
                }
            }
            Step::Condemn(n) => {
                if let Some(id) = self.pick(n) {
                    self.turn |= self.slots.condemn(&id);
                }
            }
            Step::Break(n, crashes) => {
                if let Some(id) = self.pick(n) {
                    self.turn |= self.slots.broke(&id, self.now);
                    if crashes {
                        self.events.push((self.now + EXIT, Event::Exits(id, 1)));
                    }
                }
            }
            Step::Faults { builds, starts } => {
                (self.builds_fail, self.starts_fail) = (builds, starts);
            }
            Step::Memory(instances) => self.memory = instances,
            Step::Pressure(pressure) => {
                self.pressure = pressure;
                self.turn = true;
            }
            Step::LoseImages => {
                self.images.retain(|_, state| *state != ImageState::Ready);
                self.turn = true;
            }
            Step::Race(race) => self.race = race,
        }
        self.turns();
    }

    /// From now on the world is kind.
    pub fn end_faults(&mut self) {
        (self.builds_fail, self.starts_fail, self.race) = (false, false, false);
        (self.memory, self.pressure) = (100, false);
        // As somebody does who asks for another try.
        self.images
            .retain(|_, state| !matches!(state, ImageState::Failed(_)));
        self.failures.clear();
        self.turn = true;
    }

    pub fn delete(&mut self) {
        self.deleted = true;
        self.serve(None);
        self.waiting.clear();
        self.slots.dismiss();
        self.race = false;
        self.turn = true;
    }

    /// Lets time pass until nothing happens any more.
    pub fn settle_down(&mut self) {
        self.turns();
        let most = self.turns + MANY;
        while let Some(next) = self.next() {
            self.pass_to(next);
            assert!(
                self.turns < most,
                "it never comes to rest; the last plan wakes at {:?}",
                self.wake
            );
        }
    }

    pub fn assert_as_desired(&mut self) {
        let desired = self.newest().expect("an edit made it so");
        assert_eq!(
            self.serving.as_ref().map(|s| self.with_manners(s)),
            Some(desired.clone())
        );
        let instances = self.instances();
        assert!(
            instances
                .iter()
                .all(|i| i.revision == desired.revision && i.phase == Phase::Ready),
            "{instances:?}"
        );
        assert_eq!(instances.len(), desired.min as usize, "{instances:?}");
        assert_eq!(
            (self.slots.demand().waiting, &self.failures),
            (0, &HashMap::new())
        );
        let again = Plan {
            wake: None,
            ..self.plan()
        };
        assert_eq!(again, Plan::default(), "there is nothing left to do");
    }

    pub fn assert_gone(&self) {
        assert_eq!((self.instances(), self.events.len()), (Vec::new(), 0));
    }

    fn edit(&mut self, desired: Result<Target, Blocked>) {
        self.desired = desired;
        self.failures.clear();
        self.turn = true;
    }

    fn call(&mut self, takes: Duration) {
        if let Some((instance, _)) = self.slots.take() {
            self.events
                .push((self.now + takes, Event::CallEnds(instance.to_string())));
        } else if let Ok(ticket) = self.slots.wait(takes) {
            self.waiting.push(ticket);
            self.turn = true;
        }
    }

    /// Takes an instance, if one is free, after the world was looked at.
    fn call_between(&mut self) {
        if let Some((instance, _)) = self.slots.take() {
            let ends = self.now + Duration::from_secs(40);
            self.events
                .push((ends, Event::CallEnds(instance.to_string())));
        }
    }

    fn granted(&mut self, grants: Vec<Grant<String, Caller>>) {
        for grant in grants {
            self.waiting.remove(0);
            self.events.push((
                self.now + grant.waiter,
                Event::CallEnds(grant.instance.to_string()),
            ));
        }
    }

    /// When something happens next, if it does.
    fn next(&self) -> Option<Instant> {
        self.events.iter().map(|(at, _)| *at).chain(self.wake).min()
    }

    fn pass_to(&mut self, end: Instant) {
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            if self.wake.is_some_and(|at| at <= self.now) {
                self.wake = None;
                self.turn = true;
            }
            let due: Vec<_> = self.events.extract_if(.., |(at, _)| *at <= next).collect();
            for (_, event) in due {
                self.happen(event);
            }
            self.turns();
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Built(image) => self.built(image),
            Event::Started(id) => self.came_up(&id),
            Event::Stopped(id) => {
                self.moving.remove(&id);
                self.turn = true;
            }
            Event::CallEnds(id) => self.call_ended(&id),
            Event::Exits(id, code) => self.exited(&id, code),
        }
    }

    fn built(&mut self, image: String) {
        let state = if self.builds_fail {
            ImageState::Failed(failure(Reason::PullFailed, 1, self.now))
        } else {
            ImageState::Ready
        };
        self.images.insert(image, state);
        self.turn = true;
    }

    fn came_up(&mut self, id: &str) {
        // Its start may have been given up meanwhile.
        let Some((revision, Phase::Starting, _)) = self.moving.get(id).cloned() else {
            return;
        };
        self.moving.remove(id);
        self.turn = true;
        if self.starts_fail {
            self.failed(&revision, Reason::StartFailed);
            return;
        }
        self.proven.insert(revision.clone());
        let grants = self
            .slots
            .add(id.to_owned(), revision, Arc::new(id.to_owned()), self.now);
        self.granted(grants);
    }

    fn is_known(&self, revision: &Revision) -> bool {
        let known = [self.desired.as_ref().ok(), self.serving.as_ref()];
        known.iter().flatten().any(|t| t.revision == *revision)
    }

    fn failed(&mut self, revision: &Revision, reason: Reason) {
        let attempts = self.failures.get(revision).map_or(0, |f| f.attempts) + 1;
        self.failures
            .insert(revision.clone(), failure(reason, attempts, self.now));
    }

    fn call_ended(&mut self, id: &str) {
        let revision = self
            .instances()
            .into_iter()
            .find(|i| i.id == id)
            .map(|i| i.revision);
        let manners = self.slots.route().map_or(Manners::Stays, |r| r.manners);
        if manners != Manners::Stays {
            self.slots.answered(id);
        }
        let instance = self.slots.handles().find(|handle| ***handle == id);
        let instance = instance.map_or_else(|| Arc::new(id.to_owned()), Arc::clone);
        let ended = self.slots.end(&instance, self.now);
        self.turn |= ended.turn;
        self.granted(ended.grants);
        if revision.is_some_and(|r| is_single(&r)) {
            self.events
                .push((self.now + EXIT, Event::Exits(id.to_owned(), 0)));
        }
    }

    /// As the controller judges an exit.
    fn exited(&mut self, id: &str, code: i32) {
        let Some(instance) = self.slots.instances().find(|i| i.id == id) else {
            return;
        };
        let Some(removed) = self.slots.remove(id) else {
            return;
        };
        self.events
            .retain(|(_, event)| !matches!(event, Event::CallEnds(of) if of == id));
        self.turn = true;
        if is_single(&instance.revision) && code == 0 && removed.answered {
            self.manners.insert(instance.revision, Manners::Single);
            self.serve(self.serving.clone());
        } else if !matches!(
            removed.phase,
            Phase::Leaving(_) | Phase::Draining | Phase::Condemned
        ) && self.is_known(&instance.revision)
        {
            let in_call = removed.busy || matches!(removed.phase, Phase::Broken(_));
            let crash = if in_call { Crash::InCall } else { Crash::Idle };
            self.failed(&instance.revision, Reason::CrashLoop);
            if let Some(failure) = self.failures.get_mut(&instance.revision) {
                failure.crash = Some(crash);
            }
        }
    }

    /// All the turns that are asked for.
    fn turns(&mut self) {
        for in_a_row in 0.. {
            if !std::mem::take(&mut self.turn) {
                return;
            }
            self.turns += 1;
            let plan = self.plan();
            assert!(
                in_a_row < 100,
                "each turn asks for another: {plan:?}\nof {:?}",
                self.world()
            );
            self.check(&plan);
            if self.race {
                self.call_between();
            }
            self.wake = plan.wake;
            self.apply(plan);
        }
    }

    fn plan(&self) -> Plan {
        let world = self.world();
        if self.deleted {
            return plan::dismantle(&world);
        }
        let serving = self.serving.as_ref().map(|s| self.with_manners(s));
        plan::plan(self.newest().as_ref(), serving.as_ref(), &world, self.now)
    }

    fn newest(&self) -> Result<Target, Blocked> {
        self.desired
            .as_ref()
            .map(|d| self.with_manners(d))
            .map_err(Clone::clone)
    }

    fn with_manners(&self, target: &Target) -> Target {
        let manners = self
            .manners
            .get(&target.revision)
            .copied()
            .unwrap_or(target.manners);
        let concurrency = if manners == Manners::Single {
            1
        } else {
            target.concurrency
        };
        Target {
            manners,
            concurrency,
            ..target.clone()
        }
    }

    fn instances(&self) -> Vec<Instance> {
        let moving = self
            .moving
            .iter()
            .map(|(id, (revision, phase, since))| Instance {
                id: id.clone(),
                revision: revision.clone(),
                phase: *phase,
                in_flight: 0,
                idle_since: *since,
                since: *since,
            });
        self.slots.instances().chain(moving).collect()
    }

    fn world(&self) -> World {
        let instances = self.instances();
        let newest = self.desired.as_ref().ok();
        let taken = u32::try_from(instances.len()).unwrap();
        let failure =
            |target: Option<&Target>| target.and_then(|t| self.failures.get(&t.revision)).cloned();
        let image = |target: Option<&Target>| {
            let state = target.and_then(|t| self.images.get(&t.image));
            state.cloned().unwrap_or(ImageState::Missing)
        };
        World {
            image: image(newest),
            serving_image: image(self.serving.as_ref()),
            room: self.memory.saturating_sub(taken),
            instances,
            proven: newest.is_some_and(|d| self.proven.contains(&d.revision)),
            proving_elsewhere: false,
            failure: failure(newest),
            serving_failure: failure(self.serving.as_ref()),
            demand: self.slots.demand(),
            pressure: self.pressure,
        }
    }

    fn apply(&mut self, plan: Plan) {
        for id in &plan.settle {
            let revision = self.serving.as_ref().unwrap().revision.clone();
            self.manners.insert(revision, Manners::Stays);
            self.serve(self.serving.clone());
            let grants = self.slots.settle(id);
            self.granted(grants);
        }
        if plan.serve.is_some() {
            self.serve(self.desired.clone().ok());
            self.turn = true;
        }
        for stop in plan.stop {
            self.stop(&stop);
        }
        for (revision, count) in plan.start {
            for _ in 0..count {
                self.start(revision.clone());
            }
        }
        let newest = self.desired.as_ref().ok().filter(|_| plan.build);
        let serving = self.serving.as_ref().filter(|_| plan.rebuild);
        let images: Vec<_> = [newest, serving]
            .into_iter()
            .flatten()
            .map(|t| t.image.clone())
            .collect();
        for image in images {
            self.images.insert(image.clone(), ImageState::Building);
            self.events.push((self.now + BUILD, Event::Built(image)));
        }
        let known = [self.desired.as_ref().ok(), self.serving.as_ref()];
        self.failures.retain(|revision, _| {
            known.iter().flatten().any(|t| t.revision == *revision)
                && !plan.forgive.contains(revision)
        });
        if plan.refuse.is_some() {
            self.slots.dismiss();
            self.waiting.clear();
        }
    }

    fn serve(&mut self, target: Option<Target>) {
        self.serving = target;
        let route = self.serving.as_ref().map(|serving| {
            let Target {
                revision,
                concurrency,
                manners,
                ..
            } = self.with_manners(serving);
            Arc::new(Route {
                revision,
                concurrency,
                manners,
                timeout: Duration::from_secs(60),
            })
        });
        let grants = self.slots.serve(route);
        self.granted(grants);
    }

    fn start(&mut self, revision: Revision) {
        self.started += 1;
        let id = format!("i{}", self.started);
        self.moving
            .insert(id.clone(), (revision, Phase::Starting, self.now));
        self.events.push((self.now + START, Event::Started(id)));
    }

    /// Ends an instance, unless it must not be: no call is ever cut.
    fn stop(&mut self, stop: &Stop) {
        let (id, goes) = match stop {
            Stop::WhenIdle(id) => (id, self.slots.retire(id)),
            Stop::Drained(id) | Stop::Kill(id) => (id, true),
        };
        if !goes {
            return;
        }
        let instance = self
            .instances()
            .into_iter()
            .find(|i| i.id == *id)
            .expect("a plan stops what is there");
        assert_eq!(
            instance.in_flight, 0,
            "{stop:?} of {instance:?} cuts a call"
        );
        let serves = matches!(instance.phase, Phase::Ready | Phase::Probation(_));
        assert!(
            !serves,
            "{stop:?} of {instance:?}, which could get a call at this moment"
        );
        self.slots.remove(id);
        self.moving
            .insert(id.clone(), (instance.revision, Phase::Stopping, self.now));
        self.events
            .push((self.now + STOP, Event::Stopped(id.clone())));
    }

    /// What must be true of every plan.
    fn check(&self, plan: &Plan) {
        let world = self.world();
        let starting: u32 = plan.start.iter().map(|(_, count)| count).sum();
        assert!(
            starting <= world.room,
            "{starting} starts in a room of {}",
            world.room
        );
        for (revision, count) in &plan.start {
            let known = [self.desired.as_ref().ok(), self.serving.as_ref()];
            let target = known
                .into_iter()
                .flatten()
                .find(|t| t.revision == *revision)
                .expect("a known revision");
            let alive = self.alive(revision);
            assert!(
                alive + count <= target.max,
                "{alive} and {count} more are above {}",
                target.max
            );
            let all = world.instances.iter();
            let stays = |i: &&Instance| i.revision == *revision && i.phase != Phase::Stopping;
            let there = u32::try_from(all.filter(stays).count()).unwrap();
            assert!(
                there + count <= 2 * target.max,
                "{there} there and {count} more are above twice {}",
                target.max
            );
        }
        let serving = self.serving.as_ref().filter(|_| !self.deleted);
        if let Some(serving) = serving {
            self.check_old(plan, serving);
        }
        if let Some(revision) = &plan.serve {
            let ready = world
                .instances
                .iter()
                .any(|i| i.revision == *revision && i.phase == Phase::Ready);
            assert!(
                ready || world.proven || serving.is_some_and(|s| s.revision == *revision),
                "not proven"
            );
        }
    }

    /// Until the new revision is up, the old one is kept as it is wanted.
    fn check_old(&self, plan: &Plan, serving: &Target) {
        let warm = self.alive(&serving.revision);
        let another = plan.serve.as_ref().filter(|r| **r != serving.revision);
        if let Some(new) = another {
            let usable = self
                .instances()
                .iter()
                .any(|i| i.revision == *new && i.phase == Phase::Ready);
            let old = self
                .instances()
                .iter()
                .any(|i| i.revision == serving.revision && i.phase == Phase::Ready);
            assert!(usable || !old, "a switch from warm to cold");
        } else if plan.serve.is_none() {
            let ids: HashSet<_> = self.alive_ids(&serving.revision);
            let leaving = plan
                .stop
                .iter()
                .filter(|s| matches!(s, Stop::WhenIdle(id) if ids.contains(id)));
            let left = warm - u32::try_from(leaving.count()).unwrap();
            // It makes room for the new one as far as that asks for it.
            let newest = self.desired.as_ref().ok().filter(|_| plan.starved);
            let wanted = newest.map_or(serving.min, |d| d.min.min(serving.min));
            assert!(
                left >= wanted.min(warm),
                "{left} of {warm} are left, {wanted} are wanted"
            );
        }
    }

    fn alive(&self, revision: &Revision) -> u32 {
        u32::try_from(self.alive_ids(revision).len()).unwrap()
    }

    fn alive_ids(&self, revision: &Revision) -> HashSet<String> {
        let alive = |i: &Instance| {
            matches!(
                i.phase,
                Phase::Starting | Phase::Ready | Phase::Probation(_)
            )
        };
        self.instances()
            .into_iter()
            .filter(|i| i.revision == *revision && alive(i))
            .map(|i| i.id)
            .collect()
    }

    fn pick(&self, n: usize) -> Option<String> {
        let ids: Vec<_> = self.slots.instances().map(|i| i.id).collect();
        (!ids.is_empty()).then(|| ids[n % ids.len()].clone())
    }
}

/// Revisions 0 and 1 are ours; of 2 and 3 only a call can tell how they end, and 3 ends with every call.
fn target(revision: u8, min: u32, max: u32, concurrency: u32) -> Target {
    Target {
        revision: name(revision),
        image: format!("image-{}", revision / 2),
        min,
        max,
        concurrency,
        idle_after: Duration::from_secs(30),
        manners: if revision < 2 {
            Manners::Stays
        } else {
            Manners::Unknown
        },
        startable: true,
    }
}

fn name(revision: u8) -> Revision {
    Revision::of([[revision].as_slice()])
}

fn is_single(revision: &Revision) -> bool {
    *revision == name(3)
}

fn failure(reason: Reason, attempts: u32, now: Instant) -> Failure {
    Failure {
        reason,
        message: "a fault".to_owned(),
        attempts,
        retry_at: BACKOFF.next(attempts, now),
        crash: None,
    }
}

fn blocked() -> Blocked {
    Blocked {
        reason: Reason::SourceNotFound,
        message: "no source".to_owned(),
        attempts: 0,
        retry_at: None,
    }
}

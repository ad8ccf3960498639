//! What `/metrics` says, in the names and units of the Prometheus conventions. No label grows with the number of calls,
//! and none carries free text.

mod calls;
pub mod text;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use self::{calls::Calls, text::Format};

/// Bounds of the histogram of starts, in seconds.
const SECONDS: [f64; 14] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0,
];

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: Arc<Calls>,
    pub in_flight: Gauge,
    waiting: Gauge,
    instances: Family<State, Gauge>,
    functions: Gauge,
    builds: Family<Outcome, Counter>,
    builds_running: Gauge,
    start_seconds: Histogram,
    pub turns: Counter,
    queue: Gauge,
    errors: Family<ByReason, Counter>,
    engine_up: Gauge<f64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: String,
}

/// What is counted afresh for each scrape.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub functions: usize,
    pub waiting: u32,
    /// Instances by state.
    pub instances: Vec<(&'static str, usize)>,
    pub builds_running: usize,
    pub queue: usize,
    pub engine_up: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("faas"),
            calls: Arc::default(),
            in_flight: Gauge::default(),
            waiting: Gauge::default(),
            instances: Family::default(),
            functions: Gauge::default(),
            builds: Family::default(),
            builds_running: Gauge::default(),
            start_seconds: Histogram::new(SECONDS),
            turns: Counter::default(),
            queue: Gauge::default(),
            errors: Family::default(),
            engine_up: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register_collector(Box::new(Arc::clone(&self.calls)));
        r.register(
            "calls_in_flight",
            "Calls on their way",
            self.in_flight.clone(),
        );
        r.register(
            "calls_waiting",
            "Callers that wait for an instance",
            self.waiting.clone(),
        );
        r.register(
            "errors",
            "Failures of the platform, and refusals that it told callers of, by reason",
            self.errors.clone(),
        );
        self.register_controller();
    }

    fn register_controller(&mut self) {
        let r = &mut self.registry;
        r.register(
            "functions",
            "Functions that are known",
            self.functions.clone(),
        );
        r.register("instances", "Instances, by state", self.instances.clone());
        let help = "Time from the order to start an instance to its first accepted connection";
        r.register_with_unit(
            "instance_start",
            help,
            Unit::Seconds,
            self.start_seconds.clone(),
        );
        r.register(
            "builds",
            "Builds that ended, by outcome",
            self.builds.clone(),
        );
        r.register(
            "builds_running",
            "Builds that run",
            self.builds_running.clone(),
        );
        r.register(
            "reconcile_turns",
            "Turns of the reconcile loop",
            self.turns.clone(),
        );
        let help = "Functions whose turn was asked for and has not begun";
        r.register("reconcile_queue", help, self.queue.clone());
        r.register(
            "engine_up",
            "1 while the engine answers",
            self.engine_up.clone(),
        );
    }

    /// A call has its answer's head.
    pub fn called(&self, code: u16, took: Duration) {
        self.calls.count(code, took);
    }

    /// Something went wrong that is the platform's to tell. `reason` is a word from the code, never a text.
    pub fn error(&self, reason: &str) {
        let reason = reason.to_owned();
        self.errors.get_or_create(&ByReason { reason }).inc();
    }

    /// A build is over.
    pub fn build_ended(&self, succeeded: bool) {
        let outcome = if succeeded { "succeeded" } else { "failed" };
        self.builds.get_or_create(&Outcome { outcome }).inc();
    }

    /// An instance has started.
    pub fn start_took(&self, took: Duration) {
        self.start_seconds.observe(took.as_secs_f64());
    }

    /// The text for Prometheus.
    pub fn render(&self, snapshot: &Snapshot, format: Format) -> String {
        self.functions.set(signed(snapshot.functions));
        self.waiting.set(i64::from(snapshot.waiting));
        for (state, count) in &snapshot.instances {
            self.instances
                .get_or_create(&State { state })
                .set(signed(*count));
        }
        self.builds_running.set(signed(snapshot.builds_running));
        self.queue.set(signed(snapshot.queue));
        self.engine_up.set(f64::from(u8::from(snapshot.engine_up)));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        match format {
            Format::OpenMetrics => text,
            Format::Prometheus => text::prometheus(&text),
        }
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

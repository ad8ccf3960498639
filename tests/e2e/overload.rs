//! More calls than a function can take, for a while: it goes on doing what it can, the others are refused at once, and
//! neither memory nor neighbours feel it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    Home, SOON, Server, Start, has_docker,
    load::{Got, Load, Volley, busy, percentile},
    node, wait_until,
};

/// Calls that run at a time, and how long each takes: what a function can take is known by this, and far below what the
/// machine can.
const SLOTS: u32 = 8;
const CALL: Duration = Duration::from_millis(100);
/// Calls in a second.
const CAPACITY: u32 = 80;
/// How often it is asked for more.
const TIMES: u32 = 5;
/// Calls of the neighbour in a second.
const QUIET: u32 = 100;
/// Callers are not served too late for those that stay for so long.
const PATIENCE: Duration = Duration::from_secs(6);
/// Memory that may come and go, and memory that callers and their connections may take, in KiB.
const SLACK: u64 = 8 << 10;
const CALLERS: u64 = 64 << 10;
/// Others use this machine too, and what they do can only make it worse: so often it is tried.
const TRIES: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_times_the_capacity_is_answered_as_far_as_it_goes() {
    if !has_docker("e2e overload") {
        return;
    }
    let server = server().await;
    let mut seen = flood(&server, 10).await;
    for _ in 1..TRIES {
        if seen.is_enough() {
            break;
        }
        seen = flood(&server, 10).await;
    }
    seen.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_calls_does_not_slow_the_neighbours_down() {
    if !has_docker("e2e neighbours") {
        return;
    }
    is_not_slowed_down(&server().await).await;
}

/// As many instances as a Function has by default ask for two and a half times the processors of a small machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_wants_all_processors_does_not_slow_the_neighbours_down() {
    if !has_docker("e2e neighbours of a burning function") {
        return;
    }
    let ms = CALL.as_millis();
    let burning = format!(
        "module.exports = (context, cb) => {{
            const end = Date.now() + {ms}
            while (Date.now() < end);
            cb('done')
        }}"
    );
    let max = 10;
    let scale = json!({"min": max, "max": max});
    let server = with(node(&burning, json!({"scale": scale}))).await;
    wait_until("all are there", SOON, async || {
        let ready = server.instances("flooded", "ready").await;
        (ready.len() == max).then_some(())
    })
    .await;
    is_not_slowed_down(&server).await;
}

async fn is_not_slowed_down(server: &Server) {
    let mut ratios = Vec::new();
    while ratios.len() < TRIES {
        ratios.push(slower(server, 1).await);
        if ratios.last().is_some_and(|ratio| *ratio <= 1.5) {
            return;
        }
    }
    panic!("the neighbour's p99 is so many times what it is alone: {ratios:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes three minutes, and asks for a machine of its own: make overload"]
async fn a_minute_of_overload_costs_neither_answers_nor_neighbours() {
    if !has_docker("e2e minute of overload") {
        return;
    }
    let server = server().await;
    let seen = flood(&server, 60).await;
    println!("{seen:#?}");
    let slower = slower(&server, 6).await;
    println!("a neighbour's p99 is {slower:.2} times what it is alone");
    let late = percentile(&seen.volley.times(is_refusal), 99);
    assert!(late <= Duration::from_millis(50), "refusals: {late:?}");
    assert!(slower <= 1.5);
    seen.check();
}

/// With a function that is to be flooded, and one beside it.
async fn server() -> Server {
    let scale = json!({"min": 2, "max": 2, "concurrency": SLOTS / 2});
    let more = json!({"scale": scale, "startupTimeoutSeconds": 8});
    with(node(&taking(CALL), more)).await
}

/// With this one to be flooded.
async fn with(flooded: Value) -> Server {
    let server = Start::default().at(&Arc::new(Home::new())).await;
    server.deploy("flooded", flooded).await;
    let scale = json!({"min": 1, "max": 1});
    let spec = node(&taking(CALL / 5), json!({"scale": scale}));
    server.deploy("quiet", spec).await;
    server
}

fn taking(time: Duration) -> String {
    let ms = time.as_millis();
    format!("module.exports = (context, cb) => setTimeout(() => cb('done'), {ms})")
}

/// What a flood brought.
struct Seen {
    volley: Volley,
    /// Answers in a second: to callers that keep all slots busy and no more, and in the flood.
    alone: f64,
    goodput: f64,
    /// KiB resident: before, most in the first and in the second half, after.
    memory: [u64; 4],
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let answers = self.volley.times(|got| *got == Got::Answer);
        let refusals = self.volley.times(is_refusal);
        let times = |times: &[Duration]| [50, 99, 100].map(|percent| percentile(times, percent));
        f.debug_struct("Seen")
            .field("got", &self.volley.summary())
            .field("answers each second, alone", &self.alone)
            .field("and in the flood", &self.goodput)
            .field("answers, p50, p99, longest", &times(&answers))
            .field("refusals, p50, p99, longest", &times(&refusals))
            .field("KiB before, in both halves, after", &self.memory)
            .finish()
    }
}

impl Seen {
    fn is_enough(&self) -> bool {
        self.goodput >= 0.9 * self.alone
    }

    fn check(&self) {
        for shot in &self.volley.0 {
            match &shot.got {
                Got::Answer => {}
                Got::Refusal(429, code, Some(seconds)) if *seconds > 0 => {
                    assert_eq!(code, "queuefull");
                }
                got => panic!("neither an answer nor a refusal: {got:?} in {self:#?}"),
            }
        }
        assert!(self.is_enough(), "{self:#?}");
        let [before, first, second, _] = self.memory;
        assert!(second <= first + SLACK, "memory grows: {self:#?}");
        assert!(second <= before + CALLERS, "much memory: {self:#?}");
    }
}

fn is_refusal(got: &Got) -> bool {
    matches!(got, Got::Refusal(..))
}

/// Floods one function for so long.
async fn flood(server: &Server, seconds: u32) -> Seen {
    let while_alone = CAPACITY * seconds / 5;
    let alone = busy(server.address, "flooded", SLOTS, while_alone).await;
    let before = server.memory();
    let load = Load::start(server.address, "flooded", CAPACITY * TIMES, PATIENCE);
    let begin = Instant::now();
    let calls = seconds * CAPACITY * TIMES;
    let mut most = [0; 2];
    wait_until("the calls are sent", SOON * 3, async || {
        let half = usize::from(load.sent() > calls / 2);
        most[half] = most[half].max(server.memory());
        (load.sent() >= calls).then_some(())
    })
    .await;
    let end = Instant::now();
    let volley = load.stop().await;
    // By then all slots are busy.
    let from = begin + Duration::from_secs(1);
    let answered = volley.answers_between(from, end);
    Seen {
        volley,
        alone,
        goodput: answered as f64 / (end - from).as_secs_f64(),
        memory: [before, most[0], most[1], server.memory()],
    }
}

/// How many times longer a neighbour's calls take when a function is flooded; by p99, and by the medians of several times
/// with and without.
async fn slower(server: &Server, seconds: u32) -> f64 {
    let mut p99 = [Vec::new(), Vec::new()];
    for round in 0..10 {
        let flooded = round % 2;
        let flood = (flooded == 1)
            .then(|| Load::start(server.address, "flooded", CAPACITY * TIMES, PATIENCE));
        let quiet = Load::start(server.address, "quiet", QUIET, PATIENCE);
        wait_until("calls are sent", SOON, async || {
            (quiet.sent() >= seconds * QUIET).then_some(())
        })
        .await;
        let quiet = quiet.stop().await;
        let times = quiet.times(|got| *got == Got::Answer);
        assert_eq!(times.len(), quiet.0.len(), "{:?}", quiet.summary());
        p99[flooded].push(percentile(&times, 99));
        if let Some(flood) = flood {
            flood.stop().await;
        }
    }
    println!("p99 of a neighbour, alone and beside a flood: {p99:?}");
    let [alone, flooded] = p99.map(|mut p99| {
        p99.sort_unstable();
        percentile(&p99, 50).as_secs_f64()
    });
    flooded / alone
}

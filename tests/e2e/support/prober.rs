//! Calls at a constant pace, whatever comes back, each with an id of its own; and two ledgers, the caller's and the
//! function's, that can be held against each other afterwards.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::task::AbortOnDropHandle;
use uuid::fmt::Hyphenated;

use super::{LOOK, Reply, SOON, Server, Streaming, builder, client, wait_until};

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By this version.
    Answered(u64),
    /// With the platform's status and code.
    Refused(u16, String),
    /// With somebody else's answer. Nothing excuses that.
    Wrong(String),
    /// Nobody listened: no byte of it was taken.
    Unreachable,
    /// Anything else: a lost call, however it was lost.
    Broken(String),
}

#[derive(Clone, Debug)]
pub struct Call {
    pub id: u64,
    pub sent: Instant,
    pub ended: Instant,
    pub outcome: Outcome,
}

impl Call {
    fn is_answered(&self) -> bool {
        matches!(self.outcome, Outcome::Answered(_))
    }
}

/// The code of a function that answers who it is, and writes its own ledger of calls with an id into its log.
pub fn honest(name: &str, version: u64) -> String {
    format!(
        "const me = require('crypto').randomUUID()
        module.exports = (context, cb) => {{
            if (context.id !== undefined) console.log(`did ${{context.id}} ${{me}}`)
            setTimeout(() => cb({{id: context.id, name: '{name}', version: {version}}}), context.ms)
        }}"
    )
}

/// Ids are those of one call, whichever prober sent it.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Calls one function until it is stopped.
pub struct Prober {
    name: String,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    calls: JoinHandle<Vec<Call>>,
    /// The function's side, as its instances say it; begun anew where that broke off.
    logs: Vec<Log>,
}

/// What a function says, from its instances' last lines on.
struct Log {
    did: Arc<Mutex<String>>,
    _listens: AbortOnDropHandle<()>,
}

impl Prober {
    /// A call every `pace`, each taking `ms` in the function.
    pub async fn start(server: &Server, name: &str, pace: Duration, ms: u64) -> Self {
        let each = Each { pace, calls: 1, ms };
        Self::begin(&[server], server, name, each).await
    }

    /// So many calls at once every `pace`.
    pub async fn bursts(server: &Server, name: &str, pace: Duration, calls: usize) -> Self {
        let each = Each { pace, calls, ms: 0 };
        Self::begin(&[server], server, name, each).await
    }

    /// A call every `pace` by one of several servers, each by the next one that listens; another one has the log.
    pub async fn beside(
        servers: &[&Server],
        log: &Server,
        name: &str,
        (pace, ms): (Duration, u64),
    ) -> Self {
        let each = Each { pace, calls: 1, ms };
        Self::begin(servers, log, name, each).await
    }

    async fn begin(servers: &[&Server], log: &Server, name: &str, each: Each) -> Self {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let urls = servers
            .iter()
            .map(|server| server.url(&format!("/functions/{name}")));
        let calls = Calls {
            urls: urls.collect(),
            name: name.to_owned(),
            each,
            stop: Arc::clone(&stop),
            sent: Arc::clone(&sent),
        };
        Self {
            name: name.to_owned(),
            logs: vec![Log::of(log, name).await],
            calls: tokio::spawn(calls.go_on()),
            sent,
            stop,
        }
    }

    /// A log ends with the server that tells it, and with the engine's answers: listens anew.
    pub async fn listen_again(&mut self, server: &Server) {
        self.logs.push(Log::of(server, &self.name).await);
    }

    /// How many calls were sent.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// So many calls more have been sent.
    pub async fn goes_on(&self, calls: usize) {
        let until = self.sent() + calls;
        let sent = async || (self.sent() >= until).then_some(());
        wait_until("calls go on", SOON, sent).await;
    }

    /// Ends calling, waits for the last answer and for the function's own word about each one.
    pub async fn stop(self) -> Ledger {
        let ledger = self.ended().await;
        let missing = || {
            let did = executed(&ledger.logs);
            let answered = ledger.calls.iter().filter(|call| call.is_answered());
            answered
                .filter(|call| !did.contains_key(&call.id))
                .map(|call| (call.id, call.outcome.clone()))
                .collect::<Vec<_>>()
        };
        let whole = async {
            while !missing().is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(SOON, whole).await;
        let missing = missing();
        assert!(
            missing.is_empty(),
            "the function does not know of {} that it answered, from {:?} to {:?}",
            missing.len(),
            missing.first(),
            missing.last()
        );
        ledger.close()
    }

    /// The same where instances or servers were taken away with what was not read of their words: the function's ledger
    /// has the last call, and those before it as far as they can be known.
    pub async fn stop_after_losses(self) -> Ledger {
        let ledger = self.ended().await;
        let last = ledger.calls.iter().rfind(|call| call.is_answered());
        wait_until(
            "the function's ledger has the last call",
            SOON,
            async || {
                let did = executed(&ledger.logs);
                last.is_none_or(|call| did.contains_key(&call.id))
                    .then_some(())
            },
        )
        .await;
        ledger.close()
    }

    async fn ended(self) -> Open {
        self.stop.store(true, Ordering::Relaxed);
        Open {
            calls: self.calls.await.unwrap(),
            logs: self.logs,
        }
    }
}

/// How it is called.
struct Each {
    pace: Duration,
    /// Each time.
    calls: usize,
    /// What one takes in the function.
    ms: u64,
}

/// The caller's side.
struct Calls {
    urls: Vec<String>,
    name: String,
    each: Each,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
}

impl Calls {
    async fn go_on(self) -> Vec<Call> {
        let client = client();
        let mut calls = JoinSet::new();
        let mut pace = tokio::time::interval(self.each.pace);
        while !self.stop.load(Ordering::Relaxed) {
            pace.tick().await;
            for _ in 0..self.each.calls {
                self.sent.fetch_add(1, Ordering::Relaxed);
                calls.spawn(self.next(&client));
            }
        }
        let mut calls = calls.join_all().await;
        calls.sort_by_key(|call| call.id);
        calls
    }

    fn next(&self, client: &reqwest::Client) -> impl Future<Output = Call> + use<> {
        // An instance may have noted the calls of other probers before.
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let first = usize::try_from(id).unwrap() % self.urls.len();
        let urls = self.urls[first..].iter().chain(&self.urls[..first]);
        let input = json!({"id": id, "ms": self.each.ms});
        let tries: Vec<_> = urls.map(|url| client.post(url).json(&input)).collect();
        let (name, sent) = (self.name.clone(), Instant::now());
        async move {
            let mut outcome = Outcome::Unreachable;
            for call in tries {
                outcome = self::outcome(call, id, &name).await;
                if outcome != Outcome::Unreachable {
                    break;
                }
            }
            let ended = Instant::now();
            Call {
                id,
                sent,
                ended,
                outcome,
            }
        }
    }
}

async fn outcome(call: reqwest::RequestBuilder, id: u64, name: &str) -> Outcome {
    let response = match call.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Outcome::Unreachable,
        Err(error) => return Outcome::Broken(format!("{error:?}")),
    };
    let reply = match Reply::whole(response).await {
        Ok(reply) => reply,
        Err(error) => return Outcome::Broken(format!("in the answer: {error:?}")),
    };
    let code = reply.header("x-faas-error");
    if !code.is_empty() {
        return Outcome::Refused(reply.status, code.to_owned());
    }
    let answer = reply.response();
    match answer["version"].as_u64() {
        Some(version) if answer["id"] == id && answer["name"] == name => Outcome::Answered(version),
        _ => Outcome::Wrong(answer.to_string()),
    }
}

impl Log {
    async fn of(server: &Server, name: &str) -> Self {
        let did = Arc::<Mutex<String>>::default();
        let url = server.url(&format!("/functions/{name}/logs?follow=true&tail=100000"));
        // It goes on as long as it is listened to.
        let client = builder().no_proxy().build().unwrap();
        // A server that has just begun may not know its functions yet.
        let opened = wait_until("the log is told", SOON, async || {
            let answer = client.get(&url).send().await.unwrap();
            answer.status().is_success().then_some(answer)
        });
        let mut log = Streaming(opened.await);
        let heard = Arc::clone(&did);
        let listens = tokio::spawn(async move {
            while let Ok(Some(piece)) = log.0.chunk().await {
                let text = String::from_utf8_lossy(&piece);
                heard.lock().unwrap().push_str(&text);
            }
        });
        Self {
            did,
            _listens: AbortOnDropHandle::new(listens),
        }
    }
}

/// What was asked, and where it comes in what was done.
struct Open {
    calls: Vec<Call>,
    logs: Vec<Log>,
}

impl Open {
    fn close(self) -> Ledger {
        let ends = |log: &str| log.matches(" was ended]\n").count();
        let ends = ends(&self.logs[0].did.lock().unwrap());
        Ledger {
            did: executed(&self.logs),
            ends,
            calls: self.calls,
        }
    }
}

/// How often each call was begun, by the word of all instances. Logs may tell the same again.
fn executed(logs: &[Log]) -> BTreeMap<u64, usize> {
    let texts: Vec<_> = logs.iter().map(|log| log.did.lock().unwrap()).collect();
    told(texts.iter().map(|text| text.as_str()))
}

fn told<'a>(logs: impl Iterator<Item = &'a str>) -> BTreeMap<u64, usize> {
    // What one instance did is in one log as often as it did it, if it is there.
    let mut most = BTreeMap::<(u64, &str), usize>::new();
    for log in logs {
        let mut times = BTreeMap::<_, usize>::new();
        for did in log.lines().filter_map(entry) {
            *times.entry(did).or_default() += 1;
        }
        for (did, times) in times {
            let known = most.entry(did).or_default();
            *known = times.max(*known);
        }
    }
    let mut all = BTreeMap::new();
    for ((id, _), times) in most {
        *all.entry(id).or_default() += times;
    }
    all
}

/// A call, and the instance that did it.
fn entry(line: &str) -> Option<(u64, &str)> {
    let (id, instance) = line.strip_prefix("did ")?.split_once(' ')?;
    // A line that was cut when its instance, or who told us, ended is no word of it.
    let whole = instance.len() == Hyphenated::LENGTH;
    Some((id.parse().ok().filter(|_| whole)?, instance))
}

/// What was asked and what was done.
pub struct Ledger {
    pub calls: Vec<Call>,
    did: BTreeMap<u64, usize>,
    /// Instances that were ended meanwhile.
    pub ends: usize,
}

impl Ledger {
    /// Fails unless every call was answered, by the right function, executed once, and by no version older than one that
    /// had answered before it was sent; but for calls whose outcome `is_fair`.
    pub fn check(&self, is_fair: impl Fn(&Call) -> bool) {
        self.check_but(is_fair);
        let unanswered = self
            .calls
            .iter()
            .filter(|call| !call.is_answered() && self.did.contains_key(&call.id));
        let unanswered: Vec<_> = unanswered.collect();
        assert!(unanswered.is_empty(), "executed, but: {unanswered:#?}");
    }

    /// The same where an instance was taken away: calls whose outcome `is_fair` may have been begun.
    pub fn check_but(&self, is_fair: impl Fn(&Call) -> bool) {
        self.check_apart(is_fair);
        self.check_versions();
    }

    /// The same where those who answer may not know of each other's newer versions yet.
    pub fn check_apart(&self, is_fair: impl Fn(&Call) -> bool) {
        let lost: Vec<_> = self
            .calls
            .iter()
            .filter(|call| !call.is_answered() && !is_fair(call))
            .collect();
        assert!(lost.is_empty(), "lost: {lost:#?}\n{}", self.summary());
        let is_wrong = |call: &&Call| matches!(call.outcome, Outcome::Wrong(_));
        let wrong: Vec<_> = self.calls.iter().filter(is_wrong).collect();
        assert!(wrong.is_empty(), "somebody else's answer: {wrong:#?}");
        let twice: Vec<_> = self.did.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "executed twice: {twice:?}");
    }

    fn check_versions(&self) {
        let mut answers: Vec<_> = self
            .calls
            .iter()
            .filter_map(|call| match call.outcome {
                Outcome::Answered(version) => Some((call.ended, version)),
                _ => None,
            })
            .collect();
        answers.sort_unstable();
        let newest_before = |sent: Instant| {
            let before = answers.iter().take_while(|(ended, _)| *ended < sent);
            before.map(|(_, version)| *version).max()
        };
        for call in &self.calls {
            if let Outcome::Answered(version) = call.outcome {
                let newest = newest_before(call.sent).unwrap_or_default();
                assert!(newest <= version, "{newest} had answered before {call:?}");
            }
        }
    }

    /// The versions that answered.
    pub fn versions(&self) -> Vec<u64> {
        let mut versions: Vec<_> = self
            .calls
            .iter()
            .filter_map(|call| match call.outcome {
                Outcome::Answered(version) => Some(version),
                _ => None,
            })
            .collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }

    /// How often came what.
    pub fn summary(&self) -> Value {
        let mut counts = BTreeMap::<String, usize>::new();
        for call in &self.calls {
            *counts.entry(format!("{:?}", call.outcome)).or_default() += 1;
        }
        json!(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "5b1dd4f2-8a27-4c93-9d0f-2f7f3f3f8c01";
    const B: &str = "c9a5a0e8-3d1b-49f5-8f7e-6a3d1f0b7e02";

    fn log(did: &[(u64, &str)]) -> String {
        let line = |(id, instance): &(u64, &str)| format!("did {id} {instance}\n");
        did.iter().map(line).collect()
    }

    fn ledger(outcomes: &[Outcome], logs: &[String]) -> Ledger {
        let begin = Instant::now();
        let at = |second: usize, ms| begin + Duration::from_millis(1000 * second as u64 + ms);
        let calls = outcomes.iter().enumerate().map(|(second, outcome)| Call {
            id: second as u64,
            sent: at(second, 0),
            ended: at(second, 999),
            outcome: outcome.clone(),
        });
        Ledger {
            calls: calls.collect(),
            did: told(logs.iter().map(String::as_str)),
            ends: 0,
        }
    }

    fn complaint(ledger: &Ledger, is_fair: bool) -> String {
        let check = || ledger.check(|_| is_fair);
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        let Err(complaint) = checked else {
            return String::new();
        };
        let text = complaint.downcast_ref::<String>().unwrap();
        text.split(':').next().unwrap().to_owned()
    }

    #[test]
    fn a_ledger_notices_what_must_not_be() {
        let (one, two) = (Outcome::Answered(1), Outcome::Answered(2));
        let refused = Outcome::Refused(503, "NoInstance".to_owned());
        let wrong = Outcome::Wrong("of another function".to_owned());
        for (outcomes, did, expected, excused) in [
            (
                &[one.clone(), two.clone()][..],
                vec![log(&[(0, A), (1, B)])],
                "",
                "",
            ),
            (
                &[one.clone(), refused.clone()],
                vec![log(&[(0, A)])],
                "lost",
                "",
            ),
            (&[refused], vec![log(&[(0, A)])], "lost", "executed, but"),
            (&[Outcome::Unreachable], vec![], "lost", ""),
            (&[wrong], vec![], "lost", "somebody else's answer"),
            (
                &[two.clone(), one.clone()],
                vec![log(&[(0, A), (1, A)])],
                "2 had answered before Call { id",
                "2 had answered before Call { id",
            ),
        ] {
            let ledger = ledger(outcomes, &did);
            assert_eq!(complaint(&ledger, false), expected);
            assert_eq!(complaint(&ledger, true), excused);
        }
    }

    #[test]
    fn a_ledger_counts_over_logs_and_instances() {
        let torn = format!("did 0 {}", &A[..9]);
        for (logs, expected) in [
            (vec![log(&[(0, A)]), log(&[(0, A)])], ""),
            (vec![log(&[(0, A)]) + &torn], ""),
            (vec![log(&[(0, A), (0, A)])], "executed twice"),
            (vec![log(&[(0, A), (0, B)])], "executed twice"),
            (vec![log(&[(0, A)]), log(&[(0, B)])], "executed twice"),
        ] {
            let ledger = ledger(&[Outcome::Answered(1)], &logs);
            assert_eq!(complaint(&ledger, false), expected, "{logs:?}");
        }
    }
}

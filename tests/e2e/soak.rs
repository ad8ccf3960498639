//! Mixed traffic for a while: updates, creations and deletions, instances and servers that are killed. What there is in
//! the end is what there was in the beginning.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Home, SOON, Server, Start, docker, has_docker, images, node,
    prober::{Call, Outcome, Prober, honest},
    wait_until,
};

/// Time between two calls of a function.
const PACE: Duration = Duration::from_millis(40);
/// Memory that the server may have more in the end, in KiB: caches fill, and allocators keep some.
const SLACK: u64 = 16 << 10;
/// Descriptors that a server with two functions and no callers has at most: listener, store, engine, timers, workers.
const AT_REST: usize = 24;
/// So many equal looks in a row are rest.
const CALM: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_few_rounds_everything_is_as_before() {
    soak("e2e short soak", Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten minutes: make soak"]
async fn after_ten_minutes_everything_is_as_before() {
    soak("e2e soak", Duration::from_mins(10)).await;
}

async fn soak(test: &str, length: Duration) {
    if !has_docker(test) {
        return;
    }
    let begin = Instant::now();
    let home = Arc::new(Home::new());
    let server = Start::default().at(&home).await;
    let mut soak = Soak {
        version: 0,
        calls: 0,
        address: server.address.to_string(),
        server,
    };
    soak.round(false).await;
    let first = soak.footprint(AT_REST).await;
    println!("after one round     {first}");
    loop {
        soak.round(false).await;
        if begin.elapsed() > length / 2 {
            break;
        }
    }
    let half = soak.footprint(first.descriptors).await;
    println!("one server, {:>4} s  {half}", begin.elapsed().as_secs());
    assert!(half.memory < first.memory + SLACK, "{half}");
    loop {
        soak.round(true).await;
        if begin.elapsed() > length {
            break;
        }
    }
    // The new server has seen as much as the first one then.
    soak.round(false).await;
    let last = soak.footprint(first.descriptors).await;
    println!("in the end, {:>4} s  {last}", begin.elapsed().as_secs());
    println!("{} calls, {} versions", soak.calls, soak.version);
    for seen in [half, last] {
        assert!(seen.memory < first.memory + SLACK, "{seen}");
        assert_eq!(
            Footprint {
                memory: first.memory,
                // Those that were waited for.
                descriptors: first.descriptors,
                ..seen
            },
            first
        );
    }
}

struct Soak {
    server: Server,
    address: String,
    version: u64,
    calls: usize,
}

impl Soak {
    /// Everything once, under load. At its end the server is killed, or not.
    async fn round(&mut self, kill: bool) {
        self.version += 1;
        let server = &self.server;
        let warm = |name: &str, version| {
            node(
                &honest(name, version),
                json!({"scale": {"min": 1, "max": 1}}),
            )
        };
        server
            .deploy("changing", warm("changing", self.version))
            .await;
        server.deploy("shot", warm("shot", 1)).await;
        let mut changing = Prober::start(server, "changing", PACE, 20).await;
        let mut shot = Prober::start(server, "shot", PACE, 20).await;

        self.version += 1;
        server
            .deploy("changing", warm("changing", self.version))
            .await;
        let code = "module.exports = (c, cb) => c.die ? process.exit(7) : cb('alive')";
        server.deploy("passing", node(code, json!({}))).await;
        assert_eq!(server.call("passing", json!({})).await.response(), "alive");
        server
            .call("passing", json!({"die": true}))
            .await
            .refused(502, "InstanceLost");
        server.delete("/functions/passing").await;
        for instance in server.instances("shot", "ready").await {
            docker(&["kill", &instance]);
        }
        server.ready("shot").await;
        wait_until("the function is gone", SOON, async || {
            server.object("passing").await.is_none().then_some(())
        })
        .await;
        if kill {
            self.begin_anew().await;
            changing.listen_again(&self.server).await;
            shot.listen_again(&self.server).await;
        }
        let cut =
            |call: &Call| kill && matches!(call.outcome, Outcome::Unreachable | Outcome::Broken(_));
        let lost = Outcome::Refused(502, "InstanceLost".to_owned());
        let ledger = changing.stop_after_losses().await;
        ledger.check_but(cut);
        self.calls += ledger.calls.len();
        let ledger = shot.stop_after_losses().await;
        ledger.check_but(|call| call.outcome == lost || cut(call));
        self.calls += ledger.calls.len();
    }

    /// kill -9, and a start at the same address.
    async fn begin_anew(&mut self) {
        self.server.signal(Signal::KILL);
        self.server.end().await;
        let start = Start::default().with("--listen", self.address.clone());
        self.server = start.at(&self.server.home.clone()).await;
        for name in ["changing", "shot"] {
            self.server.ready(name).await;
        }
    }

    /// What there is once everything has come to rest, with so many descriptors at most.
    async fn footprint(&self, most: usize) -> Footprint {
        let server = &self.server;
        let owner = server.home.owner().unwrap();
        wait_until("one instance of each is left", SOON, async || {
            let both = [
                server.instances("changing", "ready").await,
                server.instances("shot", "ready").await,
            ];
            (both.iter().all(|ready| ready.len() == 1) && server.home.containers().len() == 2)
                .then_some(())
        })
        .await;
        // Of the newest version and of the one before, and of the other function.
        wait_until("unneeded images are gone", SOON, async || {
            (images(&owner).len() <= 3).then_some(())
        })
        .await;
        let process = format!("/proc/{}", server.pid());
        let around = faas::config::surroundings().unwrap();
        let run = faas::app::run_base(around.user_runtime_dir.as_deref()).join(&owner);
        // Connections of the last calls rest until the engine is looked at as a whole. For that, its stream of events is closed
        // and opened again, and it is asked one thing after another: for that while there is one less, or one more.
        let (mut seen, mut looks) = (0, 0);
        wait_until("descriptors are given back", SOON, async || {
            let open = descriptors(server);
            looks += 1;
            if std::mem::replace(&mut seen, open) != open {
                println!(
                    "{open} descriptors, to be {most} at most: {:?}",
                    kinds(server)
                );
                looks = 0;
            }
            (open <= most && looks == CALM).then_some(())
        })
        .await;
        Footprint {
            memory: server.memory(),
            descriptors: seen,
            images: images(&owner).len(),
            containers: server.home.containers().len(),
            sockets: entries(&run),
            mounts: fs::read_to_string(format!("{process}/mounts"))
                .unwrap()
                .matches(&owner)
                .count(),
            state: entries(&server.home.state()),
        }
    }
}

/// What the server and its functions take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Footprint {
    /// KiB resident.
    memory: u64,
    descriptors: usize,
    images: usize,
    containers: usize,
    /// Directories of instances.
    sockets: usize,
    mounts: usize,
    /// Files of the state directory.
    state: usize,
}

impl std::fmt::Display for Footprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

fn descriptors(server: &Server) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid()));
    open.unwrap().count()
}

/// What descriptors stand for, and how many for each.
fn kinds(server: &Server) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for open in fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap() {
        // One may be closed by now.
        if let Ok(to) = fs::read_link(open.unwrap().path()) {
            let to = to.display().to_string();
            let kind = to.split(":[").next().unwrap_or(&to).to_owned();
            *kinds.entry(kind).or_default() += 1;
        }
    }
    kinds
}

/// Files and directories below.
fn entries(dir: &Path) -> usize {
    let below = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    below
        .map(|path| 1 + if path.is_dir() { entries(&path) } else { 0 })
        .sum()
}

//! What there is only so much of, and what happens at the edge: places to wait, memory, network, the kernel's patience.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    Home, Reply, SOON, Server, Start, client, docker, fresh, function, has_docker, node, wait_until,
};

/// Callers that may wait for one function.
const PLACES: usize = 1000;

/// A server that nobody shares.
async fn server() -> Server {
    Start::default().at(&Arc::new(Home::new())).await
}

/// Answers no sooner than there is a file.
const PATIENT: &str = "
const fs = require('fs')
module.exports = (context, cb) => {
  const look = () => fs.existsSync('/tmp/go') ? cb('gone') : setTimeout(look, 20)
  look()
}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_wait_and_the_next_is_refused() {
    if !has_docker("e2e full queue") {
        return;
    }
    // Both ends of every connection are of this process and its child.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    let server = server().await;
    let scale = json!({"min": 1, "max": 1, "concurrency": 1});
    let more = json!({"scale": scale, "startupTimeoutSeconds": 300, "timeoutSeconds": 300});
    server.deploy("patient", node(PATIENT, more)).await;
    let instance = server.instances("patient", "ready").await.remove(0);

    let (client, url) = (client(), server.url("/functions/patient"));
    let call = || client.post(&url).json(&json!({})).send();
    let mut calls = JoinSet::new();
    let first = calls.spawn(call());
    wait_until("the first call runs", SOON, async || {
        let status = server.status("patient").await;
        (status["instances"][0]["inFlight"] == 1).then_some(())
    })
    .await;
    let leaver = calls.spawn(call());
    for _ in 1..PLACES {
        calls.spawn(call());
    }
    waiting(&server, PLACES).await;

    for path in ["/functions/patient", "/function/patient/any"] {
        let reply = server
            .post(path, &json!({}))
            .await
            .refused(429, "QueueFull");
        assert!(reply.text.contains("1000 calls wait"), "{}", reply.text);
        assert!(reply.header("retry-after").parse::<u32>().unwrap() > 0);
    }
    // A caller who leaves makes room for one.
    leaver.abort();
    waiting(&server, PLACES - 1).await;
    calls.spawn(call());
    waiting(&server, PLACES).await;

    assert!(!first.is_finished());
    docker(&["exec", &instance, "touch", "/tmp/go"]);
    let mut answered = 0;
    while let Some(end) = calls.join_next().await {
        match end {
            Ok(reply) => assert_eq!(Reply::of(reply.unwrap()).await.response(), "gone"),
            Err(left) => assert!(left.is_cancelled()),
        }
        answered += 1;
    }
    assert_eq!(answered, PLACES + 2, "with the one who left");
}

/// Waits until so many callers wait.
async fn waiting(server: &Server, callers: usize) {
    let line = format!("faas_calls_waiting {callers}\n");
    wait_until(&line, SOON, async || {
        let metrics = server.get("/metrics").await.text;
        metrics.contains(&line).then_some(())
    })
    .await;
}

/// More than half of what instances may claim together: there is room for one.
fn most_memory() -> String {
    memory(45)
}

/// So many hundredths of the machine's memory.
fn memory(percent: u64) -> String {
    let info = fs::read_to_string("/proc/meminfo").unwrap();
    let total = info.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = total.unwrap().trim().trim_end_matches(" kB");
    format!("{}Ki", kib.parse::<u64>().unwrap() / 100 * percent)
}

#[tokio::test]
async fn what_never_has_room_keeps_nobody_waiting_and_takes_nothing_from_what_serves() {
    if !has_docker("e2e never room") {
        return;
    }
    let server = server().await;
    let spec = |percent| {
        let more = json!({"resources": {"memory": memory(percent)}});
        node("module.exports = async (c) => c", more)
    };
    server.apply("large", spec(90)).await;
    let told = server.fails("large", "NoCapacity").await;
    assert!(told.contains("lower spec.resources.memory"), "{told}");
    server
        .condition("large", "Stalled", |c| c["status"] == "True")
        .await;
    let reply = server.call("large", json!({})).await;
    let reply = reply.refused(503, "NoCapacity");
    assert_eq!(reply.json()["message"], told, "not after a wait in vain");
    assert_eq!(reply.headers.get("retry-after"), None);

    server.deploy("large", spec(1)).await;
    server.apply("large", spec(90)).await;
    server.fails("large", "NoCapacity").await;
    server.call("large", json!({})).await.expect(200);
}

#[tokio::test]
async fn without_memory_callers_are_told_and_idle_instances_of_others_leave() {
    if !has_docker("e2e memory") {
        return;
    }
    let server = server().await;
    let spec = |scale: Value| {
        let more = json!({"resources": {"memory": most_memory()}, "scale": scale, "startupTimeoutSeconds": 2});
        node("module.exports = async (c) => c", more)
    };
    server.deploy("large", spec(json!({"min": 1}))).await;
    let mut other = spec(json!({}));
    other["env"] = json!([{"name": "OTHER", "value": "1"}]);
    server.apply("other", other).await;
    server.fails("other", "NoCapacity").await;
    for path in ["/functions/other", "/function/other/any"] {
        let reply = server
            .post(path, &json!({}))
            .await
            .refused(503, "NoCapacity");
        assert!(reply.header("retry-after").parse::<u32>().unwrap() > 0);
    }
    server.call("large", json!({})).await.expect(200);

    // Nobody insists on the first any more; it would stay for five minutes.
    server.apply("large", spec(json!({"min": 0}))).await;
    server.ready("other").await;
    for _ in 0..2 {
        for (name, left) in [("large", "other"), ("other", "large")] {
            wait_until("it answers where the other was", SOON, async || {
                let reply = server.call(name, json!({"a": 1})).await;
                (reply.status == 200).then_some(())
            })
            .await;
            assert_eq!(server.instances(left, "ready").await, [""; 0]);
            assert_eq!(server.home.containers().len(), 1);
        }
    }
}

/// Another machine, behind an interface of this one.
struct Elsewhere {
    name: String,
    /// Its address.
    address: String,
    /// Another one, of the kind at which clouds tell machines their secrets.
    link_local: String,
    /// This machine's address, seen from there.
    here: String,
    listener: Option<Child>,
}

impl Elsewhere {
    fn new() -> Self {
        let name = format!("ft{}", &fresh()[..8]);
        // Of the addresses that are kept for tests of networks.
        let net = format!("198.18.{}", u8::from_str_radix(&fresh()[..2], 16).unwrap());
        let (here, address) = (format!("{net}.1"), format!("{net}.2"));
        let near = format!("169.254.{}", net.rsplit('.').next().unwrap());
        let mut elsewhere = Self {
            name: name.clone(),
            address,
            link_local: format!("{near}.2"),
            here,
            listener: None,
        };
        let (address, link_local) = (&elsewhere.address, &elsewhere.link_local);
        ip(&format!("netns add {name}"));
        ip(&format!(
            "link add {name} type veth peer name eth0 netns {name}"
        ));
        ip(&format!("address add {}/30 dev {name}", elsewhere.here));
        ip(&format!("link set {name} up"));
        ip(&format!("-n {name} address add {address}/30 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("address add {near}.1/30 dev {name}"));
        ip(&format!("-n {name} address add {link_local}/30 dev eth0"));
        ip(&format!(
            "-n {name} route add default via {}",
            elsewhere.here
        ));
        let code =
            "require('net').createServer((s) => s.end()).listen(8080, () => console.log('up'))";
        let mut listener = Command::new("ip")
            .args(["netns", "exec", &name, "node", "-e", code])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let output = listener.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut said).unwrap();
        elsewhere.listener = Some(listener);
        elsewhere
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        if let Some(listener) = &mut self.listener {
            let _ = listener.kill();
            let _ = listener.wait();
        }
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .status();
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

/// Tells what it can reach, and through which interfaces.
const REACH: &str = "
const net = require('net'), os = require('os'), fs = require('fs')
const route = () => fs.readFileSync('/proc/net/route', 'utf8').split('\\n')[1]
module.exports = (context, cb) => {
  if (context.look) return cb({
    interfaces: Object.keys(os.networkInterfaces()).sort(),
    gateway: route() && Buffer.from(route().split('\\t')[2], 'hex').reverse().join('.'),
  })
  const socket = net.connect({host: context.address, port: context.port, timeout: 1500})
  const end = (what) => { socket.destroy(); cb(what) }
  socket.on('connect', () => end('open')).on('timeout', () => end('silent')).on('error', (e) => end(e.code))
}";

#[tokio::test]
async fn the_internet_is_reached_but_not_this_machine_and_without_a_network_nothing() {
    if !has_docker("e2e networks") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        let server = server().await;
        let spec = node(REACH, json!({"network": "internet"}));
        server.apply("open", spec).await;
        let message = server.fails("open", "NetworkRefused").await;
        assert!(message.contains("--allow-host-reach"), "{message}");
        return;
    }
    let elsewhere = Elsewhere::new();
    let here = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = here.local_addr().unwrap().port();
    let server = server().await;
    server
        .deploy("open", node(REACH, json!({"network": "internet"})))
        .await;
    server.deploy("shut", node(REACH, json!({}))).await;
    let reach = async |name: &str, address: &str, port: u16| {
        let input = json!({"address": address, "port": port});
        server.call(name, input).await.response()
    };

    let sight = server.call("open", json!({"look": 1})).await.response();
    assert_eq!(sight["interfaces"], json!(["eth0", "lo"]));
    let gateway = sight["gateway"].as_str().unwrap();
    assert_eq!(reach("open", &elsewhere.address, 8080).await, "open");
    for address in [gateway, &elsewhere.here] {
        TcpStream::connect((address, port)).unwrap();
        assert_eq!(reach("open", address, port).await, "silent", "{address}");
    }
    let link_local = &elsewhere.link_local;
    TcpStream::connect((link_local.as_str(), 8080)).unwrap();
    for (address, port) in [(link_local.as_str(), 8080), ("169.254.169.254", 80)] {
        assert_eq!(reach("open", address, port).await, "silent", "{address}");
    }

    let sight = server.call("shut", json!({"look": 1})).await.response();
    assert_eq!(sight, json!({"interfaces": ["lo"], "gateway": ""}));
    for address in [&elsewhere.address, &elsewhere.here, "169.254.169.254"] {
        assert_eq!(
            reach("shut", address, 8080).await,
            "ENETUNREACH",
            "{address}"
        );
    }

    let filter = format!("name=faas-{}", server.home.owner().unwrap());
    let networks = || docker(&["network", "ls", "--quiet", "--filter", &filter]);
    assert_ne!(networks(), "");
    server.delete("/functions/open").await.expect(202);
    wait_until("it goes with the last who wants it", SOON, async || {
        networks().is_empty().then_some(())
    })
    .await;
    server
        .deploy("open", node(REACH, json!({"network": "internet"})))
        .await;
    assert_eq!(reach("open", &elsewhere.address, 8080).await, "open");
    server.signal(Signal::INT);
    server.end().await;
    assert_eq!(networks(), "", "it is there only with the server");
}

/// Processes that were told this text in their environment.
fn told(text: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let environments = processes.map(|p| (p.file_name(), fs::read(p.path().join("environ"))));
    let told = environments.filter(|(_, environment)| {
        let environment = environment.as_deref().unwrap_or_default();
        String::from_utf8_lossy(environment).contains(text)
    });
    told.map(|(pid, _)| pid.to_string_lossy().into_owned())
        .collect()
}

async fn process_server(home: &Arc<Home>) -> Server {
    let start = Start::default().with("--runtime", "process");
    let server = start.watching(home).at(home).await;
    assert!(
        server.said().contains("NOTHING isolates them"),
        "{}",
        server.said()
    );
    server
}

/// Saves a function of this code, and waits until it answers as wanted.
async fn save(server: &Server, name: &str, code: &str, wanted: &str) {
    let spec = node(code, json!({"scale": {"min": 1}}));
    server
        .home
        .write(&format!("{name}.yaml"), &function(name, spec).to_string());
    answers(server, name, wanted).await;
}

async fn answers(server: &Server, name: &str, wanted: &str) {
    wait_until(&format!("{name} answers {wanted}"), SOON, async || {
        let reply = server.call(name, json!({})).await;
        (reply.status == 200 && reply.response() == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn processes_serve_like_containers_and_end_with_the_server() {
    for signal in [Signal::INT, Signal::KILL] {
        let home = Arc::new(Home::new());
        let server = process_server(&home).await;
        save(
            &server,
            "plain",
            "module.exports = async () => 'one'",
            "one",
        )
        .await;
        server.ready("plain").await;
        let first = server.instances("plain", "ready").await.remove(0);
        assert_eq!(told(&first).len(), 2, "init and program");
        let code =
            "module.exports = async (c) => { if (c.bad) throw new Error('thrown'); return 'two' }";
        save(&server, "plain", code, "two").await;
        server.ready("plain").await;
        wait_until("the old one is gone", SOON, async || {
            told(&first).is_empty().then_some(())
        })
        .await;
        let reply = server.call("plain", json!({"bad": 1})).await;
        assert!(reply.refused(400, "FunctionFailed").text.contains("thrown"));
        server.call("plain", json!({})).await.expect(200);

        let second = server.instances("plain", "ready").await.remove(0);
        assert_eq!(told(&second).len(), 2, "init and program");
        server.signal(signal);
        server.end().await;
        wait_until("no child is left", SOON, async || {
            told(&second).is_empty().then_some(())
        })
        .await;
    }
}

/// Starts a program in a session of its own, and then takes its time.
const PARENT: &str = "
const child = require('child_process')
module.exports = (context, cb) => {
  child.spawn('sleep', ['1000'], {detached: true, env: process.env})
  console.log('spawned')
  setTimeout(() => cb('late'), context.ms || 0)
}";

#[tokio::test]
async fn processes_are_not_outlived_by_what_they_started() {
    for signals in [&[Signal::KILL][..], &[Signal::INT, Signal::INT]] {
        let home = Arc::new(Home::new());
        let server = process_server(&home).await;
        save(&server, "parent", PARENT, "late").await;
        let instance = server.instances("parent", "ready").await.remove(0);
        let request = server.request(reqwest::Method::POST, "/functions/parent");
        let call = tokio::spawn(request.json(&json!({"ms": 60_000})).send());
        wait_until("two programs were started", SOON, async || {
            (told(&instance).len() == 4).then_some(())
        })
        .await;
        let run_root = run_root(&told(&instance)[0]);
        assert!(run_root.exists());
        for signal in signals {
            server.signal(*signal);
            wait_until("the signal counts", SOON, async || {
                let drains = server.said().contains("Draining");
                (drains || server.ended().is_some()).then_some(())
            })
            .await;
        }
        let code = server.end().await.code();
        wait_until("nothing is left", SOON, async || {
            told(&instance).is_empty().then_some(())
        })
        .await;
        let answer = call.await.unwrap();
        assert!(answer.is_err() || answer.unwrap().status() == 502);
        if signals.len() == 2 {
            assert_eq!(code, Some(1), "a call was cut");
            let said = server.said();
            assert!(said.contains("instances ended with it"), "{said}");
            assert!(!run_root.exists(), "no directory is left");
        }
    }
}

/// Where the directories of instances are, as a process was told.
fn run_root(pid: &str) -> PathBuf {
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let socket = environment
        .split('\0')
        .find_map(|variable| variable.strip_prefix("FAAS_SOCKET="));
    Path::new(socket.unwrap())
        .ancestors()
        .nth(2)
        .unwrap()
        .into()
}

#[tokio::test]
async fn a_change_arrives_though_the_kernel_lost_it() {
    let home = Arc::new(Home::new());
    let server = process_server(&home).await;
    let burst = home.functions().join("burst");
    fs::create_dir(&burst).unwrap();
    save(&server, "seen", "module.exports = async () => 'old'", "old").await;

    // While the server stands still nobody empties the kernel's queue, and what comes after it is full is lost.
    let room = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    server.signal(Signal::STOP);
    for _ in 0..room.trim().parse::<usize>().unwrap() {
        let file = burst.join("file");
        fs::write(&file, "").unwrap();
        fs::remove_file(&file).unwrap();
    }
    let spec = json!({"language": "node", "source": {"directory": "./made/late"}});
    home.write("made/late/index.js", "module.exports = async () => 'new'");
    home.write("seen.yaml", &function("seen", spec).to_string());
    server.signal(Signal::CONT);
    answers(&server, "seen", "new").await;
    let said = server.said();
    assert!(
        said.contains("too fast to be told"),
        "nothing was lost: {said}"
    );

    // The directory whose coming was lost is watched like any other.
    home.write("made/late/index.js", "module.exports = async () => 'newer'");
    answers(&server, "seen", "newer").await;
}

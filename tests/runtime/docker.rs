//! Containers of a real engine.

use std::{
    collections::HashMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::{ContainerConfig, ContainerCreateBody, ContainerInspectResponse, HostConfig},
    query_parameters::{
        CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    },
};
use faas::runtime::{
    End, Network, Runtime, RuntimeError,
    docker::{DockerRuntime, INIT, Settings},
    rundir::RunRoot,
};
use futures::StreamExt;
use tokio::sync::OnceCell;

use crate::bench::{Bench, PROGRAM, invoke, random, soon};

const IMAGE: &str = "faas.local/test-runtime:1";

crate::contract::promises!(bench());

/// A runtime of an owner of its own, on the engine of this machine.
struct World {
    dir: tempfile::TempDir,
    owner: String,
}

impl World {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            owner: format!("test-{}", random()),
        }
    }

    fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn runtime(&self) -> DockerRuntime {
        let mounts = rustix::process::geteuid().is_root();
        DockerRuntime::new(Settings {
            socket: engine(),
            owner: self.owner.clone(),
            run_root: RunRoot::open(&self.run(), mounts).unwrap(),
            state: self.dir.path().join("state"),
            init: INIT,
            allow_host_reach: false,
        })
    }
}

/// A test that failed leaves neither containers nor the network nor mounts.
impl Drop for World {
    fn drop(&mut self) {
        for container in listed(&format!("label=faas.dev/owner={}", self.owner)) {
            let _ = Command::new("docker")
                .args(["rm", "-f", &container])
                .output();
        }
        let runtime = self.runtime();
        let close = move || {
            let tokio = tokio::runtime::Runtime::new().unwrap();
            let _ = tokio.block_on(runtime.close_internet());
        };
        let _ = std::thread::spawn(close).join();
        for mount in mounts(&self.run().display().to_string()) {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// The socket of the engine that `docker` asks too.
fn engine() -> PathBuf {
    faas::config::surroundings().unwrap().docker_socket
}

fn has_engine() -> bool {
    let engine = engine();
    let there = engine.exists();
    if !there {
        let engine = engine.display();
        eprintln!("skipped: no Docker engine at {engine} (scripts/docker-up starts one)");
    }
    there
}

async fn bench() -> Option<Bench> {
    if !has_engine() {
        return None;
    }
    image().await;
    let world = World::new();
    Some(bench_of(world.runtime(), world))
}

fn bench_of(runtime: DockerRuntime, world: World) -> Bench {
    let run = world.run();
    Bench {
        runtime: Arc::new(runtime),
        image: IMAGE.to_owned(),
        remains: Box::new(move |id| remains(&run, id)),
        keep: Box::new(world),
    }
}

/// The base image of Node with the program as its command.
async fn image() {
    static MADE: OnceCell<()> = OnceCell::const_new();
    MADE.get_or_init(|| async {
        let base = Command::new("scripts/base-image")
            .arg("node")
            .output()
            .unwrap();
        assert!(
            base.status.success(),
            "{}",
            String::from_utf8_lossy(&base.stderr)
        );
        let base = String::from_utf8(base.stdout).unwrap().trim().to_owned();
        let docker = docker();
        let body = ContainerCreateBody {
            image: Some(base),
            ..ContainerCreateBody::default()
        };
        let made = docker.create_container(None, body).await.unwrap();
        let (repository, tag) = IMAGE.split_once(':').unwrap();
        let options = CommitContainerOptionsBuilder::new()
            .container(&made.id)
            .repo(repository)
            .tag(tag)
            .build();
        let config = ContainerConfig {
            entrypoint: Some(vec!["node".to_owned()]),
            cmd: Some(vec!["-e".to_owned(), PROGRAM.to_owned()]),
            volumes: Some(vec!["/data".to_owned()]),
            ..ContainerConfig::default()
        };
        docker.commit_container(options, config).await.unwrap();
        remove(&made.id).await;
    })
    .await;
}

fn docker() -> Docker {
    // The oldest version that faas promises to know.
    let oldest = bollard::ClientVersion {
        major_version: 1,
        minor_version: 41,
    };
    assert!(oldest < *API_DEFAULT_VERSION);
    Docker::connect_with_unix(engine().to_str().unwrap(), 60, &oldest).unwrap()
}

async fn remove(container: &str) {
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    docker()
        .remove_container(container, Some(options))
        .await
        .unwrap();
}

fn listed(filter: &str) -> Vec<String> {
    let format = ["ps", "--all", "--format", "{{.Names}}", "--filter", filter];
    let output = Command::new("docker").args(format).output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn mounts(of: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    points
        .filter(|point| point.contains(of))
        .map(str::to_owned)
        .collect()
}

/// Containers, mounts and directories.
fn remains(run: &Path, id: &str) -> Vec<String> {
    let mut found = listed(&format!("name={id}"));
    found.extend(mounts(id));
    // It goes with the runtime.
    let entries = fs::read_dir(run).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    found.extend(names.filter(|name| name.starts_with(id)));
    found
}

async fn inspect(id: &str) -> ContainerInspectResponse {
    docker().inspect_container(id, None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_has_no_privilege() {
    let Some(bench) = bench().await else { return };
    let spec = bench.spec(&[]);
    let status = "fs.readFileSync('/proc/self/status', 'utf8')";
    let status = bench.eval(&spec, status).await;
    for (field, expected) in [
        ("CapInh:", "0000000000000000"),
        ("CapPrm:", "0000000000000000"),
        ("CapEff:", "0000000000000000"),
        ("CapBnd:", "0000000000000000"),
        ("CapAmb:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
        ("Uid:", "65532 65532 65532 65532"),
        ("Gid:", "65532 65532 65532 65532"),
    ] {
        let found = status.lines().find_map(|line| line.strip_prefix(field));
        let found: Vec<_> = found.unwrap().split_whitespace().collect();
        assert_eq!(found.join(" "), expected, "{field}");
    }
    bench.stop(&spec).await;
}

/// What is tried in a container, and what comes of it.
const LIMITS: [(&str, &str); 15] = [
    ("fs.writeFileSync('/x', '')", "error: EROFS"),
    ("fs.writeFileSync('/.faas/init', '')", "error: EROFS"),
    ("fs.writeFileSync('/run/x', '')", "error: EROFS"),
    ("fs.writeFileSync('/tmp/x', Buffer.alloc(1 << 19)); 1", "1"),
    (
        "fs.writeFileSync('/tmp/y', Buffer.alloc(1 << 20))",
        "error: ENOSPC",
    ),
    (
        "fs.writeFileSync('/data/y', Buffer.alloc(1 << 21))",
        "error: ENOSPC",
    ),
    (
        "fs.writeFileSync('/dev/shm/y', Buffer.alloc(1 << 21))",
        "error: ENOSPC",
    ),
    ("fs.readdirSync('/sys/class/net')", "lo"),
    ("fs.existsSync('/var/run/docker.sock')", "false"),
    (
        "fs.readFileSync('/proc/1/oom_score_adj', 'utf8').trim()",
        "500",
    ),
    (
        "process.env.FAAS_SOCKET + process.env.PORT",
        "/run/faas/fn.sock8080",
    ),
    (
        "fs.rmSync('/tmp/y'); fs.writeFileSync('/tmp/p', '#!/bin/sh', {mode: 0o755}); 1",
        "1",
    ),
    ("child.spawnSync('/tmp/p').error.code", "EACCES"),
    (
        "/open files +1024 +1024/.test(fs.readFileSync('/proc/self/limits'))",
        "true",
    ),
    (
        "let n = 0; for (; n < 99; n++) { const one = child.spawn('sleep', ['100']); one.on('error', () => {}); \
         if (!one.pid) break; } n < 64",
        "true",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_reaches_and_fills_nothing() {
    let Some(bench) = bench().await else { return };
    let spec = bench.spec(&[]);
    let socket = bench.runtime.start(&spec).await.unwrap().address;
    if rustix::process::geteuid().is_root() {
        let fill = "fs.writeFileSync('/run/faas/y', Buffer.alloc(1 << 17))";
        assert_eq!(invoke(&socket, fill).await, "error: ENOSPC");
    }
    for (code, expected) in LIMITS {
        assert_eq!(invoke(&socket, code).await, expected, "{code}");
    }
    bench.stop(&spec).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_cores_than_the_machine_has_are_as_many_as_it_has() {
    let Some(bench) = bench().await else { return };
    let mut spec = bench.spec(&[]);
    spec.limits.nano_cpus = 4_000_000_000_000;
    bench.runtime.start(&spec).await.unwrap();
    let told = inspect(&spec.id).await.host_config.unwrap().nano_cpus;
    let told = told.unwrap();
    assert!(told > 0 && told < spec.limits.nano_cpus, "{told}");
    bench.stop(&spec).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_was_told_the_limits_and_no_secret() {
    let Some(bench) = bench().await else { return };
    let mut spec = bench.spec(&[]);
    spec.secrets = vec![faas::runtime::SecretFile {
        path: "db/password".to_owned(),
        bytes: "hush-hush".into(),
    }];
    let stat = "const s = fs.statSync('/run/secrets/db/password'); s.uid + ' ' + (s.mode & 0o777).toString(8)";
    let shown = bench.eval(&spec, stat).await;
    if rustix::process::geteuid().is_root() {
        assert_eq!(shown, "65532 400");
    }
    let seen = inspect(&spec.id).await;
    assert!(!serde_json::to_string(&seen).unwrap().contains("hush-hush"));
    let host = seen.host_config.unwrap();
    assert_eq!(host.memory, Some(spec.limits.memory));
    assert_eq!(host.memory_swap, Some(spec.limits.memory));
    assert_eq!(host.nano_cpus, Some(spec.limits.nano_cpus));
    assert_eq!(host.pids_limit, Some(spec.limits.pids));
    assert_eq!(host.cpu_shares, Some(spec.cpu_shares.into()));
    assert_eq!(host.log_config.unwrap().typ.as_deref(), Some("local"));
    bench.stop(&spec).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cpu_shares_of_an_instance_that_runs_are_changed_and_nothing_else() {
    let Some(bench) = bench().await else { return };
    let spec = bench.spec(&[]);
    bench.runtime.set_cpu_shares(&spec.id, 2).await.unwrap();
    bench.eval(&spec, "0").await;
    let before = inspect(&spec.id).await.host_config.unwrap();
    bench.runtime.set_cpu_shares(&spec.id, 64).await.unwrap();
    let expected = HostConfig {
        cpu_shares: Some(64),
        ..before
    };
    assert_eq!(inspect(&spec.id).await.host_config, Some(expected));
    bench.stop(&spec).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_knows_only_tcp_answers_without_a_network() {
    let Some(bench) = bench().await else { return };
    let spec = bench.spec(&[("MODE", "tcp")]);
    let answer = bench
        .eval(
            &spec,
            "fs.readdirSync('/sys/class/net') + ' ' + server.address().port",
        )
        .await;
    assert_eq!(answer, "lo 8080");
    bench.stop(&spec).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_for_want_of_memory_is_told() {
    let Some(bench) = bench().await else { return };
    let mut spec = bench.spec(&[("MODE", "hungry")]);
    spec.limits.memory = 64 << 20;
    let mut exits = bench.runtime.exits().await.unwrap();
    match soon("the end", bench.runtime.start(&spec))
        .await
        .unwrap_err()
    {
        RuntimeError::Exited {
            code: 137,
            out_of_memory: true,
            ..
        } => {}
        other => panic!("{other}"),
    }
    let exit = soon("its exit", exits.next()).await.unwrap();
    assert_eq!((exit.id, exit.end), (spec.id.clone(), End::OutOfMemory));
    bench.assert_gone(&spec.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_runtime_of_the_same_owner_finds_what_runs() {
    let Some(bench) = bench().await else { return };
    let spec = bench.spec(&[]);
    let started = bench.runtime.start(&spec).await.unwrap();
    let world = bench.keep.downcast_ref::<World>().unwrap();
    drop(bench.runtime);

    let again = world.runtime();
    fs::create_dir(world.run().join("faas-old-000000000000")).unwrap();
    again.sweep().await.unwrap();
    assert_eq!(
        again.observe().await.unwrap(),
        std::slice::from_ref(&started)
    );
    assert_eq!(invoke(&started.address, "6 * 7").await, "42");
    assert!(!world.run().join("faas-old-000000000000").exists());
    again.stop(&spec.id, Duration::ZERO).await.unwrap();
    assert_eq!((bench.remains)(&spec.id), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_that_nobody_waits_for_are_over_when_the_server_leaves() {
    for pause in [0, 20, 60, 150] {
        let Some(bench) = bench().await else { return };
        let spec = bench.spec(&[("MODE", "silent")]);
        let start = bench.runtime.start(&spec);
        let left = tokio::time::timeout(Duration::from_millis(pause), start).await;
        assert!(left.is_err());
        bench.runtime.leave().await;
        bench.assert_gone(&spec.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_others_are_left_alone() {
    let Some(bench) = bench().await else { return };
    let like_ours = [
        ("app.kubernetes.io/managed-by", "faas"),
        ("faas.dev/instance", "faas-sum-1"),
        ("faas.dev/owner", "somebody"),
    ];
    let mut foreign = Vec::new();
    for labels in [&like_ours[..0], &like_ours[..2], &like_ours[..]] {
        let name = bench.spec(&[]).id;
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let body = ContainerCreateBody {
            image: Some(IMAGE.to_owned()),
            labels: Some(labels.iter().map(owned).collect::<HashMap<_, _>>()),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        docker()
            .create_container(Some(options), body)
            .await
            .unwrap();
        foreign.push(name);
    }
    assert_eq!(bench.runtime.observe().await.unwrap(), []);
    for name in &foreign {
        bench.runtime.stop(name, Duration::ZERO).await.unwrap();
        assert!(inspect(name).await.id.is_some(), "still there");
        // The same name is refused, and the other's container survives that too.
        let mut spec = bench.spec(&[]);
        spec.id.clone_from(name);
        bench.runtime.start(&spec).await.unwrap_err();
        remove(name).await;
        bench.assert_gone(name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_without_a_command_is_told() {
    let Some(bench) = bench().await else { return };
    let mut import = Command::new("docker")
        .args(["import", "-", "faas.local/test-empty:1"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut import.stdin.take().unwrap(), &[0; 1024]).unwrap();
    assert!(import.wait().unwrap().success());
    let mut spec = bench.spec(&[]);
    spec.image = "faas.local/test-empty:1".to_owned();
    let error = bench.runtime.start(&spec).await.unwrap_err();
    assert!(
        error.to_string().contains("neither ENTRYPOINT nor CMD"),
        "{error}"
    );
    bench.assert_gone(&spec.id);
    docker()
        .remove_image(
            &spec.image,
            None::<bollard::query_parameters::RemoveImageOptions>,
            None,
        )
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_away_is_an_error() {
    let world = World::new();
    let runtime = DockerRuntime::new(Settings {
        socket: world.dir.path().join("no.sock"),
        owner: world.owner.clone(),
        run_root: RunRoot::open(&world.run(), false).unwrap(),
        state: world.dir.path().join("state"),
        init: INIT,
        allow_host_reach: false,
    });
    let error = runtime.observe().await.unwrap_err();
    assert!(matches!(error, RuntimeError::Engine(_)), "{error}");
    assert!(runtime.exits().await.is_err() && runtime.facts().await.is_err());
}

/// The network, seen from inside.
const REACH: &str = "(address, port) => new Promise((done) => {
    const socket = net.connect({ host: address, port, timeout: 1500 });
    socket.on('connect', () => { socket.destroy(); done('open'); });
    socket.on('timeout', () => { socket.destroy(); done('silent'); });
    socket.on('error', (error) => done(error.code));
})";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_internet_network_shields_this_host() {
    let Some(bench) = bench().await else { return };
    let mut spec = bench.spec(&[]);
    spec.network = Network::Internet;
    if !rustix::process::geteuid().is_root() {
        let error = bench.runtime.start(&spec).await.unwrap_err();
        assert!(error.to_string().contains("--allow-host-reach"), "{error}");
        return;
    }
    let socket = bench.runtime.start(&spec).await.unwrap().address;
    assert_eq!(
        invoke(&socket, "Object.keys(os.networkInterfaces()).sort()").await,
        "eth0,lo"
    );

    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let gateway = "Buffer.from(fs.readFileSync('/proc/net/route', 'utf8').split('\\n')[1].split('\\t')[2], 'hex').reverse().join('.')";
    let gateway = invoke(&socket, gateway).await;
    // From the host itself the port is open, so the silence inside is the shield's.
    std::net::TcpStream::connect((gateway.as_str(), port)).unwrap();
    for address in [gateway.as_str(), "172.17.0.1", "169.254.169.254"] {
        let reached = invoke(&socket, &format!("({REACH})('{address}', {port})")).await;
        assert_eq!(reached, "silent", "{address}");
    }
    // The engine's resolver lives at a loopback address of the container.
    let resolver = invoke(&socket, "fs.readFileSync('/etc/resolv.conf', 'utf8')").await;
    assert!(resolver.contains("127.0.0.11"), "{resolver}");

    // An answer, be it that there is no such name, comes from a resolver outside.
    let lookup = "require('dns').promises.lookup('faas.invalid').catch((error) => error.code)";
    let outside = Command::new("node")
        .args(["-p", &format!("{lookup}.then(console.log); ''")])
        .output()
        .unwrap();
    let outside = String::from_utf8(outside.stdout).unwrap();
    assert_eq!(invoke(&socket, lookup).await, outside.trim());

    let world = bench.keep.downcast_ref::<World>().unwrap();
    let (runtime, name) = (world.runtime(), format!("faas-{}", world.owner));
    let bridge = bridge(&name).await;
    let whole = rules(&bridge);
    // What others do to the rules of this machine is mended when it is looked what runs.
    for damage in ["-D PREROUTING -i {bridge} -j {bridge}", "-F {bridge}"] {
        iptables(&damage.replace("{bridge}", &bridge));
        let reached = invoke(&socket, &format!("({REACH})('{gateway}', {port})")).await;
        assert_ne!(reached, "silent", "{damage}");
        bench.runtime.observe().await.unwrap();
        assert_eq!(rules(&bridge), whole, "{damage}");
        let reached = invoke(&socket, &format!("({REACH})('{gateway}', {port})")).await;
        assert_eq!(reached, "silent", "{damage}");
    }

    runtime.close_internet().await.unwrap();
    assert!(
        docker().inspect_network(&name, None).await.is_ok(),
        "it is in use"
    );
    bench.stop(&spec).await;
    assert_eq!(rules(&bridge), whole);
    runtime.close_internet().await.unwrap();
    runtime.close_internet().await.unwrap();
    assert!(docker().inspect_network(&name, None).await.is_err());
    assert_eq!(rules(&bridge), [""; 0], "the rules went too");
}

/// Between any two steps of the removal, the process may have ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_half_of_the_internet_network_is_left_goes() {
    let Some(bench) = bench().await else { return };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut spec = bench.spec(&[]);
    spec.network = Network::Internet;
    bench.runtime.start(&spec).await.unwrap();
    let world = bench.keep.downcast_ref::<World>().unwrap();
    let name = format!("faas-{}", world.owner);
    let bridge = bridge(&name).await;
    let hook = format!("PREROUTING -i {bridge} -j {bridge}");
    bench.stop(&spec).await;
    docker().remove_network(&name).await.unwrap();
    for left in [
        // The network alone was removed.
        &[][..],
        // Two processes had set the hook at once.
        &["-N {bridge}", "-I {hook}", "-I {hook}"],
        &["-N {bridge}", "-A {bridge} -j DROP"],
        &["-N {bridge}"],
    ] {
        for step in left {
            iptables(&step.replace("{hook}", &hook).replace("{bridge}", &bridge));
        }
        world.runtime().close_internet().await.unwrap();
        assert_eq!(rules(&bridge), [""; 0], "{left:?}");
    }
}

/// The interface of a network.
async fn bridge(network: &str) -> String {
    let network = docker().inspect_network(network, None).await.unwrap();
    network.options.unwrap()["com.docker.network.bridge.name"].clone()
}

/// Changes the table of the shield, or lists it.
fn iptables(arguments: &str) -> String {
    let output = Command::new("iptables")
        .args(["--wait", "-t", "raw"])
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The rules of a bridge.
fn rules(bridge: &str) -> Vec<String> {
    let table = iptables("-S");
    let rules = table.lines().filter(|rule| rule.contains(bridge));
    rules.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_facts_are_those_of_the_engine() {
    let Some(bench) = bench().await else { return };
    let facts = bench.runtime.facts().await.unwrap();
    for key in [
        "engine",
        "builder",
        "cgroup",
        "rootless",
        "userns",
        "live-restore",
        "icc",
    ] {
        assert!(!facts[key].is_empty(), "{key}");
    }
    assert!(facts["engine"].contains("API 1."), "{facts:?}");
}

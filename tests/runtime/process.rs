//! Children of this process.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use faas::{
    builder::process::image_dir,
    runtime::{
        Runtime,
        process::{ProcessRuntime, Settings},
        rundir::RunRoot,
    },
};

use crate::bench::{Bench, PROGRAM, invoke, until};

const IMAGE: &str = "faas.local/test:0123abcd";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

crate::contract::promises!(std::future::ready(Some(bench())));

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("images");
    let image = image_dir(&images, IMAGE);
    fs::create_dir_all(image.join("function")).unwrap();
    fs::write(image.join("shim.js"), PROGRAM).unwrap();
    let run = dir.path().join("run");
    let settings = Settings {
        run_root: RunRoot::open(&run, false).unwrap(),
        images,
        node: "node".into(),
        path: PATH.to_owned(),
        state: dir.path().to_owned(),
    };
    Bench {
        runtime: Arc::new(ProcessRuntime::new(settings).unwrap()),
        image: IMAGE.to_owned(),
        remains: Box::new(move |id| remains(&run, id)),
        keep: Box::new(dir),
    }
}

/// Directories, and processes that were told of them.
fn remains(run: &Path, id: &str) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(run)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(id))
        .collect();
    found.extend(processes(id));
    found
}

/// Processes whose environment names this instance.
fn processes(id: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let told = |path: &Path| {
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(id)
    };
    entries
        .map(|entry| entry.path())
        .filter(|path| told(path))
        .map(|path| path.display().to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_child_started_ends_with_it() {
    let bench = bench();
    let spec = bench.spec(&[]);
    let socket = bench.runtime.start(&spec).await.unwrap().address;
    let spawn = "child.spawn('sleep', ['1000']).pid";
    assert!(invoke(&socket, spawn).await.parse::<u32>().is_ok());
    assert_eq!(processes(&spec.id).len(), 3, "init, program and its child");
    invoke(&socket, "setImmediate(() => process.exit(1))").await;
    until("both are gone", || processes(&spec.id).is_empty()).await;
    bench.stop(&spec).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_end_with_the_runtime() {
    let Bench {
        runtime,
        image,
        remains,
        keep,
    } = bench();
    let bench = Bench {
        runtime: Arc::clone(&runtime),
        image,
        remains,
        keep,
    };
    let spec = bench.spec(&[("MODE", "stubborn")]);
    runtime.start(&spec).await.unwrap();
    let Bench {
        runtime: other,
        remains,
        keep: _keep,
        ..
    } = bench;
    drop((runtime, other));
    until("it is gone", || remains(&spec.id).is_empty()).await;
}

const SERVER: &str = "process::a_server_that_waits_for_its_end";

/// Not a test: the server that the next test kills. Says which instance it started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below"]
async fn a_server_that_waits_for_its_end() {
    let bench = bench();
    let spec = bench.spec(&[("MODE", "stubborn")]);
    let socket = bench.runtime.start(&spec).await.unwrap().address;
    for detached in [false, true] {
        let spawn = format!("child.spawn('sleep', ['1000'], {{detached: {detached}}}).pid");
        assert!(invoke(&socket, &spawn).await.parse::<u32>().is_ok());
    }
    println!("\ninstance {}", spec.id);
    // Nobody kills it where ignored tests are run too.
    let pending = std::future::pending::<()>();
    let _ = tokio::time::timeout(Duration::from_secs(30), pending).await;
    bench.stop(&spec).await;
}

#[tokio::test]
async fn children_end_with_a_killed_server() {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args([SERVER, "--exact", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let id = lines.find_map(|line| line.unwrap().strip_prefix("instance ").map(str::to_owned));
    let id = id.unwrap();
    assert_eq!(processes(&id).len(), 4, "init, program and its children");
    server.kill().unwrap();
    server.wait().unwrap();
    until("all are gone, whatever session they are in", || {
        processes(&id).is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_has_no_variable_but_its_own() {
    let bench = bench();
    let spec = bench.spec(&[("A", "1")]);
    let names = bench
        .eval(&spec, "Object.keys(process.env).sort().join()")
        .await;
    assert_eq!(names, "A,FAAS_SOCKET,HOME,PATH");
    bench.stop(&spec).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_not_there_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let image = image_dir(dir.path(), IMAGE);
    fs::create_dir_all(image.join("function")).unwrap();
    fs::write(image.join("shim.js"), PROGRAM).unwrap();
    let settings = Settings {
        run_root: RunRoot::open(&dir.path().join("run"), false).unwrap(),
        images: dir.path().to_owned(),
        node: "no-such-node".into(),
        path: PATH.to_owned(),
        state: dir.path().to_owned(),
    };
    let bench = bench();
    let runtime = ProcessRuntime::new(settings).unwrap();
    let error = runtime.start(&bench.spec(&[])).await.unwrap_err();
    assert!(error.to_string().contains("no-such-node"), "{error}");
}

//! What a server costs that has nothing to do, what a thousand idle Functions add, and how long a first call takes.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    Args, HANDLER, manifest,
    server::{Faas, Outcome, functions, remove_images},
};

/// Functions of the measurement.
const MANY: usize = 1000;
/// First calls that are measured.
const COLD_STARTS: usize = 7;
/// How long a server is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(3);
/// How long its use of the processor is watched.
const WATCH: Duration = Duration::from_secs(5);
/// The kernel's unit of processor time in `/proc/PID/stat`, the same on every machine.
const TICKS_A_SECOND: f64 = 100.0;

/// Prints memory, processor time at rest and times to Ready.
pub async fn measure(args: &Args, scratch: &Path) -> Outcome<()> {
    let dir = scratch.join("idle");
    fs::create_dir_all(&dir)?;
    let (empty, _) = {
        let faas = Faas::start(args, &dir, &scratch.join("state-none"))?;
        rest(&faas).await?
    };
    for number in 0..MANY {
        let name = format!("f{number}");
        let scale = "{min: 0, idleAfterSeconds: 1}";
        fs::write(
            dir.join(format!("{name}.yaml")),
            manifest(&name, scale, HANDLER),
        )?;
    }
    let state = scratch.join("state-many");
    let (fresh, (built, _)) = many(args, &dir, &state).await?;
    let (again, (full, busy)) = many(args, &dir, &state).await?;
    remove_images(&state);
    let each = |memory: f64| (memory - empty) / MANY as f64;
    println!("\nidle cost                                        measured   expected");
    println!(
        "memory without Functions                     {:8.1} MiB   <= 30",
        empty / 1024.0
    );
    println!(
        "memory for each of {MANY} idle Functions       {:8.1} KiB   <= 16",
        each(full)
    );
    println!(
        "the same in the server that built their image {:8.1} KiB",
        each(built)
    );
    println!(
        "processor at rest, of one core               {:8.2} %     <= 1",
        busy * 100.0
    );
    println!(
        "start to {MANY} Ready, new state directory     {:8.1} s     <= 10",
        fresh.as_secs_f64()
    );
    println!(
        "start to {MANY} Ready, after a restart         {:8.1} s     <= 10",
        again.as_secs_f64()
    );
    Ok(())
}

/// Starts a server on many Functions: how long until all are Ready, and what it costs then.
async fn many(args: &Args, dir: &Path, state: &Path) -> Outcome<(Duration, (f64, f64))> {
    let began = Instant::now();
    let faas = Faas::start(args, dir, state)?;
    faas.until_ready(MANY).await?;
    let took = began.elapsed();
    let idle = |status: &_| {
        functions(status).all(|f| f["instances"].as_array().is_some_and(Vec::is_empty))
    };
    faas.until("instances stay", idle).await?;
    Ok((took, rest(&faas).await?))
}

/// Resident memory in KiB, and the part of a core that is used.
async fn rest(faas: &Faas) -> Outcome<(f64, f64)> {
    tokio::time::sleep(SETTLE).await;
    let before = processor_time(faas.pid())?;
    tokio::time::sleep(WATCH).await;
    let used = processor_time(faas.pid())? - before;
    Ok((memory(faas.pid())?, used / WATCH.as_secs_f64()))
}

fn memory(pid: u32) -> Outcome<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Seconds that a process has used of all cores.
fn processor_time(pid: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no process name")?;
    // User and system time are the 14th and 15th field; the 3rd is the first after the name.
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|f| f.parse::<f64>().ok())
        .sum();
    Ok(ticks / TICKS_A_SECOND)
}

/// Prints how long a call takes that finds no instance.
pub async fn cold_start(faas: &Faas, name: &str) -> Outcome<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}/function/{name}/invoke", faas.address);
    let mut took = Vec::new();
    for _ in 0..COLD_STARTS {
        let is_idle = |function: &serde_json::Value| {
            function["instances"].as_array().is_some_and(Vec::is_empty)
        };
        let idle = |status: &_| functions(status).filter(|f| f["name"] == name).all(is_idle);
        faas.until("instances stay", idle).await?;
        let began = Instant::now();
        client
            .post(&url)
            .body("{}")
            .send()
            .await?
            .error_for_status()?
            .bytes()
            .await?;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    let ms = |duration: &Duration| duration.as_secs_f64() * 1000.0;
    println!(
        "\ncold start, {COLD_STARTS} times: p50 {:.0} ms, worst {:.0} ms",
        ms(&took[COLD_STARTS / 2]),
        ms(&took[COLD_STARTS - 1])
    );
    Ok(())
}

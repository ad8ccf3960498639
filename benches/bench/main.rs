//! What a call costs behind `faas`, against the bare instance and against nginx before the same unix socket, in one run
//! and in turn; and what `faas` costs at rest. It measures and judges nothing: machines differ, ratios tell.

mod idle;
mod load;
mod server;

use std::{fs, net::SocketAddr, num::NonZero, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;

use self::{
    load::{Round, Target},
    server::{Faas, Nginx, Outcome},
};

/// Connections at a time, one table each.
const CONNECTIONS: [usize; 3] = [1, 32, 256];
/// How long one way is measured before it is the next one's turn.
const TURN: Duration = Duration::from_millis(700);
/// Rounds of turns. The median is shown.
const ROUNDS: usize = 8;

/// What every function of the bench does.
const HANDLER: &str = "module.exports = (context, cb) => cb({ hello: 'world' })";
const WARM: &str = "warm";
const COLD: &str = "cold";

/// What was typed after `make bench`, and what scripts/bench adds.
#[derive(Parser)]
struct Args {
    /// nginx, if there is one
    #[arg(long)]
    nginx: Option<PathBuf>,
    /// Another build to measure
    #[arg(long, default_value = env!("CARGO_BIN_EXE_faas"))]
    faas: PathBuf,
    /// What `faas start` gets beside directory, state and address
    #[arg(long = "flag", allow_hyphen_values = true)]
    flags: Vec<String>,
    /// Leave out: calls, cold or idle
    #[arg(long)]
    skip: Vec<String>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// One way to the instance.
struct Way {
    name: &'static str,
    target: Target,
    request: Vec<u8>,
}

fn main() -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(&Args::parse())));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Outcome<()> {
    let scratch = tempfile::tempdir()?;
    let wanted = |part: &str| !args.skip.iter().any(|skipped| skipped == part);
    if wanted("calls") || wanted("cold") {
        let dir = scratch.path().join("calls");
        fs::create_dir_all(&dir)?;
        let alone = "{min: 1, max: 1, concurrency: 1000}";
        fs::write(dir.join("warm.yaml"), manifest(WARM, alone, HANDLER))?;
        fs::write(
            dir.join("cold.yaml"),
            manifest(COLD, "{min: 0, max: 1, idleAfterSeconds: 1}", HANDLER),
        )?;
        let state = scratch.path().join("state");
        let faas = Faas::start(args, &dir, &state)?;
        faas.until_ready(2).await?;
        if wanted("calls") {
            calls(args, &faas, &scratch.path().join("nginx")).await?;
        }
        if wanted("cold") {
            idle::cold_start(&faas, COLD).await?;
        }
        drop(faas);
        server::remove_images(&state);
    }
    if wanted("idle") {
        idle::measure(args, scratch.path()).await?;
    }
    Ok(())
}

/// A Function with the whole machine to itself.
fn manifest(name: &str, scale: &str, handler: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    format!(
        "apiVersion: faas.dev/v1alpha1\nkind: Function\nmetadata: {{name: {name}}}\nspec:\n  language: node\n  \
         resources: {{cpu: '{cores}', memory: 128Mi}}\n  scale: {scale}\n  source:\n    inline:\n      index.js: |\n        {handler}\n"
    )
}

/// Measures every way at every number of connections, in turn.
async fn calls(args: &Args, faas: &Faas, scratch: &std::path::Path) -> Outcome<()> {
    let socket = faas.socket(WARM).await?;
    let nginx = match &args.nginx {
        Some(program) => Some(Nginx::start(program, scratch, &socket).await?),
        None => None,
    };
    let ways = ways(
        faas.address,
        socket,
        nginx.as_ref().map(|nginx| nginx.address),
    );
    let mut closing = Vec::new();
    for connections in CONNECTIONS {
        let mut rounds: Vec<Vec<Round>> = ways.iter().map(|_| Vec::new()).collect();
        for round in 0..ROUNDS {
            // None always comes after the same other one.
            for turn in 0..ways.len() {
                let at = (round + turn) % ways.len();
                let Way {
                    target, request, ..
                } = &ways[at];
                rounds[at].push(load::run(target, request, connections, TURN).await?);
            }
        }
        let medians: Vec<Round> = rounds.into_iter().map(median).collect();
        closing.push(show(connections, &ways, &medians));
    }
    println!();
    for line in &closing {
        println!("{line}");
    }
    Ok(())
}

fn ways(faas: SocketAddr, socket: PathBuf, nginx: Option<SocketAddr>) -> Vec<Way> {
    let bare = Way {
        name: "bare instance",
        target: Target::Unix(socket),
        request: post("/invoke"),
    };
    let nginx = nginx.map(|address| Way {
        name: "nginx",
        target: Target::Tcp(address),
        request: post("/invoke"),
    });
    let raw = Way {
        name: "/function/NAME",
        target: Target::Tcp(faas),
        request: post("/function/warm/invoke"),
    };
    let envelope = Way {
        name: "/functions/NAME",
        target: Target::Tcp(faas),
        request: post("/functions/warm"),
    };
    [Some(bare), nginx, Some(raw), Some(envelope)]
        .into_iter()
        .flatten()
        .collect()
}

fn post(path: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}").into_bytes()
}

fn median(mut rounds: Vec<Round>) -> Round {
    let middle = rounds.len() / 2;
    let mut by = |key: fn(&Round) -> f64| {
        rounds.sort_by(|a, b| key(a).total_cmp(&key(b)));
        rounds[middle]
    };
    Round {
        rate: by(|r| r.rate).rate,
        p50: by(|r| r.p50.as_secs_f64()).p50,
        p99: by(|r| r.p99.as_secs_f64()).p99,
    }
}

/// Prints a table, and answers the line that compares.
fn show(connections: usize, ways: &[Way], medians: &[Round]) -> String {
    let floor = ways.iter().position(|way| way.name == "nginx");
    println!("\n{connections:>3} connections     calls/s      p50 ms    p99 ms   of nginx");
    let mut closing = format!("calls/s over nginx at {connections:>3} connections:");
    for (way, round) in ways.iter().zip(medians) {
        let ratio = floor.map_or("-".to_owned(), |floor| {
            format!("{:.2}", round.rate / medians[floor].rate)
        });
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        println!(
            "{:<16} {:>10.0} {:>11.3} {:>9.3} {ratio:>10}",
            way.name,
            round.rate,
            ms(round.p50),
            ms(round.p99)
        );
        if way.name.starts_with("/function") {
            closing += &format!("  {} {ratio}", way.name);
        }
    }
    closing
}

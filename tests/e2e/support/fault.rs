//! A Docker engine with bad days: a socket that passes everything on to the real engine, but for the faults that a test asks
//! for.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// What becomes of an answer of the engine.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It comes this much later.
    Delay(Duration),
    /// It is this one, and the engine is not asked: status and body.
    Answer(u16, String),
    /// The engine does what was asked, and the connection breaks before the answer comes.
    LoseAnswer,
    /// The connection breaks once the answer has said this.
    CutAfter(&'static str),
    /// It is no JSON.
    Garble,
}

/// A number of times that never comes.
pub const ALWAYS: usize = usize::MAX;

/// The engine behind a socket of its own.
pub struct Faulty {
    dir: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    listening: Mutex<Option<JoinHandle<()>>>,
    /// It hangs: connections are accepted, and nothing is said or done on any of them.
    hangs: watch::Sender<bool>,
    /// Its own: tests block their threads while a server ends, and the server needs its engine for that.
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    /// First lines of the requests whose connections are open, and what cuts them.
    open: Vec<(String, CancellationToken)>,
    hits: usize,
}

struct Rule {
    method: &'static str,
    path: String,
    times: usize,
    fault: Fault,
}

impl Faulty {
    /// A good engine, for now.
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let engine = Self {
            dir: tempfile::tempdir().unwrap(),
            state: Arc::default(),
            listening: Mutex::default(),
            hangs: watch::Sender::new(false),
            runtime: Some(runtime),
        };
        engine.begin();
        engine
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("engine.sock")
    }

    /// For `DOCKER_HOST`.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// From now on nobody listens, and open connections are cut.
    pub fn stop(&self) {
        if let Some(listening) = self.listening.lock().unwrap().take() {
            listening.abort();
        }
        let _ = std::fs::remove_file(self.socket());
        self.cut("");
    }

    /// Listens, again.
    pub fn begin(&self) {
        let runtime = self.runtime.as_ref().unwrap();
        let _entered = runtime.enter();
        let listener = UnixListener::bind(self.socket()).unwrap();
        let state = Arc::clone(&self.state);
        let hangs = self.hangs.subscribe();
        let listening = runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // Connections break in many ways here; the test looks at what faas makes of it.
                tokio::spawn(carry(client, Arc::clone(&state), hangs.clone()));
            }
        });
        *self.listening.lock().unwrap() = Some(listening);
    }

    /// Hangs from now on as if its process were stopped, without a word and with all connections open. What it is asked
    /// meanwhile it does once it goes on, whether anybody still waits for it or not.
    pub fn hang(&self) {
        self.hangs.send_replace(true);
    }

    /// Goes on.
    pub fn go_on(&self) {
        self.hangs.send_replace(false);
    }

    /// Cuts open connections whose first line has this in it.
    pub fn cut(&self, line: &str) {
        for (_, cut) in lock(&self.state)
            .open
            .iter()
            .filter(|(open, _)| open.contains(line))
        {
            cut.cancel();
        }
    }

    /// The next `times` requests of this method whose path contains this meet this fault; the first rule that fits decides.
    pub fn on(&self, method: &'static str, path: &str, times: usize, fault: Fault) {
        let path = path.to_owned();
        lock(&self.state).rules.push(Rule {
            method,
            path,
            times,
            fault,
        });
    }

    /// No faults any more.
    pub fn heal(&self) {
        lock(&self.state).rules.clear();
    }

    /// How many requests have met a fault.
    pub fn hits(&self) -> usize {
        lock(&self.state).hits
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

/// Carries one request and its answer.
async fn carry(
    mut client: UnixStream,
    state: Arc<Mutex<State>>,
    hangs: watch::Receiver<bool>,
) -> io::Result<()> {
    awake(&hangs).await;
    let head = head(&mut client).await?;
    let line = String::from_utf8_lossy(&head);
    let line = line.lines().next().unwrap_or_default().to_owned();
    let cut = CancellationToken::new();
    let fault = {
        let mut state = lock(&state);
        state.open.retain(|(_, cut)| !cut.is_cancelled());
        state.open.push((line.clone(), cut.clone()));
        state.fault(&line)
    };
    let _closed = cut.clone().drop_guard();
    cut.run_until_cancelled(pass(client, head, fault, hangs))
        .await
        .unwrap_or(Ok(()))
}

impl State {
    fn fault(&mut self, line: &str) -> Option<Fault> {
        let rule = self.rules.iter_mut().find(|rule| {
            rule.times > 0 && line.starts_with(rule.method) && line.contains(&rule.path)
        })?;
        rule.times -= 1;
        self.hits += 1;
        Some(rule.fault.clone())
    }
}

/// The head of a request, with what came along, and changed so that none follows on the connection.
async fn head(client: &mut UnixStream) -> io::Result<Vec<u8>> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = Vec::new();
    loop {
        if client.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = head.windows(END.len()).position(|four| four == END) else {
            continue;
        };
        let fields = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
        if !fields.contains("\r\nupgrade:") {
            head.splice(end..end, *b"\r\nConnection: close");
        }
        return Ok(head);
    }
}

/// Comes when the engine does not hang.
async fn awake(hangs: &watch::Receiver<bool>) {
    // Once the engine is no more, nothing matters.
    let _ = hangs.clone().wait_for(|hangs| !hangs).await;
}

async fn pass(
    mut client: UnixStream,
    head: Vec<u8>,
    fault: Option<Fault>,
    hangs: watch::Receiver<bool>,
) -> io::Result<()> {
    if let Some(Fault::Answer(status, body)) = fault {
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} Fault\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        );
        client.write_all(answer.as_bytes()).await?;
        client.shutdown().await?;
        // What the request has more is taken, so that the answer is read.
        return tokio::io::copy(&mut client, &mut tokio::io::sink())
            .await
            .map(drop);
    }
    let socket = faas::config::surroundings().unwrap().docker_socket;
    let mut engine = UnixStream::connect(socket).await?;
    engine.write_all(&head).await?;
    let (mut from_client, to_client) = client.into_split();
    let (from_engine, mut to_engine) = engine.into_split();
    tokio::select! {
        left = tokio::io::copy(&mut from_client, &mut to_engine) => left.map(drop),
        answered = answer(from_engine, to_client, fault, hangs) => answered,
    }
}

async fn answer(
    mut engine: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    fault: Option<Fault>,
    hangs: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut said = Vec::new();
    let mut piece = Vec::new();
    while engine.read_buf(&mut piece).await? > 0 {
        match &fault {
            Some(Fault::LoseAnswer) => return Ok(()),
            Some(Fault::Delay(time)) if said.is_empty() => tokio::time::sleep(*time).await,
            // Lengths and chunks stay as they are.
            Some(Fault::Garble) => piece
                .iter_mut()
                .filter(|b| **b == b'{')
                .for_each(|b| *b = b'#'),
            _ => {}
        }
        awake(&hangs).await;
        client.write_all(&piece).await?;
        said.append(&mut piece);
        if let Some(Fault::CutAfter(word)) = &fault
            && String::from_utf8_lossy(&said).contains(word)
        {
            return Ok(());
        }
    }
    Ok(())
}

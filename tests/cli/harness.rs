//! Types commands and runs servers. Every wait has a deadline.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// Longest wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Nobody listens there: ports below 1024 are not handed out.
pub const NOWHERE: &str = "http://127.0.0.1:1";

/// The binary, in a directory, with an environment that this machine has no part in.
pub fn faas(dir: &Path, url: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_faas"));
    command
        .current_dir(dir)
        .args(words)
        .env("FAAS_URL", url)
        .env("FAAS_LOG", "error")
        .stdin(Stdio::null());
    command
}

/// What became of a command.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The standard output of a command that succeeded.
    pub fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// The standard error of a command that failed.
    pub fn bad(self) -> String {
        assert_eq!(self.code, Some(1), "{self:#?}");
        self.stderr
    }
}

/// Runs a command to its end.
pub fn run(mut command: Command, input: &str) -> Outcome {
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).unwrap();
    }
    let id = child.id();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(outcome) = receiver.recv_timeout(DEADLINE) else {
        signal(id, rustix::process::Signal::KILL);
        panic!("{command:?} does not end");
    };
    let Output {
        status,
        stdout,
        stderr,
    } = outcome.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome {
        code: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

fn signal(id: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(id.cast_signed()).unwrap();
    // One that has ended already needs no signal.
    let _ = rustix::process::kill_process(pid, signal);
}

/// Something that runs and prints lines; it ends with this value.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    /// Starts it.
    pub fn new(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// The next line for which `wanted` gives something.
    pub fn line<T>(&self, wanted: impl Fn(&str) -> Option<T>) -> T {
        let mut before = Vec::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => match wanted(&line) {
                    Some(found) => return found,
                    None => before.push(line),
                },
                Err(error) => panic!("no such line: {error}; there were {before:#?}"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        signal(self.child.id(), rustix::process::Signal::INT);
        let deadline = std::time::Instant::now() + DEADLINE;
        while self
            .lines
            .recv_timeout(deadline.saturating_duration_since(std::time::Instant::now()))
            .is_ok()
        {}
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server of the process runtime, with a place to work in.
pub struct Server {
    // Before the directory, so that it ends first.
    _running: Running,
    pub url: String,
    pub dir: TempDir,
}

impl Server {
    /// Starts one, on `functions/` in its directory.
    pub fn start() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("functions")).unwrap();
        let words = [
            "start",
            "--runtime",
            "process",
            "--listen",
            "127.0.0.1:0",
            "--state-dir",
            "state",
        ];
        let running = Running::new(faas(dir.path(), "", &words));
        let url = running.line(|line| line.strip_prefix("listening on ").map(str::to_owned));
        Self {
            _running: running,
            url,
            dir,
        }
    }

    /// A command in a directory below the server's own.
    pub fn command(&self, dir: &str, words: &[&str]) -> Command {
        let dir = self.dir.path().join(dir);
        fs::create_dir_all(&dir).unwrap();
        faas(&dir, &self.url, words)
    }

    /// Types a command there.
    pub fn faas(&self, dir: &str, words: &[&str]) -> Outcome {
        run(self.command(dir, words), "")
    }

    /// Writes a file below the server's directory.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

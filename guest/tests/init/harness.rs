//! Starts the init with one of the behaviours of `program.rs`, and waits for things with a deadline.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);
pub const INIT: &str = env!("CARGO_BIN_EXE_faas-init");
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_faas-init-program");

/// The init, running; killed when the test ends.
pub struct Init {
    pub child: Child,
    pub stdout: Option<BufReader<ChildStdout>>,
    pub directory: TempDir,
}

/// What it said and how it ended.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Init {
    /// Starts the init with this behaviour below it.
    pub fn start(behaviour: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), behaviour)
    }

    /// The same as a child of `faas`, with the lifeline as its input.
    pub fn start_child(behaviour: &[&str]) -> Self {
        let mut init = Command::new(INIT);
        init.arg("--child").stdin(Stdio::piped());
        Self::run(init, TempDir::new().unwrap(), behaviour)
    }

    /// The same, in a directory that was prepared.
    pub fn start_in(directory: TempDir, behaviour: &[&str]) -> Self {
        let mut init = Command::new(INIT);
        init.stdin(Stdio::null());
        Self::run(init, directory, behaviour)
    }

    fn run(mut init: Command, directory: TempDir, behaviour: &[&str]) -> Self {
        let mut child = init
            .arg(PROGRAM)
            .args(behaviour)
            .env("FAAS_SOCKET", directory.path().join("fn.sock"))
            .env("PORT", free_port().to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        Self {
            child,
            stdout,
            directory,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("fn.sock")
    }

    /// Connects as soon as somebody listens.
    pub fn connect(&self) -> UnixStream {
        let stream = until("somebody listens", || {
            UnixStream::connect(self.socket()).ok()
        });
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// The next line of the program.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn signal(&self, signal: i32) {
        kill(self.child.id(), signal);
    }

    /// Waits for its end without reading what it says.
    pub fn ended(&mut self) -> ExitStatus {
        until("the init ends", || self.child.try_wait().unwrap())
    }

    /// Waits for its end while reading what it says.
    pub fn output(mut self) -> Output {
        let mut stdout = self.stdout.take().unwrap();
        let mut stderr = self.child.stderr.take().unwrap();
        let errors = thread::spawn(move || read_text(&mut stderr));
        let stdout = read_text(&mut stdout);
        let stderr = errors.join().unwrap();
        Output {
            code: self.ended().code(),
            stdout,
            stderr,
        }
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        // Its program ends with it: asked first, because a killed init cannot pass the end on.
        self.signal(libc::SIGTERM);
        let end = Instant::now() + DEADLINE;
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        let _ = self.child.kill();
    }
}

/// Runs a behaviour to its end.
pub fn run(behaviour: &[&str]) -> Output {
    Init::start(behaviour).output()
}

fn read_text(from: &mut impl Read) -> String {
    let mut all = Vec::new();
    from.read_to_end(&mut all).unwrap();
    String::from_utf8(all).unwrap()
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub fn kill(pid: u32, signal: i32) {
    // SAFETY: kill takes plain numbers.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}

/// Whether a process runs, and is no zombie.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    !state.is_empty() && !state.starts_with('Z')
}

/// Waits until there is a value.
pub fn until<T>(what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(Instant::now() < end, "waited too long until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

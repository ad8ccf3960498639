//! A Docker engine of a test's own, made of the machine's programs: it may be stopped.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::{
    Home, Server, Start, docker,
    engine::{CONTAINERS, owned, try_docker},
    has_docker,
    skip::skip,
    wait_until,
};

const PROGRAM: &str = "/usr/sbin/dockerd";
const BASE: &str = "faas.local/node:22";
/// Longest time for its begin, and for its end: containers that do not listen to it are given ten seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// It sees no network and has the one base image, and goes with all that it has when this is dropped.
pub struct OwnEngine {
    daemon: Option<Child>,
    flags: Vec<&'static str>,
    home: Arc<Home>,
    dir: tempfile::TempDir,
}

impl OwnEngine {
    /// Where none can be, `test` is skipped.
    pub async fn with(flags: &[&'static str], test: &str) -> Option<Self> {
        if !has_docker(test) {
            return None;
        }
        if !geteuid().is_root() || !Path::new(PROGRAM).exists() {
            skip(
                test,
                &format!("an engine of its own needs root and {PROGRAM}"),
            );
            return None;
        }
        let mut engine = Self {
            daemon: None,
            flags: flags.to_vec(),
            home: Arc::new(Home::new()),
            dir: tempfile::Builder::new()
                .prefix("engine-")
                .tempdir()
                .unwrap(),
        };
        engine.begin().await;
        engine.take_base();
        Some(engine)
    }

    /// A server behind it.
    pub async fn server(&self) -> Server {
        Start::default().engine(self.address()).at(&self.home).await
    }

    /// Starts it, and waits until it answers.
    pub async fn begin(&mut self) {
        let log = File::create(self.path("log")).unwrap();
        let mut daemon = self.command().stderr(log).spawn().unwrap();
        wait_until("the engine answers", PATIENCE, async || {
            let log = || fs::read_to_string(self.path("log")).unwrap();
            assert!(daemon.try_wait().unwrap().is_none(), "{}", log());
            let version = ["version", "--format", "{{.Server.Version}}"];
            self.try_docker(&version).ok()
        })
        .await;
        self.daemon = Some(daemon);
    }

    fn command(&self) -> Command {
        // None of the machine's own settings.
        fs::write(self.path("daemon.json"), "{}").unwrap();
        let name = self.dir.path().file_name().unwrap();
        let mut command = Command::new("unshare");
        // An engine that is to have no bridge removes the machine's, if it sees it.
        command
            .args(["--net", PROGRAM])
            .args(["--host", &self.address()])
            .args(["--bridge", "none", "--iptables=false"])
            .args(["--log-level", "warn"]);
        for (flag, file) in [
            ("--config-file", "daemon.json"),
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
        ] {
            command.arg(flag).arg(self.path(file));
        }
        // The machine's own engine may share containerd with this one.
        command.arg("--containerd-namespace").arg(name);
        let plugins = format!("{}-plugins", name.to_string_lossy());
        command.args(["--containerd-plugins-namespace", &plugins]);
        command
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Resident memory, in KiB.
    pub fn memory(&self) -> u64 {
        super::memory_of(self.daemon.as_ref().unwrap().id())
    }

    /// Ends it as its machine's service manager would, and waits until it has.
    pub fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        let pid = i32::try_from(daemon.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        daemon.wait().unwrap();
    }

    /// Names of the containers that the server has there, exited ones too.
    pub fn containers(&self) -> Vec<String> {
        let Some(owner) = self.home.owner() else {
            return Vec::new();
        };
        owned(&owner, CONTAINERS, |args| self.docker(args))
    }

    /// The server ends, and leaves no container behind.
    pub async fn ends(&self, server: Server) {
        server.signal(Signal::TERM);
        assert!(server.end().await.success(), "{}", server.said());
        assert_eq!(self.containers(), [""; 0]);
    }

    fn address(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn docker(&self, args: &[&str]) -> String {
        docker(&[&["--host", &self.address()], args].concat())
    }

    fn try_docker(&self, args: &[&str]) -> Result<String, String> {
        try_docker(&[&["--host", &self.address()], args].concat())
    }

    /// From the machine's own engine.
    fn take_base(&self) {
        let image = self.path("base.tar");
        let mut save = Command::new("docker");
        let save = save.args(["save", "--output"]).arg(&image).arg(BASE);
        assert!(save.status().unwrap().success());
        let image = image.to_string_lossy();
        let loaded = self.docker(&["load", "--quiet", "--input", &image]);
        assert!(loaded.contains(BASE), "{loaded}");
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            // What fails here has been told by the test.
            let listed = self.try_docker(&["ps", "--all", "--quiet"]);
            for container in listed.unwrap_or_default().split_whitespace() {
                let _ = self.try_docker(&["rm", "--force", container]);
            }
            self.stop();
        }
        // What it has mounted there must be gone before the directory is.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for point in points.filter(|point| Path::new(point).starts_with(self.dir.path())) {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

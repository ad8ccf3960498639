//! A real registry (`docker-registry`) on a port of its own, which ends with the test.

use std::{
    io::Read,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A password and what bcrypt makes of it.
pub type Password = (&'static str, &'static str);

pub const FIRST: Password = (
    "first",
    "$2y$05$abcdefghijklmnopqrstuu3rQZA.e/048YzLTJ55aycWHfqo0a49W",
);
pub const SECOND: Password = (
    "second",
    "$2y$05$abcdefghijklmnopqrstuuKbPhTOR7Pvo59BRa0eQ090CMHpax.C6",
);

/// A registry and what it keeps.
pub struct Registry {
    dir: tempfile::TempDir,
    port: u16,
    settings: String,
    process: Option<Child>,
}

impl Registry {
    /// One that anybody may use.
    pub fn start() -> Self {
        Self::with("delete: {enabled: true}", "")
    }

    /// One that deletes nothing.
    pub fn that_keeps() -> Self {
        Self::with("delete: {enabled: false}", "")
    }

    /// One for `faas` with this password.
    pub fn with_password(password: Password) -> Self {
        let mut registry = Self::made("delete: {enabled: true}", "");
        let path = registry.dir.path().join("htpasswd");
        let settings = format!(
            "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            path.display()
        );
        registry.settings.push_str(&settings);
        registry.accept(password);
        registry.run();
        registry
    }

    fn with(storage: &str, more: &str) -> Self {
        let mut registry = Self::made(storage, more);
        registry.run();
        registry
    }

    fn made(storage: &str, more: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let settings = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\nhttp: {{addr: \"127.0.0.1:{port}\", secret: x}}\n\
             storage: {{filesystem: {{rootdirectory: {}/data}}, {storage}}}\n{more}",
            dir.path().display()
        );
        Self {
            dir,
            port,
            settings,
            process: None,
        }
    }

    /// Sets the password; the registry reads it when it starts.
    pub fn accept(&self, password: Password) {
        let line = format!("faas:{}\n", password.1);
        std::fs::write(self.dir.path().join("htpasswd"), line).unwrap();
    }

    /// Starts it, and waits until it listens.
    pub fn run(&mut self) {
        let config = self.dir.path().join("config.yml");
        std::fs::write(&config, &self.settings).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry: scripts/setup installs it");
        self.process = Some(process);
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "{}", self.stop());
            std::thread::yield_now();
        }
    }

    /// Ends it; answers its last words.
    pub fn stop(&mut self) -> String {
        let mut words = String::new();
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.stderr.take().unwrap().read_to_string(&mut words);
            let _ = process.wait();
        }
        words
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

//! A real registry (`docker-registry`) on a port of its own, which ends with the test.

use std::{
    io::Read,
    net::TcpListener,
    path::PathBuf,
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

/// The file of a registry's own certificate.
const AUTHORITY: &str = "authority.pem";

/// A registry and what it keeps.
pub struct Registry {
    dir: tempfile::TempDir,
    address: String,
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
        let dir = tempfile::tempdir().unwrap();
        let data = format!("{{rootdirectory: {}/data}}", dir.path().display());
        let storage = format!("storage: {{filesystem: {data}, {storage}}}\n{more}");
        Self::at("127.0.0.1", dir, "", &storage)
    }

    fn at(address: &str, dir: tempfile::TempDir, http: &str, more: &str) -> Self {
        let free = TcpListener::bind((address, 0)).unwrap();
        let address = free.local_addr().unwrap().to_string();
        let settings = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             http: {{addr: \"{address}\", secret: x{http}}}\n{more}"
        );
        Self {
            dir,
            address,
            settings,
            process: None,
        }
    }

    /// Another door to what this one keeps, at an address that is no loopback one: by TLS.
    pub fn by_tls(&self, address: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed([address.to_owned()]).unwrap();
        let (certificate, key) = (dir.path().join(AUTHORITY), dir.path().join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let tls = format!(
            ", tls: {{certificate: {}, key: {}}}",
            certificate.display(),
            key.display()
        );
        self.door(address, dir, &tls)
    }

    /// The same without TLS.
    pub fn by_http(&self, address: &str) -> Self {
        self.door(address, tempfile::tempdir().unwrap(), "")
    }

    fn door(&self, address: &str, dir: tempfile::TempDir, tls: &str) -> Self {
        let data = format!("{{rootdirectory: {}/data}}", self.dir.path().display());
        let storage = format!("storage: {{filesystem: {data}, delete: {{enabled: true}}}}\n");
        let mut registry = Self::at(address, dir, tls, &storage);
        registry.run();
        registry
    }

    /// Who vouches for it.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join(AUTHORITY)
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
        while std::net::TcpStream::connect(&self.address).is_err() {
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

    /// `127.0.0.1:PORT`, or where else it is.
    pub fn host(&self) -> String {
        self.address.clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

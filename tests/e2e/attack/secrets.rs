//! Who learns what is in a secret: the function, and nobody else.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{
    Home, SOON, Server, Start, docker, fresh, has_docker, images, inline, node, save, wait_until,
};

/// Knows what it was told, and tells only a digest of it.
const KEEPER: &str = "
const { createHash } = require('crypto'), { readFileSync } = require('fs')
const secret = () => readFileSync('/run/secrets/vault/password')
const deeds = {
  digest: () => createHash('sha256').update(secret()).digest('hex'),
  crash: () => { secret(); process.exit(7) },
  fail: () => { secret(); throw new Error('no luck') }
}
module.exports = (context) => deeds[context.do]()";

const QUIET: &str =
    "FROM busybox:1\nRUN true\nCMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/bin\"]\n";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What nobody may say, in the ways in which programs write things.
fn needles(secrets: &[&String]) -> Vec<String> {
    let ways = |secret: &&String| {
        // All but the ends, which depend on what is around it.
        let encoded = (0..3).map(|at| {
            let text = BASE64_STANDARD.encode(format!("{}{secret}", "x".repeat(at)));
            text[4..text.len() - 4].to_owned()
        });
        let plain = [(*secret).clone(), hex(secret.as_bytes())];
        plain.into_iter().chain(encoded).collect::<Vec<_>>()
    };
    secrets.iter().flat_map(ways).collect()
}

/// All that was said, by whom.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn note(&mut self, who: &str, text: String) {
        assert!(!text.is_empty(), "{who} said nothing");
        self.0.push((who.to_owned(), text));
    }

    async fn api(&mut self, server: &Server, names: &[&str]) {
        for path in ["/status", "/metrics", "/functions"] {
            self.note(path, server.get(path).await.text);
        }
        for name in names {
            for end in ["", "/logs?tail=10000", "/build-log", "/events"] {
                let path = format!("/functions/{name}{end}");
                let reply = server.get(&path).await;
                self.note(&path, format!("{:?} {}", reply.headers, reply.text));
            }
            let described = Command::new(env!("CARGO_BIN_EXE_faas"))
                .args(["describe", name, "--server", &server.url("")])
                .output()
                .unwrap();
            self.note(name, String::from_utf8(described.stdout).unwrap());
        }
    }

    fn engine(&mut self, home: &Home) {
        for container in home.containers() {
            self.note(&container, docker(&["inspect", &container]));
        }
        for image in images(&home.owner().unwrap()) {
            self.note(&image, docker(&["inspect", &image]));
            self.note(&image, docker(&["history", "--no-trunc", &image]));
        }
    }

    /// Every file below this directory.
    fn files(&mut self, dir: &Path) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.files(&path);
            } else {
                let bytes = fs::read(&path).unwrap();
                self.0.push((
                    path.display().to_string(),
                    String::from_utf8_lossy(&bytes).into_owned(),
                ));
            }
        }
    }

    fn nothing_of(&self, needles: &[String]) {
        for (who, text) in &self.0 {
            for needle in needles {
                let at = text.find(needle);
                let around = at.map(|at| text[..at].chars().rev().take(200).collect::<String>());
                let around = around.map(|text| text.chars().rev().collect::<String>());
                assert_eq!(around, None, "{who} says {needle}");
            }
        }
    }
}

async fn until_digest(server: &Server, secret: &str) {
    let digest = hex(&Sha256::digest(secret));
    wait_until("the function has the secret", SOON, async || {
        let reply = server.call("keeper", json!({"do": "digest"})).await;
        (reply.status == 200 && reply.response() == digest).then_some(())
    })
    .await;
}

fn with_secret(name: &str) -> Value {
    json!({"secrets": [{"name": name}], "scale": {"min": 1, "max": 1}})
}

/// What a test keeps from all but its Functions.
struct Kept {
    home: Arc<Home>,
    vault: PathBuf,
    values: [String; 2],
    /// In a file that a key links to, outside of the directory of secrets.
    outside: String,
    /// Of the site's proxy, which builds are told.
    password: String,
}

impl Kept {
    fn new() -> Self {
        let home = Arc::new(Home::new());
        let kept = Self {
            vault: home.secrets().join("vault/password"),
            home,
            values: [(); 2].map(|()| fresh()),
            outside: fresh(),
            password: fresh(),
        };
        let secrets = kept.home.secrets();
        save(&kept.vault, &kept.values[0]);
        let outside = secrets.parent().unwrap().join("outside");
        save(&outside, &kept.outside);
        fs::create_dir(secrets.join("leak")).unwrap();
        symlink(&outside, secrets.join("leak/key")).unwrap();
        kept
    }

    async fn server(&self) -> Server {
        let proxy = format!("http://me:{}@127.0.0.1:1", self.password);
        let start = Start::default().with("--secrets-dir", self.home.secrets());
        let start = start
            .with("--build-env", "HTTP_PROXY")
            .env("HTTP_PROXY", proxy);
        // Whatever can be logged is.
        start.env("FAAS_LOG", "trace").at(&self.home).await
    }

    fn needles(&self) -> Vec<String> {
        let [first, second] = &self.values;
        let mut needles = needles(&[first, second, &self.outside]);
        needles.push(self.password.clone());
        needles
    }
}

/// Everything that can go wrong with a Function that has a secret.
async fn misfortunes(server: &Server, said: &mut Said) {
    for deed in ["crash", "fail"] {
        let reply = server.call("keeper", json!({"do": deed})).await;
        said.note(deed, reply.text);
    }
    let ender = node("process.exit(3)", with_secret("vault"));
    server.apply("ender", ender).await;
    said.note("ender", server.fails("ender", "StartFailed").await);
    server
        .apply("leaker", node(KEEPER, with_secret("leak")))
        .await;
    let told = server.fails("leaker", "SecretNotFound").await;
    assert!(told.contains("key is a link that leads out of"), "{told}");
    for body in ["secrets: vault", "{spec: {secrets: [vault]}}", "\u{7}"] {
        let reply = server.put("/functions/keeper", body).await.expect(400);
        said.note(body, reply.text);
    }
}

#[tokio::test]
async fn a_secret_is_told_to_its_function_and_to_nobody_else() {
    if !has_docker("e2e secrets") {
        return;
    }
    let kept = Kept::new();
    let (home, server, mut said) = (&kept.home, kept.server().await, Said::default());
    server
        .deploy("keeper", node(KEEPER, with_secret("vault")))
        .await;
    let quiet = inline(
        "dockerfile",
        json!({"Dockerfile": QUIET}),
        with_secret("vault"),
    );
    server.deploy("quiet", quiet).await;
    until_digest(&server, &kept.values[0]).await;
    misfortunes(&server, &mut said).await;
    said.engine(home);
    save(&kept.vault, &kept.values[1]);
    until_digest(&server, &kept.values[1]).await;

    let names = ["keeper", "quiet", "ender", "leaker"];
    said.api(&server, &names).await;
    said.engine(home);
    let image = server.object("quiet").await.unwrap()["status"]["image"].clone();
    said.note("docker save", docker(&["save", image.as_str().unwrap()]));
    said.files(&home.state());
    for name in names {
        server
            .delete(&format!("/functions/{name}"))
            .await
            .expect(202);
    }
    wait_until("all of it is gone", SOON, async || {
        home.containers().is_empty().then_some(())
    })
    .await;
    said.files(&home.state());
    assert!(server.said().contains(" TRACE "), "all was told");
    said.note("the log", server.said());
    said.nothing_of(&kept.needles());
}

/// Replaces a secret as Kubernetes does.
fn publish(secret: &Path, value: &str) {
    let version: PathBuf = format!("..{}", fresh()).into();
    save(&secret.join(&version).join("password"), value);
    symlink(&version, secret.join("..data_tmp")).unwrap();
    fs::rename(secret.join("..data_tmp"), secret.join("..data")).unwrap();
}

#[tokio::test]
async fn a_secret_that_kubernetes_swaps_is_followed() {
    if !has_docker("e2e swapped secrets") {
        return;
    }
    let home = Arc::new(Home::new());
    let start = Start::default().with("--secrets-dir", home.secrets());
    let server = start.at(&home).await;
    let secret = home.secrets().join("vault");
    let [first, second] = [(); 2].map(|()| fresh());
    publish(&secret, &first);
    symlink("..data/password", secret.join("password")).unwrap();
    server
        .deploy("keeper", node(KEEPER, with_secret("vault")))
        .await;
    until_digest(&server, &first).await;
    publish(&secret, &second);
    until_digest(&server, &second).await;
}

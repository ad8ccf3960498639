//! TLS: a certificate that changes, handshakes that do not come, and what the command line makes of it.

use std::{fs, net::SocketAddr, path::PathBuf};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;

/// A certificate for this machine and its key, in two files.
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    pub fn new(home: &Home, name: &str) -> Self {
        let pair = Self {
            cert: home.secrets().join(format!("{name}.crt")),
            key: home.secrets().join(format!("{name}.key")),
        };
        pair.renew();
        pair
    }

    /// Another certificate in place of this one.
    pub fn renew(&self) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        fs::write(&self.cert, made.cert.pem()).unwrap();
        fs::write(&self.key, made.signing_key.serialize_pem()).unwrap();
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.cert).unwrap()
    }
}

/// A client's end that trusts this certificate alone.
fn config(
    trusted: CertificateDer<'static>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn connect(
    address: SocketAddr,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(("127.0.0.1", address.port())).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

/// One request on a connection that stays open; its answer's first line.
async fn request(stream: &mut TlsStream<TcpStream>, token: &str) -> String {
    let text = format!(
        "GET /functions HTTP/1.1\r\nHost: faas.example\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The last chunk of a list, or the end of a refusal.
    while !answer.ends_with(b"\r\n0\r\n\r\n") && !answer.ends_with(b"}") {
        let read = timeout(SOON, stream.read_buf(&mut answer)).await.unwrap();
        assert!(read.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_owned()
}

fn public(pair: &Pair) -> Start {
    Start::default()
        .with("--runtime", "process")
        .with("--listen", "0.0.0.0:0")
        .with("--tls-cert", &pair.cert)
        .with("--tls-key", &pair.key)
}

#[tokio::test]
async fn a_changed_certificate_is_taken_and_a_bad_one_is_not_and_nobody_is_cut_off() {
    let home = Arc::new(Home::new());
    let (pair, read) = (Pair::new(&home, "tls"), with_scope(&home, "read"));
    let server = public(&pair).at(&home).await;
    let first = config(pair.der(), &[&TLS13, &TLS12]);
    let mut open = connect(server.address, first.clone()).await.unwrap();
    assert_eq!(request(&mut open, &read).await, "HTTP/1.1 200 OK");

    pair.renew();
    let second = config(pair.der(), &[&TLS13, &TLS12]);
    wait_until("the new certificate is served", SOON, async || {
        connect(server.address, second.clone()).await.ok()
    })
    .await;
    assert!(connect(server.address, first).await.is_err());
    assert_eq!(request(&mut open, &read).await, "HTTP/1.1 200 OK");

    // A key that is not the certificate's, then none.
    let other = Pair::new(&home, "other");
    for text in [fs::read(&other.key).unwrap(), b"-----BEGIN".to_vec()] {
        let before = server.said().matches("is not used").count();
        fs::write(&pair.key, text).unwrap();
        wait_until("the bad pair is noted", SOON, async || {
            (server.said().matches("is not used").count() > before).then_some(())
        })
        .await;
        connect(server.address, second.clone()).await.unwrap();
    }
    assert_eq!(request(&mut open, &read).await, "HTTP/1.1 200 OK");
    let said = server.said();
    assert!(said.contains("listening on https://"), "{said}");
}

#[tokio::test]
async fn what_could_not_be_read_for_want_of_a_descriptor_is_read_soon_and_locks_nobody_out() {
    let home = Arc::new(Home::new());
    let (pair, read) = (Pair::new(&home, "tls"), with_scope(&home, "read"));
    let server = public(&pair).at(&home).await;
    let mut open = connect(server.address, config(pair.der(), &[&TLS13]))
        .await
        .unwrap();
    assert_eq!(request(&mut open, &read).await, "HTTP/1.1 200 OK");

    let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap());
    // It has given itself all that it may have.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = |current| prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).unwrap();
    limit(Some(3));
    let late = token(&home, "create late --scope read");
    pair.renew();
    let short = |file: &str| format!("{file}: Too many open files");
    wait_until("neither can be read", SOON, async || {
        let said = server.said();
        let are_noted = [short("tokens.json"), short("tls.crt")].map(|words| said.contains(&words));
        (are_noted == [true; 2]).then_some(())
    })
    .await;
    let known = request(&mut open, &read).await;
    limit(maximum);
    assert_eq!(known, "HTTP/1.1 200 OK", "it was known before");

    // Nothing changes any more, and yet both count soon.
    let renewed = config(pair.der(), &[&TLS13]);
    let mut fresh = wait_until("the new certificate is served", SOON, async || {
        connect(server.address, renewed.clone()).await.ok()
    })
    .await;
    wait_until("the new token is known", SOON, async || {
        let answer = request(&mut fresh, &late).await;
        (answer == "HTTP/1.1 200 OK").then_some(())
    })
    .await;
    assert_eq!(request(&mut open, &read).await, "HTTP/1.1 200 OK");
    let said = server.said();
    assert!(!said.contains(r#"verb="revoke""#), "{said}");
    for words in [short("tokens.json"), short("tls.crt")] {
        assert_eq!(said.matches(&words).count(), 1, "{said}");
    }
    let made = said
        .matches(r#"verb="create" kind="Token" name="late""#)
        .count();
    assert_eq!(made, 1, "{said}");
}

#[tokio::test]
async fn only_tls_and_http_1_are_spoken() {
    let home = Arc::new(Home::new());
    let (pair, read) = (Pair::new(&home, "tls"), with_scope(&home, "read"));
    let server = public(&pair).at(&home).await;
    for version in [&TLS12, &TLS13] {
        let mut config = config(pair.der(), &[version]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut stream = connect(server.address, config).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(request(&mut stream, &read).await, "HTTP/1.1 200 OK");
        assert_eq!(
            request(&mut stream, "faas_none").await,
            "HTTP/1.1 401 Unauthorized"
        );
    }
    let mut config = config(pair.der(), &[&TLS13]);
    config.alpn_protocols = vec![b"h2".to_vec()];
    assert!(connect(server.address, config).await.is_err());
    let plain = exchange(
        server.address,
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    .await;
    assert!(!plain.contains("HTTP/1.1"), "{plain}");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_costs_no_more_than_a_head_that_does_not() {
    let home = Arc::new(Home::new());
    let pair = Pair::new(&home, "tls");
    with_scope(&home, "read");
    let server = public(&pair).at(&home).await;
    let address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    // Nothing; the beginning of a hello; and, after a handshake, the beginning of a head.
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    let mut late = connect(server.address, config(pair.der(), &[&TLS13]))
        .await
        .unwrap();
    late.write_all(b"GET / HT").await.unwrap();
    let mut rest = Vec::new();
    for stream in [&mut silent, &mut slow] {
        let ended = timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap();
        assert!(matches!(ended, Ok(0)), "{ended:?} {rest:?}");
    }
    // Its end is that of the connection, not of TLS.
    let _ = timeout(SOON, late.read_to_end(&mut rest)).await.unwrap();
    let rest = String::from_utf8(rest).unwrap();
    assert!(
        rest.starts_with("HTTP/1.1 408") && rest.contains("HeadTimeout"),
        "{rest}"
    );
}

#[tokio::test]
async fn the_command_line_brings_its_token_and_trusts_whom_it_is_told() {
    let home = Arc::new(Home::new());
    let (pair, read) = (Pair::new(&home, "tls"), with_scope(&home, "read"));
    let server = public(&pair).at(&home).await;
    let url = format!("https://localhost:{}", server.address.port());
    let (ca, file) = (pair.cert.to_str().unwrap(), home.secrets().join("token"));
    fs::write(&file, format!("{read}\n")).unwrap();
    let file = file.to_str().unwrap();
    let with = |words: &str, env: &[(&str, &str)]| {
        let mut env = env.to_vec();
        env.push(("FAAS_URL", &url));
        typed(&words.split(' ').collect::<Vec<_>>(), &env)
    };
    let (ours, trust) = (("FAAS_TOKEN", &*read), ("FAAS_CA", ca));
    for answer in [
        with("list -o json", &[ours, trust]),
        with(&format!("list -o json --ca {ca} --token-file {file}"), &[]),
    ] {
        let list: Value = serde_json::from_str(&answer.good()).unwrap();
        assert_eq!(list["kind"], "FunctionList");
    }
    let clear = format!(
        "list --server http://faas.example:{}",
        server.address.port()
    );
    let plain = format!("list --server {}", url.replace("https", "http"));
    let other = ("FAAS_TOKEN", "hunter2");
    for (words, env, expected) in [
        ("list", &[ours][..], "is not trusted"),
        ("list", &[trust], "FAAS_TOKEN or --token-file"),
        ("list", &[trust, other], "FAAS_TOKEN holds no token"),
        ("list", &[("FAAS_CA", file)], "holds no certificate"),
        ("list --token-file /nowhere", &[], "cannot read /nowhere"),
        ("delete a", &[trust, ours], "has not the scope deploy"),
        (&clear, &[ours], "not sent in the clear"),
        (&plain, &[], "https://"),
    ] {
        let answer = with(words, env);
        assert_eq!(answer.code, Some(1), "{words}: {}", answer.err);
        assert!(
            answer.err.contains(expected),
            "{words}: no {expected:?} in\n{}",
            answer.err
        );
        assert!(!answer.err.contains(secret(&read)) && !answer.err.contains("hunter2"));
    }
}

#[tokio::test]
async fn calls_may_be_public_while_management_stays_local() {
    let home = Arc::new(Home::new());
    let (pair, invoke) = (Pair::new(&home, "tls"), with_scope(&home, "invoke"));
    let server = Start::default()
        .with("--runtime", "process")
        .with("--invoke-listen", "0.0.0.0:0")
        .with("--tls-cert", &pair.cert)
        .with("--tls-key", &pair.key)
        .at(&home)
        .await;
    ask(&server, "GET /functions", "").await.expect(200);
    let client = builder()
        .no_proxy()
        .tls_backend_preconfigured(config(pair.der(), &[&TLS13]))
        .build()
        .unwrap();
    let port = server.invoke.unwrap().port();
    let call = async |path: &str, token: &str| {
        let request = client
            .post(format!("https://localhost:{port}{path}"))
            .bearer_auth(token);
        Reply::of(request.body("{}").send().await.unwrap()).await
    };
    call("/functions/none", &invoke)
        .await
        .refused(400, "NotFound");
    call("/functions/none", "faas_none")
        .await
        .refused(401, "Unauthorized");
    call("/functions", &invoke).await.refused(403, "Forbidden");
}

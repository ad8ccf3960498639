//! The listener's bound.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::controller::Turns;

async fn ask(stream: &mut TcpStream, path: &str) {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: mine-{path}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn one_connection_more_than_there_may_be_is_told_so() {
    let pools = Arc::new(Pools::new(Turns::new().0));
    let ingress = Ingress::new(pools, Router::new(), Arc::new(Metrics::default())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, limit) = (CancellationToken::new(), 1);
    let serving = tokio::spawn(ingress.serve(listener, Scope::All, limit, stop.clone()));

    let mut first = TcpStream::connect(address).await.unwrap();
    ask(&mut first, "/nothing").await;
    let mut begin = [0; 12];
    first.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 404");
    for (path, status, words) in [
        ("/status", "503", "x-faas-error: Overloaded"),
        ("/healthz", "200", "ok\n"),
    ] {
        let mut second = TcpStream::connect(address).await.unwrap();
        ask(&mut second, path).await;
        let mut answer = String::new();
        second.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(answer.contains(words), "{answer}");
        assert!(
            answer.contains(&format!("x-request-id: mine-{path}")),
            "{answer}"
        );
    }
    stop.cancel();
    serving.await.unwrap();
}

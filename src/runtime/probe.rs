//! Readiness: an instance is ready once it accepts a connection. Nothing is sent.

use std::{io, time::Duration};

use super::{Address, RuntimeError};

/// The wait between two tries doubles up to this.
const SLOWEST: Duration = Duration::from_millis(25);

/// Returns once a connection was accepted, which is closed at once; waits for ever otherwise.
///
/// # Errors
/// When something else than a socket is in its place: the program will not get better.
pub async fn accepted(address: &Address) -> Result<(), RuntimeError> {
    let mut wait = Duration::from_millis(2);
    loop {
        match address.connect().await {
            Ok(_closed_at_once) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(RuntimeError::NotRunnable(error.to_string()));
            }
            // Not there, not listening yet, or (for a program of another user) not yet opened to us by the init.
            Err(_) => tokio::time::sleep(wait).await,
        }
        wait = (wait * 2).min(SLOWEST);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn it_waits_for_the_socket_and_gives_up_on_anything_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fn.sock");
        let (late, address) = (path.clone(), Address::from(path.clone()));
        let (outcome, listener) = tokio::join!(accepted(&address), async {
            tokio::task::yield_now().await;
            UnixListener::bind(late).unwrap()
        });
        outcome.unwrap();
        drop(listener);

        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        let error = accepted(&address).await.unwrap_err();
        assert!(matches!(error, RuntimeError::NotRunnable(_)), "{error}");
    }
}

//! TLS of listeners: a certificate and its key from two files, read again when they change.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsAcceptor;

use super::{file, watch};

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Why they are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{} holds no PEM certificate (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} holds no PEM key without a passphrase (-----BEGIN PRIVATE KEY-----)", .0.display())]
    NoKey(PathBuf),
    #[error("{}: {error}", path.display())]
    Pem { path: PathBuf, error: pem::Error },
    #[error("certificate {} and key {} cannot be used: {error}", files.cert.display(), files.key.display())]
    Pair {
        files: TlsFiles,
        error: rustls::Error,
    },
}

/// What a handshake needs.
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    /// What was last read of them.
    text: Mutex<Text>,
    /// They could not be read, and that is said.
    unread: AtomicBool,
}

/// Both files' content.
#[derive(PartialEq, Eq)]
struct Text {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When they are no certificate with its key.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let text = Text::read(&files)?;
        Ok(Self {
            config: ArcSwap::new(config(&files, &text)?),
            files,
            text: Mutex::new(text),
            unread: AtomicBool::new(false),
        })
    }

    /// For the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.config.load_full().into()
    }

    /// Goes by the files as they are, whenever they change.
    pub async fn follow(&self) {
        let files = [self.files.cert.clone(), self.files.key.clone()];
        watch::watch(&files, || self.reload()).await;
    }

    /// A pair that cannot be used changes nothing: the one before serves on. So do open connections. Answers whether the files
    /// were read: else it is to be tried again, and said once.
    fn reload(&self) -> bool {
        let outcome = self.changed();
        let is_unread = matches!(outcome, Err(TlsError::Read { .. }));
        let was_unread = self.unread.swap(is_unread, Ordering::Relaxed);
        match outcome {
            Ok(false) => {}
            Ok(true) => tracing::info!(
                certificate = %self.files.cert.display(),
                "New connections get the changed certificate"
            ),
            Err(_) if is_unread && was_unread => {}
            Err(error) => {
                tracing::error!(%error, "The changed certificate is not used; the one before serves on");
            }
        }
        !is_unread
    }

    fn changed(&self) -> Result<bool, TlsError> {
        let new = Text::read(&self.files)?;
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if *text == new {
            return Ok(false);
        }
        self.config.store(config(&self.files, &new)?);
        *text = new;
        Ok(true)
    }
}

impl Text {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            let path = path.to_owned();
            file::read(&path).map_err(|error| TlsError::Read { path, error })
        };
        Ok(Self {
            cert: read(&files.cert)?,
            key: read(&files.key)?,
        })
    }
}

fn config(files: &TlsFiles, text: &Text) -> Result<Arc<ServerConfig>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text.cert)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem {
            path: files.cert.clone(),
            error,
        })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(files.cert.clone()));
    }
    let key = PrivateKeyDer::from_pem_slice(&text.key).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey(files.key.clone()),
        error => TlsError::Pem {
            path: files.key.clone(),
            error,
        },
    })?;
    let pair = |error| TlsError::Pair {
        files: files.clone(),
        error,
    };
    let mut config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

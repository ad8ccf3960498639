//! TLS between controller and gateways. A controller makes its certificate when it starts, and says in its Lease which one it
//! is; gateways trust that one alone, so there is no authority to look after.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// By which name it is called, wherever it is.
const NAME: &str = "faas-controller";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("no certificate could be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("the certificate cannot be used: {0}")]
    Use(#[from] rustls::Error),
    #[error("the controller's certificate cannot be read: {0}")]
    Read(#[from] rustls::pki_types::pem::Error),
}

/// A controller's certificate, and what accepts with it.
pub struct Identity {
    /// PEM.
    pub certificate: String,
    pub acceptor: TlsAcceptor,
}

impl Identity {
    /// A new one.
    pub fn new() -> Result<Self, PinError> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::Pkcs8(key))?;
        Ok(Self {
            certificate: made.cert.pem(),
            acceptor: Arc::new(config).into(),
        })
    }
}

/// Connects to whoever has this certificate, and to nobody else.
pub fn connector(certificate: &str) -> Result<TlsConnector, PinError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes())?)?;
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

/// The name that is asked for.
pub fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("it is a name")
}

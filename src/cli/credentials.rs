//! What a client brings to a server that asks for it: its token, and whom it trusts.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use reqwest::{
    ClientBuilder, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::{access::token, config};

/// What was typed about them.
#[derive(Clone, Debug, Args)]
pub struct Credentials {
    /// File with the token for a server that asks for one [default: the token in `$FAAS_TOKEN`]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// PEM file of the authorities of an https server, in place of the system's [default: `$FAAS_CA`]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Why they are of no use.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read {}: {error}", path.display())]
    Read {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error(
        "{0} holds no token: one begins with faas_ and is printed by `faas token create`, or is a cluster's and printed by \
         `kubectl create token`"
    )]
    NoToken(String),
    #[error(
        "the token is not sent in the clear: {0} is not on this machine, so its URL must begin with https://"
    )]
    Clear(String),
    #[error("{} holds no certificate: {why}", path.display())]
    NoCertificate { path: PathBuf, why: String },
    #[error("TLS cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

impl Credentials {
    /// A client for this server that has them.
    pub fn bring(
        &self,
        mut to: ClientBuilder,
        server: &Url,
    ) -> Result<ClientBuilder, CredentialsError> {
        if let Some(token) = self.token()? {
            if server.scheme() != "https" && !is_local(server) {
                return Err(CredentialsError::Clear(server.authority().to_owned()));
            }
            let mut header = HeaderValue::try_from(format!("Bearer {token}"))
                .expect("a token is letters and digits");
            header.set_sensitive(true);
            to = to.default_headers(HeaderMap::from_iter([(AUTHORIZATION, header)]));
        }
        let roots = if server.scheme() == "https" {
            self.authorities()?
        } else {
            RootCertStore::empty()
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(to.tls_backend_preconfigured(tls))
    }

    fn token(&self) -> Result<Option<String>, CredentialsError> {
        let (text, whence) = match &self.token_file {
            Some(path) => {
                let text = String::from_utf8_lossy(&read(path)?).into_owned();
                (text, path.display().to_string())
            }
            None => match config::access::token() {
                Some(text) => (text, "FAAS_TOKEN".to_owned()),
                None => return Ok(None),
            },
        };
        let token = text.trim();
        if token::id(token).is_some() || is_jwt(token) {
            Ok(Some(token.to_owned()))
        } else {
            Err(CredentialsError::NoToken(whence))
        }
    }

    /// Who may vouch for the server.
    fn authorities(&self) -> Result<RootCertStore, CredentialsError> {
        let mut roots = RootCertStore::empty();
        match config::access::authorities(self.ca.clone()) {
            Some(path) => {
                let no = |why: String| CredentialsError::NoCertificate {
                    path: path.clone(),
                    why,
                };
                for certificate in CertificateDer::pem_slice_iter(&read(&path)?) {
                    let certificate = certificate.map_err(|error| no(error.to_string()))?;
                    roots
                        .add(certificate)
                        .map_err(|error| no(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(no("there is no -----BEGIN CERTIFICATE-----".to_owned()));
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        Ok(roots)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    fs::read(path).map_err(|error| CredentialsError::Read {
        path: path.to_owned(),
        error,
    })
}

/// Whether a text has the shape of a cluster's tokens. What has not may be a password, and is not sent.
fn is_jwt(text: &str) -> bool {
    let is_part = |part: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !part.is_empty() && part.bytes().all(fits)
    };
    text.split('.').count() == 3 && text.split('.').all(is_part)
}

/// Whether nobody but this machine hears what is said to it.
fn is_local(server: &Url) -> bool {
    let host = server.host_str().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cluster_gives_is_told_from_passwords() {
        assert!(is_jwt("eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOlsiZmFhcyJdfQ.a-b_C"));
        for other in [
            "", "hunter2", "a.b", "a.b.c.d", "a..c", "a.b.", "a.b.c d", "faas_x",
        ] {
            assert!(!is_jwt(other), "{other:?}");
        }
    }
}

//! Which listeners ask for tokens and speak TLS, and what a client brings for those.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{ConfigError, read};
use crate::access::tls::TlsFiles;

/// What was typed after `faas start` about who may come in.
#[derive(Debug, Args)]
pub struct AccessArgs {
    /// Who may ask on a loopback address; on any other it is always those with a token
    #[arg(long, value_enum, default_value_t = Auth::Local)]
    auth: Auth,

    /// PEM file of the certificate chain; needed on addresses other than loopback, and read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// PEM file of the certificate's key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// How callers come to the listener for calls, such as <https://faas.example:5555> [default: its address]
    #[arg(long, value_name = "URL", value_parser = url)]
    public_url: Option<String>,
}

/// Who may ask on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Every program on this machine
    Local,
    /// Those with a token (see `faas token`)
    Token,
}

/// Who may come in.
#[derive(Clone, Debug)]
pub struct AccessConfig {
    auth: Auth,
    pub tls: Option<TlsFiles>,
    pub public_url: Option<String>,
    /// All listeners are on loopback.
    loopback: bool,
}

impl AccessArgs {
    /// Checks it against the addresses.
    pub fn resolve(
        self,
        listen: SocketAddr,
        invoke: Option<SocketAddr>,
    ) -> Result<AccessConfig, ConfigError> {
        let tls = self.tls_cert.zip(self.tls_key);
        let mut addresses = [Some(listen), invoke].into_iter().flatten();
        let public = addresses.find(|address| !address.ip().is_loopback());
        if let Some(address) = public
            && tls.is_none()
        {
            return Err(ConfigError::NoTls(address));
        }
        Ok(AccessConfig {
            auth: self.auth,
            tls: tls.map(|(cert, key)| TlsFiles { cert, key }),
            public_url: self.public_url,
            loopback: public.is_none(),
        })
    }
}

impl AccessConfig {
    /// Whether a listener there asks for tokens.
    pub fn asks_for_tokens(&self, address: SocketAddr) -> bool {
        self.auth == Auth::Token || !address.ip().is_loopback()
    }

    /// Whether a listener there speaks TLS. A loopback one beside one that is not stays plain, for programs of this machine.
    pub fn speaks_tls(&self, address: SocketAddr) -> bool {
        self.tls.is_some() && (self.loopback || !address.ip().is_loopback())
    }
}

/// For a flag's value: scheme, host and perhaps a port.
fn url(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let parsed = reqwest::Url::parse(text).ok();
    let fits = parsed.is_some_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.path() == "/" && url.query().is_none()
    });
    if fits {
        Ok(text.to_owned())
    } else {
        Err("must be scheme and host, such as https://faas.example:5555".to_owned())
    }
}

/// The file of authorities that a client trusts in place of the system's: what was typed, else `FAAS_CA`.
pub fn authorities(given: Option<PathBuf>) -> Option<PathBuf> {
    given.or_else(|| read("FAAS_CA").map(PathBuf::from))
}

/// A client's token: `FAAS_TOKEN`.
pub fn token() -> Option<String> {
    read("FAAS_TOKEN")
}

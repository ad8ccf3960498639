//! Which listeners ask for tokens and speak TLS, and what a client brings for those.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use super::{ConfigError, read, store::StoreFlags};
use crate::access::{secret, tls::TlsFiles};

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

    /// Secret beside faas that has certificate, key and tokens for all that run there, with --store kubernetes; what is
    /// missing in it is made, but by gateways, which wait for it
    #[arg(long, value_name = "NAME", requires = "public_url")]
    access_secret: Option<String>,

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
    /// Name of the Secret that has certificate, key and tokens.
    pub secret: Option<String>,
    /// All listeners are on loopback.
    loopback: bool,
}

impl AccessArgs {
    /// Checks it against the addresses, and whether there is a cluster.
    pub fn resolve(
        self,
        [listen, invoke]: [Option<SocketAddr>; 2],
        in_cluster: bool,
        state: &Path,
    ) -> Result<AccessConfig, ConfigError> {
        if self.access_secret.is_some() && !in_cluster {
            return Err(StoreFlags::NoCluster("--access-secret").into());
        }
        let given = self.tls_cert.zip(self.tls_key);
        let given = given.map(|(cert, key)| TlsFiles { cert, key });
        let kept = self.access_secret.is_some();
        let tls = given.or_else(|| kept.then(|| secret::tls_files(state)));
        let mut addresses = [listen, invoke].into_iter().flatten();
        let public = addresses.find(|address| !address.ip().is_loopback());
        if let Some(address) = public
            && tls.is_none()
        {
            return Err(ConfigError::NoTls(address));
        }
        Ok(AccessConfig {
            auth: self.auth,
            tls,
            public_url: self.public_url,
            secret: self.access_secret,
            loopback: public.is_none(),
        })
    }
}

impl AccessConfig {
    /// Whom a certificate of ours is for: callers in the cluster, and those who forward a port from their own machine.
    pub fn hosts(&self) -> Vec<String> {
        let url = self.public_url.as_deref().unwrap_or_default();
        let host = reqwest::Url::parse(url).ok();
        let host = host.and_then(|url| Some(url.host_str()?.trim_matches(['[', ']']).to_owned()));
        let local = ["localhost", "127.0.0.1"].map(str::to_owned);
        host.into_iter().chain(local).collect()
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> AccessArgs {
        AccessArgs {
            auth: Auth::Local,
            tls_cert: None,
            tls_key: None,
            access_secret: Some("faas-access".to_owned()),
            public_url: Some("https://faas.faas-system.svc:443".to_owned()),
        }
    }

    #[test]
    fn a_secret_brings_certificate_and_key_unless_they_are_given() {
        let everywhere = [Some("0.0.0.0:5555".parse().unwrap()), None];
        let state = Path::new("/state");
        let made = args().resolve(everywhere, true, state);
        let made = made.unwrap();
        assert_eq!(made.tls, Some(secret::tls_files(state)));
        let hosts = ["faas.faas-system.svc", "localhost", "127.0.0.1"];
        assert_eq!(made.hosts(), hosts);

        let given = AccessArgs {
            tls_cert: Some("a.crt".into()),
            tls_key: Some("a.key".into()),
            ..args()
        };
        let given = given.resolve(everywhere, true, state);
        assert_eq!(given.unwrap().tls.unwrap().cert, Path::new("a.crt"));

        let alone = args().resolve(everywhere, false, state);
        let error = alone.unwrap_err().to_string();
        assert!(error.contains("--store kubernetes"), "{error}");
    }
}

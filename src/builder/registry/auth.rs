//! Who we are to a registry: the file of credentials, and the tokens that registries give for them. Nothing here is ever
//! shown: errors name the file and the host.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{
    Url,
    header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;

use super::{error::RegistryError, reference::Repository};

/// How long a token is used whose life was not told, and how much sooner than at its end one is not used any more.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// What is done with a repository; tokens are for one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Access {
    Pull,
    Push,
    Delete,
}

impl Access {
    fn actions(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
            Self::Delete => "delete",
        }
    }
}

/// What a registry wants to know the asker of.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub repository: &'a Repository,
    pub access: Access,
    /// The registry is spoken to without TLS.
    pub plain: bool,
}

/// A user's name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
}

/// The credentials, and the tokens that were got for them.
pub(super) struct Auth {
    file: Option<PathBuf>,
    tokens: Mutex<HashMap<(Repository, Access), Token>>,
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    login: Option<Login>,
    until: Instant,
}

/// How a registry wants to be asked.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Auth {
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        Self {
            file,
            tokens: Mutex::default(),
        }
    }

    /// Our name and password at a registry. The file is read each time, for a secret that is mounted changes.
    pub(super) async fn login(&self, registry: &str) -> Result<Option<Login>, RegistryError> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let useless = |why: String| {
            RegistryError::Credentials(format!("--registry-auth {}: {why}", file.display()))
        };
        let bytes = tokio::fs::read(file)
            .await
            .map_err(|error: io::Error| useless(error.to_string()))?;
        // The error of the parser would show what is in the file.
        let config: DockerConfig = serde_json::from_slice(&bytes)
            .map_err(|_| useless("it is no config.json of Docker".to_owned()))?;
        config
            .login(registry)
            .map_err(|()| useless(format!("its entry of {registry} cannot be read")))
    }

    /// What was good last time, if it still may be.
    pub(super) fn known(
        &self,
        repository: &Repository,
        access: Access,
        login: Option<&Login>,
    ) -> Option<HeaderValue> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let token = tokens.get(&(repository.clone(), access))?;
        (token.until > Instant::now() && token.login.as_ref() == login)
            .then(|| token.header.clone())
    }

    /// Does what a registry that answered 401 wants. Nothing when it wants what we do not have.
    pub(super) async fn answer(
        &self,
        asked: Asked<'_>,
        headers: &HeaderMap,
        login: Option<Login>,
        http: &reqwest::Client,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let challenges = headers.get_all(WWW_AUTHENTICATE);
        let Some(challenge) = challenges.iter().find_map(|h| challenge(h.to_str().ok()?)) else {
            return Ok(None);
        };
        let (header, life) = match (challenge, &login) {
            (Challenge::Basic, None) => return Ok(None),
            // The credentials do not end, but a registry may change its mind about how it is asked.
            (Challenge::Basic, Some(login)) => (basic(login), Duration::from_secs(3600)),
            (bearer, login) => token(asked, bearer, login.as_ref(), http).await?,
        };
        let token = Token {
            header: header.clone(),
            login,
            until: Instant::now() + life.saturating_sub(TOKEN_MARGIN),
        };
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, token| token.until > Instant::now());
        tokens.insert((asked.repository.clone(), asked.access), token);
        Ok(Some(header))
    }
}

/// Asks the server that a registry names.
async fn token(
    asked: Asked<'_>,
    challenge: Challenge,
    login: Option<&Login>,
    http: &reqwest::Client,
) -> Result<(HeaderValue, Duration), RegistryError> {
    const WHAT: &str = "get a token";
    let registry = &asked.repository.registry;
    let odd = |message: &str| RegistryError::odd(registry, WHAT, message);
    let Challenge::Bearer {
        realm,
        service,
        scope,
    } = challenge
    else {
        return Err(odd("it asks for something unknown"));
    };
    let mut url = Url::parse(&realm).map_err(|_| odd("its realm is no URL"))?;
    // Whoever names the registry does not decide where else requests of ours go in the clear.
    if url.scheme() != "https" && !asked.plain {
        return Err(odd("its realm is not https"));
    }
    // What the registry asks for may be more than the access: the other repository of a mount.
    let scope = scope.unwrap_or_else(|| {
        format!(
            "repository:{}:{}",
            asked.repository.name,
            asked.access.actions()
        )
    });
    url.query_pairs_mut()
        .extend_pairs(service.iter().map(|service| ("service", service)))
        .extend_pairs(scope.split(' ').map(|scope| ("scope", scope)));
    let mut request = http.get(url);
    if let Some(login) = login {
        request = request.header(reqwest::header::AUTHORIZATION, basic(login));
    }
    let answer = request.send().await;
    let answer = answer.map_err(|error| RegistryError::unanswered(registry, WHAT, error))?;
    let status = answer.status();
    let body = super::client::read(answer, 1 << 20).await;
    let body = body.map_err(|error| error.of(registry, WHAT))?;
    if !status.is_success() {
        return Err(RegistryError::answered(
            registry,
            WHAT,
            status.as_u16(),
            &body,
        ));
    }
    let told: TokenAnswer =
        serde_json::from_slice(&body).map_err(|_| odd("its token cannot be read"))?;
    let text = told.token.or(told.access_token);
    let text = text.ok_or_else(|| odd("its answer has no token"))?;
    let header = secret(&format!("Bearer {text}")).ok_or_else(|| odd("its token is none"))?;
    let life = told.expires_in.map_or(TOKEN_LIFE, Duration::from_secs);
    Ok((header, life))
}

fn basic(login: &Login) -> HeaderValue {
    let pair = STANDARD.encode(format!("{}:{}", login.user, login.password));
    secret(&format!("Basic {pair}")).expect("base64 is fit for a header")
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Docker's `config.json`, as a pull secret holds it.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl DockerConfig {
    fn login(&self, registry: &str) -> Result<Option<Login>, ()> {
        let entry = self
            .auths
            .iter()
            .find(|(key, _)| host(key) == registry)
            .map(|(_, entry)| entry);
        let Some(entry) = entry else {
            return Ok(None);
        };
        if let (Some(user), Some(password)) = (&entry.username, &entry.password) {
            return Ok(Some(Login {
                user: user.clone(),
                password: password.clone(),
            }));
        }
        let Some(pair) = entry.auth.as_deref().filter(|pair| !pair.is_empty()) else {
            return Ok(None);
        };
        let pair = STANDARD.decode(pair).map_err(|_| ())?;
        let pair = String::from_utf8(pair).map_err(|_| ())?;
        let (user, password) = pair.split_once(':').ok_or(())?;
        Ok(Some(Login {
            user: user.to_owned(),
            password: password.to_owned(),
        }))
    }
}

/// `https://index.docker.io/v1/` is how Docker writes its own.
fn host(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or_default() {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        host => host,
    }
}

/// Reads the value of `WWW-Authenticate`.
fn challenge(text: &str) -> Option<Challenge> {
    let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parameters = HashMap::new();
    let mut rest = rest.trim_start();
    while let Some((name, value)) = rest.split_once('=') {
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => value.split_at(value.find(',').unwrap_or(value.len())),
        };
        parameters.insert(name.trim().to_ascii_lowercase(), value.to_owned());
        rest = after.trim_start_matches([',', ' ']);
    }
    Some(Challenge::Bearer {
        realm: parameters.remove("realm")?,
        service: parameters.remove("service"),
        scope: parameters.remove("scope"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let text = r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push repository:base:pull""#;
        assert_eq!(
            challenge(text),
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: Some("r.example".into()),
                scope: Some("repository:a/b:pull,push repository:base:pull".into()),
            })
        );
        assert_eq!(challenge(r#"Basic realm="x""#), Some(Challenge::Basic));
        for none in ["Negotiate", "Bearer", r#"Bearer realm="open"#, ""] {
            assert_eq!(challenge(none), None, "{none}");
        }
    }

    #[tokio::test]
    async fn a_registry_with_tls_sends_us_nowhere_without() {
        let repository = Repository {
            registry: "r.example".into(),
            name: "x".into(),
        };
        let asked = Asked {
            repository: &repository,
            access: Access::Pull,
            plain: false,
        };
        let realm = "Bearer realm=\"http://127.0.0.1:1/token\"";
        let headers = [(WWW_AUTHENTICATE, HeaderValue::from_static(realm))];
        let headers = headers.into_iter().collect();
        let client = super::super::client::http(Duration::from_secs(1));
        let answer = Auth::new(None).answer(asked, &headers, None, &client).await;
        let error = answer.unwrap_err().to_string();
        assert!(error.contains("realm is not https"), "{error}");
    }

    #[tokio::test]
    async fn credentials_are_read_anew_and_never_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let auth = Auth::new(Some(path.clone()));
        let pair = STANDARD.encode("me:a:secret");
        let hub = STANDARD.encode("hub:other");
        let text = format!(
            r#"{{"auths": {{"r.example:5000": {{"auth": "{pair}"}}, "https://index.docker.io/v1/": {{"auth": "{hub}"}}}}}}"#
        );
        std::fs::write(&path, text).unwrap();
        let login = auth.login("r.example:5000").await.unwrap().unwrap();
        assert_eq!((&*login.user, &*login.password), ("me", "a:secret"));
        let login = auth.login("registry-1.docker.io").await.unwrap().unwrap();
        assert_eq!(login.user, "hub");
        assert!(auth.login("r.example").await.unwrap().is_none());
        std::fs::write(
            &path,
            r#"{"auths": {"r.example": {"username": "u", "password": "p"}}}"#,
        )
        .unwrap();
        assert_eq!(auth.login("r.example").await.unwrap().unwrap().user, "u");
        for broken in [
            r#"{"auths": {"r.example": {"auth": "c2VjcmV0"}}}"#,
            r#"{"auths": {"r.example": {"auth": "secret!"}}}"#,
            "secret",
        ] {
            std::fs::write(&path, broken).unwrap();
            let error = auth.login("r.example").await.err().unwrap().to_string();
            assert!(error.contains("config.json"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}

//! The file of the tokens: `access/tokens.json` in the state directory. Each change replaces it whole; a server that runs
//! reads it again then. Beside it stands what the audit has told of, so that nothing is left out that changed while no server
//! ran.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    token::RANDOM_BYTES,
    tokens::{TokenError, Tokens},
};
use crate::store::{StoreError, state};

const FILE: &str = "tokens.json";
const TOLD: &str = "told.json";

/// Why the file cannot be used, or is not changed.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    #[error(transparent)]
    State(#[from] StoreError),
    #[error("cannot use {}: {error}", path.display())]
    Path { path: PathBuf, error: io::Error },
    #[error("{} is damaged: {error}; with it gone, new tokens can be made", path.display())]
    Damaged {
        path: PathBuf,
        error: serde_json::Error,
    },
    #[error(
        "{} belongs to another user (uid {owner}): make and revoke tokens as the one who runs the server, who could not \
         read them else", dir.display()
    )]
    NotOurs { dir: PathBuf, owner: u32 },
    #[error("no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// The directory of the tokens in a state directory; made, if need be.
pub fn dir(state: &Path) -> Result<PathBuf, BookError> {
    let dir = state.join("access");
    // Both are private: the state directory may be new, too.
    for made in [state, &dir] {
        if !made.is_dir() {
            state::make_private(made)?;
        }
    }
    Ok(dir)
}

/// The file in that directory.
pub fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// The tokens; none, if there is no file.
pub fn read(dir: &Path) -> Result<Tokens, BookError> {
    read_file(file(dir))
}

/// The tokens that the audit has told of.
pub fn told(dir: &Path) -> Result<Tokens, BookError> {
    read_file(dir.join(TOLD))
}

/// The audit has told of these.
pub fn tell(dir: &Path, tokens: &Tokens) -> Result<(), BookError> {
    if told(dir).is_ok_and(|told| told == *tokens) {
        return Ok(());
    }
    write(dir, TOLD, tokens)
}

fn read_file(path: PathBuf) -> Result<Tokens, BookError> {
    match super::file::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|error| BookError::Damaged { path, error })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Tokens::default()),
        Err(error) => Err(BookError::Path { path, error }),
    }
}

/// Changes them, one at a time. `change` may use these random bytes.
pub fn edit<T>(
    dir: &Path,
    change: impl FnOnce(&mut Tokens, &[u8; RANDOM_BYTES]) -> Result<T, TokenError>,
) -> Result<T, BookError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        |error| BookError::Path { path, error }
    };
    let owner = fs::metadata(dir).map_err(at(dir))?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        let dir = dir.to_owned();
        return Err(BookError::NotOurs { dir, owner });
    }
    let lock = File::open(dir).map_err(at(dir))?;
    lock.lock().map_err(at(dir))?;
    let mut tokens = read(dir)?;
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random)?;
    let done = change(&mut tokens, &random)?;
    write(dir, FILE, &tokens)?;
    Ok(done)
}

fn write(dir: &Path, name: &str, tokens: &Tokens) -> Result<(), BookError> {
    let text = serde_json::to_string_pretty(tokens).expect("tokens are JSON");
    state::write_whole(dir, name, &text).map_err(|error| BookError::Path {
        path: dir.join(name),
        error,
    })
}

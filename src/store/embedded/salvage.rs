//! A damaged store is set aside, and what can still be read of it goes into a new one. An owner that is lost is read from a
//! store that is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    path::Path,
    sync::Arc,
};

use rusqlite::{Connection, OpenFlags, Row, config::DbConfig};
use tokio_util::sync::CancellationToken;

use super::file::{Durability, File};
use crate::{
    builder::recipe,
    function::{Function, FunctionKey},
    store::{StoreError, state},
};

/// What is known of a store of which not all could be read.
pub struct Lost {
    /// What could be read.
    pub kept: BTreeSet<FunctionKey>,
    /// Cancelled when the watched directories have said what they define.
    pub told: CancellationToken,
}

impl Lost {
    /// All but what is there.
    pub fn beside(there: &[Arc<Function>]) -> Self {
        let keys = there
            .iter()
            .map(|function| FunctionKey::try_from(&**function));
        Self {
            kept: keys.flatten().collect(),
            told: CancellationToken::new(),
        }
    }
}

/// What is wrong with a store that SQLite would take for a new one.
pub fn without_content(path: &Path, must_be_there: bool) -> Option<StoreError> {
    let message = match fs::metadata(path) {
        Ok(file) if file.len() == 0 => "it is empty",
        Err(error) if must_be_there && error.kind() == ErrorKind::NotFound => {
            "it is gone, though this state directory was in use"
        }
        _ => return None,
    };
    Some(StoreError::Damaged {
        file: path.to_owned(),
        message: message.to_owned(),
    })
}

/// Makes a new store in place of the damaged one, and says whether it has all that the old one had. What it has is told in the
/// log.
pub fn rebuild(state_dir: &Path, damage: &StoreError) -> Result<(File, bool), StoreError> {
    let aside = state::set_aside(state_dir)?;
    let old = read(&aside.join(state::STORE));
    let mut file = File::open(&state_dir.join(state::STORE))?;
    // Resource versions go on where they were: nobody may take new for old.
    let versions = old
        .functions
        .iter()
        .filter_map(|(_, f)| f.metadata.resource_version.as_ref()?.parse().ok());
    file.count_from(versions.max().unwrap_or(0));
    let kept = old.functions.len();
    for (key, mut function) in old.functions {
        file.put(&key, &mut function, Durability::Derived)?;
    }
    for (uid, record) in old.served {
        file.serve(&uid, &record)?;
    }
    tracing::error!(
        %damage,
        set_aside = %aside.display(),
        kept,
        complete = old.complete,
        "The store was damaged; what there is of it is set aside. A new one holds the functions that could be read. Of the \
         others, those in watched directories come back by themselves, and so do those of which an instance runs that tells \
         of them; deploy the rest again"
    );
    Ok((file, old.complete))
}

/// Sees to it that a state directory with a store has its owner, too: where that file is gone, the names of the images that
/// were built for the store's Functions tell it. Hold the directory's lock.
///
/// # Errors
/// [`StoreError::OwnerLost`] when they do not. A new owner would leave all that runs and every image to nobody.
pub fn find_owner(state_dir: &Path) -> Result<(), StoreError> {
    let store = state_dir.join(state::STORE);
    if state::has_owner(state_dir) || !store.exists() {
        return Ok(());
    }
    let functions = read(&store).functions;
    let owners: BTreeSet<&str> = functions
        .iter()
        .filter(|(_, function)| function.spec.source.image.is_none())
        .filter_map(|(_, function)| function.status.as_ref()?.image.as_deref())
        .filter_map(recipe::owner_of)
        .collect();
    let mut owners = owners.into_iter();
    let (Some(owner), None) = (owners.next(), owners.next()) else {
        return Err(StoreError::OwnerLost {
            directory: state_dir.to_owned(),
        });
    };
    state::restore_owner(state_dir, owner)?;
    tracing::warn!(
        owner,
        "The state directory had lost its owner; it is the one that the images of the store's functions name"
    );
    Ok(())
}

/// What could be read. Facts and events are not missed: the first are learnt again, the second were about what is past.
#[derive(Default)]
struct Old {
    functions: Vec<(FunctionKey, Function)>,
    served: Vec<(String, String)>,
    /// Nothing was unreadable.
    complete: bool,
}

fn read(path: &Path) -> Old {
    let mut old = Old {
        complete: true,
        ..Old::default()
    };
    // SQLite would throw away the log beside a file without content.
    let is_empty = fs::metadata(path).is_ok_and(|file| file.len() == 0);
    if is_empty {
        return Old::default();
    }
    let Ok(connection) = open(path) else {
        return Old::default();
    };
    for json in old.rows(&connection, "SELECT rowid, object FROM functions", |row| {
        row.get::<_, String>(1)
    }) {
        match function(&json) {
            Some(function) => old.functions.push(function),
            None => old.complete = false,
        }
    }
    old.served = old.rows(
        &connection,
        "SELECT rowid, uid, record FROM served",
        |row| Ok((row.get(1)?, row.get(2)?)),
    );
    old
}

/// Not only for reading: the newest may be in the write-ahead log. Both files stay as they are.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

fn function(json: &str) -> Option<(FunctionKey, Function)> {
    let function: Function = serde_json::from_str(json).ok()?;
    Some((FunctionKey::try_from(&function).ok()?, function))
}

impl Old {
    /// The rows of a table, read from both ends up to what cannot be read.
    fn rows<T>(
        &mut self,
        connection: &Connection,
        select: &str,
        read: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Vec<T> {
        let rows = |order: &str| -> rusqlite::Result<Vec<rusqlite::Result<(i64, T)>>> {
            let mut statement = connection.prepare(&format!("{select} ORDER BY rowid {order}"))?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, read(row)?)))?;
            Ok(rows.collect())
        };
        let mut found = BTreeMap::new();
        for order in ["ASC", "DESC"] {
            let rows = rows(order).unwrap_or_else(|error| vec![Err(error)]);
            let complete = rows.iter().all(Result::is_ok);
            found.extend(rows.into_iter().flatten());
            if complete {
                return found.into_values().collect();
            }
        }
        self.complete = false;
        found.into_values().collect()
    }
}

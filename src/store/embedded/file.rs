//! The SQLite file: its format, and every statement that reads or writes it. One transaction a write.

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};

use crate::{
    function::{Function, FunctionKey, Revision, RevisionError},
    store::{EventRecord, EventType, Fact, StoreError, memory::Objects},
};

/// Format of the file, kept in `user_version`. A change of [`SCHEMA`] needs a higher number and a way from the old one.
const FORMAT: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE counter (version INTEGER NOT NULL) STRICT;
    INSERT INTO counter VALUES (0);
    CREATE TABLE functions (
        namespace TEXT NOT NULL, name TEXT NOT NULL, object TEXT NOT NULL, PRIMARY KEY (namespace, name)
    ) STRICT;
    CREATE TABLE facts (
        revision TEXT NOT NULL, fact TEXT NOT NULL, learnt INTEGER NOT NULL, PRIMARY KEY (revision, fact)
    ) STRICT;
    CREATE TABLE events (
        uid TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL, type TEXT NOT NULL, time INTEGER NOT NULL,
        count INTEGER NOT NULL, PRIMARY KEY (uid, reason, message)
    ) STRICT;
    CREATE TABLE served (uid TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) STRICT;
    PRAGMA user_version = 1;";
/// SQLite's own cache, in KiB (which the sign says): what is read again and again is in memory already.
const CACHE: i64 = -256;
/// Events that are kept of one Function.
const EVENTS: u32 = 50;

/// How much of a power cut a write survives. No crash of `faas` itself loses anything either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On the disk before it is answered: the words of a caller, which nobody would say again.
    Full,
    /// On the disk soon, in order: what files or the controller yield again, at a hundredth of the price.
    Derived,
}

pub struct File {
    path: PathBuf,
    connection: Connection,
    version: i64,
}

impl File {
    /// Opens the file, or makes it, readable by its owner alone.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(StoreError::io("open", path))?;
        let failed = |error| failure(path, error);
        let connection = Connection::open(path).map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(32);
        connection
            .pragma_update(None, "cache_size", CACHE)
            .map_err(failed)?;
        check_format(&connection, path)?;
        connection
            .pragma_update(None, "journal_mode", "wal")
            .map_err(failed)?;
        let version = connection
            .query_row("SELECT version FROM counter", [], |row| row.get(0))
            .map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            connection,
            version,
        })
    }

    /// Every object.
    pub fn objects(&self) -> Result<Objects, StoreError> {
        self.rows("SELECT object FROM functions", |row| {
            row.get::<_, String>(0)
        })?
        .into_iter()
        .map(|json| {
            let mut function: Function =
                serde_json::from_str(&json).map_err(|error| self.damaged(error.to_string()))?;
            if let Some(status) = &mut function.status {
                // They stay for as long as the Function, and were read with room for more.
                status.conditions.shrink_to_fit();
            }
            Ok((FunctionKey::try_from(&function)?, Arc::new(function)))
        })
        .collect()
    }

    /// Everything known of revisions.
    pub fn facts(&self) -> Result<BTreeSet<(Fact, Revision)>, StoreError> {
        self.rows("SELECT fact, revision FROM facts", |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?
        .into_iter()
        .map(|(fact, revision)| {
            let known = fact
                .parse()
                .map_err(|_| self.damaged(format!("unknown fact {fact:?}")))?;
            let revision = revision
                .parse()
                .map_err(|error: RevisionError| self.damaged(error.to_string()))?;
            Ok((known, revision))
        })
        .collect()
    }

    /// The next resource version is at least one more than this.
    pub fn count_from(&mut self, version: i64) {
        self.version = self.version.max(version);
    }

    /// Writes `function` and gives it its new resource version.
    pub fn put(
        &mut self,
        key: &FunctionKey,
        function: &mut Function,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let version = self.version + 1;
        function.metadata.resource_version = Some(version.to_string());
        let object =
            serde_json::to_string(function).map_err(|error| self.damaged(error.to_string()))?;
        self.transaction(durability, |transaction| {
            transaction
                .prepare_cached(
                    "INSERT INTO functions (namespace, name, object) VALUES (?1, ?2, ?3)
                     ON CONFLICT DO UPDATE SET object = excluded.object",
                )?
                .execute(params![key.namespace(), key.name(), object])?;
            count(transaction, version)
        })?;
        self.version = version;
        Ok(())
    }

    /// Removes an object with its events, and gives its last form a resource version of its own.
    pub fn remove(&mut self, key: &FunctionKey, last: &mut Function) -> Result<(), StoreError> {
        let version = self.version + 1;
        self.transaction(Durability::Derived, |transaction| {
            transaction
                .prepare_cached("DELETE FROM functions WHERE namespace = ?1 AND name = ?2")?
                .execute(params![key.namespace(), key.name()])?;
            transaction
                .prepare_cached("DELETE FROM events WHERE uid = ?1")?
                .execute(params![last.metadata.uid])?;
            transaction
                .prepare_cached("DELETE FROM served WHERE uid = ?1")?
                .execute(params![last.metadata.uid])?;
            count(transaction, version)
        })?;
        self.version = version;
        last.metadata.resource_version = Some(version.to_string());
        Ok(())
    }

    pub fn learn(
        &mut self,
        revision: &Revision,
        fact: Fact,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transaction(Durability::Derived, |transaction| {
            transaction
                .prepare_cached(
                    "INSERT OR IGNORE INTO facts (revision, fact, learnt) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![
                    revision.as_str(),
                    <&str>::from(fact),
                    now.as_second()
                ])
                .map(drop)
        })
    }

    pub fn forget(&mut self, revisions: &[Revision]) -> Result<(), StoreError> {
        self.transaction(Durability::Derived, |transaction| {
            let mut statement =
                transaction.prepare_cached("DELETE FROM facts WHERE revision = ?1")?;
            revisions
                .iter()
                .try_for_each(|revision| statement.execute(params![revision.as_str()]).map(drop))
        })
    }

    /// Keeps what the object `uid` serves.
    pub fn serve(&mut self, uid: &str, record: &str) -> Result<(), StoreError> {
        self.transaction(Durability::Derived, |transaction| {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO served (uid, record) VALUES (?1, ?2)")?
                .execute(params![uid, record])
                .map(drop)
        })
    }

    /// What the object `uid` serves, if that was kept.
    pub fn served(&self, uid: &str) -> Result<Option<String>, StoreError> {
        self.connection
            .prepare_cached("SELECT record FROM served WHERE uid = ?1")
            .and_then(|mut statement| statement.query_row([uid], |row| row.get(0)).optional())
            .map_err(|error| failure(&self.path, error))
    }

    /// Adds an event to those of the object `uid`: an equal one counts on, the oldest beyond the bound go.
    pub fn record(&mut self, uid: &str, event: &EventRecord) -> Result<(), StoreError> {
        self.transaction(Durability::Derived, |transaction| {
            transaction
                .prepare_cached(
                    "INSERT INTO events (uid, reason, message, type, time, count) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT DO UPDATE SET type = excluded.type, time = excluded.time, count = count + excluded.count",
                )?
                .execute(params![
                    uid,
                    event.reason,
                    event.message,
                    event.kind.to_string(),
                    event.time.as_microsecond(),
                    event.count
                ])?;
            transaction
                .prepare_cached(
                    "DELETE FROM events WHERE rowid IN
                     (SELECT rowid FROM events WHERE uid = ?1 ORDER BY time DESC, rowid DESC LIMIT -1 OFFSET ?2)",
                )?
                .execute(params![uid, EVENTS])
                .map(drop)
        })
    }

    /// The events of the object `uid`, oldest first.
    pub fn events(&self, uid: &str) -> Result<Vec<EventRecord>, StoreError> {
        let failed = |error| failure(&self.path, error);
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT time, type, reason, message, count FROM events WHERE uid = ?1 ORDER BY time, rowid",
            )
            .map_err(failed)?;
        let rows = statement
            .query_map([uid], |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                ))
            })
            .map_err(failed)?;
        rows.map(|row| row.map_err(failed).and_then(|row| self.event(row)))
            .collect()
    }

    fn event(&self, row: (i64, String, String, String, u32)) -> Result<EventRecord, StoreError> {
        let (time, kind, reason, message, count) = row;
        let kind: EventType = kind
            .parse()
            .map_err(|_| self.damaged(format!("unknown event type {kind:?}")))?;
        let time =
            Timestamp::from_microsecond(time).map_err(|error| self.damaged(error.to_string()))?;
        Ok(EventRecord {
            time,
            kind,
            reason,
            message,
            count,
        })
    }

    fn rows<T>(
        &self,
        query: &str,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let collect = || {
            self.connection
                .prepare(query)?
                .query_map([], read)?
                .collect()
        };
        let rows: rusqlite::Result<Vec<T>> = collect();
        rows.map_err(|error| failure(&self.path, error))
    }

    fn transaction(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        let run = || {
            // Each level syncs what was written before it as well, so the order on the disk is that of the writes.
            let level = if durability == Durability::Full {
                "full"
            } else {
                "normal"
            };
            self.connection.pragma_update(None, "synchronous", level)?;
            let transaction = self.connection.transaction()?;
            work(&transaction)?;
            transaction.commit()
        };
        run().map_err(|error| failure(&self.path, error))?;
        if durability == Durability::Full {
            self.carry_over();
        }
        Ok(())
    }

    /// Carries the write-ahead log over into the main file. SQLite takes a log that is damaged, or gone, for one that ends sooner:
    /// it shall hold nothing that nobody would say again. What cannot be carried over now stays in it until the next time.
    fn carry_over(&self) {
        let carried = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = carried {
            tracing::warn!(file = %self.path.display(), %error, "The store's log could not be carried over");
        }
    }

    fn damaged(&self, message: String) -> StoreError {
        StoreError::Damaged {
            file: self.path.clone(),
            message,
        }
    }
}

/// Makes the tables of a new file; refuses a file of a newer format, and a damaged one.
fn check_format(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |error| failure(path, error);
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    if found > FORMAT {
        return Err(StoreError::Newer {
            file: path.to_owned(),
            found,
            known: FORMAT,
        });
    }
    if found == 0 && is_blank(connection).map_err(failed)? {
        return connection
            .execute_batch(&format!("BEGIN; {SCHEMA} COMMIT;"))
            .map_err(failed);
    }
    let verdict: String = connection
        .pragma_query_value(None, "quick_check", |row| row.get(0))
        .map_err(failed)?;
    let message = match verdict.as_str() {
        "ok" if found == 0 => "it does not say of what format its tables are".to_owned(),
        "ok" => return Ok(()),
        _ => verdict,
    };
    Err(StoreError::Damaged {
        file: path.to_owned(),
        message,
    })
}

/// Whether the file has no tables, as a new one.
fn is_blank(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| {
        row.get(0)
    })
}

fn count(transaction: &Transaction<'_>, version: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE counter SET version = ?1")?
        .execute([version])
        .map(drop)
}

fn failure(path: &Path, source: rusqlite::Error) -> StoreError {
    let file = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreError::Damaged {
            file,
            message: source.to_string(),
        },
        Some(ErrorCode::DiskFull) => StoreError::Full { file },
        _ => StoreError::Database { file, source },
    }
}

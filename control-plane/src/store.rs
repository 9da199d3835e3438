//! The embedded store: SQLite, with every change and its revision in one transaction.
//!
//! Only this module and those below it hold SQL. There is one connection that writes and a few that
//! read; all of them block, so they are used from blocking threads only.

pub(crate) mod accounts;
pub(crate) mod audit;
pub(crate) mod changes;
pub(crate) mod fold;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod links;
pub(crate) mod people;
pub(crate) mod plans;
pub(crate) mod resources;
pub(crate) mod right_usage;
pub(crate) mod sessions;
pub(crate) mod usable_tokens;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use rusqlite_migration::{M, Migrations};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

pub(crate) use accounts::{Account, AccountPatch, NewAccount};
pub(crate) use audit::{AuditEntry, Origin};
pub(crate) use keys::{Key, KeyPatch, KeyState, MintedToken, NewKey};
pub(crate) use people::{Person, Role};
pub(crate) use plans::Plan;

/// The store of one control plane.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    path: PathBuf,
    /// Number of the last change.
    revision: watch::Sender<u64>,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{0}")]
    Conflict(String),
    #[error("{what} `{id}` does not exist")]
    NotFound { what: &'static str, id: String },
    #[error("a field does not fit what is stored")]
    Field { field: &'static str, message: String },
    #[error("the store's file could not be made")]
    File(#[from] std::io::Error),
    #[error("the store failed")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the store's schema could not be brought up to date")]
    Migration(#[from] rusqlite_migration::Error),
    #[error("a stored value could not be read")]
    Json(#[from] serde_json::Error),
    #[error("the ledger could not be kept")]
    LedgerFailed,
    #[error("the ledger is closed")]
    LedgerClosed,
    #[error("a stored subject could not be read: `{0}`")]
    Subject(String),
    #[error("a stored hash has another length than 32 bytes")]
    Hash,
    #[error("the work was abandoned")]
    Abandoned(#[from] tokio::task::JoinError),
}

/// A transaction that makes one change, with its revision.
pub(crate) struct Change<'a> {
    transaction: Transaction<'a>,
    now_ms: i64,
    origin: Origin,
    /// Tokens that filters of a profile have to look at again.
    touched: Vec<(String, Vec<u8>)>,
    /// Accounts whose limits and resources filters have to look at again.
    touched_accounts: Vec<String>,
    /// Plans whose limits are others.
    touched_plans: Vec<String>,
}

impl Store {
    /// Opens the store in a folder, making or updating it.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE_NAME);
        // For the owner only, whatever the folder allows; SQLite's other files take after it.
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let mut writer = Connection::open(&path)?;
        // FULL: a change that was answered is on the disk, whatever happens next.
        writer.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA busy_timeout = 5000;",
        )?;
        fold::register(&writer)?;
        Migrations::new(MIGRATIONS.iter().map(|sql| M::up(sql)).collect())
            .to_latest(&mut writer)?;
        let number = changes::last(&writer)?.number;
        let inner = Inner {
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
            path,
            revision: watch::Sender::new(number),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns a view of the last change's number, which wakes when there is another.
    pub(crate) fn watch_revision(&self) -> watch::Receiver<u64> {
        self.inner.revision.subscribe()
    }

    /// Makes a change: all of it, with its revision and audit entries, or nothing.
    pub(crate) async fn change<T, F>(&self, origin: Origin, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Change<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || {
            let mut writer = inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let now_ms = crate::time::Time::now().as_ms();
            let mut change = Change {
                transaction,
                now_ms,
                origin,
                touched: Vec::new(),
                touched_accounts: Vec::new(),
                touched_plans: Vec::new(),
            };
            let done = work(&mut change)?;
            // What filters need not know wakes none of them.
            let number =
                if change.touches_filters() { Some(changes::append(&change)?) } else { None };
            change.transaction.commit()?;
            if let Some(number) = number {
                inner.revision.send_replace(number);
            }
            Ok(done)
        })
        .await?
    }

    /// Writes what the ledger keeps, which is no change of the records: all of it or nothing. Blocks.
    pub(crate) fn keep_ledger<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// Writes what is no change of the records and not audited: all of it or nothing.
    pub(crate) async fn write<F>(&self, work: F) -> Result<(), StoreError>
    where
        F: FnOnce(&Connection) -> Result<(), StoreError> + Send + 'static,
    {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.keep_ledger(work)).await?
    }

    /// Reads, as of one moment.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || {
            let idle = inner.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut reader = match idle {
                Some(reader) => reader,
                None => open_reader(&inner.path)?,
            };
            let transaction = reader.transaction()?;
            let done = work(&transaction);
            drop(transaction);
            inner.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            done
        })
        .await?
    }
}

impl Change<'_> {
    fn touches_filters(&self) -> bool {
        !(self.touched.is_empty()
            && self.touched_accounts.is_empty()
            && self.touched_plans.is_empty())
    }

    /// Adds an entry to the audit log.
    pub(crate) fn audit(
        &mut self,
        account: Option<&str>,
        action: &str,
        subject: &str,
        details: &serde_json::Value,
    ) -> Result<(), StoreError> {
        audit::append(
            &self.transaction,
            self.now_ms,
            &self.origin,
            account,
            action,
            subject,
            details,
        )
    }
}

fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let reader = Connection::open_with_flags(path, flags)?;
    reader.execute_batch("PRAGMA busy_timeout = 5000;")?;
    fold::register(&reader)?;
    Ok(reader)
}

fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, StoreError> {
    Ok(serde_json::to_string(value)?)
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    Ok(serde_json::from_str(text)?)
}

/// Part of a list: items after a cursor, at most so many.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) after: Option<String>,
    pub(crate) limit: usize,
}

impl Page {
    /// Returns the page with all items.
    pub(crate) const fn everything() -> Self {
        Self { after: None, limit: usize::MAX }
    }

    /// One more than asked for, to know whether there are more.
    fn sql_limit(&self) -> i64 {
        i64::try_from(self.limit.saturating_add(1)).unwrap_or(i64::MAX)
    }
}

/// By what the audit log calls the service itself.
pub(crate) const OWN_NAME: &str = "latchkey";

const FILE_NAME: &str = "latchkey.db";

/// In the order in which they are applied; never edited, only added to.
const MIGRATIONS: [&str; 6] = [
    include_str!("../migrations/0001_records.sql"),
    include_str!("../migrations/0002_usage.sql"),
    include_str!("../migrations/0003_reach.sql"),
    include_str!("../migrations/0004_panel.sql"),
    include_str!("../migrations/0005_usable_tokens.sql"),
    include_str!("../migrations/0007_former_tokens.sql"),
];

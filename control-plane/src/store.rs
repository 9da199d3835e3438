//! The embedded store: SQLite, with every change and its revision in one transaction.
//!
//! Only this module and those below it hold SQL. There is one connection that writes and a few that
//! read; all of them block, so they are used from blocking threads only.

pub(crate) mod accounts;
pub(crate) mod answers;
pub(crate) mod audit;
pub(crate) mod changes;
pub(crate) mod correction;
mod disk;
pub(crate) mod familiar;
pub(crate) mod fold;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod links;
mod opening;
pub(crate) mod people;
pub(crate) mod plans;
pub(crate) mod resources;
pub(crate) mod right_usage;
pub(crate) mod sessions;
pub(crate) mod usable_tokens;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

pub(crate) use accounts::{Account, AccountPatch, NewAccount};
pub(crate) use audit::{AuditEntry, Origin};
pub(crate) use keys::{Key, KeyPatch, KeyState, MintedToken, NewKey};
pub(crate) use people::{Person, Role};
pub(crate) use plans::Plan;

use crate::api::records;
use disk::Disk;
use opening::Opened;

/// The store of one control plane.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Mutex<Opened>,
    /// Held while one waits to write or writes, so that no thread that could read waits for that.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Held to read by those that read beside the writer, and to write while the file is opened anew.
    gate: RwLock<()>,
    readers: Mutex<Vec<Connection>>,
    /// Whether readers can be opened beside the writer.
    is_shared: AtomicBool,
    path: PathBuf,
    disk: Disk,
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
    #[error("the record is not as `If-Match` says; read it again")]
    Outdated,
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
    #[error("the control plane cannot write at the moment; nothing was changed")]
    Unwritable,
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
    /// Opens the store in a folder, making or updating it; where it cannot be written, to read.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE_NAME);
        let opened = opening::open(&path)?;
        let number = changes::last(&opened.connection)?.number;
        let inner = Inner {
            is_shared: AtomicBool::new(opened.is_shared),
            writer: Mutex::new(opened),
            turn: Arc::default(),
            gate: RwLock::new(()),
            readers: Mutex::new(Vec::new()),
            path,
            disk: Disk::of(folder),
            revision: watch::Sender::new(number),
        };
        let store = Self { inner: Arc::new(inner) };
        // Whether it can be written is known from the start.
        let _ = store.keep_ledger(look);
        Ok(store)
    }

    /// Reports whether the last write reached the disk.
    pub(crate) fn is_well(&self) -> bool {
        self.inner.disk.is_well()
    }

    /// Reports whether writes reach the disk; finds out, where none has been made lately.
    pub(crate) async fn is_writable(&self) -> bool {
        if self.inner.disk.is_look_due() {
            return self.write(look).await.is_ok() && self.inner.disk.is_well();
        }
        self.inner.disk.is_well()
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
        let turn = Arc::clone(&self.inner.turn).lock_owned().await;
        let inner = Arc::clone(&self.inner);
        // The turn ends with the work, also where nobody waits for it any more.
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            inner.write(|writer| {
                inner.disk.admit()?;
                inner.transact(writer, origin, work)
            })
        });
        done.await?
    }

    /// Makes a change that takes access away: for that there is room on a full disk, too.
    pub(crate) async fn change_urgently<T, F>(
        &self,
        origin: Origin,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Change<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let turn = Arc::clone(&self.inner.turn).lock_owned().await;
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            inner.write(|writer| {
                let done = inner.transact(writer, origin.clone(), &work);
                match done {
                    Err(error) if disk::is_fault(&error) && inner.disk.give_up_reserve() => {
                        inner.transact(writer, origin, &work)
                    }
                    done => done,
                }
            })
        });
        done.await?
    }

    /// Writes what the ledger keeps, which is no change of the records: all of it or nothing. Blocks.
    pub(crate) fn keep_ledger<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.inner.write(|writer| {
            self.inner.disk.admit()?;
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
    }

    /// Writes what is no change of the records and not audited: all of it or nothing.
    pub(crate) async fn write<F>(&self, work: F) -> Result<(), StoreError>
    where
        F: FnOnce(&Connection) -> Result<(), StoreError> + Send + 'static,
    {
        let turn = Arc::clone(&self.inner.turn).lock_owned().await;
        let store = self.clone();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            store.keep_ledger(work)
        })
        .await?
    }

    /// Reads, as of one moment.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || {
            if !inner.is_shared.load(Ordering::Relaxed) {
                let mut only = inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
                let transaction = only.connection.transaction()?;
                return work(&transaction);
            }
            let _open = inner.gate.read().unwrap_or_else(PoisonError::into_inner);
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

impl Inner {
    /// Writes, and takes note of whether that reached the disk.
    fn write<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.disk.is_opening_due() && !writer.is_writable {
            self.open_again(&mut writer);
        }
        let before = writer.connection.total_changes();
        let done = work(&mut writer.connection);
        let has_written = writer.connection.total_changes() > before;
        let done = self.disk.note(done, has_written);
        if has_written && !writer.is_shared && self.disk.is_well() {
            // There is room for all that belongs to it again.
            self.open_again(&mut writer);
        }
        done
    }

    /// Opens the file anew where it could only be read, or by one connection: a connection stays as it was
    /// opened.
    fn open_again(&self, writer: &mut Opened) {
        // Connections of one process share what they may do, so all of them go first.
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let Ok(none) = Connection::open_in_memory() else {
            return;
        };
        let before = std::mem::replace(&mut writer.connection, none);
        // A copy is kept until there is better: it takes room to make another.
        let is_copy = !writer.is_shared && !writer.is_writable;
        let (before, opened) = if is_copy {
            (Some(before), opening::open_to_write(&self.path).and_then(written))
        } else {
            drop(before);
            (None, opening::open(&self.path))
        };
        match (opened, before) {
            (Ok(opened), _) => {
                self.is_shared.store(opened.is_shared, Ordering::Relaxed);
                *writer = opened;
            }
            (Err(_), Some(before)) => writer.connection = before,
            (Err(error), None) => {
                tracing::error!(%error, "the store cannot be opened again");
                writer.is_writable = false;
            }
        }
    }

    fn transact<T>(
        &self,
        writer: &mut Connection,
        origin: Origin,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
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
        if let Some(once) = change.origin.once {
            answers::note(&change, &once)?;
        }
        let done = work(&mut change)?;
        // What filters need not know wakes none of them.
        let number = if change.touches_filters() { Some(changes::append(&change)?) } else { None };
        change.transaction.commit()?;
        if let Some(number) = number {
            self.revision.send_replace(number);
        }
        Ok(done)
    }
}

/// Returns what was opened if it can be written.
fn written(opened: Opened) -> Result<Opened, StoreError> {
    if opened.is_writable { Ok(opened) } else { Err(StoreError::Unwritable) }
}

/// Writes something, to see whether that can be.
fn look(connection: &Connection) -> Result<(), StoreError> {
    connection.execute("UPDATE looks SET number = number + 1", [])?;
    Ok(())
}

impl Change<'_> {
    fn touches_filters(&self) -> bool {
        !(self.touched.is_empty()
            && self.touched_accounts.is_empty()
            && self.touched_plans.is_empty())
    }

    /// Refuses the change if the record is not as who makes it has seen it.
    fn expect<T: Serialize>(&self, before: &T) -> Result<(), StoreError> {
        match &self.origin.expected {
            Some(tags) if tags.iter().all(|tag| tag != "*" && *tag != records::tag(before)) => {
                Err(StoreError::Outdated)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Does the same where the record may be absent: then it is not as anyone has seen it.
    fn expect_any<T: Serialize>(&self, before: Option<&T>) -> Result<(), StoreError> {
        match before {
            Some(before) => self.expect(before),
            None if self.origin.expected.is_some() => Err(StoreError::Outdated),
            None => Ok(()),
        }
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
    // The system keeps what is read often; here, each thread that reads would have its own.
    reader.execute_batch("PRAGMA busy_timeout = 5000; PRAGMA cache_size = -512;")?;
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
const MIGRATIONS: [&str; 7] = [
    include_str!("../migrations/0001_records.sql"),
    include_str!("../migrations/0002_usage.sql"),
    include_str!("../migrations/0003_reach.sql"),
    include_str!("../migrations/0004_panel.sql"),
    include_str!("../migrations/0005_usable_tokens.sql"),
    include_str!("../migrations/0006_operations.sql"),
    include_str!("../migrations/0007_former_tokens.sql"),
];

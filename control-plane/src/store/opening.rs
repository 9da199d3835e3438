//! Opening the store's file, also where it cannot be written.

use std::fs::OpenOptions;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};

use super::disk::{is_fault, is_read_only};
use super::{MIGRATIONS, StoreError, fold};

/// The store's file, opened.
pub(super) struct Opened {
    /// The connection that writes, if anything can.
    pub(super) connection: Connection,
    /// Whether others can be opened beside it, to read.
    pub(super) is_shared: bool,
    /// Whether it writes once the disk lets it.
    pub(super) is_writable: bool,
}

/// Opens the file, making or updating it. Where that cannot be, it is opened to read, with all that was
/// committed.
///
/// # Errors
///
/// If it can be neither written nor read as it has to be.
pub(super) fn open(path: &Path) -> Result<Opened, StoreError> {
    let failed = match open_to_write(path) {
        Ok(opened) => return Ok(opened),
        Err(error) if is_fault(&error) || matches!(error, StoreError::File(_)) => error,
        Err(error) => return Err(error),
    };
    type Open = fn(&Path) -> Result<Connection, StoreError>;
    let others: [(Open, bool); 3] =
        [(open_alone, true), (open_unchanging, false), (open_copy, false)];
    for (open, is_writable) in others {
        if let Ok(connection) = open(path)
            && is_current(&connection)
        {
            return Ok(Opened { connection, is_shared: false, is_writable });
        }
    }
    // What the first attempt met says most.
    Err(failed)
}

/// Opens the file as it should be, making or updating it.
pub(super) fn open_to_write(path: &Path) -> Result<Opened, StoreError> {
    // For the owner only, whatever the folder allows; SQLite's other files take after it.
    if !path.exists() {
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    }
    let mut connection = Connection::open(path)?;
    set_up(&connection)?;
    if !is_current(&connection) {
        let migrations = Migrations::new(MIGRATIONS.iter().map(|sql| M::up(sql)).collect());
        migrations.to_latest(&mut connection)?;
    }
    // What the file allows is not all: its index may be open to others of this process for reading only.
    let is_writable = !super::look(&connection).is_err_and(|error| is_read_only(&error));
    Ok(Opened { connection, is_shared: true, is_writable })
}

/// Opens it for one connection, which keeps the index of the write-ahead log in memory: where there is room
/// for nothing else.
fn open_alone(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE;")?;
    set_up(&connection)?;
    Ok(connection)
}

/// Opens it where nothing may be written at all, and nothing is left to be taken in.
fn open_unchanging(path: &Path) -> Result<Connection, StoreError> {
    if std::fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0) {
        return Err(StoreError::Unwritable);
    }
    let uri = format!("file:{}?mode=ro&immutable=1", escaped(path));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri, flags)?;
    fold::register(&connection)?;
    Ok(connection)
}

/// Opens a copy where there is room for one, with what is in the write-ahead log: without it, a key that was
/// revoked last would work again.
fn open_copy(path: &Path) -> Result<Connection, StoreError> {
    let name = format!("latchkey-{}-{}", std::process::id(), crate::token::new_id(""));
    let folder = std::env::temp_dir().join(name);
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let copy = folder.join(path.file_name().unwrap_or_default());
    let opened = (|| {
        std::fs::copy(path, &copy)?;
        std::fs::copy(log_of(path), log_of(&copy))?;
        let connection = Connection::open(&copy)?;
        connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE;")?;
        let _: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
        connection.execute_batch("PRAGMA query_only = ON;")?;
        fold::register(&connection)?;
        Ok(connection)
    })();
    // The files go when the connection does.
    let _ = std::fs::remove_dir_all(&folder);
    opened
}

fn set_up(connection: &Connection) -> Result<(), StoreError> {
    // FULL: a change that was answered is on the disk, whatever happens next.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA busy_timeout = 5000;",
    )?;
    Ok(fold::register(connection)?)
}

/// Reports whether the file can be read and has the schema of this version.
fn is_current(connection: &Connection) -> bool {
    let version: rusqlite::Result<u32> =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0));
    version.is_ok_and(|version| usize::try_from(version).is_ok_and(|it| it == MIGRATIONS.len()))
}

fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// Returns a path as it stands in a URI (RFC 3986, section 2.1).
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(*byte));
            }
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

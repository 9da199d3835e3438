//! Whether what is written reaches the disk, and what is held back for when it is full.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;

use super::StoreError;

/// What is known of the disk under the store.
#[derive(Debug)]
pub(super) struct Disk {
    /// A file that is removed when the disk is full, so that revocations have room.
    reserve: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the last write failed.
    is_failing: bool,
    /// Whether the reserve is there.
    is_reserved: bool,
    /// When a write last succeeded.
    written_at: Option<Instant>,
    /// When it was last looked whether writes reach the disk.
    looked_at: Option<Instant>,
    /// When it was last tried to take the reserve, and to open the file anew.
    reserved_at: Option<Instant>,
    opened_at: Option<Instant>,
}

impl Disk {
    /// Takes the reserve, if there is room for it.
    pub(super) fn of(folder: &Path) -> Self {
        let reserve = folder.join(RESERVE_NAME);
        let is_reserved = take_reserve(&reserve);
        let state = State { is_reserved, ..State::default() };
        Self { reserve, state: Mutex::new(state) }
    }

    /// Reports whether the last write reached the disk.
    pub(super) fn is_well(&self) -> bool {
        !self.state().is_failing
    }

    /// Reports whether it is time to look whether writes reach the disk: where none did lately.
    pub(super) fn is_look_due(&self) -> bool {
        let mut state = self.state();
        if state.is_failing {
            return is_due(&mut state.looked_at);
        }
        state.written_at.is_none_or(|written_at| written_at.elapsed() >= LOOK_EVERY)
    }

    /// Reports whether it is time to open the file anew.
    pub(super) fn is_opening_due(&self) -> bool {
        let mut state = self.state();
        state.is_failing && is_due(&mut state.opened_at)
    }

    /// Lets what is not urgent write, unless the reserve is in use: then nothing else may take its room.
    ///
    /// # Errors
    ///
    /// That the store cannot be written.
    pub(super) fn admit(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.is_reserved || !state.is_failing {
            return Ok(());
        }
        if is_due(&mut state.reserved_at) {
            state.is_reserved = take_reserve(&self.reserve);
        }
        if state.is_reserved { Ok(()) } else { Err(StoreError::Unwritable) }
    }

    /// Gives up the reserve; reports whether there was one.
    pub(super) fn give_up_reserve(&self) -> bool {
        let mut state = self.state();
        let is_given_up = state.is_reserved && std::fs::remove_file(&self.reserve).is_ok();
        if is_given_up {
            state.is_reserved = false;
            // The rest of it is not for what is not urgent.
            state.is_failing = true;
            tracing::warn!("the reserve is used, so that what takes access away can be kept");
        }
        is_given_up
    }

    /// Takes note of how a write ended. Returns the error that callers are told.
    ///
    /// One that had nothing to write says nothing of the disk.
    pub(super) fn note<T>(
        &self,
        done: Result<T, StoreError>,
        has_written: bool,
    ) -> Result<T, StoreError> {
        let mut state = self.state();
        match done {
            Err(error) if is_fault(&error) => {
                if !std::mem::replace(&mut state.is_failing, true) {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(
                        cause,
                        "the store cannot be written; proxies go on with the keys that there are, and \
                         nothing can be changed or leased until it can"
                    );
                }
                Err(StoreError::Unwritable)
            }
            Ok(done) if has_written => {
                state.written_at = Some(Instant::now());
                // What passed by the reserve says nothing of the rest.
                if state.is_failing && state.is_reserved {
                    state.is_failing = false;
                    tracing::info!("the store can be written again");
                } else if !state.is_failing && !state.is_reserved && is_due(&mut state.reserved_at)
                {
                    state.is_reserved = take_reserve(&self.reserve);
                }
                Ok(done)
            }
            done => done,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports whether something is due that was last done at a moment, and takes note that it is done.
fn is_due(last: &mut Option<Instant>) -> bool {
    let is_due = last.is_none_or(|last| last.elapsed() >= TRY_EVERY);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}

/// Reports whether an error says that the disk takes no more, not that what was asked for is wrong.
pub(super) fn is_fault(error: &StoreError) -> bool {
    let StoreError::Sqlite(error) = error else {
        return false;
    };
    match error.sqlite_error_code() {
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::DiskFull
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure,
        ) => true,
        Some(_) | None => false,
    }
}

/// Reports whether an error says that nothing may be written at all.
pub(super) fn is_read_only(error: &StoreError) -> bool {
    matches!(error, StoreError::Sqlite(error)
        if error.sqlite_error_code() == Some(ErrorCode::ReadOnly))
}

/// Makes the reserve, all of it or nothing; reports whether it is there.
fn take_reserve(path: &Path) -> bool {
    if std::fs::metadata(path).is_ok_and(|known| known.len() == RESERVE_BYTES) {
        return true;
    }
    let written = (|| {
        let mut options = OpenOptions::new();
        let mut file: File =
            options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        // Not zeros, which some file systems keep no blocks for.
        let block: Vec<u8> = (0..RESERVE_BLOCK).map(|byte| byte.to_le_bytes()[0] ^ 0x5a).collect();
        for _ in 0..RESERVE_BYTES / RESERVE_BLOCK {
            file.write_all(&block)?;
        }
        file.sync_all()
    })();
    if written.is_err() {
        // What there is of it would be missed by others.
        let _ = std::fs::remove_file(path);
    }
    written.is_ok()
}

const RESERVE_NAME: &str = "reserve";

/// Room for some dozen revocations.
const RESERVE_BYTES: u64 = 1 << 20;
const RESERVE_BLOCK: u64 = 1 << 16;

/// How often it is tried whether a disk that failed takes writes again.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// How long a write that succeeded says that the next one would.
const LOOK_EVERY: Duration = Duration::from_secs(5);

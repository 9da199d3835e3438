//! Recalls: asking filters for leases that they have not spent, through the polls that they hold open.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use latchkey_protocol::Subject;
use tokio::sync::Notify;

/// What each holder is asked for, until it is told.
#[derive(Debug, Default)]
pub(crate) struct Recalls(Mutex<HashMap<String, Board>>);

#[derive(Debug)]
struct Board {
    subjects: BTreeSet<Subject>,
    notify: Arc<Notify>,
    polled_at: Instant,
}

impl Recalls {
    /// Asks a holder for what it has of a subject. One that does not poll is not asked: what it holds
    /// ends soon by itself.
    pub(super) fn ask(&self, holder: &str, subject: Subject) {
        let mut boards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(board) = boards.get_mut(holder) {
            board.subjects.insert(subject);
            board.notify.notify_one();
        }
    }

    /// Returns what tells the holder's poll that it is asked for something.
    pub(super) fn watch(&self, holder: &str) -> Arc<Notify> {
        let mut boards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if boards.len() >= CROWD {
            boards.retain(|_, board| board.polled_at.elapsed() < GONE);
        }
        let board = boards.entry(holder.to_owned()).or_insert_with(|| Board {
            subjects: BTreeSet::new(),
            notify: Arc::default(),
            polled_at: Instant::now(),
        });
        board.polled_at = Instant::now();
        Arc::clone(&board.notify)
    }

    /// Returns what the holder is asked for, and forgets it.
    pub(super) fn take(&self, holder: &str) -> Vec<Subject> {
        let mut boards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let subjects = boards.get_mut(holder).map(|board| std::mem::take(&mut board.subjects));
        subjects.unwrap_or_default().into_iter().collect()
    }
}

/// Holders from which on those that are gone are looked for.
const CROWD: usize = 1_000;

/// Time without a poll after which a holder is gone: longer than a poll lasts.
const GONE: Duration = Duration::from_secs(60);

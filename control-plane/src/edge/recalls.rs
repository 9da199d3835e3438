//! Recalls: asking filters for leases that they have not spent, through the polls that they hold open.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use latchkey_protocol::{Recall, Subject};
use tokio::sync::Notify;

use super::updates::Holder;

/// What each holder is asked for, until it is told.
#[derive(Debug, Default)]
pub(crate) struct Recalls(Mutex<HashMap<String, Board>>);

#[derive(Debug)]
struct Board {
    subjects: BTreeSet<Subject>,
    /// Wakes the poll of the holder's proxy.
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

    /// Returns what tells a poll that one of its holders is asked for something.
    pub(super) fn watch(&self, holders: &[Holder]) -> Arc<Notify> {
        let mut boards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if boards.len() >= CROWD {
            boards.retain(|_, board| board.polled_at.elapsed() < GONE);
        }
        let (notify, polled_at) = (Arc::new(Notify::new()), Instant::now());
        for Holder { name, .. } in holders {
            let notify = Arc::clone(&notify);
            match boards.get_mut(name) {
                Some(board) => (board.notify, board.polled_at) = (notify, polled_at),
                None => {
                    let subjects = BTreeSet::new();
                    boards.insert(name.clone(), Board { subjects, notify, polled_at });
                }
            }
        }
        notify
    }

    /// Returns what the holders are asked for, and forgets it.
    pub(super) fn take(&self, holders: &[Holder]) -> Vec<Recall> {
        let mut boards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut recalls = Vec::new();
        for Holder { worker, name } in holders {
            let subjects = boards.get_mut(name).map(|board| std::mem::take(&mut board.subjects));
            recalls.extend(
                subjects
                    .into_iter()
                    .flatten()
                    .map(|subject| Recall { worker: worker.clone(), subject }),
            );
        }
        recalls
    }
}

/// Holders from which on those that are gone are looked for.
const CROWD: usize = 1_000;

/// Time without a poll after which a holder is gone: longer than a poll lasts.
const GONE: Duration = Duration::from_secs(60);

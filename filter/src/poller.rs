//! When to ask the control plane, and what to do with its answers: a state machine, no I/O.

use latchkey_protocol::poll::{MAX_WAIT_MS, Poll};
use latchkey_protocol::{Revision, Subject, Update};

use crate::backoff::Backoff;
use crate::replica::{Replica, UpdateError};

/// Keeps a replica up to date, one poll at a time.
#[derive(Debug)]
pub struct Poller {
    profile: String,
    instance: String,
    worker: String,
    replica: Option<Replica>,
    /// The snapshot that is being taken in, and the page that comes next.
    assembling: Option<(Replica, u32)>,
    /// A snapshot that is in whole, but may be a few seconds old: it is not used before it has been
    /// brought up to date.
    catching_up: Option<Replica>,
    /// Whether the replica fits no delta any more; it goes on answering until a snapshot is in.
    needs_snapshot: bool,
    state: State,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A poll is due once the clock has gone on `wait_ms` from `since_ms`.
    Idle { since_ms: u64, wait_ms: u64 },
    /// A poll is under way since then.
    InFlight { since_ms: u64 },
}

/// What an answer brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A page of a snapshot, which is not in use yet.
    Page,
    /// Everything up to a revision.
    Applied(Revision),
    /// Subjects whose unspent leases are to be given back.
    Recalled(Vec<Subject>),
}

/// Why an answer was of no use.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It could not be read.
    #[error("the update is not readable: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// It did not fit; a snapshot is asked for next.
    #[error(transparent)]
    Update(#[from] UpdateError),
}

impl Poller {
    /// Returns a poller with nothing yet, whose first poll is due at once.
    #[must_use]
    pub fn new(profile: &str, instance: &str, worker: &str) -> Self {
        Self {
            profile: profile.to_owned(),
            instance: instance.to_owned(),
            worker: worker.to_owned(),
            replica: None,
            assembling: None,
            catching_up: None,
            needs_snapshot: false,
            state: State::Idle { since_ms: 0, wait_ms: 0 },
            backoff: Backoff::new(worker),
        }
    }

    /// Returns what is known, once a whole snapshot is in and up to date.
    #[must_use]
    pub fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }

    /// Returns the poll to make now, if one is due.
    ///
    /// The clock may step: a time before the last one counts as due, so that a step back delays
    /// nothing.
    pub fn poll(&mut self, now_ms: u64) -> Option<Poll> {
        let (since_ms, wait_ms) = match self.state {
            State::Idle { since_ms, wait_ms } => (since_ms, wait_ms),
            State::InFlight { since_ms } => (since_ms, CALL_TIMEOUT_MS + LOST_AFTER_MS),
        };
        if now_ms >= since_ms && now_ms - since_ms < wait_ms {
            return None;
        }
        self.state = State::InFlight { since_ms: now_ms };
        let mut poll = Poll {
            profile: self.profile.clone(),
            instance: self.instance.clone(),
            worker: self.worker.clone(),
            after: None,
            snapshot: None,
            page: 0,
            wait_ms: MAX_WAIT_MS,
        };
        if let Some((assembling, page)) = &self.assembling {
            poll.snapshot = Some(assembling.revision());
            poll.page = *page;
        } else if let Some(replica) = &self.catching_up {
            poll.after = Some(replica.revision());
            poll.wait_ms = 0;
        } else if let Some(replica) = &self.replica
            && !self.needs_snapshot
        {
            poll.after = Some(replica.revision());
        }
        Some(poll)
    }

    /// Takes in an answer with an update.
    ///
    /// # Errors
    ///
    /// An [`AnswerError`]; what is known stays as it was, and a snapshot is asked for next.
    pub fn on_update(&mut self, now_ms: u64, body: &[u8]) -> Result<Progress, AnswerError> {
        let taken = serde_json::from_slice(body)
            .map_err(AnswerError::from)
            .and_then(|update| self.take(update).map_err(AnswerError::from));
        match taken {
            Ok(progress) => {
                self.backoff.reset();
                self.state = State::Idle { since_ms: now_ms, wait_ms: 0 };
                Ok(progress)
            }
            Err(error) => {
                self.assembling = None;
                if let AnswerError::Update(UpdateError::Gap { .. }) = &error {
                    self.catching_up = None;
                    self.needs_snapshot = true;
                }
                self.on_failure(now_ms);
                Err(error)
            }
        }
    }

    /// Takes in the answer that nothing changed. Returns the revision of a snapshot that is up to
    /// date with that.
    pub fn on_nothing_new(&mut self, now_ms: u64) -> Option<Revision> {
        self.backoff.reset();
        self.state = State::Idle { since_ms: now_ms, wait_ms: 0 };
        let replica = self.catching_up.take()?;
        Some(self.put_into_use(replica))
    }

    /// Takes in that there was no answer, or none of use: the next poll waits a little longer with
    /// each failure, up to a bound.
    pub fn on_failure(&mut self, now_ms: u64) {
        self.state = State::Idle { since_ms: now_ms, wait_ms: self.backoff.fail() };
    }

    /// Lets a snapshot that is being taken in start over: the control plane refused to go on with it.
    pub fn start_over(&mut self) {
        self.assembling = None;
    }

    /// Forgets the poll that is under way: its answer will not come.
    pub fn abandon(&mut self) {
        self.state = State::Idle { since_ms: 0, wait_ms: 0 };
    }

    fn take(&mut self, update: Update) -> Result<Progress, UpdateError> {
        if !update.recalls.is_empty() {
            return Ok(Progress::Recalled(update.recalls));
        }
        if let Some(base) = update.base {
            let revision = update.revision;
            if let Some(mut replica) = self.catching_up.take() {
                replica.apply_delta(base, update)?;
                return Ok(Progress::Applied(self.put_into_use(replica)));
            }
            let Some(replica) = &mut self.replica else {
                return Err(UpdateError::Gap { base, held: revision });
            };
            // Two plugin configurations may have asked at once; the second answer brings nothing.
            if replica.revision() != revision {
                replica.apply_delta(base, update)?;
            }
            return Ok(Progress::Applied(revision));
        }

        let (mut assembling, expected) = match self.assembling.take() {
            Some((replica, page)) if replica.revision() == update.revision => (replica, page),
            Some(_) | None => (Replica::empty(update.revision), 0),
        };
        if update.page != expected {
            return Err(UpdateError::Page { found: update.page, expected });
        }
        let pages = update.pages;
        assembling.add(update)?;
        let next = expected.saturating_add(1);
        if next < pages {
            self.assembling = Some((assembling, next));
        } else {
            self.catching_up = Some(assembling);
        }
        Ok(Progress::Page)
    }

    fn put_into_use(&mut self, replica: Replica) -> Revision {
        let revision = replica.revision();
        self.replica = Some(replica);
        self.needs_snapshot = false;
        revision
    }
}

/// Longest time that a poll may take, in milliseconds: the control plane's longest wait and room
/// for a slow page.
pub const CALL_TIMEOUT_MS: u64 = MAX_WAIT_MS + 10_000;

/// How long after its time-out a call counts as lost, in milliseconds: Envoy drops calls without a
/// word when it replaces a plugin.
const LOST_AFTER_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn update(base: Option<u64>, revision: u64, page: u32, pages: u32) -> String {
        let base = base.map_or(String::new(), |base| format!(r#""base":"{base}-1","#));
        let hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        format!(
            r#"{{"revision":"{revision}-1",{base}"page":{page},"pages":{pages},"accounts":["a"],
            "right_sets":[[]],"tokens":{{"hashes":"{hash}","keys":["k"],"kinds":["user_defined"],
            "accounts":[0],"right_sets":[0],"expires_at_ms":[0],"network_sets":[0]}}}}"#
        )
    }

    fn take(poller: &mut Poller, json: &str) -> Result<Progress, AnswerError> {
        poller.on_update(0, json.as_bytes())
    }

    /// Takes in a snapshot of one page, and that nothing has changed since.
    fn take_snapshot(poller: &mut Poller, revision: u64) {
        take(poller, &update(None, revision, 0, 1)).unwrap();
        assert_eq!(poller.on_nothing_new(0).map(|revision| revision.number), Some(revision));
    }

    fn held(poller: &Poller) -> Option<u64> {
        poller.replica().map(|replica| replica.revision().number)
    }

    #[test]
    fn revision_advances_only_when_all_pages_are_in() {
        let mut poller = Poller::new("p", "i", "w");
        assert_eq!(poller.poll(0).unwrap().after, None);
        assert_eq!(take(&mut poller, &update(None, 5, 0, 3)).unwrap(), Progress::Page);
        let next = poller.poll(0).unwrap();
        assert_eq!((next.snapshot.map(|r| r.number), next.page), (Some(5), 1));
        take(&mut poller, &update(None, 5, 1, 3)).unwrap();
        assert_eq!(held(&poller), None);
        take(&mut poller, &update(None, 5, 2, 3)).unwrap();
        assert_eq!(held(&poller), None);
        poller.on_nothing_new(0);
        assert_eq!(held(&poller), Some(5));
        assert_eq!(poller.poll(0).unwrap().after.map(|r| r.number), Some(5));
    }

    /// A gateway that had just started used to refuse a key that was made a moment before.
    #[test]
    fn snapshot_is_not_used_before_it_is_up_to_date() {
        let mut poller = Poller::new("p", "i", "w");
        take(&mut poller, &update(None, 5, 0, 1)).unwrap();
        assert_eq!(held(&poller), None);
        let next = poller.poll(0).unwrap();
        assert_eq!((next.after.map(|r| r.number), next.wait_ms), (Some(5), 0));
        take(&mut poller, &update(Some(5), 8, 0, 1)).unwrap();
        assert_eq!(held(&poller), Some(8));
        assert_eq!(poller.poll(0).unwrap().wait_ms, MAX_WAIT_MS);
    }

    #[test]
    fn page_out_of_order_starts_the_snapshot_over() {
        let mut poller = Poller::new("p", "i", "w");
        take(&mut poller, &update(None, 5, 0, 3)).unwrap();
        assert!(take(&mut poller, &update(None, 5, 2, 3)).is_err());
        let next = poller.poll(1_000).unwrap();
        assert_eq!((next.snapshot, next.after), (None, None));
        assert!(take(&mut poller, &update(None, 6, 1, 2)).is_err());
        take_snapshot(&mut poller, 7);
        assert_eq!(held(&poller), Some(7));
    }

    #[test]
    fn gap_asks_for_a_snapshot_and_keeps_what_is_known() {
        let mut poller = Poller::new("p", "i", "w");
        assert!(take(&mut poller, &update(Some(1), 2, 0, 1)).is_err());
        take_snapshot(&mut poller, 5);
        take(&mut poller, &update(Some(5), 6, 0, 1)).unwrap();
        assert!(take(&mut poller, &update(Some(8), 9, 0, 1)).is_err());
        assert_eq!(poller.replica().map(Replica::len), Some(1));
        let next = poller.poll(1_000).unwrap();
        assert_eq!((next.after, next.snapshot), (None, None));
        take(&mut poller, &update(None, 9, 0, 1)).unwrap();
        assert_eq!(held(&poller), Some(6), "the old one answers until the new one is up to date");
        poller.on_nothing_new(1_000);
        assert_eq!(held(&poller), Some(9));
    }

    /// Two gateways with the same keys used to ask for a snapshot after each change.
    #[test]
    fn same_delta_twice_is_no_gap() {
        let mut poller = Poller::new("p", "i", "w");
        take_snapshot(&mut poller, 5);
        take(&mut poller, &update(Some(5), 6, 0, 1)).unwrap();
        take(&mut poller, &update(Some(5), 6, 0, 1)).unwrap();
        assert_eq!(poller.poll(0).unwrap().after.map(|r| r.number), Some(6));
    }

    #[test]
    fn recall_changes_no_key() {
        let mut poller = Poller::new("p", "i", "w");
        take_snapshot(&mut poller, 5);
        let acme = Subject::Account { account: "acme".into(), identity: None };
        let held_now = poller.replica().unwrap().revision();
        let recall = serde_json::to_string(&Update::recall(held_now, vec![acme.clone()])).unwrap();
        assert_eq!(take(&mut poller, &recall).unwrap(), Progress::Recalled(vec![acme]));
        assert_eq!((held(&poller), poller.replica().map(Replica::len)), (Some(5), Some(1)));
    }

    #[test]
    fn unreadable_answer_changes_nothing() {
        let mut poller = Poller::new("p", "i", "w");
        take_snapshot(&mut poller, 5);
        for body in ["", "{", "null", "{}", "\u{0}"] {
            assert!(take(&mut poller, body).is_err(), "{body}");
            assert_eq!(held(&poller), Some(5));
        }
        assert_eq!(poller.poll(10_000).unwrap().after.map(|r| r.number), Some(5));
    }

    /// A control plane that was restarted used to be asked for a page that it did not have, for ever.
    #[test]
    fn refused_page_starts_the_snapshot_over() {
        let mut poller = Poller::new("p", "i", "w");
        take(&mut poller, &update(None, 5, 0, 3)).unwrap();
        poller.start_over();
        poller.on_failure(0);
        assert_eq!(poller.poll(1_000).unwrap().snapshot, None);
    }

    #[test]
    fn failures_are_retried_within_a_second() {
        let mut poller = Poller::new("p", "i", "w");
        let mut now = 1_000_000;
        for _ in 0..50 {
            assert!(poller.poll(now).is_some());
            assert!(poller.poll(now).is_none(), "one poll at a time");
            poller.on_failure(now);
            assert!(poller.poll(now).is_none(), "not at once");
            now += 1_000;
        }
    }

    /// A clock that steps back used to be able to silence a poller for as long as the step.
    #[test]
    fn clock_that_steps_back_delays_nothing() {
        let mut poller = Poller::new("p", "i", "w");
        assert!(poller.poll(1_000_000).is_some());
        poller.on_failure(1_000_000);
        assert!(poller.poll(5).is_some());
    }

    #[test]
    fn call_whose_answer_never_comes_is_made_again() {
        let mut poller = Poller::new("p", "i", "w");
        assert!(poller.poll(1).is_some());
        assert!(poller.poll(CALL_TIMEOUT_MS).is_none());
        assert!(poller.poll(CALL_TIMEOUT_MS + LOST_AFTER_MS + 1).is_some());
        poller.abandon();
        assert!(poller.poll(CALL_TIMEOUT_MS + LOST_AFTER_MS + 2).is_some());
    }
}

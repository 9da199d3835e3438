//! When to ask the control plane, and what to do with its answers: a state machine, no I/O.

use std::rc::Rc;

use latchkey_protocol::poll::{MAX_WAIT_MS, Poll};
use latchkey_protocol::{Recall, Revision, Update};

use crate::backoff::Backoff;
use crate::publisher::{Publisher, UpdateError, WorkError};
use crate::shared::{Names, SharedData};

/// Keeps what the VMs of a proxy share up to date, one poll at a time. One VM of them does.
#[derive(Debug)]
pub struct Poller {
    profile: String,
    instance: String,
    group: String,
    publisher: Publisher,
    stage: Stage,
    state: State,
    /// Number of polls so far.
    polls: u64,
    /// What the poll under way says of the VMs.
    told: Standing,
    /// When something was put into use last.
    published_at_ms: u64,
    backoff: Backoff,
}

/// The VMs that use what is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Their names.
    pub workers: Vec<String>,
    /// What all of them have applied, at least.
    pub applied: Option<Revision>,
}

/// How far this proxy is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// What is in use fits no delta, or nothing is in use: a snapshot is asked for.
    Anew,
    /// A snapshot is being taken in, and its next page is at this cursor.
    TakingIn { cursor: String },
    /// A snapshot is in whole, but what has changed meanwhile is not: it is not used before.
    CatchingUp,
    /// All changes are in up to the snapshot's use.
    Ready,
    /// What is in use is kept up to date.
    Following,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A poll is due once the clock has gone on `wait_ms` from `since_ms`.
    Idle { since_ms: u64, wait_ms: u64 },
    /// A poll of this number is under way since then.
    InFlight { number: u64, since_ms: u64 },
}

/// A poll to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Tells its answer from those to others.
    pub number: u64,
    /// What to ask.
    pub poll: Poll,
}

/// What an answer brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something that is known already.
    Nothing,
    /// Something to bring into the pages, slice by slice ([`Poller::work`]).
    Work,
    /// Workers are to give back what is unspent of their leases.
    Recalled(Vec<Recall>),
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
    /// Returns a poller whose first poll is due at once.
    #[must_use]
    pub fn new(profile: &str, instance: &str, data: Rc<dyn SharedData>, names: Names) -> Self {
        let group = names.group().to_owned();
        let mut poller = Self {
            profile: profile.to_owned(),
            instance: instance.to_owned(),
            backoff: Backoff::new(instance),
            group,
            publisher: Publisher::new(data, names),
            stage: Stage::Anew,
            state: State::Idle { since_ms: 0, wait_ms: 0 },
            polls: 0,
            told: Standing::default(),
            published_at_ms: 0,
        };
        poller.start_over(0);
        poller
    }

    /// Goes on from what is in use: this VM leads from now on, in a term of this number.
    pub fn start_over(&mut self, term: u32) {
        self.publisher.start_over(term);
        self.stage = match self.publisher.in_use() {
            Some(_) => Stage::Following,
            None => Stage::Anew,
        };
        self.state = State::Idle { since_ms: 0, wait_ms: 0 };
    }

    /// Returns the poll to make now, if one is due.
    ///
    /// One that is under way is made anew when what it says of the VMs is no longer so; the control plane
    /// then ends the one before. The clock may step: a time before the last one counts as due, so that a
    /// step back delays nothing.
    pub fn poll(&mut self, now_ms: u64, standing: &Standing) -> Option<Attempt> {
        let is_within = |since_ms: u64, ms: u64| now_ms >= since_ms && now_ms - since_ms < ms;
        let must_wait = match self.state {
            State::Idle { since_ms, wait_ms } => is_within(since_ms, wait_ms),
            State::InFlight { since_ms, .. } => {
                let is_told = self.stage != Stage::Following || self.told == *standing;
                let wait_ms = if is_told { CALL_TIMEOUT_MS + LOST_AFTER_MS } else { RETELL_MS };
                is_within(since_ms, wait_ms)
            }
        };
        if must_wait || self.publisher.is_busy() {
            return None;
        }
        let in_use = self.publisher.in_use();
        let lags = self.stage == Stage::Following && standing.applied != in_use;
        if lags && is_within(self.published_at_ms, LAG_MS) {
            return None;
        }
        self.polls += 1;
        self.state = State::InFlight { number: self.polls, since_ms: now_ms };
        self.told.clone_from(standing);
        let mut poll = Poll {
            profile: self.profile.clone(),
            instance: self.instance.clone(),
            worker: self.group.clone(),
            workers: Some(standing.workers.join(",")),
            after: None,
            applied: Some(standing.applied.map(|held| held.to_string()).unwrap_or_default()),
            snapshot: None,
            cursor: None,
            wait_ms: 0,
        };
        match &self.stage {
            Stage::Anew => {}
            Stage::TakingIn { cursor } => {
                poll.snapshot = self.publisher.draft();
                poll.cursor = Some(cursor.clone());
            }
            Stage::CatchingUp | Stage::Ready => poll.after = self.publisher.draft(),
            Stage::Following => {
                poll.after = in_use;
                poll.applied.take_if(|_| !lags);
                poll.wait_ms = MAX_WAIT_MS;
            }
        }
        Some(Attempt { number: self.polls, poll })
    }

    /// Reports whether the poll of a number is under way. The answer to any other is of no use: it was
    /// given up, or made anew.
    #[must_use]
    pub fn is_under_way(&self, number: u64) -> bool {
        matches!(self.state, State::InFlight { number: current, .. } if current == number)
    }

    /// Reports whether a snapshot is being taken in.
    #[must_use]
    pub fn is_taking_in(&self) -> bool {
        self.publisher.draft().is_some()
    }

    /// Takes in an answer with an update.
    ///
    /// # Errors
    ///
    /// An [`AnswerError`]; what is in use stays as it was, and a snapshot is asked for next where the
    /// update does not fit.
    pub fn on_update(&mut self, now_ms: u64, body: &[u8]) -> Result<Progress, AnswerError> {
        let taken = serde_json::from_slice(body)
            .map_err(AnswerError::from)
            .and_then(|update| self.take(update).map_err(AnswerError::from));
        match &taken {
            Ok(_) => {
                self.backoff.reset();
                self.state = State::Idle { since_ms: now_ms, wait_ms: 0 };
            }
            Err(AnswerError::Update(_)) => {
                self.stage = Stage::Anew;
                self.on_failure(now_ms);
            }
            Err(AnswerError::Unreadable(_)) => self.on_failure(now_ms),
        }
        taken
    }

    /// Takes in the answer that nothing changed: a snapshot is up to date with that.
    pub fn on_nothing_new(&mut self, now_ms: u64) {
        self.backoff.reset();
        self.state = State::Idle { since_ms: now_ms, wait_ms: 0 };
        if self.stage == Stage::CatchingUp {
            self.stage = Stage::Ready;
        }
    }

    /// Takes in that there was no answer, or none of use: the next poll waits a little longer with
    /// each failure, up to a bound.
    pub fn on_failure(&mut self, now_ms: u64) {
        self.state = State::Idle { since_ms: now_ms, wait_ms: self.backoff.fail() };
    }

    /// Takes in that the control plane refused the poll, which is a failure besides: a snapshot that is
    /// being taken in starts over.
    pub fn on_refused(&mut self) {
        if matches!(self.stage, Stage::TakingIn { .. }) {
            self.stage = Stage::Anew;
        }
    }

    /// Forgets the poll that is under way: its answer will not come.
    pub fn abandon(&mut self) {
        self.state = State::Idle { since_ms: 0, wait_ms: 0 };
    }

    /// Reports whether there is work to do.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.publisher.has_work() || self.stage == Stage::Ready
    }

    /// Does a slice of the work. Returns the revision that is in use since.
    ///
    /// # Errors
    ///
    /// A [`WorkError`]; what is under way is forgotten, and begins again from what is in use.
    pub fn work(&mut self, now_ms: u64) -> Result<Option<Revision>, WorkError> {
        match self.slice() {
            Ok(published) => {
                if published.is_some() {
                    self.published_at_ms = now_ms;
                }
                if self.stage == Stage::Following
                    && now_ms >= self.published_at_ms.saturating_add(TIDY_AFTER_MS)
                {
                    self.publisher.tidy();
                }
                Ok(published)
            }
            Err(error) => {
                self.start_over(self.publisher.term());
                if error == WorkError::Damaged {
                    self.stage = Stage::Anew;
                }
                self.on_failure(now_ms);
                Err(error)
            }
        }
    }

    fn slice(&mut self) -> Result<Option<Revision>, WorkError> {
        let published = self.publisher.work()?;
        if self.publisher.is_busy() || self.stage != Stage::Ready {
            return Ok(published);
        }
        self.stage = Stage::Following;
        self.publisher.publish()
    }

    fn take(&mut self, update: Update) -> Result<Progress, UpdateError> {
        if !update.recalls.is_empty() {
            return Ok(Progress::Recalled(update.recalls));
        }
        if update.base.is_none() {
            if !matches!(self.stage, Stage::TakingIn { .. }) {
                self.publisher.begin(update.revision);
            }
            self.publisher.take_in(&update)?;
            self.stage = match update.next {
                Some(cursor) => Stage::TakingIn { cursor },
                None => Stage::CatchingUp,
            };
            return Ok(Progress::Work);
        }
        if self.stage == Stage::Following && self.publisher.in_use() == Some(update.revision) {
            // Two plugin configurations may have asked at once; the second answer brings nothing.
            return Ok(Progress::Nothing);
        }
        self.publisher.take_in(&update)?;
        if self.stage == Stage::CatchingUp && !update.is_cut {
            self.stage = Stage::Ready;
        }
        Ok(Progress::Work)
    }
}

/// Longest time that a poll may take, in milliseconds: the control plane's longest wait and room
/// for a slow page.
pub const CALL_TIMEOUT_MS: u64 = MAX_WAIT_MS + 10_000;

/// How long after its time-out a call counts as lost, in milliseconds: Envoy drops calls without a
/// word when it replaces a plugin.
const LOST_AFTER_MS: u64 = 1_000;

/// How long after a poll another one may say that the VMs have changed, in milliseconds.
const RETELL_MS: u64 = 50;

/// How long to wait, in milliseconds, until all VMs have applied what was published, before the control
/// plane is asked for more and told that they have not: they do in less, and what others want back waits.
const LAG_MS: u64 = 20;

/// How long after a publication the pages that it replaced are emptied, in milliseconds: longer than
/// any VM goes without a look at the index.
const TIDY_AFTER_MS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use latchkey_protocol::{KeyHash, Subject};

    use super::*;
    use crate::replica::Replica;
    use crate::shared::LocalData;

    struct Proxy {
        data: Rc<dyn SharedData>,
        poller: Poller,
    }

    /// A page of a snapshot, or a delta, with a token of this number's.
    fn update(base: Option<u64>, revision: u64, token: u8, next: Option<&str>) -> String {
        let base = base.map_or(String::new(), |base| format!(r#""base":"{base}-1","#));
        let next = next.map_or(String::new(), |next| format!(r#""next":"{next}","#));
        let mut update: serde_json::Value = serde_json::from_str(&format!(
            r#"{{"revision":"{revision}-1",{base}{next}"accounts":["a"],"account_limits":[0],
            "right_sets":[[]],"tokens":{{"hashes":"","keys":["k"],"kinds":["user_defined"],
            "accounts":[0],"right_sets":[0],"expires_at_ms":[0],"network_sets":[0]}}}}"#
        ))
        .unwrap();
        let hashes = latchkey_protocol::TokenColumns {
            hashes: vec![KeyHash::of(&[token])],
            ..Default::default()
        };
        update["tokens"]["hashes"] = serde_json::to_value(hashes).unwrap()["hashes"].clone();
        update.to_string()
    }

    impl Proxy {
        fn new() -> Self {
            let data: Rc<dyn SharedData> = Rc::new(LocalData::default());
            let poller = Poller::new("p", "i", Rc::clone(&data), Names::new("s"));
            Self { data, poller }
        }

        fn poll(&mut self, now_ms: u64) -> Option<Poll> {
            let applied = self.held();
            let standing = Standing { workers: vec!["w".to_owned()], applied };
            self.poller.poll(now_ms, &standing).map(|attempt| attempt.poll)
        }

        fn take(&mut self, json: &str) -> Result<Progress, AnswerError> {
            let progress = self.poller.on_update(0, json.as_bytes());
            self.work();
            progress
        }

        fn work(&mut self) {
            while self.poller.has_work() {
                self.poller.work(0).unwrap();
            }
        }

        /// Takes in a snapshot of one page, and that nothing has changed since.
        fn take_snapshot(&mut self, revision: u64) {
            self.take(&update(None, revision, 1, None)).unwrap();
            self.nothing_new();
            assert_eq!(self.held().map(|held| held.number), Some(revision));
        }

        fn nothing_new(&mut self) {
            self.poller.on_nothing_new(0);
            self.work();
        }

        fn replica(&self) -> Option<Replica> {
            Replica::open(Rc::clone(&self.data), Names::new("s"))
        }

        fn held(&self) -> Option<Revision> {
            self.replica().map(|replica| replica.revision())
        }

        fn number(&self) -> Option<u64> {
            self.held().map(|held| held.number)
        }

        fn knows(&self, token: u8) -> bool {
            let found = self.replica().map(|replica| replica.find(&KeyHash::of(&[token])));
            found.is_some_and(|found| found.unwrap().is_some())
        }
    }

    #[test]
    fn revision_advances_only_when_all_pages_are_in() {
        let mut proxy = Proxy::new();
        assert_eq!(proxy.poll(0).unwrap().after, None);
        assert_eq!(proxy.take(&update(None, 5, 1, Some("t1"))).unwrap(), Progress::Work);
        let next = proxy.poll(0).unwrap();
        assert_eq!(
            (next.snapshot.map(|r| r.number), next.cursor.as_deref()),
            (Some(5), Some("t1"))
        );
        proxy.take(&update(None, 6, 2, Some("t2"))).unwrap();
        assert_eq!(proxy.number(), None);
        proxy.take(&update(None, 6, 3, None)).unwrap();
        assert_eq!(proxy.number(), None);
        proxy.nothing_new();
        assert_eq!(proxy.number(), Some(5), "a change since the first page would be missed");
        assert!((1..=3).all(|token| proxy.knows(token)));
        assert_eq!(proxy.poll(0).unwrap().after.map(|r| r.number), Some(5));
    }

    /// A gateway that had just started used to refuse a key that was made a moment before.
    #[test]
    fn snapshot_is_not_used_before_it_is_up_to_date() {
        let mut proxy = Proxy::new();
        proxy.take(&update(None, 5, 1, None)).unwrap();
        assert_eq!(proxy.number(), None);
        let next = proxy.poll(0).unwrap();
        assert_eq!((next.after.map(|r| r.number), next.wait_ms), (Some(5), 0));
        let part = update(Some(5), 7, 2, None).replacen('{', r#"{"is_cut":true,"#, 1);
        proxy.take(&part).unwrap();
        assert_eq!(proxy.number(), None, "there is more");
        assert_eq!(proxy.poll(0).unwrap().after.map(|r| r.number), Some(7));
        proxy.take(&update(Some(7), 8, 3, None)).unwrap();
        assert_eq!(proxy.number(), Some(8));
        assert!((1..=3).all(|token| proxy.knows(token)));
        assert_eq!(proxy.poll(0).unwrap().wait_ms, MAX_WAIT_MS);
    }

    #[test]
    fn gap_asks_for_a_snapshot_and_keeps_what_is_known() {
        let mut proxy = Proxy::new();
        assert!(proxy.take(&update(Some(1), 2, 1, None)).is_err());
        proxy.take_snapshot(5);
        proxy.take(&update(Some(5), 6, 2, None)).unwrap();
        assert!(proxy.take(&update(Some(8), 9, 3, None)).is_err());
        let next = proxy.poll(1_000).unwrap();
        assert_eq!((next.after, next.snapshot, next.cursor), (None, None, None));
        proxy.take(&update(None, 9, 3, None)).unwrap();
        assert_eq!(proxy.number(), Some(6), "the old one answers until the new one is up to date");
        assert!(proxy.knows(1) && proxy.knows(2) && !proxy.knows(3));
        proxy.nothing_new();
        assert_eq!(proxy.number(), Some(9));
        assert!(proxy.knows(3) && !proxy.knows(1) && !proxy.knows(2));
    }

    /// Two gateways with the same keys used to ask for a snapshot after each change.
    #[test]
    fn same_delta_twice_is_no_gap() {
        let mut proxy = Proxy::new();
        proxy.take_snapshot(5);
        proxy.take(&update(Some(5), 6, 2, None)).unwrap();
        assert_eq!(proxy.take(&update(Some(5), 6, 2, None)).unwrap(), Progress::Nothing);
        assert_eq!(proxy.poll(0).unwrap().after.map(|r| r.number), Some(6));
    }

    #[test]
    fn recall_changes_no_key() {
        let mut proxy = Proxy::new();
        proxy.take_snapshot(5);
        let subject = Subject::Account { account: "acme".into(), identity: None };
        let recalls = vec![Recall { worker: "w".to_owned(), subject }];
        let recall = Update::recall(proxy.held().unwrap(), recalls.clone());
        let recall = serde_json::to_string(&recall).unwrap();
        assert_eq!(proxy.take(&recall).unwrap(), Progress::Recalled(recalls));
        assert_eq!((proxy.number(), proxy.knows(1)), (Some(5), true));
    }

    #[test]
    fn unreadable_answer_changes_nothing() {
        let mut proxy = Proxy::new();
        proxy.take_snapshot(5);
        for body in ["", "{", "null", "{}", "\u{0}"] {
            assert!(proxy.take(body).is_err(), "{body}");
            assert_eq!(proxy.number(), Some(5));
        }
        assert_eq!(proxy.poll(10_000).unwrap().after.map(|r| r.number), Some(5));
    }

    /// A control plane that was restarted used to be asked for a page that it did not have, for ever.
    #[test]
    fn refused_page_starts_the_snapshot_over() {
        let mut proxy = Proxy::new();
        proxy.take(&update(None, 5, 1, Some("t1"))).unwrap();
        proxy.poller.on_refused();
        proxy.poller.on_failure(0);
        let next = proxy.poll(1_000).unwrap();
        assert_eq!((next.snapshot, next.cursor), (None, None));
    }

    #[test]
    fn vm_that_takes_over_goes_on_from_what_is_in_use() {
        let mut proxy = Proxy::new();
        proxy.take_snapshot(5);
        // The one before it has begun a snapshot, and a delta, and finished neither.
        proxy.poller.on_update(0, update(Some(5), 6, 2, None).as_bytes()).unwrap();
        let mut next = Poller::new("p", "i", Rc::clone(&proxy.data), Names::new("s"));
        let standing = Standing { workers: vec![], applied: proxy.held() };
        next.start_over(1);
        assert_eq!(next.poll(0, &standing).unwrap().poll.after.map(|r| r.number), Some(5));
        next.on_update(0, update(Some(5), 7, 3, None).as_bytes()).unwrap();
        while next.has_work() {
            next.work(0).unwrap();
        }
        assert_eq!(proxy.number(), Some(7));
        // The one before does not know yet that it has been replaced.
        assert_eq!(proxy.poller.work(0), Err(WorkError::NotWritten));
        assert_eq!(proxy.number(), Some(7));
        assert_eq!(proxy.poll(1_000).unwrap().after.map(|r| r.number), Some(7));
    }

    /// A VM that lost the lead while it wrote could bring back what its successor had taken away.
    #[test]
    fn late_work_of_one_that_leads_no_more_changes_no_page() {
        let mut proxy = Proxy::new();
        proxy.take_snapshot(5);
        // It has a key to add, and has not begun.
        proxy.poller.on_update(0, update(Some(5), 6, 2, None).as_bytes()).unwrap();
        let mut next = Poller::new("p", "i", Rc::clone(&proxy.data), Names::new("s"));
        next.start_over(1);
        let mut revoked: serde_json::Value =
            serde_json::from_str(&update(Some(5), 7, 2, None)).unwrap();
        let hashes = revoked["tokens"]["hashes"].take();
        revoked["removed_tokens"] = hashes;
        revoked["tokens"] =
            serde_json::to_value(latchkey_protocol::TokenColumns::default()).unwrap();
        next.on_update(0, revoked.to_string().as_bytes()).unwrap();
        while next.has_work() {
            next.work(0).unwrap();
        }
        assert_eq!(proxy.poller.work(0), Err(WorkError::NotWritten));
        assert!(!proxy.knows(2) && proxy.knows(1));
    }

    #[test]
    fn poll_tells_when_vms_come_and_when_they_lag() {
        let mut proxy = Proxy::new();
        proxy.take_snapshot(5);
        let held = proxy.held();
        let mut standing = Standing { workers: vec!["a".to_owned()], applied: held };
        let first = proxy.poller.poll(0, &standing).unwrap();
        assert_eq!((first.poll.applied, first.poll.wait_ms), (None, MAX_WAIT_MS));
        assert!(proxy.poller.poll(1_000, &standing).is_none(), "one poll at a time");
        standing.workers.push("b".to_owned());
        let second = proxy.poller.poll(1_000, &standing).unwrap();
        assert_eq!(second.poll.workers.as_deref(), Some("a,b"));
        // The control plane ends the one before: that answer must not lead to a third.
        assert!(!proxy.poller.is_under_way(first.number));
        assert!(proxy.poller.is_under_way(second.number));

        proxy.take(&update(Some(5), 6, 2, None)).unwrap();
        assert!(proxy.poller.poll(LAG_MS - 1, &standing).is_none(), "they may be about to");
        let poll = proxy.poller.poll(LAG_MS, &standing).unwrap().poll;
        assert_eq!((poll.after, poll.applied), (proxy.held(), held.map(|held| held.to_string())));
        standing.applied = proxy.held();
        let poll = proxy.poller.poll(LAG_MS + RETELL_MS, &standing).unwrap().poll;
        assert_eq!(poll.applied, None, "they have by now");
    }

    #[test]
    fn replaced_pages_are_emptied_later() {
        let mut proxy = Proxy::new();
        proxy.take_snapshot(5);
        proxy.poller.stage = Stage::Anew;
        proxy.take_snapshot(9);
        let names = Names::new("s");
        let first = |proxy: &Proxy| {
            let page = crate::pages::page_of(&KeyHash::of(&[1]));
            let present = proxy.data.get(&names.tokens(crate::shared::Bank::A, page));
            present.is_some_and(|(bytes, _)| !bytes.is_empty())
        };
        proxy.poller.work(TIDY_AFTER_MS - 1).unwrap();
        assert!(first(&proxy) && !proxy.poller.has_work());
        proxy.poller.work(TIDY_AFTER_MS).unwrap();
        proxy.work();
        assert!(!first(&proxy) && proxy.knows(1));
    }

    #[test]
    fn failures_are_retried_within_a_second() {
        let mut proxy = Proxy::new();
        let mut now = 1_000_000;
        for _ in 0..50 {
            assert!(proxy.poll(now).is_some());
            assert!(proxy.poll(now).is_none(), "one poll at a time");
            proxy.poller.on_failure(now);
            assert!(proxy.poll(now).is_none(), "not at once");
            now += 1_000;
        }
    }

    /// A clock that steps back used to be able to silence a poller for as long as the step.
    #[test]
    fn clock_that_steps_back_delays_nothing() {
        let mut proxy = Proxy::new();
        assert!(proxy.poll(1_000_000).is_some());
        proxy.poller.on_failure(1_000_000);
        assert!(proxy.poll(5).is_some());
    }

    #[test]
    fn call_whose_answer_never_comes_is_made_again() {
        let mut proxy = Proxy::new();
        assert!(proxy.poll(1).is_some());
        assert!(proxy.poll(CALL_TIMEOUT_MS).is_none());
        assert!(proxy.poll(CALL_TIMEOUT_MS + LOST_AFTER_MS + 1).is_some());
        proxy.poller.abandon();
        assert!(proxy.poll(CALL_TIMEOUT_MS + LOST_AFTER_MS + 2).is_some());
    }
}

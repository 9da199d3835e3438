//! Publishing: bringing updates into the pages that all VMs of a proxy share.
//!
//! One VM of a proxy does this, in slices. A snapshot goes into pages that are not in use, and is used
//! once it is whole and up to date; a delta goes into those in use, a page at a time: what a page says
//! is right at any time, and the index, which is written last, says what others have to look at again.
//! Whoever comes after a VM that ended half-way gets the same delta again.

mod edits;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use latchkey_protocol::{Revision, Update};

use crate::pages::index::Index;
use crate::pages::{PAGES, accounts, term_of, tokens};
use crate::shared::{Bank, Names, SharedData, Write};
use edits::{AccountEdits, Edits, TokenEdits};

pub use edits::UpdateError;

/// Writes what is in use, and the snapshot that is being taken in.
#[derive(Debug)]
pub struct Publisher {
    data: Rc<dyn SharedData>,
    names: Names,
    /// Number of the leader's term; what later ones have written is not written over.
    term: u32,
    /// What is in use.
    in_use: Option<Index>,
    /// The last write of that.
    index_write: Write,
    /// The snapshot that is being taken in.
    draft: Option<Index>,
    work: VecDeque<Task>,
    /// What is in use once the work is done.
    goal: Option<(Revision, Vec<u8>)>,
    /// How many pages have been emptied of those that are in use no longer.
    tidied: Option<usize>,
}

/// What is done at once.
#[derive(Debug)]
enum Task {
    Accounts(usize, AccountEdits),
    Tokens(usize, TokenEdits),
}

/// Why pages could not be brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// A page is not what the index says: it takes a snapshot to go on.
    #[error("a page in shared data is damaged")]
    Damaged,
    /// Another VM has published meanwhile, or the host refuses.
    #[error("shared data could not be written")]
    NotWritten,
}

impl Publisher {
    /// Returns one that has read what is in use.
    #[must_use]
    pub fn new(data: Rc<dyn SharedData>, names: Names) -> Self {
        let mut publisher = Self {
            data,
            names,
            term: 0,
            in_use: None,
            index_write: Write::NONE,
            draft: None,
            work: VecDeque::new(),
            goal: None,
            tidied: None,
        };
        publisher.start_over(0);
        publisher
    }

    /// Forgets what is under way, and reads again what is in use, for a leader's term.
    pub fn start_over(&mut self, term: u32) {
        self.term = term;
        self.work.clear();
        self.goal = None;
        self.draft = None;
        self.tidied = None;
        let (bytes, write) = self.data.get(&self.names.index()).unzip();
        // One that is not readable is as good as none.
        self.in_use = bytes.and_then(|bytes| Index::parse(&bytes).ok());
        self.index_write = write.unwrap_or(Write::NONE);
    }

    /// Returns the number of the leader's term.
    #[must_use]
    pub fn term(&self) -> u32 {
        self.term
    }

    /// Returns the revision that is in use.
    #[must_use]
    pub fn in_use(&self) -> Option<Revision> {
        self.in_use.as_ref().map(|index| index.revision)
    }

    /// Returns the revision of the snapshot that is being taken in.
    #[must_use]
    pub fn draft(&self) -> Option<Revision> {
        self.draft.as_ref().map(|index| index.revision)
    }

    /// Begins a snapshot; one that is under way is forgotten.
    pub fn begin(&mut self, revision: Revision) {
        self.work.clear();
        self.goal = None;
        self.tidied = None;
        let bank = self.in_use.as_ref().map_or(Bank::A, |index| index.bank.other());
        self.draft = Some(Index::empty(revision, bank));
    }

    /// Takes in a page of the snapshot that is under way, or else a delta to what is in use. There is
    /// work to do then; until it is done, nothing else is taken in.
    ///
    /// # Errors
    ///
    /// An [`UpdateError`] if it contradicts itself or does not fit; nothing is changed.
    pub fn take_in(&mut self, update: &Update) -> Result<(), UpdateError> {
        if self.is_busy() {
            return Err(UpdateError::Unexpected);
        }
        let held = self.draft().or(self.in_use());
        let revision = match update.base {
            Some(base) if held == Some(base) => update.revision,
            Some(base) => return Err(UpdateError::Gap { base, held }),
            None => self.draft().ok_or(UpdateError::Unexpected)?,
        };
        let edits = Edits::of(update)?;
        self.work.extend(edits.accounts.into_iter().map(|(page, edit)| Task::Accounts(page, edit)));
        self.work.extend(edits.tokens.into_iter().map(|(page, edit)| Task::Tokens(page, edit)));
        let gone = edits.removed_accounts.into_iter();
        self.work.extend(gone.map(|(page, edit)| Task::Accounts(page, edit)));
        self.goal = Some((revision, edits.anonymous_limits));
        Ok(())
    }

    /// Reports whether an update is not in yet, so that no other may come.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.goal.is_some()
    }

    /// Reports whether there is work to do.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.goal.is_some() || self.tidied.is_some()
    }

    /// Does a slice of the work. What went into a snapshot stays there until [`Self::publish`]; what went
    /// into the pages in use is published. Returns the revision that is in use since.
    ///
    /// # Errors
    ///
    /// A [`WorkError`]; then what is under way is to be forgotten.
    pub fn work(&mut self) -> Result<Option<Revision>, WorkError> {
        for _ in 0..SLICE {
            let Some(task) = self.work.pop_front() else {
                break;
            };
            self.perform(&task)?;
        }
        if !self.work.is_empty() {
            return Ok(None);
        }
        let Some((revision, anonymous_limits)) = self.goal.take() else {
            return self.tidy_slice().map(|()| None);
        };
        if let Some(draft) = &mut self.draft {
            draft.revision = revision;
            draft.anonymous_limits = anonymous_limits;
            return Ok(None);
        }
        let Some(index) = &mut self.in_use else {
            return Ok(None);
        };
        index.revision = revision;
        index.anonymous_limits = anonymous_limits;
        index.sequence = index.sequence.wrapping_add(1);
        self.write_index()?;
        Ok(Some(revision))
    }

    /// Puts the snapshot into use.
    ///
    /// # Errors
    ///
    /// [`WorkError::NotWritten`] if another VM has published something meanwhile.
    pub fn publish(&mut self) -> Result<Option<Revision>, WorkError> {
        let Some(mut index) = self.draft.take() else {
            return Ok(None);
        };
        let before = self.in_use.as_ref().map_or(0, |before| before.sequence);
        index.sequence = before.wrapping_add(1);
        index.is_tidy = false;
        let revision = index.revision;
        self.in_use = Some(index);
        self.write_index()?;
        Ok(Some(revision))
    }

    /// Sets out to empty the pages that are in use no longer. It is for later, when no VM reads them.
    pub fn tidy(&mut self) {
        let is_due = self.in_use.as_ref().is_some_and(|index| !index.is_tidy);
        if is_due && self.draft.is_none() {
            self.tidied.get_or_insert(0);
        }
    }

    fn tidy_slice(&mut self) -> Result<(), WorkError> {
        let (Some(first), Some(index)) = (self.tidied, &self.in_use) else {
            return Ok(());
        };
        let bank = index.bank.other();
        let next = PAGES.min(first + SLICE);
        for page in first..next {
            for name in [self.names.tokens(bank, page), self.names.accounts(bank, page)] {
                match self.get_page(&name)? {
                    Some((bytes, over)) if !bytes.is_empty() => self.set_page(&name, &[], over)?,
                    Some(_) | None => {}
                }
            }
        }
        if let Some(index) = &mut self.in_use {
            index.is_tidy = next == PAGES;
        }
        self.tidied = (next < PAGES).then_some(next);
        Ok(())
    }

    fn write_index(&mut self) -> Result<(), WorkError> {
        let Some(index) = &self.in_use else {
            return Ok(());
        };
        let name = self.names.index();
        if !self.data.set(&name, &index.write(), Some(self.index_write)) {
            return Err(WorkError::NotWritten);
        }
        let (written, number) = self.data.get(&name).ok_or(WorkError::NotWritten)?;
        if written.get(..4) != Some(&index.sequence.to_le_bytes()) {
            return Err(WorkError::NotWritten);
        }
        self.index_write = number;
        Ok(())
    }

    fn perform(&mut self, task: &Task) -> Result<(), WorkError> {
        let Some(index) = self.draft.as_ref().or(self.in_use.as_ref()) else {
            return Ok(());
        };
        let (name, version) = match task {
            Task::Accounts(page, _) => {
                (self.names.accounts(index.bank, *page), index.accounts.get(*page))
            }
            Task::Tokens(page, _) => {
                (self.names.tokens(index.bank, *page), index.tokens.get(*page))
            }
        };
        let present = self.get_page(&name)?;
        let over = present.as_ref().map_or(Write::NONE, |(_, over)| *over);
        let before = match (version, present) {
            // What a page holds from an earlier snapshot does not count.
            (Some(0) | None, _) => None,
            (Some(_), Some((bytes, _))) => Some(bytes),
            (Some(_), None) => return Err(WorkError::Damaged),
        };
        let after = match task {
            Task::Accounts(_, edits) => {
                let known = match &before {
                    Some(bytes) => accounts::read(bytes).map_err(|_| WorkError::Damaged)?,
                    None => BTreeMap::new(),
                };
                edits.apply(self.term, known)
            }
            Task::Tokens(_, edits) => {
                let known = match &before {
                    Some(bytes) => tokens::Page::parse(bytes)
                        .and_then(|page| page.entries())
                        .map_err(|_| WorkError::Damaged)?,
                    None => BTreeMap::new(),
                };
                edits.apply(self.term, known)
            }
        };
        self.set_page(&name, &after, over)?;
        let next = self.in_use.as_ref().map_or(0, |index| index.sequence).wrapping_add(1);
        if let Some(index) = self.draft.as_mut().or(self.in_use.as_mut()) {
            let version = match task {
                Task::Accounts(page, _) => index.accounts.get_mut(*page),
                Task::Tokens(page, _) => index.tokens.get_mut(*page),
            };
            if let Some(version) = version {
                *version = next;
            }
        }
        Ok(())
    }

    /// Returns a page and its last write, if it is there. One that a later leader has written says that
    /// this one leads no more.
    fn get_page(&self, name: &str) -> Result<Option<(Vec<u8>, Write)>, WorkError> {
        let present = self.data.get(name);
        let is_later = |(bytes, _): &(Vec<u8>, Write)| {
            term_of(bytes).is_ok_and(|term| term.wrapping_sub(self.term).cast_signed() > 0)
        };
        if present.as_ref().is_some_and(is_later) {
            Err(WorkError::NotWritten)
        } else {
            Ok(present)
        }
    }

    fn set_page(&self, name: &str, bytes: &[u8], over: Write) -> Result<(), WorkError> {
        let is_set = self.data.set(name, bytes, Some(over));
        if is_set { Ok(()) } else { Err(WorkError::NotWritten) }
    }
}

/// Pages that are written at once: some milliseconds, of a million keys.
const SLICE: usize = 32;

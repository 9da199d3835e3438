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
use crate::pages::{PAGES, accounts, tokens};
use crate::shared::{Bank, Names, SharedData, Write};
use edits::{AccountEdits, Edits, TokenEdits};

pub use edits::UpdateError;

/// Writes what is in use, and the snapshot that is being taken in.
#[derive(Debug)]
pub struct Publisher {
    data: Rc<dyn SharedData>,
    names: Names,
    /// What is in use, and its last write.
    in_use: Option<(Index, Write)>,
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
            in_use: None,
            draft: None,
            work: VecDeque::new(),
            goal: None,
            tidied: None,
        };
        publisher.start_over();
        publisher
    }

    /// Forgets what is under way, and reads again what is in use.
    pub fn start_over(&mut self) {
        self.work.clear();
        self.goal = None;
        self.draft = None;
        self.tidied = None;
        self.in_use = self.data.get(&self.names.index()).and_then(|(bytes, write)| {
            // One that is not readable is as good as none.
            Index::parse(&bytes).ok().map(|index| (index, write))
        });
    }

    /// Returns the revision that is in use.
    #[must_use]
    pub fn in_use(&self) -> Option<Revision> {
        self.in_use.as_ref().map(|(index, _)| index.revision)
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
        let bank = self.in_use.as_ref().map_or(Bank::A, |(index, _)| index.bank.other());
        self.draft = Some(Index::empty(revision, bank));
    }

    /// Takes in a page of the snapshot that is under way, or else a delta to what is in use. There is
    /// work to do then; until it is done, nothing else is taken in.
    ///
    /// # Errors
    ///
    /// An [`UpdateError`] if it contradicts itself or does not fit; nothing is changed.
    pub fn take_in(&mut self, update: &Update) -> Result<(), UpdateError> {
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
            self.perform(task)?;
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
        let Some((index, _)) = &mut self.in_use else {
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
        let (before, write) = match &self.in_use {
            Some((before, write)) => (before.sequence, *write),
            None => (0, Write::NONE),
        };
        index.sequence = before.wrapping_add(1);
        index.is_tidy = false;
        let revision = index.revision;
        self.in_use = Some((index, write));
        self.write_index()?;
        Ok(Some(revision))
    }

    /// Sets out to empty the pages that are in use no longer. It is for later, when no VM reads them.
    pub fn tidy(&mut self) {
        let is_due = self.in_use.as_ref().is_some_and(|(index, _)| !index.is_tidy);
        if is_due && self.draft.is_none() {
            self.tidied.get_or_insert(0);
        }
    }

    fn tidy_slice(&mut self) -> Result<(), WorkError> {
        let (Some(first), Some((index, _))) = (self.tidied, &mut self.in_use) else {
            return Ok(());
        };
        let bank = index.bank.other();
        let next = PAGES.min(first + SLICE);
        for page in first..next {
            for name in [self.names.tokens(bank, page), self.names.accounts(bank, page)] {
                if self.data.get(&name).is_some() && !self.data.set(&name, &[], None) {
                    return Err(WorkError::NotWritten);
                }
            }
        }
        index.is_tidy = next == PAGES;
        self.tidied = (next < PAGES).then_some(next);
        Ok(())
    }

    fn write_index(&mut self) -> Result<(), WorkError> {
        let Some((index, write)) = &mut self.in_use else {
            return Ok(());
        };
        let name = self.names.index();
        if !self.data.set(&name, &index.write(), Some(*write)) {
            return Err(WorkError::NotWritten);
        }
        let (written, number) = self.data.get(&name).ok_or(WorkError::NotWritten)?;
        if written.get(..4) != Some(&index.sequence.to_le_bytes()) {
            return Err(WorkError::NotWritten);
        }
        *write = number;
        let head = index.sequence.to_le_bytes();
        let is_said = self.data.set(&self.names.head(), &head, None);
        if is_said { Ok(()) } else { Err(WorkError::NotWritten) }
    }

    fn perform(&mut self, task: Task) -> Result<(), WorkError> {
        let next = self.in_use.as_ref().map_or(0, |(index, _)| index.sequence).wrapping_add(1);
        let Some(index) = self.draft.as_mut().or(self.in_use.as_mut().map(|(index, _)| index))
        else {
            return Ok(());
        };
        let data = &self.data;
        // What a page holds from an earlier snapshot does not count.
        let read = |name: &str, version: Option<&u32>| match version {
            Some(0) | None => Ok(None),
            Some(_) => data.get(name).map(|(bytes, _)| Some(bytes)).ok_or(WorkError::Damaged),
        };
        let (name, page, version) = match task {
            Task::Accounts(page, edits) => {
                let name = self.names.accounts(index.bank, page);
                let version = index.accounts.get_mut(page);
                let before = read(&name, version.as_deref())?;
                let known = match &before {
                    Some(bytes) => accounts::read(bytes).map_err(|_| WorkError::Damaged)?,
                    None => BTreeMap::new(),
                };
                let Some(after) = edits.apply(&known) else {
                    return Ok(());
                };
                (name, after, version)
            }
            Task::Tokens(page, edits) => {
                let name = self.names.tokens(index.bank, page);
                let version = index.tokens.get_mut(page);
                let before = read(&name, version.as_deref())?;
                let known = match &before {
                    Some(bytes) => tokens::Page::parse(bytes)
                        .and_then(|page| page.entries())
                        .map_err(|_| WorkError::Damaged)?,
                    None => BTreeMap::new(),
                };
                (name, edits.apply(next, known), version)
            }
        };
        if !data.set(&name, &page, None) {
            return Err(WorkError::NotWritten);
        }
        if let Some(version) = version {
            *version = next;
        }
        Ok(())
    }
}

/// Pages that are written at once: some milliseconds, of a million keys.
const SLICE: usize = 32;

//! What a VM knows of the keys: token hash → key, from the pages that all VMs of the proxy share.
//!
//! A VM keeps what it has looked up, a few keys of each page, until a publication names the page.

mod sets;

use std::cell::{Cell, RefCell};
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;

use ipnet::IpNet;
use latchkey_protocol::{KeyHash, KeyKind, Limit, Revision, RightSet, Update};

use crate::pages::index::Index;
use crate::pages::tokens::{Entry, Page};
use crate::pages::{PAGES, Unreadable, accounts, page_of, page_of_account};
use crate::publisher::{Publisher, UpdateError};
use crate::resources::Resources;
use crate::shared::{LocalData, Names, SharedData};
use sets::Sets;

/// All usable keys of one profile, as of a revision.
#[derive(Debug)]
pub struct Replica {
    data: Rc<dyn SharedData>,
    names: Names,
    index: RefCell<Index>,
    held: RefCell<Vec<HeldPage>>,
    sets: RefCell<Sets>,
    anonymous_limits: RefCell<Rc<[Limit]>>,
}

/// The keys of a page that were looked up, the last one first.
#[derive(Clone, Debug, Default)]
struct HeldPage(Vec<(KeyHash, Rc<KeyRecord>)>);

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Id of the key.
    pub id: Arc<str>,
    /// Kind of the key.
    pub kind: KeyKind,
    /// The account that owns it.
    pub account: Rc<AccountRecord>,
    /// Limits of its own; most keys have none.
    pub limits: Option<Rc<[Limit]>>,
    /// What the key holds.
    pub rights: Rc<RightSet>,
    /// Whether what its rights forbid is noted and let through.
    pub is_shadowed: bool,
    /// Networks from which it may be used; absent, all.
    pub networks: Option<Rc<[IpNet]>>,
    /// First moment at which the token is no longer valid, in milliseconds since the epoch.
    pub expires_at_ms: Option<NonZeroU64>,
}

/// Who owns keys.
#[derive(Debug, PartialEq, Eq)]
pub struct AccountRecord {
    /// Its id.
    pub id: Arc<str>,
    limits: AccountLimits,
    resources: Rc<Resources>,
    /// Whether there may be something newer, so that its keys are looked up anew.
    is_outdated: Cell<bool>,
}

/// The limits of an account that count calls with an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountLimits {
    /// Those that count every call.
    pub every_call: Rc<[Limit]>,
    /// Those that count calls with an API key apart from others.
    pub with_key: Rc<[Limit]>,
}

impl AccountRecord {
    /// Returns its limits, as of the last publication.
    #[must_use]
    pub fn limits(&self) -> &AccountLimits {
        &self.limits
    }

    /// Returns its resources, as of the last publication.
    #[must_use]
    pub fn resources(&self) -> &Rc<Resources> {
        &self.resources
    }
}

impl Replica {
    /// Returns what is in use; none before the first publication.
    #[must_use]
    pub fn open(data: Rc<dyn SharedData>, names: Names) -> Option<Self> {
        let (bytes, _) = data.get(&names.index())?;
        let index = Index::parse(&bytes).ok()?;
        let mut sets = Sets::default();
        let anonymous_limits = sets.limits(&index.anonymous_limits).ok()?;
        Some(Self {
            data,
            names,
            index: RefCell::new(index),
            held: RefCell::new(vec![HeldPage::default(); PAGES]),
            sets: RefCell::new(sets),
            anonymous_limits: RefCell::new(anonymous_limits),
        })
    }

    /// Returns a replica of its own with what a snapshot of one page holds.
    ///
    /// # Errors
    ///
    /// An [`UpdateError`] if it contradicts itself.
    pub fn of(update: &Update) -> Result<Self, UpdateError> {
        let data: Rc<dyn SharedData> = Rc::new(LocalData::default());
        let names = Names::new("");
        let mut publisher = Publisher::new(Rc::clone(&data), names.clone());
        publisher.begin(update.revision);
        publisher.take_in(update)?;
        while publisher.is_busy() {
            publisher.work().map_err(|_| UpdateError::Unwritable)?;
        }
        publisher.publish().map_err(|_| UpdateError::Unwritable)?;
        Self::open(data, names).ok_or(UpdateError::Unwritable)
    }

    /// Returns the revision up to which all changes are in.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.index.borrow().revision
    }

    /// Returns the limits of each client address that calls without a token.
    #[must_use]
    pub fn anonymous_limits(&self) -> Rc<[Limit]> {
        Rc::clone(&self.anonymous_limits.borrow())
    }

    /// Returns what a token stands for, if it is of a usable key.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] if the pages do not tell: it may be of one or not.
    pub fn find(&self, hash: &KeyHash) -> Result<Option<Rc<KeyRecord>>, Unreadable> {
        let page = page_of(hash);
        if let Some(held) = self.held.borrow_mut().get_mut(page)
            && let Some(key) = held.find(hash)
        {
            return Ok(Some(key));
        }
        match self.read(page, hash) {
            // Its page may just have been emptied, since another is in use by now.
            Err(Unreadable) if self.refresh().is_some() => self.read(page, hash),
            read => read,
        }
    }

    /// Looks a token up in its page, and keeps it.
    fn read(&self, page: usize, hash: &KeyHash) -> Result<Option<Rc<KeyRecord>>, Unreadable> {
        let index = self.index.borrow();
        if index.tokens.get(page).is_none_or(|&version| version == 0) {
            return Ok(None);
        }
        let name = self.names.tokens(index.bank, page);
        let (bytes, _) = self.data.get(&name).ok_or(Unreadable)?;
        let Some(entry) = Page::parse(&bytes)?.find(hash)? else {
            return Ok(None);
        };
        let key = Rc::new(self.record(&index, entry)?);
        self.sets.borrow_mut().sweep();
        if let Some(held) = self.held.borrow_mut().get_mut(page) {
            held.keep(*hash, &key);
        }
        Ok(Some(key))
    }

    fn record(&self, index: &Index, entry: Entry<'_>) -> Result<KeyRecord, Unreadable> {
        let sets = &mut *self.sets.borrow_mut();
        let account = match sets.account(entry.account) {
            Some(account) => account,
            None => {
                let page = page_of_account(entry.account);
                let name = self.names.accounts(index.bank, page);
                let (bytes, _) = self.data.get(&name).ok_or(Unreadable)?;
                let found = accounts::find(&bytes, entry.account)?.ok_or(Unreadable)?;
                let account = Rc::new(AccountRecord {
                    id: Arc::from(entry.account),
                    limits: sets.account_limits(found.limits)?,
                    resources: sets.resources(found.resources)?,
                    is_outdated: Cell::new(false),
                });
                sets.keep_account(page, &account);
                account
            }
        };
        let networks =
            if entry.networks.is_empty() { None } else { Some(sets.networks(entry.networks)?) };
        let limits = if entry.limits.is_empty() { None } else { Some(sets.limits(entry.limits)?) };
        Ok(KeyRecord {
            id: Arc::from(entry.key),
            kind: entry.kind,
            account,
            limits,
            rights: sets.rights(entry.rights)?,
            is_shadowed: entry.is_shadowed,
            networks,
            expires_at_ms: NonZeroU64::new(entry.expires_at_ms),
        })
    }

    /// Looks whether something was published since, and forgets what it named. Returns the revision that
    /// is in use since.
    pub fn refresh(&self) -> Option<Revision> {
        let (bytes, _) = self.data.get(&self.names.index())?;
        if bytes.first_chunk() == Some(&self.index.borrow().sequence.to_le_bytes()) {
            return None;
        }
        let fresh = Index::parse(&bytes).ok()?;
        let before = self.index.replace(fresh);
        let index = self.index.borrow();
        let versions = before.tokens.iter().zip(&index.tokens);
        for (held, (before, now)) in self.held.borrow_mut().iter_mut().zip(versions) {
            if before != now {
                held.0.clear();
            }
        }
        let sets = &mut *self.sets.borrow_mut();
        if before.accounts != index.accounts {
            sets.forget_accounts(|page| before.accounts.get(page) != index.accounts.get(page));
        }
        if let Ok(limits) = sets.limits(&index.anonymous_limits) {
            self.anonymous_limits.replace(limits);
        }
        Some(index.revision)
    }
}

impl HeldPage {
    fn find(&mut self, hash: &KeyHash) -> Option<Rc<KeyRecord>> {
        let place = self.0.iter().position(|(held, _)| held == hash)?;
        if self.0.get(place)?.1.account.is_outdated.get() {
            self.0.remove(place);
            return None;
        }
        // The last one that was used comes first, and stays longest.
        self.0.get_mut(..=place)?.rotate_right(1);
        self.0.first().map(|(_, key)| Rc::clone(key))
    }

    fn keep(&mut self, hash: KeyHash, key: &Rc<KeyRecord>) {
        self.0.truncate(MAX_HELD - 1);
        self.0.insert(0, (hash, Rc::clone(key)));
    }
}

/// Most keys of a page that are kept. With all pages in use these are 32,768 keys of about 250 bytes:
/// 8 MB a VM. What is not kept is looked up in its page, for some microseconds.
const MAX_HELD: usize = 8;

#[cfg(test)]
mod tests;

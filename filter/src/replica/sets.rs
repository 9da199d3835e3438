//! What many keys have in common, held once.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use ipnet::IpNet;
use latchkey_protocol::{Identity, Limit, Resource, RightSet};
use serde::de::DeserializeOwned;

use super::{AccountLimits, AccountRecord};
use crate::networks;
use crate::pages::Unreadable;
use crate::resources::Resources;

/// Accounts by id, and sets by their JSON.
#[derive(Debug, Default)]
pub(super) struct Sets {
    /// Each with its page.
    accounts: BTreeMap<Arc<str>, (usize, Rc<AccountRecord>)>,
    limits: BTreeMap<Box<[u8]>, Rc<[Limit]>>,
    rights: BTreeMap<Box<[u8]>, Rc<RightSet>>,
    networks: BTreeMap<Box<[u8]>, Rc<[IpNet]>>,
    resources: BTreeMap<Box<[u8]>, Rc<Resources>>,
    /// Number of sets at which those that no key uses any more are dropped.
    sweep_at: usize,
}

impl Sets {
    /// Returns an account that is known.
    pub(super) fn account(&self, id: &str) -> Option<Rc<AccountRecord>> {
        self.accounts.get(id).map(|(_, account)| Rc::clone(account))
    }

    pub(super) fn keep_account(&mut self, page: usize, account: &Rc<AccountRecord>) {
        self.accounts.insert(Arc::clone(&account.id), (page, Rc::clone(account)));
    }

    /// Forgets the accounts of some pages, and lets those who have them know.
    pub(super) fn forget_accounts(&mut self, of_page: impl Fn(usize) -> bool) {
        self.accounts.retain(|_, (page, account)| {
            account.is_outdated.set(of_page(*page));
            !account.is_outdated.get()
        });
    }

    pub(super) fn limits(&mut self, json: &[u8]) -> Result<Rc<[Limit]>, Unreadable> {
        intern(&mut self.limits, json, |limits: Vec<Limit>| Some(limits.into()))
    }

    pub(super) fn account_limits(&mut self, json: &[u8]) -> Result<AccountLimits, Unreadable> {
        let limits = self.limits(json)?;
        Ok(AccountLimits {
            every_call: counting(&limits, None),
            with_key: counting(&limits, Some(Identity::Key)),
        })
    }

    pub(super) fn rights(&mut self, json: &[u8]) -> Result<Rc<RightSet>, Unreadable> {
        intern(&mut self.rights, json, |rights| Some(Rc::new(rights)))
    }

    pub(super) fn networks(&mut self, json: &[u8]) -> Result<Rc<[IpNet]>, Unreadable> {
        intern(&mut self.networks, json, |texts: Vec<String>| {
            texts.iter().map(|text| networks::parse(text)).collect()
        })
    }

    pub(super) fn resources(&mut self, json: &[u8]) -> Result<Rc<Resources>, Unreadable> {
        intern(&mut self.resources, json, |given: Vec<Resource>| {
            Some(Rc::new(Resources::new(&given)))
        })
    }

    /// Drops what no key uses, now and then: looking at all sets costs as much as there are, so it waits
    /// until there are twice as many as after the last time.
    pub(super) fn sweep(&mut self) {
        if self.count() < self.sweep_at.max(MIN_SWEEP) {
            return;
        }
        self.accounts.retain(|_, (_, account)| Rc::strong_count(account) > 1);
        self.limits.retain(|_, limits| Rc::strong_count(limits) > 1);
        self.rights.retain(|_, rights| Rc::strong_count(rights) > 1);
        self.networks.retain(|_, networks| Rc::strong_count(networks) > 1);
        self.resources.retain(|_, resources| Rc::strong_count(resources) > 1);
        self.sweep_at = 2 * self.count();
    }

    fn count(&self) -> usize {
        let of_keys = self.limits.len() + self.rights.len() + self.networks.len();
        self.accounts.len() + self.resources.len() + of_keys
    }
}

/// Returns the limits of a set that count calls as one identity apart, or all calls.
fn counting(limits: &Rc<[Limit]>, identity: Option<Identity>) -> Rc<[Limit]> {
    if limits.iter().all(|limit| limit.identity == identity) {
        return Rc::clone(limits);
    }
    limits.iter().filter(|limit| limit.identity == identity).cloned().collect()
}

/// Returns what a JSON text says, read once; an empty text is an empty list.
fn intern<J, T>(
    known: &mut BTreeMap<Box<[u8]>, Rc<T>>,
    json: &[u8],
    make: impl FnOnce(J) -> Option<Rc<T>>,
) -> Result<Rc<T>, Unreadable>
where
    J: DeserializeOwned + Default,
    T: ?Sized,
{
    if let Some(same) = known.get(json) {
        return Ok(Rc::clone(same));
    }
    let read = if json.is_empty() {
        J::default()
    } else {
        serde_json::from_slice(json).map_err(|_| Unreadable)?
    };
    let made = make(read).ok_or(Unreadable)?;
    known.insert(json.into(), Rc::clone(&made));
    Ok(made)
}

/// Sets below which sweeping is not worth its while.
const MIN_SWEEP: usize = 1024;

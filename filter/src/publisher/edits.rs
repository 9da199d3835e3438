//! What an update changes, page by page.

use std::collections::BTreeMap;
use std::rc::Rc;

use latchkey_protocol::{KeyHash, KeyKind, Resource, Revision, Update};
use serde::Serialize;

use crate::networks;
use crate::pages::accounts::Entry as Account;
use crate::pages::tokens::{self, Entry};
use crate::pages::{accounts, page_of, page_of_account, usize_of};

/// Why an update was not applied; what is known is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// A delta that starts from another revision than the one held.
    #[error("the delta starts from revision {base}, and {} is held", held_text(held.as_ref()))]
    Gap {
        /// What the delta starts from.
        base: Revision,
        /// What is held.
        held: Option<Revision>,
    },
    /// Columns of different lengths.
    #[error("the columns of tokens or accounts differ in length")]
    Columns,
    /// An index past the end of its table.
    #[error("index {index} is past the end of `{table}`")]
    Index {
        /// Name of the table.
        table: &'static str,
        /// The index.
        index: u32,
    },
    /// A network that is no CIDR.
    #[error("`{0}` is no network")]
    Network(String),
    /// A page of a snapshot where none is taken in, or an update before the one before is in.
    #[error("an update came where none was asked for")]
    Unexpected,
    /// Something that cannot be written as JSON.
    #[error("a set cannot be written")]
    Unwritable,
}

/// All that an update changes, by page.
#[derive(Debug, Default)]
pub(super) struct Edits {
    pub(super) accounts: BTreeMap<usize, AccountEdits>,
    pub(super) tokens: BTreeMap<usize, TokenEdits>,
    /// Accounts that go, after their tokens have gone.
    pub(super) removed_accounts: BTreeMap<usize, AccountEdits>,
    pub(super) anonymous_limits: Vec<u8>,
}

/// What changes of the accounts on a page: by id, what is known now, or that it goes.
#[derive(Debug, Default)]
pub(super) struct AccountEdits(BTreeMap<String, Option<AccountEdit>>);

#[derive(Debug, Default)]
struct AccountEdit {
    limits: Option<Rc<[u8]>>,
    resources: Option<Vec<u8>>,
}

/// What changes of the tokens on a page: by hash, what it stands for now; none, it goes.
#[derive(Debug, Default)]
pub(super) struct TokenEdits(BTreeMap<KeyHash, Option<Token>>);

#[derive(Debug)]
struct Token {
    key: String,
    kind: KeyKind,
    account: Rc<str>,
    rights: Rc<[u8]>,
    limits: Rc<[u8]>,
    networks: Rc<[u8]>,
    is_shadowed: bool,
    expires_at_ms: u64,
}

impl Edits {
    /// Returns what an update changes.
    ///
    /// # Errors
    ///
    /// An [`UpdateError`] if it contradicts itself.
    pub(super) fn of(update: &Update) -> Result<Self, UpdateError> {
        let mut edits = Self::default();
        let limit_sets = with_none(&update.limit_sets)?;
        edits.take_accounts(update, &limit_sets)?;
        edits.take_tokens(update, &limit_sets)?;
        if !update.anonymous_limits.is_empty() {
            edits.anonymous_limits = json(&update.anonymous_limits)?.to_vec();
        }
        Ok(edits)
    }

    fn take_accounts(
        &mut self,
        update: &Update,
        limit_sets: &[Rc<[u8]>],
    ) -> Result<(), UpdateError> {
        let (ids, limits) = (&update.accounts, &update.account_limits);
        if limits.len() > ids.len() {
            return Err(UpdateError::Columns);
        }
        for (id, &limits) in ids.iter().zip(limits) {
            let limits = entry("limit_sets", limit_sets, limits)?;
            self.account(id).limits = Some(limits);
        }
        for given in &update.resources {
            let id = entry("accounts", ids, given.account)?;
            let resources: &[Resource] = &given.resources;
            let written = if resources.is_empty() { Vec::new() } else { json(resources)?.to_vec() };
            self.account(&id).resources = Some(written);
        }
        for id in &update.removed_accounts {
            let page = self.removed_accounts.entry(page_of_account(id)).or_default();
            page.0.insert(id.clone(), None);
        }
        Ok(())
    }

    fn account(&mut self, id: &str) -> &mut AccountEdit {
        let page = self.accounts.entry(page_of_account(id)).or_default();
        page.0.entry(id.to_owned()).or_default().get_or_insert_default()
    }

    fn take_tokens(&mut self, update: &Update, limit_sets: &[Rc<[u8]>]) -> Result<(), UpdateError> {
        let tokens = &update.tokens;
        let count = tokens.hashes.len();
        let lengths = [
            tokens.keys.len(),
            tokens.kinds.len(),
            tokens.accounts.len(),
            tokens.right_sets.len(),
            tokens.expires_at_ms.len(),
            tokens.network_sets.len(),
        ];
        if lengths.iter().any(|&length| length != count)
            || !(tokens.limit_sets.is_empty() || tokens.limit_sets.len() == count)
        {
            return Err(UpdateError::Columns);
        }
        let accounts: Vec<Rc<str>> = update.accounts.iter().map(|id| id.as_str().into()).collect();
        let right_sets = update.right_sets.iter().map(json).collect::<Result<Vec<_>, _>>()?;
        for network in update.network_sets.iter().flatten() {
            if networks::parse(network).is_none() {
                return Err(UpdateError::Network(network.clone()));
            }
        }
        let network_sets = with_none(&update.network_sets)?;

        for hash in &update.removed_tokens {
            self.token(*hash, None);
        }
        let shadowed = &tokens.shadowed;
        if let Some(&index) = shadowed.iter().find(|&&at| usize_of(at) >= count) {
            return Err(UpdateError::Index { table: "tokens", index });
        }
        let columns = tokens.keys.iter().zip(&tokens.kinds).zip(&tokens.accounts);
        let columns = columns.zip(&tokens.right_sets).zip(&tokens.network_sets);
        let own_limits = tokens.limit_sets.iter().copied().chain(std::iter::repeat(0));
        let columns = columns.zip(&tokens.expires_at_ms).zip(own_limits).zip(&tokens.hashes);
        for (at, row) in columns.enumerate() {
            let (
                ((((((key, &kind), &account), &rights), &networks), &expires_at_ms), limits),
                &hash,
            ) = row;
            let token = Token {
                key: key.clone(),
                kind,
                account: entry("accounts", &accounts, account)?,
                rights: entry("right_sets", &right_sets, rights)?,
                limits: entry("limit_sets", limit_sets, limits)?,
                networks: entry("network_sets", &network_sets, networks)?,
                is_shadowed: shadowed.binary_search_by_key(&at, |&at| usize_of(at)).is_ok(),
                expires_at_ms,
            };
            self.token(hash, Some(token));
        }
        Ok(())
    }

    fn token(&mut self, hash: KeyHash, token: Option<Token>) {
        let page = self.tokens.entry(page_of(&hash)).or_default();
        page.0.insert(hash, token);
    }
}

impl AccountEdits {
    /// Returns the page after the changes, as written in a leader's term.
    pub(super) fn apply<'a>(
        &'a self,
        term: u32,
        mut after: BTreeMap<&'a str, Account<'a>>,
    ) -> Vec<u8> {
        for (id, edit) in &self.0 {
            let Some(edit) = edit else {
                after.remove(id.as_str());
                continue;
            };
            let account =
                after.entry(id.as_str()).or_insert(Account { limits: &[], resources: &[] });
            if let Some(limits) = &edit.limits {
                account.limits = limits;
            }
            if let Some(resources) = &edit.resources {
                account.resources = resources;
            }
        }
        accounts::write(term, &after)
    }
}

impl TokenEdits {
    /// Returns the page after the changes, as written in a leader's term.
    pub(super) fn apply<'a>(
        &'a self,
        term: u32,
        mut entries: BTreeMap<KeyHash, Entry<'a>>,
    ) -> Vec<u8> {
        for (hash, token) in &self.0 {
            match token {
                Some(token) => entries.insert(*hash, token.entry()),
                None => entries.remove(hash),
            };
        }
        tokens::write(term, &entries)
    }
}

impl Token {
    fn entry(&self) -> Entry<'_> {
        Entry {
            key: &self.key,
            kind: self.kind,
            account: &self.account,
            rights: &self.rights,
            limits: &self.limits,
            networks: &self.networks,
            is_shadowed: self.is_shadowed,
            expires_at_ms: self.expires_at_ms,
        }
    }
}

/// Returns the JSON of some sets, after that of none.
fn with_none<T: Serialize>(sets: &[Vec<T>]) -> Result<Vec<Rc<[u8]>>, UpdateError> {
    let written = sets.iter().map(|set| if set.is_empty() { Ok(Rc::from([])) } else { json(set) });
    std::iter::once(Ok(Rc::from([]))).chain(written).collect()
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<Rc<[u8]>, UpdateError> {
    serde_json::to_vec(value).map(Rc::from).map_err(|_| UpdateError::Unwritable)
}

fn entry<T: Clone>(table: &'static str, entries: &[T], index: u32) -> Result<T, UpdateError> {
    entries.get(usize_of(index)).cloned().ok_or(UpdateError::Index { table, index })
}

fn held_text(held: Option<&Revision>) -> String {
    held.map_or_else(|| "nothing".to_owned(), Revision::to_string)
}

//! Snapshots in pages: each is read when it is asked for, and kept a while for others who ask.
//!
//! The pages of one snapshot are not of one moment: what changes after the first one, the delta from
//! that one's revision brings. So nothing has to be kept between two pages, and it does not matter which
//! control plane, or which run of it, gives the next.

use std::collections::HashMap;
use std::fmt::Write;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use latchkey_filter::profile::Profile;
use latchkey_protocol::{KeyHash, Revision};
use rusqlite::Connection;

use super::draft::{Draft, MAX_PAGE_BYTES, to_json};
use crate::store::usable_tokens::Pages;
use crate::store::{Store, StoreError};

/// Pages that were handed out lately, by profile and cursor.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    kept: Mutex<HashMap<(String, Cursor), Kept>>,
    /// Held while a page is made, so that filters that start together share it.
    making: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Kept {
    page: Page,
    made_at: Instant,
    served_at: Instant,
}

/// A page of a snapshot.
#[derive(Clone, Debug)]
pub(super) struct Page {
    /// The revision as of which it was read.
    pub(super) revision: Revision,
    /// Where the next one begins, if there is one.
    pub(super) next: Option<Cursor>,
    /// JSON of an update.
    pub(super) body: Bytes,
}

/// Where a page begins: accounts come first, by id, then tokens, by hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Cursor {
    /// After the account of an id; the empty id is before all.
    Accounts(String),
    /// After the token of a hash, or at the first one.
    Tokens(Option<KeyHash>),
}

/// How fresh a page has to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Freshness {
    /// As of the last change.
    Current,
    /// As of the last change, or not older than [`RECENT`].
    Recent,
    /// As of a revision or later.
    Since(u64),
}

impl Snapshots {
    /// Returns the page at a cursor: one that is fresh enough, or else a new one.
    pub(super) async fn page(
        &self,
        store: &Store,
        profile: &Arc<Profile>,
        cursor: &Cursor,
        freshness: Freshness,
    ) -> Result<Page, StoreError> {
        if let Freshness::Since(_) = freshness
            && let Some(page) = self.find(store, profile, cursor, freshness)
        {
            return Ok(page);
        }
        let _alone = self.making.lock().await;
        if let Some(page) = self.find(store, profile, cursor, freshness) {
            return Ok(page);
        }
        let (asked, from) = (Arc::clone(profile), cursor.clone());
        let made_at = Instant::now();
        let page = store.read(move |connection| read_page(connection, &asked, from)).await?;
        let kept = Kept { page: page.clone(), made_at, served_at: Instant::now() };
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((profile.name.clone(), cursor.clone()), kept);
        if all.len() > MAX_KEPT {
            let oldest = all.iter().min_by_key(|(_, kept)| kept.served_at);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                all.remove(&oldest);
            }
        }
        Ok(page)
    }

    /// Makes the page that comes next, while the filter takes in this one.
    pub(super) fn make_ahead(self: &Arc<Self>, store: &Store, profile: &Arc<Profile>, page: &Page) {
        let Some(next) = page.next.clone() else {
            return;
        };
        let since = Freshness::Since(page.revision.number);
        let (pages, store, profile) = (Arc::clone(self), store.clone(), Arc::clone(profile));
        tokio::spawn(async move {
            // Should it fail, the filter's own poll will tell.
            let _ = pages.page(&store, &profile, &next, since).await;
        });
    }

    /// Lets go of pages that nobody has asked for lately.
    pub(super) fn tidy(&self) {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, kept| kept.served_at.elapsed() < IN_USE);
        if all.is_empty() {
            all.shrink_to_fit();
        }
    }

    fn find(
        &self,
        store: &Store,
        profile: &Profile,
        cursor: &Cursor,
        freshness: Freshness,
    ) -> Option<Page> {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.get_mut(&(profile.name.clone(), cursor.clone()))?;
        let number = kept.page.revision.number;
        let current = || number == *store.watch_revision().borrow();
        let will_do = match freshness {
            Freshness::Current => current(),
            Freshness::Recent => kept.made_at.elapsed() < RECENT || current(),
            Freshness::Since(since) => number >= since,
        };
        if !will_do {
            return None;
        }
        kept.served_at = Instant::now();
        Some(kept.page.clone())
    }
}

/// Reads the page at a cursor: accounts and then tokens, until it is long enough.
fn read_page(
    connection: &Connection,
    profile: &Profile,
    cursor: Cursor,
) -> Result<Page, StoreError> {
    let mut pages = Pages::new(connection, profile)?;
    let mut draft = Draft::default();
    let mut next = Some(cursor);
    while draft.bytes < MAX_PAGE_BYTES
        && let Some(cursor) = next.take()
    {
        next = match cursor {
            Cursor::Accounts(after) => add_accounts(&mut draft, &mut pages, &after)?,
            Cursor::Tokens(after) => add_tokens(&mut draft, &mut pages, after.as_ref())?,
        };
    }
    let mut update = draft.finish(pages.revision, pages.anonymous_limits()?);
    update.next = next.as_ref().map(Cursor::to_string);
    Ok(Page { revision: pages.revision, next, body: Bytes::from(to_json(&update)?) })
}

/// Adds accounts; returns where it goes on.
fn add_accounts(
    draft: &mut Draft,
    pages: &mut Pages<'_>,
    after: &str,
) -> Result<Option<Cursor>, StoreError> {
    let mut last = None;
    for account in pages.accounts(after, ACCOUNTS_AT_ONCE)? {
        let id = account.id.clone();
        draft.add_account(account);
        if draft.bytes >= MAX_PAGE_BYTES {
            return Ok(Some(Cursor::Accounts(id)));
        }
        last = Some(id);
    }
    Ok(Some(last.map_or(Cursor::Tokens(None), Cursor::Accounts)))
}

/// Adds tokens; returns where it goes on, none after the last one.
fn add_tokens(
    draft: &mut Draft,
    pages: &mut Pages<'_>,
    after: Option<&KeyHash>,
) -> Result<Option<Cursor>, StoreError> {
    let mut last = None;
    for token in pages.tokens(after, TOKENS_AT_ONCE)? {
        let hash = token.hash;
        draft.add(token);
        if draft.bytes >= MAX_PAGE_BYTES {
            return Ok(Some(Cursor::Tokens(Some(hash))));
        }
        last = Some(hash);
    }
    Ok(last.map(|hash| Cursor::Tokens(Some(hash))))
}

/// Writes it as filters hand it back: `a` and an id, or `t` and a hash in hexadecimal digits.
impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accounts(id) => write!(f, "a{id}"),
            Self::Tokens(hash) => {
                f.write_char('t')?;
                let bytes = hash.iter().flat_map(|hash| hash.as_bytes());
                bytes.copied().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// A text that is no cursor.
#[derive(Debug)]
pub(super) struct NoCursor;

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(id) = text.strip_prefix('a') {
            return Ok(Self::Accounts(id.to_owned()));
        }
        let digits = text.strip_prefix('t').ok_or(NoCursor)?;
        if digits.is_empty() {
            return Ok(Self::Tokens(None));
        }
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        let byte = |pair: &[u8; 2]| {
            let text = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(text, 16).ok()
        };
        let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
        let hash = bytes.filter(|_| rest.is_empty()).and_then(|bytes| bytes.try_into().ok());
        hash.map(|hash| Self::Tokens(Some(KeyHash::from_bytes(hash)))).ok_or(NoCursor)
    }
}

/// How old the first page may be for a filter that has nothing: those that start together share it. A
/// filter brings a snapshot up to date before it uses it.
const RECENT: Duration = Duration::from_secs(5);

/// How long after it was asked for a page is kept.
const IN_USE: Duration = Duration::from_secs(10);

/// Pages that are kept at most: 32 MiB. Filters that start together are not far from each other.
const MAX_KEPT: usize = 128;

/// Rows that are read at once: about a page of tokens, of accounts a part of it.
const TOKENS_AT_ONCE: i64 = 1_024;
const ACCOUNTS_AT_ONCE: i64 = 256;

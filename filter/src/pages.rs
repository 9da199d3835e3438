//! Pages: the form in which a snapshot lies in what the VMs of a proxy share.
//!
//! A token is on the page that the leading bits of its hash say ([`page_of`]), an account on that of
//! its id's hash. A page is looked up in as it lies there ([`tokens::Page::find`]); an [`index::Index`]
//! says which version of each there is. Numbers are little-endian.

pub mod accounts;
mod bytes;
pub mod index;
pub mod tokens;

use latchkey_protocol::KeyHash;

use bytes::Reader;

/// Number of pages of tokens, and of accounts.
///
/// Of a million tokens a page has 244, about 18 kB, which is copied and looked up in within 10 µs; of
/// ten million ten times that. The index has eight bytes for each.
pub const PAGES: usize = 1 << PAGE_BITS;

const PAGE_BITS: u32 = 12;

/// Returns the page of a token.
#[must_use]
pub fn page_of(hash: &KeyHash) -> usize {
    let [first, second, ..] = *hash.as_bytes();
    usize::from(u16::from_be_bytes([first, second]) >> (16 - PAGE_BITS))
}

/// Returns the page of an account.
#[must_use]
pub fn page_of_account(id: &str) -> usize {
    page_of(&KeyHash::of(id.as_bytes()))
}

/// Returns by which leader's term a page was written ([`crate::roster`]).
///
/// # Errors
///
/// [`Unreadable`] if the bytes are no page.
pub fn term_of(page: &[u8]) -> Result<u32, Unreadable> {
    Reader(page).u32()
}

/// Returns a number as an index: one that is past every end where it does not fit.
pub(crate) fn usize_of(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A page or index that is not as this code writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a page in shared data is not readable")]
pub struct Unreadable;

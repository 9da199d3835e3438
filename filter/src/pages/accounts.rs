//! A page of accounts, by id, with their limits and resources; before them the term in which it was
//! written.

use std::collections::BTreeMap;

use super::Unreadable;
use super::bytes::{Reader, as_u64, put_bytes, put_varint};

/// What a page says of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// JSON of its limits; empty, it has none.
    pub limits: &'a [u8],
    /// JSON of its resources; empty, it has none.
    pub resources: &'a [u8],
}

/// Returns what a page says of its accounts.
///
/// # Errors
///
/// [`Unreadable`] if the bytes are no page.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<&str, Entry<'_>>, Unreadable> {
    let mut reader = Reader(bytes);
    let (_term, count) = (reader.u32()?, reader.varint()?);
    let mut accounts = BTreeMap::new();
    for _ in 0..count {
        let id = reader.text()?;
        let entry = Entry { limits: reader.bytes()?, resources: reader.bytes()? };
        accounts.insert(id, entry);
    }
    Ok(accounts)
}

/// Returns what a page says of one account, if it is there.
///
/// # Errors
///
/// [`Unreadable`] if the bytes are no page.
pub fn find<'a>(bytes: &'a [u8], id: &str) -> Result<Option<Entry<'a>>, Unreadable> {
    let mut reader = Reader(bytes);
    let (_term, count) = (reader.u32()?, reader.varint()?);
    for _ in 0..count {
        let found = reader.text()?;
        let entry = Entry { limits: reader.bytes()?, resources: reader.bytes()? };
        if found == id {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Returns the bytes of a page that is written in a leader's term.
#[must_use]
pub fn write(term: u32, accounts: &BTreeMap<&str, Entry<'_>>) -> Vec<u8> {
    let mut page = term.to_le_bytes().to_vec();
    put_varint(&mut page, as_u64(accounts.len()));
    for (id, entry) in accounts {
        for part in [id.as_bytes(), entry.limits, entry.resources] {
            put_bytes(&mut page, part);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn page_says_of_each_account_what_was_written(
            accounts in prop::collection::btree_map("[a-z]{1,4}", any::<(Vec<u8>, Vec<u8>)>(), 0..20)
        ) {
            let accounts: BTreeMap<&str, Entry<'_>> = accounts
                .iter()
                .map(|(id, (limits, resources))| (id.as_str(), Entry { limits, resources }))
                .collect();
            let page = write(7, &accounts);
            prop_assert_eq!(crate::pages::term_of(&page), Ok(7));
            for (id, entry) in &accounts {
                prop_assert_eq!(find(&page, id), Ok(Some(*entry)));
            }
            prop_assert_eq!(find(&page, "UNKNOWN"), Ok(None));
            prop_assert_eq!(read(&page), Ok(accounts));
        }

        #[test]
        fn whatever_the_bytes_reading_them_ends(bytes in any::<Vec<u8>>()) {
            let _ = read(&bytes);
            let _ = find(&bytes, "a");
        }
    }
}

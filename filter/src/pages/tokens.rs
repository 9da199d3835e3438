//! A page of tokens: sorted by hash, what several have in common once.
//!
//! The term in which it was written, the numbers of tokens and texts and the length of all records come first;
//! then the hashes, where each record starts, where each text starts and ends, the records, the texts.

use std::collections::BTreeMap;

use latchkey_protocol::{KeyHash, KeyKind};

use super::bytes::{Reader, as_u64, put_bytes, put_len, put_varint};
use super::{Unreadable, usize_of};

/// A page, read where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    hashes: &'a [[u8; KeyHash::BYTES]],
    starts: &'a [[u8; 4]],
    records: &'a [u8],
    text_ends: &'a [[u8; 4]],
    texts: &'a [u8],
}

/// What a page says of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Id of the key.
    pub key: &'a str,
    /// Kind of the key.
    pub kind: KeyKind,
    /// Id of the account.
    pub account: &'a str,
    /// JSON of its rights.
    pub rights: &'a [u8],
    /// JSON of the limits of its own; empty, it has none.
    pub limits: &'a [u8],
    /// JSON of the networks from which it may be used; empty, from all.
    pub networks: &'a [u8],
    /// Whether what its rights forbid is noted and let through.
    pub is_shadowed: bool,
    /// First moment at which it is no longer valid, in milliseconds since the epoch; 0 is never.
    pub expires_at_ms: u64,
}

impl<'a> Page<'a> {
    /// Returns the page that some bytes are.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] if they are none.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader(bytes);
        let [_term, count, texts, record_bytes] =
            [reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?];
        let [count, texts, record_bytes] = [count, texts, record_bytes].map(usize_of);
        let hashes = reader.take(count.checked_mul(KeyHash::BYTES).ok_or(Unreadable)?)?;
        Ok(Self {
            hashes: hashes.as_chunks().0,
            starts: reader.u32s(count)?,
            text_ends: reader.u32s(texts)?,
            records: reader.take(record_bytes)?,
            texts: reader.0,
        })
    }

    /// Returns what the page says of a token, if it is there.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] if what it says cannot be read.
    pub fn find(&self, hash: &KeyHash) -> Result<Option<Entry<'a>>, Unreadable> {
        match self.hashes.binary_search(hash.as_bytes()) {
            Ok(index) => self.entry(index).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Returns all tokens, in the order of their hashes.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] if one cannot be read.
    pub fn entries(&self) -> Result<BTreeMap<KeyHash, Entry<'a>>, Unreadable> {
        let hashes = self.hashes.iter().copied().map(KeyHash::from_bytes);
        hashes.enumerate().map(|(index, hash)| Ok((hash, self.entry(index)?))).collect()
    }

    fn entry(&self, index: usize) -> Result<Entry<'a>, Unreadable> {
        let start = number(self.starts, index)?;
        let mut record = Reader(self.records.get(start..).ok_or(Unreadable)?);
        let flags = record.byte()?;
        let kind = match flags & KIND {
            0 => KeyKind::ApplicationReadWrite,
            1 => KeyKind::ApplicationReadOnly,
            2 => KeyKind::UserDefined,
            _ => return Err(Unreadable),
        };
        let account = self.text(record.varint()?)?;
        Ok(Entry {
            kind,
            account: std::str::from_utf8(account).map_err(|_| Unreadable)?,
            rights: self.text(record.varint()?)?,
            limits: self.text(record.varint()?)?,
            networks: self.text(record.varint()?)?,
            is_shadowed: flags & SHADOWED != 0,
            expires_at_ms: record.varint()?,
            key: record.text()?,
        })
    }

    /// Returns a text by its number; the first one is empty.
    fn text(&self, index: u64) -> Result<&'a [u8], Unreadable> {
        let Some(index) = index.checked_sub(1) else {
            return Ok(&[]);
        };
        let index = usize::try_from(index).map_err(|_| Unreadable)?;
        let start = match index.checked_sub(1) {
            Some(before) => number(self.text_ends, before)?,
            None => 0,
        };
        self.texts.get(start..number(self.text_ends, index)?).ok_or(Unreadable)
    }
}

/// Returns the bytes of a page that is written in a leader's term.
#[must_use]
pub fn write(term: u32, entries: &BTreeMap<KeyHash, Entry<'_>>) -> Vec<u8> {
    let mut texts = Texts::default();
    let mut starts = Vec::with_capacity(entries.len() * 4);
    let mut records = Vec::with_capacity(entries.len() * RECORD_BYTES);
    for entry in entries.values() {
        put_len(&mut starts, records.len());
        let kind = match entry.kind {
            KeyKind::ApplicationReadWrite => 0,
            KeyKind::ApplicationReadOnly => 1,
            KeyKind::UserDefined => 2,
        };
        records.push(kind | if entry.is_shadowed { SHADOWED } else { 0 });
        for text in [entry.account.as_bytes(), entry.rights, entry.limits, entry.networks] {
            put_varint(&mut records, texts.number(text));
        }
        put_varint(&mut records, entry.expires_at_ms);
        put_bytes(&mut records, entry.key.as_bytes());
    }
    let tokens_bytes = entries.len() * KeyHash::BYTES + starts.len() + records.len();
    let mut page = Vec::with_capacity(16 + tokens_bytes + texts.ends.len() + texts.bytes.len());
    page.extend_from_slice(&term.to_le_bytes());
    put_len(&mut page, entries.len());
    put_len(&mut page, texts.ends.len() / 4);
    put_len(&mut page, records.len());
    for hash in entries.keys() {
        page.extend_from_slice(hash.as_bytes());
    }
    for part in [&starts, &texts.ends, &records, &texts.bytes] {
        page.extend_from_slice(part);
    }
    page
}

/// Texts of a page, each once.
#[derive(Default)]
struct Texts<'a> {
    numbers: BTreeMap<&'a [u8], u64>,
    ends: Vec<u8>,
    bytes: Vec<u8>,
}

impl<'a> Texts<'a> {
    /// Returns the number of a text, from 1; that of an empty one is 0.
    fn number(&mut self, text: &'a [u8]) -> u64 {
        if text.is_empty() {
            return 0;
        }
        let next = as_u64(self.numbers.len()) + 1;
        *self.numbers.entry(text).or_insert_with(|| {
            self.bytes.extend_from_slice(text);
            put_len(&mut self.ends, self.bytes.len());
            next
        })
    }
}

fn number(numbers: &[[u8; 4]], index: usize) -> Result<usize, Unreadable> {
    numbers.get(index).map(|bytes| usize_of(u32::from_le_bytes(*bytes))).ok_or(Unreadable)
}

/// Bits of the first byte of a record.
const KIND: u8 = 0b11;
const SHADOWED: u8 = 0b100;

/// About how long a record is.
const RECORD_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn page_says_of_each_token_what_was_written(
            tokens in prop::collection::btree_map(
                any::<[u8; 32]>(),
                ("[a-z]{0,20}", "[a-c]", "[a-c]{0,2}", 0_u64..3, any::<(u64, bool)>()),
                0..60,
            ),
            unknown in any::<[u8; 32]>(),
        ) {
            let kinds =
                [KeyKind::ApplicationReadWrite, KeyKind::ApplicationReadOnly, KeyKind::UserDefined];
            let entries: BTreeMap<KeyHash, Entry<'_>> = tokens
                .iter()
                .map(|(hash, (key, account, text, kind, (expires_at_ms, is_shadowed)))| {
                    let entry = Entry {
                        key,
                        kind: kinds[usize::try_from(*kind).unwrap()],
                        account,
                        rights: text.as_bytes(),
                        limits: account.as_bytes(),
                        networks: text.as_bytes(),
                        is_shadowed: *is_shadowed,
                        expires_at_ms: *expires_at_ms,
                    };
                    (KeyHash::from_bytes(*hash), entry)
                })
                .collect();
            let bytes = write(7, &entries);
            let page = Page::parse(&bytes).unwrap();
            prop_assert_eq!(page.entries(), Ok(entries.clone()));
            for (hash, entry) in &entries {
                prop_assert_eq!(page.find(hash), Ok(Some(*entry)));
            }
            let unknown = KeyHash::from_bytes(unknown);
            prop_assert_eq!(page.find(&unknown), Ok(entries.get(&unknown).copied()));
        }

        #[test]
        fn whatever_the_bytes_reading_them_ends(bytes in any::<Vec<u8>>(), count in 0_u32..5) {
            let _ = Page::parse(&bytes).map(|page| page.entries());
            // One whose lengths are right, so that what follows is looked at.
            let mut page = [1, count, count, 8].map(u32::to_le_bytes).concat();
            page.extend_from_slice(&bytes);
            if let Ok(page) = Page::parse(&page) {
                let _ = page.entries();
                let _ = page.find(&KeyHash::from_bytes([0; 32]));
            }
        }
    }
}

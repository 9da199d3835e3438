//! The index: what is in use, and which version of each page.

use latchkey_protocol::Revision;

use super::bytes::{Reader, put_bytes};
use super::{PAGES, Unreadable};
use crate::shared::Bank;

/// What is in use as of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Number of the publication; each has a higher one than that before.
    pub sequence: u32,
    /// The revision up to which all changes are in.
    pub revision: Revision,
    /// Where the pages are.
    pub bank: Bank,
    /// Whether the pages of the other bank have been emptied.
    pub is_tidy: bool,
    /// JSON of the limits of each client address that calls without a token.
    pub anonymous_limits: Vec<u8>,
    /// Version of each page of tokens: the publication that brought it; 0 if it has none.
    pub tokens: Vec<u32>,
    /// Version of each page of accounts.
    pub accounts: Vec<u32>,
}

impl Index {
    /// Returns the index of a snapshot without pages.
    #[must_use]
    pub fn empty(revision: Revision, bank: Bank) -> Self {
        Self {
            sequence: 0,
            revision,
            bank,
            is_tidy: true,
            anonymous_limits: Vec::new(),
            tokens: vec![0; PAGES],
            accounts: vec![0; PAGES],
        }
    }

    /// Returns the index that some bytes are.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] if they are none.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader(bytes);
        let sequence = reader.u32()?;
        let revision = Revision { number: reader.u64()?, mark: reader.u64()? };
        let bank = if reader.byte()? == Bank::A.digit() { Bank::A } else { Bank::B };
        let is_tidy = reader.byte()? != 0;
        let mut versions = || -> Result<Vec<u32>, Unreadable> {
            Ok(reader.u32s(PAGES)?.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
        };
        let (tokens, accounts) = (versions()?, versions()?);
        let anonymous_limits = reader.bytes()?.to_vec();
        Ok(Self { sequence, revision, bank, is_tidy, anonymous_limits, tokens, accounts })
    }

    /// Returns its bytes.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 * PAGES + self.anonymous_limits.len() + 64);
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.revision.number.to_le_bytes());
        bytes.extend_from_slice(&self.revision.mark.to_le_bytes());
        bytes.push(self.bank.digit());
        bytes.push(u8::from(self.is_tidy));
        for version in self.tokens.iter().chain(&self.accounts) {
            bytes.extend_from_slice(&version.to_le_bytes());
        }
        put_bytes(&mut bytes, &self.anonymous_limits);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_comes_back() {
        let mut index = Index::empty(Revision { number: 7, mark: 9 }, Bank::B);
        index.sequence = 3;
        index.is_tidy = false;
        index.anonymous_limits = b"[]".to_vec();
        index.tokens[5] = 2;
        index.accounts[PAGES - 1] = 3;
        let bytes = index.write();
        assert_eq!(Index::parse(&bytes), Ok(index));
        for end in 0..bytes.len() {
            assert_eq!(Index::parse(&bytes[..end]), Err(Unreadable), "{end}");
        }
    }
}

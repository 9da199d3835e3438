//! Positions in the control plane's change log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A position in the change log of one store.
///
/// The mark is drawn at random with each change, so that a position in the log of another store (a
/// wiped one, or one restored from a backup and then changed differently) is not mistaken for one
/// in this log, though its number may exist here too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Revision {
    /// Number of the change, from 1; 0 is the empty store.
    pub number: u64,
    /// Random bits of the change with that number.
    pub mark: u64,
}

/// Writes `number-mark`, the mark in 16 hexadecimal digits.
impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.mark)
    }
}

/// A text that is no revision.
#[derive(Debug, thiserror::Error)]
#[error("expected a revision such as `57-00f1e2d3c4b5a697`, found `{0}`")]
pub struct ParseRevisionError(String);

impl FromStr for Revision {
    type Err = ParseRevisionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('-').and_then(|(number, mark)| {
            let number = number.parse().ok()?;
            let mark = u64::from_str_radix(mark, 16).ok()?;
            Some(Self { number, mark })
        });
        parsed.ok_or_else(|| ParseRevisionError(text.to_owned()))
    }
}

impl TryFrom<String> for Revision {
    type Error = ParseRevisionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Revision> for String {
    fn from(revision: Revision) -> Self {
        revision.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revision_is_parsed_and_shown_alike() {
        let revision = Revision { number: 57, mark: 0xab };
        assert_eq!(revision.to_string(), "57-00000000000000ab");
        assert_eq!("57-00000000000000ab".parse::<Revision>().unwrap(), revision);
        for text in ["", "57", "-ab", "57-", "x-1", "57-xyz", "57-1-2"] {
            assert!(text.parse::<Revision>().is_err(), "{text}");
        }
    }
}

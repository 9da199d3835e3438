//! Tokens: their format with its checksum, and the hash by which both planes know them.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The SHA-256 of a token: all that is stored, sent or compared of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash([u8; Self::BYTES]);

impl KeyHash {
    /// Length of a hash, in bytes.
    pub const BYTES: usize = 32;

    /// Returns the hash of a token's bytes.
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Returns the hash that has these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

/// Shows the first four bytes only: enough to tell two apart, too little to look one up.
impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "KeyHash({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

/// A token in the clear, shown to a person once and kept nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainToken(String);

impl PlainToken {
    /// Returns the token for the one answer that may show it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns the hash under which the token is stored.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.0.as_bytes())
    }

    /// Returns the token's last four characters, by which a person recognizes it.
    #[must_use]
    pub fn hint(&self) -> String {
        let start = self.0.len().saturating_sub(HINT_CHARS);
        format!("…{}", self.0.get(start..).unwrap_or_default())
    }
}

/// What a client presented, of whatever form.
impl From<String> for PlainToken {
    fn from(token: String) -> Self {
        Self(token)
    }
}

impl fmt::Debug for PlainToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainToken(redacted)")
    }
}

/// How an API's tokens look: a prefix, random characters, six checksum characters.
///
/// The checksum is that of GitHub's tokens: the CRC-32 (IEEE) of the random characters without the
/// prefix, in base62 (`0-9A-Za-z`), padded on the left with `0`. It lets scanners tell a token from
/// a look-alike without asking anyone; look-up never depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFormat {
    /// What every token starts with, such as `ftq_`.
    pub prefix: String,
    /// Number of random base62 characters.
    pub random_chars: usize,
}

impl TokenFormat {
    /// Characters of the checksum: 62^6 is the first power of 62 above 2^32.
    pub const CHECKSUM_CHARS: usize = 6;

    /// Returns the token made of these random characters.
    #[must_use]
    pub fn token(&self, random: &str) -> PlainToken {
        PlainToken(format!("{}{random}{}", self.prefix, checksum(random)))
    }

    /// Reports whether a text has this format, its checksum included.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Some(rest) = text.strip_prefix(&self.prefix) else {
            return false;
        };
        rest.len() == self.random_chars + Self::CHECKSUM_CHARS
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && rest
                .split_at_checked(self.random_chars)
                .is_some_and(|(random, given)| checksum(random) == given)
    }
}

/// Returns the six base62 characters of the CRC-32 of some characters.
fn checksum(random: &str) -> String {
    let mut rest = crc32fast::hash(random.as_bytes());
    let mut characters = [b'0'; TokenFormat::CHECKSUM_CHARS];
    for character in characters.iter_mut().rev() {
        let [digit, ..] = (rest % 62).to_le_bytes();
        *character = match digit {
            0..=9 => b'0' + digit,
            10..=35 => b'A' + (digit - 10),
            _ => b'a' + (digit - 36),
        };
        rest /= 62;
    }
    characters.iter().copied().map(char::from).collect()
}

/// Characters of a token that its hint shows. All four are of the checksum, so they give away
/// nothing that narrows a search of the random part by more than 24 of its 142 bits.
const HINT_CHARS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// The dummies that GitHub and npm published for their scanners' tests.
    #[test]
    fn published_tokens_have_a_valid_checksum() {
        for (prefix, token) in [
            ("npm_", "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"),
            ("ghp_", "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"),
        ] {
            let format = TokenFormat { prefix: prefix.into(), random_chars: 30 };
            assert!(format.matches(token), "{token}");
        }
    }

    #[test]
    fn altered_token_does_not_match() {
        let format = TokenFormat { prefix: "ftq_".into(), random_chars: 24 };
        let token = format.token("abcdefghijklmnopqrstuvwx");
        assert!(format.matches(token.reveal()));
        for altered in [
            token.reveal().replace("abc", "xyz"),
            token.reveal().replace("ftq_", "ftx_"),
            format!("{}0", token.reveal()),
            token.reveal()[..30].to_owned(),
            "ftq_äöüäöüäöüäöüäöü".to_owned(),
            String::new(),
        ] {
            assert!(!format.matches(&altered), "{altered}");
        }
    }

    #[test]
    fn debug_shows_no_token() {
        let token = TokenFormat { prefix: "ftq_".into(), random_chars: 4 }.token("abcd");
        assert_eq!(format!("{token:?}"), "PlainToken(redacted)");
        assert_eq!(format!("{:?}", KeyHash::of(b"")), "KeyHash(e3b0c442…)");
    }
}

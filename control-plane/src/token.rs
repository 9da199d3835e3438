//! Making tokens and ids: all of the control plane's randomness.

use latchkey_protocol::{PlainToken, TokenFormat};
use rand::distr::{Alphanumeric, SampleString};
use rand::rand_core::{Rng, UnwrapErr};
use rand::rngs::SysRng;

use crate::store::MintedToken;

/// Returns a new token of a format, of the operating system's randomness.
pub(crate) fn generate(format: &TokenFormat) -> PlainToken {
    format.token(&random(format.random_chars))
}

/// Returns what is kept of a token, with its encrypted form if there is one.
pub(crate) fn minted(token: &PlainToken, sealed: Option<Vec<u8>>) -> MintedToken {
    MintedToken { hash: token.hash(), hint: token.hint(), sealed }
}

/// Returns a new id: a prefix and 14 base62 characters, so 83 random bits.
pub(crate) fn new_id(prefix: &str) -> String {
    format!("{prefix}{}", random(14))
}

/// Returns a secret of 256 random bits, for a cookie or a link.
pub(crate) fn new_secret() -> String {
    random(43)
}

/// Returns bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns random bytes, for a nonce.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    UnwrapErr(SysRng).fill_bytes(&mut bytes);
    bytes
}

/// Returns so many base62 characters.
///
/// The operating system's generator does not fail once it has started; should it ever, stopping is
/// better than a guessable token.
fn random(chars: usize) -> String {
    Alphanumeric.sample_string(&mut UnwrapErr(SysRng), chars)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_their_format_and_differ() {
        let format = TokenFormat { prefix: "ftq_".to_owned(), random_chars: 24 };
        let (one, two) = (generate(&format), generate(&format));
        assert!(format.matches(one.reveal()));
        assert_eq!(one.reveal().len(), 34);
        assert_ne!(one.reveal(), two.reveal());
    }
}

//! Tokens kept encrypted, so that the panel can show them again.
//!
//! XChaCha20-Poly1305 with a random nonce; account and key are authenticated along, so that what was
//! sealed for one key opens for no other.

use anyhow::bail;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use latchkey_protocol::PlainToken;

use crate::token;

/// What encrypts tokens.
pub(crate) struct SealingKey(XChaCha20Poly1305);

impl SealingKey {
    /// Reads a key: 32 bytes in base64.
    ///
    /// # Errors
    ///
    /// What was expected; never what was found.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let bytes = STANDARD.decode(text.trim()).unwrap_or_default();
        match XChaCha20Poly1305::new_from_slice(&bytes) {
            Ok(cipher) => Ok(Self(cipher)),
            Err(_) => bail!(
                "LATCHKEY_SEALING_KEY: expected 32 bytes in base64, such as `openssl rand -base64 32` \
                 prints"
            ),
        }
    }

    /// Encrypts the token of a key: the nonce, then the rest. None if that fails, which it does not.
    pub(crate) fn seal(&self, token: &PlainToken, account: &str, key: &str) -> Option<Vec<u8>> {
        let nonce = token::random_bytes::<NONCE_BYTES>();
        let bound = bound_to(account, key);
        let payload = Payload { msg: token.reveal().as_bytes(), aad: &bound };
        let sealed = self.0.encrypt(&XNonce::from(nonce), payload).ok()?;
        Some([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts the token of a key; none if it was sealed with another sealing key, or for another.
    pub(crate) fn open(&self, sealed: &[u8], account: &str, key: &str) -> Option<PlainToken> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let bound = bound_to(account, key);
        let payload = Payload { msg: sealed, aad: &bound };
        let token = self.0.decrypt(&XNonce::from(*nonce), payload).ok()?;
        String::from_utf8(token).ok().map(PlainToken::from)
    }
}

/// Leaves the key out.
impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey")
    }
}

fn bound_to(account: &str, key: &str) -> Vec<u8> {
    // No id has a line break in it.
    format!("{account}\n{key}").into_bytes()
}

/// Length of a nonce of `XChaCha20`, long enough to be drawn at random.
const NONCE_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_token_opens_for_its_key_only() {
        let sealing = SealingKey::parse(&STANDARD.encode([7; 32])).unwrap();
        let token = PlainToken::from("ftq_secret".to_owned());
        let sealed = sealing.seal(&token, "acme", "key_1").unwrap();
        assert_ne!(sealed, sealing.seal(&token, "acme", "key_1").unwrap());
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(sealing.open(&sealed, "acme", "key_1"), Some(token));
        assert_eq!(sealing.open(&sealed, "acme", "key_2"), None);
        assert_eq!(sealing.open(&sealed, "acm", "ekey_1"), None);
        let other = SealingKey::parse(&STANDARD.encode([8; 32])).unwrap();
        assert_eq!(other.open(&sealed, "acme", "key_1"), None);
        assert_eq!(sealing.open(&sealed[..20], "acme", "key_1"), None);
    }

    #[test]
    fn unusable_sealing_key_is_refused_and_not_repeated() {
        for text in ["", "c2hvcnQ=", "not base64 at all: secret"] {
            let error = SealingKey::parse(text).unwrap_err().to_string();
            assert!(error.contains("32 bytes in base64") && !error.contains("secret:"), "{error}");
        }
    }
}

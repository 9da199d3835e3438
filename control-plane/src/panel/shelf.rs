//! What is shown once: tokens and one-time links that were just made.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use latchkey_protocol::KeyHash;

/// Secrets that were just made and are about to be shown: in memory, for minutes, to one session.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<HashMap<(KeyHash, Shelved), Laid>>);

/// Where on the shelf something lies: the path of the page that shows it. Stands in the extensions of an
/// answer that leads there, or has shown it already.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shelved(pub(crate) String);

/// A secret, and whom it is for where that is not told by the page.
#[derive(Clone)]
pub(crate) struct Secret {
    pub(crate) text: String,
    pub(crate) whose: String,
}

struct Laid {
    secret: Secret,
    /// How often it can still be shown: once for each answer that led to its page.
    showings: usize,
    since: Instant,
}

impl Shelf {
    /// Lays a secret aside, to be shown so many times.
    pub(super) fn put(&self, session: KeyHash, page: &Shelved, secret: Secret, showings: usize) {
        let mut shelf = self.laid();
        shelf.retain(|_, laid| laid.since.elapsed() < SHELF_TIME);
        if shelf.len() >= MAX_SECRETS
            && let Some(oldest) = shelf.iter().min_by_key(|(_, laid)| laid.since)
        {
            let oldest = oldest.0.clone();
            shelf.remove(&oldest);
        }
        let laid = Laid { secret, showings, since: Instant::now() };
        shelf.insert((session, page.clone()), laid);
    }

    /// Lets a secret be shown once more, to who sent the form again that made it.
    pub(super) fn show_again(&self, session: KeyHash, page: &Shelved) {
        if let Some(laid) = self.laid().get_mut(&(session, page.clone())) {
            laid.showings = (laid.showings + 1).min(MAX_SHOWINGS);
        }
    }

    /// Returns a secret to show it, if it is still to be shown.
    pub(super) fn take(&self, session: KeyHash, page: &Shelved) -> Option<Secret> {
        let mut shelf = self.laid();
        let laid = shelf.get_mut(&(session, page.clone()))?;
        if laid.showings == 0 || laid.since.elapsed() >= SHELF_TIME {
            return None;
        }
        laid.showings -= 1;
        Some(laid.secret.clone())
    }

    fn laid(&self) -> std::sync::MutexGuard<'_, HashMap<(KeyHash, Shelved), Laid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says nothing of what lies on it.
impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("secrets", &self.laid().len()).finish()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A browser asks for the next page at once; a person who sends the form again does so within minutes.
const SHELF_TIME: Duration = Duration::from_secs(300);

/// Far more than are made in minutes by hand.
const MAX_SECRETS: usize = 1_000;

/// Clicks of an impatient person.
const MAX_SHOWINGS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_shown_once_for_each_time_its_form_was_sent() {
        let shelf = Shelf::default();
        let (ada, bob) = (KeyHash::of(b"ada"), KeyHash::of(b"bob"));
        let page = Shelved("/accounts/acme/keys/key_1".to_owned());
        let secret = Secret { text: "ftq_1".to_owned(), whose: String::new() };
        shelf.put(ada, &page, secret, 1);
        assert!(shelf.take(bob, &page).is_none(), "it is another session's");
        let take = || shelf.take(ada, &page).map(|secret| secret.text);
        assert_eq!(take().as_deref(), Some("ftq_1"));
        assert!(take().is_none(), "a reload does not show it again");
        shelf.show_again(ada, &page);
        assert_eq!(take().as_deref(), Some("ftq_1"));
        assert!(take().is_none());
        assert!(!format!("{shelf:?}").contains("ftq_1"));
    }

    #[test]
    fn shelf_does_not_grow_without_end() {
        let shelf = Shelf::default();
        for number in 0..MAX_SECRETS + 5 {
            let secret = Secret { text: String::new(), whose: String::new() };
            shelf.put(KeyHash::of(b"ada"), &Shelved(number.to_string()), secret, 1);
        }
        assert_eq!(shelf.laid().len(), MAX_SECRETS);
    }
}

//! Deltas: worked out once for all filters that are at the same revision.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use latchkey_filter::profile::Profile;
use latchkey_protocol::{Revision, Update};

use super::draft::{Draft, MAX_DELTA_BYTES, to_json};
use crate::store::changes::{self, Changed, Changes};
use crate::store::{Store, StoreError};

/// What was told lately, by profile and revision.
#[derive(Debug, Default)]
pub(crate) struct Deltas {
    kept: Mutex<HashMap<(String, Revision), Kept>>,
    /// Held while one is made, so that filters that wait together share it.
    making: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Kept {
    /// Number of the last change when it was made.
    number: u64,
    delta: Delta,
}

/// What there is for a filter at a revision.
#[derive(Clone, Debug)]
pub(super) enum Delta {
    /// There is no way from there.
    Gap,
    /// Nothing yet.
    Nothing,
    /// JSON of an update.
    Some(Bytes),
}

impl Deltas {
    /// Returns what there is for filters of a profile that are at a revision.
    pub(super) async fn after(
        &self,
        store: &Store,
        profile: &Arc<Profile>,
        after: Revision,
    ) -> Result<Delta, StoreError> {
        let id = (profile.name.clone(), after);
        let number = *store.watch_revision().borrow();
        if let Some(delta) = self.find(&id, number) {
            return Ok(delta);
        }
        let _alone = self.making.lock().await;
        let number = *store.watch_revision().borrow();
        if let Some(delta) = self.find(&id, number) {
            return Ok(delta);
        }
        let asked = Arc::clone(profile);
        let delta = store.read(move |connection| {
            Ok(match changes::changed_since(connection, &asked, after)? {
                Changed::Gap => Delta::Gap,
                Changed::Some(changes) if changes.revision == after => Delta::Nothing,
                Changed::Some(changes) => write(after, changes)?,
            })
        });
        let delta = delta.await?;
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, kept| kept.number == number);
        if all.len() < MAX_KEPT {
            all.insert(id, Kept { number, delta: delta.clone() });
        }
        Ok(delta)
    }

    fn find(&self, id: &(String, Revision), number: u64) -> Option<Delta> {
        let all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(id).filter(|kept| kept.number == number).map(|kept| kept.delta.clone())
    }
}

/// Returns the delta from a revision.
pub(super) fn write(base: Revision, changes: Changes) -> Result<Delta, StoreError> {
    let mut draft = Draft::default();
    for account in changes.accounts {
        draft.add_account(account);
    }
    for row in changes.usable {
        draft.add(row);
    }
    if draft.bytes > MAX_DELTA_BYTES {
        return Ok(Delta::Gap);
    }
    let update = Update {
        base: Some(base),
        is_cut: changes.is_cut,
        removed_tokens: changes.removed,
        removed_accounts: changes.removed_accounts,
        ..draft.finish(changes.revision, changes.anonymous_limits)
    };
    Ok(Delta::Some(Bytes::from(to_json(&update)?)))
}

/// Deltas that are kept at most, all of one moment: most filters are at the change before.
const MAX_KEPT: usize = 16;

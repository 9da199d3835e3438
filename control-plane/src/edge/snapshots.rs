//! Snapshots in pages: made once, kept while filters take them in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use latchkey_protocol::Revision;

use latchkey_filter::profile::Profile;

use super::draft::{Draft, MAX_PAGE_BYTES, to_json};
use crate::store::changes::{self, Everything};
use crate::store::{Store, StoreError};

/// Snapshots that are being handed out, by profile.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    kept: Mutex<HashMap<String, Vec<Kept>>>,
    /// Held while one is made, so that filters that start together share it.
    making: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Kept {
    snapshot: Arc<Snapshot>,
    served_at: Instant,
}

/// All usable tokens of a profile, as of a revision.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) revision: Revision,
    /// JSON of its updates.
    pub(super) pages: Vec<Bytes>,
    made_at: Instant,
}

impl Snapshots {
    /// Returns the newest snapshot that is wanted, and notes that it is in use.
    pub(super) fn find(
        &self,
        profile: &str,
        is_wanted: impl Fn(&Snapshot) -> bool,
    ) -> Option<Arc<Snapshot>> {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.get_mut(profile)?.iter_mut().rev().find(|kept| is_wanted(&kept.snapshot))?;
        kept.served_at = Instant::now();
        Some(Arc::clone(&kept.snapshot))
    }

    /// Returns a snapshot to which nothing has happened since, or that is younger than a while; else
    /// a new one.
    pub(super) async fn recent(
        &self,
        store: &Store,
        profile: &Arc<Profile>,
        patience: Duration,
    ) -> Result<Arc<Snapshot>, StoreError> {
        let _alone = self.making.lock().await;
        let current = *store.watch_revision().borrow();
        let will_do =
            |kept: &Snapshot| kept.revision.number == current || kept.made_at.elapsed() < patience;
        if let Some(snapshot) = self.find(&profile.name, will_do) {
            return Ok(snapshot);
        }
        let asked = Arc::clone(profile);
        let made = store.read(move |connection| {
            let made_at = Instant::now();
            let everything = changes::snapshot(connection, &asked)?;
            Ok(Snapshot { revision: everything.revision, pages: pages(everything)?, made_at })
        });
        let snapshot = Arc::new(made.await?);
        self.keep(&profile.name, &snapshot);
        Ok(snapshot)
    }

    /// Keeps a snapshot, and lets go of those that nobody is taking in any more.
    fn keep(&self, profile: &str, snapshot: &Arc<Snapshot>) {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.entry(profile.to_owned()).or_default();
        kept.retain(|kept| kept.served_at.elapsed() < IN_USE);
        if kept.len() >= MAX_KEPT {
            kept.remove(0);
        }
        kept.push(Kept { snapshot: Arc::clone(snapshot), served_at: Instant::now() });
    }
}

/// Returns the pages of a snapshot, none much longer than [`MAX_PAGE_BYTES`].
pub(super) fn pages(everything: Everything) -> Result<Vec<Bytes>, StoreError> {
    let Everything { revision, tokens, anonymous_limits } = everything;
    let mut drafts = vec![Draft::default()];
    for row in tokens {
        match drafts.last_mut() {
            Some(draft) if draft.bytes < MAX_PAGE_BYTES => draft.add(row),
            last => {
                let mut draft = last.map(Draft::next_page).unwrap_or_default();
                draft.add(row);
                drafts.push(draft);
            }
        }
    }
    let total = u32::try_from(drafts.len()).unwrap_or(u32::MAX);
    (0..total)
        .zip(drafts)
        .map(|(page, draft)| {
            let update =
                draft.finish(revision, None, (page, total), Vec::new(), anonymous_limits.clone());
            Ok(Bytes::from(to_json(&update)?))
        })
        .collect()
}

/// How old a snapshot may be for a filter that has none: those that start together share it. A filter
/// brings it up to date before it uses it.
pub(super) const RECENT: Duration = Duration::from_secs(5);

/// How long after its last page a snapshot counts as in use.
const IN_USE: Duration = Duration::from_secs(10);

/// Snapshots of a profile that are kept at most: each is as large as all of its keys.
pub(super) const MAX_KEPT: usize = 8;
